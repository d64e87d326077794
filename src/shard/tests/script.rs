//! A service that does what the test says and remembers what it was told.

use super::harness::pattern;
use crate::service::{ConnId, Context, Service};
use crate::tcp::record::CloseRecord;
use crate::wire::Tuple;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// One act of a service within a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Do {
    /// Offers so many bytes to send.
    Send(usize),
    /// Full close.
    Close,
    /// Half-close.
    Shutdown,
    /// Lingering close.
    Linger,
    /// RST.
    Abort,
    /// Has the connection of the peer's port offered its unread bytes again.
    Resume(u16),
}

/// One call of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// `opened`.
    Opened,
    /// `data` with so many bytes.
    Data(usize),
    /// `writable`.
    Writable,
    /// `peer_closed`.
    PeerClosed,
    /// `drain`.
    Drain,
    /// `closed`.
    Closed,
}

/// What the service does in each call, and what it was told.
#[derive(Debug)]
pub struct Script {
    /// In `opened`.
    pub opened: Vec<Do>,
    /// In `data`, before it returns.
    pub data: Vec<Do>,
    /// In `writable`.
    pub writable: Vec<Do>,
    /// In `peer_closed`.
    pub peer_closed: Vec<Do>,
    /// In `drain`.
    pub drain: Vec<Do>,
    /// Most bytes a call of `data` consumes.
    pub take: usize,
    /// Most bytes that all calls of `data` together still consume.
    pub quota: usize,
    /// What was told, in order, since it was last taken.
    pub told: Vec<Told>,
    /// Close records, in order, not yet looked at.
    pub records: Vec<CloseRecord>,
    /// Bytes that `send` took, over all connections.
    pub sent: usize,
    got: usize,
    streams: HashMap<Tuple, Stream>,
    /// Names of the connections that were opened, by the peer's port.
    ids: HashMap<u16, ConnId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    got: usize,
    sent: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            opened: Vec::new(),
            data: Vec::new(),
            writable: Vec::new(),
            peer_closed: Vec::new(),
            drain: vec![Do::Linger],
            take: usize::MAX,
            quota: usize::MAX,
            told: Vec::new(),
            records: Vec::new(),
            sent: 0,
            got: 0,
            streams: HashMap::new(),
            ids: HashMap::new(),
        }
    }
}

impl Script {
    /// Does the acts in order. Every byte sent follows the pattern from the connection's first one on.
    pub fn act(&mut self, cx: &mut dyn Context, acts: &[Do]) {
        for act in acts {
            match *act {
                Do::Send(n) => {
                    let s = self.streams.entry(cx.tuple()).or_default();
                    let took = cx.send(&pattern(1 + s.sent as i64, n));
                    s.sent += took;
                    self.sent += took;
                }
                Do::Close => cx.close(),
                Do::Shutdown => cx.shutdown(),
                Do::Linger => cx.close_lingering(),
                Do::Abort => cx.abort(),
                Do::Resume(port) => cx.resume(self.ids[&port]),
            }
        }
    }

    /// Bytes that `data` took, over all connections.
    pub fn got(&self) -> usize {
        self.got
    }

    /// Takes what was told since the last look.
    pub fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }
}

/// The service: a handle on the script that the test holds too.
pub struct Scripted(pub Rc<RefCell<Script>>);

impl Scripted {
    fn run(&self, cx: &mut dyn Context, told: Told, acts: impl Fn(&Script) -> Vec<Do>) {
        let mut s = self.0.borrow_mut();
        s.told.push(told);
        let acts = acts(&s);
        s.act(cx, &acts);
    }
}

impl Service for Scripted {
    fn opened(&mut self, cx: &mut dyn Context) {
        self.0.borrow_mut().ids.insert(cx.tuple().remote.port, cx.id());
        self.run(cx, Told::Opened, |s| s.opened.clone());
    }
    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        let n = {
            let mut s = self.0.borrow_mut();
            let n = bytes.len().min(s.take).min(s.quota);
            s.quota -= n;
            let stream = s.streams.entry(cx.tuple()).or_default();
            assert_eq!(bytes, pattern(1 + stream.got as i64, bytes.len()), "the service got other bytes");
            stream.got += n;
            s.got += n;
            n
        };
        self.run(cx, Told::Data(bytes.len()), |s| s.data.clone());
        n
    }
    fn writable(&mut self, cx: &mut dyn Context) {
        self.run(cx, Told::Writable, |s| s.writable.clone());
    }
    fn peer_closed(&mut self, cx: &mut dyn Context) {
        self.run(cx, Told::PeerClosed, |s| s.peer_closed.clone());
    }
    fn drain(&mut self, cx: &mut dyn Context) {
        self.run(cx, Told::Drain, |s| s.drain.clone());
    }
    fn closed(&mut self, tuple: &Tuple, _: u32, record: &CloseRecord) {
        assert_eq!(record.tuple, *tuple);
        let mut s = self.0.borrow_mut();
        s.streams.remove(tuple);
        s.told.push(Told::Closed);
        s.records.push(record.clone());
    }
}
