use super::*;

use crate::keys::token_route::{TokenTerms, UsageFormat};
use crate::tokens::request::TokenHold;

const HASH: &str = "00ff";

#[test]
fn outcomes_are_written_as_they_are_read() {
    for text in [
        "",
        "5.200.31",
        "5.200.31,6.0.9,18446744073709551615.599.0",
        "5.200.31.r0,6.0.9.e18446744073709551615,7.200.1.h,8.200.1",
        "5.200.31.c,6.200.9.c0,7.200.1.r7.c18446744073709551615,8.200.1.h.c",
    ] {
        assert_eq!(CallOutcomes::text(&CallOutcomes(text).iter().collect::<Vec<_>>()), text);
    }
    let used = |text| CallOutcomes(text).iter().map(|outcome| outcome.used).collect::<Vec<_>>();
    assert_eq!(used("1.200.3.r,2.200.3.z9,3.200.3.,4.200.3.r9.new"), [None, None, None, Some(UsedTokens::Reported(9))]);
    assert!(CallOutcomes("1.200.3,2.200.3.h").close_holds() && !CallOutcomes("1.200.3,2.200.3.c").close_holds());
    assert!(CallOutcomes("1.200.3,2.200.3.c9").close_holds());
    let costs = |text| CallOutcomes(text).iter().map(|outcome| outcome.cost).collect::<Vec<_>>();
    assert_eq!(
        costs("1.200.3.c7.new,2.200.3.new.c,3.200.3.cx,4.200.3.c-1,5.200.3.h"),
        [Some(FinalCost::Requests(7)), Some(FinalCost::AsCharged), None, None, None]
    );
}

/// During a deployment old and new versions exchange these lines.
#[test]
fn requests_are_frozen() {
    let call = Call { id: "abc", secret_hash: HASH, method: "GET", path: "/a&p=b%2F" };
    let plain = Check {
        call,
        nonce: 7,
        is_repeat: false,
        age: None,
        is_concurrent: false,
        is_found: false,
        report: None,
        idempotency_key: None,
        fingerprint: None,
        has_malformed_key: false,
        held: None,
        outcomes: CallOutcomes::default(),
    };
    let report = PendingReport { nonce: 9, uncounted: 2, denied: 3, ..PendingReport::default() };
    let old = PendingReport { age: Some(1500), ..report };
    let text = format!("2:{},1:{}", UncheckedCalls::target("GET", "/a&p=,:#%2F"), UncheckedCalls::target("M-#", "/ü"));
    let named = PendingReport { unchecked: UncheckedCalls(&text), ..old };
    let calls: Vec<_> = named.unchecked.iter().collect();
    assert_eq!(calls, [(2, "GET".into(), "/a&p=,:#%2F".into()), (1, "M-#".into(), "/ü".into())]);
    assert_eq!(UncheckedCalls(",x:GET:/,1:GET,7").iter().count(), 0);
    let again = Check { is_repeat: true, age: Some(40), report: Some(old), ..plain.clone() };
    let full = Check { is_repeat: true, is_concurrent: true, report: Some(report), ..plain.clone() };
    let found = Check { is_found: true, ..plain.clone() };
    let noted =
        Check { idempotency_key: Some("a &p=#/ü".into()), outcomes: CallOutcomes("5.200.31,6.0.9"), ..plain.clone() };
    let fingerprint = Fingerprint::of("POST", "/orders", None);
    let keyed = plain.clone().with_field(Field::Key("k"), Some(fingerprint));
    let malformed = plain.clone().with_field(Field::Malformed, Some(fingerprint));
    assert_eq!(plain.clone().with_field(Field::Absent, Some(fingerprint)), plain);
    let outcomes: Vec<_> = noted.outcomes.iter().map(|it| (it.nonce, it.status, it.duration_ms)).collect();
    assert_eq!(outcomes, [(5, 200, 31), (6, 0, 9)]);
    assert_eq!(CallOutcomes("1.2,x.200.3,,7.70000.1").iter().count(), 0);
    let page = AuditPage { from: 1, to: 2, cursor: "3-4", limit: 5 };
    for (request, url) in [
        (ObjectRequest::Check(plain), "https://key.object/v1/check?id=abc&h=00ff&n=7&m=GET&p=/a&p=b%2F"),
        (ObjectRequest::Check(full), "https://key.object/v1/check?id=abc&h=00ff&n=7&r=1&g=1&o=9:2:3&m=GET&p=/a&p=b%2F"),
        (
            ObjectRequest::Check(noted),
            "https://key.object/v1/check?id=abc&h=00ff&n=7&i=a%20%26p%3D%23%2F%C3%BC&m=GET&p=/a&p=b%2F#5.200.31,6.0.9",
        ),
        (
            ObjectRequest::Check(keyed),
            "https://key.object/v1/check?id=abc&h=00ff&n=7&i=k&q=3597ea7d1937509fef6ed26a0dbd6b15&m=GET&p=/a&p=b%2F",
        ),
        (ObjectRequest::Check(malformed), "https://key.object/v1/check?id=abc&h=00ff&n=7&b=1&m=GET&p=/a&p=b%2F"),
        (
            ObjectRequest::Check(again),
            "https://key.object/v1/check?id=abc&h=00ff&n=7&r=1&a=40&o=9:2:3:1500&m=GET&p=/a&p=b%2F",
        ),
        (ObjectRequest::Check(found), "https://key.object/v1/check?id=abc&h=00ff&n=7&found=1&m=GET&p=/a&p=b%2F"),
        (ObjectRequest::Report { id: "abc", report }, "https://key.object/v1/settle?id=abc&o=9:2:3"),
        (
            ObjectRequest::Report { id: "abc", report: named },
            "https://key.object/v1/settle?id=abc&o=9:2:3:1500&u=2:GET:/a%26p=%2C%3A%23%252F,1:M-%23:/%C3%BC",
        ),
        (ObjectRequest::Report { id: "abc", report: old }, "https://key.object/v1/settle?id=abc&o=9:2:3:1500"),
        (
            ObjectRequest::CallOutcomes { id: "abc", is_awaited: true, outcomes: CallOutcomes("5.200.31") },
            "https://key.object/v1/end?id=abc&w=1#5.200.31",
        ),
        (
            ObjectRequest::CallOutcomes { id: "abc", is_awaited: false, outcomes: CallOutcomes("5.200.31") },
            "https://key.object/v1/end?id=abc#5.200.31",
        ),
        (ObjectRequest::Audit { id: "abc", page }, "https://key.object/v1/audit?id=abc&f=1&t=2&c=3-4&l=5"),
        (ObjectRequest::Usage { id: "abc" }, "https://key.object/v1/usage?id=abc"),
        (ObjectRequest::Refresh { id: "abc" }, "https://key.object/v1/refresh?id=abc"),
        (ObjectRequest::ApplyTier { id: "abc" }, "https://key.object/v1/adopt?id=abc"),
        (ObjectRequest::FanOut { id: "abc" }, "https://key.object/v1/fan_out?id=abc"),
        (ObjectRequest::Reconcile { id: "abc" }, "https://key.object/v1/reconcile?id=abc"),
        (ObjectRequest::Stats { id: "abc" }, "https://key.object/v1/stats?id=abc"),
        (
            ObjectRequest::KeyStatus { id: "abc", secret_hash: HASH, is_found: false },
            "https://key.object/v1/holder?id=abc&h=00ff",
        ),
        (
            ObjectRequest::KeyStatus { id: "abc", secret_hash: HASH, is_found: true },
            "https://key.object/v1/holder?id=abc&h=00ff&found=1",
        ),
    ] {
        assert_eq!(request.to_url(), url);
        assert_eq!(ObjectRequest::parse(url), Some(request));
    }
}

