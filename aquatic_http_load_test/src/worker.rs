//! One thread of the load test: when it sends, and what becomes of its connections.

mod reading;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aquatic_common::InfoHash;
use aquatic_load_engine::clock::{MILLISECOND, Nanos, seconds};
use aquatic_load_engine::conduct::Live;
use aquatic_load_engine::draw::Draw;
use aquatic_load_engine::events::{Event, Events, MAX_EVENTS};
use aquatic_load_engine::pacing::Schedule;
use aquatic_load_engine::ramp::Ramp;
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
/// A thread that had nothing to do for this long stops turning and waits for events.
const PATIENCE: Nanos = MILLISECOND / 20;
/// Longest wait, as something else may become due.
const LONGEST_WAIT: Nanos = MILLISECOND;
/// Time from a failure of a connection to the next try.
const RETRY_PAUSE: Nanos = 10 * MILLISECOND;

/// What decides when to send in a phase.
pub(crate) enum Pace {
    Closed,
    Open(Schedule),
}

/// One phase for one thread.
pub(crate) struct Phase {
    pub(crate) traffic: Traffic,
    pub(crate) pace: Pace,
    pub(crate) from: Nanos,
    pub(crate) until: Nanos,
}

/// What becomes of a connection after an event.
enum Next {
    Keep,
    /// Everything that was asked on it is answered, or the tracker closed it.
    Close,
    /// The tracker did something on it after which nothing can be relied on.
    Abandon,
    Failed(io::Error),
}

pub(crate) struct Worker {
    plan: Arc<Plan>,
    live: Arc<Live>,
    thread: u32,
    watched: Events,
    /// What happened last.
    events: Vec<Event>,
    slots: Vec<Slot>,
    sources: Vec<Source>,
    next_source: usize,
    /// Places that can take a request.
    ready: VecDeque<u32>,
    /// Places whose connection failed, and when to try again.
    retry: VecDeque<(Nanos, u32)>,
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
    next_expiry: Nanos,
}

