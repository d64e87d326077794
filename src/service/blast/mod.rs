//! The load generator: a service that opens connections by itself, plays the same exchange on each, ends them in the
//! order that was asked for, and keeps count.
//!
//! ```text
//!  Shard::errands ─▶ errand ─▶ Pace: is one due? ─▶ Pairs: from where? ─▶ Errand::Open ─▶ SYN
//!                        └▶ List: whose time is over, who was held long enough? ─▶ Errand::Call ─▶ called
//!  opened ─▶ request ─▶ data: Answer ─▶ (hold) ─▶ close, as CloseShape says ─▶ closed ─▶ Tally ─▶ Desk ─▶ control
//! ```
//!
//! A generator belongs to one worker and is driven by its turns: no clock, no lock, no thread of its own. What it needs of
//! memory is taken at the start, by the most connections that may be open at a time.

mod agenda;
mod answer;
pub mod desk;
pub mod pace;
pub mod pairs;
pub mod tally;
#[cfg(test)]
mod tests;

use super::slots::Slots;
use super::{Context, Errand, NotOpened, Opening, Service};
use crate::tcp::record::{Cause, ClosePath, CloseRecord};
use crate::time::Time;
use crate::wire::{Endpoint, L2, Tuple};
use agenda::{Entries, Links, List};
use answer::{Answer, Partial};
use desk::Desk;
use pace::{Due, Pace};
use pairs::{Circle, Pairs};
use std::sync::Arc;
use std::time::Duration;
use tally::{Failure, Lap, Tally};

/// How soon a generator looks again whether it may begin.
const GO_POLL: Duration = Duration::from_millis(1);
/// How soon one tries again when the worker's tables are full.
const FULL_POLL: Duration = Duration::from_millis(1);
/// How soon one tries again when all local ends are in `TIME_WAIT` and some have not been for long enough to leave it.
const SOON: Duration = Duration::from_millis(4);

/// What payload consists of, over and over.
static BLOCK: [u8; 4096] = block();

const fn block() -> [u8; 4096] {
    let mut bytes = [0; 4096];
    let mut i = 0;
    while i < bytes.len() {
        bytes[i] = (i * 7 + i / 251) as u8;
        i += 1;
    }
    bytes
}

/// What is sent on every connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// So many bytes.
    Bytes {
        /// How many; 0 is a connection without data.
        count: u64,
        /// They are to come back.
        echo: bool,
    },
    /// This head of an HTTP request; a response is to come back.
    Http(Arc<[u8]>),
}

impl Request {
    /// Bytes that are sent.
    fn bytes(&self) -> u64 {
        match self {
            Self::Bytes { count, .. } => *count,
            Self::Http(head) => head.len() as u64,
        }
    }

    /// Bytes from `at` on, as many as lie together.
    fn part(&self, at: u64) -> &[u8] {
        match self {
            Self::Http(head) => head.get(at as usize..).unwrap_or_default(),
            Self::Bytes { count, .. } => {
                let from = (at % BLOCK.len() as u64) as usize;
                let left = usize::try_from(count.saturating_sub(at)).unwrap_or(usize::MAX);
                &BLOCK[from..BLOCK.len().min(from.saturating_add(left))]
            }
        }
    }
}

/// Who closes, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseShape {
    /// We do, once the answer is complete.
    Client,
    /// The peer does; we follow.
    Server,
    /// Both at once, as far as can be had: our FIN goes with the first byte of the answer, before the peer's is known of.
    Both,
    /// We half-close with the request, and read on to the peer's FIN.
    Half,
    /// We reset, once the answer is complete.
    Reset,
}

/// What a generator is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The peer.
    pub target: Endpoint,
    /// Link layer of what is sent.
    pub l2: L2,
    /// What is sent.
    pub request: Request,
    /// How connections end.
    pub close: CloseShape,
    /// How long a connection stays open once it is answered.
    pub hold: Duration,
    /// How long it may take, from its begin to the complete answer, and again for its close.
    pub timeout: Duration,
    /// Connections open at a time.
    pub concurrency: usize,
    /// When they are opened.
    pub pace: Pace,
    /// Where from.
    pub pairs: Pairs,
    /// Where what was counted goes.
    pub desk: Arc<Desk>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its SYN is out.
    Opening,
    /// Request and answer.
    Exchange,
    /// Answered, and kept.
    Held,
    /// Answered, and to end.
    Ending,
    /// Aborted; its end is on its way, and nobody waits for it.
    Failed,
}

/// Place of the list of those whose time limit runs.
const LIMITS: usize = 0;
/// Place of the list of those that are held.
const HOLDS: usize = 1;