/// As above.
#[test]
fn requests_about_holds_are_frozen() {
    let terms = TokenTerms {
        format: UsageFormat::OpenAi,
        default_output: 1024,
        max_output: 4096,
        bytes_per_token: 1,
        max_input: None,
    };
    let hold = TokenHold { input: 120, output_per_answer: 1024, answers: 2 };
    let plain = ObjectRequest::parse("https://key.object/v1/check?id=abc&h=00ff&n=7&m=GET&p=/");
    let Some(ObjectRequest::Check(plain)) = plain else { panic!("{plain:?}") };
    let check = |held, outcomes| {
        let outcomes = CallOutcomes(outcomes);
        ObjectRequest::Check(Check { held: Some(Box::new(held)), outcomes, ..plain.clone() })
    };
    let named_input = TokenTerms { format: UsageFormat::Header, max_input: Some(9), ..terms };
    for (request, url) in [
        (
            check(HeldCall { hold, terms, can_be_clamped: false }, ""),
            "https://key.object/v1/check?id=abc&h=00ff&n=7&k=120:1024:2:openai:1024:4096:1:0&m=GET&p=/",
        ),
        (
            check(HeldCall { hold, terms: named_input, can_be_clamped: true }, "5.200.31.r7"),
            "https://key.object/v1/check?id=abc&h=00ff&n=7&k=120:1024:2:header:1024:4096:1:9:c&m=GET&p=/#5.200.31.r7",
        ),
        (ObjectRequest::RenewHold { id: "abc", nonce: 7 }, "https://key.object/v1/renew?id=abc&n=7"),
    ] {
        assert_eq!(request.to_url(), url);
        assert_eq!(ObjectRequest::parse(url), Some(request));
    }
}

#[test]
fn unknown_parameters_are_ignored_and_malformed_requests_refused() {
    let newer = ObjectRequest::parse("https://key.object/v1/usage?id=abc&new=1");
    assert_eq!(newer, Some(ObjectRequest::Usage { id: "abc" }));
    // Terms of a later version.
    for terms in ["1:2:3:later:4:5:6:7", "1:2", ""] {
        let url = format!("https://key.object/v1/check?id=abc&h=00ff&k={terms}&m=GET&p=/");
        let Some(ObjectRequest::Check(check)) = ObjectRequest::parse(&url) else { panic!("{terms}") };
        assert_eq!(check.held, None, "{terms}");
    }
    for wrong in [
        "",
        "https://key.object/v2/usage?id=a",
        "https://key.object/v1/usage?",
        "https://key.object/v1/check?id=a",
        "https://key.object/v1/holder?id=a",
        "https://key.object/v1/x?id=a",
    ] {
        assert_eq!(ObjectRequest::parse(wrong), None, "{wrong}");
    }
}
