//! What a run has to say: what it did, and what was violated if something was.

use super::faults::FaultSet;
use super::scenario::{Options, Scenario};
use crate::time::Time;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What can be violated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Every byte is the one that was sent.
    Stream,
    /// The end of a stream comes after all of it.
    EndOfStream,
    /// A connection ends as planned, unless a fault can be the cause.
    Outcome,
    /// A server opens a connection once for each time that the client does.
    Opened,
    /// Services are called in the order that they were promised.
    Calls,
    /// `TIME_WAIT` is on the side that closed first.
    TimeWait,
    /// Both ends agree on who closed first.
    First,
    /// No reset is sent where none is due.
    Reset,
    /// Every connection comes to an end.
    Stuck,
    /// Nothing is left when all is over.
    Leak,
    /// The counters add up.
    Books,
    /// No pair of the transition table is met that cannot be.
    Transition,
    /// The shards come to rest.
    Rest,
    /// Nothing panics.
    Panic,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What was violated.
    pub rule: Rule,
    /// When.
    pub at: Time,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}: {}", self.rule, seconds(self.at), self.what)
    }
}

/// A time as the log shows it: seconds and microseconds.
pub(super) fn seconds(t: Time) -> String {
    format!("{:>4}.{:06}", t.micros() / 1_000_000, t.micros() % 1_000_000)
}

/// What a run did, figure by figure: enough to see that the faults were met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Deeds(BTreeMap<&'static str, u64>);

impl Deeds {
    /// Adds to a figure.
    pub fn count(&mut self, what: &'static str, n: u64) {
        *self.0.entry(what).or_default() += n;
    }
    /// A figure.
    #[must_use]
    pub fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
    /// All figures.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(what, n)| (*what, *n))
    }
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (what, n) in other.iter() {
            self.count(what, n);
        }
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was asked for.
    pub options: Options,
    /// Which faults there were.
    pub faults: FaultSet,
    /// Server workers.
    pub workers: usize,
    /// Simulated time that passed.
    pub took: Duration,
    /// Hash of everything that happened on the link.
    pub digest: u64,
    /// What the run did.
    pub deeds: Deeds,
    /// What was violated, the first first.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Of a run that is over.
    pub(super) fn new(s: &Scenario) -> Self {
        Self {
            options: s.options.clone(),
            faults: s.faults,
            workers: s.workers,
            took: Duration::ZERO,
            digest: 0,
            deeds: Deeds::default(),
            violations: Vec::new(),
        }
    }

    /// Whether nothing was violated.
    #[must_use]
    pub const fn good(&self) -> bool {
        self.violations.is_empty()
    }

    /// The command that runs it again with a packet log.
    #[must_use]
    pub fn replay(&self) -> String {
        let o = &self.options;
        let mut words = vec![format!("finwheel sim --seed {} --connections {}", o.seed, o.connections)];
        words.extend(o.workers.map(|w| format!("--workers {w}")));
        words.push(format!("--faults {}", o.faults));
        for (fault, strength) in o.strengths.each() {
            words.extend(strength.map(|s| format!("--{} {}", fault.as_str(), s * 100.0)));
        }
        words.extend(o.sabotage.map(|s| format!("--sabotage {s:?}")));
        words.push("--log -".to_owned());
        words.join(" ")
    }
}

/// What was violated, and how to see it again; one line when nothing was.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let o = &self.options;
        write!(
            f,
            "seed {}: {} connections, {} worker{}, faults {}, {:.1} s simulated, digest {:016x}: ",
            o.seed,
            o.connections,
            self.workers,
            if self.workers == 1 { "" } else { "s" },
            self.faults,
            self.took.as_secs_f64(),
            self.digest
        )?;
        if self.good() {
            return write!(
                f,
                "{} as planned, {} given up",
                self.deeds.get("good"),
                self.deeds.get("given_up")
            );
        }
        f.write_str("VIOLATED")?;
        for v in &self.violations {
            write!(f, "\n  {v}")?;
        }
        write!(f, "\n  replay: {}", self.replay())
    }
}
