//! Which services run on each core, and who listens where.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aquatic_acme::{Acme, AcmeReport};
use aquatic_cli_helpers::ConfigFlags;
use aquatic_cluster::cores::CoreCluster;
use aquatic_cluster::thread::Prepared;
use aquatic_common::config::NetworkConfig;
use aquatic_common::{ConfigurationError, SourceLimit, SourceRules};
use aquatic_http::{Counters, HttpConfig, HttpTracker, Sources};
use aquatic_metrics::names;
use aquatic_net::block_list::{BlockList, BlockListReloader};
use aquatic_net::breaker::{BreakerWatch, Breakers, CoreBreakers, OpenBreakers, Protocol};
use aquatic_net::proxy::ForwardedHeaders;
use aquatic_net::tcp::config::{Opened, ServiceName, TcpChanges};
use aquatic_net::tcp::{CoreListeners, Protocols, TcpBreakers, TcpSettings, serve_tcp};
use aquatic_runtime::{Broadcast, Core, CoreService, Engine, Health, MailboxReceiver, broadcast, handover};
use aquatic_status::CoreStatus;
use aquatic_tracker::export::{self, CoreExports, TorrentCounts};
use aquatic_tracker::snapshot::{self, CoreSnapshots};
use aquatic_tracker::{LocalTracker, TrackerSeed};
use aquatic_udp::{UdpService, UdpSettings};
use aquatic_web::{Front, FrontSettings, HttpChallenges, metrics_endpoint, reply_to_plain};
use aquatic_ws::{WsNodes, WsOverview, WsSeed, WsTracker};

use crate::cluster;
use crate::config::{self, Mode, TrackerConfig};
use crate::control::{self, Controlled, CoreControl, CoreParts};
use crate::environment;
use crate::memory::MemoryPlan;
use crate::reload::ConfigReloader;
use crate::status;
use crate::summary::{self, Lists};

/// Labels of TCP connections in metrics: with both services, one is of HTTP until it is upgraded.
fn protocol_labels(http: bool, ws: bool) -> Protocols {
    Protocols { first: if http { "http" } else { "ws" }, upgraded: if ws { "ws" } else { "http" } }
}

const HTTP: ServiceName = ServiceName { name: "HTTP", plain: "http", tls: "https" };
const WS: ServiceName = ServiceName { name: "WebTorrent", plain: "ws", tls: "wss" };

/// Maximum size of a request's head where WebSocket is all that is served.
const MAX_UPGRADE_REQUEST_SIZE: usize = 8192;

/// Changed settings that a core has not received yet.
const MAX_CHANGES: usize = 16;

/// Period of looking for sources above their rate limit.
const RATE_REPORTS: Duration = Duration::from_secs(1);

/// Runs the services of a subcommand until the process is told to stop.
///
/// # Errors
/// Whatever keeps the tracker from starting or running, with what to do about it.
pub(crate) fn run(config: &TrackerConfig, mode: Mode, flags: &ConfigFlags) -> anyhow::Result<()> {
    serve(config, mode, flags).inspect_err(|error| handover::refuse(&format!("{error:#}")))
}

