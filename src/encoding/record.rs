//! Records as text: `|` separates fields, and `;` ends a record.
//!
//! The state stores everything except its counters in this form. A derived reader and writer per
//! type would add more to the Worker's size than one for all.

use std::fmt::Write as _;
use std::str::Split;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Characters with a meaning here or in the audit log, and those that JSON would escape.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'|').add(b';').add(b'%').add(b'~').add(b'"').add(b'\\');

/// Escapes a text for a field.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).collect()
}

/// Appends a text, escaped.
pub(crate) fn push_text(out: &mut String, text: &str) {
    for part in utf8_percent_encode(text, ESCAPED) {
        out.push_str(part);
    }
    out.push('|');
}

/// Appends a text that is already escaped.
pub(crate) fn push_raw(out: &mut String, field: &str) {
    out.push_str(field);
    out.push('|');
}

/// Appends a number in decimal.
pub(crate) fn push_number(out: &mut String, number: u64) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{number}|");
}

/// Appends a number in hexadecimal, which is shorter.
pub(crate) fn push_hex(out: &mut String, number: u64) {
    let _ = write!(out, "{number:x}|");
}

/// Ends a record, which must have at least one field.
pub(crate) fn end(out: &mut String) {
    out.pop();
    out.push(';');
}

/// The fields of one record.
pub(crate) struct Record<'a> {
    pub(crate) text: &'a str,
    fields: Split<'a, char>,
}

impl<'a> Record<'a> {
    /// The next field, without unescaping.
    pub(crate) fn raw(&mut self) -> Option<&'a str> {
        self.fields.next()
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        self.raw().map(decode)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        self.raw()?.parse().ok()
    }

    pub(crate) fn hex(&mut self) -> Option<u64> {
        u64::from_str_radix(self.raw()?, 16).ok()
    }
}

/// Unescapes a field.
pub(crate) fn decode(field: &str) -> String {
    percent_decode_str(field).decode_utf8_lossy().into_owned()
}

/// The records of a text.
pub(crate) fn records(text: &str) -> impl Iterator<Item = Record<'_>> {
    text.split_terminator(';').map(|text| Record { text, fields: text.split('|') })
}
