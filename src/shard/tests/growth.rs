//! Receive windows that grow with the rate of delivery, within the listener's bound and the pool (d05, d13).

use super::harness::Setup;
use super::words::ACK;
use super::{Harness, Seg, Syn, after, recv, send};
use crate::shard::tables::Found;
use crate::tcp::Conn;
use crate::tcp::config::Limits;
use crate::wire::SeqNum;

/// Round trip in milliseconds.
const RTT: u64 = 50;
/// Bytes of a segment beside its timestamps.
const MSS: usize = 1448;
const KIB: u32 = 1024;

/// A sender on a path of [`RTT`] that fills every window it is offered.
struct Sender {
    h: Harness,
    /// Next byte to send, and the furthest edge that was offered.
    next: i64,
    edge: SeqNum,
    scale: u8,
}

impl Sender {
    fn new(tune: impl FnOnce(&mut Setup)) -> Self {
        let mut h = Harness::tuned(|s| {
            s.capacity.chunks = 4096;
            s.tcp.receive_buffer = 1024 * KIB;
            tune(s);
        });
        h.peer_mut().ts = true;
        send!(h, SYN seq=0, ack=0, syn=Syn::FULL);
        let syn_ack = recv!(h, SYN|ACK seq=0, ack=1);
        after!(h, RTT);
        send!(h, ACK seq=1, ack=1);
        let scale = syn_ack.options.window_scale.expect("offered");
        let edge = syn_ack.ack + u32::from(syn_ack.window);
        Self { h, next: 1, edge, scale }
    }

    /// What the last window lets out.
    fn room(&mut self) -> u32 {
        let next = self.h.peer_mut().iss + self.next as u32;
        self.edge.bytes_since(next)
    }

    /// A round trip: as much as there is room for goes out, `most` bytes of it at most. Gives the window that the last
    /// acknowledgment offers.
    fn round(&mut self, most: u32) -> u32 {
        let end = self.next + i64::from(self.room().min(most));
        while self.next < end {
            let len = MSS.min((end - self.next) as usize);
            self.h.send(&Seg::new(&ACK).seq(self.next).len(len));
            self.next += len as i64;
        }
        after!(self.h, RTT);
        let mut window = 0;
        for seen in std::mem::take(&mut self.h.out) {
            window = u32::from(seen.header.window) << self.scale;
            let edge = seen.header.ack + window;
            // Less than one unit of the scale may be lost to rounding.
            assert!(self.edge.bytes_since(edge) < 1 << self.scale, "the edge went back");
            self.edge = self.edge.max(edge);
        }
        window
    }
}

#[test]
fn d13_a_window_that_is_used_up_within_a_round_trip_grows_to_the_bound() {
    let mut s = Sender::new(|_| ());
    let mut windows = Vec::new();
    for _ in 0..12 {
        windows.push(s.round(u32::MAX));
    }
    assert!(windows[0] <= 64 * KIB, "{windows:?}");
    let grown = windows.windows(2).filter(|w| w[1] >= w[0] * 3 / 2).count();
    assert!(grown >= 3, "it doubles: {windows:?}");
    let last = *windows.last().expect("rounds");
    assert!(last > 1000 * KIB && last <= 1024 * KIB, "{windows:?}");
    assert_eq!(s.h.shard.chunks_used(), 0, "a service that reads at once needs no memory");
}

#[test]
fn d13_the_bound_is_the_listeners() {
    let mut s = Sender::new(|s| {
        s.tcp.limits = vec![Limits { receive_buffer: Some(200 * KIB), ..Limits::DEFAULT }];
    });
    let largest = (0..12).map(|_| s.round(u32::MAX)).max().expect("rounds");
    assert!(largest > 190 * KIB && largest <= 200 * KIB, "{largest}");
}

#[test]
fn d13_a_sender_below_the_window_leaves_it_as_it_is() {
    let mut s = Sender::new(|_| ());
    for _ in 0..60 {
        let window = s.round(12 * KIB);
        assert!(window <= 64 * KIB, "{window}");
    }
}

#[test]
fn d05_a_service_that_takes_little_gets_no_more_offered() {
    let mut s = Sender::new(|_| ());
    for _ in 0..60 {
        s.h.service().quota = 8000;
        let window = s.round(u32::MAX);
        assert!(window <= 64 * KIB, "{window}");
        assert!(s.h.shard.chunks_used() * 2048 <= 70 * 1024);
    }
}

#[test]
fn d05_a_short_pool_stops_growth_and_what_is_promised_stays_promised() {
    let mut s = Sender::new(|s| s.tcp.receive_window = 128 * KIB);
    // Somebody leaves half of what would be plenty: a quarter of the bound is all there is to have.
    let mut taken = Vec::new();
    while s.h.shard.core.pool.available() > 1536 {
        taken.extend(s.h.shard.core.pool.alloc());
    }
    let mut windows = Vec::new();
    for _ in 0..12 {
        windows.push(s.round(u32::MAX));
    }
    assert!(s.space() <= 256 * KIB, "{}", s.space());
    // A quarter of what it would be, and that by use alone: `round` looks at the edge.
    assert!(windows[4..].iter().all(|&w| w <= s.space() / 4), "{windows:?}");
    // With none left, a service that reads at once goes on with a few segments a round trip.
    while let Some(id) = s.h.shard.core.pool.alloc() {
        taken.push(id);
    }
    windows.clear();
    for _ in 0..12 {
        windows.push(s.round(u32::MAX));
    }
    assert!(windows[2..].iter().all(|&w| w > 3 * MSS as u32 && w <= 4 * 1460), "{windows:?}");
    let got = s.h.service().got();
    assert_eq!(got as i64, s.next - 1, "nothing was refused");
    for id in taken {
        s.h.shard.core.pool.free(id);
    }
    let largest = (0..16).map(|_| s.round(u32::MAX)).max().expect("rounds");
    assert!(largest > 1000 * KIB, "{largest}");
}

#[test]
fn d05_an_idle_connection_owns_no_chunk() {
    let mut s = Sender::new(|_| ());
    s.h.service().data = vec![super::Do::Send(3000)];
    for _ in 0..3 {
        s.round(10 * KIB);
    }
    let sent = s.h.service().sent as i64;
    let next = s.next;
    assert!(sent > 0);
    s.h.send(&Seg::new(&ACK).seq(next).ack(1 + sent));
    s.h.skip();
    for _ in 0..100 {
        let all = s.h.service().sent as i64;
        let acked = all.min(s.sent_so_far());
        s.h.send(&Seg::new(&ACK).seq(next).ack(1 + acked));
        s.h.skip();
    }
    assert_eq!(s.h.shard.chunks_used(), 0);
}

impl Sender {
    fn conn(&self) -> &Conn {
        let Found::Conn(key) = self.h.found() else { panic!("there is a connection") };
        self.h.shard.core.tables.conns.get(key).expect("in the index")
    }

    /// How far the shard has sent.
    fn sent_so_far(&mut self) -> i64 {
        let irs = self.h.peer_mut().irs.expect("the handshake is done");
        i64::from(self.conn().snd_max() - irs) - 1
    }

    /// How large the window may become.
    fn space(&self) -> u32 {
        self.conn().receive_space()
    }
}
