//! Between the engine and the service: who is told what, in which order.
//!
//! ```text
//! opened ─▶ data (straight from the frame; what is not consumed goes to the receive buffer) ─▶ data (buffered)
//!        ─▶ writable ─▶ the peer's FIN is taken ─▶ peer_closed
//! ```

use super::egress::Ended;
use super::{Core, Drain};
use crate::drop::DropReason;
use crate::service::{ConnId, Context, Service};
use crate::tcp::conn::{ConnFlags, Env, Live};
use crate::tcp::flight::Flight;
use crate::tcp::input::Delivery;
use crate::tcp::record::Cause;
use crate::tcp::state::State;
use crate::time::Time;
use crate::wire::Tuple;

/// The connection a service call is about.
struct Cx<'a, 'e> {
    conn: &'a mut Live<'e>,
    env: &'a mut Env<'e>,
    /// Why the service closes, if it does in this call.
    cause: Cause,
    id: ConnId,
    /// Connections that are to be offered their unread bytes again.
    resumed: &'a mut Vec<u32>,
}

impl Context for Cx<'_, '_> {
    fn id(&self) -> ConnId {
        self.id
    }
    fn resume(&mut self, id: ConnId) {
        if self.resumed.len() < self.resumed.capacity() && self.resumed.last() != Some(&id.0) {
            self.resumed.push(id.0);
        }
    }
    fn tuple(&self) -> Tuple {
        self.conn.tuple()
    }
    fn now(&self) -> Time {
        self.env.now
    }
    fn user(&self) -> u32 {
        self.conn.user
    }
    fn set_user(&mut self, word: u32) {
        self.conn.user = word;
    }
    fn send_space(&self) -> usize {
        self.conn.send_space(self.env)
    }
    fn send(&mut self, bytes: &[u8]) -> usize {
        self.conn.send(self.env, bytes)
    }
    fn unacknowledged(&self) -> usize {
        self.conn.unsent_or_unacknowledged()
    }
    fn shutdown(&mut self) {
        self.conn.shutdown(self.env, self.cause);
    }
    fn close(&mut self) {
        self.conn.close(self.env, self.cause);
    }
    fn close_lingering(&mut self) {
        self.conn.close_lingering(self.env, self.cause);
    }
    fn abort(&mut self) {
        self.conn.abort(self.env);
    }
}

/// A connection with everything a delivery needs, borrowed apart from the rest of the core.
struct Delivering<'a> {
    conn: Live<'a>,
    env: Env<'a>,
    service: &'a mut dyn Service,
    scratch: &'a mut [u8],
    id: ConnId,
    resumed: &'a mut Vec<u32>,
    /// Bytes beyond a gap that were given up.
    given_up: u64,
}

