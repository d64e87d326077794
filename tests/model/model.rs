//! The model as stateright explores it: which steps are possible, and what must hold.

use super::endpoint::{End, Endpoint};
use super::machine::{EVENTS_PER_STEP, Fault, Step, Table, World};
use super::net::Segment;
use finwheel::tcp::state::{Event, State};
use stateright::{Model, Property};

/// Who opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The first end connects to the second, which listens.
    ClientServer,
    /// Both connect.
    Simultaneous,
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// What moves the states.
    pub table: Table,
    /// A fault of the processing.
    pub fault: Fault,
    /// Who opens.
    pub opening: Opening,
    /// Most units that each end's application writes: 0 to 5.
    pub units: [u8; 2],
    /// Most different segments under way in each direction: 1 to [`MAX_CAPACITY`](super::net::MAX_CAPACITY). A
    /// segment sent beyond that is lost.
    pub capacity: usize,
    /// The applications may abort.
    pub aborts: bool,
    /// States in which a limit may end the connection.
    pub limits: &'static [State],
}

/// A step that is possible; the number is the end that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The application listens.
    Listen(usize),
    /// The application connects.
    Connect(usize),
    /// The application writes a unit.
    Write(usize),
    /// The application closes.
    Close(usize),
    /// The application aborts.
    Abort(usize),
    /// A limit is reached.
    Limit(usize),
    /// 2MSL have passed.
    TwoMsl(usize),
    /// The segment at this position is sent again.
    Retransmit(usize, u8),
    /// A segment arrives; a copy of it stays under way.
    Arrive(usize, Segment),
    /// The last copy of a segment on its way to this end is lost.
    Lose(usize, Segment),
}

impl Action {
    /// Whether the network or a timer does it: no application has to want it.
    pub const fn is_protocol(self) -> bool {
        match self {
            Self::Limit(_) | Self::TwoMsl(_) | Self::Retransmit(..) | Self::Arrive(..) | Self::Lose(..) => {
                true
            }
            Self::Listen(_) | Self::Connect(_) | Self::Write(_) | Self::Close(_) | Self::Abort(_) => false,
        }
    }
}

/// The (state, event) pairs that one step meets.
pub type Met = [Option<(State, Event)>; EVENTS_PER_STEP];

impl Tcp {
    /// What a step leads to, and the pairs it meets on the way.
    pub fn step(&self, world: &World, action: Action) -> (World, Met) {
        let on = |me| Step::new(*world, me, self.table, self.fault, self.capacity);
        let made = |me, what: fn(&mut Step)| {
            let mut step = on(me);
            what(&mut step);
            step
        };
        let step = match action {
            Action::Listen(me) => made(me, Step::passive_open),
            Action::Connect(me) => made(me, Step::active_open),
            Action::Write(me) => made(me, Step::write),
            Action::Close(me) => made(me, Step::close),
            Action::Abort(me) => made(me, Step::abort),
            Action::Limit(me) => made(me, Step::limit),
            Action::TwoMsl(me) => made(me, Step::two_msl),
            Action::Retransmit(me, position) => {
                let mut step = on(me);
                step.retransmit(position);
                step
            }
            Action::Arrive(me, segment) => {
                let mut step = on(me);
                step.receive(segment);
                step
            }
            Action::Lose(me, segment) => {
                let mut step = on(me);
                step.world.net[me].lose(segment);
                step
            }
        };
        (step.world, step.met)
    }

    /// Whether this end's application listens.
    fn listens(&self, me: usize) -> bool {
        self.opening == Opening::ClientServer && me == 1
    }

    fn state_agrees_with_syns(&self, world: &World) -> bool {
        world.ends.iter().enumerate().all(|(me, e)| {
            let (acked, taken) = (e.una > 0, e.nxt > 0);
            match e.state {
                State::Closed => true,
                State::Listen => !acked && !taken && self.listens(me),
                State::SynSent => !acked && !taken && !self.listens(me),
                State::SynReceived => !acked && taken,
                State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck
                | State::TimeWait => acked && taken,
            }
        })
    }

