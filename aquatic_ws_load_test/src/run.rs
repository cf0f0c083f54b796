//! The phases of a test, from connections to reports.

use std::sync::Arc;

use anyhow::Context;
use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::command::allow_connections;
use aquatic_load_engine::conduct::{Extent, Live, conduct};
use aquatic_load_engine::phase::Pace;
use aquatic_load_engine::report::Outcome;
use aquatic_load_engine::stage::share;

use crate::config::Config;
use crate::counted::{Kind, Tally};
use crate::plan::Plan;
use crate::worker::{Phase, Traffic, Worker};

/// Runs the whole test.
///
/// # Errors
/// When the test cannot be set up. Trackers that misbehave are no error here; see [`Outcome::verdict`].
pub fn run(config: Config) -> anyhow::Result<Outcome> {
    allow_connections(config.connections.count)?;
    let plan = Arc::new(Plan::new(config)?);
    let config = &plan.config;
    let live = Arc::new(Live::default());
    let mut workers = Vec::new();
    let mut first = 0;
    for thread in 0..config.threads {
        let count = share(config.connections.count, config.threads, thread);
        let worker = Worker::new(Arc::clone(&plan), Arc::clone(&live), thread, first..first + count);
        workers.push(worker.context("cannot watch connections")?);
        first += count;
    }
    let mut phases = Vec::new();
    for (name, traffic, extent) in steps(config) {
        let now = plan.stage.now();
        let act = |worker: &mut Worker| worker.run(phase(config, traffic, now, worker.thread()));
        let tally: Option<Tally> = conduct(&mut workers, (name, extent), (&plan.stage.clock, &live), act)?;
        if let Some(mut tally) = tally {
            tally.lose_the_rest(Kind::Offer);
            tally.lose_the_rest(Kind::Answer);
            phases.push(tally.report(name, config.threads));
        }
    }
    Ok(Outcome {
        protocol: if config.tls.enable { "wss" } else { "ws" },
        server_address: config.server_address.to_string(),
        torrents: config.population.torrents,
        peers: config.shape().peers,
        phases,
    })
}

fn steps(config: &Config) -> Vec<(&'static str, Traffic, Extent)> {
    let connections = Extent::Steps(config.connections.count.into());
    if config.churn.connections > 0 {
        return vec![("churn", Traffic::Churn, Extent::Steps(config.churn.connections))];
    }
    if config.idle.enable {
        return vec![("idle", Traffic::Idle, connections)];
    }
    let time = u64::from(config.warm_up) + u64::from(config.duration);
    vec![("connecting", Traffic::Connect, connections), ("load", Traffic::Mix, Extent::Seconds(time))]
}

fn phase(config: &Config, traffic: Traffic, now: Nanos, thread: u32) -> Phase {
    let (arrivals, share) = (config.open.arrivals, (thread, config.threads));
    let schedule = |rate| arrivals.schedule(rate, share, config.population.seed, now);
    match traffic {
        Traffic::Connect | Traffic::Idle => Phase::until_done(traffic, Pace::Closed, now),
        Traffic::Churn => {
            let rate = config.churn.rate;
            let pace = if rate == 0 { Pace::Closed } else { Pace::Open(schedule(rate)) };
            Phase::until_done(traffic, pace, now)
        }
        Traffic::Mix => {
            let pace = Pace::new(config.mode, || schedule(config.open.rate));
            Phase::timed(traffic, pace, now, (config.warm_up, config.duration))
        }
    }
}
