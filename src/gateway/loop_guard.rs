//! Whether the way to the origin leads back to the gate.
//!
//! It does where `ORIGIN` is empty and nothing stands behind the gate (`wrangler dev`), or where `ORIGIN` names the gate itself.
//! A request that is forwarded to a host where the gate itself may be carries a [`Seal::mark`]: an HMAC under `KEY_SECRET`. A gate
//! that receives a valid mark was called by itself. It answers 508 with a [`Seal::proof`], another HMAC.
//!
//! - A mark is valid for one host and for a minute. The origin sees marks. Whoever repeats one gets a 508 for that request; the gate
//!   concludes nothing from it about other requests.
//! - What an isolate remembers of a host comes from a question of its own to that host, on a path that is not forwarded for clients,
//!   with a mark of its own and the proof that belongs to it. A forwarded request that is answered 508 only makes the isolate ask, at
//!   most once a minute, because a client may be able to choose what an origin answers.
//! - A local host is asked before the first call to it is counted. Other hosts are asked only after such an answer: on a route the
//!   origin answers, and should not see requests that no client has sent.

use crate::encoding::{hex, unhex};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::HashMap;

/// The field that carries a mark to a host, and a proof back.
pub const MARK: &str = "X-Tollgate-Loop";
/// How old a mark may be, and how far in the future, in milliseconds.
const MARK_LIFE: u64 = 60_000;
/// For how long one mark is sent, in milliseconds.
const MARK_USE: u64 = 20_000;
/// For how long a loop is remembered, and how long nothing more is suspected, in milliseconds.
const LOOP_LIFE: u64 = 60_000;
/// Hosts at most that are remembered; clients may be able to name new ones.
const HOSTS: usize = 64;
const MAC_BYTES: usize = 16;

/// Host and port of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    host: &'a str,
    /// `None` for the scheme's own.
    port: Option<u16>,
}

impl<'a> Place<'a> {
    /// Reads an absolute `http(s)` URL.
    #[must_use]
    pub fn of(url: &'a str) -> Option<Self> {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
        let authority = rest.find(['/', '?', '#']).and_then(|end| rest.get(..end)).unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (authority, None),
        };
        // A gate behind a proxy is asked over another scheme than it sees.
        let port = port.filter(|port| !matches!(port, 80 | 443));
        (!host.is_empty()).then_some(Self { host, port })
    }

    /// Whether both are written alike.
    #[must_use]
    pub fn is(self, other: Self) -> bool {
        self.port == other.port && self.host.eq_ignore_ascii_case(other.host)
    }

    /// Whether the gate itself may stand here, if requests reach it at `own`: a machine has many names.
    #[must_use]
    pub fn may_be(self, own: Self) -> bool {
        self.is(own) || self.port == own.port && self.is_local() && own.is_local()
    }

    /// Whether it is no name of the public DNS: what a development server is reached at.
    #[must_use]
    pub fn is_local(self) -> bool {
        // Addresses: no name of the public DNS is all digits, or begins with a bracket.
        let is_address = self.host.starts_with('[') || self.host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let is_one_label = !self.host.trim_end_matches('.').contains('.');
        is_address || is_one_label || self.is_under(".localhost") || self.is_under(".local")
    }

    /// Whether it is a Worker's own address, behind which there is nothing but the Worker.
    #[must_use]
    pub fn is_workers_dev(self) -> bool {
        self.is_under(".workers.dev")
    }

    fn is_under(self, suffix: &str) -> bool {
        let host = self.host.trim_end_matches('.');
        let end = host.len().checked_sub(suffix.len()).and_then(|at| host.get(at..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    }

    /// One spelling of it.
    fn key(self) -> String {
        let host = self.host.trim_end_matches('.').to_ascii_lowercase();
        self.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    }
}

/// Makes marks and proofs, and knows its own again.
#[derive(Clone)]
pub struct Seal(Hmac<Sha256>);

impl Seal {
    /// A seal under `KEY_SECRET`. Without that every key is refused; what is left are public paths, and a seal that others can make
    /// still ends their loops.
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

    /// A mark for requests to `place`: the time, a number that no other mark has, and the HMAC of both and the place.
    #[must_use]
    pub fn mark(&self, place: Place<'_>, now: u64, nonce: u64) -> String {
        let stamp = format!("{now}.{nonce:016x}");
        let mac = Self::text(self.mac(b"tollgate loop v1", &[&place.key(), &stamp]));
        format!("{stamp}.{mac}")
    }

    /// Whether a request that reached `own` carries a mark that a gate of this deployment has made for it, of late.
    #[must_use]
    pub fn knows(&self, mark: &str, own: Place<'_>, now: u64) -> bool {
        let Some((stamp, mac)) = mark.rsplit_once('.') else { return false };
        let issued = stamp.split_once('.').and_then(|(issued, _)| issued.parse::<u64>().ok());
        let is_fresh = issued.is_some_and(|issued| issued.abs_diff(now) <= MARK_LIFE);
        let Some(mac) = unhex(mac).filter(|mac| is_fresh && mac.len() == MAC_BYTES) else { return false };
        self.mac(b"tollgate loop v1", &[&own.key(), stamp]).verify_truncated_left(&mac).is_ok()
    }

    /// What a gate answers to a mark of its own.
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

/// What is known of the way to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It leads on, as far as is known.
    Open,
    /// It leads back.
    Loop,
    /// The place has to be asked.
    Ask,
}

/// Who answers at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// The gate itself.
    Itself,
    /// Somebody else.
    Other,
    /// Nobody, in time.
    Nobody,
}

