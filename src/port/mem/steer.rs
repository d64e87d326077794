//! Which queue a frame belongs to, and the few header fields the log shows.
//!
//! The link reads headers on its own, by fixed offsets and leniently: it carries malformed frames too, and must not
//! share a fault with the parser that is tested over it.

use crate::wire::{Addr, Endpoint, Flags, Tuple};

/// Header fields of a TCP frame as the link sees them.
pub(super) struct Glance {
    pub src: Endpoint,
    pub dst: Endpoint,
    pub seq: u32,
    pub ack: u32,
    pub flags: Flags,
    pub window: u16,
    pub payload: usize,
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    b.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

fn be32(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// Reads a frame that is TCP over IPv4 or IPv6 with at most two VLAN tags and no extension header. `wire_len` is its
/// whole length when `frame` is only the first part of it.
pub(super) fn glance(frame: &[u8], wire_len: usize) -> Option<Glance> {
    let mut at = 12;
    let mut ether = be16(frame, at)?;
    for _ in 0..2 {
        if ether == 0x8100 || ether == 0x88a8 {
            at += 4;
            ether = be16(frame, at)?;
        }
    }
    let ip = at + 2;
    let (src, dst, tcp, end) = match ether {
        0x0800 => {
            if *frame.get(ip + 9)? != 6 {
                return None;
            }
            let header = usize::from(frame.get(ip)? & 0x0f) * 4;
            let src: [u8; 4] = frame.get(ip + 12..ip + 16)?.try_into().ok()?;
            let dst: [u8; 4] = frame.get(ip + 16..ip + 20)?.try_into().ok()?;
            let end = ip + usize::from(be16(frame, ip + 2)?);
            (Addr::v4(src), Addr::v4(dst), ip + header, end)
        }
        0x86dd => {
            if *frame.get(ip + 6)? != 6 {
                return None;
            }
            let src: [u8; 16] = frame.get(ip + 8..ip + 24)?.try_into().ok()?;
            let dst: [u8; 16] = frame.get(ip + 24..ip + 40)?.try_into().ok()?;
            let end = ip + 40 + usize::from(be16(frame, ip + 4)?);
            (Addr::v6(src), Addr::v6(dst), ip + 40, end)
        }
        _ => return None,
    };
    let data = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
    Some(Glance {
        src: Endpoint::new(src, be16(frame, tcp)?),
        dst: Endpoint::new(dst, be16(frame, tcp + 2)?),
        seq: be32(frame, tcp + 4)?,
        ack: be32(frame, tcp + 8)?,
        flags: Flags::from_bits(*frame.get(tcp + 13)?),
        window: be16(frame, tcp + 14)?,
        payload: end.min(wire_len).saturating_sub(data),
    })
}

/// One end's share of the flow hash: FNV-1a over address and port.
fn hash_end(end: Endpoint) -> u64 {
    let bytes = end.addr.octets().iter().copied().chain(end.port.to_be_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// The queue, of `queues`, that frames of a flow land at; the same for both directions and for the tuple as seen from
/// either end.
#[must_use]
pub fn queue_of(tuple: &Tuple, queues: usize) -> usize {
    queue_by(tuple, queues, 0)
}

/// The same by another table of queues: some flows are elsewhere than by table 0, the others where they were.
fn queue_by(tuple: &Tuple, queues: usize, table: u64) -> usize {
    // Adding keeps it symmetric; the multiplication spreads the sum into the bits that are used.
    let sum = hash_end(tuple.local).wrapping_add(hash_end(tuple.remote));
    let mixed = (sum ^ (sum >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    // As a NIC does: the low bits of the hash name a slot of a table, the slot a queue.
    let slot = mixed & 127;
    let moved = if table == 0 { 0 } else { (slot ^ table).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 };
    ((mixed + moved) % queues.max(1) as u64) as usize
}

/// The queue a frame belongs to; 0 for what is no TCP.
pub(super) fn queue_of_frame(frame: &[u8], queues: usize, table: u64) -> usize {
    flow_of(frame).map_or(0, |tuple| queue_by(&tuple, queues, table))
}

/// The flow of a frame as its receiver names it; `None` for what is no TCP.
#[must_use]
pub fn flow_of(frame: &[u8]) -> Option<Tuple> {
    glance(frame, frame.len()).map(|g| Tuple { local: g.dst, remote: g.src })
}
