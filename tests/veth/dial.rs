//! finwheel as the client: connections opened from `AF_XDP` to servers of the kernel's TCP in the other namespace.
//!
//! ```text
//!  server's namespace                              client's namespace
//!    Terminator, no listener ── AF_XDP ── veth ──    a TcpListener for each plan, a thread for each connection
//! ```
//!
//! Both ends play the talks of `tests/strangers`: every byte is checked both ways, and who closes first, and how.

use crate::common::until;
use crate::talk::{End, Ours, Plan, Shape};
use crate::tools::LIMIT;
use finwheel::control::{ClientSettings, Cores, Outcome, Settings, Terminator};
use finwheel::rig::{Rig, SERVER_INTERFACE};
use finwheel::service::{Context, Service};
use finwheel::shard::Capacity;
use finwheel::tcp::config::KeepAlive;
use finwheel::tcp::record::CloseRecord;
use finwheel::wire::{Endpoint, Tuple};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The first port of the kernel's servers: one for each plan.
const PORT: u16 = 9100;
/// Bytes read at a time.
const PART: usize = 256 * 1024;

/// finwheel's end of the talks; the connection's word is the talk's number, counted from 1.
#[derive(Clone)]
struct Dialer(Arc<Mutex<Vec<Ours>>>);

impl Dialer {
    fn with<T>(&self, user: u32, f: impl FnOnce(&mut Ours) -> T) -> T {
        f(&mut self.0.lock().unwrap()[user as usize - 1])
    }
}

impl Service for Dialer {
    fn opened(&mut self, cx: &mut dyn Context) {
        self.with(cx.user(), |o| o.opened(cx));
    }
    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        self.with(cx.user(), |o| o.data(cx, bytes));
        bytes.len()
    }
    fn writable(&mut self, cx: &mut dyn Context) {
        self.with(cx.user(), |o| o.step(cx));
    }
    fn peer_closed(&mut self, cx: &mut dyn Context) {
        self.with(cx.user(), |o| o.peer_closed(cx));
    }
    fn not_begun(&mut self, remote: Endpoint, user: u32) {
        panic!("connection {user} to {remote} could not be begun");
    }
    fn closed(&mut self, _: &Tuple, user: u32, record: &CloseRecord) {
        self.with(user, |o| o.records.push(record.clone()));
    }
}

/// finwheel with nothing but a client.
pub struct Client {
    terminator: Terminator,
    talks: Dialer,
}

impl Client {
    pub fn start(rig: &Rig) -> Self {
        let talks = Dialer(Arc::default());
        let addresses: [IpAddr; 2] = [rig.server_v4().unwrap().into(), rig.server_v6().unwrap().into()];
        let service = talks.clone();
        let mut client = ClientSettings::new(&addresses, move || service.clone());
        // A RST that is lost is not sent again: who has nothing in flight by then learns of it by asking only.
        let (idle, interval) = (Duration::from_secs(3), Duration::from_secs(1));
        client.limits.keep_alive = Some(KeepAlive { idle, interval, probes: 5 });
        let settings = Settings {
            capacity: Capacity { connections: 2048, half_open: 64, time_wait: 4096, chunks: 16_384 },
            cores: Cores::Unpinned,
            client: Some(client),
            ..Settings::new(SERVER_INTERFACE)
        };
        let started = rig.server_ns().run_in(|| Terminator::start(&settings)).unwrap();
        Self { terminator: started.unwrap_or_else(|e| panic!("{e}")), talks }
    }

    /// Plays plans, all at once, on the IP version that `v6` says for each, and waits until each has ended on both sides.
    /// Returns how long it took.
    pub fn play(
        &self,
        rig: &Rig,
        plans: &[Plan],
        v6: impl Fn(usize) -> bool + Sync,
        limit: Duration,
    ) -> Duration {
        self.play_until(rig, plans, v6, limit, limit)
    }

    /// The same for transfers that may take as long as they like, but may not stand still for longer than `stall`.
    pub fn play_slowly(
        &self,
        rig: &Rig,
        plans: &[Plan],
        v6: impl Fn(usize) -> bool + Sync,
        stall: Duration,
    ) -> Duration {
        self.play_until(rig, plans, v6, stall, Duration::MAX)
    }

    fn play_until(
        &self,
        rig: &Rig,
        plans: &[Plan],
        v6: impl Fn(usize) -> bool + Sync,
        stall: Duration,
        limit: Duration,
    ) -> Duration {
        let kernel: [IpAddr; 2] = [rig.client_v4().unwrap().into(), rig.client_v6().unwrap().into()];
        let at = |n: usize| SocketAddr::new(kernel[usize::from(v6(n))], PORT + n as u16);
        let began = Instant::now();
        let base = self.add(plans);
        let servers: Vec<JoinHandle<()>> = (plans.iter().enumerate())
            .map(|(n, &plan)| {
                let listener = rig.client_ns().run_in(|| TcpListener::bind(at(n))).unwrap();
                let listener = listener.unwrap_or_else(|e| panic!("{}: {e}", at(n)));
                std::thread::spawn(move || serve(&listener, &plan, stall))
            })
            .collect();
        for n in 0..plans.len() {
            self.connect(at(n), base + n);
        }
        for (n, server) in servers.into_iter().enumerate() {
            // Its reads and writes have a limit of their own.
            let began = Instant::now();
            while !server.is_finished() {
                assert!(began.elapsed() < limit, "{:?} has not ended at the kernel's end", plans[n]);
                std::thread::sleep(Duration::from_millis(1));
            }
            server.join().unwrap_or_else(|e| std::panic::resume_unwind(e));
        }
        self.ended(base, stall);
        began.elapsed()
    }

