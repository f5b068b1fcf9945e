use super::*;
use crate::protocol::object_response::ObjectResponse;

const CALL: Call<'_> = Call { id: "k", secret_hash: "h", method: "GET", path: "/a" };

fn denied(line: &str) -> KeyResponse {
    match ObjectResponse::parse(line) {
        Some(ObjectResponse::Key(known)) => known,
        other => panic!("{other:?}"),
    }
}

fn minute_denied(cost: u64) -> KeyResponse {
    denied(&format!("1 denied:8500:{cost}:0 free 1000000 minute:rm:10:60:0:8500 month:rM:1000:2592000:990:9000000"))
}

fn kept(cost: u64) -> DenyCache {
    let mut cache = DenyCache::default();
    keep(&mut cache, CALL, &minute_denied(cost), 1_000..1_200, 60_000);
    cache
}

#[test]
fn a_denial_for_want_of_a_hold_is_not_kept() {
    let mut cache = DenyCache::default();
    let line = "1 denied:8500:1:h free 1000000 minute:rm:10:60:0:8500 month:rM:1000:2592000:990:9000000";
    keep(&mut cache, CALL, &denied(line), 1_000..1_200, 60_000);
    assert!(cache.plain(CALL, 1_300).is_none());
}

#[test]
fn a_denial_that_may_end_early_is_not_kept() {
    for (mark, is_kept) in [("", true), (":f", false)] {
        let mut cache = DenyCache::default();
        let line = format!("1 denied:8500:1:0{mark}:a free 1000000 minute:rm:10:60:0:8500");
        keep(&mut cache, CALL, &denied(&line), 1_000..1_200, 60_000);
        assert_eq!(cache.plain(CALL, 1_300).is_some(), is_kept, "{mark}");
    }
}

#[test]
fn a_denial_by_tokens_is_not_kept() {
    let policies = |violated: &str| {
        let usage = "minute:rm:10:60:0:8500 day:td:1000:86400:5:9000000";
        denied(&format!("1 denied:8500:1:{violated}:a free 1000000 {usage}"))
    };
    for (violated, is_kept) in [("0", true), ("1", false), ("0:1", false)] {
        let mut cache = DenyCache::default();
        keep(&mut cache, CALL, &policies(violated), 1_000..1_200, 60_000);
        assert_eq!(cache.plain(CALL, 1_300).is_some(), is_kept, "{violated}");
    }
}

fn keep(cache: &mut DenyCache, call: Call<'_>, known: &KeyResponse, span: Range<u64>, cap: u64) {
    cache.keep(call, Keyed::No, known, span, cap, cache.generation());
}

impl DenyCache {
    fn plain(&mut self, call: Call<'_>, now: u64) -> Option<&Denial> {
        self.find(call, Keyed::No, now)
    }
}

fn waits(known: &KeyResponse) -> (u64, u64, u64) {
    match known.verdict {
        KeyVerdict::Denied { retry_after, .. } => {
            (retry_after, known.usage.policies[0].reset_after, known.usage.policies[1].reset_after)
        }
        _ => panic!("{known:?}"),
    }
}

#[test]
fn ends_with_the_wait_counted_from_before_the_request() {
    let mut cache = kept(1);
    assert!(cache.plain(CALL, 1_200).is_some());
    assert!(cache.plain(CALL, 9_499).is_some());
    assert!(cache.plain(CALL, 9_500).is_none());
    assert!(cache.plain(CALL, 1_200).is_none(), "an expired denial is dropped");
}

#[test]
fn waits_count_from_after_the_response() {
    let mut cache = kept(1);
    assert_eq!(waits(&cache.plain(CALL, 1_200).unwrap().at(1_200)), (8_500, 8_500, 9_000_000));
    let later = cache.plain(CALL, 4_700).unwrap().at(4_700);
    assert_eq!(waits(&later), (5_000, 5_000, 8_996_500));
    assert_eq!(later.usage.now, 1_003_500, "so that an absolute reset stays where it was");
    assert_eq!(later.violated(), ["minute"]);
}

#[test]
fn unchanged_for_is_how_long_the_response_stays_the_same() {
    let mut cache = kept(1);
    let denial = cache.plain(CALL, 1_200).unwrap();
    // 8.5 s, 8.5 s and 9,000 s are left at 1,200.
    for (now, unchanged) in [(1_200, 500), (1_699, 1), (1_700, 500), (2_199, 1), (2_200, 500)] {
        assert_eq!(denial.unchanged_for(now), unchanged, "{now}");
        let words = |at: u64| {
            let known = denial.at(at);
            let waits = waits(&known);
            (waits.0.div_ceil(1000), waits.1.div_ceil(1000), waits.2.div_ceil(1000))
        };
        assert_eq!(words(now), words(now + unchanged - 1));
        assert_ne!(words(now), words(now + unchanged));
    }
    let mut cache = DenyCache::default();
    let sooner = denied("1 denied:8250:1:0 free 1000000 minute:rm:10:60:0:8500");
    keep(&mut cache, CALL, &sooner, 1_000..1_200, 60_000);
    assert_eq!(cache.plain(CALL, 1_200).unwrap().unchanged_for(1_200), 250, "the wait is one of them");
}

