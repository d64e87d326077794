//! A live shard on a simulated link, with peers that know its numbers and keep no rule.
//!
//! After every step: the shard's books agree ([`Shard::audit`]), what it sent is well-formed, true and no more than is due,
//! and the window's right edge has not moved left. At the end time passes, nobody speaks, and everything is gone.

use crate::engine::Reader;
use crate::script::{self, Setup, Step};
use crate::service::{Book, Told, sent_byte};
use crate::wire::icmp_frame;
use finwheel::port::Port;
use finwheel::port::mem::{Direction, LinkConfig, LinkHandle, MemPort, link};
use finwheel::shard::mailbox::{Command, Handle, mailboxes, no_wake};
use finwheel::shard::{Listener, Parts, Shard};
use finwheel::tcp::conn::ActiveOpen;
use finwheel::tcp::isn::Secret;
use finwheel::tcp::state::State;
use finwheel::time::Time;
use finwheel::wire::tcp::Timestamps;
use finwheel::wire::{
    self, Addr, Checksums, Emit, Endpoint, Flags, Header, L2, MacAddr, Options, Parsed, SeqNum, TcpFrame,
    Tuple,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// Peers that connect to the listener, two of each family; as many again are connected to.
const PEERS: usize = 4;
/// Turns at one moment after which the shard is said to spin.
const MAX_TURNS: usize = 2000;
/// Longest that silence may take to end everything: give-up, idleness and 2MSL follow each other at most a few times.
const MAX_SILENCE: Duration = Duration::from_secs(3600);
/// Frames that can be sent again.
const RECENT: usize = 16;
const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// The byte that a peer sends under a sequence number.
fn peer_byte(seq: SeqNum) -> u8 {
    (seq.raw() ^ seq.raw() >> 7) as u8
}

/// One other end.
struct Peer {
    /// As the shard names it.
    tuple: Tuple,
    iss: SeqNum,
    /// What follows on from all that was sent in order.
    next: SeqNum,
    /// Numbers of the SYNs it has sent: where its streams may begin.
    syns: Vec<SeqNum>,
    /// Numbers of the shard's SYNs: where the shard's streams may begin.
    irs: Vec<SeqNum>,
    /// One past the highest number seen of the shard.
    seen: SeqNum,
    /// What the shard last acknowledged, and the right edge of its window, unscaled.
    acked: SeqNum,
    edge: SeqNum,
    timestamps: bool,
    ts_recent: u32,
    /// The shard has sent a SYN without ACK that waits for an answer.
    asked: bool,
}

/// A segment that the shard sent.
struct Sent {
    bare: bool,
    reset: bool,
}

struct World {
    shard: Shard<MemPort>,
    wire: MemPort,
    link: LinkHandle,
    mailbox: Handle,
    now: Time,
    book: Rc<RefCell<Book>>,
    peers: Vec<Peer>,
    setup: Setup,
    recent: Vec<Vec<u8>>,
    /// Frames that wait for the end of a burst, and how many more are to come.
    burst: Vec<Vec<u8>>,
    gather: u8,
    /// Right edges by connection: which one of its pair it was, and the edge.
    edges: HashMap<Tuple, (u64, SeqNum)>,
    /// Bytes of a stream that were compared already.
    compared: HashMap<Tuple, usize>,
    /// Answers for no connection in the present second.
    strays: (u64, u32),
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut r = Reader(bytes);
    let setup = Setup::read(&mut r);
    let mut world = World::new(setup);
    for step in script::steps(r.0) {
        world.step(step);
    }
    world.end();
}

fn address(v6: bool, host: u8) -> Addr {
    if v6 {
        Addr::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host])
    } else {
        Addr::v4([10, 0, 0, host])
    }
}

