//! The real program over real sockets: what clients of a UDP tracker see, on one core and on two.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed"
)]

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::thread;

use aquatic_common::{AnnounceEvent, Family, InfoHash, PeerId};
use aquatic_udp_protocol::{
    AnnounceFields, AnnounceRequest, ConnectRequest, ConnectionId, Peers, Response, TransactionId,
    encode_scrape_request,
};

use support::{REPLY, Tracker, eventually, in_own_network, metric, skip, torrent, udp};

/// A client at an address of its own, with one connection id.
struct Client {
    socket: UdpSocket,
    id: ConnectionId,
}

impl Client {
    fn connect(local: &str, tracker: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(REPLY)).unwrap();
        // A connected socket receives only from the address it is connected to: replies from another one are
        // lost.
        socket.connect(tracker).unwrap();
        let mut client = Self { socket, id: ConnectionId([0; 8]) };
        let mut request = [0; 16];
        ConnectRequest::new(TransactionId::from_number(1)).encode(&mut request).unwrap();
        let reply = client.exchange(&request);
        match Response::parse(&reply, Family::V4).unwrap() {
            Response::Connect(connect) => client.id = connect.connection_id(),
            other => panic!("not a connect reply: {other:?}"),
        }
        client
    }

    fn exchange(&self, request: &[u8]) -> Vec<u8> {
        self.socket.send(request).unwrap();
        let mut reply = [0; 2048];
        let len = self.socket.recv(&mut reply).unwrap();
        reply[..len].to_vec()
    }

    /// Announces a leecher on port 1000; the peers it is told of, or the error.
    fn announce(&self, info_hash: InfoHash) -> Result<Vec<SocketAddr>, String> {
        self.announce_port(info_hash, 1000)
    }

    fn announce_port(&self, info_hash: InfoHash, port: u16) -> Result<Vec<SocketAddr>, String> {
        let fields = AnnounceFields {
            connection_id: self.id,
            transaction_id: TransactionId::from_number(2),
            info_hash,
            peer_id: PeerId([1; 20]),
            uploaded: 0,
            downloaded: 0,
            left: 1,
            event: AnnounceEvent::Started,
            key: 0,
            numwant: None,
            port,
        };
        let mut request = [0; 98];
        AnnounceRequest::new(&fields).encode(&mut request).unwrap();
        let reply = self.exchange(&request);
        match Response::parse(&reply, Family::of(self.socket.local_addr().unwrap().ip())).unwrap() {
            Response::Announce(announce) => Ok(match announce.peers {
                Peers::V4(peers) => peers.iter().map(|peer| peer.address().into()).collect(),
                Peers::V6(peers) => peers.iter().map(|peer| peer.address().into()).collect(),
            }),
            Response::Error(error) => Err(String::from_utf8(error.text.to_vec()).unwrap()),
            other => panic!("not an announce reply: {other:?}"),
        }
    }

    /// The leechers of these torrents.
    fn scrape(&self, info_hashes: &[InfoHash]) -> Vec<i32> {
        let mut request = [0; 2048];
        let transaction = TransactionId::from_number(3);
        let len = encode_scrape_request(self.id, transaction, info_hashes, &mut request).unwrap();
        match Response::parse(&self.exchange(&request[..len]), Family::V4).unwrap() {
            Response::Scrape(scrape) => scrape.counts.iter().map(|counts| counts.leechers()).collect(),
            other => panic!("not a scrape reply: {other:?}"),
        }
    }
}

/// Two cores serve as one tracker, whether the kernel hands packets to their owners or the cores do.
fn two_cores_are_one_tracker(steering: bool) {
    if thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return skip("second processor to steer to");
    }
    let settings = [
        "workers=2",
        "network.use_ipv6=false",
        "network.address_ipv4=127.0.0.1:0",
        &format!("udp.steering={steering}"),
        "metrics.enable=true",
        "metrics.address=127.0.0.1:0",
    ];
    let tracker = Tracker::start(1, &mut udp(&settings));
    let metrics = tracker.metrics.unwrap();
    let (one, other) = (
        Client::connect("127.0.0.1:0", tracker.address()),
        Client::connect("127.0.0.2:0", tracker.address()),
    );
    let torrents: Vec<InfoHash> = (0..200).map(torrent).collect();
    for &info_hash in &torrents {
        assert_eq!(one.announce(info_hash).unwrap(), []);
        assert_eq!(other.announce(info_hash).unwrap(), ["127.0.0.1:1000".parse().unwrap()]);
    }
    let forwarded = metric(metrics, "aquatic_forwarded_total");
    if steering {
        assert_eq!(forwarded, 0.0, "the kernel knows the owner of every torrent");
    } else {
        assert!(forwarded > 50.0, "about half of 400 announces arrive on the wrong core, not {forwarded}");
    }
    let mut asked = torrents[..73].to_vec();
    asked.insert(20, torrent(1_000_000));
    let mut expected = vec![2; 73];
    expected.insert(20, 0);
    assert_eq!(one.scrape(&asked), expected, "one reply, in the order asked, from both cores");
}

