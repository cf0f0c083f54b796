//! The connections of one core: what waits for each of them, what they have brought, and whether they still live.
//!
//! Whatever is to be done by the clock is found out by one look at all of them a second.

use std::task::Waker;

use aquatic_common::Family;
use slab::Slab;

use crate::config::WsConfig;
use crate::frames::write_ping;
use crate::joined::{JoinLimits, Joined};
use crate::outbound::{Outbound, OutboundLimits};
use crate::swarm::ConnectionId;

/// Seconds within which a connection has to show that it lives when somebody else claims a peer of it.
pub(crate) const PROBE: u32 = 10;

/// Seconds without anything sent after which a connection keeps no room for what it will be sent.
const QUIET: u32 = 1;

/// Questions to other cores from which on a connection is not read from: their answers may come all at once, and are to
/// find room.
const MAX_ASKED: u32 = 4;

/// A ping has no payload.
const PING_LENGTH: usize = 2;

/// Number of looks at all connections so far: seconds, while the core is not kept from working.
type Tick = u32;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client has closed it.
    Client,
    /// The socket has failed.
    Broken,
    /// The client has sent what is no WebSocket.
    Protocol,
    /// A message of the client is too long.
    TooLong,
    /// Text of the client is not UTF-8.
    NotUtf8,
    /// Nothing has come for too long, not even the answer to a ping.
    Silent,
    /// It did not show that it lives when somebody else claimed a peer of it.
    Dead,
    /// No announce, answer or scrape has come for too long.
    Useless,
    /// A message was begun, and has not been finished for too long.
    SlowSender,
    /// The client does not receive what is sent to it.
    SlowReceiver,
    /// The client goes on asking while too many replies to it wait.
    Overfull,
    /// The process stops.
    Stop,
}

impl End {
    pub(crate) const NAMES: [&'static str; 12] = [
        "client",
        "broken",
        "protocol",
        "too_long",
        "not_utf8",
        "silent",
        "dead",
        "useless",
        "slow_sender",
        "slow_receiver",
        "overfull",
        "stop",
    ];

    /// Code and text of the close frame; `None` if there is no use in one.
    pub(crate) fn close_frame(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Client | Self::Broken | Self::Dead | Self::Silent | Self::SlowReceiver | Self::Overfull => {
                None
            }
            Self::Protocol => Some((1002, "protocol error")),
            Self::TooLong => Some((1009, "message too long")),
            Self::NotUtf8 => Some((1007, "text is not UTF-8")),
            Self::Useless => Some((1008, "no announce for too long")),
            Self::SlowSender => Some((1008, "message took too long")),
            Self::Stop => Some((1001, "tracker stops")),
        }
    }
}

/// Why something cannot be sent to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The connection has ended.
    Gone,
    /// Too much waits already.
    Full,
}

/// What one connection may do, and for how long it may do nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) outbound: OutboundLimits,
    pub(crate) joined: JoinLimits,
    pub(crate) idle: Tick,
    pub(crate) useless: Tick,
    pub(crate) sending: Tick,
    pub(crate) receiving: Tick,
    pub(crate) rate: u32,
    pub(crate) burst: u32,
}

