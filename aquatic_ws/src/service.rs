//! The tracker, connected to listeners, to the other cores and to the metrics.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aquatic_common::{Family, Steering};
use aquatic_http_protocol::Refused;
use aquatic_net::proxy::ForwardedHeaders;
use aquatic_net::tcp::Connection;
use aquatic_runtime::{Core, Secrets};
use aquatic_tracker::SharedAccessList;
use aquatic_web::{Upgrade, UpgradeOutcome, Upgraded, WebRequest};

use crate::config::{WsCleaningConfig, WsConfig};
use crate::connections::End;
use crate::counters::Counters;
use crate::forwarding::ForwardedBatch;
use crate::session::{CoreState, serve};
use crate::tracker::{Keys, Tracker};
use crate::upgrade::{self, Decision, Plain};

/// Time between two steps of expiry.
const STEP: Duration = Duration::from_millis(250);

/// Steps between two ticks of the tracker.
const STEPS_PER_TICK: u32 = 4;

/// Maximum budget of a step of expiry in units of work. It takes about a millisecond.
const MAX_BUDGET: u64 = 20_000;

/// How long to wait for room in the channel to another core.
const OVERFLOW_PAUSE: Duration = Duration::from_millis(1);

/// Everything the WebTorrent tracker of a core is made from; the same for all cores.
#[derive(Clone, Debug)]
pub struct WsSeed {
    config: WsConfig,
    forwarded: ForwardedHeaders,
    steering: Steering,
    access_list: Arc<SharedAccessList>,
    keys: Keys,
}

impl WsSeed {
    /// A seed for the cores of this process.
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
            },
        }
    }
}

/// The WebTorrent tracker of one core, as the front sees it.
pub struct WsTracker {
    state: Rc<CoreState>,
    forwarded: ForwardedHeaders,
}

impl WsTracker {
    /// Starts the WebTorrent tracker of a core. Completes when all cores have come this far.
    pub async fn start(core: &Rc<Core>, seed: WsSeed) -> Self {
        let WsSeed { config, forwarded, steering, access_list, keys } = seed;
        let cleaning = config.cleaning.clone();
        let counters = Counters::new(core.metrics());
        let tracker = Tracker::new(config, core.index(), steering, keys, counters);
        let channel = core.open_channel::<ForwardedBatch>("ws").await;
        let state = Rc::new(CoreState::new(Rc::clone(core), tracker, access_list, channel.clone()));
        let receiving = Rc::clone(&state);
        channel.receive(move |from, ForwardedBatch(messages)| {
            receiving.with(|tracker, context| {
                messages.drain(..).for_each(|message| tracker.receive_forwarded(from, message, context));
            });
            // What finds no room is tried again by the task that sends.
            receiving.flush();
        });
        let sending = Rc::clone(&state);
        core.spawn(async move { send_to_other_cores(&sending).await });
        let maintained = Rc::clone(&state);
        core.spawn(async move { run_maintenance(&maintained, cleaning).await });
        Self { state, forwarded }
    }

    fn count(&self, plain: Plain) {
        self.state.tracker.borrow().counters.plain(plain);
    }
}

impl Upgrade<Connection> for WsTracker {
    type Accepted = Family;

    fn respond(&mut self, request: &mut WebRequest<'_>, reply: &mut [u8]) -> UpgradeOutcome<Family> {
        match upgrade::decide(request, &self.forwarded) {
            Decision::Upgrade(accepted) => {
                if let Some(missing) = accepted.missing {
                    self.state.tracker.borrow().counters.no_client(missing);
                }
                let written = put(&accepted.response, reply);
                UpgradeOutcome::Accepted(written, accepted.client.map_or(Family::V4, Family::of))
            }
            Decision::Answer(response, plain) => {
                self.count(plain);
                UpgradeOutcome::Reply(put(&response, reply), aquatic_web::AfterReply::LingeringClose)
            }
        }
    }

    fn explain(&mut self, request: &WebRequest<'_>, reply: &mut [u8]) -> usize {
        self.count(Plain::NoUpgrade);
        put(&upgrade::explanation(request.head), reply)
    }

    fn refuse(&mut self, refused: Refused, reply: &mut [u8]) -> usize {
        self.count(Plain::Malformed);
        refused.encode(reply).unwrap_or_default()
    }

    fn count_health(&self) {
        self.count(Plain::Health);
    }

    fn serve(&self, upgraded: Upgraded<Connection, Family>) -> impl Future<Output = ()> + 'static {
        serve(Rc::clone(&self.state), upgraded)
    }
}

/// Copies a response into the reply buffer, which has room for every plain reply.
fn put(response: &[u8], reply: &mut [u8]) -> usize {
    match reply.get_mut(..response.len()) {
        Some(room) => {
            room.copy_from_slice(response);
            response.len()
        }
        None => 0,
    }
}

/// Sends what the tasks of this core have for other cores, after all that are ready have run. Never ends.
async fn send_to_other_cores(state: &CoreState) {
    loop {
        state.outgoing().await;
        while !state.flush() {
            state.core.sleep(OVERFLOW_PAUSE).await;
        }
    }
}

/// Enforces time limits of connections and expires peers. Never ends.
async fn run_maintenance(state: &CoreState, cleaning: WsCleaningConfig) {
    let pass = Duration::from_secs(cleaning.interval.into());
    let steps_per_pass = (pass.as_millis() / STEP.as_millis()).max(1) as u64;
    let mut step = 0_u32;
    loop {
        state.core.sleep(STEP).await;
        state.core.tick();
        step = step.wrapping_add(1);
        state.with(|tracker, context| {
            if state.core.is_stopping() {
                tracker.connections.end_all(End::Stop);
            }
            let budget = tracker.pass_work() / steps_per_pass + 1;
            tracker.expire(context.now, cleaning.max_peer_age, budget.min(MAX_BUDGET));
            if step.is_multiple_of(STEPS_PER_TICK) {
                tracker.tick(context.now);
            }
        });
    }
}
