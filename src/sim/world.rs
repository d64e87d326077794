//! A small world: server shards and a client shard at the two ends of a simulated link, under one simulated clock.
//!
//! ```text
//!  client shard (active opens) ── end A ══ link: loss, duplication, reordering, delay ══ end B ── server shards
//! ```
//!
//! Time jumps: all shards turn until none has work, then the clock moves to the next delivery or timer. The same seed
//! gives the same run.

use crate::port::mem::{Direction, LinkConfig, LinkHandle, MemPort, link_multi};
use crate::port::{Accounting, Port};
use crate::service::Service;
use crate::shard::mailbox::{Handle, Mailbox, mailboxes, no_wake};
use crate::shard::{Capacity, Listener, Parts, Shard};
use crate::tcp::TcpConfig;
use crate::tcp::conn::ActiveOpen;
use crate::tcp::isn::Secret;
use crate::time::Time;
use crate::wire::{Addr, Endpoint, L2, MacAddr, Tuple};
use std::io;
use std::time::Duration;

/// Where simulated time starts: not at zero, as no real clock does either.
pub const START: Time = Time::from_micros(1_000_000);
/// Turns without the clock moving after which the shards are said to spin: no burst needs that many.
const MAX_TURNS: usize = 100_000;

/// The client's MAC address.
pub const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// The server's MAC address.
pub const SERVER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// What a world is made of.
pub struct WorldConfig {
    /// The link.
    pub link: LinkConfig,
    /// Server workers, a queue each.
    pub workers: usize,
    /// TCP settings of the servers.
    pub server: TcpConfig,
    /// TCP settings of the client.
    pub client: TcpConfig,
    /// Table sizes of each shard.
    pub capacity: Capacity,
    /// Key of all hashes.
    pub key: u64,
}

/// Has a say in how the shards take turns, and looks on. Shards are numbered: the servers by queue, then the client.
pub trait Conduct {
    /// Puts the shards into the order in which they have their next turns.
    fn order(&mut self, shards: &mut [usize]) {
        let _ = shards;
    }
    /// Whether a shard has no turns for now, as if its core were busy elsewhere.
    fn stalled(&self, shard: usize) -> bool {
        let _ = shard;
        false
    }
    /// A shard has had its turn.
    fn turned(&mut self, number: usize, shard: &mut Shard<MemPort>, link: &LinkHandle) {
        let _ = (number, shard, link);
    }
}

/// Turns in order, nobody looks on.
struct Plainly;
impl Conduct for Plainly {}

/// The world.
pub struct World {
    /// Server shards by queue.
    pub servers: Vec<Shard<MemPort>>,
    /// The client shard.
    pub client: Shard<MemPort>,
    /// The link.
    pub link: LinkHandle,
    /// The control plane's ends of the servers' mailboxes.
    pub handles: Vec<Handle>,
    now: Time,
    order: Vec<usize>,
}

impl World {
    /// Makes a world. `listeners` is asked once for each worker; `driver` serves what the client opens.
    ///
    /// # Panics
    /// When the link gives fewer queues than workers: a fault of the link.
    #[must_use]
    pub fn new(cfg: WorldConfig, listeners: impl FnMut() -> Vec<Listener>, driver: Box<dyn Service>) -> Self {
        let capacity = cfg.capacity.clone();
        Self::with_client(cfg, listeners, driver, &capacity)
    }

    /// The same with table sizes of its own for the client.
    ///
    /// # Panics
    /// As [`World::new`].
    #[must_use]
    pub fn with_client(
        cfg: WorldConfig,
        mut listeners: impl FnMut() -> Vec<Listener>,
        driver: Box<dyn Service>,
        client_capacity: &Capacity,
    ) -> Self {
        let (mut a, b, link) = link_multi(cfg.link, 1, cfg.workers);
        link.advance(START);
        let secret = Secret::new(cfg.key, !cfg.key);
        let wakes: Vec<_> = (0..cfg.workers).map(|_| no_wake()).collect();
        let part = |port, tcp: &TcpConfig, listeners, client: Option<_>, mailbox: Mailbox, i: u64| Parts {
            port,
            tcp: tcp.clone(),
            capacity: if client.is_some() { client_capacity } else { &cfg.capacity }.clone(),
            listeners,
            client,
            secret,
            index_key: (cfg.key ^ i, i),
            mailbox,
            now: START,
        };
        let (mails, handles): (Vec<_>, Vec<_>) = mailboxes(&wakes).into_iter().unzip();
        let servers: Vec<_> = b
            .into_iter()
            .zip(mails)
            .enumerate()
            .map(|(i, (port, mail))| Shard::new(part(port, &cfg.server, listeners(), None, mail, i as u64)))
            .collect();
        let client_port = a.pop().unwrap_or_else(|| panic!("one queue at the client's end"));
        let (mail, _) = mailboxes(&[no_wake()]).swap_remove(0);
        let client = Shard::new(part(client_port, &cfg.client, Vec::new(), Some(driver), mail, 99));
        let order = (0..=servers.len()).collect();
        Self { servers, client, link, handles, now: START, order }
    }

