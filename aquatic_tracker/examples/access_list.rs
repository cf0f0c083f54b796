//! Measures access lists: time and memory to load and to reload one, time per lookup, and pauses of a reader
//! during reloads, and in as much time without any.
//!
//! Run with `cargo run --release -p aquatic_tracker --example access_list -- 5000000 3`; the numbers are
//! those of the info hashes, 5 million by default, and of the reloads. Figures are worth more on a machine
//! that does nothing else.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::fmt;
use std::fs;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aquatic_common::config::AccessListConfig;
use aquatic_common::{AccessListMode, InfoHash};
use aquatic_tracker::SharedAccessList;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Lookups whose time is taken.
const LOOKUPS: usize = 2_000_000;

/// Reloads during which pauses of the reader are looked for, by default.
const RELOADS: u32 = 3;

fn main() {
    let count = std::env::args().nth(1).map_or(5_000_000, |count| count.parse().unwrap());
    let reloads = std::env::args().nth(2).map_or(RELOADS, |count| count.parse().unwrap());
    let directory = std::env::temp_dir().join(format!("aquatic-access-list-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let path = directory.join("list.txt");
    write_list(&path, count, 1);
    let config = AccessListConfig { mode: AccessListMode::Deny, path: path.clone(), allow_empty: false };

    let before = memory("VmRSS");
    let begin = processor_time();
    let list = SharedAccessList::load(&config).unwrap();
    let elapsed = processor_time() - begin;
    let one = memory("VmRSS") - before;
    let bytes = one / count as f64;
    println!("load: {:.2} s of processor time, {bytes:.1} bytes per info hash", elapsed.as_secs_f64());

    let mut rng = SmallRng::seed_from_u64(1);
    let all: Vec<InfoHash> = (0..count).map(|_| InfoHash(rng.random())).collect();
    let hits: Vec<InfoHash> = (0..LOOKUPS).map(|_| all[rng.random_range(0..count)]).collect();
    drop(all);
    let misses: Vec<InfoHash> = (0..LOOKUPS).map(|_| InfoHash(rng.random())).collect();
    for (name, info_hashes) in [("hit", &hits), ("miss", &misses)] {
        let begin = processor_time();
        let denied = info_hashes.iter().filter(|info_hash| !list.allows(info_hash)).count();
        let elapsed = (processor_time() - begin).as_nanos() as f64 / LOOKUPS as f64;
        println!("{name}: {elapsed:.0} ns of processor time, {denied} of {LOOKUPS} denied");
    }

    write_list(&path, count, 2);
    // Resets the peak.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS") - one;
    let mut elapsed = Duration::ZERO;
    let (mut meanwhile, mut otherwise) = (Pauses::default(), Pauses::default());
    for _ in 0..reloads {
        let begin = Instant::now();
        let reload = || {
            list.reload().unwrap();
        };
        meanwhile.add(&pauses_during(&list, &hits, reload));
        let took = begin.elapsed();
        elapsed += took;
        otherwise.add(&pauses_during(&list, &hits, || thread::sleep(took)));
    }
    let peak = (memory("VmHWM") - before) / one;
    let seconds = elapsed.as_secs_f64() / f64::from(reloads);
    println!("reload: {seconds:.2} s, peak {peak:.2} times the memory of one list");
    println!("pauses of a reader during {reloads} reloads: {meanwhile}");
    println!("pauses of a reader in as much time without: {otherwise}");
    fs::remove_dir_all(&directory).unwrap();
}

fn write_list(path: &Path, count: usize, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut file = BufWriter::new(fs::File::create(path).unwrap());
    (0..count).for_each(|_| writeln!(file, "{}", InfoHash(rng.random())).unwrap());
    file.flush().unwrap();
}

/// A figure about memory from /proc/self/status, in bytes.
fn memory(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() * 1024.0
}

/// Time this thread has run, and time it has waited for a processor.
fn schedstat() -> [Duration; 2] {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().unwrap());
    [(); 2].map(|()| Duration::from_nanos(numbers.next().unwrap()))
}

fn processor_time() -> Duration {
    schedstat()[0]
}

/// Times between two lookups of more than 1 ms, without the time in which the thread waited for a processor.
#[derive(Default)]
struct Pauses {
    count: u64,
    longest: Duration,
}

impl Pauses {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }
}

impl fmt::Display for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} above 1 ms, longest {:?}", self.count, self.longest)
    }
}

/// Has a thread look up info hashes while something is done.
fn pauses_during(list: &SharedAccessList, info_hashes: &[InfoHash], act: impl FnOnce()) -> Pauses {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| pauses_until(&stop, list, info_hashes));
        act();
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    })
}

fn pauses_until(stop: &AtomicBool, list: &SharedAccessList, info_hashes: &[InfoHash]) -> Pauses {
    let mut pauses = Pauses::default();
    let [_, mut waited] = schedstat();
    let mut last = Instant::now();
    for info_hash in info_hashes.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        black_box(list.allows(info_hash));
        let pause = last.elapsed();
        last += pause;
        if pause > Duration::from_micros(100) {
            let [_, now] = schedstat();
            let pause = pause.saturating_sub(now - waited);
            pauses.longest = pauses.longest.max(pause);
            pauses.count += u64::from(pause > Duration::from_millis(1));
            waited = now;
            last = Instant::now();
        }
    }
    pauses
}
