//! Every row of the transition table, driven through the engine: into the state, the event caused, the next state.

use super::*;
use crate::shard::mailbox::Command;
use crate::tcp::state::{Event, Row, State, TABLE, Transition, transition};
use std::time::Duration;

/// A harness with a connection in this state. For `SYN_RECEIVED` there are two records: a half-open one for what a peer
/// can do to it, and a connection (simultaneous open) for what the service can.
fn into(row: &Row) -> Harness {
    let mut h = Harness::tuned(|s| s.capacity.time_wait = 1);
    match row.from {
        State::Closed | State::Listen => {}
        State::SynSent => h.connect(),
        State::SynReceived if row.event == Event::Abort => {
            h.connect();
            recv!(h, SYN seq=0, ack=0);
            send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
        }
        State::SynReceived => send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN),
        State::Established => h.handshake(Syn::PLAIN),
        State::FinWait1 | State::FinWait2 | State::Closing | State::TimeWait => {
            h.handshake(Syn::PLAIN);
            h.act(&[Do::Shutdown]);
            match row.from {
                State::FinWait2 => send!(h, ACK seq=1, ack=2),
                State::Closing => send!(h, FIN|ACK seq=1, ack=1),
                State::TimeWait => send!(h, FIN|ACK seq=1, ack=2),
                _ => {}
            }
        }
        State::CloseWait | State::LastAck => {
            h.handshake(Syn::PLAIN);
            send!(h, FIN|ACK seq=1, ack=1);
            if row.from == State::LastAck {
                h.act(&[Do::Close]);
            }
        }
    }
    h.skip();
    let state = if row.from == State::Listen { State::Closed } else { row.from };
    assert_eq!(h.state(), state, "the way into the state of {row:?}");
    h
}

/// The peer's next sequence number in a state.
const fn nxt(state: State) -> i64 {
    match state {
        State::Closed | State::Listen | State::SynSent => 0,
        State::SynReceived | State::Established | State::FinWait1 | State::FinWait2 => 1,
        State::CloseWait | State::Closing | State::LastAck | State::TimeWait => 2,
    }
}

fn cause(h: &mut Harness, row: &Row) {
    let seq = nxt(row.from);
    match row.event {
        // The harness has a listener from its beginning.
        Event::PassiveOpen => {}
        Event::ActiveOpen => h.connect(),
        Event::Syn => match row.from {
            State::Listen | State::SynSent | State::SynReceived | State::TimeWait => {
                send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
            }
            _ => send!(h, SYN|ACK seq=seq, ack=1),
        },
        Event::SynAck => send!(h, SYN|ACK seq=0, ack=1, syn=Syn::PLAIN),
        Event::AckOfSyn => send!(h, ACK seq=1, ack=1),
        Event::Close if row.from == State::Listen => h.command(Command::Drain),
        Event::Close => h.act(&[Do::Close]),
        Event::Fin => match row.from {
            State::Listen => send!(h, FIN seq=1, ack=0),
            State::TimeWait | State::FinWait2 => send!(h, FIN|ACK seq=1, ack=2),
            _ => send!(h, FIN|ACK seq=1, ack=1),
        },
        Event::AckOfFin => send!(h, ACK seq=seq, ack=2),
        Event::Rst if row.from == State::SynSent => send!(h, RST|ACK seq=0, ack=1),
        Event::Rst => send!(h, RST seq=seq, ack=0),
        Event::Abort => h.act(&[Do::Abort]),
        Event::Limit => limit(h, row.from),
        Event::TwoMsl => after!(h, 60_032),
        Event::NewerSyn => send!(h, SYN seq=1000, ack=0, syn=Syn::PLAIN),
    }
}

fn limit(h: &mut Harness, state: State) {
    match state {
        State::Established => h.act(&[Do::Send(1)]),
        State::FinWait2 => h.act(&[Do::Close]),
        State::TimeWait => {
            // The table has room for one.
            let port = harness::PEER_PORT;
            h.peer(port + 1);
            h.handshake(Syn::PLAIN);
            h.act(&[Do::Close]);
            send!(h, FIN|ACK seq=1, ack=2);
            h.peer(port);
            return;
        }
        _ => {}
    }
    h.after(Duration::from_secs(301));
}

#[test]
fn every_row_of_the_table_happens_as_it_says() {
    let mut seen = [[0; Event::COUNT]; State::COUNT];
    for row in TABLE {
        let mut h = into(row);
        let (from, event) = (row.from as usize, row.event as usize);
        let before = if row.event == Event::PassiveOpen { 0 } else { h.counters().transitions[from][event] };
        cause(&mut h, row);
        let c = h.counters();
        assert_eq!(c.transitions[from][event], before + 1, "{row:?}: {:?}", h.state());
        let to = if row.to == State::Listen { State::Closed } else { row.to };
        assert_eq!(h.state(), to, "{row:?}");
        if row.from == State::Listen && row.event != Event::Syn || row.to == State::Listen {
            assert_eq!(c.states[State::Listen as usize], u64::from(row.to == State::Listen), "{row:?}");
        }
        for (sum, n) in seen.as_flattened_mut().iter_mut().zip(c.transitions.as_flattened()) {
            *sum += n;
        }
        // Whatever it was, it comes to an end by itself; only what may last for ever needs the peer's RST.
        h.skip();
        if matches!(h.state(), State::Established | State::FinWait2) {
            send!(h, RST seq=1, ack=0);
        }
        h.after(Duration::from_secs(400));
        h.skip();
        h.service().records.clear();
        h.all_gone();
    }
    for from in State::ALL {
        for event in Event::ALL {
            let happened = seen[from as usize][event as usize] > 0;
            assert_eq!(happened, transition(from, event) != Transition::Impossible, "{from:?} {event:?}");
        }
    }
}
