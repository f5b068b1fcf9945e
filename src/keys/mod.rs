//! API keys, and what each may do: its tier, its policies, what its calls cost.

pub mod key;
pub mod profile;
pub mod route_cost;
pub mod route_pattern;
