//! ICMP (RFC 792) and `ICMPv6` (RFC 4443) errors about TCP segments that were sent from here.
//!
//! Whether the quoted sequence number is in flight is for the connection to say (RFC 5927 §4.1); here the message is
//! only checked and read.

use super::checksum::{PROTO_ICMPV6, PROTO_TCP, pseudo, sum};
use super::parse::Packet;
use super::{Endpoint, IcmpError, IcmpKind, SeqNum, Tuple, ipv4, ipv6};
use crate::drop::DropReason;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The header of either version.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct IcmpHeader {
    kind: u8,
    code: u8,
    checksum: U16,
    /// Depends on the kind; the next hop's MTU in the one that has it.
    rest: U32,
}

/// What every ICMP error must quote of a TCP header: its first 8 bytes (RFC 792).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct QuotedTcp {
    src_port: U16,
    dst_port: U16,
    seq: U32,
}

/// Reads an ICMP error. Messages that are no errors (echo, redirect, source quench, neighbour discovery), and errors
/// about other protocols, are [`DropReason::NotTcp`].
pub(crate) fn parse(packet: &Packet<'_>) -> Result<IcmpError, DropReason> {
    const BAD: DropReason = DropReason::BadIcmp;
    let (header, quote) = IcmpHeader::ref_from_prefix(packet.payload).map_err(|_| BAD)?;
    let v6 = packet.protocol == PROTO_ICMPV6;
    let kind = if v6 { kind_v6(header) } else { kind_v4(header) }.ok_or(DropReason::NotTcp)?;
    let whole = if v6 {
        pseudo(&packet.src, &packet.dst, PROTO_ICMPV6, packet.payload.len() as u32)
            .add_bytes(packet.payload)
            .is_whole()
    } else {
        sum(packet.payload).is_whole()
    };
    if !whole {
        return Err(BAD);
    }
    let quoted = if v6 { ipv6::parse_quoted(quote) } else { ipv4::parse_quoted(quote) }?;
    // An ICMP message about an ICMP message.
    if quoted.protocol != PROTO_TCP {
        return Err(DropReason::NotTcp);
    }
    let (tcp, _) = QuotedTcp::ref_from_prefix(quoted.payload).map_err(|_| BAD)?;
    let tuple = Tuple {
        local: Endpoint::new(quoted.src, tcp.src_port.get()),
        remote: Endpoint::new(quoted.dst, tcp.dst_port.get()),
    };
    // An error goes to the source of what it quotes (RFC 1122 §3.2.2, RFC 4443 §2.4), and what it quotes was a
    // segment that can have been sent.
    let sane = quoted.src == packet.dst
        && quoted.dst.is_unicast()
        && tuple.local.port != 0
        && tuple.remote.port != 0
        && tuple.local != tuple.remote;
    if !sane {
        return Err(BAD);
    }
    Ok(IcmpError { tuple, seq: SeqNum::new(tcp.seq.get()), kind })
}

/// ICMP type and code (RFC 792, RFC 1812 §5.2.7); `None` when it is no error that TCP heeds. Source quench is one that
/// TCP must not heed (RFC 6633). Codes not named are soft: they end nothing.
fn kind_v4(header: &IcmpHeader) -> Option<IcmpKind> {
    match (header.kind, header.code) {
        // The MTU is in the low 16 bits (RFC 1191 §4); routers older than that leave 0.
        (3, 4) => Some(IcmpKind::TooBig { mtu: header.rest.get() & 0xffff }),
        // Protocol, port (RFC 1122 §4.2.3.9); prohibited: network, host, by filter, by precedence.
        (3, 2 | 3 | 9 | 10 | 13 | 14 | 15) => Some(IcmpKind::Hard),
        (3 | 11 | 12, _) => Some(IcmpKind::Soft),
        _ => None,
    }
}

/// `ICMPv6` type and code (RFC 4443 §3); `None` when it is no error that TCP heeds.
fn kind_v6(header: &IcmpHeader) -> Option<IcmpKind> {
    match (header.kind, header.code) {
        (2, _) => Some(IcmpKind::TooBig { mtu: header.rest.get() }),
        // Prohibited, port, policy, reject route; and "unrecognized next header": no TCP there.
        (1, 1 | 4 | 5 | 6) | (4, 1) => Some(IcmpKind::Hard),
        (1 | 3 | 4, _) => Some(IcmpKind::Soft),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
