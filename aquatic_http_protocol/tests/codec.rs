//! Any bytes at all: nothing panics, and what is written is what is read.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod properties;

use std::fs;
use std::num::NonZeroU16;
use std::path::Path;

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};
use aquatic_http_protocol::{
    ANNOUNCE_REPLY_OVERHEAD, AnnounceFields, AnnounceReply, AnnounceRequest, BufferTooSmall, ClientHeaders,
    DEFAULT_MAX_HEAD_LENGTH, FailureReply, FailureView, Framing, Head, Parsed, Persistence, Reply, Request,
    Response, Retry, ScrapeFile, ScrapeReply, encode_scrape_request, is_canonical,
};
use properties::check_bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::prop_assert_eq;
use proptest::test_runner::{Config, RngAlgorithm, TestRng};

/// Pieces of which requests and responses consist, and some that only look so.
const PIECES: [&str; 54] = [
    "GET ",
    "HEAD ",
    "POST ",
    "/announce",
    "/scrape",
    "/health",
    "/Announce.php",
    "/",
    "%20",
    "?info_hash=",
    "Event=",
    "\0",
    "?",
    "&",
    "=",
    "info_hash=",
    "peer_id=",
    "port=",
    "6881",
    "left=0",
    "numwant=-1",
    "compact=0",
    "event=started",
    "aaaaaaaaaaaaaaaaaaaa",
    "%00%ff%Fe%zz%",
    "%61",
    "+",
    " HTTP/1.1",
    " HTTP/1.0",
    " HTTP/2.0",
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "Host: a\r\n",
    "Connection: close\r\n",
    "Connection: upgrade, keep-alive\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Upgrade: websocket\r\n",
    "X: y\r\n",
    ": ",
    "HTTP/1.1 200 OK\r\n",
    "d",
    "e",
    "l",
    "i",
    "1",
    "5:peers",
    "0:",
    "8:interval",
    "5:files",
    "14:failure reason",
];

#[test]
fn random_bytes_of_every_length() {
    use proptest::prelude::Rng;
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    for length in 0..=128 {
        for _ in 0..16 {
            let mut bytes = vec![0; length];
            rng.fill_bytes(&mut bytes);
            check_bytes(&bytes);
            // The same behind the start of a request.
            check_bytes(&[b"GET /announce?info_hash=".as_slice(), &bytes, b" HTTP/1.1\r\n\r\n"].concat());
            check_bytes(&[b"GET /health HTTP/1.1\r\n".as_slice(), &bytes].concat());
        }
    }
}

#[test]
fn corpus_of_the_fuzz_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/http_request");
    let mut replayed = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        check_bytes(&fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 20, "only {replayed} files in {}", corpus.display());
}

fn event() -> impl Strategy<Value = AnnounceEvent> {
    prop_oneof![
        Just(AnnounceEvent::None),
        Just(AnnounceEvent::Started),
        Just(AnnounceEvent::Stopped),
        Just(AnnounceEvent::Completed),
        Just(AnnounceEvent::Paused),
    ]
}

fn framing() -> impl Strategy<Value = Framing> {
    prop_oneof![Just(Persistence::Default), Just(Persistence::KeepAlive), Just(Persistence::Close)]
        .prop_map(Framing::new)
}

fn announce_fields() -> impl Strategy<Value = AnnounceFields> {
    let ids = (any::<[u8; 20]>(), any::<[u8; 20]>(), 1..=u16::MAX, any::<u32>());
    let amounts = (any::<u64>(), any::<u64>(), prop_oneof![Just(0), any::<u64>()]);
    (ids, amounts, event(), option::of(any::<u32>())).prop_map(
        |((info_hash, peer_id, port, key), (uploaded, downloaded, left), event, numwant)| AnnounceFields {
            info_hash: InfoHash(info_hash),
            peer_id: PeerId(peer_id),
            port,
            uploaded,
            downloaded,
            left,
            event,
            key,
            numwant,
        },
    )
}

