//! Figures about the process as a whole.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::names::{self, Metric};
use crate::registry::Sample;

/// Reads figures of the process. Made before privileges are dropped: afterwards `/proc` may be out of reach.
#[derive(Debug)]
pub struct ProcessFigures {
    cores: usize,
    memory: Option<File>,
}

impl ProcessFigures {
    /// A reader for a process with this many cores.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self { cores, memory: File::open("/proc/self/statm").ok() }
    }

    /// A second reader. If the file cannot be opened twice it goes without memory.
    #[must_use]
    pub fn try_clone(&self) -> Self {
        let memory = self.memory.as_ref().and_then(|file| file.try_clone().ok());
        Self { cores: self.cores, memory }
    }

    /// The figures as they are now, `uptime` after the start. What the system does not tell is left out.
    #[must_use]
    pub fn samples(&self, uptime: Duration) -> Vec<Sample> {
        let sample =
            |metric: &'static Metric, value| Sample { metric, labels: Vec::new(), core: None, value };
        let mut samples =
            vec![sample(&names::UPTIME, uptime.as_secs()), sample(&names::CORES, self.cores as u64)];
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
        let figures = ProcessFigures::new(3);
        let samples = figures.samples(Duration::ZERO);
        let memory = samples.iter().find(|sample| *sample.metric == names::MEMORY).unwrap();
        assert!(memory.value > 100_000, "{} bytes", memory.value);
    }
}
