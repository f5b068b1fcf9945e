//! The rate-limit fields of a response: draft-ietf-httpapi-ratelimit-headers-11, and the older `X-` fields.

use crate::policy::{Period, Unit};
use crate::protocol::Known;
use std::fmt::Write as _;

/// Names of all the fields that [`fields`] may give and of `Retry-After`, for `Access-Control-Expose-Headers`.
pub const EXPOSED: &str = "RateLimit, RateLimit-Policy, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Monthly-Remaining, X-Tollgate-Idempotent-Replay";
/// Marks a call that repeats another by its idempotency key, on its way to the origin and back.
pub const REPLAY: &str = "X-Tollgate-Idempotent-Replay";

/// The fields that say where a key stands. Empty for a key without limits.
#[must_use]
pub fn fields(known: &Known, legacy: bool) -> Vec<(&'static str, String)> {
    if known.standings.is_empty() {
        return Vec::new();
    }
    let mut policy = String::with_capacity(64);
    let mut limit = String::with_capacity(64);
    for standing in &known.standings {
        let separator = if policy.is_empty() { "" } else { ", " };
        // Names are [a-z0-9_-], so they need no escapes as Strings of RFC 9651. Writing to a String cannot fail.
        let _ = write!(policy, "{separator}\"{}\";q={};w={}", standing.name, standing.quota, standing.window);
        if standing.unit == Unit::Tokens {
            policy.push_str(";qu=\"tokens\"");
        }
        let reset = standing.reset_after.div_ceil(1000);
        let _ = write!(limit, "{separator}\"{}\";r={};t={reset}", standing.name, standing.remaining);
    }
    let mut fields = vec![("RateLimit-Policy", policy), ("RateLimit", limit)];
    if legacy {
        let of = |period| {
            known.standings.iter().find(|standing| standing.period == period && standing.unit == Unit::Requests)
        };
        if let Some(minute) = of(Period::Minute) {
            let reset = known.now.saturating_add(minute.reset_after).div_ceil(1000);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Answer, Known};

    fn known(line: &str) -> Known {
        match Answer::parse(line) {
            Some(Answer::Known(known)) => known,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_contracts_own_example() {
        let known = known("1 admitted free 1763624894123 minute:rm:10:60:9:41877 month:rM:1000:2592000:999:863999001");
        assert_eq!(
            fields(&known, true),
            [
                ("RateLimit-Policy", r#""minute";q=10;w=60, "month";q=1000;w=2592000"#.to_owned()),
                ("RateLimit", r#""minute";r=9;t=42, "month";r=999;t=864000"#.to_owned()),
                ("X-RateLimit-Limit", "10".to_owned()),
                ("X-RateLimit-Remaining", "9".to_owned()),
                ("X-RateLimit-Reset", "1763624936".to_owned()),
                ("X-Monthly-Remaining", "999".to_owned()),
            ]
        );
        assert_eq!(fields(&known, false).len(), 2);
        assert!(fields(&known, true).iter().all(|(name, _)| EXPOSED.split(", ").any(|exposed| exposed == *name)));
    }

    #[test]
    fn legacy_fields_only_for_policies_that_are_there() {
        let hourly = known("1 admitted t 0 hour:rh:10:3600:9:1 tokens:tm:500:60:1:1");
        let names: Vec<_> = fields(&hourly, true).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["RateLimit-Policy", "RateLimit"]);
        assert!(fields(&hourly, true)[0].1.ends_with(r#""tokens";q=500;w=60;qu="tokens""#));
        assert!(fields(&known("1 admitted unlimited 0"), true).is_empty());
    }
}
