//! What the machine must allow before the first core starts. Everything that would keep the tracker from
//! running is found here and explained in plain words, with what to do about it.

use std::fmt;
use std::fs;
use std::io;

use aquatic_common::config::ConnectionsConfig;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::sys;

/// What a core's executor needs to lock in memory: three rings and, registered with each, its buffer for I/O.
pub const LOCKED_PER_CORE: u64 = 256 * 1024;

/// The executor refuses to start below this limit, whatever it needs.
pub const LOCKED_AT_LEAST: u64 = 512 * 1024;

/// The oldest kernel with everything the executor uses.
pub const OLDEST_KERNEL: (u32, u32) = (5, 8);

/// From this kernel on the rings themselves no longer count as locked memory.
const RINGS_ARE_FREE: (u32, u32) = (5, 12);

/// Files that are open whatever the number of cores: the log, the metrics and whoever reads them, files that
/// are read again, what the main thread waits with.
const FILES_OF_PROCESS: u64 = 32;

/// Files of each core besides its listening sockets: rings, epoll sets, what wakes it, descriptors in
/// reserve, and connections that have been told to make room for others and are about to go.
const FILES_PER_CORE: u64 = 32;

/// Something the machine does not allow, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// The kernel is too old; holds its release.
    OldKernel(String),
    /// The kernel was built without io_uring, or a filter pretends so.
    NoIoUring,
    /// The sysctl forbids io_uring to everyone (2) or to processes without privileges (1).
    IoUringDisabled(u32),
    /// Forbidden, and not by the sysctl: a seccomp filter, as container runtimes set it.
    IoUringFiltered,
    /// Any other error of the trial.
    IoUringFailed(String),
    /// The limit of locked memory is too low; all in bytes.
    LockedMemory {
        /// The hard limit.
        limit: u64,
        /// What is needed.
        needed: u64,
        /// The process runs as root, but without the capability to raise the limit.
        root: bool,
    },
    /// The limit of open files leaves none for connections.
    OpenFiles {
        /// The limit.
        limit: u64,
        /// What is needed with as many connections as configured.
        needed: u64,
    },
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = OLDEST_KERNEL;
        match self {
            Self::OldKernel(release) => write!(
                f,
                "the kernel {release} is too old: io_uring is needed as of Linux {major}.{minor}. Upgrade the kernel"
            ),
            Self::NoIoUring => write!(
                f,
                "the kernel has no io_uring. Either it was built without CONFIG_IO_URING, or a sandbox (gVisor, some \
                 container services) or the seccomp filter of a container hides it. With Docker or Podman allow it \
                 with a profile (--security-opt seccomp=PROFILE.json), elsewhere run the tracker on a kernel that has it"
            ),
            Self::IoUringDisabled(1) => write!(
                f,
                "io_uring is disabled for processes without privileges (sysctl kernel.io_uring_disabled = 1). Set \
                 it to 0, or put the group of the tracker's user into the sysctl kernel.io_uring_group"
            ),
            Self::IoUringDisabled(_) => write!(
                f,
                "io_uring is disabled on this machine (sysctl kernel.io_uring_disabled = 2). Allow it: sysctl -w \
                 kernel.io_uring_disabled=0"
            ),
            Self::IoUringFiltered => write!(
                f,
                "io_uring is forbidden for this process, most likely by the seccomp filter of a container. Allow \
                 the system calls io_uring_setup, io_uring_enter and io_uring_register: with Docker or Podman use \
                 a profile that lists them (--security-opt seccomp=PROFILE.json), or --security-opt \
                 seccomp=unconfined; with systemd remove them from SystemCallFilter"
            ),
            Self::IoUringFailed(error) => write!(
                f,
                "io_uring cannot be set up: {error}. If memory is short raise the limit of the container or \
                 control group"
            ),
            Self::LockedMemory { limit, needed, root } => write!(
                f,
                "the limit of locked memory (memlock, ulimit -l) of this process is {} KiB, but io_uring needs {} KiB \
                 for this number of workers. {}",
                limit / 1024,
                needed.div_ceil(1024),
                MoreLockedMemory { needed: *needed, root: *root },
            ),
            Self::OpenFiles { limit, needed } => write!(
                f,
                "this process may open {limit} files only, which leaves none for connections. {}",
                MoreFiles(*needed)
            ),
        }
    }
}

