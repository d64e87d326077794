//! Connection states (RFC 9293 §3.3.2) and the transition table: data, in this one place.
//!
//! [`Conn::event`](super::conn::Conn) is the only code that changes a state, and it does what the table says. The drawing
//! in `ARCHITECTURE.md` is made from the table; a test holds the two together.

use std::fmt::Write;

/// A TCP connection's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// No connection.
    Closed,
    /// Waiting for a SYN.
    Listen,
    /// SYN sent.
    SynSent,
    /// SYN received and answered.
    SynReceived,
    /// Data flows both ways.
    Established,
    /// Our FIN is sent (or queued), unacknowledged.
    FinWait1,
    /// Our FIN is acknowledged; the peer may still send.
    FinWait2,
    /// The peer's FIN is received; we may still send.
    CloseWait,
    /// Both FINs crossed; ours is unacknowledged.
    Closing,
    /// The peer closed first and our FIN is unacknowledged.
    LastAck,
    /// Both are closed; the pair of endpoints is held for 2MSL.
    TimeWait,
}

impl State {
    /// All states in counter order.
    pub const ALL: [Self; 11] = [
        Self::Closed,
        Self::Listen,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
    ];
    /// How many states there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The RFC's name, and the value of the `state` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Listen => "LISTEN",
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN_WAIT_1",
            Self::FinWait2 => "FIN_WAIT_2",
            Self::CloseWait => "CLOSE_WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
        }
    }
}

/// What happens to a connection. Segments become events only after they passed every check of RFC 9293 §3.10.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Event {
    /// A listener is configured.
    PassiveOpen,
    /// A connection is opened from here.
    ActiveOpen,
    /// A SYN without an acceptable ACK of ours.
    Syn,
    /// A SYN with the ACK of our SYN.
    SynAck,
    /// The ACK of our SYN.
    AckOfSyn,
    /// The application closes: our FIN is queued behind what it sent.
    Close,
    /// The peer's FIN, in order.
    Fin,
    /// The ACK of our FIN.
    AckOfFin,
    /// A RST at exactly `rcv_nxt`.
    Rst,
    /// The application aborts, or an answer that must be a RST (RFC 2525 §2.17).
    Abort,
    /// A limit is reached: retransmissions, time in a state, a full table.
    Limit,
    /// 2MSL have passed.
    TwoMsl,
    /// In `TIME_WAIT`, a SYN that is newer than the old incarnation (RFC 6191).
    NewerSyn,
}

impl Event {
    /// All events in table order.
    pub const ALL: [Self; 13] = [
        Self::PassiveOpen,
        Self::ActiveOpen,
        Self::Syn,
        Self::SynAck,
        Self::AckOfSyn,
        Self::Close,
        Self::Fin,
        Self::AckOfFin,
        Self::Rst,
        Self::Abort,
        Self::Limit,
        Self::TwoMsl,
        Self::NewerSyn,
    ];
    /// How many events there are.
    pub const COUNT: usize = Self::ALL.len();

    /// A short name for drawings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PassiveOpen => "passive open",
            Self::ActiveOpen => "active open",
            Self::Syn => "SYN",
            Self::SynAck => "SYN,ACK",
            Self::AckOfSyn => "ACK of SYN",
            Self::Close => "close",
            Self::Fin => "FIN",
            Self::AckOfFin => "ACK of FIN",
            Self::Rst => "RST",
            Self::Abort => "abort",
            Self::Limit => "limit",
            Self::TwoMsl => "2MSL",
            Self::NewerSyn => "newer SYN",
        }
    }
}

/// What the table says about a (state, event) pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Transition {
    /// The connection goes to this state.
    To(State),
    /// The event is legal and the state stays; the action still happens.
    Stay,
    /// The engine never lets the event reach this state: a fault of the engine if it does.
    Impossible,
}

