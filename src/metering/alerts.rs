//! Alerts that monthly usage has reached a share of the quota: one per policy, threshold and month.
//! If the quota is raised and the share is reached again, another alert follows.

use crate::encoding::hex;
use crate::encoding::record::{self, push_number, push_text, records};
use crate::limiter::policy::{Period, Policy, Unit};
use crate::time::{Month, UnixMicros, rfc3339};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The usage of a month policy has reached a threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Alert {
    pub policy: String,
    /// In percent of the quota.
    pub threshold: u16,
    pub month: Month,
    /// What quota and usage count.
    pub unit: Unit,
    /// The quota when the alert was raised.
    pub quota: u64,
    /// The usage when the alert was raised.
    pub used: u64,
    /// When the alert was raised.
    pub at: UnixMicros,
}

/// Maximum number of attempts to deliver an alert.
const ATTEMPTS: u32 = 12;
/// The pause after the first failed attempt, in seconds. It doubles with each further one.
const FIRST_PAUSE: u64 = 30;

impl Alert {
    /// The longest pause between two attempts, in seconds.
    pub const LONGEST_PAUSE: u64 = 3_600;

    /// The pause after so many failed attempts, in seconds. `None` after the last attempt.
    #[must_use]
    pub fn pause_after(attempts: u32) -> Option<u64> {
        let pause = FIRST_PAUSE.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX);
        (attempts < ATTEMPTS).then_some(pause.min(Self::LONGEST_PAUSE))
    }

    /// The threshold as a share of the quota: 0.8 is 80 %.
    #[must_use]
    pub fn share(&self) -> f64 {
        f64::from(self.threshold) / 100.0
    }

    /// Webhook payload.
    #[must_use]
    pub fn body(&self, key_id: &str) -> String {
        let Self { policy, month, unit, quota, used, at, .. } = self;
        let body = serde_json::json!({ "type": "quota_threshold", "key_id": key_id, "policy": policy, "unit": unit,
            "threshold": self.share(), "used": used, "quota": quota, "month": month, "at": rfc3339(*at) });
        body.to_string()
    }

    fn is_of(&self, mark: &AlertMark) -> bool {
        self.month == mark.month && self.threshold == mark.threshold && self.policy == mark.policy
    }
}

/// The signature header of a webhook: `v1=`, then the HMAC-SHA-256 in hex of the timestamp, a dot
/// and the body.
#[must_use]
pub fn signature(secret: &str, timestamp: &str, body: &str) -> String {
    // Never fails: HMAC accepts keys of any length.
    let keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok();
    let mac =
        keyed.map(|keyed| keyed.chain_update(timestamp).chain_update(".").chain_update(body).finalize().into_bytes());
    format!("v1={}", mac.map(|mac| hex(&mac)).unwrap_or_default())
}

/// Marks a raised alert, so that it is not raised again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AlertMark {
    policy: String,
    threshold: u16,
    month: Month,
}

/// Pending alerts, and marks of raised ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Alerts {
    marks: Vec<AlertMark>,
    pending: Vec<Alert>,
}

impl Alerts {
    /// Raises alerts for the month of `now`. Returns whether anything changed.
    pub(crate) fn check(
        &mut self,
        policies: &[Policy],
        thresholds: &[u16],
        now: UnixMicros,
        used: impl Fn(Unit, Month) -> u64,
        is_kept: impl Fn(Month) -> bool,
    ) -> bool {
        let month = Month::of(now);
        let monthly = || policies.iter().filter(|policy| policy.period() == Period::Month);
        let has_reached = |policy: &Policy, threshold: u16| {
            let used = used(policy.unit(), month);
            used > 0 && u128::from(used) * 100 >= u128::from(policy.quota()) * u128::from(threshold)
        };
        let before = self.marks.len();
        // Usage below the threshold, after the quota was raised, allows another alert.
        self.marks.retain(|mark| {
            let holds = |policy: &Policy| policy.name() == mark.policy && has_reached(policy, mark.threshold);
            let is_held = || thresholds.contains(&mark.threshold) && monthly().any(holds);
            // The clock may step back to another month.
            if mark.month == month { is_held() } else { is_kept(mark.month) }
        });
        let mut is_changed = self.marks.len() < before;
        for policy in monthly() {
            for &threshold in thresholds.iter().filter(|threshold| has_reached(policy, **threshold)) {
                let is_mark = |mark: &AlertMark| {
                    mark.month == month && mark.threshold == threshold && mark.policy == policy.name()
                };
                if self.marks.iter().any(is_mark) {
                    continue;
                }
                let mark = AlertMark { policy: policy.name().to_owned(), threshold, month };
                // Replaces an undelivered alert about the same threshold.
                self.pending.retain(|alert| !alert.is_of(&mark));
                self.pending.push(Alert {
                    policy: mark.policy.clone(),
                    threshold,
                    month,
                    unit: policy.unit(),
                    quota: policy.quota(),
                    used: used(policy.unit(), month),
                    at: now,
                });
                self.marks.push(mark);
                is_changed = true;
            }
        }
        is_changed
    }

