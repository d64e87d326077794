//! A shard on a replay port, and the peer's segments for whole lives of connections, made beforehand.

use finwheel::port::replay::{Reel, ReplayPort};
use finwheel::service::{Context, Service};
use finwheel::shard::mailbox::{mailboxes, no_wake};
use finwheel::shard::{Capacity, Listener, Parts, Shard};
use finwheel::tcp::TcpConfig;
use finwheel::tcp::isn::{Secret, ts_val};
use finwheel::tcp::record::CloseRecord;
use finwheel::tcp::state::State;
use finwheel::time::Time;
use finwheel::wire::emit::Emit;
use finwheel::wire::tcp::Timestamps;
use finwheel::wire::{Addr, Endpoint, Flags, Header, L2, MacAddr, Options, SeqNum, Tuple};
use std::time::{Duration, Instant};

/// Connections that are open at the same time: those that come in a millisecond or two at the rates measured here. Their
/// records do not fit in the second-level cache, as they would not at work.
pub const CONCURRENT: u32 = 4096;

/// How long `TIME_WAIT` lasts.
const TWO_MSL: Duration = Duration::from_secs(60);
const IRS: SeqNum = SeqNum::new(1_000_000);
const PORT: u16 = 443;

/// Who closes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The shard, as soon as the connection is open: three segments in, three out, and a `TIME_WAIT` record, for which
    /// an older one expires.
    Us,
    /// The peer: four segments in, two out, and nothing stays.
    Peer,
}

/// Closes at once, or after the peer.
struct Closer(First);

impl Service for Closer {
    fn opened(&mut self, cx: &mut dyn Context) {
        if self.0 == First::Us {
            cx.close();
        }
    }
    fn data(&mut self, _: &mut dyn Context, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn peer_closed(&mut self, cx: &mut dyn Context) {
        cx.close();
    }
    fn closed(&mut self, _: &Tuple, _: u32, _: &CloseRecord) {}
}

/// A shard with so many `TIME_WAIT` records that it stays at, and the peer of all its connections.
pub struct Lives {
    pub shard: Shard<ReplayPort>,
    pub mailbox: finwheel::shard::mailbox::Handle,
    secret: Secret,
    pub now: Time,
    /// Time between two rounds, so that as many records expire as enter.
    step: Duration,
    /// Number of the next connection.
    next: u32,
    first: First,
    v4: bool,
    reels: [Reel; 4],
}

impl Lives {
    /// A shard that takes bursts of up to `burst` frames and has `residents` in `TIME_WAIT`.
    pub fn new(residents: usize, burst: usize, v4: bool) -> Self {
        let secret = Secret::new(7, 9);
        let now = Time::from_micros(1_000_000_000);
        let any = if v4 { Addr::v4([0; 4]) } else { Addr::v6([0; 16]) };
        let listener =
            Listener { endpoints: vec![Endpoint::new(any, PORT)], service: Box::new(Closer(First::Us)) };
        let other = Listener {
            endpoints: vec![Endpoint::new(any, PORT + 1)],
            service: Box::new(Closer(First::Peer)),
        };
        let (mine, handle) = mailboxes(&[no_wake()]).swap_remove(0);
        let shard = Shard::new(Parts {
            port: ReplayPort::new(burst),
            tcp: TcpConfig { time_wait: TWO_MSL, syn_cookies: None, ..TcpConfig::default() },
            capacity: Capacity {
                connections: 4 * CONCURRENT as usize,
                half_open: 4 * CONCURRENT as usize,
                // One round more: records enter before the oldest expire.
                time_wait: residents + 4 * CONCURRENT as usize,
                chunks: 1024,
            },
            listeners: vec![listener, other],
            client: None,
            secret,
            index_key: (11, 13),
            mailbox: mine,
            now,
        });
        let step = TWO_MSL.checked_mul(CONCURRENT).unwrap() / residents.max(CONCURRENT as usize) as u32;
        let mut lives = Self {
            shard,
            mailbox: handle,
            secret,
            now,
            step: if residents == 0 { 2 * TWO_MSL } else { step },
            next: 0,
            first: First::Us,
            v4,
            reels: Default::default(),
        };
        while lives.next < residents as u32 {
            lives.round();
        }
        let (held, round) = (lives.residents(), u64::from(CONCURRENT));
        assert!(held.abs_diff(residents as u64) <= 2 * round, "{held} in TIME_WAIT, not {residents}");
        lives
    }

    /// Who closes first from now on.
    pub fn closed_by(mut self, first: First) -> Self {
        self.first = first;
        self
    }

