//! Ends that are not graceful, and what may not look graceful: c12 to c14 and c18.

use super::*;
use crate::drop::DropReason;
use crate::metrics::block::ResetCause;
use crate::shard::mailbox::Command;
use crate::tcp::config::Limits;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::wire::Options;

#[test]
fn c12_close_with_unread_data_in_the_buffer() {
    let mut h = Harness::open();
    h.service().take = 0;
    send!(h, ACK seq=1, ack=1, len=10);
    h.act(&[Do::Send(100), Do::Close]);
    recv!(h, RST|ACK seq=1, ack=11);
    let r = h.closed(ClosePath::Reset, First::Us, Cause::UnreadData);
    assert_eq!((r.unacknowledged, r.bytes_in), (100, 10));
    assert_eq!(h.counters().resets_sent[ResetCause::Service as usize], 1);
    h.all_gone();
}

#[test]
fn c12_close_within_the_call_that_leaves_bytes_unread() {
    let mut h = Harness::open();
    h.service().take = 4;
    h.service().data = vec![Do::Close];
    send!(h, ACK seq=1, ack=1, len=10);
    let rst = recv!(h, RST|ACK seq=1, ack=1);
    assert_eq!(rst.options, Options::default());
    h.closed(ClosePath::Reset, First::Us, Cause::UnreadData);
    h.all_gone();
}

#[test]
fn c12_close_within_the_call_that_reads_all_is_graceful() {
    let mut h = Harness::open();
    h.service().data = vec![Do::Send(50), Do::Close];
    send!(h, ACK seq=1, ack=1, len=10);
    recv!(h, FIN|PSH|ACK seq=1, ack=11, len=50);
    send!(h, FIN|ACK seq=11, ack=52);
    recv!(h, ACK seq=52, ack=12);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    h.wait_out();
}

#[test]
fn c12_close_in_opened_with_data_on_the_ack_of_the_handshake() {
    let mut h = Harness::new();
    h.service().opened = vec![Do::Close];
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, ACK seq=1, ack=1, len=10);
    recv!(h, RST|ACK seq=1, ack=1);
    h.closed(ClosePath::Reset, First::Us, Cause::UnreadData);
    h.all_gone();
}

#[test]
fn c12_close_after_the_peers_fin_with_unread_data() {
    let mut h = Harness::open();
    h.service().take = 0;
    send!(h, FIN|ACK seq=1, ack=1, len=10);
    recv!(h, ACK seq=1, ack=12);
    h.act(&[Do::Close]);
    recv!(h, RST|ACK seq=1, ack=12);
    h.closed(ClosePath::Reset, First::Peer, Cause::UnreadData);
    h.all_gone();
}

#[test]
fn c12_a_drained_service_that_closes_over_unread_data_resets() {
    let mut h = Harness::open();
    h.service().take = 0;
    h.service().drain = vec![Do::Close];
    send!(h, ACK seq=1, ack=1, len=10);
    h.command(Command::Drain);
    recv!(h, RST|ACK seq=1, ack=11);
    h.closed(ClosePath::Reset, First::Us, Cause::UnreadData);
    h.all_gone();
}

#[test]
fn c12_shutdown_with_unread_data_is_a_half_close() {
    let mut h = Harness::open();
    h.service().take = 0;
    send!(h, ACK seq=1, ack=1, len=10);
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=11);
    h.service().take = usize::MAX;
    send!(h, ACK seq=11, ack=2, len=10);
    assert_eq!(h.told(), [Told::Data(10), Told::Data(10), Told::Data(20)]);
    send!(h, FIN|ACK seq=21, ack=2);
    recv!(h, ACK seq=2, ack=22);
    h.closed(ClosePath::HalfClose, First::Us, Cause::Service);
    h.wait_out();
}

#[test]
fn c12_lingering_close_saves_the_response() {
    let mut h = Harness::open();
    h.service().take = 0;
    h.service().data = vec![Do::Send(100), Do::Linger];
    send!(h, ACK seq=1, ack=1, len=1000);
    recv!(h, FIN|PSH|ACK seq=1, ack=1001, len=100);
    assert_eq!(h.told(), [Told::Data(1000)]);
    // The rest of the upload is read and discarded, and acknowledged.
    send!(h, ACK seq=1001, ack=1, len=1000);
    send!(h, ACK seq=2001, ack=1, len=1000);
    recv!(h, ACK seq=102, ack=3001);
    send!(h, FIN|ACK seq=3001, ack=102);
    recv!(h, ACK seq=102, ack=3002);
    let r = h.closed(ClosePath::HalfClose, First::Us, Cause::Service);
    assert_eq!((r.bytes_in, r.bytes_out), (3000, 100));
    assert_eq!(h.told(), [Told::Closed]);
    h.wait_out();
}

