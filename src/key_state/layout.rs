//! The layout of a row's body: compact JSON. Field names are short because nearly every request
//! writes a row.

use serde::{Deserialize, Serialize};

use crate::encoding::record::{self, push_number, records};
use crate::key_state::audit_log::tail::AuditLog;
use crate::key_state::call_memory::CallMemory;
use crate::key_state::closed_holds::{ClosedHolds, RunRow};
use crate::key_state::counters::Counters;
use crate::key_state::holds::Holds;
use crate::key_state::idempotency::IdempotencyKeys;
use crate::key_state::nonces::{Nonces, RowNonces};
use crate::key_state::ring::CHUNK;
use crate::key_state::row::{DecodeError, VERSION};
use crate::limiter::cost::Cost;
use crate::limiter::fixed_window::{FixedWindows, Windows, WindowsByPeriod};
use crate::limiter::floors::{Floor, Floors};
use crate::limiter::gcra::Bucket;
use crate::limiter::policy::{Period, Unit};
use crate::limiter::sliding_log::{MAX_MILLIS, SlidingLog};
use crate::metering::alerts::Alerts;
use crate::metering::charges::Charges;
use crate::metering::hours::Hours;
use crate::metering::meter::Meter;
use crate::metering::months::{Carried, Dropped, KeptMonth, MonthCounts, Months, TokenMarks};
use crate::time::{DAY, HOUR, MINUTE, Month, UnixMicros};

/// The version alone, which decides whether the rest can be read.
#[derive(Deserialize)]
struct RowVersion {
    v: u64,
}

/// The body of a row. Times are microseconds since 1970 unless stated otherwise.
#[derive(Serialize, Deserialize)]
pub(super) struct RowBody {
    v: u64,
    pub(super) seq: u64,
    /// Epoch.
    e: String,
    /// Judged time of the last admission.
    t: u64,
    /// Fixed windows of requests, then of tokens: minutes, hours and days, each window as (number
    /// since 1970, count).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    f: Vec<[Vec<(u64, u64)>; 3]>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    m: Vec<MonthRow>,
    /// Months that were dropped from `m`: see [`Dropped`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<(u64, u64)>,
    /// Month, and the requests and tokens that earlier epochs charged in it. A month without an
    /// entry was charged one request per carried call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    c: Vec<(u64, u64, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    b: Vec<BucketRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    l: Vec<LogRow>,
    /// Nonces, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    n: Vec<u64>,
    /// See [`Nonces::times_for_row`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    z: Option<(u64, u64)>,
    /// Usage by hour and class. Absent in rows of versions that did not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    h: Option<String>,
    /// Idempotency keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    i: Option<String>,
    /// The tail of the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<String>,
    /// Alerts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    w: Option<String>,
    /// Open holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    o: Option<String>,
    /// The open run of closed holds: the first row that can hold it, and its entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d: Option<RunRow>,
    /// What `m` does not say of months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r: Option<String>,
}

/// Month (202611), calls, denied, carried calls, charged requests, charged tokens, flushed calls,
/// flushed denied.
#[derive(Serialize, Deserialize)]
pub(super) struct MonthRow(u64, u64, u64, u64, u64, u64, u64, u64);

#[derive(Serialize, Deserialize)]
pub(super) struct BucketRow {
    /// Policy name.
    n: String,
    /// Unit and period.
    k: (u8, u8),
    q: u64,
    /// Level: units, fraction in 1/span units, and the time that it is for.
    l: (u64, u64, u64),
    /// See [`Bucket::until`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<u64>,
    /// Of each hold, in the order in which they were made, its id and its floor: units and span-ths
    /// of a unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    g: Vec<(u64, u64, u64)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct LogRow {
    /// Unit and period.
    k: (u8, u8),
    /// See [`SlidingLog::since`].
    s: u64,
    /// The open chunk: for each entry, milliseconds since the previous one (since 1970 for the
    /// first), then units.
    e: Vec<u64>,
    /// See [`SlidingLog::until`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<u64>,
    /// What was taken out of entries that older rows hold: milliseconds and units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    g: Vec<(u64, u64)>,
}

/// The part of a key's state that rows store.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    pub(super) epoch: String,
    pub(super) counters: Counters,
    pub(super) meter: Meter,
    pub(super) calls: CallMemory,
    pub(super) audit: AuditLog,
    pub(super) alerts: Alerts,
    pub(super) holds: Holds,
}

