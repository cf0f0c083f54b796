//! Authentic messages with any content, between all else that can happen to a node of a cluster.
#![no_main]

#[path = "../../aquatic_cluster/tests/cluster/properties.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_operations(bytes));
