//! The calls that were admitted lately: by nonce, so that a call that is asked about twice counts
//! once, and by idempotency key, so that a repeated call is recognised.

use crate::http::idempotency_key::Fingerprint;
use crate::key_state::idempotency::{IdempotencyKeys, KeyHash, PriorCall, RequestHash};
use crate::key_state::nonces::Nonces;
use crate::time::{SECOND, UnixMicros};

/// The longest time that an object request may be under way, in microseconds. A stated age may be
/// too small by this much.
pub const MAX_DELAY: u64 = 10 * SECOND;

/// A call's idempotency key and what the call asks for, both hashed.
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

    /// Whether something was counted under this nonce lately.
    pub(super) fn is_known(&self, nonce: u64) -> bool {
        self.nonces.recalls(nonce) || self.keys.is_in_flight(nonce)
    }

    /// See [`KeyState::can_tell`](crate::key_state::state::KeyState::can_tell).
    pub(super) fn can_tell(&self, now: UnixMicros, nonce: u64, age: Option<u64>) -> bool {
        let asked = age.map(|age| now.saturating_sub(age).saturating_sub(MAX_DELAY));
        asked.is_none_or(|asked| asked >= self.nonces.complete_since()) || self.is_known(nonce)
    }

    /// The call that was admitted before under the same idempotency key.
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

    /// Remembers that something was counted under this nonce.
    pub(super) fn remember(&mut self, nonce: u64, now: UnixMicros) {
        self.nonces.remember(nonce, now);
    }

    /// Remembers an admitted call. `prior` is what [`prior_call`](Self::prior_call) found.
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

    /// Moves what is later than `now` to `now`, after a clock was ahead.
    pub(super) fn rebase(&mut self, now: UnixMicros) {
        self.nonces.rebase(now);
        self.keys.rebase(now);
    }
}