    /// `TIME_WAIT` records held.
    fn residents(&self) -> u64 {
        self.shard.population()[State::TimeWait as usize]
    }

    fn tuple(&self, n: u32) -> Tuple {
        let [o0, o1, o2, o3] = (n / 50_000).to_be_bytes();
        let (local, remote) = if self.v4 {
            (Addr::v4([192, 0, 2, 1]), Addr::v4([10, o1, o2, o3]))
        } else {
            let mut prefix = [0; 16];
            prefix[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
            let mut remote = prefix;
            remote[12..].copy_from_slice(&[o0, o1, o2, o3]);
            (Addr::v6(prefix), Addr::v6(remote))
        };
        let port = PORT + u16::from(self.first == First::Peer);
        Tuple { local: Endpoint::new(local, port), remote: Endpoint::new(remote, 1024 + (n % 50_000) as u16) }
    }

    /// The peer's segments of one connection, one for each reel.
    fn segments(&self, tuple: &Tuple) -> [Option<Header>; 4] {
        let iss = self.secret.isn(tuple, self.now);
        let echoed = ts_val(self.now, self.secret.ts_offset(tuple));
        let ts = |val, ecr| Options { timestamps: Some(Timestamps { val, ecr }), ..Options::default() };
        let header = |seq: u32, ack: u32, flags, val| Header {
            seq: IRS + seq,
            ack: iss + ack,
            flags,
            window: 502,
            options: ts(val, echoed),
        };
        let syn = Header {
            seq: IRS,
            ack: SeqNum::new(0),
            flags: Flags::SYN,
            window: 64_240,
            options: Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..ts(1, 0) },
        };
        let ack = header(1, 1, Flags::ACK, 2);
        let (fin, last) = match self.first {
            First::Us => (header(1, 2, Flags::FIN | Flags::ACK, 3), None),
            First::Peer => (header(1, 1, Flags::FIN | Flags::ACK, 3), Some(header(2, 2, Flags::ACK, 4))),
        };
        [Some(syn), Some(ack), Some(fin), last]
    }

    fn prepare(&mut self) {
        let mut reels = std::mem::take(&mut self.reels);
        for reel in &mut reels {
            reel.clear();
        }
        let l2 = L2 { src: MacAddr([2, 0, 0, 0, 0, 2]), dst: MacAddr([2, 0, 0, 0, 0, 1]), ..L2::default() };
        for n in self.next..self.next + CONCURRENT {
            let tuple = self.tuple(n);
            for (reel, header) in reels.iter_mut().zip(self.segments(&tuple)) {
                let Some(header) = header else { continue };
                let mut frame = [0; 128];
                let emit =
                    Emit { l2, tuple: &tuple.flipped(), header: &header, ttl: 64, ecn: 0, ip_id: n as u16 };
                let len = emit.emit(&mut frame, 0).expect("a bare segment fits");
                reel.push(&frame[..len]);
            }
        }
        self.next += CONCURRENT;
        self.reels = reels;
    }

    /// [`CONCURRENT`] lives, and the time the shard took for them.
    pub fn round(&mut self) -> Duration {
        self.prepare();
        let closes = match self.first {
            First::Us => State::TimeWait,
            First::Peer => State::Closed,
        };
        let before = self.answers();
        let mut took = Duration::ZERO;
        for stage in 0..self.reels.len() {
            let reel = std::mem::take(&mut self.reels[stage]);
            if reel.left() == 0 {
                self.reels[stage] = reel;
                continue;
            }
            let empty = self.shard.port_mut().load(reel);
            let begun = Instant::now();
            while self.shard.port().left() > 0 {
                let turn = self.shard.turn(self.now).expect("a replay port does not fail");
                std::hint::black_box(turn);
            }
            took += begun.elapsed();
            self.reels[stage] = self.shard.port_mut().load(empty);
            self.now += Duration::from_micros(10);
        }
        assert_eq!(self.shard.live(), 0, "every connection is closed ({closes:?})");
        assert_eq!(self.answers() - before, u64::from(CONCURRENT) * self.answers_per_life(), "answers");
        self.now += self.step;
        took
    }

    /// Segments that a life draws from the shard.
    fn answers_per_life(&self) -> u64 {
        match self.first {
            First::Us => 3,
            First::Peer => 2,
        }
    }

    fn answers(&mut self) -> u64 {
        use finwheel::port::Port;
        self.shard.port_mut().stats().tx_frames
    }
}
