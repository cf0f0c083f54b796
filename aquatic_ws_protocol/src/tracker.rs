//! Messages of the tracker: encoding and decoding.

use std::borrow::Cow;

use aquatic_common::{InfoHash, PeerId};

use crate::client::{Offer, write_announce_head};
use crate::description::Description;
use crate::fault::{Action, Fault, Field, Refused};
use crate::member::Member;
use crate::offer_id::OfferId;
use crate::output::{Message, Output, Sink, length, put};
use crate::scan::{Kind, Scanner};
use crate::text::{self, twenty_bytes};

/// Message from the tracker to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackerMessage<'a> {
    /// Reply to an announce.
    Announce(AnnounceReply),
    /// Relayed offer.
    Offer(OfferRelay<'a>),
    /// Relayed answer.
    Answer(AnswerRelay<'a>),
    /// Reply to a scrape.
    Scrape(ScrapeReply<'a>),
    /// Reply to a request that was not served.
    Failure(FailureReply<'a>),
}

/// Reply to an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceReply {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Interval until the next announce, in seconds.
    pub interval: u32,
    /// Number of seeders.
    pub complete: u32,
    /// Number of leechers.
    pub incomplete: u32,
}

/// Offer relayed to another peer. It does not depend on the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferRelay<'a> {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Peer id of the offering peer.
    pub peer_id: PeerId,
    /// The WebRTC offer.
    pub offer: Description<'a>,
    /// Offer id that the offering peer has chosen.
    pub offer_id: OfferId,
}

/// Encoder of the [`OfferRelay`]s of one announce, which differ in their offers only.
#[derive(Clone, Debug)]
pub struct OfferRelays {
    head: String,
}

impl OfferRelays {
    /// Encoder of the offers of this peer.
    #[must_use]
    pub fn new(info_hash: InfoHash, peer_id: PeerId) -> Self {
        let mut head = String::with_capacity(128);
        write_announce_head(info_hash, peer_id, &mut head);
        Self { head }
    }

    /// Length of the encoded message in bytes.
    #[must_use]
    pub fn length(&self, offer: &Offer<'_>) -> usize {
        length(&RelayOfOffer(&self.head, offer))
    }

    /// Appends the message with an offer to a buffer, which grows once at most.
    pub fn encode(&self, offer: &Offer<'_>, out: &mut impl Output) {
        put(&RelayOfOffer(&self.head, offer), out);
    }
}

/// Answer relayed to the offering peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRelay<'a> {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Peer id of the answering peer.
    pub peer_id: PeerId,
    /// The WebRTC answer.
    pub answer: Description<'a>,
    /// Offer id that the receiver has chosen.
    pub offer_id: OfferId,
}

/// Reply to a scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeReply<'a> {
    /// Counts of the torrents, each once.
    pub files: Cow<'a, [ScrapeFile]>,
}

/// Counts of one torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeFile {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Number of seeders.
    pub complete: u32,
    /// Number of leechers.
    pub incomplete: u32,
    /// Number of completed downloads.
    pub downloaded: u32,
}

/// Reply to a request that was not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureReply<'a> {
    /// Action of the request. Clients close the connection if it is missing.
    pub action: Action,
    /// Info hash of the request. Clients with several torrents ignore the message if it is missing.
    pub info_hash: Option<InfoHash>,
    /// Text for the user of the client.
    pub reason: Cow<'a, str>,
}

macro_rules! encode {
    ($($message:ty),*) => {$(
        impl $message {
            /// Length of the encoded message in bytes.
            #[must_use]
            pub fn length(&self) -> usize {
                length(self)
            }

            /// Appends the message to a buffer, which grows once at most.
            pub fn encode(&self, out: &mut impl Output) {
                put(self, out);
            }
        }
    )*};
}

encode!(AnnounceReply, OfferRelay<'_>, AnswerRelay<'_>, ScrapeReply<'_>, FailureReply<'_>);

impl Refused {
    /// Appends the failure reply to a buffer.
    pub fn encode(&self, out: &mut impl Output) {
        let reason = self.fault.to_string().into();
        FailureReply { action: self.action, info_hash: self.info_hash, reason }.encode(out);
    }
}

