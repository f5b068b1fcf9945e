//! The audit log.

use crate::metering::{CALL, ended, metered, reread};
use crate::support::{START, fixed_policy};
use tollgate::http::idempotency_key::Fingerprint;
use tollgate::key_state::audit_log::entry::AuditEntry;
use tollgate::key_state::audit_log::reader::{AuditCursor, AuditCursorError, AuditQuery, AuditReader};
use tollgate::key_state::audit_log::retention::{AUDIT_BYTES, audit_cutoff, audit_surplus, next_audit_deletion};
use tollgate::key_state::hold::HoldTerms;
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::Period;
use tollgate::metering::call_outcome::{CallOutcome, ChargeBasis, TokenCharge, UsedTokens};
use tollgate::time::{DAY, SECOND, UnixMicros, rfc3339};

fn audited(nonce: u64, class: &str) -> CallToJudge<'_> {
    CallToJudge { method: "GET", class, nonce, is_audited: true, ..CALL }
}

/// All entries between two times, read page by page.
pub(crate) fn entries(chunks: &[(u64, String)], from: UnixMicros, to: UnixMicros, limit: usize) -> Vec<AuditEntry> {
    let (mut all, mut cursor) = (Vec::new(), None);
    for _ in 0..2_000 {
        let mut reader = AuditReader::new(AuditQuery { from, to, cursor, limit });
        for (seq, body) in chunks {
            if cursor.is_none_or(|cursor: AuditCursor| *seq >= cursor.seq) && !reader.feed(*seq, body).unwrap() {
                break;
            }
        }
        let (page, next) = reader.finish();
        assert!(page.len() == limit || (next.is_none() && page.len() < limit));
        all.extend(page);
        let Some(next) = next else { return all };
        assert_eq!(next.to_string().parse(), Ok(next));
        cursor = Some(next);
    }
    panic!("the pages do not end");
}

pub(crate) fn tail(state: &KeyState) -> Vec<(u64, String)> {
    state.audit_tail().into_iter().map(|(seq, text)| (seq, text.into_owned())).collect()
}

const ALL: AuditQuery =
    AuditQuery { from: UnixMicros::from_micros(0), to: UnixMicros::from_micros(u64::MAX), cursor: None, limit: 500 };

fn log(state: &KeyState) -> Vec<String> {
    let show = |entry: AuditEntry| {
        let at = entry.at.since(START) / 1000;
        let AuditEntry { method, class, status, is_replay, cost, idempotency_key, count, end, .. } = entry;
        let replay = if is_replay { "replay " } else { "" };
        format!("{at} {method} [{class}] {status} {replay}{cost} {idempotency_key:?} x{count} {end:?}")
    };
    entries(&tail(state), START, START.saturating_add(DAY), 2).into_iter().map(show).collect()
}

