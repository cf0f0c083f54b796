//! What must hold for any bytes. The fuzz target and the tests share it.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use aquatic_common::{AnnounceEvent, InfoHash};
use aquatic_http_protocol::{
    ANNOUNCE_REPLY_OVERHEAD, AnnounceReply, AnnounceView, DEFAULT_MAX_HEAD_LENGTH, Fault, Framing, Head,
    HttpFault, MAX_HEADERS, Parsed, Persistence, Refusal, Refused, Reply, Request, Response, ScrapeFile,
    ScrapeReply, TrackerRoute, is_canonical,
};

/// Reads bytes every way there is and checks what was read.
pub(crate) fn check_bytes(bytes: &[u8]) {
    check_requests(bytes);
    check_once_decided(bytes);
    check_response(bytes);
    if let Ok(Reply::Scrape(scrape)) = Reply::parse(bytes) {
        assert!(scrape.files().count() <= bytes.len() / 20);
    }
    let _ = is_canonical(bytes);
}

/// Requests behind each other, as a connection would take them.
fn check_requests(mut bytes: &[u8]) {
    loop {
        match Request::parse(bytes, DEFAULT_MAX_HEAD_LENGTH) {
            Parsed::NeedMore => {
                assert!(bytes.len() < DEFAULT_MAX_HEAD_LENGTH);
                return;
            }
            Parsed::Complete((head, request)) => {
                check_head(bytes, &head);
                check_request(&head, &request);
                bytes = &bytes[head.length..];
            }
            Parsed::Refused(refused) => {
                check_refused(bytes, &refused);
                if refused.framing.closes() {
                    return;
                }
                bytes = &bytes[refused.length..];
            }
        }
    }
}

fn check_head(bytes: &[u8], head: &Head<'_>) {
    assert!((1..=DEFAULT_MAX_HEAD_LENGTH).contains(&head.length));
    assert_eq!(bytes[head.length - 1], b'\n');
    assert!(!head.path.contains(&b'?'));
    assert!(!head.path.iter().chain(head.query).any(u8::is_ascii_control));
    assert_eq!(head.keep_alive(), !head.framing.closes());
    let headers: Vec<_> = head.headers.iter().collect();
    assert!(headers.len() <= MAX_HEADERS);
    for (name, value) in headers {
        assert!(!name.is_empty() && name.is_ascii());
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
        let name = str::from_utf8(name).unwrap();
        assert!(head.headers.all(&name.to_ascii_uppercase()).any(|other| other == value));
        assert!(head.headers.get(name).is_some());
    }
}

fn check_request(head: &Head<'_>, request: &Request<'_>) {
    match request {
        Request::Announce(announce) => {
            let last = |key: &[u8]| values(head.query, key).last().copied().unwrap_or_default();
            assert_eq!(naively_decoded(last(b"info_hash")), announce.info_hash.0);
            let peer_id = naively_decoded(last(b"peer_id"));
            assert_eq!(announce.peer_id.map(|id| id.0.to_vec()), Some(peer_id).filter(|id| id.len() == 20));
            let decoded = |key| naively_decoded(last(key));
            let number = |key| String::from_utf8(decoded(key)).ok()?.parse::<u32>().ok();
            assert_eq!(number(b"port"), Some(announce.port.get().into()));
            // The other reader takes a sign.
            let is_signed = |key| decoded(key).starts_with(b"+") || last(key).len() > 32;
            let left = String::from_utf8(decoded(b"left")).unwrap_or_default();
            let left = left.parse::<f64>().ok().filter(|_| left.bytes().all(|byte| byte.is_ascii_digit()));
            let completed = announce.event == AnnounceEvent::Completed;
            assert!(is_signed(b"left") || announce.is_seeder == left.map_or(completed, |left| left == 0.0));
            if !is_signed(b"numwant") && announce.numwant != Some(u32::MAX) {
                assert_eq!(announce.numwant, number(b"numwant"));
            }
            assert_ne!(decoded(b"compact"), b"0");
        }
        Request::Scrape(scrape) => {
            let expected: Vec<_> =
                values(head.query, b"info_hash").into_iter().map(naively_decoded).collect();
            let hashes: Vec<_> = scrape.info_hashes().map(|hash| hash.0.to_vec()).collect();
            assert!(!hashes.is_empty());
            assert_eq!(hashes, expected);
            let mut buffer = [InfoHash([0; 20]); 3];
            assert_eq!(scrape.fill(&mut buffer).len(), hashes.len().min(3));
            check_scrape_reply(head, scrape.info_hashes());
        }
        Request::Health => {}
    }
    check_route(head, Some(request));
}

