//! What is counted on each core about the sockets themselves: errors and the kernel's drops.

use aquatic_common::Family;
use aquatic_metrics::{CoreMetrics, Counter, Label, names};
use aquatic_net::udp::{SendErrors, UdpSocket};

const PROTOCOL: Label = ("protocol", "udp");

/// The counters of one core's sockets.
pub(crate) struct SocketCounters {
    pub(crate) receive_errors: Counter,
    send_errors: Vec<Counter>,
    /// For each listener the counter and the kernel's figure that it was last brought up to.
    kernel_drops: Vec<(Counter, u32)>,
}

impl SocketCounters {
    pub(crate) fn new(metrics: &CoreMetrics, families: impl IntoIterator<Item = Family>) -> Self {
        let drops = |family: Family| {
            (metrics.counter(&names::KERNEL_DROPS, &[PROTOCOL, ("family", family.name())]), 0)
        };
        let send_errors = SendErrors::default().by_reason().into_iter();
        Self {
            receive_errors: metrics.counter(&names::RECEIVE_ERRORS, &[PROTOCOL]),
            send_errors: send_errors
                .map(|(reason, _)| metrics.counter(&names::SEND_ERRORS, &[PROTOCOL, ("reason", reason)]))
                .collect(),
            kernel_drops: families.into_iter().map(drops).collect(),
        }
    }

    /// Counts replies that the kernel did not take.
    pub(crate) fn send_errors(&self, errors: &SendErrors) {
        for (counter, (_, count)) in self.send_errors.iter().zip(errors.by_reason()) {
            counter.add(count);
        }
    }

    /// Reads what the kernel has dropped at a listener's socket. Where it does not tell, the figure stays at
    /// zero.
    pub(crate) fn kernel_drops(&mut self, listener: usize, socket: &UdpSocket) {
        let Some((counter, seen)) = self.kernel_drops.get_mut(listener) else { return };
        if let Ok(dropped) = socket.dropped() {
            counter.add(u64::from(dropped.wrapping_sub(*seen)));
            *seen = dropped;
        }
    }
}
