//! Ethernet II with 802.1Q and 802.1ad tags.

use super::vlan::{self, MAX_TAGS, Tag, Vlan};
use super::{L2, MacAddr};
use crate::drop::DropReason;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `EtherType` of IPv4.
pub(crate) const IPV4: u16 = 0x0800;
/// `EtherType` of IPv6.
pub(crate) const IPV6: u16 = 0x86dd;
/// Bytes of an untagged header.
pub(crate) const HEADER_LEN: usize = 14;
/// Bytes of one tag.
pub(crate) const TAG_LEN: usize = 4;

/// The Ethernet header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct EthernetHeader {
    pub(crate) dst: [u8; 6],
    pub(crate) src: [u8; 6],
    pub(crate) ethertype: U16,
}

/// What follows an `EtherType` that announces a tag.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct VlanTag {
    pub(crate) tci: U16,
    pub(crate) ethertype: U16,
}

/// The link layer of a frame, read.
pub(crate) struct Link<'a> {
    pub(crate) l2: L2,
    pub(crate) ethertype: u16,
    /// What follows the header and its tags, Ethernet padding included.
    pub(crate) payload: &'a [u8],
}

/// Reads the header and up to two tags.
///
/// A group address on either side is refused once it is known to be IP: no TCP connection runs over one (RFC 1122
/// §4.2.3.10), and a group source is no address at all (IEEE 802.3 §3.2.3).
#[inline]
pub(crate) fn parse(bytes: &[u8]) -> Result<Link<'_>, DropReason> {
    let (header, mut payload) = EthernetHeader::ref_from_prefix(bytes).map_err(|_| DropReason::Truncated)?;
    let mut ethertype = header.ethertype.get();
    let mut tags = None;
    for _ in 0..MAX_TAGS {
        if !vlan::announces(ethertype) {
            break;
        }
        let (tag, rest) = VlanTag::ref_from_prefix(payload).map_err(|_| DropReason::Truncated)?;
        tags = Vlan::with(tags, Tag { ethertype, tci: tag.tci.get() });
        ethertype = tag.ethertype.get();
        payload = rest;
    }
    if ethertype != IPV4 && ethertype != IPV6 {
        return Err(DropReason::NotIp);
    }
    if is_group(header.dst) || is_group(header.src) {
        return Err(DropReason::BadAddress);
    }
    Ok(Link { l2: L2 { src: MacAddr(header.src), dst: MacAddr(header.dst), vlan: tags }, ethertype, payload })
}

/// Whether the individual/group bit says group: multicast or broadcast.
const fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 != 0
}
