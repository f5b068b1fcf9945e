//! The stored forms of holds, frozen.

use super::{TTL, amounts, bucket, fixed, reservation, reserve, settle, state, tokens, with_hold};
use crate::support::{Decide, START, after};
use std::collections::BTreeMap;
use tollgate::key_state::hold::{HoldState, UsedAmount};
use tollgate::key_state::state::KeyState;
use tollgate::key_state::state::judging::CallToJudge;
use tollgate::limiter::cost::Cost;
use tollgate::limiter::policy::{Algorithm, Period, Policy, Unit};
use tollgate::metering::months::TokenMarks;
use tollgate::time::{Month, SECOND};

fn november() -> Month {
    Month::of(START)
}

#[test]
fn golden_holds() {
    let policies = [fixed(100, Period::Month), bucket(60, 100)];
    let mut state = state();
    state.judge_call(&policies, START, &with_hold(0xabc, Cost::default(), 20));
    for id in 1..5 {
        reserve(&mut state, &policies, after(id), id, Cost { requests: 1, tokens: 10 });
    }
    settle(&mut state, &policies, after(5), 1, 14);
    state.release_hold(&policies, after(6), 2);
    state.renew_hold(after(7), 3, TTL);
    state.expire(after(4).saturating_add(TTL));
    settle(&mut state, &policies, after(604), 0xabc, 15);
    let row = state.to_row();
    assert_eq!(row.body, GOLDEN);
    let mut read = KeyState::from_rows([(0, GOLDEN.to_owned())]).unwrap();
    state.committed();
    assert_eq!(read.to_row(), state.to_row());
    let at = after(604);
    assert_eq!(read.open_holds(at), state.open_holds(at));
    assert_eq!(read.meter(), state.meter());
    let states = [1, 2, 4, 0xabc].map(|id| settle(&mut read, &policies, at, id, 10).state);
    assert_eq!(states, [HoldState::Settled, HoldState::Released, HoldState::Settled, HoldState::Settled]);
    // Rows of earlier versions have no marks.
    let earlier = GOLDEN.replace("|0|0|10;", ";");
    let mut read = KeyState::from_rows([(0, earlier)]).unwrap();
    assert_eq!((read.month(november()).overdraft, read.meter().marks(november())), (4, TokenMarks::default()));
    settle(&mut read, &policies, at, 4, 10);
    assert_eq!(read.meter().marks(november()), TokenMarks::default());
}