#[test]
fn calls_are_in_the_audit_log() {
    let policies = [fixed_policy("minute", 3, Period::Minute), fixed_policy("month", 10, Period::Month)];
    let mut state = metered();
    let at = |millis: u64| START.saturating_add(millis * 1000);
    let judge = |state: &mut KeyState, millis: u64, call: &CallToJudge<'_>| {
        state.judge_call(&policies, at(millis), call);
    };
    let fingerprint = Some(Fingerprint::of("POST", "/v1", None));
    judge(&mut state, 0, &CallToJudge { idempotency_key: Some("a;b|c\n~\"ö"), fingerprint, ..audited(1, "GET /v1") });
    judge(&mut state, 0, &CallToJudge { is_audited: false, ..audited(2, "GET /v1") });
    judge(&mut state, 10, &audited(3, "/v1/*"));
    judge(&mut state, 20, &audited(4, "/v1/*"));
    judge(&mut state, 30, &CallToJudge { idempotency_key: Some("a;b|c\n~\"ö"), ..audited(5, "GET /v1") });
    judge(&mut state, 40, &CallToJudge { cost: Cost { requests: 99, tokens: 0 }, ..audited(6, "GET /x\t|") });
    state.refuse_call(at(50), &audited(7, "GET ~/é"), 403);
    state.refuse_call(at(60), &CallToJudge { is_audited: false, ..audited(8, "GET /v1") }, 403);
    assert!(state.has_uncommitted_notes());
    state = reread(&mut state);
    assert!(!state.has_uncommitted_notes());
    state.complete(at(90), CallOutcome { nonce: 1, status: 502, duration_ms: 90, used: None, cost: None }, None, true);
    assert!(state.has_uncommitted_notes() && !state.is_dirty());
    state.complete(at(95), CallOutcome { nonce: 1, status: 200, duration_ms: 95, used: None, cost: None }, None, true);
    state.complete(at(95), CallOutcome { nonce: 77, status: 200, duration_ms: 95, used: None, cost: None }, None, true);
    // The next window.
    judge(
        &mut state,
        60_000,
        &CallToJudge { idempotency_key: Some("a;b|c\n~\"ö"), fingerprint, ..audited(9, "GET /v1") },
    );
    let expected = [
        r#"0 GET [GET /v1] 200 2 Some("a;b|c\n~\"ö") x1 Some((502, 90))"#,
        r"10 GET [/v1/*] 429 2 None x2 None",
        r#"30 GET [GET /v1] 409 2 Some("a;b|c\n~\"ö") x1 None"#,
        r"40 GET [GET /x\u{9}|] 400 99 None x1 None",
        r"50 GET [GET ~/é] 403 2 None x1 None",
        r#"60000 GET [GET /v1] 200 replay 0 Some("a;b|c\n~\"ö") x1 None"#,
    ]
    .map(|line| line.replace(r"\u{9}", "\t"));
    assert_eq!(log(&state), expected);
    assert_eq!(log(&reread(&mut state)), expected);
}

#[test]
fn refusals_of_a_second_are_one_entry() {
    let policies = [fixed_policy("minute", 0, Period::Minute)];
    let mut state = metered();
    let refuse = |state: &mut KeyState, millis: u64, class: &str, key| {
        let call = CallToJudge { idempotency_key: key, ..audited(millis, class) };
        assert!(!state.judge_call(&policies, START.saturating_add(millis * 1000), &call).is_admitted());
        state.refuse_call(START.saturating_add(millis * 1000), &call, 403);
    };
    for step in 0..10 {
        refuse(&mut state, step * 150, ["GET /a", "GET /b"][usize::try_from(step % 2).unwrap()], Some("k"));
    }
    refuse(&mut state, 1499, "GET /a", Some("other"));
    let line = |at, class, status, key: &str, count| format!("{at} GET [GET /{class}] {status} 2 {key} x{count} None");
    let expected = [
        (0, "a", "Some(\"k\")", 4),
        (150, "b", "Some(\"k\")", 3),
        (1050, "b", "Some(\"k\")", 2),
        (1200, "a", "None", 2),
    ];
    let expected = expected.map(|(at, class, key, count)| [400, 403].map(|status| line(at, class, status, key, count)));
    assert_eq!(log(&state), expected.concat());
    state = reread(&mut state);
    // The size is bounded, however long it goes on and whatever is requested.
    for step in 0..20_000_u64 {
        refuse(&mut state, 2000 + step * 90, &format!("GET /{}", step % 300), None);
        if step % 1000 == 0 {
            state = reread(&mut state);
        }
    }
    assert!(state.to_rows().audit.is_empty());
    assert!(state.to_row().body.len() < 5000, "{}", state.to_row().body.len());
    let entries = entries(&tail(&state), START, START.saturating_add(DAY), 500);
    assert_eq!(entries.iter().map(|entry| entry.count).sum::<u64>(), 22 + 40_000);
}

