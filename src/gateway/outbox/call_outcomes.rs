//! Outcomes of calls that their objects do not have yet.
//!
//! An object writes no row for outcomes that arrive without a call, and may lose them. So they are
//! sent again with the next request about the key. The object records each outcome once.

use crate::gateway::outbox::delivery_timer::DeliveryTimer;
use crate::metering::call_outcome::CallOutcome;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

/// Maximum number of outcomes that are kept per key. Beyond it the oldest are dropped.
pub const OUTCOMES_OF_KEY: usize = 256;
/// Maximum number of keys with outcomes. Beyond it those that were added first are dropped.
pub const KEYS_WITH_OUTCOMES: usize = 4_096;

/// The outcomes of one isolate. Times are milliseconds on its clock.
#[derive(Debug)]
pub struct PendingOutcomes {
    keys: HashMap<Rc<str>, KeyOutcomes>,
    /// The keys in the order in which they were added.
    order: BTreeMap<u64, Rc<str>>,
    /// Number of keys added so far.
    added: u64,
    key_limit: usize,
    outcome_limit: usize,
}

#[derive(Debug, Default)]
struct KeyOutcomes {
    /// The key's place in the order.
    place: u64,
    outcomes: VecDeque<CallOutcome>,
    /// Number of the newest ones that have not been delivered alone. Exceeds their count if the
    /// oldest were dropped.
    unsent: usize,
    timer: DeliveryTimer,
}

impl Default for PendingOutcomes {
    fn default() -> Self {
        Self::with_limits(KEYS_WITH_OUTCOMES, OUTCOMES_OF_KEY)
    }
}

impl PendingOutcomes {
    /// An empty one for at most so many keys and so many outcomes of each.
    #[must_use]
    pub fn with_limits(key_limit: usize, outcome_limit: usize) -> Self {
        Self { keys: HashMap::new(), order: BTreeMap::new(), added: 0, key_limit, outcome_limit }
    }

    /// Number of keys that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds an outcome. Returns whether a timer must be set that delivers it.
    pub fn add(&mut self, id: &str, now: u64, outcome: CallOutcome) -> bool {
        let limit = self.outcome_limit;
        let Some(key) = self.key(id) else { return false };
        key.outcomes.push_back(outcome);
        key.unsent += 1;
        key.trim(limit);
        key.timer.start(now)
    }

    /// All outcomes of the key, for the request that carries them.
    pub fn take(&mut self, id: &str) -> Vec<CallOutcome> {
        let Some(key) = self.keys.get_mut(id) else { return Vec::new() };
        key.unsent = 0;
        let outcomes = std::mem::take(&mut key.outcomes);
        self.forget_if_idle(id);
        outcomes.into()
    }

    /// The request that carried these has failed: the next one carries them.
    pub fn put_back(&mut self, id: &str, outcomes: Vec<CallOutcome>) {
        if outcomes.is_empty() {
            return;
        }
        let limit = self.outcome_limit;
        let Some(key) = self.key(id) else { return };
        for outcome in outcomes.into_iter().rev() {
            key.outcomes.push_front(outcome);
        }
        key.trim(limit);
    }

    /// The timer of a key has ended: the outcomes to deliver alone. They stay here for the next
    /// request.
    pub fn unsent(&mut self, id: &str) -> Vec<CallOutcome> {
        let Some(key) = self.keys.get_mut(id) else { return Vec::new() };
        key.timer.end();
        let sent = key.outcomes.len().saturating_sub(std::mem::take(&mut key.unsent));
        let unsent = key.outcomes.iter().skip(sent).copied().collect();
        self.forget_if_idle(id);
        unsent
    }

    /// The key's outcomes. Makes room for them if it has none.
    fn key(&mut self, id: &str) -> Option<&mut KeyOutcomes> {
        if !self.keys.contains_key(id) {
            if self.keys.len() >= self.key_limit
                && let Some((_, oldest)) = self.order.pop_first()
            {
                self.keys.remove(&oldest);
            }
            self.added += 1;
            let name: Rc<str> = id.into();
            self.order.insert(self.added, Rc::clone(&name));
            self.keys.insert(name, KeyOutcomes { place: self.added, ..KeyOutcomes::default() });
        }
        self.keys.get_mut(id)
    }

    fn forget_if_idle(&mut self, id: &str) {
        let Some(key) = self.keys.get(id) else { return };
        if key.outcomes.is_empty() && !key.timer.is_set() {
            self.order.remove(&key.place);
            self.keys.remove(id);
        }
    }
}

impl KeyOutcomes {
    fn trim(&mut self, limit: usize) {
        let surplus = self.outcomes.len().saturating_sub(limit);
        self.outcomes.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u64; 0] = [];