impl World {
    fn new(setup: Setup) -> Self {
        let now = Time::from_micros(5_000_000);
        let size = setup.frames as usize / 2;
        let config = LinkConfig {
            frames: setup.frames,
            fill: size,
            rx_ring: size,
            tx_ring: size,
            ..LinkConfig::default()
        };
        let (wire, port, link) = link(config);
        link.advance(now);
        let book = Rc::new(RefCell::new(Book {
            lives: HashMap::new(),
            appetite: setup.appetite,
            greeting: setup.greeting,
            end: setup.end,
            opened: 0,
            closed: 0,
            answers: setup.answers,
        }));
        let (mail, mailbox) = mailboxes(&[no_wake()]).swap_remove(0);
        let endpoints = vec![Endpoint::new(address(false, 1), 80), Endpoint::new(address(true, 1), 80)];
        let shard = Shard::new(Parts {
            port,
            tcp: setup.tcp.clone(),
            capacity: setup.capacity.clone(),
            listeners: vec![Listener { endpoints, service: Box::new(Told(Rc::clone(&book))) }],
            client: Some(Box::new(Told(Rc::clone(&book)))),
            secret: Secret::new(1, 2),
            index_key: (3, 4),
            mailbox: mail,
            now,
        });
        let peers = (0..2 * PEERS).map(peer).collect();
        Self {
            shard,
            wire,
            link,
            mailbox,
            now,
            book,
            peers,
            setup,
            recent: Vec::new(),
            burst: Vec::new(),
            gather: 0,
            edges: HashMap::new(),
            compared: HashMap::new(),
            strays: (0, 0),
        }
    }

    fn step(&mut self, step: Step) {
        let who = |n: u8| usize::from(n) % (2 * PEERS);
        match step {
            Step::Segment { who: w, flags, seq, ack, win, len, options } => {
                let frame = self.arbitrary(who(w), flags, seq, ack, win, len, options);
                self.put(who(w), frame);
            }
            Step::Open { who: w, options } => self.open(who(w), options),
            Step::Data { who: w, len, ahead } => {
                let (w, len) = (who(w), usize::from(len));
                let p = &mut self.peers[w];
                let seq = p.next + u32::from(ahead);
                if ahead == 0 {
                    p.next += len as u32;
                }
                let header = self.header(w, Flags::ACK | Flags::PSH, seq, u16::MAX);
                self.put(w, self.frame(w, &header, len));
            }
            Step::Ack { who: w, win } => {
                let w = who(w);
                let header = self.header(w, Flags::ACK, self.peers[w].next, win);
                self.put(w, self.frame(w, &header, 0));
            }
            Step::Fin { who: w } => {
                let w = who(w);
                let header = self.header(w, Flags::ACK | Flags::FIN, self.peers[w].next, u16::MAX);
                let frame = self.frame(w, &header, 0);
                self.peers[w].next += 1;
                self.put(w, frame);
            }
            Step::Wait { ms } => self.pass(Duration::from_millis(ms)),
            Step::Write { who: w, len } => {
                self.act(who(w), &mut |book, cx| book.write(cx, usize::from(len)));
            }
            Step::End { who: w, how } => self.act(who(w), &mut |_, cx| how.apply(cx)),
            Step::Appetite { who: w, bytes } => {
                self.book.borrow_mut().appetite = usize::from(bytes);
                let _ = self.shard.offer_unread(&self.peers[who(w)].tuple);
            }
            Step::Connect { who: w } => {
                let tuple = self.peers[PEERS + usize::from(w) % PEERS].tuple;
                let l2 = L2 { src: OUR_MAC, dst: PEER_MAC, vlan: None };
                let service = self.shard.client_service();
                let _ = self.shard.connect(&ActiveOpen { tuple, l2, service, user: 7 });
            }
            Step::Icmp { who: w, kind, code, seq, mtu } => self.icmp(who(w), kind, code, seq, mtu),
            Step::Again { back, at, flip } => self.again(back, at, flip),
            Step::Burst { frames } => self.gather = frames,
            Step::Drain { over } => {
                let command = if over { Command::CutOff } else { Command::Drain };
                assert!(self.mailbox.send(command).is_ok(), "the mailbox has room");
            }
        }
        self.settle();
        self.check();
    }

