//! The Internet checksum (RFC 1071): one's complement sums, pseudo headers, and what a port promises about them.
//!
//! Sums are kept in the machine's byte order and turned only when folded; RFC 1071 §2(B) says why that is the
//! same sum.

use super::Addr;

/// Whether the port's peers can hand over frames whose transport checksum is unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Every checksum is verified; a wrong one is a counted drop.
    Verify,
    /// As `Verify`, but a TCP checksum that equals the folded pseudo-header sum is accepted: what a veth peer
    /// with `tx-checksumming` hands over (the device would have finished it).
    AcceptUnfinished,
}

/// IP protocol number of TCP (IANA protocol numbers).
pub(crate) const PROTO_TCP: u8 = 6;
/// IP protocol number of ICMP.
pub(crate) const PROTO_ICMP: u8 = 1;
/// IP next header number of `ICMPv6`.
pub(crate) const PROTO_ICMPV6: u8 = 58;

/// A one's complement sum in progress, not yet folded to 16 bits.
///
/// Each part adds less than 2³³ + 2³², so 2³⁰ parts fit before the 64 bits could overflow; a segment has five.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes that begin at an even offset of what is summed. An odd length counts as if a zero byte
    /// followed, so it is right for the last part only.
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks::<8>();
        let mut acc = if words.len() <= SHORT { sum_short(words) } else { sum_long(words) };
        // Headers are whole words, so mostly half a word is left or nothing.
        let (half, tail) =
            tail.split_first_chunk::<4>().map_or((0, tail), |(h, t)| (u32::from_ne_bytes(*h), t));
        acc += u64::from(half);
        if !tail.is_empty() {
            let mut last = [0u8; 4];
            for (to, from) in last.iter_mut().zip(tail) {
                *to = *from;
            }
            acc += u64::from(u32::from_ne_bytes(last));
        }
        Self(self.0 + (acc & 0xffff_ffff) + (acc >> 32))
    }

    /// Adds a 16-bit field given in host order.
    #[inline]
    pub const fn add_u16(self, value: u16) -> Self {
        Self(self.0 + value.to_be() as u64)
    }

    /// Adds a 32-bit field given in host order.
    #[inline]
    pub const fn add_u32(self, value: u32) -> Self {
        Self(self.0 + value.to_be() as u64)
    }

    /// The sum folded to 16 bits, in host order, not complemented. Zero only when everything summed was zero.
    #[must_use]
    #[inline]
    pub const fn fold(self) -> u16 {
        u16::from_be(fold(self.0))
    }

    /// The checksum field's value in host order: the complement of the folded sum.
    #[must_use]
    #[inline]
    pub const fn finish(self) -> u16 {
        !self.fold()
    }

    /// Whether a sum over data that includes its checksum field says that the data is whole.
    #[must_use]
    #[inline]
    pub const fn is_whole(self) -> bool {
        self.fold() == 0xffff
    }
}

/// Words of eight bytes that are added one by one: headers are that short. Higher: a payload is added slowly; lower: for a
/// header the other way takes longer to begin than it saves.
const SHORT: usize = 8;

/// The sum of a few words, as one whose halves do not carry out of 33 bits.
#[inline]
fn sum_short(words: &[[u8; 8]]) -> u64 {
    let acc = words.iter().fold(0u64, |acc, word| {
        let (sum, carry) = acc.overflowing_add(u64::from_ne_bytes(*word));
        // What is carried out comes back in at the bottom, where it finds room: a sum that overflowed is not the largest.
        sum + u64::from(carry)
    });
    (acc & 0xffff_ffff) + (acc >> 32)
}

/// The sum of many words.
fn sum_long(words: &[[u8; 8]]) -> u64 {
    let mut acc = 0u64;
    for word in words {
        // Halves never carry out of 64 bits, unlike whole words, so the loop needs no carry and vectorises.
        let w = u64::from_ne_bytes(*word);
        acc += (w & 0xffff_ffff) + (w >> 32);
    }
    acc
}

/// A sum of 16 bits from one of 64: upper and lower half are added, and what is carried out at the top comes back in at the
/// bottom, for the halves are added both ways round.
#[inline]
const fn fold(sum: u64) -> u16 {
    let words = (sum.wrapping_add(sum.rotate_right(32)) >> 32) as u32;
    (words.wrapping_add(words.rotate_right(16)) >> 16) as u16
}

