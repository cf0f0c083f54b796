//! The phases of a test, from sockets to reports.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use aquatic_load_engine::clock::{Nanos, SECOND, seconds};
use aquatic_load_engine::draw::Draw;
use aquatic_load_engine::pacing::{Arrivals, Schedule, Window};
use aquatic_load_engine::progress::Progress;
use aquatic_load_engine::report::{Failure, Report};
use serde::Serialize;

use crate::config::{ArrivalsConfig, Config, Mode};
use crate::plan::Plan;
use crate::source;
use crate::tally::Tally;
use crate::traffic::Traffic;
use crate::worker::{Live, Pace, Phase, Worker};

/// How often a socket asks for its first connection id before the test goes on without it.
const CONNECT_ATTEMPTS: Nanos = 5;
/// Time between two updates of the progress line.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What the test found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The tracker.
    pub server_address: String,
    /// Torrents of the population.
    pub torrents: u64,
    /// Peers of the population.
    pub peers: u64,
    /// The phases that took place, in order.
    pub phases: Vec<Report>,
}

impl Outcome {
    /// Whether the tracker passed in all phases.
    ///
    /// # Errors
    /// When it did not answer, or answered wrongly.
    pub fn verdict(&self) -> Result<(), Failure> {
        if self.phases.is_empty() {
            return Err(Failure::NothingAnswered);
        }
        self.phases.iter().try_for_each(Report::verdict)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server_address, torrents, peers, .. } = self;
        writeln!(f, "udp tracker at {server_address}; {torrents} torrents, {peers} peers")?;
        self.phases.iter().try_for_each(|phase| write!(f, "\n{phase}"))
    }
}

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
    let chosen = source::system_choice(config.server_address)?;
    let plan = Arc::new(Plan::new(config, chosen)?);
    let threads = plan.config.threads;
    let live = Arc::new(Live::default());
    let barrier = Arc::new(Barrier::new(usize::try_from(threads)?));
    let (sender, receiver) = channel();
    let mut handles = Vec::new();
    // All sockets are open before any thread starts: a thread that failed alone would leave the others waiting.
    let sources = (0..threads)
        .map(|thread| source::open(&plan, u64::from(thread)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for (thread, sources) in (0..u64::from(threads)).zip(sources) {
        let (plan, live) = (Arc::clone(&plan), Arc::clone(&live));
        let (barrier, sender) = (Arc::clone(&barrier), sender.clone());
        let body = move || work(plan, live, sources, thread, &barrier, &sender);
        let handle = thread::Builder::new().name(format!("load-{thread}")).spawn(body);
        handles.push(handle.context("cannot start a thread")?);
    }
    drop(sender);
    let phases = follow(&plan, &live, &receiver);
    for handle in handles {
        if let Err(panic) = handle.join() {
            std::panic::resume_unwind(panic);
        }
    }
    let Config { server_address, population, .. } = &plan.config;
    Ok(Outcome {
        server_address: server_address.to_string(),
        torrents: population.torrents,
        peers: population.peers,
        phases,
    })
}

/// A thread's way through the steps.
fn work(
    plan: Arc<Plan>,
    live: Arc<Live>,
    sources: Vec<source::Source>,
    thread: u64,
    barrier: &Barrier,
    results: &Sender<(Step, Tally)>,
) {
    let mut worker = Worker::new(Arc::clone(&plan), live, sources, thread);
    for step in steps(&plan.config) {
        barrier.wait();
        let tally = worker.run(phase(&plan, step, thread));
        // The receiver outlives the threads, unless the main thread panicked; then nobody wants the result.
        let _ = results.send((step, tally));
    }
}

fn steps(config: &Config) -> Vec<Step> {
    let mut steps = vec![Step::Connect];
    if config.prefill.enable {
        steps.push(Step::Prefill);
    }
    if config.duration > 0 {
        steps.push(Step::Load);
    }
    steps
}

fn phase(plan: &Plan, step: Step, thread: u64) -> Phase {
    let config = &plan.config;
    let now = plan.clock.now();
    match step {
        Step::Connect => Phase {
            traffic: Traffic::Connects,
            pace: Pace::Closed(Window::new(config.closed.window, 1.0)),
            from: now,
            until: now + CONNECT_ATTEMPTS * plan.timeout(),
        },
        Step::Prefill => Phase {
            traffic: Traffic::Prefill,
            pace: Pace::Closed(Window::new(config.prefill.window, 1.0)),
            from: now,
            until: Nanos::MAX,
        },
        Step::Load => {
            let from = now + seconds(config.warm_up);
            Phase {
                traffic: Traffic::Mix,
                pace: pace(config, now, thread),
                from,
                until: from + seconds(config.duration),
            }
        }
    }
}

fn pace(config: &Config, now: Nanos, thread: u64) -> Pace {
    match config.mode {
        Mode::Closed => {
            let closed = &config.closed;
            Pace::Closed(Window::new(closed.window, closed.further_request_probability))
        }
        Mode::Open => {
            let arrivals = match config.open.arrivals {
                ArrivalsConfig::Even => Arrivals::Even,
                ArrivalsConfig::Random => Arrivals::Random,
            };
            let rate = f64::from(config.open.rate) / f64::from(config.threads);
            let draw = Draw::new(config.population.seed, !thread);
            Pace::Open {
                schedule: Schedule::new(rate, arrivals, now, draw),
                further_probability: config.open.further_request_probability,
                further: std::collections::VecDeque::new(),
            }
        }
    }
}

/// Collects the results of the threads step by step, showing progress in between.
fn follow(plan: &Plan, live: &Live, results: &std::sync::mpsc::Receiver<(Step, Tally)>) -> Vec<Report> {
    let threads = plan.config.threads;
    let mut phases = Vec::new();
    for step in steps(&plan.config) {
        let start = plan.clock.now();
        let (name, total) = match step {
            Step::Connect => ("connecting", 1),
            Step::Prefill => ("prefill", plan.config.population.peers),
            Step::Load => ("load", u64::from(plan.config.warm_up + plan.config.duration)),
        };
        log::info!("{name}");
        let progress = Progress::new(name, total);
        let mut whole: Option<Tally> = None;
        let (mut finished, mut before, mut then) = (0, live.responses.load(Ordering::Relaxed), start);
        while finished < threads {
            match results.recv_timeout(PROGRESS_INTERVAL) {
                Ok((_, tally)) => {
                    finished += 1;
                    match &mut whole {
                        Some(whole) => whole.merge(&tally),
                        None => whole = Some(tally),
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // A thread has panicked; joining it says so.
                Err(RecvTimeoutError::Disconnected) => return phases,
            }
            let (now, responses) = (plan.clock.now(), live.responses.load(Ordering::Relaxed));
            let rate = (responses - before) as f64 / ((now - then).max(1) as f64 / SECOND as f64);
            (before, then) = (responses, now);
            let position = match step {
                Step::Connect => 0,
                Step::Prefill => live.announced.load(Ordering::Relaxed) + live.lost.load(Ordering::Relaxed),
                Step::Load => (now - start) / SECOND,
            };
            progress.update(position, format!("{rate:.0} responses/s"));
        }
        progress.finish();
        match whole {
            // Connecting is a means; only its failure is worth a report.
            Some(tally) if step != Step::Connect => phases.push(tally.report(name, threads)),
            Some(_) | None => {}
        }
    }
    phases
}