/// What an isolate remembers of the places where it may be itself. Times are milliseconds on its clock.
#[derive(Debug, Default)]
pub struct Loops {
    places: HashMap<String, KnownHost>,
    /// When an answer last came back that looked like our own.
    suspected_at: Option<u64>,
}

#[derive(Debug, Default)]
struct KnownHost {
    found: Option<(u64, ProbeResult)>,
    mark: Option<(u64, String)>,
}

impl Loops {
    /// Whether a request may go to `place`, where the gate itself may be.
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
            Some((since, ProbeResult::Nobody)) if is_recent(since) && is_trusted(since) => Way::Open,
            None if self.suspected_at.is_none() && !place.is_local() => Way::Open,
            _ => Way::Ask,
        }
    }

    /// Notes who answered at `place` at `now`.
    pub fn learn(&mut self, place: Place<'_>, found: ProbeResult, now: u64) {
        self.place(place).found = Some((now, found));
    }

    /// Notes an answer that a gate may have given. Counts once a minute: a client may be able to choose what an origin answers.
    pub fn suspect(&mut self, now: u64) {
        if self.suspected_at.is_none_or(|since| now.abs_diff(since) >= LOOP_LIFE) {
            self.suspected_at = Some(now);
        }
    }

    /// The mark of requests to `place`; `None` where it is known that somebody else is there.
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
            assert!(seal().knows(&mark, place("http://API.example.com:80"), now), "{now}");
        }
        for now in [0, 939_999, 1_060_001, u64::MAX] {
            assert!(!seal().knows(&mark, place(GATE), now), "{now}");
        }
        assert!(!seal().knows(&mark, place("https://other.example.com"), 1_000_000));
        assert!(!Seal::new(Some("other")).unwrap().knows(&mark, place(GATE), 1_000_000));
        assert!(!Seal::new(None).unwrap().knows(&mark, place(GATE), 1_000_000));
        for at in 0..mark.len() {
            let mut changed = mark.clone();
            changed.replace_range(at..=at, if &mark[at..=at] == "1" { "2" } else { "1" });
            assert!(!seal().knows(&changed, place(GATE), 1_000_000), "{changed}");
        }
        for other in ["", ".", "..", "1000000", "1000000.7", &mark[1..], &mark[..mark.len() - 2], &format!("{mark}00")]
        {
            assert!(!seal().knows(other, place(GATE), 1_000_000), "{other}");
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
    fn a_local_place_is_asked_first_and_a_loop_again_after_a_minute() {
        let mut loops = Loops::default();
        assert_eq!(loops.way(place(LOCAL), 0), Way::Ask);
        loops.learn(place(LOCAL), ProbeResult::Nobody, 0);
        assert_eq!(loops.way(place(LOCAL), LOOP_LIFE - 1), Way::Open);
        assert_eq!(loops.way(place(LOCAL), LOOP_LIFE), Way::Ask);
        loops.suspect(1);
        assert_eq!(loops.way(place(LOCAL), 1), Way::Ask);
        loops.learn(place(LOCAL), ProbeResult::Other, 2);
        assert_eq!(loops.way(place(LOCAL), u64::MAX), Way::Open);
        assert_eq!(loops.way(place("http://LOCALHOST:8787/b"), 0), Way::Open);
        assert_eq!(loops.way(place("http://localhost:3000"), 0), Way::Ask);
        loops.learn(place(LOCAL), ProbeResult::Itself, 100);
        assert_eq!(loops.way(place(LOCAL), 99 + LOOP_LIFE), Way::Loop);
        assert_eq!(loops.way(place(LOCAL), 100 + LOOP_LIFE), Way::Ask);
    }

    #[test]
    fn a_public_place_is_asked_once_an_answer_came_back_and_that_once_a_minute() {
        let mut loops = Loops::default();
        assert_eq!(loops.way(place(GATE), 0), Way::Open);
        loops.suspect(10);
        assert_eq!(loops.way(place(GATE), 10), Way::Ask);
        loops.learn(place(GATE), ProbeResult::Other, 11);
        loops.suspect(12);
        assert_eq!(loops.way(place(GATE), 12), Way::Open);
        loops.suspect(10 + LOOP_LIFE);
        assert_eq!(loops.way(place(GATE), 10 + LOOP_LIFE), Way::Ask);
        loops.learn(place(GATE), ProbeResult::Itself, 11 + LOOP_LIFE);
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
        loops.learn(place(LOCAL), ProbeResult::Nobody, 0);
        assert!(loops.mark(place(LOCAL), &seal, 0, || 4).is_some());
        loops.learn(place(LOCAL), ProbeResult::Other, 0);
        assert_eq!(loops.mark(place(LOCAL), &seal, 0, || 4), None);
        loops.learn(place(GATE), ProbeResult::Other, 0);
        assert!(loops.mark(place(GATE), &seal, 0, || 5).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let mut loops = Loops::default();
        for url in [LOCAL, "http://localhost:3000"] {
            loops.learn(place(url), ProbeResult::Other, 0);
        }
        assert_eq!(loops.way(place(LOCAL), 0), Way::Open);
        for n in 0..1_000 {
            loops.learn(place(&format!("http://host-{n}:1")), ProbeResult::Other, 0);
            assert!(loops.places.len() <= HOSTS);
        }
    }
}
