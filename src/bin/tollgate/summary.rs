//! Summaries of nested JSON, for the cells of tables.

use serde_json::{Map, Value};

use crate::cells::{cell, in_order, is_nothing, limit, name_of, one_line, policies, shorten};

/// The longest summary of a change, in columns. `--json` prints the whole change.
const CHANGE_WIDTH: usize = 80;
/// Fields that a summary of a new object omits.
const SILENT: [&str; 4] = ["id", "hint", "created_at", "version"];

/// A row of a list with summaries in place of nested values; `None` if it has none that are
/// recognised.
pub(crate) fn row(row: &Value) -> Option<Value> {
    let fields = row.as_object()?;
    if let (Some(before), Some(after), Some(target)) = (fields.get("before"), fields.get("after"), fields.get("target"))
    {
        let mut row = fields.clone();
        row.retain(|name, _| !matches!(name.as_str(), "id" | "before" | "after"));
        row.insert("change".to_owned(), change(before, after, target.as_str().unwrap_or_default()).into());
        return Some(row.into());
    }
    if let Some(found) = fields.get("detail").and_then(|detail| detail.get("differences")).and_then(Value::as_array) {
        let mut row = fields.clone();
        row.remove("detail");
        let parts: Vec<String> = found.iter().filter_map(difference_text).collect();
        row.insert("differences".to_owned(), parts.join("; ").into());
        return Some(row.into());
    }
    difference(fields)
}

/// A change in the admin log: the fields of what was created or deleted, or the fields that differ.
fn change(before: &Value, after: &Value, target: &str) -> String {
    let parts = match (before.as_object(), after.as_object()) {
        (None, None) => String::new(),
        (None, Some(new)) => fields(new, target).join(", "),
        (Some(old), None) => format!("was {}", fields(old, target).join(", ")),
        (Some(old), Some(new)) => {
            let mut parts = Vec::new();
            differ(old, new, "", &mut parts);
            format!("{}{}", route(new), parts.join(", "))
        }
    };
    shorten(&parts, CHANGE_WIDTH)
}

/// Pattern and method of a row of `route_costs` or `token_routes`, which its target does not contain.
fn route(fields: &Map<String, Value>) -> String {
    match (fields.get("method"), fields.get("pattern")) {
        (Some(method), Some(pattern)) => format!("{} {}: ", cell(method), cell(pattern)),
        _ => String::new(),
    }
}

/// The fields of an object, without those that are empty, usual, or in the target already.
fn fields(thing: &Map<String, Value>, target: &str) -> Vec<String> {
    let named = target.rsplit('/').next().unwrap_or_default();
    let is_shown = |name: &str, value: &Value| {
        !SILENT.contains(&name)
            && !is_nothing(value)
            && value.as_str() != Some(named)
            && value.as_str() != Some("active")
    };
    let of = |name: &str, value: &Value| match value.as_array().map(|list| policies(list)) {
        Some(Some(policies)) => policies,
        _ => format!("{name} {}", word(value)),
    };
    let policy = limit(&Value::Object(thing.clone()));
    let is_limit = |name: &str| matches!(name, "policy" | "unit" | "quota" | "period" | "algorithm" | "burst");
    let rest = in_order(thing).filter(|(name, value)| is_shown(name, value) && !(policy.is_some() && is_limit(name)));
    policy.clone().into_iter().chain(rest.map(|(name, value)| of(name, value))).collect()
}

/// Collects the fields in which two objects differ.
fn differ(old: &Map<String, Value>, new: &Map<String, Value>, prefix: &str, parts: &mut Vec<String>) {
    let mut both = old.clone();
    both.extend(new.clone());
    for (name, _) in in_order(&both) {
        let (was, is) = (old.get(name).unwrap_or(&Value::Null), new.get(name).unwrap_or(&Value::Null));
        match (was, is) {
            _ if was == is => {}
            (Value::Object(was), Value::Object(is)) => differ(was, is, &format!("{prefix}{name}."), parts),
            (Value::Array(was), Value::Array(is)) if policies(was).is_some() && policies(is).is_some() => {
                differ_in_policies(was, is, parts);
            }
            _ => parts.push(format!("{prefix}{name} {} -> {}", word(was), word(is))),
        }
    }
}

