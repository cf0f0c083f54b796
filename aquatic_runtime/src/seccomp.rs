//! Filter of system calls (seccomp) for the threads that handle what clients send.
//!
//! The filter is a list of what these threads need. Any other call fails with `ENOSYS`, as on a kernel that
//! lacks it, so that the C library falls back to an older call where it has one: `clone3`, whose flags a
//! filter cannot see, becomes `clone`, whose flags it can. The main thread and the one that receives signals
//! are left out: they read nothing from the network, and an upgrade starts a program.
//!
//! What the filter cannot do: io_uring performs operations without a system call of their own, so code that
//! has taken over a core can still open files. It cannot start a program, and user, capabilities and root
//! directory are the limits of what it can open.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Once};

use aquatic_common::config::PrivilegesConfig;
use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// System calls that are allowed whatever their arguments.
const ALLOWED: &[c_long] = &[
    // Sockets.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    // Descriptors and files: lists, certificates and snapshots are read and written.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_memfd_create,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Waiting and time.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_gettimeofday,
    libc::SYS_io_uring_enter,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads and the process itself.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_setpriority,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_uname,
];

/// Older forms of calls above, which aarch64 never had.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLDER: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLDER: &[c_long] = &[];

/// Address families of sockets that may be made.
const SOCKET_FAMILIES: [libc::c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// Reads what the kernel tells programs at their start. Since Linux 6.4.
const PR_GET_AUXV: libc::c_int = 0x4155_5856;

/// Operations of `prctl` that are allowed: names of threads and of memory, and facts about the machine.
const PRCTL_OPERATIONS: [libc::c_int; 4] =
    [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA, PR_GET_AUXV];

/// What making an executor needs besides, and nothing later does.
const ALLOWED_AT_START: &[c_long] =
    &[libc::SYS_io_uring_register, libc::SYS_io_uring_setup, libc::SYS_sched_setaffinity, libc::SYS_seccomp];

/// Operations of `prctl` with which the filter of the next phase is set.
const PRCTL_AT_START: [libc::c_int; 2] = [libc::PR_SET_NO_NEW_PRIVS, libc::PR_SET_SECCOMP];

/// Why the filter could not be made or set.
#[derive(Debug)]
pub(crate) enum SyscallFilterError {
    /// The filter is not valid for this machine.
    Build(BackendError),
    /// The kernel refused it.
    Apply(Error),
}

impl fmt::Display for SyscallFilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(error) => write!(f, "{error}"),
            Self::Apply(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for SyscallFilterError {}

impl SyscallFilterError {
    /// The error, with what the operator can do about it.
    pub(crate) fn advice(&self) -> String {
        format!(
            "system calls are not filtered: {self}. The kernel needs seccomp (CONFIG_SECCOMP_FILTER), and a systemd \
             unit or container has to allow it (SystemCallFilter=seccomp); {} = false turns this warning off",
            PrivilegesConfig::filter_system_calls
        )
    }
}

/// Sets the filter for the calling thread, if there is one. A thread without it works on; the first one
/// warns.
pub(crate) fn apply(filter: Option<&SyscallFilter>, phase: Phase) {
    static WARNING: Once = Once::new();
    if let Some(Err(error)) = filter.map(|filter| filter.apply(phase)) {
        WARNING.call_once(|| log::warn!("{}", error.advice()));
    }
}

/// When a filter applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// While an executor is made.
    Start,
    /// While clients are served.
    Serving,
}

/// The filters, ready to be set for any number of threads. Copies share them.
#[derive(Clone, Debug)]
pub(crate) struct SyscallFilter {
    start: Arc<BpfProgram>,
    serving: Arc<BpfProgram>,
}

impl SyscallFilter {
    /// The filters for this machine.
    ///
    /// # Errors
    /// A processor that filters cannot be made for.
    pub(crate) fn new() -> Result<Self, SyscallFilterError> {
        let build = |phase| Self::build(phase).map(Arc::new).map_err(SyscallFilterError::Build);
        Ok(Self { start: build(Phase::Start)?, serving: build(Phase::Serving)? })
    }

    fn build(phase: Phase) -> Result<BpfProgram, BackendError> {
        let otherwise = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        SeccompFilter::new(rules(phase)?, otherwise, SeccompAction::Allow, arch)?.try_into()
    }

    /// Sets the filter of a phase for the calling thread and all that it starts. It cannot be taken back, and
    /// one that is set later only forbids more.
    ///
    /// # Errors
    /// Kernels without seccomp.
    pub(crate) fn apply(&self, phase: Phase) -> Result<(), SyscallFilterError> {
        let program = match phase {
            Phase::Start => &self.start,
            Phase::Serving => &self.serving,
        };
        seccompiler::apply_filter(program).map_err(SyscallFilterError::Apply)
    }
}

/// What is allowed: system calls, and alternatives of conditions on their arguments.
fn rules(phase: Phase) -> Result<BTreeMap<c_long, Vec<SeccompRule>>, BackendError> {
    let (at_start, prctl_at_start) = match phase {
        Phase::Start => (ALLOWED_AT_START, &PRCTL_AT_START[..]),
        Phase::Serving => (&[][..], &[][..]),
    };
    let calls = ALLOWED.iter().chain(ALLOWED_OLDER).chain(at_start);
    let mut rules: BTreeMap<_, _> = calls.map(|&call| (call, Vec::new())).collect();
    let one_of = |argument, values: &[libc::c_int]| {
        values.iter().map(|&value| rule(argument, SeccompCmpOp::Eq, value)).collect::<Result<Vec<_>, _>>()
    };
    let without = |argument, flag: libc::c_int| {
        rule(argument, SeccompCmpOp::MaskedEq(u64::from(flag.unsigned_abs())), 0).map(|rule| vec![rule])
    };
    let with = |argument, flag: libc::c_int| {
        rule(argument, SeccompCmpOp::MaskedEq(u64::from(flag.unsigned_abs())), flag).map(|rule| vec![rule])
    };
    rules.insert(libc::SYS_socket, one_of(0, &SOCKET_FAMILIES)?);
    rules.insert(libc::SYS_prctl, one_of(0, &[&PRCTL_OPERATIONS[..], prctl_at_start].concat())?);
    rules.insert(libc::SYS_mmap, without(2, libc::PROT_EXEC)?);
    rules.insert(libc::SYS_mprotect, without(2, libc::PROT_EXEC)?);
    rules.insert(libc::SYS_clone, with(0, libc::CLONE_THREAD)?);
    // Limits of this process may be read. The second argument names the process, the third new limits.
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![is_null(2)?])?]);
    Ok(rules)
}

