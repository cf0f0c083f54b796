//! Connections as clients and proxies see them. Each test starts a server in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that finds anything else has failed")]

#[path = "../../../aquatic_runtime/tests/engine/child.rs"]
mod child;
mod client;
mod proxies;
mod room;
mod secure;
mod server;
mod stalled;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use client::{
    PATIENCE, Server, ask, connect, connect_from, core_of, now, pause, read_line, time_to_end,
    time_to_refusal,
};

/// Longest time that a stop leaves connections in [`aquatic_net::tcp`].
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Not a test: what the other tests start.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    if std::env::var(child::SCENARIO).is_ok() {
        server::run();
    }
}

fn is_even(counts: [usize; 2]) -> bool {
    // The bound that the cores keep, with a little for connections that come at the same moment.
    let (less, more) = (counts[0].min(counts[1]), counts[0].max(counts[1]));
    more <= less + 3 + less / 16
}

#[test]
fn connections_are_spread_evenly_over_the_cores() {
    let server = Server::start(&[("LISTEN", "127.0.0.1:0,[::1]:0")]);
    let mut open = Vec::new();
    let mut counts = [0; 2];
    for n in 1..=1000 {
        let mut stream = server.connect();
        counts[core_of(&mut stream).unwrap()] += 1;
        open.push(stream);
        assert!(is_even(counts), "{counts:?} after {n}");
    }
    println!("spread of 1000 connections: {counts:?}");
    server.until(Server::OPEN, 1000);
    drop(open);
    server.until(Server::OPEN, 0);
    server.stop();
}

#[test]
fn a_unix_socket_serves_all_cores() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lines.sock");
    // A leftover of a process that has ended.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let environment = [("UNIX", path.to_str().unwrap()), ("PER_ADDRESS", "1")];
    let server = Server::start(&environment);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let mut counts = [0; 2];
    let mut open = Vec::new();
    for _ in 0..40 {
        let mut stream = UnixStream::connect(&path).unwrap();
        let answer = ask(&mut stream, "who").unwrap();
        assert!(answer.ends_with(" Local Local"), "{answer}");
        counts[answer[..1].parse::<usize>().unwrap()] += 1;
        open.push(stream);
    }
    assert!(is_even(counts), "{counts:?}");

    let second = child::Child::start("lines", &environment).wait(PATIENCE);
    assert_eq!(second.code, Some(3));
    assert!(second.output.contains("cannot listen on the unix socket"), "{}", second.output);
    assert!(ask(&mut open[0], "who").is_some(), "the first one goes on");
    server.stop();
}

#[test]
fn both_families_can_share_a_socket() {
    let server = Server::start(&[("LISTEN", "[::]:0"), ("BOTH_FAMILIES", "1")]);
    let port = server.address.rsplit(':').next().unwrap();
    let answer = ask(&mut connect(&format!("127.0.0.1:{port}")), "who").unwrap();
    assert!(answer.contains("Address(127.0.0.1:"), "{answer}");
    let answer = ask(&mut connect(&format!("[::1]:{port}")), "who").unwrap();
    assert!(answer.contains("Address([::1]:"), "{answer}");
    server.stop();

    let server = Server::start(&[("LISTEN", "[::]:0")]);
    let port = server.address.rsplit(':').next().unwrap();
    assert!(TcpStream::connect(format!("127.0.0.1:{port}")).is_err());
    let second = child::Child::start("lines", &[("LISTEN", &server.address)]).wait(PATIENCE);
    assert!(second.output.contains("another program, or another instance"), "{}", second.output);
    server.stop();
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let server = Server::start(&[("CONNECTIONS", "20"), ("HEAD", FOREVER), ("IDLE", FOREVER)]);
    let mut open: Vec<_> = (0..20).map(|_| server.connect()).collect();
    assert!(open.iter_mut().all(|stream| core_of(stream).is_some()));
    // Silent connections are worth something to this service, however long they are.
    pause(Duration::from_millis(2000));
    for _ in 0..5 {
        assert!(time_to_refusal(server.connect()) < PATIENCE);
    }
    assert_eq!(server.refused("limit"), 5);
    assert_eq!(server.metric(Server::OPEN), 20);
    drop(open.split_off(10));
    server.until(Server::OPEN, 10);
    for _ in 0..10 {
        let mut stream = server.connect();
        assert!(core_of(&mut stream).is_some());
        open.push(stream);
    }
    server.stop();
}

