//! Hellos: what a node says of itself every two seconds.
//!
//! ```text
//! hello     8  clock: milliseconds since the run began
//!           8  seconds since 1970 by the node's calendar
//!           1  flags: 1 complete, 2 holds parts only, 4 leaves, 8 has peers of a run before it,
//!              16 holds nothing; readers ignore others
//!           4  seconds since the node is complete
//!        1..65 name: length and characters
//!        1..33 version of the program: length and characters
//!      2 x  8  peers of IPv4 and IPv6 that the node heard last
//!           4  live connections
//!      4 x  8  announces, scrapes, completed downloads, published changes since the run began
//!           2  number of streams
//!           …  streams of 11 bytes: kind (1 or 2), core (2), next sequence number (8)
//!           1  number of nodes that hold each part, if it holds parts only
//! ```

use crate::counters::Counters;
use crate::wire::{Kind, Malformed, Reader};

/// Maximum length of a node's name in bytes.
pub const MAX_NAME: usize = 64;

/// Maximum length of the version of a program in bytes.
pub const MAX_VERSION: usize = 32;

/// Maximum number of cores of a node that take part.
pub const MAX_CORES: u16 = 256;

/// Maximum number of streams of a node: two per core.
pub const MAX_STREAMS: usize = MAX_CORES as usize * 2;

const COMPLETE: u8 = 1;
const PARTITION: u8 = 2;
const LEAVING: u8 = 4;
const RESTORED: u8 = 8;
const NOTHING: u8 = 16;

/// Which peers of UDP and HTTP a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Those of all torrents.
    Everything,
    /// Those of the parts of the hash space that are its own. So many nodes hold each part.
    Parts(u8),
    /// None: it serves WebTorrent only.
    Nothing,
}

/// Name of a node: letters, digits, `-` and `_`, so that it can be part of a subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// Checks a name.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=MAX_NAME).contains(&name.len());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (fits && name.bytes().all(allowed)).then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Stream of batches of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// Changes of peers of UDP and HTTP, or of WebTorrent peers.
    pub kind: StreamKind,
    /// Core that the batches come from, below [`MAX_CORES`].
    pub core: u16,
}

/// Kind of messages that are numbered by core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// Changes of peers of UDP and HTTP.
    Changes,
    /// Changes of WebTorrent peers.
    WebTorrent,
}

impl StreamKind {
    /// Kind of the messages.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Changes => Kind::Changes,
            Self::WebTorrent => Kind::WebTorrent,
        }
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Milliseconds since the run began.
    pub clock: u64,
    /// Seconds since 1970 by the node's calendar.
    pub calendar: u64,
    /// Whether the node knows all that others could tell it, and since how many seconds.
    pub complete: Option<u32>,
    /// Which peers it holds. A node of a version before this one holds everything if it serves WebTorrent
    /// only.
    pub holds: Holds,
    /// Whether it has taken in peers that a run before it had heard: of a saved state, or an upgrade.
    pub restored: bool,
    /// Whether this is its last hello.
    pub leaving: bool,
    /// Name of the node.
    pub name: NodeName,
    /// Version of its program.
    pub version: String,
    /// Peers of IPv4 and IPv6 that the node heard last.
    pub own_peers: [u64; 2],
    /// Live connections.
    pub connections: u32,
    /// Counters since the run began.
    pub counters: Counters,
    /// Next sequence number of each stream.
    pub streams: Vec<(StreamId, u64)>,
}

impl Hello {
    /// Appends the hello as it is sealed. Texts and streams beyond their maxima are left out.
    pub fn write(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.complete.is_some(), COMPLETE)
            | flag(matches!(self.holds, Holds::Parts(_)), PARTITION)
            | flag(self.leaving, LEAVING)
            | flag(self.restored, RESTORED)
            | flag(self.holds == Holds::Nothing, NOTHING);
        out.extend_from_slice(&self.clock.to_le_bytes());
        out.extend_from_slice(&self.calendar.to_le_bytes());
        out.push(flags);
        out.extend_from_slice(&self.complete.unwrap_or_default().to_le_bytes());
        write_text(self.name.as_str(), MAX_NAME, out);
        write_text(&self.version, MAX_VERSION, out);
        for peers in self.own_peers {
            out.extend_from_slice(&peers.to_le_bytes());
        }
        out.extend_from_slice(&self.connections.to_le_bytes());
        for counter in self.counters.as_array() {
            out.extend_from_slice(&counter.to_le_bytes());
        }
        let streams = self.streams.get(..MAX_STREAMS).unwrap_or(&self.streams);
        out.extend_from_slice(&u16::try_from(streams.len()).unwrap_or_default().to_le_bytes());
        for (id, next) in streams {
            out.push(id.kind.kind().number());
            out.extend_from_slice(&id.core.to_le_bytes());
            out.extend_from_slice(&next.to_le_bytes());
        }
        if let Holds::Parts(replicas) = self.holds {
            out.push(replicas);
        }
    }

    /// Reads a hello. Later versions may add bytes at its end.
    ///
    /// # Errors
    /// It ends early, or something is beyond its maximum.
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(body);
        let (clock, calendar, flags) = (reader.u64()?, reader.u64()?, reader.u8()?);
        let complete = reader.u32()?;
        let mut hello = Self {
            clock,
            calendar,
            complete: (flags & COMPLETE != 0).then_some(complete),
            holds: if flags & NOTHING == 0 { Holds::Everything } else { Holds::Nothing },
            restored: flags & RESTORED != 0,
            leaving: flags & LEAVING != 0,
            name: NodeName::new(reader.text(MAX_NAME)?).ok_or(Malformed)?,
            version: reader.text(MAX_VERSION)?.to_owned(),
            own_peers: [reader.u64()?, reader.u64()?],
            connections: reader.u32()?,
            counters: Counters::from_array([reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?]),
            streams: read_streams(&mut reader)?,
        };
        if flags & PARTITION != 0 {
            hello.holds = Holds::Parts(reader.u8()?);
        }
        Ok(hello)
    }
}

fn write_text(text: &str, max: usize, out: &mut Vec<u8>) {
    let kept: Vec<u8> = text.bytes().filter(u8::is_ascii_graphic).take(max).collect();
    out.push(u8::try_from(kept.len()).unwrap_or_default());
    out.extend_from_slice(&kept);
}

fn read_streams(reader: &mut Reader<'_>) -> Result<Vec<(StreamId, u64)>, Malformed> {
    let number = usize::from(reader.u16()?);
    if number > MAX_STREAMS {
        return Err(Malformed);
    }
    let mut streams = Vec::with_capacity(number);
    for _ in 0..number {
        let kind = match reader.u8()? {
            1 => StreamKind::Changes,
            2 => StreamKind::WebTorrent,
            _ => return Err(Malformed),
        };
        let core = reader.u16()?;
        if core >= MAX_CORES {
            return Err(Malformed);
        }
        streams.push((StreamId { kind, core }, reader.u64()?));
    }
    Ok(streams)
}
