//! Scrapes, stage by stage.

use aquatic_common::InfoHash;
use aquatic_tracker::AdmissionRequest;
use aquatic_ws_protocol::{Action, Scrape, ScrapeFile, ScrapeReply};

use super::router::Owner;
use super::{Refusal, RequestContext, Tracker};
use crate::counters::{DropReason, Response};
use crate::forwarding::{Forwarded, ScrapeId};
use crate::swarm::{ConnectionId, Counts};

/// Serves a scrape from a client of this core.
pub(super) fn serve(
    tracker: &mut Tracker,
    from: ConnectionId,
    message: Scrape,
    context: &RequestContext<'_>,
) {
    route(tracker, from, message.info_hashes, context);
}

/// Returns whether the counts of a torrent are reported. For other torrents they are 0.
fn admit(info_hash: &InfoHash, context: &RequestContext<'_>) -> bool {
    context.admission.check(AdmissionRequest::of(info_hash)).is_ok()
}

/// Reads the counts of the torrents of this core, and requests the others from their owners.
fn route(
    tracker: &mut Tracker,
    from: ConnectionId,
    info_hashes: Vec<InfoHash>,
    context: &RequestContext<'_>,
) {
    // By owner.
    let mut remote: Vec<Vec<(u16, InfoHash)>> = vec![Vec::new(); tracker.router.cores()];
    let mut counts = vec![Counts::default(); info_hashes.len()];
    let admitted = info_hashes.iter().zip(&mut counts).enumerate();
    for (at, (info_hash, counts)) in admitted.filter(|(_, (info_hash, _))| admit(info_hash, context)) {
        match tracker.router.owner(info_hash) {
            Owner::Here => *counts = apply(tracker, info_hash),
            Owner::Core(owner) => remote[owner].push((at as u16, *info_hash)),
        }
    }
    let missing = remote.iter().filter(|torrents| !torrents.is_empty()).count();
    if missing == 0 {
        return reply(tracker, from, &info_hashes, &counts);
    }
    let scrape = tracker.scrapes.insert(from, info_hashes, counts, missing, context.now);
    request_remote(tracker, from, scrape, remote);
}

fn request_remote(
    tracker: &mut Tracker,
    from: ConnectionId,
    scrape: ScrapeId,
    remote: Vec<Vec<(u16, InfoHash)>>,
) {
    tracker.counters.forwarded.add(1);
    tracker.connections.request_sent(from);
    for (owner, torrents) in remote.into_iter().enumerate().filter(|(_, torrents)| !torrents.is_empty()) {
        let message = Forwarded::Scrape { scrape, torrents: torrents.into_boxed_slice() };
        if tracker.router.forward(owner, message).is_err() {
            tracker.scrapes.cancel(scrape);
            return tracker.refuse(from, Action::Scrape, None, Refusal::Overflow);
        }
    }
}

/// Responds to another core with the counts of torrents of this core.
pub(super) fn receive_forwarded(
    tracker: &mut Tracker,
    from: usize,
    scrape: ScrapeId,
    torrents: &[(u16, InfoHash)],
) {
    let counts = torrents.iter().map(|(at, info_hash)| (*at, apply(tracker, info_hash))).collect();
    if tracker.router.forward(from, Forwarded::Scraped { scrape, counts }).is_err() {
        tracker.counters.drop_one(DropReason::Overflow);
    }
}

/// Adds the counts from another core, and replies to the client once they are complete.
pub(super) fn receive_response(tracker: &mut Tracker, scrape: ScrapeId, counts: &[(u16, Counts)]) {
    if let Some(scrape) = tracker.scrapes.add_counts(scrape, counts) {
        tracker.connections.response_received(scrape.connection);
        reply(tracker, scrape.connection, &scrape.info_hashes, &scrape.counts);
    }
}

/// Reads the counts of a torrent of this core.
fn apply(tracker: &Tracker, info_hash: &InfoHash) -> Counts {
    tracker.swarms.scrape(info_hash)
}

fn reply(tracker: &mut Tracker, to: ConnectionId, info_hashes: &[InfoHash], counts: &[Counts]) {
    encode(info_hashes, counts, &mut tracker.text);
    tracker.send(to, Response::Scrape);
}

/// Encodes the reply to a scrape.
fn encode(info_hashes: &[InfoHash], counts: &[Counts], out: &mut String) {
    let file = |(&info_hash, counts): (&InfoHash, &Counts)| ScrapeFile {
        info_hash,
        complete: counts.complete,
        incomplete: counts.incomplete,
        downloaded: counts.downloaded,
    };
    let files: Vec<ScrapeFile> = info_hashes.iter().zip(counts).map(file).collect();
    out.clear();
    ScrapeReply { files: files.into() }.encode(out);
}
