//! Whatever a client of the control socket may send, in pieces of any size.
#![no_main]

#[path = "../../aquatic/src/control/line.rs"]
mod line;
#[path = "../../aquatic/src/control/properties.rs"]
mod properties;
#[allow(dead_code, reason = "the rest is for the command line")]
#[path = "../../aquatic/src/control/request.rs"]
mod request;

/// What the requests use of the tracker's configuration.
mod config {
    pub(crate) use aquatic_common::config::LogLevel;
}

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_bytes(bytes));
