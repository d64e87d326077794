//! Congestion control: how much may be in flight.
//!
//! [`Congestion`] is the window and the law by which it grows and shrinks; when a loss is found, and what is sent again,
//! is the business of `tcp::recovery`, which tells it.
//!
//! | law | growth beyond the threshold | reduction |
//! |---|---|---|
//! | NewReno (RFC 5681) | a segment a round trip | one half |
//! | CUBIC (RFC 9438) | a cubic of the time since the last reduction | three tenths |
//!
//! Before either of them is the first slow start, with `HyStart++` (RFC 9406).

mod cubic;
mod hystart;

use crate::time::Time;
use cubic::Cubic;
pub use hystart::Arrival;
use hystart::{HyStart, SlowStart};
use std::time::Duration;

/// Segments of the initial window (RFC 6928 §2).
const INITIAL_SEGMENTS: u32 = 10;
/// Bytes of the initial window where segments are large; two of them may be more (RFC 6928 §2).
const INITIAL_BYTES: u32 = 14_600;
/// The largest window there is to fill (RFC 7323 §2.3): more has no use, and the arithmetic stays within 64 bits.
const MAX_WINDOW: u32 = 1 << 30;

/// Which law a listener's connections follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681.
    NewReno,
}

/// How the window changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Law {
    /// The first slow start: there is no threshold yet.
    Start(HyStart),
    NewReno,
    Cubic(Cubic),
}

/// What remains of a window, in bytes, while nothing is in flight and no curve is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resting {
    cwnd: u32,
    ssthresh: u32,
    /// CUBIC's: where the curve levels out, and the window before the last reduction.
    w_max: u32,
    prior: u32,
}

impl Resting {
    /// The window, in bytes.
    pub(super) const fn window(&self) -> u32 {
        self.cwnd
    }
}

/// The window of one connection, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Congestion {
    cwnd: u32,
    ssthresh: u32,
    mss: u32,
    law: Law,
}

impl Congestion {
    /// For a connection that sends segments of `mss` bytes.
    #[must_use]
    pub fn new(algorithm: Algorithm, mss: u16) -> Self {
        let mss = u32::from(mss);
        Self { cwnd: initial_window(mss), ssthresh: u32::MAX, mss, law: Law::Start(HyStart::new(algorithm)) }
    }

    /// The first slow start is over.
    fn settle(&mut self) {
        if let Law::Start(h) = self.law {
            self.law = match h.then {
                Algorithm::NewReno => Law::NewReno,
                Algorithm::Cubic => Law::Cubic(Cubic::default()),
            };
        }
    }

    /// Something new is acknowledged, outside of recovery. In the first slow start this may say that the path is full.
    pub fn on_round_trip(&mut self, a: &Arrival) {
        if let Law::Start(h) = &mut self.law
            && h.on_ack(a) == SlowStart::IsOver
        {
            self.ssthresh = self.cwnd;
            self.settle();
        }
    }

    /// Whether [`Congestion::on_round_trip`] has a use for round trips.
    #[must_use]
    pub const fn wants_round_trips(&self) -> bool {
        matches!(self.law, Law::Start(_))
    }

    /// What a connection at rest keeps: with it, [`resume`](Self::resume) goes on as if nothing had been laid down, unless
    /// a curve is [followed](Self::in_growth).
    pub(super) const fn rest(&self) -> Resting {
        let (w_max, prior) = match &self.law {
            Law::Start(_) | Law::NewReno => (0, 0),
            Law::Cubic(c) => c.rest(),
        };
        Resting { cwnd: self.cwnd, ssthresh: self.ssthresh, w_max, prior }
    }

    /// Of a connection that is no longer at rest.
    pub(super) fn resume(algorithm: Algorithm, mss: u16, r: &Resting) -> Self {
        let law = match algorithm {
            // Its rounds begin anew: what they had learnt was of a path that has been idle since.
            _ if r.ssthresh == u32::MAX => Law::Start(HyStart::new(algorithm)),
            Algorithm::NewReno => Law::NewReno,
            Algorithm::Cubic => Law::Cubic(Cubic::resume(r.w_max, r.prior)),
        };
        Self { cwnd: r.cwnd, ssthresh: r.ssthresh, mss: u32::from(mss), law }
    }

