//! Reception in kernel threads (threaded NAPI), so that what the kernel does for an interface runs on a core of choice.
//!
//! A veth has no interrupt: what one end sends is received in a softirq of the sender's core, and so would be charged to
//! the wrong side of a measurement. With threads each queue is polled by one named `napi/INTERFACE-ID`, whose core can be
//! chosen and whose time can be read. GRO is switched on, because a veth without an XDP program has NAPI only then.

use super::{Namespace, RigError};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::{fs, io};

/// Has the queues of `interface` polled by threads. Returns the new threads, in the order of the queues.
pub(super) fn set_threaded(ns: &Namespace, interface: &str) -> Result<Vec<Pid>, RigError> {
    let tool = |why: String| RigError::Tool { tool: "ethtool", why };
    let out = ns
        .command("ethtool")
        .args(["-K", interface, "gro", "on"])
        .output()
        .map_err(|e| tool(format!("{e}; apt-get install ethtool")))?;
    if !out.status.success() {
        return Err(tool(String::from_utf8_lossy(&out.stderr).into_owned()));
    }
    let what = || format!("receiving on {interface} in threads");
    // Threads of an interface of the same name in another namespace look the same.
    let before = threads(interface).map_err(RigError::system(what()))?;
    ns.run_in(|| write_attribute(interface, "threaded", "1"))?.map_err(RigError::system(what()))?;
    let after = threads(interface).map_err(RigError::system(what()))?;
    let new: Vec<Pid> = after.difference(&before).map(|&(_, pid)| Pid::from_raw(pid)).collect();
    if new.is_empty() {
        let source = io::Error::new(io::ErrorKind::Unsupported, "the kernel made none (Linux 5.12 or later)");
        return Err(RigError::System { what: what(), source });
    }
    Ok(new)
}

/// Has what `interface` receives worked off on the cores of a mask (receive packet steering), not where its peer sends.
pub(super) fn set_rps(ns: &Namespace, interface: &str, queues: u32, core: usize) -> Result<(), RigError> {
    let what = || format!("steering what {interface} receives to core {core}");
    let mask = rps_mask(core);
    for queue in 0..queues {
        let attribute = format!("queues/rx-{queue}/rps_cpus");
        ns.run_in(|| write_attribute(interface, &attribute, &mask))?.map_err(RigError::system(what()))?;
    }
    Ok(())
}

/// The mask of one core as the kernel reads it: words of 32 bits, the highest first.
fn rps_mask(core: usize) -> String {
    let mut mask = format!("{:x}", 1_u32 << (core % 32));
    for _ in 0..core / 32 {
        mask.push_str(",00000000");
    }
    mask
}

/// Writes an attribute of an interface in the network namespace of the calling thread. The machine's /sys shows the
/// interfaces of the namespace that it was mounted in, so this thread gets one of its own; it must be one that ends.
fn write_attribute(interface: &str, attribute: &str, value: &str) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
    fs::write(format!("/sys/class/net/{interface}/{attribute}"), value)
}

/// The threads that poll an interface of this name, in any namespace: the number of the NAPI instance, which is given out in
/// the order of the queues, and the thread.
fn threads(interface: &str) -> io::Result<BTreeSet<(u32, i32)>> {
    let prefix = format!("napi/{interface}-");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        // A process may have ended since the folder was read.
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if let Some(id) = comm.trim_end().strip_prefix(&prefix).and_then(|id| id.parse().ok()) {
            found.insert((id, pid));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_a_core_is_written_as_the_kernel_reads_it() {
        let masks = [0, 1, 31, 32, 70].map(rps_mask);
        assert_eq!(masks, ["1", "2", "80000000", "1,00000000", "40,00000000,00000000"]);
    }
}
