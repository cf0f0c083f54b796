//! Processing and verification of messages.

use aquatic_common::{InfoHash, PeerId};
use aquatic_load_engine::clock::Nanos;

use super::{Traffic, Worker};
use crate::counters::{Kind, Note, Tally, Violation};
use crate::decode::{DecodeError, Relay, TrackerMessage, twenty_bytes};
use crate::description::Label;
use crate::ids::{OfferKey, connection_of};
use crate::messages::{self, Answer};
use crate::registry::{AnswerDelivery, OfferDelivery};
use crate::slot::{ClientState, ReplyTo};

impl Worker {
    /// Processes a message.
    pub(super) fn message(
        &mut self,
        number: u32,
        message: Result<TrackerMessage<'_>, DecodeError>,
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) {
        match message {
            Ok(TrackerMessage::Announce { info_hash }) => {
                self.reply(number, &info_hash, (now, traffic), tally);
            }
            Ok(TrackerMessage::Offer(relay)) => self.offer(number, &relay, (now, traffic), tally),
            Ok(TrackerMessage::Answer(relay)) => self.answer(number, &relay, now, tally),
            Ok(TrackerMessage::Scrape { info_hashes }) => {
                self.scrape(number, &info_hashes, (now, traffic), tally);
            }
            Ok(TrackerMessage::Failure { reason }) => self.failure(number, reason, (now, traffic), tally),
            Err(error) => {
                log::debug!("malformed message: {error:?}");
                tally.violation(Violation::Malformed);
            }
        }
    }

    fn reply(
        &mut self,
        number: u32,
        info_hash: &InfoHash,
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) {
        let membership = self.plan.membership(self.connection(number), info_hash);
        if membership.is_none() {
            tally.violation(Violation::ForeignTorrent);
        }
        let slot = &mut self.slots[number as usize];
        match slot.replies.take() {
            ReplyTo::Announce(announced) => {
                self.in_flight -= 1;
                tally.response(Kind::Announce, announced.intended, now, membership.is_some());
                self.replied(number, announced, now, traffic, tally);
            }
            ReplyTo::Answer => {
                tally.unsolicited(now);
                tally.note(Note::AnswerReplies);
            }
            ReplyTo::Nothing => {
                tally.unsolicited(now);
                tally.note(Note::AnswerReplies);
                // New clients have no other message in flight that this could be the reply to.
                if matches!(traffic, Traffic::Connect | Traffic::Idle) && !slot.was_refused {
                    self.plan.registry.found_reply_to_answer();
                }
            }
        }
    }

    fn failure(&mut self, number: u32, reason: &str, (now, traffic): (Nanos, Traffic), tally: &mut Tally) {
        tally.error_text(reason.as_bytes());
        let slot = &mut self.slots[number as usize];
        slot.was_refused = true;
        if let Some(scraped) = slot.scrape.take() {
            self.in_flight -= 1;
            slot.deadline = None;
            tally.response(Kind::Scrape, scraped.intended, now, false);
            return self.enqueue_if_loading(number, traffic);
        }
        match slot.replies.take() {
            ReplyTo::Announce(announced) => {
                self.in_flight -= 1;
                tally.response(Kind::Announce, announced.intended, now, false);
                self.replied(number, announced, now, traffic, tally);
            }
            ReplyTo::Answer | ReplyTo::Nothing => {
                tally.unsolicited(now);
                tally.note(Note::AnswerErrors);
            }
        }
    }

    fn scrape(
        &mut self,
        number: u32,
        info_hashes: &[InfoHash],
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) {
        let slot = &mut self.slots[number as usize];
        let Some(scraped) = slot.scrape.take() else { return tally.violation(Violation::Unasked) };
        self.in_flight -= 1;
        slot.deadline = None;
        tally.response(Kind::Scrape, scraped.intended, now, true);
        let count = self.plan.config.requests.scrape_torrents;
        self.plan.topology.population.scrape_targets(scraped.subject, count, &mut self.torrents);
        // A tracker may omit unknown torrents.
        let foreign = info_hashes.iter().filter(|info_hash| !self.torrents.contains(info_hash));
        foreign.for_each(|_| tally.violation(Violation::ForeignScrape));
        self.enqueue_if_loading(number, traffic);
    }

