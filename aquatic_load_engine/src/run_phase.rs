//! Running a phase: one thread per worker, a progress bar, and the sum of the counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::Context;

use crate::clock::{Clock, Nanos, SECOND};
use crate::event_loop::precise_timers;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::tally::{Counted, Tally};

/// Time between two updates of the progress bar.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What all threads share: counters for the progress bar, and whether the test is to end early.
#[derive(Debug, Default)]
pub struct LiveCounters {
    /// Responses so far, in all phases.
    responses: AtomicU64,
    /// Completed steps of a phase whose length is given in steps.
    done: AtomicU64,
    interrupt: Interrupt,
}

impl LiveCounters {
    /// Creates counters of a test that can be interrupted.
    #[must_use]
    pub fn new(interrupt: &Interrupt) -> Self {
        Self { interrupt: interrupt.clone(), ..Self::default() }
    }

    /// Whether the test is to end early.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.is_set()
    }

    /// Adds the responses that a thread has counted since the last call.
    pub fn add_responses<K: Counted, V: Counted, N: Counted>(&self, tally: &mut Tally<K, V, N>) {
        self.responses.fetch_add(tally.take_new_responses(), Ordering::Relaxed);
    }

    /// Counts a completed step of the phase.
    pub fn step_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Length of a phase, for the progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseLength {
    /// Duration in seconds.
    Seconds(u64),
    /// Number of steps, see [`LiveCounters::step_done`].
    Steps(u64),
}

/// Runs a phase and returns the summed counters of all threads, or `None` if there are no workers or the test
/// has been interrupted.
///
/// # Errors
/// When a thread cannot be started.
pub fn run_phase<W: Send, K: Counted + Send, V: Counted + Send, N: Counted + Send>(
    workers: &mut [W],
    (name, extent): (&'static str, PhaseLength),
    (clock, live): (&Clock, &LiveCounters),
    act: impl Fn(&mut W) -> Tally<K, V, N> + Sync,
) -> anyhow::Result<Option<Tally<K, V, N>>> {
    if live.is_interrupted() {
        return Ok(None);
    }
    live.done.store(0, Ordering::Relaxed);
    log::info!("{name}");
    thread::scope(|scope| {
        let (sender, finished) = channel();
        let mut handles = Vec::new();
        for (number, worker) in workers.iter_mut().enumerate() {
            let (sender, act): (Sender<()>, _) = (sender.clone(), &act);
            let body = move || {
                precise_timers();
                let tally = act(worker);
                // Fails only if the receiver has stopped waiting.
                let _ = sender.send(());
                tally
            };
            let thread = thread::Builder::new().name(format!("load-{number}")).spawn_scoped(scope, body);
            handles.push(thread.context("cannot start a thread")?);
        }
        drop(sender);
        show(name, extent, (clock, live), &finished, handles.len());
        let mut sum: Option<Tally<K, V, N>> = None;
        for tally in handles.into_iter().map(joined) {
            match &mut sum {
                Some(sum) => sum.merge(&tally),
                None => sum = Some(tally),
            }
        }
        Ok(sum)
    })
}

fn joined<T>(handle: ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Shows progress until all threads have finished or panicked.
fn show(
    name: &'static str,
    extent: PhaseLength,
    (clock, live): (&Clock, &LiveCounters),
    finished: &std::sync::mpsc::Receiver<()>,
    threads: usize,
) {
    let start = clock.now();
    let total = match extent {
        PhaseLength::Seconds(total) | PhaseLength::Steps(total) => total,
    };
    let progress = Progress::new(name, total);
    let mut is_told = false;
    let (mut left, mut before, mut then) = (threads, live.responses.load(Ordering::Relaxed), start);
    while left > 0 {
        match finished.recv_timeout(PROGRESS_INTERVAL) {
            Ok(()) => left -= 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if live.is_interrupted() && !is_told {
            log::info!("interrupted: waiting for the last replies; interrupt again to end without a report");
            is_told = true;
        }
        let (now, responses) = (clock.now(), live.responses.load(Ordering::Relaxed));
        let position = match extent {
            PhaseLength::Seconds(_) => (now - start) / SECOND,
            PhaseLength::Steps(_) => live.done.load(Ordering::Relaxed),
        };
        progress.update(position, format!("{:.0} responses/s", rate(responses - before, now - then)));
        (before, then) = (responses, now);
    }
    progress.finish();
}

fn rate(count: u64, time: Nanos) -> f64 {
    count as f64 / (time.max(1) as f64 / SECOND as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::counted! {
        enum Thing {
            It = "it",
        }
    }

    fn tally(worker: &mut u64) -> Tally<Thing, Thing, Thing> {
        let mut tally = Tally::new(0, SECOND);
        tally.add(Thing::It, *worker);
        *worker += 1;
        tally
    }

    #[test]
    fn workers_keep_their_state_and_counts_add_up() {
        let (clock, live, mut workers) = (Clock::start(), LiveCounters::default(), [1, 2, 3]);
        for sum in [6, 9] {
            let phase = ("test", PhaseLength::Steps(3));
            let tally = run_phase(&mut workers, phase, (&clock, &live), tally).unwrap().unwrap();
            assert_eq!(tally.report("test", 3).notes[0].count, sum);
        }
        assert!(
            run_phase(&mut [0; 0], ("test", PhaseLength::Seconds(1)), (&clock, &live), tally)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn an_interrupted_test_has_no_further_phases() {
        let interrupt = Interrupt::default();
        let (clock, live) = (Clock::start(), LiveCounters::new(&interrupt));
        let phase = ("test", PhaseLength::Steps(1));
        assert!(run_phase(&mut [1], phase, (&clock, &live), tally).unwrap().is_some());
        interrupt.set();
        assert!(run_phase(&mut [1], phase, (&clock, &live), tally).unwrap().is_none());
    }

    #[test]
    #[should_panic(expected = "one of three")]
    fn a_panic_of_one_worker_ends_the_phase() {
        let (clock, live) = (Clock::start(), LiveCounters::default());
        let act = |worker: &mut u64| {
            assert!(*worker != 2, "one of three");
            tally(worker)
        };
        let _ = run_phase(&mut [1, 2, 3], ("test", PhaseLength::Steps(3)), (&clock, &live), act);
    }
}
