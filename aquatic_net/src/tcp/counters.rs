//! What is counted about connections, on each core.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::deadlines::Phase;
use super::tls_fault::TlsFault;
use aquatic_common::Family;
use aquatic_common::episodes::{EpisodeEvent, Episodes};
use aquatic_metrics::{CoreMetrics, Counter, Gauge, names};

/// Values of the label `protocol` in metrics.
#[derive(Clone, Copy, Debug)]
pub struct Protocols {
    /// Of new connections.
    pub first: &'static str,
    /// Of connections that have been upgraded.
    pub upgraded: &'static str,
}

/// Why a connection is closed before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many connections.
    Limit,
    /// Too many connections from one address.
    Address,
    /// The process has no descriptor left.
    Descriptors,
    /// The socket cannot be registered or has no address any more.
    Broken,
    /// Too many TLS handshakes wait for their turn.
    Handshakes,
    /// A header of the PROXY protocol was expected.
    ProxyMissing,
    /// The header of the PROXY protocol is none.
    ProxyMalformed,
    /// The header of the PROXY protocol names an address that no peer can have.
    ProxyUnusable,
    /// A plain connection where TLS is needed.
    PlainOnTls,
    /// The source, or the network around it, opens connections above its rate limit.
    Rate,
    /// The source is on the block list.
    Blocked,
    /// The breakers of all protocols of the listener are open.
    Breaker,
}

impl Refused {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Limit, "limit"),
        (Self::Address, "limit_per_address"),
        (Self::Descriptors, "descriptors"),
        (Self::Broken, "broken"),
        (Self::Handshakes, "handshakes"),
        (Self::ProxyMissing, "proxy_header_missing"),
        (Self::ProxyMalformed, "proxy_header_malformed"),
        (Self::ProxyUnusable, "proxy_header_unusable"),
        (Self::PlainOnTls, "plain_on_tls"),
        (Self::Rate, "rate_limit"),
        (Self::Blocked, "blocked"),
        (Self::Breaker, "breaker"),
    ];
}

/// What is counted for each protocol that a connection may have in its life.
#[derive(Debug)]
pub(super) struct ProtocolCounters {
    pub(super) open: Gauge,
    pub(super) timeouts: [Counter; Phase::ALL.len()],
}

impl ProtocolCounters {
    fn new(metrics: &CoreMetrics, protocol: &'static str) -> Self {
        let protocol = ("protocol", protocol);
        Self {
            open: metrics.gauge(&names::CONNECTIONS, &[protocol]),
            timeouts: Phase::ALL.map(|phase| {
                metrics.counter(&names::CONNECTION_TIMEOUTS, &[protocol, ("reason", phase.name())])
            }),
        }
    }
}

#[derive(Debug)]
pub(super) struct Counters {
    pub(super) accepted: Counter,
    pub(super) handed_off: Counter,
    pub(super) accept_errors: Counter,
    pub(super) protocol: ProtocolCounters,
    /// Of connections that another protocol has taken over.
    pub(super) upgraded: ProtocolCounters,
    refused: [Counter; Refused::ALL.len()],
    pub(super) handshakes: Counter,
    pub(super) resumed: Counter,
    pub(super) handshake_errors: Counter,
    tls_faults: [Counter; TlsFault::ALL.len()],
    pub(super) handshaking: Gauge,
    /// Connections ended to make room for others.
    pub(super) evicted_connections: Counter,
    /// Handshakes ended to make room for others.
    pub(super) evicted_handshakes: Counter,
    /// Connections ended because their address had too many.
    pub(super) evicted_for_address: Counter,
    pub(super) proxy_unused: Counter,
    /// Connections above a rate limit that were accepted all the same.
    pub(super) above_in_dry_run: Counter,
    /// Whether sources are above their rate limit.
    pub(super) rate_limiting: Gauge,
    /// Whether handshakes of sources that take little are rejected, by protocol and family.
    overloaded: Vec<[Gauge; 2]>,
    rejected: [Cell<bool>; 2],
    overloads: [RefCell<Episodes<()>>; 2],
    /// Maximum number of connections of all cores; shown by one of them.
    pub(super) limit: Gauge,
    /// Connections of this core.
    pub(super) in_use: Gauge,
}