impl Worker {
    pub(crate) fn new(plan: Arc<Plan>, live: Arc<Live>, thread: u32) -> io::Result<Self> {
        let slots = plan.share(plan.config.connection_count(), thread);
        let connections = &plan.config.connections;
        let per_second = f64::from(connections.ramp) / f64::from(plan.config.threads);
        Ok(Self {
            thread,
            watched: Events::new()?,
            events: Vec::with_capacity(MAX_EVENTS),
            slots: (0..slots).map(|_| Slot::default()).collect(),
            sources: Source::of_thread(&plan, thread),
            next_source: 0,
            ready: VecDeque::new(),
            retry: VecDeque::new(),
            ramp: Ramp::new(slots as usize, per_second, connections.opening),
            in_flight: 0,
            sending: false,
            checker: Checker::new(&plan),
            draw: Draw::new(plan.config.population.seed, thread.into()),
            torrents: Vec::new(),
            requests: vec![0; MAX_BATCH],
            received: vec![0; RECEIVE_LENGTH],
            next_expiry: 0,
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
        (0..self.ramp.begun()).for_each(|number| self.list(number as u32));
        let mut now = self.plan.now();
        let mut busy_at = now;
        loop {
            self.sending = now < phase.until && !self.is_done(phase.traffic);
            if !self.sending && self.in_flight == 0 {
                break;
            }
            self.expire(now, phase.traffic, &mut tally);
            let sent = if self.sending { self.send_due(now, &mut phase, &mut tally) } else { 0 };
            // In open loop, waiting would delay what is due next.
            let eager = self.sending && matches!(phase.pace, Pace::Open(_));
            let wait = if sent > 0 || eager || now - busy_at < PATIENCE { 0 } else { LONGEST_WAIT };
            let start = now;
            self.watched.wait(wait, &mut self.events);
            now = self.plan.now();
            if sent + self.events.len() > 0 {
                busy_at = now;
            }
            if sent == 0 && (wait > 0 || self.events.is_empty()) {
                tally.idle(start, now);
            }
            self.handle_events(&phase, &mut tally);
        }
        tally.end_at(now);
        if phase.traffic == Traffic::Idle {
            self.hold(&phase, &mut tally);
        }
        if let Pace::Open(schedule) = &phase.pace {
            tally.add(Note::NotDue, schedule.backlog(phase.until));
        }
        tally.add(Note::Held, self.slots.iter().filter(|slot| slot.wire.is_some()).count() as u64);
        self.show(&mut tally);
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

    /// Keeps connections open without using them.
    fn hold(&mut self, phase: &Phase, tally: &mut Tally) {
        let open = self.slots.iter().filter(|slot| slot.wire.is_some()).count();
        let time = self.plan.config.idle.hold;
        log::info!("holding {open} connections for {time} s");
        let until = self.plan.now() + seconds(time);
        while self.plan.now() < until {
            self.watched.wait(10 * LONGEST_WAIT, &mut self.events);
            self.handle_events(phase, tally);
        }
    }

    fn list(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if !slot.listed {
            slot.listed = true;
            self.ready.push_back(number);
        }
    }

    /// Takes further places into use, as many as may be by now.
    fn activate(&mut self, now: Nanos) {
        while let Some(number) = self.ramp.next(now) {
            self.list(number as u32);
        }
    }

    /// Sends what is due, and returns how many requests that was.
    fn send_due(&mut self, now: Nanos, phase: &mut Phase, tally: &mut Tally) -> usize {
        self.activate(now);
        while let Some(&(due, number)) = self.retry.front()
            && due <= now
        {
            self.retry.pop_front();
            self.list(number);
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
            let Some(number) = self.ready.pop_front() else { break };
            self.slots[number as usize].listed = false;
            sent += self.fill(number, (intended, now), phase.traffic, tally);
            if intended.is_some() && self.room(number) > 0 {
                self.list(number);
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
        let Some(wire) = &mut slot.wire else { return 0 };
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
        let sent = wire.send(self.requests.get(..used).unwrap_or_default());
        if let Err(error) = sent.and_then(|()| self.ask_for_room(number)) {
            self.fail(number, &error, now, traffic, tally);
        }
        count
    }

    /// Makes a connection from a place, if it has none or none of use. Without anything to send, it stays without.
    fn ensure_open(&mut self, number: u32, traffic: Traffic, tally: &mut Tally) -> io::Result<()> {
        let slot = &mut self.slots[number as usize];
        if slot.wire.is_some() && (!slot.pending.is_empty() || self.sources[slot.source].has_work(traffic)) {
            return Ok(());
        }
        let sources = self.sources.len();
        let mut round = (0..sources).map(|step| (self.next_source + step) % sources);
        let Some(source) = round.find(|&source| self.sources[source].has_work(traffic)) else {
            return Ok(());
        };
        self.next_source = (source + 1) % sources;
        let wire = Wire::open(&self.plan.route(self.sources[source].address))?;
        slot.connect(wire, source);
        tally.note(Note::Opened);
        self.watch(number)
    }

    fn watch(&self, number: u32) -> io::Result<()> {
        let slot = &self.slots[number as usize];
        slot.wire.as_ref().map_or(Ok(()), |wire| self.watched.watch(wire, slot.token(number)))
    }

    /// Has the kernel say when it takes more, if something is left to send.
    fn ask_for_room(&mut self, number: u32) -> io::Result<()> {
        let slot = &mut self.slots[number as usize];
        match slot.wire.as_ref().filter(|wire| wire.has_unsent()) {
            Some(wire) if !slot.wants_write => {
                slot.wants_write = true;
                self.watched.watch_room(wire, slot.token(number))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn handle_events(&mut self, phase: &Phase, tally: &mut Tally) {
        let events = std::mem::take(&mut self.events);
        let mut buffer = std::mem::take(&mut self.received);
        for &event in &events {
            let number = event.token as u32;
            let Some(slot) = self.slots.get(number as usize) else { continue };
            if slot.wire.is_some() && slot.token(number) == event.token {
                self.handle_event(number, event, &mut buffer, phase, tally);
            }
        }
        self.received = buffer;
        self.events = events;
    }

    fn handle_event(
        &mut self,
        number: u32,
        event: Event,
        buffer: &mut [u8],
        phase: &Phase,
        tally: &mut Tally,
    ) {
        let now = self.plan.now();
        let slot = &mut self.slots[number as usize];
        let flushed = match &mut slot.wire {
            Some(wire) if event.writable => wire.flush(),
            Some(_) | None => Ok(()),
        };
        let next = match flushed {
            Ok(()) => self.read(number, event.ending, buffer, (now, phase.traffic), tally),
            Err(error) => Next::Failed(error),
        };
        match next {
            Next::Keep => {
                if let Err(error) = self.ask_for_room(number) {
                    return self.fail(number, &error, now, phase.traffic, tally);
                }
            }
            Next::Close => {
                let slot = &mut self.slots[number as usize];
                if !slot.pending.is_empty() {
                    tally.note(Note::ClosedEarly);
                } else if !slot.last {
                    tally.note(Note::Closed);
                }
                // A tracker that answered nothing is given a pause before it is asked again.
                let pause = if slot.answered { 0 } else { RETRY_PAUSE };
                self.drop_connection(number, phase.traffic, tally);
                if pause > 0 {
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
                Pace::Open(_) if self.room(number) > 0 => self.list(number),
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

    fn prove(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if !slot.proven {
            slot.proven = true;
            self.ramp.proven();
        }
    }

    /// An announce of a prefill was not served: it is repeated until that has been tried often enough.
    fn failed_announce(&mut self, number: u32, pending: &Pending, tally: &mut Tally) {
        let attempts = self.plan.config.prefill.attempts;
        let source = self.slots[number as usize].source;
        if self.sources[source].failed(pending, attempts) {
            tally.note(Note::PeersLost);
            self.live.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn try_later(&mut self, number: u32, now: Nanos, traffic: Traffic) {
        self.prove(number);
        if traffic != Traffic::Idle {
            self.retry.push_back((now + RETRY_PAUSE, number));
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
        if now < self.next_expiry {
            return;
        }
        self.next_expiry = now + EXPIRY_INTERVAL;
        let oldest = now.saturating_sub(self.plan.timeout());
        for number in 0..self.ramp.begun() {
            if self.slots[number].pending.front().is_some_and(|pending| pending.sent < oldest) {
                tally.note(Note::TimedOut);
                self.drop_connection(number as u32, traffic, tally);
                self.try_later(number as u32, now, traffic);
            }
        }
        self.show(tally);
    }

    fn show(&self, tally: &mut Tally) {
        self.live.responses.fetch_add(tally.take_fresh_responses(), Ordering::Relaxed);
    }
}
