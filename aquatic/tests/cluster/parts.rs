//! Nodes that divide the torrents among themselves (`cluster.mode = "partition"`).

use std::cell::RefCell;
use std::net::SocketAddr;

use aquatic_common::AnnounceEvent;
use aquatic_ws_protocol::OfferId;

use crate::http_client::{self, Plain as Http};
use crate::support::Tracker;
use crate::udp::Client;
use crate::ws_client::{Got, Plain as WebTorrent, answer_text, peer};
use crate::{Cluster, Node, torrent, wait};

const TORRENTS: u32 = 40;
const HELD: &str = "aquatic_cluster_parts{state=\"held\"";

impl Cluster {
    /// A node that serves UDP, HTTP and WebTorrent.
    fn start_divided(&self, name: &str, replicas: u32) -> Node {
        let replicas = format!("cluster.replicas={replicas}");
        let settings = ["workers=2", "cluster.mode=partition", replicas.as_str()];
        Node(Tracker::start(3, &mut self.command_for("all", name, &settings)))
    }

    /// Nodes with these names, each with its parts.
    fn start_all_divided<const N: usize>(&self, names: [&str; N], replicas: u32) -> [Node; N] {
        let nodes = names.map(|name| self.start_divided(name, replicas));
        wait_for_parts(&nodes.each_ref(), replicas);
        nodes
    }
}

/// Waits until each part is held by as many nodes, and all have received what they hold.
fn wait_for_parts(nodes: &[&Node], replicas: u32) {
    for node in nodes {
        node.wait_for("aquatic_cluster_nodes", |live| live == nodes.len() as f64);
    }
    let count = nodes.len() as u32;
    let held = || nodes.iter().map(|node| node.metric(HELD)).collect::<Vec<_>>();
    let all = f64::from(256 * replicas.min(count));
    // Nodes become holders one after another, and show that once a second: the sum alone may be right in
    // between. A node shows all parts before it knows a holder.
    let is_settled = |parts: &f64| *parts > 0.0 && (*parts < 256.0 || replicas >= count);
    wait("parts", held, |held| held.iter().all(is_settled) && held.iter().sum::<f64>() == all);
    for node in nodes {
        node.wait_for("aquatic_cluster_parts{state=\"receiving\"", |receiving| receiving == 0.0);
    }
}

fn requests(node: &Node, outcome: &str) -> f64 {
    node.metric(&format!("aquatic_part_requests_total{{outcome=\"{outcome}\""))
}

fn http(node: &Node) -> RefCell<Http> {
    RefCell::new(Http::connect(node.0.addresses[1]))
}

fn web_torrent(node: &Node) -> RefCell<WebTorrent> {
    RefCell::new(WebTorrent::connect(node.0.addresses[2]))
}

fn ports(mut peers: Vec<SocketAddr>) -> Vec<u16> {
    peers.sort_unstable();
    peers.iter().map(SocketAddr::port).collect()
}

/// Waits until a torrent has these numbers of seeders, completed downloads and leechers. A scrape that a
/// holder does not respond to in time gets no reply.
fn wait_for_counts(client: &Client, number: u32, counts: [u32; 3]) {
    let scrape = || client.try_scrape(torrent(number));
    wait(&format!("counts of torrent {number}"), scrape, |found| *found == Some(counts));
}

/// Announces a leecher over UDP until it gets the peers with these ports. A busy machine may take longer than
/// a holder has to respond.
fn announce_udp(client: &Client, number: u32, port: u16, expected: &[u16]) {
    let announce = || ports(client.announce(torrent(number), port, AnnounceEvent::None).0);
    wait(&format!("peers of torrent {number} over UDP"), announce, |found| found == expected);
}

/// The same over HTTP.
fn announce_http(client: &RefCell<Http>, number: u32, port: u16, expected: &[u16]) {
    let target = http_client::announce(&torrent(number), port, "");
    let announce = || ports(client.borrow_mut().get(&target).peers());
    wait(&format!("peers of torrent {number} over HTTP"), announce, |found| found == expected);
}

