//! Denials and refusals that an isolate repeats without a request to the key's object.
//!
//! A denial stays valid for a while: no policy frees the cost of the call before the wait is over.
//! So the isolate keeps the first denial of a key and, until then, denies every call of the key
//! that costs as much or more.
//!
//! - The validity counts from before the request to the object, so it ends no later than the
//!   object's own wait.
//! - The waits in responses count from after the object's response, so a client that honours
//!   `Retry-After` is never denied twice.
//! - The validity also ends when a window of the key ends, because the fields would be wrong from
//!   then on, and at a cap, which bounds how long it outlives an upgrade.
//!
//! # Calls with an idempotency key
//! A denial with the [extent](Extent) `All` is valid for them too. Any other is valid for new calls
//! only, or for replays only, and an isolate cannot distinguish these. So it keeps the idempotency
//! keys that the object has classified. It passes others to the object, up to [`UNCLASSIFIED_PER_SECOND`] per
//! second. Beyond that it denies them as new calls: a replay may be refused that would have passed,
//! but no call passes that must be refused.
//!
//! # Keys that may not be used
//! A 403 is kept for at most [`REFUSAL_LIFE`], and so is the refusal of a malformed idempotency
//! key. An isolate through which a key or tier is changed [forgets](DenyCache::forget) its entries,
//! and does not keep responses to earlier requests.

use crate::keys::key::same_hash;
use crate::limiter::policy::Unit;
use crate::protocol::object_request::Call;
use crate::protocol::object_response::{Extent, KeyResponse, KeyVerdict};
use std::collections::HashMap;
use std::ops::Range;

/// Maximum number of keys with kept refusals. With one refusal each, they take about 5 MB.
pub const CAPACITY: usize = 10_000;
/// How long refusals other than denials are kept, in milliseconds.
pub const REFUSAL_LIFE: u64 = 3_000;
/// Maximum number of calls of a key per second, with unclassified idempotency keys, that are passed
/// to the object while a denial is kept.
pub const UNCLASSIFIED_PER_SECOND: u32 = 10;
/// Maximum number of idempotency keys that are kept with a denial.
const CLASSIFIED: usize = 16;
/// Maximum number of refusals that are kept per key: enough for all secrets that it can have at a
/// time.
const REFUSALS: usize = 8;
/// Minimum interval between searches for expired entries in a full cache, in milliseconds.
const SWEEP_INTERVAL: u64 = 1_000;

/// The refusals of one isolate. Times are milliseconds on the isolate's clock; only differences
/// matter.
#[derive(Debug, Default)]
pub struct DenyCache {
    keys: HashMap<String, Kept>,
    swept_at: u64,
    /// Number of refusals kept so far, from which [`Denial::number`] derives.
    kept: u64,
    generation: Generation,
}

/// Changes with every [`DenyCache::forget`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Generation(u64);

/// The `Idempotency-Key` of a call, where it applies to the method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keyed {
    /// There is no key.
    #[default]
    No,
    /// A key, by [`Fingerprint::with_key`](crate::http::idempotency_key::Fingerprint::with_key).
    Key(u64),
    /// The value is not a valid key.
    Malformed,
}

/// The refusals of one key: at most one per secret and audience.
#[derive(Debug, Default)]
struct Kept {
    refusals: Vec<Denial>,
    /// A second, and the number of calls passed to the object in it.
    passed: (u64, u32),
}

/// The calls for which a refusal is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    All,
    NewCalls,
    Replays,
    MalformedKeys,
}

/// A refusal and its validity.
#[derive(Debug)]
pub struct Denial {
    number: u64,
    audience: Audience,
    secret_hash: String,
    /// Method and path, if only calls to these are known to cost as much. No call costs less than
    /// 1, so a denial of cost 1 is valid for all.
    only_for: Option<(String, String)>,
    /// Idempotency keys that are known to belong to the audience, oldest first.
    classified: Vec<u64>,
    known: KeyResponse,
    answered_at: u64,
    ends_at: u64,
}

