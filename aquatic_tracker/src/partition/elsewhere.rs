//! Requests of one core for parts that other nodes hold.

use std::collections::{BTreeMap, VecDeque};

use aquatic_common::{InfoHash, Seconds};
use aquatic_metrics::{CoreMetrics, Counter, Gauge, names};
use aquatic_swarm::{Announce, FamilySet};
use slab::Slab;

use super::messages::{Item, Request};
use super::{Holders, MAX_LATE, MAX_LATENESS, MAX_OUTGOING, NodeNumber};
use crate::gather::RequestId;

/// Length from which on a message is not added to, in bytes.
const FULL: usize = 64 << 10;

/// Announces that were kept and are sent in one tick, at most.
const LATE_PER_TICK: usize = 8192;

/// What becomes of requests for parts that other nodes hold, and of theirs.
#[derive(Debug)]
pub(crate) struct PartCounters {
    /// Requests of this node that a holder has responded to.
    pub(crate) answered: Counter,
    /// Requests of this node that got no response in time.
    pub(crate) timeout: Counter,
    /// Requests of this node for parts that nobody holds.
    no_holder: Counter,
    /// Requests of this node for which there was no room.
    overflow: Counter,
    /// Requests of this node to a node that does not hold the part any more.
    pub(crate) not_held: Counter,
    /// Announces that were kept and sent later.
    late: Counter,
    /// Announces that were kept in vain: there were too many, or there was no holder for too long.
    lost: Counter,
    /// Requests of other nodes that were served.
    pub(crate) served: Counter,
    /// Messages of other nodes that could not be read.
    pub(crate) malformed: Counter,
    waiting: Gauge,
}

impl PartCounters {
    fn new(metrics: &CoreMetrics) -> Self {
        let counter = |outcome| metrics.counter(&names::PART_REQUESTS, &[("outcome", outcome)]);
        Self {
            answered: counter("answered"),
            timeout: counter("timeout"),
            no_holder: counter("no_holder"),
            overflow: counter("overflow"),
            not_held: counter("not_held"),
            late: counter("sent_later"),
            lost: counter("lost"),
            served: counter("served"),
            malformed: counter("malformed"),
            waiting: metrics.gauge(&names::PART_ANNOUNCES_WAITING, &[]),
        }
    }
}

/// Key of an announce that was sent to a holder.
pub(crate) type Asked = usize;

/// What one core has to do with the parts that other nodes hold.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    core: u16,
    holders: Holders,
    /// Messages for each node, of which the last may be added to.
    outgoing: BTreeMap<NodeNumber, VecDeque<Vec<u8>>>,
    /// Announces without a response.
    asked: Slab<(Announce, (u32, u32))>,
    /// Memory for the peers of a response.
    buffer: Vec<u8>,
    /// Announces for which there was no holder, and when they were received.
    late: VecDeque<(Announce, Seconds)>,
    pub(crate) counters: PartCounters,
}

impl Elsewhere {
    pub(crate) fn new(core: usize, holders: Holders, metrics: &CoreMetrics) -> Self {
        Self {
            core: u16::try_from(core).unwrap_or(u16::MAX),
            holders,
            outgoing: BTreeMap::new(),
            asked: Slab::new(),
            buffer: Vec::new(),
            late: VecDeque::new(),
            counters: PartCounters::new(metrics),
        }
    }

    /// Takes in that other nodes hold parts now. What waits for a node that is none any more is dropped, and
    /// its requests run into their deadline.
    pub(crate) fn set_holders(&mut self, holders: Holders) {
        self.outgoing.retain(|node, _| holders.others.contains(&Some(*node)));
        self.holders = holders;
    }

    /// The node to ask for a torrent.
    pub(crate) fn node(&self, info_hash: &InfoHash) -> Option<NodeNumber> {
        let node = self.holders.node(info_hash);
        if node.is_none() {
            self.counters.no_holder.add(1);
        }
        node
    }

