//! The file that keeps secret and epoch across processes.
//!
//! ```text
//! bytes 0..8     "aquatic\x01": what it is, and its version
//!       8..40    the secret
//!       40..48   time since the epoch at the moment of writing, in nanoseconds
//!       48..64   that moment: the boot of the machine (zeros if unknown),
//!       64..72   the monotonic clock in nanoseconds,
//!       72..80   the calendar in seconds since 1970
//!       80..112  BLAKE3 of all before
//! ```
//!
//! All numbers are little-endian. A file that cannot be used is replaced, with a warning: a new secret costs
//! clients a repeated request, a tracker that does not start costs them everything.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::clock::Moment;
use crate::secrets::Secrets;
use crate::state_directory::StateDirectory;
use crate::state_directory::names::KEYS;

/// Length of secret, time and moment as they are written, in bytes.
pub(crate) const RECORD_LENGTH: usize = 112;

const MAGIC: [u8; 8] = *b"aquatic\x01";
const LENGTH: usize = RECORD_LENGTH;
const CHECKSUM_AT: usize = 80;

/// Longest time since the epoch that is resumed. Times are counted in 32 bits of seconds, and a calendar that
/// is wrong by decades must not use them up.
const MAX_ELAPSED: Duration = Duration::from_secs(1 << 31);

/// Reason why a kept secret is not used.
#[derive(Debug)]
enum Unusable {
    /// The file cannot be read.
    Io(io::Error),
    /// It is not one of these, or of another version.
    Foreign,
    /// Its checksum is wrong, or its length.
    Corrupt,
    /// Others may have read or written it; holds owner and mode.
    Exposed(u32, u32),
    /// The calendar shows less than when it was written, and the machine has been restarted since, or much
    /// more, so that it is unknown which connection ids have been given out.
    Clock,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::Foreign => f.write_str("it is no such file, or one of another version"),
            Self::Corrupt => f.write_str("it is damaged"),
            Self::Exposed(owner, mode) => {
                write!(
                    f,
                    "others may know it: its owner is {owner}, its mode {:03o} instead of 600",
                    mode & 0o777
                )
            }
            Self::Clock => f.write_str("the clock of the machine has been set back, or years ahead"),
        }
    }
}

/// What the file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Record {
    secret: [u8; Secrets::LENGTH],
    elapsed: Duration,
    at: Moment,
}

impl Record {
    fn encode(&self) -> [u8; LENGTH] {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_le_bytes();
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..40].copy_from_slice(&self.secret);
        bytes[40..48].copy_from_slice(&nanos(self.elapsed));
        bytes[48..64].copy_from_slice(&self.at.boot.unwrap_or_default());
        bytes[64..72].copy_from_slice(&nanos(self.at.monotonic));
        bytes[72..80].copy_from_slice(&self.at.calendar.to_le_bytes());
        let checksum = *blake3::hash(&bytes[..CHECKSUM_AT]).as_bytes();
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, Unusable> {
        if !bytes.starts_with(&MAGIC) {
            return Err(Unusable::Foreign);
        }
        let bytes: &[u8; LENGTH] = bytes.try_into().map_err(|_| Unusable::Corrupt)?;
        if *blake3::hash(&bytes[..CHECKSUM_AT]).as_bytes() != bytes[CHECKSUM_AT..] {
            return Err(Unusable::Corrupt);
        }
        let [secret, boot] = [8..40, 48..64].map(|range| &bytes[range]);
        let number = |at: usize| <[u8; 8]>::try_from(&bytes[at..at + 8]).unwrap_or_default();
        let nanos = |at| Duration::from_nanos(u64::from_le_bytes(number(at)));
        let boot: [u8; 16] = boot.try_into().unwrap_or_default();
        Ok(Self {
            secret: secret.try_into().unwrap_or_default(),
            elapsed: nanos(40),
            at: Moment {
                boot: (boot != [0; 16]).then_some(boot),
                monotonic: nanos(64),
                calendar: i64::from_le_bytes(number(72)),
            },
        })
    }

