//! More connections than there may be, and who makes room.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::client::{
    PATIENCE, Server, connect_from, core_of, now, pause, read_line, time_to_end, time_to_refusal,
};
use crate::secure::{Authority, secure};

/// Longer than a client may be silent before its connection makes room.
/// Three sweeps are enough; the machine may stand still for some of it.
const SILENCE: Duration = Duration::from_millis(2000);

/// Requests that together take much longer than that, a second each.
const HELD: usize = 8;

/// Connections on both cores together.
const LIMIT: usize = 40;

fn start(more: &[(&str, &str)]) -> Server {
    let patience = [("HEAD", "600000"), ("IDLE", "600000"), ("HANDSHAKE", "600000"), ("CONNECTIONS", "40")];
    Server::start(&[&patience[..], more].concat())
}

fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let open = stream.read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    open
}

/// Which connections are closed, once there are so many: a newcomer may be answered before the task of the
/// connection that makes room has run.
fn closed(streams: &mut [TcpStream], wanted: usize) -> Vec<usize> {
    let deadline = now() + PATIENCE;
    loop {
        let closed: Vec<_> = (0..streams.len()).filter(|&nth| !is_open(&mut streams[nth])).collect();
        if closed.len() >= wanted || now() >= deadline {
            return closed;
        }
        pause(Duration::from_millis(5));
    }
}

#[test]
fn the_longest_idle_connections_make_room() {
    let server = start(&[("IDLE_MAKES_ROOM", "1")]);
    let mut cores = [const { Vec::new() }; 2];
    for _ in 0..LIMIT {
        let mut stream = server.connect();
        cores[core_of(&mut stream).unwrap()].push(stream);
    }
    // In another order than they came in.
    for core in &mut cores {
        pause(SILENCE);
        core.rotate_left(7);
        core[7..].iter_mut().for_each(|stream| assert!(core_of(stream).is_some()));
    }
    pause(SILENCE);
    let mut new = [0; 2];
    let mut newcomers = Vec::new();
    for _ in 0..12 {
        let mut stream = server.connect();
        new[core_of(&mut stream).unwrap()] += 1;
        newcomers.push(stream);
        for (core, new) in cores.iter_mut().zip(new) {
            assert_eq!(closed(core, new), (0..new).collect::<Vec<_>>());
        }
    }
    assert_eq!((server.evicted("limit"), server.refused("limit")), (12, 0));
    assert_eq!(server.metric(Server::OPEN), LIMIT as u64);
    assert!(newcomers.iter_mut().all(|stream| core_of(stream).is_some()));
    server.stop();
}

#[test]
fn at_the_limit_of_an_address_its_idle_connection_makes_room_on_whichever_core_it_is() {
    let limits = [("IDLE_MAKES_ROOM", "1"), ("PER_ADDRESS", "1"), ("CONNECTIONS", "2")];
    let server = start(&[&limits[..], &[("LISTEN", "0.0.0.0:0")]].concat());
    let port = server.address.rsplit(':').next().unwrap();
    let connect = |host| connect_from(host, &format!("127.0.0.1:{port}"));
    // Idle for longer than all others, but of another address.
    let mut other = connect("127.0.0.2");
    assert!(core_of(&mut other).is_some());
    let mut last = connect("127.0.0.1");
    assert!(core_of(&mut last).is_some());
    for _ in 0..5 {
        pause(SILENCE);
        let mut newcomer = connect("127.0.0.1");
        assert!(core_of(&mut newcomer).is_some());
        time_to_end(&mut last);
        last = newcomer;
    }
    assert_eq!((server.evicted("limit_per_address"), server.refused("limit_per_address")), (5, 0));
    assert_eq!((server.evicted("limit"), server.refused("limit")), (0, 0), "nobody else makes room");
    assert!(core_of(&mut other).is_some());
    server.until(Server::OPEN, 2);
    server.stop();
}

