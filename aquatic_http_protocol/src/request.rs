//! What clients send.

use std::num::NonZeroU16;

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};

use crate::framing::Method;
use crate::head::{Head, Path};
use crate::query::{MAX_WORD, Parameters, decode_20, decode_word};
use crate::refusal::{Fault, HttpFault, Refusal, Refused};
use crate::wire::Parsed;

/// A request that a tracker can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Tells about a peer and asks for others.
    Announce(AnnounceRequest),
    /// Asks for the counts of torrents.
    Scrape(ScrapeRequest<'a>),
    /// Asks whether the tracker is well.
    Health,
}

impl<'a> Request<'a> {
    /// Takes a request with a head of at most this many bytes from the front of a buffer.
    #[must_use]
    pub fn parse(buffer: &'a [u8], max_head_length: usize) -> Parsed<(Head<'a>, Self), Refused> {
        let head = match Head::parse(buffer, max_head_length) {
            Parsed::Complete(head) => head,
            Parsed::NeedMore => return Parsed::NeedMore,
            Parsed::Refused(refused) => return Parsed::Refused(refused),
        };
        match Self::of(&head) {
            Ok(request) => Parsed::Complete((head, request)),
            Err(refusal) => Parsed::Refused(Refused { refusal, framing: head.framing, length: head.length }),
        }
    }

    /// Reads what a head asks for.
    ///
    /// # Errors
    /// When no tracker could serve it.
    pub fn of(head: &Head<'a>) -> Result<Self, Refusal> {
        match (head.path(), head.method) {
            (Path::Other, _) => Err(Refusal::Http(HttpFault::NotFound)),
            (_, Method::Other) => Err(Refusal::Http(HttpFault::Method)),
            (Path::Announce, _) => {
                AnnounceRequest::parse(head.query).map(Self::Announce).map_err(Refusal::Tracker)
            }
            (Path::Scrape, _) => ScrapeRequest::parse(head.query).map(Self::Scrape).map_err(Refusal::Tracker),
            (Path::Health, _) => Ok(Self::Health),
        }
    }
}

/// What a tracker needs to know of an announce.
///
/// Parameters that could enter others into a swarm (`ip`, `ipv4`, `ipv6`) are ignored on purpose, and so are those that
/// no answer depends on, whatever their length: `uploaded`, `downloaded`, `corrupt`, `redundant`, `key`, `trackerid`,
/// `no_peer_id`, `supportcrypto` and all unknown ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The name of the client; `None` when it is missing or does not have 20 bytes, since no answer depends on it.
    pub peer_id: Option<PeerId>,
    /// Where the client listens.
    pub port: NonZeroU16,
    /// Whether the peer is a seeder: `left` is 0, or `left` is no number and the event is `completed`. Any other number
    /// makes it a leecher, however many digits it has, and so does a missing one without that event: clients that
    /// started from a magnet link do not know what is left.
    pub is_seeder: bool,
    /// Event of the announce, compared in any case. An unknown event is none.
    pub event: AnnounceEvent,
    /// How many peers to return at most; `None`, for anything that is not a number or is negative, leaves it to the
    /// tracker.
    pub numwant: Option<u32>,
}

/// Parameters of an announce or a scrape that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    InfoHash,
    PeerId,
    Port,
    Left,
    Event,
    Numwant,
    Compact,
}

impl Key {
    /// The key of this name in any case.
    #[inline]
    fn read(name: &[u8]) -> Option<Self> {
        match name {
            b"info_hash" => Some(Self::InfoHash),
            b"peer_id" => Some(Self::PeerId),
            b"port" => Some(Self::Port),
            b"left" => Some(Self::Left),
            b"event" => Some(Self::Event),
            b"numwant" => Some(Self::Numwant),
            b"compact" => Some(Self::Compact),
            _ if name.len() <= Self::MAX_LENGTH && name.iter().any(u8::is_ascii_uppercase) => {
                Self::read_uppercase(name)
            }
            _ => None,
        }
    }

    const MAX_LENGTH: usize = b"info_hash".len();

    #[cold]
    fn read_uppercase(name: &[u8]) -> Option<Self> {
        let mut buffer = [0; Self::MAX_LENGTH];
        let lowercase = buffer.get_mut(..name.len())?;
        lowercase.copy_from_slice(name);
        lowercase.make_ascii_lowercase();
        Self::read(lowercase)
    }
}

impl AnnounceRequest {
    /// Reads the query of an announce.
    ///
    /// Where a parameter is given more than once, the last one counts: what stands first comes with the address from the
    /// torrent, and clients add theirs behind it.
    ///
    /// # Errors
    /// When there is no way to serve it.
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

/// A number of decimal digits and nothing else; as large as possible if it does not fit.
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

/// Asks for the counts of at least one torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeRequest<'a> {
    query: &'a [u8],
}

impl<'a> ScrapeRequest<'a> {
    /// Reads the query of a scrape.
    ///
    /// # Errors
    /// When it names no torrent, or something that is none.
    pub fn parse(query: &'a [u8]) -> Result<Self, Fault> {
        let mut empty = true;
        for value in hash_values(query) {
            decode_20(value).map_err(Fault::InfoHashLength)?;
            empty = false;
        }
        if empty { Err(Fault::FullScrape) } else { Ok(Self { query }) }
    }

    /// The torrents, all of them and in the order of the request, decoded one by one. A head of 8 KiB holds up to some
    /// 250.
    pub fn info_hashes(&self) -> impl Iterator<Item = InfoHash> + Clone + use<'a> {
        hash_values(self.query).filter_map(|value| decode_20(value).ok()).map(InfoHash)
    }

    /// Copies the first torrents to these places and returns those that were filled. The number of places is how many
    /// torrents the tracker answers for.
    pub fn fill<'p>(&self, places: &'p mut [InfoHash]) -> &'p mut [InfoHash] {
        let mut filled = 0;
        for (place, info_hash) in places.iter_mut().zip(self.info_hashes()) {
            *place = info_hash;
            filled += 1;
        }
        places.get_mut(..filled).unwrap_or_default()
    }
}

fn hash_values(query: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    Parameters::new(query).filter(|(key, _)| Key::read(key) == Some(Key::InfoHash)).map(|(_, value)| value)
}
