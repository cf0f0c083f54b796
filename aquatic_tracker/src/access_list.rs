//! The access list in memory: loaded at start, reloaded on a thread of its own, read by all cores.
//!
//! Invariants: a list is read and built on the main thread before the cores start, later on the reload thread
//! only. A file that cannot be used, for whatever reason, never replaces a list, at start no more than at a
//! reload. Cores never wait for a reload, never free a list, and hold one for the duration of a
//! [batch](SharedAccessList::current) only, so that there are never more than two lists in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use aquatic_common::config::AccessListConfig;
use aquatic_common::list::{ListParser, ParseListError};
use aquatic_common::{AccessList, AccessListMode, InfoHash, InfoHashSet, SetChange, files};
use aquatic_metrics::{Counter, Gauge, Registry, names};
use aquatic_runtime::Periodic;
use arc_swap::{ArcSwap, Guard};

/// Number of bytes read from the file at once.
const READ_BYTES: usize = 64 * 1024;

/// Time between two checks whether cores still use the list that has been replaced.
const RELEASE_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Scheduling priority of the reload thread, as of `nice`: the lowest, so that a core which shares its
/// processor preempts it.
const RELOAD_NICENESS: i32 = 19;

/// The access list that all cores read. A reload replaces it as a whole.
#[derive(Debug)]
pub struct SharedAccessList {
    /// The settings for the next reload.
    config: Mutex<AccessListConfig>,
    /// What has been decided by hand since the start. Held while the list is replaced.
    by_hand: Mutex<BTreeMap<InfoHash, bool>>,
    /// Whether the current list lets everything in. Spares the cores a read of the list.
    is_off: AtomicBool,
    current: ArcSwap<AccessList>,
}

/// Maximum number of torrents that can be decided on by hand.
pub const MAX_DECISIONS: usize = 10_000;

/// So many torrents have been decided on by hand that there is no room for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyDecisions;

/// Why an access list file cannot be used.
#[derive(Debug)]
pub enum AccessListError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The file is not an access list, or an empty one.
    Invalid(PathBuf, ParseListError),
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
            Self::Invalid(path, error) => {
                let remedy = error.remedy(AccessListConfig::allow_empty);
                write!(f, "cannot use the access list {}: {error}. {remedy}", path.display())
            }
        }
    }
}

impl std::error::Error for AccessListError {}

/// Result of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Number of info hashes on the new list.
    pub len: usize,
    /// How it differs from the old one.
    pub change: SetChange,
}

impl SharedAccessList {
    /// Loads the list for the first time. With mode "off" the list is empty and no file is read.
    ///
    /// # Errors
    /// A file that cannot be read or is not an access list.
    pub fn load(config: &AccessListConfig) -> Result<Arc<Self>, AccessListError> {
        let current = read(config)?;
        Ok(Arc::new(Self {
            config: Mutex::new(config.clone()),
            by_hand: Mutex::default(),
            is_off: AtomicBool::new(current.allows_all()),
            current: ArcSwap::from_pointee(current),
        }))
    }

    /// Replaces the settings. They apply from the next [`reload`](Self::reload) that succeeds.
    pub fn configure(&self, config: &AccessListConfig) {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone_from(config);
    }

