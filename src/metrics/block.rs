//! One worker's counters: plain fields that only the worker writes.
//!
//! Nothing here is shared. In housekeeping the worker answers a report request of the control plane by filling the
//! [`Block`] that came with it (counters are copied, histograms swapped), and sends it back by mailbox: no lock, no
//! shared cache line, no allocation in the worker.

use super::gauges::{BudgetKind, ListenerCounters, WorkerGauges};
use crate::drop::DropReason;
use crate::port::PortStats;
pub use crate::tcp::output::Retransmission;
use crate::tcp::record::{Cause, ClosePath, CloseRecord, First};
use crate::tcp::state::{Event, State};
use hdrhistogram::Histogram;
use std::time::Duration;

/// Why a RST was sent or what a received one hit: the `cause` label of `finwheel_resets_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ResetCause {
    /// SYN or other segment to a port nobody listens on.
    ClosedPort,
    /// A segment for a connection that is not there.
    NoConnection,
    /// An unacceptable acknowledgment while half-open.
    HalfOpen,
    /// The service aborted, or closed with unread data.
    Service,
    /// Data after the close.
    DataAfterClose,
    /// A limit of time ended the connection.
    Limit,
    /// The peer reset a synchronized connection.
    Established,
}

impl ResetCause {
    /// All causes in counter order.
    pub const ALL: [Self; 7] = [
        Self::ClosedPort,
        Self::NoConnection,
        Self::HalfOpen,
        Self::Service,
        Self::DataAfterClose,
        Self::Limit,
        Self::Established,
    ];
    /// The value of the `cause` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClosedPort => "closed_port",
            Self::NoConnection => "no_connection",
            Self::HalfOpen => "half_open",
            Self::Service => "service",
            Self::DataAfterClose => "data_after_close",
            Self::Limit => "limit",
            Self::Established => "established",
        }
    }
}

const PATHS: usize = ClosePath::ALL.len();
const FIRSTS: usize = First::ALL.len();
const CAUSES: usize = Cause::ALL.len();

/// Counters and gauges of what operators had a worker do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operated {
    /// Close records that somebody listened for and that found the queue full.
    pub close_log_lost: u64,
    /// Frames captured.
    pub captured: u64,
    /// Frames that were to be captured and found no spare buffer.
    pub capture_lost: u64,
    /// Connections there were when the present drain began (gauge).
    pub drain_total: u64,
    /// Those of them that have been told of it (gauge).
    pub drain_told: u64,
}

impl Operated {
    fn merge(&mut self, other: &Self) {
        let Self { close_log_lost, captured, capture_lost, drain_total, drain_told } = other;
        self.close_log_lost += close_log_lost;
        self.captured += captured;
        self.capture_lost += capture_lost;
        self.drain_total += drain_total;
        self.drain_told += drain_told;
    }
}

