//! The record of a connection at rest: sequence variables, windows, deadlines, and the account of its close.
//!
//! It is packed, for there may be a million of them, and lies at one place from the handshake to the end. Its first half is
//! what any segment needs; what is needed only while something is on its way is a [`Flight`](super::flight::Flight). Who is
//! at work on a connection has both, as a [`Live`]. The pair of endpoints lies beside the record, in the width of its family.
//!
//! The behaviour is in the neighbours: [`input`](super::input) takes segments, [`output`](super::output) makes them,
//! [`close`](super::close) is what the service can ask for, [`timers`](super::timers) what time does. Only
//! `Conn::event` changes the state.

use super::chunk::ChunkPool;
use super::config::TcpConfig;
use super::congestion::{Algorithm, Congestion, Resting};
pub use super::conn_flags::ConnFlags;
use super::isn::{Secret, ts_val};
pub use super::live::Live;
use super::packed::{Count, PackedTime, Scales};
use super::record::{Cause, ClosingSpans, Ending, First};
use super::recovery::ReorderingPatience;
use super::rtt::Rtt;
use super::state::{Event, State, Transition, transition};
use super::state_log::StateLog;
use super::syn_rcvd::SynRcvd;
use crate::time::Time;
use crate::wire::{L2, SeqNum, Tuple};

/// What every call into a connection gets from its worker.
pub struct Env<'a> {
    /// Now.
    pub now: Time,
    /// Settings.
    pub cfg: &'a TcpConfig,
    /// The worker's chunks.
    pub pool: &'a mut ChunkPool,
    /// The worker's account of states and transitions.
    pub log: &'a mut StateLog,
}

/// No flight is lent to it.
pub(crate) const AT_REST: u32 = u32::MAX;

/// A connection at rest.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Conn {
    /// Facts.
    pub flags: ConnFlags,

    // Send sequence space (§3.3.1), and receive.
    pub(super) snd_una: SeqNum,
    /// One past the highest sequence number ever sent.
    pub(super) snd_max: SeqNum,
    pub(super) rcv_nxt: SeqNum,
    /// Right edge of the window as advertised; never moves left (§3.8.6.2.2).
    pub(super) rcv_adv: SeqNum,
    pub(super) snd_wnd: u32,
    pub(super) max_snd_wnd: u32,
    pub(super) snd_wl1: SeqNum,
    pub(super) snd_wl2: SeqNum,
    pub(super) ts_recent: u32,
    pub(super) ts_offset: u32,
    /// Number of its flight, or [`AT_REST`].
    pub(crate) flight: u32,
    pub(super) rtt: Rtt,
    /// The byte whose acknowledgment ends the timed round trip, and when it was sent, in microseconds that wrap: what takes
    /// longer than the RTO is not timed.
    pub(super) timed_seq: SeqNum,
    pub(super) timed_us: u32,

    // Deadlines, and what they count from.
    pub(super) rtx_at: PackedTime,
    /// When a loss is looked for before the RTO: by a tail probe, or at the end of the time for reordering.
    pub(super) loss_at: PackedTime,
    pub(super) last_rx: PackedTime,
    /// When `snd_una` last moved, or what is unanswered was first sent.
    pub(super) progress_at: PackedTime,
    /// When it entered its state, or its 2MSL began anew.
    pub(super) state_since: PackedTime,

    state: State,
    pub(super) scales: Scales,
    /// Number of the service that serves it: of its listener, if it has one.
    pub service: u16,
    /// Largest payload plus options of a segment: what was agreed on, or less where the path takes less.
    pub(super) mss: u16,

    // From here on: what only some segments need.
    /// Link layer of what we send.
    pub l2: L2,
    pub(super) challenges: u8,
    /// Budget of ACKs to what is out of place: the second it is for, and how many challenge ACKs and answers to
    /// duplicates were owed in it.
    pub(super) challenge_second: u16,
    pub(super) duplicates: u8,
    /// SYNs sent again; later, keep-alive probes since the peer was last heard.
    pub(super) tries: u8,
    pub(super) patience: ReorderingPatience,
    pub(super) ending: Ending,
    pub(super) fin_retransmissions: u16,
    pub(super) ts_recent_at: PackedTime,
    pub(super) opened_at: PackedTime,
    /// The service's word.
    pub user: u32,
    /// Sequence number of the peer's FIN, in order or not; known by `FIN_SEEN`.
    pub(super) peer_fin_at: SeqNum,
    pub(super) resting: Resting,
    /// Bytes that may be unread at most, as far as the pool has them: grows with the rate of delivery.
    pub(super) rcv_space: u32,
    /// Up to where the service had taken the stream when its rate was last looked at, and when that was, in microseconds.
    pub(super) space_seq: SeqNum,
    pub(super) space_at: u32,
    pub(super) spans: ClosingSpans,
    pub(super) bytes_in: Count,
    pub(super) bytes_out: Count,
}

