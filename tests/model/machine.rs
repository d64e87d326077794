//! What a segment, an application and a timer do to the two ends: RFC 9293 §3.10 in its order, as the engine has it
//! (`src/tcp/input.rs`, `syn_rcvd.rs`, `time_wait.rs`, `close.rs`). The states themselves are moved by the table.

use super::endpoint::{End, Endpoint};
use super::net::{Channel, Kind, Segment};
use finwheel::tcp::state::{Event, State, Transition, transition};

/// A transition table: the project's, or the project's with one cell changed.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The cell, and what it says instead.
    pub changed: Option<(State, Event, Transition)>,
}

impl Table {
    /// The project's.
    pub const REAL: Self = Self { changed: None };

    /// What the table says.
    pub fn transition(self, state: State, event: Event) -> Transition {
        match self.changed {
            Some((s, e, instead)) if (s, e) == (state, event) => instead,
            Some(_) | None => transition(state, event),
        }
    }
}

/// A fault of the processing, to show that the properties about data see one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    None,
    /// The FIN is taken although data before it is missing.
    FinOverGap,
    /// A unit that comes again is delivered again.
    DeliversTwice,
    /// 2MSL pass although segments are under way: a `TIME_WAIT` too short.
    ShortTimeWait,
}

/// The two ends and what is between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The ends.
    pub ends: [Endpoint; 2],
    /// What is on its way to each.
    pub net: [Channel; 2],
    /// Something other than two closes decides how this ends: an abort, a limit, a close before there was a
    /// connection, a SYN to a port where nobody was yet, or a `TIME_WAIT` that was over before the peer had heard the
    /// ACK of its FIN.
    pub disturbed: bool,
    /// An event that reached a state in which the table calls it impossible.
    pub impossible: Option<(State, Event)>,
}

impl World {
    /// Nothing is open, nothing under way.
    pub fn new() -> Self {
        Self { ends: [Endpoint::new(); 2], net: [Channel::default(); 2], disturbed: false, impossible: None }
    }

    /// Nothing is under way.
    pub const fn quiet(&self) -> bool {
        self.net[0].is_empty() && self.net[1].is_empty()
    }
}

/// Events that one step causes at most: a segment can bring the ACK of our SYN, the ACK of our FIN, and a FIN.
pub const EVENTS_PER_STEP: usize = 4;

/// One step from one world to the next, for the end `me`.
pub struct Step {
    /// The world, being changed.
    pub world: World,
    /// The (state, event) pairs met on the way.
    pub met: [Option<(State, Event)>; EVENTS_PER_STEP],
    table: Table,
    fault: Fault,
    capacity: usize,
    me: usize,
}

impl Step {
    /// Begins a step of the end `me`.
    pub fn new(world: World, me: usize, table: Table, fault: Fault, capacity: usize) -> Self {
        Self { world, met: [None; EVENTS_PER_STEP], table, fault, capacity, me }
    }

    fn end(&mut self) -> &mut Endpoint {
        &mut self.world.ends[self.me]
    }

    fn state(&self) -> State {
        self.world.ends[self.me].state
    }

    fn send(&mut self, segment: Segment) {
        self.world.net[1 - self.me].send(segment, self.capacity);
    }

    fn send_ack(&mut self) {
        let ack = self.end().ack();
        self.send(ack);
    }

    /// The one place that changes a state.
    fn event(&mut self, event: Event) {
        let from = self.state();
        if let Some(free) = self.met.iter_mut().find(|m| m.is_none()) {
            *free = Some((from, event));
        }
        match self.table.transition(from, event) {
            Transition::To(to) => {
                let end = self.end();
                end.state = to;
                end.waited |= to == State::TimeWait;
                if to == State::Closed {
                    end.end = match event {
                        Event::Rst => End::Reset,
                        Event::Close | Event::Abort | Event::Limit => End::Broken,
                        Event::PassiveOpen
                        | Event::ActiveOpen
                        | Event::Syn
                        | Event::SynAck
                        | Event::AckOfSyn
                        | Event::Fin
                        | Event::AckOfFin
                        | Event::TwoMsl
                        | Event::NewerSyn => End::Orderly,
                    };
                }
            }
            Transition::Stay => {}
            Transition::Impossible => self.world.impossible = Some((from, event)),
        }
    }

    /// The application listens.
    pub fn passive_open(&mut self) {
        self.event(Event::PassiveOpen);
    }

