//! `TIME_WAIT`, segment by segment: t01 to t04.

use super::*;
use crate::drop::DropReason;
use crate::shard::mailbox::Command;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::wire::{Flags, SeqNum};
use std::time::Duration;

/// A connection in `TIME_WAIT`: our next number is 2, and so is the peer's. Gives our initial one.
fn held(syn: Syn, tune: impl FnOnce(&mut harness::Setup)) -> (Harness, SeqNum) {
    let mut h = Harness::tuned(tune);
    h.handshake(syn);
    close(&mut h);
    let irs = h.peer_mut().irs.expect("opened");
    (h, irs)
}

/// We close first, the peer at once.
fn close(h: &mut Harness) {
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    nothing!(h);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    state!(h, TimeWait);
}

/// The peer's new incarnation is answered, and works.
fn reopened(h: &mut Harness, old: SeqNum) {
    recv!(h, SYN|ACK seq=0, ack=1);
    let new = h.peer_mut().irs.expect("answered");
    assert!(new.after(old + 2 + 65_535), "ISN {new} after {old}");
    state!(h, SynReceived);
    send!(h, ACK seq=1, ack=1);
    state!(h, Established);
    assert_eq!(h.counters().time_wait_reopened, 1);
    send!(h, ACK seq=1, ack=1, len=10);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=11);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=11);
    send!(h, FIN|ACK seq=11, ack=2);
    recv!(h, ACK seq=2, ack=12);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    h.wait_out();
    assert_eq!(h.counters().time_wait_expired, 1, "the first one did not expire but was re-opened");
}

#[test]
fn t01_held_for_60_seconds_by_default() {
    let (mut h, _) = held(Syn::PLAIN, |_| ());
    assert_eq!((h.shard.chunks_used(), h.shard.records()), (0, 1));
    after!(h, 59_999);
    state!(h, TimeWait);
    // A tick of the wheel at most.
    after!(h, 17);
    state!(h, Closed);
    let c = h.counters();
    assert_eq!((c.time_wait_expired, c.time_wait_evicted, c.time_wait_peak), (1, 0, 1));
    h.all_gone();
}

#[test]
fn t01_held_as_long_as_configured() {
    for secs in [1, 240] {
        let (mut h, _) = held(Syn::FULL, |s| s.tcp.time_wait = Duration::from_secs(secs));
        after!(h, secs * 1000 - 1);
        state!(h, TimeWait);
        after!(h, 17);
        state!(h, Closed);
        h.all_gone();
    }
}

#[test]
fn t01_a_fin_again_is_acknowledged_and_restarts_2msl() {
    let (mut h, _) = held(Syn::PLAIN, |_| ());
    after!(h, 30_000);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    after!(h, 30_100);
    state!(h, TimeWait);
    after!(h, 29_899);
    state!(h, TimeWait);
    after!(h, 17);
    state!(h, Closed);
    h.all_gone();
}

#[test]
fn t01_nothing_but_the_fin_restarts_2msl() {
    let (mut h, _) = held(Syn::FULL, |_| ());
    after!(h, 59_000);
    send!(h, ACK seq=2, ack=2);
    nothing!(h);
    send!(h, ACK seq=1, ack=2, len=1);
    recv!(h, ACK seq=2, ack=2);
    send!(h, RST seq=2, ack=0);
    send!(h, SYN seq=0, ack=0, ts=0);
    recv!(h, ACK seq=2, ack=2);
    // The FIN with a timestamp that is older than the last one is an old duplicate itself.
    send!(h, FIN|ACK seq=1, ack=2, ts=u32::MAX);
    recv!(h, ACK seq=2, ack=2);
    after!(h, 1032);
    state!(h, Closed);
    h.all_gone();
}

#[test]
fn t01_a_restart_long_after_the_wheel_has_moved_on() {
    let (mut h, _) = held(Syn::PLAIN, |_| ());
    for _ in 0..20 {
        after!(h, 59_900);
        send!(h, FIN|ACK seq=1, ack=2);
        recv!(h, ACK seq=2, ack=2);
    }
    h.wait_out();
    assert_eq!(h.counters().time_wait_expired, 1);
}

#[test]
fn t02_rst_is_ignored_wherever_it_lies() {
    let (mut h, _) = held(Syn::FULL, |_| ());
    for seq in [-1, 1, 2, 3, 1000, 70_000] {
        send!(h, RST seq=seq, ack=0);
        send!(h, RST|ACK seq=seq, ack=2);
        nothing!(h);
        state!(h, TimeWait);
    }
    assert_eq!(h.counters().drops[DropReason::ResetInTimeWait as usize], 12);
    h.wait_out();
}

