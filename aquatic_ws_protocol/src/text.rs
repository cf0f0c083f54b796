//! What strings of JSON say once their escapes are gone, and the strings of this protocol that stand for bytes: one
//! character, from U+0000 to U+00FF, for each.

use std::borrow::Cow;

use crate::fault::{Fault, Field};
use crate::scan::unicode_escape;

/// The characters of a string that the scanner has accepted. Half a surrogate pair is an error, and then the end.
pub(crate) struct Characters<'a> {
    rest: &'a str,
}

/// Half a surrogate pair where a character belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoneSurrogate;

impl<'a> Characters<'a> {
    /// Takes what is between the quotes.
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
            // Without a character there is nothing left to read.
            self.rest = self.rest.get(length..).filter(|_| character.is_some()).unwrap_or_default();
            return Some(character.ok_or(LoneSurrogate));
        }
        self.rest = characters.as_str();
        Some(Ok(character))
    }
}

/// The character of an escape that the scanner has accepted, if it is one and not half of one, and how long the escape is.
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

/// What a string says, as far as one byte for each character can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Narrow<const ROOM: usize> {
    /// The first characters.
    pub(crate) bytes: [u8; ROOM],
    /// How many characters there are.
    pub(crate) count: usize,
    /// Whether some are above U+00FF, so that the bytes are meaningless.
    pub(crate) is_wide: bool,
}

impl<const ROOM: usize> Narrow<ROOM> {
    /// Reads what is between the quotes of a string that the scanner has accepted.
    pub(crate) fn read(raw: &str) -> Result<Self, LoneSurrogate> {
        let mut narrow = Self { bytes: [0; ROOM], count: 0, is_wide: false };
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
            // Identifiers are random, so there is no branch on what kind of byte this is: the second byte of a character
            // makes one of both, in the place of the first.
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
        if let Some(place) = self.bytes.get_mut(at) {
            *place = byte;
        }
    }
}

/// The 20 bytes a string stands for.
pub(crate) fn twenty_bytes(raw: &str, field: Field) -> Result<[u8; 20], Fault> {
    match Narrow::read(raw) {
        Ok(Narrow { bytes, count: 20, is_wide: false }) => Ok(bytes),
        Ok(Narrow { count: 20, is_wide: true, .. }) => Err(Fault::NotBytes(field)),
        Ok(Narrow { count, .. }) => Err(Fault::Length(field, count)),
        Err(LoneSurrogate) => Err(Fault::LoneSurrogate(field)),
    }
}

/// A string without escapes, if it is one of characters only.
pub(crate) fn plain(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.as_bytes().contains(&b'\\') {
        return Some(raw.into());
    }
    let characters: Result<String, LoneSurrogate> = Characters::of(raw).collect();
    characters.ok().map(Cow::Owned)
}

/// A member's name without escapes, if it could be one that is known here; otherwise something that is not.
pub(crate) fn name<'a>(raw: &'a str, buffer: &'a mut [u8; 16]) -> &'a str {
    if !raw.as_bytes().contains(&b'\\') {
        return raw;
    }
    let mut length = 0;
    for character in Characters::of(raw) {
        let place = buffer.get_mut(length);
        let (Some(place), Ok(Ok(byte))) = (place, character.map(u8::try_from)) else { return "" };
        *place = byte;
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
