//! Requests to the core that owns a torrent, and their responses, in batches that are filled and emptied
//! without allocating once their memory has grown.

use aquatic_common::{InfoHash, Seconds};
use aquatic_runtime::Batch;
use aquatic_swarm::{Announce, Announced, FamilySet, PeerBuffers, SwarmCounts};

use crate::gather::RequestId;
use crate::tracker::Tracker;

/// Memory for peers above which an emptied batch gives it back.
const MAX_KEPT_BYTES: usize = 256 * 1024;

/// Bytes of peers that count as one more message where batches are limited.
const BYTES_PER_UNIT: usize = 1024;

/// One request or response. What is of variable length stands, in the same order, in lists of the batch.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    /// To be applied by the receiver.
    Announce {
        /// Request to respond to.
        id: RequestId,
        /// The announce.
        announce: Announce,
        /// Bytes of compact IPv4 and IPv6 peers that the reply has room for.
        room: (u32, u32),
    },
    /// Response to an announce; its peers are the next bytes of the batch.
    Announced {
        /// Request that is responded to.
        id: RequestId,
        /// Counts and lengths.
        announced: Announced,
    },
    /// An announce that has been answered some seconds ago, to be applied all the same.
    Late {
        /// The announce.
        announce: Announce,
        /// Seconds since it was received.
        age: u32,
    },
    /// To be counted by the receiver; its torrents are the next of the batch.
    Scrape {
        /// Request to respond to.
        id: RequestId,
        /// Families whose peers are counted.
        families: FamilySet,
        /// Number of torrents.
        torrents: u16,
    },
    /// Response to a scrape; its counts are the next of the batch.
    Scraped {
        /// Request that is responded to.
        id: RequestId,
        /// Number of torrents.
        torrents: u16,
    },
}

/// A batch of requests and responses. Torrents and counts carry their position in the client's request.
#[derive(Debug, Default)]
pub struct Messages {
    pub(crate) items: Vec<Message>,
    /// Compact peers of responses.
    pub(crate) peers: Vec<u8>,
    /// Torrents of scrapes.
    pub(crate) torrents: Vec<(u16, InfoHash)>,
    /// Counts of responses.
    pub(crate) counts: Vec<(u16, SwarmCounts)>,
}

impl Messages {
    /// Adds a request for the counts of torrents, each with its position in the client's request.
    pub(crate) fn push_scrape(
        &mut self,
        id: RequestId,
        families: FamilySet,
        torrents: impl Iterator<Item = (u16, InfoHash)>,
    ) {
        let before = self.torrents.len();
        self.torrents.extend(torrents);
        let torrents = u16::try_from(self.torrents.len() - before).unwrap_or(u16::MAX);
        self.items.push(Message::Scrape { id, families, torrents });
    }

    /// Applies an announce and adds the response to it: IPv4 and IPv6 peers, one after the other.
    pub(crate) fn push_announced(
        &mut self,
        id: RequestId,
        announce: &Announce,
        (v4_room, v6_room): (u32, u32),
        (tracker, now): (&mut Tracker, Seconds),
    ) {
        let begin = self.peers.len();
        let (v4_room, v6_room) = (v4_room as usize, v6_room as usize);
        self.peers.resize(begin + v4_room + v6_room, 0);
        let (v4, v6) = self.peers.get_mut(begin..).unwrap_or_default().split_at_mut(v4_room);
        let announced = tracker.announce(announce, now, PeerBuffers { v4, v6 });
        let Announced { v4_len, v6_len, .. } = announced;
        let v6 = begin + v4_room;
        self.peers.copy_within(v6..v6 + v6_len, begin + v4_len);
        self.peers.truncate(begin + v4_len + v6_len);
        self.items.push(Message::Announced { id, announced });
    }

    /// Counts torrents and adds the response to the request for them.
    pub(crate) fn push_scraped(
        &mut self,
        id: RequestId,
        families: FamilySet,
        torrents: &[(u16, InfoHash)],
        tracker: &Tracker,
    ) {
        let counts = torrents.iter().map(|(at, info_hash)| (*at, tracker.scrape(info_hash, families)));
        self.counts.extend(counts);
        let torrents = u16::try_from(torrents.len()).unwrap_or(u16::MAX);
        self.items.push(Message::Scraped { id, torrents });
    }
}

