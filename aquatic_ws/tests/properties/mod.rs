//! Properties of the frame decoder for arbitrary bytes, shared by a test and the fuzz target `ws_frames`.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;

use aquatic_ws::frames::{FrameFault, Incoming, Reader};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// Maximum message length, small enough to be exceeded by short inputs.
const MAX: usize = 300;

/// A frame or message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Fragment,
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// Result of reading a stream of bytes.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    events: Vec<Event>,
    /// Whether it ends within a message, unless it fails.
    end: Result<bool, FrameFault>,
}

/// Checks that all bytes but the first, in pieces of any size (one of them is the first byte), are read as by
/// a naive decoder that sees them all at once, and as by tungstenite; and that `simdutf8` agrees with the
/// standard library.
pub(crate) fn check_bytes(bytes: &[u8]) {
    let Some((&piece, stream)) = bytes.split_first() else { return };
    let expected = read_at_once(stream);
    for piece in [1, usize::from(piece).max(1), stream.len().max(1)] {
        assert_eq!(read(stream, piece), expected, "in pieces of {piece}");
    }
    check_with_tungstenite(stream, &expected);
    for event in &expected.events {
        if let Event::Text(bytes) | Event::Binary(bytes) = event {
            assert_eq!(simdutf8::basic::from_utf8(bytes).ok(), str::from_utf8(bytes).ok());
        }
    }
}

fn read(stream: &[u8], piece: usize) -> Outcome {
    let (mut reader, mut events) = (Reader::default(), Vec::new());
    for piece in stream.chunks(piece) {
        let read = reader.read(&mut piece.to_vec(), MAX, &mut |incoming| {
            events.push(match incoming {
                Incoming::Text(text) => Event::Text(text.to_vec()),
                Incoming::Binary(bytes) => Event::Binary(bytes.to_vec()),
                Incoming::Fragment => Event::Fragment,
                Incoming::Ping(payload) => Event::Ping(payload.to_vec()),
                Incoming::Pong => Event::Pong,
                Incoming::Close(code) => Event::Close(code),
            });
            ControlFlow::Continue(())
        });
        if let Err(fault) = read {
            return Outcome { events, end: Err(fault) };
        }
    }
    Outcome { events, end: Ok(reader.has_partial_message()) }
}

/// A frame: its first byte, payload length, payload and mask. `None` if it is incomplete.
type Frame<'a> = Option<(u8, usize, Option<&'a [u8]>, [u8; 4])>;

/// Naive decoder.
fn read_at_once(mut stream: &[u8]) -> Outcome {
    let (mut events, mut message) = (Vec::new(), None::<(u8, Vec<u8>)>);
    let end = loop {
        if stream.is_empty() {
            break Ok(message.is_some());
        }
        let (first, length, masked, mask) = match split(&mut stream) {
            Ok(Some(frame)) => frame,
            Ok(None) => break Ok(true),
            Err(fault) => break Err(fault),
        };
        let (is_final, opcode) = (first & 0x80 != 0, first & 15);
        let before = message.as_ref().map_or(0, |(_, bytes)| bytes.len());
        if opcode >= 8 && (!is_final || length > 125) || opcode < 8 && (opcode == 0) != message.is_some() {
            break Err(FrameFault::Protocol);
        }
        if opcode < 8 && before + length > MAX {
            break Err(FrameFault::TooLong);
        }
        let Some(masked) = masked else { break Ok(true) };
        let payload: Vec<u8> = masked.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        match (opcode, &payload[..]) {
            (8, [_]) => break Err(FrameFault::Protocol),
            (8, []) => events.push(Event::Close(None)),
            (8, [high, low, ..]) => events.push(Event::Close(Some(u16::from(*high) << 8 | u16::from(*low)))),
            (9, _) => events.push(Event::Ping(payload)),
            (10, _) => events.push(Event::Pong),
            _ => {
                let (opcode, bytes) = message.get_or_insert((opcode, Vec::new()));
                bytes.extend(payload);
                if is_final {
                    let bytes = std::mem::take(bytes);
                    events.push(if *opcode == 1 { Event::Text(bytes) } else { Event::Binary(bytes) });
                    message = None;
                } else {
                    events.push(Event::Fragment);
                }
            }
        }
    };
    Outcome { events, end }
}

/// Takes a frame from the front.
fn split<'a>(stream: &mut &'a [u8]) -> Result<Frame<'a>, FrameFault> {
    let [first, second, ..] = **stream else { return Ok(None) };
    if first & 0x70 != 0 || second & 0x80 == 0 || [3, 4, 5, 6, 7, 11, 12, 13, 14, 15].contains(&(first & 15))
    {
        return Err(FrameFault::Protocol);
    }
    let long = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if stream.len() < 6 + long {
        return Ok(None);
    }
    let length = match long {
        0 => u64::from(second & 0x7f),
        long => stream[2..2 + long].iter().fold(0, |length, &byte| length << 8 | u64::from(byte)),
    };
    // More than any input has.
    let length = length.min(1 << 40) as usize;
    let mask = [0, 1, 2, 3].map(|at| stream[2 + long + at]);
    let rest = &stream[6 + long..];
    let payload = rest.get(..length);
    *stream = rest.get(length..).unwrap_or_default();
    Ok(Some((first, length, payload, mask)))
}

/// A stream that would block after its bytes.
struct Source<'a>(&'a [u8]);

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            length => Ok(length),
        }
    }
}

impl Write for Source<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn check_with_tungstenite(stream: &[u8], ours: &Outcome) {
    let config = WebSocketConfig::default().max_message_size(Some(MAX)).max_frame_size(Some(MAX));
    let mut theirs = WebSocket::from_raw_socket(Source(stream), Role::Server, Some(config));
    // It does not report fragments.
    let mut events = ours.events.iter().filter(|event| **event != Event::Fragment);
    loop {
        let event = match theirs.read() {
            Ok(Message::Text(text)) => Event::Text(text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Event::Binary(bytes.to_vec()),
            Ok(Message::Ping(payload)) => Event::Ping(payload.to_vec()),
            Ok(Message::Pong(_)) => Event::Pong,
            // Nothing is read after a close frame.
            Ok(Message::Close(_)) => return assert!(matches!(events.next(), Some(Event::Close(_)))),
            Ok(Message::Frame(_)) => panic!("frames are not read"),
            // It validates texts and close codes.
            Err(Error::Utf8(_)) => return,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return assert_eq!(events.next(), None);
            }
            Err(error) => {
                assert_eq!(events.next(), None, "{error}");
                return assert!(ours.end.is_err(), "{error}");
            }
        };
        assert_eq!(events.next(), Some(&event));
    }
}