/// One condition on the lower half of an argument.
fn rule(argument: u8, operation: SeccompCmpOp, value: libc::c_int) -> Result<SeccompRule, BackendError> {
    let value = u64::from(value.unsigned_abs());
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value)?])
}

fn is_null(argument: u8) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Runs something in a thread with the filter.
    fn filtered<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
        let filter = SyscallFilter::new().unwrap();
        let act = move || {
            filter.apply(Phase::Serving).unwrap();
            act()
        };
        thread::spawn(act).join().unwrap()
    }

    #[test]
    fn what_threads_need_is_allowed() {
        filtered(|| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("file");
            let mut file = fs::File::create(&path).unwrap();
            file.write_all(b"text").unwrap();
            file.sync_all().unwrap();
            fs::rename(&path, directory.path().join("renamed")).unwrap();
            assert_eq!(fs::read(directory.path().join("renamed")).unwrap(), b"text");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            drop((listener.accept().unwrap(), client));
            let sum =
                thread::Builder::new().name("inner".to_owned()).spawn(|| 1 + 1).unwrap().join().unwrap();
            assert_eq!(sum, 2);
            let large = vec![1_u8; 64 << 20];
            assert_eq!(large.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 64 << 20);
        });
    }

    #[test]
    fn a_thread_goes_from_start_to_serving_and_not_back() {
        let filter = SyscallFilter::new().unwrap();
        let phases =
            move || [Phase::Start, Phase::Serving, Phase::Start].map(|phase| filter.apply(phase).is_ok());
        assert_eq!(thread::spawn(phases).join().unwrap(), [true, true, false]);
    }

    #[test]
    fn programs_cannot_be_started() {
        let error = filtered(|| Command::new("/bin/true").status().unwrap_err());
        assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "{error}");
    }

    #[test]
    fn other_calls_fail_without_ending_the_process() {
        let failures = filtered(|| {
            let code = |result: rustix::io::Result<()>| result.map_err(|error| error.raw_os_error());
            let netlink =
                rustix::net::socket(rustix::net::AddressFamily::NETLINK, rustix::net::SocketType::RAW, None);
            let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
            [
                code(rustix::process::chroot("/")),
                code(netlink.map(drop)),
                code(rustix::process::setrlimit(rustix::process::Resource::Core, limit)),
            ]
        });
        assert_eq!(failures, [Err(libc::ENOSYS); 3]);
    }

    #[test]
    fn threads_of_filtered_threads_are_filtered() {
        let started =
            filtered(|| thread::spawn(|| Command::new("/bin/true").status().is_ok()).join().unwrap());
        assert!(!started);
    }

    #[test]
    fn other_threads_are_left_alone() {
        filtered(|| ());
        let status: io::Result<_> = Command::new("/bin/true").status();
        assert!(status.unwrap().success());
    }
}