/// Of a call that is in the audit log.
#[test]
fn golden_audited_hold() {
    let mut state = state();
    state.judge_call(&[], START, &CallToJudge { is_audited: true, ..with_hold(0xabc, Cost::default(), 20) });
    let row = state.to_row();
    let (hold, log) =
        (r#""o":"abc|660b07766cb80|23c34600|0|20|other|0|40;""#, r#""a":"0;1795160894000;a|0|GET|other|1||abc|20;""#);
    assert!(row.body.contains(hold) && row.body.contains(log), "{}", row.body);
    // It expires, and the log says so.
    let mut read = KeyState::from_rows([(0, row.body)]).unwrap();
    read.expire(after(600));
    let row = read.to_row();
    assert!(row.body.contains("a|0|GET|other|1||abc|20;c|600000|abc|0|0|x20;"), "{}", row.body);
    assert!(KeyState::from_rows([(0, row.body)]).is_ok());
}

const GOLDEN: &str = concat!(
    r#"{"v":1,"seq":1,"e":"e1","t":1795161498000000,"#,
    r#""f":[[[[29919348,4]],[[498655,4]],[[20777,4]]],[[[29919348,49]],[[498655,49]],[[20777,49]]]],"#,
    r#""m":[[202611,3,0,0,3,44,0,0]],"#,
    r#""b":[{"n":"b","k":[1,0],"q":60,"l":[0,0,1795161498000000]}],"n":[2748],"#,
    r#""h":"498655|other|1|0|1|0|0|0|20|0|5|0|0|0;498655|reservations|2|0|2|0|0|0|24|0|0|0|0|0;","#,
    r#""o":"3|660b077949240|23c34600|1|10|reservations|1|0|79bdf|660b09b94e140;","#,
    r#""d":[1,"1|660b077b316c0|0|1|14|1|10;2|660b077c25900|1|0|0|1|10;"#,
    r#"abc|660b09b2a1180|2|0|20|0|20|abc|660b07766cb80|23c34600|0|20|other|0;"#,
    r#"4|660b09b671a80|2|1|10|1|10|4|660b077a3d480|23c34600|1|10|reservations|1;"#,
    r#"abc|660b09b671a80|0|0|15|0|20|1;"],"r":"202611|0|5|4|0|0|0|0|0|0|0|10;"}"#,
);

/// Of each hold, what can still be in a bucket.
#[test]
fn golden_floors() {
    let policies = [bucket(7, 100)];
    let mut state = state();
    reserve(&mut state, &policies, START, 1, tokens(30));
    reserve(&mut state, &policies, after(5), 2, tokens(20));
    state.decide(&policies, after(6), tokens(1));
    let body = state.to_row().body;
    let expected =
        r#""b":[{"n":"b","k":[1,0],"q":7,"l":[50,18000000,1795160900000000],"g":[[1,29,25000000],[2,49,18000000]]}]"#;
    assert!(body.contains(expected), "{body}");
    let mut read = KeyState::from_rows([(0, body)]).unwrap();
    for state in [&mut read, &mut state] {
        settle(state, &policies, after(6), 1, 0);
        assert_eq!(amounts(state, &policies, after(6)), (2, 19, 79));
    }
}

/// As before there were holds, byte for byte: also once all have been forgotten.
#[test]
fn a_key_without_holds_writes_what_it_wrote_before() {
    let policies = [fixed(100, Period::Minute)];
    let mut state = state();
    state.decide(&policies, START, Cost::default());
    let golden = r#"{"v":1,"seq":1,"e":"e1","t":1795160894000000,"f":[[[[29919348,1]],[[498655,1]],[[20777,1]]]],"m":[[202611,1,0,0,1,0,0,0]],"n":[9223372036854775808],"h":"498655|other|1|0|1|0|0|0;"}"#;
    assert_eq!(state.to_row().body, golden);
    // A hold that is given back leaves no trace but its own.
    state.judge_call(&policies, START, &with_hold(1, Cost::NONE, 10));
    state.release_hold(&policies, START, 1);
    let expected = golden
        .replace(r#""m":[[202611,1,"#, r#""m":[[202611,2,"#)
        .replace("1|0|1|0|0|0;", "2|0|1|0|0|0;")
        .replace("75808]", "75808,1]");
    assert_eq!(state.to_row().body, expected);
}

/// What is taken out of entries that an older row holds.
#[test]
fn golden_log_with_less() {
    let policies = [Policy::new("s", Unit::Requests, 100, Period::Hour, Algorithm::Sliding, None).unwrap()];
    let (mut state, mut rows) = (state(), BTreeMap::new());
    let cost = Cost { requests: 9, tokens: 0 };
    for id in 1..4 {
        let _ = state.reserve(&policies, after(id), &reservation(id, cost));
    }
    for second in 4..70 {
        state.decide(&policies, after(second), Cost::default());
        super::commit(&mut state, &mut rows);
    }
    assert_eq!(rows.len(), 2);
    let settle = |state: &mut KeyState, id, requests| {
        let used = UsedAmount { tokens: 0, requests: Some(requests) };
        state.settle_hold(&policies, after(70), id, used, &[]).unwrap();
    };
    settle(&mut state, 1, 2);
    settle(&mut state, 3, 0);
    super::commit(&mut state, &mut rows);
    assert!(rows[&1].contains(r#""g":[[1795160895000,7],[1795160897000,9]]"#), "{}", rows[&1]);
    let mut read = KeyState::from_rows(rows).unwrap();
    for state in [&mut read, &mut state] {
        assert_eq!(amounts(state, &policies, after(70)), (2 + 66, 9, 100 - 2 - 66 - 9));
        settle(state, 2, 9);
    }
    assert_eq!(read.to_row(), state.to_row());
}

/// Each give-back to an older row is in the newest one until these are too many. Then the log is
/// stored anew.
#[test]
fn a_log_that_much_is_taken_out_of_is_stored_anew() {
    let policies = [Policy::new("s", Unit::Requests, 10_000, Period::Hour, Algorithm::Sliding, None).unwrap()];
    let (mut state, mut rows) = (state(), BTreeMap::new());
    let ttl = 3_600 * SECOND;
    for id in 1..600 {
        let reservation = tollgate::key_state::hold::Reservation { id, cost: Cost { requests: 3, tokens: 0 }, ttl };
        let _ = state.reserve(&policies, after(id), &reservation);
        super::commit(&mut state, &mut rows);
    }
    for (closed, id) in (1..600).enumerate() {
        let used = UsedAmount { tokens: 0, requests: Some(1) };
        state.settle_hold(&policies, after(600), id, used, &[]).unwrap();
        super::commit(&mut state, &mut rows);
        let expected = 3 * 599 - 2 * (closed as u64 + 1);
        let mut read = KeyState::from_rows(rows.clone()).unwrap();
        assert_eq!(read.to_row(), state.to_row());
        for state in [&mut read, &mut state] {
            assert_eq!(10_000 - amounts(state, &policies, after(600)).2, expected);
        }
    }
    assert_eq!(state.month(Month::of(START)).cost, 599);
}

#[test]
fn holds_that_cannot_be_read_are_refused() {
    let text = |field: &str| {
        let row = format!(r#"{{"v":1,"seq":1,"e":"e","t":0,{field}}}"#);
        KeyState::from_rows([(4, row)]).map(|_| ()).unwrap_err().to_string()
    };
    for (field, reason) in [
        (r#""o":"x;""#, "not holds"),
        (r#""o":"1|2|3|4|5|GET;""#, "not holds"),
        (r#""d":[1,"1|2|3|4|5|6|7;"]"#, "not closed holds"),
        (r#""d":[1,"1|2|2|4|5|6|7;"]"#, "not closed holds"),
        (r#""r":"202611|1|2|3|4|5|6|7;""#, "not months"),
    ] {
        assert_eq!(text(field), format!("row in slot 4 cannot be read: {reason}"));
    }
    // Further fields and months that are not kept are no reason.
    let row = r#"{"v":1,"seq":1,"e":"e","t":0,"o":"1|2|3|4|5|GET|1|0|0|9|new;","d":[1,"1|2|0|4|5|6|7|new;"],"r":"202611|1|2|3|4|5|6|7|8|new;"}"#;
    assert!(KeyState::from_rows([(4, row.to_owned())]).is_ok());
}
