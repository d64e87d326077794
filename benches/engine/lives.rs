//! A shard on a replay port, and the peer's segments for whole lives of connections, made beforehand.

// Each bench takes what it needs of it.
#![allow(dead_code)]

use finwheel::metrics::block::Counters;
use finwheel::port::replay::{Reel, ReplayPort};
use finwheel::service::{Context, Service};
use finwheel::shard::mailbox::{Mailbox, mailboxes, no_wake};
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
pub const TWO_MSL: Duration = Duration::from_secs(60);

/// Steps of the longest life.
const STEPS: usize = 6;

/// Bytes of a data segment.
const PAYLOAD: usize = 100;

/// A peer's first port, and how many it uses.
pub const FIRST_PORT: u16 = 1024;
pub const PORTS: u32 = 50_000;

const IRS: SeqNum = SeqNum::new(1_000_000);
const PORT: u16 = 443;
const INDEX_KEY: (u64, u64) = (11, 13);

/// How a life goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The shard closes first, as soon as the connection is open, and the peer's FIN acknowledges ours: three segments in,
    /// three out, and a `TIME_WAIT` record, for which an older one expires.
    WeClose,
    /// The same, but the peer acknowledges our FIN before it sends its own: four segments in, three out.
    WeCloseApart,
    /// The peer closes first: four segments in, two out, and nothing stays.
    PeerCloses,
    /// The same after a data segment, which the service takes.
    PeerSendsAndCloses,
    /// The same after two data segments in the wrong order.
    PeerSendsOutOfOrder,
}

/// What comes in, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Syn,
    Ack,
    Later,
    Data,
    AckOfFin,
    Fin,
    LastAck,
}

impl Step {
    /// As keys have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Ack => "ack",
            Self::Later => "out_of_order",
            Self::Data => "data",
            Self::AckOfFin => "ack_of_fin",
            Self::Fin => "fin",
            Self::LastAck => "last_ack",
        }
    }
}

impl Life {
    pub const fn steps(self) -> &'static [Step] {
        use Step::{Ack, AckOfFin, Data, Fin, LastAck, Later, Syn};
        match self {
            Self::WeClose => &[Syn, Ack, Fin],
            Self::WeCloseApart => &[Syn, Ack, AckOfFin, Fin],
            Self::PeerCloses => &[Syn, Ack, Fin, LastAck],
            Self::PeerSendsAndCloses => &[Syn, Ack, Data, Fin, LastAck],
            Self::PeerSendsOutOfOrder => &[Syn, Ack, Later, Data, Fin, LastAck],
        }
    }

    const fn we_close(self) -> bool {
        matches!(self, Self::WeClose | Self::WeCloseApart)
    }

    /// Bytes that the peer sends.
    const fn bytes(self) -> usize {
        match self {
            Self::WeClose | Self::WeCloseApart | Self::PeerCloses => 0,
            Self::PeerSendsAndCloses => PAYLOAD,
            Self::PeerSendsOutOfOrder => 2 * PAYLOAD,
        }
    }

    /// Segments that a life draws from the shard.
    const fn answers(self) -> u64 {
        match self {
            Self::WeClose | Self::WeCloseApart => 3,
            Self::PeerCloses | Self::PeerSendsAndCloses => 2,
            // What is missing is said at once, and so is that it came.
            Self::PeerSendsOutOfOrder => 4,
        }
    }
}

/// Closes at once, or after the peer.
struct Closer {
    first: bool,
    /// Takes memory for each connection, as no service should.
    hoards: bool,
}

