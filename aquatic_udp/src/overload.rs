//! What a listener does when more arrives than its core can serve: the heaviest networks get less, all others
//! what they ask for. Pure: batches, times and the state of the receive buffer in, decisions and a filter for
//! the kernel out.
//!
//! A listener is overloaded when its receive buffer was never empty for an interval, holds more than a few
//! milliseconds of work, and grows. From then on the core charges what it receives to networks of several
//! sizes ([`LoadTable`]) and lists those that ask for more than a hundredth of its capacity. In each interval
//! it works out how much of the capacity is left once everybody else is served, and the one level that
//! divides this among the listed: networks below it are served, the others are cut down to it. The kernel
//! drops the rest by a filter, which costs the core nothing, so what waits in the receive buffer stays short.
//! Datagrams that came before the filter did are dropped unread while the buffer is too full.
//!
//! Where the rest alone is too much, connects are next: anybody can send them with any address, and a client
//! that got no reply repeats them.

use std::net::IpAddr;
use std::time::Duration;

use aquatic_common::load_table::{LEVELS, LoadTable, Loads, lengths};
use aquatic_common::{Family, Prefix};
use aquatic_net::udp::{DropFilter, MAX_NETWORKS, QueueState, Ranges, Share};

/// Interval of control.
pub(crate) const INTERVAL: Duration = Duration::from_millis(10);

/// Work in the receive buffer above which a listener is overloaded.
const MAX_QUEUE: f64 = 0.005;

/// Memory that the kernel counts for a short datagram.
const DATAGRAM_BYTES: f64 = 768.0;

/// Speed at which the loads of networks decay: they count for a tenth of a second.
const DECAY_PER_SECOND: f64 = 10.0;

/// Binary logarithm of the number of lines of the table: 64 KiB.
const TABLE_LINES_LOG2: u32 = 10;

/// Price of a datagram in the table: up to ten million per second can be told apart.
const PRICE: u32 = 4096;

/// Share of the capacity above which a network is listed.
const LISTED_SHARE: f64 = 0.01;

/// Bounds of the share of the capacity that is filled. It may be above 1: what passes is not exactly what was
/// to pass.
const FILLED: std::ops::RangeInclusive<f64> = 0.3..=1.2;

/// Change of that share per interval: up while the core waits for more than [`IDLE_SHARE`] of the time, down
/// while the receive buffer is never empty, and down faster while it holds too much.
const FILL: f64 = 0.01;
const SPILL: f64 = 0.002;
const SPILL_FAST: f64 = 0.03;

/// Share of the time that a core may wait during an overload.
const IDLE_SHARE: f64 = 0.02;

/// Share of the capacity that listed networks keep together, and connects, when the rest is too much.
const LEAST: f64 = 0.03;

/// Least share of a network's or of all connects' datagrams that passes: a measure of the rest.
const LEAST_SHARE: f64 = 0.002;

/// What networks of each prefix length may have, the longest first, as multiples of the level.
const WEIGHTS: [f64; LEVELS] = [1.0, 2.0, 4.0];

/// Time without anything to drop after which an overload has ended.
const CALM: Duration = Duration::from_secs(1);

/// Age of an overload at which it is told: by then it is known who sends most.
const TOLD_AFTER: Duration = Duration::from_millis(50);

/// Time in which the table forgets what a network that is listed by now had sent.
const SETTLED: Duration = Duration::from_millis(500);

/// Shortest time between two changes of the shares in the kernel; each costs it some 50 us.
const FILTER_INTERVAL: Duration = Duration::from_millis(50);

/// Change of a share that is worth a new filter.
const WORTHWHILE: f64 = 0.02;

/// Weight of the last interval in averages.
const SMOOTHING: f64 = 0.3;

/// Maximum number of networks that are considered per interval and prefix length.
const MAX_CANDIDATES: usize = 256;

/// What a listener has done since the last interval.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Activity {
    /// Datagrams received.
    pub(crate) received: u32,
    /// Of these, dropped unread.
    pub(crate) shed: u32,
    /// Time spent waiting for datagrams.
    pub(crate) idle: Duration,
    /// Whether the receive buffer was empty at some time.
    pub(crate) was_empty: bool,
}

