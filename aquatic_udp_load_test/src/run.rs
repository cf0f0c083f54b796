//! The phases of a test, from sockets to reports.

use std::collections::VecDeque;
use std::sync::Arc;

use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::conduct::{Extent, Live, conduct};
use aquatic_load_engine::pacing::Window;
use aquatic_load_engine::report::Outcome;
use aquatic_load_engine::settings::Mode;

use crate::config::{Config, OpenConfig};
use crate::counted::Tally;
use crate::plan::Plan;
use crate::source;
use crate::traffic::Traffic;
use crate::worker::{Pace, Phase, Worker};

/// How often a socket asks for its first connection id before the test goes on without it.
const CONNECT_ATTEMPTS: Nanos = 5;

/// Steps of a test. All threads go through them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect,
    Prefill,
    Load,
}

/// Runs the whole test.
///
/// # Errors
/// When sockets cannot be opened or threads cannot be started. Trackers that misbehave are no error here; see
/// [`Outcome::verdict`].
pub fn run(config: Config) -> anyhow::Result<Outcome> {
    let server = config.server_address;
    let plan = Arc::new(Plan::new(config)?);
    let config = &plan.config;
    let live = Arc::new(Live::default());
    let mut workers = Vec::new();
    for thread in 0..config.threads {
        let sources = source::open(&plan, thread)?;
        workers.push(Worker::new(Arc::clone(&plan), Arc::clone(&live), sources, thread));
    }
    let mut phases = Vec::new();
    for (step, name, extent) in steps(config) {
        let act = |worker: &mut Worker| worker.run(phase(&plan, step, worker.thread()));
        let tally: Option<Tally> = conduct(&mut workers, (name, extent), (&plan.stage.clock, &live), act)?;
        // Connecting is a means; only its failure is worth a report.
        phases
            .extend(tally.filter(|_| step != Step::Connect).map(|tally| tally.report(name, config.threads)));
    }
    let population = &config.population;
    Ok(Outcome {
        protocol: "udp",
        server_address: server.to_string(),
        torrents: population.torrents,
        peers: population.peers,
        phases,
    })
}

fn steps(config: &Config) -> Vec<(Step, &'static str, Extent)> {
    let mut steps = vec![(Step::Connect, "connecting", Extent::Steps(1))];
    if config.prefill.enable {
        steps.push((Step::Prefill, "prefill", Extent::Steps(config.population.peers)));
    }
    if config.duration > 0 {
        let time = u64::from(config.warm_up) + u64::from(config.duration);
        steps.push((Step::Load, "load", Extent::Seconds(time)));
    }
    steps
}

fn phase(plan: &Plan, step: Step, thread: u32) -> Phase {
    let config = &plan.config;
    let now = plan.stage.now();
    match step {
        Step::Connect => {
            let pace = Pace::Closed(Window::new(config.closed.window, 1.0));
            let until = now + CONNECT_ATTEMPTS * plan.timeout();
            Phase { until, ..Phase::until_done(Traffic::Connects, pace, now) }
        }
        Step::Prefill => {
            let pace = Pace::Closed(Window::new(config.prefill.window, 1.0));
            Phase::until_done(Traffic::Prefill, pace, now)
        }
        Step::Load => {
            let time = (config.warm_up, config.duration);
            Phase::timed(Traffic::Mix, pace(config, now, thread), now, time)
        }
    }
}

fn pace(config: &Config, now: Nanos, thread: u32) -> Pace {
    match config.mode {
        Mode::Closed => {
            let closed = &config.closed;
            Pace::Closed(Window::new(closed.window, closed.further_request_probability))
        }
        Mode::Open => {
            let OpenConfig { rate, arrivals, further_request_probability } = config.open;
            let share = (thread, config.threads);
            Pace::Open {
                schedule: arrivals.schedule(rate, share, config.population.seed, now),
                further_probability: further_request_probability,
                further: VecDeque::new(),
            }
        }
    }
}
