//! Files that settings name.

use std::fs::{self, File, Metadata};
use std::io::{self, Error, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What tells that a file is another one than before, or that it may be readable now: also its owner and its
/// permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    place: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    length: u64,
}

impl Stamp {
    /// That of a file; `None` if it cannot be inspected.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let about = fs::metadata(path).ok()?;
        Some(Self {
            place: (about.dev(), about.ino()),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
            length: about.len(),
        })
    }
}

/// What is known of a regular file without opening it.
///
/// # Errors
/// There is none, or the path leads to something else: reading a FIFO or a device may never end, which would
/// keep the tracker from reloading and stopping.
pub fn about_regular(path: &Path) -> io::Result<Metadata> {
    let about = fs::metadata(path)?;
    if about.is_dir() {
        return Err(Error::other("it is a directory, not a file"));
    }
    if !about.is_file() {
        return Err(Error::other("it is not a regular file, so reading it may never end"));
    }
    Ok(about)
}

/// Reads a regular file of at most so many bytes.
///
/// # Errors
/// It cannot be read, is no regular file, or is longer.
pub fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    about_regular(path)?;
    let mut content = Vec::new();
    File::open(path)?.take(max.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        return Err(Error::other(format!("it is longer than {max} bytes")));
    }
    Ok(content)
}

/// A text without the byte order mark of UTF-8 that some editors put in front.
#[must_use]
pub fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test may wait")]
    fn another_content_or_mode_is_another_stamp() {
        let path = std::env::temp_dir().join(format!("aquatic-stamp-{}", std::process::id()));
        assert_eq!(Stamp::of(&path), None);
        let mut stamps = Vec::new();
        let changes: [fn(&Path) -> io::Result<()>; 3] = [
            |path| fs::write(path, "1"),
            |path| fs::write(path, "2"),
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o640)),
        ];
        for change in changes {
            // Times of files are those of the last tick of the kernel.
            sleep(Duration::from_millis(20));
            change(&path).unwrap();
            let stamp = Stamp::of(&path).unwrap();
            assert_eq!(Stamp::of(&path), Some(stamp));
            assert!(!stamps.contains(&stamp));
            stamps.push(stamp);
        }
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_not_read() {
        let directory = std::env::temp_dir();
        let fault = |path: &Path| read_bounded(path, 10).unwrap_err().to_string();
        assert!(fault(&directory).contains("a directory"));
        assert!(fault(Path::new("/dev/zero")).contains("not a regular file"));
        assert_eq!(read_bounded(Path::new("/nonexistent"), 10).unwrap_err().kind(), io::ErrorKind::NotFound);
        let path = directory.join(format!("aquatic-files-{}", std::process::id()));
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap(), b"0123456789");
        assert!(read_bounded(&path, 9).unwrap_err().to_string().contains("longer than 9 bytes"));
        fs::remove_file(&path).unwrap();
    }
}
