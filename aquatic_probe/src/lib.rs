//! Client of any BitTorrent tracker that goes through what clients and list sites do, and says what they
//! would think of it.
//!
//! A probe is two peers of a torrent that nobody else knows: a seeder that announces as a list site does, and
//! a leecher that announces as a client does and has to be told of the seeder. In the end both stop. What is
//! observed becomes [`Facts`]; [`verdicts`] about them are pure.
//!
//! Trackers are not trusted: what is read is bounded in size and time, and what is printed has no control
//! characters. Blocking sockets and one exchange at a time: latencies are then those of the tracker alone.
//!
//! [`https`] is what remains of it for servers that are no trackers.
//!
//! Out of scope: load, which the load tests make, and this machine, which `aquatic_doctor` examines.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod clock;
mod facts;
mod http;
pub mod https;
mod identity;
pub mod response;
mod target;
mod tls;
mod transport;
mod udp;
pub mod verdicts;
mod websocket;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aquatic_cli_helpers::report::{Row, Verdict};
use aquatic_common::{Family, InfoHash};
use serde_json::{Value, json};

pub use facts::{Counts, Facts, Latency};
pub use target::{ParseTargetError, Scheme, Target};

/// How to probe.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Longest wait for a reply, a connection or a name.
    pub timeout: Duration,
    /// Number of exchanges that latencies are taken from.
    pub exchanges: usize,
    /// Address family to use; both if `None`.
    pub family: Option<Family>,
    /// Torrent to announce; a random one that nobody else knows if `None`. Trackers with a list of allowed
    /// torrents serve no others.
    pub info_hash: Option<InfoHash>,
    /// Whether to go on although the certificate is not trusted.
    pub insecure: bool,
}

/// What was found out about a tracker.
#[derive(Debug)]
pub struct Probed {
    /// Rows of the report.
    pub rows: Vec<Row>,
    /// Figures for the JSON form, one object per address.
    pub figures: Vec<Value>,
}

/// Rows of one exchange, below its heading.
#[derive(Debug)]
pub(crate) struct Rows {
    group: String,
    rows: Vec<Row>,
}

impl Rows {
    fn new(group: String) -> Self {
        Self { group, rows: Vec::new() }
    }

    pub(crate) fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.push(check, Verdict::Ok, text);
    }

    pub(crate) fn advice(&mut self, check: &'static str, text: impl Into<String>) {
        self.push(check, Verdict::Advice, text);
    }

    pub(crate) fn fault(&mut self, check: &'static str, text: impl Into<String>) {
        self.push(check, Verdict::Fault, text);
    }

    fn push(&mut self, check: &'static str, verdict: Verdict, text: impl Into<String>) {
        self.rows.push(Row::new(self.group.clone(), check, verdict, text));
    }
}

/// Step of an exchange that failed, and how.
#[derive(Debug)]
pub(crate) struct Failed {
    check: &'static str,
    verdict: Verdict,
    text: String,
}

impl Failed {
    pub(crate) fn new(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fault, text: text.into() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Probes a tracker over each address family that its host has.
#[must_use]
pub fn probe(target: &Target, options: &Options) -> Probed {
    let mut probed = Probed { rows: Vec::new(), figures: Vec::new() };
    let mut rows = Rows::new(target.to_string());
    let addresses = match resolve(target, options.timeout) {
        Ok(addresses) => addresses,
        Err(error) => {
            rows.fault("name", error);
            probed.rows = rows.rows;
            return probed;
        }
    };
    let families = Family::ALL.into_iter().filter(|family| options.family.is_none_or(|only| only == *family));
    let chosen: Vec<SocketAddr> = families
        .filter_map(|family| addresses.iter().copied().find(|address| Family::of(address.ip()) == family))
        .collect();
    names(target, &addresses, options, &mut rows);
    if chosen.is_empty() {
        rows.fault("name", format!("{} has no address of the family", target.host));
    }
    probed.rows = rows.rows;
    let mut has_route = chosen.is_empty();
    for address in chosen {
        let mut rows = Rows::new(format!("{target} at {}", address.ip()));
        let facts = exchange(target, address, options, &mut rows);
        has_route |= !rows.rows.iter().all(|row| row.check == "connect" && row.verdict == Verdict::Advice);
        verdicts::verdicts(target, &facts, &mut |check, verdict, text| rows.push(check, verdict, text));
        probed.figures.push(figures(target, address, &facts));
        probed.rows.append(&mut rows.rows);
    }
    if !has_route {
        let mut rows = Rows::new(target.to_string());
        rows.fault("connect", "nothing was probed: this machine has no route to any of its addresses");
        probed.rows.append(&mut rows.rows);
    }
    probed
}

/// Says what a host's addresses mean for its clients.
fn names(target: &Target, addresses: &[SocketAddr], options: &Options, rows: &mut Rows) {
    if target.host.parse::<IpAddr>().is_ok() || options.family.is_some() {
        return;
    }
    let ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    if addresses.iter().any(SocketAddr::is_ipv6) {
        rows.ok("name", format!("{} is {}", target.host, ips.join(", ")));
    } else {
        rows.advice(
            "name",
            format!("{} is {}; without IPv6, which a fifth of clients use", target.host, ips.join(", ")),
        );
    }
}

fn exchange(target: &Target, address: SocketAddr, options: &Options, rows: &mut Rows) -> Facts {
    let mut facts = Facts::default();
    let result = match target.scheme {
        Scheme::Udp => udp::exchange(address, options, &mut facts, rows),
        Scheme::Http | Scheme::Https => http::exchange(target, address, options, &mut facts, rows),
        Scheme::Ws | Scheme::Wss => websocket::exchange(target, address, options, &mut facts, rows),
    };
    if let Err(Failed { check, verdict, text }) = result {
        facts.failed = true;
        rows.push(check, verdict, text);
    }
    if let Some(latency) = Latency::of(&facts.latencies) {
        rows.ok("latency", latency.to_string());
    }
    facts
}

/// Addresses of the host, found within the timeout. The look-up itself cannot be stopped; its thread ends
/// with it, or with the program.
fn resolve(target: &Target, timeout: Duration) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = (target.host.clone(), target.port);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        let _ = sender.send(found);
    });
    match receiver.recv_timeout(timeout) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => Err(format!("{} has no address", target.host)),
        Ok(Err(error)) => Err(format!("{} cannot be resolved: {error}", target.host)),
        Err(_) => Err(format!("{} was not resolved within {} s", target.host, timeout.as_secs())),
    }
}

fn figures(target: &Target, address: SocketAddr, facts: &Facts) -> Value {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let latency = Latency::of(&facts.latencies).map(|latency| {
        json!({
            "min": milliseconds(latency.min), "median": milliseconds(latency.median),
            "max": milliseconds(latency.max), "exchanges": facts.latencies.len(),
        })
    });
    json!({
        "url": target.to_string(), "address": address.to_string(), "works": facts.works(),
        "latency_ms": latency, "connect_ms": facts.connected.map(milliseconds),
        "interval": facts.interval, "min_interval": facts.min_interval,
        "second_peer": facts.handed_out, "stopped_gone": facts.gone, "scrape": facts.scrapes,
        "certificate_trusted": facts.trusted,
    })
}
