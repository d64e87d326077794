//! From what a connection has to say to frames in the port.
//!
//! A frame that was just received is used for the first segment of the answer, in place; further ones come from the
//! port's pool. When there is no frame or no room in the transmit ring, the connection waits in `pending` and is asked
//! again by the loop.

use super::trace::Happening;
use super::visit::Visit;
use super::{Core, Shard};
use crate::drop::DropReason;
use crate::metrics::block::ResetCause;
use crate::port::{Frame, Port};
use crate::tcp::conn::{Conn, ConnFlags};
use crate::tcp::output::Outgoing;
use crate::tcp::record::{Cause, ClosePath};
use crate::tcp::state::State;
use crate::time::Time;
use crate::wire::{Emit, Header, L2, Tuple};

/// Segments a connection may send before the next one has its turn: a burst, so that one bulk transfer does not
/// hold up a thousand closes.
const SEGMENTS_PER_VISIT: usize = 32;

/// How a visit to a connection ends.
#[derive(Clone, Copy)]
pub(super) enum Leave {
    /// It goes on: its timer is for this time, and this flight is given back.
    Rest(Time, Option<u32>),
    /// It is closed.
    Finish,
    /// Only the small record stays.
    TimeWait,
    /// It waits in the output queue for the room to go on.
    Wait,
}

impl Core {
    /// Writes a segment without payload into a frame and sends it. Gives the frame back when the port has no room.
    pub(super) fn send_bare<P: Port>(
        &mut self,
        port: &mut P,
        mut frame: Frame,
        l2: L2,
        tuple: &Tuple,
        header: &Header,
    ) -> bool {
        self.ip_id = self.ip_id.wrapping_add(1);
        let emit = Emit { l2, tuple, header, ttl: self.cfg.ttl, ecn: 0, ip_id: self.ip_id };
        if let Some(len) = emit.emit(port.buffer(&mut frame), 0) {
            port.set_len(&mut frame, len);
            if self.capture.is_some() {
                self.show_capture(port.bytes(&frame), Some(tuple), true);
            }
            let sent = port.send(frame);
            if !sent {
                self.block.counters.drop_frame(DropReason::TxRingFull);
            }
            sent
        } else {
            port.free(frame);
            self.block.counters.drop_frame(DropReason::NoFrame);
            false
        }
    }

    /// The work on a connection is done for now, without a word to its peer.
    pub(super) fn settle(&mut self, key: u32) {
        let Some(mut conn) = self.tables.conns.live(key) else { return };
        let (deadline, flight) = conn.lay_down(&self.cfg, self.now);
        self.tables.conns.rest(key, deadline, flight);
    }

    /// Puts a connection into the output queue, once.
    pub(super) fn queue(&mut self, key: u32) {
        if self.tables.conns.get(key).is_none_or(|c| c.flags.has(ConnFlags::QUEUED)) {
            return;
        }
        if self.pending.len() == self.tables.conns.capacity() {
            self.forget_stale_pending();
        }
        if let Some(conn) = self.tables.conns.get_mut(key) {
            conn.flags.set(ConnFlags::QUEUED);
            self.pending.push_back(key);
        }
    }

    /// Drops entries of connections that were gone before their turn came, so that the queue need not grow: the first entry
    /// of each connection that waits stays.
    #[cold]
    fn forget_stale_pending(&mut self) {
        let conns = &mut self.tables.conns;
        self.pending.retain(|&k| conns.get_mut(k).is_some_and(|c| c.flags.take(ConnFlags::QUEUED)));
        for &k in &self.pending {
            if let Some(c) = conns.get_mut(k) {
                c.flags.set(ConnFlags::QUEUED);
            }
        }
    }

    pub(super) fn trace(&mut self, tuple: Tuple, state: State, what: Happening) {
        if let Some(t) = &mut self.trace {
            t.add(self.now, tuple, state, what);
        }
    }
}

