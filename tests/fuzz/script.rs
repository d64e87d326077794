//! From the bytes of an input to what happens: a head of 8 bytes sets the shard up, each further 8 are one step.

use crate::engine::Reader;
use crate::service::End;
use finwheel::shard::Capacity;
use finwheel::tcp::TcpConfig;
use finwheel::tcp::config::{KeepAlive, Limits};
use finwheel::tcp::congestion::Algorithm;
use std::time::Duration;

/// Bytes of a step.
const STEP: usize = 8;
/// Most steps of an input; more would be slow and find nothing that fewer do not.
const MAX_STEPS: usize = 64;

/// The shard under test.
#[derive(Clone, Debug)]
pub struct Setup {
    pub tcp: TcpConfig,
    pub capacity: Capacity,
    /// Frames of its port.
    pub frames: u32,
    pub appetite: usize,
    pub greeting: usize,
    pub end: End,
    pub answers: bool,
    /// Options of the peers' SYNs: 1 MSS, 2 scale, 4 SACK, 8 timestamps.
    pub syn: u8,
}

/// One thing that happens. `who` is a peer.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// An arbitrary segment; its numbers are relative to where the connection stands.
    Segment { who: u8, flags: u8, seq: u8, ack: u8, win: u8, len: u8, options: u8 },
    /// A whole handshake, or the answer to a SYN of the shard's.
    Open { who: u8, options: u8 },
    /// Data in order (or `ahead` bytes beyond), which acknowledges all that was seen.
    Data { who: u8, len: u16, ahead: u16 },
    /// An acknowledgment of all that was seen.
    Ack { who: u8, win: u16 },
    /// The peer's FIN, in order.
    Fin { who: u8 },
    /// Time passes.
    Wait { ms: u64 },
    /// The service writes.
    Write { who: u8, len: u16 },
    /// The service ends the connection.
    End { who: u8, how: End },
    /// The service reads so much of each offer from now on, and is offered what is unread.
    Appetite { who: u8, bytes: u16 },
    /// A connection is opened from here.
    Connect { who: u8 },
    /// An ICMP error about a segment.
    Icmp { who: u8, kind: u8, code: u8, seq: u8, mtu: u16 },
    /// A frame that was sent before, with a byte changed when `flip` is not 0.
    Again { back: u8, at: u8, flip: u8 },
    /// The next so many frames come in one burst.
    Burst { frames: u8 },
    /// The worker drains; or its time is over.
    Drain { over: bool },
}

impl Setup {
    pub fn read(r: &mut Reader<'_>) -> Self {
        let (sizes, cookies, buffers, law) = (r.u8(), r.u8(), r.u8(), r.u8());
        let (service, syn, times, ends) = (r.u8(), r.u8(), r.u8(), r.u8());
        let small = sizes & 1 != 0;
        let mut limits = Limits {
            idle: Duration::from_secs(30),
            linger_bytes: 3000,
            linger_time: Duration::from_secs(2),
            congestion: if law & 1 == 0 { Algorithm::Cubic } else { Algorithm::NewReno },
            ..Limits::DEFAULT
        };
        if law & 8 != 0 {
            let (idle, interval) = (Duration::from_secs(5), Duration::from_secs(2));
            limits.keep_alive = Some(KeepAlive { idle, interval, probes: 3 });
        }
        let tcp = TcpConfig {
            time_wait: Duration::from_millis(if times & 1 == 0 { 2000 } else { 60_000 }),
            syn_retries: 2,
            syn_cookies: [None, Some(0), Some(50), Some(75)][usize::from(cookies % 4)],
            send_buffer: 2048 << (buffers % 6),
            receive_buffer: 2048 << (buffers / 6 % 8),
            nagle: law & 2 != 0,
            delayed_ack: Duration::from_millis(if law & 4 == 0 { 40 } else { 0 }),
            challenge_acks: 2,
            stray_replies: 4,
            give_up: Duration::from_secs(100),
            limits: vec![limits; 2],
            mss: (times & 2 != 0).then_some(200),
            ..TcpConfig::default()
        };
        let capacity = if small {
            Capacity { connections: 2, half_open: 2, time_wait: 2, chunks: 16 }
        } else {
            Capacity { connections: 8, half_open: 4, time_wait: 8, chunks: 64 }
        };
        Self {
            tcp,
            capacity,
            frames: if sizes & 2 == 0 { 256 } else { 16 },
            appetite: [usize::MAX, 0, 1, 700][usize::from(service % 4)],
            greeting: usize::from(service >> 4) * 300,
            end: End::from(ends),
            answers: service & 8 != 0,
            syn,
        }
    }
}

/// The steps of an input.
pub fn steps(bytes: &[u8]) -> Vec<Step> {
    bytes.chunks(STEP).take(MAX_STEPS).map(|b| step(&mut Reader(b))).collect()
}

fn step(r: &mut Reader<'_>) -> Step {
    let (what, who) = (r.u8(), r.u8());
    match what % 20 {
        0..4 => Step::Segment {
            who,
            flags: r.u8(),
            seq: r.u8(),
            ack: r.u8(),
            win: r.u8(),
            len: r.u8(),
            options: r.u8(),
        },
        4 | 5 => Step::Open { who, options: r.u8() },
        6 | 7 => Step::Data { who, len: r.u16() % 1400, ahead: 0 },
        8 => Step::Data { who, len: r.u16() % 1400, ahead: r.u16() % 4000 },
        9 | 10 => Step::Ack { who, win: r.u16() },
        11 => Step::Fin { who },
        12 => Step::Wait { ms: u64::from(r.u8()) << r.below(11) },
        13 => Step::Write { who, len: r.u16() },
        14 => Step::End { who, how: End::from(r.u8()) },
        15 => Step::Appetite { who, bytes: r.u16() },
        16 => Step::Connect { who },
        17 => Step::Icmp { who, kind: r.u8(), code: r.u8() % 8, seq: r.u8(), mtu: r.u16() },
        18 => Step::Again { back: who, at: r.u8(), flip: r.u8() },
        _ => match r.u8() {
            0 => Step::Drain { over: false },
            1 => Step::Drain { over: true },
            n => Step::Burst { frames: n % 16 },
        },
    }
}