impl Batch for Messages {
    fn size(&self) -> usize {
        self.items.len() + self.peers.len() / BYTES_PER_UNIT
    }

    fn clear(&mut self) {
        self.items.clear();
        self.peers.clear();
        self.peers.shrink_to(MAX_KEPT_BYTES);
        self.torrents.clear();
        self.counts.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use aquatic_common::config::AccessListConfig;
    use aquatic_common::{AnnounceEvent, Steering};
    use aquatic_metrics::Registry;
    use aquatic_swarm::{Families, HashKey, Shard, ShardLimits};
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::access_list::SharedAccessList;
    use crate::admission::Admission;
    use crate::gather::Gather;
    use crate::interval::IntervalPolicy;
    use crate::peer_rules::PeerRules;

    const TORRENT: InfoHash = InfoHash([1; 20]);
    const NOW: Seconds = Seconds(10);

    fn tracker() -> Tracker {
        let access_list = SharedAccessList::load(&AccessListConfig::default()).unwrap();
        Tracker::new(
            (0, Steering::new(1, [1; 8])),
            Shard::new(ShardLimits::default(), HashKey([2; 16])),
            (Admission::new(access_list), PeerRules::default()),
            IntervalPolicy { interval: 1800, jitter: 0 },
            SmallRng::seed_from_u64(3),
            &Registry::default().core(0),
        )
    }

    fn ids() -> impl FnMut() -> RequestId {
        let mut gather: Gather<(), u32> = Gather::default();
        move || gather.begin(Duration::ZERO, (), Vec::new(), 1).unwrap()
    }

    fn announce(info_hash: InfoHash, address: &str, numwant: usize) -> Announce {
        Announce {
            info_hash,
            address: address.parse().unwrap(),
            seeder: false,
            event: AnnounceEvent::None,
            numwant,
            families: Families::Both,
        }
    }

    /// The batch's announce responses, each with its peers.
    fn announced(batch: &Messages) -> Vec<(RequestId, Vec<SocketAddr>)> {
        let mut peers = batch.peers.as_slice();
        let mut take = |len: usize| {
            let (taken, rest) = peers.split_at(len);
            peers = rest;
            taken
        };
        let mut responses = Vec::new();
        for item in &batch.items {
            let &Message::Announced { id, announced } = item else { panic!("{item:?}") };
            let port = |bytes: &[u8]| u16::from_be_bytes(bytes.try_into().unwrap());
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for peer in take(announced.v4_len).chunks_exact(6) {
                let ip: [u8; 4] = peer[..4].try_into().unwrap();
                addresses.push((ip, port(&peer[4..])).into());
            }
            for peer in take(announced.v6_len).chunks_exact(18) {
                let ip: [u8; 16] = peer[..16].try_into().unwrap();
                addresses.push((ip, port(&peer[16..])).into());
            }
            addresses.sort_unstable();
            responses.push((id, addresses));
        }
        assert!(peers.is_empty(), "no byte is left over");
        responses
    }

    fn addresses(all: &[&str]) -> Vec<SocketAddr> {
        all.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn peers_of_several_responses_and_both_families_stand_one_after_the_other() {
        let (mut tracker, mut next) = (tracker(), ids());
        let all = ["10.0.0.1:1", "10.0.0.2:2", "[2001:2::1]:3", "[2001:2::2]:4"];
        let room = (6 * 50, 18 * 50);
        let mut batch = Messages::default();
        let mut expected = Vec::new();
        for (at, address) in all.iter().enumerate() {
            let id = next();
            batch.push_announced(id, &announce(TORRENT, address, 50), room, (&mut tracker, NOW));
            expected.push((id, addresses(&all[..at])));
        }
        assert_eq!(announced(&batch), expected);
        assert_eq!(batch.peers.len(), 6 + 2 * 6 + (2 * 6 + 18));
        let id = next();
        let numwant = announce(TORRENT, "10.0.0.9:9", 2);
        batch.clear();
        batch.push_announced(id, &numwant, room, (&mut tracker, NOW));
        let responses = announced(&batch);
        assert_eq!((responses[0].0, responses[0].1.len()), (id, 2), "as many as numwant");
    }

    #[test]
    fn peers_take_no_more_than_the_room_that_the_asking_core_has() {
        let (mut tracker, mut next) = (tracker(), ids());
        let mut batch = Messages::default();
        for address in ["10.0.0.1:1", "10.0.0.2:2", "[2001:2::1]:3", "[2001:2::2]:4"] {
            batch.push_announced(next(), &announce(TORRENT, address, 50), (0, 0), (&mut tracker, NOW));
            assert!(batch.peers.is_empty(), "there is no room");
        }
        assert_eq!(announced(&batch).len(), 4, "they are applied all the same");
        for (room, v4, v6) in [((6, 18), 1, 1), ((11, 35), 1, 1), ((0, 36), 0, 2), ((12, 0), 2, 0)] {
            let mut batch = Messages::default();
            batch.push_announced(next(), &announce(TORRENT, "10.0.0.9:9", 50), room, (&mut tracker, NOW));
            let responses = announced(&batch);
            let (_, peers) = &responses[0];
            let of_v4 = peers.iter().filter(|peer| peer.is_ipv4()).count();
            assert_eq!((of_v4, peers.len() - of_v4), (v4, v6), "{room:?}");
        }
    }

    #[test]
    fn counts_keep_the_positions_of_their_torrents() {
        let (mut tracker, mut next) = (tracker(), ids());
        let torrents = [4, 5, 6].map(|byte| InfoHash([byte; 20]));
        let mut responses = Messages::default();
        for (peers, torrent) in torrents.iter().enumerate() {
            for port in 1..=peers {
                let address = format!("10.0.0.1:{port}");
                responses.push_announced(
                    next(),
                    &announce(*torrent, &address, 0),
                    (0, 0),
                    (&mut tracker, NOW),
                );
            }
        }
        responses.clear();

        let (first, second) = (next(), next());
        let mut requests = Messages::default();
        requests.push_scrape(first, FamilySet::Both, [(7, torrents[2]), (0, torrents[1])].into_iter());
        requests.push_scrape(second, FamilySet::Both, [(3, torrents[0])].into_iter());
        let mut asked = requests.torrents.as_slice();
        for item in &requests.items {
            let &Message::Scrape { id, families, torrents } = item else { panic!("{item:?}") };
            let (part, rest) = asked.split_at(torrents.into());
            asked = rest;
            responses.push_scraped(id, families, part, &tracker);
        }
        assert!(asked.is_empty());
        let counts: Vec<_> = responses.counts.iter().map(|(at, counts)| (*at, counts.incomplete)).collect();
        assert_eq!(counts, [(7, 2), (0, 1), (3, 0)]);
        let part = |item: &Message| {
            let &Message::Scraped { id, torrents } = item else { panic!("{item:?}") };
            (id, torrents)
        };
        let parts: Vec<_> = responses.items.iter().map(part).collect();
        assert_eq!(parts, [(first, 2), (second, 1)]);
    }

    #[test]
    fn emptied_batches_hold_nothing_and_no_more_memory_than_is_useful() {
        let mut batch = Messages::default();
        let mut next = ids();
        batch.push_scrape(next(), FamilySet::Both, [(0, TORRENT)].into_iter());
        batch.push_scraped(next(), FamilySet::Both, &[(0, TORRENT)], &tracker());
        batch.peers = vec![1; 2 * MAX_KEPT_BYTES];
        assert!(batch.size() >= 2 + 2 * MAX_KEPT_BYTES / BYTES_PER_UNIT, "peers count, too");
        batch.clear();
        assert_eq!(batch.size(), 0);
        assert!(batch.peers.is_empty() && batch.torrents.is_empty() && batch.counts.is_empty());
        assert!(batch.peers.capacity() <= MAX_KEPT_BYTES && batch.torrents.capacity() > 0);
    }
}
