//! JSON scanner (RFC 8259) that builds no tree: one pass checks the grammar strictly and returns where values
//! begin and end, so that opaque values are relayed byte for byte. Values that JSON allows but that some
//! readers cannot process are marked with a [`Flaw`].

use crate::fault::{Fault, Flaw};
use crate::limits::MAX_DEPTH;

/// Type of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// JSON value as it was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    pub(crate) kind: Kind,
    /// Text of the value, quotes and brackets included.
    pub(crate) raw: &'a str,
    /// Last flaw in the value, at any depth.
    pub(crate) flaw: Option<Flaw>,
}

impl<'a> Value<'a> {
    /// Text between the quotes of a string, still escaped; `None` for any other type.
    pub(crate) fn string(&self) -> Option<&'a str> {
        if self.kind == Kind::String { self.raw.get(1..self.raw.len() - 1) } else { None }
    }
}

/// Scanner of a text from its beginning. All errors are final.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    flaw: Option<Flaw>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, flaw: None }
    }

    /// Scans a text that is one value, with or without white space around it.
    pub(crate) fn whole(text: &'a str) -> Result<Value<'a>, Fault> {
        let mut scanner = Self::new(text);
        let value = scanner.value(0)?;
        scanner.end()?;
        Ok(value)
    }

    /// Skips white space and returns the next byte without consuming it.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    /// Checks that nothing but white space follows.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        if self.peek().is_none() { Ok(()) } else { Err(self.malformed()) }
    }

    /// Scans any value, at this nesting depth.
    pub(crate) fn value(&mut self, depth: usize) -> Result<Value<'a>, Fault> {
        self.peek();
        let start = self.at;
        self.flaw = None;
        let kind = self.skip(depth)?;
        let raw = self.text.get(start..self.at).unwrap_or_default();
        Ok(Value { kind, raw, flaw: self.flaw })
    }

    /// Scans an object. Calls `member` with the name of each member, still escaped; it must scan the value.
    pub(crate) fn object(
        &mut self,
        depth: usize,
        mut member: impl FnMut(&mut Self, &'a str, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.open(b'{', depth)?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.peek();
            let name = self.string()?;
            self.expect(b':')?;
            self.peek();
            member(self, name, depth + 1)?;
            if !self.next_or_end(b'}')? {
                return Ok(());
            }
        }
    }

    /// Scans an array. Calls `item` for each item; it must scan the item.
    pub(crate) fn array(
        &mut self,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.open(b'[', depth)?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.peek();
            item(self, depth + 1)?;
            if !self.next_or_end(b']')? {
                return Ok(());
            }
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn malformed(&self) -> Fault {
        Fault::NotJson { at: self.at }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(self.malformed());
        }
        self.at += 1;
        Ok(())
    }

    fn open(&mut self, bracket: u8, depth: usize) -> Result<(), Fault> {
        self.expect(bracket)?;
        if depth < MAX_DEPTH { Ok(()) } else { Err(Fault::TooDeep) }
    }

    /// Scans what follows an item; returns whether it is a comma, and not the closing bracket.
    fn next_or_end(&mut self, bracket: u8) -> Result<bool, Fault> {
        let next = self.peek();
        if next != Some(b',') && next != Some(bracket) {
            return Err(self.malformed());
        }
        self.at += 1;
        Ok(next == Some(b','))
    }

    fn skip(&mut self, depth: usize) -> Result<Kind, Fault> {
        match self.byte() {
            Some(b'"') => self.string().map(|_| Kind::String),
            Some(b'{') => {
                self.object(depth, |scanner, _, depth| scanner.skip(depth).map(|_| ()))?;
                Ok(Kind::Object)
            }
            Some(b'[') => {
                self.array(depth, |scanner, depth| scanner.skip(depth).map(|_| ()))?;
                Ok(Kind::Array)
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| Kind::Number),
            Some(b'n') => self.word("null").map(|()| Kind::Null),
            Some(b't') => self.word("true").map(|()| Kind::Bool),
            Some(b'f') => self.word("false").map(|()| Kind::Bool),
            _ => Err(self.malformed()),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.malformed());
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let has_fraction = self.byte() == Some(b'.');
        if has_fraction {
            self.at += 1;
            self.digits()?;
        }
        let has_exponent = matches!(self.byte(), Some(b'e' | b'E'));
        if has_exponent {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        let number = self.text.get(start..self.at).unwrap_or_default();
        let all_can_read = if has_fraction || has_exponent {
            is_double(number, has_exponent)
        } else {
            is_64_bit_integer(number)
        };
        if !all_can_read {
            self.flaw = Some(Flaw::NumberRange);
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Fault> {
        if !self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.malformed());
        }
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    /// Scans a string and returns the text between its quotes, still escaped.
    fn string(&mut self) -> Result<&'a str, Fault> {
        if self.byte() != Some(b'"') {
            return Err(self.malformed());
        }
        self.at += 1;
        let start = self.at;
        loop {
            self.at = plain_end(self.text.as_bytes(), self.at);
            // Escapes often come in pairs, as at the ends of lines.
            while self.byte() == Some(b'\\') {
                self.escape()?;
            }
            match self.byte() {
                Some(b'"') => break,
                Some(0x20..) => {}
                Some(0..0x20) | None => return Err(self.malformed()),
            }
        }
        let inner = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        Ok(inner)
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let (character, length) =
                    unicode_escape(self.text.as_bytes(), self.at).ok_or_else(|| self.malformed())?;
                if character.is_none() {
                    self.flaw = Some(Flaw::LoneSurrogate);
                }
                self.at += length;
                Ok(())
            }
            _ => Err(self.malformed()),
        }
    }
}

