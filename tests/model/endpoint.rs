//! One end of the connection: its state, its place in both sequence spaces, and what its application has seen.

use super::net::{Kind, Segment};
use finwheel::tcp::state::State;

/// How an end's part in the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Not opened yet, or not ended.
    No,
    /// By FINs and their ACKs.
    Orderly,
    /// By this side: aborted, given up, or closed before there was a connection.
    Broken,
    /// By the other side's RST.
    Reset,
}

/// One end. Once it is `CLOSED` again the rest is history, kept for the properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "what has happened so far, each on its own")]
pub struct Endpoint {
    /// The state, moved by the table alone.
    pub state: State,
    /// How it ended.
    pub end: End,
    /// `SND.UNA`: the oldest position that is not acknowledged; 0 is our SYN.
    pub una: u8,
    /// Units of data the application has written; they have the positions from 1.
    pub written: u8,
    /// The application has closed: our FIN follows the data.
    pub closed: bool,
    /// `RCV.NXT`: the next position expected of the peer; 0 before its SYN.
    pub nxt: u8,
    /// Units received beyond a gap, by position.
    pub held: u8,
    /// Where the peer's FIN is, once one was seen.
    pub fin_at: Option<u8>,
    /// Units the application was given.
    pub delivered: u8,
    /// The application was told that the peer's stream has ended.
    pub told_end: bool,
    /// The application was given a unit that was not the next one, or after the end of the stream.
    pub misdelivered: bool,
    /// When the application closed, the peer's FIN had not been taken.
    pub closed_first: bool,
    /// It was aborted, reset, given up, or closed before there was a connection.
    pub forced: bool,
    /// It has been in `TIME_WAIT`.
    pub waited: bool,
}

impl Endpoint {
    /// Nothing has happened yet.
    pub const fn new() -> Self {
        Self {
            state: State::Closed,
            end: End::No,
            una: 0,
            written: 0,
            closed: false,
            nxt: 0,
            held: 0,
            fin_at: None,
            delivered: 0,
            told_end: false,
            misdelivered: false,
            closed_first: false,
            forced: false,
            waited: false,
        }
    }

    /// It was never opened.
    pub fn untouched(&self) -> bool {
        self.state == State::Closed && self.end == End::No
    }

    /// It was opened, and is `CLOSED` again.
    pub fn ended(&self) -> bool {
        self.state == State::Closed && self.end != End::No
    }

    /// Its application has closed, or has nothing left to close.
    pub fn through(&self) -> bool {
        self.closed || self.ended()
    }

    /// Our FIN's position, once the application has closed.
    pub const fn fin(&self) -> Option<u8> {
        if self.closed { Some(self.written + 1) } else { None }
    }

    /// One past everything we have sent.
    pub const fn snd_max(&self) -> u8 {
        1 + self.written + self.closed as u8
    }

    /// Our FIN is sent and acknowledged.
    pub fn fin_acked(&self) -> bool {
        self.fin().is_some_and(|f| self.una > f)
    }

    /// Units of ours that the peer has acknowledged.
    pub fn acknowledged(&self) -> u8 {
        self.una.saturating_sub(1).min(self.written)
    }

    /// An ACK of where we are.
    pub const fn ack(&self) -> Segment {
        Segment { kind: Kind::Ack, seq: self.snd_max(), ack: Some(self.nxt) }
    }

    /// The SYN, with an ACK once the peer's is there.
    pub const fn syn(&self) -> Segment {
        Segment { kind: Kind::Syn, seq: 0, ack: if self.nxt == 0 { None } else { Some(self.nxt) } }
    }

    /// The segment that begins at `position` of what we have sent. The FIN goes with the last unit when that is sent
    /// again; where it goes alone is its own first transmission and its own retransmission.
    pub fn segment_at(&self, position: u8) -> Segment {
        let kind = if position == 0 {
            return self.syn();
        } else if position > self.written {
            Kind::Fin
        } else if position == self.written && self.closed {
            Kind::TextFin
        } else {
            Kind::Text
        };
        Segment { kind, seq: position, ack: Some(self.nxt) }
    }

    /// Gives the application a unit.
    pub fn deliver(&mut self, position: u8) {
        if position != self.delivered + 1 || self.told_end {
            self.misdelivered = true;
        }
        self.delivered = self.delivered.max(position);
    }
}
