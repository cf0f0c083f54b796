//! Sorting of entries that do not fit in memory: runs of them are sorted and written to a scratch file, and
//! then merged. Ten million entries take 330 MB of the file and 11 MB of memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use aquatic_common::InfoHash;

use super::{Entry, ExportedTorrent, SwarmKind};

/// Entries that are sorted in memory: 9 MB.
pub const RUN: usize = 1 << 18;

/// Size of an entry in the scratch file.
const ENTRY: usize = 20 + 1 + 3 * 4;

/// Entries of a run that are in memory while runs are merged.
const WINDOW: usize = 2048;

impl Entry {
    fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        let counts = [self.complete, self.incomplete, self.downloaded];
        let kind = [self.kind as u8];
        let all =
            self.info_hash.0.into_iter().chain(kind).chain(counts.into_iter().flat_map(u32::to_le_bytes));
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        bytes
    }

    fn decode(bytes: &[u8; ENTRY]) -> Option<Self> {
        let (info_hash, rest) = bytes.split_first_chunk()?;
        let (kind, rest) = rest.split_first()?;
        let mut counts = rest.as_chunks().0.iter().map(|count| u32::from_le_bytes(*count));
        Some(Self {
            info_hash: InfoHash(*info_hash),
            kind: *SwarmKind::ALL.get(usize::from(*kind))?,
            complete: counts.next()?,
            incomplete: counts.next()?,
            downloaded: counts.next()?,
        })
    }
}

/// Entries on their way to be sorted. `F` opens the scratch file, once it is needed.
#[derive(Debug)]
pub struct Sorter<F> {
    open: F,
    run_length: usize,
    run: Vec<Entry>,
    scratch: Option<File>,
    /// Number of entries of each run in the scratch file, in the order of writing.
    runs: Vec<usize>,
}

impl<F: FnMut() -> io::Result<File>> Sorter<F> {
    /// A sorter of runs of this many entries, usually [`RUN`].
    pub fn new(run_length: usize, open: F) -> Self {
        Self { open, run_length: run_length.max(1), run: Vec::new(), scratch: None, runs: Vec::new() }
    }

    /// Adds entries.
    ///
    /// # Errors
    /// Those of the scratch file.
    pub fn add(&mut self, entries: &[Entry]) -> io::Result<()> {
        for entry in entries {
            self.run.push(*entry);
            if self.run.len() >= self.run_length {
                self.write_run()?;
            }
        }
        Ok(())
    }

    fn write_run(&mut self) -> io::Result<()> {
        self.run.sort_unstable();
        let file = match &mut self.scratch {
            Some(file) => file,
            none => none.insert((self.open)()?),
        };
        let mut at = self.runs.iter().sum::<usize>() * ENTRY;
        let mut bytes = Vec::with_capacity(WINDOW * ENTRY);
        for entries in self.run.chunks(WINDOW) {
            bytes.clear();
            bytes.extend(entries.iter().flat_map(Entry::encode));
            file.write_all_at(&bytes, at as u64)?;
            at += bytes.len();
        }
        self.runs.push(self.run.len());
        self.run.clear();
        Ok(())
    }

    /// Hands out all torrents in ascending order of their info hashes. Swarms of a torrent are added up;
    /// entries for the same swarm, of which there may be several, are not.
    ///
    /// # Errors
    /// Those of the scratch file and of `out`.
    pub fn finish(mut self, mut out: impl FnMut(&ExportedTorrent) -> io::Result<()>) -> io::Result<()> {
        self.run.sort_unstable();
        let mut begin = 0;
        let mut sources = Vec::with_capacity(self.runs.len() + 1);
        for entries in &self.runs {
            sources.push(Source {
                next: begin,
                end: begin + entries,
                window: Vec::new(),
                file: self.scratch.as_ref(),
            });
            begin += entries;
        }
        self.run.reverse();
        sources.push(Source { next: 0, end: 0, window: self.run, file: None });
        let mut heap = BinaryHeap::with_capacity(sources.len());
        for (number, source) in sources.iter_mut().enumerate() {
            heap.extend(source.take()?.map(|entry| Reverse((entry, number))));
        }
        let mut current: Option<(ExportedTorrent, SwarmKind)> = None;
        while let Some(Reverse((entry, number))) = heap.pop() {
            if let Some(source) = sources.get_mut(number) {
                heap.extend(source.take()?.map(|entry| Reverse((entry, number))));
            }
            match &mut current {
                Some((torrent, kind)) if torrent.info_hash == entry.info_hash => {
                    if *kind != entry.kind {
                        torrent.complete = torrent.complete.saturating_add(entry.complete);
                        torrent.incomplete = torrent.incomplete.saturating_add(entry.incomplete);
                        torrent.downloaded = torrent.downloaded.saturating_add(entry.downloaded);
                        *kind = entry.kind;
                    }
                }
                other => {
                    let Entry { info_hash, kind, complete, incomplete, downloaded } = entry;
                    let next = (ExportedTorrent { info_hash, complete, incomplete, downloaded }, kind);
                    if let Some((torrent, _)) = other.replace(next) {
                        out(&torrent)?;
                    }
                }
            }
        }
        current.map_or(Ok(()), |(torrent, _)| out(&torrent))
    }
}

