//! The side that takes over.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use super::connection::{Connection, Incoming};
use super::message::{Hello, Message};
use super::{DecidedByHand, StateReceived, VARIABLE, WATCH_PERIOD};
use crate::executor::Control;
use crate::kept::RECORD_LENGTH;
use crate::mailbox::MailboxSender;
use crate::supervise::Event;

/// Longest wait for what the predecessor sends at once.
const OFFER_DEADLINE: Duration = Duration::from_secs(10);

/// Longest wait for the last changes, and for the predecessor to have given up its place.
const SWITCH_DEADLINE: Duration = Duration::from_secs(4);

/// Longest wait before the other source of news is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Maximum length of what was decided by hand, in bytes.
const MAX_BY_HAND: usize = 16 * 1024 * 1024;

/// Maximum number of sockets.
const MAX_SOCKETS: usize = 65_536;

/// What the predecessor has sent.
pub(crate) struct Offer {
    connection: Connection,
    pub(crate) pid: u32,
    pub(crate) cores: usize,
    pub(crate) keys: [u8; RECORD_LENGTH],
    pub(crate) stream: Option<UnixStream>,
    pub(crate) directory: Option<(PathBuf, OwnedFd)>,
    /// Listening sockets and their cores.
    pub(crate) sockets: Vec<(usize, OwnedFd)>,
}

/// The connection to the predecessor, if there is one.
fn connection() -> Option<Connection> {
    std::env::var_os(VARIABLE)?;
    let stdin = io::stdin().as_fd().try_clone_to_owned().ok()?;
    (socket_type(&stdin).ok()? == SocketType::SEQPACKET).then(|| Connection::of(stdin))
}

/// Whether another process has started this one to take over.
pub(super) fn has_predecessor() -> bool {
    connection().is_some()
}

/// Tells the predecessor, if there is one, why this process does not take over.
pub fn refuse(reason: &str) {
    if let Some(connection) = connection() {
        // Without the predecessor nobody wants to know.
        let _ = connection.send(&Message::Refused(reason.to_owned()), &[]);
    }
}

impl Offer {
    /// Receives what the predecessor sends first; `None` if this process has none.
    ///
    /// # Errors
    /// It sends something else, or nothing.
    pub(crate) fn receive() -> Result<Option<Self>, String> {
        let Some(connection) = connection() else { return Ok(None) };
        let (message, descriptors) = next(&connection)?;
        let Message::Hello(hello) = message else {
            return Err(format!("the predecessor has sent {message:?} first"));
        };
        let mut offer = Self::begin(connection, *hello, descriptors)?;
        loop {
            match next(&offer.connection)? {
                (Message::Begin, _) => return Ok(Some(offer)),
                (Message::Sockets(cores), fds) if cores.len() == fds.len() => {
                    offer.sockets.extend(cores.iter().map(|core| *core as usize).zip(fds));
                    if offer.sockets.len() > MAX_SOCKETS {
                        return Err("the predecessor has sent too many sockets".to_owned());
                    }
                }
                (message, fds) => {
                    return Err(format!(
                        "the predecessor has sent {message:?} with {} descriptors",
                        fds.len()
                    ));
                }
            }
        }
    }

    fn begin(connection: Connection, hello: Hello, descriptors: Vec<OwnedFd>) -> Result<Self, String> {
        let Hello { cores, pid, has_state, keys, directory } = hello;
        if descriptors.len() != usize::from(has_state) + usize::from(directory.is_some()) {
            return Err(format!("the predecessor has sent {} descriptors first", descriptors.len()));
        }
        let mut descriptors = descriptors.into_iter();
        let stream = if has_state { descriptors.next().map(UnixStream::from) } else { None };
        Ok(Self {
            connection,
            pid,
            cores: cores as usize,
            keys,
            stream,
            directory: directory.zip(descriptors.next()),
            sockets: Vec::new(),
        })
    }

    /// The connection, for the rest of the hand-over.
    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }
}