    fn outcome(nonce: u64) -> CallOutcome {
        CallOutcome { nonce, status: 200, duration_ms: 3, used: None, cost: None }
    }

    fn add(pending: &mut PendingOutcomes, id: &str, nonces: std::ops::Range<u64>) {
        for nonce in nonces {
            pending.add(id, 0, outcome(nonce));
        }
    }

    fn nonces(outcomes: Vec<CallOutcome>) -> Vec<u64> {
        outcomes.into_iter().map(|outcome| outcome.nonce).collect()
    }

    #[test]
    fn outcomes_delivered_alone_are_sent_again_with_the_next_request() {
        let mut pending = PendingOutcomes::default();
        assert!(pending.add("k", 0, outcome(1)), "the first one sets a timer");
        assert!(!pending.add("k", 999, outcome(2)));
        assert_eq!((pending.len(), pending.is_empty()), (1, false));
        assert_eq!(pending.unsent("k"), [outcome(1), outcome(2)]);
        assert!(pending.add("k", 1000, outcome(3)), "its timer has ended");
        assert_eq!(nonces(pending.unsent("k")), [3]);
        assert_eq!(nonces(pending.unsent("k")), NONE);
        assert_eq!(nonces(pending.take("k")), [1, 2, 3]);
        assert_eq!(nonces(pending.take("k")), NONE);
        assert!(pending.is_empty() && pending.order.is_empty());
    }

    #[test]
    fn outcomes_that_a_request_carries_are_not_delivered_alone() {
        let mut pending = PendingOutcomes::default();
        add(&mut pending, "k", 1..3);
        assert_eq!(nonces(pending.take("k")), [1, 2]);
        assert!(!pending.add("k", 500, outcome(3)), "the timer is still set");
        assert_eq!(nonces(pending.unsent("k")), [3]);
        assert_eq!(nonces(pending.take("other")), NONE);
        assert_eq!(nonces(pending.unsent("other")), NONE);
    }

    #[test]
    fn outcomes_of_a_lost_request_return_in_their_order() {
        let mut pending = PendingOutcomes::default();
        add(&mut pending, "k", 1..3);
        let taken = pending.take("k");
        add(&mut pending, "k", 3..4);
        pending.put_back("k", taken);
        assert_eq!(nonces(pending.unsent("k")), [3]);
        let taken = pending.take("k");
        assert_eq!(nonces(taken.clone()), [1, 2, 3]);
        pending.put_back("k", taken);
        pending.put_back("other", Vec::new());
        assert_eq!((pending.len(), pending.order.len()), (1, 1));
        assert_eq!(nonces(pending.take("k")), [1, 2, 3]);
    }

    #[test]
    fn the_newest_outcomes_of_a_key_are_kept() {
        let last = OUTCOMES_OF_KEY as u64;
        let mut pending = PendingOutcomes::default();
        add(&mut pending, "k", 0..last + 2);
        assert_eq!(nonces(pending.unsent("k")), (2..last + 2).collect::<Vec<_>>());
        let taken = pending.take("k");
        add(&mut pending, "k", 1000..1002);
        pending.put_back("k", taken);
        let expected: Vec<u64> = (4..last + 2).chain(1000..1002).collect();
        assert_eq!(nonces(pending.take("k")), expected);
    }

    #[test]
    fn the_newest_keys_are_kept_whatever_fails() {
        let mut pending = PendingOutcomes::default();
        let ids: Vec<String> = (0..=KEYS_WITH_OUTCOMES).map(|n| n.to_string()).collect();
        for id in &ids {
            pending.add(id, 0, outcome(1));
        }
        assert_eq!((pending.len(), pending.order.len()), (KEYS_WITH_OUTCOMES, KEYS_WITH_OUTCOMES));
        assert_eq!(nonces(pending.take("0")), NONE);
        assert_eq!(nonces(pending.unsent("0")), NONE);
        assert_eq!(nonces(pending.unsent("1")), [1]);
        // A key without outcomes or a timer counts as new when it is added again.
        assert_eq!(nonces(pending.take("1")), [1]);
        pending.put_back("1", vec![outcome(2)]);
        // Failed requests of keys that have been dropped meanwhile.
        for id in 0..KEYS_WITH_OUTCOMES - 1 {
            pending.put_back(&format!("late-{id}"), vec![outcome(3)]);
            assert_eq!((pending.len(), pending.order.len()), (KEYS_WITH_OUTCOMES, KEYS_WITH_OUTCOMES));
        }
        assert_eq!(nonces(pending.take("1")), [2]);
        assert_eq!(nonces(pending.take(&ids[KEYS_WITH_OUTCOMES])), NONE);
    }
}
