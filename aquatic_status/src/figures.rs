//! The numbers of one moment, picked from the metrics of all cores.

use aquatic_metrics::{Metric, Sample, names};

/// Protocols, as the label `protocol` names them.
pub(crate) const PROTOCOLS: [&str; 3] = ["udp", "http", "ws"];

/// Address families, as the label `family` names them.
pub(crate) const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// Number of pairs of a protocol and a family.
pub(crate) const ROUTES: usize = PROTOCOLS.len() * FAMILIES.len();

/// Protocol and family of a pair.
pub(crate) fn route_names(route: usize) -> (&'static str, &'static str) {
    let at = |names: &[&'static str], index: usize| names.get(index).copied().unwrap_or_default();
    (at(&PROTOCOLS, route / FAMILIES.len()), at(&FAMILIES, route % FAMILIES.len()))
}

/// Metrics that say what was refused, dropped or lost, each with the reason as a label.
const LOSSES: [&Metric; 13] = [
    &names::REFUSED,
    &names::DROPPED,
    &names::KERNEL_DROPS,
    &names::KERNEL_FILTERED,
    &names::NOT_STORED,
    &names::CONNECTIONS_REFUSED,
    &names::CONNECTIONS_EVICTED,
    &names::CONNECTION_TIMEOUTS,
    &names::SEND_ERRORS,
    &names::RECEIVE_ERRORS,
    &names::CHANNEL_OVERFLOWS,
    &names::CHANNEL_REJECTED,
    &names::OWNER_REQUESTS_FAILED,
];

/// A series of a metric that counts what was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Name of the metric without its prefix.
    pub(crate) what: &'static str,
    /// Values of the labels, in their order.
    pub(crate) labels: Vec<(&'static str, &'static str)>,
    /// Number since the start of the process.
    pub(crate) total: u64,
}

/// Torrents and peers of one kind of swarms and one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swarm {
    pub(crate) torrents: u64,
    pub(crate) seeders: u64,
    pub(crate) leechers: u64,
}

/// What one core shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CoreFigures {
    /// Time that it was busy, in nanoseconds.
    pub(crate) busy_time: u64,
    /// Delay of its periodic task in microseconds.
    pub(crate) lag: u64,
}

/// The limit of connections, as metrics name it.
const MAX_CONNECTIONS: &str = "connections.max_connections";

/// Requests by action, as opentracker counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actions {
    pub(crate) connects: u64,
    pub(crate) announces: u64,
    pub(crate) scrapes: u64,
}

/// All numbers of one moment. Counts are since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Requests by protocol and family; `None` where that is not served.
    pub(crate) requests: [Option<u64>; ROUTES],
    /// Requests by action: over UDP, and over TCP.
    pub(crate) actions: [Actions; 2],
    pub(crate) refused: u64,
    pub(crate) dropped: u64,
    /// Of these, UDP requests with connection ids that are not those of their sources.
    pub(crate) mismatches: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Swarms of UDP and HTTP, by family.
    pub(crate) bittorrent: [Swarm; 2],
    /// Swarms of WebTorrent, by family; their torrents are in the first, as they may have both.
    pub(crate) webtorrent: [Swarm; 2],
    /// Open connections of HTTP and of WebTorrent; `None` where that is not served.
    pub(crate) connections: [Option<u64>; 2],
    pub(crate) accepted: u64,
    /// Completed downloads.
    pub(crate) completed: u64,
    pub(crate) cores: Vec<CoreFigures>,
    pub(crate) store: u64,
    pub(crate) store_budget: u64,
    /// Connections that are allowed; 0 if that is not known.
    pub(crate) max_connections: u64,
    /// Cores by what they do without for want of memory; without those of which there are none.
    pub(crate) degraded: Vec<(&'static str, u64)>,
    /// Protocol and family of breakers that are open.
    pub(crate) breakers: Vec<(&'static str, &'static str)>,
    pub(crate) overloaded: u64,
    pub(crate) rate_limiting: u64,
    pub(crate) memory: u64,
    pub(crate) cpu: u64,
    pub(crate) open_files: u64,
    pub(crate) max_open_files: u64,
    pub(crate) started: u64,
    pub(crate) losses: Vec<Loss>,
}

impl Figures {
    /// Picks the numbers from samples of the registry and of the process.
    pub(crate) fn of(samples: &[Sample]) -> Self {
        let mut figures = Self::default();
        for sample in samples {
            figures.add(sample);
        }
        figures
    }

    /// Peers of all swarms: seeders and leechers.
    pub(crate) fn peers(&self) -> (u64, u64) {
        let swarms = self.bittorrent.iter().chain(&self.webtorrent);
        swarms.fold((0, 0), |(seeders, leechers), swarm| (seeders + swarm.seeders, leechers + swarm.leechers))
    }

    /// Torrents of all swarms. One with peers of both families counts twice, except over WebTorrent.
    pub(crate) fn torrents(&self) -> u64 {
        self.bittorrent.iter().chain(&self.webtorrent).map(|swarm| swarm.torrents).sum()
    }

