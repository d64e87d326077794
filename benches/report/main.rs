//! The engine's figures, measured once each and written to `target/bench/parts/engine.json` and `memory.json`, from which
//! `docs/benchmarks.md` is made.
//!
//! ```text
//! cargo bench --bench report           some three minutes
//! QUICK=1 cargo bench --bench report   the same keys from fewer rounds
//! ```
//!
//! A shard on a replay port does all of a worker's work but its system calls: parsing, tables, wheels, counters, service,
//! frames out. The peer's frames are made beforehand and not measured. Of the rounds of one measurement the median counts:
//! what a machine does besides falls into few of them.

#[path = "../engine/lives.rs"]
mod lives;
mod smol;

use finwheel::shard::mailbox::{mailboxes, no_wake};
use lives::{CONCURRENT, Life, Lives, Room};
use serde_json::{Map, Value, json};
use smol::Smol;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const MILLION: usize = 1_000_000;

fn main() {
    if std::env::args().any(|a| a == "--list") {
        return;
    }
    let quick = std::env::var_os("QUICK").is_some_and(|v| v != "0" && !v.is_empty());
    let rounds = if quick { 40 } else { 300 };
    let mut engine = Map::new();
    let mut memory = Map::new();
    let begun = Instant::now();
    let stage = |what: &str| eprintln!("{:6.1} s  {what}", begun.elapsed().as_secs_f64());

    put(&mut engine, "effective_ghz", rounded(effective_ghz(), 2));
    stage("memory of records");
    records(&mut memory);
    stage("smoltcp beside an empty table");
    beside_smoltcp(&mut engine, rounds);
    stage("a million in TIME_WAIT");
    let mut lives = Lives::new(Room::with(MILLION)).populated(MILLION);
    let mut rates = Map::new();
    put(&mut rates, "resident_1m", lifecycles(&mut lives, rounds));
    drop(lives);
    stage("a million due in one tick");
    put(&mut engine, "max_rx_gap", rx_gap(if quick { 2 } else { 5 }));
    stage("ten million in TIME_WAIT");
    ten_million(&mut engine, &mut rates, &mut memory, rounds);
    stage("shards beside each other");
    engine.insert("shards".into(), shards(if quick { 3 } else { 12 }));
    stage("done");

    finish(engine, rates, memory);
}

/// Sorts, and gives the value at so many thousandths of the way.
fn quantile(times: &mut [Duration], per_mille: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * per_mille / 1000]
}

fn median(mut times: Vec<Duration>) -> Duration {
    quantile(&mut times, 500)
}

fn per(took: Duration, n: usize) -> f64 {
    took.as_nanos() as f64 / n as f64
}

fn put(to: &mut Map<String, Value>, key: &str, value: Value) {
    to.insert(key.to_owned(), value);
}

fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10f64.powi(digits);
    json!((value * scale).round() / scale)
}

/// What the core does in a nanosecond: a chain of multiplications and additions takes four cycles a link on any processor
/// of the last ten years. Where a hypervisor gives half a core, the figures below are half of what they could be, and
/// this says so.
fn effective_ghz() -> f64 {
    const LINKS: u32 = 20_000_000;
    let took = median(
        (0..9u64)
            .map(|seed| {
                let begun = Instant::now();
                let chain = |x: u64, _| x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(seed | 1);
                std::hint::black_box((0..std::hint::black_box(LINKS)).fold(seed, chain));
                begun.elapsed()
            })
            .collect(),
    );
    4.0 / per(took, LINKS as usize)
}

/// Lives per second of one kind.
fn rate(lives: &mut Lives, life: Life, rounds: usize) -> f64 {
    let took = median((0..rounds).map(|_| lives.round(life)).collect());
    1e9 / per(took, CONCURRENT as usize)
}

/// Lives per second of each kind.
fn lifecycles(lives: &mut Lives, rounds: usize) -> Value {
    // In turns, so that what the machine does besides falls on all alike.
    let kinds = [Life::WeClose, Life::WeCloseApart, Life::PeerCloses];
    let mut took = kinds.map(|_| Vec::new());
    for _ in 0..rounds {
        for (kind, took) in kinds.iter().zip(&mut took) {
            took.push(lives.round(*kind));
        }
    }
    let [we, apart, peer] = took.map(|t| (1e9 / per(median(t), CONCURRENT as usize)).round());
    json!({ "we_close_first": we, "we_close_first_fin_apart": apart, "peer_closes_first": peer })
}

