//! Configuration: all variables, their defaults, and their validation.
//!
//! An invalid value never falls back to a default. The Worker then answers 503 to every request
//! except its health check, and logs the name of the variable.

use crate::gateway::ratelimit_headers::{Forms, RateLimitFields};
use crate::http::target::Target;
use crate::keys::key::Signer;
use crate::keys::route_pattern::RouteCase;
use std::ops::RangeInclusive;
use std::rc::Rc;

/// How to handle a call when the key's object is unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailMode {
    /// Refuse it with 503, so that no call passes uncounted.
    Closed,
    /// Forward it with a mark, and count it later if possible.
    Open,
}

/// How to handle CORS preflights, which carry no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preflight {
    /// Forward them to the origin, without a body and with the fields of a preflight only.
    Forward,
    /// Answer them at the gate.
    Answer,
}

/// The default of `TOKEN_BODY_BYTES`: 1 MiB.
const TOKEN_BODY_BYTES: usize = 1 << 20;
/// An isolate has 128 MB for all its requests.
const TOKEN_BODY_RANGE: RangeInclusive<usize> = 1..=8 << 20;

/// The settings of a deployment.
#[derive(Clone)]
#[allow(missing_docs)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags")]
pub struct Config {
    /// The base URL of the origin, without a trailing slash. `None` forwards requests to their own
    /// URL.
    pub origin: Option<String>,
    /// Exact paths that need no key.
    pub public_paths: Vec<String>,
    pub fail_mode: FailMode,
    pub preflight: Preflight,
    pub ratelimit_fields: RateLimitFields,
    /// Whether `?api_key=` is accepted as a credential.
    pub allow_query_key: bool,
    /// Whether imported keys are accepted.
    pub allow_imported_keys: bool,
    /// Whether `X-RateLimit-*` and `X-Monthly-Remaining` are sent.
    pub legacy_headers: bool,
    /// Maximum time in seconds for which an isolate denies calls by itself. 0 disables this.
    pub deny_cache_seconds: u64,
    /// Maximum length in bytes of a body that is read to count its tokens.
    pub token_body_bytes: usize,
    /// Whether a call that asks for more tokens than are left gets a smaller cap.
    pub token_clamp: bool,
    /// `Access-Control-Allow-Origin` of tollgate's own responses.
    pub cors_allow_origin: Rc<str>,
    /// `None` without `KEY_SECRET`: no key can be issued or verified.
    pub signer: Option<Signer>,
    /// `None` without `ADMIN_TOKEN`: the admin API answers 503.
    pub admin_token: Option<String>,
    /// Sent to the origin as `X-Tollgate-Origin-Secret`, if set.
    pub origin_secret: Option<String>,
}

/// A variable has an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct ConfigError {
    /// The name of the variable.
    pub name: &'static str,
    /// What the value must be.
    pub reason: String,
}

fn wrong(name: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError { name, reason: reason.into() }
}

