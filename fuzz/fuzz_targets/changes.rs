//! Any records of changes that another node may send.
#![no_main]

#[path = "../../aquatic_tracker/tests/replication/properties.rs"]
#[allow(dead_code, reason = "the test uses the rest")]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_bytes(bytes));
