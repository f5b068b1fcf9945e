//! The rate-limit fields of a response, in the forms that clients read:
//! draft-ietf-httpapi-ratelimit-headers-11, its draft 07, and the older `X-` fields.

use crate::limiter::policy::{Period, Unit};
use crate::protocol::object_response::{KeyResponse, KeyUsage, KeyVerdict, PolicyStatus};
use std::fmt::Write as _;

/// Names of all the fields of [`RateLimits::fields`] and of `Retry-After`, for
/// `Access-Control-Expose-Headers`.
pub const EXPOSED: &str = "RateLimit, RateLimit-Policy, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Monthly-Remaining, X-Tollgate-Idempotent-Replay, X-Tollgate-Token-Cap";
/// Marks a replay, in the request to the origin and in the response.
pub const REPLAY: &str = "X-Tollgate-Idempotent-Replay";
/// The output to which a call was limited that asked for more than is left of its budget.
pub const TOKEN_CAP: &str = "X-Tollgate-Token-Cap";

/// The form of the rate-limit fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RateLimitFields {
    /// `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-11.
    #[default]
    Draft11,
    /// The combined `RateLimit` field of draft-ietf-httpapi-ratelimit-headers-07.
    Draft7,
    /// Neither.
    None,
}

/// The forms of the rate-limit fields of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forms {
    /// The form of `RateLimit` and `RateLimit-Policy`.
    pub standard: RateLimitFields,
    /// Whether the `X-` fields are sent too.
    pub legacy: bool,
}

/// The source of the rate-limit fields of a response.
#[derive(Debug, Clone, Copy)]
pub struct RateLimits<'a> {
    usage: &'a KeyUsage,
    /// `None` if no call was judged.
    verdict: Option<&'a KeyVerdict>,
    forms: Forms,
}

impl<'a> RateLimits<'a> {
    /// For the response to a call.
    #[must_use]
    pub const fn of_call(response: &'a KeyResponse, forms: Forms) -> Self {
        Self { usage: &response.usage, verdict: Some(&response.verdict), forms }
    }

    /// For the response to a look-up of a key.
    #[must_use]
    pub const fn of_key(usage: &'a KeyUsage, forms: Forms) -> Self {
        Self { usage, verdict: None, forms }
    }

    /// The fields. Empty for a key without limits.
    #[must_use]
    pub fn fields(self) -> Vec<(&'static str, String)> {
        let Self { usage, verdict, forms } = self;
        if usage.policies.is_empty() {
            return Vec::new();
        }
        let mut fields = match forms.standard {
            RateLimitFields::Draft11 => draft_11(usage).to_vec(),
            RateLimitFields::Draft7 => draft_7(usage, verdict).to_vec(),
            RateLimitFields::None => Vec::new(),
        };
        if forms.legacy {
            let of =
                |period| usage.policies.iter().find(|policy| policy.period == period && policy.unit == Unit::Requests);
            if let Some(minute) = of(Period::Minute) {
                let reset = usage.now.saturating_add(minute.reset_after).div_ceil(1000);
                fields.push(("X-RateLimit-Limit", minute.quota.to_string()));
                fields.push(("X-RateLimit-Remaining", minute.remaining.to_string()));
                fields.push(("X-RateLimit-Reset", reset.to_string()));
            }
            if let Some(month) = of(Period::Month) {
                fields.push(("X-Monthly-Remaining", month.remaining.to_string()));
            }
        }
        fields
    }
}

// Writing to a String cannot fail.