#[test]
fn c12_lingering_close_opens_the_window_that_unread_data_had_closed() {
    let mut h = Harness::open_tuned(|s| s.tcp.receive_buffer = 2000);
    h.service().take = 0;
    send!(h, ACK seq=1, ack=1, len=1000);
    send!(h, ACK seq=1001, ack=1, len=1000);
    recv!(h, ACK seq=1, ack=2001, win=0);
    h.act(&[Do::Linger]);
    recv!(h, FIN|ACK seq=1, ack=2001, win=2000);
    send!(h, FIN|ACK seq=2001, ack=2, len=1000);
    recv!(h, ACK seq=2, ack=3002);
    h.closed(ClosePath::HalfClose, First::Us, Cause::Service);
    h.wait_out();
}

#[test]
fn c12_lingering_close_ends_at_its_limit_of_bytes() {
    let mut h =
        Harness::open_tuned(|s| s.tcp.limits = vec![Limits { linger_bytes: 2000, ..Limits::DEFAULT }]);
    h.act(&[Do::Linger]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=2, len=1000);
    send!(h, ACK seq=1001, ack=2, len=1000);
    recv!(h, ACK seq=2, ack=2001);
    state!(h, FinWait2);
    send!(h, ACK seq=2001, ack=2, len=1);
    recv!(h, RST|ACK seq=2, ack=2002);
    h.closed(ClosePath::Reset, First::Us, Cause::LingerLimit);
    h.all_gone();
}

#[test]
fn c12_what_is_unread_when_lingering_begins_counts() {
    let mut h = Harness::open_tuned(|s| s.tcp.limits = vec![Limits { linger_bytes: 500, ..Limits::DEFAULT }]);
    h.service().take = 0;
    send!(h, ACK seq=1, ack=1, len=501);
    h.act(&[Do::Linger]);
    recv!(h, RST|ACK seq=1, ack=502);
    h.closed(ClosePath::Reset, First::Us, Cause::LingerLimit);
    h.all_gone();
}

#[test]
fn c12_lingering_close_ends_at_its_limit_of_time() {
    let mut h = Harness::open_tuned(|s| {
        s.tcp.limits = vec![Limits { linger_time: std::time::Duration::from_secs(5), ..Limits::DEFAULT }];
    });
    h.act(&[Do::Linger]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=2);
    after!(h, 4999);
    send!(h, ACK seq=1, ack=2, len=10);
    after!(h, 1);
    nothing!(h);
    send!(h, ACK seq=11, ack=2, len=10);
    recv!(h, RST|ACK seq=2, ack=11);
    h.closed(ClosePath::Reset, First::Us, Cause::DataAfterClose);
    h.all_gone();
}

#[test]
fn c13_abort_in_established() {
    let mut h = Harness::open();
    h.act(&[Do::Abort]);
    recv!(h, RST|ACK seq=1, ack=1, win=0);
    h.closed(ClosePath::Reset, First::Us, Cause::Abort);
    assert_eq!(h.told(), [Told::Closed]);
    h.all_gone();
}

#[test]
fn c13_abort_is_numbered_behind_what_was_sent_and_drops_what_was_not() {
    let mut h = Harness::new();
    h.win = 8;
    h.handshake(Syn::FULL);
    send!(h, ACK seq=101, ack=1, len=100);
    recv!(h, ACK seq=1, ack=1);
    h.act(&[Do::Send(5000)]);
    let at = h.out.len() as i64;
    let sent: usize = h.out.drain(..).map(|s| s.payload.len()).sum();
    assert!(at > 0 && sent < 5000, "the window holds something back");
    h.act(&[Do::Abort]);
    recv!(h, RST|ACK seq=1 + sent as i64, ack=1);
    let r = h.closed(ClosePath::Reset, First::Us, Cause::Abort);
    assert_eq!(r.unacknowledged, 5000);
    h.all_gone();
}