#[test]
fn any_node_answers_for_torrents_that_others_hold() {
    let Some(cluster) = Cluster::new() else { return };
    let nodes = cluster.start_all_divided(["a", "b", "c"], 1);
    let [a, b, c] = nodes.each_ref().map(|node| node.client());
    let [http_a, http_b, http_c] = nodes.each_ref().map(http);
    for number in 0..TORRENTS {
        announce_udp(&a, number, 1000, &[]);
        announce_http(&http_b, number, 2000, &[1000]);
        announce_udp(&c, number, 3000, &[1000, 2000]);
        announce_http(&http_a, number, 4000, &[1000, 2000, 3000]);
        for client in [&a, &b, &c] {
            wait_for_counts(client, number, [0, 0, 4]);
        }
        // Again, if a holder took too long and a request has been kept for later.
        let finish = || {
            a.announce_left(torrent(number), 1000, AnnounceEvent::Completed, 0);
            c.announce(torrent(number), 3000, AnnounceEvent::Stopped);
            b.try_scrape(torrent(number))
        };
        wait(&format!("counts of torrent {number}"), finish, |found| *found == Some([1, 1, 2]));
    }
    // Torrents of all nodes in one scrape.
    let all: Vec<_> = (0..TORRENTS).map(torrent).collect();
    for client in [&http_a, &http_b, &http_c] {
        let scrape = || {
            let response = client.borrow_mut().get(&http_client::scrape(&all));
            if response.body.starts_with(b"d14:failure") { Vec::new() } else { response.files() }
        };
        let files = wait("counts over HTTP", scrape, |files| files.len() == all.len());
        assert!(files.iter().all(|file| (file.complete, file.downloaded, file.incomplete) == (1, 1, 2)));
    }
    // Each peer is stored once, and each node stores some.
    let stored = || nodes.each_ref().map(|node| node.metric("aquatic_peers{swarms=\"bittorrent\""));
    let once = |stored: &[f64; 3]| stored.iter().sum::<f64>() == f64::from(3 * TORRENTS);
    let stored = wait("each peer once", stored, once);
    assert!(stored.iter().all(|peers| *peers > 0.0), "{stored:?}");
    for node in &nodes {
        assert!(requests(node, "answered") > 0.0 && requests(node, "served") > 0.0);
        assert_eq!(requests(node, "not_held") + requests(node, "malformed") + requests(node, "lost"), 0.0);
        assert_eq!(node.metric("aquatic_cluster_messages_refused_total"), 0.0);
    }
}

#[test]
fn webtorrent_clients_of_divided_nodes_meet() {
    let Some(cluster) = Cluster::new() else { return };
    let nodes = cluster.start_all_divided(["a", "b", "c"], 1);
    let [a, b, c] = nodes.each_ref().map(web_torrent);
    for number in 0..10 {
        let torrent = torrent(number);
        assert_eq!(a.borrow_mut().announce(torrent, peer(1), 10, &[]).counts(), (0, 1));
        for node in [&b, &c] {
            wait("leechers", || node.borrow_mut().leechers(torrent), |leechers| *leechers == 1);
        }
        assert_eq!(b.borrow_mut().announce(torrent, peer(2), 0, &["one"]).counts(), (1, 1));
        let Got::Offer { torrent: of, from, id, .. } = a.borrow_mut().next() else { panic!("no offer") };
        assert_eq!((of, from, &id), (torrent, peer(2), &OfferId::new("one").unwrap()));
        a.borrow_mut().answer(torrent, peer(1), peer(2), &id);
        let answer = Got::Answer { torrent, from: peer(1), id, text: answer_text() };
        assert_eq!(b.borrow_mut().next(), answer);
    }
}

