//! Requests of one core for parts that other nodes hold.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use aquatic_common::{InfoHash, Seconds};
use aquatic_metrics::{CoreMetrics, Counter, Gauge, names};
use aquatic_swarm::{Announce, FamilySet};
use indexmap::IndexSet;
use slab::Slab;

use super::messages::{Item, Request};
use super::{Holders, MAX_LATE, MAX_LATENESS, MAX_OUTGOING, MAX_SILENCE, NodeNumber, PROBE};
use crate::forward::OwnerParts;
use crate::gather::RequestId;

/// Length from which on a message is not added to, in bytes.
const FULL: usize = 64 << 10;

/// What becomes of requests for parts that other nodes hold, and of theirs.
#[derive(Debug)]
pub(crate) struct PartCounters {
    /// Requests of this node that a holder has responded to.
    pub(crate) answered: Counter,
    /// Requests of this node that got no response in time.
    pub(crate) timeout: Counter,
    /// Requests of this node for parts that nobody holds, or whose holders are silent.
    no_holder: Counter,
    /// Requests of this node for which there was no room.
    pub(crate) overflow: Counter,
    /// Requests of this node to a node that does not hold the part any more.
    pub(crate) not_held: Counter,
    /// Announces that were kept and sent later, or applied later by this node.
    pub(crate) late: Counter,
    /// Announces that were kept in vain: there were too many, there was no holder for too long, or this node
    /// has begun to hold all parts.
    pub(crate) lost: Counter,
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

/// Key of an announce or a scrape that was sent to holders.
pub(crate) type Asked = usize;

/// An announce without a response.
#[derive(Clone, Copy, Debug)]
struct Sent {
    announce: Announce,
    /// Room for IPv4 and IPv6 peers in bytes.
    room: (u32, u32),
    /// Node that it was sent to, and when.
    to: Option<(NodeNumber, Duration)>,
}

/// A scrape of which something is to be counted by other nodes.
#[derive(Debug)]
struct Scraping {
    /// Nodes that were asked, and when.
    nodes: OwnerParts,
    asked: Duration,
    /// Torrents that were asked for and have not been counted yet.
    missing: u64,
}

/// An announce for which there was no holder, and when it was received. Two of them are equal if they are of
/// the same peer.
#[derive(Clone, Copy, Debug)]
struct Late {
    announce: Announce,
    received: Seconds,
}

impl Late {
    fn peer(&self) -> (InfoHash, SocketAddr) {
        (self.announce.info_hash, self.announce.address)
    }
}

impl PartialEq for Late {
    fn eq(&self, other: &Self) -> bool {
        self.peer() == other.peer()
    }
}

impl Eq for Late {}

impl Hash for Late {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.peer().hash(state);
    }
}

/// What a core knows of another node.
#[derive(Debug, Default)]
struct Contact {
    /// Messages for it, of which the last may be added to.
    outgoing: VecDeque<Vec<u8>>,
    /// When it was last heard.
    heard: Duration,
    /// Since when it is silent, and when it is asked again.
    silent: Option<(Duration, Duration)>,
}

/// What one core has to do with the parts that other nodes hold.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    core: u16,
    holders: Holders,
    contacts: BTreeMap<NodeNumber, Contact>,
    /// Announces without a response.
    asked: Slab<Sent>,
    /// Scrapes without all responses.
    scraping: Slab<Scraping>,
    /// Memory for the peers of a response.
    buffer: Vec<u8>,
    /// Announces for which there was no holder, the last one of each peer.
    late: IndexSet<Late>,
    /// The one of them that is looked at next.
    cursor: usize,
    pub(crate) counters: PartCounters,
}

impl Elsewhere {
    pub(crate) fn new(core: usize, holders: Holders, metrics: &CoreMetrics) -> Self {
        Self {
            core: u16::try_from(core).unwrap_or(u16::MAX),
            holders,
            contacts: BTreeMap::new(),
            asked: Slab::new(),
            scraping: Slab::new(),
            buffer: Vec::new(),
            late: IndexSet::new(),
            cursor: 0,
            counters: PartCounters::new(metrics),
        }
    }

    /// Takes in that other nodes hold parts now. Nodes that hold none, and for which nothing waits, are
    /// forgotten.
    pub(crate) fn set_holders(&mut self, holders: Holders) {
        // Nodes that only ask wait for replies. What waits for one that is gone is dropped when it is sent.
        self.contacts.retain(|node, contact| holders.has(*node) || !contact.outgoing.is_empty());
        self.holders = holders;
    }

