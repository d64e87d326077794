//! A record of what a few named connections did: segments, moves, and when.
//!
//! Off the hot path: a connection is compared with the trace's list once, at its SYN; later only its own flag counts.

use crate::tcp::state::State;
use crate::tcp::state_log::Move;
use crate::time::Time;
use crate::wire::{Endpoint, Header, Tuple};

/// Most entries a trace keeps; a close in full is about a dozen.
const MAX_ENTRIES: usize = 4096;

/// One thing that happened to a traced connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A segment arrived.
    Received {
        /// Its header.
        header: Header,
        /// Bytes of payload.
        len: usize,
    },
    /// A segment was sent.
    Sent {
        /// Its header.
        header: Header,
        /// Bytes of payload.
        len: usize,
    },
    /// The state moved.
    Moved(Move),
}

/// An entry of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Time,
    /// Which connection.
    pub tuple: Tuple,
    /// The connection's state afterwards.
    pub state: State,
    /// What.
    pub what: Happening,
}

/// Which connections to trace, and what they did.
#[derive(Debug, Default)]
pub struct Trace {
    remotes: Vec<Endpoint>,
    entries: Vec<Entry>,
}

impl Trace {
    /// A trace of the connections with these remote ends.
    #[must_use]
    pub fn of(remotes: Vec<Endpoint>) -> Self {
        Self { remotes, entries: Vec::with_capacity(MAX_ENTRIES) }
    }

    /// Whether a connection is to be traced.
    #[must_use]
    pub fn wants(&self, tuple: &Tuple) -> bool {
        self.remotes.contains(&tuple.remote)
    }

    /// Adds an entry while there is room.
    pub fn add(&mut self, at: Time, tuple: Tuple, state: State, what: Happening) {
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push(Entry { at, tuple, state, what });
        }
    }

    /// What was recorded, oldest first, for keeping.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// What was recorded, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}
