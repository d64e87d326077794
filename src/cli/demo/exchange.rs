//! The observed exchange of one connection as a two-sided table.
//!
//! The server's states are the engine's own, from its trace. The client's are what its segments show: the same
//! transition table is run over what it sent and over what it demonstrably had received when it did. A segment with
//! sequence numbers counts as received by the client once the client acknowledged it; that tells a crossing FIN from
//! one that was an answer.

use crate::shard::trace::{Entry, Happening};
use crate::tcp::state::{Event, State, TABLE, Transition, transition};
use crate::time::Time;
use crate::wire::{Describe, Header, SeqNum};
use std::collections::VecDeque;

/// Who sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The peer of finwheel.
    Client,
    /// finwheel.
    Server,
    /// Nobody: time passed.
    Clock,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When finwheel saw or sent it.
    pub at: Time,
    /// Who sent it.
    pub sender: Sender,
    /// The segment in words.
    pub segment: String,
    /// The client's states, from the first to the last of this row.
    pub client: Vec<State>,
    /// The server's.
    pub server: Vec<State>,
    /// What the engine did.
    pub actions: Vec<&'static str>,
}

/// Makes the rows from the trace entries of one connection, oldest first.
#[must_use]
pub fn rows(entries: &[Entry]) -> Vec<Row> {
    let mut b = Builder::default();
    for e in entries {
        match e.what {
            Happening::Received { header, len } => b.client_segment(e, &header, len),
            Happening::Sent { header, len } => b.server_segment(e, &header, len),
            Happening::Moved(m) => b.moved(e, m.from, m.event, m.to),
        }
    }
    b.finish()
}

/// A server's segment on its way to the client.
struct Travelling {
    row: usize,
    end: SeqNum,
    consumes: bool,
    header: Header,
}

struct Builder {
    rows: Vec<Row>,
    client: State,
    /// One past the client's FIN, once sent.
    client_fin_end: Option<SeqNum>,
    travelling: VecDeque<Travelling>,
    /// Moves of the server that its next segment shows.
    pending: Vec<(State, State, &'static str)>,
    isn: [Option<SeqNum>; 2],
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            client: State::Closed,
            client_fin_end: None,
            travelling: VecDeque::new(),
            pending: Vec::new(),
            isn: [None; 2],
        }
    }
}

impl Builder {
    fn describe(&mut self, who: usize, h: &Header, len: usize) -> String {
        let mine = *self.isn[who].get_or_insert(h.seq);
        let theirs = self.isn[1 - who].unwrap_or(h.ack);
        let mut plain = *h;
        // Options tell nothing of a close and would fill the line.
        plain.options = crate::wire::Options::default();
        Describe::new(&plain, len).relative_to(mine, theirs).to_string()
    }

    fn client_event(&mut self, row: usize, event: Event) {
        if let Transition::To(to) = transition(self.client, event) {
            self.client = to;
            let cell = &mut self.rows[row].client;
            cell.push(to);
        }
    }

    fn push(&mut self, at: Time, sender: Sender, segment: String, server: State) -> usize {
        let client = vec![self.client];
        self.rows.push(Row { at, sender, segment, client, server: vec![server], actions: Vec::new() });
        self.rows.len() - 1
    }

    fn client_segment(&mut self, e: &Entry, h: &Header, len: usize) {
        if h.flags.ack() {
            self.arrivals(Some(h.ack));
        }
        let segment = self.describe(0, h, len);
        let row = self.push(e.at, Sender::Client, segment, e.state);
        if h.flags.syn() && !h.flags.ack() {
            self.client_event(row, Event::ActiveOpen);
        }
        if h.flags.fin() {
            let first = self.client_fin_end.is_none();
            self.client_fin_end = Some(h.seq + h.seg_len(len));
            if first {
                self.client_event(row, Event::Close);
            }
        }
        if h.flags.rst() {
            self.client_event(row, Event::Abort);
        }
    }

