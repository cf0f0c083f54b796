//! Reply encoding and decoding (BEP 15).

use std::fmt;

use aquatic_common::{BufferTooSmall, Family};
use zerocopy::network_endian::{I32, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{Action, ConnectionId, PeerV4, PeerV6, TorrentCounts, TransactionId, count, put};

/// Length of an announce reply without its peers, in bytes.
pub const ANNOUNCE_HEAD_LENGTH: usize = size_of::<AnnounceHead>();
/// Length of a scrape reply without its counts, in bytes.
pub const SCRAPE_HEAD_LENGTH: usize = size_of::<ReplyHead>();

const _: () = assert!(ANNOUNCE_HEAD_LENGTH == 20);
const _: () = assert!(SCRAPE_HEAD_LENGTH == 8);
const _: () = assert!(size_of::<PeerV4>() == 6 && size_of::<PeerV6>() == 18);

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReplyHead {
    action: U32,
    transaction_id: TransactionId,
}

impl ReplyHead {
    fn new(action: Action, transaction_id: TransactionId) -> Self {
        Self { action: action.wire(), transaction_id }
    }
}

/// Reply to a connect request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectReply {
    head: ReplyHead,
    connection_id: ConnectionId,
}

impl ConnectReply {
    /// Reply to the connect request with this transaction id.
    #[must_use]
    pub fn new(transaction_id: TransactionId, connection_id: ConnectionId) -> Self {
        Self { head: ReplyHead::new(Action::Connect, transaction_id), connection_id }
    }

    /// Transaction id of the request.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        self.head.transaction_id
    }

    /// Connection id for further requests.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        self.connection_id
    }

    /// Writes the reply, 16 bytes, to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        put(self, buffer)
    }
}

/// Announce reply without its peers. The peers are written in wire form straight into the buffer of the
/// reply:
///
/// ```
/// use aquatic_udp_protocol::{AnnounceHead, TransactionId};
///
/// let mut buffer = [0; 100];
/// let peers = AnnounceHead::peer_area(&mut buffer).unwrap();
/// peers[..6].copy_from_slice(&[192, 0, 2, 1, 0x1a, 0xe1]);
/// let head = AnnounceHead::new(TransactionId([1, 2, 3, 4]), 1800, 0, 1);
/// assert_eq!(head.encode(6, &mut buffer), Ok(26));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnnounceHead {
    head: ReplyHead,
    interval: I32,
    leechers: I32,
    seeders: I32,
}

impl AnnounceHead {
    /// Reply to the announce with this transaction id. The interval is in seconds. Numbers above 2^31 - 1 are
    /// saturated.
    #[must_use]
    pub fn new(transaction_id: TransactionId, interval: u32, leechers: u32, seeders: u32) -> Self {
        Self {
            head: ReplyHead::new(Action::Announce, transaction_id),
            interval: count(interval),
            leechers: count(leechers),
            seeders: count(seeders),
        }
    }

    /// Part of a reply buffer to which the peers are written.
    ///
    /// # Errors
    /// When the buffer is too small for a reply without peers.
    pub fn peer_area(buffer: &mut [u8]) -> Result<&mut [u8], BufferTooSmall> {
        buffer.get_mut(ANNOUNCE_HEAD_LENGTH..).ok_or(BufferTooSmall { needed: ANNOUNCE_HEAD_LENGTH })
    }

    /// Completes a reply whose first `peers_length` bytes of the [peer area](AnnounceHead::peer_area) hold
    /// the peers, and returns the length of the whole reply.
    ///
    /// # Errors
    /// When the buffer is smaller than that.
    pub fn encode(&self, peers_length: usize, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let needed = ANNOUNCE_HEAD_LENGTH.saturating_add(peers_length);
        let reply = buffer.get_mut(..needed).ok_or(BufferTooSmall { needed })?;
        put(self, reply)?;
        Ok(needed)
    }

    /// Transaction id of the request.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        self.head.transaction_id
    }

    /// Interval until the next announce, in seconds.
    #[must_use]
    pub fn interval(&self) -> i32 {
        self.interval.get()
    }

    /// Number of leechers.
    #[must_use]
    pub fn leechers(&self) -> i32 {
        self.leechers.get()
    }

    /// Number of seeders.
    #[must_use]
    pub fn seeders(&self) -> i32 {
        self.seeders.get()
    }
}

/// Encoder of scrape replies.
#[derive(Clone, Copy, Debug)]
pub struct ScrapeReply;

impl ScrapeReply {
    /// Length of a reply for this many torrents, in bytes.
    #[must_use]
    pub const fn length(torrents: usize) -> usize {
        SCRAPE_HEAD_LENGTH.saturating_add(torrents.saturating_mul(size_of::<TorrentCounts>()))
    }

    /// Writes the head of a reply for this many torrents and returns the slots for their counts, in the order
    /// of the request and filled with zeros. The reply has [`ScrapeReply::length`] bytes.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn start(
        transaction_id: TransactionId,
        torrents: usize,
        buffer: &mut [u8],
    ) -> Result<&mut [TorrentCounts], BufferTooSmall> {
        let error = BufferTooSmall { needed: Self::length(torrents) };
        let reply = buffer.get_mut(..error.needed).ok_or(error)?;
        let (head, counts) = ReplyHead::mut_from_prefix(reply).map_err(|_| error)?;
        let counts = <[TorrentCounts]>::mut_from_bytes(counts).map_err(|_| error)?;
        *head = ReplyHead::new(Action::Scrape, transaction_id);
        counts.fill(TorrentCounts::default());
        Ok(counts)
    }

    /// Writes a whole reply and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(
        transaction_id: TransactionId,
        counts: &[TorrentCounts],
        buffer: &mut [u8],
    ) -> Result<usize, BufferTooSmall> {
        Self::start(transaction_id, counts.len(), buffer)?.copy_from_slice(counts);
        Ok(Self::length(counts.len()))
    }
}

