//! Whether a reply is one that a tracker may give.

use aquatic_udp_protocol::{AnnounceReply, ScrapeView};

use crate::counted::{Note, Tally, Violation};
use crate::in_flight::Pending;
use crate::plan::Plan;

/// Checks replies. Where peers come from is decided by the population, so it is known for certain.
pub(crate) struct Checker {
    /// Announce replies until the next one whose peers are looked up.
    countdown: u32,
    /// Peers of the reply being checked; kept to save allocations.
    seen: Vec<u64>,
}

impl Checker {
    pub(crate) fn new() -> Self {
        Self { countdown: 0, seen: Vec::new() }
    }

    /// Checks the reply to a peer's announce.
    pub(crate) fn announce(
        &mut self,
        plan: &Plan,
        pending: &Pending,
        wanted: u32,
        reply: &AnnounceReply<'_>,
        tally: &mut Tally,
    ) {
        let count = reply.peers.len();
        tally.add(Note::PeersReturned, count as u64);
        // Many trackers take 0 for "as you like".
        if wanted > 0 && count > wanted as usize {
            tally.violation(Violation::TooManyPeers);
        }
        if count == 0 {
            return;
        }
        if self.countdown > 0 {
            self.countdown -= 1;
            return;
        }
        self.countdown = plan.config.requests.check_one_in - 1;
        tally.note(Note::RepliesChecked);
        let requester = u64::from(pending.subject);
        let torrent = plan.population.torrent_of(requester);
        self.seen.clear();
        plan.returned_peers(reply.peers, |peer| match peer {
            Some(peer) if peer == requester => tally.violation(Violation::RequesterReturned),
            Some(peer) if plan.population.torrent_of(peer) == torrent => self.seen.push(peer),
            Some(_) | None => tally.violation(Violation::ForeignPeer),
        });
        self.seen.sort_unstable();
        self.seen.windows(2).filter(|pair| pair[0] == pair[1]).for_each(|_| {
            tally.violation(Violation::RepeatedPeer);
        });
    }

    /// Checks the reply to a scrape.
    pub(crate) fn scrape(pending: &Pending, reply: &ScrapeView<'_>, tally: &mut Tally) {
        if reply.counts.len() != pending.subject as usize {
            tally.violation(Violation::WrongNumberOfCounts);
        }
        let negative = |counts: &aquatic_udp_protocol::TorrentCounts| {
            counts.seeders() < 0 || counts.leechers() < 0 || counts.completed() < 0
        };
        if reply.counts.iter().any(negative) {
            tally.violation(Violation::Malformed);
        }
    }
}
