//! Accepting connections and running one task for each.
//!
//! Invariants: an accept is a system call that never waits, so nothing accepted is lost when the loop around
//! it ends. A loop does bounded work before it lets others run, and no error makes it spin: while the process
//! lacks descriptors or memory it comes back after a pause only. A connection that cannot be served is closed
//! at once and counted, never left to wait. One task per connection, which starts no other.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::canonical;
use aquatic_common::episodes::EpisodeEvent;
use aquatic_runtime::Core;
use aquatic_runtime::readiness::{Mode, Source};
use rand::RngExt;
use rustix::net::SocketFlags;

use super::balancer::{ConnectionBalancer, ConnectionPermit, Handoff};
use super::bind::{CoreListeners, ListenSocket, ListenerKind};
use super::connection::{Connection, Peer};
use super::counters::{Counters, Protocols, Refused};
use super::deadlines::{DeadlineTable, Deadlines};
use super::handshakes::HandshakeLimits;
use super::preamble::Preamble;
use super::source_gate::{SourceGate, SourceSettings, TcpBreakers};
use super::stream::{AddressCharge, Socket, Stream, charge_address};
use super::tls::Tls;
use crate::proxy::{OnBadHeader, TrustedProxies};

/// Connections accepted before the other tasks of the core run.
const ACCEPTS_PER_YIELD: usize = 64;

/// Times that as many are accepted once the process drains.
const LAST_ROUNDS: usize = 64;

/// Connections evicted before they get the time to close. Until then there are as many too many.
const EVICTIONS_PER_YIELD: u64 = 16;

/// Connections closed at once between two pauses when the process has no descriptor left.
const REJECTED_PER_PAUSE: usize = 16;

/// Pause after an accept has failed for want of descriptors or memory: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// Period of looking whether a stopping core has connections left.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// How a service wants its connections.
#[derive(Clone, Debug)]
pub struct TcpSettings {
    /// Values of the label `protocol` in metrics.
    pub protocols: Protocols,
    /// Maximum number of connections of the process; each core has an even share. Above it the connection
    /// that has waited longest for its client is evicted; without one, the new connection is closed.
    pub max_connections: usize,
    /// Whether connections that wait for a request can be evicted. Not for protocols whose connections are
    /// worth something while they are silent. Those that have not got as far as that always can.
    pub evict_idle_when_full: bool,
    /// Maximum number of connections from one IPv4 address or IPv6 /64 network; 0 for no limit. Above it the
    /// one of them that has waited longest for its client is evicted. Trusted proxies are exempt, but not the
    /// clients they name by the PROXY protocol.
    pub max_connections_per_address: u32,
    /// Limits of what one source may do.
    pub sources: SourceSettings,
    /// Deadlines of everything.
    pub deadlines: Deadlines,
    /// Who may name clients. Connections to a unix socket are always trusted.
    pub trusted_proxies: TrustedProxies,
    /// Whether trusted proxies name their clients by the PROXY protocol, and what happens to a connection of
    /// theirs that begins without it. Connections of others never begin with it.
    pub proxy_protocol: Option<OnBadHeader>,
    /// Certificate and key, for encrypted connections; `None` for plain ones.
    pub tls: Option<Arc<Tls>>,
    /// Number of TLS handshakes a core may have.
    pub handshakes: HandshakeLimits,
    /// Sent to clients that do not begin with a TLS handshake where one is needed, before their connection is
    /// closed.
    pub reply_to_plain: Vec<u8>,
}

/// What the tasks of one core share.
struct Server<H> {
    core: Rc<Core>,
    balancer: &'static ConnectionBalancer,
    deadlines: Rc<DeadlineTable>,
    gate: Rc<SourceGate>,
    preamble: RefCell<Rc<Preamble>>,
    handler: Rc<H>,
    /// Number of listening sockets whose loops have not ended.
    accepting: Cell<usize>,
}

