//! What is noted of a request for the samples of its core. Reached while somebody wants them only.

use std::net::SocketAddr;

use aquatic_common::{InfoHash, PeerId, canonical};
use aquatic_net::udp::Datagrams;
use aquatic_tracker::Reason;
use aquatic_tracker::requests::{self, Requests};
use aquatic_udp_protocol::Request;

/// A request, copied before its reply is written.
pub(crate) struct Noted {
    source: SocketAddr,
    action: &'static str,
    announce: Option<(InfoHash, PeerId)>,
}

impl Noted {
    /// Reads a packet; `None` if its sender is unknown.
    #[cold]
    pub(crate) fn of(packets: &impl Datagrams, at: usize) -> Option<Self> {
        let source = packets.source(at).map(canonical)?;
        let (action, announce) = match Request::parse(packets.request(at)) {
            Ok(Request::Connect(_)) => ("connect", None),
            Ok(Request::Announce(request)) => ("announce", Some((*request.info_hash(), *request.peer_id()))),
            Ok(Request::Scrape(_)) => ("scrape", None),
            Err(_) => ("unknown", None),
        };
        Some(Self { source, action, announce })
    }

    /// Notes it, with the reason if it is not served.
    pub(crate) fn note(&self, refused: Option<Reason>, requests: &Requests) {
        requests.note(requests::Request {
            protocol: "udp",
            action: self.action,
            source: self.source.ip(),
            info_hash: self.announce.as_ref().map(|(info_hash, _)| info_hash),
            peer_id: self.announce.as_ref().map(|(_, peer_id)| peer_id),
            outcome: refused.map_or("served", Reason::name),
        });
    }
}
