//! An incremental scanner of JSON in constant memory: it reports what lies at shallow paths, and the lengths of texts at all.
//!
//! It takes bytes in pieces of any size, does not recurse, and keeps nothing of a text but its first bytes, so neither deep
//! nesting nor a value of any length costs memory. It does not check the grammar: of a malformed text it reports what it can
//! recognise. What stands in a string never counts as structure.

use crate::tokens::names::JsonStep;

/// How deep values are reported one by one.
pub const LEVELS: usize = 8;
/// Bytes of a text that are kept: more than any name that is searched for.
const TEXT_LIMIT: usize = 64;
/// The largest number that is reported: 2^53 - 1, which JavaScript and D1 can still count with.
pub const NUMBER_LIMIT: u64 = (1 << 53) - 1;
/// A mantissa below this takes one more digit.
const MANTISSA_LIMIT: u64 = 10_u64.pow(18);

/// The kinds of containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonContainer {
    /// `{…}`.
    Object,
    /// `[…]`.
    Array,
}

/// The start of a text, unescaped.
#[derive(Debug, Clone)]
pub struct JsonText {
    bytes: [u8; TEXT_LIMIT],
    length: usize,
    is_whole: bool,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

impl JsonText {
    const EMPTY: Self = Self { bytes: [0; TEXT_LIMIT], length: 0, is_whole: true, high: None };

    /// The text's first bytes.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The text, unless it is longer than any that matters.
    #[must_use]
    pub fn whole(&self) -> Option<&[u8]> {
        self.is_whole.then(|| self.start())
    }

    fn clear(&mut self) {
        self.length = 0;
        self.is_whole = true;
        self.high = None;
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.high.take().is_some() {
            self.push_kept("\u{fffd}".as_bytes());
        }
        self.push_kept(bytes);
    }

    fn push_kept(&mut self, bytes: &[u8]) {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let kept = bytes.len().min(room.len());
        if let (Some((to, _)), Some((from, _))) = (room.split_at_mut_checked(kept), bytes.split_at_checked(kept)) {
            to.copy_from_slice(from);
        }
        self.length += kept;
        self.is_whole &= kept == bytes.len();
    }

    /// Adds a UTF-16 code unit, and says how many bytes the text became longer by.
    fn push_unit(&mut self, unit: u16) -> usize {
        let pending = self.high.take();
        let units = pending.into_iter().chain([unit]);
        if (0xd800..0xdc00).contains(&unit) {
            self.high = Some(unit);
            if pending.is_some() {
                self.push_kept("\u{fffd}".as_bytes());
            }
            return 0;
        }
        let mut added = 0;
        for char in char::decode_utf16(units) {
            let mut buffer = [0; 4];
            let bytes = char.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut buffer).as_bytes();
            self.push_kept(bytes);
            added += bytes.len();
        }
        added
    }
}

/// A number, read digit by digit: a mantissa and a power of ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonNumber {
    is_negative: bool,
    mantissa: u64,
    /// Of the mantissa's last digit.
    scale: i64,
    exponent: i64,
    has_negative_exponent: bool,
    /// Whether a digit other than 0 was left out of the mantissa.
    has_lost: bool,
    part: NumberPart,
    digits: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberPart {
    Integer,
    Fraction,
    Exponent,
}

impl JsonNumber {
    const START: Self = Self {
        is_negative: false,
        mantissa: 0,
        scale: 0,
        exponent: 0,
        has_negative_exponent: false,
        has_lost: false,
        part: NumberPart::Integer,
        digits: 0,
    };

