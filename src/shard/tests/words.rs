//! Phrases that several files of tests use.

use super::harness::{Harness, Seg, Setup, Syn};
use crate::metrics::block::Retransmission;
use crate::wire::{Flags, Header};

/// The flag of a plain segment.
pub const ACK: [Flags; 1] = [Flags::ACK];

/// A plain acknowledgment.
pub fn ack(n: i64) -> Seg {
    Seg::new(&ACK).ack(n)
}

/// The shard has sent data next; whether with PSH is not looked at. Gives its header.
#[track_caller]
pub fn data(h: &mut Harness, seq: i64, len: usize) -> Header {
    let psh = h.out.front().is_some_and(|s| s.header.flags.has(Flags::PSH));
    let seg = if psh { Seg::new(&[Flags::PSH, Flags::ACK]) } else { Seg::new(&ACK) };
    h.recv(&seg.seq(seq).len(len))
}

/// A peer that takes part in nothing but the MSS of 1,000 bytes.
pub fn thousand(tune: impl FnOnce(&mut Setup)) -> Harness {
    let mut h = Harness::tuned(tune);
    h.handshake(Syn { mss: Some(1000), ..Syn::PLAIN });
    h
}

/// How often something was sent again for this reason.
pub fn retransmissions(h: &mut Harness, kind: Retransmission) -> u64 {
    h.counters().retransmissions[kind as usize]
}

/// Rewrites the checksum of an IPv4 TCP frame without IP options.
pub fn reseal_tcp(frame: &mut [u8]) {
    frame[50..52].fill(0);
    let mut sum = 6 + (frame.len() - 34) as u32;
    for part in [&frame[26..34], &frame[34..]] {
        for w in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[50..52].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
