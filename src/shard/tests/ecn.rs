//! Explicit congestion notification (RFC 3168): agreed on, marked, echoed, heeded. The section stands in each name.

use super::harness::Setup;
use super::{Do, Harness, Syn, after, nothing, recv, send, state};
use crate::tcp::config::Limits;
use crate::tcp::congestion::Algorithm;
use crate::tcp::ecn::{CE, ECT_0};
use crate::tcp::output::Retransmission;
use crate::wire::{Flags, SeqNum};

/// What fits in both families.
const MSS: i64 = 1440;
const ECT_1: u8 = 0b01;

fn new_reno(s: &mut Setup) {
    s.tcp.mss = Some(MSS as u16);
    s.tcp.limits = vec![Limits { congestion: Algorithm::NewReno, ..Limits::DEFAULT }];
}

/// A listener without connection, over IPv4 and IPv6.
fn both(tune: fn(&mut Setup)) -> [Harness; 2] {
    [false, true].map(|v6| {
        Harness::tuned(|s| {
            s.v6 = v6;
            new_reno(s);
            tune(s);
        })
    })
}

/// The peer has asked for ECN and got it.
fn agree(h: &mut Harness, syn: Syn) {
    h.peer_mut().ts = syn.ts;
    send!(h, SYN|ECE|CWR seq=0, ack=0, syn=syn);
    recv!(h, SYN|ACK|ECE seq=0, ack=1);
    send!(h, ACK seq=1, ack=1);
    state!(h, Established);
}

fn agreed() -> [Harness; 2] {
    both(|_| ()).map(|mut h| {
        agree(&mut h, Syn::PLAIN);
        h
    })
}

/// The shard has sent these segments of data next: where each begins, its ECN field, and whether it carries CWR.
#[track_caller]
fn data(h: &mut Harness, want: &[(i64, u8, bool)]) {
    let irs = h.peer_mut().irs.expect("the handshake is done");
    let got: Vec<_> = std::mem::take(&mut h.out)
        .iter()
        .map(|s| (i64::from((s.header.seq - irs).cast_signed()), s.ecn, s.header.flags.has(Flags::CWR)))
        .collect();
    assert_eq!(got, want);
}

fn at(n: i64) -> i64 {
    1 + n * MSS
}

#[test]
fn d17_rfc3168_6_1_1_a_peer_that_asks_gets_ecn_and_only_new_data_is_marked() {
    for mut h in agreed() {
        h.act(&[Do::Send(100)]);
        recv!(h, PSH|ACK seq=1, ack=1, len=100, ecn=ECT_0);
        send!(h, ACK seq=1, ack=101);
        // An ACK alone, a FIN alone and what they are answered with.
        send!(h, PSH|ACK seq=1, ack=101, len=10, ecn=ECT_0);
        after!(h, 40);
        recv!(h, ACK seq=101, ack=11);
        h.act(&[Do::Shutdown]);
        recv!(h, FIN|ACK seq=101, ack=11);
    }
}

#[test]
fn d17_rfc3168_6_1_1_anything_else_is_no_agreement() {
    // Flags of the SYN beside SYN itself, and whether the listener takes ECN.
    let rows: [(&[Flags], bool); 4] =
        [(&[], true), (&[Flags::ECE], true), (&[Flags::CWR], true), (&[Flags::ECE, Flags::CWR], false)];
    for (flags, listener) in rows {
        for v6 in [false, true] {
            let mut h = Harness::tuned(|s| {
                s.v6 = v6;
                s.tcp.limits = vec![Limits { ecn: listener, ..Limits::DEFAULT }];
            });
            let syn: Vec<Flags> = [&[Flags::SYN], flags].concat();
            h.send(&super::Seg::new(&syn).seq(0).ack(0).syn(Syn::PLAIN));
            recv!(h, SYN|ACK seq=0, ack=1);
            // Bits and marks mean nothing now.
            send!(h, ACK|ECE|CWR seq=1, ack=1);
            send!(h, PSH|ACK|ECE seq=1, ack=1, len=10, ecn=CE);
            h.act(&[Do::Send(100)]);
            recv!(h, PSH|ACK seq=1, ack=11, len=100);
            let c = h.counters();
            assert_eq!((c.ecn_experienced, c.ecn_echoed), (0, 0));
        }
    }
}