#[test]
fn numbers_are_unique() {
    let mut cache = kept(1);
    let first = cache.plain(CALL, 1_200).unwrap().number();
    keep(&mut cache, CALL, &minute_denied(1), 1_300..1_300, 60_000);
    assert_ne!(cache.plain(CALL, 1_300).unwrap().number(), first);
}

#[test]
fn is_valid_for_the_same_key_and_no_call_that_may_cost_less() {
    let others = [
        Call { secret_hash: "other", ..CALL },
        Call { id: "l", ..CALL },
        Call { method: "POST", ..CALL },
        Call { path: "/b", ..CALL },
    ];
    let found = |cost, call| kept(cost).plain(call, 1_300).is_some();
    assert_eq!(others.map(|call| found(1, call)), [false, false, true, true]);
    assert_eq!(others.map(|call| found(2, call)), [false; 4]);
    assert!(found(2, CALL));
}

#[test]
fn ends_at_the_cap_and_when_any_window_does() {
    let mut cache = DenyCache::default();
    keep(&mut cache, CALL, &minute_denied(1), 0..0, 3_000);
    assert!(cache.plain(CALL, 2_999).is_some());
    assert!(cache.plain(CALL, 3_000).is_none());
    let month = denied("1 denied:9000000:1:1 free 0 minute:rm:10:60:3:700 month:rM:10:2592000:0:9000000");
    keep(&mut cache, CALL, &month, 0..0, 10_000);
    assert!(cache.plain(CALL, 699).is_some());
    assert!(cache.plain(CALL, 700).is_none());
    keep(&mut cache, CALL, &month, 0..0, 0);
    assert!(cache.plain(CALL, 0).is_none(), "a cap of 0 switches it off");
    let changing = denied("1 denied:8500:1:0 free 0 minute:rm:10:60:0:8500:500 month:rM:10:2592000:9:9000000");
    keep(&mut cache, CALL, &changing, 0..100, 10_000);
    assert_eq!(cache.plain(CALL, 300).unwrap().at(300).usage.changes_after, Some(300));
    assert!(cache.plain(CALL, 499).is_some());
    assert!(cache.plain(CALL, 500).is_none(), "other policies apply from then on");
    let unused = denied("1 denied:8500:1:0 free 0 minute:rm:10:60:0:8500 hour:rh:10:3600:10:0");
    keep(&mut cache, CALL, &unused, 0..0, 10_000);
    assert!(cache.plain(CALL, 8_499).is_some(), "an unused policy has no window that ends");
    // A denial that is valid for no time replaces none.
    keep(&mut cache, CALL, &minute_denied(1), 8_400..8_400, 0);
    assert!(cache.plain(CALL, 8_499).is_some());
}

#[test]
fn keeps_only_denials_and_none_across_a_step_back_of_the_clock() {
    let mut cache = DenyCache::default();
    keep(&mut cache, CALL, &denied("1 admitted free 0 minute:rm:10:60:3:700"), 0..0, 10_000);
    assert!(cache.plain(CALL, 0).is_none());
    keep(&mut cache, CALL, &minute_denied(1), Range { start: 1_000, end: 999 }, 10_000);
    assert!(cache.plain(CALL, 1_000).is_none());
    assert!(kept(1).plain(CALL, 1_199).is_none());
}

#[test]
fn holds_a_bounded_number_of_keys() {
    let mut cache = DenyCache::default();
    let known = minute_denied(1);
    for n in 0..CAPACITY + 5 {
        keep(&mut cache, Call { id: &n.to_string(), ..CALL }, &known, 5_000..5_000, 10_000);
    }
    assert_eq!(cache.keys.len(), CAPACITY);
    assert!(cache.plain(Call { id: &CAPACITY.to_string(), ..CALL }, 5_001).is_none());
    keep(&mut cache, Call { id: "0", ..CALL }, &known, 6_000..6_000, 10_000);
    assert!(cache.plain(Call { id: "0", ..CALL }, 14_499).is_some(), "there is room for news of a key that is here");
    keep(&mut cache, Call { id: "new", ..CALL }, &known, 20_000..20_000, 10_000);
    assert!(cache.plain(Call { id: "new", ..CALL }, 20_001).is_some(), "expired entries make room");
    assert_eq!(cache.keys.len(), 1);
}

const KEYS: [Keyed; 3] = [Keyed::Key(1), Keyed::Key(2), Keyed::Key(3)];

