//! WebTorrent tracker of one core, connected to the HTTP front, the other cores and the metrics.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aquatic_common::{Family, InfoHash, SourceRules, Steering};
use aquatic_http_protocol::Refused;
use aquatic_metrics::CoreMetrics;
use aquatic_net::breaker::CoreBreakers;
use aquatic_net::proxy::{Client, ForwardedHeaders};
use aquatic_net::tcp::Connection;
use aquatic_runtime::clock::BusyMeter;
use aquatic_runtime::{Core, Outbox, Secrets};
use aquatic_tracker::requests;
use aquatic_tracker::{
    Admission, CoreBudget, Forward, SharedAccessList, Store, StoreDegradation, TopTorrents, expiry,
};
use aquatic_web::{Denied, Upgrade, UpgradeOutcome, Upgraded, WebRequest};

use crate::config::WsConfig;
use crate::connections::End;
use crate::counters::{Counters, SWARMS_OF_BOTH_FAMILIES};
use crate::counts::WsCounts;
use crate::exchange::{NodeLink, WsNodes};
use crate::forwarding::ForwardedBatch;
use crate::session::{CoreState, serve};
use crate::swarm::Counts;
use crate::tracker::{Keys, Tracker};
use crate::upgrade::{self, Decision, NotUpgraded};

/// Time between two ticks of the tracker.
const TICK: Duration = Duration::from_secs(1);

/// Time between two checks whether the process stops.
const STOP_CHECK: Duration = Duration::from_millis(250);

/// What the main thread prepares for the WebTorrent tracker of each core.
#[derive(Clone, Debug)]
pub struct WsSeed {
    config: WsConfig,
    forwarded: ForwardedHeaders,
    steering: Steering,
    access_list: Arc<SharedAccessList>,
    keys: Keys,
    source_rules: SourceRules,
    counts_clients: bool,
    shows_load: bool,
    log_requests: u32,
    /// What the stores of each core may take.
    budgets: Option<Arc<[CoreBudget]>>,
    /// Bytes that the send queues of a core may have together.
    max_unsent: Option<usize>,
}

impl WsSeed {
    /// Returns the seed for all cores of this process.
    #[must_use]
    pub fn new(
        config: &WsConfig,
        forwarded: &ForwardedHeaders,
        steering: Steering,
        access_list: &Arc<SharedAccessList>,
        secrets: &Secrets,
    ) -> Self {
        Self {
            config: config.clone(),
            forwarded: forwarded.clone(),
            steering,
            access_list: Arc::clone(access_list),
            keys: Keys {
                swarms: secrets.derive("aquatic WebTorrent tables 1"),
                offers: secrets.derive("aquatic WebTorrent offers 1"),
                sources: secrets.derive("aquatic WebTorrent loads 1"),
            },
            source_rules: SourceRules::default(),
            counts_clients: false,
            shows_load: false,
            log_requests: 0,
            budgets: None,
            max_unsent: None,
        }
    }
}

impl WsSeed {
    /// Returns the seed with limits of messages by source.
    #[must_use]
    pub fn with_source_rules(self, source_rules: SourceRules) -> Self {
        Self { source_rules, ..self }
    }

    /// Counts announces by the program of the client, or not.
    #[must_use]
    pub fn counting_clients(self, counts_clients: bool) -> Self {
        Self { counts_clients, ..self }
    }

    /// Shows the load of each core in the metrics, or not, as the tracker of UDP and HTTP does.
    #[must_use]
    pub fn showing_load(self, shows_load: bool) -> Self {
        Self { shows_load, ..self }
    }

    /// Logs one of so many messages; 0 for none.
    #[must_use]
    pub fn logging_one_of(self, log_requests: u32) -> Self {
        Self { log_requests, ..self }
    }

    /// Bounds the memory of what each core stores, and the bytes that its clients have not received yet.
    #[must_use]
    pub fn with_memory(mut self, budgets: Option<Arc<[CoreBudget]>>, max_unsent: Option<usize>) -> Self {
        let bytes = budgets.iter().flat_map(|budgets| budgets.iter()).map(CoreBudget::bytes).sum::<u64>();
        if budgets.is_some() {
            let offers = bytes / OFFERS_SHARE / OFFER_BYTES;
            let limits = &mut self.config.limits;
            limits.max_waiting_offers = limits.max_waiting_offers.min(offers);
        }
        Self { budgets, max_unsent, ..self }
    }

