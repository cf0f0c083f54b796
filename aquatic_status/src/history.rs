//! Aggregates of the last minute, hour, day and month, and totals of all time. Their size does not depend on
//! what the tracker serves.

use std::collections::VecDeque;

use crate::figures::ROUTES;

/// What the values of a series are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Events, of which a point has the number.
    Count,
    /// A level, of which a point has the mean.
    Level,
    /// A level of each second, of which a point has the mean, weighted by [`LATENCY_SAMPLES`].
    Weighted,
}

/// A series of numbers that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Series {
    /// Name in the file, which outlives the order of the series.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

const fn count(name: &'static str) -> Series {
    Series { name, kind: Kind::Count }
}

const fn level(name: &'static str) -> Series {
    Series { name, kind: Kind::Level }
}

/// Positions of series. Those by protocol and family come first.
pub(crate) const REQUESTS: usize = ROUTES;
pub(crate) const REFUSED: usize = ROUTES + 1;
pub(crate) const DROPPED: usize = ROUTES + 2;
pub(crate) const RECEIVED: usize = ROUTES + 3;
pub(crate) const SENT: usize = ROUTES + 4;
pub(crate) const PEERS: usize = ROUTES + 5;
pub(crate) const SEEDERS: usize = ROUTES + 6;
pub(crate) const TORRENTS: usize = ROUTES + 7;
pub(crate) const CONNECTIONS: usize = ROUTES + 8;
pub(crate) const BUSY: usize = ROUTES + 9;
pub(crate) const MEMORY: usize = ROUTES + 10;
/// Requests whose time was measured.
pub(crate) const LATENCY_SAMPLES: usize = ROUTES + 11;
/// Median and 99th percentile of the time that requests take, in nanoseconds.
pub(crate) const P50: usize = ROUTES + 12;
pub(crate) const P99: usize = ROUTES + 13;

/// Number of series.
pub(crate) const COUNT: usize = ROUTES + 14;

/// All series.
pub(crate) const SERIES: [Series; COUNT] = [
    count("requests_udp_ipv4"),
    count("requests_udp_ipv6"),
    count("requests_http_ipv4"),
    count("requests_http_ipv6"),
    count("requests_ws_ipv4"),
    count("requests_ws_ipv6"),
    count("requests"),
    count("refused"),
    count("dropped"),
    count("received_bytes"),
    count("sent_bytes"),
    level("peers"),
    level("seeders"),
    level("torrents"),
    level("connections"),
    level("busy_permille"),
    level("memory_bytes"),
    count("latency_samples"),
    Series { name: "latency_p50_ns", kind: Kind::Weighted },
    Series { name: "latency_p99_ns", kind: Kind::Weighted },
];

/// Values of all series: of counts, those since the last sample.
pub(crate) type Values = [u64; COUNT];

/// Sum and maximum of the values of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Aggregate {
    pub(crate) sum: u64,
    /// Largest value of a sample; of counts, the largest number per second.
    pub(crate) max: u64,
}

/// What the samples of a period of time come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// Beginning of the period in seconds since 1970, a multiple of its length.
    pub(crate) start: u64,
    pub(crate) samples: u64,
    /// Time that the samples cover, in milliseconds.
    pub(crate) covered: u64,
    pub(crate) values: [Aggregate; COUNT],
}

/// A sample of a shorter time, in milliseconds, as the last one of a process, does not count as the highest
/// rate: little is enough for a high one.
const LEAST_FOR_PEAK: u64 = 900;

/// The rate per second that counts towards the highest one.
fn rate_of(value: u64, milliseconds: u64) -> u64 {
    if milliseconds < LEAST_FOR_PEAK { 0 } else { per_second(value, milliseconds).round() as u64 }
}

impl Point {
    fn new(start: u64) -> Self {
        Self { start, samples: 0, covered: 0, values: [Aggregate::default(); COUNT] }
    }

