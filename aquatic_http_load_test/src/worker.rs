//! One thread of the load test: when it sends, and what becomes of its connections.

mod reading;

use std::io;
use std::sync::Arc;

use aquatic_common::InfoHash;
use aquatic_load_engine::clock::{Every, MILLISECOND, Nanos};
use aquatic_load_engine::conduct::Live;
use aquatic_load_engine::draw::Draw;
use aquatic_load_engine::events::{Event, Events};
use aquatic_load_engine::link::Next;
use aquatic_load_engine::phase::{self, Pace};
use aquatic_load_engine::queues::{Later, Line};
use aquatic_load_engine::ramp::Ramp;
use aquatic_load_engine::stage::share;
use aquatic_load_engine::turns::{Hold, Turns};
use aquatic_load_engine::wire::{Trouble, Wire};

use crate::check::Checker;
use crate::counted::{Kind, Note, Tally};
use crate::plan::Plan;
use crate::slot::Slot;
use crate::traffic::{self, MAX_BATCH, Pending, Source, Traffic};

/// Places given requests before events are looked at again.
const MAX_PER_TURN: usize = 256;
/// Longest response, and most responses read together.
const RECEIVE_LENGTH: usize = 256 * 1024;
/// Time between looks for lost requests.
const EXPIRY_INTERVAL: Nanos = 50 * MILLISECOND;
/// Time from a failure of a connection to the next try.
const RETRY_PAUSE: Nanos = 10 * MILLISECOND;

pub(crate) type Phase = phase::Phase<Traffic>;

pub(crate) struct Worker {
    plan: Arc<Plan>,
    live: Arc<Live>,
    thread: u32,
    watched: Events,
    slots: Vec<Slot>,
    sources: Vec<Source>,
    next_source: usize,
    /// Places that can take a request.
    ready: Line,
    /// Places whose connection failed, to be tried again.
    retry: Later<u32>,
    /// Takes the places into use.
    ramp: Ramp,
    in_flight: usize,
    /// Whether further requests are to be sent.
    sending: bool,
    checker: Checker,
    draw: Draw,
    torrents: Vec<InfoHash>,
    requests: Vec<u8>,
    received: Vec<u8>,
    expiry: Every,
}

impl Worker {
    pub(crate) fn new(plan: Arc<Plan>, live: Arc<Live>, thread: u32) -> io::Result<Self> {
        let slots = share(plan.config.connection_count(), plan.config.threads, thread);
        let connections = &plan.config.connections;
        let per_second = f64::from(connections.ramp) / f64::from(plan.config.threads);
        Ok(Self {
            thread,
            watched: Events::new()?,
            slots: (0..slots).map(Slot::at).collect(),
            sources: Source::of_thread(&plan, thread),
            next_source: 0,
            ready: Line::new(slots as usize),
            retry: Later::after(RETRY_PAUSE),
            ramp: Ramp::new(slots as usize, per_second, connections.opening),
            in_flight: 0,
            sending: false,
            checker: Checker::new(&plan),
            draw: Draw::new(plan.config.population.seed, thread.into()),
            torrents: Vec::new(),
            requests: vec![0; MAX_BATCH],
            received: vec![0; RECEIVE_LENGTH],
            expiry: Every::new(EXPIRY_INTERVAL),
            plan,
            live,
        })
    }

    pub(crate) fn thread(&self) -> u32 {
        self.thread
    }

    /// Runs a phase to its end and returns what was counted.
    pub(crate) fn run(&mut self, mut phase: Phase) -> Tally {
        let mut tally = Tally::new(phase.from, phase.until);
        (0..self.ramp.begun()).for_each(|number| self.ready.join(number as u32));
        let mut turns = Turns::begin(self.plan.stage.clock);
        loop {
            let now = turns.now();
            self.sending = now < phase.until && !self.is_done(phase.traffic);
            if !self.sending && self.in_flight == 0 {
                break;
            }
            self.expire(now, phase.traffic, &mut tally);
            let sent = if self.sending { self.send_due(now, &mut phase, &mut tally) } else { 0 };
            let eager = self.sending && phase.pace.is_open();
            turns.end((sent, eager), &mut self.watched, &mut tally);
            self.handle_events(&phase, &mut tally);
        }
        tally.end_at(turns.now());
        if phase.traffic == Traffic::Idle {
            let hold = Hold::begin(self.plan.stage.clock, self.open(), self.plan.config.idle.hold);
            while hold.goes_on(&mut self.watched) {
                self.handle_events(&phase, &mut tally);
            }
        }
        tally.add(Note::NotDue, phase.never_sent());
        tally.add(Note::Held, self.open());
        self.live.show(&mut tally);
        tally
    }

