//! Peers of one node at the others.

use std::net::SocketAddr;

use aquatic_common::AnnounceEvent;

use crate::support::{self, Tracker};
use crate::udp::Client;
use crate::{Cluster, Node, peers, torrent, wait_for_counts};

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn what_a_node_hears_the_others_know() {
    let Some(cluster) = Cluster::new() else { return };
    let nodes = cluster.start_all(["a", "b", "c"], &["workers=2"]);
    let [a, b, c] = nodes.each_ref().map(|node| node.client());
    let info_hash = torrent(1);

    a.announce(info_hash, 1000, AnnounceEvent::Started);
    for other in [&b, &c] {
        wait_for_counts(other, info_hash, [0, 0, 1]);
    }
    assert_eq!(peers(&b, info_hash), [loopback(1000)], "handed out by another node");
    // Its own leecher has left again, everywhere.
    wait_for_counts(&c, info_hash, [0, 0, 1]);

    a.announce_left(info_hash, 1000, AnnounceEvent::Completed, 0);
    for client in [&a, &b, &c] {
        wait_for_counts(client, info_hash, [1, 1, 0]);
    }
    let series = "aquatic_completed_downloads_total";
    nodes[0].wait_for(series, |completed| completed == 1.0);
    assert_eq!(
        nodes.each_ref().map(|node| node.metric(series)),
        [1.0, 0.0, 0.0],
        "counted where it was heard"
    );

    a.announce_left(info_hash, 1000, AnnounceEvent::Stopped, 0);
    for client in [&a, &b, &c] {
        wait_for_counts(client, info_hash, [0, 0, 0]);
    }
    // Counted once, although two nodes hear it.
    for client in [&a, &b] {
        client.announce(torrent(2), 1000, AnnounceEvent::None);
    }
    for client in [&a, &b, &c] {
        wait_for_counts(client, torrent(2), [0, 0, 1]);
    }
    for node in &nodes {
        assert_eq!(node.metric("aquatic_cluster_gaps_total"), 0.0);
        assert_eq!(node.metric("aquatic_cluster_messages_refused_total"), 0.0);
        node.wait_for("aquatic_cluster_requests_total{action=\"completed\"", |sum| sum == 1.0);
    }
}

#[test]
fn connection_ids_are_accepted_by_all_nodes() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b] = cluster.start_all(["a", "b"], &[]);
    let client = a.client();
    let moved = Client::moved(&client, b.0.address());
    moved.announce(torrent(2), 1000, AnnounceEvent::Started);
    wait_for_counts(&client, torrent(2), [0, 0, 1]);
    assert_eq!(b.metric("aquatic_dropped_total"), 0.0);
}

#[test]
fn a_node_that_starts_receives_what_the_others_know() {
    const TORRENTS: u32 = 3000;
    let Some(cluster) = Cluster::new() else { return };
    let [first, second] = cluster.start_all(["a", "b"], &["workers=2"]);
    let (a, b) = (first.client(), second.client());
    for number in 0..TORRENTS {
        let client = if number % 2 == 0 { &a } else { &b };
        client.announce(torrent(number), 1000, AnnounceEvent::Started);
    }
    first.wait_for("aquatic_peers{", |peers| peers == f64::from(TORRENTS));
    let third = cluster.start("c", &["workers=1"]);
    third.wait_for("aquatic_cluster_complete", |complete| complete == 1.0);
    third.wait_for("aquatic_peers{", |peers| peers == f64::from(TORRENTS));
    let c = third.client();
    assert_eq!(peers(&c, torrent(17)), [loopback(1000)]);
    // The donor goes, and the other one knows the peers of both.
    first.0.signal("TERM");
    assert_eq!(first.0.end().0, Some(0));
    second.wait_for("aquatic_cluster_nodes", |nodes| nodes == 2.0);
    assert_eq!(peers(&b, torrent(16)), [loopback(1000)]);
}

