//! Format of a snapshot. All numbers are little-endian; addresses are in network order.
//!
//! ```text
//! header    8  "aqsnap\r\n"
//!           4  version, 1
//!           4  zeros
//!          16  epoch that the next number counts from
//!           8  moment of the snapshot: seconds since the epoch,
//!           8  and seconds since 1970
//!          32  BLAKE3 of all before
//! section   4  kind: 1 torrents with IPv4 peers, 2 torrents with IPv6 peers, 3 end;
//!              8 interval; in a stream to a successor also 4 and 5 announces by family, 6 all torrents were
//!              there, 7 mark
//!           4  length of the content
//!           8  number of the section, from 0
//!          32  BLAKE3 of the 16 bytes before and the content
//!           …  content
//! torrent  20  info hash
//!        1..5  downloaded, LEB128
//!        1..5  number of peers, LEB128
//!           …  peers of 10 bytes (IPv4) or 22 (IPv6)
//! peer   4/16  address
//!           2  port
//!           3  seconds from its last announce to the moment of the snapshot
//!           1  flags: 1 seeder, 2 completion counted, 4 heard by another node; readers ignore others
//! interval  4  longest interval in seconds that a client may be waiting for
//! end       8  number of torrents, or parts of them
//!           8  number of peers
//! ```
//!
//! A section is trusted as a whole, or not at all. Sections of unknown kinds are skipped. A version with
//! another layout has another number.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use aquatic_common::{Family, InfoHash};
use aquatic_swarm::{MAX_PEERS_PER_PART, SavedPeer, SavedTorrent};

/// Identifies the format. The line end shows a transfer as text.
const MAGIC: [u8; 8] = *b"aqsnap\r\n";

/// The only version so far.
const VERSION: u32 = 1;

/// Length of the header in bytes.
pub const HEADER_LENGTH: usize = 80;

/// Length of what precedes the content of a section, in bytes.
pub const SECTION_HEADER_LENGTH: usize = 48;

/// Maximum length of the content of a section, in bytes.
pub const MAX_SECTION_LENGTH: usize = 1 << 20;

/// Length of a checksum in bytes.
const CHECKSUM: usize = 32;

/// Flags of a peer.
const SEEDER: u8 = 1;
const COMPLETION_COUNTED: u8 = 2;
const REMOTE: u8 = 4;

/// Maximum age that can be written, in seconds: 194 days.
const MAX_AGE: u32 = (1 << 24) - 1;

/// Reason why something is not what this format says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is no snapshot.
    Foreign,
    /// It is a snapshot of this version.
    Version(u32),
    /// The checksum is wrong.
    Checksum,
    /// A length is beyond its maximum.
    TooLong,
    /// The content does not match its description although the checksum is right: the writer had a bug.
    Content,
}

/// When a snapshot was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Identifies the epoch that `since_epoch` counts from.
    pub epoch: [u8; 16],
    /// Seconds since that epoch.
    pub since_epoch: u64,
    /// Seconds since 1970 by the calendar.
    pub calendar: i64,
}

impl Header {
    /// Returns the header as it is written.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.epoch);
        bytes[32..40].copy_from_slice(&self.since_epoch.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.calendar.to_le_bytes());
        let checksum = blake3::hash(&bytes[..48]);
        bytes[48..].copy_from_slice(checksum.as_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// It is none, of another version, or damaged.
    pub fn decode(bytes: &[u8; HEADER_LENGTH]) -> Result<Self, Malformed> {
        let mut rest = bytes.as_slice();
        if take::<8>(&mut rest)? != MAGIC {
            return Err(Malformed::Foreign);
        }
        let version = u32::from_le_bytes(take(&mut rest)?);
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let _reserved: [u8; 4] = take(&mut rest)?;
        let header = Self {
            epoch: take(&mut rest)?,
            since_epoch: u64::from_le_bytes(take(&mut rest)?),
            calendar: i64::from_le_bytes(take(&mut rest)?),
        };
        let checksum: [u8; CHECKSUM] = take(&mut rest)?;
        if bytes.first_chunk::<48>().is_none_or(|hashed| *blake3::hash(hashed).as_bytes() != checksum) {
            return Err(Malformed::Checksum);
        }
        Ok(header)
    }
}

/// Kind of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Torrents with peers of one family.
    Torrents(Family),
    /// The last section.
    End,
    /// Announces from peers of one family that were applied while the stream was written.
    Announces(Family),
    /// All that was stored when the stream began has been written.
    Passed,
    /// All that had been applied has been written.
    Mark,
    /// The longest interval that a client may be waiting for.
    Interval,
    /// A kind of a later version.
    Unknown(u32),
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Torrents(Family::V4) => 1,
            Self::Torrents(Family::V6) => 2,
            Self::End => 3,
            Self::Announces(Family::V4) => 4,
            Self::Announces(Family::V6) => 5,
            Self::Passed => 6,
            Self::Mark => 7,
            Self::Interval => 8,
            Self::Unknown(number) => number,
        }
    }

    fn of(number: u32) -> Self {
        match number {
            1 => Self::Torrents(Family::V4),
            2 => Self::Torrents(Family::V6),
            3 => Self::End,
            4 => Self::Announces(Family::V4),
            5 => Self::Announces(Family::V6),
            6 => Self::Passed,
            7 => Self::Mark,
            8 => Self::Interval,
            number => Self::Unknown(number),
        }
    }
}

