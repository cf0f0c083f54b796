//! Exchange over WebSocket (WebTorrent): two browsers that are introduced to each other.

use std::net::SocketAddr;

use aquatic_common::AnnounceEvent;
use aquatic_ws_protocol::{
    Announce, Answer, ClientMessage, Description, Offer, OfferId, Scrape, TrackerMessage,
};
use rand::RngExt;
use tungstenite::client::client_with_config;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::Uri;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{ClientRequestBuilder, Error, Message, WebSocket};

use crate::clock::{Deadline, Stopwatch};
use crate::facts::{Counts, milliseconds};
use crate::identity::{Peer, Swarm};
use crate::target::Target;
use crate::transport::Connection;
use crate::udp::shorten;
use crate::{Facts, Failed, Options, Rows, verdicts};

/// Maximum size of a message of the tracker in bytes.
const MAX_MESSAGE: usize = 256 << 10;

/// Origin of the page that browsers would send.
const ORIGIN: &str = "https://webtorrent.invalid";

/// Messages that are read while one is waited for.
const MAX_MESSAGES: usize = 32;

/// Session description of a data channel, as browsers write it (RFC 8829), without candidates: nobody can
/// connect to it. The parts that browsers require are there, so that one would accept it.
const SDP: &str = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    a=msid-semantic: WMS\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n\
    a=ice-ufrag:prbe\r\na=ice-pwd:aquaticProbeHasNoCandidates\r\n\
    a=fingerprint:sha-256 AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:\
    88:99\r\na=setup:SETUP\r\na=mid:0\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";

/// What the tracker sends, as far as the exchange looks at it.
#[derive(Debug)]
enum Received {
    Announced {
        interval: u32,
        counts: Counts,
    },
    /// Offer with its text.
    Offer {
        offer_id: OfferId,
        text: String,
    },
    /// Answer with its text.
    Answer {
        offer_id: OfferId,
        text: String,
    },
    Scraped(Option<Counts>),
    Refused(String),
}

/// A browser.
struct Browser<'a> {
    socket: WebSocket<Connection>,
    options: &'a Options,
    swarm: Swarm,
    peer: Peer,
    /// Messages that came while another one was waited for.
    early: Vec<Received>,
}

impl<'a> Browser<'a> {
    fn open(
        target: &Target,
        address: SocketAddr,
        options: &'a Options,
        (swarm, peer): (Swarm, Peer),
        facts: &mut Facts,
        rows: Option<&mut Rows>,
    ) -> Result<Self, Failed> {
        const CHECK: &str = "upgrade";
        let connection = Connection::open(target, address, options, facts, rows)?;
        let uri: Uri =
            target.to_string().parse().map_err(|_| Failed::new(CHECK, "the URL cannot be sent"))?;
        let request = ClientRequestBuilder::new(uri).with_header("Origin", ORIGIN);
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        match client_with_config(request, connection, Some(config)) {
            Ok((socket, _)) => Ok(Self { socket, options, swarm, peer, early: Vec::new() }),
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let text =
                    format!("answered with the status {} instead of a WebSocket", response.status().as_u16());
                Err(Failed::new(CHECK, text))
            }
            Err(HandshakeError::Failure(error)) => Err(Failed::new(CHECK, error.to_string())),
            Err(HandshakeError::Interrupted(_)) => Err(Failed::new(CHECK, "interrupted")),
        }
    }

    fn send(&mut self, check: &'static str, message: &ClientMessage<'_>) -> Result<(), Failed> {
        let mut text = String::new();
        message.encode(&mut text);
        self.socket.get_mut().extend(self.options.timeout);
        self.socket.send(Message::text(text)).map_err(|error| Failed::new(check, describe(&error)))
    }

    fn announce(
        &mut self,
        check: &'static str,
        event: AnnounceEvent,
        offer: Option<(&str, OfferId)>,
    ) -> Result<(u32, Counts), Failed> {
        let offers = match offer {
            None => Vec::new(),
            Some((text, offer_id)) => {
                let offer =
                    Description::parse(text).map_err(|error| Failed::new(check, error.to_string()))?;
                vec![Offer { offer, offer_id }]
            }
        };
        let message = ClientMessage::Announce(Announce {
            info_hash: self.swarm.info_hash,
            peer_id: self.peer.peer_id,
            left: Some(self.peer.left),
            event,
            offers,
            bad_offers: 0,
        });
        self.send(check, &message)?;
        self.wait(check, |received| {
            let Received::Announced { interval, counts } = received else { return Err(received) };
            Ok((interval, counts))
        })
    }

    /// Waits for a message that `take` takes. Others are kept for later, except refusals, which end the
    /// exchange.
    fn wait<T>(
        &mut self,
        check: &'static str,
        take: impl Fn(Received) -> Result<T, Received>,
    ) -> Result<T, Failed> {
        let mut kept = Vec::new();
        let mut taken = None;
        for received in self.early.drain(..) {
            if taken.is_some() {
                kept.push(received);
                continue;
            }
            match take(received) {
                Ok(value) => taken = Some(value),
                Err(received) => kept.push(received),
            }
        }
        self.early = kept;
        if let Some(taken) = taken {
            return Ok(taken);
        }
        let deadline = Deadline::after(self.options.timeout);
        for _ in 0..MAX_MESSAGES {
            let left = deadline.left().map_err(|error| Failed::new(check, error.to_string()))?;
            self.socket.get_mut().extend(left);
            let message = self.socket.read().map_err(|error| Failed::new(check, describe(&error)))?;
            let bytes = match &message {
                Message::Text(text) => text.as_bytes(),
                Message::Binary(bytes) => bytes,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
                Message::Close(_) => return Err(Failed::new(check, "the tracker closed the connection")),
            };
            match read(bytes, &self.swarm) {
                Ok(Received::Refused(text)) => return Err(Failed::new(check, format!("refused: {text}"))),
                Ok(received) => match take(received) {
                    Ok(value) => return Ok(value),
                    Err(other) => self.early.push(other),
                },
                Err(error) => {
                    let text = format!("no message of a tracker ({error}): {}", shorten(bytes));
                    return Err(Failed::new(check, text));
                }
            }
        }
        Err(Failed::new(check, format!("not among {MAX_MESSAGES} messages")))
    }
}

