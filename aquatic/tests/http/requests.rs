//! What clients ask and what they are told.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use aquatic_common::InfoHash;
use aquatic_http_protocol::Retry;
use socket2::SockRef;

use crate::client::{Client, Plain, announce, coded, command, pause, request, scrape, start};
use crate::support::{Tracker, eventually, metric, torrent};

#[test]
fn two_cores_are_one_tracker() {
    let tracker = start(&[]);
    let mut one = Plain::connect_from("127.0.0.1", tracker.address());
    let mut other = Plain::connect_from("127.0.0.2", tracker.address());
    let torrents: Vec<_> = (0..100).map(torrent).collect();
    for info_hash in &torrents {
        assert_eq!(one.get(&announce(info_hash, 1000, "")).peers(), []);
    }
    for info_hash in &torrents {
        let peers = other.get(&announce(info_hash, 2000, "&left=0")).peers();
        assert_eq!(peers, ["127.0.0.1:1000".parse().unwrap()]);
    }
    let mut asked = torrents[..99].to_vec();
    asked.insert(40, torrent(1_000_000));
    let files = one.get(&scrape(&asked)).files();
    assert_eq!(files.len(), 100);
    for file in files {
        let known = file.info_hash != torrent(1_000_000);
        let expected = (u32::from(known), u32::from(known));
        assert_eq!((file.complete, file.incomplete), expected, "{:?}", file.info_hash);
    }
}

#[test]
fn replies_have_everything_clients_look_for() {
    let tracker = Tracker::start(
        2,
        &mut command(&[
            "network.use_ipv6=true",
            "network.address_ipv6=[::1]:0",
            "protocol.peer_announce_interval=1000",
            "protocol.announce_interval_jitter=20",
            "http.min_announce_interval=70",
        ]),
    );
    let [v4, v6] = tracker.addresses[..] else { panic!("{:?}", tracker.addresses) };
    let mut over_v4 = Plain::connect(v4);
    let mut over_v6 = Plain::connect(v6);
    let first = over_v4.get(&announce(&torrent(1), 1000, ""));
    assert_eq!(first.header("Content-Type"), Some("text/plain"));
    assert_eq!(first.header("Connection"), None);
    let second = over_v6.get(&announce(&torrent(1), 2000, "&left=0"));
    let (first, second) = (first.announce(), second.announce());
    assert_eq!((first.peers, first.peers6), (Some(&b""[..]), Some(&b""[..])), "both keys, though empty");
    assert_eq!(second.peers, Some(&[127, 0, 0, 1, 3, 232][..]), "peers of the other family");
    assert_eq!((second.complete, second.incomplete), (Some(1), Some(1)));
    let external = |ip: &str| Some(ip.parse::<IpAddr>().unwrap());
    assert_eq!((first.external_ip, second.external_ip), (external("127.0.0.1"), external("::1")));
    let third = over_v4.get(&announce(&torrent(1), 3000, ""));
    let expected: [SocketAddr; 2] = ["127.0.0.1:1000".parse().unwrap(), "[::1]:2000".parse().unwrap()];
    assert_eq!(third.peers(), expected, "peers of both families");

    let mut intervals: Vec<u32> = (0..50)
        .map(|number| {
            let response = over_v4.get(&announce(&torrent(number), 1000, ""));
            assert_eq!(response.announce().min_interval, Some(70));
            response.announce().interval
        })
        .collect();
    intervals.sort_unstable();
    assert!(
        intervals[0] >= 800 && intervals[49] <= 1000 && intervals[0] + 50 < intervals[49],
        "{intervals:?}"
    );
}