impl Visit<'_> {
    /// Sends segments until the connection has nothing to say or there is no room, the first one in `frame` if one is given.
    /// Returns whether it has more to say than there was room for.
    #[inline]
    pub(super) fn say<P: Port>(&mut self, port: &mut P, mut frame: Option<Frame>) -> bool {
        let mut more = false;
        for said in 0..=SEGMENTS_PER_VISIT {
            if !self.conn.has_to_say() {
                break;
            }
            if said == SEGMENTS_PER_VISIT || port.tx_room() == 0 {
                more = true;
                break;
            }
            let Some(f) = frame.take().or_else(|| port.alloc()) else {
                more = true;
                break;
            };
            let Some(out) = self.conn.next_segment(&mut self.env) else {
                frame = Some(f);
                break;
            };
            self.send(port, f, &out);
        }
        if let Some(f) = frame {
            port.free(f);
        }
        more
    }

    /// Writes a segment into a frame and hands it to the port.
    #[inline]
    fn send<P: Port>(&mut self, port: &mut P, mut frame: Frame, out: &Outgoing) {
        *self.ip_id = self.ip_id.wrapping_add(1);
        let tuple = self.conn.tuple();
        let emit = Emit {
            l2: self.conn.l2,
            tuple: &tuple,
            header: &out.header,
            ttl: self.env.cfg.ttl,
            ecn: self.conn.ecn_field(out),
            ip_id: *self.ip_id,
        };
        let buffer = port.buffer(&mut frame);
        if out.len > 0 {
            let at = emit.headers_len();
            let room = buffer.get_mut(at..).unwrap_or_default();
            let copied = self.conn.copy_payload(self.env.pool, out, room);
            debug_assert_eq!(copied, out.len, "a segment fits its frame");
        }
        let written = emit.emit(buffer, out.len);
        if let Some(kind) = out.retransmission {
            self.block.counters.retransmit(kind);
        }
        self.block.counters.challenge_acks += u64::from(out.challenge);
        if self.conn.flags.has(ConnFlags::TRACED) {
            self.note(tuple, Happening::Sent { header: out.header, len: out.len });
        }
        let Some(len) = written else {
            port.free(frame);
            self.block.counters.drop_frame(DropReason::NoFrame);
            return;
        };
        port.set_len(&mut frame, len);
        if self.captures() {
            self.show_capture(port.bytes(&frame), &tuple);
        }
        if !port.send(frame) {
            self.block.counters.drop_frame(DropReason::TxRingFull);
        }
    }

    /// What is to become of the connection. `more`: it goes into the output queue.
    #[inline]
    pub(super) fn leave(&mut self, more: bool) -> Leave {
        if self.conn.leave_last_ack(&mut self.env) && self.conn.flags.has(ConnFlags::TRACED) {
            self.trace_moves(self.conn.tuple());
        }
        match self.conn.state() {
            State::Closed => Leave::Finish,
            State::TimeWait if !self.conn.held_by_reader() => {
                if more || self.conn.flags.has(ConnFlags::QUEUED) { Leave::Wait } else { Leave::TimeWait }
            }
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                let (deadline, flight) = self.conn.lay_down(self.env.cfg, self.env.now);
                Leave::Rest(deadline, flight)
            }
        }
    }
}

impl<P: Port> Shard<P> {
    /// Sends what a connection has to say, the first segment in `frame` if one is given, then settles the record: on
    /// the wheel, in `TIME_WAIT`, or gone.
    pub(super) fn settle(&mut self, key: u32, frame: Option<Frame>) {
        self.settle_hashed(key, frame, None);
    }

    /// As [`settle`](Self::settle), where the hash of the tuple may be known.
    pub(super) fn settle_hashed(&mut self, key: u32, frame: Option<Frame>, hash: Option<u64>) {
        self.core.resume(key);
        if let Some(mut visit) = self.core.visit(key) {
            let more = visit.say(&mut self.port, frame);
            let leave = visit.leave(more);
            self.depart(key, more, leave, hash);
        } else if let Some(f) = frame {
            self.port.free(f);
        }
    }

