//! Whether a reply is one that a tracker may give.

use aquatic_load_engine::returned::ReturnedPeers;
use aquatic_udp_protocol::{AnnounceReply, ScrapeView};

use crate::counted::{Note, Tally, Violation};
use crate::in_flight::Pending;
use crate::plan::Plan;

/// Checks replies.
pub(crate) struct Checker {
    returned: ReturnedPeers,
}

impl Checker {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { returned: ReturnedPeers::one_in(plan.config.requests.check_one_in) }
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
        if count == 0 || !self.returned.is_due() {
            return;
        }
        tally.note(Note::RepliesChecked);
        self.returned.check(
            &plan.stage.population,
            u64::from(pending.subject),
            |each| plan.returned_peers(reply.peers, each),
            |wrong| tally.violation(wrong.into()),
        );
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
