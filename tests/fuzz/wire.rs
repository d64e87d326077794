//! Frames, options, ICMP: bytes to headers and back.

use crate::engine::Reader;
use finwheel::wire::{
    self, Addr, Checksums, Emit, Endpoint, Flags, Header, L2, MacAddr, Options, Parsed, SeqNum, Tuple,
};

/// Reads arbitrary bytes as a frame, as they are and with their checksums mended, for random bytes hardly ever sum up.
pub fn frame(bytes: &[u8]) {
    let _ = wire::parse(bytes, Checksums::AcceptUnfinished);
    written_and_read_again(bytes);
    let mut mended = bytes.to_vec();
    if mend(&mut mended).is_some() {
        written_and_read_again(&mended);
    }
}

/// Makes the checksums of an IPv4 or IPv6 segment right, as far as its lengths can be followed.
fn mend(frame: &mut [u8]) -> Option<()> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2)?, [0x81 | 0x91, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    let v4 = frame.get(at..at + 2)? == [8, 0];
    let ip = frame.get_mut(at + 2..)?;
    let (header, len, ends) = if v4 {
        let header = usize::from(*ip.first()? & 15) * 4;
        ip.get_mut(10..12)?.fill(0);
        let check = sum(ip.get(..header)?);
        ip.get_mut(10..12)?.copy_from_slice(&check.to_be_bytes());
        (header, usize::from(u16::from_be_bytes([ip[2], ip[3]])).checked_sub(header)?, 12..20)
    } else {
        (40, usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?])), 8..40)
    };
    let mut pseudo = ip.get(ends)?.to_vec();
    pseudo.extend((len as u32 + 6).to_be_bytes());
    let segment = ip.get_mut(header..header + len)?;
    segment.get_mut(16..18)?.fill(0);
    pseudo.extend(&*segment);
    let check = sum(&pseudo);
    segment.get_mut(16..18)?.copy_from_slice(&check.to_be_bytes());
    Some(())
}

/// What is a segment is written by the engine's writer and must read the same.
fn written_and_read_again(whole: &[u8]) {
    let Ok(Parsed::Tcp(seg)) = &wire::parse(whole, Checksums::Verify) else { return };
    assert!(usize::from(seg.payload.end) <= whole.len() && seg.payload.start <= seg.payload.end);
    let payload = &whole[usize::from(seg.payload.start)..usize::from(seg.payload.end)];
    assert_eq!(seg.seg_len(), seg.header.seg_len(payload.len()));

    let again = rewrite(whole, seg);
    let Ok(Parsed::Tcp(second)) = wire::parse(&again, Checksums::Verify) else {
        panic!("what was written cannot be read");
    };
    assert_eq!((second.l2, second.tuple, second.ecn), (seg.l2, seg.tuple, seg.ecn));
    assert_eq!(second.header, emittable(&seg.header));
    assert_eq!(&again[usize::from(second.payload.start)..usize::from(second.payload.end)], payload);

    // One bit of the segment changed, and nobody believes it.
    let at = usize::from(second.payload.start).min(again.len() - 1);
    let mut flipped = again.clone();
    flipped[at] ^= 0x10;
    assert!(wire::parse(&flipped, Checksums::Verify).is_err(), "a changed bit at {at} is not noticed");
}

/// What of a header can be written: a malformed list of options is none, and blocks beyond the room are left out.
fn emittable(h: &Header) -> Header {
    let mut options = Options { malformed: false, ..h.options };
    let room = (wire::options_len(&options) - wire::options_len(&Options { sack_len: 0, ..options })) / 8;
    options.sack_len = options.sack_len.min(room as u8);
    for block in options.sack.iter_mut().skip(room) {
        *block = Default::default();
    }
    Header { options, ..*h }
}

/// The segment `seg` of `frame`, written by the engine's writer.
fn rewrite(frame: &[u8], seg: &wire::TcpFrame) -> Vec<u8> {
    let payload = &frame[usize::from(seg.payload.start)..usize::from(seg.payload.end)];
    let tuple = seg.tuple.flipped();
    let emit = Emit { l2: seg.l2, tuple: &tuple, header: &seg.header, ttl: 64, ecn: seg.ecn, ip_id: 7 };
    let mut out = vec![0; emit.headers_len() + payload.len()];
    let at = emit.headers_len();
    out[at..].copy_from_slice(payload);
    assert_eq!(emit.emit(&mut out, payload.len()), Some(out.len()));
    out
}

