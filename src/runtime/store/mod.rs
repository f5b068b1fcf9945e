//! D1: all SQL, a file for each table or purpose, and the format of the rows. No rules.

pub(crate) mod alerts;
pub(crate) mod database;
pub(crate) mod imports;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod overrides;
pub(crate) mod profile;
pub(crate) mod reports;
pub(crate) mod route_costs;
mod sql;
pub(crate) mod tiers;
pub(crate) mod token_routes;
pub(crate) mod tokens;
pub(crate) mod usage;