    fn is_done(&self, traffic: Traffic) -> bool {
        match traffic {
            Traffic::Mix => false,
            Traffic::Prefill => {
                self.in_flight == 0 && !self.sources.iter().any(|source| source.has_work(traffic))
            }
            Traffic::Idle => self.in_flight == 0 && self.ramp.is_over() && self.ready.is_empty(),
        }
    }

    /// How many connections are open.
    fn open(&self) -> u64 {
        self.slots.iter().filter(|slot| slot.link.is_open()).count() as u64
    }

    /// Sends what is due, and returns how many requests that was.
    fn send_due(&mut self, now: Nanos, phase: &mut Phase, tally: &mut Tally) -> usize {
        while let Some(number) = self.ramp.next(now) {
            self.ready.join(number as u32);
        }
        while let Some(number) = self.retry.due(now) {
            self.ready.join(number);
        }
        let mut sent = 0;
        for _ in 0..self.ready.len().min(MAX_PER_TURN) {
            let intended = match &mut phase.pace {
                Pace::Closed => None,
                Pace::Open(schedule) => match schedule.next_due(now) {
                    Some(intended) => Some(intended),
                    None => break,
                },
            };
            let Some(number) = self.ready.leave() else { break };
            sent += self.fill(number, (intended, now), phase.traffic, tally);
            if intended.is_some() && self.room(number) > 0 {
                self.ready.join(number);
            }
        }
        sent
    }

    fn room(&self, number: u32) -> usize {
        self.slots[number as usize].room(self.plan.config.connections.pipelining)
    }