/// The last segment of the path, found in the simplest way, decides.
fn check_route(head: &Head<'_>, request: Option<&Request<'_>>) {
    let path = naively_decoded(
        &head.path.iter().map(|&byte| if byte == b'+' { b'-' } else { byte }).collect::<Vec<_>>(),
    );
    let path = String::from_utf8_lossy(&path).to_ascii_lowercase();
    let is_space = |char: char| char.is_ascii_whitespace();
    let segments: Vec<_> =
        path.split('/').filter(|segment| !segment.trim_matches(is_space).is_empty()).collect();
    let last = segments.last().map_or("", |last| last.trim_matches(is_space));
    let (name, fits) = (last.strip_suffix(".php").unwrap_or(last), last.len() <= 12);
    let route = TrackerRoute::classify(head.path, head.query);
    let expected = match name {
        "announce" => TrackerRoute::Announce,
        "scrape" => TrackerRoute::Scrape,
        "health" if segments.len() == 1 => TrackerRoute::Health,
        _ if !values(head.query, b"info_hash").is_empty() => TrackerRoute::WrongAnnounceUrl,
        _ => TrackerRoute::Other,
    };
    // Much white space behind a name makes it another one.
    assert!(route == expected || (fits && path.contains("  ")), "{route:?} instead of {expected:?}");
    match request {
        Some(Request::Announce(_)) => assert_eq!(route, TrackerRoute::Announce),
        Some(Request::Scrape(_)) => assert_eq!(route, TrackerRoute::Scrape),
        Some(Request::Health) => assert_eq!(route, TrackerRoute::Health),
        None => {}
    }
}

const KEYS: [&str; 7] = ["info_hash", "peer_id", "port", "left", "event", "numwant", "compact"];

/// The values of all parameters with this key.
fn values<'a>(query: &'a [u8], key: &[u8]) -> Vec<&'a [u8]> {
    let known = |behind: &[u8]| {
        let behind = behind.to_ascii_lowercase();
        KEYS.iter().any(|key| behind.starts_with(format!("{key}=").as_bytes()))
    };
    let ends =
        (0..query.len()).filter(|&at| query[at] == b'&' || query[at] == b'?' && known(&query[at + 1..]));
    let mut start = 0;
    let mut pieces: Vec<&[u8]> =
        ends.map(|end| &query[std::mem::replace(&mut start, end + 1)..end]).collect();
    pieces.extend(query.get(start..).filter(|last| !last.is_empty()));
    let parameters = pieces.into_iter().map(|parameter| {
        let mut parts = parameter.splitn(2, |&byte| byte == b'=');
        (parts.next().unwrap(), parts.next().unwrap_or_default())
    });
    parameters.filter(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value).collect()
}

fn naively_decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let code = text.get(at + 1..at + 3).filter(|code| code.iter().all(u8::is_ascii_hexdigit));
        match code.filter(|_| text[at] == b'%') {
            Some(code) => {
                bytes.push(u8::from_str_radix(str::from_utf8(code).unwrap(), 16).unwrap());
                at += 3;
            }
            None => {
                bytes.push(if text[at] == b'+' { b' ' } else { text[at] });
                at += 1;
            }
        }
    }
    bytes
}

/// What the tracker would response is what clients can read.
fn check_scrape_reply(head: &Head<'_>, hashes: impl Iterator<Item = InfoHash>) {
    let mut files: Vec<_> =
        hashes.map(|info_hash| ScrapeFile { info_hash, complete: 1, downloaded: 2, incomplete: 3 }).collect();
    let mut buffer = vec![0; 300 + 100 * files.len()];
    let mut reply = ScrapeReply { files: &mut files, min_request_interval: Some(60) };
    let framing = Framing { body: true, ..head.framing };
    let length = reply.encode(framing, &mut buffer).unwrap();
    let Parsed::Complete(response) = Response::parse(&buffer[..length], false) else { panic!("a response") };
    assert_eq!((response.length, response.keep_alive), (length, !framing.closes()));
    assert_eq!(is_canonical(response.body), Ok(true));
    let Ok(Reply::Scrape(view)) = Reply::parse(response.body) else { panic!("a scrape") };
    files.dedup();
    assert_eq!(view.files().collect::<Vec<_>>(), files);
}

