//! Reservations as the admin API shows them, and the responses of a key's object about them.

use crate::encoding::base32_number;
use crate::key_state::hold::{HoldOutcome, HoldState, OpenHold};
use crate::limiter::cost::Cost;
use crate::protocol::object_response::{ObjectResponse, VERSION};
use crate::time::rfc3339;
use serde::Serialize;

/// An open reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema), schema(as = Reservation))]
pub struct ReservationView {
    /// Id of the reservation.
    #[cfg_attr(not(target_arch = "wasm32"), schema(pattern = "^[a-p][a-z2-7]{12}$"))]
    pub id: String,
    /// Reserved tokens.
    pub tokens: u64,
    /// Reserved requests.
    pub requests: u64,
    /// Time at which it lapses, and all of it is charged, unless it is settled or released before.
    #[cfg_attr(not(target_arch = "wasm32"), schema(format = DateTime))]
    pub expires_at: String,
}

/// Tokens and requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[allow(missing_docs)]
pub struct ReservedAmount {
    pub tokens: u64,
    pub requests: u64,
}

/// How a reservation was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct ClosedReservation {
    /// Id of the reservation.
    #[cfg_attr(not(target_arch = "wasm32"), schema(pattern = "^[a-p][a-z2-7]{12}$"))]
    pub id: String,
    /// `settled`, or `released` if it was released before.
    #[cfg_attr(not(target_arch = "wasm32"), schema(pattern = "^(settled|released)$"))]
    pub state: &'static str,
    /// Charged tokens.
    pub tokens: u64,
    /// Charged requests.
    pub requests: u64,
    /// What was reserved.
    pub reserved: ReservedAmount,
    /// Tokens charged beyond those reserved.
    pub overdraft: u64,
}

/// The open reservations of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
pub struct ReservationList {
    /// Oldest first.
    #[cfg_attr(not(target_arch = "wasm32"), schema(max_items = 1000))]
    pub reservations: Vec<ReservationView>,
}

impl ReservationView {
    /// The view of an open hold.
    #[must_use]
    pub fn new(hold: &OpenHold) -> Self {
        let &OpenHold { id, cost: Cost { requests, tokens }, expires_at, .. } = hold;
        Self { id: base32_number(id), tokens, requests, expires_at: rfc3339(expires_at) }
    }

    /// The view of a hold that has expired.
    #[must_use]
    pub fn expired(outcome: &HoldOutcome) -> Option<Self> {
        let &HoldOutcome { id, state, reserved: Cost { requests, tokens }, at, .. } = outcome;
        let view = || Self { id: base32_number(id), tokens, requests, expires_at: rfc3339(at) };
        (state == HoldState::Expired).then(view)
    }
}

impl ClosedReservation {
    /// The view of a closed hold.
    #[must_use]
    pub fn new(outcome: &HoldOutcome) -> Self {
        let HoldOutcome { id, state, charged, reserved, .. } = *outcome;
        Self {
            id: base32_number(id),
            state: state.as_str(),
            tokens: charged.tokens,
            requests: charged.requests,
            reserved: ReservedAmount { tokens: reserved.tokens, requests: reserved.requests },
            overdraft: outcome.overdraft(),
        }
    }
}

/// The response to [`Reserve`](crate::protocol::hold_request::HoldRequest::Reserve): a verdict, and
/// a second line if it is admitted.
///
/// Two verdicts say that there is a reservation of this id already:
/// [`Conflict`](crate::protocol::object_response::KeyVerdict::Conflict) if it is settled or
/// released, [`Mismatch`](crate::protocol::object_response::KeyVerdict::Mismatch) if its amount is
/// another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReserveResponse<'a> {
    /// The verdict, with the usage after it; or that the key is unknown.
    pub response: ObjectResponse,
    /// A [`ReservationView`] as JSON; empty if no reservation is open.
    pub reservation: &'a str,
}

/// The response to the other requests about reservations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldResponse<'a> {
    /// A [`ClosedReservation`] or [`ReservationList`] as JSON.
    Found(&'a str),
    /// There is no such reservation, or none any more.
    NoReservation,
    /// There is no such key.
    NoKey,
}

