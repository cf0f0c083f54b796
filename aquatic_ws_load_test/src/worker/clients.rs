//! Life cycle of a client: it connects, joins its torrents, sends requests, leaves.

use std::io;

use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::connection::{Connection, ConnectionFailure};

use super::{Traffic, Worker};
use crate::config::Leave;
use crate::counters::{Kind, Note, Tally};
use crate::messages::{self, Announce, Event};
use crate::slot::{ClientState, PendingAnnounce, PendingScrape};

/// Number of consecutive failures after which a slot stays empty.
const MAX_FAILURES: u8 = 10;

impl Worker {
    /// Starts a client.
    pub(super) fn connect(
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
        let wire = match Connection::open(&self.plan.connect_options(self.first + number)) {
            Ok(wire) => wire,
            Err(error) => {
                tally.lost(Kind::Connect, intended);
                return self.connection_failed(number, &error, now, traffic, tally);
            }
        };
        tally.note(Note::Opened);
        let begun = slot.begin(wire, &self.plan.upgrade, intended, &self.watched);
        slot.deadline = Some(now + self.plan.timeout());
        if let Err(error) = begun {
            self.socket_failed(number, error, (now, traffic), tally);
        }
    }

    /// Handles a completed upgrade.
    pub(super) fn upgraded(&mut self, number: u32, now: Nanos, tally: &mut Tally) {
        let slot = &mut self.slots[number as usize];
        if let Some(handshake) = slot.socket.handshake() {
            tally.tls_handshake(handshake);
        }
        tally.response(Kind::Connect, slot.started, now, true);
        slot.state = ClientState::Joining;
        self.announce(number, 0, Event::Started, (now, now), tally);
    }

