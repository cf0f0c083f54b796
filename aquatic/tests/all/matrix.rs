//! Who sees whom: every way to announce against every way to ask.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aquatic_common::{AnnounceEvent, Family, InfoHash};

use crate::peers::{Peer, Route, peer_id};
use crate::support::{STOP, torrent};
use crate::tracker::{Certificate, start_all};

/// Torrents per pair, so that both cores own some of them.
const TORRENTS: u32 = 4;

/// Numbers of the two peers of a pair.
const ANNOUNCER: u16 = 1000;
const READER: u16 = 2000;

fn address(family: Family, port: u16) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, port)
}

/// Has both peers of a pair join a swarm and leave it, and asserts what each is told. Returns what the reader
/// is told: whether of the announcer, and how many peers a scrape counts.
fn meet(
    (announcer_route, announcer): (Route, &mut dyn Peer),
    (reader_route, reader): (Route, &mut dyn Peer),
    torrent: InfoHash,
) -> (bool, u32) {
    let pair = format!("announced over {}, read over {}", announcer_route.name(), reader_route.name());
    let first = announcer.announce(torrent, AnnounceEvent::Started);
    assert_eq!((first.peers.len(), first.leechers), (0, 1), "{pair}: the first peer is alone");

    let sees = reader_route.sees(announcer_route);
    assert_eq!(reader.scrape(torrent), u32::from(sees), "{pair}: a scrape before the reader has joined");
    let reply = reader.announce(torrent, AnnounceEvent::Started);
    assert_eq!(reply.leechers, 1 + u32::from(sees), "{pair}: the counts of the announce reply");
    let expected = address(announcer_route.family(), ANNOUNCER);
    let returned: &[SocketAddr] = if sees && !reader_route.is_webtorrent() { &[expected] } else { &[] };
    assert_eq!(reply.peers, returned, "{pair}: the peers of the announce reply");
    if sees && reader_route.is_webtorrent() {
        assert_eq!(announcer.offer(), peer_id(READER), "{pair}: the reader's offer");
    }
    let counted = reader.scrape(torrent);
    assert_eq!(counted, 1 + u32::from(sees), "{pair}: a scrape by the reader");
    let seen_back = u32::from(announcer_route.sees(reader_route));
    assert_eq!(announcer.scrape(torrent), 1 + seen_back, "{pair}: a scrape by the announcer");

    announcer.announce(torrent, AnnounceEvent::Stopped);
    assert_eq!(reader.scrape(torrent), 1, "{pair}: a scrape after the announcer has left");
    reader.announce(torrent, AnnounceEvent::Stopped);
    for counted in [announcer.scrape(torrent), reader.scrape(torrent)] {
        assert_eq!(counted, 0, "{pair}: a scrape after both have left");
    }
    (sees, counted)
}

/// Connections are opened at the begin and may wait long before their first request, on a busy machine.
const PATIENCE: [&str; 4] = [
    "connections.handshake_timeout=600",
    "connections.request_timeout=600",
    "connections.max_connection_idle=3600",
    "ws.client.idle_timeout=3600",
];

/// Runs all pairs against one tracker and returns the table of what was seen.
fn matrix(settings: &[&str]) -> String {
    let certificate = Certificate::new();
    let (tracker, addresses) = start_all(Some(&certificate), &[&PATIENCE, settings].concat());
    let connect = |number| {
        let connect = |route: Route| route.connect(&addresses, &certificate, number);
        Route::ALL.map(connect)
    };
    let (mut announcers, mut readers) = (connect(ANNOUNCER), connect(READER));
    let mut table = format!("{:<18}", "announced, read:");
    Route::ALL.iter().for_each(|route| write!(table, "{:>9}", route.name()).unwrap());
    let mut number = 0;
    for (announcer_route, announcer) in Route::ALL.iter().zip(&mut announcers) {
        write!(table, "\n{:<18}", announcer_route.name()).unwrap();
        for (reader_route, reader) in Route::ALL.iter().zip(&mut readers) {
            let mut seen = None;
            for _ in 0..TORRENTS {
                let (announcer, reader) = (&mut **announcer, &mut **reader);
                seen = Some(meet((*announcer_route, announcer), (*reader_route, reader), torrent(number)));
                number += 1;
            }
            let (sees, counted) = seen.unwrap();
            write!(table, "{:>9}", format!("{} {counted}", if sees { "yes" } else { "-" })).unwrap();
        }
    }
    drop((announcers, readers));
    tracker.signal("TERM");
    assert_eq!(tracker.end_within(2 * STOP).0, Some(0));
    table
}

fn run(settings: &[&str]) {
    let table = matrix(settings);
    println!(
        "\naquatic all, {}: whether the reader is told of the announcer, and how many of the two it counts\n{table}",
        settings.join(", ")
    );
}

#[test]
fn every_pair_meets_on_one_core() {
    run(&["workers=1"]);
}

#[test]
fn every_pair_meets_on_two_cores() {
    run(&["workers=2"]);
}

#[test]
fn every_pair_meets_on_two_cores_without_steering() {
    run(&["workers=2", "udp.steering=false"]);
}

#[test]
fn an_address_is_one_peer_whichever_protocol_announces_it() {
    let certificate = Certificate::new();
    let (_tracker, addresses) = start_all(Some(&certificate), &["workers=2"]);
    let connect = |route: Route, number| route.connect(&addresses, &certificate, number);
    for family in Family::ALL {
        let mut over_udp = connect(Route::Udp(family), ANNOUNCER);
        let mut over_http = connect(Route::Http(family), ANNOUNCER);
        let mut over_https = connect(Route::Https(family), ANNOUNCER);
        for number in 0..8 {
            let torrent = torrent(number + 100 * u32::from(family == Family::V6));
            for peer in [&mut over_udp, &mut over_http, &mut over_https] {
                let reply = peer.announce(torrent, AnnounceEvent::Started);
                assert_eq!((reply.peers, reply.leechers), (vec![], 1), "the client is not told of itself");
            }
            // It leaves over another protocol than it came.
            over_http.announce(torrent, AnnounceEvent::Stopped);
            assert_eq!(over_udp.scrape(torrent), 0);
        }
    }
}
