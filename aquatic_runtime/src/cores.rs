//! Choice of the processors that the cores are pinned to.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use aquatic_common::processors::Processors;

/// Where control groups are mounted on every system in use.
pub(crate) const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

/// The processors to pin the threads of the cores to, in core order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorePlan {
    /// Processor numbers of the operating system.
    pub cpus: Vec<usize>,
    /// Processor time quota of the control group in whole processors, if it is lower than the number of
    /// cores: the kernel then stops all threads for part of the time.
    pub throttled_to: Option<usize>,
}

/// Reason why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorePlanError {
    /// More workers than processors that the process may use.
    TooMany {
        /// Number of workers.
        asked: usize,
        /// Number of processors in the affinity mask.
        available: usize,
    },
    /// More workers than listed processors.
    TooManyForList {
        /// Number of workers.
        asked: usize,
        /// Number of processors listed.
        listed: usize,
    },
    /// A listed processor that the process may not use.
    NotAllowed {
        /// The listed processor.
        cpu: usize,
        /// Processors in the affinity mask.
        allowed: Processors,
    },
    /// The operating system does not report the affinity mask.
    Unknown,
}

impl fmt::Display for CorePlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { asked, available } => write!(
                f,
                "workers = {asked}, but this process may run on {available} processor(s) only. Set workers to \
                 {available} or less, to 0 for all of them, or widen the affinity mask (taskset, CPUAffinity=, \
                 cpuset)"
            ),
            Self::TooManyForList { asked, listed } => write!(
                f,
                "workers = {asked}, but cpus lists {listed} processor(s) only. Set workers to {listed} or less, to 0 \
                 for all of them, or list more processors"
            ),
            Self::NotAllowed { cpu, allowed } => write!(
                f,
                "cpus lists processor {cpu}, but this process may run on the processors {allowed} only. List some of \
                 these, or widen the affinity mask (taskset, CPUAffinity=, cpuset)"
            ),
            Self::Unknown => f.write_str(
                "the operating system does not say which processors this process may run on \
                 (sched_getaffinity failed). Look for a seccomp filter that forbids it",
            ),
        }
    }
}

impl std::error::Error for CorePlanError {}

/// Processor time a control group may use per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Microseconds of processor time.
    pub time: u64,
    /// Microseconds of the period.
    pub period: u64,
}

impl Quota {
    /// In whole processors, rounded up, at least one.
    #[must_use]
    pub fn processors(self) -> usize {
        usize::try_from(self.time.div_ceil(self.period.max(1))).unwrap_or(usize::MAX).max(1)
    }

    fn tighter(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => {
                let a_is_tighter =
                    u128::from(a.time) * u128::from(b.period) <= u128::from(b.time) * u128::from(a.period);
                Some(if a_is_tighter { a } else { b })
            }
            (one, other) => one.or(other),
        }
    }
}

/// Chooses the processors. They are those listed, or all in the affinity mask if the list is empty. `asked`
/// is the configured number of workers, 0 for one per processor, limited by the quota. A configured number is
/// used even if it exceeds the quota.
///
/// # Errors
/// More workers than processors, or a listed processor that is not in the mask.
pub fn plan(
    asked: usize,
    listed: &Processors,
    allowed: &[usize],
    quota: Option<Quota>,
) -> Result<CorePlan, CorePlanError> {
    if allowed.is_empty() {
        return Err(CorePlanError::Unknown);
    }
    if let Some(&cpu) = listed.numbers().iter().find(|cpu| !allowed.contains(cpu)) {
        return Err(CorePlanError::NotAllowed { cpu, allowed: allowed.iter().copied().collect() });
    }
    let usable = if listed.is_all() { allowed } else { listed.numbers() };
    let quota = quota.map_or(usize::MAX, Quota::processors);
    let count = if asked == 0 { usable.len().min(quota) } else { asked };
    let cpus = usable.get(..count).ok_or_else(|| match (listed.is_all(), usable.len()) {
        (true, available) => CorePlanError::TooMany { asked, available },
        (false, listed) => CorePlanError::TooManyForList { asked, listed },
    })?;
    Ok(CorePlan { cpus: cpus.to_vec(), throttled_to: (quota < count).then_some(quota) })
}

/// Chooses the processors with the affinity mask and the quota of this process.
///
/// # Errors
/// As [`plan`], or an affinity mask that cannot be read.
pub fn plan_for_this_process(asked: usize, listed: &Processors) -> Result<CorePlan, CorePlanError> {
    let mut allowed: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    allowed.sort_unstable();
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    plan(asked, listed, &allowed, quota_of(&memberships, Path::new(CGROUP_MOUNT)))
}

/// Pins the calling thread to a processor.
#[must_use]
pub fn pin_this_thread(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

/// The tightest quota of the control groups that a process is in, from the text of its `/proc/PID/cgroup`.
#[must_use]
pub fn quota_of(memberships: &str, mount: &Path) -> Option<Quota> {
    let quotas = groups_of(memberships, mount, "cpu")
        .map(|(group, version)| if version == 2 { read_v2(&group) } else { read_v1(&group) });
    quotas.fold(None, Quota::tighter)
}

/// Directories of the control groups that bind this process in what a controller limits, each with the
/// version of its hierarchy, 1 or 2.
pub(crate) fn groups_of<'a>(
    memberships: &'a str,
    mount: &'a Path,
    controller: &'a str,
) -> impl Iterator<Item = (PathBuf, u8)> + 'a {
    let groups = memberships.lines().filter_map(move |line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        if controllers.is_empty() {
            Some((mount.to_path_buf(), group, 2))
        } else if controllers.split(',').any(|name| name == controller) {
            Some((mount.join(controllers), group, 1))
        } else {
            None
        }
    });
    // A group is bound by its own limits and by those of all groups around it. In a container the path may
    // name groups that are not visible; the root of the mount is then the container's own group.
    groups.flat_map(|(hierarchy, group, version)| {
        let ancestors = Path::new(group.trim_start_matches('/')).ancestors();
        ancestors.map(move |ancestor| (hierarchy.join(ancestor), version))
    })
}

