//! Request decoding and encoding (BEP 15).

use std::fmt;

use aquatic_common::{AnnounceEvent, BufferTooSmall, InfoHash, PeerId};
use zerocopy::network_endian::{I32, I64, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{Action, ConnectionId, RequestHead, TransactionId, put};

const HEAD_LENGTH: usize = size_of::<RequestHead>();
const INFO_HASH_LENGTH: usize = size_of::<InfoHash>();

const _: () = assert!(HEAD_LENGTH == 16);
const _: () = assert!(size_of::<AnnounceRequest>() == 98);

/// Request that a tracker serves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request<'a> {
    /// Request for a connection id.
    Connect(ConnectRequest),
    /// Announce of a peer.
    Announce(&'a AnnounceRequest),
    /// Scrape of the counts of torrents.
    Scrape(ScrapeRequest<'a>),
}

/// Why a packet is no request that can be served. The variants differ in whether it may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The packet has a head. If its connection id is valid, the fault may be sent in an error reply.
    Malformed {
        /// Connection id of the packet, to be checked before anything is sent.
        connection_id: ConnectionId,
        /// Transaction id of the packet, for the error reply.
        transaction_id: TransactionId,
        /// Fault of the packet.
        fault: Fault,
    },
    /// The packet has no connection id of the tracker, so its source address may be forged.
    Unanswerable(Unanswerable),
}

/// Fault of a packet that may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The action is unknown.
    UnknownAction,
    /// The announce has fewer than 98 bytes.
    AnnounceTooShort,
    /// The scrape has no info hash, which elsewhere asks for all torrents.
    FullScrape,
    /// The only info hash of the scrape has fewer than 20 bytes.
    ScrapeTooShort,
}

impl Fault {
    /// Text of the error reply.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::UnknownAction => "unknown action",
            Self::AnnounceTooShort => "announce is shorter than 98 bytes",
            Self::FullScrape => "full scrapes are not supported",
            Self::ScrapeTooShort => "info hash is shorter than 20 bytes",
        }
    }
}

/// Fault of a packet that must not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// The packet has fewer than the 16 bytes of a head.
    TooShort,
    /// The connect request lacks the magic number of the protocol.
    WrongMagic,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed { fault, .. } => fault.text(),
            Self::Unanswerable(Unanswerable::TooShort) => "shorter than 16 bytes",
            Self::Unanswerable(Unanswerable::WrongMagic) => {
                "connect request without the protocol's magic number"
            }
        })
    }
}

impl std::error::Error for ParseError {}

impl<'a> Request<'a> {
    /// Parses a whole packet.
    ///
    /// Bytes behind the fixed part of a connect (16 bytes) or an announce (98 bytes) are ignored: BEP 41 puts
    /// options there. Bytes behind the last whole info hash of a scrape are ignored, too.
    ///
    /// # Errors
    /// When no tracker could serve the packet; see [`ParseError`].
    pub fn parse(packet: &'a [u8]) -> Result<Self, ParseError> {
        let Some(head) = RequestHead::read(packet) else {
            return Err(ParseError::Unanswerable(Unanswerable::TooShort));
        };
        let malformed = |fault| ParseError::Malformed {
            connection_id: head.connection_id,
            transaction_id: head.transaction_id,
            fault,
        };
        match head.action() {
            Some(Action::Connect) if head.connection_id == ConnectionId::PROTOCOL_MAGIC => {
                Ok(Self::Connect(ConnectRequest { head }))
            }
            Some(Action::Connect) => Err(ParseError::Unanswerable(Unanswerable::WrongMagic)),
            Some(Action::Announce) => match AnnounceRequest::ref_from_prefix(packet) {
                Ok((announce, _options)) => Ok(Self::Announce(announce)),
                Err(_) => Err(malformed(Fault::AnnounceTooShort)),
            },
            Some(Action::Scrape) => ScrapeRequest::parse(head, packet).map(Self::Scrape).map_err(malformed),
            Some(Action::Error) | None => Err(malformed(Fault::UnknownAction)),
        }
    }
}

/// Request for a connection id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct ConnectRequest {
    head: RequestHead,
}

impl ConnectRequest {
    /// Connect request with this transaction id.
    #[must_use]
    pub fn new(transaction_id: TransactionId) -> Self {
        let action = Action::Connect.wire();
        Self { head: RequestHead { connection_id: ConnectionId::PROTOCOL_MAGIC, action, transaction_id } }
    }

    /// Transaction id, which the reply has to carry.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        self.head.transaction_id
    }

    /// Writes the request to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        put(self, buffer)
    }
}

/// Fixed part of an announce, as it lies in the packet.
///
/// The address field is not readable on purpose: a tracker that used it would let any host enter any other
/// into a swarm. Port 0 is not refused here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnnounceRequest {
    head: RequestHead,
    info_hash: InfoHash,
    peer_id: PeerId,
    downloaded: I64,
    left: I64,
    uploaded: I64,
    event: U32,
    address: U32,
    key: U32,
    numwant: I32,
    port: U16,
}

/// Fields of an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceFields {
    /// Connection id that the tracker has issued.
    pub connection_id: ConnectionId,
    /// Transaction id, which the reply will carry.
    pub transaction_id: TransactionId,
    /// Info hash of the torrent (BEP 3).
    pub info_hash: InfoHash,
    /// Peer id of the client (BEP 20).
    pub peer_id: PeerId,
    /// Number of bytes sent to other peers.
    pub uploaded: i64,
    /// Number of bytes received from other peers.
    pub downloaded: i64,
    /// Number of bytes still to download.
    pub left: i64,
    /// Event of the announce.
    pub event: AnnounceEvent,
    /// Random number that identifies the client when its address changes.
    pub key: u32,
    /// Maximum number of peers in the reply; `None` leaves it to the tracker.
    pub numwant: Option<u32>,
    /// Port on which the client listens.
    pub port: u16,
}

