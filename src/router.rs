//! Routes requests: the gate, or one of tollgate's own endpoints, whose table is here.

use serde::Serialize;

/// The prefix of tollgate's own endpoints.
pub const RESERVED: &str = "/_tollgate/";

/// Maximum size of a body in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// Maximum size of the body of an import, in bytes.
const IMPORT_LIMIT: usize = 16 * 1024 * 1024;
/// Maximum number of path parameters of an endpoint.
const CAPTURES: usize = 2;

/// The target of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Any path outside [`RESERVED`].
    Gate,
    /// A CORS preflight for one of tollgate's own endpoints.
    Preflight,
    /// One of tollgate's own endpoints.
    Endpoint(&'static Endpoint),
    /// The path exists, but not with this method. The accepted methods, as in `Allow`.
    MethodNotAllowed(String),
    /// No endpoint has the path.
    NotFound,
}

/// What a token may do. `read`: read everything except tokens. `write`: also change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub enum Scope {
    /// Read everything except tokens.
    Read,
    /// Read and change everything except tokens.
    Write,
    /// Manage tokens too: only `ADMIN_TOKEN`.
    #[serde(skip)]
    Root,
}

/// One of tollgate's own endpoints: a row of [`ENDPOINTS`].
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Endpoint {
    pub operation: Operation,
    /// `GET` accepts `HEAD` too.
    pub method: &'static str,
    /// Relative to [`RESERVED`]. A segment such as `{id}` is a path parameter.
    pub path: &'static str,
    /// The scope that the admin token needs. `None` if the endpoint needs no admin token.
    pub scope: Option<Scope>,
    /// The accepted query parameters.
    pub parameters: &'static [&'static str],
    /// Maximum size of a body in bytes. 0 if no body is read.
    pub body_limit: usize,
    /// The name of the operation in the API document, in upper camel case.
    #[cfg(not(target_arch = "wasm32"))]
    pub name: &'static str,
}

macro_rules! scope {
    (-) => {
        None
    };
    ($scope:ident) => {
        Some(Scope::$scope)
    };
}