    fn add(&mut self, sample: &Sampled) {
        self.samples = self.samples.saturating_add(1);
        self.covered = self.covered.saturating_add(sample.milliseconds);
        let weight = sample.values[LATENCY_SAMPLES];
        for ((aggregate, series), &value) in self.values.iter_mut().zip(&SERIES).zip(&sample.values) {
            let (more, max) = match series.kind {
                Kind::Count => (value, rate_of(value, sample.milliseconds)),
                Kind::Level => (value, value),
                Kind::Weighted => (value.saturating_mul(weight), if weight > 0 { value } else { 0 }),
            };
            aggregate.sum = aggregate.sum.saturating_add(more);
            aggregate.max = aggregate.max.max(max);
        }
    }

    /// The series in this period: of counts the rate per second, otherwise the mean. `None` if there was
    /// nothing to measure.
    pub(crate) fn mean(&self, series: usize) -> Option<f64> {
        let (Series { kind, .. }, aggregate) = (SERIES.get(series)?, self.values.get(series)?);
        match kind {
            Kind::Count => (self.covered > 0).then(|| per_second(aggregate.sum, self.covered)),
            Kind::Level => (self.samples > 0).then(|| aggregate.sum as f64 / self.samples as f64),
            Kind::Weighted => {
                let weight = self.values[LATENCY_SAMPLES].sum;
                (weight > 0).then(|| aggregate.sum as f64 / weight as f64)
            }
        }
    }

    pub(crate) fn sum(&self, series: usize) -> u64 {
        self.values.get(series).map_or(0, |aggregate| aggregate.sum)
    }

    pub(crate) fn max(&self, series: usize) -> u64 {
        self.values.get(series).map_or(0, |aggregate| aggregate.max)
    }
}

/// Number per second of what was counted in a time in milliseconds.
pub(crate) fn per_second(count: u64, milliseconds: u64) -> f64 {
    count as f64 * 1000.0 / milliseconds.max(1) as f64
}

/// What was sampled at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sampled {
    /// Seconds since 1970.
    pub(crate) time: u64,
    /// Time since the last sample.
    pub(crate) milliseconds: u64,
    pub(crate) values: Values,
}

/// A range of time that charts show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Minute,
    Hour,
    Day,
    Month,
}

impl Range {
    /// All ranges, in the order of their length.
    pub(crate) const ALL: [Self; 4] = [Self::Minute, Self::Hour, Self::Day, Self::Month];

    /// Name in JSON and in addresses.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Name on the page.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Minute => "Minute",
            Self::Hour => "Hour",
            Self::Day => "24 hours",
            Self::Month => "30 days",
        }
    }

    /// Length of a period in seconds.
    pub(crate) fn step(self) -> u64 {
        match self {
            Self::Minute => 1,
            Self::Hour => 60,
            Self::Day => 900,
            Self::Month => 21_600,
        }
    }

    /// Number of periods.
    pub(crate) fn points(self) -> usize {
        match self {
            Self::Minute | Self::Hour => 60,
            Self::Day => 96,
            Self::Month => 120,
        }
    }
}

/// The points of one range, the oldest first. The newest still grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) range: Range,
    pub(crate) points: VecDeque<Point>,
}

impl Ring {
    pub(crate) fn new(range: Range) -> Self {
        Self { range, points: VecDeque::with_capacity(range.points() + 1) }
    }

    /// Adds a sample. Points of the future, of a calendar that has been set back, are given up.
    fn add(&mut self, sample: &Sampled) {
        let step = self.range.step();
        let start = sample.time - sample.time % step;
        while self.points.back().is_some_and(|last| last.start > start.saturating_add(2 * step)) {
            self.points.pop_back();
        }
        if self.points.back().is_none_or(|last| last.start < start) {
            self.points.push_back(Point::new(start));
        }
        if let Some(last) = self.points.back_mut() {
            last.add(sample);
        }
        self.forget(sample.time);
    }

