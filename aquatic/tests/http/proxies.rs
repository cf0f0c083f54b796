//! Behind proxies, which are played by the test itself.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use crate::client::{Plain, announce, start};
use crate::support::{Tracker, metric, torrent};

const NO_CLIENT: &str = "the proxy in front of this tracker does not name the client";

pub(crate) const ALL_HEADERS: &str =
    "proxies.client_headers=[\"X-Forwarded-For\", \"Forwarded\", \"X-Real-IP\"]";

/// Trusts the network of the second address only, so that the first one is a stranger.
fn behind_proxy(settings: &[&str]) -> Tracker {
    let trusted = "proxies.trusted_proxies=[\"127.0.0.2\", \"10.0.0.0/8\", \"fd00::/8\"]";
    start(&[&[trusted, ALL_HEADERS], settings].concat())
}

/// Whom an announce with these header fields is taken to be from, or why it is refused.
fn client_of(proxy: &mut Plain, fields: &str) -> Result<IpAddr, String> {
    let target = announce(&torrent(1), 1000, "");
    proxy.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
    let response = proxy.response();
    if response.body.starts_with(b"d14:failure reason") {
        return Err(response.reason().to_owned());
    }
    Ok(response.announce().external_ip.unwrap())
}

fn ip(text: &str) -> Result<IpAddr, String> {
    Ok(text.parse().unwrap())
}

#[test]
fn headers_of_trusted_proxies_name_the_client() {
    let tracker = behind_proxy(&[]);
    let mut proxy = Plain::connect_from("127.0.0.2", tracker.address());
    for (fields, expected) in [
        ("X-Forwarded-For: 198.18.2.1\r\n", "198.18.2.1"),
        ("x-forwarded-for: 6.6.6.6, 198.18.2.2, 10.1.2.3\r\n", "198.18.2.2"),
        ("X-FORWARDED-FOR: 2001:2::3\r\n", "2001:2::3"),
        ("x-forwarded-for: 6.6.6.6\r\nX-Forwarded-For: ::ffff:198.18.2.4\r\n", "198.18.2.4"),
        ("Forwarded: for=6.6.6.6, for=198.18.2.5;proto=https;by=10.0.0.1\r\n", "198.18.2.5"),
        ("forwarded: for=\"[2001:2::6]:4711\"\r\n", "2001:2::6"),
        ("X-Real-IP: 198.18.2.7\r\n", "198.18.2.7"),
        ("x-real-ip: 198.18.2.8\r\nX-Forwarded-For: 198.18.2.9\r\n", "198.18.2.9"),
    ] {
        assert_eq!(client_of(&mut proxy, fields), ip(expected), "{fields}");
    }
    // They meet those who come without a proxy.
    let mut direct = Plain::connect_from("127.0.0.1", tracker.address());
    let mut peers = direct.get(&announce(&torrent(1), 1, "")).peers();
    peers.sort_unstable();
    let expected: Vec<SocketAddr> =
        ["198.18.2.1", "198.18.2.2", "198.18.2.4", "198.18.2.5", "198.18.2.7", "198.18.2.9"]
            .iter()
            .map(|ip| format!("{ip}:1000"))
            .chain(["[2001:2::3]:1000".to_owned(), "[2001:2::6]:1000".to_owned()])
            .map(|address| address.parse().unwrap())
            .collect();
    assert_eq!(peers, expected);
}