impl DenyCache {
    /// Keeps a refusal of the object for at most `cap` milliseconds. `span` lasts from the request
    /// to the response. Other responses are not kept, nor responses to requests from before the
    /// current `generation`.
    pub fn keep(
        &mut self,
        call: Call<'_>,
        keyed: Keyed,
        known: &KeyResponse,
        span: Range<u64>,
        cap: u64,
        generation: Generation,
    ) {
        let Some((audience, cost, longest)) = kind(&known.verdict, keyed) else { return };
        // True only of calls that hold as much. A settle may make room at any time, too.
        if known.is_violated(Unit::Tokens) {
            return;
        }
        let resets = known.usage.policies.iter().map(|policy| policy.reset_after).filter(|&reset| reset > 0);
        let life = resets.chain(known.usage.changes_after).chain([longest, cap]).min().unwrap_or_default();
        // The clock stepped back in between: the duration of the request is unknown.
        let is_usable = life > 0 && span.end >= span.start && generation == self.generation;
        if !is_usable || !self.has_room(call.id, span.end) {
            return;
        }
        self.kept = self.kept.wrapping_add(1);
        let mut fresh = Denial {
            number: self.kept,
            audience,
            secret_hash: call.secret_hash.to_owned(),
            only_for: (cost > 1).then(|| (call.method.to_owned(), call.path.to_owned())),
            classified: Vec::new(),
            known: known.clone(),
            answered_at: span.end,
            ends_at: span.start.saturating_add(life),
        };
        let refusals = &mut self.keys.entry(call.id.to_owned()).or_default().refusals;
        let is_same = |older: &Denial| older.audience == audience && same_hash(&older.secret_hash, call.secret_hash);
        let older = refusals.iter().position(is_same).map(|at| refusals.remove(at));
        refusals.drain(..(refusals.len() + 1).saturating_sub(REFUSALS));
        if let Some(mut older) = older.filter(|older| older.is_valid_at(span.start)) {
            // Keys classified for the previous denial remain classified while denials follow each
            // other.
            fresh.classified = std::mem::take(&mut older.classified);
            if older.only_for.is_none() && fresh.only_for.is_some() {
                // A denial for all calls is not replaced by one for some.
                fresh = Denial { classified: fresh.classified, ..older };
            } else if older.only_for != fresh.only_for {
                fresh.classified.clear();
            }
        }
        if let Keyed::Key(key) = keyed {
            fresh.classified.retain(|classified| *classified != key);
            fresh.classified.drain(..(fresh.classified.len() + 1).saturating_sub(CLASSIFIED));
            fresh.classified.push(key);
        }
        refusals.push(fresh);
    }

    /// The current generation. Pass it to [`keep`](Self::keep) with the response to a request that
    /// is sent now.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Drops the refusals of a key, or of all keys, and prevents responses to requests in flight
    /// from being kept.
    pub fn forget(&mut self, id: Option<&str>) {
        self.generation.0 = self.generation.0.wrapping_add(1);
        match id {
            Some(id) => drop(self.keys.remove(id)),
            None => self.keys.clear(),
        }
    }

    fn has_room(&mut self, id: &str, now: u64) -> bool {
        if self.keys.len() < CAPACITY || self.keys.contains_key(id) {
            return true;
        }
        if now.abs_diff(self.swept_at) >= SWEEP_INTERVAL {
            self.swept_at = now;
            self.keys.retain(|_, kept| kept.refusals.iter().any(|refusal| refusal.is_valid_at(now)));
        }
        self.keys.len() < CAPACITY
    }