    /// The node to ask for a torrent: the best one that is not silent, or one that is to be asked again.
    pub(crate) fn node(&mut self, info_hash: &InfoHash, now: Duration) -> Option<NodeNumber> {
        for node in self.holders.nodes(info_hash) {
            match self.contacts.get_mut(&node).and_then(|contact| contact.silent.as_mut()) {
                Some((_, again)) if now < *again => {}
                Some((_, again)) => {
                    *again = now + PROBE;
                    return Some(node);
                }
                None => return Some(node),
            }
        }
        self.counters.no_holder.add(1);
        None
    }

    /// The best node that holds a torrent and is not silent.
    fn heard_node(&self, info_hash: &InfoHash) -> Option<NodeNumber> {
        let is_silent = |node: &_| self.contacts.get(node).is_some_and(|contact| contact.silent.is_some());
        self.holders.nodes(info_hash).find(|node| !is_silent(node))
    }

    /// Notes that a node was heard.
    pub(crate) fn hear(&mut self, node: NodeNumber, now: Duration) {
        if let Some(contact) = self.contacts.get_mut(&node) {
            contact.heard = now;
            contact.silent = None;
        }
    }

    /// Notes that there was no response to an announce: the node is silent, unless it was heard since.
    pub(crate) fn miss(&mut self, asked: Asked, now: Duration) {
        if let Some((node, sent)) = self.asked.get(asked).and_then(|sent| sent.to) {
            self.suspect(node, sent, now);
        }
    }

    /// Removes a scrape that has ended before all nodes had responded, and returns how many torrents they had
    /// not counted. If there were any, those nodes are silent that were not heard since.
    pub(crate) fn miss_counts(&mut self, asked: Asked, now: Duration) -> u64 {
        let Some(scraping) = self.scraping.try_remove(asked).filter(|scraping| scraping.missing > 0) else {
            return 0;
        };
        for node in scraping.nodes.iter().filter_map(|node| NodeNumber::try_from(node).ok()) {
            self.suspect(node, scraping.asked, now);
        }
        scraping.missing
    }

    /// Takes a node for silent that was asked at some time and not heard since.
    fn suspect(&mut self, node: NodeNumber, sent: Duration, now: Duration) {
        let contact = self.contacts.get_mut(&node).filter(|contact| contact.heard < sent);
        if let Some(contact) = contact
            && contact.silent.is_none()
        {
            // One message may have been lost.
            contact.silent = Some((now, now));
        }
    }

    /// Keeps an announce until its response is there, with the room for IPv4 and IPv6 peers in bytes.
    pub(crate) fn keep(&mut self, announce: &Announce, room: (u32, u32)) -> Asked {
        self.asked.insert(Sent { announce: *announce, room, to: None })
    }

    /// Begins a scrape of which other nodes are asked for something.
    pub(crate) fn begin_counting(&mut self, now: Duration) -> Asked {
        self.scraping.insert(Scraping { nodes: OwnerParts::default(), asked: now, missing: 0 })
    }

    /// Notes that a node has counted a torrent of a scrape.
    pub(crate) fn note_counted(&mut self, asked: Asked) {
        if let Some(scraping) = self.scraping.get_mut(asked) {
            scraping.missing = scraping.missing.saturating_sub(1);
        }
    }

    /// Forgets a scrape.
    pub(crate) fn end_counting(&mut self, asked: Asked) {
        let _ = self.scraping.try_remove(asked);
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
        self.asked.try_remove(asked).map(|sent| (sent.announce, sent.room))
    }

    /// Keeps an announce for when there is a holder, instead of an earlier one of the same peer.
    pub(crate) fn put_off(&mut self, announce: Announce, now: Seconds) {
        let late = Late { announce, received: now };
        if self.late.len() >= MAX_LATE && !self.late.contains(&late) {
            self.counters.lost.add(1);
            return;
        }
        self.late.replace(late);
    }

    /// Counts the announces that are lost, because this node asks no others any more.
    pub(crate) fn give_up(&self) {
        self.counters.lost.add((self.asked.len() + self.late.len()) as u64);
        self.counters.waiting.set(0);
    }

