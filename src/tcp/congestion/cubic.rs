//! CUBIC (RFC 9438) in integers: time in 1/1024 s, so that a cube is divided by a shift; windows in bytes.
//!
//! Between two reductions the window follows `C (t − K)³ + W_max`: steep far from the window of the last loss, flat
//! around it. Where standard TCP would have more, its estimate `W_est` holds (§4.3).

use crate::time::Time;
use std::time::Duration;

/// Units of `t` and `K` in a second, as a shift.
const SECOND_BITS: u32 = 10;
/// Longest distance from `K` that is calculated with, 128 s: beyond, the window is far above any there is.
const MAX_DISTANCE: u64 = (1 << 17) - 1;
/// Bits of the fraction of a byte in `w_est`: a segment's share of a large window is less than a byte.
const EST_BITS: u32 = 16;
/// Bits of the fraction of a byte in `fraction`.
const FRACTION_BITS: u32 = 24;

/// What CUBIC keeps of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cubic {
    /// Window of the last reduction, which the curve levels out at; 0 before the first and after a timeout.
    w_max: u32,
    /// Window just before the last reduction.
    prior: u32,
    /// When the present stage of growth began; [`Time::NEVER`] before its first acknowledgment.
    epoch: Time,
    /// From `epoch` to where the curve reaches `w_max`, in 1/1024 s.
    k: u32,
    /// Fraction of a byte that the window is owed.
    fraction: u32,
    /// What standard TCP would have, in 2⁻¹⁶ bytes.
    w_est: u64,
}

impl Default for Cubic {
    fn default() -> Self {
        Self { w_max: 0, prior: 0, epoch: Time::NEVER, k: 0, fraction: 0, w_est: 0 }
    }
}

/// `beta_cubic` is 0.7 (§4.6).
pub(super) fn reduced(window: u32) -> u32 {
    (u64::from(window) * 7 / 10) as u32
}

impl Cubic {
    /// What outlives a pause: `w_max` and `prior`.
    pub(super) const fn rest(&self) -> (u32, u32) {
        (self.w_max, self.prior)
    }

    /// After a pause.
    pub(super) fn resume(w_max: u32, prior: u32) -> Self {
        Self { w_max, prior, ..Self::default() }
    }

    /// Whether a stage of growth lasts.
    pub(super) fn in_growth(&self) -> bool {
        self.epoch != Time::NEVER
    }

    /// A loss at this window (§4.6), with fast convergence (§4.7).
    pub(super) fn on_loss(&mut self, window: u32) {
        self.prior = window;
        self.w_max = if window < self.w_max { (u64::from(window) * 17 / 20) as u32 } else { window };
        self.pause();
    }

    /// §4.8: the curve after a timeout begins at the window where slow start ends.
    pub(super) fn on_timeout(&mut self) {
        self.w_max = 0;
        self.pause();
    }

    /// The stage of growth ends; the next acknowledgment begins a new one at the window as it is then.
    pub(super) fn pause(&mut self) {
        self.epoch = Time::NEVER;
    }

    fn begin(&mut self, cwnd: u32, mss: u32, now: Time) {
        self.epoch = now;
        self.fraction = 0;
        self.w_est = u64::from(cwnd) << EST_BITS;
        // §4.2: K is the cube root of (W_max - cwnd) / C in segments and seconds, C being 0.4.
        self.w_max = self.w_max.max(cwnd);
        let cube = ((u64::from(self.w_max - cwnd) * 5) << (3 * SECOND_BITS)) / u64::from(2 * mss.max(1));
        self.k = cube_root(cube);
    }

    /// The curve at `t`, in bytes.
    fn window_at(&self, t: u64, mss: u32) -> u32 {
        let k = u64::from(self.k);
        let distance = t.abs_diff(k).min(MAX_DISTANCE);
        let cube = (distance * distance * distance) >> SECOND_BITS;
        let change =
            ((cube * u64::from(2 * mss) / 5) >> (2 * SECOND_BITS)).min(u64::from(super::MAX_WINDOW)) as u32;
        if t < k { self.w_max.saturating_sub(change) } else { self.w_max.saturating_add(change) }
    }

    /// The window after `acked` bytes of at most `cwnd` were acknowledged in congestion avoidance (§4.2 to §4.5).
    pub(super) fn on_ack(&mut self, cwnd: u32, acked: u32, mss: u32, now: Time, srtt: Duration) -> u32 {
        if self.epoch == Time::NEVER {
            self.begin(cwnd, mss, now);
        }
        let t = units(now.since(self.epoch));
        // §4.3: W_est grows by alpha segments a round trip, 3 (1 - beta) / (1 + beta), or by one once it is where
        // the last reduction was.
        let (up, down) = if (self.w_est >> EST_BITS) < u64::from(self.prior) { (9, 17) } else { (1, 1) };
        let step = ((u64::from(mss) * up) << EST_BITS) / down;
        self.w_est += step * u64::from(acked) / u64::from(cwnd.max(1));
        let est = (self.w_est >> EST_BITS).min(u64::from(super::MAX_WINDOW)) as u32;
        if self.window_at(t, mss) < est {
            return cwnd.max(est);
        }
        // §4.4, §4.5: towards where the curve will be a round trip from now, by at most half the window in that time.
        let target = self.window_at(t + units(srtt), mss).clamp(cwnd, cwnd.saturating_add(cwnd / 2));
        let share = (u64::from(target - cwnd) << FRACTION_BITS) / u64::from(cwnd.max(1));
        let grown = share * u64::from(acked) + u64::from(self.fraction);
        self.fraction = (grown & ((1 << FRACTION_BITS) - 1)) as u32;
        cwnd.saturating_add((grown >> FRACTION_BITS) as u32)
    }
}

