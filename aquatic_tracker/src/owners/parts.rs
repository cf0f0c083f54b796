//! Requests for parts that other nodes hold, and theirs for parts that this one holds.

use std::time::Duration;

use aquatic_common::{InfoHash, Seconds};
use aquatic_metrics::{CoreMetrics, Counter};
use aquatic_swarm::{
    Announce, Announced, FamilySet, MAX_NUMWANT, PeerBuffers, Previous, Stored, SwarmCounts,
};

use super::{Asking, Forwarded, OwnerResponse, Owners, Trackers, Waiter};
use crate::admission::AdmissionRequest;
use crate::forward::Forward;
use crate::gather::{RequestId, RouteError};
use crate::messages::{Message, Messages};
use crate::partition::messages::{Item, Request};
use crate::partition::{Asked, DEADLINE, Elsewhere, Holders, NodeNumber, PartCounters, seconds};

impl<T: Trackers, F: Forward<Messages>> Owners<T, F> {
    /// Has this core ask other nodes for the parts that they hold from now on, or takes in that other nodes
    /// hold them now. What is stored of parts that this node does not hold expires at once. `None`: this node
    /// holds all parts.
    pub fn set_holders(&self, holders: Option<Holders>, metrics: &CoreMetrics) {
        let index = {
            let mut tracker = self.trackers.own();
            let sets = holders.as_ref().map(|holders| (*holders.own(), *holders.kept()));
            let (held, kept) = sets.unzip();
            tracker.set_held(held, kept);
            tracker.index()
        };
        let mut elsewhere = self.elsewhere.borrow_mut();
        match (holders, elsewhere.as_mut()) {
            (Some(holders), Some(elsewhere)) => elsewhere.set_holders(holders),
            (Some(holders), None) => *elsewhere = Some(Box::new(Elsewhere::new(index, holders, metrics))),
            // Announces that wait are lost with it, but their requests run into their deadline.
            (None, waiting) => {
                waiting.iter().for_each(|elsewhere| elsewhere.give_up());
                *elsewhere = None;
            }
        }
    }

    /// Removes a message to another node. To be called every millisecond or so, until there is none.
    pub fn take_message(&self) -> Option<(NodeNumber, Vec<u8>)> {
        self.elsewhere.borrow_mut().as_mut()?.take()
    }

    /// Looks at some of the announces that were kept, and sends those for which there is a holder by now. To
    /// be called often.
    pub fn send_late(&self, time: Duration, budget: usize) {
        let mut own = Vec::new();
        if let Some(elsewhere) = self.elsewhere.borrow_mut().as_mut() {
            elsewhere.send_late(time, budget, &mut own);
        }
        let now = seconds(time);
        for (announce, received) in own {
            self.note(|counters| &counters.late);
            self.apply_late_at_owner(&announce, now.0.saturating_sub(received.0), now);
        }
    }

    /// Has the core that owns the torrent apply an announce that has been answered some seconds ago.
    fn apply_late_at_owner(&self, announce: &Announce, age: u32, now: Seconds) {
        let (own, owner) = {
            let tracker = self.trackers.own();
            (tracker.index(), tracker.owner(&announce.info_hash))
        };
        if owner == own {
            return self.apply_late(announce, age, now);
        }
        let message = Message::Late { announce: *announce, age };
        if self.forward.add(owner, |batch| batch.items.push(message)).is_err() {
            self.note(|counters| &counters.lost);
        }
    }

