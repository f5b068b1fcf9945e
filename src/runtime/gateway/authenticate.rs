//! Authenticates requests: tollgate's own keys by their tag, imported keys by a lookup in D1.

use crate::gateway::credential::{Credential, CredentialError};
use crate::gateway::import_cache::Lookup;
use crate::http::address::Network;
use crate::http::problem::Problem;
use crate::keys::key::{ImportedKey, Signer, is_importable};
use crate::runtime::clock;
use crate::runtime::gateway::import_lookup::{self, NotLookedUp};
use crate::runtime::incoming::Incoming;
use crate::runtime::isolate::Isolate;
use std::rc::Rc;
use wasm_bindgen::JsValue;

/// The authenticated caller, as sent to the key's object, which compares the hash.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) id: String,
    pub(crate) secret_hash: String,
    pub(crate) evidence: Evidence,
}

/// How a text was recognised as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Its tag is valid.
    Tag,
    /// It is in the isolate's cache of imported keys.
    Memory,
    /// D1 has just returned it.
    Found,
}

/// The result of the checks without a lookup.
pub(crate) enum Presented {
    Key(Caller),
    /// Malformed, forged, or not imported.
    Invalid,
    /// It may be an imported key.
    NeedsLookup(Candidate),
}

/// A text that may be an imported key.
pub(crate) struct Candidate {
    /// Its ids and hashes under each secret.
    keys: Vec<ImportedKey>,
}

/// Finds the credential of a request and checks it without a lookup.
pub(crate) fn authenticate<'a>(
    incoming: &'a Incoming,
    isolate: &Isolate,
    now: u64,
) -> Result<(Credential<'a>, Presented), Problem> {
    let config = &isolate.config;
    let credential = incoming.credential(config.allow_query_key).map_err(|error| match error {
        CredentialError::Missing => Problem::NoCredential(error.to_string()),
        error => Problem::BadRequest(error.to_string()),
    })?;
    let Some(signer) = &config.signer else {
        worker::console_error!("tollgate is not configured: KEY_SECRET is not set");
        return Err(Problem::Unavailable("tollgate is not configured: the log of the Worker says why"));
    };
    let presented = identify(&credential.key, signer, isolate, now);
    Ok((credential, presented))
}

/// Checks a presented text without a lookup.
pub(crate) fn identify(presented: &str, signer: &Signer, isolate: &Isolate, now: u64) -> Presented {
    if let Some((id, secret_hash)) = isolate.verified.borrow_mut().verify(presented, signer) {
        let evidence = Evidence::Tag;
        return Presented::Key(Caller { id: id.to_owned(), secret_hash: secret_hash.to_owned(), evidence });
    }
    if !isolate.config.allow_imported_keys || !is_importable(presented) {
        return Presented::Invalid;
    }
    let keys = ImportedKey::derive(presented, signer);
    let lookup = isolate.lookups.borrow_mut().find(&ids(&keys), now);
    match lookup {
        Lookup::Imported(at) => {
            let key = keys.into_iter().nth(at);
            key.map_or(Presented::Invalid, |key| Presented::Key(Caller::imported(key, Evidence::Memory)))
        }
        Lookup::Unknown => Presented::Invalid,
        Lookup::Needed => Presented::NeedsLookup(Candidate { keys }),
    }
}

impl Candidate {
    /// Looks the text up in D1 in its turn, and caches the result.
    pub(crate) async fn look_up(
        self,
        isolate: &Rc<Isolate>,
        context: &JsValue,
        network: Network,
    ) -> Result<Caller, Problem> {
        match import_lookup::look_up(isolate, context, self.keys, network).await {
            Ok(Some(key)) => Ok(Caller::imported(key, Evidence::Found)),
            Ok(None) => Err(Problem::InvalidKey),
            // In every fail mode: a text that may not be a key at all must not pass.
            Err(NotLookedUp) => Err(Problem::Unavailable("the API key could not be looked up: try again")),
        }
    }
}

impl Caller {
    fn imported(key: ImportedKey, evidence: Evidence) -> Self {
        Self { id: key.id, secret_hash: key.secret_hash, evidence }
    }

    /// Handles an object to which the key is unknown. Drops the cached answer about an imported key
    /// and reads D1 again, because the key may have been deleted and imported again. `None` unless
    /// D1 has it.
    pub(crate) async fn look_again(self, isolate: &Rc<Isolate>, context: &JsValue, network: Network) -> Option<Self> {
        isolate.lookups.borrow_mut().disown(&self.id);
        if self.evidence != Evidence::Memory {
            return None;
        }
        let keys = vec![ImportedKey { id: self.id, secret_hash: self.secret_hash }];
        let lookup = isolate.lookups.borrow_mut().find(&ids(&keys), clock::now().as_millis());
        match lookup {
            Lookup::Needed => Candidate { keys }.look_up(isolate, context, network).await.ok(),
            Lookup::Imported(_) | Lookup::Unknown => None,
        }
    }
}

fn ids(keys: &[ImportedKey]) -> Vec<&str> {
    keys.iter().map(|key| key.id.as_str()).collect()
}
