//! Limits, deadlines, unix sockets, and the end of the process.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::client::{Client, Plain, announce, command, pause, request, scrape, seconds_until, start};
use crate::proxies::ALL_HEADERS;
use crate::support::{Ends, REPLY, Tracker, eventually, metric, torrent};

#[test]
fn connections_are_limited_in_all_and_per_address() {
    let tracker = start(&[
        "workers=1",
        "connections.max_connections=10",
        "connections.max_connections_per_address=3",
        "metrics.enable=true",
        "metrics.address=127.0.0.1:0",
    ]);
    let metrics = tracker.metrics.unwrap();
    let connect = |host: u8| Plain::connect_from(&format!("127.0.0.{host}"), tracker.address());
    let count = |what, reason| {
        let series = format!("aquatic_connections_{what}_total{{protocol=\"http\",reason=\"{reason}\"}}");
        metric(metrics, &series)
    };
    let mut open: Vec<Plain> = Vec::new();
    for host in [3, 1, 2] {
        for _ in 0..3 {
            let mut client = connect(host);
            assert_eq!(client.get("/health").status(), 200);
            open.push(client);
        }
    }
    // Several times what it takes to be idle: the machine may stand still for some of it.
    pause(2000);
    let mut fourth = connect(1);
    assert_eq!(fourth.get("/health").status(), 200);
    // The longest idle one of that address, and none of another one that was idle for longer.
    open.remove(3).ends_somehow();
    assert!(open.iter_mut().all(|client| client.get("/health").status() == 200));
    let counts = || (count("evicted", "limit_per_address"), count("refused", "limit_per_address"));
    assert_eq!(counts(), (1.0, 0.0));

    let mut tenth = connect(4);
    assert_eq!(tenth.get("/health").status(), 200);
    assert_eq!((count("refused", "limit"), count("evicted", "limit")), (0.0, 0.0));
    pause(2000);
    let mut eleventh = connect(5);
    assert_eq!(eleventh.get("/health").status(), 200);
    assert_eq!((count("refused", "limit"), count("evicted", "limit")), (0.0, 1.0));
    assert_eq!(counts(), (1.0, 0.0));
    let is_open = || metric(metrics, "aquatic_connections{");
    eventually(is_open, |&connections| connections == 10.0);

    drop((open, fourth, tenth, eleventh));
    eventually(is_open, |&connections| connections == 0.0);
    let mut again = connect(1);
    assert_eq!(again.get("/health").status(), 200);
}

#[test]
fn slow_heads_have_a_deadline() {
    let tracker = start(&["connections.request_timeout=2", "connections.max_connection_idle=60"]);
    let mut healthy = Plain::connect(tracker.address());
    let mut silent = Plain::connect(tracker.address());
    let mut first = Plain::connect(tracker.address());
    let mut second = Plain::connect(tracker.address());
    second.get("/health");
    let begin = "GET /announce?info_hash=";
    // A byte now and then does not help.
    let time = seconds_until(|| {
        first.send(begin);
        second.send(begin);
        for _ in 0..60 {
            if first.stream.write_all(b"a").is_err() && second.stream.write_all(b"a").is_err() {
                break;
            }
            pause(100);
            healthy.get("/health");
        }
        first.ends_somehow();
        second.ends_somehow();
    });
    assert!(time > 1.5, "closed after {time} s");
    // Who connects is expected to say something.
    silent.ends_somehow();
    assert_eq!(healthy.get("/health").status(), 200);
}

#[test]
fn idle_connections_are_closed() {
    let tracker = start(&["connections.max_connection_idle=3"]);
    let mut client = Plain::connect(tracker.address());
    for _ in 0..4 {
        client.get("/health");
        pause(1000);
    }
    let time = seconds_until(|| {
        client.get("/health");
        client.ends();
    });
    assert!(time > 2.5, "closed after {time} s");
}

