//! Values in the cells of tables, each on one line.

use serde_json::{Map, Value};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The order of known fields: columns of a table from left to right, lines of an object from top to
/// bottom. Other fields follow in the order of their names.
const ORDER: &[&str] = &[
    "line",
    "id",
    "key_id",
    "key",
    "token",
    "at",
    "found_at",
    "hour",
    "day",
    "month",
    "actor",
    "action",
    "target",
    "method",
    "pattern",
    "class",
    "tier",
    "name",
    "owner",
    "status",
    "origin_status",
    "hint",
    "scopes",
    "description",
    "audit_days",
    "idempotency",
    "state",
    "policy",
    "threshold",
    "unit",
    "quota",
    "used",
    "held",
    "remaining",
    "period",
    "algorithm",
    "burst",
    "from",
    "until",
    "reset_at",
    "keys",
    "calls",
    "d1_calls",
    "denied",
    "d1_denied",
    "cost",
    "d1_cost",
    "tokens_held",
    "tokens",
    "tokens_basis",
    "d1_tokens",
    "overdraft",
    "tokens_estimated",
    "tokens_expired",
    "growth_percent",
    "average",
    "trend",
    "duration_ms",
    "idempotency_key",
    "as_of",
    "created_at",
    "expires_at",
    "metadata",
    "change",
    "differences",
    "attempts",
    "next_attempt_at",
    "last_error",
    "before",
    "after",
];

const NOTHING: &str = "-";

/// Escapes characters that break the line or control a terminal, because others choose these texts.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        // Control characters, and those that reorder text (U+202E and its kin).
        if c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Cuts the text to `width` columns of a terminal.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| left.checked_sub(c.width().unwrap_or_default()).inspect(|&rest| left = rest).is_some();
    text.chars().take_while(fits).chain(['…']).collect()
}

/// Whether a value is null or empty.
pub(crate) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The fields of an object in the order in which they are printed.
pub(crate) fn in_order(fields: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    let mut fields: Vec<(&str, &Value)> = fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
    fields.sort_by_key(|&(name, _)| (rank(name), name));
    fields.into_iter()
}

/// A value on one line.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        nothing if is_nothing(nothing) => NOTHING.to_owned(),
        Value::String(text) => one_line(text),
        Value::Array(items) if !items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => policies(items).unwrap_or_else(|| one_line(&value.to_string())),
        other => one_line(&other.to_string()),
    }
}

pub(crate) fn rank(field: &str) -> usize {
    ORDER.iter().position(|&known| known == field).unwrap_or(ORDER.len())
}

/// Policies in one line: `minute 10/minute fixed, month 1000/month`. `None` if the list contains
/// something else.
pub(crate) fn policies(list: &[Value]) -> Option<String> {
    let parts = |policy: &Value| Some(format!("{} {}", name_of(policy)?, limit(policy)?));
    Some(list.iter().map(parts).collect::<Option<Vec<_>>>()?.join(", "))
}

pub(crate) fn name_of(policy: &Value) -> Option<&str> {
    policy.get("policy")?.as_str()
}

/// A policy without its name: `60/minute bucket of 120`. Omits the algorithm of a month, which is
/// always fixed.
pub(crate) fn limit(policy: &Value) -> Option<String> {
    let text = |name: &str| policy.get(name).and_then(Value::as_str);
    let (quota, period, algorithm) = (policy.get("quota")?.as_u64()?, text("period")?, text("algorithm")?);
    let unit = text("unit").filter(|&unit| unit != "requests").map(|unit| format!(" {unit}")).unwrap_or_default();
    let algorithm = if period == "month" { String::new() } else { format!(" {algorithm}") };
    let burst = policy.get("burst").and_then(Value::as_u64).map(|burst| format!(" of {burst}")).unwrap_or_default();
    Some(one_line(&format!("{quota}{unit}/{period}{algorithm}{burst}")))
}
