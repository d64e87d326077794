//! SIGTERM and SIGINT: the first drains, the second ends the process at once. SIGHUP reads the configuration again.
//!
//! ```text
//! Signals::block (main thread, before all others) ──▶ every thread inherits the mask
//! Watch::start: thread fw-signals ── sigwait ──▶ Control::drain ── sigwait ──▶ Control::detach_now, exit 128+N
//! ```
//!
//! No handler runs, so nothing of this is bound to what is safe in one. A signal that arrives while the process starts
//! drains it when it has; a second one ends it even then.

use super::reload::ReloadError;
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
    /// As [`Signals::block`], and SIGHUP with them: for a process that has a configuration to read again.
    ///
    /// # Errors
    /// When the kernel refuses, for which there is no reason.
    pub fn block_with_reload() -> io::Result<Self> {
        let Self(mut set) = Self::block()?;
        set.add(Signal::SIGHUP);
        set.thread_block()?;
        Ok(Self(set))
    }

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
            control.end(deadline);
        }
    }

    fn wait(&self, set: &SigSet, deadline: Duration) {
        match self.wait_for_end(set) {
            Ok(signal) => tracing::info!(%signal, "asked to end; once more to end at once"),
            Err(e) => tracing::error!(error = %e, "signals cannot be waited for: the process ends"),
        }
        self.0.asked.store(true, Ordering::SeqCst);
        if let Some(control) = self.0.control.get() {
            control.end(deadline);
        }
        if let Ok(signal) = self.wait_for_end(set) {
            tracing::warn!(%signal, "asked again: ends at once");
            if let Some(control) = self.0.control.get() {
                control.detach_now();
            }
            std::process::exit(SIGNALLED + signal as i32);
        }
    }

    /// Waits for a signal that ends the process; does the others.
    fn wait_for_end(&self, set: &SigSet) -> nix::Result<Signal> {
        loop {
            match set.wait()? {
                Signal::SIGHUP => self.reload(),
                signal => return Ok(signal),
            }
        }
    }

    fn reload(&self) {
        let Some(control) = self.0.control.get() else {
            tracing::warn!("asked to read the configuration again while starting: not done");
            return;
        };
        // What it did or why not is logged where it is done, unless the file was wrong.
        if let Err(ReloadError::Config(e)) = control.reload() {
            tracing::error!("configuration not taken: {e}");
        }
    }
}
