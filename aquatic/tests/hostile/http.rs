//! What strangers send to a tracker that speaks HTTP.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::lines::{Line, Tally, connect, tally, watch, watch_deaf};
use super::siege::Healthy;
use super::target::{PATIENCE, Target, now, pause};

/// What may come on top of a deadline: the tracker looks several times a second, on a machine that is busy.
pub(crate) const SLACK: Duration = Duration::from_secs(2);

/// How long the kernel may keep a connection to itself by which nothing has come, before its deadline begins.
pub(crate) const DEFERRED: Duration = Duration::from_secs(4);

/// What may come on top for clients that first fill the buffers between them and the tracker.
pub(crate) const FILLING: Duration = Duration::from_secs(60);

/// Connections that are open at the same time in attacks of short ones.
const WAVE: usize = 1000;

/// An announce for one of many torrents.
pub(crate) fn announce(nth: usize, more: &str) -> Vec<u8> {
    let request = format!(
        "GET /announce?info_hash=%01%02{nth:018}&peer_id=-XX0000-{nth:012}&port={}&uploaded=0&downloaded=0&left=1\
         &event=started HTTP/1.1\r\nHost: tracker\r\nUser-Agent: test\r\n{more}\r\n",
        1 + nth % 60_000
    );
    request.into_bytes()
}

/// The last request of a connection.
fn last_announce(nth: usize) -> Vec<u8> {
    announce(nth, "Connection: close\r\n")
}

/// A client that keeps its connection.
pub(crate) struct HttpClient<S> {
    stream: S,
    announced: usize,
}

impl HttpClient<TcpStream> {
    pub(crate) fn new(target: &Target) -> Self {
        let stream = connect(0, target.address);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::on(stream)
    }
}

impl<S> HttpClient<S> {
    pub(crate) fn on(stream: S) -> Self {
        Self { stream, announced: 0 }
    }
}

impl<S: Read + Write + Send + 'static> Healthy for HttpClient<S> {
    const CONNECTIONS: u64 = 1;

    fn ask(&mut self) -> bool {
        // Different torrents, so that all cores take part.
        self.announced += 1;
        self.stream.write_all(&announce(self.announced % 16, "")).unwrap();
        let (head, body) = read_response(&mut self.stream);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        // Another core did not answer in time: no core may be that busy.
        let is_put_off = body.windows(10).any(|at| at == b"overloaded");
        let is_served = body.starts_with(b"d8:completei") && body.ends_with(b"e");
        assert!(is_served || is_put_off, "{}", body.escape_ascii());
        is_served
    }
}