    /// Now.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Opens a connection from the client. Returns whether the client's tables had room.
    #[must_use]
    pub fn connect(&mut self, tuple: Tuple, user: u32) -> bool {
        let l2 = L2 { src: CLIENT_MAC, dst: SERVER_MAC, vlan: None };
        let service = self.client.client_service();
        self.client.connect(&ActiveOpen { tuple, l2, service, user })
    }

    /// Lets everything happen that is due now. Returns when something is due next, at most `until`.
    ///
    /// # Errors
    /// The ports' fatal ones, or that the shards never come to rest.
    fn rest(&mut self, until: Time, conduct: &mut impl Conduct) -> io::Result<Time> {
        let Self { servers, client, link, now, order, .. } = self;
        for _ in 0..MAX_TURNS {
            link.advance(*now);
            let mut worked = false;
            let mut next = until;
            conduct.order(order);
            for &number in &*order {
                if conduct.stalled(number) {
                    continue;
                }
                let shard = servers.get_mut(number).unwrap_or(client);
                let t = shard.turn(*now)?;
                worked |= t.worked;
                next = next.min(t.next);
                conduct.turned(number, shard, link);
            }
            if !worked {
                return Ok(link.next_delivery().map_or(next, |t| next.min(t)));
            }
        }
        Err(io::Error::other("the shards have work without end"))
    }

    /// Lets everything happen that is due now, then moves the clock to what is due next, at most to `until`.
    ///
    /// # Errors
    /// The ports' fatal ones, or that the shards never come to rest.
    pub fn step(&mut self, until: Time) -> io::Result<()> {
        self.step_by(until, &mut Plainly)
    }

    /// [`World::step`] under somebody's conduct.
    ///
    /// # Errors
    /// As [`World::step`].
    pub fn step_by(&mut self, until: Time, conduct: &mut impl Conduct) -> io::Result<()> {
        let next = self.rest(until, conduct)?;
        self.now = next.max(self.now + Duration::from_micros(1));
        Ok(())
    }

    /// Moves the clock on by `by` with nothing happening: what was due meanwhile comes late.
    pub fn leap(&mut self, by: Duration) {
        self.now += by;
    }

    /// All shards: the servers by queue, then the client.
    pub fn shards_mut(&mut self) -> impl Iterator<Item = &mut Shard<MemPort>> {
        self.servers.iter_mut().chain([&mut self.client])
    }

    /// All shards: the servers by queue, then the client.
    pub fn shards(&self) -> impl Iterator<Item = &Shard<MemPort>> {
        self.servers.iter().chain([&self.client])
    }

