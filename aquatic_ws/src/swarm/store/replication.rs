//! Changes that other nodes have to be told, and those that they told.
//!
//! A node publishes a peer when it joins, changes its role, completes or leaves, and again when it announces
//! in another slot of time than before, so that the others know that it is alive. Slots are as long as half
//! of the maximum age, and begin at another time for each peer. So two publications of a living peer are at
//! most a slot and the announce interval apart, and peers of other nodes expire a slot later than those of
//! this one.

use std::collections::VecDeque;

use aquatic_common::{InfoHash, PeerId, Seconds};

use super::super::{Applied, Change, ChangeKind, ConnectionId, Limit, NodeNumber, Registration};
use super::{Cursor, Swarms, make_room};
use crate::swarm::torrent::Peer;

/// Maximum number of changes that wait to be published, about 5 MiB. Further ones are dropped, and all peers
/// of this node published again afterwards.
const MAX_WAITING: usize = 65_536;

/// Number of passes of expiry during which peers of a gone node are removed. One that is moved during a pass
/// may be missed by it.
const PASSES: u32 = 4;

/// Time in seconds that a node has to publish its peers again after something of it was missed.
const CONFIRMATION: u32 = 120;

/// Work of one step of publishing all peers again, in units: one per visited peer or torrent.
const RESEND_WORK: u32 = 4096;

/// Units of work for a change.
const WORK_PER_CHANGE: u32 = 8;

/// A change that waits to be published.
#[derive(Debug)]
struct Waiting {
    change: Change,
    /// When the peer announced.
    heard: Seconds,
}

const _: () = assert!(size_of::<Waiting>() * MAX_WAITING <= 5 << 20);

/// Node of which changes were missed: some of its peers may have left.
#[derive(Clone, Copy, Debug)]
struct Unconfirmed {
    node: NodeNumber,
    since: Seconds,
    /// Whether it has published a peer again since of which nothing is new.
    publishes_again: bool,
}

/// Number of gaps of a node that are dealt with at once.
const MAX_GAPS: usize = 2;

/// State of the exchange of peers with other nodes.
#[derive(Debug)]
pub(super) struct Replication {
    /// Length of a slot in seconds: time after which a peer that announced is published again.
    refresh: u32,
    waiting: VecDeque<Waiting>,
    /// Number of changes dropped so far because too many waited.
    dropped: u64,
    /// Position at which publishing all peers again continues, unless it is done.
    resend: Option<Cursor>,
    /// Whether all peers have to be published again, after the pass in progress.
    resend_wanted: bool,
    /// Nodes that are gone, as bits.
    gone: u128,
    /// Number of passes of expiry until the peers of all gone nodes are removed.
    passes_left: u32,
    /// Nodes whose peers are removed unless they are published again.
    unconfirmed: Vec<Unconfirmed>,
}

impl Replication {
    fn new(max_peer_age: u32) -> Self {
        Self {
            refresh: refresh(max_peer_age),
            waiting: VecDeque::new(),
            dropped: 0,
            resend: None,
            resend_wanted: true,
            gone: 0,
            passes_left: 0,
            unconfirmed: Vec::new(),
        }
    }

    fn is_gone(&self, node: NodeNumber) -> bool {
        self.gone >> node.get() & 1 == 1
    }

    /// Returns whether a peer of another node has expired, or was not published again when that node
    /// published all.
    pub(super) fn is_over(
        &self,
        connection: ConnectionId,
        (last_seen, now): (Seconds, Seconds),
        max_peer_age: u32,
    ) -> bool {
        let is_unconfirmed = |unconfirmed: &Unconfirmed| {
            let Unconfirmed { node, since, publishes_again } = *unconfirmed;
            connection.node() == Some(node)
                && publishes_again
                && last_seen < since
                && now - since >= CONFIRMATION
        };
        now - last_seen > max_peer_age.saturating_add(self.refresh)
            || connection.node().is_some_and(|node| self.is_gone(node))
            || self.unconfirmed.iter().any(is_unconfirmed)
    }

