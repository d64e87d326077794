//! SIGTERM and SIGINT: the first drains, the second ends the process at once.
//!
//! ```text
//! Signals::block (main thread, before all others) ──▶ every thread inherits the mask
//! Watch::start: thread fw-signals ── sigwait ──▶ Control::drain ── sigwait ──▶ Control::detach_now, exit 128+N
//! ```
//!
//! No handler runs, so nothing of this is bound to what is safe in one. A signal that arrives while the process starts
//! drains it when it has; a second one ends it even then.

use super::sandbox::{self, Role};
use super::terminator::Control;
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The signals that end the process.
const ENDING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];
/// Exit code of a process that a signal ended, less the signal's number: what shells show.
const SIGNALLED: i32 = 128;

/// The blocked signals.
#[derive(Clone, Copy, Debug)]
pub struct Signals(SigSet);

impl Signals {
    /// Blocks the signals in the calling thread and in those that it starts from now on.
    ///
    /// # Errors
    /// When the kernel refuses, for which there is no reason.
    pub fn block() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for s in ENDING {
            set.add(s);
        }
        set.thread_block()?;
        Ok(Self(set))
    }
}

/// The thread that waits for the signals, seen from the one that starts the terminator.
#[derive(Clone, Default)]
pub struct Watch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    control: OnceLock<Control>,
    asked: AtomicBool,
}

impl Watch {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn start(signals: &Signals, deadline: Duration) -> io::Result<Self> {
        let set = signals.0;
        let watch = Self::default();
        let mine = watch.clone();
        std::thread::Builder::new().name("fw-signals".into()).spawn(move || {
            sandbox::begin(Role::Other);
            mine.wait(&set, deadline);
        })?;
        Ok(watch)
    }

    /// Tells whom to drain. If a signal has come already, that begins now.
    pub fn started(&self, control: Control, deadline: Duration) {
        let control = self.0.control.get_or_init(|| control);
        // The thread says that it was asked before it looks for the control: one of the two sees the other.
        if self.0.asked.load(Ordering::SeqCst) {
            control.drain(deadline);
        }
    }

    fn wait(&self, set: &SigSet, deadline: Duration) {
        match set.wait() {
            Ok(signal) => tracing::info!(%signal, "asked to end; once more to end at once"),
            Err(e) => tracing::error!(error = %e, "signals cannot be waited for: the process ends"),
        }
        self.0.asked.store(true, Ordering::SeqCst);
        if let Some(control) = self.0.control.get() {
            control.drain(deadline);
        }
        if let Ok(signal) = set.wait() {
            tracing::warn!(%signal, "asked again: ends at once");
            if let Some(control) = self.0.control.get() {
                control.detach_now();
            }
            std::process::exit(SIGNALLED + signal as i32);
        }
    }
}
