//! Giving up what is not needed once the sockets are bound.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aquatic_common::config::PrivilegesConfig;
use aquatic_common::settings::Problem;
use nix::unistd::{Group, User};
use privdrop::PrivDrop;

/// Permission bits of others, as in a file's mode.
const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const SEARCH: u32 = 0o1;

/// Why privileges could not be dropped.
#[derive(Debug)]
pub enum PrivilegesError {
    /// The process is not root's.
    NotRoot,
    /// There is no such directory to lock the process into.
    NoSuchDirectory(PathBuf),
    /// The system refused; with what was asked for.
    Refused {
        /// User to become.
        user: String,
        /// Group to become.
        group: String,
        /// In the words of the system.
        error: String,
    },
}

impl fmt::Display for PrivilegesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRoot => write!(
                f,
                "{} = true, but the tracker was not started as root and cannot become another user. Start it as \
                 root, or set it to false",
                PrivilegesConfig::drop_privileges
            ),
            Self::NoSuchDirectory(path) => write!(
                f,
                "{} = \"{}\" is not a directory. Create it, or leave the setting empty",
                PrivilegesConfig::chroot_path,
                path.display()
            ),
            Self::Refused { user, group, error } => write!(
                f,
                "cannot become user \"{user}\" and group \"{group}\": {error}. Check that both exist (getent passwd \
                 {user}; getent group {group}) and that the process may change them (CAP_SETUID, CAP_SETGID, and \
                 CAP_SYS_CHROOT for chroot_path)"
            ),
        }
    }
}

impl std::error::Error for PrivilegesError {}

/// Reports users, groups and directories that do not exist, and a process that cannot drop privileges.
pub fn check(config: &PrivilegesConfig, problems: &mut Vec<Problem>) {
    if !config.drop_privileges {
        return;
    }
    let PrivilegesConfig { user, group, chroot_path, .. } = config;
    let mut add = |key, text: String| problems.push(Problem::new(key, text));
    if !rustix::process::geteuid().is_root() {
        add(PrivilegesConfig::drop_privileges, "is true, but this user is not root".to_owned());
    }
    if !matches!(User::from_name(user), Ok(Some(_))) {
        add(PrivilegesConfig::user, format!("there is no user \"{user}\" (getent passwd {user})"));
    }
    if !matches!(Group::from_name(group), Ok(Some(_))) {
        add(PrivilegesConfig::group, format!("there is no group \"{group}\" (getent group {group})"));
    }
    if !chroot_path.as_os_str().is_empty() && !chroot_path.is_dir() {
        add(PrivilegesConfig::chroot_path, format!("\"{}\" is not a directory", chroot_path.display()));
    }
}

/// Why a file cannot be read after privileges are dropped, judged by owner, group and mode; `None` if it can
/// be read, or if no privileges are dropped. With a new root directory the file is looked up inside it.
#[must_use]
pub fn unreadable_after_drop(config: &PrivilegesConfig, file: &Path) -> Option<String> {
    if !config.drop_privileges {
        return None;
    }
    // Unknown accounts end the start with an error of their own.
    let user = User::from_name(&config.user).ok().flatten()?;
    let group = Group::from_name(&config.group).ok().flatten()?;
    let ids = (user.uid.as_raw(), group.gid.as_raw());
    let who = format!("user {} and group {}", config.user, config.group);
    if config.chroot_path.as_os_str().is_empty() {
        let file = std::path::absolute(file).ok()?;
        let denied = first_denied(Path::new("/"), file.strip_prefix("/").ok()?, ids)?;
        return Some(denied.explain(&who));
    }
    let inside = file.strip_prefix("/").unwrap_or(file);
    let denied = first_denied(&config.chroot_path, inside, ids)?;
    Some(denied.explain(&format!("{who} in {}", config.chroot_path.display())))
}

/// User and group that the process is going to be; `None` if it stays what it is, or if they are unknown,
/// which ends the start with an error of its own.
#[must_use]
pub fn heir(config: &PrivilegesConfig) -> Option<(u32, u32)> {
    let user = User::from_name(&config.user).ok().flatten().filter(|_| config.drop_privileges)?;
    let group = Group::from_name(&config.group).ok().flatten()?;
    Some((user.uid.as_raw(), group.gid.as_raw()))
}

/// Whether a directory of this owner, group and mode allows to replace files in it.
pub(crate) fn may_write(directory: (u32, u32, u32), ids: (u32, u32)) -> bool {
    allows(directory, ids, WRITE) && allows(directory, ids, SEARCH)
}

