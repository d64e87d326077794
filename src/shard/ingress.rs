//! The way of a received burst: parse and hash all, look all up, then process one after the other.
//!
//! ```text
//!  each: parse, hash, ask for its bucket of the index ─▶ each: ask for the record the bucket names ─▶ each: process
//! ```
//!
//! The stages exist so that the cache misses of one burst overlap: nothing waits for memory before the last of them, and
//! by then what up to 64 frames need is on its way.
//!
//! A segment that no record here has a use for goes once round the other workers: where steering is not by flow (veth, a
//! changed RSS table) a connection's segments, and successive connections of one pair, land at different ones.

use super::index::Handle;
use super::mailbox::Route;
use super::tables::Found;
use super::{Core, Drain, Shard};
use crate::drop::DropReason;
use crate::metrics::block::ResetCause;
use crate::metrics::gauges::BudgetKind;
use crate::port::{Frame, Port};
use crate::tcp::conn::Env;
use crate::tcp::state::{Event, State};
use crate::tcp::syn_rcvd::HalfVerdict;
use crate::tcp::time_wait::WaitVerdict;
use crate::wire::{self, Flags, Header, IcmpError, IcmpKind, Options, Parsed, SeqNum, TcpFrame};

/// Frames a worker passes on per second. Each costs a copy of some 1.5 kB and another worker's time, so a flood of stray
/// segments must not be multiplied by the number of workers. Higher: it is; lower: flows that a NIC without symmetric
/// RSS delivers elsewhere are slowed down, though their peers send again.
pub(super) const FORWARDS_PER_SECOND: u32 = 20_000;

/// A frame between the stages, and the place for one.
#[derive(Default)]
pub(super) struct Staged {
    /// Until it is processed.
    frame: Option<Frame>,
    segment: TcpFrame,
    hash: u64,
    /// The record that it is most likely for.
    likely: Option<Handle>,
}

impl<P: Port> Shard<P> {
    /// Takes a burst from the port and processes it. Returns how many frames there were.
    pub(super) fn receive(&mut self) -> usize {
        self.burst.clear();
        let n = self.port.rx(&mut self.burst);
        if n == 0 {
            return 0;
        }
        let mut places = std::mem::take(&mut self.staged);
        let mut used = 0;
        for frame in self.burst.drain(..) {
            used += usize::from(stage(&mut self.port, &mut self.core, frame, true, &mut places[used]));
        }
        let staged = &mut places[..used];
        // What is on its way by now says where the records are.
        for s in &mut *staged {
            s.likely = self.core.tables.prefetch_record(s.hash);
        }
        let route = self.mailbox.all_others();
        for s in staged {
            if let Some(frame) = s.frame.take() {
                self.process(frame, s, route);
            }
        }
        self.staged = places;
        n
    }

    /// Processes frames that other workers passed on, up to `budget`. Returns how many.
    pub(super) fn receive_forwarded(&mut self, budget: usize) -> usize {
        let mut n = 0;
        while n < budget {
            let Some(f) = self.mailbox.forwarded() else { break };
            n += 1;
            self.core.block.counters.misdirected_in += 1;
            let bytes = &f.bytes[..usize::from(f.len).min(f.bytes.len())];
            let Some(mut frame) = self.port.alloc() else {
                self.core.block.counters.drop_frame(DropReason::NoFrame);
                continue;
            };
            let Some(room) = self.port.buffer(&mut frame).get_mut(..bytes.len()) else {
                self.port.free(frame);
                self.core.block.counters.drop_frame(DropReason::NoFrame);
                continue;
            };
            room.copy_from_slice(bytes);
            self.port.set_len(&mut frame, bytes.len());
            let mut s = Staged::default();
            if stage(&mut self.port, &mut self.core, frame, false, &mut s)
                && let Some(frame) = s.frame.take()
            {
                let route = Route { hops: f.route.hops.saturating_sub(1), ..f.route };
                self.process(frame, &s, route);
            }
        }
        n
    }

    fn process(&mut self, frame: Frame, s: &Staged, route: Route) {
        let (seg, hash) = (&s.segment, s.hash);
        let found = self.core.tables.find_likely(hash, s.likely, &seg.tuple);
        let alone = self.mailbox.other_workers() == 0;
        if !alone && !self.core.fits(found, seg) && self.seek_elsewhere(&frame, route) {
            self.port.free(frame);
            return;
        }
        match found {
            Found::Conn(key) => self.on_conn(key, frame, seg, hash),
            Found::Half(key) => self.on_half_open(key, frame, seg, hash),
            Found::Wait(key) => self.on_time_wait(key, frame, seg, hash),
            Found::Nothing => self.on_nothing(frame, seg, hash, route),
        }
    }

