//! The generator on the simulated link, against the services: real shards, virtual time.

use super::*;
use crate::port::mem::{Impairment, LinkConfig};
use crate::service::discard::Discard;
use crate::service::echo::Echo;
use crate::service::http::{Http, HttpConfig};
use crate::shard::{Capacity, Listener};
use crate::sim::world::{CLIENT_MAC, SERVER_MAC, World, WorldConfig, tuple};
use crate::tcp::TcpConfig;
use std::ops::RangeInclusive;
use tally::Counts;

const ECHO: u16 = 7;
const DISCARD: u16 = 9;
const HTTP: u16 = 80;
const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn closed_loop(total: u64) -> Pace {
    Pace { rate_milli: None, total: Some(total), duration: None, worker: 0, workers: 1 }
}

fn open_loop(rate: u64, duration: Duration) -> Pace {
    Pace { rate_milli: Some(rate * 1000), total: None, duration: Some(duration), worker: 0, workers: 1 }
}

fn http(keep: &str) -> Request {
    Request::Http(Arc::from(format!("GET / HTTP/1.1\r\nHost: t\r\nConnection: {keep}\r\n\r\n").as_bytes()))
}

fn bytes(count: u64) -> Request {
    Request::Bytes { count, echo: true }
}

fn config(port: u16, request: Request, close: CloseShape, pace: Pace) -> Config {
    let t = tuple(0, port, false);
    Config {
        target: t.remote,
        l2: L2 { src: CLIENT_MAC, dst: SERVER_MAC, vlan: None },
        request,
        close,
        hold: Duration::ZERO,
        timeout: 10 * SECOND,
        concurrency: 16,
        pace,
        pairs: pairs(5000..=5999),
        desk: Arc::default(),
    }
}

fn pairs(ports: RangeInclusive<u16>) -> Pairs {
    let all: Arc<[_]> = Arc::from([tuple(0, 1, false).local.addr]);
    Pairs::new(&all, &ports, 0, 1).unwrap()
}

/// A run: the world, and what was counted.
struct Run {
    world: World,
    desk: Arc<Desk>,
    sum: Tally,
}

impl Run {
    fn new(cfg: Config) -> Self {
        Self::over(cfg, Impairment::delayed(MS), TcpConfig::default())
    }

    fn over(cfg: Config, line: Impairment, client: TcpConfig) -> Self {
        let desk = Arc::clone(&cfg.desk);
        let world = WorldConfig {
            link: LinkConfig::default().both(line),
            workers: 1,
            server: TcpConfig::default(),
            client,
            capacity: Capacity { connections: 256, half_open: 256, time_wait: 4096, chunks: 1024 },
            key: 5,
        };
        let server = cfg.target.addr;
        let listeners = || {
            let http = HttpConfig { connections: 256, partial_heads: 64, ..HttpConfig::default() };
            let services: [(u16, Box<dyn Service>); 3] =
                [(ECHO, Box::new(Echo)), (DISCARD, Box::new(Discard)), (HTTP, Box::new(Http::new(http)))];
            services
                .into_iter()
                .map(|(port, service)| Listener { endpoints: vec![Endpoint::new(server, port)], service })
                .collect()
        };
        let world = World::new(world, listeners, Box::new(Generator::new(cfg)));
        Self { world, desk, sum: Tally::default() }
    }

    /// Lets the generator begin and waits for its end.
    fn play(mut self, limit: Duration) -> Self {
        self.desk.go();
        let desk = Arc::clone(&self.desk);
        let done = self.world.run(limit, |_| desk.is_done()).unwrap();
        assert!(done, "not done after {limit:?}: {:?}", self.world.client.population());
        self.collect();
        self
    }

    /// Brings in what was counted.
    fn collect(&mut self) {
        assert!(self.desk.ask(Box::default()).is_ok());
        let desk = Arc::clone(&self.desk);
        let mut got = None;
        self.world
            .run(SECOND, |_| {
                got = got.take().or_else(|| desk.answer());
                got.is_some()
            })
            .unwrap();
        let got = got.expect("an answer within a turn");
        self.sum.merge(&got);
        self.sum.counts.live = got.counts.live;
        self.sum.counts.peak = got.counts.peak;
    }

    fn counts(&self) -> &Counts {
        &self.sum.counts
    }
}

#[track_caller]
fn all_completed(run: &mut Run, n: u64) {
    let c = *run.counts();
    assert_eq!((c.begun, c.opened, c.answered, c.completed), (n, n, n, n), "{c:?}");
    assert_eq!((c.errors(), c.cut_short, c.live), (0, 0, 0), "{c:?}");
    assert_eq!(c.paths.iter().sum::<u64>(), n);
    assert_eq!(run.sum.times(Lap::Total).len(), n);
}

