//! The harness: a shard at one end of a perfect simulated link, the test at the other.

use super::script::{Do, Script, Scripted, Told};
use super::{recv, send};
use crate::metrics::block::Counters;
use crate::port::Port;
use crate::port::mem::{Direction, LinkConfig, LinkHandle, MemPort, link};
use crate::service::Context;
use crate::shard::mailbox::{Command, Handle, mailboxes, no_wake};
use crate::shard::tables::Found;
use crate::shard::{Capacity, Listener, Parts, Shard, Turn};
use crate::tcp::TcpConfig;
use crate::tcp::conn::ActiveOpen;
use crate::tcp::isn::Secret;
use crate::tcp::record::{Cause, ClosePath, CloseRecord, First};
use crate::tcp::state::State;
use crate::time::Time;
use crate::wire::tcp::Timestamps;
use crate::wire::{self, Addr, Emit, Endpoint, Flags, Header, L2, MacAddr, Options, Parsed, SeqNum, Tuple};
use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// Port of the listener.
pub const PORT: u16 = 80;
/// First port of the peer.
pub const PEER_PORT: u16 = 40_000;
/// The peer's initial sequence number: its first kilobyte wraps.
const PEER_ISS: SeqNum = SeqNum::new(u32::MAX - 600);
/// The peer's timestamp at the start; it wraps a second later.
const PEER_TS: u32 = u32::MAX - 1000;
/// Turns at one moment after which the shard is said to spin.
const MAX_TURNS: usize = 10_000;
const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Payload from a sequence number on: relative to the sender's initial one.
pub fn pattern(seq: i64, len: usize) -> Vec<u8> {
    (seq..seq + len as i64).map(|i| (i % 251) as u8).collect()
}

/// A segment to send, or one that is expected.
#[derive(Clone, Copy, Debug)]
pub struct Seg {
    flags: Flags,
    seq: i64,
    ack: i64,
    len: usize,
    win: Option<u16>,
    ts: Option<u32>,
    bare: bool,
    options: Options,
    ecn: u8,
}

impl Seg {
    /// With these flags, and numbers as right after the handshake.
    pub fn new(flags: &[Flags]) -> Self {
        Self {
            flags: flags.iter().fold(Flags::NONE, |a, &b| a | b),
            seq: 1,
            ack: 1,
            len: 0,
            win: None,
            ts: None,
            bare: false,
            options: Options::default(),
            ecn: 0,
        }
    }
    /// Sequence number relative to the sender's initial one.
    pub fn seq(self, seq: i64) -> Self {
        Self { seq, ..self }
    }
    /// Acknowledgment relative to the receiver's initial sequence number.
    pub fn ack(self, ack: i64) -> Self {
        Self { ack, ..self }
    }
    /// Bytes of payload.
    pub fn len(self, len: usize) -> Self {
        Self { len, ..self }
    }
    /// Window field as on the wire.
    pub fn win(self, win: u16) -> Self {
        Self { win: Some(win), ..self }
    }
    /// `TSval`, in milliseconds since the peer's clock began.
    pub fn ts(self, ts: u32) -> Self {
        Self { ts: Some(ts), ..self }
    }
    /// Without the timestamps that were agreed on.
    pub fn bare(self, bare: bool) -> Self {
        Self { bare, ..self }
    }
    /// ECN field of the IP header.
    pub fn ecn(self, ecn: u8) -> Self {
        Self { ecn, ..self }
    }
    /// With options of a SYN.
    pub fn syn(self, syn: Syn) -> Self {
        let mss = syn.mss;
        let (window_scale, sack_permitted) = (syn.scale, syn.sack);
        Self { options: Options { mss, window_scale, sack_permitted, ..self.options }, ..self }
    }
    /// With these options as they are.
    pub fn options(self, options: Options) -> Self {
        Self { options, ..self }
    }
}

/// What the peer's SYN offers.
#[derive(Clone, Copy, Debug)]
pub struct Syn {
    /// MSS.
    pub mss: Option<u16>,
    /// Window scale.
    pub scale: Option<u8>,
    /// SACK.
    pub sack: bool,
    /// Timestamps.
    pub ts: bool,
}

