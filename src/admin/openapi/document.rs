//! The whole document.

use crate::admin::openapi::operations::{self, Description};
use crate::admin::openapi::schemas::Schemas;
use crate::admin::tokens::Scope;
use crate::http::problem::ProblemBody;
use crate::router::{Admin, Operation, RESERVED};
use serde_json::{Map, Value, json};

const DESCRIPTION: &str = "Exact rate limits and monthly quotas for the keys of an API. These are tollgate's own endpoints; every \
other path is the origin's.\n\nWhat is wrong is told as a problem (RFC 9457). Bodies are JSON of at most 64 KiB; unknown fields and \
unknown query parameters are refused; a text parameter without a value is as one that is not there, a number must \
have one. Lists are pages. Times are RFC 3339 in UTC. `GET` answers `HEAD` too. A method that a path does not \
have is 405 with `Allow`; CORS preflights need no credential.";

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
            { "name": "admin", "description": "For the operator: `Authorization: Bearer` with `ADMIN_TOKEN` or a named token." },
            { "name": "holder", "description": "For the holder of a key, with the key." },
            { "name": "open", "description": "For everybody." },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas.0,
            "responses": ERRORS.iter().map(|error| (error.name.to_owned(), error.describe(&problem))).collect::<Map<_, _>>(),
            "headers": {
                "RateLimit": { "description": "What is left of each policy (draft-ietf-httpapi-ratelimit-headers-11), in the form that `RATELIMIT_FIELDS` says.", "schema": { "type": "string" } },
                "RateLimit-Policy": { "description": "The policies, in the same form.", "schema": { "type": "string" } },
            },
            "securitySchemes": {
                "adminToken": { "type": "http", "scheme": "bearer", "description": "`ADMIN_TOKEN`, or a named token `tga_…`." },
                "apiKey": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
                "bearerKey": { "type": "http", "scheme": "bearer", "description": "The API key. Exactly one of the two ways." },
            },
        },
    })
}

/// A problem that many endpoints share.
pub(super) struct ErrorResponse {
    pub(super) status: u16,
    name: &'static str,
    description: &'static str,
    /// A header that it always has.
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
        "The URL is not valid; a query parameter is unknown, repeated or not as it must be; or the body is no JSON object.",
    ),
    ErrorResponse::new(401, "Unauthorized", "The credential is missing or wrong."),
    ErrorResponse::new(
        403,
        "Forbidden",
        "The token's scopes do not reach so far, or the key is disabled, revoked or expired.",
    ),
    ErrorResponse::new(404, "NotFound", "Not found."),
    ErrorResponse::new(
        409,
        "Conflict",
        "The thing is not in a state that allows this, or somebody else is changing it.",
    ),
    ErrorResponse::new(413, "ContentTooLarge", "The body is too large."),
    ErrorResponse::new(
        422,
        "UnprocessableContent",
        "A field of the body is missing, unknown or not as it must be; `field` names it.",
    ),
    ErrorResponse::new(
        429,
        "TooManyRequests",
        "Too many wrong admin tokens from this address (10 a minute, 50 from an IPv6 /48), or too many requests for `me` with this key (30 at once, one a second), as one isolate sees them.",
    ),
    ErrorResponse::new(500, "InternalServerError", "A fault of tollgate's own."),
    ErrorResponse::new(503, "ServiceUnavailable", "A part that is needed is out of reach, or not set up."),
];

fn describe(described: &Description) -> Value {
    let endpoint = described.endpoint;
    let is_public = matches!(endpoint.operation, Operation::Public(_));
    let is_self_service = matches!(endpoint.operation, Operation::SelfServiceRoute(_));
    let mut errors = described.errors.to_vec();
    errors.push(400);
    if !is_public {
        errors.extend([401, 403, 429, 500, 503]);
        // A tier that is put need not be there.
        if endpoint.path.contains('{') && endpoint.operation != Admin::PutTier.into() {
            errors.push(404);
        }
        if described.body.is_some() {
            errors.push(413);
            // An import tells of each line what is wrong with it.
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
            ("holder", " Needs an API key that is in force.", json!([{ "apiKey": [] }, { "bearerKey": [] }]))
        }
        (Operation::Admin(_), scope) => {
            let needs = match scope {
                Some(Scope::Read) => " Needs the scope `read`.",
                Some(Scope::Write) => " Needs the scope `write`.",
                Some(Scope::Root) | None => " Needs `ADMIN_TOKEN` itself.",
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
            "id" => ("^[a-z2-7]{16}$", "The id."),
            _ => ("^[a-z0-9_-]{1,32}$", "The name."),
        };
        let schema = json!({ "type": "string", "pattern": pattern });
        json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
    };
    path.split('/').filter_map(|part| Some(parameter(part.strip_prefix('{')?.strip_suffix('}')?))).collect()
}
