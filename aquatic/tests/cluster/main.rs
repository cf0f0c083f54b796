//! Clusters of real trackers with real NATS servers: what a client tells one node, clients of the others
//! hear.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed"
)]

mod failures;
#[allow(dead_code, reason = "shared with the tests of aquatic http")]
#[path = "../http/client.rs"]
mod http_client;
mod logins;
mod messages;
mod nats;
mod parts;
mod peers;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "shared with the tests of aquatic all")]
#[path = "../all/udp.rs"]
mod udp;
mod upgrades;
mod webtorrent;
#[allow(dead_code, reason = "shared with the tests of aquatic ws")]
#[path = "../ws/client.rs"]
mod ws_client;

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use aquatic_common::{AnnounceEvent, InfoHash};
use tempfile::TempDir;

use nats::Server;
use support::{Tracker, metric};
use udp::Client;

/// Longest wait for something to reach another node. Usually that takes 30 ms.
const ARRIVAL: Duration = Duration::from_secs(30);

/// A different torrent for each number, spread over all cores.
fn torrent(number: u32) -> InfoHash {
    let mut bytes = [7; 20];
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    InfoHash(bytes)
}

/// A NATS server, and the secret of its cluster.
struct Cluster {
    directory: TempDir,
    server: Server,
}

impl Cluster {
    /// `None` if the machine has no NATS server.
    fn new() -> Option<Self> {
        let Some(program) = nats::program() else {
            support::skip("nats-server");
            return None;
        };
        Some(Self { directory: tempfile::tempdir().unwrap(), server: Server::start(&program, &[]) })
    }

    fn command(&self, node: &str, settings: &[&str]) -> Command {
        self.command_for("udp", node, settings)
    }

    fn command_for(&self, service: &str, node: &str, settings: &[&str]) -> Command {
        let secret = nats::secret(self.directory.path(), "secret");
        let own = [
            "network.address_ipv4=127.0.0.1:0".to_owned(),
            "network.use_ipv6=false".to_owned(),
            "metrics.enable=true".to_owned(),
            "metrics.address=127.0.0.1:0".to_owned(),
            format!("cluster.servers={:?}", [self.server.url()]),
            format!("cluster.secret_file={}", secret.display()),
            format!("cluster.node={node}"),
        ];
        let all: Vec<&str> = own.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        support::service(service, &all)
    }

    fn start(&self, node: &str, settings: &[&str]) -> Node {
        Node(Tracker::start(1, &mut self.command(node, settings)))
    }

    /// Nodes with these names that know each other.
    fn start_all<const N: usize>(&self, names: [&str; N], settings: &[&str]) -> [Node; N] {
        let nodes = names.map(|name| self.start(name, settings));
        for node in &nodes {
            node.wait_for("aquatic_cluster_nodes", |nodes| nodes == N as f64);
            node.wait_for("aquatic_cluster_complete", |complete| complete == 1.0);
        }
        nodes
    }
}

/// A tracker of a cluster.
struct Node(Tracker);

impl Node {
    fn client(&self) -> Client {
        Client::connect(self.0.address())
    }

    fn metric(&self, series: &str) -> f64 {
        let address = self.0.metrics.unwrap();
        assert!(TcpStream::connect(address).is_ok(), "the tracker ended: {}", self.rest_of_log());
        metric(address, series)
    }

    /// What a tracker that has ended wrote to its log.
    fn rest_of_log(&self) -> String {
        let log = self.0.log.as_ref().unwrap();
        let mut rest = String::from_utf8_lossy(log.buffer()).into_owned();
        let mut file = File::from(log.get_ref().as_fd().try_clone_to_owned().unwrap());
        file.read_to_string(&mut rest).unwrap();
        rest
    }

    fn wait_for(&self, series: &str, holds: impl Fn(f64) -> bool) {
        wait(&format!("{series} of {}", self.0.address()), || self.metric(series), |value| holds(*value));
    }
}

/// Polls until a value holds. Fails after [`ARRIVAL`].
#[allow(clippy::disallowed_methods, reason = "the test waits for another process")]
fn wait<T: std::fmt::Debug>(what: &str, read: impl Fn() -> T, holds: impl Fn(&T) -> bool) -> T {
    const POLL: Duration = Duration::from_millis(20);
    // Reading may take seconds, where no reply is what is read.
    let begin = Instant::now();
    loop {
        let value = read();
        if holds(&value) {
            return value;
        }
        assert!(begin.elapsed() < ARRIVAL, "{what}: not within {ARRIVAL:?}: {value:?}");
        thread::sleep(POLL);
    }
}

/// Waits until a torrent has these numbers of seeders, completed downloads and leechers at a node.
fn wait_for_counts(client: &Client, info_hash: InfoHash, counts: [u32; 3]) {
    wait("counts", || client.scrape(info_hash), |found| *found == counts);
}

/// The peers that a leecher at port 9 gets. It leaves again.
fn peers(client: &Client, info_hash: InfoHash) -> Vec<SocketAddr> {
    let (peers, _) = client.announce(info_hash, 9, AnnounceEvent::None);
    client.announce(info_hash, 9, AnnounceEvent::Stopped);
    peers
}
