//! `aquatic upgrade`: has a running tracker start its successor, and waits for the outcome.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aquatic_cli_helpers::{ExitStatus, Override, complain, load, print_to_stdout};
use aquatic_common::settings::Whole;
use aquatic_runtime::SIGNAL_THREAD;
use aquatic_runtime::handover::{OUTCOME_FILE, PID_FILE};
use aquatic_runtime::state_directory::is_abandoned;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::USUAL_STATE_DIRECTORY;
use crate::config::TrackerConfig;

/// Time between two looks at the outcome.
const POLL: Duration = Duration::from_millis(50);

/// Longest wait for an outcome after the time that an upgrade may take.
const GRACE: Duration = Duration::from_secs(30);

/// Looks after the process has ended, for an outcome that it has left.
const LAST_LOOKS: u32 = 100;

/// Flags of `aquatic upgrade`.
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub(crate) struct Upgrade {
    /// Configuration of the running tracker, which names its state directory; without flags, that of the
    /// packages' systemd unit
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Set one key, as when the tracker was started: --set state_directory=/var/lib/aquatic
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    set: Vec<Override>,

    /// Number of the running process, if it has no state directory
    #[arg(long, value_name = "PID")]
    pid: Option<i32>,
}

impl Upgrade {
    /// Requests the upgrade and waits until it has succeeded or failed.
    pub(crate) fn run(&self) -> ExitStatus {
        let config = match load::<TrackerConfig>(self.config.as_deref(), &self.set, &Whole) {
            Ok(config) => config,
            Err(error) => {
                complain(&error);
                return ExitStatus::BadConfiguration;
            }
        };
        let directory = self.state_directory(config.state_directory);
        let deadline = Duration::from_secs(config.upgrade.timeout.into()) + GRACE;
        let outcome = self.process(directory.as_deref()).and_then(|number| {
            request(number, directory.as_deref(), deadline).map_err(|error| (ExitStatus::Failure, error))
        });
        match outcome {
            Ok(text) => print_to_stdout(format!("{text}\n").as_bytes()),
            Err((status, error)) => {
                complain(&error);
                status
            }
        }
    }

    /// Where the running tracker is named, by what its configuration says.
    fn state_directory(&self, configured: PathBuf) -> Option<PathBuf> {
        if self.config.is_none() && self.set.is_empty() && self.pid.is_none() {
            return Some(PathBuf::from(USUAL_STATE_DIRECTORY));
        }
        Some(configured).filter(|path| !path.as_os_str().is_empty())
    }

    /// The number of the process to upgrade.
    fn process(&self, directory: Option<&Path>) -> Result<i32, (ExitStatus, String)> {
        match (self.pid, directory, &self.config) {
            (Some(pid), _, _) => Ok(pid),
            (None, Some(directory), _) => {
                let number = read_pid(&directory.join(PID_FILE));
                let number = number.and_then(|number| refuse_abandoned(directory).map(|()| number));
                number.map_err(|error| (ExitStatus::Failure, error))
            }
            (None, None, Some(path)) => {
                let text = format!(
                    "{} has no state_directory, in which the running tracker would be named; name its process (--pid \
                     PID)",
                    path.display()
                );
                Err((ExitStatus::BadConfiguration, text))
            }
            (None, None, None) => {
                let text = "name the configuration of the running tracker (-c FILE), if it has a state_directory, or its \
                            process (--pid PID)";
                Err((ExitStatus::BadUsage, text.to_owned()))
            }
        }
    }
}

/// The number of a process that was killed may be that of another one by now.
fn refuse_abandoned(directory: &Path) -> Result<(), String> {
    // Where that is unknown, the process is asked what it is.
    if matches!(is_abandoned(directory), Ok(true)) {
        return Err(format!("no tracker has {} open; start the tracker", directory.display()));
    }
    Ok(())
}