    /// Returns when a peer counts as heard that a node publishes: after something was missed of the node, at
    /// that time at least, since it is alive.
    fn heard(&self, node: NodeNumber, heard: Seconds) -> Seconds {
        let of_node = self.unconfirmed.iter().filter(|unconfirmed| unconfirmed.node == node);
        of_node.map(|unconfirmed| unconfirmed.since).fold(heard, Seconds::max)
    }

    /// Notes that a node has published a peer of which nothing is new.
    fn note_repeated(&mut self, node: NodeNumber) {
        let of_node = self.unconfirmed.iter_mut().filter(|unconfirmed| unconfirmed.node == node);
        of_node.for_each(|unconfirmed| unconfirmed.publishes_again = true);
    }

    /// Notes that a peer left, if it was one of this node.
    pub(super) fn note_left(&mut self, info_hash: &InfoHash, peer_id: &PeerId, registration: &Registration) {
        self.note((info_hash, peer_id), registration, ChangeKind::Left);
    }

    fn note(
        &mut self,
        (info_hash, peer_id): (&InfoHash, &PeerId),
        registration: &Registration,
        kind: ChangeKind,
    ) {
        let Registration { connection, network, last_seen, family, .. } = *registration;
        if connection.is_remote() {
            return;
        }
        if self.waiting.len() >= MAX_WAITING {
            self.dropped += 1;
            self.resend_wanted = true;
            return;
        }
        let (info_hash, peer_id, connection) = (*info_hash, *peer_id, connection.on_its_node());
        let change = Change { info_hash, peer_id, connection, network, family, kind, age: 0 };
        self.waiting.push_back(Waiting { change, heard: last_seen });
    }

    pub(super) fn torrent_removed(&mut self, torrent: usize, last: usize) {
        if let Some(cursor) = &mut self.resend {
            cursor.torrent_removed(torrent, last);
        }
    }

    /// Handles that a pass of expiry has ended.
    pub(super) fn end_pass(&mut self) {
        self.passes_left = self.passes_left.saturating_sub(1);
    }
}

/// Returns the length of the slots in which a living peer is published once.
fn refresh(max_peer_age: u32) -> u32 {
    (max_peer_age / 2).max(1)
}

/// Returns what is published of a peer.
fn present(peer: &Peer) -> ChangeKind {
    ChangeKind::Present { seeder: peer.registration().seeder, completed: peer.completion_counted }
}

impl Swarms {
    /// Begins to note changes for other nodes, or continues with another maximum age of peers.
    pub fn replicate(&mut self, max_peer_age: u32) {
        match &mut self.replication {
            Some(replication) => replication.refresh = refresh(max_peer_age),
            None => self.replication = Some(Box::new(Replication::new(max_peer_age))),
        }
    }

    /// Notes that a peer is published, if it is one of this node.
    pub(super) fn note_present(&mut self, torrent: usize, at: usize) {
        let Some(replication) = &mut self.replication else { return };
        let Some((info_hash, swarm)) = self.torrents.get_index(torrent) else { return };
        let peer = swarm.peer(at);
        replication.note((info_hash, &peer.id), &peer.registration(), present(peer));
    }

    /// Notes that a peer is published if its announce changed something, or is the first of a slot.
    pub(super) fn note_announce(
        &mut self,
        torrent: usize,
        at: usize,
        before: &Registration,
        completed: bool,
    ) {
        let Some(replication) = &self.replication else { return };
        let peer = self.torrents[torrent].peer(at);
        let Registration { last_seen, seeder, .. } = peer.registration();
        let slots = u64::from(replication.refresh);
        let offset = self.hasher.hash(&peer.id.0) % slots;
        let slot = |time: Seconds| (u64::from(time.0) + offset) / slots;
        if completed || seeder != before.seeder || slot(last_seen) != slot(before.last_seen) {
            self.note_present(torrent, at);
        }
    }

