//! SYN cookies in the loop: when they are sent, and where one that comes back becomes a connection.
//!
//! A segment without a record is tried as a cookie before it is passed on to another worker, but only while a cookie of
//! this worker can be out: a flood of ACKs costs a hash each then, and nothing at all otherwise.

use super::mailbox::Route;
use super::trace::Happening;
use super::{Core, Drain, Shard};
use crate::drop::DropReason;
use crate::port::{Frame, Port};
use crate::tcp::conn::{Conn, ConnFlags};
use crate::tcp::state::{Event, State};
use crate::tcp::syn_rcvd::SynRcvd;
use crate::tcp::syncookie::CookieVerdict;
use crate::wire::TcpFrame;

impl Core {
    /// Whether half-open records have reached the share of their table from which SYNs are answered by cookies.
    pub(super) fn wants_cookie(&self) -> bool {
        let half = &self.tables.half;
        self.cfg.syn_cookies.is_some_and(|percent| {
            half.is_full() || half.len() * 100 >= half.capacity() * usize::from(percent)
        })
    }
}

impl<P: Port> Shard<P> {
    /// Answers a SYN for a listener and keeps nothing.
    pub(super) fn answer_by_cookie(&mut self, frame: Frame, seg: &TcpFrame, listener: u16) {
        let core = &mut self.core;
        let header = core.cookies.answer(seg, listener, &core.cfg, &core.secret, core.now);
        let traced = core.trace.as_ref().is_some_and(|t| t.wants(&seg.tuple));
        if traced {
            let len = seg.payload_len();
            core.trace(seg.tuple, State::Listen, Happening::Received { header: seg.header, len });
        }
        if core.send_bare(&mut self.port, frame, seg.l2.reply(), &seg.tuple, &header) {
            core.block.counters.cookies_sent += 1;
            if traced {
                core.trace(seg.tuple, State::Listen, Happening::Sent { header, len: 0 });
            }
        }
    }

    /// Tries a segment as one that brings a cookie back; `route` is how it came here. `instead_of` is a half-open record of the same pair that the
    /// connection takes the place of. Returns the frame if it is still to be dealt with.
    pub(super) fn try_cookie(
        &mut self,
        frame: Frame,
        seg: &TcpFrame,
        route: Route,
        instead_of: Option<u32>,
    ) -> Option<Frame> {
        let core = &mut self.core;
        let f = seg.header.flags;
        if !core.cookies.out(core.now) || !f.ack() || f.syn() || f.rst() {
            return Some(frame);
        }
        if matches!(core.drain, Drain::CuttingOff(_) | Drain::Over) {
            return Some(frame);
        }
        let Some(listener) = core.listeners.find(&seg.tuple) else { return Some(frame) };
        match core.cookies.check(seg, listener, &core.cfg, &core.secret, core.now) {
            CookieVerdict::Good(half) => {
                self.open_by_cookie(frame, seg, &half, instead_of);
                None
            }
            CookieVerdict::Early => {
                // It may only look so, and belong to a connection of another worker.
                if !self.seek_elsewhere(&frame, route) {
                    // Without a record the window is the first byte.
                    self.core.block.counters.drop_frame(DropReason::OutOfWindow);
                }
                self.port.free(frame);
                None
            }
            CookieVerdict::Unknown => {
                core.block.counters.cookies_refused += 1;
                Some(frame)
            }
        }
    }

    fn open_by_cookie(&mut self, frame: Frame, seg: &TcpFrame, half: &SynRcvd, instead_of: Option<u32>) {
        let core = &mut self.core;
        if core.tables.conns.is_full() {
            // As for a half-open record: the peer's data gives it another chance.
            core.block.counters.drop_frame(DropReason::ConnTableFull);
            self.port.free(frame);
            return;
        }
        let held = instead_of.and_then(|key| core.tables.remove_half(key, core.now));
        let mut conn = Conn::from_half_open(half, &core.cfg, &core.secret, core.now);
        conn.flags.set(ConnFlags::COOKIE);
        if core.trace.as_ref().is_some_and(|t| t.wants(&seg.tuple)) {
            conn.flags.set(ConnFlags::TRACED);
        }
        let Some(key) = core.tables.add_conn(&half.tuple, conn) else {
            if held.is_some() {
                core.log.leave(State::SynReceived);
            }
            core.block.counters.drop_frame(DropReason::ConnTableFull);
            self.port.free(frame);
            return;
        };
        core.block.counters.cookies_accepted += 1;
        if held.is_none() {
            core.log.enter(State::Listen);
            core.log.moved(State::Listen, Event::Syn, State::SynReceived);
        }
        let hash = self.core.tables.hash(&seg.tuple);
        self.on_conn(key, frame, seg, hash);
    }
}
