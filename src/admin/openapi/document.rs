//! Builds the document.

use crate::admin::openapi::operations::{self, Description};
use crate::admin::openapi::schemas::Schemas;
use crate::admin::usage::LIST_LIMITS;
use crate::http::problem::ProblemBody;
use crate::router::{Admin, Operation, RESERVED, Scope};
use serde_json::{Map, Value, json};

const DESCRIPTION: &str = "Exact rate limits and monthly quotas for the keys of an API. These are the endpoints of tollgate itself; \
requests to all other paths go to the origin.\n\n\
Errors are problems (RFC 9457). Request bodies are JSON objects of at most 64 KiB. Unknown fields and \
unknown query parameters are rejected. An empty text parameter is ignored; an empty number is an error. \
Lists are paged. Times are RFC 3339 in UTC. Paths with `GET` also support `HEAD`. An unsupported method is \
405 with `Allow`. CORS preflights need no credential.";

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    let problem = schemas.add::<ProblemBody>();
    let mut paths: Map<String, Value> = Map::new();
    for described in operations::all(&mut schemas) {
        let endpoint = described.endpoint;
        let path = format!("{RESERVED}{}", endpoint.path);
        let parameters = || json!({ "parameters": path_parameters(endpoint.path) });
        paths.entry(path).or_insert_with(parameters)[endpoint.method.to_lowercase()] = describe(&described);
    }
    schemas.limit(LIST_LIMITS);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tollgate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": [
            { "name": "admin", "description": "For operators, authenticated by `Authorization: Bearer` with `ADMIN_TOKEN` or a named token." },
            { "name": "holder", "description": "Self-service: for the owner of an API key, authenticated by that key." },
            { "name": "open", "description": "Public: no authentication." },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas.0,
            "responses": ERRORS.iter().map(|error| (error.name.to_owned(), error.describe(&problem))).collect::<Map<_, _>>(),
            "headers": {
                "RateLimit": { "description": "Remaining quota and time to reset of each policy (draft-ietf-httpapi-ratelimit-headers-11), in the format set by `RATELIMIT_FIELDS`.", "schema": { "type": "string" } },
                "RateLimit-Policy": { "description": "Quota and window of each policy, in the same format.", "schema": { "type": "string" } },
            },
            "securitySchemes": {
                "adminToken": { "type": "http", "scheme": "bearer", "description": "`ADMIN_TOKEN` or a named token (`tga_…`)." },
                "apiKey": { "type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The API key. Send it in one place only." },
                "bearerKey": { "type": "http", "scheme": "bearer", "description": "The API key. Send it in one place only." },
            },
        },
    })
}

/// An error response that many endpoints share.
pub(super) struct ErrorResponse {
    pub(super) status: u16,
    name: &'static str,
    description: &'static str,
    /// A header field that the response always has.
    pub(super) header: Option<&'static str>,
}

impl ErrorResponse {
    const fn new(status: u16, name: &'static str, description: &'static str) -> Self {
        let header = match status {
            401 => Some("WWW-Authenticate"),
            429 | 503 => Some("Retry-After"),
            _ => None,
        };
        Self { status, name, description, header }
    }

    fn describe(&self, problem: &Value) -> Value {
        let mut response = json!({
            "description": self.description,
            "content": { "application/problem+json": { "schema": problem } },
        });
        if let Some(header) = self.header {
            let number = json!({ "type": "integer", "minimum": 1 });
            let schema = if header == "Retry-After" { number } else { json!({ "type": "string" }) };
            response["headers"] = json!({ header: { "required": true, "schema": schema } });
        }
        response
    }
}

