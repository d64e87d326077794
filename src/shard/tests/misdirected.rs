//! Several workers, and frames that land at the wrong one: passed on within bounds, served, answered once.

use crate::drop::DropReason;
use crate::port::Port;
use crate::port::mem::{Direction, LinkConfig, LinkHandle, MemPort, link_multi};
use crate::service::{Context, Service};
use crate::shard::ingress::FORWARDS_PER_SECOND;
use crate::shard::mailbox::{mailboxes, no_wake};
use crate::shard::{Capacity, Listener, Parts, Shard};
use crate::tcp::TcpConfig;
use crate::tcp::isn::Secret;
use crate::tcp::record::CloseRecord;
use crate::tcp::state::State;
use crate::time::Time;
use crate::wire::{self, Addr, Emit, Endpoint, Flags, Header, L2, MacAddr, Parsed, SeqNum, Tuple};

/// Echoes, and closes at a `!`.
struct Echo;
impl Service for Echo {
    fn opened(&mut self, _: &mut dyn Context) {}
    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        if bytes.contains(&b'!') {
            cx.close();
            return bytes.len();
        }
        cx.send(bytes)
    }
    fn peer_closed(&mut self, cx: &mut dyn Context) {
        cx.close();
    }
    fn closed(&mut self, _: &Tuple, _: u32, _: &CloseRecord) {}
}

/// Workers behind one wire whose frames land where the test says.
struct Group {
    shards: Vec<Shard<MemPort>>,
    /// The far ends: one link a worker.
    wires: Vec<(MemPort, LinkHandle)>,
    now: Time,
}

impl Group {
    fn new(workers: usize, tcp: &TcpConfig) -> Self {
        Self::with(workers, tcp, LinkConfig::default().mtu)
    }

    fn with(workers: usize, tcp: &TcpConfig, mtu: u16) -> Self {
        let now = Time::from_micros(5_000_000);
        let wakes: Vec<_> = (0..workers).map(|_| no_wake()).collect();
        let mut wires = Vec::new();
        let shards = mailboxes(&wakes)
            .into_iter()
            .enumerate()
            .map(|(i, (mailbox, _))| {
                let (mut a, mut b, link) = link_multi(LinkConfig { mtu, ..LinkConfig::default() }, 1, 1);
                link.advance(now);
                wires.push((a.pop().expect("one"), link));
                Shard::new(Parts {
                    port: b.pop().expect("one"),
                    tcp: tcp.clone(),
                    capacity: Capacity { connections: 16, half_open: 16, time_wait: 16, chunks: 64 },
                    listeners: vec![Listener {
                        endpoints: vec![Endpoint::new(Addr::v4([10, 0, 0, 1]), 80)],
                        service: Box::new(Echo),
                    }],
                    client: None,
                    secret: Secret::new(1, 2),
                    index_key: (i as u64, 7),
                    mailbox,
                    now,
                })
            })
            .collect();
        Self { shards, wires, now }
    }

    /// A segment of the client lands at a worker; what all of them answer once they are at rest, and who did.
    fn send(&mut self, at: usize, header: &Header, payload: &[u8]) -> Vec<(usize, Header, Vec<u8>)> {
        self.put(at, header, payload);
        self.run()
    }

    fn put(&mut self, at: usize, header: &Header, payload: &[u8]) {
        let tuple = Tuple {
            local: Endpoint::new(Addr::v4([10, 0, 0, 9]), 4000),
            remote: Endpoint::new(Addr::v4([10, 0, 0, 1]), 80),
        };
        let l2 = L2 { src: MacAddr([2, 0, 0, 0, 0, 1]), dst: MacAddr([2, 0, 0, 0, 0, 2]), vlan: None };
        let emit = Emit { l2, tuple: &tuple, header, ttl: 64, ecn: 0, ip_id: 0 };
        let mut bytes = vec![0; emit.headers_len() + payload.len()];
        bytes[emit.headers_len()..].copy_from_slice(payload);
        let _ = emit.emit(&mut bytes, payload.len()).expect("it fits");
        self.wires[at].1.inject(Direction::AToB, &bytes);
    }

