//! Verification of responses.

use std::net::IpAddr;

use aquatic_common::InfoHash;
use aquatic_http_protocol::{AnnounceView, Reply, Response, ScrapeView, is_canonical};
use aquatic_load_engine::peer_check::{AnnounceContext, PeerCheck};

use crate::config::Verification;
use crate::counters::{Kind, Note, Tally, Violation};
use crate::plan::Plan;
use crate::traffic::Pending;

/// HTTP status of all tracker responses, failures included.
const OK: u16 = 200;

/// Checker of responses.
pub(crate) struct ReplyChecker {
    returned: PeerCheck,
    /// Torrents of the scrape being checked; reused to avoid allocations.
    torrents: Vec<InfoHash>,
}

impl ReplyChecker {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { returned: PeerCheck::one_in(plan.config.requests.check_one_in), torrents: Vec::new() }
    }

    /// Checks a response and returns whether the request was served.
    pub(crate) fn response(
        &mut self,
        plan: &Plan,
        (pending, numwant): (&Pending, u32),
        answer: &Response<'_>,
        tally: &mut Tally,
    ) -> bool {
        if answer.status != OK {
            tally.violation(Violation::Status);
            return false;
        }
        if plan.config.requests.verification == Verification::Frame {
            return true;
        }
        match (pending.kind, Reply::parse(answer.body)) {
            (_, Ok(Reply::Announce(AnnounceView { listed: Some(_), .. })) | Err(_)) => {
                tally.violation(Violation::Malformed);
                false
            }
            (Kind::Announce, Ok(Reply::Announce(reply))) => {
                self.announce(plan, (pending, numwant), (&reply, answer.body), tally);
                true
            }
            (Kind::Scrape, Ok(Reply::Scrape(reply))) => {
                self.scrape(plan, pending, (&reply, answer.body), tally);
                true
            }
            (_, Ok(Reply::Failure(failure))) => {
                canonical(answer.body, tally);
                tally.error_text(failure.reason);
                false
            }
            (_, Ok(Reply::Announce(_) | Reply::Scrape(_))) => {
                tally.violation(Violation::WrongKind);
                false
            }
        }
    }

    fn announce(
        &mut self,
        plan: &Plan,
        (pending, numwant): (&Pending, u32),
        (reply, body): (&AnnounceView<'_>, &[u8]),
        tally: &mut Tally,
    ) {
        let count = reply.peers_v4().len() + reply.peers_v6().len();
        tally.add(Note::PeersReturned, count as u64);
        if plan.config.requests.verification != Verification::Peers {
            return;
        }
        let v4 = reply.peers_v4().map(|peer| (IpAddr::V4(*peer.ip()), peer.port()));
        let v6 = reply.peers_v6().map(|peer| (IpAddr::V6(*peer.ip()), peer.port()));
        let peers = v4.chain(v6).map(|(ip, port)| plan.topology.peer_at(ip, port));
        let checked = self.returned.check(
            &plan.topology.population,
            AnnounceContext { requester: pending.subject, numwant },
            count,
            |each| peers.for_each(each),
            |violation| tally.peer_violation(violation),
        );
        if checked {
            tally.note(Note::RepliesChecked);
            canonical(body, tally);
        }
    }

    fn scrape(
        &mut self,
        plan: &Plan,
        pending: &Pending,
        (reply, body): (&ScrapeView<'_>, &[u8]),
        tally: &mut Tally,
    ) {
        canonical(body, tally);
        let count = plan.config.requests.scrape_torrents;
        plan.topology.population.scrape_targets(pending.subject, count, &mut self.torrents);
        // A tracker may omit unknown torrents.
        for file in reply.files().filter(|file| !self.torrents.contains(&file.info_hash)) {
            log::debug!("scrape reply names {}", file.info_hash);
            tally.violation(Violation::ForeignTorrent);
        }
    }
}

fn canonical(body: &[u8], tally: &mut Tally) {
    if is_canonical(body) != Ok(true) {
        tally.violation(Violation::NotCanonical);
    }
}
