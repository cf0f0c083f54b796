//! The side thread that asks the cores for their counts and writes the file.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::ConfigurationError;
use aquatic_common::config::{ExportsConfig, PrivilegesConfig, StatisticsConfig};
use aquatic_common::settings::Problem;
use aquatic_metrics::{CoreMetrics, Counter, Gauge, Registry, names};
use aquatic_runtime::clock::{Epoch, calendar_seconds};
use aquatic_runtime::{Engine, MailboxSender, Serving, StateDirectory, StateDirectoryError, mailboxes};

use super::core::{CoreExports, Order};
use super::format::Exporter;
use super::sorting::{RUN, Sorter};
use super::{Entry, SwarmKind};

/// Orders that a core has not received yet.
const MAX_ORDERS: usize = 2;

/// Batches of entries that wait to be taken, for each core: 300 KB.
const MAX_BATCHES_PER_CORE: usize = 4;

/// Longest wait for a core to do a step.
const CORE_DEADLINE: Duration = Duration::from_secs(20);

/// Scheduling priority of the thread, as of `nice`.
const NICENESS: i32 = 10;

/// Numbers of peers that torrents are counted by: powers of two, and more.
const SIZES: [&str; 16] = [
    "1",
    "2",
    "3-4",
    "5-8",
    "9-16",
    "17-32",
    "33-64",
    "65-128",
    "129-256",
    "257-512",
    "513-1024",
    "1025-2048",
    "2049-4096",
    "4097-8192",
    "8193-16384",
    "16385+",
];

/// Has the engine export the counts of all torrents as configured. Returns each core's part, in core order;
/// `None` if nothing is to be exported.
///
/// # Errors
/// The file cannot be written; too many open files.
pub fn prepare(
    engine: &mut Engine,
    (exports, statistics): (&ExportsConfig, &StatisticsConfig),
    privileges: &PrivilegesConfig,
) -> anyhow::Result<Option<Vec<CoreExports>>> {
    let registry = engine.registry().clone();
    let mut jobs = Vec::new();
    if let Some((directory, name)) = open(exports, privileges)? {
        let job = FileJob {
            directory,
            name,
            config: exports.clone(),
            metrics: FileMetrics::new(&registry),
            is_failing: false,
        };
        jobs.push(Job::new(exports.interval, Kind::File(job)));
    }
    if statistics.torrent_sizes_interval > 0 {
        let gauges = SizeGauges::new(&registry.main_thread());
        jobs.push(Job::new(statistics.torrent_sizes_interval, Kind::Sizes(Box::new(gauges))));
    }
    if jobs.is_empty() {
        return Ok(None);
    }
    let (cores, receivers) =
        mailboxes(engine.cores(), MAX_ORDERS).context("cannot make the mailboxes of exports")?;
    let exports = ExportThread { cores, epoch: engine.epoch(), serving: engine.serving() };
    engine.add_side_thread("aquatic-exports", move || exports.run(jobs));
    Ok(Some(receivers.into_iter().map(CoreExports).collect()))
}

/// Reports a directory that exports cannot be written to, and anything but a regular file in the place of the
/// exported one.
pub fn check(exports: &ExportsConfig, privileges: &PrivilegesConfig, problems: &mut Vec<Problem>) {
    if let Err(error) = open(exports, privileges) {
        problems.push(Problem::new(ExportsConfig::path, error.to_string()));
    }
}

/// Directory and name of the file, if one is to be written.
fn open(
    exports: &ExportsConfig,
    privileges: &PrivilegesConfig,
) -> Result<Option<(StateDirectory, String)>, ConfigurationError> {
    let Some((directory, name)) = exports.file() else { return Ok(None) };
    let directory = StateDirectory::open_shared(&directory, privileges).map_err(explain)?;
    directory.may_replace(&name).map_err(|error| {
        let text = format!(
            "{} = \"{}\" cannot be replaced by an export: {error}. Choose another path, or remove it",
            ExportsConfig::path,
            exports.path.display()
        );
        ConfigurationError::new(text)
    })?;
    Ok(Some((directory, name)))
}

fn explain(error: StateDirectoryError) -> ConfigurationError {
    let path = ExportsConfig::path;
    ConfigurationError::new(match error {
        StateDirectoryError::Unusable(directory, error) => format!(
            "the directory of {path}, {}, cannot be opened: {error}. Create it, or leave the key empty",
            directory.display()
        ),
        StateDirectoryError::NotWritable { path: directory, user, why } => format!(
            "the directory of {path}, {}, is not writable for {user}: {why}. Give it to the tracker, or add it to \
             ReadWritePaths= in a systemd unit",
            directory.display()
        ),
        // These are about directories of one tracker.
        error @ (StateDirectoryError::Unreadable { .. } | StateDirectoryError::InUse(_)) => error.to_string(),
    })
}

