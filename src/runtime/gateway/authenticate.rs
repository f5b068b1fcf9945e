//! Whose key a text is: one of ours by its tag, or one that was issued elsewhere and imported,
//! which D1 has to say.

use crate::gateway::import_cache::Lookup;
use crate::http::address::Network;
use crate::keys::key::{ImportedKey, Signer, is_importable};
use crate::runtime::clock;
use crate::runtime::gateway::import_lookup::{self, NotAsked};
use crate::runtime::isolate::Isolate;
use std::rc::Rc;
use wasm_bindgen::JsValue;

/// The authenticated caller, as sent to the key's object, which judges by the hash.
pub(crate) struct Caller {
    pub(crate) id: String,
    pub(crate) secret_hash: String,
    pub(crate) evidence: Evidence,
}

/// Why a text is taken for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Its tag is valid.
    Tag,
    /// This isolate remembers that it was imported.
    Memory,
    /// D1 has just said that it was imported.
    Found,
}

/// What a presented text is.
pub(crate) enum Presented {
    Known(Caller),
    /// Malformed, forged, or not imported.
    Nobody,
    /// It may have been imported.
    Unheard(Candidate),
}

/// A text that may be an imported key.
pub(crate) struct Candidate {
    /// What it is under each secret.
    keys: Vec<ImportedKey>,
}

/// Tells what a presented text is, without asking anybody.
pub(crate) fn identify(presented: &str, signer: &Signer, isolate: &Isolate, now: u64) -> Presented {
    if let Some((id, secret_hash)) = isolate.verified.borrow_mut().verify(presented, signer) {
        let evidence = Evidence::Tag;
        return Presented::Known(Caller { id: id.to_owned(), secret_hash: secret_hash.to_owned(), evidence });
    }
    if !isolate.config.allow_imported_keys || !is_importable(presented) {
        return Presented::Nobody;
    }
    let keys = ImportedKey::derive(presented, signer);
    let standing = isolate.lookups.borrow_mut().find(&ids(&keys), now);
    match standing {
        Lookup::Imported(at) => {
            let key = keys.into_iter().nth(at);
            key.map_or(Presented::Nobody, |key| Presented::Known(Caller::imported(key, Evidence::Memory)))
        }
        Lookup::Unknown => Presented::Nobody,
        Lookup::Ask => Presented::Unheard(Candidate { keys }),
    }
}

impl Candidate {
    /// Asks D1, in its turn, and remembers the answer.
    pub(crate) async fn look_up(
        self,
        isolate: &Rc<Isolate>,
        context: &JsValue,
        network: Network,
    ) -> Result<Option<Caller>, NotAsked> {
        let key = import_lookup::look_up(isolate, context, self.keys, network).await?;
        Ok(key.map(|key| Caller::imported(key, Evidence::Found)))
    }
}

impl Caller {
    fn imported(key: ImportedKey, evidence: Evidence) -> Self {
        Self { id: key.id, secret_hash: key.secret_hash, evidence }
    }

    /// The key's object knows no such key. What this isolate remembers of an imported one is
    /// forgotten then, and D1 is asked: the key may have been deleted and imported again. Gives it
    /// if D1 has it.
    pub(crate) async fn look_again(
        self,
        isolate: &Rc<Isolate>,
        context: &JsValue,
        network: Network,
    ) -> Result<Option<Self>, NotAsked> {
        isolate.lookups.borrow_mut().disown(&self.id);
        if self.evidence != Evidence::Memory {
            return Ok(None);
        }
        let keys = vec![ImportedKey { id: self.id, secret_hash: self.secret_hash }];
        let standing = isolate.lookups.borrow_mut().find(&ids(&keys), clock::now().as_millis());
        match standing {
            Lookup::Ask => Candidate { keys }.look_up(isolate, context, network).await,
            Lookup::Imported(_) | Lookup::Unknown => Ok(None),
        }
    }
}

fn ids(keys: &[ImportedKey]) -> Vec<&str> {
    keys.iter().map(|key| key.id.as_str()).collect()
}
