//! The transition table, model-checked: two ends over a network that loses, duplicates and reorders, every reachable
//! situation of small connections, with stateright and a search of our own over the whole graph.
//!
//! # What is modelled
//!
//! - **The states** are moved by `finwheel::tcp::state::transition` and by nothing else: a change of the table is a
//!   change of the model. Which event a segment is, is decided as RFC 9293 §3.10.7 orders it (sequence number, RST,
//!   SYN, ACK, text, FIN), with RFC 5961's challenge ACKs and RFC 1337: `machine.rs`, written after the engine's
//!   `input.rs`, `syn_rcvd.rs`, `time_wait.rs` and `close.rs`.
//! - **Sequence space**: SYN is 0, then units of data, then the FIN. What comes before its turn is kept.
//! - **The network**: a set of segments for each direction. One that is there can arrive at any time, again and again,
//!   before or after any other, or be lost. At most `capacity` different ones are under way in a direction; what is
//!   sent beyond that is lost.
//! - **Retransmission**: whatever is unacknowledged can be sent again at any time. An ACK delayed or left out is an ACK
//!   that was lost.
//! - **Applications**: open (one connects and one listens, or both connect), write, close in any order and at any time,
//!   and in the models of broken connections abort at any time.
//! - **2MSL** are over only when no segment of the connection is under way, in either direction. That is what the time
//!   is for: a segment lives for one MSL at most (RFC 9293 §3.4.2), so after two the last ACK and all that it may have
//!   caused are gone. Not assumed is that the peer heard that ACK: `TIME_WAIT` may be over before, and then the peer's
//!   FIN meets `CLOSED` and is answered by RST, as in life. Such a world is `disturbed`, like one with an abort.
//!
//! # What is proved, for all worlds within the bound
//!
//! The invariants are listed with their names in `model.rs`; stateright checks them, and that the scenes that matter
//! are met at all. Three statements about futures are checked on the graph (`graph.rs`), backwards from the goal:
//! [`CLOSED`], [`BY_ITSELF`], [`IN_ORDER`]. They say that the goal *can* be reached from everywhere, not how soon, nor
//! that it must be: a network that loses everything for ever prevents any end. As the graph is finite, it is reached
//! with certainty if no step that is possible again and again is left out for ever.
//!
//! That the model can fail is shown in `mutants.rs`: wrong tables and faulty processing, each seen by the property that
//! is there for it; and every cell of the table that the model meets, changed to everything else it could say.
//!
//! # What is not
//!
//! - The engine itself. `machine.rs` is a second writing of the rules; only the table is shared. The engine is held to
//!   them by its own tests and the simulation.
//! - Windows, congestion, the lengths of timers, options, wrap-around of sequence numbers, the pace at which an
//!   application reads (it has a unit as soon as that is in order; a close with unread data is an abort here).
//! - Forged segments, and those of another incarnation: an end is opened once, a listener takes one connection, and
//!   nobody re-opens from `TIME_WAIT`. The rows of the table that only such segments meet are [`UNMET`].
//! - More data, and more segments under way, than the bound. `FINWHEEL_MODEL_BOUND=<units>,<units>,<capacity>` sets
//!   another (units up to 5, capacity up to 4); `make model` runs larger ones.

mod endpoint;
mod graph;
mod machine;
mod model;
mod mutants;
mod net;

use endpoint::{End, Endpoint};
use finwheel::tcp::state::{Event, State, TABLE};
use graph::{Graph, Steps};
use machine::{Fault, Table, World};
use model::{Opening, Tcp};
use net::MAX_CAPACITY;
use stateright::{Checker, Model};

/// What must be reachable from where.
struct Future {
    name: &'static str,
    from: fn(&World) -> bool,
    goal: fn(&World) -> bool,
    steps: Steps,
}

impl Future {
    /// From how many worlds it was asked, or from which it fails.
    fn holds_in(&self, graph: &Graph) -> Result<usize, String> {
        graph.always_can_reach(self.from, self.goal, self.steps)
    }
}

/// From every world both ends can come to `CLOSED`, without an abort.
const CLOSED: Future = Future {
    name: "both can reach CLOSED",
    from: |_| true,
    goal: |w| w.ends.iter().all(|e| e.state == State::Closed),
    steps: Steps::Willing,
};
/// And once both applications are through, without their doing anything more.
const BY_ITSELF: Future = Future {
    name: "a close ends by itself",
    from: |w| w.ends.iter().all(Endpoint::through),
    goal: CLOSED.goal,
    steps: Steps::Protocol,
};
/// And whatever was lost so far, as long as there was no force and no `TIME_WAIT` too short, in order: both FINs
/// acknowledged, all data delivered, nobody reset.
const IN_ORDER: Future = Future {
    name: "an orderly end stays possible",
    from: |w| !w.disturbed,
    goal: |w| !w.disturbed && w.ends.iter().all(|e| e.end == End::Orderly),
    steps: Steps::Willing,
};
const FUTURES: [Future; 3] = [CLOSED, BY_ITSELF, IN_ORDER];

