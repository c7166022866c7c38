//! Proxies whose word counts: only they may say under which address the client sees us (RFC 7239, X-Forwarded-*).
//!
//! From anybody else these headers are taken out before anything reads them: an absolute URL that an answer contains
//! names no host that a stranger chose.

use crate::{router::Shared, server::Peer};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use std::{fmt, net::IpAddr, str::FromStr};

const HEADERS: [&str; 6] =
    ["forwarded", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-for"];

/// Addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// This machine: a proxy beside us.
    #[must_use]
    pub fn loopback() -> Vec<Self> {
        vec![
            Self { address: IpAddr::from([127, 0, 0, 0]), bits: 8 },
            Self { address: IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16]), bits: 128 },
        ]
    }

    /// Whether `address` is one of them; an IPv4 address that is written as one of IPv6 counts as what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let ((own, own_width), (other, other_width)) = (bits(self.address), bits(address.to_canonical()));
        let differ = own ^ other;
        own_width == other_width && differ.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address or network, such as 10.0.0.5 or 10.0.0.0/8");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if bits <= most { Ok(Self { address, bits }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Takes the word of whoever is no trusted proxy away.
pub(crate) async fn distrust(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let trusted = peer.is_some_and(|peer| shared.settings.trusted_proxies.iter().any(|proxy| proxy.contains(peer)));
    if !trusted {
        for name in HEADERS {
            request.headers_mut().remove(name);
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_share_its_bits() {
        let within = |network: &str, address: &str| {
            network.parse::<Network>().expect("a network").contains(address.parse().expect("an address"))
        };
        assert!(within("10.0.0.0/8", "10.9.8.7") && !within("10.0.0.0/8", "11.0.0.0"));
        assert!(within("10.0.0.5", "10.0.0.5") && !within("10.0.0.5", "10.0.0.4"));
        assert!(within("10.0.0.5", "::ffff:10.0.0.5"), "the same address on a socket of both families");
        assert!(within("0.0.0.0/0", "8.8.8.8") && !within("0.0.0.0/0", "::1"));
        assert!(within("::/0", "fe80::1") && within("fd00::/8", "fd12::1") && !within("fd00::/8", "fe80::1"));
        assert!(Network::loopback().iter().any(|network| network.contains(IpAddr::from([127, 0, 0, 1]))));
        for wrong in ["", "proxy.example", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0/8", "*"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
