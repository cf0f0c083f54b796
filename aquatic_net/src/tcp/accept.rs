//! Accepting connections and running one task for each.
//!
//! Invariants: an accept is a system call that never waits, so nothing accepted is lost when the loop around it ends.
//! A loop does bounded work before it lets others run, and no error makes it spin: while the process lacks descriptors
//! or memory it comes back after a pause only. A connection that cannot be served is closed at once and counted, never
//! left to wait. One task per connection, which starts no other.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aquatic_common::canonical;
use rand::RngExt;
use rustix::net::SocketFlags;

use super::balance::{Balance, Parcel, Place};
use super::begin::Beginning;
use super::bind::{CoreListeners, ListenSocket};
use super::connection::{Connection, Peer};
use super::counters::{Counters, Protocols, Refused};
use super::deadlines::{Deadlines, Records};
use super::handshakes::HandshakeLimits;
use super::stream::{Socket, Stream};
use super::tls::Tls;
use crate::proxy::{OnBadHeader, TrustedProxies};
use aquatic_runtime::Core;
use aquatic_runtime::readiness::{Mode, Source};

/// Connections accepted, or taken over from other cores, before the other tasks of the core get their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Connections told to make room for others before they get the time to do so. Until then there are as many too many.
const DISPLACED_PER_TURN: u64 = 16;

/// Connections closed at once between two pauses when the process has no descriptor left.
const REFUSED_PER_TURN: usize = 16;

/// How long to stay away after an accept has failed for want of descriptors or memory: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// How often a stopping core looks whether connections are left.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// How a service wants its connections.
#[derive(Clone, Debug)]
pub struct TcpSettings {
    /// The values of the label `protocol` in metrics.
    pub protocols: Protocols,
    /// Most connections of the process; each core has an even share. For further ones somebody makes room who waits for
    /// a client, or they are closed at once.
    pub max_connections: usize,
    /// Whether connections that wait for a request make room, the longest wait first. Not for protocols whose
    /// connections are worth something while they are silent. Those that have not got as far as that always do.
    pub idle_makes_room: bool,
    /// Most connections from one IPv4 address or IPv6 /64 network; 0 for no limit. Trusted proxies are exempt, but not
    /// the clients they name by the PROXY protocol.
    pub max_connections_per_address: u32,
    /// How long everything may take.
    pub deadlines: Deadlines,
    /// Who may speak for others. Connections to a unix socket are always trusted.
    pub trusted_proxies: TrustedProxies,
    /// Whether trusted proxies name their clients by the PROXY protocol, and what happens to a connection of theirs
    /// that begins without it. Connections of others never begin with it.
    pub proxy_protocol: Option<OnBadHeader>,
    /// Certificate and key, for encrypted connections; `None` for plain ones.
    pub tls: Option<Arc<Tls>>,
    /// How many TLS handshakes a core may have.
    pub handshakes: HandshakeLimits,
}

/// What the tasks of one core share.
struct Server<H> {
    core: Rc<Core>,
    balance: Arc<Balance>,
    records: Rc<Records>,
    beginning: Rc<Beginning>,
    handler: Rc<H>,
}

/// Accepts connections on this core and runs `handler` for each, until the process stops: then connections without a
/// request end at once, and this returns when the others have ended, too.
///
/// # Errors
/// A listening socket that cannot be waited for.
pub async fn serve_tcp<H, F>(
    core: Rc<Core>,
    listeners: CoreListeners,
    settings: TcpSettings,
    handler: H,
) -> anyhow::Result<()>
where
    H: Fn(Connection) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let CoreListeners { balance, sockets } = listeners;
    balance.limit(settings.max_connections, settings.max_connections_per_address);
    let counters = Counters::new(core.metrics(), settings.protocols);
    let records = Rc::new(Records::new(settings.deadlines, settings.idle_makes_room, counters));
    let server = Rc::new(Server {
        balance: Arc::clone(&balance),
        records: Rc::clone(&records),
        beginning: Rc::new(Beginning::new(&settings)),
        handler: Rc::new(handler),
        core: Rc::clone(&core),
    });
    let bell = Bell { balance, core: core.index() };
    let bell = core.readiness().register(bell, Mode::Edge).context("cannot wait for other cores")?;
    core.spawn(take_over(Rc::clone(&server), bell));
    for socket in sockets {
        let socket =
            core.readiness().register(socket, Mode::Edge).context("cannot wait for a listening socket")?;
        core.spawn(accept(Rc::clone(&server), socket));
    }
    let sweeping = async {
        loop {
            core.sleep(records.until_sweep(core.tick())).await;
            records.sweep(core.tick());
            server.beginning.report(&records.counters);
        }
    };
    futures_lite::future::or(sweeping, core.stopping()).await;
    records.stop();
    while records.len() > 0 {
        core.sleep(DRAIN_INTERVAL).await;
        records.sweep(core.tick());
    }
    Ok(())
}