#[test]
fn d17_rfc3168_6_1_1_1_a_syn_that_comes_again_without_asking_takes_it_back() {
    for mut h in both(|_| ()) {
        send!(h, SYN|ECE|CWR seq=0, ack=0, syn=Syn::PLAIN);
        recv!(h, SYN|ACK|ECE seq=0, ack=1);
        send!(h, SYN|ECE|CWR seq=0, ack=0, syn=Syn::PLAIN);
        recv!(h, SYN|ACK|ECE seq=0, ack=1);
        send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
        recv!(h, SYN|ACK seq=0, ack=1);
        // And it is not agreed on later.
        send!(h, SYN|ECE|CWR seq=0, ack=0, syn=Syn::PLAIN);
        recv!(h, SYN|ACK seq=0, ack=1);
        send!(h, ACK seq=1, ack=1);
        h.act(&[Do::Send(100)]);
        recv!(h, PSH|ACK seq=1, ack=1, len=100);
    }
}

#[test]
fn d17_rfc3168_6_1_1_a_cookie_keeps_ecn_in_the_timestamp_and_without_one_gives_none() {
    for (syn, ecn) in [(Syn::FULL, ECT_0), (Syn::PLAIN, 0)] {
        for mut h in both(|s| s.tcp.syn_cookies = Some(0)) {
            h.peer_mut().ts = syn.ts;
            send!(h, SYN|ECE|CWR seq=0, ack=0, syn=syn);
            if ecn == ECT_0 {
                recv!(h, SYN|ACK|ECE seq=0, ack=1);
            } else {
                recv!(h, SYN|ACK seq=0, ack=1);
            }
            state!(h, Closed);
            send!(h, ACK seq=1, ack=1);
            h.act(&[Do::Send(100)]);
            recv!(h, PSH|ACK seq=1, ack=1, len=100, ecn=ecn);
        }
    }
    for mut h in both(|s| s.tcp.syn_cookies = Some(0)) {
        h.peer_mut().ts = true;
        send!(h, SYN seq=0, ack=0, syn=Syn::FULL);
        recv!(h, SYN|ACK seq=0, ack=1);
        send!(h, ACK seq=1, ack=1);
        h.act(&[Do::Send(100)]);
        recv!(h, PSH|ACK seq=1, ack=1, len=100);
    }
}

#[test]
fn d17_rfc3168_6_1_1_a_connection_from_here_asks_only_when_it_is_told_to() {
    for (asks, answer, ecn) in [
        (false, &[Flags::ECE][..], 0),
        (true, &[Flags::ECE], ECT_0),
        (true, &[], 0),
        // The bits thrown back by a peer that does not know them.
        (true, &[Flags::ECE, Flags::CWR], 0),
        (true, &[Flags::CWR], 0),
    ] {
        for v6 in [false, true] {
            let mut h = Harness::tuned(|s| {
                s.v6 = v6;
                s.tcp.ecn_outgoing = asks;
            });
            h.local_port = 5000;
            h.connect();
            if asks {
                recv!(h, SYN|ECE|CWR seq=0, ack=0);
            } else {
                recv!(h, SYN seq=0, ack=0);
            }
            let flags: Vec<Flags> = [&[Flags::SYN, Flags::ACK], answer].concat();
            h.send(&super::Seg::new(&flags).seq(0).ack(1).syn(Syn::PLAIN));
            recv!(h, ACK seq=1, ack=1);
            h.act(&[Do::Send(100)]);
            recv!(h, PSH|ACK seq=1, ack=1, len=100, ecn=ecn);
        }
    }
}

#[test]
fn d17_rfc3168_6_1_1_1_a_syn_without_an_answer_is_sent_again_without_asking() {
    for mut h in both(|s| s.tcp.ecn_outgoing = true) {
        h.local_port = 5000;
        h.connect();
        recv!(h, SYN|ECE|CWR seq=0, ack=0);
        after!(h, 1000);
        recv!(h, SYN seq=0, ack=0);
        // The answer to the first one comes after all: one of the SYNs did not ask.
        send!(h, SYN|ACK|ECE seq=0, ack=1, syn=Syn::PLAIN);
        recv!(h, ACK seq=1, ack=1);
        h.act(&[Do::Send(100)]);
        recv!(h, PSH|ACK seq=1, ack=1, len=100);
    }
}

