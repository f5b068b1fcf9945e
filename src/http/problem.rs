//! Responses that tollgate sends in place of the origin's: status, problem body (RFC 9457) and
//! header fields.

use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// The problem type of an exhausted quota, from draft-ietf-httpapi-ratelimit-headers-11.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// 400: the request is invalid.
    BadRequest(String),
    /// 401: no credential.
    NoCredential(String),
    /// 401: a malformed, forged or unknown key. One response for all, so that it does not reveal
    /// which keys exist.
    InvalidKey,
    /// 401: no admin token.
    NoAdminToken,
    /// 401: an unknown admin token.
    InvalidAdminToken,
    /// 403: a disabled, revoked or expired key, or a token without the required scope.
    Forbidden(&'static str),
    /// 404: not found.
    NotFound(String),
    /// 405: the path does not support the method; those that it supports.
    MethodNotAllowed(String),
    /// 408: the body did not arrive within this many seconds.
    BodyTimeout(u32),
    /// 409: the current state does not allow the request.
    Conflict(String),
    /// 409: a call with the same idempotency key is in flight.
    InFlight,
    /// 422: the idempotency key was used for another request.
    OtherRequest,
    /// 411: a body without a length that is larger than this many bytes.
    LengthRequired(usize),
    /// 415: a body in a form that the route does not take.
    UnsupportedMedia(String),
    /// 413: the body is larger than this many bytes.
    TooLarge(usize),
    /// 413: the body has more than this many lines.
    TooManyLines(usize),
    /// 422: an invalid field of a JSON body; its name, and what it must be.
    Invalid(Cow<'static, str>, String),
    /// 429: too many attempts with wrong admin tokens; whole seconds until the next is accepted.
    TooManyAttempts(u64),
    /// 429: at least one policy has no quota left.
    QuotaExceeded {
        /// The names of the policies that refused.
        violated: Vec<String>,
        /// Whole seconds.
        retry_after: u64,
    },
    /// 500: an internal error, whose cause is logged.
    Internal,
    /// 502: the origin did not respond.
    BadGateway,
    /// 508: `ORIGIN` leads back to the gate.
    Loop,
    /// 503: a required service is unavailable, or a setting is missing.
    Unavailable(&'static str),
}

impl Problem {
    /// 422 for a field of a body.
    #[must_use]
    pub fn invalid(field: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self::Invalid(field.into(), reason.into())
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::NoCredential(_) | Self::InvalidKey | Self::NoAdminToken | Self::InvalidAdminToken => 401,
            Self::Forbidden(_) => 403,
            Self::NotFound(_) => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::BodyTimeout(_) => 408,
            Self::Conflict(_) | Self::InFlight => 409,
            Self::LengthRequired(_) => 411,
            Self::TooLarge(_) | Self::TooManyLines(_) => 413,
            Self::UnsupportedMedia(_) => 415,
            Self::Invalid(..) | Self::OtherRequest => 422,
            Self::QuotaExceeded { .. } | Self::TooManyAttempts(_) => 429,
            Self::Internal => 500,
            Self::BadGateway => 502,
            Self::Unavailable(_) => 503,
            Self::Loop => 508,
        }
    }

    const fn title(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "Bad Request",
            Self::NoCredential(_) | Self::InvalidKey | Self::NoAdminToken | Self::InvalidAdminToken => "Unauthorized",
            Self::Forbidden(_) => "Forbidden",
            Self::NotFound(_) => "Not Found",
            Self::MethodNotAllowed(_) => "Method Not Allowed",
            Self::BodyTimeout(_) => "Request Timeout",
            Self::Conflict(_) | Self::InFlight => "Conflict",
            Self::TooManyAttempts(_) => "Too Many Requests",
            Self::LengthRequired(_) => "Length Required",
            Self::TooLarge(_) | Self::TooManyLines(_) => "Content Too Large",
            Self::UnsupportedMedia(_) => "Unsupported Media Type",
            Self::Invalid(..) | Self::OtherRequest => "Unprocessable Content",
            Self::QuotaExceeded { .. } => "Quota Exceeded",
            Self::Internal => "Internal Server Error",
            Self::BadGateway => "Bad Gateway",
            Self::Unavailable(_) => "Service Unavailable",
            Self::Loop => "Loop Detected",
        }
    }

    /// The member `detail`.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::BadRequest(detail)
            | Self::NoCredential(detail)
            | Self::NotFound(detail)
            | Self::Conflict(detail)
            | Self::UnsupportedMedia(detail) => detail.clone(),
            Self::LengthRequired(limit) => {
                format!("this route counts tokens: a body of more than {limit} bytes must have a Content-Length")
            }
            Self::InvalidKey => "the API key is not valid".to_owned(),
            Self::NoAdminToken => "the admin API needs Authorization: Bearer <admin token>".to_owned(),
            Self::InvalidAdminToken => {
                "the admin token was refused: it is neither ADMIN_TOKEN nor a named token that is in force".to_owned()
            }
            Self::Forbidden(detail) | Self::Unavailable(detail) => (*detail).to_owned(),
            Self::MethodNotAllowed(allow) => format!("this path supports only {allow}"),
            Self::BodyTimeout(seconds) => format!("the body did not arrive within {seconds} s"),
            Self::TooLarge(limit) => format!("the body may have at most {limit} bytes"),
            Self::TooManyLines(limit) => format!("the body may have at most {limit} lines"),
            Self::Invalid(field, reason) => format!("{field}: {reason}"),
            Self::TooManyAttempts(seconds) => {
                format!("too many attempts with wrong admin tokens: try again in {seconds} s")
            }
            Self::QuotaExceeded { violated, retry_after } => {
                format!("no quota left in {}: try again in {retry_after} s", violated.join(", "))
            }
            Self::InFlight => "a call with this Idempotency-Key is in flight: try again after it has ended".to_owned(),
            Self::OtherRequest => {
                "this Idempotency-Key was used for a call with another method, path or query: use a new key".to_owned()
            }
            Self::BadGateway => "the origin did not respond".to_owned(),
            Self::Internal => "internal error: the cause is in the log of the Worker".to_owned(),
            Self::Loop => {
                "the request came back to tollgate in place of the origin: set ORIGIN to the URL of your API, \
                           for example `npx wrangler dev --var ORIGIN:http://127.0.0.1:3000`"
                    .to_owned()
            }
        }
    }

    /// Seconds for `Retry-After`, where it is known when a retry can succeed.
    #[must_use]
    pub const fn retry_after(&self) -> Option<u64> {
        match self {
            Self::QuotaExceeded { retry_after, .. } | Self::TooManyAttempts(retry_after) => Some(*retry_after),
            Self::Unavailable(_) | Self::InFlight => Some(1),
            _ => None,
        }
    }

    /// A header field that only this problem has.
    #[must_use]
    pub fn extra_header(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::NoCredential(_) => Some(("WWW-Authenticate", r#"Bearer realm="tollgate""#)),
            Self::InvalidKey => Some(("WWW-Authenticate", r#"Bearer realm="tollgate", error="invalid_token""#)),
            Self::NoAdminToken => Some(("WWW-Authenticate", r#"Bearer realm="tollgate admin""#)),
            Self::InvalidAdminToken => {
                Some(("WWW-Authenticate", r#"Bearer realm="tollgate admin", error="invalid_token""#))
            }
            Self::MethodNotAllowed(allow) => Some(("Allow", allow)),
            _ => None,
        }
    }

    /// The problem body, `application/problem+json`.
    #[must_use]
    pub fn body(&self) -> String {
        let mut body = Map::new();
        let kind = if matches!(self, Self::QuotaExceeded { .. }) { QUOTA_EXCEEDED } else { "about:blank" };
        body.insert("type".to_owned(), kind.into());
        body.insert("title".to_owned(), self.title().into());
        body.insert("status".to_owned(), self.status().into());
        body.insert("detail".to_owned(), self.detail().into());
        match self {
            Self::QuotaExceeded { violated, retry_after } => {
                body.insert("violated-policies".to_owned(), json!(violated));
                body.insert("retry_after".to_owned(), (*retry_after).into());
            }
            Self::Invalid(field, _) => {
                body.insert("field".to_owned(), field.as_ref().into());
            }
            _ => {}
        }
        Value::Object(body).to_string()
    }
}

/// A problem (RFC 9457): the body of every error response.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[expect(missing_docs, reason = "fields of RFC 9457")]
#[schema(as = Problem, example = json!({"type": "about:blank", "title": "Unprocessable Content", "status": 422, "detail": "tier: there is no tier `gold`", "field": "tier"}))]
pub struct ProblemBody {
    /// `about:blank`, or the type of an exhausted quota.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// Cause and, where there is one, the remedy.
    pub detail: String,
    /// Only with 422: name of the invalid field of the body, such as `policies[0].quota`.
    #[schema(nullable = false)]
    pub field: Option<String>,
    /// Only with 429: names of the policies without enough quota for a reservation; for `me`,
    /// `["self-service"]`.
    #[serde(rename = "violated-policies")]
    #[schema(nullable = false)]
    pub violated_policies: Option<Vec<String>>,
    /// Only with 429 of a reservation or `me`: seconds to wait, as in `Retry-After`.
    #[schema(nullable = false)]
    pub retry_after: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_problem_has_the_members_of_the_draft_and_the_contract() {
        let refusal =
            Problem::QuotaExceeded { violated: vec!["minute".to_owned(), "month".to_owned()], retry_after: 42 };
        assert_eq!(
            serde_json::from_str::<Value>(&refusal.body()).unwrap(),
            json!({
                "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "title": "Quota Exceeded",
                "status": 429,
                "detail": "no quota left in minute, month: try again in 42 s",
                "violated-policies": ["minute", "month"],
                "retry_after": 42,
            })
        );
        assert_eq!(refusal.retry_after(), Some(42));
    }

    #[test]
    fn every_401_has_www_authenticate() {
        for refusal in [
            Problem::NoCredential(String::new()),
            Problem::InvalidKey,
            Problem::NoAdminToken,
            Problem::InvalidAdminToken,
        ] {
            assert_eq!(refusal.status(), 401);
            assert_eq!(refusal.extra_header().unwrap().0, "WWW-Authenticate");
        }
    }

    #[test]
    fn an_internal_error_reveals_nothing() {
        assert_eq!(
            serde_json::from_str::<Value>(&Problem::Internal.body()).unwrap(),
            json!({"type": "about:blank", "title": "Internal Server Error", "status": 500, "detail": "internal error: the cause is in the log of the Worker"})
        );
    }
}
