//! Bencode decoding (BEP 3).

use std::fmt;

/// Maximum nesting depth of lists and dictionaries. Replies need three levels.
const MAX_DEPTH: usize = 8;

/// Why bytes are not bencode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BencodeError {
    /// The bytes end before the value does.
    Truncated,
    /// A byte that the grammar does not allow there.
    Unexpected(u8),
    /// A number that does not fit into 64 bits.
    Number,
    /// More levels than the maximum.
    TooDeep,
}

impl fmt::Display for BencodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("bencode is truncated"),
            Self::Unexpected(byte) => write!(f, "unexpected byte {byte:#04x} in bencode"),
            Self::Number => f.write_str("number in bencode is out of range"),
            Self::TooDeep => f.write_str("bencode has too many levels"),
        }
    }
}

impl std::error::Error for BencodeError {}

/// The bytes still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn peek(&self) -> Result<u8, BencodeError> {
        self.rest.first().copied().ok_or(BencodeError::Truncated)
    }

    fn byte(&mut self) -> Result<u8, BencodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or(BencodeError::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    fn expect(&mut self, expected: u8) -> Result<(), BencodeError> {
        match self.byte()? {
            byte if byte == expected => Ok(()),
            byte => Err(BencodeError::Unexpected(byte)),
        }
    }

    /// Reads digits up to this byte, and the byte. The number has this sign, 1 or -1.
    fn digits(&mut self, end: u8, sign: i64) -> Result<i64, BencodeError> {
        let mut number = 0_i64;
        let mut count = 0;
        loop {
            match self.byte()? {
                digit @ b'0'..=b'9' => {
                    let value = sign * i64::from(digit - b'0');
                    number = number
                        .checked_mul(10)
                        .and_then(|n| n.checked_add(value))
                        .ok_or(BencodeError::Number)?;
                    count += 1;
                }
                byte if byte == end && count > 0 => return Ok(number),
                byte => return Err(BencodeError::Unexpected(byte)),
            }
        }
    }

    pub(crate) fn integer(&mut self) -> Result<i64, BencodeError> {
        self.expect(b'i')?;
        if self.peek()? == b'-' {
            self.byte()?;
            return self.digits(b'e', -1);
        }
        self.digits(b'e', 1)
    }

    pub(crate) fn string(&mut self) -> Result<&'a [u8], BencodeError> {
        let length = usize::try_from(self.digits(b':', 1)?).map_err(|_| BencodeError::Number)?;
        let (string, rest) = self.rest.split_at_checked(length).ok_or(BencodeError::Truncated)?;
        self.rest = rest;
        Ok(string)
    }

    pub(crate) fn start_list(&mut self) -> Result<(), BencodeError> {
        self.expect(b'l')
    }

    /// Whether a list ends here; reads its end.
    pub(crate) fn ends(&mut self) -> Result<bool, BencodeError> {
        let ends = self.peek()? == b'e';
        if ends {
            self.byte()?;
        }
        Ok(ends)
    }

    pub(crate) fn start_dictionary(&mut self) -> Result<(), BencodeError> {
        self.expect(b'd')
    }

    /// Reads the next key of a dictionary; `None` at its end.
    pub(crate) fn key(&mut self) -> Result<Option<&'a [u8]>, BencodeError> {
        if self.peek()? == b'e' {
            self.byte()?;
            return Ok(None);
        }
        self.string().map(Some)
    }

    /// Skips a value of any kind.
    pub(crate) fn skip(&mut self) -> Result<(), BencodeError> {
        self.walk(MAX_DEPTH).map(|_| ())
    }

    /// Skips a value and returns whether it is in canonical form.
    fn walk(&mut self, depth: usize) -> Result<bool, BencodeError> {
        let depth = depth.checked_sub(1).ok_or(BencodeError::TooDeep)?;
        let before = self.rest;
        match self.peek()? {
            b'i' => {
                self.integer()?;
                Ok(!matches!(before, [b'i', b'-', b'0', ..] | [b'i', b'0', b'0'..=b'9', ..]))
            }
            b'0'..=b'9' => {
                self.string()?;
                Ok(is_canonical_length(before))
            }
            b'l' => {
                self.byte()?;
                let mut canonical = true;
                while self.peek()? != b'e' {
                    canonical &= self.walk(depth)?;
                }
                self.byte()?;
                Ok(canonical)
            }
            b'd' => self.walk_dictionary(depth),
            byte => Err(BencodeError::Unexpected(byte)),
        }
    }

    fn walk_dictionary(&mut self, depth: usize) -> Result<bool, BencodeError> {
        self.start_dictionary()?;
        let mut canonical = true;
        let mut last: Option<&[u8]> = None;
        loop {
            let before = self.rest;
            let Some(key) = self.key()? else { return Ok(canonical) };
            canonical &= is_canonical_length(before) && last.is_none_or(|last| last < key);
            canonical &= self.walk(depth)?;
            last = Some(key);
        }
    }
}

fn is_canonical_length(string: &[u8]) -> bool {
    !matches!(string, [b'0', b'0'..=b'9', ..])
}

/// Whether these bytes are one value in canonical form: keys are sorted and unique, numbers have no leading
/// zeros, and no bytes follow.
///
/// # Errors
/// When they are no value at all.
pub fn is_canonical(bytes: &[u8]) -> Result<bool, BencodeError> {
    let mut reader = Reader::new(bytes);
    let canonical = reader.walk(MAX_DEPTH)?;
    Ok(canonical && reader.rest().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form() {
        for bytes in [
            "de",
            "le",
            "i0e",
            "i-1e",
            "i-9223372036854775808e",
            "0:",
            "d1:a0:1:bi10ee",
            "d0:i1e1:ad1:bleee",
            "lli1e1:xedee",
        ] {
            assert_eq!(is_canonical(bytes.as_bytes()), Ok(true), "{bytes}");
        }
        for bytes in [
            "d1:b0:1:a0:e",
            "d1:a0:1:a0:e",
            "i00e",
            "i-0e",
            "i01e",
            "i-01e",
            "00:",
            "01:a",
            "d01:a0:e",
            "dee",
            "i1e\r\n",
        ] {
            assert_eq!(is_canonical(bytes.as_bytes()), Ok(false), "{bytes}");
        }
    }

    #[test]
    fn not_bencode() {
        use BencodeError::{Number, TooDeep, Truncated, Unexpected};
        let cases = [
            ("", Truncated),
            ("i", Truncated),
            ("i1", Truncated),
            ("ie", Unexpected(b'e')),
            ("i-e", Unexpected(b'e')),
            ("i--1e", Unexpected(b'-')),
            ("i9223372036854775808e", Number),
            ("i-9223372036854775809e", Number),
            ("99999999999999999999:", Number),
            ("5:abcd", Truncated),
            ("5", Truncated),
            ("5x", Unexpected(b'x')),
            ("di1e0:e", Unexpected(b'i')),
            ("d1:a", Truncated),
            ("d1:ae", Unexpected(b'e')),
            ("x", Unexpected(b'x')),
            ("llllllllleeeeeeeee", TooDeep),
        ];
        for (bytes, error) in cases {
            assert_eq!(is_canonical(bytes.as_bytes()), Err(error), "{bytes}");
        }
    }
}
