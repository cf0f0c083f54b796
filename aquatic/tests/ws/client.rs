//! A WebTorrent client that exposes the messages it receives.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use aquatic_common::{AnnounceEvent, InfoHash, PeerId};
use aquatic_ws_protocol::{
    Announce, Answer, ClientMessage, Description, Offer, OfferId, Scrape, ScrapeFile, TrackerMessage,
};
use socket2::{Domain, Socket, Type};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Request;
use tungstenite::{Error, Message, WebSocket};

use crate::support::{REPLY, Tracker, service};

/// Time within which messages arrive over the loopback interface.
const SOON: Duration = Duration::from_millis(300);

/// A message to a client, or the end of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Reply {
        torrent: InfoHash,
        interval: u32,
        complete: u32,
        incomplete: u32,
    },
    Offer {
        torrent: InfoHash,
        from: PeerId,
        id: OfferId,
        text: String,
    },
    Answer {
        torrent: InfoHash,
        from: PeerId,
        id: OfferId,
        text: String,
    },
    Scrape(Vec<ScrapeFile>),
    Failure {
        action: &'static str,
        torrent: Option<InfoHash>,
        reason: String,
    },
    /// Close frame with its status code.
    Close(Option<u16>),
    /// End without a close frame.
    Gone,
}

impl Got {
    pub(crate) fn of(text: &str) -> Self {
        match TrackerMessage::parse(text).unwrap() {
            TrackerMessage::Announce(reply) => Self::Reply {
                torrent: reply.info_hash,
                interval: reply.interval,
                complete: reply.complete,
                incomplete: reply.incomplete,
            },
            TrackerMessage::Offer(offer) => Self::Offer {
                torrent: offer.info_hash,
                from: offer.peer_id,
                id: offer.offer_id,
                text: offer.offer.as_str().to_owned(),
            },
            TrackerMessage::Answer(answer) => Self::Answer {
                torrent: answer.info_hash,
                from: answer.peer_id,
                id: answer.offer_id,
                text: answer.answer.as_str().to_owned(),
            },
            TrackerMessage::Scrape(scrape) => Self::Scrape(scrape.files.into_owned()),
            TrackerMessage::Failure(failure) => Self::Failure {
                action: failure.action.name(),
                torrent: failure.info_hash,
                reason: failure.reason.into_owned(),
            },
        }
    }

    /// Returns the counts of a reply.
    pub(crate) fn counts(&self) -> (u32, u32) {
        match self {
            Self::Reply { complete, incomplete, .. } => (*complete, *incomplete),
            other => panic!("not a reply: {other:?}"),
        }
    }

    pub(crate) fn interval(&self) -> u32 {
        match self {
            Self::Reply { interval, .. } => *interval,
            other => panic!("not a reply: {other:?}"),
        }
    }

    /// Returns the sender and the id of an offer.
    pub(crate) fn offer(&self) -> (PeerId, OfferId) {
        match self {
            Self::Offer { from, id, .. } => (*from, id.clone()),
            other => panic!("not an offer: {other:?}"),
        }
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Failure { reason, .. } => reason,
            other => panic!("not a failure: {other:?}"),
        }
    }
}

/// A client over any transport.
pub(crate) struct Client<S> {
    pub(crate) socket: WebSocket<S>,
}

pub(crate) type Plain = Client<TcpStream>;

/// Connects from a local address.
pub(crate) fn tcp(local: &str, tracker: SocketAddr) -> TcpStream {
    let local: IpAddr = local.parse().unwrap();
    let socket = Socket::new(Domain::for_address(tracker), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(local, 0).into()).unwrap();
    socket.connect(&tracker.into()).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(REPLY)).unwrap();
    stream
}

pub(crate) fn request() -> Request {
    "ws://tracker.example/announce?any=thing".into_client_request().unwrap()
}

impl Plain {
    pub(crate) fn connect(tracker: SocketAddr) -> Self {
        Self::connect_from(if tracker.is_ipv4() { "127.0.0.1" } else { "::1" }, tracker)
    }

    pub(crate) fn connect_from(local: &str, tracker: SocketAddr) -> Self {
        Self::over(tcp(local, tracker), request())
    }

