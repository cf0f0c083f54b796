//! Whether this process serves, for side threads with sockets of their own: not before it has taken over from
//! another one, and not after it has handed over.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

/// Begin and end of serving. Copies share them.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Readable once it has begun.
    begun: Arc<OwnedFd>,
    /// Readable once it has ended.
    ended: Arc<OwnedFd>,
    /// Another process serves.
    elsewhere: Arc<AtomicBool>,
}

impl Serving {
    /// Neither begun nor ended.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new(has_predecessor: bool) -> io::Result<Self> {
        let flag = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Arc::new);
        let elsewhere = Arc::new(AtomicBool::new(has_predecessor));
        Ok(Self { begun: flag()?, ended: flag()?, elsewhere })
    }

    pub(crate) fn begin(&self) {
        self.elsewhere.store(false, Ordering::Relaxed);
        set(&self.begun);
    }

    pub(crate) fn end(&self) {
        self.elsewhere.store(true, Ordering::Relaxed);
        set(&self.ended);
    }

    /// Whether another process serves, so that what the sockets need besides is not this one's to remove.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere.load(Ordering::Relaxed)
    }

    /// Waits until this process serves.
    pub fn until_begun(&self) {
        while poll(&mut [PollFd::new(&self.begun, PollFlags::IN)], None) == Err(rustix::io::Errno::INTR) {}
    }

    /// Waits until a socket has something to read. Returns false if another process serves from now on.
    pub fn until_readable(&self, socket: impl AsFd) -> bool {
        loop {
            let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&self.ended, PollFlags::IN)];
            let polled = poll(&mut fds, None);
            let [_, ended] = fds;
            if ended.revents().contains(PollFlags::IN) {
                return false;
            }
            if polled != Err(rustix::io::Errno::INTR) {
                return true;
            }
        }
    }
}

fn set(flag: &OwnedFd) {
    // The counter has room for more than one.
    let _ = rustix::io::write(flag, &1_u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn begin_and_end_are_noticed() {
        let serving = Serving::new(true).unwrap();
        assert!(serving.is_elsewhere());
        let copy = serving.clone();
        let waiting = std::thread::spawn(move || copy.until_begun());
        serving.begin();
        waiting.join().unwrap();
        assert!(!serving.is_elsewhere());
        let (socket, mut other) = UnixStream::pair().unwrap();
        other.write_all(b"x").unwrap();
        assert!(serving.until_readable(&socket));
        serving.end();
        assert!(!serving.until_readable(&socket) && serving.is_elsewhere());
    }
}
