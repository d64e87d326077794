//! What the kernel says of this process: memory and processor time. Read when a scrape asks, by the control plane.
//!
//! System calls: getrusage, and a read of `/proc/self/statm`.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};

/// Resident memory in bytes; `None` where `/proc` is not there.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page).ok()?)
}

/// Processor seconds in the process's own code and in the kernel.
#[must_use]
pub fn cpu_seconds() -> Option<[f64; 2]> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    Some([usage.user_time(), usage.system_time()].map(|t| t.num_microseconds() as f64 / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_has_taken_time() {
        let before = resident_bytes().unwrap();
        let more = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(resident_bytes().unwrap() > before + (48 << 20));
        assert!(cpu_seconds().unwrap().iter().sum::<f64>() > 0.0 && more[1] == 1);
    }
}
