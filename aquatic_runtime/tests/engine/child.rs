//! Starts a scenario in a process of its own and listens to it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The environment variable that names the scenario.
pub(crate) const SCENARIO: &str = "AQUATIC_TEST_SCENARIO";

/// How long to wait for a line. Machines that run tests are busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that runs a scenario. Killed when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
    heard: Vec<String>,
    looked_at: Vec<bool>,
}

/// How a process has ended.
pub(crate) struct Ended {
    /// Exit code; none after a signal.
    pub(crate) code: Option<i32>,
    /// Everything it has said.
    pub(crate) output: String,
}

impl Child {
    /// Starts this binary again as the named scenario.
    pub(crate) fn start(scenario: &str, environment: &[(&str, &str)]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(SCENARIO, scenario)
            .envs(environment.iter().copied())
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(process.stdout.take().unwrap());
        let err = BufReader::new(process.stderr.take().unwrap());
        let second = sender.clone();
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        thread::spawn(move || err.lines().map_while(Result::ok).try_for_each(|line| second.send(line)));
        Self { process, lines, heard: Vec::new(), looked_at: Vec::new() }
    }

    /// Waits for a line that contains the text, in whatever order lines come, and returns the line from there
    /// on.
    pub(crate) fn expect(&mut self, text: &str) -> &str {
        let deadline = now() + PATIENCE;
        let mut next = 0;
        loop {
            while next < self.heard.len() {
                if !self.looked_at[next]
                    && let Some(at) = self.heard[next].find(text)
                {
                    self.looked_at[next] = true;
                    return &self.heard[next][at..];
                }
                next += 1;
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(now())) {
                Ok(line) => self.hear(line),
                Err(error) => panic!("{error}: no line with {text:?} in\n{}", self.heard.join("\n")),
            }
        }
    }

    fn hear(&mut self, line: String) {
        self.heard.push(line);
        self.looked_at.push(false);
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for the process to end within this time.
    pub(crate) fn wait(mut self, limit: Duration) -> Ended {
        let deadline = now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(now())) {
                Ok(line) => self.hear(line),
                // Both pipes are closed: it has ended.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("still running after {limit:?}:\n{}", self.heard.join("\n"))
                }
            }
        }
        let status = self.process.wait().unwrap();
        assert_eq!(status.signal(), None, "killed by a signal:\n{}", self.heard.join("\n"));
        Ended { code: status.code(), output: self.heard.join("\n") }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[allow(clippy::disallowed_methods, reason = "the tests look at the engine from outside its time")]
fn now() -> Instant {
    Instant::now()
}
