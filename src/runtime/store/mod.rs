//! D1: all SQL against it, and the forms of its rows. No rules.
//!
//! Reads go to the primary (no Sessions API), so they see every change that was committed before they began. Rows come as JSON
//! text that SQL has put together, so that numbers and nested values cross once, as they are.

mod alerts;
mod imports;
mod keys;
mod log;
mod overrides;
mod profile;
mod reports;
mod route_costs;
mod tiers;
mod tokens;
mod usage;

pub(crate) use alerts::{Delivery, deliveries, note_attempt, put_alert};
pub(crate) use imports::{FoundKeys, find_imported, import_keys};
pub(crate) use keys::{KeyFilter, create_key, delete_key, key, keys, update_key};
pub(crate) use log::log;
pub(crate) use overrides::{count_overrides, delete_override, overrides, policy_override, put_override};
pub(crate) use profile::{StoredKey, profile};
pub(crate) use reports::{
    Part, delete_hours, drift, history, near_quota, note_drift, parts, reconcile, report, report_csv, report_totals,
    some_keys,
};
pub(crate) use route_costs::{count_route_costs, delete_route_cost, put_route_cost, route_cost, route_costs};
pub(crate) use tiers::{delete_tier, has_tier, ids_of_tier, keys_of_tier, put_tier, tier, tiers};
pub(crate) use tokens::{create_token, delete_token, stored_token, token, token_hashes, tokens};
pub(crate) use usage::{Totals, flush, usage_of_holder};

use crate::admin::Page;
use crate::runtime::error::Error;
use crate::runtime::isolate::DATABASE;
use crate::runtime::js;
use crate::time::{UnixMicros, rfc3339};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

/// Milliseconds since the Unix epoch of a column that holds a time as text.
macro_rules! millis {
    ($column:literal) => {
        concat!("MAX(0, CAST(ROUND(unixepoch(", $column, ", 'subsec') * 1000) AS INTEGER))")
    };
}
use millis;

/// Such a column in RFC 3339, as [`rfc3339`] writes it.
macro_rules! rfc {
    ($column:literal) => {
        concat!("replace(strftime('%Y-%m-%dT%H:%M:%fZ', ", $column, "), '.000Z', 'Z')")
    };
}
use rfc;

/// The database.
#[derive(Clone)]
pub(crate) struct Database(JsValue);

/// The binding of the database.
pub(crate) fn database(env: &Env) -> Result<Database, Error> {
    let database = js_sys::Reflect::get(env, &DATABASE.into())?;
    if database.is_undefined() {
        return Err(Error::new(format!("there is no D1 binding {DATABASE}")));
    }
    Ok(Database(database))
}

/// SQL and the values for its parameters.
#[derive(Serialize)]
pub(crate) struct Statement(Cow<'static, str>, Vec<Value>);

impl Statement {
    fn new(sql: impl Into<Cow<'static, str>>, values: impl Into<Vec<Value>>) -> Self {
        Self(sql.into(), values.into())
    }
}

/// What the admin log tells of a change.
pub(crate) struct Change<'a> {
    pub(crate) at: UnixMicros,
    pub(crate) actor: &'a str,
    pub(crate) action: &'static str,
    pub(crate) target: String,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

/// A row: what was asked for, as JSON or not, and its position in a list.
#[derive(Deserialize)]
struct Row {
    row: String,
    #[serde(default)]
    position: Option<String>,
}

impl Database {
    /// Runs statements as one transaction; gives the rows of the last one.
    async fn run(&self, statements: &[Statement]) -> Result<Vec<Row>, Error> {
        let statements = serde_json::to_string(statements).map_err(Error::new)?;
        let rows = JsFuture::from(js::d1::run_sql(&self.0, &statements)).await?;
        let rows = rows.as_string().ok_or_else(|| Error::new("D1 gave no rows"))?;
        serde_json::from_str(&rows).map_err(Error::new)
    }

    /// What the rows of a query say.
    async fn texts(&self, statement: Statement) -> Result<Vec<String>, Error> {
        Ok(self.run(&[statement]).await?.into_iter().map(|row| row.row).collect())
    }

    /// The first of them.
    async fn text(&self, statement: Statement) -> Result<Option<String>, Error> {
        Ok(self.run(&[statement]).await?.into_iter().next().map(|row| row.row))
    }

    /// A page of rows and, if there are more, the position of the last.
    async fn page(&self, page: &Page, statement: Statement) -> Result<(Vec<String>, Option<String>), Error> {
        let mut rows = self.run(&[statement]).await?;
        let has_more = rows.len() > page.limit;
        rows.truncate(page.limit);
        let last = rows.last().and_then(|last| last.position.clone()).filter(|_| has_more);
        Ok((rows.into_iter().map(|row| row.row).collect(), last))
    }

    /// The one row of a query that always has one.
    pub(crate) async fn one(&self, statement: Statement) -> Result<String, Error> {
        self.text(statement).await?.ok_or_else(|| Error::new("D1 gave no row"))
    }

    /// The answer that shows a page whose rows are the JSON of its entries.
    pub(crate) async fn list(&self, page: &Page, statement: Statement) -> Result<String, Error> {
        let (entries, last) = self.page(page, statement).await?;
        Ok(page.show(&entries, last.as_deref()))
    }

    /// Makes a change and logs it, in one transaction; `false`, and nothing is changed, if `guard` does not hold.
    async fn change(&self, change: Change<'_>, guard: Statement, changes: Vec<Statement>) -> Result<bool, Error> {
        Ok(self.change_and_read(change, guard, changes).await?.is_some())
    }

    /// The same; gives the rows of the last statement.
    async fn change_and_read(
        &self,
        change: Change<'_>,
        guard: Statement,
        changes: Vec<Statement>,
    ) -> Result<Option<Vec<Row>>, Error> {
        // Where the guard does not hold, the row of the log has no action, and the schema undoes the transaction over it.
        let Statement(guard, mut values) = guard;
        let insert = format!(
            "INSERT INTO admin_log (action, at, actor, target, before, after) SELECT CASE WHEN {guard} THEN ? END, ?, ?, ?, ?, ?"
        );
        let Change { at, actor, action, target, before, after } = change;
        values.extend([action.into(), rfc3339(at).into(), actor.into(), target.into(), before.into(), after.into()]);
        let mut statements = vec![Statement::new(insert, values)];
        statements.extend(changes);
        match self.run(&statements).await {
            Ok(rows) => Ok(Some(rows)),
            Err(error) if error.to_string().contains("admin_log.action") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A time as D1 keeps it.
fn time(millis: Option<u64>) -> Value {
    millis.map(|millis| rfc3339(UnixMicros::from_millis(millis))).into()
}