    /// Handles some of the items of another node's message that are for this core, and removes them.
    pub fn receive_message(&self, from: NodeNumber, items: &mut &[u8], max: usize, now: Duration) {
        if let Some(elsewhere) = self.elsewhere.borrow_mut().as_mut() {
            elsewhere.hear(from, now);
        }
        for _ in 0..max {
            if items.is_empty() {
                return;
            }
            let Ok(item) = Item::take(items) else {
                *items = &[];
                return self.note(|counters| &counters.malformed);
            };
            match item {
                Item::Announce { request, announce, room } => {
                    self.serve_announce((from, request), &announce, room, seconds(now));
                }
                Item::Scrape { request, position, families, info_hash } => {
                    self.serve_scrape((from, request), position, &info_hash, families);
                }
                Item::Late { age, announce } => self.apply_late(&announce, age.into(), seconds(now)),
                Item::Announced { request, counts, v4, v6 } => self.announced(request.id, counts, (v4, v6)),
                Item::Scraped { request, position, counts } => self.counted(request.id, (position, counts)),
                Item::NotHeld { request } => self.not_held(request.id, now),
            }
        }
    }

    fn note(&self, counter: impl FnOnce(&PartCounters) -> &Counter) {
        if let Some(elsewhere) = self.elsewhere.borrow().as_ref() {
            counter(&elsewhere.counters).add(1);
        }
    }

    /// Has a node that holds the part apply an announce.
    pub(super) fn announce_elsewhere(
        &self,
        now: Duration,
        announce: &Announce,
        room: (u32, u32),
        waiter: Waiter,
    ) {
        let mut elsewhere = self.elsewhere.borrow_mut();
        // Without it all parts are held.
        let Some(elsewhere_now) = elsewhere.as_mut() else {
            drop(elsewhere);
            return self.fail(&waiter, RouteError::Timeout);
        };
        elsewhere_now.supersede(announce);
        let asked = elsewhere_now.keep(announce, room);
        let asking = Asking { waiter, forwarded: Forwarded::Announce(asked) };
        let begun = self.pending.borrow_mut().begin_until(now + DEADLINE, asking, Vec::new(), 1);
        let id = match begun {
            Ok(id) => id,
            Err(asking) => {
                drop(elsewhere);
                self.note(|counters| &counters.overflow);
                return self.without_peers(now, asked, &asking.waiter);
            }
        };
        let node = elsewhere_now.node(&announce.info_hash, now);
        if node.is_some_and(|node| elsewhere_now.announce((node, now), id, asked)) {
            return;
        }
        drop(elsewhere);
        let cancelled = self.pending.borrow_mut().cancel(id);
        if let Some(asking) = cancelled {
            self.without_peers(now, asked, &asking.waiter);
        }
    }

    /// Asks nodes that hold the parts for counts. Returns whether there are such nodes, and room.
    pub(super) fn scrape_elsewhere(
        &self,
        (id, asked, now): (RequestId, Asked, Duration),
        info_hashes: &[InfoHash],
        families: FamilySet,
    ) -> bool {
        let tracker = self.trackers.own();
        let mut elsewhere = self.elsewhere.borrow_mut();
        let Some(elsewhere) = elsewhere.as_mut() else { return false };
        let positioned = (0_u16..).zip(info_hashes.iter().copied());
        positioned.filter(|(_, info_hash)| !tracker.holds(info_hash)).all(|torrent| {
            let node = elsewhere.node(&torrent.1, now);
            node.is_some_and(|node| elsewhere.scrape(node, (id, asked), torrent, families))
        })
    }

    /// Begins to count torrents that other nodes hold.
    pub(super) fn begin_counting(&self, now: Duration) -> Forwarded {
        let mut elsewhere = self.elsewhere.borrow_mut();
        // Without it all parts are held.
        elsewhere
            .as_mut()
            .map_or(Forwarded::Nothing, |elsewhere| Forwarded::Scrape(elsewhere.begin_counting(now)))
    }

    /// Forgets a scrape that other nodes were asked for.
    pub(super) fn end_counting(&self, forwarded: Forwarded) {
        if let Forwarded::Scrape(asked) = forwarded
            && let Some(elsewhere) = self.elsewhere.borrow_mut().as_mut()
        {
            elsewhere.end_counting(asked);
        }
    }

    /// Ends a scrape that cannot be forwarded, as counted.
    pub(super) fn cancel_counting(&self, id: RequestId) {
        let cancelled = self.pending.borrow_mut().cancel(id);
        if let Some(Asking { waiter, forwarded }) = cancelled {
            self.end_counting(forwarded);
            waiter.respond.failed(waiter.token, RouteError::Overflow);
        }
    }

