//! No spelling of a path is cheaper than the route that an origin resolves it to: random tables,
//! paths and origins.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tollgate::http::target::Target;
use tollgate::keys::route_cost::{DEFAULT_COST, RouteCost, RouteCosts};
use tollgate::keys::route_pattern::RouteCase;

const WORDS: [&str; 6] = ["v1", "a", "export", "health", "b.c", "é"];

fn table() -> impl Strategy<Value = Vec<RouteCost>> {
    let segment = prop_oneof![4 => select(&WORDS[..]), 3 => Just("*"), 1 => Just("**")];
    let row = (vec(segment, 0..4), select(&["*", "GET", "HEAD", "POST"][..]), 1..9_u64);
    vec(row, 0..6).prop_map(|rows| {
        let mut table: Vec<RouteCost> = Vec::new();
        for (segments, method, cost) in rows {
            let row = RouteCost {
                pattern: format!("/{}", segments.join("/")),
                method: method.to_owned(),
                cost,
                reprice: false,
            };
            if table.iter().all(|other| (&other.pattern, &other.method) != (&row.pattern, &row.method)) {
                table.push(row);
            }
        }
        table
    })
}

// The definition, literally.

fn agrees(pattern: &[&str], segments: &[String], same: &dyn Fn(&str, &str) -> bool) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return segments.is_empty() };
    let mut tails = (0..=segments.len()).map(|at| &segments[at..]);
    match *first {
        "**" => tails.any(|tail| agrees(rest, tail, same)),
        "*" if rest.is_empty() => !segments.is_empty(),
        "*" => !segments.is_empty() && agrees(rest, &segments[1..], same),
        literal => segments.first().is_some_and(|it| same(literal, it)) && agrees(rest, &segments[1..], same),
    }
}

/// The highest cost of the closest rows.
fn closest(table: &[RouteCost], method: &str, segments: &[String], same: &dyn Fn(&str, &str) -> bool) -> Option<u64> {
    let rank = |row: &RouteCost| match row.method.as_str() {
        own if own == method => 2,
        "GET" if method == "HEAD" => 1,
        "*" => 0,
        _ => -1,
    };
    let key = |row: &RouteCost| {
        let wildcards = row.pattern.split('/').filter(|it| it.starts_with('*')).count();
        (row.pattern.replace("/**", "").len(), usize::MAX - wildcards, rank(row))
    };
    let parts = |row: &RouteCost| -> Vec<String> {
        row.pattern.split('/').filter(|it| !it.is_empty()).map(str::to_owned).collect()
    };
    let fits = |row: &&RouteCost| {
        let parts = parts(row);
        rank(row) >= 0 && agrees(&parts.iter().map(String::as_str).collect::<Vec<_>>(), segments, same)
    };
    let fitting: Vec<&RouteCost> = table.iter().filter(fits).collect();
    let closest = fitting.iter().map(|row| key(row)).max()?;
    fitting.into_iter().filter(|row| key(row) == closest).map(|row| row.cost).max()
}

/// An origin: how it transforms a path before it finds a route.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)]
struct Origin {
    /// Number of times it decodes.
    decodes: usize,
    /// Whether it decodes `%uxxxx`.
    decodes_unicode: bool,
    /// Whether it decodes overlong UTF-8.
    is_lax: bool,
    /// Whether an encoded slash separates segments.
    splits_decoded: bool,
    merges_slashes: bool,
    /// Whether it drops `;…` before it decodes, or after.
    drops_parameters: Option<bool>,
    ends_at_question_mark: bool,
    /// Whether it drops invisible characters and what is not UTF-8.
    drops_invisible: bool,
    trims_spaces: bool,
    trims_dots: bool,
    drops_sessions: bool,
}

fn origin() -> impl Strategy<Value = Origin> {
    let flags = proptest::array::uniform9(any::<bool>());
    (0..4_usize, proptest::option::of(any::<bool>()), flags).prop_map(|(decodes, drops_parameters, flags)| Origin {
        decodes,
        drops_parameters,
        decodes_unicode: flags[0],
        is_lax: flags[1],
        splits_decoded: flags[2],
        merges_slashes: flags[3],
        ends_at_question_mark: flags[4],
        drops_invisible: flags[5],
        trims_spaces: flags[6],
        trims_dots: flags[7],
        drops_sessions: flags[8],
    })
}