    /// Passes on a frame that the record of its pair here has no use for, or that may be of a handshake of ours and came
    /// before its time: it may belong to another incarnation, whose SYN landed at another worker. It comes back here when
    /// nobody has a use for it. Returns whether it is on its way; if not, the answer is to be given here.
    pub(super) fn seek_elsewhere(&mut self, frame: &Frame, route: Route) -> bool {
        if self.mailbox.other_workers() == 0 {
            return false;
        }
        if route.returns {
            return route.hops > 0 && self.pass_on(frame, route);
        }
        if !self.core.forwards.take(self.core.now) {
            self.core.block.counters.refuse(BudgetKind::Forward);
            return false;
        }
        let on_its_way = self.mailbox.forward(self.port.bytes(frame), self.mailbox.and_back());
        self.core.block.counters.misdirected_out += u64::from(on_its_way);
        on_its_way
    }

    /// A segment for a connection.
    pub(super) fn on_conn(&mut self, key: u32, frame: Frame, seg: &TcpFrame, hash: u64) {
        let draining = self.core.drains();
        let Some(mut visit) = self.core.visit(key) else {
            self.port.free(frame);
            return;
        };
        let bytes = self.port.bytes(&frame);
        let payload = bytes.get(usize::from(seg.payload.start)..usize::from(seg.payload.end)).unwrap_or(&[]);
        if let Some(seq) = visit.hear(seg, payload, draining) {
            self.reply_reset(frame, seg, seq, Flags::RST, SeqNum::new(0), ResetCause::HalfOpen);
            self.core.settle(key);
            return;
        }
        if visit.leaves_errands() {
            self.core.called(key);
            self.settle_hashed(key, Some(frame), Some(hash));
            return;
        }
        let more = visit.say(&mut self.port, Some(frame));
        let leave = visit.leave(more);
        self.depart(key, more, leave, Some(hash));
    }

    /// A segment that belongs to nothing here.
    fn on_nothing(&mut self, frame: Frame, seg: &TcpFrame, hash: u64, route: Route) {
        let f = seg.header.flags;
        if f.syn() && !f.ack() && !f.rst() {
            self.on_syn(frame, seg, hash, None);
            return;
        }
        let Some(frame) = self.try_cookie(frame, seg, route, None) else { return };
        if route.hops > 0 && self.pass_on(&frame, route) {
            self.port.free(frame);
            return;
        }
        if self.core.drain == Drain::No && self.core.listeners.find(&seg.tuple).is_some() {
            self.on_listen(frame, seg);
        } else {
            self.answer_closed(frame, seg, ResetCause::NoConnection);
        }
    }

    /// What a listener makes of anything but a SYN (§3.10.7.2): a RST is ignored, an ACK answered by a RST, the rest
    /// dropped in silence.
    fn on_listen(&mut self, frame: Frame, seg: &TcpFrame) {
        let f = seg.header.flags;
        let log = &mut self.core.log;
        if f.rst() {
            log.moved(State::Listen, Event::Rst, State::Listen);
        } else if f.fin() && !f.ack() {
            log.moved(State::Listen, Event::Fin, State::Listen);
        }
        if f.rst() || f.ack() {
            self.answer_closed(frame, seg, ResetCause::NoConnection);
        } else {
            self.core.block.counters.drop_frame(DropReason::NoConnection);
            self.port.free(frame);
        }
    }

    /// Passes a frame on to the next worker. Returns whether it is on its way (or was dropped and counted).
    fn pass_on(&mut self, frame: &Frame, route: Route) -> bool {
        if !self.core.forwards.take(self.core.now) {
            self.core.block.counters.refuse(BudgetKind::Forward);
            self.core.block.counters.drop_frame(DropReason::MisdirectedBudget);
        } else if self.mailbox.forward(self.port.bytes(frame), route) {
            self.core.block.counters.misdirected_out += 1;
        } else {
            self.core.block.counters.drop_frame(DropReason::MailboxFull);
        }
        true
    }

    /// The answer of a `CLOSED` port (RFC 9293 §3.10.7.1), within the budget.
    pub(super) fn answer_closed(&mut self, frame: Frame, seg: &TcpFrame, cause: ResetCause) {
        let h = &seg.header;
        if h.flags.rst() {
            self.core.block.counters.drop_frame(DropReason::StrayReset);
            self.port.free(frame);
        } else if h.flags.ack() {
            self.core.block.counters.drop_frame(DropReason::NoConnection);
            self.reply_reset(frame, seg, h.ack, Flags::RST, SeqNum::new(0), cause);
        } else {
            self.core.block.counters.drop_frame(DropReason::NoConnection);
            let ack = h.seq + seg.seg_len();
            self.reply_reset(frame, seg, SeqNum::new(0), Flags::RST | Flags::ACK, ack, cause);
        }
    }

    /// Answers a segment by a RST, in its own frame, within the budget.
    pub(super) fn reply_reset(
        &mut self,
        frame: Frame,
        seg: &TcpFrame,
        seq: SeqNum,
        flags: Flags,
        ack: SeqNum,
        cause: ResetCause,
    ) {
        if !self.core.stray_replies.take(&seg.tuple.remote.addr, self.core.now) {
            self.core.block.counters.refuse(BudgetKind::Reset);
            self.core.block.counters.drop_frame(DropReason::ReplyBudget);
            self.port.free(frame);
            return;
        }
        let header = Header { seq, ack, flags, window: 0, options: Options::default() };
        if self.core.send_bare(&mut self.port, frame, seg.l2.reply(), &seg.tuple, &header) {
            self.core.block.counters.resets_sent[cause as usize] += 1;
        }
    }
}