pub(super) const ERRORS: [ErrorResponse; 10] = [
    ErrorResponse::new(
        400,
        "BadRequest",
        "The URL is not valid; a query parameter is unknown, repeated or invalid; or the body is not a JSON object.",
    ),
    ErrorResponse::new(401, "Unauthorized", "The credential is missing or not valid."),
    ErrorResponse::new(
        403,
        "Forbidden",
        "The token lacks the required scope, or the API key is disabled, revoked or expired.",
    ),
    ErrorResponse::new(404, "NotFound", "Not found."),
    ErrorResponse::new(
        409,
        "Conflict",
        "The current state does not allow the request, or other requests changed it at the same time.",
    ),
    ErrorResponse::new(413, "ContentTooLarge", "The body is too large."),
    ErrorResponse::new(
        422,
        "UnprocessableContent",
        "A field of the body is missing, unknown or invalid; `field` names it.",
    ),
    ErrorResponse::new(
        429,
        "TooManyRequests",
        "Too many wrong admin tokens from this address (10 a minute; 50 from an IPv6 /48), or too many requests for `me` with this key (bursts of 30, then one a second); each isolate counts for itself. A reservation: a policy has not enough left, as for a call.",
    ),
    ErrorResponse::new(500, "InternalServerError", "Internal error of tollgate."),
    ErrorResponse::new(503, "ServiceUnavailable", "A required service is unavailable, or a setting is missing."),
];

fn describe(described: &Description) -> Value {
    let endpoint = described.endpoint;
    let is_public = matches!(endpoint.operation, Operation::Public(_));
    let is_self_service = matches!(endpoint.operation, Operation::SelfServiceRoute(_));
    let mut errors = described.errors.to_vec();
    errors.push(400);
    if !is_public {
        errors.extend([401, 403, 429, 500, 503]);
        // PUT creates a tier that does not exist.
        if endpoint.path.contains('{') && endpoint.operation != Admin::PutTier.into() {
            errors.push(404);
        }
        if described.body.is_some() {
            errors.push(413);
            // An import reports errors line by line.
            if endpoint.operation != Admin::ImportKeys.into() {
                errors.push(422);
            }
        }
    }
    let mut responses = Map::new();
    for (status, description, content) in &described.answers {
        let mut response = json!({ "description": description });
        if !content.is_null() {
            response["content"] = content.clone();
        }
        if is_self_service {
            let fields = ["RateLimit", "RateLimit-Policy"];
            let references =
                fields.map(|name| (name.to_owned(), json!({ "$ref": format!("#/components/headers/{name}") })));
            response["headers"] = Value::Object(references.into_iter().collect());
        }
        responses.insert(status.to_string(), response);
    }
    for error in ERRORS.iter().filter(|error| errors.contains(&error.status)) {
        let reference = json!({ "$ref": format!("#/components/responses/{}", error.name) });
        responses.insert(error.status.to_string(), reference);
    }
    let (tag, needs, security) = match (endpoint.operation, endpoint.scope) {
        (Operation::Public(_), _) => ("open", "", json!([])),
        (Operation::SelfServiceRoute(_), _) => {
            ("holder", " Requires an active API key.", json!([{ "apiKey": [] }, { "bearerKey": [] }]))
        }
        (Operation::Admin(_), scope) => {
            let needs = match scope {
                Some(Scope::Read) => " Requires the scope `read`.",
                Some(Scope::Write) => " Requires the scope `write`.",
                Some(Scope::Root) | None => " Requires `ADMIN_TOKEN`; named tokens are refused.",
            };
            ("admin", needs, json!([{ "adminToken": [] }]))
        }
    };
    let summary = described.summary;
    let mut operation = json!({
        "operationId": lower_camel(endpoint.name),
        "tags": [tag],
        "summary": summary,
        "description": format!("{summary}{needs}"),
        "security": security,
        "responses": responses,
    });
    if !described.parameters.is_empty() {
        operation["parameters"] = described.parameters.clone().into();
    }
    if let Some(body) = &described.body {
        operation["requestBody"] = body.clone();
    }
    operation
}

fn lower_camel(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect()
}

fn path_parameters(path: &str) -> Value {
    let parameter = |name: &str| {
        let (pattern, description) = match name {
            "id" => ("^[a-z2-7]{16}$", "Id of the key or token."),
            "reservation" => ("^[a-p][a-z2-7]{12}$", "Id of the reservation."),
            _ => ("^[a-z0-9_-]{1,32}$", "Name of the tier or policy."),
        };
        let schema = json!({ "type": "string", "pattern": pattern });
        json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
    };
    path.split('/').filter_map(|part| Some(parameter(part.strip_prefix('{')?.strip_suffix('}')?))).collect()
}
