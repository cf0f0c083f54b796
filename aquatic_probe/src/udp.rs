//! Exchange over UDP (BEP 15, BEP 41).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use aquatic_common::{AnnounceEvent, Family};
use aquatic_udp_protocol::{
    AnnounceFields, AnnounceReply, AnnounceRequest, ConnectRequest, ConnectionId, Peers, Response,
    TransactionId, encode_scrape_request,
};

use crate::clock::{Deadline, Stopwatch};
use crate::facts::{Counts, milliseconds};
use crate::identity::{Peer, Swarm};
use crate::transport::unreachable;
use crate::{Facts, Failed, Options, Rows};

/// Largest packet that is received.
const PACKET: usize = 65_536;

/// How often a request is sent, as list sites do.
const ATTEMPTS: u32 = 2;

/// Options that libtorrent appends to its announces (BEP 41): the path of the URL, and the end.
const URL_DATA: &[u8] = b"\x02\x09/announce\x00";

/// Transaction ids below this are sent, as by newTrackon.
const MAX_TRANSACTION: u32 = 255;

/// What a request led to.
enum Reply {
    Connected {
        id: ConnectionId,
        length: usize,
    },
    Announced(Announced),
    Scraped(Vec<Counts>),
    /// Text of the tracker.
    Refused(String),
}

/// Reply to an announce.
struct Announced {
    interval: u32,
    counts: Counts,
    peers: Vec<SocketAddr>,
}

/// A socket of a peer.
struct Client<'a> {
    socket: UdpSocket,
    family: Family,
    options: &'a Options,
    transaction: u32,
    /// Requests that were not answered at once.
    /// Requests that were answered only when they were repeated.
    lost: u32,
}

impl<'a> Client<'a> {
    fn new(address: SocketAddr, options: &'a Options) -> Result<Self, Failed> {
        let family = Family::of(address.ip());
        let any: SocketAddr = match family {
            Family::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
            Family::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).map_err(|error| unreachable(&error))?;
        socket.connect(address).map_err(|error| unreachable(&error))?;
        Ok(Self { socket, family, options, transaction: 0, lost: 0 })
    }

    fn transaction(&mut self) -> TransactionId {
        self.transaction = (self.transaction + 1) % MAX_TRANSACTION;
        TransactionId::from_number(self.transaction)
    }