    fn server_segment(&mut self, e: &Entry, h: &Header, len: usize) {
        let segment = self.describe(1, h, len);
        let from = self.pending.first().map_or(e.state, |p| p.0);
        let row = self.push(e.at, Sender::Server, segment, from);
        for (_, to, action) in self.pending.drain(..) {
            self.rows[row].server.push(to);
            self.rows[row].actions.push(action);
        }
        let end = h.seq + h.seg_len(len);
        self.travelling.push_back(Travelling { row, end, consumes: h.seg_len(len) > 0, header: *h });
        self.arrivals(None);
    }

    /// Lets the client receive what it shows to have received by acknowledging up to `ack`.
    fn arrivals(&mut self, ack: Option<SeqNum>) {
        while let Some(t) = self.travelling.front() {
            if t.consumes && !ack.is_some_and(|a| t.end.at_or_before(a)) {
                return;
            }
            if let Some(t) = self.travelling.pop_front() {
                self.received_by_client(&t);
            }
        }
    }

    fn received_by_client(&mut self, t: &Travelling) {
        // What the client was when it received the segment, which is not always what it was when it was sent.
        self.rows[t.row].client = vec![self.client];
        let h = &t.header;
        if h.flags.rst() {
            self.client_event(t.row, Event::Rst);
            return;
        }
        if h.flags.syn() {
            self.client_event(t.row, if h.flags.ack() { Event::SynAck } else { Event::Syn });
        }
        if self.client_fin_end.is_some_and(|end| h.flags.ack() && h.ack.at_or_after(end)) {
            self.client_fin_end = None;
            self.client_event(t.row, Event::AckOfFin);
        }
        if h.flags.fin() {
            self.client_event(t.row, Event::Fin);
        }
    }

    fn moved(&mut self, e: &Entry, from: State, event: Event, to: State) {
        let action = TABLE.iter().find(|r| r.from == from && r.event == event).map_or("", |r| r.action);
        match event {
            // The service's doing; the FIN that follows shows it. A second close does nothing.
            Event::Close if from == to => {}
            Event::Close => self.pending.push((from, to, action)),
            Event::TwoMsl | Event::Limit => {
                let row = self.push(e.at, Sender::Clock, String::from("2MSL passes"), from);
                self.rows[row].server.push(to);
                self.rows[row].actions.push(action);
            }
            Event::PassiveOpen
            | Event::ActiveOpen
            | Event::Syn
            | Event::SynAck
            | Event::AckOfSyn
            | Event::Fin
            | Event::AckOfFin
            | Event::Rst
            | Event::Abort
            | Event::NewerSyn => {
                if let Some(row) = self.rows.last_mut() {
                    row.server.push(to);
                    row.actions.push(action);
                }
            }
        }
    }

    fn finish(mut self) -> Vec<Row> {
        // What is still travelling at the end arrived: the connection is over.
        while let Some(t) = self.travelling.pop_front() {
            self.received_by_client(&t);
        }
        self.rows
    }
}

