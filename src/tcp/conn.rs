//! The record of a connection: sequence variables, buffers, timers, and the account of its close.
//!
//! The behaviour is in its neighbours: [`input`](super::input) takes segments, [`output`](super::output) makes them,
//! [`close`](super::close) is what the service can ask for, [`timers`](super::timers) what time does. Only
//! `Conn::event` changes the state.

use super::chunk::ChunkPool;
use super::config::TcpConfig;
use super::congestion::{Algorithm, Congestion};
pub use super::conn_flags::ConnFlags;
use super::isn::{Secret, ts_val};
use super::record::{Cause, ClosePath, CloseRecord, ClosingMicros, First};
use super::recovery::Recovery;
use super::recvbuf::RecvBuf;
use super::rtt::Rtt;
use super::sack::Scoreboard;
use super::sendbuf::SendBuf;
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

/// Listener number of a connection that was opened from here.
pub const NO_LISTENER: u16 = u16::MAX;

/// Windows that a service may be ahead of its peer. Higher: a peer with a small window holds more of the pool; lower: the
/// service is called more often for it.
const WINDOWS_AHEAD: usize = 4;
/// Bytes that a service may write when the peer's window is closed. Higher: so much for each peer that closes it for good;
/// lower: a window that opens finds less to send before the service is called.
const AHEAD_OF_A_CLOSED_WINDOW: usize = 8 * 1024;

/// What the close record is made of.
#[derive(Clone, Debug)]
pub(super) struct CloseAccount {
    pub(super) opened_at: Time,
    /// From the SYN to the acknowledgment of our SYN-ACK, in microseconds.
    pub(super) handshake_us: u32,
    pub(super) state_since: Time,
    pub(super) times: ClosingMicros,
    pub(super) first: Option<First>,
    pub(super) cause: Option<Cause>,
    pub(super) fin_retransmissions: u32,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Bytes a lingering close has discarded.
    pub(super) discarded: u32,
    /// When a lingering close ends.
    pub(super) linger_until: Time,
    /// RST or limit ended it; decides the path.
    pub(super) ended_by: Option<ClosePath>,
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    /// Its name.
    pub tuple: Tuple,
    /// Link layer of what we send.
    pub l2: L2,
    state: State,
    /// Number of the service that serves it.
    pub service: u16,
    /// Number of the listener, or [`NO_LISTENER`].
    pub listener: u16,
    /// The service's word.
    pub user: u32,
    /// Facts.
    pub flags: ConnFlags,

    // Send sequence space (§3.3.1).
    pub(super) iss: SeqNum,
    pub(super) snd_una: SeqNum,
    /// Next to send; goes back to `snd_una` after a timeout without SACK.
    pub(super) snd_nxt: SeqNum,
    /// One past the highest sequence number ever sent.
    pub(super) snd_max: SeqNum,
    pub(super) snd_wnd: u32,
    pub(super) max_snd_wnd: u32,
    pub(super) snd_wl1: SeqNum,
    pub(super) snd_wl2: SeqNum,
    pub(super) snd_scale: u8,
    pub(super) rcv_scale: u8,
    /// Largest payload plus options of a segment: what was agreed on, or less where the path takes less.
    pub(super) mss: u16,
    /// What was agreed on in the handshake.
    pub(super) mss_agreed: u16,
    pub(super) congestion: Congestion,
    pub(super) recovery: Recovery,
    pub(super) scoreboard: Scoreboard,
    /// Highest sequence number sent when the window was last reduced for an echoed mark.
    pub(super) ecn_point: SeqNum,
    pub(super) rtt: Rtt,
    /// The byte whose acknowledgment ends the timed round trip, and when it was sent.
    pub(super) timed_seq: SeqNum,
    pub(super) timed_at: Time,
    /// `TSval` of the latest retransmission.
    pub(super) rtx_ts: u32,

