//! Stands in for the types of `aquatic_swarm` until that crate has them.

use aquatic_common::Family;

/// Families a question covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilySet(pub u8);

impl FamilySet {
    /// One family.
    #[must_use]
    pub fn only(family: Family) -> Self {
        Self(1 << family.index())
    }
}

/// Counts of one torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwarmCounts {
    /// Seeders.
    pub complete: u32,
    /// Leechers.
    pub incomplete: u32,
    /// Finished downloads.
    pub downloaded: u32,
}

/// The torrents of one core.
#[derive(Debug, Default)]
pub struct Shard;
