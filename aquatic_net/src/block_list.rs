//! The block list: networks that are not served over any protocol. All cores read it, a reload replaces it as
//! a whole.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aquatic_common::config::RateLimitsConfig;
use aquatic_common::prefix::BadPrefixLines;
use aquatic_common::{Prefix, PrefixSet, files};
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
    /// What is blocked by file and by hand. Held while the list is replaced.
    sources: Mutex<Sources>,
    /// Spares the cores a read of the list.
    is_empty: AtomicBool,
    current: ArcSwap<PrefixSet>,
}

/// Where the list comes from.
#[derive(Debug, Default)]
struct Sources {
    file: Arc<PrefixSet>,
    bans: Vec<Ban>,
}

/// A network that has been blocked by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The network.
    pub prefix: Prefix,
    /// Time since the epoch at which it ends; `None` for the end of the process.
    pub until: Option<Duration>,
}

/// Maximum number of networks that can be blocked by hand.
pub const MAX_BANS: usize = 10_000;

/// So many networks have been blocked by hand that there is no room for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyBans;

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
        let mut sources = self.sources();
        sources.file = Arc::new(list);
        self.replace(&sources);
        Ok(len)
    }

    fn has_file(&self) -> bool {
        !self.path.lock().unwrap_or_else(PoisonError::into_inner).as_os_str().is_empty()
    }

    /// Blocks a network by hand, besides those of the file, or changes when that ends. Returns whether it was
    /// blocked by hand before.
    ///
    /// # Errors
    /// There are [`MAX_BANS`] already.
    pub fn ban(&self, ban: Ban) -> Result<bool, TooManyBans> {
        let mut sources = self.sources();
        let is_full = sources.bans.len() >= MAX_BANS;
        let known = sources.bans.iter_mut().find(|known| known.prefix == ban.prefix);
        let was_known = known.is_some();
        match known {
            Some(known) => *known = ban,
            None if is_full => return Err(TooManyBans),
            None => sources.bans.push(ban),
        }
        self.replace(&sources);
        Ok(was_known)
    }

    /// Replaces all that is blocked by hand. Of more than [`MAX_BANS`] the first are blocked.
    pub fn replace_bans(&self, mut bans: Vec<Ban>) {
        bans.truncate(MAX_BANS);
        let mut sources = self.sources();
        sources.bans = bans;
        self.replace(&sources);
    }

    /// Ends the block of a network by hand. Returns whether there was one.
    pub fn unban(&self, prefix: Prefix) -> bool {
        self.retain(|ban| ban.prefix != prefix)
    }

    /// Ends the blocks whose time is over.
    pub fn expire(&self, now: Duration) {
        self.retain(|ban| ban.until.is_none_or(|until| until > now));
    }

    fn retain(&self, keep: impl FnMut(&Ban) -> bool) -> bool {
        let mut sources = self.sources();
        let before = sources.bans.len();
        sources.bans.retain(keep);
        let changed = sources.bans.len() != before;
        if changed {
            self.replace(&sources);
        }
        changed
    }

    /// What is blocked by hand.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        self.sources().bans.clone()
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, sources: &Sources) {
        let list = match sources.bans.as_slice() {
            [] => Arc::clone(&sources.file),
            bans => Arc::new(sources.file.with(bans.iter().map(|ban| ban.prefix))),
        };
        let is_empty = list.is_empty();
        self.current.store(list);
        self.is_empty.store(is_empty, Ordering::Relaxed);
    }

    /// What is blocked now. The same value as long as nothing changes.
    pub(crate) fn current(&self) -> Arc<PrefixSet> {
        self.current.load_full()
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
    let content = files::read_bounded(path, MAX_BYTES)?;
    String::from_utf8(content).map_err(|_| io::Error::other("it is not UTF-8 text"))
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
    fn tick(&mut self, now: Duration) {
        self.list.expire(now);
    }

    fn reload(&mut self) {
        let was_empty = self.list.is_empty();
        if was_empty && !self.list.has_file() {
            return;
        }
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
        assert!(list.reload().unwrap_err().to_string().contains("longer than"));
        fs::write(&path, "192.0.3.0/24\n").unwrap();
        assert_eq!(list.reload().unwrap(), 1);
        assert!(!list.blocks(blocked) && list.blocks(other));
        list.configure(Path::new(""));
        assert_eq!(list.reload().unwrap(), 0);
        assert!(list.is_empty() && !list.blocks(other));
    }

    #[test]
    fn networks_blocked_by_hand_outlast_a_reload_and_end_in_time() {
        let list = BlockList::load(Path::new("")).unwrap();
        let at = Duration::from_secs;
        let ban = |text: &str, until| Ban { prefix: text.parse().unwrap(), until };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(list.ban(ban("192.0.2.0/24", Some(at(5)))), Ok(false));
        assert_eq!(list.ban(ban("2001:db8::/32", None)), Ok(false));
        list.reload().unwrap();
        list.expire(at(4));
        assert!(list.blocks(ip("192.0.2.9")) && list.blocks(ip("2001:db8::1")) && !list.is_empty());
        assert_eq!(list.ban(ban("192.0.2.0/24", Some(at(9)))), Ok(true), "it ends later");
        list.expire(at(5));
        assert!(list.blocks(ip("192.0.2.9")));
        list.expire(at(9));
        assert!(!list.blocks(ip("192.0.2.9")) && list.blocks(ip("2001:db8::1")));
        assert!(list.unban("2001:db8::/32".parse().unwrap()) && list.is_empty());
        assert!(!list.unban("2001:db8::/32".parse().unwrap()));
        let many = |number: usize| ban(&std::net::Ipv4Addr::from_bits(number as u32).to_string(), None);
        list.sources().bans = (0..MAX_BANS).map(many).collect();
        assert_eq!(list.ban(many(MAX_BANS)), Err(TooManyBans));
        assert_eq!(list.ban(many(1)), Ok(true));
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
