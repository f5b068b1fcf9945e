//! Builds tollgate's own responses.

use crate::gateway::loop_guard::MARK;
use crate::gateway::outbound::{RESERVED, RESERVED_IN_RESPONSES};
use crate::gateway::ratelimit_headers::{EXPOSED, RateLimits};
use crate::http::preflight::PreflightRequest;
use crate::http::problem::Problem;
use crate::protocol::object_response::{KeyResponse, KeyVerdict};
use crate::runtime::error::Error;
use crate::runtime::js;
use crate::runtime::js::fields::FieldLines;
use wasm_bindgen::JsValue;

const PROBLEM_JSON: &str = "application/problem+json";
/// The property in which `entry.js` provides the API document. Within the wasm it would
/// increase the size that is loaded.
const OPENAPI: &str = "tollgateOpenApi";

/// A response or a promise of one, or an error that becomes a 500.
pub(crate) type HttpResult = Result<JsValue, Error>;

/// Fields of tollgate's own responses: never stored, and readable for scripts of allowed origins.
fn own(status: u16, content_type: &str, body: Option<&str>, cors: &str, mut fields: FieldLines) -> HttpResult {
    set_own_fields(&mut fields, cors);
    if body.is_some() {
        fields.set("Content-Type", content_type);
    }
    Ok(js::response::reply(status, body, fields.as_str())?.into())
}

fn set_own_fields(fields: &mut FieldLines, cors: &str) {
    fields.set("Cache-Control", "no-store");
    fields.set("X-Content-Type-Options", "nosniff");
    fields.set("Access-Control-Allow-Origin", cors);
    fields.set("Access-Control-Expose-Headers", EXPOSED);
}

/// Passes the rules of forwarding to JavaScript, once per isolate.
pub(crate) fn set_forwarding_rules(cors: &str) {
    let mut fields = FieldLines::default();
    set_own_fields(&mut fields, cors);
    fields.set("Content-Type", PROBLEM_JSON);
    let (problem, loop_status) = (Problem::BadGateway, Problem::Loop.status());
    let (status, body) = (problem.status(), problem.body());
    js::origin::set_forwarding_rules(status, &body, fields.as_str(), loop_status, RESERVED, RESERVED_IN_RESPONSES);
}

/// The problem response for a refusal.
pub(crate) fn refuse(refusal: &Problem, cors: &str, limits: Option<RateLimits<'_>>) -> HttpResult {
    let fields = refusal_fields(refusal, limits);
    own(refusal.status(), PROBLEM_JSON, Some(&refusal.body()), cors, fields)
}

/// The response of a gate that was called by itself. `proof` shows this to the caller.
pub(crate) fn called_by_itself(proof: &str, cors: &str) -> HttpResult {
    let mut fields = FieldLines::default();
    fields.set(MARK, proof);
    own(Problem::Loop.status(), PROBLEM_JSON, Some(&Problem::Loop.body()), cors, fields)
}

fn refusal_fields(refusal: &Problem, limits: Option<RateLimits<'_>>) -> FieldLines {
    let mut fields = FieldLines::default();
    if let Some(limits) = limits {
        fields.extend(limits.fields());
    }
    if let Some(seconds) = refusal.retry_after() {
        fields.set("Retry-After", &seconds.to_string());
    }
    if let Some((name, value)) = refusal.extra_header() {
        fields.set(name, value);
    }
    fields
}

/// The response to a denied call.
pub(crate) fn quota_exceeded(known: &KeyResponse) -> Option<Problem> {
    let KeyVerdict::Denied { retry_after, .. } = known.verdict else { return None };
    let retry_after = retry_after.div_ceil(1000).max(1);
    Some(Problem::QuotaExceeded { violated: known.violated(), retry_after })
}

