//! What the admin API takes and gives: bodies, their validation, their JSON. No storage, no HTTP.

use crate::profile::Status;
use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};

/// The largest body that is read, in bytes: a name of 200 characters and a tier, with room for escapes.
pub const BODY_LIMIT: usize = 16 * 1024;
/// Characters of a key's name at most.
const NAME_LIMIT: usize = 200;

/// Body of `POST /_tollgate/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// The tier that the key gets.
    pub tier: String,
    /// A name for people.
    #[serde(default)]
    pub name: String,
}

impl CreateKey {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// 400 for what is no JSON object, 422 for a field that is missing, unknown, or not as it must be.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let value: serde_json::Value = serde_json::from_slice(body)
            .map_err(|error| Refusal::BadRequest(format!("the body is not JSON: {error}")))?;
        if !value.is_object() {
            return Err(Refusal::BadRequest("the body must be a JSON object".to_owned()));
        }
        let create: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            let field = match error.path().to_string().as_str() {
                "tier" => "tier",
                "name" => "name",
                _ => "body",
            };
            Refusal::Invalid(field, error.into_inner().to_string())
        })?;
        if create.tier.is_empty() {
            return Err(Refusal::Invalid("tier", "must not be empty".to_owned()));
        }
        if create.name.chars().count() > NAME_LIMIT || create.name.chars().any(char::is_control) {
            return Err(Refusal::Invalid(
                "name",
                format!("must be at most {NAME_LIMIT} characters, none of them control characters"),
            ));
        }
        Ok(create)
    }
}

/// A key as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyView {
    /// Its id.
    pub id: String,
    /// The key itself: only in the answer that creates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its tier.
    pub tier: String,
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: Status,
    /// When it was issued, RFC 3339.
    pub created_at: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_body() {
        let create = CreateKey::parse(br#"{"tier":"free","name":"K\u00e4thes Firma"}"#).unwrap();
        assert_eq!(create, CreateKey { tier: "free".to_owned(), name: "Käthes Firma".to_owned() });
        assert_eq!(CreateKey::parse(br#"{"tier":"free"}"#).unwrap().name, "");
    }

    #[test]
    fn a_bad_body_is_told_what_is_wrong() {
        let long = format!(r#"{{"tier":"free","name":"{}"}}"#, "x".repeat(201));
        for (body, status, word) in [
            ("", 400, "not JSON"),
            ("{", 400, "not JSON"),
            ("[]", 400, "JSON object"),
            (r#""free""#, 400, "JSON object"),
            ("{}", 422, "missing field `tier`"),
            (r#"{"tier":7}"#, 422, "tier: invalid type"),
            (r#"{"tier":""}"#, 422, "tier: "),
            (r#"{"tier":"free","name":null}"#, 422, "name: "),
            (r#"{"tier":"free","nam":"x"}"#, 422, "unknown field `nam`"),
            (r#"{"tier":"free","name":"a\nb"}"#, 422, "name: "),
            (long.as_str(), 422, "name: "),
        ] {
            let refusal = CreateKey::parse(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.status(), status, "{body}");
            assert!(refusal.body().contains(word), "{body}: {}", refusal.body());
        }
    }
}
