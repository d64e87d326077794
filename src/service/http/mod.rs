//! An HTTP/1.1 server with one fixed response (RFC 9110, RFC 9112).
//!
//! ```text
//! bytes ─▶ head (at once, or gathered in a borrowed 8-KiB buffer) ─▶ 100? ─▶ body skipped ─▶ reply ─▶ head ...
//!                                                                                           └▶ lingering close
//! ```
//!
//! GET, HEAD and POST get the response; other known methods 405, unknown ones 501. Requests may be pipelined and be cut
//! at any byte. The next request is not read before the reply to the last one is wholly in the send buffer, so a client
//! that does not read costs no more than its windows. A request that cannot be followed is answered and the connection
//! closed *lingering*, as after `Connection: close`: what the client still sends is read, so that no reset destroys the
//! answer on its way.
//!
//! State is held only in the middle of something: an idle keep-alive connection has none, its `user` word is 0. Slots
//! and buffers are allocated when the service is made and bounded; without a buffer the answer is 503, without a slot
//! the connection is aborted, and both are counted. No allocation per request.

pub(super) mod chunked;
mod head;
mod response;
#[cfg(test)]
mod tests;

use super::slots::Slots;
use super::{Context, Service};
use crate::tcp::record::CloseRecord;
use crate::wire::Tuple;
use chunked::BodyFault;
use head::{Framing, Request, Verdict};
use response::{CONTINUE, Persist, Reply, Responses, Status};

/// Longest request head in bytes, and the size of a gathering buffer; what common servers take. Lower refuses long
/// cookies, higher only costs memory.
pub const HEAD_MAX: usize = 8 * 1024;

/// What an [`Http`] service is made of.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The body of every response.
    pub body: Vec<u8>,
    /// Its media type. Must be a valid field value; control characters are left out.
    pub content_type: String,
    /// Connections that can be in the middle of something at once; further ones are aborted when they need state.
    pub connections: usize,
    /// Connections whose request head can be partly received at once, [`HEAD_MAX`] bytes each; further ones get 503.
    pub partial_heads: usize,
    /// Whether a connection may carry more than one request; if not, every response says `Connection: close`.
    pub keep_alive: bool,
    /// Longest request body that is read and skipped, in bytes; a longer one gets 413.
    pub body_max: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            body: b"finwheel\n".to_vec(),
            content_type: "text/plain".to_owned(),
            connections: 65_536,
            partial_heads: 1024,
            keep_alive: true,
            body_max: 1 << 20,
        }
    }
}

/// What the service has counted; all monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpCounters {
    /// Request heads understood.
    pub requests: u64,
    /// Replies wholly handed to the connection, of any status.
    pub replies: u64,
    /// Requests refused with 4xx or 5xx and a close.
    pub refused: u64,
    /// Of these, refused with 503 for want of a buffer.
    pub no_buffer: u64,
    /// Connections aborted for want of a slot.
    pub no_slot: u64,
}

/// A borrowed buffer with the beginning of a head.
#[derive(Clone, Copy, Debug)]
struct Gathered {
    buffer: u32,
    len: u16,
}

/// What a connection is in the middle of.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Between requests, or in a head.
    Head,
    /// Sending 100 (Continue); so many bytes of it are sent.
    Continue { sent: usize, framing: Framing, reply: Reply },
    /// Skipping a body.
    Body { framing: Framing, reply: Reply },
    /// Sending a reply; so many bytes of head and body are sent.
    Reply { sent: usize, reply: Reply },
    /// Closed by us: nothing is read or sent any more.
    Over,
}

/// One connection's state.
#[derive(Clone, Copy, Debug)]
struct State {
    phase: Phase,
    gathered: Option<Gathered>,
    /// The peer's FIN was told.
    peer_closed: bool,
    /// The worker drains: the next reply is the last.
    draining: bool,
}

impl State {
    const IDLE: Self = Self { phase: Phase::Head, gathered: None, peer_closed: false, draining: false };

    /// Whether it is no different from that of a new connection.
    const fn idle(&self) -> bool {
        matches!(self.phase, Phase::Head) && self.gathered.is_none() && !self.peer_closed && !self.draining
    }
}

/// The fixed-response HTTP server.
pub struct Http {
    responses: Responses,
    states: Slots<State>,
    buffers: Vec<u8>,
    free_buffers: Vec<u32>,
    buffer_count: usize,
    keep_alive: bool,
    body_max: u64,
    counters: HttpCounters,
}

