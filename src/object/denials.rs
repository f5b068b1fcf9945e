//! When counts that no call waits for are written: denials, and notes in the audit log.
//!
//! There is no timer: a pending one would keep the object from hibernating, and its duration
//! billed. A denial is written at once while there are few of them. When there are many, they stay
//! in memory until the next row, whatever that is written for. If no row is written, an alarm comes
//! before an idle object loses its memory. It is brought forward from its work, if it is set for
//! any. That takes two settings of the alarm, a request and the row: as much as three rows.

/// One row may be written for denials alone in this time, in milliseconds.
pub const SPACING: u64 = 5_000;
/// How many of these rows may follow each other without a pause.
pub const BURST: u64 = 3;
/// How long denials may stay in memory, in milliseconds. An idle object hibernates after 10 s.
pub const PATIENCE: u64 = 8_000;
/// A key whose last denial is less old, in milliseconds, is expected to be denied again.
const LATELY: u64 = 3_000;

/// What to do about counts that are in memory alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    /// Nothing: a row or an alarm comes in time.
    Wait,
    /// Write a row.
    Write,
    /// Set the alarm to this time, in milliseconds since 1970.
    SetAlarm(u64),
}

/// What an alarm has come for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Its work: see [`alarm_schedule`](crate::object::alarm_schedule).
    Work,
    /// Denials alone.
    Counts {
        /// The alarm is first set to this time, in milliseconds since 1970.
        alarm: u64,
        /// Whether a row is written then.
        write: bool,
    },
}

/// The state of one object. All times are in milliseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Denials {
    /// From when on [`BURST`] rows may be written.
    full_at: u64,
    /// When something was last counted.
    last_count: u64,
    /// When the alarm is due for its work, if it was brought forward.
    work_at: Option<u64>,
}

impl Denials {
    /// Something was counted at `now` that is in memory alone. The alarm is set to `alarm`.
    pub fn counted(&mut self, alarm: Option<u64>, now: u64) -> Later {
        self.last_count = now;
        let latest = now.saturating_add(PATIENCE);
        if alarm.is_some_and(|at| at <= latest) {
            return Later::Wait;
        }
        if self.has_room(now) {
            self.note_row(now);
            return Later::Write;
        }
        // An alarm without a time to return to does its work when it comes.
        self.work_at = alarm;
        Later::SetAlarm(latest)
    }

    /// The alarm has come. `is_unwritten` if there are counts in memory alone.
    pub fn woken(&mut self, is_unwritten: bool, now: u64) -> Wake {
        let Some(work_at) = self.work_at.take().filter(|at| *at > now) else { return Wake::Work };
        let latest = now.saturating_add(PATIENCE);
        if !is_unwritten || work_at <= latest {
            // The work writes all counts.
            return Wake::Counts { alarm: work_at, write: false };
        }
        self.note_row(now);
        if now.checked_sub(self.last_count).is_some_and(|elapsed| elapsed < LATELY) {
            self.work_at = Some(work_at);
            return Wake::Counts { alarm: latest, write: true };
        }
        Wake::Counts { alarm: work_at, write: true }
    }

    /// The alarm was set for its work, or deleted.
    pub const fn alarm_is_for_work(&mut self) {
        self.work_at = None;
    }

    /// A later `full_at` than rows can lead to was set by a clock that was ahead.
    fn has_room(&self, now: u64) -> bool {
        let wait = self.full_at.saturating_sub(now);
        wait <= (BURST - 1) * SPACING || wait > BURST * SPACING
    }

    fn note_row(&mut self, now: u64) {
        let wait = self.full_at.saturating_sub(now);
        let wait = if wait > BURST * SPACING { 0 } else { wait };
        self.full_at = now.saturating_add(wait).saturating_add(SPACING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashSet, VecDeque};

    const SECOND: u64 = 1_000;
    /// When an alarm has to come for its work, after the first row.
    const WORK: u64 = 25 * SECOND;
    /// After so long without an event an object loses its memory.
    const HIBERNATION: u64 = 10 * SECOND;
    /// Seconds that a row takes of the room for rows.
    const ROW: u64 = SPACING / SECOND;
    /// The present. Worlds are moved back to it, so that equal states compare equal.
    const NOW: u64 = 1_000 * SECOND;

    /// An object, its alarm and its storage.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct World {
        denials: Denials,
        alarm: Option<u64>,
        is_unwritten: bool,
        /// The time of the last call, denial or alarm.
        event_at: u64,
        /// When the alarm's work is due, if a row was written since the last.
        due: Option<u64>,
        /// What is left of the rows that may be written for denials alone, in seconds: each takes
        /// five.
        room: u64,
    }

