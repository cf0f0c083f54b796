//! Listening unix sockets: making one, and whether that would work.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use aquatic_common::ConfigurationError;
use aquatic_common::config::MAX_UNIX_PATH;
use aquatic_runtime::{ListenAddress, ListenSockets, PassedSockets, Serving};
use rustix::fs::Access;
use socket2::{Domain, SockAddr, Socket, Type};

use super::bind::ListenOptions;
use super::socket_file::SocketFile;

/// Makes a listening unix socket whose file has these permissions. A file left behind by a process that has
/// ended is replaced.
///
/// # Errors
/// A [`UnixBindError`] that says what to do about it.
pub(super) fn bind_unix(path: &Path, mode: u32, options: &ListenOptions) -> Result<OwnedFd, UnixBindError> {
    check_path(path)
        .and_then(|()| bind(path, mode, options).map_err(|error| Reason::of(path, error)))
        .map_err(|reason| UnixBindError { path: path.to_owned(), reason })
}

/// A listening unix socket of this process alone, and the file that is removed with it.
#[derive(Debug)]
pub struct LocalListener {
    /// The socket. Accepting from it does not block.
    pub socket: UnixListener,
    /// The file, to be dropped when the process ends.
    pub file: SocketFile,
}

impl LocalListener {
    /// Makes a listening socket whose file only its owner may use: the user and group with these ids, or
    /// whoever makes it. One that was passed to the process is used as it is. The socket of a process that
    /// has ended is replaced, and with `replace` also that of a process that still listens.
    ///
    /// # Errors
    /// A [`UnixBindError`] that says what to do about it.
    pub fn bind(
        path: &Path,
        owner: Option<(u32, u32)>,
        replace: bool,
        (listeners, serving): (&mut ListenSockets, Serving),
    ) -> Result<Self, UnixBindError> {
        let failed = |error| UnixBindError::new(path, error);
        let address = ListenAddress::Unix(path.to_owned());
        let passed = match listeners.take(&address) {
            PassedSockets::None => None,
            PassedSockets::Shared(fd) => Some(fd),
            PassedSockets::PerCore(fds) => fds.into_iter().next(),
        };
        let socket = match passed {
            Some(fd) => UnixListener::from(fd),
            None => Self::bind_new(path, owner, replace)?,
        };
        socket.set_nonblocking(true).map_err(failed)?;
        listeners.keep(address, 0, &socket).map_err(failed)?;
        let file = SocketFile::new(path, serving).map_err(failed)?;
        Ok(Self { socket, file })
    }

    fn bind_new(
        path: &Path,
        owner: Option<(u32, u32)>,
        replace: bool,
    ) -> Result<UnixListener, UnixBindError> {
        let failed = |error| UnixBindError::new(path, error);
        if replace && is_socket(path) {
            std::fs::remove_file(path).map_err(failed)?;
        }
        let options = ListenOptions { backlog: LOCAL_BACKLOG, ..ListenOptions::default() };
        let socket = bind_unix(path, 0o600, &options)?.into();
        if let Some((user, group)) = owner {
            std::os::unix::fs::lchown(path, Some(user), Some(group)).map_err(failed)?;
        }
        Ok(socket)
    }
}

/// Connections that wait to be accepted from a [`LocalListener`].
const LOCAL_BACKLOG: u16 = 16;

fn bind(path: &Path, mode: u32, options: &ListenOptions) -> io::Result<OwnedFd> {
    remove_leftover(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The file is made without any permission, so that nobody connects before it has the right ones.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::empty())?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(options.backlog.into())?;
    Ok(socket.into())
}

/// Removes the file of a socket that nobody listens on.
fn remove_leftover(path: &Path) -> io::Result<()> {
    if !is_socket(path) {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket())
}

