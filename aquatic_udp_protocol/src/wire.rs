//! The pieces that messages are made of.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use aquatic_common::BufferTooSmall;
use zerocopy::network_endian::{I32, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Proves to the tracker that the sender of a request can receive at the address it sends from. Opaque to clients.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct ConnectionId(pub [u8; 8]);

impl ConnectionId {
    /// What stands in place of a connection id in a connect request.
    pub const PROTOCOL_MAGIC: Self = Self(0x0417_2710_1980_u64.to_be_bytes());
}

/// Ties a reply to its request. Opaque to trackers.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct TransactionId(pub [u8; 4]);

impl TransactionId {
    /// The id whose bytes are those of the number, most significant first.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        Self(number.to_be_bytes())
    }

    /// The inverse of [`TransactionId::from_number`].
    #[must_use]
    pub fn number(self) -> u32 {
        u32::from_be_bytes(self.0)
    }
}

/// The number that tells messages apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Asks for, or brings, a connection id.
    Connect,
    /// Tells about oneself and asks for peers.
    Announce,
    /// Asks for the counts of torrents.
    Scrape,
    /// Says in words why a request was not served; only in replies.
    Error,
}

impl Action {
    /// The number on the wire.
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

/// The 16 bytes that start every request. Readable before anything else about a packet is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RequestHead {
    pub(crate) connection_id: ConnectionId,
    pub(crate) action: U32,
    pub(crate) transaction_id: TransactionId,
}

impl RequestHead {
    /// The head of a packet, if the packet is long enough to have one.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        Self::read_from_prefix(packet).ok().map(|(head, _)| head)
    }

    /// What the sender proves its address with.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        self.connection_id
    }

    /// The kind of request, if it is one a tracker knows.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        Action::from_number(self.action.get())
    }

    /// What the reply has to carry.
    #[must_use]
    pub fn transaction_id(&self) -> TransactionId {
        self.transaction_id
    }
}

/// A peer in an announce reply over IPv4.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct PeerV4 {
    ip: [u8; 4],
    port: U16,
}

impl PeerV4 {
    /// The peer at an address.
    #[must_use]
    pub fn new(address: SocketAddrV4) -> Self {
        Self { ip: address.ip().octets(), port: U16::new(address.port()) }
    }

    /// Where the peer listens.
    #[must_use]
    pub fn address(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from(self.ip), self.port.get())
    }
}

/// A peer in an announce reply over IPv6.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct PeerV6 {
    ip: [u8; 16],
    port: U16,
}

impl PeerV6 {
    /// The peer at an address. Flow label and scope have no place on the wire.
    #[must_use]
    pub fn new(address: SocketAddrV6) -> Self {
        Self { ip: address.ip().octets(), port: U16::new(address.port()) }
    }

    /// Where the peer listens.
    #[must_use]
    pub fn address(self) -> SocketAddrV6 {
        SocketAddrV6::new(Ipv6Addr::from(self.ip), self.port.get(), 0, 0)
    }
}

/// What a scrape reply says about one torrent.
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
    /// Counts of one torrent.
    #[must_use]
    pub fn new(seeders: u32, completed: u32, leechers: u32) -> Self {
        Self { seeders: count(seeders), completed: count(completed), leechers: count(leechers) }
    }

    /// Peers that have everything.
    #[must_use]
    pub fn seeders(self) -> i32 {
        self.seeders.get()
    }

    /// How often a peer has come to have everything.
    #[must_use]
    pub fn completed(self) -> i32 {
        self.completed.get()
    }

    /// Peers that do not have everything.
    #[must_use]
    pub fn leechers(self) -> i32 {
        self.leechers.get()
    }
}

/// Counts are signed on the wire, and clients read them so: a count that does not fit shows as the largest that does.
pub(crate) fn count(number: u32) -> I32 {
    I32::new(i32::try_from(number).unwrap_or(i32::MAX))
}

/// Copies a message that is complete in itself to the front of a buffer.
pub(crate) fn put(
    message: &(impl IntoBytes + Immutable),
    buffer: &mut [u8],
) -> Result<usize, BufferTooSmall> {
    let needed = size_of_val(message);
    message.write_to_prefix(buffer).map_err(|_| BufferTooSmall { needed })?;
    Ok(needed)
}
