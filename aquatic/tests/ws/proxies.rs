//! Clients behind proxies, which the test simulates.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::client::{Client, Plain, peer, request, start, tcp};
use crate::support::{Tracker, eventually, metric, torrent};

fn behind_proxy(settings: &[&str]) -> (Tracker, impl Fn(&str) -> f64) {
    let trusted = "proxies.trusted_proxies=[\"127.0.0.2\"]";
    let tracker =
        start(&[&["metrics.enable=true", "metrics.address=127.0.0.1:0", trusted], settings].concat());
    let metrics = tracker.metrics.unwrap();
    (tracker, move |series: &str| metric(metrics, series))
}

fn through(tracker: &Tracker, header: &str) -> Result<Plain, u16> {
    let mut request = request();
    if let Some((name, value)) = header.split_once(": ") {
        let name = tungstenite::http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    match tungstenite::client(request, tcp("127.0.0.2", tracker.address())) {
        Ok((socket, _)) => Ok(Client { socket }),
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn headers_of_trusted_proxies_name_the_client() {
    let (tracker, metric) =
        behind_proxy(&["proxies.client_headers=[\"X-Forwarded-For\", \"Forwarded\", \"X-Real-IP\"]"]);
    for (header, series, total) in [
        ("X-Forwarded-For: 192.0.2.1", "ipv4", 1.0),
        ("x-forwarded-for: 6.6.6.6, 2001:db8::1", "ipv6", 1.0),
        ("Forwarded: for=\"[2001:db8::2]:80\"", "ipv6", 2.0),
        ("X-Real-IP: 192.0.2.3", "ipv4", 2.0),
    ] {
        let mut client = through(&tracker, header).unwrap_or_else(|status| panic!("{header}: {status}"));
        client.announce(torrent(1), peer(1), 1, &[]);
        let series =
            format!("aquatic_requests_total{{protocol=\"ws\",family=\"{series}\",action=\"announce\"");
        assert_eq!(metric(&series), total, "{header}");
    }
    assert_eq!(through(&tracker, "").err(), Some(400));
    assert_eq!(through(&tracker, "X-Forwarded-For: unknown").err(), Some(400));
    assert_eq!(metric("aquatic_proxy_client_missing_total{protocol=\"ws\""), 2.0);
    // Clients that are no trusted proxy need no header.
    Plain::connect(tracker.address()).announce(torrent(1), peer(2), 1, &[]).counts();
}

#[test]
fn a_proxy_that_names_nobody_may_be_the_client() {
    let (tracker, metric) = behind_proxy(&["proxies.on_missing_client=use_proxy_address"]);
    through(&tracker, "").unwrap().announce(torrent(1), peer(1), 1, &[]).counts();
    assert_eq!(metric("aquatic_proxy_client_missing_total{protocol=\"ws\""), 1.0);
}

#[test]
fn the_proxy_protocol_names_the_client() {
    let (tracker, metric) = behind_proxy(&["proxies.proxy_protocol=true", "proxies.client_headers=[]"]);
    let mut stream = tcp("127.0.0.2", tracker.address());
    stream.write_all(b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 6969\r\n").unwrap();
    let mut client: Client<TcpStream> = Client::over(stream, request());
    client.announce(torrent(1), peer(1), 1, &[]).counts();
    let series = "aquatic_requests_total{protocol=\"ws\",family=\"ipv6\",action=\"announce\"";
    assert_eq!(metric(series), 1.0);
    let mut without = tcp("127.0.0.2", tracker.address());
    without.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = without.read_to_end(&mut answer);
    assert_eq!(answer, b"");
}

#[test]
fn clients_behind_a_proxy_have_their_limit_each() {
    let (tracker, metric) = behind_proxy(&["connections.max_connections_per_address=2"]);
    let mut clients: Vec<Plain> = Vec::new();
    for client in ["192.0.2.1", "192.0.2.2"] {
        let header = format!("X-Forwarded-For: {client}");
        clients.extend((0..2).map(|_| through(&tracker, &header).unwrap()));
        assert_eq!(through(&tracker, &header).err(), Some(503));
    }
    assert_eq!(
        metric("aquatic_connections_refused_total{protocol=\"ws\",reason=\"limit_per_address\"}"),
        2.0
    );
    clients.pop();
    eventually(|| through(&tracker, "X-Forwarded-For: 192.0.2.2").is_ok(), |&served| served);
}
