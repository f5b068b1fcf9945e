//! Reports of usage, and the comparison of objects with D1.

use crate::admin::alerts::DeliveryState;
use crate::admin::parameters::{Page, bad_cursor};
use crate::admin::reports::{Span, millionths, month, months, wants};
use crate::http::problem::Problem;
use crate::runtime::admin::command::{Command, CommandResult, Success, Work};
use crate::runtime::admin::keys;
use crate::runtime::admin::reconcile;
use crate::runtime::store;
use crate::runtime::store::database::Statement;
use crate::runtime::store::reports::Granularity;
use crate::time::{DAY, HOUR, Month};

/// The queries of a report.
struct ReportQuery<'a> {
    /// The key of the report, which must exist.
    key: Option<&'a str>,
    /// The query of an object into which the page is merged.
    head: Option<Statement>,
    /// The page of a list; `None` for a single object.
    page: Option<Page>,
    rows: Statement,
}

/// The two parts of a position in a list.
fn pair<'a>(page: &'a Page, first: (&'a str, &'a str)) -> Result<(&'a str, &'a str), Problem> {
    page.after.as_deref().map_or(Ok(first), |after| after.split_once('\n').ok_or_else(bad_cursor))
}

impl<'a> ReportQuery<'a> {
    fn list(page: Page, rows: Statement) -> Self {
        Self { key: None, head: None, page: Some(page), rows }
    }

    /// A page of a key's usage by route class, of the last `days` by default and of `most` at most.
    fn by_class(
        command: &Command,
        id: &'a str,
        granularity: Granularity,
        (days, most): (u64, u64),
    ) -> Result<Self, Problem> {
        let (list, micros) = match granularity {
            Granularity::Hour => ("hours", HOUR),
            Granularity::Day => ("days", DAY),
        };
        let page = command.parameters.page(list)?;
        let span = Span::read(&command.parameters, command.now, micros, days, most)?;
        let rows = store::reports::parts(id, granularity, span, pair(&page, ("", ""))?, &page);
        Ok(Self { key: Some(id), ..Self::list(page, rows) })
    }
}

pub(super) fn hours<'a>(command: &'a Command, id: &'a str) -> Work<'a, CommandResult> {
    read(command, ReportQuery::by_class(command, id, Granularity::Hour, (1, 31)))
}

pub(super) fn days<'a>(command: &'a Command, id: &'a str) -> Work<'a, CommandResult> {
    read(command, ReportQuery::by_class(command, id, Granularity::Day, (30, 100)))
}

pub(super) fn history<'a>(command: &'a Command, id: &'a str) -> Work<'a, CommandResult> {
    let query = months(&command.parameters).map(|months| {
        let rows = store::reports::history(id, Month::of(command.now), months);
        ReportQuery { key: Some(id), head: None, page: None, rows }
    });
    read(command, query)
}

pub(super) fn alerts(command: &Command) -> Work<'_, CommandResult> {
    let query = || {
        let page = command.parameters.page("alerts")?;
        let millionths = millionths(&command.parameters)?;
        let rows = store::reports::near_quota(millionths, pair(&page, ("", ""))?, command.now, &page);
        Ok(ReportQuery::list(page, rows))
    };
    read(command, query())
}

pub(super) fn deliveries(command: &Command) -> Work<'_, CommandResult> {
    let query = || {
        let page = command.parameters.page("deliveries")?;
        let state = command.parameters.get("state");
        if state.is_some_and(|state| !DeliveryState::ALL.iter().any(|one| one.as_str() == state)) {
            let words = DeliveryState::ALL.map(DeliveryState::as_str).join(", ");
            return Err(Problem::BadRequest(format!("state: must be one of {words}")));
        }
        let rows = store::alerts::deliveries(state, &page).ok_or_else(bad_cursor)?;
        Ok(ReportQuery::list(page, rows))
    };
    read(command, query())
}

pub(super) fn drift(command: &Command) -> Work<'_, CommandResult> {
    let query = || {
        let page = command.parameters.page("drift")?;
        // `~` sorts after any time.
        let rows = store::reports::drift(pair(&page, ("~", ""))?, &page);
        Ok(ReportQuery::list(page, rows))
    };
    read(command, query())
}

/// Runs a report that reads only D1.
fn read<'a>(command: &'a Command, query: Result<ReportQuery<'a>, Problem>) -> Work<'a, CommandResult> {
    Box::pin(async move {
        let ReportQuery { key, head, page, rows } = query?;
        if let Some(id) = key {
            keys::find(command, id).await?;
        }
        let Some(page) = page else { return Ok(Success::Json(200, command.db.one(rows).await?)) };
        let list = command.db.list(&page, rows).await?;
        let Some(head) = head else { return Ok(Success::Json(200, list)) };
        // Join the two objects.
        let mut both = command.db.one(head).await?;
        both.pop();
        both.push(',');
        both.push_str(list.get(1..).unwrap_or_default());
        Ok(Success::Json(200, both))
    })
}

pub(super) async fn report(command: &Command) -> CommandResult {
    if !command.accept.as_deref().is_some_and(|accept| wants(accept, "text/csv")) {
        let query = command.parameters.page("keys").and_then(|page| {
            let month = month(&command.parameters, command.now)?;
            let rows = store::reports::report(month, &page);
            let head = Some(store::reports::report_totals(month));
            Ok(ReportQuery { head, ..ReportQuery::list(page, rows) })
        });
        return read(command, query).await;
    }
    if command.parameters.get("limit").or(command.parameters.get("cursor")).is_some() {
        return Err(Problem::BadRequest(
            "limit, cursor: not allowed for CSV, which always has the whole report".to_owned(),
        )
        .into());
    }
    let month = month(&command.parameters, command.now)?;
    let rows = store::reports::report_csv(&command.db, month).await?;
    Ok(Success::Csv(rows, format!("tollgate-{month}.csv")))
}

pub(super) async fn reconciled(command: &Command, id: &str) -> CommandResult {
    keys::find(command, id).await?;
    Ok(Success::Json(200, reconcile::compare(&command.isolate, &command.db, id).await?.1))
}
