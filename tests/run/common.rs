//! What the tests share: a rig, a terminator in it, the real process in it, and clients.

use finwheel::control::{Cores, Settings, Terminator};
use finwheel::rig::{Rig, SERVER_INTERFACE};
use finwheel::service::discard::Discard;
use finwheel::service::echo::Echo;
use finwheel::service::http::{Http, HttpConfig};
use finwheel::shard::Capacity;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A rig, or the end of the test with the reason on stdout.
macro_rules! rig_or_skip {
    ($config:expr) => {
        match finwheel::rig::Rig::new($config) {
            Ok(rig) => rig,
            Err(e) if e.is_privilege() => {
                println!("skipped: {e}");
                return;
            }
            Err(e) => panic!("{e}"),
        }
    };
}
pub(crate) use rig_or_skip;

pub const ECHO: u16 = 7;
pub const DISCARD: u16 = 9;
pub const HTTP: u16 = 80;
/// A port of the server's kernel.
pub const KERNEL: u16 = 9000;
/// The image's user and group, who are nobody on a host.
pub const USER: u32 = 65532;
/// Longest wait for anything a client does.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The server's address of each IP version, with a port.
pub fn both(rig: &Rig, port: u16) -> [SocketAddr; 2] {
    [(rig.server_v4().unwrap(), port).into(), (rig.server_v6().unwrap(), port).into()]
}

/// Small tables, workers that the kernel may move.
pub fn settings(rig: &Rig) -> Settings {
    let capacity = Capacity { connections: 2048, half_open: 1024, time_wait: 4096, chunks: 8192 };
    let http = || Http::new(HttpConfig { connections: 64, partial_heads: 16, ..HttpConfig::default() });
    let base = Settings { capacity, cores: Cores::Unpinned, ..Settings::new(SERVER_INTERFACE) };
    base.listen("echo", &both(rig, ECHO), || Echo).listen("discard", &both(rig, DISCARD), || Discard).listen(
        "http",
        &both(rig, HTTP),
        http,
    )
}

pub fn start(rig: &Rig, settings: &Settings) -> Terminator {
    let started = rig.server_ns().run_in(|| Terminator::start(settings)).unwrap();
    started.unwrap_or_else(|e| panic!("{e}"))
}

/// Clients of the kernel's TCP in the client's namespace.
pub fn connect_many(rig: &Rig, to: &[SocketAddr]) -> Vec<TcpStream> {
    let connect = |to: &SocketAddr| {
        let s = TcpStream::connect_timeout(to, PATIENCE).unwrap_or_else(|e| panic!("{to}: {e}"));
        s.set_read_timeout(Some(PATIENCE)).unwrap();
        s.set_write_timeout(Some(PATIENCE)).unwrap();
        s.set_nodelay(true).unwrap();
        s
    };
    rig.client_ns().run_in(|| to.iter().map(connect).collect()).unwrap()
}

pub fn connect(rig: &Rig, to: SocketAddr) -> TcpStream {
    connect_many(rig, &[to]).remove(0)
}

/// What the metrics server of a process in the server's namespace answers: status and body.
pub fn ask(rig: &Rig, at: SocketAddr, path: &str) -> (u16, String) {
    let mut s = rig.server_ns().run_in(|| TcpStream::connect_timeout(&at, PATIENCE)).unwrap().unwrap();
    s.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(s, "GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let mut text = String::new();
    s.read_to_string(&mut text).unwrap();
    let code = text.get(9..12).and_then(|c| c.parse().ok()).unwrap_or_else(|| panic!("no status: {text}"));
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap();
    (code, body)
}

/// Waits until `done` or panics with `what`.
pub fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The kernel's own traffic on the same address, for as long as `f` runs: a TCP server on a port that is not claimed, and
/// ping. Returns what `f` returned and how many exchanges there were; each must succeed.
pub fn beside_kernel_traffic<T>(rig: &Rig, f: impl FnOnce() -> T) -> (T, u32) {
    let at = both(rig, KERNEL)[0];
    let listener = rig.server_ns().run_in(|| TcpListener::bind(at)).unwrap().unwrap();
    let (over, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|s| {
        s.spawn(|| {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut bytes = [0; 4];
                if over.load(Ordering::SeqCst) || stream.read_exact(&mut bytes).is_err() {
                    return;
                }
                stream.write_all(&bytes).unwrap();
            }
        });
        let traffic = s.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let mut stream = connect(rig, at);
                stream.write_all(b"ping").unwrap();
                let mut bytes = [0; 4];
                stream.read_exact(&mut bytes).unwrap();
                assert_eq!(&bytes, b"ping");
                for to in both(rig, 0) {
                    let mut ping = rig.client_command("ping");
                    ping.args(["-c", "1", "-W", "5", &to.ip().to_string()]).stdout(Stdio::null());
                    assert!(ping.status().unwrap().success(), "ping {}", to.ip());
                }
                rounds.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(50));
            }
            // Lets the server see that it is over.
            drop(connect(rig, at));
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        over.store(true, Ordering::SeqCst);
        if let Err(panic) = traffic.join() {
            // The server's thread waits for a connection still.
            drop(connect(rig, at));
            std::panic::resume_unwind(panic);
        }
        match result {
            Ok(value) => (value, rounds.load(Ordering::SeqCst)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// `finwheel run` in the server's namespace; killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
    dir: tempfile::TempDir,
}

/// Where the process's metrics are.
pub fn metrics() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9464))
}