impl<'a> TrackerMessage<'a> {
    /// Parses a message from text. A failure without an action counts as one of an announce.
    ///
    /// # Errors
    /// When it is no message of a tracker.
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        let mut members = Members::default();
        let mut scanner = Scanner::new(text);
        if scanner.peek() != Some(b'{') {
            return Scanner::whole(text).and(Err(Fault::NotMessage));
        }
        scanner.object(0, |scanner, name, depth| members.member(scanner, name, depth))?;
        scanner.end()?;
        members.message()
    }

    /// Parses a message from bytes, which are checked for UTF-8.
    ///
    /// # Errors
    /// When it is no message of a tracker.
    pub fn parse_bytes(bytes: &'a [u8]) -> Result<Self, Fault> {
        Self::parse(str::from_utf8(bytes).map_err(|_| Fault::NotUtf8)?)
    }

    /// Appends the message to a buffer, which grows once at most.
    pub fn encode(&self, out: &mut impl Output) {
        match self {
            Self::Announce(message) => put(message, out),
            Self::Offer(message) => put(message, out),
            Self::Answer(message) => put(message, out),
            Self::Scrape(message) => put(message, out),
            Self::Failure(message) => put(message, out),
        }
    }
}

/// Members of a message.
#[derive(Default)]
struct Members<'a> {
    action: Member<'a>,
    info_hash: Member<'a>,
    peer_id: Member<'a>,
    offer_id: Member<'a>,
    offer: Member<'a>,
    answer: Member<'a>,
    interval: Member<'a>,
    complete: Member<'a>,
    incomplete: Member<'a>,
    files: Member<'a>,
    failure_reason: Member<'a>,
}

impl<'a> Members<'a> {
    fn member(&mut self, scanner: &mut Scanner<'a>, name: &str, depth: usize) -> Result<(), Fault> {
        let slot = match text::name(name, &mut [0; 16]) {
            "action" => &mut self.action,
            "info_hash" => &mut self.info_hash,
            "peer_id" => &mut self.peer_id,
            "offer_id" => &mut self.offer_id,
            "offer" => &mut self.offer,
            "answer" => &mut self.answer,
            "interval" => &mut self.interval,
            "complete" => &mut self.complete,
            "incomplete" => &mut self.incomplete,
            "files" => &mut self.files,
            "failure reason" => &mut self.failure_reason,
            _ => return scanner.value(depth).map(|_| ()),
        };
        *slot = Member::new(scanner.value(depth)?);
        Ok(())
    }

    fn message(self) -> Result<TrackerMessage<'a>, Fault> {
        if self.failure_reason.is_present() {
            return self.failure().map(TrackerMessage::Failure);
        }
        let action = self.action.action()?;
        if action == Action::Scrape {
            return self.scrape().map(TrackerMessage::Scrape);
        }
        if self.offer.is_present() {
            return Ok(TrackerMessage::Offer(OfferRelay {
                info_hash: self.info_hash.info_hash()?,
                peer_id: self.peer_id.peer_id(Field::PeerId)?,
                offer: self.offer.description(Field::Offer)?,
                offer_id: self.offer_id.offer_id()?,
            }));
        }
        if self.answer.is_present() {
            return Ok(TrackerMessage::Answer(AnswerRelay {
                info_hash: self.info_hash.info_hash()?,
                peer_id: self.peer_id.peer_id(Field::PeerId)?,
                answer: self.answer.description(Field::Answer)?,
                offer_id: self.offer_id.offer_id()?,
            }));
        }
        Ok(TrackerMessage::Announce(AnnounceReply {
            info_hash: self.info_hash.info_hash()?,
            interval: self.interval.count(Field::Interval)?,
            complete: self.complete.count(Field::Complete)?,
            incomplete: self.incomplete.count(Field::Incomplete)?,
        }))
    }

    fn failure(self) -> Result<FailureReply<'a>, Fault> {
        let raw = self.failure_reason.raw_string(Field::FailureReason)?;
        Ok(FailureReply {
            action: self.action.action().unwrap_or(Action::Announce),
            info_hash: self.info_hash.info_hash().ok(),
            reason: text::plain(raw).ok_or(Fault::LoneSurrogate(Field::FailureReason))?,
        })
    }

    fn scrape(self) -> Result<ScrapeReply<'a>, Fault> {
        let value = self.files.required(Field::Files)?;
        if value.kind != Kind::Object {
            return Err(Fault::NotObject(Field::Files));
        }
        let mut files = Vec::new();
        Scanner::new(value.raw).object(0, |scanner, name, depth| {
            let info_hash = InfoHash(twenty_bytes(name, Field::InfoHash)?);
            files.push(file(scanner, info_hash, depth)?);
            Ok(())
        })?;
        Ok(ScrapeReply { files: files.into() })
    }
}

