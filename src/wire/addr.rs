//! Addresses: link layer, IP, and the 4-tuple that names a connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [o0, o1, o2, o3, o4, o5] = self.0;
        write!(f, "{o0:02x}:{o1:02x}:{o2:02x}:{o3:02x}:{o4:02x}:{o5:02x}")
    }
}

/// An IPv4 or IPv6 address in 16 bytes; IPv4 in its mapped form (RFC 4291 §2.5.5.2).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr([u8; 16]);

const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Addr {
    /// From the 4 bytes of an IPv4 header.
    #[must_use]
    #[inline]
    pub fn v4(octets: [u8; 4]) -> Self {
        let mut a = [0; 16];
        a[..12].copy_from_slice(&MAPPED);
        a[12..].copy_from_slice(&octets);
        Self(a)
    }
    /// From the 16 bytes of an IPv6 header.
    #[must_use]
    pub const fn v6(octets: [u8; 16]) -> Self {
        Self(octets)
    }
    /// The 4 bytes, if it is an IPv4 address.
    #[must_use]
    #[inline]
    pub fn as_v4(&self) -> Option<[u8; 4]> {
        let [.., o0, o1, o2, o3] = self.0;
        self.is_v4().then_some([o0, o1, o2, o3])
    }
    /// Whether it is an IPv4 address.
    #[must_use]
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.0[..12] == MAPPED
    }
    /// All 16 bytes.
    #[must_use]
    pub const fn octets(&self) -> &[u8; 16] {
        &self.0
    }
    /// As the standard library's type.
    #[must_use]
    pub fn to_ip(self) -> IpAddr {
        match self.as_v4() {
            Some(o) => IpAddr::V4(Ipv4Addr::from(o)),
            None => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }
    /// Whether a TCP connection can have this address as an end: not unspecified, multicast or the limited
    /// broadcast.
    #[must_use]
    #[inline]
    pub fn is_unicast(&self) -> bool {
        match self.as_v4() {
            Some(a) => is_unicast_v4(u32::from_be_bytes(a)),
            None => self.0 != [0; 16] && self.0[0] != 0xff,
        }
    }
}

/// As [`Addr::is_unicast`], of an IPv4 address in host order.
#[inline]
pub(super) const fn is_unicast_v4(addr: u32) -> bool {
    addr != 0 && addr != u32::MAX && addr >> 28 != 0xe
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(a) => Self::v4(a.octets()),
            IpAddr::V6(a) => Self::v6(a.octets()),
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_ip(), f)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_ip(), f)
    }
}

/// An address and a port.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// IP address.
    pub addr: Addr,
    /// TCP port, host order.
    pub port: u16,
}

impl Endpoint {
    /// From an address and a port.
    #[must_use]
    pub const fn new(addr: Addr, port: u16) -> Self {
        Self { addr, port }
    }
    /// As the standard library's type.
    #[must_use]
    pub fn to_socket(self) -> SocketAddr {
        SocketAddr::new(self.addr.to_ip(), self.port)
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(s: SocketAddr) -> Self {
        Self::new(s.ip().into(), s.port())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_socket(), f)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_socket(), f)
    }
}

/// What names a connection, as seen from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Our end.
    pub local: Endpoint,
    /// The peer's end.
    pub remote: Endpoint,
}

impl Tuple {
    /// Whether the connection runs over IPv4.
    #[must_use]
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.remote.addr.is_v4()
    }
    /// The same connection as the peer sees it.
    #[must_use]
    pub const fn flipped(self) -> Self {
        Self { local: self.remote, remote: self.local }
    }
}
