//! Denials that an isolate gives by itself, without asking the key's object.
//!
//! A denial stays true for a while: no policy frees what this cost needs before its wait is over. So the first denial of a key is
//! kept, and until then answers every call of the key that costs as much or more. It is never kept too long: its time counts
//! from before the object was asked, so it ends no later than the object's own wait. What it tells the client counts from after
//! the object has answered, so a client that waits as long as it is told is not sent away a second time. It also ends when any of the
//! key's windows does, because its fields would be wrong from then on, and at the cap, which bounds how long it outlives an upgrade.

use crate::key::same_hash;
use crate::protocol::{Call, Known, Outcome};
use std::collections::HashMap;
use std::ops::Range;

/// Keys at most for which an isolate keeps a denial: about 5 MB.
pub const CAPACITY: usize = 10_000;
/// How often a full cache looks for what is over, in milliseconds.
const SWEEP_INTERVAL: u64 = 1_000;

/// The denials of one isolate. All times are milliseconds on the isolate's own clock, of which only differences count.
#[derive(Debug, Default)]
pub struct DenyCache {
    denials: HashMap<String, Denial>,
    swept_at: u64,
}

/// A denial and how long it is true.
#[derive(Debug)]
pub struct Denial {
    secret_hash: String,
    /// Method and path, if only they are known to cost so much. No call costs less than 1, so a denial of that cost is for all.
    only_for: Option<(String, String)>,
    known: Known,
    answered_at: u64,
    ends_at: u64,
}

impl DenyCache {
    /// Keeps a denial that the object gave to a question asked at the start of `asked` and answered at its end, for at most
    /// `cap` milliseconds. Other answers are not kept.
    pub fn keep(&mut self, call: Call<'_>, known: &Known, asked: Range<u64>, cap: u64) {
        let Outcome::Denied { retry_after, cost, .. } = known.outcome else { return };
        let resets = known.standings.iter().map(|standing| standing.reset_after).filter(|&reset| reset > 0);
        let life = resets.chain(known.changes_after).chain([retry_after, cap]).min().unwrap_or_default();
        // A clock that stepped back in between tells nothing about how long the answer took.
        if life == 0 || asked.end < asked.start || !self.has_room(call.id, asked.end) {
            return;
        }
        let denial = Denial {
            secret_hash: call.secret_hash.to_owned(),
            only_for: (cost > 1).then(|| (call.method.to_owned(), call.path.to_owned())),
            known: known.clone(),
            answered_at: asked.end,
            ends_at: asked.start.saturating_add(life),
        };
        self.denials.insert(call.id.to_owned(), denial);
    }

    /// Forgets the denial of a key, or all of them.
    pub fn forget(&mut self, id: Option<&str>) {
        match id {
            Some(id) => drop(self.denials.remove(id)),
            None => self.denials.clear(),
        }
    }

    fn has_room(&mut self, id: &str, now: u64) -> bool {
        if self.denials.len() < CAPACITY || self.denials.contains_key(id) {
            return true;
        }
        if now.abs_diff(self.swept_at) >= SWEEP_INTERVAL {
            self.swept_at = now;
            self.denials.retain(|_, denial| denial.is_true_at(now));
        }
        self.denials.len() < CAPACITY
    }

    /// The denial that holds for this call at `now`.
    pub fn find(&mut self, call: Call<'_>, now: u64) -> Option<&Denial> {
        if !self.denials.get(call.id)?.is_true_at(now) {
            self.denials.remove(call.id);
        }
        self.denials.get(call.id).filter(|denial| denial.is_for(call))
    }
}

impl Denial {
    /// What it says at `now`, counted down.
    #[must_use]
    pub fn at(&self, now: u64) -> Known {
        self.known.later(now.saturating_sub(self.answered_at))
    }