    /// Puts a frame on the line, alone or at the end of a burst. A frame alone has at most one answer that carries
    /// nothing, and for no connection none beyond the budget.
    fn put(&mut self, who: usize, frame: Vec<u8>) {
        if self.recent.len() == RECENT {
            self.recent.remove(0);
        }
        self.recent.push(frame.clone());
        if self.gather > 0 {
            self.gather -= 1;
            self.burst.push(frame);
            if self.gather > 0 {
                return;
            }
            for frame in std::mem::take(&mut self.burst) {
                self.link.inject(Direction::AToB, &frame);
            }
            self.settle();
            return;
        }
        self.settle();
        let state = self.shard.state_of(&self.peers[who].tuple);
        self.link.inject(Direction::AToB, &frame);
        let sent = self.settle();
        let bare = sent.iter().filter(|s| s.bare).count();
        // With few frames, answers of earlier steps may have waited.
        let unhindered = self.setup.frames > 16;
        assert!(!unhindered || bare <= 1, "{bare} empty answers to one segment in {state:?}");
        if unhindered && matches!(state, State::Closed | State::TimeWait) {
            let second = self.now.millis() / 1000;
            if self.strays.0 != second {
                self.strays = (second, 0);
            }
            self.strays.1 += sent.iter().filter(|s| s.bare || s.reset).count() as u32;
            // The cookie that opens a connection is a segment for none, too, and its answer is that connection's.
            let opened = self.shard.state_of(&self.peers[who].tuple) != state;
            // RSTs have a budget, and so have ACKs from `TIME_WAIT`.
            assert!(
                opened || self.strays.1 <= 2 * self.setup.tcp.stray_replies,
                "{} answers for no connection in a second",
                self.strays.1
            );
            if opened {
                self.strays.1 = 0;
            }
        }
    }

    fn act(&mut self, who: usize, f: &mut dyn FnMut(&mut Book, &mut dyn finwheel::service::Context)) {
        let tuple = self.peers[who].tuple;
        if !self.shard.state_of(&tuple).synchronized() {
            return;
        }
        let book = Rc::clone(&self.book);
        let _ = self.shard.act(&tuple, &mut |cx| f(&mut book.borrow_mut(), cx));
    }

    /// Turns until there is nothing to do now. Gives what was sent.
    fn settle(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        for _ in 0..MAX_TURNS {
            self.link.advance(self.now);
            let turn = self.shard.turn(self.now).expect("the simulated port does not fail");
            let n = sent.len();
            self.collect(&mut sent);
            if !turn.worked && sent.len() == n {
                return sent;
            }
        }
        panic!("the shard has work without end at {:?}", self.now);
    }

    fn collect(&mut self, sent: &mut Vec<Sent>) {
        self.link.advance(self.now);
        let mut frames = Vec::new();
        self.wire.rx(&mut frames);
        for f in frames {
            let bytes = self.wire.bytes(&f).to_vec();
            self.wire.free(f);
            let parsed = wire::parse(&bytes, Checksums::Verify);
            let Ok(Parsed::Tcp(seg)) = parsed else { panic!("the shard sent {parsed:?}") };
            sent.push(self.hear(&seg, &bytes[usize::from(seg.payload.start)..usize::from(seg.payload.end)]));
        }
        self.wire.flush().expect("the simulated port does not fail");
    }

