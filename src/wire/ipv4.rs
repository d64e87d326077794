//! IPv4 (RFC 791): checked, options skipped, fragments refused.

use super::checksum::{PROTO_ICMP, PROTO_TCP, sum};
use super::parse::Packet;
use super::{Addr, ethernet};
use crate::drop::DropReason;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header without options.
pub(crate) const HEADER_LEN: usize = 20;
/// The Don't Fragment flag (RFC 791 §3.1).
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
/// More Fragments and the fragment offset: either non-zero makes it a fragment.
pub(super) const FRAGMENT_MASK: u16 = 0x3fff;
/// The fragment offset alone.
const OFFSET_MASK: u16 = 0x1fff;

/// The fixed part of the header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Ipv4Header {
    pub(crate) version_ihl: u8,
    pub(crate) tos: u8,
    pub(crate) total_len: U16,
    pub(crate) id: U16,
    pub(crate) fragment: U16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) checksum: U16,
    pub(crate) src: [u8; 4],
    pub(crate) dst: [u8; 4],
}

impl Ipv4Header {
    /// Header length in bytes, options included; `None` when version or length is impossible.
    fn header_len(&self) -> Option<usize> {
        let len = usize::from(self.version_ihl & 0x0f) * 4;
        (self.version_ihl >> 4 == 4 && len >= HEADER_LEN).then_some(len)
    }
}

/// Reads a packet. What lies beyond the total length is Ethernet padding and left out.
#[inline]
pub(crate) fn parse(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let (header, _) = Ipv4Header::ref_from_prefix(bytes).map_err(|_| DropReason::Truncated)?;
    let header_len = header.header_len().ok_or(DropReason::BadIpHeader)?;
    let total_len = usize::from(header.total_len.get());
    if total_len < header_len {
        return Err(DropReason::BadIpHeader);
    }
    if !matches!(header.protocol, PROTO_TCP | PROTO_ICMP) {
        return Err(DropReason::NotTcp);
    }
    let packet = bytes.get(..total_len).ok_or(DropReason::Truncated)?;
    let (head, payload) = packet.split_at_checked(header_len).ok_or(DropReason::Truncated)?;
    if !sum(head).is_whole() {
        return Err(DropReason::BadIpChecksum);
    }
    if header.fragment.get() & FRAGMENT_MASK != 0 {
        return Err(DropReason::Fragment);
    }
    Ok(Packet {
        src: Addr::v4(header.src),
        dst: Addr::v4(header.dst),
        protocol: header.protocol,
        ecn: header.tos & 0x03,
        offset: header_len,
        payload,
    })
}

/// Reads the packet that an ICMP error quotes, which may end anywhere. [`DropReason::NotTcp`] when it is
/// another protocol's, [`DropReason::BadIcmp`] when its transport header is not reached.
///
/// Neither the checksum nor the total length is checked: routers decrement the TTL before they quote, some without
/// mending the checksum, and the quote is cut.
pub(crate) fn parse_quoted(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    const BAD: DropReason = DropReason::BadIcmp;
    let (header, _) = Ipv4Header::ref_from_prefix(bytes).map_err(|_| BAD)?;
    let offset = header.header_len().ok_or(BAD)?;
    if header.protocol != PROTO_TCP {
        return Err(DropReason::NotTcp);
    }
    if header.fragment.get() & OFFSET_MASK != 0 {
        return Err(BAD);
    }
    Ok(Packet {
        src: Addr::v4(header.src),
        dst: Addr::v4(header.dst),
        protocol: header.protocol,
        ecn: header.tos & 0x03,
        offset,
        payload: bytes.get(offset..).ok_or(BAD)?,
    })
}

/// The `EtherType` that announces this header.
pub(crate) const ETHERTYPE: u16 = ethernet::IPV4;