    /// Sends as many requests from a place as it can take, or one that was meant to be sent at a given moment. Returns
    /// how many it was.
    fn fill(
        &mut self,
        number: u32,
        (intended, now): (Option<Nanos>, Nanos),
        traffic: Traffic,
        tally: &mut Tally,
    ) -> usize {
        if let Err(error) = self.ensure_open(number, traffic, tally) {
            if let Some(intended) = intended {
                // It counts although its kind was never decided on: most are announces.
                tally.sent(Kind::Announce, intended);
                tally.lost(Kind::Announce, intended);
            }
            self.note_failure(&error, tally);
            self.slots[number as usize].close();
            self.try_later(number, now, traffic);
            return 0;
        }
        let most = if intended.is_some() || traffic == Traffic::Idle { 1 } else { usize::MAX };
        let most = self.room(number).min(most);
        let limit = self.plan.config.connections.requests;
        let slot = &mut self.slots[number as usize];
        if !slot.link.is_open() {
            return 0;
        }
        let (mut used, mut count) = (0, 0);
        while count < most && !slot.last {
            let Some(wish) = self.sources[slot.source].next(traffic, &self.plan, &mut self.draw) else {
                break;
            };
            slot.last = slot.sent + 1 == limit;
            let space = self.requests.get_mut(used..).unwrap_or_default();
            let written = traffic::write(&self.plan, traffic, wish, !slot.last, &mut self.torrents, space);
            debug_assert!(written.is_ok(), "there is room for as many of the longest requests as can be");
            used += written.unwrap_or(0);
            let pending = wish.pending(intended.unwrap_or(now), now);
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
        if let Err(error) = slot.link.send(requests, &self.watched) {
            self.fail(number, &error, now, traffic, tally);
        }
        count
    }

    /// Makes a connection from a place, if it has none or none of use. Without anything to send, it stays without.
    fn ensure_open(&mut self, number: u32, traffic: Traffic, tally: &mut Tally) -> io::Result<()> {
        let slot = &mut self.slots[number as usize];
        if slot.link.is_open() && (!slot.pending.is_empty() || self.sources[slot.source].has_work(traffic)) {
            return Ok(());
        }
        let sources = self.sources.len();
        let mut round = (0..sources).map(|step| (self.next_source + step) % sources);
        let Some(source) = round.find(|&source| self.sources[source].has_work(traffic)) else {
            return Ok(());
        };
        self.next_source = (source + 1) % sources;
        let wire = Wire::open(&self.plan.route(self.sources[source].address))?;
        slot.close();
        slot.source = source;
        tally.note(Note::Opened);
        slot.link.connect(wire, &self.watched)
    }

    fn handle_events(&mut self, phase: &Phase, tally: &mut Tally) {
        let mut buffer = std::mem::take(&mut self.received);
        while let Some(event) = self.watched.take() {
            if self.slots[event.token.place as usize].link.is_called(event.token) {
                self.handle_event(event, &mut buffer, phase, tally);
            }
        }
        self.received = buffer;
    }

    fn handle_event(&mut self, event: Event, buffer: &mut [u8], phase: &Phase, tally: &mut Tally) {
        let now = self.plan.stage.now();
        let number = event.token.place;
        let mut next = match self.slots[number as usize].link.flush(event) {
            Ok(()) => self.read(event, buffer, (now, phase.traffic), tally),
            Err(error) => Next::Failed(error),
        };
        let slot = &mut self.slots[number as usize];
        if let Next::Keep = next
            && let Err(error) = slot.link.send(&[], &self.watched)
        {
            next = Next::Failed(error);
        }
        match next {
            Next::Keep => {}
            Next::Close => {
                if !slot.pending.is_empty() {
                    tally.note(Note::ClosedEarly);
                } else if !slot.last {
                    tally.note(Note::Closed);
                }
                let has_answered = slot.answered;
                self.drop_connection(number, phase.traffic, tally);
                // A tracker that answered nothing is given a pause before it is asked again.
                if !has_answered {
                    return self.try_later(number, now, phase.traffic);
                }
            }
            Next::Abandon => {
                self.drop_connection(number, phase.traffic, tally);
                return self.try_later(number, now, phase.traffic);
            }
            Next::Failed(error) => return self.fail(number, &error, now, phase.traffic, tally),
        }
        if self.sending && phase.traffic != Traffic::Idle {
            match phase.pace {
                Pace::Closed => {
                    self.fill(number, (None, now), phase.traffic, tally);
                }
                Pace::Open(_) if self.room(number) > 0 => self.ready.join(number),
                Pace::Open(_) => {}
            }
        }
    }

    /// A connection failed.
    fn fail(&mut self, number: u32, error: &io::Error, now: Nanos, traffic: Traffic, tally: &mut Tally) {
        self.note_failure(error, tally);
        self.drop_connection(number, traffic, tally);
        self.try_later(number, now, traffic);
    }

    fn note_failure(&self, error: &io::Error, tally: &mut Tally) {
        log::debug!("connection failed: {error}");
        tally.note(Trouble::of(error).into());
    }

    /// An announce of a prefill was not served: it is repeated until that has been tried often enough.
    fn failed_announce(&mut self, number: u32, pending: &Pending, tally: &mut Tally) {
        let attempts = self.plan.config.prefill.attempts;
        let source = &mut self.sources[self.slots[number as usize].source];
        if source.unannounced.failed(pending.subject, pending.attempt, attempts) {
            tally.note(Note::PeersLost);
            self.live.step();
        }
    }

    fn try_later(&mut self, number: u32, now: Nanos, traffic: Traffic) {
        self.ramp.prove(number as usize);
        if traffic != Traffic::Idle {
            self.retry.put_off(number, now);
        }
    }

    /// Closes a connection. Requests without a response are lost.
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

    /// Gives up connections whose requests have been under way for too long, and shows progress.
    fn expire(&mut self, now: Nanos, traffic: Traffic, tally: &mut Tally) {
        if !self.expiry.is_due(now) {
            return;
        }
        let oldest = now.saturating_sub(self.plan.timeout());
        for number in 0..self.ramp.begun() {
            if self.slots[number].pending.front().is_some_and(|pending| pending.sent < oldest) {
                tally.note(Trouble::TimedOut.into());
                self.drop_connection(number as u32, traffic, tally);
                self.try_later(number as u32, now, traffic);
            }
        }
        self.live.show(tally);
    }
}
