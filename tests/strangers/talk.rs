//! What both ends of a connection say, who closes it and how, and finwheel's end.

use finwheel::service::pattern;
use finwheel::service::{Context, Service};
use finwheel::tcp::record::{Cause, ClosePath, CloseRecord, First};
use finwheel::wire::Tuple;
use std::cell::RefCell;
use std::rc::Rc;

/// The first local port of a client: a connection's number is its client's port less this one.
pub const FIRST_PORT: u16 = 10_000;

/// Who closes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The stranger closes when it has sent and received everything; finwheel follows.
    StrangerFirst,
    /// The other way round.
    WeFirst,
    /// The stranger sends and shuts down; finwheel sends only then, and closes.
    StrangerHalf,
    /// The other way round.
    WeHalf,
    /// Both close at the same moment, once both have everything.
    Together,
    /// The stranger resets in the middle.
    StrangerReset,
    /// finwheel resets in the middle.
    WeReset,
}

impl Shape {
    pub const ALL: [Self; 7] = [
        Self::StrangerFirst,
        Self::WeFirst,
        Self::StrangerHalf,
        Self::WeHalf,
        Self::Together,
        Self::StrangerReset,
        Self::WeReset,
    ];

    /// Whether both streams are to arrive whole.
    pub const fn graceful(self) -> bool {
        !matches!(self, Self::StrangerReset | Self::WeReset)
    }

    /// What finwheel's close record says when nothing is lost.
    pub const fn lossless(self, we_send: u32) -> (ClosePath, First, Cause) {
        match self {
            Self::StrangerFirst => (ClosePath::Passive, First::Peer, Cause::Peer),
            Self::StrangerHalf if we_send > 0 => (ClosePath::HalfClose, First::Peer, Cause::Peer),
            Self::StrangerHalf => (ClosePath::Passive, First::Peer, Cause::Peer),
            Self::WeFirst => (ClosePath::Active, First::Us, Cause::Service),
            Self::WeHalf => (ClosePath::HalfClose, First::Us, Cause::Service),
            Self::Together => (ClosePath::Simultaneous, First::Both, Cause::Service),
            Self::StrangerReset => (ClosePath::Reset, First::Peer, Cause::PeerReset),
            Self::WeReset => (ClosePath::Reset, First::Us, Cause::Abort),
        }
    }
}

/// What is said on one connection.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub shape: Shape,
    /// Bytes that finwheel sends, of the stream [`Plan::we_seed`].
    pub we_send: u32,
    /// Bytes that the stranger sends, of the stream [`Plan::stranger_seed`].
    pub stranger_sends: u32,
    pub seed: u64,
}

/// Sizes that plans draw from: nothing at all, one byte, about a segment, several windows of a small buffer.
const SIZES: [u32; 7] = [0, 1, 1000, 1461, 5000, 30_000, 100_000];
/// What is under way when a connection is reset.
const LONG: u32 = 60_000;

impl Plan {
    /// The `n`th plan of a run: the shapes in turn, sizes by `seed`.
    pub fn numbered(seed: u64, n: usize) -> Self {
        let mut random = [0; 8];
        let seed = seed.wrapping_mul(0x1_0001) ^ n as u64;
        pattern::fill(seed, 0, &mut random);
        let size = |byte: u8| SIZES[usize::from(byte) % SIZES.len()];
        let shape = Shape::ALL[n % Shape::ALL.len()];
        let [a, b, ..] = random;
        let (we_send, stranger_sends) = if shape.graceful() { (size(a), size(b)) } else { (LONG, LONG) };
        // Data after our FIN is what makes it a half-close.
        let stranger_sends = if shape == Shape::WeHalf { stranger_sends.max(1) } else { stranger_sends };
        Self { shape, we_send, stranger_sends, seed }
    }

    pub const fn we_seed(&self) -> u64 {
        self.seed ^ 0x5eed
    }

    pub const fn stranger_seed(&self) -> u64 {
        self.seed ^ 0x0dd
    }
}

/// One end of a talk: what it has sent and received.
#[derive(Clone, Debug)]
pub struct End {
    to_send: u32,
    seed: u64,
    pub sent: u32,
    to_receive: u32,
    peer_seed: u64,
    pub received: u32,
    /// The first thing that was wrong with what was received.
    pub fault: Option<String>,
}

impl End {
    pub fn ours(plan: &Plan) -> Self {
        Self::new(plan.we_send, plan.we_seed(), plan.stranger_sends, plan.stranger_seed())
    }

    pub fn strangers(plan: &Plan) -> Self {
        Self::new(plan.stranger_sends, plan.stranger_seed(), plan.we_send, plan.we_seed())
    }

    const fn new(to_send: u32, seed: u64, to_receive: u32, peer_seed: u64) -> Self {
        Self { to_send, seed, sent: 0, to_receive, peer_seed, received: 0, fault: None }
    }

    pub const fn sent_all(&self) -> bool {
        self.sent == self.to_send
    }

    pub const fn received_all(&self) -> bool {
        self.received == self.to_receive
    }

