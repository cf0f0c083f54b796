//! Unescaping of JSON strings, and decoding of strings that encode bytes as characters from U+0000 to U+00FF
//! (Latin-1).

use std::borrow::Cow;

use crate::fault::{Fault, Field};
use crate::scan::unicode_escape;

/// Characters of a string that the scanner has accepted. Half a surrogate pair is an error, after which the
/// iterator ends.
pub(crate) struct Characters<'a> {
    rest: &'a str,
}

/// Error for half a surrogate pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoneSurrogate;

impl<'a> Characters<'a> {
    /// Characters of the text between the quotes.
    pub(crate) fn of(raw: &'a str) -> Self {
        Self { rest: raw }
    }
}

impl Iterator for Characters<'_> {
    type Item = Result<char, LoneSurrogate>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let mut characters = self.rest.chars();
        let character = characters.next()?;
        if character == '\\' {
            let (character, length) = escape(self.rest.as_bytes(), 0);
            // Half a pair ends the iteration.
            self.rest = self.rest.get(length..).filter(|_| character.is_some()).unwrap_or_default();
            return Some(character.ok_or(LoneSurrogate));
        }
        self.rest = characters.as_str();
        Some(Ok(character))
    }
}

/// Character of an escape that the scanner has accepted, or `None` for half a surrogate pair, and the length
/// of the escape in bytes.
fn escape(bytes: &[u8], at: usize) -> (Option<char>, usize) {
    let character = match bytes.get(at + 1) {
        Some(b'u') => return unicode_escape(bytes, at).unwrap_or((None, 6)),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(&other) => char::from(other),
        None => return (None, 2),
    };
    (Some(character), 2)
}

/// String decoded as one byte per character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latin1<const CAPACITY: usize> {
    /// The first characters, as many as fit.
    pub(crate) bytes: [u8; CAPACITY],
    /// Number of characters of the string.
    pub(crate) count: usize,
    /// Whether a character is above U+00FF, so that the bytes are meaningless.
    pub(crate) is_wide: bool,
}

impl<const CAPACITY: usize> Latin1<CAPACITY> {
    /// Decodes the text between the quotes of a string that the scanner has accepted.
    pub(crate) fn read(raw: &str) -> Result<Self, LoneSurrogate> {
        let mut narrow = Self { bytes: [0; CAPACITY], count: 0, is_wide: false };
        let mut last = 0;
        let mut rest = raw.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if byte == b'\\' {
                let (character, length) = escape(raw.as_bytes(), raw.len() - rest.len() - 1);
                let character = character.ok_or(LoneSurrogate)?;
                narrow.is_wide |= character > '\u{ff}';
                narrow.put(narrow.count, (u32::from(character) & 0xff) as u8);
                narrow.count += 1;
                rest = rest.get(length - 1..).unwrap_or_default();
                continue;
            }
            // Identifiers are random, so there is no branch on the kind of byte: the second byte of a
            // character overwrites the first with the value of both.
            let continues = byte & 0xc0 == 0x80;
            let value = if continues { last << 6 | byte & 0x3f } else { byte };
            narrow.put(narrow.count.wrapping_sub(usize::from(continues)), value);
            narrow.count += usize::from(!continues);
            narrow.is_wide |= byte > 0xc3;
            last = byte;
        }
        Ok(narrow)
    }

    #[inline]
    fn put(&mut self, at: usize, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(at) {
            *slot = byte;
        }
    }
}

/// Decodes a string of 20 characters into 20 bytes.
pub(crate) fn twenty_bytes(raw: &str, field: Field) -> Result<[u8; 20], Fault> {
    match Latin1::read(raw) {
        Ok(Latin1 { bytes, count: 20, is_wide: false }) => Ok(bytes),
        Ok(Latin1 { count: 20, is_wide: true, .. }) => Err(Fault::NotBytes(field)),
        Ok(Latin1 { count, .. }) => Err(Fault::Length(field, count)),
        Err(LoneSurrogate) => Err(Fault::LoneSurrogate(field)),
    }
}

/// Unescapes a string; `None` if it has half a surrogate pair.
pub(crate) fn plain(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.as_bytes().contains(&b'\\') {
        return Some(raw.into());
    }
    let characters: Result<String, LoneSurrogate> = Characters::of(raw).collect();
    characters.ok().map(Cow::Owned)
}

/// Unescapes the name of a member; returns an empty name if the result does not fit, which is no known name.
pub(crate) fn name<'a>(raw: &'a str, buffer: &'a mut [u8; 16]) -> &'a str {
    if !raw.as_bytes().contains(&b'\\') {
        return raw;
    }
    let mut length = 0;
    for character in Characters::of(raw) {
        let slot = buffer.get_mut(length);
        let (Some(slot), Ok(Ok(byte))) = (slot, character.map(u8::try_from)) else { return "" };
        *slot = byte;
        length += 1;
    }
    buffer.get(..length).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_every_kind() {
        let text: Result<String, _> =
            Characters::of(r#"a\"\\\/\b\f\n\r\t\u0000\u00ff\u00FFé\ud83d\ude00😀"#).collect();
        assert_eq!(text.unwrap(), "a\"\\/\u{8}\u{c}\n\r\t\0ÿÿé😀😀");
        assert_eq!(Characters::of(r"a\ud800b").collect::<Vec<_>>(), [Ok('a'), Err(LoneSurrogate)]);
    }

    #[test]
    fn names_may_be_escaped() {
        assert_eq!(name(r"info_hash", &mut [0; 16]), "info_hash");
        assert_eq!(name(r"\u0069nfo_has\u0068", &mut [0; 16]), "info_hash");
        assert_eq!(name(r"\u0069nfo_hash_and_more", &mut [0; 16]), "");
        assert_eq!(name(r"\ud800nfo_hash", &mut [0; 16]), "");
        assert_eq!(name(r"\u0169nfo_hash", &mut [0; 16]), "");
        assert_eq!(name(r"\u00e9", &mut [0; 16]), "");
    }
}