/// What precedes the content of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionHeader {
    /// What the content is.
    pub kind: Kind,
    /// Length of the content in bytes.
    pub length: usize,
    /// Position in the file, from 0.
    pub number: u64,
    checksum: [u8; CHECKSUM],
}

impl SectionHeader {
    /// Returns the header of a section, as it is written. Content beyond [`MAX_SECTION_LENGTH`] will not be
    /// read.
    #[must_use]
    pub fn encode(kind: Kind, number: u64, content: &[u8]) -> [u8; SECTION_HEADER_LENGTH] {
        let mut bytes = [0; SECTION_HEADER_LENGTH];
        bytes[..4].copy_from_slice(&kind.number().to_le_bytes());
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        let checksum = checksum(&bytes[..16], content);
        bytes[16..].copy_from_slice(&checksum);
        bytes
    }

    /// Reads what precedes the content of a section.
    ///
    /// # Errors
    /// A length beyond the maximum: the rest of the file cannot be told apart.
    pub fn decode(bytes: &[u8; SECTION_HEADER_LENGTH]) -> Result<Self, Malformed> {
        let mut rest = bytes.as_slice();
        let kind = Kind::of(u32::from_le_bytes(take(&mut rest)?));
        let length = u32::from_le_bytes(take(&mut rest)?);
        let number = u64::from_le_bytes(take(&mut rest)?);
        let length = usize::try_from(length).map_err(|_| Malformed::TooLong)?;
        if length > MAX_SECTION_LENGTH {
            return Err(Malformed::TooLong);
        }
        Ok(Self { kind, length, number, checksum: take(&mut rest)? })
    }

    /// Compares the checksum, given the bytes of this header and the content.
    ///
    /// # Errors
    /// It is wrong.
    pub fn verify(&self, header: &[u8; SECTION_HEADER_LENGTH], content: &[u8]) -> Result<(), Malformed> {
        let described = header.first_chunk::<16>().ok_or(Malformed::Content)?;
        if checksum(described, content) == self.checksum { Ok(()) } else { Err(Malformed::Checksum) }
    }
}

fn checksum(header: &[u8], content: &[u8]) -> [u8; CHECKSUM] {
    *blake3::Hasher::new().update(header).update(content).finalize().as_bytes()
}

/// Content of the last section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of torrents, or parts of them.
    pub torrents: u64,
    /// Number of peers.
    pub peers: u64,
}

impl Totals {
    /// Returns the totals as they are written.
    #[must_use]
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.torrents.to_le_bytes());
        bytes[8..].copy_from_slice(&self.peers.to_le_bytes());
        bytes
    }

    /// Reads totals. More bytes may follow in later versions.
    ///
    /// # Errors
    /// Too few bytes.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Self {
            torrents: u64::from_le_bytes(take(&mut bytes)?),
            peers: u64::from_le_bytes(take(&mut bytes)?),
        })
    }
}

/// Appends the beginning of a torrent; its peers follow.
pub fn write_torrent(torrent: &SavedTorrent, out: &mut Vec<u8>) {
    out.extend_from_slice(&torrent.info_hash.0);
    write_number(torrent.downloaded, out);
    write_number(torrent.peers, out);
}

/// Appends a peer.
pub fn write_peer(peer: &SavedPeer, out: &mut Vec<u8>) {
    match peer.address {
        SocketAddr::V4(v4) => out.extend_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => out.extend_from_slice(&v6.ip().octets()),
    }
    let [age_low, age_middle, age_high, _] = peer.age.min(MAX_AGE).to_le_bytes();
    let [port_low, port_high] = peer.address.port().to_le_bytes();
    let counted = if peer.completion_counted { COMPLETION_COUNTED } else { 0 };
    let remote = if peer.remote { REMOTE } else { 0 };
    let flags = remote | counted | if peer.seeder { SEEDER } else { 0 };
    out.extend_from_slice(&[port_low, port_high, age_low, age_middle, age_high, flags]);
}

/// Bytes of a peer.
fn peer_length(family: Family) -> usize {
    match family {
        Family::V4 => 10,
        Family::V6 => 22,
    }
}

/// A torrent in the content of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torrent<'a> {
    /// What precedes the peers.
    pub saved: SavedTorrent,
    /// All of it as it is written.
    pub bytes: &'a [u8],
    peers: &'a [u8],
}

