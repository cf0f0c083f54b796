//! Connections of one core: send queue, memberships, rate limit and liveness of each.
//!
//! There are no timers for single connections. [`Connections::tick`] visits all of them once a second.

use std::net::IpAddr;
use std::task::Waker;

use aquatic_common::{Family, InfoHash, PeerId, Seconds};
use slab::Slab;

use crate::config::WsConfig;
use crate::frames::write_ping;
use crate::labels::labels;
use crate::memberships::{MembershipLimits, Memberships, TooMany};
use crate::nodes::offers::NodeOffers;
use crate::send_queue::{Origin, SendQueue, SendQueueLimits};
use crate::swarm::{ConnectionId, Network};

/// Seconds within which a connection must answer a probe, sent because another connection claims one of its
/// peers.
pub(crate) const PROBE_TIMEOUT: u32 = 10;

/// Seconds without progress in sending after which the memory of an empty send queue is released.
const RELEASE_AFTER: u32 = 1;

/// Number of pending requests to other cores from which on a connection is not read from. Their responses may
/// arrive at once, and must fit into the send queue.
const MAX_PENDING_REQUESTS: u32 = 4;

/// Maximum number of control frames and fragments between two complete messages. A message of the largest
/// `ws.client.max_message_size`, 1 MiB, fits in fragments of 512 bytes.
const MAX_FRAMES_PER_MESSAGE: u32 = 2048;

/// Length of a ping without payload, in bytes.
const PING_LENGTH: usize = 2;

/// Share of the send queue's limit that replies may take up before a client's requests wait, and that is read
/// at most at once.
const READ_SHARE: usize = 8;

/// Bytes of an incomplete message that are read whatever memory others take: scrapes, and announces with few
/// offers.
const SMALL_MESSAGE: usize = 4096;

/// Times the length of a request that its reply is at most.
const REPLY_TO_REQUEST: usize = 4;

/// Length in bytes of the shortest frame with a request that is served: a scrape.
const SHORTEST_REQUEST: usize = 60;

/// Number of calls of [`Connections::tick`] so far: seconds, unless the core was blocked.
type Tick = u32;

labels! {
    /// Reason why a connection ends.
    pub enum End {
        /// The client closed the connection.
        Client => "client",
        /// The socket failed.
        Broken => "broken",
        /// The client violated the WebSocket protocol.
        Protocol => "protocol",
        /// A message exceeded `ws.client.max_message_size`.
        TooLong => "too_long",
        /// A text message was not UTF-8.
        NotUtf8 => "not_utf8",
        /// Too many control frames and fragments came without a complete message.
        FrameFlood => "frame_flood",
        /// Nothing was received for `ws.client.idle_timeout`, not even a pong.
        Silent => "silent",
        /// The client did not answer a probe.
        ProbeFailed => "probe_failed",
        /// No announce, answer or scrape came for `ws.client.max_announce_idle`.
        NoAnnounce => "no_announce",
        /// A message was incomplete for more than `ws.client.message_timeout`.
        SlowSender => "slow_sender",
        /// A message was incomplete when those of all took too much of `limits.max_memory`.
        PartialMessage => "partial_message",
        /// Nothing could be sent for `ws.client.send_timeout`.
        SlowReceiver => "slow_receiver",
        /// A reply did not fit into the send queue.
        SendQueueFull => "send_queue_full",
        /// The tracker is stopping.
        Stop => "stop",
    }
}

impl End {
    /// Returns status code (RFC 6455, section 7.4.1) and reason of the close frame, or `None` if none is
    /// sent.
    pub(crate) fn close_frame(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Client
            | Self::Broken
            | Self::ProbeFailed
            | Self::Silent
            | Self::SlowReceiver
            | Self::SendQueueFull => None,
            Self::Protocol => Some((1002, "protocol error")),
            Self::TooLong => Some((1009, "message too long")),
            Self::NotUtf8 => Some((1007, "text is not UTF-8")),
            Self::FrameFlood => Some((1008, "too many frames without a message")),
            Self::NoAnnounce => Some((1008, "no announce for too long")),
            Self::SlowSender => Some((1008, "message took too long")),
            Self::PartialMessage => Some((1013, "too little memory for incomplete messages")),
            Self::Stop => Some((1001, "tracker stops")),
        }
    }
}