/// What is told about an overload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// It has begun.
    Began {
        /// Datagrams per second that arrive.
        offered: f64,
        /// Datagrams per second that can be served.
        capacity: f64,
        /// The heaviest network that may be named, and the datagrams per second it sends; `None` if none
        /// stands out.
        heaviest: Option<(Prefix, f64)>,
    },
    /// It has ended after this time.
    Ended(Duration),
}

/// What follows from an interval.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// The filter that the kernel should have from now on.
    pub(crate) filter: Option<DropFilter>,
    /// What has to be told.
    pub(crate) event: Option<Event>,
}

/// A network that asks for much.
#[derive(Clone, Debug)]
struct Heavy {
    prefix: Prefix,
    weight: f64,
    /// Datagrams per second that it sends, as far as is known.
    rate: f64,
    /// Datagrams received since the last interval.
    seen: u32,
    /// Share that is to pass, and the one that the kernel lets pass.
    share: f64,
    in_kernel: f64,
    /// Fraction of a datagram that may pass where this core drops by itself.
    credit: f64,
    listed: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Overload {
    since: Duration,
    /// When something had to be dropped last.
    last: Duration,
    /// Datagrams that have arrived since the beginning.
    arrived: f64,
    is_told: bool,
}

/// Overload control of one listener on one core.
pub(crate) struct OverloadControl {
    family: Family,
    table: LoadTable,
    heavy: Vec<Heavy>,
    ranges: Ranges,
    candidates: [Vec<(Prefix, u32)>; LEVELS],
    connects: Heavy,
    others: u32,
    /// Datagrams per second that can be served.
    capacity: f64,
    /// Share of it that is filled.
    filled: f64,
    overload: Option<Overload>,
    /// Whether the receive buffer holds too much.
    is_draining: bool,
    /// Whether the kernel takes filters.
    has_filter: bool,
    filter_changed: Duration,
    is_stale: bool,
    /// Seconds of traffic that the loads of the table stand for.
    window: f64,
    last: Option<Duration>,
    queue: QueueState,
}

impl OverloadControl {
    /// Control of a listener whose clients are of this family. The key must not be known to clients.
    pub(crate) fn new(family: Family, key: [u8; 16]) -> Self {
        let everything = Prefix::of(IpAddr::from([0, 0, 0, 0]), 0);
        Self {
            family,
            table: LoadTable::new(TABLE_LINES_LOG2, key, DECAY_PER_SECOND),
            heavy: Vec::with_capacity(MAX_NETWORKS),
            ranges: Ranges::default(),
            candidates: std::array::from_fn(|_| Vec::new()),
            connects: Heavy::new(everything, 1.0, 0.0, Duration::ZERO),
            others: 0,
            capacity: 0.0,
            filled: 1.0,
            overload: None,
            is_draining: false,
            has_filter: true,
            filter_changed: Duration::ZERO,
            is_stale: false,
            window: 1.0 / DECAY_PER_SECOND,
            last: None,
            queue: QueueState::default(),
        }
    }

    /// Whether the listener is overloaded, so that [`drops`](Self::drops) has to be asked.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.overload.is_some()
    }

