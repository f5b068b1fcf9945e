//! The document of the API, [OpenAPI 3.1](https://spec.openapis.org/oas/v3.1.1). Native only: the
//! Worker gives what is checked in as `src/admin/openapi/openapi.json`, which a test holds against
//! this; `TOLLGATE_WRITE_OPENAPI=1 cargo test openapi` writes it anew.

#![expect(clippy::indexing_slicing, reason = "of JSON objects that are made right here, in no part of the Worker")]

pub mod document;
mod operations;
mod schemas;
#[cfg(test)]
mod tests;
