//! Which capabilities the calling thread has, and how to get the missing ones.
//!
//! Read from /proc/thread-self/status; no syscall of its own, no privilege.

use std::fmt;

/// A capability that set-up needs (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Attach XDP programs, load networking programs.
    NetAdmin,
    /// Open `AF_XDP` sockets.
    NetRaw,
    /// Load BPF programs and maps.
    Bpf,
    /// Have the verifier accept arithmetic on packet pointers, without which headers of variable length cannot be
    /// stepped over.
    Perfmon,
    /// Enter and create namespaces, mount.
    SysAdmin,
    /// Lock memory beyond the limit.
    IpcLock,
}

impl Capability {
    /// Its bit in the sets of /proc/PID/status.
    #[must_use]
    pub const fn bit(self) -> u64 {
        match self {
            Self::NetAdmin => 1 << 12,
            Self::NetRaw => 1 << 13,
            Self::IpcLock => 1 << 14,
            Self::SysAdmin => 1 << 21,
            Self::Perfmon => 1 << 38,
            Self::Bpf => 1 << 39,
        }
    }

    /// The name as capabilities(7) has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::IpcLock => "CAP_IPC_LOCK",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Makes effective what the calling thread is permitted: the capabilities of a file that has them as permitted only
/// (`setcap ...=p`), so that it can be executed also where they are not granted. Threads that are started later inherit it.
pub fn raise() {
    let raised = caps::read(None, caps::CapSet::Permitted)
        .and_then(|permitted| caps::set(None, caps::CapSet::Effective, &permitted));
    // What is missing then is named by whoever needs it.
    if let Err(e) = raised {
        tracing::debug!(error = %e, "the permitted capabilities cannot be made effective");
    }
}

/// The capabilities out of `wanted` that the calling thread lacks. `CAP_SYS_ADMIN` stands in for `CAP_BPF`
/// and `CAP_PERFMON`, as it does in the kernel. Where /proc cannot be read nothing is called missing: the syscalls will tell.
#[must_use]
pub fn missing(wanted: &[Capability]) -> Vec<Capability> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    match effective(&status) {
        Some(set) => missing_from(set, wanted),
        None => Vec::new(),
    }
}

fn effective(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

/// The capabilities out of `wanted` that a set lacks.
pub(crate) fn missing_from(set: u64, wanted: &[Capability]) -> Vec<Capability> {
    wanted
        .iter()
        .copied()
        .filter(|c| {
            let stand_in = match c {
                Capability::Bpf | Capability::Perfmon => Capability::SysAdmin.bit(),
                _ => 0,
            };
            set & (c.bit() | stand_in) == 0
        })
        .collect()
}

/// The running kernel's major and minor number; `None` when it does not say.
#[must_use]
pub fn kernel() -> Option<(u32, u32)> {
    version_of(&std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

/// Of a release such as `6.1.0-44-amd64`.
pub(crate) fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The names, joined for a message.
#[must_use]
pub fn names(capabilities: &[Capability]) -> String {
    let names: Vec<_> = capabilities.iter().map(|c| c.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Capability; 4] =
        [Capability::NetAdmin, Capability::NetRaw, Capability::Bpf, Capability::Perfmon];

    #[test]
    fn what_is_not_effective_is_missing() {
        let status = "Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t0000000000002000\n";
        let set = effective(status).unwrap();
        assert_eq!(missing_from(set, &ALL), [Capability::NetAdmin, Capability::Bpf, Capability::Perfmon]);
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_and_perfmon_alone() {
        let set = Capability::SysAdmin.bit();
        assert_eq!(missing_from(set, &ALL), [Capability::NetAdmin, Capability::NetRaw]);
    }

    #[test]
    fn the_status_of_this_thread_is_understood() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(effective(&status).is_some());
    }
}
