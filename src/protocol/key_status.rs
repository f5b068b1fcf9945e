//! What a key's holder is told.

use crate::keys::profile::Status;
use crate::metering::months::MonthTotal;
use crate::protocol::object_response::ObjectResponse;
use crate::protocol::usage::PolicyUsageBody;
use serde::Serialize;
use serde_json::Value;

/// Status and usage of the presented key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct Me {
    /// Id of the key.
    pub key_id: String,
    /// Name of the key's tier.
    pub tier: String,
    /// Whether the key may be used now.
    pub status: Status,
    /// Time from which the key is refused; `null` if it does not expire.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = true, format = DateTime))]
    pub expires_at: Option<String>,
    /// Usage of each policy in force; empty if the key has no limits.
    pub policies: Vec<PolicyUsageBody>,
}

/// The answer to [`ObjectRequest::KeyStatus`](crate::protocol::object_request::ObjectRequest::KeyStatus) for a known key: three lines, of which the Worker reads only the
/// first and passes the others on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStatus<'a> {
    /// The line of an [`ObjectResponse`] that says where the key stands, and whether it may be used.
    pub line: &'a str,
    /// A [`Me`], as JSON.
    pub me: &'a str,
    /// What the object has counted of the current month, as [`month_json`] writes it.
    pub month: &'a str,
}

impl<'a> KeyStatus<'a> {
    /// As it travels.
    #[must_use]
    pub fn to_text(self) -> String {
        [self.line, self.me, self.month].join("\n")
    }

    /// Reads it; an answer that is not about a known key has its first line alone.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<(ObjectResponse, &'a str, &'a str)> {
        let mut lines = text.split('\n');
        let answer = ObjectResponse::parse(lines.next()?)?;
        Some((answer, lines.next().unwrap_or_default(), lines.next().unwrap_or_default()))
    }
}

/// An object's own total of a month as a row of `usage_monthly` has it.
#[must_use]
pub fn month_json(total: &MonthTotal, epoch: &str) -> String {
    let row: [(&str, Value); 5] = [
        ("month", total.month.to_string().into()),
        ("epoch", epoch.into()),
        ("calls", total.calls.into()),
        ("denied", total.denied.into()),
        ("cost", total.cost.into()),
    ];
    Value::Object(row.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_state::state::KeyState;
    use crate::key_state::state::judging::ReportedUsage;
    use crate::limiter::cost::Cost;
    use crate::time::{Month, UnixMicros};

    #[test]
    fn the_lines_are_frozen() {
        let now = UnixMicros::from_millis(1_930_000_000_000);
        let mut state = KeyState::new("00ff".to_owned());
        let cost = Cost { requests: 7, tokens: 0 };
        state.apply_report(&[], now, &ReportedUsage { nonce: 1, age: None, calls: 2, cost, denied: 3 });
        let month = month_json(&state.month(Month::of(now)), state.epoch());
        let row: Value = serde_json::from_str(&month).unwrap();
        assert_eq!(row, serde_json::json!({"month":"2031-02","epoch":"00ff","calls":2,"denied":3,"cost":7}));
        let text = KeyStatus { line: "1 refused:expired free 5", me: "{}", month: &month }.to_text();
        let (answer, me, read) = KeyStatus::parse(&text).unwrap();
        assert!(matches!(answer, ObjectResponse::Key(_)));
        assert_eq!((me, read), ("{}", month.as_str()));
        assert_eq!(KeyStatus::parse("1 unknown"), Some((ObjectResponse::Unknown, "", "")));
        assert_eq!(KeyStatus::parse(""), None);
    }
}
