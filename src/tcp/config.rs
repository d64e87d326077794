//! What the protocol can be told: plain values, validated by `config`.

use super::congestion::Algorithm;
use std::time::Duration;

/// Settings of the TCP engine, shared by all connections of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// How long `TIME_WAIT` is held: 2MSL (RFC 9293 §3.4.2).
    pub time_wait: Duration,
    /// Bound of `FIN_WAIT_2` once nobody reads any more.
    pub fin_wait_2: Duration,
    /// Bound of `CLOSE_WAIT`: how long a service may keep a connection whose peer has closed.
    pub close_wait: Duration,
    /// Retransmissions unanswered for this long end the connection (RFC 9293 §3.8.3, R2).
    pub give_up: Duration,
    /// How often a SYN or a SYN-ACK is sent again.
    pub syn_retries: u8,
    /// Share of the half-open table, in percent, from which SYNs are answered by cookies (RFC 4987 §3.6); 0 is always,
    /// `None` never.
    pub syn_cookies: Option<u8>,
    /// Most bytes a connection holds to send, unacknowledged ones included.
    pub send_buffer: u32,
    /// Most bytes a connection holds unread: the largest window that is offered.
    pub receive_buffer: u32,
    /// The window that is offered first, unless `receive_buffer` is smaller.
    pub receive_window: u32,
    /// IP packet size in bytes that the interface takes.
    pub mtu: u16,
    /// Largest payload of a segment, in both directions; `None` is what `mtu` allows.
    pub mss: Option<u16>,
    /// IPv4 TTL and IPv6 hop limit.
    pub ttl: u8,
    /// Limits by service number; a service beyond the list has the default ones.
    pub limits: Vec<Limits>,
    /// Longest wait for a second segment before an ACK (RFC 9293 §3.8.6.3: under 0.5 s).
    pub delayed_ack: Duration,
    /// Nagle's algorithm (RFC 9293 §3.7.4).
    pub nagle: bool,
    /// Challenge ACKs, and other ACKs to what is out of place, a connection sends per second, in `TIME_WAIT` too (RFC
    /// 5961 §7). What was just received and comes again has a budget of its own.
    pub challenge_acks: u8,
    /// Whether connections opened from here ask for ECN (RFC 3168).
    pub ecn_outgoing: bool,
    /// RSTs a worker sends per second to segments without a live connection, and as many ACKs from `TIME_WAIT`.
    pub stray_replies: u32,
}

/// What a listener may set for its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Established connections without traffic for this long are closed; zero is never.
    pub idle: Duration,
    /// Bytes a lingering close reads and discards before it resets.
    pub linger_bytes: u32,
    /// How long a lingering close reads and discards.
    pub linger_time: Duration,
    /// How fast its connections send.
    pub congestion: Algorithm,
    /// As [`TcpConfig::give_up`], for this listener: the local part of the user timeout (RFC 5482 §3).
    pub give_up: Option<Duration>,
    /// Keep-alive (RFC 9293 §3.8.4); `None` is off, which is what the RFC asks for unless told otherwise.
    pub keep_alive: Option<KeepAlive>,
    /// ECN (RFC 3168) for peers that ask for it.
    pub ecn: bool,
    /// As [`TcpConfig::send_buffer`], for this listener.
    pub send_buffer: Option<u32>,
    /// As [`TcpConfig::receive_buffer`], for this listener.
    pub receive_buffer: Option<u32>,
    /// A peer that answers, but takes nothing of what waits for it, is reset after this long; zero is never, as RFC 9293
    /// §3.8.6.1 (MUST-36) has it for TCP by itself. RFC 6429 §4 leaves the limit to whoever is served.
    pub zero_window: Duration,
}

/// How a peer that has been quiet is asked whether it is there (RFC 9293 §3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Quiet for this long, it is asked.
    pub idle: Duration,
    /// Asked again after this long without an answer.
    pub interval: Duration,
    /// Asked in vain so often, it is given up.
    pub probes: u8,
}

impl Limits {
    /// For services that set none.
    pub const DEFAULT: Self = Self {
        idle: Duration::ZERO,
        linger_bytes: 1024 * 1024,
        linger_time: Duration::from_secs(30),
        congestion: Algorithm::Cubic,
        give_up: None,
        keep_alive: None,
        ecn: true,
        send_buffer: None,
        receive_buffer: None,
        zero_window: Duration::ZERO,
    };
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            time_wait: Duration::from_secs(60),
            fin_wait_2: Duration::from_secs(60),
            close_wait: Duration::from_secs(300),
            give_up: Duration::from_secs(100),
            syn_retries: 5,
            syn_cookies: Some(75),
            send_buffer: 256 * 1024,
            receive_buffer: 256 * 1024,
            receive_window: 64 * 1024,
            mtu: 1500,
            mss: None,
            ttl: 64,
            limits: Vec::new(),
            delayed_ack: Duration::from_millis(40),
            nagle: false,
            challenge_acks: 10,
            ecn_outgoing: false,
            stray_replies: 10_000,
        }
    }
}

