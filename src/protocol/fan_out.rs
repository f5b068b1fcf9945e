//! A change of a tier on its way to the objects of its keys.

use crate::keys::profile::TierChange;
use serde::{Deserialize, Serialize};

/// Body of [`ObjectRequest::FanOut`](crate::protocol::object_request::ObjectRequest::FanOut).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOut {
    /// What to take over; as JSON it is the body of [`ObjectRequest::ApplyTier`](crate::protocol::object_request::ObjectRequest::ApplyTier).
    pub change: TierChange,
    /// The other keys whose objects to tell.
    pub ids: Vec<String>,
}

/// Objects of a page that are asked to fan a change out, one after the other, until one does.
const TRIES: usize = 2;

impl FanOut {
    /// Who is asked to fan a change out to a page of keys, one after the other until one does it, and with what.
    pub fn tries<'a>(change: &'a TierChange, page: &'a [String]) -> impl Iterator<Item = (&'a str, Self)> {
        page.iter().take(TRIES).map(|through| {
            let ids = page.iter().filter(|id| *id != through).cloned().collect();
            (through.as_str(), Self { change: change.clone(), ids })
        })
    }
}

/// The answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOutResult {
    /// How many objects have taken it, the one that was asked among them.
    pub taken: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Old and new versions of these meet during every deployment.
    #[test]
    fn the_form_is_frozen() {
        let earlier = r#"{"change":{"tier":"free","version":3,"audit_days":7,"policies":[]},"ids":[]}"#;
        let text = r#"{"change":{"tier":"free","version":3,"audit_days":7,"idempotency":"off","policies":[{"policy":"minute","unit":"requests","quota":10,"period":"minute","algorithm":"bucket","burst":2}]},"ids":["abc"]}"#;
        for text in [earlier, text] {
            let fan_out: FanOut = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&fan_out).unwrap(), text);
        }
        assert_eq!(serde_json::to_string(&FanOutResult { taken: 2 }).unwrap(), r#"{"taken":2}"#);
    }

    #[test]
    fn another_object_fans_out_when_the_first_cannot() {
        let change = r#"{"tier":"free","version":3,"audit_days":7,"policies":[]}"#;
        let change: TierChange = serde_json::from_str(change).unwrap();
        let tries = |page: &[&str]| {
            let page: Vec<String> = page.iter().map(|&id| id.to_owned()).collect();
            FanOut::tries(&change, &page).map(|(id, body)| format!("{id}: {}", body.ids.join(","))).collect::<Vec<_>>()
        };
        assert_eq!(tries(&["a", "b", "c"]), ["a: b,c", "b: a,c"]);
        assert_eq!(tries(&["a"]), ["a: "]);
        assert!(tries(&[]).is_empty());
    }
}
