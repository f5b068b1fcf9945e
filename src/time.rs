//! Instants and UTC calendar months, as plain integers.
//!
//! Nothing here reads a clock: callers pass the instant. The calendar arithmetic uses integers and
//! is total, because every decision depends on it and must not fail here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds in one second.
pub const SECOND: u64 = 1_000_000;
/// Microseconds in one minute.
pub const MINUTE: u64 = 60 * SECOND;
/// Microseconds in one hour.
pub const HOUR: u64 = 60 * MINUTE;
/// Microseconds in one day.
pub const DAY: u64 = 24 * HOUR;

const MICROS_PER_MILLI: u64 = 1_000;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
///
/// Not nanoseconds, because the platform stores numbers as doubles. These hold microseconds since
/// 1970 exactly for centuries, but not nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMicros(u64);

impl UnixMicros {
    /// The instant `micros` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The instant `millis` milliseconds after the epoch. Saturates far beyond any real clock.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(MICROS_PER_MILLI))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / MICROS_PER_MILLI
    }

    /// Milliseconds since the epoch, rounded up.
    #[must_use]
    pub const fn as_millis_ceil(self) -> u64 {
        self.0.div_ceil(MICROS_PER_MILLI)
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_seconds(self) -> u64 {
        self.0 / SECOND
    }

    /// The instant `micros` microseconds later.
    #[must_use]
    pub const fn saturating_add(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// The instant `micros` microseconds earlier, but not before the epoch.
    #[must_use]
    pub const fn saturating_sub(self, micros: u64) -> Self {
        Self(self.0.saturating_sub(micros))
    }

    /// Microseconds since `earlier`. 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// `micros` in seconds, rounded up, as for `Retry-After`.
#[must_use]
pub const fn ceil_seconds(micros: u64) -> u64 {
    micros.div_ceil(SECOND)
}

/// The RFC 3339 form in UTC: `2026-11-20T07:48:14Z`, with milliseconds (`…14.120Z`) only if they
/// are not zero. Microseconds are truncated.
#[must_use]
pub fn rfc3339(t: UnixMicros) -> String {
    let date = Date::of(t);
    let in_day = t.0 % DAY;
    let (hour, minute, second) = (in_day / HOUR, in_day % HOUR / MINUTE, in_day % MINUTE / SECOND);
    let millis = in_day % SECOND / MICROS_PER_MILLI;
    let head = format!("{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}", date.year, date.month, date.day);
    if millis == 0 { format!("{head}Z") } else { format!("{head}.{millis:03}Z") }
}

/// Parses an RFC 3339 time with any offset, from 1970 to 9999 in UTC. Fractions of a microsecond
/// are truncated.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<UnixMicros> {
    let number = |at: usize, width: usize| digits(text.get(at..at + width)?, width).ok();
    let is = |at: usize, any: &[u8]| text.as_bytes().get(at).is_some_and(|byte| any.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let first = Month::from_number(year * 100 + month)?.start();
    if !(1..=days_in_month(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, zone) = fraction(text.get(19..)?)?;
    let local = first.0 + (day - 1) * DAY + hour * HOUR + minute * MINUTE + second * SECOND + micros;
    let utc = match zone {
        "Z" | "z" => local,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let (hours, minutes) = (digits(hours, 2).ok()?, digits(minutes, 2).ok()?);
            let offset = (hours < 24 && minutes < 60).then_some(hours * HOUR + minutes * MINUTE)?;
            match zone.as_bytes().first()? {
                b'+' => local.checked_sub(offset)?,
                b'-' => local + offset,
                _ => return None,
            }
        }
    };
    (Month::of(UnixMicros(utc)).year() <= 9999).then_some(UnixMicros(utc))
}

/// The fraction of a second in microseconds, and the rest of the text.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let (digits, zone) = rest.split_at_checked(end.max(1))?;
    let mut micros = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = micros.try_fold(0, |sum, digit| Some(sum * 10 + u64::from(digit.checked_sub(b'0')?)))?;
    (end > 0).then_some((micros, zone))
}

/// A UTC calendar month from 1970-01 on. It prints and parses as `YYYY-MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    /// Months since 1970-01.
    index: u64,
}

