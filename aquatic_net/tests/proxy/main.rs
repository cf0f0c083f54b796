//! What proxies and strangers say about clients: random bytes, and what the fuzz targets have found worth
//! keeping.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod properties;

use std::fs;
use std::path::Path;

use properties::{check_beginning, check_forwarded};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

fn replay(target: &str, least: usize, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= least, "only {} files in {}", files.len(), corpus.display());
    files.iter().for_each(|file| check(&fs::read(file).unwrap()));
}

#[test]
fn corpora_of_the_fuzz_targets() {
    replay("proxy_header", 15, check_beginning);
    replay("forwarded", 12, check_forwarded);
}

#[test]
fn random_bytes_behind_usual_beginnings() {
    let mut rng = SmallRng::seed_from_u64(3);
    let beginnings: [&[u8]; 6] =
        [b"", b"PROXY ", b"PROXY TCP4 1.2.3.4 ", b"\r\n\r\n\0\r\nQUIT\n", b"for=\"[", b"10.0.0.1, "];
    for nth in 0..20_000 {
        let mut bytes = vec![0; rng.random_range(0..80)];
        rng.fill_bytes(&mut bytes);
        if nth % 2 == 0 {
            // Mostly what such headers are made of.
            let usual = b"0123456789.:,;=\" []\\forTCP\r\n\t";
            bytes.iter_mut().for_each(|byte| *byte = usual[usize::from(*byte) % usual.len()]);
        }
        let bytes = [beginnings[nth % beginnings.len()], &bytes].concat();
        check_beginning(&bytes);
        check_forwarded(&bytes);
    }
}