impl std::error::Error for Unsupported {}

/// How to have that many open files.
struct MoreFiles(u64);

impl fmt::Display for MoreFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = self;
        write!(
            f,
            "Raise the limit: LimitNOFILE={number} in a systemd unit, --ulimit nofile={number} with Docker, \"ulimit -n \
             {number}\" in a root shell, or a nofile line in /etc/security/limits.conf"
        )
    }
}

/// How to have that much locked memory.
struct MoreLockedMemory {
    needed: u64,
    root: bool,
}

impl fmt::Display for MoreLockedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, root } = self;
        write!(
            f,
            "Raise the limit: LimitMEMLOCK={needed} in a systemd unit, --ulimit memlock={needed} with Docker, "
        )?;
        if *root {
            f.write_str(
                "or give the process the capability CAP_SYS_RESOURCE, without which root cannot raise it \
                 (--cap-add SYS_RESOURCE with Docker)",
            )
        } else {
            let kib = needed.div_ceil(1024);
            write!(
                f,
                "\"ulimit -l {kib}\" in a root shell, or a memlock line in /etc/security/limits.conf; or start the \
                 tracker as root and let it drop its privileges"
            )
        }
    }
}

/// Checks that io_uring works for this process and that this many cores can lock the memory they need. Raises
/// the limit of locked memory where that is allowed.
///
/// # Errors
/// What the machine does not allow.
pub fn check_machine(cores: usize) -> Result<(), Unsupported> {
    match check_io_uring() {
        // A limit of locked memory that is too low is reported as lack of memory.
        Err(Unsupported::IoUringFailed(_)) => {
            ensure_locked_memory(cores)?;
            check_io_uring()
        }
        result => result.and_then(|()| ensure_locked_memory(cores)),
    }
}

/// Checks that io_uring works for this process, as the user it is now.
///
/// # Errors
/// Why not.
pub fn check_io_uring() -> Result<(), Unsupported> {
    let release = kernel_release();
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    let disabled = disabled.and_then(|text| text.trim().parse().ok());
    judge_io_uring(&release, disabled, sys::probe_io_uring())
}

/// `disabled` is the value of the sysctl, which kernels with io_uring have as of Linux 6.6.
fn judge_io_uring(release: &str, disabled: Option<u32>, trial: io::Result<()>) -> Result<(), Unsupported> {
    if parse_release(release).is_some_and(|version| version < OLDEST_KERNEL) {
        return Err(Unsupported::OldKernel(release.to_owned()));
    }
    trial.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) if disabled.is_none() => Unsupported::NoIoUring,
        // Podman's profile answers as a kernel without the call would.
        Some(libc::ENOSYS) => Unsupported::IoUringFiltered,
        Some(libc::EPERM | libc::EACCES) => match disabled {
            Some(value) if value > 0 => Unsupported::IoUringDisabled(value),
            _ => Unsupported::IoUringFiltered,
        },
        _ => Unsupported::IoUringFailed(error.to_string()),
    })
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Major and minor number of a kernel's release.
#[must_use]
pub fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// What to do about a limit with a soft and a hard value; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raise {
    Enough,
    SoftTo(u64),
    /// Needs a privilege; if that is missing, the number is the hard limit there is.
    BothTo(u64, u64),
}

fn judge_limit(soft: Option<u64>, hard: Option<u64>, needed: u64) -> Raise {
    match (soft, hard) {
        (None, _) => Raise::Enough,
        (Some(soft), _) if soft >= needed => Raise::Enough,
        (Some(_), None) => Raise::SoftTo(needed),
        (Some(_), Some(hard)) if hard >= needed => Raise::SoftTo(needed),
        (Some(_), Some(hard)) => Raise::BothTo(needed, hard),
    }
}

