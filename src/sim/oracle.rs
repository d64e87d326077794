//! What must be true of every connection, seen from its services: every byte right in both directions, the end of the
//! stream after all of them, every connection that was opened closed once, `TIME_WAIT` on the side that it belongs to.
//!
//! ```text
//!  shard ─▶ Witness ─▶ the service itself            one a service and worker; bytes against Oracle's plans
//!             └─ Oracle: plans by pair, what was violated, records of connections that ended since the last look
//! ```
//!
//! Which connection of a pair a server has to do with is not written on its segments: the witness keeps as candidates
//! all plans of the pair whose stream begins with what was received, and finds fault when none is left.

use super::client::{Plan, Upload};
use super::report::{Rule, Violation};
use crate::service::{Context, Service};
use crate::tcp::record::{CloseRecord, First};
use crate::time::Time;
use crate::wire::Tuple;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::rc::Rc;

/// The same order in every run.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<siphasher::sip::SipHasher13>>;

/// Likewise.
pub(super) type Set<K> = HashSet<K, BuildHasherDefault<siphasher::sip::SipHasher13>>;

/// Violations kept; a run ends at the first, but one turn may bring several.
const KEPT: usize = 16;

/// What is known of the run, and found out about it.
#[derive(Default)]
pub(super) struct Oracle {
    /// Plans by pair, as the server names it, in the order of their beginning.
    plans: Map<Tuple, Vec<Plan>>,
    pub violations: Vec<Violation>,
    /// Connections that ended and were not looked at yet, with the shard they ended at.
    pub ended: Vec<(usize, CloseRecord)>,
    /// How they ended, by pair as the server names it: at the client, at a server. Kept only while pairs are used once.
    pairs: Map<Tuple, [Option<CloseRecord>; 2]>,
    /// Connections that the servers' services were told of, by pair.
    opened: Map<Tuple, u32>,
    /// Now, for the violations.
    pub now: Time,
    off_by_one: bool,
    /// Whether servers send SYN cookies.
    cookies: bool,
    /// Connections that late segments of ended ones opened, by bringing a cookie again.
    pub ghosts: u64,
}

/// What is shared.
pub(super) type Shared = Rc<RefCell<Oracle>>;

impl Oracle {
    pub fn new(cookies: bool, off_by_one: bool) -> Shared {
        Rc::new(RefCell::new(Self { off_by_one, cookies, ..Self::default() }))
    }

    /// A connection of this pair (as the client names it) is about to be opened.
    pub fn plan(&mut self, tuple: &Tuple, plan: Plan) {
        self.plans.entry(reversed(tuple)).or_default().push(plan);
    }

    pub fn violated(&mut self, rule: Rule, what: String) {
        if self.violations.len() < KEPT {
            self.violations.push(Violation { rule, at: self.now, what });
        }
    }

    /// A server's service is told of a connection.
    fn opened(&mut self, tuple: &Tuple) {
        let times = self.opened.entry(*tuple).or_default();
        *times += 1;
        let (times, planned) = (*times, self.plans.get(tuple).map_or(0, Vec::len));
        if times as usize > planned && self.cookies {
            // Nothing is kept of a connection that was closed by its peer: what comes late and brings the cookie again
            // opens it anew, and the peer resets it or never answers.
            self.ghosts += 1;
        } else if times as usize > planned {
            self.violated(
                Rule::Opened,
                format!("{}: opened {times} times, begun {planned} times", tuple.remote),
            );
        }
    }

    /// Whether a pair was opened more often than it was begun, so that one of its connections is a ghost.
    pub fn haunted(&self, tuple: &Tuple) -> bool {
        self.opened.get(tuple).map_or(0, |&n| n as usize) > self.plans.get(tuple).map_or(0, Vec::len)
    }

    /// Looks at how both ends of a connection say that it ended. `shard` is whose record it is, `client` the client's
    /// number.
    pub fn compare_ends(&mut self, shard: usize, client: usize, record: &CloseRecord) {
        let at_client = shard == client;
        let name = if at_client { reversed(&record.tuple) } else { record.tuple };
        if self.plans.get(&name).is_none_or(|p| p.len() > 1) || self.haunted(&name) {
            return;
        }
        let pair = self.pairs.entry(name).or_default();
        pair[usize::from(!at_client)] = Some(record.clone());
        let [Some(a), Some(b)] = pair else { return };
        if !a.path.graceful() || !b.path.graceful() {
            return;
        }
        // The FIN of whoever says that the peer was first came second: then the peer was first.
        let ok = match (a.first, b.first) {
            (First::Peer, first) | (first, First::Peer) => first == First::Us,
            (First::Us | First::Both, First::Both) | (First::Both, First::Us) => true,
            (First::Us, First::Us) | (First::Nobody, _) | (_, First::Nobody) => false,
        };
        if !ok {
            let what =
                format!("{}: the client says {:?} was first, the server {:?}", name.remote, a.first, b.first);
            self.violated(Rule::First, what);
        }
    }
}