    fn application(&self, me: usize, end: &Endpoint, actions: &mut Vec<Action>) {
        match end.state {
            State::Closed if end.untouched() => {
                actions.push(if self.listens(me) { Action::Listen(me) } else { Action::Connect(me) });
            }
            // The service knows of no connection yet that it could close or write to.
            State::Closed | State::SynReceived | State::TimeWait => {}
            State::Listen
            | State::SynSent
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => actions.push(Action::Close(me)),
        }
        if end.state.synchronized() && end.state.can_send() && end.written < self.units[me] {
            actions.push(Action::Write(me));
        }
        // In TIME_WAIT there is nothing left to abort; a listener is no connection.
        let live = !matches!(end.state, State::Closed | State::Listen | State::TimeWait);
        if self.aborts && live {
            actions.push(Action::Abort(me));
        }
        if self.limits.contains(&end.state) {
            actions.push(Action::Limit(me));
        }
    }

    fn timers(&self, me: usize, world: &World, actions: &mut Vec<Action>) {
        let end = &world.ends[me];
        match end.state {
            State::TimeWait => {
                if world.quiet() || self.fault == Fault::ShortTimeWait {
                    actions.push(Action::TwoMsl(me));
                }
            }
            State::Closed | State::Listen => {}
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => {
                let way = &world.net[1 - me];
                for position in end.una..end.snd_max() {
                    if way.len() < self.capacity && !way.contains(end.segment_at(position)) {
                        actions.push(Action::Retransmit(me, position));
                    }
                }
            }
        }
    }
}

impl Model for Tcp {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for me in [0, 1] {
            self.application(me, &world.ends[me], actions);
            self.timers(me, world, actions);
            for segment in world.net[me].iter() {
                actions.push(Action::Arrive(me, segment));
                actions.push(Action::Lose(me, segment));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        Some(self.step(world, action).0)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(IMPOSSIBLE, |_, w: &World| w.impossible.is_none()),
            Property::always(ACKNOWLEDGED, |_, w| each(w, |e, peer| e.acknowledged() <= peer.delivered)),
            Property::always(ONCE, |_, w| each(w, |e, _| !e.misdelivered)),
            Property::always(END_OF_STREAM, |_, w| each(w, end_of_stream_is_last)),
            Property::always(COMPLETE, |_, w| each(w, orderly_is_complete)),
            Property::always(HOLDER, |_, w| each(w, |e, _| time_wait_is_right(e))),
            Property::always(FINS, |_, w| each(w, |e, _| state_agrees_with_fins(e))),
            Property::always(SYNS, |m: &Self, w| m.state_agrees_with_syns(w)),
            Property::always(FORCE, |_, w| each(w, |e, _| !e.forced || e.state == State::Closed)),
            Property::always(QUIET, |_, w: &World| {
                w.disturbed || !w.ends.iter().all(Endpoint::ended) || w.quiet()
            }),
            Property::always(NO_RESET, |_, w: &World| w.disturbed || each(w, |e, _| e.end != End::Reset)),
        ];
        all.extend(scenes(self.opening));
        all
    }
}

/// No event reaches a state in which the table calls it impossible.
pub const IMPOSSIBLE: &str = "no impossible pair";
/// What an end has had acknowledged, the peer's application has.
pub const ACKNOWLEDGED: &str = "acknowledged data is delivered";
/// Every unit is delivered in its turn, once, and none after the end of the stream.
pub const ONCE: &str = "data is delivered once and in order";
/// An application that is told of the end of the stream has had all of it.
pub const END_OF_STREAM: &str = "end of stream comes after all data";
/// Whoever is in `TIME_WAIT`, or ended without force, has the ACK of its FIN and has taken the peer's FIN, and both
/// applications have all that was written.
pub const COMPLETE: &str = "an orderly end is complete in both directions";
/// `TIME_WAIT` is held by an end that closed before it had the peer's FIN (both, when FINs cross), never by the other,
/// and nobody who must hold it ends in order without it.
pub const HOLDER: &str = "TIME_WAIT is on the side that closed first";
/// The state's name says which FINs are sent, acknowledged and taken.
pub const FINS: &str = "the state agrees with the FINs";
/// The state's name says which SYNs are sent, acknowledged and taken, and who listens.
pub const SYNS: &str = "the state agrees with the SYNs";
/// An abort, a limit and an acceptable RST end the connection at once.
pub const FORCE: &str = "force ends it at once";
/// Of a connection that ended in order on both sides nothing is under way: the endpoints may be used again.
pub const QUIET: &str = "nothing is left in the network";
/// A connection that both sides close in order is reset by nobody.
pub const NO_RESET: &str = "no reset without a cause";

