//! Texts of configurations: corpus of the fuzz target, and the default with any line changed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod properties;

use std::fs;
use std::path::Path;

use aquatic_cli_helpers::print;
use aquatic_common::settings::Whole;
use properties::{Config, check_text};

#[test]
fn corpus_of_the_fuzz_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/config");
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "only {} files", files.len());
    for file in files {
        check_text(&String::from_utf8_lossy(&fs::read(file).unwrap()));
    }
}

const VALUES: [&str; 9] = ["0", "-1", "9999999999999999999", "\"x\"", "true", "[]", "{}", "1e400", "\u{7}"];

#[test]
fn the_default_with_any_value_replaced() {
    let default = print::default_config::<Config>(&Whole).unwrap();
    check_text(&default);
    let lines: Vec<&str> = default.lines().filter(|line| !line.starts_with('#')).collect();
    for at in 0..lines.len() {
        let Some((key, _)) = lines[at].split_once('=') else { continue };
        // Two of them each, since a debug build takes a while.
        for value in VALUES.iter().cycle().skip(at).take(2) {
            let line = format!("{key}= {value}");
            let mut changed = lines.clone();
            changed[at] = &line;
            check_text(&changed.join("\n"));
        }
    }
}
