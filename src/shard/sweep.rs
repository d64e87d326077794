//! All records looked at in slices: to list those that a filter means, to close them, or to reset them.
//!
//! ```text
//! control ──Command::Sweep(cursor, filter, empty page)──▶ worker: a slice a turn ──Reply::Sweep(next cursor, rows)──▶ control
//! ```
//!
//! The page is memory of the control plane's, made before it is sent: the worker writes rows into it until it is full, the
//! slots that it may look at are used up, or the tables are at their end, and gives it back with the place where the next
//! page goes on. Between two pages, and two slices, the worker keeps nothing. A slice is bounded by the slots that are
//! looked at, not by those that are found, so a sparse table of millions stalls nobody.
//!
//! A record that stays is seen exactly once. One that moves between tables while the sweep is under way (a handshake that
//! completes, a connection that enters `TIME_WAIT`) may be seen in both, since the tables are looked at in this order.

use super::filter::Filter;
use super::{Core, Shard};
use crate::metrics::block::ResetCause;
use crate::port::Port;
use crate::tcp::conn::{ConnFlags, Env};
use crate::tcp::record::Cause;
use crate::tcp::state::{Event, State};
use crate::tcp::syn_rcvd::SynRcvd;
use crate::wire::{Flags, Header, Options, SeqNum, Tuple};
use std::time::Duration;

/// Slots looked at in a turn: some microseconds, as a slot is one cache line or two, read in a row. Higher: frames wait
/// longer; lower: a listing of millions takes more turns.
const SLOTS_PER_TURN: u32 = 512;
/// Rows written in a turn. Each is some 150 bytes.
const ROWS_PER_TURN: usize = 128;
/// Connections ended in a turn: each may send a segment, so no more than a burst.
const ENDS_PER_TURN: usize = 64;

/// What a sweep does with the records that are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Lists them.
    List,
    /// Asks their services to close them, as in a drain. Half-open records and `TIME_WAIT` are let be.
    Close,
    /// Resets them. `TIME_WAIT` is let be: it is there for the peer (RFC 1337 §2).
    Abort,
}

/// A table, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Half-open records, the narrow ones.
    #[default]
    Half,
    /// And the wide ones.
    HalfWide,
    /// Connections of IPv4.
    Conns,
    /// And of IPv6.
    ConnsWide,
    /// `TIME_WAIT` of IPv4.
    Waits,
    /// And of IPv6.
    WaitsWide,
}

impl Table {
    /// All tables in order.
    pub const ALL: [Self; 6] =
        [Self::Half, Self::HalfWide, Self::Conns, Self::ConnsWide, Self::Waits, Self::WaitsWide];

    fn next(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }
}

/// Where a sweep goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// In which table.
    pub table: Table,
    /// From which slot on.
    pub slot: u32,
}

/// A record as a listing shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub tuple: Tuple,
    /// Its state.
    pub state: State,
    /// Number of its listener; for `TIME_WAIT` that of the one that has the local end now.
    pub listener: Option<u16>,
    /// Since the SYN; for `TIME_WAIT` since it was entered.
    pub age: Duration,
    /// How long it has been in its state.
    pub in_state: Duration,
    /// For `TIME_WAIT`, what is left of it.
    pub left: Option<Duration>,
    /// Bytes received that the service has not taken.
    pub unread: u32,
    /// Bytes to send that the peer has not acknowledged.
    pub unacknowledged: u32,
    /// Payload bytes received in order.
    pub bytes_in: u64,
    /// Payload bytes sent and acknowledged.
    pub bytes_out: u64,
    /// Smoothed round trip, zero when none was measured.
    pub srtt: Duration,
    /// Congestion window in bytes.
    pub cwnd: u32,
    /// Whether it was opened from here.
    pub active: bool,
}

/// A page to be filled, and what came of it.
#[derive(Debug)]
pub struct Sweep {
    /// What is meant.
    pub filter: Filter,
    /// What is done.
    pub deed: Deed,
    /// Where to begin; afterwards, where to go on.
    pub at: Cursor,
    /// Room for what is listed: never more than was reserved.
    pub rows: Vec<Row>,
    /// Slots that may still be looked at before the page goes back.
    pub slots: u32,
    /// Records that were meant.
    pub meant: u64,
    /// Connections that were ended.
    pub ended: u64,
    /// The tables are at their end.
    pub done: bool,
}