/// Reason why a frame is not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueError {
    /// The connection has ended.
    Closed,
    /// The send queue is full.
    Full,
}

/// Limits on one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    pub(crate) send_queue: SendQueueLimits,
    pub(crate) memberships: MembershipLimits,
    /// Maximum time without received data.
    pub(crate) idle: Tick,
    /// Maximum time without announce, answer or scrape.
    pub(crate) announce_idle: Tick,
    /// Maximum time to receive a message.
    pub(crate) receive: Tick,
    /// Maximum time without progress in sending.
    pub(crate) send: Tick,
    /// Frames per second; 0 for no limit.
    pub(crate) rate: u32,
    /// Frames at once.
    pub(crate) burst: u32,
}

impl ConnectionLimits {
    pub(crate) fn new(config: &WsConfig) -> Self {
        let client = &config.client;
        Self {
            send_queue: SendQueueLimits {
                max_bytes: client.max_unsent_bytes,
                max_messages: client.max_unsent_messages,
            },
            memberships: MembershipLimits {
                max_peers: client.max_peers,
                max_peers_per_torrent: client.max_peers_per_torrent,
                max_peer_ids: client.max_peer_ids,
                max_peer_age: config.cleaning.max_peer_age,
            },
            idle: client.idle_timeout,
            announce_idle: client.max_announce_idle,
            receive: client.message_timeout,
            send: client.send_timeout,
            rate: client.max_message_rate,
            burst: client.max_message_burst,
        }
    }
}

/// State of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    generation: u32,
    pub(crate) family: Family,
    /// Whose messages these are, if they are limited.
    pub(crate) source: Option<IpAddr>,
    /// Network of the client.
    pub(crate) network: Network,
    /// Whether the source is above its rate limit, so that the connection is not read from before the next
    /// tick.
    is_paused: bool,
    pub(crate) send_queue: SendQueue,
    pub(crate) memberships: Memberships,
    /// Offers that clients of other nodes made to it.
    pub(crate) node_offers: Option<Box<NodeOffers>>,
    waker: Option<Waker>,
    pub(crate) end: Option<End>,
    /// Number of frames that may be received before the next tick. Negative if one read contained more.
    tokens: i64,
    /// Number of control frames and fragments since the last complete message.
    frames_without_message: u32,
    /// Number of requests to other cores since the last tick without response.
    pending_requests: u32,
    last_received: Tick,
    last_request: Tick,
    /// Last time at which something was sent, or the send queue was empty.
    blocked_since: Tick,
    /// Time at which the incomplete message began.
    partial_message_since: Option<Tick>,
    /// Memory that it takes, in bytes.
    partial_bytes: usize,
    probe_sent: Option<Tick>,
    ping_sent: bool,
}

impl Connection {
    /// Sets the waker of the task that sends the queue and ends the connection.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none @ None => *none = Some(waker.clone()),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Has the connection not be read from before the next tick.
    pub(crate) fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Returns whether rate limits and requests to other cores allow reading.
    pub(crate) fn may_read(&self) -> bool {
        self.tokens > 0 && !self.is_paused && self.pending_requests < MAX_PENDING_REQUESTS
    }