    /// After a visit: the connection goes into the output queue if it has `more` to say, and the record is settled.
    #[inline]
    pub(super) fn depart(&mut self, key: u32, more: bool, leave: Leave, hash: Option<u64>) {
        if more {
            self.queue(key);
        }
        match leave {
            Leave::Rest(deadline, flight) => self.core.tables.conns.rest(key, deadline, flight),
            Leave::Finish => self.finish(key, hash),
            Leave::TimeWait => self.enter_time_wait(key, hash),
            Leave::Wait => {}
        }
    }

    fn queue(&mut self, key: u32) {
        self.core.queue(key);
    }

    /// Asks waiting connections again, up to `budget` of them. Returns whether any was asked: with neither a frame nor
    /// room to send one that would change nothing, and a worker that took it for work would never rest.
    pub(super) fn pending_output(&mut self, budget: usize) -> bool {
        let mut any = false;
        for _ in 0..budget.min(self.core.pending.len()) {
            if self.port.tx_room() == 0 {
                break;
            }
            let Some(frame) = self.port.alloc() else { break };
            let key = self.core.pending.pop_front();
            let asks = |core: &mut Core, key: u32| {
                core.tables.conns.get_mut(key).is_some_and(|c| c.flags.take(ConnFlags::QUEUED))
            };
            match key {
                Some(key) if asks(&mut self.core, key) => {
                    any = true;
                    self.settle(key, Some(frame));
                }
                Some(_) | None => self.port.free(frame),
            }
        }
        any
    }

    /// The connection is closed: sends its RST if it owes one, reports the close, and drops the record. While there is
    /// no room for the RST, the record waits for it in the output queue: the peer must hear.
    fn finish(&mut self, key: u32, hash: Option<u64>) {
        let owes_reset = |c: &Conn| c.flags.has(ConnFlags::SEND_RST);
        let mut frame = None;
        if self.core.tables.conns.get(key).is_some_and(owes_reset) {
            if self.port.tx_room() > 0 {
                frame = self.port.alloc();
            }
            if frame.is_none() {
                self.queue(key);
                return;
            }
        }
        let Some(mut visit) = self.core.visit(key) else {
            if let Some(f) = frame {
                self.port.free(f);
            }
            return;
        };
        let (header, l2) = (visit.conn.reset_header(), visit.conn.l2);
        let traced = visit.conn.flags.has(ConnFlags::TRACED);
        let record = visit.end();
        let hash = hash.unwrap_or_else(|| self.core.tables.hash(&record.tuple));
        self.core.tables.remove_conn(key, hash);
        if let Some(f) = frame {
            if traced {
                self.core.trace(record.tuple, State::Closed, Happening::Sent { header, len: 0 });
            }
            if self.core.send_bare(&mut self.port, f, l2, &record.tuple, &header) {
                self.core.block.counters.resets_sent[reset_cause(record.cause) as usize] += 1;
            }
        } else if record.path == ClosePath::Reset && matches!(record.cause, Cause::PeerReset | Cause::Refused)
        {
            self.core.block.counters.resets_received[ResetCause::Established as usize] += 1;
        }
    }
}

const fn reset_cause(cause: Cause) -> ResetCause {
    match cause {
        Cause::DataAfterClose | Cause::LingerLimit => ResetCause::DataAfterClose,
        Cause::Idle | Cause::GiveUp | Cause::FinWait2Limit | Cause::CloseWaitLimit | Cause::ZeroWindow => {
            ResetCause::Limit
        }
        Cause::Peer
        | Cause::Service
        | Cause::Drain
        | Cause::UnreadData
        | Cause::PeerReset
        | Cause::Abort
        | Cause::Operator
        | Cause::Refused => ResetCause::Service,
    }
}
