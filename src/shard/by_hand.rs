//! A shard driven by hand: what a script does between segments, where a program would wait for the service to be called.
//!
//! Nothing here is on the packet path; like [`Shard::snapshot`], it is for whoever turns a shard in simulated time.

use super::Shard;
use super::tables::Found;
use crate::port::Port;
use crate::service::Context;
use crate::tcp::state::State;
use crate::wire::Tuple;

impl<P: Port> Shard<P> {
    /// The state of what `tuple` names, whatever kind of record holds it; `CLOSED` when nothing does.
    #[must_use]
    pub fn state_of(&self, tuple: &Tuple) -> State {
        let t = &self.core.tables;
        match t.find(t.hash(tuple), tuple) {
            Found::Conn(key) => t.conns.get(key).map_or(State::Closed, crate::tcp::Conn::state),
            Found::Half(_) => State::SynReceived,
            Found::Wait(_) => State::TimeWait,
            Found::Nothing => State::Closed,
        }
    }

    /// Does to a connection what its service could do in a call, then sends what that leads to. Returns whether there is
    /// such a connection (a half-open record and one in `TIME_WAIT` are none).
    pub fn act(&mut self, tuple: &Tuple, f: &mut dyn FnMut(&mut dyn Context)) -> bool {
        let Some(key) = self.connection(tuple) else { return false };
        self.core.act(key, f);
        self.settle(key, None);
        true
    }

    /// Offers a connection's unread bytes to its service again, and then the peer's FIN, as if more had arrived. Returns
    /// whether there is such a connection.
    pub fn offer_unread(&mut self, tuple: &Tuple) -> bool {
        let Some(key) = self.connection(tuple) else { return false };
        self.core.offer_unread(key);
        self.settle(key, None);
        true
    }

    pub(super) fn connection(&self, tuple: &Tuple) -> Option<u32> {
        let t = &self.core.tables;
        match t.find(t.hash(tuple), tuple) {
            Found::Conn(key) => Some(key),
            Found::Half(_) | Found::Wait(_) | Found::Nothing => None,
        }
    }
}
