//! Reading and writing of the wire format. Numbers are little-endian; addresses are in network order.
//!
//! ```text
//! message   3  "aqc"
//!           1  version, 1
//!           1  kind
//!           2  core of the sender whose stream this is; 0 for all else
//!          16  run of the sender
//!           8  sequence number, never used twice for one kind and core of a run
//!           8  first half of the run it is for, only of directed kinds
//!           …  body, sealed
//!          16  tag of the seal
//! batch     8  clock of the sender: milliseconds since its run began, when the batch was taken
//!           1  family: 4 or 6; of WebTorrent 0, as its records say it
//!           …  records of `aquatic_tracker::replication`
//! ```
//!
//! Bodies of the other kinds are described where they are read: [`crate::hello`] and [`crate::pull`]. Readers
//! ignore bytes that follow the last field of a hello, so that later versions can add to it.

use aquatic_common::Family;

/// First bytes of every message.
pub const MAGIC: [u8; 3] = *b"aqc";

/// The only version of the format so far.
pub const VERSION: u8 = 1;

/// Length of what precedes the body of a message to all nodes, in bytes.
pub const HEADER_LENGTH: usize = 31;

/// Length of what precedes the body of a message to one run, in bytes.
pub const DIRECTED_HEADER_LENGTH: usize = HEADER_LENGTH + 8;

/// Maximum length of a body in bytes: a chunk of a pull, and what describes it.
pub const MAX_BODY: usize = MAX_CHUNK + 64;

/// Maximum length of the torrents in one chunk of a pull, in bytes.
pub const MAX_CHUNK: usize = 256 * 1024;

/// Maximum length of the records in one batch, in bytes.
pub const MAX_RECORDS: usize = 64 * 1024;

/// Random number that a process draws when it starts. What two runs send has different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run(pub [u8; 16]);

impl Run {
    /// First half of the run, which is enough to tell the runs of a cluster apart.
    #[must_use]
    pub fn short(self) -> ShortRun {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        ShortRun([a, b, c, d, e, f, g, h])
    }
}

/// First half of a [`Run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShortRun(pub [u8; 8]);

/// Kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Changes of peers of UDP and HTTP: a stream per core.
    Changes,
    /// Changes of WebTorrent peers: a stream per core.
    WebTorrent,
    /// What a node says of itself.
    Hello,
    /// Request for peers, or a reply to one. For one run.
    Pull,
    /// Offers and answers for WebTorrent peers of one node. For one run.
    Relay,
    /// Announces and scrapes for parts that one node holds, and the replies. For one run.
    Parts,
    /// Command for all nodes.
    Control,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Changes, Self::WebTorrent, Self::Hello, Self::Pull, Self::Relay, Self::Parts, Self::Control];

    /// Number of the kind in a message.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Changes => 1,
            Self::WebTorrent => 2,
            Self::Hello => 3,
            Self::Pull => 4,
            Self::Relay => 5,
            Self::Parts => 6,
            Self::Control => 7,
        }
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Whether a message of this kind is for one run. A copy of it that another node receives is dropped.
    #[must_use]
    pub fn is_directed(self) -> bool {
        match self {
            Self::Changes | Self::WebTorrent | Self::Hello | Self::Control => false,
            Self::Pull | Self::Relay | Self::Parts => true,
        }
    }
}

/// What precedes the body of a message, in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub kind: Kind,
    /// Core of the sender whose stream this is, 0 for kinds without streams of cores.
    pub core: u16,
    /// Run of the sender.
    pub run: Run,
    /// Position among the messages of this kind, core and run, from 0.
    pub sequence: u64,
    /// Run that the message is for, if the kind is directed.
    pub to: Option<ShortRun>,
}

/// Reason why a message is none of this cluster's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOurs {
    /// It does not begin like a message, or ends too early.
    Foreign,
    /// It is of this version of the format.
    Version(u8),
}

