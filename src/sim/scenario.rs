//! What one seed makes of a run: sizes, settings, lines, and an agenda of what goes wrong when.
//!
//! Everything is drawn before the run begins, each part from a random stream of its own, so that leaving out one fault
//! changes no other. The faults end at [`Scenario::heal`]; from there on every connection must come to an end.

use super::faults::{Choice, Fault, FaultSet};
use super::sabotage::Sabotage;
use super::world::START;
use crate::port::mem::{Direction, Impairment, LinkConfig, Rate};
use crate::shard::Capacity;
use crate::tcp::TcpConfig;
use crate::tcp::config::{KeepAlive, Limits};
use crate::tcp::congestion::Algorithm;
use crate::time::Time;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// IP packet size under [`Fault::Jumbo`]: the largest that 4-KiB buffers of an `AF_XDP` socket take.
const JUMBO_MTU: u16 = 3818;
/// Services of each server, and one more for the client: each has its limits.
const SERVICES: usize = 4;

/// Slots and buffers for reception that a port has at least; three times as many connections run then.
const FEW: usize = 8;

/// What a run is asked to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Source of everything random.
    pub seed: u64,
    /// Connections.
    pub connections: u64,
    /// Server workers; drawn by the seed when not given.
    pub workers: Option<usize>,
    /// Faults.
    pub faults: Choice,
    /// Strengths that are not left to the seed.
    pub strengths: Strengths,
    /// What is wrong with the simulation itself: for the tests that it can fail.
    pub sabotage: Option<Sabotage>,
}

/// Strengths of the faults of a line, as probabilities per frame; giving one switches the fault on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Strengths {
    /// Of [`Fault::Loss`].
    pub loss: Option<f64>,
    /// Of [`Fault::Duplication`].
    pub duplication: Option<f64>,
    /// Of [`Fault::Reordering`].
    pub reordering: Option<f64>,
    /// Of [`Fault::Corruption`].
    pub corruption: Option<f64>,
}

impl Strengths {
    /// Each with the fault it belongs to.
    #[must_use]
    pub const fn each(&self) -> [(Fault, Option<f64>); 4] {
        [
            (Fault::Loss, self.loss),
            (Fault::Duplication, self.duplication),
            (Fault::Reordering, self.reordering),
            (Fault::Corruption, self.corruption),
        ]
    }
}

impl Options {
    /// A seed's swarm of faults.
    #[must_use]
    pub fn of_seed(seed: u64, connections: u64) -> Self {
        Self {
            seed,
            connections,
            workers: None,
            faults: Choice::Swarm,
            strengths: Strengths::default(),
            sabotage: None,
        }
    }
}

/// Something that goes wrong, or is over.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A line changes.
    Impair(Direction, Impairment),
    /// The servers' flows are steered by another table.
    Steer(u64),
    /// A worker has no turns until told otherwise.
    Stall(usize),
    /// It has turns again.
    Resume(usize),
    /// What a worker sends stays in its transmit ring until told otherwise.
    Hold(usize),
    /// It goes out again.
    Release(usize),
    /// The clock jumps.
    Leap(Duration),
    /// The servers are drained.
    Drain,
    /// What the drain has left is reset.
    CutOff,
    /// All faults of link and workers are over.
    Heal,
}

/// One run, drawn.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What was asked for.
    pub options: Options,
    /// Which faults there are.
    pub faults: FaultSet,
    /// Server workers.
    pub workers: usize,
    /// Connections open at the same time, at most.
    pub concurrency: usize,
    /// Time between the beginnings of two connections.
    pub pace: Duration,
    /// The link at the start.
    pub link: LinkConfig,
    /// The line that all is healed to.
    pub healed: Impairment,
    /// TCP settings of both ends.
    pub tcp: TcpConfig,
    /// Tables of the servers.
    pub capacity: Capacity,
    /// Tables of the client.
    pub client_capacity: Capacity,
    /// What the HTTP server answers with.
    pub body: Vec<u8>,
    /// What happens when, in order.
    pub agenda: Vec<(Time, Act)>,
    /// When the faults of link and workers are over.
    pub heal: Time,
    /// Share of connections that vanish.
    pub vanish: f64,
    /// Share of connections that abort.
    pub abort: f64,
    /// Pairs of endpoints that connections use again and again; `None` for a new one each.
    pub pairs: Option<u32>,
}

