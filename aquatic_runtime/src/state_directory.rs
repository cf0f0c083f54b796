//! The state directory: where a process leaves what the next one needs. It is opened before privileges are
//! dropped, and files are reached relative to it, so a new root directory does not matter.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use aquatic_common::config::PrivilegesConfig;
use aquatic_common::settings::Problem;
use rustix::fs::{
    Access, AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, Stat, Uid, accessat, fchmod,
    fchown, flock, fstat, fsync, open, openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::privileges;

/// Time between two looks whether another tracker has left the directory, and how often it is looked: 3 s in
/// all. One that has been told to stop may take a moment, together with the process that it took over from.
const LOCK_RETRY: Duration = Duration::from_millis(50);
const LOCK_TRIES: u32 = 60;

/// Key of the setting.
pub const KEY: &str = "state_directory";

/// Names of the files in the directory, besides those that are there only while they are written.
pub mod names {
    pub use crate::handover::{OUTCOME_FILE, PID_FILE};

    /// Secret and epoch.
    pub const KEYS: &str = "keys";
    /// Peers and counts.
    pub const SNAPSHOT: &str = "snapshot";
    /// A snapshot that cannot be read.
    pub const UNUSABLE_SNAPSHOT: &str = "snapshot.unusable";
    /// Totals and charts of the status page.
    pub const STATUS: &str = "status";
    /// Figures of the status page that cannot be read.
    pub const UNUSABLE_STATUS: &str = "status.unusable";
    /// Certificate and key that were obtained (ACME).
    pub const ACME_CERTIFICATE: &str = "acme-certificate.pem";
    /// Accounts at certificate authorities, as JSON.
    pub const ACME_ACCOUNTS: &str = "acme-accounts.json";
    /// What the tracker has done about its certificate, as JSON.
    pub const ACME_STATE: &str = "acme-state.json";

    /// Files that a process reads which an earlier one has written.
    pub const READ: [&str; 6] = [KEYS, SNAPSHOT, STATUS, ACME_CERTIFICATE, ACME_ACCOUNTS, ACME_STATE];
    /// Files that are only written, or put aside.
    pub const WRITTEN: [&str; 4] = [UNUSABLE_SNAPSHOT, UNUSABLE_STATUS, PID_FILE, OUTCOME_FILE];

    /// What is added to the name of a file for others that are made, and replaced, while it is written.
    pub const MEANWHILE: [&str; 2] = [super::UNFINISHED, super::SCRATCH];
}

/// Suffix of a file that is being written.
const UNFINISHED: &str = ".new";

/// Suffix of a file that is only used meanwhile.
const SCRATCH: &str = ".scratch";

/// Reason why a state directory cannot be used.
#[derive(Debug)]
pub enum StateDirectoryError {
    /// It cannot be opened.
    Unusable(PathBuf, io::Error),
    /// It does not allow the tracker's user to replace files in it; holds the user and why.
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// The user that the tracker runs as.
        user: String,
        /// Why it cannot be written to.
        why: String,
    },
    /// Files in it cannot be read by the tracker's user.
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// The user that the tracker runs as.
        user: String,
        /// Names of the files.
        names: Vec<&'static str>,
        /// Owner of the first one.
        owner: String,
        /// Its mode.
        mode: u32,
    },
    /// Another tracker uses it.
    InUse(PathBuf),
}

