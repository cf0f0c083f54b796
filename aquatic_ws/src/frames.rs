//! WebSocket frames (RFC 6455) of a server: taken from what was received, and written in front of what is sent.
//!
//! Messages are handed over where they were received, unmasked in place; only what is incomplete is kept, and takes no
//! more than twice the room of what has come. So a connection that waits between two messages holds no buffer.
//!
//! Not here: what a message says, how many of them may come, and the handshake before the first frame.

/// Longest payload of a control frame.
const MAX_CONTROL: usize = 125;

/// Longest head of a frame.
const MAX_HEAD: usize = 14;

/// What a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A message that is to be UTF-8; nobody has looked yet.
    Text(&'a [u8]),
    /// A message of bytes.
    Binary(&'a [u8]),
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// An answer to a ping.
    Pong,
    /// The end, and why.
    Close(Option<u16>),
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// Something that no client may send.
    Protocol,
    /// A message that is longer than allowed.
    TooLong,
}

/// Whether to go on with the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is time for more.
    Frame,
    /// Whatever else has come is of no interest.
    Nothing,
}

/// Takes messages out of a stream of bytes.
#[derive(Debug, Default)]
pub struct Reader {
    /// The beginning of a frame.
    part: Vec<u8>,
    /// The beginning of a message of several frames, and whether it is text.
    message: Option<Box<(bool, Vec<u8>)>>,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    is_final: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Of the head and of the payload.
    lengths: (usize, usize),
}