    /// What a peer makes of a segment; panics when it is not one that the shard may send.
    fn hear(&mut self, seg: &TcpFrame, payload: &[u8]) -> Sent {
        let h = &seg.header;
        assert_eq!((seg.l2.src, seg.l2.dst), (OUR_MAC, PEER_MAC), "between other stations");
        let tuple = seg.tuple.flipped();
        let p = self.peers.iter_mut().find(|p| p.tuple == tuple).expect("a segment to somebody we are");
        assert!(!h.options.malformed && !h.flags.any(Flags::URG));
        if h.flags.rst() {
            assert!(payload.is_empty() && !h.flags.any(Flags::SYN | Flags::FIN), "{h:?} with {payload:?}");
            return Sent { bare: false, reset: true };
        }
        if h.flags.syn() {
            if p.irs.last() != Some(&h.seq) {
                p.irs.push(h.seq);
                p.seen = h.seq + 1;
            }
            p.asked = !h.flags.ack();
        } else {
            assert!(h.flags.ack(), "{h:?}");
        }
        if !payload.is_empty() {
            let true_from = |&irs: &SeqNum| {
                let at = h.seq - (irs + 1);
                payload.iter().zip(u64::from(at)..).all(|(&b, at)| b == sent_byte(at))
            };
            assert!(p.irs.iter().any(true_from), "bytes that the service never wrote: {h:?}");
        }
        let end = h.seq + h.seg_len(payload.len());
        p.seen = p.seen.max(end);
        if h.flags.ack() {
            p.acked = h.ack;
            p.edge = h.ack + u32::from(h.window);
        }
        if let Some(ts) = h.options.timestamps {
            p.ts_recent = ts.val;
        }
        Sent { bare: payload.is_empty() && !h.flags.any(Flags::SYN | Flags::FIN), reset: false }
    }

