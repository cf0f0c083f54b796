//! Lists of processors in configurations, written as the kernel writes them: `0-3,8`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Largest processor number: the affinity masks of the C library have 1024 bits.
pub const MAX_PROCESSOR: usize = 1023;

/// A list of processors without duplicates, in the order in which they are used. An empty list selects all
/// processors that are available to the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processors(Vec<usize>);

impl Processors {
    /// Numbers of the processors, as the operating system counts them.
    #[must_use]
    pub fn numbers(&self) -> &[usize] {
        &self.0
    }

    /// Whether the list selects all processors that are available.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }
}

/// Keeps the first of equal numbers.
impl FromIterator<usize> for Processors {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut list = Vec::new();
        for number in numbers {
            if !list.contains(&number) {
                list.push(number);
            }
        }
        Self(list)
    }
}

/// A text that is not a list of processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessorsError {
    /// A part between commas that is neither a number nor a range.
    Malformed(String),
    /// A number above [`MAX_PROCESSOR`].
    TooLarge(usize),
    /// A range that ends below its start.
    Reversed(usize, usize),
    /// A processor that is listed twice.
    Duplicate(usize),
}

impl fmt::Display for ProcessorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(part) => {
                write!(
                    f,
                    "{part:?} is neither a processor number nor a range; write a list such as \"0-3,8\""
                )
            }
            Self::TooLarge(number) => {
                write!(f, "processor {number} is out of bounds, choose from 0 to {MAX_PROCESSOR}")
            }
            Self::Reversed(first, last) => {
                write!(f, "the range {first}-{last} ends below its start; write {last}-{first}")
            }
            Self::Duplicate(number) => write!(f, "processor {number} is listed twice"),
        }
    }
}

impl std::error::Error for ProcessorsError {}

impl FromStr for Processors {
    type Err = ProcessorsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = Vec::new();
        if text.trim().is_empty() {
            return Ok(Self(numbers));
        }
        for part in text.split(',') {
            let (first, last) = range(part.trim())?;
            for number in first..=last {
                if numbers.contains(&number) {
                    return Err(ProcessorsError::Duplicate(number));
                }
                numbers.push(number);
            }
        }
        Ok(Self(numbers))
    }
}

/// First and last processor of `3` or `0-3`.
fn range(part: &str) -> Result<(usize, usize), ProcessorsError> {
    let number = |text: &str| {
        let text = text.trim();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let malformed = || ProcessorsError::Malformed(part.to_owned());
        if !is_number {
            return Err(malformed());
        }
        match text.parse().map_err(|_| malformed())? {
            number @ ..=MAX_PROCESSOR => Ok(number),
            number => Err(ProcessorsError::TooLarge(number)),
        }
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    match (number(first)?, number(last)?) {
        (first, last) if first > last => Err(ProcessorsError::Reversed(first, last)),
        range => Ok(range),
    }
}

impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.0.chunk_by(|before, number| before + 1 == *number);
        for (at, range) in ranges.enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match range {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [one] => write!(f, "{comma}{one}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

impl Serialize for Processors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Processors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_are_read_in_order() {
        for (text, numbers, shown) in [
            ("", &[][..], ""),
            ("5", &[5], "5"),
            ("0-3,8", &[0, 1, 2, 3, 8], "0-3,8"),
            (" 8 , 2 - 3 ", &[8, 2, 3], "8,2-3"),
            ("1,2,3,0", &[1, 2, 3, 0], "1-3,0"),
            ("1023", &[1023], "1023"),
        ] {
            let processors: Processors = text.parse().unwrap();
            assert_eq!(processors.numbers(), numbers, "{text:?}");
            assert_eq!(processors.to_string(), shown);
            assert_eq!(shown.parse::<Processors>().unwrap(), processors);
            assert_eq!(processors.is_all(), numbers.is_empty());
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for (text, error) in [
            ("a", ProcessorsError::Malformed("a".to_owned())),
            ("1,", ProcessorsError::Malformed(String::new())),
            ("1-", ProcessorsError::Malformed("1-".to_owned())),
            ("-1", ProcessorsError::Malformed("-1".to_owned())),
            ("0-1-2", ProcessorsError::Malformed("0-1-2".to_owned())),
            ("+1", ProcessorsError::Malformed("+1".to_owned())),
            ("99999999999999999999", ProcessorsError::Malformed("99999999999999999999".to_owned())),
            ("0-1024", ProcessorsError::TooLarge(1024)),
            ("3-1", ProcessorsError::Reversed(3, 1)),
            ("0-3,2", ProcessorsError::Duplicate(2)),
        ] {
            assert_eq!(text.parse::<Processors>(), Err(error), "{text:?}");
        }
    }
}
