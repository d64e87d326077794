//! One worker's share of the connections: tables, wheels, services, and the loop that drives them.
//!
//! ```text
//!            ┌────────────────────────── Shard::turn ──────────────────────────┐
//!  port.rx ─▶ ingress: parse all ─▶ look up all ─▶ process each ─▶ egress ─▶ port.send
//!  mailbox ─▶ commands, forwarded frames               │  ▲
//!  wheels  ─▶ timers: connections, half-open,          ▼  │
//!             TIME_WAIT in bulk                     deliver: Service
//!            └─▶ port.flush ─▶ housekeeping ────────────────────────────────────┘
//! ```
//!
//! A shard owns everything it touches: its [`Port`], its records, its chunks, its counters. Nothing is shared with
//! another worker but the bounded queues of [`mailbox`].

mod audit;
pub mod budget;
pub mod bulk_wheel;
mod by_hand;
pub mod capture;
pub mod closes;
mod conn_table;
mod cookies;
mod deliver;
pub mod drain;
mod egress;
mod errands;
pub mod filter;
mod half_open;
mod half_table;
pub mod index;
mod ingress;
pub mod listen;
pub mod mailbox;
pub mod outbound;
pub mod reload;
mod run;
pub mod slab;
pub mod sweep;
mod tables;
#[cfg(test)]
mod tests;
mod timers;
pub mod trace;
mod visit;
mod wait_table;
mod waiting;
pub mod wheel;
pub mod worker;

use crate::metrics::block::Block;
use crate::metrics::gauges::ListenerCounters;
use crate::port::{BURST, Frame, Port};
use crate::service::Service;
use crate::tcp::TcpConfig;
use crate::tcp::chunk::{CHUNK_BYTES, ChunkPool};
use crate::tcp::isn::Secret;
use crate::tcp::state::{Event, State};
use crate::tcp::state_log::StateLog;
use crate::tcp::syncookie::SynCookies;
use crate::time::Time;
use crate::wire::Endpoint;
use budget::{Budget, PartedBudget};
use listen::Listeners;
use mailbox::Mailbox;
use outbound::LocalEnds;
use std::collections::VecDeque;
use tables::Tables;
use trace::Trace;

pub use run::Turn;
pub use tables::{CONNECTION_BYTES, FLIGHT_BYTES, HALF_OPEN_BYTES, TIME_WAIT_BYTES};

/// What keys of budgets are derived for.
const STRAY_REPLIES: u64 = 0;
const WAIT_REPLIES: u64 = 1;

/// Connections that a service may resume in one call: a proxy resumes one. Higher: memory for nothing; lower: what is
/// beyond is not resumed.
const RESUMED_PER_CALL: usize = 64;

/// How large a shard's tables are. All memory is taken at start (pages are touched as they are used).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Connections in synchronized states.
    pub connections: usize,
    /// Half-open connections.
    pub half_open: usize,
    /// `TIME_WAIT` records.
    pub time_wait: usize,
    /// Buffer chunks of [`CHUNK_BYTES`].
    pub chunks: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { connections: 65_536, half_open: 16_384, time_wait: 262_144, chunks: 65_536 }
    }
}

/// A listener as a shard needs it.
pub struct Listener {
    /// Where it listens.
    pub endpoints: Vec<Endpoint>,
    /// What serves it.
    pub service: Box<dyn Service>,
}

/// What a shard is made from.
pub struct Parts<P> {
    /// Its queue.
    pub port: P,
    /// Settings of TCP.
    pub tcp: TcpConfig,
    /// Sizes of the tables.
    pub capacity: Capacity,
    /// Listeners; the position is the listener's number, and its service's.
    pub listeners: Vec<Listener>,
    /// Service for connections that are opened from here, if any; its number follows the listeners'.
    pub client: Option<Box<dyn Service>>,
    /// Secret of the process, for sequence numbers and timestamps.
    pub secret: Secret,
    /// Key of this shard's connection index.
    pub index_key: (u64, u64),
    /// Its queues.
    pub mailbox: Mailbox,
    /// Now.
    pub now: Time,
}

/// Everything of a shard but its port, so that a frame can be read while the tables change.
struct Core {
    now: Time,
    cfg: TcpConfig,
    secret: Secret,
    /// For sequence numbers of connections that peers open: this worker's own. A SYN that the network doubled may land
    /// at two workers at once, and each makes a record of it; with one number for both, later segments would fit either.
    isn_secret: Secret,
    cookies: SynCookies,
    tables: Tables,
    pool: ChunkPool,
    log: StateLog,
    listeners: Listeners,
    services: Vec<Box<dyn Service>>,
    block: Block,
    /// Connections that have more to say than there was room for.
    pending: VecDeque<u32>,
    /// Connections whose service waits for chunks with nothing in flight to wake it.
    starved: VecDeque<u32>,
    /// Connections that the service in the present call has resumed.
    resumed: Vec<u32>,
    stray_replies: PartedBudget,
    /// ACKs from `TIME_WAIT`: apart from the RSTs, by which their number could be read.
    wait_replies: PartedBudget,
    /// Frames passed on to the next worker.
    forwards: Budget,
    drain: Drain,
    /// How fast connections are told of it.
    pace: drain::Pace,
    /// What SYNs get meanwhile.
    new_connections: drain::NewConnections,
    closes: closes::CloseLog,
    capture: Option<Box<capture::CaptureTap>>,
    trace: Option<Box<Trace>>,
    /// IPv4 identification of the next packet (RFC 6864: any value does with DF set).
    ip_id: u16,
    /// Copy of unread bytes while a service looks at them: the service may need the pool they lie in.
    scratch: Box<[u8; CHUNK_BYTES]>,
}

