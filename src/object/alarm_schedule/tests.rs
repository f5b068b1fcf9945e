//! Each rule at its boundary, and the promises over random runs of an object.

use super::*;
use crate::key_state::state::KeyState;
use crate::limiter::policy::Unit;
use crate::object::denials::{BURST, PATIENCE};
use crate::time::{HOUR, Month};
use proptest::prelude::*;

const NOW: u64 = 1_930_564_800_000;
const SECOND: u64 = 1_000;
const FLUSH_SECONDS: u64 = 60;

const FLUSHED: Backlog<'_> = Backlog { alerts: &[], is_flushed: true, hold_expiry: None, before_leap: NOW };
const UNFLUSHED: Backlog<'_> = Backlog { is_flushed: false, ..FLUSHED };

fn alert(threshold: u16) -> Alert {
    let at = UnixMicros::from_millis(NOW);
    let (policy, unit) = ("month".to_owned(), Unit::Requests);
    Alert { policy, threshold, month: Month::of(at), unit, quota: 1_000, used: 801, at }
}

fn armed(schedule: &AlarmSchedule, backlog: Backlog<'_>, random: f64) -> Option<u64> {
    schedule.clone().arm(backlog, FLUSH_SECONDS, NOW, || random)
}

fn with_alarm(at: u64) -> AlarmSchedule {
    AlarmSchedule { alarm: StoredAlarm::Set(at), ..AlarmSchedule::default() }
}

/// A schedule after so many flushes that failed.
fn after_failures(failures: u32) -> AlarmSchedule {
    let mut schedule = AlarmSchedule::default();
    (0..failures).for_each(|_| schedule.flush_ended(false));
    schedule
}

#[test]
fn a_flush_is_set_for_the_second_half_of_its_pause() {
    let schedule = AlarmSchedule::default();
    assert_eq!(armed(&schedule, FLUSHED, 0.0), None);
    for (random, seconds) in [(0.0, 30), (0.5, 45), (1.0, 60)] {
        assert_eq!(armed(&schedule, UNFLUSHED, random), Some(NOW + seconds * SECOND));
    }
}

#[test]
fn an_alarm_that_comes_in_time_stays() {
    let no_random = || panic!("a random number is taken for nothing");
    for at in [NOW - 1, NOW, NOW + 60 * SECOND] {
        let mut schedule = with_alarm(at);
        assert_eq!(schedule.arm(UNFLUSHED, FLUSH_SECONDS, NOW, no_random), None);
        assert_eq!(schedule, with_alarm(at));
    }
    assert_eq!(armed(&with_alarm(NOW + 60 * SECOND + 1), UNFLUSHED, 0.0), Some(NOW + 30 * SECOND));
    assert_eq!(armed(&with_alarm(NOW + 1), FLUSHED, 0.0), None, "one for something else");
    // What was armed for stays armed.
    let mut schedule = AlarmSchedule::default();
    assert!(schedule.arm(UNFLUSHED, FLUSH_SECONDS, NOW, || 1.0).is_some());
    assert_eq!(schedule.arm(UNFLUSHED, FLUSH_SECONDS, NOW, || 1.0), None);
}

#[test]
fn failed_flushes_double_the_pause_up_to_fifteen_minutes() {
    let pauses = [60, 120, 240, 480, 900, 900].map(|seconds| Some(NOW + seconds * SECOND));
    let armed_after = |failures| armed(&after_failures(failures), UNFLUSHED, 1.0);
    assert_eq!([0, 1, 2, 3, 4, 5].map(armed_after), pauses);
    assert_eq!(armed_after(64), Some(NOW + 900 * SECOND));
    let many = AlarmSchedule { failed_flushes: u32::MAX, ..AlarmSchedule::default() };
    let mut more = many.clone();
    more.flush_ended(false);
    assert_eq!(more, many);
    more.flush_ended(true);
    assert_eq!(armed(&more, UNFLUSHED, 1.0), Some(NOW + 60 * SECOND));
    let hourly = after_failures(3).arm(UNFLUSHED, 3_600, NOW, || 1.0);
    assert_eq!(hourly, Some(NOW + 3_600 * SECOND), "no shorter than FLUSH_SECONDS");
}

#[test]
fn after_a_leap_the_alarm_is_set_by_the_time_before_it() {
    let backlog = Backlog { before_leap: NOW - 86_400 * SECOND, ..UNFLUSHED };
    assert_eq!(armed(&AlarmSchedule::default(), backlog, 1.0), Some(NOW - (86_400 - 60) * SECOND));
    assert_eq!(armed(&with_alarm(NOW), backlog, 1.0), Some(NOW - (86_400 - 60) * SECOND));
    let mut key_state = KeyState::new("e".to_owned());
    let at = |hours: u64| UnixMicros::from_millis(NOW).saturating_add(hours * HOUR);
    assert_eq!(Backlog::of(&key_state, at(0)), FLUSHED);
    key_state.effective_time(at(0));
    key_state.effective_time(at(48));
    assert_eq!(Backlog::of(&key_state, at(48)), FLUSHED);
}

