//! API keys: request bodies, the row in D1, and responses.

use crate::admin::body::{FromFields, JsonFields, Limits, TEXT_LIMIT};
use crate::http::problem::Problem;
use crate::keys::key::IssuedKey;
use crate::keys::profile::Status;
use crate::time::{UnixMicros, rfc3339};
use serde::Serialize;
use serde_json::{Map, Value};

/// The largest metadata, in bytes of compact JSON.
const METADATA_LIMIT: usize = 4096;
/// The longest time for which a replaced secret stays valid, in seconds: 30 days.
const GRACE_LIMIT: u64 = 30 * 86_400;

/// The operator's own data about a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Metadata(pub Map<String, Value>);

impl Metadata {
    /// Compact JSON.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    fn read(fields: &mut JsonFields) -> Result<Option<Self>, Problem> {
        let metadata = fields.object("metadata")?.map(Self);
        if metadata.as_ref().is_some_and(|metadata| metadata.to_text().len() > METADATA_LIMIT) {
            return Err(fields.wrong("metadata", format!("must be at most {METADATA_LIMIT} bytes as compact JSON")));
        }
        Ok(metadata)
    }
}

/// The body that creates a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"tier": "free", "name": "first", "owner": "customer-7", "metadata": {"plan": "trial"}, "expires_at": null})))]
pub struct CreateKey {
    /// Name of an existing tier.
    #[cfg_attr(not(target_arch = "wasm32"), schema(pattern = "^[a-z0-9_-]{1,32}$"))]
    pub tier: String,
    /// Display name. Default: empty.
    #[cfg_attr(
        not(target_arch = "wasm32"),
        schema(required = false, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")
    )]
    pub name: String,
    /// Owner of the key in your own terms, such as a customer id. Default: empty.
    #[cfg_attr(
        not(target_arch = "wasm32"),
        schema(required = false, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")
    )]
    pub owner: String,
    /// Any JSON object of at most 4096 bytes in compact form. Default: `{}`.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false, value_type = Object))]
    pub metadata: Metadata,
    /// Time from which the key is refused: RFC 3339 with any offset, years 1970 to 9999. `null`
    /// (the default): the key does not expire.
    // Milliseconds since the Unix epoch.
    #[cfg_attr(not(target_arch = "wasm32"), schema(value_type = Option<String>, format = DateTime))]
    pub expires_at: Option<u64>,
}

impl FromFields for CreateKey {
    const LIMITS: Limits = &[("name", "maxLength", TEXT_LIMIT as u64), ("owner", "maxLength", TEXT_LIMIT as u64)];

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let tier = fields.string("tier")?;
        Ok(Self {
            tier: fields.required("tier", tier)?,
            name: fields.text("name")?.unwrap_or_default(),
            owner: fields.text("owner")?.unwrap_or_default(),
            metadata: Metadata::read(fields)?.unwrap_or_default(),
            expires_at: if fields.is_null("expires_at") { None } else { fields.time("expires_at")? },
        })
    }
}

impl CreateKey {
    /// The row of a new key.
    #[must_use]
    pub fn into_row(self, issued: &IssuedKey, now: UnixMicros) -> KeyRow {
        KeyRow {
            id: issued.id.clone(),
            tier: self.tier,
            name: self.name,
            owner: self.owner,
            status: Status::Active,
            hint: issued.hint.clone(),
            metadata: self.metadata,
            created_at: rfc3339(now),
            expires_at: self.expires_at,
            secret_hash: issued.secret_hash.clone(),
            previous_hash: None,
            previous_until: None,
        }
    }
}

