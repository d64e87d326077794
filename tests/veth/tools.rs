//! The process under test with its three services, and programs run against it.

use crate::common::{DISCARD, ECHO, HTTP, Process, both};
use finwheel::rig::{Rig, SERVER_INTERFACE};
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What the HTTP service answers with; `%` and all, so that nothing on the way may take it for a format.
pub const BODY: &str = "ended right, 100 %\n";
/// Longest time for one program: far beyond what it takes, so that a hang is told apart from slowness.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A rig, or the end of the test with the reason on stdout: no privileges, or one of the programs is missing.
macro_rules! rig_with {
    ($config:expr, $($tool:literal),*) => {{
        $(if !$crate::tools::installed($tool) {
            println!("skipped: {} is not installed", $tool);
            return;
        })*
        $crate::common::rig_or_skip!($config)
    }};
}
pub(crate) use rig_with;

/// Whether a program can be run.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The configuration file: echo, discard and http on both IP versions, and whatever `extra` says.
pub fn config(rig: &Rig, extra: &str) -> String {
    let listener = |name: &str, port| {
        let [v4, v6] = both(rig, port);
        format!("[[listener]]\nname = \"{name}\"\naddresses = [\"{v4}\", \"{v6}\"]\nservice = \"{name}\"\n")
    };
    let tables = "connections = 8192\nhalf_open = 4096\ntime_wait = 65536\nchunks = 16384";
    format!(
        "[interface]\nname = \"{SERVER_INTERFACE}\"\n[worker]\n{tables}\n{}{}{}[listener.http]\nbody = {BODY:?}\n{extra}\n",
        listener("echo", ECHO),
        listener("discard", DISCARD),
        listener("http", HTTP),
    )
}

/// `finwheel run` with that file, ready.
pub fn serve(rig: &Rig) -> Process {
    Process::ready(rig, &config(rig, ""))
}

/// URLs of the HTTP service, IPv4 and IPv6.
pub fn urls(rig: &Rig) -> [String; 2] {
    both(rig, HTTP).map(|at| format!("http://{at}/"))
}

/// Address and port as two arguments.
pub fn host_port(at: SocketAddr) -> [String; 2] {
    [at.ip().to_string(), at.port().to_string()]
}

/// A program that has ended.
pub struct Ran {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub took: Duration,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Everything it said, for messages.
    pub fn all(&self) -> String {
        let out =
            if self.stdout.len() < 20_000 { self.text() } else { format!("{} bytes", self.stdout.len()) };
        format!("{}, after {:?}\n{out}\n{}", self.status, self.took, self.stderr)
    }

    /// Panics unless it ended with 0.
    #[track_caller]
    pub fn good(self, what: &str) -> Self {
        assert!(self.status.success(), "{what}: {}", self.all());
        self
    }
}

/// Runs a program in the client's namespace.
pub fn client(rig: &Rig, program: &str, args: &[&str]) -> Ran {
    client_with(rig, program, args, b"")
}

/// The same with this standard input, which ends at its end.
pub fn client_with(rig: &Rig, program: &str, args: &[&str], stdin: &[u8]) -> Ran {
    let mut command = rig.client_command(program);
    command.args(args);
    run(command, stdin, LIMIT)
}

/// Runs a program to its end. What goes in and out goes through files, so that neither side waits for this process.
///
/// # Panics
/// When it has not ended after `limit`; it is killed then.
pub fn run(mut command: Command, stdin: &[u8], limit: Duration) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let [input, out, err] = ["in", "out", "err"].map(|name| dir.path().join(name));
    std::fs::write(&input, stdin).unwrap();
    let create = |p: &Path| File::create(p).unwrap();
    command.stdin(File::open(&input).unwrap()).stdout(create(&out)).stderr(create(&err));
    let began = Instant::now();
    let mut child = Running(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
    let status = child.wait(limit);
    let took = began.elapsed();
    drop(child);
    let stderr = String::from_utf8_lossy(&std::fs::read(&err).unwrap()).into_owned();
    let ran = |status| Ran { status, stdout: std::fs::read(&out).unwrap(), stderr: stderr.clone(), took };
    match status {
        Some(status) => ran(status),
        None => panic!(
            "{command:?} has not ended: {} {stderr}",
            String::from_utf8_lossy(&std::fs::read(&out).unwrap())
        ),
    }
}

/// A child process that does not outlive the test.
pub struct Running(pub Child);

impl Running {
    /// Starts a program that says nothing.
    pub fn quietly(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    /// How it ended, or `None` if it has not after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// The number after a label in a program's report, as in `Failed requests:        0`.
pub fn figure(report: &str, label: &str) -> Option<f64> {
    let line = report.lines().find_map(|l| l.trim_start().strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Runs ab and holds its report to account: every request done, none failed, none answered other than with 200 and the
/// right length. Returns requests per second.
#[track_caller]
pub fn ab(rig: &Rig, url: &str, requests: u32, concurrency: u32, keep_alive: bool) -> f64 {
    let (n, c) = (requests.to_string(), concurrency.to_string());
    let mut args = vec!["-q", "-s", "30", "-n", &n, "-c", &c];
    args.extend(keep_alive.then_some("-k"));
    args.push(url);
    let ran = client(rig, "ab", &args).good(url);
    let report = ran.text();
    let all = ran.all();
    let is =
        |label: &str, value: u32| assert_eq!(figure(&report, label), Some(f64::from(value)), "{label} {all}");
    is("Complete requests:", requests);
    is("Failed requests:", 0);
    is("Document Length:", BODY.len() as u32);
    is("HTML transferred:", requests * BODY.len() as u32);
    if keep_alive {
        is("Keep-Alive requests:", requests);
    }
    for bad in ["Non-2xx", "Write errors", "apr_", "Connect errors"] {
        assert!(!all.contains(bad), "{all}");
    }
    figure(&report, "Requests per second:").unwrap_or_else(|| panic!("{all}"))
}

/// Runs wrk and holds its report to account. Returns requests per second.
#[track_caller]
pub fn wrk(rig: &Rig, url: &str, connections: u32, seconds: u32) -> f64 {
    let (c, d) = (format!("-c{connections}"), format!("-d{seconds}s"));
    let ran = client(rig, "wrk", &["-t2", &c, &d, url]).good(url);
    let report = ran.text();
    for bad in ["Socket errors", "Non-2xx"] {
        assert!(!report.contains(bad), "{}", ran.all());
    }
    let rate = figure(&report, "Requests/sec:").unwrap_or_else(|| panic!("{}", ran.all()));
    assert!(rate > 0.0, "{}", ran.all());
    rate
}

/// Sends bytes with a program that copies its standard input, and expects exactly `back`.
#[track_caller]
pub fn exchange(rig: &Rig, program: &str, args: &[&str], bytes: &[u8], back: &[u8]) {
    let ran = client_with(rig, program, args, bytes).good(program);
    let same = ran.stdout.iter().zip(back).take_while(|(a, b)| a == b).count();
    assert!(
        ran.stdout == back,
        "{program} {args:?}: {} of {} bytes came back, the first {same} right: {}",
        ran.stdout.len(),
        back.len(),
        ran.stderr
    );
}

/// Bytes that differ by position.
pub fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}
