//! What a connection has to say now, one segment at a time (RFC 9293 §3.8, §3.7.4, RFC 5681, RFC 7323).
//!
//! [`Live::next_segment`] is asked until it answers `None`. It assumes that what it returns is sent: the caller makes
//! sure of a frame before it asks. Payload is named by its place in the send buffer; the caller copies it straight
//! into the frame ([`Live::copy_payload`]).

use super::chunk::ChunkPool;
use super::config::TcpConfig;
use super::conn::{ConnFlags, Env, Live};
use super::ecn::SETUP;
use super::state::State;
use crate::time::Time;
use crate::wire::tcp::{MAX_SACK_BLOCKS, Timestamps};
use crate::wire::{Flags, Header, Options, SeqNum};

/// Why a segment was sent again: the `kind` label of `finwheel_retransmissions_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Retransmission {
    /// SYN of an active open.
    Syn,
    /// SYN-ACK of a half-open connection.
    SynAck,
    /// Data, after a timeout, or in smaller segments because the path does not take larger ones.
    DataTimeout,
    /// Data, after three duplicate acknowledgments.
    DataFast,
    /// A segment whose only new sequence number is the FIN.
    Fin,
    /// A zero-window or keep-alive probe.
    Probe,
    /// A tail loss probe that is no new data.
    TailProbe,
}

impl Retransmission {
    /// All kinds in counter order.
    pub const ALL: [Self; 7] =
        [Self::Syn, Self::SynAck, Self::DataTimeout, Self::DataFast, Self::Fin, Self::Probe, Self::TailProbe];
    /// The value of the `kind` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::SynAck => "syn_ack",
            Self::DataTimeout => "data_timeout",
            Self::DataFast => "data_fast",
            Self::Fin => "fin",
            Self::Probe => "probe",
            Self::TailProbe => "tail_probe",
        }
    }
}

/// A segment to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Header and options.
    pub header: Header,
    /// Where the payload begins in the send buffer.
    pub offset: usize,
    /// Bytes of payload.
    pub len: usize,
    /// Set when sequence numbers go out again.
    pub retransmission: Option<Retransmission>,
    /// Set when it is a challenge ACK (RFC 5961).
    pub challenge: bool,
}

/// What all segments of one visit have in common.
struct View {
    /// Sequence number of the first byte in the send buffer.
    base: SeqNum,
    /// One past the last byte in the send buffer: the FIN's number.
    end: SeqNum,
    /// The service has closed, and our FIN is not acknowledged.
    fin_due: bool,
    /// Options of every segment.
    options: Options,
    /// Bytes of payload beside them.
    room: usize,
}

/// A piece of the stream that becomes a segment.
#[derive(Clone, Copy)]
struct Piece {
    seq: SeqNum,
    len: usize,
    fin: bool,
    again: Option<Retransmission>,
}