    /// Reads a whole text, such as a number that a client has put in quotes.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut number = Self::START;
        let is_number = text.trim_ascii().iter().all(|byte| number.push(*byte));
        (is_number && number.digits > 0).then_some(number)
    }

    /// Whether it is less than zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.is_negative && (self.mantissa > 0 || self.has_lost)
    }

    /// The number, rounded up; at most [`NUMBER_LIMIT`], and 0 for what is negative.
    #[must_use]
    pub fn ceiling(&self) -> u64 {
        if self.is_negative {
            return 0;
        }
        let exponent = if self.has_negative_exponent { -self.exponent } else { self.exponent };
        let scale = self.scale.saturating_add(exponent);
        let power = u32::try_from(scale.unsigned_abs()).ok().and_then(|scale| 10_u64.checked_pow(scale));
        let value = match power {
            _ if self.mantissa == 0 => 0,
            Some(power) if scale >= 0 => self.mantissa.saturating_mul(power),
            None if scale >= 0 => u64::MAX,
            Some(power) => self.mantissa.div_ceil(power),
            None => 1,
        };
        // A lost digit is far behind the mantissa's last one, so it only counts where nothing else was rounded up.
        let is_rounded = scale < 0 && power.is_none_or(|power| !self.mantissa.is_multiple_of(power));
        value.saturating_add(u64::from(self.has_lost && !is_rounded)).min(NUMBER_LIMIT)
    }

    /// Takes the next character; `false` if no number has it there.
    fn push(&mut self, byte: u8) -> bool {
        match (byte, self.part) {
            (b'0'..=b'9', part) => {
                let digit = u64::from(byte - b'0');
                self.digits = self.digits.saturating_add(1);
                match part {
                    NumberPart::Exponent => {
                        let digit = i64::from(byte - b'0');
                        self.exponent = self.exponent.saturating_mul(10).saturating_add(digit).min(1 << 40);
                    }
                    _ if self.mantissa < MANTISSA_LIMIT => {
                        self.mantissa = self.mantissa * 10 + digit;
                        self.scale -= i64::from(part == NumberPart::Fraction);
                    }
                    _ => {
                        self.has_lost |= digit > 0;
                        self.scale += i64::from(part == NumberPart::Integer);
                    }
                }
            }
            (b'-', NumberPart::Integer) if self.digits == 0 && !self.is_negative => self.is_negative = true,
            (b'.', NumberPart::Integer) => self.part = NumberPart::Fraction,
            (b'e' | b'E', NumberPart::Integer | NumberPart::Fraction) => self.part = NumberPart::Exponent,
            (b'-', NumberPart::Exponent) => self.has_negative_exponent = true,
            (b'+', NumberPart::Exponent) => {}
            _ => return false,
        }
        true
    }
}

/// Where the name of a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonKey {
    /// The offset of its opening quote.
    pub start: u64,
    /// The offset of the comma before it; `None` for the first member of an object.
    pub separator: Option<u64>,
}

/// Where something was found.
#[derive(Debug)]
pub struct JsonPlace<'a> {
    /// The way from the root.
    pub path: &'a [JsonStep],
    /// Whether all names of the path are spelled as they should be.
    pub is_exact: bool,
    /// The member whose name or value it is.
    pub key: Option<JsonKey>,
    /// The offset of its first byte.
    pub start: u64,
    /// The offset after its last byte.
    pub end: u64,
}

