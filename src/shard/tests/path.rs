//! The path's MTU and what ICMP says (d16), on both families.

use super::*;
use crate::drop::DropReason;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::wire::checksum::{PROTO_ICMPV6, pseudo, sum};
use crate::wire::{Addr, Emit, Flags, Header, L2, SeqNum};

/// An ICMP error of a router about our segment at `seq` (relative).
fn icmp(h: &mut Harness, kind: (u8, u8), rest: u32, seq: u32) -> Vec<u8> {
    let irs = h.peer_mut().irs.expect("our sequence number is known");
    let tuple = h.tuple();
    let header = Header { seq: irs + seq, ack: SeqNum::new(9), flags: Flags::ACK, ..Header::default() };
    let emit = Emit { l2: L2::default(), tuple: &tuple, header: &header, ttl: 9, ecn: 0, ip_id: 0 };
    let mut quoted = [0; 128];
    let len = emit.emit(&mut quoted, 0).expect("a segment fits");
    let v4 = tuple.is_v4();
    // The IP header and 8 bytes of TCP.
    let quote = &quoted[14..(14 + if v4 { 28 } else { 48 }).min(len)];
    let mut body = vec![kind.0, kind.1, 0, 0];
    body.extend(rest.to_be_bytes());
    body.extend(quote);
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    let to = tuple.local.addr;
    if v4 {
        let check = sum(&body).finish();
        body[2..4].copy_from_slice(&check.to_be_bytes());
        let mut ip = vec![0x45, 0, 0, (20 + body.len()) as u8, 0, 0, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 77];
        ip.extend(to.as_v4().expect("IPv4"));
        let check = sum(&ip).finish();
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        frame.extend([8, 0]);
        frame.extend(ip);
    } else {
        let mut router = [0; 16];
        (router[0], router[15]) = (0xfd, 77);
        let router = Addr::v6(router);
        let check = pseudo(&router, &to, PROTO_ICMPV6, body.len() as u32).add_bytes(&body).finish();
        body[2..4].copy_from_slice(&check.to_be_bytes());
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, body.len() as u8, PROTO_ICMPV6, 64]);
        frame.extend(router.octets());
        frame.extend(to.octets());
    }
    frame.extend(body);
    frame
}

const fn too_big(v6: bool) -> (u8, u8) {
    if v6 { (2, 0) } else { (3, 4) }
}

fn say_too_big(h: &mut Harness, mtu: u32, seq: u32) {
    let kind = too_big(!h.tuple().is_v4());
    let frame = icmp(h, kind, mtu, seq);
    h.send_raw(&frame);
}

fn open(v6: bool) -> Harness {
    Harness::open_tuned(|s| s.v6 = v6)
}

/// Lengths of what was sent and not looked at; all of it must follow on.
fn lengths(h: &mut Harness) -> Vec<usize> {
    let sent: Vec<_> = std::mem::take(&mut h.out).into_iter().collect();
    for pair in sent.windows(2) {
        assert_eq!(pair[0].header.seq + pair[0].payload.len() as u32, pair[1].header.seq, "in order");
    }
    sent.iter().map(|s| s.payload.len()).collect()
}

#[test]
fn d16_a_router_s_word_makes_segments_smaller_at_once_and_costs_no_window() {
    for (v6, full) in [(false, 1460), (true, 1440)] {
        let mut h = open(v6);
        h.act(&[Do::Send(5 * full)]);
        assert_eq!(lengths(&mut h), vec![full; 5]);
        say_too_big(&mut h, 1300, 1);
        let headers = 1500 - full;
        let small = 1300 - headers;
        let again = lengths(&mut h);
        assert_eq!(again.iter().sum::<usize>(), 5 * full, "all of it, at once: no window was lost");
        assert!(again[..again.len() - 1].iter().all(|&n| n == small), "{again:?}");
        let c = h.counters();
        assert_eq!((c.icmp_too_big, c.path_mtu_lowered), (1, 1));
        // The other segments of the flight were refused too: the same word changes nothing.
        say_too_big(&mut h, 1300, 1 + full as u32);
        assert_eq!(lengths(&mut h), [0usize; 0]);
        send!(h, ACK seq=1, ack=1 + 5 * full as i64);
        h.act(&[Do::Send(3 * small)]);
        assert_eq!(lengths(&mut h), vec![small; 3]);
        assert_eq!(h.counters().path_mtu_lowered, 1);
    }
}

