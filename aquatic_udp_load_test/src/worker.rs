//! Thread of the load test: sends, receives and counts.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use aquatic_load_engine::clock::{Interval, MILLISECOND, Nanos};
use aquatic_load_engine::event_loop::longest_wait;
use aquatic_load_engine::pacing::{Schedule, Window};
use aquatic_load_engine::phase;
use aquatic_load_engine::prefill::Progress;
use aquatic_load_engine::queue::IndexedQueue;
use aquatic_load_engine::rng::Rng;
use aquatic_load_engine::run_phase::LiveCounters;
use aquatic_udp_protocol::{ConnectionId, Response, TransactionId};

use crate::burst::Burst;
use crate::counters::{Kind, Note, Tally, Violation};
use crate::fast_path::FastPath;
use crate::in_flight::{InFlight, Pending};
use crate::plan::Plan;
use crate::reply_check::ReplyChecker;
use crate::source::Source;
use crate::sys::{Receiver, can_segment, wait_readable};
use crate::traffic::{self, PlannedRequest, Traffic, Writer};

/// Maximum number of sockets without packets that are polled between two sends.
const MAX_EMPTY_SOCKETS: usize = 4;
/// Maximum number of packets received between two sends.
const MAX_RECEIVED: usize = 256;
/// Maximum number of sockets that are watched in a wait. A thread that expects packets at more polls.
const MAX_POLLED: usize = 64;
/// Interval of the check for timed-out requests.
const EXPIRY_INTERVAL: Nanos = 10 * MILLISECOND;

/// Load model of a phase.
pub(crate) enum LoadModel {
    Closed(Window),
    Open {
        schedule: Schedule,
        further_probability: f64,
        /// Intended send times of requests that follow responses.
        further: VecDeque<Nanos>,
    },
}

impl LoadModel {
    /// Time at which the next request becomes due, if requests become due by time.
    fn next_due(&self) -> Option<Nanos> {
        match self {
            Self::Closed(_) => None,
            Self::Open { schedule, further, .. } => {
                Some(further.front().copied().unwrap_or_else(|| schedule.next()))
            }
        }
    }
}

pub(crate) type Phase = phase::Phase<Traffic, LoadModel>;

/// Where a received packet is, by its position in the batch.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In a buffer of the receiver.
    Buffer(usize),
    /// In a frame that has come past the network stack.
    Frame(usize),
}

pub(crate) struct Worker {
    thread: u32,
    plan: Arc<Plan>,
    live: Arc<LiveCounters>,
    sources: Vec<Source>,
    fast_path: Option<FastPath>,
    /// Index of the next socket to send from, if it has a connection id.
    next_source: usize,
    /// Sockets with requests in flight, the longest waiting first.
    expecting: IndexedQueue,
    in_flight: InFlight,
    segment: bool,
    burst: Burst,
    writer: Writer,
    receiver: Receiver,
    checker: ReplyChecker,
    rng: Rng,
    expiry: Interval,
}

impl Worker {
    pub(crate) fn new(
        plan: Arc<Plan>,
        live: Arc<LiveCounters>,
        (sources, fast_path): (Vec<Source>, Option<FastPath>),
        thread: u32,
    ) -> Self {
        let offload = plan.config.network.segmentation_offload;
        Self {
            thread,
            segment: offload && sources.first().is_some_and(|source| can_segment(&source.socket)),
            rng: Rng::new(plan.config.population.seed, thread.into()),
            in_flight: InFlight::new(crate::config::MAX_IN_FLIGHT),
            next_source: 0,
            expecting: IndexedQueue::new(sources.len()),
            burst: Burst::new(),
            writer: Writer::new(),
            receiver: Receiver::new(),
            checker: ReplyChecker::new(&plan),
            expiry: Interval::new(EXPIRY_INTERVAL),
            plan,
            live,
            sources,
            fast_path,
        }
    }

    pub(crate) fn thread(&self) -> u32 {
        self.thread
    }

