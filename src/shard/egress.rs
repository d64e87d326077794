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
use crate::tcp::record::{Cause, ClosePath};
use crate::tcp::state::State;
use crate::wire::{Emit, Header, L2, Tuple};

/// Segments a connection may send before the next one has its turn: a burst, so that one bulk transfer does not
/// hold up a thousand closes.
const SEGMENTS_PER_VISIT: usize = 32;

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

    /// Puts a connection into the output queue, once.
    pub(super) fn queue(&mut self, key: u32) {
        if let Some(conn) = self.tables.conns.get_mut(key)
            && !conn.flags.has(ConnFlags::QUEUED)
        {
            conn.flags.set(ConnFlags::QUEUED);
            self.pending.push_back(key);
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
        let Some(conn) = core.tables.conns.get_mut(key) else { return };
        let mut env = Env { now: core.now, cfg: &core.cfg, pool: &mut core.pool, log: &mut core.log };
        if conn.leave_last_ack(&mut env) && conn.flags.has(ConnFlags::TRACED) {
            let tuple = conn.tuple;
            core.trace_moves(tuple);
        }
        let Some(conn) = core.tables.conns.get_mut(key) else { return };
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
                conn.arm_persist(core.now);
                let deadline = conn.deadline(&core.cfg);
                core.tables.arm_conn(key, deadline);
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
            let Some(conn) = core.tables.conns.get_mut(key) else { return Some(f) };
            let mut env = Env { now: core.now, cfg: &core.cfg, pool: &mut core.pool, log: &mut core.log };
            let Some(out) = conn.next_segment(&mut env) else { return Some(f) };
            core.ip_id = core.ip_id.wrapping_add(1);
            let emit = Emit {
                l2: conn.l2,
                tuple: &conn.tuple,
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
            let (tuple, state, traced) = (conn.tuple, conn.state(), conn.flags.has(ConnFlags::TRACED));
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
        let Some(mut conn) = self.core.tables.remove_conn(key) else {
            if let Some(f) = frame {
                self.port.free(f);
            }
            return;
        };
        let record = conn.close_record(self.core.now);
        if let Some(f) = frame {
            let header = conn.reset_header();
            if conn.flags.has(ConnFlags::TRACED) {
                self.core.trace(conn.tuple, State::Closed, Happening::Sent { header, len: 0 });
            }
            if self.core.send_bare(&mut self.port, f, conn.l2, &conn.tuple, &header) {
                self.core.block.counters.resets_sent[reset_cause(record.cause) as usize] += 1;
            }
        } else if record.path == ClosePath::Reset && matches!(record.cause, Cause::PeerReset | Cause::Refused)
        {
            self.core.block.counters.resets_received[ResetCause::Established as usize] += 1;
        }
        self.core.report_close(&mut conn, &record);
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
