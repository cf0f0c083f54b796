//! Client addresses in header fields, some written by an untrusted client and some by the proxy.
#![no_main]

#[path = "../../aquatic_net/tests/proxy/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|sent: &[u8]| properties::check_forwarded(sent));