impl Syn {
    /// An MSS and nothing else: windows are literal.
    pub const PLAIN: Self = Self { mss: Some(1460), scale: None, sack: false, ts: false };
    /// All there is.
    pub const FULL: Self = Self { mss: Some(1460), scale: Some(7), sack: true, ts: true };
}

/// What the peer knows of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its initial sequence number.
    pub iss: SeqNum,
    /// Ours, once seen.
    pub irs: Option<SeqNum>,
    /// Timestamps are in use.
    pub ts: bool,
    /// The last timestamp of ours.
    pub ts_recent: u32,
}

/// A segment that the shard sent.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: Time,
    /// As the peer sees it.
    pub tuple: Tuple,
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: Vec<u8>,
    /// ECN field of its IP header.
    pub ecn: u8,
}

/// What a harness is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// TCP settings.
    pub tcp: TcpConfig,
    /// Table sizes.
    pub capacity: Capacity,
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// Frames of the shard's port.
    pub frames: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            tcp: TcpConfig::default(),
            capacity: Capacity { connections: 16, half_open: 16, time_wait: 64, chunks: 512 },
            v6: false,
            frames: 512,
        }
    }
}

/// With so many connections at most their books are looked at whenever nothing is to be done.
const FEW: usize = 32;

/// One shard and its scripted peer.
pub struct Harness {
    /// The shard under test.
    pub shard: Shard<MemPort>,
    /// Segments sent by the shard and not yet looked at.
    pub out: VecDeque<Seen>,
    /// The shard's mailbox.
    pub mailbox: Handle,
    /// Our port in the present connection.
    pub local_port: u16,
    /// Window of the peer where `send!` does not say.
    pub win: u16,
    wire: MemPort,
    link: LinkHandle,
    now: Time,
    script: Rc<RefCell<Script>>,
    peers: HashMap<u16, Peer>,
    port: u16,
    v6: bool,
    records: u64,
}

impl Harness {
    /// A listener and no connection.
    pub fn new() -> Self {
        Self::with(Setup::default())
    }

    /// As [`Harness::new`], with settings changed.
    pub fn tuned(tune: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::default();
        tune(&mut setup);
        Self::with(setup)
    }

    /// With a connection that the peer opened, over IPv4, without options but the MSS.
    pub fn open() -> Self {
        Self::open_tuned(|_| ())
    }

    /// As [`Harness::open`], with settings changed.
    pub fn open_tuned(tune: impl FnOnce(&mut Setup)) -> Self {
        let mut h = Self::tuned(tune);
        h.handshake(Syn::PLAIN);
        h
    }

    fn with(setup: Setup) -> Self {
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
        let script = Rc::new(RefCell::new(Script::default()));
        let endpoint = Endpoint::new(address(setup.v6, 1), PORT);
        let (mail, mailbox) = mailboxes(&[no_wake()]).swap_remove(0);
        let shard = Shard::new(Parts {
            port,
            tcp: setup.tcp,
            capacity: setup.capacity,
            listeners: vec![Listener {
                endpoints: vec![endpoint],
                service: Box::new(Scripted(Rc::clone(&script))),
            }],
            client: Some(Box::new(Scripted(Rc::clone(&script)))),
            secret: Secret::new(1, 2),
            index_key: (3, 4),
            mailbox: mail,
            now,
        });
        let mut h = Self {
            shard,
            out: VecDeque::new(),
            mailbox,
            local_port: PORT,
            win: u16::MAX,
            wire,
            link,
            now,
            script,
            peers: HashMap::new(),
            port: 0,
            v6: setup.v6,
            records: 0,
        };
        h.peer(PEER_PORT);
        h
    }

    /// Goes on as the peer's connection from `port`.
    pub fn peer(&mut self, port: u16) {
        self.port = port;
        let iss = PEER_ISS + u32::from(port - PEER_PORT) * 7919;
        self.peers.entry(port).or_insert(Peer { iss, irs: None, ts: false, ts_recent: 0 });
    }

    /// The peer begins anew from the same port: its next SYN is at `seq` of the old numbers.
    pub fn reincarnate(&mut self, seq: i64) {
        let p = self.peer_mut();
        p.iss = relative(p.iss, seq);
        p.irs = None;
    }

