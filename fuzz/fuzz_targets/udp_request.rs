//! Any packet that a client, or anyone who pretends to be one, can send to a UDP tracker; and the same as a
//! reply.
#![no_main]

#[path = "../../aquatic_udp_protocol/tests/properties/mod.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| properties::check_packet(packet));
