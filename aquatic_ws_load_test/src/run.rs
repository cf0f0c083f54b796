//! The phases of a test, from connections to reports.

use std::sync::Arc;

use anyhow::Context;
use aquatic_load_engine::clock::{Nanos, seconds};
use aquatic_load_engine::command::allow_connections;
use aquatic_load_engine::conduct::{Extent, Live, conduct};
use aquatic_load_engine::draw::Draw;
use aquatic_load_engine::report::Outcome;
use aquatic_load_engine::settings::Mode;

use crate::config::Config;
use crate::counted::{Kind, Tally};
use crate::plan::Plan;
use crate::worker::{Pace, Phase, Traffic, Worker};

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
        let count = plan.share(config.connections.count, thread);
        let worker = Worker::new(Arc::clone(&plan), Arc::clone(&live), thread, first..first + count);
        workers.push(worker.context("cannot watch connections")?);
        first += count;
    }
    let mut phases = Vec::new();
    for (name, traffic, extent) in steps(config) {
        let now = plan.now();
        let act = |worker: &mut Worker| worker.run(phase(&plan, traffic, now, worker.thread()));
        let tally: Option<Tally> = conduct(&mut workers, (name, extent), (&plan.stage.clock, &live), act)
            .context("cannot start a thread")?;
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

fn phase(plan: &Plan, traffic: Traffic, now: Nanos, thread: u32) -> Phase {
    let config = &plan.config;
    let open = |rate| {
        let draw = Draw::new(plan.seed(), !u64::from(thread));
        Pace::Open(config.open.arrivals.schedule(rate, config.threads, now, draw))
    };
    match traffic {
        Traffic::Connect | Traffic::Idle => {
            Phase { traffic, pace: Pace::Closed, from: now, until: Nanos::MAX }
        }
        Traffic::Churn => {
            let pace = if config.churn.rate == 0 { Pace::Closed } else { open(config.churn.rate) };
            Phase { traffic, pace, from: now, until: Nanos::MAX }
        }
        Traffic::Mix => {
            let pace = match config.mode {
                Mode::Closed => Pace::Closed,
                Mode::Open => open(config.open.rate),
            };
            let from = now + seconds(config.warm_up);
            Phase { traffic, pace, from, until: from + seconds(config.duration) }
        }
    }
}
