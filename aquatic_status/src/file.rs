//! The file in the state directory that keeps history and totals for the next process.
//!
//! Little-endian: magic and version; the names of the series, so that a later program may have others;
//! totals; the points of each range; and the BLAKE3 hash of all that. A file is trusted as a whole or not at
//! all.

use std::fmt;

use crate::history::{Aggregate, COUNT, History, Point, Ring, SERIES, Totals};

/// First bytes of the file.
const MAGIC: [u8; 8] = *b"AQSTATUS";

/// Version of the format. Other series need no other version.
const VERSION: u32 = 1;

/// Largest file that is read, in bytes: eight times what this version writes.
pub(crate) const MAX_SIZE: u64 = 1 << 20;

/// Length of the checksum in bytes.
const CHECKSUM: usize = 32;

/// Why a file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileError {
    /// It is not one of these.
    Foreign,
    /// A later program has written it.
    Version(u32),
    /// It is damaged.
    Damaged,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("it is no file of the status page"),
            Self::Version(version) => {
                write!(f, "it has format {version}, and this program knows format {VERSION} only")
            }
            Self::Damaged => f.write_str("it is damaged"),
        }
    }
}

/// The content of the file.
pub(crate) fn encode(history: &History) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128 * 1024);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    let mut put = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
    put(COUNT as u64);
    for series in &SERIES {
        let mut name = [0; NAME];
        for (slot, byte) in name.iter_mut().zip(series.name.bytes()) {
            *slot = byte;
        }
        name.chunks_exact(8).for_each(|chunk| put(chunk.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))));
    }
    let Totals { since, covered, sums } = &history.totals;
    [*since, *covered].into_iter().chain(sums.iter().copied()).for_each(&mut put);
    put(history.rings.len() as u64);
    for ring in &history.rings {
        put(ring.range.step());
        put(ring.points.len() as u64);
        for point in &ring.points {
            [point.start, point.samples, point.covered].into_iter().for_each(&mut put);
            point.values.iter().for_each(|Aggregate { sum, max }| {
                put(*sum);
                put(*max);
            });
        }
    }
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

/// Length of a name in the file, filled up with zeros.
const NAME: usize = 32;

/// What a file holds.
///
/// # Errors
/// Why it is not used.
pub(crate) fn decode(bytes: &[u8]) -> Result<History, FileError> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(FileError::Foreign)?;
    let (version, _) = rest.split_first_chunk::<4>().ok_or(FileError::Damaged)?;
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(FileError::Version(version));
    }
    let (content, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(FileError::Damaged)?;
    if blake3::hash(content) != *checksum {
        return Err(FileError::Damaged);
    }
    let content = content.get(MAGIC.len() + 4..).ok_or(FileError::Damaged)?;
    Reader(content)
        .history()
        .filter(|(_, rest)| rest.is_empty())
        .map(|(history, _)| history)
        .ok_or(FileError::Damaged)
}

/// Reads from the front. `None` where the file ends early or says what cannot be.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn history(mut self) -> Option<(History, &'a [u8])> {
        let positions = self.series()?;
        let mut history = History::default();
        history.totals.since = self.number()?;
        history.totals.covered = self.number()?;
        for position in &positions {
            let sum = self.number()?;
            if let Some(slot) = position.and_then(|position| history.totals.sums.get_mut(position)) {
                *slot = sum;
            }
        }
        for _ in 0..self.number()?.min(1000) {
            let step = self.number()?;
            let count = self.number()?;
            let mut ring = history.rings.iter_mut().find(|ring| ring.range.step() == step);
            for _ in 0..count {
                let point = self.point(&positions)?;
                if let Some(ring) = &mut ring {
                    append(ring, point)?;
                }
            }
        }
        Some((history, self.0))
    }

    /// Where the series of the file belong; `None` for those that this program does not have.
    fn series(&mut self) -> Option<Vec<Option<usize>>> {
        let count = self.number()?.min(1000);
        (0..count)
            .map(|_| {
                let (name, rest) = self.0.split_at_checked(NAME)?;
                self.0 = rest;
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                Some(SERIES.iter().position(|series| series.name.as_bytes() == name))
            })
            .collect()
    }

    fn point(&mut self, positions: &[Option<usize>]) -> Option<Point> {
        let (start, samples, covered) = (self.number()?, self.number()?, self.number()?);
        let mut values = [Aggregate::default(); COUNT];
        for position in positions {
            let aggregate = Aggregate { sum: self.number()?, max: self.number()? };
            if let Some(slot) = position.and_then(|position| values.get_mut(position)) {
                *slot = aggregate;
            }
        }
        Some(Point { start, samples, covered, values })
    }
}

