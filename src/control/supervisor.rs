//! The thread that looks after the workers, from the first report to the last.
//!
//! ```text
//!  Terminator, Control ──Request──▶┐
//!  workers' ends ─────────Request──▶ Supervisor ──Command──▶ workers ──Reply──▶ Exposition
//!  each second ────────────────────▶┘    └─ steering program: heartbeat, counters, detach
//! ```
//!
//! It owns the [`Steering`] program and all mailboxes, so everything about the workers happens in one place and in one
//! order. The program's lease is moved on only while every worker reports: should they hang, and the process then die,
//! peers are held back no longer than the lease.

use super::admin::model::Status;
use super::capture::Taps;
use super::drain::{Drain, Left, Step};
use super::operate::{Answer, Errands, InEffect, Operations, Order};
use super::outcome::{Outcome, WorkerFailure};
use super::phase::{Phase, Phases};
use super::reload::{ReloadError, Reloaded, Source};
use super::workers::Worker;
use crate::config::Config;
use crate::metrics::block::{Block, Counters};
use crate::metrics::exposition::Exposition;
use crate::port::xsk::{Counter, Steering};
use crate::shard::closes::{ClosePage, CloseTap};
use crate::shard::mailbox::{Command, Reply};
use crate::shard::sweep::Sweep;
use crate::shard::trace::{Entry, Trace};
use crate::tcp::record::{Cause, ClosePath};
use crate::wire::Endpoint;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Between reports. Shorter costs a wake-up of every idle worker each time; longer makes `/metrics` stale.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Between looks at what a drain has left.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);
/// How long the workers' answers are waited for: a worker answers within a turn, unless it has lost its core.
const REPLY_LIMIT: Duration = Duration::from_millis(250);
/// Between looks at the mailboxes while answers are out.
const REPLY_POLL: Duration = Duration::from_micros(500);
/// A worker silent for longer is unhealthy, and the lease is no longer moved on: five reports missed. Shorter, and a busy
/// host's hiccup restarts a process with a million connections.
pub(super) const REPORT_LIMIT: Duration = Duration::from_secs(5);
/// What the other workers' connections get when one worker has failed.
const FAILURE_DEADLINE: Duration = Duration::from_secs(5);

