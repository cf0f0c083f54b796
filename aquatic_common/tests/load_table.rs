//! Load tables: corpus of the fuzz target, and random sequences.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod properties;

use std::fs;
use std::path::Path;

use properties::check_bytes;

#[test]
fn corpus_of_the_fuzz_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/load_table");
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "only {} files", files.len());
    files.iter().for_each(|file| check_bytes(&fs::read(file).unwrap()));
}

#[test]
fn random_sequences() {
    // This crate has no source of randomness; this one suffices.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    for _ in 0..300 {
        let bytes: Vec<u8> = (0..2000).map(|_| next()).collect();
        check_bytes(&bytes);
    }
}
