//! A shard of finwheel and a stranger under one clock, and what must hold when all is over.

use crate::smoltcp_stack::Smoltcp;
use crate::talk::{FIRST_PORT, Plan, Shape, Talks};
use finwheel::port::mem::{Direction, Impairment, LinkConfig, LinkHandle, MemPort, link};
use finwheel::port::{Accounting, Port};
use finwheel::shard::mailbox::{mailboxes, no_wake};
use finwheel::shard::{Capacity, Listener, Parts, Shard};
use finwheel::sim::world::{CLIENT_MAC, SERVER_MAC, START, tuple};
use finwheel::tcp::TcpConfig;
use finwheel::tcp::config::{KeepAlive, Limits};
use finwheel::tcp::conn::ActiveOpen;
use finwheel::tcp::isn::Secret;
use finwheel::tcp::record::Cause;
use finwheel::time::Time;
use finwheel::wire::{L2, Tuple};
use std::time::Duration;

/// The server's port, whoever that is.
const PORT: u16 = 7;
/// Longest run: many times what the slowest connection takes.
const LIMIT: Duration = Duration::from_secs(7200);
/// After so long without a word both stacks ask whether the other is there: longer than any retransmission that counts.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// smoltcp's `TIME_WAIT`. A FIN whose ACK was lost is answered by RST when it comes again later than that.
const STRANGERS_TIME_WAIT: Duration = Duration::from_secs(10);
/// Turns without the clock moving after which the two are said to spin.
const MAX_TURNS: usize = 100_000;
/// Packets kept for the report of a failure.
const LOG: usize = 200_000;

/// finwheel's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

pub struct World {
    shard: Shard<MemPort>,
    stranger: Smoltcp,
    link: LinkHandle,
    talks: Talks,
    plans: Vec<Plan>,
    role: Role,
    now: Time,
    what: String,
}

/// The `n`th connection as its client sees it, the IP versions in turn.
fn connection(n: usize) -> Tuple {
    tuple(n as u32, PORT, n / Shape::ALL.len() % 2 == 1)
}

fn tcp() -> TcpConfig {
    // A RST that is lost when nobody has anything to say is noticed in no other way.
    let keep_alive = Some(KeepAlive { idle: KEEP_ALIVE, interval: KEEP_ALIVE, probes: 20 });
    let limits = vec![Limits { keep_alive, ..Limits::DEFAULT }];
    // No limit of time may end what loss only holds up.
    let long = Duration::from_secs(600);
    TcpConfig { limits, give_up: long, fin_wait_2: long, syn_retries: 10, ..TcpConfig::default() }
}

impl World {
    /// `connections` talks, numbered from `seed`, all begun at once.
    pub fn new(seed: u64, role: Role, connections: usize, line: Impairment) -> Self {
        let what = format!("seed {seed}, finwheel is {role:?}, {line:?}");
        let plans: Vec<Plan> = (0..connections).map(|n| Plan::numbered(seed, n)).collect();
        let config = LinkConfig { seed, log: LOG, ..LinkConfig::default() }.both(line);
        let (a, b, link) = link(config);
        link.advance(START);
        let talks = Talks::new(&plans, role == Role::Client);
        let first = connection(0);
        let listener = || Listener {
            endpoints: vec![first.remote, connection(Shape::ALL.len()).remote],
            service: Box::new(talks.clone()),
        };
        let shard = Shard::new(Parts {
            port: b,
            tcp: tcp(),
            capacity: Capacity { connections: 256, half_open: 256, time_wait: 256, chunks: 8192 },
            listeners: if role == Role::Server { vec![listener()] } else { Vec::new() },
            client: (role == Role::Client).then(|| Box::new(talks.clone()) as _),
            secret: Secret::new(seed, !seed),
            index_key: (seed, 1),
            mailbox: mailboxes(&[no_wake()]).swap_remove(0).0,
            now: START,
        });
        let addresses = [0, Shape::ALL.len()].map(|n| {
            let t = connection(n);
            let end = if role == Role::Server { t.local } else { t.remote };
            end.addr.to_ip().into()
        });
        let stranger = Smoltcp::new(a, &addresses, &plans, seed);
        Self { shard, stranger, link, talks, plans, role, now: START, what }
    }

    fn begin(&mut self) {
        for n in 0..self.plans.len() {
            let t = connection(n);
            assert_eq!(t.local.port, FIRST_PORT + n as u16);
            match self.role {
                Role::Server => self.stranger.connect(n, t.local, t.remote),
                Role::Client => {
                    self.stranger.listen(PORT);
                    let l2 = L2 { src: SERVER_MAC, dst: CLIENT_MAC, vlan: None };
                    let service = self.shard.client_service();
                    assert!(self.shard.connect(&ActiveOpen { tuple: t, l2, service, user: 0 }));
                }
            }
        }
    }

