//! What a segment says of the peer's window when its own bytes are not new (RFC 9293 §3.10.7.4).

use super::*;
use crate::wire::Flags;

/// A peer whose bytes arrive out of order: a later segment first, then the earlier one again, which meanwhile
/// acknowledges more and closes the window.
#[test]
fn d05_a_retransmission_that_acknowledges_something_new_closes_the_window() {
    let mut h = Harness::tuned(|_| {});
    h.handshake(Syn { mss: Some(1000), ..Syn::PLAIN });
    h.act(&[Do::Send(2000)]);
    h.skip();
    h.skip();
    // Bytes 501 to 1000 come before 1 to 500; nothing of ours is acknowledged yet.
    send!(h, ACK seq=501, ack=1, len=500, win=3000);
    recv!(h, ACK seq=2001, ack=1);
    // The first ones come again, with the ACK of all that we sent, and no more room.
    send!(h, ACK seq=1, ack=2001, len=500, win=0);
    recv!(h, ACK seq=2001, ack=1001);
    h.act(&[Do::Send(1500)]);
    nothing!(h);
    // A probe, not what the peer has no room for: our numbers must not run ahead of its window, for it would take none of
    // our acknowledgments then.
    after!(h, 1100);
    let probe = h.out.front().expect("a probe");
    assert!(probe.payload.len() <= 1, "{probe:?}");
    assert!(probe.header.flags.has(Flags::ACK));
}
