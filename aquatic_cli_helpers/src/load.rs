//! Loading of a configuration, with all of its faults reported at once.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use aquatic_common::settings::{Configuration, Scope};

use crate::check::{self, Found};
use crate::flags::Override;

/// Maximum size of a configuration file in bytes. A real one has a hundredth of it. The limit keeps a wrong
/// path such as a device from filling the memory.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration that cannot be used.
#[derive(Debug)]
pub struct LoadError {
    path: Option<PathBuf>,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    Unreadable(io::Error),
    TooLong,
    NotText { line: usize },
    Wrong(Vec<Found>),
}

/// A configuration, and what its file was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded<C> {
    /// The configuration.
    pub config: C,
    /// Whether the file has a key.
    pub has_keys: bool,
}

/// Reads the file, if any, applies the overrides, and checks syntax, names, types and bounds, and the
/// combinations of values that `scope` reads.
///
/// # Errors
/// A file that cannot be read, or all faults of the configuration.
pub fn load<C: Configuration>(
    path: Option<&Path>,
    overrides: &[Override],
    scope: &impl Scope<C>,
) -> Result<C, LoadError> {
    load_noting(path, overrides, scope).map(|loaded| loaded.config)
}

/// As [`load`], and tells whether the file has a key: one without any may have been emptied by an editor or a
/// copy that is about to write it.
///
/// # Errors
/// Those of [`load`].
pub fn load_noting<C: Configuration>(
    path: Option<&Path>,
    overrides: &[Override],
    scope: &impl Scope<C>,
) -> Result<Loaded<C>, LoadError> {
    let fail = |reason| LoadError { path: path.map(Path::to_owned), reason };
    let text = match path {
        Some(path) => read(path).map_err(fail)?,
        None => String::new(),
    };
    let config = check::config(&text, overrides, scope).map_err(|found| fail(Reason::Wrong(found)))?;
    Ok(Loaded { config, has_keys: check::has_keys(&text) })
}

/// Reads a configuration from a text, which is checked as [`load`] does.
///
/// # Errors
/// All faults of the configuration.
pub fn load_text<C: Configuration>(text: &str, scope: &impl Scope<C>) -> Result<C, LoadError> {
    check::config(text, &[], scope).map_err(|found| LoadError { path: None, reason: Reason::Wrong(found) })
}

/// Whether a path is that of a FIFO. A start may read the configuration through a pipe without a name, such
/// as `/dev/stdin` or what a shell puts in place of `<(command)`; a FIFO has to be opened by somebody else,
/// or opening it never ends.
fn is_fifo(path: &Path) -> bool {
    // What is behind a pipe without a name cannot be resolved.
    !["/dev", "/proc"].iter().any(|directory| path.starts_with(directory))
        && path.metadata().is_ok_and(|data| data.file_type().is_fifo())
        && path.canonicalize().is_ok()
}

fn read(path: &Path) -> Result<String, Reason> {
    if is_fifo(path) {
        let text = "it is a FIFO, so reading it may never end; write a file, or use /dev/stdin";
        return Err(Reason::Unreadable(io::Error::other(text)));
    }
    let file = File::open(path).map_err(Reason::Unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(Reason::Unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Reason::TooLong);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Reason::NotText { line: 1 + good.iter().filter(|&&byte| byte == b'\n').count() }
    })
}

impl LoadError {
    /// Each of its problems, as one line of text.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        match &self.reason {
            Reason::Wrong(found) => found.iter().map(ToString::to_string).collect(),
            Reason::Unreadable(_) | Reason::TooLong | Reason::NotText { .. } => vec![self.to_string()],
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "configuration file {}", path.display())?,
            None => f.write_str("configuration")?,
        }
        match &self.reason {
            Reason::Unreadable(error) if error.kind() == io::ErrorKind::NotFound => {
                f.write_str(" does not exist; write one to start from with --print-config")
            }
            Reason::Unreadable(error) => write!(f, " cannot be read: {error}"),
            Reason::TooLong => write!(f, " is longer than {MAX_FILE_BYTES} bytes"),
            Reason::NotText { line } => write!(f, " is not UTF-8 text: see line {line}"),
            Reason::Wrong(found) => {
                match found.len() {
                    1 => f.write_str(" has a problem:")?,
                    count => write!(f, " has {count} problems:")?,
                }
                found.iter().try_for_each(|found| write!(f, "\n  {found}"))
            }
        }
    }
}

