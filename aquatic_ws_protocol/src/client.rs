//! Messages of clients: decoding and encoding.

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};

use crate::description::Description;
use crate::fault::{Action, Fault, Field, Refused};
use crate::limits::Limits;
use crate::member::Member;
use crate::offer_id::OfferId;
use crate::output::{Message, Output, Sink, put};
use crate::scan::{Kind, Scanner};
use crate::text;

/// Message from a client to the tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// Announce of a peer, with offers for other peers.
    Announce(Announce<'a>),
    /// Answer to an offer. On the wire it is an announce, too, but it says nothing about the peer.
    Answer(Answer<'a>),
    /// Scrape of the counts of torrents.
    Scrape(Scrape),
}

/// Announce of a peer of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce<'a> {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Peer id of the peer.
    pub peer_id: PeerId,
    /// Number of bytes still to download; `None` if it is absent or no number of bytes.
    pub left: Option<u64>,
    /// Event of the announce.
    pub event: AnnounceEvent,
    /// Offers that can be relayed, for one peer each.
    pub offers: Vec<Offer<'a>>,
    /// Number of offers left out because they cannot be relayed: they lack a part, or a part is of the wrong
    /// type, too long, or hazardous to its reader.
    pub bad_offers: usize,
}

impl Announce<'_> {
    /// Whether the peer is a seeder: no bytes are left, or it does not say how many are and its event is
    /// `completed`.
    #[must_use]
    pub fn is_seeder(&self) -> bool {
        self.left.map_or(self.event == AnnounceEvent::Completed, |left| left == 0)
    }
}

/// Offer for any other peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer<'a> {
    /// The WebRTC offer.
    pub offer: Description<'a>,
    /// Offer id that the client has chosen.
    pub offer_id: OfferId,
}

/// Answer to an offer. It is relayed and changes nothing else: it does not say what the peer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Peer id of the answering peer.
    pub peer_id: PeerId,
    /// Peer id of the offering peer.
    pub to_peer_id: PeerId,
    /// Offer id that the offering peer has chosen.
    pub offer_id: OfferId,
    /// The WebRTC answer.
    pub answer: Description<'a>,
}

/// Scrape of the counts of torrents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrape {
    /// Info hashes, sorted and unique.
    pub info_hashes: Vec<InfoHash>,
}

impl<'a> ClientMessage<'a> {
    /// Parses a message from text.
    ///
    /// # Errors
    /// When no tracker could serve the message.
    pub fn parse(text: &'a str, limits: &Limits) -> Result<Self, Refused> {
        if text.len() > limits.max_message_length {
            return Err(unread(Fault::TooLong { limit: limits.max_message_length }));
        }
        let mut members = Members::default();
        let scanned = members.scan(text, limits);
        let action = members.action.action();
        let info_hash = members.info_hash.info_hash();
        // Action and info hash that were read before the fault go into the reply.
        let refused =
            |fault| Refused { action: action.unwrap_or(Action::Announce), info_hash: info_hash.ok(), fault };
        scanned.map_err(refused)?;
        match action.map_err(refused)? {
            Action::Announce if members.answer.is_present() => members.answer(info_hash).map(Self::Answer),
            Action::Announce => members.announce(info_hash).map(Self::Announce),
            Action::Scrape => members.scrape(limits).map(Self::Scrape),
        }
        .map_err(refused)
    }

    /// Parses a message from bytes, which are checked for UTF-8.
    ///
    /// # Errors
    /// When no tracker could serve the message.
    pub fn parse_bytes(bytes: &'a [u8], limits: &Limits) -> Result<Self, Refused> {
        if bytes.len() > limits.max_message_length {
            return Err(unread(Fault::TooLong { limit: limits.max_message_length }));
        }
        let text = str::from_utf8(bytes).map_err(|_| unread(Fault::NotUtf8))?;
        Self::parse(text, limits)
    }

