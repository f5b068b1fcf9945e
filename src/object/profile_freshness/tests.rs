//! Each rule at its boundary, and the promises over random runs of an object.

use super::*;
use proptest::prelude::*;

const NOW: u64 = 1_930_564_800_000;

/// An object that has read a profile at [`NOW`].
fn known() -> ProfileFreshness {
    let mut freshness = ProfileFreshness::default();
    let read = freshness.begin_read(NOW);
    assert!(freshness.answered(read, true));
    freshness
}

fn failed_at(mut freshness: ProfileFreshness, at: u64) -> ProfileFreshness {
    let read = freshness.begin_read(at);
    freshness.failed(read);
    freshness
}

fn call(freshness: &ProfileFreshness, now: u64) -> Readiness {
    freshness.clone().call(false, now)
}

fn needs_read(freshness: &ProfileFreshness, now: u64) -> Result<bool, ProfileUnavailable> {
    freshness.prepare(false, now).map(|awaited| awaited.is_some())
}

#[test]
fn a_profile_is_used_then_read_beside_then_read_first() {
    let freshness = known();
    for (age, expected) in [
        (0, Readiness::Ready),
        (29_999, Readiness::Ready),
        (30_000, Readiness::ReadyAndRead),
        (56_999, Readiness::ReadyAndRead),
        (57_000, Readiness::NotReady),
        (u64::MAX - NOW, Readiness::NotReady),
    ] {
        assert_eq!(call(&freshness, NOW + age), expected, "{age}");
        assert_eq!(needs_read(&freshness, NOW + age), Ok(expected == Readiness::NotReady), "{age}");
    }
    assert_eq!((freshness.checked_at(), freshness.reads()), (NOW, 1));
    assert_eq!(failed_at(freshness, NOW + LIFE).reads(), 2, "failed reads count too");
}

#[test]
fn one_read_at_a_time_goes_beside_calls() {
    let mut freshness = known();
    let now = NOW + RENEWAL;
    assert_eq!(freshness.call(false, now), Readiness::ReadyAndRead);
    assert_eq!(freshness.call(false, now), Readiness::Ready);
    // It does not make an old profile good.
    assert_eq!(freshness.call(false, NOW + LIFE), Readiness::NotReady);
    freshness.read_beside_ended();
    assert_eq!(freshness.call(false, now), Readiness::ReadyAndRead);
}

#[test]
fn a_profile_of_the_future_is_read_first() {
    let freshness = known();
    assert_eq!(call(&freshness, NOW - 1), Readiness::NotReady);
    assert_eq!(needs_read(&freshness, NOW - 1), Ok(true));
}

#[test]
fn after_a_failed_read_a_known_profile_is_used_for_five_seconds() {
    let began_at = NOW + 200_000;
    let freshness = failed_at(known(), began_at);
    for (elapsed, is_used) in [(0, true), (4_999, true), (5_000, false)] {
        let expected = if is_used { Readiness::Ready } else { Readiness::NotReady };
        assert_eq!(call(&freshness, began_at + elapsed), expected, "{elapsed}");
        assert_eq!(needs_read(&freshness, began_at + elapsed), Ok(!is_used), "{elapsed}");
    }
    assert_eq!(freshness.checked_at(), NOW);
    // The pause was set by a clock that was ahead.
    assert_eq!(needs_read(&freshness, began_at - 1), Ok(true));
}

#[test]
fn without_a_profile_a_failed_read_pauses_for_one_second() {
    let mut freshness = ProfileFreshness::default();
    assert_eq!(freshness.call(false, NOW), Readiness::NotReady);
    let awaited = freshness.prepare(false, NOW).unwrap().unwrap();
    let read = freshness.begin_read(NOW);
    freshness.failed(read);
    assert_eq!(freshness.check_read(awaited), Err(ProfileUnavailable::NeverRead));
    assert_eq!(freshness.prepare(false, NOW), Err(ProfileUnavailable::Paused));
    assert_eq!(freshness.prepare(false, NOW + 999), Err(ProfileUnavailable::Paused));
    assert_eq!(needs_read(&freshness, NOW + 1_000), Ok(true));
}

#[test]
fn a_key_that_d1_does_not_have_is_read_every_five_seconds() {
    let mut freshness = known();
    let awaited = freshness.prepare(false, NOW + LIFE).unwrap().unwrap();
    let read = freshness.begin_read(NOW + LIFE);
    assert!(freshness.answered(read, false));
    assert_eq!(freshness.check_read(awaited), Ok(()));
    for (elapsed, expected) in [(0, false), (4_999, false), (5_000, true)] {
        assert_eq!(call(&freshness, NOW + LIFE + elapsed), Readiness::NotReady);
        assert_eq!(needs_read(&freshness, NOW + LIFE + elapsed), Ok(expected), "{elapsed}");
    }
    // A failure to forget the profile is repeated as a first read is.
    freshness.failed(read);
    assert_eq!(needs_read(&freshness, NOW + LIFE + 999), Ok(false));
    assert_eq!(needs_read(&freshness, NOW + LIFE + 1_000), Ok(true));
}

