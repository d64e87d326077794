//! The engine alone: lives of connections from the SYN to the last ACK, from received frame to emitted frame, table,
//! wheel and counters included, with many records in `TIME_WAIT`. The peer's frames are made beforehand and not
//! measured.
//!
//! Compare figures of one machine and one sitting only.
//!
//! ```text
//! cargo bench --bench engine
//! ```

mod lives;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use finwheel::port::BURST;
use lives::{CONCURRENT, First, Lives};
use std::time::Duration;

fn rounds(lives: &mut Lives, n: u64) -> Duration {
    (0..n).map(|_| lives.round()).sum()
}

/// The whole life at three populations of `TIME_WAIT`.
fn residents(c: &mut Criterion) {
    let mut group = c.benchmark_group("lifecycle");
    group.throughput(Throughput::Elements(u64::from(CONCURRENT)));
    group.sample_size(20);
    for (name, residents) in [("0", 0), ("1M", 1_000_000), ("10M", 10_000_000)] {
        let mut lives = Lives::new(residents, BURST, true);
        group.bench_function(format!("we_close_first/residents_{name}"), |b| {
            b.iter_custom(|n| rounds(&mut lives, n));
        });
        let mut lives = lives.closed_by(First::Peer);
        group.bench_function(format!("peer_closes_first/residents_{name}"), |b| {
            b.iter_custom(|n| rounds(&mut lives, n));
        });
    }
    group.finish();
}

/// What bursts bring: the same at ten million, by the frames that are looked up together.
fn bursts(c: &mut Criterion) {
    let mut group = c.benchmark_group("burst");
    group.throughput(Throughput::Elements(u64::from(CONCURRENT)));
    group.sample_size(20);
    for burst in [1, 8, 32, 64] {
        let mut lives = Lives::new(10_000_000, burst, true);
        group.bench_function(format!("{burst}"), |b| b.iter_custom(|n| rounds(&mut lives, n)));
    }
    group.finish();
}

criterion_group!(benches, residents, bursts);
criterion_main!(benches);