/// Refusals of a 65th class count as class "other", separate by status.
#[test]
fn refusals_of_too_many_classes_are_of_class_other() {
    let mut state = metered();
    let refuse = |state: &mut KeyState, method, class: &str, status| {
        state.refuse_call(START, &CallToJudge { method, ..audited(1, class) }, status);
    };
    for class in 0..64 {
        refuse(&mut state, "GET", &format!("GET /{class}"), [403, 429][class % 2]);
    }
    refuse(&mut state, "GET", "GET /64", 403);
    refuse(&mut state, "POST", "POST /65", 403);
    refuse(&mut state, "PUT", "PUT /66", 429);
    refuse(&mut state, "GET", "GET /67", 429);
    refuse(&mut state, "GET", "GET /0", 403);
    refuse(&mut state, "POST", "GET /2", 403);
    for state in [&mut state.clone(), &mut reread(&mut state)] {
        let entries = entries(&tail(state), START, START.saturating_add(1), 500);
        assert_eq!(entries.len(), 66);
        let of = |entry: &AuditEntry| (entry.method.clone(), entry.class.clone(), entry.status, entry.count);
        assert_eq!(of(&entries[0]), ("GET".to_owned(), "GET /0".to_owned(), 403, 2));
        assert!(entries[1..64].iter().all(|entry| entry.method == "GET" && entry.count == 1));
        assert_eq!(of(&entries[64]), (String::new(), "other".to_owned(), 403, 3));
        assert_eq!(of(&entries[65]), (String::new(), "other".to_owned(), 429, 2));
    }
}

/// The outcome of a call is searched for in the 15 minutes after it.
#[test]
fn a_call_of_more_than_15_minutes_has_no_outcome() {
    let mut state = metered();
    for nonce in [1, 2] {
        state.judge_call(&[], START, &audited(nonce, "/v1"));
        state.complete(START.saturating_add((899_999 + nonce) * 1000), ended(nonce), None, true);
    }
    let ends: Vec<_> = entries(&tail(&state), START, START.saturating_add(1), 9).into_iter().map(|e| e.end).collect();
    assert_eq!(ends, [Some((201, 190)), None]);
}

fn held_call(nonce: u64) -> CallToJudge<'static> {
    CallToJudge { hold: Some(HoldTerms { tokens: 300, ttl: 600 * SECOND }), ..audited(nonce, "/v1") }
}

/// How a call's tokens are known, and what a late settle changes of it.
#[test]
fn it_has_what_a_call_held_and_was_charged() {
    let mut state = metered();
    for nonce in 1..8 {
        state.judge_call(&[], START, &held_call(nonce));
    }
    state.judge_call(&[], START, &audited(8, "/v1"));
    state.judge_call(&[], START, &CallToJudge { is_audited: false, ..held_call(9) });
    let end = |state: &mut KeyState, millis: u64, nonce: u64, used: Option<UsedTokens>| {
        let at = START.saturating_add(millis * 1000);
        let outcome = CallOutcome { used, ..ended(nonce) };
        let charge = state.end_call(&[], at, &outcome, &[]);
        state.complete(at, outcome, charge, true);
    };
    end(&mut state, 10, 1, Some(UsedTokens::Reported(42)));
    end(&mut state, 10, 2, Some(UsedTokens::Estimated(14)));
    end(&mut state, 10, 3, Some(UsedTokens::Held));
    // One whose end is known before it is charged.
    end(&mut state, 10, 4, None);
    end(&mut state, 20, 4, Some(UsedTokens::Reported(1)));
    end(&mut state, 30, 8, None);
    state = reread(&mut state);
    let view = |state: &KeyState| -> Vec<_> {
        let entries = entries(&tail(state), START, START.saturating_add(DAY), 3);
        let charge = |entry: &AuditEntry| entry.charge.map(|charge| (charge.tokens, charge.basis));
        entries.iter().map(|entry| (entry.held, charge(entry), entry.end.is_some())).collect()
    };
    let mut expected = vec![
        (Some(300), Some((42, ChargeBasis::Reported)), true),
        (Some(300), Some((14, ChargeBasis::Estimated)), true),
        (Some(300), Some((300, ChargeBasis::Held)), true),
        (Some(300), Some((1, ChargeBasis::Reported)), true),
        (Some(300), None, false),
        (Some(300), None, false),
        (Some(300), None, false),
        (None, None, true),
    ];
    assert_eq!(view(&state), expected);
    state.expire(START.saturating_add(600 * SECOND));
    state = reread(&mut state);
    for entry in &mut expected[4..7] {
        entry.1 = Some((300, ChargeBasis::Expired));
    }
    assert_eq!(view(&state), expected);
    end(&mut state, 600_001, 5, Some(UsedTokens::Reported(20)));
    // It is found up to 15 minutes after the call.
    end(&mut state, 900_001, 6, Some(UsedTokens::Reported(20)));
    expected[4] = (Some(300), Some((20, ChargeBasis::Reported)), true);
    assert_eq!(view(&reread(&mut state)), expected);
}

