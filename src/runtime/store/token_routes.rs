//! Token routes.

use crate::admin::parameters::Page;
use crate::admin::token_routes::TOKEN_ROUTES_LIMIT;
use crate::keys::token_route::TokenRoute;
use crate::runtime::error::Error;
use crate::runtime::store::database::{Change, Database, Statement};

/// A row as JSON, the body of its response. A change compares it with the row that it was computed
/// from.
macro_rules! token_route {
    () => {
        "json_object('pattern', pattern, 'method', method, 'format', format, 'default_output', default_output,
           'max_output', max_output, 'bytes_per_token', bytes_per_token, 'max_input', max_input)"
    };
}
pub(super) use token_route;

/// A page of the rows after this pattern and method.
pub(crate) async fn list_token_routes(db: &Database, after: (&str, &str), page: &Page) -> Result<String, Error> {
    let select = concat!(
        "SELECT ",
        token_route!(),
        " AS row, method || char(10) || pattern AS position FROM token_routes
         WHERE (pattern, method) > (?, ?) ORDER BY pattern, method LIMIT ?"
    );
    db.list(page, Statement::new(select, [after.0.into(), after.1.into(), page.rows().into()])).await
}

/// One row.
pub(crate) async fn find_token_route(db: &Database, pattern: &str, method: &str) -> Result<Option<String>, Error> {
    let select = concat!("SELECT ", token_route!(), " AS row FROM token_routes WHERE pattern = ? AND method = ?");
    db.text(Statement::new(select, [pattern.into(), method.into()])).await
}

/// The number of rows, up to the limit of the admin API.
pub(crate) async fn count_token_routes(db: &Database) -> Result<usize, Error> {
    let select = "SELECT method AS row FROM token_routes LIMIT ?";
    Ok(db.texts(Statement::new(select, [TOKEN_ROUTES_LIMIT.into()])).await?.len())
}

/// Inserts or replaces a row; `false` if it is no longer `stored`, or if the table is full.
pub(crate) async fn put_token_route(
    db: &Database,
    stored: Option<&str>,
    row: &TokenRoute,
    change: Change<'_>,
) -> Result<bool, Error> {
    let (pattern, method) = (row.pattern.as_str(), row.method.as_str());
    let upsert = "INSERT INTO token_routes
                    (pattern, method, format, default_output, max_output, bytes_per_token, max_input)
                  VALUES (?, ?, ?, ?, ?, ?, ?)
                  ON CONFLICT (pattern, method) DO UPDATE SET format = excluded.format,
                    default_output = excluded.default_output, max_output = excluded.max_output,
                    bytes_per_token = excluded.bytes_per_token, max_input = excluded.max_input";
    // The limit applies only to new rows.
    let guard = concat!(
        "(SELECT ",
        token_route!(),
        " FROM token_routes WHERE pattern = ?1 AND method = ?2) IS ?3
         AND (?3 IS NOT NULL OR (SELECT COUNT(*) FROM token_routes) < ?4)"
    );
    let guard_values = [pattern.into(), method.into(), stored.into(), TOKEN_ROUTES_LIMIT.into()];
    let values = [
        pattern.into(),
        method.into(),
        row.format.as_str().into(),
        row.default_output.into(),
        row.max_output.into(),
        row.bytes_per_token.into(),
        row.max_input.into(),
    ];
    let upsert = Statement::new(upsert, values);
    db.change(change, Statement::new(guard, guard_values), vec![upsert]).await
}

/// Deletes a row; `false` if it is no longer `stored`.
pub(crate) async fn delete_token_route(
    db: &Database,
    pattern: &str,
    method: &str,
    stored: &str,
    change: Change<'_>,
) -> Result<bool, Error> {
    let guard = concat!("(SELECT ", token_route!(), " FROM token_routes WHERE pattern = ? AND method = ?) IS ?");
    let guard = Statement::new(guard, [pattern.into(), method.into(), stored.into()]);
    let delete =
        Statement::new("DELETE FROM token_routes WHERE pattern = ? AND method = ?", [pattern.into(), method.into()]);
    db.change(change, guard, vec![delete]).await
}
