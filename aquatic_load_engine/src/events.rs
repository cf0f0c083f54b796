//! What the kernel has to say about connections.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::clock::{Nanos, SECOND};

/// Events taken from the kernel at a time.
const MAX_EVENTS: usize = 256;

/// What a connection is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its place among those of the thread.
    pub place: u32,
    /// Counts the connections that had this place, so that an event of one is not taken for one of the next.
    pub generation: u32,
}

impl Token {
    fn data(self) -> EventData {
        EventData::new_u64(u64::from(self.generation) << 32 | u64::from(self.place))
    }

    fn of(data: u64) -> Self {
        Self { place: data as u32, generation: (data >> 32) as u32 }
    }
}

/// Something happened on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What the connection was called when it was given to [`Events::watch`].
    pub token: Token,
    /// Whether the kernel takes more to send.
    pub writable: bool,
    /// Whether the other side will send nothing any more, or the connection failed.
    pub ending: bool,
}

/// The connections of a thread. Each change on one is reported once (edge-triggered).
#[derive(Debug)]
pub struct Events {
    epoll: OwnedFd,
    /// What has happened, and was not taken yet.
    happened: VecDeque<Event>,
}

impl Events {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            happened: VecDeque::with_capacity(MAX_EVENTS),
        })
    }

    /// Reports what comes in on a connection. It ends when the connection is closed.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn watch(&self, connection: &impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, connection, token.data(), READS)?)
    }

    /// Reports what comes in on a connection, and when the kernel accepts more to send.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn watch_both(&self, connection: &impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, connection, token.data(), READS | EventFlags::OUT)?)
    }

    /// Also reports from now on when a watched connection takes more to send.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn watch_room(&self, connection: &impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, connection, token.data(), READS | EventFlags::OUT)?)
    }

    /// Waits up to so long for something to happen, and returns how much did.
    pub fn wait(&mut self, most: Nanos) -> usize {
        let timeout = Timespec {
            tv_sec: i64::try_from(most / SECOND).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(most % SECOND).unwrap_or(0),
        };
        let mut space = [const { MaybeUninit::<epoll::Event>::uninit() }; MAX_EVENTS];
        match epoll::wait(&self.epoll, space.as_mut_slice(), Some(&timeout)) {
            Ok((happened, _)) => self.happened.extend(happened.iter().map(|event| {
                // Copies, as the kernel's structure is packed.
                let (data, flags) = (event.data, event.flags);
                Event {
                    token: Token::of(data.u64()),
                    writable: flags.contains(EventFlags::OUT),
                    ending: flags.intersects(ENDS),
                }
            })),
            Err(Errno::INTR) => {}
            Err(error) => log::warn!("cannot wait for connections: {error}"),
        }
        self.happened.len()
    }

    /// Takes what has happened, one event after the other.
    pub fn take(&mut self) -> Option<Event> {
        self.happened.pop_front()
    }
}

const READS: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);
const ENDS: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);
