//! Waking a worker that sleeps in [`Port::wait`](crate::port::Port::wait) from another thread.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// A handle that ends a port's sleep. Cheap to clone; outlives the port without harm.
///
/// A wake before the sleep is not lost: the sleep then ends at once. Any number of wakes count as one.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Self(Arc::new(EventFd::from_flags(flags)?)))
    }

    /// Ends the sleep of the port, or its next one. One syscall, not for every packet.
    pub fn wake(&self) {
        // The one error there can be is EAGAIN, of a counter that is full of wakes already.
        if let Err(e) = self.0.write(1) {
            tracing::debug!(error = %e, "wake");
        }
    }

    /// Takes note of all wakes so far.
    pub(super) fn clear(&self) {
        // EAGAIN: there was none.
        let _ = self.0.read();
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