/// One row of the transition table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// State before.
    pub from: State,
    /// What happened.
    pub event: Event,
    /// State after; equal to `from` when it stays.
    pub to: State,
    /// What the engine does, and where it is written.
    pub action: &'static str,
}

const fn row(from: State, event: Event, to: State, action: &'static str) -> Row {
    Row { from, event, to, action }
}

/// The transition table: every legal (state, event) pair. What is not listed is [`Transition::Impossible`].
pub const TABLE: &[Row] = {
    use Event as E;
    use State as S;
    &[
        row(S::Closed, E::PassiveOpen, S::Listen, "listen"),
        row(S::Closed, E::ActiveOpen, S::SynSent, "send SYN"),
        row(S::Listen, E::Syn, S::SynReceived, "new half-open record; send SYN,ACK; the listener stays"),
        row(S::Listen, E::Fin, S::Listen, "drop (§3.10.7.2)"),
        row(S::Listen, E::Rst, S::Listen, "drop (§3.10.7.2)"),
        row(S::Listen, E::Close, S::Closed, "stop accepting"),
        row(S::SynSent, E::SynAck, S::Established, "send ACK; tell the service"),
        row(S::SynSent, E::Syn, S::SynReceived, "simultaneous open: send SYN,ACK"),
        row(S::SynSent, E::Fin, S::SynSent, "drop (§3.10.7.3)"),
        row(S::SynSent, E::Close, S::Closed, "drop the record"),
        row(S::SynSent, E::Rst, S::Closed, "refused; tell the service"),
        row(S::SynSent, E::Abort, S::Closed, "drop the record"),
        row(S::SynSent, E::Limit, S::Closed, "give up; tell the service"),
        row(S::SynReceived, E::AckOfSyn, S::Established, "tell the service"),
        row(S::SynReceived, E::Syn, S::SynReceived, "the same SYN again: send SYN,ACK again"),
        row(S::SynReceived, E::Rst, S::Closed, "drop the record"),
        row(S::SynReceived, E::Abort, S::Closed, "send RST"),
        row(S::SynReceived, E::Limit, S::Closed, "give up, counted"),
        row(S::Established, E::Close, S::FinWait1, "send FIN after the data"),
        row(S::Established, E::Fin, S::CloseWait, "send ACK at once; ask the service"),
        row(S::Established, E::Syn, S::Established, "challenge ACK (RFC 5961 §4)"),
        row(S::Established, E::Rst, S::Closed, "tell the service"),
        row(S::Established, E::Abort, S::Closed, "send RST"),
        row(S::Established, E::Limit, S::Closed, "send RST; tell the service"),
        row(S::FinWait1, E::AckOfFin, S::FinWait2, "bound the wait if nobody reads"),
        row(S::FinWait1, E::Fin, S::Closing, "send ACK"),
        row(S::FinWait1, E::Close, S::FinWait1, "nothing more to close"),
        row(S::FinWait1, E::Syn, S::FinWait1, "challenge ACK (RFC 5961 §4)"),
        row(S::FinWait1, E::Rst, S::Closed, "tell the service"),
        row(S::FinWait1, E::Abort, S::Closed, "send RST"),
        row(S::FinWait1, E::Limit, S::Closed, "give up; tell the service"),
        row(S::FinWait2, E::Fin, S::TimeWait, "send ACK; start 2MSL"),
        row(S::FinWait2, E::Close, S::FinWait2, "nobody reads any more: bound the wait"),
        row(S::FinWait2, E::Syn, S::FinWait2, "challenge ACK (RFC 5961 §4)"),
        row(S::FinWait2, E::Rst, S::Closed, "tell the service"),
        row(S::FinWait2, E::Abort, S::Closed, "send RST"),
        row(S::FinWait2, E::Limit, S::Closed, "give up; tell the service"),
        row(S::CloseWait, E::Close, S::LastAck, "send FIN after the data"),
        row(S::CloseWait, E::Fin, S::CloseWait, "acknowledge again"),
        row(S::CloseWait, E::Syn, S::CloseWait, "challenge ACK (RFC 5961 §4)"),
        row(S::CloseWait, E::Rst, S::Closed, "tell the service"),
        row(S::CloseWait, E::Abort, S::Closed, "send RST"),
        row(S::CloseWait, E::Limit, S::Closed, "send RST; tell the service"),
        row(S::Closing, E::AckOfFin, S::TimeWait, "start 2MSL"),
        row(S::Closing, E::Fin, S::Closing, "acknowledge again"),
        row(S::Closing, E::Close, S::Closing, "nothing more to close"),
        row(S::Closing, E::Syn, S::Closing, "challenge ACK (RFC 5961 §4)"),
        row(S::Closing, E::Rst, S::Closed, "tell the service"),
        row(S::Closing, E::Abort, S::Closed, "send RST"),
        row(S::Closing, E::Limit, S::Closed, "give up; tell the service"),
        row(S::LastAck, E::AckOfFin, S::Closed, "tell the service; drop the record"),
        row(S::LastAck, E::Fin, S::LastAck, "acknowledge again"),
        row(S::LastAck, E::Close, S::LastAck, "nothing more to close"),
        row(S::LastAck, E::Syn, S::LastAck, "challenge ACK (RFC 5961 §4)"),
        row(S::LastAck, E::Rst, S::Closed, "tell the service"),
        row(S::LastAck, E::Abort, S::Closed, "send RST"),
        row(S::LastAck, E::Limit, S::Closed, "give up; tell the service"),
        row(S::TimeWait, E::Fin, S::TimeWait, "acknowledge again; restart 2MSL"),
        row(S::TimeWait, E::Syn, S::TimeWait, "older than the old incarnation: ACK"),
        row(S::TimeWait, E::Rst, S::TimeWait, "ignore (RFC 1337)"),
        row(S::TimeWait, E::NewerSyn, S::SynReceived, "new incarnation, ISN above the old one"),
        row(S::TimeWait, E::TwoMsl, S::Closed, "drop the record, in bulk"),
        row(S::TimeWait, E::Limit, S::Closed, "evicted by a full table, counted"),
    ]
};

