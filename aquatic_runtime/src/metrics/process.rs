//! Figures about the process as a whole.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::names::{self, Metric};
use super::registry::Sample;
use crate::clock::Epoch;

/// Reads figures of the process. Made before privileges are dropped: afterwards `/proc` may be out of reach.
#[derive(Debug)]
pub(crate) struct ProcessFigures {
    epoch: Epoch,
    cores: usize,
    memory: Option<File>,
}

impl ProcessFigures {
    pub(crate) fn new(epoch: Epoch, cores: usize) -> Self {
        Self { epoch, cores, memory: File::open("/proc/self/statm").ok() }
    }

    /// A second reader. If the file cannot be opened twice it goes without memory.
    pub(crate) fn try_clone(&self) -> Self {
        let memory = self.memory.as_ref().and_then(|file| file.try_clone().ok());
        Self { epoch: self.epoch, cores: self.cores, memory }
    }

    /// The figures as they are now. What the system does not tell is left out.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let sample =
            |metric: &'static Metric, value| Sample { metric, labels: Vec::new(), core: None, value };
        let mut samples = vec![
            sample(&names::UPTIME, self.epoch.elapsed().as_secs()),
            sample(&names::CORES, self.cores as u64),
        ];
        samples.extend(self.resident_memory().map(|bytes| sample(&names::MEMORY, bytes)));
        samples
    }

    fn resident_memory(&self) -> Option<u64> {
        let mut text = [0; 128];
        let len = self.memory.as_ref()?.read_at(&mut text, 0).ok()?;
        parse_statm(text.get(..len)?)?.checked_mul(rustix::param::page_size() as u64)
    }
}

/// The second field is the resident set in pages.
fn parse_statm(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        assert_eq!(parse_statm(b"5120 321 200 1 0 99 0\n"), Some(321));
        assert_eq!(parse_statm(b"5120"), None);
        let figures = ProcessFigures::new(Epoch::start(), 3);
        let samples = figures.samples();
        let memory = samples.iter().find(|sample| *sample.metric == names::MEMORY).unwrap();
        assert!(memory.value > 100_000, "{} bytes", memory.value);
    }
}
