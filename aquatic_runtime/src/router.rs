//! Questions to the cores that own the torrents, and their answers. Written once for all services: a UDP scrape of
//! several torrents and an HTTP announce ask the same way.

use std::fmt;

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// The channel to an owner is full: that core is overloaded.
    Overflow,
    /// An owner did not answer in time.
    Timeout,
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overflow => "the tracker is overloaded",
            Self::Timeout => "the tracker took too long",
        })
    }
}

impl std::error::Error for RouteError {}
