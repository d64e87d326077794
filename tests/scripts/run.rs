//! The runner: one script against one shard, in virtual time.
//!
//! ```text
//!  script ─▶ `<`: frame ─▶ simulated link ─▶ Shard::turn ─▶ link ─▶ frames ─▶ compared with `>`
//!         └▶ calls: Shard::act, Shard::offer_unread, Shard::connect
//! ```

use super::frames::{self, Bases, OUR_MAC, PEER_MAC, pattern, script, wire};
use super::service::{Memory, Scripted};
use super::settings::{Setup, setup};
use super::syntax::{Call, Opt, Script, Seg, Step, What, When};
use finwheel::drop::DropReason;
use finwheel::port::Port;
use finwheel::port::mem::{Direction, LinkConfig, LinkHandle, MemPort, link};
use finwheel::service::Context;
use finwheel::shard::mailbox::{Command, Handle, mailboxes, no_wake};
use finwheel::shard::{Capacity, Listener, Parts, Shard};
use finwheel::tcp::conn::ActiveOpen;
use finwheel::tcp::isn::Secret;
use finwheel::tcp::record::{Cause, ClosePath, CloseRecord};
use finwheel::tcp::state::State;
use finwheel::time::Time;
use finwheel::wire::{self as w, Addr, Checksums, Endpoint, L2, Parsed, Tuple, Vlan};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// Script time 0. Not zero, as no real clock is.
const START: Time = Time::from_micros(5_000_000);
/// How far from its time a segment may be sent: the timers tick in milliseconds and are never early.
const TOLERANCE: Duration = Duration::from_millis(1);
/// How far a timestamp may be from the script's: packetdrill's own clock is no better.
const TS_TOLERANCE: u32 = 2;
/// Number 0 of the peer: its first kilobyte wraps.
const PEER_BASE: u32 = u32::MAX - 600;
/// Timestamp 0 of the peer; it wraps within a second.
const PEER_TS: u32 = u32::MAX - 500;
/// Turns at one moment, and moments between two lines, after which the shard is said to spin.
const MAX_TURNS: usize = 1000;

/// A segment that the shard sent.
struct Sent {
    at: Time,
    seg: Seg,
    raw_seq: u32,
    raw_ack: u32,
    options: Vec<u8>,
    payload: Vec<u8>,
    vlan: Option<Vlan>,
}

struct Runner {
    shard: Shard<MemPort>,
    mailbox: Handle,
    wire: MemPort,
    link: LinkHandle,
    memory: Rc<RefCell<Memory>>,
    tuple: Tuple,
    bases: Bases,
    /// The next SYN of the shard begins a sequence space of its own.
    fresh: bool,
    /// One past the highest number of the sequence space before.
    old_end: u32,
    now: Time,
    /// What relative times count from.
    base: Time,
    sent: VecDeque<Sent>,
    last_vlan: Option<Vlan>,
    abort_on_close: bool,
}

/// Runs a script over IPv4 or IPv6.
///
/// # Errors
/// `line: what was expected and what was got`.
pub fn run(parsed: &Script, v6: bool) -> Result<(), String> {
    let setup = setup(parsed, v6)?;
    if setup.only_v6.is_some_and(|only| only != v6) {
        return Ok(());
    }
    let mut r = Runner::new(parsed, setup, v6);
    for step in &parsed.steps {
        r.step(step).map_err(|e| format!("{}: {e}", step.line))?;
    }
    let last = parsed.steps.last().map_or(0, |s| s.line);
    r.nothing_sent().map_err(|e| format!("{last}: at the end, {e}"))
}

