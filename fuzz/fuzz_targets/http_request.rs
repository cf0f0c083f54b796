//! Any bytes that can arrive at an HTTP tracker, or anyone who pretends to be one can send to a client.
#![no_main]

#[path = "../../aquatic_http_protocol/tests/properties/mod.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_bytes(bytes));
