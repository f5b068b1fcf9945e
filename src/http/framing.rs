//! Requests that the runtime would forward differently than they were judged.

/// Why a request cannot be forwarded unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// `fetch` rejects a body with these methods.
    #[error("a GET or HEAD request has no body: send it without one, or with another method")]
    Body,
    /// `fetch` turns any request with `Upgrade: websocket` into a `GET`, whose cost may differ.
    #[error("a WebSocket is opened with GET: send the request without Upgrade")]
    Upgrade,
}

/// Checks a request. `body` is its `Content-Length` if it has a body, empty if the body is chunked.
///
/// # Errors
/// See [`FramingError`].
pub fn check(method: &str, body: Option<&str>, upgrade: Option<&str>) -> Result<(), FramingError> {
    // workerd treats `Content-Length: 0` as a body. Such a body can be dropped.
    let is_empty = |length: &str| length.parse() == Ok(0_u64);
    if matches!(method, "GET" | "HEAD") && body.is_some_and(|length| !is_empty(length)) {
        return Err(FramingError::Body);
    }
    if method != "GET" && upgrade.is_some_and(|protocols| protocols.to_ascii_lowercase().contains("websocket")) {
        return Err(FramingError::Upgrade);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_goes_with_the_methods_that_have_one() {
        for method in ["GET", "HEAD"] {
            for body in [None, Some("0"), Some("00")] {
                assert_eq!(check(method, body, None), Ok(()), "{method} {body:?}");
            }
            for body in ["", "1", "5, 5", "x", "18446744073709551616"] {
                assert_eq!(check(method, Some(body), None), Err(FramingError::Body), "{method} {body}");
            }
        }
        for method in ["POST", "DELETE", "OPTIONS", "PROPFIND"] {
            assert_eq!(check(method, Some("5"), None), Ok(()), "{method}");
        }
    }

    #[test]
    fn a_websocket_is_opened_with_get() {
        for upgrade in ["websocket", "WebSocket", "h2c, websocket"] {
            assert_eq!(check("GET", None, Some(upgrade)), Ok(()));
            for method in ["POST", "HEAD", "OPTIONS", "get"] {
                assert_eq!(check(method, None, Some(upgrade)), Err(FramingError::Upgrade), "{method} {upgrade}");
            }
        }
        assert_eq!(check("POST", Some(""), Some("h2c")), Ok(()));
    }
}
