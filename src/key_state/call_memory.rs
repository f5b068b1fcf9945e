//! Recently admitted calls: by nonce, so that a retried object request counts once, and by
//! idempotency key, so that a repeated call is recognised.

use crate::http::idempotency_key::Fingerprint;
use crate::key_state::idempotency::{IdempotencyKeys, KeyHash, PriorCall, RequestHash};
use crate::key_state::nonces::Nonces;
use crate::time::{SECOND, UnixMicros};

/// The longest time that an object request may be in transit, in microseconds. The age that a
/// request states may be too small by this much.
pub const MAX_DELAY: u64 = 10 * SECOND;

/// The hashes of a call's idempotency key and request.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallKey {
    key: KeyHash,
    request: RequestHash,
}

impl CallKey {
    pub(super) fn new(epoch: &str, key: &str, fingerprint: Option<Fingerprint>) -> Self {
        let request = fingerprint.map(|request| RequestHash::of(epoch, key, request));
        Self { key: KeyHash::of(key), request: request.unwrap_or(RequestHash::UNKNOWN) }
    }
}

#[derive(Debug, Clone)]
pub(super) struct CallMemory {
    nonces: Nonces,
    keys: IdempotencyKeys,
}

impl CallMemory {
    pub(super) const fn new(nonces: Nonces, keys: IdempotencyKeys) -> Self {
        Self { nonces, keys }
    }

    pub(super) const fn nonces(&self) -> &Nonces {
        &self.nonces
    }

    pub(super) const fn nonces_mut(&mut self) -> &mut Nonces {
        &mut self.nonces
    }

    pub(super) const fn keys(&self) -> &IdempotencyKeys {
        &self.keys
    }

    pub(super) const fn keys_mut(&mut self) -> &mut IdempotencyKeys {
        &mut self.keys
    }

    /// Whether something was recently counted under this nonce.
    pub(super) fn is_known(&self, nonce: u64) -> bool {
        self.nonces.contains(nonce) || self.keys.is_in_flight(nonce)
    }

    /// See [`KeyState::can_deduplicate`](crate::key_state::state::KeyState::can_deduplicate).
    pub(super) fn can_deduplicate(&self, now: UnixMicros, nonce: u64, age: Option<u64>) -> bool {
        let sent = age.map(|age| now.saturating_sub(age).saturating_sub(MAX_DELAY));
        sent.is_none_or(|sent| sent >= self.nonces.complete_since()) || self.is_known(nonce)
    }

    /// The call that was admitted earlier under the same idempotency key.
    pub(super) fn prior_call(&self, key: Option<CallKey>, now: UnixMicros) -> PriorCall {
        key.map_or(PriorCall::None, |CallKey { key, request }| self.keys.prior_call(key, request, now))
    }

    /// Whether the call that was admitted under this nonce was a replay.
    pub(super) fn is_replay(&self, nonce: u64, key: Option<&str>, now: UnixMicros) -> bool {
        match self.prior_call(key.map(|key| CallKey::new("", key, None)), now) {
            PriorCall::None => false,
            PriorCall::InFlight { nonce: first } => first != nonce,
            PriorCall::Different | PriorCall::Complete { .. } => true,
        }
    }

    pub(super) fn remember(&mut self, nonce: u64, now: UnixMicros) {
        self.nonces.remember(nonce, now);
    }

    /// Remembers an admitted call. `prior` is the result of [`prior_call`](Self::prior_call).
    pub(super) fn admit(&mut self, nonce: u64, key: Option<CallKey>, prior: PriorCall, now: UnixMicros) {
        self.remember(nonce, now);
        if let Some(CallKey { key, request }) = key {
            match prior {
                PriorCall::Complete { is_free } => self.keys.repeat(key, request, is_free),
                _ => self.keys.begin(key, request, nonce, now),
            }
        }
        self.keys.expire(now);
    }

    /// Moves times later than `now` to `now`, after the clock stepped back.
    pub(super) fn rebase(&mut self, now: UnixMicros) {
        self.nonces.rebase(now);
        self.keys.rebase(now);
    }
}
