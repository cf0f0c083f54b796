//! Any file that may be where an access list or a list of networks is expected.
#![no_main]

#[path = "../../aquatic_common/tests/lists/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| properties::check_bytes(bytes));