    /// Removes points that are too old to be shown.
    pub(crate) fn forget(&mut self, now: u64) {
        // One more than is shown, so that the oldest is complete.
        let length = self.range.step() * (self.range.points() as u64 + 1);
        while self.points.front().is_some_and(|first| first.start.saturating_add(length) <= now)
            || self.points.len() > self.range.points() + 1
        {
            self.points.pop_front();
        }
    }

    /// The periods that a chart shows, the last one with the present in it. `None` where there are no
    /// samples.
    pub(crate) fn periods(&self, now: u64) -> Vec<(u64, Option<&Point>)> {
        let step = self.range.step();
        let count = self.range.points() as u64;
        let last = now - now % step;
        let first = last.saturating_sub((count - 1) * step);
        let mut points = self.points.iter().skip_while(|point| point.start < first).peekable();
        (0..count)
            .map(|index| {
                let start = first + index * step;
                (start, points.next_if(|point| point.start == start))
            })
            .collect()
    }
}

/// Totals since the first start with this state directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// When counting began, in seconds since 1970; 0 before it has.
    pub(crate) since: u64,
    /// Time that was counted, in milliseconds.
    pub(crate) covered: u64,
    /// Sums of the series that are counts.
    pub(crate) sums: Values,
}

/// No tracker of today began to count before 2020: the clock of a machine that has none that runs while it is
/// off had not been set yet.
const EARLIEST: u64 = 1_577_836_800;

impl Totals {
    /// Has counting begun at this time, unless it is known to have begun before.
    fn begin(&mut self, time: u64) {
        if self.since < EARLIEST || self.since > time {
            self.since = time;
        }
    }

    fn add(&mut self, sample: &Sampled) {
        self.covered = self.covered.saturating_add(sample.milliseconds);
        for ((sum, series), &value) in self.sums.iter_mut().zip(&SERIES).zip(&sample.values) {
            if series.kind == Kind::Count {
                *sum = sum.saturating_add(value);
            }
        }
    }
}

/// A calendar that is this many seconds behind the newest point, or more than that many ahead of it, is
/// believed once it has stayed so for [`SETTLED`] milliseconds: machines start with a wrong one, and correct
/// it.
const BEHIND: u64 = 120;
const AHEAD: u64 = 86_400;
const SETTLED: u64 = 300_000;

/// All that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) rings: [Ring; 4],
    pub(crate) totals: Totals,
    /// Milliseconds for which the calendar has not been believed. Their samples are in the totals only.
    pub(crate) doubted: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { rings: Range::ALL.map(Ring::new), totals: Totals::default(), doubted: 0 }
    }
}

impl History {
    /// Adds a sample to all ranges and totals.
    pub(crate) fn add(&mut self, sample: &Sampled) {
        self.totals.add(sample);
        let newest = self.rings.iter().filter_map(|ring| ring.points.back()).map(|point| point.start).max();
        let is_odd = newest.is_some_and(|newest| {
            sample.time.saturating_add(BEHIND) < newest || sample.time.saturating_sub(AHEAD) > newest
        });
        if is_odd && self.doubted < SETTLED {
            self.doubted = self.doubted.saturating_add(sample.milliseconds);
            return;
        }
        self.doubted = 0;
        self.totals.begin(sample.time);
        for ring in &mut self.rings {
            ring.add(sample);
        }
    }

    pub(crate) fn ring(&self, range: Range) -> &Ring {
        let [minute, hour, day, month] = &self.rings;
        match range {
            Range::Minute => minute,
            Range::Hour => hour,
            Range::Day => day,
            Range::Month => month,
        }
    }

    /// Number of events in the last 24 hours, to a quarter of an hour.
    pub(crate) fn last_day(&self, series: usize) -> u64 {
        self.ring(Range::Day).points.iter().map(|point| point.sum(series)).fold(0, u64::saturating_add)
    }

    /// Largest number per second in the last 24 hours.
    pub(crate) fn peak_of_day(&self, series: usize) -> u64 {
        self.ring(Range::Day).points.iter().map(|point| point.max(series)).max().unwrap_or_default()
    }