/// Parses a frame, hashes its tuple, and asks for its place in the index; what is no TCP segment ends here. `from_port` is
/// whether it was just received, and not passed on by a worker that has seen it. Returns whether it is in `place` now.
#[inline]
fn stage<P: Port>(port: &mut P, core: &mut Core, frame: Frame, from_port: bool, place: &mut Staged) -> bool {
    if wire::parse_plain(port.bytes(&frame), port.checksums(), &mut place.segment).is_some() {
        if core.capture.is_some() && from_port {
            core.show_capture(port.bytes(&frame), Some(&place.segment.tuple), false);
        }
        place.take(core, frame);
        return true;
    }
    stage_any(port, core, frame, from_port, place)
}

impl Staged {
    /// The segment is there; the rest of what the next stages need.
    #[inline]
    fn take(&mut self, core: &Core, frame: Frame) {
        self.hash = core.tables.hash(&self.segment.tuple);
        core.tables.prefetch_place(self.hash);
        self.frame = Some(frame);
        self.likely = None;
    }
}

/// The same for a frame that is not of the plain shape.
#[inline(never)]
fn stage_any<P: Port>(
    port: &mut P,
    core: &mut Core,
    frame: Frame,
    from_port: bool,
    place: &mut Staged,
) -> bool {
    let parsed = wire::parse_any(port.bytes(&frame), port.checksums());
    if core.capture.is_some() && from_port {
        let tuple = match &parsed {
            Ok(Parsed::Tcp(segment)) => Some(&segment.tuple),
            Ok(Parsed::Icmp(e)) => Some(&e.tuple),
            Err(_) => None,
        };
        core.show_capture(port.bytes(&frame), tuple, false);
    }
    match parsed {
        Ok(Parsed::Tcp(segment)) => {
            place.segment = segment;
            place.take(core, frame);
            return true;
        }
        Ok(Parsed::Icmp(e)) => {
            port.free(frame);
            core.on_icmp(&e);
        }
        Err(reason) => {
            port.free(frame);
            core.block.counters.drop_frame(reason);
        }
    }
    false
}

impl Core {
    /// Whether a segment says something to the record that was found for its pair. A SYN is judged where it lands, and
    /// a connection answers for itself.
    fn fits(&self, found: Found, seg: &TcpFrame) -> bool {
        let h = &seg.header;
        match found {
            Found::Conn(_) | Found::Nothing => true,
            Found::Half(_) | Found::Wait(_) if h.flags.syn() => true,
            Found::Half(key) => self.tables.half.get(key, self.now).is_none_or(|half| {
                match half.on_segment(h, seg.payload_len(), &self.cfg) {
                    HalfVerdict::SynAckAgain | HalfVerdict::Promote | HalfVerdict::Remove => true,
                    HalfVerdict::Ack | HalfVerdict::Reset(_) | HalfVerdict::Drop(_) => false,
                }
            }),
            Found::Wait(key) => {
                self.tables.wait(key).is_none_or(|wait| match wait.on_segment(h, seg.payload_len()) {
                    WaitVerdict::AckAndRestart | WaitVerdict::Ignore | WaitVerdict::Reopen { .. } => true,
                    WaitVerdict::Ack | WaitVerdict::IgnoreReset => false,
                })
            }
        }
    }

    /// An ICMP error: believed only when it quotes a sequence number in flight (RFC 5927 §4.1). What it makes a connection
    /// say is said later in the turn.
    fn on_icmp(&mut self, e: &IcmpError) {
        let hash = self.tables.hash(&e.tuple);
        let key = match self.tables.find(hash, &e.tuple) {
            Found::Conn(key) => {
                self.tables.conns.get(key).filter(|c| c.quotes_flight(e.seq)).map(|_| Some(key))
            }
            Found::Half(key) => self.tables.half.get(key, self.now).filter(|r| r.iss == e.seq).map(|_| None),
            Found::Wait(_) | Found::Nothing => None,
        };
        let Some(key) = key else {
            self.block.counters.drop_frame(DropReason::IcmpNotOurs);
            return;
        };
        let counters = &mut self.block.counters;
        match e.kind {
            IcmpKind::TooBig { .. } => counters.icmp_too_big += 1,
            IcmpKind::Hard => counters.icmp_hard += 1,
            IcmpKind::Soft => counters.icmp_soft += 1,
        }
        let Some((key, mut conn)) = key.and_then(|k| self.tables.conns.live(k).map(|c| (k, c))) else {
            return;
        };
        let mut env = Env { now: self.now, cfg: &self.cfg, pool: &mut self.pool, log: &mut self.log };
        let has_effect = match e.kind {
            IcmpKind::TooBig { mtu } => {
                let lowered = conn.packet_too_big(&mut env, e.seq, mtu);
                counters.path_mtu_lowered += u64::from(lowered);
                lowered
            }
            IcmpKind::Hard => conn.unreachable(&mut env),
            IcmpKind::Soft => false,
        };
        if has_effect {
            self.queue(key);
        }
        self.settle(key);
    }
}
