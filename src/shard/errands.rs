//! What the client's service wants done on its own account: connections to be opened, and calls that it asked for.
//!
//! ```text
//! turn ─▶ Service::errand ─▶ Open ─▶ free pair? room? ─▶ SYN           (else Service::not_opened)
//!                         ├▶ Call ─▶ Service::called ─▶ settle
//!                         └▶ Wait: the turn sleeps no longer than this
//! ```
//!
//! No mailbox is on this way: whoever generates load asks nobody. A pair in `TIME_WAIT` is taken again when the peer can
//! tell the new incarnation from the old one (RFC 6191 §2, seen from the side that sends the SYN): timestamps were in use
//! and their clock has moved on since, and the new initial sequence number lies above what the old one sent.

use super::tables::Found;
use super::{Core, Drain, Shard};
use crate::port::Port;
use crate::service::{Errand, NotOpened, Opening};
use crate::tcp::conn::ActiveOpen;
use crate::tcp::state::State;
use crate::time::Time;
use crate::wire::Tuple;
use std::time::Duration;

/// Errands per turn: each may send a segment, so no more than a burst.
const ERRANDS_PER_TURN: usize = 64;
/// How long a pair is held at least before it is taken again: a tick of the timestamp clock, so that the new incarnation's
/// first timestamp is above the old one's last.
const TIMESTAMP_TICK: Duration = Duration::from_millis(1);

impl<P: Port> Shard<P> {
    /// Does the errands of the client's service. Returns whether there was one.
    pub(super) fn errands(&mut self) -> bool {
        let Some(client) = self.client else {
            return false;
        };
        self.errands_at = if self.core.drain == Drain::No { self.core.now } else { Time::NEVER };
        for done in 0..ERRANDS_PER_TURN {
            // Without room for a SYN the next turn, which comes at once, goes on.
            if self.core.drain != Drain::No || self.port.tx_room() == 0 {
                return done > 0;
            }
            let now = self.core.now;
            let Some(service) = self.core.services.get_mut(usize::from(client)) else { return false };
            match service.errand(now) {
                Errand::Wait(until) => {
                    self.errands_at = until;
                    return done > 0;
                }
                Errand::Open(opening) => {
                    if let Err(why) = self.begin(&opening)
                        && let Some(service) = self.core.services.get_mut(usize::from(client))
                    {
                        service.not_opened(opening.user, why);
                    }
                }
                Errand::Call(tuple) => {
                    if let Some(key) = self.connection(&tuple) {
                        self.core.call(key);
                        self.settle(key, None);
                    }
                }
            }
        }
        true
    }

    /// Opens a connection for the client's service.
    fn begin(&mut self, o: &Opening) -> Result<(), NotOpened> {
        if self.core.tables.conns.is_full() {
            return Err(NotOpened::TableFull);
        }
        self.core.free_pair(&o.tuple)?;
        let service = self.client_service();
        let open = ActiveOpen { tuple: o.tuple, l2: o.l2, service, user: o.user };
        if self.connect(&open) { Ok(()) } else { Err(NotOpened::TableFull) }
    }
}

impl Core {
    /// Sees to it that a pair can be used: ends its `TIME_WAIT` if that may end.
    fn free_pair(&mut self, tuple: &Tuple) -> Result<(), NotOpened> {
        let hash = self.tables.hash(tuple);
        match self.tables.find(hash, tuple) {
            Found::Nothing => Ok(()),
            Found::Conn(_) | Found::Half(_) => Err(NotOpened::PairInUse),
            Found::Wait(key) => {
                self.can_be_taken_again(key)?;
                self.tables.end_wait(key);
                self.log.leave(State::TimeWait);
                self.block.counters.time_wait_reopened += 1;
                Ok(())
            }
        }
    }

    /// Whether a pair in `TIME_WAIT` may have a new incarnation that is opened from here.
    fn can_be_taken_again(&self, key: u32) -> Result<(), NotOpened> {
        let wait = self.tables.wait(key).filter(|w| w.ts_recent.is_some()).ok_or(NotOpened::PairInUse)?;
        let left = self.tables.wait_left(key, self.now).unwrap_or(Duration::MAX);
        let held = self.cfg.time_wait.saturating_sub(left);
        // Both clocks move on by themselves: the numbers' runs faster than all but the fastest senders.
        let newer = held >= TIMESTAMP_TICK && self.secret.isn(&wait.tuple, self.now).after(wait.snd_nxt);
        if newer { Ok(()) } else { Err(NotOpened::PairNotYet) }
    }
}
