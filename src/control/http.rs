//! `/metrics`, `/healthz`, `/readyz` and the live page (`live`), over the kernel's TCP.
//!
//! | path | 200 | 503 |
//! |---|---|---|
//! | `/metrics` | the text of [`Exposition::render`] | (500 when it cannot be rendered) |
//! | `/`, `/live.json` | the live page and its numbers | |
//! | `/healthz` | every worker has reported lately | names the worker that has not, and for how long |
//! | `/readyz` | the phase is [`Phase::Ready`] | names the phase |
//!
//! It has a thread and a current-thread runtime of its own. Everything is bounded: connections, the request head, and
//! the time of a whole connection, which carries one request. Who can connect can use up these bounds and keep
//! others from their answers, so the default address is the loopback's.
//!
//! System calls: those of a TCP server. Privileges: none, unless the port is below 1024.

use super::accept::{self, Limits};
use super::live;
use super::phase::{Phase, Phases};
use super::sandbox::{self, Role};
use crate::metrics::exposition::Exposition;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Connections at the same time; more wait in the kernel's backlog. Scrapers and probes are a handful; many more
/// would only let a client hold more memory.
const MAX_CONNECTIONS: u32 = 64;
/// Bytes of a request's head, and hyper's smallest buffer (8 KiB) at that. A scraper sends about 500.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Time to send the head. A slow client holds one of [`MAX_CONNECTIONS`] for this long.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Time of a whole connection. A scraper's own limit is 10 s by default; beyond it nobody waits for the answer.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Time that answers under way get at the end.
const SHUTDOWN_TIME: Duration = Duration::from_secs(1);

/// What is served.
#[derive(Clone, Debug)]
pub struct Admin {
    /// For `/metrics`, and for the reports' age.
    pub exposition: Exposition,
    /// For `/readyz`.
    pub phases: Phases,
    /// A worker silent for longer is unhealthy. It should be several times the interval of reports: one report
    /// that is late on a busy host is no reason to restart a process with a million connections.
    pub report_limit: Duration,
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ([metrics] listen): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The thread or its runtime cannot be made.
    #[error("cannot start the thread of the metrics server: {0}")]
    Thread(io::Error),
}

