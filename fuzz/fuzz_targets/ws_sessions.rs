//! Sessions of several WebTorrent clients, whatever they send and however slowly they receive.
#![no_main]

#[path = "../../aquatic_ws/tests/sessions/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| properties::check_bytes(script));
