//! Decoding of tracker messages with `simd-json`, independent of the codec of the tracker, whose mistakes
//! would go unnoticed if both sides used it.

use aquatic_common::{InfoHash, PeerId};
use simd_json::prelude::*;
use simd_json::tape::{Object, Value};
use simd_json::{Buffers, INPUT_PADDING, Tape, fill_tape_padded};

/// Decoded message of a tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TrackerMessage<'a> {
    /// Reply to an announce.
    Announce { info_hash: InfoHash },
    /// Offer of another peer.
    Offer(Relay<'a>),
    /// Answer of another peer to an offer of the receiver.
    Answer(Relay<'a>),
    /// Reply to a scrape: the torrents it contains.
    Scrape { info_hashes: Vec<InfoHash> },
    /// Failure message with its reason.
    Failure { reason: &'a str },
}

/// Offer or answer relayed from one peer to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relay<'a> {
    pub(crate) info_hash: InfoHash,
    /// Peer id of the sender.
    pub(crate) peer_id: PeerId,
    pub(crate) offer_id: &'a str,
    pub(crate) description: Description<'a>,
}

/// Session description of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Description<'a> {
    /// `offer` or `answer`.
    pub(crate) kind: &'a str,
    pub(crate) sdp: &'a str,
}

/// Reason why a message is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    NotJson,
    NotObject,
    /// The member is missing or has the wrong type or length.
    Member(&'static str),
}

/// Reusable buffers of the decoder.
pub(crate) struct Decoder {
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { buffers: Buffers::default(), tape: Tape(Vec::new()) }
    }

    /// Decodes a message, of which strings are unescaped in place. Unknown members are ignored; of members
    /// with the same name the last one counts, as in JavaScript.
    pub(crate) fn decode<'a>(&mut self, message: &'a mut Vec<u8>) -> Result<TrackerMessage<'a>, DecodeError> {
        let Self { buffers, tape } = self;
        let length = message.len();
        message.resize(length + INPUT_PADDING, 0);
        let mut nodes = std::mem::replace(tape, Tape(Vec::new())).reset();
        let decoded = match fill_tape_padded(message, length, buffers, &mut nodes) {
            Ok(()) => Members::of(nodes.as_value()).and_then(|members| members.message()),
            Err(_) => Err(DecodeError::NotJson),
        };
        *tape = nodes.reset();
        decoded
    }
}

/// Known members of a message.
#[derive(Clone, Copy, Default)]
struct Members<'t, 'a> {
    action: Option<Value<'t, 'a>>,
    info_hash: Option<Value<'t, 'a>>,
    peer_id: Option<Value<'t, 'a>>,
    offer_id: Option<Value<'t, 'a>>,
    offer: Option<Value<'t, 'a>>,
    answer: Option<Value<'t, 'a>>,
    interval: Option<Value<'t, 'a>>,
    complete: Option<Value<'t, 'a>>,
    incomplete: Option<Value<'t, 'a>>,
    files: Option<Value<'t, 'a>>,
    failure_reason: Option<Value<'t, 'a>>,
}

impl<'t, 'a> Members<'t, 'a> {
    fn of(message: Value<'t, 'a>) -> Result<Self, DecodeError> {
        let mut members = Self::default();
        for (name, value) in &message.into_object().ok_or(DecodeError::NotObject)? {
            let member = match name {
                "action" => &mut members.action,
                "info_hash" => &mut members.info_hash,
                "peer_id" => &mut members.peer_id,
                "offer_id" => &mut members.offer_id,
                "offer" => &mut members.offer,
                "answer" => &mut members.answer,
                "interval" => &mut members.interval,
                "complete" => &mut members.complete,
                "incomplete" => &mut members.incomplete,
                "files" => &mut members.files,
                "failure reason" => &mut members.failure_reason,
                _ => continue,
            };
            *member = Some(value);
        }
        Ok(members)
    }

