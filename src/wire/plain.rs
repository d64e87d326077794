//! The shape that nearly every frame has, read and written at once: Ethernet without tags, IPv4 without options and not a
//! fragment, TCP.
//!
//! What [`read`] takes is what the general [`parse`](super::parse()) takes too, to the last field, and what [`write`] writes is
//! what [`Emit`] writes, to the last byte (tests hold both). They only say yes: whatever is of another shape, or wrong in any
//! way, goes the general way, which knows the reason.

use super::checksum::{Checksums, PROTO_TCP, fold_words, sum};
use super::emit::Emit;
use super::ipv4::DONT_FRAGMENT;
use super::parse::{TCP_HEADER_LEN, flags_make_sense};
use super::tcp::Timestamps;
use super::{Addr, Endpoint, Flags, Header, L2, MacAddr, Options, SeqNum, TcpFrame, Tuple};
use super::{ethernet, ipv4, options};

const IP: usize = ethernet::HEADER_LEN;
const TCP: usize = IP + ipv4::HEADER_LEN;
/// Bytes of all headers without options of TCP.
const HEADERS: usize = TCP + TCP_HEADER_LEN;

/// Bytes of the timestamps option with the NOPs that align it (RFC 7323 appendix A), and the word it begins with.
const TIMESTAMPS_LEN: usize = 12;
const TIMESTAMPS: u32 = 0x0101_080a;
/// Bytes of all headers with it.
const WITH_TIMESTAMPS: usize = HEADERS + TIMESTAMPS_LEN;

/// Version 4, and a header of five words.
const VERSION_AND_LENGTH: u8 = 0x45;
/// More Fragments and the fragment offset.
const FRAGMENT: u16 = 0x3fff;

/// Reads a frame of the plain shape; `None` when it is another, or there is something wrong with it.
#[inline]
pub(crate) fn read(bytes: &[u8], checksums: Checksums) -> Option<TcpFrame> {
    let (h, _) = bytes.split_first_chunk::<HEADERS>()?;
    let u16_at = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
    let u32_at = |at: usize| u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
    let mac_at = |at: usize| MacAddr([h[at], h[at + 1], h[at + 2], h[at + 3], h[at + 4], h[at + 5]]);

    let plain = u16_at(12) == ethernet::IPV4
        && (h[0] | h[6]) & 1 == 0
        && h[IP] == VERSION_AND_LENGTH
        && u16_at(IP + 6) & FRAGMENT == 0
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
        && is_unicast(src)
        && is_unicast(dst)
        && src_port != 0
        && dst_port != 0
        && (src, src_port) != (dst, dst_port)
        && flags_make_sense(flags);
    if !sound {
        return None;
    }
    let pseudo = fold_words(&[src, dst, u32::from(PROTO_TCP) + segment.len() as u32]);
    let whole = fold_words(&[u32::from(pseudo), u32::from(sum(segment).fold())]) == 0xffff;
    if !whole && (checksums == Checksums::Verify || pseudo != u16_at(TCP + 16)) {
        return None;
    }
    let (src, dst) = (Addr::v4(src.to_be_bytes()), Addr::v4(dst.to_be_bytes()));
    Some(TcpFrame {
        l2: L2 { src: mac_at(6), dst: mac_at(0), vlan: None },
        tuple: Tuple { local: Endpoint::new(dst, dst_port), remote: Endpoint::new(src, src_port) },
        ecn: h[IP + 1] & 0x03,
        header: Header {
            seq: SeqNum::new(u32_at(TCP + 4)),
            ack: SeqNum::new(u32_at(TCP + 8)),
            flags,
            window: u16_at(TCP + 14),
            options: read_options(option_bytes, flags),
        },
        // The lengths are of 16 bits in the header, and no frame is so long that the offset of the segment overflows them: a
        // longer one is refused by the general way.
        payload: u16::try_from(TCP + header_len).ok()?..u16::try_from(TCP + segment.len()).ok()?,
    })
}

#[inline]
fn read_options(bytes: &[u8], flags: Flags) -> Options {
    if let [a, b, c, d, v0, v1, v2, v3, e0, e1, e2, e3] = *bytes
        && u32::from_be_bytes([a, b, c, d]) == TIMESTAMPS
    {
        let (val, ecr) = (u32::from_be_bytes([v0, v1, v2, v3]), u32::from_be_bytes([e0, e1, e2, e3]));
        return Options { timestamps: Some(Timestamps { val, ecr }), ..Options::default() };
    }
    options::parse(bytes, flags.syn())
}

/// Writes the headers of a segment of the plain shape, with timestamps and no other options, before `payload_len` bytes of
/// payload that lie behind them, and returns the frame's length. `None`, with nothing written, when it is of another shape or
/// has no room.
#[inline]
pub(super) fn write(e: &Emit<'_>, buf: &mut [u8], payload_len: usize) -> Option<usize> {
    let (t, h) = (e.tuple, e.header);
    let (Some(src), Some(dst)) = (t.local.addr.as_v4(), t.remote.addr.as_v4()) else { return None };
    let o = &h.options;
    let ts = o.timestamps?;
    if e.l2.vlan.is_some()
        || o.mss.is_some()
        || o.window_scale.is_some()
        || o.sack_permitted
        || o.sack_len > 0
    {
        return None;
    }
    let (head, rest) = buf.split_first_chunk_mut::<WITH_TIMESTAMPS>()?;
    let payload = rest.get(..payload_len)?;
    let total_len = u16::try_from(payload_len + WITH_TIMESTAMPS - IP).ok()?;
    let (src, dst) = (u32::from_be_bytes(src), u32::from_be_bytes(dst));

    let ip = [
        0x4500_0000 | u32::from(e.ecn & 0x03) << 16 | u32::from(total_len),
        u32::from(e.ip_id) << 16 | u32::from(DONT_FRAGMENT),
        u32::from(e.ttl) << 24 | u32::from(PROTO_TCP) << 16,
        src,
        dst,
    ];
    let ip_check = !fold_words(&ip);
    let words = (TCP_HEADER_LEN + TIMESTAMPS_LEN) as u32 / 4;
    let tcp = [
        u32::from(t.local.port) << 16 | u32::from(t.remote.port),
        h.seq.raw(),
        h.ack.raw(),
        words << 28 | u32::from(h.flags.bits()) << 16 | u32::from(h.window),
        0,
        TIMESTAMPS,
        ts.val,
        ts.ecr,
    ];
    let of_payload = if payload.is_empty() { 0 } else { sum(payload).fold() };
    let tcp_len = u32::from(total_len) - ipv4::HEADER_LEN as u32;
    let pseudo = [src, dst, u32::from(PROTO_TCP) + tcp_len, u32::from(of_payload)];
    let tcp_check = !fold_words(&[u32::from(fold_words(&tcp)), u32::from(fold_words(&pseudo))]);

    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &e.l2.dst.0);
    put(6, &e.l2.src.0);
    put(12, &ethernet::IPV4.to_be_bytes());
    for (i, word) in ip.iter().enumerate() {
        put(IP + 4 * i, &word.to_be_bytes());
    }
    put(IP + 10, &ip_check.to_be_bytes());
    for (i, word) in tcp.iter().enumerate() {
        put(TCP + 4 * i, &word.to_be_bytes());
    }
    put(TCP + 16, &tcp_check.to_be_bytes());
    Some(IP + usize::from(total_len))
}

/// As [`Addr::is_unicast`].
const fn is_unicast(addr: u32) -> bool {
    addr != 0 && addr != u32::MAX && addr >> 28 != 0xe
}
