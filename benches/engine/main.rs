//! The engine alone: lives of connections from the SYN to the last ACK, from received frame to emitted frame, table,
//! wheel and counters included, with many records in `TIME_WAIT`. The peer's frames are made beforehand and not
//! measured.
//!
//! Compare figures of one machine and one sitting only. `benches/report` measures more, once, into files.
//!
//! ```text
//! cargo bench --bench engine
//! ```

mod lives;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lives::{CONCURRENT, Life, Lives, Room};
use std::time::Duration;

fn rounds(lives: &mut Lives, life: Life, n: u64) -> Duration {
    (0..n).map(|_| lives.round(life)).sum()
}

/// The whole life at three populations of `TIME_WAIT`, and what bursts bring at the largest.
fn lifecycle(c: &mut Criterion) {
    let mut group = c.benchmark_group("lifecycle");
    group.throughput(Throughput::Elements(u64::from(CONCURRENT)));
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for (name, residents) in [("0", 0), ("1M", 1_000_000), ("10M", 10_000_000)] {
        let mut lives = Lives::new(Room::with(residents)).populated(residents);
        for life in [Life::WeClose, Life::WeCloseApart, Life::PeerCloses] {
            group.bench_function(format!("{life:?}/residents_{name}"), |b| {
                b.iter_custom(|n| rounds(&mut lives, life, n));
            });
        }
        if residents < 10_000_000 {
            continue;
        }
        for burst in [1, 8, 32, 64] {
            lives.set_burst(burst);
            group.bench_function(format!("WeClose/residents_{name}/burst_{burst}"), |b| {
                b.iter_custom(|n| rounds(&mut lives, Life::WeClose, n));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lifecycle);
criterion_main!(benches);
