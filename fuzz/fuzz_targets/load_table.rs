//! Sequences of requests that a load table is told of, compared with arithmetic.
#![no_main]

#[path = "../../aquatic_common/tests/properties/mod.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_bytes(bytes));
