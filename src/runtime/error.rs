//! Errors of the runtime.

use std::fmt;
use wasm_bindgen::prelude::*;

/// An internal error or one of the platform, with its cause for the log. Never shown to a client.
#[derive(Debug, Clone)]
pub(crate) struct Error(String);

impl Error {
    pub(crate) fn new(cause: impl fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<JsValue> for Error {
    fn from(value: JsValue) -> Self {
        match value.dyn_ref::<js_sys::Error>() {
            Some(error) => Self(String::from(error.message())),
            None => Self(format!("{value:?}")),
        }
    }
}

impl From<worker::Error> for Error {
    fn from(error: worker::Error) -> Self {
        Self::new(error)
    }
}
