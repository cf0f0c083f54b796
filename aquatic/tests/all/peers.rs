//! Clients of all protocols behind one trait.

use std::io::{Read, Write};
use std::net::SocketAddr;

use aquatic_common::{AnnounceEvent, Family, InfoHash, PeerId};

use crate::tracker::{Addresses, Certificate};
use crate::{http, udp, ws};

/// A way to reach the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Udp(Family),
    Http(Family),
    Https(Family),
    Ws(Family),
    Wss(Family),
}

use Family::{V4, V6};

impl Route {
    pub(crate) const ALL: [Self; 10] = [
        Self::Udp(V4),
        Self::Udp(V6),
        Self::Http(V4),
        Self::Http(V6),
        Self::Https(V4),
        Self::Https(V6),
        Self::Ws(V4),
        Self::Ws(V6),
        Self::Wss(V4),
        Self::Wss(V6),
    ];

    pub(crate) fn name(self) -> String {
        let (name, family) = match self {
            Self::Udp(family) => ("UDP", family),
            Self::Http(family) => ("HTTP", family),
            Self::Https(family) => ("HTTPS", family),
            Self::Ws(family) => ("ws", family),
            Self::Wss(family) => ("wss", family),
        };
        format!("{name} {}", if family == V4 { "v4" } else { "v6" })
    }

    pub(crate) fn family(self) -> Family {
        match self {
            Self::Udp(family)
            | Self::Http(family)
            | Self::Https(family)
            | Self::Ws(family)
            | Self::Wss(family) => family,
        }
    }

    pub(crate) fn is_webtorrent(self) -> bool {
        matches!(self, Self::Ws(_) | Self::Wss(_))
    }

    /// Whether replies over this route carry and count a peer that announced over `other`.
    pub(crate) fn sees(self, other: Self) -> bool {
        match self {
            Self::Udp(family) => !other.is_webtorrent() && other.family() == family,
            Self::Http(_) | Self::Https(_) => !other.is_webtorrent(),
            Self::Ws(_) | Self::Wss(_) => other.is_webtorrent(),
        }
    }

    /// Connects a client whose peer has this number, which is its port.
    pub(crate) fn connect(
        self,
        tracker: &Addresses,
        certificate: &Certificate,
        number: u16,
    ) -> Box<dyn Peer> {
        let family = self.family();
        let tcp = if family == V4 { tracker.tcp_v4 } else { tracker.tcp_v6 };
        let udp = if family == V4 { tracker.udp_v4 } else { tracker.udp_v6 };
        match self {
            Self::Udp(_) => Box::new(UdpPeer { client: udp::Client::connect(udp), port: number }),
            Self::Http(_) => Box::new(HttpPeer { client: http::Plain::connect(tcp), port: number }),
            Self::Https(_) => {
                let client = http::Client::over(certificate.connect(tcp));
                Box::new(HttpPeer { client, port: number })
            }
            Self::Ws(_) => Box::new(WsPeer::new(ws::Plain::connect(tcp), number)),
            Self::Wss(_) => {
                let client = ws::Client::over(certificate.connect(tcp), ws::request());
                Box::new(WsPeer::new(client, number))
            }
        }
    }
}

/// What a client learns from the reply to an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Peers of the reply. WebTorrent has none: peers hear of each other by offers.
    pub(crate) peers: Vec<SocketAddr>,
    /// Number of leechers, the client's own peer included.
    pub(crate) leechers: u32,
}

/// A client with one peer, a leecher in whichever swarm it announces to.
pub(crate) trait Peer {
    /// Announces the peer; over WebTorrent with one offer.
    fn announce(&mut self, torrent: InfoHash, event: AnnounceEvent) -> Reply;

    /// Returns the number of leechers of a torrent.
    fn scrape(&mut self, torrent: InfoHash) -> u32;

    /// Receives an offer and returns who made it. WebTorrent only.
    fn offer(&mut self) -> PeerId {
        panic!("no client of WebTorrent");
    }
}

struct UdpPeer {
    client: udp::Client,
    port: u16,
}

impl Peer for UdpPeer {
    fn announce(&mut self, torrent: InfoHash, event: AnnounceEvent) -> Reply {
        let (peers, leechers) = self.client.announce(torrent, self.port, event);
        Reply { peers, leechers }
    }

    fn scrape(&mut self, torrent: InfoHash) -> u32 {
        self.client.leechers(torrent)
    }
}

struct HttpPeer<S> {
    client: http::Client<S>,
    port: u16,
}

impl<S: Read + Write> Peer for HttpPeer<S> {
    fn announce(&mut self, torrent: InfoHash, event: AnnounceEvent) -> Reply {
        let event = match event {
            AnnounceEvent::Started => "&event=started",
            AnnounceEvent::Stopped => "&event=stopped",
            _ => "",
        };
        let response = self.client.get(&http::announce(&torrent, self.port, event));
        Reply { peers: response.peers(), leechers: response.announce().incomplete.unwrap() }
    }

    fn scrape(&mut self, torrent: InfoHash) -> u32 {
        self.client.get(&http::scrape(&[torrent])).files()[0].incomplete
    }
}

/// The peer id of the WebTorrent peer with this number.
pub(crate) fn peer_id(number: u16) -> PeerId {
    let mut id = [b'w'; 20];
    id[..2].copy_from_slice(&number.to_be_bytes());
    PeerId(id)
}

struct WsPeer<S> {
    client: ws::Client<S>,
    id: PeerId,
}

impl<S> WsPeer<S> {
    fn new(client: ws::Client<S>, number: u16) -> Self {
        Self { client, id: peer_id(number) }
    }
}

impl<S: Read + Write> Peer for WsPeer<S> {
    fn announce(&mut self, torrent: InfoHash, event: AnnounceEvent) -> Reply {
        let offers: &[&str] = if event == AnnounceEvent::Stopped { &[] } else { &["an offer"] };
        self.client.send_announce(torrent, self.id, Some(1), event, offers);
        let (complete, leechers) = self.client.next().counts();
        assert_eq!(complete, 0);
        Reply { peers: Vec::new(), leechers }
    }

    fn scrape(&mut self, torrent: InfoHash) -> u32 {
        self.client.leechers(torrent)
    }

    fn offer(&mut self) -> PeerId {
        self.client.next().offer().0
    }
}
