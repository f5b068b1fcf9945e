//! The admin API: authorisation, and operations on D1 and the keys' objects.

pub(crate) mod answer;
mod audit;
mod authorize;
mod command;
mod imports;
mod keys;
mod log;
mod overrides;
pub(crate) mod reconcile;
mod reports;
mod reservations;
mod route_costs;
mod tiers;
mod token_routes;
mod tokens;
