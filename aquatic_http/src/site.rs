//! The handler, connected to the front and to the other cores.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use aquatic_common::{RateEvent, SourceRules};
use aquatic_http_protocol::Refused;
use aquatic_metrics::SampledHistogram;
use aquatic_net::proxy::ForwardedHeaders;
use aquatic_tracker::{LocalTracker, Waiter};
use aquatic_web::{AfterReply, Denied, Outcome, Site, WebRequest};

use crate::config::HttpConfig;
use crate::counters::Counters;
use crate::handler::{Handled, Handler, Incoming, Sources};
use crate::waiting::{PeerBufferPool, Question, ResponseSlot, WaitingReply};

/// Bytes of a compact IPv4 and IPv6 peer.
const PEER_SIZES: (u32, u32) = (6, 18);

/// The HTTP tracker of one core.
pub struct HttpTracker {
    handler: Handler,
    tracker: Rc<LocalTracker>,
    pool: PeerBufferPool,
}

impl fmt::Debug for HttpTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTracker").finish_non_exhaustive()
    }
}

impl HttpTracker {
    /// The HTTP tracker of a core.
    #[must_use]
    pub fn new(
        config: &HttpConfig,
        forwarded: ForwardedHeaders,
        (sources, counters): (Sources, Counters),
        tracker: Rc<LocalTracker>,
    ) -> Self {
        let handler = Handler::new(config, forwarded, counters).with_sources(sources);
        Self { handler, tracker, pool: PeerBufferPool::default() }
    }

    /// Replaces the settings. Afterwards replies may be longer than before.
    pub fn reconfigure(&mut self, config: &HttpConfig, forwarded: ForwardedHeaders, rules: SourceRules) {
        self.handler.reconfigure(config, forwarded);
        self.handler.sources().limit.set_rules(rules);
    }

    /// What has to be told about rate limits now. To be asked about every second.
    pub fn rate_event(&mut self, now: Duration) -> Option<RateEvent> {
        self.handler.rate_event(now)
    }

    /// Asks the owners of torrents.
    fn ask(&self, question: Question, state: &mut Option<Rc<ResponseSlot>>) -> WaitingReply {
        let slot = Rc::clone(state.get_or_insert_with(|| ResponseSlot::new(&self.pool)));
        let waiter = Waiter { respond: Rc::clone(&slot) as _, token: 0 };
        match &question {
            Question::Announce(forwarded) => {
                let numwant = u32::try_from(forwarded.announce.numwant).unwrap_or(u32::MAX);
                let room = (PEER_SIZES.0.saturating_mul(numwant), PEER_SIZES.1.saturating_mul(numwant));
                self.tracker.announce(&forwarded.announce, room, waiter);
            }
            Question::Scrape(forwarded) => {
                self.tracker.scrape(&forwarded.info_hashes, aquatic_swarm::FamilySet::Both, waiter);
            }
        }
        WaitingReply { question, slot }
    }
}

impl Site for HttpTracker {
    type State = Option<Rc<ResponseSlot>>;
    type Waiting = WaitingReply;

    fn longest_reply(&self) -> usize {
        self.handler.longest_reply()
    }

    fn respond(
        &mut self,
        request: &mut WebRequest<'_>,
        state: &mut Self::State,
        reply: &mut [u8],
    ) -> Outcome<WaitingReply> {
        let WebRequest { head, framing, peer, now, .. } = *request;
        self.handler.sources().now = self.tracker.time();
        let incoming = Incoming { head, framing, peer, now };
        let handled = self.handler.handle(incoming, &mut self.tracker.state(), reply);
        let question = match handled {
            Handled::Reply(written) => return Outcome::Reply(written, AfterReply::of(framing)),
            Handled::Announce(forwarded) => {
                let (owner, is_held) = {
                    let (tracker, info_hash) = (self.tracker.state(), &forwarded.announce.info_hash);
                    (tracker.owner(info_hash), tracker.holds(info_hash))
                };
                let mut apply =
                    |tracker: &mut _| self.handler.apply_forwarded(&forwarded, (tracker, now), reply);
                let written = is_held.then(|| self.tracker.with_sleeping(owner, &mut apply));
                if let Some(written) = written.flatten() {
                    return Outcome::Reply(written, AfterReply::of(framing));
                }
                Question::Announce(forwarded)
            }
            Handled::Scrape(forwarded) => Question::Scrape(forwarded),
        };
        Outcome::Wait(self.ask(question, state))
    }

    fn finish(&mut self, waiting: WaitingReply, reply: &mut [u8]) -> (usize, AfterReply) {
        let WaitingReply { question, slot } = waiting;
        let tracker = &mut self.tracker.state();
        match question {
            Question::Announce(forwarded) => {
                let written = slot.with_announced(|response| {
                    self.handler.finish_announce(&forwarded, response, tracker, reply)
                });
                (written, AfterReply::of(forwarded.framing))
            }
            Question::Scrape(forwarded) => {
                let written =
                    slot.with_counts(|counts| self.handler.finish_scrape(&forwarded, counts, tracker, reply));
                (written, AfterReply::of(forwarded.framing))
            }
        }
    }

    fn refuse(&mut self, refused: Refused, reply: &mut [u8]) -> usize {
        self.handler.refuse(refused.refusal, refused.framing, &mut self.tracker.state(), reply)
    }

    fn admit(&mut self, request: &WebRequest<'_>) -> Result<(), Denied> {
        let WebRequest { head, framing, peer, now, .. } = *request;
        self.handler.sources().now = self.tracker.time();
        self.handler.admit_other(Incoming { head, framing, peer, now })
    }

    fn count_health(&self) {
        self.handler.counters().health();
    }

    fn durations(&self) -> Option<&SampledHistogram> {
        Some(&self.handler.counters().durations)
    }

    fn count_bytes(&self, received: usize, sent: usize) {
        self.handler.counters().bytes(received, sent);
    }
}