/// The same lives here and at smoltcp, in turns.
fn beside_smoltcp(engine: &mut Map<String, Value>, rounds: usize) {
    let mut lives = Lives::new(Room::with(0)).populated(0);
    let clock = median(
        (0..1001)
            .map(|_| {
                let begun = Instant::now();
                begun.elapsed()
            })
            .collect(),
    );
    let mut best = Map::new();
    let mut ours = Map::new();
    for (name, life) in [("peer_closes_first", Life::PeerCloses), ("we_close_first", Life::WeClose)] {
        let sizes = [4, 16, 64];
        let mut stacks = sizes.map(Smol::new);
        let mut theirs = sizes.map(|_| Vec::new());
        let mut mine = Vec::new();
        for _ in 0..rounds {
            mine.push(lives.round(life));
            for ((stack, took), n) in stacks.iter_mut().zip(&mut theirs).zip(sizes) {
                let many = 512 / n;
                took.push((0..many).map(|_| stack.round(life, clock)).sum::<Duration>());
            }
        }
        let rates = theirs.map(|t| 1e9 / per(median(t), 512));
        let most = rates.into_iter().fold(0.0, f64::max);
        let mine = 1e9 / per(median(mine), CONCURRENT as usize);
        put(&mut ours, name, json!(mine.round()));
        let by_sockets: Map<_, _> =
            sizes.iter().zip(rates).map(|(n, r)| (n.to_string(), json!(r.round()))).collect();
        put(
            &mut best,
            name,
            json!({ "ratio": rounded(mine / most, 2), "smoltcp_per_s": most.round(), "by_sockets": by_sockets }),
        );
    }
    put(engine, "vs_smoltcp", best["peer_closes_first"]["ratio"].clone());
    put(engine, "vs_smoltcp_detail", Value::Object(best));
    put(engine, "resident_0", lifecycles(&mut lives, rounds));
}

/// A million `TIME_WAIT` records of one instant come due while lives go on: the time from one burst to the next.
fn rx_gap(times: usize) -> Value {
    let mut worst: Vec<Duration> = Vec::new();
    let (mut all, mut calm) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let mut lives = Lives::new(Room::with(MILLION)).populated_at_once(MILLION);
        for _ in 0..4 {
            calm.push(lives.longest_turn());
        }
        let turns = lives.expire_among_lives();
        worst.push(turns.iter().copied().max().unwrap_or_default());
        all.extend(turns);
    }
    let us = |d: Duration| rounded(d.as_nanos() as f64 / 1000.0, 1);
    json!({
        "max": us(median(worst.clone())),
        "worst_of_all": us(quantile(&mut worst, 1000)),
        "median": us(quantile(&mut all, 500)),
        "p999": us(quantile(&mut all, 999)),
        "max_without_expiry": us(median(calm)),
        "runs": times,
        "turns": all.len(),
    })
}

fn ten_million(
    engine: &mut Map<String, Value>,
    rates: &mut Map<String, Value>,
    memory: &mut Map<String, Value>,
    rounds: usize,
) {
    let before = resident();
    let room = Room { connections: MILLION + 4 * CONCURRENT as usize, ..Room::with(10 * MILLION) };
    let mut lives = Lives::new(room).populated(10 * MILLION);
    put(rates, "resident_10m", lifecycles(&mut lives, rounds));

    let mut burst = Map::new();
    for n in [1, 8, 32, 64] {
        lives.set_burst(n);
        put(&mut burst, &n.to_string(), json!(rate(&mut lives, Life::WeClose, rounds / 2).round()));
    }
    engine.insert("burst".into(), Value::Object(burst));
    engine.insert("segment_ns".into(), segments(&mut lives, rounds / 2));

    let held = lives.residents();
    lives.open(MILLION, false);
    put(memory, "10m_tw_1m_idle_rss_bytes", json!(resident() - before));
    put(memory, "10m_tw_1m_idle", json!({ "time_wait": held, "idle": MILLION }));
    put(memory, "huge_pages_bytes", json!(huge_pages()));

    let (expired, took) = lives.expire();
    put(engine, "expiry_ns", rounded(per(took, expired as usize), 1));
}

/// Nanoseconds a segment, by what it is, at the population that there is.
fn segments(lives: &mut Lives, rounds: usize) -> Value {
    let life = Life::PeerSendsAndCloses;
    let mut took = life.steps().iter().map(|_| Vec::new()).collect::<Vec<_>>();
    let mut strays = Vec::new();
    for _ in 0..rounds {
        lives.round(life);
        for (i, took) in took.iter_mut().enumerate() {
            took.push(lives.took[i]);
        }
        strays.push(lives.strays());
    }
    let ns = |t: Vec<Duration>| rounded(per(median(t), CONCURRENT as usize), 1);
    let mut all: Map<_, _> =
        life.steps().iter().zip(took).map(|(s, t)| (s.as_str().to_owned(), ns(t))).collect();
    put(&mut all, "stray", ns(strays));
    Value::Object(all)
}

