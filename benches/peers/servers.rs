//! The three servers, each started alone, on the server's core, at the same address.

use crate::bed::{Bed, Process};
use crate::cores::Account;
use crate::epoll::BODY;
use anyhow::{Context as _, Result, bail};
use finwheel::rig::SERVER_INTERFACE;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The program under test.
pub const FINWHEEL: &str = env!("CARGO_BIN_EXE_finwheel");
/// Port of every server.
pub const PORT: u16 = 80;
/// Where finwheel's metrics are, in the server's namespace.
pub const METRICS: &str = "127.0.0.1:9464";
/// How long a server may take to start: finwheel makes its tables, some hundred megabytes.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(45);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// finwheel's `http` service.
    Finwheel,
    /// nginx, `return 200`.
    Nginx,
    /// The bench's own on epoll.
    Epoll,
}

impl Kind {
    /// In the order in which they take turns.
    pub const ALL: [Self; 3] = [Self::Finwheel, Self::Nginx, Self::Epoll];

    /// As keys and tables have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finwheel => "finwheel",
            Self::Nginx => "nginx",
            Self::Epoll => "epoll",
        }
    }
}

/// A running server.
pub struct Server {
    process: Process,
    kind: Kind,
}

/// Sizes of finwheel's tables, and how long it holds `TIME_WAIT`.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// Synchronized connections.
    pub connections: u64,
    /// `TIME_WAIT` records.
    pub time_wait: u64,
    /// Seconds of 2MSL.
    pub time_wait_s: u32,
}

impl Default for Tables {
    fn default() -> Self {
        Self { connections: 1 << 16, time_wait: 1 << 22, time_wait_s: 60 }
    }
}

/// The server's address.
pub fn address(bed: &Bed) -> Result<SocketAddr> {
    let ip = bed.rig().server_v4().context("the rig has an IPv4 address")?;
    Ok((ip, PORT).into())
}

impl Server {
    /// Starts one on these cores, and returns when it serves.
    pub fn start(bed: &Bed, kind: Kind, cores: &[usize]) -> Result<Self> {
        match kind {
            Kind::Finwheel => Self::finwheel(bed, cores, "http", Tables::default()),
            Kind::Nginx => Self::nginx(bed, cores),
            Kind::Epoll => Self::epoll(bed, cores),
        }
    }

    /// finwheel with one listener, a worker on each of the cores.
    pub fn finwheel(bed: &Bed, cores: &[usize], service: &str, tables: Tables) -> Result<Self> {
        let at = address(bed)?;
        let body =
            if service == "http" { format!("[listener.http]\nbody = {BODY:?}\n") } else { String::new() };
        let Tables { connections, time_wait, time_wait_s } = tables;
        let config = format!(
            "[interface]\nname = \"{SERVER_INTERFACE}\"\n[worker]\ncores = {cores:?}\nconnections = {connections}\n\
             half_open = 16384\ntime_wait = {time_wait}\n[tcp]\ntime_wait = \"{time_wait_s}s\"\n\
             [metrics]\nlisten = \"{METRICS}\"\n[[listener]]\nname = \"bench\"\naddress = \"{at}\"\n\
             service = \"{service}\"\n{body}"
        );
        let make = |dir: &Path, command: &mut Command| {
            let file = dir.join("finwheel.toml");
            std::fs::write(&file, config)?;
            command.args(["run", "--config"]).arg(file);
            Ok(())
        };
        let mut process = Process::start(bed.rig().server_ns(), cores, FINWHEEL, make)?;
        process.until("ready", START, |p| Ok(p.log().contains(" ready\n")))?;
        Ok(Self { process, kind: Kind::Finwheel })
    }

    fn nginx(bed: &Bed, cores: &[usize]) -> Result<Self> {
        let nginx =
            nginx().context("nginx is not installed: scripts/setup.sh bench takes it out of its package")?;
        let at = address(bed)?;
        let make = |dir: &Path, command: &mut Command| {
            let file = dir.join("nginx.conf");
            std::fs::write(&file, nginx_config(dir, at, cores))?;
            command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(file);
            Ok(())
        };
        let process = Process::start(bed.rig().server_ns(), cores, &nginx, make)?;
        Self { process, kind: Kind::Nginx }.listening(bed, at)
    }

    fn epoll(bed: &Bed, cores: &[usize]) -> Result<Self> {
        let at = address(bed)?;
        let own = std::env::current_exe().context("the bench's own path")?;
        let make = |_: &Path, command: &mut Command| {
            command.args(["--serve-epoll", &at.to_string()]);
            Ok(())
        };
        let process = Process::start(bed.rig().server_ns(), cores, &own.to_string_lossy(), make)?;
        Self { process, kind: Kind::Epoll }.listening(bed, at)
    }

    /// Returns when somebody can connect.
    fn listening(mut self, bed: &Bed, at: SocketAddr) -> Result<Self> {
        let connect = || TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok();
        self.process.until("listening", START, |_| Ok(bed.rig().server_ns().run_in(connect)?))?;
        Ok(self)
    }

    /// The account of the core that it runs on.
    pub fn account(&self, bed: &Bed, core: usize) -> Result<Account> {
        let mut processes = vec![self.process.id()];
        // nginx: the master, and the worker that it made.
        processes.extend(children_of(self.process.id())?);
        Account::new(core, bed.server_napi(), processes)
    }

    /// Its process.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it; finwheel must have nothing to complain of.
    pub fn stop(self) -> Result<()> {
        let log = self.process.log();
        if self.kind == Kind::Finwheel && log.contains("ERROR") {
            bail!("finwheel complained: {log}");
        }
        match self.kind {
            Kind::Finwheel | Kind::Nginx => self.process.stop(STOP),
            // It knows no other end than its parent's, or being killed.
            Kind::Epoll => Ok(()),
        }
    }
}

/// Processes whose parent this is.
fn children_of(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    Ok(text.split_whitespace().filter_map(|w| w.parse().ok()).collect())
}

/// Where nginx is: on the path, or beside the build.
pub fn nginx() -> Option<String> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([beside, "/usr/sbin".into()]);
    folders.map(|d| d.join("nginx")).find(|f| f.is_file()).map(|f| f.to_string_lossy().into_owned())
}

/// One worker with its own listening socket, woken when the request is there, no log, no keep-alive, nothing that lingers.
pub fn nginx_config(dir: &Path, at: SocketAddr, cores: &[usize]) -> String {
    let dir = dir.display();
    let affinity: String = (0..=cores.iter().copied().max().unwrap_or(0))
        .rev()
        .map(|c| if cores.contains(&c) { '1' } else { '0' })
        .collect();
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("  {what}_temp_path {dir}/{what};\n"))
        .concat();
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\nworker_cpu_affinity {affinity};\npid {dir}/pid;\n\
         error_log stderr crit;\nevents {{\n  use epoll;\n  worker_connections 16384;\n  multi_accept on;\n\
         accept_mutex off;\n}}\nhttp {{\n{temp}  access_log off;\n  keepalive_timeout 0;\n  lingering_close off;\n\
         server_tokens off;\n  tcp_nopush off;\n  server {{\n    listen {at} reuseport deferred backlog=65535;\n    \
         location / {{ return 200 {BODY:?}; }}\n  }}\n}}\n"
    )
}
