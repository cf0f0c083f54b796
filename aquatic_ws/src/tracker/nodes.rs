//! Peers, offers and answers of other nodes.
//!
//! The owner of a torrent sends an offer for a peer of another node to the core of its connection there,
//! which notes the node that it came from. So an answer goes from the core of the client to that node, to the
//! owner of the torrent there, which has the pending offer.
//!
//! Nothing here is reached without a cluster, apart from one check of an `Option` per answer.

use std::hash::{Hash, Hasher};

use aquatic_common::expiry::Expire;
use aquatic_common::{InfoHash, PeerId, Seconds};
use aquatic_tracker::{AdmissionRequest, Forward};
use aquatic_ws_protocol::{Answer, Offer, OfferId, OfferRelays};

use super::router::Owner;
use super::{RequestContext, Tracker, announce, answer};
use crate::counters::{RelayDrop, Response};
use crate::forwarding::ForwardedBatch;
use crate::nodes::changes::{RECORD_LENGTH, read_record, write_record};
use crate::nodes::counts::ChangeOutcome;
use crate::nodes::messages::{Exchange, NodeMessage, Receiver};
use crate::nodes::outbox::NotAdded;
use crate::swarm::{self, Applied, ConnectionId, NodeNumber};

/// Maximum number of records that are published at once.
const MAX_RECORDS: usize = (64 << 10) / RECORD_LENGTH;

/// Units of work of one step of removing the peers of a gone node, which takes less than a millisecond.
const FORGET_BUDGET: u64 = 8192;

impl<F: Forward<ForwardedBatch>> Tracker<F> {
    /// Begins to exchange peers, offers and answers with other nodes.
    pub fn join_cluster(&mut self) {
        self.nodes.get_or_insert_default();
        self.swarms.replicate(self.max_peer_age);
    }

    /// Appends the records of the changes that wait to be published, at most 64 KiB. Returns their number.
    pub fn publish(&mut self, now: Seconds, out: &mut Vec<u8>) -> usize {
        let mut published = 0;
        for change in self.swarms.take_changes(now, MAX_RECORDS) {
            write_record(&change, out);
            published += 1;
        }
        if let Some(nodes) = &mut self.nodes {
            nodes.counts.published += published as u64;
        }
        published
    }

    /// Takes messages that wait to be sent to a node: about 64 KiB, or a longer one.
    pub fn take_node_messages(&mut self) -> Option<(NodeNumber, Vec<u8>)> {
        self.nodes.as_mut()?.outbox.take()
    }

    /// Returns whether peers of gone nodes are left.
    #[must_use]
    pub fn is_forgetting(&self) -> bool {
        self.swarms.is_forgetting()
    }

    /// Continues to publish all peers again and to remove those of gone nodes. To be called a few times a
    /// second at least.
    pub fn advance_cluster(&mut self, now: Seconds) {
        self.swarms.advance_resend();
        if self.swarms.is_forgetting() {
            self.swarms.expire(now, self.max_peer_age, FORGET_BUDGET);
        }
    }

    /// Publishes all peers of this core again, because another node lacks some.
    pub fn resend_peers(&mut self) {
        self.swarms.resend();
    }

    /// Removes the peers of a node that is gone, little by little, and what waits to be sent to it.
    pub fn forget_node(&mut self, node: NodeNumber) {
        self.swarms.forget_node(node);
        if let Some(nodes) = &mut self.nodes {
            nodes.outbox.forget(node);
        }
    }

    /// Accepts the changes of a node that was gone, or of another one that has its number, once the peers of
    /// the first are removed.
    pub fn readmit_node(&mut self, node: NodeNumber, now: Seconds) {
        if self.swarms.is_gone(node) {
            self.swarms.doubt_node(node, now);
        }
        self.swarms.readmit_node(node);
    }

    /// Removes the peers of a node of which changes were missed, little by little, except for those that it
    /// publishes again.
    pub fn doubt_node(&mut self, node: NodeNumber, now: Seconds) {
        self.swarms.doubt_node(node, now);
    }

