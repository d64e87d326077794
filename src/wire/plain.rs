//! The shape that nearly every frame has, read and written at once: Ethernet without tags, IPv4 without options and not a
//! fragment, TCP.
//!
//! What [`read`] takes is what the general [`parse`](super::parse()) takes too, to the last field, and what [`write`] writes is
//! what [`Emit`] writes, to the last byte (tests hold both). They only say yes: whatever is of another shape, or wrong in any
//! way, goes the general way, which knows the reason.

use super::addr::is_unicast_v4;
use super::checksum::{Checksums, PROTO_TCP, fold_words, segment_ok};
use super::emit::{Emit, finish_tcp, put_words};
use super::parse::{TCP_HEADER_LEN, flags_make_sense};
use super::{Addr, Endpoint, Flags, L2, MacAddr, SeqNum, TcpFrame, Tuple};
use super::{ethernet, ipv4, options};

const IP: usize = ethernet::HEADER_LEN;
const TCP: usize = IP + ipv4::HEADER_LEN;
/// Bytes of all headers without options of TCP.
const HEADERS: usize = TCP + TCP_HEADER_LEN;

/// Version 4, and a header of five words.
const VERSION_AND_LENGTH: u8 = 0x45;

/// Reads a frame of the plain shape; `None` when it is another, or there is something wrong with it.
pub(super) fn read(bytes: &[u8], checksums: Checksums) -> Option<TcpFrame> {
    let mut segment = TcpFrame::default();
    read_into(bytes, checksums, &mut segment)?;
    Some(segment)
}

/// As [`read`], to where the segment is needed: it is too large to be moved for nothing.
#[inline]
pub(crate) fn read_into(bytes: &[u8], checksums: Checksums, into: &mut TcpFrame) -> Option<()> {
    let (h, _) = bytes.split_first_chunk::<HEADERS>()?;
    let u16_at = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
    let u32_at = |at: usize| u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
    let mac_at = |at: usize| MacAddr([h[at], h[at + 1], h[at + 2], h[at + 3], h[at + 4], h[at + 5]]);

    let plain = u16_at(12) == ethernet::IPV4
        && (h[0] | h[6]) & 1 == 0
        && h[IP] == VERSION_AND_LENGTH
        && u16_at(IP + 6) & ipv4::FRAGMENT_MASK == 0
        && h[IP + 9] == PROTO_TCP;
    if !plain {
        return None;
    }
    // Ethernet pads short packets, so the frame may go on.
    let segment = bytes.get(TCP..IP + usize::from(u16_at(IP + 2)))?;
    let header_len = usize::from(h[TCP + 12] >> 4) * 4;
    let option_bytes = segment.get(TCP_HEADER_LEN..header_len)?;
    let words: [u32; 5] = std::array::from_fn(|i| u32_at(IP + 4 * i));
    let (src, dst) = (words[3], words[4]);
    let (src_port, dst_port) = (u16_at(TCP), u16_at(TCP + 2));
    let flags = Flags::from_bits(h[TCP + 13]);
    let sound = fold_words(&words) == 0xffff
        && is_unicast_v4(src)
        && is_unicast_v4(dst)
        && src_port != 0
        && dst_port != 0
        && (src, src_port) != (dst, dst_port)
        && flags_make_sense(flags);
    if !sound {
        return None;
    }
    let pseudo = fold_words(&[src, dst, u32::from(PROTO_TCP) + segment.len() as u32]);
    if !segment_ok(checksums, pseudo, segment, u16_at(TCP + 16)) {
        return None;
    }
    let (src, dst) = (Addr::v4(src.to_be_bytes()), Addr::v4(dst.to_be_bytes()));
    // The lengths are of 16 bits in the header, and no frame is so long that the offset of the segment overflows them: a
    // longer one is refused by the general way.
    into.payload = u16::try_from(TCP + header_len).ok()?..u16::try_from(TCP + segment.len()).ok()?;
    into.l2 = L2 { src: mac_at(6), dst: mac_at(0), vlan: None };
    into.tuple = Tuple { local: Endpoint::new(dst, dst_port), remote: Endpoint::new(src, src_port) };
    into.ecn = h[IP + 1] & 0x03;
    let header = &mut into.header;
    header.seq = SeqNum::new(u32_at(TCP + 4));
    header.ack = SeqNum::new(u32_at(TCP + 8));
    header.flags = flags;
    header.window = u16_at(TCP + 14);
    options::parse_into(option_bytes, flags.syn(), &mut header.options);
    Some(())
}

/// Writes the headers of a segment of the plain shape before `payload_len` bytes of payload that lie behind them, and returns
/// the frame's length: with timestamps and no other options, or with all that a SYN has. `None`, with nothing written, when it
/// is of another shape or has no room.
#[inline]
pub(super) fn write(e: &Emit<'_>, buf: &mut [u8], payload_len: usize) -> Option<usize> {
    let o = &e.header.options;
    let ts = o.timestamps?;
    if e.l2.vlan.is_some() || o.sack_len > 0 {
        return None;
    }
    match (o.mss, o.window_scale, o.sack_permitted) {
        (None, None, false) => write_words::<8>(e, buf, payload_len, &options::timestamp_words(ts)),
        (Some(mss), Some(shift), true) => {
            write_words::<10>(e, buf, payload_len, &options::syn_words(mss, ts, shift))
        }
        _ => None,
    }
}

/// Writes headers of which the TCP header has so many words, these options included.
#[inline]
fn write_words<const WORDS: usize>(
    e: &Emit<'_>,
    buf: &mut [u8],
    payload_len: usize,
    options: &[u32],
) -> Option<usize> {
    let (src, dst) = (e.tuple.local.addr.as_v4()?, e.tuple.remote.addr.as_v4()?);
    let frame_len = payload_len.checked_add(TCP + 4 * WORDS)?;
    let total_len = u16::try_from(frame_len - IP).ok()?;
    let (head, payload) = buf.get_mut(..frame_len)?.split_at_mut(TCP + 4 * WORDS);
    let ends = [src, dst].map(u32::from_be_bytes);
    let ends_sum = fold_words(&ends);
    let mut tcp = [0; WORDS];
    let (fixed, rest) = tcp.split_at_mut(TCP_HEADER_LEN / 4);
    fixed.copy_from_slice(&e.tcp_words(4 * WORDS));
    rest.copy_from_slice(options);
    finish_tcp(&mut tcp, 4 * WORDS, ends_sum, payload);

    head[..6].copy_from_slice(&e.l2.dst.0);
    head[6..12].copy_from_slice(&e.l2.src.0);
    head[12..IP].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    put_words(&e.ipv4_words(ends, ends_sum, total_len), &mut head[IP..TCP]);
    put_words(&tcp, &mut head[TCP..]);
    Some(frame_len)
}
