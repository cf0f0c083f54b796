//! The life of a client: it connects, joins its torrents, asks, leaves.

use std::io;

use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::wire::{Trouble, Wire};

use super::{Traffic, Worker};
use crate::config::Leave;
use crate::counted::{Kind, Note, Tally};
use crate::messages::{self, Announce, Event};
use crate::slot::{Announced, Scraped, Step};

/// Failures in a row after which a place stays empty.
const MAX_FAILURES: u8 = 10;

impl Worker {
    /// Has a client begin to connect.
    pub(super) fn begin(
        &mut self,
        number: u32,
        (intended, now): (Nanos, Nanos),
        traffic: Traffic,
        tally: &mut Tally,
    ) {
        let slot = &mut self.slots[number as usize];
        if !slot.busy {
            slot.busy = true;
            self.busy += 1;
        }
        tally.sent(Kind::Connect, intended);
        let wire = match Wire::open(&self.plan.route(self.first + number)) {
            Ok(wire) => wire,
            Err(error) => {
                tally.lost(Kind::Connect, intended);
                return self.fail(number, &error, now, traffic, tally);
            }
        };
        tally.note(Note::Opened);
        let begun = slot.begin(wire, &self.plan.upgrade, intended, &self.watched);
        slot.deadline = Some(now + self.plan.timeout());
        if let Err(error) = begun {
            self.socket_failed(number, error, (now, traffic), tally);
        }
    }

    /// The connection is one of WebSocket now.
    pub(super) fn upgraded(&mut self, number: u32, now: Nanos, tally: &mut Tally) {
        let slot = &mut self.slots[number as usize];
        if let Some(handshake) = slot.socket.handshake() {
            tally.note(handshake.into());
        }
        tally.response(Kind::Connect, slot.begun, now, true);
        slot.step = Step::Joining;
        self.announce(number, 0, Event::Started, (now, now), tally);
    }

    /// Adds an announce to what is to be sent.
    pub(super) fn announce(
        &mut self,
        number: u32,
        membership: u8,
        event: Event,
        (intended, now): (Nanos, Nanos),
        tally: &mut Tally,
    ) {
        let connection = self.connection(number);
        let slot = &mut self.slots[number as usize];
        let offers = if event == Event::Stopped { 0 } else { self.plan.config.requests.offers };
        let sequence = slot.sequence;
        slot.sequence = sequence.wrapping_add(offers.into());
        slot.replies.announced(Announced { membership, intended });
        slot.deadline = Some(now + self.plan.timeout());
        self.in_flight += 1;
        tally.sent(Kind::Announce, intended);
        (0..offers)
            .for_each(|offer| self.plan.registry.made(connection, sequence.wrapping_add(offer.into())));
        if event == Event::None {
            // Only so many can be relayed as there are others in the torrent.
            let members = self.plan.registry.members(self.plan.torrent(connection, membership));
            let others = members.saturating_sub(1).min(offers.into());
            (0..others).for_each(|_| tally.sent(Kind::Offer, intended));
            tally.add(Note::Beyond, u64::from(u32::from(offers) - others));
        }
        let generation = slot.generation();
        let announce = Announce { connection, generation, membership, event, offers, sequence, intended };
        self.outbox.text.clear();
        messages::announce(&self.plan, &announce, &mut self.outbox.text);
        self.queue_text(number);
    }

    /// Queues the text, which is sent with the other messages of a connection.
    pub(super) fn queue_text(&mut self, number: u32) {
        self.slots[number as usize].socket.queue_text(&mut self.outbox);
    }

    /// Sends what is queued.
    pub(super) fn send(&mut self, number: u32, (now, traffic): (Nanos, Traffic), tally: &mut Tally) {
        if let Err(error) = self.slots[number as usize].socket.flush(&mut self.outbox, &self.watched) {
            self.socket_failed(number, error, (now, traffic), tally);
        }
    }

    /// Sends a request of a client that has nothing else to do.
    pub(super) fn ask(&mut self, number: u32, (intended, now): (Nanos, Nanos), tally: &mut Tally) {
        self.outbox.clear();
        let requests = &self.plan.config.requests;
        let (announces, scrapes) = (u64::from(requests.weight_announce), u64::from(requests.weight_scrape));
        if scrapes > 0 && self.draw.below(announces + scrapes) >= announces {
            let subject = self.draw.bits();
            let slot = &mut self.slots[number as usize];
            slot.scrape = Some(Scraped { subject, intended });
            slot.deadline = Some(now + self.plan.timeout());
            self.in_flight += 1;
            tally.sent(Kind::Scrape, intended);
            self.plan.stage.population.scraped(subject, requests.scrape_torrents, &mut self.torrents);
            self.outbox.text.clear();
            messages::scrape(&self.torrents, &mut self.outbox.text);
            self.queue_text(number);
        } else {
            let slot = &mut self.slots[number as usize];
            let membership = slot.turn;
            slot.turn = (membership + 1) % self.plan.config.connections.torrents;
            self.announce(number, membership, Event::None, (intended, now), tally);
        }
        self.send(number, (now, Traffic::Mix), tally);
    }

