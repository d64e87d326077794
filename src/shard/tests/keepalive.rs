//! Keep-alive (d14) and the give-up time of a listener.

use super::*;
use crate::metrics::block::Retransmission;
use crate::tcp::config::{KeepAlive, Limits};
use crate::tcp::record::{Cause, ClosePath, First};
use std::time::Duration;

fn open(v6: bool) -> Harness {
    let idle = Duration::from_secs(10);
    let keep_alive = Some(KeepAlive { idle, interval: Duration::from_secs(3), probes: 2 });
    Harness::open_tuned(|s| {
        s.v6 = v6;
        s.tcp.limits = vec![Limits { keep_alive, ..Limits::DEFAULT }];
    })
}

#[test]
fn d14_without_being_told_a_quiet_peer_is_left_in_peace() {
    let mut h = Harness::open();
    after!(h, 86_400_000);
    nothing!(h);
    state!(h, Established);
}

#[test]
fn d14_a_quiet_peer_is_asked_and_its_answer_keeps_the_connection() {
    for v6 in [false, true] {
        let mut h = open(v6);
        for _ in 0..5 {
            after!(h, 9_999);
            nothing!(h);
            after!(h, 1);
            recv!(h, ACK seq=0, ack=1);
            send!(h, ACK seq=1, ack=1);
        }
        // One question lost.
        after!(h, 10_000);
        recv!(h, ACK seq=0, ack=1);
        after!(h, 3_000);
        recv!(h, ACK seq=0, ack=1);
        send!(h, ACK seq=1, ack=1);
        after!(h, 9_999);
        nothing!(h);
        assert_eq!(h.counters().retransmissions[Retransmission::Probe as usize], 7);
    }
}

#[test]
fn d14_a_peer_that_is_gone_is_given_up_in_every_state_that_waits_for_it() {
    let mut h = open(false);
    after!(h, 10_000);
    recv!(h, ACK seq=0, ack=1);
    after!(h, 3_000);
    recv!(h, ACK seq=0, ack=1);
    after!(h, 3_000);
    recv!(h, RST|ACK seq=1, ack=1);
    h.closed(ClosePath::Timeout, First::Us, Cause::GiveUp);
    h.all_gone();
    // Half-closed from here, still reading: nothing else would ever end it.
    let mut h = open(true);
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=2);
    state!(h, FinWait2);
    after!(h, 16_000);
    state!(h, Closed);
    h.skip();
    h.closed(ClosePath::Timeout, First::Us, Cause::GiveUp);
    h.all_gone();
}

#[test]
fn d14_what_waits_for_an_acknowledgment_is_not_asked_about_twice() {
    let mut h = open(false);
    h.act(&[Do::Send(100)]);
    h.skip();
    after!(h, 15_000);
    let c = h.counters();
    assert_eq!(c.retransmissions[Retransmission::Probe as usize], 0);
    assert!(c.retransmissions[Retransmission::DataTimeout as usize] > 3);
}

#[test]
fn d09_a_listener_has_a_give_up_time_of_its_own() {
    for (give_up, lives) in [(None, true), (Some(Duration::from_secs(3)), false)] {
        let mut h = Harness::open_tuned(|s| s.tcp.limits = vec![Limits { give_up, ..Limits::DEFAULT }]);
        h.act(&[Do::Send(100)]);
        after!(h, 8_000);
        h.skip();
        assert_eq!(h.state() == crate::tcp::state::State::Established, lives);
        if !lives {
            h.closed(ClosePath::Timeout, First::Us, Cause::GiveUp);
        }
    }
}
