//! Thread of the load test: its connections and requests.

mod reading;

use std::io;
use std::sync::Arc;

use aquatic_common::InfoHash;
use aquatic_load_engine::clock::{Interval, MILLISECOND, Nanos};
use aquatic_load_engine::connection::{Connection, ConnectionFailure};
use aquatic_load_engine::connection_slot::Disposition;
use aquatic_load_engine::event_loop::{EventLoop, IdleHold};
use aquatic_load_engine::events::{Event, Events};
use aquatic_load_engine::phase::{self, LoadModel};
use aquatic_load_engine::prefill::Progress;
use aquatic_load_engine::queue::{DelayQueue, IndexedQueue};
use aquatic_load_engine::ramp::Ramp;
use aquatic_load_engine::rng::Rng;
use aquatic_load_engine::run_phase::LiveCounters;
use aquatic_load_engine::topology::share;

use crate::counters::{Kind, Note, Tally};
use crate::plan::Plan;
use crate::reply_check::ReplyChecker;
use crate::slot::Slot;
use crate::traffic::{self, MAX_BATCH, Pending, Source, Traffic};

/// Maximum number of slots that send requests between two polls for events.
const MAX_PER_ITERATION: usize = 256;
/// Receive buffer in bytes; also the maximum length of a response.
const RECEIVE_LENGTH: usize = 256 * 1024;
/// Interval of the check for timed-out requests.
const EXPIRY_INTERVAL: Nanos = 50 * MILLISECOND;
/// Delay before a failed connection is replaced.
const RETRY_PAUSE: Nanos = 10 * MILLISECOND;

pub(crate) type Phase = phase::Phase<Traffic>;

pub(crate) struct Worker {
    plan: Arc<Plan>,
    live: Arc<LiveCounters>,
    thread: u32,
    watched: Events,
    slots: Vec<Slot>,
    sources: Vec<Source>,
    next_source: usize,
    /// Slots that can send a request.
    ready: IndexedQueue,
    /// Slots whose connection failed, to be reopened.
    retry: DelayQueue<u32>,
    /// Schedule of the first connections.
    ramp: Ramp,
    in_flight: usize,
    /// Whether further requests are sent.
    sending: bool,
    checker: ReplyChecker,
    rng: Rng,
    torrents: Vec<InfoHash>,
    requests: Vec<u8>,
    received: Vec<u8>,
    expiry: Interval,
}

impl Worker {
    pub(crate) fn new(plan: Arc<Plan>, live: Arc<LiveCounters>, thread: u32) -> io::Result<Self> {
        let slots = share(plan.config.connection_count(), plan.config.threads, thread);
        let connections = &plan.config.connections;
        let per_second = f64::from(connections.ramp) / f64::from(plan.config.threads);
        Ok(Self {
            thread,
            watched: Events::new()?,
            slots: (0..slots).map(Slot::new).collect(),
            sources: Source::of_thread(&plan, thread),
            next_source: 0,
            ready: IndexedQueue::new(slots as usize),
            retry: DelayQueue::new(RETRY_PAUSE),
            ramp: Ramp::new(slots as usize, per_second, connections.opening),
            in_flight: 0,
            sending: false,
            checker: ReplyChecker::new(&plan),
            rng: Rng::new(plan.config.population.seed, thread.into()),
            torrents: Vec::new(),
            requests: vec![0; MAX_BATCH],
            received: vec![0; RECEIVE_LENGTH],
            expiry: Interval::new(EXPIRY_INTERVAL),
            plan,
            live,
        })
    }

    pub(crate) fn thread(&self) -> u32 {
        self.thread
    }

    /// Runs a phase to its end and returns its counters.
    pub(crate) fn run(&mut self, mut phase: Phase) -> Tally {
        let mut tally = Tally::new(phase.from, phase.until);
        (0..self.ramp.started()).for_each(|number| self.ready.push_back(number as u32));
        let mut event_loop = EventLoop::start(self.plan.topology.clock);
        let mut progress = Progress::new(event_loop.now(), self.plan.timeout());
        loop {
            let now = event_loop.now();
            let has_stalled =
                phase.traffic == Traffic::Prefill && progress.has_stalled(now, tally.served(Kind::Announce));
            phase.observe(&self.live, now);
            self.sending = now < phase.until && !has_stalled && !self.is_done(phase.traffic);
            if !self.sending && self.in_flight == 0 {
                break;
            }
            self.expire(now, phase.traffic, &mut tally);
            let sent = if self.sending { self.send_due(now, &mut phase, &mut tally) } else { 0 };
            let due = if self.sending { phase.model.next_due() } else { None };
            event_loop.wait((sent, due), &mut self.watched, &mut tally);
            self.handle_events(&phase, &mut tally);
        }
        tally.end_at(event_loop.now());
        if phase.traffic == Traffic::Idle {
            let hold = IdleHold::start(
                self.plan.topology.clock,
                (self.open(), self.plan.config.idle.hold),
                Arc::clone(&self.live),
            );
            while hold.wait(&mut self.watched) {
                self.handle_events(&phase, &mut tally);
            }
        }
        if phase.traffic == Traffic::Prefill {
            let left = self.sources.iter().map(|source| source.unannounced.len());
            tally.add(Note::PeersLost, left.sum());
        }
        tally.add(Note::NotDue, phase.never_sent());
        tally.add(Note::Held, self.open());
        self.live.add_responses(&mut tally);
        tally
    }

