//! Slots for connections: each has one client after the other.

use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::connection::Connection;
use aquatic_load_engine::events::Events;

use crate::config::WebSocketClient;
use crate::socket::{Socket, SocketError, Upgrade};

/// State of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClientState {
    /// No client.
    #[default]
    Absent,
    /// Connecting or upgrading.
    Upgrading,
    /// Sending the first announce to each of its torrents.
    Joining,
    /// In all its torrents.
    Joined,
    /// Sending `stopped` to each of its torrents.
    Stopping,
    /// Close frame sent.
    Closing,
}

/// Announce without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PendingAnnounce {
    pub(crate) membership: u8,
    /// Intended send time, from which the latency is measured.
    pub(crate) intended: Nanos,
}

/// Scrape without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PendingScrape {
    /// Seed of its torrents.
    pub(crate) subject: u64,
    pub(crate) intended: Nanos,
}

/// Expected replies on a connection. Some trackers also reply to answers, in the order of the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replies {
    /// Number of answers sent before the announce, or without one in flight.
    before: u32,
    announce: Option<PendingAnnounce>,
    /// Number of answers sent after the announce.
    after: u32,
}

/// Message that a reply belongs to, see [`Replies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyTo {
    Announce(PendingAnnounce),
    Answer,
    /// No message that a reply is expected for.
    Nothing,
}

impl Replies {
    pub(crate) fn announce(&self) -> Option<PendingAnnounce> {
        self.announce
    }

    pub(crate) fn announced(&mut self, announced: PendingAnnounce) {
        self.announce = Some(announced);
    }

    /// Records a sent answer to which the tracker replies.
    pub(crate) fn answered(&mut self) {
        *(if self.announce.is_some() { &mut self.after } else { &mut self.before }) += 1;
    }

    /// Returns the message that a received reply belongs to.
    pub(crate) fn take(&mut self) -> ReplyTo {
        if self.before > 0 {
            self.before -= 1;
            return ReplyTo::Answer;
        }
        match self.announce.take() {
            Some(announced) => {
                self.before = std::mem::take(&mut self.after);
                ReplyTo::Announce(announced)
            }
            None => ReplyTo::Nothing,
        }
    }
}

/// Slot for a connection.
pub(crate) struct Slot {
    pub(crate) socket: Socket,
    pub(crate) state: ClientState,
    /// Intended start of the client.
    pub(crate) started: Nanos,
    /// Deadline of the pending request.
    pub(crate) deadline: Option<Nanos>,
    pub(crate) replies: Replies,
    pub(crate) scrape: Option<PendingScrape>,
    /// Number of torrents that the client has joined, the first ones.
    pub(crate) joined: u8,
    /// Membership of the next announce.
    pub(crate) next_membership: u8,
    /// Sequence number of the next offer, and of the first one of this client.
    pub(crate) sequence: u32,
    pub(crate) first_sequence: u32,
    /// Number of consecutive failures.
    pub(crate) failures: u8,
    /// Whether the tracker has sent a failure message.
    pub(crate) was_refused: bool,
    /// Whether the slot has work to do before the phase ends.
    pub(crate) busy: bool,
}

impl Slot {
    pub(crate) fn new(client: WebSocketClient, slot: u32) -> Self {
        Self {
            socket: Socket::new(client, slot),
            state: ClientState::Absent,
            started: 0,
            deadline: None,
            replies: Replies::default(),
            scrape: None,
            joined: 0,
            next_membership: 0,
            sequence: 0,
            first_sequence: 0,
            failures: 0,
            was_refused: false,
            busy: false,
        }
    }

    /// Starts another client.
    pub(crate) fn begin(
        &mut self,
        wire: Connection,
        upgrade: &Upgrade,
        now: Nanos,
        events: &Events,
    ) -> Result<(), SocketError> {
        self.clear();
        // Sequence numbers start at 1.
        self.sequence = self.sequence.max(1);
        self.first_sequence = self.sequence;
        self.state = ClientState::Upgrading;
        self.started = now;
        self.socket.connect(wire, upgrade, events)
    }

    /// Number of clients that the slot has had, which makes peer ids unique.
    pub(crate) fn generation(&self) -> u32 {
        self.socket.token().generation
    }

    /// Closes the connection. The caller handles the requests in flight.
    pub(crate) fn clear(&mut self) {
        self.socket.close();
        self.state = ClientState::Absent;
        self.deadline = None;
        self.replies = Replies::default();
        self.scrape = None;
        self.joined = 0;
        self.next_membership = 0;
        self.was_refused = false;
    }

    /// Whether a request may be sent.
    pub(crate) fn is_free(&self) -> bool {
        self.state == ClientState::Joined && self.replies.announce().is_none() && self.scrape.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_apart_by_their_order() {
        let (mut replies, announced) = (Replies::default(), PendingAnnounce { membership: 1, intended: 2 });
        assert_eq!(replies.take(), ReplyTo::Nothing);
        replies.answered();
        replies.announced(announced);
        replies.answered();
        replies.answered();
        let order: Vec<ReplyTo> = (0..5).map(|_| replies.take()).collect();
        let announce = ReplyTo::Announce(announced);
        assert_eq!(order, [ReplyTo::Answer, announce, ReplyTo::Answer, ReplyTo::Answer, ReplyTo::Nothing]);
    }
}
