//! The handler, connected to listeners, to the other cores and to the metrics.

use std::cell::RefCell;
use std::rc::Rc;

use aquatic_runtime::proxy::ForwardedHeaders;
use aquatic_runtime::steering::Steering;
use aquatic_runtime::tcp::config::{Naming, Opened};
use aquatic_runtime::tcp::{CoreListeners, TcpSettings, serve_tcp};
use aquatic_runtime::{Core, CoreService, Engine, EngineConfig};
use rand::RngExt;

use crate::config::{HttpConfig, ProtocolConfig};
use crate::connection::{Workplace, serve};
use crate::counters::Counters;
use crate::handler::Handler;

const NAMING: Naming = Naming { protocol: "http", name: "HTTP", schemes: ["http", "https"] };

/// Starts an HTTP tracker and runs it until the process is told to stop.
///
/// # Errors
/// Whatever keeps the tracker from starting or running, with what to do about it.
pub fn run(config: HttpConfig) -> anyhow::Result<()> {
    let mut engine = Engine::prepare(engine_config(&config))?;
    let services = HttpService::bind(&config, &mut engine)?;
    engine.run(services)?;
    Ok(())
}

fn engine_config(config: &HttpConfig) -> EngineConfig {
    EngineConfig {
        workers: config.workers,
        privileges: config.privileges.clone(),
        access_list: config.access_list.clone(),
        metrics: config.metrics.clone(),
        statistics: config.statistics.clone(),
        cleaning: config.cleaning.clone(),
        limits: config.limits.clone(),
    }
}

/// One core's part of an HTTP tracker.
#[derive(Debug)]
pub struct HttpService {
    listeners: CoreListeners,
    settings: TcpSettings,
    protocol: ProtocolConfig,
    forwarded: ForwardedHeaders,
    steering: Steering,
}

impl HttpService {
    /// Binds the sockets of all listeners and returns each core's part, in core order.
    ///
    /// # Errors
    /// An address that cannot be listened on or a certificate that cannot be used, with what to do about it.
    pub fn bind(config: &HttpConfig, engine: &mut Engine) -> anyhow::Result<Vec<Self>> {
        let Opened { listeners, settings, forwarded } = config.tcp().open(engine, NAMING)?;
        // Most clients come for one request and keep the connection all the same.
        let settings = TcpSettings { idle_makes_room: true, ..settings };
        let part = |listeners| Self {
            listeners,
            settings: settings.clone(),
            protocol: config.protocol.clone(),
            forwarded: forwarded.clone(),
            steering: *engine.steering(),
        };
        Ok(listeners.into_iter().map(part).collect())
    }

    /// Serves until the process stops; generic over the message type so that other services can run beside it.
    async fn serve<M: Send + 'static>(self, core: Rc<Core<M>>) -> anyhow::Result<()> {
        let Self { listeners, settings, protocol, forwarded, steering } = self;
        let counters = Counters::new(core.metrics());
        let seed = core.rng().random();
        let handler = Handler::new(&protocol, forwarded, (core.index(), steering), counters, seed);
        let place = Rc::new(RefCell::new(Workplace::new(handler)));
        let core_again = Rc::clone(&core);
        let handler = move |connection| serve(Rc::clone(&core_again), Rc::clone(&place), connection);
        serve_tcp(core, listeners, settings, handler).await
    }
}

impl CoreService for HttpService {
    type Message = ();

    fn run(self, core: Rc<Core<()>>) -> impl Future<Output = anyhow::Result<()>> + 'static {
        self.serve(core)
    }
}
