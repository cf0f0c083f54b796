//! What holds for any bytes, used by the tests and by the fuzz target. Other readers of JSON are the judges.

use aquatic_common::AnnounceEvent;
use aquatic_ws_protocol::{
    Announce, Answer, AnswerRelay, ClientMessage, Description, Fault, Limits, Offer, OfferId, OfferRelay,
    OfferRelays, Refused, TrackerMessage,
};
use serde::de::IgnoredAny;
use serde_json::Value;

/// Few enough that all of them are reached.
pub(crate) const LIMITS: Limits =
    Limits { max_message_length: 64 * 1024, max_offers: 3, max_scrape_hashes: 3 };

pub(crate) fn check_bytes(bytes: &[u8]) {
    check_client_message(bytes);
    check_tracker_message(bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        check_description(text);
    }
}

fn check_client_message(bytes: &[u8]) {
    let result = ClientMessage::parse_bytes(bytes, &LIMITS);
    if let Ok(text) = str::from_utf8(bytes) {
        assert_eq!(ClientMessage::parse(text, &LIMITS), result);
    }
    match &result {
        Ok(message) => check_accepted(message),
        Err(refused) => check_refused(bytes, refused),
    }
    // Where other readers can tell what the message says, all agree about it. What the second refuses is
    // integers with more than 64 bits.
    let is_read = !matches!(&result, Err(Refused { fault: Fault::TooLong { .. } | Fault::TooDeep, .. }));
    if is_read
        && let Ok(value) = serde_json::from_slice::<Value>(bytes)
        && simd_json::to_tape(&mut bytes.to_vec()).is_ok()
    {
        check_meaning(&value, result.as_ref().ok());
    }
}

fn check_accepted(message: &ClientMessage<'_>) {
    let mut text = String::new();
    message.encode(&mut text);
    let mut again = message.clone();
    if let ClientMessage::Announce(announce) = &mut again {
        announce.bad_offers = 0;
    }
    assert_eq!(ClientMessage::parse(&text, &LIMITS), Ok(again));
    match message {
        ClientMessage::Announce(announce) => {
            assert!(announce.offers.len() <= LIMITS.max_offers);
            announce.offers.iter().for_each(|offer| check_offer_relay(announce, offer));
        }
        ClientMessage::Answer(answer) => check_answer_relay(answer),
        ClientMessage::Scrape(scrape) => {
            assert!(scrape.info_hashes.len() <= LIMITS.max_scrape_hashes);
            assert!(scrape.info_hashes.is_sorted_by(|a, b| a < b));
        }
    }
}

fn check_offer_relay(announce: &Announce<'_>, offer: &Offer<'_>) {
    let relay = OfferRelay {
        info_hash: announce.info_hash,
        peer_id: announce.peer_id,
        offer: offer.offer,
        offer_id: offer.offer_id.clone(),
    };
    let mut text = String::new();
    relay.encode(&mut text);
    assert_eq!((text.len(), text.capacity()), (relay.length(), relay.length()));
    check_relay(&text, "offer", offer.offer, &offer.offer_id);
    let relays = OfferRelays::new(announce.info_hash, announce.peer_id);
    let mut bytes = Vec::new();
    relays.encode(offer, &mut bytes);
    assert_eq!((bytes.capacity(), relays.length(offer)), (bytes.len(), bytes.len()));
    assert_eq!(bytes, text.as_bytes());
    assert_eq!(TrackerMessage::parse(&text), Ok(TrackerMessage::Offer(relay)));
}

fn check_answer_relay(answer: &Answer<'_>) {
    let relay = AnswerRelay {
        info_hash: answer.info_hash,
        peer_id: answer.peer_id,
        answer: answer.answer,
        offer_id: answer.offer_id.clone(),
    };
    let mut text = String::new();
    relay.encode(&mut text);
    assert_eq!((text.len(), text.capacity()), (relay.length(), relay.length()));
    check_relay(&text, "answer", answer.answer, &answer.offer_id);
    assert_eq!(TrackerMessage::parse(&text), Ok(TrackerMessage::Answer(relay)));
}

