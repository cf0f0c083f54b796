//! One thread of the load test: when clients come, ask and leave.

mod checks;
mod clients;
mod reading;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use aquatic_common::InfoHash;
use aquatic_load_engine::clock::{Every, MILLISECOND, Nanos, milliseconds};
use aquatic_load_engine::conduct::Live;
use aquatic_load_engine::draw::Draw;
use aquatic_load_engine::events::{Events, Token};
use aquatic_load_engine::phase::{self, Pace};
use aquatic_load_engine::queues::{Later, Line};
use aquatic_load_engine::ramp::Ramp;
use aquatic_load_engine::turns::{Hold, Turns};
use aquatic_load_engine::wire::Trouble;

use crate::counted::{Kind, Note, Tally};
use crate::decode::Decoder;
use crate::plan::Plan;
use crate::slot::{Slot, Step};
use crate::socket::{Inbox, Outbox};

/// Places given something to do before events are looked at again.
const MAX_PER_TURN: usize = 256;
/// Time between looks for what took too long.
const EXPIRY_INTERVAL: Nanos = 100 * MILLISECOND;
/// In the end, relays are waited for until none has come for this long.
const QUIET: Nanos = 500 * MILLISECOND;
/// Time from a failure of a connection to the next try.
const RETRY_PAUSE: Nanos = 100 * MILLISECOND;

/// Distinguishes the masks of frames from other random numbers of a thread.
const MASKS: u64 = 1 << 32;

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

pub(crate) type Phase = phase::Phase<Traffic>;

/// Buffers for what is received.
struct Receiver {
    inbox: Inbox,
    decoder: Decoder,
}

pub(crate) struct Worker {
    plan: Arc<Plan>,
    live: Arc<Live>,
    thread: u32,
    /// The number that the first place has among those of all threads.
    first: u32,
    watched: Events,
    slots: Vec<Slot>,
    /// Takes the places into use.
    ramp: Ramp,
    /// Places for further clients.
    vacant: VecDeque<u32>,
    /// Places whose connection failed, to be tried again.
    retry: Later<u32>,
    /// Places that can take a request.
    ready: Line,
    /// Clients that will leave.
    leaving: Later<Token>,
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
    receiver: Option<Box<Receiver>>,
    outbox: Outbox,
    /// Torrents of the scrape being written or checked; kept to save allocations.
    torrents: Vec<InfoHash>,
    expiry: Every,
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
            ramp: Ramp::new(connections.len(), per_second, settings.opening),
            ready: Line::new(connections.len()),
            slots: (0..connections.end - connections.start)
                .map(|place| Slot::at(settings.websocket, place))
                .collect(),
            vacant: VecDeque::new(),
            retry: Later::after(RETRY_PAUSE),
            leaving: Later::after(milliseconds(plan.config.churn.stay)),
            to_come: churn / threads + u64::from(u64::from(thread) < churn % threads),
            busy: 0,
            in_flight: 0,
            sending: false,
            heard: 0,
            draw: Draw::new(plan.seed(), thread.into()),
            receiver: Some(Box::new(Receiver { inbox: Inbox::new(), decoder: Decoder::new() })),
            outbox: Outbox::new(Draw::new(plan.seed(), !u64::from(thread) ^ MASKS)),
            torrents: Vec::new(),
            expiry: Every::new(EXPIRY_INTERVAL),
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
        let mut turns = Turns::begin(self.plan.stage.clock);
        (self.heard, self.sending) = (turns.now(), true);
        loop {
            let now = turns.now();
            if self.sending && (now >= phase.until || self.is_done(phase.traffic)) {
                self.sending = false;
                tally.end_at(now);
            }
            if !self.sending && self.in_flight == 0 && now.saturating_sub(self.heard) > QUIET {
                break;
            }
            self.expire(now, phase.traffic, &mut tally);
            let done = if self.sending { self.act(now, &mut phase, &mut tally) } else { 0 };
            let eager = self.sending && phase.pace.is_open();
            turns.end((done, eager), &mut self.watched, &mut tally);
            self.handle_events(phase.traffic, &mut tally);
        }
        if phase.traffic == Traffic::Idle {
            // Pings of the tracker are answered.
            let hold = Hold::begin(self.plan.stage.clock, self.open(), self.plan.config.idle.hold);
            while hold.goes_on(&mut self.watched) {
                self.handle_events(Traffic::Idle, &mut tally);
            }
        }
        if phase.traffic == Traffic::Mix {
            tally.add(Note::NotDue, phase.never_sent());
        }
        tally.add(Note::Held, self.open());
        self.live.show(&mut tally);
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

    /// How many clients are there.
    fn open(&self) -> u64 {
        self.slots.iter().filter(|slot| slot.step == Step::Joined).count() as u64
    }

    fn list(&mut self, number: u32) {
        if self.slots[number as usize].is_free() {
            self.ready.join(number);
        }
    }

    /// Has clients come, ask and leave as far as that is due, and returns how many did.
    fn act(&mut self, now: Nanos, phase: &mut Phase, tally: &mut Tally) -> usize {
        let mut acted = self.leave_due(now, tally);
        while let Some(number) = self.retry.due(now) {
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
            while let Some(number) = self.ready.first()
                && !self.slots[number as usize].is_free()
            {
                self.ready.leave();
            }
            let Some(number) = self.ready.first() else { break };
            let intended = match pace {
                Pace::Closed if self.in_flight < self.plan.config.closed.window => now,
                Pace::Closed => break,
                Pace::Open(schedule) => match schedule.next_due(now) {
                    Some(intended) => intended,
                    None => break,
                },
            };
            self.ready.leave();
            self.ask(number, (intended, now), tally);
            asked += 1;
        }
        asked
    }

    fn leave_due(&mut self, now: Nanos, tally: &mut Tally) -> usize {
        let mut left = 0;
        while let Some(token) = self.leaving.due(now) {
            let slot = &self.slots[token.place as usize];
            if slot.socket.token() == token && slot.step == Step::Joined {
                self.leave(token.place, now, tally);
                left += 1;
            }
        }
        left
    }

    fn handle_events(&mut self, traffic: Traffic, tally: &mut Tally) {
        // Decoded messages borrow from the receiver while the worker acts on them.
        let Some(mut receiver) = self.receiver.take() else { return };
        while let Some(event) = self.watched.take() {
            if self.slots[event.token.place as usize].socket.has_token(event.token) {
                self.handle_event(event, &mut receiver, traffic, tally);
            }
        }
        self.receiver = Some(receiver);
    }

    /// Gives up on trackers that take too long, and shows progress.
    fn expire(&mut self, now: Nanos, traffic: Traffic, tally: &mut Tally) {
        if !self.expiry.is_due(now) {
            return;
        }
        for number in 0..self.slots.len() {
            if self.slots[number].deadline.is_some_and(|deadline| deadline < now) {
                tally.note(Trouble::TimedOut.into());
                self.lose(number as u32, now, traffic, tally);
            }
        }
        self.live.show(tally);
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