/// A sorted run, read from the scratch file in windows.
struct Source<'a> {
    /// Entry of the file that has not been read yet.
    next: usize,
    end: usize,
    /// Entries in memory, the next one last.
    window: Vec<Entry>,
    file: Option<&'a File>,
}

impl Source<'_> {
    fn take(&mut self) -> io::Result<Option<Entry>> {
        if self.window.is_empty() {
            self.fill()?;
        }
        Ok(self.window.pop())
    }

    fn fill(&mut self) -> io::Result<()> {
        let count = WINDOW.min(self.end - self.next);
        let Some(file) = self.file.filter(|_| count > 0) else { return Ok(()) };
        let mut bytes = vec![0; count * ENTRY];
        file.read_exact_at(&mut bytes, (self.next * ENTRY) as u64)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the scratch file was changed");
        for entry in bytes.as_chunks().0.iter().rev() {
            self.window.push(Entry::decode(entry).ok_or_else(damaged)?);
        }
        self.next += count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn entry(number: u32, kind: SwarmKind, complete: u32) -> Entry {
        let mut info_hash = InfoHash([9; 20]);
        info_hash.0[..4].copy_from_slice(&number.to_be_bytes());
        Entry { info_hash, kind, complete, incomplete: 2 * complete, downloaded: number }
    }

    fn sorted(run_length: usize, batches: &[Vec<Entry>]) -> Vec<ExportedTorrent> {
        let mut sorter = Sorter::new(run_length, tempfile::tempfile);
        batches.iter().for_each(|batch| sorter.add(batch).unwrap());
        let mut torrents = Vec::new();
        sorter
            .finish(|torrent| {
                torrents.push(*torrent);
                Ok(())
            })
            .unwrap();
        torrents
    }

    #[test]
    fn torrents_are_sorted_and_their_swarms_added_up_whatever_the_length_of_runs() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut expected = BTreeMap::new();
        let mut batches = Vec::new();
        for _ in 0..50 {
            let mut batch = Vec::new();
            for _ in 0..200 {
                let number = rng.random_range(0..3000);
                let kind = SwarmKind::ALL[rng.random_range(0..3)];
                // The same each time, as it is in a table unless it changes meanwhile.
                let entry = entry(number, kind, number % 7 + 1);
                expected.insert((entry.info_hash.0, kind), entry);
                batch.push(entry);
            }
            batches.push(batch);
        }
        let mut torrents = BTreeMap::<[u8; 20], [u32; 3]>::new();
        for ((info_hash, _), entry) in &expected {
            let counts = torrents.entry(*info_hash).or_default();
            let more = [entry.complete, entry.incomplete, entry.downloaded];
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
        for run_length in [1, 7, 2048, 5000, RUN] {
            let found: Vec<_> = sorted(run_length, &batches)
                .into_iter()
                .map(|torrent| {
                    (torrent.info_hash.0, [torrent.complete, torrent.incomplete, torrent.downloaded])
                })
                .collect();
            assert_eq!(found, torrents.clone().into_iter().collect::<Vec<_>>(), "runs of {run_length}");
        }
    }

    #[test]
    fn the_scratch_file_is_opened_only_if_needed_and_its_errors_are_reported() {
        let no_file = || Err(io::Error::from(io::ErrorKind::StorageFull));
        let mut few = Sorter::new(10, no_file);
        few.add(&[entry(1, SwarmKind::Ipv4, 1); 9]).unwrap();
        let mut count = 0;
        few.finish(|_| {
            count += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(count, 1);
        let mut many = Sorter::new(10, no_file);
        let error = many.add(&[entry(1, SwarmKind::Ipv4, 1); 10]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn sums_do_not_overflow() {
        let most = Entry { complete: u32::MAX, ..entry(1, SwarmKind::Ipv4, 1) };
        let found = sorted(100, &[vec![most, Entry { kind: SwarmKind::WebTorrent, ..most }]]);
        assert_eq!(found[0].complete, u32::MAX);
    }
}