/// Declares a type for each group of endpoints, [`Operation`] and [`ENDPOINTS`].
macro_rules! endpoints {
    ($(
        $(#[$about:meta])*
        $group:ident {
            $($operation:ident $method:ident $path:literal $scope:tt
                [$($parameter:literal),*] $(body $limit:expr)?;)*
        }
    )*) => {
        $(
            $(#[$about])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $group {
                $(
                    #[doc = concat!("`", stringify!($method), " /_tollgate/", $path, "`")]
                    $operation,
                )*
            }

            impl From<$group> for Operation {
                fn from(operation: $group) -> Self {
                    Self::$group(operation)
                }
            }
        )*

        /// The operation of an endpoint.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Operation {
            $(
                $(#[$about])*
                $group($group),
            )*
        }

        /// All of tollgate's own endpoints. If two paths match a request, the first one applies.
        /// Rows of one path are in the order of `Allow`.
        pub static ENDPOINTS: &[Endpoint] = &[
            $($(
                Endpoint {
                    operation: Operation::$group($group::$operation),
                    method: stringify!($method),
                    path: $path,
                    scope: scope!($scope),
                    parameters: &[$($parameter),*],
                    body_limit: 0 $(+ $limit)?,
                    #[cfg(not(target_arch = "wasm32"))]
                    name: stringify!($operation),
                },
            )*)*
        ];
    };
}

// operation, method, path, scope, query parameters, limit of the body
endpoints! {
    /// Public endpoints, without a credential.
    Public {
        Health          GET    "health"                         -      [];
        Openapi         GET    "openapi.json"                   -      [];
    }
    /// Self-service endpoints, authenticated by the API key.
    SelfServiceRoute {
        Me              GET    "me"                             -      [];
        MyUsage         GET    "me/usage"                       -      [];
    }
    /// Admin endpoints, authenticated by an admin token.
    Admin {
        ListKeys        GET    "keys"                           Read   ["limit", "cursor", "tier", "status", "owner", "q"];
        CreateKey       POST   "keys"                           Write  [] body BODY_LIMIT;
        // No key has the id `import`.
        ImportKeys      POST   "keys/import"                    Write  [] body IMPORT_LIMIT;
        ReadKey         GET    "keys/{id}"                      Read   [];
        ChangeKey       PATCH  "keys/{id}"                      Write  [] body BODY_LIMIT;
        DeleteKey       DELETE "keys/{id}"                      Write  [];
        RotateKey       POST   "keys/{id}/rotate"               Write  [] body BODY_LIMIT;
        RevokeKey       POST   "keys/{id}/revoke"               Write  [];
        ReadUsage       GET    "keys/{id}/usage"                Read   [];
        ReadAudit       GET    "keys/{id}/audit"                Read   ["limit", "cursor", "from", "to"];
        ReadHours       GET    "keys/{id}/hours"                Read   ["limit", "cursor", "from", "to"];
        ReadDays        GET    "keys/{id}/days"                 Read   ["limit", "cursor", "from", "to"];
        ReadHistory     GET    "keys/{id}/history"              Read   ["months"];
        Reconcile       GET    "keys/{id}/reconcile"            Read   [];
        ListOverrides   GET    "keys/{id}/overrides"            Read   ["limit", "cursor"];
        PutOverride     PUT    "keys/{id}/overrides/{policy}"   Write  [] body BODY_LIMIT;
        DeleteOverride  DELETE "keys/{id}/overrides/{policy}"   Write  [];
        ListReservations   GET    "keys/{id}/reservations"                        Read  [];
        CreateReservation  POST   "keys/{id}/reservations"                        Write [] body BODY_LIMIT;
        SettleReservation  POST   "keys/{id}/reservations/{reservation}/settle"   Write [] body BODY_LIMIT;
        ReleaseReservation DELETE "keys/{id}/reservations/{reservation}"          Write [];
        ListTiers       GET    "tiers"                          Read   ["limit", "cursor"];
        ReadTier        GET    "tiers/{name}"                   Read   [];
        PutTier         PUT    "tiers/{name}"                   Write  [] body BODY_LIMIT;
        DeleteTier      DELETE "tiers/{name}"                   Write  [];
        ListRouteCosts  GET    "route-costs"                    Read   ["limit", "cursor"];
        PutRouteCost    PUT    "route-costs"                    Write  [] body BODY_LIMIT;
        DeleteRouteCost DELETE "route-costs"                    Write  ["pattern", "method"];
        ListTokenRoutes  GET    "token-routes"                  Read   ["limit", "cursor"];
        PutTokenRoute    PUT    "token-routes"                  Write  [] body BODY_LIMIT;
        DeleteTokenRoute DELETE "token-routes"                  Write  ["pattern", "method"];
        ListTokens      GET    "tokens"                         Root   ["limit", "cursor"];
        CreateToken     POST   "tokens"                         Root   [] body BODY_LIMIT;
        DeleteToken     DELETE "tokens/{id}"                    Root   [];
        ReadLog         GET    "log"                            Read   ["limit", "cursor", "target", "actor"];
        Report          GET    "report"                         Read   ["limit", "cursor", "month"];
        ListAlerts      GET    "alerts"                         Read   ["limit", "cursor", "threshold"];
        ListDeliveries  GET    "alerts/deliveries"              Read   ["limit", "cursor", "state"];
        ListDrift       GET    "drift"                          Read   ["limit", "cursor"];
    }
}

impl Endpoint {
    /// The path parameters of `path`, as sent, in the order of the path. `None` if the path does
    /// not match.
    #[must_use]
    pub fn captures<'a>(&self, path: &'a str) -> Option<[&'a str; CAPTURES]> {
        captures(self.path, path.strip_prefix(RESERVED)?)
    }
}

fn captures<'a>(pattern: &str, path: &'a str) -> Option<[&'a str; CAPTURES]> {
    let mut captured = [""; CAPTURES];
    let mut free = captured.iter_mut();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        if expected.starts_with('{') {
            *free.next()? = segment;
        } else if expected != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(captured)
}