/// Accepts connections on this core and runs `handler` for each, until the process drains: then connections
/// without a request end at once. When the process stops, this returns once the others have ended, too.
///
/// # Errors
/// A listening socket that cannot be waited for.
pub async fn serve_tcp<H, F>(
    core: Rc<Core>,
    listeners: CoreListeners,
    settings: TcpSettings,
    breakers: TcpBreakers,
    handler: H,
) -> anyhow::Result<()>
where
    H: Fn(Connection) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let CoreListeners { balancer, sockets, handoffs, changes } = listeners;
    balancer.limit(settings.max_connections, settings.max_connections_per_address);
    let counters = Counters::new(core.metrics(), settings.protocols);
    let deadlines = DeadlineTable::new(settings.deadlines, settings.evict_idle_when_full, counters);
    let deadlines = Rc::new(deadlines);
    let gate = Rc::new(SourceGate::new(&settings.sources, breakers));
    let server = Rc::new(Server {
        balancer,
        deadlines: Rc::clone(&deadlines),
        preamble: RefCell::new(Rc::new(Preamble::new(&settings, Rc::clone(&gate)))),
        gate,
        handler: Rc::new(handler),
        core: Rc::clone(&core),
        accepting: Cell::new(0),
    });
    server.show_limit(&settings);
    let receiving = Rc::clone(&server);
    handoffs
        .attach(&core, move |handoff| receiving.receive(handoff))
        .context("cannot wait for other cores")?;
    let changing = Rc::clone(&server);
    changes
        .attach(&core, move |settings| changing.reconfigure(&settings))
        .context("cannot wait for changed settings")?;
    for socket in sockets {
        let socket =
            core.readiness().register(socket, Mode::Edge).context("cannot wait for a listening socket")?;
        server.accepting.set(server.accepting.get() + 1);
        core.spawn(accept(Rc::clone(&server), socket));
    }
    let draining = (Rc::clone(&core), Rc::clone(&deadlines));
    core.spawn(async move {
        draining.0.draining().await;
        draining.1.drain();
    });
    let sweeping = async {
        loop {
            core.sleep_to_tick(deadlines.until_sweep(core.tick())).await;
            deadlines.sweep(core.tick());
            server.preamble.borrow().report(&deadlines.counters);
            server.report_overload();
            server.report_rates();
        }
    };
    futures_lite::future::or(sweeping, core.stopping()).await;
    let mut is_leaving = core.drain_time().is_some();
    match core.drain_time() {
        Some(time) => deadlines.end_over(time, || core.rng().random()),
        None => deadlines.stop(),
    }
    // The loops of a process that leaves to another one accept nothing, and do not end.
    while deadlines.len() > 0 || core.is_draining() && server.accepting.get() > 0 {
        core.sleep(DRAIN_INTERVAL).await;
        if is_leaving && core.drain_time().is_none() {
            is_leaving = false;
            deadlines.stop();
        }
        deadlines.sweep(core.tick());
    }
    Ok(())
}

