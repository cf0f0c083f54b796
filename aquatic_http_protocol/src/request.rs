//! What clients send.

use std::num::NonZeroU16;

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};

use crate::framing::Method;
use crate::head::{Head, Path};
use crate::query::{MAX_WORD, Parameters, decode_20, decode_word};
use crate::refusal::{Fault, HttpFault, Refusal, Refused};
use crate::wire::Taken;

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
    pub fn take(buffer: &'a [u8], max_head_length: usize) -> Taken<(Head<'a>, Self), Refused> {
        let head = match Head::take(buffer, max_head_length) {
            Taken::Whole(head) => head,
            Taken::NeedMore => return Taken::NeedMore,
            Taken::Refused(refused) => return Taken::Refused(refused),
        };
        match Self::of(&head) {
            Ok(request) => Taken::Whole((head, request)),
            Err(refusal) => Taken::Refused(Refused { refusal, framing: head.framing, length: head.length }),
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
    /// Whether the client has everything: it says that 0 bytes are left. Any other number means no more than that some
    /// are, however many digits it has, and so does a missing one: clients that got a magnet link do not know yet.
    pub is_seeder: bool,
    /// What has just happened. Events without a meaning count as nothing.
    pub event: AnnounceEvent,
    /// How many peers to return at most; `None`, for anything that is not a number or is negative, leaves it to the
    /// tracker.
    pub numwant: Option<u32>,
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
        let mut info_hash = None;
        let mut peer_id = None;
        let mut port = None;
        let mut left: &[u8] = &[];
        let mut event: &[u8] = &[];
        let mut numwant: &[u8] = &[];
        let mut compact: &[u8] = &[];
        for (key, value) in Parameters::new(query) {
            match key {
                b"info_hash" => info_hash = Some(value),
                b"peer_id" => peer_id = Some(value),
                b"port" => port = Some(value),
                b"left" => left = value,
                b"event" => event = value,
                b"numwant" => numwant = value,
                b"compact" => compact = value,
                _ => {}
            }
        }
        let info_hash = decode_20(info_hash.ok_or(Fault::InfoHashMissing)?).map_err(Fault::InfoHashLength)?;
        let mut buffer = [0; MAX_WORD];
        if decode_word(compact, &mut buffer) == b"0" {
            return Err(Fault::NotCompact);
        }
        Ok(Self {
            info_hash: InfoHash(info_hash),
            peer_id: peer_id.and_then(|text| decode_20(text).ok()).map(PeerId),
            port: read_port(decode_word(port.ok_or(Fault::PortMissing)?, &mut buffer))
                .ok_or(Fault::PortInvalid)?,
            is_seeder: is_zero(decode_word(left, &mut buffer)),
            event: read_event(decode_word(event, &mut buffer)),
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

/// Whether this is the number 0, with however many digits.
fn is_zero(digits: &[u8]) -> bool {
    !digits.is_empty() && digits.iter().all(|&digit| digit == b'0')
}

fn read_event(word: &[u8]) -> AnnounceEvent {
    match word {
        b"started" => AnnounceEvent::Started,
        b"stopped" => AnnounceEvent::Stopped,
        b"completed" => AnnounceEvent::Completed,
        b"paused" => AnnounceEvent::Paused,
        _ => AnnounceEvent::None,
    }
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
        if empty { Err(Fault::ScrapeOfAll) } else { Ok(Self { query }) }
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
    Parameters::new(query).filter(|(key, _)| *key == b"info_hash").map(|(_, value)| value)
}
