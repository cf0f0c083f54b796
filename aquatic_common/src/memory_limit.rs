//! A maximum of memory, as a size or as a share of what there is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Units of sizes and their number of bytes.
const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A maximum of memory: `"512MiB"`, `"80%"`, or `""` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// No maximum.
    None,
    /// A number of bytes.
    Bytes(u64),
    /// A share of the memory that may be used, in percent, 1 to 100.
    Share(u8),
}

impl MemoryLimit {
    /// The maximum in bytes, given the memory that may be used.
    #[must_use]
    pub fn of(self, available: u64) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Share(percent) => Some(available / 100 * u64::from(percent)),
        }
    }
}

/// A text that is no maximum of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMemoryLimitError;

impl fmt::Display for ParseMemoryLimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "write a size such as \"512MiB\" or \"2GiB\", a share such as \"80%\", or \"\" for no maximum",
        )
    }
}

impl std::error::Error for ParseMemoryLimitError {}

impl FromStr for MemoryLimit {
    type Err = ParseMemoryLimitError;

    fn from_str(text: &str) -> Result<Self, ParseMemoryLimitError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::None);
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.trim_end().parse().ok().filter(|percent| (1..=100).contains(percent));
            return percent.map(Self::Share).ok_or(ParseMemoryLimitError);
        }
        let bytes = UNITS.iter().find_map(|(unit, bytes)| {
            let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
            number.checked_mul(*bytes).filter(|&bytes| bytes > 0)
        });
        bytes.map(Self::Bytes).ok_or(ParseMemoryLimitError)
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::None => Ok(()),
            Self::Share(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => {
                let whole = UNITS.iter().rev().find(|(_, unit)| bytes % unit == 0);
                let (name, unit) = whole.unwrap_or(&("KiB", 1 << 10));
                write!(f, "{}{name}", bytes / unit)
            }
        }
    }
}

impl Serialize for MemoryLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| serde::de::Error::custom(format!("{text:?} is no maximum of memory; {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_read_and_written() {
        for (text, limit) in [
            ("", MemoryLimit::None),
            ("512MiB", MemoryLimit::Bytes(512 << 20)),
            ("2GiB", MemoryLimit::Bytes(2 << 30)),
            ("100KiB", MemoryLimit::Bytes(100 << 10)),
            ("80%", MemoryLimit::Share(80)),
        ] {
            assert_eq!(text.parse(), Ok(limit), "{text}");
            assert_eq!(limit.to_string(), text);
        }
        assert_eq!(" 1024 MiB ".parse(), Ok(MemoryLimit::Bytes(1 << 30)));
        assert_eq!(MemoryLimit::Bytes(1 << 30).to_string(), "1GiB");
    }

    #[test]
    fn anything_else_is_an_error() {
        for text in
            ["0%", "101%", "-1%", "0MiB", "512", "512MB", "1.5GiB", "99999999999999GiB", "%", "MiB", "x"]
        {
            assert_eq!(text.parse::<MemoryLimit>(), Err(ParseMemoryLimitError), "{text}");
        }
    }

    #[test]
    fn a_share_is_of_what_is_available() {
        assert_eq!(MemoryLimit::Share(80).of(1000), Some(800));
        assert_eq!(MemoryLimit::Bytes(5).of(1000), Some(5));
        assert_eq!(MemoryLimit::None.of(1000), None);
    }
}
