//! Messages between a process and its successor. Each is one packet of a unix socket, so its end is known.
//!
//! ```text
//! 1 hello     8  "aqhand\r\n"
//!             4  version, 1
//!             4  number of cores
//!             4  process number of the predecessor
//!             1  what comes along: 1 a stream with the state, 2 the state directory (descriptors, in this order)
//!           112  keys, as in the file of the state directory
//!             …  path of the state directory, if it comes along
//! 2 sockets 4*n  core of each listening socket that comes along, at most 64
//! 3 begin        all sockets have been sent
//! 4 started   4  process number of the successor; its cores are running
//! 5 loaded       the successor has received what there was when the stream began
//! 6 switch       the predecessor has stopped to take anything in, and all that it has applied is in the stream
//! 7 serving      the successor has received that, and serves
//! 8 done         the predecessor has given up its place
//! 9 refused   …  reason, in UTF-8
//! 10 by hand  1  1 if it is the last part, 0 otherwise
//!             …  part of what the operator has decided by hand; nothing is sent if there is nothing
//! ```
//!
//! The first byte is the kind; numbers are little-endian. 1, 2, 3, 6, 8 and 10 come from the predecessor, 4,
//! 5 and 7 from the successor, 9 from either. 10 comes between 5 and 6.

use std::fmt;
use std::path::PathBuf;

use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::kept::RECORD_LENGTH;

const MAGIC: [u8; 8] = *b"aqhand\r\n";

/// The only version so far.
pub(crate) const VERSION: u32 = 1;

/// Maximum length of a message in bytes.
pub(crate) const MAX_MESSAGE: usize = 8192;

/// Maximum length of a part of what was decided by hand, in bytes.
pub(crate) const MAX_PART: usize = MAX_MESSAGE - 2;

/// Maximum number of descriptors with a message.
pub(crate) const MAX_DESCRIPTORS: usize = 64;

/// What a predecessor begins with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) cores: u32,
    pub(crate) pid: u32,
    pub(crate) has_state: bool,
    pub(crate) keys: [u8; RECORD_LENGTH],
    pub(crate) directory: Option<PathBuf>,
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the keys.
        f.debug_struct("Hello").field("cores", &self.cores).field("pid", &self.pid).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Hello(Box<Hello>),
    Sockets(Vec<u32>),
    Begin,
    Started(u32),
    Loaded,
    Switch,
    Serving,
    Done,
    Refused(String),
    ByHand { is_last: bool, part: Vec<u8> },
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadMessage {
    /// They mean nothing.
    Malformed,
    /// The other process speaks another version.
    Version(u32),
}

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the other process has sent something that is no message"),
            Self::Version(version) => write!(
                f,
                "the other process speaks version {version} of the hand-over, this one version {VERSION}; restart the \
                 tracker instead"
            ),
        }
    }
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Hello(hello) => {
                out.push(1);
                out.extend_from_slice(&MAGIC);
                for number in [VERSION, hello.cores, hello.pid] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                out.push(u8::from(hello.has_state) | u8::from(hello.directory.is_some()) << 1);
                out.extend_from_slice(&hello.keys);
                out.extend(hello.directory.iter().flat_map(|path| path.as_os_str().as_bytes()));
            }
            Self::Sockets(cores) => {
                out.push(2);
                out.extend(cores.iter().flat_map(|core| core.to_le_bytes()));
            }
            Self::Begin => out.push(3),
            Self::Started(pid) => {
                out.push(4);
                out.extend_from_slice(&pid.to_le_bytes());
            }
            Self::Loaded => out.push(5),
            Self::Switch => out.push(6),
            Self::Serving => out.push(7),
            Self::Done => out.push(8),
            Self::Refused(reason) => {
                out.push(9);
                out.extend_from_slice(reason.as_bytes());
                out.truncate(MAX_MESSAGE);
            }
            Self::ByHand { is_last, part } => {
                out.extend([10, u8::from(*is_last)]);
                out.extend_from_slice(part);
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let (&kind, mut rest) = bytes.split_first().ok_or(BadMessage::Malformed)?;
        let message = match kind {
            1 => return decode_hello(rest),
            2 => {
                let (cores, odd) = rest.as_chunks::<4>();
                if !odd.is_empty() || cores.is_empty() || cores.len() > MAX_DESCRIPTORS {
                    return Err(BadMessage::Malformed);
                }
                return Ok(Self::Sockets(cores.iter().map(|core| u32::from_le_bytes(*core)).collect()));
            }
            3 => Self::Begin,
            4 => Self::Started(number(&mut rest)?),
            5 => Self::Loaded,
            6 => Self::Switch,
            7 => Self::Serving,
            8 => Self::Done,
            9 => return Ok(Self::Refused(String::from_utf8_lossy(rest).into_owned())),
            10 => {
                let [is_last @ (0 | 1)] = take(&mut rest)? else { return Err(BadMessage::Malformed) };
                return Ok(Self::ByHand { is_last: is_last == 1, part: rest.to_vec() });
            }
            _ => return Err(BadMessage::Malformed),
        };
        if rest.is_empty() { Ok(message) } else { Err(BadMessage::Malformed) }
    }
}

