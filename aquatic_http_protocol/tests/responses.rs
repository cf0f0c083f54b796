//! Whole responses, byte for byte, and the same as clients read them.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::net::IpAddr;

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};
use aquatic_http_protocol::{
    ANNOUNCE_REPLY_OVERHEAD, AnnounceFields, AnnounceReply, AnnounceView, BencodeError, BufferTooSmall,
    ClientHeaders, FailureReply, FailureView, Framing, Parsed, Persistence, PlainReply, Reply, ReplyError,
    Response, ResponseError, Retry, ScrapeFile, ScrapeReply, Status, encode_scrape_request, is_canonical,
};

const OPEN: Framing = Framing::new(Persistence::Default);
const NAMED: Framing = Framing::new(Persistence::KeepAlive);
const CLOSE: Framing = Framing::new(Persistence::Close);
const PEERS: [u8; 12] = [192, 0, 2, 1, 0x1a, 0xe1, 192, 0, 2, 2, 0, 80];
const PEERS6: [u8; 18] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x1a, 0xe1];

fn announce_reply<'a>(peers: &'a [u8], peers6: &'a [u8], external_ip: Option<IpAddr>) -> AnnounceReply<'a> {
    AnnounceReply {
        complete: 2,
        downloaded: 9,
        incomplete: 31,
        interval: 1800,
        min_interval: 900,
        external_ip,
        peers,
        peers6,
    }
}

/// What is written, checked for the announced length, the refusal of each smaller buffer and the order of
/// keys.
fn written(encode: impl Fn(&mut [u8]) -> Result<usize, BufferTooSmall>) -> Vec<u8> {
    let mut buffer = [0xa5; 2000];
    let length = encode(&mut buffer).unwrap();
    assert!(buffer[length..].iter().all(|&byte| byte == 0xa5), "wrote past the end");
    let bytes = buffer[..length].to_vec();
    for shorter in 0..length {
        assert_eq!(encode(&mut buffer[..shorter]), Err(BufferTooSmall { needed: length }));
    }
    bytes
}

fn response(bytes: &[u8]) -> Response<'_> {
    match Response::parse(bytes, false) {
        Parsed::Complete(response) => {
            assert_eq!(response.length, bytes.len());
            response
        }
        other @ (Parsed::NeedMore | Parsed::Refused(_)) => panic!("not a response: {other:?}"),
    }
}

#[test]
fn announce_reply_of_ipv4() {
    let reply = announce_reply(&PEERS, &[], Some([198, 51, 100, 7].into()));
    let bytes = written(|buffer| reply.encode(OPEN, buffer));
    let expected = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 136\r\n\r\n\
        d8:completei2e10:downloadedi9e11:external ip4:\xc6\x33\x64\x0710:incompletei31e8:intervali1800e\
        12:min intervali900e5:peers12:\xc0\0\x02\x01\x1a\xe1\xc0\0\x02\x02\0\x506:peers60:e";
    assert_eq!(bytes, expected, "{}", bytes.escape_ascii());
    assert_eq!(is_canonical(response(&bytes).body), Ok(true));
}

#[test]
fn announce_reply_of_both_families() {
    let address: IpAddr = "2001:db8::7".parse().unwrap();
    let reply = announce_reply(&PEERS, &PEERS6, Some(address));
    let bytes = written(|buffer| reply.encode(CLOSE, buffer));
    let response = response(&bytes);
    assert_eq!((response.status, response.keep_alive), (200, false));
    assert_eq!(is_canonical(response.body), Ok(true));
    let Ok(Reply::Announce(view)) = Reply::parse(response.body) else { panic!("an announce") };
    let expected = AnnounceView {
        complete: Some(2),
        downloaded: Some(9),
        incomplete: Some(31),
        interval: 1800,
        min_interval: Some(900),
        external_ip: Some(address),
        peers: Some(&PEERS),
        peers6: Some(&PEERS6),
        listed: None,
    };
    assert_eq!(view, expected);
    let v4: Vec<_> = view.peers_v4().map(|peer| peer.to_string()).collect();
    assert_eq!(v4, ["192.0.2.1:6881", "192.0.2.2:80"]);
    let v6: Vec<_> = view.peers_v6().map(|peer| peer.to_string()).collect();
    assert_eq!(v6, ["[2001:db8::1]:6881"]);
}

#[test]
fn peers_in_a_list_of_dictionaries_are_read() {
    let body = b"d8:intervali1800e5:peersld2:ip11:2001:db8::17:peer id1:x4:porti6881eed2:ip4:name4:porti1ee\
        d2:ip9:192.0.2.14:porti80eeee";
    let Ok(Reply::Announce(view)) = Reply::parse(body) else { panic!("an announce") };
    let peers: Vec<_> = view.listed.unwrap().addresses().map(|peer| peer.to_string()).collect();
    assert_eq!(peers, ["[2001:db8::1]:6881", "192.0.2.1:80"]);
    assert_eq!((view.interval, view.peers), (1800, None));
}