/// Appends a point that is the newest of its ring.
fn append(ring: &mut Ring, point: Point) -> Option<()> {
    let is_next = ring.points.back().is_none_or(|last| last.start < point.start);
    let fits =
        is_next && point.start.is_multiple_of(ring.range.step()) && ring.points.len() <= ring.range.points();
    fits.then(|| ring.points.push_back(point))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::{Kind, Range, Sampled};

    fn history(seconds: u64) -> History {
        let mut history = History::default();
        for second in 0..seconds {
            let values = std::array::from_fn(|series| series as u64 * 1000 + second);
            history.add(&Sampled { time: 1_800_000_000 + 37 * second, milliseconds: 999, values });
        }
        history
    }

    #[test]
    fn what_is_written_is_read() {
        for seconds in [0, 1, 5, 5000] {
            let history = history(seconds);
            let bytes = encode(&history);
            assert!((bytes.len() as u64) * 8 <= MAX_SIZE, "{}", bytes.len());
            assert_eq!(decode(&bytes), Ok(history));
        }
        assert!(SERIES.iter().all(|series| series.name.len() < NAME));
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let bytes = encode(&history(3));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length}");
        }
        for position in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[position] ^= 1;
            assert!(decode(&bytes).is_err(), "{position}");
        }
        assert_eq!(decode(b"something else"), Err(FileError::Foreign));
        let mut later = bytes;
        later[8] = 2;
        assert_eq!(decode(&later), Err(FileError::Version(2)));
    }

    #[test]
    fn series_are_found_by_their_names() {
        let mut bytes = encode(&history(2));
        let first = MAGIC.len() + 4 + 8;
        // What another program may have called its first series.
        bytes[first] = b'X';
        let content = bytes.len() - CHECKSUM;
        let checksum = blake3::hash(&bytes[..content]);
        bytes[content..].copy_from_slice(checksum.as_bytes());
        let (read, written) = (decode(&bytes).unwrap(), history(2));
        assert_eq!((read.totals.sums[0], read.totals.sums[1]), (0, written.totals.sums[1]));
        assert_eq!(read.rings[3].points[0].values[5], written.rings[3].points[0].values[5]);
    }

    proptest! {
        #[test]
        fn content_behind_a_valid_checksum_never_panics(mut content in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&VERSION.to_le_bytes());
            bytes.append(&mut content);
            bytes.extend_from_slice(blake3::hash(&bytes.clone()).as_bytes());
            let _ = decode(&bytes);
        }

        /// Whatever happens to the calendar between two processes, totals of all time never go down.
        #[test]
        fn totals_never_decrease_over_restarts(
            runs in proptest::collection::vec((any::<u32>(), proptest::collection::vec((0..100_u64, 0..9_u64), 0..20)), 1..8)
        ) {
            let mut history = History::default();
            for (begin, samples) in runs {
                let mut time = u64::from(begin);
                for (passed, count) in samples {
                    time += passed;
                    let before = history.totals;
                    history.add(&Sampled { time, milliseconds: 1000, values: [count; COUNT] });
                    for ((series, before), after) in SERIES.iter().zip(before.sums).zip(history.totals.sums) {
                        prop_assert_eq!(after, before + if series.kind == Kind::Count { count } else { 0 });
                    }
                    for range in Range::ALL {
                        prop_assert!(history.ring(range).points.len() <= range.points() + 1);
                    }
                }
                let kept = decode(&encode(&history)).unwrap();
                // A new process doubts the calendar anew.
                history.doubted = 0;
                prop_assert_eq!(&kept, &history);
                history = kept;
            }
        }
    }
}