    /// Runs a phase to its end and returns its counters.
    pub(crate) fn run(&mut self, mut phase: Phase) -> Tally {
        let mut tally = Tally::new(phase.from, phase.until);
        let mut now = self.plan.topology.now();
        let mut busy_at = now;
        let mut progress = Progress::new(now, self.plan.timeout());
        loop {
            let received = self.receive(&mut phase, &mut tally);
            self.expire(now, phase.traffic, &mut tally);
            let has_stalled =
                phase.traffic == Traffic::Prefill && progress.has_stalled(now, tally.served(Kind::Announce));
            phase.observe(&self.live, now);
            let sending = now < phase.until && !has_stalled && !self.is_done(phase.traffic);
            let sent = if sending { self.send(now, received, &mut phase, &mut tally) } else { 0 };
            if !sending && self.in_flight.len() == 0 {
                break;
            }
            let start = now;
            now = self.plan.topology.now();
            if received + sent > 0 {
                busy_at = now;
            } else {
                tally.idle(start, now);
                let due = if sending { phase.model.next_due() } else { None };
                let wait = longest_wait(now, busy_at, due);
                if wait > 0 && self.expecting.len() <= MAX_POLLED {
                    self.wait(wait);
                    tally.idle(now, self.plan.topology.now());
                    now = self.plan.topology.now();
                }
            }
        }
        self.close(now, &phase, &mut tally);
        tally
    }

    fn is_done(&self, traffic: Traffic) -> bool {
        match traffic {
            Traffic::Connects => self.sources.iter().all(|source| source.connection.is_some()),
            Traffic::Prefill => {
                let done = |source: &Source| source.connection.is_none() || source.unannounced.is_empty();
                self.in_flight.len() == 0 && self.sources.iter().all(done)
            }
            // Without any connection id, nothing can be sent.
            Traffic::Mix => self.sources.iter().all(|source| source.connection.is_none()),
        }
    }

    /// Waits for packets, at most for `time`.
    fn wait(&self, time: Nanos) {
        let sockets = self.expecting.iter().map(|number| self.sources[number as usize].socket.as_fd());
        let waiting = sockets.chain(self.fast_path.iter().flat_map(FastPath::watched));
        if let Err(error) = wait_readable(waiting, time) {
            log::warn!("cannot wait for packets: {error}");
        }
    }

    /// Sends a burst from one socket if requests are due, and returns their number.
    fn send(&mut self, now: Nanos, received: usize, phase: &mut Phase, tally: &mut Tally) -> usize {
        let most = self.plan.config.network.burst.min(self.in_flight.room());
        let due = match &mut phase.model {
            LoadModel::Closed(window) => {
                let due = window.due(now, self.in_flight.len()).min(most);
                // While responses arrive, small bursts are postponed so that they grow.
                if received > 0 && due < most && self.in_flight.len() > most { 0 } else { due }
            }
            LoadModel::Open { .. } => most,
        };
        if due == 0 {
            return 0;
        }
        let Some(number) = self.choose_source(now, phase.traffic) else { return 0 };
        let renew = self.needs_connect(number, now);
        let mut count = 0;
        if renew {
            self.sources[number].renewing_since = Some(now);
            count += self.add(number, PlannedRequest::CONNECT, now, now, phase.traffic, tally);
        }
        while count < due && self.sources[number].connection.is_some() {
            let intended = match &mut phase.model {
                LoadModel::Closed(_) => now,
                LoadModel::Open { schedule, further, .. } => {
                    match further.pop_front().or_else(|| schedule.next_due(now)) {
                        Some(intended) => intended,
                        None => break,
                    }
                }
            };
            let source = &mut self.sources[number];
            let Some(planned) = traffic::next(phase.traffic, &self.plan, source, &mut self.rng) else {
                break;
            };
            count += self.add(number, planned, intended, now, phase.traffic, tally);
        }
        if let LoadModel::Closed(window) = &mut phase.model {
            window.sent(count);
        }
        self.flush(number, tally);
        count
    }

    /// Next socket, in round-robin order, with something to send.
    fn choose_source(&mut self, now: Nanos, traffic: Traffic) -> Option<usize> {
        for _ in 0..self.sources.len() {
            let number = self.next_source;
            self.next_source = (number + 1) % self.sources.len();
            let source = &self.sources[number];
            let has_work = match traffic {
                Traffic::Connects => false,
                Traffic::Prefill => !source.unannounced.is_empty(),
                Traffic::Mix => true,
            };
            if (has_work && source.connection.is_some()) || self.needs_connect(number, now) {
                return Some(number);
            }
        }
        None
    }

    fn needs_connect(&self, number: usize, now: Nanos) -> bool {
        let source = &self.sources[number];
        let old = source
            .connection
            .is_none_or(|(_, obtained)| now.saturating_sub(obtained) > self.plan.connection_age());
        old && source.renewing_since.is_none() && now >= source.connect_again_at
    }