/// The body that changes a key. A field that is left out keeps its value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"tier": "pro", "status": "active", "expires_at": "2031-01-01T00:00:00Z"})))]
pub struct ChangeKey {
    /// Name of an existing tier. Usage carries over to the new limits.
    #[cfg_attr(not(target_arch = "wasm32"), schema(nullable = false, pattern = "^[a-z0-9_-]{1,32}$"))]
    pub tier: Option<String>,
    /// Display name.
    #[cfg_attr(
        not(target_arch = "wasm32"),
        schema(nullable = false, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")
    )]
    pub name: Option<String>,
    /// Owner of the key in your own terms, such as a customer id.
    #[cfg_attr(
        not(target_arch = "wasm32"),
        schema(nullable = false, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")
    )]
    pub owner: Option<String>,
    /// Any JSON object of at most 4096 bytes in compact form. Replaces the whole object.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false, value_type = Object))]
    pub metadata: Option<Metadata>,
    /// See [`Switch`].
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false, value_type = Switch, inline))]
    pub status: Option<Switch>,
    /// Time from which the key is refused: RFC 3339 with any offset, years 1970 to 9999. `null`:
    /// the key does not expire.
    // Milliseconds since the Unix epoch.
    #[cfg_attr(not(target_arch = "wasm32"), schema(value_type = Option<String>, format = DateTime))]
    pub expires_at: Option<Option<u64>>,
}

/// `disabled`: calls are refused with 403 until the key is `active` again. The status of a revoked
/// key cannot be changed: 409.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(rename_all = "lowercase"))]
pub enum Switch {
    /// Calls are admitted.
    Active,
    /// Calls are refused.
    Disabled,
}

impl From<Switch> for Status {
    fn from(switch: Switch) -> Self {
        match switch {
            Switch::Active => Self::Active,
            Switch::Disabled => Self::Disabled,
        }
    }
}

impl FromFields for ChangeKey {
    const LIMITS: Limits = CreateKey::LIMITS;

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let status = match fields.string("status")?.as_deref() {
            None => None,
            Some("active") => Some(Switch::Active),
            Some("disabled") => Some(Switch::Disabled),
            Some(_) => {
                return Err(fields.wrong("status", "must be active or disabled; to revoke a key, use POST .../revoke"));
            }
        };
        Ok(Self {
            tier: fields.string("tier")?,
            name: fields.text("name")?,
            owner: fields.text("owner")?,
            metadata: Metadata::read(fields)?,
            status,
            expires_at: if fields.is_null("expires_at") { Some(None) } else { fields.time("expires_at")?.map(Some) },
        })
    }
}

impl ChangeKey {
    /// Applies the change to a row.
    ///
    /// # Errors
    /// 409 for a new status of a revoked key.
    pub fn apply(&self, row: &mut KeyRow) -> Result<(), Problem> {
        if let Some(status) = self.status {
            if row.status == Status::Revoked {
                return Err(revoked());
            }
            row.status = status.into();
        }
        let set = |field: &mut String, new: Option<&String>| {
            if let Some(new) = new {
                field.clone_from(new);
            }
        };
        set(&mut row.tier, self.tier.as_ref());
        set(&mut row.name, self.name.as_ref());
        set(&mut row.owner, self.owner.as_ref());
        if let Some(metadata) = &self.metadata {
            row.metadata = metadata.clone();
        }
        if let Some(expires_at) = self.expires_at {
            row.expires_at = expires_at;
        }
        Ok(())
    }
}

fn revoked() -> Problem {
    Problem::Conflict("the key is revoked, which cannot be undone: create a new key".to_owned())
}

/// The body that rotates a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"grace_seconds": 86400})))]
pub struct RotateKey {
    /// Seconds for which the old secret stays valid: 0 (it is refused at once) to 2592000 (30
    /// days).
    pub grace_seconds: u64,
}

impl FromFields for RotateKey {
    const LIMITS: Limits = &[("grace_seconds", "maximum", GRACE_LIMIT)];

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let grace_seconds = fields.number_to("grace_seconds", GRACE_LIMIT)?;
        Ok(Self { grace_seconds: fields.required("grace_seconds", grace_seconds)? })
    }
}