    /// Ends a scrape without all responses at its deadline.
    pub(super) fn counts_timed_out(&self, now: Duration, asked: Asked, waiter: &Waiter) {
        let missing = match self.elsewhere.borrow_mut().as_mut() {
            Some(elsewhere) => {
                let missing = elsewhere.miss_counts(asked, now);
                elsewhere.counters.timeout.add(missing);
                missing
            }
            None => 0,
        };
        if missing > 0 {
            waiter.respond.failed(waiter.token, RouteError::Timeout);
        } else {
            // A core of this node has not responded.
            self.fail(waiter, RouteError::Timeout);
        }
    }

    /// Another node has counted a torrent of a scrape.
    fn counted(&self, id: RequestId, counts: (u16, SwarmCounts)) {
        let forwarded = self.pending.borrow().waiter(id).map(|asking| asking.forwarded);
        // Those of announces and of other cores have other responses.
        let Some(Forwarded::Scrape(asked)) = forwarded else { return };
        if let Some(elsewhere) = self.elsewhere.borrow_mut().as_mut() {
            elsewhere.counters.answered.add(1);
            elsewhere.note_counted(asked);
        }
        self.take_counts(id, [counts].into_iter());
    }

    /// Ends a request for which there is no response, as counted.
    pub(super) fn not_responded(
        &self,
        now: Duration,
        (asked, waiter): (Asked, &Waiter),
        counter: impl FnOnce(&PartCounters) -> &Counter,
    ) {
        self.note(counter);
        self.without_peers(now, asked, waiter);
    }

    /// Ends an announce without a response at its deadline.
    pub(super) fn timed_out(&self, now: Duration, asked: Asked, waiter: &Waiter) {
        if let Some(elsewhere) = self.elsewhere.borrow_mut().as_mut() {
            elsewhere.miss(asked, now);
        }
        self.not_responded(now, (asked, waiter), |counters| &counters.timeout);
    }

    /// Answers an announce without peers and keeps it for a holder.
    fn without_peers(&self, now: Duration, asked: Asked, waiter: &Waiter) {
        if let Some(elsewhere) = self.elsewhere.borrow_mut().as_mut()
            && let Some((announce, _)) = elsewhere.remove(asked)
        {
            elsewhere.put_off(announce, seconds(now));
        }
        waiter.respond.announced(waiter.token, response(SwarmCounts::default(), (&[], &[])));
    }

    /// A node that was asked does not hold the part any more.
    fn not_held(&self, id: RequestId, now: Duration) {
        let is_forwarded = |asking: &Asking| !matches!(asking.forwarded, Forwarded::Nothing);
        if !self.pending.borrow().waiter(id).is_some_and(is_forwarded) {
            return;
        }
        let cancelled = self.pending.borrow_mut().cancel(id);
        match cancelled {
            Some(Asking { waiter, forwarded: Forwarded::Announce(asked) }) => {
                self.not_responded(now, (asked, &waiter), |counters| &counters.not_held);
            }
            Some(Asking { waiter, forwarded: forwarded @ (Forwarded::Scrape(_) | Forwarded::Nothing) }) => {
                self.note(|counters| &counters.not_held);
                self.end_counting(forwarded);
                waiter.respond.failed(waiter.token, RouteError::Timeout);
            }
            None => {}
        }
    }

    /// A holder has applied an announce.
    fn announced(&self, id: RequestId, counts: SwarmCounts, (v4, v6): (&[u8], &[u8])) {
        // Those of scrapes and of other cores have other responses.
        let is_announce = |asking: &Asking| matches!(asking.forwarded, Forwarded::Announce(_));
        if !self.pending.borrow().waiter(id).is_some_and(is_announce) {
            return;
        }
        let done = self.pending.borrow_mut().respond(id, []);
        let Some((Asking { waiter, forwarded: Forwarded::Announce(asked) }, _)) = done else { return };
        let kept = self.elsewhere.borrow_mut().as_mut().and_then(|elsewhere| elsewhere.remove(asked));
        let (_, room) = kept.unzip();
        let room = room.unwrap_or_default();
        self.note(|counters| &counters.answered);
        let peers = (within(v4, room.0, 6), within(v6, room.1, 18));
        waiter.respond.announced(waiter.token, response(counts, peers));
    }

