//! A connection that somebody is at work on: its record, its flight, and the pair of endpoints that names it.

use super::chunk::ChunkPool;
use super::config::TcpConfig;
use super::conn::{AT_REST, Conn, ConnFlags, Env};
use super::flight::{Flight, Standing};
use super::record::{Cause, ClosePath, CloseRecord, First};
use super::state::State;
use crate::time::Time;
use crate::wire::pair::PairRef;
use crate::wire::{SeqNum, Tuple};
use std::ops::{Deref, DerefMut};

/// Windows that a service may be ahead of its peer. Higher: a peer with a small window holds more of the pool; lower: the
/// service is called more often for it.
const WINDOWS_AHEAD: usize = 4;
/// Bytes that a service may write when the peer's window is closed. Higher: so much for each peer that closes it for good;
/// lower: a window that opens finds less to send before the service is called.
const AHEAD_OF_A_CLOSED_WINDOW: usize = 8 * 1024;

/// A connection at work. What is always needed is the record's, and reads like the view's own.
#[derive(Debug)]
pub struct Live<'a> {
    /// Its name.
    pub pair: PairRef<'a>,
    /// What it always is.
    pub conn: &'a mut Conn,
    /// What it is only while something happens.
    pub flight: &'a mut Flight,
}

impl Deref for Live<'_> {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        self.conn
    }
}

impl DerefMut for Live<'_> {
    fn deref_mut(&mut self) -> &mut Conn {
        self.conn
    }
}

impl Live<'_> {
    /// Its name.
    #[must_use]
    pub fn tuple(&self) -> Tuple {
        self.pair.tuple()
    }

    /// Whether it runs over IPv4.
    pub(super) const fn is_v4(&self) -> bool {
        self.pair.is_v4()
    }

    /// Takes what the peer's SYN offered.
    pub(super) fn set_peer_options(&mut self, mss: Option<u16>, scale: Option<u8>, env: &Env<'_>) {
        self.conn.set_peer_options(self.pair.is_v4(), mss, scale, env.cfg);
        self.flight.follow_options(self.conn);
    }

    /// One past the last byte the service has sent; our FIN has this number.
    pub(super) fn data_end(&self) -> SeqNum {
        self.data_base() + self.flight.sndbuf.len() as u32
    }

    /// Bytes in the send buffer.
    #[must_use]
    pub fn unsent_or_unacknowledged(&self) -> usize {
        self.flight.sndbuf.len()
    }

    /// Most bytes the send buffer may hold now: what the listener allows, within the connection's share of the pool, and
    /// little for a peer that takes little: what waits behind a closed window is memory that nobody else has.
    fn send_limit(&self, env: &Env<'_>) -> usize {
        let takes = WINDOWS_AHEAD * self.snd_wnd as usize + AHEAD_OF_A_CLOSED_WINDOW;
        let most = (env.cfg.send_most(self.service) as usize).min(takes);
        env.pool.share(self.flight.sndbuf.len(), most)
    }

    /// Bytes the send buffer would take.
    #[must_use]
    pub fn send_space(&self, env: &Env<'_>) -> usize {
        if self.state().can_send() {
            self.send_limit(env).saturating_sub(self.flight.sndbuf.len())
        } else {
            0
        }
    }

    /// Bytes received and not yet consumed by the service.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.flight.rcvbuf.unread()
    }

    /// Bytes held beyond a gap.
    #[must_use]
    pub fn buffered_out_of_order(&self) -> usize {
        self.flight.rcvbuf.buffered_ooo()
    }

    /// The next contiguous unread bytes.
    #[must_use]
    pub fn front<'p>(&self, pool: &'p ChunkPool) -> &'p [u8] {
        self.flight.rcvbuf.front(pool)
    }

    /// Takes `n` unread bytes out of the buffer.
    pub fn consume(&mut self, env: &mut Env<'_>, n: usize) {
        self.flight.rcvbuf.consume(env.pool, n);
        self.right_size(env);
        self.maybe_update_window(env);
        if self.closing_done() {
            // The bound of the wait for the service counts from what it last took.
            self.conn.progress_at.set(env.now);
        }
    }

    /// Appends bytes to send; remembers when it took fewer, so that the service hears of free space.
    pub fn send(&mut self, env: &mut Env<'_>, bytes: &[u8]) -> usize {
        if !self.state().can_send() {
            return 0;
        }
        let limit = self.send_limit(env);
        let n = self.flight.sndbuf.append(env.pool, bytes, limit);
        if n < bytes.len() {
            self.flags.set(ConnFlags::SEND_BLOCKED);
        }
        n
    }

    /// From the SYN to the acknowledgment of our SYN-ACK, for a connection opened by a peer.
    #[must_use]
    pub const fn handshake_time(&self) -> std::time::Duration {
        std::time::Duration::from_micros(self.flight.handshake_us as u64)
    }

    /// The record of a connection that entered `TIME_WAIT` or `CLOSED`.
    #[must_use]
    pub fn close_record(&self, now: Time) -> CloseRecord {
        let e = self.ending;
        let crossed = self.flags.has(ConnFlags::CROSSED);
        let path = e.path().unwrap_or(if crossed {
            ClosePath::Simultaneous
        } else if self.flags.has(ConnFlags::HALF_CLOSE) {
            ClosePath::HalfClose
        } else if e.first() == Some(First::Peer) {
            ClosePath::Passive
        } else {
            ClosePath::Active
        });
        CloseRecord {
            tuple: self.tuple(),
            listener: (!self.is_active()).then_some(self.service),
            opened_at: self.opened_at.get(),
            closed_at: now,
            path,
            first: if crossed { First::Both } else { e.first().unwrap_or(First::Nobody) },
            cause: e.cause().unwrap_or(Cause::Service),
            fin_retransmissions: u32::from(self.fin_retransmissions),
            times: self.spans.times(self.flags.has(ConnFlags::CLOSE_WAITED), crossed),
            unacknowledged: self.flight.sndbuf.len() as u32,
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            time_wait: self.state() == State::TimeWait,
        }
    }

    /// The work is done: when [`Live::on_timer`] wants to be called, and, when the connection is at rest, the number of its
    /// flight, which is given back.
    #[inline]
    pub fn lay_down(&mut self, cfg: &TcpConfig, now: Time) -> (Time, Option<u32>) {
        self.arm_persist(now);
        let standing = self.flight.standing(self.conn);
        if standing == Standing::Remembers {
            self.arm_forgetting(now);
        }
        let deadline = self.deadline(cfg);
        if standing != Standing::AtRest {
            return (deadline, None);
        }
        self.flight.lay_down(self.conn);
        (deadline, Some(std::mem::replace(&mut self.conn.flight, AT_REST)))
    }

    /// Gives all chunks back; the record can then be dropped.
    pub fn release(&mut self, pool: &mut ChunkPool) {
        self.flight.sndbuf.clear(pool);
        self.flight.scoreboard.clear(pool);
        self.flight.rcvbuf.clear(pool);
    }
}
