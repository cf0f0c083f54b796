//! Upgrades of the real program: what clients see of them, and what happens when they fail.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed"
)]

mod by_hand;
mod failures;
mod kills;
mod load;
#[path = "../support/mod.rs"]
mod support;
mod tls;
#[allow(dead_code, reason = "shared with the tests of aquatic all")]
#[path = "../all/udp.rs"]
mod udp;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use support::{Tracker, eventually, torrent};

/// A program of its own that can be replaced, its configuration and its state directory. Ends the tracker
/// that serves, whichever it is, when dropped.
struct Home {
    directory: TempDir,
}

impl Home {
    fn new(configuration: &str) -> Self {
        let home = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(home.path("state")).unwrap();
        home.install();
        home.configure(configuration);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts the real program in place.
    fn install(&self) {
        let new = self.path("aquatic.new");
        let program = env!("CARGO_BIN_EXE_aquatic");
        if fs::hard_link(program, &new).is_err() {
            fs::copy(program, &new).unwrap();
        }
        fs::rename(new, self.path("aquatic")).unwrap();
    }

    /// Puts a program in place that goes wrong at a step.
    fn install_failure(&self, step: &str) {
        use std::os::unix::fs::PermissionsExt;
        let text = format!("#!/usr/bin/env python3\n{}", include_str!("successors.py"));
        fs::write(self.path("step"), step).unwrap();
        fs::write(self.path("aquatic.new"), text).unwrap();
        fs::set_permissions(self.path("aquatic.new"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(self.path("aquatic.new"), self.path("aquatic")).unwrap();
    }

    fn configure(&self, configuration: &str) {
        let state = self.path("state");
        let own = format!("state_directory = \"{}\"\n{configuration}", state.display());
        fs::write(self.path("config.toml"), own).unwrap();
    }

    fn command(&self, service: &str) -> Command {
        let mut command = Command::new(self.path("aquatic"));
        command.arg(service).arg("-c").arg(self.path("config.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, service: &str, listeners: usize) -> Tracker {
        let tracker = Tracker::start(listeners, &mut self.command(service));
        // It listens a moment before its cores run.
        let own = format!("{}\n", tracker.id());
        eventually(|| fs::read_to_string(self.path("state/pid")).unwrap_or_default(), |pid| *pid == own);
        tracker
    }

    /// Upgrades the tracker, and returns whether that worked and what was said.
    fn upgrade(&self) -> (bool, String) {
        let Output { status, stdout, stderr } = self.upgrade_command().output().unwrap();
        let text = [stdout, stderr].concat();
        (status.success(), String::from_utf8(text).unwrap())
    }

    fn upgrade_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aquatic"));
        let state = format!("state_directory={}", self.path("state").display());
        command.args(["upgrade", "-s", &state]);
        command
    }

    /// Number of the process that serves.
    fn pid(&self) -> u32 {
        fs::read_to_string(self.path("state/pid")).unwrap().trim().parse().unwrap()
    }

    /// Sends a signal to the process that serves.
    fn signal(&self, name: &str) {
        signal(name, self.pid());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.path("state/pid").exists() {
            self.signal("KILL");
        }
    }
}

fn signal(name: &str, pid: u32) {
    let pid = pid.to_string();
    let _ =
        Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\" 2>/dev/null", name, &pid]).status().unwrap();
}

fn is_running(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

fn until_ended(pid: u32) {
    eventually(|| is_running(pid), |running| !running);
}

/// A configuration on one free address of loopback, with the address as configured later.
fn on_loopback(address: Option<SocketAddr>, more: &str) -> String {
    let address = address.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
    let (family, other) = if address.is_ipv4() { ("ipv4", "ipv6") } else { ("ipv6", "ipv4") };
    format!("{more}\n[network]\nuse_{other} = false\naddress_{family} = [\"{address}\"]\n")
}
