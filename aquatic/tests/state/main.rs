//! What the real program keeps across restarts in its state directory.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds anything else has failed"
)]

mod keys;
mod owners;
mod snapshot;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "shared with the tests of aquatic all")]
#[path = "../all/udp.rs"]
mod udp;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use support::{Ends, Tracker, torrent};

/// A state directory, and how to start trackers with it on one address.
struct Home {
    directory: TempDir,
    address: SocketAddr,
}

impl Home {
    fn new() -> Self {
        Self::on("127.0.0.1:0")
    }

    fn on(address: &str) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), address: address.parse().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, settings: &[&str]) -> Command {
        let state = format!("state_directory={}", self.directory.path().display());
        let (family, other) = if self.address.is_ipv4() { ("ipv4", "ipv6") } else { ("ipv6", "ipv4") };
        let address = format!("network.address_{family}={}", self.address);
        let own = [
            &format!("network.use_{other}=false"),
            &address,
            &state,
            "metrics.enable=true",
            "metrics.address=127.0.0.1:0",
        ];
        support::udp(&[&own[..], settings].concat())
    }

    /// Starts a UDP tracker, on the same address each time.
    fn start(&mut self, settings: &[&str]) -> Tracker {
        let tracker = Tracker::start(1, &mut self.command(settings));
        self.address = tracker.address();
        tracker
    }
}

/// Exit code and log of a tracker that does not start.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let output = command.ends();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