#[test]
fn parts_move_when_a_node_is_killed_and_when_one_joins() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b, c] = cluster.start_all_divided(["a", "b", "c"], 2);
    let at_a = a.client();
    for number in 0..TORRENTS {
        announce_udp(&at_a, number, 1000, &[]);
    }
    let peers = |nodes: &[&Node]| {
        let peers = nodes.iter().map(|node| node.metric("aquatic_peers{swarms=\"bittorrent\""));
        peers.sum::<f64>()
    };
    wait("two copies of each peer", || peers(&[&a, &b, &c]), |peers| *peers == f64::from(2 * TORRENTS));
    let held_before = c.metric(HELD);
    assert!(held_before > 85.0 && held_before < 250.0, "{held_before}");

    c.0.signal("KILL");
    wait_for_parts(&[&a, &b], 2);
    wait("copies at those that are left", || peers(&[&a, &b]), |peers| *peers == f64::from(2 * TORRENTS));
    let at_b = b.client();
    for number in 0..TORRENTS {
        announce_udp(&at_b, number, 2000, &[1000]);
    }

    let again = cluster.start_divided("c", 2);
    // The same parts as before, and no others.
    again.wait_for(HELD, |held| held == held_before);
    wait_for_parts(&[&a, &b, &again], 2);
    let some = |own| own > 0.0 && own < f64::from(2 * TORRENTS);
    again.wait_for("aquatic_peers{swarms=\"bittorrent\"", some);
    let at_c = again.client();
    for number in 0..TORRENTS {
        announce_udp(&at_c, number, 2000, &[1000]);
        wait_for_counts(&at_a, number, [0, 0, 2]);
    }
}

#[test]
fn a_holder_that_does_not_respond_is_not_waited_for() {
    let Some(cluster) = Cluster::new() else { return };
    // As many as are answered well within the 8 s after which the other node may be gone.
    const ASKED: u32 = 10;
    let [a, b] = cluster.start_all_divided(["a", "b"], 1);
    let (at_a, http_a) = (a.client(), http(&a));
    for number in 0..ASKED {
        announce_udp(&at_a, number, 1000, &[]);
    }
    b.0.signal("STOP");
    // Each is answered, those of the other node without peers.
    let without_peers = |number: &u32| match number % 2 {
        0 => at_a.announce(torrent(*number), 2000, AnnounceEvent::None).0.is_empty(),
        _ => {
            let target = http_client::announce(&torrent(*number), 2000, "");
            http_a.borrow_mut().get(&target).peers().is_empty()
        }
    };
    let elsewhere = (0..ASKED).filter(without_peers).count();
    assert!((1..ASKED as usize).contains(&elsewhere), "{elsewhere}");
    let unanswered = ["timeout", "no_holder"].map(|outcome| requests(&a, outcome));
    assert!(unanswered[0] > 0.0 && unanswered.iter().sum::<f64>() >= elsewhere as f64, "{unanswered:?}");
    b.0.signal("CONT");
    a.wait_for("aquatic_part_requests_total{outcome=\"sent_later\"", |sent| sent > 0.0);
    let at_b = b.client();
    for number in 0..ASKED {
        for client in [&at_a, &at_b] {
            wait_for_counts(client, number, [0, 0, 2]);
        }
    }
    assert_eq!(requests(&a, "lost"), 0.0);
}

#[test]
fn a_divided_node_without_nats_answers_for_all_torrents() {
    let Some(mut cluster) = Cluster::new() else { return };
    let [a, b] = cluster.start_all_divided(["a", "b"], 1);
    cluster.server.stop();
    for node in [&a, &b] {
        node.wait_for(HELD, |held| held == 256.0);
    }
    let (at_a, at_b) = (a.client(), b.client());
    for number in 0..TORRENTS {
        announce_udp(&at_a, number, 1000, &[]);
        announce_udp(&at_b, number, 2000, &[]);
    }
    cluster.server.restart();
    wait_for_parts(&[&a, &b], 1);
    for number in 0..TORRENTS {
        for client in [&at_a, &at_b] {
            wait_for_counts(client, number, [0, 0, 2]);
        }
    }
}
