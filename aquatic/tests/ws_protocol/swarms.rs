//! Faults in remembering who is there.

use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::{Browser, announce, id, now, offer, tracker, tracker_with, with};
use crate::support::{REPLY, Tracker, service};

/// Waits until the tracker has noticed something that nobody is told.
fn wait_for(browser: &mut Browser, counts: (u64, u64, u64)) {
    let start = now();
    while browser.scrape() != counts {
        assert!(start.elapsed() < REPLY, "{:?} instead of {counts:?}", browser.scrape());
    }
}

#[test]
fn who_stops_is_answered_and_gone() {
    let tracker = tracker();
    let mut browser = Browser::open(&tracker);
    assert_eq!(browser.announce('p', json!({ "event": "started" })), (0, 1));
    assert_eq!(browser.announce('p', json!({ "event": "stopped" })), (0, 0));
    assert_eq!(browser.announce('q', json!({ "event": "stopped" })), (0, 0), "without having been there");
}

#[test]
fn nobody_can_stop_a_peer_of_somebody_else() {
    let tracker = tracker();
    let (mut owner, mut stranger) = (Browser::open(&tracker), Browser::open(&tracker));
    owner.announce('p', json!({ "left": 0 }));
    stranger.announce('p', json!({ "event": "stopped" }));
    assert_eq!(stranger.scrape(), (1, 0, 0));
    stranger.announce('q', json!({ "offers": [offer(1)] }));
    assert_eq!(owner.next()["peer_id"], id('q'), "the owner is still sent offers");
}

#[test]
fn nobody_can_take_the_place_of_a_peer_that_stays_connected() {
    let tracker = tracker();
    let (mut owner, mut stranger) = (Browser::open(&tracker), Browser::open(&tracker));
    owner.announce('p', json!({ "left": 0 }));
    // The interval is a short one, for the case that the owner turns out to be dead.
    let reply = stranger.ask(&with(announce('p'), json!({ "offers": [offer(1)] })));
    assert_eq!((&reply["complete"], &reply["incomplete"]), (&json!(1), &json!(0)), "{reply}");
    let mut other = Browser::open(&tracker);
    other.announce('o', json!({ "offers": [offer(2)] }));
    stranger.assert_quiet();
    // The tracker has asked in between whether the owner lives.
    assert_eq!(owner.next()["offer_id"], offer(2)["offer_id"]);
    stranger.close();
    assert_eq!(other.scrape(), (1, 1, 0), "whoever else leaves, the owner stays");
}

#[test]
fn who_comes_back_takes_over_as_soon_as_the_old_connection_ends() {
    let tracker = tracker();
    let (mut old, mut new, mut other) =
        (Browser::open(&tracker), Browser::open(&tracker), Browser::open(&tracker));
    old.announce('p', json!({}));
    new.ask(&with(announce('p'), json!({ "left": 0 })));
    old.close();
    wait_for(&mut other, (1, 0, 0));
    other.announce('o', json!({ "offers": [offer(1)] }));
    assert_eq!(new.next()["peer_id"], id('o'));
}

#[test]
fn who_comes_back_takes_over_from_a_connection_that_is_dead() {
    let tracker = tracker();
    let (mut dead, mut new) = (Browser::open(&tracker), Browser::open(&tracker));
    dead.announce('p', json!({}));
    // It is asked whether it lives, and does not read the question.
    let reply = new.ask(&announce('p'));
    let interval = reply["interval"].as_u64().unwrap();
    assert!(interval < 30, "to be asked again soon: {reply}");
    assert_eq!(dead.frame(), Some((0x89, Vec::new())), "a ping");
    new.stay_for(Duration::from_secs(interval));
    assert_eq!(new.announce('p', json!({ "left": 0 })), (1, 0));
    let mut other = Browser::open(&tracker);
    other.announce('o', json!({ "offers": [offer(1)] }));
    assert_eq!(new.next()["peer_id"], id('o'));
}

#[test]
fn one_connection_may_have_several_peers_and_takes_all_of_them_along() {
    let tracker = tracker();
    let (mut browser, mut other) = (Browser::open(&tracker), Browser::open(&tracker));
    other.announce('o', json!({}));
    assert_eq!(browser.announce('p', json!({ "left": 0 })), (1, 1));
    assert_eq!(browser.announce('q', json!({})), (1, 2));
    let in_another = browser.ask(&with(announce('p'), json!({ "info_hash": id('b') })));
    assert_eq!(in_another["incomplete"], 1);
    assert_eq!(browser.announce('q', json!({ "event": "stopped" })), (1, 1), "the others stay");
    browser.announce('q', json!({}));
    browser.close();
    wait_for(&mut other, (0, 1, 0));
    let reply = other.ask(&json!({ "action": "scrape", "info_hash": id('b') }));
    assert_eq!(reply["files"][id('b')]["incomplete"], 0);
}

#[test]
fn who_vanishes_is_gone_at_once() {
    let tracker = tracker();
    let (mut browser, mut other) = (Browser::open(&tracker), Browser::open(&tracker));
    browser.announce('p', json!({ "left": 0 }));
    other.announce('o', json!({}));
    browser.vanish();
    wait_for(&mut other, (0, 1, 0));
}

