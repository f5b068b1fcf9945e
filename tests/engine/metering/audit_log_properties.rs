//! Properties of the audit log.

use std::collections::BTreeMap;

use crate::metering::strategies::{CALL, START};
use crate::support::config;
use proptest::collection::vec;
use proptest::prelude::*;
use tollgate::key_state::audit_log::entry::AuditEntry;
use tollgate::key_state::audit_log::reader::{AuditQuery, AuditReader, MAX_DURATION};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::call_outcome::CallOutcome;
use tollgate::time::UnixMicros;

/// Nonce, time, and duration if known.
type Admitted = (u64, u64, Option<u64>);

/// A key with an audit log.
struct Logged {
    state: KeyState,
    rows: BTreeMap<u32, String>,
    chunks: BTreeMap<u64, String>,
    clock: u64,
    nonce: u64,
    /// Admitted calls, in rows and in memory.
    admitted: [Vec<Admitted>; 2],
    /// Number of refusals by status and class.
    refused: [BTreeMap<(u16, String), u64>; 2],
}

impl Logged {
    fn new() -> Self {
        let mut logged = Self {
            state: KeyState::new("e".into()),
            rows: BTreeMap::new(),
            chunks: BTreeMap::new(),
            clock: START,
            nonce: 0,
            admitted: Default::default(),
            refused: Default::default(),
        };
        logged.commit();
        logged
    }

    fn now(&self) -> UnixMicros {
        UnixMicros::from_micros(self.clock)
    }

    fn commit(&mut self) {
        let rows = self.state.to_rows();
        self.rows.insert(rows.row.slot, rows.row.body);
        self.chunks.extend(rows.audit.into_iter().map(|row| (row.seq, row.body)));
        self.state.committed();
        let ([stored, now], [stored_refusals, refusals]) = (&mut self.admitted, &mut self.refused);
        stored.clone_from(now);
        stored_refusals.clone_from(refusals);
    }

    fn crash(&mut self) {
        self.state = KeyState::from_rows(self.rows.clone()).unwrap();
        let ([stored, now], [stored_refusals, refusals]) = (&mut self.admitted, &mut self.refused);
        now.clone_from(stored);
        refusals.clone_from(stored_refusals);
    }

    fn call(&mut self, policies: &[Policy], class: &str) {
        self.nonce += 1;
        let key = format!("{:x}", self.nonce);
        let idempotency_key = self.nonce.is_multiple_of(3).then_some(key.as_str());
        let call = CallToJudge { class, nonce: self.nonce, idempotency_key, is_audited: true, ..CALL };
        if self.state.judge_call(policies, self.now(), &call).is_admitted() {
            self.admitted[1].push((self.nonce, self.clock / 1000, None));
        } else {
            self.count_refusal(429, class);
        }
    }

    fn count_refusal(&mut self, status: u16, class: &str) {
        *self.refused[1].entry((status, class.to_owned())).or_default() += 1;
    }

    fn end(&mut self, back: usize) {
        let (clock, now) = (self.clock, self.now());
        let Some((nonce, at, end)) = self.admitted[1].iter_mut().rev().nth(back) else { return };
        let duration_ms = clock / 1000 - *at;
        // A later outcome is ignored.
        if duration_ms <= MAX_DURATION / 1000 {
            end.get_or_insert(duration_ms);
        }
        self.state.complete(
            now,
            CallOutcome { nonce: *nonce, status: 204, duration_ms, used: None, cost: None },
            None,
            true,
        );
    }

    fn read(&self, limit: usize) -> Vec<AuditEntry> {
        let tail = self.state.audit_tail();
        // A chunk that the row has not assigned belongs to a failed commit.
        let mut chunks: BTreeMap<_, _> =
            self.chunks.range(..tail[0].0).map(|(seq, body)| (*seq, body.clone())).collect();
        chunks.extend(tail.into_iter().map(|(seq, text)| (seq, text.into_owned())));
        let (mut entries, mut cursor) = (Vec::new(), None);
        loop {
            let (from, to) = (UnixMicros::default(), UnixMicros::from_micros(u64::MAX));
            let mut reader = AuditReader::new(AuditQuery { from, to, cursor, limit });
            for (seq, body) in chunks.range(cursor.map_or(0, |cursor| cursor.seq)..) {
                if !reader.feed(*seq, body).unwrap() {
                    break;
                }
            }
            let (page, next) = reader.finish();
            entries.extend(page);
            cursor = next;
            if cursor.is_none() {
                return entries;
            }
        }
    }
}

