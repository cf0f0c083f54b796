//! What a listener does when more arrives than its core can serve: the heaviest networks get less, all others
//! what they ask for. Pure: batches, times and the state of the receive buffer in, decisions and a filter for
//! the kernel out.
//!
//! A listener is overloaded when its receive buffer overflows for some intervals in a row without being empty
//! in between: requests are lost anyway, and the question is whose. Clients that wait for their replies can
//! keep the buffer filled for as long as they like; nothing of theirs is lost, so that is no overload. From
//! then on the core charges what it receives to networks of several
//! sizes ([`LoadTable`]) and lists those that ask for more than a hundredth of its capacity. In each interval
//! it works out how much of the capacity is left once everybody else is served, and the one level that
//! divides this among the listed: networks below it are served, the others are cut down to it. The kernel
//! drops the rest by a filter, which costs the core nothing, so what waits in the receive buffer stays short.
//! Datagrams that came before the filter did are dropped unread while the buffer is too full.
//!
//! Where the rest alone is too much because it comes from thousands of networks, those that send more than a
//! rate are flagged, and the kernel drops a share of what they send, too ([`Crowd`]). Connects are next:
//! anybody can send them with any address, and a client that got no reply repeats them.

mod activity;
mod batch;
mod capacity;
mod crowd;
mod heavy;
mod silence;

use std::net::IpAddr;
use std::time::Duration;

use aquatic_common::load_table::{LEVELS, LoadTable, Loads, SourceKey, lengths};
use aquatic_common::{Family, Prefix};
use aquatic_net::udp::{BATCH, DropFilter, MAX_NETWORKS, NetworkSet, QueueState, Ranges, Share};

pub(crate) use activity::{Activity, Change, Event};
use activity::{Overload, Told};
use capacity::average;
use crowd::Crowd;
use heavy::{Heavy, heaviest, in_kernel_units, level, share_of};

/// Interval of control.
pub(crate) const INTERVAL: Duration = Duration::from_millis(10);

/// Intervals in a row, all without an empty receive buffer, in which it must overflow for an overload to
/// begin: one overflow is a burst, or a pause of the core. What is received from the first one on is charged,
/// so that it is known by then who sends most.
const OVERFLOWS: u32 = 3;

/// Work in the receive buffer that is wanted during an overload, in seconds, but at least half of
/// [`MAX_QUEUE_LEAST`].
const WANTED_QUEUE: f64 = 0.004;

/// Work in the receive buffer above which it is drained, in seconds, and least number of datagrams: what
/// comes together is served together.
const MAX_QUEUE: f64 = 0.008;
const MAX_QUEUE_LEAST: f64 = 3.0 * BATCH as f64;

/// Shares of the receive buffer's room, at most: where requests cost little, so many of them are little work
/// that the buffer would overflow before.
const WANTED_SHARE: f64 = 0.25;
const MAX_SHARE: f64 = 0.5;

/// Memory that the kernel counts for a short datagram.
pub(crate) const DATAGRAM_BYTES: f64 = 768.0;

/// Speed at which the loads of networks decay: they count for a third of a second.
const DECAY_PER_SECOND: f64 = 3.0;

/// Binary logarithm of the number of lines of the table, which is there during an overload: 256 KiB.
const TABLE_LINES_LOG2: u32 = 12;

/// Price of a datagram in the table: up to three million per second can be told apart.
const PRICE: u32 = 2048;

/// Share of the capacity above which a network is listed, and the number of datagrams that must be known of
/// it: one call can send 128 together (`UDP_SEGMENT`), which says nothing about a rate.
const LISTED_SHARE: f64 = 0.01;
const LEAST_LISTED: f64 = 128.0;

/// Bounds of the share of the capacity that is filled. It may be above 1: what passes is not exactly what was
/// to pass, and the capacity is not exactly known.
const FILLED: std::ops::RangeInclusive<f64> = 0.1..=2.5;

/// Change of that share per interval while the core waits for more than [`IDLE_SHARE`] of the time although
/// something is dropped, while the receive buffer holds too much, and while it overflows.
const FILL: f64 = 0.01;
const SPILL: f64 = 0.01;
const SPILL_LOSING: f64 = 0.05;

