//! Prints JSON as text: a list as a table, an object as lines of fields.
//!
//! Any field of the server is printed. [`ORDER`] only says which come first.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::summary;

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
    "tokens",
    "d1_tokens",
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

const GAP: &str = "  ";
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
        Value::Array(items) => summary::policies(items).unwrap_or_else(|| one_line(&value.to_string())),
        other => one_line(&other.to_string()),
    }
}

fn heading(field: &str) -> String {
    one_line(field).replace('_', " ").to_uppercase()
}

fn rank(field: &str) -> usize {
    ORDER.iter().position(|&known| known == field).unwrap_or(ORDER.len())
}

/// Pads `text` to `width` columns of a terminal.
fn pad(text: &str, width: usize, right: bool) -> String {
    let fill = " ".repeat(width.saturating_sub(text.width()));
    if right { fill + text } else { text.to_owned() + &fill }
}

fn joined(cells: impl Iterator<Item = String>) -> String {
    cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
}

struct Column {
    field: String,
    width: usize,
    right: bool,
}

/// A table printed page by page. The first page decides the columns; later pages may widen them.
pub(crate) struct Table {
    hidden: &'static [&'static str],
    heading: bool,
    columns: Vec<Column>,
}

impl Table {
    /// A table without the `hidden` fields. `heading`: whether the first line has the names.
    pub(crate) const fn new(hidden: &'static [&'static str], heading: bool) -> Self {
        Self { hidden, heading, columns: Vec::new() }
    }

    /// Formats the next page.
    pub(crate) fn lines(&mut self, rows: &[Value]) -> Vec<String> {
        let rows: Vec<Cow<'_, Value>> =
            rows.iter().map(|row| summary::row(row).map_or(Cow::Borrowed(row), Cow::Owned)).collect();
        let first = self.columns.is_empty();
        if first {
            self.columns = columns_of(&rows, self.hidden);
        }
        let texts: Vec<Vec<String>> = rows
            .iter()
            .map(|row| self.columns.iter().map(|column| cell(row.get(&column.field).unwrap_or(&Value::Null))).collect())
            .collect();
        for row in &texts {
            for (column, text) in self.columns.iter_mut().zip(row) {
                column.width = column.width.max(text.width());
            }
        }
        let mut lines = Vec::with_capacity(texts.len() + 1);
        if first && self.heading && !rows.is_empty() {
            lines.push(joined(self.columns.iter().map(|c| pad(&heading(&c.field), c.width, c.right))));
        }
        for row in &texts {
            lines.push(joined(self.columns.iter().zip(row).map(|(c, text)| pad(text, c.width, c.right))));
        }
        lines
    }
}

fn columns_of(rows: &[Cow<'_, Value>], hidden: &[&str]) -> Vec<Column> {
    let mut fields: Vec<&String> = rows.iter().filter_map(|row| row.as_object()).flat_map(Map::keys).collect();
    fields.sort_by_key(|&field| (rank(field), field));
    fields.dedup();
    fields.retain(|field| !hidden.contains(&field.as_str()));
    let column = |field: &String| {
        let mut values = rows.iter().filter_map(|row| row.get(field)).filter(|value| !value.is_null()).peekable();
        let right = values.peek().is_some() && values.all(Value::is_number);
        Column { field: field.clone(), width: heading(field).width(), right }
    };
    fields.into_iter().map(column).collect()
}

/// Formats an object: its fields line by line, then a table for each list of objects in it.
pub(crate) fn document(value: &Value) -> Vec<String> {
    let Value::Object(object) = value else { return vec![cell(value)] };
    let mut fields = Vec::new();
    let mut tables = Vec::new();
    collect(object, "", &mut fields, &mut tables);
    let width = fields.iter().map(|(name, _)| name.width()).max().unwrap_or_default();
    let mut lines: Vec<String> =
        fields.iter().map(|(name, text)| joined([pad(name, width, false), text.clone()].into_iter())).collect();
    for (name, rows) in tables {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        if rows.is_empty() {
            lines.push(format!("{name}: none"));
        } else {
            lines.push(format!("{name}:"));
            lines.extend(Table::new(&[], true).lines(rows));
        }
    }
    lines
}

/// Collects fields and tables. Nested fields get dotted paths.
fn collect<'a>(
    object: &'a Map<String, Value>,
    prefix: &str,
    fields: &mut Vec<(String, String)>,
    tables: &mut Vec<(String, &'a [Value])>,
) {
    for (name, value) in in_order(object) {
        let mut full = String::from(prefix);
        if !full.is_empty() {
            full.push('.');
        }
        let _ = write!(full, "{}", one_line(name));
        match value {
            Value::Object(inner) if !inner.is_empty() => collect(inner, &full, fields, tables),
            // A list of scalars fits in a line. An empty list is a table, except `scopes`.
            Value::Array(rows) if rows.iter().all(Value::is_object) && (!rows.is_empty() || name != "scopes") => {
                tables.push((full, rows));
            }
            _ => fields.push((full, cell(value))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_orders_its_columns_and_aligns_numbers() {
        let rows = [
            json!({"tier": "free", "calls": 7, "key_id": "a", "name": "", "zz": true}),
            json!({"tier": "enterprise", "calls": 12345, "key_id": "b", "name": "日本", "zz": null}),
        ];
        assert_eq!(
            Table::new(&[], true).lines(&rows),
            [
                "KEY ID  TIER        NAME  CALLS  ZZ",
                "a       free        -         7  true",
                "b       enterprise  日本  12345  -",
            ]
        );
    }

    #[test]
    fn pages_share_one_heading_and_its_columns() {
        let mut table = Table::new(&["metadata"], true);
        assert_eq!(table.lines(&[json!({"id": "a", "metadata": {}, "tier": "x"})]), ["ID  TIER", "a   x"]);
        assert_eq!(table.lines(&[json!({"id": "long", "tier": "y"}), json!({"id": "b"})]), ["long  y", "b     -"]);
        assert!(table.lines(&[]).is_empty());
    }

    #[test]
    fn a_table_without_a_heading_has_only_rows() {
        assert_eq!(Table::new(&[], false).lines(&[json!({"id": "a", "tier": "x"})]), ["a   x"]);
    }

    #[test]
    fn an_object_is_printed_as_fields_and_tables() {
        let usage = json!({
            "key_id": "k", "tier": "free", "status": "active", "calls": 3, "month": "2026-11",
            "policies": [{"policy": "minute", "quota": 10, "used": 3}],
            "metadata": {"plan": "x", "tags": ["a", "b"]}, "scopes": [], "hours": [],
        });
        assert_eq!(
            document(&usage),
            [
                "key_id         k",
                "month          2026-11",
                "tier           free",
                "status         active",
                "scopes         -",
                "calls          3",
                "metadata.plan  x",
                "metadata.tags  a, b",
                "",
                "hours: none",
                "",
                "policies:",
                "POLICY  QUOTA  USED",
                "minute     10     3",
            ]
        );
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc\u{202e}d ü"), "a\\u{1b}[2Jb\\nc\\u{202e}d ü");
        assert_eq!(document(&json!({"na\nme": "x\ty"})), ["na\\nme  x\\ty"]);
    }

    #[test]
    fn other_values_are_printed_as_json() {
        assert_eq!(document(&json!("ok")), ["ok"]);
        let odd = json!({"before": null, "deep": [[1], {"a": 2}]});
        assert_eq!(document(&odd), ["before  -", "deep    [[1],{\"a\":2}]"]);
    }
}
