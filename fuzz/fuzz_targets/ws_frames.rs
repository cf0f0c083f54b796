//! Whatever a client may send once its connection is one of WebSocket, in pieces of any size.
#![no_main]

#[path = "../../aquatic_ws/tests/properties/mod.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_bytes(bytes));
