//! One simulated core: the pure handlers of UDP and HTTP over one tracker, and the tracker of WebTorrent.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;

use aquatic_common::{AnnounceEvent, Family, InfoHash, PeerId, Seconds};
use aquatic_http::{Handled, Handler as HttpHandler, HttpConfig, Incoming};
use aquatic_http_protocol::{Head, Parsed, Reply, Response as HttpResponse};
use aquatic_metrics::Registry;
use aquatic_net::proxy::{ForwardedHeaders, OnBadHeader, TrustedProxies};
use aquatic_net::udp::{Datagrams, ReturnPath};
use aquatic_swarm::{Announce, SwarmCounts};
use aquatic_tracker::{OwnerResponse, Owners, Respond, RouteError, TrackerSeed};
use aquatic_udp::{ConnectionIds, Forwarded, Handler as UdpHandler, Listener, ReplyLimits, Sources};
use aquatic_udp_protocol::{
    AnnounceFields, AnnounceRequest, Peers, Response as UdpResponse, TransactionId, encode_scrape_request,
};
use aquatic_ws::{Tracker, WsSeed};

use crate::model::Expected;
use crate::network::{Link, Network, Trackers};

pub(crate) const MAX_PEERS: usize = 50;

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Announce(Expected),
    Scrape(Vec<SwarmCounts>),
    Refused(String),
}

/// What another core has responded, by the number of the request.
#[derive(Default)]
pub(crate) struct Inbox(pub(crate) RefCell<Vec<(usize, Responded)>>);

pub(crate) enum Responded {
    Announced(aquatic_swarm::Announced, Vec<u8>, Vec<u8>),
    Scraped(Vec<SwarmCounts>),
    Failed(RouteError),
}

impl Inbox {
    fn put(&self, token: u32, responded: Responded) {
        self.0.borrow_mut().push((token as usize, responded));
    }
}

impl Respond for Inbox {
    fn announced(&self, token: u32, response: OwnerResponse<'_>) {
        let OwnerResponse { announced, v4, v6 } = response;
        self.put(token, Responded::Announced(announced, v4.to_vec(), v6.to_vec()));
    }

    fn scraped(&self, token: u32, counts: &[SwarmCounts]) {
        self.put(token, Responded::Scraped(counts.to_vec()));
    }

    fn failed(&self, token: u32, error: RouteError) {
        self.put(token, Responded::Failed(error));
    }
}

/// A datagram of one client.
struct Datagram {
    bytes: Vec<u8>,
    source: SocketAddr,
    reply: Vec<u8>,
    reply_len: usize,
}

impl Datagrams for Datagram {
    fn count(&self) -> usize {
        1
    }

    fn request(&self, _at: usize) -> &[u8] {
        &self.bytes
    }

    fn is_truncated(&self, _at: usize) -> bool {
        false
    }

    fn source(&self, _at: usize) -> Option<SocketAddr> {
        Some(self.source)
    }

    fn return_path(&self, _at: usize) -> ReturnPath {
        ReturnPath::to(self.source)
    }

    fn reply_buffer(&mut self, _at: usize) -> &mut [u8] {
        &mut self.reply
    }

    fn set_reply_len(&mut self, _at: usize, len: usize) {
        self.reply_len = len;
    }
}

/// No proxy names its clients.
pub(crate) fn no_proxies() -> ForwardedHeaders {
    ForwardedHeaders {
        names: Vec::new(),
        trusted: TrustedProxies::parse::<&str>(&[]).unwrap(),
        on_bad: OnBadHeader::Refuse,
        blocked: std::sync::Arc::default(),
    }
}

pub(crate) struct Core {
    pub(crate) owners: Owners<Trackers, Link>,
    pub(crate) udp: UdpHandler,
    pub(crate) http: HttpHandler,
    pub(crate) inbox: Rc<Inbox>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) ws: Tracker<Link>,
    ids: ConnectionIds,
}

impl Core {
    pub(crate) fn new(
        (seed, ws): (&TrackerSeed, &WsSeed),
        index: usize,
        random: u64,
        network: &Rc<Network>,
    ) -> Self {
        let metrics = Registry::default().core(index);
        let trackers = network.add_tracker(seed.tracker(index, random, &metrics));
        let ids = ConnectionIds::new(120, [2; 16]);
        let limits =
            ReplyLimits { max_response_peers: MAX_PEERS, max_scrape_torrents: 74, max_reply_size: 2048 };
        let http =
            HttpHandler::new(&HttpConfig::default(), no_proxies(), aquatic_http::Counters::new(&metrics));
        let link = || Link { core: index, network: Rc::clone(network) };
        Self {
            owners: Owners::new(trackers, link(), &metrics),
            ws: ws.tracker(index, &metrics, link()),
            udp: UdpHandler::new(
                limits,
                ids.clone(),
                Sources::unlimited([3; 16]),
                aquatic_udp::Counters::new(&metrics),
            ),
            buffer: vec![0; http.longest_reply().max(2048)],
            http,
            inbox: Rc::default(),
            ids,
        }
    }

