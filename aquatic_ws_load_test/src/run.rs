//! Phases of the test.

use std::sync::Arc;

use anyhow::Context;
use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::command::allow_connections;
use aquatic_load_engine::interrupt::Interrupt;
use aquatic_load_engine::phase::LoadModel;
use aquatic_load_engine::report::{Outcome, Report};
use aquatic_load_engine::run_phase::{LiveCounters, PhaseLength, run_phase};
use aquatic_load_engine::topology::share;

use crate::config::Config;
use crate::counters::{Kind, Note, Tally};
use crate::plan::Plan;
use crate::worker::{Phase, Traffic, Worker};

/// Runs all phases of the test, unless it is interrupted.
///
/// # Errors
/// When the test cannot be set up. Misbehaviour of the tracker is reported by [`Outcome::verdict`].
pub fn run(config: Config, interrupt: &Interrupt) -> anyhow::Result<Outcome> {
    allow_connections(config.connections.count)?;
    let plan = Arc::new(Plan::new(config)?);
    plan.topology.check_sources()?;
    let config = &plan.config;
    let live = Arc::new(LiveCounters::new(interrupt));
    let mut workers = Vec::new();
    let mut first = 0;
    for thread in 0..config.threads {
        let count = share(config.connections.count, config.threads, thread);
        let worker = Worker::new(Arc::clone(&plan), Arc::clone(&live), thread, first..first + count);
        workers.push(worker.context("cannot create an epoll instance")?);
        first += count;
    }
    let mut phases = Vec::new();
    for (name, traffic, extent) in steps(config) {
        let now = plan.topology.now();
        let act = |worker: &mut Worker| worker.run(phase(config, traffic, now, worker.thread()));
        let tally: Option<Tally> =
            run_phase(&mut workers, (name, extent), (&plan.topology.clock, &live), act)?;
        if let Some(mut tally) = tally {
            tally.count_rest_as_lost(Kind::Offer);
            tally.count_rest_as_lost(Kind::Answer);
            phases.push(Report {
                replies_checked: tally.served(Kind::Offer),
                overdue: tally.noted(Note::NotDue),
                is_constant: traffic == Traffic::Mix,
                ignores_losses: traffic == Traffic::Churn,
                ..tally.report(name, config.threads)
            });
        }
    }
    Ok(Outcome {
        protocol: if config.tls.enable { "wss" } else { "ws" },
        server_address: config.server_address.to_string(),
        torrents: config.population.torrents,
        peers: config.shape().peers,
        phases,
        interrupted: interrupt.is_set(),
        limits: config.verdict.limits(),
    })
}

fn steps(config: &Config) -> Vec<(&'static str, Traffic, PhaseLength)> {
    let connections = PhaseLength::Steps(config.connections.count.into());
    if config.churn.connections > 0 {
        return vec![("churn", Traffic::Churn, PhaseLength::Steps(config.churn.connections))];
    }
    if config.idle.enable {
        return vec![("idle", Traffic::Idle, connections)];
    }
    let time = u64::from(config.warm_up) + u64::from(config.duration);
    vec![("connecting", Traffic::Connect, connections), ("load", Traffic::Mix, PhaseLength::Seconds(time))]
}

fn phase(config: &Config, traffic: Traffic, now: Nanos, thread: u32) -> Phase {
    let (arrivals, share) = (config.open.arrivals, (thread, config.threads));
    let schedule = |rate| arrivals.schedule(rate, share, config.population.seed, now);
    match traffic {
        Traffic::Connect | Traffic::Idle => Phase::until_done(traffic, LoadModel::Closed, now),
        Traffic::Churn => {
            let rate = config.churn.rate;
            let model = if rate == 0 { LoadModel::Closed } else { LoadModel::Open(schedule(rate)) };
            Phase::until_done(traffic, model, now)
        }
        Traffic::Mix => {
            let model = LoadModel::new(config.mode, || schedule(config.open.rate));
            Phase::timed(traffic, model, now, (config.warm_up, config.duration))
        }
    }
}
