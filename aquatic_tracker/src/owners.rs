//! Requests to the cores that own torrents, and what becomes of them: the part of a core's tracker that is
//! free of channels, tasks and clocks. [`LocalTracker`](crate::LocalTracker) connects it to them, and a
//! simulation to queues in memory.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use aquatic_common::{InfoHash, Seconds};
use aquatic_metrics::{CoreMetrics, Counter, Gauge, names};
use aquatic_runtime::CoreState;
use aquatic_runtime::channel::OutboxFull;
use aquatic_swarm::{Announce, Announced, FamilySet, SwarmCounts};

use crate::forward::{Forward, OwnerParts, take};
use crate::gather::{Gather, RESPONSE_DEADLINE, RequestId, RouteError};
use crate::messages::{Message, Messages};
use crate::partition::{Asked, DEADLINE, Elsewhere};
use crate::tracker::Tracker;

mod parts;

/// What an owner has responded to an announce.
#[derive(Clone, Copy, Debug)]
pub struct OwnerResponse<'a> {
    /// Counts and lengths.
    pub announced: Announced,
    /// Compact IPv4 peers.
    pub v4: &'a [u8],
    /// Compact IPv6 peers.
    pub v6: &'a [u8],
}

/// Takes the outcome of requests to other cores; exactly one method is called per request. None may wait or
/// do more than a small amount of work. The tracker's state is not borrowed meanwhile.
pub trait Respond {
    /// The owner has applied an announce.
    fn announced(&self, token: u32, response: OwnerResponse<'_>);

    /// The owners have counted: counts in the order of the request.
    fn scraped(&self, token: u32, counts: &[SwarmCounts]);

    /// There will be no response.
    fn failed(&self, token: u32, error: RouteError);
}

/// Who waits for a response: an object that takes it, and a number that means something to that object.
#[derive(Clone)]
pub struct Waiter {
    /// Takes the response.
    pub respond: Rc<dyn Respond>,
    /// Given to it as it is here.
    pub token: u32,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("token", &self.token).finish_non_exhaustive()
    }
}

/// Who waits for a response, and what other nodes were asked for.
struct Asking {
    waiter: Waiter,
    forwarded: Forwarded,
}

/// What is known of a request that other nodes were asked for.
#[derive(Clone, Copy)]
enum Forwarded {
    /// Only cores of this node were asked.
    Nothing,
    /// An announce, which is kept until the response is there.
    Announce(Asked),
    /// Counts of some torrents.
    Scrape(Asked),
}

impl Asking {
    fn cores(waiter: Waiter) -> Self {
        Self { waiter, forwarded: Forwarded::Nothing }
    }
}

struct Counters {
    overflows: Counter,
    timeouts: Counter,
    pending: Gauge,
}

impl Counters {
    fn new(metrics: &CoreMetrics) -> Self {
        let failed =
            |error: RouteError| metrics.counter(&names::OWNER_REQUESTS_FAILED, &[("reason", error.name())]);
        Self {
            overflows: failed(RouteError::Overflow),
            timeouts: failed(RouteError::Timeout),
            pending: metrics.gauge(&names::OWNER_REQUESTS_PENDING, &[]),
        }
    }
}

/// Where the trackers of the cores are.
pub trait Trackers {
    /// That of this core.
    fn own(&self) -> RefMut<'_, Tracker>;

    /// Has `act` use that of another core, if that core sleeps and its tracker is free.
    fn with_sleeping<R>(&self, core: usize, act: impl FnOnce(&mut Tracker) -> R) -> Option<R>;
}

impl Trackers for Rc<CoreState<Tracker>> {
    fn own(&self) -> RefMut<'_, Tracker> {
        CoreState::own(self)
    }

    fn with_sleeping<R>(&self, core: usize, act: impl FnOnce(&mut Tracker) -> R) -> Option<R> {
        CoreState::with_sleeping(self, core, act)
    }
}

/// The tracker of one core, and its requests to the owners of other torrents.
pub struct Owners<T, F> {
    trackers: T,
    pending: RefCell<Gather<Asking, SwarmCounts>>,
    forward: F,
    counters: Counters,
    /// Requests for parts that other nodes hold, if nodes divide the torrents among themselves.
    elsewhere: RefCell<Option<Box<Elsewhere>>>,
}