/// What was found.
#[derive(Debug)]
pub enum JsonToken<'a> {
    /// A member's name. It is the last step of the path.
    Key,
    /// A container begins.
    Open(JsonContainer),
    /// A container ends; the path is that of the container.
    Close {
        /// Whether nothing was in it.
        is_empty: bool,
    },
    /// A number.
    Number(JsonNumber),
    /// A text.
    Text(&'a JsonText),
    /// `true`.
    True,
    /// `false`.
    False,
    /// `null`.
    Null,
    /// What is none of these, such as `NaN`.
    Word(&'a JsonText),
}

/// What takes the findings of a [`JsonScanner`].
pub trait JsonSink {
    /// Something was found at a path of at most [`LEVELS`] steps. Left out are names without a
    /// meaning below the root's own, what is no container at the end of one, and numbers in arrays.
    fn token(&mut self, place: &JsonPlace<'_>, token: &JsonToken<'_>);

    /// So many more bytes of a text were read. Of a text that is deeper than [`LEVELS`] the path is the beginning, and names
    /// are texts too.
    fn text(&mut self, path: &[JsonStep], bytes: usize) {
        let _ = (path, bytes);
    }
}

#[derive(Debug, Clone, Copy)]
struct Level {
    container: JsonContainer,
    is_exact: bool,
    is_empty: bool,
    /// In an object: whether the next text is a name.
    expects_key: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanState {
    Between,
    Text,
    Escape,
    Hex { digits: u8, unit: u16 },
    Number,
    Word,
}

/// The scanner.
#[derive(Debug, Clone)]
pub struct JsonScanner {
    folds_case: bool,
    depth: usize,
    levels: [Level; LEVELS],
    steps: [JsonStep; LEVELS],
    state: ScanState,
    is_key: bool,
    /// Whether the value that is being read is reported.
    is_wanted: bool,
    text: JsonText,
    number: JsonNumber,
    separator: Option<u64>,
    key: Option<JsonKey>,
    start: u64,
    end: u64,
}

impl JsonScanner {
    /// A scanner that finds names by their exact spelling.
    #[must_use]
    pub fn new() -> Self {
        let level = Level { container: JsonContainer::Array, is_exact: true, is_empty: true, expects_key: false };
        Self {
            folds_case: false,
            depth: 0,
            levels: [level; LEVELS],
            steps: [JsonStep::Other; LEVELS],
            state: ScanState::Between,
            is_key: false,
            is_wanted: false,
            text: JsonText::EMPTY,
            number: JsonNumber::START,
            separator: None,
            key: None,
            start: 0,
            end: 0,
        }
    }

    /// A scanner that also finds the names of requests in other letters: see [`JsonStep::of_folded`].
    #[must_use]
    pub fn without_case() -> Self {
        Self { folds_case: true, ..Self::new() }
    }

    /// Forgets what it has read, for another text.
    pub fn reset(&mut self) {
        self.depth = 0;
        self.state = ScanState::Between;
        self.separator = None;
        self.key = None;
    }

    /// Reads on. `at` is the offset that the first of the bytes is reported with.
    pub fn feed<S: JsonSink>(&mut self, at: u64, bytes: &[u8], sink: &mut S) {
        let mut rest = bytes;
        let mut at = at;
        while let Some((byte, after)) = rest.split_first() {
            let taken = match self.state {
                ScanState::Between => self.between(at, *byte, sink),
                ScanState::Text => self.read_text(at, rest, sink),
                ScanState::Number | ScanState::Word => self.read_word(at, rest, sink),
                ScanState::Escape => {
                    self.escape(*byte, sink);
                    1
                }
                ScanState::Hex { digits, unit } => self.hex(*byte, digits, unit, sink),
            };
            rest = if taken == 1 { after } else { rest.get(taken..).unwrap_or_default() };
            at += taken as u64;
        }
    }

    /// Ends the text: a number or a word at its very end is over.
    pub fn finish<S: JsonSink>(&mut self, sink: &mut S) {
        if matches!(self.state, ScanState::Number | ScanState::Word) {
            self.end_word(sink);
        }
    }

    /// Takes a byte of the structure, or begins a word before it: then none is taken.
    fn between<S: JsonSink>(&mut self, at: u64, byte: u8, sink: &mut S) -> usize {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' | b':' => {}
            b',' => {
                self.separator = Some(at);
                self.key = None;
                if let Some(level) = self.level() {
                    level.expects_key = level.container == JsonContainer::Object;
                }
            }
            b'{' => self.open(at, JsonContainer::Object, sink),
            b'[' => self.open(at, JsonContainer::Array, sink),
            b'}' | b']' => self.close(at, sink),
            b'"' => {
                self.is_key = self.level().is_some_and(|level| level.expects_key);
                self.begin(at, ScanState::Text);
            }
            b'-' | b'0'..=b'9' => {
                self.begin(at, ScanState::Number);
                self.number = JsonNumber::START;
                return 0;
            }
            _ => {
                self.begin(at, ScanState::Word);
                return 0;
            }
        }
        1
    }

    /// The innermost container, unless it is too deep.
    fn level(&mut self) -> Option<&mut Level> {
        self.levels.get_mut(self.depth.checked_sub(1)?)
    }

    fn path(&self) -> &[JsonStep] {
        self.steps.get(..self.depth).unwrap_or(&self.steps)
    }

    fn begin(&mut self, at: u64, state: ScanState) {
        self.start = at;
        self.end = at;
        self.state = state;
        self.text.clear();
        let is_text = state == ScanState::Text;
        self.is_wanted = match self.path().last() {
            _ if self.depth > LEVELS => false,
            _ if is_text && self.is_key => true,
            Some(JsonStep::Other) => false,
            Some(JsonStep::Item) => state != ScanState::Number,
            _ => true,
        };
        if let Some(level) = self.level() {
            level.is_empty = false;
        }
    }

    fn report<S: JsonSink>(&self, start: u64, end: u64, token: &JsonToken<'_>, sink: &mut S) {
        if self.depth <= LEVELS {
            let is_exact = !self.folds_case || self.levels.iter().take(self.depth).all(|level| level.is_exact);
            sink.token(&JsonPlace { path: self.path(), is_exact, key: self.key, start, end }, token);
        }
    }

    fn open<S: JsonSink>(&mut self, at: u64, container: JsonContainer, sink: &mut S) {
        if let Some(level) = self.level() {
            level.is_empty = false;
            level.expects_key = false;
        }
        self.report(at, at + 1, &JsonToken::Open(container), sink);
        if let (Some(level), Some(step)) = (self.levels.get_mut(self.depth), self.steps.get_mut(self.depth)) {
            let is_object = container == JsonContainer::Object;
            *level = Level { container, is_exact: true, is_empty: true, expects_key: is_object };
            *step = if is_object { JsonStep::Other } else { JsonStep::Item };
        }
        self.depth = self.depth.saturating_add(1);
        self.separator = None;
        self.key = None;
    }

    fn close<S: JsonSink>(&mut self, at: u64, sink: &mut S) {
        let is_empty = self.level().is_some_and(|level| level.is_empty);
        let Some(depth) = self.depth.checked_sub(1) else { return };
        self.depth = depth;
        self.key = None;
        self.report(at, at + 1, &JsonToken::Close { is_empty }, sink);
    }

    /// Reads a text up to its end or an escape that may go on in the next piece, and says how many
    /// bytes that were.
    fn read_text<S: JsonSink>(&mut self, at: u64, bytes: &[u8], sink: &mut S) -> usize {
        let mut rest = bytes;
        let mut length = 0;
        loop {
            let end = find_special(rest);
            let (run, after) = rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or((rest, &[]));
            length += run.len();
            if self.is_wanted && !run.is_empty() {
                self.text.push(run);
            }
            rest = match after {
                [b'\\', escaped, after @ ..] if *escaped != b'u' => {
                    length += 1;
                    self.push_escaped(*escaped);
                    after
                }
                _ => {
                    self.count_text(length, sink);
                    let taken = bytes.len() - after.len();
                    return match after.first() {
                        None => taken,
                        Some(b'"') => {
                            self.state = ScanState::Between;
                            self.end_text(at + taken as u64 + 1, sink);
                            taken + 1
                        }
                        Some(_) => {
                            self.state = ScanState::Escape;
                            taken + 1
                        }
                    };
                }
            };
        }
    }

    fn count_text<S: JsonSink>(&self, bytes: usize, sink: &mut S) {
        if !self.is_key && bytes > 0 {
            sink.text(self.path(), bytes);
        }
    }

    fn push_escaped(&mut self, byte: u8) {
        if self.is_wanted {
            self.text.push(&[match byte {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'b' => 8,
                b'f' => 12,
                other => other,
            }]);
        }
    }

    fn escape<S: JsonSink>(&mut self, byte: u8, sink: &mut S) {
        if byte == b'u' {
            self.state = ScanState::Hex { digits: 0, unit: 0 };
            return;
        }
        self.state = ScanState::Text;
        self.push_escaped(byte);
        self.count_text(1, sink);
    }

    fn hex<S: JsonSink>(&mut self, byte: u8, digits: u8, unit: u16, sink: &mut S) -> usize {
        let Some(digit) = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()) else {
            self.state = ScanState::Text;
            self.text.push(b"\\");
            return 0;
        };
        let unit = unit << 4 | digit;
        if digits < 3 {
            self.state = ScanState::Hex { digits: digits + 1, unit };
        } else {
            self.state = ScanState::Text;
            let added = self.text.push_unit(unit);
            self.count_text(added, sink);
        }
        1
    }

    fn end_text<S: JsonSink>(&mut self, end: u64, sink: &mut S) {
        self.text.push(&[]);
        if !self.is_key {
            if self.is_wanted {
                self.report(self.start, end, &JsonToken::Text(&self.text), sink);
            }
            return;
        }
        let name = self.text.whole().unwrap_or_default();
        let exact = JsonStep::of(name);
        let is_exact = exact != JsonStep::Other || !self.folds_case;
        let found = if is_exact { exact } else { JsonStep::of_folded(name) };
        if let (Some(level), Some(step)) = (
            self.depth.checked_sub(1).and_then(|depth| self.levels.get_mut(depth)),
            self.depth.checked_sub(1).and_then(|depth| self.steps.get_mut(depth)),
        ) {
            *step = found;
            level.is_exact = is_exact;
            level.expects_key = false;
        }
        self.key = Some(JsonKey { start: self.start, separator: self.separator });
        self.is_key = false;
        if found != JsonStep::Other || self.depth == 1 {
            self.report(self.start, end, &JsonToken::Key, sink);
        }
    }

    /// Reads a number or a word up to the byte that ends it, and says how many bytes that were.
    fn read_word<S: JsonSink>(&mut self, at: u64, bytes: &[u8], sink: &mut S) -> usize {
        let is_end =
            |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"');
        let end = bytes.iter().position(is_end);
        let run = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if !run.is_empty() {
            self.end = at + run.len() as u64;
        }
        if self.is_wanted {
            self.text.push(run);
            if self.state == ScanState::Number && !run.iter().all(|byte| self.number.push(*byte)) {
                self.state = ScanState::Word;
            }
        }
        if end.is_some() {
            self.end_word(sink);
        }
        run.len()
    }

    fn end_word<S: JsonSink>(&mut self, sink: &mut S) {
        let is_number = self.state == ScanState::Number;
        self.state = ScanState::Between;
        if !self.is_wanted {
            return;
        }
        let token = match self.text.whole() {
            _ if is_number => JsonToken::Number(self.number),
            Some(b"true") => JsonToken::True,
            Some(b"false") => JsonToken::False,
            Some(b"null") => JsonToken::Null,
            _ => JsonToken::Word(&self.text),
        };
        self.report(self.start, self.end, &token, sink);
    }
}

/// Where a text's next quote or backslash is. Most texts end soon, and a search of many bytes at a
/// time takes longer to begin.
fn find_special(bytes: &[u8]) -> Option<usize> {
    const NEAR: usize = 24;
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\');
    let (near, far) = bytes.split_at_checked(NEAR).unwrap_or((bytes, &[]));
    let in_far = || memchr::memchr2(b'"', b'\\', far).map(|at| at + NEAR);
    near.iter().position(is_special).or_else(in_far)
}

impl Default for JsonScanner {
    fn default() -> Self {
        Self::new()
    }
}