    /// The refusal that is valid for this call at `now`. If `None`, the object must judge the call,
    /// which is counted against [`UNCLASSIFIED_PER_SECOND`].
    pub fn find(&mut self, call: Call<'_>, keyed: Keyed, now: u64) -> Option<&Denial> {
        let kept = self.keys.get_mut(call.id)?;
        kept.refusals.retain(|refusal| refusal.is_valid_at(now));
        if kept.refusals.is_empty() {
            self.keys.remove(call.id);
            return None;
        }
        let kept = self.keys.get_mut(call.id)?;
        let is_known = |refusal: &Denial| match (refusal.audience, keyed) {
            (Audience::All, _) | (Audience::NewCalls, Keyed::No) | (Audience::MalformedKeys, Keyed::Malformed) => true,
            (Audience::NewCalls | Audience::Replays, Keyed::Key(key)) => refusal.classified.contains(&key),
            _ => false,
        };
        let mut refusals = kept.refusals.iter();
        if let Some(at) = refusals.position(|refusal| refusal.is_for(call) && is_known(refusal)) {
            return kept.refusals.get(at);
        }
        let Keyed::Key(_) = keyed else { return None };
        let of = |audience| move |refusal: &Denial| refusal.audience == audience && refusal.is_for(call);
        let new = kept.refusals.iter().position(of(Audience::NewCalls));
        let at = new.or_else(|| kept.refusals.iter().position(of(Audience::Replays)))?;
        let second = now / 1000;
        let (last, count) = kept.passed;
        let count = if last == second { count.saturating_add(1) } else { 1 };
        kept.passed = (second, count);
        kept.refusals.get(at).filter(|_| count > UNCLASSIFIED_PER_SECOND)
    }
}

/// The audience of a refusal, the cost of its call, and for how many milliseconds it may be kept.
fn kind(verdict: &KeyVerdict, keyed: Keyed) -> Option<(Audience, u64, u64)> {
    match *verdict {
        // Any settle or release makes room, and calls that need no hold are not denied.
        KeyVerdict::Denied { lacks_hold: true, .. } | KeyVerdict::Denied { may_end_early: true, .. } => None,
        KeyVerdict::Denied { retry_after, cost, extent, .. } => {
            let audience = match (extent, keyed) {
                (Extent::All, _) => Audience::All,
                (Extent::Replays, _) => Audience::Replays,
                (Extent::New, _) | (Extent::Unsaid, Keyed::No) => Audience::NewCalls,
                // An object of an earlier version does not report whether the call was a replay.
                (Extent::Unsaid, _) => return None,
            };
            Some((audience, cost, retry_after))
        }
        KeyVerdict::Refused(_) => Some((Audience::All, 1, REFUSAL_LIFE)),
        KeyVerdict::Malformed => Some((Audience::MalformedKeys, 1, REFUSAL_LIFE)),
        _ => None,
    }
}

impl Denial {
    /// Identifies this refusal among all that the cache has kept.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The response at `now`, with waits counted down.
    #[must_use]
    pub fn at(&self, now: u64) -> KeyResponse {
        self.known.later(now.saturating_sub(self.answered_at))
    }

