//! One interface, terminated: from settings to running workers, and to their end.

use super::admin;
use super::close_log::{self, CloseLog, WallClock};
use super::http::{self, Admin, Server};
use super::names::Names;
use super::operate::{InEffect, InForce};
use super::outbound::{ConnectError, Opener};
use super::outcome::Outcome;
use super::phase::{Phase, Phases};
use super::reload::{ReloadError, Reloaded, Source};
use super::sandbox::{self, Role};
use super::settings::{ClientSettings, Cores, Settings};
use super::supervisor::{REPORT_LIMIT, Request, Supervisor};
use super::workers::{Plan, Worker};
use crate::metrics::exposition::{Exposition, Merged, OUTBOUND};
use crate::port::link::LinkFacts;
use crate::port::xsk::{self, Claim, Opened, Report, RingConfig, SetupError, XskPort};
use crate::shard::mailbox::{Wake, mailboxes};
use crate::shard::outbound::{LocalEnds, PortRange};
use crate::shard::trace::Entry;
use crate::shard::worker::Clock;
use crate::tcp::isn::Secret;
use crate::wire::Endpoint;
use core_affinity::CoreId;
use crossbeam::channel::{Sender, bounded, unbounded};
use rand::TryRngCore;
use rand::rngs::OsRng;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long workers may take to their first turn: their tables are made in it, some gigabytes at most.
const FIRST_TURN: Duration = Duration::from_secs(60);
/// How long an answer of the supervisor is waited for: several of its own limits.
const ANSWER: Duration = Duration::from_secs(2);
/// How long the supervisor may take to detach the program when the process ends at once.
const QUIT: Duration = Duration::from_millis(250);
/// Bytes of frame that hold an MTU of 1500; what does not fit takes a page.
const LARGE_FRAME: u32 = 4096;

/// A terminator could not be started. Nothing stays behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The interface could not be opened.
    #[error(transparent)]
    Port(#[from] SetupError),
    /// The metrics server could not be started.
    #[error(transparent)]
    Metrics(#[from] http::StartError),
    /// The admin socket cannot be had.
    #[error(transparent)]
    Admin(#[from] admin::socket::SocketError),
    /// The close log's file cannot be opened.
    #[error(transparent)]
    CloseLog(#[from] close_log::OpenError),
    /// A CPU that this process may not use.
    #[error(
        "cannot run a worker on CPU {core} ([worker] cores): this process is allowed on {allowed:?}; see taskset(1) \
         and cpuset(7)"
    )]
    Core {
        /// The CPU.
        core: usize,
        /// The CPUs that it may use.
        allowed: Vec<usize>,
    },
    /// Not one CPU for each queue.
    #[error("{cores} CPUs for {queues} queues ([worker] cores): name one for each, in their order")]
    CoreCount {
        /// CPUs named.
        cores: usize,
        /// Queues there are.
        queues: usize,
    },
    /// Worker did not come up.
    #[error("worker {worker} of queue {queue} did not start")]
    Worker {
        /// Its number.
        worker: usize,
        /// Its queue.
        queue: u32,
    },
    /// Not a port for each worker, or port 0.
    #[error("local ports {first} to {last} do not give each of {workers} workers one")]
    Ports {
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
        /// Workers there are.
        workers: usize,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// The step.
        what: &'static str,
        /// The answer.
        source: io::Error,
    },
}

impl StartError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Asks a running terminator to end; a clone can be kept by whoever hears of the reason, a thread for signals say.
#[derive(Clone)]
pub struct Control {
    requests: Sender<Request>,
    phases: Phases,
}

impl Control {
    /// Begins a drain, or brings the deadline of the present one forward, and returns at once.
    pub fn drain(&self, deadline: Duration) {
        self.phases.advance(Phase::Draining);
        // It fails when the terminator has ended already.
        let _ = self.requests.send(Request::Drain(deadline));
    }

    /// Begins a drain as it is configured; without a configuration file it has ended after `otherwise`.
    pub fn end(&self, otherwise: Duration) {
        self.phases.advance(Phase::Draining);
        // It fails when the terminator has ended already.
        let _ = self.requests.send(Request::End(otherwise));
    }

    /// Reads the configuration again and does what it says, without touching connections.
    ///
    /// # Errors
    /// See [`ReloadError`]; nothing was changed unless it says so.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        let config = self.read_again(self.ask(Request::Source)?)?;
        self.ask(|answer| Request::Reload(config, answer))?
    }

    fn ask<T>(
        &self,
        request: impl FnOnce(tokio::sync::oneshot::Sender<T>) -> Request,
    ) -> Result<T, ReloadError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let ended = || ReloadError::NotNow("the process is ending".to_owned());
        self.requests.send(request(answer)).map_err(|_| ended())?;
        answered.blocking_recv().map_err(|_| ended())
    }

    /// Reads the file that the configuration in force came from.
    #[expect(clippy::unused_self, reason = "who may reload may read")]
    pub(super) fn read_again(
        &self,
        source: Option<Source>,
    ) -> Result<Box<crate::config::Config>, ReloadError> {
        let Some(source) = source else {
            return Err(ReloadError::NotNow("the process was not started from a file".to_owned()));
        };
        let loaded = crate::config::load(&source.path)?;
        for w in &loaded.warnings {
            tracing::warn!("{w}");
        }
        Ok(Box::new(loaded.config))
    }

    /// Takes the steering program off the interface, within a quarter of a second, for a process that then ends
    /// without waiting for anything: the kernel answers for the connections that are left.
    pub fn detach_now(&self) {
        let (done, answer) = bounded(1);
        if self.requests.send(Request::Quit(done)).is_ok() {
            let _ = answer.recv_timeout(QUIT);
        }
    }
}

