//! The real program as a child process, on free ports of loopback.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use aquatic_common::InfoHash;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longest time a tracker may take to stop.
pub(crate) const STOP: Duration = Duration::from_secs(5);

/// Longest time until a command has ended that should end by itself.
const END: Duration = Duration::from_secs(60);

/// Longest wait for a line of the log.
const LOG: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// Longest wait for a reply on loopback, on a machine that is busy otherwise.
pub(crate) const REPLY: Duration = Duration::from_secs(20);

/// A running tracker. Ended when dropped, if it has not ended before.
pub(crate) struct Tracker {
    child: Option<Child>,
    /// Where it listens, in the order of its log.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Where it serves metrics, if it does.
    pub(crate) metrics: Option<SocketAddr>,
    stdout: Option<ChildStdout>,
    /// Its log until it listened.
    pub(crate) start_log: String,
    /// The rest of its log.
    pub(crate) log: Option<BufReader<ChildStderr>>,
}

impl Tracker {
    /// Starts a tracker with these arguments and waits until it listens in as many places.
    pub(crate) fn start(listeners: usize, command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (mut seen, mut addresses) = (String::new(), Vec::new());
        while addresses.len() < listeners {
            let start = seen.len();
            assert_ne!(log.read_line(&mut seen).unwrap(), 0, "the tracker ended: {seen}");
            let urls = seen[start..].split_whitespace().filter_map(|word| word.split_once("://"));
            // In the format of JSON, the line ends behind it.
            let rests = urls.map(|(_, rest)| rest.trim_end_matches(['"', '}']));
            let address = rests.filter_map(|rest| rest.strip_suffix("/announce")).next();
            addresses.extend(address.map(|address| address.parse::<SocketAddr>().unwrap()));
        }
        let metrics = seen.split_once("metrics: http://").and_then(|(_, rest)| rest.split_once("/metrics"));
        let metrics = metrics.map(|(address, _)| address.parse().unwrap());
        Self { child: Some(child), addresses, metrics, stdout, start_log: seen, log: Some(log) }
    }

    /// Where it listens first.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        assert!(kill(name, self.id()));
    }

    /// The next line of its log that contains a text.
    pub(crate) fn wait_for_log(&mut self, text: &str) -> String {
        let log = self.log.as_mut().unwrap();
        loop {
            let is_there = !log.buffer().is_empty()
                || poll(&mut [PollFd::new(log.get_ref(), PollFlags::IN)], Some(&LOG)) == Ok(1);
            assert!(is_there, "the tracker does not say {text:?}");
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the tracker ended without saying {text:?}");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits for the end and returns exit code, standard output and the rest of the log.
    pub(crate) fn end(self) -> (Option<i32>, String, String) {
        // Machines may be busy otherwise.
        self.end_within(4 * STOP)
    }

    /// The same, with another time to stop.
    pub(crate) fn end_within(mut self, limit: Duration) -> (Option<i32>, String, String) {
        let (sender, receiver) = mpsc::channel();
        let mut child = self.child.take().unwrap();
        let pid = child.id();
        let (mut stdout, mut log) = (self.stdout.take().unwrap(), self.log.take().unwrap());
        thread::spawn(move || {
            let (mut printed, mut logged) = (String::new(), String::new());
            stdout.read_to_string(&mut printed).unwrap();
            log.read_to_string(&mut logged).unwrap();
            let _ = sender.send((child.wait().unwrap().code(), printed, logged));
        });
        receiver.recv_timeout(limit).unwrap_or_else(|_| {
            kill("KILL", pid);
            panic!("the tracker did not stop within {limit:?}");
        })
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs what should end by itself.
pub(crate) trait Ends {
    /// Returns what it wrote and how it ended. A tracker that starts although it should not is killed.
    fn ends(&mut self) -> Output;
}

impl Ends for Command {
    fn ends(&mut self) -> Output {
        let (sender, receiver) = mpsc::channel();
        let command = self.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let pid = child.id();
        thread::spawn(move || sender.send(child.wait_with_output()));
        let output = receiver.recv_timeout(END).unwrap_or_else(|_| {
            kill("KILL", pid);
            panic!("{command:?} did not end within {END:?}");
        });
        output.unwrap()
    }
}

/// Sends a signal and returns whether that worked. The shell has `kill` built in; as a program, it may be
/// missing.
fn kill(signal: &str, pid: u32) -> bool {
    let pid = pid.to_string();
    Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid]).status().unwrap().success()
}

/// A different torrent for each number, spread over all cores, with bytes of all values.
pub(crate) fn torrent(number: u32) -> InfoHash {
    let mut bytes = [200; 20];
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    InfoHash(bytes)
}

/// `aquatic udp` with settings, each `KEY=VALUE`.
pub(crate) fn udp(settings: &[&str]) -> Command {
    service("udp", settings)
}

/// A service with settings, each `KEY=VALUE`.
pub(crate) fn service(name: &str, settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aquatic"));
    command.arg(name);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What starts a program in a network namespace of its own, in which no interface is up; `None` where that is
/// forbidden.
pub(crate) fn in_own_network() -> Option<Command> {
    [&["--net"][..], &["--user", "--map-root-user", "--net"]].into_iter().find_map(|flags| {
        let works = Command::new("unshare").args(flags).arg("true").stderr(Stdio::null()).status();
        works.is_ok_and(|status| status.success()).then(|| {
            let mut command = Command::new("unshare");
            command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        })
    })
}

/// Whether tests run where everything they need has to be there, so that none may be left out.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// Leaves a test out because the machine lacks something; fails it in CI, where nothing may be left out.
pub(crate) fn skip(what: &str) {
    assert!(!is_ci(), "CI needs {what}");
    eprintln!("left out: this machine has no {what}");
}

/// Polls a value until it satisfies a condition, and returns it. Fails after a while.
#[allow(clippy::disallowed_methods, reason = "the test waits for another process")]
pub(crate) fn eventually<T: std::fmt::Debug>(mut read: impl FnMut() -> T, holds: impl Fn(&T) -> bool) -> T {
    // A machine with more to do than processors keeps programs from starting for many seconds.
    const DEADLINE: Duration = Duration::from_secs(60);
    let start = Instant::now();
    loop {
        let value = read();
        if holds(&value) {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {value:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The value of a metric, summed over its series that have these labels: `name{label="value",...`.
pub(crate) fn metric(address: SocketAddr, series: &str) -> f64 {
    sum_of(&fetch(address, "/metrics"), series)
}

/// The same on a page that has been fetched.
pub(crate) fn sum_of(page: &str, series: &str) -> f64 {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let wanted = |line: &&str| {
        let rest = line.strip_prefix(name).unwrap_or_default();
        rest.starts_with(['{', ' '])
            && labels.trim_end_matches('}').split(',').all(|label| rest.contains(label))
    };
    let values = page.lines().filter(wanted).map(|line| line.rsplit(' ').next().unwrap());
    values.map(|value| value.parse::<f64>().unwrap()).sum()
}

/// The body of a page of plain HTTP.
pub(crate) fn fetch(address: SocketAddr, path: &str) -> String {
    use std::io::Write;
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(REPLY)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap()
}
