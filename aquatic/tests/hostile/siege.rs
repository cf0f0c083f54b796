//! One attack, and what a healthy client notices of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::lines::Tally;
use super::target::{Figures, Target, now, pause};

/// Between two requests of the healthy client.
const PACE: Duration = Duration::from_millis(2);

/// How long the healthy client is watched without an attack.
const CALM: Duration = Duration::from_millis(500);

/// What the tracker may still be at when the attackers have gone: lingering ends.
const AFTERMATH: Duration = Duration::from_secs(60);

/// A client that asks again and again on the same connections.
pub(crate) trait Healthy: Send + 'static {
    /// How many connections it has.
    const CONNECTIONS: u64;

    /// Sends a request and waits for the whole of its answer, which is checked. Tells whether the client was
    /// served, or asked to come back later.
    fn ask(&mut self) -> bool;
}

/// Times from request to answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency {
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
    pub(crate) worst: Duration,
    /// Requests that were not served.
    pub(crate) put_off: usize,
}

impl Latency {
    fn of(mut times: Vec<Duration>, put_off: usize) -> Self {
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        Self { median: at(0.5), p99: at(0.99), worst: at(1.0), put_off }
    }
}

/// A thread in which the healthy client asks.
struct Asking<H> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(H, Vec<Duration>, usize)>,
}

impl<H: Healthy> Asking<H> {
    fn begin(mut client: H) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut times, mut put_off) = (Vec::new(), 0);
            while times.is_empty() || !stopped.load(Ordering::Relaxed) {
                let begin = now();
                put_off += usize::from(!client.ask());
                times.push(begin.elapsed());
                pause(PACE);
            }
            (client, times, put_off)
        });
        Self { stop, thread }
    }

    fn end(self, target: &Target) -> (H, Latency) {
        self.stop.store(true, Ordering::Relaxed);
        let Ok((client, times, put_off)) = self.thread.join() else {
            panic!("the healthy client was not served: {:#?}\n{}", target.counters(), target.log());
        };
        (client, Latency::of(times, put_off))
    }
}

/// What has come of an attack.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    pub(crate) time: Duration,
    pub(crate) calm: Latency,
    pub(crate) under_attack: Latency,
    pub(crate) before: Figures,
    pub(crate) after: Figures,
    /// By how much the tracker's counters have grown.
    pub(crate) counted: BTreeMap<String, u64>,
}

impl Report {
    /// Growth of all counters whose name and labels contain these texts.
    pub(crate) fn counted(&self, texts: &[&str]) -> u64 {
        let fits = |name: &str| texts.iter().all(|text| name.contains(text));
        self.counted.iter().filter(|(name, _)| fits(name)).map(|(_, growth)| growth).sum()
    }
}

/// Attacks the tracker while a healthy client is served, and waits until nothing is left of the attack.
pub(crate) fn besiege<H: Healthy>(
    target: &Target,
    client: impl FnOnce() -> H,
    attack: impl FnOnce(&Target) -> Tally,
) -> Report {
    let asking = Asking::begin(client());
    pause(CALM);
    let (client, calm) = asking.end(target);
    let (before, counters_before) = (target.figures(), target.counters());
    let asking = Asking::begin(client);
    let begin = now();
    let tally = attack(target);
    let time = begin.elapsed();
    let (client, under_attack) = asking.end(target);
    // The healthy client is the only one that is left.
    target.until_connections(H::CONNECTIONS, AFTERMATH);
    let after = settled(target, before.descriptors);
    drop(client);
    target.until_connections(0, AFTERMATH);
    let counted = target.counters().into_iter();
    let counted = counted.map(|(name, value)| {
        let before = counters_before.get(&name).copied().unwrap_or(0);
        (name, value.saturating_sub(before))
    });
    Report { tally, time, calm, under_attack, before, after, counted: counted.collect() }
}

/// Figures once the tracker has no more descriptors than before, or has had the time to close them.
fn settled(target: &Target, descriptors: usize) -> Figures {
    let begin = now();
    loop {
        let figures = target.figures();
        if figures.descriptors <= descriptors || begin.elapsed() > Duration::from_secs(10) {
            return figures;
        }
        pause(Duration::from_millis(20));
    }
}