#[test]
fn the_expiry_of_a_hold_wakes_the_object() {
    let held = |seconds| Backlog { hold_expiry: Some(NOW + seconds * SECOND), ..FLUSHED };
    let schedule = AlarmSchedule::default();
    assert_eq!(armed(&schedule, held(600), 1.0), Some(NOW + 600 * SECOND));
    assert_eq!(armed(&with_alarm(NOW + 600 * SECOND), held(600), 1.0), None);
    assert_eq!(armed(&with_alarm(NOW + 601 * SECOND), held(600), 1.0), Some(NOW + 600 * SECOND));
    // The flush comes before, and the alarm is then set for the hold.
    assert_eq!(armed(&schedule, Backlog { is_flushed: false, ..held(600) }, 0.5), Some(NOW + 45 * SECOND));
    assert_eq!(armed(&schedule, Backlog { is_flushed: false, ..held(20) }, 0.5), Some(NOW + 20 * SECOND));
    let alerts = [alert(80)];
    assert_eq!(armed(&schedule, Backlog { alerts: &alerts, ..held(600) }, 0.5), Some(NOW + SECOND));
    // While flushes fail, the alarm comes rarely.
    let mut failing = after_failures(5);
    failing.begin_work(FLUSH_SECONDS, NOW, || 1.0);
    assert_eq!(armed(&failing, Backlog { is_flushed: false, ..held(20) }, 0.5), Some(NOW + 20 * SECOND));
}

#[test]
fn an_alert_wakes_the_object_when_it_is_due() {
    let alerts = [alert(80), alert(100)];
    let backlog = Backlog { alerts: &alerts, ..FLUSHED };
    let mut schedule = AlarmSchedule::default();
    assert_eq!(armed(&schedule, backlog, 1.0), Some(NOW + SECOND));
    assert_eq!(armed(&schedule, Backlog { is_flushed: false, ..backlog }, 1.0), Some(NOW + SECOND));
    assert_eq!(armed(&with_alarm(NOW + SECOND), backlog, 1.0), None);
    assert_eq!(armed(&with_alarm(NOW + SECOND + 1), backlog, 1.0), Some(NOW + SECOND));
    // It waits for its retry, and the flush does not wait for it.
    let only = Backlog { alerts: &alerts[..1], ..FLUSHED };
    schedule.delivery_mut().attempted(&alerts[0], Some(NOW + 70 * SECOND));
    assert_eq!(schedule.delivery().next(only.alerts, NOW), Some(NOW + 70 * SECOND));
    assert_eq!(armed(&schedule, only, 1.0), Some(NOW + 70 * SECOND));
    assert_eq!(armed(&schedule, Backlog { is_flushed: false, ..only }, 0.5), Some(NOW + 45 * SECOND));
}

#[test]
fn the_alarm_is_armed_again_before_it_works() {
    let mut schedule = with_alarm(NOW);
    let begun = schedule.begin_work(FLUSH_SECONDS, NOW, || 0.5);
    assert_eq!(begun, WorkBegun { alarm: NOW + 45 * SECOND, is_clock_right: false });
    assert_eq!(schedule, AlarmSchedule { set_at: NOW, ..with_alarm(NOW + 45 * SECOND) });
    assert_eq!(after_failures(2).begin_work(FLUSH_SECONDS, NOW, || 0.0).alarm, NOW + 120 * SECOND);
}

#[test]
fn an_alarm_that_comes_sooner_than_half_a_pause_proves_that_the_clock_is_right() {
    let mut schedule = AlarmSchedule::default();
    assert!(schedule.arm(UNFLUSHED, FLUSH_SECONDS, NOW, || 0.0).is_some());
    let is_right = |now| schedule.clone().begin_work(FLUSH_SECONDS, now, || 0.0).is_clock_right;
    assert!(is_right(NOW + 30 * SECOND - 1));
    assert!(!is_right(NOW + 30 * SECOND));
    assert!(is_right(NOW - 30 * SECOND + 1), "a clock that stepped back meanwhile");
    assert!(!is_right(NOW - 30 * SECOND));
    let mut failing = AlarmSchedule { failed_flushes: 1, ..schedule.clone() };
    assert!(failing.begin_work(FLUSH_SECONDS, NOW + 60 * SECOND - 1, || 0.0).is_clock_right);
}

