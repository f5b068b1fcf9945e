//! Operations on token routes. A change is not pushed: each object reads it within 60 seconds.

use crate::admin::route_costs::{before, row_of};
use crate::admin::token_routes::{PutTokenRoute, TOKEN_ROUTES_LIMIT};
use crate::http::problem::Problem;
use crate::keys::token_route::TokenRoute;
use crate::runtime::admin::command::{Command, CommandResult, Success, TRIES, contended, text};
use crate::runtime::store;

/// The target in the admin log. The states before and after say which row it was.
const TARGET: &str = "token-routes";

pub(super) async fn list(command: &Command) -> CommandResult {
    let page = command.parameters.page("token_routes")?;
    Ok(Success::Json(200, store::token_routes::list_token_routes(&command.db, before(&page)?, &page).await?))
}

pub(super) async fn put(command: &Command) -> CommandResult {
    let row = TokenRoute::from(command.body::<PutTokenRoute>()?);
    let view = text(&row)?;
    for _ in 0..TRIES {
        let stored = store::token_routes::find_token_route(&command.db, &row.pattern, &row.method).await?;
        let log = command.log("put", TARGET.to_owned(), stored.clone(), Some(view.clone()));
        if store::token_routes::put_token_route(&command.db, stored.as_deref(), &row, log).await? {
            return Ok(Success::Json(if stored.is_some() { 200 } else { 201 }, view));
        }
        if stored.is_none() && store::token_routes::count_token_routes(&command.db).await? >= TOKEN_ROUTES_LIMIT {
            return Err(Problem::Conflict(format!(
                "there are at most {TOKEN_ROUTES_LIMIT} token routes: delete one first"
            ))
            .into());
        }
    }
    Err(contended())
}

pub(super) async fn delete(command: &Command) -> CommandResult {
    let (pattern, method) = row_of(&command.parameters)?;
    for _ in 0..TRIES {
        let Some(stored) = store::token_routes::find_token_route(&command.db, pattern, method).await? else {
            return Err(Problem::NotFound("there is no token route with this pattern and method".to_owned()).into());
        };
        let log = command.log("delete", TARGET.to_owned(), Some(stored.clone()), None);
        if store::token_routes::delete_token_route(&command.db, pattern, method, &stored, log).await? {
            return Ok(Success::NoContent);
        }
    }
    Err(contended())
}
