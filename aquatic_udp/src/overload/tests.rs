//! Overload control over a simulated core, receive buffer and kernel.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};

use aquatic_net::udp::BATCH;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// A quarter of the speed of a usual core, to spare the tests time. Seconds that a datagram takes the core:
/// served, dropped unread; and a batch beside that.
const SERVED: f64 = 18e-6;
const DROPPED: f64 = 1.6e-6;
const BATCH_COST: f64 = 32e-6;

/// Datagrams per second that the core can serve.
const CAPACITY: f64 = 1.0 / (SERVED + BATCH_COST / BATCH as f64);

/// Memory of the receive buffer: a quarter of what the kernel makes of the default.
const BUFFER_BYTES: usize = 1_000_000;

/// Datagrams per second of a client that is polite.
const POLITE_RATE: f64 = 20.0;

/// Seconds after which clients that wait for a reply send again.
const TIMEOUT: f64 = 0.25;

/// Memory that the kernel counts for a datagram.
const DATAGRAM: usize = 768;

/// Datagrams that a queue of the interface has room for, at half of the speed of a usual core.
const QUEUE: u32 = 1024;

struct Source {
    ip: IpAddr,
    rate: f64,
    connects: bool,
    /// The share of what it sends that passes the filter with this number.
    share: (u64, Share),
    /// What it sent, what was served, and the times until then.
    sent: u32,
    served: u32,
    delays: Vec<f64>,
}

struct Simulation {
    family: Family,
    control: OverloadControl,
    filter: Option<DropFilter>,
    takes_filters: bool,
    sources: Vec<Source>,
    /// Sources that send for some seconds and then pause for some.
    pausing: std::ops::Range<usize>,
    pauses: (f64, f64),
    /// Memory of the receive buffer, and seconds that it takes to drop a datagram.
    room: usize,
    drop_time: f64,
    /// Datagrams that a source sends together.
    burst: u32,
    queue: VecDeque<(usize, f64)>,
    /// Datagrams that the kernel hands out without a lock: it takes all that wait when it has none left.
    taken: usize,
    /// Memory of datagrams that were received, which the kernel has not given back yet.
    deficit: usize,
    /// How many times longer than usual everything takes the core.
    slowness: f64,
    now: f64,
    /// Nanoseconds at which sources send next.
    arrivals: BinaryHeap<Reverse<(u64, usize)>>,
    filters: u64,
    /// Nanoseconds at which clients in a closed loop send next, and the first of their sources.
    closed: BinaryHeap<Reverse<u64>>,
    closed_sources: usize,
    dropped: u32,
    activity: Activity,
    events: Vec<Event>,
    rng: SmallRng,
}