/// A response with a length, and not a byte of what comes after it.
pub(crate) fn read_response(stream: &mut impl Read) -> (String, Vec<u8>) {
    let mut received = Vec::new();
    let mut bytes = [0; 2048];
    loop {
        let len = stream.read(&mut bytes).unwrap();
        assert_ne!(len, 0, "the connection has ended after {}", received.escape_ascii());
        received.extend_from_slice(&bytes[..len]);
        let Some(end) = received.windows(4).position(|at| at == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(received[..end + 4].to_vec()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if received.len() >= end + 4 + length.parse::<usize>().unwrap() {
            return (head, received.split_off(end + 4));
        }
    }
}

/// An attack of so many connections, some at a time.
pub(crate) fn in_waves(count: usize, mut attack: impl FnMut(usize, usize) -> Tally) -> Tally {
    let waves = (0..count).step_by(WAVE).map(|first| attack(first, WAVE.min(count - first)));
    waves.reduce(Tally::and).unwrap()
}

/// Heads that come byte by byte, for ever.
pub(crate) fn dribble(target: &Target, count: usize, every: Duration, deadline: Duration) -> Tally {
    let mut lines = Line::several(count, target.address);
    lines.iter_mut().for_each(|line| assert_ne!(line.send(b"GET /announce?x="), 0));
    let mut next = now() + every;
    let mut sending = false;
    watch(lines, deadline + SLACK, |line, is_first| {
        if is_first {
            sending = now() >= next;
            if sending {
                next += every;
            }
        }
        if sending {
            line.send(b"x");
        }
    })
}

/// Connections that never say anything.
pub(crate) fn silence(target: &Target, count: usize, deadline: Duration) -> Tally {
    watch(Line::several(count, target.address), deadline + DEFERRED + SLACK, |_, _| {})
}

/// Clients that end their side after a request, or in the midst of it. Half of them are owed an answer.
pub(crate) fn half_closed(target: &Target, count: usize) -> Tally {
    in_waves(count, |first, count| {
        let lines = (first..first + count).map(|nth| {
            let mut line = Line::open(nth, target.address);
            let request = announce(nth, "");
            let part = if nth % 2 == 0 { request.len() } else { 1 + nth % (request.len() - 1) };
            assert_eq!(line.send(&request[..part]), part);
            line.stream.shutdown(Shutdown::Write).unwrap();
            line
        });
        watch(lines.collect(), SLACK, |_, _| {})
    })
}

/// Random bytes, some of them behind the beginning of a request.
pub(crate) fn garbage(target: &Target, count: usize, deadline: Duration) -> Tally {
    let mut rng = SmallRng::seed_from_u64(1);
    in_waves(count, |first, count| {
        let lines = (first..first + count).map(|nth| {
            let mut line = Line::open(nth, target.address);
            let mut bytes = vec![0; rng.random_range(1..3000)];
            rng.fill_bytes(&mut bytes);
            let begin: &[u8] = [&b""[..], b"GET /", b"GET /announce?info_hash=", b"\r\n\r\n"][nth % 4];
            line.send(&[begin, &bytes].concat());
            line
        });
        watch(lines.collect(), deadline + SLACK, |_, _| {})
    })
}

/// Requests of which each byte is sent by itself.
pub(crate) fn single_bytes(target: &Target, count: usize) -> Tally {
    let lines = Line::several(count, target.address);
    let requests: Vec<_> = (0..count).map(last_announce).collect();
    let longest = requests.iter().map(Vec::len).max().unwrap();
    let mut lines: Vec<_> = lines.into_iter().zip(&requests).collect();
    for at in 0..longest {
        for (line, request) in &mut lines {
            if let Some(byte) = request.get(at) {
                assert_eq!(line.send(&[*byte]), 1);
            }
        }
    }
    watch(lines.into_iter().map(|(line, _)| line).collect(), SLACK, |_, _| {})
}

/// A request cut in two at each of its bytes, on a connection of its own each time.
pub(crate) fn split_everywhere(target: &Target, times: usize) -> Tally {
    let request = last_announce(1);
    let once = || {
        let halves = 1..request.len();
        let mut lines: Vec<_> = halves.map(|at| (at, Line::open(at, target.address))).collect();
        for (at, line) in &mut lines {
            assert_eq!(line.send(&request[..*at]), *at);
        }
        pause(Duration::from_millis(50));
        for (at, line) in &mut lines {
            assert_eq!(line.send(&request[*at..]), request.len() - *at);
        }
        watch(lines.into_iter().map(|(_, line)| line).collect(), SLACK, |_, _| {})
    };
    (0..times).map(|_| once()).reduce(Tally::and).unwrap()
}

/// Connections opened and closed.
pub(crate) fn open_and_drop(target: &Target, count: usize) -> Tally {
    (0..count).for_each(|nth| drop(connect(nth, target.address)));
    Tally::left(count)
}

/// Connections that are reset: at once, in the midst of a request, with the answer on its way, and after it.
pub(crate) fn resets(target: &Target, count: usize) -> Tally {
    for nth in 0..count {
        let mut line = Line::open(nth, target.address);
        let request = announce(nth, "");
        match nth % 4 {
            0 => {}
            1 => _ = line.send(&request[..nth % request.len()]),
            2 => _ = line.send(&request.repeat(3)),
            _ => {
                line.send(&request);
                line.stream.set_nonblocking(false).unwrap();
                assert_ne!(line.stream.read(&mut [0; 1]).unwrap(), 0);
            }
        }
        line.reset();
    }
    Tally::left(count)
}

/// Heads that are too long in every way there is.
pub(crate) fn header_bombs(target: &Target, count: usize) -> Tally {
    let head = "GET /announce HTTP/1.1\r\n";
    let bombs = [
        format!("{head}{}\r\n", "X: y\r\n".repeat(65)),
        format!("{head}{}\r\n", "Name: value\r\n".repeat(20_000)),
        format!("{head}X: {}\r\n\r\n", "y".repeat(9000)),
        format!("{head}{}: y\r\n\r\n", "X".repeat(200_000)),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000)),
        format!("GET /announce?{} HTTP/1.1\r\n\r\n", "info_hash=x&".repeat(10_000)),
        "a".repeat(100_000),
        "\r\n".repeat(50_000),
    ];
    in_waves(count, |first, count| {
        let lines = (first..first + count).map(|nth| {
            let bomb = bombs[nth % bombs.len()].as_bytes();
            let mut line = Line::open(nth, target.address);
            let mut sent = 0;
            let begin = now();
            // All of it, for as long as the tracker takes it.
            while sent < bomb.len() && !line.look() && begin.elapsed() < SLACK {
                sent += line.send(&bomb[sent..]);
            }
            // The last one is no request at all.
            line.stream.shutdown(Shutdown::Write).ok();
            line
        });
        watch(lines.collect(), 2 * SLACK, |_, _| {})
    })
}

