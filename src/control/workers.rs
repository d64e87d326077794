//! The worker threads: made, pinned, joined.
//!
//! ```text
//! port, settings ──▶ thread fw-worker-N: pin ─▶ make the shard ─▶ worker::run ─▶ End (or its error, or its panic)
//!                                                                      └── guard: tells the supervisor that it ended
//! ```
//!
//! A shard is made in its own thread, so its memory is touched first by the core that uses it, and services need not
//! move between threads. The port is dropped there as well, before the steering program is detached.

use super::sandbox::{self, Role};
use super::settings::{ListenerSettings, ServiceFactory};
use crate::metrics::block::Block;
use crate::port::xsk::XskPort;
use crate::port::{Accounting, Port};
use crate::shard::mailbox::{Command, Handle, Mailbox};
use crate::shard::outbound::LocalEnds;
use crate::shard::worker::{self, Clock, Idle};
use crate::shard::{Capacity, Listener, Parts, Shard};
use crate::tcp::TcpConfig;
use crate::tcp::isn::Secret;
use crate::wire::Endpoint;
use core_affinity::CoreId;
use std::any::Any;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker may take to leave its loop: a turn, and the last frames. One that takes longer hangs, and the
/// process must be able to end without it.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// Between looks whether it has.
const STOP_POLL: Duration = Duration::from_millis(1);

/// What a worker leaves behind.
pub(super) struct End {
    /// Its counters at the last turn, and the latencies since the last report.
    pub block: Block,
    /// Where its frames were, counted one by one.
    pub frames: Accounting,
}

/// A running worker, seen from the control plane.
pub(super) struct Worker {
    /// Its queue.
    pub queue: u32,
    /// The CPU it is pinned to.
    pub core: Option<usize>,
    /// Its mailbox.
    pub handle: Handle,
    /// Its thread, until it is joined.
    thread: Option<JoinHandle<io::Result<End>>>,
}

/// What a worker is made from; what all have in common is shared by value.
#[derive(Clone)]
pub(super) struct Plan {
    pub tcp: TcpConfig,
    pub capacity: Capacity,
    pub listeners: Vec<(Vec<Endpoint>, ServiceFactory)>,
    pub client: Option<ServiceFactory>,
    /// Of this worker alone.
    pub local_ends: Option<LocalEnds>,
    pub secret: Secret,
    /// Of this worker's index alone.
    pub index_key: (u64, u64),
    pub clock: Clock,
    pub idle: Idle,
    /// Close records that it keeps.
    pub keep_closes: usize,
}

impl Plan {
    /// The listeners as shards need them.
    pub fn listeners(listeners: &[ListenerSettings]) -> Vec<(Vec<Endpoint>, ServiceFactory)> {
        let endpoints = |l: &ListenerSettings| l.addresses.iter().map(|&a| Endpoint::from(a)).collect();
        listeners.iter().map(|l| (endpoints(l), l.service.clone())).collect()
    }

    fn shard(&self, port: XskPort, mailbox: Mailbox) -> Shard<XskPort> {
        let listeners = self.listeners.iter();
        let mut shard = Shard::new(Parts {
            port,
            tcp: self.tcp.clone(),
            capacity: self.capacity.clone(),
            listeners: listeners
                .map(|(endpoints, service)| Listener { endpoints: endpoints.clone(), service: service() })
                .collect(),
            client: self.client.as_ref().map(|service| service()),
            secret: self.secret,
            index_key: self.index_key,
            mailbox,
            now: self.clock.now(),
        });
        shard.keep_closes(self.keep_closes);
        if let Some(ends) = &self.local_ends {
            shard.set_local_ends(ends.clone());
        }
        shard
    }
}

/// Calls a closure when it is dropped: also when the thread panics.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Worker {
    /// Starts worker `number`; `ended` is called when its thread ends, whichever way.
    pub fn start(
        number: usize,
        core: Option<CoreId>,
        port: XskPort,
        (mailbox, handle): (Mailbox, Handle),
        plan: Plan,
        ended: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let queue = port.queue();
        let thread = std::thread::Builder::new().name(format!("fw-worker-{number}")).spawn(move || {
            sandbox::begin(Role::Other);
            let _ended = AtEnd(ended);
            if let Some(core) = core
                && !core_affinity::set_for_current(core)
            {
                tracing::warn!(
                    worker = number,
                    core = core.id,
                    "cannot be pinned; runs where the kernel puts it"
                );
            }
            let shard = plan.shard(port, mailbox);
            let mut shard = worker::run(shard, &plan.clock, plan.idle)?;
            Ok(End { block: shard.snapshot(), frames: audit(shard.port()) })
        })?;
        Ok(Self { queue, core: core.map(|c| c.id), handle, thread: Some(thread) })
    }

    /// Whether the thread has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Whether it was joined already.
    pub const fn is_joined(&self) -> bool {
        self.thread.is_none()
    }

    /// Waits for the thread, [`STOP_LIMIT`] at most. `None` when that was done before; an error says how the worker
    /// failed.
    pub fn join(&mut self) -> Option<Result<End, String>> {
        let until = Instant::now() + STOP_LIMIT;
        while !self.has_ended() {
            if Instant::now() >= until {
                self.thread = None;
                return Some(Err(format!("it does not stop; not waited for longer than {STOP_LIMIT:?}")));
            }
            std::thread::sleep(STOP_POLL);
        }
        let thread = self.thread.take()?;
        Some(match thread.join() {
            Ok(Ok(end)) => Ok(end),
            Ok(Err(e)) => Err(format!("its port failed: {e}")),
            Err(panic) => Err(format!("it panicked: {}", panic_text(panic.as_ref()))),
        })
    }
}

impl Drop for Worker {
    /// A start that fails half-way ends the workers that run already.
    fn drop(&mut self) {
        if self.thread.is_some() {
            // A full mailbox is that of a worker that hangs, and then the wait for it is bounded.
            let _ = self.handle.send(Command::Stop);
            let _ = self.join();
        }
    }
}

/// The frames counted one by one; where that differs from what the port kept up by moves, the worse of the two.
fn audit(port: &XskPort) -> Accounting {
    let kept = port.accounting();
    let counted = port.audit();
    if kept.balanced() && kept.lent == 0 { counted } else { kept }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