/// Checks without side effects whether a unix socket can be made at a path. Whether another program listens
/// there is not checked: usually the tracker that is to be restarted does.
///
/// # Errors
/// A [`UnixBindError`] for which [`UnixBindError::is_misconfiguration`] holds.
pub fn check_unix_socket(path: &Path) -> Result<(), UnixBindError> {
    let directory = directory_of(path);
    let check = || {
        check_path(path)?;
        if !std::fs::metadata(directory).map_err(|error| Reason::of(path, error))?.is_dir() {
            return Err(Reason::NoDirectory);
        }
        if std::fs::symlink_metadata(path).is_ok() && !is_socket(path) {
            return Err(Reason::NoSocket);
        }
        rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| Reason::of(path, error.into()))
    };
    match check() {
        Err(reason) if reason.is_misconfiguration() => Err(UnixBindError { path: path.to_owned(), reason }),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Refuses what the kernel would take for something else, or not at all.
fn check_path(path: &Path) -> Result<(), Reason> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > MAX_UNIX_PATH {
        Err(Reason::TooLong(bytes.len()))
    } else if bytes.contains(&0) {
        // Such a name would be abstract, or end at that byte.
        Err(Reason::ZeroByte)
    } else if bytes.ends_with(b"/") || path.is_dir() {
        Err(Reason::Directory)
    } else if rustix::fs::statfs(directory_of(path))
        .is_ok_and(|data| KERNEL_FILE_SYSTEMS.contains(&(data.f_type as u64)))
    {
        Err(Reason::OfTheKernel)
    } else {
        Ok(())
    }
}

/// File systems in which only the kernel makes files: `proc`, `sysfs`, `devpts`, `debugfs`, `tracefs`,
/// `securityfs`, and control groups of both versions (linux/magic.h).
const KERNEL_FILE_SYSTEMS: [u64; 8] =
    [0x9fa0, 0x6265_6572, 0x1cd1, 0x6462_6720, 0x7472_6163, 0x7363_6673, 0x0027_e0eb, 0x6367_7270];

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// What keeps a unix socket from being made.
#[derive(Debug)]
enum Reason {
    InUse,
    NoSocket,
    Directory,
    NoDirectory,
    OfTheKernel,
    Forbidden,
    TooLong(usize),
    ZeroByte,
    TooManyFiles,
    Other(io::Error),
}

impl Reason {
    fn of(path: &Path, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EADDRINUSE) if is_socket(path) => Self::InUse,
            Some(libc::EADDRINUSE) => Self::NoSocket,
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Self::NoDirectory,
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => Self::Forbidden,
            Some(libc::ENAMETOOLONG) => Self::TooLong(path.as_os_str().len()),
            Some(libc::EMFILE | libc::ENFILE) => Self::TooManyFiles,
            _ => Self::Other(error),
        }
    }

    fn is_misconfiguration(&self) -> bool {
        match self {
            Self::NoSocket
            | Self::Directory
            | Self::NoDirectory
            | Self::OfTheKernel
            | Self::Forbidden
            | Self::TooLong(_)
            | Self::ZeroByte => true,
            Self::InUse | Self::TooManyFiles | Self::Other(_) => false,
        }
    }
}

/// Why a unix socket could not be made, and what to do about it.
#[derive(Debug)]
pub struct UnixBindError {
    path: PathBuf,
    reason: Reason,
}

impl UnixBindError {
    pub(super) fn new(path: &Path, error: io::Error) -> Self {
        Self { path: path.to_owned(), reason: Reason::of(path, error) }
    }

    /// Whether only a change of the configuration, or of the directory it names, helps.
    #[must_use]
    pub fn is_misconfiguration(&self) -> bool {
        self.reason.is_misconfiguration()
    }

    /// Returns the error for the end of a start, as a [`ConfigurationError`] if it is one.
    #[must_use]
    pub fn classified(self) -> anyhow::Error {
        if self.is_misconfiguration() { ConfigurationError::new(self).into() } else { self.into() }
    }
}

