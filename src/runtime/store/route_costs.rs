//! Route costs.

use crate::admin::parameters::Page;
use crate::admin::route_costs::{ROUTE_COSTS_LIMIT, RouteCostView};
use crate::runtime::error::Error;
use crate::runtime::store::database::{Change, Database, Statement};

/// A row as JSON, the body of its response. A change compares it with the row that it was computed
/// from.
macro_rules! route_cost_row {
    () => {
        "json_object('pattern', pattern, 'method', method, 'cost', cost, 'reprice', json(iif(reprice, 'true', 'false')))"
    };
}

/// A page of the rows after this pattern and method.
pub(crate) async fn list_route_costs(db: &Database, after: (&str, &str), page: &Page) -> Result<String, Error> {
    let select = concat!(
        "SELECT ",
        route_cost_row!(),
        " AS row, method || char(10) || pattern AS position FROM route_costs
         WHERE (pattern, method) > (?, ?) ORDER BY pattern, method LIMIT ?"
    );
    db.list(page, Statement::new(select, [after.0.into(), after.1.into(), page.rows().into()])).await
}

/// One row.
pub(crate) async fn find_route_cost(db: &Database, pattern: &str, method: &str) -> Result<Option<String>, Error> {
    let select = concat!("SELECT ", route_cost_row!(), " AS row FROM route_costs WHERE pattern = ? AND method = ?");
    db.text(Statement::new(select, [pattern.into(), method.into()])).await
}

/// The number of rows, up to the limit of the admin API.
pub(crate) async fn count_route_costs(db: &Database) -> Result<usize, Error> {
    let select = "SELECT method AS row FROM route_costs LIMIT ?";
    Ok(db.texts(Statement::new(select, [ROUTE_COSTS_LIMIT.into()])).await?.len())
}

/// Inserts or replaces a row; `false` if it is no longer `stored`, or if the table is full.
pub(crate) async fn put_route_cost(
    db: &Database,
    stored: Option<&str>,
    row: &RouteCostView,
    change: Change<'_>,
) -> Result<bool, Error> {
    let (pattern, method) = (row.pattern.as_str(), row.method.as_str());
    let upsert = "INSERT INTO route_costs (pattern, method, cost, reprice) VALUES (?, ?, ?, ?)
                  ON CONFLICT (pattern, method) DO UPDATE SET cost = excluded.cost, reprice = excluded.reprice";
    // The limit applies only to new rows.
    let guard = concat!(
        "(SELECT ",
        route_cost_row!(),
        " FROM route_costs WHERE pattern = ?1 AND method = ?2) IS ?3
         AND (?3 IS NOT NULL OR (SELECT COUNT(*) FROM route_costs) < ?4)"
    );
    let guard_values = [pattern.into(), method.into(), stored.into(), ROUTE_COSTS_LIMIT.into()];
    let upsert =
        Statement::new(upsert, [pattern.into(), method.into(), row.cost.into(), u64::from(row.reprice).into()]);
    db.change(change, Statement::new(guard, guard_values), vec![upsert]).await
}

/// Deletes a row; `false` if it is no longer `stored`.
pub(crate) async fn delete_route_cost(
    db: &Database,
    pattern: &str,
    method: &str,
    stored: &str,
    change: Change<'_>,
) -> Result<bool, Error> {
    let guard = concat!("(SELECT ", route_cost_row!(), " FROM route_costs WHERE pattern = ? AND method = ?) IS ?");
    let guard = Statement::new(guard, [pattern.into(), method.into(), stored.into()]);
    let delete =
        Statement::new("DELETE FROM route_costs WHERE pattern = ? AND method = ?", [pattern.into(), method.into()]);
    db.change(change, guard, vec![delete]).await
}