    /// Whether a stage of growth lasts, so that time counts.
    pub(super) fn in_growth(&self) -> bool {
        match &self.law {
            Law::Start(_) | Law::NewReno => false,
            Law::Cubic(c) => c.in_growth(),
        }
    }

    /// Bytes that may be in flight.
    #[must_use]
    pub const fn window(&self) -> u32 {
        self.cwnd
    }

    /// Segments are of another size from now on. The window stays (RFC 1191 §6.5), but holds one segment at least.
    pub fn set_mss(&mut self, mss: u16) {
        self.mss = u32::from(mss);
        self.cwnd = self.cwnd.max(self.mss);
    }

    /// Where slow start ends.
    #[must_use]
    pub const fn threshold(&self) -> u32 {
        self.ssthresh
    }

    /// Bytes of a segment.
    #[must_use]
    pub const fn mss(&self) -> u32 {
        self.mss
    }

    /// Whether the window grows by what is acknowledged.
    #[must_use]
    pub const fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Recovery says how much may be in flight while it lasts; at least one segment.
    pub fn set_window(&mut self, cwnd: u32) {
        self.cwnd = cwnd.clamp(self.mss, MAX_WINDOW);
    }

    /// `acked` bytes were newly acknowledged, outside of recovery, and the window was what held the sender back.
    pub fn on_ack(&mut self, acked: u32, now: Time, srtt: Duration) {
        // By bytes, so that a peer that acknowledges every second segment does not slow it down (RFC 3465, L = 2).
        let some = acked.min(2 * self.mss);
        let in_slow_start = self.in_slow_start();
        let cwnd = match &mut self.law {
            Law::Start(h) => {
                let some = acked.min(hystart::MOST_SEGMENTS * self.mss);
                let divisor = if h.is_conservative() { hystart::CONSERVATIVE_DIVISOR } else { 1 };
                self.cwnd.saturating_add(some / divisor)
            }
            Law::NewReno | Law::Cubic(_) if in_slow_start => self.cwnd.saturating_add(some),
            Law::NewReno => {
                let step = u64::from(self.mss) * u64::from(some);
                self.cwnd.saturating_add((step / u64::from(self.cwnd.max(1))).max(1) as u32)
            }
            Law::Cubic(c) => c.on_ack(self.cwnd, acked.min(self.cwnd), self.mss, now, srtt),
        };
        self.cwnd = cwnd.min(MAX_WINDOW);
    }

    /// Something was acknowledged while the sender had less to send than it might: the window is not known to be right
    /// and stays (RFC 5681 §4.1, RFC 9438 §5.8); the time does not count as growth.
    pub fn on_unused(&mut self) {
        if let Law::Cubic(c) = &mut self.law {
            c.pause();
        }
    }

    /// A loss was found with `flight` bytes out: the threshold moves. The window is left to recovery.
    pub fn on_loss(&mut self, flight: u32) {
        // What limited transmit let out beyond the window does not count (RFC 3042 §2).
        let used = flight.min(self.cwnd);
        self.ssthresh = self.reduced(used);
    }

    /// The peer heard of a congestion mark, with `flight` bytes out (RFC 3168 §6.1.2, RFC 9438 §4.6): as for a loss, and at
    /// once, for there is nothing to repair.
    pub fn on_ecn(&mut self, flight: u32) {
        self.on_loss(flight);
        self.cwnd = self.cwnd.min(self.ssthresh);
    }

    fn reduced(&mut self, used: u32) -> u32 {
        self.settle();
        let to = match &mut self.law {
            Law::Start(_) | Law::NewReno => used / 2,
            Law::Cubic(c) => {
                c.on_loss(used);
                cubic::reduced(used)
            }
        };
        to.max(2 * self.mss)
    }

    /// The retransmission timer fired with `flight` bytes out (RFC 5681 §3.1: loss window of one segment).
    /// `again` says that the same data timed out before: the threshold is then kept.
    ///
    /// During a recovery that has not come to its end what is not acknowledged piles up, window after window, most of it
    /// known to have arrived: it says nothing about what the path takes, so no more than a window counts.
    pub fn on_timeout(&mut self, flight: u32, again: bool) {
        if !again {
            self.ssthresh = self.reduced(flight.min(self.cwnd));
        }
        if let Law::Cubic(c) = &mut self.law {
            c.on_timeout();
        }
        self.cwnd = self.mss;
    }