impl Service for Closer {
    fn opened(&mut self, cx: &mut dyn Context) {
        if self.hoards {
            drop(std::hint::black_box(vec![0u8; 64]));
        }
        if self.first {
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

/// The most records that a shard is made for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub time_wait: usize,
    pub connections: usize,
    pub half_open: usize,
    pub v4: bool,
    pub hoards: bool,
}

impl Room {
    /// For `residents` in `TIME_WAIT` and the lives of two rounds.
    pub const fn with(residents: usize) -> Self {
        let round = 4 * CONCURRENT as usize;
        // One round more: records enter before the oldest expire.
        Self { time_wait: residents + round, connections: round, half_open: round, v4: true, hoards: false }
    }
}

/// A shard, and the peer of all its connections.
pub struct Lives {
    shard: Shard<ReplayPort>,
    secret: Secret,
    isn_secret: Secret,
    now: Time,
    /// Time between two rounds.
    step: Duration,
    /// Number of the next connection.
    next: u32,
    /// Connections that are open and stay so, and half-open ones.
    idle: usize,
    v4: bool,
    reel: Reel,
    /// Time of each step of the present round.
    pub took: [Duration; STEPS],
}

impl Lives {
    /// A shard that has no connection yet.
    pub fn new(room: Room) -> Self {
        Self::at(room, mailboxes(&[no_wake()]).swap_remove(0).0)
    }

    /// A shard of a group of workers.
    pub fn at(room: Room, mailbox: Mailbox) -> Self {
        let secret = Secret::new(7, 9);
        let now = Time::from_micros(1_000_000_000);
        let any = if room.v4 { Addr::v4([0; 4]) } else { Addr::v6([0; 16]) };
        let listener = |port, first| Listener {
            endpoints: vec![Endpoint::new(any, port)],
            service: Box::new(Closer { first, hoards: room.hoards }),
        };
        let shard = Shard::new(Parts {
            port: ReplayPort::new(finwheel::port::BURST),
            tcp: TcpConfig {
                time_wait: TWO_MSL,
                syn_cookies: None,
                stray_replies: u32::MAX,
                ..TcpConfig::default()
            },
            capacity: Capacity {
                connections: room.connections,
                half_open: room.half_open,
                time_wait: room.time_wait,
                chunks: 4 * room.connections,
            },
            listeners: vec![listener(PORT, true), listener(PORT + 1, false)],
            client: None,
            secret,
            index_key: INDEX_KEY,
            mailbox,
            now,
        });
        Self {
            shard,
            secret,
            isn_secret: secret.of_worker(INDEX_KEY),
            now,
            step: Duration::ZERO,
            next: 0,
            idle: 0,
            v4: room.v4,
            reel: Reel::with_capacity(CONCURRENT as usize, CONCURRENT as usize * (96 + PAYLOAD)),
            took: [Duration::ZERO; STEPS],
        }
    }

    /// Has `residents` in `TIME_WAIT`, and from then on as many expire as enter.
    pub fn populated(mut self, residents: usize) -> Self {
        let rounds = (residents as u32).div_ceil(CONCURRENT);
        self.step = if rounds == 0 { 2 * TWO_MSL } else { TWO_MSL / rounds };
        for _ in 0..rounds {
            self.round(Life::WeClose);
        }
        let held = self.residents();
        let round = u64::from(CONCURRENT);
        assert!(held.abs_diff(residents as u64) <= 2 * round, "{held} in TIME_WAIT, not {residents}");
        self
    }

    /// Has at least `residents` more in `TIME_WAIT`, all of the same instant.
    pub fn populated_at_once(mut self, residents: usize) -> Self {
        self.step = Duration::ZERO;
        for _ in 0..(residents as u32).div_ceil(CONCURRENT) {
            self.round(Life::WeClose);
        }
        self
    }

    /// Frames that are received together from now on.
    pub fn set_burst(&mut self, burst: usize) {
        self.shard.port_mut().set_burst(burst);
    }

    /// `TIME_WAIT` records held.
    pub fn residents(&self) -> u64 {
        self.shard.population()[State::TimeWait as usize]
    }

    pub fn counters(&mut self) -> Counters {
        self.shard.snapshot().counters
    }

    /// Fills the reel with one segment for each connection from `first` on.
    fn prepare(&mut self, first: u32, count: u32, begun: Time, life: Life, step: Step) {
        let mut reel = std::mem::take(&mut self.reel);
        reel.clear();
        for n in first..first + count {
            let tuple = tuple(n, life, self.v4);
            let iss = self.isn_secret.isn(&tuple, begun);
            let echoed = ts_val(begun, self.secret.ts_offset(&tuple));
            let mut frame = [0; 256];
            let len = peer_frame(&mut frame, &tuple, (iss, echoed), life, step);
            reel.push(&frame[..len]);
        }
        self.reel = reel;
    }

    /// [`CONCURRENT`] lives in which our FIN is lost and sent again when its time has come.
    pub fn round_with_a_lost_fin(&mut self) {
        let before = self.counters().retransmissions.iter().sum::<u64>();
        let (first, begun, life) = (self.next, self.now, Life::WeCloseApart);
        self.next += CONCURRENT;
        for &step in life.steps() {
            if step == Step::AckOfFin {
                self.wait(Duration::from_secs(2));
            }
            self.prepare(first, CONCURRENT, begun, life, step);
            let _ = self.play(|_| ());
            self.now += Duration::from_micros(10);
        }
        let again = self.counters().retransmissions.iter().sum::<u64>() - before;
        assert!(again >= u64::from(CONCURRENT), "{again} retransmissions");
        assert_eq!(self.shard.live(), self.idle, "every connection is closed");
        self.now += self.step;
    }

    /// Time passes without a frame.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(1);
            while self.shard.turn(self.now).expect("a replay port does not fail").worked {}
        }
    }