impl Live<'_> {
    /// Whether [`Live::next_segment`] is to be asked: `false` when nothing is due, as at the end of most visits.
    #[inline]
    pub fn has_to_say(&mut self) -> bool {
        const DUE: u64 = ConnFlags::ACK_NOW | ConnFlags::SEND_SYN | ConnFlags::PROBE;
        if self.flags.has(DUE) {
            return true;
        }
        match self.state() {
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::FinWait2
            | State::TimeWait => false,
            State::Established | State::FinWait1 | State::CloseWait | State::Closing | State::LastAck => {
                !self.stream_is_quiet()
            }
        }
    }

    /// Whether nothing of the stream is due, neither new nor again: all was sent, the FIN too, and nothing is known to be lost.
    #[inline]
    fn stream_is_quiet(&mut self) -> bool {
        const AGAIN: u64 = ConnFlags::RETRANSMIT | ConnFlags::TAIL_PROBE | ConnFlags::FORCE;
        let end = self.data_end() + u32::from(self.fin_due());
        let quiet = self.flight.snd_nxt == self.snd_max
            && self.snd_max.at_or_after(end)
            && !self.flags.has(AGAIN)
            && !self.flight.recovery.by_scoreboard();
        if quiet {
            self.flags.clear(ConnFlags::LIMITED);
        }
        quiet
    }

    /// The service has closed, and our FIN is not acknowledged.
    fn fin_due(&self) -> bool {
        !self.state().can_send() && !self.flags.has(ConnFlags::FIN_ACKED)
    }

    /// The next segment that is due, or `None`.
    pub fn next_segment(&mut self, env: &mut Env<'_>) -> Option<Outgoing> {
        let mut out = match self.state() {
            State::Closed | State::Listen => None,
            State::SynSent | State::SynReceived => self.next_syn(env),
            State::Established | State::FinWait1 | State::CloseWait | State::Closing | State::LastAck => {
                if self.stream_is_quiet() {
                    self.next_bare(env)
                } else {
                    self.next_data(env).or_else(|| self.next_bare(env))
                }
            }
            State::FinWait2 | State::TimeWait => self.next_bare(env),
        }?;
        if out.header.flags.ack() {
            self.flags.clear(ConnFlags::ACK_NOW);
            self.flight.ack_at = Time::NEVER;
            self.flight.unacked_segments = 0;
            self.flight.last_ack_sent = self.rcv_nxt;
            self.flight.twice.1 = self.flight.twice.0;
        }
        if out.retransmission.is_some() {
            self.flight.rtx_ts = self.ts_val(env.now);
        }
        self.mark(&mut out);
        Some(out)
    }

    /// Copies the payload of a segment to where it goes in a frame. Returns how many bytes that were.
    #[must_use]
    pub fn copy_payload(&self, pool: &ChunkPool, out: &Outgoing, into: &mut [u8]) -> usize {
        let n = out.len.min(into.len());
        self.flight.sndbuf.copy_out(pool, out.offset, &mut into[..n])
    }

    fn next_syn(&mut self, env: &Env<'_>) -> Option<Outgoing> {
        if !self.flags.take(ConnFlags::SEND_SYN) {
            // A half-open connection may owe a challenge ACK.
            return if self.state() == State::SynReceived { self.next_bare(env) } else { None };
        }
        let again = self.snd_max.after(self.snd_una);
        self.flight.snd_nxt = self.snd_una + 1;
        self.snd_max = self.snd_max.max(self.flight.snd_nxt);
        if !again {
            self.time_from(self.snd_una, env.now);
            self.conn.progress_at.set(env.now);
        }
        self.conn.rtx_at.set(env.now + self.rtt.rto());
        let syn_ack = self.state() == State::SynReceived;
        let scale = !syn_ack || self.flags.has(ConnFlags::SCALED);
        let header = Header {
            seq: self.snd_una,
            ack: if syn_ack { self.rcv_nxt } else { SeqNum::new(0) },
            flags: match (syn_ack, self.flags.has(ConnFlags::ECN_ASKED)) {
                (true, _) => Flags::SYN | Flags::ACK,
                (false, true) => Flags::SYN | SETUP,
                (false, false) => Flags::SYN,
            },
            window: env.cfg.syn_window(self.service),
            options: Options {
                mss: Some(env.cfg.offered_mss(self.is_v4())),
                window_scale: scale.then(|| env.cfg.window_scale(self.service)),
                sack_permitted: !syn_ack || self.flags.has(ConnFlags::SACK),
                timestamps: (!syn_ack || self.flags.has(ConnFlags::TIMESTAMPS))
                    .then(|| Timestamps { val: self.ts_val(env.now), ecr: self.ts_recent }),
                ..Options::default()
            },
        };
        let kind = if syn_ack { Retransmission::SynAck } else { Retransmission::Syn };
        Some(Outgoing { header, offset: 0, len: 0, retransmission: again.then_some(kind), challenge: false })
    }

    /// Data and FIN: first what is to be sent again, then what is new.
    fn next_data(&mut self, env: &mut Env<'_>) -> Option<Outgoing> {
        let options = self.options(env);
        let view = View {
            base: self.data_base(),
            end: self.data_end(),
            fin_due: self.fin_due(),
            room: self.room(&options),
            options,
        };
        self.next_lost(env, &view)
            .or_else(|| self.next_tail_probe(env, &view))
            .or_else(|| self.next_in_order(env, &view, false))
            .or_else(|| self.next_rescue(env, &view))
    }

    /// What is known to be lost: one hole at once when a loss is found (RFC 5681 §3.2, RFC 6675 §5 step 4.3),
    /// then, with SACK, what was sent again in vain, and the others, as far as the window lets them out (`NextSeg` rule 1).
    fn next_lost(&mut self, env: &mut Env<'_>, v: &View) -> Option<Outgoing> {
        if self.flags.take(ConnFlags::RETRANSMIT) && self.in_flight() > 0 {
            let lost_again = self.flight.scoreboard.lost_again(env.pool);
            let first = || self.flight.scoreboard.next_hole(env.pool, v.base, self.snd_max);
            let hole = lost_again.or_else(first)?;
            self.conn.rtx_at.set(env.now + self.rtt.rto());
            return self.repair_watched(env, v, hole, u32::MAX);
        }
        if !self.flight.recovery.by_scoreboard() || self.new_data_first() {
            return None;
        }
        if let Some(hole) = self.flight.scoreboard.lost_again(env.pool) {
            return self.repair_watched(env, v, hole, self.recovery_room());
        }
        let hole = self.flight.scoreboard.next_hole(
            env.pool,
            self.flight.recovery.high_rxt,
            self.flight.recovery.lost_edge,
        )?;
        self.repair_watched(env, v, hole, self.recovery_room())
    }

    /// Sends the beginning of a hole again, and sees to it that its loss is noticed.
    fn repair_watched(
        &mut self,
        env: &mut Env<'_>,
        v: &View,
        hole: (SeqNum, SeqNum),
        most: u32,
    ) -> Option<Outgoing> {
        let out = self.repair(env, v, hole, most)?;
        if self.flight.recovery.by_scoreboard() {
            let end = hole.0 + out.header.seg_len(out.len);
            self.flight.scoreboard.note_resent(env.pool, hole.0, end, env.now.micros() as u32, self.snd_max);
        }
        Some(out)
    }

    /// The tail loss probe that is due: one segment of new data, beyond the congestion window if need be, or the last one
    /// again (RFC 8985 §7.3).
    fn next_tail_probe(&mut self, env: &mut Env<'_>, v: &View) -> Option<Outgoing> {
        if !self.flags.take(ConnFlags::TAIL_PROBE) || self.in_flight() == 0 {
            return None;
        }
        let fresh = self.next_in_order(env, v, true);
        let again = fresh.is_none();
        let out = match fresh {
            Some(out) => out,
            None => self.repair(env, v, (tail_from(v, self.snd_max), self.snd_max), u32::MAX)?,
        };
        self.probe_sent(again);
        Some(Outgoing { retransmission: again.then_some(Retransmission::TailProbe), ..out })
    }

    /// With nothing known to be lost and nothing new to send, once a recovery the very last segment, behind which nothing
    /// comes that could prove it lost (`NextSeg` rule 4; rule 3 is the reordering timer's).
    fn next_rescue(&mut self, env: &mut Env<'_>, v: &View) -> Option<Outgoing> {
        if !self.flight.recovery.by_scoreboard() || self.flight.recovery.rescued {
            return None;
        }
        let (first, end) = self.flight.scoreboard.last_hole(env.pool, self.snd_una, self.snd_max)?;
        if end.at_or_before(self.flight.recovery.high_rxt.max(self.flight.recovery.lost_edge)) {
            return None;
        }
        let high_rxt = self.flight.recovery.high_rxt;
        let out = self.repair(env, v, (first.max(tail_from(v, end)), end), self.recovery_room())?;
        // A rescue does not move HighRxt (RFC 6675 §4), and proves nothing: the original may be on its way.
        self.flight.recovery.high_rxt = high_rxt;
        self.flight.recovery.rescued = true;
        // So that it is known for a probe when it is reported to have come twice.
        self.flight.recovery.probe_end = end;
        Some(out)
    }

    /// Bytes that recovery by SACK may send now.
    fn recovery_room(&self) -> u32 {
        self.flight.congestion.window().saturating_sub(self.flight.recovery.pipe)
    }

    /// Sends the beginning of a hole again, if that is at most `most` bytes.
    fn repair(&mut self, env: &mut Env<'_>, v: &View, hole: (SeqNum, SeqNum), most: u32) -> Option<Outgoing> {
        let (seq, hole_end) = hole;
        let len = (hole_end.min(v.end).bytes_since(seq) as usize).min(v.room);
        let fin = v.fin_due && seq + len as u32 == v.end && hole_end.after(v.end);
        let used = len as u32 + u32::from(fin);
        if used == 0 || used > most {
            return None;
        }
        self.flags.clear(ConnFlags::TIMING);
        self.flight.recovery.high_rxt = self.flight.recovery.high_rxt.max(seq + used);
        self.count_recovery(used);
        if self.rtx_at.get() == Time::NEVER || seq == self.snd_una {
            self.conn.rtx_at.set(env.now + self.rtt.rto());
        }
        let kind = if len == 0 { Retransmission::Fin } else { self.flight.recovery.kind() };
        Some(self.segment(env, v, Piece { seq, len, fin, again: Some(kind) }))
    }

    /// What is next at `snd_nxt`: new, or again after a timeout; what the peer has by then is jumped over. As a `probe` a
    /// segment goes out whatever the congestion window and its own size.
    fn next_in_order(&mut self, env: &mut Env<'_>, v: &View, probe: bool) -> Option<Outgoing> {
        let mut hole_end = None;
        if self.flight.snd_nxt.before(self.snd_max) && !self.flight.scoreboard.is_empty() {
            let hole = self.flight.scoreboard.next_hole(env.pool, self.flight.snd_nxt, self.snd_max);
            self.flight.snd_nxt = hole.map_or(self.snd_max, |h| h.0);
            hole_end = hole.map(|h| h.1);
        }
        if self.flight.snd_nxt.after(v.end) {
            self.flags.clear(ConnFlags::LIMITED);
            return None;
        }
        let first = self.in_flight() == 0;
        let offset = self.flight.snd_nxt - v.base;
        let unsent = self.flight.sndbuf.len() - offset as usize;
        if first && unsent > 0 && env.now.since(self.progress_at.get()) > self.rtt.rto() {
            self.flight.congestion.restart();
        }
        let room = if probe { v.room as u32 } else { 0 };
        let may = self.congestion_window().saturating_sub(self.outstanding(env, offset)).max(room);
        let mut usable = self.snd_wnd.saturating_sub(offset).min(may) as usize;
        if offset == 0 && self.flags.has(ConnFlags::FORCE) {
            // The peer took back window that it had offered: what was sent into it is its probe (§3.8.6).
            usable = usable.max((self.snd_max - v.base) as usize);
        }
        let here =
            hole_end.map_or(unsent, |e| unsent.min(e.min(v.end).bytes_since(self.flight.snd_nxt) as usize));
        let len = here.min(usable).min(v.room);
        let fin = v.fin_due && len == unsent && hole_end.is_none_or(|e| e.after(v.end));
        let closes_hole = hole_end.is_some() && len == here && len > 0;
        let worth =
            closes_hole || (probe && len > 0) || self.worth_sending(env.cfg, len, unsent, offset, v.room);
        if (fin && len == 0 && unsent > 0) || (!fin && !worth) {
            let by_window = may < self.snd_wnd.saturating_sub(offset) && (may as usize) < unsent;
            if by_window {
                self.flags.set(ConnFlags::LIMITED);
            } else {
                self.flags.clear(ConnFlags::LIMITED);
            }
            return None;
        }
        self.flags.clear(ConnFlags::FORCE);
        let seq = self.flight.snd_nxt;
        let new_end = seq + len as u32 + u32::from(fin);
        let again = seq.before(self.snd_max);
        let kind = if len == 0 { Retransmission::Fin } else { Retransmission::DataTimeout };
        // A timer that runs with nothing in flight is the persist timer's.
        if !again {
            if first {
                self.conn.progress_at.set(env.now);
            }
            self.time_from(seq, env.now);
        }
        self.flight.snd_nxt = new_end;
        self.snd_max = self.snd_max.max(new_end);
        self.count_recovery(new_end - seq);
        if self.rtx_at.get() == Time::NEVER || again || first {
            self.conn.rtx_at.set(env.now + self.rtt.rto());
        }
        if !again && self.may_probe() {
            self.arm_probe(env.now);
        }
        Some(self.segment(env, v, Piece { seq, len, fin, again: again.then_some(kind) }))
    }

    /// Whether the congestion window is what holds the sender back: it had more to send, or it is still doubling and at
    /// least half of it is in use. Only then does an acknowledgment say that the window could be larger.
    pub(super) fn window_limited(&self) -> bool {
        let c = &self.flight.congestion;
        self.flags.has(ConnFlags::LIMITED) || (c.in_slow_start() && self.in_flight() >= c.window() / 2)
    }

    /// Silly-window avoidance and Nagle (§3.8.6.2.1, §3.7.4): full segments, the last piece, or half the largest
    /// window the peer ever offered.
    fn worth_sending(&self, cfg: &TcpConfig, len: usize, unsent: usize, in_flight: u32, room: usize) -> bool {
        if len == 0 {
            return false;
        }
        let full = len >= room;
        let last = len == unsent && (!cfg.nagle || in_flight == 0);
        full || last || len as u32 >= self.max_snd_wnd / 2 || self.flags.has(ConnFlags::FORCE)
    }

    fn segment(&mut self, env: &Env<'_>, v: &View, piece: Piece) -> Outgoing {
        let Piece { seq, len, fin, again: retransmission } = piece;
        let (offset, options) = ((seq - v.base) as usize, v.options);
        let mut flags = Flags::ACK;
        if fin {
            flags = flags | Flags::FIN;
        }
        if len > 0 && offset + len == self.flight.sndbuf.len() {
            flags = flags | Flags::PSH;
        }
        if retransmission.is_some() && fin {
            self.fin_retransmissions = self.fin_retransmissions.saturating_add(1);
        }
        // LAST_ACK too: the service may send its last words and close in one call.
        if len > 0 && retransmission.is_none() && matches!(self.state(), State::CloseWait | State::LastAck) {
            self.flags.set(ConnFlags::HALF_CLOSE);
        }
        self.flags.clear(ConnFlags::CHALLENGE);
        let window = self.advertise(env);
        let header = Header { seq, ack: self.rcv_nxt, flags, window, options };
        Outgoing { header, offset, len, retransmission, challenge: false }
    }

    /// An ACK alone, or a window probe (§3.8.6.1): a segment just left of the window, which the peer must answer with
    /// where it stands.
    fn next_bare(&mut self, env: &Env<'_>) -> Option<Outgoing> {
        let probe = self.flags.take(ConnFlags::PROBE);
        if !probe && !self.flags.has(ConnFlags::ACK_NOW) {
            return None;
        }
        let challenge = self.flags.take(ConnFlags::CHALLENGE) && !probe;
        let seq = if probe { self.snd_una - 1 } else { self.snd_max };
        let options = self.options(env);
        let window = self.advertise(env);
        let header = Header { seq, ack: self.rcv_nxt, flags: Flags::ACK, window, options };
        let retransmission = probe.then_some(Retransmission::Probe);
        Some(Outgoing { header, offset: 0, len: 0, retransmission, challenge })
    }

    /// The RST that ends this connection (§3.10.5): at the next sequence number to be sent, so that it is exactly what
    /// the peer expects or within its window.
    #[must_use]
    pub fn reset_header(&self) -> Header {
        Header {
            seq: self.snd_max,
            ack: self.rcv_nxt,
            flags: Flags::RST | Flags::ACK,
            window: 0,
            options: Options::default(),
        }
    }

    /// Options of a segment of a synchronized connection: timestamps, and what was received out of order (RFC 2018 §4) or twice.
    fn options(&self, env: &Env<'_>) -> Options {
        let mut o = Options::default();
        if self.flags.has(ConnFlags::TIMESTAMPS) {
            o.timestamps = Some(Timestamps { val: self.ts_val(env.now), ecr: self.ts_recent });
        }
        let twice = self.flight.twice.1.after(self.flight.twice.0).then_some(self.flight.twice);
        if self.flags.has(ConnFlags::SACK) && (twice.is_some() || self.flight.rcvbuf.buffered_ooo() > 0) {
            let most = if o.timestamps.is_some() { MAX_SACK_BLOCKS - 1 } else { MAX_SACK_BLOCKS };
            // What came twice (RFC 2883 §4), then the range with the segment that triggered this ACK (RFC 2018 §4).
            let latest = |r: &(SeqNum, SeqNum)| {
                r.0.at_or_before(self.flight.sack_latest) && r.1.after(self.flight.sack_latest)
            };
            let first = self.flight.rcvbuf.ranges(env.pool).find(latest);
            let others = self.flight.rcvbuf.ranges(env.pool).filter(|r| !latest(r));
            for (slot, range) in
                o.sack.iter_mut().zip(twice.into_iter().chain(first).chain(others)).take(most)
            {
                *slot = range;
                o.sack_len += 1;
            }
        }
        o
    }

    /// Payload bytes that fit beside the options: the MSS counts both (RFC 6691).
    fn room(&self, options: &Options) -> usize {
        usize::from(self.mss).saturating_sub(crate::wire::options_len(options))
    }

    /// Times the round trip of the segment at `seq` unless one is being timed.
    fn time_from(&mut self, seq: SeqNum, now: Time) {
        if !self.flags.has(ConnFlags::TIMING) {
            self.flags.set(ConnFlags::TIMING);
            self.timed_seq = seq;
            self.timed_us = now.micros() as u32;
        }
    }
}

/// Where a segment begins that ends at `end`.
fn tail_from(v: &View, end: SeqNum) -> SeqNum {
    let data = end.min(v.end) - v.base;
    v.base + data.saturating_sub(v.room as u32)
}

/// Options a data segment can carry: timestamps and three SACK blocks (RFC 2018 §3). There is room for payload beside.
const MAX_DATA_OPTIONS: usize = 40;
const _: () = assert!(MAX_DATA_OPTIONS < super::config::MIN_MSS as usize);