    /// Returns how many bytes may be read at present. The client's own replies, which it has to receive
    /// first, can make this 0, but not what others send it: a quarter of the queue is left for replies.
    fn readable(&self, limits: SendQueueLimits, most_partial: usize) -> usize {
        let SendQueueLimits { max_bytes, max_messages } = limits;
        let pending = self.pending_requests as usize;
        let most = max_bytes / READ_SHARE;
        let is_full = self.send_queue.reply_bytes() >= most.max(1)
            || self.send_queue.replies() + pending >= max_messages / 2;
        let partial = most_partial.saturating_sub(self.partial_bytes);
        if is_full || partial == 0 || !self.may_read() {
            return 0;
        }
        let requests = max_messages.saturating_sub(self.send_queue.messages() + pending);
        let bytes = max_bytes.saturating_sub(self.send_queue.len()) / REPLY_TO_REQUEST;
        let readable = most.min(bytes).min(requests.min(max_messages / 2) * SHORTEST_REQUEST);
        // Whatever the limits, a client that has received everything is served.
        let readable = if self.send_queue.is_empty() { readable.max(SHORTEST_REQUEST) } else { readable };
        readable.min(partial)
    }
}

/// Connections of one core.
#[derive(Debug)]
pub(crate) struct Connections {
    core: u16,
    limits: ConnectionLimits,
    now: Tick,
    generation: u32,
    slots: Slab<Connection>,
    /// Bytes that all send queues may have together, and incomplete messages half of, if they are bounded.
    max_unsent: Option<usize>,
    /// Bytes in all send queues. Brought up to date by each tick, and kept so in between.
    unsent: usize,
    /// Memory of all incomplete messages in bytes, likewise.
    partial: usize,
    /// Memory of all memberships in bytes, likewise.
    membership_bytes: usize,
    /// Slot of the connection whose task is running, which needs no wake-up.
    current: Option<u32>,
}

impl Connections {
    pub(crate) fn new(core: u16, limits: ConnectionLimits) -> Self {
        Self {
            core,
            limits,
            now: 0,
            generation: 0,
            slots: Slab::new(),
            max_unsent: None,
            unsent: 0,
            partial: 0,
            membership_bytes: 0,
            current: None,
        }
    }

    /// Replaces the limits, also those of open connections. These keep what they have beyond them.
    pub(crate) fn set_limits(&mut self, limits: ConnectionLimits) {
        self.limits = limits;
    }

    /// Bounds the bytes that all send queues may have together, and to half of that the memory of incomplete
    /// messages.
    pub(crate) fn set_max_unsent(&mut self, bytes: Option<usize>) {
        self.max_unsent = bytes;
    }

    /// Memory of what connections have announced, in bytes.
    pub(crate) fn membership_bytes(&self) -> usize {
        self.membership_bytes
    }

    /// Records that a connection has announced a peer, unless a limit is reached or it is a new one and none
    /// may be added. Returns whether it is recorded.
    pub(crate) fn join(
        &mut self,
        id: ConnectionId,
        peer: (InfoHash, PeerId),
        now: Seconds,
        may_be_added: bool,
    ) -> Result<bool, TooMany> {
        let limits = self.limits.memberships;
        let Some(connection) = self.get(id) else { return Ok(true) };
        let memberships = &mut connection.memberships;
        if !may_be_added && !memberships.contains(&peer) {
            return Ok(false);
        }
        let before = memberships.bytes();
        let joined = memberships.join(peer, now, limits);
        let added = memberships.bytes().saturating_sub(before);
        self.membership_bytes += added;
        joined.map(|()| true)
    }

    /// Limits of each send queue at present. Once half of what all may have is used, each may have an even
    /// share of the other half, so that slow receivers leave room for the replies to others.
    fn send_queue_limits(&self) -> SendQueueLimits {
        let limits = self.limits.send_queue;
        match self.max_unsent {
            Some(all) if self.unsent > all / 2 => SendQueueLimits {
                max_bytes: limits.max_bytes.min(all / 2 / self.slots.len().max(1)),
                ..limits
            },
            Some(_) | None => limits,
        }
    }

    /// Returns how many bytes may be read from a connection at present; 0 for none.
    pub(crate) fn readable(&mut self, id: ConnectionId) -> usize {
        let (limits, most_partial) = (self.send_queue_limits(), self.most_partial());
        self.get(id).map_or(0, |connection| connection.readable(limits, most_partial))
    }

