//! `aquatic doctor` as a program: on this machine, and in places where something is wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Tracker, in_own_network, skip};

const PROGRAM: &str = env!("CARGO_BIN_EXE_aquatic");

/// Exit code and report of `aquatic doctor --json` with further arguments, started through a program.
fn doctor(starter: &[&str], arguments: &[&str]) -> (Option<i32>, Value) {
    let words: Vec<&str> = starter.iter().copied().chain([PROGRAM, "doctor", "--json"]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    });
    (output.status.code(), report)
}

/// Verdicts and texts of a check.
fn rows<'a>(report: &'a Value, check: &str) -> Vec<(&'a str, &'a str)> {
    let rows = report["rows"].as_array().unwrap().iter().filter(|row| row["check"] == check);
    rows.map(|row| (row["verdict"].as_str().unwrap(), row["text"].as_str().unwrap())).collect()
}

fn row<'a>(report: &'a Value, check: &str) -> (&'a str, &'a str) {
    *rows(report, check).first().unwrap_or_else(|| panic!("no row {check} in {report:#}"))
}

/// Settings of a tracker on free ports of loopback.
const LOCAL: [&str; 4] = ["--set", "network.address_ipv4=127.0.0.1:0", "--set", "network.use_ipv6=false"];

#[test]
fn exit_code_and_counts_follow_the_rows() {
    let (code, report) = doctor(&[], &LOCAL);
    let count = |verdict: &str| {
        report["rows"].as_array().unwrap().iter().filter(|row| row["verdict"] == verdict).count() as u64
    };
    assert_eq!(report["version"], 1);
    for (member, verdict) in [("faults", "fault"), ("advice", "advice"), ("ok", "ok")] {
        assert_eq!(report[member].as_u64().unwrap(), count(verdict), "{report:#}");
    }
    assert_eq!(code, Some(i32::from(count("fault") > 0)), "{report:#}");
    assert_eq!(row(&report, "settings"), ("ok", "valid"));
    assert_eq!(row(&report, "io_uring").0, "ok");
}

#[test]
fn the_text_fits_a_terminal() {
    let output = Command::new(PROGRAM).arg("doctor").args(LOCAL).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\x1b'), "no colours into a pipe: {text}");
    let is_command = |line: &str| line.trim_start().starts_with(['$', 's']);
    for line in text.lines().filter(|line| !is_command(line)) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn limits_of_the_process_are_those_it_runs_with() {
    let (code, report) = doctor(&["prlimit", "--nofile=64:64"], &LOCAL);
    let (verdict, text) = row(&report, "open_files");
    assert_eq!((code, verdict), (Some(1), "fault"), "{text}");
    assert!(text.contains("64 files only"), "{text}");
    let (_, report) = doctor(&["prlimit", "--nofile=1000:1000"], &LOCAL);
    assert_eq!(row(&report, "open_files").0, "advice");
    // Without the capability to raise it.
    let weak = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"];
    let starter = [&weak[..], &["prlimit", "--memlock=65536:65536"]].concat();
    let (_, report) = doctor(&starter, &LOCAL);
    let (verdict, text) = row(&report, "locked_memory");
    // A user without root keeps no capabilities; root gets them again from the program.
    let expected = if text.contains("raises") { "ok" } else { "fault" };
    assert_eq!(verdict, expected, "{text}");
}

#[test]
fn more_workers_than_processors_are_a_fault() {
    let (code, report) = doctor(&["taskset", "-c", "0"], &[&LOCAL[..], &["--set", "workers=2"]].concat());
    assert_eq!((code, row(&report, "workers").0), (Some(1), "fault"), "{report:#}");
}

#[test]
fn the_holder_of_a_port_is_named() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listener = TcpListener::bind(address);
    let set = format!("network.address_ipv4={address}");
    let (code, report) = doctor(&[], &["--set", &set, "--set", "network.use_ipv6=false"]);
    let ports = rows(&report, "ports");
    let faults: Vec<_> = ports.iter().filter(|(verdict, _)| *verdict == "fault").collect();
    assert_eq!((code, faults.len()), (Some(1), 1 + usize::from(listener.is_ok())), "{report:#}");
    assert!(ports[0].1.contains(&format!("process {}", std::process::id())), "{ports:?}");
    drop(listener);
}

#[test]
fn a_running_tracker_is_no_clash_and_its_limits_count() {
    let mut command = Command::new("prlimit");
    command.args(["--nofile=500:500", PROGRAM, "udp", "--set", "network.address_ipv4=127.0.0.1:0"]);
    command.args(["--set", "network.use_ipv6=false", "--set", "workers=1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let tracker = Tracker::start(1, &mut command);
    let set = format!("network.address_ipv4={}", tracker.address());
    let arguments = ["--set", &set, "--set", "network.use_ipv6=false", "--service", "udp"];
    let (_, report) = doctor(&[], &arguments);
    let (verdict, text) = row(&report, "ports");
    assert_eq!(verdict, "ok", "{text}");
    assert!(text.contains(&format!("the tracker is running (process {})", tracker.id())), "{text}");
    let (_, text) = row(&report, "open_files");
    assert!(text.contains("running tracker") && text.contains("500"), "{text}");
}

#[test]
fn all_problems_of_the_configuration_are_rows() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tracker.toml");
    fs::write(&file, "workers = 5000\nunknown = 1\n[access_list]\nmode = \"allow\"\n").unwrap();
    let (code, report) = doctor(&[], &["-c", file.to_str().unwrap()]);
    let problems = rows(&report, "settings");
    assert_eq!((code, problems.len()), (Some(1), 2), "{problems:?}");
    assert!(problems.iter().all(|(verdict, _)| *verdict == "fault"));
    assert_eq!(row(&report, "defaults").0, "advice");
}

#[test]
fn routes_and_addresses_of_the_network_are_looked_at() {
    let Some(mut command) = in_own_network() else {
        return skip("network namespaces");
    };
    // An address that others could know, and no way to answer them.
    let script = "ip link set lo up && ip -6 address add 2a01:db8::1/64 dev lo && exec \"$0\" doctor --json";
    let output = command.args(["sh", "-c", script, PROGRAM]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(row(&report, "ipv6").0, "fault", "{report:#}");
    assert_eq!(row(&report, "ipv4").0, "advice", "{report:#}");
}

#[test]
fn names_are_resolved() {
    let (_, report) = doctor(&[], &[&LOCAL[..], &["--host", "localhost"]].concat());
    assert_eq!(row(&report, "name_ipv4").0, "ok", "{report:#}");
    let (code, report) = doctor(&[], &[&LOCAL[..], &["--host", "no such name"]].concat());
    assert_eq!((code, row(&report, "name").0), (Some(1), "fault"), "{report:#}");
}
