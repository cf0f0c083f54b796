//! HTTP itself: methods, versions, paths, heads of all sizes, and what is no HTTP.

use std::net::Shutdown;

use crate::client::{Plain, announce, request, scrape, start};
use crate::support::torrent;

#[test]
fn pages_other_than_the_tracker_s() {
    let tracker = start(&[]);
    let mut client = Plain::connect(tracker.address());
    let health = client.get("/health");
    assert_eq!((health.status(), health.text()), (200, "ok\n"));
    for path in ["/index.html", "/stats/x", "/announcex", "/a", "/scrapes", "*", "/announce/x"] {
        let response = client.get(path);
        let text = "not found; try /announce or /scrape\n";
        assert_eq!((response.status(), response.text()), (404, text), "{path}");
        assert_eq!(response.header("Content-Type"), Some("text/plain; charset=utf-8"));
    }
    assert_eq!(client.get("/health").status(), 200, "the connection goes on");
}

#[test]
fn methods() {
    let tracker = start(&[]);
    let mut client = Plain::connect(tracker.address());
    let target = announce(&torrent(1), 1, "");
    let whole = client.get(&target);
    client.send(request(&target).replace("GET", "HEAD"));
    let head = client.head();
    let length =
        |head: &str| head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().to_owned();
    assert_eq!(length(&head), length(&whole.head));
    assert_eq!(client.get("/health").text(), "ok\n", "no body stands between the heads");
    for method in ["DELETE", "OPTIONS", "TRACE", "CONNECT", "PUT", "POST", "get", "BREW"] {
        for body in ["", "Content-Length: 2\r\n\r\nhi"] {
            let mut client = Plain::connect(tracker.address());
            client.send(request(&target).replace("GET", method).replace("\r\n\r\n", "\r\n") + body + "\r\n");
            let response = client.response();
            assert_eq!((response.status(), response.header("Allow")), (405, Some("GET, HEAD")), "{method}");
            assert_eq!(response.header("Connection"), Some("close"), "{method}");
            client.ends();
        }
    }
}

#[test]
fn announce_urls_with_other_paths() {
    let tracker = start(&[]);
    let mut client = Plain::connect(tracker.address());
    let target = announce(&torrent(1), 1, "");
    for path in ["//announce", "/announce/", "/announce.php", "/x/announce", "/Announce", "/announce%20"] {
        let response = client.get(&target.replace("/announce", path));
        assert_eq!(response.announce().incomplete, Some(1), "{path}");
    }
    let response = client.get(&target.replace("?", "?a=b?"));
    assert_eq!(response.announce().incomplete, Some(1));
    for path in ["", "/", "/tracker", "/announce/x"] {
        let response = client.get(&target.replace("/announce", path));
        assert!(response.reason().contains("/announce"), "{path}");
    }
}

#[test]
fn a_scrape_of_too_many_torrents_is_told_so() {
    let tracker = start(&[]);
    let torrents: Vec<_> = (0..200).map(torrent).collect();
    let mut client = Plain::connect(tracker.address());
    client.send(request(&scrape(&torrents)));
    let response = client.response();
    assert!(response.head.starts_with("HTTP/1.1 414 Request-URI Too Long\r\n"), "{}", response.head);
    assert!(response.text().contains("Request-URI Too Long"), "{}", response.text());
    client.ends();
    let mut client = Plain::connect(tracker.address());
    assert_eq!(client.get(&scrape(&torrents[..100])).files().len(), 100);
}

#[test]
fn connections_last_as_long_as_the_client_says() {
    let tracker = start(&[]);
    let target = announce(&torrent(1), 1, "");
    let ask = |version: &str, fields: &str| {
        let mut client = Plain::connect(tracker.address());
        client.send(format!("GET {target} HTTP/{version}\r\n{fields}\r\n"));
        let response = client.response();
        assert_eq!(response.announce().incomplete, Some(1));
        (client, response.header("Connection").map(str::to_owned))
    };
    for (version, fields) in
        [("1.0", ""), ("1.1", "Connection: close\r\n"), ("1.1", "connection: TE, Close\r\n")]
    {
        let (mut client, connection) = ask(version, fields);
        assert_eq!(connection.as_deref(), Some("close"));
        client.ends();
    }
    for (version, fields, expected) in
        [("1.1", "", None), ("1.0", "Connection: Keep-Alive\r\n", Some("keep-alive"))]
    {
        let (mut client, connection) = ask(version, fields);
        assert_eq!(connection.as_deref(), expected);
        assert_eq!(client.get("/health").status(), 200);
    }
}

#[test]
fn heads_of_all_sizes() {
    let tracker = start(&[]);
    let target = announce(&torrent(1), 1, "");
    let ask = |fields: &str| {
        let mut client = Plain::connect(tracker.address());
        client.send(format!("GET {target} HTTP/1.1\r\n{fields}\r\n"));
        (client.response().status(), client)
    };
    let many = |count| (0..count).map(|n| format!("X-Field-{n}: value\r\n")).collect::<String>();
    assert_eq!(ask(&many(17)).0, 200);
    assert_eq!(ask(&many(64)).0, 200);
    let (status, mut client) = ask(&many(65));
    assert_eq!(status, 431);
    client.ends();
    let before = format!("GET {target} HTTP/1.1\r\nA: \r\n\r\n").len();
    assert_eq!(ask(&format!("A: {}\r\n", "a".repeat(8192 - before))).0, 200);
    let (status, mut client) = ask(&format!("A: {}\r\n", "a".repeat(8193 - before)));
    assert_eq!(status, 431);
    client.ends();
    let (status, mut client) = ask(&format!("A: {}\r\n", "a".repeat(200_000)));
    assert_eq!(status, 431, "the answer arrives although the client is still sending");
    client.ends();
}

#[test]
fn what_is_no_http_is_told_so() {
    let tracker = start(&[]);
    let status = |bytes: &[u8]| {
        let mut client = Plain::connect(tracker.address());
        client.send(bytes);
        let response = client.response();
        assert_eq!(response.header("Connection"), Some("close"));
        client.ends();
        response.status()
    };
    let tls_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let garbage: [&[u8]; 9] = [
        b"\0\0\x04\x17\x27\x10\x19\x80\0\0\0\0\x01\x02\x03\x04",
        b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0",
        &tls_hello,
        b"GET\r\n\r\n",
        b"GET /announce\r\n\r\n",
        b"GET /announce HTTP/1.1\rX\r\n\r\n",
        b"GET /announce HTTP/1.1\r\nA\0: b\r\n\r\n",
        b"GET /announce\0 HTTP/1.1\r\n\r\n",
        b"GET /announce?info_hash=\x01 HTTP/1.1\r\n\r\n",
    ];
    for bytes in garbage {
        assert_eq!(status(bytes), 400, "{bytes:?}");
    }
    assert_eq!(status(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_eq!(status(b"GET /announce HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), 400);
    assert_eq!(status(b"GET /announce HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
}

#[test]
fn a_client_may_close_its_half_after_the_last_request() {
    let tracker = start(&[]);
    let mut client = Plain::connect(tracker.address());
    for number in 0..8 {
        client.send(request(&announce(&torrent(number), 1, "")));
    }
    client.stream.shutdown(Shutdown::Write).unwrap();
    for _ in 0..8 {
        assert_eq!(client.response().announce().incomplete, Some(1));
    }
    client.ends();
    let mut client = Plain::connect(tracker.address());
    client.send("GET /announce");
    client.stream.shutdown(Shutdown::Write).unwrap();
    client.ends();
}
