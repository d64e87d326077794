//! The thread that takes close records from the workers: into a file, and to those who follow.
//!
//! ```text
//! workers ──CloseTap: bounded queues──▶ fw-closes ──▶ file, one JSON object a line
//!                                          │  └─────▶ followers: bounded channels, each with a filter
//!                                          └──Request::TapCloses──▶ supervisor: the queues are there while somebody listens
//! ```
//!
//! Nobody of the packet path waits for it. What a full queue loses is counted by the worker; what a follower is too slow for
//! is counted in its own stream.

use super::admin::model::CloseLine;
use super::admin::spec::CloseFilter;
use super::names::Names;
use super::sandbox::{self, Role};
use super::supervisor::Request;
use crate::config::access::{self, Access};
use crate::shard::closes::CloseTap;
use crate::shard::worker::Clock;
use crate::tcp::record::CloseRecord;
use crate::time::Time;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use crossbeam::queue::ArrayQueue;
use hyper::body::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Records that may wait for the thread, of each worker: those of a tenth of a second at 40,000 closes a second. Some 200
/// bytes each. Fewer lose records in a burst; more only hide that the disk is too slow.
const QUEUE: usize = 8192;
/// Between looks at the queues while somebody listens.
const LOOK: Duration = Duration::from_millis(10);
/// Lines that may wait for a follower's connection.
pub(super) const FOLLOWED: usize = 4096;

/// Where the log is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseLogSettings {
    /// Records that each worker keeps.
    pub keep: usize,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// One of so many records is written.
    pub sample: u32,
}

/// The log's file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {path} for appending ([close_log] file): {source}{remedy}")]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
    remedy: String,
}

/// Opens the log's file.
pub(super) fn open(path: &Path) -> Result<File, OpenError> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|source| {
        let remedy =
            access::remedy(path, Access::Append, &source).map_or_else(String::new, |r| format!("; {r}"));
        OpenError { path: path.to_owned(), source, remedy }
    })
}

/// Turns the workers' time into the wall clock's.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    clock: Clock,
}

impl WallClock {
    /// For the workers' clock.
    #[must_use]
    pub const fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// The wall clock's time at the workers' zero, since 1970: it follows what is done to the wall clock.
    #[must_use]
    pub fn zero(&self) -> Duration {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(self.clock.now().since(Time::ZERO))
    }

    /// Since 1970.
    #[must_use]
    pub fn at(&self, t: Time) -> Duration {
        self.zero() + t.since(Time::ZERO)
    }

    /// Now, as the workers have it.
    #[must_use]
    pub fn now(&self) -> Time {
        self.clock.now()
    }
}

/// Somebody who follows.
pub(super) struct Follower {
    pub filter: CloseFilter,
    pub lines: tokio::sync::mpsc::Sender<Bytes>,
    /// Lines that found its channel full, and were not told yet.
    pub lost: u64,
}

/// What the thread is told.
enum Message {
    Follow(Follower),
    Write(Option<File>, u32),
    Stop,
}

/// The thread, seen from the others. Dropping the last of them does not end it; [`CloseLog::stop`] does.
#[derive(Clone)]
pub(super) struct Desk(Sender<Message>);

impl Desk {
    /// Adds a follower.
    pub fn follow(&self, follower: Follower) {
        // It fails when the process ends, and then there is nothing to follow.
        let _ = self.0.send(Message::Follow(follower));
    }

    /// Writes elsewhere from now on.
    pub fn write(&self, file: Option<File>, sample: u32) {
        let _ = self.0.send(Message::Write(file, sample));
    }
}

/// The running thread.
pub(super) struct CloseLog {
    desk: Desk,
    thread: Option<JoinHandle<()>>,
}

