//! Resources of a tracker and the paths that name them.

use crate::query::{decode_percent, has_info_hash};

/// Resource of a tracker that a request target names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackerRoute {
    /// Announces: the last segment of the path is `announce` or `announce.php`.
    Announce,
    /// Scrapes: the last segment of the path is `scrape` or `scrape.php`, which is how clients derive it from
    /// the announce URL (BEP 48).
    Scrape,
    /// Health checks: the path is `/health`.
    Health,
    /// None of them, although the query has an `info_hash`: the request of a client with a wrong announce
    /// URL.
    WrongAnnounceUrl,
    /// None of them.
    Other,
}

/// Longest segment that names a resource, in decoded bytes, with some white space behind it.
const MAX_SEGMENT: usize = 16;

impl TrackerRoute {
    /// Resource that the path and the query of a target name, both as they were sent.
    ///
    /// Announce URLs are typed in by people and changed by proxies, so for announces and scrapes only the
    /// last segment counts, in any case. It may be percent-encoded and have `.php`, slashes and white space
    /// behind it, and any other segments, including empty ones, in front of it.
    #[must_use]
    pub fn classify(path: &[u8], query: &[u8]) -> Self {
        match path {
            b"/announce" => Self::Announce,
            b"/scrape" => Self::Scrape,
            b"/health" => Self::Health,
            _ => Self::classify_variant(path, query),
        }
    }

    #[cold]
    fn classify_variant(path: &[u8], query: &[u8]) -> Self {
        let mut buffer = [0; MAX_SEGMENT];
        let (segments, last) = last_segment(path, &mut buffer);
        let name = match last.split_last_chunk::<4>() {
            Some((name, extension)) if extension.eq_ignore_ascii_case(b".php") => name,
            _ => last,
        };
        if name.eq_ignore_ascii_case(b"announce") {
            Self::Announce
        } else if name.eq_ignore_ascii_case(b"scrape") {
            Self::Scrape
        } else if segments == 1 && name.eq_ignore_ascii_case(b"health") {
            Self::Health
        } else if has_info_hash(query) {
            Self::WrongAnnounceUrl
        } else {
            Self::Other
        }
    }
}

/// Number of segments of a path, and the decoded last one without white space at its end; segments that are
/// empty or white space do not count. A segment that does not fit into the buffer is returned as an empty
/// one.
fn last_segment<'a>(mut path: &[u8], buffer: &'a mut [u8; MAX_SEGMENT]) -> (usize, &'a [u8]) {
    let (mut segments, mut length, mut between) = (0, 0, true);
    while let Some((byte, rest)) = decode_percent(path) {
        path = rest;
        if byte == b'/' {
            between = true;
        } else if !(between && byte.is_ascii_whitespace()) {
            if between {
                (segments, length, between) = (segments + 1, 0, false);
            }
            if let Some(slot) = buffer.get_mut(length) {
                *slot = byte;
            }
            length += 1;
        }
    }
    (segments, buffer.get(..length).unwrap_or_default().trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify(target: &str) -> TrackerRoute {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        TrackerRoute::classify(path.as_bytes(), query.as_bytes())
    }

    #[test]
    fn any_path_that_ends_in_announce_or_scrape() {
        for prefix in ["", "/", "/x", "/x/y/", "/announce.", "/scrape/", "/%2F", "/%C3%A9", "/a+b"] {
            for suffix in ["", "/", "//", " ", "%20", "%20/", "/%20", ".php", ".PHP/", "%2ephp", "%2F"] {
                for (name, route) in [
                    ("announce", TrackerRoute::Announce),
                    ("Announce", TrackerRoute::Announce),
                    ("ANNOUNCE", TrackerRoute::Announce),
                    ("%61nnounc%65", TrackerRoute::Announce),
                    ("scrape", TrackerRoute::Scrape),
                    ("sCrape", TrackerRoute::Scrape),
                ] {
                    let target = format!("{prefix}/{name}{suffix}");
                    assert_eq!(classify(&target), route, "{target}");
                    assert_eq!(classify(&format!("{target}?x")), route, "{target}");
                }
            }
        }
    }

    #[test]
    fn other_paths_by_their_query() {
        for path in [
            "",
            "/",
            "*",
            "/announcer",
            "/announce.html",
            "/announce/x",
            "/announce.php.php",
            "/announce%2Fx",
            "/+announce",
            "/announce+",
            "/an/nounce",
            "/announce%",
            "/x/health",
            "/healthy",
            "/index.php",
            "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaannounce",
        ] {
            assert_eq!(classify(path), TrackerRoute::Other, "{path}");
            assert_eq!(classify(&format!("{path}?port=1")), TrackerRoute::Other, "{path}");
            for query in ["info_hash=x", "port=1&Info_Hash=x", "info_hash", "a=b?info_hash=x"] {
                let target = format!("{path}?{query}");
                assert_eq!(classify(&target), TrackerRoute::WrongAnnounceUrl, "{target}");
            }
        }
    }

    #[test]
    fn health_has_one_segment() {
        for path in ["/health", "/health/", "//health", "/Health", "/%68ealth"] {
            assert_eq!(classify(path), TrackerRoute::Health, "{path}");
        }
    }
}
