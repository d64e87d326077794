//! What an operator may see of a live connection beside its state: the one place that gathers it.

use super::conn::Conn;
use super::flight::Flight;
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
    /// Bytes received that the service has not taken.
    pub unread: u32,
    /// Bytes to send that the peer has not acknowledged.
    pub unacknowledged: u32,
}

impl Conn {
    /// What an operator may see of a connection to which this flight is lent, or none.
    #[must_use]
    pub fn insight(&self, flight: Option<&Flight>) -> Insight {
        Insight {
            opened_at: self.opened_at.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            srtt: self.rtt.srtt(),
            cwnd: flight.map_or(self.resting.window(), |f| f.congestion.window()),
            unread: flight.map_or(0, |f| f.rcvbuf.unread() as u32),
            unacknowledged: flight.map_or(0, |f| f.sndbuf.len() as u32),
        }
    }
}
