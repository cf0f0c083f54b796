//! A connection as services see it.

use std::future::poll_fn;
use std::io::{self, IoSlice, Read};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt};
use futures_rustls::server::TlsStream;

use super::counters::Refused;
use super::deadlines::{DeadlineHandle, Phase};
use super::stream::{Socket, Stream};
use super::tls_fault::TlsFault;
use aquatic_runtime::readiness::Direction;

/// Most bytes taken in between the last reply and the end of the connection.
const MAX_DISCARDED: usize = 256 * 1024;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client or a proxy.
    Address(SocketAddr),
    /// A proxy on this machine, through a unix socket: it has no address.
    Local,
}

impl Peer {
    /// The address, if there is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address.ip()),
            Self::Local => None,
        }
    }
}

#[derive(Debug)]
enum Transport {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

/// A connection, plain or TLS. Reads and writes fail with [`io::ErrorKind::TimedOut`] once the time of the
/// current [`Phase`] is over. One task drives it.
///
/// It is to be ended with [`close`](Self::close) or [`close_lingering`](Self::close_lingering); one that is
/// dropped is cut off, and TLS clients then see a truncated stream, unless it was in [`Phase::Idle`].
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    socket_peer: Peer,
    peer: Peer,
}

impl Connection {
    pub(super) fn plain(stream: Stream, socket_peer: Peer, peer: Peer) -> Self {
        Self { transport: Transport::Plain(stream), socket_peer, peer }
    }

    pub(super) fn tls(stream: TlsStream<Stream>, socket_peer: Peer, peer: Peer) -> Self {
        Self { transport: Transport::Tls(Box::new(stream)), socket_peer, peer }
    }

    /// Address of the client: the one a trusted proxy has named by the PROXY protocol, or else the other
    /// end of the socket. Addresses are in canonical form.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The other end of the socket itself.
    #[must_use]
    pub fn socket_peer(&self) -> Peer {
        self.socket_peer
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// The deadline, which the service sets as it goes.
    #[must_use]
    pub fn deadline(&self) -> &DeadlineHandle {
        self.stream().deadline()
    }

    /// Counts the connection to the client that a trusted proxy names in a request; for protocols in which a
    /// connection has one client. Whether that one may have another; if not, this is counted, and the
    /// connection is to be ended.
    pub fn charge_address(&mut self, client: IpAddr) -> bool {
        let stream = match &mut self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_mut().0,
        };
        let claimed = stream.charge_address(client);
        if !claimed {
            stream.deadline().deadlines().counters.refuse(Refused::Address);
        }
        claimed
    }

    fn stream(&self) -> &Stream {
        match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Waits for bytes and appends up to `most` of them; 0 at the end of the stream. The buffer gets memory
    /// only when there is something to put into it, so that a connection that waits with an empty one needs
    /// none.
    ///
    /// # Errors
    /// Those of the socket and of TLS; [`io::ErrorKind::TimedOut`].
    pub async fn receive(&mut self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        poll_fn(|context| self.poll_receive(context, buffer, most)).await
    }

    /// As [`receive`](Self::receive), for hand-written futures.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        // Not straight into the buffer, which would need room while nothing comes. What is received is short.
        let deadlines = Rc::clone(self.deadline().deadlines());
        let mut scratch = deadlines.scratch.borrow_mut();
        let room = most.min(scratch.len());
        let len = ready!(Pin::new(self).poll_read(context, &mut scratch[..room]))?;
        buffer.extend_from_slice(&scratch[..len]);
        Poll::Ready(Ok(len))
    }

    /// Sends all bytes, in one system call if the socket takes them, and for TLS everything up to the last
    /// record.
    ///
    /// # Errors
    /// Those of the socket and of TLS; [`io::ErrorKind::TimedOut`].
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await?;
        self.flush().await
    }

    /// Says that [`close`](Self::close) or [`close_lingering`](Self::close_lingering) follows what is sent
    /// from now on: the last reply and the end of the connection then share a packet.
    pub fn announce_end(&self) {
        self.stream().announce_end();
    }

    /// Ends the connection after an orderly exchange: the client gets everything that was sent, with TLS a
    /// close_notify, and the end. Waits only if that does not fit into the socket's buffer, or if the client
    /// has sent more than was read: closing at once would then destroy what is on its way to it.
    pub async fn close(mut self) {
        self.deadline().enter(Phase::Linger);
        if self.close_tls().await.is_ok() && self.stream().has_unread() {
            self.stream().shutdown_write();
            self.discard().await;
        }
    }

    /// Ends the connection while the client may still be sending, such as after a refused request: what comes
    /// is taken in and thrown away until the client ends, for a bounded time and number of bytes.
    pub async fn close_lingering(mut self) {
        self.deadline().enter(Phase::Linger);
        if self.close_tls().await.is_ok() {
            self.stream().shutdown_write();
            self.discard().await;
        }
    }

    /// Flushes, with TLS sends close_notify. The answer to that is not awaited.
    async fn close_tls(&mut self) -> io::Result<()> {
        match &mut self.transport {
            Transport::Plain(_) => Ok(()),
            Transport::Tls(stream) => stream.close().await,
        }
    }

    async fn discard(&self) {
        let mut left = MAX_DISCARDED;
        let take = |context: &mut Context<'_>| {
            let mut scratch = self.deadline().deadlines().scratch.borrow_mut();
            loop {
                let read = |mut socket: &Socket| socket.read(&mut scratch);
                match ready!(self.stream().poll(Direction::Read, context, read)) {
                    Ok(len @ 1..) if len < left => left -= len,
                    Ok(_) | Err(_) => return Poll::Ready(()),
                }
            }
        };
        poll_fn(take).await;
    }
}

impl Drop for Connection {
    /// Says goodbye on an encrypted connection that ends between two requests, because it was idle for too
    /// long or the process stops. One try without waiting. In the midst of an answer the client is to see
    /// that something is missing.
    fn drop(&mut self) {
        if let Transport::Tls(stream) = &mut self.transport {
            let (socket, session) = stream.get_mut();
            if socket.deadline().is_idle() {
                session.send_close_notify();
                // It was worth a try.
                let _ = session.write_tls(&mut socket.without_waiting());
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => {
                let read = Pin::new(stream.as_mut()).poll_read(context, buffer);
                if let Poll::Ready(Err(error)) = &read {
                    let counters = &stream.get_ref().0.deadline().deadlines().counters;
                    counters.tls_fault(TlsFault::of(error));
                }
                read
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_close(context),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_close(context),
        }
    }
}