    /// Returns the tracker of one core, without connections. `forward` is its way to the other cores.
    #[must_use]
    pub fn tracker<F: Forward<ForwardedBatch>>(
        &self,
        core: usize,
        metrics: &CoreMetrics,
        forward: F,
    ) -> Tracker<F> {
        let counters = Counters::new(metrics)
            .counting_clients(metrics, self.counts_clients)
            .showing_load(metrics, self.shows_load);
        let degradation = StoreDegradation::new(core, Store::WebTorrent, metrics);
        let counted = (counters, degradation);
        let mut tracker = Tracker::new(&self.config, (core, self.steering), self.keys, counted, forward);
        let budget = self.budgets.as_ref().and_then(|budgets| budgets.get(core).cloned());
        tracker.bound_memory(budget, self.max_unsent);
        tracker.set_source_rules(self.source_rules.clone());
        tracker.requests().log_one_of(self.log_requests);
        tracker
    }
}

/// What pending offers may take of the memory budget: one in so many bytes.
const OFFERS_SHARE: u64 = 10;

/// Memory of a pending offer, at most.
const OFFER_BYTES: u64 = 24;

/// WebTorrent tracker of one core.
pub struct WsTracker {
    state: Rc<CoreState>,
    forwarded: ForwardedHeaders,
    /// Origins of web pages that may use the tracker; empty for all.
    allowed_origins: Vec<String>,
    breakers: CoreBreakers,
}

/// Client of an upgraded connection.
#[derive(Clone, Copy, Debug)]
pub struct UpgradedClient {
    /// Address family; IPv4 over a unix socket without client address.
    pub(crate) family: Family,
    /// Address whose messages are limited; `None` for those of a proxy that names no client.
    pub(crate) source: Option<IpAddr>,
}

impl WsTracker {
    /// Starts the WebTorrent tracker of a core. Completes when all cores have started theirs.
    pub async fn start(core: &Rc<Core>, seed: WsSeed, breakers: CoreBreakers) -> Self {
        let interval = Duration::from_secs(seed.config.cleaning.interval.into());
        let channel = core.open_channel::<ForwardedBatch>("ws").await;
        let tracker = seed.tracker(core.index(), core.metrics(), Outbox::new(channel.clone()));
        let WsSeed { config, forwarded, access_list, .. } = seed;
        let state = Rc::new(CoreState::new(Rc::clone(core), tracker, Admission::new(access_list)));
        let receiving = Rc::clone(&state);
        channel.receive(move |from, batch| {
            receiving.with(|tracker, context| tracker.receive_batch(from, batch, context));
        });
        let maintained = Rc::clone(&state);
        core.spawn(async move { run_maintenance(&maintained).await });
        let expiring = Rc::clone(&state);
        core.spawn(async move {
            let max_peer_age = || expiring.tracker.borrow().max_peer_age();
            let store = || expiring.tracker.borrow_mut();
            expiry::run(&expiring.core, (interval, max_peer_age), &SWARMS_OF_BOTH_FAMILIES, store).await;
        });
        Self { state, forwarded, allowed_origins: config.allowed_origins, breakers }
    }

    /// Begins to exchange peers, offers and answers with the other nodes of a cluster. Changes and messages
    /// leave once per interval.
    pub fn join_cluster(&self, link: impl NodeLink + 'static, interval: Duration) -> WsNodes {
        WsNodes::start(&self.state, link, interval)
    }

    /// Returns the counts of the torrents of this core.
    #[must_use]
    pub fn counts(&self) -> WsCounts {
        WsCounts::new(Rc::clone(&self.state))
    }

    /// Replaces the settings, except those of pending offers and of the interval of expiry. Open connections
    /// keep what they have beyond new limits.
    pub fn reconfigure(&mut self, config: &WsConfig, forwarded: ForwardedHeaders, rules: SourceRules) {
        self.forwarded.reconfigure(forwarded);
        self.allowed_origins.clone_from(&config.allowed_origins);
        let mut tracker = self.state.tracker.borrow_mut();
        tracker.reconfigure(config);
        tracker.set_source_rules(rules);
    }

    /// Replaces the number of bytes that all clients of this core may have that they have not received yet.
    pub fn set_max_unsent(&self, bytes: Option<usize>) {
        self.state.tracker.borrow_mut().set_max_unsent(bytes);
    }

    /// Logs one of so many messages from now on; 0 for none.
    pub fn log_one_of(&self, every: u32) {
        self.state.tracker.borrow().requests().log_one_of(every);
    }

    /// What the swarms of this core tell about themselves.
    #[must_use]
    pub fn overview(&self) -> WsOverview {
        WsOverview(Rc::clone(&self.state))
    }

    fn count(&self, plain: NotUpgraded) {
        self.state.tracker.borrow().counters.not_upgraded(plain);
    }
}

/// What the WebTorrent swarms of a core tell about themselves.
#[derive(Clone)]
pub struct WsOverview(Rc<CoreState>);

impl WsOverview {
    /// Begins to count messages by network and client.
    #[must_use]
    pub fn begin_counting(&self) -> u64 {
        self.0.tracker.borrow().requests().begin_counting()
    }

