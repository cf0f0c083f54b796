//! Descriptors kept for the moment when there is none left.
//!
//! Invariants: what is given up to refuse connections is taken back before anything else gets a descriptor of
//! the process, as far as that can be seen to: a core whose task waits for events takes one without asking.
//! There are enough for each core to have taken one so.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::SocketFlags;

/// Descriptors kept for each core.
const PER_CORE: usize = 2;

/// Descriptors that can be given up to accept connections and close them. Otherwise connections would fill
/// the kernel's queue, and their clients would wait for nothing. All cores share them, so that none is left
/// without.
#[derive(Debug)]
pub(super) struct Reserve {
    kept: Mutex<Vec<OwnedFd>>,
    wanted: usize,
    /// Some are missing: descriptors that become free are not for connections.
    low: AtomicBool,
}

impl Reserve {
    pub(super) fn new(cores: usize) -> Self {
        let wanted = cores * PER_CORE;
        let reserve = Self { kept: Mutex::default(), wanted, low: AtomicBool::new(true) };
        reserve.restore();
        reserve
    }

    /// Takes back what is missing. Tells whether nothing is missing any more, so that connections may be
    /// accepted.
    pub(super) fn restore(&self) -> bool {
        !self.low.load(Ordering::Acquire) || self.fill(&mut self.lock())
    }

    /// Accepts up to so many connections and closes them. Returns how many there were.
    pub(super) fn refuse(&self, listener: &impl AsFd, most: usize) -> usize {
        let mut kept = self.lock();
        // Before any is given up, so that no other core accepts a connection with it.
        self.low.store(true, Ordering::Release);
        drop(kept.pop());
        let flags = SocketFlags::CLOEXEC;
        let refused = (0..most).take_while(|_| rustix::net::accept_with(listener, flags).is_ok()).count();
        self.fill(&mut kept);
        refused
    }

    fn fill(&self, kept: &mut Vec<OwnedFd>) -> bool {
        while kept.len() < self.wanted {
            let Some(descriptor) = make() else { return false };
            kept.push(descriptor);
        }
        self.low.store(false, Ordering::Release);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cheapest descriptor there is, and one that a locked-in process can make, too.
fn make() -> Option<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).ok()
}