/// Case H7, and what a proxy may name but no peer can have. The second tracker serves the internet only.
#[test]
fn addresses_that_nobody_can_reach_are_answered_and_not_stored() {
    let counting = ["metrics.enable=true", "metrics.address=127.0.0.1:0"];
    for (refuse, named, reason) in [
        (false, &["192.0.2.1", "198.51.100.9", "203.0.113.7", "2001:db8::1"][..], "unusable_address"),
        (
            true,
            &["10.0.0.1", "192.168.7.7", "169.254.1.1", "100.64.0.1", "fd00::1", "fe80::1"],
            "local_address",
        ),
    ] {
        let mut settings = counting.to_vec();
        settings.extend(refuse.then_some("limits.local_addresses=refuse"));
        let tracker = behind_proxy(&settings);
        let mut proxy = Plain::connect_from("127.0.0.2", tracker.address());
        client_of(&mut proxy, "X-Forwarded-For: 198.18.2.1\r\n").unwrap();
        for name in named {
            let fields = format!("X-Forwarded-For: {name}\r\n");
            let target = announce(&torrent(1), 1000, "");
            proxy.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
            let response = proxy.response();
            assert_eq!(response.peers(), ["198.18.2.1:1000".parse().unwrap()], "{name}");
            assert_eq!(response.announce().incomplete, Some(1), "{name}");
        }
        let metrics = tracker.metrics.unwrap();
        let counted = ["ipv4", "ipv6"].map(|family| {
            metric(metrics, &format!("aquatic_not_stored_total{{swarms=\"bittorrent\",family=\"{family}\",reason=\"{reason}\"}}"))
        });
        assert_eq!(counted.iter().sum::<f64>() as usize, named.len());
    }
}

/// A proxy on the tracker's host that names itself, or a client beside it.
#[test]
fn loopback_addresses_that_a_proxy_names_are_stored_only_if_allowed() {
    let trusted = "proxies.trusted_proxies=[\"127.0.0.1\", \"::1\"]";
    for (local_addresses, stored) in [("auto", false), ("accept", true)] {
        let setting = format!("limits.local_addresses={local_addresses}");
        let proxy_address = "proxies.on_missing_client=use_proxy_address";
        let counting = ["metrics.enable=true", "metrics.address=127.0.0.1:0"];
        let tracker = start(&[&[trusted, proxy_address, setting.as_str()], &counting[..]].concat());
        let mut proxy = Plain::connect_from("127.0.0.1", tracker.address());
        let named = ["X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-For: ::ffff:127.0.0.1\r\n", ""];
        for fields in named {
            assert_eq!(client_of(&mut proxy, fields), ip("127.0.0.1"), "{fields}");
        }
        assert_eq!(client_of(&mut proxy, "X-Forwarded-For: ::1\r\n"), ip("::1"));
        proxy.send(format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.18.2.1\r\n\r\n",
            announce(&torrent(1), 2000, "")
        ));
        assert_eq!(proxy.response().peers().len(), if stored { 2 } else { 0 });
        let counted = ["ipv4", "ipv6"].map(|family| {
            let labels = format!("swarms=\"bittorrent\",family=\"{family}\",reason=\"local_address\"");
            metric(tracker.metrics.unwrap(), &format!("aquatic_not_stored_total{{{labels}}}"))
        });
        assert_eq!(counted, if stored { [0.0, 0.0] } else { [3.0, 1.0] });
    }
}

#[test]
fn headers_of_strangers_count_for_nothing() {
    let tracker = behind_proxy(&[]);
    let mut stranger = Plain::connect_from("127.0.0.1", tracker.address());
    for fields in
        ["X-Forwarded-For: 198.18.2.1\r\n", "Forwarded: for=198.18.2.1\r\n", "X-Real-IP: nonsense\r\n", ""]
    {
        assert_eq!(client_of(&mut stranger, fields), ip("127.0.0.1"), "{fields}");
    }
    let nobody_trusted = start(&["proxies.trusted_proxies=[\"10.0.0.1\"]"]);
    let mut stranger = Plain::connect_from("127.0.0.2", nobody_trusted.address());
    assert_eq!(client_of(&mut stranger, "X-Forwarded-For: 198.18.2.1\r\n"), ip("127.0.0.2"));
}

const BAD: [&str; 5] = [
    "",
    "X-Forwarded-For: \r\n",
    "X-Forwarded-For: unknown\r\n",
    "X-Forwarded-For: 198.18.2.1, \u{7f}\r\n",
    "Forwarded: for=_hidden\r\nX-Real-IP: 198.18.2.1\r\n",
];