#[test]
fn d16_absurd_words_are_ignored_and_there_is_a_floor() {
    // MTU, and the packet size afterwards.
    let rows_v4 = [(1500, 1500), (9000, 1500), (67, 1500), (68, 576), (100, 576), (577, 577), (0, 1492)];
    let rows_v6 = [(1500, 1500), (70_000, 1500), (1279, 1500), (0, 1500), (1280, 1280), (1400, 1400)];
    for (v6, rows, headers) in [(false, &rows_v4[..], 40), (true, &rows_v6[..], 60)] {
        for &(mtu, size) in rows {
            let mut h = open(v6);
            h.act(&[Do::Send(1460)]);
            lengths(&mut h);
            say_too_big(&mut h, mtu, 1);
            lengths(&mut h);
            send!(h, ACK seq=1, ack=1461);
            h.act(&[Do::Send(3000)]);
            assert_eq!(lengths(&mut h)[0], size - headers, "MTU {mtu}, IPv6: {v6}");
        }
    }
}

#[test]
fn d16_only_what_is_in_flight_and_was_too_large_counts() {
    let mut h = open(false);
    h.act(&[Do::Send(2000)]);
    assert_eq!(lengths(&mut h), [1460, 540]);
    // Not sent yet; acknowledged long ago; a segment of 540 bytes cannot have been too large for 1300.
    for seq in [2001, 0, 1461] {
        say_too_big(&mut h, 1300, seq);
        assert_eq!(lengths(&mut h), [0usize; 0], "{seq}");
    }
    let c = h.counters();
    assert_eq!((c.path_mtu_lowered, c.drops[DropReason::IcmpNotOurs as usize]), (0, 2));
}

#[test]
fn d16_old_routers_lead_down_the_plateaus() {
    let mut h = open(false);
    h.act(&[Do::Send(1460)]);
    lengths(&mut h);
    for size in [1492, 1006, 576] {
        say_too_big(&mut h, 0, 1);
        assert_eq!(lengths(&mut h)[0], size - 40);
    }
    say_too_big(&mut h, 0, 1);
    assert_eq!(lengths(&mut h), [0usize; 0], "the floor");
}

#[test]
fn d16_after_ten_minutes_the_agreed_size_is_tried_again() {
    let mut h = open(true);
    h.act(&[Do::Send(1440)]);
    lengths(&mut h);
    say_too_big(&mut h, 1280, 1);
    lengths(&mut h);
    send!(h, ACK seq=1, ack=1441);
    after!(h, 599_000);
    h.act(&[Do::Send(1440)]);
    assert_eq!(lengths(&mut h), [1220, 220]);
    send!(h, ACK seq=1, ack=2881);
    after!(h, 1_000);
    h.act(&[Do::Send(1440)]);
    assert_eq!(lengths(&mut h), [1440]);
    assert_eq!(h.counters().path_mtu_raised, 1);
}

#[test]
fn d16_a_path_that_swallows_full_segments_in_silence_gets_smaller_ones() {
    for (v6, sizes) in
        [(false, &[1460, 1460, 1240, 984, 536, 536][..]), (true, &[1440, 1440, 1220, 1220][..])]
    {
        let mut h = open(v6);
        h.act(&[Do::Send(4000)]);
        let full = sizes[0];
        assert_eq!(lengths(&mut h)[0], full);
        let mut wait = 200;
        // The first timeouts may be losses; each later one takes a step.
        for &size in sizes {
            after!(h, wait);
            assert_eq!(lengths(&mut h), [size], "IPv6: {v6}");
            wait *= 2;
        }
        let steps = sizes.iter().collect::<std::collections::HashSet<_>>().len() - 1;
        assert_eq!(h.counters().path_black_holes, steps as u64);
        // It passes: what is left follows in the size that passed.
        let last = *sizes.last().expect("a size");
        send!(h, ACK seq=1, ack=1 + last as i64);
        assert!(lengths(&mut h).iter().all(|&n| n <= last && n > 0));
    }
}