/// What is done at an interval.
struct Job {
    interval: Duration,
    due: Duration,
    kind: Kind,
}

enum Kind {
    File(FileJob),
    Sizes(Box<SizeGauges>),
}

impl Job {
    fn new(interval: u32, kind: Kind) -> Self {
        Self { interval: Duration::from_secs(interval.into()), due: Duration::ZERO, kind }
    }
}

/// The exported file.
struct FileJob {
    directory: StateDirectory,
    name: String,
    config: ExportsConfig,
    metrics: FileMetrics,
    /// The last one could not be written.
    is_failing: bool,
}

struct FileMetrics {
    written: Counter,
    failures: Counter,
    time: Gauge,
    duration: Gauge,
    size: Gauge,
    torrents: Gauge,
}

impl FileMetrics {
    fn new(registry: &Registry) -> Self {
        let metrics = registry.main_thread();
        Self {
            written: metrics.counter(&names::EXPORTS_WRITTEN, &[]),
            failures: metrics.counter(&names::EXPORT_FAILURES, &[]),
            time: metrics.gauge(&names::EXPORT_TIME, &[]),
            duration: metrics.gauge(&names::EXPORT_DURATION, &[]),
            size: metrics.gauge(&names::EXPORT_SIZE, &[]),
            torrents: metrics.gauge(&names::EXPORT_TORRENTS, &[]),
        }
    }
}

/// Numbers of torrents by their number of peers.
struct SizeGauges([[Gauge; SIZES.len()]; SwarmKind::ALL.len()]);

impl SizeGauges {
    fn new(metrics: &CoreMetrics) -> Self {
        Self(SwarmKind::ALL.map(|kind| {
            let (swarms, family) = match kind {
                SwarmKind::Ipv4 => (names::BITTORRENT, "ipv4"),
                SwarmKind::Ipv6 => (names::BITTORRENT, "ipv6"),
                SwarmKind::WebTorrent => (names::WEBTORRENT, names::BOTH_FAMILIES),
            };
            SIZES.map(|peers| {
                let labels = [("swarms", swarms), ("family", family), ("peers", peers)];
                metrics.gauge(&names::TORRENTS_BY_PEERS, &labels)
            })
        }))
    }

    fn show(&self, counted: &Sizes) {
        for (gauges, counts) in self.0.iter().zip(counted.0) {
            gauges.iter().zip(counts).for_each(|(gauge, count)| gauge.set(count));
        }
    }
}

/// Numbers of torrents by kind and size.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sizes([[u64; SIZES.len()]; SwarmKind::ALL.len()]);

impl Sizes {
    fn add(&mut self, entry: &Entry) {
        let peers = entry.complete.saturating_add(entry.incomplete);
        // Torrents whose peers are gone, but whose downloads are remembered, have none.
        let Some(below) = peers.checked_sub(1) else { return };
        let size = below.checked_ilog2().map_or(0, |doublings| doublings as usize + 1);
        let counts = self.0.get_mut(entry.kind as usize);
        if let Some(count) = counts.and_then(|counts| counts.get_mut(size.min(SIZES.len() - 1))) {
            *count += 1;
        }
    }
}

struct ExportThread {
    cores: Vec<MailboxSender<Order>>,
    epoch: Epoch,
    serving: Serving,
}

