//! Coarse time. Nothing outside the clock of `aquatic_runtime` reads the operating system's: everything else is handed
//! the current time as an argument.

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
