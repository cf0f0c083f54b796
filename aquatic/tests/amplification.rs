//! What the tracker sends to those who have not shown that they own their address: never more bytes than they
//! sent. Otherwise a sender of forged packets could have it flood somebody else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::UdpSocket;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use support::{REPLY, Tracker, udp};

/// Fixed first bytes of a connect request (BEP 15).
const MAGIC: [u8; 8] = 0x0417_2710_1980_u64.to_be_bytes();

/// Packets of each kind.
const PACKETS: usize = 2000;

/// A client that never proves its address.
struct Unverified {
    socket: UdpSocket,
    rng: SmallRng,
}

impl Unverified {
    fn new(tracker: &Tracker) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(tracker.address()).unwrap();
        socket.set_read_timeout(Some(REPLY)).unwrap();
        Self { socket, rng: SmallRng::seed_from_u64(1) }
    }

    fn packet(&mut self, id: [u8; 8], action: u32, length: usize) -> Vec<u8> {
        let mut packet = vec![0; length];
        self.rng.fill_bytes(&mut packet);
        for (byte, value) in packet.iter_mut().zip(id.into_iter().chain(action.to_be_bytes())) {
            *byte = value;
        }
        packet
    }

    /// Sends a packet, and a connect request behind it. Returns the number of bytes that came back for the
    /// packet: replies come in the order of requests.
    fn bytes_for(&mut self, packet: &[u8]) -> usize {
        let last: u32 = self.rng.random();
        let mut connect = [0; 16];
        connect[..8].copy_from_slice(&MAGIC);
        connect[12..].copy_from_slice(&last.to_be_bytes());
        self.socket.send(packet).unwrap();
        self.socket.send(&connect).unwrap();
        let (mut received, mut reply) = (0, [0; 4096]);
        loop {
            let length = self.socket.recv(&mut reply).unwrap();
            if length == 16 && reply[4..8] == last.to_be_bytes() {
                return received;
            }
            received += length;
        }
    }
}

#[test]
fn unverified_clients_get_no_more_bytes_than_they_send() {
    let tracker = Tracker::start(
        1,
        &mut udp(&["workers=1", "network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0"]),
    );
    let mut client = Unverified::new(&tracker);
    let mut answered = 0;
    for _ in 0..PACKETS {
        let id = client.rng.random();
        let length = client.rng.random_range(0..=400);
        let packets = [
            client.packet(MAGIC, 0, 16),
            client.packet(MAGIC, 0, 16 + length),
            client.packet(id, 0, 16),
            client.packet(id, 1, 98),
            client.packet(id, 2, 16 + 20 * (length % 75)),
            client.packet(MAGIC, 1, 98),
            client.packet(MAGIC, 2, 36),
            client.packet(id, 3, length),
            client.packet(id, length as u32, length),
        ];
        for packet in packets {
            let bytes = client.bytes_for(&packet);
            assert!(bytes <= packet.len(), "{bytes} bytes for {} sent: {packet:?}", packet.len());
            answered += usize::from(bytes > 0);
        }
    }
    assert!(answered >= PACKETS, "connect requests are answered, {answered}");
}
