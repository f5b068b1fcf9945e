//! CORS preflights, and requests that only resemble one.
//!
//! A preflight passes without a key, so it must not carry more than a browser sends: one serialised
//! origin, one method and a list of field names, without body or credentials (Fetch standard,
//! §4.8).

/// Maximum length of a method. The longest registered one has 17 characters.
const METHOD_LIMIT: usize = 64;

/// The method and header fields that a preflight requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreflightRequest {
    /// `Access-Control-Request-Method`.
    pub method: String,
    /// The field names of `Access-Control-Request-Headers`, separated by `, `.
    pub fields: String,
}

impl PreflightRequest {
    /// Reads the header fields of an `OPTIONS` request. `None` if it is not a preflight.
    #[must_use]
    pub fn read(origin: Option<&str>, method: Option<&str>, fields: Option<&str>) -> Option<Self> {
        let method = method.filter(|method| is_token(method) && method.len() <= METHOD_LIMIT)?;
        if !is_origin(origin?) {
            return None;
        }
        // `*` is a token too, but echoed in the response it would allow every field.
        let names = fields.unwrap_or_default().split(',').map(str::trim).filter(|name| is_token(name) && *name != "*");
        Some(Self { method: method.to_owned(), fields: names.collect::<Vec<_>>().join(", ") })
    }
}

/// Whether a header field of a preflight is forwarded. `name` must be in lower case.
#[must_use]
pub fn is_forwarded(name: &str) -> bool {
    matches!(name, "origin" | "user-agent") || name.starts_with("access-control-")
}

/// Whether `text` is a token (RFC 9110 §5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether `text` is a serialised origin: `null`, or scheme, host and optional port (RFC 6454
/// §6.2). A list of origins is not.
fn is_origin(text: &str) -> bool {
    if text == "null" {
        return true;
    }
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let is_host = |host: &str| match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| {
            address.contains(':') && address.bytes().all(|b| b.is_ascii_hexdigit() || b":.".contains(&b))
        }),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)),
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_scheme
        && (is_host(authority) || authority.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Option<&str> = Some("https://app.test");

    #[test]
    fn a_preflight_is_forwarded_with_nothing_else() {
        for name in ["origin", "user-agent", "access-control-request-method", "access-control-request-private-network"]
        {
            assert!(is_forwarded(name), "{name}");
        }
        for name in
            ["authorization", "cookie", "x-api-key", "x-origin", "origins", "access-control", "access_control_x", ""]
        {
            assert!(!is_forwarded(name), "{name}");
        }
    }

    #[test]
    fn a_preflight_has_one_origin_and_one_method() {
        for origin in [
            "null",
            "https://app.test",
            "https://app.test:8443",
            "http://localhost:3000",
            "http://192.0.2.1",
            "http://[2001:db8::1]",
            "http://[2001:db8::1]:8080",
            "https://xn--mnchen-3ya.test",
            "https://a_b.test",
            "chrome-extension://abcdefghijklmnop",
            "capacitor://localhost",
        ] {
            assert!(PreflightRequest::read(Some(origin), Some("PUT"), None).is_some(), "{origin}");
        }
        for origin in [
            "",
            " ",
            "NULL",
            "null, null",
            "app.test",
            "//app.test",
            "https:app.test",
            "https://",
            "https://:443",
            "https://app.test/",
            "https://app.test/a",
            "https://app.test?a",
            "https://app.test#a",
            "https://u@app.test",
            "https://u:p@app.test",
            "https://app.test:",
            "https://app.test:65536",
            "https://app.test:+80",
            "https://app.test:80:80",
            "https://[2001:db8::1",
            "https://2001:db8::1",
            "https://[::g]",
            "https://[]",
            "https://[2001:db8::1]x",
            "https://app.test https://other.test",
            "https://app.test, https://other.test",
            "https://münchen.test",
            "1https://app.test",
            "ht tp://app.test",
            "://app.test",
        ] {
            assert_eq!(PreflightRequest::read(Some(origin), Some("PUT"), None), None, "{origin}");
        }
        for method in ["GET", "post", "M-SEARCH", "x!#$%&'*+-.^_`|~"] {
            assert_eq!(PreflightRequest::read(ORIGIN, Some(method), None).map(|p| p.method).as_deref(), Some(method));
        }
        for method in ["", "A B", "A,B", "A, B", "A/B", "A:B", "\"A\"", "{}", "Ä", &"A".repeat(65)] {
            assert_eq!(PreflightRequest::read(ORIGIN, Some(method), None), None, "{method}");
        }
        assert_eq!(PreflightRequest::read(None, Some("GET"), None), None);
        assert_eq!(PreflightRequest::read(ORIGIN, None, None), None);
    }

    #[test]
    fn only_names_of_fields_are_requested() {
        for (asked, names) in [
            (None, ""),
            (Some(""), ""),
            (Some("authorization,x-own"), "authorization, x-own"),
            (Some(" a ,, b\t,c d, *,ä,x:y,d"), "a, b, d"),
        ] {
            assert_eq!(
                PreflightRequest::read(ORIGIN, Some("GET"), asked).map(|p| p.fields).as_deref(),
                Some(names),
                "{asked:?}"
            );
        }
    }
}
