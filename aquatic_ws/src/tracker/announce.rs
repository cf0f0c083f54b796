//! Announces, stage by stage, and the offers relayed with them.

use std::borrow::Borrow;

use aquatic_common::{AnnounceEvent, Family, InfoHash};
use aquatic_tracker::{AdmissionRequest, Forward};
use aquatic_ws_protocol::{Action, Announce, AnnounceReply, Offer, OfferRelays, OwnedOffers};
use rand::rngs::SmallRng;

use super::router::Owner;
use super::{Refusal, RequestContext, Tracker, nodes};
use crate::connections::PROBE_TIMEOUT;
use crate::counters::{DropReason, RelayDrop, Response};
use crate::forwarding::{Forwarded, ForwardedAnnounce, ForwardedBatch, Frame, Relay};
use crate::frames::{frame_length, write_text_header};
use crate::memberships::TooMany;
use crate::swarm::{self, ConnectionId, Network, OfferDigest, Outcome};

/// Maximum interval in seconds that a pending claimant is told: by then the probe of the other connection is
/// decided.
const CLAIMANT_INTERVAL: u32 = PROBE_TIMEOUT + 5;

/// Serves an announce from a client of this core.
pub(super) fn serve(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    from: ConnectionId,
    family: Family,
    message: &Announce<'_>,
    context: &mut RequestContext<'_>,
) {
    match admit(tracker, from, family, message, context) {
        Ok(announce) => {
            let offers = if announce.stopped { &[] } else { message.offers.as_slice() };
            route(tracker, &announce, offers, context);
        }
        Err(refusal) => tracker.refuse(from, Action::Announce, Some(message.info_hash), refusal),
    }
}

/// Checks the admission policy and the limits of the connection, and records the membership.
fn admit(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    from: ConnectionId,
    family: Family,
    message: &Announce<'_>,
    context: &RequestContext<'_>,
) -> Result<swarm::Announce, Refusal> {
    let Announce { info_hash, peer_id, event, .. } = *message;
    context.admission.check(AdmissionRequest::of(&info_hash)).map_err(Refusal::NotAdmitted)?;
    tracker.counters.drop_relays(RelayDrop::BadOffer, message.bad_offers);
    let stopped = event == AnnounceEvent::Stopped;
    let peer = (info_hash, peer_id);
    let (mut network, mut may_be_added) = (Network::UNKNOWN, tracker.stores_new_peers());
    if let Some(connection) = tracker.connections.get(from) {
        network = connection.network;
    }
    if !stopped {
        let joined = tracker.connections.join(from, peer, context.now, may_be_added);
        may_be_added = joined.map_err(|limit| match limit {
            TooMany::Peers => Refusal::ConnectionPeers,
            TooMany::PeersPerTorrent => Refusal::ConnectionTorrentPeers,
            TooMany::PeerIds => Refusal::ConnectionPeerIds,
        })?;
        tracker.note_joined();
    }
    let seeder = message.is_seeder() && event != AnnounceEvent::Paused;
    let connection = from;
    Ok(swarm::Announce { info_hash, peer_id, connection, network, family, seeder, stopped, may_be_added })
}