    fn is_done(&self, traffic: Traffic) -> bool {
        match traffic {
            Traffic::Mix => false,
            Traffic::Prefill => {
                self.in_flight == 0 && !self.sources.iter().any(|source| source.has_work(traffic))
            }
            Traffic::Idle => self.in_flight == 0 && self.ramp.all_started() && self.ready.is_empty(),
        }
    }

    /// Number of open connections.
    fn open(&self) -> u64 {
        self.slots.iter().filter(|slot| slot.connection.is_open()).count() as u64
    }

    /// Sends the requests that are due and returns their number.
    fn send_due(&mut self, now: Nanos, phase: &mut Phase, tally: &mut Tally) -> usize {
        while let Some(number) = self.ramp.next(now) {
            self.ready.push_back(number as u32);
        }
        while let Some(number) = self.retry.pop_due(now) {
            self.ready.push_back(number);
        }
        let mut sent = 0;
        for _ in 0..self.ready.len().min(MAX_PER_ITERATION) {
            // One that has become full is ready again with its next response. It must not take a due request.
            while self.ready.front().is_some_and(|number| self.room(number) == 0) {
                self.ready.pop_front();
            }
            if self.ready.is_empty() {
                break;
            }
            let intended = match &mut phase.model {
                LoadModel::Closed => None,
                LoadModel::Open(schedule) => match schedule.next_due(now) {
                    Some(intended) => Some(intended),
                    None => break,
                },
            };
            let Some(number) = self.ready.pop_front() else { break };
            sent += self.send_requests(number, (intended, now), phase.traffic, tally);
            if intended.is_some() && self.room(number) > 0 {
                self.ready.push_back(number);
            }
        }
        sent
    }

    fn room(&self, number: u32) -> usize {
        self.slots[number as usize].room(self.plan.config.connections.pipelining)
    }

    /// Sends as many requests on a connection as allowed, or one with an intended send time. Returns their
    /// number.
    fn send_requests(
        &mut self,
        number: u32,
        (intended, now): (Option<Nanos>, Nanos),
        traffic: Traffic,
        tally: &mut Tally,
    ) -> usize {
        if let Err(error) = self.ensure_open(number, traffic, tally) {
            if let Some(intended) = intended {
                // Its kind was not chosen yet; most requests are announces.
                tally.sent(Kind::Announce, intended);
                tally.lost(Kind::Announce, intended);
            }
            self.note_failure(&error, tally);
            self.slots[number as usize].close();
            self.retry_later(number, now, traffic);
            return 0;
        }
        let most = if intended.is_some() || traffic == Traffic::Idle { 1 } else { usize::MAX };
        let most = self.room(number).min(most);
        let limit = self.plan.config.connections.requests;
        let slot = &mut self.slots[number as usize];
        if !slot.connection.is_open() {
            return 0;
        }
        let (mut used, mut count) = (0, 0);
        while count < most && !slot.last {
            let Some(planned) = self.sources[slot.source].next(traffic, &self.plan, &mut self.rng) else {
                break;
            };
            slot.last = slot.sent + 1 == limit;
            let space = self.requests.get_mut(used..).unwrap_or_default();
            let written = traffic::write(&self.plan, traffic, planned, !slot.last, &mut self.torrents, space);
            debug_assert!(written.is_ok(), "there is room for as many of the longest requests as can be");
            used += written.unwrap_or(0);
            let pending = planned.pending(intended.unwrap_or(now), now);
            tally.sent(pending.kind, pending.intended);
            slot.pending.push_back(pending);
            slot.sent += 1;
            count += 1;
        }
        if count == 0 {
            return 0;
        }
        self.in_flight += count;
        let requests = self.requests.get(..used).unwrap_or_default();
        if let Err(error) = slot.connection.send(requests, &self.watched) {
            self.connection_failed(number, &error, now, traffic, tally);
        }
        count
    }

