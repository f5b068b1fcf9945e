//! Named admin tokens: request bodies and responses.

use crate::admin::body::{FromFields, JsonFields, Limits};
use crate::http::problem::Problem;
use crate::router::Scope;
use serde::Serialize;

/// The name of `ADMIN_TOKEN` in the admin log. No named token can have it.
pub const ROOT: &str = "root";
/// The longest name of a token, in characters.
const NAME_LIMIT: usize = 100;
/// The longest list of scopes, repeated ones included.
const SCOPES_LIMIT: usize = 16;

/// The body that creates a token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"name": "ci", "scopes": ["read"]})))]
pub struct CreateToken {
    /// Unique name, shown as `actor` in the admin log. Not `root`.
    #[cfg_attr(not(target_arch = "wasm32"), schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub name: String,
    /// At least one scope. `write` includes `read`.
    pub scopes: Vec<Scope>,
}

impl FromFields for CreateToken {
    const LIMITS: Limits = &[
        ("name", "minLength", 1),
        ("name", "maxLength", NAME_LIMIT as u64),
        ("scopes", "minItems", 1),
        ("scopes", "maxItems", SCOPES_LIMIT as u64),
    ];

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let name = fields.text("name")?;
        let name = fields.required("name", name)?;
        if !(1..=NAME_LIMIT).contains(&name.chars().count()) || name == ROOT {
            return Err(fields.wrong("name", format!("must be 1 to {NAME_LIMIT} characters, and not {ROOT}")));
        }
        let given = fields.list("scopes", SCOPES_LIMIT)?;
        let given = fields.required("scopes", given)?;
        for (at, scope) in given.iter().enumerate() {
            if scope != "read" && scope != "write" {
                return Err(fields.wrong(&format!("scopes[{at}]"), "must be read or write"));
            }
        }
        let has = |word: &str| given.iter().any(|scope| scope == word);
        let all = [("read", Scope::Read), ("write", Scope::Write)];
        let scopes: Vec<Scope> = all.into_iter().filter(|(word, _)| has(word)).map(|(_, scope)| scope).collect();
        if scopes.is_empty() {
            return Err(fields.wrong("scopes", "must name read, write or both"));
        }
        Ok(Self { name, scopes })
    }
}

/// An admin token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(as = Token))]
pub struct TokenView {
    /// Id of the token.
    pub id: String,
    /// The token itself, only in the response that creates it.
    #[cfg_attr(not(target_arch = "wasm32"), schema(ignore))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Name, shown as `actor` in the admin log.
    pub name: String,
    /// What the token may do.
    pub scopes: Vec<Scope>,
    /// Last four characters of the token.
    pub hint: String,
    /// Time at which the token was created.
    #[cfg_attr(not(target_arch = "wasm32"), schema(format = DateTime))]
    pub created_at: String,
}

/// An admin token with its secret.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = IssuedToken)]
pub struct IssuedTokenView {
    #[expect(missing_docs, reason = "a part of the same object")]
    #[serde(flatten)]
    pub view: TokenView,
    /// The token to send as `Authorization: Bearer`. Shown only in this response: store it.
    pub token: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::body::parse;

    #[test]
    fn bodies() {
        let create: CreateToken = parse(br#"{"name":"ci","scopes":["write","read"]}"#).unwrap();
        assert_eq!(create.scopes, [Scope::Read, Scope::Write]);
        for (body, field) in [
            (r#"{"scopes":["read"]}"#, "name"),
            (r#"{"name":"","scopes":["read"]}"#, "name"),
            (r#"{"name":"root","scopes":["read"]}"#, "name"),
            (r#"{"name":"a\tb","scopes":["read"]}"#, "name"),
            (r#"{"name":"ci"}"#, "scopes"),
            (r#"{"name":"ci","scopes":[]}"#, "scopes"),
            (r#"{"name":"ci","scopes":"read"}"#, "scopes"),
            (r#"{"name":"ci","scopes":["read","root"]}"#, "scopes[1]"),
        ] {
            let refusal = parse::<CreateToken>(body.as_bytes()).unwrap_err();
            match refusal {
                Problem::Invalid(named, _) => assert_eq!(named, field, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_scope_includes_the_lower_ones() {
        assert!(Scope::Root > Scope::Write && Scope::Write > Scope::Read);
    }
}
