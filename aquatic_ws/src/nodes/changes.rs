//! Records of changes: what a node tells the others about its WebTorrent peers.
//!
//! | bytes | field |
//! |---|---|
//! | 20 | info hash |
//! | 20 | peer id |
//! | 1 | flags: 1 seeder, 2 counted as a download, 4 left, 8 IPv6 |
//! | 2 | seconds since the peer announced, big-endian; 65,535 for more |
//! | 1 | core of the connection |
//! | 4 | slot of the connection, big-endian |
//! | 4 | generation of the connection, big-endian |
//! | 4 | hash of the client's network, big-endian; 0 if it is unknown |

use aquatic_common::{Family, InfoHash, PeerId, Steering};

use crate::swarm::{Change, ChangeKind, Network, NodeConnection};

/// Length of a record in bytes.
pub const RECORD_LENGTH: usize = 20 + 20 + 1 + 2 + 1 + 4 + 4 + 4;

const SEEDER: u8 = 1;
const COMPLETED: u8 = 2;
const LEFT: u8 = 4;
const V6: u8 = 8;

/// Fault of a record: unknown flags, or flags that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRecord;

/// Appends the record of a change.
pub fn write_record(change: &Change, out: &mut Vec<u8>) {
    let Change { info_hash, peer_id, connection, network, family, kind, age } = change;
    let NodeConnection { core, slot, generation } = connection;
    let kind = match *kind {
        ChangeKind::Present { seeder, completed } => {
            (u8::from(seeder) * SEEDER) | (u8::from(completed) * COMPLETED)
        }
        ChangeKind::Left => LEFT,
    };
    let family = u8::from(*family == Family::V6) * V6;
    out.extend_from_slice(&info_hash.0);
    out.extend_from_slice(&peer_id.0);
    out.push(kind | family);
    out.extend_from_slice(&age.to_be_bytes());
    out.push(*core);
    out.extend_from_slice(&slot.to_be_bytes());
    out.extend_from_slice(&generation.to_be_bytes());
    out.extend_from_slice(&network.to_bits().to_be_bytes());
}

/// Returns the change of a record.
///
/// # Errors
/// The flags make no sense.
pub fn read_record(record: &[u8; RECORD_LENGTH]) -> Result<Change, BadRecord> {
    let mut rest = record.as_slice();
    let (info_hash, peer_id) = (InfoHash(take(&mut rest)), PeerId(take(&mut rest)));
    let [flags] = take(&mut rest);
    let age = u16::from_be_bytes(take(&mut rest));
    let [core] = take(&mut rest);
    let (slot, generation) = (u32::from_be_bytes(take(&mut rest)), u32::from_be_bytes(take(&mut rest)));
    let network = Network::from_bits(u32::from_be_bytes(take(&mut rest)));
    let kind = match flags & !V6 {
        LEFT => ChangeKind::Left,
        present if present & !(SEEDER | COMPLETED) == 0 => {
            ChangeKind::Present { seeder: present & SEEDER != 0, completed: present & COMPLETED != 0 }
        }
        _ => return Err(BadRecord),
    };
    let family = if flags & V6 == 0 { Family::V4 } else { Family::V6 };
    let connection = NodeConnection { core, slot, generation };
    Ok(Change { info_hash, peer_id, connection, network, family, kind, age })
}

/// Hands each of several records to the core that owns its torrent. Bytes behind the last complete record are
/// ignored.
pub fn split(records: &[u8], steering: &Steering, mut to: impl FnMut(usize, &[u8; RECORD_LENGTH])) {
    let (records, _) = records.as_chunks();
    for record in records {
        let mut rest = record.as_slice();
        to(steering.owner(&InfoHash(take(&mut rest))), record);
    }
}

/// Takes the next bytes of a record, which is as long as its fields together.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk() {
        Some((taken, others)) => {
            *rest = others;
            *taken
        }
        None => [0; N],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: ChangeKind, family: Family) -> Change {
        Change {
            info_hash: InfoHash([1; 20]),
            peer_id: PeerId([2; 20]),
            connection: NodeConnection { core: 3, slot: 0x0405_0607, generation: 0x0809_0a0b },
            network: Network::from_bits(0x0e0f_1011),
            family,
            kind,
            age: 0x0c0d,
        }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        for family in Family::ALL {
            let present = [(false, false), (false, true), (true, false), (true, true)]
                .map(|(seeder, completed)| ChangeKind::Present { seeder, completed });
            for kind in present.into_iter().chain([ChangeKind::Left]) {
                let (change, mut bytes) = (change(kind, family), Vec::new());
                write_record(&change, &mut bytes);
                assert_eq!(read_record(bytes.as_slice().try_into().unwrap()), Ok(change));
            }
        }
    }

    #[test]
    fn the_layout_is_that_of_the_table() {
        let mut bytes = Vec::new();
        write_record(&change(ChangeKind::Present { seeder: true, completed: false }, Family::V6), &mut bytes);
        let mut expected = [[1; 20], [2; 20]].concat();
        expected.extend([SEEDER | V6, 12, 13, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16, 17]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn records_reach_the_owners_of_their_torrents() {
        let steering = Steering::new(3, [7; 8]);
        let mut bytes = Vec::new();
        for torrent in 0..20 {
            let change = change(ChangeKind::Left, Family::V4);
            write_record(&Change { info_hash: InfoHash([torrent; 20]), ..change }, &mut bytes);
        }
        bytes.extend([0; RECORD_LENGTH - 1]);
        let mut torrents = Vec::new();
        split(&bytes, &steering, |core, record| {
            let Change { info_hash, .. } = read_record(record).unwrap();
            assert_eq!(core, steering.owner(&info_hash));
            torrents.push(info_hash.0[0]);
        });
        assert_eq!(torrents, (0..20).collect::<Vec<u8>>());
    }

    #[test]
    fn flags_without_a_meaning_are_refused() {
        let mut record = [0; RECORD_LENGTH];
        let readable = (0..=255).filter(|&flags| {
            record[40] = flags;
            read_record(&record).is_ok()
        });
        assert_eq!(readable.collect::<Vec<u8>>(), [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]);
    }
}
