//! Lists of ports in configurations: `0-1023,6881`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Maximum number of separate ranges of a list, which is searched for each announce.
pub const MAX_RANGES: usize = 1000;

/// A set of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Sorted, and apart from each other by at least one port.
    ranges: Vec<RangeInclusive<u16>>,
}

impl Ports {
    /// Returns whether a port is in the set.
    #[inline]
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        let before = self.ranges.partition_point(|range| *range.end() < port);
        self.ranges.get(before).is_some_and(|range| range.contains(&port))
    }

    /// Returns whether all ports are in the set that a peer can have: from 1 to 65535.
    #[must_use]
    pub fn has_all(&self) -> bool {
        self.ranges.iter().any(|range| *range.start() <= 1 && *range.end() == u16::MAX)
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// Joins ranges that overlap or touch.
impl FromIterator<RangeInclusive<u16>> for Ports {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        sorted.sort_unstable_by_key(|range| *range.start());
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for range in sorted {
            match ranges.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                Some(_) | None => ranges.push(range),
            }
        }
        Self { ranges }
    }
}

/// A text that is not a list of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortsError {
    /// A part between commas that is neither a port nor a range of ports.
    Malformed(String),
    /// A range that ends below its start.
    Reversed(u16, u16),
    /// More ranges than [`MAX_RANGES`].
    TooMany(usize),
}

impl fmt::Display for PortsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(part) => write!(
                f,
                "{part:?} is neither a port from 0 to 65535 nor a range; write a list such as \"0-1023,6881\""
            ),
            Self::Reversed(first, last) => {
                write!(f, "the range {first}-{last} ends below its start; write {last}-{first}")
            }
            Self::TooMany(ranges) => {
                write!(f, "{ranges} separate ranges are more than {MAX_RANGES}; join some of them")
            }
        }
    }
}

impl std::error::Error for PortsError {}

impl FromStr for Ports {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let ports: Self = text.split(',').map(|part| range(part.trim())).collect::<Result<_, _>>()?;
        match ports.ranges.len() {
            ranges if ranges > MAX_RANGES => Err(PortsError::TooMany(ranges)),
            _ => Ok(ports),
        }
    }
}

/// First and last port of `3` or `0-3`.
fn range(part: &str) -> Result<RangeInclusive<u16>, PortsError> {
    let number = |text: &str| {
        let text = text.trim();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let port = if is_number { text.parse().ok() } else { None };
        port.ok_or_else(|| PortsError::Malformed(part.to_owned()))
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    match (number(first)?, number(last)?) {
        (first, last) if first > last => Err(PortsError::Reversed(first, last)),
        (first, last) => Ok(first..=last),
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.ranges.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read_and_joined() {
        for (text, shown, inside, outside) in [
            ("", "", &[][..], &[0, 1, 65_535][..]),
            ("25", "25", &[25], &[24, 26, 0]),
            ("0-1023,6881", "0-1023,6881", &[0, 500, 1023, 6881], &[1024, 6880, 6882, 65_535]),
            (" 9 , 2 - 3 ", "2-3,9", &[2, 3, 9], &[1, 4, 8, 10]),
            ("1-5,3-4,6,8", "1-6,8", &[1, 6, 8], &[0, 7, 9]),
            ("65535,0", "0,65535", &[0, 65_535], &[1, 65_534]),
            ("0-65535,7", "0-65535", &[0, 7, 65_535], &[]),
            ("2-65535,1", "1-65535", &[1, 7, 65_535], &[]),
            ("0-65534", "0-65534", &[0, 65_534], &[65_535]),
            ("2-65535", "2-65535", &[2, 65_535], &[1]),
        ] {
            let ports: Ports = text.parse().unwrap();
            assert_eq!(ports.to_string(), shown, "{text:?}");
            assert_eq!(shown.parse::<Ports>().unwrap(), ports);
            assert!(inside.iter().all(|port| ports.contains(*port)), "{text:?}");
            assert!(!outside.iter().any(|port| ports.contains(*port)), "{text:?}");
            assert_eq!(ports.is_empty(), inside.is_empty());
            assert_eq!(ports.has_all(), outside.is_empty());
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for (text, error) in [
            ("http", PortsError::Malformed("http".to_owned())),
            ("1,", PortsError::Malformed(String::new())),
            ("1-", PortsError::Malformed("1-".to_owned())),
            ("-1", PortsError::Malformed("-1".to_owned())),
            ("1-2-3", PortsError::Malformed("1-2-3".to_owned())),
            ("65536", PortsError::Malformed("65536".to_owned())),
            ("3-1", PortsError::Reversed(3, 1)),
        ] {
            assert_eq!(text.parse::<Ports>(), Err(error), "{text:?}");
        }
        let many: Vec<String> = (0..=MAX_RANGES).map(|number| (2 * number).to_string()).collect();
        assert_eq!(many.join(",").parse::<Ports>(), Err(PortsError::TooMany(MAX_RANGES + 1)));
    }
}