/// Records of a kind in a small shard and in a large one: what both take besides does not count.
const FILLS: [usize; 2] = [64 * CONCURRENT as usize, 320 * CONCURRENT as usize];

/// Bytes of resident memory that a record takes, by kind: what a full large shard takes more than a full small one.
fn records(memory: &mut Map<String, Value>) {
    // In huge pages a record more or less is two megabytes or nothing.
    let huge_pages =
        |on: bool| nix::sys::prctl::set_thp_disable(!on).expect("a process may do without huge pages");
    huge_pages(false);
    let none = Room { time_wait: 0, ..Room::with(0) };
    let waits = |n| Room { time_wait: n, ..none };
    let half_open = |n| Room { half_open: n, ..none };
    let idle = |n| Room { connections: n, ..none };
    let fill = |room: Room, n: usize| {
        let before = resident();
        let mut lives = Lives::new(room);
        match (room.time_wait, room.half_open) {
            (0, half) if half == n => lives.open(n, true),
            (0, _) => lives.open(n, false),
            _ => lives = lives.populated_at_once(n),
        }
        let grown = resident().saturating_sub(before) as f64;
        // Its memory is not to be found resident by the next one.
        std::mem::forget(lives);
        grown
    };
    let mut put = |name: &str, room: &dyn Fn(usize) -> Room| {
        let [small, large] = FILLS.map(|n| fill(room(n), n));
        put(memory, &format!("{name}_bytes"), rounded((large - small) / (FILLS[1] - FILLS[0]) as f64, 1));
    };
    put("time_wait_v4", &waits);
    put("time_wait_v6", &|n| Room { v4: false, ..waits(n) });
    put("syn_rcvd_v4", &half_open);
    put("conn_idle_v4", &idle);
    huge_pages(true);
}

/// Bytes of memory that are resident.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: usize =
        statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("statm has a second number");
    pages * 4096
}

/// Bytes of it that lie in huge pages.
fn huge_pages() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("/proc is mounted");
    let line = rollup.lines().find_map(|l| l.strip_prefix("AnonHugePages:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<usize>().map_or(0, |kb| kb * 1024)
}

/// One to 64 workers' shards with their mailboxes, in turns on one core: nanoseconds a life in each. They share nothing, so
/// it stays what it is for one, and the sum of their rates is what as many cores would do.
fn shards(rounds: usize) -> Value {
    let mut by_number = Map::new();
    for n in [1, 2, 4, 8, 16, 32, 64] {
        let boxes = mailboxes(&vec![no_wake(); n]);
        let (boxes, _handles): (Vec<_>, Vec<_>) = boxes.into_iter().unzip();
        let mut group: Vec<_> = boxes.into_iter().map(|b| Lives::at(Room::with(0), b).populated(0)).collect();
        let mut took = Vec::new();
        for _ in 0..rounds {
            for lives in &mut group {
                took.push(lives.round(Life::PeerCloses));
            }
        }
        let ns = per(median(took), CONCURRENT as usize);
        let sum = (n as f64 * 1e9 / ns).round();
        put(&mut by_number, &n.to_string(), json!({ "ns_per_life": rounded(ns, 1), "sum_per_s": sum }));
    }
    Value::Object(by_number)
}

/// Which kind of life is the headline.
const HEADLINE: &str = "we_close_first";

/// Puts the headlines in their places, writes the files, and shows what is in them.
fn finish(mut engine: Map<String, Value>, mut rates: Map<String, Value>, memory: Map<String, Value>) {
    if let Some(empty) = engine.remove("resident_0") {
        put(&mut rates, "resident_0", empty);
    }
    let mut headline: Map<_, _> = rates.iter().map(|(k, v)| (k.clone(), v[HEADLINE].clone())).collect();
    put(&mut headline, "headline", json!(HEADLINE));
    for kind in ["we_close_first", "we_close_first_fin_apart", "peer_closes_first"] {
        let of_kind: Map<_, _> = rates.iter().map(|(k, v)| (k.clone(), v[kind].clone())).collect();
        put(&mut headline, kind, Value::Object(of_kind));
    }
    put(&mut engine, "lifecycles_per_s", Value::Object(headline));
    if let Some(gap) = engine.remove("max_rx_gap") {
        put(&mut engine, "max_rx_gap_us", gap["max"].clone());
        put(&mut engine, "rx_gap_us", gap);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let parts = target.join("bench/parts");
    std::fs::create_dir_all(&parts).unwrap_or_else(|e| panic!("{}: {e}", parts.display()));
    for (name, part) in [("engine", engine), ("memory", memory)] {
        let path = parts.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&json!({ name: part })).expect("a map of numbers is JSON");
        println!("{text}");
        std::fs::write(&path, text + "\n").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        eprintln!("written: {}", path.display());
    }
}
