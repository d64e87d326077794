//! Answers that are written as they come, and clients that do not take them.
//!
//! A stream is a task that makes pieces, a short channel, and the connection that writes them. Who makes them waits while the
//! channel is full, so nothing piles up; a client that takes nothing for [`STALL`] loses its connection, and with it the
//! stream.

use hyper::body::{Body, Bytes, Frame};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};

/// How long a client may take nothing of what is written. Shorter, and a pager that somebody reads in ends its listing;
/// longer, and a client that hangs keeps its place.
pub const STALL: Duration = Duration::from_secs(30);
/// Pieces that may wait for the connection.
const PIECES: usize = 4;

/// What ends a stream before its time: the client sees that it is cut off.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub &'static str);

/// A piece of an answer.
pub type Piece = Result<Bytes, Broken>;

/// Where pieces are put.
pub type Pieces = mpsc::Sender<Piece>;

/// The body of an answer that is made piece by piece.
pub struct Streamed(mpsc::Receiver<Piece>);

/// A body, and where its pieces are put.
#[must_use]
pub fn streamed() -> (Pieces, Streamed) {
    let (pieces, body) = mpsc::channel(PIECES);
    (pieces, Streamed(body))
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
    }
}

/// A client's connection, given up when it takes nothing for [`STALL`].
pub struct Patient {
    stream: UnixStream,
    stalled: Option<Pin<Box<Sleep>>>,
    limit: Duration,
}

impl Patient {
    /// With this limit.
    #[must_use]
    pub const fn new(stream: UnixStream, limit: Duration) -> Self {
        Self { stream, stalled: None, limit }
    }

    /// Passes on how a write went; one that waits is given its time.
    fn judge<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let limit = self.limit;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
