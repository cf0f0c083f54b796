//! A client with nothing of a browser but its WebSocket, and the tracker it talks to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{REPLY, Tracker, service};

/// The torrent of all tests that need only one.
pub(crate) const HASH: &str = "aaaaaaaaaaaaaaaaaaaa";

/// A tracker on one core, so that what one client has caused has happened when it reads its next reply.
pub(crate) fn tracker() -> Tracker {
    tracker_with(&[])
}

pub(crate) fn tracker_with(settings: &[&str]) -> Tracker {
    let mut all = vec![
        "workers=1",
        "network.address_ipv4=127.0.0.1:0",
        "network.use_ipv6=false",
        // So that tests can compare it.
        "ws.announce_interval_jitter=0",
    ];
    all.extend(settings);
    Tracker::start(1, &mut service("ws", &all))
}

/// 20 times the same character.
pub(crate) fn id(character: char) -> String {
    String::from_iter([character; 20])
}

pub(crate) fn offer(number: usize) -> Value {
    json!({ "offer": { "type": "offer", "sdp": format!("offer {number}") }, "offer_id": offer_id(number) })
}

pub(crate) fn offer_id(number: usize) -> String {
    format!("{number:020}")
}

/// Members of one object over those of another.
pub(crate) fn with(mut message: Value, members: Value) -> Value {
    let (Value::Object(message_members), Value::Object(members)) = (&mut message, members) else {
        panic!("objects")
    };
    message_members.extend(members);
    message
}

/// An announce of a leecher, as the reference client writes it.
pub(crate) fn announce(peer: char) -> Value {
    json!({
        "action": "announce", "info_hash": HASH, "peer_id": id(peer),
        "numwant": 0, "uploaded": 0, "downloaded": 0, "left": 1000, "offers": [],
    })
}

/// What the reference client sends to who has offered something.
pub(crate) fn answer(from: char, to: char, number: usize) -> Value {
    json!({
        "action": "announce", "info_hash": HASH, "peer_id": id(from), "to_peer_id": id(to),
        "answer": { "type": "answer", "sdp": format!("answer {number}") }, "offer_id": offer_id(number),
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is about the patience of a test, not about the tracker's time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) struct Browser {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Browser {
    pub(crate) fn open(tracker: &Tracker) -> Self {
        Self::open_with(tracker.address(), "/announce", "Origin: https://example.org\r\n")
    }

    pub(crate) fn open_with(address: SocketAddr, path: &str, headers: &str) -> Self {
        let (browser, head) = Self::request(address, path, headers);
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        browser
    }

    /// Asks for a WebSocket, and returns the head of the response in small letters.
    pub(crate) fn request(address: SocketAddr, path: &str, headers: &str) -> (Self, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(REPLY)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: tracker.example.org\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
        .unwrap();
        let mut browser = Self { stream, received: Vec::new() };
        let end = loop {
            let end = browser.received.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None => assert!(browser.receive() > 0, "the connection was closed"),
            }
        };
        let head: Vec<u8> = browser.received.drain(..end).collect();
        (browser, String::from_utf8(head).unwrap().to_ascii_lowercase())
    }

    fn receive(&mut self) -> usize {
        let mut bytes = [0; 16_384];
        let length = self.stream.read(&mut bytes).unwrap();
        self.received.extend_from_slice(&bytes[..length]);
        length
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.send_frame(0x81, text.as_bytes());
    }

    /// Sends a frame with this first byte, as masked as a browser's.
    pub(crate) fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let mask = [0x12, 0x00, 0xff, 0x81];
        let mut frame = vec![first];
        match u16::try_from(payload.len()) {
            Ok(length @ 0..126) => frame.push(0x80 | length as u8),
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&frame).unwrap();
    }

    /// The next frame: its first byte and what it contains; nothing at the end of the connection.
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let bytes = &self.received;
            let (head, length) = match bytes.get(1) {
                Some(126) => {
                    (4, bytes.get(2..4).map(|length| u16::from_be_bytes(length.try_into().unwrap()).into()))
                }
                Some(127) => {
                    (10, bytes.get(2..10).map(|length| u64::from_be_bytes(length.try_into().unwrap())))
                }
                Some(&length) => (2, Some(length.into())),
                None => (2, None),
            };
            let end = length.map(|length| head + usize::try_from(length).unwrap());
            if let Some(end) = end.filter(|end| *end <= bytes.len()) {
                let frame: Vec<u8> = self.received.drain(..end).collect();
                return Some((frame[0], frame[head..].to_vec()));
            }
            if self.receive() == 0 {
                return None;
            }
        }
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> Value {
        loop {
            match self.frame() {
                Some((0x81, text)) => return serde_json::from_slice(&text).unwrap(),
                Some((0x89, payload)) => self.send_frame(0x8a, &payload),
                other => panic!("{other:?} instead of a message"),
            }
        }
    }

    /// Answers pings for a while, and nothing else may come.
    pub(crate) fn stay_for(&mut self, time: Duration) {
        let start = now();
        let mut byte = [0];
        while let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            self.stream.set_read_timeout(Some(left)).unwrap();
            if self.stream.peek(&mut byte).is_ok() {
                let frame = self.frame();
                assert_eq!(frame.map(|(first, _)| first), Some(0x89), "a ping");
                self.send_frame(0x8a, b"");
            }
        }
        self.stream.set_read_timeout(Some(REPLY)).unwrap();
    }

    /// Sends a message and returns the next one that comes.
    pub(crate) fn ask(&mut self, message: &Value) -> Value {
        self.send(message);
        self.next()
    }

    /// Announces as this peer with these further members, and returns the counts of seeders and leechers.
    pub(crate) fn announce(&mut self, peer: char, members: Value) -> (u64, u64) {
        let reply = self.ask(&with(announce(peer), members));
        assert_eq!((&reply["action"], &reply["interval"]), (&json!("announce"), &json!(120)), "{reply}");
        assert_eq!(reply.get("failure reason"), None);
        (reply["complete"].as_u64().unwrap(), reply["incomplete"].as_u64().unwrap())
    }

    /// Seeders, leechers and downloads of the torrent. Nothing else must have come before.
    pub(crate) fn scrape(&mut self) -> (u64, u64, u64) {
        let reply = self.ask(&json!({ "action": "scrape", "info_hash": HASH }));
        assert_eq!(reply["action"], "scrape", "{reply} instead of the reply to a scrape");
        let counts = ["complete", "incomplete", "downloaded"];
        let [complete, incomplete, downloaded] =
            counts.map(|name| reply["files"][HASH][name].as_u64().unwrap_or_else(|| panic!("{reply}")));
        (complete, incomplete, downloaded)
    }

    /// Checks that nothing has come that was not asked for.
    pub(crate) fn assert_quiet(&mut self) {
        self.scrape();
    }

    /// The code of the close frame with which the connection ends.
    pub(crate) fn close_code(mut self) -> u16 {
        loop {
            match self.frame() {
                Some((0x88, payload)) => return u16::from_be_bytes(payload[..2].try_into().unwrap()),
                Some(_) => {}
                None => panic!("no close frame"),
            }
        }
    }

    /// Ends the connection in the proper way and waits until the tracker has done so, too.
    pub(crate) fn close(mut self) {
        self.send_frame(0x88, &1000_u16.to_be_bytes());
        while self.frame().is_some() {}
    }

    /// Ends the connection without a word.
    pub(crate) fn vanish(self) {
        drop(self);
    }
}