impl std::error::Error for LoadError {}

#[cfg(test)]
mod tests {
    use aquatic_common::settings::{Problem, Whole};

    use super::*;

    aquatic_common::settings! {
        struct Config {
            /// A number.
            pub number: u8 = 1, in 1..=9;
        }
    }

    impl Configuration for Config {
        fn check_relations(&self, _problems: &mut Vec<Problem>) {}
    }

    fn load_bytes(bytes: &[u8]) -> Result<Config, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = directory.path().join("config.toml");
        std::fs::write(&path, bytes).map_err(|error| error.to_string())?;
        load(Some(&path), &[], &Whole)
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn a_file_is_read() {
        assert_eq!(load_bytes(b"number = 3\n").unwrap(), Config { number: 3 });
        assert_eq!(load::<Config>(None, &[], &Whole).unwrap(), Config::default());
    }

    #[test]
    fn a_file_without_keys_is_noted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        for (text, has_keys) in
            [("", false), (" \n\r\n", false), ("# number = 3\n", false), ("number = 1\n", true)]
        {
            std::fs::write(&path, text).unwrap();
            let loaded = load_noting(Some(&path), &[], &Whole).unwrap();
            assert_eq!(loaded, Loaded { config: Config::default(), has_keys }, "{text:?}");
        }
    }

    #[test]
    fn problems_stand_below_the_name_of_the_file() {
        let error = load_bytes(b"number = 10\nnunber = 1").unwrap_err();
        let expected = "\
configuration file FILE has 2 problems:
  line 1: number: 10 is out of bounds, choose from 1 to 9
  line 2: nunber: unknown key \"nunber\"; did you mean number?";
        assert_eq!(error, expected);
        let set = "number=0".parse().unwrap();
        let error = load::<Config>(None, &[set], &Whole).unwrap_err().to_string();
        let expected = "\
configuration has a problem:
  --set number: 0 is out of bounds, choose from 1 to 9";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_fifo_is_not_waited_for_and_a_pipe_is_read() {
        use std::io::Write;
        use std::os::fd::AsRawFd;
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let error = load::<Config>(Some(&fifo), &[], &Whole).unwrap_err().to_string();
        assert!(error.contains("it is a FIFO") && error.contains("/dev/stdin"), "{error}");

        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"number = 3\n").unwrap();
        drop(writer);
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        assert_eq!(load::<Config>(Some(Path::new(&path)), &[], &Whole).unwrap(), Config { number: 3 });
    }

    #[test]
    fn files_that_are_no_configuration_are_explained() {
        let error = load_bytes(b"# fine\n# not: \xff\n").unwrap_err();
        assert_eq!(error, "configuration file FILE is not UTF-8 text: see line 2");
        let long = vec![b'\n'; MAX_FILE_BYTES as usize + 1];
        assert_eq!(load_bytes(&long).unwrap_err(), "configuration file FILE is longer than 1048576 bytes");
        assert!(load_bytes(&long[1..]).is_ok());

        let directory = tempfile::tempdir().unwrap();
        let error = load::<Config>(Some(directory.path()), &[], &Whole).unwrap_err().to_string();
        assert!(error.contains("cannot be read: Is a directory"), "{error}");
        let error =
            load::<Config>(Some(&directory.path().join("none")), &[], &Whole).unwrap_err().to_string();
        assert!(error.contains("/none does not exist"), "{error}");
    }
}
