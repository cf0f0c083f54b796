//! What clients send.

use std::fmt;

use aquatic_common::{AnnounceEvent, BufferTooSmall, InfoHash, PeerId};
use zerocopy::network_endian::{I32, I64, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{Action, ConnectionId, RequestHead, TransactionId, put};

const HEAD_LENGTH: usize = size_of::<RequestHead>();
const INFO_HASH_LENGTH: usize = size_of::<InfoHash>();

const _: () = assert!(HEAD_LENGTH == 16);
const _: () = assert!(size_of::<AnnounceRequest>() == 98);

/// A packet that a tracker can serve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request<'a> {
    /// Asks for a connection id.
    Connect(ConnectRequest),
    /// Tells about a peer and asks for others.
    Announce(&'a AnnounceRequest),
    /// Asks for the counts of torrents.
    Scrape(ScrapeRequest<'a>),
}

/// Why a packet is not a request that can be served. The two variants differ in what may be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The head is there. If the tracker gave out the connection id, the sender deserves to be told the fault.
    Malformed {
        /// To be checked before anything is sent.
        connection_id: ConnectionId,
        /// What the error reply has to carry.
        transaction_id: TransactionId,
        /// What is wrong.
        fault: Fault,
    },
    /// The packet cannot contain a connection id of the tracker, so nothing shows who sent it.
    Unanswerable(Unanswerable),
}

/// What is wrong with a packet that may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The action is none that trackers know.
    UnknownAction,
    /// The announce has fewer than 98 bytes.
    AnnounceTooShort,
    /// The scrape names no torrent, which elsewhere asks for all of them.
    FullScrape,
    /// The only info hash of the scrape has fewer than 20 bytes.
    ScrapeTooShort,
}

impl Fault {
    /// What to tell the client.
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

/// What is wrong with a packet that must not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// Fewer than the 16 bytes of a head.
    TooShort,
    /// A connect request without the magic number of the protocol.
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
    /// Reads a whole packet.
    ///
    /// What follows the fixed part of a connect or an announce (98 bytes) is accepted and ignored: BEP 41 puts options
    /// there. What follows the last whole info hash of a scrape is ignored too, as long as there is a whole one.
    ///
    /// # Errors
    /// When the packet is not a request a tracker could serve; see [`ParseError`].
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

/// Asks for a connection id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct ConnectRequest {
    head: RequestHead,
}

impl ConnectRequest {
    /// A request with the magic number of the protocol.
    #[must_use]
    pub fn new(transaction_id: TransactionId) -> Self {
        let action = Action::Connect.wire();
        Self { head: RequestHead { connection_id: ConnectionId::PROTOCOL_MAGIC, action, transaction_id } }
    }

    /// What the reply has to carry.
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

/// The fixed part of an announce, as it lies in the packet.
///
/// The address field is not readable on purpose: believing it would let anyone enter anyone else into a swarm. The
/// port is passed on as it is; whether 0 is served is up to the tracker.
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

/// What an announce says, for writing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceFields {
    /// What the tracker gave out.
    pub connection_id: ConnectionId,
    /// What the reply will carry.
    pub transaction_id: TransactionId,
    /// The torrent.
    pub info_hash: InfoHash,
    /// The name of the client.
    pub peer_id: PeerId,
    /// Bytes sent to other peers.
    pub uploaded: i64,
    /// Bytes got from other peers.
    pub downloaded: i64,
    /// Bytes still to get.
    pub left: i64,
    /// What has just happened.
    pub event: AnnounceEvent,
    /// Keeps its value when the address of the client changes.
    pub key: u32,
    /// How many peers to return at most; `None` leaves it to the tracker.
    pub numwant: Option<u32>,
    /// Where the client listens.
    pub port: u16,
}

impl AnnounceRequest {
    /// The announce that says this. More than 2^31 - 1 wanted peers are written as that many.
    #[must_use]
    pub fn new(fields: &AnnounceFields) -> Self {
        let numwant = fields.numwant.map_or(-1, |wanted| i32::try_from(wanted).unwrap_or(i32::MAX));
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

    /// What the sender proves its address with.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        self.head.connection_id
    }

    /// What the reply has to carry.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        self.head.transaction_id
    }

    /// The torrent.
    #[must_use]
    pub fn info_hash(&self) -> &InfoHash {
        &self.info_hash
    }

    /// The name of the client.
    #[must_use]
    pub fn peer_id(&self) -> &PeerId {
        &self.peer_id
    }

    /// Whether the client has everything. The number of bytes left means nothing else: clients that do not know it
    /// send something huge, and some of those numbers are negative.
    #[must_use]
    pub fn is_seeder(&self) -> bool {
        self.left.get() == 0
    }

    /// What has just happened. Numbers without a meaning count as nothing.
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

    /// How many peers to return at most; `None`, for any negative number, leaves it to the tracker.
    #[must_use]
    pub fn numwant(&self) -> Option<u32> {
        u32::try_from(self.numwant.get()).ok()
    }

    /// Where the client listens. May be 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// Everything that can be written, read back.
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

/// Asks for the counts of at least one torrent.
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

    /// What the sender proves its address with.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        self.head.connection_id
    }

    /// What the reply has to carry.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        self.head.transaction_id
    }

    /// The torrents, all of them and in the order of the request. A packet holds up to some 3,000.
    #[must_use]
    pub fn info_hashes(&self) -> &'a [InfoHash] {
        self.info_hashes
    }

    /// The torrents a tracker with this limit answers for: the first ones.
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