/// Plain counters and gauges of one worker.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Population by state (gauge); `LISTEN` counts listeners, `CLOSED` stays 0.
    pub states: [u64; State::COUNT],
    /// Highest population of `TIME_WAIT` (gauge).
    pub time_wait_peak: u64,
    /// Frames dropped, by [`DropReason`].
    pub drops: [u64; DropReason::COUNT],
    /// Connections opened by peers.
    pub opened_passive: u64,
    /// Connections opened from here.
    pub opened_active: u64,
    /// Half-open connections given up.
    pub half_open_given_up: u64,
    /// SYNs answered by a cookie.
    pub cookies_sent: u64,
    /// Connections opened by a cookie that came back.
    pub cookies_accepted: u64,
    /// Segments that could have brought a cookie back and did not, or too late.
    pub cookies_refused: u64,
    /// Closes by path, first, cause.
    pub closes: [[[u64; CAUSES]; FIRSTS]; PATHS],
    /// `TIME_WAIT` records expired.
    pub time_wait_expired: u64,
    /// `TIME_WAIT` records evicted because the table was full.
    pub time_wait_evicted: u64,
    /// `TIME_WAIT` records re-opened by a newer SYN.
    pub time_wait_reopened: u64,
    /// Retransmissions by [`Retransmission`].
    pub retransmissions: [u64; Retransmission::ALL.len()],
    /// RSTs sent, by [`ResetCause`].
    pub resets_sent: [u64; ResetCause::ALL.len()],
    /// RSTs received and accepted, by [`ResetCause`].
    pub resets_received: [u64; ResetCause::ALL.len()],
    /// Challenge ACKs sent.
    pub challenge_acks: u64,
    /// Bytes beyond a gap that were given up for bytes in order.
    pub out_of_order_given_up: u64,
    /// Frames passed on to the next worker.
    pub misdirected_out: u64,
    /// Frames received from another worker.
    pub misdirected_in: u64,
    /// Chunks of the buffer pool in use (gauge).
    pub chunks_used: u64,
    /// Chunks of the buffer pool (gauge).
    pub chunks_total: u64,
    /// ICMP "too big" errors that quote a segment in flight.
    pub icmp_too_big: u64,
    /// Connections whose segments became smaller because a router said so.
    pub path_mtu_lowered: u64,
    /// Connections whose segments became smaller because full ones timed out again and again.
    pub path_black_holes: u64,
    /// Connections that tried larger segments again.
    pub path_mtu_raised: u64,
    /// ICMP hard errors that quote a segment in flight; they end attempts to open only.
    pub icmp_hard: u64,
    /// ICMP soft errors that quote a segment in flight.
    pub icmp_soft: u64,
    /// Segments that a router had marked (RFC 3168).
    pub ecn_experienced: u64,
    /// Segments that echo a mark on what was sent.
    pub ecn_echoed: u64,
    /// Answers and frames refused because a budget was used up, by [`BudgetKind`].
    pub budget_refusals: [u64; BudgetKind::ALL.len()],
    /// How often each (state, event) pair of the transition table happened.
    pub transitions: [[u64; Event::COUNT]; State::COUNT],
    /// Events that the transition table calls impossible: an engine fault when not 0.
    pub illegal_transitions: u64,
    /// What operators had the worker do.
    pub operated: Operated,
    /// Microseconds of turns that found work.
    pub busy_us: u64,
    /// Microseconds of turns that found none, asleep or spinning.
    pub idle_us: u64,
    /// Loop turns.
    pub turns: u64,
    /// The port's own counters.
    pub port: PortStats,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            states: [0; State::COUNT],
            time_wait_peak: 0,
            drops: [0; DropReason::COUNT],
            opened_passive: 0,
            opened_active: 0,
            half_open_given_up: 0,
            cookies_sent: 0,
            cookies_accepted: 0,
            cookies_refused: 0,
            closes: [[[0; CAUSES]; FIRSTS]; PATHS],
            time_wait_expired: 0,
            time_wait_evicted: 0,
            time_wait_reopened: 0,
            retransmissions: [0; Retransmission::ALL.len()],
            resets_sent: [0; ResetCause::ALL.len()],
            resets_received: [0; ResetCause::ALL.len()],
            challenge_acks: 0,
            out_of_order_given_up: 0,
            misdirected_out: 0,
            misdirected_in: 0,
            chunks_used: 0,
            chunks_total: 0,
            icmp_too_big: 0,
            path_mtu_lowered: 0,
            path_black_holes: 0,
            path_mtu_raised: 0,
            icmp_hard: 0,
            icmp_soft: 0,
            ecn_experienced: 0,
            ecn_echoed: 0,
            budget_refusals: [0; BudgetKind::ALL.len()],
            transitions: [[0; Event::COUNT]; State::COUNT],
            illegal_transitions: 0,
            operated: Operated::default(),
            busy_us: 0,
            idle_us: 0,
            turns: 0,
            port: PortStats::default(),
        }
    }
}

