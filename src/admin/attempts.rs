//! Limits attempts with wrong admin tokens per network, which bounds their reads of D1.
//!
//! `ADMIN_TOKEN` is compared before and is not limited; its length protects it from guessing. An
//! attempt with any other token is counted before D1 is read, so that concurrent attempts are
//! counted too, and given back if the token is valid.
//!
//! A network without attempts left must not lock out valid tokens from the same network. So a token
//! that this isolate has found valid before is not counted, and the first token that is refused
//! makes the isolate read the hashes of the latest tokens, at most once a minute ([`KnownTokens`]).
//! Both only skip the count: D1 is read for every token, so a deleted token is refused at once.

use crate::http::address::{Network, Site};
use std::collections::{HashMap, HashSet};

/// Attempts per network and [`WINDOW`].
pub const ATTEMPTS: u32 = 10;
/// Attempts per IPv6 /48 and [`WINDOW`].
pub const SITE_ATTEMPTS: u32 = 50;
/// Attempts per [`WINDOW`] of all requests without an address together, and of all networks beyond
/// [`CAPACITY`] together.
pub const SHARED_ATTEMPTS: u32 = 100;
/// The length of the window in milliseconds. It starts with the first attempt.
pub const WINDOW: u64 = 60_000;
/// The most networks and sites with a budget of their own.
pub const CAPACITY: usize = 2_000;