/// The address of a source: for IPv6 one whose networks hold the same sources as those of an IPv4 address.
fn address(family: Family, v4: u32) -> IpAddr {
    let [half, quarter, last] = [v4 >> 12, v4 >> 8 & 15, v4 & 255].map(u128::from);
    match family {
        Family::V4 => Ipv4Addr::from_bits(v4).into(),
        Family::V6 => Ipv6Addr::from_bits(0x2001 << 112 | half << 80 | quarter << 72 | last << 64).into(),
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self::of(Family::V4, seed)
    }

    fn of(family: Family, seed: u64) -> Self {
        Self {
            family,
            control: OverloadControl::new(family, [seed as u8; 16]),
            filter: None,
            takes_filters: true,
            sources: Vec::new(),
            pausing: 0..0,
            pauses: (1.0, 0.0),
            room: BUFFER_BYTES,
            drop_time: DROPPED,
            burst: 1,
            queue: VecDeque::new(),
            taken: 0,
            deficit: 0,
            slowness: 1.0,
            now: 1.0,
            arrivals: BinaryHeap::new(),
            filters: 0,
            closed: BinaryHeap::new(),
            closed_sources: usize::MAX,
            dropped: 0,
            activity: Activity::default(),
            events: Vec::new(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Adds sources with consecutive addresses; returns their positions.
    fn add(&mut self, first: &str, count: u32, rate: f64, connects: bool) -> std::ops::Range<usize> {
        let first: Ipv4Addr = first.parse().unwrap();
        let start = self.sources.len();
        for number in 0..count {
            let ip = address(self.family, first.to_bits() + number);
            let (sent, served, delays) = (0, 0, Vec::new());
            if rate > 0.0 {
                let burst = if rate > POLITE_RATE { self.burst } else { 1 };
                let first = self.now + self.rng.random::<f64>() * f64::from(burst) / rate;
                self.arrivals.push(Reverse(((first * 1e9) as u64, self.sources.len())));
            }
            let share = (u64::MAX, Share::MAX);
            self.sources.push(Source { ip, rate, connects, share, sent, served, delays });
        }
        start..self.sources.len()
    }

    /// 20 polite clients in networks of their own.
    fn add_polite(&mut self) -> std::ops::Range<usize> {
        let start = self.sources.len();
        for number in 0..20 {
            self.add(&format!("10.{number}.0.1"), 1, POLITE_RATE, false);
        }
        start..self.sources.len()
    }

    /// Sources in networks of their own (/20), which send so much together.
    fn add_crowd(&mut self, count: u32, rate: f64) {
        for number in 0..count {
            let first = Ipv4Addr::from_bits(0xAC00_0000 + (number << 12)).to_string();
            self.add(&first, 1, rate / f64::from(count), false);
        }
    }

    fn arrive(&mut self) {
        while let Some(&Reverse(time)) = self.closed.peek()
            && time as f64 <= self.now * 1e9
        {
            self.closed.pop();
            let at = self.closed_sources + self.rng.random_range(0..4);
            self.send(at, time);
        }
        while let Some(&Reverse((time, at))) = self.arrivals.peek()
            && time as f64 <= self.now * 1e9
        {
            self.arrivals.pop();
            let source = &mut self.sources[at];
            if source.rate == 0.0 {
                continue;
            }
            let (sends, pauses) = self.pauses;
            let phase = (time as f64 / 1e9) % (sends + pauses);
            if self.pausing.contains(&at) && phase > sends {
                let jitter = self.rng.random::<f64>() / source.rate;
                let next = time + ((sends + pauses - phase + jitter) * 1e9) as u64;
                self.arrivals.push(Reverse((next, at)));
                continue;
            }
            let burst = if source.rate > POLITE_RATE { self.burst } else { 1 };
            source.sent += burst;
            let gap = (0.5 + self.rng.random::<f64>()) * f64::from(burst) / source.rate;
            self.arrivals.push(Reverse((time + (gap * 1e9) as u64, at)));
            (0..burst).for_each(|_| self.send(at, time));
        }
    }

    /// Lets a datagram arrive: it passes the filter and finds room, or is dropped.
    fn send(&mut self, at: usize, time: u64) {
        let source = &mut self.sources[at];
        if source.share.0 != self.filters {
            let share = self.filter.as_ref().map(|filter| filter.share(source.ip, source.connects));
            source.share = (self.filters, share.unwrap_or(Share::MAX));
        }
        let share = source.share.1;
        let passes = share == Share::MAX || self.rng.random::<u32>() < share;
        if passes && self.memory() < self.room {
            self.queue.push_back((at, time as f64 / 1e9));
        } else {
            self.dropped += 1;
            self.finish(at, TIMEOUT);
        }
    }

    /// Has a client in a closed loop send again, after a timeout if its request was lost.
    fn finish(&mut self, at: usize, timeout: f64) {
        if at >= self.closed_sources {
            self.closed.push(Reverse(((self.now + timeout) * 1e9) as u64));
        }
    }

    /// Memory that the kernel counts.
    fn memory(&self) -> usize {
        self.queue.len() * DATAGRAM + self.deficit
    }

    /// Takes a datagram out of the receive buffer, as the kernel does it.
    fn receive(&mut self) -> (usize, f64) {
        if self.taken == 0 {
            self.taken = self.queue.len();
        }
        self.taken -= 1;
        self.deficit += DATAGRAM;
        if self.taken == 0 || self.deficit >= BUFFER_BYTES / 4 {
            self.deficit = 0;
        }
        self.queue.pop_front().unwrap()
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.now)
    }

    /// Receives and serves a batch, or waits.
    fn step(&mut self) {
        self.arrive();
        if self.queue.is_empty() {
            self.now += 20e-6;
            self.activity.was_empty = true;
            self.activity.idle += Duration::from_micros(20);
            return;
        }
        let count = self.queue.len().min(BATCH);
        let time = self.time();
        self.activity.was_empty |= count < BATCH;
        self.activity.received += count as u32;
        self.now += BATCH_COST * self.slowness;
        for _ in 0..count {
            let (at, arrived) = self.receive();
            let source = &mut self.sources[at];
            let is_charging = self.control.is_charging();
            let key = (source.ip, self.control.key(source.ip));
            if is_charging && self.control.drops(key, source.connects, time) {
                self.activity.shed += 1;
                self.now += self.drop_time * self.slowness;
                self.finish(at, TIMEOUT);
            } else {
                self.now += SERVED * self.slowness;
                source.served += 1;
                source.delays.push(self.now - arrived);
                self.finish(at, 0.0);
            }
        }
        let queue = QueueState { bytes: self.memory() as u32, size: self.room as u32, dropped: self.dropped };
        if self.control.is_active() {
            self.activity.observe(queue);
        }
        if self.control.is_due(time, &self.activity) {
            let activity = std::mem::take(&mut self.activity);
            let change = self.control.interval(time, activity, Some(queue));
            self.events.extend(change.event);
            match change.filter {
                Some(_) if !self.takes_filters => {
                    self.control.go_without_filter();
                }
                Some(filter) => {
                    self.filters += 1;
                    self.filter = Some(filter);
                }
                None => {}
            }
        }
    }

    fn run(&mut self, seconds: f64) {
        let until = self.now + seconds;
        while self.now < until {
            self.step();
        }
    }

    fn forget(&mut self) {
        for source in &mut self.sources {
            (source.sent, source.served) = (0, 0);
            source.delays.clear();
        }
    }

    /// Served per second, as a share of the capacity.
    fn goodput(&self, seconds: f64) -> f64 {
        let served = self.sources.iter().map(|source| f64::from(source.served)).sum::<f64>();
        served / seconds / CAPACITY * self.slowness
    }

    /// The share of requests that some sources lost, and the 99th percentile of their delays.
    fn fate(&self, sources: std::ops::Range<usize>) -> (f64, f64) {
        let sources = &self.sources[sources];
        let sent: u32 = sources.iter().map(|source| source.sent).sum();
        let served: u32 = sources.iter().map(|source| source.served).sum();
        let mut delays: Vec<f64> = sources.iter().flat_map(|source| source.delays.iter().copied()).collect();
        delays.sort_by(f64::total_cmp);
        (1.0 - f64::from(served) / f64::from(sent), delays[delays.len() * 99 / 100])
    }

    /// Runs into the flood and through it for two seconds; asserts that those who are polite are served.
    fn flood(&mut self, polite: std::ops::Range<usize>, least_goodput: f64) {
        self.run(1.0);
        self.forget();
        self.run(2.0);
        let (goodput, (lost, p99)) = (self.goodput(2.0), self.fate(polite));
        assert!(goodput >= least_goodput, "goodput {goodput:.3}, lost {lost:.4}, p99 {p99:.4}");
        assert!(lost < 0.01 && p99 < 0.016, "lost {lost:.4}, p99 {p99:.4}");
    }
}

#[test]
fn a_few_addresses_cannot_crowd_out_others() {
    for (seed, factor, family) in [
        (1, 1.5, Family::V4),
        (2, 2.0, Family::V6),
        (3, 5.0, Family::V4),
        (4, 5.0, Family::V6),
        (5, 10.0, Family::V4),
    ] {
        let mut simulation = Simulation::of(family, seed);
        let polite = simulation.add_polite();
        simulation.add("192.0.2.0", 16, CAPACITY * factor / 16.0, false);
        simulation.flood(polite, 0.97);
        let Some(Event::Began { offered, capacity, heaviest }) = &simulation.events.first() else {
            panic!("{:?}", simulation.events)
        };
        assert!((capacity / CAPACITY - 1.0).abs() < 0.1, "{capacity}");
        assert!((offered / CAPACITY / factor - 1.0).abs() < 0.3, "{factor} {offered}");
        let (prefix, rate) = heaviest.unwrap();
        let length = if family == Family::V4 { 24 } else { 48 };
        assert_eq!(prefix, Prefix::of(address(family, 0xC000_0200), length));
        assert!((rate / CAPACITY / factor - 1.0).abs() < 0.4, "{factor} {rate}");
    }
}

#[test]
fn floods_that_pause_cannot_crowd_out_others() {
    for (seed, sends, pauses) in [(1, 0.03, 0.02), (2, 0.05, 0.05), (3, 0.012, 0.008)] {
        let mut simulation = Simulation::new(seed);
        let polite = simulation.add_polite();
        simulation.pausing = simulation.add("192.0.2.0", 16, CAPACITY * 5.0 / 16.0, false);
        simulation.pauses = (sends, pauses);
        simulation.flood(polite, 0.95 * sends / (sends + pauses));
    }
}

#[test]
fn many_light_addresses_of_one_network_cannot_either() {
    for (seed, factor, family) in [(1, 1.5, Family::V4), (2, 5.0, Family::V4), (3, 5.0, Family::V6)] {
        let mut simulation = Simulation::of(family, seed);
        let polite = simulation.add_polite();
        simulation.add("192.0.0.0", 4096, CAPACITY * factor / 4096.0, false);
        simulation.flood(polite, 0.97);
    }
}

#[test]
fn networks_below_the_level_are_not_touched() {
    let mut simulation = Simulation::new(1);
    simulation.add("192.0.2.7", 1, CAPACITY * 3.0, false);
    let busy = simulation.add("198.51.100.7", 1, CAPACITY * 0.2, false);
    simulation.run(1.0);
    simulation.forget();
    simulation.run(2.0);
    let (lost, _) = simulation.fate(busy);
    assert!(lost < 0.01, "{lost}");
}

#[test]
fn without_filters_the_core_drops_by_itself() {
    let mut simulation = Simulation::new(1);
    simulation.takes_filters = false;
    let polite = simulation.add_polite();
    simulation.add("192.0.2.0", 16, CAPACITY * 3.0 / 16.0, false);
    simulation.flood(polite, 0.6);
    assert_eq!(simulation.filter, None);
}

/// A simulation of a queue of the interface: it is short, no filter precedes it, and dropping is cheap.
fn queue(seed: u64) -> Simulation {
    let mut simulation = Simulation::new(seed);
    let control = OverloadControl::new(Family::V4, [seed as u8; 16]).without_filter();
    simulation.control = control;
    simulation.slowness = 0.25;
    simulation.room = QUEUE as usize * DATAGRAM;
    simulation.drop_time = DROPPED * 0.5;
    simulation
}

#[test]
fn a_short_queue_without_a_filter_serves_those_who_are_polite() {
    for (seed, factor) in [(1, 1.5), (2, 4.0)] {
        let mut simulation = queue(seed);
        let polite = simulation.add_polite();
        simulation.add("192.0.2.0", 16, CAPACITY / simulation.slowness * factor / 16.0, false);
        simulation.run(0.7);
        simulation.forget();
        simulation.run(1.0);
        let (goodput, (lost, p99)) = (simulation.goodput(1.0), simulation.fate(polite));
        assert!(goodput > 1.0 - 0.08 * factor, "goodput {goodput:.3}, lost {lost:.4}, p99 {p99:.4}");
        assert!(lost < 0.02 && p99 < 0.01, "{factor}: goodput {goodput:.3}, lost {lost:.4}, p99 {p99:.4}");
        assert_eq!(simulation.filter, None);
    }
}

#[test]
fn a_short_queue_that_is_kept_filled_is_no_overload() {
    let mut simulation = queue(1);
    let goodput = closed_loop(&mut simulation, 512, 1.0);
    assert!(!simulation.control.is_active() && simulation.events.is_empty(), "{goodput}");
    assert!(goodput > 0.99, "{goodput}");
}

#[test]
fn connects_from_everywhere_give_way_to_announces() {
    let mut simulation = Simulation::new(1);
    for number in 0..200 {
        simulation.add(&format!("172.{number}.0.1"), 8, CAPACITY * 5.0 / 1600.0, true);
    }
    let polite = simulation.add_polite();
    simulation.flood(polite, 0.97);
}

#[test]
fn nothing_is_dropped_below_the_capacity() {
    let mut simulation = Simulation::new(1);
    simulation.add("192.0.2.0", 16, CAPACITY * 0.9 / 16.0, false);
    simulation.run(3.0);
    assert_eq!((simulation.dropped, simulation.filter.clone()), (0, None));
    assert!(!simulation.control.is_active() && simulation.events.is_empty());
}

#[test]
fn a_pause_of_the_core_is_no_overload() {
    let mut simulation = Simulation::new(1);
    let all = simulation.add("192.0.2.0", 16, CAPACITY * 0.5 / 16.0, false);
    simulation.run(1.0);
    for _ in 0..3 {
        // A pause whose requests the receive buffer holds.
        simulation.now += 0.03;
        simulation.run(2.0);
    }
    let (lost, _) = simulation.fate(all);
    assert!(lost < 0.01, "{lost}");
    assert_eq!(simulation.events, []);
    assert!(!simulation.control.is_active());
}

#[test]
fn an_overload_ends_soon_after_the_flood() {
    let mut simulation = Simulation::new(1);
    let polite = simulation.add_polite();
    let flood = simulation.add("192.0.2.0", 16, CAPACITY * 5.0 / 16.0, false);
    simulation.run(1.0);
    for source in &mut simulation.sources[flood] {
        source.rate = 0.0;
    }
    simulation.forget();
    simulation.run(0.5);
    assert!(!simulation.control.is_active());
    assert!(simulation.filter.as_ref().is_some_and(DropFilter::is_open));
    simulation.run(1.5);
    let (lost, p99) = simulation.fate(polite);
    assert!(lost < 0.01 && p99 < WANTED_QUEUE, "{lost} {p99}");
    assert_eq!(simulation.events.len(), 1, "the end is told later, unless another overload follows");
    simulation.run(5.0);
    assert!(
        matches!(simulation.events[..], [Event::Began { .. }, Event::Ended(lasted)] if lasted.as_secs() <= 2)
    );
}

#[test]
fn an_overload_ends_although_nothing_arrives_any_more() {
    let mut simulation = Simulation::new(1);
    simulation.add("192.0.2.0", 16, CAPACITY * 5.0 / 16.0, false);
    simulation.run(1.0);
    let mut now = simulation.time();
    let (control, dropped) = (&mut simulation.control, simulation.dropped);
    let queue = |dropped| move || Some(QueueState { bytes: 0, size: BUFFER_BYTES as u32, dropped });
    assert!(control.is_active() && control.interval_of_silence(now, queue(dropped)).is_none());
    let mut changes = Vec::new();
    // What asks still is filtered.
    for second in 0..10 {
        for half in 1..=2 {
            now += Duration::from_millis(500);
            let change = control.interval_of_silence(now, queue(dropped + second * 2 + half));
            changes.extend(change);
        }
        assert!(!control.is_active() || second < 2);
    }
    let last = changes.iter().filter_map(|change| change.filter.as_ref()).next_back();
    assert!(last.is_some_and(DropFilter::is_open));
    let events: Vec<_> = changes.iter().filter_map(|change| change.event.as_ref()).collect();
    assert!(matches!(events[..], [Event::Ended(_)]), "{events:?}");
    assert!(control.interval_of_silence(now + Duration::from_secs(1), queue(dropped)).is_none());
}

/// Keeps requests of four sources in flight: the next one follows each reply, or a timeout. Returns what was
/// served per second, as a share of the capacity.
fn closed_loop(simulation: &mut Simulation, window: usize, seconds: f64) -> f64 {
    if simulation.closed_sources == usize::MAX {
        simulation.closed_sources = simulation.add("192.0.2.0", 4, 0.0, false).start;
        let now = (simulation.now * 1e9) as u64;
        simulation.closed.extend((0..window as u64).map(|number| Reverse(now + number)));
    }
    simulation.forget();
    simulation.run(seconds);
    simulation.goodput(seconds)
}

#[test]
fn requests_in_flight_of_few_clients_are_no_overload() {
    // The receive buffer is never empty, and what the kernel counts is up to twice of what waits.
    for (window, slowness) in [(256, 1.0), (512, 0.25), (900, 0.25), (512, 4.0)] {
        let mut simulation = Simulation::new(1);
        simulation.slowness = slowness;
        let goodput = closed_loop(&mut simulation, window, 3.0);
        assert!(!simulation.control.is_active() && simulation.events.is_empty(), "{window}");
        assert!(goodput > 0.99, "{window}: {goodput}");
    }
}

#[test]
fn requests_in_flight_are_served_soon_after_a_flood() {
    let mut simulation = Simulation::new(1);
    let flood = simulation.add("198.51.100.0", 16, CAPACITY * 5.0 / 16.0, false);
    simulation.run(1.0);
    assert!(simulation.control.is_active());
    for source in &mut simulation.sources[flood] {
        source.rate = 0.0;
    }
    closed_loop(&mut simulation, 512, 2.0);
    let goodput = closed_loop(&mut simulation, 512, 1.0);
    let OverloadControl { filled, load, heavy, capacity, calm, .. } = &simulation.control;
    assert!(!simulation.control.is_active(), "{goodput} {filled} {load} {capacity} {calm:?} {heavy:?}");
    assert!(goodput > 0.99, "{goodput}");
}

#[test]
fn a_slow_core_sheds_a_flood_as_well() {
    let mut simulation = Simulation::new(1);
    simulation.slowness = 4.0;
    let polite = simulation.add_polite();
    simulation.add("192.0.2.0", 16, CAPACITY / 4.0 * 5.0 / 16.0, false);
    simulation.run(2.0);
    simulation.forget();
    simulation.run(2.0);
    let (goodput, (lost, p99)) = (simulation.goodput(2.0), simulation.fate(polite));
    assert!(goodput > 0.9 && lost < 0.01 && p99 < 0.02, "goodput {goodput:.3}, lost {lost:.4}, p99 {p99:.4}");
}

/// Goodput and the share that polite clients lose, in the first two seconds of a crowd and in the next two.
fn fate_beside_a_crowd(family: Family, seed: u64, factor: f64, burst: u32) -> [(f64, f64); 2] {
    let mut simulation = Simulation::of(family, seed);
    simulation.burst = burst;
    let polite = simulation.add_polite();
    simulation.run(0.5);
    simulation.add_crowd(1024, CAPACITY * factor);
    [(); 2].map(|()| {
        simulation.forget();
        simulation.run(2.0);
        assert_eq!(simulation.control.heavy.len(), 0, "bursts are not rates");
        let (goodput, (lost, p99)) = (simulation.goodput(2.0), simulation.fate(polite.clone()));
        assert!(goodput > 0.9 && p99 < 0.02, "{seed}: goodput {goodput:.3}, lost {lost:.4}, p99 {p99:.4}");
        (goodput, lost)
    })
}

#[test]
fn a_crowd_of_thousands_of_networks_cannot_crowd_out_others() {
    for (seed, factor, family) in [(1, 2.0, Family::V4), (2, 5.0, Family::V4), (3, 5.0, Family::V6)] {
        let [(_, at_first), (goodput, lost)] = fate_beside_a_crowd(family, seed, factor, 1);
        assert!(at_first < 0.1 && goodput > 0.95 && lost < 0.01, "{at_first:.4}, {goodput:.3}, {lost:.4}");
    }
}

#[test]
fn a_crowd_that_sends_in_bursts_cannot_crowd_out_others() {
    const SEEDS: u64 = 12;
    let fates: Vec<_> = (1..=SEEDS).map(|seed| fate_beside_a_crowd(Family::V4, seed, 5.0, 32)).collect();
    for (part, mean, worst) in [(0, 0.1, 0.2), (1, 0.02, 0.1)] {
        let lost: Vec<f64> = fates.iter().map(|parts| parts[part].1).collect();
        assert!(lost.iter().all(|lost| *lost < worst), "{lost:?}");
        assert!(lost.iter().sum::<f64>() < mean * SEEDS as f64, "{lost:?}");
    }
}

#[test]
fn requests_that_cost_less_or_more_than_before_are_served_as_fast() {
    for (seed, sources) in [(1, 1024), (2, 16)] {
        let mut simulation = Simulation::new(seed);
        simulation.burst = 32;
        let polite = simulation.add_polite();
        simulation.add_crowd(sources, CAPACITY * 8.0);
        simulation.run(2.0);
        // Connection ids that have expired cost less than announces; and then there are others.
        for slowness in [0.35, 1.0] {
            simulation.slowness = slowness;
            simulation.run(2.0);
            simulation.forget();
            simulation.run(2.0);
            let (goodput, (lost, p99)) = (simulation.goodput(2.0), simulation.fate(polite.clone()));
            assert!(goodput > 0.94, "{sources}, {slowness}: goodput {goodput:.3}, lost {lost:.4}");
            assert!(lost < 0.01 && p99 < 0.015, "{sources}, {slowness}: lost {lost:.4}, p99 {p99:.4}");
        }
    }
}

#[test]
fn requests_that_cost_less_and_more_in_turns_cannot_crowd_out_others() {
    for (seed, sources) in [(1, 1024), (2, 16)] {
        let mut simulation = Simulation::new(seed);
        let polite = simulation.add_polite();
        simulation.add_crowd(sources, CAPACITY * 5.0);
        for round in 0..80 {
            if round == 20 {
                simulation.forget();
            }
            for slowness in [0.25, 1.0] {
                simulation.slowness = slowness;
                simulation.run(0.03);
            }
        }
        let (goodput, (lost, p99)) = (simulation.goodput(3.6), simulation.fate(polite));
        assert!(lost < 0.01 && p99 < 0.02, "{sources}: goodput {goodput:.3}, lost {lost:.4}, p99 {p99:.4}");
        assert!(goodput > 0.8, "{sources}: goodput {goodput:.3}, lost {lost:.4}, p99 {p99:.4}");
    }
}

#[test]
fn bursts_of_a_closed_crowd_are_no_overload() {
    // Every 200 ms a burst that the buffer cannot hold: what is lost is lost, but nobody sends too much.
    let mut simulation = Simulation::new(1);
    let burst = simulation.add("192.0.2.0", 16, 0.0, false);
    for _ in 0..10 {
        for _ in 0..2000 {
            if simulation.memory() < BUFFER_BYTES {
                simulation.queue.push_back((burst.start, simulation.now));
            } else {
                simulation.dropped += 1;
            }
        }
        simulation.run(0.2);
    }
    assert!(!simulation.control.is_active() && simulation.events.is_empty());
}

#[test]
fn the_level_divides_what_is_available() {
    let heavy = |rates: &[(f64, f64)]| -> Vec<Heavy> {
        let of = |&(rate, weight)| {
            Heavy::new(Prefix::of(Ipv4Addr::LOCALHOST.into(), 32), weight, rate, Duration::ZERO)
        };
        rates.iter().map(of).collect()
    };
    assert_eq!(level(heavy(&[]).iter(), 5.0), f64::INFINITY);
    assert_eq!(level(heavy(&[(1.0, 1.0), (2.0, 1.0)]).iter(), 3.0), f64::INFINITY);
    assert_eq!(level(heavy(&[(10.0, 1.0), (2.0, 1.0)]).iter(), 6.0), 4.0);
    assert_eq!(level(heavy(&[(100.0, 1.0), (100.0, 2.0), (3.0, 4.0)]).iter(), 33.0), 10.0);
}