    /// Milliseconds from `now` for which the response stays the same in whole seconds.
    #[must_use]
    pub fn unchanged_for(&self, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.answered_at);
        let retry_after = match self.known.verdict {
            KeyVerdict::Denied { retry_after, .. } => Some(retry_after),
            _ => None,
        };
        let resets = self.known.usage.policies.iter().map(|policy| policy.reset_after);
        // Rounded up to seconds, a wait changes when it has shrunk to a whole number of them.
        resets
            .chain(retry_after)
            .map(|wait| wait.saturating_sub(elapsed).saturating_sub(1) % 1000 + 1)
            .min()
            .unwrap_or(REFUSAL_LIFE)
    }

    /// A clock before the time of the response has stepped back: the remaining validity is unknown.
    const fn is_valid_at(&self, now: u64) -> bool {
        self.answered_at <= now && now < self.ends_at
    }

    /// Another secret must be judged by the object. Another route may cost less and fit.
    fn is_for(&self, call: Call<'_>) -> bool {
        same_hash(call.secret_hash, &self.secret_hash)
            && self.only_for.as_ref().is_none_or(|(method, path)| method == call.method && path == call.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::object_response::ObjectResponse;

    const CALL: Call<'_> = Call { id: "k", secret_hash: "h", method: "GET", path: "/a" };

    fn denied(line: &str) -> KeyResponse {
        match ObjectResponse::parse(line) {
            Some(ObjectResponse::Key(known)) => known,
            other => panic!("{other:?}"),
        }
    }

    fn minute_denied(cost: u64) -> KeyResponse {
        denied(&format!("1 denied:8500:{cost}:0 free 1000000 minute:rm:10:60:0:8500 month:rM:1000:2592000:990:9000000"))
    }

    fn kept(cost: u64) -> DenyCache {
        let mut cache = DenyCache::default();
        keep(&mut cache, CALL, &minute_denied(cost), 1_000..1_200, 60_000);
        cache
    }

    #[test]
    fn a_denial_for_want_of_a_hold_is_not_kept() {
        let mut cache = DenyCache::default();
        let line = "1 denied:8500:1:h free 1000000 minute:rm:10:60:0:8500 month:rM:1000:2592000:990:9000000";
        keep(&mut cache, CALL, &denied(line), 1_000..1_200, 60_000);
        assert!(cache.plain(CALL, 1_300).is_none());
    }

    #[test]
    fn a_denial_that_may_end_early_is_not_kept() {
        for (mark, is_kept) in [("", true), (":f", false)] {
            let mut cache = DenyCache::default();
            let line = format!("1 denied:8500:1:0{mark}:a free 1000000 minute:rm:10:60:0:8500");
            keep(&mut cache, CALL, &denied(&line), 1_000..1_200, 60_000);
            assert_eq!(cache.plain(CALL, 1_300).is_some(), is_kept, "{mark}");
        }
    }

    #[test]
    fn a_denial_by_tokens_is_not_kept() {
        let policies = |violated: &str| {
            let usage = "minute:rm:10:60:0:8500 day:td:1000:86400:5:9000000";
            denied(&format!("1 denied:8500:1:{violated}:a free 1000000 {usage}"))
        };
        for (violated, is_kept) in [("0", true), ("1", false), ("0:1", false)] {
            let mut cache = DenyCache::default();
            keep(&mut cache, CALL, &policies(violated), 1_000..1_200, 60_000);
            assert_eq!(cache.plain(CALL, 1_300).is_some(), is_kept, "{violated}");
        }
    }

    fn keep(cache: &mut DenyCache, call: Call<'_>, known: &KeyResponse, span: Range<u64>, cap: u64) {
        cache.keep(call, Keyed::No, known, span, cap, cache.generation());
    }

    impl DenyCache {
        fn plain(&mut self, call: Call<'_>, now: u64) -> Option<&Denial> {
            self.find(call, Keyed::No, now)
        }
    }

    fn waits(known: &KeyResponse) -> (u64, u64, u64) {
        match known.verdict {
            KeyVerdict::Denied { retry_after, .. } => {
                (retry_after, known.usage.policies[0].reset_after, known.usage.policies[1].reset_after)
            }
            _ => panic!("{known:?}"),
        }
    }

    #[test]
    fn ends_with_the_wait_counted_from_before_the_request() {
        let mut cache = kept(1);
        assert!(cache.plain(CALL, 1_200).is_some());
        assert!(cache.plain(CALL, 9_499).is_some());
        assert!(cache.plain(CALL, 9_500).is_none());
        assert!(cache.plain(CALL, 1_200).is_none(), "an expired denial is dropped");
    }

    #[test]
    fn waits_count_from_after_the_response() {
        let mut cache = kept(1);
        assert_eq!(waits(&cache.plain(CALL, 1_200).unwrap().at(1_200)), (8_500, 8_500, 9_000_000));
        let later = cache.plain(CALL, 4_700).unwrap().at(4_700);
        assert_eq!(waits(&later), (5_000, 5_000, 8_996_500));
        assert_eq!(later.usage.now, 1_003_500, "so that an absolute reset stays where it was");
        assert_eq!(later.violated(), ["minute"]);
    }

    #[test]
    fn unchanged_for_is_how_long_the_response_stays_the_same() {
        let mut cache = kept(1);
        let denial = cache.plain(CALL, 1_200).unwrap();
        // 8.5 s, 8.5 s and 9,000 s are left at 1,200.
        for (now, unchanged) in [(1_200, 500), (1_699, 1), (1_700, 500), (2_199, 1), (2_200, 500)] {
            assert_eq!(denial.unchanged_for(now), unchanged, "{now}");
            let words = |at: u64| {
                let known = denial.at(at);
                let waits = waits(&known);
                (waits.0.div_ceil(1000), waits.1.div_ceil(1000), waits.2.div_ceil(1000))
            };
            assert_eq!(words(now), words(now + unchanged - 1));
            assert_ne!(words(now), words(now + unchanged));
        }
        let mut cache = DenyCache::default();
        let sooner = denied("1 denied:8250:1:0 free 1000000 minute:rm:10:60:0:8500");
        keep(&mut cache, CALL, &sooner, 1_000..1_200, 60_000);
        assert_eq!(cache.plain(CALL, 1_200).unwrap().unchanged_for(1_200), 250, "the wait is one of them");
    }

    #[test]
    fn numbers_are_unique() {
        let mut cache = kept(1);
        let first = cache.plain(CALL, 1_200).unwrap().number();
        keep(&mut cache, CALL, &minute_denied(1), 1_300..1_300, 60_000);
        assert_ne!(cache.plain(CALL, 1_300).unwrap().number(), first);
    }

    #[test]
    fn is_valid_for_the_same_key_and_no_call_that_may_cost_less() {
        let others = [
            Call { secret_hash: "other", ..CALL },
            Call { id: "l", ..CALL },
            Call { method: "POST", ..CALL },
            Call { path: "/b", ..CALL },
        ];
        let found = |cost, call| kept(cost).plain(call, 1_300).is_some();
        assert_eq!(others.map(|call| found(1, call)), [false, false, true, true]);
        assert_eq!(others.map(|call| found(2, call)), [false; 4]);
        assert!(found(2, CALL));
    }

    #[test]
    fn ends_at_the_cap_and_when_any_window_does() {
        let mut cache = DenyCache::default();
        keep(&mut cache, CALL, &minute_denied(1), 0..0, 3_000);
        assert!(cache.plain(CALL, 2_999).is_some());
        assert!(cache.plain(CALL, 3_000).is_none());
        let month = denied("1 denied:9000000:1:1 free 0 minute:rm:10:60:3:700 month:rM:10:2592000:0:9000000");
        keep(&mut cache, CALL, &month, 0..0, 10_000);
        assert!(cache.plain(CALL, 699).is_some());
        assert!(cache.plain(CALL, 700).is_none());
        keep(&mut cache, CALL, &month, 0..0, 0);
        assert!(cache.plain(CALL, 0).is_none(), "a cap of 0 switches it off");
        let changing = denied("1 denied:8500:1:0 free 0 minute:rm:10:60:0:8500:500 month:rM:10:2592000:9:9000000");
        keep(&mut cache, CALL, &changing, 0..100, 10_000);
        assert_eq!(cache.plain(CALL, 300).unwrap().at(300).usage.changes_after, Some(300));
        assert!(cache.plain(CALL, 499).is_some());
        assert!(cache.plain(CALL, 500).is_none(), "other policies apply from then on");
        let unused = denied("1 denied:8500:1:0 free 0 minute:rm:10:60:0:8500 hour:rh:10:3600:10:0");
        keep(&mut cache, CALL, &unused, 0..0, 10_000);
        assert!(cache.plain(CALL, 8_499).is_some(), "an unused policy has no window that ends");
        // A denial that is valid for no time replaces none.
        keep(&mut cache, CALL, &minute_denied(1), 8_400..8_400, 0);
        assert!(cache.plain(CALL, 8_499).is_some());
    }

    #[test]
    fn keeps_only_denials_and_none_across_a_step_back_of_the_clock() {
        let mut cache = DenyCache::default();
        keep(&mut cache, CALL, &denied("1 admitted free 0 minute:rm:10:60:3:700"), 0..0, 10_000);
        assert!(cache.plain(CALL, 0).is_none());
        keep(&mut cache, CALL, &minute_denied(1), Range { start: 1_000, end: 999 }, 10_000);
        assert!(cache.plain(CALL, 1_000).is_none());
        assert!(kept(1).plain(CALL, 1_199).is_none());
    }

    #[test]
    fn holds_a_bounded_number_of_keys() {
        let mut cache = DenyCache::default();
        let known = minute_denied(1);
        for n in 0..CAPACITY + 5 {
            keep(&mut cache, Call { id: &n.to_string(), ..CALL }, &known, 5_000..5_000, 10_000);
        }
        assert_eq!(cache.keys.len(), CAPACITY);
        assert!(cache.plain(Call { id: &CAPACITY.to_string(), ..CALL }, 5_001).is_none());
        keep(&mut cache, Call { id: "0", ..CALL }, &known, 6_000..6_000, 10_000);
        assert!(
            cache.plain(Call { id: "0", ..CALL }, 14_499).is_some(),
            "there is room for news of a key that is here"
        );
        keep(&mut cache, Call { id: "new", ..CALL }, &known, 20_000..20_000, 10_000);
        assert!(cache.plain(Call { id: "new", ..CALL }, 20_001).is_some(), "expired entries make room");
        assert_eq!(cache.keys.len(), 1);
    }

    const KEYS: [Keyed; 3] = [Keyed::Key(1), Keyed::Key(2), Keyed::Key(3)];

    /// A denial with `extent`, of a call with an idempotency key, kept from 0 on.
    fn extended(cache: &mut DenyCache, keyed: Keyed, extent: &str) {
        let known = denied(&format!("1 denied:8500:1:0{extent} free 0 month:rM:10:2592000:0:8500"));
        cache.keep(CALL, keyed, &known, 0..0, 60_000, cache.generation());
    }

    fn holds(cache: &mut DenyCache, keyed: &[Keyed], now: u64) -> Vec<bool> {
        keyed.iter().map(|keyed| cache.find(CALL, *keyed, now).is_some()).collect()
    }

    #[test]
    fn a_denial_for_all_is_valid_for_any_idempotency_key() {
        let mut cache = DenyCache::default();
        extended(&mut cache, Keyed::Key(1), ":a");
        assert_eq!(holds(&mut cache, &KEYS, 1), [true; 3]);
        assert_eq!(holds(&mut cache, &[Keyed::No, Keyed::Malformed], 8_499), [true; 2]);
        assert_eq!(holds(&mut cache, &[Keyed::No, Keyed::Key(1)], 8_500), [false; 2]);
    }

    #[test]
    fn a_denial_of_new_calls_is_valid_for_the_idempotency_keys_that_were_denied() {
        let mut cache = DenyCache::default();
        extended(&mut cache, Keyed::No, "");
        assert_eq!(holds(&mut cache, &[Keyed::No, Keyed::Key(1)], 1), [true, false]);
        extended(&mut cache, Keyed::Key(1), ":n");
        extended(&mut cache, Keyed::Key(2), ":n");
        assert_eq!(holds(&mut cache, &KEYS, 1), [true, true, false]);
        assert_eq!(holds(&mut cache, &[Keyed::No, Keyed::Malformed], 1), [true, false]);
        // The newest are kept. At most ten a second are passed to the object.
        for key in 10..25 {
            extended(&mut cache, Keyed::Key(key), ":n");
        }
        assert_eq!(holds(&mut cache, &[Keyed::Key(1), Keyed::Key(2), Keyed::Key(24)], 2_000), [false, true, true]);
        // The keys are forgotten with the denial.
        let known = denied("1 denied:8500:1:0:n free 0 month:rM:10:2592000:0:8500");
        cache.keep(CALL, Keyed::Key(30), &known, 8_500..8_500, 60_000, cache.generation());
        assert_eq!(holds(&mut cache, &[Keyed::Key(24), Keyed::Key(30), Keyed::No], 8_501), [false, true, true]);
    }

    #[test]
    fn a_denial_of_a_replay_is_not_valid_for_new_calls() {
        let mut cache = DenyCache::default();
        extended(&mut cache, Keyed::Key(1), ":r");
        assert_eq!(holds(&mut cache, &[Keyed::Key(1), Keyed::Key(2), Keyed::No], 1), [true, false, false]);
        let month = denied("1 denied:9000:1:0:n free 0 month:rM:10:2592000:0:9000");
        cache.keep(CALL, Keyed::Key(2), &month, 0..0, 60_000, cache.generation());
        let mut wait = |keyed| waits_of(cache.find(CALL, keyed, 1).unwrap());
        assert_eq!([Keyed::Key(1), Keyed::Key(2), Keyed::No].map(&mut wait), [8_500, 9_000, 9_000]);
    }

    fn waits_of(denial: &Denial) -> u64 {
        match denial.known.verdict {
            KeyVerdict::Denied { retry_after, .. } => retry_after,
            _ => 0,
        }
    }

    #[test]
    fn a_response_of_an_earlier_version_to_a_call_with_an_idempotency_key_is_not_kept() {
        let mut cache = DenyCache::default();
        extended(&mut cache, Keyed::Key(1), "");
        assert_eq!(holds(&mut cache, &[Keyed::Key(1), Keyed::No], 1), [false; 2]);
    }

    #[test]
    fn ten_new_idempotency_keys_a_second_are_passed_to_the_object() {
        for extent in [":n", ":r"] {
            let mut cache = DenyCache::default();
            extended(&mut cache, Keyed::Key(0), extent);
            let passed = |cache: &mut DenyCache, keys: Range<u64>, now| {
                keys.filter(|key| cache.find(CALL, Keyed::Key(*key), now).is_none()).count()
            };
            assert_eq!(passed(&mut cache, 1..300, 1_999), 10);
            assert_eq!(passed(&mut cache, 1..300, 2_000), 10);
            assert_eq!(passed(&mut cache, 1..300, 2_001), 0);
            assert_eq!(passed(&mut cache, 1..300, 3_000), 10);
            // Another secret is judged by the object.
            assert!(cache.find(Call { secret_hash: "other", ..CALL }, Keyed::Key(1), 3_000).is_none());
            assert_eq!(waits_of(cache.find(CALL, Keyed::Key(9), 3_000).unwrap()), 8_500);
        }
    }

    #[test]
    fn a_denial_of_all_costs_is_not_replaced_by_one_of_some() {
        let mut cache = DenyCache::default();
        extended(&mut cache, Keyed::No, "");
        let number = cache.plain(CALL, 1).unwrap().number();
        let dear = denied("1 denied:8500:5:0:n free 0 month:rM:10:2592000:0:8500");
        let other = Call { path: "/dear", ..CALL };
        cache.keep(other, Keyed::Key(1), &dear, 1..1, 60_000, cache.generation());
        assert_eq!(cache.plain(CALL, 1).unwrap().number(), number);
        assert!(cache.find(other, Keyed::Key(1), 1).is_some());
        // Nor are its classified keys dropped.
        let mut cache = DenyCache::default();
        extended(&mut cache, Keyed::Key(1), ":n");
        cache.keep(other, Keyed::Key(2), &dear, 1..1, 60_000, cache.generation());
        assert_eq!(holds(&mut cache, &KEYS, 1), [true, true, false]);
        // Of two for some, the newer is kept, without the classified keys of the other.
        let mut cache = DenyCache::default();
        for (call, key) in [(CALL, 1), (other, 2)] {
            cache.keep(call, Keyed::Key(key), &dear, 1..1, 60_000, cache.generation());
        }
        assert!(cache.find(other, Keyed::Key(2), 1).is_some() && cache.find(other, Keyed::Key(1), 1).is_none());
        assert!(cache.plain(CALL, 1).is_none());
    }

    #[test]
    fn each_secret_has_its_own_refusals() {
        let mut cache = DenyCache::default();
        let of = |secret| Call { secret_hash: secret, ..CALL };
        for secret in ["a", "b"] {
            keep(&mut cache, of(secret), &minute_denied(1), 1_000..1_200, 60_000);
        }
        assert!(["a", "b"].iter().all(|secret| cache.plain(of(secret), 1_300).is_some()));
        // The newest eight are kept.
        for secret in ["c", "d", "e", "f", "g", "h", "i"] {
            keep(&mut cache, of(secret), &minute_denied(1), 1_000..1_200, 60_000);
        }
        let kept: Vec<_> = ["a", "b", "c", "i"].iter().map(|secret| cache.plain(of(secret), 1_300).is_some()).collect();
        assert_eq!(kept, [false, true, true, true]);
    }

    #[test]
    fn refusals_are_kept_for_seconds() {
        let disabled = denied("1 refused:disabled free 0 month:rM:10:2592000:0:9000000");
        for (cap, life) in [(60_000, REFUSAL_LIFE), (2_000, 2_000)] {
            let mut cache = DenyCache::default();
            keep(&mut cache, CALL, &disabled, 0..0, cap);
            let all = [Keyed::No, Keyed::Key(1), Keyed::Malformed];
            assert_eq!(holds(&mut cache, &all, life - 1), [true; 3]);
            assert!(cache.plain(Call { secret_hash: "other", ..CALL }, 1).is_none());
            assert_eq!(holds(&mut cache, &all, life), [false; 3]);
        }
        let mut cache = DenyCache::default();
        keep(&mut cache, CALL, &disabled, 0..0, 0);
        assert!(cache.plain(CALL, 0).is_none());
        let known = denied("1 refused:disabled unlimited 0");
        keep(&mut cache, CALL, &known, 0..0, 60_000);
        assert_eq!(cache.plain(CALL, 0).unwrap().unchanged_for(0), REFUSAL_LIFE);

        let mut cache = DenyCache::default();
        let malformed = denied("1 malformed free 0");
        cache.keep(CALL, Keyed::Malformed, &malformed, 0..0, 60_000, cache.generation());
        assert_eq!(holds(&mut cache, &[Keyed::Malformed, Keyed::No, Keyed::Key(1)], 2_999), [true, false, false]);
        assert!((0..100).all(|key| cache.find(CALL, Keyed::Key(key), 2_999).is_none()), "without a limit per second");
    }

    #[test]
    fn a_response_to_a_request_before_a_change_is_not_kept_after_it() {
        let mut cache = kept(1);
        let before = cache.generation();
        cache.forget(Some("l"));
        assert!(cache.plain(CALL, 1_300).is_some(), "another key");
        cache.keep(Call { id: "m", ..CALL }, Keyed::No, &minute_denied(1), 1_000..1_300, 60_000, before);
        assert!(cache.plain(Call { id: "m", ..CALL }, 1_300).is_none());
        cache.forget(Some("k"));
        assert!(cache.plain(CALL, 1_300).is_none());
        keep(&mut cache, CALL, &minute_denied(1), 1_000..1_200, 60_000);
        assert!(cache.plain(CALL, 1_300).is_some(), "requested after the change");
        cache.forget(None);
        assert!(cache.plain(CALL, 1_300).is_none());
    }
}