    /// Appends the message to a buffer.
    pub fn encode(&self, out: &mut impl Output) {
        match self {
            Self::Announce(message) => put(message, out),
            Self::Answer(message) => put(message, out),
            Self::Scrape(message) => put(message, out),
        }
    }
}

fn unread(fault: Fault) -> Refused {
    Refused { action: Action::Announce, info_hash: None, fault }
}

/// Members of a message. Of several with the same name the last one counts, as in JavaScript.
#[derive(Default)]
struct Members<'a> {
    action: Member<'a>,
    info_hash: Member<'a>,
    peer_id: Member<'a>,
    to_peer_id: Member<'a>,
    offer_id: Member<'a>,
    left: Member<'a>,
    event: Member<'a>,
    answer: Member<'a>,
    /// Decoded while they are scanned, since they are most of the message.
    offers: Option<Result<Offers<'a>, Fault>>,
}

/// Offers of an announce.
#[derive(Default)]
struct Offers<'a> {
    good: Vec<Offer<'a>>,
    /// Number of offers left out.
    bad: usize,
}

impl<'a> Members<'a> {
    fn scan(&mut self, text: &'a str, limits: &Limits) -> Result<(), Fault> {
        let mut scanner = Scanner::new(text);
        if scanner.peek() != Some(b'{') {
            return Scanner::whole(text).and(Err(Fault::NotMessage));
        }
        scanner.object(0, |scanner, name, depth| self.member(scanner, name, depth, limits))?;
        scanner.end()
    }

    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        name: &str,
        depth: usize,
        limits: &Limits,
    ) -> Result<(), Fault> {
        let slot = match text::name(name, &mut [0; 16]) {
            "action" => &mut self.action,
            "info_hash" => &mut self.info_hash,
            "peer_id" => &mut self.peer_id,
            "to_peer_id" => &mut self.to_peer_id,
            "offer_id" => &mut self.offer_id,
            "left" => &mut self.left,
            "event" => &mut self.event,
            "answer" => &mut self.answer,
            "offers" => {
                self.offers = Some(offers(scanner, depth, limits.max_offers)?);
                return Ok(());
            }
            _ => return scanner.value(depth).map(|_| ()),
        };
        *slot = Member::new(scanner.value(depth)?);
        Ok(())
    }

    fn announce(self, info_hash: Result<InfoHash, Fault>) -> Result<Announce<'a>, Fault> {
        let (info_hash, peer_id) = (info_hash?, self.peer_id.peer_id(Field::PeerId)?);
        let Offers { good, bad } = self.offers.transpose()?.unwrap_or_default();
        Ok(Announce {
            info_hash,
            peer_id,
            left: self.left.amount(),
            event: self.event.event(),
            offers: good,
            bad_offers: bad,
        })
    }

    fn answer(self, info_hash: Result<InfoHash, Fault>) -> Result<Answer<'a>, Fault> {
        Ok(Answer {
            info_hash: info_hash?,
            peer_id: self.peer_id.peer_id(Field::PeerId)?,
            to_peer_id: self.to_peer_id.peer_id(Field::ToPeerId)?,
            offer_id: self.offer_id.offer_id()?,
            answer: self.answer.description(Field::Answer)?,
        })
    }

    fn scrape(self, limits: &Limits) -> Result<Scrape, Fault> {
        let value = self.info_hash.value().ok_or(Fault::FullScrape)?;
        let mut info_hashes = Vec::new();
        if value.kind == Kind::Array {
            Scanner::new(value.raw).array(0, |scanner, depth| {
                let item = Member::new(scanner.value(depth)?);
                if info_hashes.len() < limits.max_scrape_hashes {
                    info_hashes.push(item.info_hash()?);
                }
                Ok(())
            })?;
            info_hashes.sort_unstable();
            info_hashes.dedup();
        } else {
            info_hashes.push(self.info_hash.info_hash()?);
        }
        Ok(Scrape { info_hashes })
    }
}

