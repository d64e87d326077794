//! The supervisor's answers to operators: pages of the workers', drains that can be taken back, reloads, status.
//!
//! ```text
//! admin, signals ──Request──▶ Supervisor ──Command──▶ worker        one sweep at a time each; others wait in a line
//!                    ▲───answer───┴──────◀──Reply────┘
//! ```
//!
//! Everything here happens in the supervisor's thread, between its reports, so a reload and a drain are never half done when
//! the other begins.

use super::close_log;
use super::names::Names;
use super::phase::Phase;
use super::reload::{ReloadError, Reloaded, Source, compare};
use super::settings::Settings;
use super::status::{Sample, word};
use super::supervisor::{Request, Supervisor};
use crate::config::Config;
use crate::port::xsk::Claim;
use crate::service::ServiceFactory;
use crate::shard::closes::ClosePage;
use crate::shard::drain::DrainOrder;
use crate::shard::filter::{Filter, LocalSet};
use crate::shard::listen::Listeners;
use crate::shard::mailbox::{Command, Reply};
use crate::shard::reload::Change;
use crate::shard::sweep::{Deed, Sweep};
use crate::tcp::TcpConfig;
use crate::wire::Endpoint;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long workers may take to a change: services are made in it.
const CHANGE_LIMIT: Duration = Duration::from_secs(2);
/// Slots of a page that looks whether a former listener is still needed.
const CHECK_SLOTS: u32 = 1 << 18;
/// Listeners' numbers are 16 bits, and the last one stands for none.
const MAX_NUMBERS: usize = u16::MAX as usize - 1;

/// Who waits for an answer.
pub(super) type Answer<T> = oneshot::Sender<T>;

/// What the drain that an operator orders is made of, from what is configured.
pub(super) type Order = Box<dyn FnOnce(DrainOrder) -> DrainOrder + Send>;

/// Who wants a page.
enum Asker {
    Client(Answer<Box<Sweep>>),
    /// The supervisor itself, about a former listener.
    Check,
}

/// What is out with a worker, beside its report.
#[derive(Default)]
pub(super) struct Errands {
    waiting: VecDeque<(Box<Sweep>, Asker)>,
    out: Option<Asker>,
    closes: VecDeque<Answer<Box<ClosePage>>>,
    /// Changes that were not confirmed yet.
    changes: usize,
}

/// A listener as it is in force.
#[derive(Clone)]
pub(super) struct InForce {
    pub name: String,
    pub number: u16,
    pub ends: Vec<Endpoint>,
}

/// Something of a former listener's that is still needed, perhaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Former {
    /// A claim: its connections would be the kernel's, which would reset them.
    End(Endpoint),
    /// A number: its connections have the service.
    Number(u16),
}

/// A look whether a former thing is still needed, from worker to worker.
struct Check {
    of: Former,
    worker: usize,
}

/// A drain that an operator ordered.
pub(super) struct Pause {
    pub began: Instant,
    pub order: DrainOrder,
}

/// What is in force.
pub(super) struct InEffect {
    pub interface: String,
    pub xdp: String,
    /// Zero-copy or copy, of each worker.
    pub copies: Vec<String>,
    pub names: Names,
    pub closes: close_log::Desk,
    pub source: Option<Source>,
    /// With the limits of every number there has been.
    pub tcp: TcpConfig,
    pub listeners: Vec<InForce>,
    /// What a drain is made of when nobody says.
    pub order: DrainOrder,
}

/// What the supervisor knows for operators.
pub(super) struct Operations {
    pub now: InEffect,
    pub started: Instant,
    pub former: Vec<Former>,
    check: Option<Check>,
    pub pause: Option<Pause>,
    pub samples: [Option<Sample>; 2],
    pub reloads: u64,
}

impl Operations {
    pub fn new(now: InEffect) -> Self {
        Self {
            now,
            started: Instant::now(),
            former: Vec::new(),
            check: None,
            pause: None,
            samples: [None, None],
            reloads: 0,
        }
    }

    fn ends(&self) -> impl Iterator<Item = Endpoint> {
        self.now.listeners.iter().flat_map(|l| l.ends.iter().copied())
    }

