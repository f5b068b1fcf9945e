use super::*;
use crate::keys::token_route::UsageFormat;

/// Old and new versions of these lines meet during every deployment.
#[test]
fn answers_are_frozen() {
    let policy = |name: &str, period, window| PolicyStatus {
        name: name.to_owned(),
        unit: Unit::Requests,
        period,
        quota: 10,
        window,
        remaining: 9,
        reset_after: 41_877,
    };
    let changing = |verdict, changes_after| {
        let usage = KeyUsage {
            tier: "free".to_owned(),
            now: 1_763_624_894_123,
            policies: vec![policy("minute", Period::Minute, 60), policy("month", Period::Month, 2_592_000)],
            changes_after,
        };
        ObjectResponse::Key(KeyResponse { verdict, usage })
    };
    let known = |verdict| changing(verdict, None);
    let denied_for = |violated: &[usize], extent, lacks_hold| {
        let (violated, retry_after, cost) = (violated.to_vec(), 41_877, 5);
        known(KeyVerdict::Denied { violated, retry_after, cost, extent, lacks_hold, may_end_early: false })
    };
    let denied = |extent| denied_for(&[0, 1], extent, false);
    let terms = TokenTerms {
        format: UsageFormat::Gemini,
        default_output: 1024,
        max_output: 4096,
        bytes_per_token: 3,
        max_input: None,
    };
    let rest = "free 1763624894123 minute:rm:10:60:9:41877 month:rM:10:2592000:9:41877";
    for (answer, line) in [
        (known(KeyVerdict::Admitted(Admission::default())), format!("1 admitted {rest}")),
        (
            known(KeyVerdict::Admitted(Admission { is_replay: true, ..Admission::default() })),
            format!("1 admitted:r {rest}"),
        ),
        (
            changing(KeyVerdict::Conflict, Some(1500)),
            format!("1 conflict {}", rest.replace("41877 month", "41877:1500 month")),
        ),
        (
            known(KeyVerdict::Admitted(Admission { is_replay: true, wants_outcome: true, ..Admission::default() })),
            format!("1 admitted:r:e {rest}"),
        ),
        (
            known(KeyVerdict::Admitted(Admission { wants_outcome: true, ignores_key: true, ..Admission::default() })),
            format!("1 admitted:e:u {rest}"),
        ),
        (
            known(KeyVerdict::Admitted(Admission { has_hold: true, ..Admission::default() })),
            format!("1 admitted:h {rest}"),
        ),
        (
            known(KeyVerdict::Admitted(Admission {
                wants_outcome: true,
                has_hold: true,
                cap: Some(64),
                ..Admission::default()
            })),
            format!("1 admitted:e:h:c64 {rest}"),
        ),
        (known(KeyVerdict::LacksHold(terms)), format!("1 spends:gemini:1024:4096:3:0 {rest}")),
        (
            known(KeyVerdict::LacksHold(TokenTerms { max_input: Some(9), ..terms })),
            format!("1 spends:gemini:1024:4096:3:9 {rest}"),
        ),
        (known(KeyVerdict::Conflict), format!("1 conflict {rest}")),
        (known(KeyVerdict::Mismatch), format!("1 mismatch {rest}")),
        (known(KeyVerdict::Malformed), format!("1 malformed {rest}")),
        (denied(Extent::Unsaid), format!("1 denied:41877:5:0:1 {rest}")),
        (denied(Extent::All), format!("1 denied:41877:5:0:1:a {rest}")),
        (denied(Extent::New), format!("1 denied:41877:5:0:1:n {rest}")),
        (denied(Extent::Replays), format!("1 denied:41877:5:0:1:r {rest}")),
        (denied_for(&[], Extent::Unsaid, true), format!("1 denied:41877:5:h {rest}")),
        (denied_for(&[1], Extent::New, true), format!("1 denied:41877:5:1:n:h {rest}")),
        (known(KeyVerdict::CostExceedsQuota { policy: 1, cost: 11 }), format!("1 cost:1:11 {rest}")),
        (known(KeyVerdict::Refused(Status::Disabled)), format!("1 refused:disabled {rest}")),
        (known(KeyVerdict::Refused(Status::Revoked)), format!("1 refused:revoked {rest}")),
        (known(KeyVerdict::Refused(Status::Expired)), format!("1 refused:expired {rest}")),
        (ObjectResponse::Recorded, "1 settled".to_owned()),
        (ObjectResponse::Unknown, "1 unknown".to_owned()),
        (ObjectResponse::Failed, "1 failed".to_owned()),
    ] {
        assert_eq!(answer.to_line(), line);
        assert_eq!(ObjectResponse::parse(&line), Some(answer));
    }
    let newer = ObjectResponse::parse(&format!("1 denied:41877:5:0:1:z9 {rest}"));
    assert_eq!(newer, Some(denied(Extent::Unsaid)), "what is not known here is no reason to admit");
    for wrong in ["", "2 admitted free 1", "1 maybe free 1", "1 admitted free", "1 admitted free 1 minute:rm:10"] {
        assert_eq!(ObjectResponse::parse(wrong), None, "{wrong}");
    }
}

/// As above.
#[test]
fn answers_about_final_costs_are_frozen() {
    let known = |verdict| {
        let usage = KeyUsage { tier: "free".to_owned(), now: 1_000, policies: Vec::new(), changes_after: None };
        ObjectResponse::Key(KeyResponse { verdict, usage })
    };
    let admitted = Admission { is_repriced: true, ..Admission::default() };
    let denied = |extent, lacks_hold| {
        let (violated, retry_after, cost) = (vec![1], 41_877, 5);
        known(KeyVerdict::Denied { violated, retry_after, cost, extent, lacks_hold, may_end_early: true })
    };
    for (answer, line) in [
        (known(KeyVerdict::Admitted(admitted)), "1 admitted:p free 1000"),
        (
            known(KeyVerdict::Admitted(Admission { has_hold: true, cap: Some(64), ..admitted })),
            "1 admitted:h:p:c64 free 1000",
        ),
        // Earlier versions take the last letter that they do not know for the extent.
        (denied(Extent::Unsaid, false), "1 denied:41877:5:1:f free 1000"),
        (denied(Extent::All, true), "1 denied:41877:5:1:f:a:h free 1000"),
    ] {
        assert_eq!(answer.to_line(), line);
        assert_eq!(ObjectResponse::parse(line), Some(answer));
    }
}
