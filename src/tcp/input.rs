//! What a segment does to a connection: RFC 9293 §3.10.7.3 (`SYN_SENT`) and §3.10.7.4 (all later states), with
//! RFC 5961's rules against forgeries and RFC 7323's timestamps.
//!
//! A segment passes the checks in the RFC's order; each either ends it with a [`DropReason`] (and perhaps an ACK that
//! is owed), or lets it through to the next. What remains is a [`Delivery`]: in-order bytes for the service, which the
//! caller hands over and reports back by [`Live::received`] before it asks for the FIN by [`Live::take_fin`].

use super::conn::{ConnFlags, Env, Live};
use super::record::{Cause, First};
use super::recovery::AckNews;
use super::recvbuf::Refused;
use super::state::{Event, State};
use crate::drop::DropReason;
use crate::time::Time;
use crate::wire::{Header, SeqNum};
use std::ops::Range;
use std::time::Duration;

/// After this long without a newer timestamp, the stored one says nothing any more (RFC 7323 §5.5: 24 days).
const TS_RECENT_VALID: Duration = Duration::from_secs(24 * 24 * 3600);
/// An echo of an older timestamp, in milliseconds, says nothing of the round trip: the longest RTO.
const OLDEST_ECHO_MS: u32 = 60_000;

/// Answers to duplicates that a connection sends in a second. All that are sent while nothing new arrives say the same, and
/// one is enough. Higher: more is reflected of a flood of old segments; lower: where many are lost, the peer hears late.
pub(super) const DUPLICATE_ACKS: u8 = 100;

/// What became of a segment.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It was good.
    Accepted(Delivery),
    /// It was not used; an answer, if one is due, is already owed by the connection.
    Dropped(DropReason),
    /// It must be answered by a RST with this sequence number; the connection stays (§3.10.7.3, first; §3.10.7.4).
    Reset(SeqNum),
    /// It ended the connection.
    Ended,
}

/// What an accepted segment brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes of the payload that are next in order; empty for none.
    pub in_order: Range<usize>,
    /// Send space was freed, or our FIN acknowledged.
    pub acknowledged: bool,
    /// Why some or all of the payload was not kept, if so.
    pub lost: Option<DropReason>,
}

/// The outcome of one check: go on, or stop with a verdict.
type Check = Result<(), Verdict>;