#[test]
fn every_close_shape_ends_every_connection_and_counts_it_once() {
    use ClosePath::{Active, HalfClose, Passive, Reset, Simultaneous};
    let rows: [(u16, Request, CloseShape, &[ClosePath], u64); 9] = [
        (HTTP, http("keep-alive"), CloseShape::Client, &[Active], 0),
        (ECHO, bytes(3000), CloseShape::Client, &[Active], 3000),
        (ECHO, bytes(0), CloseShape::Client, &[Active], 0),
        (DISCARD, Request::Bytes { count: 70_000, echo: false }, CloseShape::Client, &[Active], 70_000),
        (HTTP, http("close"), CloseShape::Server, &[Passive], 0),
        (HTTP, http("close"), CloseShape::Both, &[Simultaneous], 0),
        (HTTP, http("close"), CloseShape::Half, &[Active, HalfClose], 0),
        (ECHO, bytes(300_000), CloseShape::Half, &[Active, HalfClose], 300_000),
        (ECHO, bytes(3000), CloseShape::Reset, &[Reset], 3000),
    ];
    for (port, request, close, paths, out) in rows {
        let mut run = Run::new(config(port, request, close, closed_loop(100))).play(60 * SECOND);
        all_completed(&mut run, 100);
        let c = run.counts();
        let by_these: u64 = paths.iter().map(|&p| c.paths[p as usize]).sum();
        assert_eq!(by_these, 100, "{close:?}: {:?}", c.paths);
        assert!(out == 0 || c.bytes_out == 100 * out, "{close:?}: {}", c.bytes_out);
        let fins = if close == CloseShape::Reset { 0 } else { 100 };
        assert_eq!(run.sum.times(Lap::Close).len(), fins, "{close:?}");
        assert!(c.peak <= 16, "{}", c.peak);
        let n = run.world.client.snapshot().counters;
        let resets = n.resets_sent.iter().sum::<u64>();
        assert_eq!(resets, if close == CloseShape::Reset { 100 } else { 0 }, "{close:?}");
        assert_eq!((n.illegal_transitions, n.chunks_used), (0, 0));
    }
}

#[test]
fn an_open_loop_opens_by_the_clock_and_its_latency_counts_from_there() {
    // Two at a time, each takes 4 ms: 500 a second of the 1000 that are due.
    let cfg =
        Config { concurrency: 2, ..config(ECHO, bytes(1), CloseShape::Client, open_loop(1000, SECOND / 10)) };
    let mut run = Run::new(cfg).play(10 * SECOND);
    all_completed(&mut run, 100);
    let handshake = run.sum.times(Lap::Handshake);
    assert!(handshake.min() >= 2000, "a round trip: {}", handshake.min());
    // The last ones waited for all that were late before them: about 100 ms.
    assert!(handshake.max() > 80_000, "what held them up counts: {}", handshake.max());
    let alone =
        Run::new(config(ECHO, bytes(1), CloseShape::Client, open_loop(1000, SECOND / 10))).play(10 * SECOND);
    let handshake = alone.sum.times(Lap::Handshake);
    assert!(handshake.max() < 4000, "with room for all nothing waits: {}", handshake.max());
    let total = alone.sum.times(Lap::Total);
    assert!(total.min() > alone.sum.times(Lap::FirstByte).min());
}

#[test]
fn what_an_open_loop_could_not_open_in_time_is_missed() {
    let cfg =
        Config { concurrency: 1, ..config(ECHO, bytes(1), CloseShape::Client, open_loop(1000, SECOND)) };
    let run = Run::new(cfg).play(60 * SECOND);
    let c = run.counts();
    assert_eq!(c.begun + c.failed(Failure::Missed), 1000, "{c:?}");
    assert!(c.failed(Failure::Missed) > 400 && c.completed == c.begun, "{c:?}");
}

#[test]
fn pairs_in_time_wait_are_taken_again_when_the_peer_can_tell() {
    let cfg = |desk: &Arc<Desk>| Config {
        pairs: pairs(5000..=5031),
        desk: Arc::clone(desk),
        ..config(HTTP, http("keep-alive"), CloseShape::Client, closed_loop(1000))
    };
    let mut run = Run::new(cfg(&Arc::default())).play(60 * SECOND);
    all_completed(&mut run, 1000);
    let n = run.world.client.snapshot().counters;
    assert_eq!(n.time_wait_reopened, 1000 - 32);
    assert_eq!(n.states[crate::tcp::state::State::TimeWait as usize], 32, "the books agree");
    assert_eq!(n.resets_sent.iter().chain(&n.resets_received).sum::<u64>(), 0);
}

#[test]
fn without_a_free_port_the_run_ends_and_says_so() {
    // All ports are held open.
    let cfg = Config {
        pairs: pairs(5000..=5003),
        hold: SECOND,
        ..config(ECHO, bytes(1), CloseShape::Client, closed_loop(100))
    };
    let run = Run::new(cfg).play(60 * SECOND);
    let c = run.counts();
    assert_eq!((c.begun, c.completed, c.failed(Failure::NoLocalPort), c.errors()), (4, 4, 1, 1), "{c:?}");
}