    /// A reply to an announce has come, or a failure message instead: goes on with what follows.
    pub(super) fn replied(
        &mut self,
        number: u32,
        announced: Announced,
        now: Nanos,
        traffic: Traffic,
        tally: &mut Tally,
    ) {
        let connection = self.connection(number);
        let torrent = self.plan.torrent(connection, announced.membership);
        let torrents = self.plan.config.connections.torrents;
        let slot = &mut self.slots[number as usize];
        slot.deadline = None;
        match slot.step {
            Step::Joining => {
                slot.joined += 1;
                self.plan.registry.joined(torrent);
                if slot.joined < torrents {
                    let next = slot.joined;
                    self.announce(number, next, Event::Started, (now, now), tally);
                } else {
                    slot.step = Step::Joined;
                    slot.failures = 0;
                    self.joined(number, now, traffic);
                }
            }
            Step::Stopping => {
                slot.joined -= 1;
                self.plan.registry.left(torrent);
                match slot.joined.checked_sub(1) {
                    Some(next) => self.announce(number, next, Event::Stopped, (now, now), tally),
                    None => self.say_goodbye(number, now),
                }
            }
            Step::Joined => self.list_if(number, traffic),
            Step::Absent | Step::Upgrading | Step::Closing => {}
        }
    }

    pub(super) fn list_if(&mut self, number: u32, traffic: Traffic) {
        if traffic == Traffic::Mix {
            self.list(number);
        }
    }

    /// A client is in all its torrents.
    fn joined(&mut self, number: u32, now: Nanos, traffic: Traffic) {
        self.ramp.prove(number as usize);
        match traffic {
            Traffic::Churn => self.leaving.put_off(self.slots[number as usize].socket.token(), now),
            Traffic::Connect | Traffic::Idle => {
                self.live.step();
                self.rest(number);
            }
            Traffic::Mix => {
                self.rest(number);
                self.list(number);
            }
        }
    }

    /// Has a client leave.
    pub(super) fn leave(&mut self, number: u32, now: Nanos, tally: &mut Tally) {
        self.outbox.clear();
        let slot = &mut self.slots[number as usize];
        let manner = match (self.plan.config.churn.leave, slot.generation() % 3) {
            (Leave::Mixed, 0) => Leave::Stopped,
            (Leave::Mixed, 1) => Leave::Close,
            (Leave::Mixed, _) => Leave::Abrupt,
            (manner, _) => manner,
        };
        match (manner, slot.joined.checked_sub(1)) {
            (Leave::Stopped, Some(last)) => {
                slot.step = Step::Stopping;
                self.announce(number, last, Event::Stopped, (now, now), tally);
            }
            (Leave::Abrupt, _) => return self.finish(number, tally),
            _ => self.say_goodbye(number, now),
        }
        self.send(number, (now, Traffic::Churn), tally);
    }

    fn say_goodbye(&mut self, number: u32, now: Nanos) {
        let slot = &mut self.slots[number as usize];
        slot.step = Step::Closing;
        slot.deadline = Some(now + self.plan.timeout());
        slot.socket.queue_close(&mut self.outbox);
    }

    /// A client is gone as it meant to.
    pub(super) fn finish(&mut self, number: u32, tally: &mut Tally) {
        tally.note(Note::Left);
        self.live.step();
        self.empty(number, tally);
        self.rest(number);
        self.vacant.push_back(number);
    }

    /// A connection failed.
    pub(super) fn fail(
        &mut self,
        number: u32,
        error: &io::Error,
        now: Nanos,
        traffic: Traffic,
        tally: &mut Tally,
    ) {
        log::debug!("connection failed: {error}");
        tally.note(Trouble::of(error).into());
        self.lose(number, now, traffic, tally);
    }

    /// A client is gone before its time: another takes its place, unless that has been tried too often.
    pub(super) fn lose(&mut self, number: u32, now: Nanos, traffic: Traffic, tally: &mut Tally) {
        self.empty(number, tally);
        self.ramp.prove(number as usize);
        let slot = &mut self.slots[number as usize];
        slot.failures = slot.failures.saturating_add(1);
        if traffic == Traffic::Churn {
            // It counts as one that came.
            self.live.step();
            self.rest(number);
        } else if slot.failures >= MAX_FAILURES {
            tally.note(Note::GivenUp);
            return self.rest(number);
        }
        self.retry.put_off(number, now);
    }

    /// Closes a connection.
    fn empty(&mut self, number: u32, tally: &mut Tally) {
        self.lose_requests(number, tally);
        let connection = self.connection(number);
        let slot = &mut self.slots[number as usize];
        for membership in 0..slot.joined {
            self.plan.registry.left(self.plan.torrent(connection, membership));
        }
        slot.clear();
    }

    /// Nothing remains to be done at a place.
    fn rest(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if slot.busy {
            slot.busy = false;
            self.busy -= 1;
        }
    }
}