/// The rows as text, times relative to the first.
#[must_use]
pub fn render(title: &str, rows: &[Row]) -> String {
    let mut out = format!("{title}\n");
    let Some(first) = rows.first() else {
        out.push_str("  (not observed)\n");
        return out;
    };
    let head = ["time", "segment", "client state", "server state", "action"].map(str::to_owned);
    let lines: Vec<[String; 5]> = std::iter::once(head)
        .chain(rows.iter().map(|r| {
            let arrow = match r.sender {
                Sender::Client => "──▶",
                Sender::Server => "◀──",
                Sender::Clock => "   ",
            };
            [
                format!("{:.3} ms", r.at.since(first.at).as_secs_f64() * 1e3),
                format!("{arrow} {}", r.segment),
                path(&r.client),
                path(&r.server),
                r.actions.join("; "),
            ]
        }))
        .collect();
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let (w0, w1, w2, w3) = (width(0), width(1), width(2), width(3));
    for [time, segment, client, server, action] in &lines {
        let line = format!("  {time:>w0$}  {segment:<w1$}  {client:<w2$}  {server:<w3$}  {action}");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `A → B`, or only `A` where nothing moved.
fn path(states: &[State]) -> String {
    let mut names: Vec<&str> = states.iter().map(|s| s.as_str()).collect();
    names.dedup();
    names.join(" → ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::state_log::Move;
    use crate::wire::{Addr, Endpoint, Flags, Tuple};

    fn seg(flags: Flags, seq: u32, ack: u32) -> Header {
        Header { seq: SeqNum::new(seq), ack: SeqNum::new(ack), flags, ..Header::default() }
    }

    struct Log(Vec<Entry>);
    impl Log {
        fn add(&mut self, state: State, what: Happening) {
            let end = Endpoint::new(Addr::v4([10, 0, 0, 1]), 7);
            let at = Time::from_micros(self.0.len() as u64 * 10);
            self.0.push(Entry { at, tuple: Tuple { local: end, remote: end }, state, what });
        }
        fn rx(&mut self, state: State, flags: Flags, seq: u32, ack: u32) {
            self.add(state, Happening::Received { header: seg(flags, seq, ack), len: 0 });
        }
        fn tx(&mut self, state: State, flags: Flags, seq: u32, ack: u32) {
            self.add(state, Happening::Sent { header: seg(flags, seq, ack), len: 0 });
        }
        fn mv(&mut self, from: State, event: Event, to: State) {
            self.add(to, Happening::Moved(Move { from, event, to }));
        }
    }

    fn opened() -> Log {
        use State as S;
        let mut l = Log(Vec::new());
        l.rx(S::Listen, Flags::SYN, 100, 0);
        l.mv(S::Listen, Event::Syn, S::SynReceived);
        l.tx(S::SynReceived, Flags::SYN | Flags::ACK, 500, 101);
        l.rx(S::SynReceived, Flags::ACK, 101, 501);
        l.mv(S::SynReceived, Event::AckOfSyn, S::Established);
        l
    }

    const FA: Flags = Flags::from_bits(0x11);

    #[test]
    fn client_first_shows_the_pair_of_handshakes() {
        use State as S;
        let mut l = opened();
        l.rx(S::Established, FA, 101, 501);
        l.mv(S::Established, Event::Fin, S::CloseWait);
        l.mv(S::CloseWait, Event::Close, S::LastAck);
        l.tx(S::LastAck, FA, 501, 102);
        l.rx(S::LastAck, Flags::ACK, 102, 502);
        l.mv(S::LastAck, Event::AckOfFin, S::Closed);
        let rows = rows(&l.0);
        assert_eq!(rows[3].client, [S::Established, S::FinWait1]);
        assert_eq!(rows[3].server, [S::Established, S::CloseWait]);
        assert_eq!(rows[4].client, [S::FinWait1, S::FinWait2, S::TimeWait]);
        assert_eq!(rows[4].server, [S::CloseWait, S::LastAck]);
        assert_eq!(rows[5].server, [S::LastAck, S::Closed]);
    }

    #[test]
    fn crossing_fins_are_told_from_answers_by_what_was_acknowledged() {
        use State as S;
        let mut l = opened();
        l.mv(S::Established, Event::Close, S::FinWait1);
        l.tx(S::FinWait1, FA, 501, 101);
        // The client's FIN does not acknowledge ours: it was on its way already.
        l.rx(S::FinWait1, FA, 101, 501);
        l.mv(S::FinWait1, Event::Fin, S::Closing);
        l.tx(S::Closing, Flags::ACK, 502, 102);
        l.rx(S::Closing, Flags::ACK, 102, 502);
        l.mv(S::Closing, Event::AckOfFin, S::TimeWait);
        let rows = rows(&l.0);
        assert_eq!(rows[3].client, [S::FinWait1, S::Closing], "received after its own FIN was sent");
        assert_eq!(rows[4].client, [S::Established, S::FinWait1]);
        assert_eq!(rows[5].client, [S::Closing, S::TimeWait]);
        assert_eq!(rows[6].server, [S::Closing, S::TimeWait]);
    }
}