/// A denial with `extent`, of a call with an idempotency key, kept from 0 on.
fn extended(cache: &mut DenyCache, keyed: Keyed, extent: &str) {
    let known = denied(&format!("1 denied:8500:1:0{extent} free 0 month:rM:10:2592000:0:8500"));
    cache.keep(CALL, keyed, &known, 0..0, 60_000, cache.generation());
}

fn holds(cache: &mut DenyCache, keyed: &[Keyed], now: u64) -> Vec<bool> {
    keyed.iter().map(|keyed| cache.find(CALL, *keyed, now).is_some()).collect()
}

#[test]
fn a_denial_for_all_is_valid_for_any_idempotency_key() {
    let mut cache = DenyCache::default();
    extended(&mut cache, Keyed::Key(1), ":a");
    assert_eq!(holds(&mut cache, &KEYS, 1), [true; 3]);
    assert_eq!(holds(&mut cache, &[Keyed::No, Keyed::Malformed], 8_499), [true; 2]);
    assert_eq!(holds(&mut cache, &[Keyed::No, Keyed::Key(1)], 8_500), [false; 2]);
}

#[test]
fn a_denial_of_new_calls_is_valid_for_the_idempotency_keys_that_were_denied() {
    let mut cache = DenyCache::default();
    extended(&mut cache, Keyed::No, "");
    assert_eq!(holds(&mut cache, &[Keyed::No, Keyed::Key(1)], 1), [true, false]);
    extended(&mut cache, Keyed::Key(1), ":n");
    extended(&mut cache, Keyed::Key(2), ":n");
    assert_eq!(holds(&mut cache, &KEYS, 1), [true, true, false]);
    assert_eq!(holds(&mut cache, &[Keyed::No, Keyed::Malformed], 1), [true, false]);
    // The newest are kept. At most ten a second are passed to the object.
    for key in 10..25 {
        extended(&mut cache, Keyed::Key(key), ":n");
    }
    assert_eq!(holds(&mut cache, &[Keyed::Key(1), Keyed::Key(2), Keyed::Key(24)], 2_000), [false, true, true]);
    // The keys are forgotten with the denial.
    let known = denied("1 denied:8500:1:0:n free 0 month:rM:10:2592000:0:8500");
    cache.keep(CALL, Keyed::Key(30), &known, 8_500..8_500, 60_000, cache.generation());
    assert_eq!(holds(&mut cache, &[Keyed::Key(24), Keyed::Key(30), Keyed::No], 8_501), [false, true, true]);
}

#[test]
fn a_denial_of_a_replay_is_not_valid_for_new_calls() {
    let mut cache = DenyCache::default();
    extended(&mut cache, Keyed::Key(1), ":r");
    assert_eq!(holds(&mut cache, &[Keyed::Key(1), Keyed::Key(2), Keyed::No], 1), [true, false, false]);
    let month = denied("1 denied:9000:1:0:n free 0 month:rM:10:2592000:0:9000");
    cache.keep(CALL, Keyed::Key(2), &month, 0..0, 60_000, cache.generation());
    let mut wait = |keyed| waits_of(cache.find(CALL, keyed, 1).unwrap());
    assert_eq!([Keyed::Key(1), Keyed::Key(2), Keyed::No].map(&mut wait), [8_500, 9_000, 9_000]);
}

fn waits_of(denial: &Denial) -> u64 {
    match denial.known.verdict {
        KeyVerdict::Denied { retry_after, .. } => retry_after,
        _ => 0,
    }
}

#[test]
fn a_response_of_an_earlier_version_to_a_call_with_an_idempotency_key_is_not_kept() {
    let mut cache = DenyCache::default();
    extended(&mut cache, Keyed::Key(1), "");
    assert_eq!(holds(&mut cache, &[Keyed::Key(1), Keyed::No], 1), [false; 2]);
}

#[test]
fn ten_new_idempotency_keys_a_second_are_passed_to_the_object() {
    for extent in [":n", ":r"] {
        let mut cache = DenyCache::default();
        extended(&mut cache, Keyed::Key(0), extent);
        let passed = |cache: &mut DenyCache, keys: Range<u64>, now| {
            keys.filter(|key| cache.find(CALL, Keyed::Key(*key), now).is_none()).count()
        };
        assert_eq!(passed(&mut cache, 1..300, 1_999), 10);
        assert_eq!(passed(&mut cache, 1..300, 2_000), 10);
        assert_eq!(passed(&mut cache, 1..300, 2_001), 0);
        assert_eq!(passed(&mut cache, 1..300, 3_000), 10);
        // Another secret is judged by the object.
        assert!(cache.find(Call { secret_hash: "other", ..CALL }, Keyed::Key(1), 3_000).is_none());
        assert_eq!(waits_of(cache.find(CALL, Keyed::Key(9), 3_000).unwrap()), 8_500);
    }
}