#[test]
fn connections_are_held_for_as_long_as_was_asked_and_all_at_once() {
    let cfg = Config {
        concurrency: 100,
        hold: 30 * SECOND,
        ..config(ECHO, bytes(10), CloseShape::Client, closed_loop(100))
    };
    let mut run = Run::new(cfg);
    run.desk.go();
    assert!(!run.world.run(20 * SECOND, |_| false).unwrap());
    run.collect();
    assert_eq!((run.counts().live, run.counts().answered, run.counts().completed), (100, 100, 0));
    let mut run = run.play(20 * SECOND);
    all_completed(&mut run, 100);
    assert_eq!(run.counts().peak, 100);
    assert!(run.sum.times(Lap::Total).min() > 29_900_000);
    assert!(run.sum.times(Lap::Close).max() < 10_000, "held is not closing");
}

#[test]
fn a_stop_ends_what_is_held_and_opens_no_more() {
    let cfg = Config {
        hold: 3600 * SECOND,
        ..config(ECHO, bytes(10), CloseShape::Client, open_loop(100, 3600 * SECOND))
    };
    let mut run = Run::new(cfg);
    run.desk.go();
    assert!(!run.world.run(SECOND / 10, |_| false).unwrap());
    run.desk.stop();
    let run = run.play(SECOND);
    let c = run.counts();
    assert!(c.begun >= 10 && c.completed == c.begun && c.errors() == 0, "{c:?}");
}

#[test]
fn each_way_to_fail_is_counted_as_what_it_is_and_once() {
    // Nobody listens: RST.
    let refused = config(1, bytes(1), CloseShape::Client, closed_loop(10));
    // No HTTP comes back.
    let no_http = config(ECHO, http("close"), CloseShape::Client, closed_loop(10));
    // Never an answer.
    let silent = Config { timeout: SECOND, ..config(DISCARD, bytes(1), CloseShape::Client, closed_loop(10)) };
    // Closed by us, and the peer, which waits for more, closes before it has answered.
    let short = config(DISCARD, bytes(1), CloseShape::Half, closed_loop(10));
    // Answered and never closed by the peer.
    let open = Config { timeout: SECOND, ..config(ECHO, bytes(1), CloseShape::Server, closed_loop(10)) };
    let rows = [
        (refused, Failure::Refused),
        (no_http, Failure::BadResponse),
        (silent, Failure::Timeout),
        (short, Failure::ShortRead),
        (open, Failure::Timeout),
    ];
    for (cfg, how) in rows {
        let run = Run::new(cfg).play(600 * SECOND);
        let c = run.counts();
        assert_eq!((c.begun, c.failed(how), c.errors(), c.completed), (10, 10, 10, 0), "{how:?}: {c:?}");
        assert_eq!((c.live, c.cut_short), (0, 0), "{how:?}");
    }
}

#[test]
fn a_dead_line_times_every_connection_out_and_nothing_is_left() {
    let cfg = Config { timeout: 3 * SECOND, ..config(ECHO, bytes(1), CloseShape::Client, closed_loop(40)) };
    let dead = Impairment { loss: 1.0, ..Impairment::delayed(MS) };
    let run = Run::over(cfg, dead, TcpConfig::default()).play(600 * SECOND);
    let c = run.counts();
    assert_eq!((c.begun, c.failed(Failure::Timeout), c.errors()), (40, 40, 40), "{c:?}");
    assert_eq!((run.world.client.records(), run.world.client.timers()), (0, 0));
}

#[test]
fn loss_costs_time_and_nothing_else() {
    let line = Impairment { loss: 0.05, duplication: 0.02, ..Impairment::delayed(MS) };
    for close in [CloseShape::Client, CloseShape::Half] {
        let cfg = Config { timeout: 300 * SECOND, ..config(ECHO, bytes(5000), close, closed_loop(300)) };
        let mut run = Run::over(cfg, line.clone(), TcpConfig::default()).play(3000 * SECOND);
        all_completed(&mut run, 300);
    }
}

#[test]
fn a_generator_that_was_not_told_to_go_does_nothing_and_one_that_ends_leaves_its_tally() {
    let cfg = config(ECHO, bytes(1), CloseShape::Client, closed_loop(10));
    let desk = Arc::clone(&cfg.desk);
    let mut run = Run::new(cfg);
    assert!(!run.world.run(SECOND, |_| false).unwrap());
    assert_eq!(run.world.client.records(), 0);
    desk.go();
    assert!(run.world.run(SECOND, |_| desk.is_done()).unwrap());
    drop(run);
    assert_eq!(desk.answer().expect("the last tally").counts.completed, 10);
}
