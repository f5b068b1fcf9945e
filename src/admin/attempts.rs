//! Attempts with wrong admin tokens, by the address that they come from. Each isolate counts for itself: this slows down
//! guessing, what makes it hopeless is a long token.

use std::net::IpAddr;

/// Wrong tokens that an address may try in [`WINDOW`].
pub const ATTEMPTS: u32 = 10;
/// In milliseconds.
pub const WINDOW: u64 = 60_000;
/// Addresses at most that are remembered.
pub const CAPACITY: usize = 1_000;

/// The attempts that one isolate has seen. Times are milliseconds on its clock.
#[derive(Debug, Default)]
pub struct Attempts(Vec<Tried>);

#[derive(Debug, Clone)]
struct Tried {
    network: String,
    since: u64,
    times: u32,
}

impl Tried {
    /// A clock that stepped back tells nothing: the window is over then, too.
    const fn rest(&self, now: u64) -> u64 {
        match now.checked_sub(self.since) {
            Some(age) => WINDOW.saturating_sub(age),
            None => 0,
        }
    }
}

impl Attempts {
    /// Seconds for which nothing from this address is heard; `None` if it is.
    #[must_use]
    pub fn wait(&self, address: &str, now: u64) -> Option<u64> {
        let network = network(address);
        let tried = self.0.iter().find(|tried| tried.network == network && tried.times >= ATTEMPTS)?;
        let rest = tried.rest(now);
        (rest > 0).then(|| rest.div_ceil(1000))
    }

    /// Counts a wrong token.
    pub fn add(&mut self, address: &str, now: u64) {
        let network = network(address);
        self.0.retain(|tried| tried.rest(now) > 0);
        if let Some(tried) = self.0.iter_mut().find(|tried| tried.network == network) {
            tried.times = tried.times.saturating_add(1);
            return;
        }
        if self.0.len() >= CAPACITY {
            // The oldest: they are in the order of their first attempts.
            self.0.remove(0);
        }
        self.0.push(Tried { network, since: now, times: 1 });
    }
}

/// Who has one IPv6 address has 2^64 of them.
fn network(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_none() => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_in_a_minute() {
        let mut attempts = Attempts::default();
        for at in 0..10 {
            assert_eq!(attempts.wait("192.0.2.1", at), None);
            attempts.add("192.0.2.1", at);
        }
        assert_eq!(attempts.wait("192.0.2.1", 10), Some(60));
        assert_eq!(attempts.wait("192.0.2.2", 10), None);
        assert_eq!(attempts.wait("192.0.2.1", 59_001), Some(1));
        assert_eq!(attempts.wait("192.0.2.1", 60_000), None);
        attempts.add("192.0.2.1", 60_000);
        assert_eq!(attempts.wait("192.0.2.1", 60_000), None);
    }

    #[test]
    fn a_network_is_one_address() {
        let mut attempts = Attempts::default();
        for n in 0..10 {
            attempts.add(&format!("2001:db8::{n}"), 0);
        }
        assert!(attempts.wait("2001:db8:0:0:1::", 0).is_some());
        assert_eq!(attempts.wait("2001:db8:0:1::", 0), None);
        assert_eq!(attempts.wait("::ffff:192.0.2.1", 0), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut attempts = Attempts::default();
        for n in 0..3 * CAPACITY {
            attempts.add(&n.to_string(), 0);
        }
        assert_eq!(attempts.0.len(), CAPACITY);
        attempts.add("late", WINDOW);
        assert_eq!(attempts.0.len(), 1);
    }

    #[test]
    fn a_clock_that_steps_back_locks_nobody_out() {
        let mut attempts = Attempts::default();
        (0..10).for_each(|_| attempts.add("x", 1_000_000));
        assert_eq!(attempts.wait("x", 0), None);
    }
}