#[test]
fn d17_rfc3168_6_1_1_syns_that_cross_agree_on_nothing() {
    for mut h in both(|s| s.tcp.ecn_outgoing = true) {
        h.local_port = 5000;
        h.connect();
        recv!(h, SYN|ECE|CWR seq=0, ack=0);
        send!(h, SYN|ECE|CWR seq=0, ack=0, syn=Syn::PLAIN);
        recv!(h, SYN|ACK seq=0, ack=1);
        send!(h, ACK seq=1, ack=1);
        h.act(&[Do::Send(100)]);
        recv!(h, PSH|ACK seq=1, ack=1, len=100);
    }
}

#[test]
fn d18_rfc3168_6_1_3_a_mark_is_echoed_on_everything_until_the_peer_slowed_down() {
    for mut h in agreed() {
        send!(h, PSH|ACK seq=1, ack=1, len=10, ecn=ECT_1);
        after!(h, 40);
        recv!(h, ACK seq=1, ack=11);
        send!(h, PSH|ACK seq=11, ack=1, len=10, ecn=CE);
        after!(h, 40);
        recv!(h, ACK|ECE seq=1, ack=21);
        // Without further marks too, and on data.
        send!(h, PSH|ACK seq=21, ack=1, len=10, ecn=ECT_0);
        h.act(&[Do::Send(5)]);
        recv!(h, PSH|ACK|ECE seq=1, ack=31, len=5, ecn=ECT_0);
        // Slowed down, and marked again in the same segment: a new echo.
        send!(h, PSH|ACK|CWR seq=31, ack=6, len=10, ecn=CE);
        after!(h, 40);
        recv!(h, ACK|ECE seq=6, ack=41);
        send!(h, PSH|ACK|CWR seq=41, ack=6, len=10, ecn=ECT_0);
        after!(h, 40);
        recv!(h, ACK seq=6, ack=51);
        assert_eq!(h.counters().ecn_experienced, 2);
    }
}

#[test]
fn d18_rfc3168_6_1_5_a_mark_outside_the_window_or_without_data_says_nothing() {
    for mut h in agreed() {
        send!(h, ACK seq=1, ack=1, ecn=CE);
        send!(h, PSH|ACK seq=1, ack=1, len=10, ecn=ECT_0);
        after!(h, 40);
        recv!(h, ACK seq=1, ack=11);
        // An old segment, as anybody on the way could send it again; and one far ahead.
        send!(h, PSH|ACK seq=1, ack=1, len=10, ecn=CE);
        recv!(h, ACK seq=1, ack=11);
        send!(h, PSH|ACK seq=900_000, ack=1, len=10, ecn=CE);
        recv!(h, ACK seq=1, ack=11);
        assert_eq!(h.counters().ecn_experienced, 0);
    }
}

#[test]
fn d18_rfc3168_6_1_2_an_echo_halves_the_window_once_and_is_answered_on_new_data() {
    for mut h in agreed() {
        h.act(&[Do::Send(40 * MSS as usize)]);
        data(&mut h, &(0..10).map(|n| (at(n), ECT_0, false)).collect::<Vec<_>>());
        // Ten out, one acknowledged with an echo: half of ten may be out, nine are.
        send!(h, ACK|ECE seq=1, ack=at(1));
        nothing!(h);
        // More echoes in the same window change nothing. With four out, one more.
        send!(h, ACK|ECE seq=1, ack=at(5));
        nothing!(h);
        send!(h, ACK|ECE seq=1, ack=at(6));
        data(&mut h, &[(at(10), ECT_0, true)]);
        send!(h, ACK|ECE seq=1, ack=at(7));
        data(&mut h, &[(at(11), ECT_0, false)]);
        send!(h, ACK seq=1, ack=at(10));
        data(&mut h, &[(at(12), ECT_0, false), (at(13), ECT_0, false), (at(14), ECT_0, false)]);
        assert_eq!(h.counters().ecn_echoed, 4);
        // The next window, and the next echo. Five were out: two and a half is below the least, two segments.
        send!(h, ACK|ECE seq=1, ack=at(13));
        nothing!(h);
        send!(h, ACK seq=1, ack=at(14));
        data(&mut h, &[(at(15), ECT_0, true)]);
    }
}

