//! Route costs: the cost of a call, by path pattern and method.

use crate::admin::body::{FromFields, JsonFields, Limits};
use crate::admin::parameters::{Page, Parameters, bad_cursor};
use crate::http::problem::Problem;
use crate::keys::route_key::{ANY_METHOD, PATTERN_LENGTH, method_fault, pattern_fault};
use serde::Serialize;

/// The most route costs. Each key's object keeps all of them and matches each call against them.
pub const ROUTE_COSTS_LIMIT: usize = 500;
/// The highest cost, as in the schema.
const COST_LIMIT: u64 = 10_000;

/// The body that sets the cost of calls whose path and method match. If several patterns match, the
/// longest one decides.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"pattern": "/v1/*/export", "method": "GET", "cost": 25, "reprice": false})))]
pub struct PutRouteCost {
    /// Path pattern. Each segment is literal, `*` (one segment; as the last one, one or more) or
    /// `**` (any number of segments, also none).
    #[cfg_attr(not(target_arch = "wasm32"), schema(pattern = "^/[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub pattern: String,
    /// Method in upper case, or `*` (the default) for all methods.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false, pattern = "^(\\*|[A-Z]+)$"))]
    pub method: String,
    /// Requests that a matching call is charged.
    pub cost: u64,
    /// Whether the origin's response may lower that with `X-Tollgate-Cost`; `false` is the default.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false))]
    pub reprice: bool,
}

impl FromFields for PutRouteCost {
    const LIMITS: Limits =
        &[("pattern", "maxLength", PATTERN_LENGTH as u64), ("cost", "minimum", 1), ("cost", "maximum", COST_LIMIT)];

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let pattern = fields.string("pattern")?;
        let pattern = fields.required("pattern", pattern)?;
        if let Some(reason) = pattern_fault(&pattern) {
            return Err(fields.wrong("pattern", reason));
        }
        let method = fields.string("method")?.unwrap_or_else(|| ANY_METHOD.to_owned());
        if let Some(reason) = method_fault(&method) {
            return Err(fields.wrong("method", reason));
        }
        let cost = fields.number("cost")?;
        let cost = fields.required("cost", cost)?;
        if !(1..=COST_LIMIT).contains(&cost) {
            return Err(fields.wrong("cost", format!("must be 1 to {COST_LIMIT}")));
        }
        let reprice = fields.boolean("reprice")?.unwrap_or_default();
        Ok(Self { pattern, method, cost, reprice })
    }
}

/// The cost of calls that match a pattern and a method, which together identify it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(as = RouteCost))]
pub struct RouteCostView {
    /// Path pattern, of literal segments, `*` and `**`.
    pub pattern: String,
    /// Method in upper case, or `*` for all methods.
    pub method: String,
    /// Requests that a matching call is charged.
    pub cost: u64,
    /// Whether the origin's response may lower that with `X-Tollgate-Cost`.
    pub reprice: bool,
}

impl From<PutRouteCost> for RouteCostView {
    fn from(PutRouteCost { pattern, method, cost, reprice }: PutRouteCost) -> Self {
        Self { pattern, method, cost, reprice }
    }
}

/// The pattern and method of the row that a request names. Neither is validated.
///
/// # Errors
/// 400 without a pattern.
pub fn row_of(parameters: &Parameters) -> Result<(&str, &str), Problem> {
    let pattern = parameters.get("pattern");
    let pattern =
        pattern.ok_or_else(|| Problem::BadRequest("pattern: is missing; name the pattern of the row".to_owned()))?;
    Ok((pattern, parameters.get("method").unwrap_or(ANY_METHOD)))
}

/// Pattern and method of the row before a page. In a cursor the method comes first, because it
/// contains no line ends.
///
/// # Errors
/// 400 for a cursor that this list did not return.
pub fn before(page: &Page) -> Result<(&str, &str), Problem> {
    let Some(after) = page.after.as_deref() else { return Ok(("", "")) };
    after.split_once('\n').map(|(method, pattern)| (pattern, method)).ok_or_else(bad_cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::body::parse;
    use crate::http::target::Query;

    fn read(body: &str) -> Result<PutRouteCost, Problem> {
        parse(body.as_bytes())
    }

    #[test]
    fn a_row_is_for_all_methods_unless_it_names_one() {
        let row = read(r#"{"pattern":"/v1/*/export","cost":25}"#).unwrap();
        assert_eq!((row.pattern.as_str(), row.method.as_str(), row.cost), ("/v1/*/export", "*", 25));
        assert!(!row.reprice);
        assert!(read(r#"{"pattern":"/v1/*/export","cost":25,"reprice":true}"#).unwrap().reprice);
        assert_eq!(read(r#"{"pattern":"/","method":"GET","cost":10000}"#).unwrap().method, "GET");
    }

    #[test]
    fn the_error_of_a_bad_row_names_the_field() {
        let long = format!(r#"{{"pattern":"/{}","cost":1}}"#, "ä".repeat(PATTERN_LENGTH));
        for (body, field) in [
            (r#"{"cost":1}"#, "pattern"),
            (r#"{"pattern":"x","cost":1}"#, "pattern"),
            (r#"{"pattern":"/a\u0000","cost":1}"#, "pattern"),
            (long.as_str(), "pattern"),
            (r#"{"pattern":"/","method":"","cost":1}"#, "method"),
            (r#"{"pattern":"/","method":"GET ","cost":1}"#, "method"),
            (r#"{"pattern":"/","method":"**","cost":1}"#, "method"),
            (r#"{"pattern":"/"}"#, "cost"),
            (r#"{"pattern":"/","cost":0}"#, "cost"),
            (r#"{"pattern":"/","cost":10001}"#, "cost"),
            (r#"{"pattern":"/","cost":1,"reprice":1}"#, "reprice"),
            (r#"{"pattern":"/","cost":1,"reprice":null}"#, "reprice"),
            (r#"{"pattern":"/","cost":1,"x":1}"#, "x"),
        ] {
            match read(body) {
                Err(Problem::Invalid(named, _)) => assert_eq!(named, field, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
        assert!(read(&long.replace("/ä", "/")).is_ok());
    }

    #[test]
    fn a_row_is_named_by_its_pattern_and_method() {
        let of = |query: &str| {
            let parameters = Parameters::parse(Query::new(query), &["pattern", "method"]).unwrap();
            row_of(&parameters).map(|(pattern, method)| (pattern.to_owned(), method.to_owned()))
        };
        assert_eq!(of("pattern=%2Fv1%2F*&method=GET"), Ok(("/v1/*".to_owned(), "GET".to_owned())));
        assert_eq!(of("pattern=/a+b&method="), Ok(("/a b".to_owned(), "*".to_owned())));
        for query in ["", "pattern=", "method=GET"] {
            assert_eq!(of(query).unwrap_err().status(), 400, "{query}");
        }
    }

    #[test]
    fn a_cursor_holds_any_pattern() {
        let page = |query: &str| {
            Parameters::parse(Query::new(query), &["limit", "cursor"]).unwrap().page("route_costs").unwrap()
        };
        let first = page("");
        assert_eq!(before(&first), Ok(("", "")));
        let cursor = |position: &str| page(&format!("cursor={}", first.cursor(position)));
        assert_eq!(before(&cursor("GET\n/a\nb")), Ok(("/a\nb", "GET")));
        assert_eq!(before(&cursor("GET")).unwrap_err().status(), 400);
    }
}