    /// Most bytes that an incomplete message may have at present for more of it to be read.
    fn most_partial(&self) -> usize {
        let is_over = self.max_unsent.is_some_and(|all| self.partial > all / 2);
        if is_over { SMALL_MESSAGE } else { usize::MAX }
    }

    /// Ends connections whose messages have been incomplete for longest, until the rest of those take less
    /// memory than they may.
    fn end_partial(&mut self) {
        let Some(all) = self.max_unsent.filter(|all| self.partial > all / 2) else { return };
        let open = self.slots.iter().filter(|(_, connection)| connection.end.is_none());
        let mut left: usize = open.clone().map(|(_, connection)| connection.partial_bytes).sum();
        let mut partial: Vec<_> = open
            .filter(|(_, connection)| connection.partial_bytes > SMALL_MESSAGE)
            .map(|(slot, connection)| (connection.partial_message_since.unwrap_or(self.now), slot))
            .collect();
        partial.sort_unstable();
        for (_, slot) in partial {
            if left <= all / 2 {
                break;
            }
            let connection = &mut self.slots[slot];
            left -= connection.partial_bytes.min(left);
            connection.end = Some(End::PartialMessage);
            connection.wake();
        }
    }

    /// Adds a connection.
    pub(crate) fn open(&mut self, family: Family) -> ConnectionId {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.slots.insert(Connection {
            generation: self.generation,
            family,
            source: None,
            network: Network::UNKNOWN,
            is_paused: false,
            send_queue: SendQueue::default(),
            memberships: Memberships::default(),
            node_offers: None,
            waker: None,
            end: None,
            tokens: self.limits.burst.into(),
            frames_without_message: 0,
            pending_requests: 0,
            last_received: self.now,
            last_request: self.now,
            blocked_since: self.now,
            partial_message_since: None,
            partial_bytes: 0,
            probe_sent: None,
            ping_sent: false,
        });
        ConnectionId { core: self.core, slot: slot as u32, generation: self.generation }
    }

    /// Removes a connection and returns it.
    pub(crate) fn close(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get(id)?;
        let closed = self.slots.try_remove(id.slot as usize);
        if let Some(closed) = &closed {
            self.unsent = self.unsent.saturating_sub(closed.send_queue.len());
            self.partial = self.partial.saturating_sub(closed.partial_bytes);
            self.membership_bytes = self.membership_bytes.saturating_sub(closed.memberships.bytes());
        }
        if self.slots.is_empty() {
            self.slots.shrink_to_fit();
        }
        closed
    }

