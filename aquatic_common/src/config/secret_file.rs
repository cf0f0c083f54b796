//! Files that hold a secret.

use std::fmt::Display;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::files;

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Bits of the mode of a file that let everybody read it.
const READABLE_FOR_ALL: u32 = 0o004;

/// Why a file that a setting names cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Key of the setting.
    pub key: &'static str,
    /// What is wrong, and what to do about it.
    pub text: String,
}

impl Unusable {
    /// Something that is wrong with a file.
    pub fn new(key: &'static str, path: &Path, what: impl Display) -> Self {
        Self { key, text: format!("{} cannot be used: {what}", path.display()) }
    }
}

impl Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

impl std::error::Error for Unusable {}

/// Reads a file that holds a secret, without white space at its end. Warns if everybody can read it.
///
/// # Errors
/// The file cannot be read, or is longer than 1 MiB.
pub fn read_secret_file(
    (key, path): (&'static str, &Path),
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>, Unusable> {
    let unreadable = |error: Error| {
        let remedy = if error.kind() == ErrorKind::NotFound {
            "; create it, or correct the path"
        } else if error.kind() == ErrorKind::PermissionDenied {
            "; make it readable for the user that starts the tracker"
        } else {
            ""
        };
        Unusable::new(key, path, format!("{error}{remedy}"))
    };
    let about = files::about_regular(path).map_err(unreadable)?;
    if about.permissions().mode() & READABLE_FOR_ALL != 0 {
        warnings.push(format!("{key} = {path:?}: every user of this machine can read it; chmod o= {path:?}"));
    }
    let mut content = files::read_bounded(path, MAX_FILE).map_err(unreadable)?;
    content.truncate(content.trim_ascii_end().len());
    Ok(content)
}