    /// Keeps an announce until its response is there, with the room for IPv4 and IPv6 peers in bytes.
    pub(crate) fn keep(&mut self, announce: &Announce, room: (u32, u32)) -> Asked {
        self.asked.insert((*announce, room))
    }

    /// Lends memory.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Takes lent memory back.
    pub(crate) fn give_buffer(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// Removes an announce whose response is there, or does not come.
    pub(crate) fn remove(&mut self, asked: Asked) -> Option<(Announce, (u32, u32))> {
        self.asked.try_remove(asked)
    }

    /// Keeps an announce for when there is a holder.
    pub(crate) fn put_off(&mut self, announce: Announce, now: Seconds) {
        if self.late.len() >= MAX_LATE {
            self.counters.lost.add(1);
            return;
        }
        self.late.push_back((announce, now));
    }

    /// Sends an announce. Returns whether there is room.
    pub(crate) fn announce(
        &mut self,
        node: NodeNumber,
        id: RequestId,
        announce: &Announce,
        room: (u32, u32),
    ) -> bool {
        let peers = |bytes: u32, size: u32| u16::try_from(bytes / size).unwrap_or(u16::MAX);
        let room = (peers(room.0, 6), peers(room.1, 18));
        self.request(node, &Item::Announce { request: self.request_of(id), announce: *announce, room })
    }

    /// Asks for the counts of a torrent. Returns whether there is room.
    pub(crate) fn scrape(
        &mut self,
        node: NodeNumber,
        id: RequestId,
        (position, info_hash): (u16, InfoHash),
        families: FamilySet,
    ) -> bool {
        self.request(node, &Item::Scrape { request: self.request_of(id), position, families, info_hash })
    }

    fn request_of(&self, id: RequestId) -> Request {
        Request { core: self.core, id }
    }

    fn request(&mut self, node: NodeNumber, item: &Item<'_>) -> bool {
        let is_sent = self.send(node, item);
        self.counters.overflow.add((!is_sent).into());
        is_sent
    }

    /// Adds an item to the messages for a node. Returns whether there is room.
    pub(crate) fn send(&mut self, node: NodeNumber, item: &Item<'_>) -> bool {
        let messages = self.outgoing.entry(node).or_default();
        if messages.len() >= MAX_OUTGOING / FULL {
            return false;
        }
        if messages.back().is_none_or(|message| message.len() >= FULL) {
            messages.push_back(Vec::new());
        }
        if let Some(message) = messages.back_mut() {
            item.write(message);
        }
        true
    }

    /// Removes a message and the node it is for.
    pub(crate) fn take(&mut self) -> Option<(NodeNumber, Vec<u8>)> {
        let mut first = self.outgoing.first_entry()?;
        let (node, message) = (*first.key(), first.get_mut().pop_front());
        if first.get().is_empty() {
            first.remove();
        }
        Some((node, message?))
    }

    /// Sends announces that were kept, as far as there are holders now, and forgets those that are too old.
    pub(crate) fn send_late(&mut self, now: Seconds) {
        for _ in 0..self.late.len().min(LATE_PER_TICK) {
            let Some((announce, received)) = self.late.pop_front() else { break };
            let age = now.0.saturating_sub(received.0);
            let Some(age) = u8::try_from(age).ok().filter(|age| u32::from(*age) <= MAX_LATENESS) else {
                self.counters.lost.add(1);
                continue;
            };
            match self.holders.node(&announce.info_hash) {
                Some(node) if self.send(node, &Item::Late { age, announce }) => self.counters.late.add(1),
                Some(_) | None => self.late.push_back((announce, received)),
            }
        }
        self.counters.waiting.set(self.late.len() as u64);
    }

    /// Removes announces that were kept for parts that this node holds itself by now.
    pub(crate) fn take_own(&mut self) -> VecDeque<(Announce, Seconds)> {
        let held = *self.holders.own();
        let is_own = |(announce, _): &(Announce, Seconds)| held.contains(&announce.info_hash);
        let (own, late) = std::mem::take(&mut self.late).into_iter().partition(is_own);
        self.late = late;
        own
    }
}
