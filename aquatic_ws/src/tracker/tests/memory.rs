//! What is stored as memory runs out.

use aquatic_tracker::Degradation;

use super::*;

const BUDGET: u64 = 200_000;

/// Cores of which the first has a small budget.
fn bounded() -> (Cores, CoreBudget) {
    let mut cores = Cores::new();
    let budget = CoreBudget::new(BUDGET);
    cores.trackers[0].bound_memory(Some(budget.clone()), None);
    (cores, budget)
}

impl Cores {
    fn step(&mut self) -> Degradation {
        self.trackers[0].check_memory();
        self.trackers[0].degradation.step()
    }

    /// Announces peers of new torrents of the first core, each over a connection of its own, until a step is
    /// taken. Returns the connections.
    fn fill_until(&mut self, step: Degradation, from: &mut u32) -> Vec<ConnectionId> {
        let mut connections = Vec::new();
        while self.step() < step {
            let torrent = self.next_torrent(from);
            let connection = self.open(0);
            self.announce(connection, torrent, 1, &[]);
            connections.push(connection);
            assert!(connections.len() < 5000, "memory is not counted");
        }
        connections
    }

    /// The next torrent that the first core owns.
    fn next_torrent(&self, from: &mut u32) -> InfoHash {
        loop {
            *from += 1;
            let mut info_hash = InfoHash([7; 20]);
            info_hash.0[..4].copy_from_slice(&from.wrapping_mul(0x9e37_79b1).to_be_bytes());
            if self.trackers[0].router.owner(&info_hash) == Owner::Here {
                return info_hash;
            }
        }
    }

    /// Announces without a known peer, and returns whether the peer was stored. It is answered in any case.
    fn is_stored(&mut self, torrent: InfoHash, peer: u8) -> bool {
        let (before, connection) = (self.peers(), self.open(0));
        self.announce(connection, torrent, peer, &[]);
        let replies = kinds(self.received(connection));
        assert!(matches!(&replies[..], [reply] if reply.starts_with("reply")), "{replies:?}");
        self.peers() > before
    }

    fn not_stored(&self) -> u64 {
        let samples = self.registry.samples().into_iter().filter(|sample| {
            sample.metric == &names::NOT_STORED && sample.label("reason") == Some(Limit::Memory.name())
        });
        samples.map(|sample| sample.value).sum()
    }
}

#[test]
fn first_large_torrents_and_then_all_new_peers_are_done_without() {
    let (mut cores, _) = bounded();
    let mut number = 0;
    let first = cores.next_torrent(&mut number);
    assert!(cores.is_stored(first, 1));
    assert_eq!(cores.trackers[0].max_peer_age(), 600);

    let mut connections = cores.fill_until(Degradation::LargeTorrents, &mut number);
    assert!(cores.is_stored(first, 2), "a second peer");
    assert!(!cores.is_stored(first, 3), "a third one");
    assert_eq!((cores.not_stored(), cores.trackers[0].max_peer_age()), (1, 600));

    connections.extend(cores.fill_until(Degradation::OldPeers, &mut number));
    let interval = WsConfig::default().peer_announce_interval;
    assert!(cores.trackers[0].max_peer_age() <= interval + interval / 2);

    connections.extend(cores.fill_until(Degradation::NewPeers, &mut number));
    let memberships = cores.trackers[0].connections.membership_bytes();
    for _ in 0..100 {
        let torrent = cores.next_torrent(&mut number);
        assert!(!cores.is_stored(torrent, 1));
    }
    assert_eq!(cores.not_stored(), 101);
    assert_eq!(cores.trackers[0].connections.membership_bytes(), memberships, "nor are they remembered");
    let used = cores.trackers[0].swarms.stats().bytes + memberships;
    assert!((used as u64) < BUDGET, "{used}");

    connections.into_iter().for_each(|connection| cores.close(connection));
    // Tables shrink at the end of a pass.
    let tracker = &mut cores.trackers[0];
    while !tracker.swarms.expire(Seconds(1), 600, 100_000).pass_ended {}
    tracker.tick(Duration::ZERO);
    assert_eq!(cores.step(), Degradation::None);
    assert!(cores.is_stored(first, 9));
}

#[test]
fn without_memory_known_peers_are_updated_and_only_they_offer() {
    let (mut cores, budget) = bounded();
    let mut number = 0;
    let torrent = cores.next_torrent(&mut number);
    let known = cores.open(0);
    cores.announce(known, torrent, 1, &[]);
    budget.note(Store::BitTorrent, BUDGET);
    assert_eq!(cores.step(), Degradation::NewPeers, "the stores of a core share its budget");
    cores.received(known);
    cores.announce(known, torrent, 1, &[]);
    assert_eq!((kinds(cores.received(known)).len(), cores.not_stored()), (1, 0));
    let other = cores.open(0);
    cores.announce(other, torrent, 2, &["offer"]);
    assert_eq!(cores.not_stored(), 1);
    assert!(
        kinds(cores.received(known)).is_empty(),
        "an answer could not be relayed to a peer that is not stored"
    );
    // Whoever claims a known peer id would be noted.
    cores.announce(other, torrent, 1, &[]);
    assert_eq!(cores.not_stored(), 2);
    budget.note(Store::BitTorrent, 0);
    assert_eq!(cores.step(), Degradation::None);
    cores.announce(other, torrent, 2, &[]);
    assert_eq!(cores.peers(), 2);
}