    fn offer(&mut self, number: u32, relay: &Relay<'_>, (now, traffic): (Nanos, Traffic), tally: &mut Tally) {
        let connection = self.connection(number);
        if traffic != Traffic::Mix {
            // While clients join and leave, the number of offers that can be relayed is unknown.
            tally.sent(Kind::Offer, now);
        }
        match self.check_offer(connection, relay) {
            Ok((name, label, delivery)) => {
                tally.response(Kind::Offer, label.time, now, true);
                match delivery {
                    OfferDelivery::Accepted => {}
                    OfferDelivery::Forgotten => tally.note(Note::Unchecked),
                    // The first one was answered.
                    OfferDelivery::Repeated => return tally.violation(Violation::RepeatedOffer),
                    OfferDelivery::SamePeer => tally.violation(Violation::SamePeer),
                }
                let probability = self.plan.config.requests.answer_probability;
                let slot = &self.slots[number as usize];
                if matches!(slot.state, ClientState::Joining | ClientState::Joined)
                    && (probability >= 1.0 || self.rng.chance(probability))
                {
                    self.send_answer(number, &relay.info_hash, &relay.peer_id, name, now, tally);
                }
            }
            Err(violation) => {
                tally.response(Kind::Offer, now, now, false);
                tally.violation(violation);
            }
        }
    }

    fn check_offer(
        &self,
        connection: u32,
        relay: &Relay<'_>,
    ) -> Result<(OfferKey, Label, OfferDelivery), Violation> {
        let name = self.offer_name(relay).ok_or(Violation::ForgedOffer)?;
        if connection_of(self.plan.seed(), &relay.peer_id) != Some(name.connection) {
            return Err(Violation::ForgedOffer);
        }
        if name.connection == connection {
            return Err(Violation::OwnOffer);
        }
        if self.plan.info_hash(name.connection, name.membership) != relay.info_hash
            || self.plan.membership(connection, &relay.info_hash).is_none()
        {
            return Err(Violation::ForeignTorrent);
        }
        let label = self.plan.offers.read(relay.description).ok_or(Violation::ChangedOffer)?;
        if (label.connection, label.sequence) != (name.connection, name.sequence) {
            return Err(Violation::ChangedOffer);
        }
        Ok((name, label, self.plan.registry.offer_delivered(&name, connection)))
    }

    fn send_answer(
        &mut self,
        number: u32,
        info_hash: &InfoHash,
        to: &PeerId,
        offer: OfferKey,
        now: Nanos,
        tally: &mut Tally,
    ) {
        let connection = self.connection(number);
        let slot = &mut self.slots[number as usize];
        if self.plan.registry.answers_are_replied() {
            slot.replies.answered();
        }
        let generation = slot.generation();
        tally.sent(Kind::Answer, now);
        let answer = Answer { connection, generation, info_hash: *info_hash, to: *to, offer, now };
        self.outbox.text.clear();
        messages::answer(&self.plan, &answer, &mut self.outbox.text);
        self.queue_text(number);
    }

    fn answer(&mut self, number: u32, relay: &Relay<'_>, now: Nanos, tally: &mut Tally) {
        match self.check_answer(number, relay) {
            Ok((label, AnswerDelivery::Accepted)) => tally.response(Kind::Answer, label.time, now, true),
            Ok((label, AnswerDelivery::Forgotten)) => {
                tally.response(Kind::Answer, label.time, now, true);
                tally.note(Note::Unchecked);
            }
            Ok((label, AnswerDelivery::Forged)) => {
                tally.response(Kind::Answer, label.time, now, false);
                tally.violation(Violation::ForgedAnswer);
            }
            Ok((label, AnswerDelivery::Repeated)) => {
                tally.response(Kind::Answer, label.time, now, false);
                tally.violation(Violation::RepeatedAnswer);
            }
            Err(violation) => {
                tally.response(Kind::Answer, now, now, false);
                tally.violation(violation);
            }
        }
    }

    fn check_answer(&self, number: u32, relay: &Relay<'_>) -> Result<(Label, AnswerDelivery), Violation> {
        let connection = self.connection(number);
        let name = self.offer_name(relay).ok_or(Violation::StrayAnswer)?;
        // Sequence numbers wrap around: differences of more than half of the range are negative.
        let age = name.sequence.wrapping_sub(self.slots[number as usize].first_sequence);
        if name.connection != connection || age > u32::MAX / 2 {
            return Err(Violation::StrayAnswer);
        }
        if self.plan.info_hash(connection, name.membership) != relay.info_hash {
            return Err(Violation::ForeignTorrent);
        }
        let answerer = connection_of(self.plan.seed(), &relay.peer_id).ok_or(Violation::ForgedAnswer)?;
        let label = self.plan.answers.read(relay.description).ok_or(Violation::ChangedAnswer)?;
        if (label.connection, label.sequence) != (answerer, name.sequence) {
            return Err(Violation::ChangedAnswer);
        }
        Ok((label, self.plan.registry.answer_delivered(&name, answerer)))
    }

    /// Offer that a relay names, if it is one of this test.
    fn offer_name(&self, relay: &Relay<'_>) -> Option<OfferKey> {
        OfferKey::of(&twenty_bytes(relay.offer_id)?, self.plan.seed())
    }
}