impl<T, F> fmt::Debug for Owners<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owners").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl<T: Trackers, F: Forward<Messages>> Owners<T, F> {
    /// Returns the tracker of a core without pending requests.
    #[must_use]
    pub fn new(trackers: T, forward: F, metrics: &CoreMetrics) -> Self {
        let counters = Counters::new(metrics);
        Self { trackers, pending: RefCell::default(), forward, counters, elsewhere: RefCell::default() }
    }

    /// Returns the state of this core. The borrow must end before an owner is asked.
    pub fn state(&self) -> RefMut<'_, Tracker> {
        self.trackers.own()
    }

    /// Has `act` serve a request with the tracker of another core, if that core sleeps and its tracker is
    /// free. `act` must do no more than a small amount of work.
    pub fn with_sleeping<R>(&self, owner: usize, act: impl FnOnce(&mut Tracker) -> R) -> Option<R> {
        self.trackers.with_sleeping(owner, act)
    }

    /// Ends some requests past their deadline. Returns whether there may be more.
    pub fn end_late(&self, now: Duration, max: usize) -> bool {
        let (late, has_more) = self.pending.borrow_mut().expire_some(now, max);
        for Asking { waiter, forwarded } in late {
            match forwarded {
                Forwarded::Announce(asked) => self.timed_out(now, asked, &waiter),
                Forwarded::Scrape(asked) => self.counts_timed_out(now, asked, &waiter),
                Forwarded::Nothing => self.fail(&waiter, RouteError::Timeout),
            }
        }
        has_more
    }

    /// Ends requests past their deadline and updates the gauges. To be called a few times a second, if there
    /// may be many after [`Self::end_late`].
    pub fn tick(&self, now: Duration) {
        while self.end_late(now, usize::MAX) {}
        self.counters.pending.set(self.pending.borrow().len() as u64);
        let mut tracker = self.trackers.own();
        tracker.check_memory();
        tracker.update_gauges();
        tracker.requests().tick();
    }

    /// Has the owner of the torrent, another core or another node, apply an admitted announce. `room` is the
    /// number of bytes of compact IPv4 and IPv6 peers that the reply can take.
    pub fn announce(&self, now: Duration, announce: &Announce, room: (u32, u32), waiter: Waiter) {
        let (owner, is_held) = {
            let tracker = self.trackers.own();
            (tracker.owner(&announce.info_hash), tracker.holds(&announce.info_hash))
        };
        if !is_held {
            return self.announce_elsewhere(now, announce, room, waiter);
        }
        let begun = self.pending.borrow_mut().begin(now, Asking::cores(waiter), Vec::new(), 1);
        let id = match begun {
            Ok(id) => id,
            Err(asking) => return self.fail(&asking.waiter, RouteError::Overflow),
        };
        let message = Message::Announce { id, announce: *announce, room };
        if self.forward.add(owner, |batch| batch.items.push(message)).is_err() {
            self.cancel(id);
        }
    }

    /// Counts torrents wherever they are owned. The waiter is answered at once if no other core has to be
    /// asked: this one owns the torrents, or their owners sleep.
    pub fn scrape(&self, now: Duration, info_hashes: &[InfoHash], families: FamilySet, waiter: Waiter) {
        let mut counts = self.pending.borrow_mut().spare();
        let (mut owners, mut elsewhere) = (OwnerParts::default(), 0);
        {
            let tracker = self.trackers.own();
            counts.extend(info_hashes.iter().map(|info_hash| {
                let owner = tracker.owner(info_hash);
                if !tracker.holds(info_hash) {
                    elsewhere += 1;
                    return SwarmCounts::default();
                }
                if owner == tracker.index() {
                    return tracker.scrape(info_hash, families);
                }
                owners.note(owner);
                SwarmCounts::default()
            }));
        }
        let owners = self.count_sleeping(&owners, info_hashes, families, &mut counts);
        if owners.is_empty() && elsewhere == 0 {
            waiter.respond.scraped(waiter.token, &counts);
            return self.pending.borrow_mut().recycle(counts);
        }
        let deadline = now + if elsewhere > 0 { DEADLINE } else { RESPONSE_DEADLINE };
        let forwarded = if elsewhere > 0 { self.begin_counting(now) } else { Forwarded::Nothing };
        let (asking, missing) = (Asking { waiter, forwarded }, owners.len() + elsewhere);
        let begun = self.pending.borrow_mut().begin_until(deadline, asking, counts, missing);
        let id = match begun {
            Ok(id) => id,
            Err(asking) => return self.overflow(&asking),
        };
        if let Forwarded::Scrape(asked) = forwarded
            && !self.scrape_elsewhere((id, asked, now), info_hashes, families)
        {
            return self.cancel_counting(id);
        }
        for owner in owners.iter() {
            if self.send_part(owner, id, info_hashes, families).is_err() {
                // The request has ended, so the other owners need not be asked.
                return self.cancel(id);
            }
        }
    }

    /// Counts the torrents of owners that sleep. Returns the other owners.
    fn count_sleeping(
        &self,
        owners: &OwnerParts,
        info_hashes: &[InfoHash],
        families: FamilySet,
        counts: &mut [SwarmCounts],
    ) -> OwnerParts {
        let mut awake = OwnerParts::default();
        for owner in owners.iter() {
            let counted = self.trackers.with_sleeping(owner, |tracker| {
                let positioned = counts.iter_mut().zip(info_hashes);
                for (count, info_hash) in positioned.filter(|(_, info_hash)| tracker.owns(info_hash)) {
                    *count = tracker.scrape(info_hash, families);
                }
            });
            if counted.is_none() {
                awake.note(owner);
            }
        }
        awake
    }

    /// Asks one owner for those of the torrents that it owns.
    fn send_part(
        &self,
        owner: usize,
        id: RequestId,
        info_hashes: &[InfoHash],
        families: FamilySet,
    ) -> Result<(), OutboxFull> {
        let tracker = self.trackers.own();
        self.forward.add(owner, |batch| {
            let positioned = (0_u16..).zip(info_hashes.iter().copied());
            let owned = positioned
                .filter(|(_, info_hash)| tracker.owner(info_hash) == owner && tracker.holds(info_hash));
            batch.push_scrape(id, families, owned);
        })
    }

    fn fail(&self, waiter: &Waiter, error: RouteError) {
        let counter = match error {
            RouteError::Overflow => &self.counters.overflows,
            RouteError::Timeout => &self.counters.timeouts,
        };
        counter.add(1);
        waiter.respond.failed(waiter.token, error);
    }

    fn cancel(&self, id: RequestId) {
        let cancelled = self.pending.borrow_mut().cancel(id);
        if let Some(asking) = cancelled {
            self.overflow(&asking);
        }
    }

    /// Ends a request because there is no room for it, or for what an owner is asked.
    fn overflow(&self, asking: &Asking) {
        self.end_counting(asking.forwarded);
        self.fail(&asking.waiter, RouteError::Overflow);
    }

    /// Handles a batch of another core: applies its requests, and hands its responses to those who wait.
    pub fn receive(&self, from: usize, messages: &mut Messages, now: Seconds) {
        let Messages { items, peers, torrents, counts } = messages;
        let (mut peers, mut torrents, mut counts) =
            (peers.as_slice(), torrents.as_slice(), counts.as_slice());
        for message in items.iter() {
            match *message {
                Message::Announce { id, ref announce, room } => {
                    self.apply(from, id, announce, room, now);
                }
                Message::Announced { id, announced } => {
                    let v4 = take(&mut peers, announced.v4_len);
                    let v6 = take(&mut peers, announced.v6_len);
                    let done = self.pending.borrow_mut().respond(id, []);
                    if let Some((Asking { waiter: Waiter { respond, token }, .. }, _)) = done {
                        respond.announced(token, OwnerResponse { announced, v4, v6 });
                    }
                }
                Message::Late { ref announce, age } => self.apply_late(announce, age, now),
                Message::Scrape { id, families, torrents: len } => {
                    self.count(from, id, families, take(&mut torrents, len.into()));
                }
                Message::Scraped { id, torrents: len } => {
                    let part = take(&mut counts, len.into());
                    self.take_counts(id, part.iter().copied());
                }
            }
        }
        self.forward.flush();
    }

    fn take_counts(&self, id: RequestId, part: impl Iterator<Item = (u16, SwarmCounts)>) {
        let done = self.pending.borrow_mut().respond(id, part);
        if let Some((Asking { waiter: Waiter { respond, token }, forwarded }, counts)) = done {
            self.end_counting(forwarded);
            respond.scraped(token, &counts);
            self.pending.borrow_mut().recycle(counts);
        }
    }

    /// Applies another core's announce and writes the response. If there is no room for it, the asking core
    /// runs into its deadline; that has been counted here.
    fn apply(&self, from: usize, id: RequestId, announce: &Announce, room: (u32, u32), now: Seconds) {
        let _ = self.forward.add(from, |batch| {
            batch.push_announced(id, announce, room, (&mut self.trackers.own(), now));
        });
    }

    fn count(&self, from: usize, id: RequestId, families: FamilySet, torrents: &[(u16, InfoHash)]) {
        let tracker = self.trackers.own();
        let _ = self.forward.add(from, |batch| batch.push_scraped(id, families, torrents, &tracker));
    }
}
