//! WebSocket framing of a server (RFC 6455): decoding of received frames, and encoding of sent ones.
//!
//! Payloads are unmasked in place, and passed on from the buffer they were received in. Only incomplete
//! frames and messages are copied, into buffers of at most twice their size. So a connection between two
//! messages holds no buffer.
//!
//! Not here: the contents of messages, rate limits, and the opening handshake.

use std::ops::ControlFlow;

/// Maximum payload length of a control frame in bytes (RFC 6455, section 5.5).
const MAX_CONTROL: usize = 125;

/// Maximum length of a frame header in bytes.
const MAX_HEADER: usize = 14;

/// A frame or message from a client. Each frame results in exactly one of these.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Text message, not yet validated as UTF-8.
    Text(&'a [u8]),
    /// Binary message.
    Binary(&'a [u8]),
    /// Frame of a message whose last frame is still to come.
    Fragment,
    /// Ping, to be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// Pong.
    Pong,
    /// Close frame with its status code.
    Close(Option<u16>),
}

/// Reason why a connection fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// The client violates RFC 6455.
    Protocol,
    /// A message exceeds the maximum length.
    TooLong,
}

/// Decoder of the frames of one client.
#[derive(Debug, Default)]
pub struct Reader {
    /// Received bytes of an incomplete frame.
    partial_frame: Vec<u8>,
    /// Payload of the previous frames of an incomplete message, and whether it is text.
    partial_message: Option<Box<(bool, Vec<u8>)>>,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    is_final: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Length of the header in bytes.
    length: usize,
    /// Length of the payload in bytes.
    payload_length: usize,
}

impl Reader {
    /// Returns whether a frame or message is incomplete.
    #[must_use]
    pub fn has_partial_message(&self) -> bool {
        !self.partial_frame.is_empty() || self.partial_message.is_some()
    }