fn request(number: i32, directory: Option<&Path>, deadline: Duration) -> Result<String, String> {
    let pid = Pid::from_raw(number).ok_or_else(|| format!("{number} is not the number of a process"))?;
    if !catches_signal(pid)? || !is_tracker(pid) {
        return Err(format!("process {number} is no tracker that can be upgraded; restart it instead"));
    }
    let outcome = directory.map(|directory| directory.join(OUTCOME_FILE));
    let before = outcome.as_deref().and_then(stamp);
    kill_process(pid, Signal::USR2).map_err(|error| {
        format!("process {number} cannot be signalled: {error}. Run this as its user, or as root")
    })?;
    match outcome {
        Some(path) => wait(pid, &path, before, deadline),
        None => Ok(format!(
            "process {number} has been told to upgrade. Without a state_directory only its log tells the outcome"
        )),
    }
}

fn read_pid(path: &Path) -> Result<i32, String> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| {
        format!(
            "the running tracker is unknown: {}: {error}. Is one running? -c FILE names its configuration, --pid PID its \
             process",
            path.display()
        )
    })?;
    text.trim().parse().map_err(|_| format!("{} holds no process number", path.display()))
}

/// Whether a process has a thread that every tracker has: others catch the signal, too, and do something
/// else.
fn is_tracker(pid: Pid) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else { return false };
    threads.flatten().any(|thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim_end() == SIGNAL_THREAD)
    })
}

/// Whether a process has a handler for the signal, which would end any other.
fn catches_signal(pid: Pid) -> Result<bool, String> {
    let number = pid.as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{number}/status"));
    let status = status.map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            format!("there is no process {number}; start the tracker")
        } else {
            format!("process {number} cannot be inspected: {error}")
        }
    })?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    Ok(caught >> (Signal::USR2.as_raw() - 1) & 1 == 1)
}

/// What distinguishes a file from its former contents.
fn stamp(path: &Path) -> Option<(u64, i64, i64)> {
    let data = fs::metadata(path).ok()?;
    Some((data.ino(), data.mtime(), data.mtime_nsec()))
}

#[allow(clippy::disallowed_methods, reason = "this program waits for another one")]
fn wait(
    pid: Pid,
    path: &Path,
    before: Option<(u64, i64, i64)>,
    deadline: Duration,
) -> Result<String, String> {
    let number = pid.as_raw_nonzero();
    let mut looks = LAST_LOOKS;
    let begin = Instant::now();
    while looks > 0 {
        if begin.elapsed() > deadline {
            return Err(format!(
                "process {number} has not told what came of the upgrade within {} s; its log may. Is there room for {}?",
                deadline.as_secs(),
                path.display()
            ));
        }
        if stamp(path) != before {
            let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            return match text.trim_end().split_once(' ') {
                Some(("done", successor)) => {
                    Ok(format!("process {successor} has taken over from process {number}"))
                }
                Some(("failed", why)) => Err(format!("not upgraded, process {number} goes on: {why}")),
                _ => Err(format!("{} holds no outcome", path.display())),
            };
        }
        if test_kill_process(pid).is_err() {
            looks -= 1;
        }
        thread::sleep(POLL);
    }
    Err(format!(
        "process {number} has ended, and nothing tells whether another one has taken over; look at its log"
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        upgrade: Upgrade,
    }

    #[test]
    fn the_tracker_is_found_by_its_state_directory() {
        let found = |args: &[&str], configured: &str| {
            let Program { upgrade } = Program::parse_from(["upgrade"].iter().chain(args));
            let directory = upgrade.state_directory(configured.into());
            let process = upgrade.process(directory.as_deref()).map_err(|(status, _)| status);
            (directory, process)
        };
        let nowhere = |path: &str| (Some(PathBuf::from(path)), Err(ExitStatus::Failure));
        assert_eq!(found(&["-c", "x.toml"], "/nowhere"), nowhere("/nowhere"));
        assert_eq!(found(&["--set", "state_directory=/nowhere"], "/nowhere"), nowhere("/nowhere"));
        assert_eq!(found(&["-c", "x.toml"], ""), (None, Err(ExitStatus::BadConfiguration)));
        assert_eq!(found(&["--set", "workers=1"], ""), (None, Err(ExitStatus::BadUsage)));
        assert_eq!(found(&["--pid", "7"], ""), (None, Ok(7)));
        assert_eq!(found(&[], "").0, Some(PathBuf::from("/var/lib/aquatic")));
    }
}
