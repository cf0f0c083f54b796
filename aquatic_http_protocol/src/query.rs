//! Queries of request targets: the part behind the first question mark.

use memchr::{memchr, memchr2_iter};

/// Parameters that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    InfoHash,
    PeerId,
    Port,
    Left,
    Event,
    Numwant,
    Compact,
}

impl Key {
    const MAX_LENGTH: usize = b"info_hash".len();

    /// The key with this name, in any case.
    #[inline]
    pub(crate) fn read(name: &[u8]) -> Option<Self> {
        match name {
            b"info_hash" => Some(Self::InfoHash),
            b"peer_id" => Some(Self::PeerId),
            b"port" => Some(Self::Port),
            b"left" => Some(Self::Left),
            b"event" => Some(Self::Event),
            b"numwant" => Some(Self::Numwant),
            b"compact" => Some(Self::Compact),
            _ if name.len() <= Self::MAX_LENGTH && name.iter().any(u8::is_ascii_uppercase) => {
                Self::read_uppercase(name)
            }
            _ => None,
        }
    }

    #[cold]
    fn read_uppercase(name: &[u8]) -> Option<Self> {
        let mut buffer = [0; Self::MAX_LENGTH];
        let lowercase = buffer.get_mut(..name.len())?;
        lowercase.copy_from_slice(name);
        lowercase.make_ascii_lowercase();
        Self::read(lowercase)
    }
}

/// Parameters of a query in their order, as pairs of key and value, both as they were sent. A parameter
/// without an equals sign has an empty value; all equals signs but the first belong to the value.
///
/// Parameters are separated by `&`, and by a question mark that is followed by a known key and an equals
/// sign: clients append `?info_hash=…` to an announce URL that has a query already.
#[derive(Clone, Debug)]
pub(crate) struct Parameters<'a> {
    rest: &'a [u8],
    has_question_mark: bool,
}

impl<'a> Parameters<'a> {
    pub(crate) fn new(query: &'a [u8]) -> Self {
        Self { rest: query, has_question_mark: memchr(b'?', query).is_some() }
    }

    /// Position of the separator behind the first parameter of the rest.
    #[inline]
    fn separator(&self) -> Option<usize> {
        if self.has_question_mark { self.any_separator() } else { memchr(b'&', self.rest) }
    }

    #[cold]
    fn any_separator(&self) -> Option<usize> {
        memchr2_iter(b'&', b'?', self.rest).find(|&at| match self.rest.get(at..) {
            Some([b'?', behind @ ..]) => {
                let name = behind.iter().take(Key::MAX_LENGTH + 1).position(|&byte| byte == b'=');
                name.and_then(|end| Key::read(behind.get(..end)?)).is_some()
            }
            _ => true,
        })
    }
}

/// Whether a query has an `info_hash`, whatever its value.
pub(crate) fn has_info_hash(query: &[u8]) -> bool {
    Parameters::new(query).any(|(key, _)| Key::read(key) == Some(Key::InfoHash))
}

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (parameter, rest) = split_at_byte(self.rest, self.separator());
        self.rest = rest;
        Some(split_at_byte(parameter, parameter.iter().position(|&byte| byte == b'=')))
    }
}

/// The bytes before and behind a position, without the byte there; all of them and none without a position.
pub(crate) fn split_at_byte(bytes: &[u8], at: Option<usize>) -> (&[u8], &[u8]) {
    match at.and_then(|at| bytes.split_at_checked(at)) {
        Some((before, [_, behind @ ..])) => (before, behind),
        Some((before, [])) => (before, &[]),
        None => (bytes, &[]),
    }
}

/// Decodes the first byte of a percent-encoded query value and returns it with the rest of the value.
///
/// A plus sign is a space, as in HTML forms (`application/x-www-form-urlencoded`): the standard libraries of
/// Python, Go and PHP encode queries that way. Bytes that should have been encoded stand for themselves, and
/// so does a percent sign without two hexadecimal digits behind it.
#[inline]
fn decode_first(text: &[u8]) -> Option<(u8, &[u8])> {
    decode_percent(text)
        .map(|(byte, rest)| if text.first() == Some(&b'+') { (b' ', rest) } else { (byte, rest) })
}

/// The same for paths, where a plus sign is no space.
#[inline]
pub(crate) fn decode_percent(text: &[u8]) -> Option<(u8, &[u8])> {
    if let [b'%', high, low, rest @ ..] = text
        && let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low))
    {
        return Some((high << 4 | low, rest));
    }
    text.split_first().map(|(&byte, rest)| (byte, rest))
}

/// Longest value that [`decode_word`] decodes. Numbers and events have at most 20 bytes.
pub(crate) const MAX_WORD: usize = 32;

/// A value that is a number or a word, decoded into a buffer if anything in it is encoded. A longer encoded
/// value is returned as it was sent, which is neither a number nor a known word.
#[inline]
pub(crate) fn decode_word<'a>(text: &'a [u8], buffer: &'a mut [u8; MAX_WORD]) -> &'a [u8] {
    if !text.iter().any(|&byte| matches!(byte, b'%' | b'+')) {
        return text;
    }
    let mut length = 0;
    let mut rest = text;
    while let Some((byte, behind)) = decode_first(rest) {
        let Some(slot) = buffer.get_mut(length) else { return text };
        *slot = byte;
        length += 1;
        rest = behind;
    }
    buffer.get(..length).unwrap_or_default()
}

/// The 20 bytes of a percent-encoded value, or the number of its bytes if it is not 20.
#[inline]
pub(crate) fn decode_20(mut text: &[u8]) -> Result<[u8; 20], usize> {
    let mut bytes = [0; 20];
    for (length, slot) in bytes.iter_mut().enumerate() {
        let Some((byte, rest)) = decode_first(text) else { return Err(length) };
        *slot = byte;
        text = rest;
    }
    if text.is_empty() { Ok(bytes) } else { Err(20 + decoded_length(text)) }
}