#[test]
fn unusual_announces_are_served() {
    let tracker = start(&[]);
    let mut client = Plain::connect(tracker.address());
    let hash = coded(&torrent(1));
    let complete = |client: &mut Plain, parameters: &str| {
        let response = client.get(&format!("/announce?{parameters}"));
        let announce = response.announce();
        (announce.complete.unwrap(), announce.incomplete.unwrap())
    };
    let leechers = [
        "event=",
        "event=paused",
        "event=update",
        "event",
        "numwant=-1",
        "numwant=0",
        "numwant=many",
        "left=",
        "left=18446744073709551615",
        "left=4294967296",
        "left=-1",
        "left=abc",
        "uploaded=x&downloaded=",
        "compact",
        "compact=1",
        "a&b=1",
        "key=a=b==",
        "&&&=&",
        "ip=192.0.2.1",
        "ipv4=192.0.2.1:7",
        "ipv6=None&ipv4=None",
        "no_peer_id=1&supportcrypto=1&redundant=0&corrupt=0&trackerid=x",
    ];
    for parameter in leechers {
        let parameters = format!("info_hash={hash}&peer_id=x&port=1000&{parameter}");
        assert_eq!(complete(&mut client, &parameters), (0, 1), "{parameter}");
    }
    let long = "k".repeat(300);
    assert_eq!(complete(&mut client, &format!("key={long}&port=1000&info_hash={hash}")), (0, 1));
    assert_eq!(complete(&mut client, &format!("{long}=1&port=1000&info_hash={hash}")), (0, 1));
    assert_eq!(complete(&mut client, &format!("info_hash=short&port=1000&info_hash={hash}")), (0, 1));
    assert_eq!(complete(&mut client, &format!("left=0&port=1000&info_hash={hash}")), (1, 0));
    for path in ["/announce/", "/announce.php", "http://tracker.example:80/announce", "/announce "] {
        let response = client.get(&format!("{path}?port=1000&info_hash={}", hash.to_uppercase()));
        assert_eq!(response.announce().incomplete, Some(1), "{path}");
    }
    // Bytes that should have been encoded, and were not.
    let raw = *b"! \"<>\\^`{|}\x80\xff,~.-_aZ";
    client.send([b"GET /announce?port=1&info_hash=", &raw[..], b" HTTP/1.1\r\n\r\n"].concat());
    assert_eq!(client.response().announce().incomplete, Some(1));
    assert_eq!(client.get(&announce(&InfoHash(raw), 2, "")).announce().incomplete, Some(2));
}

#[test]
fn what_cannot_be_served_is_refused_with_its_reason() {
    let tracker = start(&[]);
    let mut client = Plain::connect(tracker.address());
    let hash = coded(&torrent(1));
    let port = "port must be a number from 1 to 65535";
    let refused = [
        ("/announce".to_owned(), "info_hash is missing"),
        ("/announce?port=1".to_owned(), "info_hash is missing"),
        ("/announce?port=1&info_hash=%00".to_owned(), "info_hash must be 20 bytes, got 1"),
        (format!("/announce?port=1&info_hash={hash}x"), "info_hash must be 20 bytes, got 21"),
        (format!("/announce?info_hash={hash}"), "port is missing"),
        (format!("/announce?info_hash={hash}&port=0"), port),
        (format!("/announce?info_hash={hash}&port=65536"), port),
        (format!("/announce?info_hash={hash}&port=x"), port),
        (
            format!("/announce?info_hash={hash}&port=1&compact=0"),
            "compact=0 is not supported, peers come in compact form only",
        ),
        ("/scrape".to_owned(), "full scrapes are not supported"),
        ("/scrape?".to_owned(), "full scrapes are not supported"),
        ("/scrape?info_hash=".to_owned(), "info_hash must be 20 bytes, got 0"),
        (format!("/scrape?info_hash={hash}&info_hash=x"), "info_hash must be 20 bytes, got 1"),
    ];
    for (target, reason) in refused {
        let response = client.get(&target);
        assert_eq!(response.reason(), reason, "{target}");
        let failure = response.failure();
        assert_eq!((failure.interval, failure.retry), (Some(1800), Some(Retry::Minutes(30))), "{target}");
    }
    assert_eq!(client.get(&scrape(&[torrent(1)])).files()[0].incomplete, 0, "none of them left anything");
}

#[test]
fn peers_are_counted_and_given_as_asked() {
    let tracker = start(&["http.max_response_peers=10"]);
    // Torrents of both cores.
    for number in 0..8 {
        let torrent = torrent(number);
        let mut client = Plain::connect(tracker.address());
        for port in 1..=20 {
            client.get(&announce(&torrent, port, ""));
        }
        for (wanted, given) in
            [("&numwant=1", 1), ("&numwant=3", 3), ("&numwant=0", 0), ("&numwant=-1", 10), ("", 10)]
        {
            let response = client.get(&announce(&torrent, 1, wanted));
            let mut ports: Vec<u16> = response.peers().iter().map(SocketAddr::port).collect();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(ports.len(), given, "{wanted}: {ports:?}");
            assert!(!ports.contains(&1), "nobody gets itself");
        }
        let response = client.get(&announce(&torrent, 1, "&left=0&event=completed"));
        let done = response.announce();
        assert_eq!((done.complete, done.incomplete, done.downloaded), (Some(1), Some(19), Some(1)));
        let response = client.get(&announce(&torrent, 2, "&event=stopped"));
        assert_eq!((response.peers(), response.announce().incomplete), (vec![], Some(18)));
        let file = client.get(&scrape(&[torrent])).files()[0];
        assert_eq!((file.complete, file.incomplete, file.downloaded), (1, 18, 1));
    }
}