impl Counters {
    /// Counts a dropped frame.
    pub fn drop_frame(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
    /// Counts what a budget refused.
    pub fn refuse(&mut self, budget: BudgetKind) {
        self.budget_refusals[budget as usize] += 1;
    }
    /// Counts a retransmission.
    pub fn retransmit(&mut self, kind: Retransmission) {
        self.retransmissions[kind as usize] += 1;
    }
    /// Counts the end of a connection.
    pub fn close(&mut self, r: &CloseRecord) {
        self.closes[r.path as usize][r.first as usize][r.cause as usize] += 1;
    }
    /// Closes by one path, whatever the rest.
    #[must_use]
    pub fn closes_by_path(&self, path: ClosePath) -> u64 {
        self.closes[path as usize].iter().flatten().sum()
    }
    /// Adds another worker's counters and gauges. The peaks of `TIME_WAIT` add up too, to an upper bound: the
    /// workers need not have had them at the same moment.
    #[expect(clippy::too_many_lines, reason = "two lines for each counter")]
    pub fn merge(&mut self, other: &Self) {
        // Taken apart by name, so that a counter that is added to the struct cannot be forgotten here.
        let Self {
            states,
            time_wait_peak,
            drops,
            opened_passive,
            opened_active,
            half_open_given_up,
            cookies_sent,
            cookies_accepted,
            cookies_refused,
            closes,
            time_wait_expired,
            time_wait_evicted,
            time_wait_reopened,
            retransmissions,
            resets_sent,
            resets_received,
            challenge_acks,
            out_of_order_given_up,
            misdirected_out,
            misdirected_in,
            chunks_used,
            chunks_total,
            icmp_too_big,
            path_mtu_lowered,
            path_black_holes,
            path_mtu_raised,
            icmp_hard,
            icmp_soft,
            ecn_experienced,
            ecn_echoed,
            budget_refusals,
            transitions,
            illegal_transitions,
            operated,
            busy_us,
            idle_us,
            turns,
            port,
        } = other;
        add_all(&mut self.states, states);
        add_all(&mut self.drops, drops);
        add_all(self.closes.as_flattened_mut().as_flattened_mut(), closes.as_flattened().as_flattened());
        add_all(self.transitions.as_flattened_mut(), transitions.as_flattened());
        add_all(&mut self.budget_refusals, budget_refusals);
        add_all(&mut self.retransmissions, retransmissions);
        add_all(&mut self.resets_sent, resets_sent);
        add_all(&mut self.resets_received, resets_received);
        for (mine, theirs) in [
            (&mut self.time_wait_peak, time_wait_peak),
            (&mut self.opened_passive, opened_passive),
            (&mut self.opened_active, opened_active),
            (&mut self.half_open_given_up, half_open_given_up),
            (&mut self.cookies_sent, cookies_sent),
            (&mut self.cookies_accepted, cookies_accepted),
            (&mut self.cookies_refused, cookies_refused),
            (&mut self.time_wait_expired, time_wait_expired),
            (&mut self.time_wait_evicted, time_wait_evicted),
            (&mut self.time_wait_reopened, time_wait_reopened),
            (&mut self.challenge_acks, challenge_acks),
            (&mut self.out_of_order_given_up, out_of_order_given_up),
            (&mut self.misdirected_out, misdirected_out),
            (&mut self.misdirected_in, misdirected_in),
            (&mut self.chunks_used, chunks_used),
            (&mut self.chunks_total, chunks_total),
            (&mut self.icmp_too_big, icmp_too_big),
            (&mut self.path_mtu_lowered, path_mtu_lowered),
            (&mut self.path_black_holes, path_black_holes),
            (&mut self.path_mtu_raised, path_mtu_raised),
            (&mut self.icmp_hard, icmp_hard),
            (&mut self.icmp_soft, icmp_soft),
            (&mut self.ecn_experienced, ecn_experienced),
            (&mut self.ecn_echoed, ecn_echoed),
            (&mut self.illegal_transitions, illegal_transitions),
            (&mut self.busy_us, busy_us),
            (&mut self.idle_us, idle_us),
            (&mut self.turns, turns),
        ] {
            *mine += theirs;
        }
        self.operated.merge(operated);
        merge_port(&mut self.port, port);
    }
    /// RSTs sent and accepted.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.resets_sent.iter().chain(&self.resets_received).sum()
    }
}

fn add_all(mine: &mut [u64], theirs: &[u64]) {
    for (a, b) in mine.iter_mut().zip(theirs) {
        *a += b;
    }
}

fn merge_port(mine: &mut PortStats, theirs: &PortStats) {
    let PortStats {
        rx_frames,
        rx_bytes,
        tx_frames,
        tx_bytes,
        tx_ring_full,
        tx_wakeups,
        rx_wakeups,
        xsk_rx_dropped,
        xsk_rx_ring_full,
        xsk_fill_ring_empty,
        xsk_invalid_descs,
    } = theirs;
    for (a, b) in [
        (&mut mine.rx_frames, rx_frames),
        (&mut mine.rx_bytes, rx_bytes),
        (&mut mine.tx_frames, tx_frames),
        (&mut mine.tx_bytes, tx_bytes),
        (&mut mine.tx_ring_full, tx_ring_full),
        (&mut mine.tx_wakeups, tx_wakeups),
        (&mut mine.rx_wakeups, rx_wakeups),
        (&mut mine.xsk_rx_dropped, xsk_rx_dropped),
        (&mut mine.xsk_rx_ring_full, xsk_rx_ring_full),
        (&mut mine.xsk_fill_ring_empty, xsk_fill_ring_empty),
        (&mut mine.xsk_invalid_descs, xsk_invalid_descs),
    ] {
        *a += b;
    }
}

