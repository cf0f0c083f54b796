//! Any bytes where a message between nodes is expected.
#![no_main]

#[path = "../../aquatic_cluster/tests/cluster/properties.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_message(bytes));
