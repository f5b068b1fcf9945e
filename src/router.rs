//! Which part of tollgate a request is for. Total, and blind to configuration and storage.

use crate::admin::tokens::Scope;

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
    /// `GET /_tollgate/openapi.json`
    OpenApi,
    /// What a key's holder may ask, with the key itself.
    SelfServiceRoute(SelfServiceRoute),
    /// The admin API, which needs its token.
    Admin(Admin<'a>),
    /// A known path with a method that it does not take; the methods that it does.
    MethodNotAllowed(&'static str),
    /// Nothing.
    NotFound,
}

/// What a key's holder asks about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelfServiceRoute {
    /// `GET /_tollgate/me`
    Me,
    /// `GET /_tollgate/me/usage`
    Usage,
}

/// What a request asks of the admin API. Parts of paths are as sent, whatever they look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin<'a> {
    /// `POST /_tollgate/keys`
    CreateKey,
    /// `POST /_tollgate/keys/import`
    ImportKeys,
    /// `GET /_tollgate/keys`
    ListKeys,
    /// `GET /_tollgate/keys/{id}`
    ReadKey(&'a str),
    /// `PATCH /_tollgate/keys/{id}`
    ChangeKey(&'a str),
    /// `DELETE /_tollgate/keys/{id}`
    DeleteKey(&'a str),
    /// `POST /_tollgate/keys/{id}/rotate`
    RotateKey(&'a str),
    /// `POST /_tollgate/keys/{id}/revoke`
    RevokeKey(&'a str),
    /// `GET /_tollgate/keys/{id}/usage`
    ReadUsage(&'a str),
    /// `GET /_tollgate/keys/{id}/audit`
    ReadAudit(&'a str),
    /// `GET /_tollgate/keys/{id}/overrides`
    ListOverrides(&'a str),
    /// `PUT /_tollgate/keys/{id}/overrides/{policy}`
    PutOverride(&'a str, &'a str),
    /// `DELETE /_tollgate/keys/{id}/overrides/{policy}`
    DeleteOverride(&'a str, &'a str),
    /// `GET /_tollgate/tiers`
    ListTiers,
    /// `GET /_tollgate/tiers/{name}`
    ReadTier(&'a str),
    /// `PUT /_tollgate/tiers/{name}`
    PutTier(&'a str),
    /// `DELETE /_tollgate/tiers/{name}`
    DeleteTier(&'a str),
    /// `GET /_tollgate/route-costs`
    ListRouteCosts,
    /// `PUT /_tollgate/route-costs`
    PutRouteCost,
    /// `DELETE /_tollgate/route-costs?pattern=&method=`
    DeleteRouteCost,
    /// `GET /_tollgate/tokens`
    ListTokens,
    /// `POST /_tollgate/tokens`
    CreateToken,
    /// `DELETE /_tollgate/tokens/{id}`
    DeleteToken(&'a str),
    /// `GET /_tollgate/log`
    ReadLog,
    /// `GET /_tollgate/keys/{id}/hours`
    ReadHours(&'a str),
    /// `GET /_tollgate/keys/{id}/days`
    ReadDays(&'a str),
    /// `GET /_tollgate/keys/{id}/history`
    ReadHistory(&'a str),
    /// `GET /_tollgate/keys/{id}/reconcile`
    Reconcile(&'a str),
    /// `GET /_tollgate/report`
    ReadReport,
    /// `GET /_tollgate/alerts`
    ListAlerts,
    /// `GET /_tollgate/alerts/deliveries`
    ListDeliveries,
    /// `GET /_tollgate/drift`
    ListDrift,
}

impl Admin<'_> {
    /// What a token must be allowed to do.
    #[must_use]
    pub const fn scope(self) -> Scope {
        match self {
            Self::ListTokens | Self::CreateToken | Self::DeleteToken(_) => Scope::Root,
            Self::ListKeys
            | Self::ReadKey(_)
            | Self::ReadUsage(_)
            | Self::ReadAudit(_)
            | Self::ListOverrides(_)
            | Self::ListTiers
            | Self::ReadTier(_)
            | Self::ListRouteCosts
            | Self::ReadLog
            | Self::ReadHours(_)
            | Self::ReadDays(_)
            | Self::ReadHistory(_)
            | Self::Reconcile(_)
            | Self::ReadReport
            | Self::ListAlerts
            | Self::ListDeliveries
            | Self::ListDrift => Scope::Read,
            Self::CreateKey
            | Self::ImportKeys
            | Self::ChangeKey(_)
            | Self::DeleteKey(_)
            | Self::RotateKey(_)
            | Self::RevokeKey(_)
            | Self::PutOverride(..)
            | Self::DeleteOverride(..)
            | Self::PutTier(_)
            | Self::DeleteTier(_)
            | Self::PutRouteCost
            | Self::DeleteRouteCost => Scope::Write,
        }
    }
}

impl Admin<'_> {
    /// The query parameters that it takes.
    #[must_use]
    pub const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::ListKeys => &["limit", "cursor", "tier", "status", "owner", "q"],
            Self::ReadAudit(_) | Self::ReadHours(_) | Self::ReadDays(_) => &["limit", "cursor", "from", "to"],
            Self::ReadLog => &["limit", "cursor", "target", "actor"],
            Self::ListOverrides(_) | Self::ListTiers | Self::ListRouteCosts | Self::ListTokens | Self::ListDrift => {
                &["limit", "cursor"]
            }
            Self::DeleteRouteCost => &["pattern", "method"],
            Self::ReadHistory(_) => &["months"],
            Self::ReadReport => &["limit", "cursor", "month"],
            Self::ListAlerts => &["limit", "cursor", "threshold"],
            Self::ListDeliveries => &["limit", "cursor", "state"],
            _ => &[],
        }
    }

    /// Whether it takes a body.
    #[must_use]
    pub const fn has_body(self) -> bool {
        matches!(
            self,
            Self::CreateKey
                | Self::ImportKeys
                | Self::ChangeKey(_)
                | Self::RotateKey(_)
                | Self::PutOverride(..)
                | Self::PutTier(_)
                | Self::PutRouteCost
                | Self::CreateToken
        )
    }
}

/// Finds the route of a method and a path, both as sent.
#[must_use]
pub fn route<'a>(method: &str, path: &'a str, is_preflight: bool) -> Route<'a> {
    let Some(rest) = path.strip_prefix(RESERVED) else { return Route::Gate };
    if is_preflight {
        return Route::Preflight;
    }
    // HEAD is GET without a body, which the runtime leaves out.
    let method = if method == "HEAD" { "GET" } else { method };
    let mut segments = rest.split('/');
    let path = (segments.next(), segments.next(), segments.next(), segments.next());
    if segments.next().is_some() {
        return Route::NotFound;
    }
    match path {
        (Some("health"), None, ..) => match method {
            "GET" => Route::Health,
            _ => Route::MethodNotAllowed("GET, HEAD"),
        },
        (Some("keys"), id, action, policy) => keys(method, id, action, policy),
        (Some("tiers"), None, ..) => match method {
            "GET" => Route::Admin(Admin::ListTiers),
            _ => Route::MethodNotAllowed("GET, HEAD"),
        },
        (Some("tiers"), Some(name), None, _) => match method {
            "GET" => Route::Admin(Admin::ReadTier(name)),
            "PUT" => Route::Admin(Admin::PutTier(name)),
            "DELETE" => Route::Admin(Admin::DeleteTier(name)),
            _ => Route::MethodNotAllowed("GET, HEAD, PUT, DELETE"),
        },
        (Some("route-costs"), None, ..) => match method {
            "GET" => Route::Admin(Admin::ListRouteCosts),
            "PUT" => Route::Admin(Admin::PutRouteCost),
            "DELETE" => Route::Admin(Admin::DeleteRouteCost),
            _ => Route::MethodNotAllowed("GET, HEAD, PUT, DELETE"),
        },
        (Some("tokens"), None, ..) => match method {
            "GET" => Route::Admin(Admin::ListTokens),
            "POST" => Route::Admin(Admin::CreateToken),
            _ => Route::MethodNotAllowed("GET, HEAD, POST"),
        },
        (Some("tokens"), Some(id), None, _) => match method {
            "DELETE" => Route::Admin(Admin::DeleteToken(id)),
            _ => Route::MethodNotAllowed("DELETE"),
        },
        (Some("log"), None, ..) => match method {
            "GET" => Route::Admin(Admin::ReadLog),
            _ => Route::MethodNotAllowed("GET, HEAD"),
        },
        (Some("report"), None, ..) => read(method, Admin::ReadReport),
        (Some("alerts"), None, ..) => read(method, Admin::ListAlerts),
        (Some("alerts"), Some("deliveries"), None, _) => read(method, Admin::ListDeliveries),
        (Some("drift"), None, ..) => read(method, Admin::ListDrift),
        (Some("me"), None, ..) => match method {
            "GET" => Route::SelfServiceRoute(SelfServiceRoute::Me),
            _ => Route::MethodNotAllowed("GET, HEAD"),
        },
        (Some("me"), Some("usage"), None, _) => match method {
            "GET" => Route::SelfServiceRoute(SelfServiceRoute::Usage),
            _ => Route::MethodNotAllowed("GET, HEAD"),
        },
        (Some("openapi.json"), None, ..) => match method {
            "GET" => Route::OpenApi,
            _ => Route::MethodNotAllowed("GET, HEAD"),
        },
        _ => Route::NotFound,
    }
}

/// What can only be read.
fn read<'a>(method: &str, admin: Admin<'a>) -> Route<'a> {
    if method == "GET" { Route::Admin(admin) } else { Route::MethodNotAllowed("GET, HEAD") }
}

fn keys<'a>(method: &str, id: Option<&'a str>, action: Option<&'a str>, policy: Option<&'a str>) -> Route<'a> {
    let Some(id) = id else {
        return match method {
            "GET" => Route::Admin(Admin::ListKeys),
            "POST" => Route::Admin(Admin::CreateKey),
            _ => Route::MethodNotAllowed("GET, HEAD, POST"),
        };
    };
    match (action, policy) {
        // No key has such an id.
        (None, _) if id == "import" => match method {
            "POST" => Route::Admin(Admin::ImportKeys),
            _ => Route::MethodNotAllowed("POST"),
        },
        (None, _) => match method {
            "GET" => Route::Admin(Admin::ReadKey(id)),
            "PATCH" => Route::Admin(Admin::ChangeKey(id)),
            "DELETE" => Route::Admin(Admin::DeleteKey(id)),
            _ => Route::MethodNotAllowed("GET, HEAD, PATCH, DELETE"),
        },
        (Some("audit"), None) => match method {
            "GET" => Route::Admin(Admin::ReadAudit(id)),
            _ => Route::MethodNotAllowed("GET, HEAD"),
        },
        (Some("usage"), None) => match method {
            "GET" => Route::Admin(Admin::ReadUsage(id)),
            _ => Route::MethodNotAllowed("GET, HEAD"),
        },
        (Some("hours"), None) => read(method, Admin::ReadHours(id)),
        (Some("days"), None) => read(method, Admin::ReadDays(id)),
        (Some("history"), None) => read(method, Admin::ReadHistory(id)),
        (Some("reconcile"), None) => read(method, Admin::Reconcile(id)),
        (Some("rotate"), None) => match method {
            "POST" => Route::Admin(Admin::RotateKey(id)),
            _ => Route::MethodNotAllowed("POST"),
        },
        (Some("revoke"), None) => match method {
            "POST" => Route::Admin(Admin::RevokeKey(id)),
            _ => Route::MethodNotAllowed("POST"),
        },
        (Some("overrides"), None) => match method {
            "GET" => Route::Admin(Admin::ListOverrides(id)),
            _ => Route::MethodNotAllowed("GET, HEAD"),
        },
        (Some("overrides"), Some(policy)) => match method {
            "PUT" => Route::Admin(Admin::PutOverride(id, policy)),
            "DELETE" => Route::Admin(Admin::DeleteOverride(id, policy)),
            _ => Route::MethodNotAllowed("PUT, DELETE"),
        },
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
        let overrides = format!("{key}/overrides");
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
            ("GET", "/_tollgate/keys", Route::Admin(Admin::ListKeys)),
            ("POST", "/_tollgate/keys/import", Route::Admin(Admin::ImportKeys)),
            ("GET", "/_tollgate/keys/import", Route::MethodNotAllowed("POST")),
            ("PUT", "/_tollgate/keys", Route::MethodNotAllowed("GET, HEAD, POST")),
            ("GET", &key, Route::Admin(Admin::ReadKey(id))),
            ("HEAD", &key, Route::Admin(Admin::ReadKey(id))),
            ("PATCH", &key, Route::Admin(Admin::ChangeKey(id))),
            ("DELETE", &key, Route::Admin(Admin::DeleteKey(id))),
            ("PUT", &key, Route::MethodNotAllowed("GET, HEAD, PATCH, DELETE")),
            ("POST", &format!("{key}/rotate"), Route::Admin(Admin::RotateKey(id))),
            ("POST", &format!("{key}/revoke"), Route::Admin(Admin::RevokeKey(id))),
            ("GET", &format!("{key}/revoke"), Route::MethodNotAllowed("POST")),
            ("GET", &overrides, Route::Admin(Admin::ListOverrides(id))),
            ("PUT", &format!("{overrides}/minute"), Route::Admin(Admin::PutOverride(id, "minute"))),
            ("DELETE", &format!("{overrides}/minute"), Route::Admin(Admin::DeleteOverride(id, "minute"))),
            ("POST", &format!("{overrides}/minute"), Route::MethodNotAllowed("PUT, DELETE")),
            ("GET", &format!("{overrides}/minute/x"), Route::NotFound),
            ("GET", "/_tollgate/tiers", Route::Admin(Admin::ListTiers)),
            ("PUT", "/_tollgate/tiers/free", Route::Admin(Admin::PutTier("free"))),
            ("GET", "/_tollgate/tiers/free/x", Route::NotFound),
            ("DELETE", "/_tollgate/tiers/free", Route::Admin(Admin::DeleteTier("free"))),
            ("POST", "/_tollgate/tiers/free", Route::MethodNotAllowed("GET, HEAD, PUT, DELETE")),
            ("HEAD", "/_tollgate/route-costs", Route::Admin(Admin::ListRouteCosts)),
            ("PUT", "/_tollgate/route-costs", Route::Admin(Admin::PutRouteCost)),
            ("DELETE", "/_tollgate/route-costs", Route::Admin(Admin::DeleteRouteCost)),
            ("POST", "/_tollgate/route-costs", Route::MethodNotAllowed("GET, HEAD, PUT, DELETE")),
            ("GET", "/_tollgate/route-costs/x", Route::NotFound),
            ("POST", "/_tollgate/tokens", Route::Admin(Admin::CreateToken)),
            ("GET", "/_tollgate/tokens", Route::Admin(Admin::ListTokens)),
            ("DELETE", &format!("/_tollgate/tokens/{id}"), Route::Admin(Admin::DeleteToken(id))),
            ("GET", "/_tollgate/log", Route::Admin(Admin::ReadLog)),
            ("POST", "/_tollgate/log", Route::MethodNotAllowed("GET, HEAD")),
            ("GET", "/_tollgate/report", Route::Admin(Admin::ReadReport)),
            ("GET", "/_tollgate/report/x", Route::NotFound),
            ("GET", "/_tollgate/alerts", Route::Admin(Admin::ListAlerts)),
            ("GET", "/_tollgate/alerts/deliveries", Route::Admin(Admin::ListDeliveries)),
            ("GET", "/_tollgate/alerts/x", Route::NotFound),
            ("DELETE", "/_tollgate/drift", Route::MethodNotAllowed("GET, HEAD")),
            ("GET", &format!("{key}/hours"), Route::Admin(Admin::ReadHours(id))),
            ("POST", &format!("{key}/days"), Route::MethodNotAllowed("GET, HEAD")),
            ("HEAD", &format!("{key}/history"), Route::Admin(Admin::ReadHistory(id))),
            ("GET", &format!("{key}/reconcile"), Route::Admin(Admin::Reconcile(id))),
            ("GET", "/_tollgate/me", Route::SelfServiceRoute(SelfServiceRoute::Me)),
            ("HEAD", "/_tollgate/me/usage", Route::SelfServiceRoute(SelfServiceRoute::Usage)),
            ("POST", "/_tollgate/me", Route::MethodNotAllowed("GET, HEAD")),
            ("GET", "/_tollgate/me/", Route::NotFound),
            ("GET", "/_tollgate/me/usage/x", Route::NotFound),
            ("GET", "/_tollgate/openapi.json", Route::OpenApi),
            ("POST", "/_tollgate/openapi.json", Route::MethodNotAllowed("GET, HEAD")),
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
