//! Records as text: each ends with a semicolon, with bars between its fields. One small reader and
//! writer for all that is stored beside the limits, where a derived one for each would be the
//! larger part of this module in the Worker.

use std::fmt::Write as _;
use std::str::Split;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What has a meaning here or in the audit log, and what JSON would escape.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'|').add(b';').add(b'%').add(b'~').add(b'"').add(b'\\');

/// A text as a field holds it.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).collect()
}

/// Appends a field of any text.
pub(crate) fn push_text(out: &mut String, text: &str) {
    for part in utf8_percent_encode(text, ESCAPED) {
        out.push_str(part);
    }
    out.push('|');
}

/// Appends a field that is encoded already.
pub(crate) fn push_raw(out: &mut String, field: &str) {
    out.push_str(field);
    out.push('|');
}

/// Appends a field that is a number.
pub(crate) fn push_number(out: &mut String, number: u64) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{number}|");
}

/// Appends a field that is a number without meaning, which is shorter so.
pub(crate) fn push_hex(out: &mut String, number: u64) {
    let _ = write!(out, "{number:x}|");
}

/// Ends a record that has at least one field.
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
    /// A field as it is.
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

/// The text of a field.
pub(crate) fn decode(field: &str) -> String {
    percent_decode_str(field).decode_utf8_lossy().into_owned()
}

/// The records of a text.
pub(crate) fn records(text: &str) -> impl Iterator<Item = Record<'_>> {
    text.split_terminator(';').map(|text| Record { text, fields: text.split('|') })
}
