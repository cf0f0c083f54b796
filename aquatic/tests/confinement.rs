//! The real program with as few rights as an operator can leave it: filtered system calls, no capabilities, a
//! read-only root file system; and the systemd unit that asks for them.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use support::{Ends, Tracker, fetch, service, skip};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd/aquatic.service");

/// Highest exposure that `systemd-analyze security` may report for the unit, in tenths.
const MAX_EXPOSURE: u32 = 20;

const SETTINGS: [&str; 4] =
    ["workers=1", "network.use_ipv6=false", "network.address_ipv4=127.0.0.1:0", "udp.enable=false"];

/// The value of a field of /proc/PID/status or of one of its threads.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

/// By name of the thread: the mode of its filter of system calls, 0 for none and 2 for a program.
fn filters(tracker: &Tracker) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", tracker.id())).unwrap();
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok());
    statuses.map(|status| (field(&status, "Name"), field(&status, "Seccomp"))).collect()
}

fn announce(tracker: &Tracker) -> String {
    let query = "info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=bbbbbbbbbbbbbbbbbbbb&port=6881&left=0";
    fetch(tracker.address(), &format!("/announce?{query}"))
}

#[test]
fn threads_that_serve_clients_have_a_filter_of_system_calls() {
    let settings = [&SETTINGS[..], &["metrics.enable=true", "metrics.address=127.0.0.1:0"]].concat();
    let tracker = Tracker::start(1, &mut service("all", &settings));
    assert!(announce(&tracker).contains("8:completei1e"));
    assert!(fetch(tracker.metrics.unwrap(), "/metrics").contains("aquatic_requests_total"));
    let filters = filters(&tracker);
    let mode =
        |name: &str| filters.iter().find(|(thread, _)| thread.starts_with(name)).map(|(_, mode)| &**mode);
    assert_eq!(mode("aquatic-core-0"), Some("2"), "{filters:?}");
    assert_eq!(mode("aquatic-metrics"), Some("2"), "{filters:?}");
    // It reads nothing from the network.
    assert_eq!(filters.get("aquatic").map(String::as_str), Some("0"), "{filters:?}");
    let log = tracker.start_log.clone();
    tracker.signal("TERM");
    let rest = tracker.end().2;
    assert!(!log.contains("not filtered") && !rest.contains("not filtered"), "{log}{rest}");
}

#[test]
fn the_filter_can_be_switched_off() {
    let settings = [&SETTINGS[..], &["privileges.filter_system_calls=false"]].concat();
    let tracker = Tracker::start(1, &mut service("all", &settings));
    assert!(filters(&tracker).values().all(|mode| mode == "0"), "{:?}", filters(&tracker));
}

/// A copy of the program that every user may run.
fn program_for_everybody(directory: &Path) -> PathBuf {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.join("aquatic");
    fs::copy(env!("CARGO_BIN_EXE_aquatic"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// Runs a program whose system call of this number fails, as in containers.
fn without_call(number: i64, mut command: Command) -> Output {
    let refusal = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let rules = [(number, Vec::new())].into_iter().collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    // A filter stays for as long as its thread and is inherited by the programs it starts.
    let run = move || {
        seccompiler::apply_filter(&program).unwrap();
        command.ends()
    };
    thread::spawn(run).join().unwrap()
}

#[test]
fn a_container_that_forbids_io_uring_is_explained() {
    for number in [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter] {
        let output = without_call(number, service("all", &SETTINGS));
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{log}");
        assert!(log.contains("io_uring") && log.contains("seccomp"), "{log}");
    }
}

#[test]
fn it_serves_without_rights_on_a_read_only_system() {
    const CONFINE: &str = "mount -o remount,bind,ro / && exec setpriv --reuid=65534 --regid=65534 --clear-groups \
        --inh-caps=-all --ambient-caps=-all --bounding-set=-all --no-new-privs \"$@\"";
    let possible = Command::new("unshare")
        .args(["--mount", "sh", "-c", CONFINE, "sh", "true"])
        .stderr(Stdio::null())
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        return skip("right to mount (root), unshare or setpriv");
    }
    let directory = tempfile::tempdir().unwrap();
    let program = program_for_everybody(directory.path());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", CONFINE, "sh"]).arg(program).arg("all");
    SETTINGS.iter().for_each(|setting| {
        command.args(["--set", setting]);
    });
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let tracker = Tracker::start(1, &mut command);
    assert!(announce(&tracker).contains("8:completei1e"));
    let proc = PathBuf::from(format!("/proc/{}", tracker.id()));
    let status = fs::read_to_string(proc.join("status")).unwrap();
    assert_eq!(field(&status, "Uid").split_whitespace().next(), Some("65534"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&status, set), "0".repeat(16), "{set}");
    }
    let mounts = fs::read_to_string(proc.join("mounts")).unwrap();
    let root = mounts.lines().rfind(|mount| mount.split(' ').nth(1) == Some("/")).unwrap();
    assert!(root.split(' ').nth(3).unwrap().split(',').any(|option| option == "ro"), "{root}");
    tracker.signal("TERM");
    assert_eq!(tracker.end().0, Some(0));
}

/// Runs systemd-analyze; `None` where there is none.
fn analyze(args: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(args).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip("systemd-analyze");
            None
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

#[test]
fn the_unit_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("aquatic.service");
    let text = fs::read_to_string(UNIT).unwrap();
    assert!(text.contains("ExecStart=/usr/bin/aquatic all "), "{text}");
    fs::write(&unit, text.replace("/usr/bin/aquatic", env!("CARGO_BIN_EXE_aquatic"))).unwrap();
    let Some(output) = analyze(&["verify", "--man=no", unit.to_str().unwrap()]) else { return };
    let problems = String::from_utf8(output.stderr).unwrap();
    let ours: Vec<&str> = problems.lines().filter(|line| line.contains("aquatic")).collect();
    assert!(output.status.success() && ours.is_empty(), "{problems}");
}

#[test]
fn the_unit_exposes_little() {
    let threshold = format!("--threshold={MAX_EXPOSURE}");
    let Some(output) = analyze(&["security", "--offline=true", "--no-pager", &threshold, UNIT]) else {
        return;
    };
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    assert!(report.contains("Overall exposure level"), "{report}");
}
