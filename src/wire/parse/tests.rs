//! Frames by name of the case: real ones as a kernel sent them, and each way to be refused.

use super::*;
use crate::wire::tcp::Timestamps;
use crate::wire::tests::{ack_header, frame, hex, l2, slow_sum, tuple};
use crate::wire::{Describe, IcmpKind, L2, MacAddr, Options, Vlan};
use std::net::SocketAddr;

// Captured on a veth pair between two namespaces with default offloads (Linux 6): the TCP checksums are unfinished.
const SYN_V4: &str = "02000000000b 02000000000a 0800
    4500003cbf2640004006f791c0000201c0000202
    bf8e1f90737097b100000000a002faf084320000 020405b40402080ad474a7810000000001 03030a";
const DATA_V4: &str = "02000000000b 02000000000a 0800
    45000039bf2840004006f792c0000201c0000202
    bf8e1f90737097b2acead3ce8018003f842f0000 0101080ad474a781465c5d50 68656c6c6f";
const SYN_ACK_V6: &str = "02000000000a 02000000000b 86dd
    600537e000280640 20010db8000000000000000000000002 20010db8000000000000000000000001
    1f90890883cbd4f2676a837ca012fb045ba30000 020405a00402080a139ec04b494818b30103030a";
const DATA_V6: &str = "02000000000b 02000000000a 86dd
    6006285b00250640 20010db8000000000000000000000001 20010db8000000000000000000000002
    89081f90676a837c83cbd4f3801800405ba00000 0101080a494818b3139ec04b 68656c6c6f";
const HOST_UNREACHABLE_V4: &str = "02000000000a 02000000000b 0800
    45c000583db600004001b82bc0000202c0000201 0301153a00000000
    4500003c54f640004006e7bec0000201cb007105 a5d600503c0483db00000000a002faf0fe350000
    020405b40402080a7f4b5178000000000103030a";
const REJECT_ROUTE_V6: &str = "02000000000a 02000000000b 86dd
    6007a11300583a40 20010db8000000000000000000000002 20010db8000000000000000000000001 0100bfb900000000
    6002320900280640 20010db8000000000000000000000001 20010db8000900000000000000000005
    bc620050a84cea1b00000000a002fd205baf0000 020405a00402080ab941d65c000000000103030a";

fn end(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().expect("an address and a port").into()
}

pub(crate) fn drop_of(bytes: &[u8]) -> Option<DropReason> {
    parse(bytes, Checksums::Verify).err()
}

#[test]
fn an_ipv4_mapped_address_on_the_wire_is_refused() {
    let mapped = Addr::v4([192, 0, 2, 9]);
    for at in [22, 38] {
        let mut bytes = hex(SYN_ACK_V6);
        bytes[at..at + 16].copy_from_slice(mapped.octets());
        assert_eq!(drop_of(&bytes), Some(DropReason::BadAddress), "at {at}");
    }
}

pub(crate) fn tcp_of(bytes: &[u8], checksums: Checksums) -> TcpFrame {
    match parse(bytes, checksums) {
        Ok(Parsed::Tcp(t)) => t,
        other => panic!("not TCP: {other:?}"),
    }
}

/// Puts an IPv4 header's checksum right after an edit.
fn mend_ipv4(bytes: &mut [u8], at: usize) {
    let len = usize::from(bytes[at] & 0x0f) * 4;
    bytes[at + 10..at + 12].fill(0);
    let check = !slow_sum(&bytes[at..at + len]);
    bytes[at + 10..at + 12].copy_from_slice(&check.to_be_bytes());
}

/// Sets the TCP checksum of an IPv4 frame without options.
fn mend_tcp_v4(bytes: &mut [u8]) {
    bytes[50..52].fill(0);
    let tcp = &bytes[34..];
    let mut all = bytes[26..34].to_vec();
    all.extend([0, 6]);
    all.extend((tcp.len() as u16).to_be_bytes());
    all.extend(tcp);
    let check = !slow_sum(&all);
    bytes[50..52].copy_from_slice(&check.to_be_bytes());
}