#[test]
fn a_scrape_is_answered_for_as_many_torrents_as_configured() {
    let tracker = start(&["http.max_scrape_torrents=100"]);
    let mut client = Plain::connect(tracker.address());
    let torrents: Vec<_> = (0..110).map(torrent).collect();
    client.get(&announce(&torrents[99], 1, ""));
    client.get(&announce(&torrents[100], 1, ""));
    let files = client.get(&scrape(&torrents)).files();
    assert_eq!(files.len(), 100);
    assert!(files.is_sorted_by_key(|file| file.info_hash));
    let counts = |number: usize| {
        files.iter().find(|file| file.info_hash == torrents[number]).map(|file| file.incomplete)
    };
    assert_eq!((counts(98), counts(99), counts(100)), (Some(0), Some(1), None));
    let twice = client.get(&scrape(&[torrent(99), torrent(5), torrent(99)])).files();
    assert_eq!(twice.len(), 2, "one entry for each torrent");
}

#[test]
fn the_access_list_counts_for_announces_and_scrapes_and_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    let allow = |numbers: Range<u32>| {
        let lines: Vec<_> = numbers.map(|number| torrent(number).to_string()).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
    };
    allow(0..10);
    let setting = format!("access_list.path={}", path.display());
    let mut tracker = start(&["access_list.mode=allow", &setting]);
    let mut client = Plain::connect(tracker.address());
    let all: Vec<_> = (0..20).map(torrent).collect();
    let assert_served = |client: &mut Plain, served: Range<u32>| {
        for number in 0..20 {
            let response = client.get(&announce(&torrent(number), 1, ""));
            if served.contains(&number) {
                assert_eq!(response.announce().incomplete, Some(1));
            } else {
                assert_eq!(response.reason(), "this tracker does not serve this torrent");
                assert_eq!(response.failure().retry, Some(Retry::Minutes(30)), "when to ask again");
            }
            // What is not served looks unknown, to a scrape of one torrent and to one over several cores.
            let expected = u32::from(served.contains(&number));
            assert_eq!(client.get(&scrape(&[torrent(number)])).files()[0].incomplete, expected, "{number}");
        }
        let files = client.get(&scrape(&all)).files();
        assert_eq!(files.len(), 20);
        for file in files {
            let expected = served.clone().any(|number| torrent(number) == file.info_hash);
            assert_eq!(file.incomplete, u32::from(expected));
        }
    };
    assert_served(&mut client, 0..10);
    allow(10..20);
    tracker.signal("USR1");
    tracker.wait_for_log("access list reloaded");
    assert_served(&mut client, 10..20);
}

#[test]
fn at_a_limit_requests_are_answered_and_not_stored() {
    let tracker =
        start(&["limits.max_peers_per_torrent=2", "metrics.enable=true", "metrics.address=127.0.0.1:0"]);
    let metrics = tracker.metrics.unwrap();
    let mut client = Plain::connect(tracker.address());
    for number in 0..4 {
        for port in 1..=5 {
            let response = client.get(&announce(&torrent(number), port, ""));
            assert_eq!(response.announce().incomplete, Some(u32::from(port.min(2))));
        }
    }
    let not_stored = |series: &str| metric(metrics, &format!("aquatic_not_stored_total{series}"));
    let reason = "{swarms=\"bittorrent\",family=\"ipv4\",reason=\"max_peers_per_torrent\"}";
    eventually(|| not_stored(reason), |&counted| counted >= 12.0);
    assert_eq!((not_stored(reason), not_stored("")), (12.0, 12.0), "{reason} and no other");
}

#[test]
fn whatever_a_source_asks_for_counts_for_its_rate() {
    let limits = ["rate_limits.http_requests=1", "rate_limits.http_burst=4", "rate_limits.exempt=[]"];
    for target in ["/health", "/nothing-here", "/announce?info_hash=short", "/announce"] {
        let tracker = start(&[&["workers=1"], &limits[..]].concat());
        let mut client = Plain::connect(tracker.address());
        let limited = (0..20).filter(|_| {
            let response = client.get(target);
            response.text().contains("too many requests from your address or network")
        });
        // A slow machine may take seconds for it.
        assert!((5..=16).contains(&limited.count()), "{target}");
    }
}

