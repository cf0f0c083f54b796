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

    fn escape(&mut self) -> Result<char, LoneSurrogate> {
        let bytes = self.rest.as_bytes();
        let (character, length) = match bytes.get(1) {
            Some(b'u') => unicode_escape(bytes, 0).unwrap_or((None, 6)),
            Some(b'b') => (Some('\u{8}'), 2),
            Some(b'f') => (Some('\u{c}'), 2),
            Some(b'n') => (Some('\n'), 2),
            Some(b'r') => (Some('\r'), 2),
            Some(b't') => (Some('\t'), 2),
            Some(&other) => (Some(char::from(other)), 2),
            None => (None, 2),
        };
        // Without a character there is nothing left to read.
        self.rest = self.rest.get(length..).filter(|_| character.is_some()).unwrap_or_default();
        character.ok_or(LoneSurrogate)
    }
}

impl Iterator for Characters<'_> {
    type Item = Result<char, LoneSurrogate>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let mut characters = self.rest.chars();
        let character = characters.next()?;
        if character == '\\' {
            return Some(self.escape());
        }
        self.rest = characters.as_str();
        Some(Ok(character))
    }
}

/// The 20 bytes a string stands for.
pub(crate) fn twenty_bytes(raw: &str, field: Field) -> Result<[u8; 20], Fault> {
    let mut bytes = [0; 20];
    let mut count = 0;
    let mut is_wide = false;
    for character in Characters::of(raw) {
        let character = character.map_err(|LoneSurrogate| Fault::LoneSurrogate(field))?;
        match (u8::try_from(character), bytes.get_mut(count)) {
            (Ok(byte), Some(place)) => *place = byte,
            (Ok(_), None) => {}
            (Err(_), _) => is_wide = true,
        }
        count += 1;
    }
    match (count, is_wide) {
        (20, false) => Ok(bytes),
        (20, true) => Err(Fault::NotBytes(field)),
        (count, _) => Err(Fault::Length(field, count)),
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