impl Config {
    /// Reads the configuration. `lookup` returns the value of a variable or secret by name.
    ///
    /// # Errors
    /// Names the first invalid variable.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = |name| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let previous = text("KEY_SECRET_PREVIOUS").unwrap_or_default();
        // Objects read these settings themselves, but only a Worker can report that they are
        // invalid.
        alert_thresholds(&lookup)?;
        webhook(&lookup)?;
        route_case(&lookup)?;
        Ok(Self {
            origin: text("ORIGIN").map(|value| origin(&value)).transpose()?,
            public_paths: public_paths(&text("PUBLIC_PATHS").unwrap_or_default())?,
            fail_mode: match text("FAIL_MODE").as_deref() {
                None | Some("closed") => FailMode::Closed,
                Some("open") => FailMode::Open,
                Some(_) => return Err(wrong("FAIL_MODE", "must be `closed` or `open`")),
            },
            preflight: match text("PREFLIGHT").as_deref() {
                None | Some("forward") => Preflight::Forward,
                Some("answer") => Preflight::Answer,
                Some(_) => return Err(wrong("PREFLIGHT", "must be `forward` or `answer`")),
            },
            ratelimit_fields: match text("RATELIMIT_FIELDS").as_deref() {
                None | Some("draft-11") => RateLimitFields::Draft11,
                Some("draft-7") => RateLimitFields::Draft7,
                Some("none") => RateLimitFields::None,
                Some(_) => return Err(wrong("RATELIMIT_FIELDS", "must be `draft-11`, `draft-7` or `none`")),
            },
            allow_query_key: flag("ALLOW_QUERY_KEY", text("ALLOW_QUERY_KEY").as_deref(), false)?,
            allow_imported_keys: flag("ALLOW_IMPORTED_KEYS", text("ALLOW_IMPORTED_KEYS").as_deref(), true)?,
            legacy_headers: flag("LEGACY_HEADERS", text("LEGACY_HEADERS").as_deref(), true)?,
            deny_cache_seconds: seconds("DENY_CACHE_SECONDS", text("DENY_CACHE_SECONDS"), 10, 0..=3600)?,
            token_body_bytes: token_body_bytes(text("TOKEN_BODY_BYTES").as_deref())?,
            token_clamp: flag("TOKEN_CLAMP", text("TOKEN_CLAMP").as_deref(), false)?,
            cors_allow_origin: cors_origin(text("CORS_ALLOW_ORIGIN").as_deref().unwrap_or("*"))?,
            signer: text("KEY_SECRET").and_then(|current| Signer::new(&current, previous.split(',').map(str::trim))),
            admin_token: text("ADMIN_TOKEN"),
            origin_secret: text("ORIGIN_SECRET").map(|value| origin_secret(&value)).transpose()?,
        })
    }

    /// The forms of the rate-limit fields.
    #[must_use]
    pub const fn forms(&self) -> Forms {
        Forms { standard: self.ratelimit_fields, legacy: self.legacy_headers }
    }

    /// Whether `path`, as sent, needs no key.
    #[must_use]
    pub fn is_public(&self, path: &str) -> bool {
        self.public_paths.iter().any(|public| public == path)
    }
}

/// Reads `FLUSH_SECONDS`, a setting of objects: the maximum time in seconds from the first
/// unflushed call to its flush.
///
/// # Errors
/// If the value is not a whole number from 1 to 86,400.
pub fn flush_seconds(lookup: impl Fn(&str) -> Option<String>) -> Result<u64, ConfigError> {
    seconds("FLUSH_SECONDS", lookup("FLUSH_SECONDS").filter(|value| !value.trim().is_empty()), 60, 1..=86_400)
}

/// Reads `ALERT_THRESHOLDS`: the percentages of a monthly quota at which alerts are raised, in
/// ascending order.
///
/// # Errors
/// If the value is not a list of up to 8 whole numbers from 1 to 1000.
pub fn alert_thresholds(lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<u16>, ConfigError> {
    let name = "ALERT_THRESHOLDS";
    let list = lookup(name).filter(|list| !list.trim().is_empty()).unwrap_or_else(|| "80,100".to_owned());
    let mut thresholds = Vec::new();
    for percent in list.split(',') {
        match percent.trim().parse() {
            Ok(percent) if (1..=1000).contains(&percent) => thresholds.push(percent),
            _ => return Err(wrong(name, "must be whole percentages from 1 to 1000, such as `80,100`")),
        }
    }
    thresholds.sort_unstable();
    thresholds.dedup();
    if thresholds.len() > 8 {
        return Err(wrong(name, "must be at most 8 percentages"));
    }
    Ok(thresholds)
}

/// Reads `ROUTE_CASE`, a setting of objects: how routes are compared when a call is priced.
///
/// # Errors
/// If the value is neither `sensitive` nor `insensitive`.
pub fn route_case(lookup: impl Fn(&str) -> Option<String>) -> Result<RouteCase, ConfigError> {
    match lookup("ROUTE_CASE").as_deref().map(str::trim) {
        None | Some("" | "sensitive") => Ok(RouteCase::Sensitive),
        Some("insensitive") => Ok(RouteCase::Insensitive),
        Some(_) => Err(wrong("ROUTE_CASE", "must be `sensitive` or `insensitive`")),
    }
}

/// Checks that the secret survives as a header field's value unchanged.
fn origin_secret(value: &str) -> Result<String, ConfigError> {
    if value.len() >= 16 && value.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(value.to_owned())
    } else {
        Err(wrong("ORIGIN_SECRET", "must be at least 16 characters of visible ASCII without spaces"))
    }
}

/// The receiver of alerts.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The URL to post them to.
    pub url: String,
    /// The secret that signs them.
    pub secret: String,
}