    /// Sends a request until it is answered, and returns the reply.
    fn ask(&mut self, check: &'static str, id: TransactionId, request: &[u8]) -> Result<Reply, Failed> {
        let mut unusable = 0;
        for attempt in 0..ATTEMPTS {
            self.socket.send(request).map_err(|error| unreachable(&error))?;
            match self.receive(id, Deadline::after(self.options.timeout / ATTEMPTS), &mut unusable) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return Err(unreachable(&error));
                }
                Err(error) => return Err(Failed::new(check, error.to_string())),
                Ok(reply) => {
                    self.lost += u32::from(attempt > 0);
                    return Ok(reply);
                }
            }
        }
        let seconds = self.options.timeout.as_secs_f32();
        let others = match unusable {
            0 => String::new(),
            count => format!("; {count} packets came that are too short, or have another transaction id"),
        };
        Err(Failed::new(check, format!("no reply within {seconds} s to {ATTEMPTS} packets{others}")))
    }

    /// Waits for the reply to a request.
    fn receive(&self, id: TransactionId, deadline: Deadline, unusable: &mut u32) -> io::Result<Reply> {
        let mut buffer = vec![0; PACKET];
        loop {
            self.socket.set_read_timeout(Some(deadline.left()?))?;
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(deadline.expired()),
                Err(error) => return Err(error),
            };
            let packet = buffer.get(..length).unwrap_or_default();
            // A late reply to an earlier request.
            if packet.get(4..8) == Some(&id.0) {
                return read(packet, self.family).map_err(io::Error::other);
            }
            *unusable += 1;
        }
    }

    fn connect(&mut self) -> Result<(ConnectionId, usize), Failed> {
        const CHECK: &str = "connect";
        let id = self.transaction();
        let mut buffer = [0; 16];
        let length = ConnectRequest::new(id)
            .encode(&mut buffer)
            .map_err(|error| Failed::new(CHECK, error.to_string()))?;
        match self.ask(CHECK, id, buffer.get(..length).unwrap_or_default())? {
            Reply::Connected { id, length } => Ok((id, length)),
            Reply::Refused(text) => Err(Failed::new(CHECK, format!("refused: {text}"))),
            Reply::Announced(_) | Reply::Scraped(_) => Err(Failed::new(CHECK, "another kind of reply came")),
        }
    }

    fn announce(
        &mut self,
        check: &'static str,
        (connection, swarm, peer): (ConnectionId, &Swarm, &Peer),
        event: AnnounceEvent,
        options: &[u8],
    ) -> Result<Announced, Failed> {
        let id = self.transaction();
        let request = announce_request(id, connection, (swarm, peer), event, options)?;
        match self.ask(check, id, &request)? {
            Reply::Announced(announced) => Ok(announced),
            Reply::Refused(text) => Err(Failed::new(check, format!("refused: {text}"))),
            Reply::Connected { .. } | Reply::Scraped(_) => {
                Err(Failed::new(check, "another kind of reply came"))
            }
        }
    }

    fn scrape(&mut self, connection: ConnectionId, swarm: &Swarm) -> Result<Vec<Counts>, Failed> {
        const CHECK: &str = "scrape";
        let id = self.transaction();
        let mut buffer = [0; 64];
        let length = encode_scrape_request(connection, id, &[swarm.info_hash], &mut buffer)
            .map_err(|error| Failed::new(CHECK, error.to_string()))?;
        match self.ask(CHECK, id, buffer.get(..length).unwrap_or_default())? {
            Reply::Scraped(counts) => Ok(counts),
            Reply::Refused(text) => Err(Failed::new(CHECK, format!("refused: {text}"))),
            Reply::Connected { .. } | Reply::Announced(_) => {
                Err(Failed::new(CHECK, "another kind of reply came"))
            }
        }
    }
}

fn announce_request(
    transaction_id: TransactionId,
    connection_id: ConnectionId,
    (swarm, peer): (&Swarm, &Peer),
    event: AnnounceEvent,
    options: &[u8],
) -> Result<Vec<u8>, Failed> {
    let fields = AnnounceFields {
        connection_id,
        transaction_id,
        info_hash: swarm.info_hash,
        peer_id: peer.peer_id,
        uploaded: 0,
        downloaded: 0,
        left: i64::try_from(peer.left).unwrap_or(i64::MAX),
        event,
        key: peer.key,
        numwant: None,
        port: peer.port,
    };
    let mut buffer = vec![0; size_of::<AnnounceRequest>()];
    let encoded = AnnounceRequest::new(&fields).encode(&mut buffer);
    encoded.map_err(|error| Failed::new("announce", error.to_string()))?;
    buffer.extend_from_slice(options);
    Ok(buffer)
}

/// Reads a reply as leniently as the most lenient client; what stricter ones refuse becomes a fact.
fn read(packet: &[u8], family: Family) -> Result<Reply, String> {
    let action: Option<[u8; 4]> = packet.get(..4).and_then(|action| action.try_into().ok());
    if action == Some([0; 4]) {
        let id = packet.get(8..16).and_then(|id| id.try_into().ok()).map(ConnectionId);
        let id = id.ok_or("the connect reply is shorter than 16 bytes")?;
        return Ok(Reply::Connected { id, length: packet.len() });
    }
    match Response::parse(packet, family).map_err(|error| error.to_string())? {
        Response::Connect(reply) => Ok(Reply::Connected { id: reply.connection_id(), length: packet.len() }),
        Response::Announce(AnnounceReply { head, peers }) => {
            let number = |value: i32, name: &str| {
                u32::try_from(value).map_err(|_| format!("the {name} of the reply is negative: {value}"))
            };
            let counts = Counts {
                complete: number(head.seeders(), "number of seeders")?,
                incomplete: number(head.leechers(), "number of leechers")?,
            };
            let peers = match peers {
                Peers::V4(peers) => peers.iter().map(|peer| peer.address().into()).collect(),
                Peers::V6(peers) => peers.iter().map(|peer| peer.address().into()).collect(),
            };
            Ok(Reply::Announced(Announced { interval: number(head.interval(), "interval")?, counts, peers }))
        }
        Response::Scrape(scrape) => {
            let count = |value: i32| u32::try_from(value).unwrap_or(0);
            let counts = scrape.counts.iter();
            Ok(Reply::Scraped(
                counts
                    .map(|c| Counts { complete: count(c.seeders()), incomplete: count(c.leechers()) })
                    .collect(),
            ))
        }
        Response::Error(error) => Ok(Reply::Refused(shorten(error.text))),
    }
}