    fn message(&self) -> Result<TrackerMessage<'a>, DecodeError> {
        if self.failure_reason.is_some() {
            return Ok(TrackerMessage::Failure { reason: text(self.failure_reason, "failure reason")? });
        }
        match text(self.action, "action")? {
            "announce" => {}
            "scrape" => return self.scrape(),
            _ => return Err(DecodeError::Member("action")),
        }
        if self.offer.is_some() {
            return Ok(TrackerMessage::Offer(self.relay(self.offer, "offer")?));
        }
        if self.answer.is_some() {
            return Ok(TrackerMessage::Answer(self.relay(self.answer, "answer")?));
        }
        count(self.interval, "interval")?;
        count(self.complete, "complete")?;
        count(self.incomplete, "incomplete")?;
        Ok(TrackerMessage::Announce { info_hash: self.info_hash()? })
    }

    fn scrape(&self) -> Result<TrackerMessage<'a>, DecodeError> {
        let mut info_hashes = Vec::new();
        for (name, counts) in &object(self.files, "files")? {
            let counts = object(Some(counts), "files")?;
            for name in ["complete", "incomplete", "downloaded"] {
                count(counts.get(name), name)?;
            }
            info_hashes.push(InfoHash(twenty_bytes(name).ok_or(DecodeError::Member("files"))?));
        }
        Ok(TrackerMessage::Scrape { info_hashes })
    }

    fn relay(
        &self,
        description: Option<Value<'t, 'a>>,
        name: &'static str,
    ) -> Result<Relay<'a>, DecodeError> {
        let description = object(description, name)?;
        let peer_id = twenty_bytes(text(self.peer_id, "peer_id")?).ok_or(DecodeError::Member("peer_id"))?;
        Ok(Relay {
            info_hash: self.info_hash()?,
            peer_id: PeerId(peer_id),
            offer_id: text(self.offer_id, "offer_id")?,
            description: Description {
                kind: text(description.get("type"), "type")?,
                sdp: text(description.get("sdp"), "sdp")?,
            },
        })
    }

    fn info_hash(&self) -> Result<InfoHash, DecodeError> {
        let text = text(self.info_hash, "info_hash")?;
        twenty_bytes(text).map(InfoHash).ok_or(DecodeError::Member("info_hash"))
    }
}

fn text<'a>(value: Option<Value<'_, 'a>>, name: &'static str) -> Result<&'a str, DecodeError> {
    value.and_then(|value| value.into_string()).ok_or(DecodeError::Member(name))
}

fn object<'t, 'a>(value: Option<Value<'t, 'a>>, name: &'static str) -> Result<Object<'t, 'a>, DecodeError> {
    value.and_then(|value| value.into_object()).ok_or(DecodeError::Member(name))
}

fn count(value: Option<Value<'_, '_>>, name: &'static str) -> Result<u32, DecodeError> {
    value.and_then(|value| value.as_u32()).ok_or(DecodeError::Member(name))
}