impl RowBody {
    /// The body of the row with the number `seq`.
    pub(super) fn of(seq: u64, contents: &Contents) -> Self {
        let Contents { epoch, counters, meter, calls, audit, alerts, holds } = contents;
        let (months, nonces) = (meter.months(), calls.nonces());
        Self {
            v: VERSION,
            seq,
            e: epoch.clone(),
            t: counters.last().as_micros(),
            f: fixed_to_rows(counters.fixed()),
            m: months.iter().map(|(month, counts)| MonthRow::of(month, counts)).collect(),
            y: months.dropped().map(Dropped::to_row),
            c: months.iter().filter_map(|(month, counts)| carried_to_row(month, counts.carried)).collect(),
            b: counters.buckets().iter().map(BucketRow::of).collect(),
            l: counters.logs().iter().map(LogRow::of).collect(),
            n: nonces.for_row().collect(),
            z: nonces.times_for_row().map(|(complete, first)| (complete.as_micros(), first.as_micros())),
            h: Some(meter.hours().to_text()),
            i: calls.keys().to_text(),
            a: audit.to_text(),
            w: alerts.to_text(),
            o: holds.to_text(),
            d: holds.closed_row(),
            r: months_to_text(months),
        }
    }

    /// Reads the body that is stored in `slot`.
    pub(super) fn parse(slot: u32, text: &str) -> Result<Self, DecodeError> {
        let malformed = |error: serde_json::Error| DecodeError::Malformed { slot, reason: error.to_string() };
        let RowVersion { v } = serde_json::from_str(text).map_err(malformed)?;
        if v != VERSION {
            return Err(DecodeError::Version { slot, found: v });
        }
        serde_json::from_str(text).map_err(malformed)
    }

    /// Whether a chunk of this row is full, so that the next row goes to another slot.
    pub(super) fn is_full(&self) -> bool {
        self.l.iter().any(|row| row.e.len() / 2 >= CHUNK)
    }

    fn nonces(&self) -> RowNonces<'_> {
        let times = self.z.map(|(complete, first)| (clamp(complete), clamp(first)));
        RowNonces { at: clamp(self.t), nonces: &self.n, times }
    }

    /// The contents of a key's rows. This is the newest row, in `slot`; `older` are the others,
    /// oldest first.
    pub(super) fn into_contents(self, slot: u32, older: &[(u32, Self)]) -> Result<Contents, DecodeError> {
        let malformed = |reason: &str| DecodeError::Malformed { slot, reason: reason.to_owned() };
        let or_empty = |text: Option<String>| text.unwrap_or_default();
        let nonces = Nonces::from_rows(older.iter().map(|(slot, body)| (*slot, body.nonces())), &self.nonces());
        let hours = Hours::from_text(&or_empty(self.h)).ok_or_else(|| malformed("not hours"))?;
        let keys = self.i.map_or_else(|| Some(IdempotencyKeys::default()), |text| IdempotencyKeys::from_text(&text));
        let keys = keys.ok_or_else(|| malformed("not idempotency keys"))?;
        let audit = self.a.map_or_else(|| Some(AuditLog::default()), |text| AuditLog::from_text(&text));
        let audit = audit.ok_or_else(|| malformed("not an audit log"))?;
        let alerts = Alerts::from_text(&or_empty(self.w)).ok_or_else(|| malformed("not alerts"))?;
        let closed = older.iter().filter_map(|(slot, body)| Some((*slot, body.d.as_ref()?)));
        let closed = ClosedHolds::from_rows(closed, self.d.as_ref()).ok_or_else(|| malformed("not closed holds"))?;
        let holds = Holds::from_text(&or_empty(self.o), closed).ok_or_else(|| malformed("not holds"))?;
        let mut months = Vec::new();
        for row in &self.m {
            let (month, mut counts) = row.read().ok_or_else(|| malformed("not a month"))?;
            if let Some((_, cost, tokens)) = self.c.iter().find(|(number, ..)| *number == month.as_number()) {
                counts.carried = Carried { cost: *cost, tokens: *tokens, ..counts.carried };
            }
            months.push((month, counts));
        }
        add_from_text(&mut months, &or_empty(self.r)).ok_or_else(|| malformed("not months"))?;
        let dropped = self.y.map(|row| Dropped::from_row(row).ok_or_else(|| malformed("not a month"))).transpose()?;
        let last = clamp(self.t);
        let buckets = self.b.into_iter().map(|row| row.read().ok_or_else(|| malformed("not a bucket")));
        let buckets = buckets.collect::<Result<_, _>>()?;
        let logs = self.l.iter().map(|row| row.read(last, older).ok_or_else(|| malformed("not a log")));
        let logs = logs.collect::<Result<_, _>>()?;
        let mut meter = Meter::new(Months::from_kept(months, dropped), hours);
        meter.pin_hours(holds.hours());
        Ok(Contents {
            epoch: self.e,
            counters: Counters::new(last, fixed_from_rows(self.f), logs, buckets),
            meter,
            calls: CallMemory::new(nonces, keys),
            audit,
            alerts,
            holds,
        })
    }
}

