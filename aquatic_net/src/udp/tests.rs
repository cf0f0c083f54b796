//! The UDP transport over loopback.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket as StdSocket};
use std::time::Duration;

use aquatic_common::InfoHash;
use aquatic_runtime::ListenSockets;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{BATCH, Batch, BindOptions, REQUEST_CAPACITY, SendErrors, UdpSocket, bind_group};
use aquatic_common::steering::Steering;

type Receive = fn(&mut Batch, &UdpSocket) -> std::io::Result<usize>;

const OPTIONS: BindOptions = BindOptions { receive_buffer: 4_000_000, steering: true };

fn group(address: &str, cores: usize) -> (Vec<UdpSocket>, Steering) {
    let steering = Steering::new(cores, [3; 8]);
    let sockets =
        bind_group(address.parse().unwrap(), &OPTIONS, &steering, &mut ListenSockets::default()).unwrap();
    (sockets, steering)
}

fn client(address: &str) -> StdSocket {
    let client = StdSocket::bind(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client
}

/// Answers every packet with its own bytes until `count` have been answered.
fn echo(socket: &UdpSocket, count: usize) {
    echo_by(socket, count, Batch::receive);
}

fn echo_by(
    socket: &UdpSocket,
    count: usize,
    receive: impl Fn(&mut Batch, &UdpSocket) -> std::io::Result<usize>,
) {
    let (mut batch, mut errors, mut answered) = (Batch::new(), SendErrors::default(), 0);
    while answered < count {
        let received = receive(&mut batch, socket).unwrap();
        for at in 0..received {
            let request = batch.request(at).to_vec();
            batch.reply_buffer(at)[..request.len()].copy_from_slice(&request);
            batch.set_reply_len(at, request.len());
        }
        assert!(batch.send(socket, &mut errors));
        answered += received;
    }
    assert_eq!(errors, SendErrors::default());
}

#[test]
fn replies_come_from_the_address_contacted() {
    for (any, contacted, from) in [
        ("0.0.0.0:0", "127.0.0.3", "127.0.0.1:0"),
        ("[::]:0", "::1", "[::1]:0"),
        ("127.0.0.2:0", "127.0.0.2", "127.0.0.1:0"),
    ] {
        let (sockets, _) = group(any, 1);
        let target = SocketAddr::new(contacted.parse().unwrap(), sockets[0].address().port());
        let client = client(from);
        for (receive, count) in [(Batch::receive as Receive, 1), (Batch::receive, 3), (Batch::receive_one, 3)]
        {
            for _ in 0..count {
                client.send_to(b"hello", target).unwrap();
            }
            echo_by(&sockets[0], count, receive);
            for _ in 0..count {
                let mut buffer = [0; 16];
                let (len, source) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..len], source), (&b"hello"[..], target));
            }
        }
    }
}

#[test]
fn one_datagram_is_received_as_in_a_batch() {
    for any in ["127.0.0.1:0", "0.0.0.0:0"] {
        let (sockets, _) = group(any, 1);
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, sockets[0].address().port()));
        let client = client("127.0.0.1:0");
        let mut batch = Batch::new();
        assert_eq!(batch.receive_one(&sockets[0]).unwrap(), 0);
        for length in [0, 1, 98, REQUEST_CAPACITY, REQUEST_CAPACITY + 1] {
            client.send_to(&vec![7; length], target).unwrap();
            client.send_to(&[8; 3], target).unwrap();
            assert_eq!(batch.receive_one(&sockets[0]).unwrap(), 1);
            assert_eq!(batch.request(0), vec![7; length.min(REQUEST_CAPACITY)]);
            assert_eq!(batch.is_truncated(0), length > REQUEST_CAPACITY);
            assert_eq!(batch.source(0), Some(client.local_addr().unwrap()));
            assert_eq!(batch.receive(&sockets[0]).unwrap(), 1);
            assert_eq!((batch.request(0), batch.is_truncated(0)), (&[8; 3][..], false));
        }
    }
}

