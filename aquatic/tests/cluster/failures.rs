//! What fails, and what then still works.

use aquatic_common::AnnounceEvent;

use crate::nats;
use crate::support::{Ends, Tracker};
use crate::{Cluster, Node, peers, torrent, wait_for_counts};

#[test]
fn nodes_serve_alone_without_nats_and_agree_again_afterwards() {
    let Some(mut cluster) = Cluster::new() else { return };
    let [mut a, b] = cluster.start_all(["a", "b"], &["workers=2"]);
    cluster.server.stop();
    a.0.wait_for_log("the connection to NATS is lost");
    b.wait_for("aquatic_cluster_connected", |connected| connected == 0.0);
    let (at_a, at_b) = (a.client(), b.client());
    for number in 0..100 {
        at_a.announce(torrent(number), 1000, AnnounceEvent::Started);
    }
    assert_eq!(at_b.leechers(torrent(1)), 0);
    // A node starts without it, too.
    let alone = cluster.start("c", &[]);
    assert_eq!(peers(&alone.client(), torrent(1)), []);

    cluster.server.restart();
    a.0.wait_for_log("connected to NATS again");
    for number in 0..100 {
        wait_for_counts(&at_b, torrent(number), [0, 0, 1]);
    }
    for node in [&a, &b, &alone] {
        node.wait_for("aquatic_cluster_nodes", |nodes| nodes == 3.0);
        node.wait_for("aquatic_peers{", |peers| peers == 100.0);
    }
}

#[test]
fn a_killed_node_is_missed_and_its_peers_stay() {
    let Some(cluster) = Cluster::new() else { return };
    let [a, b] = cluster.start_all(["a", "b"], &[]);
    a.client().announce(torrent(1), 1000, AnnounceEvent::Started);
    let client = b.client();
    wait_for_counts(&client, torrent(1), [0, 0, 1]);
    a.0.signal("KILL");
    b.wait_for("aquatic_cluster_nodes", |nodes| nodes == 1.0);
    assert_eq!(client.leechers(torrent(1)), 1);
    // It comes back under the same name, knows nothing, and asks.
    let again = cluster.start("a", &[]);
    wait_for_counts(&again.client(), torrent(1), [0, 0, 1]);
}

#[test]
fn messages_under_another_secret_are_counted_and_dropped() {
    let Some(cluster) = Cluster::new() else { return };
    let other = nats::secret(cluster.directory.path(), "other");
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &[&format!("cluster.secret_file={}", other.display())]);
    b.client().announce(torrent(1), 1000, AnnounceEvent::Started);
    a.wait_for("aquatic_cluster_messages_refused_total{reason=\"secret\"", |refused| refused >= 2.0);
    assert_eq!(a.metric("aquatic_cluster_nodes"), 1.0);
    assert_eq!(a.client().leechers(torrent(1)), 0);
}

#[test]
fn a_tracker_that_cannot_use_its_files_does_not_start() {
    let Some(cluster) = Cluster::new() else { return };
    let refused = |settings: &[&str]| {
        let output = cluster.command("a", settings).arg("--check-config").ends();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (setting, text) in [
        ("cluster.secret_file=/nonexistent", "cluster.secret_file"),
        ("cluster.secret_file=", "openssl rand -base64 48"),
        ("cluster.servers=[\"http://127.0.0.1\"]", "nats://"),
        ("cluster.node=a.b", "cluster.node"),
        ("cluster.nkey_file=/nonexistent", "cluster.nkey_file"),
        ("cluster.key_file=key.pem", "cluster.certificate_file"),
        ("cluster.replicas=9", "cluster.replicas"),
    ] {
        let (code, log) = refused(&[setting]);
        assert!(code == Some(1) && log.contains(text), "{setting}: {log}");
    }
    assert_eq!(refused(&[]).0, Some(0));
}

#[test]
fn confined_trackers_take_part_and_leave_when_they_stop() {
    let Some(cluster) = Cluster::new() else { return };
    let is_root = rustix::process::geteuid().is_root();
    let root = tempfile::tempdir().unwrap();
    let chroot = format!("privileges.chroot_path={}", root.path().display());
    let confined = ["privileges.drop_privileges=true", chroot.as_str()];
    let settings = if is_root { &confined[..] } else { &[] };
    let a = Node(Tracker::start(1, &mut cluster.command("a", settings)));
    let mut b = cluster.start("b", &[]);
    b.wait_for("aquatic_cluster_nodes", |nodes| nodes == 2.0);
    a.client().announce(torrent(1), 1000, AnnounceEvent::Started);
    wait_for_counts(&b.client(), torrent(1), [0, 0, 1]);
    a.0.signal("TERM");
    assert_eq!(a.0.end().0, Some(0));
    // At once, and not only when it has been silent for ten seconds.
    b.0.wait_for_log("cluster: node a has left");
    b.wait_for("aquatic_cluster_nodes", |nodes| nodes == 1.0);
}
