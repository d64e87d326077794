//! Making and binding one socket, and the syscalls on it.
//!
//! Syscalls: socket, setsockopt, mmap, bind, getsockopt, sendto, recvfrom. Privilege: `CAP_NET_RAW` for the socket;
//! the memory counts against `RLIMIT_MEMLOCK` unless there is `CAP_IPC_LOCK`.

#![allow(unsafe_code)]

use super::config::RingConfig;
use super::error::SetupError;
use super::pool::{Pool, root_cause};
use crate::port::link::LinkFacts;
use crate::port::privileges::Capability;
use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;
use xsk_rs::config::{BindFlags, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue};

/// How frames get between the driver and the memory of the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMode {
    /// The device reads and writes the frames.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

impl CopyMode {
    /// The name as reports and labels have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        }
    }
}

/// Whether zero-copy is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Where the driver can, else copy.
    #[default]
    Auto,
    /// Zero-copy or an error.
    Require,
    /// Copy.
    Off,
}

/// First and longest pause between tries to bind a busy queue; the pauses double. A queue whose last socket was
/// just closed stays busy until the kernel's deferred release has run, which takes milliseconds.
const BUSY_PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(160)];
/// All pauses together, at most: a queue that is busy for longer is in use.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// A bound socket with its rings and frames.
pub(super) struct Bound {
    pub(super) pool: Pool,
    pub(super) rx: RxQueue,
    pub(super) tx: TxQueue,
    pub(super) fill: FillQueue,
    pub(super) comp: CompQueue,
    pub(super) mode: CopyMode,
}

/// Binds `queue`, with zero-copy where wanted and possible.
pub(super) fn bind(
    link: &LinkFacts,
    queue: u32,
    rings: &RingConfig,
    zero_copy: ZeroCopy,
) -> Result<Bound, SetupError> {
    let tries: &[BindFlags] = match zero_copy {
        ZeroCopy::Auto => &[BindFlags::XDP_ZEROCOPY, BindFlags::XDP_COPY],
        ZeroCopy::Require => &[BindFlags::XDP_ZEROCOPY],
        ZeroCopy::Off => &[BindFlags::XDP_COPY],
    };
    let (last, earlier) = tries.split_last().unwrap_or((&BindFlags::XDP_COPY, &[]));
    for &flags in earlier {
        match bind_patiently(link, queue, rings, flags) {
            Ok(bound) => return Ok(bound),
            Err(BindError::Os { what, source }) if what == BIND => {
                tracing::debug!(interface = link.name, queue, error = %source, "no zero-copy here");
            }
            Err(e) => return Err(e.explain(link, queue, rings)),
        }
    }
    match bind_patiently(link, queue, rings, *last) {
        Err(BindError::Os { what, source }) if what == BIND && zero_copy == ZeroCopy::Require => {
            Err(SetupError::NoZeroCopy {
                interface: link.name.clone(),
                queue,
                driver: link.driver.clone(),
                source,
            })
        }
        other => other.map_err(|e| e.explain(link, queue, rings)),
    }
}

/// The step whose failure may be a matter of zero-copy.
const BIND: &str = "binding an AF_XDP socket";
const MEMORY: &str = "registering the memory of the frames";

enum BindError {
    Busy(Duration),
    Os { what: &'static str, source: io::Error },
}

impl BindError {
    fn explain(self, link: &LinkFacts, queue: u32, rings: &RingConfig) -> SetupError {
        let interface = link.name.clone();
        match self {
            Self::Busy(waited) => SetupError::QueueBusy { interface, queue, waited },
            Self::Os { what, source } => match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => {
                    SetupError::refused(&interface, what, &[Capability::NetRaw, Capability::NetAdmin])
                }
                // xdp_umem_account_pages answers so when the limit is reached.
                Some(libc::ENOBUFS | libc::ENOMEM) if what == MEMORY => {
                    SetupError::LockedMemory { interface, queue, bytes: rings.bytes() }
                }
                _ => SetupError::Socket { interface, queue, what, source },
            },
        }
    }
}