impl<'a> ReserveResponse<'a> {
    /// The lines that are sent.
    #[must_use]
    pub fn to_text(&self) -> String {
        [&self.response.to_line(), self.reservation].join("\n")
    }

    /// Reads the lines; `None` if they are of a version that this one does not know.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (line, reservation) = text.split_once('\n')?;
        Some(Self { response: ObjectResponse::parse(line)?, reservation })
    }
}

impl<'a> HoldResponse<'a> {
    /// The lines that are sent.
    #[must_use]
    pub fn to_text(self) -> String {
        let (word, json) = match self {
            Self::Found(json) => ("found", json),
            Self::NoReservation => ("none", ""),
            Self::NoKey => ("unknown", ""),
        };
        format!("{VERSION} {word}\n{json}")
    }

    /// Reads the lines; `None` if they are of a version that this one does not know.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (line, json) = text.split_once('\n')?;
        match line.strip_prefix(VERSION)?.strip_prefix(' ')? {
            "found" => Some(Self::Found(json)),
            "none" => Some(Self::NoReservation),
            "unknown" => Some(Self::NoKey),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMicros;

    const AT: UnixMicros = UnixMicros::from_millis(1_930_564_800_500);
    const RESERVED: Cost = Cost { requests: 1, tokens: 500 };

    fn outcome(state: HoldState, charged: Cost) -> HoldOutcome {
        HoldOutcome { id: 1, state, charged, reserved: RESERVED, at: AT }
    }

    #[test]
    fn views_are_those_of_the_contract() {
        let open = ReservationView::new(&OpenHold { id: u64::MAX, cost: RESERVED, at: AT, expires_at: AT });
        let json = r#"{"id":"p777777777777","tokens":500,"requests":1,"expires_at":"2031-03-06T12:00:00.500Z"}"#;
        assert_eq!(serde_json::to_string(&open).unwrap(), json);
        let expired = outcome(HoldState::Expired, RESERVED);
        assert_eq!(ReservationView::expired(&expired).map(|view| view.expires_at), Some(open.expires_at));
        assert_eq!(ReservationView::expired(&outcome(HoldState::Settled, RESERVED)), None);
        for (state, tokens, json) in [
            (
                HoldState::Settled,
                620,
                r#"{"id":"aaaaaaaaaaaab","state":"settled","tokens":620,"requests":0,"reserved":{"tokens":500,"requests":1},"overdraft":120}"#,
            ),
            (
                HoldState::Released,
                0,
                r#"{"id":"aaaaaaaaaaaab","state":"released","tokens":0,"requests":0,"reserved":{"tokens":500,"requests":1},"overdraft":0}"#,
            ),
        ] {
            let view = ClosedReservation::new(&outcome(state, Cost { requests: 0, tokens }));
            assert_eq!(serde_json::to_string(&view).unwrap(), json);
        }
    }

    /// During a deployment old and new versions exchange these lines.
    #[test]
    fn responses_are_frozen() {
        let denied = "1 denied:41877:0:0:h free 5 day:td:10:86400:9:41877\n";
        for text in ["1 admitted free 5 day:td:10:86400:9:41877\n{}", denied, "1 unknown\n"] {
            assert_eq!(ReserveResponse::parse(text).map(|response| response.to_text()).as_deref(), Some(text));
        }
        let Some(ReserveResponse { response: ObjectResponse::Key(known), reservation: "" }) =
            ReserveResponse::parse(denied)
        else {
            panic!("{denied}")
        };
        assert_eq!(known.violated(), ["day", "reservations"]);
        for (response, text) in [
            (HoldResponse::Found("{}"), "1 found\n{}"),
            (HoldResponse::NoReservation, "1 none\n"),
            (HoldResponse::NoKey, "1 unknown\n"),
        ] {
            assert_eq!(response.to_text(), text);
            assert_eq!(HoldResponse::parse(text), Some(response));
        }
        for wrong in ["", "1 found", "2 found\n{}", "1 else\n", "1 maybe free 5\n"] {
            assert_eq!((ReserveResponse::parse(wrong), HoldResponse::parse(wrong)), (None, None), "{wrong}");
        }
    }
}
