//! Which part of tollgate a request is for. Total, and blind to configuration and storage.

/// The prefix of tollgate's own endpoints.
pub const RESERVED: &str = "/_tollgate/";

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// Everything outside [`RESERVED`].
    Gate,
    /// `GET /_tollgate/health`
    Health,
    /// A CORS preflight for one of tollgate's own endpoints.
    Preflight,
    /// The admin API, which needs its token.
    Admin(Admin<'a>),
    /// A known path with a method that it does not take; the methods that it does.
    MethodNotAllowed(&'static str),
    /// Nothing.
    NotFound,
}

/// What a request asks of the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin<'a> {
    /// `POST /_tollgate/keys`
    CreateKey,
    /// `GET /_tollgate/keys/{id}`, whatever the id looks like.
    ReadKey(&'a str),
    /// `GET /_tollgate/keys/{id}/usage`
    ReadUsage(&'a str),
}

/// Finds the route of a method and a path, both as sent.
#[must_use]
pub fn route<'a>(method: &str, path: &'a str, is_preflight: bool) -> Route<'a> {
    let Some(rest) = path.strip_prefix(RESERVED) else { return Route::Gate };
    if is_preflight {
        return Route::Preflight;
    }
    let reads = matches!(method, "GET" | "HEAD");
    let read = |route| if reads { route } else { Route::MethodNotAllowed("GET, HEAD") };
    let mut segments = rest.split('/');
    match (segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some("health"), None, ..) => read(Route::Health),
        (Some("keys"), None, ..) if method == "POST" => Route::Admin(Admin::CreateKey),
        (Some("keys"), None, ..) => Route::MethodNotAllowed("POST"),
        (Some("keys"), Some(id), None, _) => read(Route::Admin(Admin::ReadKey(id))),
        (Some("keys"), Some(id), Some("usage"), None) => read(Route::Admin(Admin::ReadUsage(id))),
        _ => Route::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let id = "abcdefghij234567";
        let key = format!("/_tollgate/keys/{id}");
        let usage = format!("{key}/usage");
        for (method, path, expected) in [
            ("GET", "/", Route::Gate),
            ("GET", "/_tollgate", Route::Gate),
            ("GET", "/_Tollgate/health", Route::Gate),
            ("GET", "/x/_tollgate/health", Route::Gate),
            ("GET", "/%5ftollgate/health", Route::Gate),
            ("GET", "/_tollgate/health", Route::Health),
            ("HEAD", "/_tollgate/health", Route::Health),
            ("POST", "/_tollgate/health", Route::MethodNotAllowed("GET, HEAD")),
            ("POST", "/_tollgate/keys", Route::Admin(Admin::CreateKey)),
            ("PUT", "/_tollgate/keys", Route::MethodNotAllowed("POST")),
            ("GET", &key, Route::Admin(Admin::ReadKey(id))),
            ("GET", &usage, Route::Admin(Admin::ReadUsage(id))),
            ("POST", &usage, Route::MethodNotAllowed("GET, HEAD")),
            ("GET", "/_tollgate/keys/NOT-AN-ID", Route::Admin(Admin::ReadKey("NOT-AN-ID"))),
            ("GET", "/_tollgate/", Route::NotFound),
            ("GET", "/_tollgate/health/", Route::NotFound),
            ("GET", &format!("{usage}/x"), Route::NotFound),
        ] {
            assert_eq!(route(method, path, false), expected, "{method} {path}");
        }
        assert_eq!(route("OPTIONS", "/_tollgate/keys", true), Route::Preflight);
        assert_eq!(route("OPTIONS", "/x", true), Route::Gate);
    }
}