impl Counters {
    pub(super) fn new(metrics: &CoreMetrics, protocols: Protocols) -> Self {
        let protocol = ("protocol", protocols.first);
        let counter = |metric, key, value| metrics.counter(metric, &[protocol, (key, value)]);
        let mut all = vec![protocols.first, protocols.upgraded];
        all.dedup();
        let overloaded = |&protocol: &&'static str| {
            Family::ALL.map(|family| {
                let labels = [("protocol", protocol), ("family", family.name())];
                metrics.gauge(&names::OVERLOADED, &labels)
            })
        };
        let limit = |metric| metrics.gauge(metric, &[("limit", "connections.max_connections")]);
        Self {
            accepted: metrics.counter(&names::CONNECTIONS_ACCEPTED, &[protocol]),
            handed_off: metrics.counter(&names::CONNECTIONS_MOVED, &[protocol]),
            accept_errors: metrics.counter(&names::ACCEPT_ERRORS, &[protocol]),
            protocol: ProtocolCounters::new(metrics, protocols.first),
            upgraded: ProtocolCounters::new(metrics, protocols.upgraded),
            refused: Refused::ALL.map(|(_, name)| counter(&names::CONNECTIONS_REFUSED, "reason", name)),
            handshakes: counter(&names::HANDSHAKES, "outcome", "full"),
            resumed: counter(&names::HANDSHAKES, "outcome", "resumed"),
            handshake_errors: counter(&names::HANDSHAKES, "outcome", "failed"),
            evicted_connections: counter(&names::CONNECTIONS_EVICTED, "reason", "limit"),
            evicted_handshakes: counter(&names::CONNECTIONS_EVICTED, "reason", "handshakes"),
            evicted_for_address: counter(&names::CONNECTIONS_EVICTED, "reason", "limit_per_address"),
            tls_faults: TlsFault::ALL.map(|(_, name)| counter(&names::TLS_FAULTS, "reason", name)),
            handshaking: metrics.gauge(&names::HANDSHAKING, &[protocol]),
            proxy_unused: metrics.counter(&names::PROXY_UNUSED, &[protocol]),
            above_in_dry_run: metrics.counter(&names::RATE_LIMIT_DRY_RUN, &[protocol]),
            rate_limiting: metrics.gauge(&names::RATE_LIMITING, &[protocol]),
            overloaded: all.iter().map(overloaded).collect(),
            rejected: Default::default(),
            overloads: Default::default(),
            limit: limit(&names::LIMIT),
            in_use: limit(&names::LIMIT_IN_USE),
        }
    }

    /// Counts a handshake that is rejected because too many wait for their turn, although its source takes
    /// little.
    pub(super) fn reject_light_handshake(&self, family: Family, now: Duration) {
        self.rejected[family.index()].set(true);
        self.overloads[family.index()].borrow_mut().count((), now);
    }

    /// Shows whether such handshakes were rejected since the last time, and returns what has to be told about
    /// them, by family.
    pub(super) fn report_overload(&self, now: Duration) -> impl Iterator<Item = (Family, EpisodeEvent<()>)> {
        Family::ALL.into_iter().filter_map(move |family| {
            let was_rejected = self.rejected[family.index()].take();
            for gauges in &self.overloaded {
                gauges[family.index()].set(was_rejected.into());
            }
            let event = self.overloads[family.index()].borrow_mut().event(now)?;
            Some((family, event))
        })
    }

    /// Counts why a handshake failed or TLS ended a connection, if it is known.
    pub(super) fn tls_fault(&self, fault: Option<TlsFault>) {
        if let Some(fault) = fault {
            self.tls_faults[fault as usize].add(1);
        }
    }

    pub(super) fn refuse(&self, why: Refused) {
        self.refused[why as usize].add(1);
    }
}
