//! The model must be able to fail: wrong tables and faulty processing, each with the property that sees it.

use super::graph::Graph;
use super::machine::{Fault, Table};
use super::model::{ACKNOWLEDGED, COMPLETE, END_OF_STREAM, FINS, HOLDER, IMPOSSIBLE, NO_RESET, ONCE, QUIET};
use super::model::{Opening, Tcp};
use super::{CLOSED, FUTURES, LIMITED, tcp};
use finwheel::tcp::state::{Event, State, Transition, transition};
use stateright::{Checker, HasDiscoveries, Model};
use std::collections::BTreeSet;

/// A model with one cell of the table changed.
fn changed(state: State, event: Event, instead: Transition) -> Tcp {
    assert_ne!(transition(state, event), instead, "the table says so already");
    Tcp { table: Table { changed: Some((state, event, instead)) }, ..small() }
}

fn small() -> Tcp {
    tcp(Opening::ClientServer, (1, 1, 1))
}

fn caught_by(model: Tcp, property: &'static str) {
    let all_of = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let checker = model.checker().threads(1).finish_when(all_of).spawn_bfs().join();
    checker.assert_any_discovery(property);
    // Of the table as it is, the same search finds nothing.
    let sound = Tcp { table: Table::REAL, fault: Fault::None, ..model };
    sound.checker().threads(1).spawn_bfs().join().assert_no_discovery(property);
}

fn strands(model: Tcp) {
    let reached = CLOSED.holds_in(&Graph::explore(model));
    assert!(reached.is_err(), "{} from every world", CLOSED.name);
}

#[test]
fn fin_wait_1_to_time_wait_without_the_ack_of_the_fin() {
    let model = changed(State::FinWait1, Event::Fin, Transition::To(State::TimeWait));
    caught_by(model, COMPLETE);
    caught_by(model, FINS);
    strands(model);
}

#[test]
fn fin_wait_1_to_time_wait_without_the_peers_fin() {
    let model = changed(State::FinWait1, Event::AckOfFin, Transition::To(State::TimeWait));
    caught_by(model, COMPLETE);
}

#[test]
fn last_ack_that_closes_on_a_fin() {
    let model = changed(State::LastAck, Event::Fin, Transition::To(State::Closed));
    caught_by(model, COMPLETE);
    strands(model);
}

#[test]
fn time_wait_dropped_at_once() {
    let after_fin_wait_2 = changed(State::FinWait2, Event::Fin, Transition::To(State::Closed));
    caught_by(after_fin_wait_2, HOLDER);
    caught_by(after_fin_wait_2, NO_RESET);
    caught_by(Tcp { capacity: 2, units: [0, 0], ..after_fin_wait_2 }, QUIET);
    caught_by(changed(State::Closing, Event::AckOfFin, Transition::To(State::Closed)), HOLDER);
}

#[test]
fn time_wait_on_the_side_that_closed_second() {
    caught_by(changed(State::LastAck, Event::AckOfFin, Transition::To(State::TimeWait)), HOLDER);
}

#[test]
fn time_wait_ended_by_a_reset() {
    let model = changed(State::TimeWait, Event::Rst, Transition::To(State::Closed));
    caught_by(Tcp { capacity: 2, units: [0, 0], ..model }, NO_RESET);
}

#[test]
fn time_wait_shorter_than_the_life_of_a_segment() {
    caught_by(Tcp { fault: Fault::ShortTimeWait, ..small() }, QUIET);
}

#[test]
fn a_close_that_does_not_wait_for_the_application() {
    let model = changed(State::Established, Event::Fin, Transition::To(State::LastAck));
    caught_by(model, FINS);
    strands(model);
}

#[test]
fn a_cell_that_is_missing() {
    caught_by(changed(State::LastAck, Event::Fin, Transition::Impossible), IMPOSSIBLE);
}

#[test]
fn a_fin_that_is_taken_before_its_turn() {
    let model = Tcp { fault: Fault::FinOverGap, ..small() };
    caught_by(model, END_OF_STREAM);
    caught_by(model, ACKNOWLEDGED);
}

#[test]
fn a_unit_that_is_delivered_twice() {
    caught_by(Tcp { fault: Fault::DeliversTwice, ..small() }, ONCE);
}

/// The models in which every cell of the table is changed, the cheapest first.
fn models() -> [Tcp; 4] {
    let broken = |model| Tcp { aborts: true, limits: LIMITED, ..model };
    [
        tcp(Opening::ClientServer, (0, 0, 1)),
        broken(tcp(Opening::ClientServer, (0, 0, 1))),
        tcp(Opening::Simultaneous, (0, 0, 1)),
        broken(tcp(Opening::ClientServer, (0, 0, 2))),
    ]
}

/// All that fails of a model: its properties, its scenes, and what must be reachable from everywhere.
fn failures(graph: &Graph) -> Vec<&'static str> {
    let mut all = graph.failed();
    all.extend(FUTURES.iter().filter(|f| f.holds_in(graph).is_err()).map(|f| f.name));
    all
}

/// Everything that a cell could say instead of what it says.
fn instead_of(state: State, event: Event) -> impl Iterator<Item = Transition> {
    let states = State::ALL.map(|to| if to == state { Transition::Stay } else { Transition::To(to) });
    let now = transition(state, event);
    states.into_iter().chain([Transition::Impossible]).filter(move |t| *t != now)
}

#[test]
fn any_change_of_a_cell_that_is_met_is_seen() {
    let sound = models().map(|model| {
        let graph = Graph::explore(model);
        let failures = failures(&graph);
        (model, graph, failures)
    });
    let met = |s, e| sound.iter().any(|(_, graph, _)| graph.met(s, e));
    let pairs = State::ALL.into_iter().flat_map(|s| Event::ALL.into_iter().map(move |e| (s, e)));
    let mut seen = 0;
    let mut unseen = Vec::new();
    for (state, event) in pairs.filter(|(s, e)| met(*s, *e)) {
        for instead in instead_of(state, event) {
            let table = Table { changed: Some((state, event, instead)) };
            let caught =
                sound.iter().filter(|(_, graph, _)| graph.met(state, event)).any(|(model, _, fail)| {
                    // What fails of the sound model is the scenes that so small a bound has no room for.
                    failures(&Graph::explore(Tcp { table, ..*model })) != *fail
                });
            if caught {
                seen += 1;
            } else {
                unseen.push((state, event, instead));
            }
        }
    }
    println!("{seen} changes seen");
    assert_eq!(unseen, [], "changes that no property sees");
    assert!(seen > 500, "only {seen} changes tried");
}
