//! Whatever the other process of a hand-over may send.
#![no_main]

#[allow(dead_code, reason = "the rest is for sockets")]
#[path = "../../aquatic_runtime/src/handover/message.rs"]
mod message;
#[path = "../../aquatic_runtime/src/handover/properties.rs"]
mod properties;

/// What the messages use of the kept keys.
mod kept {
    pub(crate) const RECORD_LENGTH: usize = 112;
}

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_bytes(bytes));