impl Header {
    /// Length of the header in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        if self.to.is_some() { DIRECTED_HEADER_LENGTH } else { HEADER_LENGTH }
    }

    /// Appends the header as it is sent.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.kind.number()]);
        out.extend_from_slice(&self.core.to_le_bytes());
        out.extend_from_slice(&self.run.0);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        if let Some(to) = self.to {
            out.extend_from_slice(&to.0);
        }
    }

    /// Reads the header at the beginning of a message.
    ///
    /// # Errors
    /// It is no message, or one of another version.
    pub fn read(message: &[u8]) -> Result<Self, NotOurs> {
        let mut reader = Reader(message);
        let begin = |reader: &mut Reader<'_>| Ok::<_, Malformed>((reader.take::<3>()?, reader.u8()?));
        match begin(&mut reader) {
            Ok((MAGIC, VERSION)) => Self::read_rest(&mut reader).map_err(|Malformed| NotOurs::Foreign),
            Ok((MAGIC, version)) => Err(NotOurs::Version(version)),
            Ok(_) | Err(Malformed) => Err(NotOurs::Foreign),
        }
    }

    fn read_rest(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = Kind::of(reader.u8()?).ok_or(Malformed)?;
        Ok(Self {
            kind,
            core: reader.u16()?,
            run: Run(reader.take()?),
            sequence: reader.u64()?,
            to: if kind.is_directed() { Some(ShortRun(reader.take()?)) } else { None },
        })
    }
}

/// A body does not say what its kind has to say. Its sender holds the secret and has a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Bytes that have not been read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Removes the first bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    /// Removes as many bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (first, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(first)
    }

    /// Removes a number of one byte.
    ///
    /// # Errors
    /// Nothing is left.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.take().map(u8::from_le_bytes)
    }

    /// Removes a number of two bytes.
    ///
    /// # Errors
    /// Fewer bytes are left.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.take().map(u16::from_le_bytes)
    }

    /// Removes a number of four bytes.
    ///
    /// # Errors
    /// Fewer bytes are left.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_le_bytes)
    }

    /// Removes a number of eight bytes.
    ///
    /// # Errors
    /// Fewer bytes are left.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_le_bytes)
    }

    /// Removes a text of at most as many bytes, whose length is the byte before it.
    ///
    /// # Errors
    /// It is longer, not of printable ASCII characters, or ends early.
    pub fn text(&mut self, max: usize) -> Result<&'a str, Malformed> {
        let length = usize::from(self.u8()?);
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| Malformed)?;
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if length <= max && printable { Ok(text) } else { Err(Malformed) }
    }

    /// Removes a family: 4 or 6.
    ///
    /// # Errors
    /// It is neither.
    pub fn family(&mut self) -> Result<Family, Malformed> {
        match self.u8()? {
            4 => Ok(Family::V4),
            6 => Ok(Family::V6),
            _ => Err(Malformed),
        }
    }

    /// Ends reading.
    ///
    /// # Errors
    /// Something is left.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Number of a family in messages.
#[must_use]
pub fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

/// Body of a batch of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// Milliseconds since the sender's run began, when the batch was taken. Ages in records count from then.
    pub clock: u64,
    /// Family of the records, if all have the same.
    pub family: Option<Family>,
    /// Records of the changes.
    pub records: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Appends the batch as it is sealed.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.clock.to_le_bytes());
        out.push(self.family.map_or(0, family_number));
        out.extend_from_slice(self.records);
    }

    /// Reads a batch. Its records are not read.
    ///
    /// # Errors
    /// It ends early, or has no or too many records.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(body);
        let clock = reader.u64()?;
        let family = match reader.0.first() {
            Some(0) => {
                reader.u8()?;
                None
            }
            _ => Some(reader.family()?),
        };
        let batch = Self { clock, family, records: reader.0 };
        let length = batch.records.len();
        if length == 0 || length > MAX_RECORDS { Err(Malformed) } else { Ok(batch) }
    }
}
