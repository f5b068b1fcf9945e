//! The bindings of this crate's own JavaScript, one file for each thing that it touches. The
//! JavaScript carries out: it holds no limit, no wire format and no retry rule. A crossing between
//! wasm and JavaScript costs about as much as all that is computed for a request, so what would
//! take several crossings is one function there.
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
pub(crate) mod webhook;
pub(crate) mod writer;
