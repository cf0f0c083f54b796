//! Fields that several messages have in common (BEP 15).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use aquatic_common::BufferTooSmall;
use zerocopy::network_endian::{I32, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Proof that the sender of a request can receive at its source address. Opaque to clients.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct ConnectionId(pub [u8; 8]);

impl ConnectionId {
    /// Magic number that a connect request has in place of a connection id.
    pub const PROTOCOL_MAGIC: Self = Self(0x0417_2710_1980_u64.to_be_bytes());
}

/// Number by which a client matches a reply to its request. Opaque to trackers.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct TransactionId(pub [u8; 4]);

impl TransactionId {
    /// Transaction id with this number in network byte order.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        Self(number.to_be_bytes())
    }

    /// The number in network byte order.
    #[must_use]
    pub fn number(self) -> u32 {
        u32::from_be_bytes(self.0)
    }
}

/// Kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Connect request or reply.
    Connect,
    /// Announce request or reply.
    Announce,
    /// Scrape request or reply.
    Scrape,
    /// Error reply.
    Error,
}

impl Action {
    /// Number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Connect => 0,
            Self::Announce => 1,
            Self::Scrape => 2,
            Self::Error => 3,
        }
    }

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Connect),
            1 => Some(Self::Announce),
            2 => Some(Self::Scrape),
            3 => Some(Self::Error),
            _ => None,
        }
    }

    pub(crate) fn wire(self) -> U32 {
        U32::new(self.number())
    }
}

/// The first 16 bytes of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RequestHead {
    pub(crate) connection_id: ConnectionId,
    pub(crate) action: U32,
    pub(crate) transaction_id: TransactionId,
}

impl RequestHead {
    /// Head of a packet; `None` if the packet is too short.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        Self::read_from_prefix(packet).ok().map(|(head, _)| head)
    }

    /// Connection id, which proves that the sender receives at its address.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        self.connection_id
    }

    /// Kind of the request; `None` if it is unknown.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        Action::from_number(self.action.get())
    }

    /// Transaction id, which the reply has to carry.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        self.transaction_id
    }
}

/// Peer in an announce reply over IPv4, 6 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct PeerV4 {
    ip: [u8; 4],
    port: U16,
}

impl PeerV4 {
    /// Peer at this address.
    #[must_use]
    pub fn new(address: SocketAddrV4) -> Self {
        Self { ip: address.ip().octets(), port: U16::new(address.port()) }
    }

    /// Address on which the peer listens.
    #[must_use]
    pub fn address(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from(self.ip), self.port.get())
    }
}

/// Peer in an announce reply over IPv6, 18 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct PeerV6 {
    ip: [u8; 16],
    port: U16,
}

impl PeerV6 {
    /// Peer at this address, without its flow label and scope, which have no field on the wire.
    #[must_use]
    pub fn new(address: SocketAddrV6) -> Self {
        Self { ip: address.ip().octets(), port: U16::new(address.port()) }
    }

    /// Address on which the peer listens.
    #[must_use]
    pub fn address(self) -> SocketAddrV6 {
        SocketAddrV6::new(Ipv6Addr::from(self.ip), self.port.get(), 0, 0)
    }
}

/// Counts of one torrent in a scrape reply, 12 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct TorrentCounts {
    seeders: I32,
    completed: I32,
    leechers: I32,
}

impl TorrentCounts {
    /// Counts of one torrent. Numbers above 2^31 - 1 are saturated.
    #[must_use]
    pub fn new(seeders: u32, completed: u32, leechers: u32) -> Self {
        Self { seeders: count(seeders), completed: count(completed), leechers: count(leechers) }
    }

    /// Number of seeders.
    #[must_use]
    pub fn seeders(self) -> i32 {
        self.seeders.get()
    }

    /// Number of completed downloads.
    #[must_use]
    pub fn completed(self) -> i32 {
        self.completed.get()
    }

    /// Number of leechers.
    #[must_use]
    pub fn leechers(self) -> i32 {
        self.leechers.get()
    }
}

/// A count on the wire, where numbers are signed. Numbers above 2^31 - 1 are saturated.
pub(crate) fn count(number: u32) -> I32 {
    I32::new(i32::try_from(number).unwrap_or(i32::MAX))
}

/// Copies a message to the front of a buffer and returns its length.
pub(crate) fn put(
    message: &(impl IntoBytes + Immutable),
    buffer: &mut [u8],
) -> Result<usize, BufferTooSmall> {
    let needed = size_of_val(message);
    message.write_to_prefix(buffer).map_err(|_| BufferTooSmall { needed })?;
    Ok(needed)
}
