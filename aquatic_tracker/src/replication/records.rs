//! Changes as bytes. Numbers are in network order.
//!
//! ```text
//! record   20  info hash
//!        4/16  address
//!           2  port
//!           1  flags: 1 seeder, 2 completion counted, 4 left, 8 completed with this announce,
//!              16 left at a node that knew it; readers ignore others
//!           1  age in seconds; 255 also stands for more
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aquatic_common::{Family, InfoHash};
use aquatic_swarm::{Change, ChangeKind, Completion};

use crate::snapshot::format::{Malformed, take};

const SEEDER: u8 = 1;
const COUNTED: u8 = 2;
const LEFT: u8 = 4;
const COMPLETED: u8 = 8;
const AFTER: u8 = 16;

/// Length of a record in bytes.
#[must_use]
pub const fn record_length(family: Family) -> usize {
    match family {
        Family::V4 => 28,
        Family::V6 => 40,
    }
}

/// Appends a record.
pub fn write_record(change: &Change, out: &mut Vec<u8>) {
    let flags = match change.kind {
        ChangeKind::Left => LEFT,
        ChangeKind::LeftAfter => LEFT | AFTER,
        ChangeKind::Present { seeder, completion } => {
            let completion = match completion {
                Completion::None => 0,
                Completion::Counted => COUNTED,
                Completion::Now => COUNTED | COMPLETED,
            };
            completion | if seeder { SEEDER } else { 0 }
        }
    };
    let [port_high, port_low] = change.address.port().to_be_bytes();
    out.extend_from_slice(&change.info_hash.0);
    match change.address.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&[port_high, port_low, flags, change.age]);
}

/// Has stops in records no longer say that they came after an announce to another node, because the news of
/// them is late: the peer may have announced again meanwhile. What is no whole record stays as it is.
pub fn forget_order(family: Family, records: &mut [u8]) {
    for record in records.chunks_exact_mut(record_length(family)) {
        if let [.., flags, _] = record
            && *flags & LEFT != 0
        {
            *flags &= !AFTER;
        }
    }
}

/// Reads the first record and removes it from there.
///
/// # Errors
/// The records end early.
pub fn take_record(family: Family, records: &mut &[u8]) -> Result<Change, Malformed> {
    let info_hash = InfoHash(take(records)?);
    let ip = match family {
        Family::V4 => Ipv4Addr::from(take::<4>(records)?).into(),
        Family::V6 => Ipv6Addr::from(take::<16>(records)?).into(),
    };
    let address = SocketAddr::new(ip, u16::from_be_bytes(take(records)?));
    let [flags, age] = take(records)?;
    let completion = match flags & (COUNTED | COMPLETED) {
        0 => Completion::None,
        COUNTED => Completion::Counted,
        _ => Completion::Now,
    };
    let present = ChangeKind::Present { seeder: flags & SEEDER != 0, completion };
    let kind = match flags & (LEFT | AFTER) {
        LEFT => ChangeKind::Left,
        flags if flags & LEFT != 0 => ChangeKind::LeftAfter,
        _ => present,
    };
    Ok(Change { info_hash, address, kind, age })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<ChangeKind> {
        let completions = [Completion::None, Completion::Counted, Completion::Now];
        let present = |seeder| completions.map(|completion| ChangeKind::Present { seeder, completion });
        [present(false), present(true)]
            .into_iter()
            .flatten()
            .chain([ChangeKind::Left, ChangeKind::LeftAfter])
            .collect()
    }

    #[test]
    fn records_round_trip_and_cut_ones_are_noticed() {
        for (family, address) in [(Family::V4, "192.0.2.1:6881"), (Family::V6, "[2001:db8::1]:1")] {
            for kind in kinds() {
                let address = address.parse().unwrap();
                let change = Change { info_hash: InfoHash([4; 20]), address, kind, age: 200 };
                let mut bytes = Vec::new();
                write_record(&change, &mut bytes);
                assert_eq!(bytes.len(), record_length(family));
                let mut rest = bytes.as_slice();
                assert_eq!((take_record(family, &mut rest), rest.len()), (Ok(change), 0));
                for len in 0..bytes.len() {
                    assert!(take_record(family, &mut &bytes[..len]).is_err());
                }
            }
        }
    }

    #[test]
    fn order_is_forgotten_of_stops_only() {
        let address: SocketAddr = "192.0.2.1:6881".parse().unwrap();
        let mut records = Vec::new();
        for kind in kinds() {
            write_record(&Change { info_hash: InfoHash([4; 20]), address, kind, age: AFTER }, &mut records);
        }
        forget_order(Family::V4, &mut records);
        let mut rest = records.as_slice();
        for kind in kinds() {
            let expected = if kind == ChangeKind::LeftAfter { ChangeKind::Left } else { kind };
            let change = take_record(Family::V4, &mut rest).unwrap();
            assert_eq!((change.kind, change.address, change.age), (expected, address, AFTER));
        }
        forget_order(Family::V6, &mut [0xff; 39]);
    }

    #[test]
    fn records_are_written_as_documented() {
        let kind = ChangeKind::Present { seeder: true, completion: Completion::Now };
        let address = "192.0.2.7:6881".parse().unwrap();
        let mut bytes = Vec::new();
        write_record(&Change { info_hash: InfoHash([9; 20]), address, kind, age: 3 }, &mut bytes);
        assert_eq!(
            (bytes[..20].to_vec(), &bytes[20..]),
            (vec![9; 20], &[192, 0, 2, 7, 0x1a, 0xe1, 11, 3][..])
        );
    }
}