fn next(connection: &Connection) -> Result<(Message, Vec<OwnedFd>), String> {
    match connection.receive(OFFER_DEADLINE) {
        Ok(Incoming::Message(message, descriptors)) => Ok((message, descriptors)),
        Ok(Incoming::Nothing) => Err("the predecessor sends nothing".to_owned()),
        Ok(Incoming::End) => Err("the predecessor has ended".to_owned()),
        Err(error) => Err(format!("the predecessor cannot be understood: {error}")),
    }
}

/// Whether this process has the place of its predecessor: decided between the thread that leads the hand-over
/// and the main thread, which may have been told to stop.
#[derive(Debug, Default)]
pub(crate) struct Place(AtomicU8);

/// The predecessor has it, or nobody has decided yet.
const WAITING: u8 = 0;
/// This process serves: what it has is to be saved when it stops.
const TAKEN: u8 = 1;
/// This process stops, and leaves everything to the predecessor.
const DECLINED: u8 = 2;

impl Place {
    /// Takes the place. Returns false if this process is stopping.
    fn take(&self) -> bool {
        self.0.compare_exchange(WAITING, TAKEN, Ordering::SeqCst, Ordering::SeqCst) != Err(DECLINED)
    }

    /// Leaves the place to the predecessor after all.
    fn give_back(&self) {
        let _ = self.0.compare_exchange(TAKEN, WAITING, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Has the place not be taken any more. Returns whether it has been, so that this process is the one to
    /// save.
    pub(crate) fn stop(&self) -> bool {
        self.0.compare_exchange(WAITING, DECLINED, Ordering::SeqCst, Ordering::SeqCst) == Err(TAKEN)
    }
}

/// The rest of the hand-over, once the cores run.
pub(crate) struct Takeover {
    pub(crate) connection: Connection,
    pub(crate) pid: u32,
    /// What has become of the state; `None` if none comes along.
    pub(crate) state: Option<Receiver<StateReceived>>,
    pub(crate) by_hand: Option<Arc<dyn DecidedByHand>>,
    pub(crate) control: Vec<MailboxSender<Control>>,
    pub(crate) place: Arc<Place>,
    pub(crate) events: Sender<Event>,
}

/// How this process came to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The predecessor has handed over.
    Handed,
    /// The predecessor has gone before.
    Orphaned,
    /// This process stops.
    Declined,
}

impl Takeover {
    /// Does all of it, on a side thread, and reports the outcome to the main thread. Does not return before
    /// the process ends.
    pub(crate) fn run(self) {
        match self.lead() {
            Ok(outcome) if outcome == Outcome::Declined || !self.place.take() => {
                let _ = self.connection.send(&Message::Refused("it has been told to stop".to_owned()), &[]);
            }
            Ok(outcome) => {
                for core in &self.control {
                    // A core that receives no commands is noticed as a stalled one.
                    let _ = core.try_send(Control::Resume);
                }
                if outcome == Outcome::Handed {
                    // It may have died since.
                    let _ = self.connection.receive(SWITCH_DEADLINE);
                } else {
                    log::warn!(
                        "process {} has ended in the midst of handing over; this one serves with what it has received",
                        self.pid
                    );
                }
                let _ = self.events.send(Event::TookOver(self.pid));
                self.until_ended();
                let _ = self.events.send(Event::PredecessorEnded);
            }
            Err(why) => {
                self.place.give_back();
                let _ = self.connection.send(&Message::Refused(why.clone()), &[]);
                let _ = self.events.send(Event::Ended { who: "the hand-over".to_owned(), why });
            }
        }
        loop {
            std::thread::park();
        }
    }

    /// Waits until the predecessor, which serves its last connections, has ended.
    fn until_ended(&self) {
        while let Ok(Incoming::Message(..) | Incoming::Nothing) = self.connection.receive(WATCH_PERIOD) {}
    }

