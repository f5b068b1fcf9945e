//! Standard output: the server's JSON, or tables and fields.

use std::io::{self, Write};

use serde_json::Value;

use crate::cells;
use crate::failure::Failure;
use crate::view::{self, Table};

/// A JSON response: its text, and the parsed value.
pub(crate) struct Document {
    text: String,
    pub(crate) json: Value,
}

impl Document {
    pub(crate) fn parse(text: String) -> Result<Self, Failure> {
        let json = serde_json::from_str(&text).map_err(|_| {
            Failure::Broken("the response is not from a tollgate, because it is not JSON: check --url".to_owned())
        })?;
        Ok(Self { text, json })
    }

    pub(crate) fn str(&self, field: &str) -> Option<&str> {
        self.json.get(field).and_then(Value::as_str)
    }
}

/// The output of a command.
pub(crate) struct Output<'a> {
    to: &'a mut dyn Write,
    json: bool,
    /// Whether to omit headings and notes.
    pub(crate) quiet: bool,
}

impl<'a> Output<'a> {
    pub(crate) fn new(to: &'a mut dyn Write, json: bool, quiet: bool) -> Self {
        Self { to, json, quiet }
    }

    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.to, "{line}").map_err(|error| Failure::output(&error))
    }

    /// Prints the server's text with exactly one line end.
    pub(crate) fn raw(&mut self, text: &str) -> Result<(), Failure> {
        self.line(text.trim_end_matches(['\r', '\n']))
    }

    /// Prints a note on stderr, unless `quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "tollgate: {}", cells::one_line(text));
        }
    }

    /// Prints one object.
    pub(crate) fn document(&mut self, document: &Document) -> Result<(), Failure> {
        if self.json {
            return self.raw(&document.text);
        }
        view::document(&document.json).iter().try_for_each(|line| self.line(line))
    }

    /// Prints a page of a list.
    pub(crate) fn page(&mut self, page: &Document, rows: &[Value], table: &mut Table) -> Result<(), Failure> {
        if self.json {
            return self.raw(&page.text);
        }
        table.lines(rows).iter().try_for_each(|line| self.line(line))
    }

    /// Prints an object with a new secret, which the server does not show again.
    pub(crate) fn secret(&mut self, document: &Document, field: &str) -> Result<(), Failure> {
        let secret = document.str(field).ok_or_else(|| {
            Failure::Broken(format!("the response is not from a tollgate, because it has no `{field}`: check --url"))
        })?;
        let printed = if self.quiet && !self.json { self.line(secret) } else { self.document(document) };
        printed.and_then(|()| self.to.flush().map_err(|error| Failure::output(&error))).map_err(|_| {
            let id = document.str("id").unwrap_or("unknown");
            Failure::Broken(format!(
                "the new {field} of id {id} could not be printed and is not shown again: replace it"
            ))
        })?;
        self.note(&format!("store the {field}: it is not shown again"));
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(|error| Failure::output(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &str = "{\"key\":\"tg_x_y\",\"id\":\"x\"}\n";

    fn printed(json: bool, quiet: bool) -> String {
        let mut to = Vec::new();
        let document = Document::parse(CREATED.to_owned()).unwrap();
        Output::new(&mut to, json, quiet).secret(&document, "key").unwrap();
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn a_secret_is_alone_on_its_line_when_quiet() {
        assert_eq!(printed(false, true), "tg_x_y\n");
        assert_eq!(printed(false, false), "id   x\nkey  tg_x_y\n");
        assert_eq!(printed(true, true), CREATED);
    }

    /// A closed pipe.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_ends_a_list_silently_but_a_lost_secret_is_reported() {
        let document = Document::parse(CREATED.to_owned()).unwrap();
        assert_eq!(Output::new(&mut Closed, false, true).document(&document), Err(Failure::OutputClosed));
        assert!(matches!(
            Output::new(&mut Closed, false, true).secret(&document, "key"),
            Err(Failure::Broken(message)) if message.contains("id x")
        ));
    }
}
