//! Whole lives of connections, both sides of each: handshake, a request that is echoed, the close, the expiry of
//! `TIME_WAIT`.
//!
//! Two shards exchange real frames over the simulated link, so a figure covers a client and a server, all parsing,
//! emitting and copying included, and no kernel. The simulated clock costs next to nothing. Compare figures of one
//! machine and one sitting only.
//!
//! ```text
//! cargo bench --bench lifecycle
//! ```

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use finwheel::port::mem::{Impairment, LinkConfig};
use finwheel::service::echo::Echo;
use finwheel::service::{Context, Service};
use finwheel::shard::{Capacity, Listener};
use finwheel::sim::world::{World, WorldConfig, tuple};
use finwheel::tcp::TcpConfig;
use finwheel::tcp::record::CloseRecord;
use finwheel::wire::{Addr, Endpoint, Tuple};
use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

/// Lives in one measurement.
const LIVES: u32 = 2_000;
/// Connections at a time: a burst's worth, so that rings never overflow and nothing is retransmitted.
const CONCURRENT: u32 = 64;
const REQUEST: [u8; 100] = [b'q'; 100];
const PORT: u16 = 7;

/// Sends a request and closes when all of it is back.
struct Client {
    ended: Rc<Cell<u32>>,
    graceful: Rc<Cell<u32>>,
    /// Bytes that are back, by connection.
    back: Vec<usize>,
}

impl Service for Client {
    fn opened(&mut self, cx: &mut dyn Context) {
        assert_eq!(cx.send(&REQUEST), REQUEST.len(), "a fresh connection has room for a request");
    }
    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        let back = &mut self.back[cx.user() as usize];
        *back += bytes.len();
        if *back == REQUEST.len() {
            cx.close();
        }
        bytes.len()
    }
    fn peer_closed(&mut self, cx: &mut dyn Context) {
        cx.close();
    }
    fn closed(&mut self, _: &Tuple, _: u32, record: &CloseRecord) {
        self.ended.set(self.ended.get() + 1);
        self.graceful.set(self.graceful.get() + u32::from(record.path.graceful()));
    }
}

/// Closes as soon as the request has been answered, before the peer does: `TIME_WAIT` falls to the server.
struct AnswerAndClose;

impl Service for AnswerAndClose {
    fn opened(&mut self, _: &mut dyn Context) {}
    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        let took = cx.send(bytes);
        cx.close();
        took
    }
    fn peer_closed(&mut self, cx: &mut dyn Context) {
        cx.close();
    }
    fn closed(&mut self, _: &Tuple, _: u32, _: &CloseRecord) {}
}

struct Lives {
    world: World,
    ended: Rc<Cell<u32>>,
    graceful: Rc<Cell<u32>>,
    v6: bool,
}

impl Lives {
    fn new(v6: bool, service: fn() -> Box<dyn Service>) -> Self {
        let tcp = TcpConfig { time_wait: Duration::from_secs(1), ..TcpConfig::default() };
        let cfg = WorldConfig {
            link: LinkConfig::default().both(Impairment::delayed(Duration::from_micros(50))),
            workers: 1,
            server: tcp.clone(),
            client: tcp,
            capacity: Capacity { connections: 4096, half_open: 1024, time_wait: 8192, chunks: 8192 },
            key: 1,
        };
        let (ended, graceful) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let client = Client {
            ended: Rc::clone(&ended),
            graceful: Rc::clone(&graceful),
            back: vec![0; LIVES as usize],
        };
        let listeners = || {
            let any = if v6 { Addr::v6([0; 16]) } else { Addr::v4([0; 4]) };
            vec![Listener { endpoints: vec![Endpoint::new(any, PORT)], service: service() }]
        };
        Self { world: World::new(cfg, listeners, Box::new(client)), ended, graceful, v6 }
    }

    fn live(mut self) -> Self {
        let limit = Duration::from_secs(60);
        for begun in (0..LIVES).step_by(CONCURRENT as usize) {
            let until = (begun + CONCURRENT).min(LIVES);
            for n in begun..until {
                assert!(self.world.connect(tuple(n, PORT, self.v6), n), "the tables have room");
            }
            let ended = Rc::clone(&self.ended);
            assert!(self.world.run(limit, |_| ended.get() == until).expect("the ports work"));
        }
        assert_eq!(self.graceful.get(), LIVES, "every close is graceful");
        let gone = self.world.run(limit, |w| w.leftovers() == (0, 0, 0)).expect("the ports work");
        assert!(gone, "no record, timer or chunk is left");
        self
    }
}

fn lifecycle(c: &mut Criterion) {
    let mut group = c.benchmark_group("lifecycle");
    group.throughput(Throughput::Elements(u64::from(LIVES)));
    group.sample_size(10);
    let echo: fn() -> Box<dyn Service> = || Box::new(Echo);
    let closing: fn() -> Box<dyn Service> = || Box::new(AnswerAndClose);
    for (name, v6, service) in [
        ("client_closes_first/ipv4", false, echo),
        ("client_closes_first/ipv6", true, echo),
        ("server_closes_first/ipv4", false, closing),
    ] {
        group.bench_function(name, |b| {
            // The world is returned, so that taking it down is not measured.
            b.iter_batched(
                || Lives::new(v6, service),
                |lives| black_box(lives.live()),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, lifecycle);
criterion_main!(benches);
