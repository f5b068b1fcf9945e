//! Usage that is reported and billed: totals by month and by hour, how calls ended, alerts.
//!
//! One row stores a call's counts together with all of this, so that neither is ever stored alone.

pub mod alerts;
pub mod call_outcome;
pub mod hours;
pub mod meter;
pub mod months;

/// Bytes of a class's name at most.
pub const MAX_CLASS_BYTES: usize = 64;

/// A class's name as it is kept.
pub(crate) fn cut(class: &str) -> &str {
    class.get(..class.floor_char_boundary(MAX_CLASS_BYTES)).unwrap_or(class)
}
