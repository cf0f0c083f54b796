//! Any bytes at all: nothing panics, what is written is what is read, and other readers of JSON agree.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod properties;

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};
use aquatic_ws_protocol::{
    Action, Announce, AnnounceReply, Answer, ClientMessage, Description, FailureReply, Limits, Offer,
    OfferId, Scrape, ScrapeFile, ScrapeReply, TrackerMessage,
};
use properties::check_bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Rng, Strategy, any, prop_oneof, proptest};
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng};
use proptest::{prop_assert, prop_assert_eq};

/// Pieces of which messages consist, and some that only look so.
const PIECES: [&str; 66] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    " ",
    "\n",
    "\t",
    "\0",
    "\u{1f}",
    "\u{7f}",
    "ÿ",
    "\u{100}",
    "😀",
    "\u{feff}",
    "null",
    "true",
    "false",
    "0",
    "-",
    "-0",
    "1.5",
    "1e400",
    "01",
    ".5",
    "1e",
    "\\u0000",
    "\\u00fF",
    "\\ud83d",
    "\\ude00",
    "\\u12",
    "\\n",
    "\\x",
    "\"action\":",
    "\"\\u0061ction\":",
    "\"announce\"",
    "\"scrape\"",
    "\"info_hash\":",
    "\"peer_id\":",
    "\"to_peer_id\":",
    "\"aaaaaaaaaaaaaaaaaaaa\"",
    "\"bbbbbbbbbbbbbbbbbbbÿ\"",
    "\"ccccccccccccccccccc\\u0000\"",
    "\"dddddddddddddddddddd\"",
    "\"ddddddddddddddddddd\"",
    "\"\"",
    "\"left\":",
    "\"event\":",
    "\"started\"",
    "\"offers\":",
    "{\"offer\":{\"type\":\"offer\",\"sdp\":\"v=0\\r\\n\"},\"offer_id\":\"aaaaaaaaaaaaaaaaaaaa\"}",
    "\"offer\":",
    "\"answer\":",
    "{\"type\":\"answer\",\"sdp\":\"v=0\\r\\n\"}",
    "{}",
    "\"offer_id\":",
    "\"failure reason\":",
    "\"files\":",
    "\"interval\":120",
    "\"complete\":1",
    "\"incomplete\":2",
    "{\"action\":\"announce\",\"info_hash\":\"aaaaaaaaaaaaaaaaaaaa\",\"peer_id\":\"bbbbbbbbbbbbbbbbbbbb\",",
    "{\"action\":\"scrape\",\"info_hash\":",
];

fn replay(seed: [u8; 32], rounds: usize, mut round: impl FnMut(&mut TestRng)) {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    (0..rounds).for_each(|_| round(&mut rng));
}

