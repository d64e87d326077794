//! A service that is still reading when the protocol is done.
//!
//! ```text
//!  FIN_WAIT_2 ──FIN──▶ TIME_WAIT ──read, or limit──▶ the small record, for what is left of 2MSL
//!  LAST_ACK ──ACK of FIN (held back)──▶ LAST_ACK ──read, or limit──▶ CLOSED
//! ```
//!
//! Both FINs are acknowledged, and the peer is owed nothing but an ACK of what it sends again; but bytes that came
//! before its FIN may be unread. Then the `Conn` lives on for its reading side: the service is offered the rest, told
//! of the end, and only then told that the connection is closed. Towards the peer it is in `TIME_WAIT` (or, after a
//! passive close, at its end) all the while: a late segment is judged by the same rules as by the small record.

use super::conn::{ConnFlags, Env, Live};
use super::input::{Delivery, Verdict};
use super::record::Cause;
use super::state::{Event, State};
use super::time_wait::{TimeWait, WaitVerdict};
use crate::drop::DropReason;
use crate::wire::Header;

impl Live<'_> {
    /// Whether both sides have closed and heard of it: nothing is left to end.
    #[must_use]
    pub fn closing_done(&self) -> bool {
        match self.state() {
            State::TimeWait => true,
            State::LastAck => self.flags.has(ConnFlags::FIN_ACKED),
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing => false,
        }
    }

    /// Whether the service may still take bytes that came before the peer's FIN.
    #[must_use]
    pub fn held_by_reader(&self) -> bool {
        self.unread() > 0 && !self.flags.has(ConnFlags::READ_CLOSED)
    }

    /// The acknowledgment of our FIN in `LAST_ACK` has its effect once nobody reads any more. Returns whether it had it
    /// now.
    pub fn leave_last_ack(&mut self, env: &mut Env<'_>) -> bool {
        let leaves = self.state() == State::LastAck && self.closing_done() && !self.held_by_reader();
        if leaves {
            self.event(Event::AckOfFin, env);
        }
        leaves
    }

    /// Nobody will read what is left: of an end that both sides agreed on, only that remains to be said.
    pub(super) fn stop_reading(&mut self, cause: Cause) {
        if self.held_by_reader() {
            self.conn.ending.set_cause(cause);
        }
        self.flags.set(ConnFlags::READ_CLOSED);
    }

    /// A segment for a connection in `TIME_WAIT` whose service is still reading. A SYN for a new incarnation has to wait
    /// for the service, which §3.10.7.4 leaves to the receiver: the ACK that answers it makes the peer try again.
    pub(super) fn in_time_wait(
        &mut self,
        env: &mut Env<'_>,
        h: &Header,
        payload: usize,
    ) -> Result<Delivery, Verdict> {
        if h.flags.syn() {
            self.event(Event::Syn, env);
        }
        match TimeWait::new(self).on_segment(h, payload) {
            WaitVerdict::AckAndRestart => {
                self.event(Event::Fin, env);
                self.conn.state_since.set(env.now);
                self.flags.set(ConnFlags::ACK_NOW);
                Ok(Delivery::default())
            }
            WaitVerdict::Ignore => Ok(Delivery::default()),
            WaitVerdict::Ack => {
                self.challenge(env);
                Err(Verdict::Dropped(DropReason::OutOfWindow))
            }
            WaitVerdict::IgnoreReset => {
                self.event(Event::Rst, env);
                Err(Verdict::Dropped(DropReason::ResetInTimeWait))
            }
            WaitVerdict::Reopen { .. } => {
                self.challenge(env);
                Err(Verdict::Dropped(DropReason::SynInWindow))
            }
        }
    }
}