impl Live<'_> {
    /// Processes a segment. `payload` is the segment's text.
    pub fn on_segment(&mut self, env: &mut Env<'_>, h: &Header, payload: &[u8]) -> Verdict {
        let verdict = match self.state() {
            State::SynSent => self.in_syn_sent(env, h, payload),
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => self.in_synchronized(env, h, payload),
            State::TimeWait => self.in_time_wait(env, h, payload.len()),
            State::Closed | State::Listen => Err(Verdict::Dropped(DropReason::NoConnection)),
        };
        match verdict {
            Ok(delivery) => Verdict::Accepted(delivery),
            Err(v) => v,
        }
    }

    fn in_syn_sent(&mut self, env: &mut Env<'_>, h: &Header, payload: &[u8]) -> Result<Delivery, Verdict> {
        let acceptable = h.flags.ack() && h.ack.after(self.snd_una) && h.ack.at_or_before(self.snd_max);
        if h.flags.ack() && !acceptable {
            return Err(if h.flags.rst() {
                Verdict::Dropped(DropReason::BadReset)
            } else {
                Verdict::Reset(h.ack)
            });
        }
        if h.flags.rst() {
            if !acceptable {
                return Err(Verdict::Dropped(DropReason::BadReset));
            }
            self.take_reset(env);
            return Err(Verdict::Ended);
        }
        if !h.flags.syn() {
            if h.flags.fin() {
                self.event(Event::Fin, env);
            }
            return Err(Verdict::Dropped(DropReason::NoConnection));
        }
        self.conn.last_rx.set(env.now);
        self.take_syn(env, h);
        self.take_ecn_answer(h);
        if !acceptable {
            // Simultaneous open (§3.5, figure 7): our SYN goes again, with the ACK of theirs.
            self.event(Event::Syn, env);
            self.flight.snd_nxt = self.snd_una;
            self.flags.set(ConnFlags::SEND_SYN);
            return Ok(Delivery::default());
        }
        self.snd_una = h.ack;
        self.handshake_acknowledged(env, h);
        self.snd_wnd = u32::from(h.window);
        self.max_snd_wnd = self.snd_wnd;
        self.event(Event::SynAck, env);
        self.tries = 0;
        self.conn.opened_at.set(env.now);
        self.flags.set(ConnFlags::ACK_NOW);
        let mut d = self.take_text(env, h, self.rcv_nxt, payload);
        d.acknowledged = true;
        Ok(d)
    }

    /// The peer's SYN: where its sequence space begins, and its options.
    fn take_syn(&mut self, env: &mut Env<'_>, h: &Header) {
        self.rcv_nxt = h.seq + 1;
        self.flight.last_ack_sent = self.rcv_nxt;
        self.snd_wl1 = h.seq;
        self.snd_wl2 = h.ack;
        self.set_peer_options(h.options.mss, h.options.window_scale, env);
        self.rcv_adv = self.rcv_nxt + u32::from(env.cfg.syn_window(self.service));
        if h.options.sack_permitted {
            self.flags.set(ConnFlags::SACK);
        }
        if let Some(ts) = h.options.timestamps {
            self.flags.set(ConnFlags::TIMESTAMPS);
            self.ts_recent = ts.val;
            self.conn.ts_recent_at.set(env.now);
        }
    }

    /// Our SYN is acknowledged: the first round trip is known, if it can be told which SYN was answered.
    fn handshake_acknowledged(&mut self, env: &Env<'_>, h: &Header) {
        // A SYN that was sent again gives no sample, not even by its echo: that may span the peer's own wait.
        let timed = self.flags.has(ConnFlags::TIMING) && self.time_round_trip(env.now, h);
        // By cookie nothing is known to be lost: the initial RTO stays.
        let known = timed || self.flags.has(ConnFlags::COOKIE);
        self.rtt.handshake_done(known);
        self.conn.rtx_at.set(Time::NEVER);
        self.conn.progress_at.set(env.now);
    }

    fn in_synchronized(
        &mut self,
        env: &mut Env<'_>,
        h: &Header,
        payload: &[u8],
    ) -> Result<Delivery, Verdict> {
        let crossed = self.check_crossed_syn(env, h)?;
        if !crossed {
            self.check_timestamp(env, h, payload.len())?;
            self.check_sequence(env, h, payload.len())?;
            self.check_reset(env, h)?;
            self.check_syn(env, h)?;
        }
        if !h.flags.ack() {
            return Err(Verdict::Dropped(DropReason::NoAck));
        }
        self.conn.last_rx.set(env.now);
        if self.state() != State::SynReceived {
            self.tries = 0;
        }
        let acknowledged = self.check_ack(env, h, payload.len())?;
        // Only now: whoever cannot name an acceptable ACK must not move TS.Recent, or PAWS would shut the peer out.
        self.remember_timestamp(env.now, h);
        if self.state() == State::Closed {
            return Err(Verdict::Ended);
        }
        self.check_unwanted(env, h, payload.len())?;
        let text_at = if crossed { self.rcv_nxt } else { h.seq };
        let mut delivery = self.take_text(env, h, text_at, payload);
        delivery.acknowledged = acknowledged;
        Ok(delivery)
    }

    /// After a simultaneous open the peer's SYN comes again: alone, and our SYN-ACK is sent again; or as its SYN-ACK,
    /// which completes the handshake (§3.5, figure 8) although it begins before the window. Returns whether it is that.
    fn check_crossed_syn(&mut self, env: &mut Env<'_>, h: &Header) -> Result<bool, Verdict> {
        let same_syn = h.flags.syn() && h.seq + 1 == self.rcv_nxt;
        if self.state() != State::SynReceived || !same_syn {
            return Ok(false);
        }
        if h.flags.ack() {
            self.flags.set(ConnFlags::ACK_NOW);
            return Ok(true);
        }
        self.event(Event::Syn, env);
        self.flight.snd_nxt = self.snd_una;
        self.flags.set(ConnFlags::SEND_SYN);
        Err(Verdict::Dropped(DropReason::SynInWindow))
    }

    /// PAWS (RFC 7323 §5.3 R1) and the rule that timestamps, once negotiated, are on every segment (§3.2). A SYN is
    /// let through to its challenge: it may come from a peer that lost this connection and knows no timestamp of it.
    fn check_timestamp(&mut self, env: &Env<'_>, h: &Header, payload: usize) -> Check {
        if !self.flags.has(ConnFlags::TIMESTAMPS) || h.flags.rst() || h.flags.syn() {
            return Ok(());
        }
        let Some(ts) = h.options.timestamps else { return Err(Verdict::Dropped(DropReason::Paws)) };
        let older = ts.val.wrapping_sub(self.ts_recent).cast_signed() < 0;
        if older && env.now.since(self.ts_recent_at.get()) < TS_RECENT_VALID {
            self.answer_unacceptable(env, h, h.seg_len(payload));
            return Err(Verdict::Dropped(DropReason::Paws));
        }
        Ok(())
    }

    /// Owes the ACK that an unacceptable segment of this length is answered with, within a budget: two confused ends would
    /// ACK each other for ever, and whoever forges a source would have its segments turned on the peer (RFC 5961 §7).
    ///
    /// What lies within a window's reach left of `rcv_nxt` and carries something may be a retransmission whose ACK was
    /// lost. It has a budget of its own, so that nobody who does not know where the stream stands can use up the answers
    /// that the peer needs.
    fn answer_unacceptable(&mut self, env: &Env<'_>, h: &Header, len: u32) {
        let reach = self.rcv_space.max(u32::from(u16::MAX));
        let end = h.seq + len;
        let was_ours = h.seq.at_or_after(self.rcv_nxt - reach) && end.at_or_before(self.rcv_nxt);
        if len == 0 || h.flags.syn() || !was_ours {
            self.challenge(env);
            return;
        }
        self.new_second(env);
        if self.duplicates < DUPLICATE_ACKS {
            self.duplicates += 1;
            self.flags.set(ConnFlags::ACK_NOW);
        } else {
            env.log.refused_answers.update(|n| n + 1);
        }
    }

    /// `TS.Recent` moves when the segment covers what was last acknowledged (RFC 7323 §4.3), or when it had grown so
    /// old that it said nothing any more (§5.5).
    fn remember_timestamp(&mut self, now: Time, h: &Header) {
        if let Some(ts) = h.options.timestamps
            && self.flags.has(ConnFlags::TIMESTAMPS)
            && h.seq.at_or_before(self.flight.last_ack_sent)
            && (ts.val.wrapping_sub(self.ts_recent).cast_signed() >= 0
                || now.since(self.ts_recent_at.get()) >= TS_RECENT_VALID)
        {
            self.ts_recent = ts.val;
            self.conn.ts_recent_at.set(now);
        }
    }

    /// First check of §3.10.7.4: some of the segment lies in the window.
    fn check_sequence(&mut self, env: &mut Env<'_>, h: &Header, payload: usize) -> Check {
        let len = h.seg_len(payload);
        let wnd = self.rcv_adv.bytes_since(self.rcv_nxt);
        let end = h.seq + len;
        let acceptable = if len == 0 {
            // A sender that has filled the window sends its ACKs from the edge: one past what the RFC's table takes.
            // With a gap in what it sent they would otherwise be lost to us; a RST there stays out.
            let edge = if h.flags.rst() { self.rcv_adv } else { self.rcv_adv + 1 };
            h.seq == self.rcv_nxt || (h.seq.after(self.rcv_nxt) && h.seq.before(edge))
        } else if wnd == 0 {
            // Nothing fits, but the ACK counts, and a FIN needs no buffer (§3.10.7.4: special allowance).
            h.seq == self.rcv_nxt
        } else {
            h.seq.before(self.rcv_adv) && end.after(self.rcv_nxt)
        };
        if acceptable {
            return Ok(());
        }
        if !h.flags.rst() {
            if h.flags.fin() && end == self.rcv_nxt && !self.state().can_receive() {
                // The peer's FIN again: it has not heard our ACK.
                self.event(Event::Fin, env);
            }
            self.note_twice(h.seq, end.min(self.rcv_nxt));
            self.answer_unacceptable(env, h, len);
        }
        Err(Verdict::Dropped(if h.flags.rst() { DropReason::BadReset } else { DropReason::OutOfWindow }))
    }

    /// RFC 5961 §3.2: a RST counts only at exactly `rcv_nxt`.
    fn check_reset(&mut self, env: &mut Env<'_>, h: &Header) -> Check {
        if !h.flags.rst() {
            return Ok(());
        }
        if h.seq == self.rcv_nxt {
            self.take_reset(env);
            return Err(Verdict::Ended);
        }
        self.challenge(env);
        Err(Verdict::Dropped(DropReason::BadReset))
    }

    /// RFC 5961 §4.2: a SYN never ends a synchronized connection; it is answered with where we are.
    fn check_syn(&mut self, env: &mut Env<'_>, h: &Header) -> Check {
        if !h.flags.syn() {
            return Ok(());
        }
        self.event(Event::Syn, env);
        self.challenge(env);
        Err(Verdict::Dropped(DropReason::SynInWindow))
    }

    /// Owes an ACK within this connection's budget for the second (RFC 5961 §7, CVE-2016-5696: the budget is the
    /// connection's own, so nobody else can read it).
    pub(super) fn challenge(&mut self, env: &Env<'_>) {
        self.new_second(env);
        if self.challenges < env.cfg.challenge_acks {
            self.challenges += 1;
            self.flags.set(ConnFlags::ACK_NOW | ConnFlags::CHALLENGE);
        } else {
            env.log.refused_answers.update(|n| n + 1);
        }
    }

    /// Budgets are for whole seconds.
    fn new_second(&mut self, env: &Env<'_>) {
        let second = (env.now.millis() / 1000) as u16;
        if self.challenge_second != second {
            self.challenge_second = second;
            self.challenges = 0;
            self.duplicates = 0;
        }
    }

    /// Fifth check of §3.10.7.4. Returns whether something new was acknowledged.
    fn check_ack(&mut self, env: &mut Env<'_>, h: &Header, payload: usize) -> Result<bool, Verdict> {
        if self.state() == State::SynReceived {
            if !(h.ack.after(self.snd_una) && h.ack.at_or_before(self.snd_max)) {
                return Err(Verdict::Reset(h.ack));
            }
            self.event(Event::AckOfSyn, env);
            self.tries = 0;
            let handshake = env.now.since(self.opened_at.get()).as_micros();
            self.flight.handshake_us = u32::try_from(handshake).unwrap_or(u32::MAX);
            self.conn.opened_at.set(env.now);
            self.snd_una += 1;
            self.flight.snd_nxt = self.flight.snd_nxt.max(self.snd_una);
            self.handshake_acknowledged(env, h);
            self.snd_wl1 = h.seq;
            self.snd_wl2 = h.ack;
            self.snd_wnd = self.segment_window(h);
            self.max_snd_wnd = self.max_snd_wnd.max(self.snd_wnd);
            if h.ack == self.snd_una {
                return Ok(true);
            }
        }
        // RFC 5961 §5.2, and §3.10.7.4 for an ACK of what was never sent.
        let oldest = self.snd_una - self.max_snd_wnd;
        if h.ack.after(self.snd_max) || h.ack.before(oldest) {
            self.challenge(env);
            return Err(Verdict::Dropped(DropReason::BadAck));
        }
        let bare = payload == 0 && !h.flags.fin() && self.segment_window(h) == self.snd_wnd;
        let duplicate = bare && h.ack == self.snd_una && self.in_flight() > 0;
        self.update_send_window(env.now, h);
        if h.ack.before(self.snd_una) {
            return Ok(false);
        }
        let echoes = self.echoes(h);
        let news = AckNews {
            acked: h.ack - self.snd_una,
            noted: self.flight.scoreboard.bytes(),
            duplicate,
            bare,
            // Nor does the window grow by what echoes a mark (RFC 3168 §6.1.2).
            limited: self.window_limited() && !echoes,
        };
        let flight = self.in_flight();
        if news.acked > 0 {
            self.acknowledge(env, h);
        }
        self.on_loss_news(env, h, news);
        if echoes {
            self.on_echo(h, flight);
        }
        Ok(news.acked > 0)
    }

    /// The window that a segment offers, in bytes: scaled unless it has SYN (RFC 7323 §2.2).
    fn segment_window(&self, h: &Header) -> u32 {
        u32::from(h.window) << if h.flags.syn() { 0 } else { self.scales.snd() }
    }

    /// Takes the window of a segment that is not older than the one it was last taken from (RFC 9293 §3.10.7.4). One that
    /// acknowledges something new is not, even if its own bytes are sent again and lie below: the window it closes would
    /// be overrun.
    fn update_send_window(&mut self, now: Time, h: &Header) {
        let newer = h.ack.after(self.snd_una)
            || self.snd_wl1.before(h.seq)
            || (self.snd_wl1 == h.seq && self.snd_wl2.at_or_before(h.ack));
        if h.ack.at_or_after(self.snd_una) && newer {
            let was = self.snd_wnd;
            self.snd_wnd = self.segment_window(h);
            self.max_snd_wnd = self.max_snd_wnd.max(self.snd_wnd);
            self.snd_wl1 = h.seq;
            self.snd_wl2 = h.ack;
            if was == 0 && self.snd_wnd > 0 && self.in_flight() == 0 {
                // The persist timer has done its work. What waits is waited for anew, but it is the same wait: a window that
                // opens by a byte and closes again does not make it a new one.
                self.rtt.window_opened();
                self.conn.rtx_at.set(if self.flight.sndbuf.is_empty() {
                    Time::NEVER
                } else {
                    now + self.rtt.rto()
                });
            }
        }
    }

    /// New data, or our FIN, is acknowledged.
    fn acknowledge(&mut self, env: &mut Env<'_>, h: &Header) {
        let acked = h.ack - self.snd_una;
        let data = acked.min(self.flight.sndbuf.len() as u32);
        let fin = acked > data && !self.flags.has(ConnFlags::FIN_ACKED);
        self.flight.sndbuf.ack(env.pool, data as usize);
        self.conn.bytes_out.add(u64::from(data));
        self.time_round_trip(env.now, h);
        self.rtt.progressed();
        self.snd_una = h.ack;
        self.flight.snd_nxt = self.flight.snd_nxt.max(h.ack);
        self.flight.scoreboard.ack(env.pool, h.ack);
        self.conn.progress_at.set(env.now);
        self.conn.rtx_at.set(if self.in_flight() == 0 { Time::NEVER } else { env.now + self.rtt.rto() });
        if fin {
            self.flags.set(ConnFlags::FIN_ACKED);
            if !(self.state() == State::LastAck && self.held_by_reader()) {
                self.event(Event::AckOfFin, env);
            }
        }
    }

    /// Takes a round-trip sample if it is clear what was answered: the timed segment (which was never sent again: Karn),
    /// or by its echoed timestamp (RFC 7323 §4) the latest retransmission itself. An older echo after one
    /// retransmission is taken too, or a path whose round trip grew beyond the timeout would never be learnt; after
    /// several it would more likely measure lost ACKs. Returns whether there was a sample.
    fn time_round_trip(&mut self, now: Time, h: &Header) -> bool {
        if self.flags.has(ConnFlags::TIMING) {
            if h.ack.after(self.timed_seq) {
                self.flags.clear(ConnFlags::TIMING);
                let took = (now.micros() as u32).wrapping_sub(self.timed_us);
                // When ACKs were lost, or a hole before it was filled late, it took less than this; the echo is of a segment
                // that was sent since, and a bound (in whole milliseconds).
                let bound = self.ms_since_echo(now, h).map_or(took, |ms| (ms + 1) * 1000);
                self.rtt.sample_micros(u64::from(took.min(bound)), now);
                return true;
            }
            return false;
        }
        let Some(ts) = h.options.timestamps.filter(|_| self.flags.has(ConnFlags::TIMESTAMPS)) else {
            return false;
        };
        let of_retransmission = ts.ecr.wrapping_sub(self.flight.rtx_ts).cast_signed() >= 0;
        // Until there is one, the RTO is seconds long.
        let needed = self.rtt.backed_off() || self.rtt.srtt().is_zero();
        let Some(took) = self.since_echo(now, h).filter(|_| needed && of_retransmission) else {
            return false;
        };
        self.rtt.sample(took.max(Duration::from_millis(1)), now);
        true
    }

    /// Time since the segment was sent whose timestamp an ACK echoes (RFC 7323 §4), if it echoes one that we can have sent
    /// lately.
    pub(super) fn since_echo(&self, now: Time, h: &Header) -> Option<Duration> {
        self.ms_since_echo(now, h).map(|ms| Duration::from_millis(u64::from(ms)))
    }

    /// As [`since_echo`](Self::since_echo), in milliseconds; less than [`OLDEST_ECHO_MS`].
    fn ms_since_echo(&self, now: Time, h: &Header) -> Option<u32> {
        let ts = h.options.timestamps.filter(|_| self.flags.has(ConnFlags::TIMESTAMPS))?;
        let ms = self.ts_val(now).wrapping_sub(ts.ecr);
        (ms < OLDEST_ECHO_MS).then_some(ms)
    }

    /// Data for a service that has closed for good is answered by RST (§3.6.1, RFC 2525 §2.17), unless it lingers.
    fn check_unwanted(&mut self, env: &mut Env<'_>, h: &Header, payload: usize) -> Check {
        let fresh = payload > 0 && (h.seq + payload as u32).after(self.rcv_nxt);
        let wanted = !self.flags.has(ConnFlags::READ_CLOSED) || self.flags.has(ConnFlags::LINGER);
        if !fresh || wanted || !self.state().can_receive() {
            return Ok(());
        }
        self.reset(env, Cause::DataAfterClose);
        Err(Verdict::Ended)
    }

    /// Seventh and eighth check of §3.10.7.4: the text, and the FIN's place. `seq` is where `payload` begins.
    fn take_text(&mut self, env: &mut Env<'_>, h: &Header, seq: SeqNum, payload: &[u8]) -> Delivery {
        let mut d = Delivery::default();
        if !self.state().can_receive() {
            if h.seg_len(payload.len()) > 0 {
                self.flags.set(ConnFlags::ACK_NOW);
                d.lost = Some(DropReason::AfterFin);
            }
            return d;
        }
        let edge = match self.peer_fin() {
            Some(fin) => fin.min(self.rcv_adv),
            None => self.rcv_adv,
        };
        let text_end = seq + payload.len() as u32;
        if h.flags.fin()
            && self.peer_fin().is_none()
            && (text_end.before(self.rcv_adv) || text_end == self.rcv_nxt)
        {
            self.peer_fin_at = text_end;
            self.flags.set(ConnFlags::FIN_SEEN);
            self.drop_beyond_fin(env, text_end);
        }
        if payload.is_empty() {
            if h.flags.fin() && text_end != self.rcv_nxt {
                self.flags.set(ConnFlags::ACK_NOW);
            }
            return d;
        }
        let start = seq.max(self.rcv_nxt);
        let end = text_end.min(edge);
        self.note_twice(seq, start.min(end));
        if !end.after(start) {
            self.flags.set(ConnFlags::ACK_NOW);
            d.lost = Some(if text_end.after(edge) && self.peer_fin().is_some_and(|f| f == edge) {
                DropReason::AfterFin
            } else {
                DropReason::OutOfWindow
            });
            return d;
        }
        if text_end.after(end) || (h.flags.fin() && self.peer_fin().is_none()) {
            // Cut at the window's edge, bytes or the FIN, or bytes beyond the FIN: the peer hears how far it was taken.
            self.flags.set(ConnFlags::ACK_NOW);
        }
        if matches!(self.state(), State::FinWait1 | State::FinWait2) {
            self.flags.set(ConnFlags::HALF_CLOSE);
        }
        // In order up to what is held beyond the gap: of bytes that came twice the first copy is taken.
        let held_from = self.flight.rcvbuf.ranges(env.pool).next().map_or(end, |(first, _)| first);
        let in_order_to = if start == self.rcv_nxt { end.min(held_from) } else { start };
        if end.after(in_order_to) {
            let beyond = &payload[(in_order_to - seq) as usize..(end - seq) as usize];
            self.keep_out_of_order(env, in_order_to, beyond, &mut d);
        }
        d.in_order = (start - seq) as usize..(in_order_to - seq) as usize;
        d
    }

    /// What is held out of order beyond a FIN would carry `rcv_nxt` past it, and the FIN would never be taken. The
    /// peer contradicts itself; what it has not had acknowledged may be dropped (RFC 2018 §8).
    fn drop_beyond_fin(&mut self, env: &mut Env<'_>, fin: SeqNum) {
        if self.flight.rcvbuf.ranges(env.pool).any(|(_, end)| end.after(fin)) {
            self.flight.rcvbuf.discard_ooo(env.pool);
        }
    }

    /// `[first, end)` came once more: the next ACK says so (RFC 2883 §4), and so lets the peer tell a loss from a delay.
    fn note_twice(&mut self, first: SeqNum, end: SeqNum) {
        if end.after(first) && self.flags.has(ConnFlags::SACK) {
            self.flight.twice = (first, end);
        }
    }

    fn keep_out_of_order(&mut self, env: &mut Env<'_>, seq: SeqNum, bytes: &[u8], d: &mut Delivery) {
        // At once, so that the sender counts duplicates (RFC 5681 §4.2).
        self.flags.set(ConnFlags::ACK_NOW);
        if self.flight.rcvbuf.memory_ooo() >= self.ooo_limit(env) {
            d.lost = Some(DropReason::NoChunk);
            return;
        }
        self.flight.sack_latest = seq;
        let held = |r: &(SeqNum, SeqNum)| r.0.at_or_before(seq) && seq.before(r.1);
        if let Some((_, behind)) = self.flight.rcvbuf.ranges(env.pool).find(held) {
            self.note_twice(seq, behind.min(seq + bytes.len() as u32));
        }
        match self.flight.rcvbuf.insert(env.pool, self.rcv_nxt, seq, bytes) {
            Ok(()) => {}
            Err(Refused::NoChunk) => d.lost = Some(DropReason::NoChunk),
            Err(Refused::OutOfSpan) => d.lost = Some(DropReason::OutOfWindow),
            Err(Refused::TooManyRanges) => d.lost = Some(DropReason::OutOfOrderLimit),
        }
    }

    /// The caller kept or consumed `n` in-order bytes of a delivery: `rcv_nxt` moves on, over what was received out of
    /// order too, and an ACK becomes due.
    pub fn received(&mut self, env: &mut Env<'_>, n: usize) {
        if n == 0 {
            return;
        }
        self.rcv_nxt += n as u32;
        let joined = self.flight.rcvbuf.advance(env.pool, self.rcv_nxt);
        self.rcv_nxt += joined;
        self.conn.bytes_in.add(n as u64 + u64::from(joined));
        self.right_size(env);
        self.flight.unacked_segments = self.flight.unacked_segments.saturating_add(1);
        let at_once = env.cfg.delayed_ack.is_zero();
        if at_once || joined > 0 || self.flight.unacked_segments >= 2 || self.flight.rcvbuf.buffered_ooo() > 0
        {
            self.flags.set(ConnFlags::ACK_NOW);
        } else if self.flight.ack_at == Time::NEVER {
            self.flight.ack_at = env.now + env.cfg.delayed_ack;
        }
    }

    /// The pool had no room for in-order bytes: they will come again, and the peer is told where we stand.
    pub fn refused(&mut self) {
        self.flags.set(ConnFlags::ACK_NOW);
    }

    /// Counts bytes that a lingering close discards; beyond the limit the patience ends with a RST.
    pub fn discard(&mut self, env: &mut Env<'_>, n: usize) {
        self.flight.discarded = self.flight.discarded.saturating_add(n as u32);
        if self.flight.discarded > env.cfg.limits(self.service).linger_bytes {
            self.set_first(First::Us);
            self.reset(env, Cause::LingerLimit);
        }
    }
}