/// Reads `ALERT_WEBHOOK_URL` and `ALERT_WEBHOOK_SECRET`. `None` if no URL is set.
///
/// # Errors
/// If the URL is invalid, or if it has no secret.
pub fn webhook(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Webhook>, ConfigError> {
    let text = |name| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let Some(url) = text("ALERT_WEBHOOK_URL") else { return Ok(None) };
    if Target::parse(&url).is_err() || url.contains(|c: char| c == '#' || c.is_whitespace()) {
        return Err(wrong("ALERT_WEBHOOK_URL", "must be an absolute http(s) URL without user and fragment"));
    }
    match text("ALERT_WEBHOOK_SECRET") {
        Some(secret) => Ok(Some(Webhook { url, secret })),
        None => Err(wrong("ALERT_WEBHOOK_SECRET", "must be set, since ALERT_WEBHOOK_URL is")),
    }
}

fn flag(name: &'static str, value: Option<&str>, default: bool) -> Result<bool, ConfigError> {
    match value {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(wrong(name, "must be `true` or `false`")),
    }
}

fn token_body_bytes(value: Option<&str>) -> Result<usize, ConfigError> {
    let Some(value) = value else { return Ok(TOKEN_BODY_BYTES) };
    let bytes = value.parse().ok().filter(|bytes| TOKEN_BODY_RANGE.contains(bytes));
    bytes.ok_or_else(|| {
        let (least, most) = (TOKEN_BODY_RANGE.start(), TOKEN_BODY_RANGE.end());
        wrong("TOKEN_BODY_BYTES", format!("must be a whole number from {least} to {most}"))
    })
}

fn seconds(
    name: &'static str,
    value: Option<String>,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, ConfigError> {
    let Some(value) = value else { return Ok(default) };
    match value.trim().parse() {
        Ok(seconds) if range.contains(&seconds) => Ok(seconds),
        _ => Err(wrong(name, format!("must be a whole number from {} to {}", range.start(), range.end()))),
    }
}

/// Reads an absolute URL with at most a path. A query or userinfo would be sent to the origin with
/// every request.
fn origin(value: &str) -> Result<String, ConfigError> {
    let reason = "must be an absolute http(s) URL without user, query, fragment or dot segments";
    match Target::parse(value) {
        Ok(target) if target.query.is_none() && !value.contains(char::is_whitespace) => {
            Ok(value.trim_end_matches('/').to_owned())
        }
        _ => Err(wrong("ORIGIN", reason)),
    }
}

fn public_paths(value: &str) -> Result<Vec<String>, ConfigError> {
    let paths = value.split(',').map(str::trim).filter(|path| !path.is_empty());
    paths
        .map(|path| match Target::parse(&format!("http://host{path}")) {
            Ok(target) if path.starts_with('/') && target.path == path => Ok(path.to_owned()),
            _ => Err(wrong("PUBLIC_PATHS", format!("`{path}` is not an exact path such as /health"))),
        })
        .collect()
}

fn cors_origin(value: &str) -> Result<Rc<str>, ConfigError> {
    if value.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(Rc::from(value))
    } else {
        Err(wrong("CORS_ALLOW_ORIGIN", "must be `*` or one origin"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn defaults() {
        let config = read(&[("ORIGIN", ""), ("PUBLIC_PATHS", " ")]).unwrap();
        assert_eq!(config.origin, None);
        assert!(config.public_paths.is_empty());
        assert_eq!(config.fail_mode, FailMode::Closed);
        assert!(!config.allow_query_key);
        assert!(config.legacy_headers);
        assert!(config.allow_imported_keys);
        assert_eq!(config.deny_cache_seconds, 10);
        assert_eq!((config.token_body_bytes, config.token_clamp), (1_048_576, false));
        assert_eq!(&*config.cors_allow_origin, "*");
        assert!(config.signer.is_none());
        assert!(config.admin_token.is_none() && config.origin_secret.is_none());
        assert_eq!((config.preflight, config.ratelimit_fields), (Preflight::Forward, RateLimitFields::Draft11));
        assert_eq!(route_case(|_| None), Ok(RouteCase::Sensitive));
        assert_eq!(flush_seconds(|_| None), Ok(60));
    }

    #[test]
    fn values() {
        let config = read(&[
            ("ORIGIN", "https://origin.example:8443/base/"),
            ("PUBLIC_PATHS", "/health, /a%20b,/"),
            ("FAIL_MODE", "open"),
            ("ALLOW_QUERY_KEY", "true"),
            ("ALLOW_IMPORTED_KEYS", "false"),
            ("LEGACY_HEADERS", "false"),
            ("DENY_CACHE_SECONDS", "0"),
            ("TOKEN_BODY_BYTES", "8388608"),
            ("TOKEN_CLAMP", "true"),
            ("KEY_SECRET", "s"),
            ("ADMIN_TOKEN", "t"),
            ("ORIGIN_SECRET", "sixteen-or-more!"),
            ("PREFLIGHT", "answer"),
            ("RATELIMIT_FIELDS", "draft-7"),
        ])
        .unwrap();
        assert_eq!(config.origin.as_deref(), Some("https://origin.example:8443/base"));
        assert!(["/health", "/a%20b", "/"].iter().all(|path| config.is_public(path)));
        assert!(!["/health/", "/Health", "/a b", "/%68ealth", "//"].iter().any(|path| config.is_public(path)));
        assert_eq!(config.fail_mode, FailMode::Open);
        assert!(config.allow_query_key && !config.legacy_headers && !config.allow_imported_keys);
        assert_eq!(config.deny_cache_seconds, 0);
        assert_eq!((config.token_body_bytes, config.token_clamp), (8_388_608, true));
        assert!(config.signer.is_some() && config.admin_token.is_some());
        assert_eq!(config.origin_secret.as_deref(), Some("sixteen-or-more!"));
        assert_eq!((config.preflight, config.ratelimit_fields), (Preflight::Answer, RateLimitFields::Draft7));
        assert_eq!(route_case(|_| Some(" insensitive".to_owned())), Ok(RouteCase::Insensitive));
        assert_eq!(flush_seconds(|_| Some("2".to_owned())), Ok(2));
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (name, value) in [
            ("ORIGIN", "origin.example"),
            ("ORIGIN", "ftp://origin.example"),
            ("ORIGIN", "https://user:password@origin.example"),
            ("ORIGIN", "https://origin.example/?x"),
            ("ORIGIN", "https://origin.example/a/../b"),
            ("PUBLIC_PATHS", "health"),
            ("PUBLIC_PATHS", "/ok,/a/../b"),
            ("PUBLIC_PATHS", "/a?b"),
            ("FAIL_MODE", "Open"),
            ("ALLOW_QUERY_KEY", "1"),
            ("ALLOW_IMPORTED_KEYS", "yes"),
            ("LEGACY_HEADERS", "yes"),
            ("DENY_CACHE_SECONDS", "-1"),
            ("DENY_CACHE_SECONDS", "1.5"),
            ("DENY_CACHE_SECONDS", "3601"),
            ("TOKEN_BODY_BYTES", "0"),
            ("TOKEN_BODY_BYTES", "8388609"),
            ("TOKEN_BODY_BYTES", "1 MiB"),
            ("TOKEN_CLAMP", "yes"),
            ("CORS_ALLOW_ORIGIN", "a b"),
            ("PREFLIGHT", "deny"),
            ("ROUTE_CASE", "lower"),
            ("RATELIMIT_FIELDS", "draft-6"),
            ("ORIGIN_SECRET", "fifteen-letters"),
            ("ORIGIN_SECRET", "with a space in the middle"),
            ("ALERT_THRESHOLDS", "0"),
            ("ALERT_THRESHOLDS", "80,1001"),
            ("ALERT_THRESHOLDS", "80,"),
            ("ALERT_THRESHOLDS", "0.8"),
            ("ALERT_THRESHOLDS", "1,2,3,4,5,6,7,8,9"),
            ("ALERT_WEBHOOK_URL", "hooks.example"),
            ("ALERT_WEBHOOK_URL", "https://user:password@hooks.example/"),
        ] {
            assert_eq!(read(&[(name, value)]).err().map(|e| e.name), Some(name), "{name}={value}");
        }
        let url = ("ALERT_WEBHOOK_URL", "https://hooks.example/a?b=c");
        assert_eq!(read(&[url]).err().map(|e| e.name), Some("ALERT_WEBHOOK_SECRET"));
        assert!(read(&[url, ("ALERT_WEBHOOK_SECRET", "s")]).is_ok());
        assert_eq!(alert_thresholds(|_| None), Ok(vec![80, 100]));
        assert_eq!(alert_thresholds(|_| Some("100, 50,100".to_owned())), Ok(vec![50, 100]));
        for value in ["0", "x", "86401"] {
            assert!(flush_seconds(|_| Some(value.to_owned())).is_err());
        }
    }
}
