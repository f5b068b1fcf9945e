//! Route patterns, and matching them against paths in all their spellings.
//!
//! Each segment of a pattern is a literal, `*` for one segment, or `**` for any number including
//! none. A `*` at the end matches one or more segments.
//!
//! Origins interpret paths differently. Some decode once, some twice. Some drop `;parameters`,
//! trailing spaces or dots. Some treat `%2F` as a slash, some as data. The gate cannot determine
//! how its origin does. So a path has several *readings*, and a route is charged if any of them
//! matches: see [`Routes::dearest`]. A path without such peculiarities has one reading.

use crate::http::target::{decode_fully, decode_visible, is_cut_at, is_space, percent_decode_bytes, text_of};
use std::borrow::Cow;

/// How the letters of a path compare with the patterns of `route_costs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RouteCase {
    /// Case matters.
    #[default]
    Sensitive,
    /// Case does not matter.
    Insensitive,
}

/// Maximum number of segments of a path with several readings. A longer one may match any route.
/// This bounds the CPU time per path; no API has routes this long.
const SEGMENTS_LIMIT: usize = 256;

/// Whether a pattern matches a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// It matches no reading of the path.
    Never,
    /// It matches at least one reading.
    Possible,
    /// It matches every reading.
    Certain,
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
    /// Length of the pattern in bytes without its `/**`, the least specific parts.
    length: usize,
    wildcards: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal {
        exact: String,
        folded: String,
    },
    One,
    /// Any number of segments.
    Rest,
}

impl Part {
    fn literal(text: &str) -> Self {
        Self::Literal { exact: text.to_owned(), folded: fold(text) }
    }
}

/// Folds case: letters that a case-insensitive comparison treats as equal become equal. `K`
/// (kelvin) becomes `k`.
fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

impl Pattern {
    /// Compiles a pattern. Every text is a valid one.
    #[must_use]
    pub fn parse(pattern: &str) -> Self {
        const REST: &str = "/**";
        let (mut parts, mut length, mut wildcards) = (Vec::new(), pattern.len(), 0);
        for segment in pattern.split('/').filter(|segment| !segment.is_empty()) {
            match segment {
                "*" => parts.push(Part::One),
                "**" => {
                    length = length.saturating_sub(REST.len());
                    parts.push(Part::Rest);
                }
                literal => {
                    let decoded = decode_fully(literal);
                    parts.extend(text_of(&decoded).split('/').filter(|part| !part.is_empty()).map(Part::literal));
                    continue;
                }
            }
            wildcards += 1;
        }
        if parts.last() == Some(&Part::One) {
            parts.push(Part::Rest);
        }
        Self { parts, length, wildcards }
    }

    /// Whether the pattern matches a path.
    #[must_use]
    pub fn matches(&self, path: &RequestPath<'_>) -> Match {
        if path.is_boundless {
            return Match::Possible;
        }
        if path.spellings.iter().all(|segments| self.is_certain(segments, path.case)) {
            return Match::Certain;
        }
        let is_decided = path.is_plain && self.parts.iter().rev().skip(1).all(|part| *part != Part::Rest);
        if !is_decided && path.spellings.iter().any(|segments| self.is_possible(segments, path.case)) {
            // A plain path has only one reading.
            return if path.is_plain { Match::Certain } else { Match::Possible };
        }
        Match::Never
    }

    /// Whether the segments match one by one in every reading. May return `false` where a decision
    /// needs more than one pass.
    fn is_certain(&self, segments: &[Segment<'_>], case: RouteCase) -> bool {
        let mut rest = segments.iter().peekable();
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            if *part == Part::Rest {
                return parts.peek().is_none();
            }
            let Some(segment) = rest.next().filter(|segment| !segment.follows_encoded_slash) else { return false };
            let is_one = match part {
                Part::One => !segment.may_vanish,
                _ => {
                    segment.is_sure
                        && segment.reads_as(part, case)
                        && rest.peek().is_none_or(|next| !next.follows_encoded_slash)
                }
            };
            if !is_one {
                return false;
            }
        }
        rest.next().is_none()
    }

