//! Any message that can arrive at a WebTorrent tracker, or that anyone who pretends to be one can send to a
//! client.
#![no_main]

#[path = "../../aquatic_ws_protocol/tests/properties/mod.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_bytes(bytes));