impl ExportThread {
    fn run(self, mut jobs: Vec<Job>) {
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            log::debug!("the priority of the export thread cannot be lowered: {error}");
        }
        // The predecessor exports until then.
        self.serving.until_begun();
        let begin = self.epoch.elapsed();
        jobs.iter_mut().for_each(|job| job.due = begin + job.interval);
        while let Some(job) = jobs.iter_mut().min_by_key(|job| job.due) {
            wait(job.due.saturating_sub(self.epoch.elapsed()));
            match &mut job.kind {
                Kind::File(_) if self.serving.is_elsewhere() => {}
                Kind::File(file) => self.export(file),
                Kind::Sizes(gauges) => self.count_sizes(gauges),
            }
            job.due = (job.due + job.interval).max(self.epoch.elapsed());
        }
    }

    fn export(&self, job: &mut FileJob) {
        let begin = self.epoch.elapsed();
        let written = self.write(job);
        let took = self.epoch.elapsed().saturating_sub(begin);
        let FileJob { directory, name, metrics, is_failing, .. } = job;
        let path = directory.path().join(&*name);
        match written {
            Ok((torrents, size)) => {
                metrics.written.add(1);
                metrics.time.set(u64::try_from(calendar_seconds()).unwrap_or_default());
                metrics.duration.set(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                metrics.size.set(size);
                metrics.torrents.set(torrents);
                let level = if *is_failing { log::Level::Info } else { log::Level::Debug };
                log::log!(level, "exported {torrents} torrents, {size} bytes in {took:.1?}");
                *is_failing = false;
            }
            Err(_) if self.serving.is_elsewhere() => log::debug!("an export is left to the successor"),
            Err(error) => {
                metrics.failures.add(1);
                if !*is_failing {
                    log::error!(
                        "{} cannot be written: {error}. The previous file, if any, stays. Free some space, check that \
                         the directory is writable for the tracker's user, or remove what stands in the place of \
                         the file; it will be tried again",
                        path.display()
                    );
                }
                *is_failing = true;
            }
        }
    }

    /// Writes the file. Returns the number of torrents and of bytes.
    fn write(&self, job: &FileJob) -> io::Result<(u64, u64)> {
        let FileJob { directory, name, config, .. } = job;
        let mut sorter = Sorter::new(RUN, || directory.scratch_file(name));
        self.pass(|entries| sorter.add(entries))?;
        directory.replace(name, |file| {
            let mut exporter = Exporter::begin(&mut *file, config.format, config.compression)?;
            sorter.finish(|torrent| exporter.torrent(torrent))?;
            let torrents = exporter.finish()?;
            if self.serving.is_elsewhere() {
                // It would be older than that of the successor.
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok((torrents, file.metadata()?.len()))
        })
    }

    fn count_sizes(&self, gauges: &SizeGauges) {
        let mut sizes = Sizes::default();
        let counted = self.pass(|entries| {
            entries.iter().for_each(|entry| sizes.add(entry));
            Ok(())
        });
        match counted {
            Ok(()) => gauges.show(&sizes),
            Err(error) => log::warn!("torrents cannot be counted by their peers: {error}"),
        }
    }

    /// Has all cores hand out their counts.
    fn pass(&self, mut take: impl FnMut(&[Entry]) -> io::Result<()>) -> io::Result<()> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let taken = self.take_all(&cancelled, &mut take);
        cancelled.store(true, Ordering::Relaxed);
        taken
    }

    fn take_all(
        &self,
        cancelled: &Arc<AtomicBool>,
        take: &mut impl FnMut(&[Entry]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (entries, receiver) = sync_channel(MAX_BATCHES_PER_CORE * self.cores.len());
        for (index, core) in self.cores.iter().enumerate() {
            let order = Order { entries: entries.clone(), cancelled: Arc::clone(cancelled) };
            let refused = |_| io::Error::other(format!("core {index} does not respond"));
            core.try_send(order).map_err(refused)?;
        }
        drop(entries);
        let mut running = self.cores.len();
        while running > 0 {
            match receiver.recv_timeout(CORE_DEADLINE) {
                Ok(Some(entries)) => take(&entries)?,
                Ok(None) => running -= 1,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("a core does not respond"));
                }
            }
        }
        Ok(())
    }
}

#[allow(clippy::disallowed_methods, reason = "this is a side thread")]
fn wait(time: Duration) {
    thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use aquatic_common::InfoHash;

    use super::*;

    #[test]
    fn torrents_are_counted_by_the_powers_of_two_that_their_labels_name() {
        for (number, label) in SIZES.iter().enumerate() {
            let (low, high) = match label.split_once('-') {
                Some((low, high)) => (low.parse().unwrap(), high.parse().unwrap()),
                None => match label.strip_suffix('+') {
                    Some(low) => (low.parse().unwrap(), u32::MAX),
                    None => (label.parse().unwrap(), label.parse().unwrap()),
                },
            };
            for peers in [low, high] {
                let mut sizes = Sizes::default();
                let kind = SwarmKind::Ipv6;
                let counts = Entry {
                    info_hash: InfoHash([0; 20]),
                    kind,
                    complete: 0,
                    incomplete: peers,
                    downloaded: 9,
                };
                sizes.add(&counts);
                assert_eq!(sizes.0[1][number], 1, "{peers} peers are not counted as {label}");
                sizes.add(&Entry { incomplete: 0, ..counts });
                assert_eq!(sizes.0.iter().flatten().sum::<u64>(), 1);
            }
        }
    }
}