#[test]
fn a_secret_that_d1_had_and_the_profile_does_not_accept_waits_for_an_answer() {
    let freshness = failed_at(known(), NOW);
    assert_eq!(freshness.clone().call(true, NOW), Readiness::NotReady);
    let awaited = freshness.prepare(true, NOW).unwrap().unwrap();
    let mut failing = freshness.clone();
    let read = failing.begin_read(NOW);
    failing.failed(read);
    assert_eq!(failing.check_read(awaited), Err(ProfileUnavailable::Contradicted));
    for is_found in [true, false] {
        let mut answered = freshness.clone();
        let read = answered.begin_read(NOW);
        assert!(answered.answered(read, is_found));
        assert_eq!(answered.check_read(awaited), Ok(()));
    }
    // One that the profile accepts goes on with it when the read fails.
    let old = known();
    let awaited = old.prepare(false, NOW + LIFE).unwrap().unwrap();
    assert_eq!(failed_at(old, NOW + LIFE).check_read(awaited), Ok(()));
}

#[test]
fn an_answer_that_comes_after_that_to_a_later_read_changes_nothing() {
    let mut freshness = known();
    let (first, second) = (freshness.begin_read(NOW + 1), freshness.begin_read(NOW + 2));
    assert!(freshness.answered(second, true));
    assert!(!freshness.answered(first, false));
    assert_eq!((freshness.checked_at(), needs_read(&freshness, NOW + 2)), (NOW + 2, Ok(false)));
    // In order both are applied.
    let (first, second) = (freshness.begin_read(NOW + 3), freshness.begin_read(NOW + 4));
    assert!(freshness.answered(first, true) && freshness.answered(second, true));
    assert_eq!(freshness.checked_at(), NOW + 4);
}

#[test]
fn a_change_of_the_tier_is_not_undone_by_a_read_that_began_before_it() {
    let mut freshness = known();
    let before = freshness.begin_read(NOW + 1);
    freshness.tier_applied();
    freshness.tier_applied();
    assert!(!freshness.answered(before, true));
    let after = freshness.begin_read(NOW + 2);
    assert!(freshness.answered(after, true));
    assert_eq!(freshness.checked_at(), NOW + 2);
}

#[test]
fn the_first_answer_after_a_change_of_the_tier_is_one_to_wait_for() {
    let mut freshness = known();
    freshness.tier_applied();
    let awaited = freshness.prepare(true, NOW).unwrap().unwrap();
    let read = freshness.begin_read(NOW);
    assert!(freshness.answered(read, true));
    assert_eq!(freshness.check_read(awaited), Ok(()));
}

#[test]
fn storage_decides_whether_there_is_a_profile() {
    let mut freshness = ProfileFreshness::default();
    freshness.loaded(true, NOW);
    assert_eq!((freshness.call(false, NOW), freshness.checked_at()), (Readiness::Ready, NOW));
    freshness.loaded(false, NOW);
    assert_eq!(freshness, ProfileFreshness { checked_at: NOW, ..ProfileFreshness::default() });
    // D1's answer still holds.
    let read = freshness.begin_read(NOW);
    assert!(freshness.answered(read, false));
    freshness.loaded(false, NOW + 1);
    assert_eq!(needs_read(&freshness, NOW), Ok(false));
}

#[test]
fn errors_name_their_cause() {
    let texts = [ProfileUnavailable::Paused, ProfileUnavailable::Contradicted, ProfileUnavailable::NeverRead]
        .map(|error| error.to_string());
    let expected = ["from D1 a moment ago", "from D1, which had the key a moment ago", "from D1, and none is stored"]
        .map(|rest| format!("the profile could not be read {rest}"));
    assert_eq!(texts, expected);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many milliseconds pass.
    Pass(u64),
    /// The key is called; a read that it waits for succeeds or fails after so many milliseconds.
    Call { is_found: bool, fails: bool, takes: u64 },
    /// The read beside calls ends.
    EndBeside { fails: bool },
    /// The row in D1 is changed by hand.
    ChangeByHand,
    /// The tier is changed in D1, and the object applies the change.
    ChangeTier,
    /// The object loses its memory.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..20_000).prop_map(Step::Pass),
        1 => prop_oneof![Just(RENEWAL), Just(LIFE), Just(RETRY), Just(FIRST_RETRY)].prop_map(Step::Pass),
        8 => (any::<bool>(), any::<bool>(), 0u64..3_000)
            .prop_map(|(is_found, fails, takes)| Step::Call { is_found, fails, takes }),
        4 => any::<bool>().prop_map(|fails| Step::EndBeside { fails }),
        2 => Just(Step::ChangeByHand),
        2 => Just(Step::ChangeTier),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..120)
}