/// All readers find five members in a message for another client, and in one of them exactly what the other
/// client put there.
fn check_relay(text: &str, kind: &str, description: Description<'_>, offer_id: &OfferId) {
    let value: Value = serde_json::from_str(text).unwrap();
    let members = value.as_object().unwrap();
    let mut names: Vec<_> = members.keys().map(String::as_str).collect();
    names.sort_unstable();
    let mut expected = ["action", "info_hash", "offer_id", "peer_id", kind];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(members["action"], "announce");
    assert_eq!(members[kind], serde_json::from_str::<Value>(description.as_str()).unwrap());
    assert_eq!(members["offer_id"].as_str().unwrap(), offer_id.characters().collect::<String>());
    let tape = simd_json::to_owned_value(&mut text.to_owned().into_bytes()).unwrap();
    assert_eq!(serde_json::to_value(tape).unwrap()["offer_id"], members["offer_id"]);
}

fn check_refused(bytes: &[u8], refused: &Refused) {
    let is_json = serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    match refused.fault {
        Fault::TooLong { limit } => assert!(bytes.len() > limit),
        Fault::NotUtf8 => assert!(str::from_utf8(bytes).is_err()),
        Fault::NotJson { at } => assert!(!is_json && at <= bytes.len()),
        // What follows is not looked at.
        Fault::TooDeep => {}
        Fault::NotMessage
        | Fault::ActionMissing
        | Fault::ActionUnknown
        | Fault::Missing(_)
        | Fault::NotString(_)
        | Fault::NotNumber(_)
        | Fault::NotArray(_)
        | Fault::NotObject(_)
        | Fault::Length(..)
        | Fault::NotBytes(_)
        | Fault::OfferIdTooLong(_)
        | Fault::LoneSurrogate(_)
        | Fault::NumberRange(_)
        | Fault::FullScrape => assert!(is_json, "{:?} of what is not JSON", refused.fault),
    }
    let mut text = String::new();
    refused.encode(&mut text);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["failure reason"], refused.fault.to_string());
    assert_eq!(answer["action"], refused.action.name());
    assert_eq!(answer.get("info_hash").is_some(), refused.info_hash.is_some());
    let Ok(TrackerMessage::Failure(failure)) = TrackerMessage::parse(&text) else { panic!("a failure") };
    assert_eq!((failure.action, failure.info_hash), (refused.action, refused.info_hash));
}

/// The same message read in the simplest way. Nothing is what is not served.
fn check_meaning(value: &Value, message: Option<&ClientMessage<'_>>) {
    let bytes = |name| value.get(name).and_then(twenty_bytes);
    let action = value.get("action").and_then(Value::as_str);
    match (action, value.get("answer").filter(|answer| !answer.is_null())) {
        (Some("announce"), Some(answer)) => {
            let all = bytes("info_hash").zip(bytes("peer_id")).zip(bytes("to_peer_id"));
            let offer_id = value.get("offer_id").and_then(offer_id);
            let all = all.zip(offer_id).filter(|_| answer.is_object());
            let found = message.map(|message| {
                let ClientMessage::Answer(answer) = message else { panic!("an answer") };
                let ids = ((answer.info_hash.0, answer.peer_id.0), answer.to_peer_id.0);
                ((ids, answer.offer_id.characters().collect()), parsed(answer.answer))
            });
            assert_eq!(found, all.map(|all| (all, answer.clone())));
        }
        (Some("announce"), None) => {
            let all = bytes("info_hash").zip(bytes("peer_id")).zip(offers(value.get("offers")));
            let found = message.map(|message| {
                let ClientMessage::Announce(announce) = message else { panic!("an announce") };
                check_peer(value, announce);
                let offer = |offer: &Offer<'_>| (parsed(offer.offer), offer.offer_id.characters().collect());
                let offers = announce.offers.iter().map(offer).collect();
                ((announce.info_hash.0, announce.peer_id.0), (offers, announce.bad_offers))
            });
            assert_eq!(found, all);
        }
        (Some("scrape"), _) => {
            let list = match value.get("info_hash") {
                Some(Value::Array(list)) => list.iter().take(3).map(twenty_bytes).collect(),
                Some(hash) => twenty_bytes(hash).map(|hash| vec![hash]),
                None => None,
            };
            let sorted = list.map(|mut list: Vec<_>| {
                list.sort_unstable();
                list.dedup();
                list
            });
            let found = message.map(|message| {
                let ClientMessage::Scrape(scrape) = message else { panic!("a scrape") };
                scrape.info_hashes.iter().map(|hash| hash.0).collect()
            });
            assert_eq!(found, sorted);
        }
        _ => assert_eq!(message, None),
    }
}

