//! Exchange over HTTP (BEP 3, 7, 23, 24, 48).

use std::io::Write;
use std::net::SocketAddr;

use aquatic_common::{AddressKind, AnnounceEvent};
use aquatic_http_protocol::{
    AnnounceFields, AnnounceView, ClientHeaders, Reply, encode_scrape_request, is_canonical,
};

use crate::clock::Stopwatch;
use crate::facts::{Counts, milliseconds};
use crate::identity::{Peer, Swarm};
use crate::response::{self, Response};
use crate::target::Target;
use crate::transport::Connection;
use crate::udp::shorten;
use crate::{Facts, Failed, Options, Rows, verdicts};

/// Largest request that is sent, without the path.
const REQUEST: usize = 2048;

/// User agents of newTrackon and of a client.
const LIST_SITE: &str = "qBittorrent/4.3.9";
const CLIENT: &str = concat!("aquatic-probe/", env!("CARGO_PKG_VERSION"), " libtorrent/2.0");

/// Fronts of the requests that the codec writes, which are replaced by the path of the URL.
const ANNOUNCE: &[u8] = b"GET /announce?";
const SCRAPE: &[u8] = b"GET /scrape?";

/// Parameter of the compact form, as the codec writes it.
const COMPACT: &[u8] = b"&compact=1";

/// Reply to an announce.
struct Announced {
    interval: u32,
    min_interval: Option<u32>,
    counts: Counts,
    peers: Vec<SocketAddr>,
    has_external_ip: bool,
    /// Whether the peers came as a list of dictionaries.
    is_list: bool,
}

/// A peer that talks to the tracker.
struct Client<'a> {
    target: &'a Target,
    address: SocketAddr,
    options: &'a Options,
    user_agent: &'a str,
    /// Whether to use a connection again.
    keep_alive: bool,
    connection: Option<Connection>,
    /// Connections that were to be kept open and were not.
    closed: u32,
}

impl Client<'_> {
    /// Sends a request and receives its response.
    fn ask(&mut self, check: &'static str, request: &[u8], facts: &mut Facts) -> Result<Response, Failed> {
        let exchange = |mut connection: Connection| {
            connection.extend(self.options.timeout);
            connection.write_all(request).and_then(|()| connection.flush())?;
            response::receive(&mut connection, response::BodyOf::Reply).map(|response| (connection, response))
        };
        // The tracker may have closed a connection that was kept open; clients then open another one.
        let was_kept = self.connection.is_some();
        let kept = self.connection.take().and_then(|kept| exchange(kept).ok());
        self.closed += u32::from(was_kept && kept.is_none());
        let (connection, response) = match kept {
            Some(done) => done,
            None => {
                let new = Connection::open(self.target, self.address, self.options, facts, None)?;
                exchange(new).map_err(|error| Failed::new(check, error.to_string()))?
            }
        };
        self.connection = (self.keep_alive && response.keep_alive).then_some(connection);
        Ok(response)
    }

    fn announce(
        &mut self,
        check: &'static str,
        (swarm, peer): (&Swarm, &Peer),
        event: AnnounceEvent,
        facts: &mut Facts,
    ) -> Result<Announced, Failed> {
        let request = self.request((swarm, peer), event)?;
        let response = self.ask(check, &request, facts)?;
        // The worst of all.
        facts.status = facts.status.filter(|&status| status != 200).or(Some(response.status));
        if let Some(location) = response.location {
            let text = format!(
                "redirects to {}; list sites and some clients do not follow",
                shorten(location.as_bytes())
            );
            return Err(Failed::new(check, text));
        }
        let canonical = is_canonical(&response.body).unwrap_or(false);
        facts.canonical = Some(facts.canonical.unwrap_or(true) && canonical);
        match Reply::parse(&response.body) {
            Ok(Reply::Announce(view)) => Ok(read(&view)),
            Ok(Reply::Failure(failure)) => {
                Err(Failed::new(check, format!("refused: {}", shorten(failure.reason))))
            }
            Ok(Reply::Scrape(_)) => Err(Failed::new(check, "a scrape reply came")),
            Err(error) => {
                let text = format!(
                    "status {}, and no reply of a tracker ({error}): {}",
                    response.status,
                    shorten(&response.body)
                );
                Err(Failed::new(check, text))
            }
        }
    }

    fn headers<'h>(&'h self, host: &'h str) -> ClientHeaders<'h> {
        ClientHeaders { host, user_agent: self.user_agent, keep_alive: self.keep_alive }
    }

    fn request(&self, (swarm, peer): (&Swarm, &Peer), event: AnnounceEvent) -> Result<Vec<u8>, Failed> {
        let fields = AnnounceFields {
            info_hash: swarm.info_hash,
            peer_id: peer.peer_id,
            port: peer.port,
            uploaded: 0,
            downloaded: 0,
            left: peer.left,
            event,
            key: peer.key,
            numwant: None,
        };
        let host = self.target.authority();
        let mut buffer = vec![0; REQUEST + host.len()];
        let length = fields.encode(&self.headers(&host), &mut buffer);
        let length = length.map_err(|error| Failed::new("announce", error.to_string()))?;
        Ok(with_path(buffer.get(..length).unwrap_or_default(), ANNOUNCE, &self.target.path))
    }

    fn scrape_request(&self, swarm: &Swarm, path: &str) -> Result<Vec<u8>, Failed> {
        let host = self.target.authority();
        let mut buffer = vec![0; REQUEST + host.len()];
        let length = encode_scrape_request(&self.headers(&host), &[swarm.info_hash], &mut buffer);
        let length = length.map_err(|error| Failed::new("scrape", error.to_string()))?;
        Ok(with_path(buffer.get(..length).unwrap_or_default(), SCRAPE, path))
    }
}