fn serve(config: &TrackerConfig, mode: Mode, flags: &ConfigFlags) -> anyhow::Result<()> {
    let protocols = config.protocols(mode);
    environment::refuse_conflicts(config, mode, flags.config.as_deref())?;
    let mut engine = Engine::prepare(config.engine())?;
    environment::warn_of_unreadable(config, mode, flags.config.as_deref());
    let mut reloader = ConfigReloader::new(config, mode, flags, &engine);
    metrics_endpoint::open(&config.metrics, &mut engine)?;
    let memory = MemoryPlan::of(config, engine.cores(), protocols);
    let seed = TrackerSeed::prepare(&config.tracker(), &mut engine)?
        .with_budgets(memory.map(|memory| memory.budgets()));
    let blocked = BlockList::load(&config.rate_limits).map_err(ConfigurationError::new)?;
    engine.add_periodic(BlockListReloader::new(Arc::clone(&blocked), engine.registry()));
    summary::log_lists(Lists {
        access: (seed.access_list().mode(), seed.access_list().len()),
        blocked: blocked.listed(),
    });
    let udp = protocols
        .udp
        .then(|| {
            let sections = (&config.udp, &config.network, &config.rate_limits);
            UdpService::bind(sections, &mut engine, &seed, &blocked)
        })
        .transpose()?;
    let shared = (&seed, &blocked);
    let (tcp, certificate) = open_tcp(config, (mode, memory), shared, &mut engine, &mut reloader)?;
    let (breakers, breaker_receivers) = open_breakers(config, protocols, &mut engine)?;
    let mut controlled = Controlled::of(mode, &engine, (&seed, &blocked, &breakers), reloader.report());
    let mut cluster = open_cluster(config, mode, &mut engine, (&seed, &blocked, &breakers), &mut controlled)?;
    let udp = ready_udp(udp, config, cluster.as_ref(), &mut reloader);
    reload_lists(&seed, blocked, breakers, &engine, &mut reloader);
    controlled.certificate.clone_from(&certificate);
    let shown = (certificate, cluster.as_ref().map(|cluster| cluster.report.clone()));
    let pages = status::open(config, (protocols, memory), shown, (&mut engine, &mut reloader))?;
    let (changes, receivers) = broadcast(engine.cores(), MAX_CHANGES).context("cannot make the mailboxes")?;
    reloader.add(move |config| Ok(changes.send(&Arc::new(config.clone()))));
    let seed = (protocols.udp || protocols.http).then_some(seed);
    let snapshots = open_snapshots(&mut engine, seed.as_ref(), config, (&mut reloader, &mut controlled))?;
    let mut exports = open_exports(config, &mut engine)?.into_iter();
    engine.add_periodic(reloader);
    let control = control::open(config, controlled, &mut engine)?;
    let summed_up = with_allowed_connections(config, &tcp);
    let (mut udp, mut tcp) = (udp.into_iter(), tcp.into_iter());
    let (mut snapshots, mut pages) = (snapshots.into_iter(), pages.into_iter());
    let mut control = control.into_iter().flatten();
    let mut nodes = cluster::parts(cluster.as_mut()).into_iter();
    let on_core = |(changes, breakers)| CoreServices {
        seed: seed.clone(),
        memory,
        snapshots: snapshots.next(),
        control: control.next(),
        log_requests: config.log_requests,
        exports: exports.next(),
        cluster: nodes.next(),
        udp: udp.next(),
        tcp: tcp.next(),
        pages: pages.next(),
        changes,
        breakers,
    };
    let services = receivers.into_iter().zip(breaker_receivers).map(on_core).collect();
    let cores = engine.cores();
    engine.when_started(move || summary::log(&summed_up, mode, cores));
    engine.run(services)?;
    Ok(())
}

/// Has the engine run the thread of the cluster, if one is configured. It carries out what other nodes
/// command.
fn open_cluster(
    config: &TrackerConfig,
    mode: Mode,
    engine: &mut Engine,
    shared: (&TrackerSeed, &Arc<BlockList>, &Breakers),
    controlled: &mut Controlled,
) -> anyhow::Result<Option<Prepared>> {
    let (_, report) = &controlled.reload;
    let commanded = Controlled {
        by_hand: controlled.by_hand.clone(),
        ..Controlled::of(mode, engine, shared, report.clone())
    };
    let (seed, _, _) = shared;
    let config::Protocols { udp, http, .. } = config.protocols(mode);
    let settings = (&config.cluster, udp || http);
    let cluster = cluster::open(settings, seed, engine, commanded)?;
    controlled.cluster = cluster.as_ref().map(|cluster| (cluster.report.clone(), cluster.commands.clone()));
    Ok(cluster)
}

/// Has changed settings applied to UDP. Returns each core's part, none if UDP is not served.
fn ready_udp(
    udp: Option<(Vec<UdpService>, Broadcast<UdpSettings>)>,
    config: &TrackerConfig,
    cluster: Option<&Prepared>,
    reloader: &mut ConfigReloader,
) -> Vec<UdpService> {
    let Some((services, changes)) = udp else { return Vec::new() };
    reloader.add(move |config| Ok(changes.send(&UdpSettings::new(&config.udp, &config.rate_limits))));
    let ready = |service: UdpService| {
        let service = service.counting_clients(config.statistics.clients);
        match cluster {
            Some(cluster) => service.in_cluster(config.udp.max_connection_age, &cluster.connection_ids),
            None => service,
        }
    };
    services.into_iter().map(ready).collect()
}

