//! Times of requests over the last minute and the last second, from the histograms of all cores.

use std::collections::VecDeque;

use aquatic_metrics::{Distribution, HistogramSample, SampledHistogram, names};

use crate::figures::PROTOCOLS;
use crate::report::Latency;

/// Seconds that the times of a protocol are taken from.
const WINDOW: usize = 60;

/// Times of one second, of all protocols together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Second {
    /// Number of requests.
    pub(crate) requests: u64,
    /// Median and 99th percentile in nanoseconds.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

/// Histograms of the last minute, one for each second, by protocol. The oldest first.
#[derive(Debug, Default)]
pub(crate) struct Window {
    protocols: [VecDeque<Distribution>; PROTOCOLS.len()],
}

impl Window {
    /// Adds what the histograms show now. Returns what is new in it.
    pub(crate) fn add(&mut self, histograms: &[HistogramSample]) -> Second {
        let mut new = Distribution::empty(&names::REQUEST_DURATION);
        for (protocol, window) in PROTOCOLS.iter().zip(&mut self.protocols) {
            let mut now = Distribution::empty(&names::REQUEST_DURATION);
            let is_own = |sample: &&HistogramSample| {
                sample.metric.name == names::REQUEST_DURATION.name
                    && sample.labels.contains(&("protocol", protocol))
            };
            let mut is_served = false;
            for sample in histograms.iter().filter(is_own) {
                now.add(&sample.distribution);
                is_served = true;
            }
            if !is_served {
                continue;
            }
            if let Some(last) = window.back() {
                // Of UDP, all requests are measured.
                let times = if *protocol == "udp" { 1 } else { SampledHistogram::SAMPLED };
                let since = now.since(last);
                (0..times).for_each(|_| new.add(&since));
            }
            window.push_back(now);
            if window.len() > WINDOW + 1 {
                window.pop_front();
            }
        }
        let nanoseconds = |share| (new.quantile(share).unwrap_or_default() * 1e9) as u64;
        Second { requests: new.count(), p50: nanoseconds(0.5), p99: nanoseconds(0.99) }
    }

    /// Times of the last minute of the protocols that are served.
    pub(crate) fn latencies(&self) -> Vec<Latency> {
        let latency = |(protocol, window): (&&'static str, &VecDeque<Distribution>)| {
            let minute = window.back()?.since(window.front()?);
            Some(Latency { protocol, p50: minute.quantile(0.5), p99: minute.quantile(0.99) })
        };
        PROTOCOLS.iter().zip(&self.protocols).filter_map(latency).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aquatic_metrics::Registry;

    use super::*;

    #[test]
    fn times_are_those_of_the_last_minute_and_second() {
        let registry = Registry::default();
        let of = |core, protocol| {
            registry.core(core).histogram(&names::REQUEST_DURATION, &[("protocol", protocol)])
        };
        let (udp, more, http) = (of(0, "udp"), of(1, "udp"), of(0, "http"));
        let mut window = Window::default();
        assert_eq!(window.add(&registry.histograms()), Second::default());
        let none = ["udp", "http"].map(|protocol| Latency { protocol, p50: None, p99: None });
        assert_eq!(window.latencies(), none);
        udp.add_time(Duration::from_micros(16), 50);
        more.add_time(Duration::from_micros(16), 34);
        http.add_time(Duration::from_micros(1024), 1);
        let second = window.add(&registry.histograms());
        assert_eq!(second.requests, 84 + 16, "one HTTP request in 16 is measured");
        assert!((14_000..=16_000).contains(&second.p50) && second.p99 > 800_000, "{second:?}");
        let latencies = window.latencies();
        assert!(latencies[0].p99.unwrap() <= 16.1e-6 && latencies[1].p50.unwrap() > 800e-6, "{latencies:?}");
        (0..WINDOW).for_each(|_| assert_eq!(window.add(&registry.histograms()).requests, 0));
        assert_eq!(window.latencies(), none, "that was more than a minute ago");
    }
}