/// A running terminator. Dropping it ends it as [`Terminator::stop`] does.
pub struct Terminator {
    requests: Sender<Request>,
    outbound: Mutex<Option<Opener>>,
    exposition: Exposition,
    phases: Phases,
    interface: Report,
    cores: Vec<Option<usize>>,
    http: Option<Server>,
    admin: Option<admin::Server>,
    supervisor: Option<JoinHandle<Outcome>>,
    // After the workers have ended: it writes what they closed last.
    closes: CloseLog,
}

impl Terminator {
    /// Starts: metrics server, interface with its queues, a worker for each, steering program. Returns when every
    /// worker turns. Looks into the network namespace of the calling thread; what it returns works from any.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        let phases = Phases::default();
        let queues = check_cores(settings)?;
        let exposition = Exposition::new(queues).map_err(|e| StartError::System {
            what: "making the table of metrics",
            source: io::Error::other(e),
        })?;
        let names = settings.listeners.iter().map(|l| l.name.clone());
        exposition
            .set_listeners(names.chain(settings.client.as_ref().map(|_| OUTBOUND.to_owned())).collect());
        // First of all: a second finwheel on the host fails here, before it touches the interface.
        let admin =
            Admin { exposition: exposition.clone(), phases: phases.clone(), report_limit: REPORT_LIMIT };
        let http = settings.metrics.map(|at| Server::start(at, admin)).transpose()?;
        let socket = settings.admin.as_ref().map(admin::Server::bind).transpose()?.flatten();
        let log = settings.close_log.file.as_deref().map(close_log::open).transpose()?;
        let (requests, inbox) = unbounded();