    /// The application connects.
    pub fn active_open(&mut self) {
        self.event(Event::ActiveOpen);
        let syn = self.end().syn();
        self.send(syn);
    }

    /// The application writes a unit; it is sent at once (and may be lost at once).
    pub fn write(&mut self) {
        self.end().written += 1;
        let position = self.end().written;
        let unit = self.end().segment_at(position);
        self.send(unit);
    }

    /// The application closes its direction (§3.10.4).
    pub fn close(&mut self) {
        match self.state() {
            State::Established | State::CloseWait => {
                let end = self.end();
                end.closed = true;
                end.closed_first = !end.told_end;
                self.event(Event::Close);
                let position = self.end().written + 1;
                let fin = self.end().segment_at(position);
                self.send(fin);
            }
            State::Listen | State::SynSent => {
                self.world.disturbed = true;
                self.end().forced = true;
                self.event(Event::Close);
            }
            State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => self.event(Event::Close),
            State::Closed | State::SynReceived | State::TimeWait => {}
        }
    }

    /// The application aborts (§3.10.5).
    pub fn abort(&mut self) {
        let peer_knows_us = self.state() != State::SynSent;
        self.breaks_off(Event::Abort, peer_knows_us);
    }

    /// A limit is reached.
    pub fn limit(&mut self) {
        let answers = matches!(self.state(), State::Established | State::CloseWait);
        self.breaks_off(Event::Limit, answers);
    }

    fn breaks_off(&mut self, event: Event, with_reset: bool) {
        self.world.disturbed = true;
        self.end().forced = true;
        self.event(event);
        if with_reset {
            let seq = self.end().snd_max();
            self.send(Segment { kind: Kind::Rst, seq, ack: None });
        }
    }

    /// 2MSL have passed.
    pub fn two_msl(&mut self) {
        let peer = &self.world.ends[1 - self.me];
        if !peer.fin_acked() {
            self.world.disturbed = true;
        }
        self.event(Event::TwoMsl);
    }

    /// The segment at this position goes once more.
    pub fn retransmit(&mut self, position: u8) {
        let again = self.end().segment_at(position);
        self.send(again);
    }

    /// A segment arrives.
    pub fn receive(&mut self, s: Segment) {
        match self.state() {
            State::Closed => self.in_closed(s),
            State::Listen => self.in_listen(s),
            State::SynSent => self.in_syn_sent(s),
            State::TimeWait => self.in_time_wait(s),
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => self.in_synchronized(s),
        }
    }

    /// §3.10.7.1.
    fn in_closed(&mut self, s: Segment) {
        if s.kind == Kind::Rst {
            return;
        }
        if self.end().untouched() {
            self.world.disturbed = true;
        }
        self.send(match s.ack {
            Some(seq) => Segment { kind: Kind::Rst, seq, ack: None },
            None => Segment { kind: Kind::Rst, seq: 0, ack: Some(s.end()) },
        });
    }

    /// §3.10.7.2.
    fn in_listen(&mut self, s: Segment) {
        if s.kind == Kind::Rst {
            self.event(Event::Rst);
        } else if let Some(seq) = s.ack {
            self.send(Segment { kind: Kind::Rst, seq, ack: None });
        } else if s.kind == Kind::Syn {
            self.event(Event::Syn);
            self.take_syn();
        } else if s.fin().is_some() {
            self.event(Event::Fin);
        }
    }

    /// The peer's SYN is here; ours answers it.
    fn take_syn(&mut self) {
        self.end().nxt = 1;
        let syn_ack = self.end().syn();
        self.send(syn_ack);
    }

    /// §3.10.7.3.
    fn in_syn_sent(&mut self, s: Segment) {
        let acceptable = s.ack.is_some_and(|a| a > 0 && a <= self.end().snd_max());
        if let (Some(seq), false) = (s.ack, acceptable) {
            if s.kind != Kind::Rst {
                self.send(Segment { kind: Kind::Rst, seq, ack: None });
            }
            return;
        }
        match s.kind {
            Kind::Rst if acceptable => self.take_reset(),
            Kind::Syn if acceptable => {
                self.end().nxt = 1;
                self.end().una = 1;
                self.event(Event::SynAck);
                self.send_ack();
            }
            Kind::Syn => {
                self.event(Event::Syn);
                self.take_syn();
            }
            Kind::Fin | Kind::TextFin => self.event(Event::Fin),
            Kind::Rst | Kind::Text | Kind::Ack => {}
        }
    }

