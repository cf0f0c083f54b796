//! What holds for any bytes that are taken for records of changes. For the tests and the fuzz target
//! `changes`.

use aquatic_common::{Family, Seconds};
use aquatic_swarm::{HashKey, Shard, ShardLimits};
use aquatic_tracker::replication::{Applied, ChangeKind, record_length, take_record, write_record};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Reads records and applies them. The first byte says of which family they are, and how old the batch is.
pub(crate) fn check_bytes(bytes: &[u8]) {
    let Some((how, mut records)) = bytes.split_first() else { return };
    let family = if how & 1 == 0 { Family::V4 } else { Family::V6 };
    let delay = [0, 1, 60, 90_000][usize::from(how >> 1 & 3)];
    let limits = ShardLimits { max_peers: 100, max_torrents: 30, ..ShardLimits::default() };
    let (mut shard, mut rng) = (Shard::new(limits, HashKey([1; 16])), Xoshiro256PlusPlus::seed_from_u64(1));
    let mut now = Seconds(1 << 20);
    loop {
        let before = records;
        let Ok(change) = take_record(family, &mut records) else {
            assert!(before.len() < record_length(family));
            break;
        };
        assert_eq!(before.len() - records.len(), record_length(family));
        // The store refuses IPv4-mapped addresses.
        assert_eq!(change.address.is_ipv6(), family == Family::V6);
        let mut written = Vec::new();
        write_record(&change, &mut written);
        assert_eq!(take_record(family, &mut written.as_slice()), Ok(change));
        let peers = |shard: &Shard| {
            let stats = *shard.stats().family(family);
            stats.seeders + stats.leechers
        };
        let count = peers(&shard);
        shard.prefetch_changes(family, &[change]);
        let age = u32::from(change.age) + delay;
        let (applied, _) = shard.apply_change(&change, age, now, &mut rng);
        let expected = match applied {
            Applied::Added => count + 1,
            Applied::Removed => count - 1,
            Applied::Updated | Applied::Older | Applied::Absent | Applied::Reasserted | Applied::Refused => {
                count
            }
            Applied::NotHeld => panic!("all parts are held"),
        };
        assert_eq!(peers(&shard), expected, "{applied:?}");
        // What is applied twice is known then.
        let again = shard.apply_change(&change, age, now, &mut rng).0;
        let present = matches!(change.kind, ChangeKind::Present { .. });
        let is_known = match again {
            Applied::Older => present || applied == Applied::Older,
            Applied::Absent => !present,
            Applied::Refused => applied == Applied::Refused,
            Applied::Added | Applied::Updated | Applied::Removed | Applied::Reasserted | Applied::NotHeld => {
                false
            }
        };
        assert!(is_known, "{applied:?}, then {again:?}");
        now = now + u32::from(*how >> 3);
    }
    shard.check_invariants().unwrap();
}

/// Returns bytes of which many are records of the same few peers.
pub(crate) fn random_bytes(seed: u64) -> Vec<u8> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let how: u8 = rng.random();
    let length = if how & 1 == 0 { 28 } else { 40 };
    let mut bytes = vec![how];
    for _ in 0..rng.random_range(0..200) {
        let mut record = vec![9; length];
        record[0] = rng.random_range(0..4);
        record[length - 5] = rng.random_range(0..8);
        record[length - 2] = rng.random();
        record[length - 1] = rng.random_range(0..40);
        bytes.extend_from_slice(&record);
    }
    bytes.truncate(bytes.len() - rng.random_range(0..bytes.len().min(30)));
    bytes
}
