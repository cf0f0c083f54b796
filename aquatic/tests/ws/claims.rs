//! Peers and their connections: several peers per connection, ends of connections, and pending claimants.

use std::time::{Duration, Instant};

use crate::client::{Client, Got, Plain, peer, start};
use crate::support::torrent;

#[test]
fn all_peers_of_a_connection_are_removed_with_it() {
    let tracker = start(&[]);
    let [mut one, mut other] = [(); 2].map(|()| Plain::connect(tracker.address()));
    for number in 0..20 {
        for name in 1..4 {
            assert_eq!(one.announce(torrent(number), peer(name), 1, &[]).counts(), (0, name.into()));
        }
        assert_eq!(other.announce(torrent(number), peer(9), 1, &[]).counts(), (0, 4));
    }
    drop(one);
    // The tracker receives the end of the connection after a moment.
    let deadline = Instant::now() + Duration::from_secs(60);
    for number in 0..20 {
        while other.leechers(torrent(number)) != 1 {
            assert!(Instant::now() < deadline, "the peers of an ended connection are removed");
        }
    }
    assert_eq!(other.announce(torrent(0), peer(9), 1, &["x"]).counts(), (0, 1));
    other.assert_quiet();
}

#[test]
fn peers_of_one_connection_receive_offers_of_each_other() {
    let tracker = start(&[]);
    let mut page = Plain::connect(tracker.address());
    page.announce(torrent(1), peer(1), 1, &["self"]);
    page.assert_quiet();
    page.announce(torrent(1), peer(2), 1, &["x", "y"]);
    let (from, id) = page.next().offer();
    assert_eq!(from, peer(2));
    page.answer(torrent(1), peer(1), peer(2), &id);
    assert!(matches!(page.next(), Got::Answer { from, .. } if from == peer(1)));
    page.assert_quiet();
}

#[test]
fn a_claimant_does_not_replace_a_peer_that_stays() {
    let tracker = start(&[]);
    let [mut victim, mut claimant, mut other] = [(); 3].map(|()| Plain::connect(tracker.address()));
    for number in 0..6 {
        let torrent = torrent(number);
        victim.announce(torrent, peer(1), 1, &[]);
        let reply = claimant.announce(torrent, peer(1), 0, &["forged"]);
        assert_eq!(reply.counts(), (0, 1), "the claimant is not in the swarm");
        assert!(reply.interval() <= 15, "a pending claimant announces again soon: {reply:?}");
        victim.assert_quiet();
        other.announce(torrent, peer(2), 1, &["x"]);
        assert_eq!(victim.next().offer().0, peer(2));
        // The claimant cannot make the peer leave.
        claimant.stop(torrent, peer(1));
        assert_eq!(other.leechers(torrent), 2);
    }
    drop(claimant);
    other.announce(torrent(0), peer(2), 1, &["y"]);
    assert_eq!(victim.next().offer().0, peer(2), "the end of the claimant changes nothing");
}

#[test]
fn a_claimant_takes_over_when_the_old_connection_closes() {
    let tracker = start(&[]);
    let [mut before, mut after, mut other] = [(); 3].map(|()| Plain::connect(tracker.address()));
    for number in 0..6 {
        before.announce(torrent(number), peer(1), 1, &[]);
        after.announce(torrent(number), peer(1), 1, &[]);
    }
    drop(before);
    let deadline = Instant::now() + Duration::from_secs(60);
    for number in 0..6 {
        // Its offers are relayed once it is no pending claimant any more.
        other.announce(torrent(number), peer(2), 1, &[]);
        loop {
            after.announce(torrent(number), peer(1), 1, &["back"]);
            if let Some(offer) = other.take_soon() {
                assert_eq!(offer.offer().0, peer(1));
                break;
            }
            assert!(Instant::now() < deadline, "the old connection is closed");
        }
        assert_eq!(other.leechers(torrent(number)), 2);
    }
}

#[test]
fn a_claimant_takes_over_when_the_old_connection_does_not_answer_pings() {
    let tracker = start(&[]);
    let [mut before, mut after] = [(); 2].map(|()| Plain::connect(tracker.address()));
    before.announce(torrent(1), peer(1), 1, &[]);
    // This connection is not read from here on, so it answers no ping, as after a loss of the network.
    let start = Instant::now();
    after.announce(torrent(1), peer(1), 1, &[]);
    let mut other = Plain::connect(tracker.address());
    other.announce(torrent(1), peer(2), 1, &[]);
    loop {
        std::thread::sleep(Duration::from_millis(500));
        after.announce(torrent(1), peer(1), 1, &["back"]);
        if let Some(offer) = other.take_soon() {
            assert_eq!(offer.offer().0, peer(1));
            break;
        }
        // Without one, the connection would end after ws.client.idle_timeout, 75 s.
        assert!(start.elapsed() < Duration::from_secs(60), "the probe times out");
    }
    assert!(start.elapsed() > Duration::from_secs(5), "the probe does not time out at once");
    assert_eq!(before.next(), Got::Gone);
}

#[test]
fn a_connection_that_answers_pings_stays() {
    let tracker = start(&["ws.client.idle_timeout=4"]);
    let [mut alive, mut silent] = [(); 2].map(|()| Plain::connect(tracker.address()));
    alive.announce(torrent(1), peer(1), 1, &[]);
    silent.announce(torrent(1), peer(2), 1, &[]);
    // One ping after half of the time each, so that it has been connected for longer than the time.
    let mut pings = 0;
    while pings < 3 {
        if let tungstenite::Message::Ping(_) = alive.socket.read().unwrap() {
            pings += 1;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while alive.leechers(torrent(1)) > 1 {
        assert!(Instant::now() < deadline, "the silent peer is removed");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(silent.next(), Got::Gone);
}

impl Client<std::net::TcpStream> {
    /// Returns the next message if it arrives soon.
    fn take_soon(&mut self) -> Option<Got> {
        self.socket.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let next = loop {
            match self.socket.read() {
                Ok(tungstenite::Message::Text(text)) => break Some(Got::of(&text)),
                Ok(_) => {}
                Err(_) => break None,
            }
        };
        self.socket.get_ref().set_read_timeout(Some(crate::support::REPLY)).unwrap();
        next
    }
}