/// A rendered refusal in JavaScript, usable while its whole seconds stay the same.
pub(crate) struct Rendered {
    /// The number of the refusal in the deny cache.
    pub(crate) number: u64,
    /// In milliseconds on the isolate's clock.
    pub(crate) until: u64,
    pub(crate) status: u16,
    body: JsValue,
    headers: JsValue,
}

/// Renders a refusal for repeated use until its content changes: the one of this number, up to
/// `until`.
pub(crate) fn render(
    refusal: &Problem,
    cors: &str,
    limits: RateLimits<'_>,
    number: u64,
    until: u64,
) -> Result<Rendered, Error> {
    let mut fields = refusal_fields(refusal, Some(limits));
    set_own_fields(&mut fields, cors);
    fields.set("Content-Type", PROBLEM_JSON);
    let headers = js::fields::headers_of(fields.as_str())?;
    Ok(Rendered { number, until, status: refusal.status(), body: refusal.body().into(), headers })
}

/// Responds with a rendered refusal.
pub(crate) fn give(rendered: &Rendered) -> HttpResult {
    Ok(js::response::reply_shared(rendered.status, &rendered.body, &rendered.headers)?.into())
}

/// A JSON response.
pub(crate) fn json(status: u16, body: &str, cors: &str) -> HttpResult {
    own(status, "application/json", Some(body), cors, FieldLines::default())
}

/// A response of JSON values, one per line.
pub(crate) fn lines(body: &str, media_type: &str, cors: &str) -> HttpResult {
    own(200, media_type, Some(body), cors, FieldLines::default())
}

/// A stream of CSV, to be saved as a file.
pub(crate) fn csv(rows: &JsValue, name: &str, cors: &str) -> HttpResult {
    let mut fields = FieldLines::default();
    set_own_fields(&mut fields, cors);
    fields.set("Content-Type", "text/csv; charset=utf-8");
    fields.set("Content-Disposition", &format!("attachment; filename=\"{name}\""));
    Ok(js::response::reply_shared(200, rows, &js::fields::headers_of(fields.as_str())?)?.into())
}

/// A JSON response about a key, with its rate-limit fields.
pub(crate) fn json_of_key(status: u16, body: &str, cors: &str, limits: RateLimits<'_>) -> HttpResult {
    let mut fields = FieldLines::default();
    fields.extend(limits.fields());
    own(status, "application/json", Some(body), cors, fields)
}

/// `GET /_tollgate/openapi.json`.
pub(crate) fn openapi(cors: &str) -> HttpResult {
    let document = js_sys::Reflect::get(&js_sys::global(), &OPENAPI.into())?;
    let document = document.as_string().ok_or_else(|| Error::new("the build has no OpenAPI document"))?;
    json(200, &document, cors)
}

/// 204.
pub(crate) fn no_content(cors: &str) -> HttpResult {
    own(204, "", None, cors, FieldLines::default())
}

/// `GET /_tollgate/health`.
pub(crate) fn health(cors: &str) -> HttpResult {
    json(200, concat!(r#"{"status":"ok","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#), cors)
}

/// The response to a CORS preflight for the origin: allows what it requests, for origins that
/// `CORS_ALLOW_ORIGIN` names.
pub(crate) fn grant(asked: &PreflightRequest, cors: &str) -> HttpResult {
    let mut fields = FieldLines::default();
    fields.set("Access-Control-Allow-Methods", &asked.method);
    if !asked.fields.is_empty() {
        fields.set("Access-Control-Allow-Headers", &asked.fields);
    }
    fields.set("Access-Control-Max-Age", "7200");
    fields.set("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers");
    own(204, "", None, cors, fields)
}

/// The response to a CORS preflight for one of tollgate's own endpoints.
pub(crate) fn preflight(cors: &str) -> HttpResult {
    let mut fields = FieldLines::default();
    fields.set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE");
    fields.set("Access-Control-Allow-Headers", "Authorization, X-API-Key, Content-Type");
    fields.set("Access-Control-Max-Age", "86400");
    own(204, "", None, cors, fields)
}
