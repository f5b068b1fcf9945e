//! Prints JSON as text: a list as a table, an object as lines of fields.
//!
//! Any field of the server is printed. [`cells`](crate::cells) only says which come first.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use unicode_width::UnicodeWidthStr as _;

use crate::cells::{cell, in_order, one_line, rank};
use crate::summary;

const GAP: &str = "  ";

fn heading(field: &str) -> String {
    one_line(field).replace('_', " ").to_uppercase()
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
    fn tokens_follow_what_calls_cost() {
        let report = json!({
            "month": "2026-11", "calls": 3, "denied": 1, "tokens": 90, "keys": [],
            "totals": {"keys": 1, "calls": 3, "denied": 1, "cost": 4, "tokens": 90, "overdraft": 5},
            "tiers": [{"tier": "free", "keys": 1, "calls": 3, "tokens": 90}],
            "top": [{"key_id": "k", "name": "n", "tier": "free", "calls": 3, "tokens": 90}],
        });
        assert_eq!(
            document(&report),
            [
                "month             2026-11",
                "calls             3",
                "denied            1",
                "tokens            90",
                "totals.keys       1",
                "totals.calls      3",
                "totals.denied     1",
                "totals.cost       4",
                "totals.tokens     90",
                "totals.overdraft  5",
                "",
                "keys: none",
                "",
                "tiers:",
                "TIER  KEYS  CALLS  TOKENS",
                "free     1      3      90",
                "",
                "top:",
                "KEY ID  TIER  NAME  CALLS  TOKENS",
                "k       free  n         3      90",
            ]
        );
        let hours = [json!({"hour": "h", "class": "c", "calls": 1, "denied": 0, "cost": 2, "tokens": 7})];
        assert_eq!(Table::new(&[], true).lines(&hours)[0], "HOUR  CLASS  CALLS  DENIED  COST  TOKENS");
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
