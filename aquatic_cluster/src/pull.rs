//! Messages of pulls: a node asks another for peers, chunk by chunk with credit.
//!
//! ```text
//! begin     1  1;  4 number of the pull;  1 what: 0 all, 1 own, 2 parts;  4 maximum age or 32 parts
//! begun     1  2;  4 number of the pull;  4 session;  2 number of nodes known
//!           …  12 per node: first half of its run (8), seconds since all of its changes were known (4)
//! busy      1  3;  4 number of the pull
//! next      1  4;  4 session;  4 index
//! chunk     1  5;  4 session;  4 index;  8 clock of the donor that ages count from;  1 family
//!           …  torrents, as in a section of a snapshot
//! end       1  6;  4 session;  4 index, one more than that of the last chunk;  8 torrents;  8 peers
//! wait      1  7;  4 session: there is no such chunk yet
//! unknown   1  8;  4 session
//! keep      1  9;  4 session: the requester goes on when it has loaded what it has
//! done      1 10;  4 session: the requester needs nothing more
//! again     1 11;  1 kind of the stream, of which the requester has missed something
//! ```
//!
//! Every message may get lost, be repeated and overtake others. `begin` and `next` are repeated until there
//! is a reply. A `next` for an index says that all chunks more than three before it have been received.

use aquatic_common::Family;

use crate::hello::StreamKind;
use crate::wire::{MAX_CHUNK, Malformed, Reader, ShortRun, family_number};

/// Chunks that a requester may have asked for and not loaded.
pub const CREDIT: u32 = 4;

/// Maximum number of nodes in `begun`.
pub const MAX_KNOWN: usize = 256;

/// Which peers a pull is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// All peers that the donor knows.
    All,
    /// Peers that the donor heard itself.
    Own {
        /// Seconds since their last announce, at most.
        max_age: u32,
    },
    /// All peers of some parts of the hash space: bit `part % 8` of byte `part / 8`.
    Parts([u8; 32]),
}

/// Totals of what was handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Torrents, or parts of them.
    pub torrents: u64,
    /// Peers.
    pub peers: u64,
}

/// Message of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullMessage<'a> {
    /// Asks for a session.
    Begin {
        /// Number that the requester has given the pull.
        pull: u32,
        /// Which peers.
        what: What,
    },
    /// The donor has begun to collect peers.
    Begun {
        /// Number that the requester has given the pull.
        pull: u32,
        /// Number that the donor has given the session.
        session: u32,
        /// Seconds since the donor knew all changes of each node.
        known: Vec<(ShortRun, u32)>,
    },
    /// The donor cannot begin now.
    Busy {
        /// Number that the requester has given the pull.
        pull: u32,
    },
    /// Asks for a chunk.
    Next {
        /// Session.
        session: u32,
        /// Number of the chunk, from 0.
        index: u32,
    },
    /// Torrents and peers.
    Chunk(Chunk<'a>),
    /// There are no more chunks.
    End {
        /// Session.
        session: u32,
        /// Number of chunks.
        index: u32,
        /// Totals of all chunks.
        totals: Totals,
    },
    /// The chunk does not exist yet.
    Wait {
        /// Session.
        session: u32,
    },
    /// There is no such session, or not any more.
    Unknown {
        /// Session.
        session: u32,
    },
    /// The requester is still there.
    Keep {
        /// Session.
        session: u32,
    },
    /// The requester needs nothing more.
    Done {
        /// Session.
        session: u32,
    },
    /// The requester has missed something of a stream that cannot be pulled: its sender publishes all again.
    Again {
        /// Kind of the stream.
        kind: StreamKind,
    },
}

/// Chunk of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Session.
    pub session: u32,
    /// Number of the chunk, from 0.
    pub index: u32,
    /// Milliseconds from the beginning of the donor's run to the moment that ages count from.
    pub clock: u64,
    /// Family of the peers.
    pub family: Family,
    /// Torrents, in the encoding of a section of a snapshot.
    pub torrents: &'a [u8],
}