/// Reads arbitrary bytes as options, in and out of a SYN.
pub fn options(bytes: &[u8]) {
    for syn in [false, true] {
        let read = wire::options::parse(bytes, syn);
        assert!(usize::from(read.sack_len) <= read.sack.len());
        assert!(syn || (read.mss, read.window_scale, read.sack_permitted) == (None, None, false));
        assert!(!syn || read.sack_len == 0);
        assert_ne!(read.mss, Some(0));
        if read.malformed {
            assert_eq!(read, Options { malformed: true, ..Options::default() });
            continue;
        }
        let len = wire::options_len(&read);
        assert!(len <= wire::options::MAX_OPTIONS_LEN && len.is_multiple_of(4), "{len} bytes of options");
        let flags = if syn { Flags::SYN } else { Flags::ACK };
        let header = Header { flags, options: read, window: 1, seq: SeqNum::new(1), ack: SeqNum::new(0) };
        let tuple = Tuple {
            local: Endpoint::new(Addr::v4([10, 0, 0, 1]), 1),
            remote: Endpoint::new(Addr::v4([10, 0, 0, 2]), 2),
        };
        let emit = Emit { l2: L2::default(), tuple: &tuple, header: &header, ttl: 1, ecn: 0, ip_id: 0 };
        let mut out = vec![0; 128];
        let n = emit.emit(&mut out, 0).expect("headers fit");
        let Ok(Parsed::Tcp(seg)) = wire::parse(&out[..n], Checksums::Verify) else { panic!("unreadable") };
        assert_eq!(seg.header, emittable(&header));
    }
}

/// Addresses of the two ends in the ICMP target.
const OURS: [u8; 4] = [10, 0, 0, 1];
const THEIRS: [u8; 4] = [10, 0, 0, 9];
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn sum(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for w in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// An IPv4 ICMP message to us, as it stands but for its checksum.
pub fn icmp_frame(from: [u8; 4], to: [u8; 4], kind: u8, code: u8, rest: u32, quote: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, code, 0, 0];
    body.extend(rest.to_be_bytes());
    body.extend(quote);
    let check = sum(&body);
    body[2..4].copy_from_slice(&check.to_be_bytes());
    let mut ip = vec![0x45, 0];
    ip.extend((20 + body.len() as u16).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 1, 0, 0]);
    ip.extend(from);
    ip.extend(to);
    let check = sum(&ip);
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    let mut out = Vec::new();
    out.extend(MAC.0);
    out.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    out.extend(ip);
    out.extend(body);
    out
}

/// A whole ICMP message around an arbitrary quote. What is read must be what stands in the quote, and only a quote
/// of a segment from us to somebody else is read.
pub fn icmp(bytes: &[u8]) {
    let mut r = Reader(bytes);
    let (kind, code, rest) = (r.u8() % 16, r.u8() % 16, r.u32());
    let mut quote = r.0.to_vec();
    if kind & 1 != 0 && quote.len() >= 28 {
        // The rest of the way would hardly be found at random: a plausible header before the quoted ports.
        quote[0] = 0x45;
        quote[6] &= 0x60;
        quote[7] = 0;
        quote[9] = 6;
        quote[12..16].copy_from_slice(&OURS);
    }
    let frame = icmp_frame(THEIRS, OURS, kind, code, rest, &quote);
    match wire::parse(&frame, Checksums::Verify) {
        Ok(Parsed::Tcp(_)) => panic!("an ICMP message is no segment"),
        Ok(Parsed::Icmp(e)) => {
            let ihl = usize::from(quote[0] & 15) * 4;
            let at = |i: usize| u16::from_be_bytes([quote[ihl + i], quote[ihl + i + 1]]);
            assert_eq!((e.tuple.local.port, e.tuple.remote.port), (at(0), at(2)));
            assert_eq!(e.tuple.local.addr, Addr::v4(OURS), "it quotes a segment of somebody else");
            assert_eq!(e.tuple.remote.addr.as_v4().map(|a| a.to_vec()), Some(quote[16..20].to_vec()));
            assert_eq!(e.seq.raw(), u32::from(at(4)) << 16 | u32::from(at(6)));
            assert!(e.tuple.local.port != 0 && e.tuple.remote.port != 0 && e.tuple.remote.addr.is_unicast());
        }
        Err(_) => {}
    }
    // With the sum wrong it is never believed.
    let mut broken = frame;
    broken[14 + 20 + 3] ^= 1;
    assert!(wire::parse(&broken, Checksums::Verify).is_err());
    // And the bytes as an IPv6 packet's ICMP, without any help.
    let mut v6 = vec![0; 12];
    v6.extend([0x86, 0xdd]);
    v6.extend(bytes);
    assert!(!matches!(wire::parse(&v6, Checksums::Verify), Ok(Parsed::Tcp(_))) || bytes.len() >= 60);
}