    fn run(&mut self) -> Vec<(usize, Header, Vec<u8>)> {
        let mut seen = Vec::new();
        let mut turns = 0;
        loop {
            let mut worked = false;
            for (i, shard) in self.shards.iter_mut().enumerate() {
                let (wire, link) = &mut self.wires[i];
                link.advance(self.now);
                worked |= shard.turn(self.now).expect("a simulated port").worked;
                link.advance(self.now);
                let mut frames = Vec::new();
                worked |= wire.rx(&mut frames) > 0;
                for f in frames {
                    let bytes = wire.bytes(&f);
                    let Ok(Parsed::Tcp(s)) = wire::parse(bytes, wire::Checksums::Verify) else {
                        panic!("no segment")
                    };
                    let text = bytes[usize::from(s.payload.start)..usize::from(s.payload.end)].to_vec();
                    seen.push((i, s.header, text));
                    wire.free(f);
                }
                wire.flush().expect("a simulated port");
            }
            if !worked {
                break;
            }
            turns += 1;
            assert!(turns < 10_000, "frames go round for ever");
        }
        for s in &self.shards {
            let a = s.port().accounting();
            assert!(a.balanced() && a.lent == 0, "{a:?}");
        }
        seen
    }

    /// A counter of each worker.
    fn each(&mut self, f: impl Fn(&crate::metrics::block::Counters) -> u64) -> Vec<u64> {
        self.shards.iter_mut().map(|s| f(&s.snapshot().counters)).collect()
    }
}

fn header(flags: Flags, seq: u32, ack: SeqNum) -> Header {
    Header { seq: SeqNum::new(seq), ack, flags, window: 60_000, ..Header::default() }
}

/// Three-way handshake at worker 0; the server's initial sequence number.
fn open(g: &mut Group) -> SeqNum {
    let seen = g.send(0, &header(Flags::SYN, 100, SeqNum::new(0)), &[]);
    assert_eq!(seen.len(), 1);
    let iss = seen[0].1.seq;
    // The ACK already lands elsewhere.
    let elsewhere = 1 % g.shards.len();
    assert_eq!(g.send(elsewhere, &header(Flags::ACK, 101, iss + 1), &[]), []);
    assert_eq!(g.shards[0].population()[crate::tcp::state::State::Established as usize], 1);
    iss
}

#[test]
fn a_flow_is_served_whichever_worker_its_frames_land_at() {
    for workers in [2, 3, 5] {
        let mut g = Group::new(workers, &TcpConfig::default());
        let iss = open(&mut g);
        let (mut seq, mut ack) = (101, iss + 1);
        for at in 0..workers {
            let seen = g.send(at, &header(Flags::ACK | Flags::PSH, seq, ack), b"hello");
            assert_eq!(seen.len(), 1, "at {at}");
            assert_eq!((seen[0].0, seen[0].2.as_slice()), (0, b"hello".as_slice()), "the owner answers");
            seq += 5;
            ack += 5;
        }
        let seen = g.send(workers - 1, &header(Flags::FIN | Flags::ACK, seq, ack), &[]);
        assert_eq!(seen.len(), 1);
        assert!(seen[0].1.flags.fin());
        let _ = g.send(1, &header(Flags::ACK, seq + 1, ack + 1), &[]);
        assert_eq!(g.shards.iter().map(Shard::records).sum::<usize>(), 0);
        let out: u64 = g.each(|c| c.misdirected_out).iter().sum();
        assert_eq!(out, g.each(|c| c.misdirected_in).iter().sum::<u64>());
    }
}

