//! Which records are meant: by state, listener, peer, local end and age.
//!
//! A filter is made by the control plane and travels with what it is for; the worker compares and nothing else.

use super::listen::Listeners;
use crate::tcp::state::State;
use crate::wire::cidr::Cidr;
use crate::wire::{Endpoint, Tuple};
use std::time::Duration;

/// A set of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(u16);

impl States {
    /// Every state.
    pub const ALL: Self = Self((1 << State::COUNT) - 1);
    /// None.
    pub const NONE: Self = Self(0);

    /// With another state.
    #[must_use]
    pub const fn with(self, state: State) -> Self {
        Self(self.0 | 1 << state as u16)
    }

    /// Whether a state is in the set.
    #[must_use]
    pub const fn has(self, state: State) -> bool {
        self.0 & 1 << state as u16 != 0
    }
}

impl Default for States {
    fn default() -> Self {
        Self::ALL
    }
}

/// Local ends: some, without others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalSet {
    /// These; the unspecified address stands for all of its family.
    pub of: Vec<Endpoint>,
    /// But not what these cover.
    pub but: Vec<Endpoint>,
}

impl LocalSet {
    fn has(&self, end: &Endpoint) -> bool {
        self.of.iter().any(|e| covers(e, end)) && !self.but.iter().any(|e| covers(e, end))
    }
}

/// Whether a listener at one end takes what comes to another.
#[must_use]
pub fn covers(listening: &Endpoint, end: &Endpoint) -> bool {
    let any = || listening.addr.to_ip().is_unspecified() && listening.addr.is_v4() == end.addr.is_v4();
    listening.port == end.port && (listening.addr == end.addr || any())
}

/// What records must be, in every respect that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// In one of these states.
    pub states: States,
    /// Of one of these listeners, by number.
    pub listeners: Option<Vec<u16>>,
    /// With a peer in this network.
    pub peer: Option<Cidr>,
    /// With one of these local ends.
    pub local: Option<LocalSet>,
    /// As old as this or older.
    pub older_than: Duration,
}

impl Filter {
    /// Whether it takes everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a connection is meant, as far as its name and its state tell.
    #[must_use]
    pub fn names(&self, tuple: &Tuple, state: State) -> bool {
        self.states.has(state)
            && self.peer.as_ref().is_none_or(|net| net.contains(&tuple.remote.addr))
            && self.local.as_ref().is_none_or(|ends| ends.has(&tuple.local))
    }

    /// Whether its listener is meant.
    #[must_use]
    pub fn takes_listener(&self, listener: Option<u16>) -> bool {
        self.listeners.as_ref().is_none_or(|wanted| listener.is_some_and(|l| wanted.contains(&l)))
    }

    /// Whether frames of a connection are meant: whatever its state and age.
    #[must_use]
    pub fn wants_frame(&self, tuple: &Tuple, listeners: &Listeners) -> bool {
        self.names(tuple, State::Established)
            && (self.listeners.is_none() || self.takes_listener(listeners.find(tuple)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn end(text: &str) -> Endpoint {
        text.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn every_respect_that_is_given_must_hold() {
        let tuple = Tuple { local: end("192.0.2.1:80"), remote: end("198.51.100.9:5000") };
        let all = Filter::default();
        assert!(all.is_empty() && all.names(&tuple, State::TimeWait) && all.takes_listener(None));
        let states = Filter { states: States::NONE.with(State::Closing), ..Filter::default() };
        assert!(states.names(&tuple, State::Closing) && !states.names(&tuple, State::Established));
        let peer = |net: &str| Filter { peer: Some(net.parse().unwrap()), ..Filter::default() };
        assert!(peer("198.51.100.0/24").names(&tuple, State::Closing));
        assert!(!peer("198.51.101.0/24").names(&tuple, State::Closing));
        let of = Filter { listeners: Some(vec![3, 5]), ..Filter::default() };
        assert!(of.takes_listener(Some(5)) && !of.takes_listener(Some(4)) && !of.takes_listener(None));
    }

    #[test]
    fn local_ends_leave_out_what_other_listeners_cover() {
        let ends = LocalSet { of: vec![end("0.0.0.0:80")], but: vec![end("192.0.2.1:80")] };
        assert!(ends.has(&end("192.0.2.2:80")));
        assert!(!ends.has(&end("192.0.2.1:80")) && !ends.has(&end("192.0.2.2:81")));
        assert!(!ends.has(&end("[2001:db8::1]:80")), "an IPv4 listener takes no IPv6");
        assert!(covers(&end("[::]:80"), &end("[2001:db8::1]:80")));
    }
}
