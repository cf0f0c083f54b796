//! Hands the plain counts of one core to the metrics.

use aquatic_common::Family;
use aquatic_common::config::Limit;
use aquatic_runtime::metrics::{CoreMetrics, Counter, Label, Metric, names};
use aquatic_runtime::udp::{SendErrors, UdpSocket};

use crate::counters::{Action, Counters, Refusal};

const PROTOCOL: Label = ("protocol", "udp");

/// The series of one core, each with the total it was last brought up to.
pub(crate) struct Report {
    series: Vec<(Counter, u64)>,
    kernel_drops: Vec<(Counter, u32)>,
}

/// Everything the service counts by itself.
#[derive(Clone, Copy, Default)]
pub(crate) struct SocketCounts {
    /// Replies the kernel did not take.
    pub(crate) send_errors: SendErrors,
    /// Failed attempts to receive.
    pub(crate) receive_errors: u64,
}

impl Report {
    pub(crate) fn new(metrics: &CoreMetrics, sockets: &[UdpSocket]) -> Self {
        let series = rows(&Counters::default(), &SocketCounts::default())
            .into_iter()
            .map(|row| (metrics.counter(row.metric, &row.labels), 0))
            .collect();
        let drops = |socket: &UdpSocket| {
            let labels = [PROTOCOL, ("family", socket.family().name())];
            (metrics.counter(&names::KERNEL_DROPS, &labels), 0)
        };
        Self { series, kernel_drops: sockets.iter().map(drops).collect() }
    }

    /// Brings the metrics up to these totals.
    pub(crate) fn publish(&mut self, counters: &Counters, sockets: &SocketCounts) {
        for ((counter, published), row) in self.series.iter_mut().zip(rows(counters, sockets)) {
            counter.add(row.total - *published);
            *published = row.total;
        }
    }

    /// Asks the kernel what it has dropped at a listener's socket. Kernels that do not tell are left alone: the figure
    /// then stays at zero.
    pub(crate) fn kernel_drops(&mut self, listener: usize, socket: &UdpSocket) {
        let Some((counter, seen)) = self.kernel_drops.get_mut(listener) else { return };
        if let Ok(dropped) = socket.dropped() {
            counter.add(u64::from(dropped.wrapping_sub(*seen)));
            *seen = dropped;
        }
    }
}

struct Row {
    metric: &'static Metric,
    labels: Vec<Label>,
    total: u64,
}

/// All series in a fixed order.
fn rows(counters: &Counters, sockets: &SocketCounts) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |metric, labels: &[Label], total| {
        rows.push(Row { metric, labels: [&[PROTOCOL], labels].concat(), total });
    };
    for family in Family::ALL {
        let label = ("family", family.name());
        for action in Action::ALL {
            let labels = [label, ("action", action.name())];
            row(&names::REQUESTS, &labels, counters.requests(family, action));
            row(&names::RESPONSES, &labels, counters.responses(family, action));
        }
        row(&names::RESPONSES, &[label, ("action", "error")], counters.errors_sent[family.index()]);
        for refusal in Refusal::ALL {
            let metric = if refusal.text().is_some() { &names::REFUSED } else { &names::DROPPED };
            row(metric, &[label, ("reason", refusal.name())], counters.refused(family, refusal));
        }
        let [received, sent] = counters.bytes[family.index()];
        row(&names::RECEIVED_BYTES, &[label], received);
        row(&names::SENT_BYTES, &[label], sent);
    }
    row(&names::FORWARDED, &[], counters.forwarded);
    for limit in Limit::ALL {
        row(&names::NOT_STORED, &[("reason", limit.name())], counters.not_stored[limit as usize]);
    }
    for (reason, total) in sockets.send_errors.by_reason() {
        row(&names::SEND_ERRORS, &[("reason", reason)], total);
    }
    row(&names::RECEIVE_ERRORS, &[], sockets.receive_errors);
    rows
}
