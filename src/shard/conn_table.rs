//! The connections of a shard, packed, each with its timer, and the flights that are lent to them.
//!
//! ```text
//!  key (30 bits) ──▶ width (1 bit) + number ──▶ narrow  228 bytes a record: pair of IPv4, Conn
//!                                           └─▶ wide    252 bytes: pair of IPv6, Conn
//!                       Conn at work ──number──▶ flights, the one that was given back last first
//! ```
//!
//! With the index, the wheel and the queues (see [`super::tables`]) that makes 256 and 280 bytes. As with the other records
//! both widths are reserved for the whole capacity and touched as they are used.
//!
//! Whoever begins to work on a connection is given a [`Live`]; if no flight is lent to it, that is when one is. When the
//! work is done it is [settled](ConnTable::settle): its timer is armed, and the flight goes back unless it holds something.
//! So there is one flight for each connection with something on its way, and one that goes from hand to hand, hot in the
//! cache. There are as many as connections, so that none is ever missing.

use super::slab::Slab;
use super::tables::ceil_ms;
use super::wheel::TimerWheel;
use crate::tcp::conn::{AT_REST, Conn, Live};
use crate::tcp::flight::Flight;
use crate::time::Time;
use crate::wire::Tuple;
use crate::wire::pair::{Pair, Pair4, Pair6, PairRef};

/// Set in the keys of wide records.
pub(super) const WIDE: u32 = 1 << 29;

/// Connections that can be held: the numbers have 29 bits.
const MAX_CONNS: usize = WIDE as usize;

/// A record with its name.
#[repr(C)]
struct Named<P> {
    pair: P,
    conn: Conn,
}

/// Bytes a record takes, over IPv4 and over IPv6.
pub(super) const RECORD_BYTES: [usize; 2] =
    [Slab::<Named<Pair4>>::RECORD_BYTES, Slab::<Named<Pair6>>::RECORD_BYTES];

/// Bytes of a flight.
pub(super) const FLIGHT_BYTES: usize = Slab::<Flight>::RECORD_BYTES;

const _: () = assert!(RECORD_BYTES[0] == 228 && RECORD_BYTES[1] == 252 && FLIGHT_BYTES == 232);

/// Records of one width and their timers.
struct Records<P> {
    slab: Slab<Named<P>>,
    wheel: TimerWheel,
}

impl<P: Pair> Records<P> {
    fn new(capacity: usize, ms: u64) -> Self {
        Self { slab: Slab::new(capacity), wheel: TimerWheel::new(capacity, ms) }
    }

    fn conn(&self, number: u32) -> Option<&Conn> {
        self.slab.get(number).map(|r| &r.conn)
    }

    fn remove(&mut self, number: u32) -> Option<u32> {
        let flight = self.slab.remove(number)?.conn.flight;
        self.wheel.disarm(number);
        Some(flight)
    }
}

/// Lends a flight to a connection at rest; `None` when there is none.
#[inline(never)]
fn lend(conn: &mut Conn, flights: &mut Slab<Flight>) -> Option<()> {
    conn.flight = flights.insert_with(|| Flight::of(conn))?;
    Some(())
}

/// The records, their timers, and the flights.
pub(super) struct ConnTable {
    narrow: Records<Pair4>,
    wide: Records<Pair6>,
    flights: Slab<Flight>,
    capacity: usize,
}

impl ConnTable {
    /// Room for `capacity` connections.
    pub(super) fn new(capacity: usize, now: Time) -> Self {
        assert!(capacity <= MAX_CONNS, "a table of connections holds up to {MAX_CONNS}");
        let ms = now.millis();
        Self {
            narrow: Records::new(capacity, ms),
            wide: Records::new(capacity, ms),
            flights: Slab::new(capacity),
            capacity,
        }
    }

    /// Connections held.
    pub(super) fn len(&self) -> usize {
        self.narrow.slab.len() + self.wide.slab.len()
    }

    /// Whether no further one can be held.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Connections that can be held.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Connections whose timer is armed.
    pub(super) fn timers(&self) -> usize {
        self.narrow.wheel.len() + self.wide.wheel.len()
    }

    /// Flights that are lent.
    pub(super) fn flights(&self) -> usize {
        self.flights.len()
    }