    /// Open connections.
    pub(crate) fn all_connections(&self) -> u64 {
        self.connections.iter().flatten().sum()
    }

    /// Share of a time since earlier figures, in nanoseconds, for which each core was busy.
    pub(crate) fn busy(&self, earlier: &Self, nanoseconds: u64) -> impl Iterator<Item = f64> {
        let earlier = earlier.cores.iter().map(|core| core.busy_time).chain(std::iter::repeat(0));
        let busy = self.cores.iter().zip(earlier).map(|(core, before)| core.busy_time.saturating_sub(before));
        busy.map(move |busy| (busy as f64 / nanoseconds.max(1) as f64).min(1.0))
    }

    fn add(&mut self, sample: &Sample) {
        let value = sample.value;
        let is = |metric: &Metric| sample.metric.name == metric.name;
        if let Some(metric) = LOSSES.iter().find(|metric| is(metric)) {
            self.add_loss(metric, sample);
        } else if is(&names::REQUESTS) {
            self.add_requests(sample);
        } else if is(&names::TORRENTS) || is(&names::PEERS) {
            self.add_swarm(sample);
        } else if is(&names::CONNECTIONS) {
            let protocol = sample.label("protocol");
            let slot = self.connections.get_mut(usize::from(protocol == Some("ws")));
            slot.into_iter().for_each(|slot| *slot = Some(slot.unwrap_or_default() + value));
        } else if is(&names::DEGRADATION) {
            let step = sample.label("step").unwrap_or_default();
            self.degraded.extend((value > 0).then_some((step, value)));
        } else if is(&names::BREAKER_OPEN) {
            let labels =
                (sample.label("protocol").unwrap_or_default(), sample.label("family").unwrap_or_default());
            self.breakers.extend((value > 0).then_some(labels));
        } else if is(&names::LIMIT) {
            if sample.label("limit") == Some(MAX_CONNECTIONS) {
                self.max_connections += value;
            }
        } else if let Some(core) = sample.core {
            self.add_core(core, sample);
        } else if let Some(sum) = self.sum(sample.metric) {
            *sum += value;
        }
    }

    /// The number that is the sum of all series of a metric.
    fn sum(&mut self, metric: &Metric) -> Option<&mut u64> {
        let sums: [(&Metric, &mut u64); 13] = [
            (&names::RECEIVED_BYTES, &mut self.received),
            (&names::SENT_BYTES, &mut self.sent),
            (&names::CONNECTIONS_ACCEPTED, &mut self.accepted),
            (&names::COMPLETED, &mut self.completed),
            (&names::STORE, &mut self.store),
            (&names::STORE_BUDGET, &mut self.store_budget),
            (&names::OVERLOADED, &mut self.overloaded),
            (&names::RATE_LIMITING, &mut self.rate_limiting),
            (&names::PROCESS_MEMORY, &mut self.memory),
            (&names::PROCESS_CPU, &mut self.cpu),
            (&names::PROCESS_OPEN_FDS, &mut self.open_files),
            (&names::PROCESS_MAX_FDS, &mut self.max_open_files),
            (&names::PROCESS_START, &mut self.started),
        ];
        sums.into_iter().find(|(known, _)| known.name == metric.name).map(|(_, sum)| sum)
    }

    /// Adds requests of a protocol and family. Health checks have no family: they are none of clients.
    fn add_requests(&mut self, sample: &Sample) {
        let position = |names: &[&str], label| {
            sample.label(label).and_then(|value| names.iter().position(|name| *name == value))
        };
        let (Some(protocol), Some(family)) =
            (position(&PROTOCOLS, "protocol"), position(&FAMILIES, "family"))
        else {
            return;
        };
        if let Some(slot) = self.requests.get_mut(protocol * FAMILIES.len() + family) {
            *slot = Some(slot.unwrap_or_default() + sample.value);
        }
        let Some(actions) = self.actions.get_mut(usize::from(protocol > 0)) else { return };
        match sample.label("action") {
            Some("connect") => actions.connects += sample.value,
            Some("announce") => actions.announces += sample.value,
            Some("scrape") => actions.scrapes += sample.value,
            _ => {}
        }
    }

    fn add_swarm(&mut self, sample: &Sample) {
        let swarms = match sample.label("swarms") {
            Some(names::WEBTORRENT) => &mut self.webtorrent,
            _ => &mut self.bittorrent,
        };
        let family = usize::from(sample.label("family") == Some("ipv6"));
        let Some(swarm) = swarms.get_mut(family) else { return };
        match sample.label("role") {
            Some("seeder") => swarm.seeders += sample.value,
            Some(_) => swarm.leechers += sample.value,
            None => swarm.torrents += sample.value,
        }
    }

    fn add_core(&mut self, core: usize, sample: &Sample) {
        if core >= self.cores.len() && core < 1024 {
            self.cores.resize(core + 1, CoreFigures::default());
        }
        let Some(figures) = self.cores.get_mut(core) else { return };
        if sample.metric.name == names::CORE_BUSY_TIME.name {
            figures.busy_time = sample.value;
        } else if sample.metric.name == names::TICK_LAG.name {
            figures.lag = sample.value;
        }
    }