    /// Returns a connection, unless it has ended.
    pub(crate) fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.slot as usize).filter(|connection| connection.generation == id.generation)
    }

    /// Sets the connection whose task is running.
    pub(crate) fn set_current(&mut self, id: Option<ConnectionId>) {
        self.current = id.map(|id| id.slot);
    }

    /// Queues a frame with a reply. If it does not fit, the connection ends: the client sends requests
    /// without reading the replies. Returns the address family of the client.
    pub(crate) fn push(
        &mut self,
        id: ConnectionId,
        length: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Family, QueueError> {
        let pushed = self.push_within(self.send_queue_limits(), id, (Origin::Reply, length), write);
        if pushed == Err(QueueError::Full)
            && let Some(connection) = self.get(id)
        {
            connection.end = Some(End::SendQueueFull);
            connection.wake();
        }
        pushed
    }

    /// Queues a frame from another client. If it does not fit, only the frame is lost: other clients must not
    /// be able to end connections of slow readers. A quarter of the queue is reserved for replies. Returns
    /// the address family of the client.
    pub(crate) fn push_relay(
        &mut self,
        id: ConnectionId,
        length: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Family, QueueError> {
        // Any frame fits into an empty queue, so that of all queues is looked at as well.
        if self.max_unsent.is_some_and(|all| self.unsent + length > all) {
            return self.get(id).map_or(Err(QueueError::Closed), |_| Err(QueueError::Full));
        }
        self.push_within(self.send_queue_limits().for_relays(), id, (Origin::Relay, length), write)
    }

    fn push_within(
        &mut self,
        limits: SendQueueLimits,
        id: ConnectionId,
        (origin, length): (Origin, usize),
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Family, QueueError> {
        let (now, current) = (self.now, self.current);
        let connection =
            self.get(id).filter(|connection| connection.end.is_none()).ok_or(QueueError::Closed)?;
        if !connection.send_queue.fits(length, limits) {
            return Err(QueueError::Full);
        }
        if connection.send_queue.is_empty() {
            connection.blocked_since = now;
        }
        let before = connection.send_queue.len();
        connection.send_queue.push(origin, write);
        let added = connection.send_queue.len() - before;
        if current != Some(id.slot) {
            connection.wake();
        }
        let family = connection.family;
        self.unsent += added;
        Ok(family)
    }

    /// Records that data was received, after which a message is incomplete or not and takes so much memory.
    pub(crate) fn data_received(
        &mut self,
        id: ConnectionId,
        has_partial_message: bool,
        partial_bytes: usize,
    ) {
        let now = self.now;
        if let Some(connection) = self.get(id) {
            connection.last_received = now;
            connection.ping_sent = false;
            connection.probe_sent = None;
            connection.partial_message_since =
                if has_partial_message { connection.partial_message_since.or(Some(now)) } else { None };
            let before = std::mem::replace(&mut connection.partial_bytes, partial_bytes);
            self.partial = self.partial.saturating_sub(before) + partial_bytes;
        }
    }

    /// Counts a received frame against the rate limit. A connection that sends too many frames without
    /// completing a message ends.
    pub(crate) fn frame_received(&mut self, id: ConnectionId, completes_message: bool) {
        let is_limited = self.limits.rate > 0;
        let Some(connection) = self.get(id) else { return };
        connection.tokens -= i64::from(is_limited);
        if completes_message {
            connection.frames_without_message = 0;
            // What follows in the same read is another message.
            connection.partial_message_since = None;
        } else if connection.frames_without_message < MAX_FRAMES_PER_MESSAGE {
            connection.frames_without_message += 1;
        } else {
            connection.end.get_or_insert(End::FrameFlood);
        }
    }

    /// Records that a request of the client was sent to another core.
    pub(crate) fn request_sent(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id) {
            connection.pending_requests += 1;
        }
    }

    /// Records that another core responded. The reply, which is queued next, wakes the task.
    pub(crate) fn response_received(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id) {
            connection.pending_requests = connection.pending_requests.saturating_sub(1);
        }
    }

    /// Records a valid announce, answer or scrape.
    pub(crate) fn request_received(&mut self, id: ConnectionId) {
        let now = self.now;
        if let Some(connection) = self.get(id) {
            connection.last_request = now;
        }
    }

    /// Removes sent bytes from the send queue.
    pub(crate) fn data_sent(&mut self, id: ConnectionId, bytes: usize) {
        let now = self.now;
        if let Some(connection) = self.get(id) {
            let before = connection.send_queue.len();
            connection.send_queue.advance(bytes);
            let sent = before - connection.send_queue.len();
            connection.blocked_since = now;
            // With more queued than the socket takes at once, progress shows that the client receives.
            if connection.probe_sent.is_some() && !connection.send_queue.is_empty() {
                connection.probe_sent = Some(now);
            }
            self.unsent = self.unsent.saturating_sub(sent);
        }
    }

    /// Sends a ping that must be answered within [`PROBE_TIMEOUT`].
    pub(crate) fn probe(&mut self, id: ConnectionId) {
        let now = self.now;
        if self.get(id).is_none_or(|connection| connection.probe_sent.is_some()) {
            return;
        }
        // With a full queue, the client is either receiving or about to end as a slow receiver.
        if self.push_relay(id, PING_LENGTH, write_ping).is_ok()
            && let Some(connection) = self.get(id)
        {
            connection.probe_sent = Some(now);
            connection.ping_sent = true;
        }
    }

    /// Ends one of so many connections.
    pub(crate) fn end_share(&mut self, of: usize, end: End) {
        let open = self.slots.iter().filter(|(_, connection)| connection.end.is_none()).count();
        let open_slots = self.slots.iter_mut().filter(|(_, connection)| connection.end.is_none());
        for (_, connection) in open_slots.take(open.div_ceil(of.max(1))) {
            connection.end = Some(end);
            connection.wake();
        }
    }

    /// Ends all connections.
    pub(crate) fn end_all(&mut self, end: End) {
        for (_, connection) in &mut self.slots {
            connection.end.get_or_insert(end);
            connection.wake();
        }
    }

    /// Ends connections that exceed a time limit, sends pings and refills the rate limits. To be called once
    /// a second. Returns the number of connections that were above the rate limit since the last call.
    pub(crate) fn tick(&mut self) -> u64 {
        self.now += 1;
        let (now, limits) = (self.now, self.limits);
        let (mut throttled, queue_limits, most_partial) = (0, self.send_queue_limits(), self.most_partial());
        (self.unsent, self.partial, self.membership_bytes) = (0, 0, 0);
        for (_, connection) in &mut self.slots {
            self.unsent += connection.send_queue.len();
            self.partial += connection.partial_bytes;
            self.membership_bytes += connection.memberships.bytes();
            if connection.end.is_some() {
                continue;
            }
            let is_read = connection.readable(queue_limits, most_partial) > 0;
            if !is_read {
                connection.wait_unread(now);
            }
            connection.end = connection.timed_out(now, &limits);
            if now - connection.blocked_since > RELEASE_AFTER {
                connection.send_queue.release();
            }
            throttled += u64::from(connection.tokens <= 0 || connection.is_paused);
            connection.is_paused = false;
            // Responses may have been lost because a queue was full.
            connection.pending_requests = 0;
            connection.tokens = if limits.rate == 0 {
                // Without a limit nothing is taken away, but there may have been one before.
                limits.burst.into()
            } else {
                (connection.tokens + i64::from(limits.rate)).min(limits.burst.into())
            };
            if !connection.ping_sent && now - connection.last_received >= limits.idle.div_ceil(2) {
                connection.ping_sent = true;
                if connection.send_queue.is_empty() {
                    connection.blocked_since = now;
                }
                // May exceed the limits of the queue by one frame of two bytes.
                connection.send_queue.push(Origin::Relay, write_ping);
                connection.wake();
            }
            if connection.end.is_some() || !is_read {
                connection.wake();
            }
        }
        self.end_partial();
        throttled
    }
}

impl Connection {
    /// Lets a second pass in which the connection was not read from: what the client has sent meanwhile is
    /// not late.
    fn wait_unread(&mut self, now: Tick) {
        let since =
            [Some(&mut self.last_received), self.probe_sent.as_mut(), self.partial_message_since.as_mut()];
        since.into_iter().flatten().for_each(|since| *since = (*since + 1).min(now));
    }

    /// Returns the reason to end the connection if it exceeds a time limit.
    fn timed_out(&self, now: Tick, limits: &ConnectionLimits) -> Option<End> {
        // The first tick may have followed immediately.
        let is_over = |since: Tick, limit: Tick| now - since > limit;
        if !self.send_queue.is_empty() && is_over(self.blocked_since, limits.send) {
            Some(End::SlowReceiver)
        } else if is_over(self.last_received, limits.idle) {
            Some(End::Silent)
        } else if self.probe_sent.is_some_and(|since| is_over(since, PROBE_TIMEOUT)) {
            Some(End::ProbeFailed)
        } else if self.partial_message_since.is_some_and(|since| is_over(since, limits.receive)) {
            Some(End::SlowSender)
        } else if is_over(self.last_request, limits.announce_idle) {
            Some(End::NoAnnounce)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
