//! Tiers, and how a change of one reaches the objects of its keys.
//!
//! The change is pushed, so that thousands of objects do not read D1 for it at the same moment: the Worker reads the ids of the
//! tier's keys, some thousand at a time, and has one object of each page pass the change on to the others.

use super::{Command, Outcome, TRIES, contended, json};
use crate::admin::tiers::{PutTier, Tier, TierChanged, TierList};
use crate::edge::deployment::Deployment;
use crate::edge::js::{self, Fault};
use crate::edge::key_store::{self, Database};
use crate::edge::object_client;
use crate::edge::timer::within;
use crate::profile::TierChange;
use crate::protocol::Relay;
use crate::refusal::Refusal;
use futures_util::future::join4;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::{JsFuture, future_to_promise};

/// How many objects one object passes a change on to. A Worker may ask 1,000 others for one request.
const PAGE: usize = 500;
/// How many pages are under way at a time.
const PAGES: usize = 4;
/// How long the answer waits for all objects to be told, in milliseconds.
const PATIENCE: u32 = 25_000;

pub(super) async fn list(command: &Command) -> Outcome {
    let page = command.parameters(&["limit", "cursor"])?.page("tiers")?;
    let mut tiers = key_store::tiers(&command.db, &page).await?;
    let next_cursor = page.cut(&mut tiers, |tier| tier.name.clone());
    json(200, &TierList { tiers, next_cursor })
}

pub(super) async fn read(command: &Command, name: &str) -> Outcome {
    command.parameters(&[])?;
    match key_store::tier(&command.db, name).await? {
        Some((_, tier)) => json(200, &tier),
        None => Err(Refusal::NotFound("there is no tier of this name".to_owned()).into()),
    }
}

pub(super) async fn put(command: &Command, name: &str) -> Outcome {
    command.parameters(&[])?;
    let tier = command.body::<PutTier>().await?.into_tier(name)?;
    for _ in 0..TRIES {
        let (stored, before) = key_store::tier(&command.db, name).await?.unzip();
        let log = command.log("put", format!("tiers/{name}"), before.as_ref(), Some(&tier))?;
        let Some(made) = key_store::put_tier(&command.db, stored.as_deref(), &tier, log).await? else { continue };
        let pushed = push(command, &tier, made.version).await?;
        let Tier { name, description, audit_days, policies } = tier;
        let pending = made.keys.saturating_sub(pushed);
        let changed = TierChanged { name, description, audit_days, policies, pushed, pending };
        return json(if stored.is_some() { 200 } else { 201 }, &changed);
    }
    Err(contended())
}

/// Tells the objects of the tier's keys. Gives how many have been told when all have or time is up; the rest is told afterwards.
async fn push(command: &Command, tier: &Tier, version: u64) -> Result<u64, Fault> {
    command.deployment.forget_denials(None);
    let policies = tier.policies.iter().cloned().map(|policy| policy.into_row().map_err(Fault::new));
    let policies = policies.collect::<Result<_, _>>()?;
    let change = TierChange { tier: tier.name.clone(), version, audit_days: tier.audit_days, policies };
    let told = Rc::new(Cell::new(0));
    let push =
        Push { db: command.db.clone(), deployment: Rc::clone(&command.deployment), change, told: Rc::clone(&told) };
    let work = future_to_promise(AssertUnwindSafe(async move {
        if let Err(fault) = push.all().await {
            worker::console_error!("tollgate: a change of a tier was not pushed to all of its keys: {fault}");
        }
        Ok(JsValue::UNDEFINED)
    }));
    js::keep_alive(&command.context, &work);
    if within(PATIENCE, async { Ok(JsFuture::from(work).await?) }).await.is_err() {
        worker::console_warn!("tollgate: a change of tier {} is still being pushed", tier.name);
    }
    Ok(told.get())
}

struct Push {
    db: Database,
    deployment: Rc<Deployment>,
    change: TierChange,
    told: Rc<Cell<u64>>,
}

impl Push {
    async fn all(&self) -> Result<(), Fault> {
        let mut after = String::new();
        loop {
            let ids = key_store::ids_of_tier(&self.db, &self.change.tier, &after, PAGE * PAGES).await?;
            let Some(last) = ids.last() else { return Ok(()) };
            after.clone_from(last);
            let mut pages = ids.chunks(PAGE);
            let mut next = || self.page(pages.next().unwrap_or_default());
            join4(next(), next(), next(), next()).await;
            if ids.len() < PAGE * PAGES {
                return Ok(());
            }
        }
    }

    /// Has one of these keys' objects tell the others; should that one be out of order, another one.
    async fn page(&self, ids: &[String]) {
        for relay in ids.iter().take(2) {
            let others = ids.iter().filter(|id| *id != relay).cloned().collect();
            match object_client::relay(&self.deployment, relay, &Relay { change: self.change.clone(), ids: others })
                .await
            {
                Ok(taken) => return self.told.set(self.told.get() + taken),
                Err(fault) => {
                    worker::console_error!("tollgate: key {relay} did not pass a change of its tier on: {fault}");
                }
            }
        }
    }
}