fn below(rng: &mut TestRng, end: usize) -> usize {
    usize::try_from(rng.next_u32()).unwrap() % end
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/ws_message");
    fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn corpus_of_the_fuzz_target() {
    let corpus = corpus();
    assert!(corpus.len() >= 40, "only {} files", corpus.len());
    corpus.iter().for_each(|bytes| check_bytes(bytes));
}

#[test]
fn every_message_cut_and_with_a_byte_changed() {
    replay([1; 32], 2, |rng| {
        for bytes in corpus().iter().filter(|bytes| bytes.len() < 2000) {
            let step = 1 + bytes.len() / 60;
            (0..bytes.len()).step_by(step).for_each(|end| check_bytes(&bytes[..end]));
            for at in (below(rng, step)..bytes.len()).step_by(step) {
                let mut changed = bytes.clone();
                changed[at] = *b"\"\\{}[],:0 \0\n\xffau".get(below(rng, 15)).unwrap();
                check_bytes(&changed);
            }
        }
    });
}

#[test]
fn random_pieces() {
    replay([2; 32], 30_000, |rng| {
        let count = below(rng, 24);
        let text: String = (0..count).map(|_| PIECES[below(rng, PIECES.len())]).collect();
        check_bytes(text.as_bytes());
    });
}

#[test]
fn random_bytes() {
    replay([3; 32], 5_000, |rng| {
        let mut bytes = vec![0; below(rng, 100)];
        rng.fill_bytes(&mut bytes);
        check_bytes(&bytes);
    });
}

/// A message in which most members are what they should be, in any order, some of them twice.
#[test]
fn random_messages() {
    replay([4; 32], 8_000, |rng| {
        let count = 4 + below(rng, 8);
        let members: Vec<_> = (0..count).map(|_| random_member(rng)).collect();
        check_bytes(format!("{{{}}}", members.join(", ")).as_bytes());
    });
}

fn random_member(rng: &mut TestRng) -> String {
    let name =
        ["action", "info_hash", "peer_id", "to_peer_id", "left", "event", "offers", "answer", "offer_id"]
            [below(rng, 9)];
    let value = match (name, below(rng, 8)) {
        (_, 0) => random_value(rng, 0),
        ("action", at) => spelled(rng, if at < 6 { "announce" } else { "scrape" }),
        ("event", _) => {
            let event = ["started", "stopped", "completed", "paused", "update", ""][below(rng, 6)];
            spelled(rng, event)
        }
        ("left", _) => {
            ["0", "null", "-1", "\"0\"", "1e30", "0.0", "18446744073709551616"][below(rng, 7)].into()
        }
        ("answer", _) => format!("{{\"sdp\":{}}}", random_value(rng, 2)),
        ("offers", _) => {
            let offers: Vec<_> = (0..below(rng, 5))
                .map(|_| {
                    let id = random_id(rng);
                    format!("{{\"offer\":{{\"sdp\":{}}},\"offer_id\":{id}}}", random_value(rng, 4))
                })
                .collect();
            format!("[{}]", offers.join(","))
        }
        _ => random_id(rng),
    };
    format!("{}:{value}", spelled(rng, name))
}

fn random_id(rng: &mut TestRng) -> String {
    let length = if below(rng, 10) == 0 { below(rng, 70) } else { 20 };
    let id: String = (0..length).map(|_| char::from(u8::try_from(below(rng, 256)).unwrap())).collect();
    spelled(rng, &id)
}

fn random_value(rng: &mut TestRng, depth: usize) -> String {
    match below(rng, if depth > 18 { 6 } else { 10 }) {
        0 => "null".into(),
        1 => "true".into(),
        2 => format!("{}", rng.next_u64().cast_signed()),
        3 => format!("{:e}", f64::from_bits(rng.next_u64())).replace("NaN", "0").replace("inf", "1e999"),
        4 => random_id(rng),
        5 => "\"\\ud83d\"".into(),
        6 | 7 => format!("[{}]", random_value(rng, depth + 1)),
        8 => format!("{{{}:{}}}", random_id(rng), random_value(rng, depth + 1)),
        _ => format!("[{}, {}]", random_value(rng, depth + 1), random_value(rng, depth + 1)),
    }
}

/// A string of JSON that says this, each character written in one of the ways there are.
fn spelled(rng: &mut TestRng, text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        let short = match character {
            '"' => "\\\"",
            '\\' => "\\\\",
            '/' => "\\/",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            _ => "",
        };
        let mut units = [0; 2];
        let units = character.encode_utf16(&mut units);
        let is_special = character < ' ' || matches!(character, '"' | '\\');
        match below(rng, 8) {
            0 => units.iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
            1 => units.iter().for_each(|unit| out.push_str(&format!("\\u{unit:04X}"))),
            _ if !short.is_empty() => out.push_str(short),
            _ if is_special => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

#[test]
fn bytes_are_the_same_however_they_are_spelled() {
    replay([5; 32], 3_000, |rng| {
        let mut bytes = [0; 20];
        rng.fill_bytes(&mut bytes);
        let text: String = bytes.iter().copied().map(char::from).collect();
        let message = format!(
            "{{{}:{},{}:{},{}:{}}}",
            spelled(rng, "action"),
            spelled(rng, "announce"),
            spelled(rng, "info_hash"),
            spelled(rng, &text),
            spelled(rng, "peer_id"),
            spelled(rng, &text),
        );
        let Ok(ClientMessage::Announce(announce)) = ClientMessage::parse(&message, &Limits::default()) else {
            panic!("an announce: {message}")
        };
        assert_eq!((announce.info_hash.0, announce.peer_id.0), (bytes, bytes), "{message}");
    });
}

/// Bytes that need escapes more often than random ones do.
fn id() -> impl Strategy<Value = [u8; 20]> {
    prop_oneof![any::<[u8; 20]>(), proptest::array::uniform20(select(&b"\0\x1f\"\\\n\x7f\x80\xc3\xff/"[..]))]
}

fn offer_id() -> impl Strategy<Value = OfferId> {
    prop_oneof![
        id().prop_map(|id| OfferId::from_bytes(&id)),
        vec(any::<char>(), 0..=64).prop_map(|id| OfferId::new(&String::from_iter(id)).unwrap())
    ]
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

fn info_hash() -> impl Strategy<Value = InfoHash> {
    id().prop_map(InfoHash)
}

proptest! {
    #![proptest_config(Config { cases: 400, ..Config::default() })]

    #[test]
    fn announces_are_read_as_they_were_written(
        (info_hash, peer_id, left) in (id(), id(), option::of(any::<u64>())),
        event in event(),
        offers in vec((any::<String>(), offer_id()), 0..=10),
    ) {
        let texts: Vec<_> = offers.iter().map(|(sdp, _)| Description::write_offer(sdp)).collect();
        let descriptions = texts.iter().map(|text| Description::parse(text).unwrap());
        let ids = offers.iter().map(|(_, id)| id.clone());
        let offers = descriptions.zip(ids).map(|(offer, offer_id)| Offer { offer, offer_id }).collect();
        let (info_hash, peer_id) = (InfoHash(info_hash), PeerId(peer_id));
        let message = ClientMessage::Announce(Announce { info_hash, peer_id, left, event, offers, bad_offers: 0 });
        let mut text = String::new();
        message.encode(&mut text);
        prop_assert_eq!(ClientMessage::parse(&text, &Limits { max_message_length: text.len(), ..Limits::default() }), Ok(message));
        check_bytes(text.as_bytes());
    }

    #[test]
    fn answers_are_read_as_they_were_written(ids in [id(), id(), id()], sdp in any::<String>(), offer_id in offer_id()) {
        let [info_hash, peer_id, to_peer_id] = ids;
        let answer = Description::write_answer(&sdp);
        let answer = Description::parse(&answer).unwrap();
        let (info_hash, peer_id, to_peer_id) = (InfoHash(info_hash), PeerId(peer_id), PeerId(to_peer_id));
        let message = ClientMessage::Answer(Answer { info_hash, peer_id, to_peer_id, offer_id, answer });
        let mut text = String::new();
        message.encode(&mut text);
        prop_assert_eq!(ClientMessage::parse(&text, &Limits::default()), Ok(message));
        check_bytes(text.as_bytes());
    }

    #[test]
    fn scrapes_are_read_as_they_were_written(hashes in vec(info_hash(), 0..=64)) {
        let mut info_hashes = hashes;
        info_hashes.sort_unstable();
        info_hashes.dedup();
        let message = ClientMessage::Scrape(Scrape { info_hashes });
        let mut text = String::new();
        message.encode(&mut text);
        prop_assert_eq!(ClientMessage::parse(&text, &Limits::default()), Ok(message));
        check_bytes(text.as_bytes());
    }

    #[test]
    fn replies_are_read_as_they_were_written(
        (info_hash, reason) in (option::of(info_hash()), any::<String>()),
        numbers in any::<[u32; 3]>(),
        hashes in vec((info_hash(), any::<[u32; 3]>()), 0..=5),
    ) {
        let [interval, complete, incomplete] = numbers;
        let announce = AnnounceReply { info_hash: InfoHash([7; 20]), interval, complete, incomplete };
        let action = if interval % 2 == 0 { Action::Announce } else { Action::Scrape };
        let failure = FailureReply { action, info_hash, reason: reason.into() };
        let file = |(info_hash, [complete, incomplete, downloaded]): (InfoHash, [u32; 3])| {
            ScrapeFile { info_hash, complete, incomplete, downloaded }
        };
        let files = Cow::Owned(hashes.into_iter().map(file).collect());
        for message in [
            TrackerMessage::Announce(announce),
            TrackerMessage::Failure(failure),
            TrackerMessage::Scrape(ScrapeReply { files }),
        ] {
            let mut text = String::new();
            message.encode(&mut text);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            prop_assert_eq!(TrackerMessage::parse(&text), Ok(message));
        }
    }
}