/// Bytes of a record: with an IPv4 pair, index, wheel and queues it is 256 (`shard/tables.rs`).
const MOST_BYTES: usize = 216;
const _: () = assert!(size_of::<Conn>() <= MOST_BYTES && align_of::<Conn>() == 4);
/// With the pair before it, what any segment needs is two cache lines.
const _: () = assert!(std::mem::offset_of!(Conn, l2) + 12 <= 128);

/// How a connection is opened from here.
#[derive(Clone, Copy, Debug)]
pub struct ActiveOpen {
    /// Its name.
    pub tuple: Tuple,
    /// Link layer of what we send.
    pub l2: L2,
    /// Number of the service.
    pub service: u16,
    /// The service's word.
    pub user: u32,
}

impl Conn {
    /// A connection opened from here, about to send its SYN.
    #[must_use]
    pub fn connect(open: &ActiveOpen, secret: &Secret, env: &mut Env<'_>) -> Self {
        let iss = secret.isn(&open.tuple, env.now);
        let mut c = Self::blank(open.tuple.is_v4(), open.l2, iss, env.cfg, env.now);
        c.service = open.service;
        c.user = open.user;
        c.ts_offset = secret.ts_offset(&open.tuple);
        c.scales = Scales::new(0, env.cfg.window_scale(c.service));
        c.flags.set(ConnFlags::ACTIVE | ConnFlags::SEND_SYN);
        if env.cfg.ecn_outgoing {
            c.flags.set(ConnFlags::ECN_ASKED);
        }
        c.event(Event::ActiveOpen, env);
        c
    }

    /// The connection that a half-open record becomes when its ACK arrives; the ACK is then given to
    /// [`Live::on_segment`], which completes the handshake.
    #[must_use]
    pub fn from_half_open(half: &SynRcvd, cfg: &TcpConfig, secret: &Secret, now: Time) -> Self {
        let v4 = half.tuple.is_v4();
        let mut c = Self::blank(v4, half.l2, half.iss, cfg, now);
        c.state = State::SynReceived;
        c.service = half.listener;
        c.snd_max = half.iss + 1;
        c.snd_wl1 = half.irs;
        c.rcv_nxt = half.irs + 1;
        c.rcv_adv = c.rcv_nxt + half.offered_window(cfg);
        c.set_peer_options(v4, half.mss(), half.peer_scale, cfg);
        if half.sack {
            c.flags.set(ConnFlags::SACK);
        }
        if half.ecn {
            c.flags.set(ConnFlags::ECN);
        }
        if let Some(ts) = half.ts_recent {
            c.flags.set(ConnFlags::TIMESTAMPS);
            c.ts_recent = ts;
            c.ts_recent_at.set(now);
            c.ts_offset = secret.ts_offset(&half.tuple);
        }
        c.opened_at.set(half.since);
        if !half.repeated {
            c.flags.set(ConnFlags::TIMING);
            c.timed_us = half.since.micros() as u32;
        }
        // Until the handshake's ACK is taken: no state is without a deadline.
        c.rtx_at.set(now + c.rtt.rto());
        c
    }

    fn blank(v4: bool, l2: L2, iss: SeqNum, cfg: &TcpConfig, now: Time) -> Self {
        let mss = cfg.send_mss(v4, None);
        let mut flags = ConnFlags::default();
        flags.set(ConnFlags::RECOVER_HERE | ConnFlags::ECN_POINT_HERE);
        let (none, at) = (SeqNum::new(0), PackedTime::of(now));
        Self {
            flags,
            snd_una: iss,
            snd_max: iss,
            rcv_nxt: none,
            rcv_adv: none,
            snd_wnd: 0,
            max_snd_wnd: 0,
            snd_wl1: none,
            snd_wl2: none,
            ts_recent: 0,
            ts_offset: 0,
            flight: AT_REST,
            rtt: Rtt::default(),
            timed_seq: iss,
            timed_us: now.micros() as u32,
            rtx_at: PackedTime::NEVER,
            loss_at: PackedTime::NEVER,
            last_rx: at,
            progress_at: at,
            state_since: at,
            state: State::Closed,
            scales: Scales::default(),
            service: 0,
            mss,
            l2,
            challenges: 0,
            challenge_second: 0,
            duplicates: 0,
            tries: 0,
            patience: ReorderingPatience::LEAST,
            ending: Ending::default(),
            fin_retransmissions: 0,
            ts_recent_at: at,
            opened_at: at,
            user: 0,
            peer_fin_at: none,
            // Made anew when the peer's options and the service are known.
            resting: Congestion::new(Algorithm::default(), mss).rest(),
            rcv_space: 0,
            space_seq: none,
            space_at: now.micros() as u32,
            spans: ClosingSpans::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
        }
    }

