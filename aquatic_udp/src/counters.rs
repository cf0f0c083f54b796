//! What the handler counts, in plain numbers of one core.

use aquatic_common::Family;
use aquatic_common::config::Limit;

/// Kinds of requests that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Asks for a connection id.
    Connect,
    /// Tells about a peer.
    Announce,
    /// Asks for counts.
    Scrape,
}

impl Action {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Connect, Self::Announce, Self::Scrape];

    /// The label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Announce => "announce",
            Self::Scrape => "scrape",
        }
    }
}

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Fewer bytes than a request's head.
    TooShort,
    /// More bytes than any request has.
    TooLong,
    /// A connect request without the magic number of the protocol.
    WrongMagic,
    /// Sent from port 0, to which nothing can be sent back.
    SourcePortZero,
    /// A connection id that is too old, made for another address, or invented.
    BadConnectionId,
    /// An action that trackers do not know.
    UnknownAction,
    /// An announce that ends early.
    ShortAnnounce,
    /// A scrape that names no torrent.
    FullScrape,
    /// A scrape that ends within its first info hash.
    ShortScrape,
    /// An announce of port 0, at which no peer can be reached.
    PortZero,
    /// A torrent the access list does not let in.
    AccessList,
    /// The queue to the core that owns the torrent was full.
    MeshFull,
}

impl Refusal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::TooShort,
        Self::TooLong,
        Self::WrongMagic,
        Self::SourcePortZero,
        Self::BadConnectionId,
        Self::UnknownAction,
        Self::ShortAnnounce,
        Self::FullScrape,
        Self::ShortScrape,
        Self::PortZero,
        Self::AccessList,
        Self::MeshFull,
    ];

    /// The label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::WrongMagic => "wrong_magic",
            Self::SourcePortZero => "source_port_zero",
            Self::BadConnectionId => "bad_connection_id",
            Self::UnknownAction => "unknown_action",
            Self::ShortAnnounce => "short_announce",
            Self::FullScrape => "full_scrape",
            Self::ShortScrape => "short_scrape",
            Self::PortZero => "port_zero",
            Self::AccessList => "access_list",
            Self::MeshFull => "mesh_full",
        }
    }

    /// What the client is told; `None` for silence, where nothing shows that the sender owns its address, or where a
    /// reply could not arrive.
    #[must_use]
    pub fn text(self) -> Option<&'static str> {
        match self {
            Self::TooShort
            | Self::TooLong
            | Self::WrongMagic
            | Self::SourcePortZero
            | Self::BadConnectionId
            | Self::MeshFull => None,
            Self::UnknownAction => Some("unknown action"),
            Self::ShortAnnounce => Some("announce is shorter than 98 bytes"),
            Self::FullScrape => Some("full scrapes are not supported"),
            Self::ShortScrape => Some("info hash is shorter than 20 bytes"),
            Self::PortZero => Some("port must not be 0"),
            Self::AccessList => Some("this tracker does not serve this torrent"),
        }
    }
}

/// Counts of one core since start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    requests: [[u64; Action::ALL.len()]; 2],
    responses: [[u64; Action::ALL.len()]; 2],
    refused: [[u64; Refusal::ALL.len()]; 2],
    /// Error replies, by family.
    pub errors_sent: [u64; 2],
    /// Bytes received and sent, without headers of IP and UDP, by family.
    pub bytes: [[u64; 2]; 2],
    /// Announces and scrapes handed to another core.
    pub forwarded: u64,
    /// Announces answered without storing the peer, by the limit that was reached.
    pub not_stored: [u64; Limit::ALL.len()],
}

impl Counters {
    /// Counts a well-formed request with a valid connection id.
    pub fn request(&mut self, family: Family, action: Action) {
        self.requests[family.index()][action as usize] += 1;
    }

    /// Counts a reply.
    pub fn response(&mut self, family: Family, action: Action) {
        self.responses[family.index()][action as usize] += 1;
    }

    /// Counts a request that was not served.
    pub fn refuse(&mut self, family: Family, refusal: Refusal) {
        self.refused[family.index()][refusal as usize] += 1;
    }

    /// Requests of a kind so far.
    #[must_use]
    pub fn requests(&self, family: Family, action: Action) -> u64 {
        self.requests[family.index()][action as usize]
    }

    /// Replies of a kind so far.
    #[must_use]
    pub fn responses(&self, family: Family, action: Action) -> u64 {
        self.responses[family.index()][action as usize]
    }

    /// Refusals for a reason so far.
    #[must_use]
    pub fn refused(&self, family: Family, refusal: Refusal) -> u64 {
        self.refused[family.index()][refusal as usize]
    }
}
