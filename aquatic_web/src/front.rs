//! The sites and buffers of one core, and which of them answers what.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use aquatic_http_protocol::{Framing, Persistence, PlainReply, Refused, Status, TrackerRoute};
use aquatic_metrics::SampledHistogram;
use aquatic_runtime::Health;

use crate::http_challenges::HttpChallenges;
use crate::pages::{Body, PageRequest, Pages};
use crate::session::Session;
use crate::site::{AfterReply, Denied, Outcome, Site, Upgrade, UpgradeOutcome, WebRequest};
use crate::transport::{Runtime, Transport};

/// Bytes received by one read: some twenty pipelined announces. With the longest request it is the most a
/// connection keeps unserved.
pub(crate) const READ_SIZE: usize = 8 * 1024;

/// Room for replies to pipelined requests that are sent together. With the longest reply it is the most a
/// connection keeps for a client that does not receive.
const REPLIES_SIZE: usize = 16 * 1024;

/// Room for plain replies and upgrade responses.
const LONGEST_PLAIN_REPLY: usize = 2048;

/// For whoever asks for pages, or for what there is not, as often as nobody does by hand.
const TOO_MANY_REQUESTS: &str = "too many requests from your address or network\n";

/// For clients behind a proxy; others on the block list have no connection.
const BLOCKED: &str = "this tracker does not serve clients of your network\n";

/// Limits of a front.
#[derive(Clone, Copy, Debug)]
pub struct FrontSettings {
    /// Maximum size of a request's head in bytes.
    pub max_request_size: usize,
}

/// What the connections of a core share. Borrowed within one poll only.
pub(crate) struct Shared<S, U> {
    pub(crate) site: Option<S>,
    pub(crate) upgrade: Option<U>,
    pages: Option<Rc<dyn Pages>>,
    challenges: Option<HttpChallenges>,
    pub(crate) input: Box<[u8]>,
    pub(crate) output: Box<[u8]>,
    pub(crate) longest_reply: usize,
    pub(crate) max_request_size: usize,
    health: Health,
}

/// What a request comes to, whoever has answered it.
pub(crate) enum Routed<W, A> {
    Reply(usize, AfterReply),
    /// The head has been written.
    Body(usize, Body, AfterReply),
    Wait(W),
    Upgrade(usize, A),
}

/// The front of one core: a site, WebSocket, or both on the same connections.
pub struct Front<S, U, R> {
    pub(crate) shared: Rc<RefCell<Shared<S, U>>>,
    pub(crate) runtime: R,
}

impl<S, U, R: Clone> Clone for Front<S, U, R> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared), runtime: self.runtime.clone() }
    }
}

impl<S, U, R> fmt::Debug for Front<S, U, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").finish_non_exhaustive()
    }
}

impl<S: Site, U, R: Runtime> Front<S, U, R> {
    /// A front for this core.
    #[must_use]
    pub fn new(
        runtime: R,
        (site, upgrade): (Option<S>, Option<U>),
        health: Health,
        settings: FrontSettings,
    ) -> Self {
        let longest_reply = site.as_ref().map_or(0, Site::longest_reply).max(LONGEST_PLAIN_REPLY);
        let shared = Shared {
            site,
            upgrade,
            pages: None,
            challenges: None,
            input: vec![0; settings.max_request_size + READ_SIZE].into_boxed_slice(),
            output: vec![0; longest_reply + REPLIES_SIZE].into_boxed_slice(),
            longest_reply,
            max_request_size: settings.max_request_size,
            health,
        };
        Self { shared: Rc::new(RefCell::new(shared)), runtime }
    }

    /// Calls a function with the sites of this core. Must not be called while a request is served.
    pub fn with_sites(&self, act: impl FnOnce(Option<&mut S>, Option<&mut U>)) {
        let mut shared = self.shared.borrow_mut();
        let shared = &mut *shared;
        act(shared.site.as_mut(), shared.upgrade.as_mut());
    }

    /// The same front, with pages for what is not a request of the tracker protocol.
    #[must_use]
    pub fn with_pages(self, pages: Option<Rc<dyn Pages>>) -> Self {
        self.shared.borrow_mut().pages = pages;
        self
    }

    /// The same front, with replies to the challenges of an authority.
    #[must_use]
    pub fn with_challenges(self, challenges: Option<HttpChallenges>) -> Self {
        self.shared.borrow_mut().challenges = challenges;
        self
    }

    /// Changes settings of the sites of this core, and makes room for their longest replies. Must not be
    /// called while a request is served.
    pub fn reconfigure(&self, change: impl FnOnce(Option<&mut S>, Option<&mut U>)) {
        let mut shared = self.shared.borrow_mut();
        let shared = &mut *shared;
        change(shared.site.as_mut(), shared.upgrade.as_mut());
        let longest_reply = shared.site.as_ref().map_or(0, Site::longest_reply).max(LONGEST_PLAIN_REPLY);
        shared.longest_reply = longest_reply;
        // It never shrinks: requests that wait for other cores may get replies of the former length. Replies
        // are in it within one poll only, so there is nothing in it now.
        if shared.output.len() < longest_reply + REPLIES_SIZE {
            shared.output = vec![0; longest_reply + REPLIES_SIZE].into_boxed_slice();
        }
    }

    /// Serves a connection until it ends, as HTTP and, once upgraded, as WebSocket.
    pub async fn serve<C: Transport>(self, connection: C)
    where
        U: Upgrade<C>,
    {
        let Some(upgraded) = Session::new(&self, connection).run().await else { return };
        let serving = self.shared.borrow().upgrade.as_ref().map(|upgrade| upgrade.serve(upgraded));
        drop(self);
        if let Some(serving) = serving {
            // In memory of its own, so that connections without WebSocket do not have its size.
            Box::pin(serving).await;
        }
    }
}

