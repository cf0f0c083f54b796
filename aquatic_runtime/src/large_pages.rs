//! Large pages for what the cores remember. Looking up a torrent among millions goes to memory that nothing
//! has been near for a while; with pages of 4 KiB the processor then often has to look up the page first. So
//! once a second the main thread has the kernel turn stretches of memory that are in use as a whole into
//! pages of 2 MiB.
//!
//! Why not ask for large pages where memory is allocated: the kernel would then clear 2 MiB, and perhaps move
//! other memory out of the way, while a core waits for its first byte. Here the work is the main thread's; a
//! core waits only if it touches the very stretch that is being copied. Memory use does not grow, since
//! stretches with holes are left alone. Where the kernel cannot do it (before 6.1), or the operator has
//! switched large pages off, nothing happens.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::ops::Bound;
use std::time::Duration;

use crate::housekeeping::Periodic;
use crate::sys;

/// The setting of the whole machine: "always madvise [never]" means off.
const MACHINE_SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

const BLOCK: usize = 2 << 20;
const PAGES_PER_BLOCK: usize = 512;

/// Resident pages that make a block worth it: a few holes only.
const ENOUGH_PAGES: usize = PAGES_PER_BLOCK * 31 / 32;

const INTERVAL: Duration = Duration::from_secs(1);

/// Blocks looked at, and blocks changed, at most, per interval. Changing one takes some 0.2 ms.
const LOOKS: usize = 128;
const CHANGES: usize = 16;

/// Turns memory of this process into large pages, little by little. Each call of [`tick`](Periodic::tick)
/// turns 16 blocks of 2 MiB at most. The engine does it for trackers; benchmarks of what they hold do it
/// themselves.
#[derive(Debug)]
pub struct LargePages {
    /// Opened before privileges are dropped and the root directory changes; `None` if there is nothing to do.
    maps: Option<File>,
    done: BTreeSet<usize>,
    /// Where the last look ended.
    cursor: usize,
    next: Duration,
}

impl LargePages {
    /// Looks at the setting of the machine, `/sys/kernel/mm/transparent_hugepage/enabled`: with "never",
    /// ticks do nothing.
    #[must_use]
    pub fn of_this_process() -> Self {
        let allowed = fs::read_to_string(MACHINE_SETTING).is_ok_and(|setting| !setting.contains("[never]"));
        let maps = allowed.then(|| File::open("/proc/self/maps").ok()).flatten();
        Self { maps, done: BTreeSet::new(), cursor: 0, next: Duration::ZERO }
    }

    fn change(&mut self, blocks: &BTreeSet<usize>) {
        let rest = (Bound::Excluded(self.cursor), Bound::Unbounded);
        let open: Vec<usize> =
            blocks.range(rest).filter(|block| !self.done.contains(block)).take(LOOKS).copied().collect();
        let mut changes = 0;
        // Behind the last block, the next look begins at the first.
        self.cursor = 0;
        for block in open {
            self.cursor = block;
            let resident = sys::resident_pages::<PAGES_PER_BLOCK>(block, BLOCK);
            if resident.is_ok_and(|pages| pages >= ENOUGH_PAGES) {
                self.done.insert(block);
                if let Err(error) = sys::collapse(block, BLOCK)
                    && error.raw_os_error() == Some(libc::EINVAL)
                {
                    log::debug!("this kernel makes no large pages of memory in use ({error})");
                    self.maps = None;
                    return;
                }
                changes += 1;
                if changes == CHANGES {
                    return;
                }
            }
        }
    }
}

impl Periodic for LargePages {
    /// Does a small part of the work, at most once per interval.
    fn tick(&mut self, now: Duration) {
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        let Some(maps) = &mut self.maps else { return };
        let mut text = String::new();
        if let Err(error) = maps.rewind().and_then(|()| maps.read_to_string(&mut text)) {
            log::debug!("no large pages: /proc/self/maps cannot be read ({error})");
            self.maps = None;
            return;
        }
        let blocks: BTreeSet<usize> = blocks(&text).collect();
        self.done.retain(|block| blocks.contains(block));
        self.change(&blocks);
    }
}

/// The aligned blocks that lie as a whole in private, writable memory without a file.
fn blocks(maps: &str) -> impl Iterator<Item = usize> {
    maps.lines().filter_map(anonymous).flat_map(|(start, end)| {
        let first = start.next_multiple_of(BLOCK);
        (first..end).step_by(BLOCK).filter(move |block| block + BLOCK <= end)
    })
}

/// The range of a line of `/proc/self/maps`, if it is what the allocator uses.
fn anonymous(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, rights, inode) = (fields.next()?, fields.next()?, fields.nth(2)?);
    let named = fields.next().is_some_and(|name| name != "[heap]");
    if rights != "rw-p" || inode != "0" || named {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_of_anonymous_memory_count() {
        let maps = "\
            5500001ff000-550000a00000 rw-p 00000000 00:00 0                          [heap]\n\
            7f0000000000-7f0000200000 r--p 00000000 00:00 0 \n\
            7f0000400000-7f0000600000 rw-p 00000000 08:01 1234                       /some/file\n\
            7f0001000000-7f00015fffff rw-p 00000000 00:00 0 \n\
            7ffc00000000-7ffc00800000 rw-p 00000000 00:00 0                          [stack]\n";
        let found: Vec<usize> = blocks(maps).collect();
        let heap = [0x5500_0020_0000, 0x5500_0040_0000, 0x5500_0060_0000, 0x5500_0080_0000];
        assert_eq!(found, [&heap[..], &[0x7f00_0100_0000, 0x7f00_0120_0000]].concat());
    }

    #[test]
    fn memory_in_use_becomes_large_pages_and_keeps_its_content() {
        let memory: Vec<u64> = (0..4 * BLOCK as u64 / 8).collect();
        let mut pages = LargePages::of_this_process();
        let supported = pages.maps.is_some();
        for second in 0..40 {
            pages.tick(Duration::from_secs(second));
        }
        let start = memory.as_ptr().addr();
        if supported && pages.maps.is_some() {
            let within = pages.done.range(start..start + 4 * BLOCK).count();
            assert!(within >= 3, "{within} blocks of four");
        }
        assert!(memory.iter().enumerate().all(|(at, number)| at as u64 == *number));
    }

    #[test]
    fn nothing_happens_twice_within_the_interval() {
        let mut pages = LargePages::of_this_process();
        pages.tick(Duration::from_secs(5));
        assert_eq!(pages.next, Duration::from_secs(6));
        pages.maps = None;
        pages.tick(Duration::from_millis(5500));
        assert_eq!(pages.next, Duration::from_secs(6));
    }
}
