//! The status of a key, for its own secret: `GET /_tollgate/me` and `/me/usage`.

use crate::keys::profile::Status;
use crate::metering::months::MonthTotal;
use crate::protocol::object_response::{KeyUsage, ObjectResponse, VERSION, parse_refused, refused_word};
use crate::protocol::usage::PolicyUsageBody;
use serde::Serialize;
use serde_json::Value;

/// The word of an active key.
const ACTIVE: &str = "admitted";

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

/// Whether a key may be used, and its usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusAndUsage {
    /// The key's status.
    pub status: Status,
    /// Its usage.
    pub usage: KeyUsage,
}

/// The response to
/// [`ObjectRequest::KeyStatus`](crate::protocol::object_request::ObjectRequest::KeyStatus) for a
/// known key: three lines. The Worker passes the last two on without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus<'a> {
    /// The key's status and usage.
    pub key: StatusAndUsage,
    /// A [`Me`], as JSON.
    pub me: &'a str,
    /// What the object has counted in the current month, as [`month_json`] writes it.
    pub month: &'a str,
}

/// What the object says when the status of a key is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyStatusResponse<'a> {
    /// The key exists and the presented secret is its own.
    Known(KeyStatus<'a>),
    /// No such key, or not its secret.
    Unknown,
}

impl StatusAndUsage {
    /// The line has the form of a verdict, because it is frozen: `admitted` for an active key.
    fn to_line(&self) -> String {
        let mut line = match self.status {
            Status::Active => format!("{VERSION} {ACTIVE}"),
            status => format!("{VERSION} {}", refused_word(status)),
        };
        // Writing to a String cannot fail.
        let _ = self.usage.write(&mut line);
        line
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        if words.next() != Some(VERSION) {
            return None;
        }
        let word = words.next()?;
        let status = match word.split_once(':').unwrap_or((word, "")) {
            (ACTIVE, _) => Status::Active,
            ("refused", status) => parse_refused(status)?,
            _ => return None,
        };
        Some(Self { status, usage: KeyUsage::parse(words)? })
    }
}

impl<'a> KeyStatusResponse<'a> {
    /// The lines that are sent.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Known(KeyStatus { key, me, month }) => [&key.to_line(), *me, *month].join("\n"),
            Self::Unknown => ObjectResponse::Unknown.to_line(),
        }
    }

    /// Reads the lines; `None` if they are of a version that this one does not know.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text.split('\n');
        let first = lines.next()?;
        if ObjectResponse::parse(first) == Some(ObjectResponse::Unknown) {
            return Some(Self::Unknown);
        }
        let key = StatusAndUsage::parse(first)?;
        Some(Self::Known(KeyStatus { key, me: lines.next()?, month: lines.next()? }))
    }
}

/// An object's own total of a month as a row of `usage_monthly` has it.
#[must_use]
pub fn month_json(total: &MonthTotal, epoch: &str) -> String {
    let row: [(&str, Value); 6] = [
        ("month", total.month.to_string().into()),
        ("epoch", epoch.into()),
        ("calls", total.calls.into()),
        ("denied", total.denied.into()),
        ("cost", total.cost.into()),
        ("tokens", total.tokens.into()),
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
        let cost = Cost { requests: 7, tokens: 90 };
        state.apply_report(&[], now, &ReportedUsage { nonce: 1, age: None, calls: 2, cost, denied: 3 });
        let month = month_json(&state.month(Month::of(now)), state.epoch());
        let row: Value = serde_json::from_str(&month).unwrap();
        assert_eq!(
            row,
            serde_json::json!({"month":"2031-02","epoch":"00ff","calls":2,"denied":3,"cost":7,"tokens":90})
        );
        for (status, word) in
            [(Status::Active, "admitted"), (Status::Expired, "refused:expired"), (Status::Disabled, "refused:disabled")]
        {
            let policies = "minute:rm:10:60:9:41877:1500 month:rM:10:2592000:9:41877";
            let text = format!("1 {word} free 5 {policies}\n{{}}\n{month}");
            let response = KeyStatusResponse::parse(&text).unwrap();
            assert_eq!(response.to_text(), text);
            let KeyStatusResponse::Known(KeyStatus { key, me, month: read }) = response else { panic!("{text}") };
            assert_eq!((key.status, me, read), (status, "{}", month.as_str()));
            assert_eq!((key.usage.tier.as_str(), key.usage.now, key.usage.changes_after), ("free", 5, Some(1_500)));
            // A call is answered with the same line.
            let line = text.lines().next().unwrap();
            assert!(
                matches!(ObjectResponse::parse(line), Some(ObjectResponse::Key(known)) if known.usage == key.usage)
            );
        }
        assert!(KeyStatusResponse::parse("1 admitted:new free 5\n{}\n{}").is_some(), "unknown letters are ignored");
        assert_eq!(KeyStatusResponse::Unknown.to_text(), "1 unknown");
        assert_eq!(KeyStatusResponse::parse("1 unknown"), Some(KeyStatusResponse::Unknown));
        for wrong in [
            "",
            "2 admitted free 5\n{}\n{}",
            "1 failed",
            "1 denied:1:1:0 free 5\n{}\n{}",
            "1 refused:active free 5\n{}\n{}",
        ] {
            assert_eq!(KeyStatusResponse::parse(wrong), None, "{wrong}");
        }
    }
}
