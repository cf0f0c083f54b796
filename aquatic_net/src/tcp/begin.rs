//! What comes before the first byte for the service: the header of the PROXY protocol and the TLS handshake.
//!
//! Both have the time of [`Phase::Handshake`](super::Phase) together. Neither takes a byte that is the service's: the
//! header is looked at in the socket's buffer until it is complete, and only then taken out of it.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustix::net::RecvFlags;

use super::accept::TcpSettings;
use super::connection::{Connection, Peer};
use super::counters::{Counters, Refused};
use super::handshakes::Handshakes;
use super::stream::{Socket, Stream};
use super::tls::Tls;
use crate::proxy::{Header, LONGEST_V2, OnBadHeader, Source, TrustedProxies, parse};
use aquatic_runtime::Core;
use aquatic_runtime::readiness::Direction;

/// How connections of a core begin.
#[derive(Debug)]
pub(super) struct Beginning {
    trusted: TrustedProxies,
    proxy_protocol: Option<OnBadHeader>,
    tls: Option<Arc<Tls>>,
    handshakes: Rc<Handshakes>,
}

impl Beginning {
    pub(super) fn new(settings: &TcpSettings) -> Self {
        Self {
            trusted: settings.trusted_proxies.clone(),
            proxy_protocol: settings.proxy_protocol,
            tls: settings.tls.clone(),
            handshakes: Rc::new(Handshakes::new(settings.handshakes)),
        }
    }

    /// Whether the peer may speak for others.
    pub(super) fn trusts(&self, peer: Peer) -> bool {
        match peer {
            Peer::Address(address) => self.trusted.contains(address.ip()),
            Peer::Local => true,
        }
    }

    fn expects_header(&self, peer: Peer) -> bool {
        self.proxy_protocol.is_some() && self.trusts(peer)
    }

    /// What encrypts a peer's connection, if anything does. What goes through a unix socket stays on the machine.
    fn tls(&self, peer: Peer) -> Option<&Tls> {
        self.tls.as_deref().filter(|_| peer != Peer::Local)
    }

    /// Whether the first byte is the service's.
    pub(super) fn is_immediate(&self, peer: Peer) -> bool {
        self.tls(peer).is_none() && !self.expects_header(peer)
    }

    pub(super) fn report(&self, counters: &Counters) {
        counters.handshaking.set(self.handshakes.len() as u64);
    }

    /// Goes through the beginning; `None` if the connection is to be closed, which has been counted.
    pub(super) async fn run(&self, core: &Core, mut stream: Stream, peer: Peer) -> Option<Connection> {
        let client = match self.proxy_protocol {
            Some(on_bad) if self.trusts(peer) => read_header(&mut stream, peer, on_bad).await?,
            Some(_) | None => peer,
        };
        let connection = match self.tls(peer) {
            Some(tls) => Connection::tls(self.handshakes.shake(core, stream, tls).await?, peer, client),
            None => Connection::plain(stream, peer, client),
        };
        connection.pace().enter_service();
        Some(connection)
    }
}

/// Whom the connection comes from according to the proxy; `None` if it is to be closed.
async fn read_header(stream: &mut Stream, peer: Peer, on_bad: OnBadHeader) -> Option<Peer> {
    let header = poll_fn(|context| stream.poll(Direction::Read, context, take_header)).await;
    let records = Rc::clone(stream.pace().records());
    let refuse = |why| records.counters.refuse(why);
    match (header, on_bad) {
        (Ok(Header::Complete { source: Source::Client(client), .. }), _) => {
            if stream.place().claim(client.ip()) {
                return Some(Peer::Address(client));
            }
            refuse(Refused::Address);
        }
        (Ok(Header::Complete { source: Source::Proxy, .. }), _) => return Some(peer),
        (Ok(Header::Absent | Header::NeedMore), OnBadHeader::UseSocketAddress) => {
            records.counters.proxy_unused.add(1);
            return Some(peer);
        }
        (Ok(Header::Absent | Header::NeedMore) | Err(_), _) => refuse(Refused::ProxyMissing),
        // Nobody knows where the client's bytes begin.
        (Ok(Header::Malformed), _) => refuse(Refused::ProxyMalformed),
    }
    None
}

/// Takes a complete header out of the socket's buffer. While there is but a part of it, that counts as nothing: the
/// next bytes wake the task.
fn take_header(socket: &Socket) -> io::Result<Header> {
    let mut bytes = [0; LONGEST_V2];
    let (len, _) = rustix::net::recv(socket, &mut bytes[..], RecvFlags::PEEK)?;
    let header = parse(&bytes[..len]);
    match header {
        Header::NeedMore if len > 0 => return Err(io::ErrorKind::WouldBlock.into()),
        Header::Complete { len, .. } => {
            rustix::net::recv(socket, &mut bytes[..len], RecvFlags::empty())?;
        }
        Header::NeedMore | Header::Absent | Header::Malformed => {}
    }
    Ok(header)
}