/// A request for another path, which may have a query of its own.
fn with_path(request: &[u8], front: &[u8], path: &str) -> Vec<u8> {
    let rest = request.strip_prefix(front).unwrap_or(request);
    let sign: &[u8] = if path.contains('?') { b"&" } else { b"?" };
    [b"GET ", path.as_bytes(), sign, rest].concat()
}

fn read(view: &AnnounceView<'_>) -> Announced {
    let v4 = view.peers_v4().map(SocketAddr::from);
    let listed = view.listed.into_iter().flat_map(|listed| listed.addresses());
    Announced {
        interval: view.interval,
        min_interval: view.min_interval,
        counts: Counts { complete: view.complete.unwrap_or(0), incomplete: view.incomplete.unwrap_or(0) },
        peers: v4.chain(view.peers_v6().map(SocketAddr::from)).chain(listed).collect(),
        is_list: view.listed.is_some(),
        has_external_ip: view.external_ip.is_some(),
    }
}

/// Goes through the exchange. What has announced stops in the end, whatever happens.
pub(crate) fn exchange(
    target: &Target,
    address: SocketAddr,
    options: &Options,
    facts: &mut Facts,
    rows: &mut Rows,
) -> Result<(), Failed> {
    let swarm = Swarm::new(&mut rand::rng(), options.info_hash);
    let connection = Connection::open(target, address, options, facts, Some(rows))?;
    rows.ok("connect", format!("after {}", milliseconds(facts.connected.unwrap_or_default())));
    let user_agent = LIST_SITE;
    let mut seeder = Client {
        target,
        address,
        options,
        user_agent,
        keep_alive: false,
        connection: Some(connection),
        closed: 0,
    };
    let announced = seeder.announce("announce", (&swarm, &swarm.seeder), AnnounceEvent::Started, facts)?;
    facts.interval = Some(announced.interval);
    facts.min_interval = announced.min_interval;
    let minimum = announced.min_interval.map(|min| format!(", at least {min} s")).unwrap_or_default();
    rows.ok("announce", format!("{}; interval {} s{minimum}", announced.counts, announced.interval));
    if announced.is_list {
        let text = "peers come as a list of dictionaries, although clients ask for the compact form (BEP 23): replies \
                    are several times as long";
        rows.advice("compact", text);
    }
    let mut leecher = Client {
        target,
        address,
        options,
        user_agent: CLIENT,
        keep_alive: true,
        connection: None,
        closed: 0,
    };
    let result = second_peer(&mut leecher, &swarm, facts, rows);
    let stopped = seeder.announce("stopped", (&swarm, &swarm.seeder), AnnounceEvent::Stopped, facts);
    let who = (&swarm, &swarm.leecher);
    let after = result.and_then(|()| leecher.announce("stopped", who, AnnounceEvent::None, facts));
    let last = leecher.announce("stopped", who, AnnounceEvent::Stopped, facts);
    let after = after?;
    let is_listed = after.peers.iter().any(|peer| peer.port() == swarm.seeder.port);
    let is_gone = after.counts.complete == 0 && !is_listed;
    facts.gone = Some(is_gone);
    verdicts::stopped(is_gone, rows);
    stopped?;
    last.map(|_| ())
}

/// What the second peer sees while the first one is there.
fn second_peer(
    leecher: &mut Client<'_>,
    swarm: &Swarm,
    facts: &mut Facts,
    rows: &mut Rows,
) -> Result<(), Failed> {
    let who = (swarm, &swarm.leecher);
    let announced = leecher.announce("announce", who, AnnounceEvent::Started, facts)?;
    let found = announced.peers.iter().find(|found| found.port() == swarm.seeder.port).copied();
    facts.handed_out = Some(found.is_some());
    verdicts::second_peer(found, leecher.address, announced.counts, rows);
    let through_proxy = found.is_some_and(|found| AddressKind::of(found.ip()) == AddressKind::Local)
        && AddressKind::of(leecher.address.ip()) == AddressKind::Public;
    if through_proxy {
        let text = "it takes a private address for that of this client: a proxy in front of it does not name its clients";
        rows.fault("client_address", text);
    }
    let is_kept = leecher.connection.is_some();
    for _ in 0..leecher.options.exchanges {
        let watch = Stopwatch::start();
        leecher.announce("announce", who, AnnounceEvent::None, facts)?;
        facts.latencies.push(watch.elapsed());
    }
    facts.answers_all = Some(true);
    if is_kept && leecher.closed > 0 {
        let text = "connections are closed after a reply that promises to keep them open";
        rows.advice("keep_alive", text);
    } else if is_kept {
        rows.ok("keep_alive", "connections are kept open");
    } else {
        let cost = if leecher.target.scheme.is_tls() { ", and a TLS handshake" } else { "" };
        rows.advice("keep_alive", format!("each request takes a connection of its own{cost}"));
    }
    if announced.has_external_ip {
        rows.ok("external_ip", "clients are told their address (BEP 24)");
    }
    other_form(leecher, swarm, facts, rows)?;
    without_info_hash(leecher, facts, rows)?;
    scrape(leecher, swarm, announced.counts, facts, rows)
}

