//! Clients that mean no good.

use std::time::Duration;

use crate::client::{Plain, peer, start, torrent};

#[test]
fn floods_of_answers_and_pings_reach_nobody() {
    let tracker = start(&["ws.client.max_message_rate=0"]);
    let [mut one, mut two, mut stranger] = [(); 3].map(|()| Plain::connect(tracker.address()));
    one.announce(torrent(1), peer(1), 1, &[]);
    two.announce(torrent(1), peer(2), 1, &["x"]);
    let (from, id) = one.next().offer();
    for round in 0..2000 {
        stranger.answer(torrent(1), peer(1), from, &id);
        if round % 100 == 0 {
            stranger.socket.send(tungstenite::Message::Ping("x".into())).unwrap();
        }
    }
    two.assert_quiet();
    one.answer(torrent(1), peer(1), from, &id);
    assert!(matches!(two.next(), crate::client::Got::Answer { .. }));
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let tracker = start(&[]);
    let mut watcher = Plain::connect(tracker.address());
    for round in 0..300_u32 {
        let mut guest = Plain::connect(tracker.address());
        guest.announce(torrent(round % 7), peer(round as u8), 1, &["x"]);
        if round % 2 == 0 {
            let _ = guest.socket.close(None);
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    for number in 0..7 {
        assert_eq!(watcher.leechers(torrent(number)), 0);
    }
}