/// A SYN that the network doubled lands at two workers at once. Each makes a record, but only one of them can be the
/// connection's: what follows must not fit both.
#[test]
fn o05_a_syn_that_lands_at_two_workers_makes_one_connection() {
    let mut g = Group::new(2, &TcpConfig::default());
    let syn = header(Flags::SYN, 100, SeqNum::new(0));
    g.put(0, &syn, &[]);
    g.put(1, &syn, &[]);
    let seen = g.run();
    assert_eq!(seen.len(), 2, "each answers: neither knows of the other");
    let iss = seen[0].1.seq;
    assert_ne!(seen[1].1.seq, iss);
    // The client takes the first answer. Its segments land at the other worker first.
    for (seq, text, at) in [(101, &b"hello"[..], 1 - seen[0].0), (106, &b"again"[..], seen[0].0)] {
        let answers = g.send(at, &header(Flags::ACK | Flags::PSH, seq, iss + 1), text);
        assert!(answers.iter().all(|a| !a.1.flags.rst()), "{answers:?}");
    }
    let established = |s: &Shard<MemPort>| s.population()[State::Established as usize];
    assert_eq!(established(&g.shards[seen[0].0]), 1);
    assert_eq!(established(&g.shards[1 - seen[0].0]), 0);
    // The record that nobody answers is given up in time.
    let given_up = |g: &mut Group| g.each(|c| c.half_open_given_up).iter().sum::<u64>();
    for _ in 0..200 {
        g.now += std::time::Duration::from_secs(1);
        let _ = g.run();
    }
    assert_eq!((given_up(&mut g), g.shards[1 - seen[0].0].records()), (1, 0));
}

/// The largest frames that a socket's buffers take are passed on whole.
#[test]
fn a_jumbo_frame_at_the_wrong_worker_finds_its_flow() {
    let mut g = Group::with(2, &TcpConfig { mtu: 3818, ..TcpConfig::default() }, 3818);
    let iss = open(&mut g);
    let text = vec![7; 3700];
    let seen = g.send(1, &header(Flags::ACK | Flags::PSH, 101, iss + 1), &text);
    assert!(seen.iter().all(|s| s.0 == 0), "the owner answers: {seen:?}");
    assert_eq!(seen.iter().map(|s| s.2.len()).sum::<usize>(), 3700);
    assert_eq!(g.each(|c| c.drops[DropReason::MailboxFull as usize]), [0, 0]);
}

#[test]
fn o09_a_flowless_ack_goes_once_round_and_gets_one_rst() {
    for workers in [1, 2, 3, 7] {
        for at in 0..workers {
            let mut g = Group::new(workers, &TcpConfig::default());
            let seen = g.send(at, &header(Flags::ACK, 7, SeqNum::new(99)), &[]);
            assert_eq!(seen.len(), 1);
            assert_eq!((seen[0].1.flags, seen[0].1.seq), (Flags::RST, SeqNum::new(99)));
            assert_eq!(g.each(|c| c.misdirected_out).iter().sum::<u64>(), workers as u64 - 1);
            assert!(g.each(|c| c.misdirected_in).iter().all(|&n| n <= 1), "each has seen it once");
            assert_eq!(g.each(|c| c.drops[DropReason::NoConnection as usize]).iter().sum::<u64>(), 1);
            // A RST goes round as well, for whose flow it may be, and dies.
            assert_eq!(g.send(at, &header(Flags::RST, 7, SeqNum::new(0)), &[]), []);
            assert_eq!(g.each(|c| c.drops[DropReason::StrayReset as usize]).iter().sum::<u64>(), 1);
        }
    }
}

#[test]
fn a_misdirected_rst_reaches_its_flow() {
    let mut g = Group::new(3, &TcpConfig::default());
    let _ = open(&mut g);
    assert_eq!(g.send(2, &header(Flags::RST, 101, SeqNum::new(0)), &[]), []);
    assert_eq!(g.shards[0].records(), 0);
}

