//! Places for connections: each has one client after the other.

use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::connection::Connection;
use aquatic_load_engine::events::Events;

use crate::config::WebSocketClient;
use crate::socket::{Socket, SocketError, Upgrade};

/// How far a client has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClientState {
    /// There is none.
    #[default]
    Absent,
    /// The connection is being made, or made one of WebSocket.
    Upgrading,
    /// It announces to its torrents for the first time, one after the other.
    Joining,
    /// It is in all its torrents.
    Joined,
    /// It announces to its torrents that it stops, one after the other.
    Stopping,
    /// It said goodbye.
    Closing,
}

/// An announce without a reply yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PendingAnnounce {
    pub(crate) membership: u8,
    /// Intended send time, from which the latency is measured.
    pub(crate) intended: Nanos,
}

/// A scrape without a reply yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PendingScrape {
    /// What its torrents follow from.
    pub(crate) subject: u64,
    pub(crate) intended: Nanos,
}

/// What a reply to an announce, or a failure, is the reply to. Some trackers reply to answers, too, and then in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replies {
    /// Answers sent before the announce, or without one under way.
    before: u32,
    announce: Option<PendingAnnounce>,
    /// Answers sent after the announce.
    after: u32,
}

/// See [`Replies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyTo {
    Announce(PendingAnnounce),
    Answer,
    /// Nothing that a reply is due to.
    Nothing,
}

impl Replies {
    pub(crate) fn announce(&self) -> Option<PendingAnnounce> {
        self.announce
    }

    pub(crate) fn announced(&mut self, announced: PendingAnnounce) {
        self.announce = Some(announced);
    }

    /// An answer was sent that will be replied to.
    pub(crate) fn answered(&mut self) {
        *(if self.announce.is_some() { &mut self.after } else { &mut self.before }) += 1;
    }

    /// A reply has come.
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

/// A place for a connection.
pub(crate) struct Slot {
    pub(crate) socket: Socket,
    pub(crate) state: ClientState,
    /// When the client was begun.
    pub(crate) started: Nanos,
    /// By when the tracker has to do something.
    pub(crate) deadline: Option<Nanos>,
    pub(crate) replies: Replies,
    pub(crate) scrape: Option<PendingScrape>,
    /// The client is in this many of its torrents, the first ones.
    pub(crate) joined: u8,
    /// Which torrent to announce to next.
    pub(crate) next_membership: u8,
    /// The number of the next offer, and of the first one of this client.
    pub(crate) sequence: u32,
    pub(crate) first_sequence: u32,
    /// Failures in a row.
    pub(crate) failures: u8,
    /// Whether a failure message has come.
    pub(crate) was_refused: bool,
    /// Whether something remains to be done before the phase is over.
    pub(crate) busy: bool,
}

impl Slot {
    pub(crate) fn new(client: WebSocketClient, place: u32) -> Self {
        Self {
            socket: Socket::new(client, place),
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

    /// Gives it another client.
    pub(crate) fn begin(
        &mut self,
        wire: Connection,
        upgrade: &Upgrade,
        now: Nanos,
        events: &Events,
    ) -> Result<(), SocketError> {
        self.clear();
        // Offers are numbered from 1.
        self.sequence = self.sequence.max(1);
        self.first_sequence = self.sequence;
        self.state = ClientState::Upgrading;
        self.started = now;
        self.socket.connect(wire, upgrade, events)
    }

    /// Counts the clients that had this place, so that each has a peer id of its own.
    pub(crate) fn generation(&self) -> u32 {
        self.socket.token().generation
    }

    /// Closes the connection. What was due on it, the caller has to take care of.
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