/// The folded sum of words in host order, as a [`Sum`] of bytes folds: what is written from them has no byte order yet.
#[inline]
pub(crate) fn fold_words(words: &[u32]) -> u16 {
    fold(words.iter().map(|&w| u64::from(w)).sum())
}

/// The sum of one run of bytes.
#[inline]
pub fn sum(bytes: &[u8]) -> Sum {
    Sum::default().add_bytes(bytes)
}

/// The sum of the pseudo header: IPv4 (RFC 9293 §3.1) or IPv6 (RFC 8200 §8.1), by the family of `src`.
///
/// `len` is the upper-layer packet's length in bytes: TCP header, options and payload. Both families give the
/// same sum for the same length below 65,536, as zero bytes add nothing.
#[inline]
pub fn pseudo(src: &Addr, dst: &Addr, protocol: u8, len: u32) -> Sum {
    let ends = match (src.as_v4(), dst.as_v4()) {
        (Some(s), Some(d)) => Sum::default().add_u32(u32::from_be_bytes(s)).add_u32(u32::from_be_bytes(d)),
        _ => sum(src.octets()).add_bytes(dst.octets()),
    };
    ends.add_u16(u16::from(protocol)).add_u32(len)
}

/// Whether a TCP segment's checksum passes under `policy`. `field` is the checksum field in host order.
///
/// Linux leaves `~tcp_v4_check(len, saddr, daddr, 0)` in a `CHECKSUM_PARTIAL` segment (`net/ipv4/tcp_ipv4.c`,
/// `__tcp_v4_send_check`; `net/ipv6/tcp_ipv6.c` alike): the folded pseudo-header sum without the complement, over
/// the length of TCP header, options and payload. Software segmentation keeps that true for each segment it cuts
/// (`net/ipv4/tcp_offload.c`). The sum holds the protocol number and so is never zero: no second form to accept.
#[must_use]
#[inline]
pub(crate) fn tcp_ok(policy: Checksums, src: &Addr, dst: &Addr, segment: &[u8], field: u16) -> bool {
    segment_ok(policy, pseudo(src, dst, PROTO_TCP, segment.len() as u32).fold(), segment, field)
}

/// As [`tcp_ok`], where the sum of the pseudo header is known.
#[inline]
pub(super) fn segment_ok(policy: Checksums, pseudo: u16, segment: &[u8], field: u16) -> bool {
    sum(segment).add_u16(pseudo).is_whole() || (policy == Checksums::AcceptUnfinished && pseudo == field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::slow_sum;
    use proptest::prelude::*;

    #[test]
    fn rfc1071_example() {
        let s = sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(s.fold(), 0xddf2);
        assert_eq!(s.finish(), !0xddf2);
    }

    #[test]
    fn nothing_sums_to_zero_and_ones_stay_ones() {
        assert_eq!(sum(&[]).fold(), 0);
        assert_eq!(sum(&[0; 33]).fold(), 0);
        assert_eq!(sum(&vec![0xff; 65_534]).fold(), 0xffff);
    }

    #[test]
    fn fields_add_like_their_bytes() {
        assert_eq!(Sum::default().add_u16(0x1234).fold(), sum(&0x1234u16.to_be_bytes()).fold());
        assert_eq!(Sum::default().add_u32(0x1234_5678).fold(), sum(&0x1234_5678u32.to_be_bytes()).fold());
    }

    #[test]
    fn pseudo_header_of_a_known_segment() {
        let s = Addr::v4([10, 0, 0, 1]);
        let d = Addr::v4([10, 0, 0, 2]);
        // 0a00 + 0001 + 0a00 + 0002 + 0006 + 0014
        assert_eq!(pseudo(&s, &d, PROTO_TCP, 20).fold(), 0x141d);
        let mut s6 = [0u8; 16];
        s6[0] = 0x20;
        let mut d6 = s6;
        d6[15] = 1;
        assert_eq!(
            pseudo(&Addr::v6(s6), &Addr::v6(d6), PROTO_TCP, 0x0001_0014).fold(),
            0x2000 + 0x2000 + 1 + 1 + 0x14 + 6
        );
    }

    proptest! {
        #[test]
        fn equals_the_slow_reference(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(sum(&bytes).fold(), slow_sum(&bytes));
        }

        #[test]
        fn parts_at_even_offsets_equal_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let at = (cut * 2).min(bytes.len() & !1);
            let (a, b) = bytes.split_at(at);
            prop_assert_eq!(sum(a).add_bytes(b).fold(), sum(&bytes).fold());
        }
    }
}
