//! Test tracker, correct or faulty.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::running::Running;
use aquatic_common::{AnnounceEvent, InfoHash, PeerId};
use aquatic_ws_protocol::{
    Action, Announce, AnnounceReply, Answer, AnswerRelay, ClientMessage, Description, FailureReply, Limits,
    OfferRelay, ScrapeFile, ScrapeReply, TrackerMessage,
};

/// Behaviour of a test tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Honest,
    /// Sends messages as bytes in pieces, with pings between.
    Roundabout,
    /// Replies to answers.
    Talkative,
    /// Refuses every other announce after the first.
    Moody,
    /// Closes the connection at the third announce.
    Rude,
    /// Replies to the first announce of a connection only.
    Dozing,
    /// Does not reply.
    Silent,
    /// Does not upgrade.
    NotFound,
    /// Upgrades with a key of its own.
    Faker,
    /// Masks frames.
    Masking,
    /// Sends something else than messages.
    Babbling,
    /// Replies about another torrent.
    Confused,
    /// Relays offers to whoever made them.
    Echoing,
    /// Relays no offers.
    Withholding,
    /// Relays each offer twice.
    Repeating,
    /// Relays all offers of an announce to one peer.
    Partial,
    /// Relays offers to peers of other torrents.
    Mixing,
    /// Says that offers are of someone else.
    Forging,
    /// Gives each offer the description of the first.
    Swapping,
    /// Leaves the end of descriptions out.
    Cutting,
    /// Relays answers to someone else.
    Misdirecting,
    /// Relays answers twice.
    Insisting,
    /// Says that answers are of someone else.
    Impersonating,
    /// Answers scrapes with another torrent.
    Lying,
}

/// A peer: where it is connected and how to reach it.
#[derive(Clone)]
struct Peer {
    id: PeerId,
    connection: u64,
    sender: Sender<String>,
}

#[derive(Default)]
pub(crate) struct Hub {
    swarms: HashMap<InfoHash, Vec<Peer>>,
    turn: usize,
    pub(crate) connections: u64,
    pub(crate) stopped: u64,
    pub(crate) goodbyes: u64,
    pub(crate) most_peers: usize,
}

impl Hub {
    pub(crate) fn peers(&self) -> usize {
        self.swarms.values().map(Vec::len).sum()
    }
}

pub(crate) type Tracker = Running<Mutex<Hub>>;

pub(crate) fn start(behaviour: Behaviour, tls: bool) -> Tracker {
    let read_timeout = Duration::from_millis(1);
    Running::start(tls, read_timeout, move |stream, _, hub| Connection::serve(stream, behaviour, hub))
}

struct Connection {
    number: u64,
    behaviour: Behaviour,
    hub: Arc<Mutex<Hub>>,
    sender: Sender<String>,
    announces: u32,
}

impl Connection {
    fn serve(mut stream: impl Read + Write, behaviour: Behaviour, hub: Arc<Mutex<Hub>>) {
        let (sender, outbox) = channel();
        let number = {
            let mut hub = hub.lock().unwrap();
            hub.connections += 1;
            hub.connections
        };
        let mut connection = Self { number, behaviour, hub, sender, announces: 0 };
        connection.talk(&mut stream, &outbox);
        let mut hub = connection.hub.lock().unwrap();
        hub.swarms.values_mut().for_each(|peers| peers.retain(|peer| peer.connection != number));
    }