/// The attempts that an isolate has counted. Times are milliseconds on its clock.
#[derive(Debug, Default)]
pub struct Attempts(HashMap<Budget, Tried>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Budget {
    Network(Network),
    Site(Site),
    Rest,
}

impl Budget {
    const fn size(self) -> u32 {
        match self {
            Self::Network(Network::V4(_) | Network::V6(_)) => ATTEMPTS,
            Self::Site(_) => SITE_ATTEMPTS,
            Self::Network(Network::Unknown) | Self::Rest => SHARED_ATTEMPTS,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Tried {
    since: u64,
    times: u32,
}

impl Tried {
    /// Milliseconds until the window ends; 0 after the clock has stepped back.
    const fn rest(self, now: u64) -> u64 {
        match now.checked_sub(self.since) {
            Some(age) => WINDOW.saturating_sub(age),
            None => 0,
        }
    }
}

/// A counted attempt: its budgets and the starts of their windows.
#[derive(Debug)]
#[must_use]
pub struct Attempt([Option<(Budget, u64)>; 2]);

impl Attempts {
    /// Counts an attempt.
    ///
    /// # Errors
    /// Whole seconds to wait, if the network or its site has no attempts left. Nothing is counted.
    pub fn begin(&mut self, network: Network, now: u64) -> Result<Attempt, u64> {
        let own = self.budget(Budget::Network(network), now);
        let site = network.site().map(|site| self.budget(Budget::Site(site), now)).filter(|&site| site != own);
        let budgets = [Some(own), site];
        let waits = budgets.iter().flatten().filter_map(|&budget| {
            let tried = self.0.get(&budget).filter(|tried| tried.times >= budget.size())?;
            Some(tried.rest(now)).filter(|&rest| rest > 0)
        });
        if let Some(wait) = waits.max() {
            return Err(wait.div_ceil(1000));
        }
        Ok(Attempt(budgets.map(|budget| budget.map(|budget| (budget, self.count(budget, now))))))
    }

    /// Uncounts the attempt of a token that is valid, or that could not be checked.
    pub fn give_back(&mut self, Attempt(budgets): Attempt) {
        for (budget, since) in budgets.into_iter().flatten() {
            if let Some(tried) = self.0.get_mut(&budget).filter(|tried| tried.since == since) {
                tried.times = tried.times.saturating_sub(1);
            }
        }
    }

    /// The budget to count in: the shared one if [`CAPACITY`] is reached.
    fn budget(&mut self, budget: Budget, now: u64) -> Budget {
        // Room for a network and its site, which are counted together, and for the shared budget.
        let is_full = |tried: &HashMap<_, _>| tried.len().saturating_add(3) > CAPACITY && !tried.contains_key(&budget);
        if is_full(&self.0) {
            self.0.retain(|_, tried| tried.rest(now) > 0 && tried.times > 0);
        }
        if is_full(&self.0) { Budget::Rest } else { budget }
    }

    fn count(&mut self, budget: Budget, now: u64) -> u64 {
        let tried = self.0.entry(budget).or_insert(Tried { since: now, times: 0 });
        if tried.rest(now) == 0 {
            *tried = Tried { since: now, times: 0 };
        }
        tried.times = tried.times.saturating_add(1);
        tried.since
    }
}

/// The most hashes that an isolate keeps.
pub const KNOWN: usize = 1_000;
/// Milliseconds between two reads of the hashes.
pub const READ_INTERVAL: u64 = 60_000;
/// Milliseconds between a failed read and the next.
pub const RETRY_INTERVAL: u64 = 5_000;

/// Hashes of the tokens that D1 had at the last read. Times are milliseconds on the isolate's
/// clock.
#[derive(Debug, Default)]
pub struct KnownTokens {
    hashes: HashSet<String>,
    is_reading: bool,
    read_again_at: u64,
}

/// Whether to read the hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The caller reads them and passes the result to [`KnownTokens::end`].
    Begin,
    /// Another request is reading them.
    UnderWay,
    /// They were read within [`READ_INTERVAL`], or a read failed within [`RETRY_INTERVAL`].
    NotYet,
}

impl KnownTokens {
    /// Whether a token with this hash existed at the last read.
    #[must_use]
    pub fn has(&self, hash: &str) -> bool {
        self.hashes.contains(hash)
    }

    /// Adds the hash of a token found in D1.
    pub fn add(&mut self, hash: &str) {
        if !self.has(hash) {
            if self.hashes.len() >= KNOWN {
                self.hashes.clear();
            }
            self.hashes.insert(hash.to_owned());
        }
    }

    /// Removes the hash of a token not found in D1. Returns whether it was known.
    pub fn remove(&mut self, hash: &str) -> bool {
        self.hashes.remove(hash)
    }

    /// Decides whether to read the hashes, and if so, marks the read as started.
    pub fn begin(&mut self, now: u64) -> Reading {
        if self.is_reading {
            return Reading::UnderWay;
        }
        // A longer pause than the longest was set while the clock was ahead: ignore it.
        if (1..=READ_INTERVAL).contains(&self.read_again_at.saturating_sub(now)) {
            return Reading::NotYet;
        }
        self.is_reading = true;
        self.read_again_at = now.saturating_add(RETRY_INTERVAL);
        Reading::Begin
    }

    /// Stores the hashes read at `now`; `None` if the read failed.
    pub fn end(&mut self, hashes: Option<Vec<String>>, now: u64) {
        self.is_reading = false;
        if let Some(hashes) = hashes {
            self.hashes = hashes.into_iter().take(KNOWN).collect();
            self.read_again_at = now.saturating_add(READ_INTERVAL);
        }
    }

    /// Ends a read whose request did not return, so that the next request can read.
    pub fn give_up(&mut self) {
        self.is_reading = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(n: u32) -> Network {
        Network::V4(n.into())
    }

    fn v6(site: u64, network: u64) -> Network {
        Network::V6(site << 16 | network)
    }

    #[test]
    fn ten_in_a_minute() {
        let mut attempts = Attempts::default();
        for at in 0..10 {
            assert!(attempts.begin(v4(1), at).is_ok());
        }
        assert_eq!(attempts.begin(v4(1), 10).unwrap_err(), 60);
        assert!(attempts.begin(v4(2), 10).is_ok());
        assert_eq!(attempts.begin(v4(1), 59_001).unwrap_err(), 1);
        for _ in 0..10 {
            assert!(attempts.begin(v4(1), 60_000).is_ok());
        }
        assert_eq!(attempts.begin(v4(1), 60_000).unwrap_err(), 60);
    }

    #[test]
    fn a_right_token_gives_its_attempt_back() {
        let mut attempts = Attempts::default();
        for _ in 0..100 {
            let right = attempts.begin(v4(1), 0).unwrap();
            attempts.give_back(right);
        }
        let open: Vec<_> = (0..10).map(|_| attempts.begin(v4(1), 0).unwrap()).collect();
        assert!(attempts.begin(v4(1), 0).is_err(), "before D1 has answered");
        for attempt in open {
            attempts.give_back(attempt);
        }
        assert!(attempts.begin(v4(1), 0).is_ok());
    }

    #[test]
    fn an_attempt_of_an_earlier_window_is_not_given_back_in_a_later_one() {
        let mut attempts = Attempts::default();
        let early = attempts.begin(v4(1), 0).unwrap();
        for _ in 0..10 {
            assert!(attempts.begin(v4(1), WINDOW).is_ok());
        }
        attempts.give_back(early);
        assert!(attempts.begin(v4(1), WINDOW).is_err());
    }

    #[test]
    fn a_site_has_a_budget_of_its_own() {
        let mut attempts = Attempts::default();
        for network in 0..5 {
            for _ in 0..10 {
                assert!(attempts.begin(v6(1, network), 0).is_ok());
            }
            assert!(attempts.begin(v6(1, network), 0).is_err());
        }
        assert_eq!(attempts.begin(v6(1, 9), 0).unwrap_err(), 60);
        assert!(attempts.begin(v6(2, 9), 0).is_ok());
        assert!(attempts.begin(v6(1, 9), WINDOW).is_ok());
    }

    #[test]
    fn what_has_no_address_shares_one_budget() {
        let mut attempts = Attempts::default();
        for _ in 0..SHARED_ATTEMPTS {
            assert!(attempts.begin(Network::Unknown, 0).is_ok());
        }
        assert!(attempts.begin(Network::Unknown, 0).is_err());
        assert!(attempts.begin(v4(1), 0).is_ok());
    }

    #[test]
    fn networks_beyond_the_capacity_share_one_budget() {
        let mut attempts = Attempts::default();
        let mut tried = 0;
        for n in 0..3 * CAPACITY {
            tried += usize::from(attempts.begin(v4(u32::try_from(n).unwrap()), 0).is_ok());
            assert!(attempts.0.len() <= CAPACITY);
        }
        let shared = usize::try_from(SHARED_ATTEMPTS).unwrap();
        assert!(tried <= CAPACITY + shared && tried >= CAPACITY, "{tried}");
        assert!(attempts.begin(v4(0), 0).is_ok(), "a budget is kept");
        assert!(attempts.begin(v6(1, 1), 0).is_err());
        assert!(attempts.begin(v6(1, 1), WINDOW).is_ok());
        assert_eq!(attempts.0.len(), 2, "what is over makes room");
    }

    #[test]
    fn as_many_networks_as_there_is_room_for_have_a_budget_of_their_own() {
        let network = |n: usize| v4(u32::try_from(n).unwrap());
        let left =
            |attempts: &mut Attempts, n| (0..1_000).take_while(|_| attempts.begin(network(n), 0).is_ok()).count();
        let mut attempts = Attempts::default();
        for n in 0..CAPACITY - 3 {
            assert!(attempts.begin(network(n), 0).is_ok());
        }
        assert_eq!([CAPACITY - 3, CAPACITY - 2].map(|n| left(&mut attempts, n)), [10, 100]);
        // An attempt that was given back needs no room.
        let mut attempts = Attempts::default();
        for n in 0..CAPACITY {
            let right = attempts.begin(network(n), 0).unwrap();
            attempts.give_back(right);
        }
        assert_eq!(left(&mut attempts, CAPACITY), 10);
    }

    #[test]
    fn a_clock_that_steps_back_does_not_lock_out() {
        let mut attempts = Attempts::default();
        for _ in 0..10 {
            assert!(attempts.begin(v4(1), 1_000_000).is_ok());
        }
        assert!(attempts.begin(v4(1), 0).is_ok());
    }

    #[test]
    fn the_tokens_are_read_once_a_minute_by_one_request() {
        let mut known = KnownTokens::default();
        assert_eq!(known.begin(1_000), Reading::Begin);
        assert_eq!(known.begin(1_000), Reading::UnderWay);
        known.add("old");
        known.end(Some(vec!["a".to_owned(), "b".to_owned()]), 1_100);
        assert_eq!(["a", "b", "old"].map(|hash| known.has(hash)), [true, true, false]);
        assert_eq!(known.begin(1_100 + READ_INTERVAL - 1), Reading::NotYet);
        assert_eq!(known.begin(1_100 + READ_INTERVAL), Reading::Begin);
        known.end(None, 70_000);
        assert!(known.has("a"), "a read that fails takes nothing away");
        assert_eq!(known.begin(61_100 + RETRY_INTERVAL - 1), Reading::NotYet);
        assert_eq!(known.begin(61_100 + RETRY_INTERVAL), Reading::Begin);
        known.give_up();
        assert_eq!(known.begin(61_100 + 2 * RETRY_INTERVAL), Reading::Begin);
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_keep_the_tokens_from_being_read() {
        let mut known = KnownTokens::default();
        assert_eq!(known.begin(1_000_000_000), Reading::Begin);
        known.end(Some(Vec::new()), 1_000_000_000);
        assert_eq!(known.begin(1_000), Reading::Begin);
    }

    #[test]
    fn known_tokens_are_bounded() {
        let mut known = KnownTokens::default();
        known.add("a");
        known.add("b");
        assert!(known.has("a") && known.has("b"));
        for n in 0..3 * KNOWN {
            known.add(&n.to_string());
            assert!(known.has(&n.to_string()) && known.hashes.len() <= KNOWN);
        }
        assert_eq!(known.begin(0), Reading::Begin);
        known.end(Some((0..2 * KNOWN).map(|n| n.to_string()).collect()), 0);
        assert_eq!(known.hashes.len(), KNOWN);
        assert!(known.remove("0") && !known.remove("0") && !known.has("0"));
    }

    proptest! {
        /// However attempts are spread over networks and time, none of the budgets is ever exceeded
        /// by attempts that were not given back, neither while they are open nor afterwards.
        #[test]
        fn no_budget_is_exceeded(steps in prop::collection::vec((0..3_u64, 0..8_u64, 0..4_000_u64, any::<bool>()), 1..600)) {
            let mut attempts = Attempts::default();
            let mut now = 0;
            let mut kept: Vec<(u64, u64, u64)> = Vec::new();
            for (site, network, pause, is_right) in steps {
                now += pause / 8;
                let Ok(attempt) = attempts.begin(v6(site, network), now) else { continue };
                if is_right {
                    attempts.give_back(attempt);
                } else {
                    kept.push((site, network, now));
                }
                // Two windows that follow each other touch at most.
                let of = |site: u64, network: Option<u64>| {
                    kept.iter().filter(|k| k.0 == site && network.is_none_or(|n| k.1 == n) && now - k.2 < WINDOW).count()
                };
                prop_assert!(of(site, Some(network)) <= 2 * ATTEMPTS as usize);
                prop_assert!(of(site, None) <= 2 * SITE_ATTEMPTS as usize);
            }
        }
    }
}