/// Whether connections are being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    /// No.
    No,
    /// Yes; connections from this slot on have not been told yet.
    Telling(u32),
    /// Yes, and all were told.
    Told,
    /// The time is over: connections from this slot on have not been reset yet.
    CuttingOff(u32),
    /// Nothing is left.
    Over,
}

/// A worker's shard.
pub struct Shard<P> {
    port: P,
    core: Core,
    mailbox: Mailbox,
    /// Number of the service that opens connections, if there is one.
    client: Option<u16>,
    /// When the client's service wants to be asked for its errands again.
    errands_at: Time,
    /// Where connections are opened from, if they are.
    local_ends: Option<LocalEnds>,
    /// Frames of the present burst.
    burst: Vec<Frame>,
    /// Places for the segments of a burst.
    staged: Vec<ingress::Staged>,
    /// Keys that a wheel gave out.
    due: Vec<u32>,
    /// Turns in a row that connections' timers have waited for what is in the ring.
    backlog: u8,
    /// The page that is being filled.
    sweep: Option<Box<sweep::Sweep>>,
    stopped: bool,
    /// When each table's next timer was due as the last turn ended, in milliseconds.
    appointments: [Option<u64>; 3],
    /// Slots of the transmit ring that answers to SYNs leave to everybody else.
    kept_slots: usize,
}

/// Part of the transmit ring that answers to SYNs leave to everybody else: under a flood of them, what is open goes on being
/// answered. Higher (a smaller part): a flood takes the room that open connections need, which then wait for the next turn;
/// lower: of SYNs in a burst fewer are answered, and the clients among them come again a second later.
const KEPT_FROM_SYNS: u64 = 8;

impl<P: Port> Shard<P> {
    /// Makes a shard: all its memory is taken here.
    #[must_use]
    pub fn new(mut parts: Parts<P>) -> Self {
        let mut listeners = Listeners::default();
        let mut services = Vec::new();
        let mut log = StateLog::default();
        for (number, l) in parts.listeners.into_iter().enumerate() {
            for e in l.endpoints {
                listeners.add(e, number as u16);
            }
            services.push(l.service);
            log.moved(State::Closed, Event::PassiveOpen, State::Listen);
        }
        listeners.set_count(services.len() as u16);
        let client = parts.client.is_some().then_some(services.len() as u16);
        services.extend(parts.client);
        let keys = parts.secret.of_worker(parts.index_key);
        let count = services.len();
        let core = Core {
            now: parts.now,
            tables: Tables::new(&parts.capacity, parts.index_key, parts.tcp.time_wait, parts.now),
            pool: ChunkPool::new(parts.capacity.chunks),
            log,
            listeners,
            services,
            block: Block { listeners: vec![ListenerCounters::default(); count], ..Block::default() },
            pending: VecDeque::with_capacity(parts.capacity.connections),
            starved: VecDeque::with_capacity(parts.capacity.connections),
            resumed: Vec::with_capacity(RESUMED_PER_CALL),
            stray_replies: PartedBudget::new(parts.tcp.stray_replies, keys.derived(STRAY_REPLIES)),
            wait_replies: PartedBudget::new(parts.tcp.stray_replies, keys.derived(WAIT_REPLIES)),
            forwards: Budget::new(ingress::FORWARDS_PER_SECOND),
            drain: Drain::No,
            pace: drain::Pace::default(),
            new_connections: drain::NewConnections::Drop,
            closes: closes::CloseLog::default(),
            capture: None,
            trace: None,
            ip_id: 0,
            scratch: Box::new([0; CHUNK_BYTES]),
            isn_secret: keys,
            cookies: SynCookies::new(&parts.secret, parts.index_key),
            secret: parts.secret,
            cfg: parts.tcp,
        };
        let kept_slots = (parts.port.depths().tx[1] / KEPT_FROM_SYNS) as usize;
        Self {
            port: parts.port,
            core,
            mailbox: parts.mailbox,
            client,
            errands_at: Time::NEVER,
            local_ends: None,
            burst: Vec::with_capacity(BURST),
            staged: std::iter::repeat_with(ingress::Staged::default).take(BURST).collect(),
            due: Vec::with_capacity(timers::WAIT_BUDGET.max(timers::CONN_BUDGET)),
            backlog: 0,
            sweep: None,
            stopped: false,
            appointments: [None; 3],
            kept_slots,
        }
    }

    /// The port, for tests and the accounting at exit.
    #[must_use]
    pub const fn port(&self) -> &P {
        &self.port
    }

    /// The port, to feed it between turns: a replayed one.
    #[must_use]
    pub const fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// Number of the service that connections opened from here have.
    #[must_use]
    pub fn client_service(&self) -> u16 {
        self.client.unwrap_or(u16::MAX)
    }

    /// Keeps the last `keep` close records from now on: memory that is taken here.
    pub fn keep_closes(&mut self, keep: usize) {
        self.core.closes.keep(keep);
    }

    /// Population by state: the gauge of the metrics.
    #[must_use]
    pub fn population(&self) -> &[u64; State::COUNT] {
        &self.core.log.population
    }

    /// Records of any kind.
    #[must_use]
    pub fn records(&self) -> usize {
        self.core.tables.len()
    }

    /// Entries on the wheels: with no record there must be none.
    #[must_use]
    pub fn timers(&self) -> usize {
        self.core.tables.timers()
    }

    /// Chunks lent to connections.
    #[must_use]
    pub fn chunks_used(&self) -> usize {
        self.core.pool.used()
    }

    /// Flights lent to connections.
    #[must_use]
    pub fn flights_lent(&self) -> usize {
        self.core.tables.conns.flights()
    }

    /// Whether the loop is to end.
    #[must_use]
    pub const fn stopped(&self) -> bool {
        self.stopped
    }
}
