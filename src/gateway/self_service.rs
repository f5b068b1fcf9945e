//! Rules of the self-service endpoints, `GET /_tollgate/me` and `/me/usage`: their own rate limit,
//! and a short cache of responses.
//!
//! These requests spend nothing of the key's policies, so a bucket per secret limits them. Only a
//! text with the form and tag of a key, or an imported one, gets this far.
//!
//! A response is kept for a second, for the same secret only. If a key is changed, revoked or
//! deleted through another isolate, the old response is served for as long. This isolate drops it
//! when it counts a call of the key or changes the key, so a client of one isolate sees its own
//! calls at once.

use crate::gateway::recent::Recent;
use crate::keys::key::same_hash;
use crate::protocol::key_status::StatusAndUsage;
use crate::router::SelfServiceRoute;
use std::rc::Rc;

/// The name of the bucket in `violated-policies`.
pub const POLICY: &str = "self-service";
/// Maximum number of requests at once.
pub const BURST: u64 = 30;
/// Time per further request, in milliseconds.
pub const INTERVAL: u64 = 1_000;
/// Maximum number of secrets whose buckets are remembered.
pub const BUCKETS: usize = 8_192;
/// How long a response is kept, in milliseconds.
pub const KEPT: u64 = 1_000;
/// How long refusals carry the key's last usage, in milliseconds.
pub const USAGE_KEPT: u64 = 10_000;
/// Maximum number of keys with kept responses.
pub const KEYS: usize = 256;
/// Maximum size of a kept response, in bytes.
pub const RESPONSE_LIMIT: usize = 16 * 1024;
/// Maximum number of months that `/me/usage` shows, the current one included.
pub const MONTHS_SHOWN: usize = 12;

/// The buckets and responses of one isolate. Times are milliseconds on its clock.
#[derive(Debug)]
pub struct SelfService {
    /// When each bucket is full again, by the hash of the secret.
    buckets: Recent<String, u64>,
    /// By key id.
    responses: Recent<String, KeyResponses>,
    requests: u64,
}

impl Default for SelfService {
    fn default() -> Self {
        Self { buckets: Recent::new(BUCKETS), responses: Recent::new(KEYS), requests: 0 }
    }
}

#[derive(Debug)]
struct KeyResponses {
    secret_hash: String,
    /// The number of the first request since the last change. A response to an earlier one may
    /// predate that change.
    since: u64,
    me: Option<CachedResponse>,
    usage: Option<CachedResponse>,
}

impl KeyResponses {
    const fn of(&mut self, wanted: SelfServiceRoute) -> &mut Option<CachedResponse> {
        match wanted {
            SelfServiceRoute::Me => &mut self.me,
            SelfServiceRoute::MyUsage => &mut self.usage,
        }
    }

    /// The later of the two.
    fn latest(&self) -> Option<&CachedResponse> {
        [&self.me, &self.usage].into_iter().flatten().max_by_key(|response| response.responded_at)
    }
}

/// A response of a key's object.
#[derive(Debug, Clone)]
pub struct CachedResponse {
    /// The key's status and usage.
    pub key: StatusAndUsage,
    /// The body; empty if the key may not be used.
    pub body: Rc<str>,
    requested_at: u64,
    responded_at: u64,
}

impl CachedResponse {
    /// A response at `responded_at` to a request at `requested_at`.
    #[must_use]
    pub fn new(key: StatusAndUsage, body: impl Into<Rc<str>>, requested_at: u64, responded_at: u64) -> Self {
        Self { key, body: body.into(), requested_at, responded_at }
    }

    /// The key's status and usage at `now`, if they still follow from it: for at most `life` since
    /// it was requested, and not beyond the end of any window. `None` if the clock stepped back.
    fn at(&self, now: u64, life: u64) -> Option<StatusAndUsage> {
        let resets = self.key.usage.policies.iter().map(|policy| policy.reset_after).filter(|&reset| reset > 0);
        let life = resets.chain([life]).min().unwrap_or_default();
        let is_true = self.requested_at <= self.responded_at
            && self.responded_at <= now
            && now.checked_sub(self.requested_at).is_some_and(|age| age < life);
        is_true.then(|| StatusAndUsage {
            status: self.key.status,
            usage: self.key.usage.later(now.saturating_sub(self.responded_at)),
        })
    }
}

/// The decision on a request.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Permit {
    /// Return this response.
    Cached(StatusAndUsage, Rc<str>),
    /// Send a request to the object, and pass the response to [`SelfService::keep`].
    LookUp(LookupNumber),
    /// Refuse it, with the key's status and usage if they are known.
    Refuse {
        /// In whole seconds.
        retry_after: u64,
        /// As of a moment ago.
        key: Option<StatusAndUsage>,
    },
}

/// Orders requests to the object relative to changes through this isolate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookupNumber(u64);