    /// Closes both ends of the connections that are to be closed by both, at this moment.
    fn close_together(&mut self) -> bool {
        let mut due = Vec::new();
        for (n, ours) in self.talks.all.borrow().iter().enumerate() {
            let theirs = self.stranger.end(n);
            if ours.plan.shape == Shape::Together
                && ours.records.is_empty()
                && ours.end.done()
                && theirs.is_some_and(crate::talk::End::done)
                && let Some(t) = ours.tuple
            {
                due.push((n, t));
            }
        }
        let mut any = false;
        for (n, t) in due {
            let talks = self.talks.clone();
            let mut closed = false;
            self.shard.act(&t, &mut |cx| closed = talks.all.borrow_mut()[n].close(cx));
            any |= closed;
            self.stranger.close(n);
        }
        any
    }

    /// Lets everything happen that is due now. Returns when something is due next.
    fn rest(&mut self) -> Time {
        for _ in 0..MAX_TURNS {
            self.link.advance(self.now);
            let turn = self.shard.turn(self.now).expect("simulated ports do not fail");
            let (worked, theirs) = self.stranger.turn(self.now);
            let closed = self.close_together();
            if !turn.worked && !worked && !closed {
                let next = turn.next.min(theirs);
                return self.link.next_delivery().map_or(next, |t| next.min(t));
            }
        }
        panic!("{}: work without end", self.what);
    }

    fn over(&self) -> bool {
        self.shard.records() == 0
            && self.stranger.left().is_empty()
            && [Direction::AToB, Direction::BToA].into_iter().all(|d| self.link.in_flight(d) == 0)
    }

    /// Runs all talks to their end, and on until neither side knows of them.
    pub fn run(&mut self) {
        self.begin();
        let until = self.now + LIMIT;
        loop {
            let next = self.rest();
            if self.over() {
                return;
            }
            if self.now >= until {
                let left = self.stranger.left();
                let ours = self.talks.all.borrow().iter().position(|o| o.records.is_empty());
                let first = left.first().map_or(ours, |&(n, _)| n);
                self.fail(first, &format!("left: {:?}, {left:?}", self.shard.population()));
            }
            self.now = next.max(self.now + Duration::from_micros(1)).min(until);
        }
    }

    /// Looks at every connection and at what the shard has counted.
    pub fn check(&mut self, lossless: bool) {
        for (n, ours) in self.talks.all.borrow().iter().enumerate() {
            let plan = &ours.plan;
            let fail = |why: &str| -> ! { self.fail(Some(n), why) };
            let [record] = &ours.records[..] else {
                fail(&format!("{} close records", ours.records.len()));
            };
            let Some(theirs) = self.stranger.end(n) else { fail("the stranger never opened it") };
            for (who, end) in [("finwheel", &ours.end), ("the stranger", theirs)] {
                if let Some(fault) = &end.fault {
                    fail(&format!("{who} got {fault}"));
                }
                if plan.shape.graceful() && !end.done() {
                    fail(&format!("{who} is not done: {end:?}"));
                }
            }
            let late = record.cause == Cause::PeerReset && record.times.last_ack > STRANGERS_TIME_WAIT;
            if record.path.graceful() != plan.shape.graceful() && !late {
                fail("another kind of end");
            }
            if plan.shape.graceful() && record.unacknowledged != 0 {
                fail("bytes are not acknowledged");
            }
            if lossless && (record.path, record.first, record.cause) != plan.shape.lossless(plan.we_send) {
                fail("another end than without loss");
            }
        }
        let counters = self.shard.snapshot().counters;
        let n = self.plans.len() as u64;
        assert_eq!(counters.illegal_transitions, 0, "{}", self.what);
        assert_eq!(counters.opened_passive + counters.opened_active, n, "{}", self.what);
        assert_eq!(counters.closes.iter().flatten().flatten().sum::<u64>(), n, "{}", self.what);
        if lossless {
            assert_eq!(counters.retransmissions.iter().sum::<u64>(), 0, "{}", self.what);
        }
        let left = (self.shard.records(), self.shard.timers(), self.shard.chunks_used());
        assert_eq!(left, (0, 0, 0), "{}: records, timers, chunks", self.what);
        let balanced = |a: Accounting| a.balanced() && a.lent == 0;
        assert!(balanced(self.shard.port().accounting()), "{}", self.what);
        assert!(balanced(self.stranger.port().accounting()), "{}", self.what);
    }

    /// Every packet of the run.
    pub fn log(&self) -> Vec<String> {
        self.link.log().iter().map(ToString::to_string).collect()
    }

    /// What happened to the stranger's frames and to ours.
    pub fn link(&self) -> &LinkHandle {
        &self.link
    }

    /// Fails with the packets of one connection.
    fn fail(&self, n: Option<usize>, why: &str) -> ! {
        if let Some(n) = n {
            let end = connection(n).local.to_string();
            let log = self.log();
            let lines: Vec<_> = log.iter().filter(|l| l.contains(&end)).collect();
            for line in lines.iter().take(60).chain(lines.iter().skip(60.max(lines.len().saturating_sub(60))))
            {
                println!("{line}");
            }
            println!("{:?}", self.talks.all.borrow()[n]);
        }
        panic!("{}, connection {n:?}: {why}", self.what);
    }
}
