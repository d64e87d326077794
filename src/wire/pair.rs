//! A connection's pair of endpoints in the fewest bytes, for records that are held by the million.
//!
//! [`Tuple`] takes 36 bytes in both families, because everything in flight is easier with one type. A record at rest
//! knows its family from the table it lies in, so an IPv4 one needs 12.

use super::{Addr, Endpoint, Tuple};

/// The pair of one family.
pub trait Pair: Copy + Eq {
    /// The pair of a tuple of this family.
    fn of(tuple: &Tuple) -> Self;
    /// The tuple again.
    fn tuple(&self) -> Tuple;
    /// Every part of it as bytes, for hashes.
    fn bytes(&self) -> impl AsRef<[u8]>;
}

/// Two IPv4 endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair4 {
    local: [u8; 4],
    remote: [u8; 4],
    local_port: u16,
    remote_port: u16,
}

/// Two endpoints of any family, 16 bytes an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair6 {
    local: [u8; 16],
    remote: [u8; 16],
    local_port: u16,
    remote_port: u16,
}

/// The pair of a record, in whichever width it lies.
#[derive(Clone, Copy, Debug)]
pub enum PairRef<'a> {
    /// Over IPv4.
    Narrow(&'a Pair4),
    /// Over IPv6.
    Wide(&'a Pair6),
}

impl PairRef<'_> {
    /// The tuple.
    #[must_use]
    pub fn tuple(self) -> Tuple {
        match self {
            Self::Narrow(p) => p.tuple(),
            Self::Wide(p) => p.tuple(),
        }
    }

    /// Whether it is one of IPv4.
    #[must_use]
    pub const fn is_v4(self) -> bool {
        matches!(self, Self::Narrow(_))
    }
}

const _: () = assert!(size_of::<Pair4>() == 12 && size_of::<Pair6>() == 36);

impl Pair for Pair4 {
    #[inline]
    fn of(t: &Tuple) -> Self {
        let v4 = |a: &Addr| {
            let [.., o0, o1, o2, o3] = *a.octets();
            [o0, o1, o2, o3]
        };
        Self {
            local: v4(&t.local.addr),
            remote: v4(&t.remote.addr),
            local_port: t.local.port,
            remote_port: t.remote.port,
        }
    }

    #[inline]
    fn tuple(&self) -> Tuple {
        Tuple {
            local: Endpoint::new(Addr::v4(self.local), self.local_port),
            remote: Endpoint::new(Addr::v4(self.remote), self.remote_port),
        }
    }

    #[inline]
    fn bytes(&self) -> impl AsRef<[u8]> {
        let mut b = [0; 12];
        b[..4].copy_from_slice(&self.local);
        b[4..8].copy_from_slice(&self.remote);
        b[8..10].copy_from_slice(&self.local_port.to_be_bytes());
        b[10..].copy_from_slice(&self.remote_port.to_be_bytes());
        b
    }
}

impl Pair for Pair6 {
    #[inline]
    fn of(t: &Tuple) -> Self {
        Self {
            local: *t.local.addr.octets(),
            remote: *t.remote.addr.octets(),
            local_port: t.local.port,
            remote_port: t.remote.port,
        }
    }

    #[inline]
    fn tuple(&self) -> Tuple {
        Tuple {
            local: Endpoint::new(Addr::v6(self.local), self.local_port),
            remote: Endpoint::new(Addr::v6(self.remote), self.remote_port),
        }
    }

    #[inline]
    fn bytes(&self) -> impl AsRef<[u8]> {
        let mut b = [0; 36];
        b[..16].copy_from_slice(&self.local);
        b[16..32].copy_from_slice(&self.remote);
        b[32..34].copy_from_slice(&self.local_port.to_be_bytes());
        b[34..].copy_from_slice(&self.remote_port.to_be_bytes());
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn tuple(local: &str, remote: &str) -> Tuple {
        let end = |s: &str| Endpoint::from(s.parse::<SocketAddr>().unwrap());
        Tuple { local: end(local), remote: end(remote) }
    }

    #[test]
    fn a_pair_gives_its_tuple_back() {
        let v4 = tuple("192.0.2.1:443", "198.51.100.7:65535");
        let v6 = tuple("[2001:db8::1]:443", "[2001:db8:1:2:3:4:5:6]:1");
        assert_eq!(Pair4::of(&v4).tuple(), v4);
        assert_eq!(Pair6::of(&v6).tuple(), v6);
        // What is wide holds both: an IPv4 address comes back as one.
        assert_eq!(Pair6::of(&v4).tuple(), v4);
    }

    #[test]
    fn every_part_of_a_pair_counts() {
        let t = tuple("192.0.2.1:443", "198.51.100.7:1000");
        for other in [
            tuple("192.0.2.2:443", "198.51.100.7:1000"),
            tuple("192.0.2.1:444", "198.51.100.7:1000"),
            tuple("192.0.2.1:443", "198.51.100.8:1000"),
            tuple("192.0.2.1:443", "198.51.100.7:1001"),
            t.flipped(),
        ] {
            assert_ne!(Pair4::of(&t), Pair4::of(&other));
            assert_ne!(Pair6::of(&t), Pair6::of(&other));
        }
    }
}