    /// Keeps a connection and names it; `None` when there is no room.
    pub(super) fn insert(&mut self, tuple: &Tuple, conn: Conn) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        if tuple.is_v4() {
            return self.narrow.slab.insert(Named { pair: Pair4::of(tuple), conn });
        }
        self.wide.slab.insert(Named { pair: Pair6::of(tuple), conn }).map(|number| number | WIDE)
    }

    /// Takes a connection out, its timer and its flight. It has [released](Live::release) its chunks.
    pub(super) fn remove(&mut self, key: u32) {
        let flight = if key & WIDE == 0 { self.narrow.remove(key) } else { self.wide.remove(key & !WIDE) };
        if let Some(flight) = flight {
            self.flights.remove(flight);
        }
    }

    /// Has the record of a key fetched into the cache, and its timer.
    #[inline]
    pub(super) fn prefetch(&self, key: u32) {
        if key & WIDE == 0 {
            self.narrow.slab.prefetch(key);
            self.narrow.wheel.prefetch(key);
        } else {
            self.wide.slab.prefetch(key & !WIDE);
            self.wide.wheel.prefetch(key & !WIDE);
        }
    }

    /// The record of a key.
    pub(super) fn get(&self, key: u32) -> Option<&Conn> {
        if key & WIDE == 0 { self.narrow.conn(key) } else { self.wide.conn(key & !WIDE) }
    }

    /// The record of a key, to change what needs no flight.
    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut Conn> {
        if key & WIDE == 0 {
            self.narrow.slab.get_mut(key).map(|r| &mut r.conn)
        } else {
            self.wide.slab.get_mut(key & !WIDE).map(|r| &mut r.conn)
        }
    }

    /// The connection of a key, to work on it until it is [at rest](Self::rest) again.
    #[inline]
    pub(super) fn live(&mut self, key: u32) -> Option<Live<'_>> {
        let Self { narrow, wide, flights, .. } = self;
        let (pair, conn) = if key & WIDE == 0 {
            let Named { pair, conn } = narrow.slab.get_mut(key)?;
            (PairRef::Narrow(pair), conn)
        } else {
            let Named { pair, conn } = wide.slab.get_mut(key & !WIDE)?;
            (PairRef::Wide(pair), conn)
        };
        if conn.flight == AT_REST {
            lend(conn, flights)?;
        }
        let flight = flights.get_mut(conn.flight)?;
        Some(Live { pair, conn, flight })
    }

    /// The work on a connection is done, and [has been laid down](Live::lay_down): its timer is armed for the deadline, and
    /// its flight taken back if it gave it.
    #[inline]
    pub(super) fn rest(&mut self, key: u32, deadline: Time, flight: Option<u32>) {
        if let Some(flight) = flight {
            self.flights.remove(flight);
        }
        if deadline != Time::NEVER {
            self.arm_earlier(key, ceil_ms(deadline));
        }
    }

    /// Looks at a connection as one at work would see it, and leaves it as it is.
    pub(super) fn inspect<R>(&mut self, key: u32, look: impl FnOnce(&Live<'_>) -> R) -> Option<R> {
        if self.get(key)?.flight != AT_REST {
            return self.live(key).map(|live| look(&live));
        }
        let mut flight = Flight::of(self.get(key)?);
        let tuple = self.tuple(key)?;
        let (narrow, wide) = (Pair4::of(&tuple), Pair6::of(&tuple));
        let pair = if tuple.is_v4() { PairRef::Narrow(&narrow) } else { PairRef::Wide(&wide) };
        let conn = self.get_mut(key)?;
        Some(look(&Live { pair, conn, flight: &mut flight }))
    }

    /// What is lent to a connection.
    pub(super) fn flight(&self, conn: &Conn) -> Option<&Flight> {
        self.flights.get(conn.flight)
    }

    /// The tuple of a key's record.
    pub(super) fn tuple(&self, key: u32) -> Option<Tuple> {
        if key & WIDE == 0 {
            self.narrow.slab.get(key).map(|r| r.pair.tuple())
        } else {
            self.wide.slab.get(key & !WIDE).map(|r| r.pair.tuple())
        }
    }

    /// Whether the record of a key is of this tuple.
    pub(super) fn holds(&self, key: u32, tuple: &Tuple) -> bool {
        if key & WIDE == 0 {
            tuple.is_v4() && self.narrow.slab.get(key).is_some_and(|r| r.pair == Pair4::of(tuple))
        } else {
            self.wide.slab.get(key & !WIDE).is_some_and(|r| r.pair == Pair6::of(tuple))
        }
    }

    /// Numbers of one width that have been used so far are below this one.
    pub(super) fn touched(&self, wide: bool) -> u32 {
        if wide { self.wide.slab.touched() } else { self.narrow.slab.touched() }
    }

    /// The first key from `from` on that a connection may have: one that was used before. To walk through a table in steps that
    /// each take the same time, however few connections there are.
    pub(super) fn next_slot(&self, from: u32) -> Option<u32> {
        if from & WIDE == 0 && from < self.touched(false) {
            return Some(from);
        }
        let number = if from & WIDE == 0 { 0 } else { from & !WIDE };
        (number < self.touched(true)).then_some(number | WIDE)
    }

    /// The first key from `from` on that a connection has.
    pub(super) fn next_key(&self, from: u32) -> Option<u32> {
        if from & WIDE == 0
            && let Some(key) = self.narrow.slab.next_key(from)
        {
            return Some(key);
        }
        let first = if from & WIDE == 0 { 0 } else { from & !WIDE };
        self.wide.slab.next_key(first).map(|number| number | WIDE)
    }

    /// Every key that a connection has, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = u32> + use<'_> {
        std::iter::successors(self.next_key(0), |&key| self.next_key(key + 1))
    }

    fn arm_earlier(&mut self, key: u32, ms: u64) {
        if key & WIDE == 0 {
            self.narrow.wheel.arm_earlier(key, ms);
        } else {
            self.wide.wheel.arm_earlier(key & !WIDE, ms);
        }
    }

    /// When a connection's timer comes due, in milliseconds; `None` when it is not armed.
    pub(super) fn queued(&self, key: u32) -> Option<u64> {
        if key & WIDE == 0 { self.narrow.wheel.queued(key) } else { self.wide.wheel.queued(key & !WIDE) }
    }

    /// Keys of connections that are due go to `out`, at most `budget`.
    pub(super) fn pop_due(&mut self, ms: u64, out: &mut Vec<u32>, budget: usize) {
        let first = out.len();
        // Half of the budget at most for one width, so that neither waits for the other.
        let wide = self.wide.wheel.advance(ms, budget / 2, out);
        for number in &mut out[first..] {
            *number |= WIDE;
        }
        self.narrow.wheel.advance(ms, budget - wide, out);
    }

    /// When the next timer is due, in milliseconds; in the past when a wheel is behind.
    pub(super) fn appointment_ms(&self) -> Option<u64> {
        [self.narrow.wheel.appointment_ms(), self.wide.wheel.appointment_ms()].into_iter().flatten().min()
    }
}