/// One listening socket's loop. It ends, and the socket is closed, when the process stops.
async fn accept<H, F>(server: Rc<Server<H>>, listener: Source<ListenSocket>)
where
    H: Fn(Connection) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let mut pause = PAUSE.0;
    while !server.core.is_stopping() {
        match server.accept_some(&listener) {
            Turn::More => {
                pause = PAUSE.0;
                server.core.yield_now().await;
            }
            Turn::Drained => {
                pause = PAUSE.0;
                let waited = futures_lite::future::or(listener.readable(), async {
                    server.core.stopping().await;
                    Ok(())
                });
                if waited.await.is_err() {
                    server.core.sleep(PAUSE.1).await;
                }
            }
            Turn::Exhausted => {
                server.core.sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

/// What came of some accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// There may be more connections.
    More,
    /// There are none.
    Drained,
    /// The process or the machine lacks something.
    Exhausted,
}

/// Takes over the connections that other cores hand to this one.
async fn take_over<H, F>(server: Rc<Server<H>>, bell: Source<Bell>)
where
    H: Fn(Connection) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    loop {
        let mut rings = [0; 8];
        match bell.try_read(|bell| Ok(rustix::io::read(bell, &mut rings)?)) {
            Ok(_) => {
                for (nth, parcel) in server.balance.take(bell.get_ref().core).into_iter().enumerate() {
                    server.open(parcel);
                    if nth % ACCEPTS_PER_TURN == ACCEPTS_PER_TURN - 1 {
                        server.core.yield_now().await;
                    }
                }
            }
            Err(_) => {
                if bell.readable().await.is_err() {
                    server.core.sleep(PAUSE.1).await;
                }
            }
        }
    }
}

impl<H, F> Server<H>
where
    H: Fn(Connection) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    fn accept_some(&self, listener: &Source<ListenSocket>) -> Turn {
        let displaced = &self.records.counters.displaced_connections;
        let most = displaced.get() + DISPLACED_PER_TURN;
        for _ in 0..ACCEPTS_PER_TURN {
            if displaced.get() >= most {
                return Turn::More;
            }
            if !self.balance.reserve().restore() {
                self.records.counters.accept_errors.add(1);
                return self.refuse_some(listener);
            }
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let accepted = listener.try_read(|socket| Ok(rustix::net::acceptfrom_with(socket, flags)?));
            match accepted {
                Ok((socket, address)) => {
                    let peer = match address.map(SocketAddr::try_from) {
                        Some(Ok(address)) => Peer::Address(canonical(address)),
                        _ if listener.get_ref().local => Peer::Local,
                        _ => {
                            self.records.counters.refuse(Refused::Broken);
                            continue;
                        }
                    };
                    self.records.counters.accepted.add(1);
                    self.admit(socket, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Drained,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.records.counters.accept_errors.add(1);
                    match judge(&error) {
                        Trouble::OfTheConnection => {}
                        Trouble::Descriptors => return self.refuse_some(listener),
                        Trouble::OfTheMachine => return Turn::Exhausted,
                    }
                }
            }
        }
        Turn::More
    }

    /// While there are no descriptors: whoever waits is told so soon, and does not fill the queue.
    fn refuse_some(&self, listener: &Source<ListenSocket>) -> Turn {
        let refused = self.balance.reserve().refuse(listener.get_ref(), REFUSED_PER_TURN);
        (0..refused).for_each(|_| self.records.counters.refuse(Refused::Descriptors));
        Turn::Exhausted
    }

    /// Finds a core for a connection, or closes it.
    fn admit(&self, socket: OwnedFd, peer: Peer) {
        let here = self.core.index();
        let chosen = self.balance.choose(here, self.core.rng().random_range(0..=0xffff));
        let place = self.balance.enter(chosen).or_else(|| self.balance.enter_any(here));
        let is_full = place.is_none();
        let mut place = place.unwrap_or_else(|| self.balance.enter_beyond(here));
        if !self.may_enter(&mut place, peer) {
            return self.records.counters.refuse(Refused::Address);
        }
        if is_full && !self.records.make_room() {
            return self.records.counters.refuse(Refused::Limit);
        }
        let parcel = Parcel { socket, peer, place };
        if parcel.place.core() == here {
            return self.open(parcel);
        }
        match self.balance.hand_over(parcel) {
            Ok(()) => self.records.counters.handed_over.add(1),
            Err(mut parcel) => {
                parcel.place.move_to(here);
                self.open(parcel);
            }
        }
    }

    fn may_enter(&self, place: &mut Place, peer: Peer) -> bool {
        match peer {
            Peer::Address(address) if !self.beginning.trusts(peer) => place.claim(address.ip()),
            Peer::Address(_) | Peer::Local => true,
        }
    }

    /// Starts the task of a connection.
    fn open(&self, Parcel { socket, peer, place }: Parcel) {
        let Ok(source) = self.core.readiness().register(Socket::new(socket), Mode::Edge) else {
            return self.records.counters.refuse(Refused::Broken);
        };
        let stream = Stream::new(source, self.records.open(), place);
        // The handler's future is the task, so that the beginning takes no room for as long as the connection lives.
        if self.beginning.is_immediate(peer) {
            stream.pace().enter_service();
            self.core.spawn((self.handler)(Connection::plain(stream, peer, peer)));
        } else {
            let beginning = Rc::clone(&self.beginning);
            let (handler, core) = (Rc::clone(&self.handler), Rc::clone(&self.core));
            self.core.spawn(async move {
                // In memory of its own, which is given back when the service takes over.
                let begun = Box::pin(async move { beginning.run(&core, stream, peer).await }).await;
                if let Some(connection) = begun {
                    handler(connection).await;
                }
            });
        }
    }
}

/// What an error of accept is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The next connection may be fine.
    OfTheConnection,
    /// Too many files are open, here or on the whole machine.
    Descriptors,
    /// Memory, or something nobody has heard of.
    OfTheMachine,
}

fn judge(error: &io::Error) -> Trouble {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Trouble::Descriptors,
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
        ) => Trouble::OfTheConnection,
        _ => Trouble::OfTheMachine,
    }
}

/// What rings when another core has handed something to this one.
struct Bell {
    balance: Arc<Balance>,
    core: usize,
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.balance.bell(self.core)
    }
}
