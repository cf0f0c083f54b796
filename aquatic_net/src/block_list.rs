//! The block list: networks that are not served over any protocol. All cores read it, a reload replaces it as
//! a whole.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aquatic_common::config::RateLimitsConfig;
use aquatic_common::list::{ListParser, ParseListError};
use aquatic_common::{Prefix, PrefixSet, files};
use aquatic_metrics::{Counter, Gauge, Registry, names};
use aquatic_runtime::Periodic;
use arc_swap::ArcSwap;

/// Maximum size of the file in bytes, some 500,000 networks; it is read in less than 100 ms.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The block list that all cores read.
#[derive(Debug, Default)]
pub struct BlockList {
    /// The settings for the next reload.
    settings: Mutex<Settings>,
    /// What is blocked by file and by hand. Held while the list is replaced.
    sources: Mutex<Sources>,
    /// Spares the cores a read of the list.
    is_empty: AtomicBool,
    current: ArcSwap<PrefixSet>,
}

/// What a reload needs of `[rate_limits]`.
#[derive(Clone, Debug, Default)]
struct Settings {
    /// Empty for none.
    path: PathBuf,
    allow_empty: bool,
}

impl Settings {
    fn of(config: &RateLimitsConfig) -> Self {
        Self { path: config.block_list_path.clone(), allow_empty: config.allow_empty_block_list }
    }

    fn has_file(&self) -> bool {
        !self.path.as_os_str().is_empty()
    }
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
    /// The file is not a block list, or has become empty.
    Invalid(PathBuf, ParseListError),
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
            Self::Invalid(path, error) => {
                let remedy = error.remedy(RateLimitsConfig::allow_empty_block_list);
                write!(f, "cannot use the block list {}: {error}. {remedy}", path.display())
            }
        }
    }
}

impl std::error::Error for BlockListError {}

impl BlockList {
    /// Reads the list for the first time. With an empty path there is none.
    ///
    /// # Errors
    /// A file that cannot be read or is not a block list. It may be empty: nothing is blocked yet.
    pub fn load(config: &RateLimitsConfig) -> Result<Arc<Self>, BlockListError> {
        let list = Arc::new(Self::default());
        list.configure(config);
        list.reload()?;
        Ok(list)
    }

    /// Replaces the settings. They apply from the next [`reload`](Self::reload) on.
    pub fn configure(&self, config: &RateLimitsConfig) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Settings::of(config);
    }

    fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the list by what the file holds now and returns the number of its networks, neighbours
    /// counted as one.
    ///
    /// # Errors
    /// A file that cannot be read or is not a block list, or has become empty although it must not; the old
    /// list then stays.
    pub fn reload(&self) -> Result<usize, BlockListError> {
        let settings = self.settings();
        let may_be_empty = settings.allow_empty || self.sources().file.is_empty();
        let list =
            if settings.has_file() { read(settings.path, may_be_empty)? } else { PrefixSet::default() };
        let len = list.len();
        let mut sources = self.sources();
        sources.file = Arc::new(list);
        self.replace(&sources);
        Ok(len)
    }

    /// Number of networks of the file, neighbours counted as one; `None` without a file.
    #[must_use]
    pub fn listed(&self) -> Option<usize> {
        self.settings().has_file().then(|| self.sources().file.len())
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

fn read(path: PathBuf, may_be_empty: bool) -> Result<PrefixSet, BlockListError> {
    let content = match files::read_bounded(&path, MAX_BYTES) {
        Ok(content) => content,
        Err(error) => return Err(BlockListError::Unreadable(path, error)),
    };
    let mut parser = ListParser::<Prefix>::new(content.len() as u64);
    parser.feed(&content);
    let networks = parser.finish(may_be_empty).map_err(|error| BlockListError::Invalid(path, error))?;
    Ok(networks.into_iter().collect())
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
        let was_empty = self.list.sources().file.is_empty();
        if was_empty && !self.list.settings().has_file() {
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
    use std::path::Path;

    use super::*;

    fn config(path: &Path) -> RateLimitsConfig {
        RateLimitsConfig { block_list_path: path.to_owned(), ..RateLimitsConfig::default() }
    }

    #[test]
    fn a_bad_file_never_replaces_a_list() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocked");
        let (blocked, other) = ("192.0.2.9".parse().unwrap(), "192.0.3.9".parse().unwrap());
        assert!(BlockList::load(&config(&path)).unwrap_err().to_string().contains("cannot read"));
        fs::write(&path, "192.0.2.0/24 spam\n").unwrap();
        let list = BlockList::load(&config(&path)).unwrap();
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
        list.configure(&config(Path::new("")));
        assert_eq!(list.reload().unwrap(), 0);
        assert!(list.is_empty() && !list.blocks(other));
    }

    #[test]
    fn a_list_becomes_empty_only_if_that_is_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocked");
        let blocked = "192.0.2.9".parse().unwrap();
        for empty in ["", "\n \r\n", "# maintenance\n", "\u{feff}"] {
            fs::write(&path, empty).unwrap();
            let list = BlockList::load(&config(&path)).unwrap();
            assert_eq!((list.reload().unwrap(), list.listed()), (0, Some(0)), "nothing is blocked yet");
            fs::write(&path, "192.0.2.9\r192.0.2.19\r").unwrap();
            assert_eq!((list.reload().unwrap(), list.listed()), (2, Some(2)));
            fs::write(&path, empty).unwrap();
            let error = list.reload().unwrap_err().to_string();
            let remedy = "no network to block in it. If the list is meant to be empty, set \
                          rate_limits.allow_empty_block_list to true";
            assert!(error.contains(path.to_str().unwrap()) && error.ends_with(remedy), "{error}");
            assert!(list.blocks(blocked));
            list.configure(&RateLimitsConfig { allow_empty_block_list: true, ..config(&path) });
            assert_eq!(list.reload().unwrap(), 0);
            assert!(!list.blocks(blocked));
        }
        assert_eq!(BlockList::load(&config(Path::new(""))).unwrap().listed(), None);
    }

    #[test]
    fn networks_blocked_by_hand_outlast_a_reload_and_end_in_time() {
        let list = BlockList::load(&config(Path::new(""))).unwrap();
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
        let mut reloader = BlockListReloader::new(BlockList::load(&config(&path)).unwrap(), &registry);
        reloader.reload();
        fs::write(&path, "x").unwrap();
        reloader.reload();
        assert_eq!((reloader.done.get(), reloader.failed.get(), reloader.listed.get()), (1, 1, 1));
    }
}