/// The running server. Dropping it ends it as [`Server::shutdown`] does.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds in the calling thread, so that the error is its own, and serves in a new one.
    ///
    /// # Errors
    /// When the address cannot be had or the thread not be made.
    pub fn start(address: SocketAddr, admin: Admin) -> Result<Self, StartError> {
        let listen = |source| StartError::Listen { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map_err(listen)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("fw-http".into())
            .spawn(move || {
                sandbox::begin(Role::Other);
                runtime.block_on(serve(listener, router(admin), stopped));
            })
            .map_err(StartError::Thread)?;
        Ok(Self { address: bound, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens; tells the port when 0 was asked for.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, lets answers under way finish for a second, and waits for the thread.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // The other end is gone only if the thread is, and then there is nothing to stop.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the metrics server panicked");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

async fn serve(listener: TcpListener, router: Router, stopped: oneshot::Receiver<()>) {
    let accept = async move || listener.accept().await.map(|(stream, _)| stream);
    let limits = Limits { name: "the metrics server", most: MAX_CONNECTIONS, shutdown: SHUTDOWN_TIME };
    accept::serve(limits, accept, |stream| connection(stream, router.clone()), stopped).await;
}

async fn connection(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIME, served).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::debug!(error = %e, "a client of the metrics server"),
        Err(_) => tracing::debug!("a client of the metrics server was too slow"),
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/", get(live::page))
        .route("/live.json", get(live::numbers))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(async || {
            (StatusCode::NOT_FOUND, "there are /, /live.json, /metrics, /healthz and /readyz\n")
        })
        .with_state(admin)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.exposition.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(e) => {
            tracing::error!(error = %e, "the metrics cannot be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render the metrics: {e}\n")).into_response()
        }
    }
}

async fn healthz(State(admin): State<Admin>) -> (StatusCode, String) {
    match admin.exposition.silent(admin.report_limit) {
        None => (StatusCode::OK, "ok\n".into()),
        Some(silent) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("worker {} has not reported for {:.1} s\n", silent.worker, silent.for_.as_secs_f64()),
        ),
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, String) {
    let phase = admin.phases.now();
    let status = match phase {
        Phase::Ready => StatusCode::OK,
        Phase::Starting | Phase::Draining | Phase::Stopped => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{phase}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::block::Block;
    use std::io::{Read, Write};
    use std::time::Instant;

    fn start(workers: usize, report_limit: Duration) -> (Server, Admin) {
        let admin =
            Admin { exposition: Exposition::new(workers).unwrap(), phases: Phases::default(), report_limit };
        let server = Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), admin.clone()).unwrap();
        (server, admin)
    }

    fn exchange(to: SocketAddr, request: &[u8]) -> String {
        let mut s = std::net::TcpStream::connect(to).unwrap();
        s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The server may refuse before it has read everything; what it says counts.
        let _ = s.write_all(request);
        let mut text = Vec::new();
        let _ = s.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    fn ask(server: &Server, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n");
        let text = exchange(server.local_addr(), request.as_bytes());
        let code = text.strip_prefix("HTTP/1.1 ").and_then(|t| t.get(..3)).and_then(|c| c.parse().ok());
        (code.unwrap_or_else(|| panic!("no status: {text}")), text)
    }

    const NEVER: Duration = Duration::from_secs(3600);

    #[test]
    fn metrics_are_served_as_text_with_the_right_type() {
        let (server, admin) = start(1, NEVER);
        let mut b = Block::default();
        b.counters.port.rx_frames = 7;
        admin.exposition.update(0, &b).unwrap();
        let (code, text) = ask(&server, "/metrics");
        assert_eq!(code, 200);
        assert!(text.contains("content-type: text/plain; version=0.0.4\r\n"));
        assert!(text.contains("\nfinwheel_frames_total{direction=\"rx\"} 7\n"));
    }

    #[test]
    fn the_live_page_runs_what_carries_its_nonce_and_nothing_else() {
        let (server, admin) = start(1, NEVER);
        let pages = [ask(&server, "/"), ask(&server, "/")];
        let nonce = |text: &str| {
            let (_, rest) = text.split_once("script-src 'nonce-").expect("a policy");
            rest.split_once('\'').expect("its end").0.to_owned()
        };
        for (code, text) in &pages {
            assert_eq!(*code, 200);
            assert!(text.contains("default-src 'none'") && text.contains("frame-ancestors 'none'"), "{text}");
            assert!(text.contains(&format!("<script nonce=\"{}\">", nonce(text))));
        }
        assert_ne!(nonce(&pages[0].1), nonce(&pages[1].1));
        let mut b = Block::default();
        b.counters.states[crate::tcp::state::State::TimeWait as usize] = 41;
        admin.exposition.update(0, &b).unwrap();
        admin.exposition.sample();
        let (code, text) = ask(&server, "/live.json");
        let body = text.split_once("\r\n\r\n").expect("a body").1;
        let live: crate::metrics::live::Snapshot = serde_json::from_str(body).unwrap();
        assert_eq!((code, live.phase.as_str()), (200, "starting"));
        assert!(live.states.iter().any(|s| s.state == "TIME_WAIT" && s.count == 41), "{:?}", live.states);
    }

    #[test]
    fn readiness_follows_the_phase_and_names_it() {
        let (server, admin) = start(1, NEVER);
        for phase in Phase::ALL {
            admin.phases.advance(phase);
            let (code, text) = ask(&server, "/readyz");
            assert_eq!(code, if phase == Phase::Ready { 200 } else { 503 }, "{phase}");
            assert!(text.ends_with(&format!("\r\n\r\n{phase}\n")), "{text}");
        }
    }

    #[test]
    fn health_names_the_worker_that_has_not_reported() {
        let (server, admin) = start(2, Duration::from_millis(300));
        assert_eq!(ask(&server, "/healthz").0, 200);
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            admin.exposition.update(1, &Block::default()).unwrap();
            let (code, text) = ask(&server, "/healthz");
            if code == 503 {
                assert!(text.contains("worker 0 has not reported for 0."), "{text}");
                break;
            }
            assert!(Instant::now() < until, "never unhealthy");
            std::thread::sleep(Duration::from_millis(20));
        }
        admin.exposition.update(0, &Block::default()).unwrap();
        admin.exposition.update(1, &Block::default()).unwrap();
        assert_eq!(ask(&server, "/healthz").0, 200);
    }

    #[test]
    fn an_unknown_path_is_told_what_there_is() {
        let (server, _) = start(0, NEVER);
        let (code, text) = ask(&server, "/nothing");
        assert_eq!(code, 404);
        assert!(text.contains("/metrics"));
    }

    #[test]
    fn an_address_in_use_is_named() {
        let (server, admin) = start(0, NEVER);
        let e = Server::start(server.local_addr(), admin).unwrap_err().to_string();
        assert!(
            e.starts_with(&format!("cannot listen on {} ([metrics] listen): ", server.local_addr())),
            "{e}"
        );
    }

    #[test]
    fn an_endless_head_is_refused() {
        let (server, _) = start(0, NEVER);
        let mut request = b"GET /readyz HTTP/1.1\r\nX: ".to_vec();
        request.resize(64 << 10, b'a');
        let text = exchange(server.local_addr(), &request);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text}");
        assert_eq!(ask(&server, "/readyz").0, 503);
    }

    #[test]
    fn a_client_that_sends_nothing_is_let_go() {
        let (server, _) = start(0, NEVER);
        let began = Instant::now();
        let text = exchange(server.local_addr(), b"GET /readyz HT");
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
        assert!(began.elapsed() < CONNECTION_TIME, "{:?}", began.elapsed());
    }

    #[test]
    fn shutdown_frees_the_address_and_is_not_held_up_by_an_idle_client() {
        let (server, admin) = start(0, NEVER);
        let at = server.local_addr();
        let idle = std::net::TcpStream::connect(at).unwrap();
        assert_eq!(ask(&server, "/readyz").0, 503);
        let began = Instant::now();
        server.shutdown();
        assert!(began.elapsed() < SHUTDOWN_TIME * 3, "{:?}", began.elapsed());
        assert!(std::net::TcpStream::connect(at).is_err());
        drop(idle);
        Server::start(at, admin).unwrap().shutdown();
    }
}