fn differ_in_policies(old: &[Value], new: &[Value], parts: &mut Vec<String>) {
    let of = |list: &[Value], name: &str| list.iter().find(|policy| name_of(policy) == Some(name)).and_then(limit);
    for name in new.iter().filter_map(name_of) {
        match (of(old, name), of(new, name)) {
            (was, is) if was == is => {}
            (was, is) => parts.push(format!("{} {} -> {}", one_line(name), or_none(was), or_none(is))),
        }
    }
    for name in old.iter().filter_map(name_of).filter(|name| of(new, name).is_none()) {
        parts.push(format!("{} {} -> {}", one_line(name), or_none(of(old, name)), or_none(None)));
    }
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| "none".to_owned())
}

/// A value in a list of values: quoted if its end would not be visible.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() || text.contains([' ', ',', '"']) => one_line(&value.to_string()),
        other => cell(other),
    }
}

const COUNTS: [&str; 4] = ["calls", "denied", "cost", "tokens"];

/// The sides of a difference between an object and D1, and one of them that is not null.
fn sides(difference: &Value) -> Option<(&Value, &Value, &Value)> {
    let (object, d1) = (difference.get("object")?, difference.get("d1")?);
    let side = if object.is_object() { object } else { d1 };
    side.get("period")?;
    Some((object, d1, side))
}

/// A difference as text: `2026-11: calls 5, D1 4`.
fn difference_text(difference: &Value) -> Option<String> {
    let (object, d1, side) = sides(difference)?;
    let number = |side: &Value, name: &str| side.get(name).map_or_else(|| "none".to_owned(), cell);
    let counts = COUNTS.iter().filter(|name| object.get(**name) != d1.get(**name));
    let counts = counts.map(|name| format!("{name} {}, D1 {}", number(object, name), number(d1, name)));
    let class = side.get("class").filter(|class| !class.is_null()).map(|class| format!(" {}", cell(class)));
    let when = side.get("period").map_or_else(String::new, cell);
    Some(format!("{when}{}: {}", class.unwrap_or_default(), counts.collect::<Vec<_>>().join(", ")))
}