    /// Queues an announce.
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
        slot.replies.announced(PendingAnnounce { membership, intended });
        slot.deadline = Some(now + self.plan.timeout());
        self.in_flight += 1;
        tally.sent(Kind::Announce, intended);
        (0..offers)
            .for_each(|offer| self.plan.registry.offer_sent(connection, sequence.wrapping_add(offer.into())));
        if event == Event::None {
            // An offer needs another peer in the torrent.
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

    /// Queues the encoded message of a connection.
    pub(super) fn queue_text(&mut self, number: u32) {
        self.slots[number as usize].socket.queue_text(&mut self.outbox);
    }

    /// Sends the queued messages of a connection.
    pub(super) fn send(&mut self, number: u32, (now, traffic): (Nanos, Traffic), tally: &mut Tally) {
        if let Err(error) = self.slots[number as usize].socket.flush(&mut self.outbox, &self.watched) {
            self.socket_failed(number, error, (now, traffic), tally);
        }
    }

    /// Sends an announce or a scrape of a client without a request in flight.
    pub(super) fn send_request(&mut self, number: u32, (intended, now): (Nanos, Nanos), tally: &mut Tally) {
        self.outbox.clear();
        let requests = &self.plan.config.requests;
        let (announces, scrapes) = (u64::from(requests.weight_announce), u64::from(requests.weight_scrape));
        if scrapes > 0 && self.rng.below(announces + scrapes) >= announces {
            let subject = self.rng.next_u64();
            let slot = &mut self.slots[number as usize];
            slot.scrape = Some(PendingScrape { subject, intended });
            slot.deadline = Some(now + self.plan.timeout());
            self.in_flight += 1;
            tally.sent(Kind::Scrape, intended);
            self.plan.topology.population.scrape_targets(
                subject,
                requests.scrape_torrents,
                &mut self.torrents,
            );
            self.outbox.text.clear();
            messages::scrape(&self.torrents, &mut self.outbox.text);
            self.queue_text(number);
        } else {
            let slot = &mut self.slots[number as usize];
            let membership = slot.next_membership;
            slot.next_membership = (membership + 1) % self.plan.config.connections.torrents;
            self.announce(number, membership, Event::None, (intended, now), tally);
        }
        self.send(number, (now, Traffic::Mix), tally);
    }

    /// Continues after the reply to an announce, or after a failure message.
    pub(super) fn replied(
        &mut self,
        number: u32,
        announced: PendingAnnounce,
        now: Nanos,
        traffic: Traffic,
        tally: &mut Tally,
    ) {
        let connection = self.connection(number);
        let torrent = self.plan.torrent(connection, announced.membership);
        let torrents = self.plan.config.connections.torrents;
        let slot = &mut self.slots[number as usize];
        slot.deadline = None;
        match slot.state {
            ClientState::Joining => {
                slot.joined += 1;
                self.plan.registry.joined(torrent);
                if slot.joined < torrents {
                    let next = slot.joined;
                    self.announce(number, next, Event::Started, (now, now), tally);
                } else {
                    slot.state = ClientState::Joined;
                    slot.failures = 0;
                    self.joined(number, now, traffic);
                }
            }
            ClientState::Stopping => {
                slot.joined -= 1;
                self.plan.registry.left(torrent);
                match slot.joined.checked_sub(1) {
                    Some(next) => self.announce(number, next, Event::Stopped, (now, now), tally),
                    None => self.send_close(number, now),
                }
            }
            ClientState::Joined => self.enqueue_if_loading(number, traffic),
            ClientState::Absent | ClientState::Upgrading | ClientState::Closing => {}
        }
    }

    pub(super) fn enqueue_if_loading(&mut self, number: u32, traffic: Traffic) {
        if traffic == Traffic::Mix {
            self.enqueue(number);
        }
    }

    /// Handles a client that has joined all its torrents.
    fn joined(&mut self, number: u32, now: Nanos, traffic: Traffic) {
        self.ramp.complete(number as usize);
        match traffic {
            Traffic::Churn => self.leaving.push(self.slots[number as usize].socket.token(), now),
            Traffic::Connect | Traffic::Idle => {
                self.live.step_done();
                self.set_done(number);
            }
            Traffic::Mix => {
                self.set_done(number);
                self.enqueue(number);
            }
        }
    }

    /// Lets a client leave.
    pub(super) fn disconnect(&mut self, number: u32, now: Nanos, tally: &mut Tally) {
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
                slot.state = ClientState::Stopping;
                self.announce(number, last, Event::Stopped, (now, now), tally);
            }
            (Leave::Abrupt, _) => return self.client_left(number, tally),
            _ => self.send_close(number, now),
        }
        self.send(number, (now, Traffic::Churn), tally);
    }

    fn send_close(&mut self, number: u32, now: Nanos) {
        let slot = &mut self.slots[number as usize];
        slot.state = ClientState::Closing;
        slot.deadline = Some(now + self.plan.timeout());
        slot.socket.queue_close(&mut self.outbox);
    }

    /// Handles a client that has left as planned.
    pub(super) fn client_left(&mut self, number: u32, tally: &mut Tally) {
        tally.note(Note::Left);
        self.live.step_done();
        self.close(number, tally);
        self.set_done(number);
        self.vacant.push_back(number);
    }

    /// Handles a failed connection.
    pub(super) fn connection_failed(
        &mut self,
        number: u32,
        error: &io::Error,
        now: Nanos,
        traffic: Traffic,
        tally: &mut Tally,
    ) {
        log::debug!("connection failed: {error}");
        tally.connection_failed(ConnectionFailure::of(error));
        self.connection_lost(number, now, traffic, tally);
    }

    /// Handles a client that lost its connection: another one follows, unless too many failed in a row.
    pub(super) fn connection_lost(&mut self, number: u32, now: Nanos, traffic: Traffic, tally: &mut Tally) {
        self.close(number, tally);
        self.ramp.complete(number as usize);
        let slot = &mut self.slots[number as usize];
        slot.failures = slot.failures.saturating_add(1);
        if traffic == Traffic::Churn {
            // It counts as a client of the churn.
            self.live.step_done();
            self.set_done(number);
        } else if slot.failures >= MAX_FAILURES {
            tally.note(Note::GivenUp);
            return self.set_done(number);
        }
        self.retry.push(number, now);
    }

    /// Closes a connection.
    fn close(&mut self, number: u32, tally: &mut Tally) {
        self.requests_lost(number, tally);
        let connection = self.connection(number);
        let slot = &mut self.slots[number as usize];
        for membership in 0..slot.joined {
            self.plan.registry.left(self.plan.torrent(connection, membership));
        }
        slot.clear();
    }

    /// Marks a slot as done with its work in the phase.
    fn set_done(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if slot.busy {
            slot.busy = false;
            self.busy -= 1;
        }
    }
}
