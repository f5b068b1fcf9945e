//! Detects an origin that leads back to the gate.
//!
//! This happens if `ORIGIN` is empty and no server is behind the gate (`wrangler dev`), or if
//! `ORIGIN` names the gate itself. A request to a host at which the gate may be reachable carries a
//! [`Seal::mark`], an HMAC under `KEY_SECRET`. A gate that receives a valid mark was called by
//! itself. It answers 508 with a [`Seal::proof`], another HMAC.
//!
//! - A mark is valid for one host and one minute. The origin sees marks. A mark that it replays
//!   only causes a 508 for that request; the gate draws no conclusions about other requests.
//! - What an isolate remembers of a host comes from a probe of its own: a request on a path that is
//!   not forwarded for clients, with a mark of its own and the matching proof. A 508 to a forwarded
//!   request only triggers a probe, at most once a minute, because clients may be able to choose
//!   the origin's response.
//! - A local host is probed before the first call to it is counted. Other hosts are probed only
//!   after a 508: on a route, the origin receives the probe, and it should not receive requests
//!   that no client sent.

use crate::encoding::{hex, unhex};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::HashMap;

/// The header field that carries a mark to a host, and a proof back.
pub const MARK: &str = "X-Tollgate-Loop";
/// Maximum difference between the time of a mark and now, in milliseconds.
const MARK_LIFE: u64 = 60_000;
/// How long one mark is used for requests, in milliseconds.
const MARK_USE: u64 = 20_000;
/// How long a loop is remembered, and the minimum time between suspicions, in milliseconds.
const LOOP_LIFE: u64 = 60_000;
/// Maximum number of remembered hosts. Clients may be able to name new ones.
const HOSTS: usize = 64;
const MAC_BYTES: usize = 16;

/// The host and port of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    host: &'a str,
    /// `None` for the default port of the scheme.
    port: Option<u16>,
}

impl<'a> Place<'a> {
    /// Parses an absolute `http(s)` URL.
    #[must_use]
    pub fn of(url: &'a str) -> Option<Self> {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
        let authority = rest.find(['/', '?', '#']).and_then(|end| rest.get(..end)).unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (authority, None),
        };
        // Default ports are equal, because a gate behind a proxy may be called over another scheme
        // than it sees.
        let port = port.filter(|port| !matches!(port, 80 | 443));
        (!host.is_empty()).then_some(Self { host, port })
    }

    /// Whether both are the same host and port.
    #[must_use]
    pub fn is(self, other: Self) -> bool {
        self.port == other.port && self.host.eq_ignore_ascii_case(other.host)
    }

    /// Whether the gate may be reachable here if requests reach it at `own`. All local names of one
    /// port may be one machine.
    #[must_use]
    pub fn may_be(self, own: Self) -> bool {
        self.is(own) || self.port == own.port && self.is_local() && own.is_local()
    }

    /// Whether the host is not in the public DNS, as for development servers.
    #[must_use]
    pub fn is_local(self) -> bool {
        // An address: no public name is all digits or begins with a bracket.
        let is_address = self.host.starts_with('[') || self.host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let is_one_label = !self.host.trim_end_matches('.').contains('.');
        is_address || is_one_label || self.is_under(".localhost") || self.is_under(".local")
    }

    /// Whether the host is a Worker's own address, behind which there is no origin.
    #[must_use]
    pub fn is_workers_dev(self) -> bool {
        self.is_under(".workers.dev")
    }

    fn is_under(self, suffix: &str) -> bool {
        let host = self.host.trim_end_matches('.');
        let end = host.len().checked_sub(suffix.len()).and_then(|at| host.get(at..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    }

    /// The normalised form.
    fn key(self) -> String {
        let host = self.host.trim_end_matches('.').to_ascii_lowercase();
        self.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    }
}

/// Creates and verifies marks and proofs.
#[derive(Clone)]
pub struct Seal(Hmac<Sha256>);

impl Seal {
    /// A seal under `KEY_SECRET`. Without a secret every key is refused, and only public paths are
    /// forwarded. A seal under an empty secret still ends their loops.
    #[must_use]
    pub fn new(key_secret: Option<&str>) -> Option<Self> {
        Hmac::new_from_slice(key_secret.unwrap_or_default().as_bytes()).ok().map(Self)
    }

    fn mac(&self, label: &[u8], parts: &[&str]) -> Hmac<Sha256> {
        let mac = self.0.clone().chain_update(label);
        parts.iter().fold(mac, |mac, part| mac.chain_update(b"\0").chain_update(part.as_bytes()))
    }

    fn text(mac: Hmac<Sha256>) -> String {
        hex(mac.finalize().into_bytes().get(..MAC_BYTES).unwrap_or_default())
    }

    /// Creates a mark for requests to `place`: the time, a unique number, and the HMAC of both and
    /// the place.
    #[must_use]
    pub fn mark(&self, place: Place<'_>, now: u64, nonce: u64) -> String {
        let stamp = format!("{now}.{nonce:016x}");
        let mac = Self::text(self.mac(b"tollgate loop v1", &[&place.key(), &stamp]));
        format!("{stamp}.{mac}")
    }

    /// Whether a gate of this deployment recently created `mark` for requests to `own`.
    #[must_use]
    pub fn verifies(&self, mark: &str, own: Place<'_>, now: u64) -> bool {
        let Some((stamp, mac)) = mark.rsplit_once('.') else { return false };
        let issued = stamp.split_once('.').and_then(|(issued, _)| issued.parse::<u64>().ok());
        let is_fresh = issued.is_some_and(|issued| issued.abs_diff(now) <= MARK_LIFE);
        let Some(mac) = unhex(mac).filter(|mac| is_fresh && mac.len() == MAC_BYTES) else { return false };
        self.mac(b"tollgate loop v1", &[&own.key(), stamp]).verify_truncated_left(&mac).is_ok()
    }

    /// The proof with which a gate answers its own mark.
    #[must_use]
    pub fn proof(&self, mark: &str) -> String {
        Self::text(self.mac(b"tollgate loop proof v1", &[mark]))
    }

    /// Whether `proof` belongs to `mark`.
    #[must_use]
    pub fn proves(&self, mark: &str, proof: &str) -> bool {
        let mac = unhex(proof).filter(|mac| mac.len() == MAC_BYTES);
        mac.is_some_and(|mac| self.mac(b"tollgate loop proof v1", &[mark]).verify_truncated_left(&mac).is_ok())
    }
}

/// Whether requests may go to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// No loop is known: forward the request.
    Open,
    /// The place is the gate itself.
    Loop,
    /// The place must be probed first.
    Probe,
}

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// The gate answered.
    Itself,
    /// Another server answered.
    Other,
    /// No server answered in time.
    NoAnswer,
}

