//! The access list: read at start, read again on SIGUSR1, and a cheap handle to it for each core.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aquatic_common::access_list::BadLine;
use aquatic_common::config::AccessListConfig;
use aquatic_common::{AccessList, AccessListMode, InfoHash};
use aquatic_metrics::{Counter, Gauge, Registry, names};
use aquatic_runtime::Periodic;

/// How many bad lines are named before the rest is only counted.
const NAMED_LINES: usize = 10;

/// The list all cores read from. Reloading replaces it as a whole; cores notice by the version at their next use.
#[derive(Debug)]
pub struct SharedAccessList {
    config: AccessListConfig,
    version: AtomicU64,
    list: Mutex<Arc<AccessList>>,
}

/// Why an access list could not be read.
#[derive(Debug)]
pub enum AccessListError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// Lines of the file are not info hashes.
    BadLines(PathBuf, Vec<BadLine>),
}

impl fmt::Display for AccessListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(
                f,
                "cannot read the access list {}: {error}. Create the file, make it readable for this user, or set \
                 {} to \"off\"",
                path.display(),
                AccessListConfig::mode
            ),
            Self::BadLines(path, lines) => {
                write!(f, "the access list {} has lines that are not info hashes:", path.display())?;
                for line in lines.iter().take(NAMED_LINES) {
                    write!(f, "\n  {line}")?;
                }
                if let Some(more @ 1..) = lines.len().checked_sub(NAMED_LINES) {
                    write!(f, "\n  and {more} more")?;
                }
                write!(f, "\nCorrect or remove them, or put a # in front of each")
            }
        }
    }
}

impl std::error::Error for AccessListError {}

/// What a reload did.
#[derive(Debug)]
pub struct Reloaded {
    /// Info hashes on the new list.
    pub len: usize,
    /// Lines that were skipped.
    pub bad_lines: Vec<BadLine>,
}

impl SharedAccessList {
    /// Reads the list for the first time. With mode "off" no file is looked for.
    ///
    /// # Errors
    /// A file that cannot be read, or any line in it that is not an info hash: a list that serves or refuses
    /// something other than the operator meant is worse than none.
    pub fn load(config: &AccessListConfig) -> Result<Arc<Self>, AccessListError> {
        let (list, bad_lines) = read(config)?;
        if !bad_lines.is_empty() {
            return Err(AccessListError::BadLines(config.path.clone(), bad_lines));
        }
        let list = Mutex::new(Arc::new(list));
        Ok(Arc::new(Self { config: config.clone(), version: AtomicU64::new(0), list }))
    }

    /// Reads the list again. Lines that are not info hashes are skipped and returned.
    ///
    /// # Errors
    /// A file that cannot be read; the old list then stays.
    pub fn reload(&self) -> Result<Reloaded, AccessListError> {
        let (list, bad_lines) = read(&self.config)?;
        let len = list.len();
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
        self.version.fetch_add(1, Ordering::Release);
        Ok(Reloaded { len, bad_lines })
    }

