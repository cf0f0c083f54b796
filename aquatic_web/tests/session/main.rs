//! Connections from their first byte to their end, over a scripted transport.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

mod fakes;
mod properties;

use std::fs;
use std::path::Path;
use std::rc::Rc;

use aquatic_http_protocol::{Framing, HttpFault, Persistence, PlainReply, Refusal, Status};
use aquatic_net::tcp::Phase;
use aquatic_web::Denied;

use fakes::{Closed, Durations, MAX_REQUEST_SIZE, Read, SWITCHING, Served, Sites, page, text_of};
use properties::check_bytes;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: tracker\r\n\r\n")
}

fn upgrade(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: tracker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
}

fn bytes(text: impl AsRef<[u8]>) -> Read {
    Read::Bytes(text.as_ref().to_vec())
}

fn plain(status: Status, text: &str, persistence: Persistence) -> String {
    let mut buffer = [0; 8192];
    let written = PlainReply::text(status, text).encode(Framing::new(persistence), &mut buffer).unwrap();
    String::from_utf8(buffer[..written].to_vec()).unwrap()
}

/// The reply of the site to a request for this path, on a connection that stays open.
fn reply(path: &str) -> String {
    plain(Status::Ok, &text_of(path), Persistence::Default)
}

fn last_reply(path: &str) -> String {
    plain(Status::Ok, &text_of(path), Persistence::Close)
}

fn refusal() -> String {
    plain(Status::BadRequest, "refused", Persistence::Close)
}

/// Serves what is received in these pieces.
fn serve(reads: impl IntoIterator<Item = Read>) -> (Served, bool) {
    let mut served = Served::new(Sites::Both, reads);
    let ended = served.run();
    (served, ended)
}

#[test]
fn a_connection_is_kept_for_one_request_after_the_other() {
    let (mut served, ended) = serve([bytes(get("/nth")), Read::Pause, bytes(get("/nth"))]);
    assert!(!ended);
    let two = ["1", "2"].map(|text| plain(Status::Ok, text, Persistence::Default)).concat();
    assert_eq!(served.sent(), two, "what the site keeps with the connection is kept");
    assert_eq!(served.wire().phases.last(), Some(&Phase::Idle));

    served.wire().reads.push_back(Read::End);
    assert!(served.run());
    assert_eq!((served.sent(), served.wire().closed), (two, Some(Closed::AtOnce)));
    let requests = 2 * get("/nth").len();
    assert_eq!(served.log.bytes.get(), (requests, served.sent().len()));
}

#[test]
fn pipelined_requests_are_answered_in_order_even_if_their_replies_do_not_fit_together() {
    let paths: Vec<String> = (100..200).map(|n| format!("/big/{n}")).collect();
    let requests: String = paths.iter().map(|path| get(path)).collect();
    let (served, ended) = serve([bytes(&requests)]);
    assert!(!ended);
    assert_eq!(*served.log.paths.borrow(), paths);
    let replies: String = paths.iter().map(|path| reply(path)).collect();
    assert!(served.sent() == replies, "replies are not those to the requests in their order");
}

#[test]
fn one_read_in_sixteen_is_measured_and_waiting_for_other_cores_counts() {
    // Each read of the clock takes a millisecond.
    let mut served = Served::new(Sites::Both, [bytes(get("/wait"))]);
    let log = Rc::clone(&served.log);
    let durations = log.durations.get_or_init(Durations::default);
    served.run();
    assert_eq!(durations.measured(), (0, 0), "it has not been answered");
    served.log.released.set(true);
    served.run();
    assert_eq!(durations.measured(), (1, 1));
    for _ in 0..15 {
        served.wire().reads.extend([bytes(get("/a")), Read::Pause]);
        served.run();
    }
    assert_eq!(durations.measured().0, 1);
    served.wire().reads.push_back(bytes(get("/a") + &get("/b")));
    served.run();
    assert_eq!(durations.measured().0, 2, "requests received together count once");
}

#[test]
fn a_request_that_asks_for_it_is_the_last() {
    let last = "GET /last HTTP/1.1\r\nConnection: close\r\n\r\n";
    let (served, ended) = serve([bytes(get("/a") + last + &get("/b"))]);
    assert!(ended);
    assert_eq!(served.sent(), reply("/a") + &last_reply("/last"));
    let wire = served.wire();
    assert_eq!((wire.closed, wire.end_announced_at), (Some(Closed::AtOnce), Some(0)), "before it is sent");
}