fn bind_patiently(
    link: &LinkFacts,
    queue: u32,
    rings: &RingConfig,
    flags: BindFlags,
) -> Result<Bound, BindError> {
    let (mut pause, mut waited) = (BUSY_PAUSES[0], Duration::ZERO);
    loop {
        match bind_once(link, queue, rings, flags) {
            Err(BindError::Os { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
                if waited >= BUSY_PATIENCE {
                    return Err(BindError::Busy(waited));
                }
                std::thread::sleep(pause);
                waited += pause;
                pause = (pause * 2).min(BUSY_PAUSES[1]);
            }
            done => return done,
        }
    }
}

/// One try, with memory of its own: a socket that failed to bind cannot be bound again, and the memory hangs on it.
fn bind_once(link: &LinkFacts, queue: u32, rings: &RingConfig, flags: BindFlags) -> Result<Bound, BindError> {
    let os = |what| move |source| BindError::Os { what, source };
    let pool = Pool::new(rings).map_err(os(MEMORY))?;
    let size = |n| QueueSize::new(n).map_err(|e| BindError::Os { what: BIND, source: io::Error::other(e) });
    let config = SocketConfig::builder()
        .rx_queue_size(size(rings.rx_ring)?)
        .tx_queue_size(size(rings.tx_ring)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(flags | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let interface =
        link.name.parse().map_err(|e| BindError::Os { what: BIND, source: io::Error::other(e) })?;
    // SAFETY: the UMEM is this socket's alone, and libxdp loads no program, so there is nothing to detach twice.
    let made = unsafe { Socket::new(config, pool.umem(), &interface, queue) };
    let (tx, rx, rings_of_umem) = made.map_err(|e| BindError::Os { what: BIND, source: root_cause(&e) })?;
    let (fill, comp) = rings_of_umem.ok_or_else(|| BindError::Os {
        what: BIND,
        source: io::Error::other("libxdp gave no fill and completion ring"),
    })?;
    let mode = copy_mode(rx.fd().as_raw_fd()).map_err(os("asking for the mode of the socket"))?;
    Ok(Bound { pool, rx, tx, fill, comp, mode })
}

/// The mode in effect (`XDP_OPTIONS`): what was asked for at the bind is not what counts.
fn copy_mode(fd: RawFd) -> io::Result<CopyMode> {
    let mut options = 0u32;
    let mut len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: `struct xdp_options` is one u32, and `len` says so.
    let ret = unsafe {
        libc::getsockopt(fd, libc::SOL_XDP, libc::XDP_OPTIONS, (&raw mut options).cast(), &raw mut len)
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(if options & libc::XDP_OPTIONS_ZEROCOPY == 0 { CopyMode::Copy } else { CopyMode::ZeroCopy })
}

/// What a wake-up of the kernel came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Woken {
    /// The kernel took note.
    Done,
    /// Not now (EAGAIN: its budget for one call is used up; EBUSY, ENOBUFS: the device's queue is full).
    Later,
}

/// Wakes the kernel for transmission.
///
/// # Errors
/// Fatal ones: `ENXIO` when the socket has lost its device, `ENETDOWN` when the interface is down.
pub(super) fn kick_tx(fd: RawFd) -> io::Result<Woken> {
    // SAFETY: no bytes are passed, and the descriptor is the caller's.
    let ret = unsafe { libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    classify(ret)
}

/// Wakes the kernel for reception. Errors as in [`kick_tx`].
pub(super) fn kick_rx(fd: RawFd) -> io::Result<Woken> {
    // SAFETY: no bytes are received, and the descriptor is the caller's.
    let ret = unsafe {
        libc::recvfrom(
            fd,
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    classify(ret)
}

fn classify(ret: libc::ssize_t) -> io::Result<Woken> {
    if ret >= 0 {
        return Ok(Woken::Done);
    }
    let e = io::Error::last_os_error();
    match e.raw_os_error() {
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => Ok(Woken::Later),
        _ => Err(e),
    }
}

/// The error pending on the socket: the interface was removed, for one.
pub(super) fn pending_error(fd: BorrowedFd<'_>) -> io::Error {
    match getsockopt(&fd, sockopt::SocketError) {
        Ok(0) => io::Error::from_raw_os_error(libc::ENODEV),
        Ok(code) => io::Error::from_raw_os_error(code),
        Err(e) => e.into(),
    }
}

/// The descriptor of a ring's socket for the time of a call.
pub(super) fn borrow(rx: &RxQueue) -> BorrowedFd<'_> {
    // SAFETY: the socket is open as long as its receive ring lives, and the borrow ends before that.
    unsafe { BorrowedFd::borrow_raw(rx.fd().as_raw_fd()) }
}
