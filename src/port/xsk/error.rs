//! Why an interface could not be opened: each error names the interface, the queue or limit, and the way out.

use crate::port::privileges::{self, Capability};
use std::io;
use std::time::Duration;

/// What set-up needs to be allowed to do.
pub const NEEDED: [Capability; 4] =
    [Capability::NetAdmin, Capability::NetRaw, Capability::Bpf, Capability::Perfmon];

/// Set-up failed.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No such interface.
    #[error(
        "interface {interface}: no such interface in this network namespace; `ip link` lists what there is"
    )]
    NoInterface {
        /// Name asked for.
        interface: String,
    },
    /// The interface is administratively down.
    #[error("interface {interface} is down; `ip link set dev {interface} up` brings it up")]
    Down {
        /// Interface.
        interface: String,
    },
    /// Frames of the interface do not fit the buffers.
    #[error(
        "interface {interface}: MTU {mtu} is over the limit of {limit} bytes that frames of {frame_size} bytes \
         can hold; `ip link set dev {interface} mtu {limit}` lowers it, or take larger frames"
    )]
    MtuTooLarge {
        /// Interface.
        interface: String,
        /// Its MTU, bytes.
        mtu: u32,
        /// The largest MTU that fits, bytes.
        limit: u32,
        /// Buffer size, bytes.
        frame_size: u32,
    },
    /// Ring or frame numbers contradict each other.
    #[error("interface {interface}: {source}")]
    Rings {
        /// Interface.
        interface: String,
        /// Which relation does not hold.
        source: super::RingConfigError,
    },
    /// The queue does not exist.
    #[error(
        "interface {interface} has {queues} queues, so there is no queue {queue}; `ethtool -l {interface}` shows \
         them"
    )]
    NoQueue {
        /// Interface.
        interface: String,
        /// Queue asked for.
        queue: u32,
        /// Queues there are.
        queues: u32,
    },
    /// No queue, or the same twice.
    #[error("interface {interface}: the list of queues must name each queue once and at least one")]
    QueueList {
        /// Interface.
        interface: String,
    },
    /// A receive queue without a transmit queue of the same number cannot answer.
    #[error(
        "interface {interface} has {rx} receive queues but {tx} transmit queues; `ethtool -L {interface}` makes \
         them the same number"
    )]
    UnevenQueues {
        /// Interface.
        interface: String,
        /// Receive queues.
        rx: u32,
        /// Transmit queues.
        tx: u32,
    },
    /// Another socket is bound to the queue.
    #[error(
        "interface {interface} queue {queue}: still bound by another AF_XDP socket after {waited:?} of retries; \
         `ss -a --xdp` names the process that holds it"
    )]
    QueueBusy {
        /// Interface.
        interface: String,
        /// Queue.
        queue: u32,
        /// How long was tried.
        waited: Duration,
    },
    /// Another finwheel serves this interface.
    #[error(
        "interface {interface}: another finwheel process in this network namespace holds it; stop that one first"
    )]
    Held {
        /// Interface.
        interface: String,
    },
    /// A capability is missing.
    #[error(
        "interface {interface}: {what} needs {}; run as root, or `setcap \
         cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon+ep` on the finwheel binary, or for a container `--cap-add` of each",
        privileges::names(missing)
    )]
    Privilege {
        /// Interface.
        interface: String,
        /// What was refused.
        what: &'static str,
        /// The capabilities to ask for.
        missing: Vec<Capability>,
    },
    /// The memory of the frames could not be locked.
    #[error(
        "interface {interface} queue {queue}: {bytes} bytes of frames cannot be locked in memory; raise the limit \
         (`ulimit -l unlimited`, systemd `LimitMEMLOCK=infinity`), grant CAP_IPC_LOCK, or take fewer frames"
    )]
    LockedMemory {
        /// Interface.
        interface: String,
        /// Queue.
        queue: u32,
        /// Memory asked for, bytes.
        bytes: u64,
    },
    /// The socket could not be made or bound.
    #[error("interface {interface} queue {queue}: {what}: {source}")]
    Socket {
        /// Interface.
        interface: String,
        /// Queue.
        queue: u32,
        /// The step.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Zero-copy was required and refused.
    #[error(
        "interface {interface} queue {queue}: driver `{driver}` refuses zero-copy ({source}); set zero-copy to \
         auto to go on with copy mode"
    )]
    NoZeroCopy {
        /// Interface.
        interface: String,
        /// Queue.
        queue: u32,
        /// Driver name.
        driver: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The modes asked for exclude each other.
    #[error("interface {interface}: zero-copy cannot be required together with generic XDP mode")]
    ZeroCopyNeedsNative {
        /// Interface.
        interface: String,
    },
    /// Another XDP program is attached.
    #[error(
        "interface {interface}: XDP program `{name}` (id {id}, {mode}) is attached already; `ip link set dev \
         {interface} {off} off` removes it (one attached by a BPF link goes with the process that holds it)"
    )]
    ProgramAttached {
        /// Interface.
        interface: String,
        /// The program's id.
        id: u32,
        /// The program's name.
        name: String,
        /// Mode it is attached in.
        mode: crate::port::bpf::AttachMode,
        /// The keyword of ip-link(8) for that mode.
        off: &'static str,
    },
    /// The program could not be attached.
    #[error(
        "interface {interface}: attaching the steering program in {mode} mode: {source}{}",
        attach_hint(source)
    )]
    Attach {
        /// Interface.
        interface: String,
        /// Mode tried last.
        mode: crate::port::bpf::AttachMode,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Loading the program or writing its maps failed.
    #[error("interface {interface}: {what}: {source}")]
    Bpf {
        /// Interface.
        interface: String,
        /// The step.
        what: &'static str,
        /// What aya says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A claim that cannot be.
    #[error("interface {interface}: claim {claim}: {why}")]
    Claim {
        /// Interface.
        interface: String,
        /// The claim.
        claim: crate::port::bpf::Claim,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A question to the kernel about the interface failed.
    #[error("interface {interface}: {what}: {source}")]
    System {
        /// Interface.
        interface: String,
        /// The step.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn attach_hint(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::ENOSPC) => {
            "; the peer of a veth has more transmit queues than this end has receive queues: make them equal"
        }
        Some(libc::EOPNOTSUPP) => "; the driver has no native XDP: take generic mode",
        Some(libc::EINVAL | libc::ERANGE) => {
            "; drivers refuse an MTU or an offload (LRO, GRO_HW) that XDP cannot take"
        }
        _ => "",
    }
}

impl SetupError {
    /// Whether privileges are what is missing: a caller that can do without may then go on without.
    #[must_use]
    pub const fn is_privilege(&self) -> bool {
        matches!(self, Self::Privilege { .. })
    }

    /// The refusal of something that `capabilities` allow.
    pub(crate) fn refused(interface: &str, what: &'static str, capabilities: &[Capability]) -> Self {
        let missing = privileges::missing(capabilities);
        Self::Privilege {
            interface: interface.to_owned(),
            what,
            // All there by the books and refused all the same: a user namespace, whose capabilities do not count
            // here, or a security module. Naming them all is the best that can be said.
            missing: if missing.is_empty() { capabilities.to_vec() } else { missing },
        }
    }
}