/// A reader goes on to later chunks until it knows what a call was charged.
#[test]
fn a_charge_is_found_in_a_later_chunk() {
    let mut state = metered();
    let mut chunks = Vec::new();
    state.judge_call(&[], START, &held_call(1));
    state.complete(START, ended(1), None, true);
    for nonce in 2..400_u64 {
        state.judge_call(&[], START.saturating_add(nonce * SECOND), &audited(nonce, "/v1"));
        state.complete(START.saturating_add(nonce * SECOND), ended(nonce), None, true);
    }
    let outcome = CallOutcome { used: Some(UsedTokens::Reported(5)), ..ended(1) };
    let charge = state.end_call(&[], START.saturating_add(400 * SECOND), &outcome, &[]);
    state.complete(START.saturating_add(400 * SECOND), outcome, charge, true);
    chunks.extend(state.to_rows().audit.into_iter().map(|row| (row.seq, row.body)));
    state.committed();
    chunks.extend(tail(&state));
    assert!(chunks.len() > 2 && chunks.last().unwrap().1.contains("|r5;"), "{chunks:?}");
    let first = entries(&chunks, START, START.saturating_add(SECOND), 1).remove(0);
    assert_eq!(first.charge, Some(TokenCharge { tokens: 5, basis: ChargeBasis::Reported }));
}

#[test]
fn a_full_tail_becomes_a_chunk() {
    let mut state = metered();
    let mut chunks = Vec::new();
    let mut kept = 0;
    for call in 0..1000_u64 {
        let at = START.saturating_add(call * SECOND);
        let key = format!("{call:0255}{call}");
        let idempotency_key = (call >= 500).then_some(key.as_str());
        state.judge_call(&[], at, &CallToJudge { idempotency_key, ..audited(call, "GET /v1") });
        state.complete(at, CallOutcome { nonce: call.saturating_sub(30), ..ended(0) }, None, true);
        if call % 7 == 0 {
            let rows = state.to_rows();
            for row in rows.audit {
                assert_eq!(row.seq, u64::try_from(chunks.len()).unwrap());
                assert!((4096..4400).contains(&row.body.len()), "{}", row.body.len());
                assert!(row.from <= row.to && row.to <= at);
                chunks.push((row.seq, row.body));
            }
            kept = kept.max(rows.row.body.len());
            state.committed();
            state.confirmed(state.last_commit());
        }
    }
    assert!(kept < 30_000, "{kept}");
    assert!((15..25).contains(&chunks.len()), "{}", chunks.len());
    chunks.extend(state.to_rows().audit.into_iter().map(|row| (row.seq, row.body)));
    state.committed();
    state.confirmed(state.last_commit());
    let read = reread(&mut state);
    assert_eq!(read.audit_tail(), state.audit_tail());
    chunks.extend(tail(&state));
    let from = START.saturating_add(10 * SECOND);
    let found = entries(&chunks, from, START.saturating_add(990 * SECOND), 37);
    let times: Vec<u64> = found.iter().map(|entry| entry.at.since(START) / SECOND).collect();
    assert_eq!(times, (10..990).collect::<Vec<_>>());
    assert!(found[..960].iter().all(|entry| entry.end == Some((201, 190))));
    assert_eq!(found[979].idempotency_key.as_deref().unwrap().chars().count(), 64);
    // A reader requests only the chunks that it needs.
    let query = AuditQuery { from, to: START.saturating_add(DAY), cursor: None, limit: 20 };
    let mut reader = AuditReader::new(query);
    let fed = chunks.iter().take_while(|(seq, body)| reader.feed(*seq, body).unwrap()).count();
    assert!(fed <= 1, "{fed}");
    // The last ones have no outcome.
    let mut reader = AuditReader::new(AuditQuery { from: START.saturating_add(980 * SECOND), ..query });
    assert!(chunks.iter().all(|(seq, body)| reader.feed(*seq, body).unwrap()));
    let (page, next) = reader.finish();
    assert_eq!((page.len(), next), (20, None));
    assert_eq!(page[19].end, None);
}

