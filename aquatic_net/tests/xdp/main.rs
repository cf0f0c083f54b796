//! Frames as anybody may send them: random ones behind usual beginnings, and those that the fuzz target has
//! found worth keeping.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod properties;

use std::fs;
use std::path::Path;

use aquatic_net::xdp::frame;
use properties::check_frame;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

/// A frame with a datagram.
fn plain(rng: &mut SmallRng, payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for _ in 0..rng.random_range(0..3) {
        frame.extend([0x81, 0, 0, rng.random()]);
    }
    let udp = 8 + payload;
    if rng.random() {
        frame.extend([0x08, 0, 0x45, 0]);
        frame.extend(((20 + udp) as u16).to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, 17, 0, 0]);
        frame.extend(rng.random::<[u8; 8]>());
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((udp as u16).to_be_bytes());
        frame.extend([17, 64]);
        frame.extend(rng.random::<[u8; 32]>());
    }
    frame.extend(rng.random::<[u8; 4]>());
    frame.extend((udp as u16).to_be_bytes());
    frame.extend([0, 0]);
    let end = frame.len() + payload;
    frame.resize(end, 0);
    rng.fill_bytes(&mut frame[end - payload..]);
    frame
}

#[test]
fn corpus_of_the_fuzz_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/xdp_frame");
    let files: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 4, "only {} files in {}", files.len(), corpus.display());
    files.iter().for_each(|file| check_frame(&fs::read(file).unwrap(), 100));
}

#[test]
fn replies_to_plain_frames_are_plain() {
    let mut rng = SmallRng::seed_from_u64(13);
    for _ in 0..5000 {
        let (payload, reply) = (rng.random_range(0..1500), rng.random_range(0..1800));
        let frame = plain(&mut rng, payload);
        assert!(frame::parse(&frame).is_some(), "{frame:?}");
        check_frame(&frame, reply);
    }
}

#[test]
fn frames_may_be_anything() {
    let mut rng = SmallRng::seed_from_u64(14);
    let mut parsed = 0;
    for _ in 0..50_000 {
        let payload = rng.random_range(0..60);
        let mut frame = plain(&mut rng, payload);
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..frame.len());
            frame[at] = rng.random();
        }
        if rng.random_ratio(1, 4) {
            frame.truncate(rng.random_range(0..=frame.len()));
        }
        parsed += usize::from(frame::parse(&frame).is_some());
        check_frame(&frame, rng.random_range(0..200));
    }
    assert!((5000..45_000).contains(&parsed), "{parsed}");
}