fn describe(error: &Error) -> String {
    if matches!(error, Error::ConnectionClosed | Error::AlreadyClosed) {
        return "the tracker closed the connection".to_owned();
    }
    if let Error::Io(error) = error { error.to_string() } else { error.to_string() }
}

fn read(bytes: &[u8], swarm: &Swarm) -> Result<Received, String> {
    Ok(match TrackerMessage::parse_bytes(bytes).map_err(|error| error.to_string())? {
        TrackerMessage::Announce(reply) => Received::Announced {
            interval: reply.interval,
            counts: Counts { complete: reply.complete, incomplete: reply.incomplete },
        },
        TrackerMessage::Offer(relay) => {
            Received::Offer { offer_id: relay.offer_id, text: relay.offer.as_str().to_owned() }
        }
        TrackerMessage::Answer(relay) => {
            Received::Answer { offer_id: relay.offer_id, text: relay.answer.as_str().to_owned() }
        }
        TrackerMessage::Scrape(reply) => {
            let file = reply.files.iter().find(|file| file.info_hash == swarm.info_hash);
            Received::Scraped(
                file.map(|file| Counts { complete: file.complete, incomplete: file.incomplete }),
            )
        }
        TrackerMessage::Failure(failure) => Received::Refused(shorten(failure.reason.as_bytes())),
    })
}

/// Whether two session descriptions say the same, however their JSON is written.
fn same(one: &str, other: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    parse(one).is_some_and(|value| Some(value) == parse(other))
}

