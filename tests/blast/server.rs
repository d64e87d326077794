//! A server on the kernel's TCP, in a namespace: HTTP with one body, and echo.

use finwheel::rig::Namespace;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// What the server answers with.
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nkernel";

/// A listening server, ended when dropped.
pub struct Server {
    accepted: Arc<AtomicU64>,
    reset: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
pub enum Kind {
    /// Answers each request, and closes when it is told to or the client has.
    Http,
    /// Sends back what comes, and closes after the client.
    Echo,
}

impl Server {
    /// Listens in a namespace.
    pub fn start(ns: &Namespace, at: SocketAddr, kind: Kind) -> Self {
        let listener = ns.run_in(|| TcpListener::bind(at)).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (accepted, reset) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (stop, stopped) = oneshot::channel();
        let counters = (Arc::clone(&accepted), Arc::clone(&reset));
        let thread = std::thread::spawn(move || serve(listener, kind, counters, stopped));
        Self { accepted, reset, stop: Some(stop), thread: Some(thread) }
    }

    /// Connections that were accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connections that ended by a RST.
    pub fn reset(&self) -> u64 {
        self.reset.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

fn serve(
    listener: TcpListener,
    kind: Kind,
    (accepted, reset): (Arc<AtomicU64>, Arc<AtomicU64>),
    mut stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let stream = tokio::select! {
                _ = &mut stopped => return,
                stream = listener.accept() => stream.unwrap().0,
            };
            accepted.fetch_add(1, Ordering::SeqCst);
            let reset = Arc::clone(&reset);
            tokio::task::spawn_local(async move {
                let ended = match kind {
                    Kind::Http => http(stream).await,
                    Kind::Echo => echo(stream).await,
                };
                if let Err(e) = ended {
                    assert_eq!(e.kind(), io::ErrorKind::ConnectionReset, "{e}");
                    reset.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
}

async fn http(mut s: TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    loop {
        if s.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        if request.ends_with(b"\r\n\r\n") {
            s.write_all(RESPONSE.as_bytes()).await?;
            if request.windows(17).any(|w| w == b"Connection: close") {
                s.shutdown().await?;
                // To the client's FIN: closed over unread bytes, the kernel would reset.
                while s.read_buf(&mut request).await? > 0 {}
                return Ok(());
            }
            request.clear();
        }
    }
}

async fn echo(mut s: TcpStream) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let n = s.read(&mut bytes).await?;
        if n == 0 {
            return Ok(());
        }
        s.write_all(&bytes[..n]).await?;
    }
}
