//! Segments to frames and back, without the engine's own writer: what it sends and takes is judged by other code.

use super::syntax::{Opt, Seg};
use finwheel::wire::{Endpoint, MacAddr, Tuple};

/// MAC address of the scripted peer.
pub const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// MAC address of the shard.
pub const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// How the script's numbers become those on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bases {
    /// Number 0 of the peer's sequence space.
    pub peer: u32,
    /// Number 0 of the shard's, once it has sent a SYN.
    pub ours: Option<u32>,
    /// Timestamp 0 of the peer's clock.
    pub peer_ts: u32,
    /// Timestamp 0 of the shard's clock, once it has sent one.
    pub our_ts: Option<u32>,
}

/// A script's number on the wire.
pub const fn wire(base: u32, n: i64) -> u32 {
    base.wrapping_add(n as u32)
}

/// A number from the wire as a script writes it: the near half of the space below zero.
pub fn script(base: u32, raw: u32) -> i64 {
    i64::from(raw.wrapping_sub(base).cast_signed())
}

/// Payload by place in the stream, counted as the script does.
pub fn pattern(at: i64, len: usize) -> impl Iterator<Item = u8> {
    (at..).take(len).map(|i| i.rem_euclid(251) as u8)
}

/// Bytes of options; `raw` follows them.
fn option_bytes(list: &[Opt], b: &Bases, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let blocks = list.iter().filter(|o| matches!(o, Opt::Sack(..))).count();
    let mut sack_begun = false;
    for o in list {
        match *o {
            Opt::Nop => out.push(1),
            Opt::Mss(n) => {
                out.extend([2, 4]);
                out.extend(n.to_be_bytes());
            }
            Opt::WScale(n) => out.extend([3, 3, n]),
            Opt::SackOk => out.extend([4, 2]),
            Opt::Ts(val, ecr) => {
                out.extend([8, 10]);
                out.extend(b.peer_ts.wrapping_add(val).to_be_bytes());
                out.extend(b.our_ts.map_or(0, |t| t.wrapping_add(ecr)).to_be_bytes());
            }
            Opt::Sack(from, to) => {
                if !std::mem::replace(&mut sack_begun, true) {
                    out.extend([5, 2 + 8 * blocks as u8]);
                }
                for n in [from, to] {
                    out.extend(wire(b.ours.unwrap_or(0), n).to_be_bytes());
                }
            }
        }
    }
    out.extend(raw);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// The options that the shard sent, exactly as they lie there.
pub fn read_options(mut bytes: &[u8], b: &Bases) -> Result<Vec<Opt>, String> {
    let mut out = Vec::new();
    let word = |s: &[u8]| u32::from_be_bytes([s[0], s[1], s[2], s[3]]);
    while let Some((&kind, rest)) = bytes.split_first() {
        if kind == 1 {
            out.push(Opt::Nop);
            bytes = rest;
            continue;
        }
        let len = usize::from(*rest.first().ok_or("an option without length")?);
        if len < 2 || len > bytes.len() {
            return Err(format!("an option of kind {kind} with length {len}"));
        }
        let value = &bytes[2..len];
        match (kind, len) {
            (2, 4) => out.push(Opt::Mss(u16::from_be_bytes([value[0], value[1]]))),
            (3, 3) => out.push(Opt::WScale(value[0])),
            (4, 2) => out.push(Opt::SackOk),
            (8, 10) => {
                let val = word(value).wrapping_sub(b.our_ts.unwrap_or_else(|| word(value)));
                // An echo of nothing is 0 on the wire (RFC 7323 §3.2).
                let ecr = if word(&value[4..]) == 0 { 0 } else { word(&value[4..]).wrapping_sub(b.peer_ts) };
                out.push(Opt::Ts(val, ecr));
            }
            (5, _) => {
                for block in value.chunks_exact(8) {
                    out.push(Opt::Sack(script(b.peer, word(block)), script(b.peer, word(&block[4..]))));
                }
            }
            _ => return Err(format!("an option of kind {kind} with length {len}")),
        }
        bytes = &bytes[len..];
    }
    Ok(out)
}

/// The raw timestamp of the shard in a list of options, if there is one.
pub fn raw_timestamp(options: &[u8]) -> Option<u32> {
    let at = options.windows(2).position(|w| w == [8, 10])?;
    options.get(at + 2..at + 6).map(|v| u32::from_be_bytes([v[0], v[1], v[2], v[3]]))
}

fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u32;
    for part in parts {
        for w in part.chunks(2) {
            total += u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

fn octets(e: &Endpoint) -> Vec<u8> {
    e.addr.as_v4().map_or_else(|| e.addr.octets().to_vec(), |o| o.to_vec())
}

/// The TCP part of a segment from `t.local` to `t.remote`, with its checksum.
fn tcp(seg: &Seg, t: &Tuple, b: &Bases, fault: &str) -> Vec<u8> {
    let raw: &[u8] = match fault {
        "unknown_option" => &[253, 4, 7, 7],
        "bad_option_length" => &[253, 1, 1, 1],
        "option_beyond_header" => &[253, 40, 1, 1],
        _ => &[],
    };
    let options = option_bytes(seg.options.as_deref().unwrap_or(&[]), b, raw);
    let words = match fault {
        "data_offset_short" => 4,
        "data_offset_long" => 15,
        _ => 5 + options.len() / 4,
    };
    let mut out = Vec::new();
    for port in [t.local.port, t.remote.port] {
        out.extend(port.to_be_bytes());
    }
    out.extend(wire(b.peer, seg.seq).to_be_bytes());
    out.extend(seg.ack.map_or(0, |a| wire(b.ours.unwrap_or(0), a)).to_be_bytes());
    out.extend([(words << 4) as u8, seg.flags]);
    out.extend(seg.win.unwrap_or(0).to_be_bytes());
    out.extend([0, 0, 0, u8::from(seg.flags & 0x20 != 0)]);
    out.extend(options);
    out.extend(pattern(seg.seq + i64::from(seg.flags & 2 != 0), usize::from(seg.len)));
    let len = (out.len() as u32).to_be_bytes();
    let sum = sum(&[&octets(&t.local), &octets(&t.remote), &len, &[0, 6], &out]);
    out[16..18].copy_from_slice(&sum.to_be_bytes());
    if fault == "bad_tcp_sum" {
        out[17] ^= 1;
    }
    out
}

fn ipv4(t: &Tuple, ecn: u8, payload: &[u8], fault: &str) -> Vec<u8> {
    let options: &[u8] = if fault == "ip_options" { &[1, 1, 1, 0] } else { &[] };
    let words = 5 + options.len() / 4;
    let total = (words * 4 + payload.len()) as u16;
    let mut out = vec![0x40 | words as u8, ecn];
    out.extend(total.to_be_bytes());
    let fragment: u16 = if fault == "fragment" { 0x2000 } else { 0x4000 };
    out.extend([0, 1]);
    out.extend(fragment.to_be_bytes());
    out.extend([64, 6, 0, 0]);
    out.extend(octets(&t.local));
    out.extend(octets(&t.remote));
    out.extend(options);
    let sum = sum(&[&out]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    if fault == "bad_ip_sum" {
        out[11] ^= 1;
    }
    out.extend(payload);
    out
}

fn ipv6(t: &Tuple, ecn: u8, payload: &[u8], fault: &str) -> Vec<u8> {
    let (next, extension): (u8, &[u8]) = match fault {
        // Destination options with one PadN; a fragment header that says more follow.
        "ip_options" => (60, &[6, 0, 1, 4, 0, 0, 0, 0]),
        "fragment" => (44, &[6, 0, 0, 1, 0, 0, 0, 1]),
        _ => (6, &[]),
    };
    // The traffic class lies across the first two bytes.
    let mut out = vec![0x60, ecn << 4, 0, 0];
    out.extend(((extension.len() + payload.len()) as u16).to_be_bytes());
    out.extend([next, 64]);
    out.extend(octets(&t.local));
    out.extend(octets(&t.remote));
    out.extend(extension);
    out.extend(payload);
    out
}

/// A frame with this segment from `t.local` to `t.remote`; `fault` names what is wrong or odd about it, or is empty.
pub fn frame(seg: &Seg, t: &Tuple, b: &Bases, fault: &str) -> Vec<u8> {
    let segment = tcp(seg, t, b, fault);
    let (ethertype, packet) = if t.is_v4() {
        (0x0800u16, ipv4(t, seg.ecn, &segment, fault))
    } else {
        (0x86dd, ipv6(t, seg.ecn, &segment, fault))
    };
    let mut out = Vec::new();
    out.extend(OUR_MAC.0);
    out.extend(PEER_MAC.0);
    match fault {
        "vlan" => out.extend([0x81, 0, 0, 5]),
        "qinq" => out.extend([0x88, 0xa8, 0, 9, 0x81, 0, 0, 5]),
        _ => {}
    }
    out.extend(ethertype.to_be_bytes());
    out.extend(packet);
    match fault {
        "truncated" => out.truncate(out.len() - 10),
        "padding" => out.extend([0xee; 6]),
        _ => {}
    }
    out
}