/// Finds the route of a method and path, both as sent.
#[must_use]
pub fn route(method: &str, path: &str, is_preflight: bool) -> Route {
    let Some(path) = path.strip_prefix(RESERVED) else { return Route::Gate };
    if is_preflight {
        return Route::Preflight;
    }
    let found = ENDPOINTS.iter().find(|endpoint| captures(endpoint.path, path).is_some());
    let Some(first) = found else { return Route::NotFound };
    let same_path = || ENDPOINTS.iter().filter(|endpoint| endpoint.path == first.path);
    // `HEAD` is `GET` without a body, which the runtime omits.
    let method = if method == "HEAD" { "GET" } else { method };
    if let Some(endpoint) = same_path().find(|endpoint| endpoint.method == method) {
        return Route::Endpoint(endpoint);
    }
    let mut allow = String::new();
    for endpoint in same_path() {
        if !allow.is_empty() {
            allow.push_str(", ");
        }
        allow.push_str(if endpoint.method == "GET" { "GET, HEAD" } else { endpoint.method });
    }
    Route::MethodNotAllowed(allow)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The operation and path parameters of a request, or its other route.
    fn found(method: &str, path: &str) -> Result<(Operation, [String; CAPTURES]), Route> {
        match route(method, path, false) {
            Route::Endpoint(endpoint) => Ok((endpoint.operation, endpoint.captures(path).unwrap().map(str::to_owned))),
            other => Err(other),
        }
    }

    #[test]
    fn routes() {
        fn at(operation: impl Into<Operation>, captured: &[&str]) -> (Operation, [String; CAPTURES]) {
            let mut captured = captured.iter().map(|text| (*text).to_owned());
            (operation.into(), std::array::from_fn(|_| captured.next().unwrap_or_default()))
        }
        let not_allowed = |allow: &str| Err(Route::MethodNotAllowed(allow.to_owned()));
        let id = "abcdefghij234567";
        let key = format!("/_tollgate/keys/{id}");
        let usage = format!("{key}/usage");
        let overrides = format!("{key}/overrides");
        let reservations = format!("{key}/reservations");
        for (method, path, expected) in [
            ("GET", "/", Err(Route::Gate)),
            ("GET", "/_tollgate", Err(Route::Gate)),
            ("GET", "/_Tollgate/health", Err(Route::Gate)),
            ("GET", "/x/_tollgate/health", Err(Route::Gate)),
            ("GET", "/%5ftollgate/health", Err(Route::Gate)),
            ("GET", "/_tollgate/health", Ok(at(Public::Health, &[]))),
            ("HEAD", "/_tollgate/health", Ok(at(Public::Health, &[]))),
            ("POST", "/_tollgate/health", not_allowed("GET, HEAD")),
            ("POST", "/_tollgate/keys", Ok(at(Admin::CreateKey, &[]))),
            ("GET", "/_tollgate/keys", Ok(at(Admin::ListKeys, &[]))),
            ("POST", "/_tollgate/keys/import", Ok(at(Admin::ImportKeys, &[]))),
            ("GET", "/_tollgate/keys/import", not_allowed("POST")),
            ("PUT", "/_tollgate/keys", not_allowed("GET, HEAD, POST")),
            ("GET", &key, Ok(at(Admin::ReadKey, &[id]))),
            ("HEAD", &key, Ok(at(Admin::ReadKey, &[id]))),
            ("PATCH", &key, Ok(at(Admin::ChangeKey, &[id]))),
            ("DELETE", &key, Ok(at(Admin::DeleteKey, &[id]))),
            ("PUT", &key, not_allowed("GET, HEAD, PATCH, DELETE")),
            ("POST", &format!("{key}/rotate"), Ok(at(Admin::RotateKey, &[id]))),
            ("POST", &format!("{key}/revoke"), Ok(at(Admin::RevokeKey, &[id]))),
            ("GET", &format!("{key}/revoke"), not_allowed("POST")),
            ("GET", &overrides, Ok(at(Admin::ListOverrides, &[id]))),
            ("PUT", &format!("{overrides}/minute"), Ok(at(Admin::PutOverride, &[id, "minute"]))),
            ("DELETE", &format!("{overrides}/minute"), Ok(at(Admin::DeleteOverride, &[id, "minute"]))),
            ("POST", &format!("{overrides}/minute"), not_allowed("PUT, DELETE")),
            ("GET", &format!("{overrides}/minute/x"), Err(Route::NotFound)),
            ("HEAD", &reservations, Ok(at(Admin::ListReservations, &[id]))),
            ("POST", &reservations, Ok(at(Admin::CreateReservation, &[id]))),
            ("DELETE", &reservations, not_allowed("GET, HEAD, POST")),
            ("POST", &format!("{reservations}/abc/settle"), Ok(at(Admin::SettleReservation, &[id, "abc"]))),
            ("DELETE", &format!("{reservations}/abc"), Ok(at(Admin::ReleaseReservation, &[id, "abc"]))),
            ("GET", &format!("{reservations}/abc"), not_allowed("DELETE")),
            ("GET", &format!("{reservations}/abc/settle"), not_allowed("POST")),
            ("POST", &format!("{reservations}/abc/settle/x"), Err(Route::NotFound)),
            ("GET", "/_tollgate/tiers", Ok(at(Admin::ListTiers, &[]))),
            ("PUT", "/_tollgate/tiers/free", Ok(at(Admin::PutTier, &["free"]))),
            ("GET", "/_tollgate/tiers/free/x", Err(Route::NotFound)),
            ("DELETE", "/_tollgate/tiers/free", Ok(at(Admin::DeleteTier, &["free"]))),
            ("POST", "/_tollgate/tiers/free", not_allowed("GET, HEAD, PUT, DELETE")),
            ("HEAD", "/_tollgate/route-costs", Ok(at(Admin::ListRouteCosts, &[]))),
            ("PUT", "/_tollgate/route-costs", Ok(at(Admin::PutRouteCost, &[]))),
            ("DELETE", "/_tollgate/route-costs", Ok(at(Admin::DeleteRouteCost, &[]))),
            ("POST", "/_tollgate/route-costs", not_allowed("GET, HEAD, PUT, DELETE")),
            ("GET", "/_tollgate/route-costs/x", Err(Route::NotFound)),
            ("HEAD", "/_tollgate/token-routes", Ok(at(Admin::ListTokenRoutes, &[]))),
            ("PUT", "/_tollgate/token-routes", Ok(at(Admin::PutTokenRoute, &[]))),
            ("DELETE", "/_tollgate/token-routes", Ok(at(Admin::DeleteTokenRoute, &[]))),
            ("POST", "/_tollgate/token-routes", not_allowed("GET, HEAD, PUT, DELETE")),
            ("POST", "/_tollgate/tokens", Ok(at(Admin::CreateToken, &[]))),
            ("GET", "/_tollgate/tokens", Ok(at(Admin::ListTokens, &[]))),
            ("DELETE", &format!("/_tollgate/tokens/{id}"), Ok(at(Admin::DeleteToken, &[id]))),
            ("GET", "/_tollgate/log", Ok(at(Admin::ReadLog, &[]))),
            ("POST", "/_tollgate/log", not_allowed("GET, HEAD")),
            ("GET", "/_tollgate/report", Ok(at(Admin::Report, &[]))),
            ("GET", "/_tollgate/report/x", Err(Route::NotFound)),
            ("GET", "/_tollgate/alerts", Ok(at(Admin::ListAlerts, &[]))),
            ("GET", "/_tollgate/alerts/deliveries", Ok(at(Admin::ListDeliveries, &[]))),
            ("GET", "/_tollgate/alerts/x", Err(Route::NotFound)),
            ("DELETE", "/_tollgate/drift", not_allowed("GET, HEAD")),
            ("GET", &format!("{key}/hours"), Ok(at(Admin::ReadHours, &[id]))),
            ("POST", &format!("{key}/days"), not_allowed("GET, HEAD")),
            ("HEAD", &format!("{key}/history"), Ok(at(Admin::ReadHistory, &[id]))),
            ("GET", &format!("{key}/reconcile"), Ok(at(Admin::Reconcile, &[id]))),
            ("GET", "/_tollgate/me", Ok(at(SelfServiceRoute::Me, &[]))),
            ("HEAD", "/_tollgate/me/usage", Ok(at(SelfServiceRoute::MyUsage, &[]))),
            ("POST", "/_tollgate/me", not_allowed("GET, HEAD")),
            ("GET", "/_tollgate/me/", Err(Route::NotFound)),
            ("GET", "/_tollgate/me/usage/x", Err(Route::NotFound)),
            ("GET", "/_tollgate/openapi.json", Ok(at(Public::Openapi, &[]))),
            ("POST", "/_tollgate/openapi.json", not_allowed("GET, HEAD")),
            ("GET", &usage, Ok(at(Admin::ReadUsage, &[id]))),
            ("POST", &usage, not_allowed("GET, HEAD")),
            ("GET", "/_tollgate/keys/NOT-AN-ID", Ok(at(Admin::ReadKey, &["NOT-AN-ID"]))),
            ("GET", "/_tollgate/", Err(Route::NotFound)),
            ("GET", "/_tollgate/health/", Err(Route::NotFound)),
            ("GET", &format!("{usage}/x"), Err(Route::NotFound)),
        ] {
            assert_eq!(found(method, path), expected, "{method} {path}");
        }
        assert_eq!(route("OPTIONS", "/_tollgate/keys", true), Route::Preflight);
        assert_eq!(route("OPTIONS", "/x", true), Route::Gate);
    }

    #[test]
    fn the_table_is_sound() {
        for (at, endpoint) in ENDPOINTS.iter().enumerate() {
            let Endpoint { method, path, .. } = endpoint;
            let sent = format!("{RESERVED}{}", path.replace(['{', '}'], ""));
            assert_eq!(route(method, &sent, false), Route::Endpoint(endpoint), "{method} {path}: another row is first");
            let is_admin = matches!(endpoint.operation, Operation::Admin(_));
            assert_eq!(endpoint.scope.is_some(), is_admin, "{method} {path}: only the admin API asks for a scope");
            let is_read = *method == "GET";
            assert!(!is_read || endpoint.body_limit == 0, "{method} {path}: GET has no body");
            assert!(endpoint.scope != Some(Scope::Read) || is_read, "{method} {path}: a change needs more than `read`");
            let twice = |other: &Endpoint| other.operation == endpoint.operation;
            assert!(!ENDPOINTS[..at].iter().any(twice), "{method} {path}: an operation has one row");
        }
    }
}