    /// Whether the segments match in any reading. Simulates an automaton whose states are the
    /// numbers of matched parts.
    fn is_possible(&self, segments: &[Segment<'_>], case: RouteCase) -> bool {
        let mut states = States::none(self.parts.len());
        let mut next = States::none(self.parts.len());
        states.reach(0, false, &self.parts);
        for segment in segments {
            if states.are_over() {
                return false;
            }
            states.pass(segment, &self.parts, case, &mut next);
            std::mem::swap(&mut states, &mut next);
        }
        states.have_ended()
    }
}

/// The possible states of a match between two segments, by number of matched parts.
struct States {
    /// The segment has ended.
    at_boundary: Vec<bool>,
    /// The segment continues, if the slash that follows is data.
    inside: Vec<bool>,
}

impl States {
    fn none(parts: usize) -> Self {
        let none = vec![false; parts.saturating_add(1)];
        Self { at_boundary: none.clone(), inside: none }
    }

    /// Adds a state, and those that follow because `**` may match nothing.
    fn reach(&mut self, mut matched: usize, goes_on: bool, parts: &[Part]) {
        if goes_on && let Some(inside) = self.inside.get_mut(matched) {
            *inside = true;
        }
        while let Some(state) = self.at_boundary.get_mut(matched) {
            *state = true;
            if parts.get(matched) != Some(&Part::Rest) {
                break;
            }
            matched += 1;
        }
    }

    /// Sets `next` to the states after a segment.
    fn pass(&self, segment: &Segment<'_>, parts: &[Part], case: RouteCase, next: &mut Self) {
        next.at_boundary.fill(false);
        next.inside.fill(false);
        for (matched, (at_boundary, inside)) in self.at_boundary.iter().zip(&self.inside).enumerate() {
            if *inside && segment.follows_encoded_slash {
                next.reach(matched, true, parts);
            }
            if !at_boundary {
                continue;
            }
            if segment.may_vanish {
                next.reach(matched, segment.has_parameters, parts);
            }
            match parts.get(matched) {
                Some(Part::One) => next.reach(matched + 1, true, parts),
                Some(Part::Rest) => next.reach(matched, true, parts),
                Some(literal) if segment.reads_as(literal, case) => {
                    next.reach(matched + 1, segment.has_parameters, parts);
                }
                _ => {}
            }
        }
    }

    /// Whether no state is left. A segment that may continue may also have ended, so `at_boundary`
    /// suffices.
    fn are_over(&self) -> bool {
        !self.at_boundary.contains(&true)
    }

    fn have_ended(&self) -> bool {
        self.at_boundary.last() == Some(&true)
    }
}

/// The path of a request in all its readings.
#[derive(Debug)]
pub struct RequestPath<'a> {
    /// The segments of the path in up to four forms: whole or cut at an encoded `?` or `#`, each
    /// with or without invisible characters.
    spellings: Vec<Vec<Segment<'a>>>,
    case: RouteCase,
    /// Whether the path has only one reading.
    is_plain: bool,
    /// Whether the path has too many segments to compare its readings.
    is_boundless: bool,
}

/// The text between two slashes, encoded ones included.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
struct Segment<'a> {
    /// Decoded until nothing changes.
    text: Cow<'a, str>,
    /// Its other readings.
    others: Vec<String>,
    /// Whether an encoded slash precedes it, which some origins treat as data.
    follows_encoded_slash: bool,
    /// Whether it has `;parameters`, which end at the next slash. Whether an encoded slash ends
    /// them depends on the origin.
    has_parameters: bool,
    /// Whether some origins drop it.
    may_vanish: bool,
    /// Whether all origins read it alike.
    is_sure: bool,
}

