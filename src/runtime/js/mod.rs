//! Bindings of this crate's JavaScript, one file per part of the platform.
//!
//! The JavaScript has no rules: no limits, wire formats or retries. A crossing between wasm and
//! JavaScript costs about as much as all computation for a request, so a sequence of calls to the
//! platform is one function there.
//!
//! A function that takes a type of a higher room is declared beside that type.

pub(crate) mod d1;
pub(crate) mod fields;
pub(crate) mod instance;
pub(crate) mod object;
pub(crate) mod origin;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod storage;
pub(crate) mod timer;
pub(crate) mod tokens;
pub(crate) mod webhook;
pub(crate) mod writer;
