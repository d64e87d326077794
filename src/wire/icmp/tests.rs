//! ICMP errors by type and code, their checks, and what is not one.

use super::*;
use crate::wire::tests::{ack_header, frame, hex, l2, slow_sum, tuple};
use crate::wire::{Checksums, Parsed, Tuple, parse};
use proptest::prelude::*;

/// An ICMP message of the family in a frame from host 9 to the local end, with a right checksum.
fn message(v4: bool, head: [u8; 8], quote: &[u8]) -> Vec<u8> {
    let mut body = head.to_vec();
    body.extend(quote);
    body[2..4].fill(0);
    let mut out = hex("020000000001 020000000002");
    if v4 {
        let check = !slow_sum(&body);
        body[2..4].copy_from_slice(&check.to_be_bytes());
        let mut ip = hex("45000000 00004000 4001 0000 c0000209 c0000201");
        ip[2..4].copy_from_slice(&(20 + body.len() as u16).to_be_bytes());
        let check = !slow_sum(&ip);
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        out.extend(hex("0800"));
        out.extend(ip);
    } else {
        let addresses = hex("20010db8000000000000000000000009 20010db8000000000000000000000001");
        let mut pseudo = addresses.clone();
        pseudo.extend((body.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, 58]);
        pseudo.extend(&body);
        let check = !slow_sum(&pseudo);
        body[2..4].copy_from_slice(&check.to_be_bytes());
        out.extend(hex("86dd 60000000"));
        out.extend((body.len() as u16).to_be_bytes());
        out.extend([58, 64]);
        out.extend(addresses);
    }
    out.extend(body);
    out
}

/// The packet that a segment of the local end makes, as an error would quote it.
fn quote(t: &Tuple) -> Vec<u8> {
    frame(l2(None), t, &ack_header(), 0, b"data")[14..].to_vec()
}

/// An error frame about a segment of ours.
pub(crate) fn error_frame(v4: bool, kind: u8, code: u8, rest: u32) -> Vec<u8> {
    let mut head = [kind, code, 0, 0, 0, 0, 0, 0];
    head[4..].copy_from_slice(&rest.to_be_bytes());
    message(v4, head, &quote(&tuple(v4)))
}

fn verdict(bytes: &[u8]) -> Result<IcmpKind, DropReason> {
    match parse(bytes, Checksums::Verify)? {
        Parsed::Icmp(e) => Ok(e.kind),
        Parsed::Tcp(t) => panic!("parsed as TCP: {t:?}"),
    }
}

#[test]
fn d16_types_and_codes() {
    use IcmpKind::{Hard, Soft, TooBig};
    let no = Err(DropReason::NotTcp);
    let rows = [
        ("v4 network unreachable", true, 3, 0, Ok(Soft)),
        ("v4 host unreachable", true, 3, 1, Ok(Soft)),
        ("v4 protocol unreachable", true, 3, 2, Ok(Hard)),
        ("v4 port unreachable", true, 3, 3, Ok(Hard)),
        ("v4 fragmentation needed", true, 3, 4, Ok(TooBig { mtu: 1400 })),
        ("v4 source route failed", true, 3, 5, Ok(Soft)),
        ("v4 network prohibited", true, 3, 9, Ok(Hard)),
        ("v4 host prohibited", true, 3, 10, Ok(Hard)),
        ("v4 filtered", true, 3, 13, Ok(Hard)),
        ("v4 unknown code", true, 3, 200, Ok(Soft)),
        ("v4 time exceeded", true, 11, 0, Ok(Soft)),
        ("v4 parameter problem", true, 12, 0, Ok(Soft)),
        ("v4 source quench", true, 4, 0, no),
        ("v4 redirect", true, 5, 0, no),
        ("v4 echo", true, 8, 0, no),
        ("v4 echo reply", true, 0, 0, no),
        ("v4 unknown type", true, 99, 0, no),
        ("v6 no route", false, 1, 0, Ok(Soft)),
        ("v6 prohibited", false, 1, 1, Ok(Hard)),
        ("v6 address unreachable", false, 1, 3, Ok(Soft)),
        ("v6 port unreachable", false, 1, 4, Ok(Hard)),
        ("v6 reject route", false, 1, 6, Ok(Hard)),
        ("v6 packet too big", false, 2, 0, Ok(TooBig { mtu: 0x0001_0578 })),
        ("v6 time exceeded", false, 3, 0, Ok(Soft)),
        ("v6 parameter problem", false, 4, 0, Ok(Soft)),
        ("v6 unrecognized next header", false, 4, 1, Ok(Hard)),
        ("v6 echo", false, 128, 0, no),
        ("v6 neighbour solicitation", false, 135, 0, no),
    ];
    for (name, v4, kind, code, want) in rows {
        // The high half of the MTU word counts in IPv6 only.
        assert_eq!(verdict(&error_frame(v4, kind, code, 0x0001_0578)), want, "{name}");
    }
}

