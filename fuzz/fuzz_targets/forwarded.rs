//! Client addresses in request headers, after strangers and before the proxy had their say.
#![no_main]

#[path = "../../aquatic_net/tests/proxy/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|sent: &[u8]| properties::check_forwarded(sent));
