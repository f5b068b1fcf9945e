//! Operations on route costs. A change is not pushed: each object reads it within 60 seconds.

use crate::admin::route_costs::{PutRouteCost, ROUTE_COSTS_LIMIT, RouteCostView, before, row_of};
use crate::http::problem::Problem;
use crate::runtime::admin::command::{Command, CommandResult, Success, TRIES, contended, text};
use crate::runtime::store;

/// The target in the admin log. The states before and after say which row it was.
const TARGET: &str = "route-costs";

pub(super) async fn list(command: &Command) -> CommandResult {
    let page = command.parameters.page("route_costs")?;
    Ok(Success::Json(200, store::route_costs::list_route_costs(&command.db, before(&page)?, &page).await?))
}

pub(super) async fn put(command: &Command) -> CommandResult {
    let row = RouteCostView::from(command.body::<PutRouteCost>()?);
    let view = text(&row)?;
    for _ in 0..TRIES {
        let stored = store::route_costs::find_route_cost(&command.db, &row.pattern, &row.method).await?;
        let log = command.log("put", TARGET.to_owned(), stored.clone(), Some(view.clone()));
        if store::route_costs::put_route_cost(&command.db, stored.as_deref(), &row, log).await? {
            return Ok(Success::Json(if stored.is_some() { 200 } else { 201 }, view));
        }
        if stored.is_none() && store::route_costs::count_route_costs(&command.db).await? >= ROUTE_COSTS_LIMIT {
            return Err(Problem::Conflict(format!(
                "there are at most {ROUTE_COSTS_LIMIT} route costs: delete one first"
            ))
            .into());
        }
    }
    Err(contended())
}

pub(super) async fn delete(command: &Command) -> CommandResult {
    let (pattern, method) = row_of(&command.parameters)?;
    for _ in 0..TRIES {
        let Some(stored) = store::route_costs::find_route_cost(&command.db, pattern, method).await? else {
            return Err(Problem::NotFound("there is no route cost with this pattern and method".to_owned()).into());
        };
        let log = command.log("delete", TARGET.to_owned(), Some(stored.clone()), None);
        if store::route_costs::delete_route_cost(&command.db, pattern, method, &stored, log).await? {
            return Ok(Success::NoContent);
        }
    }
    Err(contended())
}
