//! Metrics endpoint: `/metrics` and `/health` over HTTP, on a thread of its own. It serves a few scrapers in
//! a trusted network; connections, their duration and their requests are bounded.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::config::MetricsConfig;
use aquatic_http_protocol::{Framing, Head, Parsed, PlainReply, Refusal, Status};
use aquatic_metrics::exposition::Format;
use aquatic_metrics::{ProcessFigures, Registry, names};
use aquatic_net::listen::BindError;
use aquatic_runtime::clock::Epoch;
use aquatic_runtime::{Engine, Health, ListenAddress, ListenSockets, PassedSockets};

/// Maximum number of connections served at the same time; each has a thread. Further ones are closed at once,
/// and counted.
const MAX_CONNECTIONS: usize = 8;

/// Longest time from accepting a connection to closing it.
const DEADLINE: Duration = Duration::from_secs(5);

/// Maximum length of a request's head in bytes.
const MAX_HEAD: usize = 8 * 1024;

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
    let listener = bind(config.address, engine.listeners())
        .map_err(BindError::classified)
        .context("metrics endpoint")?;
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

/// Returns a socket that was passed to the process, or a new one, and keeps a duplicate to be passed on.
fn bind(address: SocketAddr, sockets: &mut ListenSockets) -> Result<TcpListener, BindError> {
    let explain = |error: io::Error| BindError::new("TCP", address, &error);
    let passed = match sockets.take(&ListenAddress::Stream(address)) {
        PassedSockets::None => None,
        PassedSockets::Shared(fd) => Some(fd),
        PassedSockets::PerCore(fds) => fds.into_iter().next(),
    };
    let listener = passed.map_or_else(|| TcpListener::bind(address), |fd| Ok(fd.into())).map_err(explain)?;
    let bound = listener.local_addr().map_err(explain)?;
    listener.set_nonblocking(false).map_err(explain)?;
    sockets.keep(ListenAddress::Stream(bound), 0, &listener).map_err(explain)?;
    Ok(listener)
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
        if let Some(response) = respond(&head, sources) {
            break response;
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
    stream.write_all(&response)?;
    stream.shutdown(Shutdown::Write)
}

/// Response to a request; `None` while its head is incomplete.
fn respond(received: &[u8], sources: &MetricsSources) -> Option<Vec<u8>> {
    match Head::parse(received, MAX_HEAD) {
        Parsed::NeedMore => None,
        Parsed::Complete(head) => {
            let framing = head.framing.closing();
            Some(match head.path {
                b"/metrics" => metrics(Format::negotiate(head.headers.get("Accept")), framing, sources),
                b"/health" => health(framing, sources),
                _ => encode(
                    &PlainReply::text(Status::NotFound, "not found; try /metrics or /health\n"),
                    framing,
                ),
            })
        }
        Parsed::Refused(refused) => Some(match refused.refusal {
            Refusal::Http(fault) => encode(&fault.reply(), refused.framing.closing()),
            Refusal::Tracker(fault) => encode(
                &PlainReply::text(Status::BadRequest, fault.reason().as_str()),
                refused.framing.closing(),
            ),
        }),
    }
}

fn metrics(format: Format, framing: Framing, sources: &MetricsSources) -> Vec<u8> {
    let mut samples = sources.registry.samples();
    samples.extend(sources.process.samples());
    let body = format.render(&samples, &sources.registry.histograms());
    let reply = PlainReply {
        status: Status::Ok,
        content_type: format.content_type(),
        headers: &[("Vary", "Accept")],
        body: body.as_bytes(),
    };
    encode(&reply, framing)
}

fn health(framing: Framing, sources: &MetricsSources) -> Vec<u8> {
    match sources.health.first_stalled() {
        None => encode(&PlainReply::HEALTHY, framing),
        Some((core, still)) => {
            let text = format!("core {core} has not responded for {} s\n", still.as_secs());
            encode(&PlainReply::text(Status::Unavailable, &text), framing)
        }
    }
}

fn encode(reply: &PlainReply<'_>, framing: Framing) -> Vec<u8> {
    let mut bytes = vec![0; reply.length(framing)];
    // The buffer is as long as the reply.
    let written = reply.encode(framing, &mut bytes).unwrap_or_default();
    bytes.truncate(written);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> MetricsSources {
        let epoch = Epoch::start();
        let registry = Registry::default();
        registry.core(0).counter(&names::REQUESTS, &[]).add(5);
        MetricsSources { registry, process: ProcessFigures::new(1, 0), health: Health::new(1, epoch), epoch }
    }

    fn response(request: &str) -> Option<String> {
        respond(request.as_bytes(), &sources()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn requests_are_parsed_in_pieces() {
        let request = "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 0..request.len() {
            assert_eq!(response(&request[..cut]), None);
        }
        let reply = response(request).unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
        assert!(reply.starts_with(head) && reply.contains("\r\nConnection: close\r\n"), "{reply}");
        assert!(reply.contains("\naquatic_requests_total 5\n"), "{reply}");
    }

    #[test]
    fn openmetrics_is_served_on_request_and_head_without_body() {
        let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n\r\n";
        let reply = response(&format!("GET /metrics HTTP/1.1\r\n{accept}")).unwrap();
        assert!(reply.contains("\r\nContent-Type: application/openmetrics-text;"), "{reply}");
        assert!(reply.ends_with("\n# EOF\n"), "{reply}");
        let reply = response("HEAD /metrics HTTP/1.1\r\n\r\n").unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("\r\n\r\n"), "{reply}");
    }

    #[test]
    fn other_requests_are_refused() {
        let endless = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MAX_HEAD));
        for (request, status) in [
            ("POST / HTTP/1.1\r\n\r\n", "405 "),
            ("GET /else HTTP/1.1\r\n\r\n", "404 "),
            ("\x16\x03\x01\r\n", "400 "),
            (&endless, "431 "),
        ] {
            let reply = response(request).unwrap();
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{reply}");
        }
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
