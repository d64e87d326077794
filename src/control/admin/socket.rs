//! The admin socket's place in the file system: made for its owner alone, then opened to a group; a stale one replaced, a
//! live one refused.
//!
//! System calls: socket, fchmod, bind, listen, and connect to find out whether a socket that is there is answered; chown
//! and chmod for a group; unlink at the end. Privileges: those of writing into the directory; `CAP_CHOWN` for a group that
//! the process is not in.

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Group, chown};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error(
        "the admin socket {path} ([admin] socket) is answered by {holder}: end it, or give this process another path"
    )]
    Held {
        /// The path.
        path: PathBuf,
        /// Who answers.
        holder: String,
    },
    /// Something else is there.
    #[error("{path} ([admin] socket) is there and no socket: remove it, or write another path")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The group is not known.
    #[error("there is no group \"{0}\" ([admin] group); see /etc/group")]
    NoGroup(String),
    /// The operating system refuses.
    #[error("the admin socket {path} ([admin] socket): {what}: {source}")]
    System {
        /// The path.
        path: PathBuf,
        /// The step.
        what: &'static str,
        /// The answer.
        source: io::Error,
    },
}

impl SocketError {
    /// Whether the process may not write there.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
        match self {
            Self::System { source, .. } => {
                matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem | NotFound)
            }
            Self::Held { .. } | Self::NoSocket { .. } | Self::NoGroup(_) => false,
        }
    }
}

/// A bound socket. Dropping it takes the file away, if it is still this one.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    inode: u64,
    listener: Option<UnixListener>,
}

impl Bound {
    /// Binds.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn new(path: &Path, group: Option<&str>) -> Result<Self, SocketError> {
        let system = |what| {
            let path = path.to_owned();
            move |source: io::Error| SocketError::System { path, what, source }
        };
        let group = group.map(group_id).transpose()?;
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
            // One level: /run/finwheel is made, a mistyped path is not.
            fs::create_dir(dir).map_err(system("making its directory"))?;
        }
        replace_stale(path)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)
            .map_err(|e| system("making a socket")(e.into()))?;
        // The file gets the mode of the socket: it is never anybody else's, not even for a moment.
        fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| system("setting its mode")(e.into()))?;
        let address = UnixAddr::new(path).map_err(|e| system("its path")(e.into()))?;
        bind(fd.as_raw_fd(), &address).map_err(|e| system("binding")(e.into()))?;
        let inode = fs::symlink_metadata(path).map_err(system("looking at it"))?.ino();
        let bound = Self { path: path.to_owned(), inode, listener: Some(UnixListener::from(fd)) };
        if let Some(group) = group {
            chown(path, None, Some(group)).map_err(|e| system("giving it to the group")(e.into()))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o660))
                .map_err(system("opening it to the group"))?;
        }
        let backlog = Backlog::new(BACKLOG).map_err(|e| system("its backlog")(e.into()))?;
        if let Some(listener) = &bound.listener {
            listen(listener, backlog).map_err(|e| system("listening")(e.into()))?;
        }
        Ok(bound)
    }

    /// The listener, once.
    pub fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode);
        if ours && let Err(e) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), error = %e, "the admin socket's file stays");
        }
    }
}

fn group_id(name: &str) -> Result<Gid, SocketError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let found = Group::from_name(name).ok().flatten();
    found.map(|g| g.gid).ok_or_else(|| SocketError::NoGroup(name.to_owned()))
}

/// Takes away a socket that nobody answers.
fn replace_stale(path: &Path) -> Result<(), SocketError> {
    let system = |what, source| SocketError::System { path: path.to_owned(), what, source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(system("looking whether it is there", e)),
        Ok(m) if !m.file_type().is_socket() => {
            return Err(SocketError::NoSocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(answered) => Err(SocketError::Held { path: path.to_owned(), holder: holder(&answered) }),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing an admin socket that a process left behind");
            fs::remove_file(path).map_err(|e| system("removing one that was left behind", e))
        }
        // Its owner is too busy to accept, but it is there.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            Err(SocketError::Held { path: path.to_owned(), holder: "a process".to_owned() })
        }
        Err(e) => Err(system("asking who answers there", e)),
    }
}

/// The process at the other end.
fn holder(stream: &UnixStream) -> String {
    let Ok(peer) = getsockopt(stream, sockopt::PeerCredentials) else { return "a process".to_owned() };
    let name = fs::read_to_string(format!("/proc/{}/comm", peer.pid())).unwrap_or_default();
    format!("process {} {}", peer.pid(), name.trim()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_socket_is_its_owners_or_its_groups_and_goes_with_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/admin.sock");
        let bound = Bound::new(&path, None).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(bound);
        assert!(!path.exists());
        let gid = nix::unistd::getgid();
        let bound = Bound::new(&path, Some(&gid.to_string())).unwrap();
        assert_eq!((mode(&path), fs::metadata(&path).unwrap().gid()), (0o660, gid.as_raw()));
        drop(bound);
        let e = Bound::new(&path, Some("no-such-group")).unwrap_err().to_string();
        assert!(e.contains("no-such-group"), "{e}");
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_refused_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let first = Bound::new(&path, None).unwrap();
        let e = Bound::new(&path, None).unwrap_err().to_string();
        assert!(e.contains(&format!("answered by process {}", std::process::id())), "{e}");
        drop(first);
        fs::write(&path, "precious").unwrap();
        let e = Bound::new(&path, None).unwrap_err().to_string();
        assert!(e.contains("no socket"), "{e}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_from_one_that_is_held() {
        // Not even root makes a file there.
        let e = Bound::new(Path::new("/proc/finwheel/admin.sock"), None).unwrap_err();
        assert!(e.is_forbidden(), "{e}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let _first = Bound::new(&path, None).unwrap();
        assert!(!Bound::new(&path, None).unwrap_err().is_forbidden());
    }

    #[test]
    fn a_socket_that_another_process_put_there_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = Bound::new(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(other);
    }
}
