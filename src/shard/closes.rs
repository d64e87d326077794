//! The last close records of a worker, and the tap through which the control plane follows them.
//!
//! ```text
//! report_close ─▶ ring of the last N ──Command::Closes, a page──▶ control
//!             └─▶ tap, while somebody listens: a bounded lock-free queue ──▶ the thread that writes and follows
//! ```
//!
//! Writing into the ring is a copy into memory of the worker's own; the queue is there only while a file is written or
//! somebody follows. A full queue loses the record and counts it: nobody waits.

use crate::tcp::record::CloseRecord;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// A record and its number, counted from the worker's start.
pub type Numbered = (u64, CloseRecord);

/// Where a worker's records go while somebody listens.
#[derive(Clone, Debug)]
pub struct CloseTap {
    /// The queue.
    pub queue: Arc<ArrayQueue<CloseRecord>>,
    /// One of so many records is passed on; at least 1.
    pub every: u32,
}

/// A page of the ring to be filled.
#[derive(Debug)]
pub struct ClosePage {
    /// Records from this number on; afterwards, where the next page begins.
    pub from: u64,
    /// Room for them: never more than was reserved.
    pub records: Vec<Numbered>,
    /// The number that the next record of the worker will have.
    pub end: u64,
}

impl ClosePage {
    /// An empty page of so many records.
    #[must_use]
    pub fn new(records: usize) -> Self {
        Self { from: 0, records: Vec::with_capacity(records), end: 0 }
    }
}

/// A worker's side.
#[derive(Debug, Default)]
pub(super) struct CloseLog {
    ring: Vec<CloseRecord>,
    keep: usize,
    /// Records so far.
    count: u64,
    tap: Option<CloseTap>,
    /// Records until the next one that is passed on.
    skip: u32,
}

impl CloseLog {
    /// Keeps the last `keep` records: memory that is taken now.
    pub(super) fn keep(&mut self, keep: usize) {
        *self = Self { ring: Vec::with_capacity(keep), keep, ..Self::default() };
    }

    /// Passes records on from now on, or not any more.
    pub(super) fn tap(&mut self, tap: Option<CloseTap>) {
        self.tap = tap;
        self.skip = 0;
    }

    /// Takes a record. Returns whether one was lost because the queue was full.
    pub(super) fn push(&mut self, record: &CloseRecord) -> bool {
        if self.ring.len() < self.keep {
            self.ring.push(record.clone());
        } else if self.keep > 0 {
            self.ring[(self.count % self.keep as u64) as usize] = record.clone();
        }
        self.count += 1;
        let Some(tap) = &self.tap else { return false };
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.skip = tap.every.saturating_sub(1);
        tap.queue.push(record.clone()).is_err()
    }

    /// Fills a page with what is still there of it.
    pub(super) fn fill(&self, page: &mut ClosePage) {
        page.records.clear();
        page.end = self.count;
        let oldest = self.count - self.ring.len() as u64;
        let mut at = page.from.max(oldest);
        while at < self.count && page.records.len() < page.records.capacity() {
            page.records.push((at, self.ring[(at % self.keep as u64) as usize].clone()));
            at += 1;
        }
        page.from = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::record::{Cause, ClosePath, ClosingTimes, First};
    use crate::time::Time;
    use crate::wire::{Addr, Endpoint, Tuple};

    fn record(port: u16) -> CloseRecord {
        let end = |port| Endpoint::new(Addr::v4([192, 0, 2, 1]), port);
        CloseRecord {
            tuple: Tuple { local: end(80), remote: end(port) },
            listener: Some(0),
            opened_at: Time::ZERO,
            closed_at: Time::ZERO,
            path: ClosePath::Passive,
            first: First::Peer,
            cause: Cause::Peer,
            fin_retransmissions: 0,
            times: ClosingTimes::default(),
            unacknowledged: 0,
            bytes_in: 0,
            bytes_out: 0,
            time_wait: false,
        }
    }

    fn ports(page: &ClosePage) -> Vec<u16> {
        page.records.iter().map(|(_, r)| r.tuple.remote.port).collect()
    }

    #[test]
    fn the_last_records_are_given_out_page_by_page_oldest_first() {
        let mut log = CloseLog::default();
        log.keep(4);
        for port in 1..=10 {
            assert!(!log.push(&record(port)));
        }
        let mut page = ClosePage::new(3);
        log.fill(&mut page);
        assert_eq!((ports(&page), page.from, page.end), (vec![7, 8, 9], 9, 10));
        log.push(&record(11));
        log.fill(&mut page);
        assert_eq!((ports(&page), page.from, page.end), (vec![10, 11], 11, 11));
        log.fill(&mut page);
        assert!(page.records.is_empty());
    }

    #[test]
    fn a_tap_gets_every_nth_record_and_what_does_not_fit_is_lost_and_said() {
        let mut log = CloseLog::default();
        log.keep(0);
        let queue = Arc::new(ArrayQueue::new(2));
        log.tap(Some(CloseTap { queue: Arc::clone(&queue), every: 3 }));
        let lost: Vec<bool> = (0..9).map(|port| log.push(&record(port))).collect();
        assert_eq!(lost.iter().filter(|l| **l).count(), 1);
        assert!(lost[6]);
        let got: Vec<u16> = std::iter::from_fn(|| queue.pop()).map(|r| r.tuple.remote.port).collect();
        assert_eq!(got, [0, 3]);
        log.tap(None);
        assert!(!log.push(&record(9)) && queue.is_empty());
    }
}