#[test]
fn batches_of_any_size_follow_each_other() {
    let (sockets, _) = group("127.0.0.1:0", 1);
    let client = client("127.0.0.1:0");
    client.connect(sockets[0].address()).unwrap();
    let mut batches = [Batch::new(), Batch::new()];
    let mut number = 0_u8;
    for (count, at) in
        [(1, 0), (BATCH, 0), (2, 1), (1, 0), (5, 0), (0, 0), (BATCH, 1), (3, 0), (1, 1), (BATCH, 0)]
    {
        for sent in 0..count {
            client.send(&vec![number.wrapping_add(sent as u8); 20 + sent]).unwrap();
        }
        let batch = &mut batches[at];
        assert_eq!(batch.receive(&sockets[0]).unwrap(), count);
        for received in 0..count {
            assert_eq!(batch.request(received), vec![number.wrapping_add(received as u8); 20 + received]);
            assert_eq!(batch.source(received), Some(client.local_addr().unwrap()));
        }
        number = number.wrapping_add(100);
    }
}

#[test]
fn batches_keep_order_and_content() {
    let (sockets, _) = group("127.0.0.1:0", 1);
    let client = client("127.0.0.1:0");
    client.connect(sockets[0].address()).unwrap();
    let count = BATCH * 2 + 7;
    for number in 0..count {
        client.send(&vec![number as u8; 1 + number]).unwrap();
    }
    echo(&sockets[0], count);
    let mut buffer = [0; 2048];
    for number in 0..count {
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], &vec![number as u8; 1 + number]);
    }
}

#[test]
fn oversized_packets_are_marked_and_refused_replies_counted() {
    let (sockets, _) = group("127.0.0.1:0", 1);
    let client = client("127.0.0.1:0");
    client.send_to(&[1; 3000], sockets[0].address()).unwrap();
    let mut batch = Batch::new();
    assert_eq!(batch.receive(&sockets[0]).unwrap(), 1);
    assert!(batch.is_truncated(0));
    assert_eq!(batch.request(0).len(), REQUEST_CAPACITY);
    batch.clear();
    let at = batch.push(super::ReturnPath::to(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap();
    batch.set_reply_len(at, 10);
    let mut errors = SendErrors::default();
    assert!(batch.send(&sockets[0], &mut errors));
    assert_eq!(errors, SendErrors { bad_address: 1, ..SendErrors::default() });
}

#[test]
fn kernel_steers_announces_to_their_owner() {
    let (sockets, steering) = group("127.0.0.1:0", 3);
    let address = sockets[0].address();
    assert!(sockets.iter().all(|socket| socket.address() == address));
    let mut rng = SmallRng::seed_from_u64(4);
    let client = client("127.0.0.1:0");
    let mut batch = Batch::new();
    for _ in 0..500 {
        let mut packet = [0_u8; 98];
        rng.fill(&mut packet[..]);
        client.send_to(&packet, address).unwrap();
        let owner = steering.owner(&InfoHash(packet[16..36].try_into().unwrap()));
        assert_eq!(batch.receive(&sockets[owner]).unwrap(), 1, "the packet is at its owner's socket");
        assert_eq!(batch.request(0), packet);
    }
}

#[test]
fn kernel_drops_are_visible() {
    let steering = Steering::new(1, [5; 8]);
    let options = BindOptions { receive_buffer: 4096, steering: true };
    let sockets =
        bind_group("127.0.0.1:0".parse().unwrap(), &options, &steering, &mut ListenSockets::default())
            .unwrap();
    let client = client("127.0.0.1:0");
    for _ in 0..100 {
        client.send_to(&[0; 1000], sockets[0].address()).unwrap();
    }
    let mut batch = Batch::new();
    let received = batch.receive(&sockets[0]).unwrap();
    assert!(received < 100);
    assert_eq!(sockets[0].queue().unwrap().dropped as usize, 100 - received);
}

#[test]
fn a_taken_port_is_refused() {
    let (sockets, steering) = group("127.0.0.1:0", 1);
    let error =
        bind_group(sockets[0].address(), &OPTIONS, &steering, &mut ListenSockets::default()).err().unwrap();
    assert!(error.to_string().contains(&sockets[0].address().to_string()), "{error}");
}