#[test]
fn announce_reply_without_peers_has_both_keys() {
    let bytes = written(|buffer| announce_reply(&[], &[], None).encode(NAMED, buffer));
    let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 103\r\nConnection: keep-alive\r\n\r\n\
        d8:completei2e10:downloadedi9e10:incompletei31e8:intervali1800e12:min intervali900e5:peers0:6:peers60:e";
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
}

#[test]
fn announce_reply_overhead_is_the_most_there_can_be() {
    let reply = AnnounceReply {
        complete: u32::MAX,
        downloaded: u32::MAX,
        incomplete: u32::MAX,
        interval: u32::MAX,
        min_interval: u32::MAX,
        external_ip: Some("2001:db8::7".parse().unwrap()),
        peers: &[1; 99_996],
        peers6: &[1; 99_990],
    };
    let mut buffer = vec![0; 300_000];
    let overhead = reply.encode(NAMED.no_store(), &mut buffer).unwrap() - 99_996 - 99_990;
    // Three lengths could have 20 digits each, and have 6, 5 and 5 here.
    assert_eq!(overhead + 14 + 15 + 15, ANNOUNCE_REPLY_OVERHEAD);
}

#[test]
fn head_has_the_length_of_the_body_it_does_not_send() {
    let reply = announce_reply(&PEERS, &PEERS6, None);
    let with = written(|buffer| reply.encode(OPEN, buffer));
    let without = written(|buffer| reply.encode(Framing { body: false, ..OPEN }, buffer));
    assert!(with.starts_with(&without));
    assert_eq!(with.len() - without.len(), response(&with).body.len());
}

fn file(byte: u8, count: u32) -> ScrapeFile {
    ScrapeFile {
        info_hash: InfoHash([byte; 20]),
        complete: count,
        downloaded: count + 1,
        incomplete: count + 2,
    }
}

#[test]
fn scrape_reply_is_sorted_and_has_each_torrent_once() {
    let mut bytes = [0; 1000];
    let mut files = [file(0xff, 5), file(b'a', 1), file(0, 3), file(b'a', 1)];
    let length =
        ScrapeReply { files: &mut files, min_request_interval: Some(900) }.encode(OPEN, &mut bytes).unwrap();
    let response = response(&bytes[..length]);
    let mut expected = b"d5:filesd20:".to_vec();
    expected.extend([0; 20]);
    expected.extend(b"d8:completei3e10:downloadedi4e10:incompletei5ee20:aaaaaaaaaaaaaaaaaaaa");
    expected.extend(b"d8:completei1e10:downloadedi2e10:incompletei3ee20:");
    expected.extend([0xff; 20]);
    expected
        .extend(b"d8:completei5e10:downloadedi6e10:incompletei7eee5:flagsd20:min_request_intervali900eee");
    assert_eq!(response.body, expected, "{}", response.body.escape_ascii());
    assert_eq!(is_canonical(response.body), Ok(true));
    let Ok(Reply::Scrape(view)) = Reply::parse(response.body) else { panic!("a scrape") };
    assert_eq!(view.files().collect::<Vec<_>>(), [file(0, 3), file(b'a', 1), file(0xff, 5)]);
    assert_eq!(view.min_request_interval, Some(900));
}

#[test]
fn scrape_reply_of_nothing() {
    let encode =
        |buffer: &mut [u8]| ScrapeReply { files: &mut [], min_request_interval: None }.encode(OPEN, buffer);
    let bytes = written(encode);
    assert_eq!(response(&bytes).body, b"d5:filesdee");
    let Ok(Reply::Scrape(view)) = Reply::parse(b"d5:filesdee") else { panic!("a scrape") };
    assert_eq!((view.files().count(), view.min_request_interval), (0, None));
}