        let (k0, k1) = if settings.lasting { boot()? } else { random()? };
        let Opened { ports, steering, report } = xsk::open(&open_config(settings))?;
        let plan = Plan {
            tcp: engine_config(settings, &report),
            capacity: settings.capacity.clone(),
            listeners: Plan::listeners(&settings.listeners),
            client: settings.client.as_ref().map(|c| Arc::clone(&c.service)),
            local_ends: None,
            secret: Secret::new(k0, k1),
            index_key: (0, 0),
            clock: if settings.lasting { Clock::of_the_machine() } else { Clock::start() },
            idle: settings.idle,
            keep_closes: settings.close_log.keep,
        };
        let range = port_range(settings.client.as_ref(), ports.len())?;
        let cores = cores(&settings.cores, ports.len());
        let workers = start_workers(ports, &cores, &plan, &requests, |worker| {
            let (client, range) = (settings.client.as_ref()?, range?);
            Some(LocalEnds::new(&client.addresses, range, worker))
        })?;
        let handles = workers.iter().map(|w| w.handle.clone()).collect();
        let opener = settings.client.as_ref().map(|c| Opener::new(&report, c, handles)).transpose();
        let opener = opener.map_err(StartError::system("opening a netlink socket"))?;
        let queues: Vec<u32> = workers.iter().map(|w| w.queue).collect();
        let cores = workers.iter().map(|w| w.core).collect();
        let names = Names::default();
        let wall = WallClock::new(plan.clock);
        let closes =
            CloseLog::start(&settings.close_log, log, workers.len(), requests.clone(), names.clone(), wall)
                .map_err(StartError::system("starting the thread of the close log"))?;
        let in_effect = in_effect(settings, &report, plan.tcp.clone(), names.clone(), closes.desk());
        let mut supervisor =
            Supervisor::new(inbox, workers, steering, exposition.clone(), phases.clone(), in_effect);
        let silent = supervisor.first_reports(FIRST_TURN);
        let supervisor = std::thread::Builder::new()
            .name("fw-control".into())
            .spawn(move || {
                sandbox::begin(Role::Control);
                supervisor.run()
            })
            .map_err(StartError::system("starting the thread that looks after the workers"))?;
        let mut started = Self {
            requests,
            outbound: Mutex::new(opener),
            exposition,
            phases,
            interface: report,
            cores,
            http,
            admin: None,
            supervisor: Some(supervisor),
            closes,
        };
        if let Some(&worker) = silent.first() {
            return Err(StartError::Worker { worker, queue: queues[worker] });
        }
        started.admin = socket.map(|bound| started.serve_admin(bound, &queues, names, wall)).transpose()?;
        started.phases.advance(Phase::Ready);
        Ok(started)
    }

    fn serve_admin(
        &self,
        bound: admin::socket::Bound,
        queues: &[u32],
        names: Names,
        clock: WallClock,
    ) -> Result<admin::Server, StartError> {
        let interface = &self.interface.interface;
        let shared = admin::Shared::new(
            self.requests.clone(),
            self.control(),
            names,
            queues.iter().map(|q| format!("{interface} queue {q}")).collect(),
            clock,
            self.closes.desk(),
        );
        admin::Server::start(bound, shared)
            .map_err(StartError::system("starting the thread of the admin socket"))
    }

    /// Where operators reach it.
    #[must_use]
    pub fn admin_socket(&self) -> Option<&std::path::Path> {
        self.admin.as_ref().map(admin::Server::path)
    }

    /// What is in effect on the interface.
    #[must_use]
    pub const fn interface(&self) -> &Report {
        &self.interface
    }

    /// The CPU of each worker, `None` for one that is not pinned.
    #[must_use]
    pub fn cores(&self) -> &[Option<usize>] {
        &self.cores
    }

    /// Where the metrics server listens.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Server::local_addr)
    }

    /// The phase, to be read and watched.
    #[must_use]
    pub const fn phases(&self) -> &Phases {
        &self.phases
    }

    /// All workers' counters, asked for now; those of a worker that does not answer are as it last reported.
    #[must_use]
    pub fn report(&self) -> Merged {
        let (done, answer) = bounded(1);
        if self.requests.send(Request::Refresh(done)).is_ok() {
            // Without an answer the last reports are what there is.
            let _ = answer.recv_timeout(ANSWER);
        }
        self.latest()
    }

    /// All workers' counters as they were last reported: a second old at most.
    #[must_use]
    pub fn latest(&self) -> Merged {
        self.exposition.merged()
    }

    /// Records what the connections with these remote ends do from now on; to be asked before they are opened. A new
    /// trace replaces the last one. Returns when the workers know of it.
    pub fn trace(&self, remotes: Vec<Endpoint>) {
        let (done, answer) = bounded(1);
        // It fails when the supervisor has ended, and then there are no connections.
        if self.requests.send(Request::Trace(remotes, done)).is_ok() {
            let _ = answer.recv_timeout(ANSWER);
        }
    }

    /// Has the next worker open a connection to `remote`, for the service of [`ClientSettings`](super::ClientSettings);
    /// `user` is the word that its context has at first. Returns when the worker has been told; how it goes the service is
    /// told: `opened` and `closed`, or `closed` alone, or `not_begun`.
    ///
    /// The first connection by way of a neighbour waits for the kernel to resolve it.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(&self, remote: SocketAddr, user: u32) -> Result<(), ConnectError> {
        // Whoever panicked with it left a cache and a counter: both are good as they are.
        let mut outbound = self.outbound.lock().unwrap_or_else(PoisonError::into_inner);
        outbound.as_mut().ok_or(ConnectError::NoClient)?.open(remote, user)
    }

    /// Ends the trace and returns what was recorded, oldest first.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Entry> {
        let (done, answer) = bounded(1);
        if self.requests.send(Request::TakeTrace(done)).is_err() {
            return Vec::new();
        }
        answer.recv_timeout(ANSWER).unwrap_or_default()
    }

    /// A handle that can ask for the end from another thread.
    #[must_use]
    pub fn control(&self) -> Control {
        Control { requests: self.requests.clone(), phases: self.phases.clone() }
    }

    /// Takes no new connections, ends those there are, and then everything. What has not ended shortly before
    /// `deadline` is reset; when it passes, everything has ended.
    #[must_use]
    pub fn drain(self, deadline: Duration) -> Outcome {
        self.control().drain(deadline);
        self.wait()
    }

    /// Resets all connections and ends.
    #[must_use]
    pub fn stop(self) -> Outcome {
        self.drain(Duration::ZERO)
    }

    /// Waits until it has ended: drained by a [`Control`], or because a worker failed.
    ///
    /// # Panics
    /// When the thread that looks after the workers has panicked.
    #[must_use]
    pub fn wait(mut self) -> Outcome {
        let outcome = self.join().unwrap_or_else(|| unreachable!("it is joined here or in drop alone"));
        drop(self);
        outcome
    }

    fn join(&mut self) -> Option<Outcome> {
        let outcome = self.supervisor.take()?.join();
        Some(outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        let Some(supervisor) = self.supervisor.take() else { return };
        self.control().drain(Duration::ZERO);
        if supervisor.join().is_err() {
            tracing::error!("the thread that looks after the workers panicked");
        }
    }
}

