//! The service under a fuzzed shard: it does as it is told, and keeps book of what it was told itself.

use finwheel::service::{Context, Service};
use finwheel::tcp::record::CloseRecord;
use finwheel::wire::Tuple;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The byte at a place of what the service sends.
pub const fn sent_byte(at: u64) -> u8 {
    (at % 251) as u8
}

/// How a service ends what its peer has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Never,
    Close,
    Shutdown,
    Lingering,
    Abort,
}

impl End {
    pub const fn from(n: u8) -> Self {
        match n % 5 {
            0 => Self::Close,
            1 => Self::Never,
            2 => Self::Shutdown,
            3 => Self::Lingering,
            _ => Self::Abort,
        }
    }

    pub fn apply(self, cx: &mut dyn Context) {
        match self {
            Self::Never => {}
            Self::Close => cx.close(),
            Self::Shutdown => cx.shutdown(),
            Self::Lingering => cx.close_lingering(),
            Self::Abort => cx.abort(),
        }
    }
}

/// One connection as the service saw it.
#[derive(Debug, Default)]
pub struct Life {
    /// Which of all connections it is.
    pub number: u64,
    /// What was consumed.
    pub received: Vec<u8>,
    /// Bytes that `send` took.
    pub sent: u64,
    peer_closed: bool,
}

/// What the service knows and does.
#[derive(Debug)]
pub struct Book {
    pub lives: HashMap<Tuple, Life>,
    /// Bytes consumed of each offer; 0 is none.
    pub appetite: usize,
    /// Bytes sent at opening.
    pub greeting: usize,
    pub end: End,
    pub opened: u64,
    pub closed: u64,
    /// Whether it answers all it reads with as many bytes.
    pub answers: bool,
}

impl Book {
    /// Sends `n` bytes that follow on from those before.
    pub fn write(&mut self, cx: &mut dyn Context, n: usize) {
        let Some(life) = self.lives.get_mut(&cx.tuple()) else { return };
        let bytes: Vec<u8> = (life.sent..life.sent + n as u64).map(sent_byte).collect();
        let took = cx.send(&bytes);
        assert!(took <= n, "it took more than it was given");
        life.sent += took as u64;
    }
}

/// The service.
pub struct Told(pub Rc<RefCell<Book>>);

impl Service for Told {
    fn opened(&mut self, cx: &mut dyn Context) {
        let book = &mut *self.0.borrow_mut();
        book.opened += 1;
        let life = Life { number: book.opened, ..Life::default() };
        let before = book.lives.insert(cx.tuple(), life);
        assert!(before.is_none(), "opened twice: {}", cx.tuple().remote);
        let n = book.greeting;
        book.write(cx, n);
    }

    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        let book = &mut *self.0.borrow_mut();
        let life = book.lives.get_mut(&cx.tuple()).expect("data before opened, or after closed");
        assert!(!life.peer_closed, "data after the peer closed");
        assert!(!bytes.is_empty(), "an offer of nothing");
        let n = bytes.len().min(book.appetite);
        life.received.extend(&bytes[..n]);
        if book.answers {
            book.write(cx, n);
        }
        n
    }

    fn writable(&mut self, cx: &mut dyn Context) {
        let book = &mut *self.0.borrow_mut();
        assert!(book.lives.contains_key(&cx.tuple()), "writable before opened, or after closed");
        book.write(cx, 100);
    }

    fn peer_closed(&mut self, cx: &mut dyn Context) {
        let book = &mut *self.0.borrow_mut();
        let life = book.lives.get_mut(&cx.tuple()).expect("peer_closed before opened, or after closed");
        assert!(!std::mem::replace(&mut life.peer_closed, true), "told twice that the peer closed");
        book.end.apply(cx);
    }

    fn closed(&mut self, tuple: &Tuple, _user: u32, record: &CloseRecord) {
        let book = &mut *self.0.borrow_mut();
        assert_eq!(record.tuple, *tuple);
        // A connection that was begun from here may be closed without having been open.
        let life = book.lives.remove(tuple);
        assert!(life.is_some() || record.listener.is_none(), "closed, and never opened");
        book.closed += u64::from(life.is_some());
    }
}
