//! What an operator may see of a live connection beside its state: the one place that gathers it.

use super::conn::Conn;
use crate::time::Time;
use std::time::Duration;

/// Facts of a live connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insight {
    /// When its SYN came, or when it was opened from here.
    pub opened_at: Time,
    /// Payload bytes received in order.
    pub bytes_in: u64,
    /// Payload bytes sent and acknowledged.
    pub bytes_out: u64,
    /// Smoothed round trip, zero when none was measured.
    pub srtt: Duration,
    /// Congestion window in bytes.
    pub cwnd: u32,
}

impl Conn {
    /// What an operator may see.
    #[must_use]
    pub fn insight(&self) -> Insight {
        Insight {
            opened_at: self.account.opened_at,
            bytes_in: self.account.bytes_in,
            bytes_out: self.account.bytes_out,
            srtt: self.rtt.srtt(),
            cwnd: self.congestion.window(),
        }
    }
}
