//! What is said on the admin socket, as JSON: read and written by both ends.

use crate::shard::sweep::Row;
use crate::tcp::record::CloseRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Which connections are meant, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterSpec {
    /// States with commas between, as `finwheel_connections` names them; case does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Names of listeners, with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// An address or a network of peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// A duration, such as `90s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<String>,
}

/// What `/v1/connections` is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    /// States.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// Peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<String>,
    /// No more than so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Where the last page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl ListQuery {
    /// The filter in it.
    #[must_use]
    pub fn filter(&self) -> FilterSpec {
        FilterSpec {
            state: self.state.clone(),
            listener: self.listener.clone(),
            peer: self.peer.clone(),
            older_than: self.older_than.clone(),
        }
    }
}

/// What `/v1/close` and `/v1/abort` are asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndOrder {
    /// Which.
    pub filter: FilterSpec,
    /// Every connection, for an empty filter.
    pub all: bool,
}

/// What they answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Connections that the filter meant.
    pub matched: u64,
    /// Those of them that were ended; the others were ending by themselves.
    pub ended: u64,
}

/// One line of `/v1/connections`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectionLine {
    /// State of RFC 9293.
    pub state: String,
    /// The listener's name; absent for connections opened from here.
    pub listener: Option<String>,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// The worker that has it.
    pub worker: usize,
    /// Seconds since the SYN, or since `TIME_WAIT` was entered.
    pub age_s: f64,
    /// Seconds in its state.
    pub state_s: f64,
    /// Seconds until `TIME_WAIT` ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_s: Option<f64>,
    /// Bytes received that the service has not taken.
    pub recv_q: u32,
    /// Bytes that the peer has not acknowledged, sent or not.
    pub send_q: u32,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes sent and acknowledged.
    pub bytes_out: u64,
    /// Smoothed round trip in microseconds; 0 when none was measured.
    pub srtt_us: u64,
    /// Congestion window in bytes.
    pub cwnd: u32,
}

impl ConnectionLine {
    /// From a worker's row.
    #[must_use]
    pub fn new(worker: usize, row: &Row, listener: Option<String>) -> Self {
        Self {
            state: row.state.as_str().to_owned(),
            listener,
            local: row.tuple.local.to_socket(),
            peer: row.tuple.remote.to_socket(),
            worker,
            age_s: seconds(row.age),
            state_s: seconds(row.in_state),
            left_s: row.left.map(seconds),
            recv_q: row.unread,
            send_q: row.unacknowledged,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            srtt_us: row.srtt.as_micros() as u64,
            cwnd: row.cwnd,
        }
    }
}

/// The last line of `/v1/connections`, when there is more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MoreLine {
    /// What to ask for as `after`.
    pub next: String,
}

/// One line of `/v1/closes` and of the close log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CloseLine {
    /// Seconds since 1970 at which it entered `TIME_WAIT` or `CLOSED`.
    pub at: f64,
    /// The worker that had it.
    pub worker: usize,
    /// The listener's name.
    pub listener: Option<String>,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// How: the `path` label.
    pub path: String,
    /// Who sent the first FIN or RST: the `first` label.
    pub first: String,
    /// Why: the `cause` label.
    pub cause: String,
    /// Seconds from the handshake to the end.
    pub lifetime_s: f64,
    /// Milliseconds in each closing state.
    pub closing_ms: ClosingMs,
    /// How often our FIN was sent again.
    pub fin_retransmissions: u32,
    /// Bytes never acknowledged.
    pub unacknowledged: u32,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes sent and acknowledged.
    pub bytes_out: u64,
    /// Whether it left a `TIME_WAIT` behind.
    pub time_wait: bool,
}

/// Milliseconds in each closing state.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ClosingMs {
    /// `FIN_WAIT_1`.
    pub fin_wait_1: f64,
    /// `FIN_WAIT_2`.
    pub fin_wait_2: f64,
    /// `CLOSE_WAIT`.
    pub close_wait: f64,
    /// `CLOSING`.
    pub closing: f64,
    /// `LAST_ACK`.
    pub last_ack: f64,
    /// All of them.
    pub total: f64,
}

