//! The block list: networks that are not served over any protocol. All cores read it, a reload replaces it as
//! a whole.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aquatic_common::PrefixSet;
use aquatic_common::config::RateLimitsConfig;
use aquatic_common::prefix::BadPrefixLines;
use aquatic_metrics::{Counter, Gauge, Registry, names};
use aquatic_runtime::Periodic;
use arc_swap::ArcSwap;

/// Maximum size of the file in bytes, some 500,000 networks; it is read in less than 100 ms.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The block list that all cores read.
#[derive(Debug, Default)]
pub struct BlockList {
    /// Path for the next reload; empty for none.
    path: Mutex<PathBuf>,
    /// Spares the cores a read of the list.
    is_empty: AtomicBool,
    current: ArcSwap<PrefixSet>,
}

/// Why a block list cannot be used.
#[derive(Debug)]
pub enum BlockListError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The file has lines that are no networks.
    Invalid(PathBuf, BadPrefixLines),
}

impl fmt::Display for BlockListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(
                f,
                "cannot read the block list {}: {error}. Create the file, make it readable for this user, or set {} \
                 to \"\"",
                path.display(),
                RateLimitsConfig::block_list_path
            ),
            Self::Invalid(path, error) => write!(
                f,
                "cannot use the block list {}: {error}. Correct or remove these lines, or put a # in front of each",
                path.display()
            ),
        }
    }
}

impl std::error::Error for BlockListError {}

impl BlockList {
    /// Reads the list for the first time. With an empty path there is none.
    ///
    /// # Errors
    /// A file that cannot be read or has lines that are no networks.
    pub fn load(path: &Path) -> Result<Arc<Self>, BlockListError> {
        let list = Arc::new(Self::default());
        list.configure(path);
        list.reload()?;
        Ok(list)
    }

    /// Replaces the path. It applies from the next [`reload`](Self::reload) on.
    pub fn configure(&self, path: &Path) {
        path.clone_into(&mut self.path.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Replaces the list by what the file holds now and returns the number of its networks, neighbours
    /// counted as one.
    ///
    /// # Errors
    /// A file that cannot be read or has lines that are no networks; the old list then stays.
    pub fn reload(&self) -> Result<usize, BlockListError> {
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let list = if path.as_os_str().is_empty() { PrefixSet::default() } else { read(path)? };
        let len = list.len();
        self.current.store(Arc::new(list));
        self.is_empty.store(len == 0, Ordering::Relaxed);
        Ok(len)
    }

    /// Whether nothing is blocked.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_empty.load(Ordering::Relaxed)
    }

    /// Whether an address, in canonical form, is not served.
    #[inline]
    #[must_use]
    pub fn blocks(&self, ip: IpAddr) -> bool {
        !self.is_empty() && self.current.load().contains(ip)
    }
}

fn read(path: PathBuf) -> Result<PrefixSet, BlockListError> {
    let text = read_text(&path).map_err(|error| BlockListError::Unreadable(path.clone(), error))?;
    PrefixSet::parse_lines(&text).map_err(|error| BlockListError::Invalid(path, error))
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Reloads the block list, in the main thread, and logs and counts the results.
#[derive(Debug)]
pub struct BlockListReloader {
    list: Arc<BlockList>,
    listed: Gauge,
    done: Counter,
    failed: Counter,
}

impl BlockListReloader {
    /// A reloader of a list.
    #[must_use]
    pub fn new(list: Arc<BlockList>, registry: &Registry) -> Self {
        let metrics = registry.main_thread();
        let reloads = |outcome| metrics.counter(&names::BLOCK_LIST_RELOADS, &[("outcome", outcome)]);
        let listed = metrics.gauge(&names::BLOCK_LIST, &[]);
        listed.set(list.current.load().len() as u64);
        Self { list, listed, done: reloads("done"), failed: reloads("failed") }
    }
}

impl Periodic for BlockListReloader {
    fn tick(&mut self, _now: Duration) {}

    fn reload(&mut self) {
        let was_empty = self.list.is_empty();
        match self.list.reload() {
            Ok(len) => {
                self.done.add(1);
                self.listed.set(len as u64);
                if len > 0 || !was_empty {
                    log::info!("block list reloaded: {len} networks");
                }
            }
            Err(error) => {
                self.failed.add(1);
                log::error!("block list not reloaded, the previous one stays in use: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_bad_file_never_replaces_a_list() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocked");
        let (blocked, other) = ("192.0.2.9".parse().unwrap(), "192.0.3.9".parse().unwrap());
        assert!(BlockList::load(&path).unwrap_err().to_string().contains("cannot read"));
        fs::write(&path, "192.0.2.0/24 spam\n").unwrap();
        let list = BlockList::load(&path).unwrap();
        assert!(list.blocks(blocked) && !list.blocks(other));
        for bad in ["192.0.3.0/24\nnonsense\n", "\u{0}"] {
            fs::write(&path, bad).unwrap();
            let error = list.reload().unwrap_err().to_string();
            assert!(error.contains("are not networks"), "{error}");
            assert!(list.blocks(blocked) && !list.blocks(other));
        }
        fs::write(&path, vec![b'#'; MAX_BYTES as usize + 1]).unwrap();
        assert!(list.reload().unwrap_err().to_string().contains("larger than"));
        fs::write(&path, "192.0.3.0/24\n").unwrap();
        assert_eq!(list.reload().unwrap(), 1);
        assert!(!list.blocks(blocked) && list.blocks(other));
        list.configure(Path::new(""));
        assert_eq!(list.reload().unwrap(), 0);
        assert!(list.is_empty() && !list.blocks(other));
    }

    #[test]
    fn reloads_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocked");
        fs::write(&path, "192.0.2.0/24\n").unwrap();
        let registry = Registry::default();
        let mut reloader = BlockListReloader::new(BlockList::load(&path).unwrap(), &registry);
        reloader.reload();
        fs::write(&path, "x").unwrap();
        reloader.reload();
        assert_eq!((reloader.done.get(), reloader.failed.get(), reloader.listed.get()), (1, 1, 1));
    }
}
