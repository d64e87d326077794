//! IPv6 (RFC 8200) and the extension headers that may precede TCP, walked within two bounds.

use super::checksum::{PROTO_ICMPV6, PROTO_TCP};
use super::parse::Packet;
use super::{Addr, ethernet};
use crate::drop::DropReason;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the fixed header.
pub(crate) const HEADER_LEN: usize = 40;

/// Extension headers walked before a packet is refused. RFC 8200 §4.1 knows five before TCP (hop-by-hop,
/// destination, routing, fragment, destination again). Too low: legitimate packets are lost; too high: a forged chain costs
/// more than a segment does.
const MAX_EXTENSIONS: usize = 6;

/// Bytes of extension headers walked before a packet is refused; those that the open Internet lets through are
/// shorter (RFC 9098). Too low: legitimate packets are lost; too high: a packet of 1,400 one-byte options costs 1,400
/// steps.
const MAX_EXTENSION_BYTES: usize = 256;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// The fixed header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Ipv6Header {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub(crate) version_class_flow: U32,
    pub(crate) payload_len: U16,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) src: [u8; 16],
    pub(crate) dst: [u8; 16],
}

impl Ipv6Header {
    fn is_v6(&self) -> bool {
        self.version_class_flow.get() >> 28 == 6
    }

    fn ecn(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8 & 0x03
    }
}

/// What all extension headers but the fragment header begin with.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ExtensionHeader {
    next_header: u8,
    /// In units of 8 bytes, not counting the first.
    len: u8,
    /// Two bytes of content; of a routing header its type and the segments left (RFC 8200 §4.4).
    content: [u8; 2],
}

/// The fragment header (RFC 8200 §4.5).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FragmentHeader {
    next_header: u8,
    reserved: u8,
    /// Offset (13 bits), reserved (2), more fragments (1).
    offset_more: U16,
    id: U32,
}

/// Reads a packet. What lies beyond the payload length is Ethernet padding and left out.
pub(crate) fn parse(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let (header, rest) = Ipv6Header::ref_from_prefix(bytes).map_err(|_| DropReason::Truncated)?;
    if !header.is_v6() {
        return Err(DropReason::BadIpHeader);
    }
    let payload = rest.get(..usize::from(header.payload_len.get())).ok_or(DropReason::Truncated)?;
    upper_layer(header, payload)
}

/// Reads the packet that an `ICMPv6` error quotes, which may end anywhere. [`DropReason::NotTcp`] when it is
/// another protocol's, [`DropReason::BadIcmp`] when its transport header is not reached.
pub(crate) fn parse_quoted(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let (header, rest) = Ipv6Header::ref_from_prefix(bytes).map_err(|_| DropReason::BadIcmp)?;
    if !header.is_v6() {
        return Err(DropReason::BadIcmp);
    }
    upper_layer(header, rest).map_err(|reason| match reason {
        DropReason::NotTcp => DropReason::NotTcp,
        _ => DropReason::BadIcmp,
    })
}

/// Walks the extension headers to the transport header.
///
/// A source or destination in the IPv4-mapped form is refused: on the wire it means nothing, and [`Addr`] would
/// take it for IPv4 (RFC 4942 §2.2).
fn upper_layer<'a>(header: &Ipv6Header, payload: &'a [u8]) -> Result<Packet<'a>, DropReason> {
    let (src, dst) = (Addr::v6(header.src), Addr::v6(header.dst));
    if src.is_v4() || dst.is_v4() {
        return Err(DropReason::BadAddress);
    }
    let (protocol, rest) = walk(header.next_header, payload)?;
    Ok(Packet {
        src,
        dst,
        protocol,
        ecn: header.ecn(),
        offset: HEADER_LEN + (payload.len() - rest.len()),
        payload: rest,
    })
}

/// From the first extension header to the transport protocol and its bytes.
fn walk(first: u8, payload: &[u8]) -> Result<(u8, &[u8]), DropReason> {
    let mut next = first;
    let mut rest = payload;
    for position in 0..=MAX_EXTENSIONS {
        if matches!(next, PROTO_TCP | PROTO_ICMPV6) {
            return Ok((next, rest));
        }
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
            return Err(DropReason::NotTcp);
        }
        // Hop-by-hop options come first or not at all (RFC 8200 §4.1).
        if next == HOP_BY_HOP && position != 0 {
            return Err(DropReason::BadExtensionHeader);
        }
        (next, rest) = step(next, rest)?;
        if payload.len() - rest.len() > MAX_EXTENSION_BYTES {
            return Err(DropReason::BadExtensionHeader);
        }
    }
    Err(DropReason::BadExtensionHeader)
}

/// Over one extension header: what follows it, by number and bytes.
fn step(kind: u8, bytes: &[u8]) -> Result<(u8, &[u8]), DropReason> {
    const BAD: DropReason = DropReason::BadExtensionHeader;
    if kind == FRAGMENT {
        let (header, rest) = FragmentHeader::ref_from_prefix(bytes).map_err(|_| BAD)?;
        // Offset 0 and no more to come is an atomic fragment: a whole packet (RFC 6946 §4).
        if header.offset_more.get() & 0xfff9 != 0 {
            return Err(DropReason::Fragment);
        }
        return Ok((header.next_header, rest));
    }
    let (header, _) = ExtensionHeader::ref_from_prefix(bytes).map_err(|_| BAD)?;
    let len = (usize::from(header.len) + 1) * 8;
    if len > MAX_EXTENSION_BYTES {
        return Err(BAD);
    }
    let (whole, rest) = bytes.split_at_checked(len).ok_or(BAD)?;
    if kind == ROUTING {
        // With segments left this host is a waypoint, not the end (RFC 8200 §4.4, RFC 5095).
        if header.content[1] != 0 {
            return Err(BAD);
        }
    } else if !options_allow(whole.get(2..).unwrap_or_default()) {
        return Err(BAD);
    }
    Ok((header.next_header, rest))
}

/// Whether the options of a hop-by-hop or destination header are well formed and none asks a host that does not
/// know it to discard the packet (RFC 8200 §4.2: the type's two highest bits).
fn options_allow(mut options: &[u8]) -> bool {
    loop {
        match options {
            [] => return true,
            // Pad1 has no length.
            [0, rest @ ..] => options = rest,
            [kind, len, rest @ ..] => {
                let Some((_, after)) = rest.split_at_checked(usize::from(*len)) else {
                    return false;
                };
                if kind >> 6 != 0 {
                    return false;
                }
                options = after;
            }
            [_] => return false,
        }
    }
}

/// The `EtherType` that announces this header.
pub(crate) const ETHERTYPE: u16 = ethernet::IPV6;

#[cfg(test)]
mod tests;
