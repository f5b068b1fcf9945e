//! Header fields for JavaScript.

use wasm_bindgen::prelude::*;

#[wasm_bindgen(module = "/src/runtime/js/fields.js")]
extern "C" {
    #[wasm_bindgen(catch, js_name = headersOf)]
    pub(crate) fn headers_of(fields: &str) -> Result<JsValue, JsValue>;
}

/// Header fields as one text, as `fields.js` parses it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldLines(String);

impl FieldLines {
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        for text in [name, "\n", value, "\n"] {
            self.0.push_str(text);
        }
    }

    pub(crate) fn append(&mut self, others: &Self) {
        self.0.push_str(&others.0);
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Extend<(&'static str, String)> for FieldLines {
    fn extend<I: IntoIterator<Item = (&'static str, String)>>(&mut self, fields: I) {
        for (name, value) in fields {
            self.set(name, &value);
        }
    }
}
