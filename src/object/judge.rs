//! How calls are judged, and reports and outcomes of calls recorded.

use crate::key_state::hold::HoldTerms;
use crate::key_state::state::KeyState;
use crate::key_state::state::judging::{CallToJudge, ReportOutcome, ReportedUsage};
use crate::keys::profile::{Profile, Status};
use crate::keys::route_pattern::RouteCase;
use crate::limiter::cost::{CALL_TOKENS_LIMIT, Cost};
use crate::limiter::decision::{Judgement, UsageSnapshot, Verdict};
use crate::limiter::policy::{Policy, Unit};
use crate::object::memory::{Memory, NotLoaded};
use crate::object::settings::Settings;
use crate::protocol::object_request::{CallOutcomes, Check, PendingReport};
use crate::protocol::object_response::{Admission, Extent, KeyResponse, KeyUsage, KeyVerdict, ObjectResponse};
use crate::time::{MINUTE, UnixMicros};
use crate::tokens::request::TokenHold;

/// How long the hold of a call stays open unless it is settled or renewed, in microseconds.
pub const HOLD_TTL: u64 = 10 * MINUTE;

/// A judged call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The response.
    pub response: ObjectResponse,
    /// Whether the response has to wait for a row.
    pub needs_write: bool,
    /// Whether the request carried a report that came too late to be counted.
    pub is_report_late: bool,
}

/// A recorded report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Whether the response has to wait for a row.
    pub needs_write: bool,
    /// Whether the report may have been counted so long ago that this is not known any more. It is
    /// not counted.
    pub is_late: bool,
}

/// Why a call cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JudgeError {
    /// See [`NotLoaded`].
    #[error(transparent)]
    NotLoaded(#[from] NotLoaded),
    /// The call may have been counted under the same nonce so long ago that this is not known any
    /// more.
    #[error("it was repeated so late that it is not known whether it was counted")]
    TooLate,
}

/// Judges a call, and records what its request carries. There is no await between the first look at
/// memory and the last count, so no other event comes in between.
///
/// # Errors
/// [`JudgeError`]; nothing was counted.
pub fn judge(
    memory: &mut Memory,
    settings: &Settings,
    check: &Check<'_>,
    now: UnixMicros,
) -> Result<Judged, JudgeError> {
    let unknown = Judged { response: ObjectResponse::Unknown, needs_write: false, is_report_late: false };
    let Some((key_state, profile)) = memory.key(now)? else { return Ok(unknown) };
    if !profile.accepts(check.call.secret_hash, now) {
        return Ok(unknown);
    }
    // Before anything is counted: the error says that nothing is.
    if !key_state.can_deduplicate(now, check.nonce, check.age.map(micros)) {
        return Err(JudgeError::TooLate);
    }
    let recorded = check.report.map(|report| apply_report(key_state, profile, settings.route_case, report, now));
    let recorded = recorded.unwrap_or_default();
    complete(key_state, profile, settings, check.outcomes, now);
    let price = profile.price(check.call.method, check.call.path, settings.route_case);
    let has_idempotency = profile.row.idempotency.applies_to(check.call.method);
    let call = CallToJudge {
        cost: Cost { requests: price.cost, tokens: 0 },
        method: check.call.method,
        class: &price.class,
        nonce: check.nonce,
        idempotency_key: check.idempotency_key.as_deref().filter(|_| has_idempotency),
        fingerprint: check.fingerprint,
        is_audited: profile.row.audit_days > 0,
        thresholds: &settings.thresholds,
        hold: None,
        reprice: price.is_repriced.then_some(HOLD_TTL),
    };
    let spends = profile.token_route(check.call.method, check.call.path, settings.route_case);
    // A repeat has the hold of the request that it repeats, whatever has become of the row.
    let is_counted = key_state.is_counted(check.nonce);
    let held = check.held.as_deref().filter(|held| is_counted || spends == Some(held.terms));
    let refusal = match profile.status(now) {
        Status::Active if check.has_malformed_key && has_idempotency => Some((KeyVerdict::Malformed, 400)),
        Status::Active => None,
        status => Some((KeyVerdict::Refused(status), 403)),
    };
    let (verdict, usage, is_admitted) = if let Some((verdict, status)) = refusal {
        key_state.refuse_call(now, &call, status);
        (verdict, key_state.usage(profile.schedule(), now), false)
    } else if let (Some(terms), None, false) = (spends, held, is_counted) {
        (KeyVerdict::LacksHold(terms), key_state.usage(profile.schedule(), now), false)
    } else if let Some(held) = held {
        judge_held(key_state, profile, check, call, now, (held.hold, held.can_be_clamped))
    } else {
        judge_call(key_state, profile, check, &call, now)
    };
    let usage = KeyUsage::new(&profile.row.tier, profile.schedule(), &usage);
    Ok(Judged {
        response: ObjectResponse::Key(KeyResponse { verdict, usage }),
        needs_write: recorded.needs_write || is_admitted || check.outcomes.close_holds(),
        is_report_late: recorded.is_late,
    })
}

