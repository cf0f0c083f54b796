//! Faults in passing on what peers have for each other.

use serde_json::{Value, json};

use crate::browser::{Browser, HASH, answer, id, offer, offer_id, tracker, tracker_with, with};

#[test]
fn answers_do_not_turn_seeders_into_leechers() {
    let tracker = tracker();
    let (mut seeder, mut leecher) = (Browser::open(&tracker), Browser::open(&tracker));
    assert_eq!(seeder.announce('s', json!({ "left": 0 })), (1, 0));
    assert_eq!(leecher.announce('l', json!({ "offers": [offer(1)] })), (1, 1));
    assert_eq!(seeder.next()["peer_id"], id('l'));
    seeder.send(&answer('s', 'l', 1));
    // An answer is not answered: the next that comes is the reply to the scrape.
    assert_eq!(seeder.scrape(), (1, 1, 0));
    assert_eq!(leecher.next()["answer"]["sdp"], "answer 1");
}

#[test]
fn relays_are_what_clients_look_for() {
    let tracker = tracker();
    let (mut first, mut second) = (Browser::open(&tracker), Browser::open(&tracker));
    first.announce('1', json!({}));
    // Offer and answer are between the two peers, with all that is in them.
    let opaque = json!({ "type": "offer", "sdp": "v=0\r\n\u{0}ÿ😀", "iceRestart": true, "more": [null, { "sdp": 1.5 }] });
    second.announce('2', json!({ "offers": [{ "offer": opaque, "offer_id": offer_id(1), "more": 1 }] }));
    let relay = json!({
        "action": "announce", "info_hash": HASH, "peer_id": id('2'), "offer": opaque, "offer_id": offer_id(1),
    });
    assert_eq!(first.next(), relay);
    first.send(&with(answer('1', '2', 1), json!({ "answer": opaque })));
    let relay = json!({
        "action": "announce", "info_hash": HASH, "peer_id": id('1'), "answer": opaque, "offer_id": offer_id(1),
    });
    assert_eq!(second.next(), relay);
}

#[test]
fn answers_to_offers_that_were_not_made_go_nowhere() {
    let tracker = tracker();
    let (mut first, mut second, mut stranger) =
        (Browser::open(&tracker), Browser::open(&tracker), Browser::open(&tracker));
    first.announce('1', json!({}));
    second.announce('2', json!({ "offers": [offer(1)] }));
    assert_eq!(first.next()["offer_id"], offer_id(1));
    stranger.announce('3', json!({}));
    for wrong in [
        answer('3', '2', 1),                                        // by who was not asked
        answer('1', '2', 1),                                        // by who pretends to be who was asked
        with(answer('1', '2', 1), json!({ "info_hash": id('b') })), // in another torrent
    ] {
        stranger.send(&wrong);
        stranger.assert_quiet();
        second.assert_quiet();
    }
    for wrong in [answer('1', '2', 2), answer('1', '3', 1), answer('1', '9', 1), answer('1', '1', 1)] {
        first.send(&wrong);
        first.assert_quiet();
        second.assert_quiet();
        stranger.assert_quiet();
    }
    first.send(&answer('1', '2', 1));
    assert_eq!(second.next()["offer_id"], offer_id(1), "what is right still arrives");
}

#[test]
fn an_offer_is_answered_once() {
    let tracker = tracker();
    let (mut first, mut second) = (Browser::open(&tracker), Browser::open(&tracker));
    first.announce('1', json!({}));
    second.announce('2', json!({ "offers": [offer(1)] }));
    first.next();
    for _ in 0..3 {
        first.send(&answer('1', '2', 1));
    }
    first.assert_quiet();
    assert_eq!(second.next()["answer"]["sdp"], "answer 1");
    second.assert_quiet();
}

