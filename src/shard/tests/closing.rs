//! Closing: c01 to c18.

use super::*;
use crate::tcp::record::{Cause, ClosePath, First};

#[test]
fn c01_peer_closes_and_the_service_closes_at_once() {
    let mut h = Harness::open();
    h.service().peer_closed = vec![Do::Close];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, FIN|ACK seq=1, ack=2);
    nothing!(h);
    state!(h, LastAck);
    send!(h, ACK seq=2, ack=2);
    state!(h, Closed);
    let r = h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    assert_eq!((r.fin_retransmissions, r.unacknowledged, r.time_wait), (0, 0, false));
    assert_eq!(h.told(), [Told::PeerClosed, Told::Closed]);
    h.all_gone();
}

#[test]
fn c02_we_close_first() {
    let mut h = Harness::open();
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    state!(h, FinWait1);
    send!(h, ACK seq=1, ack=2);
    nothing!(h);
    state!(h, FinWait2);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    h.wait_out();
}