impl Phase {
    /// Where those of this phase are listed.
    const fn list(self) -> Option<usize> {
        match self {
            Self::Opening | Self::Exchange | Self::Ending => Some(LIMITS),
            Self::Held => Some(HOLDS),
            Self::Failed => None,
        }
    }
}

/// A connection.
struct Exchange {
    local: Endpoint,
    phase: Phase,
    /// When it was to begin.
    intended: Time,
    /// When it is to be looked at.
    look_at: Time,
    links: Links,
    /// Payload bytes sent.
    sent: u64,
    answer: Answer,
    heard: bool,
    /// When our FIN was asked for.
    fin_at: Option<Time>,
    failure: Option<Failure>,
    /// The end of the run ended it.
    cut_short: bool,
}

impl Entries for Slots<Exchange> {
    fn links(&mut self, word: u32) -> Option<&mut Links> {
        self.get_mut(word).map(|x| &mut x.links)
    }
}

/// The generator.
pub struct Generator {
    cfg: Config,
    live: Slots<Exchange>,
    /// Those whose time limit runs, and those that are held.
    lists: [List; 2],
    partial: Partial,
    tally: Box<Tally>,
    started: Option<Time>,
    begun: u64,
    /// Nothing more is opened.
    over: bool,
    /// The last errand was to open this one; 0 when it was another, or could not be done.
    opening: u32,
    /// The worker's tables had no room for it.
    full: bool,
    /// Until then nothing is tried: it could not be done a moment ago.
    not_before: Time,
}

impl Generator {
    /// Makes a generator: its memory is taken here.
    #[must_use]
    pub fn new(cfg: Config) -> Self {
        Self {
            live: Slots::new(cfg.concurrency),
            lists: [List::default(); 2],
            partial: Partial::default(),
            tally: Box::default(),
            started: None,
            begun: 0,
            over: false,
            opening: 0,
            full: false,
            not_before: Time::ZERO,
            cfg,
        }
    }

    /// Whose time has come, if anybody's.
    fn due(&mut self, now: Time, stopped: bool) -> Option<Tuple> {
        let mut due = |list: List, at_once: bool| {
            let x = self.live.get_mut(list.first()).filter(|x| at_once || x.look_at.due(now))?;
            Some(Tuple { local: x.local, remote: self.cfg.target })
        };
        due(self.lists[LIMITS], false).or_else(|| due(self.lists[HOLDS], stopped))
    }

    /// When to be asked again.
    fn next_look(&mut self) -> Time {
        let at = self.lists.map(|l| self.live.get_mut(l.first()).map_or(Time::NEVER, |x| x.look_at));
        at[0].min(at[1])
    }

    /// What the schedule has for now.
    fn next_open(&mut self, now: Time) -> Errand {
        let start = *self.started.get_or_insert(now);
        let intended = match self.cfg.pace.next(self.begun, now.since(start)) {
            Due::Now(after) => start + after,
            Due::At(after) => return Errand::Wait((start + after).min(self.next_look())),
            Due::Over { missed } => {
                self.tally.counts.failures[Failure::Missed as usize] += missed;
                self.over = true;
                return self.rest();
            }
        };
        if self.live.len() >= self.cfg.concurrency {
            // Whoever ends makes room, and the turn after it asks again.
            return Errand::Wait(self.next_look());
        }
        match self.cfg.pairs.circle() {
            Circle::Open => {}
            Circle::Soon => return self.later(now + SOON),
            Circle::Exhausted => {
                self.tally.counts.failures[Failure::NoLocalPort as usize] += 1;
                self.over = true;
                return self.rest();
            }
        }
        self.open(now, intended)
    }

    fn open(&mut self, now: Time, intended: Time) -> Errand {
        let local = self.cfg.pairs.draw();
        let x = Exchange {
            local,
            phase: Phase::Opening,
            intended,
            look_at: now + self.cfg.timeout,
            links: Links::default(),
            sent: 0,
            answer: Answer::to(&self.cfg.request),
            heard: false,
            fin_at: None,
            failure: None,
            cut_short: false,
        };
        let Ok(word) = self.live.insert(x) else { return Errand::Wait(self.next_look()) };
        self.lists[LIMITS].append(&mut self.live, word);
        self.opening = word;
        self.begun += 1;
        self.tally.counts.begun += 1;
        Errand::Open(Opening { tuple: Tuple { local, remote: self.cfg.target }, l2: self.cfg.l2, user: word })
    }

    /// Nothing is to be tried before this time: asked again at once, it would fail again.
    fn later(&mut self, at: Time) -> Errand {
        self.not_before = at;
        Errand::Wait(self.next_look().min(at))
    }