    /// The present connection's peer.
    pub fn peer_mut(&mut self) -> &mut Peer {
        self.peers.get_mut(&self.port).expect("a peer was chosen")
    }

    /// The present connection as the shard names it.
    pub fn tuple(&self) -> Tuple {
        Tuple {
            local: Endpoint::new(address(self.v6, 1), self.local_port),
            remote: Endpoint::new(address(self.v6, 9), self.port),
        }
    }

    /// Three-way handshake opened by the peer.
    #[track_caller]
    pub fn handshake(&mut self, syn: Syn) {
        self.peer_mut().ts = syn.ts;
        self.told();
        send!(self, SYN seq=0, ack=0, syn=syn);
        recv!(self, SYN|ACK seq=0, ack=1);
        send!(self, ACK seq=1, ack=1);
        self.nothing();
        assert_eq!(self.state(), State::Established);
        assert_eq!(self.told().first(), Some(&Told::Opened));
    }

    /// The shard opens a connection to the peer's port; its SYN is out.
    pub fn connect(&mut self) {
        let l2 = L2 { src: OUR_MAC, dst: PEER_MAC, vlan: None };
        let service = self.shard.client_service();
        let tuple = self.tuple();
        assert!(self.shard.connect(&ActiveOpen { tuple, l2, service, user: 7 }));
        self.run();
    }

