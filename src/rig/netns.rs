//! One named network namespace: made, entered, removed.
//!
//! The name is a bind mount in /run/netns, as iproute2 makes it, so `ip netns` sees it. Work in a namespace is done
//! on a fresh thread: a thread that enters one never comes back, and the caller's stays where it is.

#![allow(unsafe_code)]

use super::RigError;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Where iproute2 keeps names.
const NAMES: &str = "/run/netns";

/// A network namespace with a name.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

impl Namespace {
    /// Makes a namespace and gives it a name.
    pub(super) fn create(name: String) -> Result<Self, RigError> {
        let step = |what: &str| RigError::system(format!("network namespace {name}: {what}"));
        share_names().map_err(step("making /run/netns a shared mount"))?;
        let path = path(&name);
        File::create_new(&path).map_err(step("making its name"))?;
        let mounted = std::thread::scope(|s| {
            s.spawn(|| -> io::Result<()> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
                Ok(())
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        mounted.map_err(step("giving it its name"))?;
        let file = File::open(&path).map_err(step("opening it"))?;
        Ok(Self { file: Arc::new(file), name })
    }

    /// The name: `ip netns exec NAME`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Runs `f` on a fresh thread in this namespace and returns what it returned; a panic goes on in the caller.
    /// Sockets that `f` opens belong to this namespace wherever they go.
    ///
    /// # Errors
    /// [`RigError::NotPermitted`] or [`RigError::System`] when the namespace cannot be entered.
    pub fn run_in<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, RigError> {
        std::thread::scope(|s| {
            s.spawn(|| {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok(f())
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .map_err(RigError::system(format!("entering network namespace {}", self.name)))
    }

    /// A program to be run in this namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec the closure makes one system call and touches no lock and no heap.
        unsafe {
            command.pre_exec(move || Ok(setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?));
        }
        command
    }

    /// Sets a kernel parameter of this namespace, as `net/ipv4/tcp_fin_timeout`.
    ///
    /// # Errors
    /// [`RigError::System`] when there is no such parameter or the value is refused.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), RigError> {
        let path = Path::new("/proc/sys").join(key);
        self.run_in(|| fs::write(path, value))?.map_err(RigError::system(format!("setting {key}")))
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

/// Makes the folder of names a shared mount, as iproute2 does, so that a name removed here is removed in every
/// mount namespace.
fn share_names() -> io::Result<()> {
    fs::create_dir_all(NAMES)?;
    let share =
        || mount(None::<&str>, NAMES, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        // Not a mount point yet.
        Err(nix::errno::Errno::EINVAL) => {
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(NAMES), NAMES, None::<&str>, bind, None::<&str>)?;
            Ok(share()?)
        }
        done => Ok(done?),
    }
}

/// Takes a name away. The namespace ends with the last process or descriptor that is in it.
pub(super) fn remove(name: &str) -> io::Result<()> {
    let path = path(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // A name that never was mounted: made just before a failure.
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// All names there are.
pub(super) fn names() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMES) else {
        return Vec::new();
    };
    entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect()
}
