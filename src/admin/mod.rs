//! The admin API without storage and HTTP: request bodies, query parameters and pages with their
//! validation, responses with their schemas, and the `OpenAPI` document.

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
pub mod reservations;
pub mod route_costs;
pub mod tiers;
pub mod token_routes;
pub mod tokens;
#[cfg(not(target_arch = "wasm32"))]
pub mod usage;
