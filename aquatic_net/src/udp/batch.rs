//! Buffers for one batch of datagrams and the replies to them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::socket::UdpSocket;
use super::sys;
use super::sys::Envelope;
use crate::xdp::frame::Headers;

/// Most datagrams handled between two system calls. Larger batches no longer save time: the cost of the calls
/// themselves is spread thin, and the buffers of a batch should stay in the second-level cache.
pub const BATCH: usize = 64;

/// Longest datagram that is looked at: a scrape of 74 info hashes has 1,496 bytes, an announce with BEP 41
/// options rarely more than 300. Longer ones are cut and marked.
pub const REQUEST_CAPACITY: usize = 2048 + CACHE_LINE;

/// Longest reply that can be sent.
pub const REPLY_CAPACITY: usize = 2048 + CACHE_LINE;

/// Buffers are an odd number of cache lines long. Were it a power of two, the beginnings of all buffers of a
/// batch, which is what most datagrams fill, would compete for a few places in the first-level cache: 4 %
/// fewer responses.
const CACHE_LINE: usize = 64;

/// Received datagrams, and room for one reply to each.
///
/// A batch is filled either by [`receive`](Self::receive) or, for replies to datagrams that another core
/// received, by [`push`](Self::push); then replies are written and [`send`](Self::send) hands them to the
/// kernel.
pub struct Batch {
    receiving: sys::ReceiveHeaders<BATCH, REQUEST_CAPACITY>,
    sending: sys::SendHeaders<BATCH>,
    envelopes: Box<[Envelope]>,
    requests: Box<[[u8; REQUEST_CAPACITY]]>,
    replies: Box<[[u8; REPLY_CAPACITY]]>,
    reply_lens: [usize; BATCH],
    len: usize,
    sent_up_to: usize,
}

/// Where a reply goes and which local address it must leave from.
#[derive(Clone, Copy)]
pub struct ReturnPath(Path);

#[derive(Clone, Copy)]
enum Path {
    Socket(Envelope),
    /// The request came past the network stack.
    Frame(Headers),
}

/// What is forwarded does not grow by frames.
const _: () = assert!(size_of::<ReturnPath>() == size_of::<Envelope>());

impl ReturnPath {
    /// A return path to an address; the kernel chooses the local address.
    #[must_use]
    pub fn to(address: SocketAddr) -> Self {
        Self(Path::Socket(Envelope::to(address)))
    }

    /// The way back for what came in a frame.
    #[must_use]
    pub fn by_frame(headers: Headers) -> Self {
        Self(Path::Frame(headers))
    }

    /// The headers of the request, if it came past the network stack.
    #[must_use]
    pub fn headers(&self) -> Option<&Headers> {
        match &self.0 {
            Path::Socket(_) => None,
            Path::Frame(headers) => Some(headers),
        }
    }

    /// What a socket needs to reply.
    fn envelope(&self) -> Envelope {
        match self.0 {
            Path::Socket(envelope) => envelope,
            // Frames without addresses have not been taken.
            Path::Frame(headers) => headers
                .addresses()
                .map_or(Envelope::EMPTY, |(source, local)| Envelope::between(local.ip(), source)),
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// Buffers for [`BATCH`] datagrams: 270 KiB, of which only what is written to takes memory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            receiving: sys::ReceiveHeaders::new(),
            sending: sys::SendHeaders::new(),
            envelopes: vec![Envelope::EMPTY; BATCH].into_boxed_slice(),
            requests: vec![[0; REQUEST_CAPACITY]; BATCH].into_boxed_slice(),
            replies: vec![[0; REPLY_CAPACITY]; BATCH].into_boxed_slice(),
            reply_lens: [0; BATCH],
            len: 0,
            sent_up_to: 0,
        }
    }

