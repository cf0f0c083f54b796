//! Networks that ask for much, and how the capacity is divided among them.

use std::time::Duration;

use aquatic_common::Prefix;
use aquatic_net::udp::Share;

/// Least share of a network's or of all connects' datagrams that passes: a measure of the rest.
const LEAST_SHARE: f64 = 0.002;

/// A network that asks for much.
#[derive(Clone, Debug)]
pub(super) struct Heavy {
    pub(super) prefix: Prefix,
    pub(super) weight: f64,
    /// Datagrams per second that it sends, as far as is known.
    pub(super) rate: f64,
    /// Datagrams sent since the last interval, as far as can be told from those received.
    pub(super) seen: f64,
    /// Share that is to pass, the one that the kernel lets pass, and the one that it had let pass of what is
    /// received now, which may have waited.
    pub(super) share: f64,
    pub(super) in_kernel: f64,
    pub(super) passed: f64,
    /// Fraction of a datagram that may pass where this core drops by itself.
    credit: f64,
    pub(super) listed: Duration,
}

impl Heavy {
    /// A network of which everything passes so far.
    pub(super) fn new(prefix: Prefix, weight: f64, rate: f64, listed: Duration) -> Self {
        Self { prefix, weight, rate, seen: 0.0, share: 1.0, in_kernel: 1.0, passed: 1.0, credit: 0.0, listed }
    }

    /// Whether a datagram is to be dropped by the core.
    pub(super) fn drops(&mut self, is_draining: bool, has_filter: bool) -> bool {
        self.seen += 1.0 / self.passed;
        if self.share >= 1.0 {
            return false;
        }
        if has_filter && !is_draining {
            return false;
        }
        self.credit += self.share;
        let passes = self.credit >= 1.0;
        if passes {
            self.credit -= 1.0;
        }
        !passes
    }
}

/// The heaviest network among those that logs may name, and the datagrams per second it sends.
pub(super) fn heaviest(heavy: &[Heavy]) -> Option<(Prefix, f64)> {
    let of = |shown: Prefix| heavy.iter().filter(move |heavy| shown.includes(&heavy.prefix));
    let shown = heavy.iter().map(|heavy| heavy.prefix.shown());
    let sums = shown.map(|shown| (shown, of(shown).map(|heavy| heavy.rate).sum::<f64>()));
    sums.max_by(|(_, a), (_, b)| a.total_cmp(b))
}

/// The level at which networks that are cut down to it, times their weights, ask for this much together.
pub(super) fn level<'a>(heavy: impl Iterator<Item = &'a Heavy>, available: f64) -> f64 {
    let mut left: Vec<&Heavy> = heavy.collect();
    // The first that is above the level stays above it, and so do all behind it.
    left.sort_unstable_by(|a, b| (a.rate / a.weight).total_cmp(&(b.rate / b.weight)));
    let mut weights: f64 = left.iter().map(|heavy| heavy.weight).sum();
    let mut available = available;
    for heavy in left {
        let level = available / weights;
        if heavy.rate > level * heavy.weight {
            return level;
        }
        available -= heavy.rate;
        weights -= heavy.weight;
    }
    f64::INFINITY
}

/// The share that passes of a rate.
pub(super) fn share_of(allowed: f64, rate: f64) -> f64 {
    if rate <= allowed { 1.0 } else { (allowed / rate).max(LEAST_SHARE) }
}

/// A share as a filter has it.
pub(super) fn in_kernel_units(share: f64) -> Share {
    if share >= 1.0 { Share::MAX } else { (share * f64::from(Share::MAX)) as Share }
}
