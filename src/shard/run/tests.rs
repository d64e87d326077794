//! A drain and its end, over the simulated link.

use super::super::Drain;
use crate::drop::DropReason;
use crate::metrics::block::ResetCause;
use crate::port::mem::{Impairment, LinkConfig};
use crate::service::discard::Discard;
use crate::service::{Context, Service};
use crate::shard::{Capacity, Listener};
use crate::sim::world::{World, WorldConfig, tuple};
use crate::tcp::TcpConfig;
use crate::tcp::record::{Cause, ClosePath, CloseRecord, First};
use crate::tcp::state::State;
use crate::wire::{Addr, Endpoint, Tuple};
use std::time::Duration;

const PORT: u16 = 9;
const CONNECTIONS: u32 = 300;

/// A client that never closes.
struct Holder;

impl Service for Holder {
    fn opened(&mut self, _: &mut dyn Context) {}
    fn data(&mut self, _: &mut dyn Context, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn peer_closed(&mut self, _: &mut dyn Context) {}
    fn closed(&mut self, _: &Tuple, _: u32, _: &CloseRecord) {}
}

/// A world with established connections. The server's transmit ring holds far fewer segments than there are.
fn established() -> World {
    let cfg = WorldConfig {
        link: LinkConfig { tx_ring: 64, ..LinkConfig::default() }
            .both(Impairment::delayed(Duration::from_millis(1))),
        workers: 1,
        server: TcpConfig::default(),
        client: TcpConfig::default(),
        capacity: Capacity { connections: 512, half_open: 512, time_wait: 1024, chunks: 1024 },
        key: 5,
    };
    let listeners = || {
        let endpoints = vec![Endpoint::new(Addr::v4([10, 0, 0, 1]), PORT)];
        vec![Listener { endpoints, service: Box::new(Discard) }]
    };
    let mut w = World::new(cfg, listeners, Box::new(Holder));
    for n in 0..CONNECTIONS {
        assert!(w.connect(tuple(n, PORT, false), 0));
    }
    let all = |w: &mut World| in_state(w, State::Established) == u64::from(CONNECTIONS);
    assert!(w.run(Duration::from_secs(30), all).unwrap());
    w
}

fn in_state(w: &World, state: State) -> u64 {
    w.servers[0].population()[state as usize]
}

#[test]
fn a_drain_closes_every_connection_takes_no_new_one_and_its_end_resets_what_is_left() {
    let mut w = established();
    w.servers[0].core.drain = Drain::Telling(0);
    let all = |w: &mut World| in_state(w, State::FinWait2) == u64::from(CONNECTIONS);
    assert!(w.run(Duration::from_secs(5), all).unwrap(), "{:?}", w.servers[0].population());
    assert_eq!(w.servers[0].core.drain, Drain::Told);

    assert!(w.connect(tuple(CONNECTIONS, PORT, false), 0));
    let dropped = |w: &mut World| w.servers[0].snapshot().counters.drops[DropReason::Draining as usize] > 0;
    assert!(w.run(Duration::from_secs(1), dropped).unwrap());

    w.servers[0].core.drain = Drain::CuttingOff(0);
    assert!(w.run(Duration::from_secs(1), |w| w.servers[0].live() == 0).unwrap());
    let c = w.servers[0].snapshot().counters;
    let n = u64::from(CONNECTIONS);
    assert_eq!(c.closes[ClosePath::Reset as usize][First::Us as usize][Cause::Drain as usize], n);
    assert_eq!(c.resets_sent[ResetCause::Service as usize], n);
    assert_eq!(c.drops[DropReason::TxRingFull as usize], 0);
    // Every peer was told; the connection that was not taken is left to its SYNs.
    let told = |w: &mut World| w.client.snapshot().counters.closes_by_path(ClosePath::Reset) == n;
    assert!(w.run(Duration::from_secs(1), told).unwrap());
    for a in w.accounting() {
        assert!(a.balanced() && a.lent == 0, "{a:?}");
    }
}

#[test]
fn the_end_without_a_drain_before_it_takes_no_new_connections_either() {
    let mut w = established();
    w.servers[0].core.drain = Drain::CuttingOff(0);
    assert!(w.run(Duration::from_secs(1), |w| w.servers[0].core.drain == Drain::Over).unwrap());
    assert_eq!((w.servers[0].live(), w.servers[0].chunks_used()), (0, 0));
    assert!(w.connect(tuple(CONNECTIONS, PORT, false), 0));
    let dropped = |w: &mut World| w.servers[0].snapshot().counters.drops[DropReason::Draining as usize] > 0;
    assert!(w.run(Duration::from_secs(1), dropped).unwrap());
    assert_eq!(w.servers[0].records(), 0);
}