#[test]
fn a_unix_socket_is_for_proxies() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tracker.sock");
    let settings = [
        "network.use_ipv4=false",
        &format!("network.unix_socket_path={}", path.display()),
        "network.unix_socket_mode=600",
        ALL_HEADERS,
    ];
    let mut tracker = Tracker::start(0, &mut command(&settings));
    tracker.wait_for_log("tracker.sock");
    // The sockets are made before the log is told; the file is there.
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(REPLY)).unwrap();
    let mut client = Client::over(stream);
    for (number, header) in [(1, "X-Forwarded-For: 198.18.2.7"), (2, "forwarded: for=\"[2001:2::7]:80\"")] {
        let target = announce(&torrent(number), 1000, "");
        client.send(format!("GET {target} HTTP/1.1\r\n{header}\r\n\r\n"));
        assert_eq!(client.response().announce().incomplete, Some(1));
    }
    client.send(format!("GET {} HTTP/1.1\r\nX-Real-IP: 198.18.2.8\r\n\r\n", announce(&torrent(1), 1, "")));
    assert_eq!(client.response().peers(), ["198.18.2.7:1000".parse().unwrap()]);
    client.send(request(&announce(&torrent(1), 1, "")));
    let reason = "the proxy in front of this tracker does not name the client";
    assert_eq!(client.response().reason(), reason);
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0));
}

#[test]
fn ipv6_takes_ipv4_only_if_told_so() {
    let settings = [
        "network.use_ipv4=false",
        "network.use_ipv6=true",
        "network.address_ipv6=[::]:0",
        "network.only_ipv6=false",
    ];
    let tracker = Tracker::start(1, &mut command(&settings));
    let port = tracker.address().port();
    let mut over_v4 = Plain::connect(format!("127.0.0.1:{port}").parse().unwrap());
    let response = over_v4.get(&announce(&torrent(1), 1000, ""));
    assert_eq!(
        response.announce().external_ip,
        Some("127.0.0.1".parse().unwrap()),
        "not as mapped into IPv6"
    );
    let mut over_v6 = Plain::connect(format!("[::1]:{port}").parse().unwrap());
    assert_eq!(over_v6.get(&announce(&torrent(1), 1, "")).peers(), ["127.0.0.1:1000".parse().unwrap()]);

    // The port is somebody else's over IPv4.
    let somebody = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = somebody.local_addr().unwrap().port();
    let address = format!("network.address_ipv6=[::]:{port}");
    let settings = ["network.use_ipv4=false", "network.use_ipv6=true", &address];
    let both = command(&[&settings[..], &["network.only_ipv6=false"]].concat()).ends();
    assert_eq!(both.status.code(), Some(3), "{}", String::from_utf8_lossy(&both.stderr));
    let tracker = Tracker::start(1, &mut command(&[&settings[..], &["network.only_ipv6=true"]].concat()));
    let mut over_v6 = Plain::connect(format!("[::1]:{port}").parse().unwrap());
    assert_eq!(over_v6.get("/health").status(), 200);
    drop(tracker);
}

#[test]
fn several_addresses_are_one_tracker() {
    let settings = ["network.address_ipv4=[\"127.0.0.1:0\", \"127.0.0.5:0\"]"];
    let tracker = Tracker::start(2, &mut command(&settings));
    let [first, second] = tracker.addresses[..] else { panic!("{:?}", tracker.addresses) };
    Plain::connect(first).get(&announce(&torrent(1), 1, ""));
    assert_eq!(Plain::connect(second).get(&scrape(&[torrent(1)])).files()[0].incomplete, 1);
}

#[test]
fn a_stop_ends_connections_and_leaves_nobody_waiting() {
    let tracker = start(&[]);
    let mut idle: Vec<Plain> = (0..20).map(|_| Plain::connect(tracker.address())).collect();
    idle.iter_mut().for_each(|client| drop(client.get("/health")));
    let mut slow = Plain::connect(tracker.address());
    let whole = request(&announce(&torrent(1), 1, ""));
    // Received together, so half of the second request is there when the first one is answered.
    slow.send(format!("{}{}", request("/health"), &whole[..50]));
    assert_eq!(slow.response().status(), 200);
    tracker.signal("TERM");
    idle.iter_mut().for_each(Client::ends);
    slow.send(&whole[50..]);
    let last = slow.response();
    assert_eq!((last.announce().incomplete, last.header("Connection")), (Some(1), Some("close")));
    slow.ends();
    let time = seconds_until(|| assert_eq!(tracker.end().0, Some(0)));
    assert!(time < 2.5, "stopped by its deadline, after {time} s");
}
