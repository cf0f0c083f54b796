//! Changes of the store as a stream carries them to a successor: announces that have been applied, and those
//! that other nodes have told of.
//!
//! ```text
//! record   20  info hash
//!        4/16  address, in network order
//!           2  port, little-endian
//!           1  flags: 1 seeder, 2 stopped, 4 completed, 8 paused; 16 heard by another node, with 32 if its
//!              completion has been counted, and 4 if with this announce; readers ignore others
//! ```
//!
//! What another node has heard counts as heard when it was applied, which is seconds later at most.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use aquatic_common::{AnnounceEvent, Family, InfoHash};
use aquatic_swarm::{Announce, Applied, Change, ChangeKind, Completion, Families, Stored};

use super::format::{Malformed, take};

const SEEDER: u8 = 1;
const STOPPED: u8 = 2;
const COMPLETED: u8 = 4;
const PAUSED: u8 = 8;
const REMOTE: u8 = 16;
const COUNTED: u8 = 32;

/// Maximum number of bytes of records of a core that have not been sent: of some 2.5 M announces. More means
/// that the successor cannot follow.
const MAX_UNSENT: usize = 64 << 20;

/// Announces that a core has applied since the last look.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// By family.
    records: [Vec<u8>; 2],
    overflowed: bool,
}

impl Recording {
    /// Notes what an announce has done.
    pub(crate) fn observe(&mut self, announce: &Announce, stored: Stored) {
        if !matches!(stored, Stored::Added | Stored::Updated | Stored::Removed | Stored::Absent) {
            return;
        }
        let event = match announce.event {
            AnnounceEvent::Stopped => STOPPED,
            AnnounceEvent::Completed => COMPLETED,
            AnnounceEvent::Paused => PAUSED,
            AnnounceEvent::None | AnnounceEvent::Started => 0,
        };
        let flags = event | if announce.seeder { SEEDER } else { 0 };
        self.note(&announce.info_hash, announce.address, flags);
    }

    /// Notes what a change that another node has told of has done.
    pub(crate) fn observe_change(&mut self, change: &Change, applied: Applied) {
        if !matches!(applied, Applied::Added | Applied::Updated | Applied::Removed | Applied::Absent) {
            return;
        }
        let flags = match change.kind {
            ChangeKind::Left | ChangeKind::LeftAfter => STOPPED,
            ChangeKind::Present { seeder, completion } => {
                let counted = match completion {
                    Completion::None => 0,
                    Completion::Counted => COUNTED,
                    Completion::Now => COUNTED | COMPLETED,
                };
                counted | if seeder { SEEDER } else { 0 }
            }
        };
        self.note(&change.info_hash, change.address, REMOTE | flags);
    }

    fn note(&mut self, info_hash: &InfoHash, address: SocketAddr, flags: u8) {
        let out = &mut self.records[Family::of(address.ip()).index()];
        if out.len() >= MAX_UNSENT {
            self.overflowed = true;
            return;
        }
        write_record(info_hash, address, flags, out);
    }

    /// Removes the records of a family, if there are any.
    pub(crate) fn take(&mut self, family: Family) -> Option<Vec<u8>> {
        let records = &mut self.records[family.index()];
        (!records.is_empty()).then(|| std::mem::take(records))
    }

    /// Whether some were left out.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.overflowed
    }
}

fn write_record(info_hash: &InfoHash, address: SocketAddr, flags: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&info_hash.0);
    match address {
        SocketAddr::V4(v4) => out.extend_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => out.extend_from_slice(&v6.ip().octets()),
    }
    out.extend_from_slice(&address.port().to_le_bytes());
    out.push(flags);
}

