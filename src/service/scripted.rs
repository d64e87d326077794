//! A service whose client says, in the first bytes, how the connection is to end: for the demo and the tests.
//!
//! Echo and discard never close first, so on their own they cannot show every closing order. [`Scripted`] wraps one of
//! them and reads a [`Command`] of [`COMMAND_LEN`] bytes at the head of the stream; everything after it goes to the
//! inner service. Kernel clients and the simulated driver speak the same five bytes:
//!
//! ```text
//! byte 0       1..5 (big-endian u32 n)
//! 'f'          0                         follow: as the inner service does, it closes after the peer
//! 'c'          n                         close first, once n bytes of payload were taken (n = 0: at once)
//! 'h'          n                         half-close: after the peer's FIN send n pattern bytes, then close
//! 'b'          n                         both: FIN once n bytes arrived, go on reading to the peer's FIN
//! ```
//!
//! An unknown command, or a connection beyond the wrapper's bound, is aborted. With `'b'` a client whose own FIN is in
//! flight when the n-th byte arrives gets a simultaneous close: it sends n bytes or more in two segments at least and
//! shuts down at once. It may then receive less than it sent back from an echo.

use super::slots::Slots;
use super::{ConnId, Context, Service, pattern};
use crate::tcp::record::CloseRecord;
use crate::time::Time;
use crate::wire::Tuple;

/// Bytes of a command on the wire.
pub const COMMAND_LEN: usize = 5;

/// Stream of the bytes that `Command::HalfClose` sends; see [`pattern`].
pub const TAIL_SEED: u64 = 0x7a11;

/// How the connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// The service closes after the peer.
    Follow,
    /// The service closes first, once this many bytes of payload were taken.
    CloseAfter(u32),
    /// After the peer's FIN the service sends this many pattern bytes, then closes.
    HalfClose(u32),
    /// The service sends its FIN once this many bytes of payload were taken, and reads on.
    Both(u32),
}

impl Command {
    /// The wire form.
    #[must_use]
    pub fn to_bytes(self) -> [u8; COMMAND_LEN] {
        let (letter, n) = match self {
            Self::Follow => (b'f', 0),
            Self::CloseAfter(n) => (b'c', n),
            Self::HalfClose(n) => (b'h', n),
            Self::Both(n) => (b'b', n),
        };
        let n = n.to_be_bytes();
        [letter, n[0], n[1], n[2], n[3]]
    }

    /// From the wire form; `None` for an unknown letter.
    #[must_use]
    pub fn from_bytes(bytes: [u8; COMMAND_LEN]) -> Option<Self> {
        let [letter, rest @ ..] = bytes;
        let n = u32::from_be_bytes(rest);
        match letter {
            b'f' => Some(Self::Follow),
            b'c' => Some(Self::CloseAfter(n)),
            b'h' => Some(Self::HalfClose(n)),
            b'b' => Some(Self::Both(n)),
            _ => None,
        }
    }
}

/// What is known of one connection.
struct Script {
    /// The inner service's word.
    user: u32,
    head: [u8; COMMAND_LEN],
    /// Bytes of `head` that arrived.
    have: usize,
    /// Payload bytes the inner service took.
    taken: u64,
    /// Pattern bytes sent after the peer's FIN.
    tail: u64,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The command is incomplete.
    Head,
    /// The inner service has the stream.
    Run(Command),
    /// The peer's FIN came; pattern bytes are going out, this many in all.
    Tail(u32),
    /// The service has closed.
    Over,
}

/// A wrapper that lets the client choose the closing order. See the module's head.
pub struct Scripted<S> {
    inner: S,
    scripts: Slots<Script>,
}

/// The inner service's view: its own user word.
struct Inner<'a> {
    outer: &'a mut dyn Context,
    user: &'a mut u32,
}

impl Context for Inner<'_> {
    fn id(&self) -> ConnId {
        self.outer.id()
    }
    fn resume(&mut self, id: ConnId) {
        self.outer.resume(id);
    }
    fn tuple(&self) -> Tuple {
        self.outer.tuple()
    }
    fn now(&self) -> Time {
        self.outer.now()
    }
    fn user(&self) -> u32 {
        *self.user
    }
    fn set_user(&mut self, word: u32) {
        *self.user = word;
    }
    fn send_space(&self) -> usize {
        self.outer.send_space()
    }
    fn send(&mut self, bytes: &[u8]) -> usize {
        self.outer.send(bytes)
    }
    fn unacknowledged(&self) -> usize {
        self.outer.unacknowledged()
    }
    fn shutdown(&mut self) {
        self.outer.shutdown();
    }
    fn close(&mut self) {
        self.outer.close();
    }
    fn close_lingering(&mut self) {
        self.outer.close_lingering();
    }
    fn abort(&mut self) {
        self.outer.abort();
    }
}

