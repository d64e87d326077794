//! Headers to bytes: [`Emit`].
//!
//! The payload lies in the buffer first; the headers are built as words, summed, and written before it. Nothing is
//! read back from where the headers go, so the buffer may be the very frame that is being answered, and no load waits for
//! the stores of a moment ago.

use super::checksum::{PROTO_TCP, fold_words, sum};
use super::ethernet::{EthernetHeader, HEADER_LEN as ETHERNET_LEN, TAG_LEN, VlanTag};
use super::ipv4::DONT_FRAGMENT;
use super::ipv6::Ipv6Header;
use super::options::{self, MAX_OPTION_WORDS, options_len};
use super::parse::TCP_HEADER_LEN;
use super::{Header, L2, Tuple, ipv4, ipv6, plain};
use zerocopy::IntoBytes;

/// Words of the fixed TCP header.
const HEADER_WORDS: usize = TCP_HEADER_LEN / 4;

/// Puts the checksum into a TCP header of this length with its options, of which it is the fifth word, for this payload and
/// addresses of this folded sum. What is behind the header is zero.
#[inline]
pub(super) fn finish_tcp<const WORDS: usize>(
    words: &mut [u32; WORDS],
    header_len: usize,
    ends_sum: u16,
    payload: &[u8],
) {
    const { assert!(WORDS >= HEADER_WORDS) };
    let of_payload = if payload.is_empty() { 0 } else { sum(payload).fold() };
    let len = (header_len + payload.len()) as u32;
    let rest = [u32::from(ends_sum), u32::from(PROTO_TCP) + len, u32::from(of_payload)];
    let total = [fold_words(words), fold_words(&rest)].map(u32::from);
    words[HEADER_WORDS - 1] = u32::from(!fold_words(&total)) << 16;
}

/// Writes words in network order, as far as there is room.
#[inline]
pub(super) fn put_words(words: &[u32], to: &mut [u8]) {
    for (to, word) in to.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *to = word.to_be_bytes();
    }
}

/// A segment to be written. The family is that of the tuple's addresses.
#[derive(Clone, Copy, Debug)]
pub struct Emit<'a> {
    /// Link layer; `src` is this host. The tags of `vlan` are written as they were.
    pub l2: L2,
    /// `local` is the source, `remote` the destination.
    pub tuple: &'a Tuple,
    /// TCP header; SACK blocks beyond what fits are left out.
    pub header: &'a Header,
    /// IPv4 time to live or IPv6 hop limit.
    pub ttl: u8,
    /// ECN field of the IP header; the low 2 bits count. The DSCP is 0.
    pub ecn: u8,
    /// IPv4 identification (RFC 6864); IPv6 has none.
    pub ip_id: u16,
}