    /// What holds at any rest.
    fn check(&mut self) {
        let faults = self.shard.audit();
        assert!(faults.is_empty(), "{faults:#?}");
        let book = self.book.borrow();
        for p in &self.peers {
            let Some(edge) = self.shard.window_edge(&p.tuple) else { continue };
            let Some(life) = book.lives.get(&p.tuple) else { continue };
            let (number, was) = self.edges.insert(p.tuple, (life.number, edge)).unwrap_or((0, edge));
            assert!(
                number != life.number || edge.at_or_after(was),
                "the window's edge went from {was:?} to {edge:?}"
            );
        }
        for (tuple, life) in &book.lives {
            let p = self.peers.iter().find(|p| p.tuple == *tuple).expect("a connection of somebody we are");
            let compared = self.compared.entry(*tuple).or_insert(0);
            if *compared != life.received.len() {
                let true_from = |&syn: &SeqNum| {
                    life.received.iter().zip(0u32..).all(|(&b, at)| b == peer_byte(syn + 1 + at))
                };
                assert!(
                    p.syns.iter().any(true_from),
                    "the service was given what {} never sent",
                    tuple.remote
                );
                *compared = life.received.len();
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..200 {
            let next = self.shard.turn(self.now).expect("the simulated port does not fail").next;
            if next > end {
                break;
            }
            self.now = next.max(self.now + Duration::from_millis(1));
            self.settle();
        }
        self.now = self.now.max(end);
    }

    /// Nobody speaks any more.
    fn end(&mut self) {
        for frame in std::mem::take(&mut self.burst) {
            self.link.inject(Direction::AToB, &frame);
        }
        self.settle();
        let silent_from = self.now;
        while self.shard.records() > 0 {
            let next = self.shard.turn(self.now).expect("the simulated port does not fail").next;
            assert!(
                next != Time::NEVER,
                "{} records and no timer: {:?}",
                self.shard.records(),
                self.shard.population()
            );
            self.now = next.max(self.now + Duration::from_millis(1));
            self.settle();
            let silence = self.now.since(silent_from);
            assert!(silence < MAX_SILENCE, "after {silence:?}: {:?}", self.shard.population());
        }
        self.check();
        assert_eq!((self.shard.timers(), self.shard.chunks_used()), (0, 0), "timers, chunks");
        let book = self.book.borrow();
        assert_eq!(book.opened, book.closed, "connections that the service was told of");
        assert!(book.lives.is_empty(), "{:?}", book.lives);
    }
}

/// The peer of a number: the first half connects, the others are connected to; every second one by IPv6.
fn peer(n: usize) -> Peer {
    let v6 = n % 2 == 1;
    let (local, remote) = if n < PEERS { (80, 40_000 + n as u16) } else { (5000 + n as u16, 7000) };
    let tuple =
        Tuple { local: Endpoint::new(address(v6, 1), local), remote: Endpoint::new(address(v6, 9), remote) };
    // Near the wrap, and the others anywhere.
    let iss = SeqNum::new(u32::MAX - 600) + n as u32 * 7919;
    let zero = SeqNum::new(0);
    Peer {
        tuple,
        iss,
        next: iss + 1,
        syns: Vec::new(),
        irs: Vec::new(),
        seen: zero,
        acked: iss,
        edge: iss,
        timestamps: false,
        ts_recent: 0,
        asked: false,
    }
}

/// Making the peers' segments.
impl World {
    fn header(&self, who: usize, flags: Flags, seq: SeqNum, window: u16) -> Header {
        let p = &self.peers[who];
        let ack = if flags.ack() { p.seen } else { SeqNum::new(0) };
        let mut options = Options::default();
        if p.timestamps {
            options.timestamps = Some(self.timestamp(p));
        }
        Header { seq, ack, flags, window, options }
    }

    fn timestamp(&self, p: &Peer) -> Timestamps {
        Timestamps { val: (self.now.millis() as u32).wrapping_sub(6000), ecr: p.ts_recent }
    }

    fn frame(&self, who: usize, header: &Header, len: usize) -> Vec<u8> {
        let tuple = self.peers[who].tuple.flipped();
        let l2 = L2 { src: PEER_MAC, dst: OUR_MAC, vlan: None };
        let emit = Emit { l2, tuple: &tuple, header, ttl: 64, ecn: 0, ip_id: 0 };
        let at = emit.headers_len();
        let mut frame = vec![0; at + len];
        let first = header.seq + u32::from(header.flags.syn());
        for (byte, i) in frame[at..].iter_mut().zip(0..) {
            *byte = peer_byte(first + i);
        }
        let written = emit.emit(&mut frame, len).expect("the segment fits");
        frame.truncate(written);
        frame
    }

    fn syn_options(&self, who: usize, options: u8) -> Options {
        let has = |bit: u8| (options ^ self.setup.syn) & bit != 0;
        Options {
            mss: has(1).then_some(if options & 16 == 0 { 1460 } else { 100 }),
            window_scale: has(2).then_some(options >> 5),
            sack_permitted: has(4),
            timestamps: has(8).then(|| self.timestamp(&self.peers[who])),
            ..Options::default()
        }
    }

    /// The peer opens, or answers the shard's SYN; then it acknowledges what came back.
    fn open(&mut self, who: usize, options: u8) {
        let syn_options = self.syn_options(who, options);
        let p = &mut self.peers[who];
        let asked = p.asked;
        if self.shard.state_of(&p.tuple) == State::TimeWait || p.next != p.iss + 1 {
            // A new incarnation above the old numbers.
            p.iss = p.next + 100_000;
        }
        p.syns.push(p.iss);
        p.next = p.iss + 1;
        p.timestamps = syn_options.timestamps.is_some();
        let flags = if asked { Flags::SYN | Flags::ACK } else { Flags::SYN };
        let mut header = self.header(who, flags, self.peers[who].iss, u16::MAX);
        header.options = syn_options;
        self.put(who, self.frame(who, &header, 0));
        if self.gather > 0 {
            return;
        }
        if !asked {
            let header = self.header(who, Flags::ACK, self.peers[who].next, u16::MAX);
            self.put(who, self.frame(who, &header, 0));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the bytes of a step")]
    fn arbitrary(
        &mut self,
        who: usize,
        flags: u8,
        seq: u8,
        ack: u8,
        win: u8,
        len: u8,
        options: u8,
    ) -> Vec<u8> {
        let flags = arbitrary_flags(flags);
        let seq = self.number(who, seq);
        let ack = self.acknowledgment(who, ack);
        let mut header = Header {
            seq,
            ack: if flags.ack() { ack } else { SeqNum::new(0) },
            flags,
            window: u16::from(win) << (win & 7),
            options: Options::default(),
        };
        let p = &self.peers[who];
        if flags.syn() {
            header.options = self.syn_options(who, options);
        } else {
            if p.timestamps != (options & 3 == 3) {
                header.options.timestamps = Some(self.timestamp(p));
            }
            if let (Some(ts), true) = (&mut header.options.timestamps, options & 4 != 0) {
                ts.val = ts.val.wrapping_add(u32::from(options) << 20);
            }
            header.options.sack_len = (options >> 3) % 4;
            for (i, block) in
                header.options.sack.iter_mut().take(usize::from(header.options.sack_len)).enumerate()
            {
                let first = ack + u32::from(options) * 40 + i as u32 * 1500;
                *block = (first, first + 1 + u32::from(len) * 8);
            }
        }
        let len = usize::from(len) * 5;
        let timestamps = header.options.timestamps.is_some();
        let p = &mut self.peers[who];
        if flags.syn() {
            p.syns.push(seq);
            p.timestamps = timestamps;
        }
        self.frame(who, &header, len)
    }

    /// A sequence number near something that matters.
    fn number(&self, who: usize, mode: u8) -> SeqNum {
        let p = &self.peers[who];
        let far = u32::from(mode >> 4);
        match mode % 16 {
            0 => p.next,
            1 => p.next - 1,
            2 => p.acked,
            3 => p.acked - 1,
            4 => p.acked + 1,
            5 => p.edge,
            6 => p.edge - 1,
            7 => p.edge + 1,
            8 => p.next + far * 200,
            9 => p.acked + far * 100,
            10 => p.iss,
            11 => p.iss + 1,
            12 => p.next + (1 << 31),
            13 => p.next - (1 << 31) + 1,
            14 => p.edge + (far << 16),
            _ => p.next - far * 300,
        }
    }

    /// An acknowledgment near something that matters.
    fn acknowledgment(&self, who: usize, mode: u8) -> SeqNum {
        let p = &self.peers[who];
        let irs = p.irs.last().copied().unwrap_or(p.seen);
        let far = u32::from(mode >> 4);
        match mode % 12 {
            0..4 => p.seen,
            4 => p.seen - 1,
            5 => p.seen + 1,
            6 => irs,
            7 => irs + 1,
            8 => p.seen - far * 200,
            9 => p.seen + (1 << 31),
            10 => p.seen - (1 << 20),
            _ => p.irs.first().copied().unwrap_or(p.seen) + far,
        }
    }

    fn icmp(&mut self, who: usize, kind: u8, code: u8, seq: u8, mtu: u16) {
        let tuple = self.peers[who].tuple;
        let (Some(us), Some(them)) = (tuple.local.addr.as_v4(), tuple.remote.addr.as_v4()) else { return };
        let mut quote = vec![0x45, 0, 5, 220, 0, 0, 0x40, 0, 64, 6, 0, 0];
        quote.extend(us);
        quote.extend(them);
        quote.extend(tuple.local.port.to_be_bytes());
        quote.extend(tuple.remote.port.to_be_bytes());
        quote.extend(self.acknowledgment(who, seq).raw().to_be_bytes());
        let kind = [3, 3, 11, 12][usize::from(kind % 4)];
        let frame = icmp_frame([10, 0, 0, 77], us, kind, code, u32::from(mtu), &quote);
        self.link.inject(Direction::AToB, &frame);
    }

    fn again(&mut self, back: u8, at: u8, flip: u8) {
        let Some(frame) = self.recent.get(usize::from(back) % self.recent.len().max(1)) else { return };
        let mut frame = frame.clone();
        if flip != 0 {
            // Behind the stations, which no checksum covers.
            let at = 12 + usize::from(at) % (frame.len() - 12);
            frame[at] ^= flip;
        }
        self.link.inject(Direction::AToB, &frame);
    }
}

fn arbitrary_flags(n: u8) -> Flags {
    let (syn, ack, fin, rst) = (Flags::SYN, Flags::ACK, Flags::FIN, Flags::RST);
    match n % 16 {
        0 | 1 => ack,
        2 => ack | Flags::PSH,
        3 => ack | fin,
        4 => syn,
        5 => syn | ack,
        6 => rst,
        7 => rst | ack,
        8 => fin,
        9 => ack | Flags::URG,
        10 => syn | Flags::ECE | Flags::CWR,
        11 => ack | Flags::ECE,
        12 => ack | Flags::CWR,
        13 => ack | fin | Flags::PSH,
        14 => Flags::NONE,
        _ => Flags::from_bits(n),
    }
}