impl<'a> RequestPath<'a> {
    /// Reads a path as sent.
    #[must_use]
    pub fn read(path: &'a str, case: RouteCase) -> Self {
        let mut spellings = vec![segments(path, case, false, false)];
        if path.bytes().any(|byte| byte == b'%' || !byte.is_ascii_graphic()) {
            let decoded = decode_fully(path);
            let visible = decode_visible(path);
            let is_all_visible = *decoded == *visible.as_bytes();
            let has_cut = visible.contains(is_cut_at);
            if has_cut {
                spellings.push(segments(path, case, false, true));
            }
            if !is_all_visible {
                spellings.push(segments(path, case, true, false));
            }
            if has_cut && !is_all_visible {
                spellings.push(segments(path, case, true, true));
            }
        }
        let is_odd = |segment: &Segment<'_>| !segment.is_sure || segment.follows_encoded_slash || segment.may_vanish;
        let is_plain = matches!(spellings.as_slice(), [only] if !only.iter().any(is_odd));
        let is_boundless = !is_plain && spellings.iter().any(|segments| segments.len() > SEGMENTS_LIMIT);
        Self { spellings, case, is_plain, is_boundless }
    }
}

/// Splits a path into segments, without empty ones at its end.
fn segments(path: &str, case: RouteCase, is_visible: bool, ends_at_query: bool) -> Vec<Segment<'_>> {
    let mut segments = Vec::new();
    let path = path.strip_prefix('/').unwrap_or(path).trim_end_matches('/');
    for raw in path.split('/').filter(|_| !path.is_empty()) {
        if raw.is_empty() || is_plain(raw) {
            segments.push(Segment::plain(raw, case));
            continue;
        }
        let decoded = decode_fully(raw);
        let text = if is_visible { Cow::Owned(decode_visible(raw)) } else { text_of(&decoded) };
        let is_clear = !has_needless_escape(raw)
            && *percent_decode_bytes(raw) == *decoded
            && std::str::from_utf8(&decoded).is_ok();
        let end = text.find(is_cut_at).filter(|_| ends_at_query);
        for (index, text) in text.get(..end.unwrap_or(text.len())).unwrap_or_default().split('/').enumerate() {
            segments.push(Segment::odd(text, case, is_clear, index > 0));
        }
        if end.is_some() {
            break;
        }
    }
    segments
}

/// Whether a segment, as sent, has only one reading. May return `false` for such a segment.
fn is_plain(raw: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b';' | b'(' | b'?' | b'#');
    !raw.is_empty() && raw.bytes().all(is_usual) && !raw.starts_with('+') && !raw.ends_with(['.', '+'])
}

/// Whether an unreserved character is encoded. Some origins compare paths without decoding, and
/// only such a character can keep them from matching a route.
fn has_needless_escape(raw: &str) -> bool {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let escaped = |escape: &str| u8::from_str_radix(escape.get(..2)?, 16).ok();
    raw.split('%').skip(1).filter_map(escaped).any(is_unreserved)
}

impl<'a> Segment<'a> {
    fn plain(raw: &'a str, case: RouteCase) -> Self {
        let text = match case {
            RouteCase::Insensitive if raw.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Cow::Owned(raw.to_ascii_lowercase())
            }
            _ => Cow::Borrowed(raw),
        };
        let (follows_encoded_slash, has_parameters, may_vanish) = (false, false, raw.is_empty());
        Self { text, others: Vec::new(), follows_encoded_slash, has_parameters, may_vanish, is_sure: true }
    }

    fn odd(text: &str, case: RouteCase, is_clear: bool, follows_encoded_slash: bool) -> Self {
        let folded = match case {
            RouteCase::Sensitive => text.to_owned(),
            RouteCase::Insensitive => fold(text),
        };
        // Some origins ignore case for ASCII letters only.
        let is_folded_by_all = case == RouteCase::Sensitive || folded == text.to_ascii_lowercase();
        let mut others = Vec::new();
        let mut add = |reading: &str| {
            if reading != folded && others.iter().all(|other| other != reading) {
                others.push(reading.to_owned());
            }
        };
        let bare = folded.split(';').next().unwrap_or_default();
        for whole in [folded.as_str(), bare] {
            let trimmed = whole.trim_matches(is_space);
            for reading in [whole, trimmed, trimmed.trim_end_matches(|c| c == '.' || is_space(c))] {
                add(reading);
            }
        }
        Self {
            has_parameters: bare.len() < folded.len(),
            may_vanish: folded.is_empty() || others.iter().any(String::is_empty) || is_cookieless_session(&folded),
            is_sure: is_clear && is_folded_by_all && others.is_empty(),
            follows_encoded_slash,
            text: Cow::Owned(folded),
            others,
        }
    }

    fn reads_as(&self, part: &Part, case: RouteCase) -> bool {
        let Part::Literal { exact, folded } = part else { return false };
        let literal = if case == RouteCase::Sensitive { exact } else { folded };
        self.text == *literal || self.others.contains(literal)
    }
}

