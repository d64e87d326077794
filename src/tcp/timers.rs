//! What time does to a connection: retransmission (RFC 6298), window probes (RFC 9293 §3.8.6.1), delayed ACKs, and the
//! limits that bound every state.
//!
//! A connection has one deadline, the earliest of its timers ([`Live::deadline`]). The worker keeps it on the wheel
//! lazily: when it comes early, [`Live::on_timer`] finds nothing due and the new deadline is armed.

use super::conn::{ConnFlags, Env, Live};
use super::record::Cause;
use super::state::State;
use crate::time::Time;

impl Live<'_> {
    /// When [`Live::on_timer`] wants to be called next.
    #[must_use]
    pub fn deadline(&self, cfg: &super::TcpConfig) -> Time {
        self.rtx_at
            .get()
            .min(self.loss_at.get())
            .min(self.flight.ack_at)
            .min(self.limit_at(cfg).0)
            .min(self.linger_end())
            .min(self.flight.raise_at)
            .min(self.keep_alive_at(cfg))
    }

    fn linger_end(&self) -> Time {
        if self.flags.has(ConnFlags::LINGER) { self.flight.linger_until } else { Time::NEVER }
    }

    /// The limit that bounds the present state, and the cause when it is reached.
    fn limit_at(&self, cfg: &super::TcpConfig) -> (Time, Cause) {
        let since = self.state_since.get();
        let idle = cfg.limits(self.service).idle;
        let idle =
            if idle.is_zero() { Time::NEVER } else { self.last_rx.get().max(self.progress_at.get()) + idle };
        match self.state() {
            // From the last progress: a half-closed download that still flows is no leak.
            State::CloseWait => (since.max(self.progress_at.get()) + cfg.close_wait, Cause::CloseWaitLimit),
            // The peer's acknowledgments of a closed window are no progress: an orphan ends (c16).
            State::FinWait1 | State::Closing | State::LastAck if !self.closing_done() => {
                (since.max(self.progress_at.get()) + cfg.patience(self.service), Cause::GiveUp)
            }
            State::FinWait2 if self.flags.has(ConnFlags::READ_CLOSED) => {
                // Since the wait began, or since the service stopped reading.
                (since.max(self.progress_at.get()) + cfg.fin_wait_2, Cause::FinWait2Limit)
            }
            // Only the service is waited for, as in CLOSE_WAIT.
            State::FinWait1 | State::Closing | State::LastAck | State::TimeWait => {
                (since.max(self.progress_at.get()) + cfg.close_wait, Cause::CloseWaitLimit)
            }
            State::Established if self.stalled_at(cfg) < idle => (self.stalled_at(cfg), Cause::ZeroWindow),
            State::Established | State::FinWait2 => (idle, Cause::Idle),
            State::Closed | State::Listen | State::SynSent | State::SynReceived => (Time::NEVER, Cause::Idle),
        }
    }

    /// When a peer that answers but takes nothing of what waits for it has had its time.
    fn stalled_at(&self, cfg: &super::TcpConfig) -> Time {
        let limit = cfg.limits(self.service).zero_window;
        if limit.is_zero() || self.flight.sndbuf.is_empty() {
            Time::NEVER
        } else {
            self.progress_at.get() + limit
        }
    }

    /// Does what is due at `now`; the caller then asks for output, and looks whether the state is `CLOSED`.
    pub fn on_timer(&mut self, env: &mut Env<'_>) {
        if self.flight.ack_at.due(env.now) {
            self.flight.ack_at = Time::NEVER;
            self.flags.set(ConnFlags::ACK_NOW);
        }
        if self.linger_end().due(env.now) {
            // From here on data is answered by RST, as after a full close.
            self.flags.clear(ConnFlags::LINGER);
        }
        if self.flight.raise_at.due(env.now) {
            self.try_larger();
        }
        let (limit, cause) = self.limit_at(env.cfg);
        if limit.due(env.now) {
            if self.closing_done() {
                self.stop_reading(cause);
            } else if self.state() == State::Established && cause == Cause::Idle {
                self.close_lingering(env, cause);
            } else {
                self.limit(env, cause);
            }
        }
        if self.keep_alive_at(env.cfg).due(env.now) {
            self.keep_alive(env);
        }
        if self.loss_at.get().due(env.now) {
            self.loss_timeout(env);
        }
        if self.rtx_at.get().due(env.now) {
            self.retransmission_timeout(env);
        }
    }

    /// When a peer that is quiet by right is to be asked whether it is still there (RFC 9293 §3.8.4): only while nothing
    /// waits for its acknowledgment, which would ask it anyway.
    fn keep_alive_at(&self, cfg: &super::TcpConfig) -> Time {
        let Some(k) = cfg.limits(self.service).keep_alive else { return Time::NEVER };
        let open = matches!(self.state(), State::Established | State::CloseWait | State::FinWait2);
        if !open || self.in_flight() > 0 || !self.flight.sndbuf.is_empty() {
            return Time::NEVER;
        }
        self.last_answer() + k.idle + k.interval * u32::from(self.tries)
    }

    /// Asks, by a segment left of the window that must be answered; or gives up after so many in vain.
    fn keep_alive(&mut self, env: &mut Env<'_>) {
        let Some(k) = env.cfg.limits(self.service).keep_alive else { return };
        if self.tries >= k.probes {
            self.limit(env, Cause::GiveUp);
            return;
        }
        self.tries += 1;
        self.flags.set(ConnFlags::PROBE);
    }

    /// Before the RTO: a loss is looked for.
    fn loss_timeout(&mut self, env: &mut Env<'_>) {
        if self.take_reordering_timeout() {
            self.reordering_timeout(env);
        } else if self.may_probe() {
            self.probe_timeout(env.now);
        } else if self.in_flight() == 0 {
            self.conclude_probe();
            self.flight.forget();
        }
    }

    fn retransmission_timeout(&mut self, env: &mut Env<'_>) {
        match self.state() {
            State::SynSent | State::SynReceived => self.syn_timeout(env),
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => self.data_timeout(env),
            State::Closed | State::Listen | State::TimeWait => self.conn.rtx_at.set(Time::NEVER),
        }
    }

    fn syn_timeout(&mut self, env: &mut Env<'_>) {
        self.tries += 1;
        if self.tries > env.cfg.syn_retries {
            self.limit(env, Cause::GiveUp);
            return;
        }
        // Something on the way may drop SYNs that ask for ECN (RFC 3168 §6.1.1.1).
        self.flags.clear(ConnFlags::TIMING | ConnFlags::ECN_ASKED);
        self.rtt.back_off();
        self.flags.set(ConnFlags::SEND_SYN);
        self.conn.rtx_at.set(env.now + self.rtt.rto());
    }

    fn data_timeout(&mut self, env: &mut Env<'_>) {
        let flight = self.in_flight();
        if flight == 0 {
            self.persist(env);
            return;
        }
        // Whoever closes a window on what was sent into it answers, and is not given up for that (§3.8.6.1).
        let alive = if self.snd_wnd == 0 { self.last_answer() } else { self.progress_at.get() };
        if env.now.since(alive) >= env.cfg.patience(self.service) {
            self.limit(env, Cause::GiveUp);
            return;
        }
        self.lose_flight(env, flight);
        self.rtt.back_off();
        self.conn.rtx_at.set(env.now + self.rtt.rto());
        self.suspect_black_hole(env);
    }

    /// Nothing is in flight but something waits: the window is closed, or too small to be worth it.
    fn persist(&mut self, env: &mut Env<'_>) {
        if self.flight.sndbuf.is_empty() {
            self.conn.rtx_at.set(Time::NEVER);
            return;
        }
        if self.snd_wnd == 0 {
            if env.now.since(self.last_answer()) >= env.cfg.patience(self.service) {
                self.limit(env, Cause::GiveUp);
                return;
            }
            self.flags.set(ConnFlags::PROBE);
        } else {
            self.flags.set(ConnFlags::FORCE);
        }
        self.rtt.back_off();
        self.conn.rtx_at.set(env.now + self.rtt.rto());
    }

    /// After output: if bytes wait and nothing is in flight whose ACK would bring news, the persist timer must run.
    pub fn arm_persist(&mut self, now: Time) {
        let waits = self.state().synchronized() && self.in_flight() == 0 && !self.flight.sndbuf.is_empty();
        if waits && self.rtx_at.get() == Time::NEVER {
            self.conn.rtx_at.set(now + self.rtt.rto());
            if self.state().can_send() {
                // The wait for an answer begins here; an orphan's patience is not renewed.
                self.conn.progress_at.set(now);
            }
        }
    }

    /// After output, where nothing but memories keep a flight: they last for an RTO.
    pub fn arm_forgetting(&mut self, now: Time) {
        if self.in_flight() == 0 && self.loss_at.get() == Time::NEVER {
            self.conn.loss_at.set(now + self.conn.rtt.rto());
        }
    }

    /// When the peer last gave a sign of life, or was last asked for one after being quiet by right.
    fn last_answer(&self) -> Time {
        self.last_rx.get().max(self.progress_at.get())
    }
}
