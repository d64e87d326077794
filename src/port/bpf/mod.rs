//! The steering program's user-space half: load, attach, claim, keep the lease, count, detach.
//!
//! ```text
//! Claim ──▶ claims, ranges ─┐
//! sockets ──▶ xsks ─────────┼─ maps ── steer.bpf.c ── attached to one interface
//! heartbeat() ──▶ lease ────┘            │
//! counters() ◀───────────────────────────┘
//! ```
//!
//! One [`Steering`] an interface, shared by all its queues and owned by the control plane: nothing here is on the
//! packet path. It is the single owner of the interface in its network namespace (an abstract Unix socket is the
//! lock, gone with the process). Dropping it detaches the program, and the kernel gets the claimed traffic back;
//! a process that dies leaves the program, which drops claimed frames for the rest of the lease and passes
//! everything to the kernel after it. The next start replaces it.
//!
//! Syscalls: bpf, netlink. Privileges: `CAP_BPF`, `CAP_PERFMON` (for the verifier) and `CAP_NET_ADMIN`, the last up to
//! the detaching.

mod attach;
#[cfg(test)]
mod tests;

pub use attach::AttachMode;
pub(crate) use attach::attached;

use super::link::LinkFacts;
use super::netlink::Netlink;
use super::privileges::Capability;
use super::xsk::SetupError;
use crate::wire::{Addr, Endpoint};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, XskMap};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The compiled program.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

/// The program's name: how a program left by a crashed process is recognised.
const PROGRAM: &str = "finwheel_steer";

/// The lease unless configured otherwise.
///
/// Ten seconds cover a supervisor's restart and three retransmissions of a peer (RFC 6298: 1, 3, 7 s after the
/// first). Shorter, and a slow restart turns into RSTs; longer, and a host that lost finwheel for good keeps its
/// peers waiting.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);

/// The longest lease. Beyond two minutes most peers have given up by themselves.
pub const MAX_LEASE: Duration = Duration::from_secs(120);

/// What finwheel takes from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// TCP to this address and port. The unspecified address claims the port on every address of its family,
    /// forwarded traffic included; `[::]` does not claim IPv4.
    Listen(Endpoint),
    /// TCP to these local ports of an address: answers to connections that finwheel opens.
    LocalPorts {
        /// The local address; not the unspecified one.
        addr: Addr,
        /// First port.
        lo: u16,
        /// Last port, included.
        hi: u16,
    },
}

impl Claim {
    /// A listener's claim.
    #[must_use]
    pub fn listen(at: SocketAddr) -> Self {
        Self::Listen(at.into())
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Listen(at) if at.port == 0 => Err("port 0 cannot be listened on"),
            Self::LocalPorts { lo: 0, .. } => Err("port 0 is not a local port"),
            Self::LocalPorts { lo, hi, .. } if lo > hi => Err("the first port is above the last"),
            Self::LocalPorts { addr, .. } if addr.to_ip().is_unspecified() => {
                Err("a range of local ports needs the address it is on")
            }
            Self::Listen(_) | Self::LocalPorts { .. } => Ok(()),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(at) => write!(f, "{at}"),
            Self::LocalPorts { addr, lo, hi } => write!(f, "{addr} ports {lo}-{hi}"),
        }
    }
}

/// Indices of the program's counters; in step with `enum counter` of steer.bpf.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Not claimed: to the kernel.
    Passed,
    /// Claimed TCP: to the socket.
    Redirected,
    /// ICMP error about a claimed flow: to the socket.
    IcmpRedirected,
    /// Claimed, no socket on the queue, lease running: dropped.
    DroppedNoSocket,
    /// Claimed, no socket on the queue, lease over: to the kernel.
    LeaseOver,
    /// Ends within a header or contradicts itself: to the kernel.
    Malformed,
}

impl Counter {
    /// All counters in the program's order.
    pub const ALL: [Self; 6] = [
        Self::Passed,
        Self::Redirected,
        Self::IcmpRedirected,
        Self::DroppedNoSocket,
        Self::LeaseOver,
        Self::Malformed,
    ];

    /// The name as labels have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Redirected => "redirected",
            Self::IcmpRedirected => "icmp_redirected",
            Self::DroppedNoSocket => "dropped_no_socket",
            Self::LeaseOver => "lease_over",
            Self::Malformed => "malformed",
        }
    }
}

/// Frames by what the program did with them, since it was attached. Each frame is in exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerCounters([u64; Counter::ALL.len()]);

impl SteerCounters {
    /// One of the counters.
    #[must_use]
    pub const fn get(&self, which: Counter) -> u64 {
        self.0[which as usize]
    }
}

/// How the program is to be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Native, and generic where the driver cannot.
    #[default]
    Auto,
    /// Native or an error.
    Native,
    /// Generic.
    Generic,
}

