//! What ends a connection from this side: half-close, close, lingering close, abort, and the taking of the peer's FIN.
//!
//! A close is two independent handshakes: each side's FIN and its ACK. Here is only who asks for what; the FIN itself
//! is sent by [`output`](super::output) once everything before it is sent.

use super::conn::{ConnFlags, Env, Live};
use super::record::{Cause, ClosePath, First};
use super::state::{Event, State};

impl Live<'_> {
    /// Half-close: FIN after what was sent; receiving goes on.
    pub fn shutdown(&mut self, env: &mut Env<'_>, cause: Cause) {
        match self.state() {
            State::SynSent => {
                self.end(Event::Close, ClosePath::Active, cause, env);
                return;
            }
            // Nothing more to close on our side (§3.10.4).
            State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => {
                self.event(Event::Close, env);
                return;
            }
            // Simultaneous open: nothing was sent, nobody was told, and a FIN would have to carry the SYN with it.
            State::SynReceived => {
                self.reset(env, cause);
                return;
            }
            State::Closed | State::Listen | State::TimeWait => return,
            State::Established | State::CloseWait => {}
        }
        if self.state() == State::CloseWait {
            self.set_first(First::Peer);
        } else {
            self.set_first(First::Us);
            self.set_cause(cause);
        }
        self.conn.progress_at.set(env.now);
        self.event(Event::Close, env);
    }

    /// Full close: nobody reads any more. Whether something is left unread is known only when the service's call
    /// returns: [`Live::check_unread`].
    pub fn close(&mut self, env: &mut Env<'_>, cause: Cause) {
        self.close_reading(env);
        self.shutdown(env, cause);
    }

    /// Nobody reads any more: from now on `FIN_WAIT_2` is bounded, however long it has lasted for a reader.
    fn close_reading(&mut self, env: &Env<'_>) {
        if !self.flags.has(ConnFlags::READ_CLOSED) && self.state() == State::FinWait2 {
            self.conn.progress_at.set(env.now);
        }
        self.flags.set(ConnFlags::READ_CLOSED);
    }

    /// After a full close with `unread` bytes that the service did not consume, the peer must know that they were not
    /// read: RST (RFC 2525 §2.17).
    pub fn check_unread(&mut self, env: &mut Env<'_>, unread: usize) {
        let closed = self.flags.has(ConnFlags::READ_CLOSED) && !self.flags.has(ConnFlags::LINGER);
        if closed && unread > 0 && self.state() != State::Closed {
            self.reset(env, Cause::UnreadData);
        }
    }

    /// Lingering close: what is unread and what still arrives is discarded, up to the limits.
    pub fn close_lingering(&mut self, env: &mut Env<'_>, cause: Cause) {
        if self.flags.has(ConnFlags::READ_CLOSED) {
            return;
        }
        self.close_reading(env);
        self.flags.set(ConnFlags::LINGER);
        self.flight.linger_until = env.now + env.cfg.limits(self.service).linger_time;
        let unread = self.flight.rcvbuf.unread();
        self.consume(env, unread);
        self.shutdown(env, cause);
        self.discard(env, unread);
    }

    /// Abort asked by the service: RST, buffers dropped (§3.10.5).
    pub fn abort(&mut self, env: &mut Env<'_>) {
        self.reset(env, Cause::Abort);
    }

    /// The time of a drain is over, or an operator wants it so: RST, so that the peer knows and does not wait for an answer.
    /// A connection that both sides have closed, and that only waits to send its last ACK, is left alone.
    pub fn cut_off(&mut self, env: &mut Env<'_>, cause: Cause) {
        self.reset(env, cause);
    }

    /// Ends the connection with a RST of ours. When both FINs are acknowledged nothing is left to end but our reading,
    /// and a RST would take from the peer what `TIME_WAIT` is there for (RFC 1337 §2).
    pub(super) fn reset(&mut self, env: &mut Env<'_>, cause: Cause) {
        if self.closing_done() {
            self.stop_reading(cause);
            return;
        }
        if self.state().synchronized() || self.state() == State::SynReceived {
            self.flags.set(ConnFlags::SEND_RST);
        }
        self.set_first(First::Us);
        self.end(Event::Abort, ClosePath::Reset, cause, env);
    }

    /// The peer's acceptable RST.
    pub(super) fn take_reset(&mut self, env: &mut Env<'_>) {
        self.set_first(First::Peer);
        let cause = if self.state() == State::SynSent { Cause::Refused } else { Cause::PeerReset };
        self.end(Event::Rst, ClosePath::Reset, cause, env);
    }

    /// A limit ends the connection. Where the peer may still hope for an answer, it gets a RST.
    pub(super) fn limit(&mut self, env: &mut Env<'_>, cause: Cause) {
        match self.state() {
            State::Established | State::CloseWait => {
                self.flags.set(ConnFlags::SEND_RST);
                self.set_first(First::Us);
            }
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => {}
        }
        self.end(Event::Limit, ClosePath::Timeout, cause, env);
    }

    /// The end that is not graceful: the cause that ended it replaces the one that began the close, because it is
    /// what an operator must hear of.
    pub(super) fn end(&mut self, event: Event, path: ClosePath, cause: Cause, env: &mut Env<'_>) {
        if self.state() == State::Closed {
            return;
        }
        self.conn.ending.set_cause(cause);
        self.conn.ending.set_path(path);
        self.event(event, env);
        self.conn.rtx_at.set(crate::time::Time::NEVER);
        self.conn.loss_at.set(crate::time::Time::NEVER);
        self.flight.ack_at = crate::time::Time::NEVER;
    }

    /// Takes the peer's FIN once everything before it is received (§3.10.7.4, eighth). Returns whether it was taken now.
    pub fn take_fin(&mut self, env: &mut Env<'_>) -> bool {
        if self.peer_fin() != Some(self.rcv_nxt) || !self.state().can_receive() {
            return false;
        }
        self.rcv_nxt += 1;
        self.flags.set(ConnFlags::ACK_NOW);
        if self.state() == State::Established {
            self.set_first(First::Peer);
            self.set_cause(Cause::Peer);
        } else if self.state() == State::FinWait1 {
            self.flags.set(ConnFlags::CROSSED);
        }
        self.event(Event::Fin, env);
        if self.state() == State::TimeWait {
            self.conn.rtx_at.set(crate::time::Time::NEVER);
            self.conn.loss_at.set(crate::time::Time::NEVER);
        }
        true
    }

    /// Whether the service is still to be told that the peer closed: its FIN is taken and all data is consumed.
    #[must_use]
    pub fn peer_closed_untold(&self) -> bool {
        self.peer_fin().is_some_and(|f| f.before(self.rcv_nxt))
            && self.flight.rcvbuf.unread() == 0
            && !self.flags.has(ConnFlags::TOLD_CLOSED)
    }
}