    /// Whether the next interval is due.
    #[inline]
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.last.is_none_or(|last| now.saturating_sub(last) >= INTERVAL)
    }

    /// The kernel does not take filters: what has to be dropped is dropped by the core.
    pub(crate) fn go_without_filter(&mut self) {
        self.has_filter = false;
    }

    /// Whether a datagram is to be dropped unread.
    pub(crate) fn drops(&mut self, source: IpAddr, is_connect: bool, now: Duration) -> bool {
        let (is_draining, has_filter) = (self.is_draining, self.has_filter);
        if let Some(heavy) = self.ranges.find(source).and_then(|at| self.heavy.get_mut(at)) {
            return heavy.drops(is_draining, has_filter);
        }
        self.others = self.others.saturating_add(1);
        let loads = self.table.add(source, now.as_millis() as u64, [PRICE; LEVELS]);
        self.consider(source, loads);
        is_connect && self.connects.drops(is_draining, has_filter)
    }

    /// Notes the networks around a source that ask for much.
    fn consider(&mut self, source: IpAddr, loads: Loads) {
        let enough = (self.capacity * LISTED_SHARE * self.window * f64::from(PRICE)) as u32;
        for ((length, load), candidates) in lengths(source).into_iter().zip(loads).zip(&mut self.candidates) {
            if load < enough {
                continue;
            }
            let prefix = Prefix::of(source, length);
            let has_room = candidates.len() < MAX_CANDIDATES;
            match candidates.iter_mut().find(|(known, _)| *known == prefix) {
                Some((_, known)) => *known = load,
                None if has_room => candidates.push((prefix, load)),
                None => {}
            }
        }
    }

    /// Ends an interval. `queue` is the state of the receive buffer; it is needed unless that was empty.
    pub(crate) fn interval(
        &mut self,
        now: Duration,
        activity: Activity,
        queue: Option<QueueState>,
    ) -> Change {
        let Some(last) = self.last.replace(now) else { return Change::default() };
        let passed = now.saturating_sub(last).as_secs_f64();
        let busy = (passed - activity.idle.as_secs_f64()).max(0.0);
        self.learn_capacity(activity, passed, busy);
        let before = self.queue;
        self.queue = queue.unwrap_or(QueueState { bytes: 0, ..before });
        let dropped = self.queue.dropped.wrapping_sub(before.dropped);
        let waiting = f64::from(self.queue.bytes) / DATAGRAM_BYTES;
        let is_too_long = !activity.was_empty && waiting > self.capacity * MAX_QUEUE;
        if self.overload.is_none() {
            let is_growing = dropped > 0 || self.queue.bytes >= before.bytes;
            if is_too_long && is_growing && self.capacity > 0.0 {
                self.begin(now);
            }
            return Change::default();
        }
        let grown = (f64::from(self.queue.bytes) - f64::from(before.bytes)) / DATAGRAM_BYTES;
        let received = f64::from(activity.received);
        let offered = (received + f64::from(dropped) + grown).max(received / 2.0) / passed;
        let missed = if self.is_draining { offered * passed / received.max(1.0) } else { 1.0 };
        let others = self.measure(passed, offered);
        self.list_candidates(now, missed);
        let step = match (activity.was_empty, is_too_long) {
            (true, _) if busy < passed * (1.0 - IDLE_SHARE) => FILL,
            (true, _) => 0.0,
            (false, false) => -SPILL,
            (false, true) => -SPILL_FAST,
        };
        self.filled = (self.filled + step).clamp(*FILLED.start(), *FILLED.end());
        let is_dropping = self.divide(self.capacity * self.filled, others);
        self.is_draining = is_too_long;
        self.follow(now, is_dropping || is_too_long, offered * passed)
    }

    fn begin(&mut self, now: Duration) {
        self.overload = Some(Overload { since: now, last: now, arrived: 0.0, is_told: false });
        self.is_draining = true;
        self.others = 0;
        self.window = INTERVAL.as_secs_f64();
        self.filled = 1.0;
    }

    /// Learns from intervals in which the core was busy with full batches: smaller ones take more time for
    /// each datagram, and what is dropped unread takes less.
    fn learn_capacity(&mut self, activity: Activity, passed: f64, busy: f64) {
        let is_full = !activity.was_empty || self.overload.is_none() && busy > passed * 0.9;
        if is_full && activity.shed == 0 && busy > 0.0 {
            let rate = f64::from(activity.received) / busy;
            self.capacity = if self.capacity > 0.0 { average(self.capacity, rate) } else { rate };
        }
    }

    /// Takes the rates of the interval and returns that of all unlisted networks. What is received from a
    /// full buffer is a sample of what is offered.
    fn measure(&mut self, passed: f64, offered: f64) -> f64 {
        let has_filter = self.has_filter;
        let others = f64::from(std::mem::take(&mut self.others)) / passed;
        let rate_of = |heavy: &mut Heavy| {
            let share = if has_filter { heavy.in_kernel } else { 1.0 };
            f64::from(std::mem::take(&mut heavy.seen)) / share / passed
        };
        let connects = rate_of(&mut self.connects);
        let rates: Vec<f64> = self.heavy.iter_mut().map(rate_of).collect();
        let sum = rates.iter().sum::<f64>() + others;
        let scale = if self.is_draining && sum > 0.0 { offered / sum } else { 1.0 };
        self.connects.rate = average(self.connects.rate, connects * scale);
        for (heavy, rate) in self.heavy.iter_mut().zip(rates) {
            heavy.rate = average(heavy.rate, rate * scale);
        }
        others * scale
    }

    /// Lists the candidates of the interval, the longest prefixes first: networks around them are judged by
    /// what the others in them send. `missed` is what is offered as a multiple of what was received.
    fn list_candidates(&mut self, now: Duration, missed: f64) {
        let enough = self.capacity * LISTED_SHARE;
        // As they are quiet, others may take their place.
        let before = self.heavy.len();
        self.heavy.retain(|heavy| {
            heavy.share < 1.0 || heavy.rate > enough / 4.0 || now.saturating_sub(heavy.listed) < CALM
        });
        let mut is_changed = before != self.heavy.len();
        for (level, weight) in WEIGHTS.into_iter().enumerate() {
            let mut candidates = std::mem::take(&mut self.candidates[level]);
            candidates.sort_unstable_by_key(|&(_, load)| std::cmp::Reverse(load));
            for (prefix, load) in candidates.drain(..) {
                let inner: Vec<&Heavy> =
                    self.heavy.iter().filter(|heavy| prefix.includes(&heavy.prefix)).collect();
                let is_settled = |heavy: &&Heavy| now.saturating_sub(heavy.listed) >= SETTLED;
                if self.heavy.len() >= MAX_NETWORKS || !inner.iter().all(is_settled) {
                    continue;
                }
                let rate = f64::from(load) / f64::from(PRICE) / self.window * missed;
                self.heavy.push(Heavy::new(prefix, weight, rate, now));
                is_changed = true;
            }
            self.candidates[level] = candidates;
        }
        if is_changed {
            self.ranges = Ranges::new(self.heavy.iter().map(|heavy| heavy.prefix));
            self.is_stale = true;
        }
    }

    /// Divides the capacity: sets the shares of networks and connects. Returns whether anything is dropped.
    fn divide(&mut self, capacity: f64, others: f64) -> bool {
        let connects_seen = self.connects.rate * if self.has_filter { self.connects.in_kernel } else { 1.0 };
        let without_connects = (others - connects_seen).max(0.0);
        let least = capacity * LEAST;
        let heavy: f64 = self.heavy.iter().map(|heavy| heavy.rate).sum();
        let for_connects = (capacity - without_connects - heavy.min(least)).max(least);
        let connects = self.connects.rate.min(for_connects);
        self.connects.share = share_of(for_connects, self.connects.rate);
        let for_heavy = (capacity - without_connects - connects).max(least);
        let level = level(&self.heavy, for_heavy);
        for heavy in &mut self.heavy {
            heavy.share = share_of(level * heavy.weight, heavy.rate);
        }
        self.heavy.iter().chain([&self.connects]).any(|heavy| heavy.share < 1.0)
    }

    /// Works out what the interval changes outside.
    fn follow(&mut self, now: Duration, is_dropping: bool, arrived: f64) -> Change {
        let Some(overload) = &mut self.overload else { return Change::default() };
        let mut change = Change::default();
        if is_dropping {
            overload.last = now;
        }
        overload.arrived += arrived;
        let offered = overload.arrived / now.saturating_sub(overload.since).as_secs_f64().max(0.001);
        let age = now.saturating_sub(overload.since) + INTERVAL;
        self.window = (1.0 - (-DECAY_PER_SECOND * age.as_secs_f64()).exp()) / DECAY_PER_SECOND;
        if now.saturating_sub(overload.last) >= CALM {
            return self.stop(now);
        }
        if !overload.is_told && is_dropping && now.saturating_sub(overload.since) >= TOLD_AFTER {
            overload.is_told = true;
            let (capacity, heaviest) = (self.capacity, heaviest(&self.heavy));
            change.event = Some(Event::Began { offered, capacity, heaviest });
        }
        change.filter = self.new_filter(now);
        change
    }

    /// Ends an overload at once, if there is one: nothing is dropped from now on.
    pub(crate) fn stop(&mut self, now: Duration) -> Change {
        let Some(overload) = self.overload else { return Change::default() };
        self.end();
        Change {
            event: overload.is_told.then(|| Event::Ended(now.saturating_sub(overload.since))),
            filter: Some(DropFilter::new(self.family, &[], Share::MAX)),
        }
    }

    fn end(&mut self) {
        self.overload = None;
        self.is_draining = false;
        self.heavy.clear();
        self.ranges = Ranges::default();
        self.connects = Heavy::new(self.connects.prefix, 1.0, 0.0, Duration::ZERO);
    }

    /// A filter with the shares of now, if it differs enough from the one that the kernel has.
    fn new_filter(&mut self, now: Duration) -> Option<DropFilter> {
        let is_due = now.saturating_sub(self.filter_changed) >= FILTER_INTERVAL;
        let differs = |heavy: &Heavy| {
            (heavy.share - heavy.in_kernel).abs() > WORTHWHILE * heavy.share.min(heavy.in_kernel)
        };
        let is_needed = self.is_stale || is_due && self.heavy.iter().chain([&self.connects]).any(differs);
        if !self.has_filter || !is_needed {
            return None;
        }
        self.is_stale = false;
        self.filter_changed = now;
        for heavy in self.heavy.iter_mut().chain([&mut self.connects]) {
            heavy.in_kernel = heavy.share;
        }
        let networks: Vec<(Prefix, Share)> =
            self.heavy.iter().map(|heavy| (heavy.prefix, in_kernel_units(heavy.share))).collect();
        Some(DropFilter::new(self.family, &networks, in_kernel_units(self.connects.share)))
    }
}

