//! The beginning of a connection, for a tracker that expects the PROXY protocol.
#![no_main]

#[path = "../../aquatic_net/tests/proxy/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_beginning(bytes));
