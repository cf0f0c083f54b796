//! What is observed of a tracker.

use std::fmt;
use std::time::Duration;

/// Counts of a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Number of seeders.
    pub complete: u32,
    /// Number of leechers.
    pub incomplete: u32,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seeder(s), {} leecher(s)", self.complete, self.incomplete)
    }
}

/// Observations of one tracker over one address family. `None` is what was not found out.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Whether the exchange ended before its time.
    pub failed: bool,
    /// Time until requests could be sent: reply to the connect request, TCP and TLS handshake, upgrade.
    pub connected: Option<Duration>,
    /// Response times.
    pub latencies: Vec<Duration>,
    /// Whether this machine trusts the certificate.
    pub trusted: Option<bool>,
    /// Interval until the next announce, in seconds.
    pub interval: Option<u32>,
    /// Minimum of that interval, in seconds.
    pub min_interval: Option<u32>,
    /// Whether the first peer was handed out to the second.
    pub handed_out: Option<bool>,
    /// Whether a stopped peer was no longer handed out or counted.
    pub gone: Option<bool>,
    /// Whether a scrape returned the counts.
    pub scrapes: Option<bool>,
    /// UDP: length of the connect reply in bytes.
    pub connect_length: Option<usize>,
    /// UDP: whether announces with options (BEP 41) are answered.
    pub takes_options: Option<bool>,
    /// UDP: whether a connection id is valid from another port.
    pub id_of_other_port: Option<bool>,
    /// HTTP: status of the reply to an announce.
    pub status: Option<u16>,
    /// HTTP: status of the reply to an announce that cannot be served.
    pub failure_status: Option<u16>,
    /// HTTP: whether the keys of replies are sorted, as bencode requires.
    pub canonical: Option<bool>,
    /// WebTorrent: whether an offer reached the other peer unchanged.
    pub offer_relayed: Option<bool>,
    /// WebTorrent: whether an answer came back unchanged.
    pub answer_relayed: Option<bool>,
    /// Whether every announce was answered.
    pub answers_all: Option<bool>,
}

impl Facts {
    /// Whether clients can use the tracker.
    #[must_use]
    pub fn works(&self) -> bool {
        !self.failed && self.handed_out != Some(false)
    }
}

/// Distribution of a few response times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Shortest.
    pub min: Duration,
    /// Median.
    pub median: Duration,
    /// Longest.
    pub max: Duration,
    count: usize,
}

impl Latency {
    /// Distribution of these times; `None` if there are none.
    #[must_use]
    pub fn of(times: &[Duration]) -> Option<Self> {
        let mut times = times.to_vec();
        times.sort_unstable();
        let (min, max) = (*times.first()?, *times.last()?);
        let median = *times.get((times.len() - 1) / 2)?;
        Some(Self { min, median, max, count: times.len() })
    }
}

/// A duration in milliseconds, with as many digits as matter.
pub(crate) fn milliseconds(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, min, max] = [self.median, self.min, self.max].map(milliseconds);
        write!(f, "median {median}, {min} to {max}, of {}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_times() {
        let times: Vec<Duration> = [5, 1, 9, 3].into_iter().map(Duration::from_millis).collect();
        let latency = Latency::of(&times).unwrap();
        assert_eq!(latency.to_string(), "median 3.00 ms, 1.00 ms to 9.00 ms, of 4");
        assert_eq!(Latency::of(&[]), None);
    }
}