/// What an isolate remembers of places at which the gate may be reachable. Times are milliseconds
/// on its clock.
#[derive(Debug, Default)]
pub struct Loops {
    places: HashMap<String, KnownHost>,
    /// When a response last resembled the gate's own.
    suspected_at: Option<u64>,
}

#[derive(Debug, Default)]
struct KnownHost {
    found: Option<(u64, ProbeResult)>,
    mark: Option<(u64, String)>,
}

impl Loops {
    /// Whether a request may go to `place`, where the gate may be reachable.
    #[must_use]
    pub fn way(&self, place: Place<'_>, now: u64) -> Way {
        if place.is_workers_dev() {
            return Way::Loop;
        }
        let is_recent = |since: u64| now.abs_diff(since) < LOOP_LIFE;
        let is_trusted = |since| self.suspected_at.is_none_or(|suspected| suspected <= since);
        match self.places.get(&place.key()).and_then(|known| known.found) {
            Some((since, ProbeResult::Itself)) if is_recent(since) => Way::Loop,
            Some((since, ProbeResult::Other)) if is_trusted(since) => Way::Open,
            Some((since, ProbeResult::NoAnswer)) if is_recent(since) && is_trusted(since) => Way::Open,
            None if self.suspected_at.is_none() && !place.is_local() => Way::Open,
            _ => Way::Probe,
        }
    }

    /// Records the result of a probe.
    pub fn record(&mut self, place: Place<'_>, found: ProbeResult, now: u64) {
        self.place(place).found = Some((now, found));
    }

    /// Records a response that may be the gate's own. At most one per minute counts, because
    /// clients may be able to choose the origin's response.
    pub fn suspect(&mut self, now: u64) {
        if self.suspected_at.is_none_or(|since| now.abs_diff(since) >= LOOP_LIFE) {
            self.suspected_at = Some(now);
        }
    }

