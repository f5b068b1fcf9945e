//! What the admin API takes and gives: bodies, parameters, pages, their validation, their JSON. No storage, no HTTP.

pub mod alerts;
pub mod attempts;
pub mod audit;
pub mod body;
pub mod imports;
pub mod keys;
#[cfg(not(target_arch = "wasm32"))]
pub mod log;
#[cfg(not(target_arch = "wasm32"))]
pub mod openapi;
pub mod overrides;
pub mod parameters;
#[cfg(not(target_arch = "wasm32"))]
pub mod reconciliation;
pub mod reports;
pub mod route_costs;
pub mod tiers;
pub mod tokens;
#[cfg(not(target_arch = "wasm32"))]
pub mod usage;