impl Http {
    /// Allocates everything the service will use.
    #[must_use]
    pub fn new(config: HttpConfig) -> Self {
        let content_type: String = config.content_type.chars().filter(|c| !c.is_control()).collect();
        let buffer_count = config.partial_heads.min(u32::MAX as usize / HEAD_MAX);
        Self {
            responses: Responses::new(config.body, &content_type),
            states: Slots::new(config.connections),
            buffers: vec![0; buffer_count * HEAD_MAX],
            free_buffers: (0..buffer_count as u32).rev().collect(),
            buffer_count,
            keep_alive: config.keep_alive,
            body_max: config.body_max,
            counters: HttpCounters::default(),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> HttpCounters {
        self.counters
    }

    /// Slots and buffers in use: (0, 0) when every connection is idle or closed.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        (self.states.len(), self.buffer_count - self.free_buffers.len())
    }

    fn load(&mut self, word: u32) -> State {
        self.states.get_mut(word).copied().unwrap_or(State::IDLE)
    }

    /// Puts a connection's state back where its word finds it.
    fn store(&mut self, cx: &mut dyn Context, state: State) {
        let word = cx.user();
        if state.idle() || matches!(state.phase, Phase::Over) {
            self.release(state.gathered);
            self.states.remove(word);
            cx.set_user(0);
        } else if let Some(slot) = self.states.get_mut(word) {
            *slot = state;
        } else if let Ok(word) = self.states.insert(state) {
            cx.set_user(word);
        } else {
            self.release(state.gathered);
            self.counters.no_slot += 1;
            cx.set_user(0);
            cx.abort();
        }
    }

    fn release(&mut self, gathered: Option<Gathered>) {
        if let Some(g) = gathered {
            self.free_buffers.push(g.buffer);
        }
    }

    /// Reads on in a head. Returns how many bytes were taken.
    fn head(&mut self, state: &mut State, bytes: &[u8]) -> usize {
        match state.gathered {
            None => self.first_part(state, bytes),
            Some(g) => self.next_part(state, g, bytes),
        }
    }

    /// A head that begins with `bytes`: the usual one is complete and needs no buffer.
    fn first_part(&mut self, state: &mut State, bytes: &[u8]) -> usize {
        match self.judge(&bytes[..bytes.len().min(HEAD_MAX)]) {
            Verdict::Request(r) => {
                self.understood(state, &r);
                r.len
            }
            Verdict::Refused(status) => {
                self.refuse(state, status);
                bytes.len()
            }
            Verdict::Partial if bytes.len() >= HEAD_MAX => {
                self.refuse(state, Status::HeadTooLarge);
                bytes.len()
            }
            Verdict::Partial => {
                let Some(buffer) = self.free_buffers.pop() else {
                    self.counters.no_buffer += 1;
                    self.refuse(state, Status::Unavailable);
                    return bytes.len();
                };
                let at = buffer as usize * HEAD_MAX;
                self.buffers[at..at + bytes.len()].copy_from_slice(bytes);
                state.gathered = Some(Gathered { buffer, len: bytes.len() as u16 });
                bytes.len()
            }
        }
    }

    /// A head whose beginning lies in a buffer.
    fn next_part(&mut self, state: &mut State, g: Gathered, bytes: &[u8]) -> usize {
        let had = usize::from(g.len);
        let new = bytes.len().min(HEAD_MAX - had);
        let at = g.buffer as usize * HEAD_MAX;
        self.buffers[at + had..at + had + new].copy_from_slice(&bytes[..new]);
        let len = had + new;
        state.gathered = Some(Gathered { len: len as u16, ..g });
        // A client that dribbles bytes does not have the whole head read again for each.
        let verdict = if bytes[..new].contains(&b'\n') {
            self.judge(&self.buffers[at..at + len])
        } else {
            Verdict::Partial
        };
        match verdict {
            Verdict::Partial if len < HEAD_MAX => new,
            Verdict::Partial => {
                self.refuse(state, Status::HeadTooLarge);
                bytes.len()
            }
            Verdict::Refused(status) => {
                self.refuse(state, status);
                bytes.len()
            }
            Verdict::Request(r) => {
                self.release(state.gathered.take());
                self.understood(state, &r);
                // The part before was no complete head, so this one ends within the new bytes.
                r.len.saturating_sub(had)
            }
        }
    }

    /// What the bytes of a head are, up to the last line's end: only that can complete one, and a head is judged alike
    /// however its segments were cut.
    fn judge(&self, bytes: &[u8]) -> Verdict {
        bytes
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(Verdict::Partial, |end| head::read(&bytes[..=end], self.body_max))
    }

    fn understood(&mut self, state: &mut State, request: &Request) {
        self.counters.requests += 1;
        let mut reply = request.reply;
        if state.draining || !self.keep_alive {
            reply.persist = Persist::Close;
        }
        state.phase = if request.expects_continue {
            Phase::Continue { sent: 0, framing: request.framing, reply }
        } else {
            Phase::Body { framing: request.framing, reply }
        };
    }

    fn refuse(&mut self, state: &mut State, status: Status) {
        self.counters.refused += 1;
        self.release(state.gathered.take());
        state.phase = Phase::Reply { sent: 0, reply: Reply::last(status) };
    }

    /// Skips body bytes. Returns how many were taken.
    fn body(&mut self, state: &mut State, framing: Framing, reply: Reply, bytes: &[u8]) -> usize {
        let (taken, done, framing) = match framing {
            Framing::Length(left) => {
                let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - n as u64;
                (n, left == 0, Framing::Length(left))
            }
            Framing::Chunked(mut chunked) => match chunked.skip(bytes) {
                Ok((n, done)) => (n, done, Framing::Chunked(chunked)),
                Err(fault) => {
                    let status = match fault {
                        BodyFault::Malformed => Status::BadRequest,
                        BodyFault::TooLarge => Status::TooLarge,
                    };
                    self.refuse(state, status);
                    return bytes.len();
                }
            },
        };
        state.phase = if done { Phase::Reply { sent: 0, reply } } else { Phase::Body { framing, reply } };
        taken
    }

    /// Sends what is due. Returns whether the connection can go on reading.
    fn push(&mut self, cx: &mut dyn Context, state: &mut State) -> bool {
        match state.phase {
            Phase::Head | Phase::Body { .. } => true,
            Phase::Over => false,
            Phase::Continue { sent, framing, reply } => {
                let sent = sent + cx.send(&CONTINUE[sent..]);
                let all = sent == CONTINUE.len();
                state.phase = if all {
                    Phase::Body { framing, reply }
                } else {
                    Phase::Continue { sent, framing, reply }
                };
                all
            }
            Phase::Reply { sent, reply } => {
                let (head, body) = self.responses.parts(reply);
                let mut sent = sent;
                if sent < head.len() {
                    sent += cx.send(&head[sent..]);
                }
                if sent >= head.len() && sent < head.len() + body.len() {
                    sent += cx.send(&body[sent - head.len()..]);
                }
                if sent < head.len() + body.len() {
                    state.phase = Phase::Reply { sent, reply };
                    return false;
                }
                self.counters.replies += 1;
                Self::replied(cx, state, reply)
            }
        }
    }

    /// After a reply: the next request, or the end.
    fn replied(cx: &mut dyn Context, state: &mut State, reply: Reply) -> bool {
        state.phase = Phase::Over;
        if state.peer_closed {
            cx.close();
        } else if reply.persist == Persist::Close || state.draining {
            cx.close_lingering();
        } else {
            state.phase = Phase::Head;
        }
        matches!(state.phase, Phase::Head)
    }
}

impl Service for Http {
    fn opened(&mut self, cx: &mut dyn Context) {
        cx.set_user(0);
    }

    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        let mut state = self.load(cx.user());
        let mut used = 0;
        // A body of length 0 is skipped without a byte of input, hence the look at the phase.
        while self.push(cx, &mut state) {
            let rest = &bytes[used..];
            used += match state.phase {
                Phase::Body { framing: framing @ Framing::Length(0), reply } => {
                    self.body(&mut state, framing, reply, &[])
                }
                _ if rest.is_empty() => break,
                Phase::Body { framing, reply } => self.body(&mut state, framing, reply, rest),
                Phase::Head | Phase::Continue { .. } | Phase::Reply { .. } | Phase::Over => {
                    self.head(&mut state, rest)
                }
            };
        }
        if matches!(state.phase, Phase::Over) {
            used = bytes.len();
        }
        self.store(cx, state);
        used
    }

    fn writable(&mut self, cx: &mut dyn Context) {
        // The same loop, with nothing to read: a 100 (Continue) or a reply goes on.
        self.data(cx, &[]);
    }

    fn peer_closed(&mut self, cx: &mut dyn Context) {
        let mut state = self.load(cx.user());
        state.peer_closed = true;
        if let Phase::Reply { .. } = state.phase {
            if self.push(cx, &mut state) {
                state.phase = Phase::Over;
            }
        } else {
            // Idle, or a request that will never be complete (RFC 9112 §8): nothing to answer.
            state.phase = Phase::Over;
            cx.close();
        }
        self.store(cx, state);
    }

    fn drain(&mut self, cx: &mut dyn Context) {
        let mut state = self.load(cx.user());
        if state.idle() {
            cx.close_lingering();
            return;
        }
        state.draining = true;
        if let Phase::Continue { reply, .. } | Phase::Body { reply, .. } = &mut state.phase {
            reply.persist = Persist::Close;
        }
        self.store(cx, state);
    }

    fn closed(&mut self, _tuple: &Tuple, user: u32, _record: &CloseRecord) {
        if let Some(state) = self.states.remove(user) {
            self.release(state.gathered);
        }
    }
}
