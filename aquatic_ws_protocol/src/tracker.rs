//! What the tracker sends.

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

/// A message from the tracker to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackerMessage<'a> {
    /// Answers an announce.
    Announce(AnnounceReply),
    /// Passes an offer on.
    Offer(OfferRelay<'a>),
    /// Passes an answer on.
    Answer(AnswerRelay<'a>),
    /// Answers a scrape.
    Scrape(ScrapeReply<'a>),
    /// Says why something was not served.
    Failure(FailureReply<'a>),
}

/// The answer to an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceReply {
    /// The torrent.
    pub info_hash: InfoHash,
    /// When to announce again, in seconds.
    pub interval: u32,
    /// How many peers have everything.
    pub complete: u32,
    /// How many peers do not.
    pub incomplete: u32,
}

/// An offer on its way to another peer. It is the same whoever that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferRelay<'a> {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Who offers.
    pub peer_id: PeerId,
    /// The offer.
    pub offer: Description<'a>,
    /// What that peer calls it.
    pub offer_id: OfferId,
}

/// Writes the [`OfferRelay`]s of one announce, which have most but the offers in common.
#[derive(Clone, Debug)]
pub struct OfferRelays {
    head: String,
}

impl OfferRelays {
    /// Those of offers of this peer.
    #[must_use]
    pub fn new(info_hash: InfoHash, peer_id: PeerId) -> Self {
        let mut head = String::with_capacity(128);
        write_announce_head(info_hash, peer_id, &mut head);
        Self { head }
    }

    /// How many bytes [`Self::encode`] adds.
    #[must_use]
    pub fn length(&self, offer: &Offer<'_>) -> usize {
        length(&RelayOfOffer(&self.head, offer))
    }

    /// Adds the message with an offer to a string or a vector, which grows once at most.
    pub fn encode(&self, offer: &Offer<'_>, out: &mut impl Output) {
        put(&RelayOfOffer(&self.head, offer), out);
    }
}

/// An answer on its way to the peer whose offer it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRelay<'a> {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Who answers.
    pub peer_id: PeerId,
    /// The answer.
    pub answer: Description<'a>,
    /// What the receiver called its offer.
    pub offer_id: OfferId,
}

/// The counts of torrents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeReply<'a> {
    /// Each torrent once.
    pub files: Cow<'a, [ScrapeFile]>,
}

/// The counts of one torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeFile {
    /// The torrent.
    pub info_hash: InfoHash,
    /// How many peers have everything.
    pub complete: u32,
    /// How many peers do not.
    pub incomplete: u32,
    /// How many peers came to have everything.
    pub downloaded: u32,
}

/// Why something was not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureReply<'a> {
    /// What the request was about. Clients close the connection if it is missing.
    pub action: Action,
    /// The torrent. Clients with several of them ignore the message if it is missing.
    pub info_hash: Option<InfoHash>,
    /// What the user may get to read.
    pub reason: Cow<'a, str>,
}

macro_rules! encode {
    ($($message:ty),*) => {$(
        impl $message {
            /// How many bytes [`Self::encode`] adds.
            #[must_use]
            pub fn length(&self) -> usize {
                length(self)
            }

            /// Adds the message to a string or a vector, which grows once at most.
            pub fn encode(&self, out: &mut impl Output) {
                put(self, out);
            }
        }
    )*};
}

encode!(AnnounceReply, OfferRelay<'_>, AnswerRelay<'_>, ScrapeReply<'_>, FailureReply<'_>);

impl Refused {
    /// Appends the failure reply to a string or a vector.
    pub fn encode(&self, out: &mut impl Output) {
        let reason = self.fault.to_string().into();
        FailureReply { action: self.action, info_hash: self.info_hash, reason }.encode(out);
    }
}

impl<'a> TrackerMessage<'a> {
    /// Reads a message from text. A failure without an action is taken for one about an announce.
    ///
    /// # Errors
    /// When it is not what a tracker sends.
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

    /// Reads a message from bytes that may not be text.
    ///
    /// # Errors
    /// When it is not what a tracker sends.
    pub fn parse_bytes(bytes: &'a [u8]) -> Result<Self, Fault> {
        Self::parse(str::from_utf8(bytes).map_err(|_| Fault::NotUtf8)?)
    }

    /// Adds the message to a string or a vector, which grows once at most.
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

/// Where the members of a message are.
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
        let place = match text::name(name, &mut [0; 16]) {
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
        *place = Member::new(scanner.value(depth)?);
        Ok(())
    }

    fn message(self) -> Result<TrackerMessage<'a>, Fault> {
        if self.failure_reason.is_there() {
            return self.failure().map(TrackerMessage::Failure);
        }
        let action = self.action.action()?;
        if action == Action::Scrape {
            return self.scrape().map(TrackerMessage::Scrape);
        }
        if self.offer.is_there() {
            return Ok(TrackerMessage::Offer(OfferRelay {
                info_hash: self.info_hash.info_hash()?,
                peer_id: self.peer_id.peer_id(Field::PeerId)?,
                offer: self.offer.description(Field::Offer)?,
                offer_id: self.offer_id.offer_id()?,
            }));
        }
        if self.answer.is_there() {
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
        let raw = self.failure_reason.raw_text(Field::FailureReason)?;
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

/// Takes the counts of a torrent.
fn file(scanner: &mut Scanner<'_>, info_hash: InfoHash, depth: usize) -> Result<ScrapeFile, Fault> {
    if scanner.peek() != Some(b'{') {
        return Err(Fault::NotObject(Field::Files));
    }
    let [mut complete, mut incomplete, mut downloaded] = [0; 3];
    scanner.object(depth, |scanner, name, depth| {
        let member = Member::new(scanner.value(depth)?);
        let place = match text::name(name, &mut [0; 16]) {
            "complete" => &mut complete,
            "incomplete" => &mut incomplete,
            "downloaded" => &mut downloaded,
            _ => return Ok(()),
        };
        *place = member.count(Field::Files)?;
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
