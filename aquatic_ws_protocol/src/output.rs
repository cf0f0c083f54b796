//! Message encoding: appends to buffers of the caller, which grow once at most.

use crate::scan::plain_end;

/// Buffer to which messages are appended: a `String`, which needs no further check for UTF-8, or a `Vec<u8>`,
/// which may already hold bytes that are not UTF-8, such as the head of a frame.
pub trait Output: Sink {}

impl Output for String {}

impl Output for Vec<u8> {}

/// Destination of a message, written piece by piece: a buffer or a counter of its length.
#[expect(unnameable_types, reason = "sealed: not to be implemented elsewhere")]
pub trait Sink {
    /// Reserves space for this many bytes.
    fn reserve(&mut self, length: usize);

    /// Writes text as it is.
    fn text(&mut self, text: &str);

    /// Writes bytes as the characters of a string.
    fn characters(&mut self, bytes: &[u8]);

    /// Writes a number in decimal digits.
    fn number(&mut self, number: u64);

    /// Writes bytes as a string.
    #[inline]
    fn quoted_bytes(&mut self, bytes: &[u8]) {
        self.text("\"");
        self.characters(bytes);
        self.text("\"");
    }

    /// Writes text as a string.
    fn quoted(&mut self, text: &str) {
        self.text("\"");
        let mut start = 0;
        loop {
            let end = plain_end(text.as_bytes(), start);
            self.text(text.get(start..end).unwrap_or_default());
            // Only ASCII ends a plain part, so this is a whole character.
            let Some(&byte) = text.as_bytes().get(end) else { break };
            self.characters(&[byte]);
            start = end + 1;
        }
        self.text("\"");
    }
}

/// Something that can be written, with the same bytes each time.
pub(crate) trait Message {
    fn write(&self, sink: &mut impl Sink);
}

/// Length of a message in bytes.
#[inline]
pub(crate) fn length(message: &impl Message) -> usize {
    let mut counter = Counter(0);
    message.write(&mut counter);
    counter.0
}

/// Appends a message to a buffer, which grows once at most.
#[inline]
pub(crate) fn put(message: &impl Message, out: &mut impl Output) {
    out.reserve(length(message));
    message.write(out);
}

struct Counter(usize);

impl Sink for Counter {
    fn reserve(&mut self, _: usize) {}

    #[inline]
    fn text(&mut self, text: &str) {
        self.0 += text.len();
    }

    #[inline]
    fn characters(&mut self, bytes: &[u8]) {
        self.0 += bytes.iter().map(|&byte| encoded(byte).length()).sum::<usize>();
    }

    #[inline]
    fn number(&mut self, number: u64) {
        self.0 += 1 + number.checked_ilog10().unwrap_or_default() as usize;
    }
}

impl Sink for String {
    #[inline]
    fn reserve(&mut self, length: usize) {
        self.reserve(length);
    }

    #[inline]
    fn text(&mut self, text: &str) {
        self.push_str(text);
    }

    #[inline]
    fn characters(&mut self, bytes: &[u8]) {
        each_chunk(bytes, |chunk| {
            let text = str::from_utf8(chunk);
            debug_assert!(text.is_ok(), "encoded bytes are UTF-8");
            self.push_str(text.unwrap_or_default());
        });
    }