    /// Who listens where, as workers need it.
    fn table(&self) -> Listeners {
        let mut table = Listeners::default();
        for l in &self.now.listeners {
            l.ends.iter().for_each(|&e| table.add(e, l.number));
        }
        table.set_count(self.now.listeners.len() as u16);
        let retired = self.former.iter().filter_map(|f| match f {
            Former::End(end) => Some(*end),
            Former::Number(_) => None,
        });
        table.set_retired(retired.collect());
        table
    }
}

impl Supervisor {
    /// Serves what operators ask for.
    pub(super) fn serve_operator(&mut self, request: Request) {
        match request {
            Request::Sweep(worker, sweep, answer) => self.line_up(worker, sweep, Asker::Client(answer)),
            Request::Closes(worker, page, answer) => {
                let Some(w) = self.workers.get_mut(worker) else { return };
                if w.worker.handle.send(Command::Closes(page)).is_ok() {
                    w.errands.closes.push_back(answer);
                }
            }
            Request::TapCloses(taps) => {
                for (w, tap) in self.workers.iter().zip(taps) {
                    // A worker with a full mailbox is about to be found out.
                    let _ = w.worker.handle.send(Command::TapCloses(tap));
                }
            }
            Request::Capture(taps, answer) => {
                for (w, tap) in self.workers.iter().zip(taps) {
                    let _ = w.worker.handle.send(Command::Capture(tap));
                }
                self.refresh();
                let lost = self.workers.iter().map(|w| w.counters.operated.capture_lost);
                let _ = answer.send(lost.collect());
            }
            Request::Status(answer) => {
                self.refresh();
                let _ = answer.send(Box::new(self.status()));
            }
            Request::Source(answer) => {
                let _ = answer.send(self.operations.now.source.clone());
            }
            Request::Pause(order, answer) => {
                let order = order(self.operations.now.order);
                let _ = answer.send(self.pause(order));
            }
            Request::Resume(answer) => {
                let _ = answer.send(self.resume());
            }
            Request::Reload(config, answer) => {
                let done = self.reload(*config);
                match &done {
                    Ok(report) => tracing::info!("configuration read again: {}", report.summary()),
                    Err(e) => tracing::error!("configuration not taken: {e}"),
                }
                let _ = answer.send(done);
            }
            Request::Refresh(_)
            | Request::Trace(..)
            | Request::TakeTrace(_)
            | Request::Drain(_)
            | Request::End(_)
            | Request::Quit(_)
            | Request::Ended => {}
        }
    }

    /// Whether workers have something that is waited for.
    pub(super) fn awaits_workers(&self) -> bool {
        self.workers.iter().any(|w| w.errands.out.is_some() || !w.errands.closes.is_empty())
    }

    fn line_up(&mut self, worker: usize, sweep: Box<Sweep>, asker: Asker) {
        let Some(w) = self.workers.get_mut(worker) else { return };
        w.errands.waiting.push_back((sweep, asker));
        self.next_sweep(worker);
    }

    /// Sends the next sweep, if none is out.
    fn next_sweep(&mut self, worker: usize) {
        let w = &mut self.workers[worker];
        while w.errands.out.is_none() {
            let Some((sweep, asker)) = w.errands.waiting.pop_front() else { return };
            let gone = matches!(&asker, Asker::Client(answer) if answer.is_closed());
            // Whoever does not get an answer hears that it was dropped.
            if !gone && !w.worker.is_joined() && w.worker.handle.send(Command::Sweep(sweep)).is_ok() {
                w.errands.out = Some(asker);
            }
        }
    }

    /// A worker's answer to something of an operator's.
    pub(super) fn operator_reply(&mut self, worker: usize, reply: Reply) {
        let errands = &mut self.workers[worker].errands;
        match reply {
            Reply::Sweep(sweep) => {
                match errands.out.take() {
                    // It fails when the client has gone.
                    Some(Asker::Client(answer)) => drop(answer.send(sweep)),
                    Some(Asker::Check) => self.checked(worker, sweep),
                    None => {}
                }
                self.next_sweep(worker);
            }
            Reply::Closes(page) => {
                if let Some(answer) = errands.closes.pop_front() {
                    drop(answer.send(page));
                }
            }
            Reply::Configured(_) => errands.changes = errands.changes.saturating_sub(1),
            Reply::Report(_) | Reply::Trace(_) => {}
        }
    }

    /// A worker has ended: nobody gets an answer of it any more.
    pub(super) fn drop_errands(&mut self, worker: usize) {
        self.workers[worker].errands = Errands::default();
    }

    // Drains.

