//! Sessions of several clients: corpus of the fuzz target, and random sequences.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod properties;

use std::fs;
use std::path::Path;

use properties::check_bytes;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

#[test]
fn corpus_of_the_fuzz_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/ws_sessions");
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "only {} files", files.len());
    files.iter().for_each(|file| check_bytes(&fs::read(file).unwrap()));
}

#[test]
fn random_sequences() {
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut bytes = vec![0; rng.random_range(1..600)];
        rng.fill_bytes(&mut bytes);
        check_bytes(&bytes);
    }
}
