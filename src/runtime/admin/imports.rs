//! The import of keys.

use crate::admin::imports::{Authority, ImportBatch, Results, lines};
use crate::admin::reports::wants;
use crate::runtime::admin::command::{Command, CommandResult, Success};
use crate::runtime::admin::keys::signer;
use crate::runtime::store;

const NDJSON: &str = "application/x-ndjson";
/// For clients that send and receive bytes only.
const BYTES: &str = "application/octet-stream";

const NOT_TRIED: &str = "was not tried, because an earlier line could not be stored: send the line again";

/// Imports batch by batch, each a transaction. A failure after the first batch is reported line by
/// line, because earlier batches stay stored.
pub(super) async fn import(command: &Command) -> CommandResult {
    let Command { db, actor, now, .. } = command;
    let authority = Authority { signer: signer(command)?, admin_token: command.isolate.config.admin_token.as_deref() };
    let mut lines = lines(&command.body)?;
    let mut results = Results::default();
    let media_type = if command.accept.as_deref().is_some_and(|accept| wants(accept, BYTES)) { BYTES } else { NDJSON };
    loop {
        let batch = ImportBatch::read(&mut lines, authority, *now, &mut results);
        if batch.is_empty() {
            return Ok(Success::Lines(results.into_text(), media_type));
        }
        let stored = store::imports::import_keys(db, &batch.rows(), &batch.ids(), actor, *now).await;
        // Even after an error, rows may be stored: forget which keys were unknown.
        command.isolate.note_import();
        match stored {
            Ok(stored) => batch.report(&stored, &mut results),
            Err(error) if !results.has_stored() => return Err(error.into()),
            Err(error) => {
                worker::console_error!(
                    "tollgate: admin API: an import stopped at a batch that could not be stored: {error}"
                );
                batch.fail(&mut results);
                for (line, _) in lines {
                    results.refuse(line, NOT_TRIED);
                }
                return Ok(Success::Lines(results.into_text(), media_type));
            }
        }
    }
}
