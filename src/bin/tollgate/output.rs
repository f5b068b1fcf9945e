//! Standard output: JSON as it came, or laid out.

use std::io::{self, Write};

use serde_json::Value;

use crate::cells;
use crate::failure::Failure;
use crate::view::{self, Table};

/// An answer of the server: its own text, and what that says.
pub(crate) struct Document {
    text: String,
    pub(crate) json: Value,
}

impl Document {
    pub(crate) fn parse(text: String) -> Result<Self, Failure> {
        let json = serde_json::from_str(&text)
            .map_err(|_| Failure::Broken("the answer is not JSON: is this the address of a tollgate?".to_owned()))?;
        Ok(Self { text, json })
    }

    pub(crate) fn str(&self, field: &str) -> Option<&str> {
        self.json.get(field).and_then(Value::as_str)
    }
}

/// Where and how a command prints.
pub(crate) struct Output<'a> {
    to: &'a mut dyn Write,
    json: bool,
    /// No headings and no notes.
    pub(crate) quiet: bool,
}

impl<'a> Output<'a> {
    pub(crate) fn new(to: &'a mut dyn Write, json: bool, quiet: bool) -> Self {
        Self { to, json, quiet }
    }

    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.to, "{line}").map_err(|error| Failure::output(&error))
    }

    /// The server's text, ending in one line end.
    pub(crate) fn raw(&mut self, text: &str) -> Result<(), Failure> {
        self.line(text.trim_end_matches(['\r', '\n']))
    }

    /// A remark for a person; never among the output.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "tollgate: {}", cells::one_line(text));
        }
    }

    /// One thing.
    pub(crate) fn document(&mut self, document: &Document) -> Result<(), Failure> {
        if self.json {
            return self.raw(&document.text);
        }
        view::document(&document.json).iter().try_for_each(|line| self.line(line))
    }

    /// Rows of a list that a page holds.
    pub(crate) fn page(&mut self, page: &Document, rows: &[Value], table: &mut Table) -> Result<(), Failure> {
        if self.json {
            return self.raw(&page.text);
        }
        table.lines(rows).iter().try_for_each(|line| self.line(line))
    }

    /// A thing with a secret that is shown this once.
    pub(crate) fn secret(&mut self, document: &Document, field: &str) -> Result<(), Failure> {
        let secret = document.str(field).ok_or_else(|| {
            Failure::Broken(format!("the answer has no `{field}`: is this the address of a tollgate?"))
        })?;
        let printed = if self.quiet && !self.json { self.line(secret) } else { self.document(document) };
        printed.and_then(|()| self.to.flush().map_err(|error| Failure::output(&error))).map_err(|_| {
            let id = document.str("id").unwrap_or("unknown");
            Failure::Broken(format!("the new {field} of id {id} could not be printed, and is shown only once"))
        })?;
        self.note(&format!("keep the {field}: it is not shown again"));
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

    /// Takes nothing, as a pipe that nobody reads.
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
    fn a_closed_pipe_ends_a_list_quietly_but_a_lost_secret_is_told() {
        let document = Document::parse(CREATED.to_owned()).unwrap();
        assert_eq!(Output::new(&mut Closed, false, true).document(&document), Err(Failure::OutputClosed));
        assert!(matches!(
            Output::new(&mut Closed, false, true).secret(&document, "key"),
            Err(Failure::Broken(message)) if message.contains("id x")
        ));
    }
}
