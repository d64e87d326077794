#![allow(dead_code, missing_docs)]
#[path = "zz_lives.rs"]
mod lives;
use finwheel::shard::filter::Filter;
use finwheel::shard::mailbox::{Command, Reply};
use finwheel::shard::sweep::{Deed, Sweep};
use std::time::{Duration, Instant};

fn listing(residents: usize, nobody: bool) {
    let mut l = lives::Lives::new(residents, 64, true);
    let filter = if nobody {
        Filter { peer: Some("203.0.113.0/24".parse().unwrap()), ..Filter::default() }
    } else {
        Filter::default()
    };
    let mut s = Box::new(Sweep::new(Deed::List, filter, 4096, 1 << 20));
    let (mut rows, mut pages) = (0u64, 0);
    let mut turns: Vec<u64> = Vec::with_capacity(1 << 20);
    let began = Instant::now();
    loop {
        l.mailbox.send(Command::Sweep(s)).unwrap();
        s = loop {
            let t = Instant::now();
            l.shard.turn(l.now).unwrap();
            turns.push(t.elapsed().as_nanos() as u64);
            if let Some(Reply::Sweep(s)) = l.mailbox.reply() {
                break s;
            }
        };
        pages += 1;
        rows += s.rows.len() as u64;
        if s.done {
            break;
        }
        s.turn_over(1 << 20);
    }
    let took = began.elapsed();
    turns.sort_unstable();
    let p = |q: f64| Duration::from_nanos(turns[((turns.len() - 1) as f64 * q) as usize]);
    println!(
        "LISTING residents {residents} nobody {nobody}: {rows} rows, {pages} pages, {} turns, {took:?}; a turn p50 {:?} p99 {:?} p99.9 {:?} max {:?}",
        turns.len(),
        p(0.5),
        p(0.99),
        p(0.999),
        p(1.0)
    );
}

#[test]
fn listing_10m() {
    listing(10_000_000, false);
    listing(10_000_000, true);
}
