//! Coarse time. Nothing outside the clock of `aquatic_runtime` reads the operating system's: everything else
//! is handed the current time as an argument.

use std::ops::{Add, Sub};

/// Whole seconds since the tracker started. Differences saturate at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u32);

impl Add<u32> for Seconds {
    type Output = Self;

    fn add(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

impl Sub for Seconds {
    type Output = u32;

    fn sub(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// An interval shortened by up to this many percent, the more the larger the random number is. Shortened
/// rather than made longer, so that a peer age of twice the interval keeps its meaning.
#[must_use]
pub fn shorten(longest: u32, percent: u32, random: u32) -> u32 {
    let share = u64::from(longest) * u64::from(percent.min(100)) / 100;
    let by = ((share + 1) * u64::from(random)) >> 32;
    longest.saturating_sub(u32::try_from(by).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_shortened_by_no_more_than_the_share() {
        assert_eq!((shorten(1800, 10, 0), shorten(1800, 10, u32::MAX)), (1800, 1620));
        assert_eq!(shorten(1800, 10, u32::MAX / 2), 1710);
        assert_eq!((shorten(1800, 0, u32::MAX), shorten(7, 10, u32::MAX)), (1800, 7));
        assert_eq!(shorten(u32::MAX, 100, u32::MAX), 0);
    }
}
