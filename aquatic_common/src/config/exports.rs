//! Settings of exported files.

use std::path::PathBuf;

use crate::settings::Problem;

crate::choice! {
    /// Format of the exported file.
    #[derive(Default)]
    pub enum ExportFormat {
        /// Full scrape as of BEP 48.
        #[default]
        Bencode = "bencode",
        /// Lines of info hash, seeders, leechers and completed downloads.
        Text = "text",
    }
}

crate::choice! {
    /// Compression of the exported file.
    #[derive(Default)]
    pub enum ExportCompression {
        /// None.
        None = "none",
        /// That of gzip.
        #[default]
        Gzip = "gzip",
    }
}

crate::settings! {
    /// Export of a full scrape: the counts of all torrents of all protocols, in a file. Cores hand them out
    /// in steps of 0.2 ms between requests, about 0.15 s of each million torrents; a thread of low priority
    /// sorts and writes them, for which it takes 12 MB of memory, twice 35 MB of disk per million torrents,
    /// and a second or two of processor time.
    pub struct ExportsConfig, section "exports" {
        /// File that is replaced by each export, readable for everyone. Its directory must exist and be
        /// writable for the user that the tracker runs as. If there is something else than a regular file at
        /// the path, such as a symbolic link, or if another setting names it, the tracker does not start. If
        /// empty, nothing is exported.
        pub path: PathBuf = PathBuf::new();
        /// Time between two exports. The first comes after that time.
        pub interval: u32 = 3600, unit "seconds", in 1..=604_800;
        /// "bencode" is a scrape reply of all torrents (BEP 48), "text" has a line for each torrent: info
        /// hash in hexadecimal, seeders, leechers and completed downloads, separated by tabs.
        pub format: ExportFormat = ExportFormat::Bencode;
        /// "gzip" or "none".
        pub compression: ExportCompression = ExportCompression::Gzip;
    }
}

impl ExportsConfig {
    /// Directory and name of the file; `None` if nothing is exported.
    #[must_use]
    pub fn file(&self) -> Option<(PathBuf, String)> {
        let name = self.path.file_name()?.to_str()?.to_owned();
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Some((directory.map_or_else(|| PathBuf::from("."), PathBuf::from), name))
    }

    /// Reports a path that names no file.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        if !self.path.as_os_str().is_empty() && self.file().is_none() {
            let text = format!("{:?} does not end with the name of a file", self.path);
            problems.push(Problem::new(Self::path, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_file_in_a_directory() {
        let with = |path: &str| ExportsConfig { path: path.into(), ..ExportsConfig::default() };
        for (path, directory, name) in [("/a/b.gz", "/a", "b.gz"), ("b", ".", "b"), ("/b", "/", "b")] {
            assert_eq!(with(path).file(), Some((directory.into(), name.to_owned())));
        }
        for (path, count) in [("", 0), ("/a/b", 0), ("..", 1), ("/", 1)] {
            let mut problems = Vec::new();
            with(path).check(&mut problems);
            assert_eq!(problems.len(), count, "{path}");
        }
    }
}
