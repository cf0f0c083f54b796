//! What the kernel has to say about connections.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::clock::{Nanos, SECOND};

/// Events taken from the kernel at a time.
pub const MAX_EVENTS: usize = 256;

/// Something happened on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What the connection was called when it was given to [`Events::watch`].
    pub token: u64,
    /// Whether the kernel takes more to send.
    pub writable: bool,
    /// Whether the other side will send nothing any more, or the connection failed.
    pub ending: bool,
}

/// The connections of a thread. Each change on one is reported once (edge-triggered).
#[derive(Debug)]
pub struct Events {
    epoll: OwnedFd,
}

impl Events {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Reports what comes in on a connection. It ends when the connection is closed.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn watch(&self, connection: &impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, connection, EventData::new_u64(token), READS)?)
    }

    /// Also reports from now on when a watched connection takes more to send.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn watch_room(&self, connection: &impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, connection, EventData::new_u64(token), READS | EventFlags::OUT)?)
    }

    /// Waits up to so long for something to happen, and puts what did in place of what is in the list.
    pub fn wait(&self, most: Nanos, events: &mut Vec<Event>) {
        events.clear();
        let timeout = Timespec {
            tv_sec: i64::try_from(most / SECOND).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(most % SECOND).unwrap_or(0),
        };
        let mut space = [const { MaybeUninit::<epoll::Event>::uninit() }; MAX_EVENTS];
        match epoll::wait(&self.epoll, space.as_mut_slice(), Some(&timeout)) {
            Ok((taken, _)) => events.extend(taken.iter().map(|event| {
                // Copies, as the kernel's structure is packed.
                let (data, flags) = (event.data, event.flags);
                Event {
                    token: data.u64(),
                    writable: flags.contains(EventFlags::OUT),
                    ending: flags.intersects(ENDS),
                }
            })),
            Err(Errno::INTR) => {}
            Err(error) => log::warn!("cannot wait for connections: {error}"),
        }
    }
}

const READS: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);
const ENDS: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);
