//! What the process gives up once it has what it needs: capabilities, thread by thread, and most of the kernel's calls.
//!
//! ```text
//!  run: ask ─▶ threads start, each with begin ─▶ enter: every thread looked at ─▶ no_new_privs, filter for all threads
//! ```
//!
//! | thread | keeps | for |
//! |---|---|---|
//! | `fw-control` | `CAP_NET_ADMIN` | taking the XDP program off the interface: the kernel asks at the end, of who asks |
//! | | `CAP_BPF`, before Linux 5.19 only | claims, the lease, counters: since then a map's descriptor is enough |
//! | all others | nothing | rings, sockets and files that are open need nothing |
//!
//! The rule for whoever adds a thread: its first line is [`begin`]. A thread without it is found by [`enter`], and the start
//! fails with its name. The rule for whoever needs a system call at run time: a line in the table of `filter`, with its reason,
//! and only the arguments that are needed. What is refused gets `EPERM`: a call that was forgotten is an error where it is
//! made, and not the end of a million connections.
//!
//! Capabilities belong to threads and the address space to all of them, so who takes over one thread is near to what
//! another one holds; the filter, which is for all, is what such a one meets next.
//!
//! System calls: capget, capset, prctl, seccomp. Privileges: none; the bounding set is emptied where `CAP_SETPCAP` is there
//! to do it, and no program can be executed anyway.

mod filter;

use crate::port::privileges::{self, Capability};
use caps::{CapSet, CapsHashSet};
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whether this process asked for it. Of the process and not of its settings, because what it guards is.
static ASKED: AtomicBool = AtomicBool::new(false);
/// How long a thread may take to its first line.
const FIRST_LINE: Duration = Duration::from_secs(2);
/// Between looks whether it has come there.
const POLL: Duration = Duration::from_millis(2);
/// Since this kernel a map that is open can be used without a capability.
const MAPS_ARE_FREE: (u32, u32) = (5, 19);

/// What a thread is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It looks after the XDP program.
    Control,
    /// Everything else.
    Other,
}

/// The sandbox could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A thread would keep what it must not.
    #[error(
        "sandbox: thread {thread} holds {capabilities:#x} of the capabilities; its first line has to be sandbox::begin"
    )]
    Thread {
        /// Its name.
        thread: String,
        /// The bits of what is too much.
        capabilities: u64,
    },
    /// The kernel refused.
    #[error("sandbox: {what}: {why}; [process] sandbox = false goes without")]
    System {
        /// The step.
        what: &'static str,
        /// The answer.
        why: String,
    },
}

fn refused<E: ToString>(what: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |e| SandboxError::System { what, why: e.to_string() }
}

/// Says that this process will enter. To be called before any thread is started.
pub fn ask() {
    ASKED.store(true, Ordering::SeqCst);
}

/// The first line of a thread: gives up every capability that its role does not need, if the process asked for that.
/// Where the kernel refuses, [`enter`] says so.
pub fn begin(role: Role) {
    if ASKED.load(Ordering::SeqCst)
        && let Err(e) = shed(role)
    {
        tracing::error!(error = %e, ?role, "capabilities are not given up");
    }
}

/// What a thread of this role keeps.
fn kept(role: Role) -> Vec<Capability> {
    match role {
        Role::Other => Vec::new(),
        Role::Control if privileges::kernel().is_some_and(|v| v >= MAPS_ARE_FREE) => {
            vec![Capability::NetAdmin]
        }
        Role::Control => vec![Capability::NetAdmin, Capability::Bpf],
    }
}

fn shed(role: Role) -> Result<(), caps::errors::CapsError> {
    let keep: CapsHashSet = kept(role)
        .iter()
        .filter_map(|c| match c {
            Capability::NetAdmin => Some(caps::Capability::CAP_NET_ADMIN),
            Capability::Bpf => Some(caps::Capability::CAP_BPF),
            _ => None,
        })
        .collect();
    // What was not there before cannot be kept.
    let permitted = caps::read(None, CapSet::Permitted)?;
    let keep: CapsHashSet = keep.intersection(&permitted).copied().collect();
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    caps::clear(None, CapSet::Inheritable)
}

/// Enters: the calling thread gives up its capabilities, every other thread is seen to have done so, and from now on the
/// filter holds for all of them and for those to come. There is no way back.
///
/// # Errors
/// See [`SandboxError`].
pub fn enter() -> Result<(), SandboxError> {
    shed(Role::Other).map_err(refused("giving up capabilities"))?;
    let until = Instant::now() + FIRST_LINE;
    while let Some(found) = excess().map_err(refused("reading /proc/self/task"))? {
        if Instant::now() >= until {
            return Err(found);
        }
        std::thread::sleep(POLL);
    }
    filter::install()
}

/// A thread that holds more than any role may, or one too many that holds what is for one.
fn excess() -> io::Result<Option<SandboxError>> {
    let allowed = kept(Role::Control).iter().fold(0, |set, c| set | c.bit());
    let mut holders = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        // A thread that has ended in between is none.
        let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
        let set = |name| field(name).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default();
        let held = set("CapPrm:") | set("CapEff:");
        let thread = field("Name:").unwrap_or_default().to_owned();
        holders += u32::from(held != 0);
        if held & !allowed != 0 || holders > 1 {
            return Ok(Some(SandboxError::Thread { thread, capabilities: held }));
        }
    }
    Ok(None)
}