impl MonthRow {
    fn of(month: Month, kept: &KeptMonth) -> Self {
        let KeptMonth { counted, carried, flushed, .. } = kept;
        let Cost { requests, tokens } = counted.charges.charged;
        let calls = (counted.calls, counted.denied, carried.calls);
        Self(month.as_number(), calls.0, calls.1, calls.2, requests, tokens, flushed.calls, flushed.denied)
    }

    /// Without what another field says of the month. Code that did not know it charged nothing
    /// without a call, so D1 has all charges of a month of which it has all calls.
    fn read(&self) -> Option<(Month, KeptMonth)> {
        let Self(month, calls, denied, carried, requests, tokens, flushed_calls, flushed_denied) = *self;
        let charges = Charges::of(Cost { requests, tokens });
        let counted = MonthCounts { calls, denied, charges, overdraft: 0 };
        let flushed = if flushed_calls == calls { charges } else { Charges::default() };
        let flushed = MonthCounts { calls: flushed_calls, denied: flushed_denied, charges: flushed, overdraft: 0 };
        let kept = KeptMonth { counted, marks: TokenMarks::default(), carried: of_calls(carried), flushed };
        Some((Month::from_number(month)?, kept))
    }
}

/// What a [`MonthRow`] does not say, of the months of which it is something: month; returned requests
/// and tokens, overdraft; what D1 has of charged requests and tokens, and of these three; then, up to the
/// last that is not 0, the overdraft of earlier epochs and the [`TokenMarks`].
fn months_to_text(months: &Months) -> Option<String> {
    let mut out = String::new();
    for (month, KeptMonth { counted, marks, carried, flushed }) in months.iter() {
        let has_more = |counts: &MonthCounts| counts.charges.returned != Cost::NONE || counts.overdraft > 0;
        let is_said = counted.calls != flushed.calls || counted.charges.charged == flushed.charges.charged;
        if is_said && !has_more(counted) && carried.overdraft == 0 && *marks == TokenMarks::default() {
            continue;
        }
        let more = |counts: &MonthCounts| {
            let Cost { requests, tokens } = counts.charges.returned;
            [requests, tokens, counts.overdraft]
        };
        push_number(&mut out, month.as_number());
        let charged = flushed.charges.charged;
        let numbers = [more(counted).as_slice(), &[charged.requests, charged.tokens], &more(flushed)].concat();
        let rest = [carried.overdraft, marks.estimated, marks.expired];
        let said = rest.iter().rposition(|number| *number > 0).map_or(0, |last| last + 1);
        for number in numbers.into_iter().chain(rest.into_iter().take(said)) {
            push_number(&mut out, number);
        }
        record::end(&mut out);
    }
    (!out.is_empty()).then_some(out)
}

/// Adds what [`months_to_text`] gives to months that were read without it.
fn add_from_text(months: &mut [(Month, KeptMonth)], text: &str) -> Option<()> {
    for mut record in records(text) {
        let number = record.number()?;
        let mut cost = || Some(Cost { requests: record.number()?, tokens: record.number()? });
        let returned = cost()?;
        let overdraft = record.number()?;
        let mut cost = || Some(Cost { requests: record.number()?, tokens: record.number()? });
        let flushed = Charges { charged: cost()?, returned: cost()? };
        let flushed_overdraft = record.number()?;
        let mut or_zero = || record.number().unwrap_or_default();
        let (carried_overdraft, marks) = (or_zero(), TokenMarks { estimated: or_zero(), expired: or_zero() });
        if let Some((_, kept)) = months.iter_mut().find(|(month, _)| month.as_number() == number) {
            kept.counted.charges.returned = returned;
            kept.counted.overdraft = overdraft;
            kept.flushed.charges = flushed;
            kept.flushed.overdraft = flushed_overdraft;
            kept.carried.overdraft = carried_overdraft;
            kept.marks = marks;
        }
    }
    Some(())
}

impl BucketRow {
    fn of(bucket: &Bucket) -> Self {
        let (units, fraction) = bucket.level();
        Self {
            n: bucket.name.clone(),
            k: (unit_to_row(bucket.unit), period_to_row(bucket.period)),
            q: bucket.quota,
            l: (units, fraction, bucket.at().as_micros()),
            x: bucket.until.map(UnixMicros::as_micros),
            g: bucket.floors.iter().map(|floor| floor_to_row(bucket, floor)).collect(),
        }
    }

    fn read(self) -> Option<Bucket> {
        let (unit, period, span) = kind(self.k)?;
        let (units, fraction, at) = self.l;
        let mut bucket = Bucket::new(&self.n, unit, period, span, self.q).with_level(units, fraction, clamp(at));
        bucket.until = self.x.map(UnixMicros::from_micros);
        let floor = |(hold, units, fraction): (u64, u64, u64)| Floor { hold, least: bucket.amount(units, fraction) };
        bucket.floors = Floors::from_kept(self.g.into_iter().map(floor).collect());
        Some(bucket)
    }
}

