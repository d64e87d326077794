//! Frames to typed headers and back. Knows nothing above it.
//!
//! ```text
//! bytes ──parse()──▶ Parsed::Tcp(TcpFrame { l2, tuple, segment, payload range })
//!                    Parsed::Icmp(IcmpError)          or a DropReason
//! Emit { l2, tuple, header, payload already in place } ──emit()──▶ bytes
//! ```
//!
//! `parse` reads through checked views (zerocopy) and returns owned plain values, so that a burst can be parsed
//! before any of it is processed; the payload stays in the frame and is named by a range.

pub mod addr;
pub mod checksum;
pub mod cidr;
pub mod describe;
pub mod emit;
mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
pub mod options;
pub mod pair;
pub mod parse;
mod plain;
pub mod seq;
pub mod tcp;
pub mod vlan;

pub use addr::{Addr, Endpoint, MacAddr, Tuple};
pub use checksum::Checksums;
pub use describe::Describe;
pub use emit::Emit;
pub use options::options_len;
pub use parse::parse;
pub(crate) use parse::parse_any;
pub(crate) use plain::read_into as parse_plain;
pub use seq::SeqNum;
pub use tcp::{Flags, Header, Options};
pub use vlan::Vlan;

use std::ops::Range;

/// Link layer facts of a received frame that an answer needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L2 {
    /// Source MAC address.
    pub src: MacAddr,
    /// Destination MAC address.
    pub dst: MacAddr,
    /// Its tags, if it has any; an answer carries the same.
    pub vlan: Option<Vlan>,
}

impl L2 {
    /// The link layer of an answer: back to where it came from.
    #[must_use]
    pub const fn reply(self) -> Self {
        Self { src: self.dst, dst: self.src, vlan: self.vlan }
    }
}

/// A TCP segment as received: who, what, and where its payload lies in the frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpFrame {
    /// Link layer of the frame.
    pub l2: L2,
    /// `local` is the destination, `remote` the source.
    pub tuple: Tuple,
    /// ECN field of the IP header (2 bits).
    pub ecn: u8,
    /// TCP header and options.
    pub header: Header,
    /// The payload within the frame; IP padding and Ethernet padding are outside.
    pub payload: Range<u16>,
}

impl TcpFrame {
    /// Length in sequence space: payload plus SYN plus FIN (RFC 9293 §3.4, `SEG.LEN`).
    #[must_use]
    pub fn seg_len(&self) -> u32 {
        self.header.seg_len(self.payload_len())
    }
    /// Bytes of payload.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        usize::from(self.payload.end - self.payload.start)
    }
}

/// An ICMP or `ICMPv6` error about a TCP segment that was sent from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// The quoted segment's tuple as seen from here: `local` is its source.
    pub tuple: Tuple,
    /// The quoted sequence number, to be checked against what is in flight (RFC 5927 §4.1).
    pub seq: SeqNum,
    /// What the error says.
    pub kind: IcmpKind,
}

/// What an ICMP error says about the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// Fragmentation needed / packet too big, with the next hop's MTU in bytes.
    TooBig {
        /// Next-hop MTU in bytes as the message says (0 when it does not).
        mtu: u32,
    },
    /// Port or protocol unreachable, prohibited: "hard" errors.
    Hard,
    /// Network or host unreachable, time exceeded, parameter problem: "soft" errors.
    Soft,
}

/// What a frame turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A TCP segment.
    Tcp(TcpFrame),
    /// An ICMP error about one.
    Icmp(IcmpError),
}

#[cfg(test)]
pub(crate) mod tests;
