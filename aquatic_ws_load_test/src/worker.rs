//! Thread of the load test: starts clients, sends requests, handles events.

mod checks;
mod clients;
mod reading;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use aquatic_common::InfoHash;
use aquatic_load_engine::clock::{Interval, MILLISECOND, Nanos, milliseconds};
use aquatic_load_engine::connection::ConnectionFailure;
use aquatic_load_engine::event_loop::{EventLoop, IdleHold};
use aquatic_load_engine::events::{Events, Token};
use aquatic_load_engine::phase::{self, LoadModel};
use aquatic_load_engine::queue::{DelayQueue, IndexedQueue};
use aquatic_load_engine::ramp::Ramp;
use aquatic_load_engine::rng::Rng;
use aquatic_load_engine::run_phase::LiveCounters;

use crate::counters::{Kind, Note, Tally};
use crate::decode::Decoder;
use crate::plan::Plan;
use crate::slot::{ClientState, Slot};
use crate::socket::{Inbox, Outbox};

/// Maximum number of slots that start or send between two polls for events.
const MAX_PER_ITERATION: usize = 256;
/// Interval of the check for timeouts.
const EXPIRY_INTERVAL: Nanos = 100 * MILLISECOND;
/// Time without messages after which the wait for relays ends.
const QUIET: Nanos = 500 * MILLISECOND;
/// Delay before a failed connection is replaced.
const RETRY_PAUSE: Nanos = 100 * MILLISECOND;

/// Separates the random stream of frame masks from other streams.
const MASKS: u64 = 1 << 32;

/// Traffic of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Clients connect.
    Connect,
    /// Clients connect and stay idle.
    Idle,
    /// Connected clients announce and scrape.
    Mix,
    /// Clients connect and leave.
    Churn,
}

pub(crate) type Phase = phase::Phase<Traffic>;

/// Buffers of received messages.
struct Receiver {
    inbox: Inbox,
    decoder: Decoder,
}

pub(crate) struct Worker {
    plan: Arc<Plan>,
    live: Arc<LiveCounters>,
    thread: u32,
    /// Number of the first slot among those of all threads.
    first: u32,
    watched: Events,
    slots: Vec<Slot>,
    /// Schedule of the first connections.
    ramp: Ramp,
    /// Slots for further clients.
    vacant: VecDeque<u32>,
    /// Slots whose connection failed, to be reopened.
    retry: DelayQueue<u32>,
    /// Slots that can send a request.
    ready: IndexedQueue,
    /// Clients that are to leave.
    leaving: DelayQueue<Token>,
    /// Number of clients that are still to be started in the churn.
    to_come: u64,
    /// Number of slots with work to do before the phase ends.
    busy: usize,
    /// Number of announces and scrapes without a reply.
    in_flight: usize,
    /// Whether further requests are sent.
    sending: bool,
    /// Time of the last received message.
    last_received: Nanos,
    rng: Rng,
    receiver: Option<Box<Receiver>>,
    outbox: Outbox,
    /// Torrents of the scrape being written or checked; reused to avoid allocations.
    torrents: Vec<InfoHash>,
    expiry: Interval,
}

impl Worker {
    /// Creates a worker for these connections.
    pub(crate) fn new(
        plan: Arc<Plan>,
        live: Arc<LiveCounters>,
        thread: u32,
        connections: Range<u32>,
    ) -> io::Result<Self> {
        let settings = &plan.config.connections;
        let per_second = f64::from(settings.ramp) / f64::from(plan.config.threads);
        let churn = plan.config.churn.connections;
        let threads = u64::from(plan.config.threads);
        Ok(Self {
            thread,
            first: connections.start,
            watched: Events::new()?,
            ramp: Ramp::new(connections.len(), per_second, settings.opening),
            ready: IndexedQueue::new(connections.len()),
            slots: (0..connections.end - connections.start)
                .map(|slot| Slot::new(settings.websocket, slot))
                .collect(),
            vacant: VecDeque::new(),
            retry: DelayQueue::new(RETRY_PAUSE),
            leaving: DelayQueue::new(milliseconds(plan.config.churn.stay)),
            to_come: churn / threads + u64::from(u64::from(thread) < churn % threads),
            busy: 0,
            in_flight: 0,
            sending: false,
            last_received: 0,
            rng: Rng::new(plan.seed(), thread.into()),
            receiver: Some(Box::new(Receiver { inbox: Inbox::new(), decoder: Decoder::new() })),
            outbox: Outbox::new(Rng::new(plan.seed(), !u64::from(thread) ^ MASKS)),
            torrents: Vec::new(),
            expiry: Interval::new(EXPIRY_INTERVAL),
            plan,
            live,
        })
    }

