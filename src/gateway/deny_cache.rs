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
mod tests;
