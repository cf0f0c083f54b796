//! Faults in reading what clients send, and in what they get to read.

use std::fs;

use serde_json::{Value, json};

use crate::browser::{Browser, HASH, announce, answer, id, offer, tracker, tracker_with, with};
use crate::support::fetch;

/// What a client is told about a message, which must not end the connection.
fn refusal(browser: &mut Browser, message: &str) -> Value {
    browser.send_text(message);
    let reply = browser.next();
    assert!(reply["failure reason"].is_string(), "{reply}");
    reply
}

#[test]
fn who_does_not_know_what_is_left_is_not_taken_for_a_seeder() {
    let tracker = tracker();
    let mut browser = Browser::open(&tracker);
    assert_eq!(browser.announce('p', json!({ "left": null })), (0, 1));
    let mut without = announce('p');
    without.as_object_mut().unwrap().remove("left");
    assert_eq!(browser.ask(&without)["complete"], 0);
    assert_eq!(browser.announce('p', json!({ "left": 0 })), (1, 0));
}

#[test]
fn odd_amounts_do_not_cost_a_client_its_announce() {
    let tracker = tracker();
    let mut browser = Browser::open(&tracker);
    for left in [json!("1000"), json!(-1), json!(1e30), json!(u64::MAX), json!("?"), json!({}), json!([0])] {
        assert_eq!(browser.announce('p', json!({ "left": left })), (0, 1), "{left}");
    }
    assert_eq!(browser.announce('p', json!({ "left": "0" })), (1, 0));
    assert_eq!(browser.announce('p', json!({ "uploaded": null, "downloaded": "?" })), (0, 1));
}

#[test]
fn events_beyond_the_three_do_not_cost_a_client_its_announce() {
    let tracker = tracker();
    let mut browser = Browser::open(&tracker);
    for event in [json!(""), json!("paused"), json!("update"), json!("whatever"), Value::Null, json!(3)] {
        assert_eq!(browser.announce('p', json!({ "event": event })), (0, 1), "{event}");
    }
}

#[test]
fn a_wanted_number_of_peers_of_no_sense_does_not_cost_a_client_its_offers() {
    let tracker = tracker();
    let (mut first, mut second) = (Browser::open(&tracker), Browser::open(&tracker));
    first.announce('1', json!({}));
    for numwant in [json!(0), json!(-1), json!(1.5), json!("many"), Value::Null, json!(1_000_000)] {
        second.announce('2', json!({ "numwant": numwant, "offers": [offer(7)] }));
        assert_eq!(first.next()["offer_id"], offer(7)["offer_id"], "{numwant}");
    }
}

#[test]
fn every_refusal_says_what_it_is_about() {
    let tracker = tracker();
    let mut browser = Browser::open(&tracker);
    for (message, action, info_hash) in [
        (json!({ "action": "ping", "info_hash": HASH }), "announce", json!(HASH)),
        (json!({ "info_hash": HASH }), "announce", json!(HASH)),
        (json!({ "action": "announce", "info_hash": HASH }), "announce", json!(HASH)),
        (with(announce('p'), json!({ "offers": {} })), "announce", json!(HASH)),
        (with(answer('p', 'q', 1), json!({ "to_peer_id": 1 })), "announce", json!(HASH)),
        (json!({ "action": "announce", "info_hash": "short", "peer_id": id('p') }), "announce", Value::Null),
        (json!({ "action": "scrape", "info_hash": "short" }), "scrape", Value::Null),
        (json!([]), "announce", Value::Null),
    ] {
        let reply = refusal(&mut browser, &message.to_string());
        assert_eq!((&reply["action"], &reply["info_hash"]), (&json!(action), &info_hash), "{message}");
    }
    let reply = refusal(&mut browser, "{\"action\":\"scrape\",");
    assert_eq!(reply["action"], "scrape");
    // After all that the client is served as before.
    assert_eq!(browser.announce('p', json!({})), (0, 1));
}

#[test]
fn a_bad_offer_does_not_cost_the_others_and_the_announce() {
    let tracker = tracker();
    let (mut first, mut second) = (Browser::open(&tracker), Browser::open(&tracker));
    first.announce('1', json!({}));
    let offers = json!([{ "offer_id": "bad" }, offer(7), { "offer": {} }]);
    assert_eq!(second.announce('2', json!({ "offers": offers })), (0, 2));
    assert_eq!(first.next()["offer_id"], offer(7)["offer_id"]);
}

#[test]
fn identifiers_of_other_lengths_are_refused_and_not_cut() {
    let tracker = tracker();
    let mut browser = Browser::open(&tracker);
    for member in ["info_hash", "peer_id"] {
        for bad in [format!("{}x", id('a')), id('a')[1..].to_owned(), format!("{}\u{100}", &id('a')[1..])] {
            let reply = refusal(&mut browser, &with(announce('p'), json!({ member: bad })).to_string());
            assert!(reply["failure reason"].as_str().unwrap().starts_with(member), "{reply}");
        }
    }
    assert_eq!(browser.scrape(), (0, 0, 0));
}

