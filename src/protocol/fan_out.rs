//! Fan-out of a tier's change to the objects of its keys.

use crate::keys::profile::TierChange;
use serde::{Deserialize, Serialize};

/// The body of [`ObjectRequest::FanOut`](crate::protocol::object_request::ObjectRequest::FanOut).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOut {
    /// The change. As JSON it is the body of
    /// [`ApplyTier`](crate::protocol::object_request::ObjectRequest::ApplyTier).
    pub change: TierChange,
    /// The ids of the other keys, whose objects the change is forwarded to.
    pub ids: Vec<String>,
}

/// Maximum number of objects that are tried as the sender for a page of keys.
const TRIES: usize = 2;

impl FanOut {
    /// The senders to try for a page of keys, in order until one succeeds, each with its request.
    pub fn tries<'a>(change: &'a TierChange, page: &'a [String]) -> impl Iterator<Item = (&'a str, Self)> {
        page.iter().take(TRIES).map(|through| {
            let ids = page.iter().filter(|id| *id != through).cloned().collect();
            (through.as_str(), Self { change: change.clone(), ids })
        })
    }
}

/// The response to a fan-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOutResult {
    /// The number of objects that applied the change, the sender included.
    pub taken: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// During a deployment old and new versions exchange these.
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