#[test]
fn wherever_the_bytes_are_cut_the_replies_are_the_same() {
    let requests = get("/a")
        + "\r\nGET /b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        + &get("/wait")
        + &get("/health")
        + "HEAD /c HTTP/1.1\r\nConnection: close\r\n\r\n";
    let replies = |pieces: Vec<Read>| {
        let mut served = Served::new(Sites::Both, pieces);
        served.log.released.set(true);
        assert!(served.run());
        assert_eq!(served.wire().closed, Some(Closed::AtOnce));
        served.sent()
    };
    let whole = replies(vec![bytes(&requests)]);
    assert!(whole.starts_with(&reply("/a")) && whole.contains("/wait") && whole.contains("ok\n"), "{whole}");
    for at in 1..requests.len() {
        let (first, second) = requests.split_at(at);
        assert_eq!(replies(vec![bytes(first), bytes(second)]), whole, "cut at {at}");
        assert_eq!(replies(vec![bytes(first), Read::Pause, bytes(second)]), whole, "cut and paused at {at}");
    }
    assert_eq!(replies(requests.bytes().map(|byte| bytes([byte])).collect()), whole, "byte by byte");
}

#[test]
fn an_upgraded_connection_takes_what_was_received_behind_the_request_along() {
    let requests = get("/a") + &upgrade("/socket");
    let stream = [requests.as_bytes(), b"\x81\x85frames\r\n\r\n"].concat();
    let frames = &stream[requests.len()..];
    for at in 1..=stream.len() {
        let (first, second) = stream.split_at(at);
        let second = (!second.is_empty()).then(|| bytes(second));
        let (served, ended) = serve([bytes(first)].into_iter().chain(second).chain([Read::End]));
        assert!(ended, "cut at {at}");
        assert_eq!(served.wire().sent, [reply("/a").as_bytes(), SWITCHING].concat(), "cut at {at}");
        let upgraded = served.log.upgraded.take();
        assert_eq!(upgraded, Some(("accepted".to_owned(), frames.to_vec())), "cut at {at}");
    }
}

#[test]
fn an_upgrade_that_is_not_accepted_is_answered_and_the_connection_kept() {
    let (served, ended) = serve([bytes(upgrade("/else") + &get("/a"))]);
    assert!(!ended);
    let not_found = plain(Status::NotFound, "no socket", Persistence::Default);
    assert_eq!(served.sent(), not_found + &reply("/a"));
}

#[test]
fn a_request_whose_client_has_gone_is_accounted_for() {
    // The reply to the first cannot be sent, at once or for want of room, when the second has been counted.
    for room in [usize::MAX, 10] {
        let mut served = Served::new(Sites::Both, [bytes(get("/a") + &get("/wait"))]);
        served.wire().room = room;
        served.wire().broken = room == usize::MAX;
        assert!(!served.run(), "the response of another core is still to come");
        served.wire().broken = true;
        served.log.released.set(true);
        assert!(served.run());
        assert_eq!(*served.log.paths.borrow(), ["/a", "/wait"]);
        assert_eq!(served.log.given_up.get(), 0);
    }
}

#[test]
fn a_reply_that_is_waited_for_keeps_its_position() {
    let (mut served, ended) = serve([bytes(get("/a") + &get("/wait") + &get("/b")), bytes(get("/c"))]);
    assert!(!ended);
    assert_eq!(served.sent(), reply("/a"), "what is known is sent without waiting");
    assert_eq!(*served.log.paths.borrow(), ["/a", "/wait"], "one request is under way at a time");
    assert_eq!(served.wire().phases.last(), Some(&Phase::Answer));
    assert_eq!(served.wire().reads.len(), 1, "nothing more is received meanwhile");

    served.log.released.set(true);
    assert!(!served.run());
    assert_eq!(served.sent(), ["/a", "/wait", "/b", "/c"].map(reply).concat());
    assert_eq!(served.log.given_up.get(), 0);
}

#[test]
fn a_connection_that_is_dropped_gives_up_what_it_waits_for() {
    let (served, _) = serve([bytes(get("/wait"))]);
    let log = Rc::clone(&served.log);
    drop(served);
    assert_eq!(log.given_up.get(), 1);
}