impl Delivering<'_> {
    fn call<R>(&mut self, cause: Cause, f: impl FnOnce(&mut dyn Service, &mut dyn Context) -> R) -> R {
        let Self { conn, env, service, id, resumed, .. } = self;
        f(*service, &mut Cx { conn, env, cause, id: *id, resumed })
    }

    /// Tells the service that the connection is open, once.
    fn open(&mut self) -> bool {
        if self.conn.flags.has(ConnFlags::TOLD_OPEN) || !self.conn.state().synchronized() {
            return false;
        }
        self.conn.flags.set(ConnFlags::TOLD_OPEN);
        self.call(Cause::Service, |s, cx| s.opened(cx));
        true
    }

    /// In-order bytes, straight from the frame. Returns why some were lost, if they were.
    fn text(&mut self, bytes: &[u8]) -> Option<DropReason> {
        if bytes.is_empty() || self.conn.state() == State::Closed {
            return None;
        }
        let mut consumed = 0;
        if self.conn.unread() == 0 && !self.conn.flags.has(ConnFlags::READ_CLOSED) {
            consumed = self.call(Cause::Service, |s, cx| s.data(cx, bytes)).min(bytes.len());
        }
        if self.conn.state() == State::Closed {
            return None;
        }
        let rest = &bytes[consumed..];
        if self.conn.lingers() {
            self.conn.received(&mut self.env, bytes.len());
            self.conn.discard(&mut self.env, rest.len());
            return None;
        }
        self.conn.check_unread(&mut self.env, rest.len());
        if self.conn.state() == State::Closed {
            return None;
        }
        let (kept, given_up) = self.conn.keep(&mut self.env, rest);
        self.given_up += given_up as u64;
        self.conn.received(&mut self.env, consumed + kept);
        if kept < rest.len() {
            self.conn.refused();
            return Some(DropReason::NoChunk);
        }
        None
    }

    /// Offers buffered bytes until the service takes no more.
    fn buffered(&mut self) {
        while self.conn.state() != State::Closed && self.conn.unread() > 0 {
            if self.conn.lingers() {
                let n = self.conn.unread();
                self.conn.consume(&mut self.env, n);
                self.conn.discard(&mut self.env, n);
                return;
            }
            self.check_unread();
            if self.conn.state() == State::Closed {
                return;
            }
            let front = self.conn.front(self.env.pool);
            let n = front.len().min(self.scratch.len());
            self.scratch[..n].copy_from_slice(&front[..n]);
            let scratch = std::mem::take(&mut self.scratch);
            let consumed = self.call(Cause::Service, |s, cx| s.data(cx, &scratch[..n])).min(n);
            self.scratch = scratch;
            if self.conn.state() == State::Closed {
                return;
            }
            self.conn.consume(&mut self.env, consumed.min(self.conn.unread()));
            self.check_unread();
            if consumed == 0 {
                return;
            }
        }
    }

    /// A full close must not leave bytes unread in silence.
    fn check_unread(&mut self) {
        let unread = self.conn.unread();
        self.conn.check_unread(&mut self.env, unread);
    }

    /// The peer's FIN, once everything before it is consumed.
    fn fin(&mut self) {
        let _ = self.conn.take_fin(&mut self.env);
        if self.conn.state() != State::Closed && self.conn.peer_closed_untold() {
            self.conn.flags.set(ConnFlags::TOLD_CLOSED);
            if !self.conn.flags.has(ConnFlags::READ_CLOSED) {
                self.call(Cause::Service, |s, cx| s.peer_closed(cx));
            }
        }
    }

    /// The connection is to end: the service ends it its way.
    fn drain(&mut self, cause: Cause) {
        self.call(cause, |s, cx| s.drain(cx));
        self.check_unread();
    }

    /// Send space was freed: unread bytes first, then `writable`.
    fn space(&mut self) {
        if !self.conn.flags.take(ConnFlags::SEND_BLOCKED) || !self.conn.state().can_send() {
            return;
        }
        self.buffered();
        if self.conn.state().can_send() {
            self.call(Cause::Service, |s, cx| s.writable(cx));
            self.check_unread();
        }
        if self.conn.state() != State::Closed && self.conn.peer_closed_untold() {
            self.fin();
        }
    }
}