    /// Nothing more is to be opened.
    fn rest(&mut self) -> Errand {
        if self.live.len() == 0 {
            self.cfg.desk.set_done();
        }
        Errand::Wait(self.next_look())
    }

    /// Moves a connection to a list, with a new time.
    fn look(&mut self, word: u32, phase: Phase, at: Time) {
        let Some(x) = self.live.get_mut(word) else { return };
        x.look_at = at;
        let before = std::mem::replace(&mut x.phase, phase);
        if let Some(i) = before.list() {
            self.lists[i].remove(&mut self.live, word);
        }
        if let Some(i) = phase.list() {
            self.lists[i].append(&mut self.live, word);
        }
    }

    /// Takes a connection out, wherever it is.
    fn take(&mut self, word: u32) -> Option<Exchange> {
        self.partial.forget(word);
        let phase = self.live.get_mut(word)?.phase;
        self.look(word, Phase::Failed, Time::NEVER);
        let x = self.live.remove(word)?;
        Some(Exchange { phase, ..x })
    }

    /// The gauges, as they are now.
    fn gauge(&mut self) {
        let live = self.live.len() as u64;
        let c = &mut self.tally.counts;
        c.live = live;
        c.peak = c.peak.max(live);
    }

    /// Sends what is left of the request, and what is to be done once it is sent.
    fn push(&mut self, cx: &mut dyn Context) {
        let Some(x) = self.live.get_mut(cx.user()) else { return };
        while x.sent < self.cfg.request.bytes() {
            let part = self.cfg.request.part(x.sent);
            let took = cx.send(part);
            x.sent += took as u64;
            if took < part.len() {
                return;
            }
        }
        let fin = match self.cfg.close {
            CloseShape::Half => true,
            CloseShape::Both => x.heard || x.answer.is_complete(),
            CloseShape::Client | CloseShape::Server | CloseShape::Reset => false,
        };
        if fin && x.fin_at.is_none() {
            x.fin_at = Some(cx.now());
            cx.shutdown();
        }
        if x.answer.is_complete() && x.phase == Phase::Exchange {
            self.answered(cx);
        }
    }

    /// The answer is complete.
    fn answered(&mut self, cx: &mut dyn Context) {
        self.tally.counts.answered += 1;
        if self.cfg.hold.is_zero() || self.cfg.desk.is_stopped() {
            self.finish(cx);
        } else {
            self.look(cx.user(), Phase::Held, cx.now() + self.cfg.hold);
        }
    }

    /// Ends an answered connection as was asked for.
    fn finish(&mut self, cx: &mut dyn Context) {
        self.look(cx.user(), Phase::Ending, cx.now() + self.cfg.timeout);
        match self.cfg.close {
            CloseShape::Client => self.fin(cx),
            CloseShape::Reset => cx.abort(),
            CloseShape::Server | CloseShape::Both | CloseShape::Half => {}
        }
    }

    /// Our FIN, if it was not asked for before; nothing is read from now on.
    fn fin(&mut self, cx: &mut dyn Context) {
        if let Some(x) = self.live.get_mut(cx.user()) {
            x.fin_at.get_or_insert(cx.now());
        }
        cx.close();
    }

    /// Ends a connection that failed.
    fn fail(&mut self, cx: &mut dyn Context, how: Failure) {
        let word = cx.user();
        if let Some(x) = self.live.get_mut(word) {
            x.failure.get_or_insert(how);
        }
        self.look(word, Phase::Failed, Time::NEVER);
        cx.abort();
    }

    /// Counts an end.
    fn judge(&mut self, x: &Exchange, record: &CloseRecord) {
        let c = &mut self.tally.counts;
        c.paths[record.path as usize] += 1;
        c.bytes_in += record.bytes_in;
        c.bytes_out += record.bytes_out;
        let failure = x.failure.or_else(|| failure_of(record, self.cfg.close));
        let answered = matches!(x.phase, Phase::Held | Phase::Ending);
        match failure {
            // The end of the run cuts off what it cannot close.
            Some(_) if x.cut_short || record.cause == Cause::Drain => c.cut_short += 1,
            Some(f) => c.failures[f as usize] += 1,
            None if x.cut_short || !answered => c.cut_short += 1,
            None => {
                c.completed += 1;
                if let Some(fin) = x.fin_at {
                    self.tally.lap(Lap::Close, record.closed_at.since(fin));
                }
                self.tally.lap(Lap::Total, record.closed_at.since(x.intended));
            }
        }
    }
}

