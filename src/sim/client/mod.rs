//! The client role for simulation, demo and load: each connection follows a [`Plan`], and every byte that comes back is
//! checked.
//!
//! ```text
//! plan(Plan) ─▶ word ─▶ shard.connect(tuple, word) ─▶ opened ─▶ Upload ─▶ send ... data ─▶ Checker
//!                                                     closed(record) ─▶ Outcome ─▶ Tally
//! ```
//!
//! [`Driver`] is the [`Service`] of the client side. The word that [`Driver::plan`] returns must be the connection's
//! initial `user` word; if the connection cannot even be begun, [`Driver::refused`] takes the plan back. [`Upload`] and
//! [`Checker`] serve kernel clients as well, so that all kinds of clients play the same plans.
//!
//! A plan allocates (its requests are formatted when it is made): the driver measures correctness, not speed.

mod check;
mod plan;
mod tally;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world_tests;

pub use check::{Checker, Fault};
pub use plan::{Order, Plan, Target, Upload};
pub use tally::{Cell, Failure, Outcome, Tally};

use crate::service::slots::Slots;
use crate::service::{Context, Service};
use crate::tcp::record::{Cause, ClosePath, CloseRecord};
use crate::wire::Tuple;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes offered to the send buffer at a time; the pattern is made on the stack.
const PART: usize = 2048;

/// Why a plan was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// As many plans as the driver was made for are open.
    #[error("the driver has no room for another connection")]
    Full,
    /// The server would never close first.
    #[error("the server closes first only when it is scripted")]
    NeedsScript,
}

/// How far our side of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// We may send.
    Open,
    /// We shut down, and still receive.
    Shut,
    /// We closed or aborted.
    Over,
}

/// One connection under way.
struct Run {
    plan: Plan,
    upload: Upload,
    checker: Checker,
    side: Side,
    peer_closed: bool,
    fault: Option<Fault>,
}

/// The client side's service.
pub struct Driver {
    runs: Slots<Run>,
    body: Arc<[u8]>,
    tally: Tally,
}

impl Driver {
    /// A driver for up to `connections` at a time; `body` is what the HTTP server answers with.
    #[must_use]
    pub fn new(connections: usize, body: Arc<[u8]>) -> Self {
        Self { runs: Slots::new(connections), body, tally: Tally::default() }
    }

    /// Has the tally keep so many failures in full.
    pub fn keep_failures(&mut self, failures: usize) {
        self.tally.keep(failures);
    }

    /// Registers the plan of a connection about to be opened. Returns its initial `user` word, never 0.
    ///
    /// # Errors
    /// No room, or a plan that can never end.
    pub fn plan(&mut self, plan: Plan) -> Result<u32, PlanError> {
        if !plan.possible() {
            return Err(PlanError::NeedsScript);
        }
        let run = Run {
            plan,
            upload: Upload::new(&plan),
            checker: Checker::new(&plan, Arc::clone(&self.body)),
            side: Side::Open,
            peer_closed: false,
            fault: None,
        };
        let word = self.runs.insert(run).map_err(|_| PlanError::Full)?;
        self.tally.plan(&plan);
        Ok(word)
    }

    /// The connection of a plan was never opened and `closed` will not be called: the plan is counted as refused.
    pub fn refused(&mut self, tuple: &Tuple, word: u32) {
        if let Some(run) = self.runs.remove(word) {
            self.tally.end(tuple, &run.plan, Outcome::Refused, None);
        }
    }