fn decode_hello(mut rest: &[u8]) -> Result<Message, BadMessage> {
    if take::<8>(&mut rest)? != MAGIC {
        return Err(BadMessage::Malformed);
    }
    let version = number(&mut rest)?;
    if version != VERSION {
        return Err(BadMessage::Version(version));
    }
    let (cores, pid) = (number(&mut rest)?, number(&mut rest)?);
    let [flags] = take(&mut rest)?;
    let keys = take(&mut rest)?;
    let has_directory = flags & 2 != 0;
    if flags > 3 || has_directory == rest.is_empty() {
        return Err(BadMessage::Malformed);
    }
    let directory = has_directory.then(|| std::ffi::OsString::from_vec(rest.to_vec()).into());
    Ok(Message::Hello(Box::new(Hello { cores, pid, has_state: flags & 1 != 0, keys, directory })))
}

fn number(bytes: &mut &[u8]) -> Result<u32, BadMessage> {
    Ok(u32::from_le_bytes(take(bytes)?))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], BadMessage> {
    let (first, rest) = bytes.split_first_chunk().ok_or(BadMessage::Malformed)?;
    *bytes = rest;
    Ok(*first)
}

/// What a predecessor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// The cores of the successor.
    Started,
    /// That it has the state.
    Loaded,
    /// That it serves.
    Serving,
    /// Nothing more.
    Nothing,
}

impl Awaited {
    /// What is awaited after a message.
    ///
    /// # Errors
    /// Why the message ends the hand-over.
    pub(crate) fn after(self, message: &Message) -> Result<Self, String> {
        match (self, message) {
            (Self::Started, Message::Started(_)) => Ok(Self::Loaded),
            (Self::Loaded, Message::Loaded) => Ok(Self::Serving),
            (Self::Serving, Message::Serving) => Ok(Self::Nothing),
            (_, Message::Refused(reason)) => Err(format!("the successor refuses: {reason}")),
            (_, message) => Err(format!("the successor has sent {message:?} while {self:?} was awaited")),
        }
    }

    /// What the successor is doing meanwhile.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Started => "starting",
            Self::Loaded => "receiving the state",
            Self::Serving => "taking over",
            Self::Nothing => "serving",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Message> {
        let hello = |directory: Option<&str>| {
            Message::Hello(Box::new(Hello {
                cores: 3,
                pid: 77,
                has_state: true,
                keys: [5; RECORD_LENGTH],
                directory: directory.map(PathBuf::from),
            }))
        };
        vec![
            hello(None),
            hello(Some("/var/lib/aquatic")),
            Message::Sockets(vec![0, 1, 0, 1]),
            Message::Begin,
            Message::Started(9),
            Message::Loaded,
            Message::Switch,
            Message::Serving,
            Message::Done,
            Message::Refused("no".to_owned()),
            Message::ByHand { is_last: true, part: b"ban".to_vec() },
        ]
    }

    #[test]
    fn messages_round_trip() {
        for message in all() {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn messages_that_are_cut_or_too_long_are_never_taken_for_themselves() {
        for message in all() {
            let bytes = message.encode();
            for len in 0..bytes.len() {
                assert_ne!(Message::decode(&bytes[..len]), Ok(message.clone()), "{message:?} cut at {len}");
            }
            let long = [&bytes[..], b"x"].concat();
            assert_ne!(Message::decode(&long), Ok(message));
        }
        for byte in 0..=255 {
            let _ = Message::decode(&[byte; 4000]);
        }
    }

    #[test]
    fn corpus_of_the_fuzz_target() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/handover_message");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 5, "only {} files", files.len());
        files.iter().for_each(|file| super::super::properties::check_bytes(&std::fs::read(file).unwrap()));
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = all()[0].encode();
        bytes[9] = 2;
        let error = Message::decode(&bytes).unwrap_err();
        assert_eq!(error, BadMessage::Version(2));
        assert!(error.to_string().contains("version 2"));
        bytes[1] = b'x';
        assert_eq!(Message::decode(&bytes), Err(BadMessage::Malformed));
    }

    #[test]
    fn a_successor_answers_in_one_order_only() {
        let order = [Message::Started(1), Message::Loaded, Message::Serving];
        let mut awaited = Awaited::Started;
        for expected in &order {
            for message in all()
                .iter()
                .filter(|message| std::mem::discriminant(*message) != std::mem::discriminant(expected))
            {
                assert!(awaited.after(message).is_err(), "{message:?} while {awaited:?}");
            }
            awaited = awaited.after(expected).unwrap();
        }
        assert_eq!(awaited, Awaited::Nothing);
        assert!(awaited.after(&Message::Refused("full".into())).unwrap_err().contains("full"));
    }
}