impl Origin {
    fn segments(&self, path: &str) -> Vec<String> {
        let mut path = path.to_owned();
        if self.drops_parameters == Some(true) {
            path = path.split('/').map(|raw| raw.split(';').next().unwrap()).collect::<Vec<_>>().join("/");
        }
        let whole = if self.splits_decoded { self.decode(&path) } else { path };
        let mut segments: Vec<String> = Vec::new();
        for segment in whole.split('/').skip(1) {
            let mut segment = if self.splits_decoded { segment.to_owned() } else { self.decode(segment) };
            let end = segment.find(['?', '#']).filter(|_| self.ends_at_question_mark);
            segment.truncate(end.unwrap_or(segment.len()));
            if self.drops_parameters == Some(false) {
                segment.truncate(segment.find(';').unwrap_or(segment.len()));
            }
            if self.drops_invisible {
                segment.retain(|c| !c.is_control() && !['\u{200b}', '\u{feff}', '\u{fffd}'].contains(&c));
            }
            if self.trims_spaces {
                let is_space = |c| [' ', '\u{a0}', '+', '\n', '\t'].contains(&c);
                segment.truncate(segment.trim_end_matches(is_space).len());
                segment.drain(..segment.len() - segment.trim_start_matches(is_space).len());
            }
            if self.trims_dots {
                segment.truncate(segment.trim_end_matches([' ', '.']).len());
            }
            if !(self.drops_sessions && segment.starts_with("(S(")) {
                segments.push(segment);
            }
            if end.is_some() {
                break;
            }
        }
        while segments.last().is_some_and(String::is_empty) {
            segments.pop();
        }
        segments.retain(|segment| !(self.merges_slashes && segment.is_empty()));
        segments
    }