/// Has changed lists, breakers and the interval of statistics applied.
fn reload_lists(
    seed: &TrackerSeed,
    blocked: Arc<BlockList>,
    breakers: Breakers,
    engine: &Engine,
    reloader: &mut ConfigReloader,
) {
    let access_list = Arc::clone(seed.access_list());
    let interval = engine.statistics_interval();
    reloader.add(move |config| {
        access_list.configure(&config.access_list);
        blocked.configure(&config.rate_limits);
        breakers.set_rules(config.rate_limits.breaker_rules());
        interval.set(config.statistics.interval);
        Ok(Vec::new())
    });
}

/// Opens what serves TCP, and has changed settings applied to it. Returns each core's part, none if nothing
/// does, and what there is to say about the certificate, if the tracker obtains it.
fn open_tcp(
    config: &TrackerConfig,
    (mode, memory): (Mode, Option<MemoryPlan>),
    (seed, blocked): (&TrackerSeed, &Arc<BlockList>),
    engine: &mut Engine,
    reloader: &mut ConfigReloader,
) -> anyhow::Result<(Vec<TcpServices>, Option<AcmeReport>)> {
    let config::Protocols { http, ws, .. } = config.protocols(mode);
    if !http && !ws {
        return Ok((Vec::new(), None));
    }
    let acme = open_acme(config, engine, reloader)?;
    let affordable = with_affordable_connections(config, memory);
    let shared = (seed, blocked, acme.as_ref(), memory);
    let (services, mut changes) = TcpServices::open(&affordable, (http, ws), engine, shared)?;
    let budgets = seed.budgets();
    let mut before = config.connections.max_connections;
    reloader.add(move |config| {
        let wanted = config.connections.max_connections;
        if let Some(plan) = memory.map(|memory| memory.with_connections(wanted)) {
            if std::mem::replace(&mut before, wanted) != wanted {
                plan.warn_of_connections(wanted);
            }
            budgets.iter().flat_map(|budgets| budgets.iter()).for_each(|budget| budget.set_bytes(plan.store));
        }
        changes.apply(&with_affordable_connections(config, memory).tcp())
    });
    Ok((services, acme.map(|acme| acme.report)))
}

/// The configuration with as many connections as open files and memory allow.
fn with_allowed_connections(config: &TrackerConfig, services: &[TcpServices]) -> TrackerConfig {
    let mut config = config.clone();
    if let Some(services) = services.first() {
        config.connections.max_connections = services.settings.max_connections;
    }
    config
}

/// Has a certificate obtained and renewed, if names for it are configured. Their list cannot become empty, or
/// stop being so, while the tracker runs.
fn open_acme(
    config: &TrackerConfig,
    engine: &mut Engine,
    reloader: &mut ConfigReloader,
) -> anyhow::Result<Option<Acme>> {
    let acme = Acme::open(&config.network, &config.acme, engine)?;
    let changes = acme.as_ref().map(Acme::changes);
    reloader.add(move |config| match &changes {
        Some(changes) => changes.apply(&config.network, &config.acme).map(|()| Vec::new()),
        None if config.network.acme.is_empty() => Ok(Vec::new()),
        None => anyhow::bail!("{} has had no names so far; restart to apply", NetworkConfig::acme),
    });
    Ok(acme)
}

/// Has torrents saved and loaded, if they are served and there is a state directory. Returns each core's
/// part.
fn open_snapshots(
    engine: &mut Engine,
    seed: Option<&TrackerSeed>,
    config: &TrackerConfig,
    (reloader, controlled): (&mut ConfigReloader, &mut Controlled),
) -> anyhow::Result<Vec<CoreSnapshots>> {
    let Some(seed) = seed else { return Ok(Vec::new()) };
    let snapshot::Prepared { cores, interval, trigger } =
        snapshot::prepare(engine, seed, config.snapshot_interval)?;
    let mut current = config.snapshot_interval;
    warn_of_unused_interval(config);
    reloader.add(move |config| {
        if config.snapshot_interval != current {
            warn_of_unused_interval(config);
            current = config.snapshot_interval;
        }
        interval.set(config.snapshot_interval);
        Ok(Vec::new())
    });
    controlled.snapshots = trigger;
    Ok(cores)
}

