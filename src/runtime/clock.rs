//! The clock. In production it does not advance between I/O, locally it does. Read it once per
//! decision.

use crate::time::UnixMicros;

/// The wall clock, in whole milliseconds.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, positive milliseconds, below 2^53")]
pub(crate) fn now() -> UnixMicros {
    UnixMicros::from_millis(js_sys::Date::now() as u64)
}