/// Whether a file of this owner, group and mode may be read.
pub(crate) fn may_read(file: (u32, u32, u32), ids: (u32, u32)) -> bool {
    allows(file, ids, READ)
}

/// Name of a user, or its number if it has none.
pub(crate) fn name_of(user: u32) -> String {
    let named = User::from_uid(user.into()).ok().flatten();
    named.map_or_else(|| user.to_string(), |user| user.name)
}

/// The first part of a path that may not be used, and why.
#[derive(Debug)]
enum Denied {
    /// The file, or a directory on the way, cannot be inspected.
    Missing(PathBuf, io::Error),
    /// The mode does not allow it.
    Mode(PathBuf, u32),
}

impl Denied {
    fn explain(&self, who: &str) -> String {
        match self {
            Self::Missing(path, error) => format!("{}: {error} ({who})", path.display()),
            Self::Mode(path, mode) => {
                format!("{} with mode {:03o} does not allow it to {who}", path.display(), mode & 0o777)
            }
        }
    }
}

/// Walks from a directory to a file below it.
fn first_denied(root: &Path, file: &Path, ids: (u32, u32)) -> Option<Denied> {
    let mut path = root.to_owned();
    let mut parts = file.components().peekable();
    loop {
        let needed = if parts.peek().is_none() { READ } else { SEARCH };
        match fs::metadata(&path) {
            Ok(data) if !allows((data.uid(), data.gid(), data.mode()), ids, needed) => {
                return Some(Denied::Mode(path, data.mode()));
            }
            Ok(_) => {}
            Err(error) => return Some(Denied::Missing(path, error)),
        }
        path.push(parts.next()?);
    }
}

/// Whether a file of this owner, group and mode allows what is needed.
fn allows((owner, group, mode): (u32, u32, u32), (uid, gid): (u32, u32), needed: u32) -> bool {
    let bits = if uid == owner {
        mode >> 6
    } else if gid == group {
        mode >> 3
    } else {
        mode
    };
    uid == 0 || bits & needed != 0
}

/// Becomes the configured user, in all threads there are: the C library changes users and groups in each, and
/// threads share their root directory. To be called before the cores start, so that nothing a client sends is
/// handled with more.
///
/// # Errors
/// The configuration asks for what is not possible. The tracker must not go on then.
pub(crate) fn drop_privileges(config: &PrivilegesConfig) -> Result<(), PrivilegesError> {
    if !config.drop_privileges {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(PrivilegesError::NotRoot);
    }
    let PrivilegesConfig { user, group, chroot_path, .. } = config;
    let mut privileges = PrivDrop::default().user(user).group(group);
    if !chroot_path.as_os_str().is_empty() {
        if !chroot_path.is_dir() {
            return Err(PrivilegesError::NoSuchDirectory(chroot_path.clone()));
        }
        privileges = privileges.chroot(chroot_path);
    }
    privileges.apply().map_err(|error| PrivilegesError::Refused {
        user: user.clone(),
        group: group.clone(),
        error: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn owner_group_and_others_have_their_own_bits() {
        let ids = (10, 20);
        assert!(allows((10, 1, 0o400), ids, READ));
        assert!(!allows((10, 1, 0o044), ids, READ), "the owner has the bits of the owner only");
        assert!(allows((1, 20, 0o040), ids, READ) && !allows((1, 20, 0o604), ids, READ));
        assert!(allows((1, 1, 0o604), ids, READ) && !allows((1, 1, 0o640), ids, READ));
        assert!(allows((1, 1, 0o711), ids, SEARCH) && allows((1, 1, 0), (0, 0), READ));
    }

    #[test]
    fn every_directory_on_the_way_must_allow_it() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("key.pem");
        fs::write(&file, "").unwrap();
        let set_mode =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        // Neither owner nor group of what this test has made.
        let other = (u32::MAX - 1, u32::MAX - 1);
        let denied =
            || first_denied(&inner, Path::new("key.pem"), other).map(|denied| denied.explain("user other"));
        set_mode(&file, 0o604);
        set_mode(&inner, 0o701);
        assert_eq!(denied(), None);
        set_mode(&inner, 0o700);
        assert!(denied().unwrap().contains("inner with mode 700"), "{denied:?}", denied = denied());
        set_mode(&inner, 0o701);
        set_mode(&file, 0o600);
        assert!(denied().unwrap().contains("key.pem with mode 600"), "{denied:?}", denied = denied());
        let missing = first_denied(&inner, Path::new("none/key.pem"), other).unwrap();
        assert!(missing.explain("user other").contains("none"), "{missing:?}");
    }
}
