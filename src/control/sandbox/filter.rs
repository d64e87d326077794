//! The system calls of run time: a table, each with its reason, and the seccomp filter that is made of it.
//!
//! What is not in the table is refused with `EPERM`. `clone3` alone gets `ENOSYS`: its flags lie in memory, where a filter
//! cannot look, and the C library then takes `clone`, whose flags are an argument.

use super::SandboxError;
use super::refused;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};
use std::collections::BTreeMap;

/// Calls that are allowed whatever their arguments.
static FREE: &[(&str, &[c_long])] = &[
    (
        "rings, sockets that are open, and those that are accepted: no new one can be made",
        &[
            libc::SYS_accept4,
            libc::SYS_getpeername,
            libc::SYS_getsockname,
            libc::SYS_getsockopt,
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            libc::SYS_sendmsg,
            libc::SYS_sendto,
            libc::SYS_setsockopt,
            libc::SYS_shutdown,
        ],
    ),
    (
        "waiting, and waking others",
        &[
            libc::SYS_clock_nanosleep,
            libc::SYS_epoll_create1,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_eventfd2,
            libc::SYS_futex,
            libc::SYS_nanosleep,
            libc::SYS_ppoll,
            libc::SYS_restart_syscall,
            libc::SYS_sched_yield,
        ],
    ),
    (
        "files: the configuration when it is read again, logs, /sys and /proc; their permissions decide",
        &[
            libc::SYS_close,
            libc::SYS_dup,
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_fcntl,
            libc::SYS_fdatasync,
            libc::SYS_fstat,
            libc::SYS_fsync,
            libc::SYS_ftruncate,
            libc::SYS_getcwd,
            libc::SYS_getdents64,
            libc::SYS_lseek,
            libc::SYS_newfstatat,
            libc::SYS_openat,
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_read,
            libc::SYS_readlinkat,
            libc::SYS_readv,
            libc::SYS_renameat2,
            libc::SYS_statx,
            libc::SYS_umask,
            libc::SYS_unlinkat,
            libc::SYS_write,
            libc::SYS_writev,
        ],
    ),
    (
        "memory that is not to be executed (see below), and the life of threads",
        &[
            libc::SYS_brk,
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_madvise,
            libc::SYS_membarrier,
            libc::SYS_mremap,
            libc::SYS_munmap,
            libc::SYS_rseq,
            libc::SYS_sched_getaffinity,
            libc::SYS_sched_setaffinity,
            libc::SYS_set_robust_list,
            libc::SYS_set_tid_address,
            libc::SYS_sigaltstack,
        ],
    ),
    (
        "signals of its own",
        &[
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_rt_sigtimedwait,
        ],
    ),
    (
        "who it is, what time it is, and randomness",
        &[
            libc::SYS_clock_getres,
            libc::SYS_clock_gettime,
            libc::SYS_getcpu,
            libc::SYS_getegid,
            libc::SYS_geteuid,
            libc::SYS_getgid,
            libc::SYS_getpid,
            libc::SYS_getrandom,
            libc::SYS_getrusage,
            libc::SYS_gettid,
            libc::SYS_gettimeofday,
            libc::SYS_getuid,
            libc::SYS_sysinfo,
            libc::SYS_uname,
            // Refused by its own filter, with another error.
            libc::SYS_clone3,
        ],
    ),
];

/// What older C libraries use on this architecture in the place of the calls above.
#[cfg(target_arch = "x86_64")]
static OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
static OLD: &[c_long] = &[];

/// `enum bpf_cmd` of linux/bpf.h: what is done with a map that is open. No program is loaded, no map made, none attached.
const BPF_MAPS: [u64; 4] = [1, 2, 3, 4];
/// `PR_SET_VMA` of linux/prctl.h: names of memory regions, which the C library sets.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Allowed when argument `0` meets the condition.
fn when(argument: u8, op: Op, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, Len::Dword, op, value)?])
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let free = FREE.iter().flat_map(|(_, calls)| calls.iter()).chain(OLD);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = free.map(|&call| (call, Vec::new())).collect();
    let not_executable = || when(2, Op::MaskedEq(libc::PROT_EXEC as u64), 0);
    rules.insert(libc::SYS_mmap, vec![not_executable()?]);
    rules.insert(libc::SYS_mprotect, vec![not_executable()?]);
    // Threads, and no processes.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![when(0, Op::MaskedEq(thread), thread)?]);
    let maps = BPF_MAPS.iter().map(|&command| when(0, Op::Eq, command));
    rules.insert(libc::SYS_bpf, maps.collect::<Result<_, _>>()?);
    // Whether a descriptor is a terminal, and that it does not block.
    let requests = [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONBIO, libc::FIOCLEX];
    let requests = requests.iter().map(|&request| when(1, Op::Eq, request));
    rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
    let names = [libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64, PR_SET_VMA];
    rules.insert(libc::SYS_prctl, names.iter().map(|&n| when(0, Op::Eq, n)).collect::<Result<_, _>>()?);
    // A limit is read, not set.
    rules.insert(libc::SYS_prlimit64, vec![when(2, Op::Eq, 0)?]);
    // Abort: to itself.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![when(0, Op::Eq, own)?]);
    Ok(rules)
}

fn programs() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refuse = |errno: i32| SeccompAction::Errno(errno.cast_unsigned());
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let clone3 = SeccompFilter::new(clone3, SeccompAction::Allow, refuse(libc::ENOSYS), arch)?;
    let allowed = SeccompFilter::new(rules()?, refuse(libc::EPERM), SeccompAction::Allow, arch)?;
    Ok([clone3.try_into()?, allowed.try_into()?])
}

/// Sets `no_new_privs` and installs the filter for every thread of the process.
pub(super) fn install() -> Result<(), SandboxError> {
    // The wider one first: the other does not allow the installing of filters.
    for program in programs().map_err(refused("making the filter of system calls"))? {
        apply_filter_all_threads(&program).map_err(refused("installing the filter of system calls"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_filter_is_made_and_no_call_stands_twice() {
        let [clone3, allowed] = programs().unwrap();
        assert!(!clone3.is_empty() && allowed.len() < 4096, "{}", allowed.len());
        let mut seen = HashSet::new();
        for call in FREE.iter().flat_map(|(_, calls)| calls.iter()).chain(OLD) {
            assert!(seen.insert(call), "{call} twice");
        }
    }

    #[test]
    fn nothing_that_makes_processes_sockets_mounts_or_programs_is_in_the_table() {
        let rules = rules().unwrap();
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_mount,
            libc::SYS_ptrace,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_init_module,
            libc::SYS_kexec_load,
            libc::SYS_capset,
            libc::SYS_seccomp,
            libc::SYS_process_vm_writev,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_setup,
            libc::SYS_memfd_create,
            libc::SYS_kill,
        ] {
            assert!(!rules.contains_key(&call), "{call}");
        }
        // Calls that are restricted by argument have a condition.
        for call in [libc::SYS_bpf, libc::SYS_clone, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_ioctl] {
            assert!(!rules[&call].is_empty(), "{call}");
        }
    }
}