#[test]
fn t03_old_and_misplaced_segments_are_acknowledged_and_the_state_is_kept() {
    let (mut h, _) = held(Syn::PLAIN, |_| ());
    for (seq, len) in [(1, 1), (-500, 100), (2, 10), (5000, 10)] {
        send!(h, ACK seq=seq, ack=2, len=len);
        let ack = recv!(h, ACK seq=2, ack=2);
        assert!(ack.window > 0, "no peer is made to probe");
    }
    send!(h, ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    send!(h, ACK seq=2, ack=3);
    recv!(h, ACK seq=2, ack=2);
    send!(h, SYN|ACK seq=0, ack=1, syn=Syn::PLAIN);
    recv!(h, ACK seq=2, ack=2);
    send!(h, SYN|ACK seq=1000, ack=1, syn=Syn::PLAIN);
    recv!(h, ACK seq=2, ack=2);
    state!(h, TimeWait);
    assert_eq!(h.counters().drops[DropReason::OutOfWindow as usize], 8);
    h.wait_out();
}

#[test]
fn t03_what_is_in_place_or_has_no_ack_is_not_answered() {
    let (mut h, _) = held(Syn::PLAIN, |_| ());
    send!(h, ACK seq=2, ack=2);
    send!(h, FIN seq=1, ack=0);
    nothing!(h);
    h.wait_out();
}

#[test]
fn t03_answers_have_a_budget() {
    let (mut h, _) = held(Syn::PLAIN, |s| s.tcp.stray_replies = 3);
    for _ in 0..10 {
        send!(h, ACK seq=1, ack=2, len=1);
    }
    // At least half of what there may be in a second.
    let answered = h.out.drain(..).filter(|s| !s.header.flags.rst()).count();
    assert!((2..=3).contains(&answered), "{answered}");
    assert_eq!(h.counters().drops[DropReason::ReplyBudget as usize], 10 - answered as u64);
    after!(h, 1000);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    h.wait_out();
}

#[test]
fn t03_the_answer_carries_timestamps_if_they_were_in_use() {
    let (mut h, _) = held(Syn::FULL, |s| s.v6 = true);
    after!(h, 500);
    send!(h, FIN|ACK seq=1, ack=2);
    let before = h.peer_mut().ts_recent;
    let ack = recv!(h, ACK seq=2, ack=2);
    let ts = ack.options.timestamps.expect("timestamps");
    assert_eq!(ts.val.wrapping_sub(before), 500, "our clock goes on as before");
    h.wait_out();
}

#[test]
fn t04_syn_with_a_higher_number_reopens_at_once() {
    for seq in [2, 3, 100_000] {
        let (mut h, old) = held(Syn::PLAIN, |_| ());
        h.reincarnate(seq);
        send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
        reopened(&mut h, old);
    }
}

#[test]
fn t04_the_isn_stays_above_the_old_one_when_the_clock_alone_would_not_do() {
    let mut h = Harness::open();
    let old = h.peer_mut().irs.expect("opened");
    h.win = u16::MAX;
    // Much data in no time: the clock of the ISN has not moved.
    for i in 0..10 {
        h.act(&[Do::Send(10_000)]);
        h.out.clear();
        send!(h, ACK seq=1, ack=10_001 + i * 10_000);
    }
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=100_001, ack=1);
    send!(h, FIN|ACK seq=1, ack=100_002);
    recv!(h, ACK seq=100_002, ack=2);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    h.reincarnate(2);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    reopened(&mut h, old + 100_000);
}

#[test]
fn t04_late_in_time_wait_the_clock_has_moved_the_isn_further() {
    let (mut h, old) = held(Syn::PLAIN, |_| ());
    after!(h, 59_000);
    h.reincarnate(2);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    // 59 s of 4-microsecond ticks.
    reopened(&mut h, old + 59_000 * 250 - 65_540);
}

#[test]
fn t04_syn_with_a_newer_timestamp_reopens_whatever_its_number() {
    for seq in [-100_000, 0, 2, 5000] {
        let (mut h, old) = held(Syn::FULL, |_| ());
        after!(h, 1);
        h.reincarnate(seq);
        send!(h, SYN seq=0, ack=0, syn=Syn::FULL);
        reopened(&mut h, old);
    }
}

#[test]
fn t04_syn_with_the_same_timestamp_reopens_by_its_number() {
    let (mut h, old) = held(Syn::FULL, |_| ());
    send!(h, SYN seq=1, ack=0, syn=Syn::FULL);
    recv!(h, ACK seq=2, ack=2);
    state!(h, TimeWait);
    h.reincarnate(2);
    send!(h, SYN seq=0, ack=0, syn=Syn::FULL);
    reopened(&mut h, old);
}

#[test]
fn t04_syn_with_timestamps_after_a_connection_without_reopens() {
    let (mut h, old) = held(Syn::PLAIN, |_| ());
    h.reincarnate(-5000);
    h.peer_mut().ts = true;
    send!(h, SYN seq=0, ack=0, syn=Syn::FULL);
    reopened(&mut h, old);
}

#[test]
fn t04_syn_without_timestamps_after_a_connection_with_them_reopens_by_its_number() {
    let (mut h, old) = held(Syn::FULL, |_| ());
    send!(h, SYN seq=1, ack=0, bare=true, syn=Syn::PLAIN);
    recv!(h, ACK seq=2, ack=2);
    h.reincarnate(2);
    h.peer_mut().ts = false;
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    reopened(&mut h, old);
}

