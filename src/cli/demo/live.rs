//! The live table: what is open in which state, how fast, how far.

use super::Out;
use crate::metrics::block::Counters;
use crate::tcp::record::ClosePath;
use crate::tcp::state::State;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

/// States worth a column: those that connections pass through.
const COLUMNS: [(State, &str); 8] = [
    (State::SynReceived, "SYN_RCVD"),
    (State::Established, "ESTAB"),
    (State::FinWait1, "FIN_W1"),
    (State::FinWait2, "FIN_W2"),
    (State::CloseWait, "CLOSE_W"),
    (State::Closing, "CLOSING"),
    (State::LastAck, "LAST_ACK"),
    (State::TimeWait, "TIME_WAIT"),
];

/// Time between two lines where nobody watches a terminal: a log should not grow by the frame.
const PLAIN_INTERVAL: Duration = Duration::from_secs(1);

/// Draws the table, in place on a terminal, line by line elsewhere.
pub struct Live {
    asked: u64,
    in_place: bool,
    drawn: bool,
    last: Option<(Duration, u64)>,
    last_line: Option<Duration>,
    header: bool,
}

impl Live {
    /// For a run of `asked` connections.
    #[must_use]
    pub fn new(asked: u64, out: &Out) -> Self {
        let in_place =
            if out.json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        Self { asked, in_place, drawn: false, last: None, last_line: None, header: false }
    }

    /// Shows the counters at `at` since the start.
    pub fn show(&mut self, out: &Out, at: Duration, c: &Counters) {
        if !self.in_place && self.last_line.is_some_and(|l| at < l + PLAIN_INTERVAL) {
            return;
        }
        self.last_line = Some(at);
        let mut text = String::new();
        if !self.header {
            self.header = true;
            // Writing to a String cannot fail.
            let _ = write!(text, "{:>7} {:>8} {:>8} {:>8}", "time", "opened", "closed", "closes/s");
            for (_, name) in COLUMNS {
                let _ = write!(text, " {name:>9}");
            }
            text.push('\n');
        }
        if self.in_place && self.drawn {
            text.push_str("\r\x1b[K");
        }
        let closed: u64 = ClosePath::ALL.into_iter().map(|p| c.closes_by_path(p)).sum();
        let rate = match self.last {
            Some((t, n)) if at > t => (closed.saturating_sub(n)) as f64 / at.saturating_sub(t).as_secs_f64(),
            Some(_) | None => 0.0,
        };
        self.last = Some((at, closed));
        let _ =
            write!(text, "{:>6.1}s {:>8} {:>8} {:>8.0}", at.as_secs_f64(), c.opened_passive, closed, rate);
        for (state, _) in COLUMNS {
            let _ = write!(text, " {:>9}", c.states[state as usize]);
        }
        let _ = write!(text, " {:>4}%", closed * 100 / self.asked.max(1));
        if !self.in_place {
            text.push('\n');
        }
        self.drawn = true;
        out.text(&text);
    }

    /// Ends the table.
    pub fn end(&mut self, out: &Out) {
        if self.in_place && self.drawn {
            out.text("\n");
        }
    }
}