/// Reply to a request that was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorReply<'a> {
    /// Transaction id of the request.
    pub transaction_id: TransactionId,
    /// Text for the user of the client.
    pub text: &'a str,
}

impl ErrorReply<'_> {
    /// Writes the reply to the front of a buffer and returns its length.
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let needed = SCRAPE_HEAD_LENGTH.saturating_add(self.text.len());
        let reply = buffer.get_mut(..needed).ok_or(BufferTooSmall { needed })?;
        put(&ReplyHead::new(Action::Error, self.transaction_id), reply)?;
        self.text.as_bytes().write_to_suffix(reply).map_err(|_| BufferTooSmall { needed })?;
        Ok(needed)
    }
}

/// Reply as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Response<'a> {
    /// Reply to a connect request.
    Connect(ConnectReply),
    /// Reply to an announce.
    Announce(AnnounceReply<'a>),
    /// Reply to a scrape.
    Scrape(ScrapeView<'a>),
    /// Reply to a request that was not served.
    Error(ErrorView<'a>),
}

/// Why a packet is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The packet has fewer bytes than the fixed part of the message.
    TooShort,
    /// The connect reply does not have 16 bytes; widespread clients refuse any other length.
    ConnectLength,
    /// The length of the peers is no multiple of the length of one of the address family.
    PeersLength,
    /// The length of the counts is no multiple of 12 bytes.
    CountsLength,
    /// The action is unknown.
    UnknownAction(u32),
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("reply is truncated"),
            Self::ConnectLength => f.write_str("connect reply is not 16 bytes long"),
            Self::PeersLength => {
                f.write_str("peers of the announce reply do not have the size of the family")
            }
            Self::CountsLength => f.write_str("counts of the scrape reply are not a multiple of 12 bytes"),
            Self::UnknownAction(action) => write!(f, "unknown action {action} in reply"),
        }
    }
}

impl std::error::Error for ResponseError {}

impl<'a> Response<'a> {
    /// Parses a whole packet that a tracker sent over this address family, as strictly as the strictest
    /// client.
    ///
    /// # Errors
    /// When some client would refuse the packet.
    pub fn parse(packet: &'a [u8], family: Family) -> Result<Self, ResponseError> {
        let (head, body) = ReplyHead::read_from_prefix(packet).map_err(|_| ResponseError::TooShort)?;
        let transaction_id = head.transaction_id;
        match Action::from_number(head.action.get()) {
            Some(Action::Connect) => {
                let reply =
                    ConnectReply::read_from_bytes(packet).map_err(|_| ResponseError::ConnectLength)?;
                Ok(Self::Connect(reply))
            }
            Some(Action::Announce) => AnnounceReply::parse(packet, family).map(Self::Announce),
            Some(Action::Scrape) => {
                let counts =
                    <[TorrentCounts]>::ref_from_bytes(body).map_err(|_| ResponseError::CountsLength)?;
                Ok(Self::Scrape(ScrapeView { transaction_id, counts }))
            }
            Some(Action::Error) => Ok(Self::Error(ErrorView { transaction_id, text: body })),
            None => Err(ResponseError::UnknownAction(head.action.get())),
        }
    }

    /// Transaction id of the request.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        match self {
            Self::Connect(reply) => reply.transaction_id(),
            Self::Announce(reply) => reply.head.transaction_id(),
            Self::Scrape(reply) => reply.transaction_id,
            Self::Error(reply) => reply.transaction_id,
        }
    }
}

/// Announce reply as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceReply<'a> {
    /// Interval and counts.
    pub head: AnnounceHead,
    /// Peers of the torrent.
    pub peers: Peers<'a>,
}

impl<'a> AnnounceReply<'a> {
    fn parse(packet: &'a [u8], family: Family) -> Result<Self, ResponseError> {
        let (head, body) = AnnounceHead::read_from_prefix(packet).map_err(|_| ResponseError::TooShort)?;
        let peers = match family {
            Family::V4 => <[PeerV4]>::ref_from_bytes(body).map(Peers::V4).ok(),
            Family::V6 => <[PeerV6]>::ref_from_bytes(body).map(Peers::V6).ok(),
        };
        Ok(Self { head, peers: peers.ok_or(ResponseError::PeersLength)? })
    }
}

/// Peers in an announce reply. Their length depends on the address family of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers<'a> {
    /// 6 bytes each.
    V4(&'a [PeerV4]),
    /// 18 bytes each.
    V6(&'a [PeerV6]),
}

impl Peers<'_> {
    /// Number of peers.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::V4(peers) => peers.len(),
            Self::V6(peers) => peers.len(),
        }
    }

    /// Whether there are no peers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Scrape reply as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeView<'a> {
    /// Transaction id of the request.
    pub transaction_id: TransactionId,
    /// Counts of the torrents in the order of the request.
    pub counts: &'a [TorrentCounts],
}

/// Error reply as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorView<'a> {
    /// Transaction id of the request.
    pub transaction_id: TransactionId,
    /// Text of the tracker, not necessarily UTF-8.
    pub text: &'a [u8],
}