#[test]
fn t04_an_older_syn_is_answered_with_an_ack() {
    let (mut h, _) = held(Syn::PLAIN, |_| ());
    for seq in [0, 1, -1000] {
        send!(h, SYN seq=seq, ack=0, syn=Syn::PLAIN);
        recv!(h, ACK seq=2, ack=2);
        nothing!(h);
        state!(h, TimeWait);
    }
    // The peer's RST in answer to the ACK (§3.5.2, figure 9) is ignored, too.
    send!(h, RST seq=2, ack=0);
    h.wait_out();

    // An old timestamp beats a new number.
    let (mut h, _) = held(Syn::FULL, |_| ());
    send!(h, SYN seq=5000, ack=0, syn=Syn::FULL, ts=u32::MAX - 10);
    recv!(h, ACK seq=2, ack=2);
    state!(h, TimeWait);
    assert_eq!(h.counters().time_wait_reopened, 0);
    h.wait_out();
}

#[test]
fn t04_a_segment_of_the_old_incarnation_does_not_hurt_the_new_one() {
    let (mut h, old) = held(Syn::PLAIN, |_| ());
    h.reincarnate(100_000);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    // The old FIN again: far left of the window, and acknowledging what is not ours any more.
    let gap = i64::from(h.peer_mut().irs.expect("answered") - old);
    send!(h, FIN|ACK seq=1 - 100_000, ack=2 - gap);
    recv!(h, ACK seq=1, ack=1);
    state!(h, SynReceived);
    send!(h, ACK seq=1, ack=1);
    state!(h, Established);
    send!(h, FIN|ACK seq=1 - 100_000, ack=2 - gap);
    recv!(h, ACK seq=1, ack=1);
    state!(h, Established);
    send!(h, RST seq=1, ack=0);
    h.closed(ClosePath::Reset, First::Peer, Cause::PeerReset);
    h.all_gone();
}

#[test]
fn t04_a_pair_without_a_listener_is_not_reopened() {
    let mut h = Harness::new();
    // Our end is the active one, from a port that nobody listens on.
    h.local_port = 50_000;
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    send!(h, SYN|ACK seq=0, ack=1, syn=Syn::PLAIN);
    recv!(h, ACK seq=1, ack=1);
    h.told();
    close(&mut h);
    send!(h, SYN seq=5000, ack=0, syn=Syn::PLAIN);
    recv!(h, ACK seq=2, ack=2);
    h.wait_out();
}

#[test]
fn t04_a_syn_that_cannot_be_taken_does_not_end_the_hold() {
    // No room for a half-open connection.
    let (mut h, old) = held(Syn::PLAIN, |s| s.capacity.half_open = 1);
    h.peer(harness::PEER_PORT + 1);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    h.peer(harness::PEER_PORT);
    send!(h, SYN seq=5000, ack=0, syn=Syn::PLAIN);
    nothing!(h);
    state!(h, TimeWait);
    assert_eq!(h.counters().drops[DropReason::SynTableFull as usize], 1);
    h.peer(harness::PEER_PORT + 1);
    send!(h, RST seq=1, ack=0);
    h.peer(harness::PEER_PORT);
    h.reincarnate(5000);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    reopened(&mut h, old);

    // Draining.
    let (mut h, _) = held(Syn::PLAIN, |_| ());
    h.command(Command::Drain);
    send!(h, SYN seq=5000, ack=0, syn=Syn::PLAIN);
    nothing!(h);
    state!(h, TimeWait);
    assert_eq!(h.counters().drops[DropReason::Draining as usize], 1);
    h.wait_out();

    // No room to answer it.
    let (mut h, _) = held(Syn::PLAIN, |_| ());
    h.shard.kept_slots = usize::MAX;
    send!(h, SYN seq=5000, ack=0, syn=Syn::PLAIN);
    nothing!(h);
    state!(h, TimeWait);
    assert_eq!(h.counters().drops[DropReason::TxRingFull as usize], 1);
    h.wait_out();
}

#[test]
fn t03_each_pair_has_a_budget_and_rsts_are_apart_from_it() {
    let (mut h, _) = held(Syn::PLAIN, |s| (s.tcp.challenge_acks, s.tcp.stray_replies) = (3, 5));
    after!(h, 999 - h.now().millis() % 1000 + 1);
    for i in 0..20 {
        h.send(&Seg::new(&[Flags::ACK]).seq(-5000 - i).ack(2).len(100));
    }
    assert_eq!(h.out.len(), 3, "of the pair's own budget");
    h.out.clear();
    // The peer's FIN again is no guess: it is answered all the same.
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    // RSTs to strangers are counted apart: their number says nothing of the ACKs above.
    h.peer(super::harness::PEER_PORT + 7);
    h.peer_mut().irs = Some(SeqNum::new(77));
    for _ in 0..20 {
        send!(h, ACK seq=1, ack=1);
    }
    assert!((3..=5).contains(&h.out.len()), "{}", h.out.len());
    assert!(h.out.drain(..).all(|s| s.header.flags.rst()));
}
