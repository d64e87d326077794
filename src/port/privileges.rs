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
}

impl Capability {
    const fn bit(self) -> u64 {
        match self {
            Self::NetAdmin => 1 << 12,
            Self::NetRaw => 1 << 13,
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

fn missing_from(set: u64, wanted: &[Capability]) -> Vec<Capability> {
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
