//! What encoders of all protocols say when a buffer is too small.

use std::fmt;

/// The buffer cannot hold the message. What is in it now, if anything was written, is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferTooSmall {
    /// How many bytes the message takes.
    pub needed: usize,
}

impl fmt::Display for BufferTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message takes {} bytes, which is more than the buffer has", self.needed)
    }
}

impl std::error::Error for BufferTooSmall {}