#[test]
fn an_idempotency_key_takes_at_most_64_bytes_of_the_log() {
    let judge = |key: &str| {
        let mut state = KeyState::new("e".into());
        state.judge_call(&[], START, &CallToJudge { idempotency_key: Some(key), ..audited(1, "GET /v1") });
        let body = state.to_row().body;
        let taken = body.split_once("~/v1|2|").unwrap().1.split_once("|1;").unwrap().0.to_owned();
        assert!(taken.len() <= 64, "{taken}");
        let fixed = [fixed_policy("minute", 0, Period::Minute)];
        // The same for a refused call, and after reading back.
        for _ in 0..2 {
            state.judge_call(&fixed, START, &CallToJudge { idempotency_key: Some(key), ..audited(2, "GET /v2") });
        }
        let entries = entries(&tail(&reread(&mut state)), START, START.saturating_add(DAY), 9);
        assert_eq!((entries.len(), &entries[0].idempotency_key), (2, &entries[1].idempotency_key));
        (taken, entries[0].idempotency_key.clone().unwrap())
    };
    for key in ["order-7", "a;b|c~", &"x".repeat(64), &"|".repeat(21)] {
        assert_eq!(judge(key).1, key);
    }
    // The digits match `sha256sum`.
    let (taken, shown) = judge(&"x".repeat(65));
    assert_eq!(taken, format!("{}~9537c5fdf120482f", "x".repeat(47)));
    assert_eq!(shown, format!("{}…9537c5fdf120482f", "x".repeat(47)));
    let (taken, shown) = judge(&"|".repeat(255));
    assert_eq!((taken.len(), shown.as_str()), (62, format!("{}…443d717569113ba1", "|".repeat(15)).as_str()));
    // An escape is shown whole or not at all.
    for (before, beginning) in
        [(45, "x".repeat(45)), (44, "x".repeat(44) + "|"), (20, "x".repeat(20) + "|" + &"y".repeat(24))]
    {
        let (_, shown) = judge(&format!("{}|{}", "x".repeat(before), "y".repeat(200)));
        assert!(shown.starts_with(&format!("{beginning}…")), "{shown}");
    }
    // Rows of version 1 hold keys whole.
    let key = "%7C".repeat(255);
    let text = format!("1795160894000;a|0|POST|~/v1|2|{key}|1;d|0|POST|/v2|2|{key}|429|1|1|0;");
    let body = format!(r#"{{"v":1,"seq":1,"e":"e","t":0,"a":"0;{text}"}}"#);
    let mut state = KeyState::from_rows([(0, body)]).unwrap();
    let whole = Some("|".repeat(255));
    assert!(
        entries(&tail(&reread(&mut state)), START, START.saturating_add(DAY), 9)
            .iter()
            .all(|e| e.idempotency_key == whole)
    );
}

/// At the limit, each new chunk deletes more bytes than it adds.
#[test]
fn the_oldest_chunks_are_deleted_at_the_size_limit() {
    assert_eq!([0, 999, 1_000].map(|size| audit_surplus(size, 1_000, 90_000)), [0; 3]);
    let cap = 100_000_000;
    let mut chunks = std::collections::VecDeque::new();
    let (mut size, mut seed) = (0_u64, 7_u64);
    for written in 0..20_000_u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Long chunks follow short ones and the other way round.
        let added = if written / 1_000 % 2 == 0 { 4096 + seed % 100 } else { 60_000 + seed % 30_000 };
        let surplus = audit_surplus(size, cap, usize::try_from(added).unwrap());
        assert!(surplus <= 23, "{surplus}");
        for _ in 0..surplus {
            size -= chunks.pop_front().unwrap_or_default();
        }
        chunks.push_back(added);
        size += added;
        assert!(size <= cap + 90_000, "{size}");
        assert!(written < 4_000 || size > cap - 23 * 90_000, "{size}");
    }
    assert_eq!(AUDIT_BYTES, 1 << 30);
}

