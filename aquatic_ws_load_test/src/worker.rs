//! One thread of the load test: when clients come, ask and leave.

mod checks;
mod clients;
mod reading;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aquatic_common::InfoHash;
use aquatic_load_engine::clock::{MILLISECOND, Nanos, seconds};
use aquatic_load_engine::conduct::Live;
use aquatic_load_engine::draw::Draw;
use aquatic_load_engine::events::{Event, Events, MAX_EVENTS};
use aquatic_load_engine::pacing::Schedule;
use aquatic_load_engine::ramp::Ramp;

use crate::counted::{Kind, Note, Tally};
use crate::plan::Plan;
use crate::slot::{Slot, Step};

/// Places given something to do before events are looked at again.
const MAX_PER_TURN: usize = 256;
/// Longest message, and most messages read together.
const RECEIVE_LENGTH: usize = 256 * 1024;
/// Time between looks for what took too long.
const EXPIRY_INTERVAL: Nanos = 100 * MILLISECOND;
/// A thread that had nothing to do for this long stops turning and waits for events.
const PATIENCE: Nanos = MILLISECOND / 20;
/// Longest wait, as something else may become due.
const LONGEST_WAIT: Nanos = MILLISECOND;
/// In the end, relays are waited for until none has come for this long.
const QUIET: Nanos = 500 * MILLISECOND;
/// Time from a failure of a connection to the next try.
const RETRY_PAUSE: Nanos = 100 * MILLISECOND;

/// What a phase is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Clients come.
    Connect,
    /// Clients come and stay without doing anything.
    Idle,
    /// Those that are there announce and scrape.
    Mix,
    /// Clients come and go.
    Churn,
}

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

pub(crate) struct Worker {
    plan: Arc<Plan>,
    live: Arc<Live>,
    thread: u32,
    /// The number that the first place has among those of all threads.
    first: u32,
    watched: Events,
    /// What happened last.
    events: Vec<Event>,
    slots: Vec<Slot>,
    /// Takes the places into use.
    ramp: Ramp,
    /// Places for further clients.
    vacant: VecDeque<u32>,
    /// Places whose connection failed, and when to try again.
    retry: VecDeque<(Nanos, u32)>,
    /// Places that can take a request.
    ready: VecDeque<u32>,
    /// Clients by when they leave: their tokens.
    leaving: VecDeque<(Nanos, u64)>,
    /// Clients that are still to come in churn.
    to_come: u64,
    /// Places with something to be done before the phase is over.
    busy: usize,
    /// Announces and scrapes without a reply.
    in_flight: usize,
    /// Whether further requests are to be sent.
    sending: bool,
    /// When something came last.
    heard: Nanos,
    draw: Draw,
    /// The message being written, what is to be sent, what was received, the torrents of a scrape; kept to save
    /// allocations.
    text: Vec<u8>,
    out: Vec<u8>,
    received: Vec<u8>,
    torrents: Vec<InfoHash>,
    next_expiry: Nanos,
}

