//! Usage that is reported and billed: totals by month and by hour, how calls ended, alerts.
//!
//! All of it is part of the one [`KeyState`](crate::key_state::state::KeyState) of a key, so that one row holds a call's counts together
//! with what is reported of it, or none of that.

pub mod alerts;
pub mod call_outcome;
pub mod hours;
pub mod months;

/// Bytes of a class's name at most.
pub const MAX_CLASS_BYTES: usize = 64;

/// A class's name as it is kept.
pub(crate) fn cut(class: &str) -> &str {
    class.get(..class.floor_char_boundary(MAX_CLASS_BYTES)).unwrap_or(class)
}