#[test]
fn failure_replies() {
    let plain = FailureReply::new("no");
    let bytes = written(|buffer| plain.encode(OPEN, buffer));
    assert_eq!(response(&bytes).body, b"d14:failure reason2:noe");
    let full = FailureReply {
        interval: Some(1800),
        min_interval: Some(900),
        retry: Some(Retry::Minutes(5)),
        ..plain
    };
    let bytes = written(|buffer| full.encode(CLOSE, buffer));
    assert_eq!(response(&bytes).status, 200);
    assert_eq!(
        response(&bytes).body,
        b"d14:failure reason2:no8:intervali1800e12:min intervali900e8:retry ini5ee"
    );
    let expected = FailureView {
        reason: b"no",
        interval: Some(1800),
        min_interval: Some(900),
        retry: Some(Retry::Minutes(5)),
    };
    assert_eq!(Reply::parse(response(&bytes).body), Ok(Reply::Failure(expected)));
    let never = FailureReply { retry: Some(Retry::Never), ..plain };
    let bytes = written(|buffer| never.encode(OPEN, buffer));
    assert_eq!(response(&bytes).body, b"d14:failure reason2:no8:retry in5:nevere");
    assert_eq!(is_canonical(response(&bytes).body), Ok(true));
    let Ok(Reply::Failure(view)) = Reply::parse(b"d14:failure reason2:no8:retry in2:15e") else {
        panic!("a failure")
    };
    assert_eq!(view.retry, Some(Retry::Minutes(15)));
}

#[test]
fn plain_replies() {
    let bytes = written(|buffer| PlainReply::HEALTHY.encode(OPEN, buffer));
    let expected =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\r\nok\n";
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    let statuses = [
        (Status::Ok, 200),
        (Status::BadRequest, 400),
        (Status::NotFound, 404),
        (Status::MethodNotAllowed, 405),
        (Status::UriTooLong, 414),
        (Status::UpgradeRequired, 426),
        (Status::HeadTooLarge, 431),
        (Status::Unavailable, 503),
        (Status::VersionNotSupported, 505),
    ];
    for (status, number) in statuses {
        let bytes = written(|buffer| PlainReply::text(status, "why\n").encode(CLOSE, buffer));
        let response = response(&bytes);
        assert_eq!(
            (response.status, response.keep_alive, response.body),
            (number, false, b"why\n".as_slice())
        );
    }
}

#[test]
fn plain_replies_of_any_type_with_header_fields() {
    let fields = [("Allow", "GET, HEAD"), ("X-A", "")];
    let reply = PlainReply {
        status: Status::Ok,
        content_type: "application/json",
        headers: &fields,
        body: b"{}\xff",
    };
    let bytes = written(|buffer| reply.encode(CLOSE.no_store(), buffer));
    assert_eq!(bytes.len(), reply.length(CLOSE.no_store()));
    let expected =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\nAllow: GET, HEAD\r\n\
        X-A: \r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{}\xff";
    assert_eq!(bytes, expected, "{}", bytes.escape_ascii());
}

#[test]
fn replies_that_caches_must_not_store() {
    let field = b"\r\nCache-Control: no-store\r\n".as_slice();
    let has_field = |bytes: &[u8]| bytes.windows(field.len()).any(|window| window == field);
    let reply = announce_reply(&PEERS, &[], None);
    for framing in [OPEN, NAMED, CLOSE] {
        assert!(!has_field(&written(|buffer| reply.encode(framing, buffer))));
        assert!(has_field(&written(|buffer| reply.encode(framing.no_store(), buffer))));
        assert!(has_field(&written(|buffer| FailureReply::new("no").encode(framing.no_store(), buffer))));
    }
}

#[test]
fn responses_split_at_every_byte() {
    let bytes = written(|buffer| announce_reply(&PEERS, &PEERS6, None).encode(OPEN, buffer));
    for length in 0..bytes.len() {
        assert_eq!(Response::parse(&bytes[..length], false), Parsed::NeedMore);
        assert_eq!(Response::parse(&bytes[..length], true), Parsed::Refused(ResponseError::Truncated));
    }
    let twice = [&bytes[..], &bytes[..]].concat();
    let Parsed::Complete(response) = Response::parse(&twice, false) else { panic!("a response") };
    assert_eq!((response.length, response.keep_alive), (bytes.len(), true));
}

#[test]
fn responses_without_a_body_and_in_advance() {
    for (text, status, body, keep_alive) in [
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            200,
            "ok",
            true,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n", 304, "", true),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n", 101, "", true),
        ("HTTP/1.1 200 OK\r\nConnection: close, te\r\nContent-Length: 0\r\n\r\n", 200, "", false),
        ("HTTP/1.0 200 OK\r\nConnection: te, keep-alive\r\nContent-Length: 0\r\n\r\n", 200, "", true),
    ] {
        let response = response(text.as_bytes());
        assert_eq!(
            (response.status, response.body, response.keep_alive),
            (status, body.as_bytes(), keep_alive)
        );
        for length in 0..text.len() {
            assert_eq!(
                Response::parse(&text.as_bytes()[..length], false),
                Parsed::NeedMore,
                "{length} of {text}"
            );
        }
    }
    let many = "HTTP/1.1 100 Continue\r\n\r\n".repeat(20_000);
    assert_eq!(Response::parse(many.as_bytes(), false), Parsed::NeedMore);
    assert_eq!(Response::parse(many.as_bytes(), true), Parsed::Refused(ResponseError::Truncated));
}

