//! The document of the API, [OpenAPI 3.1](https://spec.openapis.org/oas/v3.1.1). Native only: the Worker gives what is checked in as
//! `src/admin/openapi/openapi.json`, which a test holds against this; `TOLLGATE_WRITE_OPENAPI=1 cargo test openapi` writes it anew.

#![expect(clippy::indexing_slicing, reason = "of JSON objects that are made right here, in no part of the Worker")]

mod operations;
pub mod types;

use crate::admin::openapi::operations::{Access, Operation};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// The schemas that are referred to.
#[derive(Debug, Default)]
struct Schemas(Map<String, Value>);

impl Schemas {
    /// Adds a type and all that it is made of. Gives a reference to it.
    fn add<T: ToSchema>(&mut self) -> Value {
        let mut all = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut all);
        for (name, schema) in all {
            self.0.entry(name).or_insert_with(|| simplified(serde_json::to_value(schema).unwrap_or_default()));
        }
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }
}

/// A schema that says the same in the way that generators of clients understand: a choice of one is that one, and an object of
/// unnamed properties says so.
fn simplified(schema: Value) -> Value {
    match schema {
        Value::Array(all) => all.into_iter().map(simplified).collect(),
        Value::Object(members) => {
            let mut members: Map<String, Value> =
                members.into_iter().map(|(name, it)| (name, simplified(it))).collect();
            let only = match members.get("oneOf").and_then(Value::as_array).map(Vec::as_slice) {
                Some([Value::Object(only)]) => Some(only.clone()),
                _ => None,
            };
            if let Some(only) = only {
                members.remove("oneOf");
                members.extend(only);
            }
            let is_object = match members.get("type") {
                Some(Value::Array(types)) => types.contains(&"object".into()),
                Some(kind) => kind == "object",
                None => false,
            };
            if is_object && !members.contains_key("properties") {
                members.entry("additionalProperties").or_insert(true.into());
            }
            Value::Object(members)
        }
        other => other,
    }
}

const DESCRIPTION: &str = "Exact rate limits and monthly quotas for the keys of an API. These are tollgate's own endpoints; every \
other path is the origin's.\n\nWhat is wrong is told as a problem (RFC 9457). Bodies are JSON of at most 64 KiB; unknown fields and \
unknown query parameters are refused; a text parameter without a value is as one that is not there, a number must \
have one. Lists are pages. Times are RFC 3339 in UTC. `GET` answers `HEAD` too. A method that a path does not \
have is 405 with `Allow`; CORS preflights need no credential.";

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    let problem = schemas.add::<types::Problem>();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations::all(&mut schemas) {
        let path =
            paths.entry(operation.path).or_insert_with(|| json!({ "parameters": path_parameters(operation.path) }));
        path[operation.method.to_lowercase()] = describe(&operation);
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
struct Error {
    status: u16,
    name: &'static str,
    description: &'static str,
    /// A header that it always has.
    header: Option<&'static str>,
}

impl Error {
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

const ERRORS: [Error; 10] = [
    Error::new(
        400,
        "BadRequest",
        "The URL is not valid; a query parameter is unknown, repeated or not as it must be; or the body is no JSON object.",
    ),
    Error::new(401, "Unauthorized", "The credential is missing or wrong."),
    Error::new(403, "Forbidden", "The token's scopes do not reach so far, or the key is disabled, revoked or expired."),
    Error::new(404, "NotFound", "There is no such thing."),
    Error::new(409, "Conflict", "The thing is not in a state that allows this, or somebody else is changing it."),
    Error::new(413, "ContentTooLarge", "The body is too large."),
    Error::new(
        422,
        "UnprocessableContent",
        "A field of the body is missing, unknown or not as it must be; `field` names it.",
    ),
    Error::new(
        429,
        "TooManyRequests",
        "Too many wrong admin tokens from this address (10 a minute, 50 from an IPv6 /48), or too many requests for `me` with this key (30 at once, one a second), as one isolate sees them.",
    ),
    Error::new(500, "InternalServerError", "A fault of tollgate's own."),
    Error::new(503, "ServiceUnavailable", "A part that is needed is out of reach, or not set up."),
];

fn describe(operation: &Operation) -> Value {
    let is_holders = operation.access == Access::SelfServiceRoute;
    let mut errors = operation.errors.to_vec();
    errors.push(400);
    if operation.access != Access::Open {
        errors.extend([401, 403, 429, 500, 503]);
        if operation.path.contains('{') && operation.id != "putTier" {
            errors.push(404);
        }
        if operation.body.is_some() {
            errors.push(413);
            if operation.id != "importKeys" {
                errors.push(422);
            }
        }
    }
    let mut responses = Map::new();
    for (status, description, content) in &operation.answers {
        let mut response = json!({ "description": description });
        if !content.is_null() {
            response["content"] = content.clone();
        }
        if is_holders {
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
    let (tag, needs) = match operation.access {
        Access::Open => ("open", ""),
        Access::SelfServiceRoute => ("holder", " Needs an API key that is in force."),
        Access::Read => ("admin", " Needs the scope `read`."),
        Access::Write => ("admin", " Needs the scope `write`."),
        Access::Root => ("admin", " Needs `ADMIN_TOKEN` itself."),
    };
    let security = match operation.access {
        Access::Open => json!([]),
        Access::SelfServiceRoute => json!([{ "apiKey": [] }, { "bearerKey": [] }]),
        _ => json!([{ "adminToken": [] }]),
    };
    let mut described = json!({
        "operationId": operation.id,
        "tags": [tag],
        "summary": operation.summary,
        "description": format!("{}{needs}", operation.summary),
        "security": security,
        "responses": responses,
    });
    if !operation.parameters.is_empty() {
        described["parameters"] = operation.parameters.clone().into();
    }
    if let Some(body) = &operation.body {
        described["requestBody"] = body.clone();
    }
    described
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

#[cfg(test)]
mod tests;