    /// How many milliseconds from `now` it says the same in whole seconds.
    #[must_use]
    pub fn unchanged_for(&self, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.answered_at);
        let Outcome::Denied { retry_after, .. } = self.known.outcome else { return 0 };
        let resets = self.known.standings.iter().map(|standing| standing.reset_after);
        // Rounded up to seconds, a wait changes when it has shrunk to a whole number of them.
        resets
            .chain([retry_after])
            .map(|wait| wait.saturating_sub(elapsed).saturating_sub(1) % 1000 + 1)
            .min()
            .unwrap_or(0)
    }

    /// A clock before the answer has stepped back: then nothing is known about how much time is left.
    const fn is_true_at(&self, now: u64) -> bool {
        self.answered_at <= now && now < self.ends_at
    }

    /// Another secret of the same key is the object's to judge; another route may cost less and fit.
    fn is_for(&self, call: Call<'_>) -> bool {
        same_hash(call.secret_hash, &self.secret_hash)
            && self.only_for.as_ref().is_none_or(|(method, path)| method == call.method && path == call.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Answer;

    const CALL: Call<'_> = Call { id: "k", secret_hash: "h", method: "GET", path: "/a" };

    fn denied(line: &str) -> Known {
        match Answer::parse(line) {
            Some(Answer::Known(known)) => known,
            other => panic!("{other:?}"),
        }
    }

    fn minute_denied(cost: u64) -> Known {
        denied(&format!("1 denied:8500:{cost}:0 free 1000000 minute:rm:10:60:0:8500 month:rM:1000:2592000:990:9000000"))
    }

    fn kept(cost: u64) -> DenyCache {
        let mut cache = DenyCache::default();
        cache.keep(CALL, &minute_denied(cost), 1_000..1_200, 60_000);
        cache
    }

    fn waits(known: &Known) -> (u64, u64, u64) {
        match known.outcome {
            Outcome::Denied { retry_after, .. } => {
                (retry_after, known.standings[0].reset_after, known.standings[1].reset_after)
            }
            _ => panic!("{known:?}"),
        }
    }

    #[test]
    fn ends_with_the_wait_counted_from_before_the_question() {
        let mut cache = kept(1);
        assert!(cache.find(CALL, 1_200).is_some());
        assert!(cache.find(CALL, 9_499).is_some());
        assert!(cache.find(CALL, 9_500).is_none());
        assert!(cache.find(CALL, 1_200).is_none(), "what is over is forgotten");
    }

    #[test]
    fn tells_waits_counted_from_after_the_answer() {
        let mut cache = kept(1);
        assert_eq!(waits(&cache.find(CALL, 1_200).unwrap().at(1_200)), (8_500, 8_500, 9_000_000));
        let later = cache.find(CALL, 4_700).unwrap().at(4_700);
        assert_eq!(waits(&later), (5_000, 5_000, 8_996_500));
        assert_eq!(later.now, 1_003_500, "so that an absolute reset stays where it was");
        assert_eq!(later.violated(), ["minute"]);
    }

    #[test]
    fn knows_how_long_its_words_stay_the_same() {
        let mut cache = kept(1);
        let denial = cache.find(CALL, 1_200).unwrap();
        // 8.5 s, 8.5 s and 9,000 s are left at 1,200.
        for (now, unchanged) in [(1_200, 500), (1_699, 1), (1_700, 500), (2_199, 1), (2_200, 500)] {
            assert_eq!(denial.unchanged_for(now), unchanged, "{now}");
            let words = |at: u64| {
                let known = denial.at(at);
                let waits = waits(&known);
                (waits.0.div_ceil(1000), waits.1.div_ceil(1000), waits.2.div_ceil(1000))
            };
            assert_eq!(words(now), words(now + unchanged - 1));
            assert_ne!(words(now), words(now + unchanged));
        }
    }

    #[test]
    fn is_only_for_the_same_key_and_never_for_a_call_that_may_cost_less() {
        let others = [
            Call { secret_hash: "other", ..CALL },
            Call { id: "l", ..CALL },
            Call { method: "POST", ..CALL },
            Call { path: "/b", ..CALL },
        ];
        let found = |cost, call| kept(cost).find(call, 1_300).is_some();
        assert_eq!(others.map(|call| found(1, call)), [false, false, true, true]);
        assert_eq!(others.map(|call| found(2, call)), [false; 4]);
        assert!(found(2, CALL));
    }

    #[test]
    fn ends_at_the_cap_and_when_any_window_does() {
        let mut cache = DenyCache::default();
        cache.keep(CALL, &minute_denied(1), 0..0, 3_000);
        assert!(cache.find(CALL, 2_999).is_some());
        assert!(cache.find(CALL, 3_000).is_none());
        let month = denied("1 denied:9000000:1:1 free 0 minute:rm:10:60:3:700 month:rM:10:2592000:0:9000000");
        cache.keep(CALL, &month, 0..0, 10_000);
        assert!(cache.find(CALL, 699).is_some());
        assert!(cache.find(CALL, 700).is_none());
        cache.keep(CALL, &month, 0..0, 0);
        assert!(cache.find(CALL, 0).is_none(), "a cap of 0 switches it off");
        let changing = denied("1 denied:8500:1:0 free 0 minute:rm:10:60:0:8500:500 month:rM:10:2592000:9:9000000");
        cache.keep(CALL, &changing, 0..100, 10_000);
        assert_eq!(cache.find(CALL, 300).unwrap().at(300).changes_after, Some(300));
        assert!(cache.find(CALL, 499).is_some());
        assert!(cache.find(CALL, 500).is_none(), "other policies hold from then on");
    }

    #[test]
    fn keeps_nothing_but_denials_and_trusts_no_clock_that_steps_back() {
        let mut cache = DenyCache::default();
        cache.keep(CALL, &denied("1 admitted free 0 minute:rm:10:60:3:700"), 0..0, 10_000);
        assert!(cache.find(CALL, 0).is_none());
        cache.keep(CALL, &minute_denied(1), Range { start: 1_000, end: 999 }, 10_000);
        assert!(cache.find(CALL, 1_000).is_none());
        assert!(kept(1).find(CALL, 1_199).is_none());
    }

    #[test]
    fn holds_a_bounded_number_of_keys() {
        let mut cache = DenyCache::default();
        let known = minute_denied(1);
        for n in 0..CAPACITY + 5 {
            cache.keep(Call { id: &n.to_string(), ..CALL }, &known, 5_000..5_000, 10_000);
        }
        assert_eq!(cache.denials.len(), CAPACITY);
        assert!(cache.find(Call { id: &CAPACITY.to_string(), ..CALL }, 5_001).is_none());
        cache.keep(Call { id: "new", ..CALL }, &known, 20_000..20_000, 10_000);
        assert!(cache.find(Call { id: "new", ..CALL }, 20_001).is_some(), "what is over makes room");
        assert_eq!(cache.denials.len(), 1);
    }
}