impl Runner {
    fn new(parsed: &Script, setup: Setup, v6: bool) -> Self {
        let config = LinkConfig { mtu: setup.tcp.mtu, frames: 1024, fill: 512, ..LinkConfig::default() };
        let (wire, port, link) = link(config);
        link.advance(START);
        let memory = Rc::new(RefCell::new(Memory { quota: setup.quota, first: 1, ..Memory::default() }));
        let calls =
            |name: &str| parsed.steps.iter().any(|s| matches!(&s.what, What::Call(c) if c.name == name));
        let active = calls("connect");
        let (local_port, remote_port) = if active { (50_000, 8080) } else { (8080, 40_000) };
        let local = Endpoint::new(address(v6, 1), local_port);
        let listener =
            || Listener { endpoints: vec![local], service: Box::new(Scripted(Rc::clone(&memory))) };
        let (mail, mailbox) = mailboxes(&[no_wake()]).swap_remove(0);
        let shard = Shard::new(Parts {
            port,
            tcp: setup.tcp,
            capacity: Capacity { connections: 4, half_open: setup.half_open, time_wait: 4, chunks: 1024 },
            listeners: if calls("listen") { vec![listener()] } else { Vec::new() },
            client: Some(Box::new(Scripted(Rc::clone(&memory)))),
            secret: Secret::new(1, 2),
            index_key: (3, 4),
            mailbox: mail,
            now: START,
        });
        Self {
            shard,
            mailbox,
            wire,
            link,
            memory,
            tuple: Tuple { local, remote: Endpoint::new(address(v6, 9), remote_port) },
            bases: Bases { peer: PEER_BASE, ours: None, peer_ts: PEER_TS, our_ts: None },
            fresh: true,
            old_end: 0,
            now: START,
            base: START,
            sent: VecDeque::new(),
            last_vlan: None,
            abort_on_close: false,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let us = Duration::from_micros;
        let (at, until) = match step.when {
            When::After(from, to) => (self.base + us(from), self.base + us(to)),
            When::At(t) => (START + us(t), START + us(t)),
            When::Aside(Some(t)) => (self.base + us(t), self.base + us(t)),
            When::Aside(None) => (self.now, self.now),
        };
        if at < self.now && !matches!(step.what, What::Out(_)) {
            return Err(format!("{} is in the past: it is {}", seconds(at), seconds(self.now)));
        }
        if !matches!(step.when, When::Aside(_)) {
            self.base = at;
        }
        if let What::Out(want) = &step.what {
            return self.expect(want, at, until);
        }
        let waited = at > self.now;
        self.run_to(at)?;
        if waited || !matches!(step.what, What::Assert(_)) {
            self.nothing_sent()?;
        }
        match &step.what {
            What::In(seg) => self.send(seg, ""),
            What::Inject(how, seg) => self.send(seg, how),
            What::Call(call) => self.call(call),
            What::Assert(words) => self.assert(words),
            What::Do(what) => self.perform(what),
            What::Out(_) => Ok(()),
        }
    }

    // Time and frames.

    fn run_to(&mut self, at: Time) -> Result<(), String> {
        let mut steps = 0;
        while self.now < at {
            steps += 1;
            if steps > MAX_TURNS {
                return Err(format!("a timer is due again and again until {}", seconds(self.now)));
            }
            let next = self.rest()?;
            self.now = next.max(self.now + Duration::from_micros(1)).min(at);
        }
        self.rest().map(|_| ())
    }

    /// Turns until there is nothing to do now. Gives when the next timer is due.
    fn rest(&mut self) -> Result<Time, String> {
        for _ in 0..MAX_TURNS {
            self.link.advance(self.now);
            let turn = self.shard.turn(self.now).map_err(|e| e.to_string())?;
            let got = self.collect()?;
            if !turn.worked && got == 0 {
                return self.sound().map(|()| turn.next);
            }
        }
        Err("the shard has work without end".into())
    }

    /// What holds at any rest: no frame is lost, and the gauges are the tables.
    fn sound(&mut self) -> Result<(), String> {
        let a = self.shard.port().accounting();
        let listening = self.shard.population()[State::Listen as usize];
        let live = self.shard.population().iter().sum::<u64>() - listening;
        if !a.balanced() || a.lent != 0 {
            return Err(format!("a frame is lost: {a:?}"));
        }
        if live != self.shard.records() as u64 {
            return Err(format!("the gauges say {live} and there are {} records", self.shard.records()));
        }
        if self.memory.borrow().wrong {
            return Err("the service was given other bytes than the peer sent".into());
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<usize, String> {
        self.link.advance(self.now);
        let mut frames = Vec::new();
        let n = self.wire.rx(&mut frames);
        for f in frames {
            let bytes = self.wire.bytes(&f).to_vec();
            self.wire.free(f);
            let parsed = w::parse(&bytes, Checksums::Verify);
            let Ok(Parsed::Tcp(s)) = parsed else { return Err(format!("the shard sent {parsed:?}")) };
            if s.tuple != self.tuple.flipped() || s.l2.dst != PEER_MAC || s.l2.src != OUR_MAC {
                return Err(format!("a segment to somebody else: {:?} {:?}", s.tuple, s.l2));
            }
            let (start, end) = (usize::from(s.payload.start), usize::from(s.payload.end));
            let header =
                14 + s.l2.vlan.map_or(0, |v| 4 * v.count()) + if s.tuple.is_v4() { 20 } else { 40 } + 20;
            let seg = Seg {
                ecn: s.ecn,
                flags: s.header.flags.bits(),
                seq: 0,
                len: (end - start) as u16,
                ack: None,
                win: Some(s.header.window),
                options: None,
            };
            self.sent.push_back(Sent {
                at: self.now,
                seg,
                raw_seq: s.header.seq.raw(),
                raw_ack: s.header.ack.raw(),
                options: bytes[header..start].to_vec(),
                payload: bytes[start..end].to_vec(),
                vlan: s.l2.vlan,
            });
        }
        self.wire.flush().map_err(|e| e.to_string())?;
        Ok(n)
    }

    fn nothing_sent(&self) -> Result<(), String> {
        match self.sent.front() {
            None => Ok(()),
            Some(s) => Err(format!("expected nothing more\n   got {}", self.show(s))),
        }
    }

    fn show(&self, s: &Sent) -> String {
        match self.read(s) {
            Ok(seg) => format!("{} > {seg}", seconds(s.at)),
            Err(e) => format!("{} > {:?} with {e}", seconds(s.at), s.seg),
        }
    }

    /// A sent segment in the script's numbers.
    fn read(&self, s: &Sent) -> Result<Seg, String> {
        Ok(Seg {
            seq: script(self.bases.ours.unwrap_or(0), s.raw_seq),
            ack: (s.seg.flags & 0x10 != 0).then(|| script(self.bases.peer, s.raw_ack)),
            options: Some(frames::read_options(&s.options, &self.bases)?),
            ..s.seg.clone()
        })
    }

    /// The peer sends.
    fn send(&mut self, seg: &Seg, how: &str) -> Result<(), String> {
        let new = seg.flags & 0x12 == 0x02
            && matches!(self.shard.state_of(&self.tuple), State::Closed | State::TimeWait);
        if new && how.is_empty() && self.bases.ours.is_some() {
            self.fresh = true;
        }
        if seg.flags & 0x02 != 0 && (new || self.shard.state_of(&self.tuple) == State::SynSent) {
            self.memory.borrow_mut().first = seg.seq + 1;
        }
        let mut from = self.tuple.flipped();
        match how {
            "land" => from.local = from.remote,
            "multicast_source" => from.local.addr = other(from.is_v4(), [224, 0, 0, 1], 0xff),
            "unspecified_source" => from.local.addr = other(from.is_v4(), [0, 0, 0, 0], 0),
            "zero_port" => from.local.port = 0,
            _ => {}
        }
        let frame = frames::frame(seg, &from, &self.bases, how);
        self.link.inject(Direction::AToB, &frame);
        self.rest().map(|_| ())
    }

    /// The shard must have sent this next, between these times.
    fn expect(&mut self, want: &Seg, from: Time, until: Time) -> Result<(), String> {
        let last = until + TOLERANCE;
        self.run_to(from.max(self.now))?;
        while self.sent.is_empty() && self.now < last {
            let next = self.rest()?;
            self.now = next.max(self.now + Duration::from_micros(1)).min(last);
        }
        self.rest()?;
        let Some(s) = self.sent.pop_front() else {
            return Err(format!("expected {} > {want}\n   got nothing", seconds(from)));
        };
        if s.seg.flags & 0x02 != 0 && self.fresh {
            self.fresh = false;
            self.bases.ours = Some(s.raw_seq.wrapping_sub(wire(0, want.seq)));
        }
        self.learn_timestamp(want, &s);
        let got = self.read(&s)?;
        let in_time = s.at + TOLERANCE >= from && s.at <= last;
        let body = got.payload_is(&s.payload, self.fresh);
        let win = want.win.is_none_or(|w| Some(w) == got.win);
        let options = want.options.is_none() || same_options(want.options.as_deref(), got.options.as_deref());
        let same = (want.flags, want.seq, want.len, want.ack, want.ecn)
            == (got.flags, got.seq, got.len, got.ack, got.ecn);
        self.last_vlan = s.vlan;
        if s.seg.flags & 0x04 == 0 {
            self.old_end = self.old_end.max_seq(s.raw_seq.wrapping_add(u32::from(s.seg.len)));
        }
        if in_time && body && win && options && same {
            return Ok(());
        }
        let why = if body { "" } else { " (other bytes)" };
        Err(format!("expected {} > {want}\n   got {} > {got}{why}", seconds(from), seconds(s.at)))
    }

    fn learn_timestamp(&mut self, want: &Seg, s: &Sent) {
        let wanted = want.options.iter().flatten().find_map(|o| match o {
            Opt::Ts(val, _) => Some(*val),
            Opt::Nop | Opt::Mss(_) | Opt::SackOk | Opt::WScale(_) | Opt::Sack(..) => None,
        });
        if let (None, Some(raw)) = (self.bases.our_ts, frames::raw_timestamp(&s.options)) {
            self.bases.our_ts = Some(raw.wrapping_sub(wanted.unwrap_or(0)));
        }
    }

    // System calls.

    fn call(&mut self, call: &Call) -> Result<(), String> {
        let (got, errno) = self.do_call(call)?;
        let as_wanted = got == call.result && (got >= 0 || call.errno.as_deref().is_none_or(|e| e == errno));
        self.rest()?;
        if as_wanted {
            return Ok(());
        }
        let wanted = call.errno.as_deref().unwrap_or("");
        Err(format!("expected {} = {} {wanted}\n   got {got} {errno}", call.name, call.result))
    }

    /// Does a call. Gives what it returns and the error's name.
    fn do_call(&mut self, call: &Call) -> Result<(i64, &'static str), String> {
        let count =
            || -> Result<usize, String> { super::syntax::number(call.args.get(2).ok_or("no length")?) };
        Ok(match call.name.as_str() {
            // The shard has its listener from the start; these say nothing that it could get wrong.
            "socket" => (call.result, ""),
            "bind" | "listen" | "fcntl" => (0, ""),
            "setsockopt" => (self.set_option(call)?, ""),
            "connect" => {
                let l2 = L2 { src: OUR_MAC, dst: PEER_MAC, vlan: None };
                let service = self.shard.client_service();
                if !self.shard.connect(&ActiveOpen { tuple: self.tuple, l2, service, user: 0 }) {
                    return Ok((-1, "EADDRNOTAVAIL"));
                }
                (-1, "EINPROGRESS")
            }
            "accept" => {
                let mut m = self.memory.borrow_mut();
                if m.opened == 0 {
                    return Ok((-1, "EAGAIN"));
                }
                m.opened -= 1;
                (call.result.max(0), "")
            }
            "write" | "send" => self.write(count()?),
            "read" | "recv" => self.read_stream(count()?),
            "shutdown" => self.shutdown(call)?,
            "close" => {
                let abort = self.abort_on_close;
                self.shard.act(&self.tuple, &mut |cx| if abort { cx.abort() } else { cx.close() });
                (0, "")
            }
            name => return Err(format!("`{name}` is no call that is mapped")),
        })
    }

    fn set_option(&mut self, call: &Call) -> Result<i64, String> {
        match call.args.get(2).map(String::as_str) {
            Some("SO_LINGER") => {
                let value = call.args[3..].join(",");
                if !value.contains("onoff=1") || !value.contains("linger=0") {
                    return Err("of SO_LINGER only {onoff=1, linger=0} is mapped".into());
                }
                self.abort_on_close = true;
                Ok(0)
            }
            // The first is looked at before the shard is made; the second has no meaning here.
            Some("TCP_NODELAY" | "SO_REUSEADDR") => Ok(0),
            other => Err(format!("option {other:?} is not mapped")),
        }
    }

    fn write(&mut self, n: usize) -> (i64, &'static str) {
        let memory = Rc::clone(&self.memory);
        let mut took = None;
        let mut send = |cx: &mut dyn Context| {
            let at = 1 + memory.borrow().written as i64;
            let bytes: Vec<u8> = pattern(at, n).collect();
            let sent = cx.send(&bytes);
            memory.borrow_mut().written += sent;
            took = Some(sent);
        };
        let can_send = matches!(self.shard.state_of(&self.tuple), State::Established | State::CloseWait);
        if !can_send {
            return (-1, self.errno("EPIPE"));
        }
        self.shard.act(&self.tuple, &mut send);
        match took {
            Some(0) if n > 0 => (-1, "EAGAIN"),
            Some(sent) => (sent as i64, ""),
            None => (-1, "EPIPE"),
        }
    }

    fn read_stream(&mut self, n: usize) -> (i64, &'static str) {
        let before = {
            let mut m = self.memory.borrow_mut();
            m.quota = n;
            m.got
        };
        let there = self.shard.offer_unread(&self.tuple);
        let mut m = self.memory.borrow_mut();
        m.quota = 0;
        match m.got - before {
            0 if m.end_of_stream => (0, ""),
            0 if there => (-1, "EAGAIN"),
            0 => {
                drop(m);
                (-1, self.errno("ENOTCONN"))
            }
            got => (got as i64, ""),
        }
    }

    fn shutdown(&mut self, call: &Call) -> Result<(i64, &'static str), String> {
        if call.args.get(1).map(String::as_str) != Some("SHUT_WR") {
            return Err("of shutdown only SHUT_WR is mapped".into());
        }
        let there = self.shard.act(&self.tuple, &mut |cx| cx.shutdown());
        Ok(if there { (0, "") } else { (-1, "ENOTCONN") })
    }

    /// The error of a connection that has ended, or this one.
    fn errno(&self, otherwise: &'static str) -> &'static str {
        match self.memory.borrow().last.as_ref().map(|r| r.cause) {
            Some(Cause::PeerReset) => "ECONNRESET",
            Some(Cause::Refused) => "ECONNREFUSED",
            Some(Cause::GiveUp) => "ETIMEDOUT",
            _ => otherwise,
        }
    }

    /// `// do`: what no system call says.
    fn perform(&mut self, what: &str) -> Result<(), String> {
        let there = match what {
            "linger" => self.shard.act(&self.tuple, &mut |cx| cx.close_lingering()),
            "drain" => self.mailbox.send(Command::Drain).is_ok(),
            "cut_off" => self.mailbox.send(Command::CutOff).is_ok(),
            _ => return Err(format!("`{what}` is nothing that can be done")),
        };
        self.rest()?;
        if there { Ok(()) } else { Err(format!("{what}: there is no connection")) }
    }

    // Assertions.

    fn assert(&mut self, words: &[String]) -> Result<(), String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["state", want] => {
                let got = format!("{:?}", self.shard.state_of(&self.tuple));
                compare("state", &want.replace('_', "").to_lowercase(), &got.to_lowercase())
            }
            ["gone"] => {
                let left = (self.shard.records(), self.shard.timers(), self.shard.chunks_used());
                compare("records, timers, chunks", "(0, 0, 0)", &format!("{left:?}"))
            }
            ["isn", "newer"] => {
                let ours = self.bases.ours.ok_or("no SYN was sent")?;
                let above = ours.wrapping_sub(self.old_end).cast_signed();
                if above >= 0 { Ok(()) } else { Err(format!("the new ISN is {} below the old end", -above)) }
            }
            ["vlan", want] => compare("vlan", want, &self.last_vlan.map_or("none".into(), |v| v.to_string())),
            ["dropped", reason, want] => {
                let all = DropReason::ALL;
                let reason = all.iter().find(|r| r.as_str() == reason).ok_or("no such reason")?;
                let got = self.shard.snapshot().counters.drops[*reason as usize];
                compare("dropped", want, &got.to_string())
            }
            ["no", "close"] => compare("close records", "0", &self.memory.borrow().records.len().to_string()),
            ["close", ref facts @ ..] => {
                let mut m = self.memory.borrow_mut();
                if m.records.is_empty() {
                    return Err("expected a close record\n   got none".into());
                }
                let record = m.records.remove(0);
                facts.iter().try_for_each(|f| close_fact(&record, f))
            }
            _ => Err(format!("`assert {}` is not understood", words.join(" "))),
        }
    }
}

fn close_fact(r: &CloseRecord, fact: &str) -> Result<(), String> {
    let (key, want) = fact.split_once('=').ok_or("close: key=value")?;
    let got = match key {
        "path" => r.path.as_str().to_owned(),
        "first" => r.first.as_str().to_owned(),
        "cause" => r.cause.as_str().to_owned(),
        "in" => r.bytes_in.to_string(),
        "out" => r.bytes_out.to_string(),
        "unacked" => r.unacknowledged.to_string(),
        "fin_again" => r.fin_retransmissions.to_string(),
        "time_wait" => if r.time_wait { "yes" } else { "no" }.to_owned(),
        _ => return Err(format!("`{key}` is not in a close record")),
    };
    if r.path.graceful() && r.path != ClosePath::HalfClose && r.unacknowledged > 0 {
        return Err(format!("a graceful close with {} bytes unacknowledged", r.unacknowledged));
    }
    compare(key, want, &got)
}

fn compare(what: &str, want: &str, got: &str) -> Result<(), String> {
    if want == got { Ok(()) } else { Err(format!("expected {what} {want}\n   got {got}")) }
}

fn same_options(want: Option<&[Opt]>, got: Option<&[Opt]>) -> bool {
    let (Some(want), Some(got)) = (want, got) else { return false };
    want.len() == got.len()
        && want.iter().zip(got).all(|(a, b)| match (a, b) {
            (Opt::Ts(v0, e0), Opt::Ts(v1, e1)) => v0.abs_diff(*v1) <= TS_TOLERANCE && e0 == e1,
            (a, b) => a == b,
        })
}

impl Seg {
    /// Whether the payload follows the pattern from this segment's number on.
    fn payload_is(&self, payload: &[u8], unnumbered: bool) -> bool {
        unnumbered || payload.iter().copied().eq(pattern(self.seq, payload.len()))
    }
}

/// The later of two sequence numbers.
trait MaxSeq {
    fn max_seq(self, other: Self) -> Self;
}

impl MaxSeq for u32 {
    fn max_seq(self, other: Self) -> Self {
        if self == 0 || other.wrapping_sub(self).cast_signed() > 0 { other } else { self }
    }
}

fn seconds(t: Time) -> String {
    let us = t.since(START).as_micros();
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

fn address(v6: bool, host: u8) -> Addr {
    if v6 {
        let mut a = [0; 16];
        (a[0], a[1], a[15]) = (0xfd, 0x0f, host);
        Addr::v6(a)
    } else {
        Addr::v4([10, 0, 0, host])
    }
}

fn other(v4: bool, octets: [u8; 4], first: u8) -> Addr {
    if v4 {
        return Addr::v4(octets);
    }
    let mut a = [0; 16];
    a[0] = first;
    Addr::v6(a)
}
