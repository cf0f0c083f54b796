//! A typical announce of a widespread client and its response. Run with `cargo bench -p
//! aquatic_http_protocol`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::net::{IpAddr, Ipv4Addr};

use aquatic_http_protocol::{
    AnnounceReply, DEFAULT_MAX_HEAD_LENGTH, Framing, Head, Parsed, Persistence, Reply, Request, Response,
};
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

/// Requests that differ only in hash and name, so that branches on coded and raw bytes are as hard to foresee
/// as they are in a tracker.
fn requests() -> Vec<Vec<u8>> {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..512)
        .map(|_| {
            let hash = coded((0..20).map(|_| random()));
            let name: String = (0..12).map(|_| char::from(b'a' + random() % 26)).collect();
            format!(
                "GET /announce?info_hash={hash}&peer_id=-qB4650-{name}&port=46397&uploaded=0&downloaded=0\
                 &left=1048576000&corrupt=0&key=9FC2E7A1&event=started&numwant=200&compact=1&no_peer_id=1\
                 &supportcrypto=1&redundant=0 HTTP/1.1\r\nHost: tracker.example.org\r\n\
                 User-Agent: qBittorrent/4.6.5\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
            )
            .into_bytes()
        })
        .collect()
}

fn coded(bytes: impl Iterator<Item = u8>) -> String {
    let code = |byte: u8| match char::from(byte) {
        raw if raw.is_ascii_alphanumeric() || "-._~".contains(raw) => raw.to_string(),
        _ => format!("%{byte:02x}"),
    };
    bytes.map(code).collect()
}

const FRAMING: Framing = Framing::new(Persistence::Default);
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

#[divan::bench(sample_size = 1024)]
fn decode_announce(bencher: Bencher<'_, '_>) {
    let requests = requests();
    let mut next = requests.iter().cycle();
    bencher.bench_local(|| match Request::parse(black_box(next.next().unwrap()), DEFAULT_MAX_HEAD_LENGTH) {
        Parsed::Complete((_, request)) => Some(black_box(request)).is_some(),
        Parsed::NeedMore | Parsed::Refused(_) => panic!("a request"),
    });
}

#[divan::bench(sample_size = 1024)]
fn decode_head_only(bencher: Bencher<'_, '_>) {
    let requests = requests();
    let mut next = requests.iter().cycle();
    bencher.bench_local(|| match Head::parse(black_box(next.next().unwrap()), DEFAULT_MAX_HEAD_LENGTH) {
        Parsed::Complete(head) => black_box(head).length,
        Parsed::NeedMore | Parsed::Refused(_) => panic!("a head"),
    });
}

/// What each byte costs of a head that comes in byte by byte, at its longest.
#[divan::bench(sample_size = 1024)]
fn incomplete_head_of_8_kib(bencher: Bencher<'_, '_>) {
    let field = format!("X-Field: {}\r\n", "x".repeat(120));
    let mut request = format!("GET /announce HTTP/1.1\r\n{}", field.repeat(63)).into_bytes();
    request.truncate(DEFAULT_MAX_HEAD_LENGTH - 1);
    bencher.bench_local(|| Head::parse(black_box(&request), DEFAULT_MAX_HEAD_LENGTH) == Parsed::NeedMore);
}

#[divan::bench(sample_size = 1024)]
fn encode_announce_of_50_peers(bencher: Bencher<'_, '_>) {
    let reply = reply();
    let mut buffer = [0; 1024];
    bencher.bench_local(|| black_box(&reply).encode(black_box(FRAMING), black_box(&mut buffer)));
}

/// What handing over the peers in a slice of their own costs: one copy.
#[divan::bench(sample_size = 1024)]
fn copy_of_50_peers(bencher: Bencher<'_, '_>) {
    let mut buffer = [0; 300];
    bencher.bench_local(|| black_box(&mut buffer).copy_from_slice(black_box(&PEERS)));
}

#[divan::bench(sample_size = 1024)]
fn read_announce_reply_of_50_peers(bencher: Bencher<'_, '_>) {
    let mut buffer = [0; 1024];
    let length = reply().encode(FRAMING, &mut buffer).unwrap();
    bencher.bench_local(|| match Response::parse(black_box(&buffer[..length]), false) {
        Parsed::Complete(response) => Reply::parse(response.body).is_ok(),
        Parsed::NeedMore | Parsed::Refused(_) => false,
    });
}
