//! Reservations: request bodies and ids.

use crate::admin::body::{FromFields, JsonFields, Limits};
use crate::encoding::unbase32_number;
use crate::http::problem::Problem;
use crate::key_state::hold::{Reservation, UsedAmount};
use crate::limiter::cost::Cost;
use crate::time::SECOND;
use sha2::{Digest, Sha256};

/// The most tokens or requests of a reservation, and of what is used of it.
const AMOUNT_LIMIT: u64 = 1_000_000_000;
/// In seconds.
const TTL_LIMIT: u64 = 3_600;
/// In seconds.
const TTL_DEFAULT: u64 = 600;

/// The body that makes a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"tokens": 1500, "requests": 1, "ttl_seconds": 120})))]
pub struct CreateReservation {
    /// Tokens to reserve.
    pub tokens: u64,
    /// Requests to reserve. Not 0 if `tokens` is 0.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false, default = 0))]
    pub requests: u64,
    /// Time after which the reservation lapses, in seconds.
    #[cfg_attr(not(target_arch = "wasm32"), schema(required = false, default = 600))]
    pub ttl_seconds: u64,
}

impl FromFields for CreateReservation {
    const LIMITS: Limits = &[
        ("tokens", "minimum", 0),
        ("tokens", "maximum", AMOUNT_LIMIT),
        ("requests", "minimum", 0),
        ("requests", "maximum", AMOUNT_LIMIT),
        ("ttl_seconds", "minimum", 1),
        ("ttl_seconds", "maximum", TTL_LIMIT),
    ];

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let tokens = fields.number_to("tokens", AMOUNT_LIMIT)?;
        let tokens = fields.required("tokens", tokens)?;
        let requests = fields.number_to("requests", AMOUNT_LIMIT)?.unwrap_or(0);
        let ttl_seconds = fields.number("ttl_seconds")?.unwrap_or(TTL_DEFAULT);
        if !(1..=TTL_LIMIT).contains(&ttl_seconds) {
            return Err(fields.wrong("ttl_seconds", format!("must be 1 to {TTL_LIMIT}")));
        }
        if tokens == 0 && requests == 0 {
            return Err(fields.wrong("tokens", "must not be 0 if requests is 0"));
        }
        Ok(Self { tokens, requests, ttl_seconds })
    }
}

impl CreateReservation {
    /// The reservation, under this id.
    #[must_use]
    pub const fn named(&self, id: u64) -> Reservation {
        let &Self { tokens, requests, ttl_seconds } = self;
        Reservation { id, cost: Cost { requests, tokens }, ttl: ttl_seconds * SECOND }
    }
}

/// The body that settles a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), derive(utoipa::ToSchema))]
#[cfg_attr(not(target_arch = "wasm32"), schema(example = json!({"tokens": 1130, "requests": 1})))]
pub struct SettleReservation {
    /// Tokens that were used. More than were reserved are charged too.
    pub tokens: u64,
    /// Requests that were used. Default: those that were reserved.
    #[cfg_attr(not(target_arch = "wasm32"), schema(nullable = false))]
    pub requests: Option<u64>,
}

impl FromFields for SettleReservation {
    const LIMITS: Limits = &[
        ("tokens", "minimum", 0),
        ("tokens", "maximum", AMOUNT_LIMIT),
        ("requests", "minimum", 0),
        ("requests", "maximum", AMOUNT_LIMIT),
    ];

    fn read(fields: &mut JsonFields) -> Result<Self, Problem> {
        let tokens = fields.number_to("tokens", AMOUNT_LIMIT)?;
        let tokens = fields.required("tokens", tokens)?;
        Ok(Self { tokens, requests: fields.number_to("requests", AMOUNT_LIMIT)? })
    }
}

impl SettleReservation {
    /// What was used.
    #[must_use]
    pub const fn used(&self) -> UsedAmount {
        UsedAmount { tokens: self.tokens, requests: self.requests }
    }
}

/// The id of the reservation that an admin token makes under an `Idempotency-Key`. Keys of
/// different admin tokens and of different API keys are independent.
#[must_use]
pub fn id_of(actor: &str, key_id: &str, idempotency_key: &str) -> u64 {
    let hash = Sha256::new_with_prefix(b"tollgate reservation v1\0")
        .chain_update(key_id)
        .chain_update(b"\0")
        .chain_update(idempotency_key)
        .chain_update(b"\0")
        .chain_update(actor)
        .finalize();
    hash.first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
}

/// The id in a path; 404 for a text that is none.
///
/// # Errors
/// 404.
pub fn id_in_path(text: &str) -> Result<u64, Problem> {
    unbase32_number(text).ok_or_else(no_reservation)
}

/// 404: no such reservation.
#[must_use]
pub fn no_reservation() -> Problem {
    Problem::NotFound("the key has no reservation with this id".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::body::parse;

    #[test]
    fn bodies() {
        let create: CreateReservation = parse(br#"{"tokens":500}"#).unwrap();
        let reservation = Reservation { id: 7, cost: Cost { requests: 0, tokens: 500 }, ttl: 600 * SECOND };
        assert_eq!(create.named(7), reservation);
        let create: CreateReservation = parse(br#"{"tokens":0,"requests":2,"ttl_seconds":1}"#).unwrap();
        assert_eq!(create.named(7), Reservation { id: 7, cost: Cost { requests: 2, tokens: 0 }, ttl: SECOND });
        let settle: SettleReservation = parse(br#"{"tokens":0}"#).unwrap();
        assert_eq!(settle.used(), UsedAmount { tokens: 0, requests: None });
        for (body, field) in [
            ("{}", "tokens"),
            (r#"{"tokens":0}"#, "tokens"),
            (r#"{"tokens":0,"requests":0}"#, "tokens"),
            (r#"{"tokens":-1}"#, "tokens"),
            (r#"{"tokens":1.5}"#, "tokens"),
            (r#"{"tokens":1000000001}"#, "tokens"),
            (r#"{"tokens":1,"requests":1000000001}"#, "requests"),
            (r#"{"tokens":1,"requests":null}"#, "requests"),
            (r#"{"tokens":1,"ttl_seconds":0}"#, "ttl_seconds"),
            (r#"{"tokens":1,"ttl_seconds":3601}"#, "ttl_seconds"),
            (r#"{"tokens":1,"ttl":1}"#, "ttl"),
        ] {
            match parse::<CreateReservation>(body.as_bytes()).unwrap_err() {
                Problem::Invalid(named, _) => assert_eq!(named, field, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
        for body in
            ["{}", r#"{"tokens":1000000001}"#, r#"{"tokens":1,"requests":-1}"#, r#"{"tokens":1,"ttl_seconds":1}"#]
        {
            assert!(matches!(parse::<SettleReservation>(body.as_bytes()), Err(Problem::Invalid(..))), "{body}");
        }
    }

    /// A repeat may meet another version.
    #[test]
    fn ids_under_an_idempotency_key_are_frozen() {
        let id = id_of("root", "abcdefghij234567", "order 1");
        assert_eq!(id, 16_025_988_607_227_870_144);
        for other in
            [id_of("ci", "abcdefghij234567", "order 1"), id_of("root", "b", "order 1"), id_of("root", "a", "2")]
        {
            assert_ne!(id, other);
        }
    }
}