/// Warns of an interval between snapshots that are not saved.
fn warn_of_unused_interval(config: &TrackerConfig) {
    if config.snapshot_interval > 0 && config.state_directory.as_os_str().is_empty() {
        log::warn!(
            "snapshot_interval = {} has no effect without state_directory, where snapshots are saved; set that, or \
             leave snapshot_interval out",
            config.snapshot_interval
        );
    }
}

/// Each core's part in exports; none if nothing is to be exported.
fn open_exports(config: &TrackerConfig, engine: &mut Engine) -> anyhow::Result<Vec<CoreExports>> {
    let exports = export::prepare(engine, (&config.exports, &config.statistics), &config.privileges)?;
    Ok(exports.unwrap_or_default())
}

/// Makes the breakers of the protocols that are served, and what tells each core.
fn open_breakers(
    config: &TrackerConfig,
    served: config::Protocols,
    engine: &mut Engine,
) -> anyhow::Result<(Breakers, Vec<MailboxReceiver<OpenBreakers>>)> {
    let served = [(served.udp, Protocol::Udp), (served.http, Protocol::Http), (served.ws, Protocol::Ws)];
    let protocols: Vec<Protocol> =
        served.into_iter().filter_map(|(is_served, protocol)| is_served.then_some(protocol)).collect();
    let rules = config.rate_limits.breaker_rules();
    let (breakers, receivers) = Breakers::new(&protocols, rules, engine.registry(), engine.cores())
        .context("cannot make the mailboxes of the breakers")?;
    let now = engine.epoch().elapsed();
    engine.add_periodic(BreakerWatch::new(&breakers, engine.registry(), engine.cores(), now));
    Ok((breakers, receivers))
}

/// The configuration with no more connections than the memory budget allows.
pub(crate) fn with_affordable_connections(
    config: &TrackerConfig,
    memory: Option<MemoryPlan>,
) -> TrackerConfig {
    let mut config = config.clone();
    let wanted = config.connections.max_connections;
    config.connections.max_connections =
        memory.map_or(wanted, |memory| memory.with_connections(wanted).connections);
    config
}

/// What one core serves.
struct CoreServices {
    /// The tracker that UDP and HTTP share; `None` where neither is served.
    seed: Option<TrackerSeed>,
    memory: Option<MemoryPlan>,
    snapshots: Option<CoreSnapshots>,
    control: Option<CoreControl>,
    /// One of so many requests is logged; 0 for none.
    log_requests: u32,
    exports: Option<CoreExports>,
    /// The way to other nodes, if there are any.
    cluster: Option<CoreCluster>,
    udp: Option<UdpService>,
    tcp: Option<TcpServices>,
    pages: Option<CoreStatus>,
    /// Changed settings.
    changes: MailboxReceiver<Arc<TrackerConfig>>,
    breakers: MailboxReceiver<OpenBreakers>,
}

/// What one core serves over TCP.
struct TcpServices {
    listeners: CoreListeners,
    settings: TcpSettings,
    forwarded: ForwardedHeaders,
    http: Option<HttpConfig>,
    ws: Option<WsSeed>,
    health: Health,
    /// Limits of HTTP requests by source, and the key of their table.
    http_rules: (SourceRules, [u8; 16]),
    counts_clients: bool,
    /// Replies to the challenges of a certificate authority.
    challenges: Option<HttpChallenges>,
}