/// Reads the counts of a torrent.
fn file(scanner: &mut Scanner<'_>, info_hash: InfoHash, depth: usize) -> Result<ScrapeFile, Fault> {
    if scanner.peek() != Some(b'{') {
        return Err(Fault::NotObject(Field::Files));
    }
    let [mut complete, mut incomplete, mut downloaded] = [0; 3];
    scanner.object(depth, |scanner, name, depth| {
        let member = Member::new(scanner.value(depth)?);
        let slot = match text::name(name, &mut [0; 16]) {
            "complete" => &mut complete,
            "incomplete" => &mut incomplete,
            "downloaded" => &mut downloaded,
            _ => return Ok(()),
        };
        *slot = member.count(Field::Files)?;
        Ok(())
    })?;
    Ok(ScrapeFile { info_hash, complete, incomplete, downloaded })
}

impl Message for AnnounceReply {
    fn write(&self, sink: &mut impl Sink) {
        sink.text("{\"action\":\"announce\",\"info_hash\":");
        sink.quoted_bytes(&self.info_hash.0);
        sink.text(",\"interval\":");
        sink.number(self.interval.into());
        sink.text(",\"complete\":");
        sink.number(self.complete.into());
        sink.text(",\"incomplete\":");
        sink.number(self.incomplete.into());
        sink.text("}");
    }
}

impl Message for OfferRelay<'_> {
    fn write(&self, sink: &mut impl Sink) {
        write_announce_head(self.info_hash, self.peer_id, sink);
        write_offer(self.offer, &self.offer_id, sink);
    }
}

fn write_offer(offer: Description<'_>, offer_id: &OfferId, sink: &mut impl Sink) {
    sink.text(",\"offer\":");
    sink.text(offer.as_str());
    sink.text(",\"offer_id\":");
    offer_id.write(sink);
    sink.text("}");
}

struct RelayOfOffer<'a>(&'a str, &'a Offer<'a>);

impl Message for RelayOfOffer<'_> {
    fn write(&self, sink: &mut impl Sink) {
        let Self(head, offer) = self;
        sink.text(head);
        write_offer(offer.offer, &offer.offer_id, sink);
    }
}

impl Message for AnswerRelay<'_> {
    fn write(&self, sink: &mut impl Sink) {
        write_announce_head(self.info_hash, self.peer_id, sink);
        sink.text(",\"answer\":");
        sink.text(self.answer.as_str());
        sink.text(",\"offer_id\":");
        self.offer_id.write(sink);
        sink.text("}");
    }
}

impl Message for ScrapeReply<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.text("{\"action\":\"scrape\",\"files\":{");
        for (at, file) in self.files.iter().enumerate() {
            if at > 0 {
                sink.text(",");
            }
            sink.quoted_bytes(&file.info_hash.0);
            sink.text(":{\"complete\":");
            sink.number(file.complete.into());
            sink.text(",\"incomplete\":");
            sink.number(file.incomplete.into());
            sink.text(",\"downloaded\":");
            sink.number(file.downloaded.into());
            sink.text("}");
        }
        sink.text("}}");
    }
}

impl Message for FailureReply<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.text("{\"action\":\"");
        sink.text(self.action.name());
        sink.text("\"");
        if let Some(info_hash) = self.info_hash {
            sink.text(",\"info_hash\":");
            sink.quoted_bytes(&info_hash.0);
        }
        sink.text(",\"failure reason\":");
        sink.quoted(&self.reason);
        sink.text("}");
    }
}