/// Text of a tracker, not too much of it.
pub(crate) fn shorten(text: &[u8]) -> String {
    const MAX: usize = 200;
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// Goes through the exchange. What has announced stops in the end, whatever happens.
pub(crate) fn exchange(
    address: SocketAddr,
    options: &Options,
    facts: &mut Facts,
    rows: &mut Rows,
) -> Result<(), Failed> {
    let swarm = Swarm::new(&mut rand::rng(), options.info_hash);
    let mut seeder = Client::new(address, options)?;
    let watch = Stopwatch::start();
    let (id, length) = seeder.connect()?;
    facts.connected = Some(watch.elapsed());
    facts.connect_length = Some(length);
    rows.ok("connect", format!("connection id after {}", milliseconds(watch.elapsed())));
    let announced = seeder.announce("announce", (id, &swarm, &swarm.seeder), AnnounceEvent::Started, &[])?;
    facts.interval = Some(announced.interval);
    rows.ok("announce", format!("{}; interval {} s", announced.counts, announced.interval));
    let mut leecher = Client::new(address, options)?;
    let result = second_peer(&mut leecher, address, (id, &swarm), facts, rows);
    let stopped = seeder.announce("stopped", (id, &swarm, &swarm.seeder), AnnounceEvent::Stopped, &[]);
    let (after, last) = {
        let who = (result.as_ref().map_or(id, |id| *id), &swarm, &swarm.leecher);
        let after =
            result.is_ok().then(|| leecher.announce("stopped", who, AnnounceEvent::None, &[])).transpose();
        (after, leecher.announce("stopped", who, AnnounceEvent::Stopped, &[]))
    };
    result?;
    stopped?;
    if let Some(after) = after? {
        let is_listed = after.peers.iter().any(|peer| peer.port() == swarm.seeder.port);
        let is_gone = after.counts.complete == 0 && !is_listed;
        facts.gone = Some(is_gone);
        crate::verdicts::stopped(is_gone, rows);
    }
    last?;
    if seeder.lost + leecher.lost > 0 {
        let lost = seeder.lost + leecher.lost;
        rows.advice(
            "lost_packets",
            format!("{lost} packets had to be sent again; clients wait 15 s before they do"),
        );
    }
    Ok(())
}

/// What the second peer sees while the first one is there. Returns its connection id.
fn second_peer(
    leecher: &mut Client<'_>,
    address: SocketAddr,
    (id_of_other, swarm): (ConnectionId, &Swarm),
    facts: &mut Facts,
    rows: &mut Rows,
) -> Result<ConnectionId, Failed> {
    let (id, _) = leecher.connect()?;
    let peer = &swarm.leecher;
    let with_options = leecher.announce("announce", (id, swarm, peer), AnnounceEvent::Started, URL_DATA);
    let takes_options = with_options.is_ok();
    let announced = match with_options {
        Ok(announced) => announced,
        // If this fails too, the options are not the reason.
        Err(_) => leecher.announce("announce", (id, swarm, peer), AnnounceEvent::Started, &[])?,
    };
    facts.takes_options = Some(takes_options);
    let found = announced.peers.iter().find(|found| found.port() == swarm.seeder.port);
    facts.handed_out = Some(found.is_some());
    crate::verdicts::second_peer(found.copied(), address, announced.counts, rows);
    for _ in 0..leecher.options.exchanges {
        let watch = Stopwatch::start();
        leecher.announce("announce", (id, swarm, peer), AnnounceEvent::None, &[])?;
        facts.latencies.push(watch.elapsed());
    }
    facts.answers_all = Some(true);
    match leecher.scrape(id, swarm) {
        Ok(counts) => {
            facts.scrapes = Some(!counts.is_empty());
            crate::verdicts::scraped(counts.first().copied(), announced.counts, rows);
        }
        Err(failed) => {
            facts.scrapes = Some(false);
            rows.advice(failed.check, failed.text);
        }
    }
    connection_ids(leecher, id_of_other, swarm, facts, rows);
    Ok(id)
}

/// Whether ids are bound to a port, and what happens to one that the tracker has not given out.
fn connection_ids(
    leecher: &mut Client<'_>,
    id_of_other: ConnectionId,
    swarm: &Swarm,
    facts: &mut Facts,
    rows: &mut Rows,
) {
    const CHECK: &str = "connection_id";
    let peer = &swarm.leecher;
    let of_other = leecher.announce(CHECK, (id_of_other, swarm, peer), AnnounceEvent::None, &[]);
    facts.id_of_other_port = Some(of_other.is_ok());
    let id = leecher.transaction();
    let forged = ConnectionId(id_of_other.0.map(|byte| !byte));
    let Ok(request) = announce_request(id, forged, (swarm, peer), AnnounceEvent::None, &[]) else { return };
    let wait = Deadline::after(leecher.options.timeout / 10);
    let sent = leecher.socket.send(&request).and_then(|_| leecher.receive(id, wait, &mut 0));
    let port = if of_other.is_ok() { "valid from other ports" } else { "bound to a port" };
    match sent {
        Ok(Reply::Announced(_)) => {
            let text = "any connection id is accepted: forged addresses can be entered into swarms, and replies sent to them";
            rows.advice(CHECK, text);
        }
        Ok(Reply::Refused(text)) => rows.ok(CHECK, format!("{port}; a wrong one is refused: {text}")),
        Ok(_) | Err(_) => rows.ok(CHECK, format!("{port}; a wrong one is not answered")),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// What a tracker does other than it should.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Flaw {
        RefusesSecondPeer,
        IgnoresOptions,
    }

    /// A tracker without peers, for one probe. It ends when nothing comes any more.
    fn tracker(flaw: Flaw) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut first = None;
            let mut packet = [0; 2048];
            while let Ok((length, source)) = socket.recv_from(&mut packet) {
                let id = &packet[12..16];
                let reply = match packet[11] {
                    0 => [&[0; 4], id, &[7; 8]].concat(),
                    1 if flaw == Flaw::RefusesSecondPeer && *first.get_or_insert(source) != source => {
                        [&[0, 0, 0, 3], id, b"no"].concat()
                    }
                    1 if flaw == Flaw::IgnoresOptions && length > size_of::<AnnounceRequest>() => continue,
                    1 => [&[0, 0, 0, 1], id, &[0, 0, 7, 8], &[0; 8]].concat(),
                    // A scrape reply without counts.
                    _ => [&[0, 0, 0, 2], id].concat(),
                };
                socket.send_to(&reply, source).unwrap();
            }
        });
        address
    }

    fn probed(flaw: Flaw) -> (bool, Facts) {
        let timeout = Duration::from_secs(2);
        let options = Options { timeout, exchanges: 1, family: None, info_hash: None, insecure: false };
        let mut facts = Facts::default();
        let result = exchange(tracker(flaw), &options, &mut facts, &mut Rows::new("tracker".to_owned()));
        (result.is_ok(), facts)
    }

    #[test]
    fn options_are_not_blamed_for_refusals() {
        let (works, facts) = probed(Flaw::RefusesSecondPeer);
        assert_eq!((works, facts.takes_options), (false, None));
        assert_eq!(probed(Flaw::IgnoresOptions).1.takes_options, Some(false));
    }

    #[test]
    fn scrape_replies_without_counts_are_no_scrapes() {
        assert_eq!(probed(Flaw::IgnoresOptions).1.scrapes, Some(false));
    }
}