#[test]
fn c13_abort_after_a_timeout_is_still_numbered_behind_all_that_was_sent() {
    let mut h = Harness::open();
    h.act(&[Do::Send(2000)]);
    recv!(h, ACK seq=1, ack=1, len=1460);
    recv!(h, PSH|ACK seq=1461, ack=1, len=540);
    after!(h, 200);
    recv!(h, ACK seq=1, ack=1, len=1460);
    h.act(&[Do::Abort]);
    recv!(h, RST|ACK seq=2001, ack=1);
    h.closed(ClosePath::Reset, First::Us, Cause::Abort);
    h.all_gone();
}

#[test]
fn c13_abort_in_fin_wait_1_and_2() {
    for acked in [1, 2] {
        let mut h = Harness::open();
        h.act(&[Do::Shutdown]);
        recv!(h, FIN|ACK seq=1, ack=1);
        send!(h, ACK seq=1, ack=acked);
        h.act(&[Do::Abort]);
        recv!(h, RST|ACK seq=2, ack=1);
        h.closed(ClosePath::Reset, First::Us, Cause::Abort);
        h.all_gone();
    }
}

#[test]
fn c13_abort_in_close_wait() {
    let mut h = Harness::open();
    h.service().peer_closed = vec![Do::Abort];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, RST|ACK seq=1, ack=2);
    h.closed(ClosePath::Reset, First::Peer, Cause::Abort);
    h.all_gone();
}

#[test]
fn c13_abort_in_closing_and_last_ack() {
    let mut h = Harness::open();
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1);
    h.service().peer_closed = vec![Do::Abort];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, RST|ACK seq=2, ack=2);
    h.closed(ClosePath::Reset, First::Both, Cause::Abort);
    h.all_gone();

    let mut h = Harness::open();
    h.service().peer_closed = vec![Do::Close];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, FIN|ACK seq=1, ack=2);
    h.act(&[Do::Abort]);
    recv!(h, RST|ACK seq=2, ack=2);
    h.closed(ClosePath::Reset, First::Peer, Cause::Abort);
    h.all_gone();
}

#[test]
fn c13_abort_at_the_end_of_the_stream_in_time_wait_changes_nothing() {
    let mut h = Harness::open();
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1);
    h.service().peer_closed = vec![Do::Abort];
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!(h.told(), [Told::PeerClosed, Told::Closed]);
    h.wait_out();
}

#[test]
fn c13_abort_of_an_open_that_is_not_answered() {
    let mut h = Harness::new();
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    h.act(&[Do::Abort]);
    nothing!(h);
    h.closed(ClosePath::Reset, First::Us, Cause::Abort);
    h.all_gone();
}

#[test]
fn c14_data_after_a_full_close_is_reset() {
    for acked in [1, 2] {
        let mut h = Harness::open();
        h.act(&[Do::Close]);
        recv!(h, FIN|ACK seq=1, ack=1);
        send!(h, ACK seq=1, ack=acked);
        send!(h, ACK seq=1, ack=acked, len=10);
        recv!(h, RST|ACK seq=2, ack=1);
        let r = h.closed(ClosePath::Reset, First::Us, Cause::DataAfterClose);
        assert_eq!(r.bytes_in, 0);
        assert_eq!(h.counters().resets_sent[ResetCause::DataAfterClose as usize], 1);
        h.all_gone();
    }
}

#[test]
fn c14_data_with_the_fin_or_out_of_order_after_a_full_close_is_reset() {
    for (fin, seq) in [(true, 1), (false, 101)] {
        let mut h = Harness::open();
        h.act(&[Do::Close]);
        recv!(h, FIN|ACK seq=1, ack=1);
        if fin {
            send!(h, FIN|ACK seq=seq, ack=2, len=10);
        } else {
            send!(h, ACK seq=seq, ack=2, len=10);
        }
        recv!(h, RST|ACK seq=2, ack=1);
        h.closed(ClosePath::Reset, First::Us, Cause::DataAfterClose);
        h.all_gone();
    }
}

#[test]
fn c14_old_data_again_after_a_full_close_is_only_acknowledged() {
    let mut h = Harness::open();
    send!(h, ACK seq=1, ack=1, len=10);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=11);
    send!(h, ACK seq=1, ack=1, len=10);
    recv!(h, ACK seq=2, ack=11);
    send!(h, FIN|ACK seq=11, ack=2);
    recv!(h, ACK seq=2, ack=12);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    h.wait_out();
}

