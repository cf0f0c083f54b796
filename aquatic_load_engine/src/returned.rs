//! Whether the peers in a reply may be there. Where peers come from is decided by the population, so it is known for
//! certain.

use crate::population::Population;

crate::counted! {
    /// What is wrong with returned peers.
    pub enum Wrong {
        /// One is not in the torrent, or not in the population at all.
        Foreign = "peer is not in the torrent",
        /// One is the peer that asked.
        Requester = "peer is the one who asked",
        /// One is in the reply more than once.
        Repeated = "peer is in the reply twice",
        /// There are too many of them.
        TooMany = "more peers than asked for",
    }
}

/// An announce, as far as the peers in its reply depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The peer that asked.
    pub requester: u64,
    /// How many peers it asked for; 0 for any number.
    pub wanted: u32,
}

/// Checks the peers of one in so many replies.
#[derive(Clone, Debug)]
pub struct ReturnedPeers {
    one_in: u32,
    /// Replies until the next one that is checked.
    countdown: u32,
    /// Peers of the reply being checked; kept to save allocations.
    seen: Vec<u64>,
}

impl ReturnedPeers {
    /// Checks the first reply and then one in so many.
    #[must_use]
    pub fn one_in(replies: u32) -> Self {
        Self { one_in: replies.max(1), countdown: 0, seen: Vec::new() }
    }

    /// Whether it is this reply's turn.
    fn is_due(&mut self) -> bool {
        match self.countdown.checked_sub(1) {
            Some(less) => self.countdown = less,
            None => self.countdown = self.one_in - 1,
        }
        self.countdown == self.one_in - 1
    }

    /// Checks what a peer got for an announce, and returns whether the peers were looked at. `each` hands over the
    /// returned peers, `None` for those of elsewhere.
    pub fn check(
        &mut self,
        population: &Population,
        Asked { requester, wanted }: Asked,
        count: usize,
        each: impl FnOnce(&mut dyn FnMut(Option<u64>)),
        mut wrong: impl FnMut(Wrong),
    ) -> bool {
        // Many trackers take 0 for "as you like".
        if wanted > 0 && count > wanted as usize {
            wrong(Wrong::TooMany);
        }
        if count == 0 || !self.is_due() {
            return false;
        }
        let torrent = population.torrent_of(requester);
        self.seen.clear();
        each(&mut |peer| match peer {
            Some(peer) if peer == requester => wrong(Wrong::Requester),
            Some(peer) if population.torrent_of(peer) == torrent => self.seen.push(peer),
            Some(_) | None => wrong(Wrong::Foreign),
        });
        self.seen.sort_unstable();
        self.seen.windows(2).filter(|pair| pair[0] == pair[1]).for_each(|_| wrong(Wrong::Repeated));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::PopulationConfig;

    #[test]
    fn one_in_three() {
        let mut returned = ReturnedPeers::one_in(3);
        let due: Vec<bool> = (0..7).map(|_| returned.is_due()).collect();
        assert_eq!(due, [true, false, false, true, false, false, true]);
        let mut returned = ReturnedPeers::one_in(1);
        assert!(returned.is_due() && returned.is_due());
    }

    #[test]
    fn each_fault_is_named() {
        let shape = PopulationConfig { torrents: 2, peers: 100, ..PopulationConfig::default() }.shape();
        let population = Population::new(shape);
        let fellow = |peer| population.torrent_of(peer) == population.torrent_of(0);
        let friend = (1..100).find(|&peer| fellow(peer)).unwrap();
        let stranger = (1..100).find(|&peer| !fellow(peer)).unwrap();
        let faults_of = |wanted, peers: &[Option<u64>]| {
            let mut faults = Vec::new();
            let each = |take: &mut dyn FnMut(Option<u64>)| peers.iter().for_each(|&peer| take(peer));
            let (mut returned, asked) = (ReturnedPeers::one_in(2), Asked { requester: 0, wanted });
            assert!(returned.check(&population, asked, peers.len(), each, |wrong| faults.push(wrong)));
            assert!(!returned.check(&population, asked, peers.len(), |_| panic!("not this time"), |_| ()));
            faults
        };
        let faults = |peers: &[Option<u64>]| faults_of(3, peers);
        assert_eq!(faults(&[Some(friend)]), []);
        assert_eq!(
            faults(&[Some(stranger), None, Some(0)]),
            [Wrong::Foreign, Wrong::Foreign, Wrong::Requester]
        );
        assert_eq!(faults(&[Some(friend), Some(friend)]), [Wrong::Repeated]);
        let friends = (1..100).filter(|&peer| fellow(peer)).map(Some).take(4).collect::<Vec<_>>();
        assert_eq!(faults(&friends), [Wrong::TooMany]);
        assert_eq!((faults(&friends[1..]), faults_of(0, &friends)), (Vec::new(), Vec::new()));
    }
}