#[test]
fn after_its_work_the_alarm_is_set_for_what_comes_next() {
    let rest = |backlog, expiry| {
        let mut schedule = with_alarm(NOW + 45 * SECOND);
        let rest = schedule.work_ended(backlog, expiry, NOW);
        let expected = match rest {
            NextAlarm::Keep => with_alarm(NOW + 45 * SECOND),
            NextAlarm::Set(at) => AlarmSchedule { set_at: NOW, ..with_alarm(at) },
            NextAlarm::Delete => AlarmSchedule { alarm: StoredAlarm::Unset, ..AlarmSchedule::default() },
        };
        assert_eq!(schedule, expected);
        rest
    };
    assert_eq!(rest(FLUSHED, None), NextAlarm::Delete);
    assert_eq!(rest(UNFLUSHED, None), NextAlarm::Keep);
    assert_eq!(rest(UNFLUSHED, Some(NOW + 5 * SECOND)), NextAlarm::Keep);
    assert_eq!(rest(FLUSHED, Some(NOW + 86_400 * SECOND)), NextAlarm::Set(NOW + 86_400 * SECOND));
    // What is over already is looked at again in a second.
    assert_eq!(rest(FLUSHED, Some(NOW - 1)), NextAlarm::Set(NOW + SECOND));
    let alerts = [alert(80)];
    let backlog = Backlog { alerts: &alerts, ..FLUSHED };
    assert_eq!(rest(backlog, None), NextAlarm::Set(NOW + SECOND));
    assert_eq!(rest(backlog, Some(NOW + 86_400 * SECOND)), NextAlarm::Set(NOW + SECOND));
}

#[test]
fn the_alarm_is_read_from_storage_until_it_is_known() {
    let mut schedule = AlarmSchedule::default();
    assert!(schedule.is_unknown());
    schedule.found(Some(NOW));
    assert_eq!(schedule, with_alarm(NOW));
    // One that was set meanwhile is newer.
    schedule.found(None);
    assert_eq!(schedule, with_alarm(NOW));
    schedule.discard();
    assert!(schedule.is_unknown());
    schedule.found(None);
    assert!(!schedule.is_unknown());
    assert_eq!(armed(&schedule, UNFLUSHED, 0.0), Some(NOW + 30 * SECOND));
    schedule.discard();
    schedule.storage_is_empty();
    assert_eq!(schedule.alarm, StoredAlarm::Unset);
}