impl RotateKey {
    /// Replaces the secret of a row.
    ///
    /// # Errors
    /// 409 for a revoked key.
    pub fn apply(self, row: &mut KeyRow, issued: &IssuedKey, now: UnixMicros) -> Result<(), Problem> {
        if row.status == Status::Revoked {
            return Err(revoked());
        }
        let old = std::mem::replace(&mut row.secret_hash, issued.secret_hash.clone());
        let until = now.as_millis().saturating_add(self.grace_seconds.saturating_mul(1000));
        let has_grace = self.grace_seconds > 0;
        row.previous_hash = has_grace.then_some(old);
        row.previous_until = has_grace.then_some(until);
        row.hint.clone_from(&issued.hint);
        Ok(())
    }
}

/// A row of `keys`. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the columns")]
pub struct KeyRow {
    pub id: String,
    pub tier: String,
    pub name: String,
    pub owner: String,
    /// As stored: never [`Status::Expired`], which follows from `expires_at`.
    pub status: Status,
    /// The last four characters of the key.
    pub hint: String,
    pub metadata: Metadata,
    /// RFC 3339.
    pub created_at: String,
    pub expires_at: Option<u64>,
    pub secret_hash: String,
    /// Hash of the secret that a rotation replaced.
    pub previous_hash: Option<String>,
    /// Time until which the previous secret is valid.
    pub previous_until: Option<u64>,
}

impl FromFields for KeyRow {
    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let mut string = |name: &str| fields.string(name).map(Option::unwrap_or_default);
        let (id, tier, name, owner) = (string("id")?, string("tier")?, string("name")?, string("owner")?);
        let (hint, created_at, secret_hash) = (string("hint")?, string("created_at")?, string("secret_hash")?);
        let status = match string("status")?.as_str() {
            "active" => Status::Active,
            "disabled" => Status::Disabled,
            "revoked" => Status::Revoked,
            _ => return Err(fields.wrong("status", "must be active, disabled or revoked")),
        };
        Ok(Self {
            id,
            tier,
            name,
            owner,
            status,
            hint,
            metadata: Metadata(fields.object("metadata")?.unwrap_or_default()),
            created_at,
            expires_at: if fields.is_null("expires_at") { None } else { fields.number("expires_at")? },
            secret_hash,
            previous_hash: if fields.is_null("previous_hash") { None } else { fields.string("previous_hash")? },
            previous_until: if fields.is_null("previous_until") { None } else { fields.number("previous_until")? },
        })
    }
}

impl KeyRow {
    /// The response body at `now`. `key` is set only in the response that issues the key.
    #[must_use]
    pub fn view(self, key: Option<String>, now: UnixMicros) -> KeyView {
        let expires_at = self.expires_at.map(UnixMicros::from_millis);
        KeyView {
            status: self.status.at(expires_at, now),
            id: self.id,
            key,
            tier: self.tier,
            name: self.name,
            owner: self.owner,
            hint: self.hint,
            metadata: self.metadata,
            created_at: self.created_at,
            expires_at: expires_at.map(rfc3339),
        }
    }
}

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(as = Key))]
pub struct KeyView {
    /// Id of the key.
    #[cfg_attr(not(target_arch = "wasm32"), schema(pattern = "^[a-z2-7]{16}$"))]
    pub id: String,
    /// The key itself, only in the response that issues it.
    #[cfg_attr(not(target_arch = "wasm32"), schema(ignore))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Name of the key's tier.
    pub tier: String,
    /// Display name; may be empty.
    pub name: String,
    /// Owner of the key in the operator's own terms; may be empty.
    pub owner: String,
    /// Whether the key may be used now.
    pub status: Status,
    /// Last four characters of the key.
    pub hint: String,
    /// The operator's own data about the key.
    #[cfg_attr(not(target_arch = "wasm32"), schema(value_type = Object))]
    pub metadata: Metadata,
    /// Time at which the key was issued.
    #[cfg_attr(not(target_arch = "wasm32"), schema(format = DateTime))]
    pub created_at: String,
    /// Time from which the key is refused; `null` if it does not expire.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true, format = DateTime))]
    pub expires_at: Option<String>,
}