/// Reads the array of offers. The outer fault is one of the message, the inner one only matters if the offers
/// do.
fn offers<'a>(
    scanner: &mut Scanner<'a>,
    depth: usize,
    max_offers: usize,
) -> Result<Result<Offers<'a>, Fault>, Fault> {
    let mut offers = Offers::default();
    if scanner.peek() != Some(b'[') {
        let is_present = Member::new(scanner.value(depth)?).is_present();
        return Ok(if is_present { Err(Fault::NotArray(Field::Offers)) } else { Ok(offers) });
    }
    scanner.array(depth, |scanner, depth| {
        let read = offer(scanner, depth)?;
        if offers.good.len() < max_offers {
            match read {
                Some(offer) => offers.good.push(offer),
                None => offers.bad += 1,
            }
        }
        Ok(())
    })?;
    Ok(Ok(offers))
}

/// Reads an offer. `None` if it cannot be relayed; the fault is one of the message.
fn offer<'a>(scanner: &mut Scanner<'a>, depth: usize) -> Result<Option<Offer<'a>>, Fault> {
    if scanner.peek() != Some(b'{') {
        scanner.value(depth)?;
        return Ok(None);
    }
    let mut offer = Member::default();
    let mut offer_id = Member::default();
    scanner.object(depth, |scanner, name, depth| {
        let member = Member::new(scanner.value(depth)?);
        match text::name(name, &mut [0; 16]) {
            "offer" => offer = member,
            "offer_id" => offer_id = member,
            _ => {}
        }
        Ok(())
    })?;
    let parts = offer.description(Field::Offer).ok().zip(offer_id.offer_id().ok());
    Ok(parts.map(|(offer, offer_id)| Offer { offer, offer_id }))
}

/// Writes the members with which announces begin, in both directions.
pub(crate) fn write_announce_head(info_hash: InfoHash, peer_id: PeerId, sink: &mut impl Sink) {
    sink.text("{\"action\":\"announce\",\"info_hash\":");
    sink.quoted_bytes(&info_hash.0);
    sink.text(",\"peer_id\":");
    sink.quoted_bytes(&peer_id.0);
}

impl Message for Announce<'_> {
    fn write(&self, sink: &mut impl Sink) {
        write_announce_head(self.info_hash, self.peer_id, sink);
        sink.text(",\"uploaded\":0,\"downloaded\":0,\"left\":");
        match self.left {
            Some(left) => sink.number(left),
            None => sink.text("null"),
        }
        sink.text(match self.event {
            AnnounceEvent::None => "",
            AnnounceEvent::Started => ",\"event\":\"started\"",
            AnnounceEvent::Stopped => ",\"event\":\"stopped\"",
            AnnounceEvent::Completed => ",\"event\":\"completed\"",
            AnnounceEvent::Paused => ",\"event\":\"paused\"",
        });
        sink.text(",\"numwant\":");
        sink.number(self.offers.len() as u64);
        sink.text(",\"offers\":[");
        for (at, offer) in self.offers.iter().enumerate() {
            sink.text(if at == 0 { "{\"offer\":" } else { ",{\"offer\":" });
            sink.text(offer.offer.as_str());
            sink.text(",\"offer_id\":");
            offer.offer_id.write(sink);
            sink.text("}");
        }
        sink.text("]}");
    }
}

impl Message for Answer<'_> {
    fn write(&self, sink: &mut impl Sink) {
        write_announce_head(self.info_hash, self.peer_id, sink);
        sink.text(",\"to_peer_id\":");
        sink.quoted_bytes(&self.to_peer_id.0);
        sink.text(",\"answer\":");
        sink.text(self.answer.as_str());
        sink.text(",\"offer_id\":");
        self.offer_id.write(sink);
        sink.text("}");
    }
}

impl Message for Scrape {
    fn write(&self, sink: &mut impl Sink) {
        sink.text("{\"action\":\"scrape\",\"info_hash\":[");
        for (at, info_hash) in self.info_hashes.iter().enumerate() {
            if at > 0 {
                sink.text(",");
            }
            sink.quoted_bytes(&info_hash.0);
        }
        sink.text("]}");
    }
}