/// Makes sure that the executors of this many cores can lock what they need, raising the limit where that is
/// allowed.
///
/// # Errors
/// The limit is too low and cannot be raised.
fn ensure_locked_memory(cores: usize) -> Result<(), Unsupported> {
    let wanted = locked_memory_wanted(cores);
    let Rlimit { current, maximum } = getrlimit(Resource::Memlock);
    let (hard, raised) = match judge_limit(current, maximum, wanted) {
        Raise::Enough => return Ok(()),
        Raise::SoftTo(to) => {
            (maximum, setrlimit(Resource::Memlock, Rlimit { current: Some(to), maximum }).is_ok())
        }
        Raise::BothTo(to, hard) => {
            let both = Rlimit { current: Some(to), maximum: Some(to) };
            (Some(hard), setrlimit(Resource::Memlock, both).is_ok())
        }
    };
    if raised {
        log::debug!("limit of locked memory raised to {} KiB", wanted / 1024);
        return Ok(());
    }
    let limit = hard.unwrap_or(u64::MAX);
    let needed = locked_memory_needed(cores, &kernel_release());
    if limit < needed {
        let root = rustix::process::geteuid().is_root();
        return Err(Unsupported::LockedMemory { limit, needed, root });
    }
    // Enough to run: on this kernel only the registered buffers count, and they are optional.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: Some(limit), maximum: Some(limit) });
    log::info!(
        "this process may lock {} KiB of memory, {} KiB would be better for this number of workers \
         (LimitMEMLOCK= in a systemd unit)",
        limit / 1024,
        wanted / 1024
    );
    Ok(())
}

/// Bytes that all executors together would like to lock.
#[must_use]
pub fn locked_memory_wanted(cores: usize) -> u64 {
    LOCKED_AT_LEAST.max((cores as u64).saturating_mul(LOCKED_PER_CORE))
}

/// Bytes that they cannot do without, on a kernel with this release.
#[must_use]
pub fn locked_memory_needed(cores: usize, release: &str) -> u64 {
    if parse_release(release).is_some_and(|version| version < RINGS_ARE_FREE) {
        locked_memory_wanted(cores)
    } else {
        LOCKED_AT_LEAST
    }
}

/// Raises the number of files the process may have open as far as it may, and returns that number.
#[must_use]
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => {
            log::debug!("limit of open files raised from {} to {}", Limit(current), Limit(maximum));
            maximum
        }
        Err(error) => {
            log::warn!("cannot raise the limit of open files ({error}); it stays at {}", Limit(current));
            current
        }
    }
}

/// How many connections the process may have, of as many as wanted: fewer, with a warning, if it may not open
/// as many files. Each core has so many listening sockets.
///
/// # Errors
/// It may have none.
pub fn allow_connections(wanted: usize, cores: usize, listeners: usize) -> Result<usize, Unsupported> {
    let allowed = getrlimit(Resource::Nofile).current;
    let most = judge_connections(allowed, wanted, own_files(cores, listeners))?;
    if most < wanted {
        let needed = wanted as u64 + own_files(cores, listeners);
        log::warn!(
            "{} = {wanted}, but this process may open {} files only, so there will be at most {most} connections. {}, \
             or lower the setting",
            ConnectionsConfig::max_connections,
            Limit(allowed),
            MoreFiles(needed)
        );
    }
    Ok(most)
}

/// Number of files that are open without any connection. Each core has so many listening sockets.
#[must_use]
pub fn own_files(cores: usize, listeners: usize) -> u64 {
    // Of each listening socket there is a duplicate, to be passed on.
    FILES_OF_PROCESS + cores as u64 * (FILES_PER_CORE + 2 * listeners as u64)
}

fn judge_connections(allowed: Option<u64>, wanted: usize, own: u64) -> Result<usize, Unsupported> {
    let Some(limit) = allowed else { return Ok(wanted) };
    match limit.saturating_sub(own) {
        0 => Err(Unsupported::OpenFiles { limit, needed: own + wanted as u64 }),
        left => Ok(usize::try_from(left).map_or(wanted, |left| left.min(wanted))),
    }
}

