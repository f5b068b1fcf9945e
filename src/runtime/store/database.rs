//! Queries and logged changes.
//!
//! Reads go to the primary database (no Sessions API), so they see every change committed before
//! they began. SQL builds each row as one JSON text, which is passed to the wasm unchanged.

use crate::admin::parameters::Page;
use crate::runtime::error::Error;
use crate::runtime::js;
use crate::time::{UnixMicros, rfc3339};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

/// The name of the binding.
const BINDING: &str = "DB";

/// The database.
#[derive(Clone)]
pub(crate) struct Database(JsValue);

/// SQL and the values for its parameters.
#[derive(Serialize)]
pub(crate) struct Statement(Cow<'static, str>, Vec<Value>);

impl Statement {
    pub(super) fn new(sql: impl Into<Cow<'static, str>>, values: impl Into<Vec<Value>>) -> Self {
        Self(sql.into(), values.into())
    }
}

/// An entry of the admin log.
pub(crate) struct Change<'a> {
    pub(crate) at: UnixMicros,
    pub(crate) actor: &'a str,
    pub(crate) action: &'static str,
    pub(crate) target: String,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

/// A row: its text, which is usually JSON, and its position in a list.
#[derive(Deserialize)]
pub(super) struct TextRow {
    pub(super) row: String,
    #[serde(default)]
    pub(super) position: Option<String>,
}

impl Database {
    /// The database of the binding.
    pub(crate) fn of(env: &Env) -> Result<Self, Error> {
        let database = js_sys::Reflect::get(env, &BINDING.into())?;
        if database.is_undefined() {
            return Err(Error::new(format!("there is no D1 binding {BINDING}")));
        }
        Ok(Self(database))
    }

    /// The binding as a JavaScript object.
    pub(super) const fn binding(&self) -> &JsValue {
        &self.0
    }

    /// Runs statements as one transaction. Returns the rows of the last one.
    pub(super) async fn run(&self, statements: &[Statement]) -> Result<Vec<TextRow>, Error> {
        let statements = serde_json::to_string(statements).map_err(Error::new)?;
        let rows = JsFuture::from(js::d1::run_sql(&self.0, &statements)).await?;
        let rows = rows.as_string().ok_or_else(|| Error::new("D1 gave no rows"))?;
        serde_json::from_str(&rows).map_err(Error::new)
    }

    /// The texts of the rows of a query.
    pub(super) async fn texts(&self, statement: Statement) -> Result<Vec<String>, Error> {
        Ok(self.run(&[statement]).await?.into_iter().map(|row| row.row).collect())
    }

    /// The text of the first row of a query.
    pub(super) async fn text(&self, statement: Statement) -> Result<Option<String>, Error> {
        Ok(self.run(&[statement]).await?.into_iter().next().map(|row| row.row))
    }

    /// A page of rows and, if there are more, the position of the last.
    pub(super) async fn page(&self, page: &Page, statement: Statement) -> Result<(Vec<String>, Option<String>), Error> {
        let mut rows = self.run(&[statement]).await?;
        let has_more = rows.len() > page.limit;
        rows.truncate(page.limit);
        let last = rows.last().and_then(|last| last.position.clone()).filter(|_| has_more);
        Ok((rows.into_iter().map(|row| row.row).collect(), last))
    }

    /// The row of a query that always returns one.
    pub(crate) async fn one(&self, statement: Statement) -> Result<String, Error> {
        self.text(statement).await?.ok_or_else(|| Error::new("D1 gave no row"))
    }

    /// The response body of a page whose rows are the JSON of its entries.
    pub(crate) async fn list(&self, page: &Page, statement: Statement) -> Result<String, Error> {
        let (entries, last) = self.page(page, statement).await?;
        Ok(page.show(&entries, last.as_deref()))
    }

    /// Makes a change and logs it, in one transaction. Returns `false` and changes nothing if
    /// `guard` is false.
    pub(super) async fn change(
        &self,
        change: Change<'_>,
        guard: Statement,
        changes: Vec<Statement>,
    ) -> Result<bool, Error> {
        Ok(self.change_and_read(change, guard, changes).await?.is_some())
    }

    /// As [`Database::change`], but returns the rows of the last statement; `None` if `guard` is
    /// false.
    pub(super) async fn change_and_read(
        &self,
        change: Change<'_>,
        guard: Statement,
        changes: Vec<Statement>,
    ) -> Result<Option<Vec<TextRow>>, Error> {
        // If the guard is false, the action of the log entry is NULL, which violates the schema and
        // rolls back the transaction.
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

/// A time as stored in D1.
pub(super) fn time(millis: Option<u64>) -> Value {
    millis.map(|millis| rfc3339(UnixMicros::from_millis(millis))).into()
}