/// One listening socket's loop. It ends, and the socket is closed, when the process drains or stops.
async fn accept<H, F>(server: Rc<Server<H>>, listener: Source<ListenSocket>)
where
    H: Fn(Connection) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let mut pause = PAUSE.0;
    let intake = server.core.intake().join();
    while !server.core.is_draining() {
        if intake.is_closed() {
            futures_lite::future::or(intake.opened(), server.core.draining()).await;
            continue;
        }
        match server.accept_some(&listener) {
            AcceptOutcome::More => {
                pause = PAUSE.0;
                server.core.yield_now().await;
            }
            AcceptOutcome::Drained => {
                pause = PAUSE.0;
                let readable = async { intake.unless_closed(listener.readable()).await.unwrap_or(Ok(())) };
                let waited = futures_lite::future::or(readable, async {
                    server.core.draining().await;
                    Ok(())
                });
                if waited.await.is_err() {
                    server.core.sleep(PAUSE.1).await;
                }
            }
            AcceptOutcome::Exhausted => {
                server.core.sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
    // Clients whose connections wait in the backlog have sent their requests, and would be reset. Unless
    // another process has the same socket.
    let mut rounds = 0;
    while !intake.is_closed() && rounds < LAST_ROUNDS && server.accept_some(&listener) == AcceptOutcome::More
    {
        rounds += 1;
        server.core.yield_now().await;
    }
    server.accepting.set(server.accepting.get() - 1);
}

/// What came of some accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptOutcome {
    /// There may be more connections.
    More,
    /// There are none.
    Drained,
    /// The process or the machine lacks something.
    Exhausted,
}

impl<H, F> Server<H>
where
    H: Fn(Connection) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    /// Applies changed limits, deadlines and proxies; the rest of the settings stays.
    fn reconfigure(&self, settings: &TcpSettings) {
        self.balancer.limit(settings.max_connections, settings.max_connections_per_address);
        self.show_limit(settings);
        self.deadlines.set_limits(settings.deadlines);
        self.gate.set_rules(settings.sources.connections.clone());
        let preamble = self.preamble.borrow().reconfigured(settings);
        self.preamble.replace(Rc::new(preamble));
    }

    /// Shows the maximum number of connections, once for all cores.
    fn show_limit(&self, settings: &TcpSettings) {
        if self.core.index() == 0 {
            self.deadlines.counters.limit.set(settings.max_connections as u64);
        }
    }

    fn accept_some(&self, listener: &Source<ListenSocket>) -> AcceptOutcome {
        let counters = &self.deadlines.counters;
        let evicted = || counters.evicted_connections.get() + counters.evicted_for_address.get();
        let most = evicted() + EVICTIONS_PER_YIELD;
        for _ in 0..ACCEPTS_PER_YIELD {
            if evicted() >= most {
                return AcceptOutcome::More;
            }
            if !self.balancer.reserve().restore() {
                self.deadlines.counters.accept_errors.add(1);
                return self.reject_some(listener);
            }
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let accepted = listener.try_read(|socket| Ok(rustix::net::acceptfrom_with(socket, flags)?));
            match accepted {
                Ok((socket, address)) => {
                    let peer = match address.map(SocketAddr::try_from) {
                        Some(Ok(address)) => Peer::Address(canonical(address)),
                        _ if listener.get_ref().local => Peer::Local,
                        _ => {
                            self.deadlines.counters.refuse(Refused::Broken);
                            continue;
                        }
                    };
                    self.deadlines.counters.accepted.add(1);
                    self.admit(socket, peer, listener.get_ref().kind);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return AcceptOutcome::Drained,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.deadlines.counters.accept_errors.add(1);
                    match classify(&error) {
                        AcceptErrorKind::Connection => {}
                        AcceptErrorKind::Descriptors => return self.reject_some(listener),
                        AcceptErrorKind::System => return AcceptOutcome::Exhausted,
                    }
                }
            }
        }
        AcceptOutcome::More
    }

    /// While there are no descriptors, closes connections at once: their clients learn it soon, and do not
    /// fill the backlog.
    fn reject_some(&self, listener: &Source<ListenSocket>) -> AcceptOutcome {
        let rejected = self.balancer.reserve().refuse(listener.get_ref(), REJECTED_PER_PAUSE);
        (0..rejected).for_each(|_| self.deadlines.counters.refuse(Refused::Descriptors));
        AcceptOutcome::Exhausted
    }

    /// Why a source may not open a connection now.
    fn refuses(&self, peer: Peer) -> Option<Refused> {
        let ip = match peer {
            Peer::Address(address) if !self.preamble.borrow().trusts(peer) => address.ip(),
            Peer::Address(_) | Peer::Local => return None,
        };
        self.gate.refuses(ip, self.core.time(), &self.deadlines.counters)
    }

    /// Logs when more TLS handshakes are asked for than can be computed, and when that is over.
    fn report_overload(&self) {
        let core = self.core.index();
        for (family, event) in self.deadlines.counters.report_overload(self.core.time()) {
            let family = family.name();
            match event {
                EpisodeEvent::Began { count, passed, .. } => log::warn!(
                    "TLS overload of core {core} ({family}): more handshakes are asked for than it can compute; {count} \
                     of clients that ask for little were rejected within {:.1} s",
                    passed.as_secs_f64()
                ),
                EpisodeEvent::Ended { count, lasted } => log::warn!(
                    "TLS overload of core {core} ({family}) has ended after {:.1} s; {count} handshakes of clients that \
                     ask for little were rejected",
                    lasted.as_secs_f64()
                ),
            }
        }
    }

    /// Logs when sources begin to open connections above their limit, and when that is over.
    fn report_rates(&self) {
        if let Some(event) = self.gate.event(self.core.time()) {
            log::warn!("rate limit of TCP connections, core {}: {event}", self.core.index());
        }
        self.deadlines.counters.rate_limiting.set(self.gate.is_limiting().into());
    }

    /// Finds a core for a connection, or closes it.
    fn admit(&self, socket: OwnedFd, peer: Peer, kind: ListenerKind) {
        if let Some(refused) = self.refuses(peer) {
            return self.deadlines.counters.refuse(refused);
        }
        let here = self.core.index();
        let random = self.core.rng().random_range(0..=0xffff);
        let chosen = self.balancer.choose(here, random);
        let permit = self.balancer.acquire(chosen).or_else(|| self.balancer.acquire_any(here));
        let is_full = permit.is_none();
        let mut permit = permit.unwrap_or_else(|| self.balancer.acquire_over_limit(here));
        let charge = self.charge(&mut permit, peer);
        match charge {
            AddressCharge::Within if is_full && !self.deadlines.evict_oldest_waiter() => {
                return self.deadlines.counters.refuse(Refused::Limit);
            }
            // One eviction is enough for both limits.
            AddressCharge::Within | AddressCharge::Evicted => {}
            // The connections of the address may be on other cores. One of those is tried.
            AddressCharge::Refused => match self.balancer.another(here, random) {
                Some(other) => permit.move_to(other),
                None => return self.deadlines.counters.refuse(Refused::Address),
            },
        }
        let needs_eviction = charge == AddressCharge::Refused;
        let handoff = Handoff { socket, peer, kind, permit, needs_eviction };
        if handoff.permit.core() == here {
            return self.open(handoff);
        }
        match self.balancer.hand_off(handoff) {
            Ok(()) => self.deadlines.counters.handed_off.add(1),
            Err(_) if needs_eviction => self.deadlines.counters.refuse(Refused::Address),
            Err(mut handoff) => {
                handoff.permit.move_to(here);
                self.open(handoff);
            }
        }
    }

    /// Takes a connection that another core has accepted.
    fn receive(&self, mut handoff: Handoff) {
        if handoff.needs_eviction && self.charge(&mut handoff.permit, handoff.peer) == AddressCharge::Refused
        {
            return self.deadlines.counters.refuse(Refused::Address);
        }
        self.open(handoff);
    }

    fn charge(&self, permit: &mut ConnectionPermit, peer: Peer) -> AddressCharge {
        match peer {
            Peer::Address(address) if !self.preamble.borrow().trusts(peer) => {
                charge_address(permit, address.ip(), &self.deadlines)
            }
            Peer::Address(_) | Peer::Local => AddressCharge::Within,
        }
    }

    /// Starts the task of a connection.
    fn open(&self, Handoff { socket, peer, kind, permit, needs_eviction: _ }: Handoff) {
        let Ok(source) = self.core.readiness().register(Socket::new(socket), Mode::Edge) else {
            return self.deadlines.counters.refuse(Refused::Broken);
        };
        let stream = Stream::new(source, self.deadlines.open(), permit);
        // The handler's future is the task, so that the preamble takes no memory for as long as the
        // connection lives.
        let preamble = Rc::clone(&self.preamble.borrow());
        if preamble.needs_none(peer, kind) {
            stream.deadline().enter_service();
            self.core.spawn((self.handler)(Connection::plain(stream, peer, peer)));
        } else {
            let (handler, core) = (Rc::clone(&self.handler), Rc::clone(&self.core));
            self.core.spawn(async move {
                // In memory of its own, which is given back when the service takes over.
                let ready = Box::pin(async move { preamble.run(&core, stream, peer, kind).await }).await;
                if let Some(connection) = ready {
                    handler(connection).await;
                }
            });
        }
    }
}

/// What an error of accept is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptErrorKind {
    /// The next connection may be fine.
    Connection,
    /// Too many files are open, here or on the whole machine.
    Descriptors,
    /// Memory, or an error that is not known.
    System,
}

fn classify(error: &io::Error) -> AcceptErrorKind {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => AcceptErrorKind::Descriptors,
        // Errors of the new connection that Linux reports here, see accept(2).
        Some(
            libc::ECONNABORTED
            | libc::EPROTO
            | libc::EPERM
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH,
        ) => AcceptErrorKind::Connection,
        _ => AcceptErrorKind::System,
    }
}
