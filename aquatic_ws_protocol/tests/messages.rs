//! Messages as clients send them and as clients need to get them, and what happens to those that are a little
//! or very wrong.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};
use aquatic_ws_protocol::{
    Action, Announce, AnnounceReply, Answer, AnswerRelay, ClientMessage, FailureReply, Fault, Field, Limits,
    MAX_DEPTH, Offer, OfferId, OfferRelay, Refused, Scrape, ScrapeFile, ScrapeReply, TrackerMessage,
};

const HASH: InfoHash = InfoHash(*b"aaaaaaaaaaaaaaaaaaaa");
const PEER: PeerId = PeerId(*b"-WW0208-bbbbbbbbbbbb");

fn parse(text: &str) -> Result<ClientMessage<'_>, Refused> {
    ClientMessage::parse(text, &Limits::default())
}

/// An announce with these further members.
fn announce_with(members: &str) -> String {
    format!(
        "{{\"action\":\"announce\",\"info_hash\":\"aaaaaaaaaaaaaaaaaaaa\",\
         \"peer_id\":\"-WW0208-bbbbbbbbbbbb\"{members}}}"
    )
}

fn announce(text: &str) -> Announce<'_> {
    match parse(text) {
        Ok(ClientMessage::Announce(announce)) => announce,
        other => panic!("{other:?} instead of an announce"),
    }
}

/// What the sender of an announce gets to read.
fn fault(members: &str) -> Fault {
    let refused = parse(&announce_with(members)).unwrap_err();
    assert_eq!((refused.action, refused.info_hash), (Action::Announce, Some(HASH)));
    refused.fault
}

#[test]
fn an_announce_of_a_browser() {
    // The info hash begins with bytes that browsers write in all their ways: escaped, as UTF-8, and as they
    // are.
    let text = r#"{"numwant":2,"uploaded":0,"downloaded":0,"left":1048576,"event":"started","action":"announce",
        "info_hash":"\u0000\u001f\"\\\n\r\t\b\fÿé/aaaaaaaa","peer_id":"-WW0208-bbbbbbbbbbbb","offers":[
        {"offer":{"type":"offer","sdp":"v=0\r\n","iceRestart":true},"offer_id":"Ö\u0001cccccccccccccccccc"},
        {"offer_id":"d","offer": { } }]}"#;
    let announce = announce(text);
    assert_eq!(announce.info_hash.0, *b"\0\x1f\"\\\n\r\t\x08\x0c\xff\xe9/aaaaaaaa");
    assert_eq!(announce.peer_id, PEER);
    assert_eq!((announce.left, announce.event), (Some(1_048_576), AnnounceEvent::Started));
    let [first, second] = &announce.offers[..] else { panic!("two offers") };
    assert_eq!(first.offer.as_str(), r#"{"type":"offer","sdp":"v=0\r\n","iceRestart":true}"#);
    assert_eq!(first.offer_id, OfferId::from_bytes(b"\xd6\x01cccccccccccccccccc"));
    assert_eq!((second.offer.as_str(), &second.offer_id), ("{ }", &OfferId::new("d").unwrap()));
}

