//! Decoding of WebSocket frames: corpus of the fuzz target, and random streams.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod properties;

use std::fs;
use std::path::Path;

use properties::check_bytes;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/ws_frames");
    fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn corpus_of_the_fuzz_target() {
    let corpus = corpus();
    assert!(corpus.len() >= 30, "only {} files", corpus.len());
    corpus.iter().for_each(|bytes| check_bytes(bytes));
}

#[test]
fn every_stream_cut_and_with_a_byte_changed() {
    let mut rng = SmallRng::seed_from_u64(1);
    for bytes in corpus() {
        for at in 0..bytes.len() {
            check_bytes(&bytes[..at]);
            let mut changed = bytes.clone();
            changed[at] = rng.random();
            check_bytes(&changed);
        }
    }
}

/// Mostly valid frames, of all kinds and with lengths around the limits.
#[test]
fn random_frames() {
    let mut rng = SmallRng::seed_from_u64(2);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = vec![rng.random()];
        for _ in 0..rng.random_range(1..6) {
            let opcode = [0, 1, 2, 8, 9, 10, rng.random_range(0..16)][rng.random_range(0..7)];
            let fin = u8::from(opcode >= 8 || rng.random()) << 7;
            bytes.push(fin | opcode | u8::from(rng.random_range(0..50) == 0) << 4);
            let length: u64 =
                [0, rng.random_range(0..10), rng.random_range(120..310)][rng.random_range(0..3)];
            let masked = u8::from(rng.random_range(0..50) > 0) << 7;
            match (length, rng.random_range(0..10)) {
                (..126, 1..) => bytes.push(masked | length as u8),
                (126.., 1..) => {
                    bytes.push(masked | 126);
                    bytes.extend((length as u16).to_be_bytes());
                }
                (_, _) => {
                    bytes.push(masked | 127);
                    bytes.extend(length.to_be_bytes());
                }
            }
            let mut rest = vec![0; 4 + length as usize];
            rng.fill_bytes(&mut rest);
            bytes.extend(rest);
        }
        let end = if rng.random() { bytes.len() } else { rng.random_range(0..=bytes.len()) };
        check_bytes(&bytes[..end]);
    }
}