    /// Applies the records of changes that another node published so many seconds ago. Those of torrents that
    /// this core does not own are dropped.
    pub fn apply_changes(
        &mut self,
        node: NodeNumber,
        records: &[u8],
        delay: u32,
        context: &mut RequestContext<'_>,
    ) {
        let (records, rest) = records.as_chunks::<RECORD_LENGTH>();
        if !rest.is_empty() {
            self.count_change(ChangeOutcome::Malformed);
        }
        for record in records {
            let outcome = match read_record(record) {
                Ok(change) if self.router.owner(&change.info_hash) != Owner::Here => ChangeOutcome::Malformed,
                Ok(change) => self.apply_change(node, &change, delay, context),
                Err(_) => ChangeOutcome::Malformed,
            };
            self.count_change(outcome);
        }
        self.router.others().flush();
    }

    /// Returns how many changes this core has published.
    #[must_use]
    pub fn published_changes(&self) -> u64 {
        self.nodes.as_ref().map_or(0, |nodes| nodes.counts.published)
    }

    /// Returns how many changes of other nodes were served, by what became of them.
    pub fn applied_changes(&self) -> impl Iterator<Item = (&'static str, u64)> + use<F> {
        let counts = self.nodes.as_ref().map(|nodes| nodes.counts).unwrap_or_default();
        ChangeOutcome::ALL.into_iter().map(ChangeOutcome::name).zip(counts.applied)
    }

    fn count_change(&mut self, outcome: ChangeOutcome) {
        if let Some(nodes) = &mut self.nodes {
            nodes.counts.applied[outcome as usize] += 1;
        }
    }

    fn apply_change(
        &mut self,
        node: NodeNumber,
        change: &swarm::Change,
        delay: u32,
        context: &mut RequestContext<'_>,
    ) -> ChangeOutcome {
        if context.admission.check(AdmissionRequest::of(&change.info_hash)).is_err() {
            return ChangeOutcome::NotAdmitted;
        }
        match self.swarms.apply(change, (node, delay), context.now, self.max_peer_age) {
            Applied::Added => ChangeOutcome::Added,
            Applied::Updated => ChangeOutcome::Updated,
            Applied::Claims(holder) => {
                if let Some(holder) = holder {
                    announce::probe(self, holder);
                }
                ChangeOutcome::Claimed
            }
            Applied::Removed => ChangeOutcome::Removed,
            Applied::Absent => ChangeOutcome::Absent,
            Applied::TooOld => ChangeOutcome::TooOld,
            Applied::NodeGone => ChangeOutcome::NodeGone,
            Applied::LimitReached(_) => ChangeOutcome::LimitReached,
        }
    }

    /// Serves messages of another node that [`crate::nodes::messages::split`] has found to be for this core.
    pub fn receive_node_messages(
        &mut self,
        node: NodeNumber,
        messages: &[u8],
        context: &mut RequestContext<'_>,
    ) {
        let mut rest = messages;
        while !rest.is_empty() {
            match NodeMessage::take(&mut rest) {
                Ok(NodeMessage::Offer(exchange)) => receive_offer(self, node, &exchange, context.now),
                Ok(NodeMessage::Answer(exchange)) => receive_answer(self, node, &exchange, context),
                Ok(NodeMessage::NoSuchPeer(Receiver { connection, info_hash, peer_id })) => {
                    self.swarms.leave(&info_hash, &peer_id, connection.of(node));
                }
                Err(_) => self.counters.drop_relay(RelayDrop::NodeMalformed),
            }
        }
        self.router.others().flush();
    }
}

/// Adds a message to those for another node.
fn send(tracker: &mut Tracker<impl Forward<ForwardedBatch>>, node: NodeNumber, message: &NodeMessage<'_>) {
    let pushed = match &mut tracker.nodes {
        Some(nodes) if !tracker.swarms.is_gone(node) => nodes.outbox.push(node, message),
        _ => return tracker.counters.drop_relay(RelayDrop::NodeGone),
    };
    match pushed {
        Ok(()) => {}
        Err(NotAdded::Full) => tracker.counters.drop_relay(RelayDrop::NodeOverflow),
        Err(NotAdded::TooLong) => tracker.counters.drop_relay(RelayDrop::NodeTooLong),
    }
}

/// Sends an offer to the node of its receiver, which was sampled for the offer at this position.
pub(super) fn send_offer(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    node: NodeNumber,
    (at, to): (usize, ConnectionId),
    announce: &swarm::Announce,
    offer: &Offer<'_>,
) {
    let swarm::Announce { info_hash, peer_id: maker, .. } = *announce;
    let Some(peer_id) = tracker.swarms.receiver(&info_hash, at) else { return };
    let exchange = Exchange {
        receiver: Receiver { connection: to.on_its_node(), info_hash, peer_id },
        maker,
        offer_id: offer.offer_id.clone(),
        description: offer.offer,
    };
    send(tracker, node, &NodeMessage::Offer(exchange));
}

