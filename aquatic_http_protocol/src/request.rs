//! Request decoding (BEP 3, 7, 23, 48).

use std::num::NonZeroU16;

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};

use crate::head::Head;
use crate::query::{Key, MAX_WORD, Parameters, decode_20, decode_word};
use crate::refusal::{Fault, HttpFault, Refusal, Refused};
use crate::route::TrackerRoute;
use crate::wire::Parsed;

/// A request that a tracker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Announce of a peer.
    Announce(AnnounceRequest),
    /// Scrape of the counts of torrents.
    Scrape(ScrapeRequest<'a>),
    /// Health check.
    Health,
}

impl<'a> Request<'a> {
    /// Parses the request at the front of a buffer. Its head has at most `max_head_length` bytes.
    #[must_use]
    pub fn parse(buffer: &'a [u8], max_head_length: usize) -> Parsed<(Head<'a>, Self), Refused> {
        let head = match Head::parse(buffer, max_head_length) {
            Parsed::Complete(head) => head,
            Parsed::NeedMore => return Parsed::NeedMore,
            Parsed::Refused(refused) => return Parsed::Refused(refused),
        };
        match Self::from_head(&head) {
            Ok(request) => Parsed::Complete((head, request)),
            Err(refusal) => Parsed::Refused(head.refuse(refusal)),
        }
    }

    /// Parses the request of a head. A server of further resources calls [`TrackerRoute::classify`] first.
    ///
    /// # Errors
    /// When no tracker could serve the request.
    pub fn from_head(head: &Head<'a>) -> Result<Self, Refusal> {
        match TrackerRoute::classify(head.path, head.query) {
            TrackerRoute::Announce => {
                AnnounceRequest::parse(head.query).map(Self::Announce).map_err(Refusal::Tracker)
            }
            TrackerRoute::Scrape => {
                ScrapeRequest::parse(head.query).map(Self::Scrape).map_err(Refusal::Tracker)
            }
            TrackerRoute::Health => Ok(Self::Health),
            TrackerRoute::WrongAnnounceUrl => Err(Refusal::Tracker(Fault::WrongAnnounceUrl)),
            TrackerRoute::Other => Err(Refusal::Http(HttpFault::NotFound)),
        }
    }
}

/// Parameters of an announce that a tracker needs.
///
/// Parameters that could enter another host into a swarm (`ip`, `ipv4`, `ipv6`) are ignored on purpose, and
/// so are those that no response depends on, whatever their length: `uploaded`, `downloaded`, `corrupt`,
/// `redundant`, `key`, `trackerid`, `no_peer_id`, `supportcrypto` and all unknown ones. Names of parameters
/// are compared in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Peer id of the client; `None` if it is missing or does not have 20 bytes, since no response depends on
    /// it.
    pub peer_id: Option<PeerId>,
    /// Port on which the client listens.
    pub port: NonZeroU16,
    /// Whether the peer is a seeder: `left` is 0, or `left` is no number and the event is `completed`. Any
    /// other number makes it a leecher, however many digits it has, and so does a missing one without that
    /// event: clients that started from a magnet link do not know what is left.
    pub is_seeder: bool,
    /// Event of the announce, compared in any case. An unknown event is none.
    pub event: AnnounceEvent,
    /// Maximum number of peers in the reply; `None`, for anything but a number from 0, leaves it to the
    /// tracker.
    pub numwant: Option<u32>,
}