    /// The first steps of [`CONCURRENT`] lives, for which the shard is left as it is then: to be used no more.
    pub fn begin(&mut self, life: Life, steps: usize) {
        for &step in &life.steps()[..steps] {
            self.prepare(0, CONCURRENT, self.now, life, step);
            let _ = self.play(|_| ());
        }
    }

    /// Plays the reel; `after` hears how long each turn took.
    #[inline(never)]
    fn play(&mut self, mut after: impl FnMut(Duration)) -> Duration {
        let empty = self.shard.port_mut().load(std::mem::take(&mut self.reel));
        let begun = Instant::now();
        let mut last = begun;
        while self.shard.port().left() > 0 {
            let turn = self.shard.turn(self.now).expect("a replay port does not fail");
            std::hint::black_box(turn);
            if size_of_val(&after) > 0 {
                let now = Instant::now();
                after(now - last);
                last = now;
            }
        }
        let took = begun.elapsed();
        self.reel = self.shard.port_mut().load(empty);
        took
    }

    /// [`CONCURRENT`] lives, and the time the shard took for them.
    pub fn round(&mut self, life: Life) -> Duration {
        self.round_by(life, |_| ())
    }

    fn round_by(&mut self, life: Life, mut after: impl FnMut(Duration)) -> Duration {
        let before = self.answers();
        let (first, begun) = (self.next, self.now);
        self.next += CONCURRENT;
        self.took = [Duration::ZERO; STEPS];
        for (i, &step) in life.steps().iter().enumerate() {
            self.prepare(first, CONCURRENT, begun, life, step);
            self.took[i] = self.play(&mut after);
            self.now += Duration::from_micros(10);
        }
        assert_eq!(self.shard.live(), self.idle, "every connection is closed ({life:?})");
        assert_eq!(self.answers() - before, u64::from(CONCURRENT) * life.answers(), "answers");
        self.now += self.step;
        self.took.iter().sum()
    }

    /// Opens `count` connections that stay: idle ones, or half-open ones without the handshake's ACK.
    pub fn open(&mut self, count: usize, half: bool) {
        let steps = &Life::PeerCloses.steps()[..if half { 1 } else { 2 }];
        let end = self.next + count as u32;
        while self.next < end {
            let (first, begun, n) = (self.next, self.now, CONCURRENT.min(end - self.next));
            for &step in steps {
                self.prepare(first, n, begun, Life::PeerCloses, step);
                let _ = self.play(|_| ());
            }
            self.next += n;
        }
        self.idle += count;
        assert_eq!(self.shard.live(), self.idle, "all are open");
    }

    /// Time for [`CONCURRENT`] segments that belong to nothing and are answered by RST.
    pub fn strays(&mut self) -> Duration {
        let before = self.answers();
        // Beyond all that are given to connections.
        self.prepare(1 << 31, CONCURRENT, self.now, Life::PeerCloses, Step::Ack);
        let took = self.play(|_| ());
        assert_eq!(self.answers() - before, u64::from(CONCURRENT), "RSTs");
        took
    }

