//! Whether a reply is one that a tracker may give.

use aquatic_load_engine::returned::{Asked, ReturnedPeers};
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
        let checked = self.returned.check(
            &plan.stage.population,
            Asked { requester: pending.subject.into(), wanted },
            count,
            |each| plan.returned_peers(reply.peers, each),
            |wrong| tally.violation(wrong.into()),
        );
        if checked {
            tally.note(Note::RepliesChecked);
        }
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
