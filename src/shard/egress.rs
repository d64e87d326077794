//! From what a connection has to say to frames in the port.
//!
//! A frame that was just received is used for the first segment of the answer, in place; further ones come from the
//! port's pool. When there is no frame or no room in the transmit ring, the connection waits in `pending` and is asked
//! again by the loop.

use super::trace::Happening;
use super::{Core, Shard};
use crate::drop::DropReason;
use crate::metrics::block::ResetCause;
use crate::port::{Frame, Port};
use crate::tcp::conn::{Conn, ConnFlags, Env};
use crate::tcp::record::{Cause, ClosePath, CloseRecord};
use crate::tcp::state::State;
use crate::wire::{Emit, Header, L2, Tuple};

/// Segments a connection may send before the next one has its turn: a burst, so that one bulk transfer does not
/// hold up a thousand closes.
const SEGMENTS_PER_VISIT: usize = 32;

/// What is left of a connection that was taken out.
pub(super) struct Ended {
    pub(super) record: CloseRecord,
    pub(super) service: u16,
    pub(super) user: u32,
    /// Its service knows of it.
    pub(super) told: bool,
    /// It was open.
    pub(super) was_open: bool,
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

    /// The work on a connection is done for now.
    pub(super) fn settle(&mut self, key: u32) {
        self.tables.conns.settle(key, &self.cfg, self.now);
    }

    /// Takes a connection out that has ended; what is to be said of it remains.
    pub(super) fn take_out(&mut self, key: u32) -> Option<Ended> {
        let mut conn = self.tables.conns.live(key)?;
        let record = conn.close_record(self.now);
        let was_open = conn.flags.has(ConnFlags::TOLD_OPEN);
        let told = was_open || conn.is_active();
        let (service, user) = (conn.service, conn.user);
        conn.release(&mut self.pool);
        self.tables.conns.remove(key);
        Some(Ended { record, service, user, told, was_open })
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

impl<P: Port> Shard<P> {
    /// Sends what a connection has to say, the first segment in `frame` if one is given, then settles the record: on
    /// the wheel, in `TIME_WAIT`, or gone.
    pub(super) fn settle(&mut self, key: u32, frame: Option<Frame>) {
        self.core.resume(key);
        let rest = self.output(key, frame);
        if let Some(f) = rest {
            self.port.free(f);
        }
        let core = &mut self.core;
        let Some(mut conn) = core.tables.conns.live(key) else { return };
        let mut env = Env { now: core.now, cfg: &core.cfg, pool: &mut core.pool, log: &mut core.log };
        if conn.leave_last_ack(&mut env) && conn.flags.has(ConnFlags::TRACED) {
            let tuple = conn.tuple();
            core.trace_moves(tuple);
        }
        let Some(conn) = core.tables.conns.live(key) else { return };
        match conn.state() {
            State::Closed => self.finish(key),
            State::TimeWait if !conn.held_by_reader() => {
                if !conn.flags.has(ConnFlags::QUEUED) {
                    self.enter_time_wait(key);
                }
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
                core.settle(key);
            }
        }
    }

    /// Sends segments until the connection has nothing to say or there is no room. Returns the frame if it was not used.
    fn output(&mut self, key: u32, mut frame: Option<Frame>) -> Option<Frame> {
        for _ in 0..SEGMENTS_PER_VISIT {
            if self.port.tx_room() == 0 {
                self.queue(key);
                return frame;
            }
            let Some(mut f) = frame.take().or_else(|| self.port.alloc()) else {
                self.queue(key);
                return None;
            };
            let core = &mut self.core;
            let Some(mut conn) = core.tables.conns.live(key) else { return Some(f) };
            let mut env = Env { now: core.now, cfg: &core.cfg, pool: &mut core.pool, log: &mut core.log };
            let Some(out) = conn.next_segment(&mut env) else { return Some(f) };
            core.ip_id = core.ip_id.wrapping_add(1);
            let tuple = conn.tuple();
            let emit = Emit {
                l2: conn.l2,
                tuple: &tuple,
                header: &out.header,
                ttl: core.cfg.ttl,
                ecn: conn.ecn_field(&out),
                ip_id: core.ip_id,
            };
            let buffer = self.port.buffer(&mut f);
            let at = emit.headers_len();
            let copied = buffer.get_mut(at..).map_or(0, |room| conn.copy_payload(&core.pool, &out, room));
            debug_assert_eq!(copied, out.len, "a segment fits its frame");
            let written = emit.emit(buffer, copied);
            let (state, traced) = (conn.state(), conn.flags.has(ConnFlags::TRACED));
            if let Some(kind) = out.retransmission {
                core.block.counters.retransmit(kind);
            }
            core.block.counters.challenge_acks += u64::from(out.challenge);
            if traced {
                core.trace(tuple, state, Happening::Sent { header: out.header, len: out.len });
            }
            if let Some(len) = written {
                self.port.set_len(&mut f, len);
                if self.core.capture.is_some() {
                    self.core.show_capture(self.port.bytes(&f), Some(&tuple), true);
                }
                if !self.port.send(f) {
                    self.core.block.counters.drop_frame(DropReason::TxRingFull);
                }
            } else {
                self.port.free(f);
                self.core.block.counters.drop_frame(DropReason::NoFrame);
            }
        }
        self.queue(key);
        frame
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
    pub(super) fn finish(&mut self, key: u32) {
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
        let core = &mut self.core;
        let Some(conn) = core.tables.conns.live(key) else {
            if let Some(f) = frame {
                self.port.free(f);
            }
            return;
        };
        let (header, l2, traced) = (conn.reset_header(), conn.l2, conn.flags.has(ConnFlags::TRACED));
        let Some(ended) = core.take_out(key) else { return };
        core.tables.forget_conn(key, &ended.record.tuple);
        let record = &ended.record;
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
        self.core.report_close(&ended);
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