impl Bounds {
    pub(crate) fn new(config: &WsConfig) -> Self {
        let client = &config.client;
        Self {
            outbound: OutboundLimits {
                max_bytes: client.max_unsent_bytes,
                max_messages: client.max_unsent_messages,
            },
            joined: JoinLimits {
                max_peers: client.max_peers,
                max_peer_ids: client.max_peer_ids,
                max_age: config.cleaning.max_peer_age,
            },
            idle: client.idle_timeout,
            useless: client.max_announce_idle,
            sending: client.message_timeout,
            receiving: client.send_timeout,
            rate: client.max_message_rate,
            burst: client.max_message_burst,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    generation: u32,
    pub(crate) family: Family,
    pub(crate) outbound: Outbound,
    pub(crate) joined: Joined,
    waker: Option<Waker>,
    pub(crate) end: Option<End>,
    /// Frames that may come before the next look; below 0 if more have come at once.
    tokens: i64,
    /// Announces and scrapes that other cores were asked about since the last look and have not answered.
    asked: u32,
    heard: Tick,
    useful: Tick,
    /// Since when something waits to be sent and nothing of it goes.
    stuck: Tick,
    /// Since when a message is incomplete.
    amid: Option<Tick>,
    probed: Option<Tick>,
    pinged: bool,
}

impl Connection {
    /// Sets who is to be woken when something waits to be sent, or the connection is to end.
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

    /// Whether more may be read.
    pub(crate) fn may_read(&self) -> bool {
        self.tokens > 0 && self.asked < MAX_ASKED
    }
}

/// All connections of one core.
#[derive(Debug)]
pub(crate) struct Connections {
    core: u16,
    bounds: Bounds,
    now: Tick,
    generation: u32,
    places: Slab<Connection>,
    /// The connection whose task is running: it need not be woken.
    current: Option<u32>,
}

impl Connections {
    pub(crate) fn new(core: u16, bounds: Bounds) -> Self {
        Self { core, bounds, now: 0, generation: 0, places: Slab::new(), current: None }
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub(crate) fn open(&mut self, family: Family) -> ConnectionId {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.places.insert(Connection {
            generation: self.generation,
            family,
            outbound: Outbound::default(),
            joined: Joined::default(),
            waker: None,
            end: None,
            tokens: self.bounds.burst.into(),
            asked: 0,
            heard: self.now,
            useful: self.now,
            stuck: self.now,
            amid: None,
            probed: None,
            pinged: false,
        });
        ConnectionId { core: self.core, slot: slot as u32, generation: self.generation }
    }

    /// Forgets a connection, and returns it.
    pub(crate) fn close(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get(id)?;
        let closed = self.places.try_remove(id.slot as usize);
        if self.places.is_empty() {
            self.places.shrink_to_fit();
        }
        closed
    }

    pub(crate) fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.places.get_mut(id.slot as usize).filter(|connection| connection.generation == id.generation)
    }

    /// Sets whose task is running.
    pub(crate) fn set_current(&mut self, id: Option<ConnectionId>) {
        self.current = id.map(|id| id.slot);
    }

    /// Adds a frame with something of the tracker's own to what waits for a connection, which ends if that is too much: it
    /// goes on asking, and does not receive. Returns the family of the client.
    pub(crate) fn push(
        &mut self,
        id: ConnectionId,
        length: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Family, Lost> {
        let pushed = self.push_within(self.bounds.outbound, id, length, write);
        if pushed == Err(Lost::Full)
            && let Some(connection) = self.get(id)
        {
            connection.end = Some(End::Overfull);
            connection.wake();
        }
        pushed
    }

    /// Adds a frame with something from another client. It is lost if too much waits: strangers could otherwise end the
    /// connections of those who receive slowly. Some room is left for what the client itself asks for.
    pub(crate) fn push_relay(
        &mut self,
        id: ConnectionId,
        length: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Family, Lost> {
        self.push_within(self.bounds.outbound.for_relays(), id, length, write)
    }

    fn push_within(
        &mut self,
        limits: OutboundLimits,
        id: ConnectionId,
        length: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Family, Lost> {
        let (now, current) = (self.now, self.current);
        let connection = self.get(id).filter(|connection| connection.end.is_none()).ok_or(Lost::Gone)?;
        if !connection.outbound.has_room(length, limits) {
            return Err(Lost::Full);
        }
        if connection.outbound.is_empty() {
            connection.stuck = now;
        }
        connection.outbound.push(write);
        if current != Some(id.slot) {
            connection.wake();
        }
        Ok(connection.family)
    }

    /// Takes note that something has come. `amid` tells whether a message is incomplete now.
    pub(crate) fn note_heard(&mut self, id: ConnectionId, amid: bool) {
        let now = self.now;
        if let Some(connection) = self.get(id) {
            connection.heard = now;
            connection.pinged = false;
            connection.probed = None;
            connection.amid = if amid { connection.amid.or(Some(now)) } else { None };
        }
    }

    /// Takes note of a frame.
    pub(crate) fn note_frame(&mut self, id: ConnectionId) {
        if self.bounds.rate > 0
            && let Some(connection) = self.get(id)
        {
            connection.tokens -= 1;
        }
    }

    /// Takes note that another core was asked for something.
    pub(crate) fn note_asked(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id) {
            connection.asked += 1;
        }
    }

    /// Takes note that another core has answered. The answer, which is pushed then, wakes the task.
    pub(crate) fn note_told(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id) {
            connection.asked = connection.asked.saturating_sub(1);
        }
    }

    /// Takes note of a message that is of use.
    pub(crate) fn note_useful(&mut self, id: ConnectionId) {
        let now = self.now;
        if let Some(connection) = self.get(id) {
            connection.useful = now;
        }
    }

    /// Takes note that something could be sent.
    pub(crate) fn note_sent(&mut self, id: ConnectionId, bytes: usize) {
        let now = self.now;
        if let Some(connection) = self.get(id) {
            connection.outbound.advance(bytes);
            connection.stuck = now;
            // Where more waits than the system takes at once, that it takes more shows that the client receives.
            if connection.probed.is_some() && !connection.outbound.is_empty() {
                connection.probed = Some(now);
            }
        }
    }

    /// Finds out whether a connection lives.
    pub(crate) fn probe(&mut self, id: ConnectionId) {
        let now = self.now;
        if self.get(id).is_none_or(|connection| connection.probed.is_some()) {
            return;
        }
        // If there is no room, the client is receiving, or will soon have done so for too long.
        if self.push_relay(id, PING_LENGTH, write_ping).is_ok()
            && let Some(connection) = self.get(id)
        {
            connection.probed = Some(now);
            connection.pinged = true;
        }
    }

    /// Ends all connections.
    pub(crate) fn end_all(&mut self, end: End) {
        for (_, connection) in &mut self.places {
            connection.end.get_or_insert(end);
            connection.wake();
        }
    }

    /// Looks at all connections; to be called once a second. Returns how many had sent too much since the last look.
    pub(crate) fn look(&mut self) -> u64 {
        self.now += 1;
        let (now, bounds) = (self.now, self.bounds);
        let mut throttled = 0;
        for (_, connection) in &mut self.places {
            if connection.end.is_some() {
                continue;
            }
            connection.end = connection.overdue(now, &bounds);
            if now - connection.stuck > QUIET {
                connection.outbound.release();
            }
            let may_read = connection.may_read();
            throttled += u64::from(connection.tokens <= 0);
            // What was lost on the way is not waited for.
            connection.asked = 0;
            connection.tokens = (connection.tokens + i64::from(bounds.rate)).min(bounds.burst.into());
            if !connection.pinged && now - connection.heard >= bounds.idle.div_ceil(2) {
                connection.pinged = true;
                if connection.outbound.is_empty() {
                    connection.stuck = now;
                }
                // Two bytes and one message more than its limits, at most.
                connection.outbound.push(write_ping);
                connection.wake();
            }
            if connection.end.is_some() || !may_read {
                connection.wake();
            }
        }
        throttled
    }
}

impl Connection {
    /// Whether something has taken too long.
    fn overdue(&self, now: Tick, bounds: &Bounds) -> Option<End> {
        // The look that counts as the first may have come at once.
        let is_over = |since: Tick, limit: Tick| now - since > limit;
        if !self.outbound.is_empty() && is_over(self.stuck, bounds.receiving) {
            Some(End::SlowReceiver)
        } else if is_over(self.heard, bounds.idle) {
            Some(End::Silent)
        } else if self.probed.is_some_and(|since| is_over(since, PROBE)) {
            Some(End::Dead)
        } else if self.amid.is_some_and(|since| is_over(since, bounds.sending)) {
            Some(End::SlowSender)
        } else if is_over(self.useful, bounds.useless) {
            Some(End::Useless)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Connections {
        let mut config = WsConfig::default();
        config.client.max_unsent_bytes = 1000;
        config.client.max_message_rate = 2;
        config.client.max_message_burst = 5;
        Connections::new(3, Bounds::new(&config))
    }

    fn look(connections: &mut Connections, times: u32) {
        (0..times).for_each(|_| {
            connections.look();
        });
    }

    #[test]
    fn a_name_is_for_one_connection_only() {
        let mut connections = connections();
        let first = connections.open(Family::V4);
        assert!(connections.close(first).is_some());
        let second = connections.open(Family::V6);
        assert_eq!((first.slot, second.core), (second.slot, 3));
        assert!(connections.get(first).is_none() && connections.close(first).is_none());
        assert_eq!(connections.push(first, 1, |_| panic!("it has ended")), Err(Lost::Gone));
        assert_eq!(connections.push(second, 1, |out| out.push(1)), Ok(Family::V6));
    }

    #[test]
    fn silence_is_met_with_a_ping_and_then_with_the_end() {
        let mut connections = connections();
        let id = connections.open(Family::V4);
        look(&mut connections, 37);
        assert!(connections.get(id).unwrap().outbound.is_empty());
        look(&mut connections, 1);
        assert_eq!(connections.get(id).unwrap().outbound.unsent(), [0x89, 0]);
        connections.note_sent(id, 2);
        look(&mut connections, 37);
        assert_eq!(connections.get(id).unwrap().end, None);
        connections.note_heard(id, false);
        look(&mut connections, 38);
        connections.note_sent(id, 2);
        look(&mut connections, 37);
        assert_eq!(connections.get(id).unwrap().end, None);
        look(&mut connections, 1);
        assert_eq!(connections.get(id).unwrap().end, Some(End::Silent));
    }

    #[test]
    fn a_probe_has_to_be_answered_soon() {
        let mut connections = connections();
        let (dead, alive) = (connections.open(Family::V4), connections.open(Family::V4));
        for id in [dead, alive] {
            connections.probe(id);
            assert_eq!(connections.get(id).unwrap().outbound.unsent(), [0x89, 0]);
            connections.probe(id);
            connections.note_sent(id, 2);
            assert!(connections.get(id).unwrap().outbound.is_empty(), "one ping is enough");
        }
        connections.note_heard(alive, false);
        let slow = connections.open(Family::V4);
        connections.push(slow, 100, |out| out.resize(100, 0)).unwrap();
        connections.probe(slow);
        for _ in 0..=PROBE {
            connections.note_sent(slow, 1);
            look(&mut connections, 1);
        }
        assert_eq!(connections.get(dead).unwrap().end, Some(End::Dead));
        assert_eq!(connections.get(alive).unwrap().end, None);
        assert_eq!(connections.get(slow).unwrap().end, None, "it receives what came before the ping");
    }

    #[test]
    fn what_takes_too_long_ends() {
        let mut connections = connections();
        let (slow, stuck) = (connections.open(Family::V4), connections.open(Family::V4));
        connections.note_heard(slow, true);
        connections.push(stuck, 1, |out| out.push(1)).unwrap();
        look(&mut connections, 6);
        connections.note_heard(slow, true);
        look(&mut connections, 5);
        assert_eq!(connections.get(slow).unwrap().end, Some(End::SlowSender), "however often bytes come");
        look(&mut connections, 20);
        assert_eq!(connections.get(stuck).unwrap().end, Some(End::SlowReceiver));
        let useless = connections.open(Family::V4);
        for _ in 0..601 {
            connections.note_heard(useless, false);
            look(&mut connections, 1);
        }
        assert_eq!(connections.get(useless).unwrap().end, Some(End::Useless));
    }

    #[test]
    fn too_much_that_waits_ends_the_connection_unless_others_sent_it() {
        let mut connections = connections();
        let id = connections.open(Family::V4);
        assert!(connections.push_relay(id, 750, |out| out.resize(750, 0)).is_ok());
        for _ in 0..100 {
            assert_eq!(connections.push_relay(id, 1, |_| panic!("there is no room")), Err(Lost::Full));
        }
        assert!(connections.push(id, 250, |out| out.resize(1000, 0)).is_ok());
        assert_eq!(connections.get(id).unwrap().end, None);
        assert_eq!(connections.push(id, 1, |_| panic!("there is no room")), Err(Lost::Full));
        assert_eq!(connections.get(id).unwrap().end, Some(End::Overfull));
    }

    #[test]
    fn nothing_is_read_while_other_cores_have_many_questions() {
        let mut connections = connections();
        let id = connections.open(Family::V4);
        (0..MAX_ASKED).for_each(|_| connections.note_asked(id));
        assert!(!connections.get(id).unwrap().may_read());
        connections.note_told(id);
        assert!(connections.get(id).unwrap().may_read());
        connections.note_asked(id);
        assert_eq!(connections.look(), 0, "this is no throttling");
        assert!(connections.get(id).unwrap().may_read(), "answers that are lost are not waited for");
    }

    #[test]
    fn messages_come_at_their_rate() {
        let mut connections = connections();
        let id = connections.open(Family::V4);
        let read = |connections: &mut Connections| {
            let mut count = 0;
            while connections.get(id).unwrap().may_read() {
                connections.note_frame(id);
                count += 1;
            }
            count
        };
        assert_eq!(read(&mut connections), 5);
        look(&mut connections, 1);
        assert_eq!(read(&mut connections), 2);
        look(&mut connections, 100);
        assert_eq!(read(&mut connections), 5);
    }
}