    /// Time since the epoch at a later moment.
    fn elapsed_at(&self, now: &Moment) -> Result<Duration, Unusable> {
        let passed = self.at.until(now).ok_or(Unusable::Clock)?;
        let elapsed = self.elapsed.saturating_add(passed);
        if elapsed < MAX_ELAPSED { Ok(elapsed) } else { Err(Unusable::Clock) }
    }
}

fn read(directory: &StateDirectory) -> Result<Option<Record>, Unusable> {
    let Some(file) = directory.open_file(KEYS).map_err(Unusable::Io)? else { return Ok(None) };
    let data = file.metadata().map_err(Unusable::Io)?;
    if !directory.trusts(data.uid()) || data.mode() & 0o077 != 0 {
        return Err(Unusable::Exposed(data.uid(), data.mode()));
    }
    let mut bytes = Vec::with_capacity(LENGTH + 1);
    file.take(LENGTH as u64 + 1).read_to_end(&mut bytes).map_err(Unusable::Io)?;
    Record::decode(&bytes).map(Some)
}

/// Secret and time since the epoch: those that were kept, or new ones.
pub(crate) struct Kept {
    pub(crate) secrets: Secrets,
    pub(crate) elapsed: Duration,
    /// Whether they could be written, so that the next process will have them.
    pub(crate) written: bool,
}

/// Resumes secret and epoch of the previous process, or begins new ones, and keeps them for the next process.
///
/// # Errors
/// The operating system's generator cannot be read.
pub(crate) fn resume(directory: &StateDirectory, now: Moment) -> io::Result<Kept> {
    let path = directory.path().join(KEYS);
    if directory.is_writable_for_others() {
        log::warn!(
            "others than its owner may write to {}, and so choose the keys of the tracker. Change its mode: chmod 700",
            directory.path().display()
        );
    }
    let kept = read(directory).and_then(|record| {
        let resumed = |record: Record| Ok((record.secret, record.elapsed_at(&now)?));
        record.map(resumed).transpose()
    });
    let (secrets, elapsed) = match kept {
        Ok(Some((secret, elapsed))) => {
            log::info!("keys of the previous process are in use again: connection ids stay valid");
            (Secrets::from_bytes(secret), elapsed)
        }
        Ok(None) => (Secrets::generate()?, Duration::ZERO),
        Err(why) => {
            log::warn!(
                "{} is replaced, because {why}. Clients have to request new connection ids",
                path.display()
            );
            (Secrets::generate()?, Duration::ZERO)
        }
    };
    let record = Record { secret: secrets.to_bytes(), elapsed, at: now };
    let written = directory.replace(KEYS, |file| file.write_all(&record.encode()));
    if let Err(error) = &written {
        log::error!(
            "{} cannot be written: {error}. Free some space on the disk, or remove what stands in its place, or clients \
             may have to request new connection ids after the next restart",
            path.display()
        );
    }
    Ok(Kept { secrets, elapsed, written: written.is_ok() })
}

/// Secret and time since the epoch at a moment, for a successor, as the file has them.
pub(crate) fn record_of(secrets: &Secrets, elapsed: Duration, at: Moment) -> [u8; RECORD_LENGTH] {
    Record { secret: secrets.to_bytes(), elapsed, at }.encode()
}