    pub(crate) fn thread(&self) -> u32 {
        self.thread
    }

    /// Number of a slot among those of all threads.
    fn connection(&self, number: u32) -> u32 {
        self.first + number
    }

    /// Runs a phase to its end and returns its counters.
    pub(crate) fn run(&mut self, mut phase: Phase) -> Tally {
        let mut tally = Tally::new(phase.from, phase.until);
        if phase.traffic == Traffic::Mix {
            (0..self.slots.len()).for_each(|number| self.enqueue(number as u32));
        }
        let mut event_loop = EventLoop::start(self.plan.topology.clock);
        let mut ended_at = phase.until;
        (self.last_received, self.sending) = (event_loop.now(), true);
        loop {
            let now = event_loop.now();
            phase.observe(&self.live, now);
            if self.sending && (now >= phase.until || self.is_done(phase.traffic)) {
                self.sending = false;
                ended_at = now;
                tally.end_at(now);
            }
            if !self.sending && self.in_flight == 0 {
                let is_quiet = now.saturating_sub(self.last_received) > QUIET;
                // A tracker may go on sending for ever.
                if is_quiet || now.saturating_sub(ended_at) > self.plan.timeout().max(QUIET) {
                    break;
                }
            }
            self.expire(now, phase.traffic, &mut tally);
            let done = if self.sending { self.perform_due(now, &mut phase, &mut tally) } else { 0 };
            let due = if self.sending { phase.model.next_due() } else { None };
            event_loop.wait((done, due), &mut self.watched, &mut tally);
            self.handle_events(phase.traffic, &mut tally);
        }
        if phase.traffic == Traffic::Idle {
            // Pings of the tracker are answered meanwhile.
            let hold = IdleHold::start(
                self.plan.topology.clock,
                (self.open(), self.plan.config.idle.hold),
                Arc::clone(&self.live),
            );
            while hold.wait(&mut self.watched) {
                self.handle_events(Traffic::Idle, &mut tally);
            }
        }
        if phase.traffic == Traffic::Mix {
            tally.add(Note::NotDue, phase.never_sent());
        }
        tally.add(Note::Held, self.open());
        self.live.add_responses(&mut tally);
        tally
    }

    fn is_done(&self, traffic: Traffic) -> bool {
        match traffic {
            Traffic::Mix => false,
            Traffic::Connect | Traffic::Idle => {
                self.ramp.all_started() && self.vacant.is_empty() && self.busy == 0
            }
            Traffic::Churn => self.to_come == 0 && self.busy == 0,
        }
    }

    /// Number of clients that have joined.
    fn open(&self) -> u64 {
        self.slots.iter().filter(|slot| slot.state == ClientState::Joined).count() as u64
    }

    fn enqueue(&mut self, number: u32) {
        if self.slots[number as usize].is_free() {
            self.ready.push_back(number);
        }
    }

    /// Starts, serves and stops clients as far as that is due, and returns the number of actions.
    fn perform_due(&mut self, now: Nanos, phase: &mut Phase, tally: &mut Tally) -> usize {
        let mut acted = self.disconnect_due(now, tally);
        while let Some(number) = self.retry.pop_due(now) {
            self.vacant.push_back(number);
        }
        while phase.traffic != Traffic::Mix
            && (phase.traffic != Traffic::Churn || self.to_come > 0)
            && let Some(number) = self.ramp.next(now)
        {
            self.vacant.push_back(number as u32);
        }
        acted += self.connect_due(now, phase, tally);
        if phase.traffic == Traffic::Mix {
            acted += self.request_due(now, &mut phase.model, tally);
        }
        acted
    }

