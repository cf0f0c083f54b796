//! What holds for any bytes, whoever has made them: the fuzz targets and the test beside this file check the
//! same.

#![allow(dead_code, reason = "each fuzz target uses one of them")]

use std::net::IpAddr;
use std::sync::Arc;

use aquatic_net::proxy::{ForwardedHeaders, Header, LONGEST_V2, OnBadHeader, TrustedProxies, parse};

/// The beginning of a connection: no bytes panic, a header that comes in pieces means what it means at once,
/// and a decision does not wait for more than the longest header.
pub(crate) fn check_beginning(bytes: &[u8]) {
    let whole = parse(bytes);
    let first = (0..=bytes.len()).map(|len| parse(&bytes[..len])).find(|header| *header != Header::NeedMore);
    assert_eq!(first.unwrap_or(Header::NeedMore), whole);
    match whole {
        Header::Complete { len, .. } => assert!(len <= bytes.len() && len <= LONGEST_V2),
        Header::NeedMore => assert!(bytes.len() < LONGEST_V2),
        Header::Absent | Header::Malformed => {}
    }
}

/// Client addresses in request headers: no bytes panic, and what a stranger has sent before the proxy
/// appended its word never makes another address out of it.
pub(crate) fn check_forwarded(sent: &[u8]) {
    let headers = ForwardedHeaders {
        names: vec!["Forwarded".to_owned(), "X-Forwarded-For".to_owned()],
        trusted: TrustedProxies::parse(&["10.0.0.0/8"]).expect("a network"),
        on_bad: OnBadHeader::Refuse,
        blocked: Arc::default(),
    };
    let appended: IpAddr = "203.0.113.7".parse().expect("an address");
    for (name, suffix) in
        [("forwarded", ", for=203.0.113.7;by=10.0.0.1"), ("x-forwarded-for", ", 203.0.113.7")]
    {
        let lines = || sent.split(|&byte| byte == b'\n').map(|line| (name, line));
        let _ = headers.named(lines());
        let line = [sent, suffix.as_bytes()].concat();
        if let Ok(found) = headers.named([(name, line.as_slice())].into_iter()) {
            assert_eq!(found, appended);
        }
        let proxy = (name, suffix.as_bytes());
        assert_eq!(headers.named(lines().chain([proxy])), Ok(appended));
    }
}