/// What the tracker makes of `compact=0`: lists of dictionaries, the compact form all the same, or a refusal
/// are all understood by clients.
fn other_form(
    leecher: &mut Client<'_>,
    swarm: &Swarm,
    facts: &mut Facts,
    rows: &mut Rows,
) -> Result<(), Failed> {
    const CHECK: &str = "compact_0";
    let request = leecher.request((swarm, &swarm.leecher), AnnounceEvent::None)?;
    let Some(at) = request.windows(COMPACT.len()).position(|window| window == COMPACT) else { return Ok(()) };
    let mut request = request;
    if let Some(digit) = request.get_mut(at + COMPACT.len() - 1) {
        *digit = b'0';
    }
    let response = leecher.ask(CHECK, &request, facts)?;
    match Reply::parse(&response.body) {
        Ok(Reply::Announce(AnnounceView { listed: Some(_), .. })) => {
            rows.ok(CHECK, "answered as a list of dictionaries");
        }
        Ok(Reply::Announce(_)) => rows.ok(CHECK, "answered in compact form"),
        Ok(Reply::Failure(failure)) => rows.ok(CHECK, format!("refused: {}", shorten(failure.reason))),
        Ok(Reply::Scrape(_)) | Err(_) => {
            rows.advice(CHECK, format!("status {}: {}", response.status, shorten(&response.body)));
        }
    }
    Ok(())
}

/// What the tracker makes of an announce that it cannot serve.
fn without_info_hash(leecher: &mut Client<'_>, facts: &mut Facts, rows: &mut Rows) -> Result<(), Failed> {
    const CHECK: &str = "failure";
    let Target { path, .. } = leecher.target;
    let host = leecher.target.authority();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {CLIENT}\r\nConnection: keep-alive\r\n\r\n"
    );
    let response = leecher.ask(CHECK, request.as_bytes(), facts)?;
    facts.failure_status = Some(response.status);
    match Reply::parse(&response.body) {
        Ok(Reply::Failure(failure)) if response.status == 200 => {
            rows.ok(CHECK, format!("a bad request gets a reason: {}", shorten(failure.reason)));
        }
        Ok(Reply::Failure(failure)) => {
            let text = format!(
                "a bad request gets the status {} with a reason that many clients then do not show: {}",
                response.status,
                shorten(failure.reason)
            );
            rows.advice(CHECK, text);
        }
        Ok(Reply::Announce(_) | Reply::Scrape(_)) | Err(_) => {
            rows.advice(CHECK, format!("a bad request gets the status {} without a reason", response.status));
        }
    }
    Ok(())
}

fn scrape(
    leecher: &mut Client<'_>,
    swarm: &Swarm,
    counts: Counts,
    facts: &mut Facts,
    rows: &mut Rows,
) -> Result<(), Failed> {
    const CHECK: &str = "scrape";
    let Some(path) = leecher.target.scrape_path() else {
        let text = "the path does not end in \"announce\", so clients know no URL for scrapes (BEP 48)";
        rows.advice(CHECK, text);
        return Ok(());
    };
    let request = leecher.scrape_request(swarm, &path)?;
    let response = leecher.ask(CHECK, &request, facts)?;
    match Reply::parse(&response.body) {
        Ok(Reply::Scrape(scrape)) => {
            let file = scrape.files().find(|file| file.info_hash == swarm.info_hash);
            let found = file.map(|file| Counts { complete: file.complete, incomplete: file.incomplete });
            facts.scrapes = Some(found.is_some());
            verdicts::scraped(found, counts, rows);
        }
        Ok(Reply::Failure(failure)) => {
            facts.scrapes = Some(false);
            rows.advice(CHECK, format!("refused: {}", shorten(failure.reason)));
        }
        Ok(Reply::Announce(_)) => {
            facts.scrapes = Some(false);
            rows.advice(CHECK, "the reply is one to an announce");
        }
        Err(error) => {
            facts.scrapes = Some(false);
            let body = shorten(&response.body);
            rows.advice(CHECK, format!("status {}, and no scrape reply ({error}): {body}", response.status));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_url_takes_the_place_of_the_usual_one() {
        let request = b"GET /announce?info_hash=x HTTP/1.1\r\n";
        assert_eq!(with_path(request, ANNOUNCE, "/a"), b"GET /a?info_hash=x HTTP/1.1\r\n");
        assert_eq!(with_path(request, ANNOUNCE, "/a?k=1"), b"GET /a?k=1&info_hash=x HTTP/1.1\r\n");
    }
}
