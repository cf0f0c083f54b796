//! Announces, scrapes, and offers and answers relayed between peers.

use std::net::TcpStream;

use aquatic_common::AnnounceEvent;
use aquatic_ws_protocol::{Description, OfferId};

use crate::client::{Client, Got, Plain, answer_text, peer, sdp, start};
use crate::support::{Tracker, service, torrent};

#[test]
fn an_offer_reaches_a_peer_and_its_answer_comes_back() {
    let tracker = start(&[]);
    let mut one = Plain::connect(tracker.address());
    let mut two = Plain::connect(tracker.address());
    // Several torrents, so that both cores own some.
    for number in 0..20 {
        let torrent = torrent(number);
        assert_eq!(one.announce(torrent, peer(1), 10, &["early"]).counts(), (0, 1));
        assert_eq!(two.announce(torrent, peer(2), 0, &["a", "b"]).counts(), (1, 1));
        let Got::Offer { torrent: of, from, id, text } = one.next() else { panic!("no offer") };
        assert_eq!((of, from), (torrent, peer(2)));
        assert_eq!((id.clone(), text), (OfferId::new("a").unwrap(), Description::write_offer(&sdp("a"))));
        one.answer(torrent, peer(1), peer(2), &id);
        let answer = Got::Answer { torrent, from: peer(1), id: id.clone(), text: answer_text() };
        assert_eq!(two.next(), answer, "the answer as it was sent, with the id of the offer");
        // A second answer is dropped. The reply to the next message shows it.
        one.answer(torrent, peer(1), peer(2), &id);
        assert_eq!(one.scrape(&[torrent]), [(torrent, [1, 1, 0])], "an answer changes nothing");
    }
    one.assert_quiet();
    two.assert_quiet();
}