fn read_v2(group: &Path) -> Option<Quota> {
    parse_cpu_max(&fs::read_to_string(group.join("cpu.max")).ok()?)
}

/// `cpu.max` holds "QUOTA PERIOD" or "max PERIOD".
fn parse_cpu_max(text: &str) -> Option<Quota> {
    let mut fields = text.split_ascii_whitespace();
    let time = fields.next()?.parse().ok()?;
    let period = fields.next()?.parse().ok()?;
    Some(Quota { time, period })
}

fn read_v1(group: &Path) -> Option<Quota> {
    // Without a quota the file holds -1, which is no unsigned number.
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok();
    Some(Quota { time: number("cpu.cfs_quota_us")?, period: number("cpu.cfs_period_us")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn quota(time: u64, period: u64) -> Option<Quota> {
        Some(Quota { time, period })
    }

    /// A plan without a list of processors.
    fn plan(asked: usize, allowed: &[usize], quota: Option<Quota>) -> Result<CorePlan, CorePlanError> {
        super::plan(asked, &Processors::default(), allowed, quota)
    }

    #[test]
    fn listed_processors_are_used_in_their_order() {
        let plan =
            |asked, list: &str, quota| super::plan(asked, &list.parse().unwrap(), &[0, 1, 2, 3], quota);
        assert_eq!(plan(0, "3,1-2", None).unwrap().cpus, [3, 1, 2]);
        assert_eq!(plan(2, "3,1-2", None).unwrap().cpus, [3, 1]);
        assert_eq!(plan(0, "3,1-2", quota(150_000, 100_000)).unwrap().cpus, [3, 1]);
        assert_eq!(plan(3, "0-1", None), Err(CorePlanError::TooManyForList { asked: 3, listed: 2 }));
        let error = plan(1, "1,7", None).unwrap_err();
        assert!(matches!(error, CorePlanError::NotAllowed { cpu: 7, .. }), "{error}");
        assert!(error.to_string().contains("processors 0-3 only"), "{error}");
    }

    #[test]
    fn zero_takes_the_mask_and_the_quota_into_account() {
        assert_eq!(plan(0, &[1, 3, 5], None).unwrap().cpus, [1, 3, 5]);
        assert_eq!(plan(0, &[1, 3, 5], quota(150_000, 100_000)).unwrap().cpus, [1, 3]);
        assert_eq!(plan(0, &[1, 3, 5], quota(10_000, 100_000)).unwrap().cpus, [1]);
        assert_eq!(plan(0, &[1, 3, 5], quota(900_000, 100_000)).unwrap().cpus, [1, 3, 5]);
    }

    #[test]
    fn a_number_is_taken_at_its_word() {
        let plan_of_two = plan(2, &[1, 3, 5], quota(100_000, 100_000)).unwrap();
        assert_eq!(plan_of_two, CorePlan { cpus: vec![1, 3], throttled_to: Some(1) });
        assert_eq!(plan(2, &[1, 3, 5], None).unwrap().throttled_to, None);
    }

    #[test]
    fn more_than_available_is_an_error_with_both_numbers() {
        let error = plan(4, &[0, 1], None).unwrap_err();
        assert_eq!(error, CorePlanError::TooMany { asked: 4, available: 2 });
        assert!(
            error.to_string().contains("workers = 4") && error.to_string().contains("2 processor"),
            "{error}"
        );
        assert_eq!(plan(0, &[], None), Err(CorePlanError::Unknown));
    }

    #[test]
    fn quota_files_are_read() {
        assert_eq!(parse_cpu_max("250000 100000\n"), quota(250_000, 100_000));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max(""), None);
    }

    #[test]
    fn the_tightest_group_on_the_way_up_decides() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("cpu.max"), "max 100000\n").unwrap();
        fs::write(root.path().join("outer/cpu.max"), "300000 100000\n").unwrap();
        assert_eq!(quota_of("0::/outer/inner\n", root.path()), quota(300_000, 100_000));
        assert_eq!(quota_of("0::/elsewhere\n", root.path()), None);

        let v1 = root.path().join("cpu,cpuacct");
        fs::create_dir_all(&v1).unwrap();
        fs::write(v1.join("cpu.cfs_quota_us"), "50000\n").unwrap();
        fs::write(v1.join("cpu.cfs_period_us"), "100000\n").unwrap();
        let both = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/outer/inner\n";
        assert_eq!(quota_of(both, root.path()), quota(50_000, 100_000));
        fs::write(v1.join("cpu.cfs_quota_us"), "-1\n").unwrap();
        assert_eq!(quota_of(both, root.path()), quota(300_000, 100_000));
    }

    #[test]
    fn this_machine_has_a_plan() {
        let plan = plan_for_this_process(1, &Processors::default()).unwrap();
        assert_eq!(plan.cpus.len(), 1);
    }
}
