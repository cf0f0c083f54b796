//! Client addresses in request headers: no bytes panic, and what a stranger has sent before the proxy appended its
//! word never makes another address out of it.
#![no_main]

use std::net::IpAddr;

use aquatic_runtime::proxy::{ForwardedHeaders, OnBadHeader, TrustedProxies};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|sent: &[u8]| {
    let headers = ForwardedHeaders {
        names: vec!["Forwarded".to_owned(), "X-Forwarded-For".to_owned()],
        trusted: TrustedProxies::parse(&["10.0.0.0/8"]).expect("a network"),
        on_bad: OnBadHeader::Refuse,
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
});