#[test]
fn r07_a_flood_of_stray_segments_does_not_multiply_beyond_the_budget() {
    let mut g = Group::new(2, &TcpConfig::default());
    let rounds = u64::from(FORWARDS_PER_SECOND) / 64 + 10;
    for _ in 0..rounds {
        for i in 0..64 {
            g.put(0, &header(Flags::ACK, i, SeqNum::new(i)), &[]);
        }
        let _ = g.run();
    }
    let total = rounds * 64;
    assert_eq!(g.each(|c| c.misdirected_out), [u64::from(FORWARDS_PER_SECOND), 0]);
    let refused = g.each(|c| c.drops[DropReason::MisdirectedBudget as usize]);
    assert_eq!(refused, [total - u64::from(FORWARDS_PER_SECOND), 0]);
    g.now += std::time::Duration::from_secs(1);
    assert_eq!(
        g.send(0, &header(Flags::ACK, 1, SeqNum::new(1)), &[]).len(),
        1,
        "the next second has its own"
    );
}

#[test]
fn a_burst_beyond_the_mailbox_is_counted_and_freed() {
    let mut g = Group::new(2, &TcpConfig::default());
    // Worker 0 turns several times before worker 1 does.
    for i in 0..300 {
        g.put(0, &header(Flags::ACK, i, SeqNum::new(i)), &[]);
    }
    g.wires[0].1.advance(g.now);
    for _ in 0..10 {
        let _ = g.shards[0].turn(g.now).expect("a simulated port");
    }
    let full = g.each(|c| c.drops[DropReason::MailboxFull as usize])[0];
    assert_eq!(full, 300 - 128);
    assert_eq!(g.run().len(), 128);
}

/// Opens at worker 0 as [`open`], and lets us close first: what stays there is `TIME_WAIT`. One past our FIN; the peer's
/// next number is 103.
fn open_and_wait(g: &mut Group) -> SeqNum {
    let iss = open(g);
    let seen = g.send(0, &header(Flags::ACK, 101, iss + 1), b"!");
    assert!(seen[0].1.flags.fin(), "{seen:?}");
    let seen = g.send(0, &header(Flags::FIN | Flags::ACK, 102, iss + 2), &[]);
    assert_eq!(seen.len(), 1);
    assert_eq!(g.shards[0].population()[State::TimeWait as usize], 1);
    iss + 2
}

#[test]
fn a_newer_incarnation_at_another_worker_is_served_and_reset_past_the_old_ones_time_wait() {
    for workers in [2, 3, 5] {
        for home in 1..workers {
            let mut g = Group::new(workers, &TcpConfig::default());
            let _ = open_and_wait(&mut g);
            let seen = g.send(home, &header(Flags::SYN, 900, SeqNum::new(0)), &[]);
            let iss = seen[0].1.seq;
            // Everything else lands where the old one is remembered.
            assert_eq!(g.send(0, &header(Flags::ACK, 901, iss + 1), &[]), []);
            let seen = g.send(0, &header(Flags::ACK | Flags::PSH, 901, iss + 1), b"hello");
            assert_eq!(seen.len(), 1, "{seen:?}");
            assert_eq!((seen[0].0, seen[0].2.as_slice()), (home, b"hello".as_slice()));
            assert_eq!(g.send(0, &header(Flags::RST, 906, SeqNum::new(0)), &[]), []);
            assert_eq!(g.shards[home].records(), 0, "{workers} workers, at {home}");
            assert_eq!(g.each(|c| c.drops[DropReason::ResetInTimeWait as usize]).iter().sum::<u64>(), 0);
            assert_eq!(g.shards[0].population()[State::TimeWait as usize], 1, "RFC 1337");
        }
    }
}

#[test]
fn what_only_a_time_wait_record_can_answer_is_answered_by_it_once_wherever_it_lands() {
    for workers in [1, 2, 3, 5] {
        for at in 0..workers {
            let mut g = Group::new(workers, &TcpConfig::default());
            let snd_nxt = open_and_wait(&mut g);
            let ack = |seen: &[(usize, Header, Vec<u8>)]| {
                let [(0, h, _)] = seen else { panic!("{workers} workers, at {at}: {seen:?}") };
                assert_eq!((h.flags, h.seq, h.ack), (Flags::ACK, snd_nxt, SeqNum::new(103)));
            };
            // The FIN again, data that is long received, data that never was sent.
            ack(&g.send(at, &header(Flags::FIN | Flags::ACK, 102, snd_nxt), &[]));
            ack(&g.send(at, &header(Flags::ACK, 101, snd_nxt), b"!"));
            ack(&g.send(at, &header(Flags::ACK, 5000, snd_nxt + 9), b"x"));
            assert_eq!(g.send(at, &header(Flags::RST, 103, SeqNum::new(0)), &[]), []);
            assert_eq!(g.each(|c| c.drops[DropReason::ResetInTimeWait as usize]).iter().sum::<u64>(), 1);
            assert_eq!(g.each(|c| c.resets_sent.iter().sum()).iter().sum::<u64>(), 0);
        }
    }
}