/// What the end of a connection says of it.
fn failure_of(record: &CloseRecord, close: CloseShape) -> Option<Failure> {
    match record.path {
        ClosePath::Passive | ClosePath::Active | ClosePath::HalfClose | ClosePath::Simultaneous => None,
        ClosePath::Timeout => Some(Failure::Timeout),
        ClosePath::Reset => match record.cause {
            Cause::Abort if close == CloseShape::Reset => None,
            Cause::Refused => Some(Failure::Refused),
            Cause::DataAfterClose | Cause::UnreadData | Cause::LingerLimit => Some(Failure::BadResponse),
            Cause::Idle
            | Cause::GiveUp
            | Cause::FinWait2Limit
            | Cause::CloseWaitLimit
            | Cause::ZeroWindow => Some(Failure::Timeout),
            Cause::Peer
            | Cause::Service
            | Cause::Drain
            | Cause::PeerReset
            | Cause::Abort
            | Cause::Operator => Some(Failure::Reset),
        },
    }
}

impl Service for Generator {
    fn errand(&mut self, now: Time) -> Errand {
        if std::mem::take(&mut self.opening) != 0 {
            self.cfg.pairs.taken();
        }
        self.gauge();
        self.cfg.desk.hand_over(&mut self.tally);
        if !self.cfg.desk.may_go() {
            return Errand::Wait(now + GO_POLL);
        }
        let stopped = self.cfg.desk.is_stopped();
        self.over |= stopped;
        if let Some(tuple) = self.due(now, stopped) {
            return Errand::Call(tuple);
        }
        if self.over {
            self.rest()
        } else if std::mem::take(&mut self.full) {
            self.later(now + FULL_POLL)
        } else if !self.not_before.due(now) {
            self.later(self.not_before)
        } else {
            self.next_open(now)
        }
    }

    fn not_opened(&mut self, user: u32, why: NotOpened) {
        // As if it had not been tried: the schedule still has it.
        if self.take(user).is_none() {
            return;
        }
        self.opening = 0;
        self.begun -= 1;
        self.tally.counts.begun -= 1;
        match why {
            NotOpened::PairInUse => self.cfg.pairs.in_use(false),
            NotOpened::PairNotYet => self.cfg.pairs.in_use(true),
            NotOpened::TableFull => self.full = true,
        }
    }

    fn opened(&mut self, cx: &mut dyn Context) {
        let Some(x) = self.live.get_mut(cx.user()) else { return };
        x.phase = Phase::Exchange;
        let took = cx.now().since(x.intended);
        self.tally.counts.opened += 1;
        self.tally.lap(Lap::Handshake, took);
        self.push(cx);
    }

    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        let word = cx.user();
        let Some(x) = self.live.get_mut(word) else { return bytes.len() };
        if !x.heard {
            x.heard = true;
            let took = cx.now().since(x.intended);
            self.tally.lap(Lap::FirstByte, took);
        }
        if x.answer.feed(bytes, &self.cfg.request, &mut self.partial, word).is_err() {
            self.fail(cx, Failure::BadResponse);
            return bytes.len();
        }
        // Also asks whether it is the time for our FIN.
        self.push(cx);
        bytes.len()
    }

    fn writable(&mut self, cx: &mut dyn Context) {
        self.push(cx);
    }

    fn peer_closed(&mut self, cx: &mut dyn Context) {
        let Some(x) = self.live.get_mut(cx.user()) else { return };
        let complete = x.answer.close();
        match x.phase {
            Phase::Exchange if complete && x.sent == self.cfg.request.bytes() => self.answered(cx),
            Phase::Opening | Phase::Exchange => {
                x.failure.get_or_insert(Failure::ShortRead);
            }
            Phase::Held | Phase::Ending | Phase::Failed => {}
        }
        if let Some(x) = self.live.get_mut(cx.user())
            && x.phase == Phase::Held
        {
            x.failure.get_or_insert(Failure::ClosedEarly);
        }
        self.fin(cx);
    }

    fn drain(&mut self, cx: &mut dyn Context) {
        if let Some(x) = self.live.get_mut(cx.user()) {
            x.cut_short = true;
        }
        cx.close_lingering();
    }

    fn called(&mut self, cx: &mut dyn Context) {
        let Some(x) = self.live.get_mut(cx.user()) else { return };
        match x.phase {
            Phase::Held => self.finish(cx),
            Phase::Opening | Phase::Exchange | Phase::Ending => self.fail(cx, Failure::Timeout),
            Phase::Failed => {}
        }
    }

    fn closed(&mut self, _tuple: &Tuple, user: u32, record: &CloseRecord) {
        let Some(x) = self.take(user) else { return };
        self.judge(&x, record);
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.gauge();
        let tally = std::mem::take(&mut self.tally);
        self.cfg.desk.leave(tally);
    }
}