#[test]
fn the_audit_log_expires() {
    let mut state = metered();
    state.judge_call(&[], START, &audited(1, "GET /v1"));
    state.committed();
    state.confirmed(state.last_commit());
    let over = audit_cutoff(START.saturating_add(7 * DAY), 7);
    assert_eq!((over, audit_cutoff(START, 0)), (START, START));
    state.forget_audit(over.saturating_sub(1));
    assert!(!state.is_dirty() && log(&state).len() == 1);
    state.forget_audit(over);
    assert!(state.is_dirty() && log(&state).is_empty());
    assert_eq!(state.audit_tail(), [(1, "".into())]);
    assert_eq!(reread(&mut state).audit_tail(), [(1, "".into())]);
    // A state that was read back knows the times of its tail.
    for second in [0, 10] {
        state.judge_call(&[], START.saturating_add(second * SECOND), &audited(second, "GET /v1"));
    }
    let mut state = reread(&mut state);
    state.forget_audit(START.saturating_add(10 * SECOND - 1));
    assert!(!state.is_dirty() && log(&state).len() == 2);
    state.forget_audit(START.saturating_add(10 * SECOND));
    assert!(state.is_dirty() && log(&state).is_empty());
    assert_eq!(rfc3339(next_audit_deletion(START, 7)), "2026-11-28T00:00:00Z");
}

#[test]
fn the_stored_form_of_the_audit_log_is_frozen() {
    let mut state = KeyState::new("e".into());
    let policies = [fixed_policy("minute", 2, Period::Minute)];
    state.judge_call(&policies, START, &CallToJudge { idempotency_key: Some("order 7;"), ..audited(2547, "GET /v1") });
    state.judge_call(&policies, START.saturating_add(500_000), &audited(2548, "/v1/*"));
    state.judge_call(&policies, START.saturating_add(590_000), &audited(2549, "/v1/*"));
    state.complete(START.saturating_add(610_000), ended(2547), None, true);
    let text = "1795160894000;a|0|GET|~/v1|2|order 7%3B|9f3;c|610|9f3|201|190;d|500|GET|/v1/*|2||429|2|1|590;";
    let body = state.to_row().body;
    assert!(body.ends_with(&format!(r#","a":"0;{text}"}}"#)), "{body}");
    let feed = |text: &str| AuditReader::new(ALL).feed(3, text).map_err(|error| error.to_string());
    assert_eq!([feed(text), feed(""), feed("1795160894000;")], [Ok(true), Ok(true), Ok(true)]);
    let other = |text: &str| KeyState::from_rows([(3, format!(r#"{{"v":1,"seq":1,"e":"e","t":0,"a":"1;{text}"}}"#))]);
    for wrong in ["x", "1;b|0;", "1;;", "1;a|0|GET", "1;c|0|9f3|201", "1;a|-2|GET|/|1||2;", "1;a|0|GET|/|1||x;"] {
        assert_eq!(feed(wrong), Err("chunk 3 of the audit log cannot be read".to_owned()), "{wrong}");
        assert_eq!(other(wrong).unwrap_err().to_string(), "row in slot 3 cannot be read: not an audit log");
    }
    for wrong in ["", "1", "1-", "-1", "+1-1", "1-+1", "1-1-1", "99999999999999999999-1"] {
        assert_eq!(wrong.parse::<AuditCursor>(), Err(AuditCursorError), "{wrong}");
    }
    assert_eq!(AuditCursorError.to_string(), "not a cursor of this list");
}
