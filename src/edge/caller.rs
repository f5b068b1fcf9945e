//! Whose key a text is: one of ours by its tag, or one that was issued elsewhere and imported, which D1 has to say.

use super::deployment::Deployment;
use super::js::Fault;
use super::key_store;
use crate::key::{ImportedKey, Signer, is_importable};
use crate::key_lookups::{Found, Mark, Standing};
use worker::Env;

/// Who calls, as the key's object is told.
pub(crate) struct Caller {
    pub(crate) id: String,
    pub(crate) secret_hash: String,
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
    mark: Mark,
}

/// Tells what a presented text is, without asking anybody.
pub(crate) fn identify(presented: &str, signer: &Signer, deployment: &Deployment, now: u64) -> Presented {
    if let Some((id, secret_hash)) = deployment.verified.borrow_mut().verify(presented, signer) {
        return Presented::Known(Caller { id: id.to_owned(), secret_hash: secret_hash.to_owned() });
    }
    if !deployment.config.allow_imported_keys || !is_importable(presented) {
        return Presented::Nobody;
    }
    let keys = ImportedKey::derive(presented, signer);
    let standing = deployment.lookups.borrow_mut().find(&ids(&keys), now);
    match standing {
        Standing::Imported(at) => {
            keys.into_iter().nth(at).map_or(Presented::Nobody, |key| Presented::Known(key.into()))
        }
        Standing::Unknown => Presented::Nobody,
        Standing::Ask(mark) => Presented::Unheard(Candidate { keys, mark }),
    }
}

impl Candidate {
    /// Asks D1, and remembers the answer.
    pub(crate) async fn look_up(self, deployment: &Deployment, env: &Env) -> Result<Option<Caller>, Fault> {
        let Self { keys, mark } = self;
        let asked_at = super::clock::now().as_millis();
        let found = key_store::find_imported(&key_store::database(env)?, &keys).await;
        let answer = found.map_err(|fault| {
            let id = keys.first().map_or("", |key| &key.id);
            Fault::new(format!("D1 could not be asked whether key {id} was imported: {fault}"))
        })?;
        let found = match answer.as_str() {
            "" => Found::Unknown,
            "-" => Found::Nothing,
            id => Found::Imported(id),
        };
        deployment.lookups.borrow_mut().keep(&ids(&keys), found, mark, asked_at);
        Ok(keys.into_iter().find(|key| key.id == answer).map(Caller::from))
    }
}

impl From<ImportedKey> for Caller {
    fn from(key: ImportedKey) -> Self {
        Self { id: key.id, secret_hash: key.secret_hash }
    }
}

fn ids(keys: &[ImportedKey]) -> Vec<&str> {
    keys.iter().map(|key| key.id.as_str()).collect()
}