/// The steering program of one interface.
pub struct Steering {
    interface: String,
    index: u32,
    ebpf: Ebpf,
    netlink: Netlink,
    lease: Duration,
    /// Set while attached.
    mode: Option<AttachMode>,
    /// Held for the sake of its address: one finwheel an interface and network namespace.
    _owner: UnixDatagram,
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering")
            .field("interface", &self.interface)
            .field("mode", &self.mode)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl Steering {
    /// Takes the interface for this process and loads the program; nothing is attached yet.
    pub(super) fn load(link: &LinkFacts, lease: Duration) -> Result<Self, SetupError> {
        let interface = link.name.clone();
        let system = |what| {
            let interface = interface.clone();
            move |source| SetupError::System { interface, what, source }
        };
        let owner = own(&interface)?;
        let netlink = Netlink::open().map_err(system("opening a netlink socket"))?;
        let queues = link.rx_queues.max(1);
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("xsks", queues)
            .load(OBJECT)
            .map_err(|e| bpf_error(&interface, "loading the steering program", e))?;
        program(&mut ebpf)
            .and_then(|p| Ok(p.load()?))
            .map_err(|e| bpf_error(&interface, "loading the steering program", e))?;
        Ok(Self {
            index: link.index,
            ebpf,
            netlink,
            lease: lease.min(MAX_LEASE),
            mode: None,
            _owner: owner,
            interface,
        })
    }

    /// Puts a queue's socket into the program's map.
    pub(super) fn set_socket(&mut self, queue: u32, socket: &impl AsRawFd) -> Result<(), SetupError> {
        let map = self.ebpf.map_mut("xsks").ok_or_else(no_map);
        map.and_then(|m| Ok(XskMap::try_from(m)?))
            .and_then(|mut m| Ok(m.set(queue, socket.as_raw_fd(), 0)?))
            .map_err(|e| bpf_error(&self.interface, "writing the socket map", e))
    }

    /// Attaches the program: from now on claimed frames go to the sockets. A program left by a crashed finwheel is
    /// replaced in one step; anybody else's is an error.
    pub(super) fn attach(&mut self, mode: Mode) -> Result<AttachMode, SetupError> {
        let tries: &[AttachMode] = match mode {
            Mode::Auto => &[AttachMode::Native, AttachMode::Generic],
            Mode::Native => &[AttachMode::Native],
            Mode::Generic => &[AttachMode::Generic],
        };
        let old = self.leftover()?;
        let fd = self.program_fd()?;
        let mut last = None;
        for &mode in tries {
            match self.attach_over(mode, &fd, old.as_ref()) {
                Ok(()) => {
                    self.mode = Some(mode);
                    return Ok(mode);
                }
                Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
                    let what = "attaching the steering program";
                    return Err(SetupError::refused(&self.interface, what, &[Capability::NetAdmin]));
                }
                Err(e) => {
                    tracing::debug!(interface = self.interface, %mode, error = %e, "cannot attach");
                    last = Some((mode, e));
                }
            }
        }
        let (mode, source) = last.unwrap_or((AttachMode::Generic, io::ErrorKind::Unsupported.into()));
        Err(SetupError::Attach { interface: self.interface.clone(), mode, source })
    }

