//! Overload control over a simulated core, receive buffer and kernel.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use aquatic_net::udp::BATCH;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Seconds that a datagram takes the core: served, dropped unread; and a batch beside that.
const SERVED: f64 = 4.5e-6;
const DROPPED: f64 = 0.4e-6;
const BATCH_COST: f64 = 8e-6;

/// Datagrams per second that the core can serve.
const CAPACITY: f64 = 1.0 / (SERVED + BATCH_COST / BATCH as f64);

/// Datagrams that the receive buffer holds.
const BUFFER: usize = 5000;

struct Source {
    ip: IpAddr,
    rate: f64,
    connects: bool,
    credit: f64,
    /// What it sent, what was served, and the times until then.
    sent: u32,
    served: u32,
    delays: Vec<f64>,
}

struct Simulation {
    control: OverloadControl,
    filter: Option<DropFilter>,
    takes_filters: bool,
    sources: Vec<Source>,
    queue: VecDeque<(usize, f64)>,
    now: f64,
    arrived_up_to: f64,
    dropped: u32,
    activity: Activity,
    events: Vec<Event>,
    rng: SmallRng,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            control: OverloadControl::new(Family::V4, [seed as u8; 16]),
            filter: None,
            takes_filters: true,
            sources: Vec::new(),
            queue: VecDeque::new(),
            now: 1.0,
            arrived_up_to: 1.0,
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
            let ip = Ipv4Addr::from_bits(first.to_bits() + number).into();
            let credit = self.rng.random();
            let (sent, served, delays) = (0, 0, Vec::new());
            self.sources.push(Source { ip, rate, connects, credit, sent, served, delays });
        }
        start..self.sources.len()
    }

    /// 20 polite clients in networks of their own.
    fn add_polite(&mut self) -> std::ops::Range<usize> {
        let start = self.sources.len();
        for number in 0..20 {
            self.add(&format!("10.{number}.0.1"), 1, 20.0, false);
        }
        start..self.sources.len()
    }

    fn arrive(&mut self) {
        let passed = self.now - self.arrived_up_to;
        self.arrived_up_to = self.now;
        let mut arrived = Vec::new();
        for (at, source) in self.sources.iter_mut().enumerate() {
            source.credit += source.rate * passed;
            while source.credit >= 1.0 {
                source.credit -= 1.0;
                source.sent += 1;
                arrived.push((at, self.now - self.rng.random::<f64>() * passed));
            }
        }
        arrived.sort_by(|a, b| a.1.total_cmp(&b.1));
        for (at, time) in arrived {
            let source = &self.sources[at];
            let share =
                self.filter.as_ref().map_or(Share::MAX, |filter| filter.share(source.ip, source.connects));
            let passes = share == Share::MAX || self.rng.random::<u32>() < share;
            if passes && self.queue.len() < BUFFER {
                self.queue.push_back((at, time));
            } else {
                self.dropped += 1;
            }
        }
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
        self.now += BATCH_COST;
        for _ in 0..count {
            let (at, arrived) = self.queue.pop_front().unwrap();
            let source = &mut self.sources[at];
            if self.control.is_active() && self.control.drops(source.ip, source.connects, time) {
                self.activity.shed += 1;
                self.now += DROPPED;
            } else {
                self.now += SERVED;
                source.served += 1;
                source.delays.push(self.now - arrived);
            }
        }
        if self.control.is_due(time) {
            let queue = QueueState { bytes: (self.queue.len() * 768) as u32, dropped: self.dropped };
            let activity = std::mem::take(&mut self.activity);
            let change = self.control.interval(time, activity, Some(queue));
            self.events.extend(change.event);
            match change.filter {
                Some(_) if !self.takes_filters => self.control.go_without_filter(),
                Some(filter) => self.filter = Some(filter),
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
        self.sources.iter().map(|source| f64::from(source.served)).sum::<f64>() / seconds / CAPACITY
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
        assert!(lost < 0.01 && p99 < 0.01, "lost {lost:.4}, p99 {p99:.4}");
    }
}

#[test]
fn a_few_addresses_cannot_crowd_out_others() {
    for (seed, factor) in [(1, 1.5), (2, 2.0), (3, 5.0), (4, 10.0)] {
        let mut simulation = Simulation::new(seed);
        let polite = simulation.add_polite();
        simulation.add("192.0.2.0", 16, CAPACITY * factor / 16.0, false);
        simulation.flood(polite, 0.94);
        let Some(Event::Began { offered, capacity, heaviest }) = &simulation.events.first() else {
            panic!("{:?}", simulation.events)
        };
        assert!((capacity / CAPACITY - 1.0).abs() < 0.1, "{capacity}");
        assert!((offered / CAPACITY / factor - 1.0).abs() < 0.3, "{factor} {offered}");
        let (prefix, rate) = heaviest.unwrap();
        assert_eq!(prefix.to_string(), "192.0.2.0/24");
        assert!((rate / CAPACITY / factor - 1.0).abs() < 0.4, "{factor} {rate}");
    }
}

#[test]
fn many_light_addresses_of_one_network_cannot_either() {
    for (seed, factor) in [(1, 1.5), (2, 5.0)] {
        let mut simulation = Simulation::new(seed);
        let polite = simulation.add_polite();
        simulation.add("192.0.0.0", 4096, CAPACITY * factor / 4096.0, false);
        simulation.flood(polite, 0.93);
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

#[test]
fn connects_from_everywhere_give_way_to_announces() {
    let mut simulation = Simulation::new(1);
    for number in 0..200 {
        simulation.add(&format!("172.{number}.0.1"), 8, CAPACITY * 5.0 / 1600.0, true);
    }
    let polite = simulation.add_polite();
    simulation.flood(polite, 0.93);
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
fn an_overload_ends_a_second_after_the_flood() {
    let mut simulation = Simulation::new(1);
    let polite = simulation.add_polite();
    let flood = simulation.add("192.0.2.0", 16, CAPACITY * 5.0 / 16.0, false);
    simulation.run(1.0);
    for source in &mut simulation.sources[flood] {
        source.rate = 0.0;
    }
    simulation.forget();
    simulation.run(1.5);
    let (lost, p99) = simulation.fate(polite);
    assert!(lost < 0.01 && p99 < 0.001, "{lost} {p99}");
    assert!(!simulation.control.is_active());
    assert!(simulation.filter.as_ref().is_some_and(DropFilter::is_open));
    assert!(
        matches!(simulation.events[..], [Event::Began { .. }, Event::Ended(lasted)] if lasted.as_secs() <= 3)
    );
}

#[test]
fn requests_in_flight_of_few_clients_are_no_overload() {
    // A closed loop: the next request follows each reply, so the buffer is never empty but short.
    let mut simulation = Simulation::new(1);
    simulation.add("192.0.2.0", 4, 0.0, false);
    for number in 0..256 {
        simulation.queue.push_back((number % 4, 1.0));
    }
    while simulation.now < 3.0 {
        simulation.step();
        while simulation.queue.len() < 256 {
            simulation.queue.push_back((simulation.queue.len() % 4, simulation.now));
        }
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
    assert_eq!(level(&heavy(&[]), 5.0), f64::INFINITY);
    assert_eq!(level(&heavy(&[(1.0, 1.0), (2.0, 1.0)]), 3.0), f64::INFINITY);
    assert_eq!(level(&heavy(&[(10.0, 1.0), (2.0, 1.0)]), 6.0), 4.0);
    assert_eq!(level(&heavy(&[(100.0, 1.0), (100.0, 2.0), (3.0, 4.0)]), 33.0), 10.0);
}
