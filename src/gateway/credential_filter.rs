//! Removes tollgate's credentials from requests before they are forwarded to the origin.

use crate::gateway::credential::{Credential, QUERY_NAME, Source};
use crate::gateway::outbound;
use crate::http::target::{Target, percent_decode};
use crate::keys::key::{PresentedKey, Signer, is_importable, same_secret, token_id};

/// Recognises the credentials in one request.
pub struct CredentialFilter<'a> {
    /// The credential that the request presents. `None` if it needs none.
    pub presented: Option<&'a Credential<'a>>,
    /// Verifies tags. `None` if no secret is set.
    pub signer: Option<&'a Signer>,
    /// `ADMIN_TOKEN`.
    pub admin_token: Option<&'a str>,
    /// Whether keys are allowed in the query.
    pub allow_query_key: bool,
    /// Whether imported keys are accepted.
    pub allow_imported_keys: bool,
    /// Returns whether a text is a key that this isolate has verified.
    pub is_known_key: &'a dyn Fn(&str) -> bool,
}

impl CredentialFilter<'_> {
    /// Whether an `Authorization` value may reach the origin.
    #[must_use]
    pub fn passes_authorization(&self, value: &str) -> bool {
        let Some(presented) = self.presented else {
            let is_ours = |text: &str| outbound::has_own_form(text) || self.is_ours(text);
            return !outbound::holds(value, is_ours) && !outbound::presents(value, |text| self.could_be_key(text));
        };
        presented.source != Source::Bearer && !outbound::holds(value, |text| self.is_ours(text))
    }

    /// Whether a `Referer` may reach the origin. A page with the key in its URL sends that URL
    /// along with requests for its resources.
    #[must_use]
    pub fn passes_referer(&self, referer: &str) -> bool {
        let page = referer.split('#').next().unwrap_or_default();
        let Ok(target) = Target::parse(page) else { return true };
        target.query.is_none_or(|query| self.query_without(target).as_deref() == Some(query))
    }

    /// The query to forward. `None` if there is none, or nothing is left of it.
    #[must_use]
    pub fn forwarded_query(&self, target: Target<'_>) -> Option<String> {
        target.query?;
        self.query_without(target)
    }

    /// The query as sent, without parameters that carry a credential: the presented one anywhere,
    /// genuine keys and admin tokens anywhere, and `api_key` if its value is a key, or could be one
    /// on a path that needs none.
    ///
    /// An imported key is recognised only when it is presented.
    fn query_without(&self, target: Target<'_>) -> Option<String> {
        let is_credential = |text: &str| {
            self.is_presented(text)
                || self.is_admin_token(text)
                || self.signer.is_some_and(|signer| PresentedKey::verify(text, signer).is_some())
        };
        target.query().without(|pair| {
            let value = percent_decode(pair.value);
            let is_named = || {
                let could_be =
                    self.presented.is_none() && (outbound::has_own_form(&value) || self.could_be_key(&value));
                (self.allow_query_key || could_be) && pair.is_named(QUERY_NAME)
            };
            is_credential(&value) || is_credential(&percent_decode(pair.name)) || is_named()
        })
    }

    /// Whether a text is known to be a key or an admin token.
    fn is_ours(&self, text: &str) -> bool {
        self.is_presented(text) || self.is_admin_token(text) || (self.is_known_key)(text)
    }

    fn is_presented(&self, text: &str) -> bool {
        self.presented.is_some_and(|presented| presented.key == text)
    }

    fn is_admin_token(&self, text: &str) -> bool {
        let is_root = |root: &str| root.len() == text.len() && same_secret(root, text);
        token_id(text).is_some() || self.admin_token.is_some_and(is_root)
    }

    /// Whether a text can be a key that this isolate has not seen.
    fn could_be_key(&self, text: &str) -> bool {
        self.allow_imported_keys && is_importable(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::key::{ENTROPY_BYTES, issue};

    const ROOT: &str = "the-root-token";
    const IMPORTED: &str = "sk_live_0123456789abcdef";

    fn token() -> String {
        format!("tga_{}_{}", "a".repeat(16), "b".repeat(32))
    }

    /// The filter of a request that presents a key in this place, and that key.
    fn with_filter(source: Option<Source>, allow_query_key: bool, check: impl FnOnce(&CredentialFilter<'_>, &str)) {
        let signer = Signer::new("one", []).unwrap();
        let key = issue(&signer, &[7; ENTROPY_BYTES]).key;
        let presented = source.map(|source| Credential { key: IMPORTED.into(), source });
        let filter = CredentialFilter {
            presented: presented.as_ref(),
            signer: Some(&signer),
            admin_token: Some(ROOT),
            allow_query_key,
            allow_imported_keys: true,
            is_known_key: &|text| text == key,
        };
        check(&filter, &key);
    }

    #[test]
    fn an_authorization_passes_if_no_key_is_in_it() {
        with_filter(Some(Source::Header), false, |filter, key| {
            let token = token();
            for own in [key, IMPORTED, ROOT, &token] {
                assert!(!filter.passes_authorization(&format!("Token {own}")), "{own}");
            }
            for other in ["Basic dTpw", "Token sk_live_another_text", "Bearer-like x"] {
                assert!(filter.passes_authorization(other), "{other}");
            }
        });
        with_filter(Some(Source::Bearer), false, |filter, _| assert!(!filter.passes_authorization("Basic dTpw")));
    }

    #[test]
    fn where_no_key_is_needed_nothing_passes_that_could_be_one() {
        with_filter(None, false, |filter, key| {
            let forged = format!("{}{}", &key[..key.len() - 1], if key.ends_with('0') { '1' } else { '0' });
            for own in [key, IMPORTED, ROOT, &forged] {
                assert!(!filter.passes_authorization(&format!("Bearer {own}")), "{own}");
            }
            assert!(filter.passes_authorization("Basic dTpw"));
            let query = |query: &str| filter.forwarded_query(Target { path: "/", query: Some(query) });
            assert_eq!(query(&format!("api_key={IMPORTED}&a=1")).as_deref(), Some("a=1"));
            assert_eq!(query(&format!("api_key={forged}&a=1")).as_deref(), Some("a=1"));
            assert_eq!(query(&format!("other={IMPORTED}")), Some(format!("other={IMPORTED}")));
            assert_eq!(query("api_key=1&a").as_deref(), Some("api_key=1&a"));
            let without_imports = CredentialFilter { allow_imported_keys: false, ..*filter };
            assert!(without_imports.passes_authorization(&format!("Bearer {IMPORTED}")));
        });
    }

    #[test]
    fn a_query_is_forwarded_as_sent_less_what_carries_a_credential() {
        for (allow_query_key, named) in [(false, Some("api_key=x")), (true, None)] {
            with_filter(Some(Source::Header), allow_query_key, |filter, key| {
                let query = |query: Option<&str>| filter.forwarded_query(Target { path: "/", query });
                assert_eq!(query(None), None);
                assert_eq!(query(Some("")).as_deref(), Some(""));
                assert_eq!(query(Some("b=%41&&a=+")).as_deref(), Some("b=%41&&a=+"));
                assert_eq!(query(Some("api_key=x")).as_deref(), named);
                // The credential is found: another text that has the form of a key is the origin's
                // business.
                let other = query(Some("api_key=sk_live_another_text&a"));
                assert_eq!(
                    other.as_deref(),
                    Some(if allow_query_key { "a" } else { "api_key=sk_live_another_text&a" })
                );
                let (token, encoded) = (token(), key.replace('_', "%5F"));
                for own in [key, IMPORTED, ROOT, &token, &encoded] {
                    assert_eq!(query(Some(&format!("a=1&x={own}&b"))).as_deref(), Some("a=1&b"), "{own}");
                    assert_eq!(query(Some(&format!("{own}=1"))), None, "{own}");
                }
            });
        }
    }

    #[test]
    fn a_referer_passes_if_its_query_would() {
        with_filter(Some(Source::Query), true, |filter, key| {
            for own in [format!("?api_key={key}"), format!("?a&api_key={IMPORTED}#top"), "?api_key=".to_owned()] {
                assert!(!filter.passes_referer(&format!("https://app.test/page{own}")), "{own}");
            }
            for other in ["https://app.test/page", "https://app.test/?a=1#api_key=x", "about:blank", ""] {
                assert!(filter.passes_referer(other), "{other}");
            }
        });
    }
}