    #[derive(Debug, Clone, Copy)]
    enum Happening {
        Denial,
        Call,
        /// The object's memory is lost without notice.
        Crash,
        /// A second passes. An alarm that is due may come a second late.
        Second {
            is_late: bool,
        },
    }

    impl World {
        fn row(&mut self) {
            self.is_unwritten = false;
            self.due.get_or_insert(NOW + WORK);
            if self.alarm.is_none_or(|at| at > NOW + WORK) {
                self.alarm = Some(NOW + WORK);
                self.denials.alarm_is_for_work();
            }
        }

        fn row_for_denials(&mut self) {
            assert!(self.room >= ROW, "rows follow too closely: {self:#?}");
            self.room -= ROW;
            self.row();
        }

        fn wake(&mut self) {
            self.event_at = NOW;
            match self.denials.woken(self.is_unwritten, NOW) {
                Wake::Work => (self.alarm, self.due, self.is_unwritten) = (None, None, false),
                Wake::Counts { alarm, write } => {
                    assert!(alarm > NOW);
                    self.alarm = Some(alarm);
                    if write {
                        self.row_for_denials();
                    }
                }
            }
        }

        fn after(&self, happening: Happening) -> Self {
            let mut world = self.clone();
            match happening {
                Happening::Denial => {
                    (world.event_at, world.is_unwritten) = (NOW, true);
                    match world.denials.counted(world.alarm, NOW) {
                        Later::Wait => {}
                        Later::Write => world.row_for_denials(),
                        Later::SetAlarm(at) => world.alarm = Some(at),
                    }
                }
                Happening::Call => {
                    world.event_at = NOW;
                    world.row();
                }
                Happening::Crash => {
                    (world.denials, world.is_unwritten, world.room) = (Denials::default(), false, BURST * ROW);
                }
                Happening::Second { is_late } => {
                    world.rebase(SECOND);
                    if world.alarm.is_some_and(|at| at + SECOND * u64::from(is_late) <= NOW) {
                        world.wake();
                    }
                    if world.event_at + HIBERNATION <= NOW {
                        assert!(!world.is_unwritten, "denials are lost: {self:#?}");
                        (world.denials, world.room) = (Denials::default(), BURST * ROW);
                    }
                    assert!(world.due.is_none_or(|due| due + SECOND >= NOW), "the work is late: {self:#?}");
                    assert!(world.due.is_none() || world.alarm.is_some(), "the work has no alarm: {self:#?}");
                }
            }
            world
        }

        fn rebase(&mut self, elapsed: u64) {
            let Denials { full_at, last_count, work_at } = &mut self.denials;
            let back = |at: &mut u64| *at -= elapsed;
            [&mut self.alarm, &mut self.due, work_at].into_iter().flatten().for_each(back);
            // Older times make no difference.
            *full_at = full_at.saturating_sub(elapsed).max(NOW - SECOND);
            *last_count = last_count.saturating_sub(elapsed).max(NOW - HIBERNATION);
            self.room = (self.room + elapsed / SECOND).min(BURST * ROW);
            self.event_at = (self.event_at - elapsed).max(NOW - HIBERNATION);
        }
    }

    #[test]
    fn no_denial_is_lost_no_row_follows_too_closely_and_no_work_is_late() {
        let start = World {
            denials: Denials::default(),
            alarm: None,
            is_unwritten: false,
            event_at: NOW,
            due: None,
            room: BURST * ROW,
        };
        let mut seen = HashSet::from([start.clone()]);
        let mut next = VecDeque::from([start]);
        let seconds = [false, true].map(|is_late| Happening::Second { is_late });
        let happenings = [Happening::Denial, Happening::Call, Happening::Crash].into_iter().chain(seconds);
        while let Some(world) = next.pop_front() {
            for happening in happenings.clone() {
                let after = world.after(happening);
                if seen.insert(after.clone()) {
                    next.push_back(after);
                }
            }
        }
        assert!(seen.len() > 1_000, "{}", seen.len());
    }

