//! Verification of the peers in announce replies against the population.

use crate::population::Population;

crate::counted! {
    /// Violation in the peers of a reply.
    pub enum PeerViolation {
        /// A peer is not in the torrent, or not in the population.
        Foreign = "peer is not in the torrent",
        /// The reply contains the requesting peer.
        Requester = "reply contains the requesting peer",
        /// A peer occurs more than once.
        Repeated = "peer occurs twice in a reply",
        /// There are more peers than requested.
        TooMany = "more peers than requested",
    }
}

/// Parts of an announce that determine which peers its reply may contain.
#[derive(Clone, Copy, Debug)]
pub struct AnnounceContext {
    /// Requesting peer.
    pub requester: u64,
    /// Number of peers requested; 0 for any number.
    pub numwant: u32,
}

/// Checker of the peers in every n-th reply.
#[derive(Clone, Debug)]
pub struct PeerCheck {
    one_in: u32,
    /// Replies to skip before the next check.
    countdown: u32,
    /// Peers of the reply being checked; reused to avoid allocations.
    seen: Vec<u64>,
}

impl PeerCheck {
    /// Creates a checker of the first and then every n-th reply.
    #[must_use]
    pub fn one_in(replies: u32) -> Self {
        Self { one_in: replies.max(1), countdown: 0, seen: Vec::new() }
    }

    /// Whether this reply is to be checked.
    fn is_due(&mut self) -> bool {
        match self.countdown.checked_sub(1) {
            Some(less) => self.countdown = less,
            None => self.countdown = self.one_in - 1,
        }
        self.countdown == self.one_in - 1
    }

    /// Checks the reply to an announce and returns whether its peers were examined. `each` passes on the
    /// returned peers, `None` for peers outside the population.
    pub fn check(
        &mut self,
        population: &Population,
        AnnounceContext { requester, numwant }: AnnounceContext,
        count: usize,
        each: impl FnOnce(&mut dyn FnMut(Option<u64>)),
        mut report: impl FnMut(PeerViolation),
    ) -> bool {
        // Many trackers treat 0 as the default.
        if numwant > 0 && count > numwant as usize {
            report(PeerViolation::TooMany);
        }
        if count == 0 || !self.is_due() {
            return false;
        }
        let torrent = population.torrent_of(requester);
        self.seen.clear();
        each(&mut |peer| match peer {
            Some(peer) if peer == requester => report(PeerViolation::Requester),
            Some(peer) if population.torrent_of(peer) == torrent => self.seen.push(peer),
            Some(_) | None => report(PeerViolation::Foreign),
        });
        self.seen.sort_unstable();
        self.seen.windows(2).filter(|pair| pair[0] == pair[1]).for_each(|_| report(PeerViolation::Repeated));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::PopulationConfig;

    #[test]
    fn every_third_reply_is_checked() {
        let mut check = PeerCheck::one_in(3);
        let due: Vec<bool> = (0..7).map(|_| check.is_due()).collect();
        assert_eq!(due, [true, false, false, true, false, false, true]);
        let mut check = PeerCheck::one_in(1);
        assert!(check.is_due() && check.is_due());
    }

    #[test]
    fn each_violation_is_reported() {
        let shape = PopulationConfig { torrents: 2, peers: 100, ..PopulationConfig::default() }.shape();
        let population = Population::new(shape);
        let fellow = |peer| population.torrent_of(peer) == population.torrent_of(0);
        let friend = (1..100).find(|&peer| fellow(peer)).unwrap();
        let outsider = (1..100).find(|&peer| !fellow(peer)).unwrap();
        let faults_of = |numwant, peers: &[Option<u64>]| {
            let mut faults = Vec::new();
            let each = |take: &mut dyn FnMut(Option<u64>)| peers.iter().for_each(|&peer| take(peer));
            let (mut check, context) = (PeerCheck::one_in(2), AnnounceContext { requester: 0, numwant });
            assert!(check.check(&population, context, peers.len(), each, |violation| faults.push(violation)));
            assert!(!check.check(&population, context, peers.len(), |_| panic!("not this time"), |_| ()));
            faults
        };
        let faults = |peers: &[Option<u64>]| faults_of(3, peers);
        assert_eq!(faults(&[Some(friend)]), []);
        assert_eq!(
            faults(&[Some(outsider), None, Some(0)]),
            [PeerViolation::Foreign, PeerViolation::Foreign, PeerViolation::Requester]
        );
        assert_eq!(faults(&[Some(friend), Some(friend)]), [PeerViolation::Repeated]);
        let friends = (1..100).filter(|&peer| fellow(peer)).map(Some).take(4).collect::<Vec<_>>();
        assert_eq!(faults(&friends), [PeerViolation::TooMany]);
        assert_eq!((faults(&friends[1..]), faults_of(0, &friends)), (Vec::new(), Vec::new()));
    }
}
