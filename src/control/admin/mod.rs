//! The admin API: HTTP with JSON over a Unix socket, for the commands that operate a running process.
//!
//! | request | does |
//! |---|---|
//! | `GET /v1/status` | phase, workers, population, rates, drain |
//! | `GET /v1/connections` | records that a filter means, one JSON object a line, in pages |
//! | `POST /v1/close`, `POST /v1/abort` | ends connections that a filter means |
//! | `POST /v1/drain`, `POST /v1/undrain` | stops taking connections and ends those there are; takes them again |
//! | `POST /v1/reload` | reads the configuration again |
//! | `GET /v1/closes` | close records, those there are and those that come |
//! | `GET /v1/capture` | frames, as pcapng |
//!
//! ```text
//! client ──HTTP──▶ fw-admin ──Request──▶ supervisor ──Command──▶ workers, by mailbox
//! ```
//!
//! It has a thread and a current-thread runtime of its own. A client can use up its bounds and nothing else: connections,
//! streams among them, a request's head and body, and the time for each; a stream's client that takes nothing is let go
//! (`STALL` in `stream.rs`). No worker waits for any of it.
//!
//! System calls: those of [`socket`], and accept4, read, write. Privileges: those of [`socket`] at the start and none later.

pub mod model;
mod routes;
pub mod socket;
pub(super) mod spec;
mod stream;

pub(super) use routes::Shared;

use super::accept::{self, Limits};
use super::sandbox::{self, Role};
use crate::config::schema::DEFAULT_SOCKET;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket::{Bound, SocketError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;
use stream::{Patient, STALL};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

/// Connections at the same time; more wait in the kernel's backlog. Operators and their scripts are a handful.
const MAX_CONNECTIONS: u32 = 32;
/// Streams among them: a place is always left for a question.
const MAX_STREAMS: usize = 16;
/// Bytes of a request's head, and hyper's smallest buffer at that.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Bytes of a request's body: a filter takes some hundred.
const MAX_BODY_BYTES: usize = 64 << 10;
/// Time to send the head.
const HEAD_TIME: Duration = Duration::from_secs(2);
/// Time to send the body.
const BODY_TIME: Duration = Duration::from_secs(2);
/// Time that answers under way get at the end.
const SHUTDOWN_TIME: Duration = Duration::from_millis(500);

/// Where the socket is and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Its path.
    pub socket: PathBuf,
    /// The group that may use it beside the owner.
    pub group: Option<String>,
}

/// The running server. Dropping it ends it.
pub(super) struct Server {
    bound: Bound,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds: before the interface is touched. A process that may not write where the socket is by default goes on without:
    /// only whoever names a path cannot do without it.
    pub fn bind(settings: &AdminSettings) -> Result<Option<Bound>, SocketError> {
        match Bound::new(&settings.socket, settings.group.as_deref()) {
            Err(e) if e.is_forbidden() && settings.socket == Path::new(DEFAULT_SOCKET) => {
                tracing::warn!(
                    "no admin socket: {e}; make the directory for this user (systemd: RuntimeDirectory=finwheel; \
                     a container: a volume at /run/finwheel), or set [admin] socket to another path or \"off\""
                );
                Ok(None)
            }
            bound => bound.map(Some),
        }
    }

    /// Serves in a new thread.
    pub fn start(mut bound: Bound, shared: Shared) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = bound.take().ok_or_else(|| io::Error::other("the socket is served already"))?;
        let listener = {
            let _inside = runtime.enter();
            UnixListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("fw-admin".into()).spawn(move || {
            sandbox::begin(Role::Other);
            runtime.block_on(serve(listener, routes::router(shared), stopped));
        })?;
        Ok(Self { bound, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.bound.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The other end is gone only if the thread is, and then there is nothing to stop.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the admin socket panicked");
        }
    }
}

async fn serve(listener: UnixListener, router: axum::Router, stopped: oneshot::Receiver<()>) {
    let accept = async move || listener.accept().await.map(|(stream, _)| stream);
    let limits = Limits { name: "the admin socket", most: MAX_CONNECTIONS, shutdown: SHUTDOWN_TIME };
    accept::serve(limits, accept, |stream| connection(stream, router.clone()), stopped).await;
}

async fn connection(stream: UnixStream, router: axum::Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Patient::new(stream, STALL)), TowerToHyperService::new(router));
    if let Err(e) = served.await {
        tracing::debug!(error = %e, "a client of the admin socket");
    }
}