/// Checks what is known about the cores before anything is touched. Returns how many queues there will be.
fn check_cores(settings: &Settings) -> Result<usize, StartError> {
    // An interface that cannot be asked is the business of the opening, which has the better words.
    let queues = match &settings.open.queues {
        xsk::Queues::List(list) => list.len(),
        xsk::Queues::All => LinkFacts::read(&settings.open.interface).map_or(0, |f| f.rx_queues as usize),
    };
    if let Cores::List(list) = &settings.cores {
        if queues > 0 && list.len() != queues {
            return Err(StartError::CoreCount { cores: list.len(), queues });
        }
        let allowed: Vec<usize> = allowed_cores().iter().map(|c| c.id).collect();
        if let Some(&core) = list.iter().find(|c| !allowed.contains(c)) {
            return Err(StartError::Core { core, allowed });
        }
    }
    Ok(queues)
}

fn allowed_cores() -> Vec<CoreId> {
    core_affinity::get_core_ids().unwrap_or_default()
}

/// The CPU of each worker.
fn cores(cores: &Cores, queues: usize) -> Vec<Option<CoreId>> {
    match cores {
        Cores::Unpinned => vec![None; queues],
        Cores::List(list) => list.iter().map(|&id| Some(CoreId { id })).collect(),
        Cores::Auto => {
            let allowed = allowed_cores();
            if queues > allowed.len() {
                tracing::warn!(queues, cpus = allowed.len(), "several workers share a CPU");
            }
            (0..queues).map(|i| allowed.get(i % allowed.len().max(1)).copied()).collect()
        }
    }
}