impl AnnounceRequest {
    /// Announce with these fields. A `numwant` above 2^31 - 1 is saturated.
    #[must_use]
    pub fn new(fields: &AnnounceFields) -> Self {
        let numwant = fields.numwant.map_or(-1, |numwant| i32::try_from(numwant).unwrap_or(i32::MAX));
        Self {
            head: RequestHead {
                connection_id: fields.connection_id,
                action: Action::Announce.wire(),
                transaction_id: fields.transaction_id,
            },
            info_hash: fields.info_hash,
            peer_id: fields.peer_id,
            downloaded: I64::new(fields.downloaded),
            left: I64::new(fields.left),
            uploaded: I64::new(fields.uploaded),
            event: U32::new(event_number(fields.event)),
            address: U32::new(0),
            key: U32::new(fields.key),
            numwant: I32::new(numwant),
            port: U16::new(fields.port),
        }
    }

    /// Connection id, which proves that the sender receives at its address.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        self.head.connection_id
    }

    /// Transaction id, which the reply has to carry.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        self.head.transaction_id
    }

    /// Info hash of the torrent (BEP 3).
    #[must_use]
    pub fn info_hash(&self) -> &InfoHash {
        &self.info_hash
    }

    /// Peer id of the client (BEP 20).
    #[must_use]
    pub fn peer_id(&self) -> &PeerId {
        &self.peer_id
    }

    /// Whether the peer is a seeder: `left` is 0. Any other value makes it a leecher: clients that do not
    /// know the number send a huge or negative one.
    #[must_use]
    pub fn is_seeder(&self) -> bool {
        self.left.get() == 0
    }

    /// Event of the announce. An unknown number is no event.
    #[must_use]
    pub fn event(&self) -> AnnounceEvent {
        match self.event.get() {
            1 => AnnounceEvent::Completed,
            2 => AnnounceEvent::Started,
            3 => AnnounceEvent::Stopped,
            4 => AnnounceEvent::Paused,
            _ => AnnounceEvent::None,
        }
    }

    /// Maximum number of peers in the reply; `None`, for any negative number, leaves it to the tracker.
    #[must_use]
    pub fn numwant(&self) -> Option<u32> {
        u32::try_from(self.numwant.get()).ok()
    }

    /// Port on which the client listens, possibly 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// Fields of the announce.
    #[must_use]
    pub fn fields(&self) -> AnnounceFields {
        AnnounceFields {
            connection_id: self.head.connection_id,
            transaction_id: self.head.transaction_id,
            info_hash: self.info_hash,
            peer_id: self.peer_id,
            uploaded: self.uploaded.get(),
            downloaded: self.downloaded.get(),
            left: self.left.get(),
            event: self.event(),
            key: self.key.get(),
            numwant: self.numwant(),
            port: self.port(),
        }
    }

    /// Writes the request to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        put(self, buffer)
    }
}

fn event_number(event: AnnounceEvent) -> u32 {
    match event {
        AnnounceEvent::None => 0,
        AnnounceEvent::Completed => 1,
        AnnounceEvent::Started => 2,
        AnnounceEvent::Stopped => 3,
        AnnounceEvent::Paused => 4,
    }
}

/// Scrape of at least one torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeRequest<'a> {
    head: RequestHead,
    info_hashes: &'a [InfoHash],
}

impl<'a> ScrapeRequest<'a> {
    fn parse(head: RequestHead, packet: &'a [u8]) -> Result<Self, Fault> {
        let body = packet.get(HEAD_LENGTH..).unwrap_or_default();
        let count = body.len() / INFO_HASH_LENGTH;
        match <[InfoHash]>::ref_from_prefix_with_elems(body, count) {
            Ok((info_hashes, _)) if count > 0 => Ok(Self { head, info_hashes }),
            Ok(_) | Err(_) if body.is_empty() => Err(Fault::FullScrape),
            Ok(_) | Err(_) => Err(Fault::ScrapeTooShort),
        }
    }

    /// Connection id, which proves that the sender receives at its address.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        self.head.connection_id
    }

    /// Transaction id, which the reply has to carry.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        self.head.transaction_id
    }

    /// Info hashes in the order of the request. A packet holds up to about 3,000.
    #[must_use]
    pub fn info_hashes(&self) -> &'a [InfoHash] {
        self.info_hashes
    }

    /// The first info hashes, at most `limit`.
    #[must_use]
    pub fn first(&self, limit: usize) -> &'a [InfoHash] {
        self.info_hashes.get(..limit).unwrap_or(self.info_hashes)
    }
}

/// Writes a scrape of these torrents to the front of a buffer and returns its length.
///
/// # Errors
/// When the buffer is too small.
pub fn encode_scrape_request(
    connection_id: ConnectionId,
    transaction_id: TransactionId,
    info_hashes: &[InfoHash],
    buffer: &mut [u8],
) -> Result<usize, BufferTooSmall> {
    let needed = HEAD_LENGTH + size_of_val(info_hashes);
    let message = buffer.get_mut(..needed).ok_or(BufferTooSmall { needed })?;
    let head = RequestHead { connection_id, action: Action::Scrape.wire(), transaction_id };
    head.write_to_prefix(message).map_err(|_| BufferTooSmall { needed })?;
    info_hashes.write_to_suffix(message).map_err(|_| BufferTooSmall { needed })?;
    Ok(needed)
}
