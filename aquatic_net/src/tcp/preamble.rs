//! What comes before the first byte for the service: the header of the PROXY protocol and the TLS handshake.
//!
//! Both share the time of [`Phase::Handshake`](super::Phase). Neither takes a byte that is the service's: the
//! header, and the byte that tells TLS from plain connections, are read in the socket's buffer and only then
//! taken out of it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use aquatic_common::PrefixSet;
use aquatic_runtime::Core;
use aquatic_runtime::readiness::Direction;
use rustix::net::RecvFlags;

use super::accept::TcpSettings;
use super::bind::ListenerKind;
use super::connection::{Connection, Peer};
use super::counters::{Counters, Refused};
use super::deadlines::RECEIVE_SIZE;
use super::handshakes::{HandshakeClient, Handshakes};
use super::source_gate::SourceGate;
use super::stream::{Socket, Stream};
use super::tls::Tls;
use crate::proxy::{Header, LONGEST_V2, OnBadHeader, Source, TrustedProxies, parse};

/// First byte of a TLS connection: the content type of handshake records (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

const _: () = assert!(LONGEST_V2 <= RECEIVE_SIZE, "headers are read in the scratch buffer");

/// How connections of a core begin.
#[derive(Debug)]
pub(super) struct Preamble {
    trusted: TrustedProxies,
    proxy_protocol: Option<OnBadHeader>,
    gate: Rc<SourceGate>,
    /// Sources without limits.
    exempt: PrefixSet,
    tls: Option<Arc<Tls>>,
    handshakes: Rc<Handshakes>,
    reply_to_plain: Vec<u8>,
}

impl Preamble {
    pub(super) fn new(settings: &TcpSettings, gate: Rc<SourceGate>) -> Self {
        Self {
            trusted: settings.trusted_proxies.clone(),
            proxy_protocol: settings.proxy_protocol,
            gate,
            exempt: settings.sources.connections.exempt.clone(),
            tls: settings.tls.clone(),
            handshakes: Rc::new(Handshakes::new(settings.handshakes, &settings.sources)),
            reply_to_plain: settings.reply_to_plain.clone(),
        }
    }

    /// The same with other proxies and limits of handshakes.
    pub(super) fn reconfigured(&self, settings: &TcpSettings) -> Self {
        self.handshakes.set_limits(settings.handshakes, settings.sources.handshakes);
        Self {
            trusted: settings.trusted_proxies.clone(),
            proxy_protocol: settings.proxy_protocol,
            gate: Rc::clone(&self.gate),
            exempt: settings.sources.connections.exempt.clone(),
            tls: self.tls.clone(),
            handshakes: Rc::clone(&self.handshakes),
            reply_to_plain: self.reply_to_plain.clone(),
        }
    }

    /// Whether the peer may name clients.
    pub(super) fn trusts(&self, peer: Peer) -> bool {
        match peer {
            Peer::Address(address) => self.trusted.contains(address.ip()),
            Peer::Local => true,
        }
    }

    /// Why a connection of a client that a proxy has named is to be closed.
    fn refuses(&self, core: &Core, client: SocketAddr, counters: &Counters) -> Option<Refused> {
        let ip = client.ip().to_canonical();
        if self.trusts(Peer::Address(client)) {
            return self.gate.blocks(ip).then_some(Refused::Blocked);
        }
        self.gate.refuses(ip, core.time(), counters)
    }

    /// Who a handshake is for.
    fn handshake_client(&self, client: Peer) -> HandshakeClient {
        let address = match client {
            Peer::Address(address) => Some(address.ip().to_canonical()),
            Peer::Local => None,
        };
        let is_exempt = address.is_some_and(|address| self.exempt.contains(address));
        HandshakeClient { address, is_limited: !is_exempt && !self.trusts(client) }
    }

    fn expects_header(&self, peer: Peer) -> bool {
        self.proxy_protocol.is_some() && self.trusts(peer)
    }

    /// What encrypts connections by this kind of listener, if anything does.
    fn tls(&self, kind: ListenerKind) -> Option<&Tls> {
        self.tls.as_deref().filter(|_| kind != ListenerKind::Plain)
    }

    /// Whether the first byte is the service's.
    pub(super) fn needs_none(&self, peer: Peer, kind: ListenerKind) -> bool {
        self.tls(kind).is_none() && !self.expects_header(peer)
    }

    pub(super) fn report(&self, counters: &Counters) {
        counters.handshaking.set(self.handshakes.len() as u64);
    }

