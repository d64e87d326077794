//! Opening from a peer: a SYN for a listener, and what follows until the ACK that completes the handshake.

use super::Shard;
use super::mailbox::Route;
use super::trace::Happening;
use crate::drop::DropReason;
use crate::metrics::block::{ResetCause, Retransmission};
use crate::metrics::gauges::BudgetKind;
use crate::port::{Frame, Port};
use crate::tcp::conn::{Conn, ConnFlags};
use crate::tcp::state::{Event, State};
use crate::tcp::syn_rcvd::{HalfVerdict, SynRcvd};
use crate::wire::{Flags, Header, SeqNum, TcpFrame};

impl<P: Port> Shard<P> {
    /// A SYN that belongs to no connection. `iss_floor` is set when it re-opens a pair held in `TIME_WAIT`.
    pub(super) fn on_syn(&mut self, frame: Frame, seg: &TcpFrame, hash: u64, iss_floor: Option<SeqNum>) {
        let Some(listener) = self.core.listeners.find(&seg.tuple) else {
            if self.core.listeners.is_retired(&seg.tuple) {
                self.core.block.counters.drop_frame(DropReason::Draining);
                self.port.free(frame);
                return;
            }
            self.answer_closed(frame, seg, ResetCause::ClosedPort);
            return;
        };
        let Some(frame) = self.admit(frame, seg) else { return };
        let core = &mut self.core;
        // An ISN above the old one cannot be a cookie: a pair that is opened again takes of the room that is left.
        if iss_floor.is_none() && core.wants_cookie() {
            self.answer_by_cookie(frame, seg, listener);
            return;
        }
        let isn = core.isn_secret.isn(&seg.tuple, core.now);
        let iss = iss_floor.map_or(isn, |floor| isn.max(floor));
        let mut half = SynRcvd::new(seg, listener, iss, &core.cfg, core.now);
        half.traced = core.trace.as_ref().is_some_and(|t| t.wants(&seg.tuple));
        if core.tables.add_half(&half, hash, core.now).is_none() {
            if iss_floor.is_none() && core.cfg.syn_cookies.is_some() {
                // The index is full, though the table is not.
                self.answer_by_cookie(frame, seg, listener);
                return;
            }
            core.block.counters.drop_frame(DropReason::SynTableFull);
            self.port.free(frame);
            return;
        }
        let from = if iss_floor.is_some() { State::TimeWait } else { State::Listen };
        let event = if iss_floor.is_some() { Event::NewerSyn } else { Event::Syn };
        // The record is new; the listener (or the TIME_WAIT record) accounts for itself.
        core.log.enter(from);
        core.log.moved(from, event, State::SynReceived);
        if half.traced {
            let len = seg.payload_len();
            core.trace(seg.tuple, State::Listen, Happening::Received { header: seg.header, len });
            let _ = core.log.take_recent();
            let moved = crate::tcp::state_log::Move { from, event, to: State::SynReceived };
            core.trace(seg.tuple, State::SynReceived, Happening::Moved(moved));
        }
        self.send_syn_ack(&half, Some(frame));
    }

    /// Returns the frame of a SYN for a listener if it can be taken now: connections are taken, and there is room to answer it.
    pub(super) fn admit(&mut self, frame: Frame, seg: &TcpFrame) -> Option<Frame> {
        let frame = self.refuse_new(frame, seg)?;
        if self.port.tx_room() < self.kept_slots {
            self.core.block.counters.drop_frame(DropReason::TxRingFull);
            self.port.free(frame);
            return None;
        }
        Some(frame)
    }

    /// Sends the SYN-ACK of a half-open record, in `frame` if one is given.
    pub(super) fn send_syn_ack(&mut self, half: &SynRcvd, frame: Option<Frame>) {
        let header = half.syn_ack(&self.core.cfg, &self.core.secret, self.core.now);
        self.send_half(half, frame, &header);
    }

    fn send_half(&mut self, half: &SynRcvd, frame: Option<Frame>, header: &Header) {
        let Some(frame) = frame.or_else(|| self.port.alloc()) else {
            self.core.block.counters.drop_frame(DropReason::NoFrame);
            return;
        };
        let sent = self.core.send_bare(&mut self.port, frame, half.l2, &half.tuple, header);
        if sent && half.traced {
            self.core.trace(half.tuple, State::SynReceived, Happening::Sent { header: *header, len: 0 });
        }
    }

    /// A segment for a half-open record.
    pub(super) fn on_half_open(&mut self, key: u32, frame: Frame, seg: &TcpFrame, hash: u64) {
        let core = &mut self.core;
        let Some(mut half) = core.tables.half.get(key, core.now) else {
            self.port.free(frame);
            return;
        };
        match half.on_segment(&seg.header, seg.payload_len(), &core.cfg) {
            HalfVerdict::SynAckAgain => {
                half.syn_again(&seg.header);
                core.tables.half.put(key, &half);
                core.log.moved(State::SynReceived, Event::Syn, State::SynReceived);
                core.block.counters.retransmit(Retransmission::SynAck);
                self.send_syn_ack(&half, Some(frame));
            }
            HalfVerdict::Promote => self.promote(key, &half, frame, seg, hash),
            HalfVerdict::Ack => {
                let may = half.may_answer(seg.header.seg_len(seg.payload_len()));
                core.tables.half.put(key, &half);
                if !may {
                    core.block.counters.drop_frame(DropReason::OutOfWindow);
                    self.port.free(frame);
                } else if core.stray_replies.take(&seg.tuple.remote.addr, core.now) {
                    core.block.counters.challenge_acks += 1;
                    let header = half.ack(&core.cfg, &core.secret, core.now);
                    self.send_half(&half, Some(frame), &header);
                } else {
                    core.block.counters.refuse(BudgetKind::HalfOpen);
                    core.block.counters.drop_frame(DropReason::ReplyBudget);
                    self.port.free(frame);
                }
            }
            HalfVerdict::Reset(seq) => {
                // The peer may answer a cookie, sent before there was room for the record of its second SYN.
                // It has been round the other workers.
                let here = Route { hops: 0, returns: true };
                let Some(frame) = self.try_cookie(frame, seg, here, Some(key)) else { return };
                let core = &mut self.core;
                core.block.counters.drop_frame(DropReason::BadAck);
                self.reply_reset(frame, seg, seq, Flags::RST, SeqNum::new(0), ResetCause::HalfOpen);
            }
            HalfVerdict::Remove => {
                core.block.counters.resets_received[ResetCause::HalfOpen as usize] += 1;
                core.log.moved(State::SynReceived, Event::Rst, State::Closed);
                let _ = core.tables.remove_half(key, core.now);
                self.port.free(frame);
            }
            HalfVerdict::Drop(reason) => {
                core.block.counters.drop_frame(reason);
                self.port.free(frame);
            }
        }
    }

    /// The handshake is complete: the half-open record becomes a connection, which then takes the segment.
    fn promote(&mut self, key: u32, half: &SynRcvd, frame: Frame, seg: &TcpFrame, hash: u64) {
        let core = &mut self.core;
        if core.tables.conns.is_full() {
            // The peer believes it is open; its data, or our SYN-ACK again, gives it another chance.
            core.block.counters.drop_frame(DropReason::ConnTableFull);
            self.port.free(frame);
            return;
        }
        let mut conn = Conn::from_half_open(half, &core.cfg, &core.secret, core.now);
        if half.traced {
            conn.flags.set(ConnFlags::TRACED);
        }
        match core.tables.promote(key, &half.tuple, hash, conn) {
            Some(key) => self.on_conn(key, frame, seg, hash),
            None => self.port.free(frame),
        }
    }
}