#[test]
fn c14_data_after_shutdown_and_then_close_is_reset() {
    let mut h = Harness::open();
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=2, len=10);
    h.act(&[Do::Close]);
    after!(h, 40);
    recv!(h, ACK seq=2, ack=11);
    send!(h, ACK seq=11, ack=2, len=10);
    recv!(h, RST|ACK seq=2, ack=11);
    h.closed(ClosePath::Reset, First::Us, Cause::DataAfterClose);
    h.all_gone();
}

#[test]
fn c14_data_for_a_connection_that_is_gone_is_reset() {
    let mut h = Harness::open();
    h.service().peer_closed = vec![Do::Close];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, FIN|ACK seq=1, ack=2);
    send!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    send!(h, ACK seq=2, ack=2, len=10);
    recv!(h, RST seq=2, ack=0);
    assert_eq!(h.counters().resets_sent[ResetCause::NoConnection as usize], 1);
    h.all_gone();
}

#[test]
fn c18_fin_to_a_closed_port() {
    let mut h = Harness::new();
    let closed = |h: &Harness, seg: &Seg| {
        let mut frame = h.frame(seg);
        // The destination port, and the checksum mended by the difference.
        let old = u16::from_be_bytes([frame[36], frame[37]]);
        frame[36..38].copy_from_slice(&(old + 1).to_be_bytes());
        let sum = u32::from(!u16::from_be_bytes([frame[50], frame[51]])) + 1;
        frame[50..52].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        frame
    };
    // With an ACK: the RST takes its number from there (§3.10.7.1).
    let frame = closed(&h, &Seg::new(&[crate::wire::Flags::FIN, crate::wire::Flags::ACK]).seq(1).ack(77));
    h.send_raw(&frame);
    let rst = h.out.pop_front().expect("an answer");
    assert_eq!((rst.header.flags, rst.header.seq.raw()), (crate::wire::Flags::RST, 77));
    // Without: number 0, and an ACK of the FIN and its 5 bytes.
    let frame = closed(&h, &Seg::new(&[crate::wire::Flags::FIN]).seq(1).len(5));
    h.send_raw(&frame);
    let rst = h.out.pop_front().expect("an answer");
    assert_eq!(rst.header.flags, crate::wire::Flags::RST | crate::wire::Flags::ACK);
    assert_eq!((rst.header.seq.raw(), rst.header.ack), (0, h.peer_mut().iss + 7));
    assert_eq!(h.counters().resets_sent[ResetCause::NoConnection as usize], 2);
    h.all_gone();
}

#[test]
fn c18_fin_in_listen() {
    let mut h = Harness::new();
    // With an ACK: there is nothing to acknowledge, so RST (§3.10.7.2, second).
    send!(h, FIN|ACK seq=1, ack=77);
    recv!(h, RST seq=77, ack=0);
    // Without: dropped in silence (§3.10.7.2, fourth).
    send!(h, FIN seq=1, ack=0);
    nothing!(h);
    let c = h.counters();
    assert_eq!(c.drops[DropReason::NoConnection as usize], 2);
    assert_eq!(c.resets_sent.iter().sum::<u64>(), 1);
    h.all_gone();
}

#[test]
fn c18_fin_for_a_half_open_connection() {
    let mut h = Harness::new();
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    // Without an ACK it is nothing (§3.10.7.4, fifth).
    send!(h, FIN seq=1, ack=0);
    nothing!(h);
    state!(h, SynReceived);
    // With the ACK of our SYN it opens and closes in one.
    send!(h, FIN|ACK seq=1, ack=1, len=10);
    recv!(h, ACK seq=1, ack=12);
    state!(h, CloseWait);
    assert_eq!(h.told(), [Told::Opened, Told::Data(10), Told::PeerClosed]);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=12);
    send!(h, ACK seq=12, ack=2);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn c18_fin_in_syn_sent() {
    let mut h = Harness::new();
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    // With an ACK of our SYN, with none, and out of range: only the last one is answered (§3.10.7.3).
    send!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN seq=1, ack=0);
    nothing!(h);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, RST seq=2, ack=0);
    state!(h, SynSent);
    send!(h, SYN|ACK seq=0, ack=1, syn=Syn::PLAIN);
    recv!(h, ACK seq=1, ack=1);
    state!(h, Established);
    h.act(&[Do::Abort]);
    recv!(h, RST|ACK seq=1, ack=1);
    h.closed(ClosePath::Reset, First::Us, Cause::Abort);
    h.all_gone();
}
