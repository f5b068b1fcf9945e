//! Named tokens of the admin API.

use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};

/// The name under which the holder of `ADMIN_TOKEN` is logged; no token can have it.
pub const ROOT: &str = "root";
/// Characters of a token's name at most.
const NAME_LIMIT: usize = 100;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at everything but tokens.
    Read,
    /// Change everything but tokens, and look at it.
    Write,
    /// Manage tokens: for `ADMIN_TOKEN` alone.
    #[serde(skip)]
    Root,
}

/// Body of `POST /_tollgate/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Who it is for; the admin log calls its holder so.
    pub name: TokenName,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// 1 to 100 characters, none of them control characters, and not `root`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenName(pub String);

impl TryFrom<String> for TokenName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let length = name.chars().count();
        if !(1..=NAME_LIMIT).contains(&length) || name.chars().any(char::is_control) || name == ROOT {
            return Err(format!(
                "must be 1 to {NAME_LIMIT} characters, none of them control characters, and not {ROOT}"
            ));
        }
        Ok(Self(name))
    }
}

impl CreateToken {
    /// The scopes, each once.
    ///
    /// # Errors
    /// 422 if there is none.
    pub fn scopes(&self) -> Result<Vec<Scope>, Refusal> {
        let mut scopes = self.scopes.clone();
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return Err(Refusal::invalid("scopes", "must name read, write or both"));
        }
        Ok(scopes)
    }
}

/// A token as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// The token itself: only in the answer that creates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Who it is for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Its last four characters.
    pub hint: String,
    /// When it was created, RFC 3339.
    pub created_at: String,
}

/// A page of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenList {
    /// By name.
    pub tokens: Vec<TokenView>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::parse;

    #[test]
    fn bodies() {
        let create: CreateToken = parse(br#"{"name":"ci","scopes":["write","read","write"]}"#).unwrap();
        assert_eq!(create.scopes().unwrap(), [Scope::Read, Scope::Write]);
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
            let refusal = parse::<CreateToken>(body.as_bytes()).and_then(|create| create.scopes()).unwrap_err();
            match refusal {
                Refusal::Invalid(named, _) => assert_eq!(named, field, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn who_may_change_may_look() {
        assert!(Scope::Root > Scope::Write && Scope::Write > Scope::Read);
    }
}