/// The form `(S(…))`, which ASP.NET removes from paths.
fn is_cookieless_session(segment: &str) -> bool {
    let mut start = segment.chars();
    start.next() == Some('(')
        && start.next().is_some_and(|c| c.is_ascii_alphabetic())
        && start.next() == Some('(')
        && segment.ends_with("))")
}

/// A table of values by pattern and method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes<T> {
    rows: Vec<(Pattern, String, T)>,
}

/// How close a row is to a request, by precedence: length of the pattern, fewest wildcards,
/// specific method.
type Closeness = (usize, std::cmp::Reverse<usize>, Method);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Method {
    Any,
    /// A row for `GET`, applied to `HEAD`.
    Get,
    Same,
}

impl Method {
    fn of(row: &str, method: &str) -> Option<Self> {
        match row {
            "*" => Some(Self::Any),
            _ if row == method => Some(Self::Same),
            "GET" if method == "HEAD" => Some(Self::Get),
            _ => None,
        }
    }
}

impl<T> Routes<T> {
    /// Compiles a table of pattern, method (`*` for all) and value.
    pub fn new<'a>(rows: impl IntoIterator<Item = (&'a str, &'a str, T)>) -> Self {
        let row = |(pattern, method, value): (&str, &str, T)| (Pattern::parse(pattern), method.to_owned(), value);
        Self { rows: rows.into_iter().map(row).collect() }
    }

    /// The value for a request. Each reading of its path has a closest match; of these, the one
    /// with the highest price. Also returns whether each reading has a closest match, and `holds` is
    /// true of all of them: an origin may read the path in any of these ways.
    pub fn dearest(
        &self,
        method: &str,
        path: &str,
        case: RouteCase,
        price: impl Fn(&T) -> u64,
        holds: impl Fn(&T) -> bool,
    ) -> Option<(&T, bool)> {
        let (candidates, is_certain) = self.candidates(method, path, case);
        let holds_for_all = is_certain && candidates.iter().all(|(_, value)| holds(value));
        let dearest = candidates.into_iter().max_by_key(|(closeness, value)| (price(value), *closeness));
        dearest.map(|(_, value)| (value, holds_for_all))
    }

    /// The values of which each is that of the closest match of a reading, or may be.
    pub fn of_readings(&self, method: &str, path: &str, case: RouteCase) -> impl Iterator<Item = &T> {
        self.candidates(method, path, case).0.into_iter().map(|(_, value)| value)
    }

    /// Those values, and whether each reading has a match.
    fn candidates(&self, method: &str, path: &str, case: RouteCase) -> (Vec<(Closeness, &T)>, bool) {
        if self.rows.is_empty() {
            return (Vec::new(), false);
        }
        let path = RequestPath::read(path, case);
        let mut matches: Vec<(Closeness, Match, &T)> = Vec::new();
        for (pattern, row_method, value) in &self.rows {
            let Some(method) = Method::of(row_method, method) else { continue };
            let closeness = (pattern.length, std::cmp::Reverse(pattern.wildcards), method);
            match pattern.matches(&path) {
                Match::Never => {}
                agreement => matches.push((closeness, agreement, value)),
            }
        }
        // A row that matches every reading bounds the closeness of each reading's closest match.
        let is_certain =
            |(closeness, agreement, _): &(Closeness, Match, &T)| (*agreement == Match::Certain).then_some(*closeness);
        let furthest = matches.iter().filter_map(is_certain).max();
        let candidates = matches.into_iter().filter(|(closeness, ..)| furthest.is_none_or(|it| *closeness >= it));
        (candidates.map(|(closeness, _, value)| (closeness, value)).collect(), furthest.is_some())
    }
}