    /// The mark for requests to `place`. `None` if another server is known to be there.
    pub fn mark(&mut self, place: Place<'_>, seal: &Seal, now: u64, nonce: impl FnOnce() -> u64) -> Option<&str> {
        let known = self.place(place);
        if place.is_local() && known.found.is_some_and(|(_, found)| found == ProbeResult::Other) {
            return None;
        }
        if known.mark.as_ref().is_none_or(|(since, _)| now.abs_diff(*since) >= MARK_USE) {
            known.mark = Some((now, seal.mark(place, now, nonce())));
        }
        known.mark.as_ref().map(|(_, mark)| mark.as_str())
    }

    fn place(&mut self, place: Place<'_>) -> &mut KnownHost {
        let key = place.key();
        if self.places.len() >= HOSTS && !self.places.contains_key(&key) {
            self.places.clear();
        }
        self.places.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: &str = "https://api.example.com/a";
    const LOCAL: &str = "http://localhost:8787/a";

    fn place(url: &str) -> Place<'_> {
        Place::of(url).unwrap()
    }

    fn seal() -> Seal {
        Seal::new(Some("secret")).unwrap()
    }

    #[test]
    fn places_are_host_and_port() {
        for (url, host, port) in [
            ("http://h", "h", None),
            ("https://h:8443?x", "h", Some(8443)),
            ("http://h:80/", "h", None),
            ("https://h:443#x", "h", None),
            ("http://[::1]/", "[::1]", None),
            ("http://[::1]:8787/", "[::1]", Some(8787)),
        ] {
            assert_eq!(Place::of(url), Some(Place { host, port }), "{url}");
        }
        for url in ["", "h", "ftp://h", "http://", "https:///a", "http://:80"] {
            assert_eq!(Place::of(url), None, "{url}");
        }
        assert!(place("http://API.example.com:80/x").is(place(GATE)));
        assert!(!place("http://api.example.com:8080").is(place(GATE)));
    }

    #[test]
    fn a_machine_has_many_names() {
        for local in [
            "http://localhost:8787",
            "http://app.LOCALHOST:8787",
            "http://127.0.0.1:8787",
            "http://[::1]:8787",
            "http://192.168.1.5:8787",
            "http://0.0.0.0:8787",
            "http://gate:8787",
            "http://mac.local:8787",
        ] {
            assert!(place(local).is_local(), "{local}");
            assert!(place(local).may_be(place(LOCAL)), "{local}");
            assert!(!place(local).may_be(place("http://localhost:3000")), "{local}");
            assert!(!place(local).may_be(place(GATE)), "{local}");
        }
        for public in [GATE, "https://gate.test", "https://local.example.com", "https://localhost.example.com"] {
            assert!(!place(public).is_local(), "{public}");
            assert!(place(public).may_be(place(public)));
            assert!(!place(public).may_be(place("https://other.example.com")));
        }
        assert!(place("https://tollgate.me.Workers.dev/x").is_workers_dev());
        assert!(place("https://a.workers.dev.").is_workers_dev());
        assert!(!place("https://workers.dev.example.com").is_workers_dev());
        assert!(!place("https://aworkers.dev").is_workers_dev());
    }

    #[test]
    fn a_mark_is_for_one_place_and_a_minute() {
        let mark = seal().mark(place(GATE), 1_000_000, 7);
        assert_eq!(mark, "1000000.0000000000000007.".to_owned() + MARK_MAC);
        for now in [1_000_000, 1_060_000, 940_000] {
            assert!(seal().verifies(&mark, place("http://API.example.com:80"), now), "{now}");
        }
        for now in [0, 939_999, 1_060_001, u64::MAX] {
            assert!(!seal().verifies(&mark, place(GATE), now), "{now}");
        }
        assert!(!seal().verifies(&mark, place("https://other.example.com"), 1_000_000));
        assert!(!Seal::new(Some("other")).unwrap().verifies(&mark, place(GATE), 1_000_000));
        assert!(!Seal::new(None).unwrap().verifies(&mark, place(GATE), 1_000_000));
        for at in 0..mark.len() {
            let mut changed = mark.clone();
            changed.replace_range(at..=at, if &mark[at..=at] == "1" { "2" } else { "1" });
            assert!(!seal().verifies(&changed, place(GATE), 1_000_000), "{changed}");
        }
        for other in ["", ".", "..", "1000000", "1000000.7", &mark[1..], &mark[..mark.len() - 2], &format!("{mark}00")]
        {
            assert!(!seal().verifies(other, place(GATE), 1_000_000), "{other}");
        }
    }
    /// An outer and an inner gate may be of two versions.
    const MARK_MAC: &str = "cd138ede6b77d0acb1a3e7d840d98b10";

