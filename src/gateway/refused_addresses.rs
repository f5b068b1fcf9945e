//! Networks that recently sent texts that are not keys: their lookups wait behind those of others.
//!
//! A network is deferred while, within a minute, more of its texts were refused than found to be
//! keys. So one mistyped key among many has no effect. A client that shares an address with an
//! attacker waits briefly for the first call of a key in an isolate, and for no other.

use crate::gateway::recent::Recent;
use crate::http::address::{Network, Site};

/// How long a balance lasts, in milliseconds.
pub const LIFE: u64 = 60_000;
/// Number of refusals of an IPv6 /48 that defers all of its networks.
pub const SITE_REFUSALS: u32 = 5;
/// Maximum number of networks, and of sites, that are remembered.
pub const CAPACITY: usize = 4_096;

/// The balances of one isolate. Times are milliseconds on its clock.
#[derive(Debug)]
pub struct Refusals {
    networks: Recent<Network, Balance>,
    sites: Recent<Site, Balance>,
}

#[derive(Debug, Clone, Copy)]
struct Balance {
    since: u64,
    refused: u32,
    found: u32,
}

impl Balance {
    const fn new(since: u64) -> Self {
        Self { since, refused: 0, found: 0 }
    }

    /// The number of refused texts minus found keys. 0 if the balance has expired or the clock has
    /// stepped back.
    fn excess(self, now: u64) -> u32 {
        let is_over = now.checked_sub(self.since).is_none_or(|age| age >= LIFE);
        if is_over { 0 } else { self.refused.saturating_sub(self.found) }
    }

    fn note(&mut self, is_key: bool, now: u64) {
        if now.checked_sub(self.since).is_none_or(|age| age >= LIFE) {
            *self = Self::new(now);
        }
        let count = if is_key { &mut self.found } else { &mut self.refused };
        *count = count.saturating_add(1);
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self { networks: Recent::new(CAPACITY), sites: Recent::new(CAPACITY) }
    }
}

impl Refusals {
    /// Whether lookups of this network wait behind others.
    pub fn defers(&mut self, network: Network, now: u64) -> bool {
        let own = self.networks.get(&network).is_some_and(|balance| balance.excess(now) > 0);
        let site = network.site().and_then(|site| self.sites.get(&site));
        own || site.is_some_and(|balance| balance.excess(now) >= SITE_REFUSALS)
    }

    /// Records the result of a lookup for this network.
    pub fn note(&mut self, network: Network, is_key: bool, now: u64) {
        self.networks.get_or_put(&network, || Balance::new(now)).note(is_key, now);
        if let Some(site) = network.site() {
            self.sites.get_or_put(&site, || Balance::new(now)).note(is_key, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(site: u64, network: u64) -> Network {
        Network::V6(site << 16 | network)
    }

    #[test]
    fn a_refusal_defers_a_network_for_the_rest_of_a_minute() {
        let mut refusals = Refusals::default();
        assert!(!refusals.defers(Network::Unknown, 100));
        refusals.note(Network::Unknown, false, 100);
        assert!(refusals.defers(Network::Unknown, 100));
        assert!(refusals.defers(Network::Unknown, 99 + LIFE));
        assert!(!refusals.defers(Network::Unknown, 100 + LIFE));
        assert!(!refusals.defers(Network::Unknown, 99), "a clock that stepped back");
        assert!(!refusals.defers(v6(1, 1), 100));
        refusals.note(Network::Unknown, true, 100 + LIFE);
        refusals.note(Network::Unknown, false, 101 + LIFE);
        assert!(!refusals.defers(Network::Unknown, 101 + LIFE), "the balance began anew");
    }

    #[test]
    fn keys_that_are_found_outweigh_refusals() {
        let mut refusals = Refusals::default();
        for (is_key, is_deferred) in
            [(false, true), (true, false), (false, true), (false, true), (true, true), (true, false)]
        {
            refusals.note(v6(1, 1), is_key, 0);
            assert_eq!(refusals.defers(v6(1, 1), 0), is_deferred);
        }
    }

    #[test]
    fn five_networks_defer_their_site() {
        let mut refusals = Refusals::default();
        for network in 0..5 {
            assert!(!refusals.defers(v6(1, 9), 0));
            refusals.note(v6(1, network), false, 0);
        }
        assert!(refusals.defers(v6(1, 9), 0));
        assert!(!refusals.defers(v6(2, 9), 0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut refusals = Refusals::default();
        for site in 0..3 * u64::try_from(CAPACITY).unwrap() {
            refusals.note(v6(site, 0), false, 0);
        }
        assert!(refusals.networks.len() <= CAPACITY && refusals.sites.len() <= CAPACITY);
    }
}