#[test]
fn a_missing_or_malformed_header_is_refused_politely_and_counted() {
    let mut tracker = behind_proxy(&["metrics.enable=true", "metrics.address=127.0.0.1:0"]);
    let metrics = tracker.metrics.unwrap();
    let mut proxy = Plain::connect_from("127.0.0.2", tracker.address());
    for fields in &BAD[..2] {
        assert_eq!(client_of(&mut proxy, fields), Err(NO_CLIENT.to_owned()), "{fields:?}");
    }
    for fields in ["X-Forwarded-For: unknown\r\n", "Forwarded: for=_hidden\r\nX-Real-IP: 198.18.2.1\r\n"] {
        assert_eq!(client_of(&mut proxy, fields), Err(NO_CLIENT.to_owned()), "{fields:?}");
    }
    let unusable = ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "ff02::1"];
    for client in unusable {
        let refused = client_of(&mut proxy, &format!("X-Forwarded-For: {client}\r\n"));
        assert!(refused.unwrap_err().contains("no peer can have"), "{client}");
    }
    assert_eq!(client_of(&mut proxy, "X-Forwarded-For: 198.18.2.1\r\n"), ip("198.18.2.1"));
    assert_eq!(proxy.get("/health").status(), 200, "monitors need not say whom they stand for");
    let refused = |reason| {
        metric(metrics, &format!("aquatic_refused_total{{protocol=\"http\",reason=\"client_{reason}\"}}"))
    };
    assert_eq!((refused("missing"), refused("malformed")), (2.0, 2.0));
    assert!(tracker.wait_for_log("without a usable client address").contains("WARN"));
}

#[test]
fn a_proxy_may_be_taken_for_the_client() {
    let tracker = behind_proxy(&["proxies.on_missing_client=use_proxy_address"]);
    let mut proxy = Plain::connect_from("127.0.0.2", tracker.address());
    for fields in BAD.iter().filter(|fields| !fields.contains('\u{7f}')) {
        assert_eq!(client_of(&mut proxy, fields), ip("127.0.0.2"), "{fields:?}");
    }
    assert_eq!(client_of(&mut proxy, "X-Forwarded-For: 198.18.2.1\r\n"), ip("198.18.2.1"));
}

#[test]
fn by_default_one_header_is_read_that_strangers_cannot_get_past() {
    let tracker = start(&["proxies.trusted_proxies=[\"127.0.0.2\"]"]);
    let mut proxy = Plain::connect_from("127.0.0.2", tracker.address());
    let forged = "X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n";
    assert_eq!(client_of(&mut proxy, &format!("{forged}X-Forwarded-For: 198.18.2.1\r\n")), ip("198.18.2.1"));
    assert_eq!(client_of(&mut proxy, forged), Err(NO_CLIENT.to_owned()));
}

#[test]
fn only_the_headers_named_are_read() {
    let tracker = behind_proxy(&["proxies.client_headers=[\"CF-Connecting-IP\"]"]);
    let mut proxy = Plain::connect_from("127.0.0.2", tracker.address());
    let fields = "X-Forwarded-For: 6.6.6.6\r\ncf-connecting-ip: 198.18.2.1\r\n";
    assert_eq!(client_of(&mut proxy, fields), ip("198.18.2.1"));
    assert_eq!(client_of(&mut proxy, "X-Forwarded-For: 6.6.6.6\r\n"), Err(NO_CLIENT.to_owned()));
}

