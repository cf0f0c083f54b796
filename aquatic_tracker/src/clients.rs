//! Which programs announce, by the first characters of their peer ids (BEP 20). What is counted is bounded:
//! programs that are not in the table are counted together.

use aquatic_common::PeerId;
use aquatic_metrics::{CoreMetrics, Counter, Label, names};

/// Codes in peer ids of the form `-XX1234-`, in ascending order, with the value of the label.
const CLIENTS: [(&[u8; 2], &str); 30] = [
    (b"AZ", "vuze"),
    (b"BC", "bitcomet"),
    (b"BI", "biglybt"),
    (b"BT", "bittorrent"),
    (b"DE", "deluge"),
    (b"FD", "free_download_manager"),
    (b"FW", "frostwire"),
    (b"GT", "anacrolix"),
    (b"HL", "halite"),
    (b"KT", "ktorrent"),
    (b"LT", "libtorrent_rasterbar"),
    (b"LW", "limewire"),
    (b"MG", "mediaget"),
    (b"MO", "monotorrent"),
    (b"PI", "picotorrent"),
    (b"QD", "qqdownload"),
    (b"SD", "thunder"),
    (b"TL", "tribler"),
    (b"TR", "transmission"),
    (b"UE", "utorrent_embedded"),
    (b"UM", "utorrent_mac"),
    (b"UT", "utorrent"),
    (b"UW", "utorrent_web"),
    (b"WD", "webtorrent_desktop"),
    (b"WW", "webtorrent"),
    (b"XF", "xfplay"),
    (b"XL", "xunlei"),
    (b"ZO", "zona"),
    (b"lt", "libtorrent_rakshasa"),
    (b"qB", "qbittorrent"),
];

/// Position behind the table: aria2, whose ids begin with `A2-`.
const ARIA2: usize = CLIENTS.len();

/// Position of all others.
const OTHER: usize = ARIA2 + 1;

fn position_of(peer_id: &PeerId) -> usize {
    match &peer_id.0 {
        [b'-', first, second, ..] => {
            CLIENTS.binary_search_by_key(&[*first, *second], |(code, _)| **code).unwrap_or(OTHER)
        }
        [b'A', b'2', b'-', ..] => ARIA2,
        _ => OTHER,
    }
}

/// One core's counters of announces by program.
#[derive(Debug)]
pub struct ClientCounters([Counter; OTHER + 1]);

impl ClientCounters {
    /// Counters that start at zero.
    #[must_use]
    pub fn new(metrics: &CoreMetrics, protocol: Label) -> Self {
        let counter = |position: usize| {
            let name = match CLIENTS.get(position) {
                Some((_, name)) => name,
                None if position == ARIA2 => "aria2",
                None => "other",
            };
            metrics.counter(&names::ANNOUNCES_BY_CLIENT, &[protocol, ("client", name)])
        };
        Self(std::array::from_fn(counter))
    }

    /// Counts an announce.
    #[inline]
    pub fn add(&self, peer_id: &PeerId) {
        if let Some(counter) = self.0.get(position_of(peer_id)) {
            counter.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use aquatic_metrics::Registry;

    use super::*;

    #[test]
    fn the_table_is_in_order_and_its_names_are_labels() {
        assert!(CLIENTS.is_sorted_by(|(a, _), (b, _)| a < b));
        let is_label = |name: &str| {
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        assert!(CLIENTS.iter().all(|(_, name)| is_label(name)));
    }

    #[test]
    fn programs_are_counted_by_their_codes_and_the_rest_together() {
        let registry = Registry::default();
        let counters = ClientCounters::new(&registry.core(0), ("protocol", "udp"));
        let ids: [&[u8; 8]; 7] =
            [b"-qB4650-", b"-qB5000-", b"-TR4050-", b"A2-1-36-", b"-??0000-", b"-lt0D80-", &[0xff; 8]];
        for id in ids {
            let mut peer_id = PeerId([b'x'; 20]);
            peer_id.0[..8].copy_from_slice(id);
            counters.add(&peer_id);
        }
        let counted: Vec<_> = registry
            .samples()
            .into_iter()
            .filter(|sample| sample.value > 0)
            .map(|sample| (sample.label("client").unwrap(), sample.value))
            .collect();
        let expected =
            [("transmission", 1), ("libtorrent_rakshasa", 1), ("qbittorrent", 2), ("aria2", 1), ("other", 2)];
        assert_eq!(counted, expected);
    }
}