    /// Forgets what is kept of the peer of an announce, which says all that there is to say by now.
    pub(crate) fn supersede(&mut self, announce: &Announce) {
        if !self.late.is_empty() {
            self.late.swap_remove(&Late { announce: *announce, received: Seconds(0) });
        }
    }

    /// Sends an announce that is kept. Returns whether there is room.
    pub(crate) fn announce(
        &mut self,
        (node, now): (NodeNumber, Duration),
        id: RequestId,
        asked: Asked,
    ) -> bool {
        let Some(sent) = self.asked.get_mut(asked) else { return false };
        sent.to = Some((node, now));
        let (announce, room) = (sent.announce, sent.room);
        let peers = |bytes: u32, size: u32| u16::try_from(bytes / size).unwrap_or(u16::MAX);
        let room = (peers(room.0, 6), peers(room.1, 18));
        self.request(node, &Item::Announce { request: self.request_of(id), announce, room })
    }

    /// Asks for the counts of a torrent. Returns whether there is room.
    pub(crate) fn scrape(
        &mut self,
        node: NodeNumber,
        (id, asked): (RequestId, Asked),
        (position, info_hash): (u16, InfoHash),
        families: FamilySet,
    ) -> bool {
        if let Some(scraping) = self.scraping.get_mut(asked) {
            scraping.nodes.note(node.into());
            scraping.missing += 1;
        }
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
        let messages = &mut self.contacts.entry(node).or_default().outgoing;
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
        self.contacts
            .iter_mut()
            .find_map(|(node, contact)| contact.outgoing.pop_front().map(|message| (*node, message)))
    }

    /// Looks at some of the announces that are kept: sends those for which there is a holder by now, and
    /// forgets those that are too old. Appends those for parts that this node holds itself by now.
    pub(crate) fn send_late(&mut self, time: Duration, budget: usize, own: &mut Vec<(Announce, Seconds)>) {
        for contact in self.contacts.values_mut() {
            contact.silent.take_if(|(since, _)| time.saturating_sub(*since) >= MAX_SILENCE);
        }
        let now = seconds(time);
        for _ in 0..budget.min(self.late.len()) {
            let Some(late) = self.late.get_index(self.cursor).or_else(|| self.late.first()).copied() else {
                break;
            };
            if self.cursor >= self.late.len() {
                self.cursor = 0;
            }
            let Late { announce, received } = late;
            let age = u8::try_from(now.0.saturating_sub(received.0)).ok();
            match age.filter(|age| u32::from(*age) <= MAX_LATENESS) {
                None => self.counters.lost.add(1),
                Some(_) if self.holders.own().contains(&announce.info_hash) => own.push((announce, received)),
                Some(age) => match self.heard_node(&announce.info_hash) {
                    Some(node) if self.send(node, &Item::Late { age, announce }) => self.counters.late.add(1),
                    Some(_) | None => {
                        self.cursor += 1;
                        continue;
                    }
                },
            }
            self.late.swap_remove_index(self.cursor);
        }
        self.counters.waiting.set(self.late.len() as u64);
    }
}

/// Whole seconds, as the store counts.
pub(crate) fn seconds(time: Duration) -> Seconds {
    Seconds(u32::try_from(time.as_secs()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use aquatic_common::AnnounceEvent;
    use aquatic_metrics::Registry;
    use aquatic_swarm::{Families, HashKey, PartHasher, PartSet};

    use super::*;

    #[test]
    fn what_waits_when_no_node_is_asked_any_more_is_counted() {
        let hasher = PartHasher::new(&HashKey([1; 16]));
        let holders = Holders::new(hasher, PartSet::new(hasher), |_| None);
        let metrics = Registry::default().core(0);
        let mut elsewhere = Elsewhere::new(0, holders, &metrics);
        for port in 1..=3 {
            let announce = Announce {
                info_hash: InfoHash([1; 20]),
                address: SocketAddr::from(([192, 0, 2, 1], port)),
                seeder: false,
                event: AnnounceEvent::Started,
                numwant: 0,
                families: Families::Own,
            };
            elsewhere.put_off(announce, Seconds(0));
            elsewhere.keep(&announce, (0, 0));
        }
        assert_eq!(elsewhere.counters.lost.get(), 0);
        elsewhere.give_up();
        assert_eq!(elsewhere.counters.lost.get(), 6);
    }
}