#[test]
fn two_time_wait_records_of_one_pair_do_not_send_a_segment_round_for_ever() {
    let mut g = Group::new(3, &TcpConfig::default());
    let _ = open_and_wait(&mut g);
    let seen = g.send(1, &header(Flags::SYN, 900, SeqNum::new(0)), &[]);
    let iss = seen[0].1.seq;
    let _ = g.send(1, &header(Flags::ACK, 901, iss + 1), b"!");
    let _ = g.send(1, &header(Flags::FIN | Flags::ACK, 902, iss + 2), &[]);
    let waiting: u64 = (0..2).map(|i| g.shards[i].population()[State::TimeWait as usize]).sum();
    assert_eq!(waiting, 2);
    let before: u64 = g.each(|c| c.misdirected_out).iter().sum();
    for at in 0..3 {
        assert_eq!(g.send(at, &header(Flags::ACK, 5000, SeqNum::new(7)), b"x").len(), 1, "at {at}");
    }
    let passed = g.each(|c| c.misdirected_out).iter().sum::<u64>() - before;
    assert!(passed <= 3 * (2 + 3), "{passed}");
    // The FIN again is for the one it ends, wherever it lands.
    for at in 0..3 {
        let seen = g.send(at, &header(Flags::FIN | Flags::ACK, 902, iss + 2), &[]);
        assert_eq!((seen.len(), seen[0].0), (1, 1), "at {at}");
    }
}

#[test]
fn a_syn_that_comes_again_elsewhere_makes_no_second_handshake_that_resets_the_first() {
    for workers in [2, 3, 5] {
        let mut g = Group::new(workers, &TcpConfig::default());
        let first = g.send(0, &header(Flags::SYN, 100, SeqNum::new(0)), &[])[0].1.seq;
        g.now += std::time::Duration::from_millis(500);
        let second = g.send(1, &header(Flags::SYN, 100, SeqNum::new(0)), &[])[0].1.seq;
        assert_ne!(first, second, "the clock is part of it");
        // The client took the first SYN-ACK, and all it sends lands where the second came from.
        assert_eq!(g.send(1, &header(Flags::ACK, 101, first + 1), &[]), []);
        let seen = g.send(1, &header(Flags::ACK | Flags::PSH, 101, first + 1), b"hello");
        assert_eq!((seen.len(), seen[0].0, seen[0].2.as_slice()), (1, 0, b"hello".as_slice()), "{seen:?}");
        assert_eq!(g.each(|c| c.resets_sent.iter().sum()).iter().sum::<u64>(), 0);
    }
}

#[test]
fn an_ack_of_no_handshake_is_reset_by_the_half_open_record_once() {
    for workers in [1, 2, 3] {
        for at in 0..workers {
            let mut g = Group::new(workers, &TcpConfig::default());
            let iss = g.send(0, &header(Flags::SYN, 100, SeqNum::new(0)), &[])[0].1.seq;
            let seen = g.send(at, &header(Flags::ACK, 101, iss + 7), &[]);
            let [(0, h, _)] = &seen[..] else { panic!("{workers} workers, at {at}: {seen:?}") };
            assert_eq!((h.flags, h.seq), (Flags::RST, iss + 7));
            assert_eq!(g.shards[0].population()[State::SynReceived as usize], 1, "the record stays");
        }
    }
}