/// Applies an announce on this core, or forwards it to the owner of the torrent.
fn route(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    announce: &swarm::Announce,
    offers: &[Offer<'_>],
    context: &mut RequestContext<'_>,
) {
    let (connection, info_hash) = (announce.connection, announce.info_hash);
    let mut digests = std::mem::take(&mut tracker.digests);
    digests.clear();
    digests.extend(offers.iter().map(|offer| tracker.digest(&offer.offer_id)));
    match tracker.router.owner(&info_hash) {
        Owner::Here => {
            let announced = apply(tracker, announce, &digests, context);
            note_left(tracker, announce);
            reply(tracker, connection, info_hash, &announced, context.rng);
            relay_offers(tracker, announce, offers.iter());
        }
        Owner::Core(owner) => {
            let offers = OwnedOffers::new(offers);
            let forwarded = ForwardedAnnounce { announce: *announce, digests: digests.clone(), offers };
            if tracker.forward_request(connection, owner, Forwarded::Announce(Box::new(forwarded))).is_err() {
                tracker.refuse(connection, Action::Announce, Some(info_hash), Refusal::Overflow);
            } else {
                note_left(tracker, announce);
            }
        }
    }
    tracker.digests = digests;
}

/// Ends the membership of a peer that has stopped, once its owner knows or will hear of it. Before, the end
/// of the connection is what removes the peer.
fn note_left(tracker: &mut Tracker<impl Forward<ForwardedBatch>>, announce: &swarm::Announce) {
    if announce.stopped
        && let Some(connection) = tracker.connections.get(announce.connection)
    {
        connection.memberships.leave(&(announce.info_hash, announce.peer_id));
    }
}

/// Serves an announce that another core forwarded to this one, the owner of the torrent.
pub(super) fn receive_forwarded(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    from: usize,
    forwarded: ForwardedAnnounce,
    context: &mut RequestContext<'_>,
) {
    let ForwardedAnnounce { announce, digests, offers } = forwarded;
    let announced = apply(tracker, &announce, &digests, context);
    let (connection, info_hash) = (announce.connection, announce.info_hash);
    let response = Forwarded::Announced { connection, info_hash, announced };
    if tracker.router.forward(from, response).is_err() {
        tracker.counters.drop_one(DropReason::Overflow);
    }
    relay_offers(tracker, &announce, offers.iter());
}

/// Applies an announce to the swarms of this core. The receivers of its offers are in [`Tracker::receivers`].
fn apply(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    announce: &swarm::Announce,
    digests: &[OfferDigest],
    context: &mut RequestContext<'_>,
) -> swarm::Announced {
    let receivers = &mut tracker.receivers;
    let announced = tracker.swarms.announce(announce, digests, context.now, context.rng, receivers);
    match announced.outcome {
        Outcome::Contested(connection) => {
            tracker.counters.contested.add(1);
            probe(tracker, connection);
        }
        Outcome::LimitReached(limit) => tracker.counters.not_stored(announce.family, limit),
        Outcome::Stored | Outcome::Left => {}
    }
    announced
}

/// Probes a connection of this or another core.
pub(super) fn probe(tracker: &mut Tracker<impl Forward<ForwardedBatch>>, connection: ConnectionId) {
    if tracker.router.is_local(connection) {
        tracker.connections.probe(connection);
    } else {
        // If the outbox is full, the next announce of the claimant sends another probe.
        let _ = tracker.router.forward(connection.core.into(), Forwarded::Probe { connection });
    }
}

/// Sends the reply to an announce to a connection of this core.
pub(super) fn reply(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    to: ConnectionId,
    info_hash: InfoHash,
    announced: &swarm::Announced,
    rng: &mut SmallRng,
) {
    encode(tracker, info_hash, announced, rng);
    tracker.send(to, Response::Announce);
}

/// Encodes the reply to an announce.
fn encode(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    info_hash: InfoHash,
    announced: &swarm::Announced,
    rng: &mut SmallRng,
) {
    let swarm::Counts { complete, incomplete, .. } = announced.counts;
    let interval = tracker.intervals.next(u64::from(complete) + u64::from(incomplete), rng);
    let is_contested = matches!(announced.outcome, Outcome::Contested(_));
    let interval = if is_contested { interval.min(CLAIMANT_INTERVAL) } else { interval };
    tracker.text.clear();
    AnnounceReply { info_hash, interval, complete, incomplete }.encode(&mut tracker.text);
}

/// Sends offers to the receivers sampled last.
fn relay_offers<'a>(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    announce: &swarm::Announce,
    offers: impl Iterator<Item = impl Borrow<Offer<'a>>>,
) {
    if tracker.receivers.is_empty() {
        return;
    }
    let relays = OfferRelays::new(announce.info_hash, announce.peer_id);
    let receivers = std::mem::take(&mut tracker.receivers);
    for (at, (&to, offer)) in receivers.iter().zip(offers).enumerate() {
        let offer = offer.borrow();
        if tracker.router.is_local(to) {
            let length = relays.length(offer);
            tracker.send_text(to, Response::Offer, length, |out| relays.encode(offer, out));
        } else if let Some(node) = to.node() {
            nodes::send_offer(tracker, node, (at, to), announce, offer);
        } else {
            tracker.forward_relay(to, Relay::Offer, offer_frame(&relays, offer));
        }
    }
    tracker.receivers = receivers;
}

fn offer_frame(relays: &OfferRelays, offer: &Offer<'_>) -> Frame {
    let length = relays.length(offer);
    let mut frame = Vec::with_capacity(frame_length(length));
    write_text_header(length, &mut frame);
    relays.encode(offer, &mut frame);
    frame.into_boxed_slice()
}