/// Longest latency a histogram can hold, in microseconds (10 minutes): what is longer is recorded as this.
pub const HISTOGRAM_MAX_US: u64 = 600_000_000;

/// Latency histograms of one worker, in microseconds. They hold what was recorded since the last report.
#[derive(Clone, Debug)]
pub struct Histograms {
    /// From the first FIN to the end of the connection, by [`ClosePath`].
    pub close: [Histogram<u64>; PATHS],
    /// From SYN to the acknowledgment of our SYN-ACK.
    pub handshake: Histogram<u64>,
}

impl Default for Histograms {
    fn default() -> Self {
        Self { close: std::array::from_fn(|_| histogram()), handshake: histogram() }
    }
}

fn histogram() -> Histogram<u64> {
    // The bounds are constants that hdrhistogram accepts: 1 <= low, 2 * low <= high, 0 < digits <= 5.
    Histogram::new_with_bounds(1, HISTOGRAM_MAX_US, 2)
        .unwrap_or_else(|e| unreachable!("constant bounds: {e}"))
}

impl Histograms {
    /// Records the time a close took.
    pub fn record_close(&mut self, path: ClosePath, took: Duration) {
        self.close[path as usize].saturating_record(clamp(took));
    }
    /// Records the time a handshake took.
    pub fn record_handshake(&mut self, took: Duration) {
        self.handshake.saturating_record(clamp(took));
    }
    /// Adds what another worker (or the same one since) recorded.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.close.iter_mut().zip(&other.close) {
            add(mine, theirs);
        }
        add(&mut self.handshake, &other.handshake);
    }
    /// Forgets everything, keeping the memory.
    pub fn reset(&mut self) {
        self.close.iter_mut().for_each(Histogram::reset);
        self.handshake.reset();
    }
}

fn add(mine: &mut Histogram<u64>, theirs: &Histogram<u64>) {
    // Both were made by `histogram` with the same bounds, which is all that an addition can fail for.
    mine.add(theirs).unwrap_or_else(|e| unreachable!("histograms of one shape: {e}"));
}

fn clamp(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX).clamp(1, HISTOGRAM_MAX_US)
}

/// What a worker reports.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Counters since start and gauges now.
    pub counters: Counters,
    /// Latencies since the last report.
    pub histograms: Histograms,
    /// The worker itself.
    pub worker: WorkerGauges,
    /// Its listeners by number, then the connections opened from here if it opens any.
    pub listeners: Vec<ListenerCounters>,
}

impl Block {
    /// With room for so many listeners: one that goes to a worker is filled there and must not grow.
    #[must_use]
    pub fn with_room(listeners: usize) -> Self {
        Self { listeners: Vec::with_capacity(listeners), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_every_counter() {
        let mut one = Counters::default();
        one.states[State::TimeWait as usize] = 5;
        one.closes[5][3][12] = 7;
        one.retransmit(Retransmission::Fin);
        one.drop_frame(DropReason::ReplyBudget);
        one.resets_sent[6] = 1;
        one.resets_received[0] = 2;
        one.turns = 9;
        one.time_wait_peak = 4;
        one.port.xsk_invalid_descs = 3;
        let mut sum = one.clone();
        sum.merge(&one);
        assert_eq!(sum.states[State::TimeWait as usize], 10);
        assert_eq!(sum.closes[5][3][12], 14);
        assert_eq!(sum.retransmissions[Retransmission::Fin as usize], 2);
        assert_eq!(sum.drops[DropReason::ReplyBudget as usize], 2);
        assert_eq!(sum.resets(), 6);
        assert_eq!((sum.turns, sum.time_wait_peak, sum.port.xsk_invalid_descs), (18, 8, 6));
    }

    #[test]
    fn merged_histograms_hold_what_both_recorded_and_the_longest_times() {
        let mut a = Histograms::default();
        let mut b = Histograms::default();
        a.record_close(ClosePath::Active, Duration::ZERO);
        b.record_close(ClosePath::Active, Duration::from_secs(1 << 40));
        b.record_handshake(Duration::from_micros(9));
        a.merge(&b);
        let active = &a.close[ClosePath::Active as usize];
        assert_eq!((active.len(), active.min(), a.handshake.len()), (2, 1, 1));
        assert!(active.max() >= HISTOGRAM_MAX_US);
    }
}
