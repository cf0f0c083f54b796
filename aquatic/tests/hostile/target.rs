//! The tracker under attack, as seen from outside: its process, its counters, its log.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for anything that the tracker does without being asked twice.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A program to attack instead of the one that was built with this test.
const PROGRAM: &str = "HOSTILE_TRACKER";

/// Attacks take all processor time they get, so they take place one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A running tracker. Killed when dropped.
pub(crate) struct Target {
    child: Child,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    metrics: SocketAddr,
    log: Arc<Mutex<String>>,
    _turn: MutexGuard<'static, ()>,
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Open descriptors.
    pub(crate) descriptors: usize,
    /// Resident memory that belongs to no file, in KiB.
    pub(crate) memory: u64,
}

impl Target {
    /// Starts a service on loopback, with further settings.
    pub(crate) fn start(protocol: &'static str, settings: &[&str]) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let program = std::env::var(PROGRAM).unwrap_or_else(|_| env!("CARGO_BIN_EXE_aquatic").to_owned());
        let mut command = Command::new(program);
        let usual = [
            "network.use_ipv6=false",
            "network.address_ipv4=127.0.0.1:0",
            "metrics.enable=true",
            "metrics.address=127.0.0.1:0",
        ];
        command.arg(protocol);
        usual.iter().chain(settings).for_each(|setting| {
            command.args(["--set", setting]);
        });
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        // Read all the time: a full pipe would have the tracker wait.
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut target = Self { child, address: nowhere, metrics: nowhere, log, _turn: turn };
        target.address = target.listening_at(false);
        target.metrics = target.listening_at(true);
        target
    }

    /// Waits for the log to name the URL of the metrics, or another one.
    fn listening_at(&mut self, of_metrics: bool) -> SocketAddr {
        let begin = now();
        loop {
            let log = self.log();
            let mut urls =
                log.split_whitespace().filter_map(|word| word.split_once("://")?.1.split_once('/'));
            let wanted = urls.find(|(_, path)| (*path == "metrics") == of_metrics);
            if let Some((address, _)) = wanted {
                return address.parse().unwrap();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < PATIENCE, "the tracker does not serve:\n{log}");
            pause(Duration::from_millis(10));
        }
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Descriptors and memory at this moment.
    pub(crate) fn figures(&self) -> Figures {
        let process = format!("/proc/{}", self.child.id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        Figures {
            descriptors: std::fs::read_dir(format!("{process}/fd")).unwrap().count(),
            memory: memory.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }

    /// All counters and gauges of the service, by name and labels.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let value: f64 = value.parse().ok()?;
            Some((name.to_owned(), value as u64))
        });
        values.collect()
    }

    /// How many connections it has, upgraded or not.
    pub(crate) fn connections(&self) -> u64 {
        let counters = self.counters();
        let gauges = counters.iter().filter(|(name, _)| name.starts_with("aquatic_connections{"));
        gauges.map(|(_, open)| open).sum()
    }

    /// Waits until it has no more connections than these.
    pub(crate) fn until_connections(&self, most: u64, limit: Duration) {
        let begin = now();
        loop {
            let open = self.connections();
            if open <= most {
                return;
            }
            assert!(begin.elapsed() < limit, "{open} connections are left after {limit:?}, not {most}");
            pause(Duration::from_millis(20));
        }
    }

    /// Asks it to stop and waits for the end.
    pub(crate) fn stop(mut self) -> (ExitStatus, String) {
        let process = self.child.id().to_string();
        Command::new("sh").args(["-c", "kill -s TERM \"$0\"", &process]).status().unwrap();
        let begin = now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < PATIENCE, "the tracker does not stop:\n{}", self.log());
            pause(Duration::from_millis(10));
        };
        (status, self.log())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(clippy::disallowed_methods, reason = "the tests look at the tracker from outside its time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "the tests run in no executor")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}
