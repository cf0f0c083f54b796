//! Answers to offers, stage by stage.

use aquatic_common::Seconds;
use aquatic_tracker::{AdmissionRequest, Forward, NotAdmitted};
use aquatic_ws_protocol::{Answer, AnswerRelay};

use super::router::Owner;
use super::{RequestContext, Tracker, nodes};
use crate::counters::{RelayDrop, Response};
use crate::forwarding::{Forwarded, ForwardedAnswer, ForwardedBatch, Frame, Relay};
use crate::frames::{frame_length, write_text_header};
use crate::swarm::{self, AnswerFault, ConnectionId};

/// Serves an answer from a client of this core. One that cannot be relayed is dropped: its sender expects no
/// reply.
pub(super) fn serve(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    from: ConnectionId,
    message: &Answer<'_>,
    context: &RequestContext<'_>,
) {
    match admit(tracker, from, message, context) {
        Ok(answer) => {
            if let Some(node) = nodes::take_offer(tracker, from, message, context.now) {
                return nodes::send_answer(tracker, node, from, message);
            }
            encode(message, &mut tracker.text);
            route(tracker, answer, context.now);
        }
        Err(reason) => drop_answer(tracker, reason),
    }
}

/// Counts an answer of a client of this core that cannot be relayed.
fn drop_answer(tracker: &mut Tracker<impl Forward<ForwardedBatch>>, reason: RelayDrop) {
    tracker.refused = Some(reason.name());
    tracker.counters.drop_relay(reason);
}

/// Checks the admission policy.
pub(super) fn admit(
    tracker: &Tracker<impl Forward<ForwardedBatch>>,
    from: ConnectionId,
    message: &Answer<'_>,
    context: &RequestContext<'_>,
) -> Result<swarm::Answer, RelayDrop> {
    let Answer { info_hash, peer_id, to_peer_id, ref offer_id, .. } = *message;
    context.admission.check(AdmissionRequest::of(&info_hash)).map_err(|why| match why {
        NotAdmitted::AccessList => RelayDrop::AnswerAccessList,
    })?;
    let offer = tracker.digest(offer_id);
    Ok(swarm::Answer { info_hash, peer_id, connection: from, to_peer_id, offer })
}

/// Encodes the message for the peer that made the offer.
pub(super) fn encode(message: &Answer<'_>, out: &mut String) {
    let Answer { info_hash, peer_id, ref offer_id, answer, .. } = *message;
    out.clear();
    AnswerRelay { info_hash, peer_id, answer, offer_id: offer_id.clone() }.encode(out);
}

/// Applies an answer on this core, or forwards it to the owner of the torrent, and sends the message encoded
/// last.
fn route(tracker: &mut Tracker<impl Forward<ForwardedBatch>>, answer: swarm::Answer, now: Seconds) {
    match tracker.router.owner(&answer.info_hash) {
        Owner::Here => {
            if let Err(reason) = apply_and_send(tracker, &answer, now) {
                drop_answer(tracker, reason);
            }
        }
        Owner::Core(owner) => {
            tracker.counters.forwarded.add(1);
            let forwarded = ForwardedAnswer { answer, frame: text_frame(&tracker.text) };
            if tracker.router.forward(owner, Forwarded::Answer(Box::new(forwarded))).is_err() {
                drop_answer(tracker, RelayDrop::Overflow);
            }
        }
    }
}

/// Applies an answer on this core, and sends the message encoded last.
pub(super) fn apply_and_send(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    answer: &swarm::Answer,
    now: Seconds,
) -> Result<(), RelayDrop> {
    let to = apply(tracker, answer, now)?;
    if tracker.router.is_local(to) {
        tracker.send(to, Response::Answer);
    } else {
        let frame = text_frame(&tracker.text);
        tracker.forward_relay(to, Relay::Answer, frame);
    }
    Ok(())
}

/// Serves an answer that another core forwarded to this one, the owner of the torrent.
pub(super) fn receive_forwarded(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    forwarded: ForwardedAnswer,
    now: Seconds,
) {
    match apply(tracker, &forwarded.answer, now) {
        Ok(to) => tracker.relay(to, Relay::Answer, forwarded.frame),
        Err(reason) => tracker.counters.drop_relay(reason),
    }
}

/// Applies an answer to the swarms of this core. Returns the connection that receives it.
fn apply(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    answer: &swarm::Answer,
    now: Seconds,
) -> Result<ConnectionId, RelayDrop> {
    tracker.swarms.answer(answer, now).map_err(|fault| match fault {
        AnswerFault::PeerGone => RelayDrop::AnswerToNobody,
        AnswerFault::UnknownOffer => RelayDrop::AnswerWithoutOffer,
    })
}

fn text_frame(text: &str) -> Frame {
    let mut frame = Vec::with_capacity(frame_length(text.len()));
    write_text_header(text.len(), &mut frame);
    frame.extend_from_slice(text.as_bytes());
    frame.into_boxed_slice()
}