    /// Ends counting and returns what has been counted.
    #[must_use]
    pub fn end_counting(&self, counting: u64) -> requests::Counts {
        self.0.tracker.borrow().requests().end_counting(counting)
    }

    /// Counts of a torrent; zeros unless this core owns it.
    #[must_use]
    pub fn counts(&self, info_hash: &InfoHash) -> Counts {
        self.0.tracker.borrow().swarms().scrape(info_hash)
    }

    /// Offers the next `most` torrents, from a position on. Returns the next position; `None` at the end.
    pub fn rank(&self, from: usize, most: usize, top: &mut TopTorrents) -> Option<usize> {
        self.0.tracker.borrow().swarms().rank(from, most, top)
    }
}

impl Upgrade<Connection> for WsTracker {
    type Accepted = UpgradedClient;

    fn respond(&mut self, request: &mut WebRequest<'_>, reply: &mut [u8]) -> UpgradeOutcome<UpgradedClient> {
        match upgrade::decide(request, &self.forwarded, &self.allowed_origins, &self.breakers) {
            Decision::Upgrade(accepted) => {
                if let Some(missing) = accepted.missing {
                    self.state.tracker.borrow().counters.no_client(missing);
                }
                let written = put(&accepted.response, reply);
                let client = UpgradedClient {
                    family: accepted.client.map_or(Family::V4, Family::of),
                    source: accepted.client.filter(|_| accepted.missing.is_none()),
                };
                UpgradeOutcome::Accepted(written, client)
            }
            Decision::Reply(response, plain) => {
                self.count(plain);
                UpgradeOutcome::Reply(put(&response, reply), aquatic_web::AfterReply::LingeringClose)
            }
        }
    }

    fn explain(&mut self, request: &WebRequest<'_>, reply: &mut [u8]) -> usize {
        self.count(NotUpgraded::NoUpgrade);
        put(&upgrade::explanation(request.head), reply)
    }

    fn refuse(&mut self, refused: Refused, reply: &mut [u8]) -> usize {
        self.count(NotUpgraded::Malformed);
        refused.encode(reply).unwrap_or_default()
    }

    fn admit(&mut self, request: &WebRequest<'_>) -> Result<(), Denied> {
        let headers = request.head.headers.iter();
        let headers = headers.filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, value)));
        let client = match self.forwarded.client(request.peer, headers) {
            Client::Known(client) => client,
            Client::Blocked(_) => {
                self.count(NotUpgraded::Blocked);
                return Err(Denied::Blocked);
            }
            Client::Proxy(..) | Client::Refused(_) => return Ok(()),
        };
        if self.state.tracker.borrow_mut().admits(client, self.state.core.time()) {
            return Ok(());
        }
        self.count(NotUpgraded::RateLimit);
        Err(Denied::RateLimit)
    }

    fn count_health(&self) {
        self.count(NotUpgraded::Health);
    }

    fn serve(&self, upgraded: Upgraded<Connection, UpgradedClient>) -> impl Future<Output = ()> + 'static {
        serve(Rc::clone(&self.state), upgraded)
    }
}

/// Copies a response into the reply buffer, into which every plain reply fits. Returns its length.
fn put(response: &[u8], reply: &mut [u8]) -> usize {
    match reply.get_mut(..response.len()) {
        Some(out) => {
            out.copy_from_slice(response);
            response.len()
        }
        None => 0,
    }
}

/// Enforces time limits of connections, and ends them when the process stops. Never ends.
async fn run_maintenance(state: &CoreState) {
    let checks_per_tick = (TICK.as_millis() / STOP_CHECK.as_millis()).max(1) as u32;
    let mut checks = 0_u32;
    let mut checks_left = None;
    let mut meter = BusyMeter::new(state.core.tick());
    loop {
        state.core.sleep_to_tick(STOP_CHECK).await;
        state.core.tick();
        checks = checks.wrapping_add(1);
        state.with(|tracker, context| {
            match state.core.drain_time() {
                Some(time) => {
                    let all = u32::try_from(time.as_millis() / STOP_CHECK.as_millis()).unwrap_or(u32::MAX);
                    let left = checks_left.get_or_insert_with(|| all.max(1));
                    tracker.connections.end_share(*left as usize, End::Stop);
                    *left = (*left - 1).max(1);
                }
                None if state.core.is_stopping() => tracker.connections.end_all(End::Stop),
                None => {}
            }
            tracker.requests().tick();
            if checks.is_multiple_of(checks_per_tick) {
                tracker.tick(context.time);
                tracker.follow_load(meter.measure(state.core.tick()), context.now);
                if let Some(event) = tracker.rate_event(context.time) {
                    log::warn!("rate limit of WebTorrent messages, core {}: {event}", state.core.index());
                }
            }
        });
    }
}