/// A stream of random numbers for one part of a run.
pub(super) fn stream(seed: u64, part: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed.rotate_left(17) ^ (part + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Parts with random streams of their own, beside the faults, which have their number's.
pub(super) mod part {
    pub const SHAPE: u64 = 100;
    pub const TCP: u64 = 101;
    pub const PLANS: u64 = 102;
    pub const TURNS: u64 = 103;
    pub const PAIRS: u64 = 104;
}

fn millis(rng: &mut SmallRng, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

impl Scenario {
    /// Draws the run that was asked for.
    #[must_use]
    pub fn draw(options: &Options) -> Self {
        let seed = options.seed;
        let mut faults = options.faults.of_seed(seed);
        for (fault, strength) in options.strengths.each() {
            if strength.is_some() {
                faults = faults.with(fault);
            }
        }
        let mut rng = stream(seed, part::SHAPE);
        // Drawn always, so that a number of workers that is given changes nothing else.
        let workers = rng.random_range(1..=4);
        let workers = options.workers.unwrap_or(workers).max(1);
        let concurrency: usize = rng.random_range(4..=96);
        // Peers that were held up together send again together, again and again: more of them than a port has buffers
        // for, and it is chance who is heard in time.
        let few = faults.any(&[Fault::Rings, Fault::Umem]);
        let concurrency = if few { concurrency.min(3 * FEW) } else { concurrency };
        let span = millis(&mut rng, 500..=15_000);
        let pace = span / u32::try_from(options.connections.max(1)).unwrap_or(u32::MAX);
        let delay = Duration::from_micros([20, 500, 2_000, 20_000, 60_000][rng.random_range(0..5)]);
        let heal = START + span + millis(&mut rng, 100..=15_000);
        let body = (0..if rng.random_bool(0.2) { 20_000u32 } else { 13 }).map(|i| (i % 253) as u8).collect();
        let mut s = Self {
            faults,
            workers,
            concurrency,
            pace,
            link: link(faults, seed),
            healed: Impairment { delay: (delay, delay + delay / 8), ..Impairment::default() },
            tcp: tcp(faults, seed),
            capacity: capacity(faults, seed, concurrency),
            client_capacity: client_capacity(faults, seed, concurrency),
            body,
            agenda: vec![(heal, Act::Heal)],
            heal,
            vanish: share(faults, Fault::Vanish, seed),
            abort: share(faults, Fault::Abort, seed),
            pairs: faults.has(Fault::Reuse).then(|| stream(seed, Fault::Reuse as u64).random_range(2..=40)),
            options: options.clone(),
        };
        s.lines();
        s.workers_misfortunes();
        s.agenda.sort_by_key(|(at, _)| *at);
        s
    }

    /// A moment of the faulty time.
    fn moment(&self, rng: &mut SmallRng) -> Time {
        let us = self.heal.since(START).as_micros() as u64;
        START + Duration::from_micros(rng.random_range(0..us.max(1)))
    }

    /// What the two lines do to frames, each at strengths of its own.
    fn lines(&mut self) {
        let seed = self.options.seed;
        for (i, direction) in [Direction::AToB, Direction::BToA].into_iter().enumerate() {
            let rng = |fault: Fault| stream(seed ^ (i as u64) << 40, fault as u64);
            let mut line = self.healed.clone();
            let most = |fault: Fault| match fault {
                Fault::Loss => 0.2,
                Fault::Corruption => 0.05,
                _ => 0.3,
            };
            for (fault, given) in self.options.strengths.each() {
                let strength = given.unwrap_or_else(|| rng(fault).random_range(0.002..most(fault)));
                let strength = if self.faults.has(fault) { strength } else { 0.0 };
                match fault {
                    Fault::Loss => line.loss = strength,
                    Fault::Duplication => line.duplication = strength,
                    Fault::Reordering => line.reordering = strength,
                    _ => line.corruption = strength,
                }
            }
            line.reordering_delay = millis(&mut rng(Fault::Reordering), 1..=200);
            if self.faults.has(Fault::Bottleneck) {
                let mut rng = rng(Fault::Bottleneck);
                let mbits = rng.random_range(2..=50);
                line.rate =
                    Some(Rate { bits_per_second: mbits * 1_000_000, queue: millis(&mut rng, 1..=100) });
            }
            if self.faults.has(Fault::Down) {
                let mut rng = rng(Fault::Down);
                for _ in 0..rng.random_range(1..=2) {
                    let from = self.moment(&mut rng);
                    line.down.push((from, self.heal.min(from + millis(&mut rng, 50..=8_000))));
                }
            }
            if self.faults.has(Fault::Spikes) {
                let mut rng = rng(Fault::Spikes);
                for _ in 0..rng.random_range(1..=4) {
                    let from = self.moment(&mut rng);
                    let extra = millis(&mut rng, 20..=3_000);
                    let high = Impairment { delay: (extra, extra * 2), ..line.clone() };
                    let until = from + millis(&mut rng, 10..=2_000);
                    self.agenda.push((from, Act::Impair(direction, high)));
                    if until < self.heal {
                        self.agenda.push((until, Act::Impair(direction, line.clone())));
                    }
                }
            }
            *(match direction {
                Direction::AToB => &mut self.link.a_to_b,
                Direction::BToA => &mut self.link.b_to_a,
            }) = line;
        }
    }

    /// What befalls the workers.
    fn workers_misfortunes(&mut self) {
        let seed = self.options.seed;
        // The last number is the client's.
        let shards = self.workers + 1;
        for (fault, longest) in [(Fault::Stall, 4_000), (Fault::Hold, 2_000)] {
            let mut rng = stream(seed, fault as u64);
            for _ in 0..rng.random_range(1..=4) {
                let (from, shard) = (self.moment(&mut rng), rng.random_range(0..shards));
                let until = from + millis(&mut rng, 5..=longest);
                if !self.faults.has(fault) || until >= self.heal {
                    continue;
                }
                let (begin, end) = if fault == Fault::Stall {
                    (Act::Stall(shard), Act::Resume(shard))
                } else {
                    (Act::Hold(shard), Act::Release(shard))
                };
                self.agenda.extend([(from, begin), (until, end)]);
            }
        }
        if self.faults.has(Fault::Clock) {
            let mut rng = stream(seed, Fault::Clock as u64);
            for _ in 0..rng.random_range(1..=3) {
                self.agenda.push((self.moment(&mut rng), Act::Leap(millis(&mut rng, 100..=8_000))));
            }
        }
        if self.faults.has(Fault::Rss) {
            let mut rng = stream(seed, Fault::Rss as u64);
            for _ in 0..rng.random_range(0..=3) {
                self.agenda.push((self.moment(&mut rng), Act::Steer(rng.random())));
            }
        }
        if self.faults.has(Fault::Drain) {
            let mut rng = stream(seed, Fault::Drain as u64);
            let at = self.moment(&mut rng);
            self.agenda.push((at, Act::Drain));
            self.agenda.push((at + millis(&mut rng, 10..=20_000), Act::CutOff));
        }
    }

    /// Whether nothing that is the peers' or the tables' own doing can end a connection otherwise than planned: link and
    /// workers may be as bad as they like, every connection then comes to its end in order.
    #[must_use]
    pub fn only_patience_is_needed(&self) -> bool {
        use Fault::{Abort, Chunks, Drain, ShortWait, Tables, Vanish};
        // Chunks: with fewer than connections, who has none may find none until it is given up.
        !self.faults.any(&[Abort, Chunks, Drain, ShortWait, Tables, Vanish])
    }

    /// Whether nothing at all can go wrong: not even a RST to a late segment is due.
    #[must_use]
    pub fn nothing_goes_wrong(&self) -> bool {
        let harmless = FaultSet::of(&[Fault::Order, Fault::Jumbo]);
        self.faults.iter().all(|f| harmless.has(f))
    }

    /// After the faults are over and the last connection is begun, how long until every connection has ended.
    #[must_use]
    pub fn patience(&self) -> Duration {
        // The longest retransmission timeout, twice: the last segment of a direction and the peer's answer may both have
        // been backed off as far as it goes. Else, whoever lost its peer finds out as the settings say.
        Duration::from_secs(if self.only_patience_is_needed() { 150 } else { 700 })
    }
}

fn share(faults: FaultSet, fault: Fault, seed: u64) -> f64 {
    if faults.has(fault) { stream(seed, fault as u64).random_range(0.02..0.5) } else { 0.0 }
}

fn link(faults: FaultSet, seed: u64) -> LinkConfig {
    let mut cfg = LinkConfig {
        seed,
        frames: 1024,
        fill: 512,
        rx_ring: 512,
        tx_ring: 512,
        digest: true,
        ..LinkConfig::default()
    };
    if faults.has(Fault::Rings) {
        let mut rng = stream(seed, Fault::Rings as u64);
        (cfg.rx_ring, cfg.tx_ring) = (rng.random_range(FEW..=64), rng.random_range(2..=64));
    }
    if faults.has(Fault::Umem) {
        let mut rng = stream(seed, Fault::Umem as u64);
        cfg.fill = rng.random_range(FEW..=64);
        cfg.frames = cfg.fill as u32 + rng.random_range(2..=64);
    }
    if faults.has(Fault::Rss) {
        cfg.scatter = stream(seed, Fault::Rss as u64 + 50).random_range(0.0..0.4);
    }
    if faults.has(Fault::Jumbo) {
        cfg.mtu = JUMBO_MTU;
    }
    cfg
}

fn capacity(faults: FaultSet, seed: u64, concurrency: usize) -> Capacity {
    let mut c = Capacity { connections: 4 * concurrency, half_open: 512, time_wait: 4096, chunks: 2048 };
    if faults.has(Fault::Tables) {
        let mut rng = stream(seed, Fault::Tables as u64);
        // Each of the three on its own, or some together.
        let which = rng.random_range(1..8);
        let (half, conns, waits) =
            (rng.random_range(2..=16), rng.random_range(2..=32), rng.random_range(2..=32));
        if which & 1 != 0 {
            c.half_open = half;
        }
        if which & 2 != 0 {
            c.connections = conns;
        }
        if which & 4 != 0 {
            c.time_wait = waits;
        }
    }
    if faults.has(Fault::Chunks) {
        c.chunks = stream(seed, Fault::Chunks as u64).random_range(8..=96);
    }
    c
}

fn client_capacity(faults: FaultSet, seed: u64, concurrency: usize) -> Capacity {
    let mut c = Capacity { connections: 2 * concurrency, half_open: 16, time_wait: 16_384, chunks: 2048 };
    if faults.has(Fault::Chunks) {
        c.chunks = stream(seed, Fault::Chunks as u64 + 50).random_range(8..=96);
    }
    c
}

fn tcp(faults: FaultSet, seed: u64) -> TcpConfig {
    let mut rng = stream(seed, part::TCP);
    let buffers = [4_096, 16_384, 65_536, 262_144];
    // Whoever waits for a peer that is gone must find out: by asking it, or because nothing came for long.
    let keep_alive =
        KeepAlive { idle: Duration::from_secs(75), interval: Duration::from_secs(10), probes: 9 };
    let asks = rng.random_bool(0.5);
    let limits = Limits {
        idle: if asks { Duration::ZERO } else { Duration::from_secs(200) },
        keep_alive: asks.then_some(keep_alive),
        // What is only held up must not be cut off.
        linger_time: Duration::from_secs(300),
        congestion: if rng.random_bool(0.3) { Algorithm::NewReno } else { Algorithm::Cubic },
        ..Limits::DEFAULT
    };
    let mut cfg = TcpConfig {
        // A FIN may come again as late as the longest retransmission timeout after the one before.
        time_wait: Duration::from_secs([70, 120][rng.random_range(0..2)]),
        fin_wait_2: Duration::from_secs(120),
        syn_cookies: [None, Some(0), Some(50), Some(75)][rng.random_range(0..4)],
        send_buffer: buffers[rng.random_range(0..buffers.len())],
        receive_buffer: buffers[rng.random_range(0..buffers.len())],
        delayed_ack: Duration::from_millis(rng.random_range(1..=200)),
        nagle: rng.random_bool(0.3),
        mss: rng.random_bool(0.2).then(|| rng.random_range(100..=1400)),
        limits: vec![limits; SERVICES],
        ..TcpConfig::default()
    };
    if faults.has(Fault::Jumbo) {
        cfg.mtu = JUMBO_MTU;
    }
    if faults.has(Fault::ShortWait) {
        cfg.time_wait = Duration::from_millis(stream(seed, Fault::ShortWait as u64).random_range(10..=5_000));
    }
    cfg
}
