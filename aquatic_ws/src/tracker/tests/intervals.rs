//! How long clients are asked to wait, and how long they are remembered for it.

use super::*;

impl Cores {
    /// The interval in the reply to an announce on the first core.
    fn interval(&mut self, from: ConnectionId) -> u32 {
        let torrent = self.torrent(0);
        self.announce(from, torrent, 1, &[]);
        let (texts, _) = self.received(from);
        let TrackerMessage::Announce(reply) = TrackerMessage::parse(&texts[0]).unwrap() else {
            panic!("no reply to an announce: {texts:?}")
        };
        reply.interval
    }

    /// The first core is busy for this share of ten minutes.
    fn be_busy(&mut self, share: f64) {
        for _ in 0..600 {
            self.now.0 += 1;
            self.trackers[0].follow_load(Some((share, 1.0)), self.now);
        }
    }
}

/// A configuration without jitter.
fn config() -> WsConfig {
    WsConfig { announce_interval_jitter: 0, ..WsConfig::default() }
}

#[test]
fn intervals_grow_with_the_load_and_the_swarm() {
    let mut cores = Cores::new();
    let client = cores.open(0);
    cores.trackers[0].reconfigure(&config());
    assert_eq!(cores.interval(client), 120);
    cores.be_busy(0.5);
    assert_eq!(cores.interval(client), 120);
    cores.be_busy(0.825);
    assert!((175..=185).contains(&cores.interval(client)), "halfway: {}", cores.interval(client));
    cores.be_busy(1.0);
    assert_eq!(cores.interval(client), 240);
    cores.be_busy(0.1);
    assert_eq!(cores.interval(client), 120);
    cores.trackers[0].reconfigure(&WsConfig { max_interval_swarm_size: 1, ..config() });
    assert_eq!(cores.interval(client), 240, "as the swarm has as many peers");
}

#[test]
fn clients_are_not_forgotten_while_they_wait() {
    let mut cores = Cores::new();
    let client = cores.open(0);
    let mut config = WsConfig { max_announce_interval: 3600, ..config() };
    cores.trackers[0].reconfigure(&config);
    cores.be_busy(1.0);
    assert_eq!(cores.interval(client), 300, "half of the age of peers");
    config.client.max_announce_idle = 500;
    cores.trackers[0].reconfigure(&config);
    assert_eq!(cores.interval(client), 250, "half of what a connection may be without an announce");
    config.cleaning.max_peer_age = 240;
    cores.trackers[0].reconfigure(&config);
    assert_eq!(cores.interval(client), 120);
    cores.be_busy(1.0);
    assert_eq!(cores.trackers[0].max_peer_age(), 600, "of those that were told 300");
    (0..3).for_each(|_| cores.be_busy(0.1));
    assert_eq!(cores.trackers[0].max_peer_age(), 240);
}