    /// All `TIME_WAIT` records expire, with nothing else to do: how many, and the time that took.
    #[inline(never)]
    pub fn expire(&mut self) -> (u64, Duration) {
        let held = self.residents();
        self.now += 2 * TWO_MSL;
        let begun = Instant::now();
        while self.residents() > 0 {
            let turn = self.shard.turn(self.now).expect("a replay port does not fail");
            std::hint::black_box(turn);
        }
        (held, begun.elapsed())
    }

    /// All `TIME_WAIT` records come due, and lives go on: the time of each turn, so between two bursts, until the last
    /// has expired.
    pub fn expire_among_lives(&mut self) -> Vec<Duration> {
        let expired = |lives: &mut Self| lives.counters().time_wait_expired;
        let all = expired(self) + self.residents();
        self.now += 2 * TWO_MSL;
        let mut turns = Vec::with_capacity(1 << 16);
        while expired(self) < all {
            self.round_by(Life::PeerCloses, |took| turns.push(took));
        }
        turns
    }

    /// The longest turn of a round of lives.
    pub fn longest_turn(&mut self) -> Duration {
        let mut longest = Duration::ZERO;
        self.round_by(Life::PeerCloses, |took| longest = longest.max(took));
        longest
    }

    fn answers(&mut self) -> u64 {
        use finwheel::port::Port;
        self.shard.port_mut().stats().tx_frames
    }
}

/// The name of connection `n`.
pub fn tuple(n: u32, life: Life, v4: bool) -> Tuple {
    let [o0, o1, o2, o3] = (n / PORTS).to_be_bytes();
    let (local, remote) = if v4 {
        (Addr::v4([192, 0, 2, 1]), Addr::v4([10, o1, o2, o3]))
    } else {
        let mut prefix = [0; 16];
        prefix[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        let mut remote = prefix;
        remote[12..].copy_from_slice(&[o0, o1, o2, o3]);
        (Addr::v6(prefix), Addr::v6(remote))
    };
    let port = PORT + u16::from(!life.we_close());
    Tuple {
        local: Endpoint::new(local, port),
        remote: Endpoint::new(remote, FIRST_PORT + (n % PORTS) as u16),
    }
}

/// Writes the peer's segment of one step; `iss` is our initial sequence number, `echoed` our timestamp.
pub fn peer_frame(
    frame: &mut [u8],
    tuple: &Tuple,
    (iss, echoed): (SeqNum, u32),
    life: Life,
    step: Step,
) -> usize {
    let ts = |val, ecr| Options { timestamps: Some(Timestamps { val, ecr }), ..Options::default() };
    let header = |seq: u32, ack: u32, flags, val| Header {
        seq: IRS + seq,
        ack: iss + ack,
        flags,
        window: 502,
        options: ts(val, echoed),
    };
    let sent = 1 + life.bytes() as u32;
    let of_fin = if life.we_close() { 2 } else { 1 };
    let (header, payload) = match step {
        Step::Syn => {
            let options =
                Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..ts(1, 0) };
            (Header { seq: IRS, ack: SeqNum::new(0), flags: Flags::SYN, window: 64_240, options }, 0)
        }
        Step::Ack => (header(1, 1, Flags::ACK, 2), 0),
        Step::Later => (header(1 + PAYLOAD as u32, 1, Flags::PSH | Flags::ACK, 3), PAYLOAD),
        Step::Data => (header(1, 1, Flags::PSH | Flags::ACK, 3), PAYLOAD),
        Step::AckOfFin => (header(1, 2, Flags::ACK, 3), 0),
        Step::Fin => (header(sent, of_fin, Flags::FIN | Flags::ACK, 4), 0),
        Step::LastAck => (header(sent + 1, 2, Flags::ACK, 5), 0),
    };
    let l2 = L2 { src: MacAddr([2, 0, 0, 0, 0, 2]), dst: MacAddr([2, 0, 0, 0, 0, 1]), ..L2::default() };
    let emit = Emit { l2, tuple: &tuple.flipped(), header: &header, ttl: 64, ecn: 0, ip_id: 1 };
    emit.emit(frame, payload).expect("a short segment fits")
}
