//! The client's end of the admin socket: requests, answers, streams, and what goes wrong with them in words.

use super::{EXIT_FAILURE, EXIT_USAGE};
use crate::config::schema::DEFAULT_SOCKET;
use crate::control::admin::model::{FilterSpec, Problem};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use tokio::net::UnixStream;

/// Where the running process is.
#[derive(Clone, Debug, clap::Args)]
pub struct SocketArgs {
    /// The admin socket of the running process: `[admin] socket` of its configuration.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// Which connections are meant. What is left out does not count.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FilterArgs {
    /// In one of these states, with commas between: `established`, `fin_wait_2`, `time_wait`, …
    #[arg(long, value_name = "STATES")]
    pub state: Option<String>,
    /// Of these listeners, by name, with commas between; former listeners of a name too.
    #[arg(long, value_name = "NAMES")]
    pub listener: Option<String>,
    /// With a peer of this address or network.
    #[arg(long, value_name = "CIDR")]
    pub peer: Option<String>,
    /// As old as this or older, since the SYN (`TIME_WAIT`: since it was entered): `90s`, `5m`.
    #[arg(long, value_name = "TIME")]
    pub older_than: Option<String>,
}

impl FilterArgs {
    /// As the API has it.
    #[must_use]
    pub fn spec(&self) -> FilterSpec {
        FilterSpec {
            state: self.state.clone(),
            listener: self.listener.clone(),
            peer: self.peer.clone(),
            older_than: self.older_than.clone(),
        }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody is there.
    #[error("cannot reach a running finwheel at {path}: {source}{hint}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The answer.
        source: io::Error,
        /// What may help.
        hint: &'static str,
    },
    /// The process does not want it.
    #[error("{}", .0.error)]
    Refused(Problem),
    /// The conversation broke off.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// What was said cannot be shown.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl AdminError {
    /// Whether the question was wrong.
    const fn is_usage(&self, status: StatusCode) -> bool {
        matches!(self, Self::Refused(_)) && matches!(status, StatusCode::BAD_REQUEST)
    }
}

/// An error and the exit code that it leads to.
pub type Failed = (AdminError, u8);

/// A result as an exit code; an error is shown.
#[must_use]
pub fn finish(done: Result<(), Failed>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads has seen enough.
        Err((AdminError::Output(e), _)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err((e, code)) => {
            eprintln!("finwheel: {e}");
            ExitCode::from(code)
        }
    }
}

fn failed(e: AdminError) -> Failed {
    (e, EXIT_FAILURE)
}

/// Something cannot be written.
#[must_use]
pub fn output(e: io::Error) -> Failed {
    failed(AdminError::Output(e))
}