#[test]
fn the_quote_names_the_segment_as_seen_from_here() {
    for v4 in [true, false] {
        let got = parse(&error_frame(v4, if v4 { 3 } else { 1 }, 3, 0), Checksums::Verify);
        let Ok(Parsed::Icmp(e)) = got else {
            panic!("{got:?}");
        };
        assert_eq!(e.tuple, tuple(v4));
        assert_eq!(e.seq, ack_header().seq);
    }
}

#[test]
fn eight_bytes_of_tcp_are_enough_and_seven_are_not() {
    for (v4, ip_len, kind) in [(true, 20, 3), (false, 40, 1)] {
        let whole = quote(&tuple(v4));
        let head = [kind, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(verdict(&message(v4, head, &whole[..ip_len + 8])), Ok(IcmpKind::Soft));
        for len in 0..ip_len + 8 {
            assert_eq!(
                verdict(&message(v4, head, &whole[..len])),
                Err(DropReason::BadIcmp),
                "quote of {len} bytes"
            );
        }
    }
}

#[test]
fn a_quote_that_is_not_ours_or_not_tcp_is_refused() {
    let head = [3, 1, 0, 0, 0, 0, 0, 0];
    let good = quote(&tuple(true));
    let with = |at: usize, value: &[u8]| {
        let mut q = good.clone();
        q[at..at + value.len()].copy_from_slice(value);
        q
    };
    let bad = Err(DropReason::BadIcmp);
    let rows = [
        ("as it was sent", good.clone(), Ok(IcmpKind::Soft)),
        ("TTL decremented, checksum not mended", with(8, &[1]), Ok(IcmpKind::Soft)),
        ("first fragment", with(6, &[0x20, 0]), Ok(IcmpKind::Soft)),
        ("later fragment has no ports", with(6, &[0, 1]), bad),
        ("another source than the error's destination", with(12, &[192, 0, 2, 77]), bad),
        ("a multicast destination", with(16, &[224, 0, 0, 1]), bad),
        ("source port 0", with(20, &[0, 0]), bad),
        ("destination port 0", with(22, &[0, 0]), bad),
        ("version 6 within ICMP", with(0, &[0x65]), bad),
        ("header length 4", with(0, &[0x44]), bad),
        ("UDP", with(9, &[17]), Err(DropReason::NotTcp)),
    ];
    for (name, q, want) in rows {
        assert_eq!(verdict(&message(true, head, &q)), want, "{name}");
    }
}

#[test]
fn options_and_extension_headers_in_the_quote_are_skipped() {
    let good = quote(&tuple(true));
    let mut with_options = good[..20].to_vec();
    with_options[0] = 0x46;
    with_options.extend([1, 1, 1, 0]);
    with_options.extend(&good[20..]);
    let head = [3, 1, 0, 0, 0, 0, 0, 0];
    assert_eq!(verdict(&message(true, head, &with_options)), Ok(IcmpKind::Soft));

    let good = quote(&tuple(false));
    let mut with_destination = good[..40].to_vec();
    with_destination[6] = 60;
    with_destination.extend([6, 0, 1, 4, 0, 0, 0, 0]);
    with_destination.extend(&good[40..]);
    let head = [1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(verdict(&message(false, head, &with_destination)), Ok(IcmpKind::Soft));
}

#[test]
fn an_error_about_another_protocol_is_not_tcp() {
    for (name, next) in [("UDP", 17), ("ICMPv6", 58), ("no next header", 59)] {
        let mut q = quote(&tuple(false));
        q[6] = next;
        let bytes = message(false, [1, 0, 0, 0, 0, 0, 0, 0], &q);
        assert_eq!(verdict(&bytes), Err(DropReason::NotTcp), "{name}");
    }
    let mut q = quote(&tuple(false));
    q[0] = 0x40;
    let bytes = message(false, [1, 0, 0, 0, 0, 0, 0, 0], &q);
    assert_eq!(verdict(&bytes), Err(DropReason::BadIcmp), "version 4 within ICMPv6");
}

#[test]
fn the_other_family_s_icmp_means_nothing() {
    let mut bytes = error_frame(false, 1, 0, 0);
    bytes[20] = 1;
    assert_eq!(verdict(&bytes), Err(DropReason::NotTcp));
    let mut bytes = error_frame(true, 3, 0, 0);
    bytes[23] = 58;
    bytes[24..26].fill(0);
    let check = !slow_sum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&check.to_be_bytes());
    assert_eq!(verdict(&bytes), Err(DropReason::NotTcp));
}

proptest! {
    #[test]
    fn a_wrong_byte_anywhere_in_the_message_is_noticed(
        v4 in any::<bool>(),
        at in any::<prop::sample::Index>(),
        xor in 1u8..,
    ) {
        let mut bytes = error_frame(v4, if v4 { 3 } else { 1 }, 4, 1280);
        let start = if v4 { 34 } else { 54 };
        let at = start + at.index(bytes.len() - start);
        bytes[at] ^= xor;
        prop_assert!(parse(&bytes, Checksums::Verify).is_err(), "byte {}", at);
        // The promise of unfinished checksums is for TCP alone.
        prop_assert!(parse(&bytes, Checksums::AcceptUnfinished).is_err(), "byte {}", at);
    }

    #[test]
    fn any_quote_with_a_right_checksum_never_panics(
        v4 in any::<bool>(),
        code in 0u8..16,
        quote in prop::collection::vec(any::<u8>(), 0..120),
        plausible in any::<bool>(),
    ) {
        let mut quote = quote;
        if plausible && let Some(first) = quote.first_mut() {
            *first = if v4 { 0x40 | (*first & 0x0f) } else { 0x60 };
        }
        let kind = if v4 { 3 } else { 1 };
        if let Ok(Parsed::Icmp(e)) = parse(&message(v4, [kind, code, 0, 0, 0, 0, 0, 0], &quote), Checksums::Verify) {
            prop_assert_eq!(e.tuple.local.addr, tuple(v4).local.addr);
        }
    }

    #[test]
    fn every_tuple_and_sequence_number_is_read_back(
        v4 in any::<bool>(),
        remote_port in 1u16..,
        seq in any::<u32>(),
        mtu in any::<u16>(),
    ) {
        let mut t = tuple(v4);
        t.remote.port = remote_port;
        let header = crate::wire::Header { seq: SeqNum::new(seq), ..ack_header() };
        let quoted = frame(l2(None), &t, &header, 0, &[])[14..].to_vec();
        let [hi, lo] = mtu.to_be_bytes();
        let (kind, code) = if v4 { (3, 4) } else { (2, 0) };
        let got = parse(&message(v4, [kind, code, 0, 0, 0, 0, hi, lo], &quoted), Checksums::Verify);
        let want = IcmpError { tuple: t, seq: SeqNum::new(seq), kind: IcmpKind::TooBig { mtu: u32::from(mtu) } };
        prop_assert_eq!(got, Ok(Parsed::Icmp(want)));
    }
}