    fn decode(&self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..self.decodes {
            let (mut decoded, mut at) = (Vec::new(), 0);
            while at < bytes.len() {
                let number = |from: usize, to: usize| {
                    let digits = bytes.get(from..to).filter(|it| it.iter().all(u8::is_ascii_hexdigit))?;
                    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
                };
                if bytes[at] == b'%'
                    && let Some(byte) = number(at + 1, at + 3)
                {
                    decoded.push(u8::try_from(byte).unwrap());
                    at += 3;
                } else if self.decodes_unicode
                    && bytes[at..].starts_with(b"%u")
                    && let Some(c) = number(at + 2, at + 6).and_then(char::from_u32)
                {
                    decoded.extend(c.to_string().bytes());
                    at += 6;
                } else {
                    decoded.push(bytes[at]);
                    at += 1;
                }
            }
            bytes = decoded;
            if self.is_lax {
                for (overlong, ascii) in [(&[0xc1, 0xa5][..], b'e'), (&[0xc0, 0xaf][..], b'/')] {
                    while let Some(at) = bytes.windows(2).position(|pair| pair == overlong) {
                        bytes.splice(at..at + 2, [ascii]);
                    }
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

// Spellings.

fn escaped(c: char) -> impl Strategy<Value = String> {
    let hex: String = c.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
    let twice = hex.replace('%', "%25");
    let unicode = format!("%u{:04X}", u32::from(c));
    let within = hex.chars().map(|c| if c == '%' { c.to_string() } else { format!("%{:02X}", u32::from(c)) }).collect();
    let overlong = if c == 'e' { "%c1%a5".to_owned() } else { hex.clone() };
    let plain = c.to_string();
    prop_oneof![24 => Just(plain), 2 => Just(hex), 1 => Just(twice), 1 => Just(unicode), 1 => Just(within), 1 => Just(overlong)]
}

/// Additions to a segment that some origins ignore.
const ADDED: [&str; 15] =
    ["", "", "", "", "", "", ";x=1", ";", "%3bx", "%20", ".", "%0a", "%2509", "%c2%a0", ";p=%2fz"];
const SLASHES: [&str; 12] = ["/", "/", "/", "/", "/", "//", "%2f", "%252F", "/;x/", "/%20/", "/(S(x))/", "%c0%af"];

fn word() -> impl Strategy<Value = (String, String)> {
    (select(&WORDS[..]), select(&["", "", "", "%20", "%0a", "+", "%bf"][..]), select(&ADDED[..])).prop_flat_map(
        |(word, before, after)| {
            let characters: Vec<_> = word.chars().map(escaped).collect();
            characters.prop_map(move |text| (word.to_owned(), format!("{before}{}{after}", text.concat())))
        },
    )
}

/// A path and another spelling of it.
fn spelled() -> impl Strategy<Value = (String, String)> {
    let words = vec((select(&SLASHES[..]), word()), 0..4);
    (words, select(&["", "", "", "/", "//", "%2f", "/;x", "%3fq", "%23"][..])).prop_map(|(words, end)| {
        let plain = words.iter().map(|(_, (word, _))| ["/", word].concat()).collect::<String>();
        let spelled: String = words.iter().map(|(slash, (_, text))| [slash, text.as_str()].concat()).collect();
        let spelled = if spelled.starts_with('/') { spelled } else { format!("/{spelled}") };
        (if plain.is_empty() { "/".to_owned() } else { plain }, format!("{spelled}{end}"))
    })
}

fn cost(table: &[RouteCost], method: &str, path: &str, case: RouteCase) -> u64 {
    RouteCosts::new(table).price(method, path, case).cost
}

fn segments(path: &str) -> Vec<String> {
    path.split('/').filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// Whether the gate forwards it.
fn is_forwarded(path: &str) -> bool {
    Target::parse(&format!("http://host{path}")).is_ok()
}

fn method() -> impl Strategy<Value = &'static str> {
    select(&["GET", "HEAD", "POST", "PUT"][..])
}

fn exactly(literal: &str, segment: &str) -> bool {
    literal == segment
}

fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 2_000, ..config } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_plain_path_has_the_cost_of_its_closest_row(table in table(), (plain, _) in spelled(), method in method()) {
        let expected = closest(&table, method, &segments(&plain), &exactly).unwrap_or(DEFAULT_COST);
        prop_assert_eq!(cost(&table, method, &plain, RouteCase::Sensitive), expected);
        // Letters beyond ASCII may or may not be folded.
        if plain.is_ascii() {
            prop_assert_eq!(cost(&table, method, &plain, RouteCase::Insensitive), expected);
        }
    }

    #[test]
    fn no_spelling_is_cheaper_than_the_path(table in table(), (plain, spelled) in spelled(), method in method()) {
        prop_assume!(is_forwarded(&spelled));
        let expected = cost(&table, method, &plain, RouteCase::Sensitive);
        prop_assert!(cost(&table, method, &spelled, RouteCase::Sensitive) >= expected);
        let shouted = spelled.replace("export", "ExPORT").replace("health", "Health").replace('é', "É");
        prop_assert!(cost(&table, method, &shouted, RouteCase::Insensitive) >= expected);
    }

    #[test]
    fn no_origin_reads_a_dearer_path(table in table(), (_, spelled) in spelled(), origin in origin(), method in method()) {
        prop_assume!(is_forwarded(&spelled));
        let read = origin.segments(&spelled);
        let expected = closest(&table, method, &read, &exactly).unwrap_or(DEFAULT_COST);
        prop_assert!(cost(&table, method, &spelled, RouteCase::Sensitive) >= expected, "{:?}", read);
        let folding = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        let expected = closest(&table, method, &read, &folding).unwrap_or(DEFAULT_COST);
        prop_assert!(cost(&table, method, &spelled, RouteCase::Insensitive) >= expected, "{:?}", read);
    }

    #[test]
    fn head_costs_what_get_costs_unless_it_has_a_row(table in table(), (_, spelled) in spelled()) {
        let table: Vec<RouteCost> = table.into_iter().filter(|row| row.method != "HEAD").collect();
        let of = |method| cost(&table, method, &spelled, RouteCase::Sensitive);
        prop_assert_eq!(of("HEAD"), of("GET"));
    }

    #[test]
    fn the_class_is_of_the_row_that_sets_the_cost(table in table(), (_, spelled) in spelled(), method in method()) {
        let costs = RouteCosts::new(&table);
        let price = costs.price(method, &spelled, RouteCase::Sensitive);
        let is_own = |row: &&RouteCost| {
            price.class == row.pattern || price.class == format!("{} {}", row.method, row.pattern)
        };
        let own: Vec<u64> = table.iter().filter(is_own).map(|row| row.cost).collect();
        // A call without a matching row may be classed by a first segment that is also the name of
        // a row.
        prop_assert!(price.cost == DEFAULT_COST || own.contains(&price.cost), "{:?}", price);
    }
}