/// Rows of the table that no segment of one connection meets: what is sent to a listener after a FIN or a RST, a FIN
/// before our SYN was answered, and SYNs within the window, come from another incarnation or a forger.
const UNMET: [(State, Event); 10] = [
    (State::Listen, Event::Fin),
    (State::Listen, Event::Rst),
    (State::SynSent, Event::Fin),
    (State::Established, Event::Syn),
    (State::FinWait1, Event::Syn),
    (State::FinWait2, Event::Syn),
    (State::CloseWait, Event::Syn),
    (State::Closing, Event::Syn),
    (State::LastAck, Event::Syn),
    (State::TimeWait, Event::NewerSyn),
];

/// States in which a limit can end the connection. A listener has none.
const LIMITED: &[State] = &[
    State::SynSent,
    State::SynReceived,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
];

/// A model of the table as it is, where nobody aborts.
fn tcp(opening: Opening, (first, second, capacity): (u8, u8, usize)) -> Tcp {
    let units = [first, second];
    Tcp { table: Table::REAL, fault: Fault::None, opening, units, capacity, aborts: false, limits: &[] }
}

/// The bound that was asked for, or this one.
fn bound_or(default: (u8, u8, usize)) -> (u8, u8, usize) {
    const NAME: &str = "FINWHEEL_MODEL_BOUND";
    let Ok(text) = std::env::var(NAME) else { return default };
    let numbers: Vec<usize> = text.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    match numbers[..] {
        [first @ 0..=5, second @ 0..=5, capacity @ 1..=MAX_CAPACITY] => (first as u8, second as u8, capacity),
        _ => panic!("{NAME}={text}: units (0 to 5), units (0 to 5), capacity (1 to {MAX_CAPACITY})"),
    }
}

/// Every property holds, every scene is met, every future stays open.
fn check(model: Tcp) {
    let began = std::time::Instant::now();
    let checker = model.checker().threads(1).spawn_bfs().join();
    checker.assert_properties();
    let graph = Graph::explore(model);
    assert_eq!(graph.len(), checker.unique_state_count(), "two searches of one model differ");
    for future in &FUTURES {
        match future.holds_in(&graph) {
            Ok(worlds) => assert!(worlds > 0, "{}: asked of no world", future.name),
            Err(way) => panic!("{}: {way}", future.name),
        }
    }
    let Tcp { opening, units, capacity, aborts, .. } = model;
    let (worlds, steps, took) = (graph.len(), graph.steps(), began.elapsed());
    println!(
        "{opening:?}, units {units:?}, capacity {capacity}, aborts {aborts}: {worlds} worlds, {steps} steps, {took:.1?}"
    );
}

#[test]
fn a_client_and_a_server_end_in_order() {
    check(tcp(Opening::ClientServer, bound_or((1, 1, 2))));
}

#[test]
fn two_that_open_at_once_end_in_order() {
    check(tcp(Opening::Simultaneous, bound_or((1, 1, 2))));
}

/// Aborts at any time, lost RSTs and all. The one limit that is needed for both to reach `CLOSED` is `FIN_WAIT_2`'s:
/// in every other state an end has something to retransmit, or its application may still act.
const BOUNDED: &[State] = &[State::FinWait2];

#[test]
fn broken_connections_of_a_client_and_a_server_end_too() {
    check(Tcp { aborts: true, limits: BOUNDED, ..tcp(Opening::ClientServer, bound_or((1, 0, 2))) });
}

#[test]
fn broken_connections_of_two_that_open_at_once_end_too() {
    check(Tcp { aborts: true, limits: BOUNDED, ..tcp(Opening::Simultaneous, bound_or((1, 1, 1))) });
}

#[test]
fn c15_without_a_limit_in_fin_wait_2_an_abort_of_the_peer_can_leave_an_end_there_for_ever() {
    let graph = Graph::explore(Tcp { aborts: true, ..tcp(Opening::ClientServer, (0, 0, 2)) });
    let way = CLOSED.holds_in(&graph).expect_err("FIN_WAIT_2 with a peer that is gone");
    assert!(way.trim_end().lines().last().is_some_and(|l| l.contains("FIN_WAIT_2")), "{way}");
    // It is the only such state.
    let elsewhere = Future { from: |w| w.ends.iter().all(|e| e.state != State::FinWait2), ..CLOSED };
    elsewhere.holds_in(&graph).expect("no other world is stuck before one is in FIN_WAIT_2");
}

#[test]
fn every_row_of_the_table_is_met_but_those_of_other_incarnations() {
    let graphs = [Opening::ClientServer, Opening::Simultaneous]
        .map(|o| Graph::explore(Tcp { aborts: true, limits: LIMITED, ..tcp(o, (0, 0, 2)) }));
    let met = |s, e| graphs.iter().any(|g| g.met(s, e));
    let unmet: Vec<_> = TABLE.iter().map(|r| (r.from, r.event)).filter(|(s, e)| !met(*s, *e)).collect();
    assert_eq!(unmet, UNMET);
}
