//! What the tests use to look at the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::child::Child;

/// How long to wait for what happens at once, on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server process and where it listens.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
    metrics: String,
    process: u32,
}

impl Server {
    pub(crate) fn start(environment: &[(&str, &str)]) -> Self {
        let mut child = Child::start("lines", environment);
        let process = child.expect("process ").trim_start_matches("process ").parse().unwrap();
        let address = child.expect("listening on ").trim_start_matches("listening on ").to_owned();
        child.expect("core 0 serves");
        child.expect("core 1 serves");
        let line = child.expect("http://").to_owned();
        let metrics = line.trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
        Self { child, address, metrics, process }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(&self.address)
    }

    /// The value of a metric, 0 if there is none; `line` is all of the line before the number.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let mut stream = connect(&self.metrics);
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    /// Waits until a metric has the value.
    pub(crate) fn until(&self, line: &str, wanted: u64) {
        let begin = now();
        loop {
            let value = self.metric(line);
            if value == wanted {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{line} is {value}, not {wanted}");
            pause(Duration::from_millis(20));
        }
    }

    /// Connections that are open.
    pub(crate) const OPEN: &str = "aquatic_connections{protocol=\"lines\"}";

    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("aquatic_connections_refused_total{{protocol=\"lines\",reason=\"{reason}\"}}"))
    }

    pub(crate) fn evicted(&self, reason: &str) -> u64 {
        self.metric(&format!("aquatic_connections_evicted_total{{protocol=\"lines\",reason=\"{reason}\"}}"))
    }

    pub(crate) fn timeouts(&self, reason: &str) -> u64 {
        self.metric(&format!("aquatic_connection_timeouts_total{{protocol=\"lines\",reason=\"{reason}\"}}"))
    }

    /// Descriptors the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process)).unwrap().count()
    }

    /// Processor time the process has used.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process)).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// Stops the server and expects a clean end.
    pub(crate) fn stop(self) {
        self.child.signal(rustix::process::Signal::TERM);
        let ended = self.child.wait(PATIENCE);
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        assert!(!ended.output.contains("did not finish"), "{}", ended.output);
    }
}

pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Connects from an IPv4 address of this machine.
pub(crate) fn connect_from(source: &str, to: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let source: std::net::SocketAddr = format!("{source}:0").parse().unwrap();
    socket.bind(&source.into()).unwrap();
    let to: std::net::SocketAddr = to.parse().unwrap();
    socket.connect(&to.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a line and reads one; `None` if the connection ends before one has come.
pub(crate) fn ask(stream: &mut (impl Read + Write), line: &str) -> Option<String> {
    stream.write_all(format!("{line}\n").as_bytes()).ok()?;
    read_line(stream)
}

pub(crate) fn read_line(stream: &mut impl Read) -> Option<String> {
    let mut line = String::new();
    // Without reading ahead: the stream is used again.
    match BufReader::with_capacity(1, stream).read_line(&mut line) {
        Ok(1..) => Some(line.trim_end().to_owned()),
        Ok(0) | Err(_) => None,
    }
}

/// The core that answers.
pub(crate) fn core_of(stream: &mut (impl Read + Write)) -> Option<usize> {
    ask(stream, "who")?.split(' ').next()?.parse().ok()
}

/// Time until the other end closes the connection.
pub(crate) fn time_to_end(stream: &mut impl Read) -> Duration {
    let begin = now();
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    if let Err(error) = end {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    begin.elapsed()
}

/// As [`time_to_end`], for a connection that is not let in: the server looks at connections when something
/// comes by them.
pub(crate) fn time_to_refusal(mut stream: TcpStream) -> Duration {
    stream.write_all(b"let me in\n").unwrap();
    time_to_end(&mut stream)
}

#[allow(clippy::disallowed_methods, reason = "the tests look at the server from outside its time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "the tests run in no executor")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