#[cold]
fn decoded_length(mut text: &[u8]) -> usize {
    let mut length = 0;
    while let Some((_, rest)) = decode_first(text) {
        text = rest;
        length += 1;
    }
    length
}

/// Percent-encodes 20 bytes into a buffer and returns the part of the buffer that was written.
pub(crate) fn encode_20<'a>(bytes: &[u8; 20], buffer: &'a mut [u8; 60]) -> &'a [u8] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut length = 0;
    let mut push = |byte: u8| {
        if let Some(slot) = buffer.get_mut(length) {
            *slot = byte;
            length += 1;
        }
    };
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            push(byte);
        } else {
            push(b'%');
            for digit in [byte >> 4, byte & 0xf] {
                push(DIGITS.get(usize::from(digit)).copied().unwrap_or_default());
            }
        }
    }
    buffer.get(..length).unwrap_or_default()
}

const NO_DIGIT: u8 = 0xff;

/// Value of each byte as a hexadecimal digit.
const HEX_DIGITS: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        let byte = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        set(&mut table, byte, digit);
        set(&mut table, byte.to_ascii_uppercase(), digit);
        digit += 1;
    }
    table
};

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler, and a byte cannot exceed the table")]
const fn set(table: &mut [u8; 256], byte: u8, digit: u8) {
    table[byte as usize] = digit;
}

#[inline]
fn hex_digit(byte: u8) -> Option<u8> {
    HEX_DIGITS.get(usize::from(byte)).copied().filter(|&digit| digit != NO_DIGIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Parameters::new(query.as_bytes()).map(|(key, value)| (text(key), text(value))).collect()
    }

    fn decoded(text: &str) -> Vec<u8> {
        let mut rest = text.as_bytes();
        let mut bytes = Vec::new();
        while let Some((byte, behind)) = decode_first(rest) {
            bytes.push(byte);
            rest = behind;
        }
        bytes
    }

    #[test]
    fn parameters_of_every_shape() {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("a=1&b=2"), [("a", "1"), ("b", "2")].map(owned));
        assert_eq!(pairs("a&b=&=c&=&d"), [("a", ""), ("b", ""), ("", "c"), ("", ""), ("d", "")].map(owned));
        assert_eq!(pairs("a=b=c=&d==e"), [("a", "b=c="), ("d", "=e")].map(owned));
        assert_eq!(pairs("&&a=1&"), [("", ""), ("", ""), ("a", "1")].map(owned));
    }

    #[test]
    fn a_question_mark_separates_if_a_known_key_follows() {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        assert_eq!(
            pairs("a=b?info_hash=c&d=?x?Port=1?port?left=?Numwant="),
            [("a", "b"), ("info_hash", "c"), ("d", "?x"), ("Port", "1?port"), ("left", ""), ("Numwant", "")]
                .map(owned)
        );
        assert_eq!(pairs("?port=1&a=?xport=2?"), [("", ""), ("port", "1"), ("a", "?xport=2?")].map(owned));
        assert!(
            has_info_hash(b"x?INFO_hash=")
                && !has_info_hash(b"x?info_hash")
                && !has_info_hash(b"info_hashes=")
        );
    }

    #[test]
    fn every_byte_is_decoded_in_both_cases() {
        for byte in 0..=255_u8 {
            assert_eq!(decoded(&format!("x%{byte:02x}%{byte:02X}y")), [b'x', byte, byte, b'y']);
        }
    }

    #[test]
    fn bytes_that_are_not_encoded_stand_for_themselves() {
        assert_eq!(decoded("a-b%%41%4g%g4%4"), b"a-b%A%4g%g4%4");
        assert_eq!(decoded("%"), b"%");
    }

    #[test]
    fn plus_is_a_space() {
        assert_eq!(decoded("+a+%2B%2b+%+"), b" a ++ % ");
        assert_eq!(decode_20(b"++++++++++++++++++++"), Ok([b' '; 20]));
    }

    #[test]
    fn words_are_decoded_if_they_fit() {
        let word = |text: &str| decode_word(text.as_bytes(), &mut [0; MAX_WORD]).to_vec();
        assert_eq!(word("stopped"), b"stopped");
        assert_eq!(word("%73top+ed%"), b"stop ed%");
        assert_eq!(word(&"%61".repeat(32)), [b'a'; 32]);
        assert_eq!(word(&"%61".repeat(33)), "%61".repeat(33).as_bytes());
        assert_eq!(word(&"a".repeat(33)), [b'a'; 33]);
    }

    #[test]
    fn length_is_known_if_it_is_not_20() {
        for length in (0..70).filter(|&length| length != 20) {
            for piece in ["a", "+", "%00", "%", "%4"] {
                let text = piece.repeat(length);
                let expected = if piece == "%4" { 2 * length } else { length };
                if expected != 20 {
                    assert_eq!(decode_20(text.as_bytes()), Err(expected), "{text}");
                }
            }
        }
        assert_eq!(decode_20(&[0xff; 20]), Ok([0xff; 20]));
        assert_eq!(decode_20("%FF".repeat(20).as_bytes()), Ok([0xff; 20]));
    }

    #[test]
    fn unreserved_bytes_stay() {
        let mut buffer = [0; 60];
        assert_eq!(
            encode_20(b"-AZaz09._~%&+=/ \n\0\x7f\xff", &mut buffer),
            b"-AZaz09._~%25%26%2B%3D%2F%20%0A%00%7F%FF"
        );
        assert_eq!(encode_20(&[0xff; 20], &mut buffer).len(), 60);
    }
}
