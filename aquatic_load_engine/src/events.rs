//! Readiness events of connections (epoll).

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::clock::{Nanos, SECOND};

/// Maximum number of events per system call.
const MAX_EVENTS: usize = 256;

/// Identifies a connection in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Slot of the connection in its thread.
    pub slot: u32,
    /// Number of connections that the slot had before, so that late events of those are recognised.
    pub generation: u32,
}

impl Token {
    fn data(self) -> EventData {
        EventData::new_u64(u64::from(self.generation) << 32 | u64::from(self.slot))
    }

    fn of(data: u64) -> Self {
        Self { slot: data as u32, generation: (data >> 32) as u32 }
    }
}

/// Readiness event of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Token passed to [`Events::watch`].
    pub token: Token,
    /// Whether the kernel accepts more data to send.
    pub writable: bool,
    /// Whether the remote side has finished sending, or the connection failed.
    pub ending: bool,
}

/// Edge-triggered epoll instance of a thread.
#[derive(Debug)]
pub struct Events {
    epoll: OwnedFd,
    /// Events received from the kernel and not yet returned.
    received: VecDeque<Event>,
}

impl Events {
    /// Creates an epoll instance.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            received: VecDeque::with_capacity(MAX_EVENTS),
        })
    }

    /// Watches a connection for incoming data until it is closed.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn watch(&self, connection: &impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, connection, token.data(), READS)?)
    }

    /// Watches a connection for incoming data and for room to send.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn watch_read_write(&self, connection: &impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, connection, token.data(), READS | EventFlags::OUT)?)
    }

    /// Also watches a watched connection for room to send.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn watch_writable(&self, connection: &impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, connection, token.data(), READS | EventFlags::OUT)?)
    }

    /// Waits for events, at most for `timeout`, and returns the number of events to take.
    pub fn wait(&mut self, timeout: Nanos) -> usize {
        if timeout > 0 {
            let timespec = Timespec {
                tv_sec: i64::try_from(timeout / SECOND).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(timeout % SECOND).unwrap_or(0),
            };
            // epoll_wait(2) counts milliseconds: a request that is due sooner would be late. Errors show
            // below.
            let _ = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&timespec));
        }
        let mut space = [const { MaybeUninit::<epoll::Event>::uninit() }; MAX_EVENTS];
        match epoll::wait(&self.epoll, space.as_mut_slice(), Some(&Timespec::default())) {
            Ok((events, _)) => self.received.extend(events.iter().map(|event| {
                // The kernel's structure is packed, so its fields are copied.
                let (data, flags) = (event.data, event.flags);
                Event {
                    token: Token::of(data.u64()),
                    writable: flags.contains(EventFlags::OUT),
                    ending: flags.intersects(ENDS),
                }
            })),
            Err(Errno::INTR) => {}
            Err(error) => log::warn!("epoll_wait failed: {error}"),
        }
        self.received.len()
    }

    /// Removes and returns the next event.
    pub fn take(&mut self) -> Option<Event> {
        self.received.pop_front()
    }
}

const READS: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);
const ENDS: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, MILLISECOND};

    #[test]
    fn waits_shorter_than_a_millisecond_are_exact() {
        const WAIT: Nanos = MILLISECOND / 4;
        let mut events = Events::new().unwrap();
        let clock = Clock::start();
        let mut shortest = Nanos::MAX;
        // On a busy machine some are longer.
        while shortest >= MILLISECOND && clock.now() < 10 * SECOND {
            let begin = clock.now();
            assert_eq!(events.wait(WAIT), 0);
            let took = clock.now() - begin;
            assert!(took >= WAIT, "{took} ns");
            shortest = shortest.min(took);
        }
        assert!(shortest < MILLISECOND, "{shortest} ns");
    }
}