#[test]
fn after_something_that_is_not_http_nothing_is_believed() {
    for garbage in
        ["GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\0", "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"]
    {
        let (served, ended) = serve([bytes(get("/a") + garbage + &get("/b"))]);
        assert!(ended, "{garbage:?}");
        assert_eq!(served.sent(), reply("/a") + &refusal(), "{garbage:?}");
        assert_eq!(served.wire().closed, Some(Closed::Lingering), "{garbage:?}");
        assert_eq!(*served.log.paths.borrow(), ["/a"], "{garbage:?}");
        assert_eq!(served.log.refusals.borrow().len(), 1, "{garbage:?}");
    }
}

#[test]
fn a_head_of_the_largest_size_is_served_and_a_longer_one_refused() {
    let request = |len: usize| {
        let pad = "a".repeat(len - get("/a").len() - "X: \r\n".len());
        get("/a").replace("\r\n\r\n", &format!("\r\nX: {pad}\r\n\r\n"))
    };
    let longest = request(MAX_REQUEST_SIZE);
    assert_eq!(longest.len(), MAX_REQUEST_SIZE);
    for size in [1, 7, 100, 1000] {
        let pieces = |text: &str| text.as_bytes().chunks(size).map(bytes).collect::<Vec<_>>();
        let (served, ended) = serve(pieces(&longest));
        assert_eq!((served.sent(), ended), (reply("/a"), false), "pieces of {size}");

        let (served, ended) = serve(pieces(&request(MAX_REQUEST_SIZE + 1)));
        assert_eq!((served.sent(), ended), (refusal(), true), "pieces of {size}");
        assert_eq!(*served.log.refusals.borrow(), [Refusal::Http(HttpFault::HeadTooLong)]);

        let endless = "GET /a HTTP/1.1\r\nX: ".to_owned() + &"a".repeat(3 * MAX_REQUEST_SIZE);
        let (served, ended) = serve(pieces(&endless));
        assert_eq!((served.sent(), ended), (refusal(), true), "pieces of {size}");
    }
}

#[test]
fn slow_senders_do_not_put_off_the_deadline_of_their_head() {
    let text = get("/a") + &get("/b")[..20];
    let (served, ended) = serve(text.bytes().flat_map(|byte| [bytes([byte]), Read::Pause]));
    assert!(!ended);
    assert_eq!(served.sent(), reply("/a"));
    let mut phases = served.wire().phases.clone();
    phases.dedup();
    assert_eq!(phases, [Phase::Head, Phase::Idle, Phase::Head]);
    let heads = served.wire().phases.iter().filter(|&&phase| phase == Phase::Head).count();
    assert_eq!(heads, 2, "one deadline for each request");
}

#[test]
fn clients_that_do_not_receive_are_waited_for_and_served_nothing_meanwhile() {
    let mut served = Served::new(Sites::Both, [bytes(get("/big") + &get("/a")), bytes(get("/b"))]);
    (served.wire().room, served.wire().max_write) = (100, 7);
    assert!(!served.run());
    assert_eq!(served.sent().len(), 100);
    assert_eq!(served.wire().phases, [Phase::Answer], "with a deadline");
    assert_eq!(served.wire().reads.len(), 1, "nothing more is received");
    served.wire().room = 200;
    assert!(!served.run());
    assert_eq!((served.sent().len(), served.wire().phases.len()), (300, 1), "its deadline stays");
    served.wire().room = usize::MAX;
    assert!(!served.run());
    assert_eq!(served.sent(), ["/big", "/a", "/b"].map(reply).concat());
    assert_eq!(served.wire().phases.last(), Some(&Phase::Idle));
}

#[test]
fn a_stopping_process_closes_after_the_next_reply() {
    for (path, released) in [("/a", false), ("/wait", true), ("/health", false)] {
        let mut served = Served::new(Sites::Both, [bytes(get(path) + &get("/b"))]);
        served.wire().stopping = true;
        served.log.released.set(released);
        assert!(served.run(), "{path}");
        let text = if path == "/health" { "ok\n" } else { path };
        assert_eq!(served.sent(), plain(Status::Ok, text, Persistence::Close));
        let wire = served.wire();
        assert_eq!((wire.closed, wire.end_announced_at), (Some(Closed::AtOnce), Some(0)), "{path}");
    }
}

#[test]
fn connections_that_end_early_end_without_a_reply() {
    for (end, closed) in [(Read::End, Some(Closed::AtOnce)), (Read::Fail, None)] {
        let (served, ended) = serve([bytes(&get("/a")[..10]), end]);
        assert!(ended);
        assert_eq!((served.sent(), served.wire().closed), (String::new(), closed));
    }
}

