//! The figures as JSON. Its fields are described in `docs/status.md`.

use serde::Serialize;

use crate::figures::{CoreFigures, FAMILIES, Figures, Loss, ROUTES, Swarm, route_names};
use crate::history::{
    BUSY, CONNECTIONS, DROPPED, History, MEMORY, P50, P99, PEERS, Point, RECEIVED, REFUSED, REQUESTS, Range,
    SENT, TORRENTS, per_second,
};
use crate::sampler::Limits;

/// Version of the JSON. New fields need no new version.
const VERSION: u32 = 1;

/// Who sees the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Everybody.
    Public,
    /// Operators.
    Operator,
}

impl View {
    /// Both views.
    pub(crate) const ALL: [Self; 2] = [Self::Public, Self::Operator];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Operator => "operator",
        }
    }
}

/// Times of requests over one protocol in the last minute, in seconds; `None` without requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Latency {
    pub(crate) protocol: &'static str,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// All that documents are made from.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    /// Seconds since 1970.
    pub(crate) time: u64,
    /// Seconds since the start of the process.
    pub(crate) uptime: u64,
    pub(crate) figures: &'a Figures,
    /// Figures of the previous moment.
    pub(crate) earlier: &'a Figures,
    /// Milliseconds since the previous moment, and what was counted in them.
    pub(crate) milliseconds: u64,
    pub(crate) values: &'a crate::history::Values,
    pub(crate) history: &'a History,
    pub(crate) latency: &'a [Latency],
    pub(crate) limits: Limits,
    /// Viewers with a stream, and their maximum.
    pub(crate) streams: (usize, usize),
    pub(crate) announce_urls: &'a [String],
    /// The certificate, if the tracker obtains it.
    pub(crate) certificate: Option<CertificateReport>,
    /// The cluster, if this tracker is a node of one.
    pub(crate) cluster: Option<ClusterReport>,
}

/// State of the certificate that the tracker obtains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateReport {
    /// End of the one in use in seconds since 1970; `None` without one that clients trust.
    pub expires: Option<i64>,
    /// What there is to say about it.
    pub text: String,
    /// Whether the operator has something to do about it.
    pub warn: bool,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeReport {
    /// Name.
    pub name: String,
    /// Whether it is heard.
    pub live: bool,
    /// Microseconds that what it tells is under way, beyond the shortest such time.
    pub lag_us: u64,
    /// Gaps seen in what it tells.
    pub gaps: u64,
    /// Peers that it heard last.
    pub own_peers: u64,
    /// Live connections.
    pub connections: u64,
    /// Requests since its start.
    pub requests: u64,
}

/// State of the cluster, as this node sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterReport {
    /// Whether there is a connection to a NATS server.
    pub connected: bool,
    /// Whether this node knows what the others know.
    pub complete: bool,
    /// What there is to say about it.
    pub text: String,
    /// Whether the operator has something to do about it.
    pub warn: bool,
    /// All nodes, this one first.
    pub nodes: Vec<NodeReport>,
    /// Requests of all nodes while this one knew of them, and completed downloads.
    pub requests: u64,
    /// Completed downloads.
    pub completed: u64,
}

/// A count of events.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Events {
    pub(crate) per_second: f64,
    pub(crate) peak_24h: u64,
    pub(crate) last_24h: u64,
    pub(crate) all_time: u64,
}

/// Requests by protocol and family.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct RouteReport {
    pub(crate) protocol: &'static str,
    pub(crate) family: &'static str,
    #[serde(flatten)]
    pub(crate) events: Events,
}

