//! How much memory the process may use.

use std::fs;
use std::path::Path;

use crate::cores::{CGROUP_MOUNT, groups_of};

/// Memory that the process may use, in bytes: that of the machine, or the least that a control group of this
/// process is limited to. `None` if neither is known.
#[must_use]
pub fn available() -> Option<u64> {
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    of(&meminfo, &memberships, Path::new(CGROUP_MOUNT))
}

/// As [`available`], for a process: from the texts of `/proc/meminfo` and `/proc/PID/cgroup`, with the
/// control groups that are mounted below `mount`.
#[must_use]
pub fn of(meminfo: &str, memberships: &str, mount: &Path) -> Option<u64> {
    total(meminfo).into_iter().chain(limit_of_groups(memberships, mount)).min()
}

/// Total memory of the machine, from the text of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of the control groups of the process. Limits that are off are very large numbers in
/// version 1 and no numbers in version 2.
fn limit_of_groups(memberships: &str, mount: &Path) -> Option<u64> {
    groups_of(memberships, mount, "memory")
        .filter_map(|(group, version)| {
            let file = if version == 2 { "memory.max" } else { "memory.limit_in_bytes" };
            fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory() {
        assert!(available().is_some_and(|bytes| bytes > 16 << 20));
    }

    #[test]
    fn the_total_is_read() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!(total("MemTotal: many\n"), None);
    }

    #[test]
    fn the_least_limit_on_the_way_up_decides() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit_of_groups("0::/outer/inner\n", root.path()), None);
        fs::write(root.path().join("outer/memory.max"), "1048576\n").unwrap();
        assert_eq!(limit_of_groups("0::/outer/inner\n", root.path()), Some(1 << 20));
        let v1 = root.path().join("memory/docker");
        fs::create_dir_all(&v1).unwrap();
        fs::write(v1.join("memory.limit_in_bytes"), "4096\n").unwrap();
        assert_eq!(limit_of_groups("4:memory:/docker\n0::/outer\n", root.path()), Some(4096));
    }
}