/// The claims of all listeners, and frames that hold the interface's MTU.
fn open_config(settings: &Settings) -> xsk::OpenConfig {
    let mut open = settings.open.clone();
    let addresses = settings.listeners.iter().flat_map(|l| &l.addresses);
    open.claims.extend(addresses.map(|&a| Claim::listen(a)));
    open.claims.extend(settings.client.iter().flat_map(ClientSettings::claims));
    if let Ok(link) = LinkFacts::read(&open.interface)
        && link.mtu > open.rings.mtu_limit()
    {
        open.rings = RingConfig { frame_size: LARGE_FRAME, ..open.rings };
    }
    open
}

fn engine_config(settings: &Settings, report: &Report) -> crate::tcp::TcpConfig {
    let mut tcp = settings.tcp.clone();
    tcp.mtu = u16::try_from(report.mtu).unwrap_or(u16::MAX);
    // The client's service comes after the listeners'.
    let client = settings.client.iter().map(|c| &c.limits);
    tcp.limits = settings.listeners.iter().map(|l| &l.limits).chain(client).cloned().collect();
    tcp
}

/// What operators are told, and what a reload is compared with.
fn in_effect(
    settings: &Settings,
    report: &Report,
    tcp: crate::tcp::TcpConfig,
    names: Names,
    closes: close_log::Desk,
) -> InEffect {
    let listener = |l: &super::settings::ListenerSettings| InForce {
        name: l.name.clone(),
        number: names.push(Some(l.name.clone())),
        ends: l.addresses.iter().map(|&a| a.into()).collect(),
    };
    let listeners = settings.listeners.iter().map(listener).collect();
    if settings.client.is_some() {
        // Its service has a number too.
        names.push(None);
    }
    InEffect {
        interface: report.interface.clone(),
        xdp: report.attach.to_string(),
        copies: report.queues.iter().map(|(_, copy)| copy.as_str().to_owned()).collect(),
        names,
        closes,
        source: settings.source.clone(),
        tcp,
        listeners,
        order: settings.drain,
    }
}

/// How the client's ports are split.
fn port_range(client: Option<&ClientSettings>, workers: usize) -> Result<Option<PortRange>, StartError> {
    let Some(client) = client else { return Ok(None) };
    let (first, last) = (*client.ports.start(), *client.ports.end());
    let range = PortRange::new(&client.ports, workers).ok_or(StartError::Ports { first, last, workers })?;
    Ok(Some(range))
}

/// Two words of the operating system's randomness.
fn random() -> Result<(u64, u64), StartError> {
    let word = || OsRng.try_next_u64();
    word().and_then(|a| Ok((a, word()?))).map_err(|e| StartError::System {
        what: "asking the operating system for random bytes",
        source: io::Error::other(e),
    })
}

/// Two words that the kernel made of its randomness when it started: the same for all processes until the next start, and
/// told to nobody else.
fn boot() -> Result<(u64, u64), StartError> {
    let failed = StartError::system("reading this start's identity, /proc/sys/kernel/random/boot_id");
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let parsed = id.and_then(|text| {
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        u128::from_str_radix(&digits, 16).map_err(io::Error::other)
    });
    parsed.map(|n| ((n >> 64) as u64, n as u64)).map_err(failed)
}

fn start_workers(
    ports: Vec<XskPort>,
    cores: &[Option<CoreId>],
    plan: &Plan,
    requests: &Sender<Request>,
    local_ends: impl Fn(usize) -> Option<LocalEnds>,
) -> Result<Vec<Worker>, StartError> {
    let wakes: Vec<Wake> = ports
        .iter()
        .map(|p| {
            let waker = p.waker();
            Arc::new(move || waker.wake()) as Wake
        })
        .collect();
    let mut workers = Vec::with_capacity(ports.len());
    for (i, (port, mailbox)) in ports.into_iter().zip(mailboxes(&wakes)).enumerate() {
        let requests = requests.clone();
        let ended = move || {
            // Fails when the supervisor was the one to end it, and has gone.
            let _ = requests.send(Request::Ended);
        };
        let core = cores.get(i).copied().flatten();
        let plan = Plan { index_key: random()?, local_ends: local_ends(i), ..plan.clone() };
        let worker = Worker::start(i, core, port, mailbox, plan, ended)
            .map_err(StartError::system("starting a worker's thread"))?;
        workers.push(worker);
    }
    Ok(workers)
}