#[derive(Debug, Serialize)]
pub(crate) struct Requests {
    #[serde(flatten)]
    pub(crate) events: Events,
    pub(crate) by: Vec<RouteReport>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct SwarmReport {
    pub(crate) swarms: &'static str,
    pub(crate) family: &'static str,
    pub(crate) torrents: u64,
    pub(crate) seeders: u64,
    pub(crate) leechers: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Peers {
    pub(crate) total: u64,
    pub(crate) seeders: u64,
    pub(crate) leechers: u64,
    pub(crate) torrents: u64,
    pub(crate) by: Vec<SwarmReport>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Open {
    pub(crate) protocol: &'static str,
    pub(crate) open: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Connections {
    pub(crate) open: u64,
    pub(crate) by: Vec<Open>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Traffic {
    pub(crate) received: Events,
    pub(crate) sent: Events,
}

/// Times in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct LatencyReport {
    pub(crate) protocol: &'static str,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
}

/// Counts that begin with the state directory.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Unserved {
    pub(crate) last_24h: u64,
    pub(crate) all_time: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct LimitReport {
    pub(crate) name: &'static str,
    pub(crate) used: u64,
    pub(crate) limit: u64,
    pub(crate) unit: &'static str,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct CoreReport {
    pub(crate) core: usize,
    pub(crate) busy: f64,
    pub(crate) lag_us: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct LossReport {
    pub(crate) what: &'static str,
    pub(crate) labels: serde_json::Map<String, serde_json::Value>,
    pub(crate) total: u64,
    pub(crate) per_second: f64,
}

/// A protocol and family that is refused.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct OpenBreaker {
    pub(crate) protocol: &'static str,
    pub(crate) family: &'static str,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Degradation {
    pub(crate) without: &'static str,
    pub(crate) cores: u64,
}

/// What only operators see.
#[derive(Debug, Serialize)]
pub(crate) struct OperatorReport {
    pub(crate) program: &'static str,
    pub(crate) memory_bytes: u64,
    pub(crate) refused_per_second: f64,
    pub(crate) dropped_per_second: f64,
    pub(crate) overloaded_cores: u64,
    pub(crate) rate_limiting_cores: u64,
    pub(crate) open_breakers: Vec<OpenBreaker>,
    pub(crate) degradation: Vec<Degradation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<CertificateReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<ClusterReport>,
    pub(crate) cores: Vec<CoreReport>,
    pub(crate) limits: Vec<LimitReport>,
    pub(crate) losses: Vec<LossReport>,
}

/// Newest points of all ranges, so that viewers of a stream can draw charts.
#[derive(Debug, Serialize)]
pub(crate) struct Newest {
    pub(crate) minute: Row,
    pub(crate) hour: Row,
    pub(crate) day: Row,
    pub(crate) month: Row,
}

/// Time and values of the columns of a chart.
pub(crate) type Row = Vec<Option<f64>>;

/// The points of one range.
#[derive(Debug, Serialize)]
pub(crate) struct HistoryReport {
    pub(crate) range: &'static str,
    pub(crate) step: u64,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) points: Vec<Row>,
}

/// The whole JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) version: u32,
    pub(crate) view: &'static str,
    pub(crate) time: u64,
    pub(crate) uptime: u64,
    pub(crate) counted_since: u64,
    pub(crate) availability_30d: f64,
    pub(crate) requests: Requests,
    pub(crate) refused: Unserved,
    pub(crate) dropped: Unserved,
    pub(crate) peers: Peers,
    pub(crate) connections: Connections,
    pub(crate) traffic_bytes: Traffic,
    pub(crate) latency: Vec<LatencyReport>,
    pub(crate) announce_urls: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operator: Option<OperatorReport>,
    pub(crate) newest: Newest,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) history: Option<HistoryReport>,
}

/// A column of charts.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    value: fn(&Point) -> Option<f64>,
    /// Digits behind the decimal point.
    digits: i32,
    /// Whether everybody may see it.
    pub(crate) public: bool,
}

impl std::fmt::Debug for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const fn public(name: &'static str, digits: i32, value: fn(&Point) -> Option<f64>) -> Column {
    Column { name, value, digits, public: true }
}

const fn private(name: &'static str, digits: i32, value: fn(&Point) -> Option<f64>) -> Column {
    Column { name, value, digits, public: false }
}

/// Columns of charts. Those of everybody come first.
pub(crate) const COLUMNS: [Column; 14] = [
    public("requests", 1, |point| point.mean(REQUESTS)),
    public("requests_peak", 0, |point| Some(point.max(REQUESTS) as f64)),
    public("requests_udp", 1, |point| protocol_mean(point, 0)),
    public("requests_http", 1, |point| protocol_mean(point, 1)),
    public("requests_ws", 1, |point| protocol_mean(point, 2)),
    public("peers", 0, |point| point.mean(PEERS)),
    public("torrents", 0, |point| point.mean(TORRENTS)),
    public("connections", 0, |point| point.mean(CONNECTIONS)),
    public("p50_us", 1, |point| point.mean(P50).map(|ns| ns / 1000.0)),
    public("p99_us", 1, |point| point.mean(P99).map(|ns| ns / 1000.0)),
    private("refused", 1, |point| point.mean(REFUSED)),
    private("dropped", 1, |point| point.mean(DROPPED)),
    private("busy", 3, |point| point.mean(BUSY).map(|permille| permille / 1000.0)),
    private("memory_bytes", 0, |point| point.mean(MEMORY)),
];

