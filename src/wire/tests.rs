//! Round trips and hostile bytes across the whole layer, and the builders that the modules' own tests share.

use super::tcp::Timestamps;
use super::vlan::Tag;
use super::*;
use crate::drop::DropReason;
use proptest::prelude::*;

/// RFC 1071's sum the slow way: 16 bits at a time, in network order.
pub(crate) fn slow_sum(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Bytes of a hex string; blanks are free.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("a hex digit") as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2), "an odd number of digits");
    digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
}

/// A tuple of documentation addresses, `local` first.
pub(crate) fn tuple(v4: bool) -> Tuple {
    let end = |last: u8, port| {
        let addr = if v4 {
            Addr::v4([192, 0, 2, last])
        } else {
            let mut a = [0; 16];
            a[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
            a[15] = last;
            Addr::v6(a)
        };
        Endpoint::new(addr, port)
    };
    Tuple { local: end(1, 443), remote: end(2, 50_000) }
}

/// A link layer with individual addresses.
pub(crate) fn l2(vlan: Option<u16>) -> L2 {
    tagged(vlan.map(Vlan::new))
}

/// The same with these tags.
pub(crate) fn tagged(vlan: Option<Vlan>) -> L2 {
    L2 { src: MacAddr([2, 0, 0, 0, 0, 1]), dst: MacAddr([2, 0, 0, 0, 0, 2]), vlan }
}

/// None, one or two tags, of every kind.
fn any_vlan() -> impl Strategy<Value = Option<Vlan>> {
    let tag = || (prop::sample::select(vec![0x8100, 0x88a8, 0x9100]), any::<u16>());
    prop::collection::vec(tag(), 0..=2).prop_map(|tags| {
        tags.into_iter().fold(None, |vlan, (ethertype, tci)| Vlan::with(vlan, Tag { ethertype, tci }))
    })
}

/// A whole frame with right checksums.
pub(crate) fn frame(l2: L2, tuple: &Tuple, header: &Header, ecn: u8, payload: &[u8]) -> Vec<u8> {
    let e = Emit { l2, tuple, header, ttl: 64, ecn, ip_id: 0x1234 };
    let at = e.headers_len();
    let mut buf = vec![0xee; at + payload.len()];
    buf[at..].copy_from_slice(payload);
    let len = e.emit(&mut buf, payload.len()).expect("the buffer is large enough");
    assert_eq!(len, buf.len());
    buf
}

/// An ACK with a timestamp.
pub(crate) fn ack_header() -> Header {
    Header {
        seq: SeqNum::new(1000),
        ack: SeqNum::new(2000),
        flags: Flags::ACK,
        window: 502,
        options: Options { timestamps: Some(Timestamps { val: 7, ecr: 9 }), ..Options::default() },
    }
}

fn any_options(syn: bool) -> impl Strategy<Value = Options> {
    (
        prop::option::of(1u16..),
        prop::option::of(any::<u8>()),
        any::<bool>(),
        prop::option::of(any::<(u32, u32)>()),
        prop::collection::vec(any::<(u32, u32)>(), 0..=4),
    )
        .prop_map(move |(mss, scale, permitted, ts, blocks)| {
            let mut o =
                Options { timestamps: ts.map(|(val, ecr)| Timestamps { val, ecr }), ..Options::default() };
            if syn {
                o.mss = mss;
                o.window_scale = scale;
                o.sack_permitted = permitted;
            } else {
                // Three fit next to a timestamp (RFC 2018 §3).
                let room = if ts.is_some() { 3 } else { 4 };
                for (to, (left, right)) in o.sack.iter_mut().zip(blocks.iter().take(room)) {
                    *to = (SeqNum::new(*left), SeqNum::new(*right));
                    o.sack_len += 1;
                }
            }
            o
        })
}

fn any_header() -> impl Strategy<Value = Header> {
    let flags = prop_oneof![
        Just(Flags::SYN),
        Just(Flags::SYN | Flags::ACK),
        Just(Flags::SYN | Flags::ECE | Flags::CWR),
        Just(Flags::ACK),
        Just(Flags::ACK | Flags::PSH),
        Just(Flags::ACK | Flags::FIN),
        Just(Flags::RST),
        Just(Flags::RST | Flags::ACK),
    ];
    (flags, any::<u32>(), any::<u32>(), any::<u16>()).prop_flat_map(|(flags, seq, ack, window)| {
        any_options(flags.syn()).prop_map(move |options| Header {
            seq: SeqNum::new(seq),
            ack: SeqNum::new(ack),
            flags,
            window,
            options,
        })
    })
}

/// A frame that any mutation may start from: TCP or an ICMP error, both families, tagged or not.
fn any_valid_frame() -> impl Strategy<Value = Vec<u8>> {
    let tcp = (any_header(), any::<bool>(), any_vlan(), prop::collection::vec(any::<u8>(), 0..64))
        .prop_map(|(h, v4, vlan, payload)| frame(tagged(vlan), &tuple(v4), &h, 0, &payload));
    let icmp = (any::<bool>(), any::<u8>(), any::<u8>(), any::<u32>())
        .prop_map(|(v4, kind, code, rest)| super::icmp::tests::error_frame(v4, kind, code, rest));
    prop_oneof![tcp, icmp]
}

/// The way of the plain shape takes what the general one takes of that shape, and reads the same.
fn both_ways_agree(bytes: &[u8], checksums: Checksums) {
    let (short, long) = (plain::read(bytes, checksums), parse::parse_any(bytes, checksums));
    let is_plain = bytes.get(12..15) == Some(&[0x08, 0x00, 0x45]);
    match (short, long) {
        (Some(t), long) => assert_eq!(Ok(Parsed::Tcp(t)), long),
        (None, Ok(Parsed::Tcp(_))) => assert!(!is_plain, "the plain shape goes the long way"),
        (None, Ok(Parsed::Icmp(_)) | Err(_)) => {}
    }
}

/// Makes both checksums of a plain frame right, as far as it reaches.
fn mend_checksums(bytes: &mut [u8]) {
    let Some(ip) = bytes.get_mut(14..34) else { return };
    ip[10..12].fill(0);
    let check = !slow_sum(ip);
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    let (end, ends) = (14 + usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip[12..20].to_vec());
    let Some(tcp) = bytes.get_mut(34..end).filter(|t| t.len() >= 20) else { return };
    tcp[16..18].fill(0);
    let pseudo = [&ends[..], &[0, 6], &(tcp.len() as u16).to_be_bytes(), tcp].concat();
    let check = !slow_sum(&pseudo);
    tcp[16..18].copy_from_slice(&check.to_be_bytes());
}

/// What `parse` promises of anything it accepts.
fn accepted_is_consistent(bytes: &[u8]) {
    for checksums in [Checksums::Verify, Checksums::AcceptUnfinished] {
        both_ways_agree(bytes, checksums);
        if let Ok(Parsed::Tcp(t)) = parse(bytes, checksums) {
            assert!(t.payload.start <= t.payload.end && usize::from(t.payload.end) <= bytes.len());
            assert!(t.tuple.local.port != 0 && t.tuple.remote.port != 0);
            assert_eq!(t.tuple.local.addr.is_v4(), t.tuple.remote.addr.is_v4());
            let _ = Describe::new(&t.header, t.payload_len()).to_string();
        }
    }
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_alike(
        header in any_header(),
        v4 in any::<bool>(),
        vlan in any_vlan(),
        ecn in 0u8..4,
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..16),
            prop::collection::vec(any::<u8>(), 0..=1460),
        ],
    ) {
        let t = tuple(v4);
        let bytes = frame(tagged(vlan), &t, &header, ecn, &payload);
        let link_len = 14 + vlan.map_or(0, |v| 4 * v.tags().count());
        let ip_len = if v4 { 20 } else { 40 };
        prop_assert_eq!(
            bytes.len(),
            link_len + ip_len + 20 + options_len(&header.options) + payload.len()
        );
        checksums_are_right(&bytes[link_len..], v4);
        let Ok(Parsed::Tcp(got)) = parse(&bytes, Checksums::Verify) else {
            return Err(TestCaseError::fail("not parsed as TCP"));
        };
        prop_assert_eq!(got.l2, tagged(vlan));
        prop_assert_eq!(got.tuple, t.flipped());
        prop_assert_eq!(got.ecn, ecn);
        prop_assert_eq!(got.header, header);
        prop_assert_eq!(&bytes[usize::from(got.payload.start)..usize::from(got.payload.end)], &payload[..]);
    }

    #[test]
    fn any_single_wrong_byte_of_the_packet_is_noticed(
        header in any_header(),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        at in any::<prop::sample::Index>(),
        xor in 1u8..,
    ) {
        let mut bytes = frame(l2(None), &tuple(true), &header, 0, &payload);
        let at = 14 + at.index(bytes.len() - 14);
        bytes[at] ^= xor;
        prop_assert!(parse(&bytes, Checksums::Verify).is_err(), "byte {} changed by {:#x}", at, xor);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        accepted_is_consistent(&bytes);
    }

    #[test]
    fn random_bytes_behind_a_plausible_start_never_panic(
        v4 in any::<bool>(),
        protocol in prop::sample::select(vec![6u8, 1, 58, 0, 43, 44, 60]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = hex("020000000001 020000000002");
        if v4 {
            bytes.extend(hex("0800 45000000 12344000 40"));
            bytes.push(protocol);
            bytes.extend(hex("0000 c0000201 c0000202"));
            bytes[16..18].copy_from_slice(&(20 + rest.len() as u16).to_be_bytes());
            let check = !slow_sum(&bytes[14..34]);
            bytes[24..26].copy_from_slice(&check.to_be_bytes());
        } else {
            bytes.extend(hex("86dd 60000000"));
            bytes.extend((rest.len() as u16).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend(hex("20010db8000000000000000000000001 20010db8000000000000000000000002"));
        }
        bytes.extend(&rest);
        accepted_is_consistent(&bytes);
    }

    #[test]
    fn mutations_and_every_truncation_never_panic(
        bytes in any_valid_frame(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = bytes;
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for len in 0..=bytes.len() {
            accepted_is_consistent(&bytes[..len]);
        }
    }

    #[test]
    fn both_ways_to_read_agree_on_wrong_frames_with_right_checksums(
        header in any_header(),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        padding in 0usize..8,
    ) {
        let mut bytes = frame(l2(None), &tuple(true), &header, 0, &payload);
        bytes.resize(bytes.len() + padding, 0);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        mend_checksums(&mut bytes);
        for checksums in [Checksums::Verify, Checksums::AcceptUnfinished] {
            both_ways_agree(&bytes, checksums);
        }
    }

    #[test]
    fn both_ways_to_write_agree(
        header in any_header(),
        known in prop_oneof![Just(None), any::<u8>().prop_map(Some)],
        v4 in any::<bool>(),
        (ttl, ecn, ip_id) in (any::<u8>(), any::<u8>(), any::<u16>()),
        payload in prop::collection::vec(any::<u8>(), 0..100),
        room in 60usize..200,
    ) {
        let mut header = header;
        if let Some(n) = known {
            let o = &mut header.options;
            let timestamps = Some(o.timestamps.unwrap_or_default());
            *o = if n % 2 == 0 {
                Options { timestamps, ..Options::default() }
            } else {
                let (mss, window_scale) = (Some(o.mss.unwrap_or(1460)), Some(n / 2));
                Options { mss, window_scale, sack_permitted: true, timestamps, ..Options::default() }
            };
        }
        let t = tuple(v4);
        let e = Emit { l2: l2(None), tuple: &t, header: &header, ttl, ecn, ip_id };
        let mut buffers = [vec![0xa5; room], vec![0xa5; room]];
        for b in &mut buffers {
            if let Some(to) = b.get_mut(e.headers_len()..).filter(|to| to.len() >= payload.len()) {
                to[..payload.len()].copy_from_slice(&payload);
            }
        }
        let [short, long] = &mut buffers;
        let (a, b) = (plain::write(&e, short, payload.len()), e.emit_any(long, payload.len()));
        if v4 && known.is_some() {
            prop_assert_eq!(a, b);
        }
        if a.is_some() {
            prop_assert_eq!(a, b);
            prop_assert_eq!(short, long);
        }
    }

    #[test]
    fn every_truncation_of_a_valid_frame_is_refused(bytes in any_valid_frame()) {
        for len in 0..bytes.len() {
            prop_assert!(parse(&bytes[..len], Checksums::Verify).is_err(), "accepted {} bytes", len);
        }
    }
}

/// Both checksums of an IP packet, by the slow sum and a pseudo header written out by hand.
fn checksums_are_right(ip: &[u8], v4: bool) {
    let mut pseudo = Vec::new();
    let tcp = if v4 {
        assert_eq!(slow_sum(&ip[..20]), 0xffff, "IPv4 header checksum");
        pseudo.extend(&ip[12..20]);
        &ip[20..]
    } else {
        pseudo.extend(&ip[8..40]);
        &ip[40..]
    };
    pseudo.extend((tcp.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, 6]);
    pseudo.extend(tcp);
    assert_eq!(slow_sum(&pseudo), 0xffff, "TCP checksum");
}

#[test]
fn every_payload_length_round_trips() {
    let payload: Vec<u8> = (0..1460u32).map(|i| (i * 7) as u8).collect();
    for v4 in [true, false] {
        for len in 0..=payload.len() {
            let bytes = frame(l2(None), &tuple(v4), &ack_header(), 0, &payload[..len]);
            checksums_are_right(&bytes[14..], v4);
            match parse(&bytes, Checksums::Verify) {
                Ok(Parsed::Tcp(t)) => assert_eq!(t.payload_len(), len),
                other => panic!("{len} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn i05_an_answer_is_written_into_the_received_frame() {
    for (name, v4, vlan) in [("v4", true, None), ("v6", false, None), ("tagged", true, Some(5))] {
        let syn = Header { flags: Flags::SYN, ..ack_header() };
        let mut buf = frame(l2(vlan), &tuple(v4), &syn, 0, &[]);
        buf.resize(2048, 0x55);
        let Ok(Parsed::Tcp(got)) = parse(&buf, Checksums::Verify) else {
            panic!("{name}: the SYN is not parsed");
        };
        let header = Header {
            flags: Flags::SYN | Flags::ACK,
            options: Options {
                mss: Some(1460),
                window_scale: Some(7),
                sack_permitted: true,
                ..got.header.options
            },
            ..got.header
        };
        let reply =
            Emit { l2: got.l2.reply(), tuple: &got.tuple, header: &header, ttl: 64, ecn: 0, ip_id: 0 };
        let len = reply.emit(&mut buf, 0).expect("fits");
        let Ok(Parsed::Tcp(back)) = parse(&buf[..len], Checksums::Verify) else {
            panic!("{name}: the answer is not parsed");
        };
        assert_eq!(back.l2, got.l2.reply(), "{name}");
        assert_eq!(back.tuple, tuple(v4), "{name}");
        assert_eq!(back.header, header, "{name}");
    }
}

#[test]
fn i06_ipv4_has_df_the_given_id_and_ttl() {
    let t = tuple(true);
    let header = ack_header();
    let e = Emit { l2: l2(None), tuple: &t, header: &header, ttl: 57, ecn: 2, ip_id: 0xbeef };
    let mut buf = [0u8; 128];
    let len = e.emit(&mut buf, 0).expect("fits");
    assert_eq!(len, 14 + 20 + 32);
    assert_eq!(buf[15], 2, "ECN, and DSCP 0");
    assert_eq!(buf[18..20], [0xbe, 0xef], "identification");
    assert_eq!(buf[20..22], [0x40, 0x00], "DF and no offset");
    assert_eq!(buf[22], 57, "TTL");

    let t6 = tuple(false);
    let len = Emit { tuple: &t6, ..e }.emit(&mut buf, 0).expect("fits");
    assert_eq!(len, 14 + 40 + 32);
    assert_eq!(buf[14..18], [0x60, 0x20, 0, 0], "version, ECN, no flow label");
    assert_eq!(buf[21], 57, "hop limit");
}

#[test]
fn emit_refuses_what_it_cannot_write() {
    let v4 = tuple(true);
    let mixed = Tuple { local: v4.local, remote: tuple(false).remote };
    let header = ack_header();
    let e = Emit { l2: l2(None), tuple: &v4, header: &header, ttl: 64, ecn: 0, ip_id: 0 };
    let need = e.headers_len() + 10;
    let mut small = vec![0xaa; need - 1];
    assert_eq!(e.emit(&mut small, 10), None, "one byte short");
    assert!(small.iter().all(|b| *b == 0xaa), "nothing is written");
    assert_eq!(e.emit(&mut vec![0; need], 10), Some(need), "just enough");
    assert_eq!(e.emit(&mut vec![0; 70_000], 65_536), None, "no IP packet is that long");
    assert_eq!(e.emit(&mut small, usize::MAX), None, "no overflow");
    assert_eq!(Emit { tuple: &mixed, ..e }.emit(&mut vec![0; need], 10), None, "mixed families");
}

#[test]
fn a_slice_longer_than_a_port_frame_does_not_wrap_the_range() {
    let t = tuple(false);
    let header = ack_header();
    let e = Emit { l2: l2(None), tuple: &t, header: &header, ttl: 64, ecn: 0, ip_id: 0 };
    let payload = 65_535 - 40 - 32;
    let mut buf = vec![0; e.headers_len() + payload];
    let len = e.emit(&mut buf, payload).expect("as long as emit allows");
    assert_eq!(len, 14 + 65_535);
    assert_eq!(parse(&buf, Checksums::Verify), Err(DropReason::BadIpHeader));
}