/// A frame of the family with an edit that is not mended.
pub(crate) fn edited(v4: bool, at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = frame(l2(None), &tuple(v4), &ack_header(), 0, b"data");
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

/// An IPv4 frame with an edit, both checksums right again.
fn mended(at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = edited(true, at, value);
    mend_ipv4(&mut bytes, 14);
    mend_tcp_v4(&mut bytes);
    bytes
}

#[test]
fn captured_segments() {
    let rows = [
        (
            "SYN v4",
            SYN_V4,
            0x62d1,
            "192.0.2.1:49038",
            "SYN seq=1936758705 win=64240 <mss 1460,sackOK,ts 3564414849 0,wscale 10>",
            "",
        ),
        (
            "data v4",
            DATA_V4,
            0x23fd,
            "192.0.2.1:49038",
            "PSH,ACK seq=1936758706 ack=2901070798 win=63 len=5 <ts 3564414849 1180458320>",
            "hello",
        ),
        (
            "SYN-ACK v6",
            SYN_ACK_V6,
            0xcf64,
            "[2001:db8::2]:8080",
            "SYN,ACK seq=2211173618 ack=1735033724 win=64260 <mss 1440,sackOK,ts 329171019 1229461683,wscale 10>",
            "",
        ),
        (
            "data v6",
            DATA_V6,
            0xb505,
            "[2001:db8::1]:35080",
            "PSH,ACK seq=1735033724 ack=2211173619 win=64 len=5 <ts 1229461683 329171019>",
            "hello",
        ),
    ];
    for (name, text, finished, remote, line, payload) in rows {
        let mut bytes = hex(text);
        assert_eq!(
            drop_of(&bytes),
            Some(DropReason::BadTcpChecksum),
            "{name}: unfinished is wrong elsewhere"
        );
        let t = tcp_of(&bytes, Checksums::AcceptUnfinished);
        assert_eq!(t.tuple.remote, end(remote), "{name}");
        assert_eq!(Describe::new(&t.header, t.payload_len()).to_string(), line, "{name}");
        assert_eq!(
            &bytes[usize::from(t.payload.start)..usize::from(t.payload.end)],
            payload.as_bytes(),
            "{name}"
        );

        // With the checksum that tcpdump works out, any port takes it; with any other, none.
        let at = if t.tuple.is_v4() { 50 } else { 70 };
        bytes[at..at + 2].copy_from_slice(&u16::to_be_bytes(finished));
        assert_eq!(tcp_of(&bytes, Checksums::Verify), t, "{name}: finished");
        assert_eq!(tcp_of(&bytes, Checksums::AcceptUnfinished), t, "{name}: finished");
        bytes[at] ^= 0x10;
        let got = parse(&bytes, Checksums::AcceptUnfinished);
        assert_eq!(got, Err(DropReason::BadTcpChecksum), "{name}: neither");
    }
}

#[test]
fn unfinished_holds_the_length_of_header_options_and_payload() {
    // One byte less of payload than the sum says: neither finished nor the pseudo header's.
    let mut bytes = hex(DATA_V4);
    bytes.pop();
    bytes[16..18].copy_from_slice(&0x38u16.to_be_bytes());
    mend_ipv4(&mut bytes, 14);
    let got = parse(&bytes, Checksums::AcceptUnfinished);
    assert_eq!(got, Err(DropReason::BadTcpChecksum));
}

#[test]
fn captured_icmp_errors() {
    let rows = [
        ("v4", HOST_UNREACHABLE_V4, "192.0.2.1:42454", "203.0.113.5:80", 1_006_928_859, IcmpKind::Soft),
        ("v6", REJECT_ROUTE_V6, "[2001:db8::1]:48226", "[2001:db8:9::5]:80", 2_823_612_955, IcmpKind::Soft),
    ];
    for (name, text, local, remote, seq, kind) in rows {
        let want = crate::wire::IcmpError {
            tuple: Tuple { local: end(local), remote: end(remote) },
            seq: SeqNum::new(seq),
            kind,
        };
        assert_eq!(parse(&hex(text), Checksums::Verify), Ok(Parsed::Icmp(want)), "{name}");
    }
}

#[test]
fn i01_ipv4_options_are_skipped() {
    let plain = frame(l2(None), &tuple(true), &ack_header(), 0, b"data");
    for words in 1..=10u8 {
        let mut bytes = plain.clone();
        let options = vec![1u8; usize::from(words) * 4];
        bytes.splice(34..34, options);
        bytes[14] = 0x45 + words;
        let total = (bytes.len() - 14) as u16;
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        mend_ipv4(&mut bytes, 14);
        let t = tcp_of(&bytes, Checksums::Verify);
        assert_eq!(t.header, ack_header(), "{words} words");
        assert_eq!(&bytes[usize::from(t.payload.start)..usize::from(t.payload.end)], b"data");
        bytes[34] ^= 1;
        assert_eq!(drop_of(&bytes), Some(DropReason::BadIpChecksum), "options are under the checksum");
    }
}

#[test]
fn i01_ipv4_header_is_checked() {
    let rows = [
        ("version 5", edited(true, 14, &[0x55]), DropReason::BadIpHeader),
        ("header of 4 words", edited(true, 14, &[0x44]), DropReason::BadIpHeader),
        ("total length below the header", edited(true, 16, &[0, 19]), DropReason::BadIpHeader),
        ("total length beyond the frame", edited(true, 16, &[5, 0xdc]), DropReason::Truncated),
        ("TTL changed", edited(true, 22, &[63]), DropReason::BadIpChecksum),
        ("checksum 0", edited(true, 24, &[0, 0]), DropReason::BadIpChecksum),
        ("UDP", edited(true, 23, &[17]), DropReason::NotTcp),
        ("header only", edited(true, 14, &[])[..30].to_vec(), DropReason::Truncated),
    ];
    for (name, bytes, want) in rows {
        assert_eq!(drop_of(&bytes), Some(want), "{name}");
    }
}

#[test]
fn i03_vlan_tags() {
    let plain = frame(l2(None), &tuple(true), &ack_header(), 0, b"data");
    let rows = [
        ("none", "", "-"),
        ("802.1Q", "81006007", "24583"),
        ("priority tag", "8100a000", "40960"),
        ("QinQ", "88a80064 81000007", "88a8:100.7"),
        ("old QinQ", "91000064 81000007", "9100:100.7"),
        ("two C-tags", "81000064 81000007", "100.7"),
        ("a lone S-tag", "88a80064", "88a8:100"),
        ("two S-tags", "88a80064 88a80007", "88a8:100.88a8:7"),
    ];
    for (name, tags, want) in rows {
        let mut bytes = plain.clone();
        bytes.splice(12..12, hex(tags));
        let t = tcp_of(&bytes, Checksums::Verify);
        assert_eq!(t.l2.vlan.map_or("-".to_owned(), |v| v.to_string()), want, "{name}");
        assert_eq!(&bytes[usize::from(t.payload.start)..usize::from(t.payload.end)], b"data", "{name}");
        // An answer carries the very same tags.
        let answer = frame(t.l2.reply(), &tuple(true), &ack_header(), 0, b"data");
        assert_eq!(answer[12..12 + hex(tags).len()], hex(tags), "{name}");
        assert_eq!(answer[12 + hex(tags).len()..], plain[12..], "{name}");
    }
    let mut three = plain.clone();
    three.splice(12..12, hex("88a80064 81000007 81000008"));
    assert_eq!(drop_of(&three), Some(DropReason::NotIp), "three tags");
    assert_eq!(drop_of(&hex("020000000002 020000000001 8100 00")), Some(DropReason::Truncated));
    assert_eq!(drop_of(&hex("020000000002 020000000001 0806 0001")), Some(DropReason::NotIp), "ARP");
    assert_eq!(drop_of(&[]), Some(DropReason::Truncated), "nothing");
}

#[test]
fn i04_padding_is_ignored() {
    let bare = Header { options: Options::default(), ..ack_header() };
    for v4 in [true, false] {
        for payload in [&b""[..], b"x"] {
            let whole = frame(l2(None), &tuple(v4), &bare, 0, payload);
            let t = tcp_of(&whole, Checksums::Verify);
            for pad in [1, 6, 46, 500] {
                let mut padded = whole.clone();
                padded.resize(whole.len() + pad, 0xff);
                assert_eq!(tcp_of(&padded, Checksums::Verify), t, "v4 {v4}, {pad} bytes of padding");
                assert_eq!(t.payload_len(), payload.len());
            }
        }
    }
}

#[test]
fn r05_addresses() {
    let rows = [
        ("destination MAC broadcast", edited(true, 0, &[0xff; 6])),
        ("destination MAC multicast", edited(false, 0, &[0x33, 0x33])),
        ("source MAC multicast", edited(true, 6, &[0x01])),
        ("source 0.0.0.0", mended(26, &[0; 4])),
        ("source multicast", mended(26, &[224, 0, 0, 1])),
        ("source broadcast", mended(26, &[255; 4])),
        ("destination multicast", mended(30, &[239, 1, 2, 3])),
        ("destination broadcast", mended(30, &[255; 4])),
        ("source ::", edited(false, 22, &[0; 16])),
        ("source ff02::1", edited(false, 22, &[0xff, 0x02])),
        ("destination ff02::1", edited(false, 38, &[0xff, 0x02])),
        ("source v4-mapped", edited(false, 22, &Addr::v4([192, 0, 2, 9]).octets()[..])),
        ("destination v4-mapped", edited(false, 38, &Addr::v4([192, 0, 2, 9]).octets()[..])),
    ];
    for (name, bytes) in rows {
        assert_eq!(drop_of(&bytes), Some(DropReason::BadAddress), "{name}");
    }
}

#[test]
fn r05_land() {
    for v4 in [true, false] {
        let mut t = tuple(v4);
        t.remote = t.local;
        let bytes = frame(l2(None), &t, &ack_header(), 0, b"");
        assert_eq!(drop_of(&bytes), Some(DropReason::BadAddress));
        t.remote.port += 1;
        let bytes = frame(l2(None), &t, &ack_header(), 0, b"");
        assert_eq!(drop_of(&bytes), None, "a host may talk to itself on another port");
    }
}

#[test]
fn r05_ports_and_offsets() {
    let rows = [
        ("source port 0", mended(34, &[0, 0]), DropReason::BadPort),
        ("destination port 0", mended(36, &[0, 0]), DropReason::BadPort),
        ("data offset 0", mended(46, &[0x00]), DropReason::BadDataOffset),
        ("data offset 4", mended(46, &[0x40]), DropReason::BadDataOffset),
        ("data offset beyond the segment", mended(46, &[0xa0]), DropReason::BadDataOffset),
    ];
    for (name, bytes, want) in rows {
        assert_eq!(drop_of(&bytes), Some(want), "{name}");
    }
    let reserved = tcp_of(&mended(46, &[0x8f]), Checksums::Verify);
    assert_eq!(reserved.header, ack_header(), "reserved bits are ignored (RFC 9293 §3.1)");
    let all = tcp_of(&mended(46, &[0x90]), Checksums::Verify);
    assert_eq!(all.payload_len(), 0, "the offset may reach the segment's end");

    let mut cut = edited(true, 16, &[0, 39]);
    mend_ipv4(&mut cut, 14);
    assert_eq!(drop_of(&cut), Some(DropReason::Truncated), "19 bytes of TCP");
}

#[test]
fn r05_flags() {
    let (fin, syn, rst) = (Flags::FIN.bits(), Flags::SYN.bits(), Flags::RST.bits());
    let ack = Flags::ACK.bits();
    for bits in 0..=u8::MAX {
        let control = bits & (fin | syn | rst | ack);
        let want = if control == 0 || (bits & syn != 0 && bits & (fin | rst) != 0) {
            Some(DropReason::BadFlags)
        } else {
            None
        };
        assert_eq!(drop_of(&mended(47, &[bits])), want, "{}", Flags::from_bits(bits));
    }
    let named = [
        ("no flags", 0, true),
        ("PSH and URG alone", 0x28, true),
        ("SYN, FIN", syn | fin, true),
        ("SYN, RST", syn | rst, true),
        ("everything", 0xff, true),
        ("SYN with ECN set-up", syn | 0xc0, false),
        ("FIN without ACK is the state machine's", fin, false),
        ("RST, FIN is a reset", rst | fin, false),
        ("urgent data", ack | 0x20, false),
    ];
    for (name, bits, refused) in named {
        assert_eq!(drop_of(&mended(47, &[bits])) == Some(DropReason::BadFlags), refused, "{name}");
    }
}

#[test]
fn r05_bad_checksum() {
    for (name, v4, at) in [("v4 payload", true, 66), ("v6 payload", false, 86), ("v6 source", false, 37)] {
        assert_eq!(drop_of(&edited(v4, at, &[0x77])), Some(DropReason::BadTcpChecksum), "{name}");
    }
}

#[test]
fn r06_fragments() {
    let rows: [(&str, [u8; 2], _); 6] = [
        ("DF", [0x40, 0], None),
        ("neither", [0, 0], None),
        ("reserved bit", [0x80, 0], None),
        ("first", [0x20, 0], Some(DropReason::Fragment)),
        ("middle", [0x20, 0x10], Some(DropReason::Fragment)),
        ("last", [0, 1], Some(DropReason::Fragment)),
    ];
    for (name, value, want) in rows {
        assert_eq!(drop_of(&mended(20, &value)), want, "{name}");
    }
}

#[test]
fn o06_malformed_options_keep_the_segment() {
    let t = tcp_of(&mended(54, &[0xfd, 0x00]), Checksums::Verify);
    assert!(t.header.options.malformed);
    assert_eq!(t.header.options.timestamps, None);
    assert_eq!(t.payload_len(), 4);
}

#[test]
fn what_an_answer_needs_is_kept() {
    let bytes = frame(l2(Some(5)), &tuple(true), &ack_header(), 3, b"");
    let t = tcp_of(&bytes, Checksums::Verify);
    let want =
        L2 { src: MacAddr([2, 0, 0, 0, 0, 1]), dst: MacAddr([2, 0, 0, 0, 0, 2]), vlan: Some(Vlan::new(5)) };
    assert_eq!((t.l2, t.ecn), (want, 3));
    assert_eq!(t.header.options.timestamps, Some(Timestamps { val: 7, ecr: 9 }));
}
