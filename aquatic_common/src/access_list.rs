//! Which torrents the tracker serves.

use std::fmt;

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use crate::identity::{InfoHash, ParseHexError};

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

/// A set of info hashes and what being in it means.
#[derive(Clone, Debug, Default)]
pub struct AccessList {
    mode: AccessListMode,
    info_hashes: HashSet<InfoHash>,
}

/// A line of an access list file that is not an info hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub number: usize,
    /// What is wrong with it.
    pub error: ParseHexError,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.error)
    }
}

impl AccessList {
    /// Reads one info hash (40 hexadecimal digits) per line. Blank lines and lines that start with `#` are comments.
    /// Lines that cannot be read are skipped and returned beside the list; the caller decides what they mean.
    #[must_use]
    pub fn parse(mode: AccessListMode, text: &[u8]) -> (Self, Vec<BadLine>) {
        let mut info_hashes = HashSet::new();
        let mut bad_lines = Vec::new();
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.parse() {
                Ok(info_hash) => {
                    info_hashes.insert(info_hash);
                }
                Err(error) => bad_lines.push(BadLine { number: index + 1, error }),
            }
        }
        (Self { mode, info_hashes }, bad_lines)
    }

    /// Whether the tracker serves this torrent.
    #[must_use]
    pub fn allows(&self, info_hash: &InfoHash) -> bool {
        match self.mode {
            AccessListMode::Off => true,
            AccessListMode::Allow => self.info_hashes.contains(info_hash),
            AccessListMode::Deny => !self.info_hashes.contains(info_hash),
        }
    }

    /// How many info hashes are on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.info_hashes.len()
    }

    /// Whether no info hash is on the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.info_hashes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "00000000000000000000000000000000000000aa";

    fn list(mode: AccessListMode) -> AccessList {
        AccessList::parse(mode, LISTED.as_bytes()).0
    }

    #[test]
    fn modes_decide() {
        let listed = LISTED.parse().unwrap();
        let other = InfoHash([7; 20]);
        assert!(list(AccessListMode::Off).allows(&listed) && list(AccessListMode::Off).allows(&other));
        assert!(list(AccessListMode::Allow).allows(&listed) && !list(AccessListMode::Allow).allows(&other));
        assert!(!list(AccessListMode::Deny).allows(&listed) && list(AccessListMode::Deny).allows(&other));
    }

    #[test]
    fn bad_lines_are_numbered_and_skipped() {
        let mut text = format!("# comment\r\n\n{LISTED}\r\nxyz\n  {LISTED}  \n").into_bytes();
        text.push(0xff);
        let (list, bad) = AccessList::parse(AccessListMode::Allow, &text);
        assert_eq!(list.len(), 1);
        let numbers: Vec<usize> = bad.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [4, 6]);
        assert_eq!(bad[0].to_string(), "line 4: expected 40 hexadecimal digits, got 3 characters");
    }
}