    /// Plays one plan with a server that is there already.
    pub fn talk(&self, to: SocketAddr, plan: Plan, limit: Duration) {
        let number = self.add(&[plan]);
        self.connect(to, number);
        self.ended(number, limit);
    }

    /// Gives plans their numbers, from the one that is returned on.
    fn add(&self, plans: &[Plan]) -> usize {
        let mut all = self.talks.0.lock().unwrap();
        all.extend(plans.iter().map(|&plan| Ours::new(plan)));
        all.len() - plans.len()
    }

    fn connect(&self, to: SocketAddr, number: usize) {
        // A worker's mailbox holds some dozens of commands.
        until("the workers take the command to connect", LIMIT, || {
            match self.terminator.connect(to, (number + 1) as u32) {
                Ok(()) => true,
                Err(e) if e.is_busy() => false,
                Err(e) => panic!("{e}"),
            }
        });
    }

    /// Waits for the end of the talks from this number on, and looks at them.
    fn ended(&self, from: usize, limit: Duration) {
        let ended = || self.talks.0.lock().unwrap()[from..].iter().all(|o| !o.records.is_empty());
        until("close records", limit, ended);
        for o in &self.talks.0.lock().unwrap()[from..] {
            check(o);
        }
    }

    /// What the workers have counted.
    pub fn report(&self) -> finwheel::metrics::block::Counters {
        self.terminator.report().counters
    }

    pub fn stop(self) -> Outcome {
        self.terminator.stop()
    }
}

/// What must hold of a talk that has ended, at finwheel's end.
fn check(o: &Ours) {
    let [record] = &o.records[..] else { panic!("{} close records: {o:?}", o.records.len()) };
    assert_eq!(o.end.fault, None, "{o:?}");
    if o.plan.shape.graceful() {
        assert!(record.path.graceful() && o.end.done() && record.unacknowledged == 0, "{o:?}");
    } else {
        assert!(!record.path.graceful(), "{o:?}");
    }
}

/// The kernel's end of one talk.
fn serve(listener: &TcpListener, plan: &Plan, stall: Duration) {
    let (mut rx, _) = listener.accept().unwrap();
    rx.set_read_timeout(Some(stall)).unwrap();
    rx.set_write_timeout(Some(stall)).unwrap();
    let tx = rx.try_clone().unwrap();
    let mut end = End::strangers(plan);
    match plan.shape {
        Shape::StrangerFirst => {
            both_ways(&mut end, &mut rx, &tx, false);
            drop((rx, tx));
        }
        Shape::StrangerHalf => {
            write_all(&mut end, &tx).unwrap();
            tx.shutdown(Shutdown::Write).unwrap();
            read_to_end(&mut end, &mut rx);
        }
        Shape::WeFirst => both_ways(&mut end, &mut rx, &tx, true),
        Shape::WeHalf => {
            read_to_end(&mut end, &mut rx);
            write_all(&mut end, &tx).unwrap();
        }
        // Nobody closes both ends at one moment here: this end shuts down once it has sent everything, and finwheel, which
        // may still be sending, follows.
        Shape::Together => {
            let mut rest = End::strangers(plan);
            std::thread::scope(|s| {
                s.spawn(|| {
                    write_all(&mut rest, &tx).unwrap();
                    tx.shutdown(Shutdown::Write).unwrap();
                });
                read_to_end(&mut end, &mut rx);
            });
            end.sent = rest.sent;
        }
        Shape::StrangerReset => {
            while !end.received_some() {
                assert!(read(&mut end, &mut rx).unwrap() > 0, "{end:?}");
            }
            // Closed with unread bytes, and without lingering: RST.
            setsockopt(&rx, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        }
        Shape::WeReset => {
            let sent = write_all(&mut end, &tx);
            let reset =
                |e: &std::io::Error| matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
            let ended = sent.and_then(|()| {
                while read(&mut end, &mut rx)? > 0 {}
                Ok(())
            });
            assert!(ended.as_ref().is_err_and(reset), "{ended:?}: {end:?}");
        }
    }
    assert_eq!(end.fault, None, "{plan:?}");
    assert!(end.done() || !plan.shape.graceful(), "{plan:?}: {end:?}");
}

/// Writes and reads everything, in two threads; then, if `fin`, waits for the peer's FIN.
fn both_ways(end: &mut End, rx: &mut TcpStream, tx: &TcpStream, fin: bool) {
    let mut writer = end.clone();
    std::thread::scope(|s| {
        let writing = s.spawn(|| write_all(&mut writer, tx));
        while !end.received_all() {
            assert!(read(end, rx).unwrap() > 0, "an early FIN: {end:?}");
        }
        if fin {
            assert_eq!(read(end, rx).unwrap(), 0, "bytes beyond the end: {end:?}");
        }
        writing.join().unwrap().unwrap();
    });
    end.sent = writer.sent;
}

fn read(end: &mut End, rx: &mut TcpStream) -> std::io::Result<usize> {
    let mut part = vec![0; PART];
    let n = rx.read(&mut part)?;
    end.take(&part[..n]);
    Ok(n)
}

fn read_to_end(end: &mut End, rx: &mut TcpStream) {
    while read(end, rx).unwrap_or_else(|e| panic!("{e}: {end:?}")) > 0 {}
}

fn write_all(end: &mut End, mut tx: &TcpStream) -> std::io::Result<()> {
    let mut failed = None;
    while !end.sent_all() && failed.is_none() {
        end.push(|bytes| {
            tx.write(bytes).unwrap_or_else(|e| {
                failed = Some(e);
                0
            })
        });
    }
    failed.map_or(Ok(()), Err)
}
