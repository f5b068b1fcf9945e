//! Token budgets without state: which routes spend tokens, how many a request may use at most, and
//! how many the origin's answer says were used.

pub mod answer_fields;
pub mod body_call;
pub mod body_fields;
pub mod event_lines;
pub mod json;
pub mod names;
pub mod request;
pub mod rewrite;
pub mod usage_reader;
