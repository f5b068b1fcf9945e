//! The policies of a key over time.

use std::fmt;

use crate::limiter::policy::Policy;
use crate::time::UnixMicros;

/// The policies that hold from some moment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// In the order in which clients see them.
    pub policies: Vec<Policy>,
    /// When other policies hold, if that is known.
    pub until: Option<UnixMicros>,
}

/// The policies of all times, as far as they are known.
pub trait Timetable {
    /// Those that hold at `t`.
    fn at(&self, t: UnixMicros) -> Stage;
}

/// The policies that hold now, and where those of other times are found. A slice of policies is a
/// schedule that never changes.
#[derive(Clone, Copy)]
pub struct Schedule<'a> {
    pub(crate) now: &'a [Policy],
    pub(crate) since: UnixMicros,
    pub(crate) until: Option<UnixMicros>,
    timetable: Option<&'a dyn Timetable>,
}

impl<'a> Schedule<'a> {
    /// `policies` hold from `since` on, until `until` if that is known. `timetable` must agree for
    /// now.
    pub fn new(
        policies: &'a [Policy],
        since: UnixMicros,
        until: Option<UnixMicros>,
        timetable: &'a dyn Timetable,
    ) -> Self {
        Self { now: policies, since, until, timetable: Some(timetable) }
    }

    /// The policies that hold now.
    #[must_use]
    pub const fn policies(&self) -> &'a [Policy] {
        self.now
    }

    /// When other policies hold, if that is known.
    #[must_use]
    pub const fn until(&self) -> Option<UnixMicros> {
        self.until
    }

    /// The stages that begin after `from` and by `to`, with their beginnings.
    pub(crate) fn stages(
        &self,
        from: UnixMicros,
        to: UnixMicros,
    ) -> impl Iterator<Item = (UnixMicros, Stage)> + use<'a> {
        let timetable = self.timetable;
        let mut next = timetable.and_then(|timetable| timetable.at(from).until);
        std::iter::from_fn(move || {
            let begin = next.filter(|begin| *begin <= to)?;
            let stage = timetable?.at(begin);
            // A timetable that does not go on would never end.
            next = stage.until.filter(|until| *until > begin);
            Some((begin, stage))
        })
    }

    /// When `policy`, which holds now, does not do so any more, if that is before `t`; else `t`.
    pub(crate) fn end_of(&self, policy: &Policy, t: UnixMicros) -> UnixMicros {
        let Some(until) = self.until.filter(|until| *until < t) else { return t };
        let last = UnixMicros::from_micros(until.as_micros().saturating_sub(1));
        let mut stages = self.stages(last, t);
        stages.find(|(_, stage)| !stage.policies.contains(policy)).map_or(t, |(begin, _)| begin)
    }
}

impl fmt::Debug for Schedule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { now, since, until, .. } = self;
        f.debug_struct("Schedule").field("now", now).field("since", since).field("until", until).finish_non_exhaustive()
    }
}

impl<'a> From<&'a [Policy]> for Schedule<'a> {
    fn from(policies: &'a [Policy]) -> Self {
        Self { now: policies, since: UnixMicros::default(), until: None, timetable: None }
    }
}

impl<'a, const N: usize> From<&'a [Policy; N]> for Schedule<'a> {
    fn from(policies: &'a [Policy; N]) -> Self {
        policies.as_slice().into()
    }
}

impl<'a> From<&'a Vec<Policy>> for Schedule<'a> {
    fn from(policies: &'a Vec<Policy>) -> Self {
        policies.as_slice().into()
    }
}
