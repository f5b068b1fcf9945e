//! Reports of usage, and the comparison of objects with D1.

use crate::admin::alerts::DeliveryState;
use crate::admin::parameters::{Page, bad_cursor};
use crate::admin::reports::{Span, millionths, month, months, wants};
use crate::http::problem::Problem;
use crate::router::Admin;
use crate::runtime::admin::command::{Command, CommandResult, Success};
use crate::runtime::admin::keys;
use crate::runtime::object::reconcile;
use crate::runtime::store;
use crate::runtime::store::database::Statement;
use crate::runtime::store::reports::Granularity;
use crate::time::{DAY, HOUR, Month};

/// A report: one query or two.
struct ReportQuery<'a> {
    /// The key that the report is about, which must exist.
    key: Option<&'a str>,
    /// An object to which the list is added.
    head: Option<Statement>,
    /// The page of a list; `None` for one row.
    page: Option<Page>,
    rows: Statement,
}

/// The two parts of a position in a list.
fn pair<'a>(page: &'a Page, first: (&'a str, &'a str)) -> Result<(&'a str, &'a str), Problem> {
    page.after.as_deref().map_or(Ok(first), |after| after.split_once('\n').ok_or_else(bad_cursor))
}

fn query<'a>(command: &Command, operation: Admin, id: &'a str) -> Result<ReportQuery<'a>, Problem> {
    let (parameters, now) = (&command.parameters, command.now);
    let part = |part, list, micros, days, most| {
        let page = parameters.page(list)?;
        let span = Span::read(parameters, now, micros, days, most)?;
        let rows = store::reports::parts(id, part, span, pair(&page, ("", ""))?, &page);
        Ok(ReportQuery { key: Some(id), head: None, page: Some(page), rows })
    };
    let list = |page, rows| ReportQuery { key: None, head: None, page: Some(page), rows };
    match operation {
        Admin::ReadHours => part(Granularity::Hour, "hours", HOUR, 1, 31),
        Admin::ReadDays => part(Granularity::Day, "days", DAY, 30, 100),
        Admin::ReadHistory => {
            let rows = store::reports::history(id, Month::of(now), months(parameters)?);
            Ok(ReportQuery { key: Some(id), head: None, page: None, rows })
        }
        Admin::ListAlerts => {
            let page = parameters.page("alerts")?;
            let rows = store::reports::near_quota(millionths(parameters)?, pair(&page, ("", ""))?, now, &page);
            Ok(list(page, rows))
        }
        Admin::ListDeliveries => {
            let page = parameters.page("deliveries")?;
            let state = parameters.get("state");
            if state.is_some_and(|state| !DeliveryState::ALL.iter().any(|one| one.as_str() == state)) {
                let words = DeliveryState::ALL.map(DeliveryState::as_str).join(", ");
                return Err(Problem::BadRequest(format!("state: must be one of {words}")));
            }
            let rows = store::alerts::deliveries(state, &page).ok_or_else(bad_cursor)?;
            Ok(list(page, rows))
        }
        Admin::ListDrift => {
            let page = parameters.page("drift")?;
            // `~` sorts after any time.
            let rows = store::reports::drift(pair(&page, ("~", ""))?, &page);
            Ok(list(page, rows))
        }
        _ => {
            let (page, month) = (parameters.page("keys")?, month(parameters, now)?);
            let rows = store::reports::report(month, &page);
            Ok(ReportQuery { key: None, head: Some(store::reports::report_totals(month)), page: Some(page), rows })
        }
    }
}

/// Reports that need D1 alone, as JSON.
pub(super) async fn read(command: &Command, operation: Admin, id: &str) -> CommandResult {
    let ReportQuery { key, head, page, rows } = query(command, operation, id)?;
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
}

pub(super) async fn report(command: &Command) -> CommandResult {
    if !command.accept.as_deref().is_some_and(|accept| wants(accept, "text/csv")) {
        return read(command, Admin::Report, "").await;
    }
    if command.parameters.get("limit").or(command.parameters.get("cursor")).is_some() {
        return Err(Problem::BadRequest("limit, cursor: a CSV report is always whole".to_owned()).into());
    }
    let month = month(&command.parameters, command.now)?;
    let rows = store::reports::report_csv(&command.db, month).await?;
    Ok(Success::Csv(rows, format!("tollgate-{month}.csv")))
}

pub(super) async fn reconciled(command: &Command, id: &str) -> CommandResult {
    keys::find(command, id).await?;
    Ok(Success::Json(200, reconcile::compare(&command.isolate, &command.db, id).await?.1))
}
