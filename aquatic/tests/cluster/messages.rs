//! Messages that no node of the cluster has sent, or that one has sent before: counted, and dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use aquatic_common::AnnounceEvent;

use crate::support::REPLY;
use crate::{ARRIVAL, Cluster, Node, torrent, wait_for_counts};

/// A client of the NATS server without any library, which reads and writes on all subjects.
struct Intruder(BufReader<TcpStream>);

impl Intruder {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(ARRIVAL)).unwrap();
        let mut intruder = Self(BufReader::new(stream));
        intruder.write(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB aquatic.> 1\r\n");
        intruder
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    fn publish(&mut self, subject: &str, message: &[u8]) {
        let head = format!("PUB {subject} {}\r\n", message.len());
        self.write(&[head.as_bytes(), message, b"\r\n"].concat());
    }

    /// The next message on a subject.
    fn next(&mut self, wanted: &str) -> Vec<u8> {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["PING"] => self.write(b"PONG\r\n"),
                ["MSG", subject, .., length] => {
                    let mut message = vec![0; length.parse::<usize>().unwrap() + 2];
                    self.0.read_exact(&mut message).unwrap();
                    message.truncate(message.len() - 2);
                    if *subject == wanted {
                        return message;
                    }
                }
                _ => {}
            }
        }
    }
}

fn wait_for_refused(node: &Node, reason: &str, number: f64) {
    let series = format!("aquatic_cluster_messages_refused_total{{reason=\"{reason}\"");
    node.wait_for(&series, |refused| refused >= number);
}

#[test]
fn foreign_altered_and_repeated_messages_do_no_harm() {
    let Some(cluster) = Cluster::new() else { return };
    let mut intruder = Intruder::connect(cluster.server.port);
    let [a, b] = cluster.start_all(["a", "b"], &["workers=1"]);
    let (at_a, at_b) = (a.client(), b.client());
    at_a.announce(torrent(1), 1000, AnnounceEvent::Started);
    let subject = "aquatic.aquatic.changes.a.0";
    let batch = intruder.next(subject);
    wait_for_counts(&at_b, torrent(1), [0, 0, 1]);
    at_a.announce(torrent(1), 1000, AnnounceEvent::Stopped);
    wait_for_counts(&at_b, torrent(1), [0, 0, 0]);

    // The peer does not come back by a recorded message.
    for _ in 0..3 {
        intruder.publish(subject, &batch);
    }
    wait_for_refused(&b, "duplicate", 3.0);
    // Whoever has no secret cannot change a message. The fourth byte is the version of the format.
    for (at, reason) in [(batch.len() - 20, "secret"), (3, "version"), (0, "foreign")] {
        let mut altered = batch.clone();
        altered[at] ^= 0x40;
        intruder.publish(subject, &altered);
        wait_for_refused(&b, reason, 1.0);
    }
    let hello = intruder.next("aquatic.aquatic.hello.a");
    for at in 0..hello.len() {
        intruder.publish("aquatic.aquatic.hello.a", &hello[..at]);
    }
    for subject in ["control", "pull.b", "ws.b", "parts.b", "webtorrent.a.0"] {
        intruder.publish(&format!("aquatic.aquatic.{subject}"), &[0xff; 100]);
        intruder.publish(&format!("aquatic.aquatic.{subject}"), b"aqc");
    }
    // What is empty is left out: `aquatic doctor` sends that.
    wait_for_refused(&b, "foreign", 1.0 + 2.0 * 5.0);

    assert_eq!(at_b.leechers(torrent(1)), 0);
    b.wait_for("aquatic_cluster_nodes", |nodes| nodes == 2.0);
    at_a.socket.set_read_timeout(Some(REPLY)).unwrap();
    at_a.announce(torrent(2), 1000, AnnounceEvent::Started);
    wait_for_counts(&at_b, torrent(2), [0, 0, 1]);
}
