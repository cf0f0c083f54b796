//! Peers that a prefill has yet to announce.

use std::ops::Range;

use crate::clock::Nanos;

/// Number of timeouts without a served request after which a prefill ends: the tracker has gone.
const MAX_SILENT_TIMEOUTS: Nanos = 5;

/// Whether anything is still served.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    served: u64,
    since: Nanos,
    patience: Nanos,
}

impl Progress {
    /// Progress from now on, of requests with this timeout.
    #[must_use]
    pub fn new(now: Nanos, timeout: Nanos) -> Self {
        Self { served: 0, since: now, patience: timeout.saturating_mul(MAX_SILENT_TIMEOUTS) }
    }

    /// Whether nothing has been served for several timeouts, given how much has been in all.
    pub fn has_stalled(&mut self, now: Nanos, served: u64) -> bool {
        if served != self.served {
            (self.served, self.since) = (served, now);
        }
        now.saturating_sub(self.since) > self.patience
    }
}

/// Peers that have not been announced successfully.
#[derive(Clone, Debug)]
pub struct PendingPeers {
    untried: Range<u64>,
    /// Peers whose announce failed, and the number of failed attempts.
    failed: Vec<(u64, u8)>,
}

impl PendingPeers {
    /// Creates the list with all of these peers.
    #[must_use]
    pub fn new(peers: Range<u64>) -> Self {
        Self { untried: peers, failed: Vec::new() }
    }

    /// Whether no peer is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.untried.is_empty() && self.failed.is_empty()
    }

    /// Number of peers that are left.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.untried.end.saturating_sub(self.untried.start) + self.failed.len() as u64
    }

    /// Removes a peer to announce, and returns it with the number of earlier attempts.
    pub fn take(&mut self) -> Option<(u64, u8)> {
        self.failed.pop().or_else(|| Some((self.untried.next()?, 0)))
    }

    /// Returns a peer whose announce was not sent.
    pub fn put_back(&mut self, peer: u64, tried: u8) {
        self.failed.push((peer, tried));
    }

    /// Records a failed announce after `tried` earlier attempts. Returns true if that was the last of
    /// `attempts`; the peer is dropped then.
    pub fn announce_failed(&mut self, peer: u64, tried: u8, attempts: u8) -> bool {
        let tried = tried.saturating_add(1);
        if tried < attempts {
            self.put_back(peer, tried);
        }
        tried >= attempts
    }

    /// Drops the peers whose announce failed.
    pub fn drop_failed(&mut self) {
        self.failed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_retried_until_attempts_run_out() {
        let mut peers = PendingPeers::new(5..7);
        assert_eq!((peers.take(), peers.len()), (Some((5, 0)), 1));
        assert!(!peers.announce_failed(5, 0, 2));
        assert_eq!(peers.take(), Some((5, 1)));
        assert!(peers.announce_failed(5, 1, 2));
        assert_eq!((peers.take(), peers.take(), peers.is_empty()), (Some((6, 0)), None, true));
        peers.put_back(6, 0);
        assert_eq!((peers.is_empty(), peers.len()), (false, 1));
        peers.drop_failed();
        assert!(peers.is_empty());
    }

    #[test]
    fn progress_stalls_after_several_timeouts_without_any() {
        let mut progress = Progress::new(100, 10);
        assert!(!progress.has_stalled(150, 0) && progress.has_stalled(151, 0));
        assert!(
            !progress.has_stalled(160, 1) && !progress.has_stalled(210, 1) && progress.has_stalled(211, 1)
        );
    }
}