/// The table as a grid, so that a transition is one load.
const GRID: [[Transition; Event::COUNT]; State::COUNT] = {
    let mut grid = [[Transition::Impossible; Event::COUNT]; State::COUNT];
    let mut i = 0;
    while i < TABLE.len() {
        let r = TABLE[i];
        let cell = &mut grid[r.from as usize][r.event as usize];
        assert!(matches!(cell, Transition::Impossible), "a (state, event) pair is listed twice");
        *cell = if r.from as u8 == r.to as u8 { Transition::Stay } else { Transition::To(r.to) };
        i += 1;
    }
    grid
};

/// What the table says.
pub const fn transition(from: State, event: Event) -> Transition {
    GRID[from as usize][event as usize]
}

impl State {
    /// Whether our SYN and the peer's are both acknowledged (RFC 9293 §3.3.2: a synchronized state).
    #[must_use]
    pub const fn synchronized(self) -> bool {
        match self {
            Self::Closed | Self::Listen | Self::SynSent | Self::SynReceived => false,
            Self::Established
            | Self::FinWait1
            | Self::FinWait2
            | Self::CloseWait
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait => true,
        }
    }
    /// Whether the service may still send: our FIN is not queued.
    #[must_use]
    pub const fn can_send(self) -> bool {
        match self {
            Self::SynSent | Self::SynReceived | Self::Established | Self::CloseWait => true,
            Self::Closed
            | Self::Listen
            | Self::FinWait1
            | Self::FinWait2
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait => false,
        }
    }
    /// Whether the peer may still send: its FIN has not been taken.
    #[must_use]
    pub const fn can_receive(self) -> bool {
        match self {
            Self::SynSent | Self::SynReceived | Self::Established | Self::FinWait1 | Self::FinWait2 => true,
            Self::Closed
            | Self::Listen
            | Self::CloseWait
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait => false,
        }
    }
}

