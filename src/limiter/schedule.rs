//! The policies of a key over time.

use std::fmt;

use crate::limiter::policy::Policy;
use crate::time::UnixMicros;

/// The policies that hold from one time to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// In the order of the response fields.
    pub policies: Vec<Policy>,
    /// When the next stage begins, if one is scheduled.
    pub until: Option<UnixMicros>,
}

/// All scheduled policies.
pub trait Timetable {
    /// The policies that hold at `t`.
    fn at(&self, t: UnixMicros) -> Stage;
}

/// The current policies, and the timetable of past and future ones. A slice of policies converts
/// into a schedule that never changes.
#[derive(Clone, Copy)]
pub struct Schedule<'a> {
    pub(crate) now: &'a [Policy],
    pub(crate) since: UnixMicros,
    pub(crate) until: Option<UnixMicros>,
    timetable: Option<&'a dyn Timetable>,
}

impl<'a> Schedule<'a> {
    /// A schedule whose `policies` hold now: since `since`, and until `until` if a change is
    /// scheduled. `timetable` must return the same stage for the current time.
    pub fn new(
        policies: &'a [Policy],
        since: UnixMicros,
        until: Option<UnixMicros>,
        timetable: &'a dyn Timetable,
    ) -> Self {
        Self { now: policies, since, until, timetable: Some(timetable) }
    }

    /// The current policies.
    #[must_use]
    pub const fn policies(&self) -> &'a [Policy] {
        self.now
    }

    /// When the current policies are replaced, if a change is scheduled.
    #[must_use]
    pub const fn until(&self) -> Option<UnixMicros> {
        self.until
    }

    /// The stages that begin after `from` and not after `to`, with their beginnings.
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
            // Stops at a timetable that does not advance, which would never end.
            next = stage.until.filter(|until| *until > begin);
            Some((begin, stage))
        })
    }

    /// The time at which `policy`, a current one, no longer holds, or `t` if that is earlier.
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