/// The pair as the other end names it.
pub(super) const fn reversed(t: &Tuple) -> Tuple {
    Tuple { local: t.remote, remote: t.local }
}

/// What a server has received on a connection.
struct Received {
    /// The plans it may belong to, each at the byte that is due next.
    candidates: Vec<Upload>,
    bytes: u64,
    ended: bool,
}

/// A service under observation.
pub(super) struct Witness {
    inner: Box<dyn Service>,
    oracle: Shared,
    shard: usize,
    /// Whether the streams of its connections are checked here; the client checks its own.
    server: bool,
    open: Map<Tuple, Received>,
}

impl Witness {
    pub fn new(inner: Box<dyn Service>, oracle: Shared, shard: usize, server: bool) -> Self {
        Self { inner, oracle, shard, server, open: Map::default() }
    }

    /// Compares bytes that the service took with what the client says.
    fn check(&mut self, tuple: &Tuple, bytes: &[u8]) {
        let Some(r) = self.open.get_mut(tuple) else {
            let what = format!("{}: bytes on a connection that is not open", tuple.remote);
            self.oracle.borrow_mut().violated(Rule::Calls, what);
            return;
        };
        let mut want = vec![0; bytes.len()];
        r.candidates.retain_mut(|c| {
            let right = c.peek(&mut want) == bytes.len() && want == bytes;
            c.advance(bytes.len());
            right
        });
        if r.candidates.is_empty() || r.ended {
            let what = format!(
                "{}: a server received {} bytes after offset {}{} that are not what the client sent",
                tuple.remote,
                bytes.len(),
                r.bytes,
                if r.ended { " and after the end of the stream" } else { "" }
            );
            self.oracle.borrow_mut().violated(Rule::Stream, what);
            // Said once.
            r.ended = false;
            r.candidates.extend(self.oracle.borrow().plans.get(tuple).into_iter().flatten().map(Upload::new));
        }
        r.bytes += bytes.len() as u64;
    }
}

impl Service for Witness {
    fn opened(&mut self, cx: &mut dyn Context) {
        if self.server {
            let tuple = cx.tuple();
            let mut oracle = self.oracle.borrow_mut();
            oracle.opened(&tuple);
            let mut candidates: Vec<_> =
                oracle.plans.get(&tuple).into_iter().flatten().map(Upload::new).collect();
            if oracle.off_by_one {
                for c in &mut candidates {
                    c.advance(1);
                }
            }
            let fresh = Received { candidates, bytes: 0, ended: false };
            if self.open.insert(tuple, fresh).is_some() {
                oracle.violated(Rule::Calls, format!("{}: opened twice", tuple.remote));
            }
        }
        self.inner.opened(cx);
    }

    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        let took = self.inner.data(cx, bytes);
        if self.server {
            self.check(&cx.tuple(), &bytes[..took.min(bytes.len())]);
        }
        took
    }

    fn writable(&mut self, cx: &mut dyn Context) {
        self.inner.writable(cx);
    }

    fn peer_closed(&mut self, cx: &mut dyn Context) {
        if let Some(r) = self.open.get_mut(&cx.tuple()) {
            if r.ended || !r.candidates.iter().any(Upload::done) {
                let what = format!(
                    "{}: the end of the stream after {} bytes, {}",
                    cx.tuple().remote,
                    r.bytes,
                    if r.ended { "for the second time" } else { "of more" }
                );
                self.oracle.borrow_mut().violated(Rule::EndOfStream, what);
            }
            r.ended = true;
        }
        self.inner.peer_closed(cx);
    }

    fn drain(&mut self, cx: &mut dyn Context) {
        self.inner.drain(cx);
    }

    fn closed(&mut self, tuple: &Tuple, user: u32, record: &CloseRecord) {
        let mut oracle = self.oracle.borrow_mut();
        if self.server && self.open.remove(tuple).is_none() {
            oracle.violated(Rule::Calls, format!("{}: closed and was not open", tuple.remote));
        }
        oracle.ended.push((self.shard, record.clone()));
        drop(oracle);
        self.inner.closed(tuple, user, record);
    }
}