    /// What the window and the threshold were reduced for was no loss: at least as large as they were (RFC 4015 §3.1).
    pub fn restore(&mut self, window: u32, threshold: u32) {
        self.cwnd = self.cwnd.max(window.min(MAX_WINDOW));
        self.ssthresh = self.ssthresh.max(threshold);
        self.on_unused();
    }

    /// Nothing was in flight for longer than the RTO: what the path takes is no longer known, and sending begins with
    /// the initial window (RFC 5681 §4.1).
    pub fn restart(&mut self) {
        self.cwnd = self.cwnd.min(initial_window(self.mss));
        self.on_unused();
    }
}

fn initial_window(mss: u32) -> u32 {
    (INITIAL_SEGMENTS * mss).min(INITIAL_BYTES.max(2 * mss))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SeqNum;

    const NOW: Time = Time::from_micros(1_000_000);
    const RTT: Duration = Duration::from_millis(10);

    fn reno() -> Congestion {
        Congestion::new(Algorithm::NewReno, 1000)
    }

    #[test]
    fn d11_slow_start_then_avoidance() {
        let mut c = reno();
        assert_eq!(c.window(), 10_000);
        c.on_ack(1000, NOW, RTT);
        assert_eq!(c.window(), 11_000);
        c.on_timeout(10_000, false);
        assert_eq!(c.window(), 1000);
        for _ in 1..=4 {
            c.on_ack(1000, NOW, RTT);
        }
        assert_eq!(c.window(), 5000);
        c.on_ack(1000, NOW, RTT);
        assert_eq!(c.window(), 5200, "beyond the threshold a segment per window");
    }

    #[test]
    fn d11_hystart_ends_the_first_slow_start_at_the_window_it_has_reached() {
        for algorithm in [Algorithm::NewReno, Algorithm::Cubic] {
            let mut c = Congestion::new(algorithm, 1000);
            let mut una = SeqNum::new(7);
            let mut windows = Vec::new();
            // Three rounds of 20 ms, then the queue fills.
            for rtt in [20, 20, 20, 30, 31, 32, 33, 34, 35, 36] {
                let nxt = una + c.window();
                while una != nxt {
                    una += 1000.min(nxt - una);
                    let nxt = una + (c.window() - 1000);
                    // Without a time there is no row of ACKs.
                    let a = Arrival { ack: una, nxt, rtt_ms: Some(rtt), now_us: 0, least_us: u32::MAX };
                    c.on_round_trip(&a);
                    c.on_ack(1000, NOW, Duration::from_millis(20));
                }
                windows.push(c.window() / 1000);
            }
            assert_eq!(windows[..3], [20, 40, 80], "{algorithm:?}");
            // The eighth sample of the fourth round shows it; from there on by a quarter, for five rounds.
            assert!((95..=110).contains(&windows[3]), "{algorithm:?}: {windows:?}");
            for w in windows[3..8].windows(2) {
                assert!((120..=126).contains(&(w[1] * 100 / w[0])), "{algorithm:?}: {windows:?}");
            }
            assert!(!c.in_slow_start() && !c.wants_round_trips());
            assert!((c.threshold() / 1000).abs_diff(windows[7]) <= 1, "{algorithm:?}: {windows:?}");
            assert!(windows[9] - windows[7] <= 3, "avoidance: {windows:?}");
        }
    }

    #[test]
    fn d11_hystart_is_for_the_first_slow_start_alone() {
        let ends: [fn(&mut Congestion); 3] =
            [|c| c.on_loss(10_000), |c| c.on_timeout(10_000, false), |c| c.on_ecn(10_000)];
        for end in ends {
            let mut c = reno();
            assert!(c.wants_round_trips());
            end(&mut c);
            assert!(!c.wants_round_trips());
        }
    }

    #[test]
    fn d11_an_ack_of_many_segments_lets_the_first_slow_start_grow_by_eight_at_most() {
        let mut c = reno();
        c.on_ack(20_000, NOW, RTT);
        assert_eq!(c.window(), 18_000);
        c.on_timeout(10_000, false);
        c.on_ack(20_000, NOW, RTT);
        assert_eq!(c.window(), 3000, "later ones by two");
    }

    #[test]
    fn d11_the_initial_window_is_that_of_rfc_6928() {
        for (mss, window) in [(88, 880), (536, 5360), (1460, 14_600), (1461, 14_600), (8960, 17_920)] {
            for algorithm in [Algorithm::NewReno, Algorithm::Cubic] {
                assert_eq!(Congestion::new(algorithm, mss).window(), window, "{mss}");
            }
        }
    }

    #[test]
    fn d09_a_second_timeout_of_the_same_data_keeps_the_threshold() {
        let mut c = reno();
        c.set_window(20_000);
        c.on_timeout(20_000, false);
        c.on_timeout(1000, true);
        assert_eq!(c.window(), 1000);
        for _ in 0..9 {
            c.on_ack(1000, NOW, RTT);
        }
        assert_eq!(c.window(), 10_000, "slow start up to half of what was in flight at first");
        c.on_ack(1000, NOW, RTT);
        assert_eq!(c.window(), 10_100);
    }

    #[test]
    fn d11_a_timeout_takes_the_window_for_what_the_path_held_however_much_is_unacknowledged() {
        for (algorithm, threshold) in [(Algorithm::NewReno, 15_000), (Algorithm::Cubic, 21_000)] {
            let mut c = Congestion::new(algorithm, 1000);
            c.set_window(30_000);
            c.on_timeout(500_000, false);
            assert_eq!((c.window(), c.threshold()), (1000, threshold));
            let mut c = Congestion::new(algorithm, 1000);
            c.on_timeout(4000, false);
            assert_eq!(
                c.threshold(),
                if algorithm == Algorithm::Cubic { 2800 } else { 2000 },
                "less was out"
            );
        }
    }

    #[test]
    fn d11_the_window_never_wraps_or_reaches_zero() {
        for algorithm in [Algorithm::NewReno, Algorithm::Cubic] {
            let mut c = Congestion::new(algorithm, u16::MAX);
            for _ in 0..100_000 {
                c.on_ack(u32::MAX, NOW, RTT);
            }
            assert_eq!(c.window(), MAX_WINDOW);
            c.on_loss(u32::MAX);
            c.set_window(c.threshold());
            for i in 0..100_000 {
                c.on_ack(u32::MAX, NOW + Duration::from_secs(i), Duration::from_secs(60));
                assert!(c.window() >= u32::from(u16::MAX) && c.window() <= MAX_WINDOW);
            }
            c.on_loss(0);
            c.set_window(0);
            assert_eq!((c.window(), c.threshold()), (65_535, 131_070));
        }
    }

    #[test]
    fn d11_a_window_that_was_laid_down_goes_on_as_it_was() {
        for algorithm in [Algorithm::NewReno, Algorithm::Cubic] {
            let mut c = Congestion::new(algorithm, 1000);
            c.set_window(50_000);
            c.on_loss(50_000);
            c.set_window(c.threshold());
            for i in 0..100 {
                c.on_ack(1000, NOW + Duration::from_millis(i), RTT);
            }
            assert_eq!(c.in_growth(), algorithm == Algorithm::Cubic);
            c.on_unused();
            assert!(!c.in_growth());
            let mut resumed = Congestion::resume(algorithm, 1000, &c.rest());
            for i in 0..1000 {
                let now = NOW + Duration::from_millis(5000 + i);
                c.on_ack(1000, now, RTT);
                resumed.on_ack(1000, now, RTT);
                assert_eq!(c.window(), resumed.window());
            }
            c.on_loss(60_000);
            resumed.on_loss(60_000);
            assert_eq!(c, resumed, "{algorithm:?}");
        }
    }

    #[test]
    fn d11_after_idleness_sending_begins_with_the_initial_window() {
        for algorithm in [Algorithm::NewReno, Algorithm::Cubic] {
            let mut c = Congestion::new(algorithm, 1000);
            c.set_window(50_000);
            c.restart();
            assert_eq!(c.window(), 10_000);
            c.set_window(3000);
            c.restart();
            assert_eq!(c.window(), 3000, "idleness gives nothing");
        }
    }
}
