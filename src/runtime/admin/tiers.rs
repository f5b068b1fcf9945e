//! Operations on tiers. A change is pushed to the objects of the tier's keys.
//!
//! Pushing spares D1 a read by each of thousands of objects. The Worker reads the ids of the keys
//! page by page; one object of each page fans the change out to the others.

use crate::admin::tiers::{PutTier, Tier, changed, in_use};
use crate::http::problem::Problem;
use crate::keys::profile::{PolicyRow, TierChange};
use crate::runtime::admin::command::{Command, CommandResult, Success, TRIES, contended, text};
use crate::runtime::deadline::within;
use crate::runtime::error::Error;
use crate::runtime::gateway::object_client;
use crate::runtime::isolate::Isolate;
use crate::runtime::js;
use crate::runtime::store;
use crate::runtime::store::database::Database;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::{JsFuture, future_to_promise};

/// Objects of a page. The limit of subrequests of a request is 1,000.
const PAGE: usize = 500;
/// Pages in flight at a time.
const PAGES: usize = 4;
/// How long the response waits for the push, in milliseconds.
const PATIENCE: u32 = 25_000;

pub(super) async fn list(command: &Command) -> CommandResult {
    let page = command.parameters.page("tiers")?;
    Ok(Success::Json(200, store::tiers::list_tiers(&command.db, &page).await?))
}

pub(super) async fn read(command: &Command, name: &str) -> CommandResult {
    let tier = store::tiers::find_tier(&command.db, name).await?;
    Ok(Success::Json(200, tier.ok_or_else(no_tier)?))
}

pub(super) async fn put(command: &Command, name: &str) -> CommandResult {
    let tier = command.body::<PutTier>()?.named(name)?;
    let view = text(&tier)?;
    for _ in 0..TRIES {
        let stored = store::tiers::find_tier(&command.db, name).await?;
        let log = command.log("put", format!("tiers/{name}"), stored.clone(), Some(view.clone()));
        let Some(made) = store::tiers::put_tier(&command.db, stored.as_deref(), &tier, log).await? else { continue };
        let pushed = push(command, &tier, made.version).await;
        let answer = changed(&view, pushed, made.keys.saturating_sub(pushed));
        return Ok(Success::Json(if stored.is_some() { 200 } else { 201 }, answer));
    }
    Err(contended())
}

pub(super) async fn delete(command: &Command, name: &str) -> CommandResult {
    for _ in 0..TRIES {
        let Some(stored) = store::tiers::find_tier(&command.db, name).await? else { return Err(no_tier().into()) };
        let log = command.log("delete", format!("tiers/{name}"), Some(stored.clone()), None);
        if store::tiers::delete_tier(&command.db, name, &stored, log).await? {
            return Ok(Success::NoContent);
        }
        let keys = store::tiers::keys_of_tier(&command.db, name).await?;
        if keys > 0 {
            return Err(Problem::Conflict(in_use(keys)).into());
        }
    }
    Err(contended())
}

fn no_tier() -> Problem {
    Problem::NotFound("there is no tier with this name".to_owned())
}

/// Pushes a change to the objects of the tier's keys. Returns how many have it when the push ends,
/// or after [`PATIENCE`]; the push then continues in the background.
async fn push(command: &Command, tier: &Tier, version: u64) -> u64 {
    let policies = tier.policies.iter().map(PolicyRow::from).collect();
    let (audit_days, idempotency) = (tier.audit_days, Some(tier.idempotency));
    let change = TierChange { tier: tier.name.clone(), version, audit_days, idempotency, policies };
    let pushed = Rc::new(Cell::new(0));
    let push =
        Push { db: command.db.clone(), isolate: Rc::clone(&command.isolate), change, pushed: Rc::clone(&pushed) };
    let work = future_to_promise(AssertUnwindSafe(async move {
        if let Err(error) = push.all().await {
            worker::console_error!(
                "tollgate: a change of a tier takes effect within 60 s for some keys, because the push failed: {error}"
            );
        }
        Ok(JsValue::UNDEFINED)
    }));
    js::timer::keep_alive(&command.context, &work);
    if within(PATIENCE, async { Ok(JsFuture::from(work).await?) }).await.is_err() {
        worker::console_warn!("tollgate: the push of a change of tier {} continues in the background", tier.name);
    }
    pushed.get()
}

struct Push {
    db: Database,
    isolate: Rc<Isolate>,
    change: TierChange,
    pushed: Rc<Cell<u64>>,
}

impl Push {
    async fn all(&self) -> Result<(), Error> {
        let pushed = self.pages().await;
        self.isolate.forget_denials(None);
        pushed
    }

    async fn pages(&self) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let ids = store::tiers::ids_of_tier(&self.db, &self.change.tier, &after, PAGE * PAGES).await?;
            let Some(last) = ids.last() else { return Ok(()) };
            after.clone_from(last);
            let taken = object_client::fan_out(&self.isolate, &ids, &self.change, PAGE).await?;
            self.pushed.set(self.pushed.get() + taken);
            // Denials cached for these keys end with their page, not with the last one.
            self.isolate.forget_denials(None);
            if ids.len() < PAGE * PAGES {
                return Ok(());
            }
        }
    }
}