impl fmt::Display for StateDirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(path, error) => {
                let path = path.display();
                let is = |kind| error.kind() == kind;
                let remedy = if is(ErrorKind::NotADirectory) {
                    "Name a directory"
                } else if is(ErrorKind::PermissionDenied) {
                    "Let the user that starts the tracker read it and pass through the directories above it"
                } else {
                    "Create the directory"
                };
                write!(f, "{KEY} = \"{path}\" cannot be opened: {error}. {remedy}, or leave the key empty")
            }
            Self::NotWritable { path, user, why } => {
                let path = path.display();
                write!(
                    f,
                    "{KEY} = \"{path}\" is not writable for {user}: {why}. Give it to the tracker (chown {user} {path}; \
                     chmod 700 {path}), add it to ReadWritePaths= or use StateDirectory= in a systemd unit, or leave \
                     the key empty"
                )
            }
            Self::Unreadable { path, user, names, owner, mode } => {
                let files: Vec<String> =
                    names.iter().map(|name| path.join(name).display().to_string()).collect();
                write!(
                    f,
                    "{KEY} = \"{}\": {} cannot be read by {user}: the owner is {owner}, the mode {:03o}. Usually the \
                     tracker has run as {owner} before. Give the tracker its files back: chown {user} {}",
                    path.display(),
                    files.join(", "),
                    mode & 0o777,
                    files.join(" ")
                )
            }
            Self::InUse(path) => write!(
                f,
                "{KEY} = \"{}\" is in use by another tracker. Stop that one first, or give each tracker a directory of \
                 its own",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StateDirectoryError {}

/// An open state directory, locked for this process.
#[derive(Clone, Debug)]
pub struct StateDirectory {
    fd: Arc<OwnedFd>,
    path: PathBuf,
    /// Owner of new files, if it is not the user that makes them.
    owner: Option<Owner>,
    /// Mode of new files.
    mode: Mode,
}

/// Owner of files that root makes.
#[derive(Clone, Debug)]
struct Owner {
    ids: (u32, u32),
    /// Whether the process is going to be that user, and cannot do without the files. Otherwise it is the
    /// owner of the directory, who may run the tracker next time.
    is_heir: bool,
    /// Whether it has been reported that files cannot be given to the owner.
    is_reported: Arc<AtomicBool>,
}

impl Owner {
    fn of_files(directory: &OwnedFd, privileges: &PrivilegesConfig) -> Option<Self> {
        let owner = |ids, is_heir| Self { ids, is_heir, is_reported: Arc::default() };
        if let Some(heir) = privileges::heir(privileges) {
            return Some(owner(heir, true));
        }
        let Stat { st_uid, st_gid, .. } = fstat(directory).ok()?;
        let is_other = rustix::process::geteuid().is_root() && st_uid != 0;
        is_other.then(|| owner((st_uid, st_gid), false))
    }
}

/// Mode of files that only this program reads.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

impl StateDirectory {
    /// Opens and locks a directory that the user the process is going to be may write to.
    ///
    /// # Errors
    /// It does not exist, may not be written to, or another tracker uses it.
    pub fn open(path: &Path, privileges: &PrivilegesConfig) -> Result<Self, StateDirectoryError> {
        let directory = Self::open_private(path, privileges)?;
        for _ in 0..LOCK_TRIES {
            match flock(&*directory.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(directory),
                Err(Errno::WOULDBLOCK) => pause(),
                Err(error) => return Err(StateDirectoryError::Unusable(path.to_owned(), error.into())),
            }
        }
        Err(StateDirectoryError::InUse(path.to_owned()))
    }

    /// Opens a directory without locking it: what is in it belongs to others as well, and files that are
    /// made are readable for everyone.
    ///
    /// # Errors
    /// It does not exist, or may not be written to by the user that the process is going to be.
    pub fn open_shared(path: &Path, privileges: &PrivilegesConfig) -> Result<Self, StateDirectoryError> {
        let directory = Self::open_unlocked(path, privileges)?;
        Ok(Self { mode: directory.mode | Mode::RGRP | Mode::ROTH, ..directory })
    }

    /// The directory that a predecessor has opened and locked, and passed on: the lock is the same.
    pub(crate) fn adopt(fd: OwnedFd, path: PathBuf, privileges: &PrivilegesConfig) -> Self {
        Self { owner: Owner::of_files(&fd, privileges), fd: Arc::new(fd), path, mode: PRIVATE }
    }

    fn open_private(path: &Path, privileges: &PrivilegesConfig) -> Result<Self, StateDirectoryError> {
        let directory = Self::open_unlocked(path, privileges)?;
        directory.ensure_readable(privileges)?;
        Ok(Self { owner: Owner::of_files(&directory.fd, privileges), ..directory })
    }

    /// Refuses files of the tracker that its user cannot read: it would go on without them, and replace them.
    fn ensure_readable(&self, privileges: &PrivilegesConfig) -> Result<(), StateDirectoryError> {
        let heir = self.owner.as_ref().map(|owner| owner.ids);
        let unreadable = |name: &&'static str| {
            let stat = statat(&*self.fd, *name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            let is_denied =
                matches!(self.open_file(name), Err(error) if error.kind() == ErrorKind::PermissionDenied);
            // The keys are read before privileges are dropped, and then given to the new user.
            let by_heir = heir.filter(|_| *name != names::KEYS);
            let is_denied_later = by_heir
                .is_some_and(|ids| !privileges::may_read((stat.st_uid, stat.st_gid, stat.st_mode), ids));
            (is_denied || is_denied_later).then_some((*name, stat))
        };
        let found: Vec<(&'static str, Stat)> = names::READ.iter().filter_map(unreadable).collect();
        let Some((_, stat)) = found.first() else { return Ok(()) };
        let own = || privileges::name_of(rustix::process::geteuid().as_raw());
        Err(StateDirectoryError::Unreadable {
            path: self.path.clone(),
            user: if heir.is_some() { privileges.user.clone() } else { own() },
            names: found.iter().map(|(name, _)| *name).collect(),
            owner: privileges::name_of(stat.st_uid),
            mode: stat.st_mode,
        })
    }

    fn open_unlocked(path: &Path, privileges: &PrivilegesConfig) -> Result<Self, StateDirectoryError> {
        let unusable = |error: Errno| StateDirectoryError::Unusable(path.to_owned(), error.into());
        let fd = open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(unusable)?;
        let Stat { st_uid, st_gid, st_mode, .. } = fstat(&fd).map_err(unusable)?;
        let not_writable = |user: &str, why| StateDirectoryError::NotWritable {
            path: path.to_owned(),
            user: user.to_owned(),
            why,
        };
        let heir = privileges::heir(privileges);
        if let Some(ids) = heir
            && !privileges::may_write((st_uid, st_gid, st_mode), ids)
        {
            let why = format!("its mode is {:03o}, its owner {st_uid}", st_mode & 0o777);
            return Err(not_writable(&privileges.user, why));
        }
        let needed = Access::WRITE_OK | Access::EXEC_OK;
        if let Err(error) = accessat(&fd, ".", needed, AtFlags::EACCESS) {
            return Err(not_writable("this user", error.to_string()));
        }
        let owner = heir.and_then(|_| Owner::of_files(&fd, privileges));
        Ok(Self { fd: Arc::new(fd), path: path.to_owned(), owner, mode: PRIVATE })
    }

    /// Path of the directory, as configured.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anyone but the owner may replace files in the directory.
    pub(crate) fn is_writable_for_others(&self) -> bool {
        fstat(&*self.fd).is_ok_and(|stat| stat.st_mode & 0o022 != 0)
    }

    /// Whether a user is one of those whose files are trusted: root, the user that the process is, the one
    /// that it is going to be, and if it stays root, the owner of the directory.
    pub(crate) fn trusts(&self, user: u32) -> bool {
        let own = rustix::process::geteuid().as_raw();
        user == 0 || user == own || self.owner.as_ref().is_some_and(|owner| user == owner.ids.0)
    }

    /// Opens a file for reading; `None` if there is none. Anything but a regular file is refused.
    ///
    /// # Errors
    /// Those of `openat`.
    pub fn open_file(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match openat(&*self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Some(file))
    }

    /// Replaces a file as a whole, readable for its owner only unless the directory is shared. The previous
    /// one stays until the new one is complete and on disk.
    ///
    /// # Errors
    /// Those of writing, and those of `write`; the previous file is still there.
    pub fn replace<T>(&self, name: &str, write: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let unfinished = format!("{name}{UNFINISHED}");
        let mut file = self.create(&unfinished)?;
        let written = write(&mut file).and_then(|written| {
            fsync(&file)?;
            self.may_replace(name)?;
            renameat_with(&*self.fd, &*unfinished, &*self.fd, name, RenameFlags::empty())?;
            Ok(written)
        });
        match written {
            Ok(written) => {
                fsync(&*self.fd)?;
                Ok(written)
            }
            Err(error) => {
                // What is left of it would take room that the next attempt may need.
                let _ = unlinkat(&*self.fd, &*unfinished, AtFlags::empty());
                Err(error)
            }
        }
    }

    /// Whether a name is free or that of a file that [`StateDirectory::replace`] replaces: in a shared
    /// directory a regular one, so that no device, link or directory of others is lost.
    ///
    /// # Errors
    /// What has the name instead.
    pub fn may_replace(&self, name: &str) -> io::Result<()> {
        if self.mode == PRIVATE {
            return Ok(());
        }
        let what = match statat(&*self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => return Ok(()),
                FileType::Directory => "a directory",
                FileType::Symlink => "a symbolic link",
                FileType::Fifo => "a FIFO",
                FileType::Socket => "a socket",
                FileType::CharacterDevice | FileType::BlockDevice => "a device",
                FileType::Unknown => "of an unknown kind",
            },
        };
        Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
    }

    /// Gives a file another name, and replaces the one that has it.
    ///
    /// # Errors
    /// Those of `renameat`.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat_with(&*self.fd, from, &*self.fd, to, RenameFlags::empty())?)
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// Those of `unlinkat`.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&*self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A file to write to and to read from, that nobody else sees and that is gone once it is closed. The
    /// name is that of the file it is used for.
    ///
    /// # Errors
    /// Those of making a file.
    pub fn scratch_file(&self, name: &str) -> io::Result<File> {
        let name = format!("{name}{SCRATCH}");
        let file = self.create(&name)?;
        unlinkat(&*self.fd, &*name, AtFlags::empty())?;
        Ok(file)
    }

    /// Leaves a file of a shared directory alone that another process is writing: nothing else keeps trackers
    /// from using one.
    fn refuse_if_written(&self, name: &str) -> io::Result<()> {
        if self.mode == PRIVATE {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(existing) = openat(&*self.fd, name, flags, Mode::empty()) else { return Ok(()) };
        match flock(existing, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let text = format!("another process is writing {name}; give each tracker a path of its own");
                Err(io::Error::new(ErrorKind::ResourceBusy, text))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn create(&self, name: &str) -> io::Result<File> {
        self.may_replace(name)?;
        self.refuse_if_written(name)?;
        self.remove(name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&*self.fd, name, flags, self.mode)?;
        if self.mode != PRIVATE {
            // Where the file system has no locks, there is none.
            let _ = flock(&fd, FlockOperation::NonBlockingLockExclusive);
            // Whatever the umask: others are to read it.
            fchmod(&fd, self.mode)?;
        }
        // Once privileges have been dropped, the owner is the right one.
        if let Some(Owner { ids: (user, group), is_heir, is_reported }) = &self.owner
            && rustix::process::geteuid().is_root()
            && let Err(error) = fchown(&fd, Some(Uid::from_raw(*user)), Some(Gid::from_raw(*group)))
        {
            if *is_heir {
                return Err(error.into());
            }
            if !is_reported.swap(true, Ordering::Relaxed) {
                log::warn!(
                    "files in {} stay root's, they cannot be given to the owner of the directory ({}): {error}. Run \
                     the tracker as that user",
                    self.path.display(),
                    privileges::name_of(*user)
                );
            }
        }
        Ok(File::from(fd))
    }
}

#[allow(clippy::disallowed_methods, reason = "nothing is served yet")]
fn pause() {
    thread::sleep(LOCK_RETRY);
}

/// Whether no process has the directory of a tracker: what is in it was left behind. A tracker that starts at
/// the very moment would be told that its directory is in use.
///
/// # Errors
/// It cannot be opened, or its file system has no locks.
pub fn is_abandoned(path: &Path) -> io::Result<bool> {
    let directory = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match flock(&directory, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reports a state directory that cannot be used. An empty path stands for none. That another tracker uses it
/// is no problem: usually that is the one to be restarted.
pub fn check(path: &Path, privileges: &PrivilegesConfig, problems: &mut Vec<Problem>) {
    if path.as_os_str().is_empty() {
        return;
    }
    if let Err(error) = StateDirectory::open_private(path, privileges) {
        problems.push(Problem::new(KEY, error.to_string()));
    }
}

impl AsFd for StateDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn opened(path: &Path) -> StateDirectory {
        StateDirectory::open(path, &PrivilegesConfig::default()).unwrap()
    }

    fn read(directory: &StateDirectory, name: &str) -> String {
        let mut text = String::new();
        directory.open_file(name).unwrap().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = opened(temporary.path());
        assert!(directory.open_file("a").unwrap().is_none());
        directory.replace("a", |file| file.write_all(b"one")).unwrap();
        assert_eq!(read(&directory, "a"), "one");
        let failed = directory.replace("a", |file| {
            file.write_all(b"half")?;
            Err::<(), _>(io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk full");
        assert_eq!(read(&directory, "a"), "one");
        // Left behind by a process that was killed.
        fs::write(temporary.path().join("a.new"), "torn").unwrap();
        directory.replace("a", |file| file.write_all(b"two")).unwrap();
        assert_eq!(read(&directory, "a"), "two");
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(temporary.path().join("a")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn links_and_directories_are_no_files() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = opened(temporary.path());
        let outside = temporary.path().join("outside");
        fs::write(&outside, "precious").unwrap();
        symlink(&outside, temporary.path().join("a")).unwrap();
        symlink(&outside, temporary.path().join("a.new")).unwrap();
        fs::create_dir(temporary.path().join("b")).unwrap();
        assert!(directory.open_file("a").is_err() && directory.open_file("b").is_err());
        directory.replace("a", |file| file.write_all(b"one")).unwrap();
        assert_eq!(
            (read(&directory, "a").as_str(), fs::read_to_string(&outside).unwrap().as_str()),
            ("one", "precious")
        );
    }

    #[test]
    fn in_a_shared_directory_only_regular_files_are_replaced() {
        use std::os::unix::net::UnixListener;
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        let directory = StateDirectory::open_shared(temporary.path(), &PrivilegesConfig::default()).unwrap();
        fs::write(path("file"), "old").unwrap();
        symlink(path("file"), path("link")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), Mode::RUSR).unwrap();
        for (name, what) in [
            ("link", "a symbolic link"),
            ("directory", "a directory"),
            ("socket", "a socket"),
            ("fifo", "a FIFO"),
        ] {
            let before = fs::symlink_metadata(path(name)).unwrap().ino();
            let error = directory.replace(name, |file| file.write_all(b"new")).unwrap_err();
            assert!(error.to_string().contains(what), "{name}: {error}");
            assert_eq!(fs::symlink_metadata(path(name)).unwrap().ino(), before, "{name}");
        }
        for name in ["file", "none"] {
            directory.replace(name, |file| file.write_all(b"new")).unwrap();
            assert_eq!(read(&directory, name), "new");
        }
    }

    #[test]
    fn a_file_of_a_shared_directory_is_written_by_one_process_and_readable_for_all() {
        let temporary = tempfile::tempdir().unwrap();
        let shared = || StateDirectory::open_shared(temporary.path(), &PrivilegesConfig::default()).unwrap();
        let (one, other) = (shared(), shared());
        // Left behind by a process that was killed.
        fs::write(temporary.path().join("a.new"), "half").unwrap();
        one.replace("a", |file| {
            let error = other.replace("a", |_| Ok(())).unwrap_err();
            assert!(error.to_string().contains("another process is writing a.new"), "{error}");
            file.write_all(b"one")
        })
        .unwrap();
        other.replace("a", |file| file.write_all(b"two")).unwrap();
        assert_eq!(read(&one, "a"), "two");
        let mode = fs::metadata(temporary.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn a_directory_serves_one_process() {
        let temporary = tempfile::tempdir().unwrap();
        let first = opened(temporary.path());
        let error = StateDirectory::open(temporary.path(), &PrivilegesConfig::default()).unwrap_err();
        assert!(
            matches!(error, StateDirectoryError::InUse(_)) && error.to_string().contains("in use"),
            "{error}"
        );
        let mut problems = Vec::new();
        check(temporary.path(), &PrivilegesConfig::default(), &mut problems);
        assert_eq!(problems, []);
        drop(first);
        opened(temporary.path());
    }

    #[test]
    fn what_cannot_be_used_is_reported_with_a_remedy() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("file");
        fs::write(&file, "").unwrap();
        let text = |path: &Path, privileges: &PrivilegesConfig| {
            let mut problems = Vec::new();
            check(path, privileges, &mut problems);
            problems.pop().map(|problem| problem.text)
        };
        let none = PrivilegesConfig::default();
        assert_eq!(text(Path::new(""), &none), None);
        assert!(text(&file, &none).unwrap().contains("cannot be opened"));
        assert!(text(&temporary.path().join("none"), &none).unwrap().contains("Create the directory"));
        fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let dropping = PrivilegesConfig { drop_privileges: true, ..none };
        if rustix::process::geteuid().is_root() {
            let text = text(temporary.path(), &dropping).unwrap();
            assert!(text.contains("not writable for nobody") && text.contains("chown nobody"), "{text}");
        }
    }
}
