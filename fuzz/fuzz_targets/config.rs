//! Any text that may be where a configuration is expected.
#![no_main]

#[path = "../../aquatic_cli_helpers/tests/config/properties.rs"]
mod properties;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| properties::check_text(text));