    #[test]
    fn a_proof_is_of_one_mark_and_no_mark_is_one() {
        let (mark, other) = (seal().mark(place(GATE), 1, 7), seal().mark(place(GATE), 1, 8));
        let proof = seal().proof(&mark);
        assert_eq!(proof.len(), 2 * MAC_BYTES);
        assert!(seal().proves(&mark, &proof));
        assert!(!seal().proves(&other, &proof));
        assert!(!Seal::new(Some("other")).unwrap().proves(&mark, &proof));
        for wrong in ["", "00", &mark, mark.rsplit_once('.').unwrap().1, &proof[2..], &format!("{proof}00")] {
            assert!(!seal().proves(&mark, wrong), "{wrong}");
        }
    }

    #[test]
    fn a_local_place_is_probed_first_and_a_loop_again_after_a_minute() {
        let mut loops = Loops::default();
        assert_eq!(loops.way(place(LOCAL), 0), Way::Probe);
        loops.record(place(LOCAL), ProbeResult::NoAnswer, 0);
        assert_eq!(loops.way(place(LOCAL), LOOP_LIFE - 1), Way::Open);
        assert_eq!(loops.way(place(LOCAL), LOOP_LIFE), Way::Probe);
        loops.suspect(1);
        assert_eq!(loops.way(place(LOCAL), 1), Way::Probe);
        loops.record(place(LOCAL), ProbeResult::Other, 2);
        assert_eq!(loops.way(place(LOCAL), u64::MAX), Way::Open);
        assert_eq!(loops.way(place("http://LOCALHOST:8787/b"), 0), Way::Open);
        assert_eq!(loops.way(place("http://localhost:3000"), 0), Way::Probe);
        loops.record(place(LOCAL), ProbeResult::Itself, 100);
        assert_eq!(loops.way(place(LOCAL), 99 + LOOP_LIFE), Way::Loop);
        assert_eq!(loops.way(place(LOCAL), 100 + LOOP_LIFE), Way::Probe);
    }

    #[test]
    fn a_public_place_is_probed_after_a_502_or_508_and_once_a_minute() {
        let mut loops = Loops::default();
        assert_eq!(loops.way(place(GATE), 0), Way::Open);
        loops.suspect(10);
        assert_eq!(loops.way(place(GATE), 10), Way::Probe);
        loops.record(place(GATE), ProbeResult::Other, 11);
        loops.suspect(12);
        assert_eq!(loops.way(place(GATE), 12), Way::Open);
        loops.suspect(10 + LOOP_LIFE);
        assert_eq!(loops.way(place(GATE), 10 + LOOP_LIFE), Way::Probe);
        loops.record(place(GATE), ProbeResult::Itself, 11 + LOOP_LIFE);
        assert_eq!(loops.way(place(GATE), 12 + LOOP_LIFE), Way::Loop);
        assert_eq!(Loops::default().way(place("https://tollgate.me.workers.dev"), 0), Way::Loop);
    }

    #[test]
    fn a_mark_is_made_anew_after_a_while_and_not_sent_to_somebody_else() {
        let (mut loops, seal) = (Loops::default(), seal());
        let mut mark = |url, now, nonce| loops.mark(place(url), &seal, now, || nonce).map(str::to_owned);
        assert_eq!(mark(GATE, 0, 1), Some(seal.mark(place(GATE), 0, 1)));
        assert_eq!(mark(GATE, MARK_USE - 1, 2), Some(seal.mark(place(GATE), 0, 1)));
        assert_eq!(mark(GATE, MARK_USE, 3), Some(seal.mark(place(GATE), MARK_USE, 3)));
        loops.record(place(LOCAL), ProbeResult::NoAnswer, 0);
        assert!(loops.mark(place(LOCAL), &seal, 0, || 4).is_some());
        loops.record(place(LOCAL), ProbeResult::Other, 0);
        assert_eq!(loops.mark(place(LOCAL), &seal, 0, || 4), None);
        loops.record(place(GATE), ProbeResult::Other, 0);
        assert!(loops.mark(place(GATE), &seal, 0, || 5).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let mut loops = Loops::default();
        for url in [LOCAL, "http://localhost:3000"] {
            loops.record(place(url), ProbeResult::Other, 0);
        }
        assert_eq!(loops.way(place(LOCAL), 0), Way::Open);
        for n in 0..1_000 {
            loops.record(place(&format!("http://host-{n}:1")), ProbeResult::Other, 0);
            assert!(loops.places.len() <= HOSTS);
        }
    }
}
