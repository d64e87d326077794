//! The service under a script: it reads nothing until the script does, and remembers what it was told.

use super::frames::pattern;
use finwheel::service::{Context, Service};
use finwheel::tcp::record::CloseRecord;
use finwheel::wire::Tuple;
use std::cell::RefCell;
use std::rc::Rc;

/// What the service knows and may do.
#[derive(Debug, Default)]
pub struct Memory {
    /// Connections opened and not yet accepted.
    pub opened: usize,
    /// The peer has closed and everything before was read.
    pub end_of_stream: bool,
    /// Bytes that it may still read.
    pub quota: usize,
    /// Bytes it has read.
    pub got: usize,
    /// Script number of the stream's first byte.
    pub first: i64,
    /// Bytes it has written.
    pub written: usize,
    /// A byte that was not what the peer sent.
    pub wrong: bool,
    /// Close records not yet looked at, oldest first.
    pub records: Vec<CloseRecord>,
    /// The latest record, for the errors of later calls.
    pub last: Option<CloseRecord>,
}

/// The service.
pub struct Scripted(pub Rc<RefCell<Memory>>);

impl Service for Scripted {
    fn opened(&mut self, _: &mut dyn Context) {
        let mut m = self.0.borrow_mut();
        m.opened += 1;
        m.last = None;
        (m.got, m.written, m.end_of_stream) = (0, 0, false);
    }

    fn data(&mut self, _: &mut dyn Context, bytes: &[u8]) -> usize {
        let mut m = self.0.borrow_mut();
        let at = m.first + m.got as i64;
        m.wrong |= !bytes.iter().copied().eq(pattern(at, bytes.len()));
        let n = bytes.len().min(m.quota);
        m.got += n;
        m.quota = if m.quota == usize::MAX { usize::MAX } else { m.quota - n };
        n
    }

    fn peer_closed(&mut self, _: &mut dyn Context) {
        self.0.borrow_mut().end_of_stream = true;
    }

    fn closed(&mut self, _: &Tuple, _: u32, record: &CloseRecord) {
        let mut m = self.0.borrow_mut();
        m.last = Some(record.clone());
        m.records.push(record.clone());
    }
}
