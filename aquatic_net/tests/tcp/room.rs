//! More connections than there may be, and who makes room.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::client::{Server, core_of, now, pause, read_line, time_to_end, time_to_refusal};
use crate::secure::{Authority, secure};

/// Longer than a client may be silent before its connection makes room.
const SILENCE: Duration = Duration::from_millis(800);

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
            // The newcomer may be answered before the other task has run.
            let closed = |core: &mut [TcpStream]| {
                (0..core.len()).filter(|&nth| !is_open(&mut core[nth])).collect::<Vec<_>>()
            };
            let deadline = now() + Duration::from_secs(2);
            while closed(core).len() < new && now() < deadline {
                pause(Duration::from_millis(1));
            }
            assert_eq!(closed(core), (0..new).collect::<Vec<_>>());
        }
    }
    assert_eq!((server.evicted("limit"), server.refused("limit")), (12, 0));
    assert_eq!(server.metric(Server::OPEN), LIMIT as u64);
    assert!(newcomers.iter_mut().all(|stream| core_of(stream).is_some()));
    server.stop();
}

#[test]
fn who_is_being_answered_stays() {
    let server = start(&[("IDLE_MAKES_ROOM", "1"), ("ANSWER", "20000")]);
    let mut open: Vec<_> = (0..LIMIT).map(|_| server.connect()).collect();
    for _ in 0..3 {
        open.iter_mut().for_each(|stream| stream.write_all(b"hold\n").unwrap());
    }
    pause(SILENCE);
    assert!(time_to_refusal(server.connect()) < Duration::from_secs(1));
    for _ in 0..3 {
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
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
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
    let ended = crowd.iter_mut().filter_map(|stream| (!is_open(stream)).then(|| time_to_end(stream))).count();
    assert_eq!(ended, LIMIT / 4);
    server.stop();
}
