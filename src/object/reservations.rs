//! Carries out requests about the reservations of a key.

use crate::key_state::hold::{HoldState, Reservation, ReservationAnswer, UsedAmount};
use crate::key_state::state::KeyState;
use crate::keys::profile::{Profile, Status};
use crate::limiter::decision::{Decision, UsageSnapshot, Verdict};
use crate::limiter::policy::{Policy, Unit};
use crate::object::memory::{Memory, NotLoaded};
use crate::object::settings::Settings;
use crate::protocol::hold_request::HoldRequest;
use crate::protocol::object_response::{Admission, KeyResponse, KeyUsage, KeyVerdict, ObjectResponse};
use crate::protocol::reservation::{
    ClosedReservation, HoldResponse, ReservationList, ReservationView, ReserveResponse,
};
use crate::time::UnixMicros;
use serde::Serialize;

/// What a request about reservations is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldAnswer {
    /// The text of a [`ReserveResponse`] or [`HoldResponse`].
    pub text: String,
    /// Whether the response has to wait for a row.
    pub needs_write: bool,
}

/// Carries out a request. There is no await between the first look at memory and the last count, so
/// no other event comes in between.
///
/// # Errors
/// [`NotLoaded`].
pub fn answer(
    memory: &mut Memory,
    settings: &Settings,
    request: &HoldRequest,
    now: UnixMicros,
) -> Result<HoldAnswer, NotLoaded> {
    let key = memory.key(now)?;
    Ok(match (request, key) {
        (HoldRequest::Reserve(_), None) => {
            unwritten(ReserveResponse { response: ObjectResponse::Unknown, reservation: "" }.to_text())
        }
        (_, None) => unwritten(HoldResponse::NoKey.to_text()),
        (HoldRequest::Reserve(reservation), Some((key_state, profile))) => {
            reserve(key_state, profile, reservation, now)
        }
        (HoldRequest::Settle(hold, used), Some((key_state, profile))) => {
            close(key_state, profile, *hold, Some(*used), &settings.thresholds, now)
        }
        (HoldRequest::Release(hold), Some((key_state, profile))) => {
            close(key_state, profile, *hold, None, &settings.thresholds, now)
        }
        (HoldRequest::List, Some((key_state, _))) => {
            let reservations = key_state.open_reservations(now).iter().map(ReservationView::new).collect();
            unwritten(HoldResponse::Found(&json(&ReservationList { reservations })).to_text())
        }
    })
}

const fn unwritten(text: String) -> HoldAnswer {
    HoldAnswer { text, needs_write: false }
}

/// Plain texts and integers: there is nothing in it that JSON cannot say.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Makes a reservation, for an active key. A repeat is answered like the first request, whatever has
/// become of the key; it waits for a row too, because that of the first may be pending.
fn reserve(key_state: &mut KeyState, profile: &Profile, reservation: &Reservation, now: UnixMicros) -> HoldAnswer {
    let is_open = key_state.open_hold(now, reservation.id).is_some();
    let (verdict, usage, view) = match profile.status(now) {
        Status::Active => made(key_state, profile, reservation, now),
        _ if is_open => made(key_state, profile, reservation, now),
        status => (KeyVerdict::Refused(status), key_state.usage(profile.schedule(), now), None),
    };
    let needs_write = matches!(verdict, KeyVerdict::Admitted(_) | KeyVerdict::Conflict | KeyVerdict::Mismatch);
    let usage = KeyUsage::new(&profile.row.tier, profile.schedule(), &usage);
    let response = ObjectResponse::Key(KeyResponse { verdict, usage });
    let reservation = view.map(|view| json(&view)).unwrap_or_default();
    HoldAnswer { text: ReserveResponse { response, reservation: &reservation }.to_text(), needs_write }
}

fn made(
    key_state: &mut KeyState,
    profile: &Profile,
    reservation: &Reservation,
    now: UnixMicros,
) -> (KeyVerdict, UsageSnapshot, Option<ReservationView>) {
    let admitted = KeyVerdict::Admitted(Admission::default());
    match key_state.reserve(profile.schedule(), now, reservation) {
        ReservationAnswer::Open(hold, usage) if hold.cost == reservation.cost => {
            (admitted, usage, Some(ReservationView::new(&hold)))
        }
        ReservationAnswer::Open(_, usage) => (KeyVerdict::Mismatch, usage, None),
        ReservationAnswer::Closed(outcome, usage) if outcome.reserved != reservation.cost => {
            (KeyVerdict::Mismatch, usage, None)
        }
        // It can still be settled.
        ReservationAnswer::Closed(outcome, usage) if outcome.state == HoldState::Expired => {
            (admitted, usage, ReservationView::expired(&outcome))
        }
        ReservationAnswer::Closed(_, usage) => (KeyVerdict::Conflict, usage, None),
        ReservationAnswer::Refused(Decision { verdict, usage }) => {
            let unit = match verdict {
                Verdict::CostExceedsQuota { policy } => profile.policies.get(policy).map(Policy::unit),
                _ => None,
            };
            (KeyVerdict::new(&verdict, reservation.cost.of(unit.unwrap_or(Unit::Requests))), usage, None)
        }
    }
}

/// Settles or releases a reservation, whatever the status of the key: what was used has been used. A
/// repeat waits for a row too. The hold of a call is no reservation.
fn close(
    key_state: &mut KeyState,
    profile: &Profile,
    hold: u64,
    used: Option<UsedAmount>,
    thresholds: &[u16],
    now: UnixMicros,
) -> HoldAnswer {
    let schedule = profile.schedule();
    if !key_state.is_reservation(now, hold) {
        return unwritten(HoldResponse::NoReservation.to_text());
    }
    let outcome = match used {
        Some(used) => key_state.settle_hold(schedule, now, hold, used, thresholds),
        None => key_state.release_hold(schedule, now, hold),
    };
    match outcome {
        Some(outcome) => HoldAnswer {
            text: HoldResponse::Found(&json(&ClosedReservation::new(&outcome))).to_text(),
            needs_write: true,
        },
        None => unwritten(HoldResponse::NoReservation.to_text()),
    }
}

#[cfg(test)]
mod tests;
