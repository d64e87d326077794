//! How the connections of a run ended, counted by target and closing order.

use super::check::Fault;
use super::plan::{Order, Plan, Target};
use crate::tcp::record::{Cause, ClosePath, First};
use crate::wire::Tuple;
use std::fmt;

/// Failures kept in full unless told otherwise; more are only counted.
const FAILURES_KEPT: usize = 32;

/// How one connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As planned, every byte right.
    Good,
    /// What came back was wrong.
    Fault(Fault),
    /// It was closed in order, but so many bytes had come that the plan was not done; or an abort never happened.
    Short(u64),
    /// A reset ended it that was not planned.
    Reset(Cause),
    /// A time limit ended it.
    Timeout(Cause),
    /// It never opened.
    Refused,
}

/// The counts of one target and order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Plans made.
    pub planned: u64,
    /// Ended as planned.
    pub good: u64,
    /// Wrong bytes.
    pub fault: u64,
    /// Too few bytes, or no abort.
    pub short: u64,
    /// Unplanned resets.
    pub reset: u64,
    /// Time limits.
    pub timeout: u64,
    /// Never opened.
    pub refused: u64,
    /// By [`ClosePath`], as the client saw it.
    pub paths: [u64; ClosePath::ALL.len()],
    /// By [`First`], as the client saw it.
    pub first: [u64; First::ALL.len()],
}

impl Cell {
    /// Connections that ended.
    #[must_use]
    pub const fn ended(&self) -> u64 {
        self.good + self.fault + self.short + self.reset + self.timeout + self.refused
    }
}

/// One connection that did not end as planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub tuple: Tuple,
    /// What was planned.
    pub plan: Plan,
    /// What became of it.
    pub outcome: Outcome,
}

/// The counts of a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    cells: [[Cell; Order::ALL.len()]; Target::ALL.len()],
    failures: Vec<Failure>,
    /// Failures kept beyond the usual number.
    more: usize,
}

impl Tally {
    /// Keeps `failures` failures in full, if that is more than the usual number.
    pub fn keep(&mut self, failures: usize) {
        self.more = failures.saturating_sub(FAILURES_KEPT);
    }

    /// The counts of one target and order.
    #[must_use]
    pub const fn cell(&self, target: Target, order: Order) -> &Cell {
        &self.cells[target as usize][order as usize]
    }

    /// All plans made.
    #[must_use]
    pub fn planned(&self) -> u64 {
        self.cells.iter().flatten().map(|c| c.planned).sum()
    }

    /// All connections that ended as planned.
    #[must_use]
    pub fn good(&self) -> u64 {
        self.cells.iter().flatten().map(|c| c.good).sum()
    }

    /// All connections that ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.cells.iter().flatten().map(Cell::ended).sum()
    }

    /// Whether every plan was made true.
    #[must_use]
    pub fn all_good(&self) -> bool {
        self.good() == self.planned()
    }

    /// The first failures, in full.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Counts a plan that is to be carried out.
    pub fn plan(&mut self, plan: &Plan) {
        self.cells[plan.target as usize][plan.order as usize].planned += 1;
    }

    /// Counts how a planned connection ended, and (where known) on which path and by whom.
    pub fn end(&mut self, tuple: &Tuple, plan: &Plan, outcome: Outcome, how: Option<(ClosePath, First)>) {
        let cell = &mut self.cells[plan.target as usize][plan.order as usize];
        match outcome {
            Outcome::Good => cell.good += 1,
            Outcome::Fault(_) => cell.fault += 1,
            Outcome::Short(_) => cell.short += 1,
            Outcome::Reset(_) => cell.reset += 1,
            Outcome::Timeout(_) => cell.timeout += 1,
            Outcome::Refused => cell.refused += 1,
        }
        if let Some((path, first)) = how {
            cell.paths[path as usize] += 1;
            cell.first[first as usize] += 1;
        }
        if outcome != Outcome::Good && self.failures.len() < FAILURES_KEPT + self.more {
            self.failures.push(Failure { tuple: *tuple, plan: *plan, outcome });
        }
    }

    /// Adds the counts of another run or worker.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.cells.iter_mut().flatten().zip(other.cells.iter().flatten()) {
            mine.planned += theirs.planned;
            mine.good += theirs.good;
            mine.fault += theirs.fault;
            mine.short += theirs.short;
            mine.reset += theirs.reset;
            mine.timeout += theirs.timeout;
            mine.refused += theirs.refused;
            for (a, b) in mine.paths.iter_mut().zip(theirs.paths) {
                *a += b;
            }
            for (a, b) in mine.first.iter_mut().zip(theirs.first) {
                *a += b;
            }
        }
        let room = FAILURES_KEPT + self.more - self.failures.len();
        self.failures.extend(other.failures.iter().take(room).cloned());
    }
}

/// One line a target and order that was planned, then the failures kept.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "target   order        planned    good   fault   short   reset timeout refused")?;
        for target in Target::ALL {
            for order in Order::ALL {
                let c = self.cell(target, order);
                if c.planned == 0 {
                    continue;
                }
                let (target, order) = (format!("{target:?}"), format!("{order:?}"));
                writeln!(
                    f,
                    "{target:<8} {order:<11} {:>8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
                    c.planned, c.good, c.fault, c.short, c.reset, c.timeout, c.refused
                )?;
            }
        }
        for failure in &self.failures {
            writeln!(f, "{} {:?}: {:?}", failure.tuple.local, failure.plan, failure.outcome)?;
        }
        Ok(())
    }
}
