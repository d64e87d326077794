//! A network of addresses, `192.0.2.0/24` or `2001:db8::/32`: what filters name peers by.

use super::Addr;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Bits that come before an IPv4 address in its mapped form.
const MAPPED_BITS: u32 = 96;

/// A network, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: u128,
    mask: u128,
}

impl Cidr {
    /// The network of an address with a prefix of so many bits; `None` when the address has fewer. What follows the
    /// prefix does not count.
    #[must_use]
    pub fn new(ip: IpAddr, prefix: u32) -> Option<Self> {
        let (before, width) = if ip.is_ipv4() { (MAPPED_BITS, 32) } else { (0, 128) };
        if prefix > width {
            return None;
        }
        let host_bits = 128 - before - prefix;
        // A shift by all 128 bits is none that the type has.
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Some(Self { network: number(&Addr::from(ip)) & mask, mask })
    }

    /// Whether an address is of the network.
    #[must_use]
    pub fn contains(&self, addr: &Addr) -> bool {
        number(addr) & self.mask == self.network
    }
}

fn number(addr: &Addr) -> u128 {
    u128::from_be_bytes(*addr.octets())
}

/// What is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no network: write an address, or one with a prefix such as \"192.0.2.0/24\" or \"2001:db8::/32\""
)]
pub struct NoCidr(String);

impl FromStr for Cidr {
    type Err = NoCidr;

    fn from_str(text: &str) -> Result<Self, NoCidr> {
        let wrong = || NoCidr(text.to_owned());
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(whole), |bits| bits.parse().map_err(|_| wrong()))?;
        Self::new(ip, prefix).ok_or_else(wrong)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = Addr::v6(self.network.to_be_bytes());
        let bits = self.mask.leading_ones();
        let prefix = if addr.is_v4() && bits >= MAPPED_BITS { bits - MAPPED_BITS } else { bits };
        write!(f, "{addr}/{prefix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(net: &str, ip: &str) -> bool {
        net.parse::<Cidr>().unwrap().contains(&ip.parse::<IpAddr>().unwrap().into())
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        for (net, ip, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.77/24", "192.0.2.1", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ] {
            assert_eq!(has(net, ip), expected, "{net} {ip}");
        }
    }

    #[test]
    fn what_is_none_is_named_and_what_is_one_is_written_as_it_was() {
        for text in
            ["", "x", "192.0.2.0/33", "2001:db8::/129", "192.0.2.0/", "192.0.2.0/-1", "192.0.2.0/24/8"]
        {
            assert!(text.parse::<Cidr>().unwrap_err().to_string().contains(text), "{text}");
        }
        for text in ["192.0.2.0/24", "0.0.0.0/0", "192.0.2.7/32", "2001:db8::/32", "::/0"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
    }
}