impl<S: Site, U> Shared<S, U> {
    /// Has whoever is responsible answer a request.
    pub(crate) fn route<C>(
        &mut self,
        request: &mut WebRequest<'_>,
        state: &mut S::State,
        written: usize,
    ) -> Routed<S::Waiting, U::Accepted>
    where
        U: Upgrade<C>,
    {
        let reply = self.output.get_mut(written..).unwrap_or_default();
        if let Some(upgrade) = self.upgrade.as_mut().filter(|_| request.head.upgrades_to_websocket()) {
            return match upgrade.respond(request, reply) {
                UpgradeOutcome::Accepted(written, accepted) => Routed::Upgrade(written, accepted),
                UpgradeOutcome::Reply(written, after) => Routed::Reply(written, after),
            };
        }
        let route = TrackerRoute::classify(request.head.path, request.head.query);
        if route == TrackerRoute::Other
            && let Some(challenges) = &self.challenges
            && let Some(written) = challenges.respond(request.head.path, request.framing, reply)
        {
            return Routed::Reply(written, AfterReply::of(request.framing));
        }
        if matches!(route, TrackerRoute::Other | TrackerRoute::Health)
            && let Err(denied) = admit(&mut self.site, &mut self.upgrade, request)
        {
            let (status, text) = match denied {
                Denied::Blocked => (Status::Forbidden, BLOCKED),
                Denied::RateLimit => (Status::TooManyRequests, TOO_MANY_REQUESTS),
            };
            let plain = PlainReply::text(status, text);
            let written = plain.encode(request.framing, reply).unwrap_or(0);
            return Routed::Reply(written, AfterReply::of(request.framing));
        }
        if route == TrackerRoute::Other
            && let Some(pages) = &self.pages
        {
            let WebRequest { head, framing, peer, .. } = *request;
            if let Some(page) = pages.respond(&PageRequest { head, framing, peer }, reply) {
                return Routed::Body(page.written, page.body, page.after);
            }
        }
        if route == TrackerRoute::Health {
            match (&self.site, &self.upgrade) {
                (Some(site), _) => site.count_health(),
                (None, Some(upgrade)) => upgrade.count_health(),
                (None, None) => {}
            }
            let written = health(&self.health, request.framing, reply);
            return Routed::Reply(written, AfterReply::of(request.framing));
        }
        match (&mut self.site, &mut self.upgrade) {
            (Some(site), _) => match site.respond(request, state, reply) {
                Outcome::Reply(written, after) => Routed::Reply(written, after),
                Outcome::Wait(waiting) => Routed::Wait(waiting),
            },
            (None, Some(upgrade)) => {
                Routed::Reply(upgrade.explain(request, reply), AfterReply::LingeringClose)
            }
            (None, None) => Routed::Reply(0, AfterReply::Close),
        }
    }

    /// Answers what is not an HTTP request.
    pub(crate) fn refuse<C>(&mut self, refused: Refused, written: usize) -> usize
    where
        U: Upgrade<C>,
    {
        let reply = self.output.get_mut(written..).unwrap_or_default();
        match (&mut self.site, &mut self.upgrade) {
            (Some(site), _) => site.refuse(refused, reply),
            (None, Some(upgrade)) => upgrade.refuse(refused, reply),
            (None, None) => 0,
        }
    }

    /// Whether the next read is to be measured.
    pub(crate) fn measures(&self) -> bool {
        self.site.as_ref().and_then(Site::durations).is_some_and(SampledHistogram::is_due)
    }

    /// Notes that a read had a request in it.
    pub(crate) fn note_read(&self) {
        if let Some(durations) = self.site.as_ref().and_then(Site::durations) {
            durations.advance();
        }
    }

    /// Counts the time of a read that was measured.
    pub(crate) fn count_time(&self, time: Duration) {
        if let Some(durations) = self.site.as_ref().and_then(Site::durations) {
            durations.add_time(time);
        }
    }

    pub(crate) fn count_bytes(&self, received: usize, sent: usize) {
        if let Some(site) = &self.site {
            site.count_bytes(received, sent);
        }
    }
}

/// Charges what is neither an announce nor a scrape to its source.
///
/// # Errors
/// It may not be answered.
fn admit<C, S: Site, U: Upgrade<C>>(
    site: &mut Option<S>,
    upgrade: &mut Option<U>,
    request: &WebRequest<'_>,
) -> Result<(), Denied> {
    match (site, upgrade) {
        (Some(site), _) => site.admit(request),
        (None, Some(upgrade)) => upgrade.admit(request),
        (None, None) => Ok(()),
    }
}

/// What clients are told that do not use TLS where it is required: a whole HTTP response.
#[must_use]
pub fn reply_to_plain() -> Vec<u8> {
    let text = "This port requires TLS: use https:// or wss:// in the announce URL.\n";
    let framing = Framing::new(Persistence::Close);
    let reply = PlainReply::text(Status::BadRequest, text);
    let mut response = vec![0; reply.length(framing)];
    let written = reply.encode(framing, &mut response).unwrap_or(0);
    response.truncate(written);
    response
}

/// Whether the cores respond and the tracker goes on, in the same words everywhere. Returns the length of the
/// reply.
fn health(health: &Health, framing: Framing, reply: &mut [u8]) -> usize {
    let fault = health.fault();
    let plain = match &fault {
        None => PlainReply::HEALTHY,
        Some(text) => PlainReply::text(Status::Unavailable, text),
    };
    plain.encode(framing, reply).unwrap_or(0)
}