/// What is asked of the supervisor.
pub(super) enum Request {
    /// Ask the workers for reports now; answered when they are in.
    Refresh(Sender<()>),
    /// Trace the connections with these remote ends.
    Trace(Vec<Endpoint>, Sender<()>),
    /// Bring the traces in.
    TakeTrace(Sender<Vec<Entry>>),
    /// End all connections and then the workers.
    Drain(Duration),
    /// The same, with the configured deadline, or this one when there is no configuration.
    End(Duration),
    /// A page of a worker's records.
    Sweep(usize, Box<Sweep>, Answer<Box<Sweep>>),
    /// A page of a worker's close records.
    Closes(usize, Box<ClosePage>, Answer<Box<ClosePage>>),
    /// Where each worker passes close records on.
    TapCloses(Vec<Option<CloseTap>>),
    /// What each worker captures; answered by how many frames each has lost for captures since the start.
    Capture(Taps, Answer<Vec<u64>>),
    /// How everything is.
    Status(Answer<Box<Status>>),
    /// The configuration in force.
    Source(Answer<Option<Source>>),
    /// A drain that can be taken back.
    Pause(Order, Answer<Result<(), &'static str>>),
    /// Take it back.
    Resume(Answer<Result<(), &'static str>>),
    /// Another configuration.
    Reload(Box<Config>, Answer<Result<Reloaded, ReloadError>>),
    /// Detach the program at once and leave everything else to the end of the process.
    Quit(Sender<()>),
    /// A worker's thread has ended.
    Ended,
}

/// A worker and what is out with it.
pub(super) struct Watched {
    pub worker: Worker,
    /// The block for the next report; `None` while the worker has it.
    block: Option<Box<Block>>,
    /// The last report.
    pub left: Left,
    pub counters: Counters,
    /// Share of its time with work between the last two.
    pub busy: f64,
    pub errands: Errands,
    trace: Option<Box<Trace>>,
}

pub(super) struct Supervisor {
    requests: Receiver<Request>,
    pub(super) workers: Vec<Watched>,
    pub(super) steering: Steering,
    pub(super) exposition: Exposition,
    pub(super) phases: Phases,
    pub(super) drain: Option<Drain>,
    pub(super) operations: Operations,
    failures: Vec<WorkerFailure>,
    /// Frames that a port could not account for.
    missing_frames: u64,
}

impl Watched {
    /// Keeps a report's counters.
    fn note(&mut self, c: &Counters) {
        let busy = c.busy_us.saturating_sub(self.counters.busy_us);
        let idle = c.idle_us.saturating_sub(self.counters.idle_us);
        if busy + idle > 0 {
            self.busy = busy as f64 / (busy + idle) as f64;
        }
        self.counters.clone_from(c);
    }
}

impl Supervisor {
    pub fn new(
        requests: Receiver<Request>,
        workers: Vec<Worker>,
        steering: Steering,
        exposition: Exposition,
        phases: Phases,
        in_effect: InEffect,
    ) -> Self {
        let room = exposition.listener_count();
        let watched = |worker| Watched {
            worker,
            block: Some(Box::new(Block::with_room(room))),
            left: Left::default(),
            counters: Counters::default(),
            busy: 0.0,
            errands: Errands::default(),
            trace: None,
        };
        Self {
            requests,
            workers: workers.into_iter().map(watched).collect(),
            steering,
            exposition,
            phases,
            drain: None,
            operations: Operations::new(in_effect),
            failures: Vec::new(),
            missing_frames: 0,
        }
    }

    /// Waits until every worker has reported once. Returns those that have not within `limit`, or failed.
    pub fn first_reports(&mut self, limit: Duration) -> Vec<usize> {
        self.ask_reports();
        self.collect(limit);
        let silent = |w: &Watched| w.block.is_none() || w.worker.has_ended();
        (0..self.workers.len()).filter(|&i| silent(&self.workers[i])).collect()
    }

    /// Looks after the workers until they have ended.
    pub fn run(mut self) -> Outcome {
        let mut next_report = Instant::now() + REPORT_INTERVAL;
        loop {
            let wake = if self.awaits_workers() {
                Instant::now() + REPLY_POLL
            } else if self.drain.is_some() {
                Instant::now() + DRAIN_INTERVAL
            } else {
                next_report
            };
            match self.requests.recv_deadline(wake) {
                Ok(Request::Quit(done)) => {
                    self.detach();
                    // Who asked may have given up waiting; the process ends either way.
                    let _ = done.send(());
                }
                Ok(request) => self.serve(request),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody can ask for a drain any more.
                Err(RecvTimeoutError::Disconnected) => self.begin_drain(Duration::ZERO),
            }
            self.take_replies();
            self.look_for_failures();
            let now = Instant::now();
            if now >= next_report || self.drain.is_some() {
                self.refresh();
            }
            if now >= next_report {
                next_report = now + REPORT_INTERVAL;
                self.keep_house();
            }
            if self.advance_drain() {
                return self.finish();
            }
        }
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Refresh(done) => {
                self.refresh();
                let _ = done.send(());
            }
            Request::Trace(remotes, done) => {
                self.command(|| Command::Trace(Box::new(Trace::of(remotes.clone()))));
                // Commands are taken in their order: who has reported traces.
                self.refresh();
                let _ = done.send(());
            }
            Request::TakeTrace(done) => {
                let entries = self.take_traces();
                let _ = done.send(entries);
            }
            Request::Drain(deadline) => self.begin_drain(deadline),
            Request::End(otherwise) => {
                let configured = self.operations.now.source.as_ref().map(|s| s.config.drain.deadline);
                self.begin_drain(configured.unwrap_or(otherwise));
            }
            Request::Quit(_) | Request::Ended => {}
            Request::Sweep(..)
            | Request::Closes(..)
            | Request::TapCloses(_)
            | Request::Capture(..)
            | Request::Status(_)
            | Request::Source(_)
            | Request::Pause(..)
            | Request::Resume(_)
            | Request::Reload(..) => self.serve_operator(request),
        }
    }

    /// Has the workers report now.
    pub(super) fn refresh(&mut self) {
        self.ask_reports();
        self.collect(REPLY_LIMIT);
    }

    /// Sends a command to every worker that runs.
    pub(super) fn command(&self, command: impl Fn() -> Command) {
        for (i, w) in self.workers.iter().enumerate() {
            if !w.worker.is_joined() && w.worker.handle.send(command()).is_err() {
                tracing::error!(worker = i, "does not take its commands");
            }
        }
    }

    fn ask_reports(&mut self) {
        for w in self.workers.iter_mut().filter(|w| !w.worker.is_joined()) {
            if let Some(block) = w.block.take()
                && let Err(Command::Report(block)) = w.worker.handle.send(Command::Report(block))
            {
                // Its mailbox is full: it has not turned for long, and the age of its report says so.
                w.block = Some(block);
            }
        }
    }

    /// Takes answers until every report that was asked for is in, or `limit` is over.
    fn collect(&mut self, limit: Duration) {
        let until = Instant::now() + limit;
        loop {
            self.take_replies();
            let waiting = self.workers.iter().any(|w| w.block.is_none() && !w.worker.has_ended());
            if !waiting || Instant::now() >= until {
                return;
            }
            std::thread::sleep(REPLY_POLL);
        }
    }

    pub(super) fn take_replies(&mut self) {
        for i in 0..self.workers.len() {
            while let Some(reply) = self.workers[i].worker.handle.reply() {
                let w = &mut self.workers[i];
                match reply {
                    Reply::Report(block) => {
                        w.left = Left::of(&block.counters);
                        w.note(&block.counters);
                        publish(&self.exposition, i, &block);
                        w.block = Some(block);
                    }
                    Reply::Trace(trace) => w.trace = Some(trace),
                    Reply::Sweep(_) | Reply::Configured(_) | Reply::Closes(_) => {
                        self.operator_reply(i, reply);
                    }
                }
            }
        }
    }

    fn take_traces(&mut self) -> Vec<Entry> {
        self.command(|| Command::TakeTrace);
        let until = Instant::now() + REPLY_LIMIT;
        while self.workers.iter().any(|w| w.trace.is_none() && !w.worker.has_ended())
            && Instant::now() < until
        {
            std::thread::sleep(REPLY_POLL);
            self.take_replies();
        }
        let mut entries: Vec<Entry> = self
            .workers
            .iter_mut()
            .filter_map(|w| w.trace.take())
            .flat_map(|t| t.entries().to_vec())
            .collect();
        entries.sort_by_key(|e| e.at);
        entries
    }

    /// The steering program's share of housekeeping.
    fn keep_house(&mut self) {
        self.exposition.sample();
        if let Some(silent) = self.exposition.silent(REPORT_LIMIT) {
            tracing::error!(worker = silent.worker, for_ = ?silent.for_, "a worker does not report");
        } else if let Err(e) = self.steering.heartbeat() {
            tracing::error!(error = %e, "the steering program's lease is not moved on");
        }
        self.count_steering();
        self.sample();
        self.look_after_former();
    }

    fn count_steering(&self) {
        match self.steering.counters() {
            Ok(n) => {
                let counters = Counter::ALL.iter().map(|&c| (c.as_str(), n.get(c)));
                self.exposition.set_steering(counters.collect());
            }
            Err(e) => tracing::warn!(error = %e, "the steering program's counters cannot be read"),
        }
    }

    /// A worker does not end before it is told to: one that has is a failure, and the others end their connections.
    fn look_for_failures(&mut self) {
        for i in 0..self.workers.len() {
            let w = &mut self.workers[i];
            if w.worker.is_joined() || !w.worker.has_ended() {
                continue;
            }
            let cause = match w.worker.join() {
                Some(Err(cause)) => cause,
                Some(Ok(_)) => "it left its loop".to_owned(),
                None => continue,
            };
            w.left = Left::default();
            let failure = WorkerFailure { worker: i, queue: w.worker.queue, cause };
            tracing::error!("{failure}; the process ends");
            self.failures.push(failure);
            self.drop_errands(i);
        }
        if !self.failures.is_empty() {
            self.begin_drain(FAILURE_DEADLINE);
        }
    }

    fn begin_drain(&mut self, deadline: Duration) {
        let now = Instant::now();
        if let Some(drain) = &mut self.drain {
            drain.hasten(now, deadline);
            return;
        }
        self.phases.advance(Phase::Draining);
        self.drain = Some(Drain::begin(now, deadline));
        tracing::info!(deadline = ?deadline, connections = self.left().live, "draining: no new connections");
        // Without any time a FIN would only be followed by a RST.
        let order = self.last_order(deadline);
        self.command(|| if deadline.is_zero() { Command::CutOff } else { Command::DrainAs(order) });
        // Only what is reported after the command counts: the queue keeps the order.
        self.ask_reports();
        self.collect(REPLY_LIMIT);
    }

    pub(super) fn left(&self) -> Left {
        self.workers.iter().fold(Left::default(), |sum, w| Left {
            live: sum.live + w.left.live,
            half_open: sum.half_open + w.left.half_open,
            time_wait: sum.time_wait + w.left.time_wait,
        })
    }

    /// Whether the workers are to stop.
    fn advance_drain(&mut self) -> bool {
        let left = self.left();
        match self.drain.as_mut().map(|d| d.step(Instant::now(), left)) {
            None | Some(Step::Wait) => false,
            Some(Step::CutOff) => {
                tracing::warn!(connections = left.live, "the drain's time is over: what is left is reset");
                self.command(|| Command::CutOff);
                false
            }
            Some(Step::Stop) => true,
        }
    }

    /// Stops and joins the workers, accounts for their frames, and takes the program off the interface.
    fn finish(mut self) -> Outcome {
        self.count_steering();
        self.command(|| Command::Stop);
        let mut missing = 0;
        for (i, w) in self.workers.iter_mut().enumerate() {
            let queue = w.worker.queue;
            match w.worker.join() {
                None => {}
                Some(Ok(end)) => {
                    publish(&self.exposition, i, &end.block);
                    let frames = end.frames;
                    if !frames.balanced() || frames.lent > 0 {
                        tracing::error!(worker = i, queue, ?frames, "frames are missing");
                        missing += frames.lent.max(1);
                    }
                }
                Some(Err(cause)) => {
                    let failure = WorkerFailure { worker: i, queue, cause };
                    tracing::error!("{failure}");
                    self.failures.push(failure);
                }
            }
        }
        self.missing_frames = missing;
        self.detach();
        self.phases.advance(Phase::Stopped);
        let merged = self.exposition.merged();
        let closes = &merged.counters.closes[ClosePath::Reset as usize];
        let cut_off = closes.iter().map(|by_cause| by_cause[Cause::Drain as usize]).sum();
        let took = self.drain.map_or(Duration::ZERO, |d| d.began().elapsed());
        Outcome { failures: self.failures, cut_off, missing_frames: self.missing_frames, took, merged }
    }

    fn detach(&mut self) {
        if let Err(e) = self.steering.detach() {
            tracing::warn!(error = %e, "the steering program stays attached; `ip link set dev {} xdp off` removes it",
                self.steering.interface());
        }
    }
}

fn publish(exposition: &Exposition, worker: usize, block: &Block) {
    // The exposition was made for as many workers as there are.
    if let Err(e) = exposition.update(worker, block) {
        tracing::error!(error = %e, "a report is lost");
    }
}
