//! Scrapes, stage by stage.

use aquatic_common::InfoHash;
use aquatic_tracker::{AdmissionRequest, Forward, OwnerParts, RequestId};
use aquatic_ws_protocol::{Action, Scrape, ScrapeFile, ScrapeReply};

use super::router::Owner;
use super::{Refusal, RequestContext, Tracker};
use crate::counters::Response;
use crate::forwarding::ForwardedBatch;
use crate::swarm::{ConnectionId, Counts};

/// A scrape that waits for counts from other cores.
pub(super) struct WaitingScrape {
    /// Connection of the client.
    pub(super) connection: ConnectionId,
    info_hashes: Vec<InfoHash>,
}

/// Serves a scrape from a client of this core.
pub(super) fn serve(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
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
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    from: ConnectionId,
    info_hashes: Vec<InfoHash>,
    context: &RequestContext<'_>,
) {
    let mut owners = OwnerParts::default();
    let mut counts = tracker.scrapes.spare();
    counts.extend(info_hashes.iter().map(|info_hash| match tracker.router.owner(info_hash) {
        _ if !admit(info_hash, context) => Counts::default(),
        Owner::Here => apply(tracker, info_hash),
        Owner::Core(owner) => {
            owners.note(owner);
            Counts::default()
        }
    }));
    if owners.is_empty() {
        reply(tracker, from, &info_hashes, &counts);
        return tracker.scrapes.recycle(counts);
    }
    let waiting = WaitingScrape { connection: from, info_hashes };
    match tracker.scrapes.begin(context.time, waiting, counts, owners.len()) {
        Ok(scrape) => request_remote(tracker, from, scrape, &owners, context),
        Err(_) => tracker.refuse(from, Action::Scrape, None, Refusal::Overflow),
    }
}

fn request_remote(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    from: ConnectionId,
    scrape: RequestId,
    owners: &OwnerParts,
    context: &RequestContext<'_>,
) {
    tracker.counters.forwarded.add(1);
    tracker.connections.request_sent(from);
    for owner in owners.iter() {
        let Some(WaitingScrape { info_hashes, .. }) = tracker.scrapes.waiter(scrape) else { return };
        let positioned = (0_u16..).zip(info_hashes.iter().copied());
        let router = &tracker.router;
        let is_owned = |info_hash: &InfoHash| router.owner(info_hash) == Owner::Core(owner);
        let owned = positioned.filter(|(_, info_hash)| is_owned(info_hash) && admit(info_hash, context));
        if router.others().add(owner, |batch| batch.push_scrape(scrape, owned)).is_err() {
            tracker.scrapes.cancel(scrape);
            tracker.connections.response_received(from);
            return tracker.refuse(from, Action::Scrape, None, Refusal::Overflow);
        }
    }
}

/// Responds to another core with the counts of torrents of this core.
pub(super) fn receive_forwarded(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    from: usize,
    scrape: RequestId,
    torrents: &[(u16, InfoHash)],
) {
    let counts = torrents.iter().map(|(at, info_hash)| (*at, apply(tracker, info_hash)));
    // If the outbox is full, the scrape is refused once its time is over. The outbox counts what it refuses.
    let _ = tracker.router.others().add(from, |batch| batch.push_scraped(scrape, counts));
}

/// Adds the counts from another core, and replies to the client once they are complete.
pub(super) fn receive_response(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    scrape: RequestId,
    counts: &[(u16, Counts)],
) {
    if let Some((waiting, counts)) = tracker.scrapes.respond(scrape, counts.iter().copied()) {
        let WaitingScrape { connection, info_hashes } = waiting;
        tracker.connections.response_received(connection);
        reply(tracker, connection, &info_hashes, &counts);
        tracker.scrapes.recycle(counts);
    }
}

/// Reads the counts of a torrent of this core.
fn apply(tracker: &Tracker<impl Forward<ForwardedBatch>>, info_hash: &InfoHash) -> Counts {
    tracker.swarms.scrape(info_hash)
}

fn reply(
    tracker: &mut Tracker<impl Forward<ForwardedBatch>>,
    to: ConnectionId,
    info_hashes: &[InfoHash],
    counts: &[Counts],
) {
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