/// What `aquatic ctl` prints about the tracker behind a socket.
fn ctl(socket: &std::path::Path, words: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_aquatic"));
    let output = command.arg("ctl").arg("-s").arg(socket).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn commands_reach_all_nodes_if_they_are_meant_to() {
    let Some(cluster) = Cluster::new() else { return };
    let sockets = ["a", "b"].map(|name| cluster.directory.path().join(format!("{name}.sock")));
    let nodes = [("a", &sockets[0]), ("b", &sockets[1])]
        .map(|(name, socket)| cluster.start(name, &[&format!("control.socket_path={}", socket.display())]));
    for node in &nodes {
        node.wait_for("aquatic_cluster_nodes", |nodes| nodes == 2.0);
    }
    let (denied, blocked) = (torrent(1).to_string(), "192.0.2.0/24");
    ctl(&sockets[0], &["deny", &torrent(2).to_string()]);
    assert!(ctl(&sockets[0], &["--cluster", "deny", &denied]).contains("sent to all nodes"));
    ctl(&sockets[0], &["--cluster", "ban", blocked, "for", "2h"]);
    let at_b = || ctl(&sockets[1], &["bans"]);
    let bans = crate::wait("bans", at_b, |bans| bans.contains(&denied) && bans.contains(blocked));
    assert!(!bans.contains(&torrent(2).to_string()), "{bans}");
    assert!(ctl(&sockets[1], &["status"]).contains("2 node(s) of the cluster aquatic are live"));
}

/// Clients that stop at another node than the one that they announced to, a second later, and some that go on
/// at the first one. Times are kept in steps of 16 seconds, so nearly all of this happens in one.
#[test]
fn stops_at_other_nodes_are_final_and_returns_are_kept() {
    const CLIENTS: u16 = 40;
    let Some(cluster) = Cluster::new() else { return };
    let nodes = cluster.start_all(["a", "b", "c"], &[]);
    let [a, b, c] = nodes.each_ref().map(|node| node.client());
    let counts = |leechers: u16| [0, 0, leechers.into()];
    for client in 0..CLIENTS {
        a.announce(torrent(1), 1000 + client, AnnounceEvent::Started);
    }
    for node in [&b, &c] {
        wait_for_counts(node, torrent(1), counts(CLIENTS));
    }
    for client in 0..CLIENTS {
        b.announce(torrent(1), 1000 + client, AnnounceEvent::Stopped);
    }
    for node in [&a, &b, &c] {
        wait_for_counts(node, torrent(1), counts(0));
    }
    for client in 0..CLIENTS / 2 {
        a.announce(torrent(1), 1000 + client, AnnounceEvent::Started);
    }
    for node in [&a, &b, &c] {
        wait_for_counts(node, torrent(1), counts(CLIENTS / 2));
    }
    // A pull by the node that heard the stops changes nothing, nor does one from it.
    let fourth = cluster.start("d", &[]);
    fourth.wait_for("aquatic_cluster_complete", |complete| complete == 1.0);
    for node in [&a, &b, &c, &fourth.client()] {
        wait_for_counts(node, torrent(1), counts(CLIENTS / 2));
    }
}

#[test]
fn a_node_without_peers_is_no_donor_and_saved_peers_are_told_of() {
    let Some(cluster) = Cluster::new() else { return };
    let state = tempfile::tempdir().unwrap();
    let state = format!("state_directory={}", state.path().display());
    // Before there is a cluster.
    let alone = Node(Tracker::start(
        1,
        &mut support::service("udp", &["network.address_ipv4=127.0.0.1:0", "network.use_ipv6=false", &state]),
    ));
    alone.client().announce(torrent(5), 1000, AnnounceEvent::Started);
    alone.0.signal("TERM");
    assert_eq!(alone.0.end().0, Some(0));

    let oldest = Node(Tracker::start(1, &mut cluster.command_for("ws", "ws", &[])));
    oldest.wait_for("aquatic_cluster_complete", |complete| complete == 1.0);
    let first = cluster.start("a", &[]);
    first.wait_for("aquatic_cluster_complete", |complete| complete == 1.0);
    first.client().announce(torrent(6), 1001, AnnounceEvent::Started);
    let second = cluster.start("b", &[&state]);
    second.wait_for("aquatic_cluster_complete", |complete| complete == 1.0);
    for node in [&first, &second] {
        for number in [5, 6] {
            wait_for_counts(&node.client(), torrent(number), [0, 0, 1]);
        }
    }
}
