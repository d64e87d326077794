//! What follows a retransmission timeout, and how it is taken back when it was spurious.
//!
//! With SACK all is taken for lost but what the peer has, and sent again hole by hole as slow start lets it out. Was
//! nothing lost, only late? The first ACK that brings something new tells:
//!
//! * by its timestamp, when that echoes one from before the timeout (Eifel, RFC 3522);
//! * without timestamps, by what it leads to: new data goes out instead of what seems lost, and when then something is
//!   acknowledged that was sent once only, the timeout was spurious (F-RTO, RFC 5682 §3).
//!
//! The window is then what it was (RFC 4015), and nothing more is sent again.

use super::tlp::duplicate_block;
use super::{AckNews, Env, Live, Phase, SackNews, Undo};
use crate::tcp::conn::ConnFlags;
use crate::time::Time;
use crate::wire::Header;
use std::time::Duration;

/// What has been found out about a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Unknown,
    Genuine,
    Spurious,
}

impl Live<'_> {
    /// The retransmission timer fired with `flight` bytes out (RFC 5681 §3.1, RFC 6298 §5.4): the window falls to one
    /// segment.
    pub(in crate::tcp) fn lose_flight(&mut self, env: &mut Env<'_>, flight: u32) {
        let again = self.rtt.timed_out_before();
        let c = &self.flight.congestion;
        let undo = Undo { window: c.window(), threshold: c.threshold(), ts: self.ts_val(env.now) };
        let (undo, undoable) = match self.flight.recovery.phase {
            // The same data once more: what was before the first time counts.
            Phase::Loss(first) if again => (first, self.flags.has(ConnFlags::UNDO)),
            // One timeout upon another (RFC 5682 §3.1, step 1).
            Phase::Loss(_) => (undo, false),
            Phase::Open | Phase::Fast | Phase::Sack(_) => (undo, !again),
        };
        self.flight.congestion.on_timeout(flight, again);
        self.check_reneging(env);
        self.lose_all(env, undo);
        self.conn.flags.put(ConnFlags::UNDO, undoable && self.flight.recovery.by_scoreboard());
    }

    /// All in flight is lost but what the peer has, and is sent again; the window stays.
    pub(in crate::tcp) fn lose_all(&mut self, env: &mut Env<'_>, undo: Undo) {
        // Sent again, so not timed (Karn, RFC 6298 §3).
        let over = ConnFlags::TIMING | ConnFlags::RETRANSMIT | ConnFlags::UNDO | ConnFlags::NEW_FIRST;
        self.flags.clear(over | ConnFlags::PROBED | ConnFlags::TAIL_PROBE | ConnFlags::REO_WAIT);
        self.conn.loss_at.set(Time::NEVER);
        self.conn.rtx_at.set(env.now + self.rtt.rto());
        if self.flags.has(ConnFlags::SACK) {
            self.flight.scoreboard.forget_resent(env.pool);
            self.flight.recovery.begin(Phase::Loss(undo), self.snd_una, self.snd_max, self.snd_max);
            self.flight.snd_nxt = self.snd_max;
            self.flags.set(ConnFlags::RETRANSMIT);
        } else {
            // Go back to the first unacknowledged byte; what the peer had kept is jumped over by its ACK.
            self.flight.recovery.on_timeout(self.snd_max);
            self.flags.set(ConnFlags::FORCE);
            self.flight.snd_nxt = self.snd_una;
        }
    }

    /// An acknowledgment after a timeout.
    pub(super) fn in_timeout_recovery(
        &mut self,
        env: &mut Env<'_>,
        h: &Header,
        news: AckNews,
        sack: SackNews,
        undo: Undo,
    ) {
        if news.acked > 0 {
            self.flags.clear(ConnFlags::RETRANSMIT);
        }
        if self.flags.has(ConnFlags::UNDO) {
            match self.judge_timeout(h, news, sack, undo) {
                Finding::Unknown => {}
                Finding::Genuine => self.flags.clear(ConnFlags::UNDO | ConnFlags::NEW_FIRST),
                Finding::Spurious => {
                    self.undo_timeout(env, h, undo);
                    self.look_for_loss(env, 0);
                    return;
                }
            }
        }
        let delivered = self.delivered(news, sack);
        if delivered > 0 {
            // One segment an ACK: nothing is known of what the path takes (RFC 3465 §2.3).
            let one = delivered.min(self.flight.congestion.mss());
            self.flight.congestion.on_ack(one, env.now, self.rtt.srtt());
        }
        if h.ack.at_or_after(self.flight.recovery.recover) {
            self.leave_recovery(env);
            self.look_for_loss(env, delivered);
            return;
        }
        self.sack_step(env, delivered);
    }

    /// Whether the timeout was spurious, by an acknowledgment after it.
    fn judge_timeout(&mut self, h: &Header, news: AckNews, sack: SackNews, undo: Undo) -> Finding {
        if let Some(ts) = h.options.timestamps.filter(|_| self.flags.has(ConnFlags::TIMESTAMPS)) {
            return if news.acked == 0 {
                Finding::Unknown
            } else if ts.ecr.wrapping_sub(undo.ts).cast_signed() < 0 {
                Finding::Spurious
            } else {
                Finding::Genuine
            };
        }
        if self.flags.has(ConnFlags::NEW_FIRST) {
            // Steps 3a and 3b.
            return if sack.original || h.ack.after(self.flight.recovery.high_rxt) {
                Finding::Spurious
            } else if news.acked == 0 {
                Finding::Genuine
            } else {
                Finding::Unknown
            };
        }
        if news.acked == 0 {
            return Finding::Unknown;
        }
        // Step 2: it must leave something open, and there must be something new to send.
        let unsent = self.data_end().after(self.snd_max) && self.snd_wnd > self.in_flight();
        if h.ack.at_or_after(self.flight.recovery.recover) || !unsent {
            return Finding::Genuine;
        }
        self.flags.set(ConnFlags::NEW_FIRST);
        Finding::Unknown
    }

    /// The timeout was spurious (RFC 4015 §3): all is as it was, and the round trip is as long as it proved to be.
    fn undo_timeout(&mut self, env: &mut Env<'_>, h: &Header, undo: Undo) {
        self.flight.congestion.restore(undo.window, undo.threshold);
        self.leave_recovery(env);
        self.flight.recovery.recover = self.snd_una - 1;
        self.flight.recovery.high_rxt = self.snd_una;
        self.flags.clear(ConnFlags::UNDO | ConnFlags::NEW_FIRST);
        if let Some(took) = self.trip_of_spurious(env, h) {
            self.rtt.sample(took, env.now);
        }
        if self.in_flight() > 0 {
            self.conn.rtx_at.set(env.now + self.rtt.rto());
        }
    }

    /// What is learnt of the round trip from an ACK that proves a timeout spurious. An old echo may mean that the path became
    /// longer, or that the ACK of what arrived was lost and the retransmission drew another: then it would measure the wait
    /// itself, each timeout make the next one longer, and after a few of them the connection stand still for minutes.
    fn trip_of_spurious(&self, env: &Env<'_>, h: &Header) -> Option<Duration> {
        let since = self.since_echo(env.now, h)?;
        if duplicate_block(h).is_some() {
            // The retransmission came twice: what it drew took no longer than since it was sent.
            let ms = self.ts_val(env.now).wrapping_sub(self.flight.rtx_ts);
            return Some(since.min(Duration::from_millis(u64::from(ms))));
        }
        // After several timeouts it cannot be told which of them is answered (Karn).
        (self.rtt.backoffs() <= 1).then_some(since)
    }

    /// Whether what seems lost is to wait for new data, which shows whether it is (RFC 5682 §3.1, step 2b).
    pub(in crate::tcp) fn new_data_first(&self) -> bool {
        self.flags.has(ConnFlags::NEW_FIRST)
            && self.data_end().after(self.snd_max)
            && self.snd_wnd > self.in_flight()
    }

    /// After a timeout the peer may have thrown away what it had said it has (RFC 2018 §8). It has, if it stops right
    /// where it said that it has more; and a second timeout in a row is reason enough to believe nothing.
    fn check_reneging(&mut self, env: &mut Env<'_>) {
        if self.rtt.timed_out_before() || self.flight.scoreboard.has(env.pool, self.snd_una) {
            self.flight.scoreboard.clear(env.pool);
        }
    }
}