impl Sweep {
    /// A sweep from the beginning, with pages of `rows`, which come back after `slots` at the latest.
    #[must_use]
    pub fn new(deed: Deed, filter: Filter, rows: usize, slots: u32) -> Self {
        let rows = Vec::with_capacity(rows);
        Self { filter, deed, at: Cursor::default(), rows, slots, meant: 0, ended: 0, done: false }
    }

    /// Empty again, for the next page.
    pub fn turn_over(&mut self, slots: u32) {
        self.rows.clear();
        (self.slots, self.meant, self.ended) = (slots, 0, 0);
    }

    fn is_full(&self) -> bool {
        self.deed == Deed::List && self.rows.len() == self.rows.capacity()
    }

    fn is_over(&self) -> bool {
        self.done || self.slots == 0 || self.is_full()
    }

    /// Whether a table can hold a record that is meant.
    fn worth_a_look(&self, table: Table) -> bool {
        let states = self.filter.states;
        match table {
            Table::Half | Table::HalfWide => states.has(State::SynReceived) && self.deed != Deed::Close,
            Table::Conns | Table::ConnsWide => true,
            Table::Waits | Table::WaitsWide => states.has(State::TimeWait) && self.deed == Deed::List,
        }
    }

    /// Moves on to the next table.
    fn next_table(&mut self) {
        match self.at.table.next() {
            Some(table) => self.at = Cursor { table, slot: 0 },
            None => self.done = true,
        }
    }
}

/// What is done to a record.
enum End {
    Conn(u32),
    Half(u32),
}

impl<P: Port> Shard<P> {
    /// A slice of the sweep under way, if there is one. Returns whether anything was done.
    pub(super) fn sweep_slice(&mut self) -> bool {
        let Some(mut sweep) = self.sweep.take() else { return false };
        let before = sweep.at;
        self.slice(&mut sweep);
        let moved = sweep.at != before || sweep.is_over();
        if sweep.is_over() {
            self.mailbox.answer(super::mailbox::Reply::Sweep(sweep));
        } else {
            self.sweep = Some(sweep);
        }
        // Without room to send nothing was done, and nothing can be before there is.
        moved
    }

    fn slice(&mut self, sweep: &mut Sweep) {
        let mut slots = SLOTS_PER_TURN.min(sweep.slots);
        let mut rows = ROWS_PER_TURN;
        let mut ends = ENDS_PER_TURN;
        while slots > 0 && rows > 0 && ends > 0 && !sweep.is_over() {
            if sweep.deed != Deed::List && self.port.tx_room() == 0 {
                return;
            }
            let Cursor { table, slot } = sweep.at;
            if !sweep.worth_a_look(table) || slot >= self.core.tables.touched(table) {
                sweep.next_table();
                continue;
            }
            sweep.at.slot += 1;
            sweep.slots -= 1;
            slots -= 1;
            let Some(row) = self.core.row(table, slot, &sweep.filter) else { continue };
            sweep.meant += 1;
            match sweep.deed {
                Deed::List => {
                    sweep.rows.push(row);
                    rows -= 1;
                }
                Deed::Close | Deed::Abort => {
                    if self.end_one(sweep.deed, table, slot, &row) {
                        sweep.ended += 1;
                        ends -= 1;
                    }
                }
            }
        }
    }

    /// Ends one connection. Returns whether there was something to end.
    fn end_one(&mut self, deed: Deed, table: Table, slot: u32, row: &Row) -> bool {
        let end = match table {
            Table::Conns => End::Conn(slot),
            Table::ConnsWide => End::Conn(slot | super::conn_table::WIDE),
            Table::Half => End::Half(slot),
            Table::HalfWide => End::Half(slot | super::half_table::WIDE),
            Table::Waits | Table::WaitsWide => return false,
        };
        match (end, deed) {
            (_, Deed::List) | (End::Half(_), Deed::Close) => false,
            (End::Conn(key), Deed::Close) => {
                let Some(conn) = self.core.tables.conns.get(key) else { return false };
                let reads = !conn.flags.has(ConnFlags::READ_CLOSED);
                let unread = conn.insight(self.core.tables.conns.flight(conn)).unread;
                let closes = match row.state {
                    State::Established | State::CloseWait => true,
                    State::FinWait1 | State::FinWait2 => reads,
                    State::Closing | State::LastAck | State::TimeWait => reads && unread > 0,
                    State::Closed | State::Listen | State::SynSent | State::SynReceived => false,
                };
                if closes {
                    self.core.drain_conn(key, Cause::Operator);
                    self.settle(key, None);
                }
                closes
            }
            (End::Conn(key), Deed::Abort) => {
                let core = &mut self.core;
                let Some(mut conn) = core.tables.conns.live(key) else { return false };
                let mut env = Env { now: core.now, cfg: &core.cfg, pool: &mut core.pool, log: &mut core.log };
                conn.cut_off(&mut env, Cause::Operator);
                self.settle(key, None);
                true
            }
            (End::Half(key), Deed::Abort) => self.abort_half_open(key),
        }
    }