fn units(d: Duration) -> u64 {
    let us = u64::try_from(d.as_micros()).unwrap_or(u64::MAX).min(1 << 40);
    (us << 7) / 125_000
}

/// Largest integer whose cube is at most `n`, bit by bit.
fn cube_root(n: u64) -> u32 {
    let mut root = 0u64;
    for bit in (0..21).rev() {
        let more = root | 1 << bit;
        if more * more * more <= n {
            root = more;
        }
    }
    root as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    #[test]
    fn d11_cube_roots_are_exact() {
        for n in [0u64, 1, 7, 8, 26, 27, 1 << 60, (1 << 60) - 1, 9_261_000_000] {
            let r = u64::from(cube_root(n));
            assert!(r * r * r <= n && (r + 1).pow(3) > n, "{n}: {r}");
        }
        assert_eq!(cube_root(u64::MAX), (1 << 21) - 1, "the largest it can say");
    }

    #[test]
    fn d11_the_curve_is_that_of_rfc_9438() {
        let mut c = Cubic::default();
        c.on_loss(1000 * MSS);
        let cwnd = reduced(1000 * MSS);
        assert_eq!(cwnd, 700 * MSS);
        c.begin(cwnd, MSS, Time::ZERO);
        let k = (300.0f64 / 0.4).cbrt();
        assert!((f64::from(c.k) / 1024.0 - k).abs() < 0.002, "{}", c.k);
        for ms in (0..30_000u64).step_by(100) {
            let t = ms as f64 / 1000.0;
            let want = (0.4 * (t - k).powi(3) + 1000.0) * f64::from(MSS);
            let got = f64::from(c.window_at(units(Duration::from_millis(ms)), MSS));
            assert!((got - want).abs() <= want * 0.002, "at {t} s: {got}, formula: {want}");
        }
    }

    /// Round trips of full windows from the reduction on; the window after each.
    fn drive(c: &mut Cubic, mut cwnd: u32, rtt: Duration, rounds: u32) -> Vec<u32> {
        let mut now = Time::from_micros(7);
        (0..rounds)
            .map(|_| {
                let mut left = cwnd;
                while left > 0 {
                    let acked = left.min(MSS);
                    cwnd = c.on_ack(cwnd, acked, MSS, now, rtt);
                    left -= acked;
                }
                now += rtt;
                cwnd
            })
            .collect()
    }

    #[test]
    fn d11_a_long_path_is_back_at_its_window_after_k() {
        let mut c = Cubic::default();
        c.on_loss(1000 * MSS);
        let rtt = Duration::from_millis(100);
        let got = drive(&mut c, 700 * MSS, rtt, 200);
        for (i, &w) in got.iter().enumerate() {
            let t = (i + 1) as f64 * 0.1;
            let want = (0.4 * (t - 750f64.cbrt()).powi(3) + 1000.0) * f64::from(MSS);
            if want < 1_400_000.0 {
                assert!((f64::from(w) - want).abs() < want * 0.03, "round {i}: {w}, formula {want}");
            }
        }
        assert!(got.windows(2).all(|w| w[0] <= w[1]), "it never shrinks");
    }

    #[test]
    fn d11_on_a_short_path_it_grows_as_standard_tcp_would() {
        let mut c = Cubic::default();
        c.on_loss(20 * MSS);
        // A round trip of 1 ms: the curve has hardly moved when standard TCP is back.
        let got = drive(&mut c, 14 * MSS, Duration::from_millis(1), 40);
        // alpha is 9/17 of a segment a round trip up to the old window, one segment beyond it.
        let at_prior = got.iter().position(|&w| w >= 20 * MSS).expect("it comes back");
        assert!((10..=13).contains(&at_prior), "6 segments at 9/17 a round trip: {at_prior}");
        let later = f64::from(got[39] - got[29]) / f64::from(10 * MSS);
        assert!((0.9..=1.1).contains(&later), "then a segment a round trip: {later}");
    }

    #[test]
    fn d11_fast_convergence_and_timeout() {
        let mut c = Cubic::default();
        c.on_loss(100 * MSS);
        c.on_loss(80 * MSS);
        assert_eq!(c.w_max, 68 * MSS, "below the last one: leave room for others");
        c.on_timeout();
        c.begin(30 * MSS, MSS, Time::ZERO);
        assert_eq!((c.w_max, c.k), (30 * MSS, 0));
    }
}
