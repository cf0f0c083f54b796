//! Streams against a set of all sequence numbers received; rendezvous of parts.

use std::collections::BTreeSet;

use aquatic_cluster::parts::{Bitmap, Holders, PARTS};
use aquatic_cluster::streams::{Arrival, PATIENCE, Stream, WINDOW};
use proptest::collection::vec;
use proptest::prelude::{any, proptest};

#[test]
fn what_is_missing_is_waited_for_and_then_given_up() {
    let mut stream = Stream::starting_at(5);
    assert_eq!(stream.arrive(4, 0), Arrival::Duplicate, "from before the beginning");
    assert_eq!(stream.arrive(5, 0), Arrival::New { lost: 0 });
    assert_eq!(stream.arrive(8, 10), Arrival::New { lost: 0 });
    assert!(!stream.is_in_order());
    assert_eq!(stream.arrive(6, 20), Arrival::Late);
    assert_eq!(stream.arrive(6, 20), Arrival::Duplicate);
    assert_eq!(stream.give_up(10 + PATIENCE - 1), 0);
    assert_eq!(stream.give_up(10 + PATIENCE), 1, "7 is missing since 10");
    assert!(stream.is_in_order());
    assert_eq!(stream.arrive(7, 2000), Arrival::Duplicate);
    assert_eq!(stream.announce(9, 2000), 0);
    assert!(stream.is_in_order());
    assert_eq!(stream.announce(11, 2000), 0);
    assert_eq!(stream.give_up(2000 + PATIENCE), 2, "a hello shows that the last ones are missing");
}

#[test]
fn leaps_beyond_the_window_are_lost_at_once() {
    let mut stream = Stream::starting_at(0);
    assert_eq!(stream.arrive(u64::from(WINDOW), 0), Arrival::New { lost: 1 });
    assert_eq!(stream.arrive(1_000, 0), Arrival::New { lost: 63 + 872 });
    assert_eq!(stream.arrive(u64::MAX, 0), Arrival::Duplicate, "it has no successor");
    let lost = stream.announce(u64::MAX, 0);
    assert_eq!(lost, 63 + (u64::MAX - 1_001 - 64), "arithmetic does not overflow");
}

proptest! {
    /// Every number is new or late once; all that never came is lost once, unless it may still come.
    #[test]
    fn streams_account_for_every_message(steps in vec((any::<u8>(), 0..100_u64, 0..700_u64), 1..200)) {
        let mut stream = Stream::starting_at(0);
        let (mut received, mut next, mut lost, mut now) = (BTreeSet::new(), 0_u64, 0, 0);
        for (what, by, passed) in steps {
            now += passed;
            match what % 8 {
                0 => {
                    lost += stream.announce(next + by, now);
                    next += by;
                }
                1 => lost += stream.give_up(now),
                _ => {
                    let sequence = if what % 2 == 0 { next + by % 3 } else { next.saturating_sub(by) };
                    match stream.arrive(sequence, now) {
                        Arrival::New { lost: gone } => {
                            assert!(sequence >= next && received.insert(sequence));
                            lost += gone;
                        }
                        Arrival::Late => assert!(sequence < next && received.insert(sequence)),
                        Arrival::Duplicate => assert!(sequence < next),
                    }
                    next = next.max(sequence + 1);
                }
            }
            assert_eq!(stream.next(), next);
            let unseen = next - received.len() as u64;
            assert!(lost <= unseen && unseen - lost <= u64::from(WINDOW));
            assert_eq!(unseen == lost, stream.is_in_order());
        }
        lost += stream.give_up(now + PATIENCE);
        assert_eq!(lost, next - received.len() as u64);
    }
}

#[test]
fn parts_are_held_by_as_many_members_as_wanted_and_move_only_with_them() {
    let names: Vec<String> = (0..10).map(|index| format!("node-{index}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let holders = Holders::choose(&[1; 32], 2, &all);
    let without_last = Holders::choose(&[1; 32], 2, &all[..9]);
    let mut moved = 0;
    for part in 0..=u8::MAX {
        let (before, after) = (holders.of(part), without_last.of(part));
        assert_eq!((before.len(), after.len()), (2, 2));
        assert_ne!(before[0], before[1]);
        if before.contains(&9) {
            moved += 1;
            assert!(before.iter().all(|holder| *holder == 9 || after.contains(holder)));
        } else {
            assert_eq!(before, after, "part {part} is not concerned");
        }
    }
    // 51 of 256 on average.
    assert!((30..80).contains(&moved), "{moved} parts moved");
    let shares: Vec<u32> = (0..10).map(|member| holders.held_by(member).len()).collect();
    assert_eq!(shares.iter().sum::<u32>() as usize, 2 * PARTS);
    assert!(shares.iter().all(|share| (25..90).contains(share)), "{shares:?}");
    let reversed: Vec<&str> = all.iter().rev().copied().collect();
    let other = Holders::choose(&[1; 32], 2, &reversed);
    assert!((0..=u8::MAX).all(|part| other.of(part)[0] == 9 - holders.of(part)[0]), "order is irrelevant");
    assert_eq!(Holders::choose(&[1; 32], 2, &["alone"]).of(7), [0]);
    assert_eq!(Holders::choose(&[1; 32], 2, &[]).of(7), [] as [u16; 0]);
}

#[test]
fn bitmaps_are_sets() {
    let mut all = Bitmap::default();
    (0..=u8::MAX).for_each(|part| all.insert(part));
    assert_eq!((all.len(), all.without(&all).is_empty()), (256, true));
    let mut one = Bitmap::default();
    one.insert(9);
    assert_eq!(one.0[1], 2);
    let rest = all.without(&one);
    assert!(!rest.contains(9) && rest.contains(8) && rest.len() == 255);
}