#[test]
fn two_cores_are_one_tracker_with_steering() {
    two_cores_are_one_tracker(true);
}

#[test]
fn two_cores_are_one_tracker_without_steering() {
    two_cores_are_one_tracker(false);
}

#[test]
fn several_addresses_of_both_families_are_one_tracker() {
    let settings =
        ["network.address_ipv4=[\"127.0.0.1:0\", \"127.0.0.5:0\"]", "network.address_ipv6=[::1]:0"];
    let tracker = Tracker::start(3, &mut udp(&settings));
    let [first, second, v6] = tracker.addresses[..] else { panic!("{:?}", tracker.addresses) };
    assert_eq!(second.ip().to_string(), "127.0.0.5");
    assert_eq!(Client::connect("127.0.0.1:0", first).announce(torrent(1)).unwrap(), []);
    let peers = Client::connect("127.0.0.2:0", second).announce(torrent(1)).unwrap();
    assert_eq!(peers, ["127.0.0.1:1000".parse().unwrap()]);
    let over_v6 = Client::connect("[::1]:0", v6);
    assert_eq!(over_v6.announce(torrent(1)).unwrap(), [], "replies over IPv6 carry IPv6 peers");
    assert_eq!(over_v6.scrape(&[torrent(1)]), [1]);
}

#[test]
fn replies_leave_from_the_address_contacted() {
    let tracker = Tracker::start(1, &mut udp(&["network.use_ipv6=false", "network.address_ipv4=0.0.0.0:0"]));
    for ip in ["127.0.0.1", "127.0.0.77"] {
        let contacted = SocketAddr::new(ip.parse().unwrap(), tracker.address().port());
        assert!(Client::connect("127.0.0.1:0", contacted).announce(torrent(1)).is_ok());
    }
}

/// Set for the process that a test has started in a network of its own.
const INSIDE: &str = "AQUATIC_TEST_IN_OWN_NETWORK";

