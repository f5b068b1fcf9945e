//! API keys and their profiles: tier, policies, and the costs of routes.

pub mod key;
pub mod profile;
pub mod route_cost;
pub mod route_key;
pub mod route_pattern;
pub mod token_route;
