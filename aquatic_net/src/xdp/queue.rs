//! A queue of the interface: its socket, what has been received, and the replies.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::endpoints::listener_of;
use super::frame::{self, Datagram, Headers, MAX_FRAME, MAX_HEADERS};
use super::program::{SWITCH_ON, SWITCH_SIZE};
use super::sys::bpf::Numbers;
use super::sys::socket::{BUFFER, RING, XdpSocket};
use crate::udp::{BATCH, Datagrams, ReturnPath};

/// Minimum room for a reply: what remains of a buffer behind the longest headers.
pub const MIN_REPLY_ROOM: usize = MAX_FRAME - MAX_HEADERS;

const _: () = assert!(MAX_FRAME < BUFFER, "the kernel needs room in front of a frame");

/// Maximum number of frames that wait in a queue.
pub const QUEUE_ROOM: u32 = RING;

/// Numbers of a queue's entry in the map of switches.
const SWITCH_NUMBERS: usize = SWITCH_SIZE / size_of::<u64>();

/// The switches of all queues.
#[derive(Clone, Debug)]
pub(super) struct Switches(pub(super) Arc<Numbers>);

impl Switches {
    fn number(&self, queue: usize, nth: usize) -> Option<&AtomicU64> {
        self.0.at(queue * SWITCH_NUMBERS + nth)
    }

    /// Sets or clears a bit of a queue's switch.
    pub(super) fn set(&self, queue: usize, bit: u64, is_on: bool) {
        let Some(switch) = self.number(queue, 0) else { return };
        if is_on {
            switch.fetch_or(bit, Ordering::Relaxed);
        } else {
            switch.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Number of frames of a queue that were dropped because their source is blocked.
    fn blocked(&self, queue: usize) -> u64 {
        self.number(queue, 1).map_or(0, |number| number.load(Ordering::Relaxed))
    }
}

/// What a queue has in common with the others.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) switches: Switches,
    pub(super) listeners: Arc<[SocketAddr]>,
    /// Maximum size of the interface's packets.
    pub(super) max_packet: Arc<AtomicU32>,
}

/// Frames that were lost, since the socket was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLosses {
    /// Dropped because the ring of received frames was full.
    pub ring_full: u64,
    /// Dropped because there was no buffer for them.
    pub no_buffer: u64,
    /// Dropped for other reasons, such as their length.
    pub other: u64,
    /// Replies that the kernel refused.
    pub refused: u64,
    /// Dropped because their source is blocked. That is no loss.
    pub blocked: u64,
}

/// A received datagram and its reply.
#[derive(Clone, Copy, Debug)]
struct Request {
    datagram: Datagram,
    listener: usize,
    reply: usize,
}

/// A queue of the interface, served by one core.
#[derive(Debug)]
pub struct XdpQueue {
    socket: XdpSocket,
    index: usize,
    shared: Shared,
    /// What was received, by position; `None` for frames that are not taken.
    requests: Vec<Option<Request>>,
}

impl XdpQueue {
    pub(super) fn new(socket: XdpSocket, index: usize, shared: Shared) -> Self {
        Self { socket, index, shared, requests: Vec::with_capacity(BATCH) }
    }

    /// Position of the queue among those of the interface.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// A descriptor that is readable when there are frames.
    ///
    /// # Errors
    /// Too many open files.
    pub fn watched(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Has frames come here, or go to the ordinary sockets. Those on their way still come.
    pub fn set_open(&self, is_open: bool) {
        self.shared.switches.set(self.index, SWITCH_ON, is_open);
    }

    /// Receives what is there, without waiting, at most [`BATCH`] frames. Returns their number. The last
    /// batch must have been sent.
    pub fn receive(&mut self) -> usize {
        self.requests.clear();
        let count = self.socket.receive(BATCH);
        for at in 0..count {
            let datagram = frame::parse(self.socket.frame(at));
            let request = datagram.and_then(|datagram| {
                let listener = listener_of(&self.shared.listeners, datagram.local)?;
                // The kernel leaves room in front of frames, not behind them.
                let has_room = self.socket.frame_mut(at).len() >= datagram.layout.payload + MIN_REPLY_ROOM;
                has_room.then_some(Request { datagram, listener, reply: 0 })
            });
            self.requests.push(request);
        }
        count
    }

    /// Number of frames that have arrived and not been received.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.socket.waiting()
    }

    /// A datagram of the batch by its position, for those who ask instead of answering: the listener that it
    /// was sent to and its payload; `None` for frames that are not taken.
    #[must_use]
    pub fn received(&self, at: usize) -> Option<(usize, &[u8])> {
        let Request { datagram: Datagram { layout, .. }, listener, .. } = (*self.requests.get(at)?)?;
        let payload = self.socket.frame(at).get(layout.payload..layout.payload + layout.length)?;
        Some((listener, payload))
    }

    /// The headers of a datagram of the batch, for [replies](Self::reply) to its sender.
    #[must_use]
    pub fn headers(&self, at: usize) -> Option<Headers> {
        let request = (*self.requests.get(at)?)?;
        Some(Headers::of(self.socket.frame(at), &request.datagram.layout))
    }

    /// Gives the buffers of the batch back without a reply, and has the kernel send what has been written.
    pub fn finish(&mut self) {
        self.socket.finish(|_| 0);
        self.requests.clear();
    }