fn protocol_mean(point: &Point, protocol: usize) -> Option<f64> {
    let first = protocol * FAMILIES.len();
    (first..first + FAMILIES.len()).map(|route| point.mean(route)).sum()
}

fn round(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

/// The columns that a view has.
pub(crate) fn columns(view: View) -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(move |column| column.public || view == View::Operator)
}

/// Beginning of a period, and the columns of its point.
pub(crate) fn row(start: u64, point: Option<&Point>, view: View) -> Row {
    let value = |column: &Column| {
        let value = point.and_then(|point| (column.value)(point));
        value.filter(|value| value.is_finite()).map(|value| round(value, column.digits))
    };
    [Some(start as f64)].into_iter().chain(columns(view).map(value)).collect()
}

impl Moment<'_> {
    /// The report for a view; with the history of a range, if one is asked for.
    pub(crate) fn report(&self, view: View, range: Option<Range>) -> Report<'_> {
        let history = self.history;
        let unserved = |series| Unserved {
            last_24h: history.last_day(series),
            all_time: history.totals.sums.get(series).copied().unwrap_or_default(),
        };
        Report {
            version: VERSION,
            view: view.name(),
            time: self.time,
            uptime: self.uptime,
            counted_since: history.totals.since,
            availability_30d: round(history.availability(self.time), 5),
            requests: self.requests(),
            refused: unserved(REFUSED),
            dropped: unserved(DROPPED),
            peers: self.peers(),
            connections: self.connections(),
            traffic_bytes: Traffic { received: self.events(RECEIVED), sent: self.events(SENT) },
            latency: self.latency.iter().map(latency).collect(),
            announce_urls: self.announce_urls,
            operator: (view == View::Operator).then(|| self.operator()),
            newest: self.newest(view),
            history: range.map(|range| self.points(range, view)),
        }
    }

    fn events(&self, series: usize) -> Events {
        let value = self.values.get(series).copied().unwrap_or_default();
        Events {
            per_second: round(per_second(value, self.milliseconds), 1),
            peak_24h: self.history.peak_of_day(series),
            last_24h: self.history.last_day(series),
            all_time: self.history.totals.sums.get(series).copied().unwrap_or_default(),
        }
    }

    fn requests(&self) -> Requests {
        let is_served = |route: &usize| {
            let served = self.figures.requests.get(*route).is_some_and(Option::is_some);
            served || self.history.totals.sums.get(*route).is_some_and(|sum| *sum > 0)
        };
        let report = |route| {
            let (protocol, family) = route_names(route);
            RouteReport { protocol, family, events: self.events(route) }
        };
        Requests { events: self.events(REQUESTS), by: (0..ROUTES).filter(is_served).map(report).collect() }
    }

    fn peers(&self) -> Peers {
        let (seeders, leechers) = self.figures.peers();
        let of = |swarms, own: &[Swarm; 2]| {
            own.iter()
                .zip(FAMILIES)
                .map(move |(swarm, family)| {
                    let Swarm { torrents, seeders, leechers } = *swarm;
                    SwarmReport { swarms, family, torrents, seeders, leechers }
                })
                .collect::<Vec<_>>()
        };
        let by = [of("bittorrent", &self.figures.bittorrent), of("webtorrent", &self.figures.webtorrent)];
        let by = by.concat();
        Peers { total: seeders + leechers, seeders, leechers, torrents: self.figures.torrents(), by }
    }

    fn connections(&self) -> Connections {
        let open = self.figures.connections.iter().zip(["http", "ws"]);
        let by = open.filter_map(|(open, protocol)| Some(Open { protocol, open: (*open)? })).collect();
        Connections { open: self.figures.all_connections(), by }
    }

    fn operator(&self) -> OperatorReport {
        let figures = self.figures;
        let busy = figures.busy(self.earlier, self.milliseconds.saturating_mul(1_000_000));
        let core = |(core, (figures, busy)): (usize, (&CoreFigures, f64))| CoreReport {
            core,
            busy: round(busy, 3),
            lag_us: figures.lag,
        };
        OperatorReport {
            program: concat!("aquatic ", env!("CARGO_PKG_VERSION")),
            memory_bytes: figures.memory,
            refused_per_second: self.events(REFUSED).per_second,
            dropped_per_second: self.events(DROPPED).per_second,
            overloaded_cores: figures.overloaded,
            rate_limiting_cores: figures.rate_limiting,
            open_breakers: figures
                .breakers
                .iter()
                .map(|&(protocol, family)| OpenBreaker { protocol, family })
                .collect(),
            degradation: figures
                .degraded
                .iter()
                .map(|(without, cores)| Degradation { without, cores: *cores })
                .collect(),
            certificate: self.certificate.clone(),
            cluster: self.cluster.clone(),
            cores: figures.cores.iter().zip(busy).enumerate().map(core).collect(),
            limits: self.limits(),
            losses: figures.losses.iter().map(|loss| self.loss(loss)).collect(),
        }
    }

    /// Limits that are known, and how much of each is used.
    fn limits(&self) -> Vec<LimitReport> {
        let figures = self.figures;
        let (seeders, leechers) = figures
            .bittorrent
            .iter()
            .fold((0, 0), |(seeders, leechers), swarm| (seeders + swarm.seeders, leechers + swarm.leechers));
        let torrents = figures.bittorrent.iter().map(|swarm| swarm.torrents).sum();
        let Limits { connections, peers, torrents: max_torrents } = self.limits;
        // Open files and memory may allow fewer than are configured.
        let connections = if figures.max_connections > 0 { figures.max_connections } else { connections };
        let limit = |name, used, limit, unit| LimitReport { name, used, limit, unit };
        let all = [
            limit("connections.max_connections", figures.all_connections(), connections, "n"),
            limit("limits.max_peers", seeders + leechers, peers, "n"),
            limit("limits.max_torrents", torrents, max_torrents, "n"),
            limit("limits.max_memory", figures.store, figures.store_budget, "bytes"),
            limit("open files", figures.open_files, figures.max_open_files, "n"),
            limit("status.max_streams", self.streams.0 as u64, self.streams.1 as u64, "n"),
        ];
        all.into_iter().filter(|limit| limit.limit > 0).collect()
    }

    fn loss(&self, loss: &Loss) -> LossReport {
        let before =
            self.earlier.losses.iter().find(|other| other.what == loss.what && other.labels == loss.labels);
        let new = loss.total.saturating_sub(before.map_or(0, |before| before.total));
        let label = |(name, value): &(&'static str, &'static str)| ((*name).to_owned(), (*value).into());
        LossReport {
            what: loss.what,
            labels: loss.labels.iter().map(label).collect(),
            total: loss.total,
            per_second: round(per_second(new, self.milliseconds), 1),
        }
    }

    fn newest(&self, view: View) -> Newest {
        let newest = |range| {
            let step = Range::step(range);
            let point = self.history.ring(range).points.back();
            row(point.map_or(self.time - self.time % step, |point| point.start), point, view)
        };
        Newest {
            minute: newest(Range::Minute),
            hour: newest(Range::Hour),
            day: newest(Range::Day),
            month: newest(Range::Month),
        }
    }

    /// The points of a range.
    pub(crate) fn points(&self, range: Range, view: View) -> HistoryReport {
        let periods = self.history.ring(range).periods(self.time);
        HistoryReport {
            range: range.name(),
            step: range.step(),
            columns: ["time"].into_iter().chain(columns(view).map(|column| column.name)).collect(),
            points: periods.into_iter().map(|(start, point)| row(start, point, view)).collect(),
        }
    }
}

fn latency(latency: &Latency) -> LatencyReport {
    let Latency { protocol, p50, p99 } = *latency;
    let microseconds = |seconds: Option<f64>| seconds.map(|seconds| round(seconds * 1e6, 1));
    LatencyReport { protocol, p50_us: microseconds(p50), p99_us: microseconds(p99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_everybody_come_first_and_others_are_hidden() {
        let public = COLUMNS.iter().take_while(|column| column.public).count();
        assert!(COLUMNS[public..].iter().all(|column| !column.public));
        let names: Vec<_> = columns(View::Public).map(|column| column.name).collect();
        assert!(names.iter().all(|name| !["refused", "dropped", "busy", "memory_bytes"].contains(name)));
        assert_eq!(columns(View::Operator).count(), COLUMNS.len());
    }
}
