//! `TIME_WAIT`: how a connection enters it, what a late segment meets there, and how records leave in bulk.

use super::trace::Happening;
use super::{Core, Shard};
use crate::drop::DropReason;
use crate::metrics::gauges::{BATCH_BOUNDS, BudgetKind};
use crate::port::{Frame, Port};
use crate::tcp::state::{Event, State};
use crate::tcp::state_log::Move;
use crate::tcp::time_wait::{TimeWait, WaitVerdict};
use crate::wire::TcpFrame;

impl<P: Port> Shard<P> {
    /// Both FINs are acknowledged and ours was first (or crossed): the connection is reported and only the small record
    /// stays.
    pub(super) fn enter_time_wait(&mut self, key: u32, hash: Option<u64>) {
        let core = &mut self.core;
        let Some(mut visit) = core.visit(key) else { return };
        let wait = TimeWait::new(&visit.conn);
        // 2MSL runs from when the state was entered, which is earlier if the service had still to read.
        let expires = (visit.conn.state_since() + visit.env.cfg.time_wait).max(visit.env.now);
        let _ = visit.end();
        core.tables.conns.remove(key);
        let hash = hash.unwrap_or_else(|| core.tables.hash(&wait.tuple));
        if !core.tables.add_wait(&wait, expires, key, hash) {
            core.evict_oldest();
            if !core.tables.add_wait(&wait, expires, key, hash) {
                // Not even the oldest could go: every slot waits for the wheel. The pair is not held.
                core.tables.forget_conn(key, hash);
                core.log.moved(State::TimeWait, Event::Limit, State::Closed);
                core.block.counters.time_wait_evicted += 1;
                return;
            }
        }
        let held = core.tables.held() as u64;
        core.block.counters.time_wait_peak = core.block.counters.time_wait_peak.max(held);
    }

    /// A segment for a pair that is held.
    pub(super) fn on_time_wait(&mut self, key: u32, frame: Frame, seg: &TcpFrame, hash: u64) {
        let core = &mut self.core;
        let Some(wait) = core.tables.wait(key) else {
            self.port.free(frame);
            return;
        };
        if wait.traced {
            let len = seg.payload_len();
            core.trace(wait.tuple, State::TimeWait, Happening::Received { header: seg.header, len });
        }
        let verdict = wait.on_segment(&seg.header, seg.payload_len());
        match verdict {
            WaitVerdict::AckAndRestart => {
                core.log.moved(State::TimeWait, Event::Fin, State::TimeWait);
                let expires = core.now + core.cfg.time_wait;
                core.tables.restart_wait(key, expires);
                self.acknowledge_again(&wait, frame, seg);
            }
            WaitVerdict::Ack => {
                if seg.header.flags.syn() {
                    core.log.moved(State::TimeWait, Event::Syn, State::TimeWait);
                }
                core.block.counters.drop_frame(DropReason::OutOfWindow);
                if !core.tables.may_answer(key, core.cfg.challenge_acks, core.now) {
                    core.block.counters.refuse(BudgetKind::TimeWaitPair);
                    self.port.free(frame);
                    return;
                }
                self.acknowledge_again(&wait, frame, seg);
            }
            WaitVerdict::IgnoreReset => {
                core.log.moved(State::TimeWait, Event::Rst, State::TimeWait);
                core.block.counters.drop_frame(DropReason::ResetInTimeWait);
                self.port.free(frame);
            }
            WaitVerdict::Ignore => self.port.free(frame),
            WaitVerdict::Reopen { iss_floor } => {
                if core.listeners.find(&seg.tuple).is_none() {
                    self.acknowledge_again(&wait, frame, seg);
                    return;
                }
                // The pair stays held when the SYN cannot be taken: the peer sends it again.
                let Some(frame) = self.admit(frame, seg) else { return };
                let core = &mut self.core;
                if core.tables.half.is_full() {
                    core.block.counters.drop_frame(DropReason::SynTableFull);
                    self.port.free(frame);
                    return;
                }
                core.tables.end_wait(key);
                core.log.leave(State::TimeWait);
                core.block.counters.time_wait_reopened += 1;
                self.on_syn(frame, seg, hash, Some(iss_floor));
            }
        }
    }

    fn acknowledge_again(&mut self, wait: &TimeWait, frame: Frame, seg: &TcpFrame) {
        let core = &mut self.core;
        if !core.wait_replies.take(&wait.tuple.remote.addr, core.now) {
            core.block.counters.refuse(BudgetKind::TimeWait);
            core.block.counters.drop_frame(DropReason::ReplyBudget);
            self.port.free(frame);
            return;
        }
        let header = wait.ack(&core.secret, core.now);
        let sent = core.send_bare(&mut self.port, frame, seg.l2.reply(), &wait.tuple, &header);
        if sent && wait.traced {
            self.core.trace(wait.tuple, State::TimeWait, Happening::Sent { header, len: 0 });
        }
    }
}

impl Core {
    /// Makes room in a full table: the record that would expire first goes (t05).
    fn evict_oldest(&mut self) {
        if self.tables.evict_wait().is_some() {
            self.log.moved(State::TimeWait, Event::Limit, State::Closed);
            self.block.counters.time_wait_evicted += 1;
        }
    }

    /// Expires the records that a wheel gave out.
    pub(super) fn expire_waits(&mut self, due: &[u32]) {
        if !due.is_empty() {
            self.block.worker.expiry_batch.record(&BATCH_BOUNDS, due.len() as u64);
        }
        let (now, trace) = (self.now, &mut self.trace);
        let mut expired = 0;
        self.tables.expire_waits(due, now, |w| {
            expired += 1;
            if w.traced
                && let Some(trace) = trace
            {
                let m = Move { from: State::TimeWait, event: Event::TwoMsl, to: State::Closed };
                trace.add(now, w.tuple, State::Closed, Happening::Moved(m));
            }
        });
        self.log.moved_together(State::TimeWait, Event::TwoMsl, State::Closed, expired);
        self.block.counters.time_wait_expired += expired;
    }
}
