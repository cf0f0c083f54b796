//! Connections of an attacker: opened by the thousands from several addresses, and watched without waiting
//! for any.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::target::{now, pause};

/// Addresses of loopback that connections are made from. Each has some 28,000 ports.
const SOURCES: usize = 32;

/// Longest pause between two looks at all connections.
const LOOK: Duration = Duration::from_millis(20);

/// How the connections of an attack have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Connections that were opened.
    pub(crate) opened: usize,
    /// Ended by the tracker after at least one answer with a good status.
    pub(crate) answered: usize,
    /// Ended by the tracker after an answer that refuses.
    pub(crate) refused: usize,
    /// Ended by the tracker without a word.
    pub(crate) cut: usize,
    /// Left by the attacker while the tracker had not ended them.
    pub(crate) left: usize,
    /// The shortest and the longest time it took the tracker to end one.
    pub(crate) shortest: Duration,
    /// See `shortest`.
    pub(crate) longest: Duration,
}

impl Tally {
    /// Both attacks together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            opened: self.opened + other.opened,
            answered: self.answered + other.answered,
            refused: self.refused + other.refused,
            cut: self.cut + other.cut,
            left: self.left + other.left,
            shortest: self.shortest.min(other.shortest),
            longest: self.longest.max(other.longest),
        }
    }

    /// Connections that nobody has watched to their end.
    pub(crate) fn left(opened: usize) -> Self {
        Self { opened, left: opened, ..Self::default() }
    }
}

/// One connection.
pub(crate) struct Line {
    pub(crate) stream: TcpStream,
    begun: Instant,
    ended: Option<Duration>,
    /// The beginning of what has come.
    pub(crate) heard: Vec<u8>,
}

/// How much of what comes is kept.
const KEPT: usize = 4096;

impl Line {
    /// The nth connection of an attack.
    pub(crate) fn open(nth: usize, to: SocketAddr) -> Self {
        Self::over(connect(nth, to))
    }

    /// A connection that exists.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self { stream, begun: now(), ended: None, heard: Vec::new() }
    }

    /// Opens that many.
    pub(crate) fn several(count: usize, to: SocketAddr) -> Vec<Self> {
        (0..count).map(|nth| Self::open(nth, to)).collect()
    }

    /// Sends what the socket takes; 0 if that is nothing or the connection has ended.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> usize {
        match (&self.stream).write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.end();
                0
            }
        }
    }

    fn end(&mut self) {
        // What came before a reset can be read no more; what was read before counts.
        let time = self.begun.elapsed();
        self.ended.get_or_insert(time);
    }

    /// Takes what has come. Tells whether the connection has ended.
    pub(crate) fn look(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        while self.ended.is_none() {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.end(),
                Ok(len) => {
                    let room = KEPT - self.heard.len();
                    self.heard.extend_from_slice(&bytes[..len.min(room)]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.end(),
            }
        }
        self.ended.is_some()
    }

    /// Waits until something has come, without reading it.
    pub(crate) fn wait_for(&self, expected: &[u8]) {
        let deadline = now() + Duration::from_secs(60);
        let mut bytes = [0; KEPT];
        loop {
            let len = self.stream.peek(&mut bytes).unwrap_or(0);
            if bytes[..len].windows(expected.len()).any(|heard| heard == expected) {
                return;
            }
            assert!(now() < deadline, "{} has come", String::from_utf8_lossy(&bytes[..len]));
            pause(LOOK);
        }
    }

    /// Tells, without reading, whether the connection has been reset.
    pub(crate) fn has_failed(&mut self) -> bool {
        if !matches!(self.stream.take_error(), Ok(None)) {
            self.end();
        }
        self.ended.is_some()
    }

    /// Has the kernel cut the connection off instead of ending it in order.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Connects from one of several addresses and waits for that.
pub(crate) fn connect(nth: usize, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source = SocketAddr::from(([127, 0, 2, (1 + nth % SOURCES) as u8], 0));
    socket.bind(&source.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.into()
}

/// Watches connections until the tracker has ended them all, which it has to do within the limit. In every
/// turn, `act` may do something with each that is still open, and is told which is the first one.
pub(crate) fn watch(mut lines: Vec<Line>, limit: Duration, mut act: impl FnMut(&mut Line, bool)) -> Tally {
    let mut is_first = true;
    until_ended(&mut lines, limit, |line, begins| {
        is_first |= begins;
        if !line.look() {
            act(line, std::mem::take(&mut is_first));
        }
    });
    tally(&lines)
}

/// As [`watch`], for connections on which nothing is read.
pub(crate) fn watch_deaf(mut lines: Vec<Line>, limit: Duration, mut act: impl FnMut(&mut Line)) -> Tally {
    until_ended(&mut lines, limit, |line, _| {
        if !line.has_failed() {
            act(line);
        }
    });
    tally(&lines)
}

/// Visits all connections that have not ended, again and again.
fn until_ended(lines: &mut [Line], limit: Duration, mut visit: impl FnMut(&mut Line, bool)) {
    let begin = now();
    loop {
        let mut begins = true;
        for line in lines.iter_mut().filter(|line| line.ended.is_none()) {
            visit(line, std::mem::take(&mut begins));
        }
        let open = lines.iter().filter(|line| line.ended.is_none()).count();
        if open == 0 {
            return;
        }
        assert!(begin.elapsed() < limit, "{open} of {} are still open after {limit:?}", lines.len());
        pause(LOOK);
    }
}

/// Sorts connections by what has come.
pub(crate) fn tally(lines: &[Line]) -> Tally {
    let mut tally = Tally { opened: lines.len(), shortest: Duration::MAX, ..Tally::default() };
    for line in lines {
        let Some(ended) = line.ended else {
            tally.left += 1;
            continue;
        };
        tally.shortest = tally.shortest.min(ended);
        tally.longest = tally.longest.max(ended);
        if line.heard.starts_with(b"HTTP/1.1 200 ") || line.heard.starts_with(b"HTTP/1.1 101 ") {
            tally.answered += 1;
        } else if line.heard.is_empty() {
            tally.cut += 1;
        } else {
            tally.refused += 1;
        }
    }
    if tally.left == tally.opened {
        tally.shortest = Duration::ZERO;
    }
    tally
}