    /// Serves a datagram: a reply, or what has been left to other cores.
    pub(crate) fn datagram(
        &mut self,
        bytes: Vec<u8>,
        source: SocketAddr,
        now: Seconds,
    ) -> (Option<Told>, Forwarded) {
        let family = Family::of(source.ip());
        let mut datagram = Datagram { bytes, source, reply: vec![0; 2048], reply_len: 0 };
        let mut forwarded = Forwarded::default();
        let tracker = (&mut *self.owners.state(), now);
        self.udp.handle(&mut datagram, Listener { index: 0, family }, tracker, &mut forwarded);
        let reply = &datagram.reply[..datagram.reply_len];
        ((!reply.is_empty()).then(|| told_over_udp(reply, family)), forwarded)
    }

    pub(crate) fn announce_datagram(&self, announce: &Announce, now: Seconds) -> Vec<u8> {
        let fields = AnnounceFields {
            connection_id: self.ids.make(announce.address.ip(), now),
            transaction_id: TransactionId::from_number(1),
            info_hash: announce.info_hash,
            peer_id: PeerId([1; 20]),
            uploaded: 0,
            downloaded: 0,
            left: if announce.seeder { 0 } else { 1 },
            event: announce.event,
            key: 0,
            numwant: None,
            port: announce.address.port(),
        };
        let mut request = vec![0; 98];
        AnnounceRequest::new(&fields).encode(&mut request).unwrap();
        request
    }

    pub(crate) fn scrape_datagram(&self, torrents: &[InfoHash], source: SocketAddr, now: Seconds) -> Vec<u8> {
        let mut request = vec![0; 2048];
        let (id, transaction) = (self.ids.make(source.ip(), now), TransactionId::from_number(1));
        let len = encode_scrape_request(id, transaction, torrents, &mut request).unwrap();
        request.truncate(len);
        request
    }

    /// Serves a request over HTTP.
    pub(crate) fn request(&mut self, target: &str, source: SocketAddr, now: Seconds) -> Handled {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let Parsed::Complete(head) = Head::parse(request.as_bytes(), 8192) else { panic!("{request}") };
        let incoming = Incoming { head: &head, framing: head.framing, peer: Some(source.ip()), now };
        self.http.handle(incoming, &mut self.owners.state(), &mut self.buffer)
    }

    /// What the HTTP reply of this length in the buffer says.
    pub(crate) fn told_over_http(&self, length: usize, torrents: &[InfoHash]) -> Told {
        let Parsed::Complete(response) = HttpResponse::parse(&self.buffer[..length], false) else {
            panic!("no response: {:?}", &self.buffer[..length])
        };
        match Reply::parse(response.body).unwrap() {
            Reply::Announce(announce) => {
                let v4 = announce.peers_v4().map(SocketAddr::V4);
                let peers: Vec<_> = v4.chain(announce.peers_v6().map(SocketAddr::V6)).collect();
                let counts = SwarmCounts {
                    complete: announce.complete.unwrap(),
                    incomplete: announce.incomplete.unwrap(),
                    downloaded: announce.downloaded.unwrap(),
                };
                Told::Announce(Expected { counts, peers: distinct(&peers) })
            }
            Reply::Scrape(scrape) => {
                let files: Vec<_> = scrape.files().collect();
                let counts = |torrent: &InfoHash| {
                    let file = files.iter().find(|file| file.info_hash == *torrent).unwrap();
                    let (complete, incomplete) = (file.complete, file.incomplete);
                    SwarmCounts { complete, incomplete, downloaded: file.downloaded }
                };
                Told::Scrape(torrents.iter().map(counts).collect())
            }
            Reply::Failure(failure) => Told::Refused(String::from_utf8(failure.reason.to_vec()).unwrap()),
        }
    }
}

fn distinct(peers: &[SocketAddr]) -> BTreeSet<SocketAddr> {
    let set: BTreeSet<_> = peers.iter().copied().collect();
    assert_eq!(set.len(), peers.len(), "a peer is in the reply twice: {peers:?}");
    set
}

pub(crate) fn told_over_udp(reply: &[u8], family: Family) -> Told {
    match UdpResponse::parse(reply, family).unwrap() {
        UdpResponse::Announce(announce) => {
            let peers: Vec<SocketAddr> = match announce.peers {
                Peers::V4(peers) => peers.iter().map(|peer| peer.address().into()).collect(),
                Peers::V6(peers) => peers.iter().map(|peer| peer.address().into()).collect(),
            };
            let counts = SwarmCounts {
                complete: announce.head.seeders().try_into().unwrap(),
                incomplete: announce.head.leechers().try_into().unwrap(),
                downloaded: 0,
            };
            Told::Announce(Expected { counts, peers: distinct(&peers) })
        }
        UdpResponse::Scrape(scrape) => Told::Scrape(
            scrape
                .counts
                .iter()
                .map(|counts| SwarmCounts {
                    complete: counts.seeders().try_into().unwrap(),
                    incomplete: counts.leechers().try_into().unwrap(),
                    downloaded: counts.completed().try_into().unwrap(),
                })
                .collect(),
        ),
        UdpResponse::Error(error) => Told::Refused(String::from_utf8(error.text.to_vec()).unwrap()),
        UdpResponse::Connect(_) => panic!("nobody has connected"),
    }
}

pub(crate) fn event_name(event: AnnounceEvent) -> &'static str {
    match event {
        AnnounceEvent::Started => "&event=started",
        AnnounceEvent::Stopped => "&event=stopped",
        AnnounceEvent::Completed => "&event=completed",
        _ => "",
    }
}
