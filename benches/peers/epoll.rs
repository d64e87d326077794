//! The least that a server on sockets can be: accept, read the request, write the response, close. One thread, epoll.
//!
//! It parses nothing and logs nothing, so that what it costs is the kernel's TCP and the system calls that cannot be done
//! without.

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::getppid;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

/// Events taken at a time.
const EVENTS: usize = 512;
/// Connections accepted before the events of others have their turn.
const ACCEPTS: usize = 256;
/// Between looks whether the bench still is there, milliseconds.
const LOOK_MS: u16 = 1000;
/// The token of the listening socket; connections have their descriptor.
const LISTENER: u64 = u64::MAX;

/// What every server of the bench answers with, but for its own headers.
pub const BODY: &str = "ended right\n";

struct Server {
    listener: TcpListener,
    epoll: Epoll,
    /// Connections whose request has not come, by descriptor.
    waiting: Vec<Option<TcpStream>>,
    response: String,
}

/// Serves until the parent is gone.
pub fn serve(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("listening on {at}"))?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let response =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{BODY}", BODY.len());
    let mut server = Server { listener, epoll, waiting: Vec::new(), response };
    let parent = getppid();
    let mut events = [EpollEvent::empty(); EVENTS];
    while getppid() == parent {
        let n = match server.epoll.wait(&mut events, EpollTimeout::from(LOOK_MS)) {
            Err(Errno::EINTR) => continue,
            n => n?,
        };
        for event in &events[..n] {
            match event.data() {
                LISTENER => server.accept()?,
                fd => server.readable(fd as usize)?,
            }
        }
    }
    Ok(())
}

impl Server {
    fn accept(&mut self) -> Result<()> {
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                Ok((stream, _)) => self.serve(stream, true)?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // The peer has gone in the meantime.
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) => return Err(e).context("accepting"),
            }
        }
        Ok(())
    }

    fn readable(&mut self, fd: usize) -> Result<()> {
        match self.waiting.get_mut(fd).and_then(Option::take) {
            // Closed with an earlier event of the same batch.
            None => Ok(()),
            Some(stream) => self.serve(stream, false),
        }
    }

    /// Answers if the request is there, and waits for it otherwise. A connection that fails is the client's to report.
    fn serve(&mut self, mut stream: TcpStream, fresh: bool) -> Result<()> {
        let mut request = [0; 2048];
        let fd: RawFd = stream.as_raw_fd();
        match recv(fd, &mut request, MsgFlags::MSG_DONTWAIT) {
            Ok(n) if request[..n].ends_with(b"\r\n\r\n") => {
                // A fresh connection has room for it, so this never waits.
                let _ = stream.write_all(self.response.as_bytes());
                return Ok(());
            }
            Ok(0) => return Ok(()),
            // A part of it: the rest will come.
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(_) => return Ok(()),
        }
        // Descriptors are not negative.
        let place = fd.cast_unsigned() as usize;
        if fresh {
            self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
        }
        if self.waiting.len() <= place {
            self.waiting.resize_with(place + 1, || None);
        }
        self.waiting[place] = Some(stream);
        Ok(())
    }
}