    /// What the service will do, for changing it.
    pub fn service(&self) -> RefMut<'_, Script> {
        self.script.borrow_mut()
    }

    /// What the service was told since the last look.
    pub fn told(&self) -> Vec<Told> {
        self.script.borrow_mut().take_told()
    }

    /// The service acts on the present connection, outside of any call.
    #[track_caller]
    pub fn act(&mut self, acts: &[Do]) {
        let key = self.key().expect("there is a connection");
        let script = Rc::clone(&self.script);
        self.shard.core.act(key, &mut |cx: &mut dyn Context| script.borrow_mut().act(cx, acts));
        self.shard.settle(key, None);
        self.run();
    }

    fn key(&self) -> Option<u32> {
        match self.found() {
            Found::Conn(key) => Some(key),
            Found::Half(_) | Found::Wait(_) | Found::Nothing => None,
        }
    }

    /// What the tables hold for the present connection.
    pub fn found(&self) -> Found {
        let t = &self.shard.core.tables;
        let tuple = self.tuple();
        t.find(t.hash(&tuple), &tuple)
    }

    /// The present connection's state, whatever kind of record holds it.
    pub fn state(&self) -> State {
        match self.found() {
            Found::Conn(key) => self.shard.core.tables.conns.get(key).expect("in the index").state(),
            Found::Half(_) => State::SynReceived,
            Found::Wait(_) => State::TimeWait,
            Found::Nothing => State::Closed,
        }
    }

    /// A copy of the counters.
    pub fn counters(&mut self) -> Counters {
        self.shard.snapshot().counters
    }

    /// Sends a command by mailbox.
    pub fn command(&mut self, command: Command) {
        assert!(self.mailbox.send(command).is_ok(), "the mailbox has room");
        self.run();
    }

    /// Now.
    pub const fn now(&self) -> Time {
        self.now
    }

    // Segments.

    /// A frame with this segment of the present peer.
    pub fn frame(&self, s: &Seg) -> Vec<u8> {
        let p = self.peers[&self.port];
        let mut options = s.options;
        if !s.bare && (p.ts || s.ts.is_some()) {
            let ms = s.ts.unwrap_or(self.now.millis() as u32 - 5000);
            options.timestamps = Some(Timestamps { val: PEER_TS.wrapping_add(ms), ecr: p.ts_recent });
        }
        let ack = if s.flags.ack() { relative(p.irs.unwrap_or_default(), s.ack) } else { SeqNum::new(0) };
        let window = s.win.unwrap_or(self.win);
        let header = Header { seq: relative(p.iss, s.seq), ack, flags: s.flags, window, options };
        let tuple = self.tuple().flipped();
        let l2 = L2 { src: PEER_MAC, dst: OUR_MAC, vlan: None };
        let emit = Emit { l2, tuple: &tuple, header: &header, ttl: 64, ecn: s.ecn, ip_id: 0 };
        let mut frame = vec![0; emit.headers_len() + s.len];
        frame[emit.headers_len()..].copy_from_slice(&pattern(s.seq + i64::from(s.flags.syn()), s.len));
        let len = emit.emit(&mut frame, s.len).expect("the segment fits");
        frame.truncate(len);
        frame
    }

    /// The peer sends a segment, and the shard turns until it has nothing more to do now.
    pub fn send(&mut self, s: &Seg) {
        self.put(s);
        self.run();
    }

    /// Puts a segment on the line without letting the shard turn: several make a burst.
    pub fn put(&mut self, s: &Seg) {
        let frame = self.frame(s);
        self.link.inject(Direction::AToB, &frame);
    }

    /// Puts raw bytes on the line and lets the shard turn.
    pub fn send_raw(&mut self, frame: &[u8]) {
        self.link.inject(Direction::AToB, frame);
        self.run();
    }

    /// The next segment of the shard is this one. Gives its header.
    #[track_caller]
    pub fn recv(&mut self, want: &Seg) -> Header {
        let Some(seen) = self.out.pop_front() else {
            panic!("nothing was sent instead of {want:?}; state {:?}", self.state());
        };
        assert_eq!(seen.tuple.flipped(), self.tuple(), "of another connection: {}", self.show(&seen));
        if seen.header.flags.syn() {
            self.peer_mut().irs.get_or_insert(seen.header.seq);
        }
        let p = self.peers[&self.port];
        let h = &seen.header;
        let wanted_ack = if want.flags.ack() { relative(p.iss, want.ack) } else { SeqNum::new(0) };
        let good = h.flags == want.flags
            && h.seq == relative(p.irs.unwrap_or_default(), want.seq)
            && h.ack == wanted_ack
            && seen.payload.len() == want.len
            && seen.ecn == want.ecn
            && want.win.is_none_or(|w| w == h.window);
        assert!(
            good,
            "sent: {}\nwanted: {want:?}\nleft: {:#?}",
            self.show(&seen),
            self.out.iter().map(|s| self.show(s)).collect::<Vec<_>>()
        );
        assert_eq!(seen.payload, pattern(want.seq, want.len), "other bytes in {}", self.show(&seen));
        if p.ts && !h.flags.rst() {
            let ts = h.options.timestamps.expect("timestamps are on every segment");
            self.peer_mut().ts_recent = ts.val;
        }
        seen.header
    }

    /// Looks at nothing that was sent but our initial sequence number.
    pub fn skip(&mut self) {
        for seen in std::mem::take(&mut self.out) {
            if seen.header.flags.syn() && seen.tuple.flipped() == self.tuple() {
                self.peer_mut().irs.get_or_insert(seen.header.seq);
            }
        }
    }

    /// The shard has sent no further segment.
    #[track_caller]
    pub fn nothing(&self) {
        let left: Vec<_> = self.out.iter().map(|s| self.show(s)).collect();
        assert!(left.is_empty(), "sent: {left:#?}");
    }

    fn show(&self, s: &Seen) -> String {
        let port = s.tuple.local.port;
        let p = self.peers.get(&port).or_else(|| self.peers.get(&self.port)).expect("a peer");
        let text = wire::Describe::new(&s.header, s.payload.len())
            .relative_to(p.irs.unwrap_or_default(), p.iss)
            .to_string();
        format!("{} us: {port} {text} len={}", s.at.micros() - 5_000_000, s.payload.len())
    }

    // Time.

    /// Time passes; the shard turns whenever a timer of its own is due.
    #[track_caller]
    pub fn after(&mut self, d: Duration) {
        let end = self.now + d;
        while self.now < end {
            let next = self.run();
            self.now = next.max(self.now + Duration::from_micros(1)).min(end);
        }
        self.run();
    }

    /// Turns until there is nothing to do now. Gives when the next timer is due.
    #[track_caller]
    pub fn run(&mut self) -> Time {
        for _ in 0..MAX_TURNS {
            self.link.advance(self.now);
            let turn = self.shard.turn(self.now).expect("the simulated port does not fail");
            let seen = self.collect();
            if !turn.worked && seen == 0 {
                self.check();
                return turn.next;
            }
        }
        panic!("the shard has work without end at {:?}", self.now);
    }

    /// The clock moves without the shard noticing: it was busy elsewhere.
    pub fn jump(&mut self, d: Duration) {
        self.now += d;
    }

    /// One turn, whatever there is to do.
    pub fn turn(&mut self) -> Turn {
        self.link.advance(self.now);
        let turn = self.shard.turn(self.now).expect("the simulated port does not fail");
        self.collect();
        turn
    }

    fn collect(&mut self) -> usize {
        self.link.advance(self.now);
        let mut frames = Vec::new();
        let n = self.wire.rx(&mut frames);
        for f in frames {
            let bytes = self.wire.bytes(&f);
            let parsed = wire::parse(bytes, wire::Checksums::Verify);
            let Ok(Parsed::Tcp(seg)) = parsed else { panic!("the shard sent {parsed:?}") };
            let payload = bytes[usize::from(seg.payload.start)..usize::from(seg.payload.end)].to_vec();
            self.out.push_back(Seen {
                at: self.now,
                tuple: seg.tuple,
                header: seg.header,
                payload,
                ecn: seg.ecn,
            });
            self.wire.free(f);
        }
        self.wire.flush().expect("the simulated port does not fail");
        n
    }

    /// What holds at any rest: frames are where they belong, gauges are the tables, nothing impossible happened, and
    /// flights are lent to whom they are needed by.
    #[track_caller]
    fn check(&mut self) {
        if self.shard.live() <= FEW {
            // Chunks may be in the hands of the test.
            let faults = self.shard.audit();
            let faults: Vec<_> = faults.iter().filter(|f| !f.starts_with("chunks")).collect();
            assert!(faults.is_empty(), "{faults:#?}");
        }
        let a = self.shard.port().accounting();
        assert!(a.balanced() && a.lent == 0, "a frame is lost: {a:?}");
        let log = &self.shard.core.log;
        let live: u64 = log.population.iter().sum::<u64>() - log.population[State::Listen as usize];
        assert_eq!(live, self.shard.records() as u64, "the gauges {:?}", log.population);
        assert_eq!(log.impossible, 0);
    }

    // Ends.

    /// A connection ended this way, and was counted once. Gives its record, of which the books are checked.
    #[track_caller]
    pub fn closed(&mut self, path: ClosePath, first: First, cause: Cause) -> CloseRecord {
        let mut records = std::mem::take(&mut self.service().records);
        assert_eq!(records.len(), 1, "close records: {records:#?}");
        let r = records.remove(0);
        assert_eq!((r.path, r.first, r.cause), (path, first, cause), "{r:#?}");
        assert_eq!(r.tuple, self.tuple());
        assert!(r.opened_at <= r.closed_at && r.opened_at + r.times.total() <= r.closed_at, "{r:#?}");
        let c = self.counters();
        assert!(c.closes[path as usize][first as usize][cause as usize] > 0);
        self.records += 1;
        assert_eq!(c.closes.as_flattened().as_flattened().iter().sum::<u64>(), self.records);
        r
    }

    /// Nothing is left: no record, timer, chunk or frame, and no segment for a long time.
    #[track_caller]
    pub fn all_gone(&mut self) {
        self.nothing();
        assert_eq!(self.shard.records(), 0, "records: {:?}", self.shard.population());
        assert_eq!(self.shard.timers(), 0, "timers");
        assert_eq!(self.shard.chunks_used(), 0, "chunks");
        assert_eq!(self.shard.flights_lent(), 0, "flights");
        self.after(Duration::from_secs(600));
        self.nothing();
        let t = &self.shard.core.tables;
        assert_eq!(t.waits.slots(), 0, "slots of TIME_WAIT");
        assert!(self.service().records.is_empty(), "a close record that nobody looked at");
    }

    /// 2MSL pass and nothing is left.
    #[track_caller]
    pub fn wait_out(&mut self) {
        assert_eq!(self.state(), State::TimeWait);
        let hold = self.shard.core.cfg.time_wait + Duration::from_millis(32);
        self.after(hold);
        self.all_gone();
    }
}

fn relative(base: SeqNum, n: i64) -> SeqNum {
    SeqNum::new(base.raw().wrapping_add(n as u32))
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