    /// Takes the changes that wait to be published, at most so many.
    pub fn take_changes(&mut self, now: Seconds, most: usize) -> impl Iterator<Item = Change> + '_ {
        let waiting = self.replication.as_mut().map(|replication| {
            if replication.waiting.is_empty() {
                replication.waiting.shrink_to(MAX_WAITING / 64);
            }
            let taken = replication.waiting.len().min(most);
            replication.waiting.drain(..taken)
        });
        waiting.into_iter().flatten().map(move |Waiting { change, heard }| {
            let age = match change.kind {
                ChangeKind::Present { .. } => u16::try_from(now - heard).unwrap_or(u16::MAX),
                ChangeKind::Left => 0,
            };
            Change { age, ..change }
        })
    }

    /// Returns the number of peers that are connected to this node.
    #[must_use]
    pub fn own_peers(&self) -> usize {
        self.peers.total() - self.peers.of_other_nodes()
    }

    /// Returns the number of changes dropped so far because too many waited.
    #[must_use]
    pub fn dropped_changes(&self) -> u64 {
        self.replication.as_ref().map_or(0, |replication| replication.dropped)
    }

    /// Begins to publish all peers of this node again, because another node lacks some; after the pass in
    /// progress, if there is one.
    pub fn resend(&mut self) {
        if let Some(replication) = &mut self.replication {
            replication.resend_wanted = true;
        }
    }

    /// Publishes the next peers, if all have to be published again. Takes less than a millisecond.
    pub fn advance_resend(&mut self) {
        let Self { replication: Some(replication), torrents, .. } = self else { return };
        if replication.resend.is_none() && replication.resend_wanted {
            replication.resend_wanted = false;
            replication.resend = Some(Cursor::start(torrents.len()));
        }
        let mut work = 0;
        while let Some(cursor) = replication.resend
            && work < RESEND_WORK
            && replication.waiting.len() < MAX_WAITING / 2
        {
            let next = cursor.torrents.checked_sub(1).and_then(|at| Some((at, torrents.get_index(at)?)));
            let Some((torrent, (info_hash, swarm))) = next else {
                replication.resend = None;
                return;
            };
            work += 1;
            let left = cursor.peers.unwrap_or(usize::MAX).min(swarm.len());
            let Some(at) = left.checked_sub(1) else {
                replication.resend = Some(Cursor::start(torrent));
                continue;
            };
            replication.resend = Some(Cursor { peers: Some(at), ..cursor });
            let peer = swarm.peer(at);
            if !peer.connection.is_remote() {
                work += WORK_PER_CHANGE;
                replication.note((info_hash, &peer.id), &peer.registration(), present(peer));
            }
        }
    }

    /// Returns whether a node is gone, so that its peers cannot be reached.
    #[must_use]
    pub fn is_gone(&self, node: NodeNumber) -> bool {
        self.replication.as_ref().is_some_and(|replication| replication.is_gone(node))
    }

    /// Begins to remove the peers of a node that is gone, and ignores its changes until its number is used
    /// again.
    pub fn forget_node(&mut self, node: NodeNumber) {
        if let Some(replication) = &mut self.replication {
            replication.gone |= 1 << node.get();
            replication.passes_left = PASSES;
            replication.unconfirmed.retain(|unconfirmed| unconfirmed.node != node);
        }
    }

    /// Accepts the changes of a node that was gone, which keeps its peers if it is the same run. Not to be
    /// called for another one before the peers are removed.
    pub fn readmit_node(&mut self, node: NodeNumber) {
        if let Some(replication) = &mut self.replication {
            replication.gone &= !(1 << node.get());
        }
    }

    /// Begins to remove the peers of a node of which changes were missed, except for those that it publishes
    /// again in the next two minutes.
    pub fn doubt_node(&mut self, node: NodeNumber, now: Seconds) {
        if let Some(replication) = &mut self.replication {
            let unconfirmed = &mut replication.unconfirmed;
            unconfirmed.retain(|gap| gap.node != node || now - gap.since < 2 * CONFIRMATION);
            // Gap after gap must not put it off for ever, so the oldest stays.
            if unconfirmed.iter().filter(|gap| gap.node == node).count() >= MAX_GAPS
                && let Some(last) = unconfirmed.iter().rposition(|gap| gap.node == node)
            {
                unconfirmed.remove(last);
            }
            unconfirmed.push(Unconfirmed { node, since: now, publishes_again: false });
        }
    }

    /// Returns whether peers of gone nodes are left, so that the next passes of expiry should be quick.
    #[must_use]
    pub fn is_forgetting(&self) -> bool {
        self.replication.as_ref().is_some_and(|replication| replication.passes_left > 0)
    }

    /// Applies a change that a node published so many seconds ago. Nothing of it is published again.
    pub fn apply(
        &mut self,
        change: &Change,
        (node, delay): (NodeNumber, u32),
        now: Seconds,
        max_peer_age: u32,
    ) -> Applied {
        let Change { info_hash, peer_id, connection, network, family, kind, age } = *change;
        let Some(replication) = &self.replication else { return Applied::NodeGone };
        let connection = connection.of(node);
        let age = delay.saturating_add(age.into());
        if replication.is_gone(node) {
            return Applied::NodeGone;
        }
        let is_over = age > max_peer_age.saturating_add(replication.refresh);
        let heard = Seconds(now.0.saturating_sub(age));
        let last_seen = replication.heard(node, heard);
        match kind {
            ChangeKind::Left if self.leave(&info_hash, &peer_id, connection) => Applied::Removed,
            ChangeKind::Left => Applied::Absent,
            ChangeKind::Present { .. } if is_over => Applied::TooOld,
            ChangeKind::Present { seeder, completed } => {
                let registration = Registration { connection, network, last_seen, family, seeder };
                self.store_remote((info_hash, peer_id), (registration, heard), completed)
            }
        }
    }

    /// Adds or updates a peer that another node heard some time ago.
    fn store_remote(
        &mut self,
        (info_hash, peer_id): (InfoHash, PeerId),
        (registration, heard): (Registration, Seconds),
        completed: bool,
    ) -> Applied {
        let torrent = self.torrents.get_index_of(&info_hash);
        let known = torrent.and_then(|at| self.torrents[at].find(&peer_id, &self.hasher));
        let (torrent, at, applied) = match (torrent, known) {
            (Some(torrent), Some(at)) => {
                let before = self.torrents[torrent].peer(at).registration();
                let is_free = before.connection.node().is_some_and(|node| self.is_gone(node));
                if before.connection != registration.connection && !is_free {
                    return self.claim((torrent, at), (info_hash, peer_id), registration);
                }
                if !self.may_move(torrent, &before, &registration) {
                    return Applied::LimitReached(Limit::PeersPerAddress);
                }
                let is_known = before.connection == registration.connection;
                if is_known
                    && heard <= before.last_seen
                    && registration.seeder == before.seeder
                    && let (Some(node), Some(replication)) =
                        (registration.connection.node(), &mut self.replication)
                {
                    replication.note_repeated(node);
                }
                let last_seen = match is_known {
                    true => registration.last_seen.max(before.last_seen),
                    false => registration.last_seen,
                };
                self.withdraw_claim((torrent, at), &(info_hash, peer_id), registration.connection);
                let at = self.update(torrent, at, Registration { last_seen, ..registration });
                (torrent, at, Applied::Updated)
            }
            _ => match self.add(torrent, (info_hash, peer_id), registration) {
                Ok((torrent, at)) => (torrent, at, Applied::Added),
                Err(limit) => return Applied::LimitReached(limit),
            },
        };
        if completed {
            self.count_download(torrent, at);
        }
        applied
    }

    /// Makes a connection of another node the pending claimant of a peer, unless one of this node is.
    fn claim(
        &mut self,
        (torrent, at): (usize, usize),
        key: (InfoHash, PeerId),
        registration: Registration,
    ) -> Applied {
        let peer = self.torrents[torrent].peer_mut(at);
        let holder = peer.connection;
        let claimant = self.claimants.get(&key).map(|claimant| claimant.connection);
        if claimant.is_some_and(|claimant| !claimant.is_remote()) {
            return Applied::Claims(None);
        }
        peer.has_claimant = true;
        make_room(&mut self.claimants);
        self.claimants.insert(key, registration);
        let is_new = claimant != Some(registration.connection);
        Applied::Claims((is_new && !holder.is_remote()).then_some(holder))
    }
}

#[cfg(test)]
mod tests;
