//! The packet log of a run: what every worker took in and sent out, with the state of the connection, and what was done
//! to them; a line each.
//!
//! ```text
//!    1.004213 server/1 in  SYN_RECEIVED 10.0.0.10:10001 > 10.0.0.1:7 [A] seq ... len 0: Taken
//!    1.230000 -------- Stall(1)
//! ```
//!
//! The state is the one that the worker has of the pair at the end of the turn.

use super::report::seconds;
use crate::port::mem::{Direction, LinkHandle, LogEntry, MemPort};
use crate::shard::Shard;
use crate::time::Time;
use std::io::{self, Write};

/// Frames a turn may log at most; a turn takes in 64 and sends some 32 for each at most.
pub(super) const ENTRIES: usize = 1 << 14;

/// Where the log goes, if anywhere.
pub(super) struct Journal<'a> {
    out: Option<&'a mut dyn Write>,
    /// The first failure to write.
    pub failed: Option<io::Error>,
}

impl<'a> Journal<'a> {
    pub fn new(out: Option<&'a mut dyn Write>) -> Self {
        Self { out, failed: None }
    }

    /// Whether a log is kept.
    pub const fn kept(&self) -> bool {
        self.out.is_some()
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        if let Some(out) = &mut self.out
            && let Err(e) = out.write_fmt(line)
        {
            self.failed.get_or_insert(e);
        }
    }

    /// Something that was done to the world or that came of it.
    pub fn note(&mut self, at: Time, what: &str) {
        self.line(format_args!("{} -------- {what}\n", seconds(at)));
    }

    /// What is on the link's log since the last time; `number` is the shard's that had the last turn, `client` the
    /// client's.
    pub fn segments(&mut self, number: usize, client: usize, shard: &Shard<MemPort>, link: &LinkHandle) {
        if self.out.is_none() {
            return;
        }
        for e in link.take_log() {
            let who = worker(&e, client);
            let state = match e.tuple() {
                Some(t) if who == number => shard.state_of(&t).as_str(),
                Some(_) | None => "-",
            };
            let name = if who == client { "client  ".to_owned() } else { format!("server/{who}") };
            let way = if e.at_receiver() { "in " } else { "out" };
            self.line(format_args!("{} {name} {way} {state:<12} {}\n", seconds(e.at), e.segment()));
        }
    }
}

/// The number of the shard where an entry happened.
fn worker(e: &LogEntry, client: usize) -> usize {
    let at_client = match e.direction {
        Direction::AToB => !e.at_receiver(),
        Direction::BToA => e.at_receiver(),
    };
    if at_client { client } else { e.queue }
}