    #[inline]
    fn number(&mut self, number: u64) {
        self.push_str(itoa::Buffer::new().format(number));
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn reserve(&mut self, length: usize) {
        self.reserve(length);
    }

    #[inline]
    fn text(&mut self, text: &str) {
        self.extend_from_slice(text.as_bytes());
    }

    #[inline]
    fn characters(&mut self, bytes: &[u8]) {
        each_chunk(bytes, |chunk| self.extend_from_slice(chunk));
    }

    #[inline]
    fn number(&mut self, number: u64) {
        self.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
}

/// Encodes bytes as characters of a string, up to 20 at a time.
#[inline]
fn each_chunk(bytes: &[u8], mut put: impl FnMut(&[u8])) {
    const CHUNK: usize = 20;
    for chunk in bytes.chunks(CHUNK) {
        // Encoded bytes are copied whole, each over the unused end of the one before, without a branch per
        // byte.
        let mut buffer = [0; CHUNK * Encoded::MAX_LENGTH + size_of::<Encoded>()];
        let mut length = 0;
        for &byte in chunk {
            let encoded = encoded(byte);
            if let Some(slot) = buffer.get_mut(length..).and_then(<[u8]>::first_chunk_mut) {
                *slot = encoded.0;
            }
            length += encoded.length();
        }
        put(buffer.get(..length).unwrap_or_default());
    }
}

/// One byte encoded as a character of a string: UTF-8 or an escape, with its length in the last byte.
#[derive(Clone, Copy)]
struct Encoded([u8; Self::MAX_LENGTH + 2]);

impl Encoded {
    /// Length of `\u001f`.
    const MAX_LENGTH: usize = 6;

    const fn new(text: &[u8]) -> Self {
        let mut form = [0; Self::MAX_LENGTH + 2];
        let (slot, _) = form.split_at_mut(text.len());
        slot.copy_from_slice(text);
        let [.., last] = &mut form;
        *last = match text.len() {
            1 => 1,
            2 => 2,
            _ => 6,
        };
        Self(form)
    }

    #[inline]
    fn length(self) -> usize {
        let [.., length] = self.0;
        length.into()
    }

    const fn of(byte: u8) -> Self {
        match byte {
            b'"' => Self::new(b"\\\""),
            b'\\' => Self::new(b"\\\\"),
            0x08 => Self::new(b"\\b"),
            0x09 => Self::new(b"\\t"),
            0x0a => Self::new(b"\\n"),
            0x0c => Self::new(b"\\f"),
            0x0d => Self::new(b"\\r"),
            0..0x08 => Self::new(&[b'\\', b'u', b'0', b'0', b'0', b'0' + byte]),
            0x0b..0x10 => Self::new(&[b'\\', b'u', b'0', b'0', b'0', b'a' + byte - 0x0a]),
            0x10..0x1a => Self::new(&[b'\\', b'u', b'0', b'0', b'1', b'0' + byte - 0x10]),
            0x1a..0x20 => Self::new(&[b'\\', b'u', b'0', b'0', b'1', b'a' + byte - 0x1a]),
            0x20..0x80 => Self::new(&[byte]),
            0x80.. => Self::new(&[0xc0 | byte >> 6, 0x80 | byte & 0x3f]),
        }
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "this runs when it is compiled, and an array has an item for each byte"
)]
static ENCODED: [Encoded; 256] = {
    let mut table = [Encoded([0; 8]); 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = Encoded::of(byte);
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

#[inline]
fn encoded(byte: u8) -> Encoded {
    // There is one for each byte, which the compiler knows, too.
    ENCODED.get(usize::from(byte)).copied().unwrap_or(Encoded([0; 8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>);

    impl Message for Bytes {
        fn write(&self, sink: &mut impl Sink) {
            sink.quoted_bytes(&self.0);
        }
    }

    struct Text(String);

    impl Message for Text {
        fn write(&self, sink: &mut impl Sink) {
            sink.quoted(&self.0);
        }
    }

    struct Number(u64);

    impl Message for Number {
        fn write(&self, sink: &mut impl Sink) {
            sink.number(self.0);
        }
    }

    fn written(message: &impl Message) -> String {
        let mut out = String::new();
        put(message, &mut out);
        assert_eq!(out.len(), length(message));
        let mut bytes = vec![0xff];
        put(message, &mut bytes);
        assert_eq!(bytes.strip_prefix(&[0xff]), Some(out.as_bytes()));
        out
    }

    #[test]
    fn bytes_become_characters_one_by_one() {
        let all: Vec<u8> = (0..=255).collect();
        let read: String = serde_json::from_str(&written(&Bytes(all.clone()))).unwrap();
        assert_eq!(read.chars().map(u8::try_from).collect::<Result<Vec<_>, _>>(), Ok(all));
        assert_eq!(written(&Bytes(vec![0, 0x1f, b'"', b'\\', b'\n', b'a', 0x7f, 0x80, 0xff])), {
            "\"\\u0000\\u001f\\\"\\\\\\na\x7f\u{80}ÿ\""
        });
    }

    #[test]
    fn text_is_escaped() {
        let text: String = (0..=0x1_0300).filter_map(char::from_u32).collect();
        assert_eq!(serde_json::from_str::<String>(&written(&Text(text.clone()))).unwrap(), text);
        assert_eq!(written(&Text("v=0\r\na=\"".into())), r#""v=0\r\na=\"""#);
        assert_eq!(written(&Text(String::new())), "\"\"");
    }

    #[test]
    fn digits_are_counted_as_they_are_written() {
        let powers = (0..20).map(|exponent| 10_u64.pow(exponent));
        for number in powers.flat_map(|power| [power - 1, power, power + 1]).chain([u64::MAX]) {
            assert_eq!(written(&Number(number)), number.to_string());
        }
    }
}
