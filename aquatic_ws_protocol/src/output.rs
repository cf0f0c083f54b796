//! Writing messages: at the end of what the caller has, which grows once at most.

use crate::scan::plain_end;

/// What messages can be added to: a `String`, which others take for text without looking at it again, or a `Vec<u8>`,
/// which may already hold something that is no text, such as the head of a frame.
pub trait Output: Sink {}

impl Output for String {}

impl Output for Vec<u8> {}

/// Takes a message piece by piece, be it to write it or to learn its length first.
#[expect(unnameable_types, reason = "nobody else is to implement this")]
pub trait Sink {
    /// Makes room.
    fn make_room(&mut self, length: usize);

    /// Text as it is.
    fn text(&mut self, text: &str);

    /// Bytes as the characters of a string.
    fn characters(&mut self, bytes: &[u8]);

    /// A number in decimal digits.
    fn number(&mut self, number: u64);

    /// Bytes as a string.
    #[inline]
    fn quoted_bytes(&mut self, bytes: &[u8]) {
        self.text("\"");
        self.characters(bytes);
        self.text("\"");
    }

    /// Text as a string.
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

/// Something that can be written, the same each time.
pub(crate) trait Message {
    fn write(&self, sink: &mut impl Sink);
}

/// How many bytes a message takes.
#[inline]
pub(crate) fn length(message: &impl Message) -> usize {
    let mut counter = Counter(0);
    message.write(&mut counter);
    counter.0
}

/// Adds a message to a string or a vector, which grows once at most.
#[inline]
pub(crate) fn put(message: &impl Message, out: &mut impl Output) {
    out.make_room(length(message));
    message.write(out);
}

struct Counter(usize);

impl Sink for Counter {
    fn make_room(&mut self, _: usize) {}

    #[inline]
    fn text(&mut self, text: &str) {
        self.0 += text.len();
    }

    #[inline]
    fn characters(&mut self, bytes: &[u8]) {
        self.0 += bytes.iter().map(|&byte| form_of(byte).length()).sum::<usize>();
    }

    #[inline]
    fn number(&mut self, number: u64) {
        self.0 += 1 + number.checked_ilog10().unwrap_or_default() as usize;
    }
}

impl Sink for String {
    #[inline]
    fn make_room(&mut self, length: usize) {
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
            debug_assert!(text.is_ok(), "forms are text");
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
    fn make_room(&mut self, length: usize) {
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

/// How bytes look as characters of a string, up to 20 of them at a time.
#[inline]
fn each_chunk(bytes: &[u8], mut put: impl FnMut(&[u8])) {
    const CHUNK: usize = 20;
    for chunk in bytes.chunks(CHUNK) {
        // Forms are copied whole, each over the unused end of the one before: this takes no branch per byte.
        let mut buffer = [0; CHUNK * Form::MAX_LENGTH + size_of::<Form>()];
        let mut length = 0;
        for &byte in chunk {
            let form = form_of(byte);
            if let Some(place) = buffer.get_mut(length..).and_then(<[u8]>::first_chunk_mut) {
                *place = form.0;
            }
            length += form.length();
        }
        put(buffer.get(..length).unwrap_or_default());
    }
}

/// How one byte looks as a character of a string: UTF-8 or an escape, the length in the last place.
#[derive(Clone, Copy)]
struct Form([u8; Self::MAX_LENGTH + 2]);

impl Form {
    /// That of `\u001f`.
    const MAX_LENGTH: usize = 6;

    const fn new(text: &[u8]) -> Self {
        let mut form = [0; Self::MAX_LENGTH + 2];
        let (place, _) = form.split_at_mut(text.len());
        place.copy_from_slice(text);
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
static FORMS: [Form; 256] = {
    let mut forms = [Form([0; 8]); 256];
    let mut byte = 0_u8;
    loop {
        forms[byte as usize] = Form::of(byte);
        if byte == u8::MAX {
            break forms;
        }
        byte += 1;
    }
};

#[inline]
fn form_of(byte: u8) -> Form {
    // There is one for each byte, which the compiler knows, too.
    FORMS.get(usize::from(byte)).copied().unwrap_or(Form([0; 8]))
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
