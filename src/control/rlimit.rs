//! Limits of the process that set-up runs into.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Raises the limit of locked memory as far as this process may: without `CAP_IPC_LOCK` the frames of the rings count
/// against it, and before Linux 5.11 the steering program's maps do. Where it stays too low, opening the interface fails
/// and says so.
pub fn raise_locked_memory() {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok(limits) => limits,
        Err(e) => {
            tracing::debug!(error = %e, "the limit of locked memory cannot be read");
            return;
        }
    };
    if soft == RLIM_INFINITY {
        return;
    }
    // Beyond the hard limit only with CAP_SYS_RESOURCE.
    let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
        .or_else(|_| setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard));
    if let Err(e) = raised {
        tracing::debug!(error = %e, soft, hard, "the limit of locked memory stays as it is");
    }
}
