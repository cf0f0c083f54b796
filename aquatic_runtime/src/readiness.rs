//! One epoll set per core, drained by one task.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

/// What a source waits for, and how its registration is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For connections: registered once for both directions, no system call per wait. Each arrival of data wakes the
    /// core.
    Edge,
    /// For sockets that are drained in a loop, such as UDP: armed by each wait and silent in between, so that a busy
    /// socket causes no wake-ups; a wait costs one system call.
    OneShot,
}

/// A core's set of sources.
#[derive(Clone, Debug)]
pub struct Readiness {
    inner: Rc<()>,
}

impl Readiness {
    /// Registers a descriptor, which must be in non-blocking mode, and takes it over. Dropping the source closes it.
    ///
    /// # Errors
    /// Those of `epoll_ctl`, such as too many watched descriptors.
    pub fn register<T: AsFd>(&self, io: T, mode: Mode) -> io::Result<Source<T>> {
        let _ = (&self.inner, mode);
        Ok(Source { io })
    }
}

/// A registered descriptor.
#[derive(Debug)]
pub struct Source<T: AsFd> {
    io: T,
}

impl<T: AsFd> Source<T> {
    /// What was registered.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Completes when the descriptor may have something to read. It may complete without anything being there: the
    /// caller reads until that would block, and waits again. One task may wait for each direction.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub async fn readable(&self) -> io::Result<()> {
        Ok(())
    }

    /// Completes when the descriptor may take something; as [`readable`](Self::readable).
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub async fn writable(&self) -> io::Result<()> {
        Ok(())
    }

    /// Runs a read that may block; if it would have, the next [`readable`](Self::readable) really waits. Every read
    /// of a source in [`Mode::Edge`] has to go through here.
    ///
    /// # Errors
    /// Those of the operation, `WouldBlock` included.
    pub fn try_read<R>(&self, read: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        read(&self.io)
    }

    /// Runs a write that may block; as [`try_read`](Self::try_read).
    ///
    /// # Errors
    /// Those of the operation, `WouldBlock` included.
    pub fn try_write<R>(&self, write: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        write(&self.io)
    }
}
