//! What a process in the sandbox must not be able to do, tried: for tests, by a hidden subcommand.
//!
//! Each attempt would succeed, or fail with another error than `EPERM`, for root outside of the sandbox.

#![allow(unsafe_code)]

use nix::errno::Errno;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// One attempt: its name, and what became of it.
type Attempt = (&'static str, fn() -> io::Result<()>);

/// Everything that is tried; the last one does not come back where it succeeds.
static ATTEMPTS: &[Attempt] = &[
    ("mount", mount),
    ("bpf_map_create", bpf_map_create),
    ("bpf_prog_load", bpf_prog_load),
    ("ptrace", ptrace),
    ("fork", fork),
    ("raw_socket", || socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP)),
    ("packet_socket", || socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
    ("tcp_socket", || socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
    ("netlink_socket", || socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)),
    ("unshare", unshare),
    ("executable_memory", executable_memory),
    ("kill_init", kill_init),
    ("capset", capset),
    ("io_uring", io_uring),
    ("execve", execve),
];

/// Tries one after the other, as it is asked for the next line: name and errno or `done`.
pub fn report() -> impl Iterator<Item = String> {
    let line = |(name, attempt): &Attempt| match attempt() {
        Ok(()) => format!("{name} done"),
        Err(e) => match e.raw_os_error() {
            Some(code) => format!("{name} {:?}", Errno::from_raw(code)),
            None => format!("{name} {e}"),
        },
    };
    ATTEMPTS.iter().map(line)
}

fn answer(ret: libc::c_long) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn mount() -> io::Result<()> {
    // Where it is allowed there is no such place.
    let flags = nix::mount::MsFlags::MS_BIND;
    Ok(nix::mount::mount(Some("/proc"), "/nowhere/at/all", None::<&str>, flags, None::<&str>)?)
}

/// `bpf(2)` with a zeroed attribute: `EINVAL` or `EPERM`, by how far it comes.
fn bpf(command: libc::c_long) -> io::Result<()> {
    let attributes = [0u64; 16];
    // SAFETY: the kernel reads the attributes, which live through the call and are as long as is said.
    answer(unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) })
}

fn bpf_map_create() -> io::Result<()> {
    bpf(0)
}

fn bpf_prog_load() -> io::Result<()> {
    bpf(5)
}

fn ptrace() -> io::Result<()> {
    // A process that is not traced has nothing to be read: ESRCH where the call is allowed.
    // SAFETY: no memory is passed.
    answer(unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, libc::getpid(), 0, 0) })
}

fn execve() -> io::Result<()> {
    Err(Command::new("/bin/true").exec())
}

fn fork() -> io::Result<()> {
    Command::new("/bin/true").spawn()?.wait().map(drop)
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<()> {
    // SAFETY: no memory is passed; the descriptor, if there is one, ends with the process.
    answer(unsafe { libc::socket(family, kind, protocol) }.into())
}

fn unshare() -> io::Result<()> {
    Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?)
}

fn executable_memory() -> io::Result<()> {
    let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping of one page, which nothing else knows of.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0) };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn kill_init() -> io::Result<()> {
    // Signal 0 asks only whether it could be sent.
    Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(1), None)?)
}

fn capset() -> io::Result<()> {
    // SAFETY: both pointers are null, which the kernel answers with EFAULT where the call is allowed.
    answer(unsafe { libc::syscall(libc::SYS_capset, 0, 0) })
}

fn io_uring() -> io::Result<()> {
    // SAFETY: a null pointer, which the kernel answers with EFAULT where the call is allowed.
    answer(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) })
}