    fn config(&self) -> AccessListConfig {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the list by what the file holds now, and frees the old list once no core uses it any more.
    /// Blocks for as long as that takes, so it must not be called on a core.
    ///
    /// # Errors
    /// A file that cannot be read or is not an access list; the old list then stays.
    pub fn reload(&self) -> Result<Reloaded, AccessListError> {
        let new = read(&self.config())?;
        let reloaded = Reloaded { len: new.len(), change: new.change_since(&self.current.load()) };
        let by_hand = self.by_hand();
        self.replace(&new, &by_hand);
        Ok(reloaded)
    }

    /// Serves a torrent or not, whatever the list says of it, until the process ends; with `None`, follows
    /// the list again. Returns what was decided before. Blocks until no core uses the former decisions, so it
    /// must not be called on a core.
    ///
    /// # Errors
    /// There are [`MAX_DECISIONS`] already.
    pub fn decide(&self, info_hash: InfoHash, serve: Option<bool>) -> Result<Option<bool>, TooManyDecisions> {
        let mut by_hand = self.by_hand();
        let before = match serve {
            Some(_) if by_hand.len() >= MAX_DECISIONS && !by_hand.contains_key(&info_hash) => {
                return Err(TooManyDecisions);
            }
            Some(serve) => by_hand.insert(info_hash, serve),
            None => by_hand.remove(&info_hash),
        };
        let current = AccessList::clone(&self.current.load());
        self.replace(&current, &by_hand);
        Ok(before)
    }

    /// Replaces all that has been decided by hand. Of more than [`MAX_DECISIONS`] the first are followed.
    /// Blocks as [`decide`](Self::decide) does.
    pub fn replace_decisions(&self, decisions: impl IntoIterator<Item = (InfoHash, bool)>) {
        let mut by_hand = self.by_hand();
        *by_hand = decisions.into_iter().take(MAX_DECISIONS).collect();
        let current = AccessList::clone(&self.current.load());
        self.replace(&current, &by_hand);
    }

    /// What has been decided by hand about torrents, in the order of their info hashes.
    #[must_use]
    pub fn decisions(&self) -> Vec<(InfoHash, bool)> {
        self.by_hand().iter().map(|(&info_hash, &serve)| (info_hash, serve)).collect()
    }

    fn by_hand(&self) -> MutexGuard<'_, BTreeMap<InfoHash, bool>> {
        self.by_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the current list, and waits until no core uses the old one.
    fn replace(&self, list: &AccessList, by_hand: &BTreeMap<InfoHash, bool>) {
        let decisions = by_hand.iter().map(|(&info_hash, &serve)| (info_hash, serve)).collect();
        let new = list.with_decisions(decisions);
        let is_off = new.allows_all();
        let old = self.current.swap(Arc::new(new));
        self.is_off.store(is_off, Ordering::Relaxed);
        while Arc::strong_count(&old) > 1 {
            #[allow(clippy::disallowed_methods, reason = "never called on a core")]
            thread::sleep(RELEASE_POLL_INTERVAL);
        }
    }

    /// Whether the tracker serves this torrent.
    #[must_use]
    pub fn allows(&self, info_hash: &InfoHash) -> bool {
        self.is_off.load(Ordering::Relaxed) || self.current.load().allows(info_hash)
    }

    /// The current list, for one batch. Wait-free. To be dropped before the next `.await`: the memory of a
    /// list that has been replaced is freed once nobody holds it.
    #[must_use]
    pub fn current(&self) -> Guard<Arc<AccessList>> {
        self.current.load()
    }

    /// How the current list is applied.
    #[must_use]
    pub fn mode(&self) -> AccessListMode {
        self.current.load().mode()
    }

    /// Whether there is a list to reload: one is in use, or is to be.
    #[must_use]
    pub fn is_reloadable(&self) -> bool {
        [self.mode(), self.config().mode] != [AccessListMode::Off; 2]
    }

    /// Number of info hashes on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.current.load().len()
    }

    /// Whether no info hash is on the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn read(config: &AccessListConfig) -> Result<AccessList, AccessListError> {
    let AccessListConfig { mode, path, allow_empty } = config;
    if *mode == AccessListMode::Off {
        return Ok(AccessList::default());
    }
    let parser = parse_file(path).map_err(|error| AccessListError::Unreadable(path.clone(), error))?;
    let info_hashes =
        parser.finish(*allow_empty).map_err(|error| AccessListError::Invalid(path.clone(), error))?;
    Ok(AccessList::new(*mode, InfoHashSet::from_unsorted(info_hashes)))
}