    /// Memory that incomplete frames and messages take, in bytes.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        let message = self.partial_message.as_ref().map_or(0, |message| message.1.capacity());
        self.partial_frame.capacity() + message
    }

    /// Decodes further bytes, which are unmasked in place, and passes each frame that is complete to
    /// `handler`, until it breaks; the rest of the bytes is ignored then.
    ///
    /// # Errors
    /// Returns the reason why the connection fails. Frames before the faulty one were passed on.
    pub fn read(
        &mut self,
        mut input: &mut [u8],
        max_message: usize,
        handler: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<(), FrameFault> {
        while !input.is_empty() {
            if self.partial_frame.is_empty() {
                let header = self.header(input, max_message)?;
                let Some(header) = header.filter(|header| header.frame_length() <= input.len()) else {
                    self.partial_frame.extend_from_slice(input);
                    return Ok(());
                };
                let (frame, rest) = input.split_at_mut(header.frame_length());
                if self.frame(header, &mut frame[header.length..], max_message, handler)?.is_break() {
                    return Ok(());
                }
                input = rest;
                continue;
            }
            let before = self.partial_frame.len();
            // Copies the header byte by byte and then the payload at once, but nothing of the next frame.
            let wanted = self.header(&self.partial_frame, max_message)?;
            let wanted = wanted.map_or(before + 1, |header| header.frame_length());
            let (more, rest) = input.split_at_mut((wanted - before).min(input.len()));
            self.partial_frame.extend_from_slice(more);
            input = rest;
            if let Some(header) = self.header(&self.partial_frame, max_message)?
                && header.frame_length() == self.partial_frame.len()
            {
                let mut frame = std::mem::take(&mut self.partial_frame);
                if self.frame(header, &mut frame[header.length..], max_message, handler)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Returns the header at the beginning of `bytes`, or `None` if it is incomplete. Fails if the frame is
    /// not allowed now.
    fn header(&self, bytes: &[u8], max_message: usize) -> Result<Option<Header>, FrameFault> {
        let Some(header) = read_header(bytes)? else { return Ok(None) };
        let length = header.payload_length;
        if header.opcode & 8 != 0 {
            // Control frames are short and not fragmented.
            return if header.is_final && length <= MAX_CONTROL {
                Ok(Some(header))
            } else {
                Err(FrameFault::Protocol)
            };
        }
        let before = match (&self.partial_message, header.opcode) {
            (Some(message), 0) => message.1.len(),
            (None, 1 | 2) => 0,
            (Some(_) | None, _) => return Err(FrameFault::Protocol),
        };
        if before + length > max_message { Err(FrameFault::TooLong) } else { Ok(Some(header)) }
    }

    /// Decodes one frame.
    fn frame(
        &mut self,
        header: Header,
        payload: &mut [u8],
        max_message: usize,
        handler: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, FrameFault> {
        debug_assert!(payload.len() <= max_message.max(MAX_CONTROL));
        unmask(payload, header.mask);
        let incoming = match header.opcode {
            8 => match payload {
                [] => Incoming::Close(None),
                [high, low, ..] => Incoming::Close(Some(u16::from_be_bytes([*high, *low]))),
                [_] => return Err(FrameFault::Protocol),
            },
            9 => Incoming::Ping(payload),
            10 => Incoming::Pong,
            opcode if header.is_final => match self.partial_message.take() {
                None => Incoming::message(opcode == 1, payload),
                Some(mut message) => {
                    message.1.extend_from_slice(payload);
                    return Ok(handler(Incoming::message(message.0, &message.1)));
                }
            },
            opcode => {
                let new = || Box::new((opcode == 1, Vec::new()));
                self.partial_message.get_or_insert_with(new).1.extend_from_slice(payload);
                Incoming::Fragment
            }
        };
        Ok(handler(incoming))
    }
}

impl<'a> Incoming<'a> {
    fn message(is_text: bool, payload: &'a [u8]) -> Self {
        if is_text { Self::Text(payload) } else { Self::Binary(payload) }
    }

    /// Returns whether a message is complete with this frame.
    #[must_use]
    pub fn completes_message(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Binary(_))
    }
}

impl Header {
    /// Returns the length of header and payload in bytes.
    fn frame_length(&self) -> usize {
        self.length + self.payload_length
    }
}

fn read_header(bytes: &[u8]) -> Result<Option<Header>, FrameFault> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    // Reserved bits are for extensions, of which none is negotiated. Clients must mask.
    let opcode = first & 0x0f;
    if first & 0x70 != 0 || second & 0x80 == 0 || !matches!(opcode, 0..=2 | 8..=10) {
        return Err(FrameFault::Protocol);
    }
    let (length, rest, extra) = match second & 0x7f {
        126 => {
            let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*length)), rest, 2)
        }
        127 => {
            let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (u64::from_be_bytes(*length), rest, 8)
        }
        short => (u64::from(short), rest, 0),
    };
    let Some(&mask) = rest.first_chunk() else { return Ok(None) };
    // Above all limits, and without overflow in sums.
    let payload_length = usize::try_from(length).unwrap_or(usize::MAX).min(usize::MAX / 4);
    Ok(Some(Header { is_final: first & 0x80 != 0, opcode, mask, length: 6 + extra, payload_length }))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// Appends the header of a text message of `length` bytes; the text must follow.
pub(crate) fn write_text_header(length: usize, out: &mut Vec<u8>) {
    write_header(0x81, length, out);
}

/// Returns the length in bytes of a frame with a payload of `length` bytes.
pub(crate) fn frame_length(length: usize) -> usize {
    let header = match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    header + length
}

