//! Verification of replies.

use aquatic_load_engine::peer_check::{AnnounceContext, PeerCheck};
use aquatic_udp_protocol::{AnnounceReply, ScrapeView};

use crate::counters::{Note, Tally, Violation};
use crate::in_flight::Pending;
use crate::plan::Plan;

/// Checker of replies.
pub(crate) struct ReplyChecker {
    returned: PeerCheck,
}

impl ReplyChecker {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { returned: PeerCheck::one_in(plan.config.requests.check_one_in) }
    }

    /// Checks the reply to a peer's announce.
    pub(crate) fn announce(
        &mut self,
        plan: &Plan,
        pending: &Pending,
        numwant: u32,
        reply: &AnnounceReply<'_>,
        tally: &mut Tally,
    ) {
        let count = reply.peers.len();
        tally.add(Note::PeersReturned, count as u64);
        let checked = self.returned.check(
            &plan.topology.population,
            AnnounceContext { requester: pending.subject.into(), numwant },
            count,
            |each| plan.returned_peers(reply.peers, each),
            |violation| tally.peer_violation(violation),
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