/// Decodes `\uXXXX`, or two of them that are a surrogate pair, at the position of the backslash. Returns the
/// character, or `None` in its place for half a pair, and the length of the escape in bytes; `None` if the
/// digits are invalid.
pub(crate) fn unicode_escape(bytes: &[u8], at: usize) -> Option<(Option<char>, usize)> {
    let high = code_unit(bytes, at)?;
    if !(0xd800..0xdc00).contains(&high) {
        return Some((char::from_u32(high), 6));
    }
    let low = code_unit(bytes, at + 6).filter(|low| (0xdc00..0xe000).contains(low));
    match low.and_then(|low| char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))) {
        Some(character) => Some((Some(character), 12)),
        None => Some((None, 6)),
    }
}

/// Whether an integer has at most 64 bits, with or without a sign. Some readers refuse larger ones.
fn is_64_bit_integer(number: &str) -> bool {
    number.len() < 19 || number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok()
}

/// Whether a double has room for the size of a number with a fraction or an exponent.
fn is_double(number: &str, has_exponent: bool) -> bool {
    // Without an exponent it takes 309 digits to leave the range.
    let is_small = !has_exponent && number.len() < 300;
    is_small || number.parse::<f64>().is_ok_and(f64::is_finite)
}

fn code_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = bytes.get(at..at + 6)? else { return None };
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
}

/// Position of the first quote, backslash or control character from `at` on, or the length of the bytes.
pub(crate) fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    let mut rest = bytes.get(at..).unwrap_or_default();
    while let Some((word, after)) = rest.split_first_chunk() {
        let hits = special(u64::from_le_bytes(*word));
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
        rest = after;
    }
    let is_special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    at + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// Sets the highest bit of each byte that is a quote, a backslash or a control character. Only the lowest
/// such bit is exact: a borrow from a marked byte may mark those above it.
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let quotes = zeros(word ^ (ONES * 0x22));
    let backslashes = zeros(word ^ (ONES * 0x5c));
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    (quotes | backslashes | controls) & (ONES * 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_parts_end_where_a_byte_by_byte_search_says() {
        for special in (0..=0xff_u8).filter(|byte| byte.is_ascii()) {
            for filler in [b'a', 0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                for at in 0..24 {
                    let mut bytes = [filler; 24];
                    *bytes.get_mut(at).unwrap() = special;
                    let naive = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
                    let expected = bytes.iter().position(naive).unwrap_or(bytes.len());
                    assert_eq!(plain_end(&bytes, 0), expected, "{special:#x} among {filler:#x}");
                    assert_eq!(plain_end(&bytes, 3.min(expected)), expected);
                }
            }
        }
        assert_eq!(plain_end(b"abc", 9), 9);
    }

    #[test]
    fn surrogates_count_as_pairs_only() {
        assert_eq!(unicode_escape(b"\\u0041", 0), Some((Some('A'), 6)));
        assert_eq!(unicode_escape(b"\\uD83D\\uDe00", 0), Some((Some('\u{1f600}'), 12)));
        assert_eq!(unicode_escape(b"\\ud83d\\ud83d", 0), Some((None, 6)));
        assert_eq!(unicode_escape(b"\\ud83d\\udbff", 0), Some((None, 6)));
        assert_eq!(unicode_escape(b"\\ud83d\\ue000", 0), Some((None, 6)));
        assert_eq!(unicode_escape(b"\\udbff\\udfff", 0), Some((Some('\u{10ffff}'), 12)));
        assert_eq!(unicode_escape(b"\\ud83dabcdef", 0), Some((None, 6)));
        assert_eq!(unicode_escape(b"\\ude00", 0), Some((None, 6)));
        assert_eq!(unicode_escape(b"\\u00g0", 0), None);
        assert_eq!(unicode_escape(b"\\u004", 0), None);
        assert_eq!(unicode_escape(b"\\u+041", 0), None);
    }
}
