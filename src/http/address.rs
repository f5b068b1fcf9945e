//! Client networks, by which limits per address count.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The network of a client: the range that one subscriber usually has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// One IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 /64, by its upper half: a client with one of its addresses can use all of them.
    V6(u64),
    /// The address is missing or malformed. Cloudflare sets it on every external request.
    Unknown,
}

/// An IPv6 /48, by its upper 48 bits: one site, which may have 65,536 networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Site(u64);

impl Network {
    /// Reads `CF-Connecting-IP`. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn of(address: Option<&str>) -> Self {
        match address.map(|address| address.trim().parse::<IpAddr>().map(|address| address.to_canonical())) {
            Some(Ok(IpAddr::V4(address))) => Self::V4(address),
            Some(Ok(IpAddr::V6(address))) => Self::V6(upper_half(address)),
            Some(Err(_)) | None => Self::Unknown,
        }
    }

    /// The site that an IPv6 network belongs to.
    #[must_use]
    pub const fn site(self) -> Option<Site> {
        match self {
            Self::V6(network) => Some(Site(network >> 16)),
            Self::V4(_) | Self::Unknown => None,
        }
    }
}

const fn upper_half(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Network {
        Network::of(Some(address))
    }

    #[test]
    fn an_ipv4_address_is_its_own_network_in_every_spelling() {
        assert_eq!(of("192.0.2.1"), Network::V4(Ipv4Addr::new(192, 0, 2, 1)));
        for same in [" 192.0.2.1 ", "::ffff:192.0.2.1", "::FFFF:c000:0201", "0:0:0:0:0:ffff:192.0.2.1"] {
            assert_eq!(of(same), of("192.0.2.1"), "{same}");
        }
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1").site(), None);
    }

    #[test]
    fn an_ipv6_address_has_a_64_and_a_48() {
        for same in ["2001:db8:1:2::1", "2001:0DB8:0001:0002:ffff:ffff:ffff:ffff", "2001:db8:1:2:0:0:192.0.2.1"] {
            assert_eq!(of(same), of("2001:db8:1:2::"), "{same}");
        }
        assert_ne!(of("2001:db8:1:3::"), of("2001:db8:1:2::"));
        assert_eq!(of("2001:db8:1:3::").site(), of("2001:db8:1:2::").site());
        assert_ne!(of("2001:db8:2:2::").site(), of("2001:db8:1:2::").site());
    }

    #[test]
    fn what_is_no_address_is_one_network() {
        for none in
            [None, Some(""), Some("192.0.2"), Some("192.0.2.1, 192.0.2.2"), Some("fe80::1%eth0"), Some("unknown")]
        {
            assert_eq!(Network::of(none), Network::Unknown, "{none:?}");
        }
        assert_eq!(Network::Unknown.site(), None);
    }
}