fn check_peer(value: &Value, announce: &Announce<'_>) {
    let left = value.get("left").unwrap_or(&Value::Null);
    let whole = left.as_u64().or_else(|| left.as_str()?.parse().ok());
    // Fractions, exponents, and what does not fit.
    let other = || {
        let text = left.as_str().filter(|text| {
            !text.bytes().any(|byte| matches!(byte, b'a'..=b'd' | b'f'..=b'z' | b'A'..=b'D' | b'F'..=b'Z'))
        });
        let number = left.as_f64().or_else(|| text?.parse().ok())?;
        (number >= 0.0).then_some(number.ceil() as u64)
    };
    assert_eq!(announce.left, whole.or_else(other), "{left}");
    let event = value.get("event").and_then(Value::as_str).map(str::to_ascii_lowercase);
    let event = match event.as_deref() {
        Some("started") => AnnounceEvent::Started,
        Some("stopped") => AnnounceEvent::Stopped,
        Some("completed") => AnnounceEvent::Completed,
        Some("paused") => AnnounceEvent::Paused,
        _ => AnnounceEvent::None,
    };
    assert_eq!(announce.event, event);
}

fn parsed(description: Description<'_>) -> Value {
    serde_json::from_str(description.as_str()).unwrap()
}

fn twenty_bytes(value: &Value) -> Option<[u8; 20]> {
    let bytes: Result<Vec<u8>, _> = value.as_str()?.chars().map(u8::try_from).collect();
    bytes.ok()?.try_into().ok()
}

fn offer_id(value: &Value) -> Option<String> {
    Some(value.as_str()?.to_owned()).filter(|text| text.chars().count() <= 64)
}

/// The good offers and the number of bad ones before the limit is reached.
fn offers(list: Option<&Value>) -> Option<(Vec<(Value, String)>, usize)> {
    let Some(list) = list.filter(|list| !list.is_null()) else { return Some((Vec::new(), 0)) };
    let read = |offer: &Value| {
        let description = offer.get("offer").filter(|offer| offer.is_object())?;
        Some((description.clone(), offer_id(offer.get("offer_id")?)?))
    };
    let mut offers = (Vec::new(), 0);
    for offer in list.as_array()?.iter().map(read) {
        match offer {
            _ if offers.0.len() == LIMITS.max_offers => break,
            Some(offer) => offers.0.push(offer),
            None => offers.1 += 1,
        }
    }
    Some(offers)
}

fn check_tracker_message(bytes: &[u8]) {
    let Ok(message) = TrackerMessage::parse_bytes(bytes) else { return };
    let mut text = String::from("before");
    message.encode(&mut text);
    let text = text.strip_prefix("before").unwrap();
    assert!(serde_json::from_str::<Value>(text).is_ok());
    assert_eq!(TrackerMessage::parse(text), Ok(message));
}

fn check_description(text: &str) {
    let Ok(description) = Description::parse(text) else { return };
    assert_eq!(description.as_str(), text.trim_matches([' ', '\t', '\r', '\n']));
    let value: Value = serde_json::from_str(text).unwrap();
    assert_eq!(description.sdp().as_deref(), value.get("sdp").and_then(Value::as_str));
}