    /// Opens the connection of a slot if there is something to send, unless it has a usable one.
    fn ensure_open(&mut self, number: u32, traffic: Traffic, tally: &mut Tally) -> io::Result<()> {
        let slot = &mut self.slots[number as usize];
        if slot.connection.is_open()
            && (!slot.pending.is_empty() || self.sources[slot.source].has_work(traffic))
        {
            return Ok(());
        }
        let sources = self.sources.len();
        let mut round = (0..sources).map(|step| (self.next_source + step) % sources);
        let Some(source) = round.find(|&source| self.sources[source].has_work(traffic)) else {
            return Ok(());
        };
        self.next_source = (source + 1) % sources;
        let wire = Connection::open(&self.plan.connect_options(self.sources[source].address))?;
        slot.close();
        slot.source = source;
        tally.note(Note::Opened);
        slot.connection.connect(wire, &self.watched)
    }

    fn handle_events(&mut self, phase: &Phase, tally: &mut Tally) {
        let mut buffer = std::mem::take(&mut self.received);
        while let Some(event) = self.watched.take() {
            if self.slots[event.token.slot as usize].connection.has_token(event.token) {
                self.handle_event(event, &mut buffer, phase, tally);
            }
        }
        self.received = buffer;
    }

    fn handle_event(&mut self, event: Event, buffer: &mut [u8], phase: &Phase, tally: &mut Tally) {
        let now = self.plan.topology.now();
        let number = event.token.slot;
        let mut disposition = match self.slots[number as usize].connection.flush(event) {
            Ok(()) => self.read(event, buffer, (now, phase.traffic), tally),
            Err(error) => Disposition::Failed(error),
        };
        let slot = &mut self.slots[number as usize];
        if let Disposition::Keep = disposition
            && let Err(error) = slot.connection.send(&[], &self.watched)
        {
            disposition = Disposition::Failed(error);
        }
        match disposition {
            Disposition::Keep => {}
            Disposition::Close => {
                if !slot.pending.is_empty() {
                    tally.note(Note::ClosedEarly);
                } else if !slot.last {
                    tally.note(Note::Closed);
                }
                let has_answered = slot.has_response;
                self.drop_connection(number, phase.traffic, tally);
                // After a connection without any response, the next one is delayed.
                if !has_answered {
                    return self.retry_later(number, now, phase.traffic);
                }
            }
            Disposition::Abandon => {
                self.drop_connection(number, phase.traffic, tally);
                return self.retry_later(number, now, phase.traffic);
            }
            Disposition::Failed(error) => {
                return self.connection_failed(number, &error, now, phase.traffic, tally);
            }
        }
        if self.sending && phase.traffic != Traffic::Idle {
            match phase.model {
                LoadModel::Closed => {
                    self.send_requests(number, (None, now), phase.traffic, tally);
                }
                LoadModel::Open(_) if self.room(number) > 0 => self.ready.push_back(number),
                LoadModel::Open(_) => {}
            }
        }
    }

    /// Handles a failed connection.
    fn connection_failed(
        &mut self,
        number: u32,
        error: &io::Error,
        now: Nanos,
        traffic: Traffic,
        tally: &mut Tally,
    ) {
        self.note_failure(error, tally);
        self.drop_connection(number, traffic, tally);
        self.retry_later(number, now, traffic);
    }

    fn note_failure(&self, error: &io::Error, tally: &mut Tally) {
        log::debug!("connection failed: {error}");
        tally.connection_failed(ConnectionFailure::of(error));
    }

    /// Handles an announce of a prefill that was not served: it is retried until its attempts run out.
    fn failed_announce(&mut self, number: u32, pending: &Pending, tally: &mut Tally) {
        let attempts = self.plan.config.prefill.attempts;
        let source = &mut self.sources[self.slots[number as usize].source];
        if source.unannounced.announce_failed(pending.subject, pending.attempt, attempts) {
            tally.note(Note::PeersLost);
            self.live.step_done();
        }
    }

    fn retry_later(&mut self, number: u32, now: Nanos, traffic: Traffic) {
        self.ramp.complete(number as usize);
        if traffic != Traffic::Idle {
            self.retry.push(number, now);
        }
    }

    /// Closes a connection. Its requests in flight are lost.
    fn drop_connection(&mut self, number: u32, traffic: Traffic, tally: &mut Tally) {
        self.slots[number as usize].close();
        while let Some(pending) = self.slots[number as usize].pending.pop_front() {
            self.in_flight -= 1;
            tally.lost(pending.kind, pending.intended);
            if traffic == Traffic::Prefill {
                self.failed_announce(number, &pending, tally);
            }
        }
    }

    /// Closes connections with timed-out requests and updates progress.
    fn expire(&mut self, now: Nanos, traffic: Traffic, tally: &mut Tally) {
        if !self.expiry.is_due(now) {
            return;
        }
        let oldest = now.saturating_sub(self.plan.timeout());
        for number in 0..self.ramp.started() {
            if self.slots[number].pending.front().is_some_and(|pending| pending.sent < oldest) {
                tally.connection_failed(ConnectionFailure::TimedOut);
                self.drop_connection(number as u32, traffic, tally);
                self.retry_later(number as u32, now, traffic);
            }
        }
        self.live.add_responses(tally);
    }
}