    /// Adds a request to the burst and returns the number of added requests, 0 or 1.
    fn add(
        &mut self,
        number: usize,
        planned: PlannedRequest,
        intended: Nanos,
        now: Nanos,
        traffic: Traffic,
        tally: &mut Tally,
    ) -> usize {
        let source = &mut self.sources[number];
        let pending = planned.pending(number as u32, intended, now);
        let Some(id) = self.in_flight.insert(pending) else { return 0 };
        let connection = source.connection.map_or(ConnectionId::PROTOCOL_MAGIC, |(connection, _)| connection);
        let (plan, writer, rng) = (&self.plan, &mut self.writer, &mut self.rng);
        let added = self.burst.add(planned.kind, id, |buffer| {
            writer.write(plan, traffic, (planned, id, connection), rng, buffer)
        });
        debug_assert!(added.is_ok(), "the buffers of a burst hold the longest requests");
        source.in_flight += 1;
        if !self.is_fast(number) {
            self.expecting.push_back(number as u32);
        }
        tally.sent(planned.kind, intended);
        1
    }

    /// Whether requests of a source are sent, and replies expected, past the network stack.
    fn is_fast(&self, number: usize) -> bool {
        self.fast_path.as_ref().is_some_and(|path| path.serves(number))
    }

    /// Sends the burst.
    fn flush(&mut self, number: usize, tally: &mut Tally) {
        if self.burst.is_empty() {
            return;
        }
        let source = &mut self.sources[number];
        let in_flight = &mut self.in_flight;
        let not_sent = |id| {
            if let Some(pending) = in_flight.take(id, number as u32) {
                source.in_flight -= 1;
                tally.note(Note::NotSent);
                tally.not_sent(pending.kind, pending.intended);
                match pending.kind {
                    Kind::Announce => source.unannounced.put_back(pending.subject.into(), pending.attempt),
                    Kind::Connect => source.renewing_since = None,
                    Kind::Scrape => {}
                }
            }
        };
        if let Some(path) = self.fast_path.as_mut().filter(|path| path.serves(number)) {
            self.burst.send_by(|packet| path.send(number, packet), not_sent);
            path.flush();
            return;
        }
        let result = self.burst.send(&source.socket, self.segment, not_sent);
        match result.map_err(|error| (error.kind(), error)) {
            Ok(()) | Err((io::ErrorKind::WouldBlock, _)) => {}
            Err((io::ErrorKind::ConnectionRefused, _)) => tally.note(Note::Refused),
            Err((_, error)) if self.segment => {
                log::warn!("going on without segmentation offload, as sending failed: {error}");
                self.segment = false;
            }
            Err((_, error)) => log::warn!("sending failed: {error}"),
        }
    }

    /// Receives packets, from the longest waiting sockets first, and returns their number.
    fn receive(&mut self, phase: &mut Phase, tally: &mut Tally) -> usize {
        let (mut total, mut empty) = (self.receive_fast(phase, tally), 0);
        for _ in 0..self.expecting.len() {
            if empty >= MAX_EMPTY_SOCKETS || total >= MAX_RECEIVED {
                break;
            }
            let Some(number) = self.expecting.pop_front() else { break };
            let count = match self.receiver.receive(&self.sources[number as usize].socket) {
                Ok(count) => count,
                Err(error) => {
                    if error.kind() == io::ErrorKind::ConnectionRefused {
                        tally.note(Note::Refused);
                    } else {
                        log::warn!("receiving failed: {error}");
                    }
                    0
                }
            };
            if count == 0 {
                empty += 1;
            } else {
                let now = self.plan.topology.now();
                (0..count).for_each(|index| self.handle(number, Place::Buffer(index), now, phase, tally));
                total += count;
            }
            if self.sources[number as usize].in_flight > 0 && !self.is_fast(number as usize) {
                self.expecting.push_back(number);
            }
        }
        total
    }

    /// Receives what has come past the network stack, and returns the number of packets.
    fn receive_fast(&mut self, phase: &mut Phase, tally: &mut Tally) -> usize {
        let mut total = 0;
        while total < MAX_RECEIVED {
            let count = self.fast_path.as_mut().map_or(0, FastPath::receive);
            if count == 0 {
                break;
            }
            let now = self.plan.topology.now();
            for at in 0..count {
                let packet = self.fast_path.as_ref().and_then(|path| path.packet(at));
                if let Some((number, _)) = packet {
                    self.handle(number, Place::Frame(at), now, phase, tally);
                }
            }
            if let Some(path) = &mut self.fast_path {
                path.finish();
            }
            total += count;
        }
        total
    }

