//! A worker thread: one shard on one core, from its start to its last turn.
//!
//! The clock is read twice a turn here, and nowhere below. Idle policy: `Busy` never sleeps; `Adaptive` goes through
//! some turns (`SPIN_TURNS`) without work, in which it lets others have the core, and then sleeps in the port until a frame, a
//! wake-up or the next timer.

use super::Shard;
use crate::port::Port;
use crate::time::Time;
use std::io;
use std::time::{Duration, Instant};

/// Turns without work before an adaptive worker sleeps: some tens of microseconds, about what a wake-up by the kernel
/// costs. More burns a core for nothing, less pays a wake-up for each frame of a slow stream.
const SPIN_TURNS: u32 = 64;
/// Longest sleep: bounds how late housekeeping can be when a wake-up is lost.
const MAX_SLEEP: Duration = Duration::from_millis(100);

/// Longest wait at the end for the last frames, the final ACKs and RSTs among them, to leave the transmit ring. In copy
/// mode they are gone with the flush; a device with zero-copy takes microseconds. A frame that is still there then is
/// lost with the socket.
const LAST_FRAMES: Duration = Duration::from_millis(50);

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Spin a little, then sleep until something happens.
    Adaptive,
    /// Never sleep: for a core that has nothing else to do.
    Busy,
}

/// The clock of a process: microseconds, the same for all workers.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    at_origin: Time,
}

impl Clock {
    /// Starts at one second, so that nothing is due "before" the beginning.
    #[must_use]
    pub fn start() -> Self {
        Self::from(Time::from_micros(1_000_000))
    }

    /// Starts at the time since the machine did: what one process times is later than what any before it did.
    #[must_use]
    pub fn of_the_machine() -> Self {
        let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .unwrap_or_else(|e| unreachable!("CLOCK_MONOTONIC exists on every Linux: {e}"));
        let up = Duration::from(up);
        Self::from(Time::from_micros(1_000_000) + up)
    }

    fn from(at_origin: Time) -> Self {
        Self { origin: Instant::now(), at_origin }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Time {
        self.at_origin + self.origin.elapsed()
    }
}

/// Turns the shard until it is told to stop. Returns it, so that its frames can be accounted for.
///
/// # Errors
/// The port's fatal ones.
pub fn run<P: Port>(mut shard: Shard<P>, clock: &Clock, idle: Idle) -> io::Result<Shard<P>> {
    let mut quiet = 0;
    let mut now = clock.now();
    while !shard.stopped() {
        let turn = shard.turn(now)?;
        if turn.worked {
            quiet = 0;
        } else {
            quiet += 1;
        }
        if idle == Idle::Adaptive && quiet > 0 {
            if quiet > SPIN_TURNS {
                let timeout = turn.next.since(now).min(MAX_SLEEP);
                shard.wait(timeout)?;
            } else {
                // The kernel may receive for the ring in a thread on this core too: it waits for as long as we spin, for
                // milliseconds when we never sleep.
                std::thread::yield_now();
            }
        }
        let after = clock.now();
        shard.account(turn.worked, after.micros() - now.micros());
        now = after;
    }
    let until = clock.now() + LAST_FRAMES;
    while shard.port().accounting().in_tx > 0 && !until.due(clock.now()) {
        shard.flush()?;
        std::thread::yield_now();
    }
    Ok(shard)
}