#[test]
fn connections_of_one_address_are_limited() {
    let limits = [("PER_ADDRESS", "3"), ("HEAD", FOREVER), ("IDLE", FOREVER)];
    let server = Server::start(&[&limits[..], &[("LISTEN", "0.0.0.0:0")]].concat());
    let mut open: Vec<_> = (0..3).map(|_| server.connect()).collect();
    assert!(open.iter_mut().all(|stream| core_of(stream).is_some()));
    assert!(time_to_refusal(server.connect()) < PATIENCE);
    assert_eq!(server.refused("limit_per_address"), 1);
    let port = server.address.rsplit(':').next().unwrap();
    let other = connect_from("127.0.0.2", &format!("127.0.0.1:{port}"));
    assert!(core_of(&mut { other }).is_some());
    drop(open.pop());
    server.until(Server::OPEN, 2);
    assert!(core_of(&mut server.connect()).is_some());
    server.stop();
}

/// A deadline that no test waits for, in milliseconds.
const FOREVER: &str = "600000";

/// Not before the limit, and not so much after it that it could be another one.
fn assert_about(time: Duration, limit: u64) {
    let limit = Duration::from_millis(limit);
    assert!(time >= limit - Duration::from_millis(20) && time < limit + PATIENCE, "{time:?}");
}

#[test]
fn who_takes_too_long_is_sent_away() {
    let server = Server::start(&[("IDLE", "700"), ("HEAD", FOREVER)]);
    let mut idle = server.connect();
    let begin = now();
    assert!(core_of(&mut idle).is_some());
    time_to_end(&mut idle);
    assert_about(begin.elapsed(), 700);
    assert_eq!((server.timeouts("idle"), server.timeouts("head")), (1, 0));
    server.until(Server::OPEN, 0);
    server.stop();

    let server = Server::start(&[("IDLE", FOREVER), ("HEAD", "1200")]);
    let begin = now();
    let mut silent = server.connect();
    time_to_end(&mut silent);
    assert_about(begin.elapsed(), 1200);
    // A head that comes byte by byte has no more time than one that comes at once.
    let begin = now();
    let mut dribbling = server.connect();
    while dribbling.write_all(b"x").is_ok() && begin.elapsed() < PATIENCE {
        pause(Duration::from_millis(250));
    }
    assert_about(begin.elapsed(), 1200);
    assert_eq!((server.timeouts("idle"), server.timeouts("head")), (1, 1));
    server.until(Server::OPEN, 0);
    server.stop();
}

#[test]
fn who_does_not_take_the_answer_is_sent_away() {
    let server = Server::start(&[("ANSWER", "800")]);
    let mut stream = server.connect();
    stream.write_all(b"big\n").unwrap();
    server.until("aquatic_connection_timeouts_total{protocol=\"lines\",reason=\"answer\"}", 1);
    server.until(Server::OPEN, 0);
    server.stop();

    let server = Server::start(&[("ANSWER", "20000")]);
    let mut stream = server.connect();
    stream.write_all(b"big\n").unwrap();
    let mut answer = vec![0; server::BIG];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer.iter().all(|&byte| byte == b'x'));
    server.stop();
}

#[test]
fn a_half_closed_connection_gets_its_answers() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    stream.write_all(b"hold\nbye\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers, "held\nbye\n");
    server.until(Server::OPEN, 0);
    server.stop();
}

#[test]
fn a_refused_request_does_not_destroy_its_own_answer() {
    let server = Server::start(&[]);
    for _ in 0..20 {
        let mut stream = server.connect();
        let mut sender = stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || sender.write_all(&[b'y'; 100_000]));
        assert_eq!(read_line(&mut stream).as_deref(), Some("too long"));
        drop(sending.join().unwrap());
        drop(stream);
    }
    // An orderly end with something left unread is as careful.
    let mut stream = server.connect();
    stream.write_all(format!("bye\n{}", "z".repeat(300)).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "bye\n");
    server.until(Server::OPEN, 0);
    server.stop();
}