/// An object, its storage and D1. Rows of D1 are numbers that grow.
struct Run {
    freshness: ProfileFreshness,
    now: u64,
    /// D1's row, and when each came to be.
    changed_at: Vec<u64>,
    /// The row that memory and storage hold.
    held: Option<usize>,
    beside: Option<(ProfileRead, usize)>,
    /// When the last read that failed began.
    failed_at: Option<u64>,
}

impl Run {
    fn row(&self) -> usize {
        self.changed_at.len() - 1
    }

    fn end(&mut self, (read, row): (ProfileRead, usize), fails: bool) -> Result<(), TestCaseError> {
        if fails {
            self.freshness.failed(read);
            self.failed_at = Some(read.began_at);
        } else if self.freshness.answered(read, true) {
            prop_assert!(self.held.is_none_or(|held| held <= row), "an older row replaces a newer one");
            self.held = Some(row);
        } else {
            prop_assert!(self.held.is_some_and(|held| held >= row), "a newer row is ignored");
        }
        Ok(())
    }

    fn call(&mut self, is_found: bool, fails: bool, takes: u64) -> Result<(), TestCaseError> {
        // The newest row alone has the secret that is found.
        let is_contradicted = is_found && self.held != Some(self.row());
        match self.freshness.call(is_contradicted, self.now) {
            Readiness::Ready => return self.judge(is_contradicted),
            Readiness::ReadyAndRead => {
                prop_assert!(self.beside.is_none(), "two reads go beside calls");
                self.beside = Some((self.freshness.begin_read(self.now), self.row()));
                return self.judge(is_contradicted);
            }
            Readiness::NotReady => {}
        }
        let since_failure = self.failed_at.map(|at| self.now - at);
        let pause = if self.held.is_some() { RETRY } else { FIRST_RETRY };
        match self.freshness.prepare(is_contradicted, self.now) {
            Ok(None) => self.judge(is_contradicted),
            Ok(Some(awaited)) => {
                prop_assert!(
                    is_contradicted || since_failure.is_none_or(|since| since >= pause),
                    "D1 is read too soon"
                );
                let read = (self.freshness.begin_read(self.now), self.row());
                self.now += takes;
                self.end(read, fails)?;
                if self.freshness.check_read(awaited).is_ok() {
                    return self.judge(is_contradicted);
                }
                prop_assert!(fails && (is_contradicted || self.held.is_none()));
                Ok(())
            }
            Err(_) => {
                prop_assert!(self.held.is_none() && since_failure.is_some_and(|since| since < pause));
                Ok(())
            }
        }
    }

    /// A call is judged with the row that is held.
    fn judge(&self, is_contradicted: bool) -> Result<(), TestCaseError> {
        let Some(held) = self.held else { return Err(TestCaseError::fail("there is nothing to judge with")) };
        prop_assert!(!is_contradicted || held == self.row(), "a secret that D1 has is refused");
        let replaced_at = self.changed_at.get(held + 1);
        let is_paused = self.failed_at.is_some_and(|at| self.now - at < RETRY + 3_000);
        // A read takes 3 s at most.
        let is_old = replaced_at.is_some_and(|at| self.now - at >= LIFE + 3_000);
        prop_assert!(is_paused || !is_old, "a change by hand is not in force in time");
        Ok(())
    }
}

proptest! {
    #[test]
    fn changes_are_in_force_in_time_and_never_undone(steps in steps()) {
        let freshness = ProfileFreshness::default();
        let mut run = Run { freshness, now: NOW, changed_at: vec![NOW], held: None, beside: None, failed_at: None };
        for step in steps {
            match step {
                Step::Pass(milliseconds) => run.now += milliseconds,
                Step::Call { is_found, fails, takes } => run.call(is_found, fails, takes)?,
                Step::EndBeside { fails } => {
                    if let Some(read) = run.beside.take() {
                        run.end(read, fails)?;
                        run.freshness.read_beside_ended();
                    }
                }
                Step::ChangeByHand => run.changed_at.push(run.now),
                Step::ChangeTier => {
                    run.changed_at.push(run.now);
                    if run.held.is_some() {
                        run.held = Some(run.row());
                        run.freshness.tier_applied();
                    }
                }
                Step::Crash => {
                    let checked_at = run.freshness.checked_at();
                    run.freshness = ProfileFreshness::default();
                    run.freshness.loaded(run.held.is_some(), checked_at);
                    (run.beside, run.failed_at) = (None, None);
                }
            }
        }
    }
}
