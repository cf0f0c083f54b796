use std::fmt;
use std::str::FromStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The 20 bytes that name a torrent (BEP 3; for version 2 torrents the truncated hash of BEP 52).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct InfoHash(pub [u8; 20]);

/// The 20 bytes a client chose as its name (BEP 3, BEP 20).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct PeerId(pub [u8; 20]);

/// Why a text is not an info hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseHexError {
    /// The text does not have 40 characters; the count is in bytes.
    Length(usize),
    /// The character at this byte is not a hexadecimal digit.
    Digit(usize),
}

impl fmt::Display for ParseHexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(got) => write!(f, "expected 40 hexadecimal digits, got {got} characters"),
            Self::Digit(at) => write!(f, "character {} is not a hexadecimal digit", at + 1),
        }
    }
}

impl std::error::Error for ParseHexError {}

impl InfoHash {
    /// Reads 40 hexadecimal digits in either case.
    ///
    /// # Errors
    /// Another length, or another character.
    pub fn from_hex(digits: &[u8]) -> Result<Self, ParseHexError> {
        if digits.len() != 40 {
            return Err(ParseHexError::Length(digits.len()));
        }
        let mut bytes = [0; 20];
        for (at, (byte, pair)) in bytes.iter_mut().zip(digits.chunks_exact(2)).enumerate() {
            let high = hex_digit(pair[0]).ok_or(ParseHexError::Digit(at * 2))?;
            let low = hex_digit(pair[1]).ok_or(ParseHexError::Digit(at * 2 + 1))?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl FromStr for InfoHash {
    type Err = ParseHexError;

    /// Reads 40 hexadecimal digits in either case.
    fn from_str(text: &str) -> Result<Self, ParseHexError> {
        Self::from_hex(text.as_bytes())
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_in_both_cases() {
        let text = "0123456789abcdef0123456789ABCDEF01234567";
        let hash: InfoHash = text.parse().unwrap();
        assert_eq!(hash.to_string(), text.to_ascii_lowercase());
    }

    #[test]
    fn bad_hex_says_where() {
        assert_eq!("00".parse::<InfoHash>(), Err(ParseHexError::Length(2)));
        let text = format!("{}g0", "0".repeat(38));
        assert_eq!(text.parse::<InfoHash>(), Err(ParseHexError::Digit(38)));
    }

    #[test]
    fn forty_bytes_of_other_script_are_refused() {
        let text = "é".repeat(20);
        assert_eq!(text.parse::<InfoHash>(), Err(ParseHexError::Digit(0)));
    }
}