impl Heavy {
    fn new(prefix: Prefix, weight: f64, rate: f64, listed: Duration) -> Self {
        Self { prefix, weight, rate, seen: 0, share: 1.0, in_kernel: 1.0, credit: 0.0, listed }
    }

    fn drops(&mut self, is_draining: bool, has_filter: bool) -> bool {
        self.seen = self.seen.saturating_add(1);
        if self.share >= 1.0 {
            return false;
        }
        if is_draining || has_filter {
            return is_draining;
        }
        self.credit += self.share;
        let passes = self.credit >= 1.0;
        if passes {
            self.credit -= 1.0;
        }
        !passes
    }
}

/// The heaviest network among those that logs may name, and the datagrams per second it sends.
fn heaviest(heavy: &[Heavy]) -> Option<(Prefix, f64)> {
    let of = |shown: Prefix| heavy.iter().filter(move |heavy| shown.includes(&heavy.prefix));
    let shown = heavy.iter().map(|heavy| heavy.prefix.shown());
    let sums = shown.map(|shown| (shown, of(shown).map(|heavy| heavy.rate).sum::<f64>()));
    sums.max_by(|(_, a), (_, b)| a.total_cmp(b))
}

/// The level at which networks that are cut down to it, times their weights, ask for this much together.
fn level(heavy: &[Heavy], available: f64) -> f64 {
    let mut left: Vec<&Heavy> = heavy.iter().collect();
    // The first that is above the level stays above it, and so do all behind it.
    left.sort_unstable_by(|a, b| (a.rate / a.weight).total_cmp(&(b.rate / b.weight)));
    let mut weights: f64 = left.iter().map(|heavy| heavy.weight).sum();
    let mut available = available;
    for heavy in left {
        let level = available / weights;
        if heavy.rate > level * heavy.weight {
            return level;
        }
        available -= heavy.rate;
        weights -= heavy.weight;
    }
    f64::INFINITY
}

fn share_of(allowed: f64, rate: f64) -> f64 {
    if rate <= allowed { 1.0 } else { (allowed / rate).max(LEAST_SHARE) }
}

fn in_kernel_units(share: f64) -> Share {
    if share >= 1.0 { Share::MAX } else { (share * f64::from(Share::MAX)) as Share }
}

fn average(before: f64, now: f64) -> f64 {
    before + (now - before) * SMOOTHING
}

#[cfg(test)]
mod tests;