/// The verdict on a call of an active key that holds tokens, and the rest as [`judge_call`].
fn judge_held(
    key_state: &mut KeyState,
    profile: &Profile,
    check: &Check<'_>,
    call: CallToJudge<'_>,
    now: UnixMicros,
    (requested, can_be_clamped): (TokenHold, bool),
) -> (KeyVerdict, UsageSnapshot, bool) {
    let clamped = if can_be_clamped { clamp(key_state, profile, requested, now) } else { None };
    let tokens = clamped.unwrap_or(requested).total();
    let call = CallToJudge { hold: Some(HoldTerms { tokens, ttl: HOLD_TTL }), ..call };
    let (verdict, usage, is_admitted) = judge_call(key_state, profile, check, &call, now);
    let verdict = match verdict {
        KeyVerdict::Admitted(admission) => {
            // A free replay has none. That of a repeated request may be smaller than computed now.
            let open = key_state.open_hold(now, check.nonce);
            let whole = requested.total().min(CALL_TOKENS_LIMIT);
            let less = open.map(|hold| hold.cost.tokens).filter(|tokens| can_be_clamped && *tokens < whole);
            let cap = less.and_then(|tokens| requested.within(tokens)).map(|hold| hold.output_per_answer);
            KeyVerdict::Admitted(Admission { has_hold: open.is_some(), cap, ..admission })
        }
        verdict => verdict,
    };
    (verdict, usage, is_admitted)
}

/// The hold with as much output as every policy has tokens left for; `None` if all of it fits, or
/// not one token of output does.
fn clamp(key_state: &mut KeyState, profile: &Profile, requested: TokenHold, now: UnixMicros) -> Option<TokenHold> {
    let schedule = profile.schedule();
    let usage = key_state.usage(schedule, now);
    let of_tokens = schedule.policies().iter().zip(&usage.policies).filter(|(policy, _)| policy.unit() == Unit::Tokens);
    let left = of_tokens.map(|(_, usage)| usage.remaining).min()?;
    requested.within(left).filter(|hold| hold.total() < requested.total())
}

/// The verdict on a call of an active key, the usage after it, and whether it is admitted. A repeat
/// may overtake the request that it repeats. One that is admitted because the other was counted
/// waits for a row too, because the row of the other may be pending.
fn judge_call(
    key_state: &mut KeyState,
    profile: &Profile,
    check: &Check<'_>,
    call: &CallToJudge<'_>,
    now: UnixMicros,
) -> (KeyVerdict, UsageSnapshot, bool) {
    let schedule = profile.schedule();
    let has_key = call.idempotency_key.is_some();
    let admission = |is_replay: bool| Admission {
        is_replay,
        // The end of a replay unblocks nothing: it is for the audit log alone.
        wants_outcome: call.is_audited || (has_key && !is_replay),
        ignores_key: check.fingerprint.is_some() && !has_key,
        has_hold: false,
        is_repriced: false,
        cap: None,
    };
    let judgement = key_state.judge_once(schedule, now, call);
    let is_admitted = judgement.is_admitted();
    let is_repriced = is_admitted && call.reprice.is_some() && key_state.can_be_repriced(now, call.nonce);
    let admission = |is_replay: bool| Admission { is_repriced, ..admission(is_replay) };
    let (decision, replay) = match judgement {
        Judgement::Conflict(usage) => return (KeyVerdict::Conflict, usage, false),
        Judgement::Mismatch(usage) => return (KeyVerdict::Mismatch, usage, false),
        Judgement::Recalled { is_replay, usage } => return (KeyVerdict::Admitted(admission(is_replay)), usage, true),
        Judgement::Decided(decision) => (decision, None),
        Judgement::Replay { decision, is_free } => (decision, Some(is_free)),
    };
    let verdict = match KeyVerdict::new(&decision.verdict, call.cost.requests) {
        KeyVerdict::Admitted(_) => KeyVerdict::Admitted(admission(replay.is_some())),
        KeyVerdict::Denied { violated, retry_after, cost, lacks_hold, .. } => {
            let extent = extent(key_state, profile, check, call, (&decision.verdict, replay), now);
            let of_requests =
                |index: &usize| schedule.policies().get(*index).is_some_and(|policy| policy.unit() == Unit::Requests);
            let may_end_early = violated.iter().any(of_requests) && key_state.may_return(Unit::Requests);
            KeyVerdict::Denied { violated, retry_after, cost, extent, lacks_hold, may_end_early }
        }
        KeyVerdict::CostExceedsQuota { policy, .. } => {
            let unit = schedule.policies().get(policy).map_or(Unit::Requests, Policy::unit);
            let held = call.hold.map_or(0, |hold| hold.tokens);
            let cost = Cost { tokens: held, ..call.cost }.of(unit);
            KeyVerdict::CostExceedsQuota { policy, cost }
        }
        verdict => verdict,
    };
    (verdict, decision.usage, is_admitted)
}

