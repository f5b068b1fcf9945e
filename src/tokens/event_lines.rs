//! The lines of an event stream (`text/event-stream`, as the HTML standard has it), found in pieces of any size.

const FIELD: &[u8; 4] = b"data";

/// What the next bytes of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventPiece {
    /// Bytes of the event's data.
    Data,
    /// The end of a line of data.
    DataEnd,
    /// The blank line that ends an event, or its carriage return.
    Blank,
    /// The line feed after that carriage return.
    BlankRest,
    /// Other fields, comments, names of fields.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinePart {
    /// So many letters of the field's name were read.
    Name(usize),
    /// After the colon.
    Colon,
    Data,
    Ignored,
}

/// A reader of lines.
#[derive(Debug, Clone)]
pub struct EventLines {
    part: LinePart,
    is_after_return: bool,
    is_after_blank: bool,
    /// Whether a byte order mark may still come.
    is_first: bool,
}

impl EventLines {
    /// At the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self { part: LinePart::Name(0), is_after_return: false, is_after_blank: false, is_first: true }
    }

    /// The length of the next piece and what it is; `None` without bytes.
    pub fn next(&mut self, bytes: &[u8]) -> Option<(usize, EventPiece)> {
        let first = *bytes.first()?;
        if std::mem::take(&mut self.is_after_return) && first == b'\n' {
            return Some((1, if self.is_after_blank { EventPiece::BlankRest } else { EventPiece::Other }));
        }
        let is_end = matches!(first, b'\r' | b'\n');
        Some(match self.part {
            LinePart::Name(0) if is_end => (1, self.end_line(first, EventPiece::Blank)),
            LinePart::Name(_) if is_end => (1, self.end_line(first, EventPiece::Other)),
            LinePart::Colon | LinePart::Data if is_end => (1, self.end_line(first, EventPiece::DataEnd)),
            LinePart::Name(0) if self.is_first && matches!(first, 0xef | 0xbb | 0xbf) => (1, EventPiece::Other),
            LinePart::Name(0) if bytes.starts_with(b"data: ") => {
                self.is_first = false;
                self.part = LinePart::Data;
                (6, EventPiece::Other)
            }
            LinePart::Name(letters) => {
                self.is_first = false;
                self.part = match FIELD.get(letters) {
                    Some(letter) if *letter == first => LinePart::Name(letters + 1),
                    None if first == b':' => LinePart::Colon,
                    _ => LinePart::Ignored,
                };
                (1, EventPiece::Other)
            }
            LinePart::Colon if first == b' ' => {
                self.part = LinePart::Data;
                (1, EventPiece::Other)
            }
            LinePart::Colon | LinePart::Data => {
                self.part = LinePart::Data;
                (memchr::memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len()), EventPiece::Data)
            }
            LinePart::Ignored => match memchr::memchr2(b'\r', b'\n', bytes) {
                None => (bytes.len(), EventPiece::Other),
                Some(0) => (1, self.end_line(first, EventPiece::Other)),
                Some(end) => (end, EventPiece::Other),
            },
        })
    }

    fn end_line(&mut self, end: u8, piece: EventPiece) -> EventPiece {
        self.part = LinePart::Name(0);
        self.is_first = false;
        self.is_after_return = end == b'\r';
        self.is_after_blank = piece == EventPiece::Blank;
        piece
    }
}

impl Default for EventLines {
    fn default() -> Self {
        Self::new()
    }
}