/// 20 bytes, and one of the ways to send each.
fn coded() -> impl Strategy<Value = ([u8; 20], Vec<u8>)> {
    (any::<[u8; 20]>(), any::<[u8; 20]>()).prop_map(|(bytes, forms)| {
        let mut text = Vec::new();
        for (byte, form) in bytes.into_iter().zip(forms) {
            // These bytes mean something else when they are not coded.
            let may_be_raw = !matches!(byte, b'%' | b'+' | b'&') && !byte.is_ascii_control();
            match form % 5 {
                _ if byte == b' ' && form & 8 == 0 => text.push(b'+'),
                0 => text.extend(format!("%{byte:02x}").bytes()),
                1 => text.extend(format!("%{byte:02X}").bytes()),
                2 => text.extend(format!("%{:x}{:X}", byte >> 4, byte & 0xf).bytes()),
                3 | 4 if may_be_raw => text.push(byte),
                _ => text.extend(format!("%{:X}{:x}", byte >> 4, byte & 0xf).bytes()),
            }
        }
        (bytes, text)
    })
}

/// A buffer of each smaller size is refused, and the error says what would do.
fn assert_too_small(length: usize, mut encode: impl FnMut(&mut [u8]) -> Result<usize, BufferTooSmall>) {
    let mut buffer = vec![0; length];
    for shorter in (0..length).step_by(1 + length / 64).chain([length - 1]) {
        assert_eq!(encode(&mut buffer[..shorter]), Err(BufferTooSmall { needed: length }));
    }
    assert_eq!(encode(&mut buffer), Ok(length));
}

