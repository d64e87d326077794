//! Other listeners and limits while connections go on.
//!
//! A listener's number is its service's, and a connection keeps the number that it was opened with. So a listener that
//! changes gets a new number, with a service and limits of its own: what is open goes on as it was opened, what is new meets
//! what is new. Numbers are never given out twice. What holds for all connections ([`TcpConfig`] without its limits by
//! listener) is in force from the next segment on.
//!
//! All of it is one command, taken between two stages of a turn: a SYN meets the listeners of before or those of after.

use super::budget::PartedBudget;
use super::listen::Listeners;
use super::{STRAY_REPLIES, Shard, WAIT_REPLIES};
use crate::metrics::gauges::ListenerCounters;
use crate::port::Port;
use crate::service::{Context, Service, ServiceFactory};
use crate::tcp::TcpConfig;
use crate::tcp::record::CloseRecord;
use crate::tcp::state::{Event, State};
use crate::wire::Tuple;
use std::fmt;

/// What is to be otherwise from now on.
pub struct Change {
    /// Settings of TCP, with the limits of every number there has been.
    pub tcp: TcpConfig,
    /// Who listens where.
    pub listeners: Listeners,
    /// Services of new numbers, which follow those there are.
    pub services: Vec<ServiceFactory>,
    /// Numbers that no record names any more: their services are dropped.
    pub gone: Vec<u16>,
    /// Listeners that begin.
    pub begin: u16,
    /// Listeners that end.
    pub end: u16,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("services", &self.services.len())
            .field("gone", &self.gone)
            .field("begin", &self.begin)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// In the place of a service that is no longer needed.
struct Gone;

impl Service for Gone {
    fn opened(&mut self, cx: &mut dyn Context) {
        cx.abort();
    }
    fn data(&mut self, _cx: &mut dyn Context, _bytes: &[u8]) -> usize {
        0
    }
    fn peer_closed(&mut self, cx: &mut dyn Context) {
        cx.abort();
    }
    fn closed(&mut self, _tuple: &Tuple, _user: u32, _record: &CloseRecord) {}
}

impl<P: Port> Shard<P> {
    /// Makes a change. What it replaces goes back with it; services are made and dropped here, as they belong to this
    /// thread.
    pub(super) fn reconfigure(&mut self, change: &mut Change) {
        let core = &mut self.core;
        std::mem::swap(&mut core.cfg, &mut change.tcp);
        std::mem::swap(&mut core.listeners, &mut change.listeners);
        core.services.extend(change.services.iter().map(|make| make()));
        core.block.listeners.resize(core.services.len(), ListenerCounters::default());
        for &number in &change.gone {
            if let Some(service) = core.services.get_mut(usize::from(number)) {
                *service = Box::new(Gone);
            }
        }
        for _ in 0..change.end {
            core.log.moved(State::Listen, Event::Close, State::Closed);
        }
        for _ in 0..change.begin {
            core.log.moved(State::Closed, Event::PassiveOpen, State::Listen);
        }
        if core.cfg.stray_replies != change.tcp.stray_replies {
            core.stray_replies =
                PartedBudget::new(core.cfg.stray_replies, core.isn_secret.derived(STRAY_REPLIES));
            core.wait_replies =
                PartedBudget::new(core.cfg.stray_replies, core.isn_secret.derived(WAIT_REPLIES));
        }
    }
}