/// An API key with its secret.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = IssuedKey)]
pub struct IssuedKeyView {
    #[expect(missing_docs, reason = "a part of the same object")]
    #[serde(flatten)]
    pub view: KeyView,
    /// The key to send with each call. Shown only in this response: store it.
    pub key: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::body::{parse, read_row};

    fn row() -> KeyRow {
        let issued = IssuedKey {
            id: "abc".to_owned(),
            key: "tg_abc".to_owned(),
            secret_hash: "one".to_owned(),
            hint: "wxyz".to_owned(),
        };
        let create: CreateKey = parse(br#"{"tier":"free","name":"n","owner":"o","metadata":{"b":1,"a":[]}}"#).unwrap();
        create.into_row(&issued, UnixMicros::from_millis(5))
    }

    fn change(body: &str, row: &mut KeyRow) -> Result<(), Problem> {
        parse::<ChangeKey>(body.as_bytes())?.apply(row)
    }

    #[test]
    fn a_good_body() {
        let create: CreateKey = parse(br#"{"tier":"free","name":"K\u00e4thes Firma"}"#).unwrap();
        assert_eq!((create.tier.as_str(), create.name.as_str()), ("free", "Käthes Firma"));
        assert_eq!(parse::<CreateKey>(br#"{"tier":"free","expires_at":null}"#).unwrap().expires_at, None);
    }

    #[test]
    fn the_error_of_a_bad_body_names_the_field() {
        let long = format!(r#"{{"tier":"free","name":"{}"}}"#, "x".repeat(201));
        let heavy = format!(r#"{{"tier":"free","metadata":{{"a":"{}"}}}}"#, "x".repeat(4089));
        for (body, status, word, field) in [
            ("", 400, "not JSON", ""),
            ("{", 400, "not JSON", ""),
            ("[]", 400, "JSON object", ""),
            (r#""free""#, 400, "JSON object", ""),
            ("{}", 422, "tier: is missing", "tier"),
            (r#"{"tier":7}"#, 422, "tier: must be a string", "tier"),
            (r#"{"tier":"free","name":null}"#, 422, "name: ", "name"),
            (r#"{"tier":"free","nam":"x"}"#, 422, "nam: unknown field", "nam"),
            (r#"{"tier":"free","name":"a\nb"}"#, 422, "name: ", "name"),
            (r#"{"tier":"free","owner":"a\nb"}"#, 422, "owner: ", "owner"),
            (r#"{"tier":"free","metadata":[]}"#, 422, "metadata: ", "metadata"),
            (r#"{"tier":"free","metadata":null}"#, 422, "metadata: ", "metadata"),
            (r#"{"tier":"free","expires_at":"tomorrow"}"#, 422, "RFC 3339", "expires_at"),
            (r#"{"tier":"free","expires_at":7}"#, 422, "expires_at: ", "expires_at"),
            (long.as_str(), 422, "name: ", "name"),
            (heavy.as_str(), 422, "4096 bytes", "metadata"),
        ] {
            let refusal = parse::<CreateKey>(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.status(), status, "{body}");
            assert!(refusal.body().contains(word), "{body}: {}", refusal.body());
            if let Problem::Invalid(named, _) = refusal {
                assert_eq!(named, field, "{body}");
            }
        }
        assert!(parse::<CreateKey>(heavy.replacen('x', "", 1).as_bytes()).is_ok());
    }

    #[test]
    fn a_change_changes_what_it_names() {
        let mut changed = row();
        change("{}", &mut changed).unwrap();
        assert_eq!(changed, row());
        change(r#"{"name":"","tier":"pro","metadata":{},"expires_at":"2031-03-12T13:00:00.5+01:00"}"#, &mut changed)
            .unwrap();
        assert_eq!((changed.name.as_str(), changed.tier.as_str(), changed.owner.as_str()), ("", "pro", "o"));
        let view = changed.clone().view(None, UnixMicros::default());
        assert_eq!(view.expires_at.as_deref(), Some("2031-03-12T12:00:00.500Z"));
        change(r#"{"expires_at":null,"status":"disabled"}"#, &mut changed).unwrap();
        assert_eq!((changed.expires_at, changed.status), (None, Status::Disabled));
        for (body, field) in [
            (r#"{"status":"revoked"}"#, "status"),
            (r#"{"status":"expired"}"#, "status"),
            (r#"{"status":null}"#, "status"),
            (r#"{"name":null}"#, "name"),
            (r#"{"id":"x"}"#, "id"),
        ] {
            match change(body, &mut changed) {
                Err(Problem::Invalid(named, _)) => assert_eq!(named, field),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_row_is_read_as_d1_gives_it() {
        let text = r#"{"id":"a","tier":"free","name":"n","owner":"o","status":"disabled","hint":"h","metadata":{"a":1},
            "created_at":"c","expires_at":5,"secret_hash":"s","previous_hash":null,"previous_until":null}"#;
        let row: KeyRow = read_row(text).unwrap();
        assert_eq!((row.status, row.expires_at, row.previous_hash.as_deref()), (Status::Disabled, Some(5), None));
        assert_eq!(row.metadata.to_text(), r#"{"a":1}"#);
        assert!(read_row::<KeyRow>(&text.replace("disabled", "expired")).is_err());
        assert!(read_row::<KeyRow>(&text.replace("5,", "-5,")).is_err());
    }

    #[test]
    fn revoked_is_for_ever() {
        let mut revoked = KeyRow { status: Status::Revoked, ..row() };
        assert_eq!(change(r#"{"status":"active"}"#, &mut revoked).unwrap_err().status(), 409);
        change(r#"{"name":"still named"}"#, &mut revoked).unwrap();
        let rotate: RotateKey = parse(br#"{"grace_seconds":0}"#).unwrap();
        let issued =
            IssuedKey { id: String::new(), key: String::new(), secret_hash: String::new(), hint: String::new() };
        assert_eq!(rotate.apply(&mut revoked, &issued, UnixMicros::default()).unwrap_err().status(), 409);
    }

    #[test]
    fn a_rotation_keeps_the_last_secret_for_its_grace() {
        let mut row = row();
        let new = |secret: &str| IssuedKey {
            id: "abc".to_owned(),
            key: String::new(),
            secret_hash: secret.to_owned(),
            hint: secret.to_owned(),
        };
        let rotate = |seconds: u64| parse::<RotateKey>(format!(r#"{{"grace_seconds":{seconds}}}"#).as_bytes());
        let now = UnixMicros::from_millis(1_000);
        rotate(60).unwrap().apply(&mut row, &new("two"), now).unwrap();
        assert_eq!((row.secret_hash.as_str(), row.previous_hash.as_deref()), ("two", Some("one")));
        assert_eq!((row.previous_until, row.hint.as_str()), (Some(61_000), "two"));
        rotate(2_592_000).unwrap().apply(&mut row, &new("three"), now).unwrap();
        assert_eq!(row.previous_hash.as_deref(), Some("two"));
        rotate(0).unwrap().apply(&mut row, &new("four"), now).unwrap();
        assert_eq!((row.previous_hash, row.previous_until), (None, None));
        assert_eq!(rotate(2_592_001).unwrap_err().status(), 422);
        assert_eq!(parse::<RotateKey>(br#"{"grace_seconds":-1}"#).unwrap_err().status(), 422);
        assert_eq!(parse::<RotateKey>(b"{}").unwrap_err().status(), 422);
    }
}