/// The table as a Mermaid state diagram: what `ARCHITECTURE.md` shows.
#[must_use]
pub fn mermaid() -> String {
    let mut out = String::from("stateDiagram-v2\n");
    for r in TABLE.iter().filter(|r| r.from != r.to) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "    {} --> {}: {} / {}",
            r.from.as_str(),
            r.to.as_str(),
            r.event.as_str(),
            plain(r.action)
        );
    }
    out
}

/// The whole grid as a Markdown table, states down, events across: `·` stays, blank is impossible.
#[must_use]
pub fn markdown_grid() -> String {
    let mut out = String::from("| |");
    for e in Event::ALL {
        let _ = write!(out, " {} |", e.as_str());
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(Event::COUNT));
    for s in State::ALL {
        let _ = write!(out, "\n| **{}** |", s.as_str());
        for e in Event::ALL {
            match transition(s, e) {
                Transition::To(to) => {
                    let _ = write!(out, " {} |", to.as_str());
                }
                Transition::Stay => out.push_str(" · |"),
                Transition::Impossible => out.push_str("  |"),
            }
        }
    }
    out.push('\n');
    out
}

/// Mermaid reads `;` and `:` as syntax.
fn plain(action: &str) -> String {
    action.replace(';', ",").replace(':', " -")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between these markers `ARCHITECTURE.md` holds what the functions above draw.
    fn assert_drawn(name: &str, drawn: &str) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md");
        let text = std::fs::read_to_string(path).expect("ARCHITECTURE.md is in the repository");
        let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
        let from = text.find(&begin).unwrap_or_else(|| panic!("no {begin} in {path}")) + begin.len();
        let to = from + text[from..].find(&end).unwrap_or_else(|| panic!("no {end} in {path}"));
        if std::env::var_os("UPDATE_DRAWINGS").is_some() {
            std::fs::write(path, format!("{}{drawn}{}", &text[..from], &text[to..])).expect("written");
        } else {
            assert_eq!(&text[from..to], drawn, "run UPDATE_DRAWINGS=1 cargo test --lib tcp::state");
        }
    }

    #[test]
    fn architecture_shows_the_table_as_it_is() {
        let drawn = format!("```mermaid\n{}```\n\n{}", mermaid(), markdown_grid());
        assert_drawn("states", &drawn);
    }

    #[test]
    fn every_state_reaches_closed_and_is_reached_from_it() {
        let reach = |start: State, forward: bool| {
            let mut seen = vec![start];
            let mut i = 0;
            while i < seen.len() {
                for r in TABLE {
                    let (a, b) = if forward { (r.from, r.to) } else { (r.to, r.from) };
                    if a == seen[i] && !seen.contains(&b) {
                        seen.push(b);
                    }
                }
                i += 1;
            }
            seen.len()
        };
        assert_eq!(reach(State::Closed, true), State::COUNT);
        assert_eq!(reach(State::Closed, false), State::COUNT);
    }

    #[test]
    fn r02_a_syn_never_moves_a_synchronized_state() {
        for s in State::ALL.into_iter().filter(|s| s.synchronized()) {
            assert_eq!(transition(s, Event::Syn), Transition::Stay, "{s:?}");
        }
    }

    #[test]
    fn t02_a_rst_never_moves_time_wait() {
        assert_eq!(transition(State::TimeWait, Event::Rst), Transition::Stay);
    }

    #[test]
    fn every_synchronized_state_but_time_wait_ends_at_once_by_rst_abort_and_limit() {
        for s in State::ALL.into_iter().filter(|s| s.synchronized() && *s != State::TimeWait) {
            for e in [Event::Rst, Event::Abort, Event::Limit] {
                assert_eq!(transition(s, e), Transition::To(State::Closed), "{s:?} {e:?}");
            }
        }
    }
}