#[test]
fn offers_beyond_the_limit_are_left_out_and_the_others_are_not() {
    let tracker = tracker_with(&["ws.max_offers=2"]);
    let mut others: Vec<_> = ['1', '2', '3', '4']
        .into_iter()
        .map(|peer| {
            let mut browser = Browser::open(&tracker);
            browser.announce(peer, json!({}));
            browser
        })
        .collect();
    let mut browser = Browser::open(&tracker);
    browser.announce('p', json!({ "offers": [offer(1), offer(2), offer(3), offer(4)] }));
    let received: Vec<Option<Value>> = others
        .iter_mut()
        .map(|other| {
            other.send(&json!({ "action": "scrape", "info_hash": HASH }));
            Some(other.next()).filter(|message| message["action"] == "announce")
        })
        .collect();
    let mut ids: Vec<_> =
        received.iter().flatten().map(|relay| relay["offer_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [offer_id(1), offer_id(2)]);
}

#[test]
fn offers_go_to_different_peers_and_never_back() {
    let tracker = tracker();
    let mut browsers: Vec<_> = ['1', '2', '3', '4', '5'].map(|peer| (peer, Browser::open(&tracker))).into();
    for (peer, browser) in &mut browsers {
        browser.announce(*peer, json!({}));
    }
    for round in 0..10 {
        let (peer, browser) = &mut browsers[0];
        let offers: Vec<_> = (0..10).map(|number| offer(10 * round + number)).collect();
        browser.announce(*peer, json!({ "offers": offers }));
        browser.assert_quiet();
        for (_, other) in &mut browsers[1..] {
            assert_eq!(other.next()["peer_id"], id('1'));
            other.assert_quiet();
        }
    }
}

#[test]
fn names_of_offers_need_not_have_twenty_characters() {
    let tracker = tracker();
    let (mut first, mut second) = (Browser::open(&tracker), Browser::open(&tracker));
    first.announce('1', json!({}));
    let longest = "😀".repeat(64);
    for name in ["", "x", "0123456789abcdef0123456789abcdef01234567", "\u{0}\"\\ÿ", longest.as_str()] {
        second.announce('2', json!({ "offers": [{ "offer": {}, "offer_id": name }] }));
        assert_eq!(first.next()["offer_id"], name);
        first.send(&with(answer('1', '2', 0), json!({ "offer_id": name })));
        assert_eq!(second.next()["offer_id"], name);
    }
    second.announce('2', json!({ "offers": [{ "offer": {}, "offer_id": "x".repeat(65) }] }));
    first.assert_quiet();
}

#[test]
fn names_of_offers_are_the_same_however_they_are_escaped() {
    let tracker = tracker();
    let (mut first, mut second) = (Browser::open(&tracker), Browser::open(&tracker));
    first.announce('1', json!({}));
    let name = "éa\u{1}bcdefghijklmnopqr";
    second.announce('2', json!({ "offers": [{ "offer": {}, "offer_id": name }] }));
    first.next();
    let text = with(answer('1', '2', 0), json!({ "offer_id": name })).to_string();
    assert!(text.contains("éa\\u0001bc"));
    first.send_text(&text.replace("éa\\u0001bc", "\\u00E9\\u0061\\u0001bc"));
    assert_eq!(second.next()["offer_id"], name);
}

#[test]
fn what_would_harm_a_reader_is_not_passed_on() {
    let tracker = tracker();
    let (mut first, mut second) = (Browser::open(&tracker), Browser::open(&tracker));
    first.announce('1', json!({}));
    for (offer, is_json) in [
        ("{\"sdp\":\"\\ud83d\"}", true),
        ("{\"sdp\":1e999}", true),
        ("{\"sdp\":\"\u{1}\"}", false),
        ("{\"sdp\":\"a\"},\"peer_id\":\"x\"", true),
        ("{\"sdp\":\"a\"}}", false),
        ("{\"sdp\":'a'}", false),
        ("{\"sdp\":\"\\x\"}", false),
        ("{sdp:1}", false),
        ("\"v=0\"", true),
        ("null", true),
    ] {
        let text =
            with(crate::browser::announce('2'), json!({ "offers": [{ "offer": "HERE", "offer_id": "x" }] }))
                .to_string();
        second.send_text(&text.replace("\"HERE\"", offer));
        let reply = second.next();
        assert_eq!(reply["failure reason"].is_string(), !is_json, "{offer}: {reply}");
        assert!(!is_json || reply["incomplete"] == 2, "{offer}: {reply}");
        // Further members of an entry are ignored, so this offer is good.
        if offer.contains("peer_id") {
            let relay = first.next();
            assert_eq!((&relay["peer_id"], &relay["offer"]), (&json!(id('2')), &json!({ "sdp": "a" })));
        } else {
            first.assert_quiet();
        }
    }
}

#[test]
fn an_announce_without_offers_only_counts() {
    let tracker = tracker();
    let (mut first, mut second) = (Browser::open(&tracker), Browser::open(&tracker));
    assert_eq!(first.announce('1', json!({ "numwant": 50 })), (0, 1));
    assert_eq!(second.announce('2', json!({ "numwant": 50, "offers": null })), (0, 2));
    first.assert_quiet();
    second.assert_quiet();
}