impl<S: Service> Scripted<S> {
    /// Wraps `inner`; `connections` bounds how many can be open at once, further ones are aborted.
    #[must_use]
    pub fn new(inner: S, connections: usize) -> Self {
        Self { inner, scripts: Slots::new(connections) }
    }

    /// Connections that hold state now.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.scripts.len()
    }

    /// Reads the command from the stream; returns how many bytes of it were taken.
    fn read_command(script: &mut Script, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        let n = bytes.len().min(COMMAND_LEN - script.have);
        script.head[script.have..script.have + n].copy_from_slice(&bytes[..n]);
        script.have += n;
        if script.have == COMMAND_LEN {
            if let Some(command) = Command::from_bytes(script.head) {
                script.phase = Phase::Run(command);
            } else {
                script.phase = Phase::Over;
                cx.abort();
            }
        }
        n
    }

    /// Ends the connection when the command says that it is time.
    fn close_if_due(script: &mut Script, cx: &mut dyn Context) {
        match script.phase {
            Phase::Run(Command::CloseAfter(n)) if script.taken >= u64::from(n) => {
                script.phase = Phase::Over;
                cx.close_lingering();
            }
            Phase::Run(Command::Both(n)) if script.taken >= u64::from(n) => {
                script.phase = Phase::Over;
                cx.shutdown();
            }
            Phase::Run(_) | Phase::Head | Phase::Tail(_) | Phase::Over => {}
        }
    }

    /// Sends what is left of the tail, and closes after it.
    fn send_tail(script: &mut Script, cx: &mut dyn Context) {
        let Phase::Tail(total) = script.phase else { return };
        let mut part = [0u8; 1024];
        while script.tail < u64::from(total) {
            let n = (u64::from(total) - script.tail).min(part.len() as u64) as usize;
            pattern::fill(TAIL_SEED, script.tail, &mut part[..n]);
            let sent = cx.send(&part[..n]);
            script.tail += sent as u64;
            if sent < n {
                return;
            }
        }
        script.phase = Phase::Over;
        cx.close();
    }
}