/// Its change otherwise, per interval and second of work that the receive buffer holds less than wanted.
const FILL_BY_QUEUE: f64 = 0.25;

/// Time in which the receive buffer is to hold what is wanted, in seconds: until then as much more or less is
/// filled. The kernel has a new filter, and its effect is measured, in a third of that.
const QUEUE_TIME: f64 = 0.2;

/// Share of the time that a core may wait during an overload.
const IDLE_SHARE: f64 = 0.02;

/// Share of the capacity that listed networks keep together, and connects, when the rest is too much.
const LEAST: f64 = 0.03;

/// What networks of each prefix length may have, the longest first, as multiples of the level.
const WEIGHTS: [f64; LEVELS] = [1.0, 2.0, 4.0];

/// Share of the capacity up to which what is asked for counts as servable, on average: clients that send
/// again when their requests are lost ask for a little more than they get, as long as anything is dropped.
const SERVABLE: f64 = 1.1;

/// Maximum of what is taken into that average, so that it falls soon after a large overload.
const MAX_LOAD: f64 = 1.5;

/// Weight of the last interval in that average: it forgets within a third of a second.
const LOAD_SMOOTHING: f64 = 0.03;

/// Time after which an overload has ended if nothing has to be dropped, or what is asked for is servable. It
/// is doubled, up to a maximum, each time another one follows within [`RETURNS_WITHIN`].
const CALM: Duration = Duration::from_millis(300);
const MAX_CALM: Duration = Duration::from_secs(10);
const RETURNS_WITHIN: Duration = Duration::from_secs(2);

/// Time without an overload after which its end is told. Until then another one is the same.
const END_TOLD_AFTER: Duration = Duration::from_secs(5);

/// Age of an overload at which it is told: by then it is known who sends most.
const TOLD_AFTER: Duration = Duration::from_millis(50);

/// Time in which the table forgets what a network that is listed by now had sent.
const SETTLED: Duration = Duration::from_millis(1500);

/// Time for which a network stays listed although it sends little.
const LISTED_FOR: Duration = Duration::from_secs(1);

/// Shortest time between two changes of the shares in the kernel; each costs it some 50 us, and with a crowd,
/// where small changes wait for longer, up to 2 ms.
const FILTER_INTERVAL: Duration = Duration::from_millis(50);
const CROWD_INTERVAL: Duration = Duration::from_millis(150);

/// Change of a share that is worth a new filter, and one that is large.
const WORTHWHILE: f64 = 0.02;
const LARGE: f64 = 0.2;

/// Weight of the last interval in averages.
const SMOOTHING: f64 = 0.3;

/// Share of what was offered lately below which senders pause: what an interval shows then is not what they
/// send when they go on.
const PAUSED: f64 = 0.7;

/// Time in which what counts as offered lately falls by the factor *e* while less is offered, and time after
/// which a pause is a change.
const OFFERED_LATELY: f64 = 0.3;
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of the factor by which rates in samples are brought up to what is offered, and the factor from
/// which on the receive buffer overflows in spite of the filter.
const SCALES: (f64, f64) = (0.25, 4.0);
const LOSING: f64 = 1.25;

/// Maximum number of networks that are considered per interval and prefix length.
const MAX_CANDIDATES: usize = 256;

