//! After its start a shard asks for no memory: whole lives of connections of every kind, over IPv4 and IPv6, with data in and
//! out of order, with a lost FIN, with many in `TIME_WAIT`, under an allocator that counts.
//!
//! `FINWHEEL_LIVES=1000000` makes it that many lives.

// An allocator is unsafe to write.
#![allow(unsafe_code)]

#[path = "../benches/engine/lives.rs"]
mod lives;

use lives::{CONCURRENT, Life, Lives, Room};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with a count of each thread's requests: the harness's own threads may allocate.
struct Counting;

thread_local! {
    static REQUESTS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no count any more, and is not looked at.
    let _ = REQUESTS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: each call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the ones that are asked for.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, size) }
    }
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests for memory that `act` makes.
fn requests(act: impl FnOnce()) -> u64 {
    let before = REQUESTS.get();
    act();
    REQUESTS.get() - before
}

const LIVES: [Life; 5] = [
    Life::WeClose,
    Life::WeCloseApart,
    Life::PeerCloses,
    Life::PeerSendsAndCloses,
    Life::PeerSendsOutOfOrder,
];

#[test]
fn no_life_asks_for_memory() {
    let wanted =
        std::env::var("FINWHEEL_LIVES").map_or(200_000, |n| n.parse().expect("FINWHEEL_LIVES: a number"));
    let rounds = wanted / (2 * LIVES.len() as u32 * CONCURRENT);
    for v4 in [true, false] {
        // Room for a fifth of what enters: the oldest records are evicted, and number after number is used again.
        let mut lives = Lives::new(Room { v4, ..Room::with(16_384) });
        let of_lives = requests(|| {
            for _ in 0..rounds.max(1) {
                for life in LIVES {
                    lives.round(life);
                }
            }
        });
        assert_eq!(of_lives, 0, "requests for memory, IPv4 {v4}");
    }
}

#[test]
fn neither_a_lost_fin_nor_half_open_nor_stray_segments_nor_expiry_ask_for_memory() {
    for v4 in [true, false] {
        let mut lives = Lives::new(Room { v4, ..Room::with(16_384) });
        let of_trouble = requests(|| {
            lives.strays();
            lives.open(1000, true);
            lives.open(1000, false);
        });
        let mut lost = Lives::new(Room { v4, ..Room::with(16_384) });
        // What the shard tells of itself is for its owner to keep.
        let of_telling = requests(|| {
            let _ = lost.counters();
            let _ = lost.counters();
        });
        let of_loss = requests(|| lost.round_with_a_lost_fin());
        let of_expiry = requests(|| {
            lost.expire();
        });
        assert_eq!(
            (of_trouble, of_loss - of_telling, of_expiry),
            (0, 0, 0),
            "requests for memory, IPv4 {v4}"
        );
    }
}

#[test]
fn a_service_that_takes_memory_for_each_connection_is_seen() {
    let mut lives = Lives::new(Room { hoards: true, ..Room::with(0) });
    let seen = requests(|| {
        lives.round(Life::PeerCloses);
    });
    assert_eq!(seen, u64::from(CONCURRENT));
}
