//! A client over UDP (BEP 15).

use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use aquatic_common::{AnnounceEvent, Family, InfoHash, PeerId};
use aquatic_udp_protocol::{
    AnnounceFields, AnnounceRequest, ConnectRequest, ConnectionId, Peers, Response, TransactionId,
    encode_scrape_request,
};

use crate::support::REPLY;

/// A client with a socket and a connection id.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    id: ConnectionId,
    family: Family,
    /// Number of the last transaction.
    transaction: Cell<u32>,
}

impl Client {
    /// Connects from a loopback address of the tracker's family.
    pub(crate) fn connect(tracker: SocketAddr) -> Self {
        Self::connect_from(if tracker.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }, tracker)
    }

    pub(crate) fn connect_from(local: &str, tracker: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(REPLY)).unwrap();
        socket.connect(tracker).unwrap();
        let family = Family::of(tracker.ip());
        let mut client = Self { socket, id: ConnectionId([0; 8]), family, transaction: Cell::new(1) };
        let reply = client.exchange(&Self::connect_request());
        match Response::parse(&reply, family).unwrap() {
            Response::Connect(connect) => client.id = connect.connection_id(),
            other => panic!("not a connect reply: {other:?}"),
        }
        client
    }

    /// A client with the connection id of another one, which asks another tracker from the same address.
    #[allow(dead_code, reason = "for the tests of clusters")]
    pub(crate) fn moved(other: &Self, tracker: SocketAddr) -> Self {
        let local = SocketAddr::new(other.socket.local_addr().unwrap().ip(), 0);
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(REPLY)).unwrap();
        socket.connect(tracker).unwrap();
        Self { socket, id: other.id, family: other.family, transaction: Cell::new(1) }
    }

    /// A connect request.
    pub(crate) fn connect_request() -> [u8; 16] {
        let mut request = [0; 16];
        ConnectRequest::new(TransactionId::from_number(1)).encode(&mut request).unwrap();
        request
    }

    fn next_transaction(&self) -> TransactionId {
        self.transaction.set(self.transaction.get() + 1);
        TransactionId::from_number(self.transaction.get())
    }

    /// Sends a request and returns the reply.
    pub(crate) fn exchange(&self, request: &[u8]) -> Vec<u8> {
        self.try_exchange(request).unwrap()
    }

    /// Sends a request, again every second, and returns the reply.
    fn exchange_repeated(&self, request: &[u8]) -> Vec<u8> {
        self.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let reply = (0..REPLY.as_secs()).find_map(|_| {
            self.socket.send(request).unwrap();
            self.receive(request)
        });
        self.socket.set_read_timeout(Some(REPLY)).unwrap();
        reply.unwrap()
    }

    /// The same, if there is a reply in time.
    fn try_exchange(&self, request: &[u8]) -> Option<Vec<u8>> {
        self.socket.send(request).unwrap();
        self.receive(request)
    }

    /// Receives the reply to a request, if it comes in time, and drops those to repeated ones before it.
    fn receive(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut reply = [0; 2048];
        loop {
            let len = self.socket.recv(&mut reply).ok()?;
            if reply[..len].get(4..8) == request.get(12..16) {
                return Some(reply[..len].to_vec());
            }
        }
    }

    /// The announce of a leecher.
    pub(crate) fn announce_request(&self, info_hash: InfoHash, port: u16, event: AnnounceEvent) -> [u8; 98] {
        self.request(info_hash, port, event, 1)
    }

    /// An announce of a peer that has as many bytes left.
    pub(crate) fn request(
        &self,
        info_hash: InfoHash,
        port: u16,
        event: AnnounceEvent,
        left: i64,
    ) -> [u8; 98] {
        let fields = AnnounceFields {
            connection_id: self.id,
            transaction_id: self.next_transaction(),
            info_hash,
            peer_id: PeerId([1; 20]),
            uploaded: 0,
            downloaded: 0,
            left,
            event,
            key: 0,
            numwant: None,
            port,
        };
        let mut request = [0; 98];
        AnnounceRequest::new(&fields).encode(&mut request).unwrap();
        request
    }

    /// Announces a leecher and returns the peers and the number of leechers.
    pub(crate) fn announce(
        &self,
        info_hash: InfoHash,
        port: u16,
        event: AnnounceEvent,
    ) -> (Vec<SocketAddr>, u32) {
        self.announce_left(info_hash, port, event, 1)
    }

    /// The same for a peer that has as many bytes left.
    pub(crate) fn announce_left(
        &self,
        info_hash: InfoHash,
        port: u16,
        event: AnnounceEvent,
        left: i64,
    ) -> (Vec<SocketAddr>, u32) {
        let reply = self.exchange(&self.request(info_hash, port, event, left));
        match Response::parse(&reply, self.family).unwrap() {
            Response::Announce(announce) => {
                let peers = match announce.peers {
                    Peers::V4(peers) => peers.iter().map(|peer| peer.address().into()).collect(),
                    Peers::V6(peers) => peers.iter().map(|peer| peer.address().into()).collect(),
                };
                (peers, announce.head.leechers().try_into().unwrap())
            }
            other => panic!("not an announce reply: {other:?}"),
        }
    }

    /// Returns the number of leechers of a torrent.
    pub(crate) fn leechers(&self, info_hash: InfoHash) -> u32 {
        self.scrape(info_hash)[2]
    }

    /// Returns the numbers of seeders, completed downloads and leechers of a torrent.
    pub(crate) fn scrape(&self, info_hash: InfoHash) -> [u32; 3] {
        self.counts(&self.exchange_repeated(&self.scrape_request(info_hash)))
    }

    /// The same with a single request, if there is a reply in time.
    #[allow(dead_code, reason = "for the tests of clusters")]
    pub(crate) fn try_scrape(&self, info_hash: InfoHash) -> Option<[u32; 3]> {
        Some(self.counts(&self.try_exchange(&self.scrape_request(info_hash))?))
    }

    fn scrape_request(&self, info_hash: InfoHash) -> Vec<u8> {
        let mut request = [0; 36];
        let transaction = self.next_transaction();
        let len = encode_scrape_request(self.id, transaction, &[info_hash], &mut request).unwrap();
        request[..len].to_vec()
    }

    fn counts(&self, reply: &[u8]) -> [u32; 3] {
        match Response::parse(reply, self.family).unwrap() {
            Response::Scrape(scrape) => {
                let counts = scrape.counts[0];
                let counts = [counts.seeders(), counts.completed(), counts.leechers()];
                counts.map(|number| number.try_into().unwrap())
            }
            other => panic!("not a scrape reply: {other:?}"),
        }
    }
}