    /// Takes what the peer's SYN offered: its MSS, and its window shift if both sides scale (RFC 7323 §2.2). A flight that
    /// is lent has to follow ([`Live::set_peer_options`]).
    pub(super) fn set_peer_options(
        &mut self,
        v4: bool,
        mss: Option<u16>,
        scale: Option<u8>,
        cfg: &TcpConfig,
    ) {
        let algorithm = cfg.limits(self.service).congestion;
        self.mss = cfg.send_mss(v4, mss);
        self.resting = Congestion::new(algorithm, self.mss).rest();
        self.flags.put(ConnFlags::NEW_RENO, algorithm == Algorithm::NewReno);
        if scale.is_some() {
            self.flags.set(ConnFlags::SCALED);
        }
        self.scales = scale.map_or(Scales::default(), |s| {
            Scales::new(s.min(super::config::MAX_WINDOW_SCALE), cfg.window_scale(self.service))
        });
        self.rcv_space = cfg.first_window(self.service);
        self.space_seq = self.rcv_nxt;
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The one place that changes the state: does what the table says, counts it, and keeps the account of the close.
    pub(super) fn event(&mut self, event: Event, env: &mut Env<'_>) {
        let from = self.state;
        match transition(from, event) {
            Transition::To(to) => {
                let since = self.state_since;
                if let Some(span) = self.spans.of(from) {
                    span.add(env.now.micros_since(since.get()));
                }
                self.state_since.set(env.now);
                if to == State::CloseWait {
                    self.flags.set(ConnFlags::CLOSE_WAITED);
                }
                self.state = to;
                env.log.moved(from, event, to);
            }
            Transition::Stay => env.log.moved(from, event, from),
            Transition::Impossible => env.log.impossible(from, event),
        }
    }

    /// When it entered its state, or its 2MSL began anew.
    #[must_use]
    pub const fn state_since(&self) -> Time {
        self.state_since.get()
    }

    /// Payload bytes received in order, and sent and acknowledged.
    #[must_use]
    pub(crate) const fn bytes(&self) -> [u64; 2] {
        [self.bytes_in.get(), self.bytes_out.get()]
    }

    /// Whether the connection was opened from here.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.flags.has(ConnFlags::ACTIVE)
    }

    /// Whether what arrives is read and discarded.
    #[must_use]
    pub const fn lingers(&self) -> bool {
        self.flags.has(ConnFlags::LINGER)
    }

    /// Whether our SYN is not acknowledged: `snd_una` is then our initial sequence number.
    pub(super) const fn syn_unacknowledged(&self) -> bool {
        matches!(self.state, State::SynSent | State::SynReceived)
    }

    /// Sequence number of the peer's FIN once known, in order or not.
    pub(super) fn peer_fin(&self) -> Option<SeqNum> {
        self.flags.has(ConnFlags::FIN_SEEN).then_some(self.peer_fin_at)
    }

    /// Sequence number of the first byte in the send buffer.
    pub(super) fn data_base(&self) -> SeqNum {
        if self.syn_unacknowledged() { self.snd_una + 1 } else { self.snd_una }
    }

    /// Bytes of sequence space sent and unacknowledged.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.snd_max - self.snd_una
    }

    /// Next byte expected from the peer.
    #[must_use]
    pub const fn rcv_nxt(&self) -> SeqNum {
        self.rcv_nxt
    }

    /// One past the highest sequence number sent.
    #[must_use]
    pub const fn snd_max(&self) -> SeqNum {
        self.snd_max
    }

    /// The last timestamp of the peer, when timestamps are in use.
    #[must_use]
    pub fn ts_recent(&self) -> Option<u32> {
        self.flags.has(ConnFlags::TIMESTAMPS).then_some(self.ts_recent)
    }

    /// Our timestamp now.
    pub(super) fn ts_val(&self, now: Time) -> u32 {
        ts_val(now, self.ts_offset)
    }

    /// Largest payload plus options of a segment now.
    #[must_use]
    pub const fn mss(&self) -> u16 {
        self.mss
    }

    /// Bytes that may be unread at most, as far as the pool has them.
    #[must_use]
    pub const fn receive_space(&self) -> u32 {
        self.rcv_space
    }

    /// Whether a sequence number quoted by an ICMP error is in flight (RFC 5927 §4.1).
    #[must_use]
    pub fn quotes_flight(&self, seq: SeqNum) -> bool {
        seq.at_or_after(self.snd_una) && seq.before(self.snd_max)
    }

    /// The right edge of the window as advertised, once the peer's numbers are known.
    pub(crate) fn window_edge(&self) -> Option<SeqNum> {
        self.state().synchronized().then_some(self.rcv_adv)
    }

    /// The cause of the close; the first one stays.
    pub(super) fn set_cause(&mut self, cause: Cause) {
        if self.ending.cause().is_none() {
            self.ending.set_cause(cause);
        }
    }

    /// Who was first; the first one stays.
    pub(super) fn set_first(&mut self, first: First) {
        if self.ending.first().is_none() {
            self.ending.set_first(first);
        }
    }
}