fn parse_file(path: &Path) -> io::Result<ListParser<InfoHash>> {
    let mut parser = ListParser::new(files::about_regular(path)?.len());
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(parser),
            Ok(len) => parser.feed(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reloads the access list on request, on a thread of its own, and logs and counts the results.
#[derive(Debug)]
pub(crate) struct AccessListReloader {
    list: Arc<SharedAccessList>,
    requests: Receiver<()>,
    listed: Gauge,
    done: Counter,
    failed: Counter,
    bad_lines: Counter,
}

/// Requests reloads. A request during a reload causes one more; several are the same as one.
#[derive(Debug)]
pub(crate) struct ReloadRequests(SyncSender<()>);

impl AccessListReloader {
    pub(crate) fn new(list: Arc<SharedAccessList>, registry: &Registry) -> (Self, ReloadRequests) {
        let metrics = registry.main_thread();
        let (sender, requests) = sync_channel(1);
        let reloads = |outcome| metrics.counter(&names::ACCESS_RELOADS, &[("outcome", outcome)]);
        let listed = metrics.gauge(&names::ACCESS_LIST, &[]);
        listed.set(list.len() as u64);
        let bad_lines = metrics.counter(&names::ACCESS_BAD_LINES, &[]);
        let (done, failed) = (reloads("done"), reloads("failed"));
        (Self { list, requests, listed, done, failed, bad_lines }, ReloadRequests(sender))
    }

    /// Serves requests for as long as somebody may make them.
    pub(crate) fn run(self) {
        if let Err(error) = rustix::process::setpriority_process(None, RELOAD_NICENESS) {
            log::debug!("the priority of the reload thread cannot be lowered: {error}");
        }
        while self.requests.recv().is_ok() {
            self.reload();
        }
    }

    fn reload(&self) {
        if !self.list.is_reloadable() {
            log::info!("there is no access list to reload: access_list.mode is \"off\"");
            return;
        }
        match self.list.reload() {
            Ok(Reloaded { len, change: SetChange { added, removed } }) => {
                self.done.add(1);
                self.listed.set(len as u64);
                log::info!("access list reloaded: {len} info hashes, {added} added, {removed} removed");
            }
            Err(error) => {
                self.failed.add(1);
                if let AccessListError::Invalid(_, error) = &error {
                    self.bad_lines.add(error.bad_lines());
                }
                let len = self.list.len();
                log::error!(
                    "access list not reloaded, the previous one stays in use ({len} info hashes): {error}"
                );
            }
        }
    }
}

impl Periodic for ReloadRequests {
    fn tick(&mut self, _now: Duration) {}

    fn reload(&mut self) {
        // A full channel holds a request that has not been served yet, which will do for this one, too.
        let _ = self.0.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Barrier;

    use tempfile::TempDir;

    use super::*;

    const A: &str = "00000000000000000000000000000000000000aa";
    const B: &str = "00000000000000000000000000000000000000bb";

    /// A list file in a directory of its own.
    struct Fixture {
        config: AccessListConfig,
        _directory: TempDir,
    }

    impl Fixture {
        fn new(text: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("list.txt");
            fs::write(&path, text).unwrap();
            let config = AccessListConfig { mode: AccessListMode::Allow, path, allow_empty: false };
            Self { config, _directory: directory }
        }

        fn write(&self, text: &str) {
            fs::write(&self.config.path, text).unwrap();
        }
    }

    fn allows(list: &SharedAccessList) -> (bool, bool) {
        (list.allows(&A.parse().unwrap()), list.allows(&B.parse().unwrap()))
    }

    /// Texts that are no access list, and what the error names.
    const BAD: [(&str, &str); 6] = [
        ("", "allow_empty"),
        ("# comment\n", "allow_empty"),
        ("<!DOCTYPE html>\n<title>502 Bad Gateway</title>\n", "2 line(s) are not info hashes; line 1: "),
        ("00000000000000000000000000000000000000bb\nnonsense\n", "line 2: expected 40"),
        ("00000000000000000000000000000000000000bb\n0000000000000", "line 2: expected 40"),
        ("00000000000000000000000000000000000000bb00", "line 1: expected 40"),
    ];

    #[test]
    fn a_bad_file_is_an_error_at_start_and_never_replaces_a_list() {
        let good = Fixture::new(A);
        let list = SharedAccessList::load(&good.config).unwrap();
        for (text, named) in BAD {
            let path = good.config.path.to_str().unwrap();
            good.write(text);
            for error in
                [SharedAccessList::load(&good.config).unwrap_err(), list.reload().map(drop).unwrap_err()]
            {
                let shown = error.to_string();
                assert!(shown.contains(named) && shown.contains(path), "{text:?}: {shown}");
            }
            assert_eq!(allows(&list), (true, false), "{text:?}");
        }
        fs::remove_file(&good.config.path).unwrap();
        assert!(list.reload().unwrap_err().to_string().contains("cannot read"));
        fs::create_dir(&good.config.path).unwrap();
        assert!(list.reload().unwrap_err().to_string().contains("cannot read"));
        assert_eq!(allows(&list), (true, false));
    }

    #[test]
    fn an_empty_list_is_used_where_it_is_allowed() {
        let mut empty = Fixture::new("# nothing yet\n");
        empty.config.allow_empty = true;
        let list = SharedAccessList::load(&empty.config).unwrap();
        assert_eq!((list.is_empty(), allows(&list)), (true, (false, false)));
        empty.write(A);
        list.reload().unwrap();
        assert_eq!(allows(&list), (true, false));
        empty.write("");
        list.reload().unwrap();
        assert!(list.is_empty());
        empty.write("nonsense");
        list.reload().unwrap_err();
        fs::remove_file(&empty.config.path).unwrap();
        SharedAccessList::load(&empty.config).unwrap_err();
    }

    #[test]
    fn no_file_is_read_if_the_list_is_off() {
        let path = PathBuf::from("/nonexistent");
        let mut config = AccessListConfig { mode: AccessListMode::Deny, path, allow_empty: true };
        assert!(SharedAccessList::load(&config).unwrap_err().to_string().contains("/nonexistent"));
        config.mode = AccessListMode::Off;
        assert_eq!(allows(&SharedAccessList::load(&config).unwrap()), (true, true));
    }

    #[test]
    fn a_reload_reaches_readers_and_says_what_changed() {
        let file = Fixture::new(A);
        let list = SharedAccessList::load(&file.config).unwrap();
        file.write(&format!("{B}\r\n{A}"));
        let change = SetChange { added: 1, removed: 0 };
        assert_eq!(list.reload().unwrap(), Reloaded { len: 2, change });
        assert_eq!(allows(&list), (true, true));
        file.write(B);
        let change = SetChange { added: 0, removed: 1 };
        assert_eq!(list.reload().unwrap(), Reloaded { len: 1, change });
        assert_eq!(allows(&list), (false, true));
    }

    #[test]
    fn decisions_by_hand_outlast_a_reload() {
        let file = Fixture::new(A);
        let list = SharedAccessList::load(&file.config).unwrap();
        let b: InfoHash = B.parse().unwrap();
        assert_eq!(list.decide(b, Some(true)), Ok(None));
        assert_eq!(list.decide(A.parse().unwrap(), Some(false)), Ok(None));
        assert_eq!(allows(&list), (false, true));
        list.reload().unwrap();
        assert_eq!((allows(&list), list.len()), ((false, true), 1));
        assert_eq!(list.decide(b, None), Ok(Some(true)));
        assert_eq!(allows(&list), (false, false));
        assert_eq!(list.decisions(), [(A.parse().unwrap(), false)]);
        for number in 1..MAX_DECISIONS {
            let mut hash = [9; 20];
            hash[..8].copy_from_slice(&(number as u64).to_be_bytes());
            list.by_hand().insert(InfoHash(hash), false);
        }
        assert_eq!(list.decide(b, Some(true)), Err(TooManyDecisions));
        assert_eq!(list.decide(A.parse().unwrap(), Some(true)), Ok(Some(false)), "a known one can change");
    }

    #[test]
    fn a_decision_works_without_a_list() {
        let config = AccessListConfig { mode: AccessListMode::Off, ..AccessListConfig::default() };
        let list = SharedAccessList::load(&config).unwrap();
        list.decide(A.parse().unwrap(), Some(false)).unwrap();
        assert_eq!(allows(&list), (false, true));
        list.reload().unwrap();
        assert_eq!(allows(&list), (false, true));
        list.decide(A.parse().unwrap(), None).unwrap();
        assert!(list.is_off.load(Ordering::Relaxed) && allows(&list) == (true, true));
    }

    #[test]
    fn mode_and_path_change_with_a_reload() {
        let (file, other) = (Fixture::new(A), Fixture::new(B));
        let list = SharedAccessList::load(&file.config).unwrap();
        list.configure(&AccessListConfig { path: other.config.path.join("none"), ..file.config.clone() });
        list.reload().unwrap_err();
        assert_eq!(allows(&list), (true, false), "the list in use stays");
        list.configure(&AccessListConfig { mode: AccessListMode::Deny, ..other.config.clone() });
        assert_eq!(allows(&list), (true, false), "nothing changes before the reload");
        list.reload().unwrap();
        assert_eq!((list.mode(), allows(&list)), (AccessListMode::Deny, (true, false)));
        list.configure(&AccessListConfig { mode: AccessListMode::Off, ..other.config.clone() });
        assert_eq!(list.reload().unwrap().len, 0);
        assert_eq!(allows(&list), (true, true));
        list.configure(&file.config);
        list.reload().unwrap();
        assert_eq!(allows(&list), (true, false));
    }

    #[test]
    fn a_list_in_use_is_freed_by_the_reload_and_not_by_its_last_reader() {
        let file = Fixture::new(A);
        let list = SharedAccessList::load(&file.config).unwrap();
        let in_use = list.current();
        let freed = Arc::downgrade(&in_use);
        file.write(B);
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                list.reload().unwrap();
                assert!(freed.upgrade().is_none(), "the reload has freed it");
            });
            barrier.wait();
            while allows(&list) != (false, true) {
                thread::yield_now();
            }
            assert!(in_use.allows(&A.parse().unwrap()), "a batch goes on with the list it began with");
            assert!(freed.upgrade().is_some());
            drop(in_use);
        });
    }

    #[test]
    fn requests_during_a_reload_cause_one_more() {
        let file = Fixture::new(A);
        let list = SharedAccessList::load(&file.config).unwrap();
        let registry = Registry::default();
        let (reloader, mut requests) = AccessListReloader::new(list, &registry);
        for _ in 0..5 {
            requests.reload();
        }
        drop(requests);
        reloader.run();
        let samples = registry.samples();
        let value = |outcome| {
            let is_meant = |sample: &&aquatic_metrics::Sample| sample.label("outcome") == Some(outcome);
            samples.iter().find(is_meant).unwrap().value
        };
        assert_eq!((value("done"), value("failed")), (1, 0));
    }
}