impl CloseLog {
    pub fn start(
        settings: &CloseLogSettings,
        file: Option<File>,
        workers: usize,
        requests: Sender<Request>,
        names: Names,
        clock: WallClock,
    ) -> io::Result<Self> {
        let (desk, inbox) = unbounded();
        let mut thread = Thread {
            inbox,
            queues: (0..workers).map(|_| None).collect(),
            file: file.map(BufWriter::new),
            sample: settings.sample.max(1),
            skip: 0,
            every: None,
            followers: Vec::new(),
            requests,
            names,
            clock,
        };
        let thread = std::thread::Builder::new().name("fw-closes".into()).spawn(move || {
            sandbox::begin(Role::Other);
            thread.run();
        })?;
        Ok(Self { desk: Desk(desk), thread: Some(thread) })
    }

    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Writes what is left and ends: after the workers have.
    pub fn stop(&mut self) {
        let _ = self.desk.0.send(Message::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the close log panicked");
        }
    }
}

impl Drop for CloseLog {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Thread {
    inbox: Receiver<Message>,
    queues: Vec<Option<Arc<ArrayQueue<CloseRecord>>>>,
    file: Option<BufWriter<File>>,
    sample: u32,
    /// Records until the next one that is written.
    skip: u32,
    /// What the workers were told: one of so many, or none.
    every: Option<u32>,
    followers: Vec<Follower>,
    requests: Sender<Request>,
    names: Names,
    clock: WallClock,
}

impl Thread {
    fn run(&mut self) {
        loop {
            self.tap();
            let message = if self.every.is_some() {
                self.inbox.recv_timeout(LOOK)
            } else {
                self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match message {
                Ok(Message::Follow(follower)) => self.followers.push(follower),
                Ok(Message::Write(file, sample)) => {
                    self.take();
                    self.file = file.map(BufWriter::new);
                    (self.sample, self.skip) = (sample.max(1), 0);
                }
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.take();
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.take();
            self.followers.retain(|f| !f.lines.is_closed());
        }
    }

    /// Has the workers pass on what is wanted.
    fn tap(&mut self) {
        // Whoever follows wants all; a file alone, its sample.
        let wanted =
            if self.followers.is_empty() { self.file.as_ref().map(|_| self.sample) } else { Some(1) };
        if wanted == self.every {
            return;
        }
        self.every = wanted;
        self.skip = 0;
        let taps = self
            .queues
            .iter_mut()
            .map(|slot| {
                let every = wanted?;
                let queue = slot.get_or_insert_with(|| Arc::new(ArrayQueue::new(QUEUE)));
                Some(CloseTap { queue: Arc::clone(queue), every })
            })
            .collect();
        let _ = self.requests.send(Request::TapCloses(taps));
    }

    /// Takes what has come.
    fn take(&mut self) {
        for worker in 0..self.queues.len() {
            let Some(queue) = self.queues[worker].clone() else { continue };
            // No more than there is room for, so that one busy worker does not keep the others.
            for _ in 0..QUEUE {
                let Some(record) = queue.pop() else { break };
                self.record(worker, &record);
            }
        }
        if let Some(file) = &mut self.file
            && let Err(e) = file.flush()
        {
            self.file_failed(&e);
        }
    }

    fn record(&mut self, worker: usize, r: &CloseRecord) {
        // With followers all records come, of which the file gets its part.
        let mut write = self.file.is_some();
        if write && self.every == Some(1) {
            write = self.skip == 0;
            self.skip = if write { self.sample - 1 } else { self.skip - 1 };
        }
        let followed = self.followers.iter().any(|f| f.filter.takes(r));
        if !write && !followed {
            return;
        }
        let line = line(worker, r, &self.clock, &self.names);
        for f in self.followers.iter_mut().filter(|f| f.filter.takes(r)) {
            if f.lost > 0 && f.lines.try_send(format!("{{\"lost\":{}}}\n", f.lost).into()).is_ok() {
                f.lost = 0;
            }
            f.lost += u64::from(f.lines.try_send(line.clone()).is_err());
        }
        if write
            && let Some(file) = &mut self.file
            && let Err(e) = file.write_all(&line)
        {
            self.file_failed(&e);
        }
    }

    fn file_failed(&mut self, e: &io::Error) {
        tracing::error!(error = %e, "the close log cannot be written ([close_log] file) and is given up until a reload");
        self.file = None;
    }
}

/// A record as one line of JSON.
pub(super) fn line(worker: usize, r: &CloseRecord, clock: &WallClock, names: &Names) -> Bytes {
    let name = r.listener.and_then(|n| names.name(n));
    let line = CloseLine::new(worker, r, clock.at(r.closed_at), name);
    // Numbers, names and addresses: there is nothing in it that JSON cannot say.
    let mut text = serde_json::to_vec(&line).unwrap_or_else(|e| unreachable!("a close record as JSON: {e}"));
    text.push(b'\n');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::admin::model::ClosesQuery;
    use crate::tcp::record::{Cause, ClosePath, ClosingTimes, First};
    use crate::wire::{Addr, Endpoint, Tuple};

    fn record(port: u16, cause: Cause) -> CloseRecord {
        let end = |port| Endpoint::new(Addr::v4([192, 0, 2, 1]), port);
        CloseRecord {
            tuple: Tuple { local: end(80), remote: end(port) },
            listener: Some(0),
            opened_at: Time::from_micros(1_000_000),
            closed_at: Time::from_micros(3_500_000),
            path: ClosePath::Active,
            first: First::Us,
            cause,
            fin_retransmissions: 1,
            times: ClosingTimes { fin_wait_1: Duration::from_millis(20), ..ClosingTimes::default() },
            unacknowledged: 0,
            bytes_in: 3,
            bytes_out: 4,
            time_wait: true,
        }
    }

    /// The queue that the thread has asked for, and one of how many records goes into it.
    fn tapped(requests: &Receiver<Request>) -> Option<(Arc<ArrayQueue<CloseRecord>>, u32)> {
        match requests.recv_timeout(Duration::from_secs(10)) {
            Ok(Request::TapCloses(mut taps)) => taps.remove(0).map(|t| (t.queue, t.every)),
            _ => panic!("no tap"),
        }
    }

    #[test]
    fn the_file_gets_its_sample_and_followers_what_they_ask_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("closes");
        let settings = CloseLogSettings { keep: 0, file: Some(path.clone()), sample: 3 };
        let (to, requests) = unbounded();
        let names = Names::default();
        names.push(Some("web".to_owned()));
        let file = Some(open(&path).unwrap());
        let wall = WallClock::new(Clock::start());
        let mut log = CloseLog::start(&settings, file, 1, to, names.clone(), wall).unwrap();
        let (_, every) = tapped(&requests).unwrap();
        assert_eq!(every, 3, "the workers leave the others out");

        let query = ClosesQuery { cause: Some("idle".to_owned()), ..ClosesQuery::default() };
        let filter = CloseFilter::new(&query, &names).unwrap();
        let (lines, mut followed) = tokio::sync::mpsc::channel(1);
        log.desk().follow(Follower { filter, lines, lost: 0 });
        let (queue, every) = tapped(&requests).unwrap();
        assert_eq!(every, 1, "a follower sees all");
        for (port, cause) in [(1, Cause::Peer), (2, Cause::Idle), (3, Cause::Idle), (4, Cause::Peer)] {
            queue.push(record(port, cause)).unwrap();
        }
        let line = followed.blocking_recv().unwrap();
        let c: CloseLine = serde_json::from_slice(&line).unwrap();
        assert_eq!((c.peer.port(), c.listener.as_deref(), c.cause.as_str()), (2, Some("web"), "idle"));
        assert!((c.lifetime_s - 2.5).abs() < 1e-9 && (c.closing_ms.fin_wait_1 - 20.0).abs() < 1e-9, "{c:?}");
        // The channel held one line: what was too much is told with the next one.
        queue.push(record(5, Cause::Idle)).unwrap();
        let mut got = String::new();
        while !got.contains("\"lost\"") {
            queue.push(record(6, Cause::Idle)).unwrap();
            got = String::from_utf8(followed.blocking_recv().unwrap().to_vec()).unwrap();
        }
        drop(followed);
        log.stop();
        let text = std::fs::read_to_string(&path).unwrap();
        let ports: Vec<u16> =
            text.lines().map(|l| serde_json::from_str::<CloseLine>(l).unwrap().peer.port()).collect();
        assert_eq!(ports[..2], [1, 4], "one of three: {text}");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_with_its_key() {
        let e = open(Path::new("/no/such/closes")).unwrap_err().to_string();
        assert!(e.contains("/no/such/closes") && e.contains("[close_log] file"), "{e}");
    }
}
