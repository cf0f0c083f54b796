//! A descriptor kept for the moment when there is none left.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::SocketFlags;

/// A descriptor that can be given up to accept connections and close them. Otherwise connections would fill the
/// kernel's queue, and their clients would wait for nothing.
#[derive(Debug)]
pub(super) struct Reserve(RefCell<Option<OwnedFd>>);

impl Reserve {
    pub(super) fn new() -> Self {
        Self(RefCell::new(make()))
    }

    /// Accepts up to so many connections and closes them. Returns how many there were.
    pub(super) fn refuse(&self, listener: &impl AsFd, most: usize) -> usize {
        let mut spare = self.0.borrow_mut();
        drop(spare.take());
        let flags = SocketFlags::CLOEXEC;
        let refused = (0..most).take_while(|_| rustix::net::accept_with(listener, flags).is_ok()).count();
        *spare = make();
        refused
    }
}

/// The cheapest descriptor there is, and one that a locked-in process can make, too.
fn make() -> Option<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).ok()
}