#[test]
fn connections_of_clients_that_the_proxy_protocol_names_have_a_rate() {
    const CONNECTIONS: usize = 20;
    for (mode, most_served) in [("on", 6), ("dry_run", CONNECTIONS)] {
        let tracker = behind_proxy(&[
            "workers=1",
            "proxies.proxy_protocol=true",
            "rate_limits.tcp_connections=1",
            "rate_limits.tcp_connections_burst=3",
            &format!("rate_limits.mode={mode}"),
            "metrics.enable=true",
            "metrics.address=127.0.0.1:0",
        ]);
        let is_served = |client: &str| {
            let mut proxy = Plain::connect_from("127.0.0.2", tracker.address());
            let header = format!("PROXY TCP4 {client} 198.51.100.1 4660 80\r\n");
            proxy.send(header + "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let mut reply = String::new();
            // A connection that is closed unread may be reset.
            let _ = proxy.stream.read_to_string(&mut reply);
            reply.starts_with("HTTP/1.1 200")
        };
        let count = |client| (0..CONNECTIONS).filter(|_| is_served(client)).count();
        let served = count("198.18.2.1");
        assert!((3..=most_served).contains(&served), "{mode}: {served}");
        assert!(is_served("198.18.200.1"), "another network");
        assert_eq!(count("10.0.0.1"), CONNECTIONS, "a proxy behind the proxy");
        let counted = |name: &str| metric(tracker.metrics.unwrap(), name);
        let refused = counted("aquatic_connections_refused_total{protocol=\"http\",reason=\"rate_limit\"}");
        let let_through = counted("aquatic_rate_limit_dry_run_total{protocol=\"http\"}");
        assert_eq!(refused, (CONNECTIONS - served) as f64, "{mode}");
        assert_eq!(let_through > 10.0, mode == "dry_run", "{let_through}");
    }
}

#[test]
fn the_proxy_protocol_names_the_client_of_a_connection() {
    let tracker = behind_proxy(&["proxies.proxy_protocol=true"]);
    let v2 = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[198, 18, 2, 2],
        &[127, 0, 0, 1],
        &[0x30, 0x39, 0x1b, 0x39],
    ]
    .concat();
    let headers: [(&[u8], &str); 4] = [
        (b"PROXY TCP4 198.18.2.1 127.0.0.1 12345 6969\r\n", "198.18.2.1"),
        (b"PROXY TCP6 2001:2::1 ::1 12345 6969\r\n", "2001:2::1"),
        (&v2, "198.18.2.2"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.2"),
    ];
    for (header, expected) in headers {
        let mut proxy = Plain::connect_from("127.0.0.2", tracker.address());
        proxy.send(header);
        // Whoever the proxy names is no proxy, and so is not asked for others.
        let fields = "X-Forwarded-For: 6.6.6.6\r\n";
        let expected = if expected == "127.0.0.2" { "6.6.6.6" } else { expected };
        assert_eq!(client_of(&mut proxy, fields), ip(expected));
        assert_eq!(proxy.get("/health").status(), 200);
        // The same byte by byte, and with the beginning of the request in its last piece.
        let target = announce(&torrent(1), 1000, "");
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        for length in [1, 5, header.len() - 1, header.len() + 20] {
            let mut proxy = Plain::connect_from("127.0.0.2", tracker.address());
            let all = [header, request.as_bytes()].concat();
            for piece in all.chunks(length) {
                proxy.send(piece);
                std::thread::yield_now();
            }
            assert_eq!(
                Ok(proxy.response().announce().external_ip.unwrap()),
                ip(expected),
                "pieces of {length}"
            );
        }
    }
    let mut stranger = Plain::connect_from("127.0.0.1", tracker.address());
    assert_eq!(client_of(&mut stranger, ""), ip("127.0.0.1"), "strangers speak HTTP");
    let mut stranger = Plain::connect_from("127.0.0.1", tracker.address());
    stranger.send("PROXY TCP4 198.18.2.1 127.0.0.1 12345 6969\r\n");
    assert_eq!(stranger.response().status(), 400);
    let mut silent = Plain::connect_from("127.0.0.2", tracker.address());
    silent.send("GET /health HTTP/1.1\r\n\r\n");
    silent.ends_somehow();
}