#[test]
fn at_the_limit_of_an_address_the_longest_idle_connection_of_the_core_makes_room() {
    for host in ["127.0.0.1", "[::1]"] {
        let listen = format!("{host}:0");
        let server = start(&[("IDLE_MAKES_ROOM", "1"), ("PER_ADDRESS", "6"), ("LISTEN", &listen)]);
        let open = || {
            let mut stream = server.connect();
            core_of(&mut stream).map(|core| (core, stream))
        };
        let mut idle: Vec<_> = (0..6).map(|_| open().unwrap()).collect();
        pause(SILENCE);
        let busy = idle.split_off(4);
        busy.iter().for_each(|(_, stream)| (&*stream).write_all(b"hold\n").unwrap());
        let _newcomer = open().unwrap();
        let (cores, mut idle): (Vec<_>, Vec<_>) = idle.into_iter().unzip();
        let [closed] = closed(&mut idle, 1)[..] else { panic!("one connection makes room") };
        assert!(!cores[..closed].contains(&cores[closed]), "{closed} was not the oldest");
        for (_, mut stream) in busy {
            assert_eq!(read_line(&mut stream).as_deref(), Some("held"));
        }
        assert_eq!((server.evicted("limit_per_address"), server.refused("limit_per_address")), (1, 0));
        server.stop();
    }
}

#[test]
fn who_is_being_answered_stays() {
    let server = start(&[("IDLE_MAKES_ROOM", "1"), ("ANSWER", "20000")]);
    let mut open: Vec<_> = (0..LIMIT).map(|_| server.connect()).collect();
    for _ in 0..HELD {
        open.iter_mut().for_each(|stream| stream.write_all(b"hold\n").unwrap());
    }
    pause(SILENCE);
    assert!(time_to_refusal(server.connect()) < PATIENCE);
    for _ in 0..HELD {
        assert!(open.iter_mut().all(|stream| read_line(stream).as_deref() == Some("held")));
    }
    assert_eq!((server.evicted("limit"), server.refused("limit")), (0, 1));
    server.stop();
}

#[test]
fn silent_clients_and_halves_of_requests_keep_nobody_out() {
    let server = start(&[("IDLE_MAKES_ROOM", "1")]);
    let mut crowd: Vec<_> = (0..LIMIT * 5).map(|_| server.connect()).collect();
    crowd.iter_mut().for_each(|stream| _ = stream.write_all(b"wh"));
    pause(SILENCE);
    let mut healthy = Vec::new();
    for _ in 0..LIMIT / 2 {
        let begin = now();
        let mut stream = server.connect();
        assert!(core_of(&mut stream).is_some());
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
        healthy.push(stream);
    }
    assert!(healthy.iter_mut().all(|stream| core_of(stream).is_some()));
    drop((crowd, healthy));
    server.until(Server::OPEN, 0);
    server.stop();
}

#[test]
fn handshakes_that_stall_make_room_for_any_service() {
    let authority = Authority::new();
    let server = start(&[authority.setting()]);
    let mut idle = secure(server.connect(), &authority.client());
    assert!(core_of(&mut idle).is_some());
    let mut crowd: Vec<_> = (0..LIMIT - 1).map(|_| server.connect()).collect();
    crowd.iter_mut().for_each(|stream| stream.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap());
    server.until(Server::OPEN, LIMIT as u64);
    pause(SILENCE);
    let mut healthy = Vec::new();
    for _ in 0..LIMIT / 4 {
        let mut stream = secure(server.connect(), &authority.client());
        assert!(core_of(&mut stream).is_some());
        healthy.push(stream);
    }
    assert!(core_of(&mut idle).is_some());
    assert_eq!((server.evicted("limit"), server.refused("limit")), (LIMIT as u64 / 4, 0));
    assert_eq!(closed(&mut crowd, LIMIT / 4).len(), LIMIT / 4);
    // A stop leaves handshakes most of the time that it has itself.
    drop(crowd);
    server.until(Server::OPEN, LIMIT as u64 / 4 + 1);
    server.stop();
}
