//! Clients that stop in the midst of a TLS handshake, from several addresses, and one that does not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::client::{Server, connect_from, core_of, now, time_to_end};
use crate::secure::{Authority, Secure, secure};

/// Connections that stop at each stage.
const STALLED: usize = 1000;

/// Handshakes that a core lets wait for their clients.
const LIMIT: usize = 100;

/// Longest time from the first packet of a healthy client to its first answer, on a machine where other tests
/// run, too.
const BOUND: Duration = Duration::from_secs(10);

/// Where a client stops.
#[derive(Clone, Copy, Debug)]
enum Stage {
    BeforeTheFirstByte,
    InTheFirstMessage,
    AfterTheServersMessages,
}

impl Stage {
    fn connect(self, server: &Server, hello: &[u8], nth: usize) -> TcpStream {
        let source = format!("127.0.0.{}", 2 + nth % 16);
        let mut stream = connect_from(&source, &server.address);
        match self {
            Self::BeforeTheFirstByte => {}
            Self::InTheFirstMessage => stream.write_all(&hello[..hello.len() / 2]).unwrap(),
            Self::AfterTheServersMessages => {
                stream.write_all(hello).unwrap();
                stream.read_exact(&mut [0; 1]).unwrap();
            }
        }
        stream
    }
}

/// The first message of a client.
fn hello(server: &Server, authority: &Authority) -> Vec<u8> {
    let mut hello = Vec::new();
    secure(server.connect(), &authority.client()).conn.write_tls(&mut hello).unwrap();
    hello
}

/// A healthy client, and the time until it is served.
fn healthy(server: &Server, authority: &Authority) -> (Secure, Duration) {
    let begin = now();
    let mut stream = secure(server.connect(), &authority.client());
    assert!(core_of(&mut stream).is_some());
    (stream, begin.elapsed())
}

#[test]
fn handshakes_that_stall_do_not_keep_out_others() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let authority = Authority::new();
    let (limit, patience) = (LIMIT.to_string(), "600000");
    let environment =
        [authority.setting(), ("HANDSHAKE", patience), ("HEAD", patience), ("HANDSHAKES", &limit)];
    let server = Server::start(&environment);
    let hello = hello(&server, &authority);
    let (mut first, _) = healthy(&server, &authority);

    let (mut stalled, mut slowest) = (Vec::new(), Duration::ZERO);
    for stage in [Stage::BeforeTheFirstByte, Stage::InTheFirstMessage, Stage::AfterTheServersMessages] {
        for nth in 0..STALLED {
            stalled.push(stage.connect(&server, &hello, nth));
            if nth % 50 == 49 {
                let (_, time) = healthy(&server, &authority);
                slowest = slowest.max(time);
            }
        }
    }
    println!("slowest of 60 handshakes beside {} that stall: {slowest:?}", stalled.len());
    assert!(slowest < BOUND, "{slowest:?}");
    assert!(core_of(&mut first).is_some(), "who is in stays in");
    assert_eq!((server.refused("handshakes"), server.refused("limit")), (0, 0));
    // The others wait; each healthy one has had a place for a moment.
    let evicted = server.evicted("handshakes") as usize;
    assert!((STALLED - 2 * LIMIT..=STALLED - 2 * LIMIT + 60).contains(&evicted), "{evicted}");
    drop(stalled);
    server.until(Server::OPEN, 1);
    server.until(HANDSHAKING, 0);
    server.stop();
}

const HANDSHAKING: &str = "aquatic_tls_handshakes_open{protocol=\"lines\"}";

#[test]
fn a_queue_that_is_full_refuses() {
    let authority = Authority::new();
    let server = Server::start(&[authority.setting(), ("QUEUED", "1"), ("HANDSHAKE", "20000")]);
    let hello = hello(&server, &authority);
    // More than are served and wait before the cores look again: they find them all at once.
    server.child.signal(Signal::STOP);
    let mut crowd: Vec<_> = (0..200).map(|_| server.connect()).collect();
    crowd.iter_mut().for_each(|stream| stream.write_all(&hello).unwrap());
    server.child.signal(Signal::CONT);
    let served = crowd.iter_mut().map(|stream| stream.read(&mut [0; 1]).unwrap_or(0)).sum::<usize>();
    assert_eq!(served + server.refused("handshakes") as usize, 200);
    assert!((2..200).contains(&served), "{served}");
    drop(crowd);
    // Until they have ended, the queue may still be full.
    server.until(Server::OPEN, 0);
    let _ = healthy(&server, &authority);
    server.until(HANDSHAKING, 0);
    server.stop();
}

#[test]
fn a_first_message_that_ends_too_early_ends_the_connection() {
    let authority = Authority::new();
    let server = Server::start(&[authority.setting(), ("HANDSHAKE", "600000")]);
    let hello = hello(&server, &authority);
    for part in [0, 3, hello.len() / 2] {
        let mut stream = server.connect();
        stream.write_all(&hello[..part]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        time_to_end(&mut stream);
    }
    server.until(Server::OPEN, 0);
    server.stop();
}