    /// Plans whose connections have not ended.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.runs.len()
    }

    /// How the connections ended so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl Run {
    /// Sends what the send buffer takes, then closes if it is time.
    fn go_on(&mut self, cx: &mut dyn Context) {
        let mut part = [0u8; PART];
        while self.side == Side::Open && !self.upload.done() {
            let n = self.upload.peek(&mut part);
            let taken = cx.send(&part[..n]);
            self.upload.advance(taken);
            if taken < n {
                break;
            }
        }
        self.close_if_due(cx);
    }

    fn close_if_due(&mut self, cx: &mut dyn Context) {
        if self.side == Side::Over {
            return;
        }
        if self.fault.is_some() {
            self.abort(cx);
            return;
        }
        let all_sent = self.upload.done();
        match self.plan.order {
            Order::ClientFirst if all_sent && self.checker.complete() => self.close(cx),
            Order::ServerFirst if self.peer_closed => self.close(cx),
            Order::HalfClose | Order::Both if all_sent && self.side == Side::Open => {
                self.side = Side::Shut;
                cx.shutdown();
            }
            Order::Abort if self.abort_due() => self.abort(cx),
            Order::ClientFirst | Order::ServerFirst | Order::HalfClose | Order::Both | Order::Abort => {}
        }
    }

    /// In the middle: once something came back, or, where nothing ever does, once half is sent.
    fn abort_due(&self) -> bool {
        let silent = self.checker.received() == 0 && self.checker.complete();
        self.checker.received() > 0 || (silent && self.upload.sent() * 2 >= self.upload.total())
    }

    fn close(&mut self, cx: &mut dyn Context) {
        self.side = Side::Over;
        cx.close();
    }

    fn abort(&mut self, cx: &mut dyn Context) {
        self.side = Side::Over;
        cx.abort();
    }

    fn outcome(&self, record: &CloseRecord) -> Outcome {
        if let Some(fault) = self.fault {
            return Outcome::Fault(fault);
        }
        let aborts = self.plan.order == Order::Abort;
        match record.path {
            ClosePath::Reset if aborts && record.cause == Cause::Abort => Outcome::Good,
            ClosePath::Reset if record.cause == Cause::Refused => Outcome::Refused,
            ClosePath::Reset => Outcome::Reset(record.cause),
            ClosePath::Timeout => Outcome::Timeout(record.cause),
            ClosePath::Passive | ClosePath::Active | ClosePath::HalfClose | ClosePath::Simultaneous => {
                if !aborts && self.upload.done() && self.checker.complete() {
                    Outcome::Good
                } else {
                    Outcome::Short(self.checker.received())
                }
            }
        }
    }
}

impl Service for Driver {
    fn opened(&mut self, cx: &mut dyn Context) {
        match self.runs.get_mut(cx.user()) {
            Some(run) => run.go_on(cx),
            // Not a connection of this driver: nobody would ever close it.
            None => cx.abort(),
        }
    }

    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        if let Some(run) = self.runs.get_mut(cx.user()) {
            if run.fault.is_none() {
                run.fault = run.checker.feed(bytes).err();
            }
            run.close_if_due(cx);
        }
        bytes.len()
    }

    fn writable(&mut self, cx: &mut dyn Context) {
        if let Some(run) = self.runs.get_mut(cx.user()) {
            run.go_on(cx);
        }
    }

    fn peer_closed(&mut self, cx: &mut dyn Context) {
        let Some(run) = self.runs.get_mut(cx.user()) else {
            cx.close();
            return;
        };
        run.peer_closed = true;
        let early = match run.plan.order {
            Order::ClientFirst | Order::Abort => run.side == Side::Open,
            Order::ServerFirst => !(run.upload.done() && run.checker.complete()),
            Order::HalfClose => run.side == Side::Open || !run.checker.complete(),
            Order::Both => !run.checker.complete(),
        };
        if early && run.fault.is_none() {
            run.fault = Some(Fault::EarlyEnd(run.checker.received()));
        }
        run.go_on(cx);
    }

    fn closed(&mut self, tuple: &Tuple, user: u32, record: &CloseRecord) {
        if let Some(run) = self.runs.remove(user) {
            let outcome = run.outcome(record);
            self.tally.end(tuple, &run.plan, outcome, Some((record.path, record.first)));
        }
    }
}

/// A driver that a shard serves with and whoever runs the shard plans with and reads the tally of.
impl Service for Rc<RefCell<Driver>> {
    fn opened(&mut self, cx: &mut dyn Context) {
        self.borrow_mut().opened(cx);
    }

    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        self.borrow_mut().data(cx, bytes)
    }

    fn writable(&mut self, cx: &mut dyn Context) {
        self.borrow_mut().writable(cx);
    }

    fn peer_closed(&mut self, cx: &mut dyn Context) {
        self.borrow_mut().peer_closed(cx);
    }

    fn drain(&mut self, cx: &mut dyn Context) {
        self.borrow_mut().drain(cx);
    }

    fn closed(&mut self, tuple: &Tuple, user: u32, record: &CloseRecord) {
        self.borrow_mut().closed(tuple, user, record);
    }
}