impl Month {
    /// The month that contains `t`.
    #[must_use]
    pub fn of(t: UnixMicros) -> Self {
        let date = Date::of(t);
        Self { index: (date.year - EPOCH_YEAR) * 12 + date.month - 1 }
    }

    /// The first instant of this month.
    #[must_use]
    pub fn start(self) -> UnixMicros {
        let days = self.lengths_before().sum::<u64>() + days_before_year(self.year());
        UnixMicros(days.saturating_mul(DAY))
    }

    /// The first instant after this month.
    #[must_use]
    pub fn end(self) -> UnixMicros {
        self.next().start()
    }

    /// The month after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self { index: self.index + 1 }
    }

    /// The month before this one. 1970-01 returns itself.
    #[must_use]
    pub fn previous(self) -> Self {
        Self { index: self.index.saturating_sub(1) }
    }

    /// The length of this month in microseconds.
    #[must_use]
    pub fn micros(self) -> u64 {
        self.end().since(self.start())
    }

    /// The year times 100 plus the month: `202611`.
    #[must_use]
    pub(crate) fn as_number(self) -> u64 {
        self.year() * 100 + self.index % 12 + 1
    }

    /// The inverse of [`as_number`](Self::as_number), for the years 1970 to 9999.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        let (year, month) = (number / 100, number % 100);
        let real = (EPOCH_YEAR..=9999).contains(&year) && (1..=12).contains(&month);
        real.then(|| Self { index: (year - EPOCH_YEAR) * 12 + month - 1 })
    }

    /// Months from `earlier` to this one. `None` if `earlier` is later.
    pub(crate) const fn since(self, earlier: Self) -> Option<u64> {
        self.index.checked_sub(earlier.index)
    }

    fn year(self) -> u64 {
        EPOCH_YEAR + self.index / 12
    }

    /// The lengths in days of the earlier months of this year.
    fn lengths_before(self) -> impl Iterator<Item = u64> {
        (1..=self.index % 12).map(move |month| days_in_month(self.year(), month))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year(), self.index % 12 + 1)
    }
}

/// The text is not a month of the form `YYYY-MM`, 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a month is written YYYY-MM, from 1970-01 to 9999-12")]
pub struct MonthError;

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, MonthError> {
        let (year, month) = text.split_once('-').ok_or(MonthError)?;
        Self::from_number(digits(year, 4)? * 100 + digits(month, 2)?).ok_or(MonthError)
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Parses exactly `width` ASCII digits. `u64::from_str` would also accept a sign.
fn digits(text: &str, width: usize) -> Result<u64, MonthError> {
    if text.len() != width || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(MonthError);
    }
    text.parse().map_err(|_| MonthError)
}

const EPOCH_YEAR: u64 = 1970;

struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    fn of(t: UnixMicros) -> Self {
        let days = t.0 / DAY;
        let year = year_of(days);
        let mut day = days - days_before_year(year);
        let mut month = 1;
        while day >= days_in_month(year, month) {
            day -= days_in_month(year, month);
            month += 1;
        }
        Self { year, month, day: day + 1 }
    }
}

/// The year of the day `days` after the epoch.
fn year_of(days: u64) -> u64 {
    // 400 years have 146,097 days. Leap years are not evenly spread, so the guess can be off by
    // one.
    let guess = EPOCH_YEAR + days * 400 / 146_097;
    if days < days_before_year(guess) {
        guess - 1
    } else if days >= days_before_year(guess + 1) {
        guess + 1
    } else {
        guess
    }
}

/// Days from the epoch to 1 January of `year`.
fn days_before_year(year: u64) -> u64 {
    365 * (year - EPOCH_YEAR) + leap_years_until(year - 1) - leap_years_until(EPOCH_YEAR - 1)
}