impl SelfService {
    /// Charges a request for `wanted` with this secret of this key.
    pub fn begin(&mut self, id: &str, secret_hash: &str, wanted: SelfServiceRoute, now: u64) -> Permit {
        let wait = charge(self.buckets.get_or_put(secret_hash, || now), now);
        let responses = self.responses.get(id).filter(|responses| same_hash(&responses.secret_hash, secret_hash));
        if let Some(wait) = wait {
            let key = responses.and_then(|responses| responses.latest()?.at(now, USAGE_KEPT));
            return Permit::Refuse { retry_after: wait.div_ceil(1000), key };
        }
        self.requests = self.requests.wrapping_add(1);
        let mark = LookupNumber(self.requests);
        let Some(responses) = responses else {
            let (secret_hash, since) = (secret_hash.to_owned(), self.requests);
            self.responses.put(id, KeyResponses { secret_hash, since, me: None, usage: None });
            return Permit::LookUp(mark);
        };
        let kept = responses.of(wanted).as_ref();
        let given = kept.and_then(|response| Some(Permit::Cached(response.at(now, KEPT)?, Rc::clone(&response.body))));
        given.unwrap_or(Permit::LookUp(mark))
    }

    /// Keeps a response, unless there was a change since its request.
    pub fn keep(
        &mut self,
        id: &str,
        secret_hash: &str,
        wanted: SelfServiceRoute,
        mark: LookupNumber,
        response: &CachedResponse,
    ) {
        let Some(responses) = self.responses.get(id) else { return };
        if responses.since <= mark.0
            && same_hash(&responses.secret_hash, secret_hash)
            && response.body.len() <= RESPONSE_LIMIT
        {
            *responses.of(wanted) = Some(response.clone());
        }
    }

    /// Drops the responses of a key, or of all keys, because of a call or a change.
    pub fn forget(&mut self, id: Option<&str>) {
        match id {
            Some(id) => drop(self.responses.remove(id)),
            None => self.responses.clear(),
        }
    }
}