/// Relays an offer of a client of another node to its receiver, whose connection this core has.
fn receive_offer(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    node: NodeNumber,
    exchange: &Exchange<'_>,
    now: Seconds,
) {
    let Exchange { receiver, maker, offer_id, description } = exchange;
    let Receiver { connection, info_hash, peer_id } = *receiver;
    let to = connection.here();
    if !tracker.router.is_local(to) {
        return tracker.counters.drop_relay(RelayDrop::NodeMalformed);
    }
    let hash = hash(tracker, (&info_hash, &peer_id), maker, offer_id);
    let until = now + tracker.max_offer_age;
    let connection = tracker.connections.get(to);
    let Some(connection) = connection.filter(|it| it.memberships.contains(&(info_hash, peer_id))) else {
        tracker.counters.drop_relay(RelayDrop::ConnectionGone);
        return send(tracker, node, &NodeMessage::NoSuchPeer(*receiver));
    };
    connection.node_offers.get_or_insert_default().insert(hash, node, until, now);
    let relays = OfferRelays::new(info_hash, *maker);
    let offer = Offer { offer: *description, offer_id: offer_id.clone() };
    let length = relays.length(&offer);
    tracker.send_text(to, Response::Offer, length, |out| relays.encode(&offer, out));
}

/// Removes the offer that a client of this core answers, if it came from another node, which is returned.
pub(super) fn take_offer<F>(
    tracker: &mut Tracker<F>,
    from: ConnectionId,
    message: &Answer<'_>,
    now: Seconds,
) -> Option<NodeNumber>
where
    F: Forward<ForwardedBatch>,
{
    tracker.nodes.as_ref()?;
    let Answer { info_hash, peer_id, to_peer_id, ref offer_id, .. } = *message;
    let hash = hash(tracker, (&info_hash, &peer_id), &to_peer_id, offer_id);
    let offers = &mut tracker.connections.get(from)?.node_offers;
    let node = offers.as_mut()?.take(hash, now);
    if offers.as_ref().is_some_and(|offers| offers.are_over(now)) {
        *offers = None;
    }
    node
}

/// Sends an answer to the node of the client that made the offer.
pub(super) fn send_answer(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    node: NodeNumber,
    from: ConnectionId,
    message: &Answer<'_>,
) {
    let Answer { info_hash, peer_id, to_peer_id, ref offer_id, answer } = *message;
    let exchange = Exchange {
        receiver: Receiver { connection: from.on_its_node(), info_hash, peer_id },
        maker: to_peer_id,
        offer_id: offer_id.clone(),
        description: answer,
    };
    send(tracker, node, &NodeMessage::Answer(exchange));
}

/// Relays an answer of a client of another node to the peer that made the offer.
fn receive_answer(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    node: NodeNumber,
    exchange: &Exchange<'_>,
    context: &RequestContext<'_>,
) {
    let Exchange { receiver, maker, offer_id, description } = exchange;
    let Receiver { connection, info_hash, peer_id } = *receiver;
    let message =
        Answer { info_hash, peer_id, to_peer_id: *maker, offer_id: offer_id.clone(), answer: *description };
    let admitted = answer::admit(tracker, connection.of(node), &message, context);
    let relayed = admitted.and_then(|answer| {
        answer::encode(&message, &mut tracker.text);
        answer::apply_and_send(tracker, &answer, context.now)
    });
    if let Err(reason) = relayed {
        tracker.counters.drop_relay(reason);
    }
}

/// Returns the hash of an offer: of the torrent, of the peer that receives it, and of the one that made it.
fn hash<F>(
    tracker: &Tracker<F>,
    (info_hash, receiver): (&InfoHash, &PeerId),
    maker: &PeerId,
    offer_id: &OfferId,
) -> u64 {
    let mut hasher = tracker.offer_hasher;
    hasher.write(&info_hash.0);
    hasher.write(&receiver.0);
    hasher.write(&maker.0);
    offer_id.hash(&mut hasher);
    hasher.finish()
}
