//! Parsers of argument values. Their errors follow `invalid value '…' for '--option': `.

use clap::builder::NonEmptyStringValueParser;
use serde_json::{Map, Value, json};
use ureq::http::Uri;

/// The longest grace period that the server accepts, in seconds: 30 days.
const LONGEST_GRACE: u64 = 30 * 86_400;

/// Part of a path, which must not be empty.
pub(super) fn id() -> NonEmptyStringValueParser {
    NonEmptyStringValueParser::new()
}

/// The URL of a gate. A path in it is kept, for a gate behind a prefix.
pub(crate) fn base_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_| "not a URL such as https://api.example.com".to_owned())?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
        return Err("must be a URL such as https://api.example.com, with http or https and a host".to_owned());
    }
    if url.query().is_some() || url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must not contain a user or a query".to_owned());
    }
    Ok(url)
}

pub(super) fn object(text: &str) -> Result<Value, String> {
    let object: Map<String, Value> =
        serde_json::from_str(text).map_err(|_| r#"must be a JSON object such as {"plan":"trial"}"#.to_owned())?;
    Ok(object.into())
}

/// Seconds, or a number with one of the units s, m, h, d.
pub(super) fn grace(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, text.chars().next_back()),
        None => (text, None),
    };
    let seconds = match unit {
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => 1,
    };
    let number: u64 =
        number.parse().map_err(|_| "must be a number of seconds, or have a unit as in 30m, 12h, 7d".to_owned())?;
    number.checked_mul(seconds).filter(|&grace| grace <= LONGEST_GRACE).ok_or_else(|| "must be at most 30d".to_owned())
}

/// `NAME=QUOTA/PERIOD[,ALGORITHM][,burst=UNITS][,unit=UNIT]`. The server validates the words.
pub(super) fn policy(text: &str) -> Result<Value, String> {
    let shape = || {
        "must be NAME=QUOTA/PERIOD[,ALGORITHM][,burst=UNITS][,unit=UNIT], such as minute=10/minute or \
         minute=10/minute,bucket,burst=20"
            .to_owned()
    };
    let (name, rest) = text.split_once('=').ok_or_else(shape)?;
    let mut parts = rest.split(',');
    let (quota, period) = parts.next().and_then(|limit| limit.split_once('/')).ok_or_else(shape)?;
    let whole = |number: &str| number.parse::<u64>().map_err(|_| format!("`{number}` is not a whole number"));
    let mut policy = Map::new();
    let mut set = |field: &str, value: Value| match policy.insert(field.to_owned(), value) {
        Some(_) => Err(format!("{field} is given twice")),
        None => Ok(()),
    };
    set("policy", name.into())?;
    set("quota", whole(quota)?.into())?;
    set("period", period.into())?;
    for part in parts {
        match part.split_once('=') {
            None => set("algorithm", part.into())?,
            Some(("burst", units)) => set("burst", whole(units)?.into())?,
            Some(("unit", unit)) => set("unit", unit.into())?,
            Some((other, _)) => return Err(format!("a policy has no `{other}`, only burst and unit")),
        }
    }
    // Fields with a default on the server are sent explicitly: the request says all that it sets.
    policy.entry("algorithm").or_insert_with(|| json!("fixed"));
    policy.entry("unit").or_insert_with(|| json!("requests"));
    Ok(policy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_periods_have_units() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("30m", 1_800), ("12h", 43_200), ("30d", 2_592_000)]
        {
            assert_eq!(grace(text), Ok(seconds), "{text}");
        }
        for text in ["", "d", "-1", "1.5h", "1w", "721h", "99999999999999999999d", "999999999999999999d"] {
            assert!(grace(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_policy_is_one_argument() {
        assert_eq!(
            policy("minute=10/minute,bucket,burst=20"),
            Ok(
                json!({"policy": "minute", "quota": 10, "period": "minute", "algorithm": "bucket", "burst": 20, "unit": "requests"})
            )
        );
        assert_eq!(
            policy("t=5/month,unit=tokens"),
            Ok(json!({"policy": "t", "quota": 5, "period": "month", "algorithm": "fixed", "unit": "tokens"}))
        );
        for text in
            ["minute", "minute=10", "minute=x/minute", "m=1/day,fixed,bucket", "m=1/day,burst=x", "m=1/day,size=2"]
        {
            assert!(policy(text).is_err(), "{text}");
        }
    }
}