proptest! {
    #![proptest_config(config())]

    /// The audit log has all judged calls, once, in order, with their outcomes. Entries that were
    /// read keep their positions.
    #[test]
    fn the_audit_log_is_complete(
        minute in 1..60_u64,
        limit in 1..90_usize,
        steps in vec((0..30_000_000_u64, 0..12_u8, 1..60_usize), 1..120),
    ) {
        let policies = [Policy::new("minute", Unit::Requests, minute, Period::Minute, Algorithm::Fixed, None).unwrap()];
        let mut logged = Logged::new();
        let mut before: Vec<(UnixMicros, u16, String)> = Vec::new();
        for (step, action, count) in steps {
            logged.clock += step / u64::from(action + 1);
            let class = format!("GET /{}", count % 5);
            match action {
                0..5 => (0..count).for_each(|_| logged.call(&policies, &class)),
                5 => {
                    let call = CallToJudge { class: &class, is_audited: true, ..CALL };
                    logged.state.refuse_call(logged.now(), &call, 403);
                    logged.count_refusal(403, &class);
                }
                6..9 => (0..count).for_each(|back| logged.end(back)),
                9 => {
                    if count % 2 == 0 {
                        // The chunks are stored and the row is not.
                        logged.chunks.extend(logged.state.to_rows().audit.into_iter().map(|row| (row.seq, row.body)));
                    }
                    logged.crash();
                }
                10 => logged.clock += MAX_DURATION * u64::try_from(count % 3).unwrap(),
                _ => {
                    logged.commit();
                    let read = logged.read(limit).into_iter().map(|entry| (entry.at, entry.status, entry.class));
                    let read: Vec<_> = read.collect();
                    prop_assert!(read.starts_with(&before));
                    before = read;
                }
            }
        }
        let entries = logged.read(limit);
        let admitted: Vec<_> = entries.iter().filter(|entry| entry.status == 200).collect();
        prop_assert_eq!(admitted.len(), logged.admitted[1].len());
        for (entry, (nonce, at, end)) in admitted.iter().zip(&logged.admitted[1]) {
            prop_assert_eq!((entry.at.as_millis(), entry.count), (*at, 1));
            prop_assert_eq!(entry.end, end.map(|duration| (204, duration)));
            prop_assert_eq!(entry.idempotency_key.clone(), nonce.is_multiple_of(3).then(|| format!("{nonce:x}")));
        }
        let mut refused = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.status != 200) {
            *refused.entry((entry.status, entry.class.clone())).or_default() += entry.count;
        }
        prop_assert_eq!(&refused, &logged.refused[1]);
    }

    /// With one row per admitted call, at most 1.1 rows per call are written and deleted.
    #[test]
    fn a_call_costs_little_more_than_a_row(
        refused in 0..20_u32,
        classes in 1..200_u32,
        key_length in prop_oneof![Just(0_usize), 1..400_usize],
        gap in prop_oneof![0..2_u64, 0..2_000_u64],
        ends in 0..3_u32,
        calls in 200..700_u32,
    ) {
        let mut state = KeyState::new("e".into());
        let (mut admits, mut rows, mut clock) = (0_u64, 0, START);
        for number in 0..calls {
            clock += gap * 1000;
            let (now, nonce) = (UnixMicros::from_micros(clock), u64::from(number));
            let (class, key) = (format!("GET /{}", number % classes), format!("{nonce:0key_length$}"));
            let idempotency_key = (key_length > 0).then_some(key.as_str());
            let call = CallToJudge { class: &class, nonce, idempotency_key, is_audited: true, ..CALL };
            for _ in 0..refused {
                state.refuse_call(now, &call, 403);
            }
            if state.judge_call(&[], now, &call).is_admitted() {
                admits += 1;
                let written = state.to_rows();
                state.committed();
                // Each chunk is deleted eventually.
                rows += 1 + 2 * written.replays.len() + 2 * written.audit.len();
                prop_assert!(written.row.body.len() < 90_000, "{}", written.row.body.len());
            }
            for _ in 0..ends {
                state.complete(now, CallOutcome { nonce, status: 200, duration_ms: 7, used: None, cost: None }, None, true);
            }
        }
        let rows = u64::try_from(rows).unwrap();
        prop_assert!(rows * 10 <= admits * 11, "{rows} rows for {admits} calls");
    }
}