    /// Asserts that no message arrives.
    pub(crate) fn assert_quiet(&mut self) {
        self.socket.get_ref().set_read_timeout(Some(SOON)).unwrap();
        loop {
            match self.socket.read() {
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    break;
                }
                Ok(Message::Ping(_)) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
        self.socket.get_ref().set_read_timeout(Some(REPLY)).unwrap();
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S, request: Request) -> Self {
        let (socket, response) =
            tungstenite::client(request, stream).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(response.status(), 101);
        Self { socket }
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    pub(crate) fn send(&mut self, message: &ClientMessage<'_>) {
        let mut text = String::new();
        message.encode(&mut text);
        self.send_text(&text);
    }

    /// Returns the next message that is no ping or pong.
    pub(crate) fn next(&mut self) -> Got {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Got::of(&text),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(frame)) => {
                    // Sends the close frame in return.
                    let _ = self.socket.flush();
                    return Got::Close(frame.map(|frame| frame.code.into()));
                }
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    panic!("no message arrived")
                }
                Err(_) => return Got::Gone,
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Announces a peer and returns the next message.
    pub(crate) fn announce(&mut self, torrent: InfoHash, peer: PeerId, left: u64, offers: &[&str]) -> Got {
        self.send_announce(torrent, peer, Some(left), AnnounceEvent::Started, offers);
        self.next()
    }

    pub(crate) fn send_announce(
        &mut self,
        torrent: InfoHash,
        peer: PeerId,
        left: Option<u64>,
        event: AnnounceEvent,
        offers: &[&str],
    ) {
        let texts: Vec<String> = offers.iter().map(|id| Description::write_offer(&sdp(id))).collect();
        let offers = offers.iter().zip(&texts).map(|(id, text)| Offer {
            offer: Description::parse(text).unwrap(),
            offer_id: OfferId::new(id).unwrap(),
        });
        let offers = offers.collect();
        self.send(&ClientMessage::Announce(Announce {
            info_hash: torrent,
            peer_id: peer,
            left,
            event,
            offers,
            bad_offers: 0,
        }));
    }

    /// Leaves a swarm and returns the reply.
    pub(crate) fn stop(&mut self, torrent: InfoHash, peer: PeerId) -> Got {
        self.send_announce(torrent, peer, Some(1), AnnounceEvent::Stopped, &[]);
        self.next()
    }

    pub(crate) fn answer(&mut self, torrent: InfoHash, from: PeerId, to: PeerId, offer: &OfferId) {
        let text = answer_text();
        self.send(&ClientMessage::Answer(Answer {
            info_hash: torrent,
            peer_id: from,
            to_peer_id: to,
            offer_id: offer.clone(),
            answer: Description::parse(&text).unwrap(),
        }));
    }

    /// Returns the counts of torrents: complete, incomplete, downloaded.
    pub(crate) fn scrape(&mut self, torrents: &[InfoHash]) -> Vec<(InfoHash, [u32; 3])> {
        let mut info_hashes = torrents.to_vec();
        info_hashes.sort();
        self.send(&ClientMessage::Scrape(Scrape { info_hashes }));
        match self.next() {
            Got::Scrape(files) => files
                .into_iter()
                .map(|file| (file.info_hash, [file.complete, file.incomplete, file.downloaded]))
                .collect(),
            other => panic!("not a scrape reply: {other:?}"),
        }
    }

    /// Returns the number of leechers of a torrent.
    pub(crate) fn leechers(&mut self, torrent: InfoHash) -> u32 {
        self.scrape(&[torrent])[0].1[1]
    }
}

/// Returns a session description of typical length.
pub(crate) fn sdp(id: &str) -> String {
    format!("v=0\r\no=- {id} \"\\ \u{e9}\r\n{}", "a=candidate:1 1 udp 2 192.0.2.1 9 typ host\r\n".repeat(30))
}

pub(crate) fn answer_text() -> String {
    // Unknown members are relayed, too.
    r#"{"type":"answer","sdp":"v=0\r\n","unknown":[1,{"a":null}]}"#.to_owned()
}

/// Returns a different peer id for each number, with bytes of all values.
pub(crate) fn peer(number: u8) -> PeerId {
    PeerId(std::array::from_fn(|at| number.wrapping_add((at as u8).wrapping_mul(13))))
}

/// Returns the command for `aquatic ws` on two cores, over IPv4, with further settings.
pub(crate) fn ws(settings: &[&str]) -> Command {
    let mut all = vec!["network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0"];
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        all.push("workers=2");
    }
    all.extend(settings);
    service("ws", &all)
}

pub(crate) fn start(settings: &[&str]) -> Tracker {
    Tracker::start(1, &mut ws(settings))
}