impl Core {
    /// The connection in a slot, with its service, apart from everything else.
    fn delivering(&mut self, key: u32) -> Option<Delivering<'_>> {
        let conn = self.tables.conns.live(key)?;
        let service = self.services.get_mut(usize::from(conn.service))?.as_mut();
        let env = Env { now: self.now, cfg: &self.cfg, pool: &mut self.pool, log: &mut self.log };
        let (scratch, resumed) = (self.scratch.as_mut_slice(), &mut self.resumed);
        Some(Delivering { conn, env, service, scratch, id: ConnId(key), resumed, given_up: 0 })
    }

    /// Hands a delivery to the service.
    pub(super) fn deliver(&mut self, key: u32, d: &Delivery, payload: &[u8]) {
        let draining = self.drain != Drain::No;
        let Some(mut x) = self.delivering(key) else { return };
        let opened = x.open();
        let bytes = payload.get(d.in_order.clone()).unwrap_or(&[]);
        let lost = x.text(bytes).or(d.lost);
        x.buffered();
        x.fin();
        if d.acknowledged {
            x.space();
        }
        if opened && draining && x.conn.state().can_send() {
            x.drain(Cause::Drain);
        }
        let given_up = x.given_up;
        self.block.counters.out_of_order_given_up += given_up;
        self.count_opened(key, opened);
        if let Some(reason) = lost {
            self.block.counters.drop_frame(reason);
        }
        self.called(key);
    }

    /// Adds to its listener's account what a segment brought: bytes received in order, and bytes acknowledged.
    pub(super) fn count_bytes(&mut self, key: u32, service: u16, before: [u64; 2]) {
        let Some(conn) = self.tables.conns.get(key) else { return };
        if let Some(l) = self.block.listeners.get_mut(usize::from(service)) {
            let [bytes_in, bytes_out] = conn.bytes();
            l.bytes_in += bytes_in.saturating_sub(before[0]);
            l.bytes_out += bytes_out.saturating_sub(before[1]);
        }
    }

    fn count_opened(&mut self, key: u32, opened: bool) {
        if !opened {
            return;
        }
        let Some(conn) = self.tables.conns.live(key) else { return };
        if let Some(l) = self.block.listeners.get_mut(usize::from(conn.service)) {
            l.open();
        }
        if conn.is_active() {
            self.block.counters.opened_active += 1;
        } else {
            self.block.counters.opened_passive += 1;
            if !conn.flags.has(ConnFlags::COOKIE) {
                self.block.histograms.record_handshake(conn.handshake_time());
            }
        }
    }

    /// After the calls of a service: whom it resumed is asked again this turn, and so is it when it has to wait for
    /// chunks.
    fn called(&mut self, key: u32) {
        while let Some(other) = self.resumed.pop() {
            if let Some(conn) = self.tables.conns.get_mut(other) {
                conn.flags.set(ConnFlags::RESUME);
                self.queue(other);
            }
        }
        self.note_starved(key);
    }

    /// Offers unread bytes again to a service that asked for it.
    pub(super) fn resume(&mut self, key: u32) {
        if self.tables.conns.get_mut(key).is_some_and(|c| c.flags.take(ConnFlags::RESUME)) {
            self.offer_unread(key);
        }
    }

    /// A service that waits for chunks while nothing is in flight would never be called again.
    fn note_starved(&mut self, key: u32) {
        let conns = &mut self.tables.conns;
        let waits = conns.get(key).and_then(|c| conns.flight(c)).is_some_and(Flight::has_to_send);
        let Some(conn) = conns.get_mut(key) else { return };
        if !conn.flags.has(ConnFlags::SEND_BLOCKED) || conn.flags.has(ConnFlags::STARVED) || waits {
            return;
        }
        conn.flags.set(ConnFlags::STARVED);
        if self.starved.len() == self.tables.conns.capacity() {
            // Entries of connections that are gone: only the first one of each that waits stays.
            let conns = &mut self.tables.conns;
            self.starved.retain(|&k| conns.get_mut(k).is_some_and(|c| c.flags.take(ConnFlags::STARVED)));
            for &k in self.starved.iter().chain([&key]) {
                if let Some(c) = conns.get_mut(k) {
                    c.flags.set(ConnFlags::STARVED);
                }
            }
            if self.starved.contains(&key) {
                return;
            }
        }
        self.starved.push_back(key);
    }

    /// Gives one starved connection another chance. Returns its key.
    pub(super) fn feed_starved(&mut self) -> Option<u32> {
        let key = self.starved.pop_front()?;
        if let Some(mut x) = self.delivering(key) {
            x.conn.flags.clear(ConnFlags::STARVED);
            x.space();
        }
        self.called(key);
        Some(key)
    }

    /// What [`Shard::act`](super::Shard::act) does to the connection itself.
    pub(super) fn act(&mut self, key: u32, f: &mut dyn FnMut(&mut dyn Context)) {
        let Some(mut x) = self.delivering(key) else { return };
        x.call(Cause::Service, |_, cx| f(cx));
        x.check_unread();
        self.called(key);
    }

    /// Calls the service about a connection, because it asked for it.
    pub(super) fn call(&mut self, key: u32) {
        let Some(mut x) = self.delivering(key) else { return };
        x.call(Cause::Service, |s, cx| s.called(cx));
        x.check_unread();
        self.note_starved(key);
    }

    /// What [`Shard::offer_unread`](super::Shard::offer_unread) does to the connection itself.
    pub(super) fn offer_unread(&mut self, key: u32) {
        let Some(mut x) = self.delivering(key) else { return };
        x.buffered();
        x.fin();
        self.called(key);
    }

    /// Asks the service of a connection to end it.
    pub(super) fn drain_conn(&mut self, key: u32, cause: Cause) {
        let Some(mut x) = self.delivering(key) else { return };
        match x.conn.state() {
            State::Established | State::CloseWait => x.drain(cause),
            State::FinWait1 | State::FinWait2 => {
                // The service half-closed and still reads: from now on nobody does, so that the wait is bounded.
                let Delivering { conn, env, .. } = &mut x;
                conn.close_lingering(env, cause);
            }
            // Of the first two nobody was told yet: they are told, and drained, when the handshake completes.
            State::Closing | State::LastAck | State::TimeWait if x.conn.held_by_reader() => {
                x.drain(cause);
            }
            State::SynSent
            | State::SynReceived
            | State::Closed
            | State::Listen
            | State::Closing
            | State::LastAck
            | State::TimeWait => {}
        }
        self.called(key);
    }

    /// The last word on a connection: counters, histogram, service.
    pub(super) fn report_close(&mut self, ended: &Ended) {
        let record = &ended.record;
        if ended.told {
            self.block.counters.close(record);
            self.block.counters.operated.close_log_lost += u64::from(self.closes.push(record));
            self.block.histograms.record_close(record.path, record.times.total());
            if let Some(l) = self.block.listeners.get_mut(usize::from(ended.service)) {
                l.close(record, ended.was_open);
            }
            if let Some(s) = self.services.get_mut(usize::from(ended.service)) {
                s.closed(&record.tuple, ended.user, record);
            }
        } else {
            self.block.counters.half_open_given_up += 1;
        }
    }
}
