//! Samples of the requests that a core serves: a few for the log, and for an operator who asks who sends
//! most, counts by network and client over some seconds. Both are off unless wanted, and then cost a request
//! one comparison.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use aquatic_common::{InfoHash, PeerId, Prefix};

/// Lines about requests that a core writes between two ticks, which are 250 ms apart. The others are left
/// out, and their number is logged.
const LINES_PER_TICK: u32 = 100;

/// Ticks between two messages about lines that were left out.
const TICKS_PER_NOTICE: u32 = 240;

/// Networks that a sample tells apart. A network with more than one in 4,096 of the requests is found.
const MAX_NETWORKS: usize = 4096;

/// Beginnings of peer ids that a sample tells apart.
const MAX_CLIENTS: usize = 1024;

/// Bytes of a peer id that name client and version (BEP 20).
pub const CLIENT_LENGTH: usize = 8;

/// A request, as far as it is sampled.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Protocol, as in metrics.
    pub protocol: &'static str,
    /// What is asked for, as in metrics; for a refused request, maybe unknown.
    pub action: &'static str,
    /// Address of the client.
    pub source: IpAddr,
    /// Info hash of an announce.
    pub info_hash: Option<&'a InfoHash>,
    /// Peer id of an announce.
    pub peer_id: Option<&'a PeerId>,
    /// "served", or the reason why it is not, as in metrics.
    pub outcome: &'static str,
}

/// The samples of one core.
#[derive(Debug, Default)]
pub struct Requests {
    /// Whether anything is wanted.
    is_on: Cell<bool>,
    /// One of so many requests is logged; 0 for none.
    every: Cell<u32>,
    /// Requests until the next one is logged.
    left: Cell<u32>,
    /// Lines that may be written until the next tick.
    lines: Cell<u32>,
    left_out: Cell<u64>,
    ticks: Cell<u32>,
    counts: RefCell<Option<Counts>>,
    /// Number of the last counting.
    counting: Cell<u64>,
}

/// Counts of requests over some time.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests by network (/24 or /48).
    pub networks: HeavyHitters<Prefix>,
    /// Announces by the first bytes of the peer id.
    pub clients: HeavyHitters<[u8; CLIENT_LENGTH]>,
}

impl Counts {
    /// Adds what another core, or another protocol of this one, has counted.
    pub fn merge(&mut self, other: &Self) {
        self.networks.merge(&other.networks);
        self.clients.merge(&other.clients);
    }
}

impl Requests {
    /// Whether requests are to be noted.
    #[inline]
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.is_on.get()
    }

    /// Logs one of so many requests from now on; 0 for none.
    pub fn log_one_of(&self, every: u32) {
        self.every.set(every);
        self.left.set(every);
        self.lines.set(LINES_PER_TICK);
        self.switch();
    }

    /// Begins to count requests, and returns the number of this counting. What has been counted before is
    /// forgotten.
    pub fn begin_counting(&self) -> u64 {
        self.counting.set(self.counting.get().wrapping_add(1));
        self.counts.replace(Some(Counts {
            networks: HeavyHitters::new(MAX_NETWORKS),
            clients: HeavyHitters::new(MAX_CLIENTS),
        }));
        self.switch();
        self.counting.get()
    }

    /// Ends a counting, given its number, and returns what has been counted: nothing if it was given up and
    /// another one has begun since.
    pub fn end_counting(&self, counting: u64) -> Counts {
        if counting != self.counting.get() {
            return Counts::default();
        }
        let counts = self.counts.take().unwrap_or_default();
        self.switch();
        counts
    }

    fn switch(&self) {
        self.is_on.set(self.every.get() > 0 || self.counts.borrow().is_some());
    }

    /// Notes a request, if [`are_wanted`](Self::are_wanted).
    #[cold]
    pub fn note(&self, request: Request<'_>) {
        if let Some(counts) = self.counts.borrow_mut().as_mut() {
            counts.networks.add(Prefix::of(request.source, u8::MAX).shown());
            if let Some(client) = request.peer_id.and_then(|id| id.0.first_chunk()) {
                counts.clients.add(*client);
            }
        }
        if self.every.get() == 0 {
            return;
        }
        self.left.set(self.left.get().saturating_sub(1));
        if self.left.get() > 0 {
            return;
        }
        self.left.set(self.every.get());
        match self.lines.get().checked_sub(1) {
            Some(lines) => {
                self.lines.set(lines);
                log::info!(target: "aquatic::requests", "{}", line(request));
            }
            None => self.left_out.set(self.left_out.get() + 1),
        }
    }

    /// Allows further lines. To be called about every 250 ms.
    pub fn tick(&self) {
        self.lines.set(LINES_PER_TICK);
        self.ticks.set(self.ticks.get().saturating_add(1));
        if self.left_out.get() > 0 && self.ticks.get() >= TICKS_PER_NOTICE {
            let count = self.left_out.replace(0);
            self.ticks.set(0);
            log::warn!(
                "{count} requests were not logged, as a core logs at most {} a second; raise log_requests",
                LINES_PER_TICK * 4
            );
        }
    }
}