    /// An acceptable RST.
    fn take_reset(&mut self) {
        self.end().forced = true;
        self.event(Event::Rst);
    }

    /// §3.10.7.4 for `TIME_WAIT`, RFC 1337.
    fn in_time_wait(&mut self, s: Segment) {
        let (nxt, snd_max) = (self.end().nxt, self.end().snd_max());
        match s.kind {
            Kind::Rst => self.event(Event::Rst),
            Kind::Syn => {
                self.event(Event::Syn);
                self.send_ack();
            }
            Kind::Fin | Kind::TextFin if s.end() == nxt => {
                self.event(Event::Fin);
                self.send_ack();
            }
            Kind::Ack if s.seq == nxt && s.ack == Some(snd_max) => {}
            Kind::Text | Kind::Fin | Kind::TextFin | Kind::Ack => self.send_ack(),
        }
    }

    /// §3.10.7.4: sequence number, RST, SYN, ACK, text, FIN.
    fn in_synchronized(&mut self, s: Segment) {
        let nxt = self.end().nxt;
        let same_syn = s.kind == Kind::Syn && s.end() == nxt && self.state() == State::SynReceived;
        if same_syn && s.ack.is_none() {
            self.event(Event::Syn);
            self.take_syn();
            return;
        }
        // A crossing SYN-ACK begins before the window, and completes the handshake all the same (§3.5, figure 8).
        if !same_syn && !self.passes_checks(s) {
            return;
        }
        let Some(ack) = s.ack else { return };
        if !self.take_ack(ack) || self.state() == State::Closed {
            return;
        }
        self.take_text(s);
        if s.kind.len() > 0 {
            self.send_ack();
        }
    }

    /// First to fourth check: whether the segment goes on to the fifth.
    fn passes_checks(&mut self, s: Segment) -> bool {
        let nxt = self.end().nxt;
        let acceptable = if s.kind.len() == 0 { s.seq >= nxt } else { s.end() > nxt };
        if !acceptable {
            if s.kind == Kind::Rst {
                return false;
            }
            if s.fin().is_some() && s.end() == nxt && !self.state().can_receive() {
                self.event(Event::Fin);
            }
            if let (Some(position), Fault::DeliversTwice) = (s.text(), self.fault) {
                self.end().deliver(position);
            }
            self.send_ack();
            return false;
        }
        match s.kind {
            // RFC 5961 §3: only at exactly RCV.NXT; elsewhere a challenge ACK.
            Kind::Rst if s.seq == nxt => {
                self.take_reset();
                false
            }
            Kind::Rst => {
                self.send_ack();
                false
            }
            // RFC 5961 §4: a challenge ACK.
            Kind::Syn => {
                self.event(Event::Syn);
                self.send_ack();
                false
            }
            Kind::Text | Kind::Fin | Kind::TextFin | Kind::Ack => true,
        }
    }

    /// Fifth check: whether the segment goes on.
    fn take_ack(&mut self, ack: u8) -> bool {
        let snd_max = self.end().snd_max();
        if self.state() == State::SynReceived {
            if ack == 0 || ack > snd_max {
                self.send(Segment { kind: Kind::Rst, seq: ack, ack: None });
                return false;
            }
            self.event(Event::AckOfSyn);
        }
        if ack > snd_max {
            self.send_ack();
            return false;
        }
        let end = self.end();
        let had_fin = end.fin_acked();
        end.una = end.una.max(ack);
        if !had_fin && end.fin_acked() {
            self.event(Event::AckOfFin);
        }
        true
    }

    /// Seventh and eighth check: text and FIN. What comes before its turn is kept.
    fn take_text(&mut self, s: Segment) {
        if !self.state().can_receive() {
            return;
        }
        let over_gap = self.fault == Fault::FinOverGap;
        let end = self.end();
        if let Some(position) = s.text() {
            end.held |= 1 << position;
        }
        end.fin_at = end.fin_at.or(s.fin());
        while end.held & (1 << end.nxt) != 0 {
            end.held &= !(1 << end.nxt);
            end.deliver(end.nxt);
            end.nxt += 1;
        }
        if end.fin_at.is_some_and(|f| f == end.nxt || over_gap) {
            end.nxt = end.fin_at.map_or(end.nxt, |f| f + 1);
            end.told_end = true;
            end.held = 0;
            self.event(Event::Fin);
        }
    }
}