fn leap_years_until(year: u64) -> u64 {
    year / 4 - year / 100 + year / 400
}

/// `month` counts from 1.
fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + leap_years_until(year) - leap_years_until(year - 1),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMicros {
        let instant: jiff::Timestamp = text.parse().unwrap();
        UnixMicros::from_micros(instant.as_microsecond().try_into().unwrap())
    }

    fn month(text: &str) -> Month {
        text.parse().unwrap()
    }

    #[test]
    fn times_are_read_as_in_rfc_3339() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2031-03-12T12:34:56.789Z",
            "2031-03-12t12:34:56.7890129z",
            "2028-02-29T23:59:59+05:30",
            "2031-01-01T00:00:00-23:59",
            "1970-01-01T12:00:00.5+12:00",
        ] {
            assert_eq!(parse_rfc3339(text), Some(at(text)), "{text}");
        }
        let last = "9999-12-31T23:59:59.999Z";
        assert_eq!(parse_rfc3339(last).map(rfc3339).as_deref(), Some(last));
        for text in [
            "",
            "2031-03-12",
            "2031-03-12 12:00:00Z",
            "2031-03-12T12:00:00",
            "2031-03-12T12:00Z",
            "2031-02-29T12:00:00Z",
            "2031-00-01T12:00:00Z",
            "2031-13-01T12:00:00Z",
            "2031-03-00T12:00:00Z",
            "2031-03-12T24:00:00Z",
            "2031-03-12T12:60:00Z",
            "2031-03-12T12:00:60Z",
            "2031-03-12T12:00:00.Z",
            "2031-03-12T12:00:00.5",
            "2031-03-12T12:00:00,5Z",
            "2031-03-12T12:00:00+0100",
            "2031-03-12T12:00:00+24:00",
            "2031-03-12T12:00:00+01:60",
            "2031-03-12T12:00:00 01:00",
            "2031-03-12T12:00:00ZZ",
            "+031-03-12T12:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "2031-03-12T12:00:0éZ",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn month_ends() {
        for (last, first, month_of_last, days) in [
            ("2026-01-31T23:59:59.999999Z", "2026-02-01T00:00:00Z", "2026-01", 31),
            ("2026-02-28T23:59:59.999999Z", "2026-03-01T00:00:00Z", "2026-02", 28),
            ("2028-02-28T23:59:59.999999Z", "2028-02-29T00:00:00Z", "2028-02", 29),
            ("2028-02-29T23:59:59.999999Z", "2028-03-01T00:00:00Z", "2028-02", 29),
            ("2000-02-29T23:59:59.999999Z", "2000-03-01T00:00:00Z", "2000-02", 29),
            ("2100-02-28T23:59:59.999999Z", "2100-03-01T00:00:00Z", "2100-02", 28),
            ("2026-04-30T23:59:59.999999Z", "2026-05-01T00:00:00Z", "2026-04", 30),
            ("2026-12-31T23:59:59.999999Z", "2027-01-01T00:00:00Z", "2026-12", 31),
        ] {
            assert_eq!(at(first).since(at(last)), 1);
            assert_eq!(Month::of(at(last)), month(month_of_last));
            assert_eq!(month(month_of_last).micros(), days * DAY, "{last}");
            if first.ends_with("01T00:00:00Z") {
                assert_eq!(Month::of(at(first)), month(month_of_last).next());
                assert_eq!(month(month_of_last).end(), at(first));
                assert_eq!(month(month_of_last).next().start(), at(first));
            }
        }
    }

    /// Compares every day until 9999 with a calendar library.
    #[test]
    fn the_calendar_is_right() {
        let mut day = jiff::civil::date(1970, 1, 1);
        for number in 0_u64.. {
            let date = Date::of(UnixMicros(number * DAY + number % DAY));
            let expected =
                (day.year().try_into().unwrap(), day.month().try_into().unwrap(), day.day().try_into().unwrap());
            assert_eq!((date.year, date.month, date.day), expected, "{day}");
            let Ok(next) = day.tomorrow() else { break };
            day = next;
        }
        assert_eq!(day, jiff::civil::date(9999, 12, 31));
    }

    #[test]
    fn there_is_no_instant_without_a_month() {
        for t in [UnixMicros(0), UnixMicros(u64::MAX), UnixMicros::from_millis(u64::MAX)] {
            assert!(Month::of(t).start() <= t && t <= Month::of(t).end());
        }
        assert_eq!(Month::of(UnixMicros(0)).previous(), month("1970-01"));
        assert_eq!(month("1970-02").previous(), month("1970-01"));
        assert_eq!(month("2027-01").previous(), month("2026-12"));
    }

    #[test]
    fn months_are_written_with_digits_and_read_back() {
        assert_eq!(month("2026-12").to_string(), "2026-12");
        assert_eq!(month("2026-12").next().to_string(), "2027-01");
        assert_eq!(month("9999-12").as_number(), 999_912);
        assert_eq!(Month::from_number(202_611), Some(month("2026-11")));
        assert!(month("2026-12") < month("2027-01"));
        assert_eq!(serde_json::to_string(&month("1970-01")).unwrap(), r#""1970-01""#);
        assert_eq!(serde_json::from_str::<Month>(r#""2026-02""#).unwrap(), month("2026-02"));
        assert!(serde_json::from_str::<Month>(r#""2026-2""#).is_err());
        for text in [
            "",
            "2026",
            "2026-",
            "-01",
            "2026-00",
            "2026-13",
            "2026-1",
            "2026-001",
            "02026-01",
            "1969-12",
            "10000-01",
            "+026-01",
            "2026-+1",
            "2026 01",
            "2026-01-",
            "2026-01-01",
            "２０２６-01",
        ] {
            assert_eq!(text.parse::<Month>(), Err(MonthError), "{text:?}");
        }
        assert_eq!(MonthError.to_string(), "a month is written YYYY-MM, from 1970-01 to 9999-12");
    }

    #[test]
    fn times_are_rfc_3339() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-20T07:48:14Z", 1_795_160_894_000),
            ("2026-11-20T07:48:14.120Z", 1_795_160_894_120),
            ("2026-11-20T07:48:14.001Z", 1_795_160_894_001),
            ("2028-02-29T23:59:59.999Z", 1_835_481_599_999),
            ("9999-12-30T22:00:00Z", 253_402_207_200_000),
        ] {
            assert_eq!(rfc3339(UnixMicros::from_millis(millis)), text);
            assert_eq!(at(text), UnixMicros::from_millis(millis));
        }
        assert_eq!(rfc3339(UnixMicros::from_millis(253_402_300_799_000)), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(UnixMicros(1_795_160_894_120_999)), "2026-11-20T07:48:14.120Z");
        assert_eq!(rfc3339(UnixMicros(1_795_160_894_000_999)), "2026-11-20T07:48:14Z");
    }

    #[test]
    fn seconds_and_milliseconds_round_as_they_say() {
        assert_eq!([0, 1, 999_999, 1_000_000, 1_000_001].map(ceil_seconds), [0, 1, 1, 1, 2]);
        let t = UnixMicros(2_000_001);
        assert_eq!((t.as_millis(), t.as_millis_ceil(), t.as_seconds(), t.as_micros()), (2_000, 2_001, 2, 2_000_001));
        assert_eq!(UnixMicros(2_999_999).as_seconds(), 2);
        assert_eq!(UnixMicros::from_millis(2).as_millis_ceil(), 2);
        assert_eq!(t.saturating_sub(3_000_000), UnixMicros(0));
        assert_eq!(t.saturating_sub(1), UnixMicros(2_000_000));
        assert_eq!(t.saturating_add(u64::MAX), UnixMicros(u64::MAX));
        assert_eq!((t.since(UnixMicros(1)), UnixMicros(1).since(t)), (2_000_000, 0));
    }
}