    /// Runs the PROXY protocol and the TLS handshake; `None` if the connection is to be closed, which has
    /// been counted.
    pub(super) async fn run(
        &self,
        core: &Core,
        mut stream: Stream,
        peer: Peer,
        kind: ListenerKind,
    ) -> Option<Connection> {
        let client = match self.proxy_protocol {
            Some(on_bad) if self.trusts(peer) => self.read_header((core, &mut stream), peer, on_bad).await?,
            Some(_) | None => peer,
        };
        let connection = match self.tls(kind) {
            Some(tls) => match (begins_with_tls(&stream).await, kind) {
                (Ok(false), ListenerKind::TlsOrPlain) => Connection::plain(stream, peer, client),
                (Ok(false), _) => {
                    self.reply_to_plain(Connection::plain(stream, peer, client)).await;
                    return None;
                }
                // An error is counted as one of the handshake.
                (Ok(true) | Err(_), _) => {
                    let asker = self.handshake_client(client);
                    Connection::tls(self.handshakes.shake(core, stream, tls, asker).await?, peer, client)
                }
            },
            None => Connection::plain(stream, peer, client),
        };
        connection.deadline().enter_service();
        Some(connection)
    }

    /// Tells a client that an encrypted connection is needed, and closes its connection.
    async fn reply_to_plain(&self, mut connection: Connection) {
        connection.deadline().deadlines().counters.refuse(Refused::PlainOnTls);
        if !self.reply_to_plain.is_empty() && connection.send(&self.reply_to_plain).await.is_ok() {
            connection.close_lingering().await;
        }
    }

    /// The client that the proxy names; `None` if it is to be closed.
    async fn read_header(
        &self,
        (core, stream): (&Core, &mut Stream),
        peer: Peer,
        on_bad: OnBadHeader,
    ) -> Option<Peer> {
        let deadlines = Rc::clone(stream.deadline().deadlines());
        let header = {
            let stream = &*stream;
            let take = |socket: &Socket| {
                take_header(socket, &mut deadlines.scratch.borrow_mut(), stream.has_ended())
            };
            poll_fn(|context| stream.poll(Direction::Read, context, take)).await
        };
        let refuse = |why| deadlines.counters.refuse(why);
        match (header, on_bad) {
            (Ok(Header::Complete { source: Source::Client(client), .. }), _)
                if self.trusted.may_name(client.ip()) =>
            {
                if let Some(refused) = self.refuses(core, client, &deadlines.counters) {
                    refuse(refused);
                } else if self.trusts(Peer::Address(client)) || stream.charge_address(client.ip()) {
                    return Some(Peer::Address(client));
                } else {
                    refuse(Refused::Address);
                }
            }
            (Ok(Header::Complete { source: Source::Proxy, .. }), _) => return Some(peer),
            (
                Ok(Header::Absent | Header::NeedMore | Header::Complete { .. }),
                OnBadHeader::UseSocketAddress,
            ) => {
                deadlines.counters.proxy_unused.add(1);
                return Some(peer);
            }
            (Ok(Header::Absent | Header::NeedMore), _) => refuse(Refused::ProxyMissing),
            // That has been counted.
            (Err(error), _) if error.kind() == io::ErrorKind::TimedOut => {}
            (Err(_), _) => refuse(Refused::ProxyMissing),
            // Nobody knows where the client's bytes begin.
            (Ok(Header::Malformed), _) => refuse(Refused::ProxyMalformed),
            (Ok(Header::Complete { .. }), OnBadHeader::Refuse) => refuse(Refused::ProxyUnusable),
        }
        None
    }
}

/// Whether the client begins a TLS handshake. Waits for its first byte, which stays in the socket.
async fn begins_with_tls(stream: &Stream) -> io::Result<bool> {
    let peek = |context: &mut Context<'_>| -> Poll<io::Result<bool>> {
        stream.poll(Direction::Read, context, |socket| {
            let mut byte = [0];
            match rustix::net::recv(socket, &mut byte[..], RecvFlags::PEEK)? {
                (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
                (_, _) => Ok(byte == [TLS_HANDSHAKE]),
            }
        })
    };
    poll_fn(peek).await
}

/// Takes a complete header out of the socket's buffer. While there is but a part of it, and the proxy has not
/// ended, that counts as nothing: the next bytes wake the task.
fn take_header(socket: &Socket, bytes: &mut [u8], has_ended: bool) -> io::Result<Header> {
    let (len, _) = rustix::net::recv(socket, &mut *bytes, RecvFlags::PEEK)?;
    let header = parse(&bytes[..len]);
    match header {
        Header::NeedMore if len > 0 && !has_ended => return Err(io::ErrorKind::WouldBlock.into()),
        Header::Complete { len, .. } => {
            rustix::net::recv(socket, &mut bytes[..len], RecvFlags::empty())?;
        }
        Header::NeedMore | Header::Absent | Header::Malformed => {}
    }
    Ok(header)
}