/// A difference as a row: each number of the object, followed by that of D1.
fn difference(fields: &Map<String, Value>) -> Option<Value> {
    if fields.len() != 2 {
        return None;
    }
    let whole = Value::Object(fields.clone());
    let (object, d1, side) = sides(&whole)?;
    let mut row = Map::new();
    for name in ["period", "class"] {
        row.insert(name.to_owned(), side.get(name).cloned().unwrap_or_default());
    }
    for name in COUNTS {
        row.insert(name.to_owned(), object.get(name).cloned().unwrap_or_default());
        row.insert(format!("d1_{name}"), d1.get(name).cloned().unwrap_or_default());
    }
    Some(row.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str, quota: u64, period: &str, algorithm: &str, burst: Option<u64>) -> Value {
        json!({"policy": name, "unit": "requests", "quota": quota, "period": period, "algorithm": algorithm, "burst": burst})
    }

    #[test]
    fn policies_are_one_line() {
        let list = [
            policy("minute", 10, "minute", "fixed", None),
            policy("b", 60, "hour", "bucket", Some(120)),
            json!({"policy": "tpm", "unit": "tokens", "quota": 5, "period": "day", "algorithm": "sliding"}),
            policy("month", 1000, "month", "fixed", None),
        ];
        assert_eq!(
            policies(&list).unwrap(),
            "minute 10/minute fixed, b 60/hour bucket of 120, tpm 5 tokens/day sliding, month 1000/month"
        );
        assert_eq!(policies(&[json!({"policy": "x"})]), None);
        assert_eq!(policies(&[json!({"policy": "minute", "quota": 10, "used": 3})]), None);
    }

    fn summary_of(target: &str, before: &Value, after: &Value) -> String {
        let entry = json!({"id": 1, "at": "t", "actor": "root", "action": "x", "target": target, "before": before, "after": after});
        let row = row(&entry).unwrap();
        assert_eq!(row.as_object().unwrap().len(), 5);
        row["change"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_change_is_summarised_by_what_differs() {
        let key = json!({"id": "k", "tier": "free", "name": "a b", "owner": "", "status": "active", "hint": "abcd",
            "metadata": {"plan": "x", "n": 1}, "created_at": "t", "expires_at": null});
        let with = |changes: Value| {
            let mut key = key.clone();
            key.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            key
        };
        for (target, before, after, expected) in [
            ("keys/k", Value::Null, key.clone(), r#"tier free, name "a b", metadata {"n":1,"plan":"x"}"#),
            ("keys/k", key.clone(), Value::Null, r#"was tier free, name "a b", metadata {"n":1,"plan":"x"}"#),
            ("keys/k", key.clone(), with(json!({"tier": "pro", "name": ""})), r#"tier free -> pro, name "a b" -> """#),
            ("keys/k", key.clone(), with(json!({"hint": "efgh"})), "hint abcd -> efgh"),
            ("keys/k", key.clone(), with(json!({"status": "revoked"})), "status active -> revoked"),
            ("keys/k", key.clone(), with(json!({"metadata": {"n": 1, "plan": "y"}})), "metadata.plan x -> y"),
            ("keys/k", key.clone(), with(json!({"expires_at": "t2"})), "expires_at none -> t2"),
            ("keys/k", key.clone(), key.clone(), ""),
            ("x", Value::Null, Value::Null, ""),
        ] {
            assert_eq!(summary_of(target, &before, &after), expected);
        }
    }

    #[test]
    fn a_change_of_policies_is_summarised_by_policy() {
        let tier =
            |policies: &[Value]| json!({"name": "gold", "description": "", "audit_days": 0, "policies": policies});
        let (minute, month) =
            (policy("minute", 10, "minute", "fixed", None), policy("month", 9, "month", "fixed", None));
        let wider = policy("minute", 20, "minute", "fixed", None);
        let both = tier(&[minute.clone(), month.clone()]);
        let own = |quota: u64| {
            let mut own = policy("minute", quota, "minute", "fixed", None);
            own.as_object_mut().unwrap().extend(json!({"from": null, "until": "t"}).as_object().unwrap().clone());
            own
        };
        for (target, before, after, expected) in [
            ("tiers/gold", Value::Null, both.clone(), "audit_days 0, minute 10/minute fixed, month 9/month"),
            ("tiers/gold", both.clone(), tier(&[wider, month.clone()]), "minute 10/minute fixed -> 20/minute fixed"),
            ("tiers/gold", both.clone(), tier(&[month]), "minute 10/minute fixed -> none"),
            ("tiers/gold", tier(&[]), tier(&[minute]), "minute none -> 10/minute fixed"),
            ("keys/k/overrides/minute", Value::Null, own(50), "50/minute fixed, until t"),
            ("keys/k/overrides/minute", own(50), own(60), "quota 50 -> 60"),
        ] {
            assert_eq!(summary_of(target, &before, &after), expected);
        }
    }

    #[test]
    fn a_change_of_a_route_cost_names_the_route() {
        let row = |cost: u64| json!({"pattern": "/v1/*", "method": "GET", "cost": cost});
        assert_eq!(summary_of("route-costs", &Value::Null, &row(5)), "method GET, pattern /v1/*, cost 5");
        assert_eq!(summary_of("route-costs", &row(5), &row(25)), "GET /v1/*: cost 5 -> 25");
        assert_eq!(summary_of("route-costs", &row(5), &Value::Null), "was method GET, pattern /v1/*, cost 5");
    }

    #[test]
    fn a_long_change_is_cut_with_an_ellipsis() {
        let long = summary_of("keys/k", &Value::Null, &json!({"name": "x".repeat(200)}));
        assert!(long.ends_with("…") && long.chars().count() == CHANGE_WIDTH, "{long}");
    }

    #[test]
    fn drift_is_summarised_by_what_differs() {
        let count = |class: Value, calls: u64| json!({"period": "2026-11", "class": class, "calls": calls, "denied": 1, "cost": calls, "tokens": 0});
        let differences = json!([
            {"object": count(Value::Null, 5), "d1": count(Value::Null, 4)},
            {"object": count("GET /x".into(), 1), "d1": null},
        ]);
        let found = json!({"key_id": "k", "found_at": "t", "detail": {"key_id": "k", "state": "drift", "differences": differences}});
        assert_eq!(
            row(&found).unwrap(),
            json!({"key_id": "k", "found_at": "t", "differences":
                "2026-11: calls 5, D1 4, cost 5, D1 4; 2026-11 GET /x: calls 1, D1 none, denied 1, D1 none, cost 1, D1 none, tokens 0, D1 none"})
        );
        assert_eq!(
            row(&differences[1]).unwrap(),
            json!({"period": "2026-11", "class": "GET /x", "calls": 1, "d1_calls": null, "denied": 1, "d1_denied": null,
                "cost": 1, "d1_cost": null, "tokens": 0, "d1_tokens": null})
        );
        assert_eq!(row(&json!({"object": 1, "d1": 2})), None);
        assert_eq!(row(&json!("x")), None);
    }
}