    /// Steps until `done` says so or `limit` of simulated time has passed. Returns whether it was done.
    ///
    /// # Errors
    /// As [`World::step`].
    pub fn run(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> io::Result<bool> {
        let until = self.now + limit;
        while self.now < until {
            let next = self.rest(until, &mut Plainly)?;
            if done(self) {
                return Ok(true);
            }
            self.now = next.max(self.now + Duration::from_micros(1));
        }
        Ok(done(self))
    }

    /// Records, timers, and what was lent (chunks and flights) of all shards: zero of each when everything has ended.
    #[must_use]
    pub fn leftovers(&self) -> (usize, usize, usize) {
        self.shards().fold((0, 0, 0), |(r, t, l), s| {
            (r + s.records(), t + s.timers(), l + s.chunks_used() + s.flights_lent())
        })
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub fn link_idle(&self) -> bool {
        [Direction::AToB, Direction::BToA].into_iter().all(|d| self.link.in_flight(d) == 0)
    }

    /// Where the frames of every port are.
    #[must_use]
    pub fn accounting(&self) -> Vec<Accounting> {
        self.shards().map(|s| s.port().accounting()).collect()
    }
}

/// The `n`th tuple of a client towards a server's port, over IPv4 or IPv6.
#[must_use]
pub fn tuple(n: u32, port: u16, v6: bool) -> Tuple {
    let host = |h: u8| {
        if v6 {
            let mut a = [0; 16];
            (a[0], a[1], a[15]) = (0xfd, 0x0f, h);
            Addr::v6(a)
        } else {
            Addr::v4([10, 0, 0, h])
        }
    };
    // 50,000 ports an address, then the next address.
    let (port_no, client) = (10_000 + (n % 50_000) as u16, 10 + (n / 50_000) as u8);
    Tuple { local: Endpoint::new(host(client), port_no), remote: Endpoint::new(host(1), port) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::mem::Impairment;
    use crate::service::Context;
    use crate::service::echo::Echo;
    use crate::tcp::record::{ClosePath, CloseRecord};
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Sends `n` bytes, closes when all came back.
    struct Once {
        n: usize,
        sent: Vec<usize>,
        back: Vec<usize>,
        records: Rc<RefCell<Vec<CloseRecord>>>,
    }
    impl Once {
        fn push(&mut self, cx: &mut dyn Context) {
            let i = cx.user() as usize;
            while self.sent[i] < self.n {
                let chunk = [7u8; 1000];
                let want = chunk.len().min(self.n - self.sent[i]);
                let took = cx.send(&chunk[..want]);
                self.sent[i] += took;
                if took < want {
                    break;
                }
            }
        }
    }
    impl Service for Once {
        fn opened(&mut self, cx: &mut dyn Context) {
            self.push(cx);
        }
        fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
            let i = cx.user() as usize;
            self.back[i] += bytes.len();
            if self.back[i] == self.n {
                cx.close();
            }
            bytes.len()
        }
        fn writable(&mut self, cx: &mut dyn Context) {
            self.push(cx);
        }
        fn peer_closed(&mut self, cx: &mut dyn Context) {
            cx.close();
        }
        fn closed(&mut self, _: &Tuple, _: u32, r: &CloseRecord) {
            self.records.borrow_mut().push(r.clone());
        }
    }

    fn run(seed: u64, n: usize, bytes: usize, line: Impairment) {
        run_on(1, 0.0, seed, n, bytes, line);
    }

    fn run_on(workers: usize, scatter: f64, seed: u64, n: usize, bytes: usize, line: Impairment) {
        let records = Rc::new(RefCell::new(Vec::new()));
        let driver = Once { n: bytes, sent: vec![0; n], back: vec![0; n], records: Rc::clone(&records) };
        let cfg = WorldConfig {
            link: LinkConfig { seed, scatter, ..LinkConfig::default() }.both(line),
            workers,
            server: TcpConfig::default(),
            client: TcpConfig::default(),
            capacity: Capacity { connections: 1024, half_open: 1024, time_wait: 4096, chunks: 8192 },
            key: seed,
        };
        let listeners = || {
            vec![Listener {
                endpoints: vec![Endpoint::new(Addr::v4([10, 0, 0, 1]), 7)],
                service: Box::new(Echo),
            }]
        };
        let mut w = World::new(cfg, listeners, Box::new(driver));
        for i in 0..n {
            assert!(w.connect(tuple(i as u32, 7, false), i as u32));
        }
        let done = w.run(Duration::from_secs(600), |w| w.leftovers() == (0, 0, 0)).unwrap();
        assert!(done, "left: {:?} {:?}", w.leftovers(), w.client.population());
        let records = records.borrow();
        assert_eq!(records.len(), n);
        for r in records.iter() {
            assert_eq!(r.path, ClosePath::Active, "{r:?}");
            assert_eq!(r.bytes_in as usize, bytes);
        }
        for a in w.accounting() {
            assert!(a.balanced() && a.lent == 0, "{a:?}");
        }
    }

    #[test]
    fn one_echo_on_a_perfect_link_closes_gracefully() {
        run(1, 1, 10, Impairment::delayed(Duration::from_millis(1)));
    }

    #[test]
    fn a_hundred_echoes_under_loss_all_complete() {
        let line = Impairment {
            loss: 0.1,
            duplication: 0.05,
            reordering: 0.1,
            reordering_delay: Duration::from_millis(5),
            ..Impairment::delayed(Duration::from_millis(1))
        };
        for seed in 0..10 {
            run(seed, 100, 20_000, line.clone());
        }
    }

    #[test]
    fn echoes_complete_when_frames_land_at_any_of_three_workers() {
        for seed in 0..5 {
            let line = Impairment::delayed(Duration::from_millis(1));
            run_on(3, 0.3, seed, 40, 20_000, line);
        }
    }
}