#[test]
fn offers_are_relayed_to_distinct_peers() {
    let tracker = start(&[]);
    let mut others: Vec<Plain> = (0..6).map(|_| Plain::connect(tracker.address())).collect();
    for (number, other) in (10..).zip(&mut others) {
        other.announce(torrent(1), peer(number), 1, &[]);
    }
    let mut one = Plain::connect(tracker.address());
    let ids: Vec<String> = (0..10).map(|number| format!("offer {number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(one.announce(torrent(1), peer(1), 1, &ids).counts(), (0, 7));
    let mut seen: Vec<_> = others.iter_mut().map(|other| other.next().offer().1).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6, "each peer receives another offer");
    one.assert_quiet();
    others.iter_mut().for_each(Client::assert_quiet);
}

#[test]
fn only_the_receiver_of_an_offer_can_answer_it() {
    let tracker = start(&[]);
    let [mut one, mut two, mut other] = [(); 3].map(|()| Plain::connect(tracker.address()));
    for number in 0..6 {
        let torrent = torrent(number);
        two.announce(torrent, peer(2), 1, &[]);
        one.announce(torrent, peer(1), 1, &["name"]);
        let (from, id) = two.next().offer();
        // With another peer id, with the id of the receiver, over its connection, and in another torrent.
        other.answer(torrent, peer(3), from, &id);
        other.answer(torrent, peer(2), from, &id);
        two.answer(torrent, peer(9), from, &id);
        two.answer(crate::support::torrent(99), peer(2), from, &id);
        other.assert_quiet();
        two.answer(torrent, peer(2), from, &id);
        assert!(matches!(one.next(), Got::Answer { from, .. } if from == peer(2)));
        one.stop(torrent, peer(1));
        two.stop(torrent, peer(2));
    }
    one.assert_quiet();
}

#[test]
fn offers_are_relayed_between_address_families() {
    let settings = ["workers=2", "network.address_ipv4=127.0.0.1:0", "network.address_ipv6=[::1]:0"];
    let tracker = Tracker::start(2, &mut service("ws", &settings));
    let mut v4 = Plain::connect(tracker.addresses[0]);
    let mut v6 = Plain::connect(tracker.addresses[1]);
    assert!(tracker.addresses[1].is_ipv6());
    v4.announce(torrent(1), peer(4), 1, &[]);
    assert_eq!(v6.announce(torrent(1), peer(6), 1, &["x"]).counts(), (0, 2));
    let (from, id) = v4.next().offer();
    v4.answer(torrent(1), peer(4), from, &id);
    assert!(matches!(v6.next(), Got::Answer { .. }));
}

#[test]
fn a_stopped_peer_gets_a_reply_and_no_offers() {
    let tracker = start(&[]);
    let [mut one, mut two] = [(); 2].map(|()| Plain::connect(tracker.address()));
    for number in 0..6 {
        let torrent = torrent(number);
        one.announce(torrent, peer(1), 1, &[]);
        assert_eq!(one.stop(torrent, peer(1)).counts(), (0, 0));
        assert_eq!(two.announce(torrent, peer(2), 1, &["x"]).counts(), (0, 1));
    }
    one.assert_quiet();
}

#[test]
fn seeders_offer_to_leechers_first() {
    let tracker = start(&[]);
    let mut seeders: Vec<Plain> = (0..4).map(|_| Plain::connect(tracker.address())).collect();
    for (number, seeder) in (10..).zip(&mut seeders) {
        seeder.announce(torrent(1), peer(number), 0, &[]);
    }
    let mut leecher = Plain::connect(tracker.address());
    leecher.announce(torrent(1), peer(1), 5, &[]);
    for round in 0..5 {
        let id = format!("{round}");
        seeders[0].announce(torrent(1), peer(10), 0, &[&id]);
        assert_eq!(leecher.next().offer().0, peer(10));
    }
}

#[test]
fn a_leecher_that_becomes_a_seeder_is_counted() {
    let tracker = start(&[]);
    let mut one = Plain::connect(tracker.address());
    for number in 0..6 {
        let torrent = torrent(number);
        one.announce(torrent, peer(1), 7, &[]);
        one.send_announce(torrent, peer(1), Some(0), AnnounceEvent::Completed, &[]);
        assert_eq!(one.next().counts(), (1, 0));
        one.send_announce(torrent, peer(1), Some(0), AnnounceEvent::Completed, &[]);
        assert_eq!(one.next().counts(), (1, 0));
        assert_eq!(one.scrape(&[torrent]), [(torrent, [1, 0, 1])]);
        // A peer that does not state what is left is a leecher.
        one.send_announce(torrent, peer(1), None, AnnounceEvent::None, &[]);
        assert_eq!(one.next().counts(), (0, 1));
    }
}

#[test]
fn scrapes_gather_from_all_cores() {
    let tracker = start(&[]);
    let mut one = Plain::connect(tracker.address());
    let mut torrents: Vec<_> = (0..20).map(torrent).collect();
    for torrent in &torrents {
        one.announce(*torrent, peer(1), 1, &[]);
    }
    let unknown = torrent(1_000_000);
    torrents.push(unknown);
    let counts = one.scrape(&torrents);
    assert_eq!(counts.len(), 21);
    for (torrent, counts) in counts {
        assert_eq!(counts, if torrent == unknown { [0, 0, 0] } else { [0, 1, 0] });
    }
    let text = |hash: &str| format!(r#"{{"action":"scrape","info_hash":{hash}}}"#);
    one.send_text(&text(r#""aaaaaaaaaaaaaaaaaaaa""#));
    assert!(matches!(one.next(), Got::Scrape(files) if files.len() == 1 && files[0].complete == 0));
    one.send_text(r#"{"action":"scrape"}"#);
    let refused = one.next();
    assert!(matches!(refused, Got::Failure { action: "scrape", .. }), "{refused:?}");
    assert_eq!(refused.reason(), "full scrapes are not supported");
}

#[test]
fn unusual_values_of_members_are_accepted() {
    let tracker = start(&[]);
    let mut one: Client<TcpStream> = Plain::connect(tracker.address());
    let fields = [
        r#""left":null"#,
        r#""left":"12""#,
        r#""left":-1"#,
        r#""left":1e30"#,
        r#""event":"""#,
        r#""event":"paused""#,
        r#""event":"update""#,
        r#""event":"whatever""#,
        r#""numwant":"many""#,
        r#""offers":null"#,
        r#""unknown":{"deep":[[[]]]}"#,
    ];
    for field in fields {
        one.send_text(&format!(
            r#"{{"action":"announce","info_hash":"aaaaaaaaaaaaaaaaaaaa","peer_id":"-WW0000-bbbbbbbbbbbb",{field}}}"#
        ));
        assert_eq!(one.next().counts(), (0, 1), "{field}");
    }
}