impl<'a> PullMessage<'a> {
    /// Appends the message as it is sealed.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Begin { pull, what } => {
                write_numbers(1, &[*pull], out);
                write_what(*what, out);
            }
            Self::Begun { pull, session, known } => {
                write_numbers(2, &[*pull, *session], out);
                let known = known.get(..MAX_KNOWN).unwrap_or(known);
                out.extend_from_slice(&u16::try_from(known.len()).unwrap_or_default().to_le_bytes());
                for (run, behind) in known {
                    out.extend_from_slice(&run.0);
                    out.extend_from_slice(&behind.to_le_bytes());
                }
            }
            Self::Busy { pull } => write_numbers(3, &[*pull], out),
            Self::Next { session, index } => write_numbers(4, &[*session, *index], out),
            Self::Chunk(chunk) => {
                write_numbers(5, &[chunk.session, chunk.index], out);
                out.extend_from_slice(&chunk.clock.to_le_bytes());
                out.push(family_number(chunk.family));
                out.extend_from_slice(chunk.torrents);
            }
            Self::End { session, index, totals } => {
                write_numbers(6, &[*session, *index], out);
                out.extend_from_slice(&totals.torrents.to_le_bytes());
                out.extend_from_slice(&totals.peers.to_le_bytes());
            }
            Self::Wait { session } => write_numbers(7, &[*session], out),
            Self::Unknown { session } => write_numbers(8, &[*session], out),
            Self::Keep { session } => write_numbers(9, &[*session], out),
            Self::Done { session } => write_numbers(10, &[*session], out),
            Self::Again { kind } => out.extend_from_slice(&[11, kind.kind().number()]),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It ends early, something follows it, or something is beyond its maximum.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(body);
        let message = match reader.u8()? {
            1 => Self::Begin { pull: reader.u32()?, what: read_what(&mut reader)? },
            2 => Self::Begun { pull: reader.u32()?, session: reader.u32()?, known: read_known(&mut reader)? },
            3 => Self::Busy { pull: reader.u32()? },
            4 => Self::Next { session: reader.u32()?, index: reader.u32()? },
            5 => Self::Chunk(read_chunk(&mut reader)?),
            6 => Self::End {
                session: reader.u32()?,
                index: reader.u32()?,
                totals: Totals { torrents: reader.u64()?, peers: reader.u64()? },
            },
            7 => Self::Wait { session: reader.u32()? },
            8 => Self::Unknown { session: reader.u32()? },
            9 => Self::Keep { session: reader.u32()? },
            10 => Self::Done { session: reader.u32()? },
            11 => Self::Again { kind: read_stream_kind(&mut reader)? },
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(message)
    }
}

fn write_numbers(kind: u8, numbers: &[u32], out: &mut Vec<u8>) {
    out.push(kind);
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn write_what(what: What, out: &mut Vec<u8>) {
    match what {
        What::All => out.push(0),
        What::Own { max_age } => {
            out.push(1);
            out.extend_from_slice(&max_age.to_le_bytes());
        }
        What::Parts(parts) => {
            out.push(2);
            out.extend_from_slice(&parts);
        }
    }
}

fn read_what(reader: &mut Reader<'_>) -> Result<What, Malformed> {
    match reader.u8()? {
        0 => Ok(What::All),
        1 => Ok(What::Own { max_age: reader.u32()? }),
        2 => Ok(What::Parts(reader.take()?)),
        _ => Err(Malformed),
    }
}

fn read_known(reader: &mut Reader<'_>) -> Result<Vec<(ShortRun, u32)>, Malformed> {
    let number = usize::from(reader.u16()?);
    if number > MAX_KNOWN {
        return Err(Malformed);
    }
    (0..number).map(|_| Ok((ShortRun(reader.take()?), reader.u32()?))).collect()
}

fn read_chunk<'a>(reader: &mut Reader<'a>) -> Result<Chunk<'a>, Malformed> {
    let (session, index, clock, family) = (reader.u32()?, reader.u32()?, reader.u64()?, reader.family()?);
    let length = reader.0.len();
    if length == 0 || length > MAX_CHUNK {
        return Err(Malformed);
    }
    Ok(Chunk { session, index, clock, family, torrents: reader.bytes(length)? })
}

fn read_stream_kind(reader: &mut Reader<'_>) -> Result<StreamKind, Malformed> {
    match reader.u8()? {
        1 => Ok(StreamKind::Changes),
        2 => Ok(StreamKind::WebTorrent),
        _ => Err(Malformed),
    }
}