impl Worker {
    /// A thread for these connections.
    pub(crate) fn new(
        plan: Arc<Plan>,
        live: Arc<Live>,
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
            events: Vec::with_capacity(MAX_EVENTS),
            ramp: Ramp::new(connections.len(), per_second, settings.opening),
            slots: connections.map(|_| Slot::default()).collect(),
            vacant: VecDeque::new(),
            retry: VecDeque::new(),
            ready: VecDeque::new(),
            leaving: VecDeque::new(),
            to_come: churn / threads + u64::from(u64::from(thread) < churn % threads),
            busy: 0,
            in_flight: 0,
            sending: false,
            heard: 0,
            draw: Draw::new(plan.seed(), thread.into()),
            text: Vec::new(),
            out: Vec::new(),
            received: vec![0; RECEIVE_LENGTH],
            torrents: Vec::new(),
            next_expiry: 0,
            plan,
            live,
        })
    }

    pub(crate) fn thread(&self) -> u32 {
        self.thread
    }

    /// The number of a place among those of all threads.
    fn connection(&self, number: u32) -> u32 {
        self.first + number
    }

    /// Runs a phase to its end and returns what was counted.
    pub(crate) fn run(&mut self, mut phase: Phase) -> Tally {
        let mut tally = Tally::new(phase.from, phase.until);
        if phase.traffic == Traffic::Mix {
            (0..self.slots.len()).for_each(|number| self.list(number as u32));
        }
        let mut now = self.plan.now();
        (self.heard, self.sending) = (now, true);
        let mut busy_at = now;
        loop {
            if self.sending && (now >= phase.until || self.is_done(phase.traffic)) {
                self.sending = false;
                tally.end_at(now);
            }
            if !self.sending && self.in_flight == 0 && now.saturating_sub(self.heard) > QUIET {
                break;
            }
            self.expire(now, phase.traffic, &mut tally);
            let sent = if self.sending { self.act(now, &mut phase, &mut tally) } else { 0 };
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
            self.handle_events(phase.traffic, &mut tally);
        }
        if phase.traffic == Traffic::Idle {
            self.hold(&mut tally);
        }
        if let (Pace::Open(schedule), Traffic::Mix) = (&phase.pace, phase.traffic) {
            tally.add(Note::NotDue, schedule.backlog(phase.until));
        }
        tally.add(Note::Held, self.open_connections());
        self.show(&mut tally);
        tally
    }

    fn is_done(&self, traffic: Traffic) -> bool {
        match traffic {
            Traffic::Mix => false,
            Traffic::Connect | Traffic::Idle => {
                self.ramp.is_over() && self.vacant.is_empty() && self.busy == 0
            }
            Traffic::Churn => self.to_come == 0 && self.busy == 0,
        }
    }

    fn open_connections(&self) -> u64 {
        self.slots.iter().filter(|slot| slot.step == Step::Joined).count() as u64
    }

    /// Keeps connections open without using them, but for answers to the tracker's pings.
    fn hold(&mut self, tally: &mut Tally) {
        let (open, time) = (self.open_connections(), self.plan.config.idle.hold);
        log::info!("holding {open} connections for {time} s");
        let until = self.plan.now() + seconds(time);
        while self.plan.now() < until {
            self.watched.wait(10 * LONGEST_WAIT, &mut self.events);
            self.handle_events(Traffic::Idle, tally);
        }
    }

    fn list(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if !slot.listed && slot.is_free() {
            slot.listed = true;
            self.ready.push_back(number);
        }
    }

    /// Has clients come, ask and leave as far as that is due, and returns how many did.
    fn act(&mut self, now: Nanos, phase: &mut Phase, tally: &mut Tally) -> usize {
        let mut acted = self.leave_due(now, tally);
        while let Some(&(due, number)) = self.retry.front()
            && due <= now
        {
            self.retry.pop_front();
            self.vacant.push_back(number);
        }
        while phase.traffic != Traffic::Mix
            && (phase.traffic != Traffic::Churn || self.to_come > 0)
            && let Some(number) = self.ramp.next(now)
        {
            self.vacant.push_back(number as u32);
        }
        acted += self.begin_due(now, phase, tally);
        if phase.traffic == Traffic::Mix {
            acted += self.ask_due(now, &mut phase.pace, tally);
        }
        acted
    }

    /// Has clients come.
    fn begin_due(&mut self, now: Nanos, phase: &mut Phase, tally: &mut Tally) -> usize {
        let mut begun = 0;
        while begun < MAX_PER_TURN && !self.vacant.is_empty() {
            let mut intended = now;
            if phase.traffic == Traffic::Churn {
                if self.to_come == 0 {
                    // Whoever is left over in the queue stays away.
                    self.vacant.clear();
                    break;
                }
                if let Pace::Open(schedule) = &mut phase.pace {
                    match schedule.next_due(now) {
                        Some(due) => intended = due,
                        None => break,
                    }
                }
                self.to_come -= 1;
            }
            let Some(number) = self.vacant.pop_front() else { break };
            self.begin(number, (intended, now), phase.traffic, tally);
            begun += 1;
        }
        begun
    }

    /// Has clients ask.
    fn ask_due(&mut self, now: Nanos, pace: &mut Pace, tally: &mut Tally) -> usize {
        let mut asked = 0;
        while asked < MAX_PER_TURN {
            while let Some(&number) = self.ready.front()
                && !self.slots[number as usize].is_free()
            {
                self.ready.pop_front();
                self.slots[number as usize].listed = false;
            }
            let Some(&number) = self.ready.front() else { break };
            let intended = match pace {
                Pace::Closed if self.in_flight < self.plan.config.closed.window => now,
                Pace::Closed => break,
                Pace::Open(schedule) => match schedule.next_due(now) {
                    Some(intended) => intended,
                    None => break,
                },
            };
            self.ready.pop_front();
            self.slots[number as usize].listed = false;
            self.ask(number, (intended, now), tally);
            asked += 1;
        }
        asked
    }

    fn leave_due(&mut self, now: Nanos, tally: &mut Tally) -> usize {
        let mut left = 0;
        while let Some(&(due, token)) = self.leaving.front()
            && due <= now
        {
            self.leaving.pop_front();
            let number = token as u32;
            let slot = &self.slots[number as usize];
            if slot.token(number) == token && slot.step == Step::Joined {
                self.leave(number, now, tally);
                left += 1;
            }
        }
        left
    }

    fn handle_events(&mut self, traffic: Traffic, tally: &mut Tally) {
        let events = std::mem::take(&mut self.events);
        let mut buffer = std::mem::take(&mut self.received);
        for &event in &events {
            let number = event.token as u32;
            let Some(slot) = self.slots.get(number as usize) else { continue };
            if slot.wire.is_some() && slot.token(number) == event.token {
                self.handle_event(number, event, &mut buffer, traffic, tally);
            }
        }
        self.received = buffer;
        self.events = events;
    }

    /// Gives up on trackers that take too long, and shows progress.
    fn expire(&mut self, now: Nanos, traffic: Traffic, tally: &mut Tally) {
        if now < self.next_expiry {
            return;
        }
        self.next_expiry = now + EXPIRY_INTERVAL;
        for number in 0..self.slots.len() {
            if self.slots[number].deadline.is_some_and(|deadline| deadline < now) {
                tally.note(Note::TimedOut);
                self.lose(number as u32, now, traffic, tally);
            }
        }
        self.show(tally);
    }

    fn show(&self, tally: &mut Tally) {
        self.live.responses.fetch_add(tally.take_fresh_responses(), Ordering::Relaxed);
    }

    /// What was asked on a connection will not be answered any more.
    fn lose_requests(&mut self, number: u32, tally: &mut Tally) {
        let slot = &mut self.slots[number as usize];
        if slot.step == Step::Upgrading {
            tally.lost(Kind::Connect, slot.begun);
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
