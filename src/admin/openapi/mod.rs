//! The [OpenAPI 3.1](https://spec.openapis.org/oas/v3.1.1) document. Native only: the Worker serves
//! the generated `src/admin/openapi/openapi.json`. A test compares the two;
//! `TOLLGATE_WRITE_OPENAPI=1 cargo test --lib openapi` writes the file again.

#![expect(clippy::indexing_slicing, reason = "of JSON objects built here; native only")]

pub mod document;
mod operations;
mod schemas;
#[cfg(test)]
mod tests;