    // Receive sequence space.
    pub(super) rcv_nxt: SeqNum,
    /// Right edge of the window as advertised; never moves left (§3.8.6.2.2).
    pub(super) rcv_adv: SeqNum,
    pub(super) last_ack_sent: SeqNum,
    /// Bytes that may be unread at most, as far as the pool has them: grows with the rate of delivery.
    pub(super) rcv_space: u32,
    /// Up to where the service had taken the stream when its rate was last looked at, and when that was, in microseconds.
    pub(super) space_seq: SeqNum,
    pub(super) space_at: u32,
    pub(super) ts_recent: u32,
    pub(super) ts_recent_at: Time,
    pub(super) ts_offset: u32,
    /// Sequence number of the peer's FIN once known, in order or not.
    pub(super) peer_fin: Option<SeqNum>,
    /// Begin of the segment that was last received out of order: its range is the first SACK block.
    pub(super) sack_latest: SeqNum,
    /// What came twice and is to be reported (RFC 2883); empty for nothing.
    pub(super) twice: (SeqNum, SeqNum),
    /// Full segments received since the last ACK.
    pub(super) unacked_segments: u8,

    pub(super) sndbuf: SendBuf,
    pub(super) rcvbuf: RecvBuf,

    // Deadlines.
    pub(super) rtx_at: Time,
    /// When a loss is looked for before the RTO: by a tail probe, or at the end of the time for reordering.
    pub(super) loss_at: Time,
    pub(super) ack_at: Time,
    pub(super) last_rx: Time,
    /// When a larger segment is tried again, on a path that did not take it.
    pub(super) raise_at: Time,
    /// When `snd_una` last moved, or what is unanswered was first sent.
    pub(super) progress_at: Time,
    pub(super) syn_tries: u8,
    /// Keep-alive probes since the peer was last heard.
    pub(super) keep_probes: u8,
    /// Budget of ACKs to what is out of place: the second it is for, and how many challenge ACKs and answers to
    /// duplicates were owed in it.
    pub(super) challenge_second: u32,
    pub(super) challenges: u8,
    pub(super) duplicates: u8,