impl<'a> Torrent<'a> {
    /// Reads the first torrent of a content and removes it from there.
    ///
    /// # Errors
    /// The content ends early, or a number is beyond its maximum.
    pub fn take(family: Family, content: &mut &'a [u8]) -> Result<Self, Malformed> {
        let begin = *content;
        let info_hash = InfoHash(take(content)?);
        let downloaded = take_number(content)?;
        let peers = take_number(content)?;
        if peers == 0 || peers > MAX_PEERS_PER_PART {
            return Err(Malformed::Content);
        }
        let length = usize::try_from(peers).map_err(|_| Malformed::Content)? * peer_length(family);
        let (own, rest) = content.split_at_checked(length).ok_or(Malformed::Content)?;
        *content = rest;
        let bytes = begin.get(..begin.len() - rest.len()).ok_or(Malformed::Content)?;
        Ok(Self { saved: SavedTorrent { family, info_hash, downloaded, peers }, bytes, peers: own })
    }

    /// Returns the peers.
    pub fn peers(self) -> impl Iterator<Item = SavedPeer> + 'a {
        let family = self.saved.family;
        self.peers.chunks_exact(peer_length(family)).filter_map(move |bytes| read_peer(family, bytes).ok())
    }
}

fn read_peer(family: Family, mut bytes: &[u8]) -> Result<SavedPeer, Malformed> {
    let bytes = &mut bytes;
    let ip = match family {
        Family::V4 => Ipv4Addr::from(take::<4>(bytes)?).into(),
        Family::V6 => Ipv6Addr::from(take::<16>(bytes)?).into(),
    };
    let port = u16::from_le_bytes(take(bytes)?);
    let [low, middle, high] = take(bytes)?;
    let [flags] = take(bytes)?;
    Ok(SavedPeer {
        address: SocketAddr::new(ip, port),
        age: u32::from_le_bytes([low, middle, high, 0]),
        seeder: flags & SEEDER != 0,
        completion_counted: flags & COMPLETION_COUNTED != 0,
        remote: flags & REMOTE != 0,
    })
}

/// The first bytes of a slice, which are removed from it.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (first, rest) = bytes.split_first_chunk().ok_or(Malformed::Content)?;
    *bytes = rest;
    Ok(*first)
}

fn write_number(mut number: u32, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn take_number(bytes: &mut &[u8]) -> Result<u32, Malformed> {
    let mut number = 0_u64;
    for shift in [0, 7, 14, 21, 28] {
        let [byte] = take(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(number).map_err(|_| Malformed::Content);
        }
    }
    Err(Malformed::Content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_are_bounded() {
        for number in [0, 1, 127, 128, 300, 1 << 21, u32::MAX] {
            let mut bytes = Vec::new();
            write_number(number, &mut bytes);
            assert_eq!(take_number(&mut bytes.as_slice()), Ok(number));
            assert!((0..bytes.len()).all(|len| take_number(&mut &bytes[..len]).is_err()));
        }
        for bytes in [[0xff; 5], [0xff, 0xff, 0xff, 0xff, 0x1f], [0x80; 5]] {
            assert_eq!(take_number(&mut bytes.as_slice()), Err(Malformed::Content));
        }
    }

    #[test]
    fn headers_round_trip_and_notice_every_bit() {
        let header = Header { epoch: [3; 16], since_epoch: 1 << 40, calendar: -5 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for bit in 0..HEADER_LENGTH * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&damaged).is_err(), "bit {bit}");
        }
        let mut later = bytes;
        later[8] = 2;
        assert_eq!(Header::decode(&later), Err(Malformed::Version(2)));
    }

    #[test]
    fn peers_are_written_as_documented() {
        let mut out = Vec::new();
        let torrent =
            SavedTorrent { family: Family::V4, info_hash: InfoHash([9; 20]), downloaded: 300, peers: 1 };
        write_torrent(&torrent, &mut out);
        let address = "192.0.2.7:6881".parse().unwrap();
        let peer =
            SavedPeer { address, age: 0x01_02_03, seeder: true, completion_counted: true, remote: false };
        write_peer(&peer, &mut out);
        assert_eq!(out[..20], [9; 20]);
        assert_eq!(out[20..], [0xac, 2, 1, 192, 0, 2, 7, 0xe1, 0x1a, 3, 2, 1, 3]);
        let mut content = out.as_slice();
        let read = Torrent::take(Family::V4, &mut content).unwrap();
        assert_eq!((read.saved, read.bytes, content), (torrent, out.as_slice(), &[][..]));
        assert_eq!(read.peers().collect::<Vec<_>>(), [peer]);
        let mut remote = Vec::new();
        write_peer(&SavedPeer { remote: true, ..peer }, &mut remote);
        assert_eq!((remote[..9].to_vec(), remote[9]), (out[23..32].to_vec(), 7));
    }
}
