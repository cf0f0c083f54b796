//! The metrics endpoint: `/metrics` and `/health` over HTTP, on a thread of its own. Meant for one or a few scrapers in
//! a trusted network; bounds keep everyone else from doing harm.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::config::MetricsConfig;
use aquatic_metrics::exposition::{self, CONTENT_TYPE};
use aquatic_metrics::{ProcessFigures, Registry, names};
use aquatic_net::listen::BindError;
use aquatic_runtime::clock::Epoch;
use aquatic_runtime::{Engine, Health};

/// Most connections served at the same time; each has a thread. More are closed at once, and counted.
const MAX_CONNECTIONS: usize = 8;

/// Longest time from accepting a connection to closing it.
const DEADLINE: Duration = Duration::from_secs(5);

/// Longest request head.
const MAX_HEAD: usize = 8 * 1024;

/// Most header fields of a request.
const MAX_HEADERS: usize = 64;

/// Pause after an accept that failed, for example because too many files are open.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// What the endpoint shows.
struct MetricsSources {
    registry: Registry,
    process: ProcessFigures,
    health: Health,
    epoch: Epoch,
}

/// Binds the endpoint, if it is configured, and has the engine run it.
///
/// # Errors
/// The address cannot be bound.
pub fn open(config: &MetricsConfig, engine: &mut Engine) -> anyhow::Result<()> {
    if !config.enable {
        return Ok(());
    }
    let listener = bind(config.address).context("metrics endpoint")?;
    let sources = MetricsSources {
        registry: engine.registry().clone(),
        process: engine.process_figures(),
        health: engine.health(),
        epoch: engine.epoch(),
    };
    log::info!("metrics: http://{}/metrics", listener.local_addr().unwrap_or(config.address));
    engine.add_side_thread("aquatic-metrics", move || serve(&listener, sources));
    Ok(())
}

fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).map_err(|error| BindError::new("TCP", address, &error))
}

