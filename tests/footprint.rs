//! What records take, measured: a shard is filled with one kind of record by the frames of real handshakes and closes, and
//! what has become resident is divided by their number. Alone in its file, so that nothing else in the process grows.

use finwheel::port::replay::{Reel, ReplayPort};
use finwheel::service::{Context, Service};
use finwheel::shard::mailbox::{mailboxes, no_wake};
use finwheel::shard::{CONNECTION_BYTES, Capacity, HALF_OPEN_BYTES, Listener, Parts, Shard, TIME_WAIT_BYTES};
use finwheel::tcp::TcpConfig;
use finwheel::tcp::config::Limits;
use finwheel::tcp::isn::{Secret, ts_val};
use finwheel::tcp::record::CloseRecord;
use finwheel::tcp::state::State;
use finwheel::time::Time;
use finwheel::wire::tcp::Timestamps;
use finwheel::wire::{Addr, Emit, Endpoint, Flags, Header, L2, MacAddr, Options, SeqNum, Tuple};
use std::time::Duration;

/// Records of a kind in a small shard and in a large one: what both take besides is not counted, and the difference is some
/// megabytes, so that pages count for nothing.
const SIZES: [u32; 2] = [8192, 49_152];
/// Connections that take a step together: so many records of the other kinds are touched on the way.
const TOGETHER: u32 = 256;
const PORT: u16 = 443;
const IRS: SeqNum = SeqNum::new(7_000_000);
const SECRET: Secret = Secret::new(3, 5);
const KEY: (u64, u64) = (11, 13);

/// Closes at once, or never.
struct Closer(bool);

impl Service for Closer {
    fn opened(&mut self, cx: &mut dyn Context) {
        if self.0 {
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

/// Pages of this process that are in memory, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("the second number");
    pages
        * nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .expect("a page size")
            .unsigned_abs()
}

/// What a shard is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    HalfOpen,
    Idle,
    TimeWait,
}

fn shard(kind: Kind, records: u32, now: Time) -> Shard<ReplayPort> {
    let room = |of| if kind == of { records as usize } else { 2 * TOGETHER as usize };
    let any = [Addr::v4([0; 4]), Addr::v6([0; 16])];
    Shard::new(Parts {
        port: ReplayPort::new(64),
        // With a limit every connection has a deadline, and so a place on the wheel.
        tcp: TcpConfig {
            syn_cookies: None,
            limits: vec![Limits { idle: Duration::from_secs(3600), ..Limits::DEFAULT }],
            ..TcpConfig::default()
        },
        capacity: Capacity {
            connections: room(Kind::Idle),
            half_open: room(Kind::HalfOpen),
            time_wait: room(Kind::TimeWait),
            chunks: 16,
        },
        listeners: vec![Listener {
            endpoints: any.map(|a| Endpoint::new(a, PORT)).into(),
            service: Box::new(Closer(kind == Kind::TimeWait)),
        }],
        client: None,
        secret: SECRET,
        index_key: KEY,
        mailbox: mailboxes(&[no_wake()]).swap_remove(0).0,
        now,
    })
}

fn tuple(n: u32, v4: bool) -> Tuple {
    let [_, o1, o2, o3] = (n / 10_000).to_be_bytes();
    let (local, remote) = if v4 {
        (Addr::v4([192, 0, 2, 1]), Addr::v4([10, o1, o2, o3]))
    } else {
        let mut prefix = [0; 16];
        prefix[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        let mut remote = prefix;
        remote[12..].copy_from_slice(&[1, o1, o2, o3]);
        (Addr::v6(prefix), Addr::v6(remote))
    };
    Tuple { local: Endpoint::new(local, PORT), remote: Endpoint::new(remote, 1024 + (n % 10_000) as u16) }
}

/// The peer's segments up to where a record of this kind is left.
fn segments(kind: Kind, t: &Tuple, now: Time) -> Vec<Header> {
    let iss = SECRET.of_worker(KEY).isn(t, now);
    let ecr = ts_val(now, SECRET.ts_offset(t));
    let header = |seq: u32, ack: u32, flags, val| Header {
        seq: IRS + seq,
        ack: iss + ack,
        flags,
        window: 502,
        options: Options { timestamps: Some(Timestamps { val, ecr }), ..Options::default() },
    };
    let mut syn = header(0, 0, Flags::SYN, 1);
    syn.ack = SeqNum::new(0);
    syn.options = Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..syn.options };
    let all = [syn, header(1, 1, Flags::ACK, 2), header(1, 2, Flags::FIN | Flags::ACK, 3)];
    let count = match kind {
        Kind::HalfOpen => 1,
        Kind::Idle => 2,
        Kind::TimeWait => 3,
    };
    all[..count].to_vec()
}

/// Bytes that have become resident for a shard with so many records.
fn grown(kind: Kind, records: u32, v4: bool) -> u64 {
    let now = Time::from_micros(1_000_000_000);
    let l2 = L2 { src: MacAddr([2, 0, 0, 0, 0, 2]), dst: MacAddr([2, 0, 0, 0, 0, 1]), ..L2::default() };
    let mut reel = Reel::with_capacity(TOGETHER as usize, 128 * TOGETHER as usize);
    let before = resident();
    let mut shard = shard(kind, records, now);
    for first in (0..records).step_by(TOGETHER as usize) {
        for step in 0..segments(kind, &tuple(0, v4), now).len() {
            reel.clear();
            for n in first..first + TOGETHER {
                let t = tuple(n, v4);
                let header = segments(kind, &t, now)[step];
                let emit = Emit { l2, tuple: &t.flipped(), header: &header, ttl: 64, ecn: 0, ip_id: 0 };
                let mut frame = [0; 128];
                let len = emit.emit(&mut frame, 0).expect("a bare segment fits");
                reel.push(&frame[..len]);
            }
            let _ = shard.port_mut().load(std::mem::take(&mut reel));
            while shard.port().left() > 0 {
                let turn = shard.turn(now).expect("a replay port does not fail");
                std::hint::black_box(turn);
            }
            reel = shard.port_mut().load(Reel::default());
        }
    }
    let grown = resident() - before;
    let state = match kind {
        Kind::HalfOpen => State::SynReceived,
        Kind::Idle => State::Established,
        Kind::TimeWait => State::TimeWait,
    };
    assert_eq!(shard.population()[state as usize], u64::from(records), "{kind:?}");
    assert_eq!(shard.flights_lent(), 0, "nothing is on its way");
    assert_eq!(shard.audit(), [""; 0]);
    // Its memory is not given to the next one, which would find it resident.
    std::mem::forget(shard);
    grown
}

#[test]
fn records_take_the_memory_that_is_written_down() {
    // The first shard pays for what a process takes once.
    let _ = grown(Kind::HalfOpen, SIZES[0], true);
    for (kind, bytes) in
        [(Kind::TimeWait, TIME_WAIT_BYTES), (Kind::HalfOpen, HALF_OPEN_BYTES), (Kind::Idle, CONNECTION_BYTES)]
    {
        for (v4, written) in [(true, bytes[0]), (false, bytes[1])] {
            let [small, large] = SIZES.map(|records| grown(kind, records, v4));
            let got = (large - small) as f64 / f64::from(SIZES[1] - SIZES[0]);
            let written = written as f64;
            println!("{kind:?}, {}: {got:.1} bytes, {written} written", if v4 { "IPv4" } else { "IPv6" });
            // A connection's places in the queues are touched only as it waits.
            assert!(got > written * 0.93 && got < written * 1.05, "{kind:?}: {got:.1}, {written} written");
        }
    }
}