impl CloseLine {
    /// From a worker's record; `at` is its end by the wall clock.
    #[must_use]
    pub fn new(worker: usize, r: &CloseRecord, at: Duration, listener: Option<String>) -> Self {
        let ms = |d: Duration| d.as_micros() as f64 / 1000.0;
        let t = &r.times;
        Self {
            at: seconds(at),
            worker,
            listener,
            local: r.tuple.local.to_socket(),
            peer: r.tuple.remote.to_socket(),
            path: r.path.as_str().to_owned(),
            first: r.first.as_str().to_owned(),
            cause: r.cause.as_str().to_owned(),
            lifetime_s: seconds(r.closed_at.since(r.opened_at)),
            closing_ms: ClosingMs {
                fin_wait_1: ms(t.fin_wait_1),
                fin_wait_2: ms(t.fin_wait_2),
                close_wait: ms(t.close_wait),
                closing: ms(t.closing),
                last_ack: ms(t.last_ack),
                total: ms(t.total()),
            },
            fin_retransmissions: r.fin_retransmissions,
            unacknowledged: r.unacknowledged,
            bytes_in: r.bytes_in,
            bytes_out: r.bytes_out,
            time_wait: r.time_wait,
        }
    }
}

/// What `/v1/closes` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClosesQuery {
    /// Goes on with what comes.
    pub follow: bool,
    /// Only so many of those there are already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// Causes, with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Paths, with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Who was first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// Listeners, with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// An address or a network of peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// What `/v1/capture` is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureQuery {
    /// An address or a network of peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Names of listeners, with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// Ends after so many frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Ends after this time, such as `10s`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Bytes kept of a frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
}

/// What `/v1/drain` is asked; what is left out is as `[drain]` has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainQuery {
    /// The time over which connections are closed, such as `60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// What new ones get: drop, reset or close.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// An error, whatever was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong and what would be right.
    pub error: String,
    /// Keys that were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}

/// What `/v1/status` answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// The version that runs.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The phase.
    pub phase: String,
    /// Seconds since the start.
    pub uptime_s: f64,
    /// The interface.
    pub interface: String,
    /// Where the XDP program runs.
    pub xdp: String,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// Connections by state.
    pub population: BTreeMap<String, u64>,
    /// Counters since the start.
    pub totals: Rates,
    /// The same in a second, over the last one or so.
    pub rates: Rates,
    /// The drain under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
    /// Reloads that changed something.
    pub reloads: u64,
    /// Ends of removed listeners that wait for their last connections before the kernel has them back.
    pub retiring: Vec<SocketAddr>,
}

/// A worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: usize,
    /// Its queue.
    pub queue: u32,
    /// The CPU it is pinned to.
    pub core: Option<usize>,
    /// Zero-copy or copy.
    pub copy: String,
    /// Share of its time with work, 0 to 1, over the last second or so.
    pub busy: f64,
    /// Synchronized connections.
    pub connections: u64,
    /// Half-open ones.
    pub half_open: u64,
    /// `TIME_WAIT` records.
    pub time_wait: u64,
}

/// Counters, or what they grow by in a second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Connections opened.
    pub opened: f64,
    /// Connections closed.
    pub closed: f64,
    /// Those of them that ended otherwise than by two FINs.
    pub not_graceful: f64,
    /// Frames received.
    pub rx_frames: f64,
    /// Frames sent.
    pub tx_frames: f64,
    /// Bytes received.
    pub rx_bytes: f64,
    /// Bytes sent.
    pub tx_bytes: f64,
    /// Frames dropped.
    pub dropped: f64,
}

/// How far a drain is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Whether the process ends with it.
    pub ending: bool,
    /// Seconds since it began.
    pub elapsed_s: f64,
    /// Seconds over which connections are told.
    pub over_s: f64,
    /// What new ones get.
    pub new: String,
    /// Connections there were.
    pub total: u64,
    /// Those that have been told.
    pub told: u64,
    /// Connections that have not ended.
    pub left: u64,
    /// Half-open ones.
    pub half_open: u64,
    /// `TIME_WAIT` records.
    pub time_wait: u64,
}

fn seconds(d: Duration) -> f64 {
    d.as_micros() as f64 / 1e6
}