#[test]
fn denials_bring_the_alarm_forward_and_it_returns_to_its_work() {
    let work_at = NOW + 60 * SECOND;
    let mut schedule = with_alarm(work_at);
    for _ in 0..BURST {
        assert_eq!(schedule.counted(NOW), Later::Write);
    }
    assert_eq!(schedule.counted(NOW), Later::SetAlarm(NOW + PATIENCE));
    assert_eq!(schedule.alarm, StoredAlarm::Set(NOW + PATIENCE));
    assert_eq!(schedule.counted(NOW), Later::Wait, "the alarm comes in time");
    let mut idle = schedule.clone();
    assert_eq!(idle.woken(true, NOW + PATIENCE), Wake::Counts { alarm: work_at, write: true });
    assert_eq!(idle.alarm, StoredAlarm::Set(work_at));
    assert_eq!(idle.woken(true, work_at), Wake::Work);
    assert_eq!(idle.alarm, StoredAlarm::Set(work_at));
    // Work that is set for meanwhile is done by whichever alarm comes.
    let sooner = Backlog { before_leap: NOW - 60 * SECOND, ..UNFLUSHED };
    let settings: [fn(&mut AlarmSchedule, Backlog<'_>); 3] = [
        |schedule, sooner| assert!(schedule.arm(sooner, FLUSH_SECONDS, NOW, || 1.0).is_some()),
        |schedule, _| assert!(schedule.begin_work(FLUSH_SECONDS, NOW, || 1.0).alarm > NOW),
        |schedule, _| assert_eq!(schedule.work_ended(FLUSHED, None, NOW), NextAlarm::Delete),
    ];
    for set in settings {
        let mut schedule = schedule.clone();
        set(&mut schedule, sooner);
        assert_eq!(schedule.woken(true, NOW + PATIENCE), Wake::Work);
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many seconds pass; alarms come meanwhile.
    Pass(u64),
    /// A call is counted, and its row written.
    Call,
    Denial,
    /// D1 goes down, or is back.
    Switch,
    /// An alert is raised.
    Alert,
    /// The object loses its memory.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u64..100).prop_map(Step::Pass),
        3 => Just(Step::Call),
        6 => Just(Step::Denial),
        1 => Just(Step::Switch),
        1 => Just(Step::Alert),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..100)
}

/// An object, its alarm in storage, and D1.
struct Run {
    schedule: AlarmSchedule,
    now: u64,
    alarm: Option<u64>,
    alerts: Vec<Alert>,
    /// Whether rows hold counts that D1 does not have.
    is_unflushed: bool,
    /// Whether memory holds counts that no row has.
    is_unwritten: bool,
    is_d1_up: bool,
    /// When D1 was back last.
    up_since: u64,
    random: f64,
    raised: u16,
}

impl Run {
    fn backlog(&self) -> (AlarmSchedule, Backlog<'_>) {
        let (alerts, is_flushed) = (&self.alerts, !self.is_unflushed);
        let backlog = Backlog { alerts, is_flushed, hold_expiry: None, before_leap: self.now };
        (self.schedule.clone(), backlog)
    }

    fn arm(&mut self) {
        let (mut schedule, backlog) = self.backlog();
        if let Some(at) = schedule.arm(backlog, FLUSH_SECONDS, self.now, || self.random) {
            self.alarm = Some(at);
        }
        self.schedule = schedule;
    }

    fn write(&mut self) {
        (self.is_unwritten, self.is_unflushed) = (false, true);
        self.arm();
    }

    fn denial(&mut self) {
        self.is_unwritten = true;
        match self.schedule.counted(self.now) {
            Later::Wait => {}
            Later::Write => self.write(),
            Later::SetAlarm(at) => self.alarm = Some(at),
        }
    }

    fn wake(&mut self) {
        if let Wake::Counts { alarm, write } = self.schedule.woken(self.is_unwritten, self.now) {
            self.alarm = Some(alarm);
            if write {
                self.write();
            }
            return self.arm();
        }
        self.alarm = Some(self.schedule.begin_work(FLUSH_SECONDS, self.now, || self.random).alarm);
        if self.is_unwritten {
            self.write();
        }
        self.is_unflushed &= !self.is_d1_up;
        self.schedule.flush_ended(self.is_d1_up);
        for alert in self.schedule.delivery().due(&self.alerts, self.now) {
            if self.is_d1_up {
                self.alerts.retain(|other| *other != alert);
                self.schedule.delivery_mut().attempted(&alert, None);
            } else {
                self.schedule.delivery_mut().failed(&alert, self.now);
            }
        }
        if self.is_d1_up {
            let (mut schedule, backlog) = self.backlog();
            match schedule.work_ended(backlog, None, self.now) {
                NextAlarm::Keep => {}
                NextAlarm::Set(at) => self.alarm = Some(at),
                NextAlarm::Delete => self.alarm = None,
            }
            self.schedule = schedule;
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let is_idle = !self.is_unflushed && !self.is_unwritten && self.alerts.is_empty();
        let longest = self.now + LONGEST_PAUSE * SECOND;
        prop_assert!(is_idle || self.alarm.is_some_and(|at| at <= longest), "no alarm comes for what is left");
        prop_assert!(!self.is_unwritten || self.alarm.is_some_and(|at| at <= self.now + PATIENCE), "denials are lost");
        // With D1 up the pause that began before it was is over.
        let is_late = self.is_d1_up && self.now > self.up_since + (LONGEST_PAUSE + FLUSH_SECONDS) * SECOND;
        prop_assert!(!is_late || is_idle || self.alarm.is_some_and(|at| at <= self.now + FLUSH_SECONDS * SECOND));
        match self.schedule.alarm {
            StoredAlarm::Unknown => {}
            StoredAlarm::Unset => prop_assert_eq!(self.alarm, None),
            StoredAlarm::Set(at) => prop_assert_eq!(self.alarm, Some(at)),
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn all_that_is_left_to_do_has_an_alarm_in_time(steps in steps(), random in 0.0..1.0f64) {
        let mut run = Run {
            schedule: AlarmSchedule::default(),
            now: NOW,
            alarm: None,
            alerts: Vec::new(),
            is_unflushed: false,
            is_unwritten: false,
            is_d1_up: true,
            up_since: NOW,
            random,
            raised: 0,
        };
        run.schedule.storage_is_empty();
        for step in steps {
            match step {
                Step::Pass(seconds) => for _ in 0..seconds {
                    run.now += SECOND;
                    if run.alarm.is_some_and(|at| at <= run.now) {
                        run.alarm = None;
                        run.wake();
                    }
                    run.check()?;
                },
                Step::Call => run.write(),
                Step::Denial => run.denial(),
                Step::Switch => (run.is_d1_up, run.up_since) = (!run.is_d1_up, run.now),
                Step::Alert => {
                    run.raised += 1;
                    run.alerts.push(alert(run.raised));
                    run.write();
                }
                Step::Crash => {
                    (run.schedule, run.is_unwritten) = (AlarmSchedule::default(), false);
                    run.schedule.found(run.alarm);
                    run.arm();
                }
            }
            run.check()?;
        }
    }
}
