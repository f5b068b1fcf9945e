//! Requests about reservations.

use crate::key_state::hold::{Reservation, UsedAmount};
use crate::limiter::cost::Cost;
use crate::time::UnixMicros;
use std::fmt::Write as _;

/// What is to be done with the reservations of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldRequest {
    /// Make one. The response is a
    /// [`ReserveResponse`](crate::protocol::reservation::ReserveResponse); that of the others is a
    /// [`HoldResponse`](crate::protocol::reservation::HoldResponse).
    Reserve(Reservation),
    /// Settle the hold of this id.
    Settle(u64, UsedAmount),
    /// Release the hold of this id.
    Release(u64),
    /// List the open ones.
    List,
}

impl HoldRequest {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Reserve(_) => "reserve",
            Self::Settle(..) => "settle_hold",
            Self::Release(_) => "release_hold",
            Self::List => "holds",
        }
    }

    /// Appends the parameters.
    pub(super) fn write(&self, url: &mut String) -> std::fmt::Result {
        match self {
            Self::Reserve(Reservation { id, cost: Cost { requests, tokens }, ttl }) => {
                let ttl = UnixMicros::from_micros(*ttl).as_millis_ceil();
                write!(url, "&n={id}&tokens={tokens}&requests={requests}&ttl={ttl}")
            }
            Self::Settle(id, UsedAmount { tokens, requests }) => {
                write!(url, "&n={id}&tokens={tokens}")?;
                requests.map_or(Ok(()), |requests| write!(url, "&requests={requests}"))
            }
            Self::Release(id) => write!(url, "&n={id}"),
            Self::List => Ok(()),
        }
    }

    /// Reads a request. `None` if it is malformed or unknown.
    pub(super) fn parse(name: &str, query: &str) -> Option<Self> {
        let (mut id, mut tokens, mut requests, mut ttl) = (None, None, None, None);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let field = match name {
                "n" => &mut id,
                "tokens" => &mut tokens,
                "requests" => &mut requests,
                "ttl" => &mut ttl,
                _ => continue,
            };
            *field = Some(value.parse().ok()?);
        }
        match name {
            "reserve" => Some(Self::Reserve(Reservation {
                id: id?,
                cost: Cost { requests: requests?, tokens: tokens? },
                ttl: UnixMicros::from_millis(ttl?).as_micros(),
            })),
            "settle_hold" => Some(Self::Settle(id?, UsedAmount { tokens: tokens?, requests })),
            "release_hold" => Some(Self::Release(id?)),
            "holds" => Some(Self::List),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::object_request::ObjectRequest;
    use crate::time::SECOND;

    /// During a deployment old and new versions exchange these lines.
    #[test]
    fn requests_are_frozen() {
        let reservation = Reservation { id: u64::MAX, cost: Cost { requests: 1, tokens: 500 }, ttl: 600 * SECOND };
        let used = |requests| UsedAmount { tokens: 70, requests };
        for (request, is_concurrent, url) in [
            (
                HoldRequest::Reserve(reservation),
                true,
                "reserve?id=abc&g=1&n=18446744073709551615&tokens=500&requests=1&ttl=600000",
            ),
            (HoldRequest::Settle(7, used(None)), false, "settle_hold?id=abc&n=7&tokens=70"),
            (HoldRequest::Settle(7, used(Some(0))), false, "settle_hold?id=abc&n=7&tokens=70&requests=0"),
            (HoldRequest::Release(7), false, "release_hold?id=abc&n=7"),
            (HoldRequest::List, false, "holds?id=abc"),
        ] {
            let url = format!("https://key.object/v1/{url}");
            let request = ObjectRequest::Hold { id: "abc", request, is_concurrent };
            assert_eq!(request.to_url(), url);
            assert_eq!(ObjectRequest::parse(&url), Some(request.clone()));
            assert_eq!(ObjectRequest::parse(&format!("{url}&new=x")), Some(request));
        }
        for wrong in [
            "reserve?id=abc&n=7&tokens=1&requests=0",
            "reserve?id=abc&n=7&tokens=1&ttl=1",
            "reserve?id=abc&n=7&tokens=-1&requests=0&ttl=1",
            "reserve?n=7&tokens=1&requests=0&ttl=1",
            "settle_hold?id=abc&n=7",
            "settle_hold?id=abc&tokens=7",
            "release_hold?id=abc",
            "holds?",
        ] {
            assert_eq!(ObjectRequest::parse(&format!("https://key.object/v1/{wrong}")), None, "{wrong}");
        }
    }
}
