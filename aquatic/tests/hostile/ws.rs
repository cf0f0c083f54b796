//! What strangers send to a tracker that speaks WebTorrent.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::http::{FILLING, SLACK, in_waves};
use super::lines::{Line, Tally, connect, watch, watch_deaf};
use super::siege::Healthy;
use super::target::{PATIENCE, Target, now};

/// Torrents of the healthy clients: enough for all cores to take part.
const TORRENTS: usize = 8;

/// The healthy clients.
const HEALTHY: [&str; 2] = ["-XX0000-healthyfirst", "-XX0000-healthyother"];

const UPGRADE: &str = "GET /announce HTTP/1.1\r\nHost: tracker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// First bytes of frames.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const FIRST_TEXT: u8 = 0x01;
const MORE: u8 = 0x00;
const LAST: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A frame as clients send it. The mask is zero, so that what is sent can be read.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ ..126 => frame.push(0x80 | len as u8),
        len @ ..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn text(message: &str) -> Vec<u8> {
    frame(TEXT, message.as_bytes())
}

fn hash(nth: usize) -> String {
    format!("torrent{nth:013}")
}

/// An announce with offers of this length.
fn announce(torrent: &str, peer: &str, event: &str, offers: &[String], length: usize) -> String {
    let sdp = "s".repeat(length);
    let offers =
        offers.iter().map(|id| format!(r#"{{"offer":{{"type":"offer","sdp":"{sdp}"}},"offer_id":"{id}"}}"#));
    let offers = offers.collect::<Vec<_>>().join(",");
    format!(
        r#"{{"action":"announce","info_hash":"{torrent}","peer_id":"{peer}","numwant":10,"left":1,"event":"{event}","offers":[{offers}]}}"#
    )
}

fn answer(torrent: &str, from: &str, to: &str, id: &str) -> String {
    format!(
        r#"{{"action":"announce","info_hash":"{torrent}","peer_id":"{from}","to_peer_id":"{to}","offer_id":"{id}","answer":{{"type":"answer","sdp":"v=0"}}}}"#
    )
}

fn offer_id(nth: usize) -> String {
    format!("offer{nth:015}")
}

/// One end of the healthy pair.
struct Browser(TcpStream);

impl Browser {
    fn open(target: &Target) -> Self {
        let mut stream = connect(0, target.address);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(UPGRADE.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
        Self(stream)
    }

    fn send(&mut self, message: &str) {
        self.0.write_all(&text(message)).unwrap();
    }

    /// The next message; pings are answered.
    fn next(&mut self) -> String {
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).unwrap();
            let length = match head[1] {
                126 => {
                    let mut length = [0; 2];
                    self.0.read_exact(&mut length).unwrap();
                    u16::from_be_bytes(length).into()
                }
                short @ ..126 => usize::from(short),
                127.. => panic!("longer than anything a tracker has to say"),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).unwrap();
            match head[0] {
                TEXT => return String::from_utf8(payload).unwrap(),
                PING => self.0.write_all(&frame(PONG, &payload)).unwrap(),
                other => panic!("a frame that begins with {other:#x}: {}", payload.escape_ascii()),
            }
        }
    }

    /// Expects a message that contains these texts.
    fn expect(&mut self, parts: &[&str]) {
        let message = self.next();
        assert!(parts.iter().all(|part| message.contains(part)), "{message} is to contain {parts:?}");
    }
}

/// Two browsers that are the only ones in their torrents: the first offers, the other answers, again and
/// again. Nobody else is to be heard by either.
pub(crate) struct Pair {
    browsers: [Browser; 2],
    offered: usize,
}

impl Pair {
    pub(crate) fn new(target: &Target) -> Self {
        let mut browsers = [(); 2].map(|()| Browser::open(target));
        for torrent in 0..TORRENTS {
            for (browser, peer) in browsers.iter_mut().zip(HEALTHY) {
                browser.send(&announce(&hash(torrent), peer, "started", &[], 0));
                browser.expect(&["\"interval\":", &hash(torrent)]);
            }
        }
        Self { browsers, offered: 0 }
    }
}

impl Healthy for Pair {
    const CONNECTIONS: u64 = 2;

    /// An offer, and the way back of its answer.
    fn ask(&mut self) -> bool {
        self.offered += 1;
        let (torrent, id) = (hash(self.offered % TORRENTS), offer_id(self.offered));
        let [first, other] = &mut self.browsers;
        first.send(&announce(&torrent, HEALTHY[0], "", std::slice::from_ref(&id), 1000));
        first.expect(&["\"interval\":", &torrent, "\"incomplete\":2"]);
        other.expect(&["\"offer\"", &torrent, HEALTHY[0], &id]);
        other.send(&answer(&torrent, HEALTHY[1], HEALTHY[0], &id));
        first.expect(&["\"answer\"", &torrent, HEALTHY[1], &id]);
        true
    }
}

/// Messages that are too deep, too long, no text, no JSON, or no message, and frames that are none.
fn bombs() -> Vec<Vec<u8>> {
    let message = announce(&hash(900), "-XX0000-bomb00000000", "started", &[offer_id(1)], 10);
    let valid = message.as_bytes();
    let fragments: Vec<u8> = valid[1..].iter().flat_map(|&byte| frame(MORE, &[byte])).collect();
    let many: Vec<_> = (0..600).map(offer_id).collect();
    vec![
        text(&"[".repeat(60_000)),
        text(&r#"{"a":"#.repeat(12_000)),
        text(&format!(r#"{{"action":"announce","offers":{}"#, "[{".repeat(30_000))),
        text(&"9".repeat(60_000)),
        text(r#"{"action":"announce","numwant":1e308,"left":-1e999}"#),
        frame(TEXT, b"{\"action\":\"announce\",\"info_hash\":\"\xff\xfe\xc0\x80\"}"),
        text(&message.replace("torrent", r"\ud800")),
        text(&message.replace("sss", r"\udfff\ud800")),
        text(&message.replace("torrent", "\u{100}orrent")),
        text(&message.replace("torrent", "")),
        text(r#"{"action":"announce","info_hash":null,"peer_id":17,"offers":{}}"#),
        text(r#"{"action":["announce"],"info_hash":[[]],"event":{"a":1}}"#),
        text(r#"{"action":"scrape","info_hash":[1,2,{}]}"#),
        text(&announce(&hash(901), "-XX0000-bomb00000001", "", &many, 1)),
        text(&announce(&hash(902), "-XX0000-bomb00000002", "", &[offer_id(1)], 60_000)),
        text(&announce(&hash(903), "-XX0000-bomb00000003", "", &[offer_id(1)], 2_000_000)),
        frame(BINARY, valid),
        frame(BINARY, &[0x1f; 5000]),
        [frame(FIRST_TEXT, &valid[..1]), fragments, frame(LAST, b"")].concat(),
        [frame(FIRST_TEXT, valid), text(&message)].concat(),
        frame(MORE, valid),
        frame(0x09, b"a ping in pieces"),
        frame(PING, &[b'x'; 126]),
        frame(PING, b"x").repeat(2000),
        frame(CLOSE, b"x"),
        frame(CLOSE, &[0, 1]),
        frame(0xf1, valid),
        frame(0x83, valid),
        // A length of 2^63, and a frame that is not masked.
        vec![TEXT, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [&[TEXT, 5][..], b"hello"].concat(),
    ]
}

/// Each connection sends one bomb behind its request, and ends its side.
pub(crate) fn message_bombs(target: &Target, count: usize) -> Tally {
    let bombs = bombs();
    in_waves(count, |first, count| {
        let lines = (first..first + count).map(|nth| {
            let mut line = Line::open(nth, target.address);
            let bytes = [UPGRADE.as_bytes(), &bombs[nth % bombs.len()]].concat();
            let mut sent = 0;
            let begin = now();
            while sent < bytes.len() && !line.look() && begin.elapsed() < SLACK {
                sent += line.send(&bytes[sent..]);
            }
            // Fails if the tracker has ended the connection already.
            let _ = line.stream.shutdown(Shutdown::Write);
            line
        });
        watch(lines.collect(), 2 * SLACK, |_, _| {})
    })
}

/// Connections that have become WebSockets and then send these messages, wait for the tracker to have taken
/// them, and go.
fn guests(target: &Target, count: usize, messages: impl Fn(usize) -> Vec<String>) -> Tally {
    in_waves(count, |first, count| {
        let lines = (first..first + count).map(|nth| {
            let mut line = Line::open(nth, target.address);
            let frames: Vec<u8> = messages(nth).iter().flat_map(|message| text(message)).collect();
            let bytes = [UPGRADE.as_bytes(), &frames].concat();
            let mut sent = 0;
            while sent < bytes.len() && !line.look() {
                sent += line.send(&bytes[sent..]);
            }
            line.stream.shutdown(Shutdown::Write).unwrap();
            line
        });
        watch(lines.collect(), 2 * SLACK, |_, _| {})
    })
}

/// Strangers that claim to be one of the healthy clients: they announce, stop and answer in its name.
pub(crate) fn forged_peer_ids(target: &Target, count: usize) -> Tally {
    guests(target, count, |nth| {
        let (torrent, peer) = (hash(nth % TORRENTS), HEALTHY[nth % 2]);
        vec![
            announce(&torrent, peer, "started", &[], 0),
            answer(&torrent, peer, HEALTHY[(nth + 1) % 2], &offer_id(nth)),
            announce(&torrent, peer, "completed", &[offer_id(nth)], 10),
            announce(&torrent, peer, "stopped", &[], 0),
        ]
    })
}

/// Answers to the healthy clients that nobody has asked for, from strangers in their own names.
pub(crate) fn answer_floods(target: &Target, count: usize) -> Tally {
    guests(target, count, |nth| {
        let from = format!("-XX0000-{nth:012}");
        let answers = (0..200).map(|n| answer(&hash(n % TORRENTS), &from, HEALTHY[n % 2], &offer_id(n)));
        answers.collect()
    })
}

/// Peers that are alone in a torrent and offer themselves to themselves.
pub(crate) fn offers_to_oneself(target: &Target, count: usize) -> Tally {
    guests(target, count, |nth| {
        let (torrent, peer) = (hash(10_000 + nth), format!("-XX0000-{nth:012}"));
        let offers: Vec<_> = (0..10).map(offer_id).collect();
        vec![announce(&torrent, &peer, "started", &offers, 1000); 5]
    })
}

/// Members of swarms that are reset.
pub(crate) fn resets(target: &Target, count: usize) -> Tally {
    for nth in 0..count {
        let mut line = Line::open(nth, target.address);
        let peer = format!("-XX0000-{nth:012}");
        let message = announce(&hash(20_000 + nth % 64), &peer, "started", &[offer_id(nth)], 500);
        let bytes = [UPGRADE.as_bytes(), &text(&message)].concat();
        let part = if nth % 4 == 0 { nth % bytes.len() } else { bytes.len() };
        line.send(&bytes[..part]);
        if nth % 4 > 1 {
            line.stream.set_nonblocking(false).unwrap();
            assert_ne!(line.stream.read(&mut [0; 1]).unwrap(), 0);
        }
        line.reset();
    }
    Tally::left(count)
}

/// Frames that come byte by byte and never end.
pub(crate) fn dribbled_frames(target: &Target, count: usize, deadline: Duration) -> Tally {
    let mut lines = Line::several(count, target.address);
    let begin = [UPGRADE.as_bytes(), &frame(TEXT, &[b' '; 60_000])[..10]].concat();
    lines.iter_mut().for_each(|line| assert_eq!(line.send(&begin), begin.len()));
    watch(lines, deadline + SLACK, |line, _| _ = line.send(b" "))
}

/// Members of one swarm that offer on and on and never read what they are sent: replies, and each other's
/// offers.
pub(crate) fn never_reading(target: &Target, count: usize, deadline: Duration) -> Tally {
    let offers: Vec<_> = (0..10).map(offer_id).collect();
    let mut lines = Line::several(count, target.address);
    lines.iter_mut().for_each(|line| assert_eq!(line.send(UPGRADE.as_bytes()), UPGRADE.len()));
    lines.iter_mut().for_each(|line| line.wait_for(b"\r\n\r\n"));
    watch_deaf(lines, deadline + FILLING, |line| {
        // The port makes an id of its own for each.
        let peer = format!("-XX0000-{:012}", line.stream.local_addr().map_or(0, |address| address.port()));
        let message = text(&announce(&hash(30_000), &peer, "", &offers, 5000));
        while line.send(&message) > 0 {}
    })
}