/// Serves for as long as the process runs.
fn serve(listener: &TcpListener, sources: MetricsSources) -> ! {
    let unserved = sources.registry.main_thread().counter(&names::METRICS_UNSERVED, &[]);
    let sources = Arc::new(sources);
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                if !accept(stream, &sources, &connections) {
                    unserved.add(1);
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                log::debug!("metrics endpoint: cannot accept a connection: {error}");
                unserved.add(1);
                pause();
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the thread of the metrics endpoint has nothing else to do")]
fn pause() {
    thread::sleep(PAUSE_AFTER_ERROR);
}

/// Counts a connection while it exists.
struct ConnectionPermit(Arc<AtomicUsize>);

impl ConnectionPermit {
    fn acquire(connections: &Arc<AtomicUsize>) -> Option<Self> {
        let permit = Self(Arc::clone(connections));
        (connections.fetch_add(1, Ordering::Relaxed) < MAX_CONNECTIONS).then_some(permit)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection on a thread of its own. Returns whether there was room for it.
fn accept(stream: TcpStream, sources: &Arc<MetricsSources>, connections: &Arc<AtomicUsize>) -> bool {
    let Some(permit) = ConnectionPermit::acquire(connections) else { return false };
    let sources = Arc::clone(sources);
    let started = thread::Builder::new().name("aquatic-metrics-connection".to_owned()).spawn(move || {
        if let Err(error) = serve_connection(stream, &sources) {
            log::debug!("metrics endpoint: {error}");
        }
        drop(permit);
    });
    if let Err(error) = &started {
        log::debug!("metrics endpoint: cannot start a thread: {error}");
    }
    started.is_ok()
}

fn serve_connection(mut stream: TcpStream, sources: &MetricsSources) -> io::Result<()> {
    let deadline = sources.epoch.elapsed() + DEADLINE;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut head = Vec::with_capacity(1024);
    let response = loop {
        match parse(&head) {
            Parsed::Complete(request) => break request.answer(sources),
            Parsed::Refused(status) => break Response::text(status, ""),
            Parsed::NeedMore => {}
        }
        let left = deadline.saturating_sub(sources.epoch.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        let mut bytes = [0; 1024];
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            len => head.extend_from_slice(bytes.get(..len).unwrap_or_default()),
        }
    };
    stream.write_all(&response.encode())?;
    stream.shutdown(Shutdown::Write)
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    head_only: bool,
    path: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    NeedMore,
    Complete(Request),
    Refused(&'static str),
}

fn parse(head: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) if head.len() < MAX_HEAD => Parsed::NeedMore,
        Ok(httparse::Status::Partial) => Parsed::Refused("431 Request Header Fields Too Large"),
        Err(_) => Parsed::Refused("400 Bad Request"),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or("/");
            let path = path.split_once('?').map_or(path, |(path, _)| path).to_owned();
            match request.method {
                Some("GET") => Parsed::Complete(Request { head_only: false, path }),
                Some("HEAD") => Parsed::Complete(Request { head_only: true, path }),
                _ => Parsed::Refused("405 Method Not Allowed"),
            }
        }
    }
}

impl Request {
    fn answer(&self, sources: &MetricsSources) -> Response {
        let response = match self.path.as_str() {
            "/metrics" => metrics(sources),
            "/health" => health(sources),
            _ => Response::text("404 Not Found", "There is /metrics and /health.\n"),
        };
        Response { head_only: self.head_only, ..response }
    }
}

fn metrics(sources: &MetricsSources) -> Response {
    let mut samples = sources.registry.samples();
    samples.extend(sources.process.samples(sources.epoch.elapsed()));
    match exposition::render(samples) {
        Ok(body) => Response { status: "200 OK", content_type: CONTENT_TYPE, body, head_only: false },
        Err(error) => Response::text("500 Internal Server Error", &error.to_string()),
    }
}

fn health(sources: &MetricsSources) -> Response {
    match sources.health.first_stalled() {
        None => Response::text("200 OK", "ok\n"),
        Some((core, still)) => Response::text(
            "503 Service Unavailable",
            &format!("core {core} has not responded for {} s\n", still.as_secs()),
        ),
    }
}

struct Response {
    status: &'static str,
    content_type: &'static str,
    body: String,
    head_only: bool,
}

impl Response {
    fn text(status: &'static str, body: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.to_owned(), head_only: false }
    }

    fn encode(&self) -> Vec<u8> {
        let Self { status, content_type, body, head_only } = self;
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )
        .into_bytes();
        if !head_only {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_parsed_in_pieces() {
        let request = b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 0..request.len() {
            assert_eq!(parse(&request[..cut]), Parsed::NeedMore);
        }
        assert_eq!(
            parse(request),
            Parsed::Complete(Request { head_only: false, path: "/metrics".to_owned() })
        );
    }

    #[test]
    fn what_is_no_request_for_metrics_is_refused() {
        assert_eq!(parse(b"POST / HTTP/1.1\r\n\r\n"), Parsed::Refused("405 Method Not Allowed"));
        assert_eq!(parse(b"\x16\x03\x01\r\n"), Parsed::Refused("400 Bad Request"));
        let endless = [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; MAX_HEAD]].concat();
        assert_eq!(parse(&endless), Parsed::Refused("431 Request Header Fields Too Large"));
    }

    #[test]
    fn connections_are_limited_and_permits_given_back() {
        let connections = Arc::new(AtomicUsize::new(0));
        let mut permits: Vec<_> =
            (0..MAX_CONNECTIONS).map(|_| ConnectionPermit::acquire(&connections).unwrap()).collect();
        assert!(ConnectionPermit::acquire(&connections).is_none());
        permits.pop();
        assert!(ConnectionPermit::acquire(&connections).is_some());
        drop(permits);
        assert_eq!(connections.load(Ordering::Relaxed), 0);
    }
}