    pub(crate) fn pending(&self) -> &[Alert] {
        &self.pending
    }

    /// Drops a delivered alert. Returns whether it was pending.
    pub(crate) fn forget(&mut self, delivered: &Alert) -> bool {
        let before = self.pending.len();
        self.pending.retain(|alert| alert != delivered);
        self.pending.len() < before
    }

    /// The stored form: policy, threshold and month (202611), for pending alerts also quota, usage
    /// and microseconds since 1970, then `1` if they are tokens. `None` if there is neither a mark nor
    /// a pending alert.
    pub(crate) fn to_text(&self) -> Option<String> {
        let mut out = String::new();
        let mut push = |policy: &str, threshold: u16, month: Month, more: &[u64]| {
            push_text(&mut out, policy);
            push_number(&mut out, threshold.into());
            push_number(&mut out, month.as_number());
            for number in more {
                push_number(&mut out, *number);
            }
            record::end(&mut out);
        };
        for AlertMark { policy, threshold, month } in &self.marks {
            push(policy, *threshold, *month, &[]);
        }
        for Alert { policy, threshold, month, unit, quota, used, at } in &self.pending {
            let numbers = [*quota, *used, at.as_micros(), 1];
            let said = if *unit == Unit::Tokens { 4 } else { 3 };
            push(policy, *threshold, *month, numbers.get(..said).unwrap_or_default());
        }
        Some(out).filter(|out| !out.is_empty())
    }

    /// Reads the stored form. `None` if it is malformed.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut alerts = Self::default();
        for mut record in records(text) {
            let (policy, threshold) = (record.text()?, record.number()?.try_into().ok()?);
            let month = Month::from_number(record.number()?)?;
            match record.number() {
                None => alerts.marks.push(AlertMark { policy, threshold, month }),
                Some(quota) => {
                    let (used, at) = (record.number()?, UnixMicros::from_micros(record.number()?));
                    let unit = if record.number() == Some(1) { Unit::Tokens } else { Unit::Requests };
                    alerts.pending.push(Alert { policy, threshold, month, unit, quota, used, at });
                }
            }
        }
        Some(alerts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_end() {
        let pauses: Vec<_> = (1..=12).map(Alert::pause_after).collect();
        let expected = [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600, 3_600].map(Some);
        assert_eq!(pauses[..11], expected);
        assert_eq!(pauses[11], None);
        assert_eq!(Alert::pause_after(u32::MAX), None);
    }

    #[test]
    fn the_payload_and_its_signature() {
        let at = UnixMicros::from_millis(1_930_564_800_000);
        let (policy, unit) = ("month".to_owned(), Unit::Tokens);
        let alert = Alert { policy, threshold: 80, month: Month::of(at), unit, quota: 1_000, used: 801, at };
        let body: serde_json::Value = serde_json::from_str(&alert.body("abc")).unwrap();
        let expected = serde_json::json!({ "type": "quota_threshold", "key_id": "abc", "policy": "month", "unit": "tokens",
            "threshold": 0.8, "used": 801, "quota": 1000, "month": "2031-03", "at": rfc3339(at) });
        assert_eq!(body, expected);
        // Computed with `openssl dgst -sha256 -hmac key`.
        let expected = "v1=934f99a1e012c599acc8c559e3d2380817b992928697a5ece7d1ffc44b8ae0eb";
        assert_eq!(signature("key", "1930564800", "{}"), expected);
    }
}