fn write_header(first: u8, length: usize, out: &mut Vec<u8>) {
    out.push(first);
    if length <= MAX_CONTROL {
        out.push(length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(126);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// Appends a ping without payload.
pub(crate) fn write_ping(out: &mut Vec<u8>) {
    write_header(0x89, 0, out);
}

/// Appends a pong with the payload of the ping.
pub(crate) fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(MAX_CONTROL)];
    write_header(0x8a, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a close frame with a status code and a reason of at most 123 bytes.
pub(crate) fn write_close(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    let Some(code) = code else { return write_header(0x88, 0, out) };
    debug_assert!(reason.len() <= MAX_CONTROL - 2);
    write_header(0x88, 2 + reason.len(), out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

const _: () = assert!(MAX_HEADER == 2 + 8 + 4, "first bytes, long length, mask");

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_header(first, payload.len(), &mut bytes);
        bytes[1] |= 0x80;
        let mask = [1, 200, 3, 77];
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// Returns what is read when the bytes arrive in pieces of this size.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<String>, FrameFault> {
        let (mut reader, mut seen) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            let mut piece = piece.to_vec();
            reader.read(&mut piece, MAX, &mut |incoming| {
                seen.push(match incoming {
                    Incoming::Text(text) => format!("text {}", String::from_utf8_lossy(text)),
                    Incoming::Binary(bytes) => format!("binary {bytes:?}"),
                    other
                    @ (Incoming::Fragment | Incoming::Ping(_) | Incoming::Pong | Incoming::Close(_)) => {
                        format!("{other:?}")
                    }
                });
                ControlFlow::Continue(())
            })?;
        }
        assert!(!reader.has_partial_message(), "all is complete");
        assert_eq!(reader.partial_frame.capacity(), 0, "no buffer is kept");
        Ok(seen)
    }

    #[test]
    fn messages_do_not_depend_on_how_their_bytes_arrive() {
        let long = "x".repeat(300);
        let stream = [
            frame(0x81, b"whole"),
            frame(0x01, b"fir"),
            frame(0x89, b"ping"),
            frame(0x00, b"st la"),
            frame(0x80, b"st"),
            frame(0x81, b""),
            frame(0x82, &[1, 2]),
            frame(0x8a, b""),
            frame(0x81, long.as_bytes()),
            frame(0x88, &[3, 232, b'x']),
        ]
        .concat();
        let expected = [
            "text whole".to_owned(),
            "Fragment".to_owned(),
            format!("{:?}", Incoming::Ping(b"ping")),
            "Fragment".to_owned(),
            "text first last".to_owned(),
            "text ".to_owned(),
            "binary [1, 2]".to_owned(),
            "Pong".to_owned(),
            format!("text {long}"),
            "Close(Some(1000))".to_owned(),
        ];
        for piece in 1..=stream.len() {
            assert_eq!(read(&stream, piece).as_deref(), Ok(&expected[..]), "in pieces of {piece}");
        }
    }

    #[test]
    fn protocol_violations_are_rejected() {
        let mut unmasked = frame(0x81, b"x");
        unmasked[1] &= 0x7f;
        let faults: [(&str, Vec<u8>); 8] = [
            ("unmasked", unmasked),
            ("reserved bit", frame(0xc1, b"x")),
            ("unknown opcode", frame(0x83, b"x")),
            ("unknown control opcode", frame(0x8b, b"x")),
            ("control frame in parts", frame(0x09, b"x")),
            ("long control frame", frame(0x89, &[0; 126])),
            ("continuation of nothing", frame(0x80, b"x")),
            ("message within a message", [frame(0x01, b"x"), frame(0x81, b"y")].concat()),
        ];
        for (what, bytes) in faults {
            assert_eq!(read(&bytes, 1), Err(FrameFault::Protocol), "{what}");
            assert_eq!(read(&bytes, 1000), Err(FrameFault::Protocol), "{what}");
        }
        assert_eq!(read(&frame(0x88, b"x"), 1), Err(FrameFault::Protocol), "a code of one byte");
    }

    #[test]
    fn the_limit_applies_to_whole_messages_and_before_they_arrive() {
        assert!(read(&frame(0x81, &[b'x'; MAX]), 7).is_ok());
        assert_eq!(read(&frame(0x81, &[b'x'; MAX + 1])[..8], 3), Err(FrameFault::TooLong));
        let parts = [frame(0x01, &[b'x'; MAX]), frame(0x80, b"x")].concat();
        assert_eq!(read(&parts, 100), Err(FrameFault::TooLong));
        let huge = [0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(read(&huge, 1), Err(FrameFault::TooLong));
    }

    #[test]
    fn no_memory_is_reserved_for_announced_lengths() {
        let mut reader = Reader::default();
        let mut start = frame(0x81, &[b'x'; MAX])[..20].to_vec();
        reader.read(&mut start, MAX, &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(reader.has_partial_message() && reader.partial_frame.capacity() <= 64);
    }

    #[test]
    fn nothing_is_read_after_a_break() {
        let mut bytes = [frame(0x81, b"a"), frame(0x81, b"b")].concat();
        let mut seen = 0;
        let stop = &mut |_: Incoming<'_>| {
            seen += 1;
            ControlFlow::Break(())
        };
        Reader::default().read(&mut bytes, MAX, stop).unwrap();
        assert_eq!(seen, 1);
    }

    #[test]
    fn lengths_of_frames_are_those_written() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let mut out = Vec::new();
            write_text_header(length, &mut out);
            assert_eq!(out.len() + length, frame_length(length));
        }
        let mut out = Vec::new();
        write_close(Some(1001), "bye", &mut out);
        assert_eq!(out, [0x88, 5, 3, 233, b'b', b'y', b'e']);
    }
}