    /// Share of the last 30 days in which the tracker ran, or of the time since counting began.
    pub(crate) fn availability(&self, now: u64) -> f64 {
        let periods = self.ring(Range::Month).periods(now);
        let oldest = periods.first().map_or(now, |(start, _)| *start).max(self.totals.since);
        let covered = periods.iter().filter_map(|(_, point)| point.map(|point| point.covered));
        let covered = covered.fold(0, u64::saturating_add);
        let passed = now.saturating_sub(oldest).saturating_mul(1000);
        // The calendar counts whole seconds.
        let covered = covered.saturating_add(2000);
        if passed == 0 { 1.0 } else { (covered as f64 / passed as f64).min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(time: u64, requests: u64) -> Sampled {
        let mut values = [0; COUNT];
        (values[0], values[REQUESTS], values[PEERS]) = (requests, requests, 10 * requests);
        Sampled { time, milliseconds: 1000, values }
    }

    #[test]
    fn a_part_of_a_second_has_no_highest_rate() {
        let mut point = Point::new(0);
        point.add(&sample(1, 100));
        point.add(&Sampled { milliseconds: 5, ..sample(2, 50) });
        assert_eq!((point.values[REQUESTS].sum, point.values[REQUESTS].max), (150, 100));
    }

    #[test]
    fn positions_are_those_of_the_names() {
        for (position, name) in [
            (REQUESTS, "requests"),
            (REFUSED, "refused"),
            (DROPPED, "dropped"),
            (RECEIVED, "received_bytes"),
            (SENT, "sent_bytes"),
            (PEERS, "peers"),
            (SEEDERS, "seeders"),
            (TORRENTS, "torrents"),
            (CONNECTIONS, "connections"),
            (BUSY, "busy_permille"),
            (MEMORY, "memory_bytes"),
            (LATENCY_SAMPLES, "latency_samples"),
            (P50, "latency_p50_ns"),
            (P99, "latency_p99_ns"),
        ] {
            assert_eq!(SERIES[position].name, name);
        }
        for (route, series) in SERIES.iter().enumerate().take(ROUTES) {
            let (protocol, family) = crate::figures::route_names(route);
            assert_eq!(series.name, format!("requests_{protocol}_{family}"));
        }
    }

    #[test]
    fn seconds_become_points_of_all_ranges() {
        let mut history = History::default();
        let begin = 1_800_000_000 - 1_800_000_000 % 21_600;
        for second in 0..7200 {
            history.add(&sample(begin + second, if second == 4000 { 50 } else { 5 }));
        }
        let now = begin + 7199;
        let hour = history.ring(Range::Hour).periods(now);
        assert_eq!(hour.len(), 60);
        assert!(hour.iter().all(|(_, point)| point.is_some()));
        let (start, last) = hour[59];
        assert_eq!((start, last.unwrap().samples), (begin + 7140, 60));
        assert_eq!(last.unwrap().mean(REQUESTS), Some(5.0));
        assert_eq!(last.unwrap().mean(PEERS), Some(50.0));
        assert_eq!(last.unwrap().mean(P50), None, "nothing was measured");
        assert_eq!(history.last_day(REQUESTS), 7200 * 5 + 45);
        assert_eq!(history.peak_of_day(REQUESTS), 50);
        assert_eq!((history.totals.sums[0], history.totals.sums[PEERS]), (7200 * 5 + 45, 0));
        assert_eq!(history.totals.since, begin);
        assert!((history.availability(now + 1) - 1.0).abs() < 1e-9);
        let minute = history.ring(Range::Minute);
        assert_eq!(minute.points.len(), 61);
        assert_eq!(minute.periods(now)[0].0, now - 59);
    }

    #[test]
    fn what_is_missing_is_a_gap_and_not_zero() {
        let mut history = History::default();
        let begin = 1_800_000_000;
        history.add(&sample(begin, 5));
        history.add(&sample(begin + 3, 7));
        let periods = history.ring(Range::Minute).periods(begin + 3);
        let means: Vec<_> =
            periods[56..].iter().map(|(_, point)| point.and_then(|point| point.mean(REQUESTS))).collect();
        assert_eq!(means, [Some(5.0), None, None, Some(7.0)]);
        let later = begin + 40 * 86_400;
        (0..300).for_each(|second| history.add(&sample(later + second, 0)));
        assert_eq!(history.ring(Range::Month).points.len(), 1, "the calendar may be wrong");
        assert_eq!(history.last_day(REQUESTS), 12);
        history.add(&sample(later + 300, 1));
        assert_eq!(history.last_day(REQUESTS), 1, "what is older than a day is forgotten");
        assert_eq!(history.totals.sums[REQUESTS], 13, "but not in the totals");
        assert!(history.rings.iter().all(|ring| ring.points.len() == 1));
        let availability = history.availability(later + 300);
        assert!(availability < 0.001, "it was down for the whole month: {availability}");
    }

    #[test]
    fn a_calendar_that_is_set_back_gives_up_the_future() {
        let mut history = History::default();
        let begin = 1_800_000_000;
        history.add(&sample(begin + 1_000_000, 5));
        (0..300).for_each(|second| history.add(&sample(begin - 300 + second, 0)));
        history.add(&sample(begin, 7));
        assert_eq!(history.totals.since, begin);
        assert!(history.rings.iter().all(|ring| ring.points.len() == 1 && ring.points[0].sum(REQUESTS) == 7));
        // Less than a period: it counts for the newest.
        history.add(&sample(begin - 1, 3));
        assert_eq!(history.ring(Range::Minute).points.back().unwrap().sum(REQUESTS), 10);
        assert_eq!(history.totals.sums[REQUESTS], 15);
    }

    #[test]
    fn a_calendar_that_is_wrong_for_a_while_changes_nothing() {
        let mut history = History::default();
        let begin = 1_800_000_000;
        (0..3).for_each(|second| history.add(&sample(begin + second, 5)));
        for odd in [100, begin - 63_072_000, begin + 63_072_000] {
            let before = history.clone();
            (0..100).for_each(|second| history.add(&sample(odd + second, 0)));
            assert_eq!((&history.rings, history.totals.since), (&before.rings, begin));
            history.add(&sample(begin + 2, 0));
        }
        assert_eq!(history.last_day(REQUESTS), 15);
        // A first start with the clock of a machine that has none.
        let mut history = History::default();
        history.add(&sample(100, 5));
        (0..302).for_each(|second| history.add(&sample(begin + second, 1)));
        assert_eq!((history.totals.since, history.last_day(REQUESTS)), (begin + 300, 2));
    }

    #[test]
    fn levels_that_are_weighted_ignore_idle_seconds() {
        let mut history = History::default();
        let begin = 1_800_000_000;
        for (second, weight, p99) in [(0, 0, 0), (1, 1, 4_000), (2, 3, 8_000)] {
            let mut values = [0; COUNT];
            (values[LATENCY_SAMPLES], values[P99]) = (weight, p99);
            history.add(&Sampled { time: begin + second, milliseconds: 1000, values });
        }
        let month = history.ring(Range::Month).points.back().unwrap();
        assert_eq!((month.mean(P99), month.max(P99)), (Some(7_000.0), 8_000));
    }

    #[test]
    fn a_clock_that_stands_still_or_overflows_is_no_panic() {
        let mut history = History::default();
        let values = [u64::MAX; COUNT];
        for time in [0, 0, u64::MAX / 2, u64::MAX - 30_000] {
            history.add(&Sampled { time, milliseconds: 0, values });
            history.add(&Sampled { time, milliseconds: u64::MAX, values });
            for range in Range::ALL {
                assert_eq!(history.ring(range).periods(time).len(), range.points());
            }
            let _ = (history.availability(time), history.last_day(REQUESTS));
        }
    }
}