/// Bytes of a binary string, in which each byte is the character with its number.
pub(crate) fn twenty_bytes(text: &str) -> Option<[u8; 20]> {
    let mut bytes = [0; 20];
    let mut characters = text.chars();
    for byte in &mut bytes {
        *byte = u8::try_from(characters.next()?).ok()?;
    }
    characters.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use aquatic_ws_protocol::{self as tracker, Action, OfferId};

    use super::*;

    const HASH: InfoHash = InfoHash(*b"\0\x01\"\\/\x7f\x80\xff 0123456789a");
    const PEER: PeerId = PeerId(*b"-WW0100-\xe9\n\r\t\x08\x0c123456");

    fn decode(text: &str) -> Result<TrackerMessage<'static>, DecodeError> {
        let message = Box::leak(Box::new(text.as_bytes().to_vec()));
        Decoder::new().decode(message)
    }

    /// Message as encoded by the codec of the tracker.
    fn written(message: tracker::TrackerMessage<'_>) -> String {
        let mut text = String::new();
        message.encode(&mut text);
        text
    }

    #[test]
    fn messages_of_the_tracker_codec_are_understood() {
        let reply = tracker::AnnounceReply { info_hash: HASH, interval: 120, complete: 1, incomplete: 2 };
        let text = written(tracker::TrackerMessage::Announce(reply));
        assert_eq!(decode(&text), Ok(TrackerMessage::Announce { info_hash: HASH }));

        let offer_id = [0xff; 20];
        let offer = tracker::OfferRelay {
            info_hash: HASH,
            peer_id: PEER,
            offer: tracker::Description::parse(r#"{"type":"offer","sdp":"v=0\r\n\u00e9","x":[]}"#).unwrap(),
            offer_id: OfferId::from_bytes(&offer_id),
        };
        let Ok(TrackerMessage::Offer(relay)) = decode(&written(tracker::TrackerMessage::Offer(offer))) else {
            panic!("an offer")
        };
        assert_eq!((relay.info_hash, relay.peer_id), (HASH, PEER));
        assert_eq!(twenty_bytes(relay.offer_id), Some(offer_id));
        assert_eq!(relay.description, Description { kind: "offer", sdp: "v=0\r\n\u{e9}" });

        let file = tracker::ScrapeFile { info_hash: HASH, complete: 1, incomplete: 2, downloaded: 3 };
        let text =
            written(tracker::TrackerMessage::Scrape(tracker::ScrapeReply { files: vec![file].into() }));
        assert_eq!(decode(&text), Ok(TrackerMessage::Scrape { info_hashes: vec![HASH] }));

        let reason = "not now".into();
        let failure = tracker::FailureReply { action: Action::Scrape, info_hash: None, reason };
        let text = written(tracker::TrackerMessage::Failure(failure));
        assert_eq!(decode(&text), Ok(TrackerMessage::Failure { reason: "not now" }));
    }

    #[test]
    fn messages_are_understood_however_they_are_written() {
        let hash = "\\u0041bcdefghijklmnopqrst";
        let text = format!(
            "{{ \"x\":{{\"action\":1}}, \"action\":\"scrape\", \"answer\":{{\"sdp\":\"s\",\"type\":\"answer\"}},\
             \"peer_id\":\"{hash}\", \"info_hash\":\"{hash}\", \"offer_id\":\"o\", \"action\":\"announce\" }}"
        );
        let Ok(TrackerMessage::Answer(relay)) = decode(&text) else { panic!("an answer") };
        assert_eq!((relay.info_hash.0, relay.offer_id), (*b"Abcdefghijklmnopqrst", "o"));
    }

    #[test]
    fn faults_are_named() {
        let reply = r#"{"action":"announce","info_hash":"abcdefghijklmnopqrst","interval":1,"complete":1,"incomplete":1}"#;
        assert!(decode(reply).is_ok());
        for (from, to, error) in [
            ("}", "", DecodeError::NotJson),
            ("}", "}}", DecodeError::NotJson),
            (reply, "[1]", DecodeError::NotObject),
            ("\"announce\"", "7", DecodeError::Member("action")),
            ("\"announce\"", "\"x\"", DecodeError::Member("action")),
            ("qrst", "qrs", DecodeError::Member("info_hash")),
            ("qrst", "qrs\u{100}", DecodeError::Member("info_hash")),
            ("\"interval\":1", "\"interval\":-1", DecodeError::Member("interval")),
            ("\"complete\":1", "\"complete\":\"1\"", DecodeError::Member("complete")),
            ("\"incomplete\":1", "\"offer\":{}", DecodeError::Member("peer_id")),
            ("\"interval\":1", "\"failure reason\":null", DecodeError::Member("failure reason")),
            ("announce", "scrape", DecodeError::Member("files")),
        ] {
            let text = reply.replacen(from, to, 1);
            assert_eq!(decode(&text), Err(error), "{text}");
        }
    }
}
