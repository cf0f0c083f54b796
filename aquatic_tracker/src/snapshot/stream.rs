//! Writing and reading a whole snapshot, from and to anything that takes or gives bytes.

use std::fmt;
use std::io::{self, Read, Write};

use aquatic_common::Family;
use aquatic_swarm::{SaveSwarms, SavedPeer, SavedTorrent};

use super::format::{
    HEADER_LENGTH, Header, Kind, Malformed, SECTION_HEADER_LENGTH, SectionHeader, Torrent, Totals,
    write_peer, write_torrent,
};
use super::records::record_length;

/// Length of content from which on a chunk is full, in bytes. A chunk exceeds it by less than one part of a
/// torrent.
pub const CHUNK_LENGTH: usize = 64 * 1024;

/// Torrents of one family on their way from a core to a snapshot: the content of a section.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    family: Option<Family>,
    content: Vec<u8>,
    totals: Totals,
}

impl Chunk {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
    }

    /// Family of the peers, unless the chunk is empty, and the torrents as sections have them.
    #[must_use]
    pub fn into_content(self) -> Option<(Family, Vec<u8>)> {
        let family = self.family.filter(|_| !self.content.is_empty())?;
        Some((family, self.content))
    }

    /// Numbers of torrents, or parts of them, and peers.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }
}

/// Gathers what a shard hands out into chunks.
#[derive(Debug, Default)]
pub struct Chunks {
    current: Chunk,
    full: Vec<Chunk>,
}

impl Chunks {
    /// Removes a full chunk.
    pub fn pop_full(&mut self) -> Option<Chunk> {
        self.full.pop()
    }

    /// Removes the last chunk, which need not be full.
    pub fn finish(&mut self) -> Chunk {
        std::mem::take(&mut self.current)
    }

    fn renew(&mut self, family: Family) {
        let content = Vec::with_capacity(CHUNK_LENGTH + CHUNK_LENGTH / 4);
        let new = Chunk { family: Some(family), content, totals: Totals::default() };
        let full = std::mem::replace(&mut self.current, new);
        if !full.is_empty() {
            self.full.push(full);
        }
    }
}

impl SaveSwarms for Chunks {
    fn torrent(&mut self, torrent: SavedTorrent) {
        if self.current.family != Some(torrent.family) || self.current.content.len() >= CHUNK_LENGTH {
            self.renew(torrent.family);
        }
        self.current.totals.torrents += 1;
        write_torrent(&torrent, &mut self.current.content);
    }

    fn peer(&mut self, peer: SavedPeer) {
        self.current.totals.peers += 1;
        write_peer(&peer, &mut self.current.content);
    }
}

/// Writes a snapshot.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    sections: u64,
    totals: Totals,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(mut out: W, header: &Header) -> io::Result<Self> {
        out.write_all(&header.encode())?;
        Ok(Self { out, sections: 0, totals: Totals::default(), bytes: HEADER_LENGTH as u64 })
    }

    /// Writes a chunk as a section.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&mut self, chunk: &Chunk) -> io::Result<()> {
        let Some(family) = chunk.family.filter(|_| !chunk.is_empty()) else { return Ok(()) };
        self.totals.torrents += chunk.totals.torrents;
        self.totals.peers += chunk.totals.peers;
        self.section(Kind::Torrents(family), &chunk.content)
    }

    /// Writes announces as a section.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn write_announces(&mut self, family: Family, records: &[u8]) -> io::Result<()> {
        self.section(Kind::Announces(family), records)
    }

    /// Writes the longest interval in seconds that a client may be waiting for. What comes behind it is read
    /// with that in mind.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn write_interval(&mut self, seconds: u32) -> io::Result<()> {
        self.section(Kind::Interval, &seconds.to_le_bytes())
    }

    /// Writes a section without content.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn write_kind(&mut self, kind: Kind) -> io::Result<()> {
        self.section(kind, &[])
    }

    /// Writes the last section and returns what has been written, and its length in bytes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<(Totals, u64)> {
        let totals = self.totals.encode();
        self.section(Kind::End, &totals)?;
        self.out.flush()?;
        Ok((self.totals, self.bytes))
    }

    fn section(&mut self, kind: Kind, content: &[u8]) -> io::Result<()> {
        self.out.write_all(&SectionHeader::encode(kind, self.sections, content))?;
        self.out.write_all(content)?;
        self.sections += 1;
        self.bytes += (SECTION_HEADER_LENGTH + content.len()) as u64;
        Ok(())
    }
}