impl<S: Service> Service for Scripted<S> {
    fn opened(&mut self, cx: &mut dyn Context) {
        let script =
            Script { user: 0, head: [0; COMMAND_LEN], have: 0, taken: 0, tail: 0, phase: Phase::Head };
        let Ok(word) = self.scripts.insert(script) else {
            cx.set_user(0);
            cx.abort();
            return;
        };
        cx.set_user(word);
        if let Some(script) = self.scripts.get_mut(word) {
            self.inner.opened(&mut Inner { outer: cx, user: &mut script.user });
        }
    }

    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        let Some(script) = self.scripts.get_mut(cx.user()) else {
            return bytes.len();
        };
        let mut used = 0;
        if script.phase == Phase::Head {
            used = Self::read_command(script, cx, bytes);
            Self::close_if_due(script, cx);
        }
        match script.phase {
            Phase::Head => used,
            Phase::Tail(_) | Phase::Over => bytes.len(),
            Phase::Run(command) => {
                let rest = &bytes[used..];
                // What lies beyond the closing point is not for the inner service: its answers could not be sent.
                let limit = match command {
                    Command::CloseAfter(n) | Command::Both(n) => u64::from(n).saturating_sub(script.taken),
                    Command::Follow | Command::HalfClose(_) => u64::MAX,
                };
                let rest = &rest[..rest.len().min(usize::try_from(limit).unwrap_or(usize::MAX))];
                let mut taken = 0;
                if !rest.is_empty() {
                    taken = self.inner.data(&mut Inner { outer: cx, user: &mut script.user }, rest);
                    script.taken += taken as u64;
                }
                Self::close_if_due(script, cx);
                if script.phase == Phase::Over { bytes.len() } else { used + taken }
            }
        }
    }

    fn writable(&mut self, cx: &mut dyn Context) {
        let Some(script) = self.scripts.get_mut(cx.user()) else {
            return;
        };
        match script.phase {
            Phase::Run(_) => self.inner.writable(&mut Inner { outer: cx, user: &mut script.user }),
            Phase::Tail(_) => Self::send_tail(script, cx),
            Phase::Head | Phase::Over => {}
        }
    }

    fn peer_closed(&mut self, cx: &mut dyn Context) {
        let Some(script) = self.scripts.get_mut(cx.user()) else {
            cx.close();
            return;
        };
        match script.phase {
            Phase::Run(Command::HalfClose(n)) => {
                script.phase = Phase::Tail(n);
                Self::send_tail(script, cx);
            }
            Phase::Run(_) => self.inner.peer_closed(&mut Inner { outer: cx, user: &mut script.user }),
            Phase::Head | Phase::Over | Phase::Tail(_) => cx.close(),
        }
    }

    fn drain(&mut self, cx: &mut dyn Context) {
        match self.scripts.get_mut(cx.user()) {
            Some(script) => self.inner.drain(&mut Inner { outer: cx, user: &mut script.user }),
            None => cx.close_lingering(),
        }
    }

    fn closed(&mut self, tuple: &Tuple, user: u32, record: &CloseRecord) {
        if let Some(script) = self.scripts.remove(user) {
            self.inner.closed(tuple, script.user, record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::echo::Echo;
    use crate::service::testing::{Ended, FakeConn};
    use crate::tcp::record::{Cause, ClosePath};

    fn run(command: Command) -> (Scripted<Echo>, FakeConn) {
        let mut service = Scripted::new(Echo, 4);
        let mut conn = FakeConn::open(&mut service, 100);
        for byte in command.to_bytes() {
            conn.deliver(&mut service, &[byte]);
        }
        (service, conn)
    }

    #[test]
    fn commands_survive_the_wire() {
        for c in [Command::Follow, Command::CloseAfter(1), Command::HalfClose(u32::MAX), Command::Both(300)] {
            assert_eq!(Command::from_bytes(c.to_bytes()), Some(c));
        }
        assert_eq!(Command::from_bytes(*b"x0000"), None);
    }

    #[test]
    fn follow_closes_after_the_peer() {
        let (mut s, mut conn) = run(Command::Follow);
        conn.deliver(&mut s, b"abc");
        assert_eq!((conn.take(&mut s, 9), conn.cx.ended), (b"abc".to_vec(), Ended::Open));
        conn.deliver_fin(&mut s);
        assert_eq!(conn.cx.ended, Ended::Close);
        conn.over(&mut s, ClosePath::Passive, Cause::Peer);
        assert_eq!(s.in_use(), 0);
    }

    #[test]
    fn close_after_echoes_exactly_that_much_and_goes_first() {
        let (mut s, mut conn) = run(Command::CloseAfter(150));
        conn.deliver(&mut s, &[5; 200]);
        assert_eq!(conn.cx.ended, Ended::Open, "only 100 bytes fit");
        assert_eq!(conn.take(&mut s, 100).len(), 100);
        assert_eq!((conn.cx.ended, conn.cx.out.len()), (Ended::Lingering, 50));
        let (_, conn) = run(Command::CloseAfter(0));
        assert_eq!(conn.cx.ended, Ended::Lingering);
    }

    #[test]
    fn half_close_sends_its_tail_after_the_fin() {
        let (mut s, mut conn) = run(Command::HalfClose(250));
        conn.deliver(&mut s, b"abc");
        conn.deliver_fin(&mut s);
        let mut got = Vec::new();
        for _ in 0..10 {
            got.extend(conn.take(&mut s, 60));
        }
        assert_eq!((&got[..3], got.len()), (&b"abc"[..], 253));
        assert_eq!(pattern::mismatch(TAIL_SEED, 0, &got[3..]), None);
        assert_eq!(conn.cx.ended, Ended::Close);
    }

    #[test]
    fn both_sends_its_fin_and_reads_on() {
        let (mut s, mut conn) = run(Command::Both(2));
        conn.deliver(&mut s, b"abc");
        assert_eq!((conn.take(&mut s, 9), conn.cx.ended), (b"ab".to_vec(), Ended::Shutdown));
        conn.deliver(&mut s, b"more");
        conn.deliver_fin(&mut s);
        assert_eq!((conn.unread(), conn.cx.ended), (0, Ended::Close));
    }

    #[test]
    fn an_unknown_command_and_one_connection_too_many_are_aborted() {
        let mut s = Scripted::new(Echo, 1);
        let mut first = FakeConn::open(&mut s, 100);
        let second = FakeConn::open(&mut s, 100);
        assert_eq!(second.cx.ended, Ended::Abort);
        second.over(&mut s, ClosePath::Reset, Cause::Abort);
        assert_eq!(s.in_use(), 1, "the other's state stays");
        first.deliver(&mut s, b"GET / HTTP/1.1\r\n");
        assert_eq!(first.cx.ended, Ended::Abort);
        first.over(&mut s, ClosePath::Reset, Cause::Abort);
        assert_eq!(s.in_use(), 0);
    }
}
