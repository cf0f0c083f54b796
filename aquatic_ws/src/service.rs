//! The tracker, connected to listeners, to the other cores and to the metrics.

use std::rc::Rc;
use std::time::Duration;

use aquatic_common::config::{CleaningConfig, LimitsConfig};
use aquatic_runtime::mesh::Carries;
use aquatic_runtime::proxy::ForwardedHeaders;
use aquatic_runtime::steering::Steering;
use aquatic_runtime::tcp::config::{Naming, Opened};
use aquatic_runtime::tcp::{CoreListeners, TcpSettings, serve_tcp};
use aquatic_runtime::{Core, CoreService, Engine, EngineConfig};
use rand::rngs::SysRng;
use rand::{RngExt, rand_core::UnwrapErr};

use crate::config::WsConfig;
use crate::connections::End;
use crate::counters::Counters;
use crate::message::Batch;
use crate::session::{Place, serve};
use crate::tracker::{Keys, Tracker};

const NAMING: Naming = Naming { protocol: "ws", name: "WebTorrent", schemes: ["ws", "wss"] };

/// How often some of the swarms are looked at for what is too old.
const STEP: Duration = Duration::from_millis(250);

/// Steps between two looks at the connections.
const STEPS_PER_LOOK: u32 = 4;

/// Most peers and torrents looked at in a step, which takes about a millisecond.
const MOST_PER_STEP: usize = 20_000;

/// How long to wait for room in the channel to another core.
const OVERFLOW_PAUSE: Duration = Duration::from_millis(1);

/// Starts a WebTorrent tracker and runs it until the process is told to stop.
///
/// # Errors
/// Whatever keeps the tracker from starting or running, with what to do about it.
pub fn run(config: WsConfig) -> anyhow::Result<()> {
    let mut engine = Engine::prepare(engine_config(&config))?;
    let services = WsService::bind(&config, &mut engine)?;
    engine.run(services)?;
    Ok(())
}

fn engine_config(config: &WsConfig) -> EngineConfig {
    EngineConfig {
        workers: config.workers,
        privileges: config.privileges.clone(),
        access_list: config.access_list.clone(),
        metrics: config.metrics.clone(),
        statistics: config.statistics.clone(),
        // For the store of the other protocols, which stays empty.
        cleaning: CleaningConfig::default(),
        limits: LimitsConfig::default(),
    }
}

/// One core's part of a WebTorrent tracker.
#[derive(Debug)]
pub struct WsService {
    listeners: CoreListeners,
    settings: TcpSettings,
    config: WsConfig,
    forwarded: ForwardedHeaders,
    steering: Steering,
    keys: Keys,
}

impl WsService {
    /// Binds the sockets of all listeners and returns each core's part, in core order.
    ///
    /// # Errors
    /// An address that cannot be listened on or a certificate that cannot be used, with what to do about it.
    pub fn bind(config: &WsConfig, engine: &mut Engine) -> anyhow::Result<Vec<Self>> {
        let Opened { listeners, settings, forwarded } = config.tcp().open(engine, NAMING)?;
        let mut rng = UnwrapErr(SysRng);
        let keys = Keys { swarms: rng.random(), offers: rng.random() };
        let part = |listeners| Self {
            listeners,
            settings: settings.clone(),
            config: config.clone(),
            forwarded: forwarded.clone(),
            steering: *engine.steering(),
            keys,
        };
        Ok(listeners.into_iter().map(part).collect())
    }

    /// Serves until the process stops; generic over the message type so that other services can run beside it.
    async fn serve<M>(self, core: Rc<Core<M>>) -> anyhow::Result<()>
    where
        M: Carries<Batch> + Send + 'static,
    {
        let Self { listeners, settings, config, forwarded, steering, keys } = self;
        let pass = Duration::from_secs(config.cleaning.interval.into());
        let counters = Counters::new(core.metrics());
        let tracker = Tracker::new(config, core.index(), steering, keys, counters);
        let place = Rc::new(Place::new(Rc::clone(&core), tracker, forwarded));
        listen_to_other_cores(&place);
        let for_connections = Rc::clone(&place);
        let handler = move |connection| serve(Rc::clone(&for_connections), connection);
        let serving = serve_tcp(core, listeners, settings, handler);
        let working = futures_lite::future::or(send_to_other_cores(&place), keep_order(&place, pass));
        let never = async {
            working.await;
            std::future::pending().await
        };
        futures_lite::future::or(serving, never).await
    }
}

impl CoreService for WsService {
    type Message = Batch;

    fn run(self, core: Rc<Core<Batch>>) -> impl Future<Output = anyhow::Result<()>> + 'static {
        self.serve(core)
    }
}

fn listen_to_other_cores<M: Carries<Batch> + Send + 'static>(place: &Rc<Place<M>>) {
    let of_handler = Rc::clone(place);
    place.core.on_message(move |from, Batch(items)| {
        of_handler.with(|tracker, turn| items.into_iter().for_each(|item| tracker.item(from, item, turn)));
    });
    let place_again = Rc::clone(place);
    place.core.after_messages(move || {
        // What finds no room is tried again by the task that sends.
        place_again.flush();
    });
}

/// Sends what the tasks of this core have for other cores, after all that are ready have had their turn. Never ends.
async fn send_to_other_cores<M: Carries<Batch> + Send + 'static>(place: &Place<M>) {
    loop {
        place.mail().await;
        while !place.flush() {
            place.core.sleep(OVERFLOW_PAUSE).await;
        }
    }
}

/// Looks after connections and swarms. Never ends.
async fn keep_order<M: Carries<Batch> + Send + 'static>(place: &Place<M>, pass: Duration) {
    let steps_per_pass = (pass.as_millis() / STEP.as_millis()).max(1) as usize;
    let mut step = 0_u32;
    loop {
        place.core.sleep(STEP).await;
        place.core.tick();
        step = step.wrapping_add(1);
        place.with(|tracker, turn| {
            if place.core.is_stopping() {
                tracker.connections.end_all(End::Stop);
            }
            let budget = tracker.pass_length().div_ceil(steps_per_pass) + 1;
            tracker.expire(turn.now, budget.min(MOST_PER_STEP));
            if step.is_multiple_of(STEPS_PER_LOOK) {
                tracker.look(turn.now);
            }
        });
    }
}