impl Emit<'_> {
    /// Bytes of all headers: Ethernet, tag, IP, TCP with padded options. The payload goes at this offset.
    #[must_use]
    pub fn headers_len(&self) -> usize {
        self.link_len() + self.ip_len() + TCP_HEADER_LEN + options_len(&self.header.options)
    }

    const fn link_len(&self) -> usize {
        match self.l2.vlan {
            Some(vlan) => ETHERNET_LEN + vlan.count() * TAG_LEN,
            None => ETHERNET_LEN,
        }
    }

    fn ip_len(&self) -> usize {
        if self.tuple.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN }
    }

    /// Writes all headers before the `payload_len` bytes of payload that lie at [`Emit::headers_len`], with both
    /// checksums finished, and returns the frame's length. Short frames are not padded: that is the device's part.
    ///
    /// `None`, with nothing written, when the buffer is too small, the packet is beyond 65,535 bytes, or the tuple's
    /// ends are of different families.
    #[must_use]
    #[inline]
    pub fn emit(&self, buf: &mut [u8], payload_len: usize) -> Option<usize> {
        plain::write(self, buf, payload_len).or_else(|| self.emit_any(buf, payload_len))
    }

    /// Writes a segment of any shape.
    pub(super) fn emit_any(&self, buf: &mut [u8], payload_len: usize) -> Option<usize> {
        let mut words = [0; HEADER_WORDS + MAX_OPTION_WORDS];
        let (fixed, option_words) = words.split_first_chunk_mut::<HEADER_WORDS>()?;
        let options = options::words(&self.header.options, option_words.first_chunk_mut()?);
        let header_len = TCP_HEADER_LEN + 4 * options;
        let tcp_len = payload_len.checked_add(header_len)?;
        let ip_len = u16::try_from(self.ip_len().checked_add(tcp_len)?).ok()?;
        let frame_len = self.link_len() + usize::from(ip_len);
        let frame = buf.get_mut(..frame_len)?;
        let (head, payload) = frame.split_at_mut_checked(frame_len - payload_len)?;
        let (link, head) = head.split_at_mut_checked(self.link_len())?;
        let (ip, tcp) = head.split_at_mut_checked(self.ip_len())?;

        let ends = self.write_ip(ip, tcp_len as u16)?;
        *fixed = self.tcp_words(header_len);
        finish_tcp(&mut words, header_len, ends, payload);
        put_words(&words, tcp);
        self.write_link(link)?;
        Some(frame_len)
    }

    /// The fixed TCP header (RFC 9293 §3.1), its checksum still zero.
    #[inline]
    pub(super) fn tcp_words(&self, header_len: usize) -> [u32; HEADER_WORDS] {
        let h = self.header;
        [
            u32::from(self.tuple.local.port) << 16 | u32::from(self.tuple.remote.port),
            h.seq.raw(),
            h.ack.raw(),
            (header_len as u32 / 4) << 28 | u32::from(h.flags.bits()) << 16 | u32::from(h.window),
            0,
        ]
    }

    /// The IPv4 header (RFC 791 §3.1) of a packet of this length from and to these addresses, whose folded sum is `ends_sum`.
    #[inline]
    pub(super) fn ipv4_words(&self, ends: [u32; 2], ends_sum: u16, total_len: u16) -> [u32; 5] {
        let lengths = 0x4500_0000 | u32::from(self.ecn & 0x03) << 16 | u32::from(total_len);
        let fragment = u32::from(self.ip_id) << 16 | u32::from(DONT_FRAGMENT);
        let protocol = u32::from(self.ttl) << 24 | u32::from(PROTO_TCP) << 16;
        let check = !fold_words(&[lengths, fragment, protocol, u32::from(ends_sum)]);
        [lengths, fragment, protocol | u32::from(check), ends[0], ends[1]]
    }

    /// Writes the IP header. Returns the folded sum of both addresses, `None` when they are of different families.
    fn write_ip(&self, to: &mut [u8], tcp_len: u16) -> Option<u16> {
        let (src, dst) = (&self.tuple.local.addr, &self.tuple.remote.addr);
        match (src.as_v4(), dst.as_v4()) {
            (Some(src), Some(dst)) => {
                let total_len = tcp_len.checked_add(ipv4::HEADER_LEN as u16)?;
                let ends = [src, dst].map(u32::from_be_bytes);
                let ends_sum = fold_words(&ends);
                put_words(&self.ipv4_words(ends, ends_sum, total_len), to);
                Some(ends_sum)
            }
            (None, None) => {
                let class_flow = u32::from(self.ecn & 0x03) << 20;
                let ip = Ipv6Header {
                    version_class_flow: (6 << 28 | class_flow).into(),
                    payload_len: tcp_len.into(),
                    next_header: PROTO_TCP,
                    hop_limit: self.ttl,
                    src: *src.octets(),
                    dst: *dst.octets(),
                };
                ip.write_to(to).ok()?;
                Some(sum(src.octets()).add_bytes(dst.octets()).fold())
            }
            (Some(_), None) | (None, Some(_)) => None,
        }
    }

    fn write_link(&self, to: &mut [u8]) -> Option<()> {
        if self.l2.vlan.is_none() {
            let ethertype = if self.tuple.is_v4() { ipv4::ETHERTYPE } else { ipv6::ETHERTYPE };
            let (dst, src) = (self.l2.dst.0, self.l2.src.0);
            return EthernetHeader { dst, src, ethertype: ethertype.into() }.write_to(to).ok();
        }
        let ip = if self.tuple.is_v4() { ipv4::ETHERTYPE } else { ipv6::ETHERTYPE };
        // Each header announces what follows it.
        let follows = |i: usize| self.l2.vlan.and_then(|v| v.tags().nth(i)).map_or(ip, |tag| tag.ethertype);
        let header = EthernetHeader { dst: self.l2.dst.0, src: self.l2.src.0, ethertype: follows(0).into() };
        let mut rest = header.write_to_prefix(to).ok().and_then(|()| to.get_mut(ETHERNET_LEN..))?;
        for (i, tag) in self.l2.vlan.iter().flat_map(|v| v.tags()).enumerate() {
            let tag = VlanTag { tci: tag.tci.into(), ethertype: follows(i + 1).into() };
            tag.write_to_prefix(rest).ok()?;
            rest = rest.get_mut(TAG_LEN..)?;
        }
        Some(())
    }
}