impl CoreService for CoreServices {
    async fn run(self, core: Rc<Core>) -> anyhow::Result<()> {
        let tracker = match &self.seed {
            Some(seed) => Some(LocalTracker::start(&core, seed).await),
            None => None,
        };
        let store_budget = core.metrics().gauge(&names::STORE_BUDGET, &[]);
        store_budget.set(self.memory.map_or(0, |memory| memory.store));
        if let Some(tracker) = &tracker {
            tracker.state().requests().log_one_of(self.log_requests);
        }
        if let (Some(snapshots), Some(tracker)) = (self.snapshots, &tracker) {
            snapshots.attach(&core, tracker)?;
        }
        let breakers =
            CoreBreakers::attach(self.breakers, &core).context("cannot wait for changes of the breakers")?;
        let tcp = match self.tcp {
            Some(tcp) => Some(
                tcp.start((&core, self.cluster.as_ref()), tracker.as_ref(), &breakers, self.pages).await?,
            ),
            None => None,
        };
        if let Some(control) = self.control {
            let ws = tcp.as_ref().and_then(|tcp| tcp.overview.clone());
            control.attach(CoreParts { core: Rc::clone(&core), tracker: tracker.clone(), ws })?;
        }
        if let Some(exports) = self.exports {
            let own = tracker.clone().map(|tracker| tracker as Rc<dyn TorrentCounts>);
            let of_ws = tcp.as_ref().and_then(|tcp| tcp.ws_counts.clone());
            exports.attach(&core, own.into_iter().chain(of_ws).collect())?;
        }
        if let Some(end) = self.cluster {
            let nodes = tcp.as_ref().and_then(|tcp| tcp.ws_nodes.clone());
            end.attach(&core, tracker.as_ref(), move |event| {
                nodes.iter().for_each(|nodes| cluster::tell_webtorrent(nodes, &event));
            })?;
        }
        let changing = (tracker.clone(), tcp.as_ref().map(|tcp| tcp.front.clone()));
        let (cores, memory) = (core.count(), self.memory);
        self.changes
            .attach(&core, move |config| {
                let plan = memory.map(|memory| memory.with_connections(config.connections.max_connections));
                store_budget.set(plan.map_or(0, |plan| plan.store));
                reconfigure(&config, (cores, plan), changing.0.as_deref(), changing.1.as_ref());
            })
            .context("cannot wait for changed settings")?;
        let udp = async {
            match (self.udp, &tracker) {
                (Some(udp), Some(tracker)) => {
                    udp.serve(Rc::clone(&core), Rc::clone(tracker), breakers.clone()).await
                }
                _ => Ok(()),
            }
        };
        let tcp = async {
            match tcp {
                Some(tcp) => tcp.serve(&core).await,
                None => Ok(()),
            }
        };
        futures_lite::future::try_zip(udp, tcp).await?;
        Ok(())
    }
}

impl TcpServices {
    /// Binds the listeners and returns each core's part, in core order, and what applies changed settings.
    fn open(
        config: &TrackerConfig,
        (http, ws): (bool, bool),
        engine: &mut Engine,
        (seed, blocked, acme, memory): (&TrackerSeed, &Arc<BlockList>, Option<&Acme>, Option<MemoryPlan>),
    ) -> anyhow::Result<(Vec<Self>, TcpChanges)> {
        let names: Vec<ServiceName> = [(http, HTTP), (ws, WS)]
            .into_iter()
            .filter_map(|(serves, name)| serves.then_some(name))
            .collect();
        let Opened { listeners, settings, forwarded, changes } = config.tcp().open(
            engine,
            protocol_labels(http, ws),
            &names,
            (blocked, acme.map(|acme| &acme.tls)),
        )?;
        // WebSocket connections are never idle in this sense.
        let settings =
            TcpSettings { evict_idle_when_full: true, reply_to_plain: reply_to_plain(), ..settings };
        let ws = ws.then(|| {
            WsSeed::new(&config.ws, &forwarded, *seed.steering(), seed.access_list(), engine.secrets())
                .with_source_rules(config.rate_limits.ws_rules(engine.cores()))
                .counting_clients(config.statistics.clients)
                .logging_one_of(config.log_requests)
                .with_memory(seed.budgets(), memory.map(|memory| memory.unsent()))
        });
        let http_rules =
            (config.rate_limits.http_rules(engine.cores()), engine.secrets().derive("aquatic HTTP loads 1"));
        let health = engine.health();
        let part = |listeners| Self {
            listeners,
            settings: settings.clone(),
            forwarded: forwarded.clone(),
            http: http.then(|| config.http.clone()),
            ws: ws.clone(),
            health: health.clone(),
            http_rules: http_rules.clone(),
            counts_clients: config.statistics.clients,
            challenges: acme.map(|acme| acme.http.clone()),
        };
        Ok((listeners.into_iter().map(part).collect(), changes))
    }