/// The configuration of a process: small tables, echo on both IP versions, and whatever `extra` says.
pub fn config(rig: &Rig, extra: &str) -> String {
    let [v4, v6] = both(rig, ECHO);
    format!(
        "[interface]\nname = \"{SERVER_INTERFACE}\"\n[worker]\nconnections = 1024\nhalf_open = 512\ntime_wait = 4096\n\
         chunks = 4096\n[[listener]]\nname = \"echo\"\naddresses = [\"{v4}\", \"{v6}\"]\nservice = \"echo\"\n{extra}\n"
    )
}

/// With an admin socket beside the file: processes of several tests must not meet at the default path.
fn with_socket(config: &str) -> String {
    format!("{config}\n[admin]\nsocket = \"admin.sock\"\n")
}

impl Process {
    /// Starts it with a configuration; `wrap` is put before the command.
    pub fn spawn(rig: &Rig, config: &str, wrap: &[&str]) -> Self {
        Self::spawn_in(
            rig,
            tempfile::tempdir().unwrap(),
            env!("CARGO_BIN_EXE_finwheel").as_ref(),
            config,
            wrap,
        )
    }

    /// Starts it as a user who is nobody else on this machine, with the capabilities of `deploy/README.md`.
    pub fn unprivileged(rig: &Rig, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The build may lie where that user cannot go.
        let binary = dir.path().join("finwheel");
        std::fs::copy(env!("CARGO_BIN_EXE_finwheel"), &binary).unwrap();
        std::os::unix::fs::chown(dir.path(), Some(USER), Some(USER)).unwrap();
        let caps = "+net_admin,+net_raw,+bpf,+perfmon,+ipc_lock";
        let user = USER.to_string();
        let wrap = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
        let wrap = [&wrap[..], &["--inh-caps", caps, "--ambient-caps", caps]].concat();
        Self::spawn_in(rig, dir, &binary, config, &wrap).until_ready()
    }

    fn spawn_in(rig: &Rig, dir: tempfile::TempDir, binary: &Path, config: &str, wrap: &[&str]) -> Self {
        let file = dir.path().join("finwheel.toml");
        std::fs::write(&file, with_socket(config)).unwrap();
        let log = dir.path().join("log");
        let binary = binary.to_str().unwrap();
        let words: Vec<&str> = wrap.iter().copied().chain([binary, "run", "--config"]).collect();
        let mut command: Command = rig.server_ns().command(words[0]);
        command.args(&words[1..]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(&log).unwrap());
        Self { child: command.spawn().unwrap(), log, dir }
    }

    /// Starts it and waits until it is ready.
    pub fn ready(rig: &Rig, config: &str) -> Self {
        Self::spawn(rig, config, &[]).until_ready()
    }

    fn until_ready(mut self) -> Self {
        until("ready", PATIENCE, || {
            assert!(self.child.try_wait().unwrap().is_none(), "ended: {}", self.log());
            self.log().contains(" ready\n")
        });
        self
    }

    /// What it has said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A file beside its configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes another configuration over its own.
    pub fn rewrite(&self, config: &str) {
        std::fs::write(self.file("finwheel.toml"), with_socket(config)).unwrap();
    }

    /// A subcommand that speaks to it.
    pub fn admin_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finwheel"));
        command.args(args).arg("--socket").arg(self.file("admin.sock")).stdin(Stdio::null());
        command
    }

    /// Has a subcommand speak to it: exit code, what it printed, what it complained of.
    pub fn admin(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let out = self.admin_command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    }

    /// The same, which must succeed: what it printed.
    #[track_caller]
    pub fn tell(&self, args: &[&str]) -> String {
        let (code, out, complaint) = self.admin(args);
        assert_eq!(code, Some(0), "{args:?}: {out}{complaint}; log: {}", self.log());
        out
    }

    /// The JSON lines that a subcommand prints.
    #[track_caller]
    pub fn lines(&self, args: &[&str]) -> Vec<serde_json::Value> {
        self.tell(args).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for its end. Returns how it ended and what it said.
    pub fn end(mut self, limit: Duration) -> (ExitStatus, String) {
        let mut status = None;
        until("the end of the process", limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap(), self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            println!("log: {}", self.log());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Whether an XDP program is on the server's interface.
pub fn program_attached(rig: &Rig) -> bool {
    let out = rig.server_ns().command("ip").args(["link", "show", "dev", SERVER_INTERFACE]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().contains("xdp")
}
