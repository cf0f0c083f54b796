//! A node of one core, for tests: a tracker that publishes, and whose content can be seen.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use aquatic_common::config::AccessListConfig;
use aquatic_common::expiry::Expire;
use aquatic_common::{AnnounceEvent, Family, InfoHash, Seconds, Steering};
use aquatic_metrics::Registry;
use aquatic_swarm::{
    Announce, Families, HashKey, PeerBuffers, SaveFilter, SavePass, SaveSwarms, SavedPeer, SavedTorrent,
    Shard, ShardLimits,
};
use aquatic_tracker::replication::{Applied, Change, take_record};
use aquatic_tracker::{Admission, IntervalPolicy, PeerRules, SharedAccessList, Tracker};
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// Peers: whether they are seeders, and whether another node heard them last.
pub(crate) type Content = BTreeMap<(InfoHash, SocketAddr), (bool, bool)>;

pub(crate) struct Node {
    pub(crate) tracker: Tracker,
    pub(crate) max_peer_age: u32,
}

impl Node {
    pub(crate) fn new(seed: u64, max_peer_age: u32) -> Self {
        let access_list = SharedAccessList::load(&AccessListConfig::default()).unwrap();
        let limits =
            ShardLimits { max_peers: 1 << 20, max_peers_per_address: 1 << 20, ..ShardLimits::default() };
        let mut tracker = Tracker::new(
            (0, Steering::new(1, [1; 8])),
            Shard::new(limits, HashKey([2; 16])),
            (Admission::new(access_list), PeerRules::default()),
            IntervalPolicy { interval: 1800, jitter: 0 },
            SmallRng::seed_from_u64(seed),
            &Registry::default().core(0),
        );
        tracker.begin_publishing(max_peer_age);
        Self { tracker, max_peer_age }
    }

    pub(crate) fn announce(&mut self, peer: (u32, SocketAddr), seeder: bool, event: AnnounceEvent, now: u32) {
        let (info_hash, address) = (info_hash(peer.0), peer.1);
        let announce = Announce { info_hash, address, seeder, event, numwant: 0, families: Families::Own };
        self.tracker.announce(&announce, Seconds(now), PeerBuffers::default());
    }

    /// Returns all that is to be told to other nodes.
    pub(crate) fn published(&mut self, now: u32) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(batch) = self.tracker.take_published(Seconds(now)) {
            let mut records = batch.records.as_slice();
            while !records.is_empty() {
                changes.push(take_record(batch.family, &mut records).unwrap());
            }
        }
        changes
    }

    pub(crate) fn apply(&mut self, change: &Change, age: u32, now: u32) -> Applied {
        for family in Family::ALL {
            self.tracker.prefetch_changes(family, &[*change]);
        }
        self.tracker.apply_change(change, age, Seconds(now))
    }

    pub(crate) fn expire(&mut self, now: u32) {
        let mut passes = 0;
        while passes < 2 {
            let done = self.tracker.expire(Seconds(now), self.max_peer_age, 1 << 20);
            passes += u32::from(done.pass_ended);
        }
    }

    pub(crate) fn save(&mut self, filter: SaveFilter<'_>, now: u32) -> Saved {
        let mut saved = Saved::default();
        let pass = (SavePass::FirstPull, filter);
        self.tracker.begin_saving(pass.0);
        while !self.tracker.save(pass, (Seconds(now), 0), 100, &mut saved).ended {}
        saved
    }

    pub(crate) fn content(&mut self, now: u32) -> Content {
        let saved = self.save(SaveFilter::All, now);
        let peers = saved.0.into_iter().flat_map(|(torrent, peers)| {
            peers.into_iter().map(move |peer| ((torrent.info_hash, peer.address), (peer.seeder, peer.remote)))
        });
        peers.collect()
    }

    pub(crate) fn downloaded(&self, torrent: u32) -> u32 {
        self.tracker.counts(&info_hash(torrent)).iter().map(|counts| counts.downloaded).sum()
    }
}

/// What was handed out.
#[derive(Default)]
pub(crate) struct Saved(pub(crate) Vec<(SavedTorrent, Vec<SavedPeer>)>);

impl SaveSwarms for Saved {
    fn torrent(&mut self, torrent: SavedTorrent) {
        assert!(self.0.last().is_none_or(|(torrent, peers)| peers.len() as u32 == torrent.peers));
        self.0.push((torrent, Vec::new()));
    }

    fn peer(&mut self, peer: SavedPeer) {
        self.0.last_mut().unwrap().1.push(peer);
    }
}

pub(crate) fn info_hash(torrent: u32) -> InfoHash {
    let mut bytes = [5; 20];
    bytes[..4].copy_from_slice(&torrent.to_be_bytes());
    InfoHash(bytes)
}

pub(crate) fn address(number: u16) -> SocketAddr {
    if number.is_multiple_of(3) {
        ([0x2001, 2, 0, 0, 0, 0, 7, number], 6881).into()
    } else {
        ([198, 18, (number >> 8) as u8, number as u8], 6881).into()
    }
}
