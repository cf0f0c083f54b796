//! Files that settings name.

use std::fs::{self, File, Metadata};
use std::io::{self, Error, Read};
use std::path::Path;

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
    use super::*;

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