/// Bytes of IPv4 and TCP header without options.
const V4_HEADERS: u16 = 40;
/// Bytes of IPv6 and TCP header without options.
const V6_HEADERS: u16 = 60;
/// The smallest MSS that is believed (RFC 9293 §3.7.1 sets no floor; a peer that offers less would make every
/// byte a segment).
pub const MIN_MSS: u16 = 88;
/// Largest window shift (RFC 7323 §2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

impl TcpConfig {
    /// The limits of a service's connections.
    #[must_use]
    pub fn limits(&self, service: u16) -> &Limits {
        self.limits.get(usize::from(service)).unwrap_or(&Limits::DEFAULT)
    }

    /// How long a service's connections retransmit in vain.
    #[must_use]
    pub fn patience(&self, service: u16) -> Duration {
        self.limits(service).give_up.unwrap_or(self.give_up)
    }

    /// The MSS option that is offered: what the interface takes, less headers without options (RFC 9293 §3.7.1).
    #[must_use]
    pub fn offered_mss(&self, v4: bool) -> u16 {
        let fits = self.mtu.saturating_sub(if v4 { V4_HEADERS } else { V6_HEADERS });
        self.mss.map_or(fits, |mss| mss.min(fits)).max(MIN_MSS)
    }

    /// The MSS to send with, from the peer's option; without one the RFC's default (RFC 9293 §3.7.1).
    #[must_use]
    pub fn send_mss(&self, v4: bool, peer: Option<u16>) -> u16 {
        let default = if v4 { 536 } else { 1220 };
        peer.unwrap_or(default).max(MIN_MSS).min(self.offered_mss(v4))
    }

    /// Most bytes a service's connection holds to send.
    #[must_use]
    pub fn send_most(&self, service: u16) -> u32 {
        self.limits(service).send_buffer.unwrap_or(self.send_buffer)
    }

    /// Most bytes a service's connection holds unread.
    #[must_use]
    pub fn receive_most(&self, service: u16) -> u32 {
        self.limits(service).receive_buffer.unwrap_or(self.receive_buffer)
    }

    /// The window a service's connection begins with.
    #[must_use]
    pub fn first_window(&self, service: u16) -> u32 {
        self.receive_window.min(self.receive_most(service))
    }

    /// The window field of a SYN or SYN-ACK: never scaled (RFC 7323 §2.2).
    #[must_use]
    pub fn syn_window(&self, service: u16) -> u16 {
        u16::try_from(self.first_window(service)).unwrap_or(u16::MAX)
    }

    /// The shift that lets the largest window be offered in 16 bits: the SYN decides for the connection's life.
    #[must_use]
    pub fn window_scale(&self, service: u16) -> u8 {
        let most = self.receive_most(service);
        let mut shift = 0;
        while shift < MAX_WINDOW_SCALE && (most >> shift) > u32::from(u16::MAX) {
            shift += 1;
        }
        shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o10_the_mss_follows_the_mtu_unless_a_smaller_one_is_set() {
        let auto = TcpConfig::default();
        assert_eq!((auto.offered_mss(true), auto.offered_mss(false)), (1460, 1440));
        let set = |mss| TcpConfig { mss: Some(mss), ..TcpConfig::default() };
        assert_eq!((set(1000).offered_mss(true), set(1000).offered_mss(false)), (1000, 1000));
        assert_eq!((set(9000).offered_mss(true), set(9000).offered_mss(false)), (1460, 1440));
        assert_eq!(set(1000).send_mss(true, Some(1460)), 1000);
        assert_eq!(set(1000).send_mss(true, Some(600)), 600);
    }

    #[test]
    fn d13_the_scale_is_for_the_largest_window_and_the_syn_offers_the_first() {
        let limits = |receive_buffer| Limits { receive_buffer, ..Limits::DEFAULT };
        let sizes = [None, Some(1 << 20), Some(4000), Some(65_535), Some(65_536), Some(16 << 20)];
        let cfg = TcpConfig { limits: sizes.map(limits).into(), ..TcpConfig::default() };
        let seen =
            [0, 1, 2, 3, 4, 5, 6].map(|n| (cfg.receive_most(n), cfg.window_scale(n), cfg.syn_window(n)));
        let k = 1024;
        assert_eq!(
            seen,
            [
                (256 * k, 3, 65_535),
                (1024 * k, 5, 65_535),
                (4000, 0, 4000),
                (65_535, 0, 65_535),
                (64 * k, 1, 65_535),
                (16 * 1024 * k, 9, 65_535),
                (256 * k, 3, 65_535),
            ]
        );
        assert_eq!([2, 3, 5].map(|n| cfg.first_window(n)), [4000, 65_535, 65_536]);
    }
}