    fn add_loss(&mut self, metric: &'static Metric, sample: &Sample) {
        let is = |other: &Metric| metric.name == other.name;
        if is(&names::REFUSED) {
            self.refused += sample.value;
        } else if is(&names::DROPPED) || is(&names::KERNEL_DROPS) || is(&names::KERNEL_FILTERED) {
            self.dropped += sample.value;
            if sample.label("reason") == Some("bad_connection_id") {
                self.mismatches += sample.value;
            }
        }
        if sample.value > 0 {
            self.losses.push(Loss {
                what: metric.name.trim_start_matches("aquatic_"),
                labels: sample.labels.to_vec(),
                total: sample.value,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use aquatic_metrics::{Label, Registry};

    use super::*;

    #[test]
    fn numbers_are_picked_and_summed() {
        let registry = Registry::default();
        for core in 0..2 {
            let metrics = registry.core(core);
            let count = |metric, labels: &[Label], n| metrics.counter(metric, labels).add(n);
            let show = |metric, labels: &[Label], n| metrics.gauge(metric, labels).set(n);
            let udp4 = [("protocol", "udp"), ("family", "ipv4")];
            count(&names::REQUESTS, &[udp4[0], udp4[1], ("action", "connect")], 1);
            count(&names::REQUESTS, &[udp4[0], udp4[1], ("action", "announce")], 2);
            count(&names::REQUESTS, &[("protocol", "http"), ("family", "ipv6"), ("action", "scrape")], 4);
            count(&names::REQUESTS, &[("protocol", "http"), ("action", "health")], 8);
            count(&names::REFUSED, &[("protocol", "udp"), ("reason", "port")], 1);
            count(&names::DROPPED, &[udp4[0], udp4[1], ("reason", "malformed")], 1);
            count(&names::DROPPED, &[udp4[0], udp4[1], ("reason", "bad_connection_id")], 1);
            count(&names::KERNEL_DROPS, &udp4, 2);
            count(&names::SEND_ERRORS, &udp4, 0);
            count(&names::SENT_BYTES, &udp4, 100);
            let swarm = [("swarms", names::BITTORRENT), ("family", "ipv6")];
            show(&names::TORRENTS, &swarm, 3);
            show(&names::PEERS, &[swarm[0], swarm[1], ("role", "seeder")], 4);
            show(&names::PEERS, &[swarm[0], swarm[1], ("role", "leecher")], 5);
            let web = ("swarms", names::WEBTORRENT);
            show(&names::TORRENTS, &[web, ("family", names::BOTH_FAMILIES)], 6);
            show(&names::PEERS, &[web, ("family", "ipv4"), ("role", "leecher")], 7);
            show(&names::CONNECTIONS, &[("protocol", "ws")], 9);
            count(&names::CORE_BUSY_TIME, &[], 500 * (1 + core as u64));
            show(&names::DEGRADATION, &[("step", "old_peers")], core as u64);
            show(&names::DEGRADATION, &[("step", "new_peers")], 0);
            show(&names::BREAKER_OPEN, &[("protocol", "ws"), ("family", "ipv6")], core as u64);
            show(&names::BREAKER_OPEN, &udp4, 0);
        }
        let figures = Figures::of(&registry.samples());
        assert_eq!(figures.requests, [Some(6), None, None, Some(8), None, None]);
        assert_eq!(figures.requests.iter().flatten().sum::<u64>(), 14, "without health checks");
        assert_eq!(figures.actions[0], Actions { connects: 2, announces: 4, scrapes: 0 });
        assert_eq!(figures.actions[1].scrapes, 8);
        assert_eq!((figures.refused, figures.dropped, figures.sent), (2, 8, 200));
        assert_eq!(figures.mismatches, 2);
        assert_eq!((figures.peers(), figures.torrents()), ((8, 24), 18));
        assert_eq!(figures.connections, [None, Some(18)]);
        assert_eq!(figures.busy(&Figures::default(), 2000).collect::<Vec<_>>(), [0.25, 0.5]);
        assert_eq!(figures.busy(&figures, 2000).collect::<Vec<_>>(), [0.0, 0.0]);
        assert_eq!(figures.degraded, [("old_peers", 1)]);
        assert_eq!(figures.breakers, [("ws", "ipv6")]);
        let whats: Vec<_> = figures.losses.iter().map(|loss| (loss.what, loss.total)).collect();
        assert_eq!(whats, [("refused", 2), ("dropped", 2), ("dropped", 2), ("kernel_drops", 4)]);
    }

    #[test]
    fn routes_are_named_in_the_order_of_protocols() {
        let names: Vec<_> = (0..ROUTES).map(route_names).collect();
        assert_eq!(names[0], ("udp", "ipv4"));
        assert_eq!(names[3], ("http", "ipv6"));
        assert_eq!(names[5], ("ws", "ipv6"));
    }
}
