//! Between the engine and the service: who is told what, in which order.
//!
//! ```text
//! opened ─▶ data (straight from the frame; what is not consumed goes to the receive buffer) ─▶ data (buffered)
//!        ─▶ writable ─▶ the peer's FIN is taken ─▶ peer_closed
//! ```

use super::Core;
use super::visit::Visit;
use crate::drop::DropReason;
use crate::service::{ConnId, Context, Service};
use crate::tcp::conn::{ConnFlags, Env, Live};
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

impl Visit<'_> {
    fn call<R: Default>(
        &mut self,
        cause: Cause,
        f: impl FnOnce(&mut dyn Service, &mut dyn Context) -> R,
    ) -> R {
        let Self { conn, env, service, id, resumed, .. } = self;
        match service {
            Some(service) => f(*service, &mut Cx { conn, env, cause, id: *id, resumed }),
            None => R::default(),
        }
    }

    /// Hands a delivery to the service.
    #[inline]
    pub(super) fn deliver(&mut self, d: &Delivery, payload: &[u8], draining: bool) {
        let opened = self.open();
        let bytes = payload.get(d.in_order.clone()).unwrap_or(&[]);
        let lost = self.text(bytes).or(d.lost);
        self.buffered();
        self.fin();
        if d.acknowledged {
            self.space();
        }
        if opened {
            if draining && self.conn.state().can_send() {
                self.drain(Cause::Drain);
            }
            self.count_opened();
        }
        if let Some(reason) = lost {
            self.block.counters.drop_frame(reason);
        }
    }

    fn count_opened(&mut self) {
        let counters = &mut self.block.counters;
        if let Some(l) = self.block.listeners.get_mut(usize::from(self.conn.service)) {
            l.open();
        }
        if self.conn.is_active() {
            counters.opened_active += 1;
        } else {
            counters.opened_passive += 1;
            if !self.conn.flags.has(ConnFlags::COOKIE) {
                self.block.histograms.record_handshake(self.conn.handshake_time());
            }
        }
    }

    /// Whether other connections are to be told of this visit, or this one waits for chunks: [`Core::called`] sees to it.
    pub(super) fn leaves_errands(&self) -> bool {
        !self.resumed.is_empty() || self.conn.flags.has(ConnFlags::RESUME) || self.starves()
    }

    /// A service that waits for chunks while nothing is in flight would never be called again.
    fn starves(&self) -> bool {
        let flags = self.conn.flags;
        flags.has(ConnFlags::SEND_BLOCKED)
            && !flags.has(ConnFlags::STARVED)
            && !self.conn.flight.has_to_send()
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
        self.block.counters.out_of_order_given_up += given_up as u64;
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
    /// After the calls of a service: whom it resumed is asked again this turn, and so is it when it has to wait for
    /// chunks.
    pub(super) fn called(&mut self, key: u32) {
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

    /// Has a connection whose service waits for chunks asked again when there are some.
    fn note_starved(&mut self, key: u32) {
        let Some(x) = self.visit(key).filter(Visit::starves) else { return };
        x.conn.conn.flags.set(ConnFlags::STARVED);
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
        if let Some(mut x) = self.visit(key) {
            x.conn.flags.clear(ConnFlags::STARVED);
            x.space();
        }
        self.called(key);
        Some(key)
    }

    /// What [`Shard::act`](super::Shard::act) does to the connection itself.
    pub(super) fn act(&mut self, key: u32, f: &mut dyn FnMut(&mut dyn Context)) {
        let Some(mut x) = self.visit(key) else { return };
        x.call(Cause::Service, |_, cx| f(cx));
        x.check_unread();
        self.called(key);
    }

    /// Calls the service about a connection, because it asked for it.
    pub(super) fn call(&mut self, key: u32) {
        let Some(mut x) = self.visit(key) else { return };
        x.call(Cause::Service, |s, cx| s.called(cx));
        x.check_unread();
        self.note_starved(key);
    }

    /// What [`Shard::offer_unread`](super::Shard::offer_unread) does to the connection itself.
    pub(super) fn offer_unread(&mut self, key: u32) {
        let Some(mut x) = self.visit(key) else { return };
        x.buffered();
        x.fin();
        self.called(key);
    }

    /// Asks the service of a connection to end it.
    pub(super) fn drain_conn(&mut self, key: u32, cause: Cause) {
        let Some(mut x) = self.visit(key) else { return };
        match x.conn.state() {
            State::Established | State::CloseWait => x.drain(cause),
            State::FinWait1 | State::FinWait2 => {
                // The service half-closed and still reads: from now on nobody does, so that the wait is bounded.
                let Visit { conn, env, .. } = &mut x;
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
}