fn floor_to_row(bucket: &Bucket, floor: Floor) -> (u64, u64, u64) {
    let (units, fraction) = bucket.in_units(floor.least);
    (floor.hold, units, fraction)
}

impl LogRow {
    fn of(log: &SlidingLog) -> Self {
        let mut entries = Vec::with_capacity(log.open().len() * 2);
        let mut before = 0;
        for entry in log.open() {
            entries.extend([entry.millis() - before, entry.units()]);
            before = entry.millis();
        }
        Self {
            k: (unit_to_row(log.unit), period_to_row(log.period)),
            s: log.since,
            e: entries,
            x: log.until.map(UnixMicros::as_micros),
            g: log.taken.clone(),
        }
    }

    /// The log as of its last admission. `older` are the older rows of the key, oldest first, which
    /// hold the full chunks.
    fn read(&self, last: UnixMicros, older: &[(u32, RowBody)]) -> Option<SlidingLog> {
        let (unit, period, span) = kind(self.k)?;
        let mut log = SlidingLog::new(unit, period, span, self.s);
        log.until = self.x.map(UnixMicros::from_micros);
        for (slot, body) in older {
            if let Some(chunk) = body.l.iter().find(|other| other.k == self.k && body.seq >= self.s) {
                chunk.add_to(&mut log);
                log.close(*slot);
            }
        }
        log.take_again(&self.g);
        self.add_to(&mut log);
        log.forget(last);
        Some(log)
    }

    fn add_to(&self, log: &mut SlidingLog) {
        let mut millis = 0_u64;
        let (pairs, _) = self.e.as_chunks::<2>();
        for [step, units] in pairs {
            millis = millis.saturating_add(*step);
            log.push(UnixMicros::from_millis(millis), *units);
        }
    }
}

/// Carried usage of which only the number of calls is known.
const fn of_calls(calls: u64) -> Carried {
    Carried { calls, cost: calls, tokens: 0, overdraft: 0 }
}

fn carried_to_row(month: Month, carried: Carried) -> Option<(u64, u64, u64)> {
    (carried != of_calls(carried.calls)).then_some((month.as_number(), carried.cost, carried.tokens))
}

fn fixed_to_rows(fixed: &FixedWindows) -> Vec<[Vec<(u64, u64)>; 3]> {
    let row = |spans: &WindowsByPeriod| {
        [(&spans.minute, MINUTE), (&spans.hour, HOUR), (&spans.day, DAY)]
            .map(|(windows, span)| windows.iter().map(|(start, count)| (start.as_micros() / span, count)).collect())
    };
    let mut rows = vec![row(&fixed.requests), row(&fixed.tokens)];
    while rows.pop_if(|row: &mut [Vec<_>; 3]| row.iter().all(Vec::is_empty)).is_some() {}
    rows
}

fn fixed_from_rows(rows: Vec<[Vec<(u64, u64)>; 3]>) -> FixedWindows {
    let mut spans = rows.into_iter().map(|[minute, hour, day]| WindowsByPeriod {
        minute: windows_from_row(minute, MINUTE),
        hour: windows_from_row(hour, HOUR),
        day: windows_from_row(day, DAY),
    });
    FixedWindows { requests: spans.next().unwrap_or_default(), tokens: spans.next().unwrap_or_default() }
}

fn windows_from_row(row: Vec<(u64, u64)>, span: u64) -> Windows {
    Windows::from_kept(row.into_iter().map(|(number, count)| (clamp(number.saturating_mul(span)), count)).collect())
}

/// A stored time, limited to the range that the engine supports.
fn clamp(micros: u64) -> UnixMicros {
    UnixMicros::from_micros(micros).min(UnixMicros::from_millis(MAX_MILLIS))
}

const fn unit_to_row(unit: Unit) -> u8 {
    match unit {
        Unit::Requests => 0,
        Unit::Tokens => 1,
    }
}

const fn period_to_row(period: Period) -> u8 {
    match period {
        Period::Minute => 0,
        Period::Hour => 1,
        Period::Day => 2,
        Period::Month => 3,
    }
}

/// The unit and period of a log or bucket, and the length of the period in microseconds.
fn kind((unit, period): (u8, u8)) -> Option<(Unit, Period, u64)> {
    let unit = match unit {
        0 => Unit::Requests,
        1 => Unit::Tokens,
        _ => return None,
    };
    let period = match period {
        0 => Period::Minute,
        1 => Period::Hour,
        2 => Period::Day,
        _ => return None,
    };
    Some((unit, period, period.micros()?))
}
