//! Whole requests as clients send them, and each fault known of other trackers as a test of its own.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::num::NonZeroU16;

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};
use aquatic_http_protocol::{
    AnnounceRequest, DEFAULT_MAX_HEAD_LENGTH, Fault, Framing, Head, HttpFault, Method, Parsed, Persistence,
    Refusal, Refused, Request, TrackerRoute, Version,
};

const HASH: &str = "aaaaaaaaaaaaaaaaaaaa";

const LIBTORRENT: &str = "GET /announce?info_hash=%e6%1a%9f%b4%8f4%c5%d1q%0d%00%be%f1B%2a%e9%9d%cc%b8%d7\
    &peer_id=-qB4650-9!sKv2Fb0e~D&port=46397&uploaded=0&downloaded=0&left=1048576000&corrupt=0&key=9FC2E7A1\
    &event=started&numwant=200&compact=1&no_peer_id=1&supportcrypto=1&redundant=0 HTTP/1.1\r\n\
    Host: tracker.example.org\r\nUser-Agent: qBittorrent/4.6.5\r\nAccept-Encoding: gzip\r\n\
    Connection: close\r\n\r\n";

const TRANSMISSION: &str = "GET /announce?info_hash=%E6%1A%9F%B4%8F4%C5%D1q%0D%00%BE%F1B%2A%E9%9D%CC%B8%D7\
    &peer_id=-TR4060-zv1y4m7n5f5e&port=51413&uploaded=0&downloaded=0&left=0&numwant=80&key=1937f92d\
    &compact=1&supportcrypto=1&event=completed&ipv6=2001%3Adb8%3A%3A1 HTTP/1.1\r\nHost: [2001:db8::2]:6969\r\n\
    User-Agent: Transmission/4.0.6\r\nAccept: */*\r\nAccept-Encoding: deflate, gzip, br, zstd\r\n\r\n";

const EXPECTED_HASH: InfoHash = InfoHash([
    0xe6, 0x1a, 0x9f, 0xb4, 0x8f, b'4', 0xc5, 0xd1, b'q', 0x0d, 0, 0xbe, 0xf1, b'B', 0x2a, 0xe9, 0x9d, 0xcc,
    0xb8, 0xd7,
]);

fn parse(bytes: &[u8]) -> Parsed<(Head<'_>, Request<'_>), Refused> {
    Request::parse(bytes, DEFAULT_MAX_HEAD_LENGTH)
}

#[track_caller]
fn complete(bytes: &[u8]) -> (Head<'_>, Request<'_>) {
    match parse(bytes) {
        Parsed::Complete(whole) => whole,
        other @ (Parsed::NeedMore | Parsed::Refused(_)) => panic!("not a request: {other:?}"),
    }
}

