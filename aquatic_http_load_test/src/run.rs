//! Phases of the test.

use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use aquatic_common::InfoHash;
use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::command::allow_connections;
use aquatic_load_engine::interrupt::Interrupt;
use aquatic_load_engine::phase::LoadModel;
use aquatic_load_engine::report::{Outcome, Report};
use aquatic_load_engine::rng::Rng;
use aquatic_load_engine::run_phase::{LiveCounters, PhaseLength, run_phase};
use aquatic_load_engine::settings::OpenConfig;

use crate::config::Config;
use crate::counters::{Note, Tally};
use crate::plan::Plan;
use crate::traffic::{self, Source, Traffic};
use crate::worker::{Phase, Worker};

/// Runs all phases of the test, unless it is interrupted.
///
/// # Errors
/// When the test cannot be set up. Misbehaviour of the tracker is reported by [`Outcome::verdict`].
pub fn run(config: Config, interrupt: &Interrupt) -> anyhow::Result<Outcome> {
    let plan = Arc::new(Plan::new(config)?);
    plan.topology.check_sources()?;
    let config = &plan.config;
    allow_connections(config.connection_count())?;
    let live = Arc::new(LiveCounters::new(interrupt));
    let mut workers = (0..config.threads)
        .map(|thread| Worker::new(Arc::clone(&plan), Arc::clone(&live), thread))
        .collect::<std::io::Result<Vec<_>>>()
        .context("cannot create an epoll instance")?;
    let mut phases = Vec::new();
    for (name, traffic, extent) in steps(config) {
        let now = plan.topology.now();
        let act = |worker: &mut Worker| worker.run(phase(config, traffic, now, worker.thread()));
        let tally: Option<Tally> =
            run_phase(&mut workers, (name, extent), (&plan.topology.clock, &live), act)?;
        phases.extend(tally.map(|tally| report(&tally, (traffic, name), config.threads)));
    }
    let population = &config.population;
    Ok(Outcome {
        protocol: if config.tls.enable { "https" } else { "http" },
        server_address: config.server_address.to_string(),
        torrents: population.torrents,
        peers: population.peers,
        phases,
        interrupted: interrupt.is_set(),
        limits: config.verdict.limits(),
    })
}

/// Returns the report of a phase.
fn report(tally: &Tally, (traffic, name): (Traffic, &'static str), threads: u32) -> Report {
    Report {
        replies_checked: tally.noted(Note::RepliesChecked),
        overdue: tally.noted(Note::NotDue),
        peers_not_announced: tally.noted(Note::PeersLost),
        is_constant: traffic == Traffic::Mix,
        ..tally.report(name, threads)
    }
}

fn steps(config: &Config) -> Vec<(&'static str, Traffic, PhaseLength)> {
    let mut steps = Vec::new();
    if config.prefill.enable {
        steps.push(("prefill", Traffic::Prefill, PhaseLength::Steps(config.population.peers)));
    }
    if config.idle.connections > 0 {
        steps.push(("idle", Traffic::Idle, PhaseLength::Steps(config.idle.connections.into())));
    } else if config.duration > 0 {
        let time = u64::from(config.warm_up) + u64::from(config.duration);
        steps.push(("load", Traffic::Mix, PhaseLength::Seconds(time)));
    }
    steps
}

fn phase(config: &Config, traffic: Traffic, now: Nanos, thread: u32) -> Phase {
    if traffic != Traffic::Mix {
        return Phase::until_done(traffic, LoadModel::Closed, now);
    }
    let OpenConfig { rate, arrivals } = config.open;
    let share = (thread, config.threads);
    let model = LoadModel::new(config.mode, || arrivals.schedule(rate, share, config.population.seed, now));
    Phase::timed(traffic, model, now, (config.warm_up, config.duration))
}

/// Writes the request targets (path and query) of announces, one per line.
///
/// # Errors
/// When writing fails.
pub fn print_targets(config: Config, count: u64, out: &mut impl Write) -> anyhow::Result<()> {
    let plan = Plan::new(config)?;
    let mut sources = Source::of_thread(&plan, 0);
    let mut rng = Rng::new(plan.config.population.seed, 0);
    let mut torrents: Vec<InfoHash> = Vec::new();
    let mut buffer = vec![0; traffic::MAX_BATCH];
    let number = u64::try_from(sources.len())?;
    for _ in 0..count {
        let source = usize::try_from(rng.below(number))?;
        let Some(planned) =
            sources.get_mut(source).and_then(|source| source.next(Traffic::Idle, &plan, &mut rng))
        else {
            continue;
        };
        let length = traffic::write(&plan, Traffic::Mix, planned, true, &mut torrents, &mut buffer)?;
        let line = buffer[..length].split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        out.write_all(line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
