//! Where `finwheel top` has its numbers from: one exchange with the metrics address.
//!
//! Nothing else of the view knows about it, so that another source (a socket of an administrator's, say) is another arm of
//! [`Source`]. System calls: those of a TCP client, each with a limit of time.

use crate::metrics::live::Snapshot;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// Longest wait for the address, and for each part of its answer.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest answer that is read: five minutes of history are some 30 KB.
const ANSWER_MAX: u64 = 4 << 20;
/// Headers of an answer that are looked at: finwheel's has six.
const HEADERS: usize = 32;

/// A place that answers with a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The metrics address of a finwheel: host and port as they are to be named in the request, and the path.
    Http {
        /// Host and port.
        authority: String,
        /// The path, with its slash.
        path: String,
    },
}

/// There are no numbers.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The address cannot be looked up or connected to, or broke off.
    #[error("{authority}: {source}; is finwheel running there, with [metrics] listen set?")]
    Unreachable {
        /// Host and port.
        authority: String,
        /// Why.
        source: io::Error,
    },
    /// Something else answers there.
    #[error("{authority} does not answer as a finwheel of this version does: {why}")]
    Stranger {
        /// Host and port.
        authority: String,
        /// What is wrong with the answer.
        why: String,
    },
}

impl Source {
    /// The metrics address of a configuration; an unspecified address is asked over the loopback.
    #[must_use]
    pub fn of_listen(listen: SocketAddr) -> Self {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let authority = SocketAddr::new(ip, listen.port()).to_string();
        Self::Http { authority, path: "/live.json".into() }
    }

    /// Asks once.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn fetch(&self) -> Result<Snapshot, SourceError> {
        let Self::Http { authority, path } = self;
        let stranger = |why: String| SourceError::Stranger { authority: authority.clone(), why };
        let answer = exchange(authority, path)
            .map_err(|source| SourceError::Unreachable { authority: authority.clone(), source })?;
        let body = body(&answer).map_err(stranger)?;
        serde_json::from_slice(body).map_err(|e| stranger(e.to_string()))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Http { authority, .. } = self;
        write!(f, "http://{authority}")
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let rest = s.strip_prefix("http://").unwrap_or(s);
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let port = authority.rsplit_once(':').and_then(|(_, p)| p.parse::<u16>().ok());
        if s.starts_with("https://") || port.is_none() {
            return Err("name the metrics address with its port: http://127.0.0.1:9464".into());
        }
        let path = if path.trim_end_matches('/').is_empty() { "/live.json" } else { path };
        Ok(Self::Http { authority: authority.into(), path: path.into() })
    }
}

fn exchange(authority: &str, path: &str) -> io::Result<Vec<u8>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for at in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&at, LIMIT) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                let request =
                    format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes())?;
                let mut answer = Vec::new();
                stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
                return Ok(answer);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// What follows the head of an answer with status 200.
fn body(answer: &[u8]) -> Result<&[u8], String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(answer) {
        Ok(httparse::Status::Complete(at)) if head.code == Some(200) => Ok(&answer[at..]),
        Ok(httparse::Status::Complete(_)) => Err(format!("status {}", head.code.unwrap_or(0))),
        Ok(httparse::Status::Partial) => Err("the answer broke off".into()),
        Err(e) => Err(format!("no HTTP: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn http(authority: &str, path: &str) -> Source {
        Source::Http { authority: authority.into(), path: path.into() }
    }

    #[test]
    fn an_address_is_taken_with_and_without_scheme_and_path() {
        for s in ["http://h:9464", "h:9464", "h:9464/", "http://h:9464/live.json"] {
            assert_eq!(s.parse(), Ok(http("h:9464", "/live.json")), "{s}");
        }
        assert_eq!("[::1]:9464/x/live.json".parse(), Ok(http("[::1]:9464", "/x/live.json")));
        for s in ["h", "https://h:1", "http://h:port"] {
            assert!(s.parse::<Source>().unwrap_err().contains("http://127.0.0.1:9464"), "{s}");
        }
    }

    #[test]
    fn a_configured_address_of_all_interfaces_is_asked_over_the_loopback() {
        let of = |s: &str| Source::of_listen(s.parse().unwrap()).to_string();
        assert_eq!(of("0.0.0.0:9464"), "http://127.0.0.1:9464");
        assert_eq!(of("[::]:9"), "http://[::1]:9");
        assert_eq!(of("192.0.2.1:9"), "http://192.0.2.1:9");
    }

    /// One answer to one request.
    fn answering(answer: &'static str) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut s, _) = listener.accept().unwrap();
            let mut seen = [0; 1024];
            let _ = s.read(&mut seen).unwrap();
            s.write_all(answer.as_bytes()).unwrap();
        });
        Source::of_listen(at)
    }

    #[test]
    fn what_is_no_finwheel_is_said_to_be_none() {
        for (answer, why) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
            ("HTTP/1.1 200 OK\r\n\r\n{}", "missing field"),
            ("HTTP/1.1 200 OK\r\n", "broke off"),
            ("SSH-2.0-x\r\n", "no HTTP"),
        ] {
            let e = answering(answer).fetch().unwrap_err().to_string();
            assert!(e.contains("does not answer as a finwheel") && e.contains(why), "{e}");
        }
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let e = Source::of_listen(gone).fetch().unwrap_err().to_string();
        assert!(e.contains("is finwheel running there"), "{e}");
    }
}