    fn handle(&mut self, number: u32, place: Place, now: Nanos, phase: &mut Phase, tally: &mut Tally) {
        let packet = match (place, &self.fast_path) {
            (Place::Frame(at), Some(path)) => path.packet(at).map_or(&[][..], |(_, packet)| packet),
            (Place::Buffer(at) | Place::Frame(at), _) => self.receiver.packet(at),
        };
        let response = Response::parse(packet, self.plan.family);
        let id = match &response {
            Ok(response) => Some(response.transaction_id()),
            Err(_) => packet.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(TransactionId),
        };
        let Some(pending) = id.and_then(|id| self.in_flight.take(id, number)) else {
            tally.note(Note::Unexpected);
            return;
        };
        let source = &mut self.sources[number as usize];
        source.in_flight -= 1;
        if pending.kind == Kind::Connect {
            source.renewing_since = None;
        }
        let served = match (pending.kind, response) {
            (Kind::Connect, Ok(Response::Connect(reply))) => {
                source.connection = Some((reply.connection_id(), pending.sent));
                true
            }
            (Kind::Announce, Ok(Response::Announce(reply))) => {
                let numwant = traffic::numwant(&self.plan, phase.traffic);
                self.checker.announce(&self.plan, &pending, numwant, &reply, tally);
                if phase.traffic == Traffic::Prefill {
                    tally.note(Note::PeersAnnounced);
                    self.live.step_done();
                }
                true
            }
            (Kind::Scrape, Ok(Response::Scrape(reply))) => {
                ReplyChecker::scrape(&pending, &reply, tally);
                true
            }
            (_, Ok(Response::Error(reply))) => {
                tally.error_text(reply.text);
                false
            }
            (_, Ok(Response::Connect(_) | Response::Announce(_) | Response::Scrape(_))) => {
                tally.violation(Violation::WrongKind);
                false
            }
            (_, Err(_)) => {
                tally.violation(Violation::Malformed);
                false
            }
        };
        if !served && pending.kind == Kind::Connect {
            // As if it had been lost: a tracker that refuses it will do so again at once.
            source.connect_again_at = now + self.plan.timeout();
        }
        if !served {
            self.failed(pending, phase.traffic, tally);
        }
        tally.response(pending.kind, pending.intended, now, served);
        match &mut phase.model {
            LoadModel::Closed(window) => window.responded(&mut self.rng),
            LoadModel::Open { further, further_probability, .. } => {
                if *further_probability > 0.0 && self.rng.chance(*further_probability) {
                    further.push_back(now);
                }
            }
        }
    }

    /// Handles an announce that failed. A prefill retries it until its attempts run out.
    fn failed(&mut self, pending: Pending, traffic: Traffic, tally: &mut Tally) {
        let source = &mut self.sources[pending.source as usize];
        if traffic != Traffic::Prefill || pending.kind != Kind::Announce {
            return;
        }
        let attempts = self.plan.config.prefill.attempts;
        if source.unannounced.announce_failed(pending.subject.into(), pending.attempt, attempts) {
            tally.note(Note::PeersLost);
            self.live.step_done();
        }
    }

    /// Removes timed-out requests and updates progress.
    fn expire(&mut self, now: Nanos, traffic: Traffic, tally: &mut Tally) {
        if !self.expiry.is_due(now) {
            return;
        }
        let mut lost = Vec::new();
        self.in_flight.expire(now.saturating_sub(self.plan.timeout()), |pending| lost.push(pending));
        for pending in lost {
            let source = &mut self.sources[pending.source as usize];
            source.in_flight -= 1;
            if pending.kind == Kind::Connect {
                source.renewing_since = None;
            }
            tally.lost(pending.kind, pending.intended);
            self.failed(pending, traffic, tally);
        }
        self.live.add_responses(tally);
    }

    /// Completes the counters at the end of a phase.
    fn close(&mut self, now: Nanos, phase: &Phase, tally: &mut Tally) {
        tally.end_at(now);
        let unconnected = self.sources.iter().filter(|source| source.connection.is_none()).count();
        tally.add(Note::NotConnected, unconnected as u64);
        if let LoadModel::Open { schedule, .. } = &phase.model {
            tally.add(Note::NotDue, schedule.backlog(phase.until));
        }
        if phase.traffic == Traffic::Prefill {
            let left = self.sources.iter().map(|source| source.unannounced.len());
            tally.add(Note::PeersLost, left.sum());
        }
        // The mix does not retry announces.
        self.sources.iter_mut().for_each(|source| source.unannounced.drop_failed());
    }
}
