//! Addresses that a peer may come from: one address, or a network in CIDR notation.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, net::IpAddr, str::FromStr};

/// `10.1.2.3`, `10.1.2.0/24`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    base: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Whether `address` lies in it. An IPv4 address is the same when it comes over an IPv6 socket.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (base, whole) = bits(self.base);
        let (other, of) = bits(address.to_canonical());
        // A shift by all bits is not one: a prefix of 0 is everything.
        whole == of && (self.prefix_bits == 0 || (base ^ other) >> (whole - self.prefix_bits) == 0)
    }
}

/// The address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is neither an IP address nor a network such as 10.1.2.0/24");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = address.trim().parse().map_err(|_| bad())?;
        let base = if prefix.is_none() { base.to_canonical() } else { base };
        let (value, whole) = bits(base);
        let prefix_bits = match prefix {
            None => whole,
            Some(prefix) => prefix.trim().parse().ok().filter(|prefix| *prefix <= whole).ok_or_else(bad)?,
        };
        if prefix_bits < whole && value << (128 - whole + prefix_bits) != 0 {
            return Err(format!("`{text}` has bits behind its prefix: say the network's own address"));
        }
        Ok(Self { base, prefix_bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix_bits == bits(self.base).1 {
            write!(f, "{}", self.base)
        } else {
            write!(f, "{}/{}", self.base, self.prefix_bits)
        }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        let network: Network = network.parse().expect("a network");
        network.contains(address.parse().expect("an address"))
    }

    #[test]
    fn an_address_lies_in_a_network_when_the_prefix_agrees() {
        assert!(holds("10.1.2.0/24", "10.1.2.255") && !holds("10.1.2.0/24", "10.1.3.0"));
        assert!(holds("10.1.2.3", "10.1.2.3") && !holds("10.1.2.3", "10.1.2.2"));
        assert!(holds("0.0.0.0/0", "203.0.113.9") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("::/0", "2001:db8::1") && !holds("::/0", "10.0.0.1"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("128.0.0.0/1", "200.0.0.1") && !holds("128.0.0.0/1", "100.0.0.1"));
    }

    #[test]
    fn an_ipv4_address_over_an_ipv6_socket_is_the_same_address() {
        assert!(holds("10.1.2.0/24", "::ffff:10.1.2.9"));
        assert!(holds("::ffff:10.1.2.9", "10.1.2.9"));
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_would_be_one() {
        for bad in ["", "10.1.2", "10.1.2.0/33", "10.1.2.0/", "10.1.2.0/-1", "host", "::/129", "10.1.2.0/24/8"] {
            let why = bad.parse::<Network>().expect_err(bad);
            assert!(why.contains("10.1.2.0/24"), "{why}");
        }
        assert!("10.1.2.3/24".parse::<Network>().is_err_and(|why| why.contains("behind its prefix")));
        assert!("2001:db8::1/32".parse::<Network>().is_err());
        for same in ["10.1.2.0/24", "10.1.2.3", "::/0", "2001:db8::/32", "0.0.0.0/0"] {
            assert_eq!(same.parse::<Network>().map(|network| network.to_string()), Ok(same.to_owned()));
        }
    }
}
