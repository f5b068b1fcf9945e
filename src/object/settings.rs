//! The settings of one object.

use crate::keys::route_pattern::RouteCase;

/// Variables of the Worker that an object reads once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `FLUSH_SECONDS`.
    pub flush_seconds: u64,
    /// `ALERT_THRESHOLDS`: percentages of a month's quota.
    pub thresholds: Vec<u16>,
    /// `ROUTE_CASE`.
    pub route_case: RouteCase,
}
