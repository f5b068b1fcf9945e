//! Query parameters of reports.

use crate::admin::parameters::Parameters;
use crate::http::problem::Problem;
use crate::time::{DAY, Month, UnixMicros, parse_rfc3339};

/// Months of a key's history by default.
pub const MONTHS_DEFAULT: usize = 12;
/// The most months of a key's history.
pub const MONTHS_LIMIT: usize = 36;
/// The most keys that a report lists as the largest.
pub const TOP_LIMIT: usize = 10;
/// The default share of a quota from which a key is listed, in millionths: 0.8.
const MILLIONTHS_DEFAULT: u64 = 800_000;
/// The largest share, in millionths: 10.
const MILLIONTHS_LIMIT: u64 = 10_000_000;

/// A time range of whole parts: hours or days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Start of the first part.
    pub from: UnixMicros,
    /// End of the last part.
    pub until: UnixMicros,
}

impl Span {
    /// The parts that the range from `from` to `to` touches, each `part` microseconds long.
    /// Default: the last `days` days. At most `most` days.
    ///
    /// # Errors
    /// 400 for an invalid time, a `from` that is not before `to`, and a range that is too long.
    pub fn read(parameters: &Parameters, now: UnixMicros, part: u64, days: u64, most: u64) -> Result<Self, Problem> {
        let time = |name: &str| match parameters.get(name).map(parse_rfc3339) {
            Some(None) => {
                Err(Problem::BadRequest(format!("{name}: must be an RFC 3339 time such as 2026-11-20T08:00:00Z")))
            }
            time => Ok(time.flatten()),
        };
        let until = time("to")?.unwrap_or(now);
        let from = time("from")?.unwrap_or(until.saturating_sub(days * DAY));
        if from >= until {
            return Err(Problem::BadRequest("from: must be before `to`".to_owned()));
        }
        if until.since(from) > most * DAY {
            return Err(Problem::BadRequest(format!("from: must be at most {most} days before `to`")));
        }
        let whole = |micros: u64| UnixMicros::from_micros(micros.saturating_mul(part));
        Ok(Self { from: whole(from.as_micros() / part), until: whole(until.as_micros().div_ceil(part)) })
    }
}

/// The parameter `months`.
///
/// # Errors
/// 400 unless it is a number from 1 to 36.
pub fn months(parameters: &Parameters) -> Result<usize, Problem> {
    match parameters.number("months").map(str::parse) {
        None => Ok(MONTHS_DEFAULT),
        Some(Ok(months)) if (1..=MONTHS_LIMIT).contains(&months) => Ok(months),
        Some(_) => Err(Problem::BadRequest(format!("months: must be a number from 1 to {MONTHS_LIMIT}"))),
    }
}

/// The parameter `month`. Default: the current one.
///
/// # Errors
/// 400 unless it is a month.
pub fn month(parameters: &Parameters, now: UnixMicros) -> Result<Month, Problem> {
    let month = parameters.get("month").map_or(Ok(Month::of(now)), str::parse);
    month.map_err(|_| Problem::BadRequest("month: must be a month such as 2026-11".to_owned()))
}

/// The parameter `threshold`, a share of a quota, in millionths.
///
/// # Errors
/// 400 unless it is a decimal number above 0 and up to 10.
pub fn millionths(parameters: &Parameters) -> Result<u64, Problem> {
    match parameters.number("threshold").map(decimal) {
        None => Ok(MILLIONTHS_DEFAULT),
        Some(Some(share)) if (1..=MILLIONTHS_LIMIT).contains(&share) => Ok(share),
        Some(_) => Err(Problem::BadRequest("threshold: must be a number above 0 and up to 10, such as 0.8".to_owned())),
    }
}

/// Reads a decimal number with up to six places, in millionths. The parser of `f64` would be as
/// large as this module.
fn decimal(text: &str) -> Option<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str, most| text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && places.is_empty() || !is_number(whole, 6) || !is_number(places, 6) {
        return None;
    }
    format!("{whole}{places:0<6}").parse().ok()
}