    /// Starts clients.
    fn connect_due(&mut self, now: Nanos, phase: &mut Phase, tally: &mut Tally) -> usize {
        let mut begun = 0;
        while begun < MAX_PER_ITERATION && !self.vacant.is_empty() {
            let mut intended = now;
            if phase.traffic == Traffic::Churn {
                if self.to_come == 0 {
                    // All clients of the churn have been started.
                    self.vacant.clear();
                    break;
                }
                if let LoadModel::Open(schedule) = &mut phase.model {
                    match schedule.next_due(now) {
                        Some(due) => intended = due,
                        None => break,
                    }
                }
                self.to_come -= 1;
            }
            let Some(number) = self.vacant.pop_front() else { break };
            self.connect(number, (intended, now), phase.traffic, tally);
            begun += 1;
        }
        begun
    }

    /// Sends requests.
    fn request_due(&mut self, now: Nanos, model: &mut LoadModel, tally: &mut Tally) -> usize {
        let mut asked = 0;
        while asked < MAX_PER_ITERATION {
            while let Some(number) = self.ready.front()
                && !self.slots[number as usize].is_free()
            {
                self.ready.pop_front();
            }
            let Some(number) = self.ready.front() else { break };
            let intended = match model {
                LoadModel::Closed if self.in_flight < self.plan.config.closed.window => now,
                LoadModel::Closed => break,
                LoadModel::Open(schedule) => match schedule.next_due(now) {
                    Some(intended) => intended,
                    None => break,
                },
            };
            self.ready.pop_front();
            self.send_request(number, (intended, now), tally);
            asked += 1;
        }
        asked
    }

    fn disconnect_due(&mut self, now: Nanos, tally: &mut Tally) -> usize {
        let mut left = 0;
        while let Some(token) = self.leaving.pop_due(now) {
            let slot = &self.slots[token.slot as usize];
            if slot.socket.token() == token && slot.state == ClientState::Joined {
                self.disconnect(token.slot, now, tally);
                left += 1;
            }
        }
        left
    }

    fn handle_events(&mut self, traffic: Traffic, tally: &mut Tally) {
        // Decoded messages borrow from the receiver while the worker acts on them.
        let Some(mut receiver) = self.receiver.take() else { return };
        while let Some(event) = self.watched.take() {
            if self.slots[event.token.slot as usize].socket.has_token(event.token) {
                self.handle_event(event, &mut receiver, traffic, tally);
            }
        }
        self.receiver = Some(receiver);
    }

    /// Closes connections whose deadline has passed and updates progress.
    fn expire(&mut self, now: Nanos, traffic: Traffic, tally: &mut Tally) {
        if !self.expiry.is_due(now) {
            return;
        }
        for number in 0..self.slots.len() {
            if self.slots[number].deadline.is_some_and(|deadline| deadline < now) {
                tally.connection_failed(ConnectionFailure::TimedOut);
                self.connection_lost(number as u32, now, traffic, tally);
            }
        }
        self.live.add_responses(tally);
    }

    /// Counts the requests in flight on a connection as lost.
    fn requests_lost(&mut self, number: u32, tally: &mut Tally) {
        let slot = &mut self.slots[number as usize];
        if slot.state == ClientState::Upgrading {
            tally.lost(Kind::Connect, slot.started);
        }
        if let Some(announced) = slot.replies.announce() {
            tally.lost(Kind::Announce, announced.intended);
            self.in_flight -= 1;
        }
        if let Some(scraped) = slot.scrape {
            tally.lost(Kind::Scrape, scraped.intended);
            self.in_flight -= 1;
        }
    }
}