fn check_refused(bytes: &[u8], refused: &Refused) {
    match refused.refusal {
        Refusal::Tracker(fault) => {
            assert!(refused.length > 0 && bytes[refused.length - 1] == b'\n');
            if let Fault::InfoHashLength(length) = fault {
                assert!(length != 20 && length <= bytes.len());
            }
        }
        Refusal::Http(HttpFault::NotFound) => assert!(refused.length > 0),
        Refusal::Http(HttpFault::HeadTooLong | HttpFault::UriTooLong) => {
            assert!(bytes.len() >= DEFAULT_MAX_HEAD_LENGTH && refused.framing.closes());
        }
        Refusal::Http(
            HttpFault::Malformed
            | HttpFault::Target
            | HttpFault::Version
            | HttpFault::TooManyHeaders
            | HttpFault::Body
            | HttpFault::Method,
        ) => assert!(refused.framing.closes() && refused.length == 0),
    }
    if let Parsed::Complete(head) = Head::parse(bytes, DEFAULT_MAX_HEAD_LENGTH) {
        check_head(bytes, &head);
        check_route(&head, None);
    }
    let mut buffer = [0; 400];
    let length = refused.encode(&mut buffer).unwrap();
    if !refused.framing.body {
        assert!(buffer[..length].ends_with(b"\r\n\r\n"));
        return;
    }
    let Parsed::Complete(response) = Response::parse(&buffer[..length], false) else { panic!("a response") };
    let is_failure = matches!(Reply::parse(response.body), Ok(Reply::Failure(_)));
    assert_eq!(is_failure, matches!(refused.refusal, Refusal::Tracker(_)));
    assert_eq!(response.status == 200, is_failure);
    assert_eq!(response.keep_alive, refused.framing.persistence != Persistence::Close);
}

/// As bytes come in one by one, nothing that was decided is decided again in another way.
fn check_once_decided(bytes: &[u8]) {
    let last = Request::parse(bytes, DEFAULT_MAX_HEAD_LENGTH);
    let step = 1 + bytes.len() / 128;
    for length in (0..bytes.len()).step_by(step) {
        let earlier = Request::parse(&bytes[..length], DEFAULT_MAX_HEAD_LENGTH);
        assert!(
            earlier == Parsed::NeedMore || earlier == last,
            "{earlier:?} of {length} bytes, then {last:?}"
        );
    }
}

fn check_response(bytes: &[u8]) {
    if let Parsed::Complete(response) = Response::parse(bytes, false) {
        assert!(response.body.len() < response.length && response.length <= bytes.len());
        assert_eq!(Response::parse(bytes, true), Parsed::Complete(response));
        if let Ok(Reply::Announce(view)) = Reply::parse(response.body) {
            check_announce_reply(&view);
        }
    }
    assert_ne!(Response::parse(bytes, true), Parsed::NeedMore);
}

/// What was read can be written, and is read again as the same.
fn check_announce_reply(view: &AnnounceView<'_>) {
    let peers = view.peers.unwrap_or_default();
    let peers6 = view.peers6.unwrap_or_default();
    assert_eq!((view.peers_v4().len() * 6, view.peers_v6().len() * 18), (peers.len(), peers6.len()));
    let reply = AnnounceReply {
        complete: view.complete.unwrap_or_default(),
        downloaded: view.downloaded.unwrap_or_default(),
        incomplete: view.incomplete.unwrap_or_default(),
        interval: view.interval,
        min_interval: view.min_interval.unwrap_or_default(),
        external_ip: view.external_ip,
        peers,
        peers6,
    };
    let mut buffer = vec![0; ANNOUNCE_REPLY_OVERHEAD + peers.len() + peers6.len()];
    let framing = Framing::new(Persistence::Close);
    let length = reply.encode(framing, &mut buffer).unwrap();
    let Parsed::Complete(response) = Response::parse(&buffer[..length], false) else { panic!("a response") };
    let Ok(Reply::Announce(again)) = Reply::parse(response.body) else { panic!("an announce") };
    assert_eq!((again.interval, again.external_ip), (view.interval, view.external_ip));
    assert_eq!((again.peers, again.peers6), (Some(peers), Some(peers6)));
}