/// Loopback has one address of IPv6 only, so others are added in a network that nobody else sees.
#[test]
fn replies_over_ipv6_leave_from_the_address_contacted() {
    if std::env::var_os(INSIDE).is_some() {
        return assert_replies_over_ipv6_leave_from_the_address_contacted();
    }
    let Some(mut command) = in_own_network() else { return skip("network namespaces") };
    let has_ip = Command::new("ip").arg("-V").output().is_ok();
    if !has_ip {
        return skip("program `ip` to add addresses with");
    }
    let script =
        "ip link set lo up && ip address add fd00::2/128 dev lo && ip address add fd00::3/128 dev lo &&
        exec \"$0\" --exact replies_over_ipv6_leave_from_the_address_contacted";
    let this = std::env::current_exe().unwrap();
    let output = command.args(["sh", "-c", script]).arg(this).env(INSIDE, "1").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn assert_replies_over_ipv6_leave_from_the_address_contacted() {
    // With and without the detour by another core.
    for steering in [true, false] {
        let steering = format!("udp.steering={steering}");
        let settings = ["network.use_ipv4=false", "network.address_ipv6=[::]:0", &steering];
        let tracker = Tracker::start(1, &mut udp(&settings));
        for (own, contacted) in [("[::1]:0", "fd00::2"), ("[fd00::3]:0", "fd00::2"), ("[fd00::3]:0", "::1")] {
            let contacted = SocketAddr::new(contacted.parse().unwrap(), tracker.address().port());
            let client = Client::connect(own, contacted);
            (0..20).for_each(|number| drop(client.announce(torrent(number)).unwrap()));
        }
    }
}

#[test]
fn what_is_served_refused_and_lost_is_counted_and_told() {
    const BURST: usize = 20_000;
    let settings = [
        "workers=1",
        "network.use_ipv6=false",
        "network.address_ipv4=127.0.0.1:0",
        // Room for a few packets.
        "udp.socket_recv_buffer_size=4096",
        "statistics.interval=1",
        "metrics.enable=true",
        "metrics.address=127.0.0.1:0",
    ];
    let mut tracker = Tracker::start(1, &mut udp(&settings));
    let metrics = tracker.metrics.unwrap();
    let client = Client::connect("127.0.0.1:0", tracker.address());
    client.announce(torrent(1)).unwrap();
    client.exchange(&[&client.id.0[..], &[0, 0, 0, 2, 0, 0, 0, 9]].concat());
    client.socket.send(&[0; 15]).unwrap();
    client.socket.send(&[&[9; 8][..], &[0, 0, 0, 1, 0, 0, 0, 9], &[0; 82]].concat()).unwrap();
    let counted = |series: &str| metric(metrics, &format!("aquatic_{series}"));
    for (series, expected) in [
        ("requests_total{protocol=\"udp\",family=\"ipv4\",action=\"connect\"}", 1.0),
        ("requests_total{protocol=\"udp\",family=\"ipv4\",action=\"announce\"}", 1.0),
        ("responses_total{protocol=\"udp\",family=\"ipv4\",action=\"error\"}", 1.0),
        ("refused_total{protocol=\"udp\",family=\"ipv4\",reason=\"full_scrape\"}", 1.0),
        ("dropped_total{protocol=\"udp\",family=\"ipv4\",reason=\"too_short\"}", 1.0),
        ("dropped_total{protocol=\"udp\",family=\"ipv4\",reason=\"bad_connection_id\"}", 1.0),
        ("dropped_total", 2.0),
        ("refused_total", 1.0),
        ("kernel_drops_total", 0.0),
    ] {
        eventually(|| (series, counted(series)), |(_, count)| *count == expected);
    }
    // Reports are about what happens between two of them, so some of it may come before the first.
    let mut missing = vec!["connect", "announce"];
    while !missing.is_empty() {
        Client::connect("127.0.0.1:0", tracker.address()).announce(torrent(1)).unwrap();
        let report = tracker.wait_for_log("statistics: requests per second: udp ipv4 ");
        missing.retain(|action| !report.contains(action));
    }

    (0..BURST).for_each(|_| drop(client.socket.send(&[0; 15])));
    tracker.wait_for_log("Packets dropped by the kernel because a receive buffer was full (udp, ipv4)");
    let lost = || counted("kernel_drops_total{protocol=\"udp\",family=\"ipv4\"}");
    let received = || counted("dropped_total{protocol=\"udp\",family=\"ipv4\",reason=\"too_short\"}") - 1.0;
    eventually(|| (lost(), received()), |(lost, received)| (lost + received) as usize == BURST);
}

/// Case U1: an address announces 3,000 ports, and 30 clients at other addresses one each.
#[test]
fn an_address_with_many_ports_does_not_fill_replies() {
    let settings = [
        "workers=1",
        "network.use_ipv6=false",
        "network.address_ipv4=127.0.0.1:0",
        "metrics.enable=true",
        "metrics.address=127.0.0.1:0",
    ];
    let tracker = Tracker::start(1, &mut udp(&settings));
    let metrics = tracker.metrics.unwrap();
    let many = Client::connect("127.0.0.1:0", tracker.address());
    for port in 1000..4000 {
        let peers = many.announce_port(torrent(1), port).unwrap();
        assert_eq!(peers.len(), 50.min(usize::from(port) - 1000), "answered, stored or not");
    }
    let others: Vec<Client> = (2..32)
        .map(|host| {
            let client = Client::connect(&format!("127.0.0.{host}:0"), tracker.address());
            client.announce(torrent(1)).unwrap();
            client
        })
        .collect();
    let stored = many.scrape(&[torrent(1)])[0] - 30;
    assert!((500..=512).contains(&stored), "{stored}");
    let refused =
        "aquatic_not_stored_total{swarms=\"bittorrent\",family=\"ipv4\",reason=\"max_peers_per_address\"}";
    eventually(|| metric(metrics, refused), |refused| *refused as i32 == 3000 - stored);
    let mut all = 0;
    for client in &others {
        let peers = client.announce(torrent(1)).unwrap();
        let of_many = peers.iter().filter(|peer| peer.ip() == many.socket.local_addr().unwrap().ip()).count();
        assert!(of_many <= 6, "{of_many} of {} peers", peers.len());
        all += peers.len() - of_many;
    }
    // Clients of the address itself get as many of its peers as they want.
    let peers = many.announce_port(torrent(1), 1000).unwrap();
    assert_eq!(peers.len(), 50);
    // Two addresses may be taken for one when they are counted for a reply.
    assert!(all >= 30 * 28, "{all} of {} others in 30 replies", 30 * 29);

    many.announce_port(torrent(2), 1000).unwrap();
    assert_eq!(others[0].announce(torrent(2)).unwrap(), ["127.0.0.1:1000".parse().unwrap()]);
}

#[test]
fn the_access_list_is_read_again_on_sigusr1() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    std::fs::write(&path, format!("{}\n", torrent(1))).unwrap();
    let settings = [
        "network.use_ipv6=false",
        "network.address_ipv4=127.0.0.1:0",
        "access_list.mode=deny",
        &format!("access_list.path={}", path.display()),
    ];
    let mut tracker = Tracker::start(1, &mut udp(&settings));
    let client = Client::connect("127.0.0.1:0", tracker.address());
    let refused = Err("this tracker does not serve this torrent".to_owned());
    assert_eq!(client.announce(torrent(1)), refused);
    assert_eq!(client.announce(torrent(2)), Ok(vec![]));
    assert_eq!(client.scrape(&[torrent(2)]), [1]);

    std::fs::write(&path, format!("{}\n", torrent(2))).unwrap();
    tracker.signal("USR1");
    tracker.wait_for_log("access list reloaded: 1 info hashes, 1 added, 1 removed");
    assert_eq!(client.announce(torrent(1)), Ok(vec![]));
    assert_eq!(client.announce(torrent(2)), refused);
    assert_eq!(client.scrape(&[torrent(2), torrent(1)]), [0, 1]);
}