fn draft_11(usage: &KeyUsage) -> [(&'static str, String); 2] {
    let mut quotas = String::with_capacity(64);
    let mut limits = String::with_capacity(64);
    for policy in &usage.policies {
        let separator = if quotas.is_empty() { "" } else { ", " };
        // Names are [a-z0-9_-], so they need no escapes as Strings of RFC 9651.
        let _ = write!(quotas, "{separator}\"{}\";q={};w={}", policy.name, policy.quota, policy.window);
        quotas.push_str(unit(policy));
        let _ = write!(limits, "{separator}\"{}\";r={};t={}", policy.name, policy.remaining, reset(policy));
    }
    [("RateLimit-Policy", quotas), ("RateLimit", limits)]
}

/// `RateLimit` has room for one policy: see [`closest_to_denying`].
fn draft_7(usage: &KeyUsage, verdict: Option<&KeyVerdict>) -> [(&'static str, String); 2] {
    let mut quotas = String::with_capacity(32);
    for policy in &usage.policies {
        let separator = if quotas.is_empty() { "" } else { ", " };
        let _ = write!(quotas, "{separator}{};w={}", policy.quota, policy.window);
        quotas.push_str(unit(policy));
    }
    let limit = closest_to_denying(usage, verdict)
        .map(|policy| format!("limit={}, remaining={}, reset={}", policy.quota, policy.remaining, reset(policy)));
    [("RateLimit-Policy", quotas), ("RateLimit", limit.unwrap_or_default())]
}

const fn unit(policy: &PolicyStatus) -> &'static str {
    match policy.unit {
        Unit::Requests => "",
        Unit::Tokens => ";qu=\"tokens\"",
    }
}

/// Whole seconds.
const fn reset(policy: &PolicyStatus) -> u64 {
    policy.reset_after.div_ceil(1000)
}

/// The policy that refused the call; of several the one with the longest reset. If none refused it,
/// the one with the smallest share of its quota left; of equal ones the one with the longest reset.
fn closest_to_denying<'a>(usage: &'a KeyUsage, verdict: Option<&KeyVerdict>) -> Option<&'a PolicyStatus> {
    let refused = |index: usize| match verdict {
        Some(KeyVerdict::Denied { violated, .. }) => violated.contains(&index),
        Some(KeyVerdict::CostExceedsQuota { policy, .. }) => *policy == index,
        _ => false,
    };
    let refusing = usage.policies.iter().enumerate().filter(|(index, _)| refused(*index)).map(|(_, policy)| policy);
    refusing.max_by_key(|policy| policy.reset_after).or_else(|| {
        usage.policies.iter().min_by(|a, b| {
            // Shares are compared crosswise: what is left of one quota is worth as many of the
            // other.
            let share = |of: &PolicyStatus, by: &PolicyStatus| u128::from(of.remaining) * u128::from(by.quota.max(1));
            share(a, b).cmp(&share(b, a)).then(b.reset_after.cmp(&a.reset_after))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::object_response::{KeyResponse, ObjectResponse};

    fn known(line: &str) -> KeyResponse {
        match ObjectResponse::parse(line) {
            Some(ObjectResponse::Key(known)) => known,
            other => panic!("{other:?}"),
        }
    }

    const DRAFT_11: Forms = Forms { standard: RateLimitFields::Draft11, legacy: true };
    const DRAFT_7: Forms = Forms { standard: RateLimitFields::Draft7, legacy: true };
    const NONE: Forms = Forms { standard: RateLimitFields::None, legacy: true };

    fn fields(response: &KeyResponse, forms: Forms) -> Vec<(&'static str, String)> {
        RateLimits::of_call(response, forms).fields()
    }

    fn names(known: &KeyResponse, forms: Forms) -> Vec<&'static str> {
        fields(known, forms).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn the_contracts_own_example() {
        let known = known("1 admitted free 1763624894123 minute:rm:10:60:9:41877 month:rM:1000:2592000:999:863999001");
        assert_eq!(
            fields(&known, DRAFT_11),
            [
                ("RateLimit-Policy", r#""minute";q=10;w=60, "month";q=1000;w=2592000"#.to_owned()),
                ("RateLimit", r#""minute";r=9;t=42, "month";r=999;t=864000"#.to_owned()),
                ("X-RateLimit-Limit", "10".to_owned()),
                ("X-RateLimit-Remaining", "9".to_owned()),
                ("X-RateLimit-Reset", "1763624936".to_owned()),
                ("X-Monthly-Remaining", "999".to_owned()),
            ]
        );
        assert_eq!(names(&known, Forms { legacy: false, ..DRAFT_11 }), ["RateLimit-Policy", "RateLimit"]);
        assert!(Vec::is_empty(&fields(&known, Forms { legacy: false, ..NONE })));
        for forms in [DRAFT_11, DRAFT_7, NONE] {
            let names = names(&known, forms);
            assert!(names.iter().all(|name| EXPOSED.split(", ").any(|exposed| exposed == *name)));
            assert!(names.ends_with(&[
                "X-RateLimit-Limit",
                "X-RateLimit-Remaining",
                "X-RateLimit-Reset",
                "X-Monthly-Remaining"
            ]));
        }
    }

    #[test]
    fn draft_7_names_the_policy_that_is_closest_to_denying() {
        for (line, policy, limit) in [
            (
                "1 admitted free 0 minute:rm:10:60:9:41877 month:rM:1000:2592000:899:863999001",
                "10;w=60, 1000;w=2592000",
                "limit=1000, remaining=899, reset=864000",
            ),
            (
                "1 admitted free 0 minute:rm:10:60:8:41877 month:rM:1000:2592000:899:863999001",
                "10;w=60, 1000;w=2592000",
                "limit=10, remaining=8, reset=42",
            ),
            // Of equal shares the one that lasts longer.
            (
                "1 admitted free 0 minute:rm:10:60:0:1 hour:rh:20:3600:0:2001",
                "10;w=60, 20;w=3600",
                "limit=20, remaining=0, reset=3",
            ),
            // A quota of 0 is used up.
            (
                "1 admitted free 0 minute:rm:10:60:1:1 hour:rh:0:3600:0:2001",
                "10;w=60, 0;w=3600",
                "limit=0, remaining=0, reset=3",
            ),
            // What refused, though another has less left.
            (
                "1 denied:5000:9:1 free 0 minute:rm:10:60:0:1 hour:rh:20:3600:8:5000",
                "10;w=60, 20;w=3600",
                "limit=20, remaining=8, reset=5",
            ),
            (
                "1 cost:1:21 free 0 minute:rm:10:60:0:1 hour:rh:20:3600:8:5000",
                "10;w=60, 20;w=3600",
                "limit=20, remaining=8, reset=5",
            ),
            (
                "1 denied:9000:1:0:1 free 0 minute:rm:10:60:0:9000 hour:rh:20:3600:0:8000 day:rd:9:86400:0:80000",
                "10;w=60, 20;w=3600, 9;w=86400",
                "limit=10, remaining=0, reset=9",
            ),
            (
                "1 admitted t 0 hour:rh:10:3600:9:1 tokens:tm:500:60:1:1",
                "10;w=3600, 500;w=60;qu=\"tokens\"",
                "limit=500, remaining=1, reset=1",
            ),
        ] {
            let fields = fields(&known(line), Forms { legacy: false, ..DRAFT_7 });
            assert_eq!(fields, [("RateLimit-Policy", policy.to_owned()), ("RateLimit", limit.to_owned())], "{line}");
        }
        assert!(fields(&known("1 admitted unlimited 0"), DRAFT_7).is_empty());
    }

    #[test]
    fn a_look_up_has_the_fields_of_an_admitted_call() {
        let rest = "free 0 minute:rm:10:60:0:1 hour:rh:20:3600:8:5000";
        let [admitted, denied] = ["admitted", "denied:5000:9:1"].map(|word| known(&format!("1 {word} {rest}")));
        for forms in [DRAFT_11, DRAFT_7, NONE] {
            assert_eq!(RateLimits::of_key(&denied.usage, forms).fields(), fields(&admitted, forms));
        }
    }

    #[test]
    fn legacy_fields_only_for_policies_that_are_there() {
        let hourly = known("1 admitted t 0 hour:rh:10:3600:9:1 tokens:tm:500:60:1:1");
        assert_eq!(names(&hourly, DRAFT_11), ["RateLimit-Policy", "RateLimit"]);
        assert!(names(&hourly, NONE).is_empty());
        assert!(fields(&hourly, DRAFT_11)[0].1.ends_with(r#""tokens";q=500;w=60;qu="tokens""#));
        assert!(fields(&known("1 admitted unlimited 0"), DRAFT_11).is_empty());
    }
}
