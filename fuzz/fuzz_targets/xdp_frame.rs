//! A frame of Ethernet as the AF_XDP path receives it, and the reply.
#![no_main]

#[path = "../../aquatic_net/tests/xdp/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Replies of all lengths, some of which do not fit.
    properties::check_frame(bytes, bytes.len() * 7 % 2048);
});
