//! A frame of Ethernet as the AF_XDP path receives it, and the reply.
#![no_main]

#[path = "../../aquatic_net/tests/xdp/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| properties::check_frame(input.1, usize::from(input.0) % 2048));
