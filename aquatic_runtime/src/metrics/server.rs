//! The metrics endpoint: `/metrics` and `/health` over HTTP, on a thread of its own. Meant for one or a few scrapers in
//! a trusted network; bounds keep everyone else from doing harm.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::exposition::{self, CONTENT_TYPE};
use super::names;
use super::process::ProcessFigures;
use super::registry::Registry;
use crate::clock::Epoch;
use crate::net::BindError;
use crate::watchdog::Heartbeats;

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
pub(crate) struct Exhibits {
    pub(crate) registry: Registry,
    pub(crate) process: ProcessFigures,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) epoch: Epoch,
}

/// Binds the endpoint.
///
/// # Errors
/// The address cannot be bound.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).map_err(|error| BindError::new("TCP", address, &error))
}

/// Serves for as long as the process runs.
pub(crate) fn serve(listener: &TcpListener, exhibits: Exhibits) -> ! {
    // This thread counts like one more core.
    let unserved = exhibits.registry.core(usize::MAX).counter(&names::METRICS_UNSERVED, &[]);
    let exhibits = Arc::new(exhibits);
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                if !accept(stream, &exhibits, &connections) {
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
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(connections));
        (connections.fetch_add(1, Ordering::Relaxed) < MAX_CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection on a thread of its own. Returns whether there was room for it.
fn accept(stream: TcpStream, exhibits: &Arc<Exhibits>, connections: &Arc<AtomicUsize>) -> bool {
    let Some(place) = Place::take(connections) else { return false };
    let exhibits = Arc::clone(exhibits);
    let started = thread::Builder::new().name("aquatic-metrics-connection".to_owned()).spawn(move || {
        if let Err(error) = converse(stream, &exhibits) {
            log::debug!("metrics endpoint: {error}");
        }
        drop(place);
    });
    if let Err(error) = &started {
        log::debug!("metrics endpoint: cannot start a thread: {error}");
    }
    started.is_ok()
}

fn converse(mut stream: TcpStream, exhibits: &Exhibits) -> io::Result<()> {
    let deadline = exhibits.epoch.elapsed() + DEADLINE;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut head = Vec::with_capacity(1024);
    let response = loop {
        match parse(&head) {
            Parsed::Complete(request) => break request.answer(exhibits),
            Parsed::Refused(status) => break Response::text(status, ""),
            Parsed::NeedMore => {}
        }
        let left = deadline.saturating_sub(exhibits.epoch.elapsed());
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
    fn answer(&self, exhibits: &Exhibits) -> Response {
        let response = match self.path.as_str() {
            "/metrics" => metrics(exhibits),
            "/health" => health(exhibits),
            _ => Response::text("404 Not Found", "There is /metrics and /health.\n"),
        };
        Response { head_only: self.head_only, ..response }
    }
}

fn metrics(exhibits: &Exhibits) -> Response {
    let mut samples = exhibits.registry.samples();
    samples.extend(exhibits.process.samples());
    match exposition::render(samples) {
        Ok(body) => Response { status: "200 OK", content_type: CONTENT_TYPE, body, head_only: false },
        Err(error) => Response::text("500 Internal Server Error", &error.to_string()),
    }
}

fn health(exhibits: &Exhibits) -> Response {
    match exhibits.heartbeats.stalled(exhibits.epoch.elapsed()).first() {
        None => Response::text("200 OK", "ok\n"),
        Some((core, still)) => Response::text(
            "503 Service Unavailable",
            &format!("core {core} has not moved for {} s\n", still.as_secs()),
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
    fn places_are_limited_and_given_back() {
        let connections = Arc::new(AtomicUsize::new(0));
        let mut places: Vec<_> = (0..MAX_CONNECTIONS).map(|_| Place::take(&connections).unwrap()).collect();
        assert!(Place::take(&connections).is_none());
        places.pop();
        assert!(Place::take(&connections).is_some());
        drop(places);
        assert_eq!(connections.load(Ordering::Relaxed), 0);
    }
}
