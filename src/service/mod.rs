//! What runs on top of a connection.
//!
//! A [`Service`] lives in one worker and serves all connections of one listener there; it never blocks and keeps
//! no lock. The engine calls it run to completion, inside the processing of a frame or a timer, and gives it a
//! [`Context`]: the connection it is about. A service that needs state per connection keeps it in its own slab
//! and stores the key in the context's `user` word, so an idle connection costs nothing.
//!
//! The life of a connection as a service sees it:
//!
//! ```text
//! opened ─▶ data* / writable* ─▶ peer_closed? ─▶ data never again; writable* ─▶ closed(record)
//! ```
//!
//! `closed` is the last call, exactly once for each connection that was `opened` by a peer or was begun from here (which
//! may have been refused and never `opened`), however it ended.

pub mod blast;
pub mod discard;
pub mod echo;
pub mod http;
pub mod pattern;
pub mod scripted;
pub(crate) mod slots;
#[cfg(test)]
pub(crate) mod testing;

use crate::tcp::record::CloseRecord;
use crate::time::Time;
use crate::wire::{Endpoint, L2, Tuple};

/// Makes a listener's service, once for each worker, in the worker's thread.
pub type ServiceFactory = std::sync::Arc<dyn Fn() -> Box<dyn Service> + Send + Sync>;

/// Names a connection to the services of its worker, until they are told that it is closed; then the name may be
/// another's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnId(pub(crate) u32);

/// The connection a service call is about.
pub trait Context {
    /// Its name for [`Context::resume`].
    fn id(&self) -> ConnId;
    /// Has a connection of this worker, this one or another, offered its unread bytes again, once this call is over: for
    /// a service that stopped reading by consuming less than it was given. One that has nothing unread, or was closed
    /// meanwhile, is not disturbed.
    fn resume(&mut self, id: ConnId);
    /// The connection's name.
    fn tuple(&self) -> Tuple;
    /// Now.
    fn now(&self) -> Time;
    /// The word the service stored with the connection; 0 at first.
    fn user(&self) -> u32;
    /// Stores a word with the connection.
    fn set_user(&mut self, word: u32);
    /// Bytes that [`Context::send`] would take now.
    fn send_space(&self) -> usize;
    /// Appends bytes to the send buffer and returns how many it took; fewer than offered when the buffer or the
    /// worker's pool is full ([`Service::writable`] tells when there is room again), none after a close.
    fn send(&mut self, bytes: &[u8]) -> usize;
    /// Bytes accepted by `send` and not yet acknowledged by the peer.
    fn unacknowledged(&self) -> usize;
    /// Half-close: FIN after everything sent so far; data from the peer is still delivered.
    fn shutdown(&mut self);
    /// Full close: FIN after everything sent so far. Data that is unread or arrives later is answered with RST
    /// (RFC 2525 §2.17, RFC 9293 §3.6.1).
    fn close(&mut self);
    /// Lingering close: FIN after everything sent so far; what still arrives is read and discarded up to the
    /// listener's limit of bytes and time, so that a RST does not destroy the response on its way.
    fn close_lingering(&mut self);
    /// RST now; buffers are dropped.
    fn abort(&mut self);
}

/// What a service that opens connections by itself wants done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Open a connection, now. [`Service::not_opened`] tells when that cannot be.
    Open(Opening),
    /// [`Service::called`], about this connection: its time has come.
    Call(Tuple),
    /// Nothing before this time, unless something else happens first.
    Wait(Time),
}

/// A connection to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its name.
    pub tuple: Tuple,
    /// Link layer of what is sent.
    pub l2: L2,
    /// The word that its context has at first.
    pub user: u32,
}

/// Why a connection was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// The pair is in use, or in a `TIME_WAIT` that it cannot leave before its end: another one may do.
    PairInUse,
    /// The pair is in a `TIME_WAIT` that it can leave in some milliseconds.
    PairNotYet,
    /// The table of connections is full.
    TableFull,
}

/// The application above TCP. See the module's head for the order of calls.
pub trait Service {
    /// The handshake is complete.
    fn opened(&mut self, cx: &mut dyn Context);

    /// In-order bytes. Returns how many were consumed; the engine keeps the rest (and closes the window as it
    /// fills) and offers it again, with what came after, when more arrives, when send space is freed, or when a service
    /// asks for it by [`Context::resume`]. That holds after the close as well: a connection whose both sides have closed
    /// is `closed` to its service only when it has taken everything, closes for good, or reaches `[tcp] close_wait`.
    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize;

    /// Send space was freed after `send` had taken less than offered. Unread bytes are offered again by `data`
    /// before this is called.
    fn writable(&mut self, cx: &mut dyn Context) {
        let _ = cx;
    }

    /// The peer's FIN arrived and everything before it was consumed. The connection stays in `CLOSE_WAIT`, and can
    /// send, until the service calls `close` or `shutdown`: now or later.
    fn peer_closed(&mut self, cx: &mut dyn Context);

    /// The worker is asked to end its connections. The default closes lingering, after what was sent so far.
    fn drain(&mut self, cx: &mut dyn Context) {
        cx.close_lingering();
    }

    /// What is to be done next on this service's own account: asked every turn, some times over, of the service that
    /// connections are opened for. Not asked any more once the worker is drained.
    fn errand(&mut self, now: Time) -> Errand {
        let _ = now;
        Errand::Wait(Time::NEVER)
    }

    /// An [`Errand::Open`] could not be done; `closed` is not called for it.
    fn not_opened(&mut self, user: u32, why: NotOpened) {
        let _ = (user, why);
    }

    /// What [`Errand::Call`] asked for.
    fn called(&mut self, cx: &mut dyn Context) {
        let _ = cx;
    }

    /// A connection to `remote` that was to be opened from here cannot be begun: no local port is free, or the table is
    /// full. It never was one, so `closed` is not called.
    fn not_begun(&mut self, remote: Endpoint, user: u32) {
        let _ = (remote, user);
    }

    /// The connection ended: it left for `TIME_WAIT` or is gone. `user` is the word stored with it.
    fn closed(&mut self, tuple: &Tuple, user: u32, record: &CloseRecord);
}