    pub const fn done(&self) -> bool {
        self.sent_all() && self.received_all()
    }

    /// Time for a reset: something came, and more is under way.
    pub const fn received_some(&self) -> bool {
        self.received >= self.to_receive / 8
    }

    /// Checks what arrived.
    pub fn take(&mut self, bytes: &[u8]) {
        let at = u64::from(self.received);
        if let Some(wrong) = pattern::mismatch(self.peer_seed, at, bytes) {
            self.fault.get_or_insert(format!("another byte at {wrong}"));
        }
        self.received += bytes.len() as u32;
        if self.received > self.to_receive {
            self.fault.get_or_insert(format!("{} bytes of {}", self.received, self.to_receive));
        }
    }

    /// Offers what is left to `send`, which returns how much it took, until it takes less than it was offered.
    pub fn push(&mut self, mut send: impl FnMut(&[u8]) -> usize) {
        let mut part = [0; 4096];
        while !self.sent_all() {
            let n = (self.to_send - self.sent).min(part.len() as u32) as usize;
            pattern::fill(self.seed, u64::from(self.sent), &mut part[..n]);
            let took = send(&part[..n]);
            self.sent += took as u32;
            if took < n {
                return;
            }
        }
    }
}

/// finwheel's end of one connection.
#[derive(Debug)]
pub struct Ours {
    pub plan: Plan,
    pub end: End,
    pub tuple: Option<Tuple>,
    /// The peer's FIN was told.
    peer_closed: bool,
    /// Our FIN or RST is said.
    closed: bool,
    /// What the engine said at the end, once for each time that it said it.
    pub records: Vec<CloseRecord>,
}

impl Ours {
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            end: End::ours(&plan),
            tuple: None,
            peer_closed: false,
            closed: false,
            records: Vec::new(),
        }
    }

    pub fn opened(&mut self, cx: &mut dyn Context) {
        assert_eq!(self.tuple.replace(cx.tuple()), None, "opened twice: {self:?}");
        self.step(cx);
    }

    pub fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) {
        self.end.take(bytes);
        self.step(cx);
    }

    pub fn peer_closed(&mut self, cx: &mut dyn Context) {
        self.peer_closed = true;
        self.step(cx);
    }

    pub fn step(&mut self, cx: &mut dyn Context) {
        let may_speak = self.plan.shape != Shape::StrangerHalf || self.peer_closed;
        if may_speak && !self.closed {
            self.end.push(|bytes| cx.send(bytes));
        }
        if self.closed {
            return;
        }
        let follow = self.peer_closed && self.end.sent_all();
        let (close, shut, abort) = match self.plan.shape {
            Shape::StrangerFirst | Shape::StrangerHalf => (follow, false, false),
            Shape::WeFirst => (self.end.done(), false, false),
            Shape::WeHalf => (false, self.end.sent_all(), false),
            // The world closes both ends; under faults the peer's FIN may come in between.
            Shape::Together => (follow, false, false),
            Shape::StrangerReset => (false, false, false),
            Shape::WeReset => (false, false, self.end.received_some()),
        };
        self.closed = close || shut || abort;
        if close {
            cx.close();
        } else if shut {
            cx.shutdown();
        } else if abort {
            cx.abort();
        }
    }

    /// Closes from outside of any call. Returns whether it was open.
    pub fn close(&mut self, cx: &mut dyn Context) -> bool {
        let open = !std::mem::replace(&mut self.closed, true);
        if open {
            cx.close();
        }
        open
    }
}

/// finwheel's end of all talks of a run: a service for either role, which tells connections apart by the client's port.
#[derive(Clone)]
pub struct Talks {
    pub all: Rc<RefCell<Vec<Ours>>>,
    /// finwheel is the client.
    client: bool,
}

impl Talks {
    pub fn new(plans: &[Plan], client: bool) -> Self {
        let ours = plans.iter().map(|&plan| Ours::new(plan)).collect();
        Self { all: Rc::new(RefCell::new(ours)), client }
    }

    fn with(&self, tuple: &Tuple, f: impl FnOnce(&mut Ours)) {
        let port = if self.client { tuple.local.port } else { tuple.remote.port };
        f(&mut self.all.borrow_mut()[usize::from(port - FIRST_PORT)]);
    }
}

impl Service for Talks {
    fn opened(&mut self, cx: &mut dyn Context) {
        self.with(&cx.tuple(), |o| o.opened(cx));
    }

    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        self.with(&cx.tuple(), |o| o.data(cx, bytes));
        bytes.len()
    }

    fn writable(&mut self, cx: &mut dyn Context) {
        self.with(&cx.tuple(), |o| o.step(cx));
    }

    fn peer_closed(&mut self, cx: &mut dyn Context) {
        self.with(&cx.tuple(), |o| o.peer_closed(cx));
    }

    fn closed(&mut self, tuple: &Tuple, _: u32, record: &CloseRecord) {
        self.with(tuple, |o| o.records.push(record.clone()));
    }
}