#[test]
fn a_stop_ends_idle_connections_and_lets_others_finish() {
    let server = Server::start(&[("IDLE", FOREVER), ("ANSWER", FOREVER)]);
    let mut idle: Vec<_> = (0..10).map(|_| server.connect()).collect();
    assert!(idle.iter_mut().all(|stream| core_of(stream).is_some()));
    let (mut busy, mut slow) = (server.connect(), server.connect());
    slow.write_all(b"h").unwrap();
    // It is being answered from the first line of the answer on.
    assert_eq!(ask(&mut busy, "begin").as_deref(), Some("begun"));
    let begin = now();
    server.child.signal(rustix::process::Signal::TERM);
    for stream in &mut idle {
        time_to_end(stream);
    }
    assert!(begin.elapsed() < STOP_LIMIT, "at once, not by the deadline of the stop: {:?}", begin.elapsed());
    while TcpStream::connect(&server.address).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "somebody still listens");
        pause(Duration::from_millis(20));
    }
    assert_eq!(read_line(&mut busy).as_deref(), Some("held"));
    assert_eq!(read_line(&mut busy), None);
    let ended = server.child.wait(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(!ended.output.contains("did not finish"), "{}", ended.output);
    assert!(ended.output.contains("core 0 has served") && ended.output.contains("core 1 has served"));
}

#[test]
fn running_out_of_descriptors_is_survived_without_spinning() {
    // No deadline may end a connection and let in another one while the test is asking.
    let server = Server::start(&[("OPEN_FILES", "100"), ("HEAD", "600000"), ("IDLE", "600000")]);
    let mut healthy = server.connect();
    assert!(core_of(&mut healthy).is_some());
    let mut open: Vec<_> = (0..200).map(|_| server.connect()).collect();
    pause(Duration::from_millis(500));
    let (before, begin) = (server.cpu_time(), now());
    pause(Duration::from_secs(2));
    let (used, passed) = (server.cpu_time() - before, begin.elapsed());
    assert!(used < passed / 5, "{used:?} of processor time in {passed:?}");
    assert!(ask(&mut healthy, "who").is_some(), "those who are in are served");
    // Who still waits to be accepted gets no answer for now.
    let at_once = Some(Duration::from_millis(500));
    open.iter().for_each(|stream| stream.set_read_timeout(at_once).unwrap());
    let answered = open.iter_mut().filter_map(core_of).count();
    assert!((10..100).contains(&answered), "{answered} answered");

    drop(open);
    let deadline = now() + PATIENCE;
    while core_of(&mut server.connect()).is_none() {
        assert!(now() < deadline, "not accepting again");
        pause(Duration::from_millis(50));
    }
    assert!(server.refused("descriptors") > 50);
    assert!(server.metric("aquatic_accept_errors_total{protocol=\"lines\"}") >= 3);
    server.stop();
}

#[test]
fn opening_and_dropping_leaves_nothing_behind() {
    let server = Server::start(&[]);
    let mut healthy = server.connect();
    assert!(core_of(&mut healthy).is_some());
    let mut slowest = Duration::ZERO;
    let round = || {
        for n in 0..100_u32 {
            let mut stream = server.connect();
            match n % 4 {
                0 => {}
                1 => stream.write_all(b"wh").unwrap(),
                2 => stream.write_all(&[0xff; 300]).unwrap(),
                _ => assert!(core_of(&mut stream).is_some()),
            }
        }
    };
    // The kernel hands over those that said nothing up to a second or two later.
    let settle = || {
        pause(Duration::from_millis(2500));
        server.until(Server::OPEN, 1);
    };
    round();
    settle();
    let before = server.descriptors();
    for _ in 0..20 {
        round();
        let begin = now();
        assert!(core_of(&mut healthy).is_some());
        slowest = slowest.max(begin.elapsed());
    }
    settle();
    // Those of the test's own requests for metrics may be open for a moment.
    let begin = now();
    while server.descriptors() > before {
        assert!(begin.elapsed() < PATIENCE, "{} descriptors, {before} before", server.descriptors());
        pause(Duration::from_millis(20));
    }
    println!("slowest answer beside 2000 connections opened and dropped: {slowest:?}");
    assert!(slowest < PATIENCE / 4, "{slowest:?}");
    server.stop();
}