/// A limit, as a number or "unlimited".
#[derive(Clone, Copy, Debug)]
pub struct Limit(pub Option<u64>);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("unlimited"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: i32, disabled: impl Into<Option<u32>>) -> Unsupported {
        judge_io_uring("6.1.0", disabled.into(), Err(io::Error::from_raw_os_error(errno))).unwrap_err()
    }

    #[test]
    fn each_way_to_forbid_io_uring_has_its_own_remedy() {
        assert_eq!(refused(libc::ENOSYS, None), Unsupported::NoIoUring);
        assert!(refused(libc::ENOSYS, None).to_string().contains("--security-opt seccomp="));
        assert_eq!(refused(libc::ENOSYS, 0), Unsupported::IoUringFiltered);
        assert_eq!(refused(libc::EPERM, None), Unsupported::IoUringFiltered);
        assert_eq!(refused(libc::EPERM, 0), Unsupported::IoUringFiltered);
        assert!(refused(libc::EPERM, 0).to_string().contains("seccomp"));
        assert_eq!(refused(libc::EPERM, 2), Unsupported::IoUringDisabled(2));
        assert!(refused(libc::EPERM, 2).to_string().contains("kernel.io_uring_disabled=0"));
        assert!(refused(libc::EPERM, 1).to_string().contains("kernel.io_uring_group"));
        assert!(refused(libc::ENOMEM, 0).to_string().contains("memory"));
    }

    #[test]
    fn old_kernels_are_refused_by_their_release() {
        let old = judge_io_uring("4.19.0-27-amd64", None, Ok(())).unwrap_err();
        assert!(old.to_string().contains("4.19.0-27-amd64"), "{old}");
        assert_eq!(judge_io_uring("5.8.0", None, Ok(())), Ok(()));
        assert_eq!(judge_io_uring("6.18.44-fc", Some(0), Ok(())), Ok(()));
        assert_eq!(judge_io_uring("unheard of", None, Ok(())), Ok(()));
    }

    #[test]
    fn limits_are_raised_no_further_than_needed() {
        assert_eq!(judge_limit(None, None, 100), Raise::Enough);
        assert_eq!(judge_limit(Some(100), Some(100), 100), Raise::Enough);
        assert_eq!(judge_limit(Some(50), None, 100), Raise::SoftTo(100));
        assert_eq!(judge_limit(Some(50), Some(200), 100), Raise::SoftTo(100));
        assert_eq!(judge_limit(Some(50), Some(60), 100), Raise::BothTo(100, 60));
    }

    #[test]
    fn locked_memory_depends_on_cores_and_kernel() {
        assert_eq!(locked_memory_wanted(1), 512 * 1024);
        assert_eq!(locked_memory_wanted(16), 4096 * 1024);
        assert_eq!(locked_memory_needed(16, "5.10.0"), 4096 * 1024);
        assert_eq!(locked_memory_needed(16, "5.12.0"), 512 * 1024);
    }

    #[test]
    fn a_low_limit_of_locked_memory_is_named_with_the_remedy_for_the_user() {
        let text =
            |root| Unsupported::LockedMemory { limit: 64 * 1024, needed: 512 * 1024, root }.to_string();
        for text in [text(false), text(true)] {
            assert!(text.contains("ulimit -l") && text.contains("is 64 KiB"), "{text}");
            assert!(text.contains("LimitMEMLOCK=524288"), "{text}");
        }
        assert!(text(false).contains("start the tracker as root"));
        assert!(text(true).contains("CAP_SYS_RESOURCE") && !text(true).contains("as root"));
    }

    #[test]
    fn connections_are_as_many_as_there_are_files_for() {
        assert_eq!(own_files(2, 3), 32 + 2 * (32 + 2 * 3));
        assert_eq!(judge_connections(None, 1_000_000, 70), Ok(1_000_000));
        assert_eq!(judge_connections(Some(1070), 1000, 70), Ok(1000));
        assert_eq!(judge_connections(Some(1069), 1000, 70), Ok(999));
        assert_eq!(judge_connections(Some(71), 1000, 70), Ok(1));
        let refusal = judge_connections(Some(70), 1000, 70).unwrap_err();
        assert_eq!(refusal, Unsupported::OpenFiles { limit: 70, needed: 1070 });
        assert!(refusal.to_string().contains("LimitNOFILE=1070"), "{refusal}");
    }

    #[test]
    fn this_machine_runs_io_uring() {
        assert_eq!(check_io_uring(), Ok(()));
    }
}
