//! Waking a core that sleeps, from another core: a flag that says what the core does, and an eventfd in its
//! epoll set that is written to only if the core has said that it sleeps.
//!
//! Whoever has put something where the core will find it calls [`notify`](Notifier::notify). The core takes
//! the notice before it looks, and says that it sleeps only if no notice has come; so either the core sees
//! what was put there, or the sender sees that the core sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

/// The core runs and has no notice.
const AWAKE: u8 = 0;
/// Something has been put where the core has not looked since.
const NOTIFIED: u8 = 1;
/// The core sleeps, or is about to, and has to be woken.
const ASLEEP: u8 = 2;

/// How other cores notify one core. Apart from other data, so that only notices cost the core a cache miss.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Notifier {
    state: AtomicU8,
    wake: OwnedFd,
}

impl Notifier {
    /// The notifier of a core that is not running yet.
    ///
    /// # Errors
    /// Those of `eventfd`, such as too many open files.
    pub(crate) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: AtomicU8::new(AWAKE), wake })
    }

    /// Tells the core that something waits for it. To be called after that has been put in place.
    pub(crate) fn notify(&self) {
        // With the fence in `take`: if this reads a notice that the core has yet to take, the core will see
        // what was put in place before.
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) != NOTIFIED
            && self.state.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP
        {
            // The descriptor is valid, and its counter takes 2^64 notices.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Whether the core sleeps, or is about to, and has no notice.
    pub(crate) fn is_asleep(&self) -> bool {
        self.state.load(Ordering::Relaxed) == ASLEEP
    }

    /// Whether there has been a notice since the last call. The core looks at what waits for it afterwards.
    pub(crate) fn take(&self) -> bool {
        if self.state.load(Ordering::Relaxed) != NOTIFIED {
            return false;
        }
        self.state.swap(AWAKE, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        true
    }

    /// Says that the core sleeps from now on and has to be woken. Returns false, and the core must not sleep,
    /// if there has been a notice.
    pub(crate) fn begin_sleep(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Says that the core runs again. A notice stays one.
    pub(crate) fn end_sleep(&self) {
        let _notified = self.state.compare_exchange(ASLEEP, AWAKE, Ordering::SeqCst, Ordering::Relaxed);
    }
}

impl AsFd for Notifier {
    /// What becomes readable when the core is to be woken. Need not be read: each notice is an edge.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    use super::*;

    fn written(notifier: &Notifier) -> Option<u64> {
        let mut count = [0; 8];
        rustix::io::read(&notifier.wake, &mut count).ok().map(|_| u64::from_ne_bytes(count))
    }

    #[test]
    fn only_a_sleeping_core_is_woken_and_only_once() {
        let notifier = Notifier::new().unwrap();
        notifier.notify();
        notifier.notify();
        assert_eq!(written(&notifier), None, "the core was awake");
        assert!(!notifier.begin_sleep(), "there is a notice");
        assert!(notifier.take() && !notifier.take());
        assert!(notifier.begin_sleep());
        notifier.notify();
        notifier.notify();
        assert_eq!(written(&notifier), Some(1));
        notifier.end_sleep();
        assert!(notifier.take(), "the notice that ended the sleep");
        assert!(notifier.begin_sleep());
        notifier.end_sleep();
        notifier.notify();
        assert_eq!(written(&notifier), None, "the core has woken by itself");
        assert!(notifier.take());
    }

    #[test]
    fn no_notice_is_lost() {
        const MESSAGES: u64 = 20_000;
        let notifier = Arc::new(Notifier::new().unwrap());
        let sent = Arc::new(AtomicU64::new(0));
        let (far, counter) = (Arc::clone(&notifier), Arc::clone(&sent));
        let sender = thread::spawn(move || {
            for nth in 0..MESSAGES {
                counter.store(nth + 1, Ordering::Relaxed);
                far.notify();
                for _ in 0..nth % 64 {
                    std::hint::spin_loop();
                }
            }
        });
        let mut seen = 0;
        while seen < MESSAGES {
            if notifier.take() {
                seen = sent.load(Ordering::Relaxed);
            } else if notifier.begin_sleep() {
                let mut fds = [PollFd::new(&*notifier, PollFlags::IN)];
                let woken = poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap();
                assert_eq!(woken, 1, "asleep with {seen} of {} messages seen", sent.load(Ordering::Relaxed));
                let _ = written(&notifier);
                notifier.end_sleep();
            }
        }
        sender.join().unwrap();
    }
}