    fn talk(&mut self, stream: &mut (impl Read + Write), outbox: &Receiver<String>) {
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            if !receive(stream, &mut received) {
                return;
            }
        }
        let accept = if self.behaviour == Behaviour::Faker { "AAAA" } else { "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" };
        let response = if self.behaviour == Behaviour::NotFound {
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned()
        } else {
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            )
        };
        stream.write_all(response.as_bytes()).unwrap();
        received.clear();
        while receive(stream, &mut received) {
            while let Some((opcode, payload)) = take_frame(&mut received) {
                match opcode {
                    1 if !self.message(str::from_utf8(&payload).unwrap()) => return,
                    8 => {
                        self.hub.lock().unwrap().goodbyes += 1;
                        let _ = stream.write_all(&[0x88, 2, 3, 232]);
                        return;
                    }
                    _ => {}
                }
            }
            for text in outbox.try_iter() {
                if stream.write_all(&self.frames(text.as_bytes())).is_err() {
                    return;
                }
            }
        }
    }

    fn frames(&self, text: &[u8]) -> Vec<u8> {
        let length = |length: usize| match u8::try_from(length) {
            Ok(length) if length < 126 => vec![length],
            _ => [&[126][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
        };
        if self.behaviour == Behaviour::Roundabout {
            let (start, end) = text.split_at(text.len() / 2);
            let ping = [0x89, 3, 1, 2, 3];
            return [&[0x02], &*length(start.len()), start, &ping, &[0x80], &*length(end.len()), end]
                .concat();
        }
        let mut head = [&[0x81], &*length(text.len())].concat();
        if self.behaviour == Behaviour::Masking {
            head[1] |= 0x80;
            head.extend([0; 4]);
        }
        [&head, text].concat()
    }

    fn send(&self, to: &Sender<String>, message: &TrackerMessage<'_>) {
        let mut text = String::new();
        message.encode(&mut text);
        // Whoever is gone does not mind.
        let _ = to.send(text);
    }

    /// Takes a message; returns whether the connection goes on.
    fn message(&mut self, text: &str) -> bool {
        match ClientMessage::parse(text, &Limits::default()).unwrap() {
            _ if self.behaviour == Behaviour::Silent => {}
            _ if self.behaviour == Behaviour::Dozing && self.announces > 0 => {}
            _ if self.behaviour == Behaviour::Babbling => {
                self.sender.send("{\"bab\":[]}".to_owned()).unwrap()
            }
            ClientMessage::Announce(announce) => return self.announce(&announce),
            ClientMessage::Answer(answer) => self.answer(&answer),
            ClientMessage::Scrape(scrape) => {
                let file = |&info_hash| ScrapeFile { info_hash, complete: 1, incomplete: 2, downloaded: 3 };
                let mut files: Vec<ScrapeFile> = scrape.info_hashes.iter().map(file).collect();
                if self.behaviour == Behaviour::Lying {
                    files[0].info_hash = InfoHash([7; 20]);
                }
                self.send(&self.sender, &TrackerMessage::Scrape(ScrapeReply { files: files.into() }));
            }
        }
        true
    }

    fn announce(&mut self, announce: &Announce<'_>) -> bool {
        self.announces += 1;
        if self.behaviour == Behaviour::Rude && self.announces == 3 {
            return false;
        }
        if self.behaviour == Behaviour::Moody && self.announces.is_multiple_of(2) {
            let (action, info_hash) = (Action::Announce, Some(announce.info_hash));
            let reply = FailureReply { action, info_hash, reason: "not now".into() };
            self.send(&self.sender, &TrackerMessage::Failure(reply));
            return true;
        }
        let mut info_hash = announce.info_hash;
        if self.behaviour == Behaviour::Confused {
            info_hash.0[0] ^= 1;
        }
        let reply = AnnounceReply { info_hash, interval: 120, complete: 0, incomplete: 1 };
        self.send(&self.sender, &TrackerMessage::Announce(reply));
        let mut hub = self.hub.lock().unwrap();
        let peers = hub.swarms.entry(announce.info_hash).or_default();
        peers.retain(|peer| peer.id != announce.peer_id);
        if announce.event == AnnounceEvent::Stopped {
            hub.stopped += 1;
            return true;
        }
        let id = announce.peer_id;
        peers.push(Peer { id, connection: self.number, sender: self.sender.clone() });
        hub.most_peers = hub.most_peers.max(hub.peers());
        self.relay_offers(announce, &mut hub);
        true
    }

    fn relay_offers(&self, announce: &Announce<'_>, hub: &mut Hub) {
        let mut peers: Vec<&Peer> = if self.behaviour == Behaviour::Mixing {
            hub.swarms.values().flatten().collect()
        } else {
            hub.swarms[&announce.info_hash].iter().collect()
        };
        if self.behaviour != Behaviour::Echoing {
            peers.retain(|peer| peer.id != announce.peer_id);
        }
        if peers.is_empty() || self.behaviour == Behaviour::Withholding {
            return;
        }
        let count = announce.offers.len().min(peers.len());
        for (number, offer) in announce.offers.iter().take(count).enumerate() {
            let place = if self.behaviour == Behaviour::Partial { 0 } else { hub.turn + number };
            let peer = peers[place % peers.len()];
            let (mut text, first) = (offer.offer, announce.offers[0].offer);
            let cut = text.as_str().replace("a=mid:0", "");
            if self.behaviour == Behaviour::Cutting {
                text = Description::parse(&cut).unwrap();
            } else if self.behaviour == Behaviour::Swapping {
                text = first;
            }
            let peer_id = if self.behaviour == Behaviour::Forging { peer.id } else { announce.peer_id };
            let relay = OfferRelay {
                info_hash: announce.info_hash,
                peer_id,
                offer: text,
                offer_id: offer.offer_id.clone(),
            };
            self.send(&peer.sender, &TrackerMessage::Offer(relay.clone()));
            if self.behaviour == Behaviour::Repeating {
                self.send(&peer.sender, &TrackerMessage::Offer(relay));
            }
        }
        hub.turn += 1;
    }

    fn answer(&self, answer: &Answer<'_>) {
        let hub = self.hub.lock().unwrap();
        let peers = &hub.swarms[&answer.info_hash];
        let is_right =
            |peer: &&Peer| (peer.id == answer.to_peer_id) != (self.behaviour == Behaviour::Misdirecting);
        let peer_id =
            if self.behaviour == Behaviour::Impersonating { answer.to_peer_id } else { answer.peer_id };
        let Answer { info_hash, offer_id, answer: text, .. } = answer;
        let relay = AnswerRelay { info_hash: *info_hash, peer_id, answer: *text, offer_id: offer_id.clone() };
        let times = if self.behaviour == Behaviour::Insisting { 2 } else { 1 };
        if let Some(peer) = peers.iter().find(is_right) {
            (0..times).for_each(|_| self.send(&peer.sender, &TrackerMessage::Answer(relay.clone())));
        }
        if self.behaviour == Behaviour::Talkative {
            let reply = AnnounceReply { info_hash: *info_hash, interval: 120, complete: 0, incomplete: 1 };
            self.send(&self.sender, &TrackerMessage::Announce(reply));
        }
    }
}

/// Waits a moment for bytes; returns whether the connection is still open.
fn receive(stream: &mut impl Read, received: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 16_384];
    match stream.read(&mut chunk) {
        Ok(0) => false,
        Ok(length) => {
            received.extend_from_slice(&chunk[..length]);
            true
        }
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// Takes a client's frame from the front: opcode and payload.
fn take_frame(received: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (&[first, second], rest) = received.split_first_chunk()?;
    assert_eq!((first & 0xf0, second & 0x80), (0x80, 0x80), "clients send whole messages, masked");
    let (length, rest) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), &rest[2..]),
        127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).unwrap(), &rest[8..]),
        short => (usize::from(short), rest),
    };
    let (mask, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..length)?.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let (payload, left) = (payload.collect(), rest.len() - length);
    received.drain(..received.len() - left);
    Some((first & 0x0f, payload))
}
