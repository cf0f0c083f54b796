//! Giving up what is not needed once the sockets are bound.

use std::fmt;
use std::path::PathBuf;

use aquatic_common::config::PrivilegesConfig;
use privdrop::PrivDrop;

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

/// Becomes the configured user, in all threads there are: the C library changes users and groups in each, and threads
/// share their root directory. To be called before the cores start, so that nothing a client sends is handled with more.
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
