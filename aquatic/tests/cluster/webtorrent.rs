//! WebTorrent clients of different nodes.

use std::cell::RefCell;

use aquatic_ws_protocol::{Description, OfferId};

use crate::support::Tracker;
use crate::wait;
use crate::ws_client::{Got, Plain, answer_text, peer, sdp};
use crate::{Cluster, Node, torrent};

impl Cluster {
    /// WebTorrent trackers with these names that know each other.
    fn start_webtorrent<const N: usize>(&self, names: [&str; N]) -> [Node; N] {
        let start = |name| Node(Tracker::start(1, &mut self.command_for("ws", name, &["workers=2"])));
        let nodes = names.map(start);
        for node in &nodes {
            node.wait_for("aquatic_cluster_nodes", |nodes| nodes == N as f64);
        }
        nodes
    }
}

impl Node {
    fn webtorrent(&self) -> Plain {
        Plain::connect(self.0.address())
    }
}

/// Waits until a torrent has these numbers of seeders, leechers and completed downloads.
fn wait_for(client: &RefCell<Plain>, number: u32, counts: [u32; 3]) {
    let read = || client.borrow_mut().scrape(&[torrent(number)])[0].1;
    wait(&format!("counts of torrent {number}"), read, |found| *found == counts);
}

#[test]
fn offers_and_answers_travel_between_nodes() {
    let Some(cluster) = Cluster::new() else { return };
    let nodes = cluster.start_webtorrent(["a", "b", "c"]);
    let [a, b, c] = nodes.each_ref().map(|node| RefCell::new(node.webtorrent()));
    // Several torrents, so that all cores own some.
    for number in 0..10 {
        let torrent = torrent(number);
        assert_eq!(a.borrow_mut().announce(torrent, peer(1), 10, &["early"]).counts(), (0, 1));
        for node in [&b, &c] {
            wait_for(node, number, [0, 1, 0]);
        }
        assert_eq!(b.borrow_mut().announce(torrent, peer(2), 0, &["one", "two"]).counts(), (1, 1));
        let Got::Offer { torrent: of, from, id, text } = a.borrow_mut().next() else { panic!("no offer") };
        assert_eq!((of, from), (torrent, peer(2)));
        assert_eq!((id.clone(), text), (OfferId::new("one").unwrap(), Description::write_offer(&sdp("one"))));
        a.borrow_mut().answer(torrent, peer(1), peer(2), &id);
        let answer = Got::Answer { torrent, from: peer(1), id: id.clone(), text: answer_text() };
        assert_eq!(b.borrow_mut().next(), answer);
        // A second answer is dropped.
        a.borrow_mut().answer(torrent, peer(1), peer(2), &id);
        // The leecher completes; each node counts the download once.
        // Which of an offer and the peer that made it is known first is not defined.
        let complete = || a.borrow_mut().announce(torrent, peer(1), 0, &[]).counts().0;
        wait("both seeders", complete, |seeders| *seeders == 2);
        for node in [&a, &b, &c] {
            wait_for(node, number, [2, 0, 1]);
        }
        b.borrow_mut().stop(torrent, peer(2));
        wait_for(&c, number, [1, 0, 1]);
    }
    b.borrow_mut().assert_quiet();
    drop(a);
    wait_for(&c, 3, [0, 0, 0]);
    for node in &nodes {
        assert_eq!(node.metric("aquatic_cluster_gaps_total"), 0.0);
        assert_eq!(node.metric("aquatic_cluster_messages_refused_total"), 0.0);
        assert_eq!(
            node.metric("aquatic_relays_dropped_total{protocol=\"ws\",reason=\"node_malformed\""),
            0.0
        );
    }
}

#[test]
fn a_client_that_moves_is_found_at_its_new_node() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b] = cluster.start_webtorrent(["a", "b"]);
    let (mut first, other) = (a.webtorrent(), RefCell::new(a.webtorrent()));
    first.announce(torrent(1), peer(1), 1, &[]);
    let own_peers = || a.metric("aquatic_cluster_own_peers{family=\"webtorrent\"");
    wait("the peer of the first connection", own_peers, |own| *own == 1.0);
    // It has lost its connection, and the first node does not know yet.
    let mut moved = b.webtorrent();
    assert_eq!(moved.announce(torrent(1), peer(1), 1, &[]).counts(), (0, 1));
    drop(first);
    wait("the end of the first connection", own_peers, |own| *own == 0.0);
    wait_for(&other, 1, [0, 1, 0]);
    assert_eq!(other.borrow_mut().announce(torrent(1), peer(2), 0, &["here"]).counts(), (1, 1));
    let (from, id) = moved.next().offer();
    moved.answer(torrent(1), peer(1), from, &id);
    assert!(matches!(other.borrow_mut().next(), Got::Answer { from, .. } if from == peer(1)));
}

#[test]
fn peers_of_a_node_go_with_it_and_come_back_with_those_that_connect_again() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b] = cluster.start_webtorrent(["a", "b"]);
    let (mut one, two) = (a.webtorrent(), RefCell::new(b.webtorrent()));
    two.borrow_mut().announce(torrent(2), peer(2), 0, &[]);
    one.announce(torrent(1), peer(1), 1, &[]);
    wait_for(&two, 1, [0, 1, 0]);
    a.0.signal("KILL");
    wait_for(&two, 1, [0, 0, 0]);
    // A node that starts hears of those that were there before.
    let again = Node(Tracker::start(1, &mut cluster.command_for("ws", "a", &["workers=2"])));
    let one = RefCell::new(again.webtorrent());
    wait_for(&one, 2, [1, 0, 0]);
    one.borrow_mut().announce(torrent(1), peer(1), 1, &[]);
    wait_for(&two, 1, [0, 1, 0]);
}
