//! WebSocket frames (RFC 6455, 5.2): those of clients are masked, those of servers are not.

use std::ops::Range;

/// Maximum payload length of a received frame, in bytes.
const MAX_PAYLOAD: u64 = 1 << 20;
/// Bits of the first byte.
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// Bit of the second byte.
const MASKED: u8 = 0x80;
/// Values of the second byte for lengths that follow in two or eight bytes.
const LENGTH_IN_TWO: u8 = 126;
const LENGTH_IN_EIGHT: u8 = 127;

/// Opcode of a frame (RFC 6455, 11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// Frame of a server, with the position of its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: Opcode,
    /// Whether it is the last frame of its message (FIN).
    pub(crate) last: bool,
    /// Range of the payload, at whose end the frame ends.
    pub(crate) payload: Range<usize>,
}

/// Result of parsing received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    NeedMore,
    Complete(Frame),
    /// Not a frame that a server may send.
    Invalid,
}

/// Parses a frame at the front.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let Some((&[first, second], rest)) = bytes.split_first_chunk() else { return Parsed::NeedMore };
    let opcode = match first & 0x0f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return Parsed::Invalid,
    };
    if first & RESERVED != 0 || second & MASKED != 0 {
        return Parsed::Invalid;
    }
    let (start, length) = match second {
        LENGTH_IN_TWO => match rest.first_chunk() {
            Some(length) => (4, u16::from_be_bytes(*length).into()),
            None => return Parsed::NeedMore,
        },
        LENGTH_IN_EIGHT => match rest.first_chunk() {
            Some(length) => (10, u64::from_be_bytes(*length)),
            None => return Parsed::NeedMore,
        },
        length => (2, u64::from(length)),
    };
    if length > MAX_PAYLOAD {
        return Parsed::Invalid;
    }
    let payload = start..start + length as usize;
    if bytes.len() < payload.end {
        return Parsed::NeedMore;
    }
    Parsed::Complete(Frame { opcode, last: first & FIN != 0, payload })
}

/// Appends a message as one masked frame.
pub(crate) fn write(opcode: Opcode, payload: &[u8], mask: u32, out: &mut Vec<u8>) {
    out.push(FIN | opcode as u8);
    let length = payload.len();
    if let Ok(length) = u8::try_from(length)
        && length < LENGTH_IN_TWO
    {
        out.push(MASKED | length);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(MASKED | LENGTH_IN_TWO);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(MASKED | LENGTH_IN_EIGHT);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
    let mask = mask.to_ne_bytes();
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    let (pairs, rest) = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<8>();
    let [a, b, c, d] = mask;
    let twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    for pair in pairs {
        *pair = (u64::from_ne_bytes(*pair) ^ twice).to_ne_bytes();
    }
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_frames_are_correct() {
        // Example of RFC 6455, 5.7.
        let mut out = Vec::new();
        write(Opcode::Text, b"Hello", u32::from_ne_bytes([0x37, 0xfa, 0x21, 0x3d]), &mut out);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        for length in [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 100_003] {
            let payload: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let mut out = b"before".to_vec();
            write(Opcode::Text, &payload, 0x1234_5678, &mut out);
            let frame = &mut out[6..];
            // Converted to a frame of a server, without the mask.
            frame[1] &= !MASKED;
            let head = frame.len() - length as usize;
            let mask: [u8; 4] = frame[head - 4..head].try_into().unwrap();
            let unmasked = frame[head..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
            assert!(unmasked.eq(payload), "{length}");
            frame.copy_within(head.., head - 4);
            let expected = Frame { opcode: Opcode::Text, last: true, payload: head - 4..frame.len() - 4 };
            assert_eq!(parse(frame), Parsed::Complete(expected), "{length}");
        }
    }

    #[test]
    fn incomplete_frames_need_more() {
        for length in [5_usize, 126, 70_000] {
            let mut frame = vec![0x01];
            match length {
                5 => frame.push(5),
                126 => frame.extend([126, 0, 126]),
                _ => frame.extend([127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]),
            }
            frame.resize(frame.len() + length, 7);
            for end in (0..frame.len()).step_by(1 + length / 50) {
                assert_eq!(parse(&frame[..end]), Parsed::NeedMore);
            }
            let Parsed::Complete(whole) = parse(&frame) else { panic!("{length}") };
            assert_eq!((whole.payload.len(), whole.payload.end, whole.last), (length, frame.len(), false));
        }
    }

    #[test]
    fn invalid_frames_are_rejected() {
        for head in [[0x83, 0], [0xc1, 0], [0x81, 0x80]] {
            assert_eq!(parse(&head), Parsed::Invalid);
        }
        assert_eq!(parse(&[0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0]), Parsed::Invalid);
    }
}
