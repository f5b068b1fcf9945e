//! The one clock. In production it stands still between I/O, locally it does not: read it once per
//! decision.

use crate::time::UnixMicros;

/// The wall clock, to the millisecond.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, positive milliseconds, below 2^53")]
pub(crate) fn now() -> UnixMicros {
    UnixMicros::from_millis(js_sys::Date::now() as u64)
}