#[test]
fn d18_rfc3168_6_1_2_the_window_does_not_grow_by_what_echoes() {
    for mut h in agreed() {
        h.act(&[Do::Send(40 * MSS as usize)]);
        data(&mut h, &(0..10).map(|n| (at(n), ECT_0, false)).collect::<Vec<_>>());
        // The first halves the window. Nine together would be worth nearly two segments more.
        for n in 1..=9 {
            send!(h, ACK|ECE seq=1, ack=at(n));
        }
        data(&mut h, &(10..14).map(|n| (at(n), ECT_0, n == 10)).collect::<Vec<_>>());
    }
}

#[test]
fn d18_rfc3168_6_1_5_what_is_sent_again_is_not_marked_and_carries_no_cwr() {
    for mut h in agreed() {
        h.act(&[Do::Send(3 * MSS as usize)]);
        data(&mut h, &(0..3).map(|n| (at(n), ECT_0, false)).collect::<Vec<_>>());
        send!(h, ACK|ECE seq=1, ack=at(1));
        after!(h, 200);
        recv!(h, ACK seq=at(1), ack=1, len=MSS as usize);
        send!(h, ACK seq=1, ack=at(3));
        // The reduction is told with the first new data.
        h.act(&[Do::Send(10)]);
        recv!(h, PSH|ACK|CWR seq=at(3), ack=1, len=10, ecn=ECT_0);
    }
}

#[test]
fn d18_rfc3168_6_1_2_a_loss_in_the_same_window_does_not_reduce_twice() {
    for mut h in both(|_| ()) {
        agree(&mut h, Syn { sack: true, ..Syn::PLAIN });
        h.act(&[Do::Send(40 * MSS as usize)]);
        h.skip();
        let window = |h: &mut Harness| {
            let irs = h.peer_mut().irs.expect("the handshake is done");
            std::mem::take(&mut h.out).iter().map(|s| s.header.seq).fold(irs, SeqNum::max)
        };
        // The first is lost: three duplicates with SACK start the repair and reduce to five.
        for n in 2..=4 {
            sack(&mut h, n, false);
        }
        window(&mut h);
        let irs = h.peer_mut().irs.expect("the handshake is done");
        assert_eq!(h.counters().retransmissions[Retransmission::DataFast as usize], 1);
        sack(&mut h, 5, true);
        window(&mut h);
        // All of that window arrived: five may be out, not two and a half.
        send!(h, ACK seq=1, ack=at(10));
        let top: SeqNum = window(&mut h);
        assert!(top.at_or_after(irs + at(14) as u32), "up to {}", top - irs);
    }
}

/// A duplicate acknowledgment that has segments `1..end`, with an echo or without.
fn sack(h: &mut Harness, end: i64, echo: bool) {
    let irs = h.peer_mut().irs.expect("the handshake is done");
    let mut options = crate::wire::Options { sack_len: 1, ..Default::default() };
    options.sack[0] = (irs + at(1) as u32, irs + at(end) as u32);
    if echo {
        send!(h, ACK|ECE seq=1, ack=1, options=options);
    } else {
        send!(h, ACK seq=1, ack=1, options=options);
    }
}

#[test]
fn d18_rfc3168_6_1_6_probes_of_a_closed_window_are_not_marked() {
    for mut h in agreed() {
        send!(h, ACK seq=1, ack=1, win=0);
        h.act(&[Do::Send(100)]);
        nothing!(h);
        after!(h, 200);
        recv!(h, ACK seq=0, ack=1);
        // The window opens a little: what is forced into it is data sent for the first time.
        send!(h, ACK seq=1, ack=1, win=1000);
        recv!(h, PSH|ACK seq=1, ack=1, len=100, ecn=ECT_0);
    }
}

#[test]
fn d13_a_syn_ack_of_a_simultaneous_open_offers_the_scale_that_is_used() {
    for v6 in [false, true] {
        let mut h = Harness::tuned(|s| s.v6 = v6);
        h.local_port = 5000;
        h.connect();
        recv!(h, SYN seq=0, ack=0);
        send!(h, SYN seq=0, ack=0, syn=Syn { ts: false, ..Syn::FULL });
        // The peer may never have seen the first SYN: without the option here it would not scale, and we would.
        let header = recv!(h, SYN|ACK seq=0, ack=1);
        assert_eq!(header.options.window_scale, Some(3));
    }
}
