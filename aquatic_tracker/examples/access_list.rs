//! Measures access lists: time and memory to load and to reload one, time per lookup, and pauses of a reader
//! during reloads.
//!
//! Run with `cargo run --release -p aquatic_tracker --example access_list -- 5000000`; the number is that of
//! the info hashes, 5 million by default. Figures are worth more on a machine that does nothing else.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

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

/// Reloads during which pauses of the reader are looked for.
const RELOADS: usize = 3;

fn main() {
    let count = std::env::args().nth(1).map_or(5_000_000, |count| count.parse().unwrap());
    let directory = std::env::temp_dir().join(format!("aquatic-access-list-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let path = directory.join("list.txt");
    write_list(&path, count, 1);
    let config = AccessListConfig { mode: AccessListMode::Deny, path: path.clone(), allow_empty: false };

    let before = memory("VmRSS");
    let begin = Instant::now();
    let list = SharedAccessList::load(&config).unwrap();
    let elapsed = begin.elapsed();
    let one = memory("VmRSS") - before;
    println!("load: {:.2} s, {:.1} bytes per info hash", elapsed.as_secs_f64(), one / count as f64);

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
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| longest_pause(&list, &hits, &stop));
        let begin = Instant::now();
        for _ in 0..RELOADS {
            list.reload().unwrap();
        }
        let elapsed = begin.elapsed() / u32::try_from(RELOADS).unwrap();
        stop.store(true, Ordering::Relaxed);
        let peak = (memory("VmHWM") - before) / one;
        println!("reload: {:.2} s, peak {peak:.2} times the memory of one list", elapsed.as_secs_f64());
        let (pause, waited) = reader.join().unwrap();
        println!(
            "longest pause of a reader meanwhile: {pause:?}; waiting for a processor included: {waited:?}"
        );
    });
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

/// Looks up info hashes one after the other. Returns the longest time between two lookups, without and with
/// the time in which the thread waited for a processor.
fn longest_pause(
    list: &SharedAccessList,
    info_hashes: &[InfoHash],
    stop: &AtomicBool,
) -> (Duration, Duration) {
    let mut longest = (Duration::ZERO, Duration::ZERO);
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
            longest.0 = longest.0.max(pause.saturating_sub(now - waited));
            longest.1 = longest.1.max(pause);
            waited = now;
            last = Instant::now();
        }
    }
    longest
}