#[test]
fn bytes_of_every_value_come_back_as_they_were_sent() {
    let tracker = tracker();
    let (mut first, mut second) = (Browser::open(&tracker), Browser::open(&tracker));
    for start in [0, 20, 40, 80, 120, 160, 200, 236] {
        let bytes: String = (0..20).map(|byte: u8| char::from(start + byte)).collect();
        let own = |peer| with(announce(peer), json!({ "info_hash": bytes }));
        assert_eq!(first.ask(&own('1'))["info_hash"], bytes);
        let offer = json!({ "offer": { "sdp": bytes }, "offer_id": bytes });
        let reply = second.ask(&with(own('2'), json!({ "peer_id": bytes, "offers": [offer] })));
        assert_eq!((&reply["info_hash"], &reply["incomplete"]), (&json!(bytes), &json!(2)));
        let relay = first.next();
        for member in ["info_hash", "peer_id", "offer_id"] {
            assert_eq!(relay[member], bytes, "{member}");
        }
        assert_eq!(relay["offer"]["sdp"], bytes);
        let scrape = first.ask(&json!({ "action": "scrape", "info_hash": [bytes] }));
        assert_eq!(scrape["files"][&bytes]["incomplete"], 2);
    }
}

#[test]
fn scrapes_answer_for_unknown_torrents_too() {
    let tracker = tracker();
    let mut browser = Browser::open(&tracker);
    browser.announce('p', json!({ "left": 0 }));
    let reply = browser.ask(&json!({ "action": "scrape", "info_hash": [HASH, id('b'), HASH] }));
    let none = json!({ "complete": 0, "incomplete": 0, "downloaded": 0 });
    let one = json!({ "complete": 1, "incomplete": 0, "downloaded": 0 });
    assert_eq!(reply["files"], json!({ HASH: one, id('b'): none }));
    assert_eq!(browser.ask(&json!({ "action": "scrape", "info_hash": [] }))["files"], json!({}));
}

#[test]
fn full_scrapes_are_refused_in_words() {
    let tracker = tracker();
    let mut browser = Browser::open(&tracker);
    browser.announce('p', json!({}));
    let reply = refusal(&mut browser, "{\"action\":\"scrape\"}");
    assert_eq!(reply, json!({ "action": "scrape", "failure reason": "full scrapes are not supported" }));
}

#[test]
fn access_lists_apply_to_announces_scrapes_and_answers() {
    let list = tempfile::NamedTempFile::new().unwrap();
    fs::write(list.path(), format!("{}\n", "61".repeat(20))).unwrap();
    let tracker =
        tracker_with(&["access_list.mode=deny", &format!("access_list.path={}", list.path().display())]);
    let mut browser = Browser::open(&tracker);
    let reply = refusal(&mut browser, &announce('p').to_string());
    assert_eq!((&reply["action"], &reply["info_hash"]), (&json!("announce"), &json!(HASH)));
    browser.send(&answer('p', 'q', 1));
    assert_eq!(browser.scrape(), (0, 0, 0));
    assert_eq!(browser.ask(&with(announce('p'), json!({ "info_hash": id('b') })))["incomplete"], 1);
}

#[test]
fn messages_may_come_in_any_frames() {
    let tracker = tracker();
    let mut browser = Browser::open(&tracker);
    let text = announce('p').to_string();
    let (first, second) = text.as_bytes().split_at(30);
    browser.send_frame(0x01, first);
    browser.send_frame(0x89, b"amid a message");
    browser.send_frame(0x80, second);
    assert_eq!(browser.frame(), Some((0x8a, b"amid a message".to_vec())));
    assert_eq!(browser.next()["incomplete"], 1);
    browser.send_frame(0x82, text.as_bytes());
    assert_eq!(browser.next()["incomplete"], 1, "binary frames carry the same");
}

#[test]
fn what_cannot_be_text_ends_one_connection_only() {
    let tracker = tracker();
    let (mut bad, mut huge, mut good) =
        (Browser::open(&tracker), Browser::open(&tracker), Browser::open(&tracker));
    good.announce('p', json!({}));
    bad.send_frame(0x81, b"{\"action\":\"\xed\xa0\x80\"}");
    assert_eq!(bad.close_code(), 1007);
    huge.send_frame(0x81, &vec![b' '; 65_537]);
    assert_eq!(huge.close_code(), 1009);
    assert_eq!(good.scrape(), (0, 1, 0));
}

#[test]
fn nested_bombs_are_refused() {
    let tracker = tracker();
    let mut browser = Browser::open(&tracker);
    for bomb in [
        "[".repeat(60_000),
        "{\"a\":".repeat(12_000),
        format!("{{\"action\":\"announce\",\"x\":{}", "[".repeat(60_000)),
    ] {
        let reply = refusal(&mut browser, &bomb);
        assert_eq!(reply["failure reason"], "the message is nested deeper than 16 levels");
    }
    assert_eq!(browser.announce('p', json!({})), (0, 1));
}

#[test]
fn plain_requests_are_answered() {
    let tracker = tracker();
    assert_eq!(fetch(tracker.address(), "/health"), "ok\n");
    assert!(fetch(tracker.address(), "/announce").contains("WebSocket"));
}

#[test]
fn any_path_subprotocol_and_case_of_headers_will_do() {
    let tracker = tracker();
    for (path, headers) in [
        ("/", ""),
        ("/announce?key=value", "sec-websocket-protocol: webtorrent\r\n"),
        ("/a/b/c", "origin: null\r\nuser-agent: x\r\n"),
    ] {
        let mut browser = Browser::open_with(tracker.address(), path, headers);
        assert_eq!(browser.announce('p', json!({ "event": "stopped" })), (0, 0), "{path}");
    }
}
