//! Which services run on each core, and who listens where.

use std::rc::Rc;

use aquatic_http::{Counters, HttpConfig, HttpTracker};
use aquatic_net::proxy::ForwardedHeaders;
use aquatic_net::tcp::config::{Naming, Opened};
use aquatic_net::tcp::{CoreListeners, Protocols, TcpSettings, serve_tcp};
use aquatic_runtime::{Core, CoreService, Engine, Health};
use aquatic_tracker::{LocalTracker, TrackerSeed};
use aquatic_udp::UdpService;
use aquatic_web::{Front, FrontSettings, metrics_endpoint};
use aquatic_ws::{WsSeed, WsTracker};

use crate::config::TrackerConfig;

const PROTOCOLS: Protocols = Protocols { first: "http", upgraded: "ws" };
const HTTP: Naming = Naming { protocols: PROTOCOLS, name: "HTTP", schemes: ["http", "https"] };
const WS: Naming = Naming { protocols: PROTOCOLS, name: "WebTorrent", schemes: ["ws", "wss"] };

/// Maximum size of a request's head where WebSocket is all that is served.
const MAX_UPGRADE_REQUEST_SIZE: usize = 8192;

/// Runs a UDP tracker until the process is told to stop.
pub(crate) fn run_udp(config: TrackerConfig) -> anyhow::Result<()> {
    let (engine, seed) = prepare(&config)?;
    let services = UdpService::bind((&config.udp, &config.network), &engine, &seed)?;
    let on_core = |udp| CoreServices { seed: Some(seed.clone()), udp: Some(udp), tcp: None };
    engine.run(services.into_iter().map(on_core).collect())?;
    Ok(())
}

/// Runs an HTTP tracker until the process is told to stop.
pub(crate) fn run_http(config: TrackerConfig) -> anyhow::Result<()> {
    let (mut engine, seed) = prepare(&config)?;
    let Opened { listeners, settings, forwarded } = config.tcp().open(&mut engine, HTTP)?;
    // Most clients come for one request and keep the connection all the same.
    let settings = TcpSettings { evict_idle_when_full: true, ..settings };
    let health = engine.health();
    let on_core = |listeners| CoreServices {
        seed: Some(seed.clone()),
        udp: None,
        tcp: Some(TcpServices {
            listeners,
            settings: settings.clone(),
            forwarded: forwarded.clone(),
            http: Some(config.http.clone()),
            ws: None,
            health: health.clone(),
        }),
    };
    engine.run(listeners.into_iter().map(on_core).collect())?;
    Ok(())
}

/// Runs a WebTorrent tracker until the process is told to stop.
pub(crate) fn run_ws(config: TrackerConfig) -> anyhow::Result<()> {
    let (mut engine, seed) = prepare(&config)?;
    let Opened { listeners, settings, forwarded } = config.tcp().open(&mut engine, WS)?;
    let ws = WsSeed::new(&config.ws, &forwarded, *seed.steering(), seed.access_list(), engine.secrets());
    let health = engine.health();
    let on_core = |listeners| CoreServices {
        seed: None,
        udp: None,
        tcp: Some(TcpServices {
            listeners,
            settings: settings.clone(),
            forwarded: forwarded.clone(),
            http: None,
            ws: Some(ws.clone()),
            health: health.clone(),
        }),
    };
    engine.run(listeners.into_iter().map(on_core).collect())?;
    Ok(())
}

/// Prepares what all services need, before any of them binds its sockets.
fn prepare(config: &TrackerConfig) -> anyhow::Result<(Engine, TrackerSeed)> {
    let mut engine = Engine::prepare(config.engine())?;
    metrics_endpoint::open(&config.metrics, &mut engine)?;
    let seed = TrackerSeed::prepare(&config.tracker(), &mut engine)?;
    Ok((engine, seed))
}

/// What one core serves.
struct CoreServices {
    /// The tracker that UDP and HTTP share; `None` where neither is served.
    seed: Option<TrackerSeed>,
    udp: Option<UdpService>,
    tcp: Option<TcpServices>,
}

/// What one core serves over TCP.
struct TcpServices {
    listeners: CoreListeners,
    settings: TcpSettings,
    forwarded: ForwardedHeaders,
    http: Option<HttpConfig>,
    ws: Option<WsSeed>,
    health: Health,
}

impl CoreService for CoreServices {
    async fn run(self, core: Rc<Core>) -> anyhow::Result<()> {
        let tracker = match &self.seed {
            Some(seed) => Some(LocalTracker::start(&core, seed).await),
            None => None,
        };
        let udp = async {
            match (self.udp, &tracker) {
                (Some(udp), Some(tracker)) => udp.serve(Rc::clone(&core), Rc::clone(tracker)).await,
                _ => Ok(()),
            }
        };
        let tcp = async {
            match self.tcp {
                Some(tcp) => tcp.serve(&core, tracker.as_ref()).await,
                None => Ok(()),
            }
        };
        futures_lite::future::try_zip(udp, tcp).await?;
        Ok(())
    }
}

impl TcpServices {
    /// Serves connections until the process stops.
    async fn serve(self, core: &Rc<Core>, tracker: Option<&Rc<LocalTracker>>) -> anyhow::Result<()> {
        let Self { listeners, settings, forwarded, http, ws, health } = self;
        let max_request_size = http.as_ref().map_or(MAX_UPGRADE_REQUEST_SIZE, |http| http.max_request_size);
        let site = http.zip(tracker).map(|(http, tracker)| {
            HttpTracker::new(&http, forwarded, Counters::new(core.metrics()), Rc::clone(tracker))
        });
        let upgrade = match ws {
            Some(seed) => Some(WsTracker::start(core, seed).await),
            None => None,
        };
        let front = Front::new(Rc::clone(core), (site, upgrade), health, FrontSettings { max_request_size });
        let handler = move |connection| front.clone().serve(connection);
        serve_tcp(Rc::clone(core), listeners, settings, handler).await
    }
}