/// Goes through the exchange. What has announced stops in the end, whatever happens.
pub(crate) fn exchange(
    target: &Target,
    address: SocketAddr,
    options: &Options,
    facts: &mut Facts,
    rows: &mut Rows,
) -> Result<(), Failed> {
    let mut rng = rand::rng();
    let mut swarm = Swarm::new(&mut rng, options.info_hash);
    // Browsers have no use for the habit of list sites, which do not speak WebSocket.
    swarm.seeder.peer_id.0 = swarm.leecher.peer_id.0;
    swarm.seeder.peer_id.0[19] ^= 1;
    let watch = Stopwatch::start();
    let mut seeder = Browser::open(target, address, options, (swarm, swarm.seeder), facts, Some(rows))?;
    facts.connected = Some(watch.elapsed());
    rows.ok("upgrade", format!("after {}", milliseconds(facts.connected.unwrap_or_default())));
    let (interval, counts) = seeder.announce("announce", AnnounceEvent::Started, None)?;
    facts.interval = Some(interval);
    rows.ok("announce", format!("{counts}; interval {interval} s"));
    let mut leecher = Browser::open(target, address, options, (swarm, swarm.leecher), facts, None)?;
    let offer_id = OfferId::from_bytes(&rng.random());
    let result = introduce(&mut seeder, &mut leecher, offer_id, facts, rows);
    let stopped = seeder.announce("stopped", AnnounceEvent::Stopped, None);
    let after = result.and_then(|()| leecher.announce("stopped", AnnounceEvent::None, None));
    if let Err(failed) = stopped {
        let text = format!("{}; libtorrent waits for a reply to it", failed.text);
        rows.advice("stopped_reply", text);
        facts.answers_all = Some(false);
    }
    let last = leecher.announce("stopped", AnnounceEvent::Stopped, None);
    let _ = (seeder.socket.close(None), leecher.socket.close(None));
    let (_, counts) = after?;
    let is_gone = counts.complete == 0;
    facts.gone = Some(is_gone);
    verdicts::stopped(is_gone, rows);
    facts.answers_all = Some(facts.answers_all.unwrap_or(true) && last.is_ok());
    Ok(())
}

/// The second browser offers a connection, the first one answers.
fn introduce(
    seeder: &mut Browser<'_>,
    leecher: &mut Browser<'_>,
    offer_id: OfferId,
    facts: &mut Facts,
    rows: &mut Rows,
) -> Result<(), Failed> {
    let offer = Description::write_offer(&SDP.replace("SETUP", "actpass"));
    let (_, counts) =
        leecher.announce("announce", AnnounceEvent::Started, Some((&offer, offer_id.clone())))?;
    let is_counted = counts == Counts { complete: 1, incomplete: 1 };
    let relayed = seeder.wait("offer", |received| {
        let Received::Offer { offer_id, text } = received else { return Err(received) };
        Ok((offer_id, text))
    });
    facts.handed_out = Some(relayed.is_ok());
    let (relayed_id, text) = relayed?;
    let is_same = relayed_id == offer_id && same(&text, &offer);
    facts.offer_relayed = Some(is_same);
    match (is_same, is_counted) {
        (true, true) => rows.ok("offer", format!("reaches the other browser unchanged; {counts}")),
        (true, false) => rows.advice("offer", format!("reaches the other browser, but it counts {counts}")),
        (false, _) => rows.fault("offer", "reaches the other browser changed, so that it cannot connect"),
    }
    let answer = Description::write_answer(&SDP.replace("SETUP", "active"));
    let message = ClientMessage::Answer(Answer {
        info_hash: seeder.swarm.info_hash,
        peer_id: seeder.peer.peer_id,
        to_peer_id: leecher.peer.peer_id,
        offer_id: offer_id.clone(),
        answer: Description::parse(&answer).map_err(|error| Failed::new("answer", error.to_string()))?,
    });
    seeder.send("answer", &message)?;
    let (relayed_id, text) = leecher.wait("answer", |received| {
        let Received::Answer { offer_id, text } = received else { return Err(received) };
        Ok((offer_id, text))
    })?;
    let is_same = relayed_id == offer_id && same(&text, &answer);
    facts.answer_relayed = Some(is_same);
    if is_same {
        rows.ok("answer", "comes back unchanged: the browsers can connect");
    } else {
        rows.fault("answer", "comes back changed, so that the browsers cannot connect");
    }
    for _ in 0..leecher.options.exchanges {
        let watch = Stopwatch::start();
        leecher.announce("announce", AnnounceEvent::None, None)?;
        facts.latencies.push(watch.elapsed());
    }
    scrape(leecher, facts, rows)
}

fn scrape(leecher: &mut Browser<'_>, facts: &mut Facts, rows: &mut Rows) -> Result<(), Failed> {
    let message = ClientMessage::Scrape(Scrape { info_hashes: vec![leecher.swarm.info_hash] });
    leecher.send("scrape", &message)?;
    let scraped = leecher.wait("scrape", |received| {
        let Received::Scraped(counts) = received else { return Err(received) };
        Ok(counts)
    });
    match scraped {
        Ok(found) => {
            facts.scrapes = Some(found.is_some());
            verdicts::scraped(found, Counts { complete: 1, incomplete: 1 }, rows);
        }
        Err(failed) => {
            facts.scrapes = Some(false);
            rows.advice("scrape", failed.text);
        }
    }
    Ok(())
}
