//! A typical announce of a widespread client and its answer. Run with `cargo bench -p aquatic_http_protocol`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::net::{IpAddr, Ipv4Addr};

use aquatic_http_protocol::{
    AnnounceReply, Answer, Connection, DEFAULT_MAX_HEAD_LENGTH, Framing, Head, Reply, Request, Taken,
};
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

const QBITTORRENT: &[u8] = b"GET /announce?info_hash=%e6%1a%9f%b4%8f4%c5%d1q%0d%00%be%f1B%2a%e9%9d%cc%b8%d7\
    &peer_id=-qB4650-9!sKv2Fb0e~D&port=46397&uploaded=0&downloaded=0&left=1048576000&corrupt=0&key=9FC2E7A1\
    &event=started&numwant=200&compact=1&no_peer_id=1&supportcrypto=1&redundant=0 HTTP/1.1\r\n\
    Host: tracker.example.org\r\nUser-Agent: qBittorrent/4.6.5\r\nAccept-Encoding: gzip\r\n\
    Connection: close\r\n\r\n";

const FRAMING: Framing = Framing { connection: Connection::Open, body: true };
const PEERS: [u8; 300] = [0x5a; 300];

fn reply() -> AnnounceReply<'static> {
    AnnounceReply {
        complete: 12,
        downloaded: 345,
        incomplete: 38,
        interval: 1823,
        min_interval: 911,
        external_ip: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        peers: &PEERS,
        peers6: &[],
    }
}

#[divan::bench]
fn decode_announce(bencher: Bencher<'_, '_>) {
    bencher.bench(|| Request::take(black_box(QBITTORRENT), DEFAULT_MAX_HEAD_LENGTH));
}

#[divan::bench]
fn decode_head_only(bencher: Bencher<'_, '_>) {
    bencher.bench(|| Head::take(black_box(QBITTORRENT), DEFAULT_MAX_HEAD_LENGTH));
}

#[divan::bench]
fn encode_announce_of_50_peers(bencher: Bencher<'_, '_>) {
    let reply = reply();
    let mut buffer = [0; 1024];
    bencher.bench_local(|| black_box(&reply).encode(black_box(FRAMING), black_box(&mut buffer)));
}

/// What handing over the peers in a slice of their own costs: one copy.
#[divan::bench]
fn copy_of_50_peers(bencher: Bencher<'_, '_>) {
    let mut buffer = [0; 300];
    bencher.bench_local(|| black_box(&mut buffer).copy_from_slice(black_box(&PEERS)));
}

#[divan::bench]
fn read_announce_reply_of_50_peers(bencher: Bencher<'_, '_>) {
    let mut buffer = [0; 1024];
    let length = reply().encode(FRAMING, &mut buffer).unwrap();
    bencher.bench_local(|| match Answer::take(black_box(&buffer[..length]), false) {
        Taken::Whole(answer) => Reply::parse(answer.body).is_ok(),
        Taken::NeedMore | Taken::Refused(_) => false,
    });
}