/// Length of a record in bytes.
pub(crate) fn record_length(family: Family) -> usize {
    match family {
        Family::V4 => 27,
        Family::V6 => 39,
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// An announce that wants no peers.
    Announce(Announce),
    /// What another node has told of.
    Change(Change),
}

/// Reads the first record of a content and removes it from there.
///
/// # Errors
/// The content ends early.
pub(crate) fn take_record(family: Family, content: &mut &[u8]) -> Result<Record, Malformed> {
    let info_hash = InfoHash(take(content)?);
    let ip = match family {
        Family::V4 => Ipv4Addr::from(take::<4>(content)?).into(),
        Family::V6 => Ipv6Addr::from(take::<16>(content)?).into(),
    };
    let address = SocketAddr::new(ip, u16::from_le_bytes(take(content)?));
    let [flags] = take(content)?;
    let seeder = flags & SEEDER != 0;
    if flags & REMOTE != 0 {
        let completion = match flags & (COUNTED | COMPLETED) {
            0 => Completion::None,
            COUNTED => Completion::Counted,
            _ => Completion::Now,
        };
        let present = ChangeKind::Present { seeder, completion };
        let kind = if flags & STOPPED != 0 { ChangeKind::Left } else { present };
        return Ok(Record::Change(Change { info_hash, address, kind, age: 0 }));
    }
    let event = match flags & (STOPPED | COMPLETED | PAUSED) {
        0 => AnnounceEvent::None,
        COMPLETED => AnnounceEvent::Completed,
        PAUSED => AnnounceEvent::Paused,
        _ => AnnounceEvent::Stopped,
    };
    let families = Families::Own;
    Ok(Record::Announce(Announce { info_hash, address, seeder, event, numwant: 0, families }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(address: &str, seeder: bool, event: AnnounceEvent) -> Announce {
        let address = address.parse().unwrap();
        Announce { info_hash: InfoHash([4; 20]), address, seeder, event, numwant: 0, families: Families::Own }
    }

    #[test]
    fn records_round_trip_and_cut_ones_are_noticed() {
        for (family, address) in [(Family::V4, "192.0.2.1:6881"), (Family::V6, "[2001:db8::1]:1")] {
            let events = [
                AnnounceEvent::None,
                AnnounceEvent::Stopped,
                AnnounceEvent::Completed,
                AnnounceEvent::Paused,
            ];
            for event in events {
                for seeder in [false, true] {
                    let mut recording = Recording::default();
                    let written = announce(address, seeder, event);
                    recording.observe(&written, Stored::Updated);
                    recording.observe(&written, Stored::RefusedPeers);
                    let bytes = recording.take(family).unwrap();
                    assert!(bytes.len() == record_length(family) && recording.take(family).is_none());
                    let mut content = bytes.as_slice();
                    let Ok(Record::Announce(read)) = take_record(family, &mut content) else { panic!() };
                    assert_eq!((read.info_hash, read.address), (written.info_hash, written.address));
                    assert_eq!((read.seeder, read.event), (seeder, event));
                    assert!(content.is_empty());
                    for len in 0..bytes.len() {
                        assert!(take_record(family, &mut &bytes[..len]).is_err());
                    }
                }
            }
        }
    }

    #[test]
    fn changes_of_other_nodes_round_trip() {
        let present = |(seeder, completion)| ChangeKind::Present { seeder, completion };
        let completions = [Completion::None, Completion::Counted, Completion::Now];
        let of_roles = [false, true].map(|seeder| completions.map(|completion| (seeder, completion)));
        let kinds: Vec<_> = of_roles.into_iter().flatten().map(present).chain([ChangeKind::Left]).collect();
        for (family, address) in [(Family::V4, "192.0.2.1:6881"), (Family::V6, "[2001:db8::1]:1")] {
            for &kind in &kinds {
                let address = address.parse().unwrap();
                let change = Change { info_hash: InfoHash([4; 20]), address, kind, age: 0 };
                let mut recording = Recording::default();
                recording.observe_change(&change, Applied::Older);
                recording.observe_change(&change, Applied::Refused);
                recording.observe_change(&change, Applied::Updated);
                let bytes = recording.take(family).unwrap();
                let mut content = bytes.as_slice();
                assert_eq!(take_record(family, &mut content), Ok(Record::Change(change)));
                assert!(content.is_empty());
            }
        }
    }

    #[test]
    fn what_is_not_sent_is_bounded() {
        let mut recording = Recording::default();
        let announce = announce("192.0.2.1:6881", true, AnnounceEvent::None);
        for _ in 0..=MAX_UNSENT / record_length(Family::V4) {
            recording.observe(&announce, Stored::Added);
            assert!(!recording.has_overflowed());
        }
        recording.observe(&announce, Stored::Added);
        assert!(recording.has_overflowed());
        assert!(recording.take(Family::V4).unwrap().len() < MAX_UNSENT + 27);
    }
}
