//! Whatever a client may send over a connection from its first byte to its end or its upgrade, in pieces of
//! any size, and however slowly it receives.
#![no_main]

#[path = "../../aquatic_web/tests/session/fakes.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod fakes;
#[path = "../../aquatic_web/tests/session/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_bytes(bytes));
