//! Brings D1 up to date. Totals are absolute, so a flush that is repeated, or whose acknowledgement
//! was lost, changes nothing. The totals that were sent are marked as flushed; calls that arrive
//! meanwhile stay unflushed.

use crate::key_state::state::KeyState;
use crate::runtime::deadline::within;
use crate::runtime::error::Error;
use crate::runtime::object::context::ObjectContext;
use crate::runtime::object::writer::Writer;
use crate::runtime::store::usage::FlushTotals;
use crate::runtime::{clock, store};
use std::rc::Rc;

/// How long a flush may take, in milliseconds. D1 itself gives up on a query after 30 s.
const DEADLINE: u32 = 30_000;

/// Flushes, and returns the `snapshot` of the state whose counts D1 then has; `None` in an object
/// without a name.
pub(super) async fn flush<T>(
    context: &ObjectContext,
    writer: &Rc<Writer>,
    snapshot: fn(&KeyState) -> T,
) -> Result<Option<T>, Error> {
    let now = clock::now();
    context.load()?;
    let Some(id) = context.key_id() else { return Ok(None) };
    // D1 must not have counts that a failing write could still undo.
    if context.memory.borrow().has_unwritten_counts() {
        writer.commit(now).await?;
    }
    let (snapshot, totals) = {
        let memory = context.memory.borrow();
        let Some(key_state) = &memory.key_state else { return Ok(None) };
        let (months, hours) = (key_state.meter().unflushed_months(), key_state.meter().unflushed_hours());
        (snapshot(key_state), FlushTotals { epoch: key_state.epoch().to_owned(), months, hours })
    };
    if totals.is_empty() {
        return Ok(Some(snapshot));
    }
    within(DEADLINE, async { store::usage::flush(&context.database()?, &id, &totals, now).await }).await?;
    context.load()?;
    if let Some(key_state) = &mut context.memory.borrow_mut().key_state {
        for total in &totals.months {
            key_state.mark_flushed(total);
        }
        for total in &totals.hours {
            key_state.mark_hour_flushed(total);
        }
    }
    writer.commit(now).await?;
    Ok(Some(snapshot))
}