/// Takes over secret and epoch of a predecessor, and keeps them for the next process.
///
/// # Errors
/// Why they cannot be used.
pub(crate) fn take_over(
    record: &[u8; RECORD_LENGTH],
    directory: Option<&StateDirectory>,
    now: Moment,
) -> Result<Kept, String> {
    let unusable = |why: Unusable| format!("the keys of the predecessor are not used: {why}");
    let record = Record::decode(record).map_err(unusable)?;
    let elapsed = record.elapsed_at(&now).map_err(unusable)?;
    let record = Record { elapsed, at: now, ..record };
    let written = directory.map(|directory| directory.replace(KEYS, |file| file.write_all(&record.encode())));
    let written = written.transpose();
    if let Err(error) = &written {
        log::error!("the keys of the tracker cannot be written to the state directory: {error}");
    }
    Ok(Kept { secrets: Secrets::from_bytes(record.secret), elapsed, written: written.is_ok() })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use aquatic_common::config::PrivilegesConfig;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn moment(monotonic: Duration) -> Moment {
        Moment { boot: Some([5; 16]), monotonic, calendar: 1_000_000 }
    }

    struct Fixture {
        temporary: tempfile::TempDir,
        directory: StateDirectory,
    }

    impl Fixture {
        fn new() -> Self {
            let temporary = tempfile::tempdir().unwrap();
            let directory = StateDirectory::open(temporary.path(), &PrivilegesConfig::default()).unwrap();
            Self { temporary, directory }
        }

        fn file(&self) -> PathBuf {
            self.temporary.path().join(KEYS)
        }

        /// The secret and the time after a start at this moment.
        fn start(&self, now: Moment) -> ([u8; 32], Duration) {
            let kept = resume(&self.directory, now).unwrap();
            (kept.secrets.to_bytes(), kept.elapsed)
        }
    }

    #[test]
    fn the_next_process_goes_on_where_the_last_one_was() {
        let fixture = Fixture::new();
        let (secret, elapsed) = fixture.start(moment(HOUR));
        assert_eq!(elapsed, Duration::ZERO);
        assert_eq!(fixture.start(moment(2 * HOUR)), (secret, HOUR));
        assert_eq!(fixture.start(moment(5 * HOUR)), (secret, 4 * HOUR));
        let restarted = Moment { boot: Some([6; 16]), monotonic: HOUR, calendar: 1_000_000 + 3600 };
        let second = Duration::from_secs(1);
        assert_eq!(fixture.start(restarted), (secret, 5 * HOUR + second));
        assert_eq!(fixture.start(Moment { monotonic: 2 * HOUR, ..restarted }), (secret, 6 * HOUR + second));
    }

    #[test]
    fn a_clock_that_was_set_wrong_begins_anew() {
        let fixture = Fixture::new();
        let (mut before, _) = fixture.start(moment(HOUR));
        for (calendar, boot) in [(999_999, 7), (1_000_000 + (1 << 31), 8), (i64::MIN, 9), (i64::MAX, 10)] {
            let now = Moment { boot: Some([boot; 16]), monotonic: HOUR, calendar };
            let (secret, elapsed) = fixture.start(now);
            assert!(secret != before && elapsed == Duration::ZERO, "{calendar}");
            before = secret;
        }
    }

    #[test]
    fn damaged_and_exposed_files_are_replaced() {
        let fixture = Fixture::new();
        let (secret, _) = fixture.start(moment(HOUR));
        let whole = fs::read(fixture.file()).unwrap();
        let is_used = |bytes: &[u8]| {
            fs::write(fixture.file(), bytes).unwrap();
            fixture.start(moment(HOUR)).0 == secret
        };
        assert!(is_used(&whole));
        assert!((0..whole.len()).all(|len| !is_used(&whole[..len])));
        assert!(!is_used(&[&whole[..], b"\n"].concat()));
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&bytes).is_err(), "bit {bit}");
        }
        assert!(is_used(&whole));
        fs::set_permissions(fixture.file(), fs::Permissions::from_mode(0o640)).unwrap();
        assert_ne!(fixture.start(moment(HOUR)).0, secret, "the group could read it");
        assert_eq!(fs::metadata(fixture.file()).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_does_not_keep_the_tracker_from_starting() {
        let fixture = Fixture::new();
        let (secret, _) = fixture.start(moment(HOUR));
        fs::create_dir_all(fixture.temporary.path().join("keys.new/full")).unwrap();
        let kept = resume(&fixture.directory, moment(2 * HOUR)).unwrap();
        assert_eq!((kept.secrets.to_bytes(), kept.elapsed, kept.written), (secret, HOUR, false));
    }
}