    /// Receives what is there, without waiting, into an emptied batch. Returns the number of datagrams.
    ///
    /// # Errors
    /// Those of `recvmmsg`, other than that nothing is there.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.clear();
        self.len = self.receiving.receive(
            socket.as_fd(),
            &mut self.requests,
            &mut self.envelopes,
            socket.wants_packet_info(),
        )?;
        Ok(self.len)
    }

    /// As [`receive`](Self::receive), but one datagram at most, for less than a batch of one costs. To be
    /// called where more are not expected.
    ///
    /// # Errors
    /// Those of `recvfrom`, other than that nothing is there.
    pub fn receive_one(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.clear();
        if let (Some(buffer), Some(envelope)) = (self.requests.first_mut(), self.envelopes.first_mut()) {
            self.len = sys::receive_one(socket.as_fd(), buffer, envelope, socket.wants_packet_info())?;
        }
        Ok(self.len)
    }

    /// Forgets all datagrams and replies.
    pub fn clear(&mut self) {
        self.reply_lens[..self.len].fill(0);
        self.len = 0;
        self.sent_up_to = 0;
    }

    /// Number of datagrams.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no datagrams.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether [`push`](Self::push) has no room left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len == BATCH
    }

    /// The bytes of a datagram, cut at [`REQUEST_CAPACITY`].
    #[must_use]
    pub fn request(&self, at: usize) -> &[u8] {
        &self.requests[at][..self.envelopes[at].len]
    }

    /// Whether the datagram was longer than [`REQUEST_CAPACITY`].
    #[must_use]
    pub fn is_truncated(&self, at: usize) -> bool {
        self.envelopes[at].truncated
    }

    /// Where the datagram came from; `None` if that is not an IP address.
    #[must_use]
    pub fn source(&self, at: usize) -> Option<SocketAddr> {
        self.envelopes[at].address.decode()
    }

    /// How to answer the datagram from elsewhere.
    #[must_use]
    pub fn return_path(&self, at: usize) -> ReturnPath {
        ReturnPath(Path::Socket(self.envelopes[at]))
    }

    /// Adds a datagram that was received elsewhere, without its bytes; `None` if the batch is full. Returns
    /// its position.
    pub fn push(&mut self, path: ReturnPath) -> Option<usize> {
        let at = self.len;
        *self.envelopes.get_mut(at)? = path.envelope();
        self.len += 1;
        Some(at)
    }

    /// Room for the reply to a datagram.
    pub fn reply_buffer(&mut self, at: usize) -> &mut [u8; REPLY_CAPACITY] {
        &mut self.replies[at]
    }

    /// Says how much of the reply buffer is to be sent; 0 for no reply.
    pub fn set_reply_len(&mut self, at: usize, len: usize) {
        self.reply_lens[at] = len.min(REPLY_CAPACITY);
    }

    /// Sends the replies. Returns false if the socket's send buffer is full: wait until the socket is
    /// writable and call again to send the rest. A reply the kernel refuses is counted in `errors` and
    /// skipped.
    pub fn send(&mut self, socket: &UdpSocket, errors: &mut SendErrors) -> bool {
        loop {
            let start = self.sent_up_to;
            let mut unsent = (start..self.len).filter(|&at| self.reply_lens[at] > 0).peekable();
            let Some(&first) = unsent.peek() else { return true };
            let datagrams = unsent.map(|at| (&self.envelopes[at], &self.replies[at][..self.reply_lens[at]]));
            match self.sending.send(socket.as_fd(), datagrams) {
                Ok(sent) => self.sent_up_to = self.after(first, sent),
                Err(error) if would_block(&error) => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    errors.count(&error);
                    self.sent_up_to = first + 1;
                }
            }
        }
    }

    /// Number of replies that [`send`](Self::send) has not dealt with.
    #[must_use]
    pub fn unsent(&self) -> usize {
        (self.sent_up_to..self.len).filter(|&at| self.reply_lens[at] > 0).count()
    }

    /// The position behind so many replies, the first of which stands at `first`.
    fn after(&self, first: usize, replies: usize) -> usize {
        let last = (first..self.len).filter(|&at| self.reply_lens[at] > 0).nth(replies.saturating_sub(1));
        last.map_or(self.len, |last| last + 1)
    }
}

fn would_block(error: &io::Error) -> bool {
    // ENOBUFS is the queue of the network interface being full: as transient as a full send buffer, but the
    // socket stays writable, so waiting for it would not help. It is counted as an error instead.
    error.kind() == io::ErrorKind::WouldBlock
}

/// Replies the kernel refused to send, by the reason it gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendErrors {
    /// Longer than the path allows (`EMSGSIZE`).
    pub too_long: u64,
    /// The queue of the network interface was full (`ENOBUFS`, `ENOMEM`).
    pub no_buffers: u64,
    /// No route to the client (`ENETUNREACH`, `EHOSTUNREACH`, `ENETDOWN`).
    pub unreachable: u64,
    /// A firewall rule or routing policy forbade it (`EPERM`, `EACCES`).
    pub forbidden: u64,
    /// The client's address cannot be sent to, such as port 0 (`EINVAL`, `EADDRNOTAVAIL`).
    pub bad_address: u64,
    /// Any other reason.
    pub other: u64,
}

impl SendErrors {
    fn count(&mut self, error: &io::Error) {
        let counter = match error.raw_os_error() {
            Some(libc::EMSGSIZE) => &mut self.too_long,
            Some(libc::ENOBUFS | libc::ENOMEM) => &mut self.no_buffers,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN) => &mut self.unreachable,
            Some(libc::EPERM | libc::EACCES) => &mut self.forbidden,
            Some(libc::EINVAL | libc::EADDRNOTAVAIL) => &mut self.bad_address,
            _ => &mut self.other,
        };
        *counter += 1;
    }

    /// The counts with the labels they carry in metrics.
    #[must_use]
    pub fn by_reason(&self) -> [(&'static str, u64); 6] {
        [
            ("too_long", self.too_long),
            ("no_buffers", self.no_buffers),
            ("unreachable", self.unreachable),
            ("forbidden", self.forbidden),
            ("bad_address", self.bad_address),
            ("other", self.other),
        ]
    }
}
