//! A client that shows everything there is to see of a response.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use aquatic_common::InfoHash;
use aquatic_http_protocol::{AnnounceView, FailureView, Reply, ScrapeFile, is_canonical};
use socket2::{Domain, Socket, Type};

use crate::support::{REPLY, Tracker, service};

/// A response with its head as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    fn reply(&self) -> Reply<'_> {
        assert_eq!(self.status(), 200, "{self:?}");
        assert_eq!(is_canonical(&self.body), Ok(true), "{self:?}");
        Reply::parse(&self.body).unwrap()
    }

    pub(crate) fn announce(&self) -> AnnounceView<'_> {
        match self.reply() {
            Reply::Announce(announce) => announce,
            other => panic!("not an announce reply: {other:?}"),
        }
    }

    /// The peers of both families.
    pub(crate) fn peers(&self) -> Vec<SocketAddr> {
        let announce = self.announce();
        announce.peers_v4().map(SocketAddr::V4).chain(announce.peers_v6().map(SocketAddr::V6)).collect()
    }

    pub(crate) fn files(&self) -> Vec<ScrapeFile> {
        match self.reply() {
            Reply::Scrape(scrape) => scrape.files().collect(),
            other => panic!("not a scrape reply: {other:?}"),
        }
    }

    pub(crate) fn failure(&self) -> FailureView<'_> {
        match self.reply() {
            Reply::Failure(failure) => failure,
            other => panic!("not a failure: {other:?}"),
        }
    }

    /// The text of a failure.
    pub(crate) fn reason(&self) -> &str {
        str::from_utf8(self.failure().reason).unwrap()
    }
}

/// One connection to the tracker, of whatever kind.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    pub(crate) received: Vec<u8>,
}

pub(crate) type Plain = Client<TcpStream>;

impl Plain {
    pub(crate) fn connect(tracker: SocketAddr) -> Self {
        Self::connect_from(if tracker.is_ipv4() { "127.0.0.1" } else { "::1" }, tracker)
    }

    /// Connects from an address of its own.
    pub(crate) fn connect_from(local: &str, tracker: SocketAddr) -> Self {
        let local: IpAddr = local.parse().unwrap();
        let socket = Socket::new(Domain::for_address(tracker), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(local, 0).into()).unwrap();
        socket.connect(&tracker.into()).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(REPLY)).unwrap();
        Self::over(stream)
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Asks for something and returns the response.
    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.send(request(target));
        self.response()
    }

    /// The next response.
    pub(crate) fn response(&mut self) -> Response {
        let head = self.head();
        let mut response = Response { head, body: Vec::new() };
        let length = response.header("Content-Length").unwrap().parse().unwrap();
        while self.received.len() < length {
            assert_ne!(self.receive(), 0, "the response is cut short");
        }
        response.body = self.received.drain(..length).collect();
        response
    }

    /// The next head of a response.
    pub(crate) fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.received.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert_ne!(self.receive(), 0, "no response, after {:?}", self.received);
        }
    }

    fn receive(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let len = loop {
            match self.stream.read(&mut buffer) {
                // A process that was stopped for a while finds its calls interrupted.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.unwrap(),
            }
        };
        self.received.extend_from_slice(&buffer[..len]);
        len
    }

    /// Waits for the tracker to end the connection, and asserts that it says nothing more.
    pub(crate) fn ends(&mut self) {
        assert_eq!(self.receive(), 0);
        assert_eq!(self.received, b"");
    }
}

impl Plain {
    /// Waits for the tracker to end the connection, orderly or not, and asserts that it says nothing.
    pub(crate) fn ends_somehow(&mut self) {
        match self.stream.read(&mut [0; 1]) {
            Ok(len) => assert_eq!(len, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

pub(crate) fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: tracker\r\nUser-Agent: test\r\nAccept-Encoding: gzip\r\n\r\n")
}

/// All bytes percent-coded.
pub(crate) fn coded(info_hash: &InfoHash) -> String {
    info_hash.0.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// The target of an announce of a leecher, which further parameters may change.
pub(crate) fn announce(info_hash: &InfoHash, port: u16, more: &str) -> String {
    format!(
        "/announce?info_hash={}&peer_id=-XX0001-abcdefghijkl&port={port}&uploaded=0&downloaded=0&left=9\
         &compact=1{more}",
        coded(info_hash)
    )
}

pub(crate) fn scrape(info_hashes: &[InfoHash]) -> String {
    let parameters: Vec<_> =
        info_hashes.iter().map(|info_hash| format!("info_hash={}", coded(info_hash))).collect();
    format!("/scrape?{}", parameters.join("&"))
}

/// `aquatic http` with settings, on an address of IPv4 loopback and up to two cores.
pub(crate) fn command(settings: &[&str]) -> Command {
    let workers = thread::available_parallelism().map_or(1, |cores| cores.get().min(2));
    let usual = [&format!("workers={workers}"), "network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0"];
    service("http", &[&usual, settings].concat())
}

pub(crate) fn start(settings: &[&str]) -> Tracker {
    Tracker::start(1, &mut command(settings))
}

#[allow(clippy::disallowed_methods, reason = "the test waits for another process")]
pub(crate) fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

#[allow(clippy::disallowed_methods, reason = "the test measures another process")]
pub(crate) fn seconds_until(act: impl FnOnce()) -> f64 {
    let begin = std::time::Instant::now();
    act();
    begin.elapsed().as_secs_f64()
}