    fn pause(&mut self, order: DrainOrder) -> Result<(), &'static str> {
        if self.drain.is_some() {
            return Err("the process is ending: its connections are being closed");
        }
        self.phases.advance(Phase::Draining);
        self.refresh();
        let began = self.operations.pause.as_ref().map_or_else(Instant::now, |p| p.began);
        tracing::info!(over = ?order.over, new = word(order.new), connections = self.left().live, "draining, asked by an operator");
        self.operations.pause = Some(Pause { began, order });
        self.command(|| Command::DrainAs(order));
        self.refresh();
        Ok(())
    }

    fn resume(&mut self) -> Result<(), &'static str> {
        if self.drain.is_some() {
            return Err("the process is ending: it was told to by a signal, and cannot be kept from it");
        }
        if self.operations.pause.take().is_none() {
            return Err("nothing is drained: connections are taken");
        }
        self.command(|| Command::Undrain);
        self.phases.resume();
        tracing::info!("connections are taken again");
        self.refresh();
        Ok(())
    }

    /// What the drain at the end of the process is made of, within its deadline.
    pub(super) fn last_order(&self, deadline: Duration) -> DrainOrder {
        let order = self.operations.now.order;
        DrainOrder { over: order.over.min(deadline), new: order.new }
    }

    // Reloads.

    fn reload(&mut self, new: Config) -> Result<Reloaded, ReloadError> {
        let Some(source) = self.operations.now.source.clone() else {
            return Err(ReloadError::NotNow("the process was not started from a file".to_owned()));
        };
        if self.drain.is_some() || self.operations.pause.is_some() {
            let why = "connections are being drained; `finwheel undrain` takes them again";
            return Err(ReloadError::NotNow(why.to_owned()));
        }
        let report = compare(&source.config, &new).map_err(ReloadError::Refused)?.report;
        let fresh = report.added.len() + report.changed.len();
        if self.operations.now.names.count() + fresh > MAX_NUMBERS {
            return Err(ReloadError::NotNow(
                "listeners have changed 65,000 times; restart the process".to_owned(),
            ));
        }
        let log = new.close_log.file.as_deref().map(close_log::open).transpose();
        let log = log.map_err(|e| ReloadError::NotNow(e.to_string()))?;
        let settings = Settings::from_config(&new);
        let (change, claims) = self.plan(&settings, &report);
        let silent = self.change(&change);
        self.operations.now.closes.write(log, new.close_log.sample);
        self.operations.now.order = settings.drain;
        self.operations.now.source = Some(Source { path: source.path, config: new });
        self.operations.reloads += 1;
        // The workers know the listeners before the first SYN for one comes.
        for claim in claims {
            self.steering.claim(claim).map_err(|e| ReloadError::Incomplete(e.to_string()))?;
        }
        if let Some(worker) = silent {
            return Err(ReloadError::Incomplete(format!(
                "worker {worker} does not answer: its part is done when it does"
            )));
        }
        Ok(report)
    }

    /// What workers are to change, and what is to be claimed afterwards. The books are those of afterwards at once.
    fn plan(&mut self, settings: &Settings, report: &Reloaded) -> (Plan, Vec<Claim>) {
        let o = &mut self.operations;
        let before: Vec<Endpoint> = o.ends().collect();
        let limits = std::mem::take(&mut o.now.tcp.limits);
        let mut tcp = TcpConfig { mtu: o.now.tcp.mtu, limits, ..settings.tcp.clone() };
        let mut services: Vec<ServiceFactory> = Vec::new();
        let mut listeners = Vec::new();
        for l in &settings.listeners {
            let ends: Vec<Endpoint> = l.addresses.iter().map(|&a| a.into()).collect();
            let same = !report.added.contains(&l.name) && !report.changed.contains(&l.name);
            let was = o.now.listeners.iter().find(|w| w.name == l.name).filter(|_| same);
            let number = was.map_or_else(
                || {
                    services.push(l.service.clone());
                    tcp.limits.push(l.limits.clone());
                    o.now.names.push(Some(l.name.clone()))
                },
                |w| w.number,
            );
            listeners.push(InForce { name: l.name.clone(), number, ends });
        }
        let gone = o.now.listeners.iter().filter(|w| !listeners.iter().any(|l| l.number == w.number));
        o.former.extend(gone.map(|w| Former::Number(w.number)));
        o.now.listeners = listeners;
        o.now.tcp = tcp;
        let after: Vec<Endpoint> = o.ends().collect();
        o.former.retain(|f| !matches!(f, Former::End(end) if after.contains(end)));
        o.former.extend(before.iter().filter(|e| !after.contains(e)).map(|&e| Former::End(e)));
        // Claimed twice is as claimed once: what was retired and is back is among them.
        let claims = after.iter().filter(|e| !before.contains(e)).map(|&e| Claim::Listen(e)).collect();
        let begin = services.len() as u16;
        let end = (report.removed.len() + report.changed.len()) as u16;
        (Plan { services, gone: Vec::new(), begin, end }, claims)
    }

    /// Has every worker make a change, and waits for it. Returns one that has not answered.
    fn change(&mut self, plan: &Plan) -> Option<usize> {
        let o = &self.operations;
        self.exposition.set_listeners(o.now.names.shown());
        let (tcp, table) = (o.now.tcp.clone(), o.table());
        for w in self.workers.iter_mut().filter(|w| !w.worker.is_joined()) {
            let change = Change {
                tcp: tcp.clone(),
                listeners: table.clone(),
                services: plan.services.clone(),
                gone: plan.gone.clone(),
                begin: plan.begin,
                end: plan.end,
            };
            if w.worker.handle.send(Command::Configure(Box::new(change))).is_ok() {
                w.errands.changes += 1;
            }
        }
        let until = Instant::now() + CHANGE_LIMIT;
        loop {
            self.take_replies();
            let waits = |w: &super::supervisor::Watched| w.errands.changes > 0 && !w.worker.has_ended();
            let silent = self.workers.iter().position(waits);
            if silent.is_none() || Instant::now() >= until {
                return silent;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    // Former listeners.

    /// Looks whether what is left of former listeners is still needed; a look at a time.
    pub(super) fn look_after_former(&mut self) {
        if self.operations.check.is_some() {
            return;
        }
        let Some(&of) = self.operations.former.first() else { return };
        // The one that was looked at goes behind the others.
        self.operations.former.rotate_left(1);
        self.operations.check = Some(Check { of, worker: 0 });
        self.send_check();
    }

    fn send_check(&mut self) {
        let o = &self.operations;
        let Some(check) = &o.check else { return };
        let filter = match check.of {
            Former::End(end) => {
                let local = LocalSet { of: vec![end], but: o.ends().collect() };
                Filter { local: Some(local), ..Filter::default() }
            }
            Former::Number(number) => Filter { listeners: Some(vec![number]), ..Filter::default() },
        };
        let worker = check.worker;
        if self.workers.get(worker).is_some_and(|w| !w.worker.is_joined()) {
            self.line_up(worker, Box::new(Sweep::new(Deed::List, filter, 1, CHECK_SLOTS)), Asker::Check);
        } else {
            // The process is about to end.
            self.operations.check = None;
        }
    }

    /// A worker has looked.
    fn checked(&mut self, worker: usize, mut sweep: Box<Sweep>) {
        let workers = self.workers.len();
        let Some(check) = &mut self.operations.check else { return };
        if !sweep.rows.is_empty() || !self.operations.former.contains(&check.of) {
            self.operations.check = None;
        } else if !sweep.done {
            sweep.turn_over(CHECK_SLOTS);
            self.line_up(worker, sweep, Asker::Check);
        } else if worker + 1 < workers {
            check.worker = worker + 1;
            self.send_check();
        } else {
            let of = check.of;
            self.operations.check = None;
            self.release(of);
        }
    }

    /// Nothing needs it any more.
    fn release(&mut self, of: Former) {
        self.operations.former.retain(|f| *f != of);
        let mut plan = Plan::default();
        match of {
            Former::End(end) => match self.steering.unclaim(Claim::Listen(end)) {
                Ok(()) => {
                    tracing::info!(at = %end, "given back to the kernel: the last connection has ended");
                }
                Err(e) => tracing::warn!(at = %end, error = %e, "cannot be given back to the kernel"),
            },
            Former::Number(number) => plan.gone.push(number),
        }
        // Nobody waits for it: it changes no listener.
        let _ = self.change(&plan);
    }
}

/// What is the same for all workers in a change.
#[derive(Default)]
struct Plan {
    services: Vec<ServiceFactory>,
    gone: Vec<u16>,
    begin: u16,
    end: u16,
}
