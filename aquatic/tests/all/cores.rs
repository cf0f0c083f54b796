//! Requests for torrents of another core, over one protocol while peers came over another.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use aquatic_common::{AnnounceEvent, InfoHash};

use crate::http;
use crate::support::{eventually, metric, torrent};
use crate::tracker::start_all;
use crate::udp;

const TORRENTS: u32 = 60;

/// Peers that have announced each torrent over UDP, by port.
const UDP_PORTS: [u16; 3] = [1001, 1002, 1003];

fn loopback(ports: impl IntoIterator<Item = u16>) -> BTreeSet<SocketAddr> {
    ports.into_iter().map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

/// Announces over both protocols in turn and asserts that replies carry the peers of both.
fn exchange(settings: &[&str], udp_is_forwarded: bool) {
    let (tracker, addresses) = start_all(None, &[&["workers=2"], settings].concat());
    let over_udp = udp::Client::connect(addresses.udp_v4);
    let mut over_http = http::Plain::connect(addresses.tcp_v4);
    let torrents: Vec<InfoHash> = (0..TORRENTS).map(torrent).collect();
    for info_hash in &torrents {
        for port in UDP_PORTS {
            over_udp.announce(*info_hash, port, AnnounceEvent::Started);
        }
    }
    for info_hash in &torrents {
        let response = over_http.get(&http::announce(info_hash, 2000, ""));
        assert_eq!(response.peers().into_iter().collect::<BTreeSet<_>>(), loopback(UDP_PORTS));
        assert_eq!(response.announce().incomplete, Some(4));
    }
    for info_hash in &torrents {
        let (peers, leechers) = over_udp.announce(*info_hash, 1001, AnnounceEvent::None);
        assert_eq!(peers.into_iter().collect::<BTreeSet<_>>(), loopback([1002, 1003, 2000]));
        assert_eq!(leechers, 4);
    }
    // One scrape over HTTP whose torrents belong to both cores.
    let files = over_http.get(&http::scrape(&torrents)).files();
    assert_eq!(files.len(), torrents.len());
    assert!(files.iter().all(|file| file.incomplete == 4));

    let counted = |name: &str| metric(tracker.metrics.unwrap(), name);
    // Counters reach the page within a second, together: also those of before the scrape.
    let scrapes = || counted("aquatic_responses_total{protocol=\"http\",action=\"scrape\"");
    eventually(scrapes, |scrapes| *scrapes == 1.0);
    let forwarded = |protocol| counted(&format!("aquatic_forwarded_total{{protocol=\"{protocol}\""));
    let (of_http, of_udp) = (forwarded("http"), forwarded("udp"));
    let few = f64::from(TORRENTS / 6);
    assert!(of_http > few, "about half of {TORRENTS} torrents belong to the other core, not {of_http}");
    assert_eq!(of_udp > few, udp_is_forwarded, "{of_udp} forwarded over UDP");
    let batches = |channel| counted(&format!("aquatic_channel_batches_total{{channel=\"{channel}\""));
    let (sent, requests) = (batches("tracker") + batches("udp"), of_http + of_udp);
    assert!(sent < requests / 2.0, "{sent} batches for {requests} requests, although the other core slept");
}

#[test]
fn http_reaches_the_peers_that_udp_has_left_on_another_core() {
    exchange(&[], false);
}

#[test]
fn without_steering_udp_reaches_those_of_http_as_well() {
    exchange(&["udp.steering=false"], true);
}
