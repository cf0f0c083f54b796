//! Visits of everything that is stored, for tests.

use std::net::SocketAddr;

use aquatic_common::InfoHash;

use crate::family::Store;
use crate::payload::{self, Content, class_of};
use crate::peer_format::PeerFormat;
use crate::tick::Stamp;

impl<K: PeerFormat> Store<K> {
    /// Visits every peer.
    pub(crate) fn for_each_peer(&self, visit: &mut impl FnMut(InfoHash, SocketAddr, Stamp)) {
        let mut visit_peer = |info_hash, peer| visit(info_hash, K::address(peer), K::stamp(peer));
        self.table.for_each(|info_hash, payload| match Content::from_payload::<K>(payload) {
            Content::One(peer) => visit_peer(info_hash, peer),
            Content::List { block, order, .. } => {
                let peers = &self.lists.get(block)[..order.len as usize];
                peers.iter().for_each(|peer| visit_peer(info_hash, *peer));
            }
            Content::Large(number) => {
                let Some(swarm) = self.large.get(number) else { return };
                (0..swarm.order().len).for_each(|at| visit_peer(info_hash, swarm.get(at)));
            }
        });
    }

    /// Verifies counts, block sizes and the order of roles.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut seeders, mut leechers, mut lists, mut large) = (0, 0, 0, 0);
        let mut wrong = None;
        self.table.check()?;
        self.table.for_each(|info_hash, payload| {
            let content = Content::from_payload::<K>(payload);
            let order = self.order_of(content);
            match content {
                Content::One(_) => {}
                Content::List { block, .. } => {
                    lists += 1;
                    let peers = self.lists.get(block);
                    let in_role_range =
                        |at: usize| K::stamp(peers[at]).seeder() == (at < order.seeders as usize);
                    if peers.len() != payload::CAPACITIES[class_of(order.len)] as usize
                        || !(0..order.len as usize).all(in_role_range)
                    {
                        wrong = Some(format!("list of {info_hash}: {order:?} in a block of {}", peers.len()));
                    }
                }
                Content::Large(_) => large += 1,
            }
            if order.len == 0 {
                wrong = Some(format!("{info_hash} has no peers"));
            }
            seeders += u64::from(order.seeders);
            leechers += u64::from(order.leechers());
        });
        self.large.check()?;
        let mut remote = 0;
        self.for_each_peer(&mut |_, _, stamp| remote += u64::from(stamp.is_remote()));
        if remote != self.remote {
            return Err(format!("{remote} peers of other nodes, counted as {}", self.remote));
        }
        let counted = (self.seeders, self.leechers, self.lists.blocks(), self.large.count());
        if (seeders, leechers, lists, large) != counted {
            return Err(format!("{:?} counted as {counted:?}", (seeders, leechers, lists, large)));
        }
        wrong.map_or(Ok(()), Err)
    }
}
