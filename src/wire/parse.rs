//! A frame's bytes to what it says: [`parse`].
//!
//! ```text
//! plain: the shape of nearly all, at once
//! else
//! ethernet ─▶ ipv4 | ipv6 ─▶ Packet ─▶ TCP: offset, ports, flags, addresses, checksum, options
//!                                   └▶ icmp: kind, checksum, quote
//! ```
//!
//! Checks go from cheap to dear: the checksum over the payload comes after everything that a header can say against
//! itself. No input can panic it: headers are views of a checked prefix, and every length is cut with a checked split.

use super::checksum::{Checksums, PROTO_TCP, tcp_ok};
use super::ethernet::{self, Link};
use super::{
    Addr, Endpoint, Flags, Header, Parsed, SeqNum, TcpFrame, Tuple, icmp, ipv4, ipv6, options, plain,
};
use crate::drop::DropReason;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a TCP header without options.
pub(crate) const TCP_HEADER_LEN: usize = 20;

/// The fixed part of the TCP header (RFC 9293 §3.1).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct TcpHeader {
    pub(crate) src_port: U16,
    pub(crate) dst_port: U16,
    pub(crate) seq: U32,
    pub(crate) ack: U32,
    /// Data offset in words (4 bits), reserved (4).
    pub(crate) offset: u8,
    pub(crate) flags: u8,
    pub(crate) window: U16,
    pub(crate) checksum: U16,
    pub(crate) urgent: U16,
}

/// An IP packet of either family, read.
pub(crate) struct Packet<'a> {
    pub(crate) src: Addr,
    pub(crate) dst: Addr,
    /// Transport protocol: TCP or the family's own ICMP; anything else was refused.
    pub(crate) protocol: u8,
    pub(crate) ecn: u8,
    /// Bytes of IP header, options and extension headers before `payload`.
    pub(crate) offset: usize,
    /// The transport header and what follows it, without padding.
    pub(crate) payload: &'a [u8],
}

/// Reads a frame.
///
/// `Parsed::Tcp` holds a segment whose headers are consistent, whose checksums are right under `checksums`, and whose
/// ends can have a connection; its payload range lies within `bytes`. `Parsed::Icmp` holds a checked error about a
/// segment of this host. Anything else is the reason to drop the frame.
#[inline]
pub fn parse(bytes: &[u8], checksums: Checksums) -> Result<Parsed, DropReason> {
    match plain::read(bytes, checksums) {
        Some(segment) => Ok(Parsed::Tcp(segment)),
        None => parse_any(bytes, checksums),
    }
}

/// Reads a frame of any shape.
pub(crate) fn parse_any(bytes: &[u8], checksums: Checksums) -> Result<Parsed, DropReason> {
    let link = ethernet::parse(bytes)?;
    let packet = match link.ethertype {
        ethernet::IPV4 => ipv4::parse(link.payload)?,
        ethernet::IPV6 => ipv6::parse(link.payload)?,
        _ => return Err(DropReason::NotIp),
    };
    if !packet.src.is_unicast() || !packet.dst.is_unicast() {
        return Err(DropReason::BadAddress);
    }
    // An IPv4-mapped address is for a host's own use; on the wire (RFC 6890 §2.2.3 forbids it) it would name a connection
    // whose ends are of two families.
    let v4 = link.ethertype == ethernet::IPV4;
    if packet.src.is_v4() != v4 || packet.dst.is_v4() != v4 {
        return Err(DropReason::BadAddress);
    }
    if packet.protocol == PROTO_TCP {
        let at = (bytes.len() - link.payload.len()) + packet.offset;
        segment(&link, &packet, at, checksums).map(Parsed::Tcp)
    } else {
        icmp::parse(&packet).map(Parsed::Icmp)
    }
}

/// Reads the TCP segment of `packet`; `at` is where its header begins in the frame.
fn segment(
    link: &Link<'_>,
    packet: &Packet<'_>,
    at: usize,
    checksums: Checksums,
) -> Result<TcpFrame, DropReason> {
    let bytes = packet.payload;
    let (tcp, rest) = TcpHeader::ref_from_prefix(bytes).map_err(|_| DropReason::Truncated)?;
    let header_len = usize::from(tcp.offset >> 4) * 4;
    let options_len = header_len.checked_sub(TCP_HEADER_LEN).ok_or(DropReason::BadDataOffset)?;
    let (option_bytes, _) = rest.split_at_checked(options_len).ok_or(DropReason::BadDataOffset)?;
    let (src_port, dst_port) = (tcp.src_port.get(), tcp.dst_port.get());
    if src_port == 0 || dst_port == 0 {
        return Err(DropReason::BadPort);
    }
    let flags = Flags::from_bits(tcp.flags);
    if !flags_make_sense(flags) {
        return Err(DropReason::BadFlags);
    }
    let tuple =
        Tuple { local: Endpoint::new(packet.dst, dst_port), remote: Endpoint::new(packet.src, src_port) };
    if tuple.local == tuple.remote {
        return Err(DropReason::BadAddress);
    }
    // A port's frames are shorter than 64 KiB; a longer slice cannot be named by the range.
    let (Ok(start), Ok(end)) = (u16::try_from(at + header_len), u16::try_from(at + bytes.len())) else {
        return Err(DropReason::BadIpHeader);
    };
    if !tcp_ok(checksums, &packet.src, &packet.dst, bytes, tcp.checksum.get()) {
        return Err(DropReason::BadTcpChecksum);
    }
    Ok(TcpFrame {
        l2: link.l2,
        tuple,
        ecn: packet.ecn,
        header: Header {
            seq: SeqNum::new(tcp.seq.get()),
            ack: SeqNum::new(tcp.ack.get()),
            flags,
            window: tcp.window.get(),
            options: options::parse(option_bytes, flags.syn()),
        },
        payload: start..end,
    })
}

/// Whether RFC 9293 has a use for this combination.
///
/// Every segment opens (SYN), resets (RST), or carries an acknowledgment (§3.10.7.4, fifth step); a FIN without one
/// still has an answer in CLOSED and LISTEN (§3.10.7.1, §3.10.7.2) and is left to the state machine. A SYN with FIN or
/// RST says two things at once that no state sends. RST with FIN is a reset: RST is looked at first (§3.10.7.4,
/// second step) and the FIN no more.
pub(super) const fn flags_make_sense(flags: Flags) -> bool {
    const FIN: u8 = Flags::FIN.bits();
    const SYN: u8 = Flags::SYN.bits();
    const RST: u8 = Flags::RST.bits();
    const ACK: u8 = Flags::ACK.bits();
    let control = flags.bits() & (FIN | SYN | RST | ACK);
    control != 0 && !(flags.syn() && control & (FIN | RST) != 0)
}

#[cfg(test)]
pub(crate) mod tests;
