//! Files with a list: corpus of the fuzz target, and random texts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod properties;

use std::fs;
use std::path::Path;

use properties::check_bytes;

#[test]
fn corpus_of_the_fuzz_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/lists");
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "only {} files", files.len());
    files.iter().for_each(|file| check_bytes(&fs::read(file).unwrap()));
}

#[test]
fn random_texts() {
    // This crate has no source of randomness; this one suffices.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as usize
    };
    let hash = "0123456789abcdefABCDEF0123456789abcdef01";
    let pieces =
        [hash, hash, "\n", "\n", "\r\n", "\r", " ", ",", "#", "//", ";", "0", "/", "10.0.0.0/8", "::1"];
    for _ in 0..2000 {
        let mut bytes = vec![next() as u8];
        for _ in 0..next() % 12 {
            bytes.extend_from_slice(pieces[next() % pieces.len()].as_bytes());
        }
        check_bytes(&bytes);
    }
}
