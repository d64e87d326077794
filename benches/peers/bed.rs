//! The test bed: one veth, the kernel's reception of each end in a thread on that end's core, and processes on cores.

use anyhow::{Context as _, Result, bail};
use finwheel::rig::{CLIENT_INTERFACE, Cleaner, Namespace, Rig, RigConfig, SERVER_INTERFACE};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where connections come from: one small network of it a run, so that no run meets pairs that an earlier one left in
/// `TIME_WAIT`.
const SOURCES: &str = "10.128.0.0/9";
/// Length of a queue between a socket and the veth, frames. The veth itself has room for 256; with a queue before it a
/// full one holds the sender back, as a NIC does, where it would drop otherwise.
const QUEUE: &str = "1000";

/// Which core is whose.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The server's.
    pub server: usize,
    /// The client's.
    pub client: usize,
}

impl Cores {
    /// The last one that this process may use for the server, the first for the client.
    pub fn choose() -> Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0)).context("asking for the allowed cores")?;
        let allowed: Vec<usize> = (0..CpuSet::count()).filter(|&c| set.is_set(c).unwrap_or(false)).collect();
        match allowed[..] {
            [client, .., server] => Ok(Self { server, client }),
            _ => bail!(
                "two cores are needed, one for the server and one for the client; allowed are {allowed:?}"
            ),
        }
    }
}

/// Children that are to end with this process, whatever ends it.
static CHILDREN: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Kills what was started, for a process that ends without unwinding.
pub fn kill_children() {
    for &pid in CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // It may have ended by itself.
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// The namespaces of this process, for the same.
static RIGS: Mutex<Vec<Cleaner>> = Mutex::new(Vec::new());

/// Takes the namespaces away, for a process that ends without unwinding.
pub fn clean_rigs() {
    RIGS.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(Cleaner::clean);
}

/// Puts a thread, by its number, or the calling one by 0, on cores.
fn pin(pid: Pid, cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core).with_context(|| format!("core {core}"))?;
    }
    sched_setaffinity(pid, &set).with_context(|| format!("putting thread {pid} on cores {cores:?}"))
}

/// A veth between two namespaces, ready for a measurement.
pub struct Bed {
    rig: Rig,
    napi: [Vec<Pid>; 2],
    /// The next small network.
    next_net: std::cell::Cell<u32>,
}

impl Bed {
    /// Makes one with so many queues; queue *n* of either end is received on that end's *n*-th core.
    pub fn new(queues: u32, server: &[usize], client: &[usize]) -> Result<Self> {
        let rig = Rig::new(RigConfig::with_queues(queues))?;
        RIGS.lock().unwrap_or_else(PoisonError::into_inner).push(rig.cleaner());
        let napi = rig.threaded_napi()?;
        for (threads, cores) in napi.iter().zip([server, client]) {
            if threads.len() != cores.len() {
                bail!("{} threads receive on {} queues", threads.len(), cores.len());
            }
            for (&thread, &core) in threads.iter().zip(cores) {
                pin(thread, &[core])?;
            }
        }
        let bed = Self { rig, napi, next_net: std::cell::Cell::new(0) };
        bed.tune(queues)?;
        Ok(bed)
    }

    /// What gives the kernel's TCP its best, and both of them a line that does not drop.
    fn tune(&self, queues: u32) -> Result<()> {
        let ns = self.rig.server_ns();
        for (key, value) in [
            ("net/core/somaxconn", "65535"),
            ("net/ipv4/tcp_max_syn_backlog", "65535"),
            // Beyond it the kernel forgets TIME_WAIT records early, which is less work than is asked of everybody.
            ("net/ipv4/tcp_max_tw_buckets", "4000000"),
            // Without the timers of one that paces; this is the one that every namespace may take.
            ("net/ipv4/tcp_congestion_control", "reno"),
        ] {
            ns.sysctl(key, value).with_context(|| format!("setting {key} to {value}"))?;
        }
        let via = self.rig.client_v4().context("the rig has an IPv4 address")?.to_string();
        run(ns.command("ip"), &["route", "add", SOURCES, "via", &via])?;
        for (ns, interface) in [(ns, SERVER_INTERFACE), (self.rig.client_ns(), CLIENT_INTERFACE)] {
            let base = ["qdisc", "replace", "dev", interface, "root"];
            // With several transmit queues each gets the default one, which is as long.
            let kind: &[&str] = if queues == 1 { &["pfifo", "limit", QUEUE] } else { &["mq"] };
            run(ns.command("tc"), &[&base[..], kind].concat())?;
            // What an end sends that might be a large segment is received in a softirq on its own core, past the thread.
            run(ns.command("ethtool"), &["-K", interface, "tso", "off"])?;
        }
        Ok(())
    }

    /// The namespaces and their addresses.
    pub const fn rig(&self) -> &Rig {
        &self.rig
    }

    /// The threads that receive at the server's end.
    pub fn server_napi(&self) -> &[Pid] {
        &self.napi[0]
    }

    /// A source network of 1022 addresses that was not used yet.
    pub fn fresh_net(&self) -> String {
        let n = self.next_net.get();
        self.next_net.set((n + 1) % (1 << 13));
        let base = std::net::Ipv4Addr::from_bits((10 << 24 | 128 << 16) + (n << 10));
        format!("{base}/22")
    }
}

/// Runs a program that has nothing to say.
fn run(mut command: Command, args: &[&str]) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.args(args).output().with_context(|| format!("{program} cannot be run"))?;
    if !out.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// A process of the bench; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Process {
    /// Starts a program in a namespace, on cores; `make` gets a folder of its own and adds the arguments. What it writes to
    /// standard output goes to the file `out` in it.
    pub fn start(
        ns: &Namespace,
        cores: &[usize],
        program: &str,
        make: impl FnOnce(&std::path::Path, &mut Command) -> Result<()>,
    ) -> Result<Self> {
        let dir = tempfile::tempdir().context("a temporary folder")?;
        let log = dir.path().join("log");
        let mut command = ns.command(program);
        make(dir.path(), &mut command)?;
        command
            .stdin(Stdio::null())
            .stdout(File::create(dir.path().join("out"))?)
            .stderr(File::create(&log)?);
        // A child has the cores of the thread that makes it.
        let spawned = std::thread::scope(|s| {
            let pinned = s.spawn(|| {
                pin(Pid::from_raw(0), cores)?;
                command.spawn().with_context(|| format!("{program} cannot be run"))
            });
            pinned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let child = spawned?;
        CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).push(pid_of(&child));
        Ok(Self { name: program.rsplit('/').next().unwrap_or(program).to_owned(), child, log, _dir: dir })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has said on standard output.
    pub fn out(&self) -> String {
        std::fs::read_to_string(self.log.with_file_name("out")).unwrap_or_default()
    }

    /// Waits until `done`, and while it does the process must live.
    pub fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        while !done(self)? {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before it was {what}: {}", self.name, self.log().trim());
            }
            if Instant::now() >= end {
                bail!("{} was not {what} within {limit:?}: {}", self.name, self.log().trim());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether it has ended by now.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} has not ended within {limit:?}: {}", self.name, self.log().trim());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self, limit: Duration) -> Result<()> {
        kill(pid_of(&self.child), Signal::SIGTERM)?;
        let status = self.wait(limit)?;
        if !status.success() {
            bail!("{} ended with {status}: {}", self.name, self.log().trim());
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let pid = pid_of(&self.child);
        CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).retain(|&p| p != pid);
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}