    /// Makes the sites of a core. Completes when all cores have come this far.
    async fn start(
        self,
        (core, cluster): (&Rc<Core>, Option<&CoreCluster>),
        tracker: Option<&Rc<LocalTracker>>,
        breakers: &CoreBreakers,
        pages: Option<CoreStatus>,
    ) -> anyhow::Result<StartedTcp> {
        let Self { listeners, settings, forwarded, http, ws, health, http_rules, counts_clients, challenges } =
            self;
        let served = [(http.is_some(), Protocol::Http), (ws.is_some(), Protocol::Ws)];
        let protocols =
            served.into_iter().filter_map(|(is_served, protocol)| is_served.then_some(protocol)).collect();
        let max_request_size = http.as_ref().map_or(MAX_UPGRADE_REQUEST_SIZE, |http| http.max_request_size);
        let site = http.zip(tracker).map(|(http, tracker)| {
            let (rules, key) = http_rules;
            let limit = SourceLimit::new(rules, key);
            let sources = Sources { limit, breakers: breakers.clone(), ..Sources::default() };
            let counters = Counters::new(core.metrics()).counting_clients(core.metrics(), counts_clients);
            HttpTracker::new(&http, forwarded, (sources, counters), Rc::clone(tracker))
        });
        let upgrade = match ws {
            Some(seed) => {
                let seed = seed.showing_load(tracker.is_none());
                Some(WsTracker::start(core, seed, breakers.clone()).await)
            }
            None => None,
        };
        let overview = upgrade.as_ref().map(WsTracker::overview);
        let ws_nodes =
            upgrade.as_ref().zip(cluster).map(|(ws, cluster)| cluster::join_webtorrent(ws, cluster));
        let ws_counts = upgrade.as_ref().map(|ws| Rc::new(ws.counts()) as Rc<dyn TorrentCounts>);
        let pages =
            pages.map(|pages| pages.start(core)).transpose().context("cannot start the status page")?;
        let front = Front::new(Rc::clone(core), (site, upgrade), health, FrontSettings { max_request_size })
            .with_pages(pages)
            .with_challenges(challenges);
        let reporting = (Rc::clone(core), front.clone());
        core.spawn(async move { report_rates(&reporting.0, &reporting.1).await });
        let breakers = TcpBreakers { breakers: breakers.clone(), protocols };
        Ok(StartedTcp { listeners, settings, breakers, front, overview, ws_counts, ws_nodes })
    }
}

/// The front of a core, with HTTP, WebTorrent or both.
type CoreFront = Front<HttpTracker, WsTracker, Rc<Core>>;

/// What one core serves over TCP, ready for connections.
struct StartedTcp {
    listeners: CoreListeners,
    settings: TcpSettings,
    breakers: TcpBreakers,
    front: CoreFront,
    /// What WebTorrent swarms tell about themselves.
    overview: Option<WsOverview>,
    ws_counts: Option<Rc<dyn TorrentCounts>>,
    /// What has to hear of other nodes.
    ws_nodes: Option<WsNodes>,
}

impl StartedTcp {
    /// Serves connections until the process stops.
    async fn serve(self, core: &Rc<Core>) -> anyhow::Result<()> {
        let Self { listeners, settings, breakers, front, .. } = self;
        let handler = move |connection| front.clone().serve(connection);
        serve_tcp(Rc::clone(core), listeners, settings, breakers, handler).await
    }
}

/// Logs when sources begin to send HTTP requests above their limit, and when that is over. Never ends.
async fn report_rates(core: &Core, front: &CoreFront) {
    loop {
        core.sleep_to_tick(RATE_REPORTS).await;
        front.with_sites(|site, _| {
            if let Some(event) = site.and_then(|site| site.rate_event(core.tick())) {
                log::warn!("rate limit of HTTP requests, core {}: {event}", core.index());
            }
        });
    }
}

/// Applies changed settings on a core. UDP and the connections have mailboxes of their own.
fn reconfigure(
    config: &TrackerConfig,
    (cores, memory): (usize, Option<MemoryPlan>),
    tracker: Option<&LocalTracker>,
    front: Option<&CoreFront>,
) {
    let rates = &config.rate_limits;
    if let Some(tracker) = tracker {
        tracker.reconfigure(&config.tracker());
        tracker.state().requests().log_one_of(config.log_requests);
    }
    // Networks that cannot be parsed have been reported by the check of the configuration.
    let (Some(front), Ok(forwarded)) = (front, config.tcp().forwarded()) else { return };
    front.reconfigure(|site, upgrade| {
        if let Some(site) = site {
            site.reconfigure(&config.http, forwarded.clone(), rates.http_rules(cores));
        }
        if let Some(upgrade) = upgrade {
            upgrade.reconfigure(&config.ws, forwarded, rates.ws_rules(cores));
            upgrade.set_max_unsent(memory.map(|memory| memory.unsent()));
            upgrade.log_one_of(config.log_requests);
        }
    });
}