#[test]
fn a_denial_of_all_costs_is_not_replaced_by_one_of_some() {
    let mut cache = DenyCache::default();
    extended(&mut cache, Keyed::No, "");
    let number = cache.plain(CALL, 1).unwrap().number();
    let dear = denied("1 denied:8500:5:0:n free 0 month:rM:10:2592000:0:8500");
    let other = Call { path: "/dear", ..CALL };
    cache.keep(other, Keyed::Key(1), &dear, 1..1, 60_000, cache.generation());
    assert_eq!(cache.plain(CALL, 1).unwrap().number(), number);
    assert!(cache.find(other, Keyed::Key(1), 1).is_some());
    // Nor are its classified keys dropped.
    let mut cache = DenyCache::default();
    extended(&mut cache, Keyed::Key(1), ":n");
    cache.keep(other, Keyed::Key(2), &dear, 1..1, 60_000, cache.generation());
    assert_eq!(holds(&mut cache, &KEYS, 1), [true, true, false]);
    // Of two for some, the newer is kept, without the classified keys of the other.
    let mut cache = DenyCache::default();
    for (call, key) in [(CALL, 1), (other, 2)] {
        cache.keep(call, Keyed::Key(key), &dear, 1..1, 60_000, cache.generation());
    }
    assert!(cache.find(other, Keyed::Key(2), 1).is_some() && cache.find(other, Keyed::Key(1), 1).is_none());
    assert!(cache.plain(CALL, 1).is_none());
}

#[test]
fn each_secret_has_its_own_refusals() {
    let mut cache = DenyCache::default();
    let of = |secret| Call { secret_hash: secret, ..CALL };
    for secret in ["a", "b"] {
        keep(&mut cache, of(secret), &minute_denied(1), 1_000..1_200, 60_000);
    }
    assert!(["a", "b"].iter().all(|secret| cache.plain(of(secret), 1_300).is_some()));
    // The newest eight are kept.
    for secret in ["c", "d", "e", "f", "g", "h", "i"] {
        keep(&mut cache, of(secret), &minute_denied(1), 1_000..1_200, 60_000);
    }
    let kept: Vec<_> = ["a", "b", "c", "i"].iter().map(|secret| cache.plain(of(secret), 1_300).is_some()).collect();
    assert_eq!(kept, [false, true, true, true]);
}

#[test]
fn refusals_are_kept_for_seconds() {
    let disabled = denied("1 refused:disabled free 0 month:rM:10:2592000:0:9000000");
    for (cap, life) in [(60_000, REFUSAL_LIFE), (2_000, 2_000)] {
        let mut cache = DenyCache::default();
        keep(&mut cache, CALL, &disabled, 0..0, cap);
        let all = [Keyed::No, Keyed::Key(1), Keyed::Malformed];
        assert_eq!(holds(&mut cache, &all, life - 1), [true; 3]);
        assert!(cache.plain(Call { secret_hash: "other", ..CALL }, 1).is_none());
        assert_eq!(holds(&mut cache, &all, life), [false; 3]);
    }
    let mut cache = DenyCache::default();
    keep(&mut cache, CALL, &disabled, 0..0, 0);
    assert!(cache.plain(CALL, 0).is_none());
    let known = denied("1 refused:disabled unlimited 0");
    keep(&mut cache, CALL, &known, 0..0, 60_000);
    assert_eq!(cache.plain(CALL, 0).unwrap().unchanged_for(0), REFUSAL_LIFE);

    let mut cache = DenyCache::default();
    let malformed = denied("1 malformed free 0");
    cache.keep(CALL, Keyed::Malformed, &malformed, 0..0, 60_000, cache.generation());
    assert_eq!(holds(&mut cache, &[Keyed::Malformed, Keyed::No, Keyed::Key(1)], 2_999), [true, false, false]);
    assert!((0..100).all(|key| cache.find(CALL, Keyed::Key(key), 2_999).is_none()), "without a limit per second");
}

#[test]
fn a_response_to_a_request_before_a_change_is_not_kept_after_it() {
    let mut cache = kept(1);
    let before = cache.generation();
    cache.forget(Some("l"));
    assert!(cache.plain(CALL, 1_300).is_some(), "another key");
    cache.keep(Call { id: "m", ..CALL }, Keyed::No, &minute_denied(1), 1_000..1_300, 60_000, before);
    assert!(cache.plain(Call { id: "m", ..CALL }, 1_300).is_none());
    cache.forget(Some("k"));
    assert!(cache.plain(CALL, 1_300).is_none());
    keep(&mut cache, CALL, &minute_denied(1), 1_000..1_200, 60_000);
    assert!(cache.plain(CALL, 1_300).is_some(), "requested after the change");
    cache.forget(None);
    assert!(cache.plain(CALL, 1_300).is_none());
}
