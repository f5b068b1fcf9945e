//! Usage for reports and billing: totals by month and by hour, outcomes of calls, alerts.

pub mod alerts;
pub mod call_outcome;
pub(crate) mod charges;
pub mod hours;
pub mod meter;
pub mod months;

/// Maximum length of a class name, in bytes.
pub const MAX_CLASS_BYTES: usize = 64;

/// Shortens a class name to [`MAX_CLASS_BYTES`].
pub(crate) fn cut(class: &str) -> &str {
    class.get(..class.floor_char_boundary(MAX_CLASS_BYTES)).unwrap_or(class)
}
