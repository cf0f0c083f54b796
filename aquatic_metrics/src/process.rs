//! Figures about the process as a whole, under the names that Prometheus clients have for them.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::names::{self, Metric};
use crate::registry::{Label, Sample};

/// All members of the workspace have one version.
const VERSION: Label = ("version", env!("CARGO_PKG_VERSION"));

/// Reads figures of the process. Made before privileges are dropped: afterwards `/proc` may be out of reach.
#[derive(Debug)]
pub struct ProcessFigures {
    cores: usize,
    started: u64,
    memory: Option<File>,
    descriptors: Option<File>,
}

impl ProcessFigures {
    /// A reader for a process with this many cores that was started at this time, in seconds since 1970.
    #[must_use]
    pub fn new(cores: usize, started: u64) -> Self {
        let open = |path| File::open(path).ok();
        Self { cores, started, memory: open("/proc/self/statm"), descriptors: open("/proc/self/fd") }
    }

    /// A second reader. Figures whose files cannot be opened twice are missing from it.
    #[must_use]
    pub fn try_clone(&self) -> Self {
        let clone = |file: &Option<File>| file.as_ref().and_then(|file| file.try_clone().ok());
        Self { memory: clone(&self.memory), descriptors: clone(&self.descriptors), ..*self }
    }

    /// The figures as they are now. Those that the system does not provide are missing.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let sample = |metric: &'static Metric, value| Sample { metric, labels: [].into(), core: None, value };
        let build = Sample { labels: [VERSION].into(), ..sample(&names::BUILD_INFO, 1) };
        let figures = [
            (&names::CORES, Some(self.cores as u64)),
            (&names::PROCESS_START, Some(self.started)),
            (&names::PROCESS_CPU, cpu_microseconds()),
            (&names::PROCESS_MEMORY, self.memory(Statm::Resident)),
            (&names::PROCESS_VIRTUAL_MEMORY, self.memory(Statm::Virtual)),
            (&names::PROCESS_OPEN_FDS, self.open_descriptors()),
            (&names::PROCESS_MAX_FDS, getrlimit(Resource::Nofile).current),
        ]
        .into_iter()
        .filter_map(|(metric, value)| Some(sample(metric, value?)));
        figures.chain([build]).collect()
    }

    fn memory(&self, field: Statm) -> Option<u64> {
        let mut text = [0; 128];
        let len = self.memory.as_ref()?.read_at(&mut text, 0).ok()?;
        parse_statm(text.get(..len)?, field)?.checked_mul(rustix::param::page_size() as u64)
    }

    /// Linux 6.2 and later show the number of descriptors as the size of their directory, others show 0.
    /// Listing the directory would take too long with a hundred thousand connections.
    fn open_descriptors(&self) -> Option<u64> {
        let count = self.descriptors.as_ref()?.metadata().ok()?.size();
        (count > 0).then_some(count)
    }
}

/// Processor time of all threads, in user and kernel mode.
fn cpu_microseconds() -> Option<u64> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let microseconds = time.tv_sec.checked_mul(1_000_000)?.checked_add(time.tv_nsec / 1000)?;
    u64::try_from(microseconds).ok()
}

/// Fields of `/proc/self/statm`, in pages.
#[derive(Clone, Copy, Debug)]
enum Statm {
    Virtual,
    Resident,
}

fn parse_statm(text: &[u8], field: Statm) -> Option<u64> {
    str::from_utf8(text).ok()?.split_ascii_whitespace().nth(field as usize)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_this_process_are_read() {
        assert_eq!(parse_statm(b"5120 321 200 1 0 99 0\n", Statm::Resident), Some(321));
        assert_eq!(parse_statm(b"5120 321 200 1 0 99 0\n", Statm::Virtual), Some(5120));
        assert_eq!(parse_statm(b"5120", Statm::Resident), None);
        let samples = ProcessFigures::new(3, 1_700_000_000).try_clone().samples();
        let value = |metric: &Metric| {
            samples.iter().find(|sample| sample.metric == metric).map(|sample| sample.value)
        };
        assert_eq!(value(&names::CORES), Some(3));
        assert_eq!(value(&names::PROCESS_START), Some(1_700_000_000));
        assert!(value(&names::PROCESS_MEMORY).unwrap() > 100_000);
        assert!(value(&names::PROCESS_CPU).unwrap() > 0);
        assert!(value(&names::PROCESS_MAX_FDS).unwrap() > 10);
        assert!(value(&names::PROCESS_OPEN_FDS).is_none_or(|count| count >= 5));
    }
}