#[test]
fn requests_and_refusals_are_counted() {
    let tracker = start(&["metrics.enable=true", "metrics.address=127.0.0.1:0"]);
    let metrics = tracker.metrics.unwrap();
    let mut client = Plain::connect(tracker.address());
    (0..40).for_each(|number| drop(client.get(&announce(&torrent(number), 1, ""))));
    (0..3).for_each(|_| drop(client.get(&scrape(&[torrent(1), torrent(2), torrent(3)]))));
    (0..5).for_each(|_| drop(client.get("/scrape")));
    (0..2).for_each(|_| drop(client.get("/nothing")));
    client.get("/health");
    let count = |name: &str, labels: &[&str]| -> f64 {
        let page = crate::support::fetch(metrics, "/metrics");
        let rows = page.lines().filter(|line| line.starts_with(name));
        let rows = rows.filter(|line| labels.iter().all(|label| line.contains(label)));
        rows.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    let http = "protocol=\"http\"";
    for name in ["aquatic_requests_total", "aquatic_responses_total"] {
        assert_eq!(count(name, &[http, "ipv4", "announce"]), 40.0, "{name}");
        assert_eq!(count(name, &[http, "ipv4", "scrape"]), 3.0, "{name}");
        assert_eq!(count(name, &[http, "ipv6"]), 0.0, "{name}");
    }
    assert_eq!(count("aquatic_requests_total", &[http, "health"]), 1.0);
    assert_eq!(count("aquatic_refused_total", &[http, "full_scrape"]), 5.0);
    assert_eq!(count("aquatic_refused_total", &[http, "not_found"]), 2.0);
    assert_eq!(
        count("aquatic_connections", &[http]),
        count("aquatic_connections_accepted_total", &[http]) + 1.0
    );
    assert!(count("aquatic_sent_bytes_total", &[http]) > 5000.0);
}

#[test]
fn responses_are_whole_and_in_order_however_requests_come() {
    let tracker = start(&[]);
    let mut filler = Plain::connect(tracker.address());
    (0..50).for_each(|number| drop(filler.get(&announce(&torrent(number), 1, ""))));
    // Each response tells what it is for: torrents of both cores, refusals, other pages.
    let ask = |number: u32| match number % 5 {
        0..=2 => request(&scrape(&[torrent(number)])),
        3 => request(&format!("/scrape?info_hash={}", "x".repeat(number as usize % 19))),
        _ => request("/nothing"),
    };
    let assert_answered = |client: &mut Plain, number: u32| {
        let response = client.response();
        match number % 5 {
            0..=2 => {
                let file = response.files()[0];
                assert_eq!((file.info_hash, file.incomplete), (torrent(number), u32::from(number < 50)));
            }
            3 => {
                let got = number % 19;
                assert_eq!(response.reason(), format!("info_hash must be 20 bytes, got {got}"));
            }
            _ => assert_eq!(response.status(), 404),
        }
    };
    let all: String = (0..100).map(ask).collect();
    for size in [1, 7, 100, 1000, 5000, all.len()] {
        let mut client = Plain::connect(tracker.address());
        let sent = if size < 100 { (0..10).map(ask).collect() } else { all.clone() };
        for piece in sent.as_bytes().chunks(size) {
            client.send(piece);
        }
        (0..if size < 100 { 10 } else { 100 }).for_each(|number| assert_answered(&mut client, number));
    }
}

#[test]
fn a_request_may_be_cut_anywhere() {
    let tracker = start(&[]);
    let whole = request(&announce(&torrent(1), 1, ""));
    let mut client = Plain::connect(tracker.address());
    for cut in 1..whole.len() {
        client.send(&whole[..cut]);
        pause(1);
        client.send(&whole[cut..]);
        assert_eq!(client.response().announce().incomplete, Some(1), "cut at {cut}");
    }
}

#[test]
fn a_client_that_receives_late_gets_everything() {
    let tracker = start(&[]);
    let mut client = Plain::connect(tracker.address());
    for port in 1..=60 {
        client.get(&announce(&torrent(1), port, ""));
    }
    SockRef::from(&client.stream).set_recv_buffer_size(32 * 1024).unwrap();
    let mut reading = Client::over(client.stream.try_clone().unwrap());
    const REQUESTS: usize = 6000;
    let sender = std::thread::spawn(move || {
        let one = request(&announce(&torrent(1), 1, ""));
        let ten = one.repeat(10);
        (0..REQUESTS / 10).for_each(|_| client.send(&ten));
    });
    // Some 3 MB of replies do not fit into the buffers of the sockets.
    pause(500);
    for number in 0..REQUESTS {
        assert_eq!(reading.response().peers().len(), 50, "response {number}");
    }
    sender.join().unwrap();
}