/// Whether an `Accept` field lists a media type by name.
#[must_use]
pub fn wants(accept: &str, media_type: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|media| media.eq_ignore_ascii_case(media_type));
        // A weight of 0 excludes the media type.
        is_named
            && !parts.any(|part| {
                matches!(part.to_ascii_lowercase().as_str(), "q=0" | "q=0." | "q=0.0" | "q=0.00" | "q=0.000")
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::target::Query;
    use crate::time::{HOUR, rfc3339};

    fn parameters(query: &str) -> Parameters {
        Parameters::parse(Query::new(query), &["from", "to", "months", "month", "threshold"]).unwrap()
    }

    fn span(query: &str, part: u64) -> Result<(String, String), String> {
        let now = parse_rfc3339("2031-03-12T12:30:00Z").unwrap();
        let span = Span::read(&parameters(query), now, part, 1, 31).map_err(|refusal| refusal.body())?;
        Ok((rfc3339(span.from), rfc3339(span.until)))
    }

    #[test]
    fn spans_are_whole() {
        for (query, part, from, until) in [
            ("", HOUR, "2031-03-11T12:00:00Z", "2031-03-12T13:00:00Z"),
            ("", DAY, "2031-03-11T00:00:00Z", "2031-03-13T00:00:00Z"),
            ("to=2031-03-12T11:00:00Z", HOUR, "2031-03-11T11:00:00Z", "2031-03-12T11:00:00Z"),
            ("from=2031-03-12T01:59:59.9%2B01:00", HOUR, "2031-03-12T00:00:00Z", "2031-03-12T13:00:00Z"),
            ("from=2031-01-01T00:00:00Z&to=2031-02-01T00:00:00Z", DAY, "2031-01-01T00:00:00Z", "2031-02-01T00:00:00Z"),
        ] {
            assert_eq!(span(query, part), Ok((from.to_owned(), until.to_owned())), "{query}");
        }
        for (query, word) in [
            ("from=yesterday", "from: must be an"),
            ("to=2031-02-30T00:00:00Z", "to: must be an"),
            ("from=2031-03-12T12:30:00Z", "before `to`"),
            ("from=2031-01-01T00:00:00Z&to=2031-02-01T00:00:00.001Z", "at most 31 days"),
        ] {
            assert!(span(query, HOUR).unwrap_err().contains(word), "{query}");
        }
    }

    #[test]
    fn numbers_and_months() {
        assert_eq!(months(&parameters("")), Ok(12));
        assert_eq!(months(&parameters("months=36")), Ok(36));
        for (query, expected) in
            [("", 800_000), ("threshold=10", 10_000_000), ("threshold=.5", 500_000), ("threshold=0.000001", 1)]
        {
            assert_eq!(millionths(&parameters(query)), Ok(expected), "{query}");
        }
        assert_eq!(month(&parameters("month=2026-11"), UnixMicros::default()).unwrap().to_string(), "2026-11");
        assert_eq!(month(&parameters(""), UnixMicros::default()).unwrap().to_string(), "1970-01");
        for query in ["months=", "months=0", "months=37", "months=x", "months=-1"] {
            assert!(months(&parameters(query)).is_err(), "{query}");
        }
        for query in [
            "threshold=",
            "threshold=0",
            "threshold=-1",
            "threshold=10.1",
            "threshold=NaN",
            "threshold=inf",
            "threshold=.",
            "threshold=0.0000001",
        ] {
            assert!(millionths(&parameters(query)).is_err(), "{query}");
        }
        for query in ["month=2026", "month=2026-13", "month=2026-1", "month=26-01"] {
            assert!(month(&parameters(query), UnixMicros::default()).is_err(), "{query}");
        }
    }

    #[test]
    fn csv_is_asked_for_by_name() {
        for accept in ["text/csv", "TEXT/CSV;q=0.5", "application/json;q=0.1, text/csv ; charset=utf-8"] {
            assert!(wants(accept, "text/csv"), "{accept}");
        }
        for accept in ["", "*/*", "text/*", "application/json", "text/csv;q=0", "text/csv; q=0.0", "text/csvx"] {
            assert!(!wants(accept, "text/csv"), "{accept}");
        }
    }
}