    pub(super) account: CloseAccount,
}

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
        let mut c = Self::blank(open.tuple, open.l2, iss, env.cfg, env.now);
        c.service = open.service;
        c.user = open.user;
        c.ts_offset = secret.ts_offset(&open.tuple);
        c.rcv_scale = env.cfg.window_scale(c.service);
        c.flags.set(ConnFlags::ACTIVE | ConnFlags::SEND_SYN);
        if env.cfg.ecn_outgoing {
            c.flags.set(ConnFlags::ECN_ASKED);
        }
        c.event(Event::ActiveOpen, env);
        c
    }

    /// The connection that a half-open record becomes when its ACK arrives; the ACK is then given to
    /// [`Conn::on_segment`](super::input), which completes the handshake.
    #[must_use]
    pub fn from_half_open(half: &SynRcvd, service: u16, cfg: &TcpConfig, secret: &Secret, now: Time) -> Self {
        let mut c = Self::blank(half.tuple, half.l2, half.iss, cfg, now);
        c.state = State::SynReceived;
        c.service = service;
        c.listener = half.listener;
        c.snd_nxt = half.iss + 1;
        c.snd_max = c.snd_nxt;
        c.snd_wl1 = half.irs;
        c.rcv_nxt = half.irs + 1;
        c.last_ack_sent = c.rcv_nxt;
        c.rcv_adv = c.rcv_nxt + half.offered_window(cfg);
        c.set_peer_options(half.mss(), half.peer_scale, cfg);
        if half.sack {
            c.flags.set(ConnFlags::SACK);
        }
        if half.ecn {
            c.flags.set(ConnFlags::ECN);
        }
        if let Some(ts) = half.ts_recent {
            c.flags.set(ConnFlags::TIMESTAMPS);
            c.ts_recent = ts;
            c.ts_recent_at = now;
            c.ts_offset = secret.ts_offset(&half.tuple);
        }
        c.account.opened_at = half.since;
        if !half.repeated {
            c.flags.set(ConnFlags::TIMING);
            c.timed_at = half.since;
        }
        // Until the handshake's ACK is taken: no state is without a deadline.
        c.rtx_at = now + c.rtt.rto();
        c
    }

    fn blank(tuple: Tuple, l2: L2, iss: SeqNum, cfg: &TcpConfig, now: Time) -> Self {
        let mss = cfg.send_mss(tuple.is_v4(), None);
        Self {
            tuple,
            l2,
            state: State::Closed,
            service: 0,
            listener: NO_LISTENER,
            user: 0,
            flags: ConnFlags::default(),
            iss,
            snd_una: iss,
            snd_nxt: iss,
            snd_max: iss,
            snd_wnd: 0,
            max_snd_wnd: 0,
            snd_wl1: SeqNum::new(0),
            snd_wl2: SeqNum::new(0),
            snd_scale: 0,
            rcv_scale: 0,
            mss,
            mss_agreed: mss,
            // Made anew when the peer's options and the service are known.
            congestion: Congestion::new(Algorithm::default(), mss),
            recovery: Recovery::new(iss),
            scoreboard: Scoreboard::default(),
            ecn_point: iss,
            rtt: Rtt::default(),
            timed_seq: iss,
            timed_at: now,
            rtx_ts: 0,
            rcv_nxt: SeqNum::new(0),
            rcv_adv: SeqNum::new(0),
            last_ack_sent: SeqNum::new(0),
            rcv_space: 0,
            space_seq: SeqNum::new(0),
            space_at: now.micros() as u32,
            ts_recent: 0,
            ts_recent_at: now,
            ts_offset: 0,
            peer_fin: None,
            sack_latest: SeqNum::new(0),
            twice: (iss, iss),
            unacked_segments: 0,
            sndbuf: SendBuf::default(),
            rcvbuf: RecvBuf::default(),
            rtx_at: Time::NEVER,
            loss_at: Time::NEVER,
            ack_at: Time::NEVER,
            last_rx: now,
            raise_at: Time::NEVER,
            progress_at: now,
            syn_tries: 0,
            keep_probes: 0,
            challenge_second: 0,
            challenges: 0,
            duplicates: 0,
            account: CloseAccount {
                opened_at: now,
                handshake_us: 0,
                state_since: now,
                times: ClosingMicros::default(),
                first: None,
                cause: None,
                fin_retransmissions: 0,
                bytes_in: 0,
                bytes_out: 0,
                discarded: 0,
                linger_until: Time::NEVER,
                ended_by: None,
            },
        }
    }

    /// Takes what the peer's SYN offered: its MSS, and its window shift if both sides scale (RFC 7323 §2.2).
    pub(super) fn set_peer_options(&mut self, mss: Option<u16>, scale: Option<u8>, cfg: &TcpConfig) {
        self.mss = cfg.send_mss(self.tuple.is_v4(), mss);
        self.mss_agreed = self.mss;
        self.congestion = Congestion::new(cfg.limits(self.service).congestion, self.mss);
        if scale.is_some() {
            self.flags.set(ConnFlags::SCALED);
        }
        (self.snd_scale, self.rcv_scale) = scale
            .map_or((0, 0), |s| (s.min(super::config::MAX_WINDOW_SCALE), cfg.window_scale(self.service)));
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
        let spent = env.now.since(self.account.state_since);
        match transition(from, event) {
            Transition::To(to) => {
                self.account.times.add(from, spent);
                self.account.state_since = env.now;
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
        self.account.state_since
    }

    /// Payload bytes received in order, and sent and acknowledged.
    #[must_use]
    pub(crate) const fn bytes(&self) -> [u64; 2] {
        [self.account.bytes_in, self.account.bytes_out]
    }

    /// Whether the connection was opened from here.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.flags.has(ConnFlags::ACTIVE)
    }

    /// One past the last byte the service has sent; our FIN has this number.
    pub(super) fn data_end(&self) -> SeqNum {
        self.data_base() + self.sndbuf.len() as u32
    }

    /// Sequence number of the first byte in the send buffer.
    pub(super) fn data_base(&self) -> SeqNum {
        if self.snd_una == self.iss { self.iss + 1 } else { self.snd_una }
    }

    /// Bytes of sequence space sent and unacknowledged.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.snd_max - self.snd_una
    }

    /// Bytes in the send buffer.
    #[must_use]
    pub fn unsent_or_unacknowledged(&self) -> usize {
        self.sndbuf.len()
    }

    /// Most bytes the send buffer may hold now: what the listener allows, within the connection's share of the pool, and
    /// little for a peer that takes little: what waits behind a closed window is memory that nobody else has.
    fn send_limit(&self, env: &Env<'_>) -> usize {
        let takes = WINDOWS_AHEAD * self.snd_wnd as usize + AHEAD_OF_A_CLOSED_WINDOW;
        let most = (env.cfg.send_most(self.service) as usize).min(takes);
        env.pool.share(self.sndbuf.len(), most)
    }

    /// Bytes the send buffer would take.
    #[must_use]
    pub fn send_space(&self, env: &Env<'_>) -> usize {
        if self.state.can_send() { self.send_limit(env).saturating_sub(self.sndbuf.len()) } else { 0 }
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

    /// Our initial sequence number.
    #[must_use]
    pub const fn iss(&self) -> SeqNum {
        self.iss
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

    /// Bytes received and not yet consumed by the service.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.rcvbuf.unread()
    }

    /// Bytes that may be unread at most, as far as the pool has them.
    #[must_use]
    pub const fn receive_space(&self) -> u32 {
        self.rcv_space
    }

    /// Bytes held beyond a gap.
    #[must_use]
    pub fn buffered_out_of_order(&self) -> usize {
        self.rcvbuf.buffered_ooo()
    }

    /// The next contiguous unread bytes.
    #[must_use]
    pub fn front<'p>(&self, pool: &'p ChunkPool) -> &'p [u8] {
        self.rcvbuf.front(pool)
    }

    /// Takes `n` unread bytes out of the buffer.
    pub fn consume(&mut self, env: &mut Env<'_>, n: usize) {
        self.rcvbuf.consume(env.pool, n);
        self.right_size(env);
        self.maybe_update_window(env);
        if self.closing_done() {
            // The bound of the wait for the service counts from what it last took.
            self.progress_at = env.now;
        }
    }

    /// Appends bytes to send; remembers when it took fewer, so that the service hears of free space.
    pub fn send(&mut self, env: &mut Env<'_>, bytes: &[u8]) -> usize {
        if !self.state.can_send() {
            return 0;
        }
        let limit = self.send_limit(env);
        let n = self.sndbuf.append(env.pool, bytes, limit);
        if n < bytes.len() {
            self.flags.set(ConnFlags::SEND_BLOCKED);
        }
        n
    }

    /// Whether a sequence number quoted by an ICMP error is in flight (RFC 5927 §4.1).
    #[must_use]
    pub fn quotes_flight(&self, seq: SeqNum) -> bool {
        seq.at_or_after(self.snd_una) && seq.before(self.snd_max)
    }

    /// From the SYN to the acknowledgment of our SYN-ACK, for a connection opened by a peer.
    #[must_use]
    pub const fn handshake_time(&self) -> std::time::Duration {
        std::time::Duration::from_micros(self.account.handshake_us as u64)
    }

    /// The cause of the close; the first one stays.
    pub(super) fn set_cause(&mut self, cause: Cause) {
        self.account.cause.get_or_insert(cause);
    }

    /// Who was first; the first one stays.
    pub(super) fn set_first(&mut self, first: First) {
        self.account.first.get_or_insert(first);
    }

    /// The record of a connection that entered `TIME_WAIT` or `CLOSED`.
    #[must_use]
    pub fn close_record(&self, now: Time) -> CloseRecord {
        let a = &self.account;
        let crossed = self.flags.has(ConnFlags::CROSSED);
        let path = a.ended_by.unwrap_or(if crossed {
            ClosePath::Simultaneous
        } else if self.flags.has(ConnFlags::HALF_CLOSE) {
            ClosePath::HalfClose
        } else if a.first == Some(First::Peer) {
            ClosePath::Passive
        } else {
            ClosePath::Active
        });
        CloseRecord {
            tuple: self.tuple,
            listener: (self.listener != NO_LISTENER).then_some(self.listener),
            opened_at: a.opened_at,
            closed_at: now,
            path,
            first: if crossed { First::Both } else { a.first.unwrap_or(First::Nobody) },
            cause: a.cause.unwrap_or(Cause::Service),
            fin_retransmissions: a.fin_retransmissions,
            times: a.times.times(),
            unacknowledged: self.sndbuf.len() as u32,
            bytes_in: a.bytes_in,
            bytes_out: a.bytes_out,
            time_wait: self.state == State::TimeWait,
        }
    }

    /// Gives all chunks back; the record can then be dropped.
    pub fn release(&mut self, pool: &mut ChunkPool) {
        self.sndbuf.clear(pool);
        self.scoreboard.clear(pool);
        self.rcvbuf.clear(pool);
    }
}