#[track_caller]
fn refused(bytes: &[u8]) -> Refused {
    match parse(bytes) {
        Parsed::Refused(refused) => refused,
        other @ (Parsed::NeedMore | Parsed::Complete(_)) => panic!("not refused: {other:?}"),
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// An announce that is complete but for what the test adds.
#[track_caller]
fn announce(added: &str) -> AnnounceRequest {
    match complete(get(&format!("/announce?info_hash={HASH}&peer_id={HASH}&port=1{added}")).as_bytes()) {
        (_, Request::Announce(announce)) => announce,
        (_, other @ (Request::Scrape(_) | Request::Health)) => panic!("not an announce: {other:?}"),
    }
}

#[track_caller]
fn assert_fault(target: &str, fault: Fault) {
    let request = get(target);
    let refused = refused(request.as_bytes());
    assert_eq!(refused.refusal, Refusal::Tracker(fault), "{target}");
    // The client is told, and may go on.
    assert_eq!(refused.length, request.len());
    assert_eq!(refused.framing, Framing::new(Persistence::Default));
    let mut response = [0; 300];
    let length = refused.encode(&mut response).unwrap();
    let response = String::from_utf8(response[..length].to_vec()).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    let reason = fault.reason();
    assert!(response.ends_with(&format!("d14:failure reason{}:{}e", reason.as_str().len(), reason.as_str())));
}

/// Returns the response.
#[track_caller]
fn assert_http_fault(request: &[u8], fault: HttpFault, line: &str) -> String {
    let refused = refused(request);
    assert_eq!(refused.refusal, Refusal::Http(fault));
    let mut response = [0; 300];
    let length = refused.encode(&mut response).unwrap();
    let response = String::from_utf8(response[..length].to_vec()).unwrap();
    assert!(response.starts_with(&format!("HTTP/1.1 {line}\r\n")), "{response}");
    assert_eq!(response.contains("\r\nConnection: close\r\n"), refused.framing.closes());
    response
}

#[test]
fn libtorrent_announce() {
    let (head, request) = complete(LIBTORRENT.as_bytes());
    let expected = AnnounceRequest {
        info_hash: EXPECTED_HASH,
        peer_id: Some(PeerId(*b"-qB4650-9!sKv2Fb0e~D")),
        port: NonZeroU16::new(46397).unwrap(),
        is_seeder: false,
        event: AnnounceEvent::Started,
        numwant: Some(200),
    };
    assert_eq!(request, Request::Announce(expected));
    assert_eq!(
        (head.method, head.version, head.path),
        (Method::Get, Version::Http11, b"/announce".as_slice())
    );
    assert_eq!((head.framing, head.length), (Framing::new(Persistence::Close), LIBTORRENT.len()));
    assert!(head.query.starts_with(b"info_hash=%e6") && head.query.ends_with(b"&redundant=0"));
    assert_eq!(head.headers.get("USER-AGENT"), Some(b"qBittorrent/4.6.5".as_slice()));
}

#[test]
fn transmission_announce() {
    let (head, request) = complete(TRANSMISSION.as_bytes());
    let Request::Announce(announce) = request else { panic!("an announce") };
    assert_eq!(announce.info_hash, EXPECTED_HASH);
    assert_eq!((announce.is_seeder, announce.event), (true, AnnounceEvent::Completed));
    assert_eq!((announce.port.get(), announce.numwant), (51413, Some(80)));
    assert_eq!(head.framing.persistence, Persistence::Default);
}

#[test]
fn probe_of_a_tracker_list() {
    let target = format!(
        "/announce?info_hash={HASH}&peer_id={HASH}&port=30461&uploaded=0&downloaded=0&left=0&compact=1\
         &ipv6=None&ipv4=None&ipv4=192.0.2.1"
    );
    assert!(matches!(complete(get(&target).as_bytes()).1, Request::Announce(_)));
}

#[test]
fn every_parse_error_has_a_response() {
    assert_fault("/announce", Fault::InfoHashMissing);
    assert_fault("/announce?", Fault::InfoHashMissing);
    assert_fault("/announce?&&==&", Fault::InfoHashMissing);
    assert_http_fault(b"\x16\x03\x01\x02\x00\x01", HttpFault::Malformed, "400 Bad Request");
    assert_http_fault(b" GET / HTTP/1.1", HttpFault::Malformed, "400 Bad Request");
    assert_http_fault(b"GET\r", HttpFault::Malformed, "400 Bad Request");
    assert_http_fault(b"GET / HTTP/1.1\rX", HttpFault::Malformed, "400 Bad Request");
    assert_http_fault(b"GET /announce\r\n", HttpFault::Malformed, "400 Bad Request");
    assert_http_fault(b"GET /announce FTP/1.1\r\n", HttpFault::Malformed, "400 Bad Request");
    assert_http_fault(b"GET / HTTP/1.1\r\nno field\r\n", HttpFault::Malformed, "400 Bad Request");
    assert_http_fault(b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n", HttpFault::Malformed, "400 Bad Request");
    assert_http_fault(b"PRI * HTTP/2.0\r\n", HttpFault::Version, "505 HTTP Version Not Supported");
    assert_http_fault(&[b'A'; 25], HttpFault::Malformed, "400 Bad Request");
}

#[test]
fn not_compact_is_refused() {
    assert_fault(&format!("/announce?info_hash={HASH}&port=1&compact=0"), Fault::NotCompact);
}

#[test]
fn compact_missing_means_compact() {
    for added in ["", "&compact=1", "&compact=", "&compact", "&compact=2", "&compact=0&compact=1"] {
        announce(added);
    }
}

#[test]
fn event_may_be_empty_paused_or_unknown() {
    for (added, event) in [
        ("", AnnounceEvent::None),
        ("&event", AnnounceEvent::None),
        ("&event=", AnnounceEvent::None),
        ("&event=update", AnnounceEvent::None),
        ("&event=Startled", AnnounceEvent::None),
        ("&event=started", AnnounceEvent::Started),
        ("&event=stopped", AnnounceEvent::Stopped),
        ("&event=completed", AnnounceEvent::Completed),
        ("&event=paused", AnnounceEvent::Paused),
    ] {
        assert_eq!(announce(added).event, event, "{added}");
    }
}

#[test]
fn numwant_may_be_negative_or_zero_or_text() {
    for (added, numwant) in [
        ("", None),
        ("&numwant=", None),
        ("&numwant=-1", None),
        ("&numwant=+5", None),
        ("&numwant=many", None),
        ("&numwant=5x", None),
        ("&numwant=0", Some(0)),
        ("&numwant=1", Some(1)),
        ("&numwant=0050", Some(50)),
        ("&numwant=4294967295", Some(u32::MAX)),
        ("&numwant=4294967296", Some(u32::MAX)),
        ("&numwant=99999999999999999999999999", Some(u32::MAX)),
    ] {
        assert_eq!(announce(added).numwant, numwant, "{added}");
    }
}

#[test]
fn left_missing_means_leecher() {
    for added in ["", "&left=", "&left", "&left=none", "&left=-0", "&left=0x", "&left=1"] {
        assert!(!announce(added).is_seeder, "{added}");
    }
    assert!(announce("&left=0").is_seeder);
    assert!(announce("&left=000").is_seeder);
}

#[test]
fn completed_without_left_is_a_seeder() {
    for left in ["", "&left=", "&left", "&left=unknown", "&left=-1"] {
        assert!(announce(&format!("&event=completed{left}")).is_seeder, "{left}");
        for event in ["", "started", "stopped", "paused", "unknown"] {
            assert!(!announce(&format!("&event={event}{left}")).is_seeder, "{event} {left}");
        }
    }
    for left in ["1", "18446744073709551616"] {
        assert!(!announce(&format!("&event=completed&left={left}")).is_seeder, "{left}");
    }
}

#[test]
fn names_of_parameters_and_events_in_any_case() {
    for event in ["event=stopped", "Event=stopped", "event=Stopped", "EVENT=STOPPED", "eVent=%53TOPPED"] {
        assert_eq!(announce(&format!("&{event}")).event, AnnounceEvent::Stopped, "{event}");
    }
    let upper = announce(&format!("&INFO_HASH={}&Peer_Id={HASH}&PORT=2&LEFT=0&NumWant=7", "b".repeat(20)));
    let lower = announce(&format!("&info_hash={}&peer_id={HASH}&port=2&left=0&numwant=7", "b".repeat(20)));
    assert_eq!(upper, lower);
    assert_fault(&format!("/announce?info_hash={HASH}&port=1&Compact=0"), Fault::NotCompact);
    let request = get(&format!("/scrape?Info_Hash={HASH}"));
    assert!(matches!(complete(request.as_bytes()).1, Request::Scrape(_)));
}

#[test]
fn left_is_a_leecher_however_large() {
    for left in ["18446744073709551615", "18446744073709551616", "-1", "9223372036854775808"] {
        assert!(!announce(&format!("&left={left}")).is_seeder, "{left}");
    }
    assert!(!announce(&format!("&left=1{}", "0".repeat(1000))).is_seeder);
}

#[test]
fn left_that_is_a_multiple_of_two_to_the_32_is_a_leecher() {
    for factor in 1..100_u64 {
        assert!(!announce(&format!("&left={}", factor << 32)).is_seeder, "{factor}");
    }
}

#[test]
fn uploaded_and_downloaded_may_be_missing_or_rubbish() {
    announce("");
    announce("&uploaded=&downloaded=-5&corrupt=none");
}

#[test]
fn port_0_is_refused() {
    for port in ["0", "00000"] {
        assert_fault(&format!("/announce?info_hash={HASH}&port={port}"), Fault::PortInvalid);
    }
}

#[test]
fn port_must_be_a_port() {
    assert_fault(&format!("/announce?info_hash={HASH}"), Fault::PortMissing);
    for port in ["", "65536", "-1", "http", "80a", "4294967297", " 80"] {
        assert_fault(&format!("/announce?info_hash={HASH}&port={port}"), Fault::PortInvalid);
    }
}

#[test]
fn info_hash_must_be_20_bytes() {
    for (text, length) in
        [("", 0), ("a", 1), (&HASH[1..], 19), ("aaaaaaaaaaaaaaaaaaaa%61", 21), (&"0".repeat(40), 40)]
    {
        let target = format!("/announce?info_hash={text}&port=1");
        assert_fault(&target, Fault::InfoHashLength(length));
        assert_fault(&target.replace("announce", "scrape"), Fault::InfoHashLength(length));
    }
    assert_eq!(Fault::InfoHashLength(19).to_string(), "info_hash must be 20 bytes, got 19");
    // The longest text there can be fits.
    assert!(Fault::InfoHashLength(usize::MAX).to_string().ends_with("got 18446744073709551615"));
}

#[test]
fn of_two_info_hashes_the_last_counts() {
    let announce = announce("&info_hash=bbbbbbbbbbbbbbbbbbbb&port=2");
    assert_eq!((announce.info_hash, announce.port.get()), (InfoHash([b'b'; 20]), 2));
}

#[test]
fn peer_id_may_be_missing_or_short() {
    let parse = |query: &str| AnnounceRequest::parse(query.as_bytes()).unwrap().peer_id;
    assert_eq!(parse(&format!("info_hash={HASH}&port=1")), None);
    assert_eq!(parse(&format!("info_hash={HASH}&port=1&peer_id=short")), None);
    assert_eq!(parse(&format!("info_hash={HASH}&port=1&peer_id={HASH}")), Some(PeerId([b'a'; 20])));
}

#[test]
fn parameter_without_equals_sign() {
    let target = format!("/announce?a&info_hash={HASH}&b&port=1&c");
    assert!(matches!(complete(get(&target).as_bytes()).1, Request::Announce(_)));
}

#[test]
fn value_may_contain_equals_signs() {
    let target = format!("/announce?key=a=b==&info_hash={HASH}&trackerid==&port=1");
    assert!(matches!(complete(get(&target).as_bytes()).1, Request::Announce(_)));
}

#[test]
fn key_and_trackerid_may_be_long() {
    announce(&format!("&key={}&trackerid={}", "k".repeat(3000), "t".repeat(3000)));
}

#[test]
fn unknown_parameters_and_claimed_addresses_are_ignored() {
    let plain = announce("");
    assert_eq!(announce("&ip=192.0.2.9&ipv4=192.0.2.9:1&ipv6=%5B%3A%3A1%5D&x=y&info_hashes=short&&"), plain);
}

#[test]
fn paths() {
    let announce = format!("?info_hash={HASH}&port=1");
    for path in [
        "/announce",
        "//announce",
        "/announce/",
        "/announce.php",
        "/announce.php/",
        "/x/announce",
        "/Announce",
        "/announce%20",
        "/announce ",
        "announce",
        "http://a:80/x//ANNOUNCE.PHP",
        "HTTPS://[::1]/announce",
    ] {
        let request = get(&format!("{path}{announce}"));
        assert!(matches!(complete(request.as_bytes()).1, Request::Announce(_)), "{path}");
        let request = get(&format!("{path}?a=b{announce}"));
        let (_, Request::Announce(read)) = complete(request.as_bytes()) else {
            panic!("{path}: an announce")
        };
        assert_eq!((read.info_hash.0.as_slice(), read.port.get()), (HASH.as_bytes(), 1));
        let path = path.to_ascii_lowercase().replace("announce", "scrape");
        let scrape = get(&format!("{path}?a=b{announce}"));
        assert!(matches!(complete(scrape.as_bytes()).1, Request::Scrape(_)), "{scrape}");
    }
    for path in ["", "/", "*", "http://a", "/announcer", "/announce/x", "/tracker", "/x/health"] {
        assert_http_fault(get(path).as_bytes(), HttpFault::NotFound, "404 Not Found");
        assert_http_fault(get(&format!("{path}?port=1")).as_bytes(), HttpFault::NotFound, "404 Not Found");
        assert_fault(&format!("{path}{announce}"), Fault::WrongAnnounceUrl);
        assert_fault(&format!("{path}?a=b{announce}"), Fault::WrongAnnounceUrl);
    }
    assert!(Fault::WrongAnnounceUrl.to_string().ends_with("must end in /announce"));
    assert_eq!(complete(get("/health").as_bytes()).1, Request::Health);
}

/// A server of more than a tracker gets the head of any path.
#[test]
fn heads_of_other_resources() {
    let request = "GET /stats.json?a=b?c HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let Parsed::Complete(head) = Head::parse(request.as_bytes(), DEFAULT_MAX_HEAD_LENGTH) else {
        panic!("a head")
    };
    assert_eq!((head.path, head.query), (b"/stats.json".as_slice(), b"a=b?c".as_slice()));
    assert_eq!((head.version, head.keep_alive()), (Version::Http10, false));
    // For the server to refuse.
    assert_eq!((head.upgrade, head.length), (Some(b"websocket".as_slice()), request.len()));
    assert!(head.upgrades_to_websocket());
    let newer = request.replace("1.0", "1.1");
    let Parsed::Complete(newer) = Head::parse(newer.as_bytes(), DEFAULT_MAX_HEAD_LENGTH) else {
        panic!("a head")
    };
    assert_eq!(newer.upgrade, Some(b"websocket".as_slice()));
    assert_eq!(TrackerRoute::classify(head.path, head.query), TrackerRoute::Other);
    assert_eq!(Request::from_head(&head), Err(Refusal::Http(HttpFault::NotFound)));
    let refused = head.refuse(Refusal::Http(HttpFault::NotFound));
    assert_eq!((refused.framing, refused.length), (head.framing, head.length));
}

#[test]
fn space_before_the_question_mark() {
    let target = format!("/announce ?info_hash={HASH}&port=1");
    assert!(matches!(complete(get(&target).as_bytes()).1, Request::Announce(_)));
}

#[test]
fn full_scrape_is_refused_in_words() {
    for target in ["/scrape", "/scrape?", "/scrape?x=y&info_hashes=a"] {
        assert_fault(target, Fault::FullScrape);
    }
    assert_eq!(Fault::FullScrape.to_string(), "full scrapes are not supported");
}

#[test]
fn scrape_of_many() {
    let hashes: Vec<InfoHash> = (0..100).map(|byte| InfoHash([byte | 0x80; 20])).collect();
    let parameter = |hash: &InfoHash| format!("info_hash={}", format!("%{:02x}", hash.0[0]).repeat(20));
    let query = hashes.iter().map(parameter).collect::<Vec<_>>().join("&");
    let request = get(&format!("/scrape?{query}"));
    assert!(request.len() <= DEFAULT_MAX_HEAD_LENGTH, "100 torrents fit: {}", request.len());
    let (_, Request::Scrape(scrape)) = complete(request.as_bytes()) else { panic!("a scrape") };
    assert_eq!(scrape.info_hashes().collect::<Vec<_>>(), hashes);
    let mut buffer = [InfoHash([0; 20]); 70];
    assert_eq!(scrape.fill(&mut buffer), &hashes[..70]);
    let mut buffer = [InfoHash([0; 20]); 200];
    assert_eq!(scrape.fill(&mut buffer), hashes);
}

/// The encoders of Python, Go and PHP write a space as `+`.
#[test]
fn plus_is_a_space_in_every_value() {
    let hash = |text: &str| {
        let query = format!("info_hash={text}&peer_id={text}&port=1");
        let announce = AnnounceRequest::parse(query.as_bytes()).unwrap();
        assert_eq!(announce.peer_id.unwrap().0, announce.info_hash.0);
        let request = get(&format!("/scrape?info_hash={text}"));
        let (_, Request::Scrape(scrape)) = complete(request.as_bytes()) else { panic!("a scrape") };
        assert_eq!(scrape.info_hashes().collect::<Vec<_>>(), [announce.info_hash]);
        announce.info_hash
    };
    let expected = InfoHash(*b" aaaaaaaaa+aaaaaaaa ");
    assert_eq!(hash("%20aaaaaaaaa%2Baaaaaaaa%20"), expected);
    assert_eq!(hash("+aaaaaaaaa%2Baaaaaaaa+"), expected);
    assert_eq!(hash(" aaaaaaaaa%2baaaaaaaa+"), expected);
    // "+5" is no number, whichever way it came.
    assert_eq!(announce("&numwant=+5").numwant, announce("&numwant=%205").numwant);
    assert_fault(&format!("/announce?info_hash={HASH}&port=+80"), Fault::PortInvalid);
}

#[test]
fn numbers_and_words_may_be_encoded() {
    let encoded = announce("&port=%36881&left=%30&event=%73topped&numwant=%35%30");
    assert_eq!(encoded, announce("&port=6881&left=0&event=stopped&numwant=50"));
    assert_fault(&format!("/announce?info_hash={HASH}&port=1&compact=%30"), Fault::NotCompact);
}

#[test]
fn bytes_may_be_raw_or_coded_in_either_case() {
    let expected = InfoHash(*b" \xff\xfe /?=#a\x80\0\t-._~%zz%");
    let mut request =
        b"GET /announce?port=1&info_hash=+\xff%Fe /?=#%61\x80%00%09-._~%%7a%7A%25 HTTP/1.1\r\n\r\n".to_vec();
    let (_, Request::Announce(announce)) = complete(&request) else { panic!("an announce") };
    assert_eq!(announce.info_hash, expected);
    // A percent sign at the very end stands for itself as well.
    let end = request.windows(3).position(|window| window == b"%25").unwrap();
    request.drain(end + 1..end + 3);
    let (_, Request::Announce(announce)) = complete(&request) else { panic!("an announce") };
    assert_eq!(announce.info_hash, expected);
}

fn with_headers(count: usize) -> Vec<u8> {
    let headers: String = (0..count).map(|number| format!("X-{number}: {number}\r\n")).collect();
    format!("GET /health HTTP/1.1\r\n{headers}\r\n").into_bytes()
}

#[test]
fn up_to_64_headers() {
    for count in [0, 11, 12, 13, 16, 17, 63, 64] {
        let request = with_headers(count);
        let (head, _) = complete(&request);
        assert_eq!(head.headers.iter().count(), count);
        assert_eq!(head.length, request.len());
    }
    let line = "431 Request Header Fields Too Large";
    assert_http_fault(&with_headers(65), HttpFault::TooManyHeaders, line);
    assert_http_fault(&with_headers(200), HttpFault::TooManyHeaders, line);
}

#[test]
fn heads_up_to_the_limit() {
    let request = get(&format!("/health?{}", "x".repeat(8192 - 34)));
    assert_eq!(request.len(), 8192);
    assert_eq!(complete(request.as_bytes()).0.length, 8192);
    let line = "431 Request Header Fields Too Large";
    let field = |length: usize| format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(length));
    assert_eq!(complete(field(8192 - 29).as_bytes()).0.length, 8192);
    assert_http_fault(field(8192 - 28).as_bytes(), HttpFault::HeadTooLong, line);
    assert_http_fault(&[b'\n'; 8192], HttpFault::HeadTooLong, line);
    assert_eq!(parse(&[b'\n'; 8191]), Parsed::NeedMore);
    // The limit is an argument.
    let longer = get(&format!("/health?{}", "x".repeat(8192 - 33)));
    assert!(matches!(Request::parse(longer.as_bytes(), 10_000), Parsed::Complete(_)));
    assert!(matches!(Request::parse(longer.as_bytes(), 0), Parsed::Refused(_)));
}

/// Transmission scrapes fewer torrents at a time if it finds these words in the response.
#[test]
fn request_lines_beyond_the_limit_have_a_status_of_their_own() {
    let refused = |request: &str| {
        let line = "414 Request-URI Too Long";
        let response = assert_http_fault(request.as_bytes(), HttpFault::UriTooLong, line);
        assert_eq!(response.matches("Request-URI Too Long").count(), 2, "{response}");
        assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
    };
    let scrape = |hashes: usize| {
        let hash = format!("info_hash={}&", "%aa".repeat(20));
        get(&format!("/scrape?{}", hash.repeat(hashes)))
    };
    assert!(matches!(complete(scrape(114).as_bytes()).1, Request::Scrape(_)));
    refused(&scrape(120));
    refused(&scrape(1000));
    // The line ends within the limit, but leaves too little for the header fields.
    let target = format!("/scrape?{}", "x".repeat(8000));
    refused(&format!("GET {target} HTTP/1.1\r\nUser-Agent: {}\r\n\r\n", "x".repeat(200)));
    refused(&format!("\r\n\r\n{}", scrape(120)));
}

#[test]
fn http_1_0_closes_unless_asked() {
    let connection = |text: &str| {
        let (head, _) = complete(text.as_bytes());
        head.framing.persistence
    };
    use Persistence::{Close, Default, KeepAlive};
    for (text, expected) in [
        ("GET /health HTTP/1.0\r\n\r\n", Close),
        ("GET /health HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", KeepAlive),
        ("GET /health HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", Close),
        ("GET /health HTTP/1.1\r\n\r\n", Default),
        ("GET /health HTTP/1.1\r\nConnection: keep-alive\r\n\r\n", Default),
        ("GET /health HTTP/1.1\r\nCONNECTION:close\r\n\r\n", Close),
        ("GET /health HTTP/1.1\r\nConnection: TE ,Close\r\n\r\n", Close),
        ("GET /health HTTP/1.1\r\nConnection: TE\r\nConnection: close\r\n\r\n", Close),
        ("GET /health HTTP/1.1\r\nConnection: closed\r\n\r\n", Default),
        ("GET /health HTTP/1.2\r\n\r\n", Default),
    ] {
        assert_eq!(connection(text), expected, "{text}");
    }
}

#[test]
fn pipelined_requests_are_taken_one_by_one() {
    let first = get(&format!("/announce?info_hash={HASH}&port=1"));
    let second = get("/announce?info_hash=short&port=1");
    let third = get("/health");
    let all = format!("{first}\r\n\n{second}{third}GET");
    let mut rest = all.as_bytes();
    let (head, request) = complete(rest);
    assert!(matches!(request, Request::Announce(_)));
    rest = &rest[head.length..];
    let fault = refused(rest);
    assert_eq!(fault.refusal, Refusal::Tracker(Fault::InfoHashLength(5)));
    assert_eq!(fault.length, second.len() + 3);
    rest = &rest[fault.length..];
    let (head, request) = complete(rest);
    assert_eq!((request, head.length), (Request::Health, third.len()));
    assert_eq!(parse(&rest[head.length..]), Parsed::NeedMore);
}

#[test]
fn head_gets_a_response_without_body() {
    let (head, request) = complete(b"HEAD /health HTTP/1.1\r\n\r\n");
    assert_eq!((head.method, request), (Method::Head, Request::Health));
    assert_eq!(head.framing, Framing { body: false, ..Framing::new(Persistence::Default) });
    let refused = refused(b"HEAD /announce HTTP/1.1\r\n\r\n");
    let mut response = [0; 300];
    let length = refused.encode(&mut response).unwrap();
    assert!(response[..length].ends_with(b"\r\nContent-Length: 42\r\n\r\n"));
}

#[test]
fn other_methods_are_refused_and_the_connection_closes() {
    for method in ["POST", "OPTIONS", "TRACE", "CONNECT", "PUT", "DELETE", "get", "M-SEARCH"] {
        for target in ["/announce", "/", "*", "tracker.example.org:443"] {
            let request = format!("{method} {target} HTTP/1.1\r\n\r\n");
            let refused = assert_http_fault(request.as_bytes(), HttpFault::Method, "405 Method Not Allowed");
            assert!(refused.contains("\r\nAllow: GET, HEAD\r\n"), "{refused}");
            assert!(refused.contains("\r\nConnection: close\r\n"), "{refused}");
        }
    }
}

#[test]
fn control_characters_in_targets_are_refused_and_the_connection_closes() {
    for byte in (0..0x20).chain([0x7f]).filter(|byte| !b"\r\n".contains(byte)) {
        for target in ["/announce?info_hash=@&port=1", "/@", "@", "/health@"] {
            let mut request = get(target).into_bytes();
            request.iter_mut().filter(|at| **at == b'@').for_each(|at| *at = byte);
            let refused = assert_http_fault(&request, HttpFault::Target, "400 Bad Request");
            assert!(refused.contains("\r\nConnection: close\r\n"), "{refused}");
        }
    }
}

#[test]
fn bodies_never_desynchronise() {
    for field in [
        "Content-Length: 5",
        "content-length: 0, 5",
        "Content-Length:",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Content-Length: 0\r\nContent-Length: 1",
    ] {
        let request = format!("GET /health HTTP/1.1\r\n{field}\r\n\r\nGET /health HTTP/1.1\r\n\r\n");
        assert_http_fault(request.as_bytes(), HttpFault::Body, "400 Bad Request");
        assert!(refused(request.as_bytes()).framing.closes());
    }
    let request = b"GET /health HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(complete(request).0.framing.persistence, Persistence::Default);
}

#[test]
fn bare_line_feeds_and_empty_lines_in_front() {
    let request = b"\r\n\n\r\nGET /health HTTP/1.1\nHost: a\nX-A:b \n\nGET";
    let (head, _) = complete(request);
    assert_eq!(request[head.length..], *b"GET");
    let headers: Vec<_> = head.headers.iter().collect();
    assert_eq!(headers, [(b"Host".as_slice(), b"a".as_slice()), (b"X-A", b"b")]);
}

#[test]
fn absolute_targets() {
    for origin in ["http://tracker.example.org:6969", "HTTP://[2001:db8::1]", "https://a"] {
        let target = format!("{origin}/announce?info_hash={HASH}&port=1");
        assert!(matches!(complete(get(&target).as_bytes()).1, Request::Announce(_)), "{target}");
    }
}

#[test]
fn headers_of_proxies() {
    let (head, _) = complete(
        b"GET /health HTTP/1.1\r\nx-forwarded-for: 192.0.2.1, 192.0.2.2\r\nX-Real-IP:192.0.2.9\r\n\
          X-FORWARDED-FOR:\t192.0.2.3 \r\nEmpty:\r\n\r\n",
    );
    let forwarded: Vec<_> = head.headers.all("X-Forwarded-For").rev().collect();
    assert_eq!(forwarded, [b"192.0.2.3".as_slice(), b"192.0.2.1, 192.0.2.2"]);
    assert_eq!(head.headers.get("x-real-ip"), Some(b"192.0.2.9".as_slice()));
    assert_eq!(head.headers.get("empty"), Some(b"".as_slice()));
    assert_eq!(head.headers.get("Forwarded"), None);
}

#[test]
fn upgrade_to_websocket() {
    let upgrade = |text: &str| match Head::parse(text.as_bytes(), DEFAULT_MAX_HEAD_LENGTH) {
        Parsed::Complete(head) => head.upgrades_to_websocket(),
        other @ (Parsed::NeedMore | Parsed::Refused(_)) => panic!("{text}: {other:?}"),
    };
    assert!(upgrade("GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"));
    assert!(upgrade("GET / HTTP/1.1\r\nupgrade: h2c, websocket\r\nconnection: upgrade\r\n\r\n"));
    for fields in ["upgrade: foo\r\nupgrade: websocket", "upgrade: websocket\r\nupgrade: foo"] {
        assert!(upgrade(&format!("GET / HTTP/1.1\r\nconnection: upgrade\r\n{fields}\r\n\r\n")), "{fields}");
    }
    assert!(!upgrade("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"));
    assert!(!upgrade("GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"));
    assert!(!upgrade("HEAD / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"));
    assert!(!upgrade("GET / HTTP/1.1\r\n\r\n"));
}

#[test]
fn split_at_every_byte() {
    let scrape = get(&format!("/scrape?info_hash={HASH}"));
    let fault = get("/announce?info_hash=x");
    let requests = [
        LIBTORRENT,
        TRANSMISSION,
        &scrape,
        &fault,
        "\r\n\r\nHEAD /health HTTP/1.0\nA: b\n\n",
        "GET /\0 HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\n",
    ];
    for request in requests {
        let expected = parse(request.as_bytes());
        assert_ne!(expected, Parsed::NeedMore);
        for length in 0..request.len() {
            assert_eq!(parse(&request.as_bytes()[..length]), Parsed::NeedMore, "{length} bytes of {request}");
        }
        // What follows changes nothing.
        let longer = format!("{request}GET /health HTTP/1.1\r\n\r\n");
        assert_eq!(parse(longer.as_bytes()), expected);
    }
}