    /// What follows from denials at these seconds, with an alarm that is due for its work after a
    /// minute: `w` is a row, `a` a setting of the alarm.
    fn done(seconds: impl IntoIterator<Item = u64>) -> String {
        let mut denials = Denials::default();
        let (mut alarm, mut is_unwritten, mut text) = (60 * SECOND, false, String::new());
        let mut seconds = seconds.into_iter().peekable();
        for second in 0..60 {
            let now = second * SECOND;
            if alarm <= now {
                let Wake::Counts { alarm: next, write } = denials.woken(is_unwritten, now) else { panic!("{second}") };
                alarm = next;
                is_unwritten &= !write;
                text += if write { "aw " } else { "a " };
            }
            while seconds.next_if_eq(&second).is_some() {
                is_unwritten = true;
                match denials.counted(Some(alarm), now) {
                    Later::Wait => text += "-",
                    Later::Write => {
                        is_unwritten = false;
                        text += "w";
                    }
                    Later::SetAlarm(at) => {
                        alarm = at;
                        text += "a";
                    }
                }
            }
        }
        assert_eq!(denials.woken(is_unwritten, alarm), Wake::Work, "{text}");
        text
    }

    #[test]
    fn a_key_that_is_denied_every_five_seconds_sets_no_alarm() {
        // The last two wait for the work.
        assert_eq!(done((0..60).step_by(5)), "w".repeat(11) + "-");
        // An isolate's report comes with its next request, or just before.
        assert_eq!(done((0..60).step_by(10).flat_map(|second| [second, second])), "w".repeat(12));
    }

    #[test]
    fn a_few_denials_are_a_row_each_and_a_burst_is_one_more_with_two_alarms() {
        assert_eq!(done([3, 3, 4]), "www");
        assert_eq!(done([3, 3, 3, 3, 3, 3, 4, 6]), "wwwa----aw ");
        assert_eq!(done([3, 3, 3, 3, 3, 3, 4, 6, 25]), "wwwa----aw w");
    }

    #[test]
    fn a_flood_writes_with_an_alarm_every_eight_seconds() {
        let text = done((0..60).flat_map(|second| [second; 3]));
        let count = |what| text.matches(what).count();
        assert_eq!((count("w"), count("a")), (9, 8), "{text}");
    }

    #[test]
    fn the_work_of_an_alarm_is_not_brought_forward_when_it_comes_in_time() {
        let mut denials = Denials::default();
        assert_eq!(denials.counted(Some(NOW + PATIENCE), NOW), Later::Wait);
        assert_eq!(denials.woken(true, NOW + PATIENCE), Wake::Work);
        for _ in 0..BURST {
            assert_eq!(denials.counted(Some(NOW + PATIENCE + 1), NOW), Later::Write);
        }
        assert_eq!(denials.counted(Some(NOW + PATIENCE + 1), NOW), Later::SetAlarm(NOW + PATIENCE));
        // The work is a moment later, and writes.
        let wake = Wake::Counts { alarm: NOW + PATIENCE + 1, write: false };
        assert_eq!(denials.clone().woken(true, NOW + PATIENCE), wake);
        // An alarm that is set for work meanwhile does it.
        denials.alarm_is_for_work();
        assert_eq!(denials.woken(true, NOW + 1), Wake::Work);
    }

    #[test]
    fn an_alarm_returns_to_its_work_when_denials_end() {
        let work = NOW + 60 * SECOND;
        let mut denials = Denials::default();
        let mut count = |now| (0..=BURST).map(|_| denials.counted(Some(work), now)).last();
        assert_eq!(count(NOW), Some(Later::SetAlarm(NOW + PATIENCE)));
        let mut quiet = denials;
        assert_eq!(quiet.woken(true, NOW + LATELY), Wake::Counts { alarm: work, write: true });
        assert_eq!(quiet.woken(true, work - 1), Wake::Work);
        let mut busy = denials;
        let now = NOW + LATELY - 1;
        assert_eq!(busy.woken(true, now), Wake::Counts { alarm: now + PATIENCE, write: true });
        assert_eq!(busy.woken(false, now + PATIENCE), Wake::Counts { alarm: work, write: false });
    }

    #[test]
    fn a_clock_that_steps_back_does_not_stop_rows() {
        let mut denials = Denials::default();
        for _ in 0..BURST {
            assert_eq!(denials.counted(None, NOW), Later::Write);
        }
        assert_eq!(denials.counted(None, NOW + SPACING - 1), Later::SetAlarm(NOW + SPACING - 1 + PATIENCE));
        assert_eq!(denials.counted(None, NOW + SPACING), Later::Write);
        for _ in 0..BURST {
            assert_eq!(denials.counted(None, NOW - 60 * SECOND), Later::Write);
        }
        assert!(matches!(denials.counted(None, NOW - 60 * SECOND), Later::SetAlarm(_)));
    }
}
