//! What a core and threads have run: of `/proc/stat` and of the threads' own accounts, which know nothing of each other.

use anyhow::{Context as _, Result};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::fs;

/// What is counted: a core, and the threads that are to run on it.
pub struct Account {
    /// The core.
    pub core: usize,
    /// The kernel's threads: those that receive, and the one that takes over softirqs.
    kernel: Vec<Pid>,
    /// The server's processes.
    processes: Vec<u32>,
}

/// Seconds that have been run so far.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// By the core, whoever it ran, softirqs included.
    core: f64,
    /// By the threads.
    threads: f64,
}

/// What was run between two readings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// By the core, seconds.
    pub core: f64,
    /// By the threads, seconds.
    pub threads: f64,
}

impl Reading {
    /// What was run since an earlier one.
    pub fn since(&self, earlier: &Self) -> Used {
        Used { core: self.core - earlier.core, threads: self.threads - earlier.threads }
    }
}

impl Account {
    /// Of a core, on which `napi` and these processes run.
    pub fn new(core: usize, napi: &[Pid], processes: Vec<u32>) -> Result<Self> {
        let mut kernel = napi.to_vec();
        kernel.extend(thread_of_softirqs(core)?);
        Ok(Self { core, kernel, processes })
    }

    /// Reads both accounts.
    pub fn read(&self) -> Result<Reading> {
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let core =
            busy_ticks(&stat, self.core).with_context(|| format!("/proc/stat has no cpu{}", self.core))?;
        let mut ns = 0;
        for pid in &self.kernel {
            ns += run_time(&format!("/proc/{pid}"))?;
        }
        for process in &self.processes {
            let tasks = format!("/proc/{process}/task");
            for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
                ns += run_time(&task?.path().to_string_lossy())?;
            }
        }
        Ok(Reading { core: core as f64 / ticks_per_second(), threads: ns as f64 / 1e9 })
    }
}

/// Ticks that a core was not idle: user, nice, system, irq, softirq; not idle, iowait and what the hypervisor took.
fn busy_ticks(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core}");
    let line = stat.lines().find_map(|l| l.strip_prefix(&name)?.strip_prefix(' '))?;
    let n: Vec<u64> = line.split_whitespace().map_while(|w| w.parse().ok()).collect();
    Some(n.get(..3)?.iter().sum::<u64>() + n.get(5..7)?.iter().sum::<u64>())
}

fn ticks_per_second() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100.0, |n| n as f64)
}

/// Nanoseconds that a thread has run.
fn run_time(proc: &str) -> Result<u64> {
    let path = format!("{proc}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    text.split_whitespace().next().and_then(|w| w.parse().ok()).with_context(|| format!("{path}: {text}"))
}

fn thread_of_softirqs(core: usize) -> Result<Option<Pid>> {
    let name = format!("ksoftirqd/{core}");
    for entry in fs::read_dir("/proc").context("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|n| n.parse().ok());
        let Some(pid) = pid else { continue };
        if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim_end() == name) {
            return Ok(Some(Pid::from_raw(pid)));
        }
    }
    Ok(None)
}

/// Memory of a process that is in RAM, bytes.
pub fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most that it ever was.
pub fn most_resident(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, key: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|l| l.strip_prefix(key));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path} has no {key}"))? << 10)
}
