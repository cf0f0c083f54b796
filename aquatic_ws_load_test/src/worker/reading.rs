//! Events of connections.

use aquatic_load_engine::clock::Nanos;
use aquatic_load_engine::events::Event;

use super::{Receiver, Traffic, Worker};
use crate::counters::{Kind, Note, Tally, Violation};
use crate::slot::ClientState;
use crate::socket::{Incoming, SocketError};

impl Worker {
    /// Receives and sends after an event of a connection.
    pub(super) fn handle_event(
        &mut self,
        event: Event,
        receiver: &mut Receiver,
        traffic: Traffic,
        tally: &mut Tally,
    ) {
        let now = self.plan.topology.now();
        let number = event.token.slot;
        self.outbox.clear();
        match self.receive(event, receiver, (now, traffic), tally) {
            Ok(true) => self.send(number, (now, traffic), tally),
            Ok(false) => self.closed(number, (now, traffic), tally),
            Err(error) => self.socket_failed(number, error, (now, traffic), tally),
        }
    }

    /// Receives until there is nothing more. Returns whether the connection is still open.
    fn receive(
        &mut self,
        event: Event,
        receiver: &mut Receiver,
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) -> Result<bool, SocketError> {
        let number = event.token.slot;
        let Receiver { inbox, decoder } = receiver;
        self.slots[number as usize].socket.begin(event, inbox)?;
        loop {
            match self.slots[number as usize].socket.receive(inbox, &mut self.outbox)? {
                Incoming::Nothing => return Ok(true),
                Incoming::End => return Ok(false),
                Incoming::Upgraded => self.upgraded(number, now, tally),
                Incoming::Message => {
                    let message = decoder.decode(&mut inbox.message);
                    self.message(number, message, (now, traffic), tally);
                }
                Incoming::Ping => {
                    tally.note(Note::Pings);
                    continue;
                }
            }
            self.last_received = now;
        }
    }

    /// Handles a connection that the tracker closed.
    pub(super) fn closed(&mut self, number: u32, (now, traffic): (Nanos, Traffic), tally: &mut Tally) {
        if self.slots[number as usize].state == ClientState::Closing {
            return self.client_left(number, tally);
        }
        tally.note(Note::Closed);
        self.connection_lost(number, now, traffic, tally);
    }

    /// Handles a connection that failed, or on which the tracker violated the protocol.
    pub(super) fn socket_failed(
        &mut self,
        number: u32,
        error: SocketError,
        (now, traffic): (Nanos, Traffic),
        tally: &mut Tally,
    ) {
        match error {
            SocketError::Connection(_) if self.slots[number as usize].state == ClientState::Closing => {
                return self.client_left(number, tally);
            }
            SocketError::Connection(error) => {
                return self.connection_failed(number, &error, now, traffic, tally);
            }
            SocketError::UpgradeRefused(status) => {
                tally.error_text(format!("status {status}").as_bytes());
                tally.note(Note::NotUpgraded);
                // Counted as refused here, so `connection_lost` must not count it as lost.
                let slot = &mut self.slots[number as usize];
                slot.state = ClientState::Absent;
                tally.response(Kind::Connect, slot.started, now, false);
            }
            SocketError::WrongAccept => tally.violation(Violation::WrongAccept),
            SocketError::NotUpgrade => tally.violation(Violation::NotHttp),
            SocketError::Framing => tally.violation(Violation::Framing),
        }
        self.connection_lost(number, now, traffic, tally);
    }
}