impl Reader {
    /// Whether part of a message has come.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        !self.part.is_empty() || self.message.is_some()
    }

    /// Hands over all that is complete with these further bytes, which are changed by that.
    ///
    /// # Errors
    /// Why there is nothing more to be read. What was complete before has been handed over.
    pub fn read(
        &mut self,
        mut input: &mut [u8],
        max_message: usize,
        on: &mut impl FnMut(Incoming<'_>) -> Next,
    ) -> Result<(), FrameFault> {
        while !input.is_empty() {
            if self.part.is_empty() {
                let Some(head) = self.head(input, max_message)?.filter(|head| head.total() <= input.len())
                else {
                    self.part.extend_from_slice(input);
                    return Ok(());
                };
                let (frame, rest) = input.split_at_mut(head.total());
                if self.take(head, &mut frame[head.lengths.0..], max_message, on)? == Next::Nothing {
                    return Ok(());
                }
                input = rest;
                continue;
            }
            let before = self.part.len();
            // Enough for any head, and then for the whole frame, so that nothing of the next one is taken.
            let wanted = self.head(&self.part, max_message)?.map_or(before + 1, |head| head.total());
            let (more, rest) = input.split_at_mut((wanted - before).min(input.len()));
            self.part.extend_from_slice(more);
            input = rest;
            if let Some(head) = self.head(&self.part, max_message)?
                && head.total() == self.part.len()
            {
                let mut frame = std::mem::take(&mut self.part);
                if self.take(head, &mut frame[head.lengths.0..], max_message, on)? == Next::Nothing {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The head of the frame that begins here, once it has come, if the frame may come.
    fn head(&self, bytes: &[u8], max_message: usize) -> Result<Option<Head>, FrameFault> {
        let Some(head) = read_head(bytes)? else { return Ok(None) };
        let length = head.lengths.1;
        if head.opcode & 8 != 0 {
            // Control frames stand by themselves and are short.
            return if head.is_final && length <= MAX_CONTROL {
                Ok(Some(head))
            } else {
                Err(FrameFault::Protocol)
            };
        }
        let before = match (&self.message, head.opcode) {
            (Some(message), 0) => message.1.len(),
            (None, 1 | 2) => 0,
            (Some(_) | None, _) => return Err(FrameFault::Protocol),
        };
        if before + length > max_message { Err(FrameFault::TooLong) } else { Ok(Some(head)) }
    }

    fn take(
        &mut self,
        head: Head,
        payload: &mut [u8],
        max_message: usize,
        on: &mut impl FnMut(Incoming<'_>) -> Next,
    ) -> Result<Next, FrameFault> {
        debug_assert!(payload.len() <= max_message.max(MAX_CONTROL));
        unmask(payload, head.mask);
        let hand_over = |on: &mut _, is_text, message: &[u8]| {
            let on: &mut dyn FnMut(Incoming<'_>) -> Next = on;
            if is_text { on(Incoming::Text(message)) } else { on(Incoming::Binary(message)) }
        };
        match head.opcode {
            8 => match payload {
                [] => Ok(on(Incoming::Close(None))),
                [high, low, ..] => Ok(on(Incoming::Close(Some(u16::from_be_bytes([*high, *low]))))),
                [_] => Err(FrameFault::Protocol),
            },
            9 => Ok(on(Incoming::Ping(payload))),
            10 => Ok(on(Incoming::Pong)),
            opcode if head.is_final => match self.message.take() {
                None => Ok(hand_over(on, opcode == 1, payload)),
                Some(mut message) => {
                    message.1.extend_from_slice(payload);
                    Ok(hand_over(on, message.0, &message.1))
                }
            },
            opcode => {
                let message = self.message.get_or_insert_with(|| Box::new((opcode == 1, Vec::new())));
                message.1.extend_from_slice(payload);
                Ok(Next::Frame)
            }
        }
    }
}

impl Head {
    fn total(&self) -> usize {
        self.lengths.0 + self.lengths.1
    }
}

fn read_head(bytes: &[u8]) -> Result<Option<Head>, FrameFault> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    // No extension was agreed on that would use the reserved bits, and clients must mask.
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
    // Far beyond any limit, and far from what overflows.
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(usize::MAX / 4);
    Ok(Some(Head { is_final: first & 0x80 != 0, opcode, mask, lengths: (6 + extra, length) }))
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

/// Appends the head of a text message of this length; the text is to follow.
pub(crate) fn write_text_head(length: usize, out: &mut Vec<u8>) {
    write_head(0x81, length, out);
}

/// How many bytes a text message of this length takes with its head.
pub(crate) fn text_length(length: usize) -> usize {
    let head = match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    head + length
}

fn write_head(first: u8, length: usize, out: &mut Vec<u8>) {
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
    write_head(0x89, 0, out);
}

/// Appends the answer to a ping.
pub(crate) fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(MAX_CONTROL)];
    write_head(0x8a, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends the end, with a status code and a short text.
pub(crate) fn write_close(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    let Some(code) = code else { return write_head(0x88, 0, out) };
    debug_assert!(reason.len() <= MAX_CONTROL - 2);
    write_head(0x88, 2 + reason.len(), out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

const _: () = assert!(MAX_HEAD == 2 + 8 + 4, "first bytes, long length, mask");

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_head(first, payload.len(), &mut bytes);
        bytes[1] |= 0x80;
        let mask = [1, 200, 3, 77];
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// What is read when the bytes come in pieces of this size.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<String>, FrameFault> {
        let (mut reader, mut seen) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            let mut piece = piece.to_vec();
            reader.read(&mut piece, MAX, &mut |incoming| {
                seen.push(match incoming {
                    Incoming::Text(text) => format!("text {}", String::from_utf8_lossy(text)),
                    Incoming::Binary(bytes) => format!("binary {bytes:?}"),
                    other @ (Incoming::Ping(_) | Incoming::Pong | Incoming::Close(_)) => format!("{other:?}"),
                });
                Next::Frame
            })?;
        }
        assert!(!reader.is_amid(), "everything has come");
        assert_eq!(reader.part.capacity(), 0, "nothing is kept");
        Ok(seen)
    }

    #[test]
    fn messages_are_the_same_however_they_come() {
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
            format!("{:?}", Incoming::Ping(b"ping")),
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
    fn what_no_client_may_send_is_refused() {
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
    fn the_limit_is_for_the_whole_message_and_holds_before_it_comes() {
        assert!(read(&frame(0x81, &[b'x'; MAX]), 7).is_ok());
        assert_eq!(read(&frame(0x81, &[b'x'; MAX + 1])[..8], 3), Err(FrameFault::TooLong));
        let parts = [frame(0x01, &[b'x'; MAX]), frame(0x80, b"x")].concat();
        assert_eq!(read(&parts, 100), Err(FrameFault::TooLong));
        let huge = [0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(read(&huge, 1), Err(FrameFault::TooLong));
    }

    #[test]
    fn no_room_is_made_for_what_is_only_announced() {
        let mut reader = Reader::default();
        let mut start = frame(0x81, &[b'x'; MAX])[..20].to_vec();
        reader.read(&mut start, MAX, &mut |_| Next::Frame).unwrap();
        assert!(reader.is_amid() && reader.part.capacity() <= 64);
    }

    #[test]
    fn nothing_is_read_behind_the_end() {
        let mut bytes = [frame(0x81, b"a"), frame(0x81, b"b")].concat();
        let mut seen = 0;
        let stop = &mut |_: Incoming<'_>| {
            seen += 1;
            Next::Nothing
        };
        Reader::default().read(&mut bytes, MAX, stop).unwrap();
        assert_eq!(seen, 1);
    }

    #[test]
    fn what_is_written_has_the_length_that_was_told() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let mut out = Vec::new();
            write_text_head(length, &mut out);
            assert_eq!(out.len() + length, text_length(length));
        }
        let mut out = Vec::new();
        write_close(Some(1001), "bye", &mut out);
        assert_eq!(out, [0x88, 5, 3, 233, b'b', b'y', b'e']);
    }
}
