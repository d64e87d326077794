//! Who takes a turn when, and what is looked at after each turn.

use super::faults::Fault;
use super::journal::Journal;
use super::oracle::Shared;
use super::report::Rule;
use super::scenario::{Scenario, part, stream};
use super::world::Conduct;
use crate::port::Port;
use crate::port::mem::{LinkHandle, MemPort};
use crate::shard::Shard;
use crate::tcp::record::{CloseRecord, First};
use crate::tcp::state::State;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

/// The conductor of a run.
pub(super) struct Conductor<'a> {
    pub oracle: Shared,
    pub journal: Journal<'a>,
    /// By number of the shard.
    pub stalled: Vec<bool>,
    /// The client's number.
    pub client: usize,
    turns: Option<SmallRng>,
    /// A server closes every connection in order.
    graceful: bool,
    /// A `TIME_WAIT` record may be gone as soon as it is made.
    evicts: bool,
}

impl<'a> Conductor<'a> {
    pub fn new(s: &Scenario, oracle: Shared, journal: Journal<'a>) -> Self {
        Self {
            oracle,
            journal,
            stalled: vec![false; s.workers + 1],
            client: s.workers,
            turns: s.faults.has(Fault::Order).then(|| stream(s.options.seed, part::TURNS)),
            graceful: s.only_patience_is_needed(),
            evicts: s.faults.has(Fault::Tables),
        }
    }

    fn violated(&self, rule: Rule, what: String) {
        self.oracle.borrow_mut().violated(rule, what);
    }

    /// Looks at a connection that ended in the last turn.
    fn ended(&mut self, number: usize, shard: &Shard<MemPort>, r: &CloseRecord) {
        if self.journal.kept() {
            let what = format!(
                "closed at {number}: {} {} path {} first {} cause {}",
                r.tuple.local,
                r.tuple.remote,
                r.path.as_str(),
                r.first.as_str(),
                r.cause.as_str()
            );
            self.journal.note(r.closed_at, &what);
        }
        let state = shard.state_of(&r.tuple);
        let due = r.path.graceful() && r.first != First::Peer;
        let wrong = if r.time_wait != due {
            true
        } else if due {
            // It may be opened again already.
            state == State::Closed && !self.evicts
        } else {
            state == State::TimeWait
        };
        if wrong {
            self.violated(Rule::TimeWait, format!("shard {number} has it in {state:?}: {r:?}"));
        }
        let haunted = self.oracle.borrow().haunted(&r.tuple);
        if self.graceful && number != self.client && !r.path.graceful() && !haunted {
            self.violated(Rule::Outcome, format!("server/{number}: {r:?}"));
        }
        self.oracle.borrow_mut().compare_ends(number, self.client, r);
    }
}

impl Conduct for Conductor<'_> {
    fn order(&mut self, shards: &mut [usize]) {
        if let Some(rng) = &mut self.turns {
            shards.shuffle(rng);
        }
    }

    fn stalled(&self, shard: usize) -> bool {
        self.stalled[shard]
    }

    fn turned(&mut self, number: usize, shard: &mut Shard<MemPort>, link: &LinkHandle) {
        self.journal.segments(number, self.client, shard, link);
        let a = shard.port().accounting();
        if !a.balanced() || a.lent != 0 {
            self.violated(Rule::Leak, format!("buffers of shard {number} after its turn: {a:?}"));
        }
        let ended = std::mem::take(&mut self.oracle.borrow_mut().ended);
        for (_, record) in &ended {
            self.ended(number, shard, record);
        }
    }
}
