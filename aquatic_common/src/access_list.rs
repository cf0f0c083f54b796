//! Access list: the torrents the tracker serves, or does not serve.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::{InfoHash, ParseHexError};
use crate::info_hash_set::{InfoHashSet, SetChange};
use crate::list::ListEntry;

/// How the access list is applied, to announces and scrapes alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessListMode {
    /// Serve every torrent.
    #[default]
    Off,
    /// Serve only torrents on the list.
    Allow,
    /// Serve every torrent that is not on the list.
    Deny,
}

/// A set of info hashes, and whether these or all others are served.
///
/// What has been decided by hand about single torrents goes over that. A copy shares the set.
#[derive(Clone, Debug, Default)]
pub struct AccessList {
    mode: AccessListMode,
    info_hashes: Arc<InfoHashSet>,
    /// Decisions by hand, in the order of the info hashes.
    by_hand: Vec<(InfoHash, bool)>,
}

impl AccessList {
    /// An access list of these info hashes.
    #[must_use]
    pub fn new(mode: AccessListMode, info_hashes: InfoHashSet) -> Self {
        Self { mode, info_hashes: Arc::new(info_hashes), by_hand: Vec::new() }
    }

    /// The list with these decisions by hand, of which there should be few, in place of its own: torrents,
    /// and whether they are served.
    #[must_use]
    pub fn with_decisions(&self, mut by_hand: Vec<(InfoHash, bool)>) -> Self {
        by_hand.sort_unstable();
        Self { by_hand, ..self.clone() }
    }

    /// Whether every torrent is served.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        self.mode == AccessListMode::Off && self.by_hand.is_empty()
    }

    /// Whether the tracker serves this torrent.
    #[must_use]
    pub fn allows(&self, info_hash: &InfoHash) -> bool {
        if !self.by_hand.is_empty()
            && let Ok(at) = self.by_hand.binary_search_by_key(info_hash, |(decided, _)| *decided)
        {
            return self.by_hand.get(at).is_some_and(|(_, allowed)| *allowed);
        }
        match self.mode {
            AccessListMode::Off => true,
            AccessListMode::Allow => self.info_hashes.contains(info_hash),
            AccessListMode::Deny => !self.info_hashes.contains(info_hash),
        }
    }

    /// How the list is applied.
    #[must_use]
    pub fn mode(&self) -> AccessListMode {
        self.mode
    }

    /// Number of info hashes on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.info_hashes.len()
    }

    /// Whether no info hash is on the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.info_hashes.is_empty()
    }

    /// Number of info hashes added and removed relative to an older list; one pass over both.
    #[must_use]
    pub fn change_since(&self, old: &Self) -> SetChange {
        self.info_hashes.change_since(&old.info_hashes)
    }
}

impl ListEntry for InfoHash {
    type Error = ParseHexError;

    const NAMES: (&'static str, &'static str) = ("info hash", "info hashes");
    const MAX_LEN: usize = InfoHashSet::MAX_LEN;
    const MIN_LINE_BYTES: u64 = 41;

    fn from_word(word: &[u8], len: usize) -> Result<Self, ParseHexError> {
        if word.len() == len { Self::from_hex(word) } else { Err(ParseHexError::Length(len)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_decide() {
        let (listed, other) = (InfoHash([1; 20]), InfoHash([7; 20]));
        let served = |mode| {
            let list = AccessList::new(mode, [listed].into_iter().collect());
            (list.allows(&listed), list.allows(&other))
        };
        assert_eq!(served(AccessListMode::Off), (true, true));
        assert_eq!(served(AccessListMode::Allow), (true, false));
        assert_eq!(served(AccessListMode::Deny), (false, true));
    }

    #[test]
    fn decisions_by_hand_go_over_the_list() {
        let (listed, other) = (InfoHash([1; 20]), InfoHash([7; 20]));
        for mode in [AccessListMode::Off, AccessListMode::Allow, AccessListMode::Deny] {
            let list = AccessList::new(mode, [listed].into_iter().collect());
            let plain = (list.allows(&listed), list.allows(&other));
            let turned = list.with_decisions(vec![(other, !plain.1), (listed, !plain.0)]);
            assert_eq!((turned.allows(&listed), turned.allows(&other)), (!plain.0, !plain.1), "{mode:?}");
            assert!(!turned.allows_all());
            let again = turned.with_decisions(Vec::new());
            assert_eq!((again.allows(&listed), again.allows(&other)), plain, "{mode:?}");
            assert_eq!(again.allows_all(), mode == AccessListMode::Off);
        }
    }
}
