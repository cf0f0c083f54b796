//! What somebody may have meant.

use strsim::damerau_levenshtein;

/// Most keys offered at a time.
const MAX_OFFERS: usize = 3;

/// Shortest name that counts as meant when it is a whole word of the unknown one: `workers` in
/// `socket_workers`.
const MIN_WORD: usize = 5;

/// The names nearest to `unknown` out of `known`, both full names such as `network.use_ipv4`. Names in the
/// same section win over equally near ones elsewhere. Empty if nothing is near.
pub(crate) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let (section, key) = split(unknown);
    let mut best = usize::MAX;
    let mut offers: Vec<&str> = Vec::new();
    for name in known {
        let (other_section, other_key) = split(name);
        let Some(distance) = distance(key, other_key) else { continue };
        let rank = 2 * distance + usize::from(section != other_section);
        if rank < best {
            best = rank;
            offers.clear();
        }
        if rank == best {
            offers.push(name);
        }
    }
    offers.truncate(MAX_OFFERS);
    offers
}

/// Splits the full name of a key into section and key.
pub(crate) fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

fn distance(unknown: &str, known: &str) -> Option<usize> {
    let allowed = (known.len() / 3).max(1);
    let distance = damerau_levenshtein(&unknown.to_lowercase().replace('-', "_"), known);
    if distance <= allowed {
        Some(distance)
    } else if known.len() >= MIN_WORD && has_words(unknown, known) {
        Some(allowed + 1)
    } else {
        None
    }
}

/// Whether `words` stands in `name` between underscores or ends.
fn has_words(name: &str, words: &str) -> bool {
    format!("_{name}_").contains(&format!("_{words}_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 6] = [
        "workers",
        "network.use_ipv4",
        "network.use_ipv6",
        "cleaning.interval",
        "statistics.interval",
        "cleaning.max_peer_age",
    ];

    fn offers(unknown: &str) -> Vec<&'static str> {
        nearest(unknown, KNOWN.into_iter())
    }

    #[test]
    fn near_misses_are_found_in_the_same_section_first() {
        assert_eq!(offers("network.use_ip4"), ["network.use_ipv4"]);
        assert_eq!(offers("network.use_ipv5"), ["network.use_ipv4", "network.use_ipv6"]);
        assert_eq!(offers("cleaning.intervall"), ["cleaning.interval"]);
        assert_eq!(offers("cleaning.Max-Peer-Age"), ["cleaning.max_peer_age"]);
    }

    #[test]
    fn keys_of_other_sections_are_found() {
        assert_eq!(offers("use_ipv4"), ["network.use_ipv4"]);
        assert_eq!(offers("interval"), ["cleaning.interval", "statistics.interval"]);
        assert_eq!(offers("cleaning.max_per_age"), ["cleaning.max_peer_age"]);
    }

    #[test]
    fn whole_words_count_and_nonsense_does_not() {
        assert_eq!(offers("socket_workers"), ["workers"]);
        assert_eq!(offers("network.mtu"), [""; 0]);
        assert_eq!(offers("statistics.html_file_path"), [""; 0]);
    }
}