fn line(request: Request<'_>) -> String {
    let Request { protocol, action, source, info_hash, outcome, .. } = request;
    let network = Prefix::of(source, u8::MAX).shown();
    let torrent = info_hash.map(|hash| format!(" torrent {hash}")).unwrap_or_default();
    format!("request: {protocol} {action} from {network}{torrent}: {outcome}")
}

/// The most frequent keys of a stream in bounded memory (Misra and Gries): a key is counted at most one in
/// `most` of all additions too low, and never too high.
#[derive(Clone, Debug)]
pub struct HeavyHitters<K> {
    most: usize,
    counts: HashMap<K, u64>,
    total: u64,
}

impl<K> Default for HeavyHitters<K> {
    fn default() -> Self {
        Self { most: 0, counts: HashMap::new(), total: 0 }
    }
}

impl<K: Copy + Eq + Hash + Ord> HeavyHitters<K> {
    /// Counts of at most so many keys.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, counts: HashMap::with_capacity(most), total: 0 }
    }

    /// Counts a key once.
    pub fn add(&mut self, key: K) {
        self.total += 1;
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
        } else if self.counts.len() < self.most {
            self.counts.insert(key, 1);
        } else {
            self.counts.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    /// Number of additions.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Adds the counts of another core.
    pub fn merge(&mut self, other: &Self) {
        self.total += other.total;
        for (key, count) in &other.counts {
            *self.counts.entry(*key).or_default() += count;
        }
    }

    /// The keys with the highest counts.
    #[must_use]
    pub fn top(&self, most: usize) -> Vec<(K, u64)> {
        let mut all: Vec<(K, u64)> = self.counts.iter().map(|(key, count)| (*key, *count)).collect();
        all.sort_unstable_by_key(|(key, count)| (std::cmp::Reverse(*count), *key));
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER_ID: PeerId = PeerId(*b"-TR4060-abcdefghijkl");

    fn request(source: &str) -> Request<'static> {
        Request {
            protocol: "udp",
            action: "announce",
            source: source.parse().unwrap(),
            info_hash: None,
            peer_id: Some(&PEER_ID),
            outcome: "served",
        }
    }

    #[test]
    fn nothing_is_noted_unless_wanted() {
        let requests = Requests::default();
        assert!(!requests.are_wanted());
        let given_up = requests.begin_counting();
        let counting = requests.begin_counting();
        assert!(requests.are_wanted());
        for source in ["192.0.2.1", "192.0.2.2", "2001:db8:1:2::3"] {
            requests.note(request(source));
        }
        assert_eq!(requests.end_counting(given_up).networks.total(), 0, "those of the next one");
        let counts = requests.end_counting(counting);
        assert!(!requests.are_wanted());
        assert_eq!((counts.networks.total(), counts.clients.top(9)), (3, vec![(*b"-TR4060-", 3)]));
        let networks = counts.networks.top(1);
        assert_eq!(networks[0].0.to_string(), "192.0.2.0/24");
        requests.log_one_of(3);
        let _ = requests.end_counting(requests.begin_counting());
        assert!(requests.are_wanted());
    }

    #[test]
    fn one_of_some_is_logged_and_no_more_than_allowed() {
        let requests = Requests::default();
        requests.log_one_of(3);
        let lines = |count: u32| {
            let before = requests.lines.get();
            (0..count).for_each(|_| requests.note(request("192.0.2.1")));
            before - requests.lines.get()
        };
        assert_eq!((lines(2), lines(1), lines(9)), (0, 1, 3));
        assert_eq!(lines(3000), LINES_PER_TICK - 4);
        assert_eq!(requests.left_out.get(), 900 + 4 - u64::from(LINES_PER_TICK) + 100);
        requests.tick();
        assert_eq!(lines(3), 1);
        (0..TICKS_PER_NOTICE).for_each(|_| requests.tick());
        assert_eq!(requests.left_out.get(), 0);
    }

    #[test]
    fn lines_name_networks_and_not_addresses() {
        let mut request = request("2001:db8:1:2::3");
        let hash = InfoHash([0xab; 20]);
        request.info_hash = Some(&hash);
        let text = line(request);
        let expected = format!("request: udp announce from 2001:db8:1::/48 torrent {hash}: served");
        assert_eq!(text, expected);
    }

    #[test]
    fn heavy_keys_are_found_among_many_light_ones() {
        let mut hitters = HeavyHitters::new(10);
        for number in 0..10_000_u32 {
            hitters.add(if number % 4 == 0 { 7 } else { 1000 + number });
        }
        let top = hitters.top(1);
        assert_eq!(top[0].0, 7);
        assert!((1500..=2500).contains(&top[0].1), "{top:?}");
        assert!(hitters.counts.len() <= 10);
        let mut other = HeavyHitters::new(10);
        other.add(7);
        other.merge(&hitters);
        assert_eq!((other.top(1)[0].1, other.total()), (top[0].1 + 1, 10_001));
    }
}