fn body_of(bytes: &[u8], framing: Framing) -> &[u8] {
    let Parsed::Complete(response) = Response::parse(bytes, false) else { panic!("a response") };
    assert_eq!((response.status, response.length), (200, bytes.len()));
    assert_eq!(response.keep_alive, !framing.closes());
    assert_eq!(is_canonical(response.body), Ok(true));
    response.body
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    #[test]
    fn pieces_in_any_order(pieces in vec(0..PIECES.len(), 0..24)) {
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        check_bytes(text.as_bytes());
    }

    #[test]
    fn announces_of_any_shape(
        parameters in vec((0..PIECES.len(), "[a-z0-9=%+-]{0,24}"), 0..8),
        (hash, text) in coded(),
    ) {
        let mut request = b"GET /announce?".to_vec();
        for (piece, value) in parameters {
            request.extend(format!("{}{value}&", PIECES[piece].trim_end()).bytes());
        }
        request.extend([b"info_hash=", &text[..], b"&port=1 HTTP/1.1\r\n\r\n"].concat());
        check_bytes(&request);
        let announce = AnnounceRequest::parse(&[b"info_hash=", &text[..], b"&port=1"].concat());
        prop_assert_eq!(announce.map(|announce| announce.info_hash), Ok(InfoHash(hash)));
    }

    #[test]
    fn announce_request_round_trips(fields in announce_fields(), keep_alive in any::<bool>()) {
        let origin = ClientHeaders { host: "tracker.example.org:6969", user_agent: "test", keep_alive };
        let mut buffer = [0; 1000];
        let length = fields.encode(&origin, &mut buffer).unwrap();
        let expected = AnnounceRequest {
            info_hash: fields.info_hash,
            peer_id: Some(fields.peer_id),
            port: NonZeroU16::new(fields.port).unwrap(),
            is_seeder: fields.left == 0,
            event: fields.event,
            numwant: fields.numwant,
        };
        let Parsed::Complete((head, request)) = Request::parse(&buffer[..length], DEFAULT_MAX_HEAD_LENGTH) else {
            panic!("a request")
        };
        prop_assert_eq!(request, Request::Announce(expected));
        prop_assert_eq!((head.length, head.framing.closes()), (length, !keep_alive));
        prop_assert_eq!(head.headers.get("host"), Some(b"tracker.example.org:6969".as_slice()));
        check_bytes(&buffer[..length]);
        assert_too_small(length, |buffer| fields.encode(&origin, buffer));
    }

    #[test]
    fn scrape_request_round_trips(hashes in vec(any::<[u8; 20]>().prop_map(InfoHash), 1..60)) {
        let origin = ClientHeaders { host: "a", user_agent: "b", keep_alive: true };
        let mut buffer = [0; 8000];
        let length = encode_scrape_request(&origin, &hashes, &mut buffer).unwrap();
        let Parsed::Complete((_, Request::Scrape(scrape))) = Request::parse(&buffer[..length], DEFAULT_MAX_HEAD_LENGTH)
        else {
            panic!("a scrape")
        };
        prop_assert_eq!(scrape.info_hashes().collect::<Vec<_>>(), hashes);
    }

    #[test]
    fn announce_reply_round_trips(
        numbers in any::<[u32; 5]>(),
        external_ip in option::of(any::<std::net::IpAddr>()),
        peers in vec(any::<[u8; 6]>(), 0..80),
        peers6 in vec(any::<[u8; 18]>(), 0..40),
        framing in framing(),
    ) {
        let [complete, downloaded, incomplete, interval, min_interval] = numbers;
        let (peers, peers6) = (peers.concat(), peers6.concat());
        let reply = AnnounceReply {
            complete, downloaded, incomplete, interval, min_interval, external_ip, peers: &peers, peers6: &peers6,
        };
        let mut buffer = [0; 2000];
        let length = reply.encode(framing, &mut buffer).unwrap();
        assert!(length <= ANNOUNCE_REPLY_OVERHEAD + peers.len() + peers6.len());
        let Ok(Reply::Announce(view)) = Reply::parse(body_of(&buffer[..length], framing)) else { panic!("an announce") };
        prop_assert_eq!((view.complete, view.downloaded, view.incomplete), (Some(complete), Some(downloaded), Some(incomplete)));
        prop_assert_eq!((view.interval, view.min_interval, view.external_ip), (interval, Some(min_interval), external_ip));
        prop_assert_eq!((view.peers, view.peers6), (Some(&peers[..]), Some(&peers6[..])));
        assert_too_small(length, |buffer| reply.encode(framing, buffer));
        check_bytes(&buffer[..length]);
    }

    #[test]
    fn scrape_reply_round_trips(
        counts in vec((any::<[u8; 20]>(), any::<[u32; 3]>()), 0..60),
        repeated in 0..10_usize,
        min_request_interval in option::of(any::<u32>()),
        framing in framing(),
    ) {
        let mut files: Vec<_> = counts.into_iter().map(|(hash, [complete, downloaded, incomplete])| {
            ScrapeFile { info_hash: InfoHash(hash), complete, downloaded, incomplete }
        }).collect();
        files.extend_from_within(..repeated.min(files.len()));
        let mut buffer = [0; 8000];
        let length = ScrapeReply { files: &mut files, min_request_interval }.encode(framing, &mut buffer).unwrap();
        let Ok(Reply::Scrape(view)) = Reply::parse(body_of(&buffer[..length], framing)) else { panic!("a scrape") };
        prop_assert_eq!(view.min_request_interval, min_request_interval);
        files.dedup();
        prop_assert_eq!(view.files().collect::<Vec<_>>(), &files[..]);
        assert_too_small(length, |buffer| ScrapeReply { files: &mut files, min_request_interval }.encode(framing, buffer));
    }

    #[test]
    fn failure_reply_round_trips(
        reason in ".{0,60}",
        interval in option::of(any::<u32>()),
        min_interval in option::of(any::<u32>()),
        retry in option::of(prop_oneof![Just(Retry::Never), any::<u32>().prop_map(Retry::Minutes)]),
        framing in framing(),
    ) {
        let reply = FailureReply { reason: &reason, interval, min_interval, retry };
        let mut buffer = [0; 600];
        let length = reply.encode(framing, &mut buffer).unwrap();
        let expected = FailureView { reason: reason.as_bytes(), interval, min_interval, retry };
        prop_assert_eq!(Reply::parse(body_of(&buffer[..length], framing)), Ok(Reply::Failure(expected)));
        assert_too_small(length, |buffer| reply.encode(framing, buffer));
    }

    /// What is found by looking again is what the parser of the head found.
    #[test]
    fn headers_are_those_of_the_parser(
        headers in vec(("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", "[ -~\t\u{80}-\u{ff}]{0,20}", any::<bool>()), 0..20),
    ) {
        let lines: String = headers.iter()
            .map(|(name, value, bare)| format!("{name}:{value}{}", if *bare { "\n" } else { "\r\n" }))
            .collect();
        let request = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        let mut places = [httparse::EMPTY_HEADER; 64];
        let parsed = httparse::parse_headers(&request.as_bytes()[16..], &mut places);
        let Ok(httparse::Status::Complete((_, expected))) = parsed else { panic!("headers") };
        let expected: Vec<_> = expected.iter().map(|header| (header.name.as_bytes(), header.value)).collect();
        if let Parsed::Complete(head) = Head::parse(request.as_bytes(), DEFAULT_MAX_HEAD_LENGTH) {
            prop_assert_eq!(head.headers.iter().collect::<Vec<_>>(), expected);
        }
        check_bytes(request.as_bytes());
    }
}
