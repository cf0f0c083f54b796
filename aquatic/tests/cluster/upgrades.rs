//! A node is upgraded: its successor is the node started again, with all that the predecessor knew.

use std::fs;
use std::process::Command;

use aquatic_common::AnnounceEvent;

use crate::support::Tracker;
use crate::{Cluster, Node, torrent, wait, wait_for_counts};

/// The process that serves, whichever it is. Ended when dropped.
struct Serving<'a>(&'a std::path::Path);

impl Serving<'_> {
    fn pid(&self) -> String {
        fs::read_to_string(self.0.join("pid")).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let pid = self.pid();
        if !pid.is_empty() {
            let _ = Command::new("sh").args(["-c", "kill -s KILL \"$0\" 2>/dev/null", &pid]).status();
        }
    }
}

#[test]
fn an_upgraded_node_stays_in_the_cluster_with_its_peers() {
    let Some(cluster) = Cluster::new() else { return };
    let state = cluster.directory.path().join("state");
    fs::create_dir(&state).unwrap();
    let setting = format!("state_directory={}", state.display());
    let serving = Serving(&state);
    let a = Node(Tracker::start(1, &mut cluster.command("a", &[&setting, "workers=2"])));
    let mut b = cluster.start("b", &["workers=2"]);
    for node in [&a, &b] {
        node.wait_for("aquatic_cluster_nodes", |nodes| nodes == 2.0);
        node.wait_for("aquatic_cluster_complete", |complete| complete == 1.0);
    }
    let (at_a, at_b) = (a.client(), b.client());
    for number in 0..100 {
        at_a.announce(torrent(number), 1000, AnnounceEvent::Started);
        at_b.announce(torrent(1000 + number), 1000, AnnounceEvent::Started);
    }
    for node in [&a, &b] {
        node.wait_for("aquatic_peers{", |peers| peers == 200.0);
    }

    // The line of the first time, so that the next one is that of the successor.
    b.0.wait_for_log("node a has joined");
    let before = wait("the pid", || serving.pid(), |pid| !pid.is_empty());
    let output =
        Command::new(env!("CARGO_BIN_EXE_aquatic")).args(["upgrade", "-s", &setting]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait("the pid of the successor", || serving.pid(), |pid| !pid.is_empty() && *pid != before);
    b.0.wait_for_log("node a has joined");
    for node in [&a, &b] {
        node.wait_for("aquatic_cluster_nodes", |nodes| nodes == 2.0);
        node.wait_for("aquatic_cluster_complete", |complete| complete == 1.0);
        node.wait_for("aquatic_peers{", |peers| peers == 200.0);
    }
    // With the socket and the connection id of before, and peers that are still the node's own.
    a.wait_for("aquatic_cluster_own_peers", |peers| peers == 100.0);
    at_a.announce(torrent(1), 1000, AnnounceEvent::Stopped);
    wait_for_counts(&at_b, torrent(1), [0, 0, 0]);
    at_a.announce(torrent(500), 1000, AnnounceEvent::Started);
    wait_for_counts(&at_b, torrent(500), [0, 0, 1]);
    at_b.announce(torrent(501), 1000, AnnounceEvent::Started);
    wait_for_counts(&at_a, torrent(501), [0, 0, 1]);
}
