//! A connection that the worker is at work on, with everything of the worker that this work touches: it is looked up once
//! for all that one segment, or one timer, brings about.
//!
//! ```text
//!  Core::visit ─▶ hear a segment ─▶ deliver to the service ─▶ say what is due ─▶ leave: at rest on the wheel, or ended
//! ```
//!
//! What is about other connections than this one waits until the visit is over ([`Visit::leaves_errands`]).

use super::capture::CaptureTap;
use super::closes::CloseLog;
use super::listen::Listeners;
use super::trace::{Happening, Trace};
use super::{Core, Drain, capture};
use crate::metrics::block::Block;
use crate::service::{ConnId, Service};
use crate::tcp::conn::{ConnFlags, Env, Live};
use crate::tcp::input::Verdict;
use crate::tcp::record::CloseRecord;
use crate::wire::{SeqNum, TcpFrame, Tuple};

/// A connection at work.
pub(super) struct Visit<'a> {
    pub(super) conn: Live<'a>,
    pub(super) env: Env<'a>,
    /// What serves it.
    pub(super) service: Option<&'a mut dyn Service>,
    /// Room for unread bytes while the service looks at them.
    pub(super) scratch: &'a mut [u8],
    pub(super) id: ConnId,
    /// Connections that are to be offered their unread bytes again.
    pub(super) resumed: &'a mut Vec<u32>,
    pub(super) block: &'a mut Block,
    pub(super) ip_id: &'a mut u16,
    closes: &'a mut CloseLog,
    capture: &'a mut Option<Box<CaptureTap>>,
    listeners: &'a Listeners,
    trace: &'a mut Option<Box<Trace>>,
}

impl Core {
    /// The connection of a key, if there is one.
    #[inline]
    pub(super) fn visit(&mut self, key: u32) -> Option<Visit<'_>> {
        let conn = self.tables.conns.live(key)?;
        let service = self.services.get_mut(usize::from(conn.service)).map(|s| &mut **s as &mut dyn Service);
        Some(Visit {
            conn,
            env: Env { now: self.now, cfg: &self.cfg, pool: &mut self.pool, log: &mut self.log },
            service,
            scratch: self.scratch.as_mut_slice(),
            id: ConnId(key),
            resumed: &mut self.resumed,
            block: &mut self.block,
            ip_id: &mut self.ip_id,
            closes: &mut self.closes,
            capture: &mut self.capture,
            listeners: &self.listeners,
            trace: &mut self.trace,
        })
    }

    /// Whether connections that open are to be told at once that they are to end.
    pub(super) fn drains(&self) -> bool {
        self.drain != Drain::No
    }
}

impl Visit<'_> {
    /// A segment for the connection. Returns the sequence number of the RST that must answer it, if one must; the connection
    /// then stays as it is.
    #[inline]
    pub(super) fn hear(&mut self, seg: &TcpFrame, payload: &[u8], draining: bool) -> Option<SeqNum> {
        let traced = self.conn.flags.has(ConnFlags::TRACED);
        if traced {
            self.forget_moves();
            self.note(seg.tuple, Happening::Received { header: seg.header, len: payload.len() });
        }
        let before = self.conn.bytes();
        match self.conn.on_segment(&mut self.env, &seg.header, payload) {
            Verdict::Accepted(d) => {
                let marks = self.conn.note_marks(seg.ecn, &seg.header, payload.len());
                self.block.counters.ecn_experienced += u64::from(marks.experienced);
                self.block.counters.ecn_echoed += u64::from(marks.echoed);
                self.deliver(&d, payload, draining);
            }
            Verdict::Dropped(reason) => self.block.counters.drop_frame(reason),
            Verdict::Reset(seq) => return Some(seq),
            // The ACK that ends a connection may acknowledge its last bytes.
            Verdict::Ended => {}
        }
        self.count_bytes(before);
        if traced {
            self.trace_moves(seg.tuple);
        }
        None
    }

    /// Adds to its listener's account what a segment brought: bytes received in order, and bytes acknowledged.
    fn count_bytes(&mut self, before: [u64; 2]) {
        let after = self.conn.bytes();
        if after == before {
            return;
        }
        if let Some(l) = self.block.listeners.get_mut(usize::from(self.conn.service)) {
            l.bytes_in += after[0].saturating_sub(before[0]);
            l.bytes_out += after[1].saturating_sub(before[1]);
        }
    }

    /// The last word on a connection that has ended: its buffers go back, and counters, histogram and service hear of it.
    /// The record is to be dropped next.
    pub(super) fn end(&mut self) -> CloseRecord {
        let record = self.conn.close_record(self.env.now);
        let was_open = self.conn.flags.has(ConnFlags::TOLD_OPEN);
        let user = self.conn.user;
        self.conn.release(self.env.pool);
        if !was_open && !self.conn.is_active() {
            self.block.counters.half_open_given_up += 1;
            return record;
        }
        self.block.counters.close(&record);
        self.block.counters.operated.close_log_lost += u64::from(self.closes.push(&record));
        self.block.histograms.record_close(record.path, record.times.total());
        if let Some(l) = self.block.listeners.get_mut(usize::from(self.conn.service)) {
            l.close(&record, was_open);
        }
        if let Some(s) = &mut self.service {
            s.closed(&record.tuple, user, &record);
        }
        record
    }

    /// Shows a frame of this connection to the capture under way.
    pub(super) fn show_capture(&mut self, bytes: &[u8], tuple: &Tuple) {
        let counters = &mut self.block.counters.operated;
        capture::show(self.capture, counters, self.listeners, (bytes, Some(tuple)), self.env.now, true);
    }

    /// Whether somebody captures.
    pub(super) fn captures(&self) -> bool {
        self.capture.is_some()
    }

    /// Puts something into the trace.
    pub(super) fn note(&mut self, tuple: Tuple, what: Happening) {
        if let Some(t) = self.trace {
            t.add(self.env.now, tuple, self.conn.state(), what);
        }
    }

    /// Drops the account of moves of other connections.
    pub(super) fn forget_moves(&mut self) {
        let _ = self.env.log.take_recent();
    }

    /// Puts the moves since the last look into the trace.
    pub(super) fn trace_moves(&mut self, tuple: Tuple) {
        if let Some(t) = self.trace {
            for m in self.env.log.take_recent() {
                t.add(self.env.now, tuple, m.to, Happening::Moved(m));
            }
        }
    }
}