    /// The program of a crashed finwheel that is still attached, if any.
    fn leftover(&mut self) -> Result<Option<(AttachMode, OwnedFd)>, SetupError> {
        let found = attach::attached(&mut self.netlink, self.index)
            .map_err(|e| self.system("asking for attached XDP programs", e))?;
        let mut ours = None;
        for (mode, id) in found {
            let info = aya::programs::loaded_programs().filter_map(Result::ok).find(|p| p.id() == id);
            // A program that went away in between is no obstacle.
            let Some(info) = info else { continue };
            let name = info.name_as_str().unwrap_or_default();
            if !is_ours(name) {
                return Err(SetupError::ProgramAttached {
                    interface: self.interface.clone(),
                    id,
                    name: if name.is_empty() { "?".into() } else { name.into() },
                    mode,
                    off: mode.ip_keyword(),
                });
            }
            let fd = info
                .fd()
                .and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?))
                .map_err(|e| bpf_error(&self.interface, "opening the program that is attached", e))?;
            ours = Some((mode, fd));
        }
        Ok(ours)
    }

    fn attach_over(
        &mut self,
        mode: AttachMode,
        fd: &OwnedFd,
        old: Option<&(AttachMode, OwnedFd)>,
    ) -> io::Result<()> {
        match old {
            Some((old_mode, old_fd)) if *old_mode == mode => {
                attach::attach(&mut self.netlink, self.index, mode, fd.as_fd(), Some(old_fd.as_fd()))
            }
            // The kernel runs one mode at a time. A leftover that an earlier try of this loop has taken away
            // already is no error.
            Some((old_mode, old_fd)) => {
                if let Err(e) = attach::detach(&mut self.netlink, self.index, *old_mode, old_fd.as_fd()) {
                    tracing::debug!(interface = self.interface, error = %e, "leftover not detached");
                }
                attach::attach(&mut self.netlink, self.index, mode, fd.as_fd(), None)
            }
            None => attach::attach(&mut self.netlink, self.index, mode, fd.as_fd(), None),
        }
    }

    fn program_fd(&mut self) -> Result<OwnedFd, SetupError> {
        program(&mut self.ebpf)
            .and_then(|p| Ok(p.fd()?.as_fd().try_clone_to_owned().map_err(ProgramError::from)?))
            .map_err(|e| bpf_error(&self.interface, "opening the steering program", e))
    }

    /// Claims traffic. Claiming twice is the same as once.
    ///
    /// # Errors
    /// [`SetupError::Claim`] for a claim that cannot be, [`SetupError::Bpf`] when the map is full (4096 listeners,
    /// 1024 addresses with local ports).
    pub fn claim(&mut self, claim: Claim) -> Result<(), SetupError> {
        claim.check().map_err(|why| SetupError::Claim { interface: self.interface.clone(), claim, why })?;
        let done = match claim {
            Claim::Listen(at) => self.claims().and_then(|mut m| Ok(m.insert(claim_key(at), 1, 0)?)),
            Claim::LocalPorts { addr, lo, hi } => {
                self.ranges().and_then(|mut m| Ok(m.insert(*addr.octets(), range_value(lo, hi), 0)?))
            }
        };
        done.map_err(|e| bpf_error(&self.interface, "claiming traffic", e))
    }

    /// Gives traffic back to the kernel. A claim that is not there is none the less gone.
    ///
    /// # Errors
    /// [`SetupError::Bpf`] when the kernel refuses.
    pub fn unclaim(&mut self, claim: Claim) -> Result<(), SetupError> {
        let done = match claim {
            Claim::Listen(at) => self.claims().and_then(|mut m| Ok(m.remove(&claim_key(at))?)),
            Claim::LocalPorts { addr, .. } => self.ranges().and_then(|mut m| Ok(m.remove(addr.octets())?)),
        };
        match done {
            Err(e) if os_error(&e) == Some(libc::ENOENT) => Ok(()),
            other => other.map_err(|e| bpf_error(&self.interface, "giving traffic back", e)),
        }
    }

    /// Moves the lease on: to be called well within it, as long as the process is in order.
    ///
    /// # Errors
    /// [`SetupError::Bpf`] when the map cannot be written.
    pub fn heartbeat(&mut self) -> Result<(), SetupError> {
        let deadline = monotonic_ns().saturating_add(self.lease.as_nanos() as u64);
        self.set_deadline(deadline)
    }

    fn set_deadline(&mut self, deadline_ns: u64) -> Result<(), SetupError> {
        let map = self.ebpf.map_mut("lease").ok_or_else(no_map);
        map.and_then(|m| Ok(Array::<_, u64>::try_from(m)?))
            .and_then(|mut m| Ok(m.set(0, deadline_ns, 0)?))
            .map_err(|e| bpf_error(&self.interface, "writing the lease", e))
    }

    /// What the program counted, summed over CPUs.
    ///
    /// # Errors
    /// [`SetupError::Bpf`] when the map cannot be read.
    pub fn counters(&self) -> Result<SteerCounters, SetupError> {
        let read = || -> Result<SteerCounters, EbpfError> {
            let map = PerCpuArray::<_, u64>::try_from(self.ebpf.map("counters").ok_or_else(no_map)?)?;
            let mut sums = SteerCounters::default();
            for (sum, which) in sums.0.iter_mut().zip(Counter::ALL) {
                *sum = map.get(&(which as u32), 0)?.iter().sum();
            }
            Ok(sums)
        };
        read().map_err(|e| bpf_error(&self.interface, "reading the counters", e))
    }

    /// The interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The mode in effect; `None` when not attached.
    #[must_use]
    pub const fn mode(&self) -> Option<AttachMode> {
        self.mode
    }

    /// The lease, as it is after clamping to [`MAX_LEASE`].
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.lease
    }

    /// Takes the program off the interface: the kernel gets everything.
    ///
    /// # Errors
    /// [`SetupError::System`] when the kernel refuses, for one because somebody else replaced the program.
    pub fn detach(&mut self) -> Result<(), SetupError> {
        let Some(mode) = self.mode.take() else {
            return Ok(());
        };
        let fd = self.program_fd()?;
        attach::detach(&mut self.netlink, self.index, mode, fd.as_fd())
            .map_err(|e| self.system("detaching the steering program", e))
    }

    /// Leaves the program attached for a successor: claimed frames are dropped for the lease that the last
    /// [`heartbeat`](Self::heartbeat) granted, and the next start replaces the program in one step.
    pub fn leave_attached(mut self) {
        self.mode = None;
    }

    fn claims(&mut self) -> Result<HashMap<&mut MapData, [u8; 20], u32>, EbpfError> {
        Ok(HashMap::try_from(self.ebpf.map_mut("claims").ok_or_else(no_map)?)?)
    }

    fn ranges(&mut self) -> Result<HashMap<&mut MapData, [u8; 16], [u8; 4]>, EbpfError> {
        Ok(HashMap::try_from(self.ebpf.map_mut("ranges").ok_or_else(no_map)?)?)
    }

    fn system(&self, what: &'static str, source: io::Error) -> SetupError {
        SetupError::System { interface: self.interface.clone(), what, source }
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        // An interface that is gone has no program to detach.
        if let Err(e) = self.detach() {
            tracing::warn!(interface = self.interface, error = %e, "steering program stays attached");
        }
    }
}

