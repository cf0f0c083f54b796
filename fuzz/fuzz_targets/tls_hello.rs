//! The beginning of a TLS connection.
#![no_main]

#[path = "../../aquatic_net/src/tcp/hello.rs"]
mod hello;
#[path = "../../aquatic_net/src/tcp/hello_properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_first_bytes(bytes));
