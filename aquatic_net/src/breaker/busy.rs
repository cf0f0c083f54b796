//! Which protocol keeps the cores busy, by what they count.

use std::collections::HashMap;
use std::time::Duration;

use aquatic_common::Family;
use aquatic_metrics::{Sample, names};

use super::Protocol;

/// Share of its time, in percentage points below the one at which a core is busy, at which it no longer is.
const HYSTERESIS: u64 = 10;

/// Differences of counters between two looks at them.
#[derive(Debug, Default)]
pub(super) struct BusyCores {
    last: Option<Counts>,
    /// The cores that were busy when they were looked at last.
    busy: Vec<usize>,
}

#[derive(Debug)]
struct Counts {
    at: Duration,
    /// Nanoseconds for which each core was busy.
    busy: HashMap<usize, u64>,
    requests: HashMap<(Protocol, Family), u64>,
}

impl BusyCores {
    /// Takes in what the cores have counted. Returns the protocol and family of which most requests came
    /// since the last look, if at least half of the cores were busy for this percentage of the time. UDP is
    /// never returned: it has overload control, and is served as well as possible by a core that is always
    /// busy.
    pub(super) fn observe(
        &mut self,
        now: Duration,
        samples: &[Sample],
        percent: u32,
        cores: u64,
    ) -> Option<(Protocol, Family)> {
        let counts = Counts::new(now, samples);
        let last = self.last.replace(counts)?;
        let counts = self.last.as_ref()?;
        let passed = u64::try_from(now.saturating_sub(last.at).as_nanos()).unwrap_or(u64::MAX).max(1);
        let is_busy = |core: usize, busy: u64| {
            let least = if self.busy.contains(&core) {
                u64::from(percent).saturating_sub(HYSTERESIS)
            } else {
                u64::from(percent)
            };
            let grown = busy.saturating_sub(last.busy.get(&core).copied().unwrap_or(busy));
            grown.saturating_mul(100) / passed >= least
        };
        let busy: Vec<usize> =
            counts.busy.iter().filter(|&(&core, &busy)| is_busy(core, busy)).map(|(&core, _)| core).collect();
        let are_busy = busy.len() as u64 * 2 >= cores.max(1);
        let came = |key: &(Protocol, Family), count: u64| {
            count.saturating_sub(last.requests.get(key).copied().unwrap_or_default())
        };
        let most = counts.requests.iter().max_by_key(|&(key, &count)| came(key, count)).map(|(&key, _)| key);
        self.busy = busy;
        most.filter(|&(protocol, _)| are_busy && protocol != Protocol::Udp)
    }

    /// Forgets what was seen.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Counts {
    fn new(at: Duration, samples: &[Sample]) -> Self {
        let of = |name: &'static str| samples.iter().filter(move |sample| sample.metric.name == name);
        let busy = of(names::CORE_BUSY_TIME.name).filter_map(|sample| Some((sample.core?, sample.value)));
        let mut requests = HashMap::new();
        for sample in of(names::REQUESTS.name) {
            let protocol =
                Protocol::ALL.into_iter().find(|known| sample.label("protocol") == Some(known.name()));
            let family = Family::ALL.into_iter().find(|known| sample.label("family") == Some(known.name()));
            if let (Some(protocol), Some(family)) = (protocol, family) {
                *requests.entry((protocol, family)).or_default() += sample.value;
            }
        }
        Self { at, busy: busy.collect(), requests }
    }
}

#[cfg(test)]
mod tests {
    use aquatic_metrics::Registry;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Cores that are busy for some per cent of each second, while requests of some protocols come. Returns
    /// for each second what they are kept busy by, if its breaker opens at 90 %.
    fn run(
        seconds: &[[u64; 2]],
        requests: &[(&'static str, &'static str, u64)],
    ) -> Vec<Option<(Protocol, Family)>> {
        let registry = Registry::default();
        let busy = [0, 1].map(|core| registry.core(core).counter(&names::CORE_BUSY_TIME, &[]));
        let counters: Vec<_> = requests
            .iter()
            .map(|&(protocol, family, _)| {
                let labels = [("protocol", protocol), ("family", family), ("action", "announce")];
                registry.core(0).counter(&names::REQUESTS, &labels)
            })
            .collect();
        let mut cores = BusyCores::default();
        assert_eq!(
            cores.observe(Duration::ZERO, &registry.samples(), 90, 2),
            None,
            "nothing to compare with"
        );
        let mut now = Duration::ZERO;
        seconds
            .iter()
            .map(|percent| {
                now += SECOND;
                busy.iter().zip(percent).for_each(|(busy, percent)| busy.add(percent * 10_000_000));
                counters.iter().zip(requests).for_each(|(counter, &(_, _, count))| counter.add(count));
                cores.observe(now, &registry.samples(), 90, 2)
            })
            .collect()
    }

    #[test]
    fn half_of_the_cores_have_to_be_busy() {
        let http = Some((Protocol::Http, Family::V4));
        let told = run(&[[89, 89], [50, 90], [95, 0], [0, 0], [100, 100]], &[("http", "ipv4", 10)]);
        assert_eq!(told, [None, http, http, None, http]);
    }

    #[test]
    fn a_core_is_busy_until_it_is_clearly_less_so() {
        let http = Some((Protocol::Http, Family::V4));
        let told = run(&[[85, 0], [90, 0], [85, 0], [80, 0], [79, 0], [85, 0]], &[("http", "ipv4", 10)]);
        assert_eq!(told, [None, http, http, http, None, None]);
    }

    #[test]
    fn the_protocol_with_most_requests_is_meant_unless_it_is_udp() {
        let busy = [[100, 100]];
        let told = |requests| run(&busy, requests)[0];
        assert_eq!(told(&[("http", "ipv4", 10), ("ws", "ipv6", 11)]), Some((Protocol::Ws, Family::V6)));
        assert_eq!(told(&[("udp", "ipv4", 12), ("ws", "ipv6", 11)]), None);
        assert_eq!(told(&[("udp", "ipv4", 12), ("http", "ipv6", 13)]), Some((Protocol::Http, Family::V6)));
        assert_eq!(told(&[]), None);
    }
}
