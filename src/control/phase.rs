//! Where the process is in its life: a value that anyone can read and watch. It moves forward, and back only where an operator
//! takes back a drain.

use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// A phase of the process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Interfaces, rings and workers are being set up; nothing is answered yet.
    Starting,
    /// Every worker runs and the steering program is in place: new connections are taken.
    Ready,
    /// No new connections are taken; the ones there are end.
    Draining,
    /// Every worker has ended.
    Stopped,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::Draining, Self::Stopped];

    /// Its name in logs and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The shared phase. Clones share it.
#[derive(Clone, Debug)]
pub struct Phases(Arc<watch::Sender<Phase>>);

impl Default for Phases {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Starting)))
    }
}

impl Phases {
    /// The phase now.
    #[must_use]
    pub fn now(&self) -> Phase {
        *self.0.borrow()
    }

    /// Moves on to a later phase (phases may be skipped: a start that fails goes to [`Phase::Stopped`]). Returns
    /// whether it moved; a phase that is over does not come back by it, so two reasons to drain are one drain.
    #[expect(clippy::must_use_candidate, reason = "it is called for the move; the answer is for logs")]
    pub fn advance(&self, to: Phase) -> bool {
        self.0.send_if_modified(|phase| {
            let moves = to > *phase;
            if moves {
                *phase = to;
            }
            moves
        })
    }

    /// Goes back from [`Phase::Draining`] to [`Phase::Ready`]: an operator's drain was taken back. Returns whether it did.
    /// Only whoever knows that the process is not ending may ask for it.
    pub(super) fn resume(&self) -> bool {
        self.0.send_if_modified(|phase| {
            let back = *phase == Phase::Draining;
            if back {
                *phase = Phase::Ready;
            }
            back
        })
    }

    /// A receiver that sees every change from now on, though of several quick ones only the last.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Waits until the phase is `at_least` or later, and returns it.
    pub async fn reached(&self, at_least: Phase) -> Phase {
        let mut watch = self.watch();
        // The sender lives as long as `self`, so the wait cannot fail; if it could, the last value is the answer.
        match watch.wait_for(|p| *p >= at_least).await {
            Ok(phase) => *phase,
            Err(_) => self.now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_move_forward() {
        for from in Phase::ALL {
            for to in Phase::ALL {
                let p = Phases::default();
                p.advance(from);
                assert_eq!(p.advance(to), to > from, "{from} to {to}");
                assert_eq!(p.now(), from.max(to));
            }
        }
    }

    #[test]
    fn a_drain_can_be_taken_back_and_nothing_else() {
        for from in Phase::ALL {
            let p = Phases::default();
            p.advance(from);
            assert_eq!(p.resume(), from == Phase::Draining);
            assert_eq!(p.now(), if from == Phase::Draining { Phase::Ready } else { from });
        }
    }

    #[test]
    fn clones_share_the_phase_and_watchers_see_it_move() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let p = Phases::default();
        let mut watch = p.watch();
        let other = p.clone();
        let mover = std::thread::spawn(move || other.advance(Phase::Draining));
        assert_eq!(runtime.block_on(p.reached(Phase::Ready)), Phase::Draining);
        assert!(mover.join().unwrap());
        runtime.block_on(watch.changed()).unwrap();
        assert_eq!(*watch.borrow(), Phase::Draining);
    }
}