/// Reason why no snapshot could be read.
#[derive(Debug)]
pub enum ReadError {
    /// It cannot be read.
    Io(io::Error),
    /// It is none, or none of this version.
    Header(Malformed),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => f.write_str("it is too short"),
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::Header(Malformed::Version(version)) => {
                write!(f, "its version, {version}, is unknown to this version of the tracker")
            }
            Self::Header(Malformed::Foreign) => f.write_str("it is no snapshot of the tracker"),
            Self::Header(Malformed::Checksum | Malformed::TooLong | Malformed::Content) => {
                f.write_str("its header is damaged")
            }
        }
    }
}

impl std::error::Error for ReadError {}

/// What was wrong with a snapshot that has been read to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Sections that were left out because their checksum or content is wrong.
    pub sections: u64,
    /// Sections that are not there, although later ones are.
    pub missing: u64,
    /// Whether the end is missing.
    pub truncated: bool,
}

/// Reads a snapshot, section by section.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    header: Header,
    content: Vec<u8>,
    /// Number that the next section should have.
    next: u64,
    damage: Damage,
    end: Option<Totals>,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// What follows cannot be understood.
    pub fn begin(mut input: R) -> Result<Self, ReadError> {
        let mut bytes = [0; HEADER_LENGTH];
        input.read_exact(&mut bytes).map_err(ReadError::Io)?;
        let header = Header::decode(&bytes).map_err(ReadError::Header)?;
        Ok(Self { input, header, content: Vec::new(), next: 0, damage: Damage::default(), end: None })
    }

    /// When the snapshot was made.
    pub fn header(&self) -> Header {
        self.header
    }

    /// What has been wrong so far.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// What was written, once all has been read. `None` if the end is missing.
    pub fn totals(&self) -> Option<Totals> {
        self.end
    }

    /// Reads the next section with torrents that is intact, and returns their family and the content. `None`
    /// at the end, or where nothing more can be told apart.
    pub fn next_section(&mut self) -> Option<(Family, &[u8])> {
        while let Some(kind) = self.next_kind() {
            if let Kind::Torrents(family) = kind {
                return Some((family, &self.content));
            }
        }
        None
    }

    /// Reads the next section that is intact, of whatever kind, and returns kind and content. `None` as from
    /// [`next_section`](Self::next_section).
    pub(super) fn next_part(&mut self) -> Option<(Kind, &[u8])> {
        let kind = self.next_kind()?;
        Some((kind, &self.content))
    }

    fn next_kind(&mut self) -> Option<Kind> {
        while self.end.is_none() && !self.damage.truncated {
            match self.read_section() {
                Ok(kind) => return Some(kind),
                Err(Broken::Section) => {
                    self.damage.sections += 1;
                    self.next = self.next.saturating_add(1);
                }
                Err(Broken::Rest) => self.damage.truncated = true,
            }
        }
        None
    }

    /// Reads a section into the buffer and verifies it.
    fn read_section(&mut self) -> Result<Kind, Broken> {
        let mut bytes = [0; SECTION_HEADER_LENGTH];
        self.input.read_exact(&mut bytes).map_err(|_| Broken::Rest)?;
        let header = SectionHeader::decode(&bytes).map_err(|_| Broken::Rest)?;
        self.content.clear();
        let read = (&mut self.input).take(header.length as u64).read_to_end(&mut self.content);
        if !matches!(read, Ok(length) if length == header.length) {
            return Err(Broken::Rest);
        }
        header.verify(&bytes, &self.content).map_err(|_| Broken::Section)?;
        match header.kind {
            Kind::Torrents(family) => check(family, &self.content).map_err(|_| Broken::Section)?,
            Kind::End => self.end = Some(Totals::decode(&self.content).map_err(|_| Broken::Section)?),
            Kind::Announces(family) if !self.content.len().is_multiple_of(record_length(family)) => {
                return Err(Broken::Section);
            }
            Kind::Interval if interval_of(&self.content).is_none() => return Err(Broken::Section),
            Kind::Announces(_) | Kind::Passed | Kind::Mark | Kind::Interval | Kind::Unknown(_) => {}
        }
        self.damage.missing += header.number.saturating_sub(self.next);
        self.next = self.next.max(header.number).saturating_add(1);
        Ok(header.kind)
    }
}

/// What cannot be used.
enum Broken {
    /// One section.
    Section,
    /// All that follows.
    Rest,
}

/// The interval that a section of this kind tells, in seconds.
pub(super) fn interval_of(content: &[u8]) -> Option<u32> {
    content.try_into().ok().map(u32::from_le_bytes)
}

/// Verifies that the content of a section can be read to its end.
fn check(family: Family, mut content: &[u8]) -> Result<(), Malformed> {
    while !content.is_empty() {
        Torrent::take(family, &mut content)?;
    }
    Ok(())
}