#[test]
fn d16_where_small_segments_are_lost_too_it_was_not_the_size() {
    let mut h = open(false);
    h.act(&[Do::Send(4000)]);
    lengths(&mut h);
    // Three timeouts of a full segment, by chance; a smaller one passes.
    for (wait, size) in [(200, 1460), (400, 1460), (800, 1240)] {
        after!(h, wait);
        assert_eq!(lengths(&mut h), [size]);
    }
    assert_eq!(h.counters().path_black_holes, 1);
    send!(h, ACK seq=1, ack=1241);
    assert!(lengths(&mut h).iter().all(|&n| n <= 1240 && n > 0));
    // Then a small one is lost as well, and what is sent again is as large as it was agreed on.
    let mut again = Vec::new();
    for _ in 0..200 {
        after!(h, 10);
        again.extend(h.out.drain(..).map(|s| s.payload.len()));
    }
    assert_eq!(again.iter().max(), Some(&1460), "{again:?}");
    assert_eq!(h.counters().path_mtu_raised, 1);
}

#[test]
fn d16_small_segments_that_time_out_are_no_black_hole() {
    let mut h = open(false);
    h.act(&[Do::Send(100)]);
    for wait in [1000, 2000, 4000, 8000] {
        after!(h, wait);
    }
    h.skip();
    send!(h, ACK seq=1, ack=101);
    h.act(&[Do::Send(1460)]);
    assert_eq!(lengths(&mut h), [1460]);
    assert_eq!(h.counters().path_black_holes, 0);
}

#[test]
fn d16_errors_do_not_end_a_connection_that_is_open() {
    for (v6, hard, soft) in [(false, (3, 3), (3, 1)), (true, (1, 4), (1, 0))] {
        let mut h = open(v6);
        h.act(&[Do::Send(100)]);
        for kind in [hard, soft] {
            let frame = icmp(&mut h, kind, 0, 1);
            h.send_raw(&frame);
        }
        state!(h, Established);
        let c = h.counters();
        assert_eq!((c.icmp_hard, c.icmp_soft), (1, 1));
        assert_eq!(h.told(), []);
    }
}

#[test]
fn d16_a_hard_error_ends_an_attempt_to_open_and_a_soft_one_does_not() {
    for (v6, hard, soft) in [(false, (3, 3), (3, 1)), (true, (1, 4), (1, 0))] {
        let mut h = Harness::tuned(|s| s.v6 = v6);
        h.local_port = 5000;
        h.connect();
        recv!(h, SYN seq=0, ack=0);
        let frame = icmp(&mut h, soft, 0, 0);
        h.send_raw(&frame);
        say_too_big(&mut h, 1300, 0);
        // Of another SYN: not believed.
        let frame = icmp(&mut h, hard, 0, 1);
        h.send_raw(&frame);
        state!(h, SynSent);
        let frame = icmp(&mut h, hard, 0, 0);
        h.send_raw(&frame);
        state!(h, Closed);
        h.closed(ClosePath::Timeout, First::Nobody, Cause::Refused);
        assert_eq!(h.counters().resets(), 0, "nobody sent a RST");
        h.all_gone();
    }
}

#[test]
fn d16_a_hard_error_about_a_syn_ack_is_only_counted() {
    let mut h = Harness::new();
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    let frame = icmp(&mut h, (3, 1), 0, 0);
    h.send_raw(&frame);
    state!(h, SynReceived);
    assert_eq!(h.counters().icmp_soft, 1);
    send!(h, ACK seq=1, ack=1);
    state!(h, Established);
}