#[test]
fn what_is_left_may_be_anything() {
    for (left, expected) in [
        ("0", Some(0)),
        ("-0", Some(0)),
        ("0.0", Some(0)),
        ("0e7", Some(0)),
        ("\"0\"", Some(0)),
        ("1", Some(1)),
        ("\"17\"", Some(17)),
        ("9223372036854775807", Some(u64::MAX / 2)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", Some(u64::MAX)),
        ("1e3", Some(1000)),
        ("\"1e3\"", Some(1000)),
        ("1e30", Some(u64::MAX)),
        ("1e999", Some(u64::MAX)),
        ("0.5", Some(1)),
        ("\"inf\"", None),
        ("\"nan\"", None),
        ("-1", None),
        ("null", None),
        ("\"\"", None),
        ("\"-\"", None),
        ("\"much\"", None),
        ("false", None),
        ("[0]", None),
        ("{}", None),
    ] {
        let text = announce_with(&format!(",\"left\":{left}"));
        assert_eq!(announce(&text).left, expected, "{left}");
        assert_eq!(announce(&text).is_seeder(), expected == Some(0));
    }
    let text = announce_with("");
    assert!(!announce(&text).is_seeder(), "a peer that does not say is no seeder");
}

#[test]
fn counts_of_replies_may_be_in_any_notation() {
    for (interval, expected) in [
        ("120", 120),
        ("1.2e2", 120),
        ("12e1", 120),
        ("120.9", 120),
        ("-0", 0),
        ("1e21", u32::MAX),
        ("4294967296", u32::MAX),
    ] {
        let reply = format!(
            r#"{{"action":"announce","info_hash":"aaaaaaaaaaaaaaaaaaaa","interval":{interval},"complete":1,"incomplete":2}}"#
        );
        let Ok(TrackerMessage::Announce(reply)) = TrackerMessage::parse(&reply) else { panic!("{interval}") };
        assert_eq!(reply.interval, expected, "{interval}");
    }
}

#[test]
fn completed_without_left_is_a_seeder() {
    for left in ["", ",\"left\":null", ",\"left\":\"\"", ",\"left\":-1"] {
        let text = announce_with(&format!(",\"event\":\"completed\"{left}"));
        assert!(announce(&text).is_seeder(), "{left}");
    }
    let text = announce_with(",\"event\":\"completed\",\"left\":1");
    assert!(!announce(&text).is_seeder());
}

#[test]
fn events_that_are_not_known_are_none() {
    for (event, expected) in [
        ("\"started\"", AnnounceEvent::Started),
        ("\"stopped\"", AnnounceEvent::Stopped),
        ("\"completed\"", AnnounceEvent::Completed),
        ("\"paused\"", AnnounceEvent::Paused),
        ("\"st\\u006fpped\"", AnnounceEvent::Stopped),
        ("\"update\"", AnnounceEvent::None),
        ("\"\"", AnnounceEvent::None),
        ("\"Started\"", AnnounceEvent::Started),
        ("\"STOPP\\u0045D\"", AnnounceEvent::Stopped),
        ("\"an event with a long name\"", AnnounceEvent::None),
        ("null", AnnounceEvent::None),
        ("2", AnnounceEvent::None),
    ] {
        let text = announce_with(&format!(",\"event\":{event}"));
        assert_eq!(announce(&text).event, expected, "{event}");
    }
}

#[test]
fn nothing_else_in_an_announce_matters() {
    for member in [
        "\"numwant\":-1",
        "\"numwant\":\"many\"",
        "\"numwant\":null",
        "\"uploaded\":null",
        "\"downloaded\":{}",
        "\"key\":[1,{\"a\":\"\\ud83d\"}]",
        "\"to_peer_id\":7",
        "\"offer_id\":7",
        "\"answer\":null",
        "\"offers\":null",
        "\"offers\":[]",
        "\"trackerid\":\"\"",
        "\"\":\"\"",
    ] {
        let text = announce_with(&format!(",{member}"));
        assert_eq!(announce(&text).offers, [], "{member}");
    }
}

#[test]
fn what_is_not_passed_on_may_be_what_must_not_be() {
    let odd = "\"x\":[\"\\ud83d\",1e999]";
    let text = announce_with(&format!(
        ",{odd},\"offers\":[{{{odd},\"offer\":{{}},{odd},\"offer_id\":\"a\",{odd}}}],{odd}"
    ));
    assert_eq!(announce(&text).offers.len(), 1);
}

#[test]
fn offers_beyond_the_limit_are_left_out() {
    let offer = "{\"offer\":{},\"offer_id\":\"x\"},";
    let text = announce_with(&format!(",\"offers\":[{}null]", offer.repeat(10)));
    assert_eq!(announce(&text).offers.len(), 10);
    let limits = Limits { max_offers: 0, ..Limits::default() };
    let Ok(ClientMessage::Announce(none)) = ClientMessage::parse(&text, &limits) else {
        panic!("an announce")
    };
    assert_eq!(none.offers, []);
}

#[test]
fn the_last_of_several_members_counts() {
    let text = announce_with(
        ",\"left\":5,\"left\":0,\"offers\":[1],\"offers\":[{\"offer\":1,\"offer\":{},\"offer_id\":\"a\",\"offer_id\":\"b\"}]",
    );
    let announce = announce(&text);
    assert!(announce.is_seeder());
    assert_eq!(announce.offers[0].offer_id, OfferId::new("b").unwrap());
    assert_eq!(
        parse(&announce_with(",\"info_hash\":\"x\"")).unwrap_err(),
        Refused { action: Action::Announce, info_hash: None, fault: Fault::Length(Field::InfoHash, 1) }
    );
}

#[test]
fn an_answer_says_nothing_about_the_peer() {
    let text = announce_with(
        ",\"to_peer_id\":\"cccccccccccccccccccc\",\"offer_id\":\"dddddddddddddddddddd\",\
         \"answer\":{\"type\":\"answer\",\"sdp\":\"v=0\"},\"left\":0,\"offers\":[{}]",
    );
    let Ok(ClientMessage::Answer(Answer { info_hash, peer_id, to_peer_id, offer_id, answer })) = parse(&text)
    else {
        panic!("an answer")
    };
    assert_eq!((info_hash, peer_id, to_peer_id), (HASH, PEER, PeerId(*b"cccccccccccccccccccc")));
    assert_eq!(offer_id, OfferId::from_bytes(b"dddddddddddddddddddd"));
    assert_eq!(answer.as_str(), "{\"type\":\"answer\",\"sdp\":\"v=0\"}");
}

#[test]
fn scrapes_of_one_some_and_no_torrents() {
    let other = InfoHash(*b"bbbbbbbbbbbbbbbbbbbb");
    let scrape = |info_hashes| Ok(ClientMessage::Scrape(Scrape { info_hashes }));
    assert_eq!(parse(r#"{"action":"scrape","info_hash":"aaaaaaaaaaaaaaaaaaaa"}"#), scrape(vec![HASH]));
    assert_eq!(
        parse(
            r#"{"info_hash":["bbbbbbbbbbbbbbbbbbbb","aaaaaaaaaaaaaaaaaaaa","bbbbbbbbbbbbbbbbbbbb"],"action":"scrape"}"#
        ),
        scrape(vec![HASH, other])
    );
    assert_eq!(parse(r#"{"action":"scrape","info_hash":[]}"#), scrape(vec![]));
    let many: Vec<_> = (b'0'..b'z')
        .map(|byte| format!("\"{}\"", "a".repeat(19) + &char::from(byte.max(b'a')).to_string()))
        .collect();
    let text = format!("{{\"action\":\"scrape\",\"info_hash\":[{}]}}", many.join(","));
    let limits = Limits { max_scrape_hashes: 60, ..Limits::default() };
    let Ok(ClientMessage::Scrape(read)) = ClientMessage::parse(&text, &limits) else { panic!("a scrape") };
    assert_eq!(read.info_hashes.len(), usize::from(b'0' + 60 - b'a'));
    for all in [r#"{"action":"scrape"}"#, r#"{"action":"scrape","info_hash":null}"#] {
        let expected = Refused { action: Action::Scrape, info_hash: None, fault: Fault::FullScrape };
        assert_eq!(parse(all), Err(expected));
    }
}

#[test]
fn bad_offers_are_left_out_and_counted() {
    let long = format!("{{\"offer\":{{}},\"offer_id\":\"{}\"}}", "ÿ".repeat(65));
    let bad = [
        "null",
        "1",
        "[]",
        "{}",
        "{\"offer_id\":\"x\"}",
        "{\"offer_id\":\"x\",\"offer\":null}",
        "{\"offer_id\":\"x\",\"offer\":\"{}\"}",
        "{\"offer\":{}}",
        "{\"offer\":{},\"offer_id\":1}",
        &long,
        "{\"offer\":{},\"offer_id\":\"\\udc00\"}",
        "{\"offer\":{\"a\":\"\\ud800\"},\"offer_id\":\"\"}",
        "{\"offer\":{\"a\":-1e309},\"offer_id\":\"\"}",
    ];
    let good = "{\"offer\":{},\"offer_id\":\"good\"}";
    let read = |offers: &str| {
        let text = announce_with(&format!(",\"left\":7,\"offers\":[{offers}]"));
        let announce = announce(&text);
        assert_eq!((announce.info_hash, announce.peer_id, announce.left), (HASH, PEER, Some(7)), "{offers}");
        let names = announce.offers.iter().map(|offer| format!("{:?}", offer.offer_id)).collect::<Vec<_>>();
        (names.join(" "), announce.bad_offers)
    };
    for bad in bad {
        assert_eq!(read(bad), (String::new(), 1), "{bad}");
        assert_eq!(read(&format!("{bad},{good},{bad}")), ("good".to_owned(), 2), "{bad}");
        assert_eq!(read(&format!("{good},{bad},{good}")), ("good good".to_owned(), 1), "{bad}");
    }
    assert_eq!(read(&bad.join(",")), (String::new(), bad.len()));
    // Those left out count towards no limit.
    let many = format!("{},{}", bad.join(","), [good; 12].join(","));
    assert_eq!(read(&many), (["good"; 10].join(" "), bad.len()));
    // What is no JSON is no announce either.
    assert!(matches!(fault(",\"offers\":[{\"offer\":{},\"offer_id\":x}]"), Fault::NotJson { .. }));
}

#[test]
fn faults_of_announces() {
    assert_eq!(fault(",\"offers\":\"x\""), Fault::NotArray(Field::Offers));
    assert_eq!(fault(",\"offers\":{}"), Fault::NotArray(Field::Offers));
    let answer = |members: &str| fault(&format!(",\"answer\":{{}},{members}"));
    assert_eq!(answer("\"offer_id\":\"\""), Fault::Missing(Field::ToPeerId));
    assert_eq!(answer("\"offer_id\":\"\",\"to_peer_id\":\"x\""), Fault::Length(Field::ToPeerId, 1));
    assert_eq!(answer("\"to_peer_id\":\"aaaaaaaaaaaaaaaaaaaa\""), Fault::Missing(Field::OfferId));
    let to = "\"to_peer_id\":\"aaaaaaaaaaaaaaaaaaaa\",\"offer_id\":\"\"";
    assert_eq!(answer(&format!("{to},\"answer\":[]")), Fault::NotObject(Field::Answer));
    assert_eq!(
        answer(&format!("{to},\"answer\":{{\"a\":\"\\udfff\"}}")),
        Fault::LoneSurrogate(Field::Answer)
    );
}

#[test]
fn identifiers_are_twenty_characters_that_stand_for_bytes() {
    let refused = |hash: &str| {
        let text =
            format!("{{\"action\":\"announce\",\"info_hash\":{hash},\"peer_id\":\"-WW0208-bbbbbbbbbbbb\"}}");
        let refused = parse(&text).unwrap_err();
        assert_eq!((refused.action, refused.info_hash), (Action::Announce, None));
        refused.fault
    };
    let a19 = "a".repeat(19);
    assert_eq!(refused("\"\""), Fault::Length(Field::InfoHash, 0));
    assert_eq!(refused(&format!("\"{a19}\"")), Fault::Length(Field::InfoHash, 19));
    assert_eq!(refused(&format!("\"{a19}aa\"")), Fault::Length(Field::InfoHash, 21));
    // Twenty bytes, but nineteen characters.
    assert_eq!(refused(&format!("\"{}é\"", "a".repeat(18))), Fault::Length(Field::InfoHash, 19));
    assert_eq!(refused(&format!("\"{}\"", "a".repeat(5000))), Fault::Length(Field::InfoHash, 5000));
    for wide in ["Ā", "\\u0100", "😀", "\\ud83d\\ude00"] {
        assert_eq!(refused(&format!("\"{a19}{wide}\"")), Fault::NotBytes(Field::InfoHash), "{wide}");
    }
    assert_eq!(refused(&format!("\"{a19}\\ud800\"")), Fault::LoneSurrogate(Field::InfoHash));
    assert_eq!(refused("null"), Fault::Missing(Field::InfoHash));
    assert_eq!(refused("5"), Fault::NotString(Field::InfoHash));
    assert_eq!(refused("[\"aaaaaaaaaaaaaaaaaaaa\"]"), Fault::NotString(Field::InfoHash));
    assert_eq!(fault(",\"peer_id\":\"x\""), Fault::Length(Field::PeerId, 1));
    assert_eq!(fault(",\"peer_id\":null"), Fault::Missing(Field::PeerId));
}

#[test]
fn a_refusal_says_what_the_message_was_about_as_far_as_it_was_read() {
    let refused = |text: &str| {
        let Refused { action, info_hash, fault } = parse(text).unwrap_err();
        (action, info_hash, fault)
    };
    let hash = "\"info_hash\":\"aaaaaaaaaaaaaaaaaaaa\"";
    assert_eq!(refused(&format!("{{{hash}}}")), (Action::Announce, Some(HASH), Fault::ActionMissing));
    assert_eq!(
        refused(&format!("{{{hash},\"action\":\"ping\"}}")),
        (Action::Announce, Some(HASH), Fault::ActionUnknown)
    );
    assert_eq!(
        refused(&format!("{{{hash},\"action\":null}}")),
        (Action::Announce, Some(HASH), Fault::ActionMissing)
    );
    assert_eq!(
        refused(&format!("{{{hash},\"action\":\"scrape\",}}")),
        (Action::Scrape, Some(HASH), Fault::NotJson { at: 54 })
    );
    for (text, fault) in [
        ("", Fault::NotJson { at: 0 }),
        ("ping", Fault::NotJson { at: 0 }),
        ("{\"action\":\"announce\"} {}", Fault::NotJson { at: 22 }),
        ("\u{feff}{}", Fault::NotJson { at: 0 }),
        ("[]", Fault::NotMessage),
        ("\"announce\"", Fault::NotMessage),
        ("{}", Fault::ActionMissing),
    ] {
        assert_eq!(refused(text), (Action::Announce, None, fault), "{text}");
    }
}

#[test]
fn long_and_deep_messages_are_refused() {
    let limits = Limits { max_message_length: 200, ..Limits::default() };
    let text = announce_with("");
    let fitting = format!("{text}{}", " ".repeat(200 - text.len()));
    assert!(ClientMessage::parse(&fitting, &limits).is_ok());
    let refused = ClientMessage::parse_bytes(&[0xff; 201], &limits).unwrap_err();
    assert_eq!(refused.fault, Fault::TooLong { limit: 200 });
    assert_eq!(ClientMessage::parse(&format!("{fitting} "), &limits), Err(refused));
    // The message itself is one level.
    let nested = |levels: usize| format!(",\"x\":{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(parse(&announce_with(&nested(MAX_DEPTH - 1))).is_ok());
    assert_eq!(fault(&nested(MAX_DEPTH)), Fault::TooDeep);
    assert_eq!(fault(&format!(",\"x\":{}", "[".repeat(60_000))), Fault::TooDeep);
    assert_eq!(fault(&format!(",\"x\":{}", "{\"x\":".repeat(12_000))), Fault::TooDeep);
    assert_eq!(parse(&"[".repeat(60_000)).unwrap_err().fault, Fault::TooDeep);
    let refused = ClientMessage::parse_bytes(b"{\"action\":\"\xed\xa0\x80\"}", &limits).unwrap_err();
    assert_eq!(refused.fault, Fault::NotUtf8);
}

#[test]
fn clients_read_what_is_wrong() {
    let words = |fault: Fault| {
        let mut text = String::new();
        Refused { action: Action::Announce, info_hash: None, fault }.encode(&mut text);
        let reason = text.strip_prefix("{\"action\":\"announce\",\"failure reason\":\"").unwrap();
        reason.strip_suffix("\"}").unwrap().to_owned()
    };
    assert_eq!(words(Fault::TooLong { limit: 65_536 }), "the message is longer than 65536 bytes");
    assert_eq!(words(Fault::Length(Field::InfoHash, 19)), "info_hash must be 20 characters, got 19");
    assert_eq!(words(Fault::Missing(Field::PeerId)), "peer_id is missing");
    assert_eq!(words(Fault::ActionUnknown), "action must be announce or scrape");
    assert_eq!(words(Fault::FullScrape), "full scrapes are not supported");
    let mut text = String::new();
    Refused { action: Action::Scrape, info_hash: Some(InfoHash([0xff; 20])), fault: Fault::TooDeep }
        .encode(&mut text);
    let expected = "{\"action\":\"scrape\",\"info_hash\":\"ÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿ\",\
                    \"failure reason\":\"the message is nested deeper than 16 levels\"}";
    assert_eq!(text, expected);
}

#[test]
fn what_clients_get() {
    let text = |message: TrackerMessage<'_>| {
        let mut text = String::new();
        message.encode(&mut text);
        text
    };
    let reply = AnnounceReply { info_hash: HASH, interval: 120, complete: 1, incomplete: 20 };
    assert_eq!(
        text(TrackerMessage::Announce(reply)),
        r#"{"action":"announce","info_hash":"aaaaaaaaaaaaaaaaaaaa","interval":120,"complete":1,"incomplete":20}"#
    );
    let file = ScrapeFile { info_hash: HASH, complete: 1, incomplete: 2, downloaded: 3 };
    let other = ScrapeFile { info_hash: InfoHash(*b"\0aaaaaaaaaaaaaaaaaa\xff"), ..file };
    assert_eq!(
        text(TrackerMessage::Scrape(ScrapeReply { files: vec![file, other].into() })),
        concat!(
            r#"{"action":"scrape","files":{"aaaaaaaaaaaaaaaaaaaa":{"complete":1,"incomplete":2,"downloaded":3},"#,
            r#""\u0000aaaaaaaaaaaaaaaaaaÿ":{"complete":1,"incomplete":2,"downloaded":3}}}"#
        )
    );
    let sent = announce_with(
        r#","offers":[{"offer": {"sdp" : "v=0\u000d\n","type":"offer", "x":[1e2,{"sdp":null}]} ,"offer_id":"\u00fcx"}]"#,
    );
    let Announce { info_hash, peer_id, offers, .. } = announce(&sent);
    let [Offer { offer, offer_id }] = &offers[..] else { panic!("one offer") };
    let relay = OfferRelay { info_hash, peer_id, offer: *offer, offer_id: offer_id.clone() };
    assert_eq!(
        text(TrackerMessage::Offer(relay)),
        concat!(
            r#"{"action":"announce","info_hash":"aaaaaaaaaaaaaaaaaaaa","peer_id":"-WW0208-bbbbbbbbbbbb","#,
            r#""offer":{"sdp" : "v=0\u000d\n","type":"offer", "x":[1e2,{"sdp":null}]},"offer_id":"üx"}"#
        )
    );
    let relay = AnswerRelay { info_hash, peer_id, answer: *offer, offer_id: offer_id.clone() };
    let relay = text(TrackerMessage::Answer(relay));
    assert!(relay.contains(r#","answer":{"sdp" : "v=0"#) && relay.ends_with(r#"},"offer_id":"üx"}"#));
    let failure = FailureReply { action: Action::Announce, info_hash: Some(HASH), reason: "no \"x\"".into() };
    assert_eq!(
        text(TrackerMessage::Failure(failure)),
        r#"{"action":"announce","info_hash":"aaaaaaaaaaaaaaaaaaaa","failure reason":"no \"x\""}"#
    );
}

#[test]
fn what_other_trackers_send_is_read() {
    let reply = r#"{"complete":1.0,"incomplete":99999999999,"action":"announce","interval":120,"x":[],"info_hash":"aaaaaaaaaaaaaaaaaaaa"}"#;
    let expected = AnnounceReply { info_hash: HASH, interval: 120, complete: 1, incomplete: u32::MAX };
    assert_eq!(TrackerMessage::parse(reply), Ok(TrackerMessage::Announce(expected)));
    let failure =
        FailureReply { action: Action::Announce, info_hash: None, reason: "Invalid request".into() };
    assert_eq!(
        TrackerMessage::parse(r#"{"failure reason":"Invalid request"}"#),
        Ok(TrackerMessage::Failure(failure))
    );
    let Ok(TrackerMessage::Scrape(scrape)) =
        TrackerMessage::parse(r#"{"action":"scrape","files":{"aaaaaaaaaaaaaaaaaaaa":{"complete":7}}}"#)
    else {
        panic!("a scrape")
    };
    assert_eq!(*scrape.files, [ScrapeFile { info_hash: HASH, complete: 7, incomplete: 0, downloaded: 0 }]);
    for (text, fault) in [
        ("{}", Fault::ActionMissing),
        (r#"{"action":"announce"}"#, Fault::Missing(Field::InfoHash)),
        (r#"{"action":"scrape"}"#, Fault::Missing(Field::Files)),
        (r#"{"action":"scrape","files":[]}"#, Fault::NotObject(Field::Files)),
        (r#"{"action":"scrape","files":{"a":{}}}"#, Fault::Length(Field::InfoHash, 1)),
        (r#"{"action":"scrape","files":{"aaaaaaaaaaaaaaaaaaaa":1}}"#, Fault::NotObject(Field::Files)),
        (r#"{"failure reason":7}"#, Fault::NotString(Field::FailureReason)),
    ] {
        assert_eq!(TrackerMessage::parse(text), Err(fault), "{text}");
    }
}
