//! What is counted on each core about the sockets themselves: errors and the kernel's drops.

use std::cell::Cell;
use std::time::Duration;

use aquatic_common::Family;
use aquatic_metrics::{CoreMetrics, Counter, Gauge, Histogram, Label, names};
use aquatic_net::udp::{QueueState, SendErrors};
use aquatic_tracker::Reason;

const PROTOCOL: Label = ("protocol", "udp");

/// How datagrams come to a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Through the socket of the listener.
    Socket,
    /// Through a queue of the network interface, by its position.
    Queue(usize),
}

/// Why a socket has a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterReason {
    /// More arrives than can be served.
    Overload,
    /// The breaker is open.
    Breaker,
}

impl FilterReason {
    const ALL: [Self; 2] = [Self::Overload, Self::Breaker];

    /// The name that a request dropped by the tracker for the same reason is counted by.
    fn name(self) -> &'static str {
        match self {
            Self::Overload => Reason::Overload.name(),
            Self::Breaker => Reason::Breaker.name(),
        }
    }
}

impl Path {
    fn bit(self) -> u64 {
        match self {
            Self::Socket => 1,
            Self::Queue(queue) => 2 << (queue % 63),
        }
    }
}

/// The counters of one core's sockets.
pub(crate) struct SocketCounters {
    pub(crate) receive_errors: Counter,
    send_errors: Vec<Counter>,
    durations: Histogram,
    listeners: Vec<ListenerCounters>,
}

/// What is counted for a listener.
struct ListenerCounters {
    /// Dropped because the receive buffer was full.
    drops: Counter,
    /// Dropped by a filter, by reason.
    filtered: [Counter; 2],
    overloaded: Gauge,
    /// What is overloaded, as bits.
    overloads: Cell<u64>,
    /// Packets received together.
    batch_sizes: Histogram,
    /// The kernel's figure that the counters were last brought up to.
    seen: u32,
}

impl SocketCounters {
    pub(crate) fn new(metrics: &CoreMetrics, families: impl IntoIterator<Item = Family>) -> Self {
        let of_listener = |family: Family| {
            let labels = [PROTOCOL, ("family", family.name())];
            ListenerCounters {
                drops: metrics.counter(&names::KERNEL_DROPS, &labels),
                filtered: FilterReason::ALL.map(|reason| {
                    let [protocol, family] = labels;
                    metrics.counter(&names::KERNEL_FILTERED, &[protocol, family, ("reason", reason.name())])
                }),
                overloaded: metrics.gauge(&names::OVERLOADED, &labels),
                overloads: Cell::new(0),
                batch_sizes: metrics.histogram(&names::BATCH_SIZE, &labels),
                seen: 0,
            }
        };
        let send_errors = SendErrors::default().by_reason().into_iter();
        Self {
            receive_errors: metrics.counter(&names::RECEIVE_ERRORS, &[PROTOCOL]),
            send_errors: send_errors
                .map(|(reason, _)| metrics.counter(&names::SEND_ERRORS, &[PROTOCOL, ("reason", reason)]))
                .collect(),
            durations: metrics.histogram(&names::REQUEST_DURATION, &[PROTOCOL]),
            listeners: families.into_iter().map(of_listener).collect(),
        }
    }

    /// Counts replies that the kernel did not take.
    pub(crate) fn send_errors(&self, errors: &SendErrors) {
        for (counter, (_, count)) in self.send_errors.iter().zip(errors.by_reason()) {
            counter.add(count);
        }
    }

    /// Counts a received batch.
    pub(crate) fn batch(&self, listener: usize, packets: usize) {
        if let Some(counters) = self.listeners.get(listener) {
            counters.batch_sizes.add(packets as u64, 1);
        }
    }

    /// Counts requests that were served in so much time. Those of a batch all took as long as the batch.
    pub(crate) fn served(&self, requests: usize, time: Duration) {
        self.durations.add_time(time, requests as u64);
    }

    /// Takes what a socket has dropped so far for known: it was dropped by another process.
    pub(crate) fn begin(&mut self, listener: usize, queue: QueueState) {
        if let Some(counters) = self.listeners.get_mut(listener) {
            counters.seen = queue.dropped;
        }
    }

    /// Counts what the kernel has dropped at a listener's socket since the last time. It does not tell
    /// whether the receive buffer was full: while a filter keeps it short, the filter counts as the reason.
    pub(crate) fn kernel_drops(&mut self, listener: usize, queue: QueueState, filter: Option<FilterReason>) {
        let Some(counters) = self.listeners.get_mut(listener) else { return };
        let counter = match filter {
            Some(FilterReason::Overload) => &counters.filtered[0],
            Some(FilterReason::Breaker) => &counters.filtered[1],
            None => &counters.drops,
        };
        counter.add(u64::from(queue.dropped.wrapping_sub(counters.seen)));
        counters.seen = queue.dropped;
    }

    /// Shows whether a listener is overloaded, by what comes this way or another.
    pub(crate) fn overloaded(&self, listener: usize, path: Path, is_overloaded: bool) {
        let Some(counters) = self.listeners.get(listener) else { return };
        let bit = path.bit();
        let others = counters.overloads.get() & !bit;
        counters.overloads.set(if is_overloaded { others | bit } else { others });
        counters.overloaded.set((counters.overloads.get() != 0).into());
    }
}
