//! One shard against a scripted peer, segment by segment, in virtual time.
//!
//! A test reads like a packet script. What the peer sends and what the shard must answer are lines of their own, with
//! sequence numbers counted from each side's initial one, so that `1` is the first byte of data:
//!
//! ```text
//! let mut h = Harness::open();                  // three-way handshake done
//! h.service().peer_closed = vec![Do::Close];    // what the service does in which call
//! send!(h, FIN|ACK seq=1, ack=1);
//! recv!(h, ACK seq=1, ack=2);
//! recv!(h, FIN|ACK seq=1, ack=2);
//! state!(h, LastAck);
//! after!(h, 1000);                              // milliseconds; timers run on the way
//! recv!(h, FIN|ACK seq=1, ack=2);
//! send!(h, ACK seq=2, ack=2);
//! nothing!(h);
//! h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
//! h.all_gone();
//! ```
//!
//! What is left out of `send!` is `seq=1, ack=1, len=0, win=65535`; of `recv!`, `len=0` and a window that is not
//! looked at. Payloads follow a pattern by sequence number, and both the harness and the scripted service check it.
//! `recv!` takes segments in the order in which they were sent; `nothing!` says there are no more.

// Sequence numbers relative to the initial ones are small and may lie before them.
#![allow(clippy::cast_possible_wrap, clippy::cast_sign_loss)]

#[allow(dead_code)] // A vocabulary: a word may wait for the test that needs it.
mod harness;
#[allow(dead_code)] // As above.
mod script;
mod words;

mod abuse;
mod at_rest;
mod closing;
mod closing_ends;
mod closing_limits;
mod closing_loss;
mod cookies;
mod data;
mod ecn;
mod errands;
mod gauges;
mod growth;
mod keepalive;
mod memory;
mod misdirected;
mod opening;
mod operate;
mod outbound;
mod path;
mod rack;
mod reassembly;
mod recovery;
mod resets;
mod retransmission;
mod spurious;
mod table;
mod tail_probe;
mod time_wait;
mod time_wait_bulk;
mod timestamps;
mod unread;
mod window;
mod window_news;

#[allow(unused_imports)] // As above.
use harness::{Harness, Seg, Syn};
use script::{Do, Told};

/// The peer sends a segment.
macro_rules! send {
    ($h:expr, $($flag:ident)|+ $($key:ident = $value:expr),*) => {
        $h.send(&crate::shard::tests::Seg::new(&[$(crate::wire::Flags::$flag),+])$(.$key($value))*)
    };
}
/// The shard has sent exactly this segment next. Gives its header.
macro_rules! recv {
    ($h:expr, $($flag:ident)|+ $($key:ident = $value:expr),*) => {
        $h.recv(&crate::shard::tests::Seg::new(&[$(crate::wire::Flags::$flag),+])$(.$key($value))*)
    };
}
/// The shard has sent no further segment.
macro_rules! nothing {
    ($h:expr) => {
        $h.nothing()
    };
}
/// Milliseconds pass.
macro_rules! after {
    ($h:expr, $ms:expr) => {
        $h.after(std::time::Duration::from_millis($ms))
    };
}
/// The connection is in this state.
macro_rules! state {
    ($h:expr, $state:ident) => {
        assert_eq!($h.state(), crate::tcp::state::State::$state)
    };
}
#[allow(unused_imports)] // Each file of tests uses the words it needs.
use {after, nothing, recv, send, state};