/// For which calls a denial is true. `replay` says of a replay whether it is free.
fn extent(
    key_state: &mut KeyState,
    profile: &Profile,
    check: &Check<'_>,
    call: &CallToJudge<'_>,
    (verdict, replay): (&Verdict, Option<bool>),
    now: UnixMicros,
) -> Extent {
    if check.fingerprint.is_none() && !check.has_malformed_key {
        return Extent::Unsaid;
    }
    match replay {
        Some(true) => Extent::Replays,
        _ if call.idempotency_key.is_none() => Extent::All,
        _ if key_state.judges_replays_alike(profile.schedule(), now, call.cost, verdict) => Extent::All,
        _ => Extent::New,
    }
}

/// Records a report, unless it has been recorded. A report to a key that is gone is dropped.
///
/// # Errors
/// [`NotLoaded`].
pub fn record_report(
    memory: &mut Memory,
    settings: &Settings,
    report: PendingReport<'_>,
    now: UnixMicros,
) -> Result<Recorded, NotLoaded> {
    let Some((key_state, profile)) = memory.key(now)? else { return Ok(Recorded::default()) };
    Ok(apply_report(key_state, profile, settings.route_case, report, now))
}

/// Records how calls ended. `false` if the key is gone: then nothing is recorded, and no row must
/// be written, which would create the tables of a key that does not exist.
///
/// # Errors
/// [`NotLoaded`].
pub fn record_outcomes(
    memory: &mut Memory,
    settings: &Settings,
    outcomes: CallOutcomes<'_>,
    now: UnixMicros,
) -> Result<bool, NotLoaded> {
    let Some((key_state, profile)) = memory.key(now)? else { return Ok(false) };
    complete(key_state, profile, settings, outcomes, now);
    Ok(true)
}

/// Keeps the hold of a call open for another [`HOLD_TTL`]; `false` if it is not open.
///
/// # Errors
/// [`NotLoaded`].
pub fn renew_hold(memory: &mut Memory, nonce: u64, now: UnixMicros) -> Result<bool, NotLoaded> {
    let Some((key_state, _)) = memory.key(now)? else { return Ok(false) };
    Ok(key_state.renew_hold(now, nonce, HOLD_TTL).is_some())
}

fn apply_report(
    key_state: &mut KeyState,
    profile: &Profile,
    case: RouteCase,
    report: PendingReport<'_>,
    now: UnixMicros,
) -> Recorded {
    let PendingReport { nonce, uncounted, denied, age, unchecked } = report;
    let cost = Cost { requests: profile.cost_of(uncounted, unchecked.iter(), case), tokens: 0 };
    let reported = ReportedUsage { nonce, age: age.map(micros), calls: uncounted, cost, denied };
    match key_state.apply_report(profile.schedule(), now, &reported) {
        // The row of a report that was recorded before may still be pending.
        ReportOutcome::Counted | ReportOutcome::Duplicate => Recorded { needs_write: uncounted > 0, is_late: false },
        ReportOutcome::TooLate => Recorded { needs_write: false, is_late: true },
    }
}

fn complete(
    key_state: &mut KeyState,
    profile: &Profile,
    settings: &Settings,
    outcomes: CallOutcomes<'_>,
    now: UnixMicros,
) {
    for outcome in outcomes.iter() {
        let charge = key_state.end_call(profile.schedule(), now, &outcome, &settings.thresholds);
        key_state.complete(now, outcome, charge, profile.row.audit_days > 0);
    }
}

/// Microseconds from milliseconds.
const fn micros(milliseconds: u64) -> u64 {
    UnixMicros::from_millis(milliseconds).as_micros()
}

#[cfg(test)]
mod tests;
