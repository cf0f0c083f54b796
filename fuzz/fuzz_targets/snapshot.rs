//! Any file that may be where a snapshot is expected.
#![no_main]

#[path = "../../aquatic_tracker/tests/properties/mod.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_bytes(bytes));