    /// The datagrams of the batch that a listener serves.
    pub fn of_listener(&mut self, listener: usize) -> XdpBatch<'_> {
        let mut positions = [0; BATCH];
        let mut count = 0;
        for (at, request) in self.requests.iter().enumerate() {
            if request.is_some_and(|request| request.listener == listener)
                && let Some(position) = positions.get_mut(count)
            {
                *position = at as u8;
                count += 1;
            }
        }
        XdpBatch { queue: self, positions, count }
    }

    /// Sends the replies, and gives the buffers of the batch back. Replies that are too long for the
    /// interface are handed to `elsewhere`, with the listener that the request came to. Returns the number of
    /// replies that were sent here.
    pub fn send(&mut self, mut elsewhere: impl FnMut(usize, ReturnPath, &[u8])) -> usize {
        let max_packet = self.shared.max_packet.load(Ordering::Relaxed) as usize;
        let mut sent = 0;
        for at in 0..self.requests.len() {
            let Some(Some(request)) = self.requests.get_mut(at) else { continue };
            let Request { datagram: Datagram { layout, .. }, listener, reply } = *request;
            if reply == 0 {
                continue;
            }
            let payload = layout.payload;
            request.reply = 0;
            let buffer = self.socket.frame_mut(at);
            if payload - layout.network + reply > max_packet {
                let headers = Headers::of(buffer, &layout);
                let bytes = buffer.get(payload..payload + reply).unwrap_or_default();
                elsewhere(listener, ReturnPath::by_frame(headers), bytes);
            } else if let Some(length) = frame::reply(buffer, &layout, reply) {
                request.reply = length;
                sent += 1;
            }
        }
        let requests = &self.requests;
        self.socket.finish(|at| requests.get(at).copied().flatten().map_or(0, |request| request.reply));
        self.requests.clear();
        sent
    }

    /// Writes a reply to a request that another core received, with its headers. `write` writes the payload
    /// and returns its length. A reply that is too long for the interface is handed to `elsewhere`.
    /// [`flush`](Self::flush) has the kernel send it. Returns whether it will be sent here. Needs a
    /// [spare](Self::has_spare) buffer.
    pub fn reply(
        &mut self,
        headers: &Headers,
        write: impl FnOnce(&mut [u8]) -> usize,
        elsewhere: impl FnOnce(&[u8]),
    ) -> bool {
        let max_packet = self.shared.max_packet.load(Ordering::Relaxed) as usize;
        let mut is_sent = false;
        self.socket.send_new(|buffer| {
            let frame = buffer.get_mut(..MAX_FRAME).unwrap_or_default();
            let Some((layout, payload)) = headers.reply(frame, write).filter(|(_, payload)| *payload > 0)
            else {
                return 0;
            };
            let end = layout.payload + payload;
            if end - layout.network > max_packet {
                elsewhere(frame.get(layout.payload..end).unwrap_or_default());
                return 0;
            }
            is_sent = true;
            end
        });
        is_sent
    }

    /// Whether there is a buffer for a reply.
    #[must_use]
    pub fn has_spare(&self) -> bool {
        self.socket.has_spare()
    }

    /// Has the kernel send what has been written by [`reply`](Self::reply).
    pub fn flush(&mut self) {
        self.socket.hand_over();
    }

    /// Has the kernel go on with replies that it could not send.
    pub fn retry(&mut self) {
        if self.socket.unsent() > 0 {
            self.socket.hand_over();
        }
    }

    /// Frames that were lost so far.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn losses(&self) -> io::Result<QueueLosses> {
        let statistics = self.socket.statistics()?;
        Ok(QueueLosses {
            ring_full: statistics.ring_full,
            no_buffer: statistics.no_buffer,
            other: statistics.dropped,
            refused: statistics.refused,
            blocked: self.shared.switches.blocked(self.index),
        })
    }

    /// Why the queue does not work any longer, if so: the interface is gone. Told once.
    pub fn take_error(&self) -> Option<io::Error> {
        self.socket.take_error()
    }
}

/// The datagrams of a batch that a listener serves. Replies are written where the requests are.
#[derive(Debug)]
pub struct XdpBatch<'a> {
    queue: &'a mut XdpQueue,
    positions: [u8; BATCH],
    count: usize,
}

const _: () = assert!(BATCH <= 256, "positions have 8 bits");

impl XdpBatch<'_> {
    fn place(&self, at: usize) -> usize {
        self.positions.get(at).map_or(usize::MAX, |&position| usize::from(position))
    }

    fn datagram(&self, at: usize) -> Option<&Datagram> {
        let request = self.queue.requests.get(self.place(at))?.as_ref()?;
        Some(&request.datagram)
    }
}

impl Datagrams for XdpBatch<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn request(&self, at: usize) -> &[u8] {
        let Some(Datagram { layout, .. }) = self.datagram(at) else { return &[] };
        let frame = self.queue.socket.frame(self.place(at));
        frame.get(layout.payload..layout.payload + layout.length).unwrap_or_default()
    }

    fn is_truncated(&self, _at: usize) -> bool {
        false
    }

    fn source(&self, at: usize) -> Option<SocketAddr> {
        self.datagram(at).map(|datagram| datagram.source)
    }

    fn return_path(&self, at: usize) -> ReturnPath {
        let Some(Datagram { layout, .. }) = self.datagram(at) else {
            return ReturnPath::to(SocketAddr::from(([0; 4], 0)));
        };
        ReturnPath::by_frame(Headers::of(self.queue.socket.frame(self.place(at)), layout))
    }

    fn reply_buffer(&mut self, at: usize) -> &mut [u8] {
        let payload = self.datagram(at).map_or(usize::MAX, |datagram| datagram.layout.payload);
        let place = self.place(at);
        self.queue.socket.frame_mut(place).get_mut(payload..).unwrap_or_default()
    }

    fn set_reply_len(&mut self, at: usize, len: usize) {
        let place = self.place(at);
        if let Some(Some(request)) = self.queue.requests.get_mut(place) {
            request.reply = len;
        }
    }
}