#[test]
fn downloads_are_counted_when_a_known_leecher_finishes() {
    let tracker = tracker();
    let mut browser = Browser::open(&tracker);
    browser.announce('s', json!({ "left": 0, "event": "completed" }));
    assert_eq!(browser.scrape(), (1, 0, 0), "it came complete");
    browser.announce('l', json!({}));
    browser.announce('l', json!({ "left": 0, "event": "completed" }));
    browser.announce('l', json!({ "left": 0, "event": "completed" }));
    assert_eq!(browser.scrape(), (2, 0, 1));
}

#[test]
fn browsers_of_both_families_meet() {
    let tracker = Tracker::start(
        2,
        &mut service(
            "ws",
            &["workers=1", "network.address_ipv4=127.0.0.1:0", "network.address_ipv6=[::1]:0"],
        ),
    );
    let [first, second] = tracker.addresses[..] else { panic!("two listeners") };
    assert_ne!(first.is_ipv4(), second.is_ipv4());
    let (mut first, mut second) = (Browser::open_with(first, "/", ""), Browser::open_with(second, "/", ""));
    let counts = |reply: Value| reply["incomplete"].as_u64().unwrap();
    assert_eq!(counts(first.ask(&announce('1'))), 1);
    assert_eq!(counts(second.ask(&with(announce('2'), json!({ "offers": [offer(1)] })))), 2);
    assert_eq!(first.next()["peer_id"], id('2'));
}

#[test]
fn who_does_not_read_is_disconnected_and_nobody_waits_for_it() {
    let tracker = tracker_with(&[
        "ws.client.max_unsent_bytes=65536",
        "ws.client.max_message_rate=0",
        "ws.client.send_timeout=3",
    ]);
    let (mut deaf, mut talker) = (Browser::open(&tracker), Browser::open(&tracker));
    deaf.announce('d', json!({}));
    let sdp = "x".repeat(50_000);
    let offers = json!([{ "offer": { "sdp": sdp }, "offer_id": "x" }]);
    // The kernel holds some megabytes before the tracker has to; then there is some time left.
    let start = now();
    loop {
        let reply = talker.ask(&with(announce('t'), json!({ "offers": offers })));
        assert_eq!(reply["action"], "announce");
        if reply["incomplete"] == 1 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "who does not receive has had its time");
    }
    assert_eq!(talker.scrape(), (0, 1, 0));
}

#[test]
fn a_missing_header_of_a_proxy_does_no_harm() {
    let trusted = "proxies.trusted_proxies=[\"127.0.0.0/8\"]";
    let strict = tracker_with(&[trusted]);
    let lenient = tracker_with(&[trusted, "proxies.on_missing_client=use_proxy_address"]);
    for headers in ["", "X-Forwarded-For: \r\n", "x-forwarded-for: ?, ,\r\n", "Forwarded: for=_hidden\r\n"] {
        let (_, head) = Browser::request(strict.address(), "/", headers);
        assert!(head.starts_with("http/1.1 400 "), "{headers}{head}");
        let mut browser = Browser::open_with(lenient.address(), "/", headers);
        assert_eq!(browser.announce('p', json!({ "event": "stopped" })), (0, 0), "{headers}");
    }
    // Proxies write the name in their own ways.
    for name in ["X-Forwarded-For", "x-forwarded-for", "X-FORWARDED-FOR"] {
        let mut browser =
            Browser::open_with(strict.address(), "/", &format!("{name}: 192.0.2.7, 127.0.0.2\r\n"));
        assert_eq!(browser.announce('p', json!({ "event": "stopped" })), (0, 0), "{name}");
    }
}

#[test]
fn several_cores_are_one_tracker() {
    let tracker = Tracker::start(
        1,
        &mut service("ws", &["workers=2", "network.address_ipv4=127.0.0.1:0", "network.use_ipv6=false"]),
    );
    let mut browsers: Vec<_> = (0..8).map(|_| Browser::open(&tracker)).collect();
    for hash in
        ["aaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbb", "cccccccccccccccccccc", "dddddddddddddddddddd"]
    {
        let own = |members| with(with(announce('p'), json!({ "info_hash": hash })), members);
        let (first, rest) = browsers.split_first_mut().unwrap();
        for (number, browser) in rest.iter_mut().enumerate() {
            let reply = browser.ask(&own(json!({ "peer_id": format!("{number:020}") })));
            assert_eq!(reply["incomplete"], number + 1);
        }
        let offers: Vec<_> = (0..rest.len()).map(offer).collect();
        assert_eq!(first.ask(&own(json!({ "offers": offers })))["incomplete"], rest.len() + 1);
        let mut expected: Vec<_> = (0..rest.len()).map(|number| json!(format!("answer {number}"))).collect();
        for (number, browser) in rest.iter_mut().enumerate() {
            let relay = browser.next();
            assert_eq!((&relay["info_hash"], &relay["peer_id"]), (&json!(hash), &json!(id('p'))));
            let sdp = relay["offer"]["sdp"].as_str().unwrap().replace("offer", "answer");
            browser.send(&json!({
                "action": "announce", "info_hash": hash, "peer_id": format!("{number:020}"), "to_peer_id": id('p'),
                "answer": { "type": "answer", "sdp": sdp }, "offer_id": relay["offer_id"],
            }));
        }
        let mut answers: Vec<_> = rest.iter().map(|_| first.next()["answer"]["sdp"].clone()).collect();
        answers.sort_by_key(Value::to_string);
        expected.sort_by_key(Value::to_string);
        assert_eq!(answers, expected);
    }
}