    /// How many info hashes are on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.current().len()
    }

    /// Whether no info hash is on the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn current(&self) -> Arc<AccessList> {
        Arc::clone(&self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(config: &AccessListConfig) -> Result<(AccessList, Vec<BadLine>), AccessListError> {
    if config.mode == AccessListMode::Off {
        return Ok((AccessList::default(), Vec::new()));
    }
    let text =
        fs::read(&config.path).map_err(|error| AccessListError::Unreadable(config.path.clone(), error))?;
    Ok(AccessList::parse(config.mode, &text))
}

/// A core's view of the list. Looking something up costs one load of the version besides the lookup itself.
#[derive(Debug)]
pub struct AccessReader {
    shared: Arc<SharedAccessList>,
    version: Cell<u64>,
    list: RefCell<Arc<AccessList>>,
}

impl AccessReader {
    /// A view of the list as it is now.
    #[must_use]
    pub fn new(shared: Arc<SharedAccessList>) -> Self {
        let version = Cell::new(shared.version.load(Ordering::Acquire));
        let list = RefCell::new(shared.current());
        Self { shared, version, list }
    }

    /// Whether the tracker serves this torrent.
    #[must_use]
    pub fn allows(&self, info_hash: &InfoHash) -> bool {
        self.refresh();
        self.list.borrow().allows(info_hash)
    }

    /// The list as it is now, for a whole batch.
    #[must_use]
    pub fn current(&self) -> Arc<AccessList> {
        self.refresh();
        Arc::clone(&self.list.borrow())
    }

    fn refresh(&self) {
        let version = self.shared.version.load(Ordering::Acquire);
        if version != self.version.get() {
            self.version.set(version);
            self.list.replace(self.shared.current());
        }
    }
}

/// Reads the list again when the process is told to, and says what came of it.
#[derive(Debug)]
pub(crate) struct AccessListReloader {
    shared: Arc<SharedAccessList>,
    listed: Gauge,
    reloaded: Counter,
    failed: Counter,
    bad_lines: Counter,
}

impl AccessListReloader {
    pub(crate) fn new(shared: Arc<SharedAccessList>, registry: &Registry) -> Self {
        let metrics = registry.main_thread();
        let listed = metrics.gauge(&names::ACCESS_LIST, &[]);
        listed.set(shared.len() as u64);
        Self {
            shared,
            listed,
            reloaded: metrics.counter(&names::ACCESS_RELOADS, &[("outcome", "done")]),
            failed: metrics.counter(&names::ACCESS_RELOADS, &[("outcome", "failed")]),
            bad_lines: metrics.counter(&names::ACCESS_BAD_LINES, &[]),
        }
    }
}

impl Periodic for AccessListReloader {
    fn tick(&mut self, _now: Duration) {}

    fn reload(&mut self) {
        match self.shared.reload() {
            Ok(reloaded) => {
                self.reloaded.add(1);
                self.listed.set(reloaded.len as u64);
                self.bad_lines.add(reloaded.bad_lines.len() as u64);
                for line in reloaded.bad_lines.iter().take(NAMED_LINES) {
                    log::warn!("access list, {line}; skipped");
                }
                if let Some(more @ 1..) = reloaded.bad_lines.len().checked_sub(NAMED_LINES) {
                    log::warn!("access list: {more} more lines skipped");
                }
                log::info!("access list read again: {} info hashes", reloaded.len);
            }
            Err(error) => {
                self.failed.add(1);
                log::error!("the old access list stays in use: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "00000000000000000000000000000000000000aa";

    fn config(name: &str, text: &str) -> AccessListConfig {
        let path = std::env::temp_dir().join(format!("aquatic-access-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        AccessListConfig { mode: AccessListMode::Allow, path }
    }

    #[test]
    fn a_bad_line_at_start_is_an_error_that_names_it() {
        let config = config("bad", &format!("{LISTED}\nnonsense\n"));
        let error = SharedAccessList::load(&config).unwrap_err().to_string();
        assert!(
            error.contains(config.path.to_str().unwrap()) && error.contains("line 2: expected 40"),
            "{error}"
        );
        fs::remove_file(config.path).unwrap();
    }

    #[test]
    fn many_bad_lines_are_counted() {
        let config = config("many", &"nonsense\n".repeat(13));
        let error = SharedAccessList::load(&config).unwrap_err().to_string();
        assert!(
            error.contains("line 10") && !error.contains("line 11") && error.contains("3 more"),
            "{error}"
        );
        fs::remove_file(config.path).unwrap();
    }

    #[test]
    fn a_missing_file_is_an_error_unless_the_list_is_off() {
        let mut config = AccessListConfig { mode: AccessListMode::Deny, path: "/nonexistent".into() };
        assert!(SharedAccessList::load(&config).unwrap_err().to_string().contains("/nonexistent"));
        config.mode = AccessListMode::Off;
        assert!(SharedAccessList::load(&config).is_ok());
    }

    #[test]
    fn reload_reaches_readers_skips_bad_lines_and_keeps_the_list_when_unreadable() {
        let config = config("reload", LISTED);
        let shared = SharedAccessList::load(&config).unwrap();
        let reader = AccessReader::new(Arc::clone(&shared));
        let other = "00000000000000000000000000000000000000bb";
        assert!(reader.allows(&LISTED.parse().unwrap()) && !reader.allows(&other.parse().unwrap()));

        fs::write(&config.path, format!("{other}\nnonsense")).unwrap();
        let reloaded = shared.reload().unwrap();
        assert_eq!((reloaded.len, reloaded.bad_lines.len(), reloaded.bad_lines[0].number), (1, 1, 2));
        assert!(!reader.allows(&LISTED.parse().unwrap()) && reader.allows(&other.parse().unwrap()));

        fs::remove_file(&config.path).unwrap();
        assert!(shared.reload().is_err());
        assert!(reader.current().allows(&other.parse().unwrap()));
    }
}