/// Overload control of one listener on one core.
pub(crate) struct OverloadControl {
    family: Family,
    key: [u8; 16],
    /// Loads of all networks that are not listed, from the first overflow on, and since when.
    table: Option<LoadTable>,
    charged_since: Duration,
    heavy: Vec<Heavy>,
    ranges: Ranges,
    candidates: [Vec<(Prefix, u32)>; LEVELS],
    connects: Heavy,
    crowd: Crowd,
    /// What the networks of the crowd send together.
    flagged: Heavy,
    /// The crowd as the kernel knows it.
    known: Option<NetworkSet>,
    others: u32,
    /// Datagrams per second that were offered lately, and when senders began to pause.
    offered: f64,
    paused_since: Option<Duration>,
    /// Datagrams per second that all unlisted networks send which are not of the crowd.
    others_rate: f64,
    /// What is offered as a multiple of what is known of it.
    missed: f64,
    /// What is asked for as a share of the capacity, on average.
    load: f64,
    /// Time without need after which the overload ends, and when the last one did.
    calm: Duration,
    ended: Option<Duration>,
    /// Datagrams per second that can be served.
    capacity: f64,
    /// Share of it that is filled.
    filled: f64,
    /// Whether the last interval had anything dropped.
    is_dropping: bool,
    overload: Option<Overload>,
    told: Option<Told>,
    /// Intervals in a row in which the receive buffer overflowed, and when it did last.
    overflows: u32,
    overflowed: Duration,
    /// Whether the receive buffer holds too much, and the number of datagrams that are to be dropped unread.
    is_draining: bool,
    to_drain: u32,
    /// Whether filters can precede the queue.
    takes_filters: bool,
    /// Whether the kernel takes filters, and large ones, as far as is known since the overload began.
    has_filter: bool,
    has_large_filter: bool,
    filter_changed: Duration,
    /// Time from which on all that is received has passed the filter of now.
    filtered_from: Duration,
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
            key,
            table: None,
            charged_since: Duration::ZERO,
            heavy: Vec::with_capacity(MAX_NETWORKS),
            ranges: Ranges::default(),
            candidates: std::array::from_fn(|_| Vec::new()),
            connects: Heavy::new(everything, 1.0, 0.0, Duration::ZERO),
            crowd: Crowd::new(key),
            flagged: Heavy::new(everything, 1.0, 0.0, Duration::ZERO),
            known: None,
            others: 0,
            offered: 0.0,
            paused_since: None,
            others_rate: 0.0,
            missed: 1.0,
            load: 0.0,
            calm: CALM,
            ended: None,
            capacity: 0.0,
            filled: 1.0,
            is_dropping: false,
            overload: None,
            told: None,
            overflows: 0,
            overflowed: Duration::ZERO,
            is_draining: false,
            to_drain: 0,
            takes_filters: true,
            has_filter: true,
            has_large_filter: true,
            filter_changed: Duration::ZERO,
            filtered_from: Duration::ZERO,
            is_stale: false,
            window: 1.0 / DECAY_PER_SECOND,
            last: None,
            queue: QueueState::default(),
        }
    }

    /// The same for a queue that no filter of the kernel precedes.
    pub(crate) fn without_filter(self) -> Self {
        Self { takes_filters: false, has_filter: false, has_large_filter: false, ..self }
    }

    /// Whether the listener is overloaded.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.overload.is_some()
    }

    /// Whether [`drops`](Self::drops) has to be asked: the listener is, or may soon be, overloaded.
    #[inline]
    pub(crate) fn is_charging(&self) -> bool {
        self.table.is_some()
    }

    /// The key of a source for [`drops`](Self::drops), to be made for all datagrams of a batch first.
    #[inline]
    pub(crate) fn key(&self, source: IpAddr) -> SourceKey {
        self.table.as_ref().map_or_else(SourceKey::default, |table| table.key(source))
    }

    /// The kernel does not take filters, or only small ones: what has to be dropped is dropped by the core.
    /// Returns whether small ones are left to be tried.
    pub(crate) fn go_without_filter(&mut self) -> bool {
        let was_small = self.known.is_none();
        self.has_filter &= !was_small;
        self.has_large_filter = false;
        self.known = None;
        self.crowd.clear();
        self.is_stale = true;
        for heavy in self.heavy.iter_mut().chain([&mut self.connects, &mut self.flagged]) {
            heavy.in_kernel = 1.0;
        }
        !was_small
    }

    /// Whether a datagram is to be dropped unread.
    pub(crate) fn drops(&mut self, source: (IpAddr, SourceKey), is_connect: bool, now: Duration) -> bool {
        let drops = self.has_to_drop(source, is_connect, now);
        self.to_drain -= u32::from(drops && self.to_drain > 0);
        drops
    }

    fn has_to_drop(&mut self, source: (IpAddr, SourceKey), is_connect: bool, now: Duration) -> bool {
        let (is_draining, has_filter) = (self.to_drain > 0, self.has_filter);
        if let Some(heavy) = self.ranges.find(source.0).and_then(|at| self.heavy.get_mut(at)) {
            return heavy.drops(is_draining, has_filter);
        }
        let Some(table) = &mut self.table else { return false };
        let is_known = self.crowd.find(source.1);
        // What arrives is a sample of what is sent.
        let sampled = if is_known == Some(true) { self.flagged.passed } else { 1.0 };
        let price = (f64::from(PRICE) / sampled) as u32;
        let loads = table.add_by_key(source.1, now.as_millis() as u64, [price; LEVELS]);
        self.consider(source.0, loads, sampled);
        let rate = f64::from(loads[crowd::LEVEL]) / f64::from(PRICE) / self.window;
        // Connects give way before.
        let datagrams = if is_connect { 0.0 } else { 1.0 / sampled };
        let has_crowd = has_filter && self.has_large_filter;
        let is_flagged = has_crowd && self.crowd.observe(source, (rate, datagrams), now);
        if is_known == Some(true) {
            return self.flagged.drops(is_draining, has_filter);
        }
        if is_flagged {
            // The kernel does not know it yet. Dropped, it makes room to find out about others.
            self.flagged.seen += 1.0;
            return is_draining;
        }
        self.others = self.others.saturating_add(1);
        is_connect && self.connects.drops(is_draining, has_filter)
    }

    /// Notes the networks around a source that ask for much. What arrives is this share of what is sent.
    fn consider(&mut self, source: IpAddr, loads: Loads, sampled: f64) {
        let datagrams = (self.capacity * LISTED_SHARE * self.window).max(LEAST_LISTED / sampled);
        let enough = (datagrams * f64::from(PRICE)) as u32;
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

    /// Takes the state of the receive buffer for the one before: what has been dropped so far is no overload.
    pub(crate) fn begin_with(&mut self, queue: QueueState) {
        self.queue = queue;
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
        self.capacity = capacity::learn(self.capacity, activity, (passed, busy), self.is_active());
        let before = self.queue;
        self.queue = queue.unwrap_or(QueueState { bytes: 0, ..before });
        let dropped = self.queue.dropped.wrapping_sub(before.dropped);
        if self.overload.is_none() {
            self.count_overflows(now, dropped, activity);
            return Change { event: self.end_told(now), ..Change::default() };
        }
        self.queue.bytes =
            if activity.was_empty { 0 } else { activity.least_bytes.unwrap_or(self.queue.bytes) };
        let waiting = f64::from(self.queue.bytes) / DATAGRAM_BYTES;
        let room = f64::from(self.queue.size) / DATAGRAM_BYTES;
        let most = (self.capacity * MAX_QUEUE).max(MAX_QUEUE_LEAST).min(room * MAX_SHARE);
        let is_too_long = waiting > most;
        let grown = waiting - f64::from(before.bytes) / DATAGRAM_BYTES;
        let received = f64::from(activity.received);
        let offered = (received + f64::from(dropped) + grown).max(received / 2.0) / passed;
        let is_paused = self.is_paused(now, passed, offered);
        let others = self.measure(now, passed, offered, is_paused);
        self.list_candidates(now);
        let wanted = (self.capacity * WANTED_QUEUE).max(MAX_QUEUE_LEAST / 2.0).min(room * WANTED_SHARE);
        let lacking = (wanted - waiting) / self.capacity;
        let is_idle = busy < passed * (1.0 - IDLE_SHARE);
        let is_losing = grown > received / 4.0 || self.missed > LOSING;
        let is_known = others <= self.capacity;
        let is_idle = is_idle && !is_paused && self.is_dropping;
        let filled = self.fill(lacking, is_idle, (is_too_long, is_losing), is_known);
        let is_dropping = self.divide(now, self.capacity * filled, others);
        self.is_dropping = is_dropping;
        self.is_draining = is_too_long;
        self.to_drain = match (is_too_long, is_losing) {
            (false, _) => 0,
            // What comes next is too much as well.
            (true, true) => u32::MAX,
            (true, false) => (-lacking * self.capacity) as u32,
        };
        let load = (self.asked().min(offered) / self.capacity).min(MAX_LOAD);
        if !is_paused {
            self.load += (load - self.load) * LOAD_SMOOTHING;
        }
        let is_needed = is_dropping && self.load > SERVABLE;
        self.follow(now, is_needed, offered * passed)
    }

    /// Adjusts the share of the capacity that is filled to what the receive buffer lacks, in seconds of work,
    /// and returns what is to be filled until the next interval. That share stays while it is not known who
    /// sends too much.
    fn fill(
        &mut self,
        lacking: f64,
        is_idle: bool,
        (is_too_long, is_losing): (bool, bool),
        is_known: bool,
    ) -> f64 {
        let step = if !is_known {
            0.0
        } else if is_too_long {
            if is_losing { -SPILL_LOSING } else { -SPILL }
        } else if is_idle {
            FILL
        } else {
            lacking * FILL_BY_QUEUE
        };
        self.filled = (self.filled + step).clamp(*FILLED.start(), *FILLED.end());
        (self.filled + lacking / QUEUE_TIME).max(*FILLED.start())
    }

    /// Begins an overload if the receive buffer has overflowed for long enough. Whether it did is only known
    /// of intervals in which it was never empty.
    fn count_overflows(&mut self, now: Duration, dropped: u32, activity: Activity) {
        // A buffer that is kept filled and does not overflow is no overload either.
        let is_over = dropped == 0 && now.saturating_sub(self.overflowed) >= LISTED_FOR;
        if activity.was_empty || is_over {
            if self.is_charging() {
                self.end();
            }
            self.overflows = 0;
        } else if dropped > 0 && self.capacity > 0.0 {
            self.overflowed = now;
            self.overflows += 1;
            if !self.is_charging() {
                self.charge(now);
            }
        }
        self.follow_window(now);
        let received = f64::from(activity.received.max(1));
        let missed = (received + f64::from(dropped)) / received;
        self.missed = average(self.missed, missed.min(SCALES.1));
        if self.overflows >= OVERFLOWS {
            self.begin(now);
        }
    }

    /// Begins to charge what is received.
    fn charge(&mut self, now: Duration) {
        self.table = Some(LoadTable::new(TABLE_LINES_LOG2, self.key, DECAY_PER_SECOND));
        self.charged_since = now;
        self.crowd.begin(now);
        self.missed = 1.0;
    }

    fn begin(&mut self, now: Duration) {
        self.overload = Some(Overload { since: now, last: now, arrived: 0.0 });
        self.overflows = 0;
        // The first interval begins now, whenever charging began.
        (self.connects.seen, self.flagged.seen) = (0.0, 0.0);
        (self.is_draining, self.to_drain) = (true, u32::MAX);
        self.others = 0;
        self.others_rate = 0.0;
        self.offered = 0.0;
        self.paused_since = None;
        self.load = MAX_LOAD;
        self.is_dropping = false;
        let has_returned = self.ended.is_some_and(|ended| now.saturating_sub(ended) < RETURNS_WITHIN);
        self.calm = if has_returned { (self.calm * 2).min(MAX_CALM) } else { CALM };
        self.filled = 1.0;
        self.adapt_crowd(now, f64::INFINITY);
    }

    /// Adapts from which rate on networks of a crowd are flagged. Each of them is left this level.
    fn adapt_crowd(&mut self, now: Duration, level: f64) {
        let most = self.capacity * LISTED_SHARE;
        self.crowd.adapt(now, (level, self.capacity), (self.window, self.missed), most);
    }

    /// Seconds of traffic that the loads will stand for when the next interval ends.
    fn follow_window(&mut self, now: Duration) {
        let age = now.saturating_sub(self.charged_since) + INTERVAL;
        self.window = (1.0 - (-DECAY_PER_SECOND * age.as_secs_f64()).exp()) / DECAY_PER_SECOND;
    }

    /// Whether senders pause, so that rates of the interval say nothing. The kernel counts what it drops,
    /// too, so what is offered is exact.
    fn is_paused(&mut self, now: Duration, passed: f64, offered: f64) -> bool {
        if offered >= self.offered * PAUSED {
            self.offered = average(self.offered, offered);
            self.paused_since = None;
            return false;
        }
        self.offered *= (-passed / OFFERED_LATELY).exp();
        let begin = now.saturating_sub(Duration::from_secs_f64(passed));
        let since = *self.paused_since.get_or_insert(begin);
        now.saturating_sub(since) < MAX_PAUSE
    }

    /// Takes the rates of the interval and returns that of all unlisted networks. What is received from a
    /// full buffer is a sample of what is offered.
    fn measure(&mut self, now: Duration, passed: f64, offered: f64, is_paused: bool) -> f64 {
        let rate_of = |heavy: &mut Heavy| std::mem::take(&mut heavy.seen) / passed;
        let connects = rate_of(&mut self.connects);
        let flagged = rate_of(&mut self.flagged);
        let rates: Vec<f64> = self.heavy.iter_mut().map(rate_of).collect();
        let others = f64::from(std::mem::take(&mut self.others)) / passed;
        let sum = rates.iter().sum::<f64>() + others + flagged + connects * (1.0 - self.connects.passed);
        self.crowd.follow(now);
        if now >= self.filtered_from {
            let all = self.heavy.iter_mut().chain([&mut self.connects, &mut self.flagged]);
            all.for_each(|heavy| heavy.passed = heavy.in_kernel);
        }
        if is_paused {
            return self.others_rate;
        }
        // What is received is a sample of all that is offered, also while more passes than is received.
        let scale = if sum > 0.0 { (offered / sum).clamp(SCALES.0, SCALES.1) } else { 1.0 };
        self.missed = scale;
        self.connects.rate = average(self.connects.rate, connects * scale);
        self.flagged.rate = average(self.flagged.rate, flagged * scale);
        for (heavy, rate) in self.heavy.iter_mut().zip(rates) {
            heavy.rate = average(heavy.rate, rate * scale);
        }
        self.others_rate = average(self.others_rate, others * scale);
        others * scale
    }

    /// Datagrams per second that are asked for.
    fn asked(&self) -> f64 {
        let listed: f64 = self.heavy.iter().chain([&self.flagged]).map(|heavy| heavy.rate).sum();
        let filtered_connects = self.connects.rate * (1.0 - self.connects.passed);
        listed + self.others_rate + filtered_connects
    }

    /// Lists the candidates of the interval, the longest prefixes first: networks around them are judged by
    /// what the others in them send.
    fn list_candidates(&mut self, now: Duration) {
        let enough = self.capacity * LISTED_SHARE;
        // As they are quiet, others may take their place.
        let before = self.heavy.len();
        self.heavy.retain(|heavy| {
            heavy.share < 1.0 || heavy.rate > enough / 4.0 || now.saturating_sub(heavy.listed) < LISTED_FOR
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
                let rate = f64::from(load) / f64::from(PRICE) / self.window * self.missed;
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
    fn divide(&mut self, now: Duration, capacity: f64, others: f64) -> bool {
        let without_connects = (others - self.connects.rate * self.connects.passed).max(0.0);
        let least = capacity * LEAST;
        self.flagged.weight = self.crowd.len().max(1) as f64;
        let heavy: f64 = self.heavy.iter().chain([&self.flagged]).map(|heavy| heavy.rate).sum();
        let for_connects = (capacity - without_connects - heavy.min(least)).max(least);
        let connects = self.connects.rate.min(for_connects);
        self.connects.share = share_of(for_connects, self.connects.rate);
        let for_heavy = (capacity - without_connects - connects).max(least);
        let level = level(self.heavy.iter().chain([&self.flagged]), for_heavy);
        self.adapt_crowd(now, level);
        for heavy in self.heavy.iter_mut().chain([&mut self.flagged]) {
            heavy.share = share_of(level * heavy.weight, heavy.rate);
        }
        self.heavy.iter().chain([&self.connects, &self.flagged]).any(|heavy| heavy.share < 1.0)
    }

    /// Works out what the interval changes outside.
    fn follow(&mut self, now: Duration, is_dropping: bool, arrived: f64) -> Change {
        self.follow_window(now);
        let Some(overload) = &mut self.overload else { return Change::default() };
        let mut change = Change::default();
        if is_dropping {
            overload.last = now;
        }
        overload.arrived += arrived;
        let offered = overload.arrived / now.saturating_sub(overload.since).as_secs_f64().max(0.001);
        if now.saturating_sub(overload.last) >= self.calm {
            return self.stop(now);
        }
        match &mut self.told {
            Some(told) => told.last = now,
            None if is_dropping && now.saturating_sub(overload.since) >= TOLD_AFTER => {
                self.told = Some(Told { since: overload.since, last: now });
                let (capacity, heaviest) = (self.capacity, heaviest(&self.heavy));
                change.event = Some(Event::Began { offered, capacity, heaviest });
            }
            None => {}
        }
        change.filter = self.new_filter(now);
        change
    }

    /// Ends an overload at once, if there is one: nothing is dropped from now on.
    pub(crate) fn stop(&mut self, now: Duration) -> Change {
        let was_active = self.is_active();
        self.end();
        if !was_active {
            return Change::default();
        }
        self.ended = Some(now);
        Change { event: self.end_told(now), filter: Some(DropFilter::nothing(self.family)) }
    }

    /// The end of an overload that was told, if it is due.
    fn end_told(&mut self, now: Duration) -> Option<Event> {
        let Told { since, last } =
            self.told.filter(|told| now.saturating_sub(told.last) >= END_TOLD_AFTER)?;
        self.told = None;
        Some(Event::Ended(last.saturating_sub(since)))
    }

    fn end(&mut self) {
        self.overload = None;
        (self.is_draining, self.to_drain) = (false, 0);
        self.candidates.iter_mut().for_each(Vec::clear);
        self.heavy.clear();
        self.ranges = Ranges::default();
        self.connects = Heavy::new(self.connects.prefix, 1.0, 0.0, Duration::ZERO);
        self.flagged = self.connects.clone();
        self.crowd.clear();
        self.known = None;
        self.table = None;
        // What was refused may have been for want of memory at the time.
        (self.has_filter, self.has_large_filter) = (self.takes_filters, self.takes_filters);
    }

    /// A filter with the shares of now, if it differs enough from the one that the kernel has.
    fn new_filter(&mut self, now: Duration) -> Option<DropFilter> {
        let age = now.saturating_sub(self.filter_changed);
        let waits = self.known.is_some() && age < CROWD_INTERVAL;
        let worthwhile = if waits { LARGE } else { WORTHWHILE };
        let differs = |heavy: &Heavy| {
            (heavy.share - heavy.in_kernel).abs() > worthwhile * heavy.share.min(heavy.in_kernel)
        };
        // What waits has come before.
        let waiting = f64::from(self.queue.bytes) / DATAGRAM_BYTES / self.capacity;
        let filtered_from =
            now + Duration::try_from_secs_f64(waiting).map_or(INTERVAL, |w| w.min(FILTER_INTERVAL));
        if self.crowd.rebuild(now) {
            self.known = self.crowd.set(self.family, filtered_from);
            self.is_stale = true;
        }
        let all = || self.heavy.iter().chain([&self.connects, &self.flagged]);
        let is_needed = self.is_stale || age >= FILTER_INTERVAL && all().any(differs);
        if !self.has_filter || !is_needed {
            return None;
        }
        self.is_stale = false;
        self.filter_changed = now;
        self.filtered_from = filtered_from;
        for heavy in self.heavy.iter_mut().chain([&mut self.connects, &mut self.flagged]) {
            heavy.in_kernel = heavy.share;
        }
        let networks: Vec<(Prefix, Share)> =
            self.heavy.iter().map(|heavy| (heavy.prefix, in_kernel_units(heavy.share))).collect();
        let filter = DropFilter::new(self.family, &networks, in_kernel_units(self.connects.share));
        Some(match &self.known {
            Some(known) => filter.with_crowd(known.clone(), in_kernel_units(self.flagged.share)),
            None => filter,
        })
    }
}

#[cfg(test)]
mod tests;