#[test]
fn busy_connections_let_other_tasks_run() {
    let (served, ended) = serve((0..40).map(|_| bytes(get("/a"))));
    assert!(!ended);
    assert_eq!(served.sent(), reply("/a").repeat(40));
    assert_eq!(served.runtime.yields.get(), 10);
}

#[test]
fn sites_reach_the_limit_of_connections_per_address() {
    let (served, _) = serve([bytes(get("/charge"))]);
    assert_eq!(served.wire().charged, ["203.0.113.1".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn health_is_answered_by_the_front_whoever_serves() {
    for sites in [Sites::Both, Sites::OnlySockets] {
        let mut served = Served::new(sites, [bytes(get("/health"))]);
        assert!(!served.run());
        assert_eq!(served.sent(), plain(Status::Ok, "ok\n", Persistence::Default));
        assert_eq!((served.log.health.get(), served.log.paths.borrow().len()), (1, 0));
    }
}

#[test]
fn whoever_asks_for_too_much_or_is_blocked_gets_neither_pages_nor_health() {
    let limited = "too many requests from your address or network\n";
    let blocked = "this tracker does not serve clients of your network\n";
    for (sites, denied, status, text) in [
        (Sites::Both, Denied::RateLimit, Status::TooManyRequests, limited),
        (Sites::OnlySockets, Denied::RateLimit, Status::TooManyRequests, limited),
        (Sites::Both, Denied::Blocked, Status::Forbidden, blocked),
        (Sites::OnlySockets, Denied::Blocked, Status::Forbidden, blocked),
    ] {
        let requests = [get("/health"), get("/page"), get("/else")].concat();
        let mut served = Served::new(sites, [bytes(requests)]);
        served.log.denied.set(Some(denied));
        assert!(!served.run());
        assert_eq!(served.sent(), plain(status, text, Persistence::Default).repeat(3));
        assert_eq!((served.log.health.get(), served.log.paths.borrow().len()), (0, 0));
    }
    // Sites charge announces and scrapes themselves.
    let mut served = Served::new(Sites::Both, [bytes(get("/announce"))]);
    served.log.denied.set(Some(Denied::RateLimit));
    assert!(!served.run());
    assert_eq!(*served.log.paths.borrow(), ["/announce"]);
}

#[test]
fn where_only_sockets_are_served_other_requests_are_explained() {
    let mut served = Served::new(Sites::OnlySockets, [bytes(get("/announce") + &get("/b"))]);
    assert!(served.run());
    assert_eq!(served.sent(), plain(Status::NotFound, "sockets only", Persistence::Close));
    assert_eq!(served.wire().closed, Some(Closed::Lingering));

    let mut served = Served::new(Sites::OnlySockets, [bytes("garbage\r\n\r\n")]);
    assert!(served.run());
    assert_eq!((served.sent(), served.wire().closed), (refusal(), Some(Closed::Lingering)));

    let mut served = Served::new(Sites::OnlySockets, [bytes(upgrade("/socket")), bytes("f"), Read::End]);
    assert!(served.run());
    assert_eq!(served.log.upgraded.take(), Some(("accepted".to_owned(), b"f".to_vec())));
}

/// Each read is a piece of this length.
fn in_pieces(text: &str, length: usize) -> Vec<Read> {
    text.as_bytes().chunks(length).map(|piece| Read::Bytes(piece.to_vec())).collect()
}

#[test]
fn heads_that_come_line_by_line_are_served() {
    let head = format!("GET /slow HTTP/1.1\r\nHost: tracker\r\n{}\r\n", "A: b\r\n".repeat(20));
    for head in [head.clone(), format!("\r\n\n{head}"), head.replace("\r\n", "\n")] {
        for length in [1, 2, 3, 7, 100] {
            let (served, ended) = serve(in_pieces(&head, length));
            assert_eq!((served.sent(), ended), (reply("/slow"), false), "pieces of {length}");
        }
    }
}

#[test]
fn empty_lines_in_front_of_a_request_are_parsed_a_bounded_number_of_times() {
    // As many as are parsed in any case, because they are short.
    let few = "\r\n".repeat(15);
    let (served, ended) = serve(in_pieces(&format!("{few}{}", get("/after")), 2));
    assert_eq!((served.sent(), ended), (reply("/after"), false));
    // At once they cost nothing.
    let (served, ended) = serve([bytes("\r\n".repeat(100)), bytes(get("/after"))]);
    assert_eq!((served.sent(), ended), (reply("/after"), false));
    let (served, ended) = serve(in_pieces(&"\r\n".repeat(100), 2));
    assert!(ended);
    assert_eq!((served.sent(), served.wire().closed), (refusal(), Some(Closed::Lingering)));
    let left = served.wire().reads.len();
    assert!(left > 70, "after 32 bytes and some more, not {} lines", 100 - left);
}

#[test]
fn bodies_that_are_shared_keep_their_position_and_wait_for_the_client() {
    let requests = [get("/nth"), get("/page"), get("/nth")].concat();
    let mut served = Served::new(Sites::Both, [bytes(&requests)]);
    served.wire().room = 1000;
    assert!(!served.run());
    assert_eq!(served.wire().phases.last(), Some(&Phase::Answer), "the client has a deadline to receive");
    assert_eq!(served.wire().sent.len(), 1000);
    served.wire().room = usize::MAX;
    assert!(!served.run());
    let page = String::from_utf8(page().to_vec()).unwrap();
    let nth = |text| plain(Status::Ok, text, Persistence::Default);
    assert_eq!(served.sent(), [nth("1"), format!("head\r\n\r\n{page}"), nth("2")].concat());
    assert_eq!(served.log.bytes.get(), (requests.len(), served.sent().len() - page.len()));
    let (served, _) = serve([bytes(get("/page").replace("GET", "HEAD"))]);
    assert_eq!(served.sent(), "head\r\n\r\n");
}

#[test]
fn events_are_sent_until_either_end_has_enough() {
    for is_stopping in [false, true] {
        let (mut served, ended) = serve([bytes(get("/events"))]);
        assert!(!ended && served.sent() == "head\r\n\r\n");
        served.log.events.borrow_mut().push_back(b"one".as_slice().into());
        assert!(!served.run());
        assert_eq!((served.sent().as_str(), served.log.given_up.get()), ("head\r\n\r\none", 0));
        assert_eq!(served.wire().phases.last(), Some(&Phase::Idle), "it may be evicted, and ended at a stop");
        let next: &[u8] = if is_stopping { b"two" } else { b"" };
        served.wire().stopping = is_stopping;
        served.log.events.borrow_mut().push_back(next.into());
        assert!(served.run());
        assert_eq!((served.sent().as_str(), served.wire().closed), ("head\r\n\r\none", Some(Closed::AtOnce)));
        assert_eq!(served.log.given_up.get(), 1);
    }
}

#[test]
fn a_client_that_has_gone_or_talks_is_sent_no_more_events() {
    let nothing = Read::Bytes(vec![b'x'; 4096]);
    let (mut served, ended) = serve([bytes(get("/events")), Read::Pause, nothing]);
    assert!(!ended, "it may say something");
    served.log.events.borrow_mut().push_back(b"one".as_slice().into());
    assert!(!served.run() && served.sent() == "head\r\n\r\none");
    served.wire().reads.push_back(bytes("x"));
    assert!(served.run());
    for end in [Read::End, Read::Fail] {
        let (served, ended) = serve([bytes(get("/events")), Read::Pause, end]);
        assert!(ended && served.sent() == "head\r\n\r\n");
        assert_eq!(served.log.given_up.get(), 1);
    }
}

#[test]
fn pages_are_served_where_there_are_only_sockets() {
    let mut served = Served::new(Sites::OnlySockets, [bytes(get("/page") + &get("/else"))]);
    assert!(served.run());
    assert!(served.sent().starts_with("head\r\n\r\npage ") && served.sent().ends_with("sockets only"));
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/http_front");
    fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn corpus_of_the_fuzz_target() {
    let corpus = corpus();
    assert!(corpus.len() >= 20, "only {} files", corpus.len());
    corpus.iter().for_each(|bytes| check_bytes(bytes));
}

/// Each stream of the corpus in pieces of many sizes, received at once and slowly.
#[test]
fn replies_do_not_depend_on_how_requests_come_and_replies_are_received() {
    for bytes in corpus().iter().filter(|bytes| (4..600).contains(&bytes.len())) {
        let [flags, _, count, rest @ ..] = bytes.as_slice() else { continue };
        let Some(stream) = rest.get(usize::from(*count) % 65..) else { continue };
        for receives in [0x00, 0x0f, 0x13, 0x7f] {
            for piece in [0x00, 0x80, 0x01, 0x86, 0x1f, 0xff] {
                check_bytes(&[&[flags & 1, receives, 64], [piece; 64].as_slice(), stream].concat());
            }
        }
    }
}