/// Asks, and gives the whole answer.
///
/// # Errors
/// See [`AdminError`].
pub fn ask<T: DeserializeOwned>(
    socket: &Path,
    method: &Method,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failed> {
    let mut bytes = Vec::new();
    stream(socket, method, path, &encode(body)?, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    serde_json::from_slice(&bytes).map_err(|e| failed(AdminError::Broken(format!("not as expected: {e}"))))
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>, Failed> {
    serde_json::to_vec(body).map_err(|e| failed(AdminError::Broken(e.to_string())))
}

/// Asks with a query, and hands over the answer piece by piece as it comes.
///
/// # Errors
/// See [`AdminError`]; and what `take` says.
pub fn follow(
    socket: &Path,
    path: &str,
    query: &impl Serialize,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Failed> {
    let query = query_string(query).map_err(|e| failed(AdminError::Broken(e)))?;
    let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    stream(socket, &Method::GET, &path, &[], take)
}

/// The fields of a flat struct as a query.
fn query_string(query: &impl Serialize) -> Result<String, String> {
    let value = serde_json::to_value(query).map_err(|e| e.to_string())?;
    let fields = value.as_object().ok_or("a query is an object")?;
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    Ok(fields.iter().map(|(k, v)| format!("{k}={}", encoded(&text(v)))).collect::<Vec<_>>().join("&"))
}

/// With everything but letters and digits as `%XX` (RFC 3986 §2.1).
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-_.".contains(&b) {
            out.push(char::from(b));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

fn stream(
    socket: &Path,
    method: &Method,
    path: &str,
    body: &[u8],
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| failed(AdminError::Output(e)))?;
    runtime.block_on(talk(socket, method, path, body, take))
}

async fn talk(
    socket: &Path,
    method: &Method,
    path: &str,
    body: &[u8],
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Failed> {
    let connected = UnixStream::connect(socket).await;
    let connection = connected.map_err(|source| failed(unreachable(socket, source)))?;
    let broken = |e: hyper::Error| failed(AdminError::Broken(e.to_string()));
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(broken)?;
    let driver = tokio::spawn(driver);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "finwheel")
        .body(axum::body::Body::from(body.to_vec()))
        .map_err(|e| failed(AdminError::Broken(e.to_string())))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let mut incoming = response.into_body();
    if status.is_success() {
        while let Some(piece) = piece(&mut incoming).await.map_err(broken)? {
            take(&piece).map_err(output)?;
        }
        driver.abort();
        return Ok(());
    }
    let mut bytes = Vec::new();
    while let Some(piece) = piece(&mut incoming).await.map_err(broken)? {
        bytes.extend_from_slice(&piece);
    }
    let problem = serde_json::from_slice(&bytes).unwrap_or_else(|_| Problem {
        error: format!("{status}: {}", String::from_utf8_lossy(&bytes).trim()),
        refused: Vec::new(),
    });
    let e = AdminError::Refused(problem);
    let code = if e.is_usage(status) { EXIT_USAGE } else { EXIT_FAILURE };
    Err((e, code))
}

/// The next bytes of a body.
async fn piece(body: &mut Incoming) -> hyper::Result<Option<Bytes>> {
    use hyper::body::Body as _;
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        match frame.transpose()? {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

fn unreachable(socket: &Path, source: io::Error) -> AdminError {
    let hint = match source.kind() {
        io::ErrorKind::NotFound => " (is it running, and is this its [admin] socket? --socket names another)",
        io::ErrorKind::PermissionDenied => {
            " (it is its owner's, and its [admin] group's: use sudo, or join the group)"
        }
        io::ErrorKind::ConnectionRefused => " (its process has ended)",
        _ => "",
    };
    AdminError::Unreachable { path: socket.to_owned(), source, hint }
}

/// Cuts a stream into lines.
#[derive(Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Takes a piece, and calls for each line that is complete with it.
    ///
    /// # Errors
    /// What `each` says.
    pub fn take(&mut self, piece: &[u8], each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            if self.0.is_empty() {
                each(&rest[..end])?;
            } else {
                self.0.extend_from_slice(&rest[..end]);
                each(&self.0)?;
                self.0.clear();
            }
            rest = &rest[end + 1..];
        }
        self.0.extend_from_slice(rest);
        Ok(())
    }
}

/// Standard output, in large pieces unless somebody looks.
#[must_use]
pub fn stdout() -> Box<dyn Write> {
    let out = io::stdout();
    if out.is_terminal() { Box::new(out.lock()) } else { Box::new(io::BufWriter::new(out.lock())) }
}

/// A time in seconds, in the unit that says most.
#[must_use]
pub fn short_time(s: f64) -> String {
    match s {
        s if s < 0.001 => format!("{:.0}us", s * 1e6),
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 100.0 => format!("{s:.1}s"),
        s if s < 6000.0 => format!("{:.0}m", s / 60.0),
        s if s < 360_000.0 => format!("{:.0}h", s / 3600.0),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_are_cut() {
        let text = b"one\ntwo\n\nthree\n";
        for cut in 1..text.len() {
            let (mut lines, mut got) = (Lines::default(), Vec::new());
            for piece in text.chunks(cut) {
                let mut each = |l: &[u8]| {
                    got.push(String::from_utf8(l.to_vec()).unwrap());
                    Ok(())
                };
                lines.take(piece, &mut each).unwrap();
            }
            assert_eq!(got, ["one", "two", "", "three"], "pieces of {cut}");
        }
    }

    #[test]
    fn a_query_keeps_what_is_in_it() {
        let spec = FilterSpec {
            peer: Some("2001:db8::/32".into()),
            state: Some("a,b".into()),
            ..FilterSpec::default()
        };
        assert_eq!(query_string(&spec).unwrap(), "peer=2001%3Adb8%3A%3A%2F32&state=a%2Cb");
    }

    #[test]
    fn times_are_short() {
        let shown = [0.000_25, 0.25, 2.5, 250.0, 25_000.0, 2_500_000.0].map(short_time);
        assert_eq!(shown, ["250us", "250ms", "2.5s", "4m", "7h", "29d"]);
    }
}