#[test]
fn responses_of_other_servers() {
    let parse = |text: &'static str, ended| Response::parse(text.as_bytes(), ended);
    // Padded length, and the end of a line behind the body.
    let Parsed::Complete(response) =
        parse("HTTP/1.1 200 OK\r\nContent-Length: 14    \r\n\r\nd8:intervali1ee\r\n", false)
    else {
        panic!("a response")
    };
    assert_eq!((response.body.len(), response.keep_alive), (14, true));
    let Parsed::Complete(response) =
        parse("\r\nHTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", false)
    else {
        panic!("a response")
    };
    assert!(response.keep_alive);
    // The end of the connection is the end of the body.
    let closing = "HTTP/1.0 404 Not Found\r\n\r\nsorry";
    assert_eq!(parse(closing, false), Parsed::NeedMore);
    let Parsed::Complete(response) = parse(closing, true) else { panic!("a response") };
    assert_eq!((response.status, response.body, response.keep_alive), (404, b"sorry".as_slice(), false));
    for (text, error) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", ResponseError::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ResponseError::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx", ResponseError::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", ResponseError::Length),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ResponseError::Chunked),
        ("SSH-2.0", ResponseError::Malformed),
    ] {
        assert_eq!(parse(text, false), Parsed::Refused(error), "{text}");
    }
}

#[test]
fn bodies_that_are_no_reply() {
    for (body, error) in [
        ("", ReplyError::Bencode(BencodeError::Truncated)),
        ("le", ReplyError::Bencode(BencodeError::Unexpected(b'l'))),
        ("de", ReplyError::Unknown),
        ("d8:completei1ee", ReplyError::Unknown),
        ("d8:intervali1eex", ReplyError::Trailing),
        ("d8:intervali-1ee", ReplyError::Number),
        ("d8:intervali4294967296ee", ReplyError::Number),
        ("d8:intervali1e5:peers5:abcdee", ReplyError::PeersLength),
        ("d8:intervali1e6:peers66:abcdefe", ReplyError::PeersLength),
        ("d11:external ip5:abcdee", ReplyError::AddressLength),
        ("d5:filesd19:aaaaaaaaaaaaaaaaaaadeee", ReplyError::InfoHashLength),
        ("d14:failure reason1:x8:retry in4:soone", ReplyError::Number),
        ("d8:intervali1e5:peersli1eee", ReplyError::Bencode(BencodeError::Unexpected(b'i'))),
        ("d8:intervali1e5:peersld4:porti65536eeee", ReplyError::Number),
    ] {
        assert_eq!(Reply::parse(body.as_bytes()), Err(error), "{body}");
    }
    // Keys without order, unknown ones, and the end of a line behind it are no obstacle.
    let body = b"d5:peers0:1:xlli1eed1:ai2eee8:intervali7ee\r\n";
    let Ok(Reply::Announce(view)) = Reply::parse(body) else { panic!("an announce") };
    assert_eq!((view.interval, view.peers, view.peers6), (7, Some(b"".as_slice()), None));
}

#[test]
fn announce_request_as_it_is_written() {
    let fields = AnnounceFields {
        info_hash: InfoHash([0xe6; 20]),
        peer_id: PeerId(*b"-AQ0001-abcdefghijkl"),
        port: 6881,
        uploaded: 1,
        downloaded: 2,
        left: u64::MAX,
        event: AnnounceEvent::Started,
        key: 7,
        numwant: Some(50),
    };
    let origin = ClientHeaders { host: "[::1]:3000", user_agent: "test", keep_alive: true };
    let bytes = written(|buffer| fields.encode(&origin, buffer));
    let expected = format!(
        "GET /announce?info_hash={}&peer_id=-AQ0001-abcdefghijkl&port=6881&uploaded=1&downloaded=2\
         &left=18446744073709551615&key=7&event=started&numwant=50&compact=1&no_peer_id=1&supportcrypto=1 HTTP/1.1\r\n\
         Host: [::1]:3000\r\nUser-Agent: test\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n",
        "%E6".repeat(20)
    );
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
}

#[test]
fn scrape_request_as_it_is_written() {
    let origin = ClientHeaders { host: "a", user_agent: "b", keep_alive: false };
    let hashes = [InfoHash([b'x'; 20]), InfoHash([0; 20])];
    let bytes = written(|buffer| encode_scrape_request(&origin, &hashes, buffer));
    let expected = format!(
        "GET /scrape?info_hash=xxxxxxxxxxxxxxxxxxxx&info_hash={} HTTP/1.1\r\n\
         Host: a\r\nUser-Agent: b\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n",
        "%00".repeat(20)
    );
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
}