    /// `SYN_RECEIVED` and an abort: RST, and the record is gone (RFC 9293 §3.10.5).
    fn abort_half_open(&mut self, key: u32) -> bool {
        let core = &mut self.core;
        let Some(half) = core.tables.remove_half(key, core.now) else { return false };
        core.log.moved(State::SynReceived, Event::Abort, State::Closed);
        core.block.counters.half_open_given_up += 1;
        if let Some(frame) = self.port.alloc() {
            let header = Header {
                seq: half.iss + 1,
                ack: SeqNum::new(0),
                flags: Flags::RST,
                window: 0,
                options: Options::default(),
            };
            if core.send_bare(&mut self.port, frame, half.l2, &half.tuple, &header) {
                core.block.counters.resets_sent[ResetCause::HalfOpen as usize] += 1;
            }
        }
        true
    }
}

impl Core {
    /// The record in a slot, if there is one that is meant.
    fn row(&self, table: Table, slot: u32, filter: &Filter) -> Option<Row> {
        match table {
            Table::Half => self.half_row(slot, filter),
            Table::HalfWide => self.half_row(slot | super::half_table::WIDE, filter),
            Table::Conns => self.conn_row(slot, filter),
            Table::ConnsWide => self.conn_row(slot | super::conn_table::WIDE, filter),
            Table::Waits => self.wait_row(slot, filter),
            Table::WaitsWide => self.wait_row(slot | super::wait_table::WIDE, filter),
        }
    }

    fn half_row(&self, key: u32, filter: &Filter) -> Option<Row> {
        let half: SynRcvd = self.tables.half.get(key, self.now)?;
        let age = self.now.since(half.since);
        let listener = Some(half.listener);
        let meant = filter.names(&half.tuple, State::SynReceived)
            && filter.takes_listener(listener)
            && age >= filter.older_than;
        meant.then(|| Row { listener, age, in_state: age, ..Row::blank(half.tuple, State::SynReceived) })
    }

    fn conn_row(&self, key: u32, filter: &Filter) -> Option<Row> {
        let conn = self.tables.conns.get(key)?;
        let tuple = self.tables.conns.tuple(key)?;
        let listener = (!conn.is_active()).then_some(conn.service);
        // One that waits for room to send its RST has ended.
        if conn.state() == State::Closed
            || !filter.names(&tuple, conn.state())
            || !filter.takes_listener(listener)
        {
            return None;
        }
        let seen = conn.insight(self.tables.conns.flight(conn));
        let age = self.now.since(seen.opened_at);
        (age >= filter.older_than).then(|| Row {
            listener,
            age,
            in_state: self.now.since(conn.state_since()),
            left: None,
            unread: seen.unread,
            unacknowledged: seen.unacknowledged,
            bytes_in: seen.bytes_in,
            bytes_out: seen.bytes_out,
            srtt: seen.srtt,
            cwnd: seen.cwnd,
            active: conn.is_active(),
            ..Row::blank(tuple, conn.state())
        })
    }

    fn wait_row(&self, key: u32, filter: &Filter) -> Option<Row> {
        let tuple = self.tables.wait(key)?.tuple;
        if !filter.names(&tuple, State::TimeWait) {
            return None;
        }
        let left = self.tables.wait_left(key, self.now)?;
        let age = self.cfg.time_wait.saturating_sub(left);
        if age < filter.older_than {
            return None;
        }
        let listener = self.listeners.find(&tuple);
        filter.takes_listener(listener).then(|| Row {
            listener,
            age,
            in_state: age,
            left: Some(left),
            ..Row::blank(tuple, State::TimeWait)
        })
    }
}

impl Row {
    fn blank(tuple: Tuple, state: State) -> Self {
        Self {
            tuple,
            state,
            listener: None,
            age: Duration::ZERO,
            in_state: Duration::ZERO,
            left: None,
            unread: 0,
            unacknowledged: 0,
            bytes_in: 0,
            bytes_out: 0,
            srtt: Duration::ZERO,
            cwnd: 0,
            active: false,
        }
    }
}