impl AnnounceRequest {
    /// Parses the query of an announce.
    ///
    /// If a parameter occurs more than once, the last one counts: clients append theirs to those of the
    /// announce URL.
    ///
    /// # Errors
    /// When no tracker could serve the announce.
    pub fn parse(query: &[u8]) -> Result<Self, Fault> {
        let [mut buffer, mut left_buffer] = [[0; MAX_WORD]; 2];
        let mut info_hash = None;
        let mut peer_id = None;
        let mut port = None;
        let mut left: &[u8] = &[];
        let mut event: &[u8] = &[];
        let mut numwant: &[u8] = &[];
        let mut compact: &[u8] = &[];
        for (key, value) in Parameters::new(query) {
            match Key::read(key) {
                Some(Key::InfoHash) => info_hash = Some(value),
                Some(Key::PeerId) => peer_id = Some(value),
                Some(Key::Port) => port = Some(value),
                Some(Key::Left) => left = value,
                Some(Key::Event) => event = value,
                Some(Key::Numwant) => numwant = value,
                Some(Key::Compact) => compact = value,
                None => {}
            }
        }
        let event = read_event(decode_word(event, &mut [0; MAX_WORD]));
        let left = decode_word(left, &mut left_buffer);
        let info_hash = decode_20(info_hash.ok_or(Fault::InfoHashMissing)?).map_err(Fault::InfoHashLength)?;
        if decode_word(compact, &mut buffer) == b"0" {
            return Err(Fault::NotCompact);
        }
        Ok(Self {
            info_hash: InfoHash(info_hash),
            peer_id: peer_id.and_then(|text| decode_20(text).ok()).map(PeerId),
            port: read_port(decode_word(port.ok_or(Fault::PortMissing)?, &mut buffer))
                .ok_or(Fault::PortInvalid)?,
            is_seeder: is_zero(left).unwrap_or(event == AnnounceEvent::Completed),
            event,
            numwant: read_number(decode_word(numwant, &mut buffer)),
        })
    }
}

fn read_port(text: &[u8]) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(read_number(text)?).ok()?)
}

/// A number of decimal digits and nothing else, saturated.
fn read_number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, &digit| {
        let value = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(value))
    })
}

/// Whether a number of any length is 0; `None` if the text is no number.
fn is_zero(digits: &[u8]) -> Option<bool> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(true, |zero, &digit| digit.is_ascii_digit().then_some(zero && digit == b'0'))
}

/// The event of this name in any case, or none if the name is unknown.
fn read_event(word: &[u8]) -> AnnounceEvent {
    let events: [(&[u8], AnnounceEvent); 4] = [
        (b"started", AnnounceEvent::Started),
        (b"stopped", AnnounceEvent::Stopped),
        (b"completed", AnnounceEvent::Completed),
        (b"paused", AnnounceEvent::Paused),
    ];
    let known = events.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
    known.map_or(AnnounceEvent::None, |(_, event)| event)
}

/// Scrape of at least one torrent (BEP 48).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeRequest<'a> {
    query: &'a [u8],
}

impl<'a> ScrapeRequest<'a> {
    /// Parses the query of a scrape.
    ///
    /// # Errors
    /// When it has no info hash, or one that is not 20 bytes long.
    pub fn parse(query: &'a [u8]) -> Result<Self, Fault> {
        let mut empty = true;
        for value in hash_values(query) {
            decode_20(value).map_err(Fault::InfoHashLength)?;
            empty = false;
        }
        if empty { Err(Fault::FullScrape) } else { Ok(Self { query }) }
    }

    /// Info hashes in the order of the request, decoded one by one. A head of 8 KiB holds up to about 250.
    pub fn info_hashes(&self) -> impl Iterator<Item = InfoHash> + Clone + use<'a> {
        hash_values(self.query).filter_map(|value| decode_20(value).ok()).map(InfoHash)
    }

    /// Copies the first info hashes into a buffer, whose length is the maximum number of torrents the tracker
    /// answers for, and returns the part of it that was written.
    pub fn fill<'p>(&self, buffer: &'p mut [InfoHash]) -> &'p mut [InfoHash] {
        let mut filled = 0;
        for (slot, info_hash) in buffer.iter_mut().zip(self.info_hashes()) {
            *slot = info_hash;
            filled += 1;
        }
        buffer.get_mut(..filled).unwrap_or_default()
    }
}

fn hash_values(query: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    Parameters::new(query).filter(|(key, _)| Key::read(key) == Some(Key::InfoHash)).map(|(_, value)| value)
}
