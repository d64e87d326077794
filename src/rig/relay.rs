//! A relay between the two ends of a rig, in user space: delay, loss, speed and queue, from a seed.
//!
//! ```text
//!  server's namespace        relay's namespace                                        client's namespace
//!   fw-server ── veth ── fw-relay-s ─▶ ┐                        ┌ ◀─ fw-relay-c ── veth ── fw-client
//!                          raw socket  │ the simulated link,    │  raw socket
//!                        fw-relay-s ◀─ ┘ under the real clock   └ ─▶ fw-relay-c
//! ```
//!
//! The kernel's own means for this (netem) are a module that not every kernel has; nft only loses. The faults are those
//! of [`crate::port::mem`], drawn and counted in the same way: whatever runs between the two ends meets the same line.
//! One thread, which sleeps until a frame comes in or one is due to leave.

use super::packet::PacketSocket;
use super::{Namespace, RigError};
use crate::port::Port;
use crate::port::mem::{Counters, Direction, Impairment, LinkConfig, LinkHandle, MemPort, link};
use crate::time::Time;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames taken from one side before the other has its turn.
const BURST: usize = 64;
/// Longest sleep: how late the relay sees that it is to end.
const NAP: Duration = Duration::from_millis(20);
/// Room for a frame: more than any that the link carries.
const FRAME: usize = 4096;

/// What a relay does to the frames of each direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RelayConfig {
    /// Source of everything random.
    pub seed: u64,
    /// From the server's end to the client's.
    pub to_client: Impairment,
    /// From the client's end to the server's.
    pub to_server: Impairment,
}

/// What has happened to the frames of each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounters {
    /// From the server's end to the client's.
    pub to_client: Counters,
    /// From the client's end to the server's.
    pub to_server: Counters,
    /// Frames that came out of the relay and that an interface did not take: a fault of the rig, not of the line.
    pub refused: u64,
}

/// A relay at work. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<RelayCounters>>>,
}

impl Relay {
    /// Starts one in `namespace` between two of its interfaces.
    pub(super) fn start(
        namespace: &Namespace,
        [server, client]: [u32; 2],
        config: RelayConfig,
    ) -> Result<Self, RigError> {
        let sockets = namespace.run_in(|| Ok([PacketSocket::open(server)?, PacketSocket::open(client)?]))?;
        let [server, client] = sockets.map_err(RigError::system("opening the relay's sockets"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("fw-relay".into())
            .spawn(move || Line::new(server, client, config).run(&stopped))
            .map_err(RigError::system("starting the relay"))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// [`RigError::System`] when an interface went away while it ran.
    pub fn stop(mut self) -> Result<RelayCounters, RigError> {
        let ended = self.join().unwrap_or_else(|| unreachable!("it is joined here or in drop alone"));
        ended.map_err(RigError::system("relaying"))
    }

    fn join(&mut self) -> Option<io::Result<RelayCounters>> {
        self.stop.store(true, Ordering::Relaxed);
        Some(self.thread.take()?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.join() {
            tracing::warn!(error = %e, "the relay failed");
        }
    }
}

/// One end: the interface, and the end of the simulated link that takes what it receives.
struct End {
    socket: PacketSocket,
    port: MemPort,
    out: Vec<crate::port::Frame>,
}

impl End {
    fn new(socket: PacketSocket, port: MemPort) -> Self {
        Self { socket, port, out: Vec::with_capacity(crate::port::BURST) }
    }

    /// From the interface onto the line. Returns whether there may be more.
    fn take_in(&mut self) -> io::Result<bool> {
        let mut buffer = [0; FRAME];
        for _ in 0..BURST {
            let Some(n) = self.socket.receive(&mut buffer)? else { return Ok(false) };
            // A frame is copied to the line in `flush`, so that there always is one, and room for it.
            let Some(mut frame) = self.port.alloc() else { return Ok(true) };
            let room = self.port.buffer(&mut frame);
            let n = n.min(room.len());
            room[..n].copy_from_slice(&buffer[..n]);
            self.port.set_len(&mut frame, n);
            self.port.send(frame);
            self.port.flush()?;
        }
        Ok(true)
    }

    /// From the line to the interface. Returns how many frames it did not take.
    fn give_out(&mut self) -> io::Result<u64> {
        let mut refused = 0;
        while self.port.rx(&mut self.out) > 0 {
            for frame in self.out.drain(..) {
                refused += u64::from(!self.socket.send(self.port.bytes(&frame))?);
                self.port.free(frame);
            }
            self.port.flush()?;
        }
        Ok(refused)
    }
}

/// What the thread owns.
struct Line {
    ends: [End; 2],
    link: LinkHandle,
    origin: Instant,
    refused: u64,
}

impl Line {
    fn new(server: PacketSocket, client: PacketSocket, config: RelayConfig) -> Self {
        let (a, b, link) = link(LinkConfig {
            seed: config.seed,
            a_to_b: config.to_client,
            b_to_a: config.to_server,
            ..LinkConfig::default()
        });
        let ends = [End::new(server, a), End::new(client, b)];
        Self { ends, link, origin: Instant::now(), refused: 0 }
    }

    fn now(&self) -> Time {
        Time::from_micros(self.origin.elapsed().as_micros() as u64)
    }

    fn run(mut self, stop: &AtomicBool) -> io::Result<RelayCounters> {
        while !stop.load(Ordering::Relaxed) {
            let mut more = false;
            for i in 0..2 {
                self.link.advance(self.now());
                more |= self.ends[i].take_in()?;
            }
            self.link.advance(self.now());
            for end in &mut self.ends {
                self.refused += end.give_out()?;
            }
            if !more {
                self.sleep()?;
            }
        }
        Ok(RelayCounters {
            to_client: self.link.counters(Direction::AToB),
            to_server: self.link.counters(Direction::BToA),
            refused: self.refused,
        })
    }

    /// Until a frame comes in or one is due to leave.
    fn sleep(&self) -> io::Result<()> {
        let until = self.link.next_delivery().map_or(NAP, |at| at.since(self.now()).min(NAP));
        let mut fds = self.ends.each_ref().map(|e| PollFd::new(e.socket.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut fds, Some(TimeSpec::from_duration(until)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
