//! Phases of the test.

use std::collections::VecDeque;
use std::sync::Arc;

use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::interrupt::Interrupt;
use aquatic_load_engine::pacing::Window;
use aquatic_load_engine::report::{Outcome, Report};
use aquatic_load_engine::run_phase::{LiveCounters, PhaseLength, run_phase};
use aquatic_load_engine::settings::Mode;

use crate::config::{Config, OpenConfig};
use crate::counters::{Note, Tally};
use crate::fast_path::FastPath;
use crate::plan::Plan;
use crate::source;
use crate::traffic::Traffic;
use crate::worker::{LoadModel, Phase, Worker};

/// Number of timeouts after which the test continues without sockets that have no connection id.
const CONNECT_ATTEMPTS: Nanos = 5;

/// Phases of the test. All threads are in the same phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect,
    Prefill,
    Load,
}

/// Runs all phases of the test, unless it is interrupted.
///
/// # Errors
/// When sockets cannot be opened or threads cannot be started. Misbehaviour of the tracker is reported by
/// [`Outcome::verdict`].
pub fn run(config: Config, interrupt: &Interrupt) -> anyhow::Result<Outcome> {
    let server = config.server_address;
    let plan = Arc::new(Plan::new(config)?);
    let config = &plan.config;
    let live = Arc::new(LiveCounters::new(interrupt));
    let mut workers = Vec::new();
    for thread in 0..config.threads {
        let sources = source::open(&plan, thread)?;
        let fast_path = FastPath::open(&config.network, &sources)?;
        workers.push(Worker::new(Arc::clone(&plan), Arc::clone(&live), (sources, fast_path), thread));
    }
    let mut phases = Vec::new();
    for (step, name, extent) in steps(config) {
        let act = |worker: &mut Worker| worker.run(phase(&plan, step, worker.thread()));
        let tally: Option<Tally> =
            run_phase(&mut workers, (name, extent), (&plan.topology.clock, &live), act)?;
        let report = tally.map(|tally| report(&tally, (step, name), config.threads));
        // The connect phase has a report of its own only if something has gone wrong.
        phases.extend(report.filter(|report| step != Step::Connect || has_faults(report)));
    }
    let population = &config.population;
    Ok(Outcome {
        protocol: "udp",
        server_address: server.to_string(),
        torrents: population.torrents,
        peers: population.peers,
        phases,
        interrupted: interrupt.is_set(),
        limits: config.verdict.limits(),
    })
}

/// Returns the report of a phase.
fn report(tally: &Tally, (step, name): (Step, &'static str), threads: u32) -> Report {
    Report {
        replies_checked: tally.noted(Note::RepliesChecked),
        overdue: tally.noted(Note::NotDue),
        peers_not_announced: tally.noted(Note::PeersLost),
        is_constant: step == Step::Load,
        ..tally.report(name, threads)
    }
}

fn has_faults(report: &Report) -> bool {
    !report.error_texts.is_empty() || report.violations.iter().any(|violation| violation.count > 0)
}

fn steps(config: &Config) -> Vec<(Step, &'static str, PhaseLength)> {
    let mut steps = vec![(Step::Connect, "connecting", PhaseLength::Steps(1))];
    if config.prefill.enable {
        steps.push((Step::Prefill, "prefill", PhaseLength::Steps(config.population.peers)));
    }
    if config.duration > 0 {
        let time = u64::from(config.warm_up) + u64::from(config.duration);
        steps.push((Step::Load, "load", PhaseLength::Seconds(time)));
    }
    steps
}

fn phase(plan: &Plan, step: Step, thread: u32) -> Phase {
    let config = &plan.config;
    let now = plan.topology.now();
    match step {
        Step::Connect => {
            let model = LoadModel::Closed(Window::new(config.closed.window, 1.0));
            let until = now + CONNECT_ATTEMPTS * plan.timeout();
            Phase { until, ..Phase::until_done(Traffic::Connects, model, now) }
        }
        Step::Prefill => {
            let model = LoadModel::Closed(Window::new(config.prefill.window, 1.0));
            Phase::until_done(Traffic::Prefill, model, now)
        }
        Step::Load => {
            let time = (config.warm_up, config.duration);
            Phase::timed(Traffic::Mix, load_model(config, now, thread), now, time)
        }
    }
}

fn load_model(config: &Config, now: Nanos, thread: u32) -> LoadModel {
    match config.mode {
        Mode::Closed => {
            let closed = &config.closed;
            LoadModel::Closed(Window::new(closed.window, closed.further_request_probability))
        }
        Mode::Open => {
            let OpenConfig { rate, arrivals, further_request_probability } = config.open;
            let share = (thread, config.threads);
            LoadModel::Open {
                schedule: arrivals.schedule(rate, share, config.population.seed, now),
                further_probability: further_request_probability,
                further: VecDeque::new(),
            }
        }
    }
}