/// Holds for each end and its peer.
fn each(w: &World, holds: fn(&Endpoint, &Endpoint) -> bool) -> bool {
    holds(&w.ends[0], &w.ends[1]) && holds(&w.ends[1], &w.ends[0])
}

fn end_of_stream_is_last(e: &Endpoint, peer: &Endpoint) -> bool {
    !e.told_end || (peer.closed && e.delivered == peer.written)
}

fn orderly_is_complete(e: &Endpoint, peer: &Endpoint) -> bool {
    let over = e.state == State::TimeWait || e.end == End::Orderly;
    let complete = e.fin_acked() && e.told_end && peer.delivered == e.written && e.delivered == peer.written;
    !over || complete
}

fn time_wait_is_right(e: &Endpoint) -> bool {
    let held_by_first = !e.waited || e.closed_first;
    let kept = !(e.end == End::Orderly && e.closed_first) || e.waited;
    held_by_first && kept
}

fn state_agrees_with_fins(e: &Endpoint) -> bool {
    let fins = (e.closed, e.fin_acked(), e.told_end);
    match e.state {
        State::Listen | State::SynSent | State::SynReceived | State::Established => {
            fins == (false, false, false)
        }
        State::FinWait1 => fins == (true, false, false),
        State::FinWait2 => fins == (true, true, false),
        State::CloseWait => fins == (false, false, true),
        State::Closing => fins == (true, false, true) && e.closed_first,
        State::LastAck => fins == (true, false, true) && !e.closed_first,
        State::TimeWait => fins == (true, true, true),
        State::Closed => true,
    }
}

/// What must be possible, or the model proves less than it seems to.
fn scenes(opening: Opening) -> Vec<Property<Tcp>> {
    let mut scenes = vec![
        Property::sometimes("both end in order", |_, w: &World| {
            !w.disturbed && w.ends.iter().all(|e| e.end == End::Orderly)
        }),
        Property::sometimes("the first end closes first", |_, w: &World| {
            w.ends[0].waited && !w.ends[1].waited
        }),
        Property::sometimes("the second end closes first", |_, w: &World| {
            w.ends[1].waited && !w.ends[0].waited
        }),
        Property::sometimes("FINs cross", |_, w: &World| w.ends.iter().all(|e| e.state == State::Closing)),
        Property::sometimes("both hold TIME_WAIT", |_, w: &World| {
            w.ends.iter().all(|e| e.state == State::TimeWait)
        }),
        Property::sometimes("data flows into FIN_WAIT_2", |_, w: &World| {
            each_either(w, |e, peer| {
                e.state == State::FinWait2
                    && e.delivered < peer.written
                    && peer.state == State::CloseWait
                    && peer.una <= peer.written
            })
        }),
        Property::sometimes("a FIN waits for the data before it", |_, w: &World| {
            each_either(w, |e, _| e.fin_at.is_some_and(|f| f > e.nxt))
        }),
    ];
    if opening == Opening::Simultaneous {
        scenes.push(Property::sometimes("SYNs cross", |_, w: &World| {
            w.ends.iter().all(|e| e.state == State::SynReceived)
        }));
    }
    scenes
}

/// Holds for one of the ends and its peer.
fn each_either(w: &World, holds: fn(&Endpoint, &Endpoint) -> bool) -> bool {
    holds(&w.ends[0], &w.ends[1]) || holds(&w.ends[1], &w.ends[0])
}
