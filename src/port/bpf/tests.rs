//! The steering program's verdicts, frame by frame, in the kernel's own test harness (`BPF_PROG_TEST_RUN`): no
//! interface is touched. Needs the privilege to load programs; skipped without.

use super::*;
use aya::programs::{TestRun, TestRunOptions};
use std::sync::atomic::{AtomicU32, Ordering};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// A loaded program with no socket in its map: claimed frames show by being dropped while the lease runs.
fn steering() -> Option<Steering> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let link = LinkFacts {
        name: format!("fw-none-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)),
        index: 0,
        mac: crate::wire::MacAddr::default(),
        mtu: 1500,
        up: true,
        driver: String::new(),
        rx_queues: 2,
        tx_queues: 2,
    };
    match Steering::load(&link, DEFAULT_LEASE) {
        Ok(mut steering) => {
            steering.heartbeat().unwrap();
            Some(steering)
        }
        Err(e) if e.is_privilege() => {
            println!("skipped: {e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

fn run(steering: &mut Steering, frame: &[u8]) -> u32 {
    let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
    let program = program(&mut steering.ebpf).unwrap();
    program.test_run(options).unwrap().return_value
}

fn eth(tags: &[[u8; 4]], ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        f.extend(tag);
    }
    f.extend(ethertype.to_be_bytes());
    f.extend(rest);
    f
}

/// IPv4 with `options` words of options and the fragment field as given.
fn v4(src: [u8; 4], dst: [u8; 4], protocol: u8, options: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
    let mut p = vec![0x45 + options, 0, 0, 0, 0, 0];
    p.extend(fragment.to_be_bytes());
    p.extend([64, protocol, 0, 0]);
    p.extend(src);
    p.extend(dst);
    p.extend(vec![1; usize::from(options) * 4]);
    p.extend(rest);
    p
}

fn v6(src: [u8; 16], dst: [u8; 16], next: u8, rest: &[u8]) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    p.extend(src);
    p.extend(dst);
    p.extend(rest);
    p
}

fn tcp(src: u16, dst: u16) -> Vec<u8> {
    let mut t = Vec::from(src.to_be_bytes());
    t.extend(dst.to_be_bytes());
    t.extend([0; 16]);
    t
}

const PEER: [u8; 4] = [10, 77, 0, 2];
const OURS: [u8; 4] = [10, 77, 0, 1];
const PEER6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const OURS6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn to_v4(port: u16) -> Vec<u8> {
    eth(&[], 0x0800, &v4(PEER, OURS, 6, 0, 0, &tcp(40000, port)))
}

fn to_v6(port: u16) -> Vec<u8> {
    eth(&[], 0x86dd, &v6(PEER6, OURS6, 6, &tcp(40000, port)))
}

fn listen(at: &str) -> Claim {
    Claim::listen(at.parse().unwrap())
}

#[test]
fn claimed_addresses_and_ports_and_no_others() {
    let Some(mut s) = steering() else { return };
    s.claim(listen("10.77.0.1:80")).unwrap();
    s.claim(listen("[fd77::1]:443")).unwrap();
    let udp = eth(&[], 0x0800, &v4(PEER, OURS, 17, 0, 0, &tcp(40000, 80)));
    let arp = eth(&[], 0x0806, &[0; 28]);
    let other = eth(&[], 0x0800, &v4(PEER, [10, 77, 0, 9], 6, 0, 0, &tcp(40000, 80)));
    for (name, frame, want) in [
        ("v4 claimed", to_v4(80), XDP_DROP),
        ("v4 other port", to_v4(81), XDP_PASS),
        ("v4 port of the v6 claim", to_v4(443), XDP_PASS),
        ("v4 other address", other, XDP_PASS),
        ("v6 claimed", to_v6(443), XDP_DROP),
        ("v6 port of the v4 claim", to_v6(80), XDP_PASS),
        ("udp", udp, XDP_PASS),
        ("arp", arp, XDP_PASS),
    ] {
        assert_eq!(run(&mut s, &frame), want, "{name}");
    }
    s.unclaim(listen("10.77.0.1:80")).unwrap();
    s.unclaim(listen("10.77.0.1:80")).unwrap();
    assert_eq!(run(&mut s, &to_v4(80)), XDP_PASS, "after unclaim");
}

#[test]
fn the_unspecified_address_claims_a_port_for_its_family() {
    let Some(mut s) = steering() else { return };
    s.claim(listen("0.0.0.0:80")).unwrap();
    assert_eq!(run(&mut s, &to_v4(80)), XDP_DROP);
    assert_eq!(run(&mut s, &to_v4(81)), XDP_PASS);
    assert_eq!(run(&mut s, &to_v6(80)), XDP_PASS);
    s.claim(listen("[::]:81")).unwrap();
    assert_eq!(run(&mut s, &to_v6(81)), XDP_DROP);
    assert_eq!(run(&mut s, &to_v4(81)), XDP_PASS);
}

#[test]
fn a_range_of_local_ports_is_claimed_to_its_ends() {
    let Some(mut s) = steering() else { return };
    s.claim(Claim::LocalPorts { addr: Addr::v4(OURS), lo: 20000, hi: 29999 }).unwrap();
    for (port, want) in [(19999, XDP_PASS), (20000, XDP_DROP), (29999, XDP_DROP), (30000, XDP_PASS)] {
        assert_eq!(run(&mut s, &to_v4(port)), want, "{port}");
    }
}

#[test]
fn up_to_two_vlan_tags_and_ip_options_are_skipped() {
    let Some(mut s) = steering() else { return };
    s.claim(listen("10.77.0.1:80")).unwrap();
    let (q, ad) = ([0x81, 0, 0, 7], [0x88, 0xa8, 0, 9]);
    let ip = v4(PEER, OURS, 6, 0, 0, &tcp(40000, 80));
    let options = v4(PEER, OURS, 6, 10, 0, &tcp(40000, 80));
    for (name, frame, want) in [
        ("802.1Q", eth(&[q], 0x0800, &ip), XDP_DROP),
        ("QinQ", eth(&[ad, q], 0x0800, &ip), XDP_DROP),
        ("three tags", eth(&[ad, q, q], 0x0800, &ip), XDP_PASS),
        ("40 bytes of options", eth(&[], 0x0800, &options), XDP_DROP),
    ] {
        assert_eq!(run(&mut s, &frame), want, "{name}");
    }
}

#[test]
fn first_fragments_are_held_back_and_later_ones_go_to_the_kernel() {
    let Some(mut s) = steering() else { return };
    s.claim(listen("10.77.0.1:80")).unwrap();
    s.claim(listen("[fd77::1]:80")).unwrap();
    let first = v4(PEER, OURS, 6, 0, 0x2000, &tcp(40000, 80));
    let later = v4(PEER, OURS, 6, 0, 0x0003, &tcp(40000, 80));
    assert_eq!(run(&mut s, &eth(&[], 0x0800, &first)), XDP_DROP);
    assert_eq!(run(&mut s, &eth(&[], 0x0800, &later)), XDP_PASS);
    for (offset, want) in [(0x0001u16, XDP_DROP), (0x0009, XDP_PASS)] {
        let mut rest = vec![6, 0];
        rest.extend(offset.to_be_bytes());
        rest.extend([0, 0, 0, 1]);
        rest.extend(tcp(40000, 80));
        let frame = eth(&[], 0x86dd, &v6(PEER6, OURS6, 44, &rest));
        assert_eq!(run(&mut s, &frame), want, "IPv6 fragment field {offset:#x}");
    }
}

#[test]
fn extension_headers_are_walked_up_to_the_bound() {
    let Some(mut s) = steering() else { return };
    s.claim(listen("[fd77::1]:80")).unwrap();
    // Destination options of 8 and of 24 bytes, then an authentication header of 12 bytes (RFC 4302: length in
    // words minus 2).
    let mut rest = vec![60, 0, 1, 4, 0, 0, 0, 0];
    rest.extend([51, 2]);
    rest.extend([0; 22]);
    rest.extend([6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
    rest.extend(tcp(40000, 80));
    let frame = eth(&[], 0x86dd, &v6(PEER6, OURS6, 0, &rest));
    assert_eq!(run(&mut s, &frame), XDP_DROP);
    for (headers, want) in [(7, XDP_DROP), (8, XDP_PASS)] {
        let mut rest = Vec::new();
        for i in 1..=headers {
            rest.extend([if i == headers { 6 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        rest.extend(tcp(40000, 80));
        let frame = eth(&[], 0x86dd, &v6(PEER6, OURS6, 60, &rest));
        assert_eq!(run(&mut s, &frame), want, "{headers} headers");
    }
}

#[test]
fn icmp_errors_are_claimed_by_the_packet_they_quote() {
    let Some(mut s) = steering() else { return };
    s.claim(listen("10.77.0.1:80")).unwrap();
    s.claim(listen("[fd77::1]:80")).unwrap();
    let icmp = |kind: u8, quoted: &[u8]| {
        let mut i = vec![kind, 4, 0, 0, 0, 0, 5, 0];
        i.extend(quoted);
        i
    };
    let router = [192, 0, 2, 1];
    let quote = |src_port, protocol| v4(OURS, PEER, protocol, 0, 0x4000, &tcp(src_port, 40000)[..8]);
    let v4_error = |kind, quoted: Vec<u8>| eth(&[], 0x0800, &v4(router, OURS, 1, 0, 0, &icmp(kind, &quoted)));
    let quote6 = |src_port| v6(OURS6, PEER6, 6, &tcp(src_port, 40000));
    let v6_error = |kind, quoted: Vec<u8>| eth(&[], 0x86dd, &v6(PEER6, OURS6, 58, &icmp(kind, &quoted)));
    for (name, frame, want) in [
        ("unreachable, ours", v4_error(3, quote(80, 6)), XDP_DROP),
        ("time exceeded, ours", v4_error(11, quote(80, 6)), XDP_DROP),
        ("echo request", v4_error(8, quote(80, 6)), XDP_PASS),
        ("unreachable, the kernel's", v4_error(3, quote(81, 6)), XDP_PASS),
        ("unreachable, udp", v4_error(3, quote(80, 17)), XDP_PASS),
        ("packet too big, ours", v6_error(2, quote6(80)), XDP_DROP),
        ("packet too big, the kernel's", v6_error(2, quote6(81)), XDP_PASS),
        ("neighbour solicitation", v6_error(135, quote6(80)), XDP_PASS),
    ] {
        assert_eq!(run(&mut s, &frame), want, "{name}");
    }
}

#[test]
fn frames_that_end_early_go_to_the_kernel_and_are_counted() {
    let Some(mut s) = steering() else { return };
    s.claim(listen("10.77.0.1:80")).unwrap();
    s.claim(listen("[fd77::1]:80")).unwrap();
    let mut runs = 0;
    for whole in [to_v4(80), to_v6(80)] {
        // Up to and without the last byte of the ports. 14 bytes are the least that the harness takes.
        for len in 14..whole.len() - 16 {
            assert_eq!(run(&mut s, &whole[..len]), XDP_PASS, "cut to {len}");
            runs += 1;
        }
    }
    let mut short_header = to_v4(80);
    short_header[14] = 0x44;
    assert_eq!(run(&mut s, &short_header), XDP_PASS);
    let mut version = to_v4(80);
    version[14] = 0x65;
    assert_eq!(run(&mut s, &version), XDP_PASS);
    let counters = s.counters().unwrap();
    assert_eq!(counters.get(Counter::Malformed), runs + 2);
    assert_eq!(counters.get(Counter::Passed), 0);
}

#[test]
fn claimed_frames_are_dropped_within_the_lease_and_passed_after_it() {
    let Some(mut s) = steering() else { return };
    s.claim(listen("10.77.0.1:80")).unwrap();
    assert_eq!(run(&mut s, &to_v4(80)), XDP_DROP);
    s.set_deadline(monotonic_ns()).unwrap();
    assert_eq!(run(&mut s, &to_v4(80)), XDP_PASS);
    s.heartbeat().unwrap();
    assert_eq!(run(&mut s, &to_v4(80)), XDP_DROP);
    let counters = s.counters().unwrap();
    assert_eq!(counters.get(Counter::DroppedNoSocket), 2);
    assert_eq!(counters.get(Counter::LeaseOver), 1);
}

#[test]
fn claims_that_cannot_be_are_refused_by_name() {
    let Some(mut s) = steering() else { return };
    let range = |addr, lo, hi| Claim::LocalPorts { addr, lo, hi };
    for claim in [
        listen("10.77.0.1:0"),
        range(Addr::v4(OURS), 0, 10),
        range(Addr::v4(OURS), 11, 10),
        range(Addr::v4([0; 4]), 1, 10),
    ] {
        let e = s.claim(claim).unwrap_err();
        assert!(matches!(e, SetupError::Claim { .. }), "{e}");
        assert!(e.to_string().contains(&claim.to_string()), "{e}");
    }
}

#[test]
fn an_interface_has_one_owner() {
    let Some(s) = steering() else { return };
    assert!(matches!(own(s.interface()), Err(SetupError::Held { .. })));
    let name = s.interface().to_owned();
    drop(s);
    assert!(own(&name).is_ok());
}