/// Charges a bucket that is full again at `full_at`. Returns the wait in milliseconds if it has no
/// room.
fn charge(full_at: &mut u64, now: u64) -> Option<u64> {
    let most = now.saturating_add(BURST.saturating_mul(INTERVAL));
    // Limits a bucket that was charged by a clock that was ahead.
    let next = (*full_at).clamp(now, most).saturating_add(INTERVAL);
    if next > most {
        return Some(next - most);
    }
    *full_at = next;
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::key_status::{KeyStatus, KeyStatusResponse};
    use SelfServiceRoute::{Me, MyUsage};
    use proptest::prelude::*;

    fn known(reset_after: u64) -> StatusAndUsage {
        let text = format!("1 admitted free 1000000 minute:rm:10:60:3:{reset_after}\n{{}}\n{{}}");
        match KeyStatusResponse::parse(&text) {
            Some(KeyStatusResponse::Known(KeyStatus { key, .. })) => key,
            other => panic!("{other:?}"),
        }
    }

    fn looked_up(service: &mut SelfService, id: &str, hash: &str, wanted: SelfServiceRoute, now: u64) -> LookupNumber {
        match service.begin(id, hash, wanted, now) {
            Permit::LookUp(mark) => mark,
            other => panic!("{other:?}"),
        }
    }

    fn given(service: &mut SelfService, id: &str, hash: &str, wanted: SelfServiceRoute, now: u64) -> Option<String> {
        match service.begin(id, hash, wanted, now) {
            Permit::Cached(_, body) => Some(body.to_string()),
            Permit::LookUp(_) => None,
            Permit::Refuse { .. } => panic!("refused"),
        }
    }

    fn kept(body: &str) -> SelfService {
        let mut service = SelfService::default();
        let mark = looked_up(&mut service, "k", "h", Me, 1_000);
        service.keep("k", "h", Me, mark, &CachedResponse::new(known(60_000), body, 1_000, 1_200));
        service
    }

    #[test]
    fn a_bucket_admits_thirty_at_once_and_one_a_second() {
        let mut service = SelfService::default();
        for _ in 0..BURST {
            looked_up(&mut service, "k", "h", Me, 5_000);
        }
        let refused = |service: &mut SelfService, now| match service.begin("k", "h", MyUsage, now) {
            Permit::Refuse { retry_after, .. } => Some(retry_after),
            _ => None,
        };
        assert_eq!(refused(&mut service, 5_000), Some(1));
        assert_eq!(refused(&mut service, 5_999), Some(1));
        assert_eq!(refused(&mut service, 6_000), None);
        assert_eq!(refused(&mut service, 6_000), Some(1));
        looked_up(&mut service, "k", "another", Me, 6_000);
        looked_up(&mut service, "l", "h of l", Me, 6_000);
    }

    #[test]
    fn a_refusal_has_the_usage_while_that_is_known() {
        for (now, has_usage) in [(1_200, true), (10_999, true), (11_000, false)] {
            let mut service = kept("me");
            let refused = (0..=BURST).find_map(|_| match service.begin("k", "h", MyUsage, now) {
                Permit::Refuse { key, .. } => Some(key),
                _ => None,
            });
            let refused = refused.unwrap();
            assert_eq!(refused.is_some(), has_usage, "{now}");
            if let Some(key) = refused {
                assert_eq!(key.usage.policies[0].reset_after, 60_000 - (now - 1_200));
            }
        }
    }

    #[test]
    fn a_response_is_kept_for_a_second_after_its_request() {
        assert_eq!(given(&mut kept("me"), "k", "h", Me, 1_999).as_deref(), Some("me"));
        for (now, what) in [(2_000, "over"), (1_199, "a clock that stepped back")] {
            assert_eq!(given(&mut kept("me"), "k", "h", Me, now), None, "{what}");
        }
        let mut service = kept("me");
        let mark = looked_up(&mut service, "k", "h", Me, 2_000);
        service.keep("k", "h", Me, mark, &CachedResponse::new(known(300), "me 2", 2_000, 2_000));
        assert_eq!(given(&mut service, "k", "h", Me, 2_299).as_deref(), Some("me 2"));
        assert_eq!(given(&mut service, "k", "h", Me, 2_300), None, "a window has ended");
        let mark = looked_up(&mut service, "k", "h", Me, 3_000);
        service.keep("k", "h", Me, mark, &CachedResponse::new(known(0), "unused", 3_000, 3_000));
        assert_eq!(given(&mut service, "k", "h", Me, 3_999).as_deref(), Some("unused"));
    }

    #[test]
    fn a_response_is_for_its_endpoint_key_and_secret() {
        let mut service = kept("me");
        assert_eq!(given(&mut service, "k", "h", MyUsage, 1_300), None);
        assert_eq!(given(&mut service, "l", "h", Me, 1_300), None);
        assert_eq!(given(&mut service, "k", "i", Me, 1_300), None);
        assert_eq!(given(&mut service, "k", "h", Me, 1_300), None, "replaced by that of the other secret");
        let mut service = kept("me");
        let other = looked_up(&mut service, "k", "i", Me, 1_300);
        service.keep("k", "h", Me, other, &CachedResponse::new(known(60_000), "of h", 1_300, 1_300));
        assert_eq!(given(&mut service, "k", "i", Me, 1_300), None);
    }

    #[test]
    fn a_call_or_a_change_drops_responses_to_earlier_requests() {
        for id in [Some("k"), None] {
            let mut service = kept("me");
            let mark = looked_up(&mut service, "k", "h", MyUsage, 1_300);
            service.forget(id);
            let late = CachedResponse::new(known(60_000), "late", 1_300, 1_400);
            service.keep("k", "h", MyUsage, mark, &late);
            assert_eq!(given(&mut service, "k", "h", Me, 1_400), None);
            service.keep("k", "h", MyUsage, mark, &late);
            assert_eq!(given(&mut service, "k", "h", MyUsage, 1_400), None);
        }
        let mut service = kept("me");
        service.forget(Some("l"));
        assert!(given(&mut service, "k", "h", Me, 1_400).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        assert!(given(&mut kept(&"x".repeat(16_384)), "k", "h", Me, 1_300).is_some());
        let mut service = kept(&"x".repeat(16_385));
        assert_eq!(given(&mut service, "k", "h", Me, 1_300), None, "too large to be kept");
        for n in 0..2 * BUCKETS {
            let name = n.to_string();
            let mark = looked_up(&mut service, &name, &name, Me, 1_000);
            service.keep(&name, &name, Me, mark, &CachedResponse::new(known(60_000), "me", 1_000, 1_000));
            assert!(given(&mut service, &name, &name, Me, 1_000).is_some());
        }
        assert!(service.buckets.len() <= BUCKETS && service.responses.len() <= KEYS);
    }

    proptest! {
        /// Never more requests than the burst and the refill since then, and never a longer wait
        /// than `Retry-After`.
        #[test]
        fn the_bucket_is_exact(pauses in prop::collection::vec(0..1_500_u64, 1..300)) {
            let (mut service, mut now) = (SelfService::default(), 1_000_000);
            let begun = now;
            let mut admitted = 0;
            for pause in pauses {
                now += pause;
                match service.begin("k", "h", Me, now) {
                    Permit::Refuse { retry_after, .. } => {
                        prop_assert_eq!(retry_after, 1);
                        prop_assert!(admitted >= BURST);
                    }
                    _ => admitted += 1,
                }
                prop_assert!(admitted <= BURST + (now - begun) / INTERVAL);
            }
            now += INTERVAL;
            let is_refused = matches!(service.begin("k", "h", Me, now), Permit::Refuse { .. });
            prop_assert!(!is_refused);
        }
    }
}