/// Requests that are none, or none for a tracker. Each is to be answered.
pub(crate) fn odd_requests(target: &Target, count: usize) -> Tally {
    let odd: [&[u8]; 16] = [
        b"POST /announce HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /announce HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"GET /announce HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
        b"GET http://example.org/ HTTP/1.1\r\n\r\n",
        b"GET /announce\r\n\r\n",
        b"GET /ann\0ounce HTTP/1.1\r\n\r\n",
        b"GET /announce HTTP/1.1\r\nX\0: y\r\n\r\n",
        b"GET /announce HTTP/1.1\r\n : \r\n\r\n",
        b"GET /announce HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"<policy-file-request/>\0",
        b"GET /../../../etc/passwd HTTP/1.1\r\n\r\n",
        b"GET /announce?info_hash=%&peer_id=%%%&port=99999999999999999999&left=-9&%=%0 HTTP/1.1\r\n\r\n",
    ];
    in_waves(count, |first, count| {
        let lines = (first..first + count).map(|nth| {
            let mut line = Line::open(nth, target.address);
            line.send(odd[nth % odd.len()]);
            line.stream.shutdown(Shutdown::Write).unwrap();
            line
        });
        watch(lines.collect(), 2 * SLACK, |_, _| {})
    })
}

/// Requests sent without end by clients that never read an answer.
pub(crate) fn pipelining_bombs(target: &Target, count: usize, deadline: Duration) -> Tally {
    let requests = announce(1, "").repeat(64);
    let lines = Line::several(count, target.address);
    watch_deaf(lines, deadline + FILLING, |line| {
        // A connection that is cut off in the midst of a request is as good.
        while line.send(&requests) > 0 {}
    })
}

/// Clients that ask for more than their sockets take, and never read it.
pub(crate) fn never_reading(target: &Target, count: usize, deadline: Duration) -> Tally {
    let hashes: Vec<_> = (0..50).map(|nth| format!("info_hash=%01%02{nth:018}")).collect();
    let scrape = format!("GET /scrape?{} HTTP/1.1\r\nHost: x\r\n\r\n", hashes.join("&"));
    let requests = scrape.repeat(20).into_bytes();
    let mut lines = Line::several(count, target.address);
    for line in &mut lines {
        // The replies are four times as long, and come until the tracker's socket is full, too.
        while line.send(&requests) > 0 {}
    }
    watch_deaf(lines, deadline + FILLING, |_| {})
}

/// More connections than there may be. Those beyond `stay` are closed at once; the others stay and are left.
pub(crate) fn crowd(target: &Target, count: usize, stay: usize) -> Tally {
    let mut lines = Line::several(count, target.address);
    lines.iter_mut().for_each(|line| _ = line.send(b"GET"));
    // Those that stay would end after their time to send a request, a minute.
    let deadline = now() + Duration::from_secs(30);
    while lines.iter_mut().filter_map(|line| line.look().then_some(())).count() < count - stay
        && now() < deadline
    {
        pause(Duration::from_millis(50));
    }
    pause(Duration::from_millis(500));
    lines.iter_mut().for_each(|line| _ = line.look());
    tally(&lines)
}

/// Clients that have been answered and do not come back.
pub(crate) fn idle(target: &Target, count: usize, deadline: Duration) -> Tally {
    let lines = (0..count).map(|nth| {
        let mut line = Line::open(nth, target.address);
        assert_ne!(line.send(&announce(nth, "")), 0);
        line
    });
    watch(lines.collect(), deadline + SLACK, |_, _| {})
}
