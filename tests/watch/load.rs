//! Kernel clients at work while something else happens: each connects, is served, and closes, again and again.

use crate::common::{ECHO, HTTP, PATIENCE, both};
use core_affinity::CoreId;
use finwheel::rig::Rig;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Clients at the same time.
const CLIENTS: usize = 4;
/// From the beginning of an exchange to that of the next, by the clock: some hundreds a second in all, so that the machine has
/// time for what is tested.
const PERIOD: Duration = Duration::from_millis(5);

/// What the clients have seen.
#[derive(Default)]
pub struct Seen {
    /// How long each exchange took, from when it was to begin to the peer's FIN, in order. What waited because the one before
    /// took long counts as slow too: a server that stalls cannot hide it behind clients that wait.
    pub took: Vec<Duration>,
    /// What went wrong.
    pub errors: Vec<String>,
}

impl Seen {
    /// The 99th percentile.
    pub fn p99(&self) -> Duration {
        let mut sorted = self.took.clone();
        sorted.sort();
        sorted[sorted.len() * 99 / 100]
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        self.took.iter().max().copied().unwrap_or_default()
    }
}

/// Runs `f` while clients work; returns what it returned and what they saw.
pub fn under_load<T>(rig: &Rig, f: impl FnOnce() -> T) -> (T, Seen) {
    under_load_on(rig, None, f)
}

/// The same with all clients on one core.
pub fn under_load_on<T>(rig: &Rig, core: Option<usize>, f: impl FnOnce() -> T) -> (T, Seen) {
    let over = AtomicBool::new(false);
    let mut seen = Seen::default();
    let result = std::thread::scope(|s| {
        let over = &over;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|i| {
                let work = move || {
                    if let Some(id) = core {
                        assert!(core_affinity::set_for_current(CoreId { id }), "core {id} is not to be had");
                    }
                    client(rig, i, over)
                };
                s.spawn(move || rig.client_ns().run_in(work).unwrap())
            })
            .collect();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        over.store(true, Ordering::SeqCst);
        for c in clients {
            let one = c.join().unwrap();
            seen.took.extend(one.took);
            seen.errors.extend(one.errors);
        }
        result
    });
    match result {
        Ok(value) => (value, seen),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn client(rig: &Rig, number: usize, over: &AtomicBool) -> Seen {
    let (echo, http) = (both(rig, ECHO), both(rig, HTTP));
    let mut seen = Seen::default();
    let mut n = number;
    let mut due = Instant::now();
    while !over.load(Ordering::SeqCst) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // Echo is closed by the client first, http by the server; IPv4 and IPv6 by turns.
        let done = if n.is_multiple_of(2) { talk_echo(echo[n / 2 % 2]) } else { talk_http(http[n / 2 % 2]) };
        match done {
            Ok(()) => seen.took.push(due.elapsed()),
            Err(e) => seen.errors.push(format!("exchange {n} of client {number}: {e}")),
        }
        n += 1;
        due += PERIOD;
    }
    seen
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let s = TcpStream::connect_timeout(&to, PATIENCE)?;
    s.set_read_timeout(Some(PATIENCE))?;
    s.set_nodelay(true)?;
    Ok(s)
}

fn talk_echo(to: SocketAddr) -> io::Result<()> {
    let mut s = connect(to)?;
    s.write_all(b"to and fro")?;
    s.shutdown(Shutdown::Write)?;
    let mut back = String::new();
    s.read_to_string(&mut back)?;
    if back == "to and fro" { Ok(()) } else { Err(io::Error::other(format!("{back:?} came back"))) }
}

fn talk_http(to: SocketAddr) -> io::Result<()> {
    let mut s = connect(to)?;
    write!(s, "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    s.read_to_string(&mut text)?;
    if text.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(io::Error::other(text)) }
}

/// Opens connections and resets them.
pub fn reset_some(rig: &Rig, how_many: usize) {
    let to = both(rig, ECHO)[0];
    rig.client_ns()
        .run_in(|| {
            for _ in 0..how_many {
                let s = connect(to).unwrap();
                let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                nix::sys::socket::setsockopt(&s, nix::sys::socket::sockopt::Linger, &now).unwrap();
            }
        })
        .unwrap();
}
