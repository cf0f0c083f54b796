//! Sequences of operations on the swarm store, compared with a naive model.
#![no_main]

#[path = "../../aquatic_swarm/tests/model/harness.rs"]
mod harness;
#[path = "../../aquatic_swarm/tests/model/operations.rs"]
mod operations;
#[path = "../../aquatic_swarm/tests/model/reference.rs"]
mod reference;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    operations::check(bytes);
});