impl fmt::Display for UnixBindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_os_str().as_bytes().escape_ascii();
        write!(f, "cannot listen on the unix socket {path}: ")?;
        match &self.reason {
            Reason::InUse => f.write_str(
                "another program, or another instance of this one, listens there. Stop it or choose another path",
            ),
            Reason::NoSocket => {
                f.write_str("a file that is no socket has the name. Remove it or choose another path")
            }
            Reason::Directory => {
                f.write_str("it is a directory. Choose the path of a file in it, or another path")
            }
            Reason::NoDirectory => f.write_str(
                "its directory does not exist or is no directory. Create the directory or choose another path",
            ),
            Reason::OfTheKernel => f.write_str(
                "its directory is of a file system in which only the kernel makes files. Choose another path",
            ),
            Reason::Forbidden => f.write_str(
                "this user may not create it. Allow the user to write to the directory (RuntimeDirectory= in a \
                 systemd unit makes one), or choose another path",
            ),
            Reason::TooLong(length) => write!(
                f,
                "the path has {length} bytes, at most {MAX_UNIX_PATH} are possible. Choose a shorter path"
            ),
            Reason::ZeroByte => f.write_str("the path contains a zero byte. Choose another path"),
            Reason::TooManyFiles => f.write_str(
                "too many files are open. Raise the limit (LimitNOFILE= in a systemd unit, ulimit -n)",
            ),
            Reason::Other(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for UnixBindError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStringExt;

    fn bound(path: &Path) -> Result<OwnedFd, UnixBindError> {
        bind_unix(path, 0o600, &ListenOptions::default())
    }

    #[test]
    fn check_and_bind_agree_on_what_the_configuration_has_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "").unwrap();
        fs::create_dir(path("directory")).unwrap();
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
        std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
        let zero = PathBuf::from(std::ffi::OsString::from_vec(b"\0abstract".to_vec()));
        for (path, text) in [
            (path("none/socket"), "its directory does not exist"),
            (path("file/socket"), "is no directory"),
            (path("loop/socket"), "its directory does not exist"),
            (path("file"), "a file that is no socket"),
            (path("dangling"), "a file that is no socket"),
            (path("directory"), "it is a directory"),
            (path("new/"), "it is a directory"),
            ("/proc/socket".into(), "only the kernel makes files"),
            ("/sys/socket".into(), "only the kernel makes files"),
            (path(&"x".repeat(MAX_UNIX_PATH)), "Choose a shorter path"),
            (path(&"x".repeat(300)), "Choose a shorter path"),
            (zero, "zero byte"),
        ] {
            let errors = [check_unix_socket(&path).unwrap_err(), bound(&path).unwrap_err()];
            for error in errors {
                assert!(error.is_misconfiguration(), "{error}");
                assert!(error.to_string().contains(text), "{error}");
            }
        }
    }

    #[test]
    fn a_local_listener_is_its_owners_and_goes_with_its_file() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let bound = |replace| {
            let serving = Serving::new(false).unwrap();
            LocalListener::bind(&path, Some(own), replace, (&mut ListenSockets::default(), serving))
        };
        let first = bound(false).unwrap();
        assert!(bound(false).unwrap_err().to_string().contains("another"));
        let listener = bound(true).unwrap();
        drop(first);
        let data = fs::metadata(&path).unwrap();
        assert_eq!((data.mode() & 0o777, data.uid(), data.gid()), (0o600, own.0, own.1));
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_running_server_is_no_fault_of_the_configuration_and_a_leftover_none_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(check_unix_socket(&path).is_ok());
        let error = bound(&path).unwrap_err();
        assert!(!error.is_misconfiguration() && error.to_string().contains("another program"), "{error}");
        drop(listener);
        assert!(check_unix_socket(&path).is_ok());
        assert!(bound(&path).is_ok());
    }

    #[test]
    fn without_permission_the_user_is_told() {
        for errno in [libc::EACCES, libc::EPERM, libc::EROFS] {
            let reason = Reason::of(Path::new("socket"), io::Error::from_raw_os_error(errno));
            let error = UnixBindError { path: "socket".into(), reason };
            assert!(error.is_misconfiguration() && error.to_string().contains("may not create"), "{error}");
        }
    }
}