    fn lead(&self) -> Result<Outcome, String> {
        if self.connection.send(&Message::Started(std::process::id()), &[]).is_err() {
            return Ok(Outcome::Orphaned);
        }
        if !self.until_loaded()? || self.connection.send(&Message::Loaded, &[]).is_err() {
            return Ok(Outcome::Orphaned);
        }
        let mut by_hand = Vec::new();
        loop {
            match self.connection.receive(Duration::from_secs(60)) {
                Ok(Incoming::Nothing) => {}
                Ok(Incoming::End) => return Ok(Outcome::Orphaned),
                Ok(Incoming::Message(Message::Switch, _)) => break,
                Ok(Incoming::Message(Message::ByHand { is_last, part }, _)) => {
                    self.take_by_hand(&mut by_hand, (is_last, &part))?;
                }
                Ok(Incoming::Message(message, _)) => return Err(unexpected(&message)),
                Err(error) => return Err(format!("the predecessor cannot be understood: {error}")),
            }
        }
        if let Some(state) = &self.state {
            match state.recv_timeout(SWITCH_DEADLINE) {
                Ok(StateReceived::Marked) => {}
                Ok(StateReceived::Failed(why)) => return Err(why),
                Ok(StateReceived::Loaded) | Err(RecvTimeoutError::Timeout) => {
                    return Err("the last changes did not arrive in time".to_owned());
                }
                Err(RecvTimeoutError::Disconnected) => return Err("the state has ended too early".to_owned()),
            }
        }
        // A predecessor that no longer waits cannot be told, and serves by itself, or has gone.
        if !self.place.take() {
            return Ok(Outcome::Declined);
        }
        match self.connection.send(&Message::Serving, &[]) {
            Ok(()) => Ok(Outcome::Handed),
            Err(_) => match self.connection.receive(Duration::ZERO) {
                Ok(Incoming::End) => Ok(Outcome::Orphaned),
                _ => Err("the predecessor no longer waits".to_owned()),
            },
        }
    }

    /// Takes in a part of what was decided by hand, and applies all of it with the last part, while the
    /// predecessor still serves.
    fn take_by_hand(&self, bytes: &mut Vec<u8>, (is_last, part): (bool, &[u8])) -> Result<(), String> {
        bytes.extend_from_slice(part);
        if bytes.len() > MAX_BY_HAND {
            return Err("what has been decided by hand is too long".to_owned());
        }
        if let Some(by_hand) = self.by_hand.as_ref().filter(|_| is_last) {
            by_hand.take_over(&std::mem::take(bytes))?;
        }
        Ok(())
    }

    /// Waits for the state. Returns false if the predecessor has gone.
    fn until_loaded(&self) -> Result<bool, String> {
        let Some(state) = &self.state else { return Ok(true) };
        let mut is_sent = true;
        loop {
            if is_sent {
                match state.recv_timeout(POLL) {
                    Ok(StateReceived::Loaded) => return Ok(true),
                    Ok(StateReceived::Failed(why)) => return Err(why),
                    Ok(StateReceived::Marked) => return Err("the state has a mark too early".to_owned()),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => is_sent = false,
                }
            }
            let timeout = if is_sent { Duration::ZERO } else { SWITCH_DEADLINE };
            match self.connection.receive(timeout) {
                Ok(Incoming::Nothing) if is_sent => {}
                Ok(Incoming::Nothing) => return Err("the state has ended too early".to_owned()),
                Ok(Incoming::End) => return Ok(false),
                Ok(Incoming::Message(message, _)) => return Err(unexpected(&message)),
                Err(error) => return Err(format!("the predecessor cannot be understood: {error}")),
            }
        }
    }
}

fn unexpected(message: &Message) -> String {
    if let Message::Refused(why) = message {
        format!("the predecessor goes on by itself: {why}")
    } else {
        format!("the predecessor has sent {message:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_or_declined() {
        let place = Place::default();
        assert!(place.take() && place.take(), "an orphan may have been about to serve");
        assert!(place.stop(), "what it has is to be saved");
        let place = Place::default();
        assert!(!place.stop() && !place.take() && !place.stop());
        let place = Place::default();
        assert!(place.take());
        place.give_back();
        assert!(!place.stop() && !place.take());
    }
}