    /// Applies an announce of another node and responds to it.
    fn serve_announce(
        &self,
        (from, request): (NodeNumber, Request),
        announce: &Announce,
        room: (u16, u16),
        now: Seconds,
    ) {
        let mut tracker = self.trackers.own();
        let mut elsewhere = self.elsewhere.borrow_mut();
        let Some(elsewhere) = elsewhere.as_mut() else { return };
        if !tracker.keeps(&announce.info_hash) {
            elsewhere.send(from, &Item::NotHeld { request });
            return;
        }
        elsewhere.counters.served.add(1);
        let mut buffer = elsewhere.take_buffer();
        let room_for = |peers: u16, size| usize::from(peers).min(MAX_NUMWANT) * size;
        let (v4, v6) = (room_for(room.0, 6), room_for(room.1, 18));
        buffer.resize(v4 + v6, 0);
        let (v4, v6) = buffer.split_at_mut(v4);
        let item = if tracker.admit(AdmissionRequest::of(&announce.info_hash)).is_ok() {
            let announced = tracker.announce(announce, now, PeerBuffers { v4: &mut *v4, v6: &mut *v6 });
            let (v4, v6) = (v4.get(..announced.v4_len), v6.get(..announced.v6_len));
            let (v4, v6) = (v4.unwrap_or_default(), v6.unwrap_or_default());
            Item::announced(request, OwnerResponse { announced, v4, v6 })
        } else {
            Item::announced(request, response(SwarmCounts::default(), (&[], &[])))
        };
        // Without room the node that asked runs into its deadline.
        let _ = elsewhere.send(from, &item);
        elsewhere.give_buffer(buffer);
    }

    /// Counts a torrent for another node.
    fn serve_scrape(
        &self,
        (from, request): (NodeNumber, Request),
        position: u16,
        info_hash: &InfoHash,
        families: FamilySet,
    ) {
        let tracker = self.trackers.own();
        let mut elsewhere = self.elsewhere.borrow_mut();
        let Some(elsewhere) = elsewhere.as_mut() else { return };
        let item = if tracker.keeps(info_hash) {
            elsewhere.counters.served.add(1);
            Item::Scraped { request, position, counts: tracker.scrape(info_hash, families) }
        } else {
            Item::NotHeld { request }
        };
        let _ = elsewhere.send(from, &item);
    }

    /// Applies an announce that has been answered some seconds ago, unless this node does not keep the part.
    pub(super) fn apply_late(&self, announce: &Announce, age: u32, now: Seconds) {
        let mut tracker = self.trackers.own();
        let info_hash = &announce.info_hash;
        if !tracker.keeps(info_hash) {
            return self.note(|counters| &counters.lost);
        }
        if tracker.admit(AdmissionRequest::of(info_hash)).is_ok() {
            tracker.announce_late(announce, age, now);
        }
    }
}

/// Returns as many whole peers as there is room for, in bytes.
fn within(peers: &[u8], room: u32, size: usize) -> &[u8] {
    let room = usize::try_from(room).unwrap_or(usize::MAX) / size * size;
    peers.get(..room.min(peers.len())).unwrap_or_default()
}

fn response<'a>(counts: SwarmCounts, (v4, v6): (&'a [u8], &'a [u8])) -> OwnerResponse<'a> {
    let SwarmCounts { complete, incomplete, downloaded } = counts;
    let announced = Announced {
        v4_len: v4.len(),
        v6_len: v6.len(),
        complete,
        incomplete,
        downloaded,
        stored: Stored::Ignored,
        previous: Previous::default(),
    };
    OwnerResponse { announced, v4, v6 }
}
