//! The beginning of a connection: no bytes panic, a header that comes in pieces means what it means at once, and a
//! decision does not wait for more than the longest header.
#![no_main]

use aquatic_runtime::proxy::{Header, LONGEST_V2, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let first = (0..=bytes.len()).map(|len| parse(&bytes[..len])).find(|header| *header != Header::NeedMore);
    assert_eq!(first.unwrap_or(Header::NeedMore), whole);
    match whole {
        Header::Complete { len, .. } => assert!(len <= bytes.len() && len <= LONGEST_V2),
        Header::NeedMore => assert!(bytes.len() < LONGEST_V2),
        Header::Absent | Header::Malformed => {}
    }
});
