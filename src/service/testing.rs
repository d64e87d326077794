//! A connection without an engine: keeps the order of calls that the module's head promises, so that services can be
//! tested byte by byte.

use super::{ConnId, Context, Service};
use crate::tcp::record::{Cause, ClosePath, CloseRecord, ClosingTimes, First};
use crate::time::Time;
use crate::wire::{Addr, Endpoint, Tuple};

/// How the service ended the connection, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Open,
    Shutdown,
    Close,
    Lingering,
    Abort,
}

/// The context a service sees.
pub struct FakeCx {
    pub user: u32,
    /// Send buffer in bytes.
    pub capacity: usize,
    /// Sent and not yet taken by the peer.
    pub out: Vec<u8>,
    pub ended: Ended,
    short: bool,
}

impl Context for FakeCx {
    fn id(&self) -> ConnId {
        ConnId(0)
    }
    fn resume(&mut self, _: ConnId) {}
    fn tuple(&self) -> Tuple {
        tuple()
    }
    fn now(&self) -> Time {
        Time::ZERO
    }
    fn user(&self) -> u32 {
        self.user
    }
    fn set_user(&mut self, word: u32) {
        self.user = word;
    }
    fn send_space(&self) -> usize {
        if self.ended == Ended::Open { self.capacity.saturating_sub(self.out.len()) } else { 0 }
    }
    fn send(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.send_space());
        self.out.extend_from_slice(&bytes[..n]);
        self.short |= n < bytes.len();
        n
    }
    fn unacknowledged(&self) -> usize {
        self.out.len()
    }
    fn shutdown(&mut self) {
        self.end(Ended::Shutdown);
    }
    fn close(&mut self) {
        self.end(Ended::Close);
    }
    fn close_lingering(&mut self) {
        self.end(Ended::Lingering);
    }
    fn abort(&mut self) {
        self.out.clear();
        self.ended = Ended::Abort;
    }
}

impl FakeCx {
    fn end(&mut self, how: Ended) {
        if self.ended == Ended::Open || (self.ended == Ended::Shutdown && how != Ended::Shutdown) {
            self.ended = how;
        }
    }
}

/// A tuple for tests.
pub fn tuple() -> Tuple {
    Tuple {
        local: Endpoint::new(Addr::v4([10, 0, 0, 1]), 80),
        remote: Endpoint::new(Addr::v4([10, 0, 0, 2]), 40000),
    }
}

/// A close record for tests.
pub fn record(path: ClosePath, cause: Cause) -> CloseRecord {
    CloseRecord {
        tuple: tuple(),
        listener: None,
        opened_at: Time::ZERO,
        closed_at: Time::ZERO,
        path,
        first: First::Peer,
        cause,
        fin_retransmissions: 0,
        times: ClosingTimes::default(),
        unacknowledged: 0,
        bytes_in: 0,
        bytes_out: 0,
        time_wait: false,
    }
}

/// One connection of a service.
pub struct FakeConn {
    pub cx: FakeCx,
    unread: Vec<u8>,
    fin: bool,
    told: bool,
    /// Bytes that were unread when the service closed for good: a reset (RFC 2525 §2.17).
    pub unread_at_close: usize,
    /// Bytes that arrived after the service had closed for good: a reset too.
    pub after_close: usize,
}

impl FakeConn {
    /// Opens a connection with a send buffer of `capacity` bytes.
    pub fn open(service: &mut dyn Service, capacity: usize) -> Self {
        Self::open_with(service, capacity, 0)
    }

    /// As [`FakeConn::open`], with an initial user word.
    pub fn open_with(service: &mut dyn Service, capacity: usize, user: u32) -> Self {
        let cx = FakeCx { user, capacity, out: Vec::new(), ended: Ended::Open, short: false };
        let mut conn =
            Self { cx, unread: Vec::new(), fin: false, told: false, unread_at_close: 0, after_close: 0 };
        service.opened(&mut conn.cx);
        conn
    }

    /// Bytes offered and not yet consumed.
    pub fn unread(&self) -> usize {
        self.unread.len()
    }

    /// In-order bytes arrive.
    pub fn deliver(&mut self, service: &mut dyn Service, bytes: &[u8]) {
        match self.cx.ended {
            Ended::Open | Ended::Shutdown => self.unread.extend_from_slice(bytes),
            Ended::Lingering | Ended::Abort => {}
            Ended::Close => self.after_close += bytes.len(),
        }
        self.offer(service);
    }

    /// The peer's FIN arrives.
    pub fn deliver_fin(&mut self, service: &mut dyn Service) {
        self.fin = true;
        self.offer(service);
    }

    /// The peer acknowledges (and gets) up to `n` bytes.
    pub fn take(&mut self, service: &mut dyn Service, n: usize) -> Vec<u8> {
        let n = n.min(self.cx.out.len());
        let taken = self.cx.out.drain(..n).collect();
        if self.cx.short && n > 0 {
            self.cx.short = false;
            self.offer(service);
            if matches!(self.cx.ended, Ended::Open) {
                service.writable(&mut self.cx);
                self.offer_fin(service);
            }
        }
        taken
    }

    /// Whether the end of the stream is what the peer reads next.
    pub fn sent_fin(&self) -> bool {
        self.cx.out.is_empty() && !matches!(self.cx.ended, Ended::Open | Ended::Abort)
    }

    /// The connection is over.
    pub fn over(self, service: &mut dyn Service, path: ClosePath, cause: Cause) {
        service.closed(&tuple(), self.cx.user, &record(path, cause));
    }

    fn reading(&self) -> bool {
        matches!(self.cx.ended, Ended::Open | Ended::Shutdown)
    }

    fn offer(&mut self, service: &mut dyn Service) {
        if !self.unread.is_empty() && self.reading() {
            let n = service.data(&mut self.cx, &self.unread);
            assert!(n <= self.unread.len(), "consumed more than offered");
            self.unread.drain(..n);
        }
        match self.cx.ended {
            Ended::Close => self.unread_at_close += std::mem::take(&mut self.unread).len(),
            Ended::Lingering | Ended::Abort => self.unread.clear(),
            Ended::Open | Ended::Shutdown => {}
        }
        self.offer_fin(service);
    }

    fn offer_fin(&mut self, service: &mut dyn Service) {
        if self.fin && !self.told && self.unread.is_empty() && self.reading() {
            self.told = true;
            service.peer_closed(&mut self.cx);
        }
    }
}