/// Whether a finwheel holds the interface now.
pub(crate) fn is_held(interface: &str) -> bool {
    matches!(own(interface), Err(SetupError::Held { .. }))
}

/// The name of a loaded program; `None` when it is gone or may not be asked.
pub(crate) fn name_of(id: u32) -> Option<String> {
    let info = aya::programs::loaded_programs().filter_map(Result::ok).find(|p| p.id() == id)?;
    info.name_as_str().map(str::to_owned)
}

/// Whether the kernel, or what stands before it, refuses to make a map: one is made and thrown away.
pub(crate) fn is_refused() -> bool {
    let tried = aya::sys::is_map_supported(aya::maps::MapType::Array);
    tried.is_err_and(|e| e.io_error.raw_os_error() == Some(libc::EPERM))
}

/// Whether a program of this name is finwheel's.
pub(crate) fn is_ours(name: &str) -> bool {
    name == PROGRAM
}

/// Binds the name that says this interface has its finwheel. Abstract names belong to a network namespace, as
/// interface names do, and vanish with the process.
fn own(interface: &str) -> Result<UnixDatagram, SetupError> {
    let name = format!("finwheel/{interface}");
    std::os::unix::net::SocketAddr::from_abstract_name(name)
        .and_then(|addr| UnixDatagram::bind_addr(&addr))
        .map_err(|e| match e.kind() {
            io::ErrorKind::AddrInUse => SetupError::Held { interface: interface.to_owned() },
            _ => SetupError::System {
                interface: interface.to_owned(),
                what: "taking the interface for this process",
                source: e,
            },
        })
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, EbpfError> {
    let program = ebpf.program_mut(PROGRAM).ok_or(ProgramError::NotLoaded)?;
    Ok(program.try_into()?)
}

/// The object holds all maps that are asked for; should it not, this is the error.
fn no_map() -> EbpfError {
    EbpfError::MapError(aya::maps::MapError::InvalidName { name: "steer.bpf.c".into() })
}

/// `struct claim_key`: address and port in network order, two bytes of padding.
fn claim_key(at: Endpoint) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(at.addr.octets());
    key[16..18].copy_from_slice(&at.port.to_be_bytes());
    key
}

/// `struct port_range`: two ports in host order.
fn range_value(lo: u16, hi: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (lo.to_ne_bytes(), hi.to_ne_bytes());
    [a, b, c, d]
}

/// Now on the clock that `bpf_ktime_get_ns` reads.
fn monotonic_ns() -> u64 {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
        // The clock starts with the machine; it is not negative.
        Ok(t) => t.tv_sec().cast_unsigned() * 1_000_000_000 + t.tv_nsec().cast_unsigned(),
        Err(e) => unreachable!("CLOCK_MONOTONIC exists on every Linux: {e}"),
    }
}

/// An error of aya's, told as what is missing when the kernel said EPERM.
fn bpf_error(interface: &str, what: &'static str, e: impl Into<EbpfError>) -> SetupError {
    let e = e.into();
    // EPERM alone: EACCES is how the verifier says no.
    if os_error(&e) == Some(libc::EPERM) {
        return SetupError::refused(interface, what, &[Capability::Bpf, Capability::NetAdmin]);
    }
    SetupError::Bpf { interface: interface.to_owned(), what, source: Box::new(e) }
}

/// The errno at the root of an error, if there is one.
fn os_error(e: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut at = Some(e);
    while let Some(e) = at {
        if let Some(code) = e.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        at = e.source();
    }
    None
}
